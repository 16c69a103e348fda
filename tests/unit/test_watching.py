"""What is a change, who made it, and how it is told; no libvirtd."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Generator
from contextlib import closing
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import pytest

from nicplug_xml import watch, watching
from nicplug_xml.backends import bridge, netdev
from nicplug_xml.cli.changes import line
from nicplug_xml.errors import NotFoundError
from nicplug_xml.frozen import replace
from nicplug_xml.host.domain import Domain
from nicplug_xml.host.events import Occurrence
from nicplug_xml.host.netlink_messages import links_in
from nicplug_xml.model import Backend, Connection, InterfaceStatus, Scope
from nicplug_xml.view import View
from nicplug_xml.watching import Change, differences, who
from tests.unit.test_colours import ESCAPE

if TYPE_CHECKING:
    import libvirt

NIC = InterfaceStatus(
    "vm1", "vnet0", "52:54:00:00:00:01", "ua-lan", "vnet0", "virtio", "tap", Connection.ATTACHED,
    bridge.backend("br-blue"), "up", True,
)  # fmt: skip
UNPLUGGED = replace(NIC, connection=Connection.DEFERRED, carrier=False)


def seen(*nics: InterfaceStatus, scope: Scope = Scope.LIVE) -> dict[Scope, dict[str, InterfaceStatus]]:
    return {scope: {nic.mac: nic for nic in nics}}


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (NIC, NIC, []),
        (UNPLUGGED, NIC, ["plugged", "carrier"]),
        (NIC, UNPLUGGED, ["unplugged", "carrier"]),
        (NIC, replace(NIC, backend=bridge.backend("br-green")), ["moved"]),
        (UNPLUGGED, replace(UNPLUGGED, backend=bridge.backend("br-green")), ["intended"]),
        (UNPLUGGED, replace(UNPLUGGED, backend=None), ["intended"]),
        (NIC, replace(NIC, link="down", carrier=False), ["link", "carrier"]),
        (NIC, replace(NIC, backend=bridge.backend("br-blue").with_vlan([3])), ["changed"]),
        (NIC, replace(NIC, carrier=None), []),
    ],
)
def test_what_is_a_change(before: InterfaceStatus, after: InterfaceStatus, kinds: list[str]) -> None:
    found = list(differences(seen(before), seen(after), "vm1", 1.0, "other"))
    assert [change.kind for change in found] == kinds
    assert all((change.before, change.after, change.by) == (before, after, "other") for change in found)


def test_what_libvirt_makes_anew_is_no_change() -> None:
    def on_network(port: str) -> InterfaceStatus:
        source = f"<source network='default' portid='{port}' bridge='virbr0'/>"
        return replace(NIC, backend=Backend("network", (source,)))

    assert not list(differences(seen(on_network("1")), seen(on_network("2")), "vm1", 1.0, None))


def test_interfaces_come_and_go_and_states_are_compared_with_themselves() -> None:
    (added,) = differences(seen(), seen(NIC), "vm1", 1.0, None)
    (removed,) = differences(seen(NIC), seen(), "vm1", 1.0, None)
    assert (added.kind, added.before, added.after) == ("added", None, NIC)
    assert (removed.kind, removed.before, removed.after) == ("removed", NIC, None)
    assert not list(differences(seen(NIC), seen(UNPLUGGED, scope=Scope.CONFIG), "vm1", 1.0, None))


@pytest.mark.parametrize(
    ("changed", "kinds", "expected"),
    [
        (1, ["ours"], "nicplug"),
        (1, ["link", "ours", "link"], "nicplug"),
        (2, ["ours", "ours"], "nicplug"),
        (2, ["ours"], None),
        (1, ["link"], "other"),
        (1, ["other"], "other"),
        (1, ["defined"], None),
        (1, [], None),
    ],
)
def test_who_it_was(changed: int, kinds: list[str], expected: str | None) -> None:
    assert who(changed, kinds) == expected


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change("connected", 0), "connected to libvirt"),
        (Change("disconnected", 0), "libvirt is gone"),
        (Change("stopped", 0, "vm1"), "vm1: stopped"),
        (Change("started", 0, "vm1"), "vm1: started"),
        (
            Change("started", 0, "vm1", interfaces=(NIC, UNPLUGGED)),
            "vm1: started (vnet0 plugged into bridge br-blue, vnet0 unplugged)",
        ),
        (
            Change("moved", 0, "vm1", Scope.LIVE, NIC, replace(NIC, backend=bridge.backend("b")), "other"),
            "vnet0 of vm1: moved from bridge br-blue to bridge b (not by nicplug)",
        ),
        (
            Change("unplugged", 0, "vm1", Scope.CONFIG, NIC, UNPLUGGED, "nicplug"),
            "vnet0 of vm1 (definition): unplugged from bridge br-blue",
        ),
        (Change("link", 0, "vm1", Scope.LIVE, NIC, replace(NIC, link="down")), "vnet0 of vm1: link down"),
        (Change("carrier", 0, "vm1", Scope.LIVE, UNPLUGGED, NIC), "vnet0 of vm1: carrier up"),
        (
            Change("removed", 0, "vm1", Scope.LIVE, NIC, None),
            "vnet0 of vm1: removed, plugged into bridge br-blue",
        ),
        (
            Change("intended", 0, "vm1", Scope.LIVE, UNPLUGGED, replace(UNPLUGGED, backend=None)),
            "vnet0 of vm1: nothing intended any more",
        ),
    ],
)
def test_lines(change: Change, told: str) -> None:
    moment, _, rest = line(change).partition(" ")
    assert moment.count(":") == 2
    assert rest == told
    # A terminal has colours, and is told the same.
    coloured = line(change, coloured=True)
    assert ESCAPE.search(coloured)
    assert ESCAPE.sub("", coloured) == line(change)


def _message(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    body = bytes(16)
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_domain_that_ends_meanwhile_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(dom: libvirt.virDomain) -> watching.Seen:
        raise NotFoundError(f"there is no domain '{dom.name()}'")

    monkeypatch.setattr(watching, "_look", look)
    with closing(cast("Generator[Change, None, None]", watch("test:///default"))) as changes:
        assert next(changes).kind == "connected"


def test_looking_leaves_the_warnings_of_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    meanwhile, read = [], Domain.read

    def spy(domain: Domain, scope: Scope) -> View:
        meanwhile.append(list(warnings.filters))
        return read(domain, scope)

    monkeypatch.setattr(Domain, "read", spy)
    assert watching._look(libvirt.open("test:///default").lookupByName("test"))
    assert meanwhile == [warnings.filters] * 2


def test_what_a_nic_is_plugged_into_concerns_its_domain() -> None:
    watcher = watching._Watcher(SimpleQueue(), ())
    watcher._seen = {"uuid": ("vm1", seen(replace(NIC, backend=netdev.backend("eth1"))))}
    for device, concerned in (("eth1", ["uuid"]), ("vnet0", ["uuid"]), ("", ["uuid"]), ("eth2", [])):
        assert watcher._concerned(Occurrence("link", 0, name=device)) == concerned


def test_who_stops_asking_leaves_nothing() -> None:
    before = threading.active_count()
    for _ in range(3):
        with closing(cast("Generator[Change, None, None]", watch("test:///default"))) as changes:
            assert next(changes).kind == "connected"
            started = threading.active_count()
    # One is libvirt's event loop, which the process keeps.
    assert threading.active_count() < started
    assert threading.active_count() <= before + 1


def test_the_kernels_messages_are_read() -> None:
    name = (3, b"vnet10\0")
    data = _message(16, (1, b"123456"), name) + _message(20, name) + _message(17, (3, b"br0\0"), (4, b"x"))
    assert [link.name for link in links_in(data)] == ["vnet10", "br0"]
    # One that is cut off, or says nonsense, is neither an error nor an endless loop.
    for end in range(len(data)):
        names = {link.name for link in links_in(data[:end])}
        assert names <= {"vnet10", "br0", "vnet1", "vnet", "vne", "vn", "v", "", "br", "b"}
    assert list(links_in(bytes(64))) == []
