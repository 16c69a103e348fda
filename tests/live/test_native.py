"""The patched libvirt, with the tools that everybody has: virsh, update-device and XML with ``connection``.

What nicplug's plane ``native`` makes of it, the conformance suite sees.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import attach_backend, define, detach_backend, interfaces, set_link, watch
from nicplug_xml.backends import bridge, direct
from nicplug_xml.errors import OperationError
from nicplug_xml.host.connection import ensure_parking, offered_planes
from nicplug_xml.testing import commands
from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.embedded import QEMU_CONF
from nicplug_xml.testing.guest import Guest, channel_path, console_path, guest_xml, remove_domain
from tests.live.conftest import devices, emulator, everything, master, processes, run, target, wait_until
from tests.live.test_docs import COMMAND, blocks, lines
from tests.patched import prefix

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.plugin import BridgeFactory, PeerFactory

README = Path(__file__).parents[2] / "patches" / "README.md"

MAC = "52:54:00:a7:00:01"
NAME, NETWORK = "npnative", "npnativenet"
#: Who is on the bridges, on the network and behind the device, and QEMU's own user-mode network.
BLUE, GREEN, LAB, FAR, USER = "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "10.0.2.2"
EVERYBODY = (BLUE, GREEN, LAB, FAR, USER)
DEVICE = "npnativedev"


def nic(connection: str, kind: str = "", source: str = "", children: str = "") -> str:
    """Return an ``<interface>``; without a connection, as every libvirt knows it."""
    attributes = f" type='{kind}'" * bool(kind) + f" connection='{connection}'" * bool(connection)
    place = f"<source {'dev' if kind == 'direct' else kind}='{source}'/>" * bool(source)
    return (
        f"<interface{attributes}><mac address='{MAC}'/>{place}<model type='virtio'/><rom enabled='no'/>"
        f"{children}</interface>"
    )


DEFERRED = nic("deferred")
ON_BLUE, ON_GREEN = nic("attached", "bridge", "npblue"), nic("attached", "bridge", "npgreen")
ON_NETWORK = nic("attached", "network", NETWORK)


class Virsh:
    """A virsh on the patched libvirtd, and the guest that it starts.

    :param program: the virsh.
    :param daemon: the libvirtd.
    :param directory: for its files, with a short path.
    """

    def __init__(self, program: str, daemon: PrivateDaemon, directory: Path) -> None:
        self.daemon = daemon
        self._program = program
        self._directory = directory

    def __call__(self, *arguments: str) -> str:
        return commands.run([self._program, "-c", self.daemon.uri, *arguments])

    def file(self, xml: str) -> str:
        """Write a file for an argument."""
        path = self._directory / "argument.xml"
        path.write_text(xml)
        return str(path)

    def update(self, xml: str, *flags: str) -> None:
        self("update-device", NAME, self.file(xml), *(flags or ["--live"]))

    def start(self, nics: str = DEFERRED, devices_xml: str = "") -> Guest:
        """Define a guest, start it and wait until it is ready; give it an address in each network."""
        xml = guest_xml(NAME, nics, workdir=self._directory, devices_xml=devices_xml)
        self("define", "--validate", self.file(xml))
        self("start", NAME)
        guest = self.find()
        guest.wait_ready(120)
        if nics:
            set_addresses(guest)
        return guest

    def find(self) -> Guest:
        """Return the guest, after a restart of libvirtd too."""
        files = console_path(NAME, self._directory), channel_path(NAME, self._directory)
        return Guest(self.daemon.connect().lookupByName(NAME), *files)

    def interface(self, *flags: str) -> str:
        """Return the ``<interface>`` that ``dumpxml`` shows."""
        found = re.search(r"<interface.*</interface>", self("dumpxml", NAME, *flags), re.DOTALL)
        assert found
        return found[0]

    def netdevs(self) -> str:
        """Return what QEMU says of its NICs and netdevs."""
        return self("qemu-monitor-command", NAME, "--hmp", "info network")

    def ports(self) -> int:
        """Return how many ports of the network are claimed."""
        return len(self("net-port-list", NETWORK, "--uuid").split())


def set_addresses(guest: Guest) -> None:
    for address in EVERYBODY:
        guest.set_address(MAC, f"{address[:-1]}5/24")


def descriptors(guest: Guest) -> int:
    """Return how many descriptors a guest's QEMU has open."""
    (qemu,) = processes(f"guest={guest.name},")
    return len(os.listdir(f"/proc/{qemu}/fd"))


def wait_for_nic(guest: Guest, *, there: bool) -> None:
    """Wait until the guest has noticed that its NIC has come or gone."""
    deadline = time.monotonic() + 60
    while (MAC in guest.interfaces()) is not there:
        assert time.monotonic() < deadline, guest.log()
        time.sleep(0.1)


