"""The scripts in docs/examples do what they say, seen from two guests that all tests share."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from nicplug_xml import attach_backend, create, detach_backend, interfaces
from nicplug_xml.backends import direct
from tests.live.conftest import NIC, master, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, OvsBridgeFactory

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = sorted(script.name for script in EXAMPLES.glob("*.py"))
BROKEN = Path(__file__).parents[1] / "unit" / "schema" / "domain-invalid" / "connection-misspelt-value.xml"

#: Two on plane tap, and one on plane hub.
LEFT, RIGHT, OTHER = "52:54:00:00:07:01", "52:54:00:00:07:02", "52:54:00:00:07:03"


class Lab(NamedTuple):
    """Two guests; the second one has a NIC on plane tap and one on plane hub."""

    left: Guest
    right: Guest
    uri: str

    def script(self, name: str, *arguments: str, told: str = "") -> subprocess.CompletedProcess[str]:
        """Run an example on the guests' libvirt."""
        return subprocess.run(
            [sys.executable, EXAMPLES / name, *arguments, "-c", self.uri],
            input=told, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def guests(libvirt_daemon: PrivateDaemon) -> Iterator[Lab]:
    """The guests, for all tests of this module."""
    from nicplug_xml.testing.commands import short_directory
    from nicplug_xml.testing.guest import boot_guest

    libvirt_daemon.start()
    conn = libvirt_daemon.connect()
    deferred, user = "connection='deferred'", "type='user' connection='deferred'"
    left = NIC.format(attributes=deferred, mac=LEFT, children="<alias name='ua-left'/>")
    right = NIC.format(attributes=deferred, mac=RIGHT, children="<alias name='ua-right'/>")
    other = NIC.format(attributes=user, mac=OTHER, children="<alias name='ua-other'/>")
    with short_directory() as workdir:
        made = [
            boot_guest(conn, f"examples-{name}", nics, workdir=workdir, define=create)
            for name, nics in (("left", left), ("right", right + other))
        ]
        for guest in made:
            guest.wait_ready()
        made[0].set_address(LEFT, "192.0.2.1/24")
        made[1].set_address(RIGHT, "192.0.2.2/24")
        yield Lab(*made, libvirt_daemon.uri)
        for guest in made:
            guest.remove()


@pytest.fixture
def lab(guests: Lab) -> Iterator[Lab]:
    """The guests, all of whose NICs are unplugged, with their links up."""
    yield guests
    for guest in (guests.left, guests.right):
        for nic in interfaces(guest.dom):
            detach_backend(guest.dom, nic.mac)


def test_every_script_is_tried_and_told_of() -> None:
    tests, documents = Path(__file__).read_text(), EXAMPLES.parent.glob("*.md")
    told = "".join(document.read_text() for document in documents)
    for name in SCRIPTS:
        assert f'"{name}"' in tests, name
        assert f"python docs/examples/{name} " in told, name


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_it_does(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLES / name, "--help"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(f"usage: {name}")


def test_cables(lab: Lab) -> None:
    ends = f"{lab.left.name}/ua-left={lab.right.name}/ua-right"
    plugged = lab.script("cables.py", ends)
    assert (plugged.returncode, plugged.stderr) == (0, "")
    assert lab.left.ping("192.0.2.2")
    lab.script("cables.py", "--pull", ends)
    assert not lab.left.carrier(LEFT)
    assert not lab.right.carrier(RIGHT)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["examples-left=examples-right"], 2, "'examples-left' is no DOMAIN/INTERFACE"),
        (["nobody/ua-left=examples-right/ua-right"], 1, "cables: Domain not found"),
        (["examples-left/ua-left=examples-right/ua-none"], 1, "cables: domain 'examples-right' has no"),
    ],
)
def test_cables_that_are_none(lab: Lab, arguments: Sequence[str], code: int, why: str) -> None:
    refused = lab.script("cables.py", *arguments)
    assert refused.returncode == code
    assert why in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_port_of_a_controller(lab: Lab, libvirt_ovs_bridge: OvsBridgeFactory) -> None:
    switch = libvirt_ovs_bridge("192.0.2.7/24")
    port = {
        "id": "9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f", "mac_address": LEFT, "admin_state_up": True,
        "binding:vif_type": "ovs", "binding:vif_details": {"bridge_name": switch.name},
    }  # fmt: skip
    plugged = lab.script("ports.py", lab.left.name, told=json.dumps(port))
    assert plugged.stdout == f"{LEFT} of {lab.left.name}: attached, link up\n"
    assert lab.left.ping("192.0.2.7")
    assert len(switch.ports()) == 1
    lab.script("ports.py", lab.left.name, "--unplug", told=json.dumps(port))
    assert switch.ports() == []
    assert not lab.left.carrier(LEFT)


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ({"binding:vif_type": "unbound", "binding:vif_details": {}}, "unbound"),
        ({"binding_vif_type": "unbound", "binding_vif_details": {}}, "unbound"),
        ({"binding_vif_type": None, "binding_vif_details": None}, "nothing"),
        ({}, "nothing"),
    ],
)
def test_a_port_that_nobody_has_bound(lab: Lab, binding: dict[str, object], told: str) -> None:
    port = {"id": "1", "mac_address": LEFT, "admin_state_up": True, **binding}
    refused = lab.script("ports.py", lab.left.name, told=json.dumps(port))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"ports: port 1 is bound to {told}, not to a bridge with a name\n"


