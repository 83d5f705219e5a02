"""What a bar shows of a run at one moment, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.usage import format_money

if TYPE_CHECKING:
    from pandas_amr._context.progress import Watch

Outcome: TypeAlias = Literal["running", "done", "partial", "failed"]
Moment: TypeAlias = Literal["begin", "stage", "wait", "tick", "end"]

MINUTE_S, HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Attributes:
        outcome: whether it ended well.
        title: how, in a word.
        reason: why it did not end well, if the title does not say it; without the text of cells.
        is_complete: whether it came to its end, well or not.
        is_told: whether an error or a warning tells the user that it did not end well.
    """

    outcome: Outcome
    title: str
    reason: str = ""
    is_complete: bool = False
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class ProgressView:
    """A run at one moment.

    Attributes:
        moment: why it is shown.
        share: how much is done, from 0 to 1.
        title: what the run is at, or how it ended.
        facts: what people may want to know, the most important first.
        waiting: what its requests wait for; empty if they are answered.
        outcome: whether it runs, or how it ended.
        seconds: since it began.
        left_s: how many seconds the map still takes; None if unknown.
    """

    moment: Moment
    share: float
    title: str
    facts: tuple[str, ...] = ()
    waiting: str = ""
    outcome: Outcome = "running"
    seconds: float = 0.0
    left_s: float | None = None

    @property
    def details(self) -> str:
        """The wait and the facts, in one line."""
        return ", ".join(filter(None, (self.waiting, *self.facts)))

    @property
    def times(self) -> str:
        """The time since the run began, and about how much is left."""
        return ", ".join(filter(None, (format_seconds(self.seconds), self.left)))

    @property
    def left(self) -> str:
        """About how much time the map still takes; empty if unknown."""
        if self.left_s is None:
            return ""
        return f"about {format_seconds(self.left_s)} left"

    @property
    def line(self) -> str:
        """All of it in one line of text, for logs."""
        parts = (self.title, f"{self.share:.0%}", self.times, self.details)
        return ", ".join(filter(None, parts))


def format_seconds(seconds: float) -> str:
    """Write a duration.

    Example:
        >>> format_seconds(7.9), format_seconds(3725)
        ('0:07', '1:02:05')
    """
    whole = int(seconds)
    hours, rest = divmod(whole, HOUR_S)
    minutes, rest = divmod(rest, MINUTE_S)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


def make_view(watch: Watch, moment: Moment) -> ProgressView:
    """Make the view of a run that goes on."""
    steps = watch.steps
    facts = list_facts(watch)
    waiting = watch.waits.text
    if watch.wired is not None and not waiting:
        facts.append(watch.wired.describe_load(watch.most_requests))
    return ProgressView(
        moment=moment,
        share=steps.share,
        title=steps.title,
        facts=tuple(filter(None, facts)),
        waiting=waiting,
        seconds=watch.trace.seconds,
        left_s=None if waiting else steps.left_s,
    )


def make_last_view(watch: Watch, ending: Ending) -> ProgressView:
    """Make the view of a run that has ended."""
    return ProgressView(
        moment="end",
        share=1.0 if ending.is_complete else watch.steps.share,
        title=ending.title,
        facts=tuple(filter(None, list_facts(watch, ended=True))),
        outcome=ending.outcome,
        seconds=watch.trace.seconds,
    )


def list_facts(watch: Watch, *, ended: bool = False) -> list[str]:
    """List rows, money and tokens of a run; during its map its title tells the rows."""
    progress, facts = watch.progress, []
    if progress.units and (ended or watch.steps.stage != "map"):
        facts.append(counted_of(progress.found, progress.units, "row"))
    if progress.cached:
        facts.append(f"{progress.cached:,} from journal")
    if progress.failed:
        facts.append(f"{progress.failed:,} failed")
    if progress.money:
        facts.append(format_money(progress.money))
    if progress.tokens:
        facts.append(counted(progress.tokens, "token"))
    return facts
