"""What the planes share whose backends are QEMU netdevs: their ids, and how an endpoint becomes one.

A NIC's backends have two ids in turn, since a move has the old one and the new one at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from nicplug_xml.endpoints import (
    BridgePort,
    Descriptor,
    Endpoint,
    MacvtapOn,
    Netdev,
    OvsPort,
    Passt,
    StreamTo,
)
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import Backend, Connection, Interface
from nicplug_xml.planes.held import Held
from nicplug_xml.planes.tap import has_fallen_off
from nicplug_xml.steps import (
    AwaitListening,
    Connect,
    LetGoFirst,
    Monitor,
    OpenMacvtap,
    OpenTap,
    RequireNetdev,
    SendDescriptor,
    StartPasst,
    Step,
    UseDescriptor,
)

#: What the ids of our netdevs begin with.
PREFIX = "nicplug-"

#: Backend types that can become a netdev.
KINDS = frozenset(
    (
        *("bridge", "network", "direct", "user", "mcast", "udp", "server", "client", "fd"),
        *("stream", "dgram", "l2tpv3", "vde"),
    )
)
#: Of those, what is a socket to somebody.
_CONNECTED = frozenset(("client", "stream", "user", "fd"))
#: libvirt carries these out on a tap of its own making, which it has not got here, or (routes) nowhere.
_REFUSED = frozenset(("bandwidth", "filterref", "vlan", "virtualport", "mtu", "coalesce", "tune", "route"))


def refused(backend: Backend, _endpoint: Endpoint | None = None) -> frozenset[str]:
    """Return the children that a backend of that kind cannot have.

    Addresses are those of a user-mode network: nobody else has any to give to the guest.
    """
    return _REFUSED if backend.type in (None, "user") else _REFUSED | {"ip"}


def shows(_backend: Backend, _endpoint: Endpoint | None = None) -> bool:
    """The stock interface is a placeholder, and tells of no backend."""
    return False


def own(key: str) -> str:
    """Return the id of the netdev that the NIC of that key starts with."""
    return PREFIX + key


def backend(key: str, generation: int) -> str:
    """Return one of the two ids, 0 and 1, that the NIC's backend can have."""
    return f"{own(key)}.{generation}"


def backends(key: str) -> tuple[str, str]:
    """Return both ids that the NIC's backend can have."""
    return backend(key, 0), backend(key, 1)


#: What becomes a netdev with as many queues as the NIC has.
WITH_QUEUES = (BridgePort, MacvtapOn, Descriptor)


class Opening(Frozen):
    """A netdev that is to be.

    :param id: its id.
    :param mac: the NIC's.
    :param queues: how many the NIC has.
    """

    id: str
    mac: str
    queues: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """What its queues' descriptors are called on their way to QEMU."""
        return (self.id,) if self.queues == 1 else tuple(f"{self.id}.q{n}" for n in range(self.queues))


def make(opening: Opening, endpoint: Endpoint, present: Collection[str]) -> list[Step]:
    """Plan to make a netdev of an endpoint.

    :param present: the ids of QEMU's netdevs: that of an interrupted move's may be among them.
    :raises UnsupportedError: there is no netdev for such an endpoint.
    """
    if isinstance(endpoint, OvsPort):
        # A libvirt network may be that, whatever it is called.
        raise UnsupportedError(
            f"'{endpoint.bridge}' is a bridge of Open vSwitch, which planes hub and swap cannot plug into",
            hint="a NIC on plane tap can be plugged into it",
        )
    steps = _MAKE[type(endpoint)](opening, endpoint)
    if opening.id in present:
        return [LetGoFirst(delete(opening.id), (), "let go of what an interrupted move has left"), *steps]
    return steps


def await_listening(opening: Opening, endpoint: Endpoint) -> list[Step]:
    """Plan to see that a netdev listens, if it is to; a QEMU with our patches does so at once."""
    arguments = endpoint.arguments if isinstance(endpoint, Netdev) else {}
    listens = arguments.get("type") == "stream" and arguments.get("server")
    return [AwaitListening(opening.id)] if listens else []


def make_again(opening: Opening, held: Held, endpoint: Endpoint) -> list[Step]:
    """Plan to make the present backend anew, where it has to go before the endpoint is made.

    That is where both would take the same of the host: a port, or a device for a macvtap, of which the kernel
    has neither two of one MAC, nor any beside one in passthrough mode.
    """
    if has_fallen_off(held.nic, held.facts):
        return []  # what it was on may have gone, and is in nobody's way
    present = held.present()
    return make(opening, present, ()) if present is not None and _takes(present) & _takes(endpoint) else []


