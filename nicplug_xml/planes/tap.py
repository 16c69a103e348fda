"""Plane ``tap``: the NIC keeps its own tap; unplugged, the tap is parked where no frame goes.

The parking place is an isolated libvirt network of ours, or, where the connection has no network driver
(embedded libvirt), a plain bridge of ours that is down. Every port of it is isolated and every parked
NIC's link is down, each of which alone keeps the frames in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Interface, Scope
from nicplug_xml.steps import EnsureParking, RequireNetwork, Step, UpdateDevice
from nicplug_xml.stock import with_backend

NAME = "tap"
NEEDS_ALIAS = False
ALWAYS_HELD = False

#: The parking network, the bridge that libvirt makes for it, and the plain bridge.
PARKING_NETWORK = "nicplug-parking"
NETWORK_BRIDGE = "nicplug-parknet"
PARKING_BRIDGE = "nicplug-park"

#: Backend types that can be plugged in: those between which libvirt itself can move a tap.
KINDS = frozenset(("bridge", "network"))

#: ``<backend>`` says how the tap is opened, which cannot change while it is open: it stays with the NIC.
KEPT = frozenset(("backend",))
REFUSED = KEPT

PARKING = {
    "network": Backend("network", (f"<source network='{PARKING_NETWORK}'/>", "<port isolated='yes'/>")),
    "bridge": Backend("bridge", (f"<source bridge='{PARKING_BRIDGE}'/>", "<port isolated='yes'/>")),
}

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


def provision(_document: Document, _keys: Sequence[str]) -> None:
    """The rest of the domain needs nothing."""


def release(_document: Document, _keys: Collection[str]) -> None:
    """There is nothing to take out."""


def is_deferred(interface: Element, _entry: Entry, _netdevs: Collection[str] | None) -> bool:
    """Whether this stock ``<interface>`` stands in the parking place."""
    kind = interface.attributes.get("type", "")
    return kind in PARKING and interface.get("source", kind) == PARKING[kind].source[kind]


def attach(
    nic: Interface,
    backend: Backend,
    _endpoint: Endpoint,
    link: str | None,
    scope: Scope,
    _domain: Element,
    _netdevs: Collection[str],
) -> tuple[list[Step], list[Step]]:
    """Plan to plug `nic` in, or to move it: one update-device, which libvirt itself undoes when it fails."""
    xml = with_backend(nic.xml, backend, link, KEPT)
    steps: list[Step] = [UpdateDevice("change its bridge and link", xml, nic.xml, scope)]
    if scope is Scope.LIVE and backend.type == "network":
        steps.insert(0, RequireNetwork(backend.source.get("network", "")))
    return steps, []


def detach(
    nic: Interface, parking: str, scope: Scope, _domain: Element, _netdevs: Collection[str]
) -> tuple[list[Step], list[Step]]:
    """Plan to park `nic`."""
    make = {
        "network": f"libvirt  virNetworkDefineXML, virNetworkCreate {PARKING_NETWORK}, unless it is active",
        "bridge": f"netlink  RTM_NEWLINK bridge {PARKING_BRIDGE}, unless it is there",
    }
    xml = with_backend(nic.xml, PARKING[parking], "down", KEPT)
    return [EnsureParking(make[parking]), UpdateDevice("park it", xml, nic.xml, scope)], []
