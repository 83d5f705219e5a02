"""The provider's batch endpoint: maps without tools in one file, at half the price, whenever it has time.

Upload, create, poll, download, as OpenAI's Batch API has it. What is asked in a batch is remembered while it is under
way: the same requests after a crash find it again, among whatever others. What a batch has no answer to is asked in the
ordinary way.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.usage import Usage
from pandas_amr.errors import ModelConfigError, ModelError, ModelUnavailable
from pandas_amr.models.batch.api import (
    ENDPOINT,
    GROWTH,
    LONGEST_WAIT_S,
    BatchAPI,
    TooMuch,
    digest_of,
    run_ending,
)
from pandas_amr.models.batch.records import Creation, Records
from pandas_amr.models.batch.state import by_request, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from pandas_amr.models.base import Model, Reply, Request
    from pandas_amr.models.batch.api import Patience
    from pandas_amr.models.batch.state import BatchState
    from pandas_amr.models.openai.endpoint import Endpoint

MOST_REQUESTS = 10_000  # in one batch; the provider's own bound is 50,000
MOST_BYTES = 100_000_000  # of one batch's file; the provider's own bound is 200 MB
LINGER_S = 0.25  # without a new request before a batch is sent
LONGEST_CREATION_S = 8.0  # that a run which stops waits for the name of a batch it has asked for
NOT_FOUND = 404
LONGEST_BATCH_S = (
    26 * 3600.0
)  # the window is 24 hours; a server that never ends a batch is not waited for longer


def takes(request: Request) -> bool:
    """Whether a request can wait for a batch: a map's, without tools and without code, which takes turns."""
    return request.phase == "map" and not request.tools and not request.code


