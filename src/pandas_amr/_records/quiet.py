"""Blocks in which Python ignores warnings, without losing those of other threads.

``warnings.catch_warnings`` changes the filters of the whole process, and puts back those that it
found. Of two threads that leave it in another order than they entered it, the last one puts back
what the other had set for a moment: from then on nothing is shown. So one thread is in such a block
at a time, and this library issues its warnings while none is.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING

from pandas_amr._records.forks import forkable_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

filters_lock = forkable_lock()


@contextlib.contextmanager
def ignore_warnings(message: str = "", category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings in the block: all, or those that a pattern and a class fit."""
    with filters_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message, category=category)
        yield
