"""Defaults of calls: of the process, or of a ``with`` block in its own context."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, get_args

from pandas_amr._context.environment import (
    is_offline_by_environment,
    is_traced_by_environment,
)
from pandas_amr._journal.journal import Journal, suggest_switch
from pandas_amr._plan.call import Errors
from pandas_amr._records.keywords import closest_keyword
from pandas_amr._records.listeners import check_listener, refuse_collector, runs_later
from pandas_amr._records.otel import check_telemetry
from pandas_amr._records.paths import absolute_path
from pandas_amr._records.pickles import CopiedHere, pack, refuse_pickling, unpack
from pandas_amr._records.public import public
from pandas_amr._records.refused import is_whole, show_refused
from pandas_amr._records.suggest import closest_name, did_you_mean
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr._records.transcript import TraceLevel
from pandas_amr._records.usage import Budget, Phase
from pandas_amr.errors import ArgumentError, UsageError
from pandas_amr.models.base import LM, is_client, refuse_clients, refuse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pandas_amr._records.events import Event

    Caller: TypeAlias = Literal["configure", "settings"]

PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True)
class Settings(CopiedHere):
    """What holds for calls that do not say otherwise.

    Attributes:
        of_block: the settings among these that ``with`` blocks have set. They hold for the calls
            that the user's functions make, too, whenever these run.
    """

    lm: Any = None
    max_parallelism: int | None = None
    max_steps: int = 6
    errors: Errors = "coerce"
    progress: bool | None = None
    budget: Budget | None = None
    journal: Any = None
    offline: bool | None = None
    lease: Any = None
    redact: Callable[[str], str] | None = None
    engine: Any = None
    trace: TraceLevel = "nodes"
    on_event: Callable[[Event], Any] | None = None
    telemetry: bool | None = None
    of_block: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_offline(self) -> bool:
        """Whether the journal alone answers: by the setting, else by the environment.

        Raises:
            UsageError: the environment's variable is neither on nor off.
        """
        return is_offline_by_environment() if self.offline is None else self.offline

    @property
    def is_traced(self) -> bool:
        """Whether OpenTelemetry gets spans and metrics: by the setting, else by the environment.

        Raises:
            UsageError: the environment's variable is neither on nor off.
        """
        return is_traced_by_environment() if self.telemetry is None else self.telemetry

    def __getstate__(self) -> dict[str, Any]:
        return pack_arguments(self.__dict__, "settings")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unpack_arguments(state))

    def with_changes(self, changes: dict[str, Any]) -> Settings:
        """Give a copy with some of them changed."""
        return replace(self, **changes)


LOCAL = "local"  # the name of the embedded model
LIKE_LOCAL = 0.8  # how much alike a name must be to be taken for it
NAMES = tuple(each.name for each in fields(Settings) if each.name != "of_block")


@dataclass(eq=False)
class _Entry:
    """One stay in a block.

    Attributes:
        owner: what was entered; it may be entered again before it is left.
        token: belongs to the context in which it was entered.
        ended: the block was left in another context, so that it could not be taken out of its own.
    """

    owner: settings | None
    changes: Mapping[str, Any]
    token: Token[tuple[_Entry, ...]] | None = None
    ended: bool = False


_process = Settings()
_process_lock = threading.Lock()
# The changes alone, and not whole settings: what the process sets meanwhile under other names is
# seen in a block, too.
_entries: ContextVar[tuple[_Entry, ...]] = ContextVar("pandas_amr_settings", default=())


def current_settings() -> Settings:
    """Return the settings in force: the process's, with the changes of the blocks around."""
    changes: dict[str, Any] = {}
    for entry in _entries.get():
        if not entry.ended:
            changes.update(entry.changes)
    return replace(_process, **changes, of_block=changes)


@contextlib.contextmanager
def use_block_settings(known: Settings) -> Iterator[None]:
    """Let a call's block settings hold again, for what runs for it later, such as ``retry()``."""
    entry = _enter(None, known.of_block)
    try:
        yield
    finally:
        _leave(entry)


def _enter(owner: settings | None, changes: Mapping[str, Any]) -> _Entry:
    entry = _Entry(owner, changes)
    entry.token = _entries.set((*_entries.get(), entry))
    return entry


def _leave(entry: _Entry) -> None:
    """Take one entry out, wherever it stands: blocks may be left in any order."""
    remaining = tuple(other for other in _entries.get() if other is not entry)
    assert entry.token is not None
    try:
        _entries.reset(entry.token)
    except (
        ValueError
    ):  # left in another context: by a generator that another thread closes, or a fixture's task
        entry.ended = True
    else:
        _entries.set(remaining)


