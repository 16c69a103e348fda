"""What the kernel sends by netlink: messages, and the attributes in them (netlink(7), rtnetlink(7)).

What is cut off, or says nonsense, is neither an error nor an endless loop.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

#: The group of those who are told of network devices (RTMGRP_LINK), and what they are told.
LINKS = 1
NEW_LINK, LINK_GONE = 16, 17
_IFNAME, _IFALIAS = 3, 20

_HEADER = 16
_LINK = struct.Struct("=B3xi8x")


class Link(NamedTuple):
    """What a message tells of a network device.

    :param kind: `LINK_GONE`, or `NEW_LINK` for anything else that happens to it.
    :param family: AF_BRIDGE where it is about a port of a bridge, when it leaves that say; else AF_UNSPEC.
    :param ifindex: the device's index.
    """

    kind: int
    family: int
    ifindex: int
    name: str
    alias: str


def links_in(data: bytes) -> Iterator[Link]:
    """Yield what messages tell of network devices."""
    for kind, body in _messages_in(data):
        if kind in (NEW_LINK, LINK_GONE) and len(body) >= _LINK.size:
            family, ifindex = _LINK.unpack_from(body)
            told = attributes_in(body[_LINK.size :])
            name, alias = (
                told.get(which, b"").rstrip(b"\0").decode(errors="replace") for which in (_IFNAME, _IFALIAS)
            )
            yield Link(kind, family, ifindex, name, alias)


def _messages_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind of each message, and what is behind its header."""
    while len(data) >= _HEADER:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[_HEADER:length]
        data = data[max((length + 3) & ~3, _HEADER) :]


def attributes_in(data: bytes) -> dict[int, bytes]:
    """Return the attributes by their kinds, flags left out."""
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[max((length + 3) & ~3, 4) :]
    return found
