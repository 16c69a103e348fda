"""Plane ``hub``: the NIC's frontend points at a QEMU hubport; backends join its hub by monitor commands.

In the domain the interface is a placeholder of type ``user``, whose own netdev stays unused:
``<qemu:commandline>`` adds a hubport, and ``<qemu:override>`` points the NIC at it. A backend is a netdev
and a second hubport that joins it to the hub. These come and go while the NIC runs, which no QEMU lets the
NIC's own netdev do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from nicplug_xml.document import Document, Element, quoted
from nicplug_xml.endpoints import BridgePort, Descriptor, Endpoint, MacvtapOn, Netdev, Passt, StreamTo
from nicplug_xml.errors import OperationError
from nicplug_xml.facts import Facts
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Interface, Scope
from nicplug_xml.planes.held import Held
from nicplug_xml.steps import (
    Connect,
    LetGoFirst,
    Monitor,
    OpenMacvtap,
    OpenTap,
    RequireNetdev,
    SendDescriptor,
    StartPasst,
    Step,
    UpdateDevice,
    UseDescriptor,
)
from nicplug_xml.stock import with_link

NAME = "hub"
DRIVER = "qemu"
NEEDS_ALIAS = True

#: Backend types that can be plugged in.
KINDS = frozenset(
    (
        *("bridge", "network", "direct", "user", "mcast", "udp", "server", "client", "fd"),
        *("stream", "dgram", "l2tpv3", "vde"),
    )
)
KEPT: frozenset[str] = frozenset()
#: libvirt carries these out on a tap of its own making, which it has not got here.
_REFUSED = frozenset(("bandwidth", "filterref", "vlan", "virtualport", "mtu", "coalesce", "tune"))

#: libvirt's namespace for what it passes through to QEMU.
URI = "http://libvirt.org/schemas/domain/qemu/1.0"

#: What the ids of our netdevs begin with.
PREFIX = "nicplug-"

_ANY_HUBID = r"\bhubid\W{1,8}(0x[0-9a-fA-F]+|[1-9]\d*|0)"
_HUBPORT = rf"^hubport,id=({PREFIX}[^,]+),hubid=(\d+)$"


def hold(document: Document, interface: Element, _parking: str) -> Sequence[str]:
    """Make a stock ``<interface>`` a placeholder; return the children that it is to get."""
    document.set_attribute(interface, "type", "user")
    return ()


def provision(document: Document, keys: Sequence[str]) -> None:
    """Add a hubport to the domain for each interface, and point the interface's frontend at it."""
    if not keys:
        return
    used = _used_hubs(document.root)
    free = (number for number in range(1, len(used) + len(keys) + 1) if number not in used)
    hubs = dict(zip(keys, free, strict=False))

    def arguments(prefix: str) -> list[str]:
        values = (f"hubport,id={_hubport(key)},hubid={hub}" for key, hub in hubs.items())
        return [f"<{prefix}arg value={quoted(value)}/>" for port in values for value in ("-netdev", port)]

    _insert(document, document.root, "commandline", arguments)
    override = next(iter(_named(document.root, "override")), None)
    devices = {device.attributes.get("alias"): device for device in override or ()}

    def new_devices(prefix: str) -> list[str]:
        return [
            f"<{prefix}device alias={quoted(key)}><{prefix}frontend>{_property(prefix, key)}"
            f"</{prefix}frontend></{prefix}device>"
            for key in keys
            if key not in devices
        ]

    _insert(document, document.root, "override", new_devices)
    for key in devices.keys() & set(keys):
        _insert(document, devices[key], "frontend", partial(_properties, str(key)))


def release(document: Document, keys: Collection[str]) -> None:
    """Take out of the domain what `provision` has put there, and what is left without content by that."""
    ports = {_hubport(key) for key in keys}
    ours: list[Element] = []
    for commandline in _named(document.root, "commandline"):
        for first, second in zip(commandline.children, commandline.children[1:], strict=False):
            match = re.match(_HUBPORT, second.attributes.get("value", ""))
            if first.attributes.get("value") == "-netdev" and match and match[1] in ports:
                ours += (first, second)
    for override in _named(document.root, "override"):
        ours += (item for item in override.below() if item.attributes.get("value") in ports)
    for container in (*_named(document.root, "commandline"), *_named(document.root, "override")):
        _prune(document, container, ours)


def refused(_backend: Backend) -> frozenset[str]:
    """Return the children that no backend can have here."""
    return _REFUSED


def shows(_backend: Backend, _endpoint: Endpoint | None = None) -> bool:
    """The stock interface is a placeholder, and tells of no backend."""
    return False


