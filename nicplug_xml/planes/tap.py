"""Plane ``tap``: the NIC keeps its own tap; unplugged, the tap is parked where no frame goes.

A bridge is joined by libvirt itself, anything else of the kernel's by redirects between the tap, which stays
parked, and a device of the host.

The parking place is an isolated libvirt network of ours, or, where the connection has no network driver
(embedded libvirt), a plain bridge of ours that is down. Every port of it is isolated and every parked
NIC's link is down, each of which alone keeps the frames in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import BridgePort, Endpoint, MacvtapOn, OvsPort
from nicplug_xml.facts import Facts
from nicplug_xml.frozen import replace
from nicplug_xml.joints import Joint
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Interface, Scope
from nicplug_xml.planes.held import Held
from nicplug_xml.planes.joining import JOINED, fitting, join, part, require_here
from nicplug_xml.steps import EnsureParking, Part, RequireDevice, RequireNetwork, Step, UpdateDevice
from nicplug_xml.stock import with_backend, with_link

NAME = "tap"
DRIVER = "qemu"
NEEDS_ALIAS = False

#: The parking network, the bridge that libvirt makes for it, and the plain bridge.
PARKING_NETWORK = "nicplug-parking"
NETWORK_BRIDGE = "nicplug-parknet"
PARKING_BRIDGE = "nicplug-park"
PARKING_PLACES = frozenset((PARKING_NETWORK, NETWORK_BRIDGE, PARKING_BRIDGE))

#: Backend types that can be plugged in.
KINDS = frozenset(("bridge", "network", "direct", "netdev", "cable"))

#: ``<backend>`` says how the tap is opened, which cannot change while it is open: it stays with the NIC.
KEPT = frozenset(("backend",))

#: libvirt carries these out, or refuses them, where a bridge joins the tap, and nowhere else.
_OF_BRIDGES = frozenset(("bandwidth", "filterref", "port", "vlan", "ip", "route"))

_BELIEVED = Joint("", "")

PARKING = {
    "network": Backend("network", (f"<source network='{PARKING_NETWORK}'/>", "<port isolated='yes'/>")),
    "bridge": Backend("bridge", (f"<source bridge='{PARKING_BRIDGE}'/>", "<port isolated='yes'/>")),
}

#: The network's bridge by itself, for a running guest's NIC that comes from a portgroup or goes to one.
_ASIDE = Backend("bridge", (f"<source bridge='{NETWORK_BRIDGE}'/>", "<port isolated='yes'/>"))

_PARKED = {("network", PARKING_NETWORK), ("bridge", PARKING_BRIDGE), ("bridge", NETWORK_BRIDGE)}

NETWORK_XML = f"""<network>
  <name>{PARKING_NETWORK}</name>
  <title>Parking place of NICs that are not plugged in (nicplug)</title>
  <bridge name='{NETWORK_BRIDGE}' stp='off' delay='0'/>
  <port isolated='yes'/>
</network>"""


def hold(document: Document, interface: Element, parking: str) -> Sequence[str]:
    """Make a stock ``<interface>`` one that is parked; return the children that it is to get."""
    place = PARKING[parking]
    document.set_attribute(interface, "type", place.type)
    return place.children


def refused(backend: Backend, endpoint: Endpoint | None = None) -> frozenset[str]:
    """Return the children that a backend of that kind cannot have.

    :param endpoint: what the backend looks like from the host, where that is known.
    """
    if backend.type is None or shows(backend, endpoint):
        return KEPT
    vlans = {"vlan"} if has_vlans(backend, endpoint) else set()
    return KEPT | (_OF_BRIDGES - vlans) | of_macvtaps(backend, endpoint)


def has_vlans(backend: Backend, endpoint: Endpoint | None = None) -> bool:
    """Whether a backend that the kernel joins can have VLANs: those of Open vSwitch are the port's."""
    return backend.type == "bridge" if endpoint is None else isinstance(endpoint, OvsPort)


