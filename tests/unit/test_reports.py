"""The formats of `nicplug validate`, and what the command makes of files, patterns and standard input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nicplug_xml.cli.main import main
from nicplug_xml.cli.reports import FORMATS, Report, text
from nicplug_xml.model import Problem

WRONG = "<backend type='bridge'>\n\t<source brige='br0'/>\n</backend>\n"
RIGHT = WRONG.replace("brige", "bridge")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "wrong.xml").write_text(WRONG)
    (tmp_path / "sub" / "right.xml").write_text(RIGHT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def validate(*arguments: str) -> int:
    return main(["validate", *arguments])


def test_text(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate("wrong.xml", "sub/right.xml") == 1
    assert capsys.readouterr().out == (
        "wrong.xml:2:10: <source> needs bridge= for type='bridge'; brige=: did you mean 'bridge'? [schema]\n"
        "    <source brige='br0'/>\n"
        "            ^~~~~~~~~~~\n"
        "    at /backend/source/@brige; allowed there: bridge\n"
    )


def test_exit_codes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate("sub/right.xml") == 0
    assert capsys.readouterr() == ("", "")
    assert validate("wrong.xml") == 1
    assert validate("wrong.xml", "nope.xml") == 2
    captured = capsys.readouterr()
    assert captured.err == "nicplug: error: nope.xml: No such file or directory\n"
    assert "wrong.xml:2:10" in captured.out, "what can be read is validated all the same"
    assert validate("sub") == 2
    assert (
        capsys.readouterr().err
        == "nicplug: error: sub: Is a directory; name its files, as in 'sub/**/*.xml'\n"
    )


def test_patterns(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate("--format", "junit", "**/*.xml", "wrong.xml") == 1
    cases = ElementTree.fromstring(capsys.readouterr().out.split("\n", 1)[1])
    assert [case.get("name") for case in cases] == ["sub/right.xml", "wrong.xml"], "each once"
    assert validate("*.xmk") == 2
    assert capsys.readouterr().err == "nicplug: error: *.xmk: no file matches this pattern\n"
    (files / "[1].xml").write_text(RIGHT)
    assert validate("[1].xml") == 0, "a file of that very name comes first"


def test_standard_input(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(WRONG.encode())))
    assert validate("-", "sub/right.xml") == 1
    assert capsys.readouterr().out.startswith("-:2:10: ")


def test_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate("wrong.xml", "--format", "json") == 1
    by_format = capsys.readouterr().out
    assert json.loads(by_format) == [
        {
            "file": "wrong.xml",
            "line": 2,
            "column": 10,
            "path": "/backend/source/@brige",
            "code": "schema",
            "message": "<source> needs bridge= for type='bridge'",
            "hint": "brige=: did you mean 'bridge'?",
            "allowed": ["bridge"],
        }
    ]
    assert validate("wrong.xml", "--json") == 1
    assert capsys.readouterr().out == by_format
    assert validate("sub/right.xml", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_github(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "a,b:c.xml").write_text(WRONG)
    assert validate("a,b:c.xml", "nope.xml", "--format", "github") == 2
    assert capsys.readouterr().out.splitlines() == [
        "::error file=a%2Cb%3Ac.xml,line=2,col=10,title=nicplug (schema)::<source> needs bridge= for"
        " type='bridge'; brige=: did you mean 'bridge'?%0Aat /backend/source/@brige; allowed there: bridge",
        "::error file=nope.xml,title=nicplug (unreadable)::No such file or directory",
    ]


def test_junit(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate("wrong.xml", "sub/right.xml", "nope.xml", "--format", "junit") == 2
    suite = ElementTree.fromstring(capsys.readouterr().out.encode())
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    kinds = {case.get("name"): [child.tag for child in case] for case in suite}
    assert kinds == {"wrong.xml": ["failure"], "sub/right.xml": [], "nope.xml": ["error"]}
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "schema"
    assert "            ^~~~~~~~~~~" in (failure.text or "").splitlines()


def test_without_schemas_nothing_is_said_of_the_files(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NICPLUG_LIBVIRT_SCHEMAS", str(files))
    assert validate("wrong.xml", "nope.xml", "--format", "junit") == 2
    captured = capsys.readouterr()
    assert "wrong.xml: NICPLUG_LIBVIRT_SCHEMAS is" in captured.err
    cases = ElementTree.fromstring(captured.out.encode())
    why = {case.get("name"): error.get("message", "") for case in cases for error in case.iter("error")}
    assert "which holds no domain.rng" in why["wrong.xml"]
    assert why["nope.xml"] == "No such file or directory"


def test_a_problem_across_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("vm1", "vm2"):
        nic = "<interface connection='deferred'><mac address='52:54:00:00:00:01'/></interface>"
        (files / f"{name}.xml").write_text(
            f"<domain type='kvm'><name>{name}</name><memory>1</memory><os><type>hvm</type></os>"
            f"<devices>{nic}</devices></domain>"
        )
        assert validate(f"{name}.xml") == 0
    assert validate("vm*.xml") == 1
    assert "is also that of vm1 (vm1.xml:1)" in capsys.readouterr().out


def test_plane(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "user.xml").write_text("<backend type='user'/>")
    assert validate("user.xml", "--plane", "hub") == 0
    assert validate("user.xml", "--plane", "tap") == 1
    assert "[plane-kind]" in capsys.readouterr().out
    assert validate("user.xml", "--plane", "warp") == 2
    assert capsys.readouterr().err.startswith("nicplug: error: there is no plane 'warp'")


def test_long_lines_are_cut_around_the_place() -> None:
    line = "<a/>" * 100 + "<b x='1'/>" + "<a/>" * 100
    problem = Problem(1, 404, "/b/@x", "no")
    _, source, mark, _ = text([Report("f", line.encode(), (problem,))]).splitlines()
    assert len(source) <= 104
    assert source[mark.index("^") :].startswith("x='1'/>")
    assert mark.strip() == "^~~~~"


def test_no_command_for_a_terminal_is_shown() -> None:
    shown = text([Report("f", b"\x1b[2J<a>", (Problem(1, 5, "/", "no"),))])
    assert shown.splitlines()[1:3] == ["    \ufffd[2J<a>", "        ^~"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("data", [b"", b"\0\0", "ü<".encode("latin-1"), "\ufeff<é/>".encode("utf-16")])
@pytest.mark.parametrize(("line", "column"), [(0, 0), (1, 0), (1, 1), (1, 99), (99, 1)])
def test_no_place_is_too_odd(name: str, data: bytes, line: int, column: int) -> None:
    assert "odd" in FORMATS[name]([Report("\x01", data, (Problem(line, column, "/", "odd \x00"),))])
