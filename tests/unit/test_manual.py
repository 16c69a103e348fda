"""The manual pages and docs/commands.md say what ``--help`` and docs/format.md say, and are well-formed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nicplug_xml.cli.arguments import COMMANDS, command_parser
from nicplug_xml.cli.main import main

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "man"
PAGES = ("nicplug.1", "nicplug-xml.7")


def plain(text: str) -> str:
    """Return what is to be read in a page: words, a space apart."""
    for escape, character in ((r"\(aq", "'"), (r"\(ga", "`"), (r"\&", ""), (r"\-", "-"), ("\\e", "\\")):
        text = text.replace(escape, character)
    return " ".join(re.sub(r"\\f[BIR]", "", text).split())


def test_the_pages_are_up_to_date() -> None:
    made = "import make; import json; print(json.dumps(make.pages()))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(MANUAL)!r}); {made}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    import json

    pages = json.loads(ran.stdout)
    assert set(pages) == {*PAGES, "../commands.md"}
    for name, text in pages.items():
        assert (MANUAL / name).read_text(encoding="utf-8") == text, f"docs/man/{name} is old: 'make man'"


@pytest.mark.parametrize("command", COMMANDS)
def test_what_help_says_is_in_the_manual(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    page = (MANUAL / "nicplug.1").read_text(encoding="utf-8")
    ours = plain(re.split(rf"^\.SS {re.escape(command)}$", page, flags=re.MULTILINE)[1].split("\n.S")[0])
    options = re.findall(r"^  (-\S+|[A-Z/]{3,})", said.partition("\n\n")[2], re.MULTILINE)
    assert "-h," in options
    for option in {option.strip(",") for option in options} - {"-c"}:
        assert option in ours, f"{command}: {option}"
    assert plain(said.split("\n\n")[1]) in ours
    examples = plain(said.partition("\nexamples:\n")[2])
    assert examples
    assert examples in ours


def test_what_help_says_of_all_commands_is_in_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    said = capsys.readouterr().out
    page = plain((MANUAL / "nicplug.1").read_text(encoding="utf-8"))
    for title in ("examples", "options"):
        for line in re.search(rf"^{title}:\n((?:  .*\n)+)", said, re.MULTILINE)[1].splitlines():  # type: ignore[index]
            for part in re.split(r" {2,}", line.strip()):
                assert plain(part) in page


def test_every_option_is_in_the_reference_of_commands() -> None:
    document = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", document, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(COMMANDS)
    for name, section in sections.items():
        for action in command_parser(name)._actions:
            for option in set(action.option_strings) - {"-h", "--help", "-c", "--connect", "--json"}:
                assert re.search(rf"^\| .*`{option}[ `]", section, re.MULTILINE), f"{name}: {option}"


def test_what_format_md_says_is_in_the_manual() -> None:
    document = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    page = plain((MANUAL / "nicplug-xml.7").read_text(encoding="utf-8")).lower()
    in_code = False
    for line in document.splitlines()[1:]:
        if line.startswith("```"):
            in_code = not in_code
        elif in_code:
            assert plain(line).lower() in page, line
        else:
            prose = re.sub(r"\]\([^)]*\)|[`*\[#]|^\d\. |^- ", "", line)
            for cell in prose.split("|"):
                if not set(cell) <= set("- ") and not re.search(r"://", line):
                    assert " ".join(cell.split()).lower() in page, line


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_well_formed(name: str) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    ran = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", str(MANUAL / name)], capture_output=True, text=True, check=False
    )
    assert [line for line in ran.stdout.splitlines() if "missing date" not in line] == []
