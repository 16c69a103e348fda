"""Say what is wrong with a document that a grammar has refused: the grammar decides, this explains.

The checks of `_CHECKS` look at an interface or backend that is known to be invalid, one after the other until
one of them finds something: they know what nicplug's words are for. All else is found by going through the
document with the grammar's patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias

from nicplug_xml._schema_walk import Finding, did_you_mean, walk
from nicplug_xml.model import NEVER_PLUGGABLE

if TYPE_CHECKING:
    from lxml.etree import _Element

    from nicplug_xml._schema_patterns import Pattern

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
_OWN_TYPES = ("cable", "netdev", "stream", "dgram", "l2tpv3", "vde", "fd")
_STOCK_ONLY = ("internal", "null", "vds")
_ATTRIBUTES = ("type", "connection", "managed", "trustGuestRxFilters")
#: What words begin with that say that something is not attached, as "detached", whose letters say otherwise.
_NEGATIONS = ("de", "dis", "un")


def explain(node: _Element, pattern: Pattern) -> list[Finding]:
    """Return what is wrong with an element; nothing when it is valid.

    :param node: a ``<domain>``, an ``<interface>``, or a ``<backend>``.
    :param pattern: what it is to match.
    """
    findings = walk(node, pattern)
    checks = _CHECKS if findings and node.tag in ("interface", "backend") else ()
    # What a later check would find often follows from what an earlier one has found.
    return next((found for check in checks if (found := list(check(node)))), findings)


def _check_connection(node: _Element) -> Iterator[Finding]:
    connection = node.get("connection")
    if connection is None:
        for name in node.attrib:
            if name not in _ATTRIBUTES and get_close_matches(name.lower(), ("connection",), cutoff=0.75):
                yield Finding(
                    node, f"unknown attribute {name}", "did you mean 'connection'?", name, _ATTRIBUTES
                )
    elif node.tag == "backend":
        yield Finding(node, "a backend has no connection", "leave the attribute out", "connection")
    elif connection not in CONNECTIONS:
        is_negated = connection.lower().startswith(_NEGATIONS)
        hint = did_you_mean("deferred" if is_negated else connection, CONNECTIONS)
        message = f"connection='{connection}' is not known"
        yield Finding(node, message, hint, "connection", _quoted(CONNECTIONS))


def _check_type(node: _Element) -> Iterator[Finding]:
    kind, connection = node.get("type"), node.get("connection")
    pluggable = node.tag == "backend" or connection is not None
    if kind is None:
        yield from _check_type_missing(node)
    elif kind in NEVER_PLUGGABLE and pluggable:
        what = "be a backend of its own" if node.tag == "backend" else "have a connection"
        message = f"type '{kind}' cannot {what}: there the guest's device is the backend itself"
        hint = "leave the connection out" if connection else ""
        yield Finding(node, message, hint, "connection" if connection else "type", code="device-is-backend")
    elif kind in _STOCK_ONLY and pluggable:
        yield Finding(node, f"type '{kind}' is not pluggable", "", "type", _quoted(SOURCE_NEEDS))
    elif kind in _OWN_TYPES and not pluggable:
        message = f"type '{kind}' is there for pluggable interfaces only"
        yield Finding(node, message, "add connection='attached' or connection='deferred'", "type")
    elif kind not in (*SOURCE_NEEDS, *NEVER_PLUGGABLE, *_STOCK_ONLY):
        known = tuple(SOURCE_NEEDS) if pluggable else (*SOURCE_NEEDS, *NEVER_PLUGGABLE)
        yield Finding(node, f"type '{kind}' is not known", did_you_mean(kind, known), "type", _quoted(known))


def _check_type_missing(node: _Element) -> Iterator[Finding]:
    if node.tag == "backend":
        yield Finding(node, "a backend needs a type", allowed=_quoted(SOURCE_NEEDS))
    elif node.get("connection") != "deferred":
        hint = "give type and source, or connection='deferred' for a NIC that is plugged in later"
        yield Finding(node, "an interface that is not deferred needs a type", hint)
    else:
        for name in ("source", "virtualport"):
            for child in node.iterchildren(name):
                yield Finding(child, f"<{name}> is given without the type that it is for", "give the type")


def _check_source(node: _Element) -> Iterator[Finding]:
    kind, connection = node.get("type"), node.get("connection")
    needs = SOURCE_NEEDS.get(kind or "", ())
    source = node.find("source")
    choices = SOURCE_CHOICES.get(kind or "", ())
    if source is not None and choices:
        if not any(all(name in source.attrib for name in choice) for choice in choices):
            wanted = ", or ".join(" and ".join(f"{name}=" for name in choice) for choice in choices)
            yield Finding(source, f"<source> needs {wanted} for type='{kind}'")
    elif source is not None:
        yield from _check_attributes(source, kind or "", needs)
    elif needs and connection != "deferred" and not _may_lack_source(node):
        later = ", or connection='deferred' to give it later" if connection == "attached" else ""
        example = f"<source {' '.join(f'{name}=…' for name in needs)}/>"
        yield Finding(node, f"type '{kind}' needs a source", f"add {example}{later}")


def _check_attributes(source: _Element, kind: str, needs: tuple[str, ...]) -> Iterator[Finding]:
    for name in needs:
        if source.get(name) is not None:
            continue
        strangers = [one for one in source.attrib if one not in needs]
        close = get_close_matches(name, strangers, n=1, cutoff=0.7)
        hint = f"{close[0]}=: did you mean '{name}'?" if close else ""
        attribute = close[0] if close else ""
        yield Finding(source, f"<source> needs {name}= for type='{kind}'", hint, attribute, needs)


def _may_lack_source(node: _Element) -> bool:
    if node.get("type") in SOURCE_OPTIONAL:
        return True
    # libvirt's own schema lets a bridge interface go without.
    return bool(node.tag == "interface" and node.get("type") == "bridge" and node.get("connection") is None)


def _quoted(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"'{word}'" for word in words)


_Check: TypeAlias = "Callable[[_Element], Iterator[Finding]]"
_CHECKS: tuple[_Check, ...] = (_check_connection, _check_type, _check_source)


def take_out(part: _Element) -> None:
    """Replace an element by a comment, which no grammar minds.

    Unlike a plain removal this leaves the text behind the element where it is.
    """
    from lxml import etree

    placeholder = etree.Comment("")
    placeholder.tail = part.tail
    part.getparent().replace(part, placeholder)
