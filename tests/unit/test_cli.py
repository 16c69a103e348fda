"""The command, as far as it needs no guest: usage, files, libvirt's test driver."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from nicplug_xml.cli.arguments import COMMANDS as ARGUMENTS
from nicplug_xml.cli.arguments import command_parser, help_text, parse
from nicplug_xml.cli.commands import COMMANDS, _backend
from nicplug_xml.cli.main import main
from nicplug_xml.schema import validate

TEST = ("-c", "test:///default")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as exit:
        code = int(exit.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def one_line(err: str) -> bool:
    return err.count("\n") == 1 and err.startswith("nicplug: error: ") and "Traceback" not in err


def test_every_command_is_parsed_carried_out_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(ARGUMENTS) == list(COMMANDS)
    for name in COMMANDS:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0
        assert "examples:" in out
        assert f"nicplug {name}" in out
        assert name in help_text()
        assert command_parser(name).prog == f"nicplug {name}"


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--json", "--help"), ("-c", "x", "-h")])
def test_help(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, out, _ = run(capsys, *arguments)
    assert (code, out.strip()) == (0, help_text())


@pytest.mark.parametrize("option", ["--version", "-v"])
def test_version(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert run(capsys, option)[1].startswith("nicplug 0.")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "no command was given"),
        (("frobnicate",), "no command 'frobnicate'"),
        (("list", "--frobnicate"), "--frobnicate"),
        (("attach-backend", "vm1"), "INTERFACE"),
        (("set-link", "vm1", "x"), "arguments are required: {up,down}"),
        (("attach-backend", "vm1", "x", "--bridge", "b", "--network", "n"), "not allowed with"),
        (("set-link", "vm1", "x", "sideways"), "sideways"),
        *(
            (("attach-backend", "vm1", "x", *order), f"FILE is not allowed with {option[0]}")
            for option in (("--bridge", "b"), ("--ovs", ""), ("--user",), ("--fd", "0"), ("--netdev", "d"))
            for order in (("b.xml", *option), (*option, "b.xml"), ("--live", "b.xml", *option))
        ),
        ((*TEST, "attach-backend", "test", "x", "--vlan", "3"), "--vlan needs a backend"),
        ((*TEST, "attach-backend", "test", "x", "--bridge", ""), "--bridge names nothing"),
        ((*TEST, "attach-backend", "test", "x", "--mode", "vepa"), "--mode says nothing"),
        (
            (*TEST, "attach-backend", "test", "x", "--interfaceid", "1"),
            "--interfaceid takes a UUID, and --ovs",
        ),
        (
            (*TEST, "attach-backend", "test", "x", "--ovs", "b", "--interfaceid", ""),
            "--interfaceid takes a UUID, and --ovs",
        ),
        ((*TEST, "attach-backend", "test", "x", "--cable", "vm2"), "--cable takes both ends of the way"),
        ((*TEST, "attach-backend", "test", "x", "--cable", "vm2/"), "--cable takes both ends of the way"),
        ((*TEST, "detach-backend", "test", "x", "--live", "--current"), "--current excludes"),
        *(
            ((*TEST, command, os.devnull, "--plane", "warp"), "there is no plane 'warp'; use auto or tap")
            for command in ("validate", "rewrite", "define", "create")
        ),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert why in err


@pytest.mark.parametrize(
    ("arguments", "option", "positional", "given"),
    [
        (("list", "vm1", "--inactive", "vm2"), "inactive", "domains", ["vm1", "vm2"]),
        (("graph", "vm1", "--inactive", "vm2"), "inactive", "domains", ["vm1", "vm2"]),
        (("watch", "vm1", "--no-reconnect", "vm2"), "no_reconnect", "domains", ["vm1", "vm2"]),
        (("watch", "--json", "vm1", "vm2"), "json", "domains", ["vm1", "vm2"]),
        (("validate", "a.xml", "--plane", "tap", "b.xml"), "plane", "files", ["a.xml", "b.xml"]),
        (("attach-backend", "vm1", "--live", "x", "--config", "b.xml"), "config", "file", "b.xml"),
        (("attach-backend", "vm1", "x", "--vlan", "7", "-"), "vlan", "file", "-"),
        (("attach-backend", "vm1", "x", "--live"), "live", "file", None),
        (("set-link", "vm1", "x", "--live", "down"), "live", "state", "down"),
        (("--json", "list", "a", "--", "--inactive", "-x"), "json", "domains", ["a", "--inactive", "-x"]),
        (("--json", "list", "--", "-x"), "json", "domains", ["-x"]),
        (("--json", "dumpxml", "--", "-x"), "json", "domain", "-x"),
        (("--json", "validate", "--", "-f.xml"), "json", "files", ["-f.xml"]),
        (("-c", "list", "list", "a"), "connect", "domains", ["a"]),
        (("--conn", "x", "list", "a"), "connect", "domains", ["a"]),
    ],
)
def test_options_stand_anywhere(
    arguments: tuple[str, ...], option: str, positional: str, given: list[str] | str | None
) -> None:
    options = parse(arguments)
    assert getattr(options, option)
    assert getattr(options, positional) == given


def test_rewrite_and_restore(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, extended: str
) -> None:
    data = extended.replace("utf-8", "latin-1").encode("latin-1")
    (tmp_path / "a.xml").write_bytes(data)
    assert main(["rewrite", str(tmp_path / "a.xml")]) == 0
    stock = capfdbinary.readouterr().out
    assert b"nicplug-parking" in stock
    (tmp_path / "b.xml").write_bytes(stock)
    assert main(["restore", str(tmp_path / "b.xml")]) == 0
    assert b"caf\xe9" in capfdbinary.readouterr().out
    (tmp_path / "c.xml").write_bytes(b"<domain>\r\n<name  a = '1'>x</name></domain>")
    assert main(["rewrite", str(tmp_path / "c.xml")]) == 0
    assert capfdbinary.readouterr().out == (tmp_path / "c.xml").read_bytes()


@pytest.mark.parametrize(
    "command",
    ["rewrite", "restore", "define", "create", "update-device test", "attach-backend test aa:bb:cc:dd:ee:ff"],
)
def test_files_that_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str) -> None:
    bad, malformed = tmp_path / "bad.xml", tmp_path / "malformed.xml"
    bad.write_bytes(b"<domain>\xff")
    malformed.write_bytes(b"<domain>")
    for name in (str(tmp_path / "none.xml"), str(tmp_path), str(bad), str(malformed), ""):
        code, out, err = run(capsys, *TEST, *command.split(), name)
        assert (code, out) == (1, "")
        assert one_line(err)
        assert err.startswith(f"nicplug: error: {name or repr(name)}: ")


def test_list_on_another_driver(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *TEST, "list")
    assert code == 0
    assert out.split("\n")[0].split() == [
        "DOMAIN",
        "INTERFACE",
        "MAC",
        "PLANE",
        "CONNECTION",
        "BACKEND",
        "LINK",
        "CARRIER",
    ]
    (status,) = json.loads(run(capsys, "--json", *TEST, "list", "test")[1])
    assert (status["connection"], status["backend"]["source"]["network"]) == ("attached", "default")


def test_the_connection_is_virshs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "nonsense://")
    assert "no connection to libvirt" in run(capsys, "list")[2]
    monkeypatch.setenv("VIRSH_DEFAULT_CONNECT_URI", TEST[1])
    code, out, _ = run(capsys, "list", "test")
    assert (code, "network default" in out) == (0, True)
    assert run(capsys, "__complete", "dumpxml", "")[1] == "test\trunning\n"
    assert "no connection to nonsense2://" in run(capsys, "-c", "nonsense2://", "list")[2]


@pytest.mark.parametrize("command", ["list", "graph"])
def test_what_has_no_definition_is_not_shown_as_one(capsys: pytest.CaptureFixture[str], command: str) -> None:
    import libvirt

    conn = libvirt.open(TEST[1])
    transient = conn.createXML(
        "<domain type='test'><name>passing</name><memory>1024</memory><os><type>hvm</type></os>"
        "<devices><interface type='user'/></devices></domain>"
    )
    try:
        assert "passing" in run(capsys, *TEST, command)[1]
        code, out, err = run(capsys, *TEST, command, "--inactive")
        assert (code, "passing" in out, err) == (0, False, "")
        code, out, err = run(capsys, *TEST, command, "passing", "--inactive")
        assert (code, out) == (1, "")
        assert "has no persistent definition; leave " in err
    finally:
        transient.destroy()


def test_passwords_are_shown_when_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    host = tmp_path / "host.xml"
    host.write_text(
        "<node><domain type='test'><name>vm1</name><memory>1024</memory><os><type>hvm</type></os>"
        "<devices><graphics type='vnc' passwd='hush'/></devices></domain></node>"
    )
    dumpxml = ("-c", f"test://{host}", "dumpxml", "vm1")
    for arguments in (dumpxml, (*dumpxml, "--inactive")):
        assert "hush" not in run(capsys, *arguments)[1]
        assert "passwd='hush'" in run(capsys, *arguments, "--security-info")[1]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((*TEST, "list", "nope"), "no domain 'nope'"),
        ((*TEST, "dumpxml", "nope"), "no domain 'nope'"),
        ((*TEST, "dumpxml", "99999999999"), "no domain '99999999999'"),
        ((*TEST, "dumpxml", "9" * 5000), "no domain '999"),
        ((*TEST, "list", os.fsdecode(b"caf\xe9")), r"'caf\udce9' is not UTF-8"),
        ((*TEST, "detach-backend", "test", ""), "no interface was named"),
        ((*TEST, "attach-backend", "test", "x", "--fd", "99999999999"), "no open descriptor 99999999999"),
        ((*TEST, "attach-backend", "test", "x", "--fd", "-1"), "no open descriptor -1"),
        ((*TEST, "attach-backend", "test", "vnet9"), "has no interface 'vnet9'"),
        ((*TEST, "attach-backend", "test", "aa:bb:cc:dd:ee:ff", "--network", "default"), "not provisioned"),
        (("-c", "qemu+unix:///system?socket=/nowhere", "list"), "is the libvirt daemon running"),
        (("-c", "nonsense://", "list"), "no connection to nonsense://"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert one_line(err)
    assert why in err


ATTACH = (*TEST, "attach-backend", "test", "aa:bb:cc:dd:ee:ff")


@pytest.mark.parametrize(
    "options",
    [
        ("--netdev", "a b"),
        ("--bridge", "a'b"),
        ("--direct", "ä"),
        ("--cable", "vm2/zzz zz"),
        ("--bridge", "b", "--vlan", "5000"),
        ("--network", "n", "--vlan", "-1"),
        ("--ovs", "b", "--interfaceid", "1"),
    ],
)
def test_options_are_held_against_the_schema(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """As a FILE is: what they leave in a definition is to be valid there."""
    code, out, err = run(capsys, *ATTACH, *options)
    assert (code, out) == (1, "")
    assert one_line(err)
    assert "the backend is not valid" in err


@pytest.mark.parametrize(
    "options",
    [
        *(("--bridge", "br-0"), ("--network", "A_1"), ("--ovs", "-"), ("--direct", "0"), ("--netdev", "_")),
        *(("--user",), ("--cable", "vm-2/ua-x"), ("--cable", "vm.2/52:54:00:00:00:01")),
        *(("--bridge", "br.5"), ("--ovs", "b", "--vlan", "3", "--vlan", "4")),
    ],
)
def test_the_schema_allows_what_options_say(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    given = _backend(parse([*ATTACH, *options]))
    assert given is not None
    assert validate(given if isinstance(given, str) else given.to_xml()) == []
    assert "not provisioned" in run(capsys, *ATTACH, *options)[2]


def test_output_that_cannot_be_written_is_told() -> None:
    import subprocess
    import sys

    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    for arguments in (["--help"], [*TEST, "list"]):
        with open("/dev/full", "w") as full:
            ran = subprocess.run(
                [sys.executable, "-m", "nicplug_xml", *arguments],
                stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False,
            )  # fmt: skip
        assert ran.returncode == 1
        assert one_line(ran.stderr)


def test_a_file_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *TEST, "graph", "--format", "svg", "-o", "/dev/full")
    assert (code, out) == (1, "")
    assert err == "nicplug: error: /dev/full: No space left on device\n"


def test_help_on_a_terminal_that_has_no_size() -> None:
    """As one that a program has made has none, until it is told one."""
    import subprocess
    import sys

    ours, theirs = os.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    with open(ours, "rb", buffering=0) as told:
        command = [sys.executable, "-m", "nicplug_xml", "detach-backend", "--help"]
        subprocess.run(command, stdout=theirs, env=environment, check=True)
        os.close(theirs)
        assert b"[--live] [--config] [--persistent]" in told.read(4096)


@pytest.mark.parametrize("locales", ["utf-8:strict", "latin-1:strict", "ascii:strict"])
def test_output_is_utf8_whatever_the_locale(tmp_path: Path, locales: str) -> None:
    import subprocess
    import sys

    def printed(*arguments: str | Path) -> bytes:
        command = [sys.executable, "-m", "nicplug_xml", *arguments]
        environment = {**os.environ, "PYTHONIOENCODING": locales}
        return subprocess.run(command, capture_output=True, env=environment, check=False).stdout

    broken = tmp_path / os.fsdecode(b"caf\xe9.xml")  # a name that is not UTF-8
    broken.write_text("<domain type='kvm'><nmae>v\u20ac</nmae></domain>", "utf-8")
    assert b"/caf\xe9.xml:" in printed("validate", broken)
    assert "v\u20ac".encode() in printed("validate", broken)
    assert b"/caf\xe9.xml,line=1" in printed("validate", broken, "--format", "github")
    assert "v\u20ac".encode() in printed("validate", broken, "--format", "junit")

    machine = tmp_path / "node.xml"
    machine.write_text(
        "<node><domain type='test'><name>v\u20ac</name><memory>1</memory>"
        "<os><type>hvm</type></os></domain></node>",
        "utf-8",
    )
    assert "<name>v\u20ac</name>".encode() in printed("-c", f"test://{machine}", "dumpxml", "v\u20ac")


@pytest.mark.parametrize(
    ("module", "arguments", "what_to_do"),
    [
        ("libvirt", ["list"], "Debian: python3-libvirt"),
        ("lxml", ["validate", "interface.xml"], "install nicplug again"),
    ],
)
def test_a_module_that_is_missing_is_told(
    tmp_path: Path, module: str, arguments: list[str], what_to_do: str
) -> None:
    import subprocess
    import sys

    (tmp_path / "interface.xml").write_text("<interface connection='deferred'/>")
    code = (
        f"import sys; sys.modules['{module}'] = None; from nicplug_xml.cli.main import main; "
        f"sys.exit(main({arguments}))"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert one_line(ran.stderr)
    assert f"the Python module {module} cannot be loaded" in ran.stderr
    assert what_to_do in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_libvirt_that_does_not_answer_can_be_left(tmp_path: Path, number: int) -> None:
    import socket
    import subprocess
    import sys

    with socket.socket(socket.AF_UNIX) as libvirt:
        libvirt.bind(str(tmp_path / "socket"))
        libvirt.listen()
        code = "import sys; from nicplug_xml.cli import main; main._PATIENCE = 1; sys.exit(main.main())"
        uri = f"qemu+unix:///system?socket={tmp_path}/socket"
        with subprocess.Popen(
            [sys.executable, "-c", code, "-c", uri, "list"], stderr=subprocess.PIPE, text=True
        ) as process:
            asked, _ = libvirt.accept()
            with asked:
                assert asked.recv(1)
                process.send_signal(number)
                _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert one_line(said)
    assert "interrupted while libvirt does not answer" in said
