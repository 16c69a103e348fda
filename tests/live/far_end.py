"""The far end of QEMU's socket backends: answers ARP and ping for one address, and nothing else."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

ADDRESS = "198.18.0.1"
MAC = bytes.fromhex("5254000000fe")
_IP = socket.inet_aton(ADDRESS)
_ARP, _IPV4, _ICMP = b"\x08\x06", b"\x08\x00", 1


def answer(frame: bytes) -> bytes | None:
    """Return the answer to an ARP request or a ping, or None."""
    header = frame[6:12] + MAC + frame[12:14]
    if frame[12:14] == _ARP and frame[20:22] == b"\x00\x01" and frame[38:42] == _IP:
        return header + frame[14:20] + b"\x00\x02" + MAC + _IP + frame[22:32]
    if frame[12:14] == _IPV4 and frame[23] == _ICMP and frame[30:34] == _IP and frame[34] == 8:
        # An echo reply is the request with another type; its checksum grows by as much.
        (checksum,) = struct.unpack_from("!H", frame, 36)
        checksum += 0x0800
        icmp = struct.pack("!BBH", 0, 0, (checksum & 0xFFFF) + (checksum >> 16)) + frame[38:]
        return header + frame[14:26] + frame[30:34] + frame[26:30] + icmp
    return None


def serve_stream(connection: socket.socket) -> None:
    """Answer on a stream, where each frame has its length before it, until it ends."""
    with connection, connection.makefile("rb") as frames:
        while len(size := frames.read(4)) == 4:
            reply = answer(frames.read(*struct.unpack("!I", size)))
            if reply:
                connection.sendall(struct.pack("!I", len(reply)) + reply)


def serve_datagrams(port: socket.socket, to: tuple[str, int] | None = None) -> None:
    """Answer on a socket of datagrams, each a frame, until it is shut down.

    :param to: whom; the sender unless told.
    """
    while True:
        frame, sender = port.recvfrom(65536)
        if not frame:
            return
        if reply := answer(frame):
            port.sendto(reply, to or sender)


def in_background(work: Callable[..., None], *arguments: object) -> None:
    """Do work in a thread that ends with the process at the latest; a connection that breaks ends it."""

    def run() -> None:
        with suppress(OSError):
            work(*arguments)

    threading.Thread(target=run, daemon=True).start()


@contextmanager
def listening(port: int) -> Iterator[None]:
    """Answer everybody who connects to a TCP port, as long as the block runs."""
    with closing(socket.create_server(("127.0.0.1", port))) as listener:

        def accept() -> None:
            while True:
                in_background(serve_stream, listener.accept()[0])

        in_background(accept)
        yield
        # close() alone does not wake up the thread that waits.
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def on_udp(port: int) -> Iterator[None]:
    """Answer every datagram to a UDP port, as long as the block runs."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ours:
        ours.bind(("127.0.0.1", port))
        in_background(serve_datagrams, ours)
        yield
        ours.sendto(b"", ("127.0.0.1", port))


@contextmanager
def in_group(group: str, port: int) -> Iterator[None]:
    """Answer in a multicast group, as long as the block runs."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind((group, port))
        ours.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton("0.0.0.0")
        )
        in_background(serve_datagrams, ours, (group, port))
        yield
        ours.sendto(b"", (group, port))
