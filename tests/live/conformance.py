"""The scenarios that every hypervisor and plane is to go through alike, and those that one of them cannot do.

Each is written once, on the public API alone, and is told by what the guest or container sees. Each begins
with an unplugged NIC whose link is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import (
    Connection,
    NicplugError,
    NotFoundError,
    OperationError,
    attach_backend,
    detach_backend,
    interfaces,
    set_link,
    update_device,
    xml_desc,
)
from nicplug_xml.backends import bridge, cable, direct, netdev, network, ovs
from nicplug_xml.model import Backend, InterfaceStatus
from tests.live.conftest import at_once, everything

if TYPE_CHECKING:
    from nicplug_xml.testing.guest import Guest, GuestNic

LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG

MAC, OTHER_MAC = "52:54:00:c0:f0:01", "52:54:00:c0:f0:02"
#: Of the other one, which has more than one NIC.
OTHER_MACS = OTHER_MAC, "52:54:00:c0:f0:03", "52:54:00:c0:f0:04"

#: The addresses of the guest, one in each network, and of whom it finds there.
ADDRESSES = ("192.0.2.2/24", "198.51.100.2/24", "203.0.113.2/24", "198.18.0.2/24", "198.18.1.2/24",
             "198.18.2.2/24", "10.0.2.15/24")  # fmt: skip
BLUE, GREEN, LAB, DEVICE, SWITCH, CABLE, USER = (
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.18.1.1", "198.18.2.1", "10.0.2.2",
)  # fmt: skip

BLUE_BRIDGE, GREEN_BRIDGE, LAB_NETWORK, HOST_DEVICE, OVS_BRIDGE = (
    "npcfblue", "npcfgreen", "npcflab", "npcfdev", "npcfovs",
)  # fmt: skip


@dataclass(frozen=True)
class Platform:
    """A hypervisor, and how it holds a NIC.

    :param name: the column of the matrix.
    :param plane: the plane.
    :param daemon: whether there is a libvirtd, and not libvirt inside the process.
    :param containers: whether it is libvirt's LXC driver.
    :param patched: whether libvirtd has our patches.
    :param patched_qemu: whether QEMU has them.
    """

    name: str
    plane: str
    daemon: bool = True
    containers: bool = False
    patched: bool = False
    patched_qemu: bool = False

    def __str__(self) -> str:
        return self.name


EMBEDDED, TAP, HUB, SWAP, NATIVE, NATIVE_SWAP, VETH = PLATFORMS = (
    Platform("QEMU embedded, tap", "tap", daemon=False),
    Platform("QEMU, tap", "tap"),
    Platform("QEMU, hub", "hub"),
    Platform("QEMU, swap", "swap", patched_qemu=True),
    Platform("QEMU, native", "native", patched=True),
    Platform("patched QEMU, native", "native", patched=True, patched_qemu=True),
    Platform("LXC, veth", "veth", containers=True),
)


@dataclass
class Subject:
    """A running guest or container with one pluggable NIC, and what it needs around it.

    :param platform: where it runs.
    :param guest: the guest.
    :param other: another one there, with several.
    :param restart: starts libvirtd anew, and finds the guests again.
    :param at_boot: the NIC as nicplug and as the guest saw it when the guest was ready.
    """

    platform: Platform
    guest: Guest
    other: Guest
    restart: Callable[[], None]
    at_boot: tuple[InterfaceStatus, GuestNic] = field(init=False)

    def __post_init__(self) -> None:
        self.at_boot = self.status(), self.guest.nic(MAC)

    @property
    def dom(self) -> libvirt.virDomain:
        """The guest's domain."""
        return self.guest.dom

    def status(self) -> InterfaceStatus:
        """Return what nicplug says of the NIC."""
        (status,) = interfaces(self.dom)
        return status

    def attach(self, backend: Backend, **options: int) -> InterfaceStatus:
        """Plug the NIC in, and have it seen by the guest."""
        status = attach_backend(self.dom, MAC, backend, **options)
        assert (status.connection, status.carrier) == (Connection.ATTACHED, True)
        self.guest.wait_carrier(MAC, up=True, timeout=30)
        return status

    def answers(self, address: str) -> bool:
        """Whether somebody answers; networks of libvirt and busy machines take their time."""
        return any(self.guest.ping(address, timeout=1) for _ in range(20))

    def is_silent(self, address: str) -> bool:
        """Whether nobody answers."""
        return not self.guest.ping(address, count=2, timeout=1)

    def reset(self) -> None:
        """Have the NIC unplugged, with its link up."""
        detach_backend(self.dom, MAC)
        set_link(self.dom, MAC, up=True)
        self.guest.wait_carrier(MAC, up=False, timeout=30)


