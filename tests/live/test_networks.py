"""libvirt networks that are not libvirt's own bridge: a bridge of the host's, and a pool of macvtaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libvirt
import pytest

from nicplug_xml import (
    Connection,
    InterfaceStatus,
    NicplugError,
    NotFoundError,
    attach_backend,
    create,
    define,
    detach_backend,
    interfaces,
    set_link,
    update_device,
)
from nicplug_xml.backends import bridge, network
from nicplug_xml.testing.guest import Guest
from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory, OvsBridgeFactory
from tests.live.conftest import extended_interface_xml, interface_xml, is_isolated, master, run, target, veth

NewMac = Callable[[], str]
NewGuest = Callable[..., Guest]

BOTH = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG

pytestmark = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)


@contextmanager
def active(conn: libvirt.virConnect, xml: str) -> Iterator[libvirt.virNetwork]:
    net = conn.networkCreateXML(f"<network><name>lab</name>{xml}</network>")
    try:
        yield net
    finally:
        net.destroy()


def place(status: InterfaceStatus) -> tuple[Connection, str | None, dict[str, str]]:
    assert status.backend is not None
    source = {name: value for name, value in status.backend.source.items() if name == "network"}
    return status.connection, status.backend.type, source


ATTACHED = (Connection.ATTACHED, "network", {"network": "lab"})
UNPLUGGED = (Connection.DEFERRED, "network", {"network": "lab"})


@pytest.mark.parametrize("attributes", ["connection='deferred'", "type='network' connection='attached'"])
def test_a_bridge_of_the_host(
    libvirt_connection: libvirt.virConnect,
    libvirt_guest: GuestFactory,
    libvirt_bridge: BridgeFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
    attributes: str,
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    with active(libvirt_connection, f"<forward mode='bridge'/><bridge name='{blue}'/>") as net:
        attached = "attached" in attributes
        source = "<source network='lab'/>" if attached else ""
        guest = libvirt_guest(nic_xml(mac, source, attributes), define=define)
        for address in ("192.0.2.2/24", "198.51.100.2/24"):
            guest.set_address(mac, address)
        status = attach_backend(guest.dom, mac, network.backend("lab"), flags=BOTH)
        assert (place(status), status.changed) == (ATTACHED, not attached)
        assert guest.ping("192.0.2.1", count=5)
        assert not attach_backend(guest.dom, mac, network.backend("lab")).changed
        for up in (False, True):
            assert place(set_link(guest.dom, mac, up)) == ATTACHED
            guest.wait_carrier(mac, up)
            # libvirt still has it as a NIC of the network's, which knows of it.
            assert "network='lab'" in interface_xml(guest.dom)
            assert len(net.listAllPorts()) == 1
        shown = extended_interface_xml(guest.dom)
        assert "type='network' connection='attached'" in shown.replace('"', "'")
        assert not update_device(guest.dom, shown).changed
        attach_backend(guest.dom, mac, bridge.backend(green.name))
        assert net.listAllPorts() == []
        assert guest.ping("198.51.100.1", count=5)
        attach_backend(guest.dom, mac, network.backend("lab"))
        assert guest.ping("192.0.2.1", count=5)
        assert place(detach_backend(guest.dom, mac)) == UNPLUGGED
        assert net.listAllPorts() == []
        assert place(attach_backend(guest.dom, mac)) == ATTACHED


def test_a_network_that_was_restarted(
    libvirt_connection: libvirt.virConnect, deferred_guest: NewGuest, new_mac: NewMac
) -> None:
    mac, own = new_mac(), "<bridge name='nplab' stp='off' delay='0'/>"
    with active(libvirt_connection, own):
        dom = deferred_guest(mac, timeout=None).dom
        tap = attach_backend(dom, mac, network.backend("lab")).target
    with pytest.raises(NotFoundError, match=r"set the link of .* 'lab'; .*'virsh net-start NAME' starts one"):
        set_link(dom, mac, False)
    with active(libvirt_connection, own) as net:
        assert master(tap) is None
        with pytest.warns(UserWarning, match="plugged into network lab, and is no port"):
            interfaces(dom)
        assert place(attach_backend(dom, mac)) == ATTACHED
        assert master(tap) == "nplab"
        assert len(net.listAllPorts()) == 1
        assert not attach_backend(dom, mac).changed
        detach_backend(dom, mac)


def test_a_network_that_leads_elsewhere_after_its_restart(
    libvirt_connection: libvirt.virConnect,
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    libvirt_ovs_bridge: OvsBridgeFactory,
    new_mac: NewMac,
) -> None:
    """The bridge that it had is the host's, and stays."""
    mac, blue, green = new_mac(), libvirt_bridge(), libvirt_bridge()
    switches = libvirt_ovs_bridge(), libvirt_ovs_bridge()
    dom = deferred_guest(mac, timeout=None).dom
    tap = target(dom, mac)
    with veth("nplow", blue.name) as lower, veth("npother", blue.name) as other:
        bridged, pool = "<forward mode='bridge'/><bridge name='{}'/>", "<forward mode='bridge' dev='{}'/>"
        private = pool.replace("bridge", "private")
        switched = f"{bridged}<virtualport type='openvswitch'/>"
        for forward, at in (
            (bridged, blue), (bridged, green), (pool, lower), (private, lower), (pool, other),
            (bridged, green), (switched, switches[0]), (switched, switches[1]), (pool, lower),
        ):  # fmt: skip
            with active(libvirt_connection, forward.format(at)):
                assert place(attach_backend(dom, mac, network.backend("lab"))) == ATTACHED
                assert not attach_backend(dom, mac, network.backend("lab")).changed
                if forward == bridged:
                    assert master(tap) == str(at)
                else:
                    mode = "private" if forward == private else ""
                    assert f" {at} {mode}" in run("ip", "link", "show", tap).partition("alias")[2]
        detach_backend(dom, mac)
    assert [switch.ports() for switch in switches] == [[], []]


