"""Backends ``stream`` and ``dgram``: sockets as QEMU 7.2 and newer have them, UNIX sockets among them."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.document import Element
from nicplug_xml.endpoints import Endpoint, Netdev, StreamTo
from nicplug_xml.errors import SchemaError
from nicplug_xml.model import Backend

TYPES = ("stream", "dgram")
HINT = "look with 'ss -ax' and 'ss -aun' on the hypervisor's host who has which socket"
intended = as_it_is


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    source = backend.source
    place = source.get("path") or f"{source.get('address', '')}:{source.get('port', '?')}"
    return " ".join(filter(None, (backend.type, source.get("mode"), place)))


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return the netdev, or whom to connect to.

    :raises SchemaError: the backend does not say where to.
    """
    source = backend.child("source")
    if source is None or "path" not in source.attributes:
        required(backend, "address")
        required(backend, "port")
    assert source is not None
    if backend.type == "dgram":
        arguments = {"type": "dgram", "remote": _address(source)}
        local = source.find("local")
        if local is not None:
            arguments["local"] = _address(local)
        elif "path" in source.attributes:
            raise SchemaError(
                "a dgram backend on UNIX sockets needs one of its own", hint="add <local path='…'/>"
            )
        return Netdev(arguments, always=False, takes=_takes("udp", local))
    if source.attributes.get("mode") == "server":
        listening = {"type": "stream", "server": True, "addr": _address(source)}
        return Netdev(listening, always=False, takes=_takes("tcp", source))
    if "path" in source.attributes:
        return StreamTo(source.attributes["path"], None)
    return StreamTo(source.attributes["address"], int(source.attributes["port"]))


def _takes(protocol: str, element: Element | None) -> frozenset[str]:
    """Return what a socket of ours takes of the host."""
    where = {} if element is None else element.attributes
    if "path" in where:
        return frozenset((f"path {where['path']}",))
    return frozenset((f"{protocol} {where['port']}",)) if "port" in where else frozenset()


def _address(element: Element) -> dict[str, object]:
    """Return the SocketAddress that an element's attributes stand for."""
    where = element.attributes
    if "path" in where:
        return {"type": "unix", "path": where["path"]}
    return {"type": "inet", "host": where.get("address", ""), "port": where.get("port", "")}
