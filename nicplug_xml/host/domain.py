"""One libvirt domain: what steps act on, and what is read back."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from nicplug_xml import backends, metadata
from nicplug_xml.document import Document, Element
from nicplug_xml.endpoints import BridgePort, MacvtapOn, OvsPort
from nicplug_xml.errors import NicplugError, OperationError, UnsupportedError
from nicplug_xml.facts import NOT_ASKED, Facts
from nicplug_xml.frozen import replace
from nicplug_xml.host import sysfs
from nicplug_xml.host.connection import (
    ensure_parking,
    find_beside,
    network_xml,
    remote_host,
    require_network,
)
from nicplug_xml.host.descriptors import Descriptors
from nicplug_xml.host.errors import translate, translated
from nicplug_xml.host.kernel import Kernel, is_host_device, joint_of, port_of
from nicplug_xml.host.locking import locked
from nicplug_xml.host.monitor import LibvirtMonitor, network, nics
from nicplug_xml.joints import Joint
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Interface, Scope, identified
from nicplug_xml.planes import hub, native, swap, tap, veth
from nicplug_xml.steps import Expected
from nicplug_xml.stock import interfaces_of, parse_domain, read_domain
from nicplug_xml.view import View, entries_of, view

if TYPE_CHECKING:
    import libvirt

# libvirt's virDomainModificationImpact and virDomainXMLFlags, so that reading needs no import of libvirt
_AFFECT = {Scope.LIVE: 1, Scope.CONFIG: 2}
#: These, and VIR_DOMAIN_DEVICE_MODIFY_FORCE, which says nothing of interfaces.
_FLAGS = 1 | 2 | 4
_XML_INACTIVE = 2
_METADATA_ELEMENT = 2


class Domain(Descriptors, Kernel):
    """A `nicplug_xml.steps.Host` on a virDomain."""

    def __init__(self, dom: libvirt.virDomain) -> None:
        super().__init__(LibvirtMonitor(dom))
        self.dom = dom
        self.name: str = dom.name()
        #: What the last check of each state saw, so that nobody has to look again.
        self.checked: dict[Scope, Interface] = {}
        self._others: dict[str, Domain] = {}

    def scopes(self, flags: int) -> list[Scope]:
        """Resolve VIR_DOMAIN_AFFECT_{CURRENT,LIVE,CONFIG} as virsh does.

        :raises UnsupportedError: live on a domain that does not run, config on a transient one, other flags.
        """
        with translated():
            active = bool(self.dom.isActive())
            transient = bool(flags & 2) and not self.dom.isPersistent()
        if unknown := flags & ~_FLAGS:
            raise UnsupportedError(
                f"flags {unknown:#x} are not known here", hint="say VIR_DOMAIN_AFFECT_LIVE, CONFIG or CURRENT"
            )
        if not flags & 3:
            return [Scope.LIVE if active else Scope.CONFIG]
        if flags & 1 and not active:
            raise UnsupportedError(
                f"domain '{self.name}' is not running",
                hint="start it, or change its definition alone with --config",
            )
        if transient:
            raise UnsupportedError(
                f"domain '{self.name}' is transient and has no persistent definition",
                hint="leave --config, --persistent and --inactive out",
            )
        return [scope for scope in (Scope.LIVE, Scope.CONFIG) if flags & _AFFECT[scope]]

    def xml(self, scope: Scope) -> str:
        """Return libvirt's own XML of that state."""
        with translated():
            return str(self.dom.XMLDesc(_XML_INACTIVE if scope is Scope.CONFIG else 0))

    def read(self, scope: Scope) -> View:
        """Return what is true in that state now."""
        root = read_domain(self.xml(scope))
        return view(root, self.facts(root) if scope is Scope.LIVE else NOT_ASKED)

    @cached_property
    def remote_host(self) -> str:
        """The host that the domain is on; an empty string where that is this one."""
        return remote_host(self.dom.connect())

    def require_passing(self) -> None:
        if self.remote_host:
            raise UnsupportedError(
                f"a descriptor is to be handed to QEMU, which is on {self.remote_host}",
                hint="run nicplug there",
            )

    def open_macvtap(self, names: Sequence[str], device: str, mode: str, mac: str) -> None:
        self.require_passing()
        self.require_frames(device)
        super().open_macvtap(names, device, mode, mac)

    def require_here(self, device: str, mac: str) -> None:
        if self.remote_host:
            raise UnsupportedError(
                f"this takes the kernel of {self.remote_host}, which the NIC is on",
                hint="run nicplug there; a bridge or network, which libvirt itself joins, works from here",
            )
        if not (is_host_device(device, mac) or self._is_containers(device)):
            super().require_here(device, mac)

    def _is_containers(self, device: str) -> bool:
        """Whether the other end of a host device is in the container, whatever MAC it has there.

        The container may give it another one, and is to be unplugged all the same.
        """
        if not sysfs.exists(device):
            return False
        with translated():
            if self.dom.connect().getType() != "LXC":
                return False
        import libvirt
        import libvirt_lxc

        from nicplug_xml.host import peer

        try:
            namespaces: list[int] = libvirt_lxc.lxcOpenNamespace(self.dom, 0)
        except libvirt.libvirtError:
            return False
        try:
            return any(peer.is_in(device, namespace) for namespace in namespaces)
        finally:
            for namespace in namespaces:
                os.close(namespace)

    def facts(self, root: Element) -> Facts:
        """Ask QEMU and the kernel for what is so below the running domain's XML.

        :param root: its ``<domain>``.
        """
        entries = entries_of(root)
        # The kernel here knows nothing of another host's devices.
        seen = NOT_ASKED if self.remote_host else self._of_kernel(root, entries)
        swapped = {key for key, entry in entries.items() if entry.plane == swap.NAME}
        if not swapped and all(entry.plane != hub.NAME for entry in entries.values()):
            return seen
        try:
            found = nics(self._monitor) if swapped else {}
            present = network(self._monitor, found)
        except OperationError as error:
            import libvirt

            said = error.__cause__
            code = said.get_error_code() if isinstance(said, libvirt.libvirtError) else None
            if code != libvirt.VIR_ERR_OPERATION_DENIED:
                raise
            return seen  # a read-only connection has no monitor
        return replace(
            seen,
            netdevs=present.ids,
            carriers={**seen.carriers, **{key: nic.link for key, nic in found.items() if key in swapped}},
            peers=present.peers,
            ended=present.ended,
        )

    def _of_kernel(self, root: Element, entries: Mapping[str, Entry]) -> Facts:
        joints: dict[str, Joint | None] = {}
        carriers, astray = {}, {}
        for interface in interfaces_of(root):
            device, entry = interface.get("target", "dev") or "", metadata.entry_of(interface, entries)
            mac = metadata.mac_of(interface)
            plane = entry.plane if entry else native.NAME if "connection" in interface.attributes else ""
            if entry and entry.attached and plane in (hub.NAME, swap.NAME):
                from nicplug_xml.host.tap import has_left

                if has_left(self._led_to(entry.backend), mac):
                    astray[entry.key] = ""
            if not plane or not (is_host_device(device, mac) or self._is_containers(device)):
                continue
            bridge = _bridge(interface) if plane in (tap.NAME, native.NAME) else ""
            if bridge and (instead := sysfs.master(device)) != bridge:
                astray[device] = instead
            if entry is None:
                continue
            joints[device] = joint_of(device)
            if plane == veth.NAME:
                joints[device] = joints[device] or port_of(device)
                carriers[entry.key] = sysfs.is_up(device)
        return Facts(joints=joints, carriers=carriers, astray=astray)

    def _led_to(self, backend: Backend | None) -> Backend | None:
        """Return the bridge or device that a libvirt network leads to while it is active, or `backend`."""
        if backend is None or backend.type != "network":
            return backend
        try:
            network = network_xml(self.dom.connect(), backend.source.get("network", ""))
            endpoint = backends.endpoint(backend, network)
        except NicplugError:
            return backend
        match endpoint:
            case BridgePort(bridge=place):
                return backends.bridge.backend(place)
            case MacvtapOn(device=place):
                return backends.direct.backend(place)
        return backend

    def update_device(self, xml: str, scope: Scope) -> None:
        try:
            with translated():
                self.dom.updateDeviceFlags(xml, _AFFECT[scope])
        except NicplugError as error:
            if scope is Scope.LIVE:
                self._put_right(xml, error)
            if isinstance(error, UnsupportedError) and "vlan tag" in error.what:
                hint = "leave <vlan> out; update-device takes away what stays on a move"
                raise UnsupportedError(error.what, hint=hint) from error
            raise

    def record(self, entry: Entry, keys: Collection[str], scope: Scope) -> None:
        with locked(self.dom.UUIDString()):
            # Read anew: another NIC of the domain may have been changed since the plan was made.
            entries = {other.key: other for other in self._entries(scope) if other.key in keys}
            text = metadata.format_entries({**entries, entry.key: entry}.values(), alone=True)
            with translated():
                self.dom.setMetadata(_METADATA_ELEMENT, text, metadata.PREFIX, metadata.URI, _AFFECT[scope])

    def _entries(self, scope: Scope) -> Sequence[Entry]:
        import libvirt

        try:
            text = self.dom.metadata(_METADATA_ELEMENT, metadata.URI, _AFFECT[scope])
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                raise translate(error) from error
            return []
        return metadata.parse(Document(text).root)

    def close(self) -> None:
        """Close what is still open of ours."""
        Descriptors.close(self)
        Kernel.close(self)
        for other in self._others.values():
            other.close()

    def add_port(self, name: str, port: OvsPort, mac: str, mtu: int) -> None:
        self.make_port(name, port, mac, mtu, self.dom.UUIDString())

    def join(self, device: str, joint: Joint) -> None:
        from nicplug_xml.host import janitor

        super().join(device, joint)
        if joint.kind == "bridge":
            return  # nothing of it outlives the device
        janitor.ensure(self.owned(joint))

    def owned(self, joint: Joint) -> Joint:
        # Whoever finds that the other end of a cable is gone has to know whom to tell.
        if joint.kind != "cable":
            return joint
        with translated():
            return joint._replace(place=self.dom.UUIDString(), mode=self.dom.connect().getURI())

    def monitor(self, command: str, arguments: Mapping[str, object]) -> object:
        return self._monitor.command(command, arguments)

    def other(self, domain: str) -> Domain:
        if domain not in self._others:
            self._others[domain] = Domain(find_beside(self.dom.connect(), domain))
        return self._others[domain]

    def ensure_parking(self) -> None:
        ensure_parking(self.dom.connect())

    def require_network(self, name: str) -> None:
        require_network(self.dom.connect(), name)

    def check(self, expected: Expected) -> None:
        now = self.read(expected.scope)
        nic = identified(now.interfaces, expected.key, expected.mark)
        if nic is None:
            raise OperationError("the NIC is no longer in the domain's XML")
        self.checked[expected.scope] = nic
        wanted = expected.backend
        plugged = wanted is None or (nic.backend is not None and wanted.is_within(nic.backend))
        if nic.connection is not expected.connection or not plugged:
            raise OperationError(f"libvirt's XML has it {_state(nic)} afterwards")
        if expected.scope is Scope.LIVE and nic.carrier != expected.carrier:
            raise OperationError(f"its carrier is {'up' if nic.carrier else 'down'} afterwards")
        if wanted is not None and nic.shown and nic.target in now.facts.astray:
            instead = now.facts.astray[nic.target]
            raise OperationError(
                f"{nic.target} is a port of '{instead}' afterwards, not of {_bridge(nic.element)}"
            )

    def has_ended(self) -> bool:
        import libvirt

        try:
            return not self.dom.isActive()
        except libvirt.libvirtError as error:
            return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)

    def state(self, key: str, mark: str = "") -> str:
        try:
            scope = Scope.LIVE if self.dom.isActive() else Scope.CONFIG
            nic = self._interface(key, mark, scope)
        except Exception:  # this serves an error message; the error that it tells of comes first
            return "in a state that could not be read"
        return "gone from the domain" if nic is None else _state(nic)

    def _may_limit(self, xml: str) -> bool:
        """Whether libvirt sets a bandwidth for that ``<interface>``: its own, or what its network gives."""
        if "<bandwidth" in xml:
            return True
        network = Document(xml).root.get("source", "network") or ""
        try:
            return bool(network) and "<bandwidth" in network_xml(self.dom.connect(), network)
        except NicplugError:
            return False

    def _meant(self, xml: str) -> Interface | None:
        """Return the running domain's NIC that an ``<interface>`` is of, if it has a host device."""
        root = Document(xml).root
        mark = root.get("alias", "name") or root.get("target", "dev") or ""
        nic = self._interface(metadata.key_of(root), mark, Scope.LIVE)
        return nic if nic and nic.target else None

    def _put_right(self, xml: str, refusal: NicplugError) -> None:
        """Put right what an update-device that was refused has left."""
        try:
            nic = self._meant(xml)
            if nic is not None:
                self._restore_port(nic)
                if self._may_limit(xml):
                    self._restore_bandwidth(nic)
        except NicplugError as left:
            what = f"{refusal.what}; and what that left cannot be put right: {left.what}"
            raise type(refusal)(what, hint=refusal.hint) from refusal

    def _restore_port(self, nic: Interface) -> None:
        """Make a NIC the port that the live XML says: libvirt does not, when its filter fails.

        When the bridge refuses it, libvirt 9.0 puts it back, and leaves its isolation behind.
        """
        # A libvirt that has planes of its own undoes what it does; its XML has the bridge of a deferred NIC.
        bridge = _bridge(nic.element) if nic.plane == tap.NAME else ""
        if not (bridge and is_host_device(nic.target, nic.mac)):
            return
        isolated = nic.element.get("port", "isolated") == "yes"
        so = (sysfs.master(nic.target), sysfs.is_isolated(nic.target))
        if so != (bridge, isolated) and sysfs.exists(bridge):
            self.put_into_bridge(nic.target, bridge, isolated)

    def _restore_bandwidth(self, nic: Interface) -> None:
        """Make a NIC's bandwidth what the live XML says: libvirt leaves a half-made one when it fails."""
        bandwidth = nic.element.find("bandwidth")
        limits = {
            f"{way}.{limit}": int((bandwidth.get(way, limit) if bandwidth else None) or 0)
            for way in ("inbound", "outbound")
            for limit in ("average", "peak", "burst")
        }
        with translated():
            self.dom.setInterfaceParameters(nic.target, limits, _AFFECT[Scope.LIVE])

    def _interface(self, key: str, mark: str, scope: Scope) -> Interface | None:
        return identified(self.read(scope).interfaces, key, mark)


def replaced_by(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain | None:
    """Return the domain whose definition a domain document would replace, if there is one."""
    import libvirt

    root = parse_domain(xml).root
    name, uuid = root.words_of("name"), root.words_of("uuid")
    try:
        return conn.lookupByUUIDString(uuid) if uuid else conn.lookupByName(name)
    except libvirt.libvirtError:
        return None


def recorded_planes(dom: libvirt.virDomain) -> dict[str, str]:
    """Return which plane holds which interface in a domain's definition."""
    with translated():
        definition = dom.XMLDesc(_XML_INACTIVE)
    return {nic.key: nic.plane for nic in view(parse_domain(definition).root).interfaces if nic.plane}


def _state(nic: Interface) -> str:
    if nic.connection is Connection.DEFERRED:
        return "deferred (unplugged)"
    link = ", link down" if nic.link == "down" else ""
    return f"attached to {backends.describe(nic.backend)}{link}"


def _bridge(interface: Element) -> str:
    """Return the bridge that the live XML says the tap is a port of; Open vSwitch's ports have no master."""
    if interface.get("virtualport", "type") == "openvswitch":
        return ""
    return interface.get("source", "bridge") or ""
