"""Raw Ethernet frames on network devices: what is sent, what arrives, and with which VLAN tag.

Authority: packet(7); the kernel takes a tag out of a frame and tells it beside the frame.
"""

from __future__ import annotations

import ctypes
import itertools
import socket
import struct
import time

from nicplug_xml.host.threads import in_thread

_ALL = 0x0003
_EXPERIMENT = b"\x88\xb5"
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _PROMISCUOUS = 1, 1
_AUXDATA = 8
_VLAN_VALID = 0x10
_CLONE_NEWNET = 0x40000000

_numbers = itertools.count(1)


class Wire:
    """A network device whose frames are sent and read by a socket of ours.

    :param device: its name.
    :param network: a descriptor of the network namespace that it is in; None for this thread's.
    """

    def __init__(self, device: str, network: int | None = None) -> None:
        self.device = device
        self._socket = _socket() if network is None else _socket_in(network)
        self._socket.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        self._socket.bind((device, _ALL))

    def close(self) -> None:
        """Stop reading."""
        self._socket.close()

    def be_promiscuous(self) -> None:
        """Have the device pass frames that are for others, as tcpdump does."""
        request = struct.pack("iHH8s", socket.if_nametoindex(self.device), _PROMISCUOUS, 0, b"")
        self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)

    def send(
        self, vlan: int | None = None, to: str = "ff" * 6, kind: bytes = _EXPERIMENT, size: int = 46
    ) -> bytes:
        """Send a frame with a tag, or without one; return what is in it, which no other frame has.

        :param to: its destination, in hexadecimal.
        :param kind: its EtherType, and what else begins what is in it.
        :param size: how long what is in it is.
        """
        content = f"nicplug frame {next(_numbers)}".encode().ljust(size, b".")
        tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
        sender = bytes.fromhex("5254000000f0")
        self._socket.send(bytes.fromhex(to) + sender + tag + kind + content)
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


def _socket() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))


def _socket_in(network: int) -> socket.socket:
    """Make a socket in another network namespace: it stays there, and the thread that has gone there ends."""

    def make() -> socket.socket:
        if ctypes.CDLL(None, use_errno=True).setns(network, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        return _socket()

    return in_thread(make)


def _vlan(frame: bytes, beside: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in beside:
        if (level, kind) == (_SOL_PACKET, _AUXDATA):
            status, _, _, _, _, tag = struct.unpack_from("IIIHHH", data)
            if status & _VLAN_VALID:
                return int(tag & 0xFFF)
    return int.from_bytes(frame[14:16], "big") & 0xFFF if frame[12:14] == b"\x81\x00" else 0
