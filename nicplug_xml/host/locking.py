"""A lock between the processes and threads of this machine, for what is read, changed and written as a whole.

The authority is flock(2).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep all others who ask for that name waiting, as long as the block runs.

    Root's is one lock, and each user has one of their own; one who has no place for it goes without.

    :param name: a word.
    """
    directory = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.access(directory, os.W_OK):
        yield
        return
    path = f"{directory}/nicplug-{name}.lock"
    file = _open(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.close(file)


def _open(path: str) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Who had it has removed it meanwhile, and others may have a new one.
            if _is_same(file, path):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is_same(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
