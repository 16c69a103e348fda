"""What the planes share that hold a NIC by a device of the host: joining that to others by redirects.

A tc redirect each way makes the kernel hand every frame of one device to the other, without a bridge between
them. The NIC's device stays what and where it is.
"""

from __future__ import annotations

from collections.abc import Callable

from nicplug_xml.backends import bridge, netdev
from nicplug_xml.document import Element
from nicplug_xml.endpoints import BridgePort, CableTo, Endpoint, HostDevice, MacvtapOn, OvsPort
from nicplug_xml.facts import Facts
from nicplug_xml.joints import Joint, helper
from nicplug_xml.model import Backend, Scope
from nicplug_xml.planes.held import Held
from nicplug_xml.steps import (
    AddMacvlan,
    AddPort,
    Join,
    LetGoFirst,
    Part,
    Release,
    RequireDevice,
    RequireHere,
    SetMtu,
    Step,
)

#: The kernel's ETH_MAX_MTU; "lo" has more, and is refused for what it is.
_LARGEST_MTU = 65535


def join(held: Held, endpoint: Endpoint) -> tuple[list[Step], list[Step]]:
    """Plan to join a NIC's host device to an endpoint; and what lets go of the old joint afterwards.

    :param endpoint: one of those that `JOINED` has.
    """
    device, before = held.nic.target, held.joint
    joint, make = JOINED[type(endpoint)](held, endpoint)
    if before is not None and _excludes(before, joint):
        # What has gone is not made again: what it was on may have gone before it.
        again = () if before.gone else (require_here(held), *_macvlan(held, before), Join(device, before))
        return [LetGoFirst(Release(before), again), *make, Join(device, joint)], []
    dispose: list[Step] = [Release(before)] if before is not None and before.device != joint.device else []
    # Nothing can be joined again to what has gone.
    known = None if before is None or before.gone else before
    return [*make, Join(device, joint, known)], dispose


def part(held: Held) -> tuple[list[Step], list[Step]]:
    """Plan to part a NIC's host device from what it is joined to, if anything; and what lets go of that."""
    joint = held.joint
    if joint is None:
        return [], []
    return [Part(held.nic.target, joint)], [Release(joint)] if joint.is_ours else []


def present(interface: Element, backend: Backend | None, facts: Facts) -> Backend | None:
    """Return the backend that a NIC is attached to: what is recorded, or where its host device is instead.

    Somebody else may have put it into another bridge, or given another name to what it is joined to.

    :param backend: the one that is recorded.
    """
    joint = facts.joints.get(interface.get("target", "dev") or "")
    if backend is None or joint is None or (backend.type, joint.kind) not in _NAMED:
        return backend
    instead = _NAMED[backend.type, joint.kind](joint.device)
    return backend if instead.is_within(backend) else instead


def require_here(held: Held) -> Step:
    """Plan to refuse a NIC of another host's: only its own kernel can join it, and part it."""
    return RequireHere(held.nic.target, held.nic.mac)


def fitting(held: Held, endpoint: Endpoint, *steps: Step) -> list[Step]:
    """Plan to have a bridge keep its MTU when, by these steps, the NIC's host device becomes a port of it.

    What a NIC was told to use stays, as in libvirt's own plugging in at a start.
    """
    nic = held.nic
    if held.scope is Scope.CONFIG or not isinstance(endpoint, BridgePort) or _mtu(held):
        return [*steps]
    its, wanted = held.mtu(nic.target), held.mtu(endpoint.bridge)
    if not its or not wanted or its == wanted:
        return [*steps]
    fit = SetMtu(nic.target, nic.mac, wanted, its)
    # The bridge that it comes from is not to feel it, either.
    return [fit, *steps] if its < wanted else [*steps, fit]


def widen(held: Held, endpoint: Endpoint) -> list[Step]:
    """Plan to have a NIC's host device take frames as large as it was told to, or as the other side takes.

    A tap takes all that a guest sends; an end of a veth pair drops what is larger than its MTU.
    """
    nic, wanted = held.nic, _mtu(held)
    if not wanted and not isinstance(endpoint, BridgePort):
        joint, _ = JOINED[type(endpoint)](held, endpoint)
        wanted = min(held.mtu(joint.place if joint.is_ours else joint.device), _LARGEST_MTU)
    its = held.mtu(nic.target)
    return [SetMtu(nic.target, nic.mac, wanted, its)] if 0 < its < wanted else []


def _excludes(before: Joint, joint: Joint) -> bool:
    """Whether the kernel has both only one after the other: two macvlans of one MAC on one device."""
    return before.kind == joint.kind == "macvlan" and before.place == joint.place


def _to_macvlan(held: Held, endpoint: Endpoint) -> tuple[Joint, list[Step]]:
    assert isinstance(endpoint, MacvtapOn)
    joint = Joint("macvlan", helper(held.nic.target, held.joint), endpoint.device, endpoint.mode)
    return joint, _macvlan(held, joint)


def _macvlan(held: Held, joint: Joint) -> list[Step]:
    return [AddMacvlan(joint, held.nic.mac, _mtu(held))]


def _to_port(held: Held, endpoint: Endpoint) -> tuple[Joint, list[Step]]:
    assert isinstance(endpoint, OvsPort)
    joint = Joint("port", helper(held.nic.target, held.joint), endpoint.bridge)
    return joint, [AddPort(joint, endpoint, held.nic.mac, _mtu(held))]


def _to_device(held: Held, endpoint: Endpoint) -> tuple[Joint, list[Step]]:
    assert isinstance(endpoint, HostDevice)
    return Joint("device", endpoint.name), [RequireDevice(endpoint.name, _mtu(held))]


def _to_cable(_held: Held, endpoint: Endpoint) -> tuple[Joint, list[Step]]:
    assert isinstance(endpoint, CableTo)
    return Joint("cable", endpoint.device), [RequireDevice(endpoint.device, 0)]


def _mtu(held: Held) -> int:
    """Return the MTU that the NIC was told to use, or 0."""
    return int(held.nic.element.get("mtu", "size") or 0)


#: Backends that name what their joint names, by the kinds of both.
_NAMED: dict[tuple[str | None, str], Callable[[str], Backend]] = {
    ("bridge", "bridge"): bridge.backend,
    ("netdev", "device"): netdev.backend,
}

#: How each kind of endpoint becomes a joint.
JOINED: dict[type[Endpoint], Callable[[Held, Endpoint], tuple[Joint, list[Step]]]] = {
    MacvtapOn: _to_macvlan,
    OvsPort: _to_port,
    HostDevice: _to_device,
    CableTo: _to_cable,
}
