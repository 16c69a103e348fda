"""What the kernel sends by netlink: messages, and the attributes in them (netlink(7)).

What is cut off, or says nonsense, is neither an error nor an endless loop.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_HEADER = 16


def messages_in(data: bytes) -> Iterator[tuple[int, bytes]]:
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
