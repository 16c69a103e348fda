"""libvirt connections: opening them, what they have, and the parking place of plane tap."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from nicplug_xml.document import Element
from nicplug_xml.errors import NicplugError, NotFoundError, OperationError, UnsupportedError
from nicplug_xml.host import netlink, sysfs
from nicplug_xml.host.errors import translate, translated
from nicplug_xml.planes import hub, native, tap
from nicplug_xml.stock import interfaces_of, parse_domain

if TYPE_CHECKING:
    import libvirt


def open_connection(uri: str | None, *, readonly: bool = False) -> libvirt.virConnect:
    """Open a connection.

    :param uri: a libvirt URI; None for LIBVIRT_DEFAULT_URI or libvirt's own default.
    :param readonly: one that changes nothing, which libvirt may allow to those to whom it denies another.
    :raises OperationError: libvirt cannot be reached.
    """
    import libvirt

    if "/embed" in (uri or os.environ.get("LIBVIRT_DEFAULT_URI", "")):
        start_event_loop()
    try:
        return libvirt.openReadOnly(uri) if readonly else libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise OperationError(
            f"no connection to {uri or 'libvirt'}: {error}",
            hint="is the libvirt daemon running, and is the URI right? (-c URI)",
        ) from error


def silence_libvirt() -> None:
    """Keep libvirt from printing errors on standard error: each is raised as well."""
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)


def start_event_loop() -> None:
    """Run libvirt's default event loop in a thread, once a process; call it before connecting."""
    import threading

    import libvirt

    if any(thread.name == "libvirt-events" for thread in threading.enumerate()):
        return
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt-events", daemon=True).start()


