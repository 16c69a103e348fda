"""A client on another host: what libvirt itself can carry out works, and all else is refused at once."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import Connection, NicplugError, attach_backend, detach_backend, interfaces
from nicplug_xml.backends import direct
from tests.live.conftest import everything, veth
from tests.live.test_hub import NewGuest, hub_guest, plane

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.network import Peer
    from nicplug_xml.testing.plugin import BridgeFactory, PeerFactory

__all__ = ["hub_guest", "plane"]

NewMac = Callable[[], str]
pytestmark = pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)

HOST = "198.18.9.1"
#: Another host has devices of its own, so it has a /sys of its own.
ELSEWHERE = ["unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh"]


class Client:
    """A client on another host.

    :param peer: the host.
    :param uri: how it reaches libvirt.
    """

    def __init__(self, peer: Peer, uri: str) -> None:
        self._peer = peer
        self._uri = uri

    def nicplug(self, *arguments: str) -> str:
        """Run the command there, and return what it prints; what it says against it is raised."""
        command = [*ELSEWHERE, sys.executable, "-m", "nicplug_xml", "-c", self._uri, *arguments]
        return self._peer.run(command)


@pytest.fixture(params=["tcp", "unix"])
def client(
    request: pytest.FixtureRequest,
    libvirt_daemon: PrivateDaemon,
    libvirt_bridge: BridgeFactory,
    libvirt_peer: PeerFactory,
) -> Iterator[Client]:
    """A client over TCP, and one over a UNIX socket that sees nothing of what libvirtd has."""
    libvirt_daemon.start()
    peer = libvirt_peer(libvirt_bridge(f"{HOST}/24"), "198.18.9.2/24")
    path = libvirt_daemon.uri.partition("socket=")[2]
    if request.param == "unix":
        yield Client(peer, f"qemu+unix:///system?socket={path}")
        return
    with closing(socket.create_server((HOST, 0))) as listener:
        threading.Thread(target=serve, args=(listener, path), daemon=True).start()
        yield Client(peer, f"qemu+tcp://{HOST}:{listener.getsockname()[1]}/system")
        # close() alone does not wake up the thread that waits.
        listener.shutdown(socket.SHUT_RDWR)


def serve(listener: socket.socket, path: str) -> None:
    """Connect everybody who comes to a UNIX socket."""
    with suppress(OSError):
        while True:
            near = listener.accept()[0]
            far = socket.socket(socket.AF_UNIX)
            far.connect(path)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=copy, args=(one, other), daemon=True).start()


def copy(one: socket.socket, other: socket.socket) -> None:
    """Copy what comes until one of them hangs up."""
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_RDWR)


def test_what_libvirt_carries_out_works(
    client: Client, deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    assert json.loads(client.nicplug("--json", "list", guest.name))[0]["connection"] == "deferred"
    client.nicplug("attach-backend", guest.name, mac, "--bridge", blue.name)
    guest.wait_carrier(mac, up=True)
    assert guest.ping("192.0.2.1", count=2)
    assert f"bridge {blue}" in client.nicplug("list", guest.name)
    assert "connection=" in client.nicplug("dumpxml", guest.name)
    client.nicplug("set-link", guest.name, mac, "down")
    guest.wait_carrier(mac, up=False)
    client.nicplug("set-link", guest.name, mac, "up")
    client.nicplug("detach-backend", guest.name, mac)
    guest.wait_carrier(mac, up=False)
    assert interfaces(guest.dom)[0].connection is Connection.DEFERRED


def test_what_takes_the_hosts_kernel_is_refused(
    client: Client, deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac, timeout=None)
    why = "this takes the kernel of"
    with veth("nplow", blue.name) as lower:
        before = everything(guest.dom)
        for backend in (("--direct", lower), ("--netdev", lower), ("--ovs", blue.name)):
            with pytest.raises(NicplugError, match=why):
                client.nicplug("attach-backend", guest.name, mac, *backend)
            assert everything(guest.dom) == before
        # What the kernel has joined there cannot be parted from here.
        attach_backend(guest.dom, mac, direct.backend(lower))
        before = everything(guest.dom)
        assert "direct nplow" in client.nicplug("list", guest.name)
        for command in (
            ("attach-backend", guest.name, mac, "--bridge", blue.name),
            ("detach-backend", guest.name, mac),
        ):
            with pytest.raises(NicplugError, match=why):
                client.nicplug(*command)
            assert everything(guest.dom) == before
        detach_backend(guest.dom, mac)


def test_the_monitor_is_reached_and_descriptors_are_not(
    client: Client, hub_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = hub_guest(mac)
    guest.set_address(mac, "10.0.2.15/24")
    before = everything(guest.dom)
    with pytest.raises(NicplugError, match=r"a descriptor is to be handed to QEMU|there is no bridge"):
        client.nicplug("attach-backend", guest.name, mac, "--bridge", blue.name)
    assert everything(guest.dom) == before
    client.nicplug("attach-backend", guest.name, mac, "--user")
    guest.wait_carrier(mac, up=True)
    assert any(guest.ping("10.0.2.2") for _ in range(4))
    client.nicplug("detach-backend", guest.name, mac)
    guest.wait_carrier(mac, up=False)
