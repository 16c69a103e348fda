"""passt processes that live as long as the socket to them (https://passt.top, passt(1))."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence

from nicplug_xml.errors import OperationError, UnsupportedError

#: Seconds until a passt that was let go of has ended, with the ports that it has.
_PATIENCE = 1


def start_passt(options: Sequence[str]) -> int:
    """Start passt in the background.

    :param options: its command line options, besides those that make it ours.
    :returns: the descriptor of a stream socket to it; when the last one is closed, passt ends.
    :raises UnsupportedError: passt is not installed.
    :raises OperationError: it does not start; the message is its own.
    """
    program = shutil.which("passt")
    if program is None:
        raise UnsupportedError("the program passt is missing", hint="install the Debian package passt")
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with its:
        command = [program, "--one-off", "--fd", str(its.fileno()), *options]
        until = time.monotonic() + _PATIENCE
        while True:
            # It goes into the background by itself, once it is ready.
            done = subprocess.run(
                command,
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0 or "bind" not in done.stderr or time.monotonic() > until:
                break
            time.sleep(_PATIENCE / 20)
    if done.returncode != 0:
        ours.close()
        said = done.stderr.strip().splitlines()
        raise OperationError(
            f"passt does not start: {said[-1] if said else f'status {done.returncode}'}",
            hint=f"try '{' '.join(command[:1] + list(options))} --foreground' by hand",
        )
    return ours.detach()
