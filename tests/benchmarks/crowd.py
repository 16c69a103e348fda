"""Attach with few and with many NICs on the host, and on the domain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from figures import Figure, Goal
from nic import live_xml, nic_xml, require_master, tap
from redirect import WIRE, wires
from timing import Variant, milliseconds, side_by_side, timed

from nicplug_xml import attach_backend, detach_backend, to_stock
from nicplug_xml.backends import bridge, netdev
from nicplug_xml.host.connection import ensure_parking, parking_kind
from nicplug_xml.planes.tap import PARKING_BRIDGE

if TYPE_CHECKING:
    import libvirt

_COUNTS = (1, 10, 100, 500)
_PER_DOMAIN = 16
_MEMORY_MIB = 32
_LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
_PAUSED = 1  # VIR_DOMAIN_START_PAUSED
_UPDATE = "updateDeviceFlags"

#: The names that side_by_side's measurements get here, and what they are called in the table.
_KINDS = {"bridge": "attach", "netdev": "netdev: attach", "bare": _UPDATE}


def measure(conn: libvirt.virConnect, place: str, rounds: int) -> list[Figure]:
    """Measure on paused guests of its own, which are gone afterwards.

    :param conn: embedded libvirt, without other guests that have NICs.
    :param place: a bridge.
    :param rounds: how many rounds count, each time.
    """
    measured: dict[int, dict[str, list[float]]] = {}
    few, many = _COUNTS[1], _COUNTS[-1]
    with _crowd(conn) as crowd, wires(WIRE):
        one = crowd.start(1)
        for count in _COUNTS:
            crowd.resize(count)
            measured[count] = _attach(one, crowd.mac(one), place, rounds)
        full = crowd.start(_PER_DOMAIN)
        alone, beside = side_by_side(rounds, *(_nicplug(dom, crowd.mac(dom), place) for dom in (one, full)))
        # In turns, so that it matters less what else the machine did meanwhile.
        for count in (few, many) * 2:
            crowd.resize(count)
            for name, values in _attach(one, crowd.mac(one), place, rounds).items():
                measured[count][name] += values
    attached = {
        count: {name: milliseconds(values) for name, values in found.items()}
        for count, found in measured.items()
    }
    goal = Goal("≤", 1.3)
    return [
        *(
            Figure(f"attach, {_count(count)} on the host", found["bridge"], found["bare"], _UPDATE)
            for count, found in attached.items()
        ),
        *(
            Figure(
                f"{what}, {_count(many)} on the host", attached[many][kind], attached[few][kind],
                f"with {few}", goal=None if kind == "bare" else goal, in_turns=False,
            )
            for kind, what in _KINDS.items()
        ),
        Figure(
            f"attach, {_count(_PER_DOMAIN)} on the domain", milliseconds(beside["bridge"]),
            milliseconds(alone["bridge"]), "with 1",
        ),
    ]  # fmt: skip


def _count(number: int) -> str:
    return f"{number} NIC{'s' * (number > 1)}"


def _attach(dom: libvirt.virDomain, mac: str, place: str, rounds: int) -> dict[str, list[float]]:
    """Measure each kind of attach, and what libvirt itself takes for the first."""
    sides = side_by_side(rounds, _nicplug(dom, mac, place), _redirected(dom, mac), _bare(dom, mac, place))
    return {name: values for side in sides for name, values in side.items()}


def _nicplug(dom: libvirt.virDomain, mac: str, place: str) -> Variant:
    device, backend = tap(dom, mac), bridge.backend(place)

    def variant() -> dict[str, float]:
        seconds = timed(lambda: attach_backend(dom, mac, backend, announce=False))
        require_master(device, place)
        detach_backend(dom, mac)
        return {"bridge": seconds}

    return variant


def _redirected(dom: libvirt.virDomain, mac: str) -> Variant:
    backend = netdev.backend(WIRE)

    def variant() -> dict[str, float]:
        seconds = timed(lambda: attach_backend(dom, mac, backend, announce=False))
        detach_backend(dom, mac)
        return {"netdev": seconds}

    return variant


def _bare(dom: libvirt.virDomain, mac: str, place: str) -> Variant:
    device = tap(dom, mac)
    attach_backend(dom, mac, bridge.backend(place), announce=False)
    plugged = live_xml(dom, mac)
    detach_backend(dom, mac)
    parked = live_xml(dom, mac)

    def variant() -> dict[str, float]:
        seconds = timed(lambda: dom.updateDeviceFlags(plugged, _LIVE))
        require_master(device, place)
        dom.updateDeviceFlags(parked, _LIVE)
        require_master(device, PARKING_BRIDGE)
        return {"bare": seconds}

    return variant


@contextmanager
def _crowd(conn: libvirt.virConnect) -> Iterator[_Crowd]:
    crowd = _Crowd(conn)
    try:
        yield crowd
    finally:
        crowd.close()


class _Crowd:
    """Guests that were started paused, and so take little of the machine.

    :param conn: where.
    """

    def __init__(self, conn: libvirt.virConnect) -> None:
        ensure_parking(conn)
        self._conn = conn
        self._domains: list[libvirt.virDomain] = []
        self._nics: list[int] = []

    def start(self, nics: int) -> libvirt.virDomain:
        """Start a guest with so many NICs."""
        number = len(self._domains)
        xml = to_stock(_domain(number, nics), plane="tap", parking=parking_kind(self._conn))
        self._domains.append(self._conn.createXML(xml, _PAUSED))
        self._nics.append(nics)
        return self._domains[-1]

    def resize(self, count: int) -> None:
        """End the guests that were started last, or start others, until there are so many NICs."""
        while sum(self._nics) > count:
            self._nics.pop()
            self._domains.pop().destroy()
        while (there := sum(self._nics)) < count:
            self.start(min(_PER_DOMAIN, count - there))

    def mac(self, dom: libvirt.virDomain) -> str:
        """Return the MAC of the first NIC of one of the guests."""
        return _mac(self._domains.index(dom), 0)

    def close(self) -> None:
        """End all guests."""
        import libvirt

        for dom in self._domains:
            with suppress(libvirt.libvirtError):
                dom.destroy()


def _mac(domain: int, nic: int) -> str:
    return f"52:54:00:01:{domain:02x}:{nic:02x}"


def _domain(number: int, nics: int) -> str:
    return f"""<domain type='qemu'>
      <name>crowd{number}</name>
      <memory unit='MiB'>{_MEMORY_MIB}</memory>
      <os><type arch='x86_64' machine='q35'>hvm</type></os>
      <devices>
        <controller type='usb' model='none'/>
        <memballoon model='none'/>
        {"".join(nic_xml(_mac(number, nic)) for nic in range(nics))}
      </devices>
    </domain>"""
