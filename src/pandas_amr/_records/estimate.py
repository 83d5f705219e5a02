"""What a plan would cost, before anything is mapped."""

from __future__ import annotations

from dataclasses import dataclass

from pandas_amr._records.public import public


@public
@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan would cost on the frame that it was made for.

    Calls are exact if every agent needs one call and the reduce is computed, or is a static tree,
    or one call per group. Input tokens are counted. Output tokens are derived from the schema, or
    scaled up from a sample. If a recipe with agents maps or reduces, then calls, tokens and money
    are unknown, and None; for a recipe that maps, a sample tells them as long as the journal has
    none of its answers.

    Attributes:
        units: rows of the frame.
        asked: units that are sent; equal ones are sent once.
        shards: batches of the map agents.
        calls: requests; None if unknown.
        input_tokens: tokens of the prompts.
        output_tokens: tokens of the answers.
        money: in the currency of the model's prices; None if they are unknown.
        seconds: at the known limits (``rpm``, ``tpm``) and, with a sample, at its latency; None if
            nothing is known.
        tree: nodes per level, from the maps to the final reduce; empty if agents reduce nothing, or
            reduce per group.
        sizes: units of each shard.
        maps: names of the maps that run side by side.
        sampled: how many units were mapped to find out.
        tokens_between: with a sample, the interval that holds the tokens in 19 of 20 samples.
        money_between: likewise the money.
        about: whether the number of calls depends on what is found.
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

    @property
    def tokens(self) -> int | None:
        """Input and output tokens together; None if unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    def __str__(self) -> str:
        parts = [f"{self.units} units ({self.asked} asked) in {self.shards} shards: {self._calls}"]
        if self.tokens is not None:
            parts.append(f"about {self.input_tokens} input and {self.output_tokens} output tokens")
        if self.tokens_between is not None:
            least, most = self.tokens_between
            parts.append(f"{least} to {most} in all by a sample of {self.sampled}")
        if self.money is not None:
            parts.append(f"money {self.money:.4g}{self._money_interval}")
        if self.seconds is not None:
            parts.append(f"{self.seconds:.0f} s")
        if self.tree:
            parts.append(f"reduced {' -> '.join(map(str, self.tree))}")
        return ", ".join(parts)

    @property
    def _calls(self) -> str:
        if self.calls is None:
            return "calls, tokens and money are unknown, since a recipe with agents maps or reduces"
        about = "about " if self.about else ""
        return f"{about}{self.calls} calls"

    @property
    def _money_interval(self) -> str:
        if self.money_between is None:
            return ""
        least, most = self.money_between
        return f" ({least:.4g} to {most:.4g})"