def look(_interface: Element, entry: Entry, facts: Facts) -> tuple[Connection, bool]:
    """Return whether a backend has joined the NIC's hub: as recorded, and as QEMU says where it was asked."""
    joined = entry.attached and (facts.netdevs is None or has_joined(entry.key, facts.netdevs))
    return Connection.ATTACHED if joined else Connection.DEFERRED, False


def has_joined(key: str, netdevs: Collection[str]) -> bool:
    """Whether a backend has joined the hub of the NIC of that key."""
    return _generation(key, netdevs) is not None


def attach(
    held: Held, _backend: Backend, endpoint: Endpoint, link: str | None
) -> tuple[list[Step], list[Step]]:
    """Plan to join a NIC to an endpoint; what it was joined to leaves the hub first, and QEMU last.

    In between, a sink takes what the guest sends.

    Only a macvtap goes before the next one on the same device is made: the kernel has neither two of one MAC
    there, nor any beside one in passthrough mode.
    """
    if held.scope is Scope.CONFIG:
        return [], []
    nic, netdevs = held.nic, held.facts.netdevs or ()
    old = _generation(nic.key, netdevs)
    new = 0 if old else 1
    netdev = _netdev(nic.key, new)
    steps = _OPEN[type(endpoint)](netdev, nic, endpoint)
    if netdev in netdevs:
        steps.insert(0, LetGoFirst(_netdev_del(netdev), (), "let go of what an interrupted move has left"))
    dispose: list[Step] = []
    hubid = _hubid(held.domain, nic.key)
    if old is not None:
        # Never both at once: the hub would bridge the old network and the new one.
        port, netdev = _port(nic.key, old, hubid), _netdev(nic.key, old)
        part = Monitor("part the old backend", "netdev_del", {"id": port["id"]}, ("netdev_add", port))
        sink = _sink(nic.key, hubid, netdevs)
        dispose.append(Monitor("take the sink away", "netdev_del", {"id": _sink_id(nic.key)}))
        again = _open_again(netdev, held, endpoint)
        if again:
            steps = [*sink, part, LetGoFirst(_netdev_del(netdev), tuple(again)), *steps]
        else:
            steps += [*sink, part]
            dispose.append(_netdev_del(netdev))
    port = _port(nic.key, new, hubid)
    steps.append(Monitor("join the NIC's hub", "netdev_add", port, ("netdev_del", {"id": port["id"]})))
    return steps + carrier(held, link or "up"), dispose


def detach(held: Held) -> tuple[list[Step], list[Step]]:
    """Plan to part a NIC from its backend, the carrier first."""
    if held.scope is Scope.CONFIG:
        return [], []
    nic, netdevs = held.nic, held.facts.netdevs or ()
    steps = carrier(held, "down")
    old = _generation(nic.key, netdevs)
    if old is not None:
        port = _port(nic.key, old, _hubid(held.domain, nic.key))
        steps.append(Monitor("leave the NIC's hub", "netdev_del", {"id": port["id"]}, ("netdev_add", port)))
    # More than one are there after a move that was interrupted.
    names = (_sink_id(nic.key), _netdev(nic.key, 0), _netdev(nic.key, 1))
    return steps, [_netdev_del(name) for name in names if name in netdevs]


def _sink(key: str, hubid: int, netdevs: Collection[str]) -> list[Step]:
    """Plan to have a port in the hub that takes all frames, and has nobody to give them to.

    A hub takes a frame of the guest's when another port does. One that comes while there is none is queued,
    and a port that is added later is not asked for it: the guest would send nothing any more.
    """
    port: dict[str, object] = {"type": "hubport", "id": _sink_id(key), "hubid": hubid}
    if port["id"] in netdevs:
        return []
    return [Monitor("put a sink into the NIC's hub", "netdev_add", port, ("netdev_del", {"id": port["id"]}))]


def _sink_id(key: str) -> str:
    return f"{_hubport(key)}.sink"


def _open_again(netdev: str, held: Held, endpoint: Endpoint) -> list[Step]:
    """Plan to make the present backend anew, where it has to go before the endpoint is made."""
    present = held.present()
    if isinstance(endpoint, MacvtapOn) and isinstance(present, MacvtapOn):
        return _open_macvtap(netdev, held.nic, present) if present.device == endpoint.device else []
    return []


def _netdev_del(netdev: str) -> Monitor:
    return Monitor("let go of the backend", "netdev_del", {"id": netdev})


def carrier(held: Held, state: str) -> list[Step]:
    """Plan to set the link that the guest sees, unless it is so."""
    nic = held.nic
    if nic.carrier == (state != "down"):
        return []
    return [UpdateDevice(f"set its link {state}", with_link(nic.xml, state), nic.xml, held.scope)]


