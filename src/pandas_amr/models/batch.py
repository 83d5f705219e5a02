"""The provider's batch endpoint: maps without tools in one file, at half the price, whenever it has time.

Upload, create, poll, download, as OpenAI's Batch API has it. What is asked in a batch is remembered while it is under
way: the same requests after a crash find it again, among whatever others.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._cache import cache_folder
from pandas_amr.errors import ModelConfigError, ModelError, ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pandas_amr.models.base import Model, Reply, Request
    from pandas_amr.models.endpoint import Endpoint

MOST_REQUESTS = 10_000  # in one batch; the provider's own bound is 50,000 and 200 MB
LINGER_S = 0.25  # without a new request before a batch is sent
LONGEST_POLL_S = 60.0
LONGEST_CREATION_S = 8.0  # that a run which stops waits for the name of a batch it has asked for
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


def takes(request: Request) -> bool:
    """Whether a request can wait for a batch: a map's, and without tools."""
    return request.phase == "map" and not request.tools


@dataclass
class _Asked:
    request: Request
    body: dict[str, Any]
    answer: asyncio.Future[Reply]


@dataclass
class Batched:
    """Collects requests, sends them as batches, and answers each when its batch is done.

    Attributes:
        first_poll_s: how soon it is asked whether a batch is done; then less and less often.
    """

    model: Endpoint
    first_poll_s: float
    _waiting: dict[str, _Asked] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _creating: set[asyncio.Task[Any]] = field(default_factory=set)
    _ended: list[tuple[_Records, str, Collection[str]]] = field(default_factory=list)
    _answered: set[str] = field(default_factory=set)

    def before(self, rest: Model) -> Model:
        """A model that batches what can wait, and asks ``rest`` for all else."""
        return _Sorted(self, rest)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn when its batch is done.

        Raises:
            ModelUnavailable: the batch ended without an answer to this one: it may be asked again.
            ModelError: as the model inside.
        """
        body = self.model.body(request)
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
        asked = self._waiting.setdefault(key, _Asked(request, body, asyncio.get_running_loop().create_future()))
        if self._timer is not None:
            self._timer.cancel()
        linger_s = 0.0 if len(self._waiting) >= MOST_REQUESTS else LINGER_S
        self._timer = asyncio.get_running_loop().call_later(linger_s, self._send)
        return await asyncio.shield(asked.answer)

    async def end(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop waiting, as the run ends. A batch that is under way goes on; the same requests will find it.

        One that is being created is waited for, a little: unless it is remembered it would be paid twice. Those that
        have ended are forgotten only here, and only where nothing was raised: what they held is in the journal now.
        """
        if self._timer is not None:
            self._timer.cancel()
        await _cancelled(self._under_way)
        if self._creating:
            await asyncio.wait(self._creating, timeout=LONGEST_CREATION_S)
        await _cancelled(self._creating)
        for under_way, name, keys in self._ended if kind is None else ():
            under_way.drop(name, keys)

    def _send(self) -> None:
        asked, self._waiting = self._waiting, {}
        under_way = _Records(self.model.address[0])
        batch_of = under_way.batches()
        parts: dict[str | None, dict[str, _Asked]] = {}
        for key, one in asked.items():
            known = None if key in self._answered else batch_of.get(key)  # what it said is asked again: it was no use
            parts.setdefault(known, {})[key] = one
        for known, part in parts.items():
            task = asyncio.create_task(self._carry_out(part, known, under_way))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _carry_out(self, asked: dict[str, _Asked], known: str | None, under_way: _Records) -> None:
        """One batch from its file to its answers; whatever goes wrong is each request's own error."""
        try:
            told = await self._begun(asked, known, under_way)
            poll_s = self.first_poll_s
            while told.status not in ENDED:
                await asyncio.sleep(poll_s)
                poll_s = min(LONGEST_POLL_S, poll_s * 1.5)
                with contextlib.suppress(ModelUnavailable):  # one poll that fails says nothing of the batch
                    told = await self._shown(told.id)
            for file in (told.output_file_id, told.error_file_id):
                if file is not None:
                    self._settle(asked, await self._lines(file))
            self._ended.append((under_way, told.id, asked.keys()))
            self._answered.update(asked)
            failure = _unanswered(told)
        except ModelError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 (whoever waits is told; another batch would be paid for in vain)
            failure = ModelConfigError(f"The batch could not be carried out ({type(error).__name__}: {error}).")
        except asyncio.CancelledError:
            for one in asked.values():
                one.answer.cancel()
            raise
        for one in asked.values():
            if not one.answer.done():
                one.answer.set_exception(copy.copy(failure))  # to each its own: its tries are counted on it
                one.answer.exception()  # whoever asked may be gone

    async def _begun(self, asked: dict[str, _Asked], known: str | None, under_way: _Records) -> Any:
        """The batch that holds these requests: the one under way, or a new one."""
        told = await self._resumed(known, under_way) if known is not None else None
        return told if told is not None else await self._created(asked, under_way)

    async def _resumed(self, known: str, under_way: _Records) -> Any:
        """The batch that an earlier process has left under way; None where nothing will come of it."""
        try:
            told = await self._shown(known)
        except ModelConfigError:  # 404: the server has forgotten it
            told = None
        if told is None or told.status in {"failed", "cancelled"}:
            under_way.drop(known)
            return None
        return told

    async def _created(self, asked: dict[str, _Asked], under_way: _Records) -> Any:
        """A new batch. Whoever stops waiting for it stops its upload, but not its creation."""
        lines = (
            json.dumps({"custom_id": key, "method": "POST", "url": ENDPOINT, "body": one.body})
            for key, one in sorted(asked.items())
        )
        content = io.BytesIO("\n".join(lines).encode())
        uploaded = await self.model.call(
            lambda client: client.files.create(file=("pandas-amr.jsonl", content), purpose="batch")
        )
        creating = asyncio.create_task(self._remembered(uploaded.id, asked, under_way))
        self._creating.add(creating)
        creating.add_done_callback(self._creating.discard)
        await asyncio.wait({creating})
        return creating.result()

    async def _remembered(self, file: str, asked: dict[str, _Asked], under_way: _Records) -> Any:
        """The batch of a file, created and remembered: from its creation on it is paid for."""
        told = await self.model.call(
            lambda client: client.batches.create(input_file_id=file, endpoint=ENDPOINT, completion_window="24h")
        )
        under_way.add(told.id, asked)
        return told

    async def _shown(self, name: str) -> Any:
        return await self.model.call(lambda client: client.batches.retrieve(name))

    async def _lines(self, file: str) -> list[dict[str, Any]]:
        content = await self.model.call(lambda client: client.files.content(file))
        return list(_decoded(content.text))

    def _settle(self, asked: dict[str, _Asked], lines: list[dict[str, Any]]) -> None:
        for line in lines:
            one = asked.get(str(line.get("custom_id")))
            if one is None or one.answer.done():
                continue
            try:
                one.answer.set_result(self.model.read(line.get("response") or {}, one.request))
            except ModelError as error:
                one.answer.set_exception(error)
                one.answer.exception()


