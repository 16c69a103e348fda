"""Steps: the things that operations are made of, as data, each with its undo.

They act on a `Host`, which `nicplug_xml.host` implements for libvirt and for a QEMU without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from nicplug_xml.endpoints import OvsPort
from nicplug_xml.frozen import Frozen
from nicplug_xml.joints import Joint
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Scope


class Host(Protocol):
    """What steps need of the world. Every method raises `NicplugError` when it fails."""

    def update_device(self, xml: str, scope: Scope) -> None:
        """Hand an ``<interface>`` to libvirt's virDomainUpdateDeviceFlags."""

    def record(self, entry: Entry, keys: Collection[str], scope: Scope) -> None:
        """Put an entry into our metadata, in the place of the one of its key (virDomainSetMetadata).

        :param keys: the interfaces that the domain has; other entries are dropped.
        """

    def monitor(self, command: str, arguments: Mapping[str, object]) -> object:
        """Carry out a QEMU monitor command and return what it returns."""

    def open_tap(self, names: Sequence[str], bridge: str, mac: str, isolated: bool) -> None:
        """Make a tap that is a port of a bridge, and keep a descriptor for each queue, under these names."""

    def open_macvtap(self, names: Sequence[str], device: str, mode: str, mac: str) -> None:
        """Make a macvtap on a device, and keep a descriptor for each queue, under these names."""

    def start_passt(self, name: str, options: Sequence[str]) -> None:
        """Start passt, and keep the descriptor of a socket to it under `name`."""

    def require_netdev(self, kind: str) -> None:
        """Raise unless QEMU offers netdevs of that type."""

    def await_listening(self, netdev: str) -> None:
        """Wait until a netdev of ours listens."""

    def connect(self, name: str, address: str, port: int | None) -> None:
        """Connect to a TCP port or a UNIX socket, and keep the socket's descriptor under `name`."""

    def use_descriptor(self, name: str, fd: int) -> None:
        """Keep a copy of the caller's descriptor under `name`."""

    def close_descriptor(self, name: str) -> None:
        """Close the descriptor that is kept under `name`, if any; with it goes what was made for it."""

    def send_descriptor(self, name: str) -> None:
        """Hand the descriptor kept under `name` to QEMU by that name (``getfd``), and close ours."""

    def take_back_descriptor(self, name: str) -> None:
        """Have QEMU close the descriptor of that name, unless a netdev has taken it (``closefd``)."""

    def require_here(self, device: str, mac: str) -> None:
        """Raise unless a NIC's host device is one of this host's."""

    def require_device(self, name: str, mtu: int) -> None:
        """Raise unless there is a network device of that name, which passes frames of that MTU."""

    def set_mtu(self, device: str, mac: str, mtu: int) -> None:
        """Set the MTU of a NIC's host device, if it is one of this host's."""

    def add_macvlan(self, name: str, lower: str, mode: str, mac: str, mtu: int) -> None:
        """Make a macvlan on a device, and leave it down. An MTU of 0 is the device's own."""

    def add_port(self, name: str, port: OvsPort, mac: str, mtu: int) -> None:
        """Make an internal port of an Open vSwitch bridge. An MTU of 0 is the bridge's own."""

    def join(self, device: str, joint: Joint) -> None:
        """Have the kernel redirect all frames of two devices to each other.

        :param device: a NIC's host device; its frames go to another one until then, or to its bridge.
        """

    def rejoin(self, device: str, joint: Joint) -> None:
        """Join a NIC's host device to what it was joined to before; if it has gone, let go of that."""

    def part(self, device: str, joint: Joint) -> None:
        """End what `join` has made, in both directions."""

    def set_carrier(self, device: str, up: bool) -> None:
        """Set a container's host device up or down, which is a carrier at the container's end, or none."""

    def release(self, joint: Joint) -> None:
        """Let go of a joint's device: of ours it is the end, and to others no frame is redirected."""

    def other(self, domain: str) -> Host:
        """Return the host that steps of another domain act on."""

    def ensure_parking(self) -> None:
        """Make the parking place, unless it is there."""

    def require_network(self, name: str) -> None:
        """Raise unless the libvirt network of that name is active."""

    def check(self, interface: Expected) -> None:
        """Look at the interface afresh, and raise unless it is as expected."""

    def has_ended(self) -> bool:
        """Whether the running domain has ended, and with it what it and its NICs had."""

    def state(self, key: str, mark: str = "") -> str:
        """Say in a few words what state the interface of that metadata key is in now.

        :param mark: what tells it from others of that key.
        """


