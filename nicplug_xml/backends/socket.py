"""Backends ``mcast``, ``udp``, ``server`` and ``client``: QEMU's own socket netdevs."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.endpoints import Endpoint, Netdev, StreamTo
from nicplug_xml.model import Backend

#: Interface types, and the argument of QEMU's ``socket`` netdev that each stands for.
_ARGUMENTS = {"mcast": "mcast", "udp": "udp", "server": "listen"}
TYPES = (*_ARGUMENTS, "client")
HINT = "the other end has to be there first: look with 'ss -a' on the hypervisor's host"
intended = as_it_is


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"{backend.type} {backend.source.get('address', '')}:{backend.source.get('port', '?')}"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return the netdev, or whom to connect to.

    :raises SchemaError: the backend does not say where to.
    """
    if backend.type == "client":
        return StreamTo(required(backend, "address"), int(required(backend, "port")))
    address = f"{backend.source.get('address', '')}:{required(backend, 'port')}"
    arguments = {"type": "socket", _ARGUMENTS[backend.type or ""]: address}
    takes = frozenset((f"tcp {backend.source['port']}",)) if backend.type == "server" else frozenset[str]()
    source = backend.child("source")
    local = source.find("local") if source else None
    if local is not None:
        port = f":{local.attributes['port']}" if "port" in local.attributes else ""
        arguments["localaddr"] = local.attributes.get("address", "") + port
        takes = frozenset((f"udp {local.attributes['port']}",)) if backend.type == "udp" and port else takes
    return Netdev(arguments, takes=takes)
