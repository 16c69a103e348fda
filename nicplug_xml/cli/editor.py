"""``nicplug edit``: the user's editor, questions on the terminal, and what is edited."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nicplug_xml import operations
from nicplug_xml.cli.output import sentence
from nicplug_xml.cli.reports import Report, text
from nicplug_xml.editing import ABANDON, AGAIN, FORCE, Subject, buffers, dedented, editor, same_interface
from nicplug_xml.errors import NicplugError, UnsupportedError
from nicplug_xml.host.errors import translated
from nicplug_xml.rewrite import to_stock
from nicplug_xml.schema import validate

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.model import Problem

_SECURE, _INACTIVE, _LIVE = 1, 2, 1  # VIR_DOMAIN_XML_SECURE, VIR_DOMAIN_XML_INACTIVE, VIR_DOMAIN_AFFECT_LIVE

_EXPLAINED = {
    AGAIN: "go back to the editor",
    FORCE: "carry it out all the same; libvirt drops what it does not know",
    ABANDON: "change nothing; the text is kept",
}


class Terminal:
    """The desk of a user at a terminal.

    :param name: of the domain, for the name of the file.
    """

    def __init__(self, name: str) -> None:
        self.path = _new_file(name)

    def edit(self) -> None:
        """Run the editor on the file."""
        command = editor(os.environ)
        try:
            code = _wait(subprocess.Popen([*command, str(self.path)]))
        except OSError as error:
            raise NicplugError(
                f"the editor '{command[0]}' cannot be started: {error.strerror}", hint="set VISUAL or EDITOR"
            ) from error
        if code:
            raise NicplugError(f"the editor '{command[0]}' failed with exit code {code}; nothing was changed")

    def show(self, problems: Sequence[Problem]) -> None:
        """Show problems with the lines of the source."""
        report = Report(str(self.path), self.path.read_bytes(), tuple(problems))
        print(text([report]), end="", file=sys.stderr)

    def tell(self, text: str) -> None:
        """Print a line."""
        print(f"nicplug: {text}" if "\n" not in text else text, file=sys.stderr)

    def ask(self, question: str, answers: Sequence[str]) -> str:
        """Ask until there is an answer, of which one letter will do."""
        choices = ", ".join(f"[{answer[0]}]{answer[1:]}" for answer in answers)
        print(f"nicplug: {question}", file=sys.stderr)
        while True:
            print(f"{choices}, [?]: ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                print(file=sys.stderr)
                return ABANDON
            said = line.strip().lower()
            answer = next((one for one in answers if said and one.startswith(said)), None)
            if answer:
                return answer
            for one in answers:
                print(f"  {one}: {_EXPLAINED[one]}", file=sys.stderr)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the editor, to whom alone Ctrl-C is meant to go."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def definition(dom: libvirt.virDomain, conn: libvirt.virConnect) -> Subject:
    """Return a domain's persistent definition, to be edited.

    :raises UnsupportedError: it has none.
    """
    with translated():
        if not dom.isPersistent():
            raise UnsupportedError(
                f"domain '{dom.name()}' is transient: there is no definition to edit",
                hint="'nicplug edit DOMAIN --live INTERFACE' changes a NIC of it",
            )

    def read() -> str:
        return operations.xml_desc(dom, _INACTIVE | _SECURE)

    def apply(xml: str, forced: bool) -> str:
        made = operations.define(conn, xml, check=not forced)
        return f"Domain '{made.name()}' was edited"

    return Subject(f"domain '{dom.name()}'", read, validate, apply, _can_be_rewritten)


def live_interface(dom: libvirt.virDomain, name: str) -> Subject:
    """Return one interface of a running domain, to be edited.

    :raises UnsupportedError: the domain does not run.
    """
    with translated():
        if not dom.isActive():
            raise UnsupportedError(
                f"domain '{dom.name()}' is not running",
                hint="start it, or edit its definition: 'nicplug edit DOMAIN' without --live",
            )
    status, _ = operations.interface_xml(dom, name)

    def read() -> str:
        # Several may have one MAC.
        return dedented(operations.interface_xml(dom, status.alias or status.interface)[1])

    def check(xml: str) -> Sequence[Problem]:
        problems = validate(xml)
        if not problems:
            same_interface(xml, status.mac)
        return problems

    def apply(xml: str, _forced: bool) -> str:
        return sentence(operations.update_device(dom, xml, _LIVE))

    return Subject(f"{status.interface} of domain '{dom.name()}'", read, check, apply, lambda _xml: False)


def _can_be_rewritten(xml: str) -> bool:
    """Whether what is wrong with a text is for libvirt to drop, and not for nicplug to refuse."""
    try:
        to_stock(xml)
    except NicplugError:
        return False
    return True


def _new_file(name: str) -> Path:
    """Make a file that nobody else can read: definitions hold passwords."""
    safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in name).lstrip(".")
    new = partial(tempfile.mkstemp, prefix=f"{safe[:60]}-", suffix=".xml")
    try:
        directory = buffers(os.environ, Path.home())
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, path = new(dir=directory)
    except (OSError, RuntimeError):  # it cannot be made, or is another user's: sudo's, say
        descriptor, path = new()
    os.close(descriptor)
    return Path(path)
