"""Whether a server has ever answered a model and a key in this process: who is served once is configured rightly."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr.models.lessons import made_once

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Acceptance:
    """What is known of one server, key and model.

    Attributes:
        accepted: whether a request was answered.
        most_refused: of how many refused requests it is clear that none will be answered; None if only of all.
    """

    accepted: bool = False
    most_refused: int | None = None
    _open: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._open

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Count a request as under way."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._tell()

    def accept(self) -> None:
        """A request was answered."""
        self.accepted = True
        self._tell()

    async def is_accepted(self) -> bool:
        """Tell whether a request was answered, once that is known: of those under way one may yet be.

        Whoever asks has had no answer, and is itself one of those under way.
        """
        if not self.accepted and self._may_be_accepted():
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
        else:
            self._release()
        return self.accepted

    def _may_be_accepted(self) -> bool:
        """Tell whether enough requests are under way beside those that were refused, the one that asks among them."""
        refused = len(self._waiting) + 1
        is_few = self.most_refused is None or refused < self.most_refused
        return is_few and self._open > refused

    def _tell(self) -> None:
        """Let those go on that wait, if nothing more will be known than is."""
        if self.accepted or self._open <= len(self._waiting):
            self._release()

    def _release(self) -> None:
        released, self._waiting = self._waiting, []
        for waiting in released:
            if not waiting.done():
                waiting.set_result(None)


def acceptance_of(server: str, key: str, model: str) -> Acceptance:
    """What this process knows of a server, key and model."""
    return _acceptance_of(server, hashlib.sha256(key.encode()).hexdigest(), model)


@made_once
def _acceptance_of(server: str, digest: str, model: str) -> Acceptance:  # noqa: ARG001 (what it is known by)
    return Acceptance()
