"""The client's half of the command channel into the tiny guest; the other half is in the guest's ``init``."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path

#: The guest's terminal holds no more than this of a line.
LONGEST_COMMAND = 4000

#: What stands for a newline within a command: ASCII's record separator.
_SEPARATOR = "\x1e"
_RETRY = 0.02
_numbers = itertools.count(1)


class Channel:
    """Commands for a guest through the UNIX socket of its second serial port.

    Each command has a connection of its own: whatever an earlier one left unread is gone with it, and it
    does not matter whether the guest's QEMU was started anew in between.

    :param path: the socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, command: str, timeout: float) -> tuple[int, str]:
        """Run a command in the guest.

        :param command: for the guest's ``sh``, one or more lines.
        :param timeout: seconds, after which the guest kills it.
        :returns: its exit status (137 when it was killed), and what it printed on both outputs.
        :raises TimeoutError: no answer in time.
        :raises ValueError: the command is too long for the channel, or has a character in it that stands for
            a newline there.
        """
        deadline = time.monotonic() + timeout
        token = f"{os.getpid()}-{next(_numbers)}"
        if _SEPARATOR in command:
            raise ValueError("the command has a record separator in it")
        line = f"@ {token} {max(1, round(timeout))} {command.replace(chr(10), _SEPARATOR)}\n".encode()
        if len(line) > LONGEST_COMMAND:
            raise ValueError(f"the command has {len(line)} bytes, the guest takes {LONGEST_COMMAND}")
        with self._connect(deadline) as connection:
            connection.sendall(line)
            return _Answer(connection, deadline).read(token)

    def _connect(self, deadline: float) -> socket.socket:
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._path))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nobody listens at {self._path}") from error
                time.sleep(_RETRY)
            else:
                return connection


class _Answer:
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._bytes = b""

    def read(self, token: str) -> tuple[int, str]:
        while True:
            match self._until(b"\n").split():
                case [b"=", answered, status] if answered == token.encode():
                    return int(status), self._until(f"\n. {token}\n".encode()).decode(errors="replace")

    def _until(self, end: bytes) -> bytes:
        while end not in self._bytes:
            self._receive()
        before, _, self._bytes = self._bytes.partition(end)
        return before

    def _receive(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the guest did not answer in time")
        self._connection.settimeout(left)
        received = self._connection.recv(65536)
        if not received:
            raise TimeoutError("the guest went away before it answered")
        self._bytes += received
