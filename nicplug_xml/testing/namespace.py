"""Network and mount namespaces of one's own, so that nothing done in them touches the machine.

Authority: unshare(2), mount_namespaces(7), network_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicplug_xml.errors import UnsupportedError
from nicplug_xml.host.threads import in_thread
from nicplug_xml.testing.commands import run, short_directory

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2

#: The network namespace that this process came from, once it has left it.
_machine_network: int | None = None


def isolate() -> None:
    """Move this process into network and mount namespaces of its own, for the rest of its life.

    Afterwards the loopback interface is up, there is no other interface, and ``/sys`` shows the new network
    namespace (and no control groups, so that no guest is put into one of the machine's). A second call does
    nothing. Call it before other threads are started: those that run already stay where they are.

    :raises UnsupportedError: this process may not make namespaces.
    """
    global _machine_network
    if isolated():
        return
    machine_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _unshare(_CLONE_NEWNS | _CLONE_NEWNET)
    _check(_libc().mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "make the mounts private")
    # Where this is refused (in a container, say), the old mounts stay below the new one, out of reach.
    _libc().umount2(b"/sys", _MNT_DETACH)
    _check(_libc().mount(b"sysfs", b"/sys", b"sysfs", 0, None), "mount a new /sys")
    run(["ip", "link", "set", "lo", "up"])
    _machine_network = machine_network


def isolated() -> bool:
    """Tell whether :func:`isolate` was called in this process."""
    return _machine_network is not None


@contextmanager
def state_directory() -> Iterator[Path]:
    """Make a directory for the state of a server, for as long as the block runs.

    Servers wait at each change until it is on the disk. As `/run` is on a host, the directory is in memory,
    once :func:`isolate` was called.

    :returns: its path, as of :func:`~nicplug_xml.testing.commands.short_directory`.
    """
    with short_directory() as directory:
        if not isolated():
            yield directory
            return
        path = os.fsencode(directory)
        _check(_libc().mount(b"tmpfs", path, b"tmpfs", 0, None), "mount a tmpfs")
        try:
            yield directory
        finally:
            _libc().umount2(path, _MNT_DETACH)


def run_outside(argv: list[str], *, timeout: float = 600) -> str:
    """Run a program in the network that this process had at first: a download, say.

    :param argv: the program and its arguments.
    :param timeout: seconds after which it is killed.
    :returns: what it printed on standard output.
    :raises OperationError: it failed or took too long.
    """
    if _machine_network is None:
        return run(argv, timeout=timeout)
    return run_in_network(_machine_network, argv, timeout=timeout)


def new_network() -> int:
    """Make another network namespace, with its loopback interface up.

    :returns: a descriptor of it; the namespace and all that is in it goes when the last one is closed.
    :raises UnsupportedError: this process may not make namespaces.
    """

    def make() -> int:
        _unshare(_CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    network = in_thread(make)
    run_in_network(network, ["ip", "link", "set", "lo", "up"])
    return network


def run_in_network(network: int, argv: list[str], *, timeout: float = 30) -> str:
    """Run a program in a network namespace.

    :param network: a descriptor from :func:`new_network`.
    :param argv: the program and its arguments.
    :param timeout: seconds after which it is killed.
    :returns: what it printed on standard output.
    :raises OperationError: it failed or took too long.
    """
    enter = ["nsenter", f"--net=/proc/self/fd/{network}", "--"]
    return run([*enter, *argv], pass_fds=[network], timeout=timeout)


def _unshare(flags: int) -> None:
    _check(_libc().unshare(flags), "make namespaces")


def _check(result: int, what: str) -> None:
    if result == 0:
        return
    why = os.strerror(ctypes.get_errno())
    if os.geteuid() != 0:
        raise UnsupportedError(f"cannot {what}: {why}; only root may", hint="run this as root, with sudo say")
    raise UnsupportedError(
        f"cannot {what}: {why}; root lacks CAP_SYS_ADMIN here",
        hint="in a container, run it with --privileged",
    )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
