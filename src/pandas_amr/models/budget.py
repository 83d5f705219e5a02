"""The budget around a model: reserved before a call, settled after it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pandas_amr._tokens import per_character
from pandas_amr._usage import Budget, Ledger, Usage
from pandas_amr.errors import BudgetExceeded, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr.models.base import Model, Reply, Request

FIRST_OUTPUT_TOKENS = 100


@dataclass
class Purse:
    """What a run may spend: its budget, what is spent and what calls in flight have reserved."""

    budget: Budget
    ledger: Ledger
    reserved: Usage = field(default_factory=Usage)

    def reserve(self, estimate: Usage) -> None:
        """Set an estimate aside.

        Raises:
            BudgetExceeded: the budget does not hold it.
        """
        total = self.ledger.total + self.reserved + estimate
        for name, spent, most in (
            ("calls", total.calls, self.budget.calls),
            ("tokens", total.tokens, self.budget.tokens),
            ("money", total.money, self.budget.money),
        ):
            if most is not None and spent is not None and spent > most:
                raise BudgetExceeded(f"The budget of {most:g} {name} is used up.", self.ledger.total)
        self.reserved += estimate

    def settle(self, estimate: Usage) -> None:
        """Give an estimate back; what was really spent stands in the ledger."""
        self.reserved += replace(
            estimate,
            calls=-estimate.calls,
            input_tokens=-estimate.input_tokens,
            output_tokens=-estimate.output_tokens,
            money=None if estimate.money is None else -estimate.money,
        )


class Metered:
    """Answers like the model inside; each call is reserved before and entered in the run's ledger after it.

    ``half`` says which requests cost half: those of a batch.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str,
        purse: Purse,
        price: Callable[[Usage], float | None],
        half: Callable[[Request], bool],
    ) -> None:
        self._model = model
        self._name = name
        self._purse = purse
        self._price = price
        self._half = half
        self._output = FIRST_OUTPUT_TOKENS

    def _priced(self, request: Request, usage: Usage) -> Usage:
        money = self._price(usage)
        return replace(usage, money=money / 2 if money is not None and self._half(request) else money)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            BudgetExceeded: the budget does not hold another call.
        """
        characters = sum(len(message.content or "") for message in request.messages)
        estimate = Usage(calls=1, input_tokens=int(characters * per_character(self._name)), output_tokens=self._output)
        estimate = self._priced(request, estimate)
        self._purse.reserve(estimate)
        try:
            reply = await self._model.complete(request)
        except ModelError as error:
            self._purse.ledger.add(request.phase, self._name, Usage(tries=error.attempts))
            raise
        finally:
            self._purse.settle(estimate)
        usage = self._priced(request, reply.usage)
        self._purse.ledger.add(request.phase, self._name, usage)
        self._output += (usage.output_tokens - self._output) // 4
        return replace(reply, usage=usage)