def find_domain(conn: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """Look a domain up by name, UUID or id, in virsh's order of trust: id, UUID, name.

    :raises NotFoundError: there is none.
    """
    import libvirt

    lookups: list[Callable[[], libvirt.virDomain]] = [lambda: conn.lookupByName(name)]
    if name.isdecimal() and len(name) < 11 and int(name) < 2**31:
        lookups.insert(0, lambda: conn.lookupByID(int(name)))
    if len(name) == 36 and name.count("-") == 4:
        lookups.insert(0, lambda: conn.lookupByUUIDString(name))
    for lookup in lookups:
        try:
            return lookup()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                raise translate(error) from error
    raise NotFoundError(f"there is no domain '{name}'", hint="'nicplug list' shows what there is")


def find_beside(conn: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """Look a domain up by name: here, and then at the host's other hypervisor, QEMU or LXC.

    Where both have one of that name, the one that runs is meant.

    :raises NotFoundError: there is none.
    """
    import libvirt

    here = None
    try:
        here = conn.lookupByName(name)
        if here.isActive():
            return here
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise translate(error) from error
    with translated():
        uri = conn.getURI()
    for ours, other in (("qemu", "lxc"), ("lxc", "qemu")):
        if uri.startswith(ours) and "/embed" not in uri:
            with suppress(libvirt.libvirtError):
                beside = libvirt.open(other + uri[len(ours) :]).lookupByName(name)
                if here is None or beside.isActive():
                    return beside
    if here is not None:
        return here
    raise NotFoundError(f"there is no domain '{name}'", hint="'nicplug list' shows what there is")


def remote_host(conn: libvirt.virConnect) -> str:
    """Return the host that a connection's URI names, or an empty string where it is this one's."""
    with translated():
        return str(conn.getURI()).partition("://")[2].partition("/")[0]


def parking_kind(conn: libvirt.virConnect) -> str:
    """Return which parking place plane tap has on this connection: ``network`` or ``bridge``."""
    import libvirt

    try:
        conn.numOfNetworks()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return "bridge"
        raise translate(error) from error
    return "network"


def ensure_parking(conn: libvirt.virConnect) -> None:
    """Make the parking place of plane tap, or start it, unless it is there.

    :raises OperationError: it cannot be made.
    """
    if parking_kind(conn) == "network":
        _ensure_network(conn)
        # Up, as libvirt has it, the host itself would be there, and answer who asks for its addresses.
        if not remote_host(conn) and sysfs.is_bridge(tap.NETWORK_BRIDGE) and sysfs.is_up(tap.NETWORK_BRIDGE):
            from nicplug_xml.host.rtnetlink import Rtnetlink

            with suppress(OperationError), closing(Rtnetlink()) as kernel:  # that is for root
                kernel.set_flags(sysfs.index(tap.NETWORK_BRIDGE), 0, sysfs.IFF_UP)
    elif host := remote_host(conn):
        raise UnsupportedError(
            f"libvirt on {host} has no networks, and a bridge to park in is to be made there",
            hint="run nicplug there",
        )
    elif not sysfs.is_bridge(tap.PARKING_BRIDGE):
        try:
            netlink.add_bridge(tap.PARKING_BRIDGE)
        except OperationError as error:
            hint = "; ".join(filter(None, (error.hint, "plane hub does without")))
            raise OperationError(f"no bridge to park in can be made: {error.what}", hint=hint) from error


def default_plane(conn: libvirt.virConnect) -> str:
    """Return what ``auto`` means here: plane hub where no tap can be had (``qemu:///session``)."""
    with translated():
        return hub.NAME if conn.getURI().partition("?")[0].endswith("/session") else "auto"


def offered_planes(conn: libvirt.virConnect, xml: str) -> Collection[str]:
    """Return which of `nicplug_xml.planes.PATCHED` are there for a domain document.

    :param xml: the document; what it says of the machine is what libvirt's domain capabilities are about.
    """
    capabilities = domain_capabilities(conn, xml)
    interfaces = () if capabilities is None else interfaces_of(capabilities)
    reported = (child for found in interfaces for child in found)
    return (native.NAME,) if any(item.attributes.get("name") == "connection" for item in reported) else ()


def domain_capabilities(conn: libvirt.virConnect, xml: str) -> Element | None:
    """Return libvirt's ``<domainCapabilities>`` for the machine of a domain document, or None for none."""
    import libvirt

    root = parse_domain(xml).root
    kind = next((child for child in root.find("os") or () if child.name == "type"), None)
    machine = kind.attributes if kind is not None else {}
    try:
        capabilities = conn.getDomainCapabilities(
            None, machine.get("arch"), machine.get("machine"), root.attributes.get("type")
        )
    except libvirt.libvirtError:
        return None  # LXC has none, and what is wrong with the machine is told when it is defined
    return parse_domain(capabilities).root


def network_xml(conn: libvirt.virConnect, name: str, *, active: bool = True) -> str:
    """Return the XML of a libvirt network.

    :param active: whether it has to be active.
    :raises NotFoundError: it is not there, or not active.
    """
    network = require_network(conn, name, active=active)
    with translated():
        return str(network.XMLDesc())


def require_network(conn: libvirt.virConnect, name: str, *, active: bool = True) -> libvirt.virNetwork:
    """Return a libvirt network that is there, and active.

    :param active: whether it has to be active.
    :raises NotFoundError: it is not.
    """
    network = _lookup_network(conn, name)
    if network is None:
        raise NotFoundError(f"there is no network '{name}'", hint="'virsh net-list --all' lists them")
    with translated():
        if active and not network.isActive():
            raise NotFoundError(f"network '{name}' is not active", hint=f"'virsh net-start {name}' starts it")
    return network


def _ensure_network(conn: libvirt.virConnect) -> None:
    import libvirt

    network = _lookup_network(conn, tap.PARKING_NETWORK)
    defined = network is None
    if network is None:
        try:
            network = conn.networkDefineXML(tap.NETWORK_XML)
            # Guests with parked NICs are to start after a reboot of the host, too.
            network.setAutostart(1)
        except libvirt.libvirtError as error:
            defined = False
            network = _lookup_network(conn, tap.PARKING_NETWORK)
            if network is None:
                raise translate(error) from error
    with translated():
        if network.isActive():
            return
    try:
        if not remote_host(conn) and sysfs.is_bridge(tap.NETWORK_BRIDGE):
            # Newer libvirts remove what they find in the place of their bridge, whoever parks there.
            raise OperationError(
                f"there is a bridge {tap.NETWORK_BRIDGE}, and it is not this libvirtd's",
                hint="if another libvirtd parks there, this one can not: use plane hub; if none does,"
                f" 'ip link delete {tap.NETWORK_BRIDGE}' makes way",
            )
        with translated("taps and bridges take qemu:///system; plane hub does without"):
            network.create()
    except NicplugError:
        # Where these fail as well, why the first one did is what to tell.
        with suppress(libvirt.libvirtError):
            if _is_active_soon(network):
                return
            if defined:
                network.undefine()
        raise


def _lookup_network(conn: libvirt.virConnect, name: str) -> libvirt.virNetwork | None:
    import libvirt

    try:
        return conn.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            raise UnsupportedError(
                f"there are no libvirt networks on this connection: {error}", hint="name a bridge"
            ) from error
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise translate(error) from error
        return None


def _is_active_soon(network: libvirt.virNetwork) -> bool:
    """Tell whether somebody else is starting it at the same time: then it is up in a moment."""
    for _ in range(20):
        if network.isActive():
            return True
        time.sleep(0.05)
    return False