def answers(guest: Guest, expected: str = "") -> str:
    """Return who answers, of all that are there; who is expected is given time."""
    ask = "".join(f"(ping -c 1 -W 1 {address} >/dev/null && echo {address}) &\n" for address in EVERYBODY)
    for _ in range(20):
        seen = guest.run(f"{ask}wait").split()
        if not expected or expected in seen:
            break
    return " ".join(seen)


@pytest.fixture
def stock_virsh(patched_daemon: PrivateDaemon) -> Iterator[Virsh]:
    """The distribution's virsh; what it has started is gone afterwards."""
    patched_daemon.start()
    with short_directory() as directory:
        yield Virsh("virsh", patched_daemon, directory)
        for dom in patched_daemon.connect().listAllDomains():
            remove_domain(dom)


@pytest.fixture
def patched_virsh(stock_virsh: Virsh) -> Iterator[Virsh]:
    """The virsh of the series."""
    with short_directory() as directory:
        yield Virsh(str(prefix("libvirt-9.0.0") / "bin" / "virsh"), stock_virsh.daemon, directory)


@pytest.fixture
def networks(
    patched_daemon: PrivateDaemon, libvirt_bridge: BridgeFactory, libvirt_peer: PeerFactory
) -> Iterator[None]:
    """Two bridges, a libvirt network and a device, and somebody on each."""
    # The host itself would answer for each of its addresses in each of its networks.
    for name, address in (("npblue", BLUE), ("npgreen", GREEN)):
        libvirt_peer(libvirt_bridge(name=name), f"{address}/24")
    patched_daemon.start()
    patched_daemon.connect().networkCreateXML(
        f"<network><name>{NETWORK}</name><bridge name='npnativebr' stp='off' delay='0'/></network>"
    )
    libvirt_peer("npnativebr", f"{LAB}/24")
    behind = libvirt_bridge(name="npnativefar")
    libvirt_peer(behind, f"{FAR}/24")
    run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", f"{DEVICE}1")
    run("ip", "link", "set", f"{DEVICE}1", "master", str(behind), "up")
    run("ip", "link", "set", DEVICE, "up")
    yield
    run("ip", "link", "delete", DEVICE)
    patched_daemon.connect().networkLookupByName(NETWORK).destroy()


def test_two_libvirtds_run_and_one_knows_the_attribute(
    libvirt_daemon: PrivateDaemon, patched_daemon: PrivateDaemon
) -> None:
    libvirt_daemon.start()
    patched_daemon.start()
    domain = "<domain type='qemu'><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    assert not offered_planes(libvirt_daemon.connect(), domain)
    assert list(offered_planes(patched_daemon.connect(), domain)) == ["native"]


def test_one_libvirtd_alone_can_park(libvirt_daemon: PrivateDaemon, patched_daemon: PrivateDaemon) -> None:
    libvirt_daemon.start()
    patched_daemon.start()
    ensure_parking(libvirt_daemon.connect())
    # libvirt 11 would remove the other one's bridge.
    with pytest.raises(OperationError, match=r"a bridge nicplug-parknet, and .* not this .*plane hub"):
        ensure_parking(patched_daemon.connect())
    assert "nicplug-parking" not in [network.name() for network in patched_daemon.connect().listAllNetworks()]
    assert libvirt_daemon.connect().networkLookupByName("nicplug-parking").isActive()
    assert "nicplug-parknet" in devices()


@pytest.mark.parametrize(("client", "patched"), [("stock_virsh", False), ("patched_virsh", True)])
def test_a_cable_is_plugged_moved_and_pulled(
    client: str, patched: bool, networks: None, request: pytest.FixtureRequest
) -> None:
    virsh: Virsh = request.getfixturevalue(client)
    before = devices()
    guest = virsh.start(DEFERRED, emulator(request.getfixturevalue("patched_qemu")) if patched else "")
    # Not for a moment had it a carrier.
    (added, *_) = [event for event in guest.events("added") if event.fields["mac"] == MAC]
    assert added.fields["carrier"] == "down"
    assert virsh.interface().startswith("<interface connection='deferred'>")
    tap, seen = target(guest.dom, MAC), guest.nic(MAC)
    assert (master(tap), answers(guest)) == (None, "")

    virsh.update(ON_BLUE)
    guest.wait_carrier(MAC, up=True, timeout=30)
    assert (master(tap), answers(guest, BLUE)) == ("npblue", BLUE)
    virsh.update(ON_GREEN)
    assert (master(tap), answers(guest, GREEN)) == ("npgreen", GREEN)
    virsh.update(ON_NETWORK)
    assert (master(tap), answers(guest, LAB)) == ("npnativebr", LAB)
    assert virsh.interface().startswith("<interface type='network' connection='attached'>")
    assert virsh.ports() == 1

    virsh.update(nic("deferred", "network", NETWORK))
    guest.wait_carrier(MAC, up=False, timeout=30)
    assert (master(tap), answers(guest)) == (None, "")
    assert virsh.interface().startswith("<interface type='network' connection='deferred'>")
    assert virsh.ports() == 0
    # All the time it was the same NIC, and the definition was left alone.
    assert guest.nic(MAC)._replace(carrier=False) == seen
    assert virsh.interface("--inactive").startswith("<interface connection='deferred'>")
    virsh("destroy", NAME)
    assert devices() == before


