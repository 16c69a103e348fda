"""The other end of a veth pair, wherever it is: what sysfs does not tell of it.

Written with the socket alone: the import of a netlink library takes longer than all else that a look at a
container takes. The authority is rtnetlink(7) and the kernel's include/uapi/linux/if_link.h.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_NLM_F_REQUEST = 1
_IFLA_ADDRESS, _IFLA_LINK, _IFLA_LINK_NETNSID, _IFLA_TARGET_NETNSID = 1, 5, 37, 46
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")


def address(device: str) -> str:
    """Return the MAC of the other end of a veth pair, in whatever network namespace it is, in lower case.

    :param device: the end that is in this thread's.
    :returns: an empty string where there is no such pair, or where this process may not know.
    """
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        near = _link(kernel, socket.if_nametoindex(device))
        other = near.get(_IFLA_LINK)
        if other is None:
            return ""
        namespace = near.get(_IFLA_LINK_NETNSID)
        target = b"" if namespace is None else _ATTRIBUTE.pack(8, _IFLA_TARGET_NETNSID) + namespace
        far = _link(kernel, struct.unpack("=i", other)[0], target)
        return far.get(_IFLA_ADDRESS, b"").hex(":")
    return ""


def _link(kernel: socket.socket, index: int, attributes: bytes = b"") -> dict[int, bytes]:
    """Return the attributes of a network device.

    :raises OSError: there is none, or it is not for this process to know.
    """
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes
    kernel.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETLINK, _NLM_F_REQUEST, 0, 0) + body)
    data = kernel.recv(1 << 16)
    length, kind, *_ = _HEADER.unpack_from(data)
    if kind != _RTM_NEWLINK:
        raise OSError("the kernel refuses")
    found: dict[int, bytes] = {}
    at = _HEADER.size + _LINK.size
    while at < length:
        size, name = _ATTRIBUTE.unpack_from(data, at)
        found[name & 0x3FFF] = data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return found
