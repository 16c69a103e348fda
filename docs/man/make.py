"""Write the manual pages beside this file: ``make man``."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import commands
import markdown

HERE = Path(__file__).parent


def pages() -> dict[str, str]:
    """Return each page's text by the name of its file."""
    number = version("nicplug")
    return {"nicplug.1": commands.render(number), "nicplug-xml.7": markdown.render(number)}


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
