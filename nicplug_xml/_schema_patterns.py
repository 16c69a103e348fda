"""RELAX NG patterns: made of libvirt's schema files, for `_schema_derive` to go through.

libxml2 decides what is valid and cannot say what would be. For that, the patterns have to be at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urljoin
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from lxml.etree import RelaxNG, _Element, _ElementTree

_NS = "{http://relaxng.org/ns/structure/1.0}"
#: As libvirt has them: ``(vepa|bridge)``, ``(tcp)|(udp)``.
_LIST = re.compile(r"\(\w+(\|\w+)+\)|\(\w+\)(\|\(\w+\))+")

#: What libvirt's names of data types mean to a reader; others are told by what they are made of.
_IN_WORDS = {
    "absFilePath": "an absolute path",
    "absDirPath": "an absolute path",
    "filePath": "a path",
    "aliasName": "an alias (letters, digits, '_' and '-')",
    "deviceName": "a device name (letters, digits and _.:\\-/)",
    "dnsName": "a host name",
    "genericName": "a name (letters, digits and +_-)",
    "ipv4Addr": "an IPv4 address",
    "ipv6Addr": "an IPv6 address",
    "ipv4Prefix": "a prefix length from 0 to 32",
    "macAddr": "a MAC address (52:54:00:12:34:56)",
    "uniMacAddr": "a unicast MAC address (52:54:00:12:34:56)",
    "objectName": "a name without '/'",
    "objectNameWithSlash": "a name",
    "PortNumber": "a port number",
    "UUID": "a UUID",
}


class NameClass:
    """Which names an element or an attribute may have; ``{URI}local`` as lxml has them.

    :param names: those that are listed.
    :param any_of: namespaces of which it may be any; None in it stands for every namespace.
    :param but: what is excepted from `any_of`.
    """

    def __init__(self, names: tuple[str, ...], any_of: tuple[str | None, ...], but: NameClass | None) -> None:
        self.names, self.any_of, self.but = names, any_of, but

    def __contains__(self, name: object) -> bool:
        if name in self.names:
            return True
        if not self.any_of or (self.but is not None and name in self.but):
            return False
        uri = name[1:].partition("}")[0] if isinstance(name, str) and name.startswith("{") else ""
        return None in self.any_of or uri in self.any_of


class Datatype:
    """A ``<data>`` of the schema: libxml2 says what fits, this says it in words."""

    def __init__(self, node: _Element) -> None:
        self._node = node

    def allows(self, text: str) -> bool:
        """Whether a text is one of it."""
        from lxml import etree

        element = etree.Element("x")
        element.text = text
        return bool(self._schema.validate(element))

    @cached_property
    def _schema(self) -> RelaxNG:
        from copy import deepcopy

        from lxml import etree

        library = _inherited(self._node, "datatypeLibrary")
        grammar = etree.Element(f"{_NS}element", name="x", datatypeLibrary=library)
        grammar.append(deepcopy(self._node))
        return etree.RelaxNG(grammar)

    @cached_property
    def words(self) -> str:
        """What fits, in words."""
        define = next(self._node.iterancestors(f"{_NS}define"), None)
        named = _IN_WORDS.get("" if define is None else define.get("name"))
        if named:
            return named
        kind = self._node.get("type")
        limits = {child.get("name"): (child.text or "").strip() for child in self._node}
        if "pattern" in limits:
            return f"text like {limits['pattern']}"
        if kind in ("string", "NCName", "anyURI", "dateTime", "double"):
            return {"string": "any text", "NCName": "a name", "anyURI": "a URI", "double": "a number"}.get(
                kind, "a date and time"
            )
        least = limits.get("minInclusive", "0" if kind.startswith("unsigned") else "")
        least = "1" if kind == "positiveInteger" else least
        most = limits.get("maxInclusive", "65535" if kind == "unsignedShort" else "")
        return "a whole number" + f" from {least}" * bool(least) + f" up to {most}" * bool(most)


class Pattern:
    """One pattern; equal ones are the same object.

    :ivar kind: what it is, as the constants below have it.
    :ivar first, second: what it is made of.
    :ivar nullable: whether nothing at all matches it.
    :ivar attributes: whether attributes are part of it, elements aside.
    """

    attributes: bool

    __slots__ = ("__weakref__", "_content", "attributes", "first", "kind", "nullable", "second")

    def __init__(self, kind: str, first: object, second: object) -> None:
        self.kind, self.first, self.second = kind, first, second
        self._content: Pattern | None = None
        parts = [part for part in (first, second) if isinstance(part, Pattern)]
        parts += [part for part in first if isinstance(part, Pattern)] if isinstance(first, tuple) else []
        inside = kind not in ("element", "attribute", "list")
        self.attributes = kind == "attribute" or (inside and any(part.attributes for part in parts))
        if kind in ("empty", "text"):
            self.nullable = True
        elif kind == "choice":
            self.nullable = any(part.nullable for part in parts)
        else:
            self.nullable = kind in ("group", "interleave", "more") and all(part.nullable for part in parts)

    @property
    def content(self) -> Pattern:
        """What an element has in it, attributes included; made when first asked for."""
        if self._content is None:
            self._content = self.second()  # type: ignore[operator]
        return self._content


_all: WeakValueDictionary[tuple[object, ...], Pattern] = WeakValueDictionary()


def _pattern(kind: str, first: object = None, second: object = None) -> Pattern:
    found = _all.get((kind, first, second))
    if found is None:
        found = _all[(kind, first, second)] = Pattern(kind, first, second)
    return found


EMPTY, NOT_ALLOWED, TEXT = _pattern("empty"), _pattern("notAllowed"), _pattern("text")


def choice(patterns: Iterable[Pattern]) -> Pattern:
    """Return a pattern that any of these matches."""
    found: dict[Pattern, None] = {}
    for pattern in patterns:
        if pattern.kind == "choice":
            found.update(dict.fromkeys(pattern.first))  # type: ignore[call-overload]
        elif pattern is not NOT_ALLOWED:
            found[pattern] = None
    if len(found) < 2:
        return next(iter(found), NOT_ALLOWED)
    return _pattern("choice", tuple(found))


def group(first: Pattern, second: Pattern, kind: str = "group") -> Pattern:
    """Return a pattern of two, one after the other; or, of kind ``interleave``, mixed."""
    if NOT_ALLOWED in (first, second):
        return NOT_ALLOWED
    if first is EMPTY:
        return second
    return first if second is EMPTY else _pattern(kind, first, second)


def interleave(first: Pattern, second: Pattern) -> Pattern:
    """Return a pattern of two, mixed."""
    return group(first, second, "interleave")


def more(pattern: Pattern) -> Pattern:
    """Return a pattern of one or more such."""
    return pattern if pattern in (NOT_ALLOWED, EMPTY) else _pattern("more", pattern)


def after(first: Pattern, second: Pattern) -> Pattern:
    """Return a pattern of what is left of an element, and of what may come behind it."""
    return NOT_ALLOWED if NOT_ALLOWED in (first, second) else _pattern("after", first, second)


def alternatives(pattern: Pattern) -> tuple[Pattern, ...]:
    """Return what a pattern is a choice of."""
    return pattern.first if pattern.kind == "choice" else (pattern,)  # type: ignore[return-value]


class Builder:
    """Makes patterns of a schema and of what it includes."""

    def __init__(self, tree: _ElementTree) -> None:
        self._defines: dict[str, list[_Element]] = {}
        self._made: dict[str, Pattern] = {}
        self._load(tree, frozenset())

    def _load(self, tree: _ElementTree, overridden: frozenset[str]) -> None:
        self._take(tree.getroot(), tree.docinfo.URL, overridden)

    def _take(self, parent: _Element, base: str, overridden: frozenset[str]) -> None:
        from lxml import etree

        for node in parent.iterchildren(f"{_NS}*"):
            kind = node.tag.removeprefix(_NS)
            name = node.get("name") if kind == "define" else ""
            if kind in ("define", "start") and name not in overridden:
                self._defines.setdefault(name, []).append(node)
            elif kind == "div":
                self._take(node, base, overridden)
            elif kind == "include":
                self._take(node, base, overridden)
                names = {one.get("name", "") for one in node.iter(f"{_NS}define", f"{_NS}start")}
                self._load(etree.parse(urljoin(base, node.get("href"))), overridden | names)

    def define(self, name: str) -> Pattern:
        """Return the pattern of that name; of an empty one, that of a whole document."""
        if name not in self._made:
            nodes = self._defines[name]
            parts = [self._all(node) for node in nodes]
            combined = {node.get("combine") for node in nodes}
            self._made[name] = _joined(interleave, parts) if "interleave" in combined else choice(parts)
        return self._made[name]

    def _all(self, parent: _Element, join: Callable[[Pattern, Pattern], Pattern] = group) -> Pattern:
        return _joined(join, [self._build(node) for node in _patterns(parent)])

    def _build(self, node: _Element) -> Pattern:
        kind = node.tag.removeprefix(_NS)
        if kind in ("element", "attribute"):
            names = _name_class(node, kind)
            if kind == "attribute":
                return _pattern(kind, names, self._all(node) if list(_patterns(node)) else TEXT)
            return _pattern(kind, names, lambda: self._all(node))
        if kind == "ref":
            return self.define(node.get("name"))
        if kind == "choice":
            return choice(self._build(child) for child in _patterns(node))
        if kind == "value":
            return _pattern("value", node.text or "", node.get("type", "token"))
        if kind == "data":
            listed = [_pattern("value", word, node.get("type")) for word in _listed(node)]
            return choice(listed) if listed else _pattern("data", Datatype(node))
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        content = self._all(node, interleave if kind in ("interleave", "mixed") else group)
        return _WRAPPED[kind](content)


_SIMPLE = {"empty": EMPTY, "notAllowed": NOT_ALLOWED, "text": TEXT}
_WRAPPED: dict[str, Callable[[Pattern], Pattern]] = {
    "group": lambda content: content,
    "interleave": lambda content: content,
    "mixed": lambda content: interleave(TEXT, content),
    "optional": lambda content: choice((content, EMPTY)),
    "oneOrMore": more,
    "zeroOrMore": lambda content: choice((more(content), EMPTY)),
    "list": lambda content: _pattern("list", content),
}
_NAMES = ("name", "anyName", "nsName")


def _joined(join: Callable[[Pattern, Pattern], Pattern], parts: list[Pattern]) -> Pattern:
    joined = EMPTY
    for part in reversed(parts):
        joined = join(part, joined)
    return joined


def _patterns(parent: _Element) -> Iterator[_Element]:
    """Yield the children that are patterns, not the names of an element or an attribute."""
    for place, node in enumerate(parent.iterchildren(f"{_NS}*")):
        kind = node.tag.removeprefix(_NS)
        named = parent.tag in (f"{_NS}element", f"{_NS}attribute") and parent.get("name") is None
        if kind not in ("param", "except", *_NAMES) and not (named and place == 0):
            yield node


def _listed(node: _Element) -> list[str]:
    """Return the words that a ``<data>`` lists in a regular expression; nothing for any other."""
    limits = [child.text or "" for child in node.iterchildren(f"{_NS}*")]
    return re.findall(r"\w+", limits[0]) if len(limits) == 1 and _LIST.fullmatch(limits[0]) else []


def _name_class(node: _Element, kind: str) -> NameClass:
    name = node.get("name")
    if name is None:
        return _names(next(node.iterchildren(f"{_NS}*")))
    # An attribute is in no namespace, unless it says so itself.
    uri = node.get("ns", "") if kind == "attribute" else _inherited(node, "ns")
    return NameClass((_qualified(node, name.strip(), uri),), (), None)


def _names(node: _Element) -> NameClass:
    kind = node.tag.removeprefix(_NS)
    if kind == "name":
        return NameClass((_qualified(node, (node.text or "").strip(), _inherited(node, "ns")),), (), None)
    if kind in ("choice", "except"):
        parts = [_names(child) for child in node.iterchildren(f"{_NS}*")]
        listed, spaces = (sum((getattr(part, which) for part in parts), ()) for which in ("names", "any_of"))
        return NameClass(listed, spaces, next((part.but for part in parts if part.but), None))
    but = next(node.iterchildren(f"{_NS}except"), None)
    excepted = None if but is None else _names(but)
    return NameClass((), (None if kind == "anyName" else _inherited(node, "ns"),), excepted)


def _qualified(node: _Element, name: str, uri: str) -> str:
    prefix, colon, local = name.rpartition(":")
    uri = node.nsmap.get(prefix, "") if colon else uri
    return f"{{{uri}}}{local}" if uri else local


def _inherited(node: _Element, attribute: str) -> str:
    for one in (node, *node.iterancestors()):
        if one.get(attribute) is not None:
            return str(one.get(attribute))
    return ""


def collapsed(text: str) -> str:
    """Return a text as data types compare it: without white space around it, and single spaces in it."""
    return re.sub(r"[ \t\r\n]+", " ", text).strip(" ")
