"""Backend ``l2tpv3``: a tunnel of Ethernet frames, RFC 3931, that QEMU itself ends."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.endpoints import Endpoint, Netdev
from nicplug_xml.errors import SchemaError
from nicplug_xml.model import Backend

TYPES = ("l2tpv3",)
HINT = "the tunnel without ports takes CAP_NET_RAW; 'ip l2tp show session' shows what the other end expects"
intended = as_it_is

_COOKIES = ("txcookie", "rxcookie")


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"l2tpv3 {backend.source.get('address', '?')}"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return the netdev: over UDP where ports are named, else directly over IP.

    :raises SchemaError: an end of the tunnel, or its session, is not given.
    """
    source = backend.child("source")
    local, session = (source.find("local"), source.find("session")) if source else (None, None)
    if local is None or "address" not in local.attributes:
        raise SchemaError("the tunnel's own end is not given", hint="add <local address='…'/> to <source>")
    if session is None or "tx" not in session.attributes:
        raise SchemaError("the tunnel has no session", hint="add <session tx='N' rx='N'/> to its <source>")
    remote = required(backend, "address")
    arguments: dict[str, object] = {
        "type": "l2tpv3",
        "src": local.attributes["address"],
        "dst": remote,
        "ipv6": ":" in remote,
        "udp": "port" in backend.source,
        "txsession": int(session.attributes["tx"]),
        "rxsession": int(session.attributes.get("rx", session.attributes["tx"])),
    }
    if "port" in backend.source:
        port = backend.source["port"]
        arguments |= {"dstport": port, "srcport": local.attributes.get("port", port)}
    cookies = {name: int(session.attributes[name], 0) for name in _COOKIES if name in session.attributes}
    if cookies:
        arguments |= cookies
        arguments["cookie64"] = any(value > 0xFFFFFFFF for value in cookies.values())
    takes = frozenset((f"udp {arguments['srcport']}",)) if "srcport" in arguments else frozenset[str]()
    return Netdev(arguments, always=False, takes=takes)
