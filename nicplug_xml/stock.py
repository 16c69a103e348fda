"""Edits of one ``<interface>`` of stock XML that planes and the rewriter share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from nicplug_xml.document import Document, Element
from nicplug_xml.model import BACKEND_CHILDREN, Backend


def parse_domain(xml: str) -> Document:
    """Parse a domain document; of its devices, interfaces alone are there to be found.

    :raises SchemaError: the document is malformed or refused.
    """
    return Document(xml, skip=lambda parent, tag: parent == "devices" and tag != "interface")


def interfaces_of(domain: Element) -> Iterator[Element]:
    """Yield the ``<interface>`` elements of a ``<domain>``."""
    for devices in domain:
        if devices.tag == "devices":
            yield from (child for child in devices if child.tag == "interface")


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
