"""A model at its server: known by its address from the start, connected at the first request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from pandas_amr._records.engine import in_thread
from pandas_amr._records.forks import loading
from pandas_amr.models.lessons import lessons_of
from pandas_amr.models.openai.addresses import address_of, key_of
from pandas_amr.models.openai.settings import sent_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from pandas_amr.models.base import LM, Reply, Request
    from pandas_amr.models.openai.model import OpenAIModel


class Endpoint:
    """One ``LM`` at its server, for the time of an ``async with`` block.

    A call that the journal answers alone needs no connection: until the first request nothing is imported or opened.

    Attributes:
        lm: which model it is, and how it is asked.
        address: the server, and what its limits are known by: the key, or the name of the function that gives it.
        server: the address that answers.
        lessons: what this process has learned of the model there.

    Raises:
        UsageError: the address, the key or the client cannot be used.
    """

    def __init__(self, lm: LM) -> None:
        self.lm = lm
        self._opening = asyncio.Lock()
        self._model: OpenAIModel | None = None
        if lm.client is None:
            self.server = address_of(lm)
            self.address = (self.server, key_of(lm).name)
        else:
            self._model = _make(lm)  # whoever has a client has imported its package
            self.server = self._model.server
            self.address = self._model.address
        self.lessons = lessons_of(self.server, lm.model)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._model is not None:
            await self._model.close()

    async def complete(self, request: Request) -> Reply:
        """Answer one turn with one HTTP request.

        Raises:
            ModelError: the service did not answer.
        """
        model = self._model or await self._opened()
        reply = await model.complete(request)
        self.lessons.learn_answer(request.phase, reply.usage)
        return reply

    async def call(self, work: Callable[[Any], Awaitable[Any]], *, timeout_s: float) -> Any:
        """Ask the ``openai`` client for something else, and have all of it within a time.

        Raises:
            ModelError: the service did not answer.
        """
        return await (await self._opened()).call(work, timeout_s=timeout_s)

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the protocol spells it, without what this model is known to refuse."""
        return sent_body(self.lm, self.address[0], request)

    def read(self, response: Mapping[str, Any], request: Request) -> Reply:
        """An answer that came in a batch: ``status_code`` and ``body``.

        Raises:
            ModelError: the answer is an error.
        """
        assert self._model is not None  # the batch was asked for through it
        reply = self._model.read(response, request)
        self.lessons.learn_answer(request.phase, reply.usage)
        return reply

    def without_key(self, text: str) -> str:
        """A server's text, bounded and without what no text may show."""
        assert self._model is not None  # the text came through it
        return self._model.without_key(text)

    async def _opened(self) -> OpenAIModel:
        """The model, ready to send; what takes long at the first one of a process is done off the loop."""
        async with self._opening:
            if self._model is None:
                if not _imported:
                    await in_thread(_import)
                self._model = _make(self.lm)
            return self._model


_imported: list[type[OpenAIModel]] = []


def _import() -> None:
    with loading:
        from pandas_amr.models.openai.model import OpenAIModel  # noqa: PLC0415 (importing openai takes half a second)

        _imported[:] = [OpenAIModel]


def _make(lm: LM) -> OpenAIModel:
    if not _imported:
        _import()
    return _imported[0](lm)
