"""Extended domain XML to stock domain XML and back; pure.

Only the interfaces concerned, our one metadata element and what a plane needs elsewhere are edited, in the
text itself; all else stays as it is to the byte. Where a child of the intended backend is taken out of an
interface, a processing instruction ``<?nicplug NAME?>`` keeps its place, so that restoring puts it back
there. libvirt drops those, and its own order is used then.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from zlib import crc32

from nicplug_xml import metadata
from nicplug_xml.document import MARK, Document, Element, check, decode, quoted
from nicplug_xml.errors import SchemaError
from nicplug_xml.facts import NOT_ASKED, Facts
from nicplug_xml.frozen import Frozen
from nicplug_xml.metadata import Entry
from nicplug_xml.model import NEVER_PLUGGABLE, Backend, Connection
from nicplug_xml.obstacles import obstacles
from nicplug_xml.planes import PLANES, Plane, choose, native, tap
from nicplug_xml.planes.joining import present
from nicplug_xml.stock import (
    backend_of,
    interfaces_of,
    parse_domain,
    put_children,
    put_link,
    put_network,
    swapped,
)
from nicplug_xml.view import entries_of, may_have_pluggable

#: Aliases of all devices, also of those that are not looked at otherwise.
_ALIAS = re.compile(rb"""<alias\s+name\s*=\s*["']([^"']+)""")


def to_stock(
    xml: str | bytes,
    *,
    plane: str = "auto",
    parking: str = "network",
    recorded: Mapping[str, str] | None = None,
    offered: Collection[str] = frozenset(),
    joined: Collection[str] = frozenset(),
) -> str:
    """Rewrite extended domain XML to what stock libvirt understands.

    :param xml: a domain document. Text without ``connection`` on an interface is returned as it is.
    :param plane: the plane that is to hold the pluggable interfaces; ``auto`` is plane tap for those whose
        backend it can have, and plane hub for the others; plane veth for those of containers. What plane
        ``native`` is to hold stays as it is.
    :param parking: where plane ``tap`` parks what is not plugged in: ``network``, or ``bridge`` for a
        connection without a network driver.
    :param recorded: planes by the names that the metadata has for interfaces: what ``auto`` means for these,
        where that plane can have the backend.
    :param offered: those of the planes ``native`` and ``swap`` that are there, which ``auto`` goes by.
    :param joined: libvirt networks that nicplug has to join NICs to: what libvirt itself makes there, a
        macvtap say, cannot be unplugged.
    :returns: the stock document.
    :raises SchemaError: the document is malformed or refused, or an interface cannot be what it says.
    :raises UnsupportedError: there is no such plane.
    """
    text = decode(xml)[0] if isinstance(xml, bytes) else xml
    if "connection" not in text:
        check(text)
        return text
    document = parse_domain(text)
    root = document.root
    if root.tag != "domain" and any(map(_is_extended, (root, *root.below()))):
        raise SchemaError(
            f"<{root.name}> holds an interface with connection=",
            hint="only <domain> documents can have one",
        )
    interfaces = list(interfaces_of(root))
    pluggable = [item for item in interfaces if "connection" in item.attributes]
    if not pluggable:
        return text
    if parking not in tap.PARKING:
        raise SchemaError(f"there is no parking place '{parking}'", hint="use network or bridge")
    _Rewriter(document, interfaces, plane, parking, recorded or {}, offered, joined).rewrite(pluggable)
    return document.edited()


def to_extended(xml: str | bytes, *, restore_generated: bool = True, facts: Facts = NOT_ASKED) -> str:
    """Show a stock domain document as the extended one that it stands for.

    :param xml: a domain document, from `to_stock` or from libvirt.
    :param restore_generated: take out MACs and aliases that `to_stock` made up, as the identity asks for.
    :param facts: what is so below a running domain; what is recorded is believed where nobody was asked.
    :returns: the extended document; without pluggable interfaces in it, the text as it is.
    :raises SchemaError: the document is malformed or refused.
    """
    text = decode(xml)[0] if isinstance(xml, bytes) else xml
    if not may_have_pluggable(text):
        check(text)
        return text
    document = parse_domain(text)
    element = metadata.find(document.root)
    entries = entries_of(document.root)
    if element is None and not entries:
        return text
    for interface in interfaces_of(document.root):
        entry = metadata.entry_of(interface, entries)
        if entry is not None:
            _extend(document, interface, entry, facts)
            made_up = interface.find(entry.generated) if restore_generated else None
            if made_up is not None:
                document.remove(made_up)
    # Those of interfaces that somebody has taken out as well.
    for name, plane in PLANES.items():
        plane.release(document, [entry.key for entry in entries.values() if entry.plane == name])
    if element is not None:
        _remove_metadata(document, element)
    return document.edited()


class _Rewriter(Frozen):
    """The one pass over a document that `to_stock` makes; what it is given is as there."""

    document: Document
    interfaces: list[Element]
    plane: str
    parking: str
    recorded: Mapping[str, str]
    offered: Collection[str]
    joined: Collection[str]

    @cached_property
    def _aliases(self) -> set[str]:
        return {found.decode() for found in _ALIAS.findall(self.document.data)}

    def rewrite(self, pluggable: list[Element]) -> None:
        made = {id(element): self._interface(element) for element in pluggable}
        entries = [entry for entry in made.values() if entry is not None]
        if not entries:
            return
        keys = [
            entry.key if (entry := made.get(id(element))) else metadata.key_of(element)
            for element in self.interfaces
        ]
        for entry in entries:
            if keys.count(entry.key) > 1:
                raise SchemaError(
                    f"two interfaces are named {entry.key}, one of them pluggable",
                    hint="give each an <alias name='ua-…'/> of its own; in a container, a MAC",
                )
        stock_macs = {metadata.mac_of(item) for item in self.interfaces if id(item) not in made}
        for entry in entries:
            if entry.key in stock_macs:
                raise SchemaError(
                    f"an interface that is not pluggable has the MAC of a pluggable one, {entry.key}",
                    hint="give the pluggable one an <alias name='ua-…'/> of its own; in a container, a MAC",
                )
        for name, plane in PLANES.items():
            held = {
                entry.key: element
                for element in pluggable
                if (entry := made[id(element)]) and entry.plane == name
            }
            plane.provision(self.document, held)
        present = metadata.find(self.document.root)
        stock = {key for key, item in zip(keys, self.interfaces, strict=True) if item not in pluggable}
        kept = [entry for entry in metadata.parse(present) if entry.key in stock]
        self._record([*kept, *entries], present)

    def _interface(self, element: Element) -> Entry | None:
        """Rewrite an interface; return what is to be recorded of it, None where libvirt itself holds it."""
        number = self.interfaces.index(element) + 1
        plane = self._choose(element)
        connection = _connection(element, f"/domain/devices/interface[{number}]", plane)
        if plane.NAME == native.NAME:
            return None
        key, generated, alias = metadata.key_of(element), "", ""
        new: list[str] = []
        if plane.DRIVER == "lxc" and key.startswith(metadata.USER_ALIAS):
            alias, key = key, metadata.mac_of(element)
        if plane.NEEDS_ALIAS and not key.startswith(metadata.USER_ALIAS):
            key, generated = self._new_alias(number), "alias"
            new.append(f"<alias name='{key}'/>")
        elif not key:
            key, generated = self._new_mac(number), "mac"
            new.append(f"<mac address='{key}'/>")
        self.document.set_attribute(element, "connection", None)
        backend, link, attached = backend_of(element, plane.KEPT), None, connection is Connection.ATTACHED
        if attached and backend is not None and plane.shows(backend) and not self._is_joined(backend):
            backend, attached = None, False
        else:
            link = element.get("link", "state")
            new += self._hold(plane, element, link)
        if new:
            self.document.prepend(element, *new)
        return Entry(key, plane.NAME, link, backend, generated, attached, alias)

    def _is_joined(self, backend: Backend) -> bool:
        return backend.type == "network" and backend.source.get("network") in self.joined

    def _hold(self, plane: Plane, element: Element, link: str | None) -> list[str]:
        for child in swapped(element, plane.KEPT):
            self.document.replace(child.start, child.end, f"<?{MARK} {child.name}?>")
        new = list(plane.hold(self.document, element, self.parking))
        if plane.DRIVER == "lxc":
            # There it says whether libvirt sets the container's own end up.
            return new
        if link is None:
            return [*new, "<link state='down'/>"]
        put_link(self.document, element, "down")
        return new

    def _choose(self, element: Element) -> Plane:
        kind = element.attributes.get("type")
        driver = "lxc" if self.document.root.attributes.get("type") == "lxc" else "qemu"
        if self.plane == "auto" and self.recorded:
            held = PLANES.get(self.recorded.get(metadata.key_of(element), ""))
            if held is not None and (kind is None or kind in held.KINDS):
                return held
        return choose(self.plane, kind, driver, self.offered)

    def _new_alias(self, number: int) -> str:
        """Make an alias that no device of the domain has, nor another interface has been given."""
        while (alias := f"{metadata.USER_ALIAS}nicplug{number}") in self._aliases:
            number += 1
        self._aliases.add(alias)
        return alias

    def _new_mac(self, number: int) -> str:
        """Make a MAC in QEMU's range out of the document, so that the same document has the same one."""
        seed = crc32(b"%d %s" % (number, self.document.data)) & 0xFFFFFF
        return "52:54:00:" + ":".join(f"{byte:02x}" for byte in seed.to_bytes(3, "big"))

    def _record(self, entries: list[Entry], present: Element | None) -> None:
        document, root = self.document, self.document.root
        around = next((child for child in root if child.tag == "metadata"), None)
        alone = metadata.ALONE in present.attributes if present else around is None
        text = metadata.format_entries(entries, alone=alone, namespace=True)
        if present is not None:
            document.replace(present.start, present.end, text)
        elif around is not None:
            document.prepend(around, text)
        else:
            devices = next(child for child in root if child.tag == "devices")
            space = document.space_before(devices.start).decode()
            document.replace(devices.start, devices.start, f"<metadata>{text}</metadata>{space}")


def _is_extended(element: Element) -> bool:
    return element.tag == "interface" and "connection" in element.attributes


def _connection(element: Element, path: str, plane: Plane) -> Connection:
    value, kind = element.attributes["connection"], element.attributes.get("type")
    try:
        connection = Connection(value)
    except ValueError:
        raise SchemaError(
            f"{path}: connection='{value}' means nothing", hint="say deferred or attached"
        ) from None
    if kind in NEVER_PLUGGABLE:
        raise SchemaError(
            f"{path}: type='{kind}' cannot be plugged: there the guest's device is the backend",
            hint="leave connection= out",
        )
    if kind is None and connection is Connection.ATTACHED:
        raise SchemaError(
            f"{path}: connection='attached' without a type says attached to what?",
            hint="name the backend, or say connection='deferred'",
        )
    for obstacle in obstacles(element, plane):
        raise SchemaError(f"{path}: {obstacle.what}", hint=obstacle.hint)
    return connection


def _extend(document: Document, interface: Element, entry: Entry, facts: Facts) -> None:
    plane = PLANES.get(entry.plane)
    connection, shown = Connection.ATTACHED, True
    if plane is not None:
        connection, shown = plane.look(interface, entry, facts)
    if plane is not None and not shown:
        backend = entry.backend
        if connection is Connection.ATTACHED:
            backend = present(interface, backend, facts)
        intended = backend or Backend(None)
        for child in swapped(interface, plane.KEPT):
            document.remove(child)
        document.set_attribute(interface, "type", intended.type)
        put_link(document, interface, entry.link)
        if entry.alias and interface.find("alias") is None:
            put_children(document, interface, (f"<alias name={quoted(entry.alias)}/>",))
        _put_back(document, interface, intended.children)
    else:
        put_network(document, interface)
    document.set_attribute(interface, "connection", connection.value)


def _put_back(document: Document, interface: Element, children: tuple[str, ...]) -> None:
    marks = [mark for mark in document.marks if interface.start < mark[1] < interface.end]
    if len(marks) != len(children):
        put_children(document, interface, children)
        return
    for (_name, start, end), child in zip(marks, children, strict=True):
        document.replace(start, end, child)


def _remove_metadata(document: Document, element: Element) -> None:
    around = next(child for child in document.root if child.tag == "metadata")
    if metadata.ALONE in element.attributes and around.children == [element]:
        space = document.space_after(around.end)
        document.replace(around.start, around.end + len(space), b"")
    else:
        document.remove(element)
