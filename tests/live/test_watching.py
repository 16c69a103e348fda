"""What ``nicplug watch`` tells, on a libvirtd of our own, of changes made with nicplug and with virsh."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nicplug_xml import attach_backend, carry_out_plan, define, detach_backend, plan_attach, set_link
from nicplug_xml.backends import bridge, netdev, user
from nicplug_xml.host.events import Occurrence, kernel_told
from nicplug_xml.host.locking import locked
from nicplug_xml.steps import Step, UpdateDevice
from tests.json_document import check
from tests.live.conftest import interface_xml, many_descriptors, processes, run, veth

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

on_the_daemon = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)

Told = dict[str, Any]


class Watching:
    """A process ``nicplug watch``."""

    def __init__(self, uri: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nicplug_xml", "-c", uri, "watch", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self, timeout: float = 15) -> str:
        """Return the next line."""
        return self._lines.get(timeout=timeout).rstrip("\n")

    def events(self, count: int) -> list[Told]:
        """Return the next objects of ``--json``."""
        told = [json.loads(self.line()) for _ in range(count)]
        for one in told:
            check(one, "change")
        return told

    def expect_nothing(self) -> None:
        """Wait for longer than what has happened takes to be told."""
        with pytest.raises(queue.Empty):
            pytest.fail(self.line(timeout=2.5))

    def end(self) -> tuple[int, str]:
        """End it as Ctrl-C does; return the exit code and what is on standard error."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and what is on standard error."""
        code = self.process.wait(15)
        self._reader.join()
        assert self.process.stdout
        assert self.process.stderr
        with self.process.stdout, self.process.stderr:
            return code, self.process.stderr.read()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)


@pytest.fixture
def watching(libvirt_daemon: PrivateDaemon) -> Iterator[Callable[..., Watching]]:
    """A factory of processes ``nicplug watch`` that are connected."""
    processes = []

    def make(*arguments: str) -> Watching:
        made = Watching(libvirt_daemon.uri, *arguments)
        processes.append(made)
        assert "connected" in made.line()
        return made

    yield make
    for made in processes:
        if made.process.poll() is None:
            made.process.kill()
            made.wait()


def short(told: Told) -> tuple[str, str | None]:
    return told["event"], told["by"]


@on_the_daemon
def test_what_nicplug_changes_is_told(
    deferred_guest: Callable[..., Guest],
    watching: Callable[..., Watching],
    new_mac: Callable[[], str],
    libvirt_bridge: BridgeFactory,
) -> None:
    blue, green, mac = libvirt_bridge(), libvirt_bridge(), new_mac()
    guest = deferred_guest(mac, timeout=None)
    watch, reader = watching("--json", guest.name), watching("--json", "--readonly", guest.name)

    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    plugged, carrier = watch.events(2)
    assert short(plugged) == ("plugged", "nicplug")
    assert (plugged["domain"], plugged["scope"], plugged["interfaces"]) == (guest.name, "live", [])
    assert (plugged["before"]["connection"], plugged["before"]["backend"]) == ("deferred", None)
    assert plugged["after"]["backend"]["source"]["bridge"] == blue.name
    assert short(carrier) == ("carrier", "nicplug")
    assert (carrier["before"]["carrier"], carrier["after"]["carrier"]) == (False, True)

    attach_backend(guest.dom, mac, bridge.backend(green.name))
    (moved,) = watch.events(1)
    assert short(moved) == ("moved", "nicplug")
    assert moved["before"]["backend"]["source"]["bridge"] == blue.name
    assert moved["after"]["backend"]["source"]["bridge"] == green.name

    set_link(guest.dom, mac, False)
    assert [short(told) for told in watch.events(2)] == [("link", "nicplug"), ("carrier", "nicplug")]

    detach_backend(guest.dom, mac, flags=3)
    unplugged, *_ = watch.events(1)
    assert (short(unplugged), unplugged["scope"]) == (("unplugged", "nicplug"), "live")
    watch.expect_nothing()
    assert watch.end() == (0, "")
    told = ["plugged", "carrier", "moved", "link", "carrier", "unplugged"]
    assert [short(one) for one in reader.events(len(told))] == [(event, "nicplug") for event in told]
    assert reader.end() == (0, "")


