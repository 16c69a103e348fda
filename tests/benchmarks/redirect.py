"""Attach by tc redirects in process, against the bare requests to kernel and libvirt that it issues."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from figures import Compare, Figure, Goal
from nic import live_xml, tap
from timing import Variant, milliseconds, side_by_side, timed

from nicplug_xml import attach_backend, detach_backend, metadata
from nicplug_xml.backends import direct, netdev
from nicplug_xml.host import sysfs
from nicplug_xml.host.kernel import joint_of
from nicplug_xml.host.rtnetlink import Rtnetlink
from nicplug_xml.testing.commands import run

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.model import Backend

WIRE = "np-wire"
_LOWER = "np-lower"
_LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
_ELEMENT = 2  # VIR_DOMAIN_METADATA_ELEMENT
_UP, _PROMISC = 0x1, 0x100

#: The goal in ms, and what a round trip to the guest's monitor takes on the machine that it was set for.
_GOAL, _MONITOR = 5.0, 1.3


def measure(dom: libvirt.virDomain, mac: str, rounds: int) -> list[Figure]:
    """Measure on an unplugged NIC of a running guest; it is unplugged again afterwards.

    :param dom: the guest, on embedded libvirt.
    :param mac: of the NIC.
    :param rounds: how many rounds count.
    """
    figures = []
    with wires(WIRE, _LOWER):
        for name, backend in (("netdev", netdev.backend(WIRE)), ("direct", direct.backend(_LOWER))):
            figures += _compare(name, dom, mac, backend, rounds)
    return figures


@contextmanager
def wires(*names: str) -> Iterator[None]:
    """Have devices that frames can be sent to, whose other ends nobody looks at."""
    for name in names:
        run(["ip", "link", "add", name, "up", "type", "veth", "peer", "name", f"{name}-far"])
        run(["ip", "link", "set", f"{name}-far", "up"])
    try:
        yield
    finally:
        for name in names:
            run(["ip", "link", "delete", name])


def _compare(name: str, dom: libvirt.virDomain, mac: str, backend: Backend, rounds: int) -> list[Figure]:
    requests = _Requests(dom, mac, backend)
    nicplug, bare, library, monitor = side_by_side(
        rounds,
        _round(
            requests,
            lambda: attach_backend(dom, mac, backend, announce=False),
            lambda: detach_backend(dom, mac),
        ),
        _round(requests, requests.attach, requests.detach),
        _round(requests, requests.attach_with_library, requests.detach),
        lambda: {"trip": timed(requests.ask_monitor)},
    )
    attach, trip = milliseconds(nicplug["attach"]), milliseconds(monitor["trip"])
    what = f"{name}: attach, no announcement"
    allowed = Goal("≤", round(_GOAL * max(1.0, trip.median / _MONITOR), 1), "ms")
    return [
        Figure(what, attach, trip, "QMP round trip", Compare.OWN, allowed),
        Figure(what, attach, milliseconds(bare["attach"]), "the same requests", goal=Goal("≤", 1.3)),
        Figure(what, attach, milliseconds(library["attach"]), "the same by pyroute2"),
        Figure(
            f"{name}: detach", milliseconds(nicplug["detach"]), milliseconds(bare["detach"]),
            "the same requests",
        ),
    ]  # fmt: skip


def _round(requests: _Requests, attach: Callable[[], object], detach: Callable[[], object]) -> Variant:
    def variant() -> dict[str, float]:
        measured = {"attach": timed(attach)}
        requests.require(joined=True)
        measured["detach"] = timed(detach)
        requests.require(joined=False)
        return measured

    return variant


class _Requests:
    """What nicplug asks of kernel and libvirt to attach and to detach, with all arguments known before."""

    def __init__(self, dom: libvirt.virDomain, mac: str, backend: Backend) -> None:
        self._dom, self._mac = dom, mac
        self._lower = _LOWER if backend.type == "direct" else ""
        attach_backend(dom, mac, backend, announce=False)
        self._nic = tap(dom, mac)
        self._alias = sysfs.alias(self._nic)
        joint = joint_of(self._nic)
        assert joint is not None
        self._device, self._flags = joint.device, _UP | (0 if self._lower else _PROMISC)
        self._plugged = live_xml(dom, mac), self._recorded()
        detach_backend(dom, mac)
        self._parked = live_xml(dom, mac), self._recorded()

    def attach(self) -> None:
        """Attach, and read before and after it what nicplug does."""
        self._read()
        with closing(Rtnetlink()) as kernel:
            if self._lower:
                kernel.redirected(sysfs.index(self._lower))
                kernel.add_macvlan(self._device, sysfs.index(self._lower), "bridge", self._mac, 0)
            nic, other = sysfs.index(self._nic), sysfs.index(self._device)
            kernel.redirected(nic)
            if not self._lower:
                kernel.redirected(other)
                kernel.flags(other)
            kernel.set_alias(nic, self._alias)
            kernel.redirect(other, nic)
            kernel.set_flags(other, self._flags, self._flags)
            kernel.redirect(nic, other)
        self._update(*self._plugged)
        self._read()

    def attach_with_library(self) -> None:
        """Attach with a netlink library, as one would write it."""
        from pyroute2 import IPRoute

        self._read()
        with IPRoute(ext_ack=True, strict_check=True) as kernel:
            if self._lower:
                kernel.link(
                    "add", ifname=self._device, kind="macvlan", link=sysfs.index(self._lower),
                    macvlan_mode="bridge", address=self._mac,
                )  # fmt: skip
            nic, other = sysfs.index(self._nic), sysfs.index(self._device)
            if not self._lower:
                kernel.get_links(other)
            kernel.link("set", index=nic, ifalias=self._alias)
            _redirect_with_library(kernel, other, nic)
            kernel.link("set", index=other, flags=self._flags, change=self._flags)
            _redirect_with_library(kernel, nic, other)
        self._update(*self._plugged)
        self._read()

    def detach(self) -> None:
        """Detach, and read before and after it what nicplug does."""
        self._read()
        self._update(*self._parked)
        with closing(Rtnetlink()) as kernel:
            nic, other = sysfs.index(self._nic), sysfs.index(self._device)
            kernel.stop_redirect(nic)
            kernel.set_alias(nic, "")
            if self._lower:
                kernel.delete(other)
            elif kernel.redirected(other) == nic:
                kernel.stop_redirect(other)
                kernel.set_flags(other, 0, _PROMISC)
        self._read()

    def ask_monitor(self) -> None:
        """Ask the guest's monitor for something that costs it nothing."""
        import libvirt_qemu

        libvirt_qemu.qemuMonitorCommand(self._dom, '{"execute": "query-status"}', 0)

    def require(self, joined: bool) -> None:
        """Look whether what was measured did happen.

        :raises RuntimeError: it did not.
        """
        filters = run(["tc", "filter", "show", "dev", self._nic, "ingress"])
        if bool(sysfs.alias(self._nic)) != joined or (f"device {self._device}" in filters) != joined:
            raise RuntimeError(f"{self._nic} is{' not' * joined} joined: what was measured did nothing")

    def _recorded(self) -> str:
        import libvirt

        with suppress(libvirt.libvirtError):
            return str(self._dom.metadata(_ELEMENT, metadata.URI, _LIVE))
        return ""

    def _read(self) -> None:
        self._dom.isActive()
        self._dom.XMLDesc()
        if sysfs.alias(self._nic):
            with closing(Rtnetlink()) as kernel:
                kernel.redirected(sysfs.index(self._nic))

    def _update(self, xml: str, entries: str) -> None:
        self._dom.updateDeviceFlags(xml, _LIVE)
        self._dom.metadata(_ELEMENT, metadata.URI, _LIVE)
        self._dom.setMetadata(_ELEMENT, entries, metadata.PREFIX, metadata.URI, _LIVE)


def _redirect_with_library(kernel: object, index: int, target: int) -> None:
    from pyroute2 import IPRoute, NetlinkError

    assert isinstance(kernel, IPRoute)
    try:
        kernel.tc("add", "clsact", index=index)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
    kernel.tc(
        "replace-filter", "u32", index=index, parent=0xFFFFFFF2, prio=0x6E70, handle=0x80000800,
        protocol=0x0003, target=1, keys=["0x0/0x0+0"],
        action={"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": target},
    )  # fmt: skip
