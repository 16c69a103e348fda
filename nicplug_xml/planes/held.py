"""What a plane is told of a NIC that is about to be changed."""

from __future__ import annotations

from collections.abc import Callable

from nicplug_xml.document import Element
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.facts import Facts
from nicplug_xml.frozen import Frozen
from nicplug_xml.joints import Joint
from nicplug_xml.model import Interface, Scope


class Held(Frozen):
    """A NIC that a plane holds, in one of its domain's states.

    :param nic: the NIC.
    :param scope: the state.
    :param domain: the domain's stock XML.
    :param facts: what is so below that.
    :param parking: tells which parking place the connection has, ``network`` or ``bridge``.
    :param mtu: tells the MTU of a device of this host; 0 where it is none.
    :param present: tells what the backend that is attached looks like from the host; None for none, and where
        that can no longer be known.
    """

    nic: Interface
    scope: Scope
    domain: Element
    facts: Facts
    parking: Callable[[], str]
    mtu: Callable[[str], int]
    present: Callable[[], Endpoint | None]

    @property
    def joint(self) -> Joint | None:
        """What the NIC's host device is joined to now."""
        return self.facts.joints.get(self.nic.target) if self.scope is Scope.LIVE else None
