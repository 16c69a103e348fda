"""The shipped fixtures themselves: a real guest on both kinds of libvirt, and nothing left afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from nicplug_xml.errors import NotFoundError, OperationError, UnsupportedError
from nicplug_xml.testing import daemon
from nicplug_xml.testing.commands import cache_directory, run, short_directory
from nicplug_xml.testing.guest import boot_guest, guest_image
from nicplug_xml.testing.namespace import run_outside
from nicplug_xml.testing.saved_boots import SavedBoots
from tests.live.conftest import few_descriptors

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.ovs import PrivateOvs
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory, OvsBridgeFactory, PeerFactory

MAC = "52:54:00:00:00:01"
BUILD = Path(__file__).parents[1] / "guest" / "build"

ON_DAEMON = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
ON_EMBEDDED = pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)


def interface(bridge: object, mac: str = MAC) -> str:
    return (
        f"<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/>"
        "<model type='virtio'/></interface>"
    )


def set_link(guest: Guest, state: str) -> None:
    """Set the link with what libvirt itself says of the interface, for what is left out counts as removed."""
    nic = ElementTree.fromstring(guest.dom.XMLDesc()).find("devices/interface")
    assert nic is not None
    for link in nic.findall("link"):
        nic.remove(link)
    ElementTree.SubElement(nic, "link", state=state)
    guest.dom.updateDeviceFlags(ElementTree.tostring(nic, encoding="unicode"), 0)


@ON_EMBEDDED
@pytest.mark.usefixtures("libvirt_connection")
def test_guests_that_end_are_taken_note_of_after_descriptors_ran_out() -> None:
    """Else libvirt waits for each of them until it gives up."""
    with few_descriptors(0):
        time.sleep(0.2)
    assert [thread.name for thread in threading.enumerate()].count("guests") == 1


def test_guest_on_a_bridge(
    libvirt_guest: GuestFactory, libvirt_bridge: BridgeFactory, libvirt_peer: PeerFactory
) -> None:
    bridge = libvirt_bridge("192.0.2.1/24")
    peer = libvirt_peer(bridge, "192.0.2.3/24")
    guest = libvirt_guest(interface(bridge))
    guest.set_address(MAC, "192.0.2.2/24")
    guest.wait_carrier(MAC, True)

    assert guest.ping("192.0.2.1", count=3, interval=0.05).received == 3
    assert guest.ping("192.0.2.3")
    assert peer.ping("192.0.2.2")
    assert not guest.ping("192.0.2.99", timeout=1)
    assert not peer.ping("192.0.2.99", timeout=1)

    before = guest.nic(MAC)
    set_link(guest, "down")
    guest.wait_carrier(MAC, False)
    assert not guest.carrier(before.name)
    assert not peer.ping("192.0.2.2", timeout=1)

    set_link(guest, "up")
    guest.wait_carrier(MAC, True)
    assert peer.ping("192.0.2.2", count=5)
    assert guest.interfaces() == {MAC: before}

    assert [event.fields["mac"] for event in guest.events("added")] == [MAC]
    assert "down" in [event.fields["carrier"] for event in guest.events("carrier")]
    assert guest.events("uevent") == []


@ON_EMBEDDED
def test_commands_in_the_guest(libvirt_guest: GuestFactory, libvirt_bridge: BridgeFactory) -> None:
    guest = libvirt_guest(interface(libvirt_bridge()))
    assert repr(guest) == f"<Guest {guest.name}>"
    assert guest.run("echo 'a\\b'\nprintf '%s' \"c  d\"") == "a\\b\nc  d"
    assert len(guest.run("seq 1 20000", timeout=30).splitlines()) == 20000
    guest.run("sleep 100 &")
    assert guest.run("(sleep 0.5; echo late) & echo now") == "now\n"
    assert guest.run("sleep 1; printf '\\000\n= 1 2\n'") == "\0\n= 1 2\n"

    with pytest.raises(OperationError, match=r"(?s)status 3: oops$"):
        guest.run("echo oops >&2; exit 3")
    with pytest.raises(TimeoutError, match=r"(?s)did not finish 'sleep 60'.*nicplug-guest: ready"):
        guest.run("sleep 60", timeout=1)
    with pytest.raises(TimeoutError):
        guest.run("(sleep 61; echo) | cat", timeout=1)
    assert guest.run("echo still here") == "still here\n"
    assert "sleep 6" not in guest.run("ps")
    with pytest.raises(ValueError, match="the guest takes 4000"):
        guest.run("#" * 4000)
    with pytest.raises(ValueError, match="record separator"):
        guest.run("echo '\x1e'")
    with pytest.raises(NotFoundError, match=f"no NIC 'eth7'; it has: eth0 \\({MAC}\\)"):
        guest.carrier("eth7")
    with pytest.raises(TimeoutError, match=r"(?s)saw a carrier on eth0 for 0.2 s.*nicplug-guest: ready"):
        guest.wait_carrier("eth0", False, timeout=0.2)


@ON_EMBEDDED
def test_a_name_is_that_of_one_guest(libvirt_guest: GuestFactory) -> None:
    libvirt_guest("", name="once", timeout=None)
    with pytest.raises(OperationError, match="a guest 'once' runs already"):
        libvirt_guest("", name="once", timeout=None)


@ON_EMBEDDED
def test_guest_sees_hotplug(libvirt_guest: GuestFactory, libvirt_bridge: BridgeFactory) -> None:
    bridge = libvirt_bridge()
    guest = libvirt_guest(interface(bridge))
    other = "52:54:00:00:00:02"
    guest.dom.attachDeviceFlags(interface(bridge, other), 0)
    guest.run(f"until cat /sys/class/net/*/address | grep -q {other}; do usleep 20000; done")
    assert guest.nic(other).ifindex != guest.nic(MAC).ifindex
    assert {"pci", "virtio", "net"} <= {event.fields["subsystem"] for event in guest.events("uevent")}


@ON_EMBEDDED
def test_guest_after_a_reset_and_a_restore(
    libvirt_guest: GuestFactory, libvirt_bridge: BridgeFactory
) -> None:
    guest = libvirt_guest(interface(libvirt_bridge()))
    guest.run("touch /tmp/before")
    guest.dom.managedSave(0)
    guest.dom.create()
    guest.wait_ready()
    guest.run("test -e /tmp/before")
    guest.dom.reset(0)
    guest.wait_ready()
    guest.run("test ! -e /tmp/before")


def test_saved_boots(
    libvirt_connection: libvirt.virConnect, libvirt_bridge: BridgeFactory, tmp_path: Path
) -> None:
    boots = SavedBoots(tmp_path)
    here, there = libvirt_bridge(), libvirt_bridge("192.0.2.1/24")

    def boot(nic: str) -> Guest:
        guest = boot_guest(libvirt_connection, "np-saved", nic, workdir=workdir, start=boots.start)
        removals.callback(guest.remove)
        guest.wait_ready()
        return guest

    def saved() -> list[Path]:
        return [file for file in tmp_path.iterdir() if not file.suffix]

    for kept in (False, True):
        with short_directory() as workdir, ExitStack() as removals:
            guest = boot(interface(here))
            assert boots.keep(guest) is kept
            guest.wait_ready()
            ready = guest.events("ready")
            guest.run("touch /tmp/used")
    (file,) = saved()
    with short_directory() as workdir, ExitStack() as removals:
        guest = boot(interface(there))
        assert not boots.keep(guest)
        assert guest.events("ready") == ready
        guest.run("test ! -e /tmp/used")
        guest.set_address(MAC, "192.0.2.2/24")
        assert guest.ping("192.0.2.1", count=5)
        guest.dom.reset(0)
        guest.wait_ready()
        assert len(guest.events("ready")) == 2
    with short_directory() as workdir, ExitStack() as removals:
        guest = boot(interface(here, "52:54:00:00:00:02"))
        assert not boots.keep(guest)
        assert list(guest.interfaces()) == ["52:54:00:00:00:02"]
    assert saved() == [file]


@ON_EMBEDDED
def test_guest_that_cannot_be_saved_goes_on(libvirt_connection: libvirt.virConnect, tmp_path: Path) -> None:
    boots = SavedBoots(tmp_path)
    shared = "<shmem name='np'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"
    with short_directory() as workdir, ExitStack() as removals:
        guest = boot_guest(
            libvirt_connection, "np-unsaved", "", workdir=workdir, devices_xml=shared, start=boots.start
        )
        removals.callback(guest.remove)
        guest.wait_ready()
        # It would be saved when asked for the second time.
        assert [boots.keep(guest) for _ in range(3)] == [False] * 3
        guest.run("true")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".first", ".never"]


@ON_DAEMON
def test_guest_and_network_survive_a_restart_of_the_daemon(
    libvirt_daemon: PrivateDaemon, libvirt_connection: Any, libvirt_guest: GuestFactory
) -> None:
    network = libvirt_connection.networkCreateXML(
        "<network><name>np</name><bridge name='npvirbr'/><forward mode='nat'/>"
        "<ip address='198.51.100.1' netmask='255.255.255.0'>"
        "<dhcp><range start='198.51.100.9' end='198.51.100.9'/></dhcp></ip></network>"
    )
    try:
        nic = f"<interface type='network'><mac address='{MAC}'/><source network='np'/></interface>"
        guest = libvirt_guest(nic.replace("</interface>", "<model type='virtio'/></interface>"))
        libvirt_daemon.restart()
        conn = libvirt_daemon.connect()
        assert guest.name in [dom.name() for dom in conn.listAllDomains()]
        guest.set_address(MAC, "198.51.100.9/24")
        assert guest.ping("198.51.100.1", count=5)
        guest.dom = conn.lookupByName(guest.name)
    finally:
        libvirt_daemon.connect().networkLookupByName(network.name()).destroy()


@ON_DAEMON
def test_a_libvirtd_that_ends_by_itself_is_started_for_who_comes_next(
    libvirt_daemon: PrivateDaemon, libvirt_guest: GuestFactory
) -> None:
    guest = libvirt_guest("", timeout=None)
    for signal in ("KILL", "TERM"):
        pid = (libvirt_daemon._directory / "run" / "libvirtd.pid").read_text().strip()
        run([*libvirt_daemon._inside(), "kill", f"-{signal}", pid])
        while libvirt_daemon._listens():
            time.sleep(0.02)
        with pytest.warns(UserWarning, match="libvirtd had ended, by itself; its log:"):
            libvirt_daemon.start()
        assert libvirt_daemon.connect().lookupByName(guest.name).isActive()


@ON_DAEMON
def test_a_guest_goes_whose_connection_is_closed(
    libvirt_daemon: PrivateDaemon, libvirt_connection: libvirt.virConnect, libvirt_guest: GuestFactory
) -> None:
    guest = libvirt_guest("", timeout=None)
    libvirt_connection.close()
    guest.remove()
    assert guest.name not in [dom.name() for dom in libvirt_daemon.connect().listAllDomains()]


def test_a_vswitchd_that_a_test_has_stopped_is_not_missed_afterwards(
    libvirt_ovs: PrivateOvs, libvirt_ovs_bridge: OvsBridgeFactory
) -> None:
    bridge = libvirt_ovs_bridge()
    assert libvirt_ovs._vswitchd is not None
    libvirt_ovs._vswitchd.kill()
    libvirt_ovs._vswitchd.wait()
    libvirt_ovs.start_vswitchd()
    assert libvirt_ovs.row("Bridge", bridge.name, "name") == {"name": bridge.name}
    # Its bridges are removed all the same.
    libvirt_ovs.stop_vswitchd()


def test_guest_image_is_built_once(libvirt_isolated: None) -> None:
    first = guest_image()
    before = first.initrd.stat()
    assert guest_image() == first
    assert first.initrd.stat().st_mtime_ns == before.st_mtime_ns


def test_build_keeps_other_peoples_files(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OperationError, match="has other files in it"):
        run(["sh", str(BUILD), str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_build_names_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::State::lists "{tmp_path}/lists";\nDir::State::status "{tmp_path}/status";\n'
        'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "/dev/null";\n'
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "status").touch()
    monkeypatch.setenv("APT_CONFIG", str(config))
    monkeypatch.setenv("NICPLUG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnsupportedError, match="package linux-image-cloud-amd64; is the network there"):
        guest_image()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["guest.lock"]


def test_the_cache_is_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU and libvirt, who are given its files, run in other directories than the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NICPLUG_CACHE", "cache")
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("NICPLUG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_directory() == Path.home() / ".cache" / "nicplug"


def test_plugin_imports_nothing_that_takes_time() -> None:
    heavy = "{'libvirt', 'lxml', 'pyroute2', 'nicplug_xml.testing.guest'}"
    code = f"import sys, nicplug_xml.testing.plugin; print(sorted({heavy} & set(sys.modules)))"
    assert run([sys.executable, "-c", code]) == "[]\n"


def test_hook_is_found_in_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "it's a python"
    python.write_text('#!/bin/sh\necho "$PYTHONPATH $*"\n')
    python.chmod(0o755)
    monkeypatch.setattr(daemon, "_HERE", tmp_path / "a $place")
    monkeypatch.setattr(sys, "executable", str(python))
    told = subprocess.run(["sh", "-c", daemon._hook(), "hook", "vm1"], capture_output=True, text=True)
    assert told.stdout == f"{tmp_path}/a $place -m nicplug_xml.host.hook vm1\n"


ON_ONE_DAEMON = """
import os, pytest
from nicplug_xml.testing.control_groups import available

