"""Backend ``user``: a user-mode network stack, QEMU's own (slirp) or a passt process."""

from __future__ import annotations

from collections.abc import Iterator

from nicplug_xml.backends.common import as_it_is
from nicplug_xml.document import Element
from nicplug_xml.endpoints import Endpoint, Netdev, Passt
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.model import Backend

TYPES = ("user",)
HINT = "is a port that it forwards in use on the hypervisor's host? 'ss -ltnu' shows them"
intended = as_it_is


def backend() -> Backend:
    """Return the backend for QEMU's own user-mode network stack."""
    return Backend("user")


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return "passt" if _is_passt(backend) else "user"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return QEMU's netdev, or the passt process."""
    root = backend.element
    takes = frozenset(
        f"{forward.attributes.get('proto', 'tcp')} {port}"
        for forward in _named(root, "portForward")
        for start, end, _ in _ranges(forward)
        for port in range(start, end + 1)
    )
    if _is_passt(backend):
        return Passt(tuple(_passt_options(root)), takes)
    return Netdev(_slirp_arguments(root), takes=takes)


def _is_passt(backend: Backend) -> bool:
    return backend.element.get("backend", "type") == "passt"


def _slirp_arguments(root: Element) -> dict[str, object]:
    arguments: dict[str, object] = {"type": "user"}
    if "dev" in (source := root.find("source") or root).attributes:
        raise UnsupportedError(
            f"QEMU's own user-mode network is not bound to a device ({source.attributes['dev']})",
            hint="leave <source> out, or use <backend type='passt'/>",
        )
    for ip in _named(root, "ip"):
        address, prefix = ip.attributes.get("address", ""), ip.attributes.get("prefix")
        if ip.attributes.get("family") == "ipv6":
            arguments["ipv6-prefix"] = address
            if prefix:
                arguments["ipv6-prefixlen"] = int(prefix)
        else:
            arguments["net"] = f"{address}/{prefix}" if prefix else address
    forwards = []
    for forward in _named(root, "portForward"):
        protocol, address = forward.attributes.get("proto", "tcp"), forward.attributes.get("address", "")
        if "dev" in forward.attributes:
            raise UnsupportedError(
                "QEMU's own user-mode network forwards no ports of one device",
                hint="name an address instead, or use <backend type='passt'/>",
            )
        for start, end, to in _ranges(forward):
            forwards += [
                {"str": f"{protocol}:{address}:{start + offset}-:{to + offset}"}
                for offset in range(end - start + 1)
            ]
    if forwards:
        arguments["hostfwd"] = forwards
    return arguments


def _passt_options(root: Element) -> Iterator[str]:
    source = root.find("source")
    if source is not None and "dev" in source.attributes:
        yield from ("--interface", source.attributes["dev"])
    if log := root.get("backend", "logFile"):
        yield from ("--log-file", log)
    for ip in _named(root, "ip"):
        yield from ("--address", ip.attributes.get("address", ""))
        if "prefix" in ip.attributes and ip.attributes.get("family") != "ipv6":
            yield from ("--netmask", ip.attributes["prefix"])
    for forward in _named(root, "portForward"):
        place = forward.attributes.get("address", "")
        place += f"%{forward.attributes['dev']}" if "dev" in forward.attributes else ""
        option = "--udp-ports" if forward.attributes.get("proto") == "udp" else "--tcp-ports"
        # passt goes on as long as one port of an option can be bound.
        for start, end, to in _ranges(forward):
            for port in range(start, end + 1):
                ports = f"{port}:{to + port - start}"
                yield from (option, f"{place}/{ports}" if place else ports)


def _ranges(forward: Element) -> Iterator[tuple[int, int, int]]:
    """Yield first and last port of the host, and the guest's port that the first one leads to."""
    if forward.find("range") is None:
        raise UnsupportedError(
            "a <portForward> without <range> would forward every port", hint="say which: <range start='…'/>"
        )
    for item in _named(forward, "range"):
        if item.attributes.get("exclude") == "yes":
            raise UnsupportedError(
                "ports cannot be excluded from a forwarded range",
                hint="write the ranges on both sides of them",
            )
        start = int(item.attributes.get("start", "0"))
        yield start, int(item.attributes.get("end", start)), int(item.attributes.get("to", start))


def _named(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if child.name == name)