DIRECT = nic("attached", "direct", DEVICE).replace("/><model", " mode='bridge'/><model")
DIRECT_PRIVATE = DIRECT.replace("'bridge'/>", "'private'/>")
DIRECT_LATER = DIRECT.replace("attached", "deferred")
USER_MODE = nic("attached", "user")
USER_LATER = nic("deferred", "user")
#: An address to listen at that is none of this host's.
ELSEWHERE = "<source address='198.18.99.9' port='5000'/>"


@pytest.mark.parametrize(
    ("started", "walk"),
    [
        (DEFERRED, ((ON_BLUE, BLUE), (DIRECT, FAR), (ON_NETWORK, LAB), (DIRECT, FAR), (DIRECT_PRIVATE, FAR))),
        (USER_LATER, ((USER_MODE, USER), (ON_BLUE, BLUE), (USER_MODE, USER), (DIRECT, FAR))),
        (nic("", "bridge", "npblue"), ((nic("", "direct", DEVICE), FAR), (nic("", "network", NETWORK), LAB))),
    ],
    ids=["no type at first", "user-mode at first", "not provisioned"],
)
def test_all_that_a_qemu_with_netdev_replace_can(
    stock_virsh: Virsh,
    patched_qemu: Path,
    networks: None,
    started: str,
    walk: tuple[tuple[str, str], ...],
) -> None:
    virsh = stock_virsh
    before = devices()
    guest = virsh.start(started, emulator(patched_qemu))
    seen = guest.nic(MAC)
    for update, expected in walk:
        virsh.update(update)
        guest.wait_carrier(MAC, up=True, timeout=30)
        assert answers(guest, expected) == expected
        virsh.daemon.restart(60)
        guest = virsh.find()
        virsh.update(update)
        assert answers(guest, expected) == expected
    virsh.update(DEFERRED)
    guest.wait_carrier(MAC, up=False, timeout=30)
    assert answers(guest) == ""
    assert virsh.ports() == 0
    assert guest.nic(MAC)._replace(carrier=seen.carrier) == seen
    virsh("destroy", NAME)
    assert devices() == before


def test_what_netdev_replace_cannot_have_changes_nothing(
    stock_virsh: Virsh, patched_qemu: Path, networks: None
) -> None:
    virsh = stock_virsh
    guest = virsh.start(DEFERRED, emulator(patched_qemu))
    for update, expected in ((DEFERRED, ""), (DIRECT, FAR), (USER_MODE, USER), (ON_NETWORK, LAB)):
        virsh.update(update)
        assert answers(guest, expected) == expected
        before, netdevs = everything(guest.dom), virsh.netdevs()
        for fails, why in (
            (nic("attached", "bridge", "np-missing"), "np-missing"),
            (nic("attached", "direct", "np-missing"), "np-missing"),
            (nic("attached", "network", "np-missing"), "no network with matching name 'np-missing'"),
            (nic("attached", "server").replace("<model", f"{ELSEWHERE}<model"), "bind"),
        ):
            with pytest.raises(OperationError, match=why):
                virsh.update(fails)
            assert everything(guest.dom) == before
            assert virsh.netdevs() == netdevs
        assert answers(guest, expected) == expected


def test_passthrough_takes_a_device_that_is_free(
    stock_virsh: Virsh, patched_qemu: Path, networks: None
) -> None:
    virsh = stock_virsh
    passthrough = DIRECT.replace("'bridge'/>", "'passthrough'/>")
    guest = virsh.start(DEFERRED, emulator(patched_qemu))
    unplugged = run("ip", "-brief", "link", "show", "dev", DEVICE)
    for update, other in ((DIRECT, passthrough), (passthrough, DIRECT)):
        virsh.update(update)
        guest.wait_carrier(MAC, up=True, timeout=30)
        assert answers(guest, FAR) == FAR
        before = everything(guest.dom)
        # The new macvtap would be made while the old one is there, which the kernel refuses; and libvirt
        # would have given the device the guest's MAC by then.
        with pytest.raises(OperationError, match=f"connection to device '{DEVICE}' while it is in use"):
            virsh.update(other)
        assert everything(guest.dom) == before
        assert answers(guest, FAR) == FAR
        virsh.update(DEFERRED)
        guest.wait_carrier(MAC, up=False, timeout=30)
        assert run("ip", "-brief", "link", "show", "dev", DEVICE).split()[2] == unplugged.split()[2]


