"""A lock: what is read, changed and written as a whole is not what somebody else reads meanwhile."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import pytest

from nicplug_xml.errors import OperationError
from nicplug_xml.host import locking
from nicplug_xml.host.locking import is_locked, locked


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for the files of a user who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def count(rounds: int) -> int:
    """Count up in several threads, and return how far that came."""
    counter = 0

    def add(_: int) -> None:
        nonlocal counter
        with locked("counter"):
            seen = counter
            time.sleep(0.001)
            counter = seen + 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(rounds)))
    return counter


def test_one_at_a_time_and_nothing_stays(runtime: Path) -> None:
    assert count(100) == 100
    assert list(runtime.iterdir()) == []


def test_what_fails_lets_go(runtime: Path) -> None:
    with suppress(RuntimeError), locked("counter"):
        assert [file.name for file in runtime.iterdir()] == ["nicplug-counter.lock"]
        raise RuntimeError
    assert list(runtime.iterdir()) == []
    assert count(1) == 1


def test_a_full_disk_keeps_nobody_from_working(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)
    with locked("counter"), locked("counter"):
        assert list(runtime.iterdir()) == []


def test_what_cannot_be_opened_is_told(runtime: Path) -> None:
    (runtime / "nicplug-counter.lock").symlink_to(runtime)
    with (
        pytest.raises(OperationError, match=r"no lock can be had: .*-counter\.lock: Too many levels"),
        locked("counter"),
    ):
        pytest.fail("it is no file of ours")


def test_who_has_it_may_ask_again(runtime: Path) -> None:
    with ThreadPoolExecutor() as pool, locked("counter"):
        with locked("counter"):
            pass
        assert [file.name for file in runtime.iterdir()] == ["nicplug-counter.lock"]
        waiting = pool.submit(count, 1)
        assert wait([waiting], timeout=0.1).not_done
    assert waiting.result() == 1
    assert list(runtime.iterdir()) == []


def test_nobody_waits_for_ever(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_PATIENCE", 0.05)
    with locked("counter"), ThreadPoolExecutor() as pool:
        error = pool.submit(count, 1).exception()
    assert isinstance(error, OperationError)
    assert error.hint == f"'fuser {runtime}/nicplug-counter.lock' tells which process that is"
    assert count(1) == 1


def test_others_see_whether_it_is_locked(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_locked("counter")
    with locked("counter"):
        assert is_locked("counter")
        assert not is_locked("other")
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert not is_locked("counter")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    (runtime / "nicplug-counter.lock").touch()  # of one who was killed
    assert not is_locked("counter")
    assert count(1) == 1


def test_who_has_no_place_for_it_goes_without(monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    both = threading.Barrier(2)

    def meet() -> int:
        with locked("counter"):
            return both.wait(timeout=30)

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(meet) for _ in range(2)]
    assert sorted(found.result() for found in waiting) == [0, 1]
    assert list(runtime.iterdir()) == []


def test_a_fork_has_none_of_its_parents_locks(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_PATIENCE", 0.05)
    with locked("counter"):
        if (child := os.fork()) == 0:
            with suppress(OperationError), locked("counter"):
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
