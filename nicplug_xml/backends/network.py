"""Backend ``network``: a libvirt network, by its name.

Authority: libvirt's networkAllocatePort, for what an interface inherits from its network and portgroup.
"""

from __future__ import annotations

from nicplug_xml.backends import direct, ovs
from nicplug_xml.document import Document, Element, quoted
from nicplug_xml.endpoints import BridgePort, Endpoint, MacvtapOn, NetworkPort
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.frozen import replace
from nicplug_xml.model import Backend, within

TYPES = ("network",)
#: What libvirt shows of the network, or of its portgroup, as a running guest's own.
INHERITED = ("bandwidth", "port", "vlan")
HINT = "'virsh net-list --all' lists the networks, 'virsh net-start NAME' starts one"


def backend(name: str) -> Backend:
    """Return the backend for the libvirt network of that name."""
    return Backend("network", (f"<source network={quoted(name)}/>",))


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"network {backend.source.get('network', '?')}"


def intended(backend: Backend) -> Backend:
    """Return the backend without what libvirt adds to the source of a running guest."""
    children = []
    for child in backend.children:
        document = Document(child)
        if document.root.name == "source":
            document.set_attribute(document.root, "portid", None)
            document.set_attribute(document.root, "bridge", None)
        children.append(document.edited())
    return replace(backend, children=tuple(children))


def own(backend: Backend, network: str) -> Backend:
    """Return the backend of a running guest without what its network gives it.

    :param network: the network's XML.
    """
    root = Document(network).root
    given = _rules(root, _portgroup(root, backend.source.get("portgroup")))
    rest = (child.text for child in backend.element if not any(_same(child, other) for other in given))
    return replace(backend, children=tuple(rest))


def endpoint(backend: Backend, network: str) -> Endpoint:
    """Return what the network is: a port of its bridge, be it Open vSwitch's, a macvtap on a device of its
    pool, or itself.

    :param network: the network's XML; without it libvirt has to join the network.
    :raises UnsupportedError: the network hands out host devices.
    """
    name = backend.source.get("network", "")
    if not network:
        return NetworkPort(name)
    root = Document(network).root
    mode = (forward.attributes.get("mode", "nat") if (forward := root.find("forward")) else "none").lower()
    device = root.get("bridge", "name")
    group = _portgroup(root, backend.source.get("portgroup"))
    given = frozenset(rule.name for rule in _rules(root, group))
    if device:
        inherited = tuple(element for element in (backend.element, group, root) if element is not None)
        virtualports = tuple(element.find("virtualport") for element in inherited)
        if ovs.is_ovs(*virtualports):
            vlans = tuple(element.find("vlan") for element in inherited)
            return replace(ovs.port(device, virtualports, vlans), given=given - {"vlan"})
        isolated = backend.element.get("port", "isolated") or root.get("port", "isolated")
        return BridgePort(device, isolated == "yes", given - {"port"})
    if forward is not None and mode in direct.MODES:
        # libvirt hands out the least used device of a pool; what it counts is not ours to see.
        lower = forward.get("interface", "dev") or forward.attributes.get("dev", "")
        return MacvtapOn(lower, direct.MODES[mode], given)
    raise UnsupportedError(
        f"network '{name}' is of mode '{mode}', which has no place for a NIC that can be plugged",
        hint="use a network with a bridge, or of mode bridge, private, vepa or passthrough",
    )


def _rules(network: Element, group: Element | None) -> list[Element]:
    """Return what a network gives to a NIC's backend; the bandwidth beside the portgroups is its bridge's."""
    own = [child for child in network if child.name in INHERITED and child.name != "bandwidth"]
    return own + [child for child in group or () if child.name in INHERITED]


def _same(one: Element, other: Element) -> bool:
    return one.name == other.name and within(one, other) and within(other, one)


def _portgroup(network: Element, name: str | None) -> Element | None:
    """Return the portgroup of that name, or the network's default one where none is named."""
    wanted = ("default", "yes") if name is None else ("name", name)
    groups = (child for child in network if child.name == "portgroup")
    return next((group for group in groups if wanted in group.attributes.items()), None)