class Expected(Frozen):
    """What must be seen of an interface before success is reported.

    :param key: the interface, as its metadata entry names it.
    :param scope: the state looked at.
    :param connection: deferred or attached.
    :param backend: the backend that must be there when attached.
    :param carrier: whether the guest is to see a carrier.
    :param mark: what tells the interface from others of that key.
    """

    key: str
    scope: Scope
    connection: Connection
    backend: Backend | None
    carrier: bool
    mark: str = ""


class Step(Protocol):
    """One thing to do, with its undo."""

    @property
    def summary(self) -> str:
        """The step in a few words, for errors and progress."""

    def describe(self) -> str:
        """The call that it makes with every argument, in one line."""

    def apply(self, host: Host) -> None:
        """Do it; a step that raises has changed nothing."""

    def undo(self, host: Host) -> None:
        """Take it back; harmless when it was not done."""


class _WithoutUndo(Frozen):
    """A step that changes nothing, or that nothing takes back."""

    def undo(self, host: Host) -> None:
        pass


class EnsureParking(_WithoutUndo):
    """Make the parking place. It stays: other NICs may use it by the time of an undo.

    :param call: what makes it, in words.
    """

    call: str
    summary: str = "make the parking place"

    def describe(self) -> str:
        return self.call

    def apply(self, host: Host) -> None:
        host.ensure_parking()


class RequireNetwork(_WithoutUndo):
    """Look whether a libvirt network can be plugged into."""

    network: str
    summary: str = "find the network"

    def describe(self) -> str:
        return f"libvirt  virNetworkIsActive({self.network})"

    def apply(self, host: Host) -> None:
        host.require_network(self.network)


class UpdateDevice(Frozen):
    """Change an interface by libvirt's own update-device.

    :param xml: the whole interface as it is to be.
    :param undo_xml: the whole interface as it was recorded before.
    """

    summary: str
    xml: str
    undo_xml: str
    scope: Scope

    def describe(self) -> str:
        return f"libvirt  virDomainUpdateDeviceFlags({self.scope.value}) {one_line(self.xml)}"

    def apply(self, host: Host) -> None:
        host.update_device(self.xml, self.scope)

    def undo(self, host: Host) -> None:
        host.update_device(self.undo_xml, self.scope)


class SetMtu(Frozen):
    """Give a NIC's host device the MTU of what it is plugged into, or what the NIC was told to use.

    A bridge that nobody gave an MTU takes that of its smallest port.

    :param before: what it has.
    """

    device: str
    mac: str
    mtu: int
    before: int
    summary: str = "give it the MTU that it needs"

    def describe(self) -> str:
        return f"netlink  RTM_NEWLINK {self.device} mtu {self.mtu}"

    def apply(self, host: Host) -> None:
        host.set_mtu(self.device, self.mac, self.mtu)

    def undo(self, host: Host) -> None:
        host.set_mtu(self.device, self.mac, self.before)


class RequireNetdev(_WithoutUndo):
    """Look whether QEMU can have a netdev of that type; not every version and build has all."""

    kind: str
    summary: str = "see what QEMU offers"

    def describe(self) -> str:
        return f"{_qmp('query-qmp-schema', {})} has netdev {self.kind}"

    def apply(self, host: Host) -> None:
        host.require_netdev(self.kind)


class AwaitListening(_WithoutUndo):
    """See that a netdev listens. QEMU begins that in the background, and crashes when one that failed gets a
    frame.

    Its link is down until somebody connects, as QEMU has it once it does listen.
    """

    netdev: str
    summary: str = "have it listen"

    def describe(self) -> str:
        return f"{_qmp('set_link', {'name': self.netdev, 'up': False})} and info network"

    def apply(self, host: Host) -> None:
        host.await_listening(self.netdev)


