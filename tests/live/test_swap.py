"""Plane swap: what a QEMU with netdev-replace makes possible; what it has in common with hub: test_hub."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import (
    Connection,
    OperationError,
    UnsupportedError,
    attach_backend,
    define,
    detach_backend,
    interfaces,
    xml_desc,
)
from nicplug_xml.backends import bridge, direct, user
from nicplug_xml.testing.network import Peer
from tests.live.conftest import (
    devices,
    emulator,
    everything,
    identity,
    interface_xml,
    processes,
    run,
    veth,
    wait_until,
)
from tests.live.test_hub import held, info_network

if TYPE_CHECKING:
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.network import Bridge
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

NewMac = Callable[[], str]
NewGuest = Callable[..., "Guest"]

GUEST, PEER = "192.0.2.2", "192.0.2.254"
embedded_only = pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)


@pytest.fixture
def swap_guest(
    libvirt_guest: GuestFactory, nic_xml: Callable[..., str], patched_qemu: Path
) -> Callable[..., Guest]:
    """A factory of running guests with one NIC that has offloads, and as many processors as queues."""

    def make(mac: str, queues: int = 1, children: str = "", plane: str = "swap") -> Guest:
        driver = f"<driver name='qemu' queues='{queues}'/>" if queues > 1 else ""

        def made(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain:
            return define(conn, xml.replace("<vcpu>1<", f"<vcpu>{queues}<"), plane=plane)

        return libvirt_guest(nic_xml(mac, driver + children), define=made, devices_xml=emulator(patched_qemu))

    return make


class Lab:
    """One network that is reached by two bridges and a device, and somebody in it."""

    def __init__(self, blue: Bridge, green: Bridge, device: str, peer: Peer) -> None:
        self.blue = bridge.backend(blue.name)
        self.green = bridge.backend(green.name)
        self.macvtap = direct.backend(device)
        self.peer = peer


@pytest.fixture
def lab(libvirt_bridge: BridgeFactory) -> Iterator[Lab]:
    """A lab; all of its ways lead to the same peer."""
    blue, green = libvirt_bridge(), libvirt_bridge()
    with ExitStack() as stack:
        patch = stack.enter_context(veth("nppatch", blue.name))
        run("ip", "link", "set", patch, "master", green.name)
        device = stack.enter_context(veth("nplow", blue.name))
        peer = stack.enter_context(closing(Peer(blue, f"{PEER}/24")))
        yield Lab(blue, green, device, peer)


class Stream:
    """iperf3 from a peer to a guest over one TCP connection, for as long as the block runs."""

    def __init__(self, guest: Guest, peer: Peer, seconds: int) -> None:
        # It goes into the background before it listens, on port 0x1451.
        listens = "until grep -q ':1451 .* 0A ' /proc/net/tcp*; do sleep 0.1; done"
        guest.run(f"mkdir -p /tmp; pgrep iperf3 || iperf3 -s -D; {listens}")
        self._guest = guest
        self._report: dict[str, object] = {}
        command = ["iperf3", "-c", GUEST, "-t", str(seconds), "-J"]
        self._client = threading.Thread(target=self._run, args=(peer, command, seconds + 60))

    def _run(self, peer: Peer, command: list[str], timeout: int) -> None:
        try:
            self._report = json.loads(peer.run(command, timeout=timeout))
        except OperationError as error:
            self._report = {"error": str(error)}

    def __enter__(self) -> Stream:
        self._client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.join()

    def runs(self) -> bool:
        """Whether it has not come to its end."""
        return self._client.is_alive()

    def flows(self) -> None:
        """See that data arrives, within 20 seconds."""
        at_first, deadline = self._received(), time.monotonic() + 20
        while self._received() < at_first + 1_000_000:
            assert time.monotonic() < deadline, "nothing arrives any more"
            assert self.runs(), self._report

    def stands_still(self) -> None:
        """See that nothing arrives for two seconds."""
        at_first = self._received()
        time.sleep(2)
        assert self._received() == at_first

    def survived(self) -> None:
        """See, after the block, that it was one connection from the beginning to the end."""
        assert "error" not in self._report, self._report.get("error")
        assert len(self._report["start"]["connected"]) == 1  # type: ignore[index, arg-type]
        assert self._report["end"]["sum_received"]["bytes"] > 0  # type: ignore[index]

    def _received(self) -> int:
        return int(self._guest.run("cat /sys/class/net/eth0/statistics/rx_bytes"))


def offloads(guest: Guest) -> str:
    """Return the features that a guest has negotiated with its NIC."""
    return guest.run("cat /sys/class/net/eth0/device/features").strip()


@embedded_only
@pytest.mark.parametrize("queues", [1, 2])
def test_a_stream_survives_every_move(swap_guest: NewGuest, lab: Lab, new_mac: NewMac, queues: int) -> None:
    mac = new_mac()
    guest = swap_guest(mac, queues)
    guest.set_address(mac, f"{GUEST}/24")
    nic, offered = identity(guest, mac), offloads(guest)
    assert not guest.carrier(mac)
    for feature in (0, 1, 7, 11):  # checksums both ways, TSO both ways (virtio's NET_F_CSUM and so on)
        assert offered[feature] == "1"
    attach_backend(guest.dom, mac, lab.blue)
    guest.wait_carrier(mac, up=True)
    assert guest.run("ls -d /sys/class/net/eth0/queues/tx-* | wc -l").strip() == str(queues)
    with Stream(guest, lab.peer, 40) as stream:
        stream.flows()
        for place in (lab.macvtap, lab.green):
            attach_backend(guest.dom, mac, place)
            stream.flows()
        detach_backend(guest.dom, mac)
        guest.wait_carrier(mac, up=False)
        stream.stands_still()
        attach_backend(guest.dom, mac, lab.blue)
        guest.wait_carrier(mac, up=True)
        stream.flows()
    stream.survived()
    assert (identity(guest, mac), offloads(guest)) == (nic, offered)
    # A seamless move is not seen: down and up once, between detaching and attaching.
    changes = [event.fields["carrier"] for event in guest.events("carrier") if event.fields["mac"] == mac]
    assert changes == ["up", "down", "up"]


def heap(pid: int) -> int:
    """Return how many bytes a process has on the heap, where QEMU's netdevs are."""
    found = re.search(r"^(\w+)-(\w+) .*\[heap\]$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[2], 16) - int(found[1], 16)


@embedded_only
def test_a_thousand_replacements_under_load_leave_nothing(
    swap_guest: NewGuest, lab: Lab, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = swap_guest(mac)
    guest.set_address(mac, f"{GUEST}/24")
    before, ours = held(guest), len(os.listdir("/proc/self/fd"))
    attach_backend(guest.dom, mac, lab.blue)
    (qemu,) = processes(f"guest={guest.name},")
    places = (lab.green, lab.macvtap, lab.blue)
    moves, sizes = 0, []
    while moves < 1_000:
        with Stream(guest, lab.peer, 20) as stream:
            while stream.runs() and moves < 1_000:
                attach_backend(guest.dom, mac, places[moves % 3], announce=False)
                moves += 1
        sizes.append(heap(qemu))
    assert guest.ping(PEER, count=20)
    detach_backend(guest.dom, mac)
    assert held(guest) == before
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= ours)
    # A netdev has some 70 KB.
    assert sizes[-1] - sizes[0] < 2**20


@pytest.mark.parametrize("plane", ["swap", "auto"])
def test_a_qemu_without_the_command_is_refused_or_passed_over(
    libvirt_connection: libvirt.virConnect,
    libvirt_guest: GuestFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
    plane: str,
) -> None:
    nic = nic_xml(new_mac(), attributes="connection='deferred' type='user'")

    def define_it(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain:
        return define(conn, xml, plane=plane)

    if plane == "swap":
        with pytest.raises(
            UnsupportedError, match=r"plane 'swap' takes a QEMU that has netdev-replace, and /"
        ):
            libvirt_guest(nic, define=define_it, name="npstock")
        assert "npstock" not in [dom.name() for dom in libvirt_connection.listAllDomains()]
    else:
        assert interfaces(libvirt_guest(nic, define=define_it, timeout=None).dom)[0].plane == "hub"


@embedded_only
def test_auto_takes_it_for_what_no_tap_can_be(
    libvirt_guest: GuestFactory, nic_xml: Callable[..., str], patched_qemu: Path, new_mac: NewMac
) -> None:
    kinds = {"": "tap", "type='user'": "swap"}
    nics = [nic_xml(new_mac(), attributes=f"connection='deferred' {kind}") for kind in kinds]
    guest = libvirt_guest("".join(nics), define=define, devices_xml=emulator(patched_qemu), timeout=None)
    assert [status.plane for status in interfaces(guest.dom)] == list(kinds.values())


def test_what_has_one_queue_leaves_a_nic_with_two_as_it_was(
    swap_guest: NewGuest, lab: Lab, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = swap_guest(mac, queues=2)
    guest.set_address(mac, f"{GUEST}/24")
    for prepare in (lambda: None, lambda: attach_backend(guest.dom, mac, lab.macvtap)):
        prepare()
        before = everything(guest.dom), held(guest)
        with pytest.raises(UnsupportedError, match="has 2 queues, and such a backend has one"):
            attach_backend(guest.dom, mac, user.backend())
        assert (everything(guest.dom), held(guest)) == before
    assert guest.ping(PEER, count=3)


@embedded_only
def test_a_tap_of_the_callers_has_as_many_queues(swap_guest: NewGuest, lab: Lab, new_mac: NewMac) -> None:
    mac = new_mac()
    guest = swap_guest(mac, queues=2)
    guest.set_address(mac, f"{GUEST}/24")
    run("ip", "tuntap", "add", "dev", "npqueues", "mode", "tap", "multi_queue", "vnet_hdr")
    try:
        run("ip", "link", "set", "npqueues", "master", lab.blue.source["bridge"], "up")
        queues = [os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK) for _ in range(2)]
        for queue in queues:
            fcntl.ioctl(queue, 0x400454CA, struct.pack("16sH22x", b"npqueues", 0x5102))
        other = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(other, 0x400454CA, struct.pack("16sH22x", b"npother", 0x1102))
        before = everything(guest.dom), held(guest)
        ours, its = socket.socketpair()
        with ours, its:
            for odd, said in ((its.fileno(), "a socket has one queue"), (other, "not the queues of one tap")):
                with pytest.raises(UnsupportedError, match=said):
                    attach_backend(guest.dom, mac, fds=(queues[0], odd))
                assert (everything(guest.dom), held(guest)) == before
        os.close(other)
        attach_backend(guest.dom, mac, fds=queues)
        for queue in queues:
            os.close(queue)
        guest.wait_carrier(mac, up=True)
        assert guest.ping(PEER, count=20)
        detach_backend(guest.dom, mac)
    finally:
        run("ip", "link", "delete", "npqueues")


@pytest.mark.parametrize("plugged", [False, True])
def test_libvirts_own_detach_device_finds_what_it_made(
    swap_guest: NewGuest, lab: Lab, new_mac: NewMac, plugged: bool
) -> None:
    mac, before = new_mac(), devices()
    guest = swap_guest(mac)
    attach_backend(guest.dom, mac, lab.blue)
    if not plugged:
        detach_backend(guest.dom, mac)
    (status,) = interfaces(guest.dom)
    guest.dom.detachDeviceFlags(interface_xml(guest.dom), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    wait_until(lambda: "<interface" not in guest.dom.XMLDesc().partition("<devices>")[2])
    assert mac not in guest.interfaces()
    assert f"host{status.alias}" not in info_network(guest.dom)
    # What libvirt knows nothing of lives as long as QEMU does.
    assert len(devices()) == len(before) + plugged
    with pytest.warns(UserWarning, match=f"names an interface {status.alias}, which it does not have"):
        assert not interfaces(guest.dom)
    guest.remove()
    assert devices() == before


def test_managedsave_keeps_what_the_guest_has_negotiated(
    swap_guest: NewGuest, lab: Lab, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = swap_guest(mac, queues=2)
    guest.set_address(mac, f"{GUEST}/24")
    offered = offloads(guest)
    attach_backend(guest.dom, mac, lab.blue)
    assert guest.ping(PEER, count=3)
    guest.dom.managedSave()
    guest.dom.create()
    guest.wait_ready()
    (status,) = interfaces(guest.dom)
    assert (status.connection, status.carrier) == (Connection.DEFERRED, False)
    assert status.backend is not None
    assert status.backend.source == lab.blue.source
    guest.wait_carrier(mac, up=False)
    assert "connection='deferred'" in xml_desc(guest.dom)
    assert attach_backend(guest.dom, mac).carrier
    guest.wait_carrier(mac, up=True)
    assert guest.ping(PEER, count=3)
    assert offloads(guest) == offered