@on_the_daemon
def test_what_is_done_behind_our_back_is_told(
    deferred_guest: Callable[..., Guest],
    watching: Callable[..., Watching],
    new_mac: Callable[[], str],
    libvirt_bridge: BridgeFactory,
    libvirt_daemon: PrivateDaemon,
    tmp_path: Path,
) -> None:
    def virsh(*arguments: str) -> None:
        run("virsh", "-c", libvirt_daemon.uri, *arguments)

    blue, green, mac, other = libvirt_bridge(), libvirt_bridge(), new_mac(), new_mac()
    guest = deferred_guest(mac, other, timeout=None)
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    time.sleep(0.5)
    watch = watching("--json")

    # libvirt has no event for it, the kernel has.
    edited = tmp_path / "nic.xml"
    edited.write_text(interface_xml(guest.dom).replace(blue.name, green.name))
    virsh("update-device", guest.name, str(edited), "--live")
    (moved,) = watch.events(1)
    assert short(moved) == ("moved", "other")
    assert moved["after"]["backend"]["source"]["bridge"] == green.name

    # Nobody tells of it: it is seen at the next event of the domain, and the kernel may have one of its own.
    virsh("domif-setlink", guest.name, mac, "down")
    attach_backend(guest.dom, other, bridge.backend(blue.name))
    seen = watch.events(4)
    assert sorted(told["event"] for told in seen) == ["carrier", "carrier", "link", "plugged"]
    # Of two NICs that have changed at one record of ours, one may be somebody else's doing.
    (link,) = (told for told in seen if told["event"] == "link")
    assert link["by"] in ("other", None)
    assert watch.end() == (0, "")


@on_the_daemon
def test_a_device_that_goes_is_told(
    deferred_guest: Callable[..., Guest],
    watching: Callable[..., Watching],
    new_mac: Callable[[], str],
    libvirt_bridge: BridgeFactory,
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac, timeout=None)
    with veth("npwire", blue.name):
        attach_backend(guest.dom, mac, netdev.backend("npwire"))
        watch = watching("--json")
    unplugged, *_ = watch.events(1)
    assert short(unplugged) == ("unplugged", "other")
    assert watch.end()[0] == 0


@on_the_daemon
def test_what_takes_long_is_no_one_elses_doing(
    deferred_guest: Callable[..., Guest],
    watching: Callable[..., Watching],
    new_mac: Callable[[], str],
    libvirt_bridge: BridgeFactory,
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    dom = deferred_guest(mac, timeout=None).dom
    watch = watching("--json")
    with locked(dom.UUIDString()):
        plan = plan_attach(dom, mac, bridge.backend(blue.name), announce=False)
        carry_out_plan(dom, plan, lambda *_: time.sleep(2))
    told = watch.events(2)
    assert sorted(map(short, told)) == [("carrier", "nicplug"), ("plugged", "nicplug")]

    # A start in the meantime, whoever did that, is told with what comes of it.
    dom.destroy()
    assert short(*watch.events(1)) == ("stopped", None)

    def start(step: Step, _seconds: float) -> None:
        if isinstance(step, UpdateDevice):
            dom.create()
            time.sleep(1)

    with locked(dom.UUIDString()):
        carry_out_plan(dom, plan_attach(dom, mac, bridge.backend(blue.name)), start)
    assert [short(told) for told in watch.events(2)] == [("started", None), ("plugged", "nicplug")]
    assert watch.end()[0] == 0


@on_the_daemon
def test_starts_and_stops_are_told_as_lines(
    deferred_guest: Callable[..., Guest], watching: Callable[..., Watching], new_mac: Callable[[], str]
) -> None:
    guest = deferred_guest(new_mac(), timeout=None)
    watch = watching()
    guest.dom.destroy()
    assert watch.line().endswith(f" {guest.name}: stopped")
    guest.dom.create()
    line = watch.line()
    assert f" {guest.name}: started (vnet" in line
    assert line.endswith(" unplugged)")
    guest.dom.destroy()
    guest.dom.undefine()
    assert watch.line().endswith(f" {guest.name}: stopped")
    assert watch.line().endswith(f" {guest.name}: undefined")
    assert watch.end() == (0, "")


def test_ctrl_c_that_no_wait_sees_ends_it(watching: Callable[..., Watching]) -> None:
    watch = watching()
    pid = watch.process.pid
    other = next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid))
    time.sleep(1)
    # What came just before Python began to wait does not end the wait; nor does what another thread gets.
    ctypes.CDLL(None).tgkill(pid, other, signal.SIGINT)
    assert watch.wait() == (0, "")


