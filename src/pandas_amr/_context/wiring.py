"""From settings to wired parts: the one place that assembles models and sandboxes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr._context.settings import PHASES, check_lm, current_settings
from pandas_amr.errors import UsageError
from pandas_amr.models.base import LM, Model, is_client
from pandas_amr.models.batch.fallback import BatchFirst
from pandas_amr.models.batch.model import Batched
from pandas_amr.models.batch.requests import MOST_REQUESTS
from pandas_amr.models.budget import BudgetTracker, Metered
from pandas_amr.models.concurrency_limit import ConcurrencyLimited
from pandas_amr.models.hedge import Hedged
from pandas_amr.models.openai.endpoint import Endpoint
from pandas_amr.models.openai.settings import Adapting
from pandas_amr.models.reported import Reported
from pandas_amr.models.retry import Retrying
from pandas_amr.models.send_marker import InFlight, SendMarker
from pandas_amr.models.shared_budget import SharedBudgetTracker, budget_limits
from pandas_amr.models.structured.model import Structured
from pandas_amr.models.throttle.model import Throttled, throttle_for
from pandas_amr.sandbox.host.local import LocalSandbox

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from pandas_amr._context.settings import Settings
    from pandas_amr.errors import SettingWarning
    from pandas_amr.models.lease import Leases
    from pandas_amr.models.throttle.throttle import Throttle
    from pandas_amr.sandbox.base import Isolation, Sandbox
    from pandas_amr.tools import PythonREPLTool
from pandas_amr._context.prices import price_of
from pandas_amr._records.usage import Budget, Ledger, Phase, Usage

NO_MODEL = """\
No model is configured. There are three ways:
  - a server: set OPENAI_API_KEY (and OPENAI_BASE_URL for one of your own), and AMR_MODEL to the
    model's name;
  - in code: amr.configure(lm=amr.LM("model-name", base_url="http://127.0.0.1:8000/v1")), or lm= in
    the call;
  - a small model in this process, no key and no network: lm="local"
    (pip install "pandas-amr[local]")."""


def check_budget(budget: Budget | None, lms: Iterable[LM]) -> None:
    """Refuse a budget of money where a price is not known.

    Raises:
        UsageError: it could not be kept.
    """
    if budget is None or budget.money is None:
        return
    for lm in dict.fromkeys(lms):
        if price_of(lm)(Usage(input_tokens=1, output_tokens=1)) is None:
            raise UsageError(
                f"Budget(money=...) needs prices, and those of {lm.model} are not known: "
                'LM(prices=(input, output)) per million, or pip install "pandas-amr[prices]".'
            )


def resolve_lms(given: object, settings: Settings) -> dict[Phase, LM]:
    """The model of each phase: the call's own, else the settings', else the environment's.

    Raises:
        UsageError: none is named anywhere; the message lists the ways.
        ModelConfigError: ``"local"`` is asked for and not installed.
    """
    named = given if given is not None else settings.lm
    if not isinstance(named, dict):
        return dict.fromkeys(PHASES, resolve_lm(named))
    check_lm(named)
    default = None if isinstance(settings.lm, dict) else settings.lm
    has_default = default is not None or bool(os.environ.get("AMR_MODEL"))
    resolved: dict[Phase, LM] = {}
    for phase, lm in named.items():
        resolved[phase] = resolve_lm(lm)
    for phase in PHASES:
        if phase in resolved:
            continue
        if "map" in named and not has_default:
            resolved[phase] = resolved["map"]
        else:
            resolved[phase] = resolve_lm(default)
    return {phase: resolved[phase] for phase in PHASES}


def resolve_lm(given: Any) -> LM:
    """The model that ``lm=`` means, in a call, a setting or an agent.

    Raises:
        UsageError: it means none.
    """
    named = given if given is not None else os.environ.get("AMR_MODEL")
    if named is None or (isinstance(named, str) and not named):
        raise UsageError(NO_MODEL)
    check_lm(named)
    if isinstance(named, LM):
        return named
    if is_client(named):
        model = os.environ.get("AMR_MODEL")
        if not model:
            raise UsageError(
                "A client does not say which model: "
                'lm=amr.LM("model-name", client=client), or AMR_MODEL.'
            )
        return LM(model, client=named)
    if named == "local":
        from pandas_amr.models.local import local_lm  # noqa: PLC0415 (starts llama.cpp)

        return local_lm()
    has_server = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    if not has_server and not current_settings().is_offline:
        said = (
            f"The model {named!r} has no server: neither OPENAI_API_KEY nor OPENAI_BASE_URL is set."
        )
        raise UsageError(f"{said}\n{NO_MODEL}")
    return LM(named)


def is_embedded(lm: LM) -> bool:
    """Tell whether a model is the one in this process: its requests leave nothing."""
    from pandas_amr.models.local import is_served_here  # noqa: PLC0415 (loads importlib.metadata)

    return is_served_here(lm)


_sandboxes: dict[tuple[Any, ...], Sandbox] = {}


def sandbox_for(repl: PythonREPLTool | None) -> Sandbox:
    """Return the sandbox of a REPL tool: its own, or the process's for its packages and files.

    Its warm process is begun at the first session and ends with this process.
    """
    if repl is not None and repl.sandbox is not None:
        return repl.sandbox
    isolation: Isolation = repl.isolation if repl else "auto"
    packages = tuple(repl.packages) if repl else ()
    files = dict(repl.files) if repl else {}  # type: ignore[arg-type]
    seen = tuple((name, path, *_version(path)) for name, path in sorted(files.items()))
    key = (os.getpid(), isolation, packages, seen)
    if key not in _sandboxes:
        _sandboxes.setdefault(key, LocalSandbox(isolation, packages=packages, files=files))
    return _sandboxes[key]


def _version(path: str | Path) -> tuple[int, int, int]:
    """Identify a file: a sandbox has the one that was there at its start."""
    there = Path(path).stat()
    return there.st_ino, there.st_mtime_ns, there.st_size


@dataclass(frozen=True)
class Wired:
    """A run's models, by phase, open for the time of the run.

    Attributes:
        in_flight: how many of its requests are in flight.
        throttles: those of the models that it has used.
        leases: where limits are that processes share; None if they share none.
    """

    bare: Mapping[LM, Endpoint]
    batches: Mapping[LM, Batched]
    budget_tracker: BudgetTracker
    in_flight: InFlight = field(default_factory=InFlight)
    throttles: dict[LM, Throttle] = field(default_factory=dict)
    leases: Leases | None = None

    def describe_load(self, most: int | None) -> str:
        """Say how many requests are in flight, and the limit in force; empty if none is.

        Args:
            most: how many the run may have in flight.
        """
        count = self.in_flight.count
        used = [one for one in self.throttles.values() if one.in_flight]
        rates = [one.rate_in_force for one in self.throttles.values()]
        rate = next(filter(None, rates), "")
        if not count:
            return rate
        limit = sum(one.limit for one in used)
        if most is not None:
            limit = min(limit, most)
        load = f"{count} of {max(limit, count)} in flight"
        return f"{load}, {rate}" if rate else load

    def parallelism(self, lm: LM, wanted: int, *, tools: bool) -> int:
        """Return how many requests may be in flight; a batch takes all at once."""
        if lm.batch and not tools:
            return MOST_REQUESTS
        return min(wanted, lm.max_parallelism or wanted)

    def server(self, lm: LM) -> str:
        """The address at which a model answers."""
        return self.bare[lm].server

    def model(
        self, lm: LM, gate: asyncio.Semaphore, warn: Callable[[SettingWarning], None]
    ) -> Model:
        """Wrap a model: from the HTTP call up to the report of each turn.

        ``warn`` takes what the run's user is to be told.
        """
        ordinary = self._wrap_in_retries(lm, gate)
        server = self.bare[lm].address[0]
        adapting = Adapting(ordinary, lm=lm, server=server, warn=warn)
        structured = Structured(adapting, server=server, lm=lm)
        return Reported(structured, name=lm.model, server=server)

    def _wrap_in_retries(self, lm: LM, gate: asyncio.Semaphore) -> Model:
        """Wrap a model from the HTTP call up to the retry; or to the batch, if it answers those."""
        bare = self.bare[lm]
        server, key = bare.address
        throttle = throttle_for(lm, server, key)
        throttle.share(None if self.leases is None else self.leases.pace(server, key, lm.model))
        self.throttles[lm] = throttle
        marked = SendMarker(bare, self.in_flight)
        throttled = Throttled(marked, throttle, lm=lm, statistics=bare.statistics)
        model: Model = ConcurrencyLimited(throttled, gate)
        if lm.hedge:
            model = Hedged(model, bare.statistics)
        retrying = Retrying(self._wrap_in_meter(model, lm), lm=lm, throttle=throttle)
        if not lm.batch:
            return retrying
        # It tries its steps again by itself: a retry of requests would ask for another batch.
        return BatchFirst(self._wrap_in_meter(self.batches[lm], lm, half=True), retrying)

    def _wrap_in_meter(self, model: Model, lm: LM, *, half: bool = False) -> Metered:
        """A model whose requests are paid for; ``half`` the price in a batch."""
        return Metered(
            model,
            name=lm.model,
            statistics=self.bare[lm].statistics,
            budget_tracker=self.budget_tracker,
            price=price_of(lm),
            half=half,
            most=lm.max_output_tokens,
        )


@contextlib.asynccontextmanager
async def wire(
    lms: Iterable[LM],
    ledger: Ledger,
    budget: Budget | None,
    leases: Leases | None,
    *,
    offline: bool = False,
    within: Wired | None = None,
) -> AsyncIterator[Wired]:
    """Open a run's models.

    Args:
        lms: the models.
        ledger: takes what they cost.
        budget: what they may cost.
        leases: what processes share.
        offline: whether servers are sent nothing.
        within: the models of an outer run: their connections and budget are shared.

    Raises:
        UsageError: the budget is to be shared, and nothing is.
    """
    async with contextlib.AsyncExitStack() as stack:
        known = within.bare if within is not None else {}
        new = [lm for lm in dict.fromkeys(lms) if lm not in known]
        bare = {lm: await stack.enter_async_context(_endpoint(lm, offline=offline)) for lm in new}
        batches = {lm: Batched(model, lm.batch_poll_s) for lm, model in bare.items() if lm.batch}
        for batched in batches.values():
            stack.push_async_exit(batched.end)
        if within is not None:
            yield Wired(
                {**within.bare, **bare},
                {**within.batches, **batches},
                within.budget_tracker,
                within.in_flight,
                within.throttles,
                within.leases,
            )
        else:
            tracker = _make_tracker(budget, ledger, leases)
            stack.push_async_callback(tracker.close)
            yield Wired(bare, batches, tracker, leases=leases)


def _endpoint(lm: LM, *, offline: bool) -> Endpoint:
    """Make a model's endpoint; offline only the model in this process is asked."""
    return Endpoint(lm, offline=offline and not is_embedded(lm))


def _make_tracker(budget: Budget | None, ledger: Ledger, leases: Leases | None) -> BudgetTracker:
    """Make what tracks a run's budget, its own or a shared one.

    Raises:
        UsageError: it is to be shared, and nothing is.
    """
    if budget is None:
        return BudgetTracker(None, ledger)
    if budget.shared is None:
        return BudgetTracker(budget, ledger)
    if leases is None:
        raise UsageError(
            f"Budget(shared={budget.shared!r}) counts in a folder that processes share, and none "
            "is: see AMR_LEASE and amr.configure(lease=...)."
        )
    lease = leases.budget(budget.shared, budget_limits(budget))
    return SharedBudgetTracker(budget=budget, ledger=ledger, lease=lease)
