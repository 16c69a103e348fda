"""Backend ``network``: a libvirt network, by its name."""

from __future__ import annotations

from dataclasses import replace

from nicplug_xml.backends import bridge, direct
from nicplug_xml.document import Document, quoted
from nicplug_xml.endpoints import BridgePort, Endpoint, MacvtapOn, NetworkPort
from nicplug_xml.errors import UnsupportedError
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
    """Return what the network is: a port of its bridge, a macvtap on a device of its pool, or itself.

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
