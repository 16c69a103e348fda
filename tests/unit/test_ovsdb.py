"""Open vSwitch's database server, when it does not do what it should: faked at its socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nicplug_xml.endpoints import OvsPort
from nicplug_xml.errors import OperationError
from nicplug_xml.host import ovsdb

Serve = Callable[[Callable[[dict[str, object]], object]], None]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Answer each request with what a function makes of it; None closes the connection."""
    monkeypatch.setenv("OVS_RUNDIR", str(tmp_path))
    monkeypatch.setattr(ovsdb, "_ANSWER", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "db.sock"))
        listener.listen()

        def start(answer: Callable[[dict[str, object]], object]) -> None:
            def run() -> None:
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        while data := connection.recv(65536):
                            reply = answer(json.loads(data))
                            if reply is None:
                                return
                            connection.sendall(json.dumps(reply).encode())

            threading.Thread(target=run, daemon=True).start()

        yield start


def test_it_closes_the_connection(serve: Serve) -> None:
    serve(lambda _request: None)
    with pytest.raises(OperationError, match="does not answer: it has closed the connection"):
        ovsdb.delete_port("vnet0.np0")


def test_it_does_not_answer(serve: Serve) -> None:
    # What is not the answer does not keep anybody waiting longer.
    serve(lambda _request: {"method": "echo", "params": [], "id": "echo"})
    with pytest.raises(OperationError, match="does not answer: Connection timed out"):
        ovsdb.delete_port("vnet0.np0")


def test_it_does_not_know_the_method(serve: Serve) -> None:
    serve(lambda request: {"id": request["id"], "result": None, "error": "unknown method"})
    with pytest.raises(OperationError, match="refuses: unknown method"):
        ovsdb.delete_port("vnet0.np0")


def test_it_refuses_an_operation(serve: Serve) -> None:
    refused = {"error": "resources exhausted", "details": "no space left"}
    serve(lambda request: {"id": request["id"], "result": [{}, None, refused], "error": None})
    port = OvsPort("ovs0", "9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f")
    with pytest.raises(OperationError, match="refuses: resources exhausted: no space left"):
        ovsdb.add_port("vnet0.np0", port, mac="52:54:00:00:00:01", domain="vm1")


def test_what_it_is_asked(serve: Serve) -> None:
    asked: list[object] = []

    def answer(request: dict[str, object]) -> object:
        asked.append(request["params"])
        return {"id": request["id"], "result": [{"rows": []}], "error": None}

    serve(answer)
    ovsdb.delete_port("vnet0.np0")
    (parameters,) = asked
    assert parameters == [
        "Open_vSwitch",
        {
            "op": "select",
            "table": "Port",
            "where": [["name", "==", "vnet0.np0"]],
            "columns": ["_uuid", "external_ids"],
        },
    ]


@pytest.mark.parametrize(
    ("environment", "directory", "path"),
    [
        (None, "", "/var/run/openvswitch/db.sock"),
        ("", "", "/var/run/openvswitch/db.sock"),
        ("/run/other", "", "/run/other/db.sock"),
        ("/run/other", "/run/told", "/run/told/db.sock"),
    ],
)
def test_where_it_is(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, directory: str, path: str
) -> None:
    monkeypatch.delenv("OVS_RUNDIR", raising=False)
    if environment is not None:
        monkeypatch.setenv("OVS_RUNDIR", environment)
    assert ovsdb.socket_path(directory) == path
