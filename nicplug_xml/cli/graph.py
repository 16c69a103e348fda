"""``nicplug graph``: who is plugged into what, as a picture, a text or JSON."""

from __future__ import annotations

import json
import os
import warnings
from typing import TYPE_CHECKING

from nicplug_xml import operations
from nicplug_xml.errors import NicplugError, UsageError
from nicplug_xml.graph import Graph, Nic, Place
from nicplug_xml.graph import graph as graph_of
from nicplug_xml.host.connection import find_domain
from nicplug_xml.host.errors import translated

if TYPE_CHECKING:
    import argparse

    import libvirt


def graph(conn: libvirt.virConnect, options: argparse.Namespace) -> int:
    """Carry the command out; returns the exit code."""
    from nicplug_xml.pictures import FORMATS

    render = None if options.json else FORMATS[_format(options)]
    found = _look(conn, options)
    text = render(found) if render else json.dumps(as_json(found), indent=2)
    if options.output in (None, "-"):
        print(text)
        return 0
    try:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        # Of a disk that is full it does not say which file it was for.
        raise OSError(error.errno, error.strerror, options.output) from error
    return 0


def as_json(found: Graph) -> dict[str, object]:
    """Return a picture as JSON knows it."""
    return {
        "guests": [
            {"domain": guest.name, "running": guest.running, "nics": [_nic(nic) for nic in guest.nics]}
            for guest in found.guests
        ],
        "places": [_place(place) for place in found.places],
        "cables": [
            [{"domain": nic.guest, "interface": nic.name, "mac": nic.mac} for nic in pair]
            for pair in found.cables
        ],
    }


def _format(options: argparse.Namespace) -> str:
    from nicplug_xml.pictures import SUFFIXES

    if options.format:
        return str(options.format)
    if options.output in (None, "-"):
        return "text"
    suffix = os.path.splitext(options.output)[1].lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"the name '{options.output}' does not tell what is wanted",
            hint=f"add --format, or let it end in one of {', '.join(SUFFIXES)}",
        )
    return SUFFIXES[suffix]


def _look(conn: libvirt.virConnect, options: argparse.Namespace) -> Graph:
    with translated():
        domains = [find_domain(conn, name) for name in options.domains] or conn.listAllDomains()
        names = {dom: str(dom.name()) for dom in domains}
        running = {name for dom, name in names.items() if dom.isActive()}
    statuses = {}
    for dom, name in names.items():
        inactive = options.inactive and name in running
        try:
            with translated():
                if inactive and not dom.isPersistent():
                    continue
            statuses[name] = operations.interfaces(dom, inactive=options.inactive)
        except NicplugError as error:
            if options.domains:
                raise
            warnings.warn(f"a domain is left out: {error}", stacklevel=2)  # it may have ended just now
    return graph_of(statuses, () if options.inactive else running)


def _nic(nic: Nic) -> dict[str, object]:
    return {
        "interface": nic.name,
        "mac": nic.mac,
        "connection": "attached" if nic.attached else "deferred",
        "link": nic.link,
        "carrier": nic.carrier,
        "place": nic.place and _place(nic.place),
        "vlan": nic.detail.removeprefix("VLAN ") or None,
    }


def _place(place: Place) -> dict[str, object]:
    return {"kind": place.kind or None, "name": place.name, "note": place.note or None}