class OpenTap(Frozen):
    """Make a tap in a bridge. It lives as long as a descriptor of it: QEMU's end is its own.

    :param names: of its descriptors, one for each queue.
    """

    names: tuple[str, ...]
    bridge: str
    mac: str
    isolated: bool
    summary: str = "make a tap in the bridge"

    def describe(self) -> str:
        isolated = ", isolated" if self.isolated else ""
        return f"netlink  TUNSETIFF tap{_queues(self.names)}, RTM_NEWLINK master {self.bridge}{isolated}, up"

    def apply(self, host: Host) -> None:
        host.open_tap(self.names, self.bridge, self.mac, self.isolated)

    def undo(self, host: Host) -> None:
        for name in self.names:
            host.close_descriptor(name)


class OpenMacvtap(Frozen):
    """Make a macvtap. It lives as long as a descriptor of it: QEMU's end is its own.

    :param names: of its descriptors, one for each queue.
    """

    names: tuple[str, ...]
    device: str
    mode: str
    mac: str
    summary: str = "make a macvtap"

    def describe(self) -> str:
        where = f"link {self.device} mode {self.mode} address {self.mac}"
        return f"netlink  RTM_NEWLINK macvtap {where}{_queues(self.names)}, up"

    def apply(self, host: Host) -> None:
        host.open_macvtap(self.names, self.device, self.mode, self.mac)

    def undo(self, host: Host) -> None:
        for name in self.names:
            host.close_descriptor(name)


class StartPasst(Frozen):
    """Start passt. It ends when the socket to it is closed: QEMU's end is its own."""

    name: str
    options: tuple[str, ...]
    summary: str = "start passt"

    def describe(self) -> str:
        return " ".join(("process  passt", *self.options))

    def apply(self, host: Host) -> None:
        host.start_passt(self.name, self.options)

    def undo(self, host: Host) -> None:
        host.close_descriptor(self.name)


class Connect(Frozen):
    """Connect to a TCP port or a UNIX socket. QEMU would go on with a connection that was refused."""

    name: str
    address: str
    port: int | None
    summary: str = "connect"

    def describe(self) -> str:
        return f"process  connect({self.address}{'' if self.port is None else f':{self.port}'})"

    def apply(self, host: Host) -> None:
        host.connect(self.name, self.address, self.port)

    def undo(self, host: Host) -> None:
        host.close_descriptor(self.name)


class UseDescriptor(Frozen):
    """Take a copy of a descriptor that the caller has opened."""

    name: str
    fd: int
    summary: str = "take the descriptor"

    def describe(self) -> str:
        return f"process  dup({self.fd})"

    def apply(self, host: Host) -> None:
        host.use_descriptor(self.name, self.fd)

    def undo(self, host: Host) -> None:
        host.close_descriptor(self.name)


class SendDescriptor(Frozen):
    """Hand a descriptor to QEMU."""

    name: str
    summary: str = "hand the descriptor to QEMU"

    def describe(self) -> str:
        return _qmp("getfd", {"fdname": self.name}) + " with the descriptor"

    def apply(self, host: Host) -> None:
        host.send_descriptor(self.name)

    def undo(self, host: Host) -> None:
        host.take_back_descriptor(self.name)


class Monitor(Frozen):
    """A QEMU monitor command.

    :param reverse: the command and arguments that take it back; None where nothing does.
    """

    summary: str
    command: str
    arguments: Mapping[str, object]
    reverse: tuple[str, Mapping[str, object]] | None = None

    def describe(self) -> str:
        return _qmp(self.command, self.arguments)

    def apply(self, host: Host) -> None:
        host.monitor(self.command, self.arguments)

    def undo(self, host: Host) -> None:
        if self.reverse is not None:
            host.monitor(*self.reverse)


class LetGoFirst(Frozen):
    """Let go of a backend that its successor cannot be beside.

    :param step: what lets go of it.
    :param again: what makes the backend anew.
    """

    step: Step
    again: tuple[Step, ...]
    summary: str = "let go of the old backend"

    def describe(self) -> str:
        return self.step.describe()

    def apply(self, host: Host) -> None:
        self.step.apply(host)

    def undo(self, host: Host) -> None:
        for step in self.again:
            step.apply(host)


