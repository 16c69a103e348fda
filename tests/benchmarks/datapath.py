"""Throughput and round trip of what a NIC can be plugged into, against the stock interface of that type."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from figures import Figure, Goal
from nic import nic_xml
from timing import Variant, milliseconds, numbers, side_by_side

from nicplug_xml import attach_backend, define, detach_backend
from nicplug_xml.backends import bridge, cable, direct, netdev, ovs
from nicplug_xml.errors import OperationError
from nicplug_xml.testing.commands import run
from nicplug_xml.testing.guest import Guest, boot_guest
from nicplug_xml.testing.network import Bridge, Peer
from nicplug_xml.testing.ovs import OvsBridge, PrivateOvs

if TYPE_CHECKING:
    import libvirt

WAYS = ("to the guest", "from the guest")
_PINGS, _INTERVAL = 20, 0.02
_PATIENCE = 30
#: Seconds for one run of a program, and for all runs of iperf3 that are to give one figure.
_ONE_RUN, _ALL_RUNS = 15, 150
#: Serves iperf3 in a guest. Now and then both of its sides hang at the end of a test
#: (https://github.com/esnet/iperf/pull/1527): a server has one test, and not all the time in the world.
SERVE = "mkdir -p /tmp; (while :; do timeout 100 iperf3 -s -1; done >/dev/null 2>&1 &)"

# ovs-vswitchd's netdev datapath takes frames without checksum from a tap as they are, and nothing arrives.
_NO_OFFLOADS = (
    "<driver><host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/>"
    "<guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/></driver>"
)


class FarEnd(Protocol):
    """Who the guest talks to."""

    def run(self, command: str) -> str:
        """Run a command there, and return what it prints."""


class Way(NamedTuple):
    """A way from a guest's NIC to somebody.

    :param address: the guest's, as the far end knows it.
    :param far: the far end.
    :param plug: brings the way about, before each measurement.
    """

    address: str
    far: FarEnd
    plug: Callable[[], object] = lambda: None


class _Pair(NamedTuple):
    """What is compared with what.

    :param what: nicplug's side.
    :param by: the stock side.
    :param goal: what throughput is to reach.
    """

    what: str
    nicplug: Way
    by: str
    stock: Way
    goal: Goal | None = Goal("≥", 0.95)


def measure(
    conn: libvirt.virConnect, switch: PrivateOvs, workdir: Path, rounds: int, seconds: int
) -> list[Figure]:
    """Measure on guests of its own, which are gone afterwards.

    :param conn: a libvirtd's: the embedded driver crashes when a guest ends that has stock NICs of all types.
    :param switch: an Open vSwitch, which was there before the libvirtd.
    :param workdir: for the guests' logs.
    :param rounds: how many rounds count.
    :param seconds: how long each measurement of throughput takes.
    """
    figures = []
    with ExitStack() as resources:
        for pair in _pairs(conn, switch, workdir, resources):
            own, stock = side_by_side(rounds, through(pair.nicplug, seconds), through(pair.stock, seconds))
            figures += [
                Figure(
                    f"{pair.what}, {way}", numbers(own[way], "Mb/s", more_is_better=True),
                    numbers(stock[way], "Mb/s", more_is_better=True), pair.by, goal=pair.goal,
                )
                for way in WAYS
            ]  # fmt: skip
            trip = "round trip"
            figures.append(
                Figure(f"{pair.what}, {trip}", milliseconds(own[trip]), milliseconds(stock[trip]), pair.by)
            )
    return figures


def _pairs(
    conn: libvirt.virConnect, switch: PrivateOvs, workdir: Path, resources: ExitStack
) -> Iterator[_Pair]:
    blue = resources.enter_context(closing(Bridge()))
    patch = resources.enter_context(closing(Bridge()))
    open_vswitch = resources.enter_context(closing(OvsBridge(switch)))
    lower, wire, port = (
        resources.enter_context(closing(_Wire(address))) for address in (_far(2), _far(4), _far(14))
    )
    run(["ip", "link", "set", port.here, "master", patch.name])
    on_blue = resources.enter_context(closing(Peer(blue, _far(1))))
    on_ovs = open_vswitch.peer(_far(3))
    for peer, number in ((on_blue, 11), (lower, 12), (on_ovs, 13), (on_blue, 6)):
        peer.run(["ip", "address", "add", _far(number), "dev", peer.device])

    stock = {
        11: nic_xml(_mac(11), "type='bridge'", f"<source bridge='{blue}'/>"),
        12: nic_xml(_mac(12), "type='direct'", f"<source dev='{lower.here}' mode='bridge'/>"),
        13: nic_xml(
            _mac(13), "type='bridge'",
            f"<source bridge='{open_vswitch}'/><virtualport type='openvswitch'/>{_NO_OFFLOADS}",
        ),
        14: nic_xml(_mac(14), "type='bridge'", f"<source bridge='{patch}'/>"),
    }  # fmt: skip
    boot = _booting(conn, workdir, resources)
    guest = boot("path", nic_xml(_mac(1)) + "".join(stock.values()), "tap")
    other = boot("path-far", nic_xml(_mac(5)) + _on(blue, 15), "tap")
    for number in (1, 2, 3, 4, 5):
        guest.set_address(_mac(1), _near(number))
    for number in stock:
        guest.set_address(_mac(number), _near(number))
    guest.set_address(_mac(11), _near(15))
    other.set_address(_mac(5), _far(5))
    other.set_address(_mac(15), _far(15))

    def plugged(backend: object) -> Callable[[], object]:
        return lambda: attach_backend(guest.dom, _mac(1), backend)

    def own(number: int, far: FarEnd, backend: object) -> Way:
        return Way(_host(_near(number)), far, plugged(backend))

    def theirs(number: int, far: FarEnd) -> Way:
        return Way(_host(_near(number)), far)

    yield _Pair(
        "bridge",
        own(1, Outside(on_blue), bridge.backend(blue.name)),
        "stock tap in it",
        theirs(11, Outside(on_blue)),
    )
    yield _Pair(
        "direct",
        own(2, Outside(lower), direct.backend(lower.here)),
        "stock macvtap",
        theirs(12, Outside(lower)),
    )
    yield _Pair(
        "ovs",
        own(3, Outside(on_ovs), ovs.backend(open_vswitch.name)),
        "stock tap in it, no offloads",
        theirs(13, Outside(on_ovs)),
    )
    yield _Pair(
        "netdev",
        own(4, Outside(wire), netdev.backend(wire.here)),
        "stock tap and such a device in a bridge",
        theirs(14, Outside(port)),
    )
    yield _Pair(
        "cable", own(5, Inside(other), cable.backend(other.name, _mac(5))),
        "two stock taps in a bridge", theirs(15, Inside(other)),
    )  # fmt: skip
    other.remove()
    detach_backend(guest.dom, _mac(1))
    held = boot("path-hub", nic_xml(_mac(6)), "hub")
    held.set_address(_mac(6), _near(6))
    attach_backend(held.dom, _mac(6), bridge.backend(blue.name))
    yield _Pair(
        "bridge on plane hub", Way(_host(_near(6)), Outside(on_blue)),
        "stock tap in it", theirs(11, Outside(on_blue)), goal=None,
    )  # fmt: skip


def _booting(
    conn: libvirt.virConnect, workdir: Path, resources: ExitStack
) -> Callable[[str, str, str], Guest]:
    def boot(name: str, nics: str, plane: str) -> Guest:
        guest = boot_guest(
            conn, name, nics, workdir=workdir, define=lambda conn, xml: define(conn, xml, plane=plane)
        )
        resources.callback(guest.remove)
        guest.wait_ready()
        guest.run(SERVE)
        return guest

    return boot


def through(path: Way, seconds: int) -> Variant:
    def variant() -> dict[str, float]:
        path.plug()
        _until_answered(path)
        client = f"iperf3 -c {path.address} -t {seconds} -J"
        measured = {}
        for way, option in zip(WAYS, ("", " -R"), strict=True):
            measured[way] = _received(path, client + option)
        pings = path.far.run(f"ping -c {_PINGS} -i {_INTERVAL} {path.address}")
        trips = [float(found) for found in re.findall(r"time=([\d.]+) ms", pings)]
        measured["round trip"] = statistics.median(trips) / 1000
        return measured

    return variant


def _received(path: Way, command: str) -> float:
    """Return how many Mb/s have arrived."""
    deadline = time.monotonic() + _ALL_RUNS
    while True:
        # Where the guest is slow, its server is still busy with the last one, or not there yet.
        said = ""
        try:
            report = json.loads(path.far.run(command))
            if "error" not in report:
                return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6
            said = report["error"]
        except OperationError as error:
            said = str(error)
        if time.monotonic() > deadline:
            raise RuntimeError(f"'{command}' fails: {said}")
        time.sleep(0.2)


def _until_answered(path: Way) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            path.far.run(f"ping -c 2 -W 1 {path.address}")
            return
        except OperationError:
            if time.monotonic() > deadline:
                raise


class Outside:
    """A peer of the guest's."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def run(self, command: str) -> str:
        """Run a command there, and return what it prints."""
        return self._peer.run(command.split(), timeout=_ONE_RUN)


