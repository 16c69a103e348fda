"""Planes hub and swap: every backend, every move between two, every refusal; nothing is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt
import libvirt_qemu
import pytest

from nicplug_xml import (
    Connection,
    NicplugError,
    attach_backend,
    define,
    detach_backend,
    interfaces,
    plan_attach,
    set_link,
    xml_desc,
)
from nicplug_xml.backends import direct
from nicplug_xml.errors import OperationError, UnsupportedError
from nicplug_xml.host import tap
from nicplug_xml.host.domain import Domain
from nicplug_xml.host.kernel import Kernel
from nicplug_xml.host.tap import open_macvtap
from nicplug_xml.joints import Joint
from nicplug_xml.operations import carry_out_plan
from nicplug_xml.planes import netdevs
from nicplug_xml.steps import Record
from tests.live import far_end
from tests.live.conftest import (
    devices,
    emulator,
    everything,
    identity,
    interface_xml,
    master,
    mtu,
    processes,
    run,
    veth,
    wait_until,
)
from tests.live.frames import Wire

if TYPE_CHECKING:
    from nicplug_xml.steps import Step
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory, PeerFactory

NewMac = Callable[[], str]
NewGuest = Callable[..., "Guest"]
daemon_only = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)

#: The guest's addresses, one for each place that it can be plugged into.
ADDRESSES = ("192.0.2.2/24", "203.0.113.2/24", "198.51.100.2/24", "10.0.2.15/24", "198.18.0.2/24")
HERE = "127.0.0.1"


@dataclass(frozen=True)
class Way:
    """A backend, and how the guest can tell that it is plugged into it.

    :param probe: an address that answers its pings; or, with a port, a TCP connection.
    :param descriptor: opens what is to be handed in instead.
    :param connect: the TCP port at which the far end has to connect afterwards.
    """

    name: str
    backend: str
    probe: str
    descriptor: Callable[[], int] | None = None
    connect: int | None = None


@pytest.fixture(params=["hub", "swap"])
def plane(request: pytest.FixtureRequest) -> str:
    """The plane that a test's guests are on; it runs on each."""
    return str(request.param)


@pytest.fixture
def hub_guest(
    plane: str,
    libvirt_guest: GuestFactory,
    nic_xml: Callable[..., str],
    request: pytest.FixtureRequest,
) -> NewGuest:
    """A factory of running guests with one NIC."""
    devices = emulator(request.getfixturevalue("patched_qemu")) if plane == "swap" else ""

    def make(mac: str, children: str = "", attributes: str = "connection='deferred'") -> Guest:
        return libvirt_guest(
            nic_xml(mac, children, attributes),
            define=lambda conn, xml: define(conn, xml, plane=plane),
            devices_xml=devices,
        )

    return make


def backend(kind: str, source: str, rest: str = "") -> str:
    """Return a backend document."""
    return f"<backend type='{kind}'><source {source}/>{rest}</backend>"


def info_network(dom: libvirt.virDomain) -> str:
    """Return what QEMU says of its netdevs."""
    return str(
        libvirt_qemu.qemuMonitorCommand(dom, "info network", libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    )


def held(guest: Guest) -> dict[str, object]:
    """Return all that plugging can leave behind."""
    (qemu,) = processes(f"guest={guest.name},")
    return {
        "netdevs": [line.partition(":")[0] for line in info_network(guest.dom).splitlines()],
        "QEMU's descriptors": len(os.listdir(f"/proc/{qemu}/fd")),
        "devices": {link["ifname"] for link in json.loads(run("ip", "-json", "link"))},
        "passt": len(processes("passt")),
    }


def assert_free(device: str) -> None:
    """Assert that no macvtap is on a device: only then can one have it to itself."""
    probe = ["ip", "link", "add", "link", device, "name", "npprobe", "type", "macvtap", "mode", "passthru"]
    deadline = time.monotonic() + 2
    # A namespace, and the macvtap in it, goes some time after its last descriptor.
    while subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run("ip", "link", "delete", "npprobe")


@contextmanager
def tap_in(bridge: str) -> Iterator[Callable[[], int]]:
    """Make a tap in a bridge by hand, and open it."""
    name = "npbyhand"
    run("ip", "tuntap", "add", "dev", name, "mode", "tap")
    try:
        run("ip", "link", "set", name, "master", bridge, "up")

        def opened() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
            return descriptor

        yield opened
    finally:
        run("ip", "link", "delete", name)


@contextmanager
def macvtap_on(device: str, mac: str, directory: Path) -> Iterator[Callable[[], int]]:
    """Make a macvtap by hand, and open it."""
    name = "npmacvtap"
    run("ip", "link", "add", "link", device, "name", name, "address", mac, "type", "macvtap")
    try:
        run("ip", "link", "set", name, "up")
        (entry,) = Path("/sys/class/net", name).glob("tap*")
        major, minor = map(int, (entry / "dev").read_text().split(":"))
        os.mknod(directory / "macvtap", 0o020600, os.makedev(major, minor))
        yield lambda: os.open(directory / "macvtap", os.O_RDWR | os.O_NONBLOCK)
    finally:
        run("ip", "link", "delete", name)


def listens(port: int) -> bool:
    """Tell whether somebody listens at a TCP port."""
    with socket.socket() as connection:
        return connection.connect_ex((HERE, port)) == 0


def socket_to_far_end() -> int:
    """Return a descriptor of a socket to a far end of ours."""
    ours, its = socket.socketpair()
    far_end.in_background(far_end.serve_stream, its)
    return ours.detach()


def echo_server(port: int) -> socket.socket:
    """Greet everybody who connects to a TCP port."""
    listener = socket.create_server((HERE, port))

    def greet() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"welcome\n")

    far_end.in_background(greet)
    return listener


