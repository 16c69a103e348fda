"""An Open vSwitch of one's own: database server, ovs-vswitchd and bridges, in the namespaces that we are in.

Its bridges have the datapath ``netdev``, in the memory of ovs-vswitchd, so that no kernel module is needed.

Authority: ovsdb-server(1), ovs-vswitchd(8), ovs-vsctl(8).
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from nicplug_xml.errors import OperationError, UnsupportedError
from nicplug_xml.testing.commands import program, run, tail
from nicplug_xml.testing.namespace import isolated, state_directory
from nicplug_xml.testing.network import Bridge, Peer

_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")

_numbers = itertools.count(1)


@contextmanager
def private_ovs(timeout: float = 30) -> Iterator[PrivateOvs]:
    """Run an Open vSwitch for as long as the block runs; ``OVS_RUNDIR`` in the environment leads there.

    Call :func:`~nicplug_xml.testing.namespace.isolate` first: its bridges belong into a network namespace of
    ours.

    :param timeout: seconds for each of its processes to start, or to end.
    :returns: it, started.
    :raises UnsupportedError: it is not installed, or :func:`isolate` was not called.
    :raises OperationError: it does not start; the message has the end of its log.
    """
    if not isolated():
        raise UnsupportedError(
            "a private Open vSwitch is for namespaces of our own",
            hint="call nicplug_xml.testing.namespace.isolate() first",
        )
    before = os.environ.get("OVS_RUNDIR")
    with state_directory() as directory, closing(PrivateOvs(directory, timeout)) as ovs:
        ovs.start_server()
        ovs.start_vswitchd()
        os.environ["OVS_RUNDIR"] = str(directory)
        try:
            yield ovs
        finally:
            if before is None:
                del os.environ["OVS_RUNDIR"]
            else:
                os.environ["OVS_RUNDIR"] = before


class PrivateOvs:
    """An Open vSwitch of our own, made by :func:`private_ovs`.

    :param directory: an empty directory for its database, sockets and logs, with a short path.
    :param timeout: seconds for each of its processes to start, or to end.
    """

    def __init__(self, directory: Path, timeout: float) -> None:
        self.directory = directory
        self._timeout = timeout
        self._server: subprocess.Popen[bytes] | None = None
        self._vswitchd: subprocess.Popen[bytes] | None = None

    def vsctl(self, *arguments: str) -> str:
        """Run ``ovs-vsctl`` on it.

        :param arguments: its arguments.
        :returns: what it printed on standard output, without white space at the end.
        :raises OperationError: it failed.
        """
        options = [f"--db=unix:{self.directory}/db.sock", f"--timeout={self._timeout:.0f}"]
        return run(["ovs-vsctl", *options, *arguments], timeout=self._timeout + 10).rstrip()

    def row(self, table: str, name: str, *columns: str) -> dict[str, object]:
        """Look at the one row of a table that has that name.

        :param columns: what is wanted of it.
        :returns: column to value; sets are lists, maps are dictionaries, and an optional value that is not
            there is an empty list.
        :raises OperationError: there is none, or no such column.
        """
        found = json.loads(
            self.vsctl("--format=json", f"--columns={','.join(columns)}", "find", table, f"name={name}")
        )
        for row in found["data"]:
            return dict(zip(found["headings"], map(_value, row), strict=True))
        raise OperationError(f"Open vSwitch's table {table} has no row '{name}'")

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd, unless it runs, and wait until it has done what the database says.

        :raises OperationError: it does not start; the message has the end of its log.
        """
        if self._vswitchd is None or self._vswitchd.poll() is not None:
            self._vswitchd = self._start("ovs-vswitchd", f"unix:{self.directory}/db.sock")
            self._wait_for(self._vswitchd, "vswitchd.ctl")
            # What changes nothing, nobody waits for.
            self.vsctl("set", "Open_vSwitch", ".", f"external_ids:started={next(_numbers)}")

    def stop_vswitchd(self, *, cleanup: bool = False) -> None:
        """Have ovs-vswitchd end; the database stays, and so do the devices of its bridges.

        :param cleanup: take those devices away, and with them all frames that pass.
        :raises OperationError: it does not end.
        """
        if self._vswitchd is not None:
            options = ["--cleanup"] if cleanup else []
            run(["ovs-appctl", "-t", f"{self.directory}/vswitchd.ctl", "exit", *options])
            self._vswitchd.wait(self._timeout)
            self._vswitchd = None

    @property
    def log(self) -> str:
        """What ovs-vswitchd has written to its log so far."""
        path = self.directory / "ovs-vswitchd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End it, and remove the devices of its bridges."""
        with suppress(OperationError, subprocess.TimeoutExpired):
            self.stop_vswitchd(cleanup=True)
        for process in (self._vswitchd, self._server):
            if process is not None:
                process.kill()
                process.wait()
        self._vswitchd = self._server = None

    def start_server(self) -> None:
        """Make the database, and start its server.

        :raises UnsupportedError: Open vSwitch is not installed.
        :raises OperationError: it does not start; the message has the end of its log.
        """
        if not _SCHEMA.exists():
            raise UnsupportedError(
                f"Open vSwitch is missing: there is no {_SCHEMA}",
                hint="install the Debian package openvswitch-switch",
            )
        database = str(self.directory / "conf.db")
        run(["ovsdb-tool", "create", database, str(_SCHEMA)])
        self._server = self._start("ovsdb-server", database, f"--remote=punix:{self.directory}/db.sock")
        self._wait_for(self._server, "db.sock")
        self.vsctl("--no-wait", "init")

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        control = f"{self.directory}/{name.removeprefix('ovs-')}.ctl"
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    # With this process it goes, however that ends.
                    program("setpriv"), "--pdeathsig", "KILL", "--",
                    program(name), *arguments, f"--unixctl={control}", "--no-chdir",
                    "-vconsole:info", "-vsyslog:off", "-vfile:off",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "OVS_RUNDIR": str(self.directory), "OVS_LOGDIR": str(self.directory)},
            )  # fmt: skip

    def _wait_for(self, process: subprocess.Popen[bytes], socket: str) -> None:
        deadline = time.monotonic() + self._timeout
        while not (self.directory / socket).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace") for path in self.directory.glob("*.log"))
                raise OperationError(
                    f"Open vSwitch did not start within {self._timeout} s; its logs:\n{tail(logs)}"
                )
            time.sleep(0.01)


