"""Backend ``bridge``: a Linux bridge of the host."""

from __future__ import annotations

from nicplug_xml.document import quoted
from nicplug_xml.model import Backend
from nicplug_xml.plan import Step

TYPE = "bridge"
HINT = "'ip link show type bridge' on the hypervisor's host lists the bridges"


def backend(name: str) -> Backend:
    """Return the backend for the bridge of that name."""
    return Backend(TYPE, (f"<source bridge={quoted(name)}/>",))


def prepare(_backend: Backend) -> list[Step]:
    """Plan nothing: libvirt refuses a bridge that is not there before it touches the NIC."""
    return []


def intended(backend: Backend) -> Backend:
    """Return the backend as it can be plugged in again."""
    return backend


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"bridge {backend.source.get('bridge', '?')}"
