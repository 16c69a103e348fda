"""Clears away what a NIC's host device was joined to, when the device goes with its guest.

The kernel takes a tap away when QEMU ends, and knows nothing of what it was joined to: a macvlan, a port of
Open vSwitch, a redirect, the other end of a cable. So one small process a network namespace listens to the
kernel, for as long as a device there is joined to something, and then ends. It remembers nothing: what is to
be done stands in the alias of the device that goes (`nicplug_xml.joints`). Cables of embedded libvirt are
left to a thread of the process that it is in: nobody else can talk to it.

It loads what it needs when it needs it, and stays small. The authority is rtnetlink(7).
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import syslog
import threading
import time
from contextlib import suppress

from nicplug_xml import joints
from nicplug_xml.host import sysfs
from nicplug_xml.host.netlink_messages import LINK_GONE, LINKS, NEW_LINK, Link, links_in
from nicplug_xml.joints import Joint

#: An abstract UNIX socket: its name is taken by one process of a network namespace, and free when that ends.
#: For a thread, the process is part of the name.
_NAME = "\0nicplug-janitor"

# Of socket(7), and unknown to Python's module.
_SO_RCVBUFFORCE = 33

#: Bytes of news that the kernel keeps for us while we clear away: of what is lost, nothing is cleared away.
_NEWS = 8 << 20

#: Isolated from the user's environment, it is found, and finds all, where this process has found it.
_PROGRAM = """import os, sys
sys.path = sys.argv[1].split(os.pathsep)
from nicplug_xml.host.janitor import main
main()"""

#: Seconds before the look at all devices, which is not to slow down whoever is plugging in just now.
_AFTER_THE_RUSH = 0.5


def ensure(joint: Joint) -> None:
    """Have somebody clear away in this network namespace, where something is joined.

    :param joint: how, as the alias of the device has it.
    """
    embedded = _is_embedded(joint)
    name = _claim(embedded)
    if name is None:
        return
    # Opened here, what happens until the process listens is not lost.
    kernel = _listen()
    if embedded:
        arguments = (name, kernel, embedded)
        threading.Thread(target=_run, args=arguments, name="nicplug-janitor", daemon=True).start()
        return
    with name, kernel:
        descriptors = (name.fileno(), kernel.fileno())
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, os.pathsep.join(sys.path), *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    # In a service it would be a zombie, once it has ended.
    threading.Thread(target=process.wait, name="nicplug-janitor", daemon=True).start()


def main() -> None:
    """Clear away until nothing is joined any more; the last arguments are descriptors of `ensure`'s."""
    name, kernel = (socket.socket(fileno=int(argument)) for argument in sys.argv[-2:])
    _run(name, kernel, embedded=False)


def _is_embedded(joint: Joint) -> bool:
    return joint.kind == "cable" and "/embed" in joint.mode


def _claim(embedded: bool) -> socket.socket | None:
    """Take the name, or return None when somebody has it."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"{_NAME}-{os.getpid()}" if embedded else _NAME)
    except OSError:
        name.close()
        return None
    return name


def _listen() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    # Refused in a user namespace, where the usual size has to do.
    with suppress(PermissionError):
        kernel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _NEWS)
    kernel.bind((0, LINKS))
    return kernel


def _run(name: socket.socket, kernel: socket.socket, embedded: bool) -> None:
    claimed: socket.socket | None = name
    with kernel:
        time.sleep(_AFTER_THE_RUSH)
        joined = _joined(embedded)
        while claimed is not None:
            with claimed:
                _watch(kernel, joined, embedded)
            # Who has come before the name was free has left it to us, and is told of by the kernel.
            claimed = _claim(embedded) if _is_told(kernel) else None


def _watch(kernel: socket.socket, joined: set[int], embedded: bool) -> None:
    """Clear away until nothing is joined any more.

    :param joined: the indexes of the devices that were joined when last seen; it is kept up to date.
    :param embedded: by cables of embedded libvirt; else by all else.
    """
    missed = False
    # What has come and gone while this process was started is told, too.
    while joined or missed or _is_told(kernel):
        if missed and not _is_told(kernel):
            missed = False
            joined.clear()
            joined.update(_joined(embedded))
            continue
        try:
            changes = list(links_in(kernel.recv(1 << 16)))
        except OSError:  # more has happened than the kernel could keep for us
            # What it has kept is older than the look that this takes, and to be read before it.
            missed = True
            continue
        for link in changes:
            if link.family != socket.AF_UNSPEC:
                continue
            joint = joints.parse(link.alias)
            if joint is not None and _is_embedded(joint) is not embedded:
                joint = None
            if link.kind == NEW_LINK and joint is not None:
                joined.add(link.ifindex)
            else:
                joined.discard(link.ifindex)
            if link.kind == LINK_GONE and joint is not None:
                _clear(link, joint)


def _is_told(kernel: socket.socket) -> bool:
    # Unlike select(2), poll(2) takes any descriptor: a service may have more than 1024 of them.
    poll = select.poll()
    poll.register(kernel, select.POLLIN)
    return bool(poll.poll(0))


def _joined(embedded: bool) -> set[int]:
    """Return the indexes of the devices of this network namespace that are joined, as `embedded` says."""
    found = ((device, joints.parse(sysfs.alias(device))) for device in sysfs.devices())
    joined = (device for device, joint in found if joint is not None and _is_embedded(joint) is embedded)
    return {sysfs.index(device) for device in joined} - {0}


def _clear(gone: Link, joint: Joint) -> None:
    from nicplug_xml.host.kernel import Kernel

    kernel = Kernel()
    try:
        if joint.kind == "cable":
            _unplug(gone.ifindex, joint.device)
        elif joint.kind != "port" or not _has(gone.name, joint.device):
            kernel.release(joint)
    except Exception as error:  # whatever it is, others wait to be served
        syslog.syslog(syslog.LOG_WARNING, f"nicplug: {gone.name} is gone, and {joint} stays: {error}")
    finally:
        kernel.close()


def _has(device: str, port: str) -> bool:
    """Whether there is a device of that name anew, which has that port: a port's index may change."""
    from nicplug_xml.host.kernel import joint_of

    joint = joint_of(device) if sysfs.exists(device) else None
    return joint is not None and joint.device == port


def _unplug(gone: int, device: str) -> None:
    """Unplug the NIC of `device`, whose cable has led to the one of that index, which is gone."""
    joint = _cable(gone, device)
    if joint is None:
        return
    import libvirt

    from nicplug_xml.host.locking import locked
    from nicplug_xml.operations import detach_backend

    conn = libvirt.open(joint.mode)
    try:
        with locked(joint.place):
            # Somebody may have plugged it in again meanwhile.
            if _cable(gone, device) is not None:
                detach_backend(conn.lookupByUUIDString(joint.place), device)
    finally:
        conn.close()


def _cable(gone: int, device: str) -> Joint | None:
    """Return the joint of `device`, if it is a cable to the device of that index."""
    joint = joints.parse(sysfs.alias(device))
    return joint if joint is not None and (joint.kind, joint.ifindex) == ("cable", gone) else None
