"""Frozen dataclasses without ``dataclasses``, whose import and work take longer than the start of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from inspect import Signature

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda cls: cls


_T = TypeVar("_T", bound="Frozen")


class _Signature:
    """What ``help``, editors and the API's reference show of a class's constructor."""

    def __get__(self, _item: object, owner: type[Frozen]) -> Signature:
        from inspect import Parameter, Signature

        annotations = [getattr(base, "__annotations__", {}) for base in owner.__mro__]
        kinds = {name: kind for found in annotations for name, kind in found.items()}
        parameters = (
            Parameter(
                name,
                Parameter.POSITIONAL_OR_KEYWORD,
                default=Parameter.empty if number < owner._required else default,
                annotation=kinds[name],
            )
            for number, (name, default) in enumerate(owner._fields.items())
        )
        return Signature(list(parameters))


@dataclass_transform(frozen_default=True)
class Frozen:
    """Like a class with ``@dataclass(frozen=True)``: annotations are fields, by which instances compare."""

    #: The fields with their defaults, in order; and how many, the first ones, have none.
    _fields: ClassVar[dict[str, object]] = {}
    _required: ClassVar[int] = 0
    __match_args__: ClassVar[tuple[str, ...]] = ()
    __signature__ = _Signature()

    def __init_subclass__(cls) -> None:
        own = cls.__annotations__
        cls._fields = cls._fields | {name: cls.__dict__.get(name) for name in own}
        cls._required += sum(name not in cls.__dict__ for name in own)
        cls.__match_args__ = tuple(cls._fields)  # type: ignore[misc]  # as for dataclasses, all fields

    def __init__(self, *values: object, **named: object) -> None:
        fields, count = self.__dict__, len(values)
        fields.update(self._fields)
        fields.update(zip(self._fields, values, strict=False))
        wrong = count < self._required
        if named:
            fields.update(named)
            names = tuple(self._fields)
            missing, twice = set(names[count : self._required]) - named.keys(), named.keys() & names[:count]
            wrong = bool(missing or twice)
        if wrong or not count <= len(self._fields) == len(fields):
            raise TypeError(f"{type(self).__name__} takes {tuple(self._fields)}, not {values} and {named}")

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be removed")

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy or a pickle is made of: not what is cached beside the fields."""
        return {name: self.__dict__[name] for name in self._fields}

    def __eq__(self, other: object) -> bool:
        return _values(self) == _values(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(_values(self))

    def __repr__(self) -> str:
        """Return what evaluates to an equal instance; a field that is as by default is left out."""
        present = [
            f"{name}={self.__dict__[name]!r}"
            for number, (name, default) in enumerate(self._fields.items())
            if number < self._required or self.__dict__[name] != default
        ]
        return f"{type(self).__qualname__}({', '.join(present)})"


def replace(item: _T, **changes: object) -> _T:
    """Return a copy of `item` with other values in some of its fields, as ``dataclasses.replace`` does."""
    if not changes.keys() <= item._fields.keys():
        raise TypeError(f"{type(item).__name__} has {tuple(item._fields)}, not {tuple(changes)}")
    copy = object.__new__(type(item))
    present = item.__dict__
    copy.__dict__.update({name: present[name] for name in item._fields}, **changes)
    return copy


def _values(item: object) -> tuple[object, ...]:
    assert isinstance(item, Frozen)
    return tuple(item.__dict__[name] for name in item._fields)
