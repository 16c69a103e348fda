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
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute(ext_ack=True, strict_check=True) as ipr:
            yield ipr
    except NetlinkError as error:
        hint = "this takes root or CAP_NET_ADMIN" if error.code == errno.EPERM else ""
        raise OperationError(f"the kernel refuses: {error}", hint=hint) from error


def index_of(ipr: IPRoute, device: str, kind: str = "device") -> int:
    """Look up the index of a network device.

    :param kind: what it is called in the error.
    :raises NotFoundError: there is none of that name.
    """
    found = ipr.link_lookup(ifname=device)
    if not found:
        raise NotFoundError(f"there is no {kind} '{device}'", hint="'ip link' lists what there is")
    return int(found[0])


def add_bridge(name: str) -> None:
    """Make a bridge and leave it down, so that it forwards nothing; nothing when it is there.

    :raises OperationError: the kernel refuses.
    """
    with netlink() as ipr:
        if not ipr.link_lookup(ifname=name):
            ipr.link("add", ifname=name, kind="bridge")