def test_moving_on_and_on_leaves_nothing_behind(
    stock_virsh: Virsh, patched_qemu: Path, networks: None
) -> None:
    virsh = stock_virsh
    before = devices()
    guest = virsh.start(DEFERRED, emulator(patched_qemu))
    held = []
    for _ in range(4):
        for update in (ON_BLUE, DIRECT, USER_MODE, ON_NETWORK, DEFERRED):
            virsh.update(update)
        held.append((virsh.netdevs().count("\n"), descriptors(guest), len(devices())))
    assert held[1:] == held[:1] * 3
    virsh.update(USER_MODE)
    # It has negotiated offloads, which a user-mode network has not, and QEMU would not start again with.
    with pytest.raises(OperationError, match="may use offloads"):
        virsh("managedsave", NAME)
    assert answers(guest, USER) == USER
    virsh.update(DIRECT)
    for again in (["reset"], ["managedsave", "start"]):
        for command in again:
            virsh(command, NAME)
        guest = virsh.find()
        guest.wait_ready(120)
        if again == ["reset"]:
            set_addresses(guest)
        assert answers(guest, FAR) == FAR
    virsh("detach-device", NAME, virsh.file(DIRECT), "--live")
    wait_for_nic(guest, there=False)
    assert devices() == before


@pytest.mark.parametrize(
    ("started", "walk"),
    [
        (
            DIRECT_LATER,
            ((DIRECT, FAR), (USER_MODE, USER), (ON_BLUE, BLUE), (DIRECT, FAR), (DIRECT_PRIVATE, FAR)),
        ),
        (USER_LATER, ((USER_MODE, USER), (ON_NETWORK, LAB), (DIRECT, FAR), (USER_MODE, USER))),
    ],
    ids=["a device", "user-mode"],
)
def test_a_hub_holds_what_no_tap_serves(
    stock_virsh: Virsh, networks: None, started: str, walk: tuple[tuple[str, str], ...]
) -> None:
    virsh = stock_virsh
    before = devices()
    guest = virsh.start(started)
    (added, *_) = [event for event in guest.events("added") if event.fields["mac"] == MAC]
    assert added.fields["carrier"] == "down"
    assert devices() == before
    seen = guest.nic(MAC)
    for update, expected in walk:
        virsh.update(update)
        guest.wait_carrier(MAC, up=True, timeout=30)
        assert answers(guest, expected) == expected
        virsh.daemon.restart(60)
        guest = virsh.find()
        virsh.update(update)
        assert answers(guest, expected) == expected
        # Some of it needs another backend, and each time all is as before.
        unchanged, netdevs = everything(guest.dom), virsh.netdevs()
        for fails, why in (
            (nic("attached", "bridge", "np-missing"), "np-missing"),
            (nic("attached", "direct", "np-missing"), "np-missing"),
            (nic("attached", "server").replace("<model", f"{ELSEWHERE}<model"), "bind"),
        ):
            with pytest.raises(OperationError, match=why):
                virsh.update(fails)
            assert (everything(guest.dom), virsh.netdevs()) == (unchanged, netdevs)
        assert answers(guest, expected) == expected
    virsh.update(started)
    guest.wait_carrier(MAC, up=False, timeout=30)
    assert (answers(guest), virsh.ports()) == ("", 0)
    assert devices() == before
    assert virsh.netdevs().count("host") == 1
    assert guest.nic(MAC)._replace(carrier=seen.carrier) == seen


