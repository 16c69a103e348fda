"""Raw Ethernet frames on network devices: what is sent, what arrives, and with which VLAN tag.

Authority: packet(7); the kernel takes a tag out of a frame and tells it beside the frame.
"""

from __future__ import annotations

import itertools
import socket
import struct
import time

_ALL = 0x0003
_EXPERIMENT = b"\x88\xb5"
_SOL_PACKET = 263
_AUXDATA = 8
_VLAN_VALID = 0x10

_numbers = itertools.count(1)


class Wire:
    """A network device whose frames are sent and read by a socket of ours.

    :param device: its name, in the network namespace that this thread is in.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        self._socket.bind((device, _ALL))

    def close(self) -> None:
        """Stop reading."""
        self._socket.close()

    def send(self, vlan: int | None = None) -> bytes:
        """Send a broadcast with a tag, or without one; return what is in it, which no other frame has."""
        content = f"nicplug frame {next(_numbers)}".encode().ljust(46, b".")
        tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
        sender = bytes.fromhex("5254000000f0")
        self._socket.send(b"\xff" * 6 + sender + tag + _EXPERIMENT + content)
        return content

    def arrived(self, content: bytes, timeout: float) -> int | None:
        """Wait for a frame.

        :param content: what is in it.
        :param timeout: seconds.
        :returns: its VLAN, 0 for no tag; None when it does not arrive.
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame, beside, _flags, address = self._socket.recvmsg(65536, 64)
            except TimeoutError:
                return None
            if content in frame and address[2] != socket.PACKET_OUTGOING:
                return _vlan(frame, beside)
        return None


def _vlan(frame: bytes, beside: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in beside:
        if (level, kind) == (_SOL_PACKET, _AUXDATA):
            status, _, _, _, _, tag = struct.unpack_from("IIIHHH", data)
            if status & _VLAN_VALID:
                return int(tag & 0xFFF)
    return int.from_bytes(frame[14:16], "big") & 0xFFF if frame[12:14] == b"\x81\x00" else 0
