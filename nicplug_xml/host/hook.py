"""A hook of libvirt's LXC driver, for what happens to a container's NICs where nicplug is not asked.

libvirt gives every container a carrier at its start, and puts its NICs back where its own XML has them, into
the parking place, when libvirtd is started anew. It runs the programs in ``/etc/libvirt/hooks/lxc.d`` at both
times. This one takes the carrier away before the container runs, plugs in what the definition says is
attached, and plugs in again what was plugged in before.

A hook must not talk to libvirt: what takes more than the domain's XML and this host's kernel stays unplugged,
and the system's log tells. Nothing that goes wrong here keeps a container from starting.

The authority is https://libvirt.org/hooks.html.
"""

from __future__ import annotations

import sys
import syslog
from contextlib import closing
from typing import TYPE_CHECKING, cast

from nicplug_xml import backends, joints
from nicplug_xml.document import Element
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.facts import NOT_ASKED
from nicplug_xml.frozen import replace
from nicplug_xml.host import janitor, sysfs
from nicplug_xml.host.kernel import Kernel, name_of
from nicplug_xml.joints import Joint
from nicplug_xml.model import Backend, Interface, Scope
from nicplug_xml.plan import Plan, carry_out
from nicplug_xml.planes import veth
from nicplug_xml.planes.held import Held
from nicplug_xml.stock import parse_domain
from nicplug_xml.view import may_have_pluggable, view

if TYPE_CHECKING:
    from nicplug_xml.endpoints import OvsPort
    from nicplug_xml.steps import Host

#: libvirt's operations: the veth pairs are there, and the container does not run yet; libvirtd has found a
#: container that runs.
_START, _RECONNECT = "start", "reconnect"

#: Backends that the domain's XML tells all of.
_KNOWN = ("bridge", "direct", "netdev")


def main() -> None:
    """Be libvirt's hook: the arguments are a domain's name and an operation, and its XML is the input."""
    operation = sys.argv[2] if len(sys.argv) > 2 else ""
    xml = sys.stdin.read()
    if operation in (_START, _RECONNECT) and may_have_pluggable(xml):
        try:
            _serve(xml, operation)
        except Exception as error:
            _tell(sys.argv[1], error)


def _serve(xml: str, operation: str) -> None:
    root = parse_domain(xml).root
    name = root.words_of("name")
    now = view(root)
    entries = {entry.key: entry for entry in now.entries if entry.plane == veth.NAME}
    with closing(_Container(root.words_of("uuid"))) as host:
        for nic in now.interfaces:
            if nic.key not in entries:
                continue
            try:
                device = _host_end(nic)
                up = sysfs.is_up(device)
                if operation == _START and up:
                    host.set_carrier(device, False)
                    up = False
                if not entries[nic.key].attached or nic.backend is None:
                    continue
                if operation == _START:
                    _plug(replace(nic, target=device, carrier=up), nic.backend, root, host)
                else:
                    _reconnect(nic, device, host)
            except Exception as error:  # the others are to be served as well
                _tell(f"{nic.name} of {name}", error)


def _host_end(nic: Interface) -> str:
    """Return the end that the host has of a NIC's veth pair.

    At the start libvirt names the other one alone, which is here as well until the container has it. The MAC
    would not do: another container of that MAC may be about to start.
    """
    _, near = sysfs.indexes(nic.element.get("guest", "actual") or "")
    return nic.target or name_of(near)


class _Container(Kernel):
    """What steps act on when libvirt is not there to be asked.

    :param uuid: the domain's.
    """

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid

    def join(self, device: str, joint: Joint) -> None:
        super().join(device, joint)
        if joint.kind != "bridge":
            janitor.ensure(joint)

    def add_port(self, name: str, port: OvsPort, mac: str, mtu: int) -> None:
        """Make an internal port of an Open vSwitch bridge."""
        self.make_port(name, port, mac, mtu, self._uuid)

    def has_ended(self) -> bool:
        """Whether the container has ended: it has not begun."""
        return False

    def state(self, _key: str, _mark: str = "") -> str:
        """Say in a few words what state an interface is in now."""
        return "not plugged in"


def _plug(nic: Interface, backend: Backend, domain: Element, host: _Container) -> None:
    if backend.type not in _KNOWN:
        raise UnsupportedError(f"what {backends.describe(backend)} is, only libvirt knows")
    held = Held(nic, Scope.LIVE, domain, NOT_ASKED, lambda: "network", sysfs.mtu, lambda: None)
    steps, _ = veth.attach(held, backend, backends.endpoint(backend, ""), nic.link)
    carry_out(Plan(f"plug {nic.name} in", nic.key, Scope.LIVE, tuple(steps)), cast("Host", host))


def _reconnect(nic: Interface, device: str, host: _Container) -> None:
    """Make a NIC's host device what it was: redirects are still there, and its carrier is as it was.

    Its MTU may be the parking place's.
    """
    alias = sysfs.alias(device)
    port = joints.parse_port(alias)
    joint = port or joints.parse(alias)
    mtu = sysfs.mtu(joint.device) if joint and not nic.element.get("mtu", "size") else 0
    if mtu and (port or mtu > sysfs.mtu(device)):
        host.set_mtu(device, nic.mac, mtu)
    if port:
        host.join(device, port)


def _tell(what: str, error: Exception) -> None:
    syslog.syslog(syslog.LOG_WARNING, f"nicplug: {what} stays unplugged: {error}")


if __name__ == "__main__":
    main()
