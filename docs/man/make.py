"""Write the manual pages beside this file, and the reference of commands: ``make man``."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import commands
import markdown

HERE = Path(__file__).parent


def pages() -> dict[str, str]:
    """Return each page's text by its path from here."""
    number = version("nicplug")
    return {
        "nicplug.1": commands.render(number),
        "nicplug-xml.7": markdown.render(number),
        "../commands.md": commands.render_markdown(),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
