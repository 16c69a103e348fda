"""Planes: how a pluggable NIC is held so that its backend can change. One module each, one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection
from nicplug_xml.planes import hub, native, swap, tap, veth
from nicplug_xml.planes.held import Held
from nicplug_xml.steps import Step


class Plane(Protocol):
    """What a module of this package has."""

    @property
    def NAME(self) -> str:
        """The plane's name."""

    @property
    def DRIVER(self) -> str:
        """Which driver of libvirt's its domains are of: ``qemu``, whatever accelerates them, or ``lxc``."""

    @property
    def KINDS(self) -> frozenset[str]:
        """The backend types that can be plugged in."""

    @property
    def KEPT(self) -> frozenset[str]:
        """Children of the backend that stay with the interface, since nothing can change them."""

    @property
    def NEEDS_ALIAS(self) -> bool:
        """Whether its interfaces need a user alias."""

    def refused(self, backend: Backend, endpoint: Endpoint | None = None, /) -> frozenset[str]:
        """Return the children of such a backend that cannot be carried out.

        :param endpoint: what the backend looks like from the host, where that is known: of a libvirt network
            it takes that to say.
        """

    def shows(self, backend: Backend, endpoint: Endpoint | None = None, /) -> bool:
        """Whether the stock interface tells of this backend while it is attached.

        :param endpoint: what the backend looks like from the host, where that is known.
        """

    def hold(self, document: Document, interface: Element, parking: str, /) -> Sequence[str]:
        """Make a stock ``<interface>`` one that is not plugged in; return the children that it is to get."""

    def provision(self, document: Document, interfaces: Mapping[str, Element], /) -> None:
        """Add to the rest of the domain what its interfaces need.

        :param interfaces: the extended ``<interface>`` elements, by what the metadata names them by.
        """

    def release(self, document: Document, keys: Collection[str], /) -> None:
        """Take out of the domain what `provision` has put there."""

    def look(self, interface: Element, entry: Entry, facts: Facts, /) -> tuple[Connection, bool]:
        """Return how a stock ``<interface>`` is connected, and whether it tells of the backend itself."""

    def attach(
        self, held: Held, backend: Backend, endpoint: Endpoint, link: str | None, /
    ) -> tuple[list[Step], list[Step]]:
        """Plan to join a NIC to a backend, carrier included; and what lets go of the old one afterwards.

        :param endpoint: what the backend looks like from the host.
        :param link: the administrator's link; None where nothing was said.
        """

    def carrier(self, held: Held, state: str, /) -> list[Step]:
        """Plan to give the guest of an attached NIC a carrier (``up``), or to take it away (``down``)."""

    def detach(self, held: Held, /) -> tuple[list[Step], list[Step]]:
        """Plan to part a NIC from its backend, the carrier first; and what lets go of it afterwards."""


PLANES: dict[str, Plane] = {
    tap.NAME: tap,
    hub.NAME: hub,
    veth.NAME: veth,
    swap.NAME: swap,
    native.NAME: native,
}

#: Planes that take a libvirt, or a QEMU, with patches: nobody is sent there, and ``auto`` asks first.
PATCHED = frozenset((native.NAME, swap.NAME))


def choose(
    plane: str, kind: str | None, driver: str = "qemu", offered: Collection[str] = frozenset()
) -> Plane:
    """Return the plane that a user's choice means for one interface.

    :param plane: a plane's name; or ``auto``, which is what is offered, else plane tap wherever that can have
        the backend, and for containers plane veth.
    :param kind: type of the interface's backend; None when none is known yet.
    :param driver: which driver of libvirt's the domain is of; see `Plane.DRIVER`.
    :param offered: those of `PATCHED` that are there.
    :raises UnsupportedError: no such plane, or it is not for such domains.
    """
    if plane == "auto":
        if driver == veth.DRIVER:
            return veth
        # libvirt takes what swap does of a QEMU that has it.
        kinds = native.KINDS if swap.NAME in offered else native.ALWAYS
        if native.NAME in offered and (kind is None or kind in kinds):
            return native
        if kind is None or kind in tap.KINDS:
            return tap
        return swap if swap.NAME in offered else hub
    if plane not in PLANES:
        raise UnsupportedError(f"there is no plane '{plane}'", hint=f"use auto or {', '.join(PLANES)}")
    if driver != PLANES[plane].DRIVER:
        whose = "containers" if PLANES[plane].DRIVER == veth.DRIVER else "guests of QEMU's"
        raise UnsupportedError(f"plane '{plane}' is for {whose}", hint="leave the choice to nicplug (auto)")
    return PLANES[plane]