class RequireHere(_WithoutUndo):
    """Look whether the NIC's host device is one of this host's: the kernel's part is for those alone."""

    device: str
    mac: str
    summary: str = "find the NIC's device on this host"

    def describe(self) -> str:
        return f"sysfs    {self.device} is the device of {self.mac}"

    def apply(self, host: Host) -> None:
        host.require_here(self.device, self.mac)


class RequireDevice(_WithoutUndo):
    """Look whether there is a network device to be joined to.

    :param mtu: what the NIC was told to use; 0 where nothing was said.
    """

    device: str
    mtu: int
    summary: str = "find the device"

    def describe(self) -> str:
        mtu = f", MTU {self.mtu} or more" if self.mtu else ""
        return f"sysfs    {self.device} is there{mtu}"

    def apply(self, host: Host) -> None:
        host.require_device(self.device, self.mtu)


class AddMacvlan(Frozen):
    """Make the macvlan of a joint."""

    joint: Joint
    mac: str
    mtu: int
    summary: str = "make a macvlan"

    def describe(self) -> str:
        name, lower, mode = self.joint.device, self.joint.place, self.joint.mode
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        return f"netlink  RTM_NEWLINK macvlan {name} link {lower} mode {mode} address {self.mac}{mtu}"

    def apply(self, host: Host) -> None:
        name, lower, mode = self.joint.device, self.joint.place, self.joint.mode
        host.add_macvlan(name, lower, mode, self.mac, self.mtu)

    def undo(self, host: Host) -> None:
        host.release(self.joint)


class AddPort(Frozen):
    """Make the Open vSwitch port of a joint."""

    joint: Joint
    port: OvsPort
    mac: str
    mtu: int
    summary: str = "make a port of the Open vSwitch bridge"

    def describe(self) -> str:
        port = self.port
        told = {
            "attached-mac": self.mac,
            "iface-id": port.interfaceid,
            "port-profile": port.profileid,
            "tag": "" if port.tag is None else port.tag,
            "trunks": ",".join(map(str, port.trunks)),
            "vlan_mode": port.vlan_mode,
            "mtu_request": self.mtu or "",
        }
        columns = ", ".join(f"{name} {value}" for name, value in told.items() if value != "")
        return f"ovsdb    insert Port {self.joint.device} into Bridge {port.bridge}, {columns}"

    def apply(self, host: Host) -> None:
        host.add_port(self.joint.device, self.port, self.mac, self.mtu)

    def undo(self, host: Host) -> None:
        host.release(self.joint)


class Join(Frozen):
    """Have the kernel redirect all frames between the NIC's host device and another one.

    :param device: the NIC's host device.
    :param before: what it was joined to, from which it goes in the same moment.
    """

    device: str
    joint: Joint
    before: Joint | None = None
    summary: str = "join it"

    def describe(self) -> str:
        other, place = self.joint.device, self.joint.place
        if self.joint.kind == "bridge":
            return f"netlink  RTM_NEWLINK {self.device} master {other}{place and ', ' + place}"
        return f"netlink  RTM_NEWTFILTER {self.device} {_way(self.joint)} {other}, mirred redirect"

    def apply(self, host: Host) -> None:
        # Where an OSError comes, it is joined, and who is to clear that away could not be started.
        host.join(self.device, self.joint)

    def undo(self, host: Host) -> None:
        if self.before is None:
            host.part(self.device, self.joint)
        else:
            host.rejoin(self.device, self.before)


class Part(Frozen):
    """End the redirects of a joint."""

    device: str
    joint: Joint
    summary: str = "part it"

    def describe(self) -> str:
        if self.joint.kind == "bridge":
            return f"netlink  RTM_NEWLINK {self.device} nomaster"
        return f"netlink  RTM_DELTFILTER {self.device} {_way(self.joint)} {self.joint.device}"

    def apply(self, host: Host) -> None:
        host.part(self.device, self.joint)

    def undo(self, host: Host) -> None:
        host.rejoin(self.device, self.joint)


