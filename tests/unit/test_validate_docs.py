"""docs/validate.md is true where it is no session: the table, the list of codes, the hook and the jobs."""

from __future__ import annotations

import re
from pathlib import Path

from nicplug_xml.cli.arguments import command_parser
from tests import validators

ROOT = Path(__file__).parents[2]


def test_the_table_is_what_they_say() -> None:
    assert validators.written() == validators.DOCUMENT.read_text(), "run: python tests/validators.py --write"


def test_every_file_that_is_broken_is_called_so_by_nicplug() -> None:
    rows = validators.table().splitlines()[2:]
    assert len(rows) == len(validators.BROKEN)
    for row in rows:
        assert re.match(r"\| [^|]+ \| `\d+:\d+: ", row), row


def test_every_code_is_in_the_list() -> None:
    section = validators.DOCUMENT.read_text().partition("## What is checked")[2].partition("## ")[0]
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE))
    sources = [ROOT / "nicplug_xml" / name for name in ("schema.py", "checks.py", "_schema_explain.py")]
    text = "".join(source.read_text() for source in sources)
    used = set(re.findall(r"code=\"([a-z-]+)\"|problem\(\"([a-z-]+)\"|, allowed, \"([a-z]+)\"", text))
    assert {one for group in used for one in group if one} | {"schema"} == listed


def test_the_hook_runs_the_command() -> None:
    hook = (ROOT / ".pre-commit-hooks.yaml").read_text()
    fields = dict(re.findall(r"^[- ] (\w+): (.*)$", hook, re.MULTILINE))
    assert f"id: {fields['id']}\n" in validators.DOCUMENT.read_text()
    assert fields["require_serial"] == "true", "what is checked across files needs all of them at once"
    program, command, *arguments = fields["entry"].split()
    assert (program, command) == ("nicplug", "validate")
    assert command_parser(command).parse_args([*arguments, "a.xml", "b.xml"]).files == ["a.xml", "b.xml"]


def test_the_jobs_run_the_command() -> None:
    commands = re.findall(r"bin/nicplug validate (.*)$", validators.DOCUMENT.read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        arguments = command.partition(" >")[0].replace("'", "").split()
        assert command_parser("validate").parse_args(arguments).files == ["guests/**/*.xml"]