def same(one: Backend | None, other: Backend) -> bool:
    """Whether two backends say the same, however it is written."""
    return one is not None and one.is_within(other) and other.is_within(one)


def boots_without_a_carrier(subject: Subject) -> None:
    status, nic = subject.at_boot
    assert (status.connection, status.carrier, status.plane) == (
        Connection.DEFERRED, False, subject.platform.plane,
    )  # fmt: skip
    assert not nic.carrier
    # Not for a moment, either.
    (added, *_) = [event for event in subject.guest.events("added") if event.fields["mac"] == MAC]
    assert added.fields["carrier"] == "down"


def attaches_to_a_bridge(subject: Subject) -> None:
    assert subject.attach(bridge.backend(BLUE_BRIDGE)).changed
    assert subject.answers(BLUE)


def same_again_changes_nothing(subject: Subject) -> None:
    subject.attach(bridge.backend(BLUE_BRIDGE))
    before = everything(subject.dom)
    assert not attach_backend(subject.dom, MAC, bridge.backend(BLUE_BRIDGE)).changed
    assert not attach_backend(subject.dom, MAC).changed
    assert not set_link(subject.dom, MAC, up=True).changed
    assert everything(subject.dom) == before
    assert detach_backend(subject.dom, MAC).changed
    assert not detach_backend(subject.dom, MAC).changed


def moves_to_another_bridge(subject: Subject) -> None:
    subject.attach(bridge.backend(BLUE_BRIDGE))
    nic = subject.guest.nic(MAC)
    subject.attach(bridge.backend(GREEN_BRIDGE))
    assert subject.answers(GREEN)
    assert subject.is_silent(BLUE)
    assert subject.guest.nic(MAC) == nic


def detaches(subject: Subject) -> None:
    subject.attach(bridge.backend(BLUE_BRIDGE))
    status = detach_backend(subject.dom, MAC)
    assert (status.connection, status.carrier) == (Connection.DEFERRED, False)
    assert same(status.backend, bridge.backend(BLUE_BRIDGE))
    subject.guest.wait_carrier(MAC, up=False, timeout=30)
    assert subject.is_silent(BLUE)


def attaches_again_without_naming(subject: Subject) -> None:
    subject.attach(bridge.backend(GREEN_BRIDGE))
    detach_backend(subject.dom, MAC)
    subject.guest.wait_carrier(MAC, up=False, timeout=30)
    status = attach_backend(subject.dom, MAC)
    assert same(status.backend, bridge.backend(GREEN_BRIDGE))
    assert subject.answers(GREEN)


def sets_the_link(subject: Subject) -> None:
    subject.attach(bridge.backend(BLUE_BRIDGE))
    assert set_link(subject.dom, MAC, up=False).carrier is False
    subject.guest.wait_carrier(MAC, up=False, timeout=30)
    assert subject.is_silent(BLUE)
    assert set_link(subject.dom, MAC, up=True).carrier is True
    subject.guest.wait_carrier(MAC, up=True, timeout=30)
    assert subject.answers(BLUE)


def keeps_the_link_that_was_set(subject: Subject) -> None:
    assert set_link(subject.dom, MAC, up=False).link == "down"
    status = attach_backend(subject.dom, MAC, bridge.backend(BLUE_BRIDGE))
    assert (status.connection, status.link, status.carrier) == (Connection.ATTACHED, "down", False)
    assert not subject.guest.carrier(MAC)
    assert attach_backend(subject.dom, MAC, bridge.backend(GREEN_BRIDGE)).link == "down"
    assert detach_backend(subject.dom, MAC).link == "down"
    assert "<link state='down'/>" in xml_desc(subject.dom)
    assert attach_backend(subject.dom, MAC, link="up").carrier is True
    assert subject.answers(GREEN)


def moves_to(backend: Backend, address: str) -> Callable[[Subject], None]:
    """Return the scenario that moves to a backend from a bridge, and back again."""

    def moves(subject: Subject) -> None:
        subject.attach(bridge.backend(BLUE_BRIDGE))
        nic = subject.guest.nic(MAC)
        subject.attach(backend)
        assert subject.answers(address)
        assert subject.is_silent(BLUE)
        subject.attach(bridge.backend(BLUE_BRIDGE))
        assert subject.answers(BLUE)
        assert subject.is_silent(address)
        assert subject.guest.nic(MAC) == nic

    return moves