on_daemon = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
descriptors = []

@on_daemon
@pytest.mark.parametrize("number", range(3))
def test_guest(libvirt_guest, request, number):
    descriptors.append(len(os.listdir("/proc/self/fd")))
    libvirt_guest("", timeout=None)
    if available():
        request.getfixturevalue("libvirt_container")("", timeout=None)

def test_no_descriptor_is_left():
    # Before the first guest there were fewer, for libvirt itself opens some for good.
    assert descriptors[1] == descriptors[2]

@on_daemon
@pytest.mark.parametrize("end", ["stop", "restart"])
def test_daemon_ends(libvirt_daemon, libvirt_guest, end):
    libvirt_guest("", timeout=None)
    getattr(libvirt_daemon, end)()

def test_no_guest_is_left(libvirt_daemon):
    assert not libvirt_daemon.connect().listAllDomains()
"""


def test_nothing_is_left_between_tests(libvirt_isolated: None, tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(ON_ONE_DAEMON)
    inner = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(tmp_path / "test_inner.py")]
    assert "7 passed" in run(inner, timeout=120)


INNER = """
import os, signal, subprocess
from nicplug_xml.testing.control_groups import available

NIC = "<interface type='bridge'><source bridge='{}'/><model type='virtio'/></interface>"
NETWORK = '''<network><name>np</name><bridge name='npvirbr'/>
<ip address='198.51.100.1' netmask='255.255.255.0'>
<dhcp><range start='198.51.100.9' end='198.51.100.9'/></dhcp></ip></network>'''

