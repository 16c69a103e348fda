"""Stock domain XML: reading it, and the edits of one ``<interface>`` that planes and rewriter share; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from nicplug_xml.document import Document, Element
from nicplug_xml.model import BACKEND_CHILDREN, Backend

#: What is asked of a domain, besides its interfaces.
_ASKED_FOR = re.compile(rb"<(?:[^\s/>]+:)?(?:name|uuid|metadata|devices|commandline|override)\b")


def parse_domain(xml: str) -> Document:
    """Parse a domain document; of its devices, only interfaces are sure to be found.

    :raises SchemaError: the document is malformed or refused.
    """
    return Document(xml, skip=_foreign)


def _foreign(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield the spans of a domain document that have nothing to do with interfaces."""
    if (start := data.find(b"</os>")) >= 0 and (following := _ASKED_FOR.search(data, start)):
        yield "domain", start + len(b"</os>"), following.start()
    end = data.rfind(b"</devices>")
    before = b"<devices>"
    at = data.rfind(before, 0, end) if end >= 0 else -1
    while at >= 0:
        at += len(before)
        interface = data.find(b"<interface", at, end)
        yield "devices", at, end if interface < 0 else interface
        before = b"</interface>"
        at = -1 if interface < 0 else data.find(before, interface, end)


def read_domain(xml: str) -> Element:
    """Parse libvirt's own XML of a domain; what is asked for is there to be found: our metadata, interfaces
    and what comes after the devices.

    libvirt indents each element by its depth, and writes no bare ``<`` but that of its elements, except in
    metadata, which may hold anything. So the first ``<metadata`` and the last ``</metadata>`` before the last
    ``<devices>`` are what they seem. A document that is not laid out like that is parsed as a whole.

    :raises SchemaError: the document is malformed or refused.
    """
    before, devices, behind = xml.rpartition("\n  <devices>")
    found, end, tail = behind.partition("\n  </devices>")
    head, opened, rest = before.partition("\n  <metadata")
    inside, closed, _ = rest.rpartition("</metadata>")
    items = [item.partition("\n    </interface>") for item in found.split("\n    <interface ")[1:]]
    if not (
        xml.startswith("<domain ") and devices and end
        and (closed if opened else "<metadata" not in before) and "<metadata" not in tail
        and len(items) == found.count("<interface") and all(item[1] for item in items)
    ):  # fmt: skip
        return parse_domain(xml).root
    frame = Document(f"{head[: head.index('>') + 1]}{opened}{inside}{closed}<devices/>{tail}").root
    interfaces = [Document(f"<interface {item}\n    </interface>").root for item, _, _ in items]
    return frame.with_children(
        *(child.with_children(*interfaces) if child.tag == "devices" else child for child in frame)
    )


def interfaces_of(domain: Element) -> Iterator[Element]:
    """Yield the ``<interface>`` elements of a ``<domain>``."""
    for devices in domain:
        if devices.tag == "devices":
            yield from (child for child in devices if child.tag == "interface")


def as_asked(interface: Element) -> Element:
    """Return an ``<interface>`` of a running guest as it was asked for, where that was a network.

    Of a network on a bridge of the host's, and of one of macvtaps, libvirt shows ``type='bridge'`` or
    ``'direct'``, with the network beside what that has given it (virDomainNetDefFormat); and to be told so
    again means to it the bridge or the device, and no network.
    """
    if not _is_given(interface):
        return interface
    document = Document(interface.text)
    put_network(document, document.root)
    return Document(document.edited()).root


def put_network(document: Document, interface: Element) -> None:
    """Make an ``<interface>`` what `as_asked` returns."""
    if _is_given(interface):
        document.set_attribute(interface, "type", "network")
        source = interface.find("source")
        assert source is not None
        for name in ("dev", "mode"):
            document.set_attribute(source, name, None)


def _is_given(interface: Element) -> bool:
    given = interface.attributes.get("type") in ("bridge", "direct")
    return given and interface.get("source", "network") is not None


def backend_of(interface: Element, kept: Collection[str] = ()) -> Backend | None:
    """Return the backend half of an ``<interface>``, or None when it has none.

    :param kept: backend children that stay with the interface and are left out.
    """
    children = tuple(child.text for child in swapped(interface, kept))
    kind = interface.attributes.get("type")
    return Backend(kind, children) if kind or children else None


def swapped(interface: Element, kept: Collection[str] = ()) -> list[Element]:
    """Return the children of an ``<interface>`` that are its backend's, without those `kept`."""
    return [child for child in interface if child.name in BACKEND_CHILDREN and child.name not in kept]


def put_children(document: Document, interface: Element, children: Sequence[str]) -> None:
    """Add children where libvirt has the backend's: behind ``<mac>``."""
    mac = interface.find("mac")
    if mac is None:
        document.prepend(interface, *children)
    else:
        document.insert_after(mac, *children)


def put_link(document: Document, interface: Element, state: str | None) -> None:
    """Give an ``<interface>`` that ``<link state=…>``; None is no ``<link>`` at all."""
    link = interface.find("link")
    if link is None:
        if state is not None:
            put_children(document, interface, (f"<link state='{state}'/>",))
    elif state is None:
        document.remove(link)
    else:
        document.set_attribute(link, "state", state)


def with_link(xml: str, state: str) -> str:
    """Return an ``<interface>`` with that link state, everything else as it was."""
    document = Document(xml)
    put_link(document, document.root, state)
    return document.edited()


def with_backend(xml: str, backend: Backend, link: str | None, kept: Collection[str] = ()) -> str:
    """Return an ``<interface>`` with another backend and another link, everything else as it was.

    :param xml: the interface as libvirt has it.
    :param backend: the backend to put in.
    :param link: as for `put_link`.
    :param kept: backend children that stay with the interface.
    """
    document = Document(xml)
    interface = document.root
    for child in swapped(interface, kept):
        document.remove(child)
    document.set_attribute(interface, "type", backend.type)
    put_children(document, interface, backend.children)
    put_link(document, interface, link)
    return document.edited()
