"""Endpoints: what a backend looks like from the host, for a plane to join a NIC to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class Endpoint:
    """Any of the classes below."""


@dataclass(frozen=True)
class BridgePort(Endpoint):
    """A port of a Linux bridge.

    :param bridge: the bridge's name.
    :param isolated: whether it reaches only ports that are not isolated.
    """

    bridge: str
    isolated: bool = False


@dataclass(frozen=True)
class MacvtapOn(Endpoint):
    """A macvtap on a host network device.

    :param device: the lower device's name.
    :param mode: ``bridge``, ``private``, ``vepa`` or ``passthru``, as the kernel calls them.
    """

    device: str
    mode: str


@dataclass(frozen=True)
class Netdev(Endpoint):
    """A QEMU netdev that needs nothing of the host's.

    :param arguments: arguments of QEMU's ``netdev_add``, without ``id``.
    :param always: whether every QEMU has it that has hubs.
    """

    arguments: Mapping[str, object]
    always: bool = True


@dataclass(frozen=True)
class StreamTo(Endpoint):
    """A stream socket to somebody who listens.

    :param address: address or host name, or the path of a UNIX socket.
    :param port: TCP port; None for a UNIX socket.
    """

    address: str
    port: int | None


@dataclass(frozen=True)
class Passt(Endpoint):
    """A passt process of ours, connected by a socket.

    :param options: its command line options.
    """

    options: tuple[str, ...]


@dataclass(frozen=True)
class Descriptor(Endpoint):
    """A file descriptor that the caller has opened; it stays the caller's.

    :param fd: its number in this process.
    :param type: the QEMU netdev type that takes it: ``tap`` for taps and macvtaps, or ``socket``.
    """

    fd: int
    type: str


@dataclass(frozen=True)
class NetworkPort(Endpoint):
    """A port of a libvirt network, which libvirt itself joins.

    :param network: the network's name.
    """

    network: str
