"""Backends: what a NIC can be plugged into. One module each, one table."""

from __future__ import annotations

from typing import Protocol

from nicplug_xml.backends import bridge, cable, direct, fd, l2tpv3, netdev, network, socket, stream, user, vde
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.model import Backend


class Kind(Protocol):
    """What a module of this package has."""

    @property
    def TYPES(self) -> tuple[str, ...]:
        """The ``type`` of ``<backend>`` and ``<interface>`` that it is for, mostly one."""

    @property
    def HINT(self) -> str:
        """What to look at when plugging into it fails."""

    def describe(self, backend: Backend, /) -> str:
        """Return the backend in words: ``bridge br0``."""

    def intended(self, backend: Backend, /) -> Backend:
        """Return the backend of a running guest as it can be plugged in again."""

    def endpoint(self, backend: Backend, network: str, /) -> Endpoint:
        """Return what the backend looks like from the host.

        :param network: XML of the libvirt network that the backend names, where there is one.
        :raises SchemaError: the backend lacks something.
        :raises UnsupportedError: it cannot be had.
        """


BACKENDS: dict[str, Kind] = {
    kind: module
    for module in (bridge, network, direct, netdev, cable, user, socket, fd, stream, l2tpv3, vde)
    for kind in module.TYPES
}


def describe(backend: Backend | None) -> str:
    """Return a backend in words, or ``-`` for none; a type that is not ours by its first source attribute."""
    if backend is None or backend.type is None:
        return "-"
    if backend.type in BACKENDS:
        return BACKENDS[backend.type].describe(backend)
    return f"{backend.type} {next(iter(backend.source.values()), '')}".rstrip()


def hint(backend: Backend) -> str:
    """Return what to look at when plugging into `backend` fails."""
    return BACKENDS[backend.type].HINT if backend.type in BACKENDS else ""


def intended(backend: Backend) -> Backend:
    """Return the backend of a running guest as it can be plugged in again."""
    return BACKENDS[backend.type].intended(backend) if backend.type in BACKENDS else backend


def endpoint(backend: Backend, network: str) -> Endpoint:
    """Return what `backend` looks like from the host; arguments and errors as for `Kind.endpoint`."""
    if backend.type not in BACKENDS:
        raise UnsupportedError(
            f"nothing is known of backends of type '{backend.type}'", hint=f"there are {', '.join(BACKENDS)}"
        )
    try:
        return BACKENDS[backend.type].endpoint(backend, network)
    except ValueError as error:
        raise SchemaError(
            f"the backend of type '{backend.type}' has a number that is none: {error}"
        ) from error