@pytest.fixture
def ways(
    libvirt_connection: libvirt.virConnect,
    libvirt_bridge: BridgeFactory,
    libvirt_peer: PeerFactory,
    new_mac: NewMac,
    tmp_path: Path,
) -> Iterator[tuple[str, list[Way]]]:
    """Everything that a NIC can be plugged into here, and the MAC that it is to have."""
    mac = new_mac()
    blue, green = libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    libvirt_peer(blue, "192.0.2.254/24")
    # passt copies the address of the device that the default route goes through; multicast takes that, too.
    run("ip", "route", "add", "default", "via", "192.0.2.254", "dev", blue.name)
    # A bridge takes the lowest address of its ports, unless it was given one: the guest knows who it was.
    run("ip", "link", "set", blue.name, "address", "52:54:00:00:00:b1")
    with ExitStack() as stack:
        stack.callback(run, "ip", "route", "delete", "default")
        lower = stack.enter_context(veth("nplow", green.name))
        other = stack.enter_context(veth("nplow2", green.name))
        tap = stack.enter_context(tap_in(blue.name))
        macvtap = stack.enter_context(macvtap_on(other, mac, tmp_path))
        stack.enter_context(far_end.listening(7001))
        stack.enter_context(far_end.on_udp(7002))
        stack.enter_context(far_end.in_group("230.0.0.7", 7004))
        greeter = echo_server(7006)
        stack.callback(greeter.close)
        stack.callback(greeter.shutdown, socket.SHUT_RDWR)
        modes = ("bridge", "private", "vepa", "passthrough")
        found = [
            Way("bridge", backend("bridge", f"bridge='{blue}'"), "192.0.2.1"),
            *(Way(mode, backend("direct", f"dev='{lower}' mode='{mode}'"), "198.51.100.1") for mode in modes),
            Way("user", "<backend type='user'/>", "10.0.2.2"),
            Way("passt", "<backend type='user'><backend type='passt'/></backend>", "192.0.2.254:7006"),
            Way("mcast", backend("mcast", "address='230.0.0.7' port='7004'"), far_end.ADDRESS),
            Way(
                "udp",
                f"<backend type='udp'><source address='{HERE}' port='7002'>"
                f"<local address='{HERE}' port='7003'/></source></backend>",
                far_end.ADDRESS,
            ),
            Way("server", backend("server", f"address='{HERE}' port='7005'"), far_end.ADDRESS, None, 7005),
            Way("client", backend("client", f"address='{HERE}' port='7001'"), far_end.ADDRESS),
            Way("fd tap", "<backend type='fd'/>", "192.0.2.1", tap),
            Way("fd macvtap", "<backend type='fd'/>", "198.51.100.1", macvtap),
            Way("fd socket", "<backend type='fd'/>", far_end.ADDRESS, socket_to_far_end),
        ]
        if "embed" not in libvirt_connection.getURI():
            network = libvirt_connection.networkCreateXML(
                "<network><name>hublab</name><bridge name='nphublab' stp='off' delay='0'/>"
                "<ip address='203.0.113.1' netmask='255.255.255.0'/></network>"
            )
            stack.callback(network.destroy)
            found.append(Way("network", backend("network", "network='hublab'"), "203.0.113.1"))
        yield mac, found


def walk(places: int) -> list[int]:
    """Return a walk that takes every ordered pair of places once: Hierholzer's way round."""
    untaken = {here: [there for there in range(places) if there != here] for here in range(places)}
    stack, done = [0], []
    while stack:
        if untaken[stack[-1]]:
            stack.append(untaken[stack[-1]].pop())
        else:
            done.append(stack.pop())
    return done[::-1]


def plug(guest: Guest, mac: str, way: Way) -> None:
    """Plug a guest in, and see that it has what is there."""
    if way.descriptor is None:
        status = attach_backend(guest.dom, mac, way.backend)
    else:
        descriptor = way.descriptor()
        try:
            status = attach_backend(guest.dom, mac, fds=[descriptor])
        finally:
            os.close(descriptor)
    assert (status.connection, status.carrier) == (Connection.ATTACHED, True), way.name
    if way.connect is not None:
        connection = socket.create_connection((HERE, way.connect))
        far_end.in_background(far_end.serve_stream, connection)
    assert reaches(guest, way.probe), f"{way.name}: no answer from {way.probe}"


def reaches(guest: Guest, probe: str) -> bool:
    """Tell whether somebody answers the guest there."""
    address, _, port = probe.partition(":")
    if port:
        # An input that never ends: else it hangs up before it is greeted.
        return "welcome" in guest.run(f"timeout 5 nc {address} {port} <>/run/nothing || :", timeout=15)
    for _ in range(4):
        if guest.ping(address):
            return True
        # The host has told of all of its addresses on each bridge, and passt of all there are: what the guest
        # has learnt of this one may be from a place before.
        guest.run("ip neigh flush dev eth0")
    return False


