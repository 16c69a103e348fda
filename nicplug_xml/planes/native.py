"""Plane ``native``: a libvirt that knows ``connection`` holds the NIC, and its own XML tells of everything.

Nothing is rewritten and nothing recorded. What the other planes record, libvirt is told here, and carries
out: each operation is one update-device, which libvirt undoes when it fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.facts import Facts
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Interface, Scope
from nicplug_xml.planes import tap
from nicplug_xml.planes.held import Held
from nicplug_xml.steps import Step, UpdateDevice
from nicplug_xml.stock import with_backend

NAME = "native"
DRIVER = "qemu"
NEEDS_ALIAS = False

#: Backend types that libvirt's XML has. Which of them a NIC can be plugged into, it knows by itself.
KINDS = frozenset(("bridge", "network", "direct", "user", "mcast", "udp", "server", "client"))
#: Those that it can be by way of its tap. The others take a QEMU that plane swap can be on, or libvirt's hub.
ALWAYS = frozenset(("bridge", "network"))
KEPT: frozenset[str] = frozenset()

provision = tap.provision
release = tap.release


def refused(_backend: Backend, _endpoint: Endpoint | None = None) -> frozenset[str]:
    """Of what a backend may have, libvirt refuses by itself what it cannot carry out."""
    return frozenset()


def shows(_backend: Backend, _endpoint: Endpoint | None = None) -> bool:
    """Whether libvirt's XML tells of this backend: of each."""
    return True


def hold(_document: Document, _interface: Element, _parking: str) -> Sequence[str]:
    """Leave the interface as it is: libvirt reads it."""
    return ()


def look(interface: Element, _entry: Entry, _facts: Facts) -> tuple[Connection, bool]:
    """Return how the interface is connected: as libvirt says, whatever somebody has written into metadata."""
    return Connection(interface.attributes.get("connection", Connection.ATTACHED)), True


def attach(
    held: Held, _backend: Backend, _endpoint: Endpoint, link: str | None
) -> tuple[list[Step], list[Step]]:
    """Plan next to nothing: what libvirt is told of it is in `update`."""
    nic = held.nic
    if tap.has_fallen_off(nic, held.facts):
        # libvirt does nothing about a bridge that it takes the tap to be in: out of that first.
        return [update(nic, Connection.DEFERRED, nic.backend, link, held.scope)], []
    return [], []


def detach(_held: Held) -> tuple[list[Step], list[Step]]:
    """Plan nothing: what libvirt is told of it is in `update`."""
    return [], []


def carrier(_held: Held, _state: str) -> list[Step]:
    """Plan nothing: what libvirt is told of it is in `update`."""
    return []


def update(
    nic: Interface, connection: Connection, backend: Backend | None, link: str | None, scope: Scope
) -> Step:
    """Plan to have libvirt make a NIC what is said of it.

    :param backend: the one to be attached, or the intended one; None for none.
    :param link: the administrator's link; None where nothing is said.
    """
    document = Document(with_backend(nic.xml, backend or Backend(None), link, KEPT))
    document.set_attribute(document.root, "connection", connection.value)
    return UpdateDevice("have libvirt do it", document.edited(), nic.xml, scope)
