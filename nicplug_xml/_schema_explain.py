"""Say what is wrong with a document that a grammar has refused: the grammar decides, this explains.

The checks of `_CHECKS` look at an interface or backend that is known to be invalid, one after the other until
one of them finds something. When none does, the part is sought whose removal would make the document valid.
What libxml2 says comes last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from nicplug_xml._schema_files import Complaint, Grammar
from nicplug_xml.model import Problem

if TYPE_CHECKING:
    from lxml.etree import _Element

CONNECTIONS = ("deferred", "attached")
# Types that a pluggable NIC can have, with what their <source>, if there is one, cannot do without.
SOURCE_NEEDS: dict[str, tuple[str, ...]] = {
    "bridge": ("bridge",),
    "network": ("network",),
    "direct": ("dev",),
    "ethernet": (),
    "user": ("dev",),
    "udp": ("address", "port"),
    "mcast": ("address", "port"),
    "client": ("address", "port"),
    "server": ("port",),
    "cable": ("domain", "interface"),
    "netdev": ("dev",),
    "stream": (),
    "dgram": (),
    "l2tpv3": ("address",),
    "vde": ("path",),
    "fd": (),
}
#: Types whose source has one of several sets of attributes.
SOURCE_CHOICES = dict.fromkeys(("stream", "dgram"), (("path",), ("address", "port")))
SOURCE_OPTIONAL = ("ethernet", "user", "fd")
DEVICE_IS_BACKEND = ("hostdev", "vdpa", "vhostuser")
_OWN_TYPES = ("cable", "netdev", "stream", "dgram", "l2tpv3", "vde", "fd")
_STOCK_ONLY = ("internal", "null", "vds")
_ATTRIBUTES = ("type", "connection", "managed", "trustGuestRxFilters")
_MOST_NODES = 500
_TELLING = ("Expecting ", "Invalid attribute ", "extra content", "failed to validate attributes")
_NAMED = re.compile(r"[Ee]lement (\S+?),? (?:in interleave|failed)")


@dataclass(frozen=True)
class _Finding:
    node: _Element
    message: str
    hint: str = ""
    attribute: str = ""


def explain(node: _Element, grammar: Grammar) -> list[Problem]:
    """Return what is wrong with an element that `grammar` refuses: at least one problem.

    :param node: a ``<domain>``, an ``<interface>`` in it, or a ``<backend>``.
    :param grammar: the schema whose start is that element.
    """
    checks = _CHECKS if node.tag in ("interface", "backend") else ()
    # What a later check would find often follows from what an earlier one has found.
    findings = next((found for check in checks if (found := list(check(node)))), [])
    if not findings:
        culprit = _culprit(node, lambda: grammar.accepts(node))
        findings = [culprit] if culprit else [_complaint(node, grammar.complaints(node))]
    return [_problem(finding) for finding in findings]


def _problem(finding: _Finding) -> Problem:
    path = finding.node.getroottree().getpath(finding.node)
    if finding.attribute:
        path += f"/@{finding.attribute}"
    return Problem(finding.node.sourceline or 0, 0, path, finding.message, finding.hint)


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"


def _check_connection(node: _Element) -> Iterator[_Finding]:
    connection = node.get("connection")
    if connection is None:
        for name in node.attrib:
            if name not in _ATTRIBUTES and get_close_matches(name.lower(), ("connection",), cutoff=0.75):
                yield _Finding(node, f"unknown attribute {name}", "did you mean 'connection'?", name)
    elif node.tag == "backend":
        yield _Finding(node, "a backend has no connection", "leave the attribute out", "connection")
    elif connection not in CONNECTIONS:
        hint = _did_you_mean(connection, CONNECTIONS)
        yield _Finding(node, f"connection='{connection}' is not known", hint, "connection")


def _check_type(node: _Element) -> Iterator[_Finding]:
    kind, connection = node.get("type"), node.get("connection")
    pluggable = node.tag == "backend" or connection is not None
    if kind is None:
        yield from _check_type_missing(node)
    elif kind in DEVICE_IS_BACKEND and pluggable:
        what = "be a backend of its own" if node.tag == "backend" else "have a connection"
        message = f"type '{kind}' cannot {what}: there the guest's device is the backend itself"
        yield _Finding(node, message, "leave the connection out" if connection else "")
    elif kind in _STOCK_ONLY and pluggable:
        yield _Finding(node, f"type '{kind}' is not pluggable", f"pluggable are {', '.join(SOURCE_NEEDS)}")
    elif kind in _OWN_TYPES and not pluggable:
        message = f"type '{kind}' is there for pluggable interfaces only"
        yield _Finding(node, message, "add connection='attached' or connection='deferred'")
    elif kind not in (*SOURCE_NEEDS, *DEVICE_IS_BACKEND, *_STOCK_ONLY):
        known = tuple(SOURCE_NEEDS) if pluggable else (*SOURCE_NEEDS, *DEVICE_IS_BACKEND)
        yield _Finding(node, f"type '{kind}' is not known", _did_you_mean(kind, known), "type")


def _check_type_missing(node: _Element) -> Iterator[_Finding]:
    if node.tag == "backend":
        yield _Finding(node, "a backend needs a type", f"known are {', '.join(SOURCE_NEEDS)}")
    elif node.get("connection") != "deferred":
        hint = "give type and source, or connection='deferred' for a NIC that is plugged in later"
        yield _Finding(node, "an interface that is not deferred needs a type", hint)
    else:
        for name in ("source", "virtualport"):
            for child in node.iterchildren(name):
                yield _Finding(child, f"<{name}> is given without the type that it is for", "give the type")


def _check_source(node: _Element) -> Iterator[_Finding]:
    kind, connection = node.get("type"), node.get("connection")
    needs = SOURCE_NEEDS.get(kind or "", ())
    example = f"<source {' '.join(f'{name}=…' for name in needs)}/>"
    source = node.find("source")
    choices = SOURCE_CHOICES.get(kind or "", ())
    if source is not None and choices:
        if not any(all(name in source.attrib for name in choice) for choice in choices):
            wanted = ", or ".join(" and ".join(choice) for choice in choices)
            yield _Finding(source, f"the source of type '{kind}' needs {wanted}")
    elif source is not None:
        for name in needs:
            if source.get(name) is None:
                yield _Finding(source, f"the source of type '{kind}' lacks the attribute {name}", example)
    elif needs and connection != "deferred" and not _may_lack_source(node):
        later = ", or connection='deferred' to give it later" if connection == "attached" else ""
        yield _Finding(node, f"type '{kind}' needs a source", f"add {example}{later}")


def _may_lack_source(node: _Element) -> bool:
    if node.get("type") in SOURCE_OPTIONAL:
        return True
    # libvirt's own schema lets a bridge interface go without.
    return bool(node.tag == "interface" and node.get("type") == "bridge" and node.get("connection") is None)


_Check: TypeAlias = "Callable[[_Element], Iterator[_Finding]]"
_CHECKS: tuple[_Check, ...] = (_check_connection, _check_type, _check_source)


def _culprit(node: _Element, accepted: Callable[[], bool]) -> _Finding | None:
    """Find the innermost attribute or element without which the document would be valid."""
    if sum(1 for _ in islice(node.iter("*"), _MOST_NODES)) == _MOST_NODES:
        return None
    for part in list(node.iter("*")):
        for name in part.attrib:
            if _repairs_attribute(part, name, accepted):
                message = f"{name}='{part.get(name)}' is not allowed on <{part.tag}>"
                return _Finding(part, message, attribute=name)
    # Children come behind their parents here, so from the end they come first.
    for part in reversed(list(node.iterdescendants("*"))):
        if _repairs_element(part, accepted):
            return _Finding(part, f"{_start_tag(part)} is not allowed here, or not with what it holds")
    return None


def _repairs_attribute(part: _Element, name: str, accepted: Callable[[], bool]) -> bool:
    value = part.attrib.pop(name)
    repaired = accepted()
    part.set(name, value)
    return repaired


def _repairs_element(part: _Element, accepted: Callable[[], bool]) -> bool:
    placeholder = take_out(part)
    repaired = accepted()
    placeholder.getparent().replace(placeholder, part)
    return repaired


def take_out(part: _Element) -> _Element:
    """Replace an element by a comment, which no grammar minds, and return the comment.

    Unlike a plain removal this leaves the text behind the element where it is.
    """
    from lxml import etree

    placeholder = etree.Comment("")
    placeholder.tail = part.tail
    part.getparent().replace(part, placeholder)
    return placeholder


def _start_tag(node: _Element) -> str:
    return "<" + " ".join([node.tag, *(f"{name}='{value}'" for name, value in node.attrib.items())]) + ">"


def _complaint(node: _Element, complaints: list[Complaint]) -> _Finding:
    """Take the most telling of libxml2's complaints and find the place that it means."""
    ranked = sorted(complaints, key=lambda one: not any(word in one.message for word in _TELLING))
    message = ranked[0].message
    named = _NAMED.search(message)
    place = next(node.iter(named[1]), None) if named else None
    return _Finding(node if place is None else place, message)
