"""Where things are in the picture: guests in columns at the sides, between them a bus for each place.

A NIC's wire runs level from its port to the bus of its place, and a dot is where it ends: lines that cross
elsewhere have nothing to do with each other. That stays so with any number of guests and places. All heights
are whole rows, and the right side is half a row lower than the left one: no wire hides another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nicplug_xml.graph import Graph, Guest, Nic, Place

#: Width of a character, in the font and the sizes that the picture has.
CHARACTER = 6.65
ROW = 20
HEAD = 26
PADDING = 7
GAP = 20
MARGIN = 20
#: From one lane of cables to the next.
LANE = 14
#: Height of the name of a place.
PLATE = 34

#: More rows than that are put on two sides.
_ONE_SIDE = 14
#: With more places than that, one that has a single NIC is written beside it.
_MANY_PLACES = 10
#: Where more than this many NICs are below each other, the names of the places are at the bottom as well.
_TALL = 24


class Port(NamedTuple):
    """Where the wire of a NIC begins.

    :param way: 1 when it leaves to the right, -1 to the left.
    :param own: what is written at the end of the wire, for a place without a bus.
    """

    nic: Nic
    x: float
    y: float
    way: int
    own: str


class Box(NamedTuple):
    """A guest."""

    guest: Guest
    x: float
    y: float
    width: float
    height: float
    ports: tuple[Port, ...]


class Bus(NamedTuple):
    """A place, as a line from top to bottom.

    :param number: from 0, from left to right.
    :param plates: the middles of what its name is written on.
    """

    place: Place
    number: int
    x: float
    top: float
    bottom: float
    plates: tuple[float, ...]


class Lane(NamedTuple):
    """Where a cable runs from top to bottom."""

    one: Port
    other: Port
    x: float


class Layout(NamedTuple):
    """The picture, in pixels."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    buses: tuple[Bus, ...]
    lanes: tuple[Lane, ...]


def lay_out(graph: Graph) -> Layout:
    """Find a place for everything."""
    shared = _shared(graph)
    cables = {id(nic) for pair in graph.cables for nic in pair}
    sides = _sides(graph.guests)
    tall = max(sum(max(1, len(guest.nics)) for guest in side) for side in sides) > _TALL
    columns = [place for place in graph.places if place in shared]
    plates = [plate_width(place) for place in columns]
    levels = 2 if len(columns) > 4 else 1
    head = (levels * (PLATE + 6) + 8) if columns else 0
    width = max([_box_width(guest) for guest in graph.guests], default=0)
    owns = [_own_width(side, shared, cables) for side in sides]

    lane_count = _lane_count(graph, sides)
    left = MARGIN + width
    middle = left + owns[0] + 24 + lane_count * LANE
    xs = _columns(plates, middle + (20 if columns else 0), levels)
    right = (max(x + plate / 2 for x, plate in zip(xs, plates, strict=True)) if xs else middle) + 24
    boxes = _boxes(sides[0], MARGIN, width, MARGIN + head, 1, shared, cables)
    if len(sides) > 1:
        right += owns[1]
        boxes += _boxes(sides[1], right, width, MARGIN + head + ROW / 2, -1, shared, cables)
        right += width
    ports = {id(port.nic): port for box in boxes for port in box.ports}
    bottom = max((box.y + box.height for box in boxes), default=MARGIN + head)
    buses = []
    for number, (place, x) in enumerate(zip(columns, xs, strict=True)):
        ys = [ports[id(nic)].y for nic in graph.nics_at(place)]
        top = MARGIN + (number % levels) * (PLATE + 6) + PLATE / 2
        foot = bottom + 14 + PLATE / 2 + (levels - 1 - number % levels) * (PLATE + 6)
        buses.append(Bus(place, number, x, top, foot if tall else max(ys), (top, foot) if tall else (top,)))
    pairs = [(ports[id(one)], ports[id(other)]) for one, other in graph.cables]
    lanes = _lanes(pairs, left + owns[0] + 24)
    end = bottom + (14 + head if tall and columns else 0) + MARGIN + ROW / 2
    return Layout(right + MARGIN, end, tuple(boxes), tuple(buses), tuple(lanes))


def title(place: Place) -> str:
    """Return what is written of a place that has no bus."""
    return f"{place.kind} {place.name}".lstrip()


