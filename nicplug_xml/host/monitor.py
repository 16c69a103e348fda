"""QEMU's monitor: through libvirt, or straight to a QMP socket. Whoever uses one cannot tell which."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nicplug_xml.errors import OperationError
from nicplug_xml.host.errors import translated

if TYPE_CHECKING:
    import socket

    import libvirt

#: Seconds that a QEMU has to greet.
_PATIENCE = 5


class Monitor(Protocol):
    """A way to a QEMU's monitor."""

    def command(self, command: str, arguments: Mapping[str, object], fd: int | None = None) -> object:
        """Carry out a command.

        :param command: its name (QEMU QMP Reference Manual).
        :param arguments: its arguments.
        :param fd: a descriptor that goes with it; it stays ours.
        :returns: what it returns.
        :raises OperationError: QEMU refuses; the message has its own words and the error's class.
        """


class LibvirtMonitor:
    """The monitor of a libvirt domain (virDomainQemuMonitorCommand, virDomainQemuMonitorCommandWithFiles).

    libvirt marks the domain as tainted (custom-monitor) at the first command.
    """

    def __init__(self, dom: libvirt.virDomain) -> None:
        self._dom = dom

    def command(self, command: str, arguments: Mapping[str, object], fd: int | None = None) -> object:
        """Carry out a command; see `Monitor.command`."""
        import libvirt_qemu

        request = json.dumps({"execute": command, "arguments": arguments})
        with translated():
            if fd is None:
                reply = libvirt_qemu.qemuMonitorCommand(self._dom, request, 0)
            else:
                reply, _ = libvirt_qemu.qemuMonitorCommandWithFiles(self._dom, request, [fd], 0)
        return _result(command, json.loads(reply))


class QmpMonitor:
    """A QMP socket of a QEMU that somebody started.

    :param path: the UNIX socket's path; QEMU serves one client at a time.
    :raises OperationError: there is nobody to talk to.
    """

    def __init__(self, path: str) -> None:
        from qemu.qmp import QMPError
        from qemu.qmp.legacy import QEMUMonitorProtocol

        self._path = path
        try:
            self._protocol = QEMUMonitorProtocol(_greeted(path))
            self._protocol.connect()
        except TimeoutError as error:
            raise OperationError(
                f"the QEMU monitor at {path} has not greeted for {_PATIENCE} s",
                hint="it serves one client at a time",
            ) from error
        except (OSError, QMPError) as error:
            raise OperationError(
                f"no QEMU monitor at {path}: {error}",
                hint="start QEMU with -qmp unix:PATH,server=on,wait=off",
            ) from error

    def command(self, command: str, arguments: Mapping[str, object], fd: int | None = None) -> object:
        """Carry out a command; see `Monitor.command`."""
        from qemu.qmp import QMPError

        try:
            if fd is not None:
                self._protocol.send_fd_scm(fd)
            reply = self._protocol.cmd_raw(command, dict(arguments))
        except (OSError, EOFError, QMPError) as error:
            raise OperationError(
                f"the QEMU monitor at {self._path} has hung up", hint="see whether that QEMU still runs"
            ) from error
        return _result(command, reply)

    def close(self) -> None:
        """Hang up; QEMU goes on, if it is still there."""
        from qemu.qmp import QMPError

        with suppress(OSError, EOFError, QMPError):
            self._protocol.close()


def _greeted(path: str) -> socket.socket:
    """Return a connection to a QMP socket that has greeted; the greeting is still to be read."""
    import socket

    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(os.fspath(path))
        connection.recv(1, socket.MSG_PEEK)
    except BaseException:
        connection.close()
        raise
    return connection


class Network(NamedTuple):
    """What a QEMU has of netdevs and NICs.

    :param ids: of all of them, hub ports included.
    :param peers: the netdev of each NIC, by the NIC's id.
    :param said: what QEMU says of each of them, by its id, after its type.
    :param ended: the ids of netdevs ``socket`` that have nobody at the other end.
    """

    ids: frozenset[str]
    peers: dict[str, str]
    said: dict[str, str]
    ended: frozenset[str]


def network(monitor: Monitor, known: Mapping[str, Nic] = MappingProxyType({})) -> Network:
    """Return what netdevs and NICs a QEMU has, asked with ``info network``: QMP knows no query for it.

    What is on a hub has a line with the port's id before its own, a port that nothing is on has a line
    without more, and the netdev of a NIC that is on none has the next line.

    :param known: what `nics` has told: it knows better. A netdev that somebody has ended under its NIC has a
        line for as long as the NIC has no other.
    """
    ids, above = set(), ""
    ended: set[str] = set()
    peers: dict[str, str] = {}
    said: dict[str, str] = {}
    for line in info_network(monitor).splitlines():
        names, index, rest = line.lstrip(" \\").partition(": index=")
        if not index:
            if line.startswith(" \\ "):
                ids.add(names)
            continue
        *port, name = names.split(": ")
        ids |= {name, *port}
        kind, _, said[name] = rest.partition("type=")[2].partition(",")
        if kind == "nic":
            above = name
            if port:
                peers[name] = port[0]
        elif line.startswith(" ") and not port:
            peers[above] = name
        if kind == "socket" and not said[name]:
            ended.add(name)
    ids -= {peers.get(nic, "") for nic, its in known.items() if not its.netdev}
    peers |= {nic: its.netdev for nic, its in known.items()}
    return Network(frozenset(ids), peers, said, frozenset(ended))


class Nic(NamedTuple):
    """A NIC as its QEMU has it.

    :param netdev: the id of its netdev now, or an empty string.
    :param link: whether the guest sees a carrier.
    :param queues: how many it has.
    """

    netdev: str
    link: bool
    queues: int


def nics(monitor: Monitor) -> dict[str, Nic]:
    """Return a QEMU's NICs by their ids, asked with ``query-nics``: who has ``netdev-replace`` has it."""
    reply = monitor.command("query-nics", {})
    assert isinstance(reply, list)
    return {nic["name"]: Nic(nic.get("netdev", ""), nic["link"], nic["queues"]) for nic in reply}


def info_network(monitor: Monitor) -> str:
    """Return what QEMU's ``info network`` prints, with line ends as they are here."""
    text = monitor.command("human-monitor-command", {"command-line": "info network"})
    return str(text).replace("\r\n", "\n")


def netdev_types(monitor: Monitor) -> frozenset[str]:
    """Return the types that a QEMU's ``netdev_add`` offers, asked with ``query-qmp-schema``."""
    entities = {entity["name"]: entity for entity in _schema(monitor)}
    argument = entities[entities["netdev_add"]["arg-type"]]
    return frozenset(str(variant["case"]) for variant in argument["variants"])


def commands(monitor: Monitor) -> frozenset[str]:
    """Return the commands that a QEMU has, asked with ``query-qmp-schema``."""
    return commands_of(_schema(monitor))


def commands_of(schema: list[dict[str, Any]]) -> frozenset[str]:
    """Return the commands in an answer to ``query-qmp-schema``."""
    return frozenset(entity["name"] for entity in schema if entity["meta-type"] == "command")


def _schema(monitor: Monitor) -> list[dict[str, Any]]:
    reply = monitor.command("query-qmp-schema", {})
    assert isinstance(reply, list)
    return reply


def _result(command: str, reply: Mapping[str, object]) -> object:
    error = reply.get("error")
    if isinstance(error, dict):
        raise OperationError(f"QEMU refuses {command}: {error.get('desc')} ({error.get('class')})")
    return reply.get("return")
