"""What is read of a running guest for pictures, for programs and for the shell, all by the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import (
    InterfaceStatus,
    attach_backend,
    carry_out_plan,
    define,
    detach_backend,
    interfaces,
    plan_attach,
)
from nicplug_xml.backends import bridge, netdev, user
from nicplug_xml.host.locking import locked
from tests.json_document import check, commands
from tests.live.conftest import emulator, veth

if TYPE_CHECKING:
    from nicplug_xml.steps import Step
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

on_the_daemon = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)


def nicplug(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "nicplug_xml", *arguments], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@on_the_daemon
def test_a_running_guest_is_read(
    libvirt_daemon: PrivateDaemon,
    deferred_guest: Callable[..., Guest],
    new_mac: Callable[[], str],
    libvirt_bridge: BridgeFactory,
) -> None:
    blue, green, plugged, loose = libvirt_bridge(), libvirt_bridge(), new_mac(), new_mac()
    guest = deferred_guest(plugged, loose, timeout=None)
    attach_backend(guest.dom, plugged, bridge.backend(blue.name))
    uri = libvirt_daemon.uri

    drawn = json.loads(nicplug("-c", uri, "--json", "graph", guest.name))
    check(drawn, commands()["graph"])
    assert drawn["places"] == [{"kind": "bridge", "name": blue.name, "note": None}]
    (found,) = drawn["guests"]
    assert (found["domain"], found["running"]) == (guest.name, True)
    states = {nic["mac"]: (nic["connection"], nic["carrier"], nic["place"]) for nic in found["nics"]}
    assert states == {
        plugged: ("attached", True, drawn["places"][0]),
        loose: ("deferred", False, None),
    }

    def offered(*words: str) -> list[str]:
        return [line.split("\t")[0] for line in nicplug("__complete", "-c", uri, *words).splitlines()]

    assert offered("attach-backend", guest.name[:-1]) == [guest.name]
    assert {plugged, loose} < set(offered("attach-backend", guest.name, ""))
    assert {blue.name, green.name} <= set(offered("attach-backend", guest.name, loose, "--bridge", ""))
    assert "nicplug-parking" not in offered("attach-backend", guest.name, loose, "--network", "")

    attach = ("-c", uri, "--json", "attach-backend", guest.name, loose, "--bridge", green.name)
    check(json.loads(nicplug(*attach, "--dry-run")), "plan")
    done = json.loads(nicplug(*attach))
    check(done, "interface")
    assert (done["backend"]["source"], done["carrier"], done["changed"]) == (
        {"bridge": green.name},
        True,
        True,
    )


@on_the_daemon
def test_who_looks_in_the_middle_of_an_operation_sees_nothing_odd(
    deferred_guest: Callable[..., Guest], new_mac: Callable[[], str], libvirt_bridge: BridgeFactory
) -> None:
    blue, mac = libvirt_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    looking: list[Future[list[InterfaceStatus]]] = []

    def look(_step: Step, _seconds: float) -> None:
        looking.append(pool.submit(interfaces, dom))
        time.sleep(0.2)

    with veth("npwire", blue.name), ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in (netdev.backend("npwire"), bridge.backend(blue.name), netdev.backend("npwire")):
            with locked(dom.UUIDString()):
                carry_out_plan(dom, plan_attach(dom, mac, place, announce=False), look)
            assert all(seen.result() for seen in looking)
        detach_backend(dom, mac)


@on_the_daemon
@pytest.mark.parametrize("plane", ["hub", "swap"])
def test_a_connection_for_reading_alone(
    libvirt_daemon: PrivateDaemon,
    libvirt_guest: GuestFactory,
    nic_xml: Callable[..., str],
    new_mac: Callable[[], str],
    patched_qemu: Path,
    plane: str,
) -> None:
    """QEMU's monitor is not to be had there, so what is recorded is shown."""
    plugged, loose = new_mac(), new_mac()
    guest = libvirt_guest(
        nic_xml(plugged) + nic_xml(loose),
        define=lambda conn, xml: define(conn, xml, plane=plane),
        devices_xml=emulator(patched_qemu) if plane == "swap" else "",
        timeout=None,
    )
    attach_backend(guest.dom, plugged, user.backend())
    uri, readonly = libvirt_daemon.uri, f"{libvirt_daemon.uri}-ro"

    for asked in (("-r", "-c", uri), ("-c", readonly)):
        assert nicplug(*asked, "list", guest.name) == nicplug("-c", uri, "list", guest.name)
        assert nicplug(*asked, "graph", guest.name) == nicplug("-c", uri, "graph", guest.name)
        assert nicplug(*asked, "dumpxml", guest.name) == nicplug("-c", uri, "dumpxml", guest.name)
    ran = subprocess.run(
        [sys.executable, "-m", "nicplug_xml", "-c", readonly, "detach-backend", guest.name, plugged],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "read only access" in ran.stderr
