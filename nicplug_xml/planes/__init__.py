"""Planes: how a pluggable NIC is held so that its backend can change. One module each, one table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Interface, Scope
from nicplug_xml.planes import hub, tap
from nicplug_xml.steps import Step


class Plane(Protocol):
    """What a module of this package has."""

    @property
    def NAME(self) -> str:
        """The plane's name."""

    @property
    def KINDS(self) -> frozenset[str]:
        """The backend types that can be plugged in."""

    @property
    def KEPT(self) -> frozenset[str]:
        """Children of the backend that stay with the interface, since nothing can change them."""

    @property
    def REFUSED(self) -> frozenset[str]:
        """Children of a backend that cannot be carried out when it is plugged in."""

    @property
    def NEEDS_ALIAS(self) -> bool:
        """Whether its interfaces need a user alias."""

    @property
    def ALWAYS_HELD(self) -> bool:
        """Whether the stock interface shows neither backend nor connection, attached or not."""

    def hold(self, document: Document, interface: Element, parking: str, /) -> Sequence[str]:
        """Make a stock ``<interface>`` one that is not plugged in; return the children that it is to get."""

    def provision(self, document: Document, keys: Sequence[str], /) -> None:
        """Add to the rest of the domain what its interfaces need; `keys` name them."""

    def release(self, document: Document, keys: Collection[str], /) -> None:
        """Take out of the domain what `provision` has put there."""

    def is_deferred(self, interface: Element, entry: Entry, netdevs: Collection[str] | None, /) -> bool:
        """Whether nothing is plugged in.

        :param netdevs: ids of the running QEMU's netdevs; None where no QEMU was asked.
        """

    def attach(
        self,
        nic: Interface,
        backend: Backend,
        endpoint: Endpoint,
        link: str | None,
        scope: Scope,
        domain: Element,
        netdevs: Collection[str],
        /,
    ) -> tuple[list[Step], list[Step]]:
        """Plan to join `nic` to a backend, carrier included; and what lets go of the old one afterwards.

        :param endpoint: what the backend looks like from the host.
        :param link: the administrator's link; None where nothing was said.
        :param domain: the domain's stock XML.
        :param netdevs: ids of the running QEMU's netdevs.
        """

    def detach(
        self, nic: Interface, parking: str, scope: Scope, domain: Element, netdevs: Collection[str], /
    ) -> tuple[list[Step], list[Step]]:
        """Plan to part `nic` from its backend, the carrier first; and what lets go of it afterwards.

        :param parking: which parking place plane tap has on this connection.
        """


PLANES: dict[str, Plane] = {tap.NAME: tap, hub.NAME: hub}


def choose(plane: str, kind: str | None) -> Plane:
    """Return the plane that a user's choice means for one interface.

    :param plane: a plane's name; or ``auto``, which is plane tap wherever that can have the backend.
    :param kind: type of the interface's backend; None when none is known yet.
    :raises UnsupportedError: no such plane.
    """
    if plane == "auto":
        return tap if kind is None or kind in tap.KINDS else hub
    if plane not in PLANES:
        raise UnsupportedError(f"there is no plane '{plane}'", hint=f"use auto or {', '.join(PLANES)}")
    return PLANES[plane]
