"""What a plan would take, before anything is mapped."""

from __future__ import annotations

from dataclasses import dataclass

from pandas_amr._records.public import public


@public
@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan would take on the frame it was made for.

    Calls are exact where every agent needs one and the reduce is computed, a static tree or one a group; input tokens
    are counted; output tokens are reckoned from the schema, or scaled up from a sample. Where a recipe with agents maps
    or reduces, calls, tokens and money are not known, and None; a sample tells those of one that maps, as long as the
    journal has nothing of it.

    Attributes:
        units: rows of the frame.
        asked: units that are asked, equal ones once.
        shards: map agents' batches.
        calls: requests; None where nobody knows.
        input_tokens: tokens of the prompts.
        output_tokens: tokens of the answers.
        money: in the currency of the model's prices; None where they are not known.
        seconds: at the limits that are known (``rpm``, ``tpm``) and, with a sample, at its latency; None where nothing
            is known.
        tree: boxes a level, the maps first and the final reduce last; empty where agents reduce nothing, or by groups.
        sizes: units of each shard.
        maps: the names of the maps that run side by side.
        sampled: how many units were mapped to find out.
        tokens_between: with a sample, the interval that holds the tokens in 19 of 20 samples.
        money_between: likewise the money.
        about: whether how many calls it takes depends on what is found.
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
        """Input and output tokens together; None where nobody knows."""
        known = self.input_tokens is not None and self.output_tokens is not None
        return self.input_tokens + self.output_tokens if known else None  # type: ignore[operator]

    def __str__(self) -> str:
        told = [f"{self.units} units ({self.asked} asked) in {self.shards} shards: {self._calls}"]
        if self.tokens is not None:
            told.append(f"about {self.input_tokens} input and {self.output_tokens} output tokens")
        if self.tokens_between is not None:
            told.append(
                f"{self.tokens_between[0]} to {self.tokens_between[1]} in all by a sample of {self.sampled}"
            )
        if self.money is not None:
            between = (
                f" ({self.money_between[0]:.4g} to {self.money_between[1]:.4g})"
                if self.money_between
                else ""
            )
            told.append(f"money {self.money:.4g}{between}")
        if self.seconds is not None:
            told.append(f"{self.seconds:.0f} s")
        if self.tree:
            told.append(f"reduced {' -> '.join(map(str, self.tree))}")
        return ", ".join(told)

    @property
    def _calls(self) -> str:
        if self.calls is None:
            return (
                "calls, tokens and money are not known, since a recipe with agents maps or reduces"
            )
        return f"{'about ' if self.about else ''}{self.calls} calls"
