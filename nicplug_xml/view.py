"""What is true of a domain, read from its stock XML, our metadata and its QEMU's netdevs; pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nicplug_xml import metadata
from nicplug_xml.document import Element
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Connection, Interface
from nicplug_xml.planes import PLANES
from nicplug_xml.stock import backend_of, interfaces_of, parse_domain


@dataclass(frozen=True)
class View:
    """A domain in one of its states.

    :param root: its stock XML.
    :param netdevs: ids of its QEMU's netdevs; empty where no QEMU was asked.
    :param interfaces: its interfaces as they are.
    :param entries: all entries of our metadata, also those that no interface matches.
    """

    root: Element
    netdevs: frozenset[str]
    interfaces: tuple[Interface, ...]
    entries: tuple[Entry, ...]


def view(xml: str, netdevs: Collection[str] | None = None) -> View:
    """Read a stock domain document.

    :param xml: the document.
    :param netdevs: ids of the running QEMU's netdevs; None where no QEMU was asked: then what is recorded
        is believed.
    :raises SchemaError: the document is malformed or refused.
    """
    root = parse_domain(xml).root
    entries = {entry.key: entry for entry in metadata.parse(metadata.find(root))}
    found = (
        _interface(element, entries.get(metadata.key_of(element)), netdevs) for element in interfaces_of(root)
    )
    return View(root, frozenset(netdevs or ()), tuple(found), tuple(entries.values()))


def _interface(element: Element, entry: Entry | None, netdevs: Collection[str] | None) -> Interface:
    plane = None if entry is None else PLANES.get(entry.plane)
    connection, backend = Connection.ATTACHED, backend_of(element)
    link = present_link = element.get("link", "state")
    if entry is not None and plane is not None:
        deferred = plane.is_deferred(element, entry, netdevs)
        connection = Connection.DEFERRED if deferred else Connection.ATTACHED
        backend = backend_of(element, plane.KEPT)
        if deferred or plane.ALWAYS_HELD:
            backend, link = entry.backend, entry.link
    return Interface(
        xml=element.text,
        mac=(element.get("mac", "address") or "").lower(),
        alias=element.get("alias", "name") or "",
        key=metadata.key_of(element),
        target=element.get("target", "dev") or "",
        model=element.get("model", "type") or "",
        plane=None if entry is None else entry.plane,
        connection=connection,
        backend=backend,
        link=link,
        carrier=present_link != "down",
    )
