"""A libvirtd of one's own, with the QEMU, LXC and network drivers, that leaves the machine's libvirt alone.

It runs in a mount namespace in which all of libvirt's directories are ours, and in a process namespace:
when that goes, and it goes with this process, the kernel ends libvirtd, its guests and its dnsmasq.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from nicplug_xml.errors import OperationError, UnsupportedError
from nicplug_xml.host.connection import silence_libvirt, start_event_loop
from nicplug_xml.testing.commands import program, share_capabilities, tail
from nicplug_xml.testing.control_groups import MAKE, RUN, remove_groups
from nicplug_xml.testing.embedded import QEMU_CONF, remove_domains
from nicplug_xml.testing.namespace import isolated, state_directory

if TYPE_CHECKING:
    import libvirt

_LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:stderr"
"""

#: Where a libvirtd of the distribution's has its things, and the directory of ours that takes its place.
_DIRECTORIES = {
    "/etc/libvirt": "etc",
    "/run/libvirt": "run",
    "/var/lib/libvirt": "lib",
    "/var/cache/libvirt": "cache",
    "/var/log/libvirt": "log",
}

# Process 1 of the namespaces: puts control groups and directories of ours in place, and then takes in the
# orphans, as an init must. libvirt takes a guest for alive as long as nobody has. Where libvirtd's places are
# below a directory of its own, that is made in the namespace alone: others may do the same at the same time.
_INIT = f"""
set -e
groups=$1
[ -z "$2" ] || mount -t tmpfs tmpfs "$2"
shift 2
{MAKE}
while [ $# -gt 0 ]; do
    mkdir -p "$2"
    mount --bind "$1" "$2"
    shift 2
done
echo ready
while :; do
    sleep 3600 &
    wait $!
done
"""


#: Where nicplug is imported from.
_HERE = Path(__file__).resolve().parents[2]


@contextmanager
def private_daemon(*, hook: bool = True, libvirtd: Path | None = None) -> Iterator[PrivateDaemon]:
    """Run a libvirtd for as long as the block runs.

    Call :func:`~nicplug_xml.testing.namespace.isolate` first: the bridges and firewall rules that libvirtd
    makes belong into a network namespace of ours.

    :param hook: whether it has nicplug's hook for containers.
    :param libvirtd: the program, where it is not the distribution's.
    :returns: the daemon, started.
    :raises UnsupportedError: libvirtd is not installed, or :func:`isolate` was not called.
    :raises OperationError: it does not start; the message has the end of its log.
    """
    if not isolated():
        raise UnsupportedError(
            "a private libvirtd is for namespaces of our own",
            hint="call nicplug_xml.testing.namespace.isolate() first",
        )
    with state_directory() as directory:
        daemon = PrivateDaemon(directory, hook=hook, libvirtd=libvirtd)
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.close()


