"""`nicplug edit` without a terminal: an editor that follows a script, and a domain in memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

from nicplug_xml.cli.editor import Terminal, definition
from nicplug_xml.editing import (
    ABANDON,
    AGAIN,
    FORCE,
    AbandonedError,
    Subject,
    buffers,
    dedented,
    edit,
    editor,
    same_interface,
)
from nicplug_xml.errors import NicplugError, NotFoundError, OperationError, SchemaError
from nicplug_xml.frozen import replace
from nicplug_xml.model import Problem
from nicplug_xml.schema import validate

XML = "<backend type='bridge'>\n  <source bridge='br0'/>\n</backend>"
VALID = XML.replace("br0", "br1")
INVALID = XML.replace("bridge='br0'", "brige='br0'")


class Script:
    """A desk whose user types what they were told to; `edits` are texts, or what makes one of another."""

    def __init__(
        self, path: Path, *edits: str | Callable[[str], str] | Exception, answers: Sequence[str] = ()
    ):
        self.path = path
        self.edits = list(edits)
        self.answers = list(answers)
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.told: list[str] = []
        self.problems: list[Problem] = []

    def edit(self) -> None:
        step = self.edits.pop(0)
        if isinstance(step, Exception):
            raise step
        self.path.write_text(step if isinstance(step, str) else step(self.path.read_text()))

    def show(self, problems: Sequence[Problem]) -> None:
        self.problems += problems

    def tell(self, text: str) -> None:
        self.told.append(text)

    def ask(self, question: str, answers: Sequence[str]) -> str:
        self.asked.append((question, tuple(answers)))
        return self.answers.pop(0)


class Thing:
    """What is edited: a text in memory."""

    def __init__(self, xml: str = XML) -> None:
        self.xml = xml
        self.applied: list[tuple[str, bool]] = []
        self.refusals: list[NicplugError] = []

    def apply(self, xml: str, forced: bool) -> str:
        if self.refusals:
            raise self.refusals.pop(0)
        self.applied.append((xml, forced))
        self.xml = xml
        return "it was edited"

    def subject(self, can_force: bool = True) -> Subject:
        return Subject("the thing", lambda: self.xml, validate, self.apply, lambda _xml: can_force)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer.xml"


def same(text: str) -> str:
    return text


def test_valid_text_is_carried_out_and_the_buffer_goes(path: Path) -> None:
    thing, desk = Thing(), Script(path, VALID)
    assert edit(thing.subject(), desk) == "it was edited"
    assert thing.applied == [(VALID, False)]
    assert not path.exists()
    assert desk.told == []


def test_nothing_changed(path: Path) -> None:
    thing = Thing()
    assert edit(thing.subject(), Script(path, same)) == "the thing was not changed"
    assert thing.applied == []
    assert not path.exists()


@pytest.fixture
def full_disk() -> Iterator[None]:
    """To this process, a disk that no file of its own has room on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_buffer_that_cannot_be_written_is_named_and_goes(path: Path, full_disk: None) -> None:
    with pytest.raises(OSError, match=f"'{path}'"):
        edit(Thing().subject(), Script(path, VALID))
    assert not path.exists()


def test_the_buffer_goes_when_there_is_nothing_to_edit(path: Path) -> None:
    path.touch()
    gone = Mock(side_effect=OperationError("it is gone"))
    with pytest.raises(OperationError, match="it is gone"):
        edit(replace(Thing().subject(), read=gone), Script(path, VALID))
    assert not path.exists()


def test_invalid_text_back_to_the_editor(path: Path) -> None:
    def mend(text: str) -> str:
        assert text == INVALID, "the user gets their own text again"
        return VALID

    thing, desk = Thing(), Script(path, INVALID, mend, answers=[AGAIN])
    assert edit(thing.subject(), desk) == "it was edited"
    assert thing.applied == [(VALID, False)]
    assert desk.problems == validate(INVALID)
    assert desk.asked == [("this is not valid (1 problem)", (AGAIN, FORCE, ABANDON))]


def test_invalid_text_forced(path: Path) -> None:
    thing = Thing()
    assert edit(thing.subject(), Script(path, INVALID, answers=[FORCE])) == "it was edited"
    assert thing.applied == [(INVALID, True)]


def test_what_cannot_be_forced_is_not_offered(path: Path) -> None:
    desk = Script(path, INVALID, answers=[ABANDON])
    with pytest.raises(AbandonedError):
        edit(Thing().subject(can_force=False), desk)
    assert desk.asked[0][1] == (AGAIN, ABANDON)


def test_abandoned_text_is_kept(path: Path) -> None:
    thing, desk = Thing(), Script(path, INVALID, answers=[ABANDON])
    with pytest.raises(AbandonedError, match="nothing was changed"):
        edit(thing.subject(), desk)
    assert thing.applied == []
    assert path.read_text() == INVALID
    assert desk.told == [f"what you wrote is kept in {path}"]


def test_malformed_text_is_a_problem_as_any(path: Path) -> None:
    desk = Script(path, "<backend", VALID, answers=[AGAIN])
    assert edit(Thing().subject(), desk) == "it was edited"
    assert desk.problems[0].code == "xml"


def test_text_that_is_not_utf_8(path: Path) -> None:
    desk = Script(path, answers=[ABANDON])
    desk.edit = lambda: path.write_bytes(b"<backend type='\xff'/>") and None  # type: ignore[method-assign]
    with pytest.raises(AbandonedError, match="not UTF-8"):
        edit(Thing().subject(), desk)
    assert path.read_bytes() == b"<backend type='\xff'/>"


