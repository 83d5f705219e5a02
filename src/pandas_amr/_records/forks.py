"""Locks that a fork waits for.

Work that one thread has half done when the process forks is never finished in the child.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LONGEST_WAIT_S = 30.0  # that a fork waits for one lock; then it goes on without


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
        """Start with a free lock, or one of the forking thread, the only thread of the child."""
        if self._forking:
            self._release()
        else:
            self._lock = threading.RLock()


def forkable_lock() -> AbstractContextManager[None]:
    """Make a lock for imports, loading and shared dicts. Make one per module, at import.

    The import system holds a lock per module during its import, and other libraries hold locks
    while they load. A child that is forked then has these locks, but not the thread that would
    release them: it waits for ever. So this library imports and loads on its threads only under a
    lock that a fork acquires first. A registration for forks is never undone: hence one per module.
    """
    return _ForkableLock()


# For what the models import and load once per process. It is made here and not in the module that
# uses it: while that module is imported, a fork must already know the lock.
loading = forkable_lock()
