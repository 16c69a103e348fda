"""What the planes share that point a NIC's frontend at a netdev of ours, which libvirt knows nothing of.

``<qemu:commandline>`` adds the netdev, and ``<qemu:override>`` gives it to the NIC in the place of the one
that libvirt makes. That one stays, without a NIC, and is there when libvirt wants to take it away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from nicplug_xml.document import Document, Element, quoted
from nicplug_xml.errors import OperationError
from nicplug_xml.planes.netdevs import PREFIX, own

#: libvirt's namespace for what it passes through to QEMU.
URI = "http://libvirt.org/schemas/domain/qemu/1.0"

_OURS = re.compile(rf"^(\w+),id=({PREFIX}[^,]+),?(.*)$")


def provision(document: Document, netdevs: Mapping[str, Sequence[str]]) -> None:
    """Add netdevs to the domain for each interface, and point the interface's frontend at the one of its own.

    :param netdevs: what QEMU's ``-netdev`` is to be told, each time, by the interfaces' keys.
    """
    if not netdevs:
        return
    # An interface that virsh has taken out of the domain has left these there.
    for element in _ours(document.root, netdevs):
        document.remove(element)

    def arguments(prefix: str) -> list[str]:
        words = (word for told in netdevs.values() for netdev in told for word in ("-netdev", netdev))
        return [f"<{prefix}arg value={quoted(word)}/>" for word in words]

    _insert(document, document.root, "commandline", arguments)
    override = next(iter(_named(document.root, "override")), None)
    devices = {device.attributes.get("alias"): device for device in override or ()}

    def new_devices(prefix: str) -> list[str]:
        return [
            f"<{prefix}device alias={quoted(key)}><{prefix}frontend>{_property(prefix, key)}"
            f"</{prefix}frontend></{prefix}device>"
            for key in netdevs
            if key not in devices
        ]

    _insert(document, document.root, "override", new_devices)
    for key in devices.keys() & netdevs.keys():
        _insert(document, devices[key], "frontend", partial(_properties, str(key)))


def release(document: Document, keys: Collection[str]) -> None:
    """Take out of the domain what `provision` has put there, and what is left without content by that.

    :param keys: the interfaces' keys.
    """
    ours = _ours(document.root, keys)
    for container in (*_named(document.root, "commandline"), *_named(document.root, "override")):
        _prune(document, container, ours)


def _ours(domain: Element, keys: Collection[str]) -> list[Element]:
    """Return what there is of netdevs of ours for the interfaces of those keys."""
    ids = {own(key) for key in keys}
    ours: list[Element] = []
    for commandline in _named(domain, "commandline"):
        for first, second in zip(commandline.children, commandline.children[1:], strict=False):
            match = _OURS.match(second.attributes.get("value", ""))
            # An alias of ours has no dot in it: behind one is what a NIC has beside its own.
            if first.attributes.get("value") == "-netdev" and match and match[2].partition(".")[0] in ids:
                ours += (first, second)
    for override in _named(domain, "override"):
        ours += (item for item in override.below() if item.attributes.get("value") in ids)
    return ours


def options(domain: Element, key: str, kind: str) -> str:
    """Return what QEMU is told of the netdev of the interface of that key, behind its type and id.

    :param kind: its type.
    :raises OperationError: it is no longer there.
    """
    for value in arguments_of(domain):
        match = _OURS.match(value)
        if match and match[1] == kind and match[2] == own(key):
            return match[3]
    raise OperationError(
        f"the domain has no {kind} for {key}: its <qemu:commandline> was changed",
        hint="define the domain anew with nicplug, and restart it",
    )


def arguments_of(domain: Element) -> Iterator[str]:
    """Yield what QEMU is told by the domain's ``<qemu:commandline>``."""
    return (item.attributes.get("value", "") for line in _named(domain, "commandline") for item in line)


def _property(prefix: str, key: str) -> str:
    return f"<{prefix}property name='netdev' type='string' value={quoted(own(key))}/>"


def _properties(key: str, prefix: str) -> list[str]:
    return [_property(prefix, key)]


def _named(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if child.tag == f"{URI} {name}")


def _insert(document: Document, parent: Element, name: str, children: Callable[[str], Sequence[str]]) -> None:
    """Put children first in an element of QEMU's namespace, or last in `parent` in one that is made."""
    element = next(_named(parent, name), None)
    if element is not None:
        document.prepend(element, *children(element.prefix))
        return
    texts = children("qemu:")
    if texts:
        made = f"<qemu:{name} xmlns:qemu='{URI}'>{''.join(texts)}</qemu:{name}>"
        if parent.children:
            document.insert_after(parent.children[-1], made)
        else:
            document.prepend(parent, made)


def _prune(document: Document, element: Element, ours: list[Element]) -> None:
    """Take out what is `ours`, along with every element that holds nothing else."""
    if _is_ours(element, ours):
        document.remove(element)
        return
    for child in element:
        _prune(document, child, ours)


def _is_ours(element: Element, ours: list[Element]) -> bool:
    if any(element is item for item in ours):
        return True
    return bool(element.children) and all(_is_ours(child, ours) for child in element)
