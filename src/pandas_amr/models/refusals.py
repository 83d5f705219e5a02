"""Whether 429s depend on the pace of requests.

Some servers say 429 now and then, at any pace; that must not slow a run down. At a real limit fewer
requests are refused the slower they are sent. If slowing down has not helped, the share of refused
requests is noise: they are sent again, and nothing else changes until many more are refused.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

OUTCOMES = 32  # the last requests at one pace, from which its share of refused ones is taken
STRETCHES = 24  # former paces to compare with
ENOUGH = 16  # outcomes, to compare two paces
SAME = 1.15  # a pace up to so many times another one counts as the same
FASTER = 1.3  # a pace of at least so many times another one counts as faster
AS_BAD = 0.5  # of the share at a faster pace: slowing down has not helped
MOST_NOISE = 0.25  # a larger share is that of a limit
QUIET = 8.0  # divided by the noise: so many answers in turn without a 429 are not by chance


@dataclass(slots=True)
class _Stretch:
    """The last outcomes of requests at one pace, since ``began``; True is a refusal."""

    began: float = 0.0
    pace: float = 0.0
    outcomes: deque[bool] = field(default_factory=partial(deque, maxlen=OUTCOMES))


@dataclass
class Refusals:
    """The outcomes of requests, by the pace at which they were sent.

    Attributes:
        noise: the share that is refused at any pace; 0 if there is none.
    """

    noise: float = 0.0
    _now: _Stretch = field(default_factory=_Stretch)
    _before: deque[_Stretch] = field(default_factory=partial(deque, maxlen=STRETCHES))
    _quiet: int = 0

    def note(self, began: float, *, refused: bool) -> None:
        """Record the outcome of a request at the pace of the time when it was sent."""
        if began >= self._now.began:
            self._now.outcomes.append(refused)
        elif self._before:
            self._before[-1].outcomes.append(refused)
        self._quiet = 0 if refused else self._quiet + 1
        if self.noise and self._quiet > QUIET / self.noise:
            self.noise = 0.0

    def slow_down(self, now: float, pace: float) -> None:
        """Record that from now on requests are sent more slowly than at ``pace``."""
        self._now.pace = pace
        self._before.append(self._now)
        self._now = _Stretch(now)

    def are_noise(self, pace: float) -> bool:
        """Tell whether a refusal at ``pace`` does not depend on the pace."""
        if not self.noise:
            self._set_noise(self._noise_at(pace))
        elif len(self._now.outcomes) == OUTCOMES and _share(self._now.outcomes) > MOST_NOISE:
            self._set_noise(0.0)
        return self.noise > 0.0

    def _set_noise(self, noise: float) -> None:
        """Set the noise. If it changes, the outcomes that it was derived from are dropped."""
        if noise != self.noise:
            self.noise = noise
            self._before.clear()
            self._now.outcomes.clear()

    def _noise_at(self, pace: float) -> float:
        """Give the share refused at this pace, if a faster one was no worse; otherwise 0."""
        here = list(self._now.outcomes)
        faster: list[bool] = []
        for stretch in reversed(self._before):
            if stretch.pace >= FASTER * pace:
                faster += stretch.outcomes
            elif stretch.pace <= SAME * pace:
                here += stretch.outcomes
        if min(len(here), len(faster)) < ENOUGH or sum(here) < 2:
            return 0.0
        share = _share(here)
        is_noise = AS_BAD * _share(faster) <= share <= MOST_NOISE
        return share if is_noise else 0.0


def _share(outcomes: deque[bool] | list[bool]) -> float:
    return sum(outcomes) / len(outcomes)