class OvsBridge(Bridge):
    """A bridge of an Open vSwitch of ours.

    :param ovs: the Open vSwitch.
    :param address: the bridge's own address with the length of the prefix, as ``192.0.2.1/24``, or none.
    :param name: up to 15 characters; one that is free unless told.
    :raises OperationError: Open vSwitch refused it.
    """

    def __init__(self, ovs: PrivateOvs, address: str | None = None, *, name: str | None = None) -> None:
        self.ovs = ovs
        self._peers = ExitStack()
        super().__init__(address, name=name or f"npovs{next(_numbers)}")

    def peer(self, address: str, *vlans: str) -> OvsPeer:
        """Make a network namespace that is connected to the bridge; it goes with the bridge at the latest.

        :param address: its address with the length of the prefix, as ``192.0.2.3/24``.
        :param vlans: columns of the table ``Port``: ``tag=42``.
        :raises OperationError: Open vSwitch or the kernel refused it.
        """
        return self._peers.enter_context(closing(OvsPeer(self, address, vlans)))

    def ports(self) -> list[str]:
        """Return the names of its ports."""
        return self.ovs.vsctl("list-ports", self.name).split()

    def close(self) -> None:
        """Remove the bridge, its ports and its peers; one that is gone already is fine."""
        self._peers.close()
        self.ovs.vsctl("--if-exists", "del-br", self.name)

    def _make(self) -> None:
        self.ovs.vsctl("add-br", self.name, "--", "set", "Bridge", self.name, "datapath_type=netdev")


class OvsPeer(Peer):
    """A network namespace that is connected to a bridge of Open vSwitch's, made by :meth:`OvsBridge.peer`."""

    def __init__(self, bridge: OvsBridge, address: str, vlans: tuple[str, ...]) -> None:
        self._bridge = bridge
        self._vlans = vlans
        super().__init__(bridge.name, address)

    def close(self) -> None:
        """Remove the peer and its port."""
        self._bridge.ovs.vsctl("--if-exists", "del-port", self._bridge.name, self._port)
        super().close()

    def _connect(self, bridge: str) -> None:
        internal = ("--", "set", "Interface", self._port, "type=internal")
        self._bridge.ovs.vsctl("add-port", bridge, self._port, *self._vlans, *internal)
        network = self._descriptor()
        # ovs-vswitchd has it open, and does not mind where it is.
        move = ["ip", "link", "set", self._port, "netns", f"/proc/self/fd/{network}", "name", self.device]
        run(move, pass_fds=[network])
        self.run(["ip", "address", "add", self.address, "dev", self.device])
        self.run(["ip", "link", "set", self.device, "up"])


def _value(value: object) -> object:
    """Return a value of the database (RFC 7047, section 5.1) as one of Python's."""
    match value:
        case ["map", list(pairs)]:
            return {key: _value(item) for key, item in pairs}
        case ["set", list(items)]:
            return [_value(item) for item in items]
        case ["uuid", uuid]:
            return uuid
    return value
