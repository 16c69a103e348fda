"""Validate extended domain XML and backend documents, and say where and why they are not valid.

The grammars are libvirt's own, as installed, with ours laid over them (see ``_schema_files``); whether a
document is valid is theirs to say, so that ``xmllint`` says the same. ``_schema_explain`` finds the words.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nicplug_xml._schema_explain import explain, take_out
from nicplug_xml._schema_files import grammar
from nicplug_xml.model import Problem

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["validate"]


def validate(source: str | bytes | os.PathLike[str]) -> list[Problem]:
    """Validate a document whose root is ``<domain>`` or ``<backend>``.

    A document with a DOCTYPE is refused before anything of it is expanded; nothing is ever fetched.

    :param source: XML text, XML bytes in the encoding that they declare, or a path object that names a file.
        A plain string is never taken for a file name.
    :returns: what is wrong, in the order of lines; nothing for a valid document. Bad documents do not raise.
    :raises SchemaError: libvirt's schemas cannot be found or loaded.
    :raises OSError: the file cannot be read.

    The format of a domain is libvirt's (https://libvirt.org/formatdomain.html), with the attribute
    ``connection`` on ``<interface>``.
    """
    root = _parse(source)
    if isinstance(root, Problem):
        return [root]
    check = {"domain": _check_domain, "backend": _check_backend}.get(root.tag)
    if check is None:
        message = f"nothing is known about documents whose root is <{root.tag}>"
        return [Problem(root.sourceline or 1, 0, f"/{root.tag}", message, "give a <domain> or a <backend>")]
    return sorted(check(root), key=lambda problem: problem.line)


def _check_domain(root: _Element) -> list[Problem]:
    whole, alone = grammar("domain"), grammar("interface")
    if whole.accepts(root):
        return []
    faulty = [nic for nic in root.iterfind("devices/interface") if not alone.accepts(nic)]
    problems = [problem for nic in faulty for problem in explain(nic, alone)]
    for nic in faulty:
        take_out(nic)
    if not whole.accepts(root):
        problems += explain(root, whole)
    return problems


def _check_backend(root: _Element) -> list[Problem]:
    backend = grammar("backend")
    return [] if backend.accepts(root) else explain(root, backend)


def _parse(source: str | bytes | os.PathLike[str]) -> _Element | Problem:
    from lxml import etree

    # What a string declares about its encoding was true of some file, not of the string.
    encoding = "utf-8" if isinstance(source, str) else None
    data = _data(source)
    safe = {"encoding": encoding, "resolve_entities": False, "no_network": True, "load_dtd": False}
    try:
        etree.fromstring(data, etree.XMLParser(target=_RefuseDoctype(), **safe))
        return etree.fromstring(data, etree.XMLParser(**safe))
    except _DoctypeError:
        line = data[: max(data.find(b"<!DOCTYPE"), 0)].count(b"\n") + 1
        return Problem(line, 0, "/", "a DOCTYPE is not accepted", "remove it, and write out its entities")
    except etree.XMLSyntaxError as error:
        line, column = error.position
        hint = (
            "a file is given as a pathlib.Path"
            if isinstance(source, str) and source and "<" not in source
            else ""
        )
        message = f"not well-formed: {error.msg.partition(', line ')[0]}"
        return Problem(max(line, 1), max(column, 0), "/", message, hint)


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
