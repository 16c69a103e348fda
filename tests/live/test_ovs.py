"""Guests on Open vSwitch: plane tap, from and to Linux bridges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lxml import etree

from nicplug_xml import Connection, attach_backend, detach_backend, interfaces, set_link, xml_desc
from nicplug_xml.backends import bridge, ovs
from nicplug_xml.errors import NicplugError, NotFoundError, OperationError
from nicplug_xml.host import janitor
from tests.live.conftest import (
    PARKING,
    devices,
    everything,
    fail_once,
    master,
    run,
    target,
    wait_gone,
    wait_until,
)

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.ovs import OvsBridge
    from nicplug_xml.testing.plugin import BridgeFactory, OvsBridgeFactory, PeerFactory

NewMac = Callable[[], str]
NewGuest = Callable[..., "Guest"]

ID = "9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f"
daemon_only = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
embedded_only = pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)


def document(where: OvsBridge, vlan: str = "", interfaceid: str = ID) -> str:
    """Return a backend document."""
    return (
        f"<backend type='bridge'><source bridge='{where}'/><virtualport type='openvswitch'>"
        f"<parameters interfaceid='{interfaceid}' profileid='gold'/></virtualport>{vlan}</backend>"
    )


def test_from_and_to_linux_bridges(
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    libvirt_peer: PeerFactory,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
) -> None:
    blue, switch, mac = libvirt_bridge(), libvirt_ovs_bridge(), new_mac()
    libvirt_peer(blue, "192.0.2.3/24")
    behind = switch.peer("192.0.2.4/24")
    others = switch.ports()
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    nic = guest.nic(mac)

    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    assert guest.ping("192.0.2.3", count=5)

    status = attach_backend(guest.dom, mac, document(switch))
    assert (status.connection, status.carrier, status.changed) == (Connection.ATTACHED, True, True)
    assert guest.ping("192.0.2.4", count=5)
    assert behind.ping("192.0.2.2", count=5)
    assert not guest.ping("192.0.2.3", timeout=1)
    # libvirtd would put the tap back to where its own XML has it, whenever it restarts.
    assert master(status.target) in PARKING
    (port,) = set(switch.ports()) - set(others)
    assert switch.ovs.row("Interface", port, "external_ids")["external_ids"] == {
        "attached-mac": mac,
        "iface-id": ID,
        "iface-status": "active",
        "ifname": port,
        "port-profile": "gold",
        "vm-id": guest.dom.UUIDString(),
    }

    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    assert guest.ping("192.0.2.3", count=5)
    assert not guest.ping("192.0.2.4", timeout=1)
    assert switch.ports() == others
    wait_gone(port)

    attach_backend(guest.dom, mac, document(switch))
    assert guest.ping("192.0.2.4", count=5)
    status = detach_backend(guest.dom, mac)
    assert (status.connection, status.carrier) == (Connection.DEFERRED, False)
    guest.wait_carrier(mac, up=False)
    assert switch.ports() == others

    attach_backend(guest.dom, mac)
    assert guest.ping("192.0.2.4", count=5)
    assert guest.nic(mac) == nic._replace(carrier=True)


@embedded_only
def test_xml_tells_of_it(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    guest = deferred_guest(mac)
    vlan = "<vlan><tag id='42'/></vlan>"
    attach_backend(guest.dom, mac, document(switch, vlan))

    (interface,) = etree.fromstring(xml_desc(guest.dom)).xpath("devices/interface")
    assert interface.attrib == {"type": "bridge", "connection": "attached"}
    assert interface.xpath("source/@bridge") == [str(switch)]
    assert interface.xpath("virtualport/@type") == ["openvswitch"]
    assert interface.xpath("virtualport/parameters/@interfaceid") == [ID]
    assert interface.xpath("vlan/tag/@id") == ["42"]
    assert not attach_backend(guest.dom, mac, document(switch, vlan)).changed

    set_link(guest.dom, mac, up=False)
    guest.wait_carrier(mac, up=False)
    set_link(guest.dom, mac, up=True)
    guest.wait_carrier(mac, up=True)
    (status,) = interfaces(guest.dom)
    assert (status.connection, status.carrier) == (Connection.ATTACHED, True)


@embedded_only
def test_vlans_of_a_guest(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    switch.peer("192.0.2.42/24", "tag=42")
    switch.peer("192.0.2.43/24", "tag=43")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    native = "<vlan trunk='yes'><tag id='42'/><tag id='43' nativeMode='untagged'/></vlan>"
    for vlan, near, far in (
        ("<vlan><tag id='42'/></vlan>", "192.0.2.42", "192.0.2.43"),
        ("<vlan><tag id='43'/></vlan>", "192.0.2.43", "192.0.2.42"),
        ("<vlan><tag id='42'/></vlan>", "192.0.2.42", "192.0.2.43"),
        (native, "192.0.2.43", "192.0.2.42"),
    ):
        attach_backend(guest.dom, mac, document(switch, vlan))
        assert guest.ping(near, count=5)
        assert not guest.ping(far, timeout=1)


@embedded_only
def test_guests_reach_each_other(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, macs = libvirt_ovs_bridge(), [new_mac(), new_mac()]
    guests = [deferred_guest(mac, timeout=None) for mac in macs]
    for number, (guest, mac) in enumerate(zip(guests, macs, strict=True), 1):
        guest.wait_ready()
        guest.set_address(mac, f"192.0.2.{number}/24")
        attach_backend(guest.dom, mac, ovs.backend(str(switch)))
    assert guests[0].ping("192.0.2.2", count=5)
    ids = {
        switch.ovs.row("Interface", port, "external_ids")["external_ids"]["iface-id"]
        for port in switch.ports()
    }
    assert len(ids) == 2


def test_a_bridge_that_is_not_there_changes_nothing(
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
) -> None:
    blue, switch, mac = libvirt_bridge("192.0.2.1/24"), libvirt_ovs_bridge(), new_mac()
    switch.peer("192.0.2.4/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    for backend, neighbour in (
        (bridge.backend(blue.name), "192.0.2.1"),
        (ovs.backend(str(switch)), "192.0.2.4"),
    ):
        attach_backend(guest.dom, mac, backend)
        before = everything(guest.dom)
        with pytest.raises((NotFoundError, OperationError), match="Open vSwitch has no bridge 'np-none'"):
            attach_backend(guest.dom, mac, ovs.backend("np-none"))
        assert everything(guest.dom) == before
        assert guest.ping(neighbour, count=5)


def test_an_open_vswitch_bridge_is_no_linux_bridge(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    with pytest.raises(NicplugError, match=r"; Open vSwitch's take <virtualport type='openvswitch'/>"):
        attach_backend(dom, mac, bridge.backend(str(switch)))


@daemon_only
def test_a_restart_of_libvirtd_keeps_it(
    deferred_guest: NewGuest,
    libvirt_connection: libvirt.virConnect,
    libvirt_daemon: PrivateDaemon,
    libvirt_bridge: BridgeFactory,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
) -> None:
    blue, switch, mac = libvirt_bridge("192.0.2.1/24"), libvirt_ovs_bridge(), new_mac()
    switch.peer("192.0.2.4/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, ovs.backend(str(switch)))
    libvirt_daemon.restart()
    guest.dom = libvirt_daemon.connect().lookupByName(guest.name)
    assert guest.ping("192.0.2.4", count=5)
    (status,) = interfaces(guest.dom)
    assert (status.connection, status.carrier) == (Connection.ATTACHED, True)
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    assert guest.ping("192.0.2.1", count=5)


@embedded_only
def test_a_restart_of_vswitchd_keeps_it(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, mac = libvirt_ovs_bridge("192.0.2.1/24"), new_mac()
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, ovs.backend(str(switch)))
    switch.ovs.stop_vswitchd()
    assert not guest.ping("192.0.2.1", timeout=1)
    switch.ovs.start_vswitchd()
    assert guest.ping("192.0.2.1", count=5)


@embedded_only
def test_a_device_that_was_made_anew_is_another_one(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, ovs.backend(str(switch)))
    (port,) = switch.ports()
    switch.ovs.stop_vswitchd(cleanup=True)
    wait_gone(port)
    switch.ovs.start_vswitchd()
    assert port in devices()
    with pytest.warns(UserWarning, match="sees a carrier on .*, and nothing is plugged in"):
        (status,) = interfaces(guest.dom)
    assert status.connection is Connection.DEFERRED
    switch.peer("192.0.2.4/24")
    assert attach_backend(guest.dom, mac, ovs.backend(str(switch))).changed
    assert guest.ping("192.0.2.4", count=5)


@daemon_only
def test_a_guest_that_is_restored_waits_for_its_port(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, mac = libvirt_ovs_bridge("192.0.2.1/24"), new_mac()
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, document(switch))
    (port,) = switch.ports()
    guest.dom.managedSave()
    wait_gone(port)
    guest.dom.create()
    guest.wait_ready()
    with pytest.warns(UserWarning, match=r"sees a carrier on .*, and nothing is plugged in"):
        (status,) = interfaces(guest.dom)
    assert status.connection is Connection.DEFERRED
    assert attach_backend(guest.dom, mac).changed
    assert guest.ping("192.0.2.1", count=5)
    ids = switch.ovs.row("Interface", *switch.ports(), "external_ids")["external_ids"]
    assert isinstance(ids, dict)
    assert ids["iface-id"] == ID


def test_the_port_goes_with_the_guest(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, macs = libvirt_ovs_bridge(), [new_mac(), new_mac()]
    guests = [deferred_guest(mac, timeout=None) for mac in macs]
    for guest, mac in zip(guests, macs, strict=True):
        attach_backend(guest.dom, mac, ovs.backend(str(switch)))
    one, other = (f"{target(guest.dom, mac)}.np0" for guest, mac in zip(guests, macs, strict=True))
    assert set(switch.ports()) == {one, other}
    guests[0].dom.destroy()
    wait_gone(one)
    assert switch.ports() == [other]
    guests[1].dom.destroy()
    wait_gone(other)
    assert switch.ports() == []


def test_a_port_that_was_left_behind_goes_when_the_same_nic_gets_another_one(
    deferred_guest: NewGuest,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch, second, mac = libvirt_ovs_bridge(), libvirt_ovs_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    with monkeypatch.context() as patch:
        patch.setattr(janitor, "ensure", lambda _: None)
        left = f"{attach_backend(dom, mac, ovs.backend(str(switch))).target}.np0"
    dom.destroy()
    dom.create()
    assert switch.ports() == [left]
    tap = attach_backend(dom, mac, ovs.backend(str(switch))).target
    assert switch.ports() == [f"{tap}.np0"]
    # One that the NIC is joined to stays until it is joined to the next one.
    with pytest.raises(OperationError):
        attach_backend(dom, mac, ovs.backend("npmissing"))
    assert switch.ports() == [f"{tap}.np0"]
    attach_backend(dom, mac, ovs.backend(str(second)))
    assert (switch.ports(), second.ports()) == ([], [f"{tap}.np1"])


@embedded_only
def test_the_directory_of_open_vswitch_has_a_space_in_its_name(
    deferred_guest: NewGuest,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    (directory := tmp_path / "my ovs").symlink_to(switch.ovs.directory)
    with monkeypatch.context() as patch:
        patch.setenv("OVS_RUNDIR", str(directory))
        attach_backend(dom, mac, ovs.backend(str(switch)))
    (seen,) = interfaces(dom)
    assert seen.connection is Connection.ATTACHED
    dom.destroy()
    wait_until(lambda: switch.ports() == [])


@embedded_only
def test_a_port_goes_from_where_it_is_whatever_the_environment_says_by_then(
    deferred_guest: NewGuest,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    run("mount", "-t", "tmpfs", "none", "/run")  # in this process's mount namespace
    try:
        Path("/run/openvswitch").symlink_to(switch.ovs.directory)
        for environment in ("", os.path.relpath(switch.ovs.directory)):
            with monkeypatch.context() as patch:
                patch.setenv("OVS_RUNDIR", environment)
                attach_backend(dom, mac, ovs.backend(str(switch)))
            assert len(switch.ports()) == 1
            with monkeypatch.context() as patch:
                patch.setenv("OVS_RUNDIR", "/nowhere")
                patch.chdir("/")
                detach_backend(dom, mac)
            assert switch.ports() == []
    finally:
        run("umount", "--lazy", "/run")


@embedded_only
def test_a_port_that_a_failed_move_comes_back_to_goes_from_where_it_is(
    deferred_guest: NewGuest,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    attach_backend(dom, mac, ovs.backend(str(switch)))
    (other := tmp_path / "other").symlink_to(switch.ovs.directory)
    with monkeypatch.context() as patch:
        patch.setenv("OVS_RUNDIR", str(other))
        fail_once(patch, "record")
        with pytest.raises(OperationError, match="the disk is full; the NIC is attached to ovs"):
            attach_backend(dom, mac, document(switch))
    other.unlink()
    detach_backend(dom, mac)
    assert switch.ports() == []


@embedded_only
def test_a_port_whose_device_somebody_renames_goes_all_the_same(
    deferred_guest: NewGuest, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    attach_backend(dom, mac, ovs.backend(str(switch)))
    (port,) = switch.ports()
    run("ip", "link", "set", port, "down")
    run("ip", "link", "set", port, "name", "npother", "up")
    (seen,) = interfaces(dom)
    assert seen.connection is Connection.ATTACHED
    detach_backend(dom, mac)
    assert switch.ports() == []
    wait_gone("npother")


NETWORK = """<network>
  <name>switched</name>
  <forward mode='bridge'/>
  <bridge name='{bridge}'/>
  <virtualport type='openvswitch'/>
  <portgroup name='sales' default='yes'><vlan><tag id='42'/></vlan></portgroup>
  <portgroup name='engineering'><vlan><tag id='43'/></vlan></portgroup>
