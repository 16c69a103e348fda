"""Plug a NIC into this program, and print the frames that the guest sends.

python frames.py vm1 ua-lan --count 3
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
from collections.abc import Iterator
from itertools import islice

import libvirt

import nicplug_xml

ETHERTYPES = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6"}


def frames(wire: socket.socket) -> Iterator[bytes]:
    """Yield frames as QEMU sends them on a stream: each behind its length, 4 bytes."""
    with wire.makefile("rb") as stream:
        while len(header := stream.read(4)) == 4:
            yield stream.read(*struct.unpack("!I", header))


def described(frame: bytes) -> str:
    """Return who sends a frame to whom, and what is in it."""
    to, sender, kind = frame[:6].hex(":"), frame[6:12].hex(":"), int.from_bytes(frame[12:14], "big")
    return f"{sender} > {to} {ETHERTYPES.get(kind, hex(kind))}"


def main() -> None:
    """Plug in, print, unplug."""
    parser = argparse.ArgumentParser(description="Print the frames that a guest sends.")
    parser.add_argument("domain", metavar="DOMAIN", help="the guest")
    parser.add_argument("interface", metavar="INTERFACE", help="MAC, alias or target device; on plane hub")
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI")
    parser.add_argument("--count", metavar="N", type=int, help="end after so many (default: with the guest)")
    options = parser.parse_args()

    dom = libvirt.open(options.connect).lookupByName(options.domain)
    ours, guests = socket.socketpair()
    with ours:
        with guests:
            # QEMU gets a copy: this end is closed here, or the stream would never end.
            nicplug_xml.attach_backend(dom, options.interface, fds=[guests.fileno()], announce=False)
        try:
            for frame in islice(frames(ours), options.count):
                print(described(frame), flush=True)
        finally:
            if dom.isActive():
                nicplug_xml.detach_backend(dom, options.interface)


if __name__ == "__main__":
    try:
        main()
    except (nicplug_xml.NicplugError, libvirt.libvirtError) as error:
        sys.exit(f"frames: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
