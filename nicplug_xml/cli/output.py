"""What the command prints: tables, and objects as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nicplug_xml import backends
from nicplug_xml.model import Connection, InterfaceStatus

_COLUMNS = ("DOMAIN", "INTERFACE", "MAC", "PLANE", "CONNECTION", "BACKEND", "LINK", "CARRIER")


def table(rows: Iterable[Sequence[str]], header: Sequence[str], *, coloured: bool = False) -> str:
    """Return rows below a header, columns aligned, two spaces apart."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    if coloured:
        from nicplug_xml.cli import colours

        head, *rest = padded
        padded = [[colours.paint(cell, "head") for cell in head]]
        padded += [[colours.cell(*pair) for pair in zip(line, header, strict=True)] for line in rest]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def status_table(statuses: Iterable[InterfaceStatus], *, coloured: bool = False) -> str:
    """Return ``nicplug list``'s table.

    :param coloured: for a terminal.
    """
    return table(map(_row, statuses), _COLUMNS, coloured=coloured)


def status_json(status: InterfaceStatus) -> dict[str, object]:
    """Return an interface's status as JSON knows it; the backend as type, source and XML."""
    backend = status.backend
    return {
        "domain": status.domain,
        "interface": status.interface,
        "mac": status.mac,
        "alias": status.alias or None,
        "target": status.target or None,
        "model": status.model or None,
        "plane": status.plane,
        "connection": status.connection.value,
        "backend": backend
        and {
            "type": backend.type,
            "source": dict(backend.source),
            "xml": backend.to_xml(),
        },
        "link": status.link,
        "carrier": status.carrier,
        "changed": status.changed,
    }


def sentence(status: InterfaceStatus) -> str:
    """Return what is true of an interface now, and whether that is new, for a person."""
    where = backends.describe(status.backend)
    if status.connection is Connection.DEFERRED:
        state = "unplugged" if where == "-" else f"unplugged (intended: {where})"
    else:
        state = f"plugged into {where}"
    so_already = "" if status.changed else ": it was so already, nothing changed"
    return f"{status.interface} of {status.domain} is {state}, link {status.link}{so_already}"


def _row(status: InterfaceStatus) -> tuple[str, ...]:
    where = backends.describe(status.backend)
    if status.connection is Connection.DEFERRED and where != "-":
        where = f"({where})"
    carrier = "-" if status.carrier is None else ("up" if status.carrier else "down")
    return (
        status.domain,
        status.interface,
        status.mac,
        status.plane or "-",
        status.connection.value,
        where,
        status.link,
        carrier,
    )