class Inside:
    """Another guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def run(self, command: str) -> str:
        """Run a command there, and return what it prints."""
        # Ended there: a guest that did not answer at all would be another thing.
        return self._guest.run(f"timeout {_ONE_RUN} {command}", timeout=2 * _ONE_RUN)


class _Wire(Peer):
    """A network namespace at the other end of a veth pair, with no bridge between.

    :param address: its address with the length of the prefix.
    """

    def __init__(self, address: str) -> None:
        super().__init__("", address)

    @property
    def here(self) -> str:
        """The name of the end that is on this side."""
        return self._port

    def _connect(self, bridge: str) -> None:
        network = self._descriptor()
        far = ["peer", "name", self.device, "netns", f"/proc/self/fd/{network}"]
        run(["ip", "link", "add", self._port, "up", "type", "veth", *far], pass_fds=[network])
        self.run(["ip", "address", "add", self.address, "dev", self.device])
        self.run(["ip", "link", "set", self.device, "up"])


def _on(bridged: Bridge, number: int) -> str:
    return nic_xml(_mac(number), "type='bridge'", f"<source bridge='{bridged}'/>")


def _mac(number: int) -> str:
    return f"52:54:00:00:01:{number:02x}"


# Each way has a network of its own, in which the guest is number 2 and the far end number 1.
def _near(number: int) -> str:
    return f"10.99.{number}.2/24"


def _far(number: int) -> str:
    return f"10.99.{number}.1/24"


def _host(address: str) -> str:
    return address.partition("/")[0]