@pytest.mark.parametrize(("answer", "applied"), [(FORCE, [(VALID, False)]), (AGAIN, [(VALID + "\n", False)])])
def test_conflict(path: Path, answer: str, applied: list[tuple[str, bool]]) -> None:
    thing = Thing()

    def meanwhile(_text: str) -> str:
        thing.xml = XML.replace("br0", "br9")
        return VALID

    desk = Script(path, meanwhile, lambda text: text + "\n", answers=[answer])
    assert edit(thing.subject(), desk) == "it was edited"
    assert thing.applied == applied
    assert desk.asked == [("the thing was changed meanwhile, as above", (AGAIN, FORCE, ABANDON))]
    assert "-  <source bridge='br0'/>\n+  <source bridge='br9'/>" in desk.told[0]


def test_conflict_abandoned_leaves_the_other_change(path: Path) -> None:
    thing = Thing()

    def meanwhile(_text: str) -> str:
        thing.xml = "other"
        return VALID

    with pytest.raises(AbandonedError):
        edit(thing.subject(), Script(path, meanwhile, answers=[ABANDON]))
    assert (thing.xml, path.read_text()) == ("other", VALID)


def test_conflict_is_looked_for_after_each_edit(path: Path) -> None:
    thing = Thing()

    def another(text: str) -> str:
        thing.xml += " "
        return VALID + text[-1]

    desk = Script(path, another, another, same, answers=[AGAIN, AGAIN])
    edit(thing.subject(), desk)
    assert len(desk.asked) == 2


def test_refusal_goes_back_to_the_editor(path: Path) -> None:
    thing = Thing()
    thing.refusals = [OperationError("libvirt does not like it")]
    desk = Script(path, VALID, same, answers=[AGAIN])
    assert edit(thing.subject(), desk) == "it was edited"
    assert desk.asked == [("libvirt does not like it", (AGAIN, ABANDON))]


@pytest.mark.parametrize(
    "error", [NicplugError("the editor failed"), KeyboardInterrupt(), RuntimeError("bug")]
)
def test_text_survives_every_error(path: Path, error: BaseException) -> None:
    desk = Script(path, VALID)
    original = desk.edit

    def fail() -> None:
        original()
        raise error

    desk.edit = fail  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else NicplugError):
        edit(Thing().subject(), desk)
    assert path.read_text() == VALID
    assert str(path) in desk.told[0]


def test_editor_that_never_ran_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(NicplugError, match="no such editor"):
        edit(Thing().subject(), Script(path, NicplugError("no such editor")))
    assert not path.exists()


def test_text_that_is_gone_is_not_said_to_be_kept(path: Path) -> None:
    desk = Script(path)
    desk.edit = path.unlink  # type: ignore[method-assign]
    with pytest.raises(NicplugError, match="No such file"):
        edit(Thing().subject(), desk)
    assert desk.told == []


DOMAIN = "<domain type='qemu'><name>a</name><devices>{}</devices></domain>"


@pytest.mark.parametrize(
    ("interface", "can"),
    [
        ("<interface type='user'/>", True),
        ("<interface connection='deferred'><modle/></interface>", True),
        ("<interface connection='defered'/>", False),
        ("<interface type='vdpa' connection='deferred'/>", False),
        ("<interface", False),
    ],
)
def test_a_definition_is_forced_where_that_can_succeed(interface: str, can: bool) -> None:
    dom = Mock(spec=["isPersistent", "name"])
    assert definition(dom, Mock()).can_force(DOMAIN.format(interface)) is can


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, ["vi"]),
        ({"EDITOR": "nano"}, ["nano"]),
        ({"EDITOR": "nano", "VISUAL": "code --wait"}, ["code", "--wait"]),
        ({"EDITOR": "'my editor' -x", "VISUAL": " "}, ["my editor", "-x"]),
    ],
)
def test_editor(environment: dict[str, str], command: list[str]) -> None:
    assert editor(environment) == command


def test_editor_that_is_no_command() -> None:
    with pytest.raises(NicplugError, match="VISUAL is 'vi \"', which is no command"):
        editor({"VISUAL": 'vi "'})


def test_buffers_outlive_a_restart() -> None:
    assert buffers({}, Path("/home/me")) == Path("/home/me/.local/state/nicplug")
    assert buffers({"XDG_STATE_HOME": "/state"}, Path("/home/me")) == Path("/state/nicplug")
    assert buffers({"XDG_STATE_HOME": "state"}, Path("/home/me")) == Path("/home/me/.local/state/nicplug")


def test_where_buffers_cannot_be_kept_they_are_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "nicplug").symlink_to("/proc/self")  # a directory in which nobody makes files
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = Terminal("vm1").path
    assert path.parent == tmp_path
    assert path.stat().st_mode & 0o077 == 0


def test_dedented() -> None:
    assert dedented("<a>\n      <b/>\n    </a>") == "<a>\n  <b/>\n</a>\n"
    assert dedented("<a/>") == "<a/>\n"


def test_same_interface() -> None:
    same_interface("<interface><mac address='52:54:00:AA:00:01'/></interface>", "52:54:00:aa:00:01")
    same_interface("<interface/>", "52:54:00:aa:00:01")
    with pytest.raises(NotFoundError, match="is 52:54:00:aa:00:02 now"):
        same_interface("<interface><mac address='52:54:00:aa:00:02'/></interface>", "52:54:00:aa:00:01")
    with pytest.raises(SchemaError):
        same_interface("<backend/>", "")
