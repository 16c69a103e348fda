"""Backend ``bridge``: a Linux bridge of the host, or one of Open vSwitch's."""

from __future__ import annotations

from nicplug_xml.backends import ovs
from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.document import quoted
from nicplug_xml.endpoints import BridgePort, Endpoint
from nicplug_xml.model import Backend

TYPES = ("bridge",)
HINT = (
    "'ip link show type bridge' on the hypervisor's host lists the bridges;"
    " Open vSwitch's take <virtualport type='openvswitch'/> (--ovs)"
)
intended = as_it_is


def backend(name: str) -> Backend:
    """Return the backend for the bridge of that name."""
    return Backend("bridge", (f"<source bridge={quoted(name)}/>",))


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    kind = "ovs" if ovs.is_ovs(backend.child("virtualport")) else "bridge"
    return f"{kind} {backend.source.get('bridge', '?')}"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return a port of the bridge."""
    virtualport = backend.child("virtualport")
    if ovs.is_ovs(virtualport):
        return ovs.port(required(backend, "bridge"), (virtualport,), (backend.child("vlan"),))
    return BridgePort(required(backend, "bridge"), backend.element.get("port", "isolated") == "yes")
