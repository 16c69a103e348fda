"""Frozen classes are to their users what frozen dataclasses are."""

from __future__ import annotations

import copy
import inspect
import pickle
import unittest.mock

import pytest

from nicplug_xml.frozen import Frozen, replace
from nicplug_xml.model import Backend


class Point(Frozen):
    x: int
    y: int = 0


class Named(Point):
    name: str = "here"


def test_fields_by_place_and_by_name() -> None:
    assert Point(1) == Point(1, 0) == Point(y=0, x=1)
    assert vars(Named(1, name="there")) == {"x": 1, "y": 0, "name": "there"}
    assert list(vars(Named(name="there", x=1))) == ["x", "y", "name"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Point(1), "Point(x=1)"),
        (Point(0, 0), "Point(x=0)"),
        (Named(1, 2), "Named(x=1, y=2)"),
        (Named(1, name="it's"), 'Named(x=1, name="it\'s")'),
    ],
)
def test_the_repr_is_what_makes_an_equal_one(item: Point, text: str) -> None:
    assert repr(item) == text
    assert eval(text) == item


def test_the_signature_names_the_fields() -> None:
    assert str(inspect.signature(Named)) == "(x: 'int', y: 'int' = 0, name: 'str' = 'here')"
    assert inspect.signature(Point).bind(1, y=2).arguments == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((), {"y": 1}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((1, 2), {"y": 2})],
)
def test_wrong_fields_are_refused(values: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point takes"):
        Point(*values, **named)


def test_nothing_changes() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match=r"Point\.x"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match=r"Point\.x"):
        del point.x
    assert replace(point, y=2) == Point(1, 2)
    assert point == Point(1)
    with pytest.raises(TypeError):
        replace(point, z=3)


def test_value_and_class_make_equal() -> None:
    assert Point(1) != Point(2)
    assert Point(1) != Named(1)
    assert {Point(1), Point(1, 0)} == {Point(1)}
    assert pickle.loads(pickle.dumps(Point(1, 2))) == copy.copy(Point(1, 2)) == Point(1, 2)


def test_who_compares_otherwise_is_asked_and_patterns_match() -> None:
    assert Point(1) == unittest.mock.ANY
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_what_is_cached_beside_the_fields_is_not_copied() -> None:
    backend = Backend("bridge", ("<source bridge='br0'/>",))
    assert backend.source == {"bridge": "br0"}
    for other in (pickle.loads(pickle.dumps(backend)), copy.copy(backend), copy.deepcopy(backend)):
        assert other == backend
        assert vars(other).keys() == {"type", "children"}
