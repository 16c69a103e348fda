"""Plane veth, beyond what it has in common with the others (test_conformance)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import (
    Connection,
    NicplugError,
    OperationError,
    UnsupportedError,
    attach_backend,
    create,
    define,
    detach_backend,
    interfaces,
    plan_attach,
    plan_detach,
    set_link,
    update_device,
    xml_desc,
)
from nicplug_xml.backends import bridge, cable, direct, netdev, network
from nicplug_xml.host import peer
from nicplug_xml.host.domain import Domain
from nicplug_xml.model import Backend
from nicplug_xml.operations import interface_xml
from nicplug_xml.plan import carry_out
from nicplug_xml.steps import Step
from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.container import boot_container
from nicplug_xml.testing.daemon import private_daemon
from nicplug_xml.testing.namespace import new_network, run_in_network
from tests.live.conftest import (
    address,
    at_once,
    devices,
    everything,
    is_isolated,
    master,
    mtu,
    run,
    target,
    wait_until,
)
from tests.live.frames import Wire
from tests.live.test_cables import network_of

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory, PeerFactory

NewMac = Callable[[], str]
NewContainer = Callable[..., "Guest"]
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
on_daemon = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)


def nic(mac: str, attributes: str = "connection='deferred'", children: str = "") -> str:
    return f"<interface {attributes}><mac address='{mac}'/>{children}</interface>"


def on_bridge(mac: str, name: object, children: str = "") -> str:
    return nic(mac, "type='bridge' connection='attached'", f"<source bridge='{name}'/>{children}")


@pytest.fixture
def deferred_container(libvirt_container: GuestFactory) -> NewContainer:
    """A factory of running containers that are defined with nicplug, one deferred NIC for each MAC."""
    return lambda *macs: libvirt_container("".join(map(nic, macs)), define=define)


@pytest.fixture
def lower() -> Iterator[str]:
    """A device of the host with another one, ``npvethlow1``, at its other end."""
    run("ip", "link", "add", "npvethlow", "type", "veth", "peer", "name", "npvethlow1")
    for name in ("npvethlow", "npvethlow1"):
        run("ip", "link", "set", name, "up")
    yield "npvethlow"
    run("ip", "link", "delete", "npvethlow")


def reboot(container: Guest) -> None:
    before = len(container.events("ready"))
    with suppress(TimeoutError):
        container.run("reboot -f")
    wait_until(lambda: len(container.events("ready")) > before)
    container.wait_ready()


def test_no_carrier_at_the_start_not_for_a_moment(deferred_container: NewContainer, new_mac: NewMac) -> None:
    mac = new_mac()
    container = deferred_container(mac)
    time.sleep(0.5)
    assert container.run("cat /sys/class/net/eth0/carrier_changes") == "1\n"
    assert [event.fields["carrier"] for event in container.events("added")] == ["down"]
    assert container.events("carrier") == []
    (status,) = interfaces(container.dom)
    assert (status.plane, status.connection, status.carrier) == ("veth", Connection.DEFERRED, False)


def test_a_container_whose_metadata_is_lost_is_plugged_in_all_the_same(
    libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge()

    def lose(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain:
        defined = define(conn, xml).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        return conn.defineXML(re.sub("<metadata>.*</metadata>", "", defined, flags=re.DOTALL))

    container = libvirt_container(nic(mac), define=lose)
    assert "metadata" not in container.dom.XMLDesc()
    assert not container.carrier(mac)
    attach_backend(container.dom, mac, bridge.backend(blue.name))
    container.wait_carrier(mac, up=True)
    assert master(target(container.dom, mac)) == blue.name


@pytest.mark.parametrize("plugged", ["bridge", "direct", "netdev"])
def test_the_host_says_nothing_to_a_container(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, lower: str, new_mac: NewMac, plugged: str
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    for device in (blue.name, lower, f"{lower}1"):
        run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
    container = deferred_container(mac)
    for _ in range(2):
        attach_backend(container.dom, mac, BACKENDS[plugged](blue.name, lower))
        set_link(container.dom, mac, False)
        set_link(container.dom, mac, True)
        container.wait_carrier(mac, up=True)
        time.sleep(1.5)
        detach_backend(container.dom, mac)
    assert container.run("cat /sys/class/net/eth0/statistics/rx_packets") == "0\n"


def test_an_address_is_set_at_the_start(
    libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    blue, mac = libvirt_bridge("192.0.2.1/24"), new_mac()
    address = "<ip family='ipv4' address='192.0.2.9' prefix='24'/>"
    container = libvirt_container(on_bridge(mac, blue, address), define=define)
    assert "inet 192.0.2.9/24 " in container.run("ip addr show dev eth0")
    assert container.ping("192.0.2.1", count=3)
    assert "192.0.2.9" in xml_desc(container.dom)
    with pytest.raises(UnsupportedError, match="cannot carry out <ip> of a backend"):
        attach_backend(container.dom, mac, Backend("bridge", (f"<source bridge='{blue}'/>", address)))
    detach_backend(container.dom, mac)
    attach_backend(container.dom, mac)
    assert container.ping("192.0.2.1", count=3)


def test_what_is_defined_as_attached_starts_plugged_in(
    libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory, lower: str, new_mac: NewMac
) -> None:
    blue, macs = libvirt_bridge("192.0.2.1/24"), [new_mac() for _ in range(4)]
    run("ip", "address", "add", "198.51.100.1/24", "dev", f"{lower}1")
    container = libvirt_container(
        on_bridge(macs[0], blue, "<port isolated='yes'/>")
        + on_bridge(macs[1], "np-missing")
        + nic(macs[2], "type='direct' connection='attached'", f"<source dev='{lower}' mode='bridge'/>")
        + on_bridge(macs[3], blue, "<link state='down'/>"),
        define=define,
    )
    statuses = {status.mac: status for status in interfaces(container.dom)}
    seen = [(statuses[mac].connection.value, statuses[mac].carrier) for mac in macs]
    assert seen == [("attached", True), ("deferred", False), ("attached", True), ("attached", False)]
    assert [container.carrier(mac) for mac in macs] == [True, False, True, False]
    assert is_isolated(statuses[macs[0]].target)
    container.set_address(macs[0], "192.0.2.2/24")
    container.set_address(macs[2], "198.51.100.2/24")
    assert container.ping("192.0.2.1", count=5)
    assert container.ping("198.51.100.1", count=5)


def test_containers_of_one_mac_that_start_at_once(
    libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, bridges = new_mac(), [libvirt_bridge() for _ in range(3)]
    doms = [libvirt_container(on_bridge(mac, where), define=define).dom for where in bridges]
    for _ in range(3):
        for dom in doms:
            dom.destroy()
        at_once(libvirt.virDomain.create, doms)
        assert [master(target(dom, mac)) for dom in doms] == [where.name for where in bridges]


def test_without_the_hook(
    libvirt_daemon: PrivateDaemon,
    libvirt_containers: libvirt.virConnect,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    """libvirt alone gives a carrier at the start, and takes a NIC out of its bridge when it is restarted."""
    blue, mac, other = libvirt_bridge("192.0.2.1/24"), new_mac(), new_mac()
    # One of the two can have the parking place.
    with suppress(libvirt.libvirtError):
        libvirt_daemon.connect().networkLookupByName("nicplug-parking").destroy()
    with private_daemon(hook=False) as daemon, short_directory() as workdir:
        boot = partial(boot_container, daemon.connect_containers(), workdir=workdir)
        container = boot("nohook", nic(mac), define=define)
        container.wait_ready()
        container.wait_carrier(mac, up=True)
        with pytest.warns(UserWarning, match="sees a carrier on .*, and nothing is plugged in"):
            (status,) = interfaces(container.dom)
        assert (status.connection, status.carrier) == (Connection.DEFERRED, True)
        assert detach_backend(container.dom, mac).changed
        container.wait_carrier(mac, up=False)

        attach_backend(container.dom, mac, bridge.backend(blue.name))
        container.set_address(mac, "192.0.2.2/24")
        assert container.ping("192.0.2.1", count=5)
        daemon.restart()
        container.dom = daemon.connect_containers().lookupByName("nohook")
        with pytest.warns(UserWarning, match="nothing is plugged in"):
            (status,) = interfaces(container.dom)
        assert status.connection is Connection.DEFERRED
        assert not container.ping("192.0.2.1", timeout=1)
        attach_backend(container.dom, mac)
        assert container.ping("192.0.2.1", count=5)

        boot = partial(boot_container, daemon.connect_containers(), workdir=workdir)
        transient = boot(
            "transient", nic(mac.replace("52:54:00", "52:54:01")) + on_bridge(other, blue), define=create
        )
        transient.wait_ready()
        assert not transient.dom.isPersistent()
        deferred, attached = interfaces(transient.dom)
        assert (deferred.connection, deferred.carrier) == (Connection.DEFERRED, False)
        assert (attached.connection, attached.carrier) == (Connection.ATTACHED, True)
        transient.set_address(other, "192.0.2.3/24")
        assert transient.ping("192.0.2.1", count=5)


def test_a_hook_that_fails_ends_no_container(
    libvirt_daemon: PrivateDaemon, deferred_container: NewContainer, new_mac: NewMac
) -> None:
    container = deferred_container(new_mac())
    text = container.dom.XMLDesc().replace("urn:nicplug:domain:1.0", "urn:nicplug:domain:1.0' x='")
    for operation in ("start", "reconnect", "stopped", ""):
        ran = subprocess.run(
            [sys.executable, "-m", "nicplug_xml.host.hook", container.name, operation, "begin", "-"],
            input=text, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_reboot_takes_the_definition(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    container = deferred_container(mac)
    attach_backend(container.dom, mac, bridge.backend(blue.name))
    before = target(container.dom, mac)
    reboot(container)
    assert before not in devices()
    (status,) = interfaces(container.dom)
    assert (status.connection, status.carrier, status.backend) == (Connection.DEFERRED, False, None)
    assert not container.carrier(mac)


def test_user_aliases(
    libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    """libvirt's LXC driver drops them; nicplug does not."""
    mac, other, blue = new_mac(), new_mac(), libvirt_bridge()
    container = libvirt_container(
        nic(mac, children="<alias name='ua-lan'/>") + nic(other, children="<alias name='ua-wan'/>"),
        define=define,
    )
    assert "ua-lan" not in container.dom.XMLDesc().split("</metadata>")[1]
    assert attach_backend(container.dom, "ua-lan", bridge.backend(blue.name)).mac == mac
    assert attach_backend(container.dom, "ua-lan", bridge.backend(blue.name), flags=CONFIG).alias == "ua-lan"
    for shown in (xml_desc(container.dom), xml_desc(container.dom, libvirt.VIR_DOMAIN_XML_INACTIVE)):
        assert [f"<alias name='ua-{name}'/>" in shown for name in ("lan", "wan")] == [True, True]
    for name in ("ua-lan", "ua-wan"):
        shown = interface_xml(container.dom, name)[1]
        assert not update_device(container.dom, shown).changed
    with pytest.raises(UnsupportedError, match="alias name='ua-other'"):
        update_device(container.dom, shown.replace("ua-wan", "ua-other"))
    again = define(container.dom.connect(), xml_desc(container.dom, libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert [status.alias for status in interfaces(again, inactive=True)] == ["ua-lan", "ua-wan"]


def test_isolated_ports(
    deferred_container: NewContainer,
    libvirt_bridge: BridgeFactory,
    libvirt_peer: PeerFactory,
    new_mac: NewMac,
) -> None:
    macs, blue = [new_mac(), new_mac()], libvirt_bridge()
    there = libvirt_peer(blue, "192.0.2.9/24")
    containers = [deferred_container(mac) for mac in macs]
    isolated = f"<backend type='bridge'><source bridge='{blue}'/><port isolated='yes'/></backend>"
    for number, (container, mac) in enumerate(zip(containers, macs, strict=True), 1):
        container.set_address(mac, f"192.0.2.{number}/24")
        attach_backend(container.dom, mac, isolated)
        assert there.ping(f"192.0.2.{number}", count=5)
    assert not containers[0].ping("192.0.2.2", count=2, timeout=1)
    for container, mac in zip(containers, macs, strict=True):
        update_device(container.dom, on_bridge(mac, blue))
    assert containers[0].ping("192.0.2.2", count=10)


def test_parked_containers_reach_nobody(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    libvirt_bridge("192.0.2.9/24")
    macs = [new_mac(), new_mac()]
    containers = [deferred_container(mac) for mac in macs]
    for number, (container, mac) in enumerate(zip(containers, macs, strict=True), 1):
        container.set_address(mac, f"192.0.2.{number}/24")
    assert not containers[0].ping("192.0.2.2", timeout=1)
    assert not containers[0].ping("192.0.2.9", timeout=1)
    # Somebody gives them a carrier by hand.
    for container, mac in zip(containers, macs, strict=True):
        run("ip", "link", "set", target(container.dom, mac), "up")
        container.wait_carrier(mac, up=True)
    assert not containers[0].ping("192.0.2.2", timeout=1)


@on_daemon
def test_a_cable_between_a_guest_and_a_container(
    libvirt_guest: GuestFactory,
    deferred_container: NewContainer,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
) -> None:
    here, there = new_mac(), new_mac()
    guest = libvirt_guest(nic_xml(here), define=define)
    container = deferred_container(there)
    guest.set_address(here, "192.0.2.1/24")
    container.set_address(there, "192.0.2.2/24")

    attach_backend(container.dom, there, cable.backend(guest.name, here))
    for end, mac in ((guest, here), (container, there)):
        end.wait_carrier(mac, up=True)
        (status,) = interfaces(end.dom)
        assert status.connection is Connection.ATTACHED
        assert status.backend is not None
        assert status.backend.type == "cable"
    assert guest.ping("192.0.2.2", count=5)
    assert container.ping("192.0.2.1", count=5)

    detach_backend(guest.dom, here)
    for end, mac in ((guest, here), (container, there)):
        end.wait_carrier(mac, up=False)
    attach_backend(guest.dom, here, cable.backend(container.name, there))
    assert guest.ping("192.0.2.2", count=10)
    container.dom.destroy()
    guest.wait_carrier(here, up=False, timeout=30)


def test_create_plugs_in_a_cable_from_one_nic_to_the_next(
    libvirt_container: GuestFactory, new_mac: NewMac
) -> None:
    here, there = new_mac(), new_mac()
    source = f"<source domain='nploop' interface='{there}'/>"
    nics = nic(here, "type='cable' connection='attached'", source) + nic(there)
    container = libvirt_container(nics, define=create, name="nploop")
    for status in interfaces(container.dom):
        assert (status.connection, status.carrier) == (Connection.ATTACHED, True)


@on_daemon
def test_a_cable_finds_the_one_that_runs_of_two_domains_of_a_name(
    libvirt_guest: GuestFactory,
    deferred_container: NewContainer,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
) -> None:
    here, there = new_mac(), new_mac()
    guest = libvirt_guest(nic_xml(here), define=define, timeout=None)
    container = deferred_container(there)
    namesake = container.dom.connect().defineXML(
        f"<domain type='lxc'><name>{guest.name}</name><memory>1024</memory>"
        "<os><type>exe</type><init>/init</init></os></domain>"
    )
    try:
        for plug in (
            lambda: attach_backend(guest.dom, here, cable.backend(container.name, there)),
            lambda: attach_backend(container.dom, there, cable.backend(guest.name, here)),
        ):
            plug()
            detach_backend(container.dom, there)
            assert "clsact" not in run("tc", "qdisc")
            for end in (guest, container):
                (status,) = interfaces(end.dom)
                assert (status.connection, status.carrier) == (Connection.DEFERRED, False)
    finally:
        namesake.undefine()


def test_a_container_that_changes_its_mac_is_unplugged_all_the_same(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    container = deferred_container(mac)
    container.set_address(mac, "192.0.2.2/24")
    attach_backend(container.dom, mac, bridge.backend(blue.name))
    container.run("ip link set eth0 address 52:54:00:99:99:99")
    assert container.ping("192.0.2.1", count=3)
    set_link(container.dom, mac, False)
    container.wait_carrier("eth0", up=False)
    set_link(container.dom, mac, True)
    assert detach_backend(container.dom, mac).connection is Connection.DEFERRED
    container.wait_carrier("eth0", up=False)


def test_a_bridge_keeps_its_mtu(
    libvirt_daemon: PrivateDaemon,
    deferred_container: NewContainer,
    libvirt_bridge: BridgeFactory,
    lower: str,
    new_mac: NewMac,
) -> None:
    mac, wide = new_mac(), libvirt_bridge()
    container = deferred_container(mac)
    for end in (lower, f"{lower}1"):
        run("ip", "link", "set", end, "mtu", "4000")
    run("ip", "link", "set", lower, "master", wide.name)
    assert mtu(wide.name) == 4000
    attach_backend(container.dom, mac, bridge.backend(wide.name))
    assert mtu(wide.name) == 4000
    # libvirt puts it into the parking place, and the hook back.
    libvirt_daemon.restart()
    container.dom = libvirt_daemon.connect_containers().lookupByName(container.name)
    assert (master(target(container.dom, mac)), mtu(wide.name)) == (wide.name, 4000)


def test_a_bridge_keeps_its_address(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, lower: str, new_mac: NewMac
) -> None:
    """A bridge takes the lowest of its ports', and who is plugged in is not to change whom others talk to."""
    mac, blue = new_mac(), libvirt_bridge()
    container = deferred_container(mac)
    run("ip", "link", "set", lower, "address", "fc:00:00:00:00:01", "master", blue.name)
    assert address(blue.name) == "fc:00:00:00:00:01"
    attach_backend(container.dom, mac, bridge.backend(blue.name))
    assert address(blue.name) == "fc:00:00:00:00:01"


BACKENDS = {
    "bridge": lambda blue, lower: bridge.backend(blue),
    "direct": lambda blue, lower: direct.backend(lower),
    "netdev": lambda blue, lower: netdev.backend(lower),
}


@pytest.mark.parametrize("children", ["", "<mtu size='4000'/>"])
@pytest.mark.parametrize("kind", BACKENDS)
def test_frames_pass_that_are_as_large_as_the_other_side_takes(
    libvirt_daemon: PrivateDaemon,
    libvirt_container: GuestFactory,
    libvirt_bridge: BridgeFactory,
    lower: str,
    new_mac: NewMac,
    kind: str,
    children: str,
) -> None:
    """libvirt gives a container's NIC no MTU; the container does so by itself."""
    mac, narrow, wide = new_mac(), libvirt_bridge(), libvirt_bridge()
    container = libvirt_container(nic(mac, children=children), define=define)
    container.run("ip link set eth0 mtu 4000")
    for end in (lower, f"{lower}1"):
        run("ip", "link", "set", end, "mtu", "4000")
    if kind == "bridge":
        run("ip", "link", "set", lower, "master", wide.name)
    network = network_of(container.dom)
    with closing(Wire("eth0", network)) as inside, closing(Wire(f"{lower}1")) as far:
        os.close(network)

        def passes() -> bool:
            content = inside.send(size=3900), far.send(size=3900)
            found = far.arrived(content[0], timeout=5), inside.arrived(content[1], timeout=5)
            return None not in found

        attach_backend(container.dom, mac, BACKENDS[kind](wide.name, lower))
        container.wait_carrier(mac, up=True)
        assert passes()
        # Out of the parking place, to where libvirtd puts it back.
        attach_backend(container.dom, mac, bridge.backend(narrow.name))
        attach_backend(container.dom, mac, BACKENDS[kind](wide.name, lower))
        assert passes()
        libvirt_daemon.restart()
        container.dom = libvirt_daemon.connect_containers().lookupByName(container.name)
        assert passes()


@pytest.mark.parametrize("present", [None, *BACKENDS])
@pytest.mark.parametrize("wanted", [None, *BACKENDS])
def test_a_failure_at_any_step_is_undone(
    deferred_container: NewContainer,
    libvirt_bridge: BridgeFactory,
    lower: str,
    new_mac: NewMac,
    present: str | None,
    wanted: str | None,
) -> None:
    """The steps before it are done for real; that this one fails cannot be had for real."""
    mac = new_mac()
    before, after = (libvirt_bridge().name for _ in range(2))
    container = deferred_container(mac)
    for backend in (bridge.backend(after), bridge.backend(before)):
        # A bridge that had a port once has another state than one that had none.
        attach_backend(container.dom, mac, backend)
    detach_backend(container.dom, mac)
    if present is not None:
        attach_backend(container.dom, mac, BACKENDS[present](before, lower))
    if present == wanted is None:
        return
    plan = (
        plan_detach(container.dom, mac)
        if wanted is None
        else plan_attach(container.dom, mac, BACKENDS[wanted](after, lower))
    )
    container.wait_carrier(mac, up=present is not None)
    state = everything(container.dom)
    for number, step in enumerate(plan.steps):
        failing = _Failing(step)
        steps = (*plan.steps[:number], failing, *plan.steps[number + 1 :])
        domain = Domain(container.dom)
        with pytest.raises(OperationError, match="the disk is full"):
            carry_out(type(plan)(plan.summary, plan.key, plan.scope, steps), domain)  # type: ignore[arg-type]
        domain.close()
        container.wait_carrier(mac, up=present is not None)
        assert _steady(everything(container.dom)) == _steady(state), plan
        if failing.tried and step is plan.steps[-1]:
            break


def _steady(state: list[str]) -> list[str]:
    # What is made anew in an undo has another index, and another place in the order of devices.
    return sorted(line for line in state if "ifindex" not in line and ".link_index" not in line)


class _Failing:
    """A step that fails, in the place of one that would not."""

    def __init__(self, step: Step) -> None:
        self.summary = step.summary
        self.tried = False

    def describe(self) -> str:
        return self.summary

    def apply(self, _host: object) -> None:
        self.tried = True
        raise OperationError("the disk is full")

    def undo(self, _host: object) -> None:
        pass


@pytest.mark.parametrize("first", ["direct", "netdev", "cable", "none"])
def test_a_device_that_is_a_nics_is_refused(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, lower: str, new_mac: NewMac, first: str
) -> None:
    """Frames that come in are one NIC's: the other one would get none, or would take them away."""
    mac, far, other = new_mac(), new_mac(), new_mac()
    one, two = deferred_container(mac, far), deferred_container(other)
    device, cabled = target(one.dom, mac), target(one.dom, far)
    # Out of the parking place, it is no port of a bridge, which would be refused for that.
    attach_backend(one.dom, mac, bridge.backend(libvirt_bridge().name))
    detach_backend(one.dom, mac)
    plugged = {
        "direct": direct.backend(lower),
        "netdev": netdev.backend(lower),
        "cable": cable.backend(one.name, far),
    }
    joined, wire, helper = "is joined to {}, ".format, netdev.backend(lower), netdev.backend(f"{device}.np0")
    refused = {
        "direct": ((two, wire, joined(device)), (two, helper, joined(device)), (one, helper, joined(device))),
        "netdev": ((two, wire, joined(device)), (two, direct.backend(lower), joined(device))),
        "cable": ((two, netdev.backend(device), joined(cabled)),),
        "none": (
            (one, netdev.backend(device), "is the NIC's own"),
            (two, netdev.backend(cabled), "it is the device of another NIC: use a cable to that"),
            (two, direct.backend(cabled), "it is the device of another NIC: use a cable to that"),
            (one, netdev.backend("lo"), "'lo' passes no Ethernet frames"),
        ),
    }
    if first in plugged:
        attach_backend(one.dom, mac, plugged[first])
    for container, backend, why in refused[first]:
        before = everything(container.dom)
        with pytest.raises(NicplugError, match=why):
            attach_backend(container.dom, mac if container is one else other, backend)
        assert everything(container.dom) == before
    # The NIC itself goes from the one to the other.
    for backend in (direct.backend(lower), netdev.backend(lower), direct.backend(lower)):
        assert attach_backend(one.dom, mac, backend).carrier


def test_a_nic_whose_device_another_one_is_plugged_into_waits_for_it(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, lower: str, new_mac: NewMac
) -> None:
    mac, other, blue = new_mac(), new_mac(), libvirt_bridge()
    container = deferred_container(mac, other)
    # Out of the parking place, its device can be had.
    device = attach_backend(container.dom, mac, bridge.backend(blue.name)).target
    detach_backend(container.dom, mac)
    taker = attach_backend(container.dom, other, netdev.backend(device)).target
    for backend in (bridge.backend(blue.name), direct.backend(lower)):
        before = everything(container.dom)
        with pytest.raises(NicplugError, match=f"device '{device}' is joined to {taker}, the device of ano"):
            attach_backend(container.dom, mac, backend)
        assert everything(container.dom) == before
    detach_backend(container.dom, other)
    assert attach_backend(container.dom, mac, bridge.backend(blue.name)).carrier


def test_what_is_in_the_way_of_a_macvlan_is_said(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, lower: str, new_mac: NewMac
) -> None:
    """The kernel says that an argument is invalid, or that it is busy."""
    mac, other, blue = new_mac(), new_mac(), libvirt_bridge()
    container = deferred_container(mac, other)
    attach_backend(container.dom, mac, direct.backend(lower))
    with pytest.raises(NicplugError, match=f"in mode passthrough {lower} is one NIC's alone"):
        attach_backend(container.dom, other, direct.backend(lower, "passthrough"))
    run("ip", "link", "set", f"{lower}1", "master", blue.name)
    with pytest.raises(NicplugError, match=f"{lower}1 is a port of {blue}: plug the NIC into {blue}"):
        attach_backend(container.dom, other, direct.backend(f"{lower}1"))


@pytest.mark.parametrize("plugged", ["direct", "netdev"])
def test_a_redirect_that_somebody_has_ended_is_seen(
    deferred_container: NewContainer, lower: str, new_mac: NewMac, plugged: str
) -> None:
    mac = new_mac()
    run("ip", "address", "add", "198.51.100.1/24", "dev", f"{lower}1")
    container = deferred_container(mac)
    container.set_address(mac, "198.51.100.2/24")
    backend = BACKENDS[plugged]("", lower)
    device = attach_backend(container.dom, mac, backend).target
    if plugged == "netdev":
        # There and back, it has the same index, and lost what was to become of its frames.
        away = new_network()
        run("ip", "link", "set", lower, "netns", f"/proc/{os.getpid()}/fd/{away}")
        run_in_network(away, ["ip", "link", "set", lower, "netns", str(os.getpid())])
        os.close(away)
    else:
        run("tc", "qdisc", "delete", "dev", device, "clsact")
    with pytest.warns(UserWarning, match="sees a carrier on .*, and nothing is plugged in"):
        (status,) = interfaces(container.dom)
    assert status.connection is Connection.DEFERRED
    assert set_link(container.dom, mac, False).carrier is False
    container.wait_carrier(mac, up=False)
    assert set_link(container.dom, mac, True).carrier is False
    assert attach_backend(container.dom, mac, backend).changed
    assert container.ping("198.51.100.1", count=5)
    detach_backend(container.dom, mac)
    assert "clsact" not in run("tc", "qdisc")
    assert not {f"{device}.np0", f"{device}.np1"} & set(devices())


def test_a_container_that_ends_leaves_nothing(
    deferred_container: NewContainer, lower: str, new_mac: NewMac
) -> None:
    mac, second = new_mac(), new_mac()
    before = set(devices())
    container = deferred_container(mac, second)
    attach_backend(container.dom, mac, direct.backend(lower))
    attach_backend(container.dom, second, netdev.backend(f"{lower}1"))
    container.dom.destroy()
    wait_until(lambda: not set(devices()) - before - {"nicplug-parknet"})
    wait_until(lambda: "clsact" not in run("tc", "qdisc"))
    wait_until(lambda: "PROMISC" not in run("ip", "link", "show", f"{lower}1"))


def test_other_hosts_are_refused_before_anything_is_touched(
    libvirt_daemon: PrivateDaemon,
    deferred_container: NewContainer,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    """The client is in another network namespace than libvirtd: the container's device is not there."""
    mac, blue = new_mac(), libvirt_bridge()
    container = deferred_container(mac)
    before = everything(container.dom)
    client = (
        "import libvirt, nicplug_xml\n"
        f"dom = libvirt.open({libvirt_daemon.container_uri!r}).lookupByName({container.name!r})\n"
        "print(nicplug_xml.interfaces(dom)[0].connection.value)\n"
        "try:\n"
        f"    nicplug_xml.attach_backend(dom, {mac!r}, nicplug_xml.Backend('bridge',"
        f" (\"<source bridge='{blue}'/>\",)))\n"
        "except nicplug_xml.UnsupportedError as error:\n"
        "    print(error)\n"
    )
    away = new_network()
    # /sys shows the network namespace that it was mounted in.
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys; exec "$@"', "sh"]
    said = run_in_network(away, [*mounted, sys.executable, "-c", client])
    assert said.startswith("deferred\n")
    assert "is no device of this host" in said
    assert everything(container.dom) == before


def test_planes_are_for_their_own_hypervisor(
    libvirt_containers: libvirt.virConnect, new_mac: NewMac, tmp_path: Path
) -> None:
    from nicplug_xml.testing.container import container_xml

    for plane in ("tap", "hub"):
        with pytest.raises(UnsupportedError, match=f"plane '{plane}' is for guests of QEMU's"):
            define(libvirt_containers, container_xml("x", nic(new_mac()), workdir=tmp_path), plane=plane)
    assert libvirt_containers.listAllDomains() == []


def test_the_other_end_of_a_pair(lower: str) -> None:
    link = json.loads(run("ip", "-json", "link", "show", f"{lower}1"))[0]
    assert peer.address(lower) == link["address"]
    assert peer.address("lo") == ""
    assert peer.address("np-none") == ""


def test_networks_keep_their_isolation_over_a_restart(
    libvirt_daemon: PrivateDaemon,
    libvirt_containers: libvirt.virConnect,
    deferred_container: NewContainer,
    new_mac: NewMac,
) -> None:
    mac = new_mac()
    libvirt_containers.networkCreateXML(
        "<network><name>npiso</name><bridge name='npisolated' stp='off' delay='0'/>"
        "<port isolated='yes'/></network>"
    )
    try:
        container = deferred_container(mac)
        status = attach_backend(container.dom, mac, network.backend("npiso"))
        assert (master(status.target), is_isolated(status.target)) == ("npisolated", True)
        set_link(container.dom, mac, up=False)
        libvirt_daemon.restart()
        container.dom = libvirt_daemon.connect_containers().lookupByName(container.name)
        assert (master(status.target), is_isolated(status.target)) == ("npisolated", True)
        (after,) = interfaces(container.dom)
        assert (after.connection, after.link, after.carrier) == (Connection.ATTACHED, "down", False)
        assert isinstance(after.backend, Backend)
    finally:
        libvirt_daemon.connect().networkLookupByName("npiso").destroy()


def test_what_others_did_is_shown(
    deferred_container: NewContainer, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge(), libvirt_bridge("192.0.2.1/24")
    container = deferred_container(mac)
    status = attach_backend(container.dom, mac, bridge.backend(blue.name))
    run("ip", "link", "set", status.target, "master", green.name)
    (status,) = interfaces(container.dom)
    assert status.backend == bridge.backend(green.name)
    assert f"<source bridge='{green}'/>" in xml_desc(container.dom).replace('"', "'")
    assert attach_backend(container.dom, mac, bridge.backend(blue.name)).changed
    assert master(status.target) == blue.name
    run("ip", "link", "set", status.target, "master", green.name)
    detached = detach_backend(container.dom, mac)
    assert detached.backend is not None
    assert detached.backend.source == {"bridge": green.name}
    assert master(status.target) is None


def test_a_device_that_has_its_name_from_another_one_is_another_one(
    deferred_container: NewContainer, lower: str, new_mac: NewMac
) -> None:
    """As when two devices change names: the NIC stays with its own, and can be plugged into the other."""
    mac, moved = new_mac(), "npvethold"
    run("ip", "address", "add", "198.51.100.1/24", "dev", f"{lower}1")
    container = deferred_container(mac)
    container.set_address(mac, "198.51.100.2/24")
    attach_backend(container.dom, mac, netdev.backend(lower))
    run("ip", "link", "set", lower, "name", moved)
    run("ip", "link", "add", lower, "type", "veth", "peer", "name", "npvethnew1")
    try:
        (status,) = interfaces(container.dom)
        assert (status.connection, status.backend) == (Connection.ATTACHED, netdev.backend(moved))
        assert f"<source dev='{moved}'/>" in xml_desc(container.dom).replace('"', "'")
        assert container.ping("198.51.100.1", count=5)
        assert not attach_backend(container.dom, mac).changed
        assert attach_backend(container.dom, mac, netdev.backend(lower)).changed
        filters = [run("tc", "filter", "show", "dev", name, "ingress") for name in (moved, lower)]
        assert ["mirred" in shown for shown in filters] == [False, True]
        assert "PROMISC" not in run("ip", "link", "show", moved)
        attach_backend(container.dom, mac, netdev.backend(moved))
        assert container.ping("198.51.100.1", count=5)
        detach_backend(container.dom, mac)
        assert "clsact" not in run("tc", "qdisc")
    finally:
        run("ip", "link", "delete", lower)
        run("ip", "link", "set", moved, "name", lower)


@pytest.mark.parametrize("plugged", ["direct", "netdev"])
def test_redirects_outlive_a_restart_of_libvirtd(
    libvirt_daemon: PrivateDaemon, deferred_container: NewContainer, lower: str, new_mac: NewMac, plugged: str
) -> None:
    mac = new_mac()
    run("ip", "address", "add", "198.51.100.1/24", "dev", f"{lower}1")
    container = deferred_container(mac)
    container.set_address(mac, "198.51.100.2/24")
    attach_backend(container.dom, mac, BACKENDS[plugged]("", lower))
    libvirt_daemon.restart()
    container.dom = libvirt_daemon.connect_containers().lookupByName(container.name)
    (status,) = interfaces(container.dom)
    assert (status.connection, status.carrier) == (Connection.ATTACHED, True)
    assert container.ping("198.51.100.1", count=5)
    assert master(status.target) in (None, "nicplug-parknet")
