"""Plane ``hub``: the NIC's frontend points at a QEMU hubport; backends join its hub by monitor commands.

In the domain the interface is a placeholder of type ``user``, whose own netdev stays unused. A backend is a
netdev and a second hubport that joins it to the hub. These come and go while the NIC runs, which no stock
QEMU lets the NIC's own netdev do.

A NIC that is not plugged in has a sink in its hub, a port that takes all frames and has nobody to give them
to. A hub takes a frame of the guest's when another port does. One that comes while there is none is queued,
and a port that is added later is not asked for it: the guest would send nothing any more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.planes import netdevs, overriding, tap
from nicplug_xml.planes.held import Held
from nicplug_xml.steps import LetGoFirst, Monitor, Step

NAME = "hub"
DRIVER = "qemu"
NEEDS_ALIAS = True

KINDS = netdevs.KINDS
KEPT: frozenset[str] = frozenset()

refused = netdevs.refused
shows = netdevs.shows
release = overriding.release

_ANY_HUBID = r"\bhubid\W{1,8}(0x[0-9a-fA-F]+|[1-9]\d*|0)"


def hold(document: Document, interface: Element, _parking: str) -> Sequence[str]:
    """Make a stock ``<interface>`` a placeholder; return the children that it is to get."""
    document.set_attribute(interface, "type", "user")
    return ()


def provision(document: Document, interfaces: Mapping[str, Element]) -> None:
    """Add a hub to the domain for each interface, with a sink, and point the interface's frontend at it."""
    used = _used_hubs(document.root)
    free = (number for number in range(1, len(used) + len(interfaces) + 1) if number not in used)
    hubs = zip(interfaces, free, strict=False)
    overriding.provision(
        document,
        {
            key: tuple(f"hubport,id={name},hubid={hubid}" for name in (netdevs.own(key), _sink_id(key)))
            for key, hubid in hubs
        },
    )


def look(_interface: Element, entry: Entry, facts: Facts) -> tuple[Connection, bool]:
    """Return whether a backend has joined the NIC's hub: as recorded, and as QEMU says where it was asked."""
    joined = entry.attached and (facts.netdevs is None or has_joined(entry.key, facts.netdevs))
    there = joined and _is_on_hub(entry.key, facts)
    return Connection.ATTACHED if there else Connection.DEFERRED, False


def _is_on_hub(key: str, facts: Facts) -> bool:
    """Whether the NIC is on its hub: one that libvirt has plugged in anew has libvirt's own netdev."""
    return facts.peers is None or facts.peers.get(key) == netdevs.own(key)


def has_joined(key: str, present: Collection[str]) -> bool:
    """Whether a backend has joined the hub of the NIC of that key.

    :param present: the ids of QEMU's netdevs.
    """
    generation = _generation(key, present)
    # Somebody may have ended the netdev alone: its port stays.
    return generation is not None and netdevs.backend(key, generation) in present


def attach(
    held: Held, _backend: Backend, endpoint: Endpoint, link: str | None
) -> tuple[list[Step], list[Step]]:
    """Plan to join a NIC to an endpoint; what it was joined to leaves the hub first, and QEMU last.

    In between, the sink takes what the guest sends.
    """
    if held.scope is Scope.CONFIG:
        return [], []
    nic, present = held.nic, held.facts.netdevs or ()
    if not _is_on_hub(nic.key, held.facts):
        raise UnsupportedError(
            f"{nic.name} is not on its hub: somebody has taken it out of the running guest and put it back",
            hint="shut the guest down and start it; 'virsh detach-device' and 'attach-device' lose what a"
            " domain's <qemu:override> says",
        )
    hubid = _hubid(held.domain, nic.key)
    sink = _sink(nic.key, hubid, present)
    old = _generation(nic.key, present)
    left: list[Step] = []
    if nic.connection is Connection.DEFERRED:
        left = netdevs.let_go_of_left(held, [] if old is None else [_part(nic.key, old, hubid)])
        old, present = None, ()
    new = 0 if old else 1
    opening = netdevs.Opening(netdevs.backend(nic.key, new), nic.mac)
    steps = [*netdevs.make(opening, endpoint, present), *netdevs.await_listening(opening, endpoint)]
    # With it in the hub a backend that is slow would not hold back the guest.
    dispose: list[Step] = [Monitor("take the sink away", "netdev_del", {"id": _sink_id(nic.key)})]
    if old is None:
        steps = [*sink, *left, *steps]
    else:
        # Never both at once: the hub would bridge the old network and the new one.
        part, before = _part(nic.key, old, hubid), netdevs.Opening(netdevs.backend(nic.key, old), nic.mac)
        again = netdevs.make_again(before, held, endpoint)
        if again:
            steps = [*sink, part, LetGoFirst(netdevs.delete(before.id), tuple(again)), *steps]
        else:
            steps += [*sink, part]
            dispose.append(netdevs.delete(before.id))
    port = _port(nic.key, new, hubid)
    steps.append(Monitor("join the NIC's hub", "netdev_add", port, ("netdev_del", {"id": port["id"]})))
    return steps + carrier(held, link or "up"), dispose


def detach(held: Held) -> tuple[list[Step], list[Step]]:
    """Plan to part a NIC from its backend, the carrier first; the sink takes its place."""
    if held.scope is Scope.CONFIG:
        return [], []
    nic, present = held.nic, held.facts.netdevs or ()
    steps = carrier(held, "down")
    old = _generation(nic.key, present)
    if old is not None:
        hubid = _hubid(held.domain, nic.key)
        steps += [*_sink(nic.key, hubid, present), _part(nic.key, old, hubid, "leave the NIC's hub")]
    return steps, netdevs.delete_all(nic.key, present)


def carrier(held: Held, state: str) -> list[Step]:
    """Plan to set the link that the guest sees, unless it is so."""
    return [] if held.nic.carrier == (state != "down") else [tap.set_link(held, state)]


def _sink(key: str, hubid: int, present: Collection[str]) -> list[Step]:
    """Plan to have the sink in the hub."""
    port: dict[str, object] = {"type": "hubport", "id": _sink_id(key), "hubid": hubid}
    if port["id"] in present:
        return []
    return [Monitor("put a sink into the NIC's hub", "netdev_add", port, ("netdev_del", {"id": port["id"]}))]


def _sink_id(key: str) -> str:
    return f"{netdevs.own(key)}.sink"


def _port(key: str, generation: int, hubid: int) -> dict[str, object]:
    netdev = netdevs.backend(key, generation)
    return {"type": "hubport", "id": f"{netdev}.port", "hubid": hubid, "netdev": netdev}


def _part(key: str, generation: int, hubid: int, summary: str = "part the old backend") -> Monitor:
    """Plan to have a backend leave the hub."""
    port = _port(key, generation, hubid)
    return Monitor(summary, "netdev_del", {"id": port["id"]}, ("netdev_add", port))


def _generation(key: str, present: Collection[str]) -> int | None:
    """Return which of the two names that a NIC's backend can have is in its hub now."""
    return next((number for number in (0, 1) if f"{netdevs.backend(key, number)}.port" in present), None)


def _hubid(domain: Element, key: str) -> int:
    return int(overriding.options(domain, key, "hubport").partition("hubid=")[2])


def _used_hubs(domain: Element) -> set[int]:
    """Return the hubs that the user's own arguments name, in QEMU's notation or in JSON; 0 is QEMU's own."""
    values = overriding.arguments_of(domain)
    return {int(number, 0) for value in values for number in re.findall(_ANY_HUBID, value)}
