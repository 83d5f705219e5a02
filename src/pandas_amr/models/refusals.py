"""Whether 429s follow from the pace: a server that says so now and then, at any pace, must not slow a run down.

At a limit, fewer requests are refused the slower they are sent. If slowing down has not helped, the share that is
refused is noise: what was refused is asked again, and nothing else changes until much more is refused.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

OUTCOMES = 32  # of the last requests at one pace, that its share is taken from
STRETCHES = 24
ENOUGH = 16  # outcomes, to compare two paces
SAME = 1.15  # times a pace: hardly another one
FASTER = 1.3
AS_BAD = 0.5  # of the share at a faster pace: slowing down has not helped
MOST_NOISE = 0.25  # a larger share is a limit's
QUIET = 8.0  # over the noise: so many answers without a 429 are no chance


@dataclass(slots=True)
class _Stretch:
    """The last outcomes of requests that were sent at one pace, since ``began``; True was refused."""

    began: float
    pace: float = 0.0
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=OUTCOMES))


@dataclass
class Refusals:
    """What came of requests, by the pace at which they were sent.

    Attributes:
        noise: the share that is refused at any pace; 0 if none is.
    """

    noise: float = 0.0
    _now: _Stretch = field(default_factory=lambda: _Stretch(0.0))
    _before: deque[_Stretch] = field(default_factory=lambda: deque(maxlen=STRETCHES))
    _quiet: int = 0

    def note(self, began: float, *, refused: bool) -> None:
        """Note what came of a request: at the pace that held when it was sent."""
        if began >= self._now.began:
            self._now.outcomes.append(refused)
        elif self._before:
            self._before[-1].outcomes.append(refused)
        self._quiet = 0 if refused else self._quiet + 1
        if self.noise and self._quiet > QUIET / self.noise:
            self.noise = 0.0

    def slow_down(self, now: float, pace: float) -> None:
        """Note that from now on requests are sent more slowly than at ``pace``."""
        self._now.pace = pace
        self._before.append(self._now)
        self._now = _Stretch(now)

    def are_noise(self, pace: float) -> bool:
        """Tell whether a refusal at ``pace`` says nothing of it."""
        if self.noise:
            outcomes = self._now.outcomes
            if len(outcomes) == OUTCOMES and _share(outcomes) > MOST_NOISE:
                self._begin(0.0)
        else:
            self._begin(self._noise_at(pace))
        return self.noise > 0.0

    def _begin(self, noise: float) -> None:
        """Take a share for noise, or none any more; what was compared has done its work."""
        if noise != self.noise:
            self.noise = noise
            self._before.clear()
            self._now.outcomes.clear()

    def _noise_at(self, pace: float) -> float:
        """The share that is refused at this pace, if it is refused at a faster one alike; otherwise 0."""
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
        return share if AS_BAD * _share(faster) <= share <= MOST_NOISE else 0.0


def _share(outcomes: deque[bool] | list[bool]) -> float:
    return sum(outcomes) / len(outcomes)