def unclaimed_datagrams(guest: Guest) -> int:
    """Return how many UDP datagrams the guest has got at ports that nobody listens at."""
    names, values = (line.split() for line in guest.run("grep Udp: /proc/net/snmp").splitlines() if line)
    return int(dict(zip(names, values, strict=True))["NoPorts"])


@pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)
def test_a_bridge_keeps_its_mtu(hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac) -> None:
    mac, wide = new_mac(), libvirt_bridge()
    guest = hub_guest(mac)
    with veth("npwide", wide.name):
        for end in ("npwide", "npwidep"):
            run("ip", "link", "set", end, "mtu", "4000")
        attach_backend(guest.dom, mac, backend("bridge", f"bridge='{wide.name}'"))
        assert mtu(wide.name) == 4000


def test_every_backend_to_every_other(hub_guest: NewGuest, ways: tuple[str, list[Way]]) -> None:
    mac, found = ways
    guest = hub_guest(mac)
    for address in ADDRESSES:
        guest.set_address(mac, address)
    before, nic, ours = held(guest), identity(guest, mac), len(os.listdir("/proc/self/fd"))
    places = walk(len(found))
    assert len(set(pairwise(places))) == len(found) * (len(found) - 1)
    assert not guest.carrier(mac)
    for place in places:
        plug(guest, mac, found[place])
        assert guest.carrier(mac)
    status = detach_backend(guest.dom, mac)
    assert status.connection is Connection.DEFERRED
    guest.wait_carrier(mac, up=False)
    assert identity(guest, mac) == nic
    assert held(guest) == before
    assert_free("nplow")
    # The far ends in this process may still be about to go: each plug would have left one.
    assert len(os.listdir("/proc/self/fd")) < ours + len(places)


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_a_macvtap_passes_every_group(libvirt_bridge: BridgeFactory, mode: str) -> None:
    """IPv6 asks for its neighbours in groups that only the guest knows of."""
    mac = "52:54:00:11:22:77"
    with veth("nplow", libvirt_bridge().name) as lower, closing(Wire(f"{lower}p")) as far:
        (before,) = json.loads(run("ip", "-json", "-details", "link", "show", lower))
        (descriptor,) = open_macvtap(lower, mode, mac)
        try:
            (during,) = json.loads(run("ip", "-json", "link", "show", lower))
            assert (during["address"] == mac) == (mode == "passthru")
            for to in ("01005e0000fb", "3333ff000077", "0180c200000e", mac.replace(":", "")):
                content = far.send(to=to)
                while content not in next_frame(descriptor):
                    pass
        finally:
            os.close(descriptor)
        assert_free(lower)
        (after,) = json.loads(run("ip", "-json", "-details", "link", "show", lower))
        assert [after[what] for what in KEPT] == [before[what] for what in KEPT]


def test_a_device_that_is_down_is_put_up_below_a_macvtap(libvirt_bridge: BridgeFactory) -> None:
    with veth("nplow", libvirt_bridge().name) as lower, closing(Wire(f"{lower}p")) as far:
        run("ip", "link", "set", lower, "down")
        (descriptor,) = open_macvtap(lower, "bridge", "52:54:00:11:22:77")
        try:
            wait_until(lambda: "state UP" in run("ip", "link", "show", far.device), timeout=5)
            content = far.send()
            while content not in next_frame(descriptor):
                pass
        finally:
            os.close(descriptor)


