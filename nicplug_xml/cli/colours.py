"""Colours, for a terminal and for nobody else. Nothing is said by colour alone."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as in nicplug_xml.cli.arguments
if TYPE_CHECKING:
    from typing import TextIO

#: Styles, as ECMA-48 numbers them.
_STYLES = {"head": "1", "good": "32", "bad": "1;31", "waiting": "33", "pale": "2"}

#: What words of a table are painted.
_OF_WORDS = {
    "CARRIER": {"up": "good", "down": "bad"},
    "LINK": {"down": "bad"},
    "CONNECTION": {"deferred": "waiting"},
}

#: What happens, as `nicplug_xml.watching.Change` names it.
_OF_KINDS = {
    "plugged": "good",
    "moved": "good",
    "started": "good",
    "unplugged": "waiting",
    "disconnected": "bad",
    "stopped": "bad",
    "removed": "bad",
}


def wanted(stream: TextIO) -> bool:
    """Whether a stream is to have colours: a terminal that can, unless ``NO_COLOR`` says no."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, style: str) -> str:
    """Return text in a style: ``head``, ``good``, ``bad``, ``waiting`` or ``pale``."""
    return f"\033[{_STYLES[style]}m{text}\033[0m"


def cell(text: str, column: str) -> str:
    """Return a cell of ``nicplug list``'s table, padded as it is, in the style that its word has there."""
    style = _OF_WORDS.get(column, {}).get(text.rstrip())
    return paint(text, style) if style else text


def change(text: str, kind: str) -> str:
    """Return what ``nicplug watch`` says of a change of that kind, in the style that such changes have."""
    style = _OF_KINDS.get(kind)
    return paint(text, style) if style else text