@dataclass(frozen=True)
class BatchFirst:
    """Answers what can wait through a batch, and in the ordinary way all else, and what a batch did not answer.

    What expired or failed in a batch does not wait for another one.
    """

    batched: Model
    ordinary: Model

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelError: as the models inside; what a batch has taken for this request is in its ``usage``, too.
        """
        if not takes(request):
            return await self.ordinary.complete(request)
        try:
            return await self.batched.complete(request)
        except ModelUnavailable as error:
            if error.stops_run:
                raise
            tries, spent = error.attempts, error.usage
        try:
            reply = await self.ordinary.complete(request)
        except ModelError as error:
            error.attempts += tries
            if spent is not None:
                error.usage = spent + (error.usage or Usage())
            raise
        return replace(reply, usage=replace(spent or Usage(), tries=tries) + reply.usage)


@dataclass
class _Asked:
    request: Request
    line: bytes
    answer: asyncio.Future[Reply]


_Part: TypeAlias = dict[str, _Asked]  # by the id of the request's line


@dataclass
class Batched:
    """Collects requests, sends them as batches, and answers each when its batch is done.

    Attributes:
        first_poll_s: how soon it is asked whether a batch is done; then less and less often.
    """

    model: Endpoint
    first_poll_s: float
    _waiting: _Part = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _creating: set[asyncio.Task[Any]] = field(default_factory=set)
    _ended: list[tuple[str, Collection[str]]] = field(default_factory=list)
    _polled: set[asyncio.Future[None]] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._api = BatchAPI(self.model, self.first_poll_s)
        self._records = Records(self.model.address[0])

    async def complete(self, request: Request) -> Reply:
        """Answer one turn when its batch is done.

        Raises:
            ModelUnavailable: the batch ended without an answer to this one: it may be asked again. Where it
                ``stops_run``, there is no batch to be had.
            ModelError: as the model inside.
        """
        body = self.model.body(request)
        name = self._line_id(body)
        line = json.dumps(
            {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
        ).encode()
        asked = _Asked(request, line, asyncio.get_running_loop().create_future())
        self._waiting[name] = asked
        if self._timer is not None:
            self._timer.cancel()
        linger_s = 0.0 if len(self._waiting) >= MOST_REQUESTS else LINGER_S
        self._timer = asyncio.get_running_loop().call_later(linger_s, self._send)
        return await asyncio.shield(asked.answer)

    def _line_id(self, body: dict[str, Any]) -> str:
        """Name a request's line by its content. One that is asked twice has two lines, and is paid for twice."""
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
        name, number = digest, 0
        while name in self._used:
            number += 1
            name = f"{digest}-{number}"
        self._used.add(name)
        return name

    async def end(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop waiting, as the run ends. A batch that is under way goes on; the same requests will find it.

        One that is being created is waited for, a little: unless it is remembered it would be paid twice. Those that
        have ended are forgotten only here, and only where nothing was raised: what they held is in the journal now.
        """
        self._api.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        await _cancelled(self._under_way)
        if self._creating:
            await asyncio.wait(self._creating, timeout=LONGEST_CREATION_S)
        await _cancelled(self._creating)
        for name, keys in self._ended if kind is None else ():
            self._records.drop(name, keys)

    def _send(self) -> None:
        asked, self._waiting = self._waiting, {}
        self._begin(asked, self._dispatch)

    def _begin(self, asked: _Part, step: Callable[..., Awaitable[None]], *more: Any) -> None:
        task = asyncio.create_task(self._carry_out(asked, step, *more))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _carry_out(
        self, asked: _Part, step: Callable[..., Awaitable[None]], *more: Any
    ) -> None:
        """Do what answers some requests; whatever goes wrong is each request's own error."""
        try:
            await step(asked, *more)
        except ModelError as error:
            _fail(asked, error)
        except Exception as error:  # noqa: BLE001 (whoever waits is told; another batch would be paid for in vain)
            said = f"The batch could not be carried out ({type(error).__name__}: {error})."
            _fail(asked, ModelConfigError(said, attempts=0))
        except asyncio.CancelledError:
            for one in asked.values():
                one.answer.cancel()
            raise

    async def _dispatch(self, asked: _Part) -> None:
        """Sort requests by the batch that holds them already, and put the rest into new ones."""
        await self._look_for_created(asked)
        batch_of = self._records.batches()
        known: dict[str, _Part] = {}
        new: _Part = {}
        for key, one in asked.items():
            part = known.setdefault(batch_of[key], {}) if key in batch_of else new
            part[key] = one
        for name, part in known.items():
            self._begin(part, self._resume, name)
        for part in _parts(new):
            self._begin(part, self._ask)

    async def _look_for_created(self, asked: _Part) -> None:
        """Find the batches whose creation an earlier process has asked for, and not lived to be told of."""
        for creation in self._records.creations():
            if not asked.keys().isdisjoint(creation.keys):
                found = await self._api.find(creation.digest, creation.file) or ()
                name = next((one.id for one in found if one.id not in creation.known), None)
                self._records.end(creation, name)

    async def _resume(self, asked: _Part, name: str) -> None:
        """Take the answers of a batch that an earlier run has left; what it gave up is asked anew."""
        try:
            batch = await self._api.show(name)
        except ModelUnavailable:  # it may be there all the same
            batch = state_of({"id": name})
        except ModelError as error:
            if error.status != NOT_FOUND:
                raise
            self._records.drop(name)
            await self._ask(asked)
            return
        was_given_up = batch.status in {"failed", "cancelled"}
        batch = await self._wait_for_end(batch)
        left = await self._settle(batch, asked)
        if not was_given_up:
            self._finish(batch, asked, left)
            return
        self._records.drop(name)
        if left:
            await self._ask(left)

    async def _ask(self, asked: _Part, patience: Patience | None = None) -> None:
        """Ask requests in a new batch; in smaller ones, one after the other, if the server takes none so large."""
        try:
            batch = await self._wait_for_end(await self._create(asked))
            if batch.queue_is_full:
                self._records.drop(batch.id)
                raise TooMuch(self._api.describe(batch), queue_is_full=True)  # noqa: TRY301 (as a creation does)
        except TooMuch as error:
            refusal = error
        else:
            self._finish(batch, asked, await self._settle(batch, asked))
            return
        if refusal.queue_is_full and await self._wait_for_another():
            await self._ask(asked)
        elif len(asked) > 1:
            for half in _halves(asked):
                await self._ask(half)
        elif refusal.queue_is_full:
            said = (
                f"The provider's queue of batch tokens has no place for a single request. {refusal}"
            )
            patience = patience or self._api.patience()
            await patience.wait(ModelUnavailable(said, busy=True, attempts=0))
            await self._ask(asked, patience)
        else:
            raise ModelConfigError(
                f"The server takes no such batch (LM(batch=True)). {refusal}", attempts=0
            )

    async def _create(self, asked: _Part) -> BatchState:
        """Have a batch of these requests: one of the same content that is under way, or a new one.

        Whoever stops waiting for it stops its upload, but not its creation.
        """
        content = b"\n".join(asked[key].line for key in sorted(asked))
        digest = digest_of(content)
        same = await self._api.find(digest, pages=1) or []
        for batch in same:
            if not batch.ended:
                self._records.add(batch.id, asked)
                return batch
        file = await self._api.upload(content)
        creation = Creation(file, digest, tuple(batch.id for batch in same), tuple(asked))
        creating = asyncio.create_task(self._created(creation))
        self._creating.add(creating)
        creating.add_done_callback(self._creating.discard)
        await asyncio.wait({creating})
        return creating.result()

    async def _created(self, creation: Creation) -> BatchState:
        """Create a batch and remember it: from its creation on it is paid for.

        What may have been created is remembered, too, until it is known; the next run looks for it.
        """
        self._records.begin(creation)
        try:
            batch = await self._api.create(
                creation.file, creation.digest, frozenset(creation.known)
            )
        except (TooMuch, ModelConfigError):
            self._records.end(creation, None)
            raise
        self._records.end(creation, batch.id)
        return batch

    async def _wait_for_end(self, batch: BatchState) -> BatchState:
        """Ask after a batch until it has ended.

        Raises:
            ModelUnavailable: the server does not tell of it any more, or it never ends; the run ends.
        """
        marker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._polled.add(marker)
        patience = self._api.patience(counted=False)  # a poll that fails says nothing of the batch
        latest, poll_s = CLOCK.now() + LONGEST_BATCH_S, self.first_poll_s
        try:
            while not batch.ended:
                if CLOCK.now() > latest:
                    raise _given_up(
                        f"The batch {batch.id} has not ended within {LONGEST_BATCH_S / 3600:.0f} hours."
                    )
                await asyncio.sleep(poll_s)
                poll_s = min(LONGEST_WAIT_S, poll_s * GROWTH)
                try:
                    batch = await self._api.show(batch.id)
                    patience.restore()
                except ModelError as error:
                    await patience.wait(_unseen(batch, error))
            return batch
        finally:
            self._polled.discard(marker)
            marker.set_result(None)

    async def _wait_for_another(self) -> bool:
        """Wait until another batch of this run has ended, and left its place in the queue; False if there is none."""
        if not self._polled:
            return False
        await asyncio.wait(set(self._polled), return_when=asyncio.FIRST_COMPLETED)
        return True

    async def _settle(self, batch: BatchState, asked: _Part) -> _Part:
        """Give each request what the batch's files have for it; those that it has not answered are given back."""
        lines: list[dict[str, Any]] = []
        for file in batch.files:
            lines += (await self._api.lines(file)).read
        answers = by_request(lines)
        return {
            key: one
            for key, one in asked.items()
            if not self._is_answered(one, answers.get(key, ()))
        }

    def _is_answered(self, one: _Asked, lines: Sequence[Mapping[str, Any]]) -> bool:
        """Answer a request by its lines, if one of them has an answer or an error. What all of them took is counted."""
        reply: Reply | None = None
        failure: ModelError | None = None
        spent = Usage()
        for line in lines:
            response = line.get("response")
            if not isinstance(response, dict):
                continue  # the line says only why there is none
            try:
                answer = self.model.read(response, one.request)
            except ModelError as error:
                failure = failure or error
                spent += error.usage or Usage()
            else:
                reply = reply or answer
                spent += answer.usage
        if one.answer.done() or (reply is None and failure is None):
            return one.answer.done()
        if reply is not None:
            one.answer.set_result(replace(reply, usage=spent))
        elif failure is not None:
            failure.usage = spent if spent.calls else None
            one.answer.set_exception(_of_one_request(failure))
            one.answer.exception()  # whoever asked may be gone
        return True

    def _finish(self, batch: BatchState, asked: _Part, left: _Part) -> None:
        """Tell those without an answer why.

        Raises:
            ModelError: nothing that follows would succeed, and the run ends.
        """
        self._ended.append((batch.id, asked.keys()))
        if not left:
            return
        if batch.status == "failed":
            said = f"The server failed the whole batch {batch.id}: {self._api.describe(batch)}."
            raise ModelConfigError(f"{said} Check LM(batch=True).", attempts=0)
        if batch.status == "cancelled":
            raise _given_up(
                f"The batch {batch.id} was cancelled before it had answered {len(left):,} of its requests."
            )
        _fail(
            left, ModelUnavailable(f"The batch {batch.status} without an answer to this request.")
        )


def _fail(asked: _Part, failure: ModelError) -> None:
    for one in asked.values():
        if not one.answer.done():
            one.answer.set_exception(
                copy.copy(failure)
            )  # to each its own: its tries are counted on it
            one.answer.exception()  # whoever asked may be gone


def _of_one_request(error: ModelError) -> ModelError:
    """Give the failure of a request among others: whether it is the configuration shows when it is asked alone."""
    if not isinstance(error, ModelConfigError):
        return error
    failure = ModelUnavailable(str(error), status=error.status, request_id=error.request_id)
    failure.usage = error.usage
    return failure


def _unseen(batch: BatchState, error: ModelError) -> ModelUnavailable:
    """Say that a batch cannot be asked after, which may pass; unless it is a matter of the key.

    Raises:
        ModelError: it is.
    """
    if not isinstance(error, ModelUnavailable) and error.status != NOT_FOUND:
        raise error
    said = f"The server does not tell of the batch {batch.id} any more; the same call finds it again. {error}"
    busy, gone = getattr(error, "busy", False), getattr(error, "gone", False)
    return ModelUnavailable(
        said,
        status=error.status,
        busy=busy,
        gone=gone,
        retry_after_s=getattr(error, "retry_after_s", None),
        attempts=0,
    )


def _given_up(message: str) -> ModelUnavailable:
    return run_ending(f"{message} What it has answered is found; the same call goes on from there.")


def _parts(asked: _Part) -> Iterator[_Part]:
    """Divide requests into batches that are neither too many nor too large."""
    part: _Part = {}
    size = 0
    for key, one in asked.items():
        if part and (len(part) >= MOST_REQUESTS or size + len(one.line) > MOST_BYTES):
            yield part
            part, size = {}, 0
        part[key] = one
        size += len(one.line) + 1
    if part:
        yield part


def _halves(asked: _Part) -> tuple[_Part, _Part]:
    keys = list(asked)
    middle = len(keys) // 2
    return {key: asked[key] for key in keys[:middle]}, {key: asked[key] for key in keys[middle:]}


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    ended = [*tasks]
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
