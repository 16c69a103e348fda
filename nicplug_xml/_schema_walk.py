"""Find everything in a document that a pattern does not match, and what would be right in its place.

Behind a fault the walk goes on as if it were not there, so that one pass finds them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

from nicplug_xml._schema_derive import closed, ended, opened, with_attribute, with_text
from nicplug_xml._schema_patterns import EMPTY, NOT_ALLOWED, Pattern, after, alternatives, choice, group
from nicplug_xml.frozen import Frozen

if TYPE_CHECKING:
    from lxml.etree import _Element

#: So many ways of making up for what is missing are looked at.
_MOST_WAYS = 64


class Finding(Frozen):
    """One thing that is wrong.

    :param node: the element where it is.
    :param message: what is wrong, in one sentence.
    :param hint: what was probably meant, or an empty string.
    :param attribute: the attribute that is wrong, or an empty string.
    :param allowed: what is allowed in its place.
    :param code: what kind of problem it is.
    :param behind: of a text in the element, how many elements are before it there; None for anything else.
    """

    node: _Element
    message: str
    hint: str = ""
    attribute: str = ""
    allowed: tuple[str, ...] = ()
    code: str = "schema"
    behind: int | None = None


def walk(node: _Element, pattern: Pattern) -> list[Finding]:
    """Return what is wrong with an element and what it holds, in the order of the document."""
    found: list[Finding] = []
    _Walk(found).element(node, pattern)
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the question whether it was another word, if one is close; else an empty string."""
    close = _closest(word, known)
    return f"did you mean '{close}'?" if close else ""


def _closest(word: str, known: Iterable[str]) -> str:
    lower = {one.lower(): one for one in known}
    return next((lower[one] for one in get_close_matches(word.lower(), lower, n=1, cutoff=0.7)), "")