def test_from_one_portgroup_to_another(
    libvirt_connection: libvirt.virConnect, deferred_guest: NewGuest, new_mac: NewMac
) -> None:
    mac = new_mac()
    groups = "<portgroup name='a' default='yes'/><portgroup name='b'/>"
    with active(libvirt_connection, f"<bridge name='nplab' stp='off' delay='0'/>{groups}") as net:
        guest = deferred_guest(mac)
        attach_backend(guest.dom, mac, network.backend("lab"))
        changes = guest.run("cat /sys/class/net/eth0/carrier_changes")
        for group in ("portgroup='a'", "portgroup='b'", ""):
            source = f"<source network='lab' {group}/>"
            assert attach_backend(guest.dom, mac, f"<backend type='network'>{source}</backend>").changed
            assert ("portgroup" in interface_xml(guest.dom)) == bool(group)
            assert group in interface_xml(guest.dom)
            assert len(net.listAllPorts()) == 1
        assert guest.run("cat /sys/class/net/eth0/carrier_changes") == changes
        detach_backend(guest.dom, mac)


def test_what_a_network_gives_stays_with_it(
    libvirt_connection: libvirt.virConnect,
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge(), libvirt_bridge()
    isolating = f"<forward mode='bridge'/><bridge name='{blue}'/><port isolated='yes'/>"
    with active(libvirt_connection, isolating):
        guest = deferred_guest(mac)
        attach_backend(guest.dom, mac, network.backend("lab"))
        assert is_isolated(tap := target(guest.dom, mac))
        assert not attach_backend(guest.dom, mac, network.backend("lab")).changed
        assert "<port isolated='yes'/>" in (shown := extended_interface_xml(guest.dom))
        assert not update_device(guest.dom, shown).changed
        attach_backend(guest.dom, mac, bridge.backend(green.name))
        assert master(tap) == green.name
        assert not is_isolated(tap)
        attach_backend(guest.dom, mac, network.backend("lab"))
        status = detach_backend(guest.dom, mac)
        assert status.backend is not None
        assert status.backend.child("port") is None


def test_a_failed_move_leaves_the_queue_of_the_device(
    libvirt_connection: libvirt.virConnect, deferred_guest: NewGuest, new_mac: NewMac
) -> None:
    mac = new_mac()
    with active(libvirt_connection, "<forward mode='bridge'/><bridge name='npmissing'/>"):
        guest = deferred_guest(mac)
        run("tc", "qdisc", "add", "dev", (tap := target(guest.dom, mac)), "root", "pfifo", "limit", "77")
        before = run("tc", "qdisc", "show", "dev", tap)
        with pytest.raises(NicplugError, match=r"could not plug .* into network lab"):
            attach_backend(guest.dom, mac, network.backend("lab"))
        # Somebody else's: only a bandwidth that libvirt may have set is taken back.
        assert run("tc", "qdisc", "show", "dev", tap) == before


@pytest.mark.parametrize("make", [define, create])
def test_a_pool_of_macvtaps(
    libvirt_connection: libvirt.virConnect,
    libvirt_guest: GuestFactory,
    libvirt_bridge: BridgeFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
    make: Callable[[libvirt.virConnect, str], libvirt.virDomain],
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    with veth("nplow", green.name) as lower:
        pool = f"<forward mode='bridge'><interface dev='{lower}'/></forward>"
        with active(libvirt_connection, pool):
            nic = nic_xml(mac, "<source network='lab'/>", "type='network' connection='attached'")
            guest = libvirt_guest(nic, define=make)
            guest.set_address(mac, "192.0.2.2/24")
            guest.set_address(mac, "198.51.100.2/24")
            # A macvtap of libvirt's own could not be unplugged: a start from the definition makes none.
            (status,) = interfaces(guest.dom)
            assert place(status) == (UNPLUGGED if make is define else ATTACHED)
            assert place(attach_backend(guest.dom, mac)) == ATTACHED
            assert guest.ping("198.51.100.1", count=5)
            attach_backend(guest.dom, mac, bridge.backend(blue.name), flags=BOTH if make is define else 0)
            assert guest.ping("192.0.2.1", count=5)
            if make is define:
                attach_backend(guest.dom, mac, network.backend("lab"), flags=libvirt.VIR_DOMAIN_AFFECT_CONFIG)
                (status,) = interfaces(guest.dom, inactive=True)
                assert place(status) == ATTACHED
                guest.dom.destroy()
                guest.dom.create()
                assert place(interfaces(guest.dom)[0]) == UNPLUGGED
                assert place(attach_backend(guest.dom, mac)) == ATTACHED
            assert place(attach_backend(guest.dom, mac, network.backend("lab"))) == ATTACHED
            assert place(detach_backend(guest.dom, mac)) == UNPLUGGED
