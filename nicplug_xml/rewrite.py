"""Extended domain XML to stock domain XML and back; pure.

Only the interfaces concerned and our one metadata element are edited, in the text itself; all else stays
as it is to the byte. Where a child of the intended backend is taken out of an interface, a processing
instruction ``<?nicplug NAME?>`` keeps its place, so that restoring puts it back there. libvirt drops those,
and its own order is used then.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from nicplug_xml import metadata
from nicplug_xml.document import MARK, Document, Element, check, decode
from nicplug_xml.errors import SchemaError
from nicplug_xml.metadata import Entry
from nicplug_xml.model import NEVER_PLUGGABLE, Backend, Connection, Interface
from nicplug_xml.planes import PLANES, choose
from nicplug_xml.stock import backend_of, put_children, put_link, swapped


def to_stock(xml: str | bytes, *, plane: str = "auto", parking: str = "network") -> str:
    """Rewrite extended domain XML to what stock libvirt understands.

    :param xml: a domain document. Text without ``connection`` on an interface is returned as it is.
    :param plane: the plane that is to hold the pluggable interfaces, or ``auto``.
    :param parking: where plane ``tap`` parks what is not plugged in: ``network``, or ``bridge`` for a
        connection without a network driver.
    :returns: the stock document.
    :raises SchemaError: the document is malformed or refused, or an interface cannot be what it says.
    :raises UnsupportedError: there is no such plane.
    """
    text = decode(xml)[0] if isinstance(xml, bytes) else xml
    if "connection" not in text:
        check(text)
        return text
    document = Document(text)
    interfaces = list(interfaces_of(document.root))
    pluggable = [item for item in interfaces if "connection" in item.attributes]
    if not pluggable:
        return text
    _Rewriter(document, interfaces, PLANES[choose(plane)].NAME, parking).rewrite(pluggable)
    return document.edited()


def to_extended(xml: str | bytes, *, restore_mac: bool = True) -> str:
    """Show a stock domain document as the extended one that it stands for.

    :param xml: a domain document, from `to_stock` or from libvirt.
    :param restore_mac: take out MACs that `to_stock` made up, as the identity of the two asks for.
    :returns: the extended document; without our metadata in it, the text as it is.
    :raises SchemaError: the document is malformed or refused.
    """
    text = decode(xml)[0] if isinstance(xml, bytes) else xml
    if metadata.URI not in text:
        check(text)
        return text
    document = Document(text)
    element = metadata.find(document.root)
    if element is None:
        return text
    entries = {entry.key: entry for entry in metadata.parse(element)}
    for interface in interfaces_of(document.root):
        entry = entries.get(metadata.key_of(interface))
        if entry is not None:
            _extend(document, interface, entry, restore_mac)
    _remove_metadata(document, element)
    return document.edited()


def read_interfaces(xml: str) -> tuple[list[Interface], list[Entry]]:
    """Read a stock domain document.

    :returns: its interfaces as they are now, and all entries of our metadata.
    :raises SchemaError: the document is malformed or refused.
    """
    root = Document(xml).root
    entries = {entry.key: entry for entry in metadata.parse(metadata.find(root))}
    found = [_interface(element, entries.get(metadata.key_of(element))) for element in interfaces_of(root)]
    return found, list(entries.values())


def interfaces_of(domain: Element) -> Iterator[Element]:
    """Yield the ``<interface>`` elements of a ``<domain>``."""
    for devices in domain:
        if devices.tag == "devices":
            yield from (child for child in devices if child.tag == "interface")


class _Rewriter:
    """The one pass over a document that `to_stock` makes."""

    def __init__(self, document: Document, interfaces: list[Element], plane: str, parking: str) -> None:
        self.document = document
        self.interfaces = interfaces
        self.plane = plane
        if parking not in PLANES[plane].PARKING:
            raise SchemaError(f"there is no parking place '{parking}'", hint="use network or bridge")
        self.place = PLANES[plane].PARKING[parking]

    def rewrite(self, pluggable: list[Element]) -> None:
        if self.document.root.tag != "domain":
            raise SchemaError(
                f"<{self.document.root.name}> holds an interface with connection=",
                hint="only <domain> documents can have one",
            )
        entries = [self._interface(element) for element in pluggable]
        keys = [metadata.key_of(element) for element in self.interfaces]
        for entry in entries:
            if keys.count(entry.key) > 1:
                raise SchemaError(
                    f"two interfaces are named {entry.key}, one of them pluggable",
                    hint="give each an <alias name='ua-…'/> of its own",
                )
        present = metadata.find(self.document.root)
        stock = {key for key, item in zip(keys, self.interfaces, strict=True) if item not in pluggable}
        kept = [entry for entry in metadata.parse(present) if entry.key in stock]
        self._record([*kept, *entries], present)

    def _interface(self, element: Element) -> Entry:
        connection = _connection(
            element, f"/domain/devices/interface[{self.interfaces.index(element) + 1}]", self.plane
        )
        key = metadata.key_of(element)
        mac = "" if key else self._new_mac(element)
        self.document.set_attribute(element, "connection", None)
        link = None
        intended = None
        if connection is Connection.DEFERRED:
            link = element.get("link", "state")
            intended = backend_of(element, PLANES[self.plane].KEPT)
            self._park(element, link, mac)
        elif mac:
            self.document.prepend(element, f"<mac address='{mac}'/>")
        return Entry(key or mac, self.plane, link, intended, bool(mac))

    def _park(self, element: Element, link: str | None, mac: str) -> None:
        for child in swapped(element, PLANES[self.plane].KEPT):
            self.document.replace(child.start, child.end, f"<?{MARK} {child.name}?>")
        self.document.set_attribute(element, "type", self.place.type)
        new = [f"<mac address='{mac}'/>"] if mac else []
        new += self.place.children
        if link is None:
            new.append("<link state='down'/>")
        else:
            put_link(self.document, element, "down")
        self.document.prepend(element, *new)

    def _new_mac(self, element: Element) -> str:
        """Make a MAC in QEMU's range out of the document, so that the same document has the same one."""
        seed = crc32(b"%d %s" % (self.interfaces.index(element), self.document.data)) & 0xFFFFFF
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


def _connection(element: Element, path: str, plane: str) -> Connection:
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
    kinds = PLANES[plane].KINDS
    if kind is not None and kind not in kinds:
        raise SchemaError(
            f"{path}: plane '{plane}' cannot plug in type='{kind}'",
            hint=f"it can: {', '.join(sorted(kinds))}",
        )
    return connection


def _extend(document: Document, interface: Element, entry: Entry, restore_mac: bool) -> None:
    plane = PLANES.get(entry.plane)
    parked = plane is not None and plane.is_parked(interface)
    connection = Connection.DEFERRED if parked else Connection.ATTACHED
    mac = interface.find("mac")
    if entry.generated and restore_mac and mac is not None:
        document.remove(mac)
    if plane is not None and parked:
        intended = entry.backend or Backend(None)
        for child in swapped(interface, plane.KEPT):
            document.remove(child)
        document.set_attribute(interface, "type", intended.type)
        put_link(document, interface, entry.link)
        _put_back(document, interface, intended.children)
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


def _interface(element: Element, entry: Entry | None) -> Interface:
    plane = None if entry is None else PLANES.get(entry.plane)
    connection, backend = Connection.ATTACHED, backend_of(element)
    link = present_link = element.get("link", "state")
    if entry is not None and plane is not None:
        backend = backend_of(element, plane.KEPT)
        if plane.is_parked(element):
            connection, backend, link = Connection.DEFERRED, entry.backend, entry.link
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
