"""Plane swap: throughput after a replacement, the command itself, frames lost by a move, and a picture."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import chart
import datapath
from figures import Compare, Figure, Goal
from nic import nic_xml
from timing import Variant, milliseconds, numbers, side_by_side, timed

from nicplug_xml import attach_backend, define, detach_backend
from nicplug_xml.backends import bridge, direct, user
from nicplug_xml.testing.commands import program, run
from nicplug_xml.testing.guest import Guest, boot_guest
from nicplug_xml.testing.network import Bridge, Peer

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.model import Backend

_MAC, _BRIDGED, _DIRECT, _USER = (f"52:54:00:00:02:0{number}" for number in range(1, 5))
_NEAR, _FAR = "203.0.113.2", "203.0.113.254"

#: Small packets each second, how many bytes each, for how long, and how often the guest is moved meanwhile.
_RATE, _SIZE, _SECONDS, _MOVES = 10_000, 64, 4, 10

#: The picture: how long each stay takes, and the one without a cable.
_STAY, _UNPLUGGED = 4.0, 2.0
_STEP = 0.2


class _Lab(NamedTuple):
    """Two bridges and a device that all lead to the same peer."""

    blue: Bridge
    green: Bridge
    device: str
    peer: Peer


def measure(conn: libvirt.virConnect, emulator: Path, workdir: Path, rounds: int) -> list[Figure]:
    """Measure on a guest of its own, which is gone afterwards.

    :param conn: a libvirtd's.
    :param emulator: a QEMU that has netdev-replace.
    :param workdir: for the guest's log.
    :param rounds: how many rounds count.
    """
    with _lab() as lab, _guest(conn, emulator, workdir, lab) as guest:
        with _server():
            figures = list(_throughput(guest, lab, rounds))
        figures += [_command(guest, lab, 10 * rounds), *_lost(guest, lab, rounds)]
    return figures


def draw(conn: libvirt.virConnect, emulator: Path, workdir: Path, picture: Path) -> None:
    """Draw how a TCP stream fares while a guest's NIC moves from place to place; see `measure`.

    :param picture: the file to write it to.
    """
    with _lab() as lab, _guest(conn, emulator, workdir, lab) as guest:
        moves: list[tuple[str, Backend | None, float]] = [
            ("macvtap", direct.backend(lab.device), _STAY),
            ("another bridge", bridge.backend(lab.green.name), _STAY),
            ("unplugged", None, _UNPLUGGED),
            ("plugged in again", bridge.backend(lab.blue.name), _STAY + 2),
        ]
        # The next server has all of its time for this stream.
        guest.run("killall iperf3")
        attach_backend(guest.dom, _MAC, bridge.backend(lab.blue.name))
        _until_reached(guest)
        seconds = round(_STAY + sum(stay for _, _, stay in moves))
        stream = f"iperf3 -c {_NEAR} -t {seconds} -i {_STEP} -J".split()
        with ThreadPoolExecutor(1) as executor:
            before = _sent(lab.peer)
            streaming = executor.submit(lab.peer.run, stream, timeout=seconds + 60)
            # iperf3 does not say to the second when it begins, and on a busy machine that takes its time.
            while _sent(lab.peer) < before + 500_000 and not streaming.done():
                time.sleep(0.01)
            started = time.monotonic()
            marks = [chart.Mark(0.0, "bridge")]
            stay = _STAY
            for name, place, following in moves:
                time.sleep(max(0.0, started + marks[-1].at + stay - time.monotonic()))
                marks.append(chart.Mark(time.monotonic() - started, name))
                if place is None:
                    detach_backend(guest.dom, _MAC)
                else:
                    attach_backend(guest.dom, _MAC, place)
                stay = following
            report = json.loads(streaming.result())
    if "error" in report:
        raise RuntimeError(f"the stream did not survive: {report['error']}")
    speeds = [(found["sum"]["end"], found["sum"]["bits_per_second"] / 1e6) for found in report["intervals"]]
    title = "One TCP stream to a guest whose NIC is moved and unplugged (Mb/s, seconds)"
    picture.write_text(chart.line(title, speeds, marks))


class _Kind(NamedTuple):
    """A kind of backend.

    :param name: what it is called.
    :param backend: one of that kind.
    :param far: who connects.
    :param own: whom to, through the NIC on plane swap.
    :param stock: whom to, through a stock NIC on such a backend.
    :param ways: which way data goes then, and which way at iperf3's ``-R``.
    """

    name: str
    backend: Backend
    far: datapath.FarEnd
    own: str
    stock: str
    ways: tuple[str, ...] = datapath.WAYS


def _throughput(guest: Guest, lab: _Lab, rounds: int) -> Iterator[Figure]:
    """Compare what the NIC was moved to with stock NICs of the same guest that had it from the start."""
    outside, from_inside = datapath.Outside(lab.peer), datapath.WAYS[::-1]
    # Each has a network of its own, that the answers come by the way of the questions.
    for network, mac in (("192.0.2", _BRIDGED), ("198.51.100", _DIRECT)):
        lab.peer.run(["ip", "address", "add", f"{network}.254/24", "dev", lab.peer.device])
        guest.set_address(mac, f"{network}.2/24")
    guest.set_address(_MAC, "10.0.2.15/24")
    guest.set_address(_USER, "172.17.2.15/24")
    for kind in (
        _Kind("bridge", bridge.backend(lab.blue.name), outside, _NEAR, "192.0.2.2"),
        _Kind("direct", direct.backend(lab.device), outside, _NEAR, "198.51.100.2"),
        _Kind("user", user.backend(), datapath.Inside(guest), "10.0.2.2", "172.17.2.2", from_inside),
    ):

        def plug(backend: Backend = kind.backend) -> None:
            # Each time from elsewhere: what is measured is what comes after a replacement.
            attach_backend(guest.dom, _MAC, bridge.backend(lab.green.name), announce=False)
            attach_backend(guest.dom, _MAC, backend)

        own, stock = side_by_side(
            rounds,
            datapath.through(datapath.Way(kind.own, kind.far, plug), 1),
            datapath.through(datapath.Way(kind.stock, kind.far), 1),
        )
        yield from (
            Figure(
                f"{kind.name} after netdev-replace, {way}", numbers(own[said], "Mb/s", more_is_better=True),
                numbers(stock[said], "Mb/s", more_is_better=True), "a stock NIC on the same QEMU",
                goal=Goal("≥", 0.97),
            )
            for said, way in zip(datapath.WAYS, kind.ways, strict=True)
        )  # fmt: skip


def _command(guest: Guest, lab: _Lab, rounds: int) -> Figure:
    """Time the monitor command alone, between two netdevs that are there."""
    attach_backend(guest.dom, _MAC, bridge.backend(lab.blue.name), announce=False)
    (nic,) = (found for found in _asked(guest, "query-nics") if found["mac"] == _MAC)
    spare = {"type": "unconnected", "id": "spare"}
    _asked(guest, "netdev_add", spare)

    def replace() -> dict[str, float]:
        times = []
        for netdev in ("spare", nic["netdev"]):
            request = {"id": nic["name"], "netdev": netdev, "flap": False}
            times.append(timed(lambda request=request: _asked(guest, "netdev-replace", request)))
        return {"took": sum(times) / len(times)}

    def nothing() -> dict[str, float]:
        return {"took": timed(lambda: _asked(guest, "query-status"))}

    own, trip = side_by_side(rounds, replace, nothing)
    _asked(guest, "netdev_del", {"id": "spare"})
    return Figure(
        "netdev-replace", milliseconds(own["took"]), milliseconds(trip["took"]), "QMP round trip",
        Compare.MORE, Goal("≤", 2, "ms more"),
    )  # fmt: skip


def _lost(guest: Guest, lab: _Lab, rounds: int) -> Iterator[Figure]:
    """Count what gets lost of small packets that the guest sends at an even pace, per move."""
    places = [bridge.backend(lab.green.name), bridge.backend(lab.blue.name)]
    attach_backend(guest.dom, _MAC, places[-1])
    _until_reached(guest)
    pace = f"-u -b {_RATE * _SIZE * 8} -l {_SIZE} -t {_SECONDS} --pacing-timer 100"

    def sending(moves: int) -> Variant:
        def once() -> dict[str, float]:
            sent, arrived = _datagrams(guest.run), _datagrams(datapath.Outside(lab.peer).run)
            with ThreadPoolExecutor(2) as executor:
                receiving = executor.submit(lab.peer.run, ["iperf3", "-s", "-1"], timeout=_SECONDS + 60)
                time.sleep(0.5)
                client = f"iperf3 -c {_FAR} {pace} >/dev/null"
                sending = executor.submit(guest.run, client, timeout=_SECONDS + 30)
                for number in range(moves):
                    time.sleep(_SECONDS / (moves + 2))
                    attach_backend(guest.dom, _MAC, places[number % 2], announce=False)
                sending.result()
                receiving.result()
            count = _datagrams(guest.run)["OutDatagrams"] - sent["OutDatagrams"]
            now = _datagrams(datapath.Outside(lab.peer).run)
            # What iperf3 itself is too slow to take has arrived, too.
            lost = count - sum(now[what] - arrived[what] for what in ("InDatagrams", "NoPorts", "InErrors"))
            return {"lost": lost / _MOVES, "rate": count / _SECONDS}

        return once

    moved, still = side_by_side(rounds, sending(_MOVES), sending(0))
    rate = numbers(moved["rate"], "frames").median
    yield Figure(
        f"netdev-replace, frames lost by a move at {rate:.0f} a second", numbers(moved["lost"], "frames"),
        numbers(still["lost"], "frames"), "no move", Compare.MORE, Goal("≤", _RATE / 1000, "more"),
    )  # fmt: skip


def _datagrams(run: Callable[[str], str]) -> dict[str, int]:
    """Return the kernel's counters of UDP."""
    names, values = (line.split()[1:] for line in run("grep Udp: /proc/net/snmp").splitlines())
    return dict(zip(names, map(int, values), strict=True))


