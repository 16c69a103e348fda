"""Planes hub and swap without libvirt: a QEMU that was started by hand, and its QMP socket."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import Connection, NicplugError, OperationError
from nicplug_xml.backends import bridge, user
from nicplug_xml.host import monitor
from nicplug_xml.host.monitor import info_network, netdev_types
from nicplug_xml.host.qmp import QmpHost
from nicplug_xml.model import Backend
from nicplug_xml.plan import carry_out
from nicplug_xml.planes import netdevs
from nicplug_xml.testing.channel import Channel
from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.guest import guest_image
from tests.live.conftest import run

if TYPE_CHECKING:
    from nicplug_xml.testing.plugin import BridgeFactory

NIC, MAC = "ua-nic0", "52:54:00:11:33:01"


def listens(path: str) -> bool:
    """Tell whether somebody listens at a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


class HandMade:
    """A QEMU that knows nothing of libvirt, with one NIC.

    :param program: the QEMU.
    :param netdev: the NIC's, without its id.
    """

    def __init__(self, directory: Path, program: str, netdev: str) -> None:
        image = guest_image()
        self.qmp = str(directory / "qmp")
        self._channel = Channel(directory / "channel")
        self.process = subprocess.Popen(
            [
                *(program, "-machine", "q35", "-accel", "tcg", "-m", "160", "-nodefaults"),
                *("-display", "none", "-kernel", str(image.kernel), "-initrd", str(image.initrd)),
                *("-append", "console=ttyS0 quiet"),
                *("-serial", f"file:{directory}/log"),
                *("-serial", f"unix:{directory}/channel,server=on,wait=off"),
                *("-qmp", f"unix:{self.qmp},server=on,wait=off"),
                *("-netdev", f"{netdev},id=nicplug-{NIC}"),
                *("-device", f"virtio-net-pci,id={NIC},netdev=nicplug-{NIC},mac={MAC},romfile="),
            ]
        )
        # Its path is there a moment before QEMU listens.
        while not listens(self.qmp):
            assert self.process.poll() is None
            time.sleep(0.02)

    def wait_ready(self) -> None:
        """Wait until the guest answers: what it is told before goes unheard."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self._channel.request(":", 0.5)
            except TimeoutError:
                assert time.monotonic() < deadline
            else:
                return

    def run(self, command: str) -> str:
        """Run a command in the guest."""
        return self._channel.request(command, 60)[1]

    def carrier(self) -> bool:
        """Tell whether the guest sees a carrier."""
        return self.run("cat /sys/class/net/eth0/carrier").strip() == "1"

    def answered(self, address: str) -> bool:
        """Tell whether a ping of the guest's is answered."""
        received = re.search(r"(\d+) packets received", self.run(f"ping -c 5 -i 0.2 -w 5 {address}"))
        return received is not None and int(received[1]) > 0

    def descriptors(self, host: QmpHost) -> int:
        """Count QEMU's open files, once it has noticed that the last command for the guest has hung up."""
        deadline = time.monotonic() + 10
        while True:
            devices = host.monitor("query-chardev", {})
            assert isinstance(devices, list)
            (channel,) = (name for item in devices if "/channel" in (name := item["filename"]))
            if channel.startswith("disconnected:"):
                return len(os.listdir(f"/proc/{self.process.pid}/fd"))
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(params=["hub", "swap"])
def by_hand(request: pytest.FixtureRequest, libvirt_isolated: None) -> Iterator[HandMade]:
    """A running QEMU; a test that asks for it runs on plane hub, and on plane swap."""
    program, netdev = "qemu-system-x86_64", "hubport,hubid=7"
    if request.param == "swap":
        program, netdev = str(request.getfixturevalue("patched_qemu")), "unconnected"
    with short_directory() as directory:
        qemu = HandMade(directory, program, netdev)
        try:
            yield qemu
        finally:
            qemu.process.kill()
            qemu.process.wait()


