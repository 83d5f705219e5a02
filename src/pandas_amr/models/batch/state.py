"""Read the state of a batch and the lines of its files; nothing in them is relied on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.json_fields import get_field, get_list, get_text
from pandas_amr.errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Status = Literal["completed", "failed", "expired", "cancelled", "under way"]

METADATA = "pandas_amr_content"  # the metadata of a batch that holds the digest of its content
QUEUE_FULL = "token_limit_exceeded"
QUEUE_FULL_WORDS = "enqueued token"
# Compatible servers have other words: Maritaca "succeeded", others the American spelling.
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
    """One of the errors for which a server failed a whole batch."""

    message: str
    code: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.message
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class BatchState:
    """The state of a batch, as a server reports it.

    Attributes:
        input_file: the file of its requests.
        files: the files of its answers and errors, if they exist.
        digest: of its content, if this library made it.
    """

    id: str
    status: Status
    input_file: str | None
    files: tuple[str, ...]
    digest: str | None
    problems: tuple[BatchProblem, ...]

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status != "under way"

    @property
    def queue_is_full(self) -> bool:
        """Whether it failed because the account may have no more tokens in the queue."""
        if self.status != "failed":
            return False
        for problem in self.problems:
            if problem.code == QUEUE_FULL or says_queue_is_full(problem.message):
                return True
        return False


def says_queue_is_full(message: str) -> bool:
    """Tell whether a message says that the account may have no more tokens in the queue."""
    return QUEUE_FULL_WORDS in message.lower()


def state_of(entry: object) -> BatchState:
    """Read the state of a batch. One with an unknown status has not ended.

    Raises:
        ModelUnavailable: the entry is not a batch.
    """
    if not isinstance(entry, dict) or not get_text(entry.get("id")):
        raise ModelUnavailable("The server's answer is not a batch.")
    status = str(entry.get("status") or "").strip().lower()
    files = (get_text(entry.get("output_file_id")), get_text(entry.get("error_file_id")))
    digest = get_text(get_field(entry.get("metadata"), METADATA))
    return BatchState(
        id=str(entry["id"]),
        status=ENDED.get(status, "under way"),
        input_file=get_text(entry.get("input_file_id")),
        files=tuple(file for file in files if file is not None),
        digest=digest,
        problems=tuple(_read_problems(entry.get("errors"))),
    )


def _read_problems(errors: object) -> Iterator[BatchProblem]:
    if isinstance(errors, dict):
        errors = errors.get("data")
    for error in get_list(errors):
        if isinstance(error, str):
            yield BatchProblem(error)
        elif isinstance(error, dict):
            line, code = error.get("line"), get_text(error.get("code"))
            if not isinstance(line, int):
                line = None
            message = get_text(error.get("message")) or code or "no reason given"
            yield BatchProblem(message, code, line)


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a batch's file; ``damaged`` counts the unreadable ones."""

    entries: tuple[dict[str, Any], ...]
    damaged: int


def lines_of(content: bytes) -> Lines:
    """Read the lines of a file. Only a line feed ends one: JSON allows other line ends in texts."""
    entries: list[dict[str, Any]] = []
    damaged = 0
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            decoded = json.loads(line)
        except (ValueError, RecursionError):
            decoded = None
        if isinstance(decoded, dict):
            entries.append(decoded)
        else:
            damaged += 1
    return Lines(tuple(entries), damaged)


def by_request(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group lines by the request that they answer; a repeated line counts once."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        group = groups.setdefault(str(line.get("custom_id")), [])
        if not any(_is_same(line, other) for other in group):
            group.append(line)
    return groups


def _is_same(line: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two lines are the same answer; a repeated line may have another id."""
    is_same_answer = line.get("response") == other.get("response")
    return is_same_answer and line.get("error") == other.get("error")