def test(libvirt_guest, libvirt_bridge, libvirt_peer, libvirt_daemon, request):
    conn = libvirt_daemon.connect()
    if not conn.listAllNetworks():
        conn.networkCreateXML(NETWORK)
    bridge = libvirt_bridge("192.0.2.1/24")
    libvirt_peer(bridge, "192.0.2.2/24")
    libvirt_guest(NIC.format(bridge))
    programs = {"qemu-system-x86", "libvirtd", "dnsmasq"}
    if available():
        request.getfixturevalue("libvirt_container")(NIC.format(bridge))
        programs.add("libvirt_lxc")
    running = subprocess.run(["ps", "-eo", "comm"], capture_output=True, text=True).stdout
    assert programs <= set(running.split())
    END
"""

# Looked at from within: the inner run's processes, /tmp, mounts and network are its own.
# A checkout that is in /tmp stays where it is.
OUTER = """
case "$3" in
    /tmp/*) mkdir -p "$1${3#/tmp}" && mount --bind "$3" "$1${3#/tmp}" || exit 99 ;;
esac
mount --rbind "$1" /tmp || exit 99
state() {
    ip -o link | sed 's/ state .*//'
    sed 's/ .*//' /proc/mounts | sort | uniq -c
    # Not in one pipeline, whose other half may be seen before it is what it is to be.
    running=$(ps -eo stat=,comm=)
    # Who runs at the moment and who sleeps is no matter.
    echo "$running" | sed -e /^Z/d -e 's/^[^ ]* *//' | grep -v -e 'ps$' -e 'grep$'
    ls /tmp
}
state >/tmp/before
"$2" -B -m pytest -p no:cacheprovider -q /tmp/test_inner.py >/tmp/output 2>&1
echo $? >/tmp/status
state >/tmp/after
"""


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("pass", 0, "2 passed"),
        ("assert False, 'on purpose'", 1, "log of guest np"),
        ("os.kill(os.getpid(), signal.SIGINT)", 2, "KeyboardInterrupt"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 2, "KeyboardInterrupt"),
    ],
    ids=["passed", "failed", "Ctrl-C", "SIGTERM"],
)
def test_nothing_is_left(libvirt_isolated: None, tmp_path: Path, end: str, status: int, said: str) -> None:
    guest_image()
    (tmp_path / "test_inner.py").write_text(INNER.replace("END", end))
    (tmp_path / "pytest.ini").write_text("[pytest]\nlibvirt_saved_boots = true\n")
    for name in ("before", "output", "status", "after"):
        (tmp_path / name).touch()
    run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", OUTER, "sh", str(tmp_path), sys.executable, str(Path(__file__).parents[2])],
        timeout=120,
    )  # fmt: skip
    output = (tmp_path / "output").read_text()
    assert (tmp_path / "status").read_text() == f"{status}\n", output
    assert said in output
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()


def test_skips_where_it_may_not_run(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text("def test(libvirt_bridge): pass\n")
    inner = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", str(tmp_path / "test_inner.py")]
    output = run_outside(["unshare", "--user", *inner])
    assert "1 skipped" in output
    assert "run pytest as root" in output