class SetCarrier(Frozen):
    """Set a container's host device up or down: that is the carrier at the container's end.

    :param up: whether there is to be a carrier; there was the contrary before.
    """

    device: str
    up: bool

    @property
    def summary(self) -> str:
        return f"set its carrier {'up' if self.up else 'down'}"

    def describe(self) -> str:
        return f"netlink  RTM_NEWLINK {self.device} {'up' if self.up else 'down'}"

    def apply(self, host: Host) -> None:
        host.set_carrier(self.device, self.up)

    def undo(self, host: Host) -> None:
        host.set_carrier(self.device, not self.up)


class Release(_WithoutUndo):
    """Let go of what the NIC was joined to. Nothing takes that back."""

    joint: Joint
    summary: str = "let go of what it was joined to"

    def describe(self) -> str:
        kind, device, place = self.joint.kind, self.joint.device, self.joint.place
        what = {
            "macvlan": f"netlink  RTM_DELLINK {device}",
            "port": f"ovsdb    delete Port {device} of Bridge {place}",
        }
        return what.get(kind, f"netlink  RTM_DELTFILTER {device}")

    def apply(self, host: Host) -> None:
        host.release(self.joint)


class OfOther(Frozen):
    """A step on another domain: a cable has two ends.

    :param domain: the other domain's name.
    """

    domain: str
    step: Step

    @property
    def summary(self) -> str:
        return f"{self.step.summary} ({self.domain})"

    def describe(self) -> str:
        return f"{self.step.describe()} of {self.domain}"

    def apply(self, host: Host) -> None:
        self.step.apply(host.other(self.domain))

    def undo(self, host: Host) -> None:
        self.step.undo(host.other(self.domain))


class Record(Frozen):
    """Write an entry of our metadata; libvirt tells every client of it by a METADATA_CHANGE event.

    :param entry: the entry as it is to be.
    :param undo_entry: the entry as it was.
    :param keys: the interfaces that the domain has; entries of others are dropped.
    """

    entry: Entry
    undo_entry: Entry
    keys: frozenset[str]
    scope: Scope
    summary: str = "record it in the domain's metadata"

    def describe(self) -> str:
        return f"libvirt  virDomainSetMetadata({self.scope.value}) {one_line(self.entry.to_xml())}"

    def apply(self, host: Host) -> None:
        host.record(self.entry, self.keys, self.scope)

    def undo(self, host: Host) -> None:
        host.record(self.undo_entry, self.keys, self.scope)


class Check(_WithoutUndo):
    """Read back what the steps before it did."""

    expected: Expected
    summary: str = "read back the NIC's state"

    def describe(self) -> str:
        wanted = self.expected
        backend = f" to {one_line(wanted.backend.to_xml())}" if wanted.backend else ""
        return (
            f"check    {wanted.scope.value}: {wanted.key} is {wanted.connection.value}{backend}, "
            f"carrier {'up' if wanted.carrier else 'down'}"
        )

    def apply(self, host: Host) -> None:
        host.check(self.expected)


class Announce(_WithoutUndo):
    """Have QEMU announce one NIC, so that switches learn where it is now.

    :param alias: the NIC's device alias, which is its id in QEMU.
    """

    alias: str
    summary: str = "announce the NIC to its new neighbours"

    @property
    def arguments(self) -> dict[str, object]:
        """Arguments of QEMU's ``announce-self``: five rounds as after a migration, for this NIC alone."""
        return {
            "initial": 50,
            "max": 550,
            "rounds": 5,
            "step": 100,
            "interfaces": [self.alias],
            "id": f"nicplug-{self.alias}",
        }

    def describe(self) -> str:
        return _qmp("announce-self", self.arguments)

    def apply(self, host: Host) -> None:
        host.monitor("announce-self", self.arguments)


def one_line(xml: str) -> str:
    """Return XML without the white space between its elements."""
    return re.sub(r">\s+<", "><", xml.strip())


def _way(joint: Joint) -> str:
    """Return which way frames are redirected: a cable's other way is a step of its other end."""
    return "->" if joint.kind == "cable" else "<->"


def _queues(names: Sequence[str]) -> str:
    return f", {len(names)} queues" if len(names) > 1 else ""


def _qmp(command: str, arguments: Mapping[str, object]) -> str:
    return "monitor  " + json.dumps({"execute": command, "arguments": arguments})
