"""What is true of a domain, read from its stock XML, our metadata and the facts below them; pure."""

from __future__ import annotations

from nicplug_xml import metadata
from nicplug_xml.document import Element
from nicplug_xml.facts import NOT_ASKED, Facts
from nicplug_xml.frozen import Frozen
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Connection, Interface
from nicplug_xml.planes import PLANES, native, tap, veth
from nicplug_xml.planes.joining import present
from nicplug_xml.stock import as_asked, backend_of, interfaces_of


class View(Frozen):
    """A domain in one of its states.

    :param root: its stock XML.
    :param facts: what is so below that.
    :param interfaces: its interfaces as they are.
    :param entries: as of `entries_of`.
    """

    root: Element
    facts: Facts
    interfaces: tuple[Interface, ...]
    entries: tuple[Entry, ...]


def view(root: Element, facts: Facts = NOT_ASKED) -> View:
    """Read a stock domain document.

    :param root: its ``<domain>``.
    :param facts: what is so below that; what is recorded is believed where nobody was asked.
    """
    entries = entries_of(root)
    found = (
        _interface(as_asked(element), metadata.entry_of(element, entries), facts)
        for element in interfaces_of(root)
    )
    return View(root, facts, tuple(found), tuple(entries.values()))


def may_have_pluggable(xml: str) -> bool:
    """Whether a stock domain document may have pluggable interfaces, which takes parsing to tell."""
    return metadata.URI in xml or any(place in xml for place in tap.PARKING_PLACES)


def entries_of(root: Element) -> dict[str, Entry]:
    """Return what is recorded of a domain's interfaces, also of those that it no longer has, by their keys.

    An interface in the parking place is pluggable without a record as well: a clone of the domain has other
    MACs, and a tool may have dropped our metadata. What it was to be plugged into is not known then.
    """
    entries = {entry.key: entry for entry in metadata.parse(metadata.find(root))}
    plane = veth if root.attributes.get("type") == veth.DRIVER else tap
    for interface in interfaces_of(root):
        key = metadata.key_of(interface)
        if key and tap.is_parked(interface) and metadata.entry_of(interface, entries) is None:
            entries[key] = Entry(key, plane.NAME)
    return entries


def _interface(element: Element, entry: Entry | None, facts: Facts) -> Interface:
    if "connection" in element.attributes:
        entry = Entry(metadata.key_of(element), native.NAME)
    plane = None if entry is None else PLANES.get(entry.plane)
    connection, shown, backend = Connection.ATTACHED, True, backend_of(element)
    link = element.get("link", "state")
    carrier = link != "down"
    if entry is not None and plane is not None:
        connection, shown = plane.look(element, entry, facts)
        backend = backend_of(element, plane.KEPT) if shown else entry.backend
        link = link if shown else entry.link
        if connection is Connection.ATTACHED and not shown:
            backend = present(element, backend, facts)
        if plane.NAME == native.NAME:
            carrier = carrier and connection is Connection.ATTACHED
        if plane.DRIVER == "lxc":
            # The <link> of a container's interface is not what it sees.
            carrier = connection is Connection.ATTACHED and link != "down"
        carrier = facts.carriers.get(entry.key, carrier)
    return Interface(
        xml=element.text,
        mac=metadata.mac_of(element),
        alias=element.get("alias", "name") or (entry.alias if entry else ""),
        key=entry.key if entry else metadata.key_of(element),
        target=element.get("target", "dev") or "",
        model=element.get("model", "type") or "",
        plane=None if entry is None else entry.plane,
        connection=connection,
        backend=backend,
        link=link,
        carrier=carrier,
        shown=shown,
    )