@on_the_daemon
def test_libvirtd_goes_away_and_comes_back(
    libvirt_daemon: PrivateDaemon,
    deferred_guest: Callable[..., Guest],
    watching: Callable[..., Watching],
    new_mac: Callable[[], str],
    libvirt_bridge: BridgeFactory,
) -> None:
    blue, mac = libvirt_bridge(), new_mac()
    guest = deferred_guest(mac, timeout=None)
    watch, ending = watching("--json"), watching("--no-reconnect")

    libvirt_daemon.stop()
    (gone,) = watch.events(1)
    assert (gone["event"], gone["domain"]) == ("disconnected", None)
    assert ending.line().endswith(" libvirt is gone")
    assert ending.wait() == (0, "")

    libvirt_daemon.start()
    guest.dom = libvirt_daemon.connect().lookupByName(guest.name)
    (back,) = watch.events(1)
    assert back["event"] == "connected"
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    assert [short(told) for told in watch.events(2)] == [("plugged", "nicplug"), ("carrier", "nicplug")]
    assert watch.end() == (0, "")


@on_the_daemon
def test_what_happened_while_libvirtd_was_away_is_told(
    libvirt_daemon: PrivateDaemon,
    deferred_guest: Callable[..., Guest],
    watching: Callable[..., Watching],
    new_mac: Callable[[], str],
) -> None:
    guest = deferred_guest(new_mac(), timeout=None)
    watch = watching(guest.name, "no-such-domain")
    libvirt_daemon.stop()
    assert watch.line().endswith(" libvirt is gone")
    (qemu,) = processes(f"guest={guest.name},")
    os.kill(qemu, signal.SIGKILL)
    libvirt_daemon.start()
    guest.dom = libvirt_daemon.connect().lookupByName(guest.name)
    assert watch.line().endswith(" connected to libvirt")
    assert watch.line().endswith(f" {guest.name}: stopped")
    code, err = watch.end()
    assert code == 0
    assert err.startswith("nicplug: warning: there is no domain of the name 'no-such-domain' yet")
    assert err.count("\n") == 1


@on_the_daemon
def test_plane_hub_is_watched(
    libvirt_guest: GuestFactory,
    nic_xml: Callable[..., str],
    watching: Callable[..., Watching],
    new_mac: Callable[[], str],
) -> None:
    mac = new_mac()
    guest = libvirt_guest(nic_xml(mac), define=partial(define, plane="hub"), timeout=None)
    watch = watching("--json", guest.name)
    attach_backend(guest.dom, mac, user.backend())
    assert [short(told) for told in watch.events(2)] == [("plugged", "nicplug"), ("carrier", "nicplug")]
    detach_backend(guest.dom, mac)
    assert [short(told) for told in watch.events(2)] == [("unplugged", "nicplug"), ("carrier", "nicplug")]
    assert watch.end() == (0, "")


def test_containers_are_watched(
    libvirt_daemon: PrivateDaemon,
    libvirt_container: GuestFactory,
    nic_xml: Callable[..., str],
    new_mac: Callable[[], str],
    libvirt_bridge: BridgeFactory,
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    container = libvirt_container(nic_xml(mac), define=define)
    watch = Watching(libvirt_daemon.container_uri, "--json", container.name)
    try:
        assert watch.events(1)[0]["event"] == "connected"
        attach_backend(container.dom, mac, bridge.backend(blue.name))
        assert [short(told) for told in watch.events(2)] == [("plugged", "nicplug"), ("carrier", "nicplug")]
        assert watch.end() == (0, "")
    finally:
        if watch.process.poll() is None:
            watch.process.kill()
            watch.wait()


def test_the_kernel_tells_who_has_many_descriptors(libvirt_isolated: None) -> None:
    told: queue.SimpleQueue[Occurrence] = queue.SimpleQueue()
    with many_descriptors(), kernel_told(told):
        run("ip", "link", "add", "npmany", "type", "bridge")
        run("ip", "link", "delete", "npmany")
        assert told.get(timeout=10).name == "npmany"


def test_ctrl_c_ends_it_while_libvirtd_is_away(
    libvirt_daemon: PrivateDaemon, watching: Callable[..., Watching]
) -> None:
    watch = watching()
    libvirt_daemon.stop()
    assert watch.line().endswith(" libvirt is gone")
    time.sleep(1)
    assert watch.end() == (0, "")
    libvirt_daemon.start()
