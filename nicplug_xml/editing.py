"""Edit XML with the user's editor, as ``virsh edit`` does, so that no text of theirs is ever lost.

`edit` is the whole course of it; what it needs of the world is a `Desk`. The text that is edited is a file
all the time, and it stays unless what it says has been done, or nothing of it was changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from nicplug_xml.errors import NicplugError, NotFoundError, SchemaError
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import Problem

#: What can be answered when the text cannot be taken as it is.
AGAIN, FORCE, ABANDON = "edit", "force", "abandon"


class Subject(Frozen):
    """What is edited.

    :param name: what to call it: ``domain 'vm1'``.
    :param read: returns its XML as it is now.
    :param check: returns what is wrong with a text.
    :param apply: carries out a text, also one that `check` has objections to when it is forced, and returns
        what is so then, in words.
    :param can_force: returns whether a text can be carried out though it is not valid.
    """

    name: str
    read: Callable[[], str]
    check: Callable[[str], Sequence[Problem]]
    apply: Callable[[str, bool], str]
    can_force: Callable[[str], bool]


class Desk(Protocol):
    """The user, the editor, and the file that is edited."""

    @property
    def path(self) -> Path:
        """The file."""

    def edit(self) -> None:
        """Have the user edit the file; return when they are done.

        :raises NicplugError: the editor cannot be started, or fails.
        """

    def show(self, problems: Sequence[Problem]) -> None:
        """Show what is wrong with the file."""

    def tell(self, text: str) -> None:
        """Tell the user something."""

    def ask(self, question: str, answers: Sequence[str]) -> str:
        """Return the one of the answers that the user gives; `ABANDON` where there is nobody to ask."""


class AbandonedError(NicplugError):
    """The user gave up: nothing was changed."""


def edit(subject: Subject, desk: Desk) -> str:
    """Have the user edit something, and carry out what they make of it.

    :returns: what is so now, in words.
    :raises AbandonedError: the user gave up; what they wrote is kept, and nothing was changed.
    :raises NicplugError: the editor failed, or what is edited cannot be read; likewise.
    :raises OSError: what is edited cannot be written to the file.
    """
    try:
        base = subject.read()
        desk.path.write_bytes(_ended(base).encode("utf-8", "surrogatepass"))
    except BaseException as error:
        desk.path.unlink(missing_ok=True)  # the user has written nothing yet
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(desk.path)) from error
        raise
    try:
        told = _rounds(subject, desk, base)
    except BaseException as error:
        if _is_unchanged(desk, base):
            desk.path.unlink(missing_ok=True)
        elif desk.path.exists():  # an editor may have taken it away
            desk.tell(f"what you wrote is kept in {desk.path}")
        if isinstance(error, (NicplugError, KeyboardInterrupt)):
            raise
        raise NicplugError(f"{subject.name} could not be edited: {error}") from error
    desk.path.unlink(missing_ok=True)
    return told


def _rounds(subject: Subject, desk: Desk, base: str) -> str:
    while True:
        desk.edit()
        if _is_unchanged(desk, base):
            return f"{subject.name} was not changed"
        try:
            text = _text(desk)
            problems = subject.check(text)
        except NicplugError as error:
            _ask_again(desk, str(error), (AGAIN, ABANDON))
            continue
        forced = False
        if problems:
            desk.show(problems)
            answers = (AGAIN, FORCE, ABANDON) if subject.can_force(text) else (AGAIN, ABANDON)
            forced = _ask_again(desk, f"this is not valid ({_count(problems)})", answers)
            if not forced:
                continue
        now = subject.read()
        if now != base:
            desk.tell(difference(base, now))
            question = f"{subject.name} was changed meanwhile, as above"
            goes_on = _ask_again(desk, question, (AGAIN, FORCE, ABANDON))
            base = now
            if not goes_on:
                continue
        try:
            return subject.apply(text, forced)
        except NicplugError as error:
            _ask_again(desk, str(error), (AGAIN, ABANDON))


def _ask_again(desk: Desk, what: str, answers: Sequence[str]) -> bool:
    """Return whether to go on all the same; if not, back to the editor."""
    answer = desk.ask(what, answers)
    if answer == ABANDON:
        raise AbandonedError(what, hint="nothing was changed")
    return answer == FORCE


def _count(problems: Sequence[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _is_unchanged(desk: Desk, base: str) -> bool:
    try:
        return desk.path.read_bytes() == _ended(base).encode("utf-8", "surrogatepass")
    except OSError:
        return False


def _text(desk: Desk) -> str:
    try:
        return desk.path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SchemaError(f"the text is not UTF-8: {error}", hint="save it as UTF-8") from error


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def difference(before: str, now: str) -> str:
    """Return what has changed, as ``diff -u`` shows it."""
    lines = difflib.unified_diff(
        before.splitlines(), now.splitlines(), "as it was", "as it is now", lineterm=""
    )
    return "\n".join(lines)


def editor(environment: Mapping[str, str]) -> list[str]:
    """Return the command of the user's editor: VISUAL, else EDITOR, else vi.

    :raises NicplugError: what is named there is no command.
    """
    import shlex

    for name in ("VISUAL", "EDITOR"):
        value = environment.get(name, "").strip()
        if value:
            try:
                return shlex.split(value)
            except ValueError as error:
                raise NicplugError(f"{name} is '{value}', which is no command: {error}") from error
    return ["vi"]


def buffers(environment: Mapping[str, str], home: Path) -> Path:
    """Return the directory where edited texts are kept: it outlives a restart."""
    state = environment.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    return (Path(state) if state.startswith("/") else home / ".local" / "state") / "nicplug"


def dedented(interface: str) -> str:
    """Return an element as a text of its own: its lines less indented by as much as its last one."""
    lines = interface.split("\n")
    last = lines[-1]
    space = last[: len(last) - len(last.lstrip())]
    return "\n".join(line.removeprefix(space) for line in lines) + "\n"


def same_interface(text: str, before: str) -> None:
    """Check that an edited ``<interface>`` still is the one that it was.

    :param text: the edited text.
    :param before: the MAC that it had, in lower case.
    :raises NotFoundError: it has another MAC, so it would be another interface.
    :raises SchemaError: it is malformed, or no ``<interface>``.
    """
    from nicplug_xml import metadata, updating

    mac = metadata.mac_of(updating.parse(text))
    if mac and mac != before:
        raise NotFoundError(
            f"the MAC was {before} and is {mac} now, which a running guest's NIC cannot change",
            hint="put it back, or change the definition: 'nicplug edit' without --live",
        )
