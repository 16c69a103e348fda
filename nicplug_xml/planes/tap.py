"""Plane ``tap``: the NIC keeps its own tap; unplugged, the tap is parked where no frame goes.

The parking place is an isolated libvirt network of ours, or, where the connection has no network driver
(embedded libvirt), a plain bridge of ours that is down. Every port of it is isolated and every parked
NIC's link is down, each of which alone keeps the frames in.
"""

from __future__ import annotations

from nicplug_xml.document import Element
from nicplug_xml.model import Backend, Interface, Scope
from nicplug_xml.plan import EnsureParking, Step, UpdateDevice
from nicplug_xml.stock import with_backend

NAME = "tap"

#: The parking network, the bridge that libvirt makes for it, and the plain bridge.
PARKING_NETWORK = "nicplug-parking"
NETWORK_BRIDGE = "nicplug-parknet"
PARKING_BRIDGE = "nicplug-park"

#: Backend types that can be plugged in: those between which libvirt itself can move a tap.
KINDS = frozenset(("bridge", "network"))

#: ``<backend>`` says how the tap is opened, which cannot change while it is open: it stays with the NIC.
KEPT = frozenset(("backend",))

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


def is_parked(interface: Element) -> bool:
    """Whether this stock ``<interface>`` stands in the parking place."""
    kind = interface.attributes.get("type", "")
    return kind in PARKING and interface.get("source", kind) == PARKING[kind].source[kind]


def attach(nic: Interface, backend: Backend, link: str | None, scope: Scope, where: str) -> list[Step]:
    """Plan to plug `nic` in, or to move it: one update-device, which libvirt itself undoes when it fails.

    :param link: the ``<link>`` state that the interface is to have, or None for no ``<link>``.
    :param where: the backend in words.
    """
    xml = with_backend(nic.xml, backend, link, KEPT)
    return [UpdateDevice(f"plug it into {where}", xml, nic.xml, scope)]


def detach(nic: Interface, parking: str, scope: Scope) -> list[Step]:
    """Plan to unplug `nic`.

    :param parking: which of `PARKING` the connection has.
    """
    place = PARKING[parking]
    make = {
        "network": f"libvirt  virNetworkDefineXML, virNetworkCreate {PARKING_NETWORK}, unless it is active",
        "bridge": f"netlink  RTM_NEWLINK bridge {PARKING_BRIDGE}, unless it is there",
    }
    xml = with_backend(nic.xml, place, "down", KEPT)
    return [EnsureParking(make[parking]), UpdateDevice("park it", xml, nic.xml, scope)]
