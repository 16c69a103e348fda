"""Plane tap: what the kernel joins, any backend to any other, cables; and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from nicplug_xml import (
    Connection,
    NicplugError,
    NotFoundError,
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
    xml_desc,
)
from nicplug_xml.backends import bridge, cable, direct, netdev, network, ovs
from nicplug_xml.frozen import replace
from nicplug_xml.host import janitor, sysfs
from nicplug_xml.host.domain import Domain
from nicplug_xml.host.kernel import Kernel, joint_of
from nicplug_xml.host.locking import locked
from nicplug_xml.host.rtnetlink import Rtnetlink
from nicplug_xml.host.tap import open_macvtap, open_tap
from nicplug_xml.joints import Joint
from nicplug_xml.model import Backend
from nicplug_xml.operations import carry_out_plan
from nicplug_xml.steps import Check, Record, Release
from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.guest import boot_guest, remove_domain
from tests.live.conftest import (
    PARKING,
    at_once,
    devices,
    everything,
    few_descriptors,
    identity,
    interface_xml,
    is_isolated,
    many_descriptors,
    master,
    mtu,
    run,
    target,
    veth,
    wait_gone,
    wait_until,
)
from tests.live.frames import Wire
from tests.live.test_hub import walk

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.plan import Plan
    from nicplug_xml.steps import Step
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, OvsBridgeFactory

NewMac = Callable[[], str]
NewGuest = Callable[..., "Guest"]
daemon_only = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)

MODES = ("bridge", "private", "vepa", "passthrough")

#: Our metadata, which a domain has had in it once.
OURS = re.compile(r"<interfaces .*?</interfaces>|<nicplug:.*?</nicplug:interfaces>", re.DOTALL)


class Place(NamedTuple):
    """A backend, and an address that answers there and nowhere else."""

    backend: Backend
    probe: str
    joined: bool = True


@pytest.fixture
def places(
    libvirt_connection: libvirt.virConnect,
    libvirt_bridge: BridgeFactory,
    libvirt_ovs_bridge: OvsBridgeFactory,
    deferred_guest: NewGuest,
    new_mac: NewMac,
) -> Iterator[list[Place]]:
    """Everything that a NIC can be plugged into here; the guest has the last number 2 in each network."""
    blue, green = libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    # A bridge takes the lowest address of its ports, unless it was given one: the guest knows who it was.
    for number, bridged in enumerate((blue, green), 1):
        run("ip", "link", "set", bridged.name, "address", f"52:54:00:00:00:b{number}")
    switch, far = libvirt_ovs_bridge(), new_mac()
    switch.peer("203.0.113.1/24")
    other = deferred_guest(far)
    other.set_address(far, "198.18.0.1/24")
    with ExitStack() as stack:
        lower = stack.enter_context(veth("nplow", green.name))
        wire = stack.enter_context(veth("npwire", green.name))
        found = [
            Place(bridge.backend(blue.name), "192.0.2.1", joined=False),
            *(Place(direct.backend(lower, mode), "198.51.100.1") for mode in MODES),
            Place(netdev.backend(wire), "198.51.100.1"),
            Place(ovs.backend(switch.name), "203.0.113.1"),
            Place(cable.backend(other.name, far), "198.18.0.1"),
        ]
        if "embed" not in libvirt_connection.getURI():
            lab = libvirt_connection.networkCreateXML(
                "<network><name>taplab</name><bridge name='nptaplab' stp='off' delay='0'/>"
                "<ip address='198.18.1.1' netmask='255.255.255.0'/></network>"
            )
            stack.callback(lab.destroy)
            found.append(Place(network.backend("taplab"), "198.18.1.1", joined=False))
        yield found


def test_every_backend_to_every_other(deferred_guest: NewGuest, places: list[Place], new_mac: NewMac) -> None:
    mac = new_mac()
    guest = deferred_guest(mac)
    for address in dict.fromkeys(place.probe.rpartition(".")[0] for place in places):
        guest.set_address(mac, f"{address}.2/24")
    before, nic = everything(guest.dom), identity(guest, mac)
    way = walk(len(places))
    assert len(set(pairwise(way))) == len(places) * (len(places) - 1)
    for number in way:
        place = places[number]
        status = attach_backend(guest.dom, mac, place.backend)
        assert (status.connection, status.carrier) == (Connection.ATTACHED, True), place
        # The first one may be lost to an address that a place before this one had no answer for.
        assert any(guest.ping(place.probe) for _ in range(4)), place
        (seen,) = interfaces(guest.dom)
        assert seen.connection is Connection.ATTACHED
        assert seen.backend is not None
        assert place.backend.is_within(seen.backend)
        # Where libvirt can say where the tap is, it does; else the tap is in the parking place, and isolated.
        tap = target(guest.dom, mac)
        assert (master(tap) in PARKING) == place.joined
        assert not place.joined or is_isolated(tap)
    detach_backend(guest.dom, mac)
    guest.wait_carrier(mac, up=False)
    assert identity(guest, mac) == nic
    assert without(OURS, everything(guest.dom)) == without(OURS, before)


def without(pattern: re.Pattern[str], facts: list[str]) -> str:
    """Return what is known of a domain and its host, but for what matches."""
    return pattern.sub("", "\n".join(facts))


@pytest.fixture
def lower(libvirt_bridge: BridgeFactory) -> Iterator[str]:
    """A device of the host that leads to 198.51.100.1."""
    green = libvirt_bridge("198.51.100.1/24")
    with veth("nplow", green.name) as device:
        yield device


@pytest.fixture
def other(libvirt_bridge: BridgeFactory) -> Iterator[str]:
    """Another device of the host."""
    with veth("npother", libvirt_bridge().name) as device:
        yield device


@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_the_guest_reaches_the_hosts_stack(
    deferred_guest: NewGuest, lower: str, new_mac: NewMac, mode: str
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac)
    guest.set_address(mac, "198.51.100.2/24")
    attach_backend(guest.dom, mac, direct.backend(lower, mode))
    assert guest.ping("198.51.100.1", count=2)
    helper = f"{target(guest.dom, mac)}.np0"
    assert helper in devices()
    # The host answers for this address, but only where it gets to hear the question on this device.
    run("ip", "address", "add", "198.51.100.77/24", "dev", helper)
    run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
    try:
        assert not guest.ping("198.51.100.77", count=3, timeout=1)
        assert "198.51.100.2 " not in run("ip", "neighbour", "show", "dev", helper)
    finally:
        run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0")
        run("ip", "address", "delete", "198.51.100.77/24", "dev", helper)
    assert "inet6" not in run("ip", "address", "show", "dev", helper)


@pytest.mark.parametrize("mode", [*MODES[:3], "passthru"])
def test_a_macvlan_passes_every_group_and_leaves_no_trace(lower: str, other: str, mode: str) -> None:
    """IPv6 asks for its neighbours in groups that only the guest knows of."""
    joint, mac = Joint("macvlan", f"{other}.np0", lower, mode), "52:54:00:11:22:77"
    before = without(re.compile(r"state \w+ "), run("ip", "-details", "link", "show", lower).splitlines())
    with closing(Wire(f"{lower}p")) as far, closing(Wire(f"{other}p")) as inside, closing(Kernel()) as kernel:
        kernel.add_macvlan(joint.device, lower, mode, mac, 0)
        kernel.join(other, joint)
        assert (sysfs.address(joint.device), sysfs.address(lower) == mac) == (mac, mode == "passthru")
        for to in ("01005e0000fb", "3333ff000077", "0180c200000e", mac.replace(":", "")):
            assert inside.arrived(far.send(to=to), timeout=5) is not None, to
        kernel.part(other, joint)
        kernel.release(joint)
    after = without(re.compile(r"state \w+ "), run("ip", "-details", "link", "show", lower).splitlines())
    assert after == before


@pytest.mark.parametrize("mode", ["bridge", "passthru"])
def test_a_device_that_is_down_is_put_up_below_a_macvlan(lower: str, other: str, mode: str) -> None:
    """As libvirt does below a macvtap of its own; else nothing would pass, and nobody be told."""
    joint = Joint("macvlan", f"{other}.np0", lower, mode)
    run("ip", "link", "set", lower, "down")
    with closing(Wire(f"{lower}p")) as far, closing(Wire(f"{other}p")) as inside, closing(Kernel()) as kernel:
        kernel.add_macvlan(joint.device, lower, mode, "52:54:00:11:22:77", 0)
        kernel.join(other, joint)
        wait_until(lambda: "state UP" in run("ip", "link", "show", far.device), timeout=5)
        assert inside.arrived(far.send(), timeout=5) is not None
        assert far.arrived(inside.send(), timeout=5) is not None
        kernel.part(other, joint)
        kernel.release(joint)


def test_a_device_that_keeps_its_address_takes_a_macvlan_all_the_same(libvirt_isolated: None) -> None:
    run("ip", "link", "add", "npkeeps", "type", "ifb")
    try:
        with closing(Kernel()) as kernel:
            kernel.add_macvlan("npkeeps.np0", "npkeeps", "passthru", "52:54:00:11:22:77", 0)
            assert "npkeeps.np0" in devices()
    finally:
        run("ip", "link", "delete", "npkeeps")


def test_a_move_between_two_macvlans_on_one_device_comes_back(
    deferred_guest: NewGuest, lower: str, new_mac: NewMac, monkeypatch: pytest.MonkeyPatch
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac)
    guest.set_address(mac, "198.51.100.2/24")
    attach_backend(guest.dom, mac, direct.backend(lower))
    assert guest.ping("198.51.100.1", count=2)
    before = everything(guest.dom)

    def fails(*_: object) -> None:
        raise NicplugError("no such luck")

    # Nothing that can be asked for makes the last step fail.
    with monkeypatch.context() as patched:
        patched.setattr(Domain, "check", fails)
        with pytest.raises(NicplugError, match="no such luck; the NIC is attached to direct nplow"):
            attach_backend(guest.dom, mac, direct.backend(lower, "private"))
    index = re.compile(r"\.np0(:| \.ifindex=)\d+")
    assert without(index, everything(guest.dom)) == without(index, before)
    assert guest.ping("198.51.100.1", count=2)


def test_refusals_change_nothing(
    deferred_guest: NewGuest, lower: str, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, far, busy = new_mac(), new_mac(), new_mac()
    guest = deferred_guest(mac, far)
    other = deferred_guest(busy, timeout=None)
    blue = libvirt_bridge()
    attach_backend(other.dom, busy, bridge.backend(blue.name))
    wire = netdev.backend(lower)
    cases = {
        "there is no device 'nope'": netdev.backend("nope"),
        "no device 'nope2'": direct.backend("nope2"),
        "there is no domain 'nope3'": cable.backend("nope3", mac),
        f"device '{lower}p' is a port of ": netdev.backend(f"{lower}p"),
        f"device '{target(other.dom, busy)}' is a port of {blue}": netdev.backend(target(other.dom, busy)),
        "has no interface '52:54:00:99:99:99'; it has": cable.backend(other.name, "52:54:00:99:99:99"),
        "is both ends of that cable": cable.backend(guest.name, mac),
        f"is plugged into bridge {blue}; unplug it first": cable.backend(other.name, busy),
        "cannot carry out <filterref>": Backend(
            "netdev", (f"<source dev='{lower}'/>", "<filterref filter='f'/>")
        ),
    }
    for state in ("deferred", "attached"):
        if state == "attached":
            attach_backend(guest.dom, mac, wire)
        before = everything(guest.dom)
        for why, backend in cases.items():
            with pytest.raises(NicplugError, match=re.escape(why)):
                attach_backend(guest.dom, mac, backend)
            assert everything(guest.dom) == before


def test_a_device_of_the_host_is_one_nics(
    deferred_guest: NewGuest, lower: str, other: str, new_mac: NewMac
) -> None:
    mac, second = new_mac(), new_mac()
    guest = deferred_guest(mac, second, timeout=None)
    unplugged = everything(guest.dom)
    attach_backend(guest.dom, mac, netdev.backend(lower))
    attach_backend(guest.dom, mac, netdev.backend(lower), link="down")
    for backend in (None, netdev.backend(other)):
        if backend is not None:
            attach_backend(guest.dom, second, backend)
        before = everything(guest.dom)
        why = f"device '{lower}' is joined to {target(guest.dom, mac)}, the device of another NIC"
        with pytest.raises(NicplugError, match=why):
            attach_backend(guest.dom, second, netdev.backend(lower))
        assert everything(guest.dom) == before
    detach_backend(guest.dom, second)
    assert "PROMISC" in run("ip", "link", "show", lower)
    set_link(guest.dom, mac, True)
    detach_backend(guest.dom, mac)
    assert without(OURS, everything(guest.dom)) == without(OURS, unplugged)
    attach_backend(guest.dom, second, netdev.backend(lower))
    assert "PROMISC" in run("ip", "link", "show", lower)


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "of libvirt's"])
def test_a_device_below_a_macvtap_is_refused(lower: str, other: str, mode: str) -> None:
    """The macvtap would get none of the frames, and whoever is behind it would not be told."""
    with closing(Kernel()) as kernel:
        if mode in MODES:
            (descriptor,) = open_macvtap(lower, mode, "52:54:00:11:22:77")
            why = "passes all groups, as for a macvtap of plane hub or swap, which would get none"
        else:
            run("ip", "link", "add", "link", lower, "name", "npmacvtap", "type", "macvtap")
            why = "device 'nplow' is below npmacvtap, which would get none of its frames"
        before = run("ip", "link"), run("tc", "qdisc")
        with pytest.raises(NicplugError, match=why):
            kernel.join(other, Joint("device", lower))
        assert (run("ip", "link"), run("tc", "qdisc")) == before
        if mode in MODES:
            os.close(descriptor)
        else:
            run("ip", "link", "delete", "npmacvtap")
        # Who looks on is in nobody's way, nor who was told to pass all groups.
        run("ip", "link", "set", lower, "allmulticast", "on")
        with closing(Wire(lower)) as looking:
            looking.be_promiscuous()
            wait_until(lambda: is_joined(kernel, other, lower), timeout=5)
            kernel.part(other, Joint("device", lower))


def is_joined(kernel: Kernel, device: str, other: str) -> bool:
    """Join a device to another one, which may be below a macvtap for a moment yet; tell whether it was."""
    with suppress(UnsupportedError):
        kernel.join(device, Joint("device", other))
        return True
    return False


def test_a_joined_nic_that_virsh_moves_to_a_bridge_is_parted_by_attaching_it(
    deferred_guest: NewGuest, lower: str, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, direct.backend(lower))
    moved = re.sub(r"type='\w+'", "type='bridge'", interface_xml(guest.dom), count=1)
    moved = re.sub(r"<source [^>]*/>", f"<source bridge='{blue}'/>", moved)
    guest.dom.updateDeviceFlags(re.sub(r"<port [^>]*/>", "", moved), 1)
    with pytest.warns(UserWarning, match=r"not by nicplug, and its frames still go to vnet\d+\.np0"):
        (nic,) = interfaces(guest.dom)
    assert nic.backend is not None
    assert bridge.backend(blue.name).is_within(nic.backend)
    assert not guest.ping("192.0.2.1", timeout=1)
    assert attach_backend(guest.dom, mac, bridge.backend(blue.name)).changed
    assert guest.ping("192.0.2.1", count=3)
    assert "mirred" not in run("tc", "filter", "show", "dev", nic.target, "ingress")
    assert f"{nic.target}.np0" not in devices()


def test_of_two_nics_at_once_one_gets_the_device(
    deferred_guest: NewGuest, lower: str, new_mac: NewMac
) -> None:
    macs = new_mac(), new_mac()
    guest = deferred_guest(*macs, timeout=None)
    taps = {mac: target(guest.dom, mac) for mac in macs}

    def attach(mac: str) -> str:
        try:
            attach_backend(guest.dom, mac, netdev.backend(lower))
        except NicplugError as error:
            return str(error)
        return ""

    for _ in range(10):
        before = everything(guest.dom)
        said = dict(zip(macs, at_once(attach, macs), strict=True))
        (winner,) = (mac for mac, error in said.items() if not error)
        (loser,) = (mac for mac, error in said.items() if error)
        assert f"device '{lower}' is joined to {taps[winner]}, the device of another NIC" in said[loser]
        assert f"device {taps[winner]}" in run("tc", "filter", "show", "dev", lower, "ingress")
        assert [nic.connection for nic in interfaces(guest.dom) if nic.mac == loser] == [Connection.DEFERRED]
        detach_backend(guest.dom, winner)
        assert without(OURS, everything(guest.dom)) == without(OURS, before)


def test_a_device_that_passes_no_ethernet_frames_is_refused(libvirt_isolated: None) -> None:
    """The kernel would redirect: of what comes in, the guest would get what is behind the header alone."""
    run("ip", "tuntap", "add", "dev", "nptun", "mode", "tun")
    try:
        with closing(Kernel()) as kernel:
            for device in ("nptun", "lo"):
                with pytest.raises(NicplugError, match=f"device '{device}' passes no Ethernet frames"):
                    kernel.require_device(device, 0)
                with pytest.raises(NicplugError, match=f"device '{device}' passes no Ethernet frames"):
                    kernel.add_macvlan("npmac.np0", device, "bridge", "52:54:00:11:22:77", 0)
    finally:
        run("ip", "link", "delete", "nptun")


def test_another_name_of_a_device_is_refused(libvirt_bridge: BridgeFactory) -> None:
    """The kernel would take it, and whoever looks afterwards would find nothing by it."""
    blue = libvirt_bridge()
    with veth("nplow", blue.name), closing(Kernel()) as kernel:
        tries: dict[str, Callable[[str], object]] = {
            blue.name: lambda name: open_tap(name, "52:54:00:00:00:01", isolated=False),
            "nplow": lambda name: open_macvtap(name, "bridge", "52:54:00:00:00:01"),
            "nplowp": lambda name: kernel.require_device(name, 0),
        }
        for name, attempt in tries.items():
            run("ip", "link", "property", "add", "dev", name, "altname", f"alt{name}")
            with pytest.raises(NotFoundError, match=rf"'alt{name}' is an alternative name of \w+ '{name}'"):
                attempt(f"alt{name}")


def test_a_tap_has_another_address_than_the_guest(libvirt_bridge: BridgeFactory) -> None:
    """What is for a port's own address, a bridge keeps for its host."""
    blue, mac = libvirt_bridge(), "fe:54:00:00:00:01"
    with veth("npfar", blue.name), closing(Wire("npfar")) as wire:
        (tap,) = open_tap(blue.name, mac, isolated=False)
        with open(tap, "rb", buffering=0) as guest:
            # The header that a tap of ours has, and the first frame of a guest.
            os.write(tap, bytes(10) + bytes.fromhex(("ff" * 6 + mac + "88b5").replace(":", "")) + bytes(46))
            content = wire.send(to=mac.replace(":", ""))
            wait_until(lambda: content in (guest.read(2000) or b""), timeout=5)


