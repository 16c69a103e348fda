"""The documents' links lead somewhere, to an anchor where they name one; other hosts are not asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("patches/*.md")])

FENCE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(document: Path) -> str:
    return FENCE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """Return the anchors that a document's headings have, on forges and on the site."""
    headings = re.findall(r"^#+ (.*)$", without_code(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    """Return a document's links to what is not there."""
    found = []
    for link in LINK.findall(without_code(document)):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            found.append(link)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert broken(document) == []


def test_what_is_broken_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    (tmp_path / "b.md").write_text("# What's `here`\n```sh\n# not here\n```\n")
    document.write_text(
        "[1](b.md) [2](b.md#whats-here) [3](c.md) [4](b.md#not-here) [5](#there) [6](https://example.org/#x)\n"
        "```text\n[7](d.md)\n```\n"
    )
    assert broken(document) == ["c.md", "b.md#not-here", "#there"]


def test_every_page_is_in_the_contents_of_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    contents = re.findall(r"{toctree}\n(.*?)```", index, re.DOTALL)
    listed = re.findall(r"^([\w-]+)$", "".join(contents), re.MULTILINE)
    pages = {page.stem for page in ROOT.glob("docs/*.md")} - {"index"}
    assert sorted(listed) == sorted(pages)


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        document = waiting.pop().resolve()
        if document in seen or document.suffix != ".md":
            continue
        seen.add(document)
        links = (link.partition("#")[0] for link in LINK.findall(without_code(document)) if "://" not in link)
        waiting += [document.parent / link for link in links if link]
    # On the site, these two show documents that are elsewhere.
    stubs = {ROOT / "docs" / "index.md", ROOT / "docs" / "patches.md"}
    assert {page for page in ROOT.glob("docs/*.md") if page.resolve() not in seen} == stubs
    assert ROOT / "patches" / "README.md" in seen
