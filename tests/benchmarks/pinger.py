"""Ping at an even pace: ``pinger.py ADDRESS COUNT INTERVAL`` prints how many of the pings got no answer.

ping(8) slows down to one ping in 10 ms while answers are missing, and so misses most of those that are lost.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")
_IP_HEADER = 20
_LAST_ANSWERS = 0.3


def main(address: str, count: int, interval: float) -> int:
    """Ping.

    :param address: whom.
    :param count: how often.
    :param interval: seconds from one ping to the next.
    :returns: how many were not answered.
    """
    mine = os.getpid() & 0xFFFF
    answered: set[int] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.connect((address, 0))
        started = time.monotonic()
        for number in range(count):
            _listen(link, mine, answered, until=started + number * interval)
            link.send(_request(mine, number))
        _listen(link, mine, answered, until=time.monotonic() + _LAST_ANSWERS)
    return count - len(answered)


def _request(mine: int, number: int) -> bytes:
    total = (_ECHO_REQUEST << 8) + mine + number
    checksum = ~((total >> 16) + (total & 0xFFFF)) & 0xFFFF
    return _HEADER.pack(_ECHO_REQUEST, 0, checksum, mine, number)


def _listen(link: socket.socket, mine: int, answered: set[int], *, until: float) -> None:
    while True:
        left = max(0.0, until - time.monotonic())
        if not select.select([link], [], [], left)[0]:
            return
        kind, _, _, whose, number = _HEADER.unpack_from(link.recv(128), _IP_HEADER)
        if (kind, whose) == (_ECHO_REPLY, mine):
            answered.add(number)
        if left == 0:
            return


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
