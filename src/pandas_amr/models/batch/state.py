"""What a server tells of a batch, and the lines of its files: nothing is taken for granted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr.errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Status = Literal["completed", "failed", "expired", "cancelled", "under way"]

METADATA = "pandas_amr_content"  # the name under which a batch carries the digest of what it asks
QUEUE_FULL = "token_limit_exceeded"
QUEUE_FULL_WORDS = "enqueued token"
# Compatible servers have words of their own: Maritaca "succeeded", others the American spelling.
ENDED: Mapping[str, Status] = {
    "completed": "completed",
    "succeeded": "completed",
    "success": "completed",
    "done": "completed",
    "ended": "completed",
    "failed": "failed",
    "error": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """Why a server failed a batch as a whole: one of its errors."""

    message: str
    code: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return self.message if self.line is None else f"line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as a server tells of it.

    Attributes:
        input_file: the file of its requests.
        files: those of its answers and of its errors, as far as they are there.
        digest: of what it asks, if this library made it.
    """

    id: str
    status: Status
    input_file: str | None
    files: tuple[str, ...]
    digest: str | None
    problems: tuple[BatchProblem, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status != "under way"

    @property
    def queue_is_full(self) -> bool:
        """Whether it failed because the account may have no more tokens in the queue."""
        return self.status == "failed" and any(
            problem.code == QUEUE_FULL or says_queue_is_full(problem.message)
            for problem in self.problems
        )


def says_queue_is_full(message: str) -> bool:
    """Whether an error's text says that the account may have no more tokens in the queue."""
    return QUEUE_FULL_WORDS in message.lower()


def state_of(told: Any) -> BatchState:
    """Read what a server tells of a batch. A status that is not known is no end.

    Raises:
        ModelUnavailable: the answer does not tell of a batch.
    """
    if not isinstance(told, dict) or not _text(told.get("id")):
        raise ModelUnavailable("The server's answer is not a batch.")
    status = str(told.get("status") or "").strip().lower()
    files = (_text(told.get("output_file_id")), _text(told.get("error_file_id")))
    metadata = told.get("metadata")
    return BatchState(
        id=str(told["id"]),
        status=ENDED.get(status, "under way"),
        input_file=_text(told.get("input_file_id")),
        files=tuple(file for file in files if file is not None),
        digest=_text(metadata.get(METADATA)) if isinstance(metadata, dict) else None,
        problems=tuple(_problems(told.get("errors"))),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _problems(errors: Any) -> Iterator[BatchProblem]:
    listed = errors.get("data") if isinstance(errors, dict) else errors
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict):
            line = one.get("line")
            message = _text(one.get("message")) or _text(one.get("code")) or "no reason given"
            yield BatchProblem(
                message, _text(one.get("code")), line if isinstance(line, int) else None
            )
        elif isinstance(one, str):
            yield BatchProblem(one)


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a batch's file; ``damaged`` counts those that cannot be read."""

    read: tuple[dict[str, Any], ...]
    damaged: int


def lines_of(content: bytes) -> Lines:
    """Read the lines of a file. Only a line feed ends one: other ends of lines are in texts, where JSON allows them."""
    read: list[dict[str, Any]] = []
    damaged = 0
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            decoded = json.loads(line)
        except (ValueError, RecursionError):
            decoded = None
        if isinstance(decoded, dict):
            read.append(decoded)
        else:
            damaged += 1
    return Lines(tuple(read), damaged)


def by_request(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Sort lines by the request that they answer; the same line twice is one."""
    sorted_lines: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        said = sorted_lines.setdefault(str(line.get("custom_id")), [])
        if not any(_is_same(line, other) for other in said):
            said.append(line)
    return sorted_lines


def _is_same(line: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lines are one answer: a server that lists it twice may give each line an id of its own."""
    return line.get("response") == other.get("response") and line.get("error") == other.get("error")
