"""What the live tests share. What they check, they see from the guest, with ip, or in libvirt's own XML."""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from nicplug_xml import OperationError, create, define, xml_desc
from tests.patched import prefix

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import GuestFactory

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")

NIC = """<interface {attributes}>
  <mac address='{mac}'/>{children}
  <model type='virtio'/>
  <rom enabled='no'/>
</interface>"""

PARKING = {"nicplug-park", "nicplug-parknet"}

#: Flags of a device that the kernel takes from its carrier, up to a second later.
_OF_CARRIER = ("NO-CARRIER", "LOWER_UP")

#: What differs from one look at a device to the next without anybody changing it.
_VOLATILE = ("stats", "stats64", "bridge_id", "root_id", "gc_timer", "hello_timer", "tcn_timer",
             "topology_change_timer", "hold", "message_age_timer",
    "forward_delay_timer", "state", "operstate", "tso_max_size")  # fmt: skip


@pytest.fixture(scope="session")
def patched_daemon(libvirt_isolated: None) -> Iterator[PrivateDaemon]:
    """A libvirtd that has our patches; the stock one may run beside it."""
    from nicplug_xml.testing.daemon import private_daemon

    with private_daemon(hook=False, libvirtd=prefix("libvirt-9.0.0") / "sbin" / "libvirtd") as daemon:
        yield daemon


@pytest.fixture(scope="session")
def patched_qemu(libvirt_isolated: None) -> Path:
    """A QEMU that has our patches."""
    return prefix("qemu-7.2") / "bin" / "qemu-system-x86_64"


@pytest.fixture
def new_mac() -> Callable[[], str]:
    """A maker of MAC addresses, each one new in the test: guests of different tests can be the same."""
    numbers = itertools.count(1)
    return lambda: f"52:54:00:11:22:{next(numbers):02x}"


@pytest.fixture
def nic_xml() -> Callable[..., str]:
    """A maker of ``<interface>`` elements, deferred unless told otherwise."""

    def make(mac: str, children: str = "", attributes: str = "connection='deferred'") -> str:
        return NIC.format(mac=mac, children=children, attributes=attributes)

    return make


@pytest.fixture
def deferred_guest(libvirt_guest: GuestFactory, nic_xml: Callable[..., str]) -> Callable[..., Guest]:
    """A factory of running guests that are defined with nicplug, one deferred NIC for each MAC."""

    def make(
        *macs: str,
        children: str = "",
        transient: bool = False,
        timeout: float | None = 60,
        fresh: bool = False,
    ) -> Guest:
        interfaces = "".join(nic_xml(mac, children) for mac in macs)
        how = create if transient else define
        return libvirt_guest(interfaces, define=how, timeout=timeout, fresh=fresh)

    return make


def at_once(call: Callable[[_Given], _Result], given: Collection[_Given]) -> list[_Result]:
    """Call something for each of several things, in a thread for each, which all begin at the same moment.

    :returns: what came of each, in the order of `given`.
    """
    start = threading.Barrier(len(given))

    def begin(one: _Given) -> _Result:
        start.wait()
        return call(one)

    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(begin, given))


@contextmanager
def many_descriptors() -> Iterator[None]:
    """Have this process open more descriptors than select(2) knows, as long as the block lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    try:
        with ExitStack() as opened:
            while opened.enter_context(open(os.devnull)).fileno() < 1024:
                pass
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """Have this process open so many descriptors that only some are left, as long as the block lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as opened:
        files = [opened.enter_context(open(os.devnull)) for _ in range(left + 1)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(file.fileno() for file in files) + 1, hard))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with suppress(OSError):
            while True:
                files.append(opened.enter_context(open(os.devnull)))
        for file in files[:left]:
            file.close()
        yield


def processes(word: str) -> list[int]:
    """Return the ids of the processes that have a word at the start of their command's name or arguments.

    Those in this network namespace: other workers have theirs.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
            network = (path.parent / "ns" / "net").readlink()
        except OSError:
            continue
        if network != Path("/proc/self/ns/net").readlink():
            continue
        if any(argument.startswith(word.encode()) for argument in (arguments[0].split(b"/")[-1], *arguments)):
            found.append(int(path.parent.name))
    return found


@contextmanager
def veth(name: str, bridge: str) -> Iterator[str]:
    """Make a device that leads to a bridge."""
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    try:
        run("ip", "link", "set", f"{name}p", "master", bridge, "up")
        run("ip", "link", "set", name, "up")
        yield name
    finally:
        run("ip", "link", "delete", name)


def fail_once(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Have a method of `Domain` fail when it is next called, for what cannot be had for real."""
    from nicplug_xml.host.domain import Domain

    failures = [OperationError("the disk is full")]
    real = getattr(Domain, method)

    def call(*arguments: object) -> object:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(Domain, method, call)


