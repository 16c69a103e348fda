"""The little of the language of manual pages, man(7), that ours need."""

from __future__ import annotations

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """Return text that stands for itself, also at the beginning of a line."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in escaped.split("\n"))


def bold(text: str) -> str:
    """Return escaped text in bold."""
    return f"\\fB{escape(text)}\\fR"


def page(name: str, section: int, version: str, about: str, body: Sequence[str]) -> str:
    """Return a page.

    :param about: what the page is about, in a few words.
    :param body: its lines below the section NAME.
    """
    kept = (
        line
        for before, line in zip(["", *body], body, strict=False)
        if not (line == ".PP" and before.startswith((".SH", ".SS")))
    )
    return "\n".join(
        [
            "'\\\" t",
            '.\\" Made by "make man"; what it says is said in the command and in docs/format.md.',
            f'.TH {name.upper()} {section} "" "nicplug {version}" "nicplug"',
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{escape(name)} \\- {escape(about)}",
            *kept,
            "",
        ]
    )


def example(lines: Sequence[str]) -> list[str]:
    """Return lines that are shown as they are."""
    return [".PP", ".RS 2", ".EX", *(escape(line) for line in lines), ".EE", ".RE"]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table, the first row its head, of cells that are escaped already."""
    columns = " ".join(["l"] * (len(rows[0]) - 1) + ["lx"])
    heads = " ".join(["lb"] * len(rows[0]))
    lines = ["\t".join(f"T{{\n{cell}\nT}}" if cell else "" for cell in row) for row in rows]
    return [".PP", ".TS", "allbox;" if len(rows[0]) > 1 else "box;", heads, f"{columns}.", *lines, ".TE"]


def squeezed(text: str) -> str:
    """Return text with each run of white space made one space."""
    return re.sub(r"\s+", " ", text).strip()
