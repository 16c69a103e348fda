"""Validate extended domain XML and backend documents, and say where and why they are not valid.

The grammars are libvirt's own, as installed, with ours laid over them (see ``_schema_files``); whether a
document is valid is theirs to say, so that ``xmllint`` says the same. ``_schema_explain`` finds the words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nicplug_xml._schema_explain import explain, take_out
from nicplug_xml._schema_files import grammar
from nicplug_xml._schema_walk import Finding
from nicplug_xml.document import Document, Element, decode
from nicplug_xml.errors import SchemaError
from nicplug_xml.frozen import replace
from nicplug_xml.model import Problem

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["validate"]

_ROOTS = ("domain", "interface", "backend")
#: What is probably meant where libxml2 says this.
_HINTS = {
    "EntityRef:": "an & is written &amp;",
    "AttValue:": "a value is in quotes, as in bridge='br0'",
    "Unescaped '<'": "the quote behind a value may be missing; else a < is written &lt;",
}


def validate(source: str | bytes | os.PathLike[str]) -> list[Problem]:
    """Validate a document whose root is ``<domain>``, ``<interface>`` or ``<backend>``.

    A document with a DOCTYPE is refused before anything of it is expanded; nothing is ever fetched.

    :param source: XML text, XML bytes in the encoding that they declare, or a path object that names a file.
        A plain string is never taken for a file name.
    :returns: what is wrong, in the order of lines; nothing for a valid document. Bad documents do not raise.
    :raises SchemaError: libvirt's schemas cannot be found or loaded.
    :raises OSError: the file cannot be read.

    The format of a domain is libvirt's (https://libvirt.org/formatdomain.html), with the attribute
    ``connection`` on ``<interface>``. What no grammar can say, `nicplug_xml.checks` looks for.
    """
    data = _data(source)
    # What a string declares about its encoding was true of some file, not of the string.
    root = _parse(data, "utf-8" if isinstance(source, str) else None)
    if isinstance(root, Problem):
        if isinstance(source, str) and source and "<" not in source:
            return [replace(root, hint="a file is given as a pathlib.Path")]
        return [root]
    if root.tag not in _ROOTS:
        message = f"nothing is known about documents whose root is <{root.tag}>"
        allowed = tuple(f"<{tag}>" for tag in _ROOTS)
        hint = f"give a {', a '.join(allowed[:-1])} or a {allowed[-1]}"
        return [Problem(root.sourceline or 1, 1, f"/{root.tag}", message, hint, allowed, "root")]
    if root.tag == "interface" and "name" in root.attrib:
        message = "this <interface> has a name: it is one of a host (virsh iface-define), not of a domain"
        return [Problem(root.sourceline or 1, 1, "/interface", message, code="root")]
    if grammar(root.tag).accepts(root):
        return []
    written = _written(source if isinstance(source, str) else data)
    return sorted(_problems(root, written), key=lambda problem: (problem.line, problem.column))


def _written(source: str | bytes) -> list[Element]:
    """Return the elements with their places, which libxml2 does not keep."""
    try:
        text = source if isinstance(source, str) else decode(source)[0]
        # Nothing is skipped; to say so keeps it out of the cache, which is for fragments.
        root = Document(text, lambda _data: ()).root
    except SchemaError:
        # libxml2 reads a few things that others do not: the line that it knows has to do.
        return []
    return [root, *root.below()]


def _problems(root: _Element, written: Sequence[Element]) -> Iterator[Problem]:
    places = dict(zip(root.iter("*"), written, strict=False))
    tree, whole = root.getroottree(), grammar(root.tag)

    def problem(finding: Finding) -> Problem:
        node, attribute = finding.node, finding.attribute
        line, column = node.sourceline or 0, 0
        if element := places.get(node):
            text = finding.behind
            line, column = element.place(attribute) if text is None else element.place_of_text(text)
        path = tree.getpath(node) + f"/@{attribute}" * bool(attribute)
        return Problem(line, column, path, finding.message, finding.hint, finding.allowed, finding.code)

    faulty: dict[_Element, list[Finding]] = {}
    if root.tag == "domain":
        one = whole.part("interface")
        faulty = {nic: found for nic in root.iterfind("devices/interface") if (found := explain(nic, one))}
        yield from [problem(finding) for found in faulty.values() for finding in found]
    for nic in faulty:
        take_out(nic)
    if not faulty or not whole.accepts(root):
        # Nothing is known that is refused without an explanation; then the words of libxml2 have to do.
        found = explain(root, whole.pattern) or [Finding(root, whole.complaint(root))]
        yield from map(problem, found)


def _parse(data: bytes, encoding: str | None) -> _Element | Problem:
    from lxml import etree

    safe = {"encoding": encoding, "resolve_entities": False, "no_network": True, "load_dtd": False}
    try:
        if b"<!DOCTYPE" in data or not _is_plain(data):
            etree.fromstring(data, etree.XMLParser(target=_RefuseDoctype(), **safe))
        return etree.fromstring(data, etree.XMLParser(**safe))
    except _DoctypeError:
        line = data[: max(data.find(b"<!DOCTYPE"), 0)].count(b"\n") + 1
        hint = "remove it, and write out its entities"
        return Problem(line, 0, "/", "a DOCTYPE is not accepted", hint, code="doctype")
    except etree.XMLSyntaxError as error:
        line, column = error.position
        message = f"not well-formed: {error.msg.partition(', line ')[0].strip()}"
        hint = next((hint for words, hint in _HINTS.items() if words in message), "")
        return Problem(max(line, 1), max(column, 0), "/", message, hint, code="xml")


def _is_plain(data: bytes) -> bool:
    """Whether ASCII in the document is written as ASCII, so that a DOCTYPE is seen."""
    declared = re.search(rb"""<\?xml[^>]*encoding\s*=\s*["']([^"']*)""", data)
    return b"\0" not in data and (declared is None or declared[1].lower() in (b"utf-8", b"us-ascii"))


def _data(source: str | bytes | os.PathLike[str]) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str):
        return source.encode("utf-8", "surrogatepass")
    return Path(source).read_bytes()


class _DoctypeError(Exception):
    """The document has a DOCTYPE."""


class _RefuseDoctype:
    """A parser target that stops at a DOCTYPE, before its declarations are read."""

    def doctype(self, _name: str, _public_id: str | None, _system: str | None) -> None:
        raise _DoctypeError

    def close(self) -> None:
        """Nothing has been collected."""