def test_plug_move_unplug_by_qmp(by_hand: HandMade, libvirt_bridge: BridgeFactory) -> None:
    blue = libvirt_bridge("192.0.2.1/24")
    qemu = by_hand
    with closing(QmpHost(qemu.qmp)) as host:
        assert {"user", "stream", "tap", "hubport"} <= netdev_types(host._qmp)
        host.require_netdev("user")
        with pytest.raises(NicplugError, match="no netdev of type 'carrier-pigeon'; it has"):
            host.require_netdev("carrier-pigeon")
        (nic,) = host.read().interfaces
        assert (nic.key, nic.mac, nic.connection) == (NIC, MAC, Connection.DEFERRED)
        qemu.wait_ready()
        qemu.run("ip addr add 192.0.2.2/24 dev eth0; ip addr add 10.0.2.15/24 dev eth0")
        assert not qemu.carrier()
        descriptors = qemu.descriptors(host)
        netdevs = info_network(host._qmp)

        carry_out(host.plan_attach(NIC, bridge.backend(blue.name)), host)
        assert qemu.carrier()
        assert qemu.answered("192.0.2.1")

        carry_out(host.plan_attach(NIC, user.backend()), host)
        assert qemu.carrier()
        assert qemu.answered("10.0.2.2")
        assert not run("ip", "link", "show", "master", blue.name)

        busy = Backend.of("<backend type='server'><source address='127.0.0.1' port='7998'/></backend>")
        with (
            socket.create_server(("127.0.0.1", 7998)),
            pytest.raises(NicplugError, match=r"Address already in use.*attached, link up now"),
        ):
            carry_out(host.plan_attach(NIC, busy), host)
        assert qemu.answered("10.0.2.2")

        carry_out(host.plan_set_link(NIC, up=False), host)
        assert not qemu.carrier()
        carry_out(host.plan_set_link(NIC, up=True), host)
        assert qemu.carrier()

        carry_out(host.plan_detach(NIC), host)
        assert not qemu.carrier()
        sink = f" \\ nicplug-{NIC}.sink\n"
        assert info_network(host._qmp).replace(sink, "") == netdevs
        assert qemu.descriptors(host) == descriptors
        # The one that it had.
        carry_out(host.plan_attach(NIC), host)
        assert qemu.answered("10.0.2.2")
        with pytest.raises(NicplugError, match="networks are not known"):
            host.plan_attach(NIC, Backend.of("<backend type='network'><source network='x'/></backend>"))
        ours, its = socket.socketpair()
        with ours, its, pytest.raises(NicplugError, match="a descriptor and a backend were given"):
            host.plan_attach(NIC, user.backend(), fds=[its.fileno()])
        with pytest.raises(NicplugError, match="has no NIC 'ua-other'"):
            host.plan_detach("ua-other")
    # Another client finds what this one has left.
    with closing(QmpHost(qemu.qmp)) as host:
        assert host.read().interfaces[0].connection is Connection.ATTACHED
        carry_out(host.plan_detach(NIC), host)
        assert not qemu.carrier()


def test_a_bridge_that_is_made_anew(by_hand: HandMade, libvirt_bridge: BridgeFactory) -> None:
    blue = libvirt_bridge()
    with closing(QmpHost(by_hand.qmp)) as host:
        carry_out(host.plan_attach(NIC, bridge.backend(blue.name)), host)
        run("ip", "link", "delete", blue.name)
        run("ip", "link", "add", blue.name, "type", "bridge")
        for steps in (True, False):
            plan = host.plan_attach(NIC)
            assert bool(plan.steps) is steps
            carry_out(plan, host)
        assert run("ip", "link", "show", "master", blue.name)


def test_a_netdev_that_somebody_else_has_ended(by_hand: HandMade) -> None:
    with closing(QmpHost(by_hand.qmp)) as host:
        carry_out(host.plan_attach(NIC, user.backend()), host)
        for netdev in netdevs.backends(NIC):
            with suppress(OperationError):
                host.monitor("netdev_del", {"id": netdev})
        assert host.read().interfaces[0].connection is Connection.DEFERRED
        carry_out(host.plan_attach(NIC), host)
        assert host.read().interfaces[0].connection is Connection.ATTACHED
        carry_out(host.plan_detach(NIC), host)


def test_no_monitor(tmp_path: Path) -> None:
    with pytest.raises(NicplugError, match="no QEMU monitor at"):
        QmpHost(str(tmp_path / "nobody"))


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and see it gone."""
    process.kill()
    process.wait()


def test_a_monitor_that_does_not_answer(by_hand: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_PATIENCE", 0.3)
    with closing(QmpHost(by_hand.qmp)) as host:
        with pytest.raises(OperationError, match=r"not greeted for 0\.3 s; it serves one client at a time"):
            QmpHost(by_hand.qmp)
        plan = host.plan_attach(NIC, user.backend())
        with pytest.raises(OperationError, match=r"has hung up.*could not be undone.*; see whether"):
            carry_out(plan, host, lambda step, seconds: end(by_hand.process))
        with pytest.raises(OperationError, match="has hung up"):
            host.read()


def test_qemus_own_words(by_hand: HandMade) -> None:
    with (
        closing(QmpHost(by_hand.qmp)) as host,
        pytest.raises(
            NicplugError, match=r"QEMU refuses netdev_del: Device 'x' not found \(DeviceNotFound\)"
        ),
    ):
        host.monitor("netdev_del", {"id": "x"})
