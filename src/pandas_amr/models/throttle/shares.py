"""How processes divide a limit: each gets what it needs, and who needs more divides the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.models.lease import PaceReport

LEAST_STEP = 0.25
MORE = 1.25  # times what a process sends that is not held back: it may soon send more


@dataclass(frozen=True, slots=True)
class Share:
    """The share of this process in the limits of a server.

    Attributes:
        processes: how many have requests there, this one included.
        rank: how many of them began before this one.
        requests: the share in the rate of requests.
        tokens: likewise of tokens.
    """

    processes: int = 1
    rank: int = 0
    requests: float = 1.0
    tokens: float = 1.0

    @property
    def step(self) -> float:
        """How much a window that doubles grows per answer.

        If others grow beside it, less: each learns only later of the 429s that another one got.
        """
        return min(1.0, max(LEAST_STEP, 2.0 / self.processes))

    def places(self, limit: int | None) -> int | None:
        """Give how many of the requests that may be in flight are this process's; at least one."""
        if limit is None:
            return None
        places, rest = divmod(limit, self.processes)
        return max(1, places + (self.rank < rest))


ALONE = Share()


@dataclass(frozen=True, slots=True)
class Use:
    """What another process takes of a rate.

    Attributes:
        per_s: how much it takes per second.
        is_held: whether the rate holds it back.
    """

    per_s: float
    is_held: bool


def fair_share(rate: float | None, others: Sequence[Use]) -> float:
    """Give the share of this process in a rate per second: max-min fairness.

    Who uses less than an even share leaves the rest to the others. If the rate is not known, the
    shares are even.

    Example:
        >>> fair_share(10.0, [Use(5.0, is_held=True)])
        0.5
        >>> fair_share(10.0, [Use(1.6, is_held=False)])
        0.8
    """
    even = 1.0 / (1 + len(others))
    if rate is None:
        return even
    left, sharing = 1.0, 1
    for use in others:
        part = use.per_s * MORE / rate
        if use.is_held or part >= even:
            sharing += 1
        else:
            left -= part
    return left / sharing


def divide(
    own_joined_at: float,
    others: Sequence[PaceReport],
    request_rate: float | None,
    token_rate: float | None,
) -> Share:
    """Give the share of a process that joined at a time, beside those of others with requests."""
    request_uses: list[Use] = []
    token_uses: list[Use] = []
    rank = 0
    for other in others:
        request_uses.append(Use(other.requests_per_s, other.is_held))
        token_uses.append(Use(other.tokens_per_s, other.is_held))
        rank += other.joined_at < own_joined_at
    return Share(
        processes=1 + len(others),
        rank=rank,
        requests=fair_share(request_rate, request_uses),
        tokens=fair_share(token_rate, token_uses),
    )