@public
class settings:  # noqa: N801 (used like a function)
    """Set defaults of calls in a ``with`` block, as pandas' ``option_context``.

    Only the settings that are named change, only inside of the block, and only in its context:
    other threads and other tasks keep theirs, while threads and tasks that copy the context have
    these. A call takes its settings when it is made, and keeps them: a run that is started inside
    of the block and read outside of it, and its ``retry()``. The object may be entered again, and
    decorates plain functions.

    Args:
        lm: the model: an ``LM``, a model's name, ``"local"``, a client, or a dict by phase.
        max_parallelism: most requests in flight in one run.
        max_steps: most turns of an agent with tools.
        errors: ``"coerce"`` or ``"raise"``.
        progress: None shows a bar in terminals and notebooks, else lines in the log
            ``pandas_amr`` at INFO; True writes these lines to stderr; False shows nothing.
        budget: what one run may spend.
        journal: a path, ``amr.Journal(path)``, or False for none; default: a file in the user's
            cache folder.
        offline: True lets the journal alone answer: no request is sent to a server, be it on this
            machine, and a call that needs one raises ``amr.ModelOffline``, which says for how many
            rows. Functions, pandas and the embedded model (``lm="local"``) work as ever; tools are
            yours, and may do what they do. Default: what ``AMR_OFFLINE`` says (1 or 0).
        lease: where processes share the limits of a server, key and model, and what is spent of
            ``Budget(shared=...)``: a folder on a disk of this machine, or False for nowhere;
            default: a folder in the user's cache folder.
        engine: where rows are mapped: a ``dask.distributed.Client``; default: in this process.
        redact: a function of a text that gives the text that is sent in its place. It is given
            every cell, every number and every result of a tool before it is sent; names of columns
            and your own words (tasks, instructions, types) are sent as they are.
        trace: what ``result.look(...)`` shows of an agent's work: ``"nodes"`` (default) its turns,
            their cost, its code and its errors, without the text of cells; ``"full"`` what it read
            and said, too, in a file of its own beside the journal; ``"off"`` nothing.
        on_event: a function of one event (``amr.events``), called with all that happens in a run,
            in order, on a thread of its own.
        telemetry: True gives spans and metrics to the OpenTelemetry that your program has set up
            (``pip install "pandas-amr[otel]"``); nothing is sent anywhere else. Default: what
            ``AMR_TELEMETRY`` says (1 or 0).

    Raises:
        UsageError: a setting does not exist or a value does not fit.

    Example:
        >>> import pandas_amr as amr
        >>> with amr.settings(lm="local", max_parallelism=2):
        ...     pass  # calls in here
    """

    def __init__(self, *unnamed: object, **changes: Any) -> None:
        self._changes = _check_changes("settings", unnamed, changes)
        self._open: list[
            _Entry
        ] = []  # of all contexts: one object may be entered in several threads at once

    def __reduce__(self) -> tuple[Any, ...]:
        """Take the changes apart; a copy has not been entered."""
        return _remake_settings, (pack_arguments(self._changes, "settings"),)

    def __copy__(self) -> settings:
        return settings(**self._changes)

    def __deepcopy__(self, memo: dict[int, Any]) -> settings:
        """Return a copy with the same functions and clients."""
        del memo
        return settings(**self._changes)

    def __enter__(self) -> None:
        self._open.append(_enter(self, self._changes))

    def __exit__(self, *exception: object) -> None:
        entry = self._innermost()
        self._open.remove(entry)
        _leave(entry)

    def _innermost(self) -> _Entry:
        """Find the entry that ends: the last of this context, else (begun elsewhere) of all."""
        for entry in reversed(_entries.get()):
            if entry.owner is self and entry in self._open:
                return entry
        if not self._open:
            raise UsageError("This block of settings(...) has ended already.")
        return self._open[-1]

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function: each call of it is a block."""
        if not callable(function) or runs_later(function):
            raise UsageError(
                "settings(...) decorates plain functions, whose calls are over when they return. "
                "In an async function or a generator: with amr.settings(...): ..."
            )

        @functools.wraps(function)
        def inside(*args: Any, **options: Any) -> Any:
            with self:
                return function(*args, **options)

        return inside

    def __repr__(self) -> str:
        return f"<settings {', '.join(self._changes) or 'without changes'}>"


def _remake_settings(changes: Mapping[str, Any]) -> settings:
    """Make the settings that a pickle describes."""
    return settings(**unpack_arguments(changes))


def pack_arguments(given: Mapping[str, Any], of: str) -> dict[str, Any]:
    """Return arguments of calls, or settings, as they enter a pickle.

    Args:
        given: the arguments, by name.
        of: what they belong to, for people.

    Raises:
        UsageError: one of them cannot be pickled.
    """
    packed: dict[str, Any] = {}
    for name, value in given.items():
        if name == "lm":
            refuse_clients(value)
        if name == "on_event":
            refuse_collector(value, f"{of}({name}=...)")
        packed[name] = pack(value, f"{of}({name}=...)")
    return packed


def unpack_arguments(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments that ``pack_arguments`` gave as they were before."""
    return {name: unpack(value) for name, value in packed.items()}


