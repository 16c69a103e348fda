"""Run the machine's programs, find its places, and leave nothing of either behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nicplug_xml.errors import OperationError, UnsupportedError

#: Which Debian package has a program that we run.
PACKAGES = {
    "ip": "iproute2",
    "libvirtd": "libvirt-daemon-system",
    "nsenter": "util-linux",
    "ovs-appctl": "openvswitch-common",
    "ovs-vsctl": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-common",
    "ovsdb-tool": "openvswitch-common",
    "ping": "iputils-ping",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}


def program(name: str) -> str:
    """Find a program, in the places for root's programs too.

    :param name: as it is called on the command line, for example ``ip``.
    :returns: its path.
    :raises UnsupportedError: it is not installed; the message names the Debian package.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        package = PACKAGES.get(name, name)
        raise UnsupportedError(
            f"the program '{name}' is missing", hint=f"install the Debian package {package}"
        )
    return found


def run(argv: Sequence[str], *, pass_fds: Sequence[int] = (), timeout: float = 30) -> str:
    """Run a program to its end.

    :param argv: the program and its arguments.
    :param pass_fds: descriptors that it inherits.
    :param timeout: seconds after which it is killed.
    :returns: what it printed on standard output.
    :raises OperationError: it failed or took too long; the message has the command and its own message.
    :raises UnsupportedError: it is not installed.
    """
    command = [program(argv[0]), *argv[1:]]
    try:
        done = subprocess.run(
            command, pass_fds=pass_fds, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OperationError(f"'{' '.join(argv)}' was killed after {timeout} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or "without a message"
        raise OperationError(f"'{' '.join(argv)}' failed with status {done.returncode}: {said}")
    return done.stdout


def cache_directory() -> Path:
    """Tell where things are kept that take long to make and can be made again.

    :returns: ``$NICPLUG_CACHE``, else ``$XDG_CACHE_HOME/nicplug``, else ``~/.cache/nicplug``.
    """
    own = os.environ.get("NICPLUG_CACHE")
    if own:
        # QEMU runs in another directory.
        return Path(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    return (Path(shared) if shared.startswith("/") else Path.home() / ".cache") / "nicplug"


#: Bytes that a place for a `short_directory` may have.
_SHORT = 20


@contextmanager
def short_directory() -> Iterator[Path]:
    """Make a directory with a path short enough for UNIX sockets (108 bytes), for as long as the block runs.

    :returns: its path, ``/tmp/np…``; where ``TMPDIR`` names another short place, there.
    """
    place = tempfile.gettempdir()
    path = Path(tempfile.mkdtemp(prefix="np", dir=place if len(place) < _SHORT else "/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def share_capabilities(cache: Path, of: str = "libvirt") -> None:
    """Keep what libvirt learns from probing QEMU (some 4 s) from one run to the next.

    libvirt itself throws away what no longer fits the QEMU, the kernel or the libvirt at hand.

    :param cache: the directory in which the QEMU driver makes its ``capabilities``.
    :param of: which libvirt: two of them would each throw away what the other one has learned.
    """
    kept = cache_directory() / "capabilities" / of
    kept.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "capabilities").symlink_to(kept)


def kill_users_of(directory: Path, *, timeout: float = 5) -> None:
    """Kill every other process that has a directory in its command line, and wait for their ends.

    :param directory: a directory of our own, with a name that nothing else has.
    :param timeout: seconds to wait.
    :raises OperationError: some are still there; the message has their process ids.
    """
    deadline = time.monotonic() + timeout
    while users := _users_of(directory):
        if time.monotonic() > deadline:
            raise OperationError(f"processes that use {directory} do not end: {users}")
        for pid in users:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _users_of(directory: Path) -> list[int]:
    wanted = os.fsencode(directory)
    users = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(path.parent.name)
        with suppress(OSError):
            if pid != os.getpid() and wanted in path.read_bytes():
                users.append(pid)
    return users


def tail(text: str, lines: int = 30) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])