class _Walk:
    """One pass over an element."""

    def __init__(self, found: list[Finding]) -> None:
        self._found = found

    def element(self, node: _Element, pattern: Pattern) -> Pattern:
        """Go through an element; return what is left to match behind it."""
        inside = opened(pattern, node.tag)
        if inside is NOT_ALLOWED:
            inside = self._unknown(node, pattern)
            if inside is NOT_ALLOWED:
                return pattern
        inside = self._attributes(node, inside)
        behind = 0
        for part in _parts(node):
            if isinstance(part, str):
                inside = self._text(node, inside, part, behind)
            else:
                inside, behind = self.element(part, inside), behind + 1
        rest = ended(inside)
        if rest is NOT_ALLOWED:
            self._incomplete(node, inside)
            rest = ended(inside, whatever=True)
        return rest

    def _unknown(self, node: _Element, pattern: Pattern) -> Pattern:
        tags = tuple(dict.fromkeys(_elements(pattern)))
        parent = node.getparent()
        where = "as the document's root" if parent is None else f"in <{shown(parent.tag)}>"
        names = tuple(f"<{shown(tag)}>" for tag in tags)
        if parent is not None and any(
            other.tag == node.tag for other in node.itersiblings(node.tag, preceding=True)
        ):
            message = f"<{shown(node.tag)}> is not allowed {where} once more"
            self._found.append(Finding(node, message, "", "", names))
            return NOT_ALLOWED
        # What the names of one namespace have in common says nothing of what was meant.
        namespace = str(node.tag).rpartition("}")[0]
        known = {shown(tag): tag for tag in tags if tag.rpartition("}")[0] == namespace}
        meant = known.get(_closest(shown(node.tag), known), "")
        hint = f"did you mean '{shown(meant)}'?" if meant else ""
        kind = "" if parent is None else _kind(parent)
        self._found.append(
            Finding(node, f"<{shown(node.tag)}> is not allowed {where}{kind}", hint, "", names)
        )
        return opened(pattern, meant) if meant else NOT_ALLOWED

    def _attributes(self, node: _Element, pattern: Pattern) -> Pattern:
        failed: list[tuple[str, str]] = []
        for name, value in sorted(node.attrib.items(), key=lambda one: one[0] != "type"):
            behind = with_attribute(pattern, name, value)
            if behind is NOT_ALLOWED:
                failed.append((name, value))
            else:
                pattern = behind
        given: set[str] = set()
        for name, value in failed:
            known = dict.fromkeys(_attribute_names(pattern))
            if name in known:
                self._bad_value(node, name, value, pattern)
                given.add(name)
                continue
            meant = _closest(name, (one for one in known if one not in node.attrib))
            hint = f"did you mean '{meant}'?" if meant else ""
            if name in _elements(pattern):
                meant, hint = "", f"it is an element: <{name} …/>"
            self._found.append(
                Finding(
                    node, f"{_tag(node)} has no attribute {shown(name)}", hint, name, tuple(map(shown, known))
                )
            )
            if meant:
                given.add(meant)
                behind = with_attribute(pattern, meant, value)
                pattern = pattern if behind is NOT_ALLOWED else behind
        behind = closed(pattern, frozenset(given))
        if behind is NOT_ALLOWED:
            ways = _ways(_missing(pattern, frozenset(given)))
            self._found.append(
                Finding(node, f"{_tag(node)} needs {_either(ways, '{}=')}", allowed=_flat(ways))
            )
            behind = closed(pattern, None)
        return behind

    def _bad_value(self, node: _Element, name: str, value: str, pattern: Pattern) -> None:
        allowed = tuple(dict.fromkeys(_values(pattern, name)))
        plain = [text[1:-1] for text in allowed if text.startswith("'")]
        message = f"{shown(name)}='{value}' is not allowed on <{shown(node.tag)}>"
        self._found.append(Finding(node, message, did_you_mean(value, plain), name, allowed))

    def _text(self, node: _Element, pattern: Pattern, text: str, behind: int) -> Pattern:
        rest = with_text(pattern, text)
        if rest is not NOT_ALLOWED or not text.strip():
            return pattern if rest is NOT_ALLOWED else rest
        allowed = tuple(dict.fromkeys(_texts(pattern)))
        short = " ".join(text.split())
        short = f"{short[:40]}…" if len(short) > 41 else short
        if not allowed:
            tags = tuple(f"<{shown(tag)}>" for tag in dict.fromkeys(_elements(pattern)))
            message = f"text is not allowed in <{shown(node.tag)}>: '{short}'"
            self._found.append(Finding(node, message, allowed=tags, behind=behind))
            return pattern
        plain = [one[1:-1] for one in allowed if one.startswith("'")]
        message = f"'{short}' is not allowed in <{shown(node.tag)}>"
        self._found.append(Finding(node, message, did_you_mean(text.strip(), plain), "", allowed))
        return choice(_without_text(pattern))

    def _incomplete(self, node: _Element, pattern: Pattern) -> None:
        allowed = tuple(dict.fromkeys(_texts(pattern)))
        if allowed and not len(node):
            if not (node.text or "").strip():
                self._found.append(Finding(node, f"<{shown(node.tag)}> is empty", "", "", allowed))
            return
        ways = _ways(pattern)
        if not any(ways):
            message = f"<{shown(node.tag)}> lacks something, or has something too much"
            self._found.append(Finding(node, message))
            return
        self._found.append(Finding(node, f"{_tag(node)} lacks {_either(ways, '<{}>')}", allowed=_flat(ways)))


def shown(tag: object) -> str:
    """Return a name as a reader knows it: without its namespace."""
    return str(tag).rpartition("}")[2]


def _tag(node: _Element) -> str:
    return f"<{shown(node.tag)}>{_kind(node)}"


def _kind(node: _Element) -> str:
    """Return what type of its parent's an element is for, or is of itself."""
    own, parent = node.get("type"), node.getparent()
    if node.tag in ("interface", "backend", "address") and own is not None:
        return f" of type='{own}'"
    if parent is not None and parent.tag != "domain" and parent.get("type") is not None:
        return f" for type='{parent.get('type')}'"
    return f" of type='{own}'" if own is not None else ""


def _parts(node: _Element) -> Iterator[_Element | str]:
    """Yield the elements and the texts between them, as RELAX NG has it: comments do not count."""
    children = [child for child in node if isinstance(child.tag, str)]
    text = node.text or ""
    for child in node:
        if isinstance(child.tag, str):
            if text.strip():
                yield text
            yield child
            text = ""
        text += child.tail or ""
    if text.strip() or not children:
        yield text


