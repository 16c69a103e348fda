"""``nicplug graph``: who is plugged into what, as a picture, a text or JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nicplug_xml.errors import UsageError
from nicplug_xml.graph import Graph, Nic, Place, graph
from nicplug_xml.host.errors import translated
from nicplug_xml.pictures import FORMATS, SUFFIXES

if TYPE_CHECKING:
    import argparse

    import libvirt

    from nicplug_xml.model import InterfaceStatus


def renderer(options: argparse.Namespace) -> Callable[[Graph], str]:
    """Return what makes of a picture what the options ask for.

    :raises UsageError: they do not tell what that is.
    """
    if options.json:
        return lambda found: json.dumps(as_json(found), indent=2)
    if options.format or options.output in (None, "-"):
        return FORMATS[options.format or "text"]
    suffix = os.path.splitext(options.output)[1].lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"the name '{options.output}' does not tell what is wanted",
            hint=f"add --format, or let it end in one of {', '.join(SUFFIXES)}",
        )
    return FORMATS[SUFFIXES[suffix]]


def picture(found: Sequence[tuple[libvirt.virDomain, Sequence[InterfaceStatus]]], *, inactive: bool) -> Graph:
    """Return the picture of domains and their interfaces.

    :param inactive: as they are defined: none of them runs.
    """
    with translated():
        running = [dom.name() for dom, _ in found if not inactive and dom.isActive()]
        return graph({dom.name(): statuses for dom, statuses in found}, running)


def write(text: str, output: str | None) -> None:
    """Print a text, or write it to a file."""
    if output is None or output == "-":
        print(text)
        return
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        # Of a disk that is full it does not say which file it was for.
        raise OSError(error.errno, error.strerror, output) from error


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
