"""The steps of the provider's batch API: each is tried again, and nothing is paid for twice."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.json_fields import get_field, get_list, get_text
from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.batch.patience import Patience
from pandas_amr.models.batch.state import (
    METADATA,
    BatchState,
    Lines,
    lines_of,
    says_queue_is_full,
    state_of,
)
from pandas_amr.models.openai.reply import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pandas_amr.models.openai.endpoint import Endpoint

LONGEST_FILE_S = 600.0  # to upload or download one
PAGE = 100  # entries of a list, the most that servers give
MOST_PAGES = 20
DOWNLOADS = 2  # of a file with unreadable lines
MOST_PROBLEMS = 3  # of a failed batch, that an error lists
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NOT_THERE = frozenset({404, 405, 501})
TOO_LARGE = re.compile(r"too large|exceeds? .*(size|limit of \d+ ?[km]?b)", re.IGNORECASE)
# A new file is not known on all servers at once: a batch may be refused just after its upload.
NO_FILE = re.compile(
    r"(cannot|could not|can't) find .*file|no such file|file .*(not found|does not exist)",
    re.IGNORECASE,
)


class TooMuch(Exception):
    """The server takes no batch of this size, at least not now."""

    def __init__(self, reason: str, *, queue_is_full: bool) -> None:
        super().__init__(reason)
        self.queue_is_full = queue_is_full


@dataclass
class BatchAPI:
    """The batch API of a server, with the SDK's own retries off.

    Attributes:
        model: the server.
        first_wait_s: between the first two tries of a step; later waits are longer.
        stopping: whether the run ends, so that nothing new is created.
    """

    model: Endpoint
    first_wait_s: float
    stopping: bool = field(default=False, init=False)
    _clients: tuple[Any, Any] | None = field(default=None, init=False)

    def patience(self, *, counted: bool = True) -> Patience:
        """Make the patience for one step."""
        return Patience(self.model.lm, self.model.address[0], self.first_wait_s, counted)

    async def upload(self, content: bytes) -> str:
        """Upload the requests of a batch; give the id of the file.

        If the answer to a try is lost, the file is looked for before it is uploaded again.

        Raises:
            TooMuch: the file is too large.
            ModelError: the upload failed.
        """
        name = f"pandas-amr-{digest_of(content)[:32]}.jsonl"
        patience = self.patience()
        while True:
            try:
                return await self._upload(name, content)
            except ModelError as error:
                failure = self._as_temporary("/files", error)
            await patience.wait(failure)
            if may_have_arrived(failure):
                file = await self._find_file(name, len(content))
                if file is not None:
                    return file

    async def _upload(self, name: str, content: bytes) -> str:
        entry = await self._json(
            lambda client: client.files.with_raw_response.create(
                file=(name, content), purpose="batch"
            ),
            of_file=True,
        )
        file = get_text(get_field(entry, "id"))
        if file is None:
            raise ModelUnavailable("The server's answer is not a file.")
        return file

    async def _find_file(self, name: str, size: int) -> str | None:
        """Find an uploaded file by its size and its name, which has the digest of its content."""
        try:
            entries = await self._list("files", MOST_PAGES)
        except ModelError:  # then it is uploaded twice, which costs nothing
            return None
        for entry in entries:
            is_same = entry.get("filename") == name and entry.get("bytes") == size
            if is_same and isinstance(entry.get("id"), str):
                return str(entry["id"])
        return None

    async def create(self, file: str, digest: str, known: frozenset[str]) -> BatchState:
        """Create a batch.

        If the answer to a try is lost, the batch is looked for before it is created again.

        Args:
            file: its uploaded requests.
            digest: of their content.
            known: batches of this content that existed before.

        Raises:
            TooMuch: the account may have no more tokens in the queue.
            ModelError: the creation failed.
        """
        patience = self.patience()
        metadata = {METADATA: digest}
        while True:
            try:
                return await self._create(file, metadata)
            except ModelError as error:
                is_rejected = isinstance(error, ModelRejected)
                if metadata and is_rejected and "metadata" in str(error).lower():
                    metadata = {}
                    continue
                failure = self._as_temporary("/batches", error)
            created = await self._look_after_failure(failure, patience, file, digest, known)
            if created is not None:
                return created

    async def _create(self, file: str, metadata: dict[str, str]) -> BatchState:
        options: dict[str, Any] = {}
        if metadata:
            options["metadata"] = metadata
        entry = await self._json(
            lambda client: client.batches.with_raw_response.create(
                input_file_id=file, endpoint=ENDPOINT, completion_window="24h", **options
            )
        )
        return state_of(entry)

    async def _look_after_failure(
        self,
        failure: ModelUnavailable,
        patience: Patience,
        file: str,
        digest: str,
        known: frozenset[str],
    ) -> BatchState | None:
        """Wait after a failed creation, then look whether the batch exists all the same.

        Raises:
            ModelUnavailable: the patience is used up, or it cannot be known whether it exists.
        """
        is_last = self.stopping
        if self.stopping:
            failure.fatal = True
        else:
            try:
                await patience.wait(failure)
            except ModelUnavailable:
                is_last = True
        if may_have_arrived(failure):
            batches = await self.find(digest, file)
            if batches is None:
                raise make_run_ending_error(
                    f"It is not known whether a batch was created ({failure}), and this server "
                    "lists none. Look there first: the same call creates another one."
                )
            for batch in batches:
                if batch.id not in known:
                    return batch
        if is_last:
            raise failure
        return None

    async def find(
        self, digest: str, file: str | None = None, *, pages: int = MOST_PAGES
    ) -> list[BatchState] | None:
        """Find batches by the digest of their content, or their file; None if none are listed.

        Raises:
            ModelUnavailable: the server does not answer.
        """
        try:
            entries = await self._list("batches", pages)
        except ModelError as error:
            if isinstance(error, ModelUnavailable) and error.status not in NOT_THERE:
                raise
            return None
        batches: list[BatchState] = []
        for entry in entries:
            try:
                state = state_of(entry)
            except ModelUnavailable:
                continue  # the entry is not a batch
            if state.digest == digest or (file is not None and state.input_file == file):
                batches.append(state)
        return batches

    async def _list(self, kind: Literal["files", "batches"], pages: int) -> list[dict[str, Any]]:
        """List what a server has, page by page, up to so many; the newest entries come first."""
        entries: list[dict[str, Any]] = []
        after: str | None = None
        for _ in range(pages):
            page = await self._repeat(partial(self._page, kind, after))
            new = _entries_of(page)
            entries += new
            last = get_field(new[-1], "id") if new else None
            if not isinstance(last, str) or last == after:
                break
            if not page.get("has_more", len(new) >= PAGE):
                break
            after = last
        return entries

    async def _page(self, kind: Literal["files", "batches"], after: str | None) -> Any:
        options: dict[str, Any] = {"limit": PAGE}
        if after is not None:
            options["after"] = after
        return await self._json(
            lambda client: getattr(client, kind).with_raw_response.list(**options)
        )

    async def show(self, batch: str) -> BatchState:
        """Get the state of a batch, with one try.

        Raises:
            ModelError: the server does not report it.
        """
        entry = await self._json(lambda client: client.batches.with_raw_response.retrieve(batch))
        return state_of(entry)

    async def lines(self, file: str) -> Lines:
        """Download the lines of a file; twice if some of them are damaged.

        Raises:
            ModelError: the download failed.
        """
        lines = Lines((), 0)
        for _ in range(DOWNLOADS):
            raw = await self._repeat(partial(self._content, file))
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
        if not batch.problems:
            return "it does not say why"
        reasons = [self.model.without_key(str(problem)) for problem in batch.problems]
        more = len(reasons) - MOST_PROBLEMS
        if more > 0:
            reasons = [*reasons[:MOST_PROBLEMS], f"and {more:,} more"]
        return "; ".join(reasons)

    async def _repeat(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """Run a step that may be repeated, until it succeeds.

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
        raw = await self._call(work, of_file=of_file)
        return read_body(raw.content)

    async def _call(self, work: Callable[[Any], Awaitable[Any]], *, of_file: bool = False) -> Any:
        """Call the client with the time limit of a request, or that of a file."""
        timeout_s = self.model.lm.timeout_s
        if of_file:
            timeout_s = max(LONGEST_FILE_S, timeout_s)
        return await self.model.call(
            lambda client: work(self._without_retries(client)), timeout_s=timeout_s
        )

    def _without_retries(self, client: Any) -> Any:
        """Copy the client with the SDK's own retries off; the copy has the same connections."""
        if self._clients is None or self._clients[0] is not client:
            lm = self.model.lm
            headers = dict(lm.extra_headers or {})
            copied = client.with_options(
                max_retries=0, timeout=lm.timeout_s, default_headers=headers
            )
            self._clients = client, copied
        return self._clients[1]

    def _as_temporary(self, path: str, error: ModelError) -> ModelUnavailable:
        """Give the error of a step if it may be tried again.

        Raises:
            TooMuch: the server would take less.
            ModelConfigError: it takes no batch.
        """
        message = str(error)
        if says_queue_is_full(message):
            raise TooMuch(message, queue_is_full=True)
        is_rejected = isinstance(error, ModelRejected)
        if is_rejected and (error.status == 413 or TOO_LARGE.search(message)):
            raise TooMuch(message, queue_is_full=False)
        if NO_FILE.search(message):
            return ModelUnavailable(message, status=error.status, attempts=0)
        error.attempts = 0  # none of the requests in the batch was answered or refused
        if error.status in NOT_THERE:
            raise ModelConfigError(
                "LM(batch=True) needs a batch API, and this server has none: "
                f"POST {path} was answered {error.status}. "
                "Without batch= the same call sends its requests directly.",
                status=error.status,
                attempts=0,
            )
        if isinstance(error, ModelUnavailable):
            return error
        if isinstance(error, ModelConfigError):
            raise error
        raise ModelConfigError(
            f"The server takes no such batch (LM(batch=True)). {message}",
            status=error.status,
            request_id=error.request_id,
            attempts=0,
        )


def _entries_of(page: object) -> list[dict[str, Any]]:
    items = get_list(get_field(page, "data"))
    return [item for item in items if isinstance(item, dict)]


def digest_of(content: bytes) -> str:
    """Give the digest of the content of a batch."""
    return hashlib.sha256(content).hexdigest()


def may_have_arrived(error: ModelUnavailable) -> bool:
    """Tell whether the server may have done a step although its answer is an error."""
    return not (error.busy or error.gone or NO_FILE.search(str(error)))


def make_run_ending_error(message: str) -> ModelUnavailable:
    """Make an error that ends its run."""
    error = ModelUnavailable(message, attempts=0)
    error.fatal = True
    return error
