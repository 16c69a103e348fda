"""The picture as text: each place with the NICs that are plugged into it."""

from __future__ import annotations

from collections.abc import Sequence

from nicplug_xml.graph import Graph, Nic, Place

Row = tuple[str, ...]


def render(graph: Graph) -> str:
    """Return the picture."""
    nics = [nic for guest in graph.guests for nic in guest.nics]
    own = [nic for nic in nics if nic.attached and nic.place and not nic.place.kind]
    running = {guest.name: guest.running for guest in graph.guests}
    sections = [
        (_title(place), [_row(nic, running) for nic in graph.nics_at(place) if nic.attached])
        for place in graph.places
    ]
    sections += [
        ("cables", [_cable(one, other) for one, other in graph.cables]),
        ("by themselves", [_row(nic, running, _title(nic.place)) for nic in own]),
        ("unplugged", [_row(nic, running, _intended(nic)) for nic in nics if not nic.attached]),
        ("without a NIC", [(guest.name,) for guest in graph.guests if not guest.nics]),
    ]
    shown = [(title, rows) for title, rows in sections if rows]
    widths = _widths([row for _, rows in shown for row in rows])
    return "\n\n".join("\n".join([title, *(_line(row, widths) for row in rows)]) for title, rows in shown)


def _title(place: Place | None) -> str:
    if place is None:
        return ""
    return f"{place.kind} {place.name}".lstrip() + (f" ({place.note})" if place.note else "")


def _intended(nic: Nic) -> str:
    return f"intended: {_title(nic.place)}" if nic.place else ""


def _row(nic: Nic, running: dict[str, bool], place: str = "") -> Row:
    carrier = "-" if nic.carrier is None else ("up" if nic.carrier else "down")
    state = f"link {nic.link}, carrier {carrier}" if running[nic.guest] else f"link {nic.link}, shut off"
    more = ", ".join(filter(None, (nic.detail, place)))
    return (nic.guest, nic.name, nic.mac, state, more)


def _cable(one: Nic, other: Nic) -> Row:
    ends = (f"{nic.guest}/{nic.name}" + (f" ({nic.state})" if nic.state else "") for nic in (one, other))
    return (" <-> ".join(ends),)


def _widths(rows: Sequence[Row]) -> list[int]:
    tables = [row for row in rows if len(row) > 1]
    return [max(map(len, column)) for column in zip(*tables, strict=True)]


def _line(row: Row, widths: Sequence[int]) -> str:
    if len(row) == 1:
        return f"  {row[0]}"
    return ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
