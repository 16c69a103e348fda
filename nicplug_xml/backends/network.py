"""Backend ``network``: a libvirt network, by its name."""

from __future__ import annotations

from dataclasses import replace

from nicplug_xml.document import Document, quoted
from nicplug_xml.model import Backend
from nicplug_xml.plan import RequireNetwork, Step

TYPE = "network"
HINT = "'virsh net-list --all' lists the networks, 'virsh net-start NAME' starts one"


def backend(name: str) -> Backend:
    """Return the backend for the libvirt network of that name."""
    return Backend(TYPE, (f"<source network={quoted(name)}/>",))


def prepare(backend: Backend) -> list[Step]:
    """Plan what must be there before a running guest's NIC is plugged in."""
    return [RequireNetwork(backend.source.get("network", ""))]


def intended(backend: Backend) -> Backend:
    """Return the backend without what libvirt adds to the source of a running guest."""
    children = []
    for child in backend.children:
        document = Document(child)
        if document.root.name == "source":
            document.set_attribute(document.root, "portid", None)
            document.set_attribute(document.root, "bridge", None)
        children.append(document.edited())
    return replace(backend, children=tuple(children))


def describe(backend: Backend) -> str:
    """Return the backend in words."""
    return f"network {backend.source.get('network', '?')}"