def is_cabled_to_another_guest(subject: Subject) -> None:
    subject.attach(to_the_other(subject))
    subject.other.wait_carrier(OTHER_MAC, up=True, timeout=30)
    assert subject.answers(CABLE)
    (far,) = (nic for nic in interfaces(subject.other.dom) if nic.mac == OTHER_MAC)
    assert same(far.backend, cable.backend(subject.guest.name, MAC))
    subject.attach(bridge.backend(BLUE_BRIDGE))
    subject.other.wait_carrier(OTHER_MAC, up=False, timeout=30)
    assert subject.is_silent(CABLE)


def to_the_other(subject: Subject) -> Backend:
    """Return a cable to the other guest."""
    return cable.backend(subject.other.name, OTHER_MAC)


def are_plugged_at_once(subject: Subject) -> None:
    guest = subject.other
    wanted = dict(zip(OTHER_MACS, (BLUE_BRIDGE, GREEN_BRIDGE, BLUE_BRIDGE), strict=True))

    def plug(mac: str) -> InterfaceStatus:
        return attach_backend(guest.dom, mac, bridge.backend(wanted[mac]))

    def unplug(mac: str) -> InterfaceStatus:
        return detach_backend(guest.dom, mac)

    for _ in range(3):
        for change, connection in ((plug, Connection.ATTACHED), (unplug, Connection.DEFERRED)):
            at_once(change, wanted)
            for status in interfaces(guest.dom):
                assert status.connection is connection
                assert same(status.backend, bridge.backend(wanted[status.mac]))
                guest.wait_carrier(status.mac, up=change is plug, timeout=30)


def updates_the_device(subject: Subject) -> None:
    nic = (
        "<interface {}><mac address='" + MAC + "'/><source bridge='{}'/>"
        "<model type='virtio'/><rom enabled='no'/></interface>"
    )
    subject.attach(bridge.backend(BLUE_BRIDGE))
    assert update_device(subject.dom, nic.format("type='bridge'", GREEN_BRIDGE)).changed
    assert subject.answers(GREEN)
    assert not update_device(subject.dom, nic.format("type='bridge'", GREEN_BRIDGE)).changed
    status = update_device(subject.dom, nic.format("type='bridge' connection='deferred'", BLUE_BRIDGE))
    assert status.connection is Connection.DEFERRED
    assert same(status.backend, bridge.backend(BLUE_BRIDGE))
    subject.guest.wait_carrier(MAC, up=False, timeout=30)


def tells_the_truth(subject: Subject) -> None:
    subject.attach(bridge.backend(BLUE_BRIDGE))
    status = subject.status()
    assert status.connection is Connection.ATTACHED
    assert same(status.backend, bridge.backend(BLUE_BRIDGE))
    assert (status.link, status.carrier, status.plane) == ("up", True, subject.platform.plane)
    shown = xml_desc(subject.dom).replace('"', "'")
    assert "<interface type='bridge' connection='attached'>" in shown
    assert f"<source bridge='{BLUE_BRIDGE}'/>" in shown
    detach_backend(subject.dom, MAC)
    shown = xml_desc(subject.dom).replace('"', "'")
    assert "<interface type='bridge' connection='deferred'>" in shown
    assert f"<source bridge='{BLUE_BRIDGE}'/>" in shown
    assert "nicplug-park" not in shown


def changes_the_definition_alone(subject: Subject) -> None:
    before = subject.status()
    status = attach_backend(subject.dom, MAC, bridge.backend(GREEN_BRIDGE), flags=CONFIG)
    try:
        assert status.connection is Connection.ATTACHED
        assert same(status.backend, bridge.backend(GREEN_BRIDGE))
        assert subject.status() == before
        assert "connection='attached'" in xml_desc(subject.dom, libvirt.VIR_DOMAIN_XML_INACTIVE)
    finally:
        detach_backend(subject.dom, MAC, flags=CONFIG)
    assert "connection='deferred'" in xml_desc(subject.dom, libvirt.VIR_DOMAIN_XML_INACTIVE)


def outlives_a_restart_of_libvirtd(subject: Subject) -> None:
    for backend, address in ((bridge.backend(GREEN_BRIDGE), GREEN), (network.backend("npcf"), LAB)):
        subject.attach(backend)
        subject.restart()
        status = subject.status()
        assert (status.connection, status.carrier) == (Connection.ATTACHED, True)
        assert status.backend is not None
        assert backend.is_within(status.backend)
        assert subject.answers(address)
    detach_backend(subject.dom, MAC)
    subject.restart()
    assert subject.status().connection is Connection.DEFERRED
    assert not subject.guest.carrier(MAC)


