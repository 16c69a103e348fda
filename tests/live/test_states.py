"""Live and persistent state, and what outlives restarts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest
from lxml import etree

from nicplug_xml import (
    Connection,
    attach_backend,
    create,
    define,
    detach_backend,
    interfaces,
    set_link,
    xml_desc,
)
from nicplug_xml.backends import bridge, direct
from nicplug_xml.errors import NicplugError, SchemaError
from nicplug_xml.host.locking import locked
from tests.live.conftest import PARKING, everything, interface_xml, is_isolated, master, run, target, veth

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

NewMac = Callable[[], str]
NewGuest = Callable[..., "Guest"]
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
daemon_only = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)


def connection_of(dom: libvirt.virDomain, *, inactive: bool = False) -> Connection:
    (status,) = interfaces(dom, inactive=inactive)
    return status.connection


def test_live_and_config_are_two_states(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac)
    dom, backend = guest.dom, bridge.backend(blue.name)
    attach_backend(dom, mac, backend)
    assert connection_of(dom) is Connection.ATTACHED
    assert connection_of(dom, inactive=True) is Connection.DEFERRED
    # By the tap's name, which only the running domain has.
    attach_backend(dom, target(dom, mac), backend, flags=CONFIG)
    assert connection_of(dom, inactive=True) is Connection.ATTACHED
    detach_backend(dom, mac, flags=LIVE | CONFIG)
    assert connection_of(dom) is connection_of(dom, inactive=True) is Connection.DEFERRED
    attach_backend(dom, mac, flags=LIVE | CONFIG)
    dom.destroy()
    assert connection_of(dom) is Connection.ATTACHED
    dom.create()
    guest.wait_ready()
    assert guest.carrier(mac)
    guest.set_address(mac, "192.0.2.2/24")
    assert guest.ping("192.0.2.1", count=5)
    detach_backend(dom, mac)
    guest.wait_carrier(mac, up=False)


def test_reset_keeps_the_state(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    here, parked, blue = new_mac(), new_mac(), libvirt_bridge()
    guest = deferred_guest(here, parked)
    attach_backend(guest.dom, here, bridge.backend(blue.name))
    guest.dom.reset()
    guest.wait_ready()
    assert (guest.carrier(here), guest.carrier(parked)) == (True, False)


def test_managedsave_keeps_the_state(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    here, parked, blue = new_mac(), new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(here, parked)
    guest.set_address(here, "192.0.2.2/24")
    attach_backend(guest.dom, here, bridge.backend(blue.name))
    before = [(status.mac, status.connection) for status in interfaces(guest.dom)]
    guest.dom.managedSave()
    assert not guest.dom.isActive()
    guest.dom.create()
    guest.wait_ready()
    assert [(status.mac, status.connection) for status in interfaces(guest.dom)] == before
    assert (guest.carrier(here), guest.carrier(parked)) == (True, False)
    assert guest.ping("192.0.2.1", count=5)
    detach_backend(guest.dom, here)
    guest.wait_carrier(here, up=False)


@daemon_only
def test_plain_virsh_starts_it_unplugged_and_libvirtd_may_restart(
    libvirt_connection: libvirt.virConnect,
    libvirt_daemon: PrivateDaemon,
    libvirt_guest: GuestFactory,
    libvirt_bridge: BridgeFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")

    def define_and_start(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain:
        dom = define(conn, xml)
        run("virsh", "-c", libvirt_daemon.uri, "start", dom.name())
        return dom

    guest = libvirt_guest(nic_xml(mac), define=define_and_start)
    assert not guest.carrier(mac)
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    guest.set_address(mac, "192.0.2.2/24")
    for expected in (Connection.ATTACHED, Connection.DEFERRED):
        libvirt_daemon.restart()
        guest.dom = libvirt_daemon.connect().lookupByName(guest.name)
        assert connection_of(guest.dom) is expected
        assert guest.carrier(mac) is (expected is Connection.ATTACHED)
        if expected is Connection.ATTACHED:
            assert guest.ping("192.0.2.1", count=5)
            detach_backend(guest.dom, mac)
    attach_backend(guest.dom, mac)
    assert guest.ping("192.0.2.1", count=5)


@daemon_only
def test_the_parking_network_comes_back(
    libvirt_connection: libvirt.virConnect,
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac, timeout=None)
    network = libvirt_connection.networkLookupByName("nicplug-parking")
    assert (network.isActive(), network.isPersistent(), network.autostart()) == (1, 1, 1)
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    network.destroy()
    network.undefine()
    detach_backend(guest.dom, mac)
    assert connection_of(guest.dom) is Connection.DEFERRED
    assert libvirt_connection.networkLookupByName("nicplug-parking").isActive()


@daemon_only
def test_a_parking_network_that_is_not_active_keeps_no_nic_plugged_in(
    libvirt_connection: libvirt.virConnect,
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    """libvirt has a tap there that the kernel joins to something, and changes no link of it then."""
    mac, blue = new_mac(), libvirt_bridge()
    dom = deferred_guest(mac, timeout=None).dom
    parking = libvirt_connection.networkLookupByName("nicplug-parking")
    parking.destroy()
    attach_backend(dom, mac, direct.backend(blue.name))
    parking.destroy()
    assert set_link(dom, mac, up=False).carrier is False
    assert set_link(dom, mac, up=True).carrier is True
    parking.destroy()
    assert detach_backend(dom, mac).carrier is False


def test_transient_domain(deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac, transient=True)
    assert not guest.dom.isPersistent()
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    guest.wait_carrier(mac, up=True)
    assert "connection='attached'" in xml_desc(guest.dom)


def test_create_tells_two_nics_of_one_mac_apart(
    libvirt_guest: GuestFactory,
    libvirt_bridge: BridgeFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    run("ip", "link", "add", "npone", "type", "veth", "peer", "name", "npother")
    try:
        first = nic_xml(
            mac, f"<source bridge='{blue}'/><alias name='ua-a'/>", "type='bridge' connection='deferred'"
        )
        second = nic_xml(mac, "<source dev='npone'/>", "type='netdev' connection='attached'")
        guest = libvirt_guest(first + second, define=create, timeout=None)
        found = {nic.alias: nic.connection for nic in interfaces(guest.dom)}
        assert found == {"ua-a": Connection.DEFERRED, "net0": Connection.ATTACHED}
        guest.remove()
    finally:
        run("ip", "link", "delete", "npone")


def test_everything_else_of_the_interface_survives(
    libvirt_guest: GuestFactory,
    libvirt_connection: libvirt.virConnect,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    blue, mac = libvirt_bridge(), new_mac()
    filters = "<filterref filter='npfilter'/>" if "embed" not in libvirt_connection.getURI() else ""
    if filters:
        libvirt_connection.nwfilterDefineXML("<filter name='npfilter' chain='root'/>")
    nic = f"""<interface type='bridge' connection='deferred' trustGuestRxFilters='no'>
      <mac address='{mac}'/>
      <source bridge='{blue}'/>
      <target dev='npvif7'/>
      <model type='virtio'/>
      <driver name='qemu' txmode='iothread' queues='2' rx_queue_size='512'><host csum='off'/></driver>
      {filters}
      <port isolated='yes'/>
      <link state='up'/>
      <mtu size='1400'/>
      <boot order='1'/>
      <rom enabled='no'/>
      <alias name='ua-nic7'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x09' function='0x0'/>
    </interface>"""
    guest = libvirt_guest(nic, define=define)
    dom = guest.dom

    def parts() -> list[str]:
        (element,) = etree.fromstring(xml_desc(dom)).iterfind("devices/interface")
        return sorted(etree.tostring(child, method="c14n", with_tail=False).decode() for child in element)

    attach_backend(dom, "ua-nic7")
    attached = parts()
    assert any("npvif7" in part for part in attached)
    assert any("ua-nic7" in part for part in attached)
    assert any('<port isolated="yes">' in part for part in attached)
    if filters:
        assert any("npfilter" in part for part in attached)
    detach_backend(dom, "npvif7")
    attach_backend(dom, mac)
    assert parts() == attached
    guest.wait_carrier(mac, up=True)
    assert guest.run("cat /sys/class/net/eth0/mtu").strip() == "1400"
    # Policy and place in the persistent definition, where no kernel or switch has to have them.
    policy = "<bandwidth><inbound average='1000'/></bandwidth><vlan><tag id='42'/></vlan>"
    attach_backend(
        dom, mac, f"<backend type='bridge'><source bridge='{blue}'/>{policy}</backend>", flags=CONFIG
    )
    detach_backend(dom, mac, flags=CONFIG)
    attach_backend(dom, mac, bridge.backend("elsewhere"), flags=CONFIG)
    config = dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    for part in ("<source bridge='elsewhere'/>", "<inbound average='1000'/>", "<tag id='42'/>"):
        assert part in config


@pytest.mark.parametrize("attached", [False, True])
def test_a_filter_that_fails_leaves_the_nic_where_it_was(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac, attached: bool
) -> None:
    """libvirt has put the tap into the new bridge by then."""
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge()
    guest = deferred_guest(mac)
    if attached:
        attach_backend(guest.dom, mac, bridge.backend(blue.name))
    (before,) = interfaces(guest.dom)
    master = Path("/sys/class/net", before.target, "master")
    place, isolated = master.readlink(), (master.parent / "brport" / "isolated").read_text()
    filtered = f"<backend type='bridge'><source bridge='{green}'/><filterref filter='npmissing'/></backend>"
    with pytest.raises(NicplugError):
        attach_backend(guest.dom, mac, filtered)
    assert interfaces(guest.dom) == [before]
    assert (master.readlink(), (master.parent / "brport" / "isolated").read_text()) == (place, isolated)
    attach_backend(guest.dom, mac, bridge.backend(green.name))
    assert master.readlink().name == green.name
    detach_backend(guest.dom, mac)


@pytest.mark.parametrize("attached", [False, True])
def test_what_is_no_bridge_leaves_the_nic_isolated(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac, attached: bool
) -> None:
    """libvirt 9.0 puts the tap back as a port that is not."""
    mac, blue = new_mac(), libvirt_bridge()
    dom = deferred_guest(mac, timeout=None).dom
    if attached:
        isolated = f"<backend type='bridge'><source bridge='{blue}'/><port isolated='yes'/></backend>"
        attach_backend(dom, mac, isolated)
    with veth("npnone", blue.name) as device:
        assert is_isolated(target(dom, mac))
        before = everything(dom)
        with pytest.raises(NicplugError, match=f"into bridge {device}: .*'ip link show type bridge'"):
            attach_backend(dom, mac, bridge.backend(device))
        assert everything(dom) == before
        with pytest.raises(NicplugError, match="device maximum"):
            attach_backend(dom, mac, bridge.backend("lo"))  # its MTU comes first
        assert everything(dom) == before


def test_what_virsh_did_behind_our_back_is_shown(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge(), libvirt_bridge()
    guest = deferred_guest(mac, timeout=None)
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    guest.dom.updateDeviceFlags(interface_xml(guest.dom).replace(f"'{blue}'", f"'{green}'"), LIVE)
    (status,) = interfaces(guest.dom)
    assert status.backend == bridge.backend(green.name)
    detached = detach_backend(guest.dom, mac)
    assert detached.backend is not None
    assert detached.backend.source == {"bridge": green.name}


def test_the_link_of_a_stock_nic_that_has_fallen_off_its_bridge(
    libvirt_guest: GuestFactory, nic_xml: Callable[..., str], libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    dom = libvirt_guest(nic_xml(mac, f"<source bridge='{blue}'/>", "type='bridge'"), timeout=None).dom
    run("ip", "link", "set", target(dom, mac), "nomaster")
    assert set_link(dom, mac, up=False).carrier is False
    assert set_link(dom, mac, up=True).carrier is True
    assert master(target(dom, mac)) is None


def test_a_bridge_that_is_made_anew_and_a_tap_that_is_put_elsewhere(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge(), libvirt_bridge()
    dom = deferred_guest(mac, timeout=None).dom
    tap, backend = attach_backend(dom, mac, bridge.backend(blue.name)).target, bridge.backend(blue.name)
    run("ip", "link", "delete", blue.name)
    with pytest.raises(NicplugError, match="attached to bridge"):
        attach_backend(dom, mac)
    run("ip", "link", "add", blue.name, "type", "bridge")
    for master_of in (None, green.name):
        if master_of:
            run("ip", "link", "set", tap, "master", master_of)
        with pytest.warns(UserWarning, match=f"plugged into bridge {blue}, and is no port"):
            interfaces(dom)
        # That is for attach-backend to mend.
        assert set_link(dom, mac, up=False).carrier is False
        assert set_link(dom, mac, up=True).carrier is True
        assert master(tap) == master_of
        assert attach_backend(dom, mac, backend).changed
        assert master(tap) == blue.name
        assert not attach_backend(dom, mac).changed
    run("ip", "link", "set", tap, "master", green.name)
    assert attach_backend(dom, mac, bridge.backend(green.name)).changed
    run("ip", "link", "set", tap, "master", blue.name)
    detach_backend(dom, mac)
    assert master(tap) in PARKING


def test_entries_of_interfaces_that_are_gone_are_told_and_dropped(
    deferred_guest: NewGuest, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac, timeout=None)
    stale = "<interfaces><interface mac='52:54:00:99:99:99' plane='tap'/>" + (
        f"<interface mac='{mac}' plane='tap'/></interfaces>"
    )
    guest.dom.setMetadata(2, stale, "nicplug", "urn:nicplug:domain:1.0", LIVE)
    with pytest.warns(UserWarning, match="52:54:00:99:99:99"):
        interfaces(guest.dom)
    set_link(guest.dom, mac, up=False)
    assert "99:99:99" not in guest.dom.metadata(2, "urn:nicplug:domain:1.0", LIVE)


def test_a_clone_can_be_plugged_in(
    libvirt_guest: GuestFactory, nic_xml: Callable[..., str], libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    """Its NICs have other MACs than the metadata that it has of the domain that it was made of."""
    mac, other, place = new_mac(), new_mac(), libvirt_bridge()

    def clone(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain:
        original = define(conn, xml).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        return conn.defineXML(original.replace(f"<mac address='{mac}'/>", f"<mac address='{other}'/>"))

    intended = f"<source bridge='{place}'/>"
    guest = libvirt_guest(nic_xml(mac, intended, "type='bridge' connection='deferred'"), define=clone)
    with pytest.warns(UserWarning, match=f"names an interface {mac}"):
        (unplugged,) = interfaces(guest.dom)
    assert (unplugged.plane, unplugged.connection, unplugged.backend) == ("tap", Connection.DEFERRED, None)
    with pytest.raises(SchemaError, match="has no intended backend"):
        attach_backend(guest.dom, other)
    attach_backend(guest.dom, other, bridge.backend(place.name))
    assert master(target(guest.dom, other)) == place.name
    assert guest.carrier(other)
    assert detach_backend(guest.dom, other).backend == bridge.backend(place.name)
    assert not guest.carrier(other)
    assert mac not in xml_desc(guest.dom)


def test_a_definition_waits_for_an_operation(deferred_guest: NewGuest, new_mac: NewMac) -> None:
    """What the operation is about to record would go with the definition that it has seen."""
    dom = deferred_guest(new_mac(), timeout=None).dom
    with ThreadPoolExecutor() as pool:
        with locked(dom.UUIDString()):
            waiting = pool.submit(define, dom.connect(), xml_desc(dom, libvirt.VIR_DOMAIN_XML_INACTIVE))
            assert wait([waiting], timeout=0.5).not_done
        assert waiting.result(timeout=30).UUIDString() == dom.UUIDString()


def test_recording_tells_other_clients(
    libvirt_connection: libvirt.virConnect,
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    import threading

    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac, timeout=None)
    seen, told = [], threading.Event()

    def changed(_conn: object, _dom: object, _kind: int, uri: str, _opaque: object) -> None:
        seen.append(uri)
        told.set()

    event = libvirt_connection.domainEventRegisterAny(
        guest.dom, libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, changed, None
    )
    try:
        attach_backend(guest.dom, mac, bridge.backend(blue.name))
        assert told.wait(5)
    finally:
        libvirt_connection.domainEventDeregisterAny(event)
    assert set(seen) == {"urn:nicplug:domain:1.0"}
