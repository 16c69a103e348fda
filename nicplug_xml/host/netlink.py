"""Requests to the kernel by rtnetlink."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nicplug_xml.errors import NotFoundError, OperationError

if TYPE_CHECKING:
    from pyroute2 import IPRoute


@contextmanager
def netlink() -> Iterator[IPRoute]:
    """Open a short-lived netlink session in this thread's network namespace.

    :raises OperationError: the kernel refuses a request in the block; the message is the kernel's.
    """
    with open_netlink() as ipr, kernel_errors():
        yield ipr


def open_netlink() -> IPRoute:
    """Open a netlink session in this thread's network namespace."""
    from pyroute2 import IPRoute

    return IPRoute(ext_ack=True, strict_check=True)


@contextmanager
def kernel_errors() -> Iterator[None]:
    """Raise what the kernel refuses in the block as an `OperationError` with its message."""
    from pyroute2 import NetlinkError

    try:
        yield
    except NetlinkError as error:
        hint = "this takes root or CAP_NET_ADMIN" if error.code == errno.EPERM else ""
        raise OperationError(f"the kernel refuses: {error.args[1]}", hint=hint) from error


def index_of(device: str, kind: str = "device") -> int:
    """Look up the index of a network device of this thread's network namespace.

    :param kind: what it is called in the error.
    :raises NotFoundError: there is none of that name, or it is an alternative one of another.
    """
    from socket import if_indextoname, if_nametoindex

    try:
        index = if_nametoindex(device)
        name = if_indextoname(index)
    except OSError as error:
        raise NotFoundError(f"there is no {kind} '{device}'", hint="'ip link' lists what there is") from error
    if name != device:
        # What is joined to it is looked for by its name afterwards, as sysfs and libvirt have it.
        raise NotFoundError(f"'{device}' is an alternative name of {kind} '{name}'", hint=f"name it {name}")
    return index


def add_bridge(name: str) -> None:
    """Make a bridge and leave it down, so that it forwards nothing; nothing when it is there.

    :raises OperationError: the kernel refuses.
    """
    from pyroute2 import NetlinkError

    with netlink() as ipr:
        try:
            ipr.link("add", ifname=name, kind="bridge")
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