def test_who_is_interrupted_while_a_macvtap_is_made_leaves_none(
    libvirt_bridge: BridgeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal comes to the main thread, and another one is at work."""
    ours, made = len(os.listdir("/proc/self/fd")), tap._open_node

    def interrupt(*arguments: Any) -> object:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        return made(*arguments)

    monkeypatch.setattr(tap, "_open_node", interrupt)
    with veth("nplow", libvirt_bridge().name) as lower:
        with pytest.raises(KeyboardInterrupt):
            open_macvtap(lower, "bridge", "52:54:00:11:22:77")
        time.sleep(0.2)
        assert_free(lower)
    assert len(os.listdir("/proc/self/fd")) == ours


#: What a device below a macvtap is to have again.
KEPT = ("address", "flags", "promiscuity", "allmulti")


def next_frame(descriptor: int) -> bytes:
    """Return what a tap or macvtap hands over next, within 5 seconds."""
    assert select.select([descriptor], [], [], 5)[0]
    return os.read(descriptor, 1 << 16)


def test_a_bridge_that_is_made_anew_and_a_tap_that_is_put_elsewhere(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge()
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    dom, document = guest.dom, backend("bridge", f"bridge='{blue}'")
    attach_backend(dom, mac, document)
    (tap,) = (device for device in devices() if device.startswith("nptap"))
    run("ip", "link", "delete", blue.name)
    with pytest.raises(NicplugError, match="attached to bridge"):
        attach_backend(dom, mac)
    run("ip", "link", "add", blue.name, "type", "bridge")
    run("ip", "address", "add", "192.0.2.1/24", "dev", blue.name)
    run("ip", "link", "set", blue.name, "up")
    for master_of in (None, green.name):
        if master_of:
            run("ip", "link", "set", tap, "master", master_of)
        with pytest.warns(UserWarning, match=f"plugged into bridge {blue}, and is no port"):
            interfaces(dom)
        # That is for attach-backend to mend.
        assert set_link(dom, mac, up=False).carrier is False
        assert set_link(dom, mac, up=True).carrier is True
        assert master(tap) == master_of
        assert attach_backend(dom, mac, document).changed
        assert not attach_backend(dom, mac).changed
        (tap,) = (device for device in devices() if device.startswith("nptap"))
        assert master(tap) == blue.name
        assert reaches(guest, "192.0.2.1")
    detach_backend(dom, mac)


@pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)
@pytest.mark.parametrize("mode", ["bridge", "passthrough"])
def test_a_device_below_a_macvtap_that_is_made_anew(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac, mode: str
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    document = backend("direct", f"dev='nplow' mode='{mode}'")
    with veth("nplow", blue.name):
        attach_backend(guest.dom, mac, document)
        assert not attach_backend(guest.dom, mac).changed
    before = info_network(guest.dom)
    with pytest.warns(UserWarning, match=r"plugged into direct nplow \(.*\), and on no device of that name"):
        interfaces(guest.dom)
    with pytest.raises(NicplugError, match="there is no device 'nplow'; the NIC is attached to direct nplow"):
        attach_backend(guest.dom, mac)
    assert info_network(guest.dom) == before
    with veth("nplow", blue.name):
        with pytest.warns(UserWarning, match="attach-backend plugs it in again"):
            interfaces(guest.dom)
        assert attach_backend(guest.dom, mac, document).changed
        assert not attach_backend(guest.dom, mac).changed
        assert reaches(guest, "192.0.2.1")
        detach_backend(guest.dom, mac)
        assert_free("nplow")


@daemon_only
def test_a_network_that_is_started_anew(
    libvirt_connection: libvirt.virConnect, hub_guest: NewGuest, new_mac: NewMac
) -> None:
    mac, wanted = new_mac(), backend("network", "network='npanew'")
    dom = hub_guest(mac).dom
    network = libvirt_connection.networkDefineXML(
        "<network><name>npanew</name><bridge name='npanew'/></network>"
    )
    network.create()
    try:
        attach_backend(dom, mac, wanted)
        network.destroy()
        network.create()
        with pytest.warns(UserWarning, match="plugged into network npanew, and is not where that leads"):
            interfaces(dom)
        assert attach_backend(dom, mac, wanted).changed
        assert not attach_backend(dom, mac).changed
        (tap,) = (device for device in devices() if device.startswith("nptap"))
        assert master(tap) == "npanew"
        detach_backend(dom, mac)
    finally:
        network.destroy()
        network.undefine()


def test_who_has_hung_up_is_connected_to_again(hub_guest: NewGuest, new_mac: NewMac) -> None:
    mac = new_mac()
    guest = hub_guest(mac)
    guest.set_address(mac, "198.18.0.2/24")
    client = backend("client", f"address='{HERE}' port='7009'")
    with closing(socket.create_server((HERE, 7009))) as listener:
        attach_backend(guest.dom, mac, client)
        assert not attach_backend(guest.dom, mac, client).changed
        listener.accept()[0].close()
        wait_until(lambda: "type=socket,\n" in info_network(guest.dom).replace("\r", ""))
        with pytest.warns(UserWarning, match="plugged into client .* which has hung up"):
            interfaces(guest.dom)
        far_end.in_background(lambda: far_end.serve_stream(listener.accept()[0]))
        assert attach_backend(guest.dom, mac, client).changed
        assert reaches(guest, far_end.ADDRESS)
    detach_backend(guest.dom, mac)


def test_a_descriptor_whose_other_end_is_closed_has_hung_up(hub_guest: NewGuest, new_mac: NewMac) -> None:
    mac = new_mac()
    dom = hub_guest(mac).dom
    ours, its = socket.socketpair()
    with its:
        attach_backend(dom, mac, fds=[its.fileno()])
    assert not attach_backend(dom, mac).changed
    ours.close()
    wait_until(lambda: "type=socket,\n" in info_network(dom).replace("\r", ""))
    with pytest.warns(UserWarning, match="which has hung up; attach-backend plugs in another one"):
        interfaces(dom)
    with pytest.raises(UnsupportedError, match="is needed again"):
        attach_backend(dom, mac)
    detach_backend(dom, mac)


def test_a_nic_that_was_taken_out_and_put_back_is_not_on_its_hub(
    plane: str, hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    document = backend("bridge", f"bridge='{blue}'")
    attach_backend(guest.dom, mac, document)
    nic = interface_xml(guest.dom)
    guest.dom.detachDeviceFlags(nic, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    wait_until(lambda: "<interface" not in guest.dom.XMLDesc())
    guest.dom.attachDeviceFlags(nic, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    (status,) = interfaces(guest.dom)
    assert status.connection is Connection.DEFERRED
    if plane == "hub":
        with pytest.raises(UnsupportedError, match="is not on its hub"):
            attach_backend(guest.dom, mac, document)
    else:
        attach_backend(guest.dom, mac, document)
        wait_until(lambda: mac in guest.interfaces())
        guest.wait_carrier(mac, up=True)


def test_a_netdev_that_somebody_else_has_ended(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, backend("bridge", f"bridge='{blue}'"))
    with closing(Domain(guest.dom)) as host:
        for netdev in netdevs.backends(interfaces(guest.dom)[0].alias):
            with suppress(OperationError):
                host.monitor("netdev_del", {"id": netdev})
    assert "connection='deferred'" in xml_desc(guest.dom)
    assert attach_backend(guest.dom, mac).changed
    assert reaches(guest, "192.0.2.1")
    detach_backend(guest.dom, mac)


def test_sockets_of_qemus_own(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac, tmp_path: Path
) -> None:
    mac = new_mac()
    guest = hub_guest(mac)
    guest.set_address(mac, "198.18.0.2/24")
    before = held(guest)
    with far_end.listening(7001), far_end.on_udp(7002):
        plug(guest, mac, Way("stream", backend("stream", f"address='{HERE}' port='7001'"), far_end.ADDRESS))
        server = backend("stream", f"mode='server' address='{HERE}' port='7005'")
        plug(guest, mac, Way("stream server", server, far_end.ADDRESS, None, 7005))
        local = f"<local address='{HERE}' port='7003'/>"
        datagrams = f"<backend type='dgram'><source address='{HERE}' port='7002'>{local}</source></backend>"
        plug(guest, mac, Way("dgram", datagrams, far_end.ADDRESS))
        detach_backend(guest.dom, mac)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "far"))
        listener.listen()
        far_end.in_background(lambda: far_end.serve_stream(listener.accept()[0]))
        plug(guest, mac, Way("unix", backend("stream", f"path='{tmp_path}/far'"), far_end.ADDRESS))
        detach_backend(guest.dom, mac)
    assert held(guest) == before


def test_tunnel_between_two_guests(hub_guest: NewGuest, new_mac: NewMac) -> None:
    macs = new_mac(), new_mac()
    guests = [hub_guest(mac) for mac in macs]
    before = [held(guest) for guest in guests]
    for number, (guest, mac) in enumerate(zip(guests, macs, strict=True)):
        guest.set_address(mac, f"198.18.0.{number + 1}/24")
        near, far = 7011 + number, 7012 - number
        attach_backend(
            guest.dom,
            mac,
            f"<backend type='l2tpv3'><source address='{HERE}' port='{far}'>"
            f"<local address='{HERE}' port='{near}'/>"
            f"<session tx='{far}' rx='{near}' txcookie='{far:#x}' rxcookie='{near:#x}'/></source></backend>",
        )
    assert reaches(guests[0], "198.18.0.2")
    for guest, mac in zip(guests, macs, strict=True):
        detach_backend(guest.dom, mac)
    assert [held(guest) for guest in guests] == before


# The patched QEMU is built without vde.
@pytest.mark.parametrize("plane", ["hub"], indirect=True)
@pytest.mark.skipif(not shutil.which("vde_switch"), reason="the Debian package vde2 is not installed")
def test_switch_between_two_guests(hub_guest: NewGuest, new_mac: NewMac, tmp_path: Path) -> None:
    macs = new_mac(), new_mac()
    guests = [hub_guest(mac) for mac in macs]
    switch = tmp_path / "switch"
    with subprocess.Popen(["vde_switch", "-s", str(switch)], stdin=subprocess.PIPE) as process:
        while not (switch / "ctl").exists():
            assert process.poll() is None
        for number, (guest, mac) in enumerate(zip(guests, macs, strict=True)):
            guest.set_address(mac, f"198.18.0.{number + 1}/24")
            attach_backend(guest.dom, mac, backend("vde", f"path='{switch}'"))
        assert reaches(guests[0], "198.18.0.2")
        for guest, mac in zip(guests, macs, strict=True):
            detach_backend(guest.dom, mac)
        process.terminate()


REFUSALS = [
    (backend("bridge", "bridge='npmissing'"), "there is no bridge 'npmissing'"),
    (backend("bridge", "bridge='lo'"), "'lo' is no bridge"),
    (backend("direct", "dev='npmissing'"), "there is no device 'npmissing'"),
    (backend("direct", "dev='lo' mode='sideways'"), "mode='sideways' is not allowed"),
    (backend("client", f"address='{HERE}' port='7999'"), "Connection refused"),
    (backend("server", f"address='{HERE}' port='7998'"), "Address already in use"),
    (
        backend("stream", f"mode='server' address='{HERE}' port='7998'"),
        "QEMU (cannot listen there|refuses netdev_add)",
    ),
    (
        backend("stream", "mode='server' path='/nonexistent/socket'"),
        "QEMU (cannot listen there: .*the user that QEMU runs as|refuses netdev_add)",
    ),
]


@pytest.mark.parametrize("attached", [False, True])
def test_refusals_leave_everything_as_it_was(
    hub_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
    monkeypatch: pytest.MonkeyPatch,
    attached: bool,
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    if attached:
        attach_backend(guest.dom, mac, backend("bridge", f"bridge='{blue}'"))
    before = everything(guest.dom), held(guest)
    state = "attached to bridge" if attached else "deferred"

    def refused(document: str | None, message: str, fds: tuple[int, ...] = ()) -> None:
        ours = len(os.listdir("/proc/self/fd"))
        with pytest.raises(NicplugError, match=message):
            attach_backend(guest.dom, mac, document, fds=fds)
        assert (everything(guest.dom), held(guest)) == before, message
        # Other threads of this process read a file now and then.
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= ours)

    with socket.create_server((HERE, 7998)):
        for document, message in REFUSALS:
            refused(document, message)
            with pytest.raises(NicplugError) as caught:
                attach_backend(guest.dom, mac, document)
            if "is not allowed" not in message:  # what is not valid is refused before the NIC is looked at
                assert f"the NIC is {state}" in str(caught.value)
    with monkeypatch.context() as context:
        context.setenv("PATH", "/nonexistent")
        with pytest.raises(NicplugError, match="the program passt is missing"):
            attach_backend(guest.dom, mac, "<backend type='user'><backend type='passt'/></backend>")
    assert (everything(guest.dom), held(guest)) == before
    refused("<backend type='fd'/>", "descriptor that somebody handed in")
    with open(__file__) as plain:
        refused(None, "neither tap, macvtap nor socket", (plain.fileno(),))
    refused(None, "there is no open descriptor 999", (999,))
    both = socket.socketpair()
    refused(None, "a socket has one queue", tuple(end.fileno() for end in both))
    for end in both:
        end.close()
    queue = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(queue, 0x400454CA, struct.pack("16sH22x", b"npqueues", 0x1102))
        before = everything(guest.dom), held(guest)
        refused(None, "one of a multiqueue tap's queues", (queue,))
        refused(None, "2 descriptors were handed in for a NIC with 1 queues", (queue, queue))
    finally:
        os.close(queue)
    for flags, mode, message in (
        (0x1001, os.O_RDWR, "a tun device, which has no Ethernet"),
        (0x0002, os.O_RDWR, "packet information before each frame"),
        (0x1002, os.O_RDONLY, "in one direction only"),
    ):
        descriptor = os.open("/dev/net/tun", mode)
        try:
            fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", b"npother", flags))
            before = everything(guest.dom), held(guest)
            refused(None, message, (descriptor,))
        finally:
            os.close(descriptor)
    assert guest.carrier(mac) is attached
    if attached:
        assert reaches(guest, "192.0.2.1")


@pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)
def test_a_device_that_another_nic_gets_all_frames_of_is_refused(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    with veth("nplow", blue.name) as lower, veth("npnic", blue.name) as other, closing(Kernel()) as kernel:
        joint = Joint("device", lower)
        kernel.join(other, joint)
        before = everything(guest.dom), held(guest)
        with pytest.raises(NicplugError, match=f"device '{lower}' is joined to {other}"):
            attach_backend(guest.dom, mac, direct.backend(lower))
        assert (everything(guest.dom), held(guest)) == before
        kernel.part(other, joint)
        attach_backend(guest.dom, mac, direct.backend(lower))
        assert reaches(guest, "192.0.2.1")


def test_reset(hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    attach_backend(guest.dom, mac, backend("bridge", f"bridge='{blue}'"))
    guest.dom.reset()
    guest.wait_ready()
    (status,) = interfaces(guest.dom)
    assert (status.connection, status.carrier) == (Connection.ATTACHED, True)
    assert guest.carrier(mac)
    guest.set_address(mac, "192.0.2.2/24")
    assert reaches(guest, "192.0.2.1")
    detach_backend(guest.dom, mac)
    guest.dom.reset()
    guest.wait_ready()
    assert not guest.carrier(mac)


def test_managedsave_comes_up_deferred_and_says_what_was_plugged(
    plane: str, hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    document = backend("bridge", f"bridge='{blue}'")
    attach_backend(guest.dom, mac, document)
    assert reaches(guest, "192.0.2.1")
    for plug_in in (True, False):
        guest.dom.managedSave()
        guest.dom.create()
        guest.wait_ready()
        (status,) = interfaces(guest.dom)
        # The link is saved with the guest: on a hub it sees a carrier, and nobody behind it.
        carrier = plane == "hub"
        assert (status.connection, status.carrier) == (Connection.DEFERRED, carrier)
        assert status.backend is not None
        assert status.backend.source == {"bridge": blue.name}
        guest.wait_carrier(mac, up=carrier)
        assert not guest.ping("192.0.2.1", timeout=1)
        if plug_in:
            # No frame of the guest's is waiting for a port that was not there.
            attach_backend(guest.dom, mac, announce=False)
            assert reaches(guest, "192.0.2.1")
    assert detach_backend(guest.dom, mac).carrier is False
    guest.wait_carrier(mac, up=False)
    attach_backend(guest.dom, mac)
    assert reaches(guest, "192.0.2.1")


def test_start_from_the_definition_comes_up_deferred(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    attach_backend(
        guest.dom, mac, backend("bridge", f"bridge='{blue}'"), flags=libvirt.VIR_DOMAIN_AFFECT_CONFIG
    )
    assert interfaces(guest.dom)[0].connection is Connection.DEFERRED
    assert interfaces(guest.dom, inactive=True)[0].connection is Connection.ATTACHED
    guest.dom.destroy()
    guest.dom.create()
    guest.wait_ready()
    (status,) = interfaces(guest.dom)
    assert (status.connection, status.carrier) == (Connection.DEFERRED, False)
    assert not guest.carrier(mac)
    attach_backend(guest.dom, mac)
    guest.set_address(mac, "192.0.2.2/24")
    assert reaches(guest, "192.0.2.1")


@daemon_only
def test_libvirtd_may_restart(
    libvirt_daemon: PrivateDaemon,
    hub_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    attach_backend(guest.dom, mac, backend("bridge", f"bridge='{blue}'"))
    for expected in (Connection.ATTACHED, Connection.DEFERRED):
        libvirt_daemon.restart()
        guest.dom = libvirt_daemon.connect().lookupByName(guest.name)
        (status,) = interfaces(guest.dom)
        assert (status.connection, status.carrier) == (expected, expected is Connection.ATTACHED)
        assert guest.carrier(mac) is status.carrier
        if status.carrier:
            assert reaches(guest, "192.0.2.1")
            detach_backend(guest.dom, mac)
    attach_backend(guest.dom, mac)
    assert reaches(guest, "192.0.2.1")


def test_a_macvtap_comes_back_when_its_successor_fails(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac, tmp_path: Path
) -> None:
    mac, green = new_mac(), libvirt_bridge("198.51.100.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "198.51.100.2/24")
    with veth("nplow", green.name) as lower, macvtap_on(lower, new_mac(), tmp_path), talking(guest):
        attach_backend(guest.dom, mac, backend("direct", f"dev='{lower}' mode='bridge'"))
        before = held(guest)
        # Somebody else's macvtap is on the device: nobody can have it to himself.
        with pytest.raises(
            NicplugError, match=r"the kernel refuses.*attached to direct nplow \(bridge\) now"
        ):
            attach_backend(guest.dom, mac, backend("direct", f"dev='{lower}' mode='passthrough'"))
        assert held(guest) == before
        assert guest.carrier(mac)
        assert reaches(guest, "198.51.100.1")
        detach_backend(guest.dom, mac)


@pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)
@pytest.mark.parametrize("attached", [False, True])
def test_what_a_killed_operation_has_left_is_in_nobodys_way(
    hub_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    libvirt_peer: PeerFactory,
    new_mac: NewMac,
    attached: bool,
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge()
    dom = hub_guest(mac).dom
    before = info_network(dom).count("nicplug-")
    libvirt_peer(blue, "192.0.2.254/24")
    run("ip", "route", "add", "default", "via", "192.0.2.254", "dev", blue.name)
    forward = "<portForward proto='tcp' address='127.0.0.1'><range start='7080' to='80'/></portForward>"
    with ExitStack() as stack:
        stack.callback(run, "ip", "route", "delete", "default")
        lower = stack.enter_context(veth("nplow", green.name))
        for wanted in (
            backend("direct", f"dev='{lower}' mode='bridge'"),
            f"<backend type='user'>{forward}</backend>",
            f"<backend type='user'><backend type='passt'/>{forward}</backend>",
        ):
            number, step = 1, None
            while not isinstance(step, Record):
                if attached:
                    attach_backend(dom, mac, backend("bridge", f"bridge='{blue}'"), announce=False)
                steps = plan_attach(dom, mac, wanted, announce=False).steps
                with closing(Domain(dom)) as host:
                    for step in steps[:number]:
                        step.apply(host)
                # Of a move, one that has joined and has not recorded it, nobody knows what it has joined.
                if "connection='deferred'" in xml_desc(dom):
                    assert attach_backend(dom, mac, wanted, announce=False).carrier
                detach_backend(dom, mac)
                assert info_network(dom).count("nicplug-") == before
                number += 1


def test_a_move_that_was_cut_short_is_told_and_made_right(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge()
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    dom, document = guest.dom, backend("bridge", f"bridge='{blue}'")
    attach_backend(dom, mac, document)
    with closing(Domain(dom)) as host:
        for step in plan_attach(dom, mac, backend("bridge", f"bridge='{green}'")).steps:
            if isinstance(step, Record):
                break
            step.apply(host)
    assert not guest.ping("192.0.2.1", timeout=1)
    with pytest.warns(UserWarning, match="may be plugged into another backend than bridge"):
        interfaces(dom)
    assert attach_backend(dom, mac, document).changed
    assert reaches(guest, "192.0.2.1")
    assert not attach_backend(dom, mac, document).changed
    detach_backend(dom, mac)


def test_what_a_guest_sends_while_it_is_moved_blocks_nothing(
    hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    guest.set_address(mac, "198.51.100.2/24")
    attach_backend(guest.dom, mac, backend("bridge", f"bridge='{blue}'"))
    with talking(guest):
        for bridge in (green, blue, green):
            # An announcement would make QEMU send what is queued, and hide it.
            plan = plan_attach(guest.dom, mac, backend("bridge", f"bridge='{bridge}'"), announce=False)
            carry_out_plan(
                guest.dom, plan, lambda step, _: time.sleep(0.3) if "part" in step.summary else None
            )
            assert reaches(guest, str(bridge.address).partition("/")[0])
    detach_backend(guest.dom, mac)


def dawdle(step: Step, _seconds: float) -> None:
    """Leave a NIC for a while without what it was plugged into."""
    if step.summary.startswith("part"):
        time.sleep(0.3)


@contextmanager
def talking(guest: Guest) -> Iterator[None]:
    """Have a guest send something all the time, whether it is plugged in or not."""
    guest.run(
        "touch /run/talking; (while [ -e /run/talking ]; do arping -q -c 1 -w 1 -I eth0 192.0.2.77; done &)"
    )
    yield
    guest.run("rm /run/talking")


@daemon_only
@pytest.mark.parametrize("change", ["bridge to bridge", "device to device", "bridge to device", "anew"])
def test_a_network_that_leads_elsewhere(
    libvirt_connection: libvirt.virConnect,
    hub_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
    change: str,
) -> None:
    mac, wanted = new_mac(), backend("network", "network='npelse'")
    blue, green = libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    guest = hub_guest(mac)
    guest.run("ip addr add 192.0.2.2/24 dev eth0; ip addr add 198.51.100.2/24 dev eth0")

    @contextmanager
    def network(forward: str) -> Iterator[None]:
        active = libvirt_connection.networkCreateXML(f"<network><name>npelse</name>{forward}</network>")
        try:
            yield
        finally:
            active.destroy()

    def in_bridge(name: str) -> str:
        return f"<forward mode='bridge'/><bridge name='{name}'/>"

    def on_device(name: str) -> str:
        return f"<forward mode='bridge'><interface dev='{name}'/></forward>"

    with veth("nplow", blue.name) as low, ExitStack() as stack:
        other = stack.enter_context(veth("nplow2", green.name))
        before, after = {
            "bridge to bridge": (in_bridge(blue.name), in_bridge(green.name)),
            "device to device": (on_device(low), on_device(other)),
            "bridge to device": (in_bridge(blue.name), on_device(other)),
            "anew": (on_device(other), on_device(other)),
        }[change]
        with network(before):
            attach_backend(guest.dom, mac, wanted)
            assert not attach_backend(guest.dom, mac, wanted).changed
        if change == "anew":
            stack.close()
            stack.enter_context(veth("nplow2", green.name))
        with network(after):
            with pytest.warns(UserWarning, match="plugged into network npelse, and is not where that leads"):
                interfaces(guest.dom)
            assert attach_backend(guest.dom, mac, wanted).changed
            assert not attach_backend(guest.dom, mac, wanted).changed
            assert reaches(guest, "198.51.100.1")
            detach_backend(guest.dom, mac)


@daemon_only
def test_from_a_network_that_was_stopped_to_its_device(
    libvirt_connection: libvirt.virConnect,
    hub_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    mac, green = new_mac(), libvirt_bridge("198.51.100.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "198.51.100.2/24")
    with veth("nplow", green.name) as lower:
        network = libvirt_connection.networkDefineXML(
            f"<network><name>nppool</name><forward mode='bridge' dev='{lower}'/></network>"
        )
        try:
            network.create()
            attach_backend(guest.dom, mac, backend("network", "network='nppool'"))
            network.destroy()
            assert not attach_backend(guest.dom, mac).changed
            attach_backend(guest.dom, mac, backend("direct", f"dev='{lower}' mode='bridge'"))
            assert reaches(guest, "198.51.100.1")
            detach_backend(guest.dom, mac)
        finally:
            network.undefine()


@daemon_only
def test_a_network_that_is_a_pool_of_devices(
    libvirt_connection: libvirt.virConnect,
    hub_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
) -> None:
    mac, green = new_mac(), libvirt_bridge("198.51.100.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "198.51.100.2/24")
    with veth("nplow", green.name) as lower:
        network = libvirt_connection.networkCreateXML(
            "<network><name>pool</name>"
            f"<forward mode='private'><interface dev='{lower}'/></forward></network>"
        )
        try:
            status = attach_backend(guest.dom, mac, backend("network", "network='pool'"))
            assert status.backend is not None
            assert status.backend.source == {"network": "pool"}
            assert reaches(guest, "198.51.100.1")
            # The kernel has no two macvtaps of one MAC on a device, and one of them is the pool's.
            pool = backend("network", "network='pool'")
            for mode in ("private", "passthrough"):
                attach_backend(guest.dom, mac, backend("direct", f"dev='{lower}' mode='{mode}'"))
                assert reaches(guest, "198.51.100.1")
                attach_backend(guest.dom, mac, pool)
                assert reaches(guest, "198.51.100.1")
            detach_backend(guest.dom, mac)
            assert_free(lower)
        finally:
            network.destroy()


@pytest.mark.parametrize("program", ["", "<backend type='passt'/>"])
def test_forwarded_ports(
    hub_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    libvirt_peer: PeerFactory,
    new_mac: NewMac,
    program: str,
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    libvirt_peer(blue, "192.0.2.254/24")
    run("ip", "route", "add", "default", "via", "192.0.2.254", "dev", blue.name)
    try:
        guest = hub_guest(mac)
        guest.set_address(mac, "192.0.2.1/24" if program else "10.0.2.15/24")
        guest.run("ip route add default dev eth0; (nc -l -p 80 -e cat >/dev/null 2>&1 &)")
        guest.run("until grep -q ':0050 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done")
        forwards = "".join(
            f"<portForward proto='{protocol}' address='127.0.0.1'><range start='7080' to='80'/></portForward>"
            for protocol in ("tcp", "udp")
        )
        attach_backend(guest.dom, mac, f"<backend type='user'>{program}{forwards}</backend>")
        with socket.create_connection((HERE, 7080), timeout=10) as connection:
            # The host speaks first: until then the passt of Debian 12 leaves the guest's SYN-ACK unanswered.
            connection.sendall(b"hello\n")
            assert connection.recv(100) == b"hello\n"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto(b"hello\n", (HERE, 7080))
        # Nobody listens there, and the guest's kernel counts what comes.
        wait_until(lambda: unclaimed_datagrams(guest) == 1)
        # One port more, and none that somebody else has.
        more = forwards.replace("start='7080'", "start='7080' end='7081'")
        attach_backend(guest.dom, mac, f"<backend type='user'>{program}{more}</backend>")
        assert listens(7080)
        assert listens(7081)
        taken = f"<backend type='user'>{program}{more.replace('7081', '7082')}</backend>"
        with socket.create_server((HERE, 7082)), pytest.raises(OperationError, match="7082"):
            attach_backend(guest.dom, mac, taken)
        assert listens(7080)
        assert listens(7081)
        detach_backend(guest.dom, mac)
    finally:
        run("ip", "route", "delete", "default")
