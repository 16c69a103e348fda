"""Backend ``cable``: point to point to another pluggable NIC, of this domain or another one."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is, required
from nicplug_xml.document import quoted
from nicplug_xml.endpoints import CableTo, Endpoint
from nicplug_xml.model import Backend

TYPES = ("cable",)
HINT = "'nicplug list' shows what NICs there are"
intended = as_it_is


def backend(domain: str, interface: str) -> Backend:
    """Return the backend for a cable to an interface, a MAC or an alias, of a domain."""
    return Backend("cable", (f"<source domain={quoted(domain)} interface={quoted(interface)}/>",))


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"cable {backend.source.get('domain', '?')}/{backend.source.get('interface', '?')}"


def endpoint(backend: Backend, _network: str) -> Endpoint:
    """Return where the cable leads."""
    return CableTo(required(backend, "domain"), required(backend, "interface"))