def outlives_a_reboot(subject: Subject) -> None:
    subject.attach(bridge.backend(GREEN_BRIDGE), flags=LIVE | CONFIG)
    try:
        reboot(subject)
        status = subject.status()
        assert (status.connection, status.carrier) == (Connection.ATTACHED, True)
        subject.guest.wait_carrier(MAC, up=True, timeout=30)
        set_addresses(subject.guest, MAC, ADDRESSES)
        assert subject.answers(GREEN)
    finally:
        detach_backend(subject.dom, MAC, flags=LIVE | CONFIG)
    reboot(subject)
    set_addresses(subject.guest, MAC, ADDRESSES)
    assert subject.status().connection is Connection.DEFERRED
    assert not subject.guest.carrier(MAC)


def reboot(subject: Subject) -> None:
    """Have the guest's system start anew."""
    guest = subject.guest
    started = len(guest.events("ready"))
    if subject.platform.containers:
        # The answer may come too late.
        with suppress(TimeoutError):
            guest.run("reboot -f")
    else:
        guest.dom.reset(0)
    deadline = time.monotonic() + 120
    while len(guest.events("ready")) == started:
        assert time.monotonic() < deadline, guest.log()
        time.sleep(0.05)
    guest.wait_ready(120)


def set_addresses(guest: Guest, nic: str, addresses: tuple[str, ...]) -> None:
    """Give a guest its addresses, in one go."""
    name = guest.nic(nic).name
    guest.run("\n".join(f"ip addr add {address} dev {name}" for address in addresses))


def refuses_wrong_names(subject: Subject) -> None:
    subject.attach(bridge.backend(BLUE_BRIDGE))
    before = everything(subject.dom)
    for name in ("52:54:00:00:00:99", "eth7", "ua-none"):
        for operation in (detach_backend, attach_backend):
            with pytest.raises(NotFoundError, match=f"has no interface '{name}'; it has .*{MAC}"):
                operation(subject.dom, name)
    assert everything(subject.dom) == before
    assert subject.answers(BLUE)


def refuses_a_missing_bridge(subject: Subject) -> None:
    subject.attach(bridge.backend(BLUE_BRIDGE))
    before = everything(subject.dom)
    with pytest.raises(
        NicplugError, match=r"np-missing.*the NIC is attached to bridge npcfblue now"
    ) as refusal:
        attach_backend(subject.dom, MAC, bridge.backend("np-missing"))
    assert isinstance(refusal.value, OperationError | NotFoundError)
    assert everything(subject.dom) == before
    assert subject.answers(BLUE)


@dataclass(frozen=True)
class Scenario:
    """A row of the matrix.

    :param name: what happens in it.
    :param run: goes through it.
    :param backend: what it plugs into, where some planes cannot have that.
    """

    name: str
    run: Callable[[Subject], None]
    backend: Callable[[Subject], Backend] | None = None

    def __str__(self) -> str:
        return self.name


def _move(where: str, backend: Backend, address: str) -> Scenario:
    return Scenario(f"move from a bridge to {where} and back", moves_to(backend, address), lambda _: backend)


SCENARIOS = (
    Scenario("boot with a deferred NIC: no carrier", boots_without_a_carrier),
    Scenario("attach to a bridge: carrier, and ping", attaches_to_a_bridge),
    Scenario("the same again: nothing changes", same_again_changes_nothing),
    Scenario("move to another bridge: the guest keeps its NIC", moves_to_another_bridge),
    Scenario("detach: no carrier", detaches),
    Scenario("attach again without naming the backend", attaches_again_without_naming),
    Scenario("set the link down and up", sets_the_link),
    Scenario("the link that was set survives attach, move, detach", keeps_the_link_that_was_set),
    _move("a libvirt network", network.backend("npcf"), LAB),
    _move("a device's macvlan or macvtap (`direct`)", direct.backend(HOST_DEVICE), DEVICE),
    _move("a device itself (`netdev`)", netdev.backend(HOST_DEVICE), DEVICE),
    _move("an Open vSwitch bridge", ovs.backend(OVS_BRIDGE), SWITCH),
    _move("a user-mode network", Backend("user"), USER),
    Scenario("a cable to another guest, and pull it", is_cabled_to_another_guest, to_the_other),
    Scenario("several NICs of a guest at once: each is where it is to be", are_plugged_at_once),
    Scenario("update-device: move, nothing, unplug", updates_the_device),
    Scenario("list and dumpxml tell what is so", tells_the_truth),
    Scenario("change the definition alone (`--config`)", changes_the_definition_alone),
    Scenario("a name that is wrong is refused", refuses_wrong_names),
    Scenario("a missing bridge is refused, and the NIC stays where it is", refuses_a_missing_bridge),
    Scenario("restart libvirtd: the NIC stays as it was", outlives_a_restart_of_libvirtd),
    Scenario("reboot the guest: the NIC comes back as defined", outlives_a_reboot),
)


