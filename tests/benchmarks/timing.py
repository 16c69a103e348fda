"""Measure side by side, and sum up."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

#: One round of one way of doing it: what it measured, by name.
Variant = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Numbers:
    """What was measured of one thing.

    :param median: of all measurements.
    :param p95: what 95 of 100 are as good as, or better.
    :param count: how many there were.
    :param unit: of median and p95.
    :param values: all of them, in the order in which they were measured.
    """

    median: float
    p95: float
    count: int
    unit: str
    values: list[float] = field(repr=False)

    def __str__(self) -> str:
        digits = (1 if self.median >= 1 else 2) if self.unit in ("ms", "MB") else 0
        text = f"{self.median:.{digits}f} {self.unit}"
        return text if self.count == 1 else f"{text} (p95 {self.p95:.{digits}f})"


def numbers(values: list[float], unit: str, *, more_is_better: bool = False) -> Numbers:
    """Sum up measurements.

    :param values: one or more.
    :param unit: their unit.
    :param more_is_better: as with speeds.
    """
    best_first = sorted(values, reverse=more_is_better)
    last = -(-len(values) * 95 // 100) - 1
    return Numbers(statistics.median(values), best_first[last], len(values), unit, values)


def milliseconds(values: list[float]) -> Numbers:
    """Sum up measurements that are in seconds."""
    return numbers([value * 1000 for value in values], "ms")


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def side_by_side(rounds: int, *variants: Variant) -> list[dict[str, list[float]]]:
    """Measure several ways of doing a thing in turns, so that what else the machine does falls on all alike.

    The first round is for warming up and does not count; every other round goes in the reverse order.

    :param rounds: how many rounds count.
    :param variants: the ways, each leaving behind the state that it found.
    :returns: for each variant, in the order given, its measurements by name.
    """
    results: list[dict[str, list[float]]] = [defaultdict(list) for _ in variants]
    for number in range(rounds + 1):
        turn = list(zip(variants, results, strict=True))
        for variant, result in turn if number % 2 else reversed(turn):
            measured = variant()
            if number:
                for name, value in measured.items():
                    result[name].append(value)
    return results
