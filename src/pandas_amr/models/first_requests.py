"""The first requests of a kind.

One goes ahead and the others wait a little, so that what is refused is refused only once.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pandas_amr._records.trace import record_wait
from pandas_amr.errors import InvalidOutput, ModelConfigError, ModelRefused, ModelRejected
from pandas_amr.models.acceptance import Acceptance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# For the request ahead, from when it is sent: a refusal comes at once, an answer may take long.
LONGEST_WAIT_S = 2.0
# So many requests refused in turn, each perhaps for its content, show that it is the configuration.
MOST_REFUSED = 3


@dataclass(slots=True)
class FirstRequests:
    """Requests of one kind, until one of them is answered."""

    _acceptance: Acceptance = field(default_factory=partial(Acceptance, most_refused=MOST_REFUSED))
    _is_one_ahead: bool = False
    _is_slow: bool = False  # the one ahead: the others wait for it no longer
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _failure: ModelConfigError | None = None

    @property
    def is_answered(self) -> bool:
        """Whether one was answered."""
        return self._acceptance.accepted

    @property
    def is_empty(self) -> bool:
        """Whether none waits or is under way."""
        return self._acceptance.is_idle

    @contextlib.asynccontextmanager
    async def in_turn(self) -> AsyncIterator[None]:
        """Let one request go ahead, and hold the others until it has an answer or an error.

        If the request ahead is refused, perhaps for its content, then the next one goes. As soon as
        one is answered, the refusals are known to be about their requests alone.

        Raises:
            ModelRejected: this request was refused, and another one was answered.
            ModelConfigError: no later request could succeed, as this one or those ahead show.
        """
        with self._acceptance.attempt():
            turn = _Turn(self, is_ahead=await self._wait_for_turn())
            token = _current_turn.set(turn)
            try:
                yield
            except ModelConfigError as error:
                failure = error
            except (ModelRefused, InvalidOutput):  # an answer, too
                self._acceptance.accept()
                raise
            else:
                self._acceptance.accept()
                return
            finally:
                _current_turn.reset(token)
                turn.end()
            if failure.request_error is not None and await self._acceptance.is_accepted():
                raise _as_failure_of_request(failure, failure.request_error)
            # A copy: what is raised holds the frames of its callers.
            self._failure = copy.copy(failure)
            raise failure

    async def _wait_for_turn(self) -> bool:
        """Wait while a request is ahead, within bounds; tell whether this one is ahead now."""
        while self._is_one_ahead and not self.is_answered and not self._is_slow:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            with record_wait("place"):
                await waiting
        self._raise_if_failed()
        if self._is_one_ahead or self.is_answered:
            return False
        self._is_one_ahead = True
        return True

    def _raise_if_failed(self) -> None:
        if self._failure is not None:
            failure = copy.copy(self._failure)  # each request counts its tries on its own error
            failure.attempts, failure.usage = 0, None
            raise failure

    def end_turn(self) -> None:
        """Release all that wait: the first of them goes ahead, unless one was answered."""
        self._is_one_ahead = self._is_slow = False
        self._release_waiting()

    def stop_waiting(self) -> None:
        """Release all that wait, although the request ahead has no answer yet."""
        self._is_slow = True
        self._release_waiting()

    def _release_waiting(self) -> None:
        released, self._waiting = self._waiting, []
        for waiting in released:
            if not waiting.done():
                waiting.set_result(None)


@dataclass(slots=True)
class _Turn:
    """The turn of one request, which ends once."""

    requests: FirstRequests
    is_ahead: bool
    timer: asyncio.TimerHandle | None = None

    def begin_waiting(self) -> None:
        """Bound from now on how long the others wait, if this one is ahead."""
        if self.is_ahead and self.timer is None:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(LONGEST_WAIT_S, self.requests.stop_waiting)

    def end(self) -> None:
        """Let the next request go, if this one was ahead."""
        if self.timer is not None:
            self.timer.cancel()
        if self.is_ahead:
            self.is_ahead = False
            self.requests.end_turn()


_current_turn: ContextVar[_Turn | None] = ContextVar("pandas_amr_turn", default=None)


def note_sent() -> None:
    """Note that the request is sent now: others wait for it a little, and no longer."""
    turn = _current_turn.get()
    if turn is not None:
        turn.begin_waiting()


def let_next_go() -> None:
    """Let the next request go although this one has no answer: it was sent, and will be again."""
    turn = _current_turn.get()
    if turn is not None:
        turn.end()


def _as_failure_of_request(failure: ModelConfigError, rejected: ModelRejected) -> ModelRejected:
    """Give the same failure as one of its request alone, with the same attempts and usage."""
    rejected.attempts, rejected.usage = failure.attempts, failure.usage
    return rejected
