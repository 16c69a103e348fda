"""A QEMU that somebody started by hand: what the steps of planes hub and swap act on without libvirt.

Its NICs are to have an id that begins with ``ua-``, and a netdev of a name made of that, as in
``-netdev hubport,id=nicplug-ua-nic0,hubid=0 -device virtio-net-pci,id=ua-nic0,netdev=nicplug-ua-nic0``. The
netdev says which plane holds the NIC: a hubport plane hub, and ``unconnected`` plane swap.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NoReturn

from nicplug_xml import metadata
from nicplug_xml.document import Document, quoted
from nicplug_xml.endpoints import Descriptor, OvsPort
from nicplug_xml.errors import NotFoundError, OperationError, SchemaError, UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.host.descriptors import Descriptors
from nicplug_xml.host.kernel import Kernel
from nicplug_xml.host.monitor import QmpMonitor, commands, info_network, network, nics
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Interface, Scope
from nicplug_xml.plan import Plan
from nicplug_xml.planes import hub, overriding, swap
from nicplug_xml.planes.netdevs import PREFIX, own
from nicplug_xml.planner import Site
from nicplug_xml.steps import Expected
from nicplug_xml.view import View, view

_HUB = re.compile(r"^hub (\d+)$")
_NIC_PORT = re.compile(rf"^ \\ ({PREFIX}({metadata.USER_ALIAS}[^:]+)): \2: ")


class QmpHost(Descriptors, Kernel):
    """A `nicplug_xml.steps.Host` on a QMP socket, for planes hub and swap.

    What a libvirt domain keeps in its metadata, this object keeps for as long as it is there. A NIC that has
    no backend when it is first seen has its link set down.

    :param path: the UNIX socket's path; QEMU serves one client at a time.
    :raises OperationError: there is nobody to talk to.
    """

    def __init__(self, path: str) -> None:
        self._qmp = QmpMonitor(path)
        super().__init__(self._qmp)
        self.name = path
        self._replaces = swap.COMMAND in commands(self._monitor)
        self._links: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}
        self.read()

    def close(self) -> None:
        """Close what is still open of ours, and hang up; QEMU goes on."""
        Descriptors.close(self)
        Kernel.close(self)
        self._qmp.close()

    def plan_attach(
        self,
        nic: str,
        backend: Backend | None = None,
        *,
        fds: Iterable[int] = (),
        announce: bool = True,
    ) -> Plan:
        """Plan to plug a NIC in, or to move it; `nicplug_xml.plan.carry_out` does it.

        :param nic: its id.
        :param backend: any of the NIC's plane but ``network``; None for the one that it had.
        :param fds: an open descriptor to plug in instead, or one for each of the NIC's queues.
        :raises NicplugError: as for `nicplug_xml.plan_attach`.
        """
        from nicplug_xml.host.tap import netdev_type

        opened = tuple(fds)
        descriptor = Descriptor(opened, netdev_type(opened)) if opened else None
        if descriptor and backend:
            raise SchemaError("a descriptor and a backend were given", hint="give one of them")
        given = Backend("fd") if descriptor else backend
        return self._site(nic).attach(given, announce=announce, descriptor=descriptor)

    def plan_detach(self, nic: str) -> Plan:
        """Plan to unplug a NIC; see `plan_attach`."""
        return self._site(nic).detach()

    def plan_set_link(self, nic: str, up: bool) -> Plan:
        """Plan to set a NIC's link; see `plan_attach`."""
        return self._site(nic).set_link("up" if up else "down")

    def read(self) -> View:
        """Return what is true now, in the form that libvirt would tell it."""
        from nicplug_xml.host.tap import has_left

        found = nics(self._monitor) if self._replaces else {}
        hubs, there = self._hubs(), network(self._monitor, found)
        # Those that can have another netdev, and were started with one of ours.
        swaps = {nic: its for nic, its in found.items() if own(nic) in there.ids and nic not in hubs}
        for nic in hubs.keys() - self._entries.keys():
            self._meet(Entry(nic, hub.NAME, attached=hub.has_joined(nic, there.ids)))
        for nic in swaps.keys() - self._entries.keys():
            has = swap.has_joined(nic, {nic: swaps[nic].netdev})
            self._meet(Entry(nic, swap.NAME, attached=has), swaps[nic].link)
        queues = {nic: its.queues for nic, its in swaps.items()}
        macs = {nic: self._mac(nic) for nic in (*hubs, *swaps)}
        interfaces = "".join(
            f"<interface type='user'><mac address={quoted(macs[nic])}/>"
            f"<driver queues='{queues.get(nic, 1)}'/>"
            f"<link state={quoted(self._links[nic])}/><alias name={quoted(nic)}/></interface>"
            for nic in macs
        )
        ports = "".join(
            f"<arg value='-netdev'/><arg value={quoted(f'hubport,id={own(nic)},hubid={number}')}/>"
            for nic, number in hubs.items()
        )
        ours = metadata.format_entries(self._entries.values(), alone=True, namespace=True)
        domain = Document(
            f"<domain><metadata>{ours}</metadata><devices>{interfaces}</devices>"
            f"<commandline xmlns={quoted(overriding.URI)}>{ports}</commandline></domain>"
        )
        carriers = {nic: its.link for nic, its in swaps.items()}
        left = {nic: "" for nic, mac in macs.items() if has_left(self._entries[nic].backend, mac)}
        return view(domain.root, Facts(there.ids, {}, carriers, there.peers, there.ended, left))

    def _meet(self, entry: Entry, link: bool = True) -> None:
        """Take in a NIC that is new here. Of one on a hub QEMU does not tell the link: it is taken for up."""
        self._entries[entry.key] = entry
        if entry.attached:
            self._links[entry.key] = "up" if link else "down"
        else:
            self._set_link(entry.key, "down")

    def parking(self) -> str:
        _no_libvirt()

    def mtu(self, device: str) -> int:
        _no_libvirt()

    def network(self, name: str, *, active: bool = True) -> str:
        _no_libvirt()

    def add_port(self, name: str, port: OvsPort, mac: str, mtu: int) -> None:
        _no_libvirt()

    def update_device(self, xml: str, scope: Scope) -> None:
        nic = Document(xml).root
        self._set_link(nic.get("alias", "name") or "", nic.get("link", "state") or "up")

    def record(self, entry: Entry, keys: Collection[str], scope: Scope) -> None:
        self._entries[entry.key] = entry

    def monitor(self, command: str, arguments: Mapping[str, object]) -> object:
        return self._monitor.command(command, arguments)

    def other(self, domain: str) -> QmpHost:
        _no_libvirt()

    def other_end(self, domain: str, interface: str) -> Site:
        _no_libvirt()

    def ensure_parking(self) -> None:
        _no_libvirt()

    def require_network(self, name: str) -> None:
        _no_libvirt()

    def check(self, expected: Expected) -> None:
        nic = self._find(expected.key, self.read())
        if nic.connection is not expected.connection or nic.carrier != expected.carrier:
            raise OperationError(f"QEMU has it {_state(nic)} afterwards")

    def has_ended(self) -> bool:
        return False  # where it has, its monitor says so

    def state(self, key: str, mark: str = "") -> str:
        try:
            return _state(self._find(key, self.read()))
        except Exception:  # this serves an error message; the error that it tells of comes first
            return "in a state that could not be read"

    def _site(self, nic: str) -> Site:
        now = self.read()
        return Site(self.name, Scope.LIVE, self._find(nic, now), now, self)

    def _find(self, key: str, now: View) -> Interface:
        for nic in now.interfaces:
            if nic.key == key:
                return nic
        raise NotFoundError(
            f"the QEMU at {self.name} has no NIC '{key}' on a netdev {own(key)}",
            hint=f"it has {', '.join(nic.key for nic in now.interfaces) or 'none'}",
        )

    def _set_link(self, nic: str, state: str) -> None:
        self._monitor.command("set_link", {"name": nic, "up": state != "down"})
        self._links[nic] = state

    def _mac(self, nic: str) -> str:
        path = f"/machine/peripheral/{nic}"
        return str(self._monitor.command("qom-get", {"path": path, "property": "mac"}))

    def _hubs(self) -> dict[str, int]:
        """Return the hubs that NICs are on, by the NICs' ids."""
        found, number = {}, 0
        for line in info_network(self._monitor).splitlines():
            if match := _HUB.match(line):
                number = int(match[1])
            elif match := _NIC_PORT.match(line):
                found[match[2]] = number
        return found


def _state(nic: Interface) -> str:
    return f"{nic.connection.value}, link {'up' if nic.carrier else 'down'}"


def _no_libvirt() -> NoReturn:
    raise UnsupportedError("libvirt's networks are not known to a QEMU without libvirt", hint="name a bridge")
