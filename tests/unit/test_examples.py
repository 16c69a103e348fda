"""What documents show of the scripts in docs/examples is in them; the scripts use the public API alone."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from textwrap import indent

import pytest

import nicplug_xml

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = sorted(DOCS.glob("examples/*.py"))
PARTS = [
    pytest.param(DOCS / "examples" / script, part, id=f"{document.name}-{script}")
    for document in sorted(DOCS.glob("*.md"))
    for script, part in re.findall(r"^```python part=(\S+)\n(.*?)^```$", document.read_text(), re.M | re.S)
]


@pytest.mark.parametrize(("script", "part"), PARTS)
def test_what_is_shown_is_there(script: Path, part: str) -> None:
    text = script.read_text()
    assert any(f"\n{indent(part, ' ' * columns)}" in text for columns in (0, 4, 8, 12))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_public_api_is_enough(script: Path) -> None:
    tree = ast.parse(script.read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("nicplug_xml")
        for alias in node.names
    }
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "nicplug_xml"
    }
    assert {name for name in modules if name.startswith("nicplug_xml")} == {"nicplug_xml"}
    assert names | used <= set(nicplug_xml.__all__)
    assert used


def test_a_guest_that_has_ended_again_does_not_end_the_service() -> None:
    import libvirt

    conn = libvirt.open("test:///default")
    dom = conn.createXML(
        "<domain type='test'><name>short</name><memory>1</memory><os><type>hvm</type></os></domain>"
    )
    dom.destroy()
    (line,) = runpy.run_path(str(DOCS / "examples" / "autoplug.py"))["plug_all"](dom)
    assert line.startswith("short: ")
