"""From settings to wired parts: which model, how many requests at once. The one place that assembles."""

from __future__ import annotations

import contextlib
import os
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pandas_amr._cache import absolute_path
from pandas_amr._call import Errors
from pandas_amr.errors import UsageError
from pandas_amr.models.base import LM, Model
from pandas_amr.models.batch import MOST_REQUESTS, Batched, takes
from pandas_amr.models.budget import Metered, Purse
from pandas_amr.models.endpoint import Endpoint
from pandas_amr.models.gate import Gated
from pandas_amr.models.hedge import Hedged
from pandas_amr.models.retry import Retrying
from pandas_amr.models.sent import SendMarker
from pandas_amr.models.settings import Adapting
from pandas_amr.models.structured import Structured
from pandas_amr.models.throttle import Throttled, throttle_for
from pandas_amr.sandbox.local import LocalSandbox

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from types import TracebackType

    from pandas_amr.errors import SettingWarning
    from pandas_amr.sandbox.base import Isolation, Sandbox
    from pandas_amr.tools import PythonREPLTool
from pandas_amr._prices import price_of
from pandas_amr._usage import Budget, Ledger, Phase, Usage

PHASES: tuple[Phase, ...] = ("plan", "map", "reduce")
NO_MODEL = """\
No model is configured. There are three ways:
  - a server: set OPENAI_API_KEY (and OPENAI_BASE_URL for one of your own) and AMR_MODEL to the model's name;
  - in code: amr.configure(lm=amr.LM("model-name", base_url="http://127.0.0.1:8000/v1")), or lm= in the call;
  - a small model in this process, no key and no network: lm="local" (pip install "pandas-amr[local]")."""


@dataclass(frozen=True)
class Settings:
    """What holds for calls that do not say otherwise."""

    lm: Any = None
    max_parallelism: int | None = None
    max_steps: int = 6
    errors: Errors = "coerce"
    progress: bool | None = None
    budget: Budget | None = None
    journal: Any = None

    def with_changes(self, changes: dict[str, Any]) -> Settings:
        """A copy with some of them changed."""
        return replace(self, **changes)


_process = Settings()
_context: ContextVar[Settings | None] = ContextVar("pandas_amr_settings", default=None)


def current_settings() -> Settings:
    """The settings in force here: those of the innermost ``with``, else the process's."""
    return _context.get() or _process


class configure:  # noqa: N801 (used like a function, and as a context manager)
    """Set what holds for calls that do not say otherwise: for the process, or for a ``with`` block.

    Args:
        lm: the model: an ``LM``, a model's name, or ``"local"``.
        max_parallelism: most requests in flight in one run.
        max_steps: most turns of an agent with tools.
        errors: ``"coerce"`` or ``"raise"``.
        progress: whether a bar is shown; None shows it to people who watch.
        budget: what one run may spend.
        journal: a path, ``amr.Journal(path)``, or False for none; default: a file in the user's cache folder.

    Raises:
        UsageError: a setting does not exist or a value does not fit.

    Example:
        >>> import pandas_amr as amr
        >>> with amr.configure(lm="local", max_parallelism=2):
        ...     pass  # calls in here
    """

    def __init__(self, **settings: Any) -> None:
        global _process  # noqa: PLW0603 (the process's settings are one)
        known = [f.name for f in fields(Settings)]
        unknown = sorted(settings.keys() - set(known))
        if unknown:
            raise UsageError(f"There is no setting {unknown[0]!r}. There is: {', '.join(known)}.")
        _check(settings)
        if isinstance(settings.get("journal"), str | Path) and str(settings["journal"]):
            settings["journal"] = absolute_path(settings["journal"])  # whatever the folder is when a run begins
        self._before = _process
        self._changes = settings
        self._token: Any = None
        _process = replace(_process, **settings)

    def __enter__(self) -> None:
        global _process  # noqa: PLW0603
        _process = self._before
        self._token = _context.set(replace(current_settings(), **self._changes))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _context.reset(self._token)


def _check(settings: dict[str, Any]) -> None:
    for name in ("max_parallelism", "max_steps"):
        value = settings.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UsageError(f"configure({name}=...) takes a whole number from 1, not {value!r}.")
    if settings.get("errors", "coerce") not in get_args(Errors):
        raise UsageError(f'configure(errors=...) takes "coerce" or "raise", not {settings["errors"]!r}.')
    if settings.get("budget") is not None and not isinstance(settings["budget"], Budget):
        raise UsageError(f"configure(budget=...) takes amr.Budget(...), not {settings['budget']!r}.")
    if settings.get("lm") is not None:
        _check_lm(settings["lm"])


def _check_lm(given: Any) -> None:
    if isinstance(given, dict):
        unknown = [phase for phase in given if phase not in PHASES]
        if unknown or not given:
            raise UsageError(
                f"lm= by phase takes {', '.join(PHASES)}, not {', '.join(map(repr, unknown)) or 'nothing'}."
            )
        for one in given.values():
            _check_lm(one)
    elif not isinstance(given, LM) and not (isinstance(given, str) and given) and not _is_client(given):
        raise UsageError(f'lm= takes amr.LM("name"), a name, "local", a client, or a dict by phase, not {given!r}.')


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
                'LM(prices=(input, output)) a million tokens, or pip install "pandas-amr[prices]".'
            )


