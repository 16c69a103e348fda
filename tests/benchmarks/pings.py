"""Pings lost while a NIC is moved between two bridges that lead to the same peer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pinger
from figures import Compare, Figure, Goal
from nic import announcement, live_xml, require_master, tap
from timing import Variant, numbers, side_by_side

from nicplug_xml import attach_backend, detach_backend
from nicplug_xml.backends import bridge
from nicplug_xml.testing.commands import run
from nicplug_xml.testing.network import Bridge, Peer

if TYPE_CHECKING:
    from nicplug_xml.testing.guest import Guest

_LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
_GUEST, _PEER = "203.0.113.2", "203.0.113.3"
_CORE = "np-core"
_COUNT = 1000
_INTERVAL = 0.001
_MOVE_AFTER = 0.5


def measure(guest: Guest, mac: str, bridges: tuple[str, str], rounds: int) -> list[Figure]:
    """Measure on an unplugged NIC of a running guest; it is unplugged again afterwards.

    :param guest: on embedded libvirt.
    :param mac: of the NIC.
    :param bridges: two bridges, which are joined to a third one with the peer for the time.
    :param rounds: how many moves of each kind count.
    """
    guest.set_address(mac, f"{_GUEST}/24")
    with _joined(bridges) as peer:
        figures = _compare(guest, mac, bridges, peer, rounds)
    detach_backend(guest.dom, mac)
    return figures


def _compare(guest: Guest, mac: str, bridges: tuple[str, str], peer: Peer, rounds: int) -> list[Figure]:
    dom = guest.dom
    states = {}
    for place in bridges:
        attach_backend(dom, mac, bridge.backend(place))
        states[place] = live_xml(dom, mac)
    device, announce = tap(dom, mac), announcement(dom, mac)

    def update(place: str) -> None:
        dom.updateDeviceFlags(states[place], _LIVE)

    moves: dict[str, Callable[[str], object]] = {
        "nicplug": lambda place: attach_backend(dom, mac, bridge.backend(place)),
        "update": update,
        "both": lambda place: (update(place), announce()),
        "none": lambda place: None,
    }

    def variant(kind: str) -> Variant:
        def once() -> dict[str, float]:
            # There and back, so that every round begins where the last one did.
            lost = []
            for place in bridges:
                # The guest speaks, so that all switches know where it is before each move.
                if not guest.ping(_PEER, count=3, interval=0.1):
                    raise RuntimeError(f"guest {guest.name} cannot reach the peer")
                lost.append(_lost(peer, partial(moves[kind], place)))
                if kind != "none":
                    require_master(device, place)
            return {"lost": sum(lost) / len(lost)}

        return once

    ours, bare, announced, still = (
        numbers(measured["lost"], "pings") for measured in side_by_side(rounds, *map(variant, moves))
    )
    what, goal = f"move, pings lost of {_COUNT}", Goal("≤", 0, "more")
    return [
        Figure(what, ours, bare, "updateDeviceFlags", Compare.MORE, goal),
        Figure(what, ours, announced, "update + announce-self", Compare.MORE),
        Figure(f"no move, pings lost of {_COUNT}", still, compare=Compare.OWN),
    ]


def _lost(peer: Peer, move: Callable[[], object]) -> int:
    """Return how many pings of the peer's get no answer when the guest is moved meanwhile."""
    command = [sys.executable, "-I", str(Path(pinger.__file__)), _GUEST, str(_COUNT), str(_INTERVAL)]
    with ThreadPoolExecutor(1) as executor:
        pinging = executor.submit(peer.run, command)
        time.sleep(_MOVE_AFTER)
        move()
        return int(pinging.result())


@contextmanager
def _joined(bridges: tuple[str, str]) -> Iterator[Peer]:
    """Join the bridges to a third one that has the peer."""
    with ExitStack() as resources:
        resources.callback(Bridge(name=_CORE).close)
        for place in bridges:
            here, there = f"{place}-up", _uplink(place)
            run(["ip", "link", "add", here, "master", place, "type", "veth", "peer", "name", there])
            resources.callback(run, ["ip", "link", "delete", here])
            run(["ip", "link", "set", there, "master", _CORE, "up"])
            run(["ip", "link", "set", here, "up"])
        peer = Peer(_CORE, f"{_PEER}/24")
        resources.callback(peer.close)
        yield peer


def _uplink(place: str) -> str:
    """Return the third bridge's port that leads to a bridge."""
    return f"{place}-core"
