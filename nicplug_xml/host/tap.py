"""Taps and macvtaps that live as long as a descriptor of them.

The authority is the kernel's Documentation/networking/tuntap.rst, rtnetlink(7) and drivers/net/macvlan.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from nicplug_xml.errors import NotFoundError, OperationError, UnsupportedError
from nicplug_xml.host import sysfs
from nicplug_xml.host.kernel import IN_THE_WAY, in_the_way, silence
from nicplug_xml.host.netlink import index_of, netlink
from nicplug_xml.host.threads import in_thread
from nicplug_xml.model import Backend

_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_MULTI_QUEUE = 0x0100

#: What the names of our taps begin with.
_NAMES = "nptap"

_CLONE_NEWNET = 0x40000000
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 0x40000

#: For how many seconds a macvtap that has been closed may be in the way of another one: a namespace goes some
#: time after its last descriptor.
_LINGERING = 0.5


def open_tap(bridge: str, mac: str, isolated: bool, queues: int = 1) -> list[int]:
    """Make a tap that is a port of a bridge. It has the vnet header: QEMU makes use of it where the NIC does.

    :param mac: the guest's; the tap gets it with a first byte of its own, as libvirt does, so that the
        bridge never takes it for its own address.
    :param queues: how many it is to have.
    :returns: its descriptors, one for each queue; when the last one is closed, the tap goes.
    :raises NotFoundError: there is no such bridge.
    :raises OperationError: the kernel refuses.
    """
    if sysfs.exists(bridge) and not sysfs.is_bridge(bridge):
        raise NotFoundError(f"'{bridge}' is no bridge", hint="'ip link show type bridge' lists the bridges")
    name = f"{_NAMES}%d"
    with _closed_on_failure() as descriptors:
        while len(descriptors) < queues:
            descriptors.append(_open_tun())
            name = _attach(descriptors[-1], name, queues)
        with netlink() as ipr:
            port = index_of(bridge, "bridge")
            tap = index_of(name)
            # A bridge that nobody gave an MTU takes that of its smallest port.
            mtu = max(sysfs.mtu(bridge), sysfs.mtu(name))
            first = "fa" if mac.startswith("fe") else "fe"
            ipr.link("set", index=tap, address=first + mac[2:], mtu=mtu)
            ipr.link("set", index=tap, master=port)
            if isolated:
                ipr.brport("set", index=tap, isolated=1)
            ipr.link("set", index=tap, state="up")
    return descriptors


def has_left(backend: Backend | None, mac: str) -> bool:
    """Whether `open_tap` has made taps for a NIC, and none is a port of its backend's bridge any more.

    A macvtap's device passes all groups for as long as that is on it: one that does not was made anew.

    :param backend: a bridge, or a network: then any bridge will do; or the device of a macvtap.
    :param mac: the guest's.
    """
    if backend is not None and backend.type == "direct":
        return not sysfs.passes_groups(backend.source.get("dev", ""))
    if backend is None or backend.type not in ("bridge", "network"):
        return False
    ours = (name for name in sysfs.devices() if name.startswith(_NAMES))
    masters = {sysfs.master(name) for name in ours if sysfs.is_tap_of(name, mac)}
    bridge = backend.source.get("bridge")
    return bool(masters) and not (bridge in masters if bridge else any(masters))


def open_macvtap(device: str, mode: str, mac: str, queues: int = 1) -> list[int]:
    """Make a macvtap.

    A macvtap outlives its descriptors. So it is put into a network namespace that nothing else holds:
    when the last descriptor is closed, be it by QEMU's end, the namespace goes, and the macvtap with it.
    The device below is put up where it is down.

    :param mode: ``bridge``, ``private``, ``vepa`` or ``passthru``.
    :param mac: the guest's MAC address, which it takes.
    :param queues: how many it is to have.
    :returns: its descriptors, one for each queue.
    :raises NotFoundError: there is no such device.
    :raises OperationError: the kernel refuses.
    """
    deadline = time.monotonic() + _LINGERING
    while True:
        try:
            # Outside of the thread, so that they are closed also when this one is interrupted.
            with _closed_on_failure() as descriptors:
                in_thread(lambda: _open_macvtap(descriptors, device, mode, mac, queues))
            return descriptors
        except OperationError as error:
            if getattr(error.__cause__, "code", None) not in IN_THE_WAY:
                raise
            if time.monotonic() > deadline:
                raise OperationError(error.what, hint=in_the_way(device)) from error
            time.sleep(0.02)


def netdev_type(descriptors: Sequence[int]) -> str:
    """Tell which QEMU netdev takes descriptors.

    :param descriptors: one, or all queues of a tap or macvtap.
    :returns: ``tap`` or ``socket``.
    :raises NotFoundError: one is not open.
    :raises UnsupportedError: no netdev takes them, or there are too few or too many.
    """
    # QEMU leaves a netdev that nobody can end, where it finds out itself that these are not of one kind.
    found = [_look_at(descriptor, len(descriptors)) for descriptor in descriptors]
    kind = found[0][0]
    if len(found) > 1 and any(one[0] == "socket" for one in found):
        raise UnsupportedError("a socket has one queue, and several were handed in", hint="hand in one")
    if len(set(found)) > 1:
        raise UnsupportedError(
            "the descriptors are not the queues of one tap", hint="open it for each of them in the same way"
        )
    return kind


def _look_at(descriptor: int, queues: int) -> tuple[str, str, int]:
    """Return the type of netdev that takes a descriptor, its device, and whether it has the vnet header."""
    try:
        what = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        raise NotFoundError(
            f"there is no open descriptor {descriptor}", hint="open it, and let it be inherited"
        ) from error
    if what.startswith("socket:"):
        _require_connected(descriptor)
        return "socket", "", 0
    try:
        request = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(40))
    except OSError as error:
        raise UnsupportedError(
            f"descriptor {descriptor} ({what}) is neither tap, macvtap nor socket",
            hint="open one of those",
        ) from error
    name, flags = request[:16].rstrip(b"\0").decode(), struct.unpack_from("H", request, 16)[0]
    _require_frames(descriptor, name, flags)
    several = bool(flags & _IFF_MULTI_QUEUE)
    if several and queues == 1:
        raise UnsupportedError(
            f"descriptor {descriptor} is one of a multiqueue tap's queues, and one alone is no backend",
            hint="hand in all, or open the tap without IFF_MULTI_QUEUE",
        )
    if queues > 1 and not several:
        raise UnsupportedError(
            f"descriptor {descriptor} is of a tap with one queue, and {queues} were handed in",
            hint="open the tap with IFF_MULTI_QUEUE",
        )
    return "tap", name, flags & _IFF_VNET_HDR


def _require_frames(descriptor: int, name: str, flags: int) -> None:
    """Refuse a tap or macvtap that QEMU would take and that does not carry a guest's frames."""
    if not flags & _IFF_TAP:
        raise UnsupportedError(
            f"descriptor {descriptor} is of a tun device, which has no Ethernet", hint="open it with IFF_TAP"
        )
    # In the kernel's answer the same bit says that there is no filter. Another namespace's is not looked at.
    its = sysfs.tap_flags(name)
    if its is not None and not its & _IFF_NO_PI:
        raise UnsupportedError(
            f"descriptor {descriptor} is of a tap that has packet information before each frame",
            hint="open it with IFF_NO_PI",
        )
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        raise UnsupportedError(
            f"descriptor {descriptor} lets frames pass in one direction only",
            hint="open it for reading and writing (3<> in a shell)",
        )


