"""The other end of a veth pair, wherever it is: what sysfs does not tell of it."""

from __future__ import annotations

from contextlib import closing, suppress

from nicplug_xml.host import sysfs
from nicplug_xml.host.rtnetlink import RefusedError, Rtnetlink


def address(device: str) -> str:
    """Return the MAC of the other end of a veth pair, in whatever network namespace it is, in lower case.

    :param device: the end that is in this thread's.
    :returns: an empty string where there is no such pair, or where this process may not know.
    """
    with suppress(OSError, RefusedError), closing(Rtnetlink()) as netlink:
        return netlink.peer_address(sysfs.index(device))
    return ""


def is_in(device: str, namespace: int) -> bool:
    """Tell whether the other end of a veth pair is in a network namespace.

    :param device: the end that is in this thread's.
    :param namespace: a descriptor of the namespace; of one that is no network's, none is in it.
    """
    with suppress(OSError, RefusedError), closing(Rtnetlink()) as netlink:
        return netlink.is_peer_in(sysfs.index(device), namespace)
    return False
