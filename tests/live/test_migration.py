"""Live migration to another libvirtd, and reverting to a snapshot with the guest's memory in it."""

from __future__ import annotations

import json
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import attach_backend, define, detach_backend, interfaces
from nicplug_xml.backends import bridge, direct
from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.guest import Guest
from tests.live.conftest import PARKING, devices, everything, run, wait_until
from tests.live.far_host import FarHost, far_host

if TYPE_CHECKING:
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

NewMac = Callable[[], str]
MIGRATABLE = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
NICPLUG = (sys.executable, "-m", "nicplug_xml")
#: Has the other host make its parking place.
PARKING_THERE = (
    *(sys.executable, "-c"),
    "import libvirt; from nicplug_xml.host.connection import ensure_parking; ensure_parking(libvirt.open())",
)


@pytest.fixture(params=["tap", "hub"])
def plane(request: pytest.FixtureRequest) -> str:
    """The plane that a test's guests are on; it runs on each."""
    return str(request.param)


@pytest.fixture
def far(libvirt_isolated: None) -> Iterator[FarHost]:
    """Another host."""
    with far_host() as host:
        yield host


@pytest.fixture
def lower(libvirt_isolated: None) -> Iterator[str]:
    """A device that macvlans can be on."""
    run("ip", "link", "add", "npmigrate", "type", "veth", "peer", "name", "npmigratep")
    yield "npmigrate"
    run("ip", "link", "delete", "npmigrate")


@pytest.fixture
def new_guest(plane: str, libvirt_guest: GuestFactory, nic_xml: Callable[..., str]) -> Callable[..., Guest]:
    """A factory of running guests."""

    def make(*macs: str, devices_xml: str = "") -> Guest:
        return libvirt_guest(
            "".join(map(nic_xml, macs)),
            define=lambda conn, xml: define(conn, xml, plane=plane),
            devices_xml=devices_xml,
        )

    return make


def qcow2() -> bytes:
    """Return an empty image of 512 MiB: header, table of reference counts, its only block, and level 1."""
    cluster = 1 << 16
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 512 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0
    )
    parts = (header, struct.pack(">Q", 2 * cluster), struct.pack(">4H", 1, 1, 1, 1), b"")
    return b"".join(part.ljust(cluster, b"\0") for part in parts)


def states(dom: libvirt.virDomain) -> list[tuple[str, bool | None]]:
    """Return each NIC's connection and carrier; of a carrier that leads nowhere there is a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [(nic.connection.value, nic.carrier) for nic in interfaces(dom)]


@pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
def test_live_migration(
    plane: str,
    new_guest: Callable[..., Guest],
    libvirt_bridge: BridgeFactory,
    lower: str,
    far: FarHost,
    new_mac: NewMac,
) -> None:
    parked, on_bridge, on_device = new_mac(), new_mac(), new_mac()
    blue, nobody = libvirt_bridge("192.0.2.1/24"), set(devices())
    guest = new_guest(parked, on_bridge, on_device)
    guest.set_address(on_bridge, "192.0.2.2/24")
    attach_backend(guest.dom, on_bridge, bridge.backend(blue.name))
    attach_backend(guest.dom, on_device, direct.backend(lower))
    before = everything(guest.dom)

    with closing(libvirt.open(far.uri)) as there, short_directory() as directory:
        # Both have it at the same time.
        channel = directory / "channel"
        xml = re.sub(r"path='[^']*\.sock'", f"path='{channel}'", guest.dom.XMLDesc(MIGRATABLE))

        def migrate() -> libvirt.virDomain:
            given = {
                libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{directory}/migration",
                libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml,
            }
            return guest.dom.migrate3(there, given, libvirt.VIR_MIGRATE_LIVE)

        if plane == "tap":
            for missing, make in (("nicplug-parking", PARKING_THERE), (blue.name, ())):
                with pytest.raises(libvirt.libvirtError, match=missing):
                    migrate()
                assert everything(guest.dom) == before
                assert guest.ping("192.0.2.1", count=2)
                if make:
                    far.run(*make)
        far.run("ip", "link", "add", blue.name, "type", "bridge")
        far.run("ip", "address", "add", "192.0.2.1/24", "dev", blue.name)
        far.run("ip", "link", "set", blue.name, "up")
        moved = Guest(migrate(), guest.console, channel)
        wait_until(lambda: set(devices()) <= nobody | PARKING)

        def carriers() -> list[bool]:
            return [moved.carrier(mac) for mac in (parked, on_bridge, on_device)]

        def seen() -> list[tuple[str, bool]]:
            nics = json.loads(far.run(*NICPLUG, "--json", "list", moved.name))
            return [(nic["connection"], nic["carrier"]) for nic in nics]

        bridged = "attached" if plane == "tap" else "deferred"
        assert seen() == [("deferred", False), (bridged, True), ("deferred", True)]
        assert carriers() == [False, True, True]
        far.run(*NICPLUG, "attach-backend", moved.name, on_bridge)
        assert moved.ping("192.0.2.1", count=5)
        far.run(*NICPLUG, "detach-backend", moved.name, on_device)
        moved.wait_carrier(on_device, up=False)
        assert seen() == [("deferred", False), ("attached", True), ("deferred", False)]


@pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)
def test_reverting_to_a_snapshot_with_the_memory(
    plane: str,
    new_guest: Callable[..., Guest],
    libvirt_bridge: BridgeFactory,
    lower: str,
    new_mac: NewMac,
    tmp_path: Path,
) -> None:
    parked, on_bridge, on_device = new_mac(), new_mac(), new_mac()
    blue, green = libvirt_bridge("192.0.2.1/24"), libvirt_bridge()
    disk = tmp_path / "disk"
    disk.write_bytes(qcow2())
    source = f"<driver name='qemu' type='qcow2'/><source file='{disk}'/>"
    guest = new_guest(
        *(parked, on_bridge, on_device),
        devices_xml=f"<disk type='file'>{source}<target dev='sda' bus='sata'/></disk>",
    )
    nobody = set(devices())
    guest.set_address(on_bridge, "192.0.2.2/24")
    attach_backend(guest.dom, on_bridge, bridge.backend(blue.name))
    attach_backend(guest.dom, on_device, direct.backend(lower))
    snapshot = guest.dom.snapshotCreateXML("<domainsnapshot/>")
    attach_backend(guest.dom, parked, bridge.backend(green.name))
    attach_backend(guest.dom, on_bridge, bridge.backend(green.name))
    detach_backend(guest.dom, on_device)
    guest.dom.revertToSnapshot(snapshot)
    guest.wait_ready()
    # Nothing is left of what came afterwards.
    bridged = "attached" if plane == "tap" else "deferred"
    assert states(guest.dom) == [("deferred", False), (bridged, True), ("deferred", True)]
    assert [guest.carrier(mac) for mac in (parked, on_bridge, on_device)] == [False, True, True]
    assert len(devices()) == len(nobody)
    for mac in (on_bridge, on_device):
        attach_backend(guest.dom, mac)
    assert guest.ping("192.0.2.1", count=5)
    assert states(guest.dom) == [("deferred", False), ("attached", True), ("attached", True)]
    snapshot.delete()
