"""A lock between the processes and threads of this machine, for what is read, changed and written as a whole.

The authority is flock(2).
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nicplug_xml.errors import OperationError

#: Seconds to wait for others, and between two looks.
_PATIENCE, _PAUSE = 60, 0.002

#: Who has locked what: threads by their process and number, with the name. A fork takes this along, and its
#: threads may have the same numbers.
_held: set[tuple[int, int, str]] = set()


@contextmanager
def locked(name: str, patience: float | None = None) -> Iterator[None]:
    """Keep all other threads and processes that ask for that name waiting, as long as the block runs.

    The thread that has it may ask again.
    Root's is one lock, and each user has one of their own; one who has no place for it goes without.

    :param name: a word.
    :param patience: seconds to wait; a minute unless told.
    :raises OperationError: another one has not let go of it by then.
    """
    mine = os.getpid(), _thread.get_ident(), name
    path = _path(name)
    if path is None or mine in _held:
        yield
        return
    file = _open(path, _PATIENCE if patience is None else patience)
    if file is None:
        yield
        return
    _held.add(mine)
    try:
        yield
    finally:
        _held.remove(mine)
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.close(file)


def is_locked(name: str) -> bool:
    """Whether anybody has that name locked now, as far as this user can know."""
    path = _path(name)
    if path is None:
        return False
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _is_mine(file)
    finally:
        os.close(file)


def _path(name: str) -> str | None:
    """Return the path of the file, or None where this user has no place for it."""
    directory = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{directory}/nicplug-{name}.lock" if os.access(directory, os.W_OK) else None


def _open(path: str, patience: float) -> int | None:
    """Return a descriptor of the file, once it is locked; None where there is no place for it."""
    until = time.monotonic() + patience
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return None  # a NIC has to be unplugged also where the disk is full
            raise OperationError(f"no lock can be had: {path}: {error.strerror}") from error
        try:
            # Who had it has removed it meanwhile, and others may have a new one.
            if _is_mine(file) and _is_same(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if time.monotonic() > until:
            raise OperationError(
                f"another operation has been at work on this for {patience:g} s",
                hint=f"'fuser {path}' tells which process that is",
            )
        time.sleep(_PAUSE)


def _is_mine(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
