"""What ``--json`` prints is what docs/json.md says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nicplug_xml.backends import bridge, cable
from nicplug_xml.cli import changes, output
from nicplug_xml.cli.arguments import COMMANDS, command_parser
from nicplug_xml.cli.graph import as_json
from nicplug_xml.cli.main import main
from nicplug_xml.graph import graph
from nicplug_xml.model import Backend, Connection, InterfaceStatus, Scope
from nicplug_xml.watching import Change
from tests.json_document import check, commands, objects

TEST = ("-c", "test:///default")

PLUGGED = InterfaceStatus(
    "vm1", "vnet0", "52:54:00:00:00:01", "ua-lan", "vnet0", "virtio", "tap", Connection.ATTACHED,
    bridge.backend("br-blue").with_vlan([3]), "up", True,
)  # fmt: skip
UNPLUGGED = InterfaceStatus(
    "vm2", "52:54:00:00:00:02", "52:54:00:00:00:02", "", "", "", None, Connection.DEFERRED,
    Backend(None, ("<bandwidth/>",)), "down", None,
)  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert main(["--json", *arguments]) in (0, 1)
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_every_command_is_documented_and_takes_json() -> None:
    assert set(commands()) == set(COMMANDS)
    for name in COMMANDS:
        assert "--json" in command_parser(name).format_help()


def test_what_commands_print(capsys: pytest.CaptureFixture[str], tmp_path: Path, extended: str) -> None:
    file, bad = tmp_path / "vm1.xml", tmp_path / "bad.xml"
    file.write_text(extended)
    bad.write_text("<backend type='brige'/>")
    for arguments in (
        ("validate", str(bad)),
        ("rewrite", str(file)),
        ("restore", str(file)),
        (*TEST, "dumpxml", "test"),
        (*TEST, "list"),
        (*TEST, "graph"),
        ("completion", "fish"),
    ):
        command = next(word for word in arguments if word in COMMANDS)
        found = printed(capsys, *arguments)
        assert found
        check(found, commands()[command])


def test_what_editing_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "true")
    check(printed(capsys, *TEST, "edit", "test"), commands()["edit"])


def test_domains_that_are_defined(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "vm1.xml"
    file.write_text(
        "<domain type='test'><name>json</name><memory>1</memory><os><type>hvm</type></os></domain>"
    )
    check(printed(capsys, *TEST, "define", str(file)), commands()["define"])
    check(printed(capsys, *TEST, "create", str(file)), commands()["create"])


@pytest.mark.parametrize("status", [PLUGGED, UNPLUGGED])
def test_interfaces(status: InterfaceStatus) -> None:
    check(output.status_json(status), "interface")


@pytest.mark.parametrize(
    "change",
    [
        Change("connected", 1.5),
        Change("started", 1.5, "vm1", interfaces=(PLUGGED, UNPLUGGED)),
        Change("moved", 1.5, "vm1", Scope.LIVE, UNPLUGGED, PLUGGED, "other"),
        Change("removed", 1.5, "vm1", Scope.CONFIG, PLUGGED, None),
    ],
)
def test_changes(change: Change) -> None:
    found = changes.as_json(change)
    check(found, "change")
    assert f"`{found['event']}`" in (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def test_pictures() -> None:
    def end(domain: str, mac: str, to: str, its: str) -> InterfaceStatus:
        wire = cable.backend(to, its)
        return InterfaceStatus(domain, "x", mac, "", "", "", "tap", Connection.ATTACHED, wire, "up", True)

    one = end("vm1", "52:54:00:00:00:05", "vm2", "52:54:00:00:00:06")
    other = end("vm2", "52:54:00:00:00:06", "vm1", "52:54:00:00:00:05")
    found = as_json(graph({"vm1": [PLUGGED, one], "vm2": [UNPLUGGED, other]}, {"vm1"}))
    assert found["cables"]
    check(found, "graph")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"xml": 1}, "document"),
        ({"xml": "", "more": ""}, "document"),
        ({}, "document"),
        ([{"xml": ""}], "document"),
        ({"xml": ""}, "list of document"),
        (True, "integer"),
        ("sideways", '"up" or "down"'),
        (None, "string"),
    ],
)
def test_the_check_can_fail(value: object, kind: str) -> None:
    with pytest.raises(AssertionError):
        check(value, kind)


def test_types_of_all_fields_are_known() -> None:
    words = {word for fields in objects().values() for kind in fields.values() for word in kind.split(" or ")}
    names = {
        word.removeprefix("list of ").removeprefix("list of ").removeprefix("object of ") for word in words
    }
    simple = {"string", "integer", "number", "boolean", "null"}
    assert {name for name in names if not name.startswith('"')} <= simple | set(objects())