def of_macvtaps(backend: Backend, endpoint: Endpoint | None = None) -> set[str]:
    """Return what a macvtap of libvirt's can have, and the macvlan that the NIC is joined to cannot."""
    direct = backend.type == "direct" if endpoint is None else isinstance(endpoint, MacvtapOn)
    return {"virtualport"} if direct else set()


def shows(backend: Backend, endpoint: Endpoint | None = None) -> bool:
    """Whether the stock interface tells of this backend while it is attached, since libvirt itself joins it.

    :param endpoint: what the backend looks like from the host, where that is known.
    """
    if endpoint is not None:
        return type(endpoint) not in JOINED
    return backend.type in ("bridge", "network") and not _is_ovs(backend)


def _is_ovs(backend: Backend) -> bool:
    # Only what may be so is parsed.
    asked = "openvswitch" in "".join(backend.children)
    return asked and backend.element.get("virtualport", "type") == "openvswitch"


def provision(_document: Document, _interfaces: Mapping[str, Element]) -> None:
    """The rest of the domain needs nothing."""


def release(_document: Document, _keys: Collection[str]) -> None:
    """There is nothing to take out."""


def look(interface: Element, entry: Entry, facts: Facts) -> tuple[Connection, bool]:
    """Return how this stock ``<interface>`` is connected, and whether it tells of the backend itself."""
    if not is_parked(interface):
        return Connection.ATTACHED, True
    return look_at_joint(interface, entry, facts), False


def look_at_joint(interface: Element, entry: Entry, facts: Facts) -> Connection:
    """Return how a stock ``<interface>`` that is parked is connected."""
    # What is recorded is believed of a device that is not this host's.
    joint = facts.joints.get(interface.get("target", "dev") or "", _BELIEVED)
    joined = entry.attached and joint is not None and not joint.gone
    return Connection.ATTACHED if joined else Connection.DEFERRED


def has_fallen_off(nic: Interface, facts: Facts) -> bool:
    """Whether a NIC's tap, libvirt's or ours, is no port of its bridge, or its macvtap not on its device.

    That was made anew, say.
    """
    what = nic.target if nic.shown else nic.key
    return nic.connection is Connection.ATTACHED and what in facts.astray


def attach(
    held: Held, backend: Backend, endpoint: Endpoint, link: str | None
) -> tuple[list[Step], list[Step]]:
    """Plan to plug a NIC in, or to move it.

    To a bridge: one update-device, which libvirt itself undoes when it fails. To anything else: the tap, in
    its parking place, is joined to it by redirects, and libvirt sets the link.
    """
    nic = held.nic
    if type(endpoint) not in JOINED:
        xml = with_backend(nic.xml, backend, link, KEPT)
        update = UpdateDevice("change its bridge and link", xml, nic.xml, held.scope)
        bridge = endpoint.bridge if isinstance(endpoint, BridgePort) else ""
        first: list[Step] = _out(held)
        if has_fallen_off(nic, held.facts) and bridge == nic.element.get("source", "bridge"):
            # libvirt does nothing about a bridge that it takes the tap to be in: out of that first.
            first = [RequireDevice(bridge, 0), *_park(held, nic.link)]
        elif held.scope is Scope.LIVE and _is_another_portgroup(nic, backend):
            # libvirt refuses that, or (9.0) goes on having the NIC in the old one; but for another type.
            aside = _park_at(held, _ASIDE, nic.element.get("link", "state"))
            first = [_ensure_parking(held), *first, aside]
            update = replace(update, undo_xml=aside.xml)
        steps = [*first, *fitting(held, endpoint, update)]
        if held.scope is Scope.LIVE and backend.type == "network":
            steps.insert(0, RequireNetwork(backend.source.get("network", "")))
        parting, dispose = part(held)
        if _has_bandwidth(backend, endpoint):
            # libvirt limits what the guest sends where the redirect is, and refuses a place that is taken.
            return [*_find_joined(held), *parting, *steps], dispose
        return [*_find_joined(held), *steps, *parting], dispose
    if held.scope is Scope.CONFIG:
        # What only this host's kernel can do is done when the domain runs.
        return _park(held, "down"), []
    joining, dispose = join(held, endpoint)
    if nic.shown and nic.backend is not None and _has_bandwidth(nic.backend):
        # With the limits that libvirt takes away there goes the redirect, if it is there already.
        return [require_here(held), *_park(held, link), *joining], dispose
    return [require_here(held), *joining, *_park(held, link)], dispose


