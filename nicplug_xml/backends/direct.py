"""Backend ``direct``: a macvtap on a device of the host."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.document import quoted
from nicplug_xml.endpoints import Endpoint, MacvtapOn
from nicplug_xml.errors import SchemaError
from nicplug_xml.model import Backend

TYPES = ("direct",)
HINT = "'ip link' on the hypervisor's host lists the devices"
intended = as_it_is

#: libvirt's names of the modes, and the kernel's.
MODES = {"bridge": "bridge", "private": "private", "vepa": "vepa", "passthrough": "passthru"}


def backend(device: str, mode: str = "bridge") -> Backend:
    """Return the backend for a macvtap on that device."""
    return Backend("direct", (f"<source dev={quoted(device)} mode={quoted(mode)}/>",))


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"direct {backend.source.get('dev', '?')} ({_mode(backend)})"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return a macvtap on the device."""
    mode = _mode(backend)
    if mode not in MODES:
        raise SchemaError(f"there is no macvtap mode '{mode}'", hint=f"use {', '.join(MODES)}")
    return MacvtapOn(required(backend, "dev"), MODES[mode])


def _mode(backend: Backend) -> str:
    return backend.source.get("mode", "vepa")  # libvirt's own default