@dataclass(frozen=True)
class Cannot:
    """Why a scenario is none for a platform.

    :param reason: why, for the documentation.
    :param refusal: what the message of the refusal says; empty where there is nothing that could be refused.
    """

    reason: str
    refusal: str = ""


_NO_KIND = "plane '{}' cannot plug .* into type='{}'; it can: "
_BY_KERNEL = Cannot(
    "only QEMU has it, and the plane joins what the kernel has; `--plane hub` can",
    _NO_KIND.format("tap", "user"),
)
_BY_QEMU = "the backends of planes hub and swap are QEMU's own; the kernel joins the NICs of the other planes"

_NOT_LIBVIRTS = "libvirt has no such type of interface; `--plane tap` can"

#: Scenario and platform to why not; all others are gone through.
CANNOT = {
    ("a libvirt network", EMBEDDED): Cannot(
        "libvirt inside a process has no network driver", "not supported by the connection driver"
    ),
    ("a device itself", SWAP): Cannot(_BY_QEMU, _NO_KIND.format("swap", "netdev")),
    ("an Open vSwitch bridge", SWAP): Cannot(_BY_QEMU, "plane 'swap' .*cannot carry out <virtualport>"),
    ("a cable", SWAP): Cannot(_BY_QEMU, _NO_KIND.format("swap", "cable")),
    ("a device itself", HUB): Cannot(_BY_QEMU, _NO_KIND.format("hub", "netdev")),
    ("an Open vSwitch bridge", HUB): Cannot(_BY_QEMU, "plane 'hub' .*cannot carry out <virtualport>"),
    ("a cable", HUB): Cannot(_BY_QEMU, _NO_KIND.format("hub", "cable")),
    ("a device's macvlan", NATIVE): (
        by_tap := Cannot(
            "the patched libvirt holds a NIC that starts without a type by its tap, "
            "unless QEMU has `netdev-replace`",
            "attribute .connection. is not supported by QEMU for network interfaces of type",
        )
    ),
    ("a user-mode network", NATIVE): by_tap,
    ("a device itself", NATIVE): (no_device := Cannot(_NOT_LIBVIRTS, _NO_KIND.format("native", "netdev"))),
    ("a device itself", NATIVE_SWAP): no_device,
    ("a cable", NATIVE): (no_cable := Cannot(_NOT_LIBVIRTS, _NO_KIND.format("native", "cable"))),
    ("a cable", NATIVE_SWAP): no_cable,
    ("a user-mode network", EMBEDDED): _BY_KERNEL,
    ("a user-mode network", TAP): _BY_KERNEL,
    ("a user-mode network", VETH): Cannot(
        "only QEMU has it, and there is none", _NO_KIND.format("veth", "user")
    ),
    ("restart libvirtd", EMBEDDED): Cannot("there is no libvirtd"),
}


def cannot(scenario: Scenario, platform: Platform) -> Cannot | None:
    """Return why a platform does not go through a scenario, or None when it does."""
    found = [why for (part, where), why in CANNOT.items() if where is platform and part in scenario.name]
    return found[0] if found else None


def matrix() -> str:
    """Return the scenarios and the platforms as a table of Markdown, with the reasons below it."""
    reasons: list[str] = []
    rows = []
    for scenario in SCENARIOS:
        cells = []
        for platform in PLATFORMS:
            why = cannot(scenario, platform)
            if why is None:
                cells.append("yes")
                continue
            if why.reason not in reasons:
                reasons.append(why.reason)
            cells.append(f"{'refused' if why.refusal else 'none'} [{reasons.index(why.reason) + 1}]")
        rows.append(f"| {scenario} | {' | '.join(cells)} |")
    head = f"| scenario | {' | '.join(map(str, PLATFORMS))} |\n| --- |{' --- |' * len(PLATFORMS)}"
    notes = "\n".join(f"{number}. {reason}." for number, reason in enumerate(reasons, 1))
    return "\n".join([head, *rows, "", notes, ""])
