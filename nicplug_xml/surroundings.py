"""What plans may need to know of a libvirt connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicplug_xml.errors import NotFoundError
from nicplug_xml.host import sysfs
from nicplug_xml.host.connection import find_beside, network_xml, parking_kind, remote_host
from nicplug_xml.host.domain import Domain
from nicplug_xml.host.errors import translated
from nicplug_xml.model import Scope, the_one
from nicplug_xml.planner import Site

if TYPE_CHECKING:
    import libvirt


class Surroundings:
    """A `nicplug_xml.planner.Surroundings` on a libvirt connection."""

    def __init__(self, conn: libvirt.virConnect) -> None:
        self._conn = conn

    def parking(self) -> str:
        """See `parking_kind`."""
        return parking_kind(self._conn)

    def mtu(self, device: str) -> int:
        """Return the MTU of a network device; 0 where there is none, or the domain is on another host."""
        return 0 if remote_host(self._conn) else sysfs.mtu(device)

    def network(self, name: str, *, active: bool = True) -> str:
        """See `network_xml`."""
        return network_xml(self._conn, name, active=active)

    def other_end(self, domain: str, interface: str) -> Site:
        """Return a NIC of a running domain, of this connection's or of the host's other hypervisor.

        :raises NotFoundError: there is no such domain, it does not run, or the name is of none or of several.
        """
        dom = find_beside(self._conn, domain)
        with translated():
            if not dom.isActive():
                raise NotFoundError(
                    f"domain '{domain}' is not running", hint="a cable needs both of its ends"
                )
        now, name = Domain(dom).read(Scope.LIVE), interface.lower()
        # What the metadata has it by is the one name that no other one has.
        matches = [nic for nic in now.interfaces if name == nic.key.lower()] or [
            nic for nic in now.interfaces if name in (nic.mac, nic.alias.lower())
        ]
        device = next((nic for nic in now.interfaces if nic.target == interface), None)
        if device and not matches:
            raise NotFoundError(
                f"'{interface}' of domain '{domain}' is a device, and a cable leads to a MAC or an alias",
                hint=f"say {domain}/{device.key}",
            )
        nic = the_one(domain, interface, matches, now.interfaces)
        return Site(domain, Scope.LIVE, nic, now, Surroundings(dom.connect()))
