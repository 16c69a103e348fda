"""Plug, move and unplug in process, against the bare libvirt call that makes the same change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from figures import Figure, Goal
from nic import announcement, live_xml, require_master, tap
from timing import Variant, milliseconds, side_by_side, timed

from nicplug_xml import attach_backend, detach_backend
from nicplug_xml.planes.tap import PARKING_BRIDGE

if TYPE_CHECKING:
    import libvirt

_LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
_UPDATE = "updateDeviceFlags"
_BOTH = "update + announce-self"


def measure(dom: libvirt.virDomain, mac: str, bridges: tuple[str, str], rounds: int) -> list[Figure]:
    """Measure on an unplugged NIC of a running guest; it is unplugged again afterwards.

    :param dom: the guest, on embedded libvirt.
    :param mac: of the NIC.
    :param bridges: two bridges to plug it into.
    :param rounds: how many rounds count.
    """
    states = _record_states(dom, mac, bridges)
    silent, bare, announced, bare_announced = side_by_side(
        rounds,
        _nicplug(dom, mac, bridges, announce=False),
        _bare(dom, mac, states, announce=False),
        _nicplug(dom, mac, bridges, announce=True),
        _bare(dom, mac, states, announce=True),
    )
    goal = Goal("≤", 1.5)
    compared = [
        ("attach, no announcement", silent, bare, "attach", _UPDATE, goal),
        ("attach", announced, bare_announced, "attach", _BOTH, goal),
        ("attach, for what the announcement costs", announced, bare, "attach", _UPDATE, None),
        ("move, no announcement", silent, bare, "move", _UPDATE, None),
        ("move", announced, bare_announced, "move", _BOTH, None),
        ("detach", silent, bare, "detach", _UPDATE, None),
    ]
    return [
        Figure(what, milliseconds(own[name]), milliseconds(other[name]), by, goal=wanted)
        for what, own, other, name, by, wanted in compared
    ]


def _record_states(dom: libvirt.virDomain, mac: str, bridges: tuple[str, str]) -> dict[str, str]:
    """Return the NIC's own XML when plugged into each bridge, and unplugged: the bare call's arguments."""
    states = {}
    for bridge in bridges:
        attach_backend(dom, mac, _backend(bridge))
        states[bridge] = live_xml(dom, mac)
    detach_backend(dom, mac)
    return states | {PARKING_BRIDGE: live_xml(dom, mac)}


def _nicplug(dom: libvirt.virDomain, mac: str, bridges: tuple[str, str], *, announce: bool) -> Variant:
    first, second = (_backend(bridge) for bridge in bridges)
    return _round(
        tap(dom, mac),
        (*bridges, PARKING_BRIDGE),
        lambda: attach_backend(dom, mac, first, announce=announce),
        lambda: attach_backend(dom, mac, second, announce=announce),
        lambda: detach_backend(dom, mac),
    )


def _bare(dom: libvirt.virDomain, mac: str, states: dict[str, str], *, announce: bool) -> Variant:
    announce_nic = announcement(dom, mac)

    def update(xml: str) -> None:
        dom.updateDeviceFlags(xml, _LIVE)

    def plug(xml: str) -> None:
        update(xml)
        if announce:
            announce_nic()

    first, second, parked = states.values()
    return _round(
        tap(dom, mac), tuple(states), lambda: plug(first), lambda: plug(second), lambda: update(parked)
    )


def _round(device: str, places: tuple[str, ...], *calls: Callable[[], object]) -> Variant:
    def variant() -> dict[str, float]:
        measured = {}
        for name, place, call in zip(("attach", "move", "detach"), places, calls, strict=True):
            measured[name] = timed(call)
            require_master(device, place)
        return measured

    return variant


def _backend(bridge: str) -> str:
    return f"<backend type='bridge'><source bridge='{bridge}'/></backend>"
