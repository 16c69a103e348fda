"""Open vSwitch: attach and its port, against ovs-vsctl as a process, with few and with many ports there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from figures import Figure, Goal
from timing import Numbers, Variant, milliseconds, side_by_side, timed

from nicplug_xml import attach_backend, detach_backend
from nicplug_xml.backends import ovs as backend
from nicplug_xml.endpoints import OvsPort
from nicplug_xml.host.ovsdb import add_port, delete_port
from nicplug_xml.testing.ovs import OvsBridge, PrivateOvs

if TYPE_CHECKING:
    import libvirt

_FEW, _MANY = 10, 500
_ID = "9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f"
_VSCTL = "ovs-vsctl add-port"


def measure(dom: libvirt.virDomain, mac: str, ovs: PrivateOvs, rounds: int) -> list[Figure]:
    """Measure on an unplugged NIC of a running guest; it is unplugged again afterwards.

    :param dom: the guest, on embedded libvirt.
    :param mac: of the NIC.
    :param ovs: an Open vSwitch without bridges.
    :param rounds: how many rounds count.
    """
    bridge = OvsBridge(ovs)
    try:
        _fill(bridge, 0, _FEW)
        figures = _attach(dom, mac, bridge, rounds)
        few, few_vsctl = _ports(mac, bridge, rounds)
        _fill(bridge, _FEW, _MANY)
        many, many_vsctl = _ports(mac, bridge, rounds)
    finally:
        bridge.close()
    goal = Goal("<", 1)
    return [
        *figures,
        Figure(f"ovs: port, {_FEW} others", few["add"], few_vsctl["add"], _VSCTL, goal=goal),
        Figure(f"ovs: port, {_MANY} others", many["add"], many_vsctl["add"], _VSCTL, goal=goal),
        Figure(f"ovs: port, {_MANY} others", many["add"], few["add"], f"with {_FEW}", in_turns=False),
        Figure(
            f"ovs: {_VSCTL}, {_MANY} others",
            many_vsctl["add"],
            few_vsctl["add"],
            f"with {_FEW}",
            in_turns=False,
        ),
        Figure(
            f"ovs: delete the port, {_MANY} others",
            many["delete"],
            few["delete"],
            f"with {_FEW}",
            goal=Goal("≤", 1.3),
            in_turns=False,
        ),
    ]


def _attach(dom: libvirt.virDomain, mac: str, bridge: OvsBridge, rounds: int) -> list[Figure]:
    place = backend.backend(str(bridge), _ID)
    nicplug, vsctl = side_by_side(
        rounds,
        _round(
            bridge,
            lambda: attach_backend(dom, mac, place, announce=False),
            lambda: detach_backend(dom, mac),
        ),
        _vsctl(mac, bridge),
    )
    goal = Goal("<", 1)
    return [
        Figure("ovs: attach", milliseconds(nicplug["add"]), milliseconds(vsctl["add"]), _VSCTL, goal=goal),
        Figure("ovs: detach", milliseconds(nicplug["delete"]), milliseconds(vsctl["delete"]), "… del-port"),
    ]


def _ports(mac: str, bridge: OvsBridge, rounds: int) -> tuple[dict[str, Numbers], dict[str, Numbers]]:
    port = OvsPort(str(bridge), _ID)
    nicplug = _round(
        bridge,
        lambda: add_port("np-bench", port, mac=mac, domain=_ID),
        lambda: delete_port("np-bench"),
    )
    own, other = side_by_side(rounds, nicplug, _vsctl(mac, bridge))
    return tuple({name: milliseconds(values) for name, values in side.items()} for side in (own, other))


def _vsctl(mac: str, bridge: OvsBridge) -> Variant:
    """Return what libvirt does for an interface on Open vSwitch, with a port of type internal."""
    ids = {"attached-mac": mac, "iface-id": _ID, "vm-id": _ID, "iface-status": "active"}
    options = [f'external_ids:{key}="{value}"' for key, value in ids.items()]
    interface = ["--", "set", "Interface", "np-vsctl", "type=internal", *options]
    add = ["--", "--if-exists", "del-port", "np-vsctl", "--", "add-port", str(bridge), "np-vsctl", *interface]
    return _round(
        bridge,
        lambda: bridge.ovs.vsctl(*add),
        lambda: bridge.ovs.vsctl("--if-exists", "del-port", "np-vsctl"),
    )


def _round(bridge: OvsBridge, add: Callable[[], object], delete: Callable[[], object]) -> Variant:
    before = set(bridge.ports())

    def variant() -> dict[str, float]:
        measured = {"add": timed(add)}
        (port,) = set(bridge.ports()) - before
        if not isinstance(ofport := bridge.ovs.row("Interface", port, "ofport")["ofport"], int) or ofport < 1:
            raise RuntimeError(f"{port} is no port: what was measured did nothing")
        measured["delete"] = timed(delete)
        if set(bridge.ports()) != before:
            raise RuntimeError(f"{port} is still there: what was measured did nothing")
        # ovs-vswitchd is to have nothing left to do.
        bridge.ovs.vsctl("set", "Open_vSwitch", ".", f"external_ids:settled={port}{measured['add']}")
        return measured

    return variant


def _fill(bridge: OvsBridge, first: int, last: int) -> None:
    """Make ports that stand for other guests'."""
    names = [f"np-other{number}" for number in range(first, last)]
    words = [word for name in names for word in ("--", "add-port", str(bridge), name)]
    words += [word for name in names for word in ("--", "set", "Interface", name, "type=internal")]
    bridge.ovs.vsctl(*words[1:])
