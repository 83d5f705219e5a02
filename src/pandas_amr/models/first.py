"""The first requests of a kind: one goes ahead, others wait a little, so that what is refused is refused once."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr.errors import InvalidOutput, ModelConfigError, ModelRefused, ModelRejected
from pandas_amr.models.acceptance import Acceptance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONGEST_WAIT_S = 2.0  # for the one ahead; a refusal comes at once, an answer may take long
MOST_REFUSED = 3  # one after the other, each perhaps for what it says; then it is the configuration


def _few_refusals() -> Acceptance:
    return Acceptance(most_refused=MOST_REFUSED)


@dataclass(slots=True)
class FirstRequests:
    """Requests of one kind, as long as none of them was answered."""

    _acceptance: Acceptance = field(default_factory=_few_refusals)
    _is_one_ahead: bool = False
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _failure: ModelConfigError | None = None

    @property
    def is_answered(self) -> bool:
        """Whether one was answered."""
        return self._acceptance.accepted

    @property
    def is_empty(self) -> bool:
        """Whether none is left that waits or is under way."""
        return self._acceptance.is_idle

    @contextlib.asynccontextmanager
    async def in_turn(self) -> AsyncIterator[None]:
        """Let one request go ahead, and hold others until it has come to something.

        If the one ahead is refused, perhaps for what it says, the next one goes; as soon as one is answered, those
        refusals are known to be of their requests alone.

        Raises:
            ModelRejected: this request was refused, and another one was answered.
            ModelConfigError: nothing that follows could succeed, as this request or those ahead have shown.
        """
        with self._acceptance.attempt():
            is_ahead = await self._wait()
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
                if is_ahead:
                    self._let_next_go()
            if failure.of_request is not None and await self._acceptance.is_accepted():
                raise _of_request(failure, failure.of_request)
            self._failure = failure
            raise failure

    async def _wait(self) -> bool:
        """Wait as long as one is ahead; tell whether this one is the next to go ahead."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST_WAIT_S
        while self._is_one_ahead and not self.is_answered and loop.time() < latest:
            own: asyncio.Future[None] = loop.create_future()
            self._waiting.append(own)
            timer = loop.call_at(latest, _let_go, own)
            try:
                await own
            finally:
                timer.cancel()
        self._raise_if_failed()
        if self._is_one_ahead or self.is_answered:
            return False
        self._is_one_ahead = True
        return True

    def _raise_if_failed(self) -> None:
        if self._failure is not None:
            failure = copy.copy(self._failure)  # to each its own: its tries are counted on it
            failure.attempts, failure.usage = 0, None
            raise failure

    def _let_next_go(self) -> None:
        """Wake all that wait: the first of them is ahead now, unless nobody need be."""
        self._is_one_ahead = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            _let_go(one)


def _let_go(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _of_request(failure: ModelConfigError, own: ModelRejected) -> ModelRejected:
    """A failure as one of its request alone, with what it took."""
    own.attempts, own.usage = failure.attempts, failure.usage
    return own