</network>"""


@daemon_only
def test_a_network_of_libvirts_on_open_vswitch(
    libvirt_connection: libvirt.virConnect,
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    switch.peer("192.0.2.42/24", "tag=42")
    switch.peer("192.0.2.43/24", "tag=43")
    net = libvirt_connection.networkCreateXML(NETWORK.format(bridge=switch))
    try:
        guest = deferred_guest(mac)
        guest.set_address(mac, "192.0.2.2/24")
        attach_backend(guest.dom, mac, "<backend type='network'><source network='switched'/></backend>")
        assert guest.ping("192.0.2.42", count=5)
        assert not guest.ping("192.0.2.43", timeout=1)
        group = "<source network='switched' portgroup='engineering'/>"
        status = attach_backend(guest.dom, mac, f"<backend type='network'>{group}</backend>")
        assert (status.connection, status.carrier) == (Connection.ATTACHED, True)
        assert guest.ping("192.0.2.43", count=5)
        assert not guest.ping("192.0.2.42", timeout=1)
        own = "<source network='switched'/><vlan><tag id='43'/></vlan>"
        attach_backend(guest.dom, mac, f"<backend type='network'>{own}</backend>")
        assert guest.ping("192.0.2.43", count=5)
        with pytest.raises(NicplugError, match=r"vlan tag not supported .*; leave <vlan> out; update-device"):
            attach_backend(guest.dom, mac, bridge.backend(libvirt_bridge().name))
        detach_backend(guest.dom, mac)
        guest.wait_carrier(mac, up=False)
    finally:
        net.destroy()


@embedded_only
def test_from_the_command_line(
    deferred_guest: NewGuest,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nicplug_xml.cli import commands, main

    switch, mac = libvirt_ovs_bridge(), new_mac()
    guest = deferred_guest(mac)
    monkeypatch.setattr(commands, "open_connection", lambda _uri, **_: guest.dom.connect())
    where = ("--ovs", str(switch), "--interfaceid", ID, "--vlan", "42")
    assert main.main(["attach-backend", guest.name, mac, *where]) == 0
    assert f"is plugged into ovs {switch}, link up" in capsys.readouterr().out
    (port,) = switch.ports()
    assert switch.ovs.row("Port", port, "tag") == {"tag": 42}
    assert switch.ovs.row("Interface", port, "external_ids")["external_ids"]["iface-id"] == ID
    assert subprocess.run(["ip", "link", "show", port], check=False).returncode == 0


@daemon_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_ended_takes_back_what_it_has_done(
    number: signal.Signals,
    deferred_guest: NewGuest,
    libvirt_daemon: PrivateDaemon,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
) -> None:
    switch, mac = libvirt_ovs_bridge(), new_mac()
    guest = deferred_guest(mac)
    switch.ovs.stop_vswitchd()
    try:
        before, ports = everything(guest.dom), switch.ports()
        # The tests themselves may be run by nohup, which has all below it ignore SIGHUP.
        nicplug = ["env", "--default-signal", sys.executable, "-m", "nicplug_xml", "-c", libvirt_daemon.uri]
        attach = ["attach-backend", guest.name, mac, "--ovs", str(switch)]
        with subprocess.Popen([*nicplug, *attach], stderr=subprocess.PIPE, text=True) as ended:
            # Now it waits for ovs-vswitchd to make the device.
            wait_until(lambda: switch.ports() != ports)
            ended.send_signal(number)
            assert ended.communicate(timeout=15) == (None, "nicplug: error: interrupted\n")
        assert ended.returncode == 128 + number
        assert switch.ports() == ports
        assert everything(guest.dom) == before
    finally:
        switch.ovs.start_vswitchd()
