"""Attach against hot-unplug and hot-plug, both until the guest sees the NIC's carrier."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from figures import Compare, Figure, Goal
from nic import live_xml
from timing import milliseconds, side_by_side

from nicplug_xml import attach_backend, detach_backend
from nicplug_xml.backends import bridge

if TYPE_CHECKING:
    from nicplug_xml.testing.guest import Guest

_LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
_DEADLINE = 30
_POLL = 0.0005

# The guest's own log looks 20 times a second, too seldom here. This looks every 5 ms, and brings a new NIC up
# at once, so that hot-plug is not charged for a guest that takes its time.
_WATCH = """
{{
    exec 3<>/run/nothing
    known=none
    while :; do
        carrier=none
        if [ -e /sys/class/net/{name} ]; then
            read -r carrier </sys/class/net/{name}/carrier || ip link set {name} up
        fi
        if [ "$carrier" != "$known" ]; then
            known=$carrier
            echo "benchmark: {name} $carrier" >/dev/ttyS0
        fi
        read -r -t 0.005 nothing <&3
    done
}} >/dev/null 2>&1 &
"""


def measure(guest: Guest, pluggable: str, stock: str, bridges: tuple[str, str], rounds: int) -> list[Figure]:
    """Measure on two NICs of one guest; nothing else of it changes.

    :param guest: on embedded libvirt.
    :param pluggable: MAC of a NIC that is unplugged, and is so again afterwards.
    :param stock: MAC of a NIC on the first of the bridges.
    :param bridges: two bridges to plug them into.
    :param rounds: how many rounds count.
    """
    watches = {mac: _Watch(guest, mac) for mac in (pluggable, stock)}
    plug, replug = side_by_side(
        rounds,
        lambda: _plug(guest, pluggable, bridges[1], watches[pluggable]),
        lambda: _replug(guest, stock, bridges, watches[stock]),
    )
    for watch in watches.values():
        watch.close()
    by = "hot-unplug + hot-plug"
    return [
        Figure(
            "attach, until the guest sees the carrier",
            milliseconds(plug["seen"]), milliseconds(replug["seen"]), by, Compare.SPEEDUP,
            Goal("≥", 20, "times"),
        ),
        Figure(
            "attach, until the call is back",
            milliseconds(plug["call"]), milliseconds(replug["call"]), by, Compare.SPEEDUP,
        ),
    ]  # fmt: skip


class _Watch:
    """Sees from outside when the guest sees a NIC's carrier."""

    def __init__(self, guest: Guest, mac: str) -> None:
        self.name = guest.nic(mac).name
        self._guest = guest
        self._log = guest.console.open("rb")
        guest.run(_WATCH.format(name=self.name))
        self._wait(f"benchmark: {self.name} ".encode())

    def wait(self, carrier: str) -> None:
        """Wait until the guest tells of a carrier (``1``, ``0``) that was not told of before."""
        self._wait(f"benchmark: {self.name} {carrier}".encode())

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _wait(self, wanted: bytes) -> None:
        seen = b""
        deadline = time.monotonic() + _DEADLINE
        while wanted not in (seen := seen + self._log.read()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"guest {self._guest.name} did not log '{wanted.decode()}'")
            time.sleep(_POLL)


def _plug(guest: Guest, mac: str, place: str, watch: _Watch) -> dict[str, float]:
    started = time.perf_counter()
    attach_backend(guest.dom, mac, bridge.backend(place))
    called = time.perf_counter()
    watch.wait("1")
    seen = time.perf_counter()
    detach_backend(guest.dom, mac)
    watch.wait("0")
    return {"call": called - started, "seen": seen - started}


def _replug(guest: Guest, mac: str, places: tuple[str, str], watch: _Watch) -> dict[str, float]:
    dom, before = guest.dom, live_xml(guest.dom, mac)
    here, there = places if f"bridge='{places[0]}'" in before.replace('"', "'") else places[::-1]
    after = before.replace(here, there)
    started = time.perf_counter()
    dom.detachDeviceFlags(before, _LIVE)
    _until(lambda: mac not in dom.XMLDesc(), f"NIC {mac} to leave the domain")
    dom.attachDeviceFlags(after, _LIVE)
    called = time.perf_counter()
    watch.wait("1")
    return {"call": called - started, "seen": time.perf_counter() - started}


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_DEADLINE} s for {what}")
        time.sleep(_POLL)
