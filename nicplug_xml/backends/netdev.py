"""Backend ``netdev``: any network device of the host, as a wire is: whatever comes out goes in."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.document import quoted
from nicplug_xml.endpoints import Endpoint, HostDevice
from nicplug_xml.model import Backend

TYPES = ("netdev",)
HINT = "'ip link' on the hypervisor's host lists the devices"
intended = as_it_is


def backend(device: str) -> Backend:
    """Return the backend for that device."""
    return Backend("netdev", (f"<source dev={quoted(device)}/>",))


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"netdev {backend.source.get('dev', '?')}"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return the device."""
    return HostDevice(required(backend, "dev"))
