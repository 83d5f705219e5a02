"""Locks that a fork waits for: what one thread has half done would stay half done for ever in the child."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LONGEST_WAIT_S = 30.0  # that a fork waits for one lock; then it goes on, as it would without


class _ForkableLock:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forking = False
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(
                before=self._acquire, after_in_parent=self._release, after_in_child=self._renew
            )

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _acquire(self) -> None:
        self._forking = self._lock.acquire(timeout=LONGEST_WAIT_S)

    def _release(self) -> None:
        if self._forking:
            self._forking = False
            self._lock.release()

    def _renew(self) -> None:
        """Begin with a lock that is free, or held by the thread that forked, the only one that the child has."""
        if self._forking:
            self._release()
        else:
            self._lock = threading.RLock()


def forkable_lock() -> AbstractContextManager[None]:
    """Make a lock for imports, loads and shared dicts; made once per module, since what a fork calls is never undone.

    The import system holds a lock per module while it is imported, and so do other libraries while they load. A child
    that is forked meanwhile has those locks, and not the thread that would release them: it waits for ever. So what
    this library imports and loads on threads of its own is done under a lock that the fork takes first.
    """
    return _ForkableLock()


# What the models import and read once per process. It is made here, and not where it is used: a fork that waits for an
# import takes no lock that is made by what is imported.
loading = forkable_lock()
