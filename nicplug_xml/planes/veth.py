"""Plane ``veth``: the NIC of a container of libvirt's LXC driver keeps its veth pair.

That driver refuses every change of a running container's interface. So its own XML has the NIC in the
parking place of plane tap, attached or not, and all else is done to the end of the pair that the host has:
set down, it leaves the container's end without a carrier; as a port of a bridge, or joined by redirects to
anything else of the kernel's, it is plugged in.

The driver knows no aliases of a user's: its interfaces go by their MACs.
"""

from __future__ import annotations

from nicplug_xml.document import Element
from nicplug_xml.endpoints import BridgePort, Endpoint
from nicplug_xml.facts import Facts
from nicplug_xml.joints import Joint
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.planes import tap
from nicplug_xml.planes.held import Held
from nicplug_xml.planes.joining import fitting, join, part, require_here, widen
from nicplug_xml.steps import Join, Part, SetCarrier, Step

NAME = "veth"
DRIVER = "lxc"
NEEDS_ALIAS = False

#: Backend types that can be plugged in.
KINDS = tap.KINDS

#: libvirt gives the container's end these when it starts it.
KEPT = frozenset(("ip", "route"))

#: libvirt carries these out when it makes a tap, and we do not.
_LIBVIRTS = frozenset(("backend", "bandwidth", "filterref", "vlan", "coalesce", "tune"))

hold = tap.hold
provision = tap.provision
release = tap.release


def refused(backend: Backend, endpoint: Endpoint | None = None) -> frozenset[str]:
    """Return the children that a backend of that kind cannot have.

    :param endpoint: what the backend looks like from the host, where that is known.
    """
    if tap.shows(backend, endpoint):
        return _LIBVIRTS | KEPT
    vlans = {"vlan"} if tap.has_vlans(backend, endpoint) else set()
    return (_LIBVIRTS - vlans) | KEPT | {"port"} | tap.of_macvtaps(backend, endpoint)


def shows(_backend: Backend, _endpoint: Endpoint | None = None) -> bool:
    """Whether the stock interface tells of this backend: of none."""
    return False


def look(interface: Element, entry: Entry, facts: Facts) -> tuple[Connection, bool]:
    """Return how this stock ``<interface>`` is connected; it never tells of the backend itself."""
    return tap.look_at_joint(interface, entry, facts), False


def attach(
    held: Held, _backend: Backend, endpoint: Endpoint, link: str | None
) -> tuple[list[Step], list[Step]]:
    """Plan to plug a NIC in, or to move it; where its carrier is to go, that goes first."""
    if held.scope is Scope.CONFIG:
        # What only this host's kernel can do is done when the container runs.
        return [], []
    wanted = link != "down"
    joining, dispose = _join(held, endpoint)
    before = [] if wanted else _carrier(held, up=False)
    after = _carrier(held, up=True) if wanted else []
    return [require_here(held), *before, *widen(held, endpoint), *joining, *after], dispose


def detach(held: Held) -> tuple[list[Step], list[Step]]:
    """Plan to part a NIC from its backend, the carrier first."""
    if held.scope is Scope.CONFIG:
        return [], []
    parting, dispose = _part(held)
    return [require_here(held), *_carrier(held, up=False), *parting], dispose


def carrier(held: Held, state: str) -> list[Step]:
    """Plan to set the carrier that the container sees."""
    if held.scope is Scope.CONFIG:
        return []
    return [require_here(held), *_carrier(held, up=state != "down")]


def _join(held: Held, endpoint: Endpoint) -> tuple[list[Step], list[Step]]:
    device, before = held.nic.target, held.joint
    if isinstance(endpoint, BridgePort):
        joint = Joint("bridge", endpoint.bridge, "isolated" if endpoint.isolated else "")
        if before is None or before.kind == "bridge":
            return fitting(held, endpoint, Join(device, joint, before)), []
        parting, dispose = part(held)
        return [*parting, *fitting(held, endpoint, Join(device, joint))], dispose
    joining, dispose = join(held, endpoint)
    if before is not None and before.kind == "bridge":
        # It receives what the bridge floods as long as it is a port.
        return [*joining, Part(device, before)], []
    return joining, dispose


def _part(held: Held) -> tuple[list[Step], list[Step]]:
    joint = held.joint
    if joint is not None and joint.kind == "bridge":
        return [Part(held.nic.target, joint)], []
    return part(held)


def _carrier(held: Held, *, up: bool) -> list[Step]:
    return [] if held.nic.carrier == up else [SetCarrier(held.nic.target, up)]