def _shared(graph: Graph) -> frozenset[Place]:
    """Return the places that get a bus."""
    if len(graph.places) <= _MANY_PLACES:
        return frozenset(graph.places)
    return frozenset(place for place in graph.places if len(graph.nics_at(place)) > 1)


def _sides(guests: Sequence[Guest]) -> list[Sequence[Guest]]:
    heights = [_box_height(guest) + GAP for guest in guests]
    if sum(max(1, len(guest.nics)) for guest in guests) <= _ONE_SIDE:
        return [guests]
    half = min(range(len(guests)), key=lambda number: abs(sum(heights[:number]) - sum(heights[number:])))
    return [guests[:half], guests[half:]] if half else [guests]


def _columns(plates: Sequence[float], start: float, levels: int) -> list[float]:
    """Return the middles of the buses: as near to each other as their names, on that many levels, allow."""
    xs: list[float] = []
    for number, width in enumerate(plates):
        x = start + width / 2 if not xs else xs[-1] + 46
        if number >= levels:
            x = max(x, xs[number - levels] + plates[number - levels] / 2 + width / 2 + 12)
        elif xs:
            x = max(x, start + width / 2)
        # The line of a bus of the upper level passes between the plates of the lower one.
        if levels > 1 and xs:
            x = max(x, xs[-1] + (width if number % levels else plates[number - 1]) / 2 + 10)
        xs.append(x)
    return xs


def _boxes(
    guests: Iterable[Guest],
    x: float,
    width: float,
    y: float,
    way: int,
    shared: frozenset[Place],
    cables: set[int],
) -> list[Box]:
    boxes = []
    for guest in guests:
        height = _box_height(guest)
        edge = x + width if way > 0 else x
        ports = tuple(
            Port(nic, edge, y + HEAD + PADDING + (number + 0.5) * ROW, way, _own(nic, shared, cables))
            for number, nic in enumerate(guest.nics)
        )
        boxes.append(Box(guest, x, y, width, height, ports))
        y += height + GAP
    return boxes


def _own(nic: Nic, shared: frozenset[Place], cables: set[int]) -> str:
    if nic.place is None or nic.place in shared or id(nic) in cables:
        return ""
    return title(nic.place)


def _own_width(guests: Sequence[Guest], shared: frozenset[Place], cables: set[int]) -> float:
    texts = [_own(nic, shared, cables) for guest in guests for nic in guest.nics]
    longest = max(map(len, texts), default=0)
    return 60 + (longest + 1) * CHARACTER if longest else 0


def _box_height(guest: Guest) -> float:
    return HEAD + 2 * PADDING + max(1, len(guest.nics)) * ROW


def _box_width(guest: Guest) -> float:
    names = max((len(nic.name) for nic in guest.nics), default=0)
    rows = [names + len(f"  {nic.mac}  {nic.detail}  {nic.state}") for nic in guest.nics]
    return 44 + max([len(guest.name) + 12, *rows]) * CHARACTER


def plate_width(place: Place) -> float:
    """Return the width of what the name of a place is written on."""
    return 16 + max(len(place.name), len(kind_line(place))) * CHARACTER


def kind_line(place: Place) -> str:
    """Return what is written above the name of a place."""
    return f"{place.kind} ({place.note})" if place.note else place.kind


def _lane_count(graph: Graph, sides: Sequence[Sequence[Guest]]) -> int:
    """Return how many lanes the cables need at most side by side."""
    rows: dict[int, float] = {}
    for side in sides:
        y = 0.0
        for guest in side:
            for number, nic in enumerate(guest.nics):
                rows[id(nic)] = y + number * ROW
            y += _box_height(guest) + GAP
    taken: list[float] = []
    for start, end in sorted(sorted((rows[id(one)], rows[id(other)])) for one, other in graph.cables):
        _free(taken, start, end)
    return len(taken)


def _lanes(pairs: Sequence[tuple[Port, Port]], x: float) -> list[Lane]:
    taken: list[float] = []
    lanes = []
    for one, other in sorted(pairs, key=lambda pair: sorted((pair[0].y, pair[1].y))):
        number = _free(taken, *sorted((one.y, other.y)))
        lanes.append(Lane(one, other, x + number * LANE))
    return lanes


def _free(taken: list[float], start: float, end: float) -> int:
    """Return the first lane that is free from `start` on, and take it up to `end`."""
    for number, until in enumerate(taken):
        if until + ROW / 2 < start:
            taken[number] = end
            return number
    taken.append(end)
    return len(taken) - 1