def detach(held: Held) -> tuple[list[Step], list[Step]]:
    """Plan to park a NIC."""
    parting, dispose = part(held)
    return [*_find_joined(held), *_park(held, "down"), *parting], dispose


def carrier(held: Held, state: str) -> list[Step]:
    """Plan to set the link that the guest sees."""
    # libvirt changes nothing of a NIC whose network is not active.
    parked = held.scope is Scope.LIVE and is_parked(held.nic.element)
    return [_ensure_parking(held), set_link(held, state)] if parked else [set_link(held, state)]


def set_link(held: Held, state: str) -> Step:
    """Plan to have libvirt set a NIC's link."""
    nic = held.nic
    return UpdateDevice(f"set its link {state}", with_link(nic.xml, state), nic.xml, held.scope)


def _find_joined(held: Held) -> list[Step]:
    """Plan to refuse a NIC that another host's kernel has joined: nobody else can part it."""
    joined = held.nic.connection is Connection.ATTACHED and not held.nic.shown
    return [require_here(held)] if joined and held.scope is Scope.LIVE else []


def _park(held: Held, link: str | None) -> list[Step]:
    """Plan to have the tap in the parking place, with that link."""
    nic = held.nic
    element = nic.element
    if is_parked(element):
        if (link or "up") == (element.get("link", "state") or "up"):
            return []
        return carrier(held, link or "up")
    place = PARKING[held.parking()]
    if held.scope is Scope.LIVE and element.get("source", "portgroup"):
        place = _ASIDE  # libvirt refuses, but for another type, to take the portgroup away
    return [_ensure_parking(held), *_out(held), _park_at(held, place, link)]


def _park_at(held: Held, place: Backend, link: str | None) -> UpdateDevice:
    nic = held.nic
    return UpdateDevice("park it", with_backend(nic.xml, place, link, KEPT), nic.xml, held.scope)


def _ensure_parking(held: Held) -> EnsureParking:
    make = {
        "network": f"libvirt  virNetworkDefineXML, virNetworkCreate {PARKING_NETWORK}, unless it is active",
        "bridge": f"netlink  RTM_NEWLINK bridge {PARKING_BRIDGE}, unless it is there",
    }
    return EnsureParking(make[held.parking()])


def _out(held: Held) -> list[Step]:
    """Plan to have the tap out of the bridge that somebody has put it in: libvirt knows of another one."""
    instead = held.facts.astray.get(held.nic.target)
    return [Part(held.nic.target, Joint("bridge", instead))] if instead else []


def _is_another_portgroup(nic: Interface, backend: Backend) -> bool:
    """Whether a backend is a network, as what a NIC is in is one, parked or not, by another portgroup."""
    before, after = nic.element.get("source", "portgroup"), backend.source.get("portgroup")
    return before != after and "network" in backend.source and bool(nic.element.get("source", "network"))


def _has_bandwidth(backend: Backend, endpoint: Endpoint | None = None) -> bool:
    """Whether libvirt limits a NIC there, by what the backend names or its network gives."""
    given = endpoint.given if isinstance(endpoint, BridgePort) else ()
    return backend.child("bandwidth") is not None or "bandwidth" in given


def is_parked(interface: Element) -> bool:
    """Whether a stock ``<interface>`` is in the parking place."""
    kind = interface.attributes.get("type", "")
    return (kind, interface.get("source", kind)) in _PARKED
