"""What calls cost: ``Usage`` is addable; a ``Ledger`` holds it per phase and model; ``Budget``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.counts import counted
from pandas_amr._records.html import Figure, root, table
from pandas_amr._records.pickles import CopiedHere, pack, unpack
from pandas_amr._records.public import public
from pandas_amr._records.refused import show_refused, takes_arguments
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._records.estimate import Estimate

Phase = Literal["plan", "map", "reduce"]

LEAST_CENT = 0.01  # less is written with two digits that tell something


@public
@dataclass(frozen=True, slots=True, repr=False)
class Usage:
    """Calls, tokens and seconds of some work; addable. Its repr leaves out what is 0.

    Attributes:
        calls: requests that were answered.
        tries: requests that were sent, retries included.
        input_tokens: tokens of the prompts, cached ones included.
        cached_tokens: those of them that the provider had cached.
        output_tokens: tokens of the answers, reasoning included.
        reasoning_tokens: those of them spent on reasoning.
        seconds: time spent waiting for answers, summed over calls.
        money: the cost by the prices, or as a gateway reports it; None if neither is known.
        recalled: answers that came from the journal and cost nothing.
        estimated: requests whose tokens the service did not report; they are estimated here.
        billed: requests whose cost a gateway reported. This is their money, unless
            ``LM(prices=...)`` is given.
    """

    calls: int = 0
    tries: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0
    money: float | None = 0.0
    recalled: int = 0
    estimated: int = 0
    billed: int = 0

    def __add__(self, other: Usage) -> Usage:
        if self is NO_USAGE:  # most sums have one term, and share it
            return other
        if other is NO_USAGE:
            return self
        money = None
        if self.money is not None and other.money is not None:
            money = self.money + other.money
        return Usage(  # spelled out, which is faster: each request adds about ten times
            calls=self.calls + other.calls,
            tries=self.tries + other.tries,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            seconds=self.seconds + other.seconds,
            money=money,
            recalled=self.recalled + other.recalled,
            estimated=self.estimated + other.estimated,
            billed=self.billed + other.billed,
        )

    def __sub__(self, other: Usage) -> Usage:
        """Give what was added since ``other``."""
        money = None
        if self.money is not None and other.money is not None:
            money = self.money - other.money
        counts = {}
        for name in COUNTS:
            counts[name] = getattr(self, name) - getattr(other, name)
        return Usage(**counts, money=money)

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __repr__(self) -> str:
        parts: list[str] = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value != entry.default:
                parts.append(f"{entry.name}={value!r}")
        return f"Usage({', '.join(parts)})"

    def _repr_html_(self) -> str:
        return root(table(COST_COLUMNS, [cost_figures(self)]))


NO_USAGE = Usage()


COST_COLUMNS = (
    "calls",
    "sent",
    "from journal",
    "tokens in",
    "of them cached",
    "tokens out",
    "money",
)


def cost_figures(usage: Usage) -> list[Figure]:
    """Write what some work cost, as ``COST_COLUMNS`` names it."""
    counts = (
        usage.calls,
        usage.tries,
        usage.recalled,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
    )
    money = "unknown" if usage.money is None else format_money(usage.money)
    return [*[Figure(f"{count:,}") for count in counts], Figure(money)]


def format_money(amount: float) -> str:
    """Write an amount of money for people.

    Example:
        >>> format_money(1234.5), format_money(0.04), format_money(0.000123), format_money(0.0)
        ('$1,234.50', '$0.04', '$0.00012', '$0.00')
    """
    digits = 2
    if 0 < amount < LEAST_CENT:
        digits = 1 - math.floor(math.log10(amount))
    return f"${amount:,.{digits}f}"


def describe_spend(usage: Usage) -> str:
    """Write what some work cost: its money, or its tokens if the prices are not known.

    Returns:
        Nothing if nothing was sent.

    Example:
        >>> describe_spend(Usage(tries=1, input_tokens=900, money=0.04))
        '$0.04'
        >>> describe_spend(Usage(tries=1, input_tokens=900, money=None))
        '900 tokens'
    """
    if not usage.tries:
        return ""
    if usage.money is None:
        return counted(usage.tokens, "token")
    return format_money(usage.money)


COUNTS = tuple(entry.name for entry in fields(Usage) if entry.name != "money")


def _check_confirmation(confirm: object) -> None:
    """Refuse what cannot be called with an estimate.

    Raises:
        UsageError: it cannot.
    """
    if confirm is None:
        return
    wanted = "Budget(confirm=...) takes a function of an Estimate"
    if not callable(confirm):
        raise UsageError(f"{wanted}, not {show_refused(confirm)}.")
    if not takes_arguments(confirm, 1):
        raise UsageError(f"{wanted}; this one does not take exactly one argument.")


@public
@dataclass(frozen=True, kw_only=True, repr=False)
class Budget(CopiedHere):
    """What a run may spend.

    At the limit the run stops cleanly: its findings so far are kept, and ``result.stopped`` says
    why. Each call is reserved before it is sent. So no more is spent than the budget, plus the
    error of the estimates of the calls in flight.

    Args:
        money: in the currency of the model's prices (``LM(prices=...)`` or
            ``pandas-amr[prices]``).
        tokens: input and output tokens together.
        calls: answered requests.
        seconds: time since the run began; at the limit the requests in flight are dropped.
        shared: the name of a budget that several runs share, in whatever process of this machine:
            ``money``, ``tokens`` and ``calls`` are then what all runs that name it may spend
            together, one after the other, too. What was spent is forgotten 30 days after its last
            use, so give each job a name of its own: ``Budget(money=5, shared="report-2026-11")``.
            What a process that was killed may have spent last, counts as spent.
        confirm: a function, async or not. It is called once, before anything is mapped, with the
            ``Estimate`` of what is not in the journal. Unless it returns True, the run ends with
            ``NotConfirmed``. A plan that had to be derived has then cost its one call. A recipe
            calls it once per stage, since the findings of a stage decide what the next one takes;
            after a no, the error's ``partial`` holds the findings of the stages before. Unknown
            calls and money are None: ``estimate.money is not None and estimate.money < 5``.

    Raises:
        UsageError: no limit is given, or one that is not above 0.

    Example:
        >>> Budget(tokens=200_000, seconds=600)
        Budget(tokens=200000, seconds=600)
    """

    money: float | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    confirm: Callable[[Estimate], Any] | None = None
    shared: str | None = None

    def __post_init__(self) -> None:
        limits = self._limits()
        if not limits:
            raise UsageError(
                "Budget takes at least one of money=, tokens=, calls=, seconds=, confirm=."
            )
        self._check_shared(limits.pop("shared", None))
        _check_confirmation(limits.pop("confirm", None))
        for name, value in limits.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not value > 0:  # NaN is not
                raise UsageError(
                    f"Budget({name}=...) takes a number above 0, not {show_refused(value)}."
                )

    def _check_shared(self, shared: object) -> None:
        if shared is None:
            return
        if not isinstance(shared, str) or not shared.strip():
            raise UsageError(
                f"Budget(shared=...) takes the name of a budget, not {show_refused(shared)}."
            )
        if self.money is None and self.tokens is None and self.calls is None:
            raise UsageError(
                f"Budget(shared={shared!r}) takes at least one of money=, tokens=, calls=: what "
                "all runs that name it may spend together."
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"confirm": pack(self.confirm, "Budget(confirm=...)")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, confirm=unpack(state["confirm"]))

    def _limits(self) -> dict[str, Any]:
        """Give the arguments that are not None, by name."""
        limits: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None:
                limits[entry.name] = value
        return limits

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._limits().items())
        return f"Budget({arguments})"


@dataclass(slots=True)
class Ledger:
    """Usage by phase and model, in the order of their first entry."""

    lines: dict[tuple[Phase, str], Usage] = field(default_factory=dict)

    def add(self, phase: Phase, model: str, usage: Usage) -> None:
        """Add ``usage`` to the line of ``phase`` and ``model``."""
        key = (phase, model)
        self.lines[key] = self.lines.get(key, NO_USAGE) + usage

    def copy(self) -> Ledger:
        """Give the lines as they are now."""
        return Ledger(dict(self.lines))

    def since(self, before: Ledger) -> Ledger:
        """Give what was added since ``before``; a line to which nothing was added is left out."""
        added = Ledger()
        for key, usage in list(self.lines.items()):
            earlier = before.lines.get(key)
            if earlier is None:
                added.lines[key] = usage
            elif usage != earlier:
                added.lines[key] = usage - earlier
        return added

    @property
    def total(self) -> Usage:
        """The sum of all lines; asked by any thread."""
        return sum(list(self.lines.values()), NO_USAGE)