def _below(pattern: Pattern) -> Iterator[Pattern]:
    """Yield the patterns that may match next."""
    seen: set[Pattern] = set()
    todo = [pattern]
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        yield one
        if one.kind == "choice":
            todo += reversed(alternatives(one))
        elif one.kind in ("interleave", "group"):
            first, second = one.first, one.second
            assert isinstance(first, Pattern)
            assert isinstance(second, Pattern)
            todo += (
                [second, first] if one.kind == "interleave" or first.nullable or first.attributes else [first]
            )
        elif one.kind in ("more", "after"):
            todo.append(one.first)  # type: ignore[arg-type]


def _elements(pattern: Pattern) -> Iterator[str]:
    for one in _below(pattern):
        if one.kind == "element":
            yield from one.first.names  # type: ignore[attr-defined]


def _all_attributes(pattern: Pattern) -> Iterator[Pattern]:
    todo = [pattern]
    while todo:
        one = todo.pop()
        if not one.attributes:
            continue
        if one.kind == "attribute":
            yield one
        else:
            parts = alternatives(one) if one.kind == "choice" else (one.first, one.second)
            todo += [part for part in reversed(parts) if isinstance(part, Pattern)]


def _attribute_names(pattern: Pattern) -> Iterator[str]:
    for one in _all_attributes(pattern):
        yield from one.first.names  # type: ignore[attr-defined]


def _values(pattern: Pattern, name: str) -> Iterator[str]:
    for one in _all_attributes(pattern):
        if name in one.first:  # type: ignore[operator]
            yield from _texts(one.second)  # type: ignore[arg-type]


def _texts(pattern: Pattern) -> Iterator[str]:
    for one in _below(pattern):
        if one.kind == "value":
            yield f"'{one.first}'"
        elif one.kind == "data":
            yield one.first.words  # type: ignore[attr-defined]
        elif one.kind == "text":
            yield "any text"
        elif one.kind == "list":
            yield from _texts(one.first)  # type: ignore[arg-type]


def _without_text(pattern: Pattern) -> Iterator[Pattern]:
    """Yield what is left when the text of an element is taken for right."""
    for one in alternatives(pattern):
        if one.kind == "after":
            yield after(EMPTY, one.second)  # type: ignore[arg-type]


def _missing(pattern: Pattern, given: frozenset[str]) -> Pattern:
    """Return the attributes of a pattern without all else, and without those that are given."""
    if not pattern.attributes:
        return EMPTY
    if pattern.kind == "attribute":
        return EMPTY if any(name in given for name in pattern.first.names) else pattern  # type: ignore[attr-defined]
    if pattern.kind == "choice":
        return choice(_missing(one, given) for one in alternatives(pattern))
    assert isinstance(pattern.first, Pattern)
    first = _missing(pattern.first, given)
    if pattern.kind == "more":
        return first
    assert isinstance(pattern.second, Pattern)
    if pattern.kind == "after":
        return after(first, pattern.second)
    return group(first, _missing(pattern.second, given))


def _ways(pattern: Pattern) -> list[frozenset[str]]:
    """Return the sets of names, the smallest ones, any of which would complete what a pattern leaves open."""
    kind, first, second = pattern.kind, pattern.first, pattern.second
    if pattern.nullable:
        return [frozenset()]
    ways: set[frozenset[str]] = set()
    if kind == "choice":
        for one in islice(alternatives(pattern), _MOST_WAYS):
            ways.update(_ways(one))
    elif kind in ("element", "attribute"):
        names = first.names  # type: ignore[attr-defined]
        ways = {frozenset(names[:1])}
    elif kind in ("more", "after"):
        ways = set(_ways(first))  # type: ignore[arg-type]
    elif kind in ("group", "interleave"):
        left, right = _ways(first), _ways(second)  # type: ignore[arg-type]
        ways = {one | other for one in left for other in right}
    elif kind in ("value", "data", "list"):
        ways = {frozenset()}
    smallest = sorted(
        (way for way in ways if not any(other < way for other in ways)),
        key=lambda way: (len(way), sorted(way)),
    )
    return smallest[:_MOST_WAYS]


def _either(ways: list[frozenset[str]], form: str) -> str:
    least = min(map(len, ways), default=0)
    texts = [
        " and ".join(form.format(shown(name)) for name in sorted(way))
        for way in ways
        if len(way) <= least + 1
    ]
    few = texts[:8]
    return ", or ".join(few) + (", or another" if len(texts) > len(few) else "")


def _flat(ways: list[frozenset[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(shown(name) for way in ways for name in sorted(way)))