def _open_tap(netdev: str, nic: Interface, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, BridgePort)
    return [OpenTap(netdev, endpoint.bridge, nic.mac, endpoint.isolated), *_hand_over(netdev, "tap")]


def _open_macvtap(netdev: str, nic: Interface, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, MacvtapOn)
    return [OpenMacvtap(netdev, endpoint.device, endpoint.mode, nic.mac), *_hand_over(netdev, "tap")]


def _connect(netdev: str, _nic: Interface, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, StreamTo)
    return [Connect(netdev, endpoint.address, endpoint.port), *_hand_over(netdev, "socket")]


def _start_passt(netdev: str, _nic: Interface, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, Passt)
    return [StartPasst(netdev, endpoint.options), *_hand_over(netdev, "socket")]


def _use_descriptor(netdev: str, _nic: Interface, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, Descriptor)
    return [UseDescriptor(netdev, endpoint.fd), *_hand_over(netdev, endpoint.type)]


def _add_netdev(netdev: str, _nic: Interface, endpoint: Endpoint) -> list[Step]:
    assert isinstance(endpoint, Netdev)
    look = [] if endpoint.always else [RequireNetdev(str(endpoint.arguments["type"]))]
    return [*look, _netdev_add({**endpoint.arguments, "id": netdev})]


#: How each kind of endpoint becomes a QEMU netdev.
_OPEN: dict[type[Endpoint], Callable[[str, Interface, Endpoint], list[Step]]] = {
    BridgePort: _open_tap,
    MacvtapOn: _open_macvtap,
    Passt: _start_passt,
    StreamTo: _connect,
    Descriptor: _use_descriptor,
    Netdev: _add_netdev,
}


def _hand_over(netdev: str, kind: str) -> list[Step]:
    return [SendDescriptor(netdev), _netdev_add({"type": kind, "id": netdev, "fd": netdev})]


def _netdev_add(arguments: dict[str, object]) -> Step:
    undo = ("netdev_del", {"id": arguments["id"]})
    return Monitor("make the netdev", "netdev_add", arguments, undo)


def _hubport(key: str) -> str:
    return PREFIX + key


def _netdev(key: str, generation: int) -> str:
    return f"{_hubport(key)}.{generation}"


def _port(key: str, generation: int, hubid: int) -> dict[str, object]:
    netdev = _netdev(key, generation)
    return {"type": "hubport", "id": f"{netdev}.port", "hubid": hubid, "netdev": netdev}


def _generation(key: str, netdevs: Collection[str]) -> int | None:
    """Return which of the two names that a NIC's backend can have is in its hub now."""
    return next((number for number in (0, 1) if f"{_netdev(key, number)}.port" in netdevs), None)


def _hubid(domain: Element, key: str) -> int:
    for commandline in _named(domain, "commandline"):
        for argument in commandline:
            match = re.match(_HUBPORT, argument.attributes.get("value", ""))
            if match and match[1] == _hubport(key):
                return int(match[2])
    raise OperationError(
        f"the domain has no hubport for {key}: its <qemu:commandline> was changed",
        hint="define the domain anew with nicplug, and restart it",
    )


def _used_hubs(domain: Element) -> set[int]:
    """Return the hubs that the user's own arguments name, in QEMU's notation or in JSON; 0 is QEMU's own."""
    values = (item.attributes.get("value", "") for line in _named(domain, "commandline") for item in line)
    return {int(number, 0) for value in values for number in re.findall(_ANY_HUBID, value)}


def _property(prefix: str, key: str) -> str:
    return f"<{prefix}property name='netdev' type='string' value={quoted(_hubport(key))}/>"


def _properties(key: str, prefix: str) -> list[str]:
    return [_property(prefix, key)]


def _named(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if child.tag == f"{URI} {name}")


def _insert(document: Document, parent: Element, name: str, children: Callable[[str], Sequence[str]]) -> None:
    """Put children first in an element of QEMU's namespace, or last in `parent` in one that is made."""
    element = next(_named(parent, name), None)
    if element is not None:
        document.prepend(element, *children(document.prefix(element)))
        return
    texts = children("qemu:")
    if texts:
        made = f"<qemu:{name} xmlns:qemu='{URI}'>{''.join(texts)}</qemu:{name}>"
        if parent.children:
            document.insert_after(parent.children[-1], made)
        else:
            document.prepend(parent, made)


def _prune(document: Document, element: Element, ours: list[Element]) -> None:
    """Take out what is `ours`, along with every element that holds nothing else."""
    if _is_ours(element, ours):
        document.remove(element)
        return
    for child in element:
        _prune(document, child, ours)


def _is_ours(element: Element, ours: list[Element]) -> bool:
    if any(element is item for item in ours):
        return True
    return bool(element.children) and all(_is_ours(child, ours) for child in element)