def test_moving_on_and_on_in_a_hub_leaves_nothing_behind(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    before = devices()
    guest = virsh.start(DIRECT_LATER)
    held = []
    for _ in range(4):
        for update in (ON_BLUE, DIRECT, USER_MODE, ON_NETWORK, DIRECT_LATER):
            virsh.update(update)
        held.append((virsh.netdevs().count("\n"), descriptors(guest), len(devices())))
    assert held[1:] == held[:1] * 3
    # It starts as it was saved, and a hub holds it again.
    for update, expected in ((DIRECT_LATER, ""), (USER_MODE, USER), (DIRECT, FAR)):
        virsh.update(update)
        for again in (["reset"], ["managedsave", "start"]):
            for command in again:
                virsh(command, NAME)
            guest = virsh.find()
            guest.wait_ready(120)
            if again == ["reset"]:
                set_addresses(guest)
            assert (guest.carrier(MAC), answers(guest, expected)) == (bool(expected), expected)
    virsh.update(ON_BLUE)
    virsh("managedsave", NAME)
    virsh("start", NAME)
    guest = virsh.find()
    guest.wait_ready(120)
    assert answers(guest, BLUE) == BLUE
    # A bridge takes no hub, so that a tap holds it now.
    with pytest.raises(OperationError, match="of type 'direct' in this guest: start it with"):
        virsh.update(DIRECT)
    assert answers(guest, BLUE) == BLUE
    virsh("destroy", NAME)
    assert devices() == before


def test_a_nic_in_a_hub_can_be_hot_plugged(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    before = devices()
    slot = "<controller type='pci' model='pcie-root-port'/>"
    guest = virsh.start("", f"<controller type='pci' index='0' model='pcie-root'/>{slot}{slot}")
    for plugged in (USER_LATER, DIRECT):
        virsh("attach-device", NAME, virsh.file(plugged), "--live")
        wait_for_nic(guest, there=True)
        assert guest.carrier(MAC) is (plugged == DIRECT)
        set_addresses(guest)
        for update, expected in ((DIRECT, FAR), (USER_MODE, USER)):
            virsh.update(update)
            assert answers(guest, expected) == expected
        virsh("detach-device", NAME, virsh.file(USER_MODE), "--live")
        wait_for_nic(guest, there=False)
        assert devices() == before
        assert "hostnet" not in virsh.netdevs()


def test_a_frame_that_nobody_took_keeps_no_nic_in_a_hub_waiting(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    guest = virsh.start(USER_LATER)
    with socket.create_server(("127.0.0.1", 5999)) as server:
        virsh.update(
            nic("attached", "client").replace("<model", "<source address='127.0.0.1' port='5999'/><model")
        )
        guest.wait_carrier(MAC, up=True, timeout=30)
        far, _ = server.accept()
    with far:
        # Nobody reads, until the device has to wait for room.
        guest.run("arp -s 192.0.2.77 52:54:00:00:00:77")
        flood = "setsid ping -c 80 -i 0.2 -s 60000 -W 1 192.0.2.77 >/dev/null 2>&1 </dev/null &"
        guest.run(f"{flood} {flood}")
        sent = ["", "-"]
        while sent[-1] != sent[-2]:
            time.sleep(3)
            sent.append(guest.run("cat /sys/class/net/eth0/statistics/tx_bytes"))
        virsh.update(ON_BLUE)
        assert answers(guest, BLUE) == BLUE


def test_a_tap_that_has_left_its_bridge_is_connected_again(patched_virsh: Virsh, networks: None) -> None:
    virsh = patched_virsh
    guest = virsh.start(ON_BLUE)
    tap = target(guest.dom, MAC)
    run("ip", "link", "set", tap, "nomaster")
    virsh("domif-attach-backend", NAME, MAC)
    assert answers(guest, BLUE) == BLUE
    # Where somebody has put it into another one, that has to let go of it.
    run("ip", "link", "set", tap, "master", "npgreen")
    virsh("domif-detach-backend", NAME, MAC)
    assert master(tap) is None
    virsh("domif-attach-backend", NAME, MAC)
    assert answers(guest, BLUE) == BLUE


def test_a_tap_in_a_hub_that_has_left_its_bridge_is_connected_again(
    patched_virsh: Virsh, networks: None
) -> None:
    virsh = patched_virsh
    guest = virsh.start(DIRECT_LATER)
    virsh.update(ON_BLUE)
    run("ip", "link", "set", target(guest.dom, MAC), "nomaster")
    virsh("domif-attach-backend", NAME, MAC)
    assert master(target(guest.dom, MAC)) == "npblue"
    assert answers(guest, BLUE) == BLUE


def test_a_libvirtd_that_is_killed_in_the_middle_of_a_change(
    patched_virsh: Virsh, networks: None, tmp_path: Path
) -> None:
    virsh, begun, slow = patched_virsh, tmp_path / "begun", tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\ntouch {begun}\nsleep 3\n")
    slow.chmod(0o755)
    virsh.start(USER_LATER)
    virsh.update(
        nic("attached", "ethernet", children=f"<script path='/bin/true'/><downscript path='{slow}'/>")
    )
    to_user = ("domif-attach-backend", NAME, MAC, "--type", "user")
    with ThreadPoolExecutor() as pool:
        change = pool.submit(virsh, *to_user)
        while not begun.exists():
            assert not change.done(), change.result()
            time.sleep(0.05)
        virsh.daemon.stop(kill=True)
        assert change.exception()
    virsh.daemon.start()
    # It listens before it has found out about each guest.
    wait_until(lambda: "connection='deferred'" in virsh.interface())
    virsh(*to_user)
    assert answers(virsh.find(), USER) == USER
    virsh("domif-detach-backend", NAME, MAC)
    assert virsh.netdevs().count("hostnet") <= 3


#: Each state in which an interface can be, and who answers then.
STATES = (
    (DEFERRED, ""),
    (ON_BLUE, BLUE),
    (nic("deferred", "bridge", "npblue"), ""),
    (ON_NETWORK, LAB),
    (nic("deferred", "network", NETWORK), ""),
)


def test_libvirtd_restarts(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    guest = virsh.start()
    for update, expected in STATES:
        virsh.update(update)
        assert answers(guest, expected) == expected
        shown, ports = virsh.interface(), virsh.ports()
        virsh.daemon.restart(60)
        assert virsh("domstate", NAME).strip() == "running"
        assert (virsh.interface(), virsh.ports()) == (shown, ports)
        guest = virsh.find()
        assert (guest.carrier(MAC), answers(guest, expected)) == (bool(expected), expected)


def test_saving_and_starting_keep_the_state(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    virsh.start()
    for update, expected in STATES[1:]:
        virsh.update(update)
        virsh("managedsave", NAME)
        assert virsh.ports() == 0
        virsh("start", NAME)
        guest = virsh.find()
        guest.wait_ready(120)
        assert virsh.interface().startswith(update.partition("<mac")[0])
        assert (guest.carrier(MAC), answers(guest, expected)) == (bool(expected), expected)


def test_a_start_and_a_reset_are_as_the_definition_and_the_running_guest_say(
    stock_virsh: Virsh, networks: None
) -> None:
    virsh = stock_virsh
    guest = virsh.start(ON_BLUE)
    assert answers(guest, BLUE) == BLUE
    virsh.update(nic("deferred", "bridge", "npblue"), "--live", "--config")
    assert answers(guest) == ""
    # Who knows nothing of the attribute does not take it away.
    virsh.update(nic("", "bridge", "npgreen"), "--config")
    assert virsh.interface("--inactive").startswith("<interface type='bridge' connection='deferred'>")
    assert "npgreen" in virsh.interface("--inactive")
    for start in ("reset", "destroy"):
        virsh(start, NAME)
        if start == "destroy":
            virsh("start", NAME)
            guest = virsh.find()
        guest.wait_ready(120)
        assert not guest.carrier(MAC)


def test_the_link_is_another_thing(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    guest = virsh.start()
    down = "<link state='down'/>"
    virsh("domif-setlink", NAME, MAC, "up")
    assert not guest.carrier(MAC)
    virsh.update(nic("attached", "bridge", "npblue", down))
    assert (guest.carrier(MAC), answers(guest)) == (False, "")
    assert virsh("domif-getlink", NAME, MAC).split()[-1] == "down"
    virsh.update(nic("attached", "bridge", "npgreen", down))
    assert not guest.carrier(MAC)
    virsh("domif-setlink", NAME, MAC, "up")
    guest.wait_carrier(MAC, up=True, timeout=30)
    assert answers(guest, GREEN) == GREEN
    virsh.update(DEFERRED)
    guest.wait_carrier(MAC, up=False, timeout=30)
    assert virsh("domif-getlink", NAME, MAC).split()[-1] == "up"


def test_another_link_leaves_a_nic_on_its_device_of_a_pool(stock_virsh: Virsh, networks: None) -> None:
    virsh, pool = stock_virsh, "npnativepool"
    conn = virsh.daemon.connect()
    members = "".join(f"<interface dev='{device}'/>" for device in (DEVICE, "npblue"))
    network = conn.networkCreateXML(
        f"<network><name>{pool}</name><forward mode='bridge'>{members}</forward></network>"
    )
    try:
        guest = virsh.start(DIRECT_LATER)
        virsh.update(nic("attached", "network", pool))
        macvtap = target(guest.dom, MAC)
        virsh.update(nic("attached", "network", pool, "<link state='down'/>"))
        assert target(guest.dom, MAC) == macvtap
        assert len(network.listAllPorts()) == 1
        virsh("destroy", NAME)
        assert not network.listAllPorts()
    finally:
        network.destroy()


def test_an_update_without_the_attribute_plugs_and_pulls_nothing(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    guest = virsh.start()
    virsh.update(nic("", "bridge", "npblue"))
    assert virsh.interface().startswith("<interface type='bridge' connection='deferred'>")
    assert (guest.carrier(MAC), answers(guest)) == (False, "")
    virsh.update(ON_BLUE)
    virsh.update(nic("", "bridge", "npgreen"))
    assert virsh.interface().startswith("<interface type='bridge' connection='attached'>")
    assert answers(guest, GREEN) == GREEN


def test_what_fails_changes_nothing(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    guest = virsh.start()
    for update, expected in ((DEFERRED, ""), (ON_BLUE, BLUE)):
        virsh.update(update)
        before = everything(guest.dom)
        for fails, why in (
            (nic("attached", "bridge", "np-missing"), "np-missing"),
            (nic("attached", "network", "np-missing"), "no network with matching name 'np-missing'"),
            # A tap holds it, as it has no type when the guest starts.
            (USER_MODE, "of type 'user' in this guest: start it with a deferred interface of that type"),
            (USER_LATER, "of type 'user' in this guest"),
        ):
            with pytest.raises(OperationError, match=why):
                virsh.update(fails)
            assert everything(guest.dom) == before
        assert answers(guest, expected) == expected


def test_a_move_whose_filter_fails_is_taken_back(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    guest = virsh.start(ON_BLUE)
    shown = virsh.interface()
    with pytest.raises(OperationError, match="np-missing"):
        virsh.update(nic("attached", "bridge", "npgreen", "<filterref filter='np-missing'/>"))
    assert (virsh.interface(), master(target(guest.dom, MAC))) == (shown, "npblue")
    assert answers(guest, BLUE) == BLUE


def test_a_bandwidth_that_the_kernel_may_lack(stock_virsh: Virsh, networks: None) -> None:
    """It needs qdiscs: without them libvirt fails in the middle, and has to put everything back."""
    virsh = stock_virsh
    guest = virsh.start()
    before = everything(guest.dom)
    try:
        virsh.update(nic("attached", "bridge", "npblue", "<bandwidth><inbound average='1000'/></bandwidth>"))
    except OperationError:
        assert everything(guest.dom) == before
        assert (guest.carrier(MAC), answers(guest)) == (False, "")
    else:
        assert "<inbound average='1000'/>" in virsh.interface()
        assert answers(guest, BLUE) == BLUE


def test_a_deferred_nic_can_be_hot_plugged(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    before = devices()
    # PCI Express has no slot to spare, unless asked for.
    slot = "<controller type='pci' model='pcie-root-port'/>"
    guest = virsh.start("", f"<controller type='pci' index='0' model='pcie-root'/>{slot}{slot}")
    virsh("attach-device", NAME, virsh.file(DEFERRED), "--live")
    wait_for_nic(guest, there=True)
    assert not guest.carrier(MAC)
    set_addresses(guest)
    virsh.update(ON_NETWORK)
    assert answers(guest, LAB) == LAB
    virsh("detach-device", NAME, virsh.file(ON_NETWORK), "--live")
    wait_for_nic(guest, there=False)
    assert virsh.ports() == 0
    assert devices() == before


#: Of a host that is a router: an address, and what is behind the guest.
ROUTED = {
    "ipv4": ("192.0.2.9", "198.51.100.0/24", "192.0.2.1"),
    "ipv6": ("2001:db8:9::9", "2001:db8:a::/64", "2001:db8:9::1"),
}


@pytest.mark.parametrize("family", ROUTED)
def test_a_guest_that_was_suspended_goes_on_with_addresses_of_the_host(
    stock_virsh: Virsh, family: str
) -> None:
    virsh, (host, net, gateway) = stock_virsh, ROUTED[family]
    behind, prefix = net.split("/")
    guest = virsh.start()
    route = f"<route family='{family}' address='{behind}' prefix='{prefix}' gateway='{gateway}'/>"
    source = f"<source><ip family='{family}' address='{host}' prefix='{prefix}'/>{route}</source>"
    virsh.update(nic("attached", "ethernet", children=source))
    tap = target(guest.dom, MAC)
    for _ in range(2):
        virsh("suspend", NAME)
        assert host not in run("ip", "address", "show", "dev", tap)
        assert net not in run("ip", f"-{family[3]}", "route")
        virsh("resume", NAME)
    # What somebody else has by now cannot be had, until it is free again.
    virsh("suspend", NAME)
    other = ("lo", "metric", "1", "table", "main")
    run("ip", f"-{family[3]}", "route", "add", net, "dev", *other)
    with pytest.raises(OperationError, match="adding route"):
        virsh("resume", NAME)
    run("ip", f"-{family[3]}", "route", "delete", net, "dev", *other)
    virsh("resume", NAME)
    assert gateway in run("ip", f"-{family[3]}", "route", "show", net)
    if family == "ipv4":
        assert guest.run(f"ping -c 1 -W 10 {host} >/dev/null && echo {host}").strip() == host


def test_a_script_taints_the_guest(stock_virsh: Virsh) -> None:
    virsh, tainted = stock_virsh, "opaque shell scripts"
    virsh.start()
    assert tainted not in virsh("dominfo", NAME)
    virsh.update(nic("attached", "ethernet", children="<script path='/bin/true'/>"))
    assert tainted in virsh("dominfo", NAME)


def test_a_deferred_nic_does_not_migrate_to_who_would_connect_it(
    stock_virsh: Virsh, libvirt_daemon: PrivateDaemon
) -> None:
    virsh = stock_virsh
    libvirt_daemon.start()
    guest = virsh.start()
    with pytest.raises(OperationError, match="net-deferred"):
        virsh("migrate", "--live", NAME, libvirt_daemon.uri, "--migrateuri", "tcp://127.0.0.1")
    assert not libvirt_daemon.connect().listAllDomains()
    assert virsh("domstate", NAME).strip() == "running"
    assert not guest.carrier(MAC)


def test_the_commands_that_the_series_gives_virsh(patched_virsh: Virsh, networks: None) -> None:
    virsh = patched_virsh
    guest = virsh.start()
    assert re.search(rf"vnet\d+ +- +- +virtio +{MAC}", virsh("domiflist", NAME))
    virsh("domif-attach-backend", NAME, MAC, "--type", "bridge", "--source", "npblue", "--live")
    assert answers(guest, BLUE) == BLUE
    virsh("domif-detach-backend", NAME, MAC, "--live")
    guest.wait_carrier(MAC, up=False, timeout=30)
    assert virsh.interface().startswith("<interface type='bridge' connection='deferred'>")
    virsh("domif-attach-backend", NAME, MAC, "--live")
    assert answers(guest, BLUE) == BLUE
    virsh("domif-detach-backend", NAME, MAC, "--persistent")
    virsh("domif-attach-backend", NAME, MAC, "--type", "network", "--source", NETWORK, "--persistent")
    assert answers(guest, LAB) == LAB
    assert "connection='attached'" in virsh.interface("--inactive")
    assert f"<source network='{NETWORK}'/>" in virsh.interface("--inactive")


def test_watch_tells_of_it_and_not_who_it_was(stock_virsh: Virsh, networks: None) -> None:
    virsh = stock_virsh
    guest = virsh.start()
    changes = watch(virsh.daemon.uri, reconnect=False)
    assert next(changes).kind == "connected"
    attach_backend(guest.dom, MAC, bridge.backend("npblue"))
    plugged = next(changes)
    assert (plugged.kind, plugged.by) == ("plugged", None)
    assert next(changes).kind == "carrier"
    virsh.update(DEFERRED)
    unplugged = next(changes)
    assert (unplugged.kind, unplugged.by) == ("unplugged", None)


def test_nicplug_plugs_in_again_what_has_fallen_off_its_bridge(stock_virsh: Virsh, networks: None) -> None:
    dom = stock_virsh.start(ON_BLUE).dom
    tap = target(dom, MAC)
    run("ip", "link", "set", tap, "nomaster")
    with pytest.warns(UserWarning, match="plugged into bridge npblue, and is no port"):
        interfaces(dom)
    assert set_link(dom, MAC, up=False).carrier is False
    assert attach_backend(dom, MAC, link="up").carrier is True
    assert master(tap) == "npblue"
    assert not attach_backend(dom, MAC).changed


def test_nicplug_plugs_in_what_libvirt_holds_by_a_hub(stock_virsh: Virsh, networks: None) -> None:
    guest = stock_virsh.start(USER_LATER)
    for place, expected in ((None, USER), (bridge.backend("npblue"), BLUE), (direct.backend(DEVICE), FAR)):
        status = attach_backend(guest.dom, MAC, place)
        assert (status.plane, status.connection, status.carrier) == ("native", "attached", True)
        assert answers(guest, expected) == expected
    assert detach_backend(guest.dom, MAC).connection == "deferred"
    guest.wait_carrier(MAC, up=False, timeout=30)
    assert answers(guest) == ""


def test_the_commands_of_the_readme_do_what_it_tells(libvirt_bridge: BridgeFactory) -> None:
    blue = libvirt_bridge(name="br-blue")
    with short_directory() as directory:
        for block in blocks(README):
            if block.kind == "guest":
                xml = guest_xml(block.value, block.text, workdir=directory)
                (directory / f"{block.value}.xml").write_text(xml)
            elif block.kind == "file":
                (directory / block.value).write_text(block.text)
        (session,) = [block.text for block in blocks(README) if block.kind == "run"]
        session = session.replace("$(patches/build libvirt-9.0.0)", str(prefix("libvirt-9.0.0")))
        told = [(command, output) for _, command, output in COMMAND.findall(session)]
        # A shell that sees no state but its own; and QEMU runs as root, whose file the tiny guest is.
        (directory / "qemu.conf").write_text(QEMU_CONF)
        prepare = f"cd {directory}; mount -t tmpfs none /var/lib"
        configure = "mkdir -p $state/etc/libvirt; cp qemu.conf $state/etc/libvirt"
        shown = f"ls /sys/class/net/{blue}/brif"
        script = [prepare, told[0][0], configure, *(f"echo @; {command}" for command, _ in told[1:])]
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        seen = commands.run([*own, "sh", "-c", "\n".join([*script, f"echo @; {shown}"])], timeout=120)
    *outputs, ports = seen.split("@\n")[1:]
    assert [lines(output) for output in outputs] == [lines(output) for _, output in told[1:]]
    assert ports.startswith("vnet")


def test_auto_leaves_to_libvirt_what_libvirt_can_do(stock_virsh: Virsh) -> None:
    conn = stock_virsh.daemon.connect()
    there = [DEFERRED, nic("deferred", "bridge", "npblue").replace("00:01", "00:02")]
    stream = nic("deferred", "stream").replace("<model", "<source path='/run/x'/><model")
    nics = "".join([*there, stream.replace("00:01", "00:03")])
    dom = define(conn, guest_xml(NAME, nics, workdir=Path("/tmp")))
    assert [status.plane for status in interfaces(dom)] == ["native", "native", "hub"]
    assert (
        dom.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "urn:nicplug:domain:1.0").count("<interface ") == 1
    )
    intended = interfaces(dom)[2].backend
    assert intended is not None
    assert (intended.type, intended.source["path"]) == ("stream", "/run/x")
