"""The shipped container fixture: what is seen of a container is what is seen of a guest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nicplug_xml.errors import NotFoundError, OperationError, UnsupportedError
from nicplug_xml.testing.commands import run
from nicplug_xml.testing.control_groups import remove_groups
from nicplug_xml.testing.daemon import PrivateDaemon
from tests.live.conftest import target, wait_until

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory, PeerFactory

MAC = "52:54:00:00:00:01"
HIERARCHIES = [
    line.split(":")[1:]
    for line in Path("/proc/self/cgroup").read_text().splitlines()
    if {"memory", "cpuacct", "devices", "freezer"} & set(line.split(":")[1].split(","))
]


def interface(bridge: object, mac: str = MAC) -> str:
    return f"<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/></interface>"


def groups() -> list[tuple[str, str]]:
    """Return the control groups of version 1 that tests have made below our own, with their controllers."""
    script = (
        "mount -t tmpfs tmpfs /sys/fs/cgroup && mount -t cgroup -o $1 none /sys/fs/cgroup &&"
        " find /sys/fs/cgroup$2 -maxdepth 1 -name 'nicplug-*'"
    )
    return sorted(
        (where[0], line)
        for where in HIERARCHIES
        for line in run(["unshare", "--mount", "sh", "-c", script, "sh", *where]).splitlines()
    )


def test_container_on_a_bridge(
    libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory, libvirt_peer: PeerFactory
) -> None:
    bridge = libvirt_bridge("192.0.2.1/24")
    peer = libvirt_peer(bridge, "192.0.2.3/24")
    container = libvirt_container(interface(bridge))
    container.wait_carrier(MAC, True)
    before = container.nic(MAC)
    container.set_address(MAC, "192.0.2.2/24")

    assert container.ping("192.0.2.1", count=3, interval=0.05).received == 3
    assert container.ping("192.0.2.3")
    assert peer.ping("192.0.2.2")
    assert not container.ping("192.0.2.99", timeout=1)

    host_end = target(container.dom, MAC)
    run(["ip", "link", "set", host_end, "down"])
    container.wait_carrier(MAC, False)
    assert not peer.ping("192.0.2.2", timeout=1)
    run(["ip", "link", "set", host_end, "up"])
    container.wait_carrier(MAC, True)
    assert peer.ping("192.0.2.2", count=5)
    assert container.interfaces() == {MAC: before}

    assert [event.fields["mac"] for event in container.events("added")] == [MAC]
    assert "down" in [event.fields["carrier"] for event in container.events("carrier")]


def test_container_sends_nothing_of_its_own_accord(
    libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory
) -> None:
    container = libvirt_container(interface(libvirt_bridge("192.0.2.1/24")))
    container.wait_carrier(MAC, True)
    container.run("sleep 2")
    assert container.run("cat /sys/class/net/eth0/statistics/tx_packets") == "0\n"


def test_commands_in_the_container(libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory) -> None:
    container = libvirt_container(interface(libvirt_bridge()))
    assert container.run("echo 'a\\b'\nprintf '%s' \"c  d\"") == "a\\b\nc  d"
    assert len(container.run("seq 1 20000", timeout=30).splitlines()) == 20000
    container.run("sleep 100 &")

    with pytest.raises(OperationError, match=r"(?s)status 3: oops$"):
        container.run("echo oops >&2; exit 3")
    with pytest.raises(TimeoutError, match=r"(?s)did not finish 'sleep 60'.*nicplug-guest: ready"):
        container.run("sleep 60", timeout=1)
    assert container.run("echo still here") == "still here\n"
    processes = container.run("ps")
    assert "sleep 60" not in processes
    assert "sleep 100" in processes
    assert "libvirtd" not in processes
    with pytest.raises(NotFoundError, match=f"no NIC 'eth7'; it has: eth0 \\({MAC}\\)"):
        container.carrier("eth7")


def test_container_after_a_reboot(libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory) -> None:
    container = libvirt_container(interface(libvirt_bridge("192.0.2.1/24")))
    container.run("echo >/tmp/before")
    container.set_address(MAC, "192.0.2.2/24")
    # It may be gone before it has answered.
    with suppress(TimeoutError):
        container.run("reboot -f")
    wait_until(lambda: len(container.events("ready")) >= 2, timeout=60)
    container.wait_ready()
    assert "192.0.2.2" not in container.run("ip address")
    container.run("test -e /tmp/before")
    container.dom.destroy()
    with pytest.raises(TimeoutError, match="domain is not running"):
        container.run("true")


def test_container_survives_a_restart_of_the_daemon(
    libvirt_daemon: PrivateDaemon, libvirt_container: GuestFactory, libvirt_bridge: BridgeFactory
) -> None:
    container = libvirt_container(interface(libvirt_bridge("192.0.2.1/24")))
    libvirt_daemon.restart()
    container.dom = libvirt_daemon.connect_containers().lookupByName(container.name)
    container.set_address(MAC, "192.0.2.2/24")
    assert container.ping("192.0.2.1", count=5)
    assert len(container.events("ready")) == 1


def test_guests_and_containers_of_one_daemon(
    libvirt_daemon: PrivateDaemon, libvirt_containers: libvirt.virConnect, libvirt_container: GuestFactory
) -> None:
    network = libvirt_daemon.connect().networkCreateXML(
        "<network><name>np</name><bridge name='npvirbr' stp='off' delay='0'/>"
        "<ip address='198.51.100.1' netmask='255.255.255.0'/></network>"
    )
    try:
        nic = f"<interface type='network'><mac address='{MAC}'/><source network='np'/></interface>"
        container = libvirt_container(nic)
        container.set_address(MAC, "198.51.100.9/24")
        assert container.ping("198.51.100.1", count=5)
        assert [dom.name() for dom in libvirt_containers.listAllDomains()] == [container.name]
        assert libvirt_daemon.connect().listAllDomains() == []
    finally:
        network.destroy()


def test_control_groups_are_made_and_removed(libvirt_isolated: None) -> None:
    from nicplug_xml.testing.daemon import private_daemon

    before = groups()
    with private_daemon() as daemon:
        made = set(groups()) - set(before)
        assert len(made) == len(HIERARCHIES)
        assert daemon.connect_containers().listAllDomains() == []
    assert groups() == before
    remove_groups("nicplug-none")


def test_what_a_container_needs_is_named(
    libvirt_container: GuestFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: str(path) != "/bin/busybox")
    with pytest.raises(UnsupportedError, match="install the Debian package busybox-static"):
        libvirt_container("")
