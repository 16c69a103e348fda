"""Backends: what a NIC can be plugged into. One module each, one table."""

from __future__ import annotations

from typing import Protocol

from nicplug_xml.backends import bridge, network
from nicplug_xml.model import Backend
from nicplug_xml.plan import Step


class Kind(Protocol):
    """What a module of this package has."""

    @property
    def TYPE(self) -> str:
        """The ``type`` of ``<backend>`` and ``<interface>``."""

    @property
    def HINT(self) -> str:
        """What to look at when plugging into it fails."""

    def describe(self, backend: Backend) -> str:
        """Return the backend in words: ``bridge br0``."""

    def prepare(self, backend: Backend) -> list[Step]:
        """Plan what must be there before a running guest's NIC is plugged in."""

    def intended(self, backend: Backend) -> Backend:
        """Return the backend of a running guest as it can be plugged in again."""


BACKENDS: dict[str, Kind] = {bridge.TYPE: bridge, network.TYPE: network}


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


def prepare(backend: Backend) -> list[Step]:
    """Plan what must be there before a running guest's NIC is plugged into `backend`."""
    return BACKENDS[backend.type].prepare(backend) if backend.type in BACKENDS else []
