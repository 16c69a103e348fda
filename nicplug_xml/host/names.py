"""The names of what there is now, for whoever is about to write one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from nicplug_xml import backends
from nicplug_xml.host import sysfs
from nicplug_xml.model import Connection, Interface
from nicplug_xml.planes import tap

if TYPE_CHECKING:
    import libvirt


class Name(NamedTuple):
    """A name, and what it is the name of."""

    word: str
    about: str = ""


class PresentNames:
    """The names that a libvirt connection, opened for reading when it is first needed, and this host have.

    :param uri: a libvirt URI; None for LIBVIRT_DEFAULT_URI or libvirt's own default.
    """

    def __init__(self, uri: str | None) -> None:
        self._uri = uri

    def domains(self) -> Iterator[Name]:
        """Return the domains.

        :raises libvirt.libvirtError: libvirt cannot be asked; as the methods below.
        """
        for dom in self._conn.listAllDomains():
            yield Name(dom.name(), "running" if dom.isActive() else "shut off")

    def interfaces(self, domain: str) -> Iterator[Name]:
        """Return the names of the interfaces of a domain: user aliases, targets, MACs."""
        from nicplug_xml.stock import read_domain
        from nicplug_xml.view import view

        found = view(read_domain(self._conn.lookupByName(domain).XMLDesc())).interfaces
        for nic in found:
            name = nic.alias if nic.alias.startswith("ua-") else nic.target
            if name:
                yield Name(name, _about(nic))
        for nic in found:
            yield Name(nic.mac, _about(nic))

    def networks(self) -> Iterator[Name]:
        """Return libvirt's networks."""
        for network in self._conn.listAllNetworks():
            if network.name() not in tap.PARKING_PLACES:
                yield Name(network.name(), "active" if network.isActive() else "not active")

    def bridges(self) -> Iterator[Name]:
        """Return the Linux bridges of this host."""
        return (name for name in self.devices() if sysfs.is_bridge(name.word))

    def devices(self) -> Iterator[Name]:
        """Return the network devices of this host."""
        for device in sorted(sysfs.devices()):
            if device not in ("lo", *tap.PARKING_PLACES) and sysfs.exists(device):
                yield Name(device, "bridge" if sysfs.is_bridge(device) else "")

    def ovs_bridges(self) -> Iterator[Name]:
        """Return the bridges of Open vSwitch on this host; none where it is not there."""
        import subprocess

        try:
            said = subprocess.run(
                ["ovs-vsctl", "--timeout=2", "list-br"], capture_output=True, text=True, check=False
            )
        except OSError:
            return iter(())
        return (Name(name, "Open vSwitch") for name in said.stdout.split())

    @cached_property
    def _conn(self) -> libvirt.virConnect:
        import libvirt

        from nicplug_xml.host.connection import silence_libvirt

        silence_libvirt()
        return libvirt.openReadOnly(self._uri)


def _about(nic: Interface) -> str:
    where = backends.describe(nic.backend)
    if nic.connection is Connection.ATTACHED:
        return where
    return "unplugged" if where == "-" else f"unplugged ({where})"