@user_traceback
def configure(*unnamed: object, **changes: Any) -> object:
    """Set defaults of calls for the process. For a block: ``with amr.settings(...):``.

    Args:
        unnamed: none; settings are given by name.
        changes: the names and values of ``amr.settings``.

    Returns:
        Nothing of use: an object that refuses to be a context manager.

    Raises:
        UsageError: a setting does not exist or a value does not fit; nothing was changed.

    Example:
        ``amr.configure(lm=amr.LM("model-name", base_url="http://127.0.0.1:8000/v1"),
        max_parallelism=8)``
    """
    global _process  # noqa: PLW0603 (the process's settings are one)
    checked = _check_changes("configure", unnamed, changes)
    with _process_lock:
        before = {name: getattr(_process, name) for name in checked}
        _process = replace(_process, **checked)
    return _Configured(checked, before)


class _Configured:
    """What ``configure`` returns: used as a context manager it takes the change back and refuses.

    Attributes:
        changes: what was set.
        before: what it was before.
    """

    def __init__(self, changes: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        self._changes = changes
        self._before = before

    __reduce_ex__ = refuse_pickling(
        "What configure() returns", "Call amr.configure(...) in the other process, too."
    )

    def _refuse(self, *_: object) -> NoReturn:
        """Take the change back, but for what somebody else has set since.

        Raises:
            UsageError: always.
        """
        global _process  # noqa: PLW0603
        with _process_lock:
            for name, value in self._changes.items():
                if getattr(_process, name) is value:
                    _process = replace(_process, **{name: self._before[name]})
        given = ", ".join(f"{name}=..." for name in self._changes)
        raise UsageError(
            "configure(...) sets what holds for the process, and was taken back here. For a block: "
            f"with amr.settings(...): ..., such as with amr.settings({given}):"
        )

    __enter__ = __aenter__ = __call__ = _refuse

    def __exit__(self, *exception: object) -> None:
        """Never reached: ``with`` looks for it before it enters."""

    async def __aexit__(self, *exception: object) -> None:
        """Never reached; likewise."""

    def __repr__(self) -> str:
        return f"<configured {', '.join(self._changes) or 'nothing'}>"

    def _ipython_display_(self) -> None:
        """Show nothing below a notebook's cell."""


def _check_changes(
    caller: Caller, unnamed: tuple[object, ...], changes: dict[str, Any]
) -> dict[str, Any]:
    """Check settings and return a copy that later changes of a dict or the folder do not reach.

    Raises:
        UsageError: a setting does not exist or a value does not fit.
    """
    if unnamed:
        raise UsageError(f'{caller}(...) takes settings by name, such as {caller}(errors="raise").')
    for name in changes:
        if name not in NAMES:
            raise ArgumentError(f"There is no setting {name!r}. {_right_name(caller, name)}")
    _check_values(caller, changes)
    if changes.get("telemetry"):
        check_telemetry(f"{caller}(telemetry=True)")
    kept = dict(changes)
    if isinstance(kept.get("lm"), dict):
        kept["lm"] = dict(kept["lm"])
    for name in ("journal", "lease"):
        if isinstance(kept.get(name), str | Path):
            kept[name] = absolute_path(kept[name])
    return kept


def _right_name(caller: Caller, name: str) -> str:
    meant = closest_keyword(name, list(NAMES))
    if meant is not None:
        return f"Did you mean {caller}({meant}=...)?"
    return f"{caller}(...) takes: {', '.join(NAMES)}."


def _check_values(caller: Caller, changes: dict[str, Any]) -> None:
    defaults = Settings()
    for name, value in changes.items():
        if value is None and getattr(defaults, name) is None:
            continue  # None is what holds where nothing is said
        if name == "lm":
            check_lm(value, where=f"{caller}(lm=...)")
        elif name == "on_event":
            check_listener(value, f"{caller}(on_event=...)")
        elif not _fits(name, value):
            suggestion = did_you_mean(value, _CHOICES[name]) if name in _CHOICES else ""
            if name in {"journal", "lease"} and isinstance(value, str):
                suggestion = suggest_switch(value, name)
            raise UsageError(
                f"{caller}({name}=...) takes {_WANTED[name]}, "
                f"not {show_refused(value)}.{suggestion}"
            )


_WANTED = {
    "max_parallelism": "a whole number from 1",
    "max_steps": "a whole number from 1",
    "errors": '"coerce" or "raise"',
    "progress": "True, False or None",
    "budget": "amr.Budget(money=, tokens=, calls=, seconds=)",
    "journal": "a path, amr.Journal(path), True, False or None",
    "offline": "True, False or None",
    "lease": "a folder's path, True, False or None",
    "telemetry": "True, False or None",
    "redact": "a plain function that is given a text and gives a text, or None",
    "engine": "a dask.distributed.Client, or None",
    "trace": '"nodes", "full" or "off"',
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "errors": get_args(Errors),
    "trace": get_args(TraceLevel),
}


def _fits(name: str, value: object) -> bool:
    match name:
        case "errors" | "trace":
            return isinstance(value, str) and value in _CHOICES[name]
        case "progress" | "offline" | "telemetry":
            return isinstance(value, bool)
        case "budget":
            return isinstance(value, Budget)
        case "journal":
            return isinstance(value, Journal) or _is_place(value)
        case "lease":
            return _is_place(value)
        case "redact":
            return _is_redact(value)
        case "engine":
            return is_engine(value)
    return is_whole(value, least=1)


def is_engine(value: object) -> bool:
    """Tell whether something is a client of a Dask cluster, without importing that."""
    for kind in type(value).__mro__:
        if kind.__module__.partition(".")[0] == "distributed" and kind.__name__ == "Client":
            return True
    return False


def _is_place(value: object) -> bool:
    """Tell whether a value is a path, or a switch: True for the default one, False for none."""
    if isinstance(value, str):
        return bool(value.strip()) and not suggest_switch(value)
    return isinstance(value, bool | Path)


def _is_redact(value: object) -> bool:
    """Tell whether a value can be called with a text; what an async function gives is no text."""
    if not callable(value):
        return False
    return not runs_later(value) and not runs_later(type(value).__call__)


def check_lm(given: object, where: str = "lm=") -> None:
    """Refuse what names no model.

    Args:
        given: what was given.
        where: the argument, for people.

    Raises:
        UsageError: it is no model, no name, no client and no dict of these by phase.
    """
    if isinstance(given, dict):
        _check_phases(given, where)
        for lm in given.values():
            check_lm(lm, where)
        return
    if isinstance(given, LM) or is_client(given):
        return
    if not isinstance(given, str) or not given:
        raise UsageError(
            f'{where} takes amr.LM("name"), a name, "local", a client, or a dict by phase, '
            f"not {show_refused(given)}.{_advise_lm(given)}"
        )
    refuse_key(given, where)
    if given != LOCAL and closest_name(given, [LOCAL], least=LIKE_LOCAL) is not None:
        raise UsageError(f"{where} names the model {given!r}. Did you mean {LOCAL!r}?")


def _check_phases(lms: Mapping[Any, Any], where: str) -> None:
    """Refuse a dict of models that is empty, or that names what is no phase.

    Raises:
        UsageError: it is.
    """
    unknown = [phase for phase in lms if phase not in PHASES]
    if lms and not unknown:
        return
    shown = ", ".join(map(repr, unknown)) or "nothing"
    suggestion = did_you_mean(unknown[0], PHASES) if unknown else ""
    raise UsageError(f"{where} by phase takes {', '.join(PHASES)}, not {shown}.{suggestion}")


def _advise_lm(given: object) -> str:
    """Suggest the object that is meant by a class or a module."""
    if given is LM:
        return ' Did you mean amr.LM("name")?'
    if isinstance(given, type) and given.__module__.partition(".")[0] == "openai":
        return f' Did you mean amr.LM("name", client=openai.{given.__name__}(...))?'
    if inspect.ismodule(given) and given.__name__ == "openai":
        return ' Did you mean amr.LM("name", client=openai.AsyncOpenAI())?'
    return ""