def test_from_macvtap_to_a_bridge(lab: Lab, libvirt_bridge: BridgeFactory) -> None:
    place = libvirt_bridge()
    run("ip", "link", "add", "ex-uplink", "type", "veth", "peer", "name", "ex-outside")
    try:
        run("ip", "address", "add", "192.0.2.9/24", "dev", "ex-outside")
        for device in ("ex-uplink", "ex-outside"):
            run("ip", "link", "set", device, "up")
        for guest, mac in ((lab.left, LEFT), (lab.right, RIGHT)):
            attach_backend(guest.dom, mac, direct.backend("ex-uplink"))
        assert lab.left.ping("192.0.2.9")

        refused = lab.script("macvtap_to_bridge.py", "ex-uplink", "ex-none")
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
        assert lab.left.ping("192.0.2.9")
        assert lab.right.ping("192.0.2.9")

        moved = lab.script("macvtap_to_bridge.py", "ex-uplink", place.name)
        assert moved.stdout.count(f"ex-uplink -> {place.name}\n") == 2
        assert master("ex-uplink") == place.name
        assert lab.left.ping("192.0.2.9")
        assert lab.right.ping("192.0.2.9")
        assert lab.left.ping("192.0.2.2")
    finally:
        run("ip", "link", "delete", "ex-uplink")


def test_a_nic_plugged_into_a_program(lab: Lab) -> None:
    lab.right.set_address(OTHER, "198.51.100.1/24")
    lab.right.run("ping 198.51.100.7 >/dev/null 2>&1 &")
    seen = lab.script("frames.py", lab.right.name, "ua-other", "--count", "2")
    assert (seen.stderr, seen.stdout) == ("", f"{OTHER} > ff:ff:ff:ff:ff:ff ARP\n" * 2)
    assert not lab.right.carrier(OTHER)
    refused = lab.script("frames.py", lab.right.name, "ua-right")
    assert refused.returncode == 1
    assert refused.stderr.startswith("frames: plane 'tap'")


def test_plug_and_unplug(lab: Lab, libvirt_bridge: BridgeFactory) -> None:
    place = libvirt_bridge().name
    done = lab.script("plug.py", lab.left.name, "ua-left", place)
    _, attached, deferred = done.stdout.splitlines()
    assert attached == f"attached {{'bridge': '{place}'}} True"
    assert deferred.startswith("deferred intended: Backend(type='bridge', ")
    (nic,) = interfaces(lab.left.dom)
    assert nic.backend
    assert nic.backend.source["bridge"] == place
    assert master(nic.target) != place
    refused = lab.script("plug.py", lab.left.name, "ua-none", "br0")
    assert refused.stderr.startswith(f"plug: there is no such thing: domain '{lab.left.name}' has no")


def test_asyncio_plugs_in_what_starts(
    libvirt_daemon: PrivateDaemon, lab: Lab, libvirt_bridge: BridgeFactory
) -> None:
    place = libvirt_bridge()
    serving = subprocess.Popen(
        [sys.executable, EXAMPLES / "autoplug.py", "-c", lab.uri], stdout=subprocess.PIPE, text=True
    )
    with serving:
        assert serving.stdout
        assert serving.stdout.readline() == "waiting for guests to start\n"
        nic = NIC.format(
            mac="52:54:00:00:07:04", attributes="type='bridge' connection='deferred'",
            children=f"<source bridge='{place.name}'/>",
        )  # fmt: skip
        dom = create(libvirt_daemon.connect(), _domain(nic))
        try:
            assert serving.stdout.readline() == "examples-starts: 52:54:00:00:07:04 is plugged in\n"
            (plugged,) = interfaces(dom)
            assert master(plugged.target) == place.name
        finally:
            dom.destroy()
            serving.send_signal(signal.SIGINT)
    assert serving.returncode == 130


def test_house_rules(tmp_path: Path) -> None:
    file, nic = tmp_path / "vm.xml", NIC.format(mac=LEFT, attributes="connection='deferred'", children="")
    file.write_text(_domain(nic))
    said = subprocess.run(
        [sys.executable, EXAMPLES / "house_rules.py", file, BROKEN],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert [line.rpartition(" ")[2] for line in said.stdout.splitlines()] == ["[house-alias]", "[schema]"]
    file.write_text(_domain(nic.replace("<mac", "<alias name='ua-lan'/><mac")))
    subprocess.run([sys.executable, EXAMPLES / "house_rules.py", file], check=True)


def _domain(nic: str) -> str:
    return (
        "<domain type='qemu'><name>examples-starts</name><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os>"
        f"<devices>{nic}<memballoon model='none'/></devices></domain>"
    )
