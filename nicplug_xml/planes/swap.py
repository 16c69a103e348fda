"""Plane ``swap``: the NIC has an ordinary netdev, and gets another one by QEMU's ``netdev-replace``.

Only a QEMU with our patches has that command. In the domain the interface is a placeholder, and the NIC's
frontend points at a netdev ``unconnected``, which holds nothing on the host and keeps the carrier down. It
has the vnet header, so that the guest is offered all offloads: for a backend without one, QEMU itself does
what the guest leaves to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.planes import netdevs, overriding, tap
from nicplug_xml.planes.held import Held
from nicplug_xml.steps import LetGoFirst, Monitor, Step

NAME = "swap"
DRIVER = "qemu"
NEEDS_ALIAS = True

#: The monitor command that a QEMU has to have.
COMMAND = "netdev-replace"

KINDS = netdevs.KINDS
KEPT: frozenset[str] = frozenset()

refused = netdevs.refused
shows = netdevs.shows
release = overriding.release


def hold(document: Document, interface: Element, _parking: str) -> Sequence[str]:
    """Make a stock ``<interface>`` a placeholder; return the children that it is to get.

    libvirt refuses several queues for ``user``, and tells the frontend of them for ``ethernet``, whose tap
    stays unused.
    """
    document.set_attribute(interface, "type", "user" if _queues_of(interface) == 1 else "ethernet")
    return ()


def provision(document: Document, interfaces: Mapping[str, Element]) -> None:
    """Add a netdev ``unconnected`` to the domain for each interface, and point the frontend at it."""
    overriding.provision(document, {key: (_unconnected(key, found),) for key, found in interfaces.items()})


def look(_interface: Element, entry: Entry, facts: Facts) -> tuple[Connection, bool]:
    """Return whether the NIC has a backend: as recorded, and as QEMU says where it was asked."""
    joined = entry.attached and (facts.peers is None or has_joined(entry.key, facts.peers))
    return Connection.ATTACHED if joined else Connection.DEFERRED, False


def has_joined(key: str, peers: Mapping[str, str]) -> bool:
    """Whether the NIC of that key has a backend.

    :param peers: the netdev that each of QEMU's NICs has, by the NIC's id.
    """
    return peers.get(key) in netdevs.backends(key)


def attach(
    held: Held, _backend: Backend, endpoint: Endpoint, link: str | None
) -> tuple[list[Step], list[Step]]:
    """Plan to give a NIC a netdev of an endpoint; the one that it had goes afterwards.

    Only where both take the same of the host, a port or a macvtap's device, it goes before the next one: then
    the guest sees no carrier in between.
    """
    if held.scope is Scope.CONFIG:
        return [], []
    key, present, peer = held.nic.key, held.facts.netdevs or (), _peer(held)
    queues = _queues_of(held.nic.element)
    if queues > 1 and not isinstance(endpoint, netdevs.WITH_QUEUES):
        raise UnsupportedError(
            f"{held.nic.name} has {queues} queues, and such a backend has one",
            hint="plug it into a bridge or a macvtap, or give it queues='1' and start the domain anew",
        )
    first, second = netdevs.backends(key)
    left: list[Step] = []
    if held.nic.connection is Connection.DEFERRED:
        joined = peer in (first, second)
        left = netdevs.let_go_of_left(held, [_replace(key, netdevs.own(key), peer)] if joined else [])
        peer, present = netdevs.own(key) if joined else peer, ()
    new, old = (second, first) if peer == first else (first, second)
    opening = netdevs.Opening(new, held.nic.mac, queues)
    steps = [*left, *netdevs.make(opening, endpoint, present)]
    dispose: list[Step] = []
    if peer == old:
        again = netdevs.make_again(netdevs.Opening(old, held.nic.mac, queues), held, endpoint)
        if again:
            park = _replace(key, netdevs.own(key), old)
            steps = [park, LetGoFirst(netdevs.delete(old), tuple(again)), *steps]
            peer = netdevs.own(key)
        else:
            dispose.append(netdevs.delete(old))
    steps.append(_replace(key, new, peer))
    return steps + carrier(held, link or "up"), dispose


def detach(held: Held) -> tuple[list[Step], list[Step]]:
    """Plan to give a NIC the netdev that is none; the carrier goes first."""
    if held.scope is Scope.CONFIG:
        return [], []
    key, present = held.nic.key, held.facts.netdevs or ()
    part = _replace(key, netdevs.own(key), _peer(held))
    return [*carrier(held, "down"), part], netdevs.delete_all(key, present)


def carrier(held: Held, state: str) -> list[Step]:
    """Plan to set the NIC's link, unless libvirt has it so."""
    same = (held.nic.element.get("link", "state") or "up") == state
    return [] if same else [tap.set_link(held, state)]


def _replace(key: str, netdev: str, former: str) -> Monitor:
    """Plan to give a NIC another netdev than it has; the guest is told nothing of it."""

    def arguments(wanted: str) -> dict[str, object]:
        return {"id": key, "netdev": wanted, "flap": False}

    return Monitor("give the NIC the netdev", COMMAND, arguments(netdev), (COMMAND, arguments(former)))


def _peer(held: Held) -> str:
    """Return the netdev that the NIC has now."""
    return (held.facts.peers or {}).get(held.nic.key) or netdevs.own(held.nic.key)


def _unconnected(key: str, interface: Element) -> str:
    """Return what QEMU's ``-netdev`` is told for an interface."""
    return f"unconnected,id={netdevs.own(key)},queues={_queues_of(interface)}"


def _queues_of(interface: Element) -> int:
    return int(interface.get("driver", "queues") or 1) or 1
