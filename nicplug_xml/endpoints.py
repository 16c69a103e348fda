"""Endpoints: what a backend looks like from the host, for a plane to join a NIC to."""

from __future__ import annotations

from collections.abc import Mapping

from nicplug_xml.frozen import Frozen


class Endpoint(Frozen):
    """Any of the classes below."""


class BridgePort(Endpoint):
    """A port of a Linux bridge.

    :param bridge: the bridge's name.
    :param isolated: whether it reaches only ports that are not isolated.
    :param given: what else a libvirt network gives to its NICs' backends, the children's names.
    """

    bridge: str
    isolated: bool = False
    given: frozenset[str] = frozenset()


class OvsPort(Endpoint):
    """A port of an Open vSwitch bridge.

    :param bridge: the bridge's name.
    :param interfaceid: what a controller knows the port by, a UUID; an empty string has one made up.
    :param profileid: the port profile, or an empty string.
    :param tag: the VLAN of an access port, or the native one of a trunk; None for none.
    :param trunks: the VLANs of a trunk; none of these, with a mode or without a tag: all there are.
    :param vlan_mode: ``native-tagged`` or ``native-untagged`` for a trunk with a native VLAN, else empty.
    :param given: as of a `BridgePort`.
    """

    bridge: str
    interfaceid: str = ""
    profileid: str = ""
    tag: int | None = None
    trunks: tuple[int, ...] = ()
    vlan_mode: str = ""
    given: frozenset[str] = frozenset()


class MacvtapOn(Endpoint):
    """A macvtap on a host network device.

    :param device: the lower device's name.
    :param mode: ``bridge``, ``private``, ``vepa`` or ``passthru``, as the kernel calls them.
    :param given: as of a `BridgePort`.
    """

    device: str
    mode: str
    given: frozenset[str] = frozenset()


class HostDevice(Endpoint):
    """A network device of the host, which is there already.

    :param name: its name.
    """

    name: str


class CableTo(Endpoint):
    """Another NIC.

    :param domain: its domain's name.
    :param interface: its MAC or alias.
    :param device: its host device; empty as long as nobody has looked.
    """

    domain: str
    interface: str
    device: str = ""


class Netdev(Endpoint):
    """A QEMU netdev that needs nothing of the host's.

    :param arguments: arguments of QEMU's ``netdev_add``, without ``id``.
    :param always: whether every QEMU has it that has hubs.
    :param takes: what of the host's it takes for itself, as ``tcp 7080``.
    """

    arguments: Mapping[str, object]
    always: bool = True
    takes: frozenset[str] = frozenset()


class StreamTo(Endpoint):
    """A stream socket to somebody who listens.

    :param address: address or host name, or the path of a UNIX socket.
    :param port: TCP port; None for a UNIX socket.
    """

    address: str
    port: int | None


class Passt(Endpoint):
    """A passt process of ours, connected by a socket.

    :param options: its command line options.
    :param takes: as of a `Netdev`.
    """

    options: tuple[str, ...]
    takes: frozenset[str] = frozenset()


class Descriptor(Endpoint):
    """A file descriptor that the caller has opened, or one for each queue; they stay the caller's.

    :param fds: their numbers in this process.
    :param type: the QEMU netdev type that takes them: ``tap`` for taps and macvtaps, or ``socket``.
    """

    fds: tuple[int, ...]
    type: str


class LibvirtsOwn(Endpoint):
    """What libvirt itself makes of a backend, by which no plane of ours is to join anything."""


class NetworkPort(Endpoint):
    """A port of a libvirt network, which libvirt itself joins.

    :param network: the network's name.
    """

    network: str