def add(arguments: dict[str, object]) -> Monitor:
    """Plan to make a netdev."""
    undo = ("netdev_del", {"id": arguments["id"]})
    return Monitor("make the netdev", "netdev_add", arguments, undo)


def delete(netdev: str) -> Monitor:
    """Plan to end a netdev. Nothing takes that back."""
    return Monitor("let go of the backend", "netdev_del", {"id": netdev})


def delete_all(key: str, present: Collection[str]) -> list[Step]:
    """Plan to end all backends of a NIC: more than one are there after a move that was interrupted.

    :param present: the ids of QEMU's netdevs.
    """
    return [delete(name) for name in backends(key) if name in present]


def let_go_of_left(held: Held, parting: Sequence[Step]) -> list[Step]:
    """Plan to end all backends of a NIC that is not plugged in: an interrupted operation has left them.

    Nobody knows what they have of the host, and whether the next backend takes the same.

    :param parting: what parts the NIC from one of them.
    """
    steps = [*parting, *delete_all(held.nic.key, held.facts.netdevs or ())]
    return [LetGoFirst(step, (), "let go of what an interrupted operation has left") for step in steps]


def _takes(endpoint: Endpoint) -> frozenset[str]:
    """Return what of the host only one of our netdevs can have at a time."""
    if isinstance(endpoint, MacvtapOn):
        return frozenset((f"device {endpoint.device}",))
    return endpoint.takes if isinstance(endpoint, (Netdev, Passt)) else frozenset()


def has_ended(nic: Interface, facts: Facts) -> bool:
    """Whether a NIC is plugged into somebody who has hung up; QEMU keeps the netdev."""
    connected = nic.backend is not None and nic.backend.type in _CONNECTED
    return connected and any(name in facts.ended for name in backends(nic.key))


def was_cut_short(nic: Interface, facts: Facts) -> bool:
    """Whether a NIC has both the old and the new backend of a move: it may be plugged into either."""
    both = set(backends(nic.key)) <= set(facts.netdevs or ())
    return nic.connection is Connection.ATTACHED and both


def _tap(opening: Opening, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, BridgePort)
    open_tap = OpenTap(opening.names, endpoint.bridge, opening.mac, endpoint.isolated)
    return [open_tap, *_hand_over(opening, "tap")]


def _macvtap(opening: Opening, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, MacvtapOn)
    open_macvtap = OpenMacvtap(opening.names, endpoint.device, endpoint.mode, opening.mac)
    return [open_macvtap, *_hand_over(opening, "tap")]


def _connect(opening: Opening, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, StreamTo)
    return [Connect(opening.id, endpoint.address, endpoint.port), *_hand_over(_single(opening), "socket")]


def _start_passt(opening: Opening, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, Passt)
    return [StartPasst(opening.id, endpoint.options), *_hand_over(_single(opening), "socket")]


def _use_descriptor(opening: Opening, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, Descriptor)
    if len(endpoint.fds) != opening.queues:
        raise UnsupportedError(
            f"{len(endpoint.fds)} descriptors were handed in for a NIC with {opening.queues} queues",
            hint="open a tap with as many queues as the NIC has",
        )
    use = (UseDescriptor(name, fd) for name, fd in zip(opening.names, endpoint.fds, strict=True))
    return [*use, *_hand_over(opening, endpoint.type)]


def _netdev(opening: Opening, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, Netdev)
    look = [] if endpoint.always else [RequireNetdev(str(endpoint.arguments["type"]))]
    return [*look, add({**endpoint.arguments, "id": opening.id})]


#: How each kind of endpoint becomes a netdev.
_MAKE: dict[type[Endpoint], Callable[[Opening, Endpoint], list[Step]]] = {
    BridgePort: _tap,
    MacvtapOn: _macvtap,
    Passt: _start_passt,
    StreamTo: _connect,
    Descriptor: _use_descriptor,
    Netdev: _netdev,
}


def _single(opening: Opening) -> Opening:
    """Return the same with the one queue that this kind of netdev has, whatever the NIC has."""
    return Opening(opening.id, opening.mac)


def _hand_over(opening: Opening, kind: str) -> list[Step]:
    names = opening.names
    descriptors = {"fd": names[0]} if len(names) == 1 else {"fds": ":".join(names)}
    send = (SendDescriptor(name) for name in names)
    return [*send, add({"type": kind, "id": opening.id, **descriptors})]
