"""The other end of a veth pair, wherever it is: what sysfs does not tell of it.

Written with the socket alone: the import of a netlink library takes longer than all else that a look at a
container takes. The authority is rtnetlink(7), and if_link.h and net_namespace.h of the kernel's
include/uapi/linux.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from nicplug_xml.host import sysfs
from nicplug_xml.host.netlink_messages import attributes_in

_RTM_GETLINK, _RTM_GETNSID = 18, 90
_NLM_F_REQUEST, _NLMSG_ERROR = 1, 2
_IFLA_ADDRESS, _IFLA_LINK, _IFLA_LINK_NETNSID, _IFLA_TARGET_NETNSID = 1, 5, 37, 46
_NETNSA_NSID, _NETNSA_FD = 1, 3
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")


def address(device: str) -> str:
    """Return the MAC of the other end of a veth pair, in whatever network namespace it is, in lower case.

    :param device: the end that is in this thread's.
    :returns: an empty string where there is no such pair, or where this process may not know.
    """
    with suppress(OSError), _session() as kernel:
        near = _link(kernel, sysfs.index(device))
        other = near.get(_IFLA_LINK)
        if other is None:
            return ""
        namespace = near.get(_IFLA_LINK_NETNSID)
        target = b"" if namespace is None else _ATTRIBUTE.pack(8, _IFLA_TARGET_NETNSID) + namespace
        far = _link(kernel, struct.unpack("=i", other)[0], target)
        return far.get(_IFLA_ADDRESS, b"").hex(":")
    return ""


def is_in(device: str, namespace: int) -> bool:
    """Tell whether the other end of a veth pair is in a network namespace.

    :param device: the end that is in this thread's.
    :param namespace: a descriptor of the namespace; of one that is no network's, none is in it.
    """
    with suppress(OSError), _session() as kernel:
        its = _link(kernel, sysfs.index(device)).get(_IFLA_LINK_NETNSID)
        body = bytes(4) + _ATTRIBUTE.pack(8, _NETNSA_FD) + struct.pack("=I", namespace)
        return its is not None and its == _ask(kernel, _RTM_GETNSID, body, 4).get(_NETNSA_NSID)
    return False


def _session() -> socket.socket:
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError as error:
        sysfs.require_descriptors(error)
        raise


def _link(kernel: socket.socket, index: int, attributes: bytes = b"") -> dict[int, bytes]:
    """Return the attributes of a network device.

    :raises OSError: there is none, or it is not for this process to know.
    """
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes
    return _ask(kernel, _RTM_GETLINK, body, _LINK.size)


def _ask(kernel: socket.socket, request: int, body: bytes, skipped: int) -> dict[int, bytes]:
    """Return the attributes of the kernel's answer.

    :param skipped: the size of what is before them.
    :raises OSError: the kernel refuses.
    """
    kernel.send(_HEADER.pack(_HEADER.size + len(body), request, _NLM_F_REQUEST, 0, 0) + body)
    data = kernel.recv(1 << 16)
    length, kind, *_ = _HEADER.unpack_from(data)
    if kind == _NLMSG_ERROR:
        raise OSError("the kernel refuses")
    return attributes_in(data[_HEADER.size + skipped : length])
