"""Plug, move, unplug: as the guest sees it, on embedded libvirt and on a real libvirtd."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import Connection, attach_backend, detach_backend, interfaces, set_link, xml_desc
from nicplug_xml.backends import bridge
from nicplug_xml.host.connection import ensure_parking, parking_kind
from tests.live.conftest import (
    PARKING,
    at_once,
    devices,
    identity,
    interface_xml,
    is_isolated,
    master,
    run,
    target,
)

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, PeerFactory

NewMac = Callable[[], str]
NewGuest = Callable[..., "Guest"]


def test_plug_move_unplug_replug(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, libvirt_peer: PeerFactory, new_mac: NewMac
) -> None:
    blue, green = libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    there = libvirt_peer(green, "198.51.100.3/24")
    mac = new_mac()
    guest = deferred_guest(mac)
    before = identity(guest, mac)
    assert not guest.carrier(mac)
    assert master(target(guest.dom, mac)) in PARKING
    for address in ("192.0.2.2/24", "198.51.100.2/24"):
        guest.set_address(mac, address)

    status = attach_backend(guest.dom, mac, bridge.backend(blue.name))
    assert (status.connection, status.carrier, status.changed) == (Connection.ATTACHED, True, True)
    guest.wait_carrier(mac, up=True)
    assert guest.ping("192.0.2.1", count=5)
    assert master(status.target) == blue.name
    assert not is_isolated(status.target)
    assert not guest.ping("198.51.100.3", timeout=1)

    status = attach_backend(
        guest.dom, status.target, f"<backend type='bridge'><source bridge='{green}'/></backend>"
    )
    assert guest.ping("198.51.100.3", count=5)
    assert there.ping("198.51.100.2")
    assert not guest.ping("192.0.2.1", timeout=1)
    assert guest.carrier(mac)

    status = detach_backend(guest.dom, status.alias)
    assert (status.connection, status.carrier, status.changed) == (Connection.DEFERRED, False, True)
    guest.wait_carrier(mac, up=False)
    assert not there.ping("198.51.100.2", timeout=1)
    assert master(status.target) in PARKING
    assert is_isolated(status.target)

    attach_backend(guest.dom, mac)
    assert guest.ping("198.51.100.3", count=5)
    assert identity(guest, mac) == before


def test_an_intended_backend_that_is_not_there(
    libvirt_guest: Callable[..., Guest], nic_xml: Callable[..., str], new_mac: NewMac
) -> None:
    from nicplug_xml import define

    macs = new_mac(), new_mac()
    nics = nic_xml(macs[0], "<source network='missing'/>", "type='network' connection='deferred'") + nic_xml(
        macs[1], "<source bridge='missing'/>", "type='bridge' connection='deferred'"
    )
    guest = libvirt_guest(nics, define=define)
    assert [guest.carrier(mac) for mac in macs] == [False, False]
    extended = xml_desc(guest.dom)
    assert "<source network='missing'/>" in extended.replace('"', "'")
    assert "<source bridge='missing'/>" in extended.replace('"', "'")
    assert "nicplug-park" not in extended


def test_the_administrators_link_survives(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac, children="<link state='down'/>")
    guest.set_address(mac, "192.0.2.2/24")
    assert attach_backend(guest.dom, mac, bridge.backend(blue.name)).carrier is False
    assert not guest.carrier(mac)
    assert not guest.ping("192.0.2.1", timeout=1)
    assert set_link(guest.dom, mac, up=True).link == "up"
    guest.wait_carrier(mac, up=True)
    assert guest.ping("192.0.2.1", count=5)
    set_link(guest.dom, mac, up=False)
    guest.wait_carrier(mac, up=False)
    assert detach_backend(guest.dom, mac).link == "down"
    assert "<link state='down'/>" in xml_desc(guest.dom)
    assert attach_backend(guest.dom, mac).carrier is False
    detach_backend(guest.dom, mac)
    assert set_link(guest.dom, mac, up=True).link == "up"
    assert not guest.carrier(mac)
    attach_backend(guest.dom, mac)
    guest.wait_carrier(mac, up=True)
    attach_backend(guest.dom, mac, link="down")
    guest.wait_carrier(mac, up=False)


def test_the_parking_place_is_made_by_several_at_once(libvirt_connection: libvirt.virConnect) -> None:
    has_networks = parking_kind(libvirt_connection) == "network"
    place = "nicplug-parknet" if has_networks else "nicplug-park"
    ensure_parking(libvirt_connection)
    for _ in range(8):
        if has_networks:
            parking = libvirt_connection.networkLookupByName("nicplug-parking")
            parking.destroy()
            parking.undefine()
        else:
            run("ip", "link", "delete", place)
        assert place not in devices()
        at_once(ensure_parking, [libvirt_connection] * 4)
        assert place in devices()


def test_parked_guests_cannot_reach_each_other(deferred_guest: NewGuest, new_mac: NewMac) -> None:
    macs = [new_mac(), new_mac()]
    guests = [deferred_guest(mac, timeout=None) for mac in macs]
    for number, (guest, mac) in enumerate(zip(guests, macs, strict=True), 1):
        guest.wait_ready()
        guest.set_address(mac, f"192.0.2.{number}/24")
        # Not with nicplug: somebody does this by hand.
        nic = interface_xml(guest.dom)
        guest.dom.updateDeviceFlags(nic.replace("<link state='down'/>", "<link state='up'/>"), 1)
        guest.wait_carrier(mac, up=True)
    taps = [target(guest.dom, mac) for guest, mac in zip(guests, macs, strict=True)]
    assert len({master(tap) for tap in taps}) == 1
    assert not guests[0].ping("192.0.2.2", count=3, timeout=1)
    # The address is of no use without its owner's MAC: try with that told, too.
    guests[0].run(f"arp -s 192.0.2.2 {macs[1]}")
    received = guests[1].run("cat /sys/class/net/eth0/statistics/rx_packets")
    assert not guests[0].ping("192.0.2.2", count=3, timeout=1)
    assert guests[1].run("cat /sys/class/net/eth0/statistics/rx_packets") == received
    assert [status.carrier for guest in guests for status in interfaces(guest.dom)] == [True, True]
    # The same two guests do reach each other once the ports are no longer isolated and the bridge is up.
    run("ip", "link", "set", str(master(taps[0])), "up")
    for tap in taps:
        run("bridge", "link", "set", "dev", tap, "isolated", "off")
    assert guests[0].ping("192.0.2.2", count=10)


@pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
def test_the_host_is_not_where_nics_are_parked(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    """It would answer for its addresses, and the guest take the parking place for the way to them."""
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    # As after managedsave, where a NIC that the kernel had joined is parked with the carrier that it had.
    nic = interface_xml(guest.dom)
    guest.dom.updateDeviceFlags(nic.replace("<link state='down'/>", "<link state='up'/>"), 1)
    guest.wait_carrier(mac, up=True)
    assert not guest.ping("192.0.2.1", count=2)
    parking = run("cat", f"/sys/class/net/{master(target(guest.dom, mac))}/address").strip()
    assert parking not in guest.run("cat /proc/net/arp")
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    assert guest.ping("192.0.2.1", count=5)


def test_announce(deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac) -> None:
    import subprocess

    here, other = new_mac(), new_mac()
    blue = libvirt_bridge()
    # Where one is restored, QEMU announces its NICs.
    guest = deferred_guest(here, other, fresh=True)
    attach_backend(guest.dom, other, bridge.backend(blue.name), announce=False)

    def senders(announce: bool) -> set[str]:
        detach_backend(guest.dom, here)
        with subprocess.Popen(
            ["tcpdump", "-l", "-n", "-e", "-i", blue.name, "arp or rarp or ether proto 0x8035"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as capture:  # fmt: skip
            assert capture.stdout is not None
            assert capture.stderr is not None
            while "listening on" not in (line := capture.stderr.readline()):
                assert line
            attach_backend(guest.dom, here, bridge.backend(blue.name), announce=announce)
            guest.run("sleep 1")
            capture.terminate()
            return {line.split()[1] for line in capture.stdout if "ethertype" in line}

    guest.run("ip link set eth1 up")
    assert senders(announce=True) == {here}
    assert senders(announce=False) == set()
