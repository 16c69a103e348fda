"""How the documents become a site: ``make site``."""

from __future__ import annotations

import os
import re
from importlib.metadata import version as version_of
from pathlib import Path

from pygments.lexers.shell import BashSessionLexer
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
#: Pages that show a document which is elsewhere; in their files is what comes below it.
ELSEWHERE = {"index": HERE.parent / "README.md", "patches": HERE.parent / "patches" / "README.md"}

project = "nicplug"
release = version = version_of("nicplug")
html_title = f"nicplug {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["examples", "man"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}

# Links are checked down to the headings, which have the anchors that forges give them.
myst_heading_anchors = 4
# Of ```console run``` and its like, only the first word is the language.
highlight_language = "none"

# Options begin with two dashes, and quotes in what is typed are straight.
smartquotes = False

default_role = "py:obj"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"


class SessionLexer(BashSessionLexer):
    """Sessions with prompts of the host and of guests: ``# `` and ``vm1# ``."""

    _ps1rgx = re.compile(r"^(\w*[#$] )(.*\n?)")
    _innerLexerCls = TextLexer


def _read(_app: Sphinx, name: str, source: list[str]) -> None:
    """Put what is elsewhere where it is to be shown, and lead links to it there."""
    document = ELSEWHERE.get(name, HERE / f"{name}.md")
    pages = {path: f"{page}.md" for page, path in ELSEWHERE.items()}

    def lead(link: re.Match[str]) -> str:
        target = (document.parent / link[1]).resolve()
        return f"]({pages.get(target) or os.path.relpath(target, HERE)}"

    text = document.read_text() + source[0] if name in ELSEWHERE else source[0]
    source[0] = re.sub(r"\]\((?!\w+:)([^)#\s]+)", lead, text)


def setup(app: Sphinx) -> None:
    """Read what is elsewhere, and colour sessions as ours are."""
    app.connect("source-read", _read)
    app.add_lexer("console", SessionLexer)
