"""Cables pass what a bridge keeps to itself: the link-local multicast of IEEE 802.1D."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import attach_backend, define, detach_backend
from nicplug_xml.backends import bridge, cable
from tests.live.conftest import wait_until
from tests.live.frames import Wire

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

NewMac = Callable[[], str]

#: Destination, and how a frame of it begins: LLC for spanning trees, else its EtherType.
LINK_LOCAL = {
    "STP": ("0180c2000000", b"\x00\x31\x42\x42\x03"),
    "LACP": ("0180c2000002", b"\x88\x09"),
    "802.1X": ("0180c2000003", b"\x88\x8e"),
    "LLDP": ("0180c200000e", b"\x88\xcc"),
}


@pytest.fixture
def ends(
    libvirt_container: GuestFactory, nic_xml: Callable[..., str], new_mac: NewMac
) -> Iterator[tuple[tuple[Guest, str, Wire], ...]]:
    """Two containers: each with its NIC's MAC, and the wire as it is inside."""
    with ExitStack() as stack:
        found = []
        for mac in (new_mac(), new_mac()):
            container = libvirt_container(nic_xml(mac), define=define)
            network = network_of(container.dom)
            stack.callback(os.close, network)
            wire = stack.enter_context(closing(Wire(container.nic(mac).name, network)))
            found.append((container, mac, wire))
        yield tuple(found)


def network_of(dom: libvirt.virDomain) -> int:
    """Return a descriptor of a container's network namespace."""
    import libvirt_lxc

    found = [*libvirt_lxc.lxcOpenNamespace(dom, 0)]
    (network,) = (one for one in found if os.readlink(f"/proc/self/fd/{one}").startswith("net:"))
    for other in found:
        if other != network:
            os.close(other)
    return network


@pytest.mark.parametrize("name", LINK_LOCAL)
def test_link_local_frames_pass_a_cable_and_no_bridge(
    ends: tuple[tuple[Guest, str, Wire], ...], libvirt_bridge: BridgeFactory, name: str
) -> None:
    (one, here, left), (two, there, right) = ends
    destination, kind = LINK_LOCAL[name]
    blue = libvirt_bridge()
    for container, mac in ((one, here), (two, there)):
        attach_backend(container.dom, mac, bridge.backend(blue.name))
        container.wait_carrier(mac, up=True)
    assert right.arrived(left.send(), timeout=5) is not None
    if name != "STP":  # a bridge without a spanning tree of its own forwards those of others
        assert right.arrived(left.send(to=destination, kind=kind), timeout=0.5) is None

    # A cable is for an end that is free.
    detach_backend(two.dom, there)
    attach_backend(one.dom, here, cable.backend(two.name, there))
    for container, mac in ((one, here), (two, there)):
        container.wait_carrier(mac, up=True)
    for sender, receiver in ((left, right), (right, left)):
        content = sender.send(to=destination, kind=kind)
        assert receiver.arrived(content, timeout=5) is not None
        # Tags pass as they are.
        tagged = sender.send(vlan=42, to=destination, kind=kind)
        assert receiver.arrived(tagged, timeout=5) == 42


@pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
def test_link_local_frames_reach_a_guest(
    ends: tuple[tuple[Guest, str, Wire], ...],
    libvirt_guest: GuestFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
) -> None:
    (container, there, wire), _ = ends
    mac = new_mac()
    guest = libvirt_guest(nic_xml(mac), define=define)
    nic = guest.nic(mac).name
    # Its NIC keeps from it what it has not asked for.
    guest.run(f"ip link set {nic} up promisc on")
    attach_backend(guest.dom, mac, cable.backend(container.name, there))
    guest.wait_carrier(mac, up=True)
    container.wait_carrier(there, up=True)
    for destination, kind in LINK_LOCAL.values():
        before = int(guest.run(f"cat /sys/class/net/{nic}/statistics/rx_packets"))
        for _ in range(50):
            wire.send(to=destination, kind=kind)
        wait_until(
            lambda before=before: (
                int(guest.run(f"cat /sys/class/net/{nic}/statistics/rx_packets")) >= before + 50
            )
        )
