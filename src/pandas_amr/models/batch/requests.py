"""The requests of a batch, and how they are divided into batches and answered."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from pandas_amr._records.usage import NO_USAGE
from pandas_amr.errors import ModelConfigError, ModelError, ModelUnavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pandas_amr.models.base import Reply, Request

MOST_REQUESTS = 10_000  # in one batch; the provider's own limit is 50,000
MOST_BYTES = 100_000_000  # of the file of one batch; the provider's own limit is 200 MB


@dataclass
class BatchedRequest:
    """A request of a batch.

    Attributes:
        request: the request.
        line: its line in the file of the batch.
        answer: its reply, or its error.
    """

    request: Request
    line: bytes
    answer: asyncio.Future[Reply]

    def read_lines(
        self,
        lines: Sequence[Mapping[str, Any]],
        read: Callable[[Mapping[str, Any], Request], Reply],
    ) -> bool:
        """Set the answer or the error that the lines have; False if they have neither.

        All answers in the lines are paid for, so their usage is added up.
        """
        reply: Reply | None = None
        failure: ModelError | None = None
        spent = NO_USAGE
        for line in lines:
            response = line.get("response")
            if not isinstance(response, dict):
                continue  # the line only says why there is none
            try:
                answer = read(response, self.request)
            except ModelError as error:
                failure = failure or error
                spent += error.usage or NO_USAGE
            else:
                reply = reply or answer
                spent += answer.usage
        if self.answer.done():
            return True
        if reply is not None:
            self.answer.set_result(replace(reply, usage=spent))
        elif failure is not None:
            failure.usage = spent if spent.calls else None
            self.fail(_without_configuration(failure))
        return self.answer.done()

    def fail(self, error: ModelError) -> None:
        """Set the error, if there is no answer yet."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # no warning if whoever waited is gone


Part: TypeAlias = dict[str, BatchedRequest]  # the requests of one batch, by the ids of their lines


def fail_all(part: Part, error: ModelError) -> None:
    """Set an error for all requests that have no answer yet."""
    for request in part.values():
        request.fail(copy.copy(error))  # each request counts its tries on its own error


def _without_configuration(error: ModelError) -> ModelError:
    """Convert an error of the configuration, which would end the run, into one of its request.

    Whether it is the configuration shows when the request is sent alone.
    """
    if not isinstance(error, ModelConfigError):
        return error
    failure = ModelUnavailable(str(error), status=error.status, request_id=error.request_id)
    failure.usage = error.usage
    return failure


def divide_into_batches(requests: Part) -> Iterator[Part]:
    """Divide requests into batches that have neither too many requests nor too many bytes."""
    part: Part = {}
    size = 0
    for key, request in requests.items():
        if part and (len(part) >= MOST_REQUESTS or size + len(request.line) > MOST_BYTES):
            yield part
            part, size = {}, 0
        part[key] = request
        size += len(request.line) + 1
    if part:
        yield part


def halve(part: Part) -> tuple[Part, Part]:
    """Divide the requests of a batch into two."""
    keys = list(part)
    middle = len(keys) // 2
    first = {key: part[key] for key in keys[:middle]}
    second = {key: part[key] for key in keys[middle:]}
    return first, second
