"""Our one element in a domain's ``<metadata>``: what stock XML cannot hold.

<interfaces xmlns="urn:nicplug:domain:1.0">
  <interface mac="52:54:00:…" plane="tap" link="up">
    <backend type="bridge"><source bridge="br0"/></backend>
  </interface>
</interfaces>
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from nicplug_xml.document import Element, quoted
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import Backend

#: Namespace of the element.
URI = "urn:nicplug:domain:1.0"
#: Prefix that libvirt writes it with.
PREFIX = "nicplug"
#: Attribute of the element that `format_entries` explains.
ALONE = "alone"
#: Aliases that a user chose; libvirt makes all others anew at each start.
USER_ALIAS = "ua-"


class Entry(Frozen):
    """What is recorded of one pluggable interface.

    :param key: its user alias (``ua-…``) where it has one, else its MAC in lower case.
    :param plane: the plane that holds it.
    :param link: where the stock XML does not show it: the state in the ``<link>`` that it is to have; None
        for no ``<link>``.
    :param backend: where the stock XML does not show it: the intended or the attached backend.
    :param generated: ``mac`` or ``alias`` when the rewriter made that up, so that restoring takes it out.
    :param attached: whether a backend is attached that the stock XML does not show.
    :param alias: the user alias of one that is named by its MAC, since libvirt's driver keeps no aliases.
    """

    key: str
    plane: str
    link: str | None = None
    backend: Backend | None = None
    generated: str = ""
    attached: bool = False
    alias: str = ""

    def to_xml(self) -> str:
        """Return the entry as ``<interface>``."""
        name = "alias" if self.key.startswith(USER_ALIAS) else "mac"
        link = f" link={quoted(self.link)}" if self.link else ""
        connection = " connection='attached'" * self.attached
        generated = f" generated='{self.generated}'" if self.generated else ""
        backend = self.backend.to_xml() if self.backend else ""
        alias = f" alias={quoted(self.alias)}" if self.alias else ""
        name += f"={quoted(self.key)}{alias}"
        start = f"<interface {name} plane={quoted(self.plane)}{connection}{link}{generated}"
        return f"{start}>{backend}</interface>" if backend else f"{start}/>"


def mac_of(interface: Element) -> str:
    """Return the MAC of an ``<interface>`` in lower case, or an empty string."""
    return (interface.get("mac", "address") or "").lower()


def key_of(interface: Element) -> str:
    """Return what an entry names this ``<interface>`` by, or an empty string when it has neither."""
    alias = interface.get("alias", "name") or ""
    return alias if alias.startswith(USER_ALIAS) else mac_of(interface)


def entry_of(interface: Element, entries: Mapping[str, Entry]) -> Entry | None:
    """Return the entry that names this ``<interface>``, or None; ``connection`` in libvirt's XML comes first.

    :param entries: entries by their keys.
    """
    if "connection" in interface.attributes:
        return None
    return entries.get(key_of(interface)) or entries.get(mac_of(interface))


def find(domain: Element) -> Element | None:
    """Return our element in a ``<domain>``, or None."""
    metadata = next((child for child in domain if child.tag == "metadata"), None)
    return next((child for child in metadata or () if child.tag == f"{URI} interfaces"), None)


@lru_cache(maxsize=32)
def parse(element: Element | None) -> Sequence[Entry]:
    """Read the entries of our element, as it was written or as libvirt writes it; None has none."""
    if element is None:
        return ()
    return tuple(_entry(child, element) for child in element if child.name == "interface")


def format_entries(entries: Iterable[Entry], *, alone: bool, namespace: bool = False) -> str:
    """Return the element's text.

    :param alone: note that a ``<metadata>`` with nothing else in it is there for this element only, so that
        restoring takes it out as well.
    :param namespace: declare the namespace, which libvirt's virDomainSetMetadata does by itself.
    """
    attributes = f' xmlns="{URI}"' * namespace + f" {ALONE}='yes'" * alone
    return f"<interfaces{attributes}>{''.join(entry.to_xml() for entry in entries)}</interfaces>"


def _entry(element: Element, parent: Element) -> Entry:
    attributes = element.attributes
    intended = element.find("backend")
    mac, alias = attributes.get("mac", ""), attributes.get("alias", "")
    return Entry(
        mac or alias,
        attributes.get("plane", ""),
        attributes.get("link"),
        None if intended is None else _backend(intended, parent),
        attributes.get("generated", ""),
        attributes.get("connection") == "attached",
        alias if mac else "",
    )


def _backend(element: Element, parent: Element) -> Backend:
    # libvirt puts our prefix on every element below; the interface that they go back to has none.
    prefix = parent.prefix
    children = (child.text.replace(f"<{prefix}", "<").replace(f"</{prefix}", "</") for child in element)
    return Backend(element.attributes.get("type"), tuple(children))
