"""Ports of Open vSwitch bridges, by requests to its database server.

Each function makes one short-lived connection and asks for the rows that it needs by name: what else is in
the database, and how much of that, does not matter. ``ovs.jsonrpc`` carries the requests.

A transaction that succeeds has changed the database and nothing else; ovs-vswitchd then does what it says
there. So every change counts ``next_cfg`` up, and who needs the device waits until ovs-vswitchd has
``cur_cfg`` follow, as ovs-vsctl does.

Authority: RFC 7047, ovs-vswitchd.conf.db(5), ovs-vsctl(8), libvirt's virNetDevOpenvswitchAddPort.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nicplug_xml.backends.ovs import interface_id
from nicplug_xml.endpoints import OvsPort
from nicplug_xml.errors import NotFoundError, OperationError
from nicplug_xml.frozen import replace

if TYPE_CHECKING:
    from ovs.jsonrpc import Connection

#: Seconds that ovs-vswitchd gets to do what the database says.
_PATIENCE = 10.0
#: Seconds that the database server gets to answer what needs no waiting.
_ANSWER = 5.0

_START = "start it, or say in OVS_RUNDIR in which directory its db.sock is"

#: In ``Port.external_ids``: the port is ours, and goes when nobody needs it any more.
_OURS = "nicplug"

Row = Mapping[str, Any]
Operation = dict[str, object]


def socket_path(directory: str = "") -> str:
    """Return the path of the database server's socket.

    :param directory: where it is; where ovs-vsctl looks for it, unless told.
    """
    return os.path.join(directory or socket_directory(), "db.sock")


def socket_directory() -> str:
    """Return the directory where ovs-vsctl looks for the database server's socket."""
    return os.path.abspath(os.environ.get("OVS_RUNDIR") or "/var/run/openvswitch")


def add_port(device: str, port: OvsPort, *, mac: str, domain: str, mtu: int | None = None) -> None:
    """Make a network device that is a port of an Open vSwitch bridge, and wait until it is there.

    A port of ours that is left over from another time gives way. After a failure there is none.

    :param device: the name of the device.
    :param port: the port; where it has no `interfaceid`, one is made up, always the same for the same NIC.
    :param mac: the guest's MAC address, which controllers look for; the device has another.
    :param domain: the domain's UUID.
    :param mtu: its MTU; None for the smallest on the bridge.
    :raises NotFoundError: Open vSwitch has no such bridge.
    :raises OperationError: Open vSwitch does not run, refuses, or cannot make the device.
    """
    with _database() as database:
        try:
            done = _make(database, device, port, mac, domain, mtu)
        except _WaitedError:
            done = _make(database, device, _in_parent(database, port), mac, domain, mtu)
        try:
            database.wait_for_vswitchd(done)
            _check(database, device)
        except BaseException as error:
            try:
                delete_port(device)  # by a connection of its own: it may be this one that has failed
            except OperationError:
                if isinstance(error, OperationError):
                    raise _left(device, error) from error
            raise


def delete_port(device: str, directory: str = "") -> None:
    """Remove a port that `add_port` has made; one that is gone is fine. Its device goes a moment later.

    :param directory: where the database server's socket is; where ovs-vsctl looks for it, unless told.
    :raises OperationError: Open vSwitch does not run, refuses, or the port is not ours.
    """
    try:
        with _database(directory) as database:
            removal = _removal(database, device)
            if removal:
                database.change(*removal)
    except _OthersError:
        raise
    except OperationError as error:
        raise _left(device, error) from error


def ports_of(mac: str, domain: str) -> list[str]:
    """Return the names of the interfaces that Open vSwitch has for a NIC, whoever has made them.

    :param mac: the guest's MAC address.
    :param domain: the domain's UUID.
    :raises OperationError: Open vSwitch does not run, or refuses.
    """
    ids = ["external_ids", "includes", _map({"attached-mac": mac, "vm-id": domain})]
    with _database() as database:
        return [row["name"] for row in database.transact(_select("Interface", ("name",), ids))[0]["rows"]]


class _RefusedError(OperationError):
    """The database server refuses."""


class _WaitedError(_RefusedError):
    """What an operation ``wait`` waits for is not so."""


class _DuplicateError(_RefusedError):
    """Something has that name already."""


class _OthersError(OperationError):
    """Somebody else has made a port."""


#: Errors of the server, by the first words of what it says: RFC 7047, section 5.2.
_REFUSALS: dict[str, type[_RefusedError]] = {
    "timed out": _WaitedError,
    "constraint violation": _DuplicateError,
}