@dataclass(frozen=True)
class _Sorted:
    """What can wait goes into a batch."""

    batched: Batched
    rest: Model

    async def complete(self, request: Request) -> Reply:
        """Answer one turn."""
        return await (self.batched if takes(request) else self.rest).complete(request)


def _unanswered(told: Any) -> ModelError:
    """What is said to a request that a batch has no answer to."""
    if told.status == "failed":
        return ModelConfigError(f"The server failed the whole batch {told.id}. Check LM(batch=True).")
    return ModelUnavailable(f"The batch {told.status} without an answer to this request.")


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    ended = [*tasks]
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)


def _decoded(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            decoded = json.loads(line)
        except ValueError:
            continue  # its request is then without an answer, which is told
        if isinstance(decoded, dict):
            yield decoded


class _Records:
    """The batches under way at a server, each in a file: its id, and which requests it holds, as digests."""

    def __init__(self, server: str) -> None:
        folder = hashlib.sha256(server.encode()).hexdigest()[:16]
        try:
            self._folder = cache_folder() / "batches" / folder
        except OSError:  # no home: below this nothing can be written, and nothing is remembered
            self._folder = Path(os.devnull) / folder

    def batches(self) -> dict[str, str]:
        """The batch that holds a request, by the request's digest."""
        known: dict[str, str] = {}
        for file in sorted(self._folder.glob("*.json")):
            name, keys = _read(file)
            known |= dict.fromkeys(keys, name)
        return known

    def add(self, name: str, keys: Iterable[str]) -> None:
        """Remember a batch. Where the folder cannot be written it is not found again after a crash, and no worse."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file(name).write_text(json.dumps({"id": name, "keys": sorted(keys)}), encoding="utf-8")

    def drop(self, name: str, keys: Collection[str] | None = None) -> None:
        """Forget a batch, or those of its requests that have been answered."""
        left = [] if keys is None else [key for key in _read(self._file(name))[1] if key not in keys]
        if left:
            self.add(name, left)
        else:
            with contextlib.suppress(OSError):  # then it is looked at again, and found to hold nothing
                self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _read(file: Path) -> tuple[str, list[str]]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return str(told["id"]), [str(key) for key in told["keys"]]
    except (OSError, ValueError, KeyError, TypeError):  # half written by a process that died: nothing is known of it
        return "", []
