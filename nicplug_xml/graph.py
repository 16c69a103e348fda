"""Who is plugged into what, as data: guests with their NICs, the places that these are in, and cables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from nicplug_xml import backends
from nicplug_xml.backends import ovs
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import Backend, Connection, InterfaceStatus

#: Backend types that several NICs can share one of, and which attribute of ``<source>`` tells which.
_SHARED = {"bridge": "bridge", "network": "network", "direct": "dev", "netdev": "dev", "mcast": "address"}


class Place(Frozen):
    """What NICs are plugged into.

    :param kind: ``bridge``, ``network``, ``ovs``, ``direct``, ``netdev`` or ``mcast``; an empty string for
        what belongs to one NIC alone, as a user-mode network does.
    :param name: its name; of one NIC's own, all there is to say.
    :param note: more to say of it, as the bridge of a network.
    """

    kind: str
    name: str
    note: str = ""


class Nic(Frozen):
    """A NIC in the picture.

    :param guest: its domain's name.
    :param name: the alias that a user gave it, else its target device, alias or MAC.
    :param mac: MAC address.
    :param attached: whether it is plugged in.
    :param link: the administrator's link, ``up`` or ``down``.
    :param carrier: whether the guest sees a carrier; None while it does not run.
    :param place: what it is plugged into, or to be plugged into; None for nothing, and for a cable with both
        of its ends in the picture.
    :param detail: what else there is to say of the way there, as a VLAN.
    """

    guest: str
    name: str
    mac: str
    attached: bool
    link: str
    carrier: bool | None
    place: Place | None
    detail: str = ""

    @property
    def state(self) -> str:
        """What is not as it is when the NIC works, in words; an empty string when it does."""
        if not self.attached:
            if self.carrier:
                return "unplugged, carrier up!"
            return "unplugged, link down" if self.link == "down" else "unplugged"
        if self.link == "down":
            return "link down"
        return "no carrier" if self.carrier is False else ""


class Guest(Frozen):
    """A domain in the picture."""

    name: str
    running: bool
    nics: tuple[Nic, ...]


class Graph(Frozen):
    """The whole picture.

    :param guests: the domains, by name as people sort them: vm2 before vm10.
    :param places: the places that more than one NIC can be plugged into, sorted likewise.
    :param cables: the two ends of each cable.
    """

    guests: tuple[Guest, ...]
    places: tuple[Place, ...]
    cables: tuple[tuple[Nic, Nic], ...]

    def nics_at(self, place: Place) -> list[Nic]:
        """Return the NICs that are plugged into a place, or are to be."""
        return [nic for guest in self.guests for nic in guest.nics if nic.place == place]


def graph(domains: Mapping[str, Sequence[InterfaceStatus]], running: Collection[str] = ()) -> Graph:
    """Make the picture of domains and their interfaces.

    :param domains: the interfaces of each domain, by its name.
    :param running: names of those that run.
    """
    names = sorted(domains, key=natural)
    statuses = [status for name in names for status in domains[name]]
    bridges = _bridges_of_networks(statuses)
    pairs = _cables(statuses)
    wired = {id(status) for pair in pairs for status in pair}
    nics = {id(status): _nic(status, bridges, id(status) in wired) for status in statuses}
    guests = tuple(
        Guest(name, name in running, tuple(nics[id(status)] for status in domains[name])) for name in names
    )
    places = {nic.place for nic in nics.values() if nic.place and nic.place.kind}
    return Graph(
        guests,
        tuple(sorted(places, key=lambda place: (place.kind, natural(place.name)))),
        tuple((nics[id(one)], nics[id(other)]) for one, other in pairs),
    )


def natural(name: str) -> list[tuple[int, str]]:
    """Return what to sort names by so that vm2 comes before vm10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _nic(status: InterfaceStatus, bridges: Mapping[str, str], wired: bool) -> Nic:
    return Nic(
        guest=status.domain,
        name=status.alias if status.alias.startswith("ua-") else status.interface,
        mac=status.mac,
        attached=status.connection is Connection.ATTACHED,
        link=status.link,
        carrier=status.carrier,
        place=None if wired else _place(status.backend, bridges),
        detail=_vlans(status.backend),
    )


def _place(backend: Backend | None, bridges: Mapping[str, str]) -> Place | None:
    """Return what a backend is a way into.

    :param bridges: which network of libvirt's a bridge is of.
    """
    if backend is None or backend.type is None:
        return None
    name = backend.source.get(_SHARED.get(backend.type, ""), "")
    if not name:
        return Place("", backends.describe(backend))
    if backend.type == "mcast":
        return Place("mcast", f"{name}:{backend.source.get('port', '?')}")
    if backend.type == "bridge" and name in bridges:
        return Place("network", bridges[name], name)
    if backend.type == "network":
        bridge = next((bridge for bridge, network in bridges.items() if network == name), "")
        return Place("network", name, bridge)
    is_ovs = backend.type == "bridge" and ovs.is_ovs(backend.child("virtualport"))
    return Place("ovs" if is_ovs else backend.type, name)


def _bridges_of_networks(statuses: Iterable[InterfaceStatus]) -> dict[str, str]:
    """Return which networks the bridges are of, as the XML of running domains tells."""
    sources = [status.backend.source for status in statuses if status.backend]
    return {
        source["bridge"]: source["network"]
        for source in sources
        if source.get("bridge") and source.get("network")
    }


def _cables(statuses: Sequence[InterfaceStatus]) -> list[tuple[InterfaceStatus, InterfaceStatus]]:
    """Return the cables of which both ends are there and plugged in."""
    ends = {
        id(status): (status.backend.source.get("domain", ""), status.backend.source.get("interface", ""))
        for status in statuses
        if status.backend and status.backend.type == "cable" and status.connection is Connection.ATTACHED
    }
    plugged = [status for status in statuses if id(status) in ends]

    def leads_to(one: InterfaceStatus, other: InterfaceStatus) -> bool:
        domain, interface = ends[id(one)]
        return domain == other.domain and interface.lower() in (other.mac, other.alias.lower())

    return [
        (one, other)
        for number, one in enumerate(plugged)
        for other in plugged[number + 1 :]
        if leads_to(one, other) and leads_to(other, one)
    ]


def _vlans(backend: Backend | None) -> str:
    vlan = backend.child("vlan") if backend else None
    tags = [tag.attributes.get("id", "?") for tag in vlan or () if tag.name == "tag"]
    return f"VLAN {','.join(tags)}" if tags else ""
