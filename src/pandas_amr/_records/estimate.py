"""What a plan would take, before anything is mapped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._records.counts import counted
from pandas_amr._records.html import named_values, root
from pandas_amr._records.public import public
from pandas_amr._records.usage import format_money
from pandas_amr.errors import PlanError

if TYPE_CHECKING:
    from pandas_amr._records.graph import Graph
    from pandas_amr._records.graph_shape import Shape
    from pandas_amr._records.outgoing import Outgoing


@public
@dataclass(frozen=True, slots=True, repr=False)
class Estimate:
    """What a plan would take on the frame it was made for.

    A dry run counts it: the run's own stages, with a model that answers with typical values of the
    schema, or with what a sample found. Of more than 1,000 shards, 3,000 units or 200 groups some
    are run, and scaled up. Calls are exact if each agent needs one, and if the reduce is computed,
    a static tree or one call per group. If a recipe with agents maps or reduces, calls, tokens and
    money are not known, and None. A sample tells those of a recipe that maps, unless the journal
    has some of its answers.

    Attributes:
        units: rows of the frame.
        asked: units that are asked about; equal ones once.
        shards: map agents' batches.
        calls: requests; None if not known.
        input_tokens: tokens of the prompts.
        output_tokens: tokens of the answers.
        money: in the currency of the model's prices; None if they are not known.
        seconds: at the rate limits that are known (``rpm``, ``tpm``) and, with a sample, at its
            latency; None if neither is known.
        tree: nodes per level, the maps first and the final reduce last; empty if agents reduce
            nothing, or by groups.
        sizes: units of each shard.
        maps: the names of the maps that run side by side.
        sampled: how many units were mapped for the estimate.
        tokens_between: with a sample, the interval that holds the tokens in 19 of 20 samples.
        money_between: likewise for the money.
        about: whether the number of calls depends on what is found.
        outgoing: what would leave the machine, for ``Budget(confirm=...)`` to show; None elsewhere.
        shape: what ``graph()`` is made of; None if nobody looked.
    """

    units: int
    asked: int
    shards: int
    calls: int | None
    input_tokens: int | None
    output_tokens: int | None = 0
    money: float | None = None
    seconds: float | None = None
    tree: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    maps: tuple[str | None, ...] = (None,)
    sampled: int = 0
    tokens_between: tuple[int, int] | None = None
    money_between: tuple[float, float] | None = None
    about: bool = False
    outgoing: Outgoing | None = field(default=None, compare=False, repr=False)
    shape: Shape | None = field(default=None, compare=False, repr=False)

    def graph(self) -> Graph:
        """Return the graph that the run is expected to have.

        Raises:
            PlanError: this estimate was not made for a frame.
        """
        if self.shape is None:
            raise PlanError("This estimate was not made for a frame: df.amr.plan(...).estimate().")
        return self.shape.graph()

    @property
    def tokens(self) -> int | None:
        """Input and output tokens together; None if not known."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    def __str__(self) -> str:
        units = counted(self.units, "unit") + self._asked
        shards = counted(self.shards, "shard")
        parts = [f"{units} in {shards}: {self._calls}"]
        if self.tokens is not None:
            parts.append(
                f"about {self.input_tokens:,} input and {self.output_tokens:,} output tokens"
            )
        if self.tokens_between is not None:
            low, high = self.tokens_between
            parts.append(f"{low:,} to {high:,} in all by a sample of {self.sampled:,}")
        if self.money is not None:
            parts.append(self._money)
        if self.seconds is not None:
            parts.append(f"{self.seconds:,.0f} s")
        if self.tree:
            sizes = " -> ".join(map(str, self.tree))
            parts.append(f"reduced {sizes}")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"<Estimate {self}>"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            ("units", f"{self.units:,}{self._asked}"),
            ("shards", f"{self.shards:,}"),
            ("calls", self._calls.removesuffix(" calls").removesuffix(" call")),
        ]
        if self.tokens is not None:
            rows.append(("tokens", f"{self.input_tokens:,} in, {self.output_tokens:,} out"))
        if self.tokens_between is not None:
            low, high = self.tokens_between
            rows.append(("by the sample", f"{low:,} to {high:,} tokens (of {self.sampled} units)"))
        rows.append(("money", "unknown" if self.money is None else self._money))
        if self.seconds is not None:
            rows.append(("time", f"{self.seconds:,.0f} s"))
        if self.tree:
            rows.append(("reduced", " → ".join(map(str, self.tree))))
        return root(named_values(rows))

    @property
    def _asked(self) -> str:
        """Say how many units are asked about, unless all are."""
        return "" if self.asked == self.units else f" ({self.asked:,} asked)"

    @property
    def _calls(self) -> str:
        if self.calls is None:
            reason = "since a recipe with agents maps or reduces"
            return f"calls, tokens and money are unknown, {reason}"
        calls = counted(self.calls, "call")
        return f"about {calls}" if self.about else calls

    @property
    def _money(self) -> str:
        assert self.money is not None
        money = format_money(self.money)
        if self.money_between is None:
            return money
        low, high = map(format_money, self.money_between)
        return f"{money} ({low} to {high})"