def _is_client(given: Any) -> bool:
    return hasattr(given, "chat") and hasattr(given, "post")


def resolve_lms(given: Any, settings: Settings) -> dict[Phase, LM]:
    """The model of each phase: the call's own, else the settings', else the environment's.

    Raises:
        UsageError: none is named anywhere; the message lists the ways.
        ModelConfigError: ``"local"`` is asked for and not installed.
    """
    named = given if given is not None else settings.lm
    if not isinstance(named, dict):
        return dict.fromkeys(PHASES, resolve_lm(named))
    _check_lm(named)
    default = settings.lm if not isinstance(settings.lm, dict) else None
    given_lms = {phase: resolve_lm(one) for phase, one in named.items()}
    missing = [phase for phase in PHASES if phase not in given_lms]
    fallback = given_lms.get("map") if default is None and not os.environ.get("AMR_MODEL") else None
    rest = {phase: fallback or resolve_lm(default) for phase in missing}
    return {phase: given_lms.get(phase) or rest[phase] for phase in PHASES}


def resolve_lm(given: Any) -> LM:
    """The model that ``lm=`` means, in a call, a setting or an agent.

    Raises:
        UsageError: it means none.
    """
    named = given if given is not None else os.environ.get("AMR_MODEL")
    if named is None or named == "":
        raise UsageError(NO_MODEL)
    _check_lm(named)
    if isinstance(named, LM):
        return named
    if _is_client(named):
        model = os.environ.get("AMR_MODEL")
        if not model:
            raise UsageError('A client does not say which model: lm=amr.LM("model-name", client=client), or AMR_MODEL.')
        return LM(model, client=named)
    if named == "local":
        from pandas_amr.models.local import local_lm  # noqa: PLC0415 (starts llama.cpp)

        return local_lm()
    if not os.environ.get("OPENAI_API_KEY") and not os.environ.get("OPENAI_BASE_URL"):
        said = f"The model {named!r} has no server: neither OPENAI_API_KEY nor OPENAI_BASE_URL is set."
        raise UsageError(f"{said}\n{NO_MODEL}")
    return LM(named)


_sandboxes: dict[tuple[Any, ...], Sandbox] = {}


def sandbox_for(repl: PythonREPLTool | None) -> Sandbox:
    """The sandbox behind a REPL tool: its own, or the process's one for its packages, files and isolation.

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
    """What tells a file from the one that takes its place: a sandbox has the one that was there at its start."""
    there = Path(path).stat()
    return there.st_ino, there.st_mtime_ns, there.st_size


@dataclass(frozen=True)
class Wired:
    """A run's models, by phase, open for the time of the run."""

    bare: Mapping[LM, Endpoint]
    batches: Mapping[LM, Batched]
    purse: Purse

    def parallelism(self, lm: LM, wanted: int, *, tools: bool) -> int:
        """How many requests may be in flight: what the run wants and the model bears; a batch takes all at once."""
        if lm.batch and not tools:
            return MOST_REQUESTS
        return min(wanted, lm.max_parallelism or wanted)

    def server(self, lm: LM) -> str:
        """The address at which a model answers."""
        return self.bare[lm].server

    def model(self, lm: LM, gate: asyncio.Semaphore, warn: Callable[[SettingWarning], None]) -> Model:
        """A model, wrapped: from the HTTP call up throttled, gated, metered, retried, and its settings and form found.

        ``warn`` takes what the run's user is to be told.
        """
        bare = self.bare[lm]
        server, key = bare.address
        throttle = throttle_for(lm, server, key)
        throttled = Throttled(SendMarker(bare), throttle, name=lm.model, lessons=bare.lessons, lm=lm)
        model: Model = Gated(throttled, gate)
        if lm.hedge:
            model = Hedged(model, bare.lessons)
        if lm.batch:
            model = self.batches[lm].before(model)
        metered = Metered(
            model,
            name=lm.model,
            lessons=bare.lessons,
            purse=self.purse,
            price=price_of(lm),
            half=lambda request: lm.batch and takes(request),
            most=lm.max_output_tokens,
        )
        adapting = Adapting(Retrying(metered, lm=lm, throttle=throttle), lm=lm, server=server, warn=warn)
        return Structured(adapting, server=server, lm=lm)


@contextlib.asynccontextmanager
async def wire(
    lms: Iterable[LM], ledger: Ledger, budget: Budget | None, *, within: Wired | None = None
) -> AsyncIterator[Wired]:
    """Give a run its models for its time; ``within`` another run, with its connections and its purse."""
    async with contextlib.AsyncExitStack() as stack:
        known = within.bare if within is not None else {}
        new = [lm for lm in dict.fromkeys(lms) if lm not in known]
        bare = {lm: await stack.enter_async_context(Endpoint(lm)) for lm in new}
        batches = {lm: Batched(model, lm.batch_poll_s) for lm, model in bare.items() if lm.batch}
        for batched in batches.values():
            stack.push_async_exit(batched.end)
        if within is not None:
            yield Wired({**within.bare, **bare}, {**within.batches, **batches}, within.purse)
        else:
            yield Wired(bare, batches, Purse(budget or Budget(calls=10**12), ledger))
