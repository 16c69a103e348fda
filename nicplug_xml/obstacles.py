"""What keeps a plane from holding an ``<interface>``; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nicplug_xml import metadata
from nicplug_xml.document import Element
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import UNTRUTHFUL_MODELS, Backend
from nicplug_xml.planes import PATCHED, PLANES, Plane, hub, native, swap, tap, veth
from nicplug_xml.stock import backend_of

#: What libvirt keeps of the aliases that begin with `metadata.USER_ALIAS` (virDomainDeviceInfoParseXML).
_KEPT_ALIAS = re.compile(r"[A-Za-z0-9_-]+")


class Obstacle(Frozen):
    """One thing that cannot be.

    :param what: it, in words.
    :param hint: what to do.
    :param child: the child of the interface that it is about; empty for the interface itself.
    :param attribute: the attribute of either that it is about, or an empty string.
    """

    what: str
    hint: str
    child: str = ""
    attribute: str = ""


def obstacles(element: Element, plane: Plane) -> Iterator[Obstacle]:
    """Yield what of an interface, or of a ``<backend>`` document, a plane cannot have.

    :param element: the pluggable ``<interface>``, or the ``<backend>``.
    :param plane: the plane that is to hold it.
    """
    kind = element.attributes.get("type")
    if kind is not None and kind not in plane.KINDS:
        others = _others(plane, kind)
        hint = f"{others} can" if others else f"no plane can; this one has {', '.join(sorted(plane.KINDS))}"
        yield Obstacle(f"plane '{plane.NAME}' cannot plug in type '{kind}'", hint, attribute="type")
        return
    for child in sorted(_refused(element, plane)):
        if element.find(child) is not None:
            what = f"plane '{plane.NAME}' cannot carry out <{child}>" + (f" of type '{kind}'" if kind else "")
            others = _others(plane, kind, element, child)
            yield Obstacle(what, "leave it out" + (f", or use {others}" if others else ""), child)
    if plane.NAME == hub.NAME and (element.get("driver", "queues") or "1") != "1":
        what = f"plane '{plane.NAME}' has one queue for a NIC"
        hint = "leave queues out" + (", or use plane tap" if kind is None or kind in tap.KINDS else "")
        yield Obstacle(what, hint, "driver", "queues")
    if plane.NAME == swap.NAME and element.get("driver", "name") == "vhost":
        what = "QEMU does not replace a netdev that uses vhost"
        yield Obstacle(what, "leave it out, or say name='qemu'", "driver", "name")
    model = element.get("model", "type")
    if model in UNTRUTHFUL_MODELS:
        yield Obstacle(
            f"model '{model}' does not tell its guest when the carrier goes:"
            " the guest would take an unplugged NIC for a plugged one",
            "use model virtio, e1000 or rtl8139 (docs/planes.md)",
            "model",
            "type",
        )
    alias = metadata.key_of(element)
    # What is recorded goes by it; plane veth keeps it by itself, and plane native records nothing.
    if (
        plane.NAME not in (native.NAME, veth.NAME)
        and alias.startswith(metadata.USER_ALIAS)
        and not _KEPT_ALIAS.fullmatch(alias)
    ):
        what = f"libvirt drops an alias like '{alias}' without a word"
        yield Obstacle(what, "use letters, digits, '-' and '_' alone in it", "alias", "name")


def _refused(element: Element, plane: Plane) -> frozenset[str]:
    return plane.refused(backend_of(element) or Backend(None)) - plane.KEPT


def _others(plane: Plane, kind: str | None, element: Element | None = None, child: str = "") -> str:
    """Return which planes, of those that need no patches, can have a type; and that child of the element."""
    return " and ".join(
        f"plane {name}"
        for name, other in PLANES.items()
        if (kind is None or kind in other.KINDS)
        and other.DRIVER == plane.DRIVER
        and name not in PATCHED
        and (element is None or child not in _refused(element, other))
    )
