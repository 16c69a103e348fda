"""Backend ``vde``: a switch of Virtual Distributed Ethernet (vde_switch)."""

from __future__ import annotations

from nicplug_xml.backends.common import required
from nicplug_xml.endpoints import Endpoint, Netdev
from nicplug_xml.model import Backend

TYPES = ("vde",)
HINT = "is its directory that of a running 'vde_switch -s DIRECTORY'?"


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"vde {backend.source.get('path', '?')}"


def intended(backend: Backend) -> Backend:
    """Return the backend as it can be plugged in again."""
    return backend


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return the netdev.

    :raises SchemaError: the backend does not name the switch.
    """
    arguments: dict[str, object] = {"type": "vde", "sock": required(backend, "path")}
    port = backend.source.get("port")
    if port:
        arguments["port"] = int(port)
    return Netdev(arguments, always=False)
