"""The budget around a model: reserved before a request, settled after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pandas_amr._records.tokens import per_character
from pandas_amr._records.usage import Budget, Ledger, Usage
from pandas_amr.errors import BudgetExceeded, ModelError
from pandas_amr.models.sent import Sent, sent_requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr.models.base import Model, Reply, Request
    from pandas_amr.models.lessons import Lessons


@dataclass
class Purse:
    """What a run may spend: its budget, what is spent and what requests in flight have reserved."""

    budget: Budget
    ledger: Ledger
    reserved: Usage = field(default_factory=Usage)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    async def reserve(self, estimate: Usage) -> None:
        """Set an estimate aside; wait while only what is in flight stands in its way.

        Raises:
            BudgetExceeded: what is left of the budget does not hold it.
        """
        while (exceeded := self._exceeded(self.reserved + estimate)) is not None:
            if self._exceeded(estimate) is not None:
                raise BudgetExceeded(exceeded, self.ledger.total)
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        self.reserved += estimate

    def _exceeded(self, more: Usage) -> str | None:
        """Say which limit is exceeded by so much more than what is spent; None if none is."""
        total = self.ledger.total + more
        for name, spent, most in (
            ("calls", total.calls, self.budget.calls),
            ("tokens", total.tokens, self.budget.tokens),
            ("money", total.money, self.budget.money),
        ):
            if most is not None and spent is not None and spent > most:
                return f"The budget of {most:g} {name} is used up."
        return None

    def settle(self, estimate: Usage) -> None:
        """Give an estimate back; what was really spent stands in the ledger."""
        self.reserved = self.reserved - estimate
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


class Metered:
    """Answers like the model inside; each request is reserved before, and entered in the run's ledger after it.

    ``half`` says that its requests cost half, as those of a batch do. ``most`` is the greatest size of an answer, in
    tokens, if it is bounded; else answers are expected to be as large as those before.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str,
        lessons: Lessons,
        purse: Purse,
        price: Callable[[Usage], float | None],
        half: bool,
        most: int | None = None,
    ) -> None:
        self._model = model
        self._name = name
        self._lessons = lessons
        self._purse = purse
        self._price = price
        self._half = half
        self._most = most

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            BudgetExceeded: the budget does not hold another request.
            ModelError: as the model inside; its ``usage`` is priced.
        """
        estimate = self._estimate(request)
        await self._purse.reserve(estimate)
        sent = Sent()
        mark = sent_requests.set(sent)
        try:
            reply = await self._model.complete(request)
        except ModelError as error:
            usage = self._priced(error.usage or Usage())
            error.usage = usage if error.usage is not None else None
            self._enter(request, replace(usage, tries=error.attempts))
            raise
        except BaseException:
            self._enter(request, self._dropped(sent, estimate))
            raise
        finally:
            sent_requests.reset(mark)
            self._purse.settle(estimate)
        usage = self._priced(reply.usage)
        self._enter(request, usage)
        return replace(reply, usage=usage)

    def _estimate(self, request: Request) -> Usage:
        characters = sum(len(message.content or "") for message in request.messages)
        expected = self._most or self._lessons.expected_tokens(request.phase)
        tokens = Usage(
            calls=1,
            input_tokens=int(characters * per_character(self._name)),
            output_tokens=int(expected),
        )
        return self._priced(tokens)

    def _dropped(self, sent: Sent, estimate: Usage) -> Usage:
        """What requests took that were sent, and dropped before they were answered: nobody tells it."""
        tokens = Usage(
            tries=sent.count, input_tokens=sent.open * estimate.input_tokens, estimated=sent.open
        )
        return self._priced(tokens)

    def _enter(self, request: Request, usage: Usage) -> None:
        if usage.tries:
            self._purse.ledger.add(request.phase, self._name, usage)

    def _priced(self, usage: Usage) -> Usage:
        money = self._price(usage)
        return replace(usage, money=money / 2 if money is not None and self._half else money)