@contextmanager
def _server() -> Iterator[None]:
    """Run an iperf3 here, which is where user-mode networks lead to."""
    with subprocess.Popen([program("iperf3"), "-s"], stdout=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.kill()


@contextmanager
def _lab() -> Iterator[_Lab]:
    with ExitStack() as resources:
        blue, green = (resources.enter_context(closing(Bridge())) for _ in range(2))
        for name, places in (("np-patch", (blue, green)), ("np-low", (None, blue))):
            run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-1"])
            resources.callback(run, ["ip", "link", "delete", name])
            for end, place in zip((name, f"{name}-1"), places, strict=True):
                master = ["master", place.name] if place else []
                run(["ip", "link", "set", end, *master, "up"])
        yield _Lab(blue, green, "np-low", resources.enter_context(closing(Peer(blue, f"{_FAR}/24"))))


@contextmanager
def _guest(conn: libvirt.virConnect, emulator: Path, workdir: Path, lab: _Lab) -> Iterator[Guest]:
    """Boot a guest with a NIC on plane swap, and a stock one of each kind that it is compared with."""
    nics = (
        nic_xml(_MAC),
        nic_xml(_BRIDGED, "type='bridge'", f"<source bridge='{lab.blue}'/>"),
        nic_xml(_DIRECT, "type='direct'", f"<source dev='{lab.device}' mode='bridge'/>"),
        nic_xml(_USER, "type='user'", "<ip family='ipv4' address='172.17.2.0' prefix='24'/>"),
    )
    guest = boot_guest(
        conn, "swap", "".join(nics), workdir=workdir, devices_xml=f"<emulator>{emulator}</emulator>",
        define=lambda conn, xml: define(conn, xml, plane="swap"),
    )  # fmt: skip
    try:
        guest.wait_ready()
        guest.set_address(_MAC, f"{_NEAR}/24")
        # All NICs are in one network: each is to answer for its own address alone.
        guest.run(f"echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; {datapath.SERVE}")
        yield guest
    finally:
        guest.remove()


def _asked(guest: Guest, command: str, arguments: dict[str, object] | None = None) -> list[dict[str, str]]:
    import libvirt_qemu

    request = json.dumps({"execute": command, "arguments": arguments or {}})
    reply = json.loads(libvirt_qemu.qemuMonitorCommand(guest.dom, request, 0))
    if "error" in reply:
        raise RuntimeError(f"QEMU refuses {request}: {reply['error']}")
    return reply["return"]  # type: ignore[no-any-return]


def _sent(peer: Peer) -> int:
    (device,) = json.loads(peer.run(["ip", "-json", "-stats", "link", "show", "dev", peer.device]))
    return int(device["stats64"]["tx"]["bytes"])


def _until_reached(guest: Guest) -> None:
    guest.wait_carrier(_MAC, up=True)
    if not guest.ping(_FAR, count=20):
        raise RuntimeError(f"guest {guest.name} cannot reach the peer")
