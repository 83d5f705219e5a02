"""From settings to wired parts: which model, how many requests at once. The one place that assembles."""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_args

from pandas_amr._call import Errors
from pandas_amr.errors import UsageError
from pandas_amr.models.base import LM, Model
from pandas_amr.models.gate import Gated, Metered
from pandas_amr.models.retry import Retrying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from pandas_amr._usage import Ledger

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
    if settings.get("lm") is not None:
        _check_lm(settings["lm"])


def _check_lm(given: Any) -> None:
    if not isinstance(given, LM) and not (isinstance(given, str) and given):
        raise UsageError(f'lm= takes amr.LM("name"), a model\'s name, or "local", not {given!r}.')


def resolve_lm(given: Any, settings: Settings) -> LM:
    """The model of a call: its own, else the settings', else the environment's.

    Raises:
        UsageError: none is named anywhere; the message lists the ways.
        ModelConfigError: ``"local"`` is asked for and not installed.
    """
    named = given if given is not None else settings.lm if settings.lm is not None else os.environ.get("AMR_MODEL")
    if named is None or named == "":
        raise UsageError(NO_MODEL)
    _check_lm(named)
    if isinstance(named, LM):
        return named
    if named == "local":
        from pandas_amr.models.local import local_lm  # noqa: PLC0415 (starts llama.cpp)

        return local_lm()
    if not os.environ.get("OPENAI_API_KEY") and not os.environ.get("OPENAI_BASE_URL"):
        raise UsageError(
            f"The model {named!r} has no server: neither OPENAI_API_KEY nor OPENAI_BASE_URL is set.\n{NO_MODEL}"
        )
    return LM(named)


@dataclass(frozen=True)
class Wired:
    """A model as a run uses it, open for the time of the run."""

    bare: Model
    lm: LM
    ledger: Ledger

    def parallelism(self, wanted: int) -> int:
        """How many requests may be in flight: what the run wants and the model bears."""
        return min(wanted, self.lm.max_parallelism or wanted)

    def model(self, wanted: int) -> Model:
        """The model wrapped: what is metered is retried, what is retried is gated."""
        gated = Gated(self.bare, asyncio.Semaphore(self.parallelism(wanted)))
        return Metered(Retrying(gated, max_tries=self.lm.max_tries), name=self.lm.model, ledger=self.ledger)


@contextlib.asynccontextmanager
async def wire(lm: LM, ledger: Ledger) -> AsyncIterator[Wired]:
    """Connect to ``lm`` for the time of a run."""
    from pandas_amr.models.openai import OpenAIModel  # noqa: PLC0415 (importing openai takes half a second)

    async with OpenAIModel(lm) as bare:
        yield Wired(bare, lm, ledger)