def identity(guest: Guest, mac: str) -> tuple[object, ...]:
    """Return what would differ had the guest got another NIC: name, index, device and driver instance."""
    nic = guest.nic(mac)
    device = guest.run(f"cd /sys/class/net/{nic.name}/device && pwd -P && readlink -f driver")
    hotplugs = [event for kind in ("added", "removed", "uevent") for event in guest.events(kind)]
    return (
        nic.name,
        nic.ifindex,
        device,
        len(hotplugs),
        guest.run("dmesg | grep -ci -E 'pciehp|hotplug' || :"),
    )


def emulator(program: Path) -> str:
    """Return the element that has a guest run on that QEMU."""
    return f"<emulator>{program}</emulator>"


def run(*command: str) -> str:
    """Run a program and return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def master(device: str) -> str | None:
    """Return what ``ip`` says the device is a port of."""
    (link,) = json.loads(run("ip", "-json", "link", "show", "dev", device))
    return link.get("master")


def mtu(device: str) -> int:
    """Return the MTU that ``ip`` says the device has."""
    (link,) = json.loads(run("ip", "-json", "link", "show", "dev", device))
    return int(link["mtu"])


def address(device: str) -> str:
    """Return the MAC that ``ip`` says the device has."""
    (link,) = json.loads(run("ip", "-json", "link", "show", "dev", device))
    return str(link["address"])


def devices() -> list[str]:
    """Return the names of the network devices that ``ip`` knows."""
    return [link["ifname"] for link in json.loads(run("ip", "-json", "link"))]


def wait_until(condition: Callable[[], bool], timeout: float = 30) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_gone(device: str) -> None:
    """Wait until ``ip`` knows no such network device."""
    wait_until(lambda: device not in devices())


def is_isolated(device: str) -> bool:
    """Return whether ``bridge`` says the port is isolated."""
    (link,) = json.loads(run("bridge", "-json", "-details", "link", "show", "dev", device))
    return bool(link["isolated"])


def target(dom: libvirt.virDomain, mac: str) -> str:
    """Return the tap of a NIC, from libvirt's own XML."""
    from lxml import etree

    root = etree.fromstring(dom.XMLDesc())
    (device,) = root.xpath(f"devices/interface[mac/@address='{mac}']/target/@dev")
    return str(device)


def interface_xml(dom: libvirt.virDomain) -> str:
    """Return a running domain's first ``<interface>``, as libvirt's own XML has it."""
    xml = dom.XMLDesc()
    return (
        str(xml[xml.index("<interface type") : xml.index("</interface>", xml.index("<devices>"))])
        + "</interface>"
    )


def extended_interface_xml(dom: libvirt.virDomain) -> str:
    """Return the same in extended XML, as a user would take it to edit it."""
    xml = xml_desc(dom).replace('"', "'")
    return xml[xml.index("<interface ") : xml.index("</interface>")] + "</interface>"


def everything(dom: libvirt.virDomain) -> list[str]:
    """Return the domain's XML, live and persistent, and all that ``ip``, ``bridge`` and ``tc`` know."""
    # libvirt makes a new port of a network each time a NIC comes to it, an undo included.
    state = re.sub(r"portid='[^']*'", "", dom.XMLDesc()).splitlines()
    if dom.isPersistent():
        state += dom.XMLDesc(2).splitlines()
    for show in (("ip", "-json", "-details", "link"), ("bridge", "-json", "-details", "link")):
        for device in json.loads(run(*show)):
            # Like operstate, the kernel takes it from the carrier (LOWER_UP), up to a second later.
            device["flags"] = [flag for flag in device["flags"] if flag not in _OF_CARRIER]
            state += [f"{device['ifname']} {fact}" for fact in _steady(device)]
    # libvirt makes a queue discipline anew, with the next handle, whenever it touches one.
    return state + re.sub(r"noqueue \w+:", "noqueue", run("tc", "qdisc")).splitlines()


def _steady(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _VOLATILE:
                yield from _steady(item, f"{path}.{key}")
    else:
        yield f"{path}={value}"
