"""Colours are for terminals, and for nobody who does not want them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

TEST = ("-c", "test:///default")
ESCAPE = re.compile(r"\033\[[\d;]*m")


def on_terminal(*arguments: str, **environment: str) -> str:
    """Run nicplug with a terminal for standard output and error, and return what that shows."""
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    ran = subprocess.Popen(
        [sys.executable, "-m", "nicplug_xml", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**clean, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:
        pass  # that is how Linux says that the other end is closed
    os.close(ours)
    ran.wait(30)
    return shown.decode().replace("\r\n", "\n")


def in_pipe(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "nicplug_xml", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("arguments", [("list",), ("list", "nope")])
def test_a_terminal_has_colours_and_says_the_same(arguments: tuple[str, ...]) -> None:
    shown, piped = on_terminal(*TEST, *arguments), in_pipe(*TEST, *arguments)
    assert ESCAPE.search(shown)
    assert not ESCAPE.search(piped)
    assert [line.rstrip() for line in ESCAPE.sub("", shown).splitlines()] == piped.splitlines()


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_none_gets_none(environment: dict[str, str]) -> None:
    for arguments in (("list",), ("list", "nope")):
        assert not ESCAPE.search(on_terminal(*TEST, *arguments, **environment))


def test_json_has_none() -> None:
    assert not ESCAPE.search(on_terminal(*TEST, "--json", "list"))


def test_columns_stay_aligned() -> None:
    head, row = (ESCAPE.sub("", line) for line in on_terminal(*TEST, "list").splitlines())
    assert head.index("LINK") == row.index(" up ") + 1
