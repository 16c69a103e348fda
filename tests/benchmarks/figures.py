"""Figures: what was measured, against what, and what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum

from timing import Numbers


class Compare(Enum):
    """Which number of a figure is held against its goal."""

    RATIO = "nicplug / instead"
    SPEEDUP = "instead / nicplug"
    MORE = "nicplug - instead"
    OWN = "nicplug"


_COMPARE: dict[Compare, Callable[[float, float], float]] = {
    Compare.RATIO: lambda own, other: own / other,
    Compare.SPEEDUP: lambda own, other: other / own,
    Compare.MORE: lambda own, other: own - other,
}


@dataclass(frozen=True)
class Goal:
    """What is to be reached.

    :param sign: ``≤``, ``<`` or ``≥``.
    :param bound: the number.
    :param unit: of the number, or what it counts.
    """

    sign: str
    bound: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g} {self.unit}".strip()

    def met(self, value: float) -> bool:
        """Tell whether a number reaches it."""
        return _SIGNS[self.sign](value, self.bound)


_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "≤": lambda value, bound: value <= bound,
    "<": lambda value, bound: value < bound,
    "≥": lambda value, bound: value >= bound,
}


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    :param what: what was done, in a few words.
    :param nicplug: what nicplug took.
    :param instead: what it took to do it without; None where there is nothing to compare with.
    :param by: how it was done without.
    :param compare: which number is held against the goal.
    :param goal: None where the figure is shown for completeness only.
    :param in_turns: whether both were measured in the same rounds, so that these can be compared one by one.
    """

    what: str
    nicplug: Numbers
    instead: Numbers | None = None
    by: str = ""
    compare: Compare = Compare.RATIO
    goal: Goal | None = None
    in_turns: bool = True

    @property
    def value(self) -> float:
        """The number that is held against the goal.

        Of what was measured in turns that is the median of all rounds' own: a machine that is faster for a
        while is so for both sides, but perhaps not for the half of the rounds that makes a median.
        """
        if self.instead is None or self.compare is Compare.OWN:
            return self.nicplug.median
        own, other = ([side.median] for side in (self.nicplug, self.instead))
        if self.in_turns:
            own, other = self.nicplug.values, self.instead.values
        compare = _COMPARE[self.compare]
        return statistics.median(compare(*both) for both in zip(own, other, strict=True))

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return None if self.goal is None else self.goal.met(self.value)

    def row(self) -> tuple[str, ...]:
        """Return the cells of `HEADERS`."""
        ratio = {
            Compare.RATIO: "{:.2f}",
            Compare.SPEEDUP: "{:.1f} times faster",
            Compare.MORE: "{:+.0f}",
            Compare.OWN: "-",
        }[self.compare].format(self.value)
        instead = f"{self.by}: {self.instead}" if self.instead else "-"
        met = {True: "yes", False: "NO", None: "-"}[self.met]
        return self.what, str(self.nicplug), instead, ratio, str(self.goal or "-"), met

    def as_json(self) -> dict[str, object]:
        """Return the same for a program."""
        return {
            "what": self.what,
            "nicplug": _as_json(self.nicplug),
            "instead": _as_json(self.instead) | {"by": self.by} if self.instead else None,
            "compared": self.compare.value,
            "value": round(self.value, 4),
            "goal": str(self.goal) if self.goal else None,
            "met": self.met,
        }


def _as_json(numbers: Numbers) -> dict[str, object]:
    return {name: value for name, value in asdict(numbers).items() if name != "values"}


HEADERS = ("WHAT", "NICPLUG", "INSTEAD", "RATIO", "GOAL", "MET")
