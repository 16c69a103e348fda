"""Go through a document with a pattern: what is left to match after each part of it.

These are James Clark's derivatives (https://relaxng.org/jclark/derivative.html). Where nothing is left, the
part is wrong, and the pattern before it says what would have been right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from nicplug_xml._schema_patterns import (
    EMPTY,
    NOT_ALLOWED,
    Pattern,
    after,
    alternatives,
    choice,
    collapsed,
    group,
    interleave,
    more,
)

_CACHED = 1 << 15


@lru_cache(maxsize=_CACHED)
def opened(pattern: Pattern, tag: str) -> Pattern:
    """Return what is left to match behind ``<tag``."""
    kind, first, second = pattern.kind, pattern.first, pattern.second
    if kind == "choice":
        return choice(opened(one, tag) for one in alternatives(pattern))
    if kind == "element":
        return after(pattern.content, EMPTY) if tag in first else NOT_ALLOWED  # type: ignore[operator]
    if kind not in ("interleave", "group", "more", "after"):
        return NOT_ALLOWED
    assert isinstance(first, Pattern)
    inside = opened(first, tag)
    if kind == "more":
        return _behind(inside, lambda rest: group(rest, choice((pattern, EMPTY))))
    assert isinstance(second, Pattern)
    if kind == "after":
        return _behind(inside, lambda rest: after(rest, second))
    if kind == "interleave":
        return choice(
            (
                _behind(inside, lambda rest: interleave(rest, second)),
                _behind(opened(second, tag), lambda rest: interleave(first, rest)),
            )
        )
    inside = _behind(inside, lambda rest: group(rest, second))
    return choice((inside, opened(second, tag))) if first.nullable else inside


def _behind(pattern: Pattern, change: Callable[[Pattern], Pattern]) -> Pattern:
    if pattern is NOT_ALLOWED:
        return NOT_ALLOWED
    return choice(after(one.first, change(one.second)) for one in alternatives(pattern))  # type: ignore[arg-type]


@lru_cache(maxsize=_CACHED)
def with_attribute(pattern: Pattern, name: str, value: str) -> Pattern:
    """Return what is left to match behind an attribute."""
    kind, first, second = pattern.kind, pattern.first, pattern.second
    if not pattern.attributes:
        return NOT_ALLOWED
    if kind == "choice":
        return choice(with_attribute(one, name, value) for one in alternatives(pattern))
    if kind == "attribute":
        return EMPTY if name in first and _is_value(second, value) else NOT_ALLOWED  # type: ignore[operator,arg-type]
    assert isinstance(first, Pattern)
    inside = with_attribute(first, name, value)
    if kind == "more":
        return group(inside, choice((pattern, EMPTY)))
    assert isinstance(second, Pattern)
    if kind == "after":
        return after(inside, second)
    return choice((group(inside, second, kind), group(first, with_attribute(second, name, value), kind)))


def _is_value(pattern: Pattern, value: str) -> bool:
    return (pattern.nullable and not value.strip()) or with_text(pattern, value).nullable


@lru_cache(maxsize=_CACHED)
def closed(pattern: Pattern, given: frozenset[str] | None = frozenset()) -> Pattern:
    """Return what is left to match behind the start tag's ``>``: no attributes any more.

    :param given: attributes that are taken for given all the same; None for all that there are.
    """
    kind, first, second = pattern.kind, pattern.first, pattern.second
    if not pattern.attributes:
        return pattern
    if kind == "attribute":
        names = getattr(first, "names", ())
        return EMPTY if given is None or any(name in given for name in names) else NOT_ALLOWED
    if kind == "choice":
        return choice(closed(one, given) for one in alternatives(pattern))
    assert isinstance(first, Pattern)
    if kind == "more":
        return more(closed(first, given))
    assert isinstance(second, Pattern)
    if kind == "after":
        return after(closed(first, given), second)
    return group(closed(first, given), closed(second, given), kind)


@lru_cache(maxsize=_CACHED)
def with_text(pattern: Pattern, text: str) -> Pattern:
    """Return what is left to match behind a text."""
    kind, first, second = pattern.kind, pattern.first, pattern.second
    if kind == "choice":
        return choice(with_text(one, text) for one in alternatives(pattern))
    if kind == "text":
        return pattern
    if kind == "value":
        same = text == first if second == "string" else collapsed(text) == collapsed(str(first))
        return EMPTY if same else NOT_ALLOWED
    if kind == "data":
        return EMPTY if first.allows(text) else NOT_ALLOWED  # type: ignore[attr-defined]
    if kind not in ("interleave", "group", "more", "after", "list"):
        return NOT_ALLOWED
    assert isinstance(first, Pattern)
    if kind == "list":
        for word in text.split():
            first = with_text(first, word)
        return EMPTY if first.nullable else NOT_ALLOWED
    inside = with_text(first, text)
    if kind == "more":
        return group(inside, choice((pattern, EMPTY)))
    assert isinstance(second, Pattern)
    if kind == "after":
        return after(inside, second)
    if kind == "interleave":
        return choice((interleave(inside, second), interleave(first, with_text(second, text))))
    inside = group(inside, second)
    return choice((inside, with_text(second, text))) if first.nullable else inside


def ended(pattern: Pattern, *, whatever: bool = False) -> Pattern:
    """Return what is left to match behind an end tag.

    :param whatever: also where something of the element is still missing.
    """
    return choice(
        one.second  # type: ignore[misc]
        for one in alternatives(pattern)
        if one.kind == "after" and (whatever or one.first.nullable)  # type: ignore[attr-defined]
    )
