"""Backend ``vde``: a switch of Virtual Distributed Ethernet (vde_switch)."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.endpoints import Endpoint, Netdev
from nicplug_xml.model import Backend

TYPES = ("vde",)
HINT = "is its directory that of a running 'vde_switch -s DIRECTORY'?"
intended = as_it_is


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"vde {backend.source.get('path', '?')}"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return the netdev.

    :raises SchemaError: the backend does not name the switch.
    """
    arguments: dict[str, object] = {"type": "vde", "sock": required(backend, "path")}
    port = backend.source.get("port")
    if port:
        arguments["port"] = int(port)
    return Netdev(arguments, always=False)