def _require_connected(descriptor: int) -> None:
    """Refuse a socket that QEMU would take and that carries nothing."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        try:
            copy.getpeername()
            connected = copy.type == socket.SOCK_STREAM
        except OSError:
            connected = False
    if not connected:
        raise UnsupportedError(
            f"descriptor {descriptor} is no connected stream socket", hint="connect it first"
        )


@contextmanager
def _closed_on_failure() -> Iterator[list[int]]:
    """Have a list of descriptors that are closed when the block fails."""
    descriptors: list[int] = []
    try:
        yield descriptors
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _open_tun() -> int:
    try:
        return os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise OperationError(
            f"no tap can be made: /dev/net/tun: {error.strerror}", hint="this takes root"
        ) from error


def _attach(descriptor: int, name: str, queues: int) -> str:
    """Make a descriptor one of the queues of the tap or macvtap of that name; return the name it has."""
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    try:
        request = fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        hint = "this takes root" if isinstance(error, PermissionError) else ""
        raise OperationError(f"no tap can be made: {error.strerror}", hint=hint) from error
    return request[:16].rstrip(b"\0").decode()


def _open_macvtap(descriptors: list[int], device: str, mode: str, mac: str, queues: int) -> None:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    name = "macvtap"
    try:
        _call("unshare", _CLONE_NEWNET | _CLONE_NEWNS)
        away = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", home, _CLONE_NEWNET)
            with netlink() as ipr:
                lower = index_of(device)
                ipr.link(
                    "add",
                    ifname=name,
                    kind="macvtap",
                    link=lower,
                    macvtap_mode=mode,
                    address=mac,
                    net_ns_fd=away,
                )
                if not sysfs.is_up(device):
                    # libvirt does so as well, and leaves it up.
                    ipr.link("set", index=lower, state="up")
            _call("setns", away, _CLONE_NEWNET)
            silence(name)
            index = index_of(name)
            if mode == "passthru":
                # The device below has it as well, until the macvtap goes; what can't is promiscuous at least.
                with suppress(OperationError), netlink() as ipr:
                    ipr.link("set", index=index, address=mac)
            with netlink() as ipr:
                # The guest may be in any multicast group. Once it is up, the device below would get that
                # flag as well, and in mode passthru not be rid of it again.
                for flag in (sysfs.IFF_ALLMULTI, sysfs.IFF_UP):
                    ipr.link("set", index=index, flags=flag, change=flag)
        finally:
            os.close(away)
        _open_node(descriptors, name, queues)
    finally:
        os.close(home)


def _open_node(descriptors: list[int], name: str, queues: int) -> None:
    """Open a macvtap of this thread's network namespace; its number is in a sysfs of that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.mount(None, b"/", None, _MS_REC_PRIVATE, None), "make the mounts private")
    _checked(libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None), "mount a new /sys")
    # Nodes in /dev are named by an index that is unique in one namespace only: make one of our own.
    _checked(libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None), "mount a place for the node")
    (entry,) = (entry for entry in os.listdir(f"/sys/class/net/{name}") if entry.startswith("tap"))
    with open(f"/sys/class/net/{name}/{entry}/dev") as dev:
        major, minor = map(int, dev.read().split(":"))
    os.mknod("/mnt/macvtap", 0o020600, os.makedev(major, minor))
    while len(descriptors) < queues:
        descriptors.append(os.open("/mnt/macvtap", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        _attach(descriptors[-1], name, queues)


def _call(name: str, *arguments: int) -> None:
    _checked(getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments), name)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OperationError(f"cannot {what}: {os.strerror(ctypes.get_errno())}", hint="this takes root")
