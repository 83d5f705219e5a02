"""A model at its server: its address is known at once, the connection is made when needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from pandas_amr._records.engine import in_thread
from pandas_amr._records.forks import loading
from pandas_amr.errors import ModelOffline
from pandas_amr.models.openai.addresses import address_of, key_of
from pandas_amr.models.openai.settings import sent_body
from pandas_amr.models.statistics import statistics_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from pandas_amr._records.usage import Phase
    from pandas_amr.models.base import LM, Reply, Request
    from pandas_amr.models.openai.model import OpenAIModel


NEEDED: dict[Phase, str] = {
    "plan": "A plan",
    "map": "An answer about a row",
    "reduce": "A reduction",
}
OFFLINE = "Offline nothing is asked (AMR_OFFLINE=1, or the setting offline=True)."


class Endpoint:
    """One ``LM`` at its server, for the time of an ``async with`` block; offline it sends nothing.

    A run that finds all answers in the journal needs no connection. So nothing is imported or
    opened before the first request.

    Attributes:
        lm: the model and its settings.
        address: the server, and the name under which its limits are tracked: the key, or the name
            of the function that gives it.
        server: the address that answers.
        statistics: what this process has learned about the model there.

    Raises:
        UsageError: the address, the key or the client cannot be used.
    """

    def __init__(self, lm: LM, *, offline: bool = False) -> None:
        self.lm = lm
        self._is_offline = offline
        self._opening = asyncio.Lock()
        self._model: OpenAIModel | None = None
        if lm.client is None:
            self.server = address_of(lm)
            self.address = (self.server, key_of(lm).name)
        else:
            self._model = _make_model(lm)  # its package is imported: the user has a client
            self.server = self._model.server
            self.address = self._model.address
        self.statistics = statistics_of(self.server, lm.model)

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
        self._check_online(NEEDED[request.phase])
        model = self._model or await self._open_model()
        reply = await model.complete(request)
        self.statistics.learn_answer(request.phase, reply.usage)
        return reply

    async def call(self, work: Callable[[Any], Awaitable[Any]], *, timeout_s: float) -> Any:
        """Call the ``openai`` client for something else than an answer, with a time limit.

        Raises:
            ModelError: the service did not answer.
        """
        self._check_online("An answer of a batch")
        model = await self._open_model()
        return await model.call(work, timeout_s=timeout_s)

    def body(self, request: Request) -> dict[str, Any]:
        """Convert a request into its body, without the settings that this model refuses."""
        return sent_body(self.lm, self.address[0], request)

    def read(self, response: Mapping[str, Any], request: Request) -> Reply:
        """Read an answer of a batch: its ``status_code`` and ``body``.

        Raises:
            ModelError: the answer is an error.
        """
        assert self._model is not None  # the batch was created through it
        reply = self._model.read(response, request)
        self.statistics.learn_answer(request.phase, reply.usage)
        return reply

    def without_key(self, text: str) -> str:
        """Shorten a text of the server and remove secrets from it."""
        assert self._model is not None  # the text came through it
        return self._model.without_key(text)

    def _check_online(self, needed: str) -> None:
        """Refuse to send anything if the journal alone answers.

        Raises:
            ModelOffline: it does.
        """
        if self._is_offline:
            raise ModelOffline(f"{needed} is not in the journal. {OFFLINE}")

    async def _open_model(self) -> OpenAIModel:
        """Give the model. The first one of a process imports in a thread, off the loop."""
        async with self._opening:
            if self._model is None:
                if not _imported:
                    await in_thread(_import)
                self._model = _make_model(self.lm)
            return self._model


_imported: list[type[OpenAIModel]] = []


def _import() -> None:
    with loading:
        from pandas_amr.models.openai.model import OpenAIModel  # noqa: PLC0415 (takes 0.5 s)

        _imported[:] = [OpenAIModel]


def _make_model(lm: LM) -> OpenAIModel:
    if not _imported:
        _import()
    return _imported[0](lm)