class _Database:
    """A connection to the database server."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def select(self, table: str, columns: Sequence[str], **where: object) -> Sequence[Row]:
        """Return those columns of the rows that have these values."""
        conditions = [[column, "==", value] for column, value in where.items()]
        rows: Sequence[Row] = self.transact(_select(table, columns, *conditions))[0]["rows"]
        return rows

    def change(self, *operations: Operation) -> int:
        """Carry out operations in one transaction, and return the ``next_cfg`` that stands for it."""
        count = _mutate("Open_vSwitch", [], ["next_cfg", "+=", 1])
        rows = self.transact(*operations, count, _select("Open_vSwitch", ("next_cfg",)))[-1]["rows"]
        return int(rows[0]["next_cfg"])

    def wait_for_vswitchd(self, done: int) -> None:
        """Wait until ovs-vswitchd has done what `change` has returned `done` for.

        :raises OperationError: it has not.
        """
        wait = {
            **_select("Open_vSwitch", ("cur_cfg",), ["cur_cfg", ">=", done]),
            "op": "wait",
            "until": "!=",
            "rows": [],
            "timeout": int(_PATIENCE * 1000),
        }
        try:
            self.transact(wait, patience=_PATIENCE + _ANSWER)
        except _WaitedError:
            raise OperationError(
                f"ovs-vswitchd has not done within {_PATIENCE:.0f} s what the database at {self._path} says",
                hint="is it running? 'ovs-appctl -t ovs-vswitchd version' asks it, and its log tells",
            ) from None

    def transact(self, *operations: Operation, patience: float = _ANSWER) -> list[Any]:
        """Carry out operations in one transaction, all or none, and return what each returns.

        :param patience: seconds to wait for the answer.
        :raises OperationError: the server refuses, or does not answer.
        """
        answer = self._request("transact", ["Open_vSwitch", *operations], time.monotonic() + patience)
        for result in answer:
            if result and "error" in result:
                said = f"{result['error']}: {result.get('details', '')}".rstrip(": ")
                kind = _REFUSALS.get(result["error"], _RefusedError)
                raise kind(f"Open vSwitch's database refuses: {said}")
        return answer

    def _request(self, method: str, parameters: list[object], deadline: float) -> list[Any]:
        from ovs.jsonrpc import Message

        request = Message.create_request(method, parameters)
        error = self._connection.send_block(request)
        while not error:
            error, reply = self._connection.recv()
            if error == errno.EAGAIN:
                error = self._block(deadline)
            elif reply is not None and reply.id == request.id:
                if reply.type == Message.T_REPLY:
                    return list(reply.result)
                raise OperationError(f"Open vSwitch's database server refuses: {reply.error}")
        why = "it has closed the connection" if error < 0 else os.strerror(error)
        raise OperationError(
            f"Open vSwitch's database server at {self._path} does not answer: {why}",
            hint="its log tells more",
        )

    def _block(self, deadline: float) -> int:
        """Wait until there is something to read; return an errno when there is nothing by the deadline."""
        from ovs.poller import Poller

        left = deadline - time.monotonic()
        if left <= 0:
            return errno.ETIMEDOUT
        poller = Poller()
        self._connection.wait(poller)
        self._connection.recv_wait(poller)
        poller.timer_wait(int(left * 1000) + 1)
        poller.block()
        return 0


@contextmanager
def _database(directory: str = "") -> Iterator[_Database]:
    """Connect to the database server.

    :raises OperationError: nobody listens.
    """
    from ovs.jsonrpc import Connection
    from ovs.stream import Stream

    path = socket_path(directory)
    error, stream = Stream.open_block(Stream.open(f"unix:{path}"), int(_ANSWER * 1000))
    if error:
        raise OperationError(
            f"Open vSwitch does not run: its database server's socket {path}: {os.strerror(error)}",
            hint=_START,
        )
    connection = Connection(stream)
    try:
        yield _Database(connection, path)
    finally:
        connection.close()


def _make(database: _Database, device: str, port: OvsPort, mac: str, domain: str, mtu: int | None) -> int:
    """Have the port in the database, in the place of one of ours that was left over; as `change`."""
    insert = _insert(device, port, mac, domain, mtu)
    try:
        return database.change(*insert)
    except _DuplicateError:
        return database.change(*_removal(database, device), *insert)


def _in_parent(database: _Database, port: OvsPort) -> OvsPort:
    """Return what a port of a fake bridge (ovs-vsctl(8)) is: one of the bridge around it, in its VLAN.

    :raises NotFoundError: there is no fake bridge of that name.
    """
    for fake in database.select("Port", ("_uuid", "tag"), name=port.bridge, fake_bridge=True):
        around = _select("Bridge", ("name",), ["ports", "includes", fake["_uuid"]])
        (parent,) = database.transact(around)[0]["rows"]
        return replace(port, bridge=parent["name"], tag=fake["tag"] if port.tag is None else port.tag)
    raise NotFoundError(f"Open vSwitch has no bridge '{port.bridge}'", hint="'ovs-vsctl list-br' lists them")


def _insert(device: str, port: OvsPort, mac: str, domain: str, mtu: int | None) -> list[Operation]:
    ids = {
        "attached-mac": mac,
        "iface-id": port.interfaceid or interface_id(domain, mac),
        "vm-id": domain,
        "iface-status": "active",
    }
    if port.profileid:
        ids |= {"port-profile": port.profileid, "ifname": device}
    vlans: dict[str, object] = {"trunks": ["set", list(port.trunks)]}
    if port.tag is not None:
        vlans["tag"] = port.tag
    if port.vlan_mode:
        vlans["vlan_mode"] = port.vlan_mode
    interface: dict[str, object] = {"name": device, "type": "internal", "external_ids": _map(ids)}
    if mtu is not None:
        interface["mtu_request"] = mtu
    row = {
        "name": device,
        "interfaces": ["named-uuid", "interface"],
        "external_ids": _map({_OURS: "port"}),
        # 'ovs-ctl --delete-transient-ports start' removes it: the guest does not survive the host's end.
        "other_config": _map({"transient": "true"}),
        **vlans,
    }
    bridge = ["name", "==", port.bridge]
    return [
        {
            **_select("Bridge", ("name",), bridge),
            **{"op": "wait", "until": "==", "rows": [{"name": port.bridge}], "timeout": 0},
        },
        {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "interface"},
        {"op": "insert", "table": "Port", "row": row, "uuid-name": "port"},
        _mutate("Bridge", [bridge], ["ports", "insert", ["named-uuid", "port"]]),
        {"op": "comment", "comment": f"nicplug: add port {device} to {port.bridge}"},
    ]


def _removal(database: _Database, device: str) -> list[Operation]:
    """Return what removes a port of ours; nothing when there is none.

    :raises OperationError: somebody else has made it.
    """
    for port in database.select("Port", ("_uuid", "external_ids"), name=device):
        if [_OURS, "port"] not in port["external_ids"][1]:
            raise _OthersError(
                f"Open vSwitch has a port '{device}' that nicplug has not made",
                hint=f"'ovs-vsctl del-port {device}' removes it, if nobody needs it",
            )
        return [
            _mutate("Bridge", [["ports", "includes", port["_uuid"]]], ["ports", "delete", port["_uuid"]]),
            {"op": "comment", "comment": f"nicplug: delete port {device}"},
        ]
    return []


def _left(device: str, error: OperationError) -> OperationError:
    """Return an error that tells as well that a port was not taken away."""
    return OperationError(
        f"{error.what}; the port '{device}' may be left there",
        hint=f"once Open vSwitch runs, 'ovs-vsctl --if-exists del-port {device}' removes it",
    )


def _check(database: _Database, device: str) -> None:
    """Raise unless ovs-vswitchd has made the port's device."""
    rows = database.select("Interface", ("ofport", "error"), name=device)
    if not rows:
        raise OperationError(f"somebody has removed the port '{device}' from Open vSwitch")
    ofport, error = rows[0]["ofport"], rows[0]["error"]
    if not isinstance(ofport, int) or ofport < 1:
        why = error if isinstance(error, str) else "it does not say why; its log may"
        raise OperationError(f"ovs-vswitchd cannot make the port '{device}': {why}")


def _select(table: str, columns: Sequence[str], *where: Sequence[object]) -> Operation:
    return {"op": "select", "table": table, "where": list(where), "columns": list(columns)}


def _mutate(table: str, where: Sequence[object], mutation: Sequence[object]) -> Operation:
    return {"op": "mutate", "table": table, "where": list(where), "mutations": [mutation]}


def _map(values: Mapping[str, str]) -> list[object]:
    return ["map", [[key, value] for key, value in values.items()]]
