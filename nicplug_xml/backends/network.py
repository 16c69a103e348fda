"""Backend ``network``: a libvirt network, by its name.

Authority: libvirt's networkAllocatePort, for what an interface inherits from its network and portgroup.
"""

from __future__ import annotations

from nicplug_xml.backends import bridge, direct, ovs
from nicplug_xml.document import Document, Element, quoted
from nicplug_xml.endpoints import BridgePort, Endpoint, MacvtapOn, NetworkPort
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.frozen import replace
from nicplug_xml.model import Backend

TYPES = ("network",)
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
    if device:
        group = _portgroup(root, backend.source.get("portgroup"))
        inherited = tuple(element for element in (backend.element, group, root) if element is not None)
        virtualports = tuple(element.find("virtualport") for element in inherited)
        if ovs.is_ovs(*virtualports):
            return ovs.port(device, virtualports, tuple(element.find("vlan") for element in inherited))
        port = bridge.endpoint(
            replace(backend, type="bridge", children=(f"<source bridge={quoted(device)}/>",)), ""
        )
        assert isinstance(port, BridgePort)
        return replace(port, isolated=_isolated(backend) or root.get("port", "isolated") == "yes")
    if forward is not None and mode in direct.MODES:
        # libvirt hands out the least used device of a pool; what it counts is not ours to see.
        return MacvtapOn(
            forward.get("interface", "dev") or forward.attributes.get("dev", ""), direct.MODES[mode]
        )
    raise UnsupportedError(
        f"network '{name}' is of mode '{mode}', which has no place for a NIC that can be plugged",
        hint="use a network with a bridge, or of mode bridge, private, vepa or passthrough",
    )


def _isolated(backend: Backend) -> bool:
    port = backend.child("port")
    return port is not None and port.attributes.get("isolated") == "yes"


def _portgroup(network: Element, name: str | None) -> Element | None:
    """Return the portgroup of that name, or the network's default one where none is named."""
    wanted = ("default", "yes") if name is None else ("name", name)
    groups = (child for child in network if child.name == "portgroup")
    return next((group for group in groups if wanted in group.attributes.items()), None)
