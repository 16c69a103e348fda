"""docs/architecture.md names every module, plane, backend and endpoint that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nicplug_xml import endpoints
from nicplug_xml.backends import BACKENDS
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.planes import PLANES

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()
TABLE = DOCUMENT.partition("## Planes and endpoints")[2].partition("### ")[0]


def test_the_modules() -> None:
    table = DOCUMENT.partition("## Modules")[2].partition("## ")[0]
    named = set(re.findall(r"`(\w+)[/*]*`", table)) - {"nicplug_xml"}
    package = [
        path for path in (ROOT / "nicplug_xml").iterdir() if path.name[0] != "_" or path.suffix == ".py"
    ]
    there = {path.stem for path in package if path.suffix == ".py" or (path / "__init__.py").exists()}
    schema = {name for name in there if name.startswith("_schema_")}
    assert there - schema == (named - {"_schema_"})


@pytest.mark.parametrize("endpoint", Endpoint.__subclasses__(), ids=lambda cls: cls.__name__)
def test_the_endpoints(endpoint: type[Endpoint]) -> None:
    assert endpoint is getattr(endpoints, endpoint.__name__)
    assert re.search(rf"^\| `{endpoint.__name__}` \|", TABLE, re.MULTILINE)


@pytest.mark.parametrize("name", [*BACKENDS, *PLANES])
def test_the_backends_and_planes(name: str) -> None:
    assert f"`{name}`" in TABLE
