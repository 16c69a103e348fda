"""Work in a thread of its own: namespaces belong to threads, so that what it enters or makes ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> T:
    """Do work in a thread of its own, and return or raise what it does.

    Who is interrupted meanwhile goes on only once the work has ended: what it makes is known then.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # it is raised again where it is waited for
            errors.append(error)
        ended.set()

    ended = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        ended.wait()
    except BaseException:
        # Python 3.11 takes a thread for ended whose join() was interrupted.
        ended.wait()
        raise
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
