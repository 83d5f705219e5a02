"""How often and how long one step of a batch is tried again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandas_amr._records.clock import CLOCK
from pandas_amr.models.answered_servers import patience_s

if TYPE_CHECKING:
    from pandas_amr.errors import ModelUnavailable
    from pandas_amr.models.base import LM

LONGEST_WAIT_S = 60.0
GROWTH = 1.5  # of the time between two polls, or two tries


@dataclass(slots=True)
class Patience:
    """The patience with one step: as with a request, by ``max_tries`` and ``patience_s``.

    Attributes:
        lm: whose settings count.
        server: its address.
        wait_s: until the next try.
        counted: whether failures other than a 429 or a missing server count for ``max_tries``.
        failures: how many there were in a row.
        began: when the first of them was.
    """

    lm: LM
    server: str
    wait_s: float
    counted: bool = True
    failures: int = 0
    began: float | None = None

    async def wait(self, error: ModelUnavailable) -> None:
        """Wait until the next try.

        Raises:
            ModelUnavailable: the error itself, if the patience is used up; it ends the run.
        """
        now = CLOCK.now()
        if self.began is None:
            self.began = now
        self.failures += 1
        wait_s = random.uniform(0.5, 1.0) * self.wait_s  # noqa: S311 (jitter)
        wait_s = max(error.retry_after_s or 0.0, wait_s)
        self.wait_s = min(LONGEST_WAIT_S, self.wait_s * GROWTH)
        patience = patience_s(self.lm, self.server, gone=error.gone)
        if self._tries_are_used_up(error) or now - self.began + wait_s > patience:
            error.fatal = True
            raise error
        await asyncio.sleep(wait_s)

    def _tries_are_used_up(self, error: ModelUnavailable) -> bool:
        if not self.counted or error.busy or error.gone:
            return False
        return self.failures >= self.lm.max_tries

    def restore(self) -> None:
        """Start again, after a success."""
        self.began, self.failures = None, 0
