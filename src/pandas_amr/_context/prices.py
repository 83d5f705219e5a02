"""What tokens cost: by the user's figures, or by ``genai-prices`` (``pandas-amr[prices]``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._records.forks import forkable_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._records.usage import Usage
    from pandas_amr.models.base import LM

A_MILLION = 1e6

_importing = forkable_lock()


def price_of(lm: LM) -> Callable[[Usage], float | None]:
    """Money for a usage; None where the model's prices are not known, never 0.

    The user's own prices come first, then what a gateway said that the request cost, then those of
    the package.
    """
    if lm.prices is not None:
        return lambda usage: _compute_price(usage, lm.prices or ())

    def price(usage: Usage) -> float | None:
        if usage.billed:
            return usage.money
        genai_prices = _known_prices()
        if genai_prices is None:
            return None if usage.tokens else 0.0
        told = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
        )
        try:
            return float(genai_prices.calc_price(told, lm.model).total_price)
        except LookupError:
            return None

    return price


def _known_prices() -> Any:
    """The package, once there is something to price; None if it is not installed."""
    try:
        with _importing:
            import genai_prices  # noqa: PLC0415 (an extra)
    except ImportError:
        return None
    return genai_prices


def _compute_price(usage: Usage, prices: tuple[float, ...]) -> float:
    for_input, for_output, *rest = prices
    for_cached = rest[0] if rest else for_input
    fresh = usage.input_tokens - usage.cached_tokens
    return (
        fresh * for_input + usage.cached_tokens * for_cached + usage.output_tokens * for_output
    ) / A_MILLION
