"""A model behind the provider's batch endpoint: upload, create, poll, download.

It follows OpenAI's Batch API. The requests of a batch are recorded while it is under way: the same
requests after a crash find it again, even among other requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.trace import record_wait
from pandas_amr.errors import ModelConfigError, ModelError, ModelUnavailable
from pandas_amr.models.batch.api import (
    ENDPOINT,
    BatchAPI,
    TooMuch,
    digest_of,
    make_run_ending_error,
)
from pandas_amr.models.batch.patience import GROWTH, LONGEST_WAIT_S
from pandas_amr.models.batch.records import Creation, Records
from pandas_amr.models.batch.requests import (
    MOST_REQUESTS,
    BatchedRequest,
    Part,
    divide_into_batches,
    fail_all,
    halve,
)
from pandas_amr.models.batch.state import by_request, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from pandas_amr.models.base import Reply, Request
    from pandas_amr.models.batch.patience import Patience
    from pandas_amr.models.batch.state import BatchState
    from pandas_amr.models.openai.endpoint import Endpoint

LINGER_S = 0.25  # without a new request, before a batch is sent
LONGEST_CREATION_S = 8.0  # for which a run that stops waits for the id of a batch it has created
# The provider's window is 24 hours. A server that never ends a batch is not waited for longer.
LONGEST_BATCH_S = 26 * 3600.0
NOT_FOUND = 404


@dataclass
class Batched:
    """Collects requests, sends them as batches, and answers each when its batch has ended.

    Attributes:
        model: the server.
        first_poll_s: seconds until the state of a batch is first checked; later ones are longer.
    """

    model: Endpoint
    first_poll_s: float
    _queue: Part = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _creations: set[asyncio.Task[Any]] = field(default_factory=set)
    _ended: list[tuple[str, Collection[str]]] = field(default_factory=list)
    _polled: set[asyncio.Future[None]] = field(default_factory=set)
    _used_ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._api = BatchAPI(self.model, self.first_poll_s)
        self._records = Records(self.model.address[0])

    async def complete(self, request: Request) -> Reply:
        """Answer one turn when its batch has ended.

        Raises:
            ModelUnavailable: the batch ended without an answer to this request, which may be sent
                again; unless the error ``fatal``: then no batch can be created.
            ModelError: as the model inside.
        """
        loop = asyncio.get_running_loop()
        body = self.model.body(request)
        line_id = self._new_line_id(body)
        line = {"custom_id": line_id, "method": "POST", "url": ENDPOINT, "body": body}
        queued = BatchedRequest(request, json.dumps(line).encode(), loop.create_future())
        self._queue[line_id] = queued
        if self._timer is not None:
            self._timer.cancel()
        linger_s = 0.0 if len(self._queue) >= MOST_REQUESTS else LINGER_S
        self._timer = loop.call_later(linger_s, self._send_queue)
        with record_wait("batch"):
            return await asyncio.shield(queued.answer)

    def _new_line_id(self, body: dict[str, Any]) -> str:
        """Make the id of a line from its content. An equal request has a line of its own."""
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
        line_id, number = digest, 0
        while line_id in self._used_ids:
            number += 1
            line_id = f"{digest}-{number}"
        self._used_ids.add(line_id)
        return line_id

    async def end(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop waiting, as the run ends. A batch under way goes on; the same requests find it.

        A batch that is being created is waited for, within bounds: unless it is recorded, it would
        be paid for twice. The records of ended batches are dropped only here, and only if nothing
        was raised: then their answers are in the journal.
        """
        self._api.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        await _cancel(self._tasks)
        if self._creations:
            await asyncio.wait(self._creations, timeout=LONGEST_CREATION_S)
        await _cancel(self._creations)
        if kind is None:
            for batch_id, keys in self._ended:
                self._records.drop(batch_id, keys)

    # -- from the queue to batches -----------------------------------------------------------------

    def _send_queue(self) -> None:
        requests, self._queue = self._queue, {}
        self._start(self._dispatch, requests)

    def _start(self, step: Callable[..., Awaitable[None]], part: Part, *more: Any) -> None:
        task = asyncio.create_task(self._run(step, part, *more))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, step: Callable[..., Awaitable[None]], part: Part, *more: Any) -> None:
        """Run a step that answers some requests; an error becomes that of each request."""
        try:
            await step(part, *more)
        except ModelError as error:
            fail_all(part, error)
        except Exception as error:  # noqa: BLE001 (each request raises it; a retry would be paid for in vain)
            reason = f"{type(error).__name__}: {error}"
            failure = ModelConfigError(f"The batch could not be processed ({reason}).", attempts=0)
            fail_all(part, failure)
        except asyncio.CancelledError:
            for request in part.values():
                request.answer.cancel()
            raise

    async def _dispatch(self, requests: Part) -> None:
        """Resume the batches that hold some of the requests; create new ones for the rest."""
        await self._find_created(requests)
        batch_of = self._records.batches()
        recorded: dict[str, Part] = {}
        new: Part = {}
        for key, request in requests.items():
            if key in batch_of:
                recorded.setdefault(batch_of[key], {})[key] = request
            else:
                new[key] = request
        for batch_id, part in recorded.items():
            self._start(self._resume, part, batch_id)
        for part in divide_into_batches(new):
            self._start(self._ask, part)

    async def _find_created(self, requests: Part) -> None:
        """Find batches that an earlier process created without living to see their ids."""
        for creation in self._records.creations():
            if requests.keys().isdisjoint(creation.keys):
                continue
            batches = await self._api.find(creation.digest, creation.file) or []
            new = (batch.id for batch in batches if batch.id not in creation.known)
            self._records.end(creation, next(new, None))

    async def _resume(self, part: Part, batch_id: str) -> None:
        """Answer requests from a batch of an earlier run. If it was given up, send them again."""
        try:
            batch = await self._api.show(batch_id)
        except ModelUnavailable:  # it may exist all the same
            batch = state_of({"id": batch_id})
        except ModelError as error:
            if error.status != NOT_FOUND:
                raise
            self._records.drop(batch_id)
            await self._ask(part)
            return
        was_given_up = batch.status in {"failed", "cancelled"}
        batch = await self._wait_for_end(batch)
        left = await self._answer(part, batch)
        if not was_given_up:
            self._finish(batch, part, left)
            return
        self._records.drop(batch_id)
        if left:
            await self._ask(left)

    async def _ask(self, part: Part, patience: Patience | None = None) -> None:
        """Send requests in a new batch; if the server takes none so large, in smaller ones."""
        try:
            batch = await self._run_batch(part)
        except TooMuch as error:
            refusal = error
        else:
            self._finish(batch, part, await self._answer(part, batch))
            return
        if refusal.queue_is_full and await self._wait_for_another():
            await self._ask(part)
        elif len(part) > 1:
            for half in halve(part):
                await self._ask(half)
        elif refusal.queue_is_full:
            message = (
                f"The provider's queue of batch tokens has no place for a single request. {refusal}"
            )
            patience = patience or self._api.patience()
            await patience.wait(ModelUnavailable(message, busy=True, attempts=0))
            await self._ask(part, patience)
        else:
            message = f"The server takes no such batch (LM(batch=True)). {refusal}"
            raise ModelConfigError(message, attempts=0)

    async def _run_batch(self, part: Part) -> BatchState:
        """Create a batch and wait for its end.

        Raises:
            TooMuch: the server takes none of this size, at least not now.
        """
        batch = await self._wait_for_end(await self._create(part))
        if batch.queue_is_full:
            self._records.drop(batch.id)
            raise TooMuch(self._api.describe(batch), queue_is_full=True)
        return batch

    # -- one batch ---------------------------------------------------------------------------------

    async def _create(self, part: Part) -> BatchState:
        """Create a batch of some requests, unless one of the same content is under way.

        If the task is cancelled, its upload stops, but not its creation.
        """
        content = b"\n".join(part[key].line for key in sorted(part))
        digest = digest_of(content)
        same = await self._api.find(digest, pages=1) or []
        for batch in same:
            if not batch.ended:
                self._records.add(batch.id, part)
                return batch
        file = await self._api.upload(content)
        creation = Creation(file, digest, tuple(batch.id for batch in same), tuple(part))
        task = asyncio.create_task(self._create_recorded(creation))
        self._creations.add(task)
        task.add_done_callback(self._creations.discard)
        await asyncio.wait({task})
        return task.result()

    async def _create_recorded(self, creation: Creation) -> BatchState:
        """Create a batch and record it: from its creation on it is paid for.

        A creation without an outcome stays recorded; the next run looks for its batch.
        """
        self._records.begin(creation)
        known = frozenset(creation.known)
        try:
            batch = await self._api.create(creation.file, creation.digest, known)
        except (TooMuch, ModelConfigError):
            self._records.end(creation, None)
            raise
        self._records.end(creation, batch.id)
        return batch

    async def _wait_for_end(self, batch: BatchState) -> BatchState:
        """Poll a batch until it has ended.

        Raises:
            ModelUnavailable: the server no longer reports it, or it never ends; this ends the run.
        """
        marker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._polled.add(marker)
        try:
            return await self._poll(batch)
        finally:
            self._polled.discard(marker)
            marker.set_result(None)

    async def _poll(self, batch: BatchState) -> BatchState:
        patience = self._api.patience(counted=False)  # a failed poll says nothing about the batch
        latest, poll_s = CLOCK.now() + LONGEST_BATCH_S, self.first_poll_s
        while not batch.ended:
            if CLOCK.now() > latest:
                hours = f"{LONGEST_BATCH_S / 3600:.0f} hours"
                raise _make_giving_up_error(f"The batch {batch.id} has not ended within {hours}.")
            await asyncio.sleep(poll_s)
            poll_s = min(LONGEST_WAIT_S, poll_s * GROWTH)
            try:
                batch = await self._api.show(batch.id)
                patience.restore()
            except ModelError as error:
                await patience.wait(_not_reported(batch, error))
        return batch

    async def _wait_for_another(self) -> bool:
        """Wait until another batch of this run leaves the queue; False if there is none."""
        if not self._polled:
            return False
        await asyncio.wait(set(self._polled), return_when=asyncio.FIRST_COMPLETED)
        return True

    async def _answer(self, part: Part, batch: BatchState) -> Part:
        """Answer requests from the files of a batch; give those that have no answer there."""
        lines: list[dict[str, Any]] = []
        for file in batch.files:
            lines += (await self._api.lines(file)).entries
        lines_of = by_request(lines)
        left: Part = {}
        for key, request in part.items():
            if not request.read_lines(lines_of.get(key, ()), self.model.read):
                left[key] = request
        return left

    def _finish(self, batch: BatchState, part: Part, left: Part) -> None:
        """Note that a batch has ended; fail the requests that are left without an answer.

        Raises:
            ModelError: no later request would succeed, and the run ends.
        """
        self._ended.append((batch.id, part.keys()))
        if not left:
            return
        if batch.status == "failed":
            reason = self._api.describe(batch)
            raise ModelConfigError(
                f"The server failed the whole batch {batch.id}: {reason}. Check LM(batch=True).",
                attempts=0,
            )
        if batch.status == "cancelled":
            raise _make_giving_up_error(
                f"The batch {batch.id} was cancelled before it had answered {len(left):,} of its "
                "requests."
            )
        message = f"The batch {batch.status} without an answer to this request."
        fail_all(left, ModelUnavailable(message))


def _not_reported(batch: BatchState, error: ModelError) -> ModelUnavailable:
    """Make the error of a failed poll, after which it may be tried again.

    Raises:
        ModelError: the error itself, if a retry does not help: it is about the key.
    """
    message = (
        f"The server no longer reports the batch {batch.id}; the same call finds it again. {error}"
    )
    if isinstance(error, ModelUnavailable):
        return ModelUnavailable(
            message,
            status=error.status,
            busy=error.busy,
            gone=error.gone,
            retry_after_s=error.retry_after_s,
            attempts=0,
        )
    if error.status == NOT_FOUND:
        return ModelUnavailable(message, status=error.status, attempts=0)
    raise error


def _make_giving_up_error(message: str) -> ModelUnavailable:
    return make_run_ending_error(
        f"{message} Its answers are kept; the same call goes on from there."
    )


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    ended = [*tasks]
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
