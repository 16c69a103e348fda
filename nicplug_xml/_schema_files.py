"""Find libvirt's schemas, lay ours over them, and compile the result once a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

from nicplug_xml.errors import SchemaError

if TYPE_CHECKING:
    from lxml.etree import RelaxNG, _Element, _ElementTree

    from nicplug_xml._schema_patterns import Builder, Pattern

Kind = Literal["domain", "interface", "backend"]
OVERRIDE = "NICPLUG_LIBVIRT_SCHEMAS"

_AS_WRITTEN = "file:///usr/share/libvirt/schemas/"
_INCLUDE = "{http://relaxng.org/ns/structure/1.0}include"
_HINT = f"install the Debian package libvirt0, or set {OVERRIDE} to the directory that holds domain.rng"


class Grammar:
    """A compiled schema that several threads may use."""

    def __init__(self, relaxng: RelaxNG, tree: _ElementTree) -> None:
        self._relaxng = relaxng
        self._tree = tree
        # lxml keeps one error log a schema and validates without the interpreter's lock.
        self._lock = Lock()

    def accepts(self, node: _Element) -> bool:
        """Tell whether the node, taken as a document, is valid."""
        with self._lock:
            return bool(self._relaxng.validate(node))

    @property
    def pattern(self) -> Pattern:
        """What the schema says, for who wants to know what would be valid."""
        return self._patterns.define("")

    def part(self, name: str) -> Pattern:
        """Return what the schema says of one of the things that it defines."""
        return self._patterns.define(name)

    @cached_property
    def _patterns(self) -> Builder:
        from nicplug_xml._schema_patterns import Builder

        return Builder(self._tree)

    def complaint(self, node: _Element) -> str:
        """Return what libxml2 has against the node, taken as a document that is not valid."""
        with self._lock:
            self._relaxng.validate(node)
            found = [entry.message for entry in self._relaxng.error_log]
        return "; ".join(found) or "the document does not match the schema"


def grammar(kind: Kind) -> Grammar:
    """Return the compiled schema of that kind of document, compiled at most once for each libvirt found.

    :raises SchemaError: libvirt's schemas or ours are not there or cannot be loaded.
    """
    return _compiled(kind, libvirt_directory())


def schema_path(kind: Kind) -> Path:
    """Return the schema file of that kind, which ``xmllint --relaxng`` takes as it is.

    :raises SchemaError: nicplug is installed without its schemas.
    """
    package = Path(__file__).parent
    candidates = [directory / "xmlschema" / f"nicplug-{kind}.rng" for directory in (package, package.parent)]
    for path in candidates:
        if path.is_file():
            return path
    raise SchemaError(f"nicplug's own schema {candidates[0]} is missing", hint="install nicplug again")


def libvirt_directory() -> Path | None:
    """Return the directory of libvirt's RELAX NG schemas, or None to leave the search to the XML catalog.

    :raises SchemaError: ``NICPLUG_LIBVIRT_SCHEMAS`` names a directory without ``domain.rng``.
    """
    override = os.environ.get(OVERRIDE)
    if not override:
        return next((place for place in _usual_places() if (place / "domain.rng").is_file()), None)
    directory = Path(override).absolute()
    if not (directory / "domain.rng").is_file():
        raise SchemaError(
            f"{OVERRIDE} is {override}, which holds no domain.rng",
            hint="set it to the directory of libvirt's schemas, or unset it",
        )
    return directory


def _usual_places() -> Iterator[Path]:
    yield Path("/usr/share/libvirt/schemas")
    yield Path("/usr/local/share/libvirt/schemas")
    for program in ("virsh", "libvirtd"):
        found = shutil.which(program)
        if found:
            yield Path(found).resolve().parent.parent / "share/libvirt/schemas"


@cache
def _compiled(kind: Kind, directory: Path | None) -> Grammar:
    from lxml import etree

    # As a URI, for what it includes is found beside it by one: a "#" in a path would end that.
    tree = etree.parse(schema_path(kind).as_uri())
    if directory is not None:
        for include in tree.iter(_INCLUDE):
            href = include.get("href")
            if href.startswith(_AS_WRITTEN):
                include.set("href", (directory / href.removeprefix(_AS_WRITTEN)).as_uri())
    try:
        return Grammar(etree.RelaxNG(tree), tree)
    except etree.RelaxNGParseError as error:
        what = f"in {directory} cannot be used ({error})" if directory else "were not found"
        raise SchemaError(f"libvirt's XML schemas {what}", hint=_HINT) from error