class PrivateDaemon:
    """A libvirtd of our own, made by :func:`private_daemon`.

    :param directory: an empty directory for its sockets, state and logs, with a short path.
    :param hook: whether it has nicplug's hook for containers.
    :param libvirtd: the program, where it is not the distribution's.
    """

    def __init__(self, directory: Path, *, hook: bool = True, libvirtd: Path | None = None) -> None:
        self._directory = directory
        self._hook = hook
        self._program = libvirtd
        self._state = _state(libvirtd) if libvirtd else ""
        self._places = {Path(self._state + place): directory / own for place, own in _DIRECTORIES.items()}
        self._namespaces: subprocess.Popen[str] | None = None
        self._libvirtd: subprocess.Popen[bytes] | None = None
        self._connections: set[libvirt.virConnect] = set()
        #: Places that the machine lacked; made for our mounts, which nobody sees but libvirtd.
        self._made: list[Path] = []

    @property
    def uri(self) -> str:
        """How to reach it, for ``libvirt.open``, ``virsh -c`` and ``LIBVIRT_DEFAULT_URI``."""
        return f"qemu+unix:///system?socket={self._socket}"

    @property
    def log(self) -> str:
        """What libvirtd has written to its log so far."""
        path = self._directory / "libvirtd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def container_uri(self) -> str:
        """How to reach its LXC driver; one daemon, as on a host that has both."""
        return f"lxc+unix:///system?socket={self._socket}"

    def connect(self) -> libvirt.virConnect:
        """Open another connection; the daemon closes it at its end.

        :raises libvirt.libvirtError: it cannot be reached.
        """
        return self._open(self.uri)

    def connect_containers(self) -> libvirt.virConnect:
        """Open another connection, to its LXC driver; the daemon closes it at its end.

        :raises UnsupportedError: the driver is not installed.
        :raises libvirt.libvirtError: it cannot be reached.
        """
        import libvirt

        try:
            return self._open(self.container_uri)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_CONNECT:
                raise
            raise UnsupportedError(
                f"libvirtd has no LXC driver: {error}",
                hint="install the Debian package libvirt-daemon-driver-lxc",
            ) from error

    def _open(self, uri: str) -> libvirt.virConnect:
        import libvirt

        silence_libvirt()
        start_event_loop()
        conn = libvirt.open(uri)
        self._connections.add(conn)
        return conn

    def disconnect(self, conn: libvirt.virConnect) -> None:
        """Close a connection that was opened here, before the daemon does; one that is dead is fine."""
        import libvirt

        self._connections.discard(conn)
        # One that the user has closed, or that a restart has cut.
        with suppress(libvirt.libvirtError):
            conn.close()

    def start(self, timeout: float = 30) -> None:
        """Start libvirtd, unless it runs, and wait until it listens.

        :param timeout: seconds.
        :raises OperationError: it does not start; the message has the end of its log.
        """
        if self._libvirtd is not None:
            if self._listens():
                return
            # It has crashed, say; who comes afterwards has nothing to do with that.
            self._await_end(timeout)
            warnings.warn(f"libvirtd had ended, by itself; its log:\n{tail(self.log)}", stacklevel=2)
        if self._namespaces is None:
            self._make_directories()
            self._namespaces = self._make_namespaces()
        with (self._directory / "libvirtd.log").open("ab") as log:
            # No bus: systemd and firewalld of the machine must not hear of our guests and networks.
            self._libvirtd = subprocess.Popen(
                [
                    *self._inside(), "/bin/sh", "-c", RUN, "run", str(self._program or program("libvirtd")),
                    "--config", str(self._directory / "etc" / "libvirtd.conf"),
                    "--pid-file", str(self._directory / "run" / "libvirtd.pid"),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"},
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        while not self._listens():
            if self._libvirtd.poll() is not None or time.monotonic() > deadline:
                raise OperationError(f"libvirtd did not start within {timeout} s; its log:\n{tail(self.log)}")
            time.sleep(0.02)

    def stop(self, timeout: float = 30, *, kill: bool = False) -> None:
        """Stop libvirtd, and only it: its guests and networks keep running, as they do on a host.

        :param timeout: seconds.
        :param kill: end it by SIGKILL, in the middle of whatever it does.
        :raises OperationError: it does not end; the message has the end of its log.
        """
        if self._libvirtd is None:
            return
        if self._libvirtd.poll() is None:
            pid = (self._directory / "run" / "libvirtd.pid").read_text().strip()
            subprocess.run([*self._inside(), "kill", "-KILL" if kill else "-TERM", pid], check=False)
        self._await_end(timeout)

    def _await_end(self, timeout: float) -> None:
        assert self._libvirtd is not None
        try:
            self._libvirtd.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise OperationError(
                f"libvirtd did not end within {timeout} s; its log:\n{tail(self.log)}"
            ) from error
        self._libvirtd = None

    def restart(self, timeout: float = 30) -> None:
        """Stop libvirtd and start it again; guests and networks keep running.

        Connections made before are dead: :meth:`connect` again.

        :param timeout: seconds for each of the two.
        :raises OperationError: it does not end or not start; the message has the end of its log.
        """
        self.stop(timeout)
        self.start(timeout)

    def close(self) -> None:
        """Remove the guests, containers and networks, and end every process of the daemon."""
        try:
            if self._libvirtd is not None and self._listens():
                _remove_all(self.connect())
                with suppress(UnsupportedError):
                    remove_domains(self.connect_containers())
            for conn in list(self._connections):
                self.disconnect(conn)
        finally:
            self._connections.clear()
            self._kill()
            for place in self._made:
                with suppress(OSError):
                    place.rmdir()

    @property
    def _socket(self) -> Path:
        return self._directory / "run" / "libvirt-sock"

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def _kill(self) -> None:
        if self._namespaces is not None:
            self._namespaces.kill()
            self._namespaces.wait()
            self._namespaces = None
            remove_groups(self._groups)
        if self._libvirtd is not None:
            self._libvirtd.wait()
            self._libvirtd = None

    @property
    def _groups(self) -> str:
        return f"nicplug-{self._directory.name}"

    def _inside(self) -> list[str]:
        assert self._namespaces is not None
        proc = f"/proc/{self._namespaces.pid}/ns"
        return [program("nsenter"), f"--mount={proc}/mnt", f"--pid={proc}/pid_for_children", "--"]

    def _make_namespaces(self) -> subprocess.Popen[str]:
        above = (path for path in (Path(self._state), *Path(self._state).parents) if path.is_dir())
        hidden = str(next(above)) if self._state else ""
        binds = [word for place, own in self._places.items() for word in (str(own), str(place))]
        made = subprocess.Popen(
            [
                # With us goes unshare, with unshare its child, with that all others in the process namespace.
                program("setpriv"), "--pdeathsig", "KILL", "--",
                program("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
                "/bin/sh", "-c", _INIT, "init", self._groups, hidden, *binds,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert made.stdout is not None
        with made.stdout:
            said = made.stdout.readline()
        if said != "ready\n":
            made.kill()
            made.wait()
            raise OperationError(f"cannot make the namespaces of a private libvirtd: {said.strip()}")
        return made

    def _make_directories(self) -> None:
        for place, own in self._places.items():
            own.mkdir()
            if not self._state and not place.is_dir():
                place.mkdir(parents=True)
                self._made.append(place)
        etc = self._directory / "etc"
        # A host of its own: from one of that name and number, libvirt migrates no guest.
        (etc / "libvirtd.conf").write_text(f'{_LIBVIRTD_CONF}host_uuid = "{uuid.uuid4()}"\n')
        (etc / "qemu.conf").write_text(QEMU_CONF)
        if Path("/etc/libvirt/nwfilter").is_dir():
            shutil.copytree("/etc/libvirt/nwfilter", etc / "nwfilter")
        if self._hook:
            hooks = etc / "hooks" / "lxc.d"
            hooks.mkdir(parents=True)
            (hooks / "nicplug").write_text(_hook())
            (hooks / "nicplug").chmod(0o755)
        of = self._program.parents[1].name if self._program else "libvirt"
        share_capabilities(self._directory / "cache" / "qemu", of)


def _state(libvirtd: Path) -> str:
    """Return the directory in which a libvirtd was built to have its ``etc``, ``run`` and ``var``."""
    told = subprocess.run([str(libvirtd), "--help"], capture_output=True, text=True, check=True)
    found = re.search(r"^ *(/.+)/run/libvirt/libvirt-sock$", told.stderr, re.MULTILINE)
    if found is None:
        raise UnsupportedError(
            f"{libvirtd} has its state where the distribution's has it, or does not tell",
            hint="build it with a --sysconfdir, --localstatedir and runstatedir of its own",
        )
    return found[1]


def _hook() -> str:
    """Return what takes the place of ``/etc/libvirt/hooks/lxc.d/nicplug``."""
    # libvirt ends a container whose hook fails.
    return f"""#!/bin/sh
PYTHONPATH={quote(str(_HERE))} {quote(sys.executable)} -m nicplug_xml.host.hook "$@"
exit 0
"""


def _remove_all(conn: libvirt.virConnect) -> None:
    import libvirt

    remove_domains(conn)
    for network in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE):
        with suppress(libvirt.libvirtError):
            network.destroy()
