"""The provider's batch endpoint, step by step: each is tried again by itself, and none of them is paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.clock import CLOCK
from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.batch.state import (
    METADATA,
    BatchState,
    Lines,
    lines_of,
    says_queue_is_full,
    state_of,
)
from pandas_amr.models.contact import patience_s
from pandas_amr.models.openai.reply import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pandas_amr.models.base import LM
    from pandas_amr.models.openai.endpoint import Endpoint

LONGEST_WAIT_S = 60.0
GROWTH = 1.5  # of the time between two polls, or two tries
LONGEST_FILE_S = 600.0  # to upload or download one
PAGE = 100  # of a list, the most that servers give
MOST_PAGES = 20
DOWNLOADS = 2  # of a file with lines that cannot be read
MOST_PROBLEMS = 3  # of a failed batch, that an error tells
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NOT_THERE = frozenset({404, 405, 501})
TOO_LARGE = re.compile(r"too large|exceeds? .*(size|limit of \d+ ?[km]?b)", re.IGNORECASE)
# A file is not known everywhere at once: a batch may be refused a moment after the upload of its file.
NO_FILE = re.compile(
    r"(cannot|could not|can't) find .*file|no such file|file .*(not found|does not exist)",
    re.IGNORECASE,
)


class TooMuch(Exception):
    """The server takes no batch of this size, at least not now."""

    def __init__(self, reason: str, *, queue_is_full: bool) -> None:
        super().__init__(reason)
        self.queue_is_full = queue_is_full


@dataclass(slots=True)
class Patience:
    """How often and how long one step is tried: as a request is, by ``max_tries`` and ``patience_s``.

    Attributes:
        counted: whether failures that are neither 429 nor a missing server use up ``max_tries``.
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
            ModelUnavailable: the error itself; there is none, and the run ends.
        """
        now = CLOCK.now()
        self.began = now if self.began is None else self.began
        self.failures += 1
        wait_s = max(error.retry_after_s or 0.0, random.uniform(0.5, 1.0) * self.wait_s)  # noqa: S311 (jitter)
        self.wait_s = min(LONGEST_WAIT_S, self.wait_s * GROWTH)
        used_up = (
            self.counted and not (error.busy or error.gone) and self.failures >= self.lm.max_tries
        )
        if used_up or now - self.began + wait_s > patience_s(self.lm, self.server, gone=error.gone):
            error.stops_run = True
            raise error
        await asyncio.sleep(wait_s)

    def restore(self) -> None:
        """Begin anew, after a success."""
        self.began, self.failures = None, 0


@dataclass
class BatchAPI:
    """The batch endpoint behind a model, with the SDK's own retries off.

    Attributes:
        first_wait_s: between two tries of one step at first; then longer and longer.
        stopping: the run ends: nothing new is created.
    """

    model: Endpoint
    first_wait_s: float
    stopping: bool = field(default=False, init=False)
    _clients: tuple[Any, Any] | None = field(default=None, init=False)

    def patience(self, *, counted: bool = True) -> Patience:
        """What one step has."""
        return Patience(self.model.lm, self.model.address[0], self.first_wait_s, counted)

    async def upload(self, content: bytes) -> str:
        """Upload a batch's requests; the file's id. After a try whose answer was lost, the file is looked for first.

        Raises:
            TooMuch: the file is too large.
            ModelError: it cannot be had.
        """
        name = f"pandas-amr-{digest_of(content)[:32]}.jsonl"
        patience = self.patience()
        while True:
            try:
                return await self._upload(name, content)
            except ModelError as error:
                failure = self._passing("/files", error)
            await patience.wait(failure)
            if (
                may_have_arrived(failure)
                and (file := await self._find_file(name, len(content))) is not None
            ):
                return file

    async def _upload(self, name: str, content: bytes) -> str:
        told = await self._json(
            lambda client: client.files.with_raw_response.create(
                file=(name, content), purpose="batch"
            ),
            of_file=True,
        )
        file = told.get("id") if isinstance(told, dict) else None
        if not isinstance(file, str) or not file:
            raise ModelUnavailable("The server's answer is not a file.")
        return file

    async def _find_file(self, name: str, size: int) -> str | None:
        """Find an uploaded file by its name, which holds the digest of its content, and its size."""
        try:
            listed = await self._list("files", MOST_PAGES)
        except ModelError:  # a file that is uploaded twice costs nothing
            return None
        for told in listed:
            if (
                told.get("filename") == name
                and told.get("bytes") == size
                and isinstance(told.get("id"), str)
            ):
                return str(told["id"])
        return None

    async def create(self, file: str, digest: str, known: frozenset[str]) -> BatchState:
        """Create a batch. After a try whose answer was lost, it is looked for before it is made again.

        Args:
            file: its uploaded requests.
            digest: of their content.
            known: batches of this content that were there before.

        Raises:
            TooMuch: the account may have no more tokens in the queue.
            ModelError: it cannot be had.
        """
        patience = self.patience()
        metadata = {METADATA: digest}
        while True:
            try:
                return await self._create(file, metadata)
            except ModelError as error:
                if (
                    isinstance(error, ModelRejected)
                    and metadata
                    and "metadata" in str(error).lower()
                ):
                    metadata = {}
                    continue
                failure = self._passing("/batches", error)
            found = await self._after(failure, patience, file, digest, known)
            if found is not None:
                return found

    async def _create(self, file: str, metadata: dict[str, str]) -> BatchState:
        given: dict[str, Any] = {"metadata": metadata} if metadata else {}
        told = await self._json(
            lambda client: client.batches.with_raw_response.create(
                input_file_id=file, endpoint=ENDPOINT, completion_window="24h", **given
            )
        )
        return state_of(told)

    async def _after(
        self,
        failure: ModelUnavailable,
        patience: Patience,
        file: str,
        digest: str,
        known: frozenset[str],
    ) -> BatchState | None:
        """After a creation that failed: wait, and look whether there is a batch all the same."""
        ends = False
        try:
            if self.stopping:
                failure.stops_run = ends = True
            else:
                await patience.wait(failure)
        except ModelUnavailable:
            ends = True
        found = None
        if may_have_arrived(failure):
            listed = await self.find(digest, file)
            if listed is None:
                raise run_ending(
                    f"It is not known whether a batch was created ({failure}), and this server lists none. "
                    "Look there first: the same call makes another."
                )
            found = next((one for one in listed if one.id not in known), None)
        if found is None and ends:
            raise failure
        return found

    async def find(
        self, digest: str, file: str | None = None, *, pages: int = MOST_PAGES
    ) -> list[BatchState] | None:
        """Find batches by the digest of their content, or their file; None if this server lists none.

        Raises:
            ModelUnavailable: the server does not answer.
        """
        try:
            listed = await self._list("batches", pages)
        except ModelError as error:
            if isinstance(error, ModelUnavailable) and error.status not in NOT_THERE:
                raise
            return None
        found: list[BatchState] = []
        for told in listed:
            try:
                state = state_of(told)
            except ModelUnavailable:
                continue  # an entry of the list that is no batch
            if state.digest == digest or (file is not None and state.input_file == file):
                found.append(state)
        return found

    async def _list(self, kind: Literal["files", "batches"], pages: int) -> list[dict[str, Any]]:
        """List what a server has, page by page, within bounds; the newest come first."""
        entries: list[dict[str, Any]] = []
        after: str | None = None
        for _ in range(pages):
            told = await self._tried(partial(self._page, kind, after))
            listed = told.get("data") if isinstance(told, dict) else None
            page = (
                [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            )
            entries += page
            last = page[-1].get("id") if page else None
            if (
                not isinstance(last, str)
                or last == after
                or not told.get("has_more", len(page) >= PAGE)
            ):
                break
            after = last
        return entries

    async def _page(self, kind: Literal["files", "batches"], after: str | None) -> Any:
        given: dict[str, Any] = {"limit": PAGE} | ({"after": after} if after is not None else {})
        return await self._json(
            lambda client: getattr(client, kind).with_raw_response.list(**given)
        )

    async def show(self, batch: str) -> BatchState:
        """Look at a batch, once.

        Raises:
            ModelError: the server does not tell.
        """
        return state_of(
            await self._json(lambda client: client.batches.with_raw_response.retrieve(batch))
        )

    async def lines(self, file: str) -> Lines:
        """Read a batch's file; once more if lines of it are damaged.

        Raises:
            ModelError: it cannot be had.
        """
        lines = Lines((), 0)
        for _ in range(DOWNLOADS):
            raw = await self._tried(partial(self._content, file))
            lines = lines_of(raw.content)
            if not lines.damaged:
                break
        return lines

    async def _content(self, file: str) -> Any:
        return await self._call(
            lambda client: client.files.with_raw_response.content(file), of_file=True
        )

    def describe(self, batch: BatchState) -> str:
        """Say why a server failed a batch, in its own words and without the key."""
        told = [self.model.without_key(str(problem)) for problem in batch.problems[:MOST_PROBLEMS]]
        more = len(batch.problems) - len(told)
        return (
            "; ".join(told) + (f"; and {more:,} more" if more else "")
            if told
            else "it does not say why"
        )

    async def _tried(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """Carry out a step that can be repeated, until it succeeds.

        Raises:
            ModelError: it does not.
        """
        patience = self.patience()
        while True:
            try:
                return await step()
            except ModelUnavailable as error:
                if error.status in NOT_THERE:
                    raise
                await patience.wait(error)

    async def _json(self, work: Callable[[Any], Awaitable[Any]], *, of_file: bool = False) -> Any:
        return read_body((await self._call(work, of_file=of_file)).content)

    async def _call(self, work: Callable[[Any], Awaitable[Any]], *, of_file: bool = False) -> Any:
        """Carry out a step in the time of a request; one that moves a file has as long as that needs."""
        timeout_s = self.model.lm.timeout_s
        timeout_s = max(LONGEST_FILE_S, timeout_s) if of_file else timeout_s
        return await self.model.call(
            lambda client: work(self._without_retries(client)), timeout_s=timeout_s
        )

    def _without_retries(self, client: Any) -> Any:
        """Give the client with the SDK's own retries off; it has the same connections."""
        if self._clients is None or self._clients[0] is not client:
            lm = self.model.lm
            headers = dict(lm.extra_headers or {})
            copied = client.with_options(
                max_retries=0, timeout=lm.timeout_s, default_headers=headers
            )
            self._clients = client, copied
        return self._clients[1]

    def _passing(self, path: str, error: ModelError) -> ModelUnavailable:
        """Give a failure after which a step is tried again.

        Raises:
            TooMuch: the server would take less.
            ModelConfigError: it takes no batch.
        """
        if says_queue_is_full(str(error)):
            raise TooMuch(str(error), queue_is_full=True)
        if isinstance(error, ModelRejected) and (
            error.status == 413 or TOO_LARGE.search(str(error))
        ):
            raise TooMuch(str(error), queue_is_full=False)
        if NO_FILE.search(str(error)):
            return ModelUnavailable(str(error), status=error.status, attempts=0)
        error.attempts = 0  # of the requests in it none was answered, or refused
        if error.status in NOT_THERE:
            said = f"LM(batch=True) needs a batch API, and this server has none: POST {path} was answered {error.status}."
            said += " Without batch= the same call asks directly."
            raise ModelConfigError(said, status=error.status, attempts=0)
        if isinstance(error, ModelUnavailable):
            return error
        if isinstance(error, ModelConfigError):
            raise error
        said = f"The server takes no such batch (LM(batch=True)). {error}"
        raise ModelConfigError(said, status=error.status, request_id=error.request_id, attempts=0)


def digest_of(content: bytes) -> str:
    """Give what a batch's content is known by."""
    return hashlib.sha256(content).hexdigest()


def may_have_arrived(error: ModelUnavailable) -> bool:
    """Whether the server may have done what was asked, though it did not answer so."""
    return not (error.busy or error.gone or NO_FILE.search(str(error)))


def run_ending(message: str) -> ModelUnavailable:
    """Make an error that ends its run."""
    error = ModelUnavailable(message, attempts=0)
    error.stops_run = True
    return error
