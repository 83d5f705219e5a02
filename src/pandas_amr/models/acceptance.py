"""Whether a server has answered a model and a key in this process.

If it has, they are configured rightly, and a later refusal is about its request alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr.models.statistics import ProcessCache

if TYPE_CHECKING:
    from collections.abc import Iterator


# So many requests in a row that are refused for what is configured, and none that is answered, show
# that it has changed: a key has expired, a model was retired.
MOST_REFUSED = 100


@dataclass(slots=True)
class Acceptance:
    """Whether one server accepts one key and model.

    Attributes:
        accepted: whether a request was answered.
        most_refused: how many refused requests show that none will be answered; None if only all
            requests under way show it.
        unusable: how many answers were no completions.
        refused: how many requests in a row were refused since one was answered.
    """

    accepted: bool = False
    most_refused: int | None = None
    unusable: int = 0
    refused: int = 0
    _open: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._open

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Count a request as under way for the time of the block."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._release_if_decided()

    def accept(self) -> None:
        """Record that a request was answered."""
        self.accepted = True
        self.refused = 0
        self._release_if_decided()

    def has_ended(self) -> bool:
        """Count a request as refused after others were answered; tell whether it is one of all."""
        self.refused += 1
        return self.refused >= MOST_REFUSED

    async def is_accepted(self) -> bool:
        """Tell whether a request was answered; wait while one under way may still be.

        The caller's own request was refused and still counts as under way.
        """
        if self.accepted or not self._may_be_accepted():
            self._release()
            return self.accepted
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return self.accepted

    def _may_be_accepted(self) -> bool:
        """Tell whether other requests are under way, and too few were refused to decide."""
        refused = len(self._waiting) + 1  # the caller's own is the one more
        if self.most_refused is not None and refused >= self.most_refused:
            return False
        return self._open > refused

    def _release_if_decided(self) -> None:
        """Release those who wait, if no request is left that could change the result."""
        if self.accepted or self._open <= len(self._waiting):
            self._release()

    def _release(self) -> None:
        released, self._waiting = self._waiting, []
        for waiting in released:
            if not waiting.done():
                waiting.set_result(None)


_acceptances: ProcessCache[Acceptance] = ProcessCache()


def acceptance_of(server: str, key: str, model: str) -> Acceptance:
    """Give the acceptance of a server, key and model in this process."""
    digest = hashlib.sha256(key.encode()).hexdigest()  # the key itself is not stored
    return _acceptances.get((server, digest, model), Acceptance)