@pytest.mark.parametrize("last", ["filter", "qdisc"])
def test_a_device_that_a_nic_leaves_while_another_one_comes_is_that_ones(
    lower: str, other: str, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Who leaves has seen that nobody else is there, and takes away what that one has made by then."""
    leaving, coming, joint = Kernel(), Kernel(), Joint("device", lower)
    run("ip", "link", "add", "npsecond", "type", "veth", "peer", "name", "npsecondp")
    request = {"filter": 45, "qdisc": 37}[last]  # RTM_DELTFILTER, RTM_DELQDISC
    begin, ask = threading.Event(), Rtnetlink._ask

    def come() -> None:
        begin.wait()
        coming.join("npsecond", joint)

    def ask_late(self: Rtnetlink, kind: int, flags: int, body: bytes) -> list[bytes]:
        index = struct.unpack_from("=i", body, 4)[0]
        if self is leaving._session and index == sysfs.index(lower) and kind == request:
            begin.set()
            second.join(timeout=0.3)
        return ask(self, kind, flags, body)

    with closing(leaving), closing(coming):
        try:
            leaving.join(other, joint)
            monkeypatch.setattr(Rtnetlink, "_ask", ask_late)
            second = threading.Thread(target=come)
            second.start()
            leaving.part(other, joint)
            second.join(timeout=10)
            assert "device npsecond" in run("tc", "filter", "show", "dev", lower, "ingress")
            assert "PROMISC" in run("ip", "link", "show", lower)
            monkeypatch.undo()
            coming.part("npsecond", joint)
            assert "PROMISC" not in run("ip", "link", "show", lower)
        finally:
            run("ip", "link", "delete", "npsecond")


def test_of_two_cables_to_one_nic_at_once_one_is_plugged_in(
    deferred_guest: NewGuest, new_mac: NewMac
) -> None:
    ends = {mac: deferred_guest(mac, timeout=None) for mac in (new_mac(), new_mac(), new_mac())}
    taps = {mac: target(guest.dom, mac) for mac, guest in ends.items()}
    *near, far = ends

    def attach(mac: str) -> str:
        try:
            attach_backend(ends[mac].dom, mac, cable.backend(ends[far].name, far))
        except NicplugError as error:
            return str(error)
        return ""

    def leads_to(mac: str) -> list[str]:
        filters = run("tc", "filter", "show", "dev", taps[mac], "ingress")
        return re.findall(r"Redirect to device ([^)]*)", filters)

    for _ in range(10):
        said = dict(zip(near, at_once(attach, near), strict=True))
        (winner,) = (mac for mac, error in said.items() if not error)
        (loser,) = (mac for mac, error in said.items() if error)
        assert f"{taps[far]} of {ends[far].name} is plugged into cable {ends[winner].name}/" in said[loser]
        assert (leads_to(winner), leads_to(far), leads_to(loser)) == ([taps[far]], [taps[winner]], [])
        connections = {mac: interfaces(guest.dom)[0].connection for mac, guest in ends.items()}
        assert connections.pop(loser) is Connection.DEFERRED
        assert set(connections.values()) == {Connection.ATTACHED}
        detach_backend(ends[winner].dom, winner)
        assert not any(map(leads_to, ends))


def test_a_cable_is_plugged_in_from_both_ends_at_once(deferred_guest: NewGuest, new_mac: NewMac) -> None:
    here, there = ends = new_mac(), new_mac()
    guest = deferred_guest(*ends, timeout=None)

    def plug(mac: str) -> bool:
        other = there if mac == here else here
        return attach_backend(guest.dom, mac, cable.backend(guest.name, other)).changed

    def unplug(mac: str) -> bool:
        return detach_backend(guest.dom, mac).changed

    for _ in range(5):
        for change, connection in ((plug, Connection.ATTACHED), (unplug, Connection.DEFERRED)):
            assert sorted(at_once(change, ends)) == [False, True]
            assert [nic.connection for nic in interfaces(guest.dom)] == [connection] * 2


def test_one_nic_that_is_plugged_into_several_at_once_goes_from_one_to_the_other(
    deferred_guest: NewGuest, lower: str, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac, timeout=None)
    tap, parking = target(guest.dom, mac), master(target(guest.dom, mac))
    # A bridge takes the lowest address of its ports, unless it was given one.
    run("ip", "link", "set", blue.name, "address", "52:54:00:00:00:b1")
    # Where the tap is a port, and how many redirects there are, of the tap and of the device.
    seen = {
        bridge.backend(blue.name): (blue.name, 0, 0),
        netdev.backend(lower): (parking, 1, 1),
        direct.backend(lower): (parking, 1, 0),
    }

    def redirects(device: str) -> int:
        return run("tc", "filter", "show", "dev", device, "ingress").count("mirred")

    def plug(backend: Backend) -> bool:
        return attach_backend(guest.dom, mac, backend).changed

    for _ in range(5):
        before = everything(guest.dom)
        assert at_once(plug, seen) == [True] * len(seen)
        (nic,) = interfaces(guest.dom)
        assert (nic.connection, nic.carrier) == (Connection.ATTACHED, True)
        (there,) = (
            place for backend, place in seen.items() if nic.backend and backend.is_within(nic.backend)
        )
        assert (master(tap), redirects(tap), redirects(lower)) == there
        assert detach_backend(guest.dom, mac).changed
        assert without(OURS, everything(guest.dom)) == without(OURS, before)


def test_nics_of_one_guest_are_plugged_at_once(
    deferred_guest: NewGuest, lower: str, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    blue = libvirt_bridge()
    with veth("npwire", blue.name) as wire, veth("npwire2", blue.name) as second:
        devices = netdev.backend(wire), netdev.backend(second)
        backends = *devices, direct.backend(lower), bridge.backend(blue.name)
        wanted = {new_mac(): backend for backend in backends}
        guest = deferred_guest(*wanted, timeout=None)

        def plug(mac: str) -> None:
            attach_backend(guest.dom, mac, wanted[mac])

        def unplug(mac: str) -> None:
            detach_backend(guest.dom, mac)

        for _ in range(5):
            for change, connection in ((plug, Connection.ATTACHED), (unplug, Connection.DEFERRED)):
                at_once(change, wanted)
                for nic in interfaces(guest.dom):
                    assert nic.connection is connection
                    assert nic.backend is not None
                    assert wanted[nic.mac].is_within(nic.backend)


def test_the_link_stays_a_thing_of_its_own(deferred_guest: NewGuest, lower: str, new_mac: NewMac) -> None:
    mac = new_mac()
    guest = deferred_guest(mac, children="<link state='down'/>")
    guest.set_address(mac, "198.51.100.2/24")
    status = attach_backend(guest.dom, mac, direct.backend(lower))
    assert (status.connection, status.link, status.carrier) == (Connection.ATTACHED, "down", False)
    set_link(guest.dom, mac, True)
    guest.wait_carrier(mac, up=True)
    assert guest.ping("198.51.100.1", count=2)
    set_link(guest.dom, mac, False)
    guest.wait_carrier(mac, up=False)
    (seen,) = interfaces(guest.dom)
    assert (seen.connection, seen.link) == (Connection.ATTACHED, "down")
    assert "connection='attached'" in xml_desc(guest.dom)
    assert "<link state='down'/>" in xml_desc(guest.dom).replace('"', "'")


def test_the_link_of_a_nic_whose_device_has_gone(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac)
    with veth("npgone", blue.name):
        attach_backend(guest.dom, mac, netdev.backend("npgone"))
        guest.wait_carrier(mac, up=True)
    with pytest.warns(UserWarning, match="sees a carrier on .*, and nothing is plugged in"):
        interfaces(guest.dom)
    assert set_link(guest.dom, mac, False).carrier is False
    guest.wait_carrier(mac, up=False)
    assert set_link(guest.dom, mac, True).carrier is False


def test_a_guest_that_ends_leaves_nothing(
    deferred_guest: NewGuest, lower: str, other: str, new_mac: NewMac
) -> None:
    mac, second = new_mac(), new_mac()
    before = set(devices())
    guest = deferred_guest(mac, second, timeout=None)
    with_guest = set(devices())
    attach_backend(guest.dom, mac, direct.backend(lower))
    attach_backend(guest.dom, second, netdev.backend(other))
    assert set(devices()) == with_guest | {f"{target(guest.dom, mac)}.np0"}
    assert who_clears_away()
    guest.dom.destroy()
    wait_until(lambda: set(devices()) <= before | PARKING)
    wait_until(lambda: "clsact" not in run("tc", "qdisc"))
    wait_until(lambda: "PROMISC" not in run("ip", "link", "show", other))
    until_nobody_clears_away()


def who_clears_away() -> list[str]:
    """Return who clears away in this network namespace, processes and threads; other workers have theirs."""
    return re.findall("@nicplug-janitor.*", Path("/proc/net/unix").read_text())


def children() -> list[str]:
    """Return what the kernel says of Pythons that this process has started, zombies included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found.append(path.read_text())
    return [told for told in found if re.search(rf"\(python.*\) \w {os.getpid()} ", told)]


def until_nobody_clears_away() -> None:
    """Wait until nobody does, for 5 seconds at most."""
    deadline = time.monotonic() + 5
    while found := who_clears_away():
        assert time.monotonic() < deadline, f"{found} for the aliases in {run('ip', 'link')}"
        time.sleep(0.05)


def test_a_service_with_many_descriptors_is_cleared_away_after(
    deferred_guest: NewGuest, lower: str, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac, timeout=None)
    until_nobody_clears_away()
    with many_descriptors():
        attach_backend(guest.dom, mac, direct.backend(lower))
    device = target(guest.dom, mac)
    guest.dom.destroy()
    until_nobody_clears_away()
    # To start another process, as the next look does, would put an end to zombies.
    wait_until(lambda: not children())
    wait_gone(f"{device}.np0")


@daemon_only
def test_who_has_no_descriptors_left_sees_nothing_wrong(
    deferred_guest: NewGuest, other: str, new_mac: NewMac
) -> None:
    mac = new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    before = attach_backend(dom, mac, netdev.backend(other))
    assert interfaces(dom) == [replace(before, changed=False)]
    found: list[object] = []
    for left in range(5):
        with few_descriptors(left):
            try:
                found += interfaces(dom)
            except OperationError as error:
                found.append(error.what)
    assert set(found) == {replace(before, changed=False), "the kernel cannot be asked: Too many open files"}
    detach_backend(dom, mac)


def test_who_clears_away_may_miss_a_change(libvirt_isolated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[object] = []
    monkeypatch.setattr(janitor, "_clear", lambda _, device, __: cleared.append(device))
    run("ip", "link", "add", "npgone", "up", "type", "bridge")
    index = sysfs.index("npgone")
    with janitor._listen() as kernel:
        # The kernel keeps the first of these, and not the last.
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for number in range(20):
            run("ip", "link", "set", "npgone", "alias", str(Joint("device", f"nplow{number}")))
        run("ip", "link", "delete", "npgone")
        watching = threading.Thread(target=janitor._watch, args=(kernel, {index}, False), daemon=True)
        watching.start()
        watching.join(timeout=10)
        assert not watching.is_alive()
    # Else it has not missed that the device went, and this has tested nothing.
    assert not cleared


def test_a_bridge_that_refuses_a_device_leaves_it_isolated_where_it_was(
    libvirt_bridge: BridgeFactory,
) -> None:
    blue, green = libvirt_bridge(), libvirt_bridge()
    # What is on a bridge can be no port of it.
    run("ip", "link", "add", "npupper", "link", green.name, "type", "macvlan")
    run("ip", "link", "set", "npupper", "master", blue.name)
    run("bridge", "link", "set", "dev", "npupper", "isolated", "on")
    with closing(Kernel()) as kernel, pytest.raises(NicplugError, match="the kernel refuses"):
        kernel.join("npupper", Joint("bridge", green.name))
    assert (master("npupper"), is_isolated("npupper")) == (blue.name, True)


def test_what_was_left_behind_is_taken_over(
    deferred_guest: NewGuest, other: str, new_mac: NewMac, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a guest that ends while nobody is there to clear away; and the device is as it was after all."""
    run("ip", "link", "set", other, "down")
    mac = new_mac()
    guest, successor = deferred_guest(mac, timeout=None), deferred_guest(mac, timeout=None)
    with monkeypatch.context() as patch:
        patch.setattr(janitor, "ensure", lambda _: None)
        attach_backend(guest.dom, mac, netdev.backend(other))
    flags = run("ip", "link", "show", other)
    assert "PROMISC" in flags
    assert ",UP" in flags
    guest.dom.destroy()
    assert "clsact" in run("tc", "qdisc", "show", "dev", other)
    attach_backend(successor.dom, mac, netdev.backend(other))
    detach_backend(successor.dom, mac)
    assert "PROMISC" not in run("ip", "link", "show", other)
    assert "clsact" not in run("tc", "qdisc", "show", "dev", other)


@pytest.mark.parametrize("mode", MODES)
def test_a_macvlan_that_was_left_behind_is_not_in_the_way(
    deferred_guest: NewGuest, lower: str, new_mac: NewMac, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The next one of the same guest has another name, since its tap has, and the same MAC."""
    mac = new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    with monkeypatch.context() as patch:
        patch.setattr(janitor, "ensure", lambda _: None)
        left = f"{attach_backend(dom, mac, direct.backend(lower, mode)).target}.np0"
    dom.destroy()
    dom.create()
    assert left in devices()
    status = attach_backend(dom, mac, direct.backend(lower, mode))
    assert status.carrier
    assert f"{status.target}.np0" in devices()
    assert left not in devices() or left == f"{status.target}.np0"


@pytest.mark.parametrize("calls", range(6))
def test_who_is_killed_while_parting_leaves_word_of_what_there_is(
    lower: str, other: str, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    class KilledError(BaseException):
        pass

    left, ask = calls, Rtnetlink._ask

    def ask_or_die(self: Rtnetlink, kind: int, flags: int, body: bytes) -> list[bytes]:
        nonlocal left
        left -= bool(flags & 0x4)  # of what changes something
        if left < 0:
            raise KilledError
        return ask(self, kind, flags, body)

    run("ip", "link", "set", lower, "down")
    with closing(Kernel()) as kernel:
        kernel.join(other, Joint("device", lower))
        with monkeypatch.context() as patch:
            patch.setattr(Rtnetlink, "_ask", ask_or_die)
            with pytest.raises(KilledError):
                kernel.part(other, Joint("device", lower))
        joint = joint_of(other)
        assert joint is not None
        kernel.part(other, joint)
    assert joint_of(other) is None
    assert "mirred" not in run("tc", "filter", "show", "dev", lower, "ingress")
    assert not {"PROMISC", "UP"} & set(re.findall(r"\w+", run("ip", "link", "show", lower).split(">")[0]))


def begin(dom: libvirt.virDomain, plan: Plan, before: type[Step]) -> None:
    """Carry out a plan until its first step of that kind, as who is killed then: nothing is undone."""
    with closing(Domain(dom)) as domain:
        for step in plan.steps:
            if isinstance(step, before):
                return
            step.apply(domain)
    raise AssertionError(f"there is no {before.__name__} in: {plan}")


@pytest.mark.parametrize("place", ["direct", "netdev", "ovs"])
def test_a_cable_to_a_nic_whose_plugging_in_was_cut_short(
    deferred_guest: NewGuest, lower: str, libvirt_ovs_bridge: OvsBridgeFactory, new_mac: NewMac, place: str
) -> None:
    here, there, switch = new_mac(), new_mac(), libvirt_ovs_bridge()
    dom = deferred_guest(here, there, timeout=None).dom
    places = {
        "direct": direct.backend(lower),
        "netdev": netdev.backend(lower),
        "ovs": ovs.backend(switch.name),
    }
    begin(dom, plan_attach(dom, there, places[place]), Record)
    attach_backend(dom, here, cable.backend(dom.name(), there))
    assert [nic.connection for nic in interfaces(dom)] == [Connection.ATTACHED] * 2
    wait_gone(f"{target(dom, there)}.np0")
    assert "PROMISC" not in run("ip", "link", "show", lower)
    detach_backend(dom, here)


#: What somebody has where redirects stand: filters of the same kind, which the kernel numbers together with
#: ours, of what comes in and of what goes out; and the place for filters alone.
OF_OTHERS = {
    "u32": ("clsact", "ingress"),
    "u32 on egress": ("clsact", "egress"),
    "u32 on old ingress": ("ingress", "ingress"),
    "another chain": ("clsact", "ingress chain 7"),
    "no filter": ("clsact", ""),
    "no filter on old ingress": ("ingress", ""),
}


@pytest.mark.parametrize("present", OF_OTHERS)
@pytest.mark.parametrize("on", ["the NIC's", "the other"])
def test_filters_of_others_stay(lower: str, other: str, present: str, on: str) -> None:
    qdisc, place = OF_OTHERS[present]
    device = other if on == "the NIC's" else lower
    run("tc", "qdisc", "add", "dev", device, qdisc)
    if place:
        match = "protocol all prio 10 u32 match ip dst 203.0.113.9 flowid 1:1"
        run("tc", "filter", "add", "dev", device, *place.split(), *match.split())

    def seen() -> str:
        filters = (run("tc", "filter", "show", "dev", device, way) for way in ("ingress", "egress"))
        return "".join((run("tc", "qdisc"), *filters))

    def leads_to(device: str) -> list[str]:
        return re.findall(r"Redirect to device (\w+)", run("tc", "filter", "show", "dev", device, "ingress"))

    before = seen()
    with closing(Kernel()) as kernel:
        # A second time, the same redirects are set again.
        for _ in range(2):
            kernel.join(other, Joint("device", lower))
            assert (leads_to(other), leads_to(lower)) == ([lower], [other])
            assert all(line in seen().splitlines() for line in before.splitlines())
        kernel.part(other, Joint("device", lower))
    assert seen() == before


def test_a_redirect_that_the_kernel_refuses_leaves_no_place_for_it(lower: str) -> None:
    """Where the other device has just gone, say."""
    before = run("tc", "qdisc")
    with closing(Rtnetlink()) as kernel:
        with pytest.raises(OperationError, match="the kernel refuses"):
            kernel.redirect(sysfs.index(lower), 1 << 20)
        assert run("tc", "qdisc") == before


def test_a_device_whose_filters_are_shared_takes_macvlans_alone(lower: str, other: str) -> None:
    """The kernel has them changed for all devices at once; a redirect would be of all."""
    run("tc", "qdisc", "add", "dev", lower, "ingress_block", "7", "clsact")
    flags = run("ip", "link", "show", lower)
    with closing(Kernel()) as kernel:
        with pytest.raises(NicplugError, match="This filter block is shared"):
            kernel.join(other, Joint("device", lower))
        assert joint_of(other) is None
        assert run("ip", "link", "show", lower) == flags
        kernel.add_macvlan(f"{other}.np0", lower, "bridge", "52:54:00:00:00:77", 0)
        kernel.release(Joint("macvlan", f"{other}.np0", lower, "bridge"))


@daemon_only
def test_a_device_that_somebody_renames_is_known_by_any_name(
    deferred_guest: NewGuest, lower: str, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac)
    guest.set_address(mac, "198.51.100.2/24")
    attach_backend(guest.dom, mac, netdev.backend(lower))
    device = target(guest.dom, mac)
    run("ip", "link", "set", lower, "down")
    run("ip", "link", "set", lower, "name", "npother", "up")
    try:
        assert any(guest.ping("198.51.100.1") for _ in range(4))
        (seen,) = interfaces(guest.dom)
        assert (seen.connection, seen.carrier) == (Connection.ATTACHED, True)
        detach_backend(guest.dom, mac)
        for name in (device, "npother"):
            assert "clsact" not in run("tc", "qdisc", "show", "dev", name)
        assert "PROMISC" not in run("ip", "link", "show", "npother")
    finally:
        run("ip", "link", "set", "npother", "down")
        run("ip", "link", "set", "npother", "name", lower)


@daemon_only
def test_a_nic_whose_device_got_another_alias_is_parted(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, lower: str, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, direct.backend(lower))
    device = target(guest.dom, mac)
    run("ip", "link", "set", device, "alias", "customer 7")
    (seen,) = interfaces(guest.dom)
    assert seen.connection is Connection.ATTACHED
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    assert guest.ping("192.0.2.1", count=3)
    assert "clsact" not in run("tc", "qdisc", "show", "dev", device)
    assert f"{device}.np0" not in devices()
    assert "alias customer 7" in run("ip", "link", "show", device)


def test_a_bridge_keeps_its_mtu(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    """A bridge takes that of its smallest port, and so would all who are on it."""
    mac, wide, usual = new_mac(), libvirt_bridge(), libvirt_bridge()
    guest = deferred_guest(mac, timeout=None)
    with veth("npwide", wide.name):
        for end in ("npwide", "npwidep"):
            run("ip", "link", "set", end, "mtu", "4000")
        assert mtu(wide.name) == 4000
        for backend in (usual, wide, usual, wide):
            attach_backend(guest.dom, mac, bridge.backend(backend.name))
            assert (mtu(wide.name), mtu(usual.name)) == (4000, 1500)


@daemon_only
def test_a_bridge_that_was_made_anew_is_plugged_into_again(
    libvirt_connection: libvirt.virConnect,
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    """As by virsh net-destroy and net-start: the kernel lets go of its ports, and libvirt sees nothing."""
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    guest.set_address(mac, "198.18.1.2/24")
    net = libvirt_connection.networkDefineXML(
        "<network><name>taplab</name><bridge name='nptaplab' stp='off' delay='0'/>"
        "<ip address='198.18.1.1' netmask='255.255.255.0'/></network>"
    )

    def start_bridge() -> None:
        run("ip", "link", "add", blue.name, "up", "type", "bridge")
        run("ip", "address", "add", "192.0.2.1/24", "dev", blue.name)

    try:
        net.create()
        for backend, probe, stop, start in (
            (network.backend("taplab"), "198.18.1.1", net.destroy, net.create),
            (
                bridge.backend(blue.name),
                "192.0.2.1",
                lambda: run("ip", "link", "delete", blue.name),
                start_bridge,
            ),
        ):
            attach_backend(guest.dom, mac, backend)
            stop()
            before = everything(guest.dom)
            with pytest.raises(NicplugError, match=r"there is no device|is not active"):
                attach_backend(guest.dom, mac, backend)
            assert everything(guest.dom) == before
            start()
            with pytest.warns(UserWarning, match=r"vnet\d+ of .* is no port of its bridge any more"):
                (seen,) = interfaces(guest.dom)
            assert seen.connection is Connection.ATTACHED
            changes = guest.run("cat /sys/class/net/eth0/carrier_changes")
            assert attach_backend(guest.dom, mac, backend).changed
            assert guest.ping(probe, count=3)
            assert guest.run("cat /sys/class/net/eth0/carrier_changes") == changes
            assert not attach_backend(guest.dom, mac, backend).changed
        detach_backend(guest.dom, mac)
    finally:
        net.destroy()
        net.undefine()


@pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)
@pytest.mark.parametrize("way", ["to another device", "to the same device", "out"])
def test_a_guest_that_ends_in_the_middle_leaves_nothing(
    deferred_guest: NewGuest, lower: str, other: str, new_mac: NewMac, way: str
) -> None:
    """After each step there is: with its tap goes the word of what that was joined to."""
    mac, number = new_mac(), 0
    dom = deferred_guest(mac, timeout=None).dom
    places = {
        "to another device": direct.backend(other),
        "to the same device": direct.backend(lower, "private"),
    }
    while True:
        attach_backend(dom, mac, direct.backend(lower))
        plan = plan_attach(dom, mac, places[way]) if way in places else plan_detach(dom, mac)
        steps = [step for step in plan.steps if not isinstance(step, (Check, Release))]
        if number == len(steps):
            break

        def end(step: Step, _seconds: float, last: Step = steps[number]) -> None:
            if step is last:
                dom.destroy()

        with suppress(OperationError):
            carry_out_plan(dom, plan, end)
        wait_until(lambda: not any(".np" in name for name in devices()), timeout=10)
        number += 1
        dom.createWithFlags(1)  # paused: it need not boot


@daemon_only
def test_libvirtd_may_restart(
    libvirt_daemon: PrivateDaemon, deferred_guest: NewGuest, lower: str, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac)
    guest.set_address(mac, "198.51.100.2/24")
    attach_backend(guest.dom, mac, direct.backend(lower))
    libvirt_daemon.restart()
    guest.dom = libvirt_daemon.connect().lookupByName(guest.name)
    (seen,) = interfaces(guest.dom)
    assert (seen.connection, seen.carrier) == (Connection.ATTACHED, True)
    assert guest.ping("198.51.100.1", count=2)
    assert detach_backend(guest.dom, mac).connection is Connection.DEFERRED
    guest.wait_carrier(mac, up=False)


def test_start_from_the_definition_comes_up_deferred(
    libvirt_guest: Callable[..., Guest], nic_xml: Callable[..., str], lower: str, new_mac: NewMac
) -> None:
    mac = new_mac()
    nic = nic_xml(mac, f"<source dev='{lower}' mode='bridge'/>", "type='direct' connection='attached'")
    guest = libvirt_guest(nic, define=define)
    assert not guest.carrier(mac)
    (seen,) = interfaces(guest.dom)
    assert (seen.connection, seen.carrier) == (Connection.DEFERRED, False)
    (defined,) = interfaces(guest.dom, inactive=True)
    assert defined.connection is Connection.ATTACHED
    guest.set_address(mac, "198.51.100.2/24")
    assert attach_backend(guest.dom, mac).carrier
    assert guest.ping("198.51.100.1", count=2)


def test_create_plugs_in_what_only_the_kernel_can(
    libvirt_guest: Callable[..., Guest], nic_xml: Callable[..., str], lower: str, new_mac: NewMac
) -> None:
    mac = new_mac()
    nic = nic_xml(mac, f"<source dev='{lower}' mode='bridge'/>", "type='direct' connection='attached'")
    guest = libvirt_guest(nic, define=create)
    guest.set_address(mac, "198.51.100.2/24")
    guest.wait_carrier(mac, up=True)
    assert guest.ping("198.51.100.1", count=2)


def test_mtu(
    libvirt_guest: Callable[..., Guest], nic_xml: Callable[..., str], lower: str, new_mac: NewMac
) -> None:
    wide, narrow = new_mac(), new_mac()
    nics = nic_xml(wide, "<mtu size='4000'/>") + nic_xml(narrow, "<mtu size='1400'/>")
    guest = libvirt_guest(nics, define=define, timeout=None)
    for backend in (direct.backend(lower), netdev.backend(lower)):
        with pytest.raises(NicplugError, match="MTU"):
            attach_backend(guest.dom, wide, backend)
    attach_backend(guest.dom, narrow, direct.backend(lower))
    (link,) = json.loads(run("ip", "-json", "link", "show", f"{target(guest.dom, narrow)}.np0"))
    assert link["mtu"] == 1400


def test_cable(deferred_guest: NewGuest, new_mac: NewMac) -> None:
    here, there = new_mac(), new_mac()
    one, two = deferred_guest(here), deferred_guest(there)
    one.set_address(here, "198.18.0.1/24")
    two.set_address(there, "198.18.0.2/24")
    before = everything(one.dom)
    attach_backend(one.dom, here, cable.backend(two.name, there))
    for guest, mac, end in ((one, here, f"{two.name}/{there}"), (two, there, f"{one.name}/{here}")):
        guest.wait_carrier(mac, up=True)
        (seen,) = interfaces(guest.dom)
        assert seen.backend is not None
        assert (seen.connection, cable.describe(seen.backend)) == (Connection.ATTACHED, f"cable {end}")
        assert "type='cable'" in xml_desc(guest.dom).replace('"', "'")
    assert one.ping("198.18.0.2", count=3)
    assert two.ping("198.18.0.1", count=3)
    assert not attach_backend(two.dom, there, cable.backend(one.name, here)).changed

    # Pulled at either end, both are without.
    detach_backend(two.dom, there)
    for guest, mac in ((one, here), (two, there)):
        guest.wait_carrier(mac, up=False)
        (seen,) = interfaces(guest.dom)
        assert seen.connection is Connection.DEFERRED
    assert without(OURS, everything(one.dom)) == without(OURS, before)

    # Plugged in again at the other end, without naming it; and the other guest goes.
    attach_backend(two.dom, there)
    one.wait_carrier(here, up=True)
    assert one.ping("198.18.0.2", count=3)
    two.dom.destroy()
    one.wait_carrier(here, up=False)
    wait_until(lambda: interfaces(one.dom)[0].connection is Connection.DEFERRED)
    wait_until(lambda: "clsact" not in run("tc", "qdisc"))
    with pytest.raises(NicplugError, match="a cable needs both of its ends"):
        attach_backend(one.dom, here)


def test_who_unplugs_a_cable_that_has_gone_leaves_what_came_meanwhile(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    here, there, blue = new_mac(), new_mac(), libvirt_bridge()
    one, two = deferred_guest(here, timeout=None), deferred_guest(there, timeout=None)
    attach_backend(one.dom, here, cable.backend(two.name, there))
    with locked(one.dom.UUIDString()):
        two.dom.destroy()
        time.sleep(1)  # who clears away has seen it by then, and waits for us
        attach_backend(one.dom, here, bridge.backend(blue.name))
    until_nobody_clears_away()
    (seen,) = interfaces(one.dom)
    assert (seen.connection, seen.backend) == (Connection.ATTACHED, bridge.backend(blue.name))
    assert master(seen.target) == blue.name


def test_guests_of_others_keep_no_cable(
    libvirt_daemon: PrivateDaemon,
    deferred_guest: NewGuest,
    nic_xml: Callable[..., str],
    lower: str,
    new_mac: NewMac,
) -> None:
    # Who sees to a libvirtd's guests is there first, and cannot talk to embedded libvirt.
    here, there, beside = new_mac(), new_mac(), new_mac()
    libvirt_daemon.start()
    with ExitStack() as stack:
        workdir = stack.enter_context(short_directory())
        other = boot_guest(
            libvirt_daemon.connect(), "npbeside", nic_xml(beside), workdir=workdir, define=define
        )
        stack.callback(remove_domain, other.dom)
        attach_backend(other.dom, beside, netdev.backend(lower))
        assert "PROMISC" in run("ip", "link", "show", lower)
        one, two = deferred_guest(here), deferred_guest(there)
        attach_backend(one.dom, here, cable.backend(two.name, there))
        one.wait_carrier(here, up=True)
        two.dom.destroy()
        one.wait_carrier(here, up=False)
        assert interfaces(one.dom)[0].connection is Connection.DEFERRED
        # What has cleared the cable away has left the other guest alone.
        assert "PROMISC" in run("ip", "link", "show", lower)
        assert "clsact" in run("tc", "qdisc", "show", "dev", lower)
    wait_until(lambda: "PROMISC" not in run("ip", "link", "show", lower))
    until_nobody_clears_away()


def test_a_cable_that_moves_away_leaves_its_other_end_unplugged(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    here, there = new_mac(), new_mac()
    guest, blue = deferred_guest(here, there), libvirt_bridge("192.0.2.1/24")
    attach_backend(guest.dom, here, cable.backend(guest.name, there))
    guest.wait_carrier(there, up=True)
    attach_backend(guest.dom, here, bridge.backend(blue.name))
    guest.wait_carrier(there, up=False)
    guest.set_address(here, "192.0.2.2/24")
    assert guest.ping("192.0.2.1", count=2)
    assert [status.connection for status in interfaces(guest.dom)] == [
        Connection.ATTACHED,
        Connection.DEFERRED,
    ]


def test_a_cable_that_leads_one_way_is_none(deferred_guest: NewGuest, new_mac: NewMac) -> None:
    """Somebody was killed between its two ends."""
    here, there = new_mac(), new_mac()
    dom = deferred_guest(here, there, timeout=None).dom
    backend = cable.backend(dom.name(), there)
    attach_backend(dom, here, backend)
    with closing(Kernel()) as kernel:
        kernel.part(target(dom, here), Joint("cable", target(dom, there)))
    with pytest.warns(UserWarning, match="sees a carrier on .* nothing is plugged in"):
        found = interfaces(dom)
    assert [nic.connection for nic in found] == [Connection.DEFERRED] * 2
    attach_backend(dom, here, backend)
    assert [nic.connection for nic in interfaces(dom)] == [Connection.ATTACHED] * 2
    with closing(Kernel()) as kernel:
        kernel.part(target(dom, here), Joint("cable", target(dom, there)))
    detach_backend(dom, here)
    assert not detach_backend(dom, there).carrier
    assert "mirred" not in run("tc", "filter", "show", "dev", target(dom, there), "ingress")


def test_a_cable_knows_its_ends_by_any_name(
    libvirt_guest: Callable[..., Guest], nic_xml: Callable[..., str], new_mac: NewMac
) -> None:
    here, there = new_mac(), new_mac()
    nics = nic_xml(here, "<alias name='ua-here'/>") + nic_xml(there, "<alias name='ua-there'/>")
    guest = libvirt_guest(nics, define=define)
    # Named by its MAC, it is recorded by its alias.
    attach_backend(guest.dom, here, cable.backend(guest.name, there))
    guest.wait_carrier(here, up=True)
    guest.wait_carrier(there, up=True)
    for name in ("ua-here", here, here.upper()):
        assert not attach_backend(guest.dom, there, cable.backend(guest.name, name)).changed
    assert [status.carrier for status in interfaces(guest.dom)] == [True, True]
    detach_backend(guest.dom, there)
    guest.wait_carrier(here, up=False)
    guest.wait_carrier(there, up=False)
    assert "clsact" not in run("tc", "qdisc")
    assert [status.connection.value for status in interfaces(guest.dom)] == ["deferred", "deferred"]
