"""`qemu:///session`: a guest of a user's own, who may do nothing on the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.guest import Guest, channel_path, console_path, guest_xml
from tests.live import far_end
from tests.live.conftest import NIC, run, wait_until
from tests.live.test_hub import HERE, backend, echo_server, reaches

if TYPE_CHECKING:
    from nicplug_xml.testing.plugin import BridgeFactory, PeerFactory

MAC = "52:54:00:11:22:01"
#: Root's files are this user's, and of root's rights there are none.
_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_PLACES = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")


class User:
    """Somebody who has a libvirtd, and a guest with one NIC."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = {**os.environ, **dict.fromkeys(_PLACES, str(directory))}

    def start_libvirtd(self) -> subprocess.Popen[bytes]:
        """Start a libvirtd in a process namespace, with which all that it has started ends."""
        # libvirt takes a guest for alive as long as no process 1 has taken note of its end: a shell does.
        own = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        return subprocess.Popen([*_USER, *own, "sh", "-c", "libvirtd & wait"], env=self._environment)

    def run(self, *command: str) -> str:
        """Run a program, and return what it prints."""
        done = self._run(command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nicplug(self, *arguments: str) -> str:
        """Run nicplug, and return what it prints."""
        return self.run(*self._nicplug(arguments))

    def refused(self, *arguments: str) -> str:
        """Run nicplug, which is to refuse that, and return what it says."""
        done = self._run(self._nicplug(arguments))
        assert done.returncode == 1, done.stdout
        return done.stderr

    def nic(self) -> tuple[str, str, bool]:
        """Return what nicplug tells of the NIC: its plane, its connection and its carrier."""
        (nic,) = json.loads(self.nicplug("list", "--json"))
        return nic["plane"], nic["connection"], nic["carrier"]

    def _nicplug(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return sys.executable, "-m", "nicplug_xml", "-c", "qemu:///session", *arguments

    def _run(self, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_USER, *command], env=self._environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def user(libvirt_isolated: None) -> Iterator[User]:
    """A user whose libvirtd runs."""
    with short_directory() as directory:
        user = User(directory)
        with user.start_libvirtd() as libvirtd:
            try:
                wait_until((directory / "libvirt" / "libvirt-sock").exists)
                yield user
            finally:
                libvirtd.kill()


@pytest.fixture
def guest(user: User) -> Iterator[Guest]:
    """That user's guest, which runs; its NIC is unplugged."""
    place = user.directory
    nic = NIC.format(attributes="connection='deferred'", mac=MAC, children="")
    (place / "mine.xml").write_text(guest_xml("mine", nic, workdir=place))
    user.nicplug("define", str(place / "mine.xml"))
    user.run("virsh", "-c", "qemu:///session", "start", "mine")
    with closing(libvirt.open(f"qemu+unix:///session?socket={place}/libvirt/libvirt-sock")) as conn:
        dom = conn.lookupByName("mine")
        guest = Guest(dom, console_path("mine", place), channel_path("mine", place))
        guest.wait_ready()
        yield guest


def test_plugging_without_root(
    user: User, guest: Guest, libvirt_bridge: BridgeFactory, libvirt_peer: PeerFactory
) -> None:
    # passt gives the guest the address of the device that the default route goes through.
    blue = libvirt_bridge("192.0.2.1/24")
    libvirt_peer(blue, "192.0.2.254/24")
    run("ip", "route", "add", "default", "via", "192.0.2.254", "dev", blue.name)
    for address in ("10.0.2.15/24", "192.0.2.1/24", "198.18.0.1/24"):
        guest.set_address(MAC, address)
    document = user.directory / "backend.xml"
    try:
        with far_end.listening(7001), far_end.in_group("230.0.0.7", 7002), closing(echo_server(7006)):
            for kind, xml, probe in (
                ("user", "<backend type='user'/>", "10.0.2.2"),
                ("passt", "<backend type='user'><backend type='passt'/></backend>", "192.0.2.254:7006"),
                ("client", backend("client", f"address='{HERE}' port='7001'"), far_end.ADDRESS),
                ("mcast", backend("mcast", "address='230.0.0.7' port='7002'"), far_end.ADDRESS),
            ):
                document.write_text(xml)
                user.nicplug("attach-backend", "mine", MAC, str(document))
                assert (user.nic(), guest.carrier(MAC)) == (("hub", "attached", True), True), kind
                assert reaches(guest, probe), kind
                user.nicplug("detach-backend", "mine", MAC)
                assert (user.nic(), guest.carrier(MAC)) == (("hub", "deferred", False), False), kind
        for option, name in (("--bridge", blue.name), ("--direct", blue.name)):
            assert user.refused("attach-backend", "mine", MAC, option, name).endswith("; this takes root\n")
            assert (user.nic(), guest.carrier(MAC)) == (("hub", "deferred", False), False), option
    finally:
        run("ip", "route", "delete", "default")
