"""Refuse a keyword that a function does not take, with the name that may be meant."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from pandas_amr._records.suggest import closest_name
from pandas_amr._records.tracebacks import UserTraceback
from pandas_amr.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Function = TypeVar("Function", bound="Callable[..., Any]")

TAKES_ANY_KEYWORD = 0x08  # a flag of a function's code: it has a ** parameter

SYNONYMS = {  # what other libraries call it; the first that is known is meant
    "model": ("lm",),
    "llm": ("lm",),
    "client": ("lm",),
    "prompt": ("task", "instruction"),
    "question": ("task",),
    "schema": ("finding", "output"),
    "response_model": ("finding", "output"),
    "output_type": ("output",),
    "groupby": ("by",),
    "group_by": ("by",),
    "instruction": ("task",),
    "response_format": ("finding", "output"),
    "verbose": ("progress",),
    "max_cost": ("money", "budget"),
    "max_budget": ("money", "budget"),
    "cache": ("journal",),
    "concurrency": ("max_parallelism",),
    "parallelism": ("max_parallelism",),
    "max_workers": ("max_parallelism",),
    "on_error": ("errors",),
    "callback": ("on_event",),
    "callbacks": ("on_event",),
    "events": ("on_event",),
    "listener": ("on_event",),
    "listeners": ("on_event",),
    "hooks": ("on_event",),
    "on_progress": ("on_event", "progress"),
    "otel": ("telemetry",),
    "opentelemetry": ("telemetry",),
    "tracing": ("telemetry",),
    "name": ("model",),
    "model_name": ("model",),
    "url": ("base_url",),
    "api_base": ("base_url",),
    "endpoint": ("base_url",),
    "key": ("api_key",),
    "token": ("tokens", "api_key"),
    "max_tokens": ("max_output_tokens", "tokens", "chunk_tokens"),
    "max_completion_tokens": ("max_output_tokens",),
    "effort": ("reasoning_effort",),
    "thinking": ("reasoning_effort",),
    "timeout": ("timeout_s", "seconds", "wall_s"),
    "time": ("seconds",),
    "retries": ("max_tries",),
    "max_retries": ("max_tries",),
    "headers": ("extra_headers",),
    "top_p": ("extra_body",),
    "price": ("prices", "money"),
    "pricing": ("prices",),
    "dollars": ("money",),
    "usd": ("money",),
    "cost": ("money",),
    "requests": ("calls",),
    "persona": ("role",),
    "memory": ("memory_mb",),
    "cpu": ("cpu_s",),
    "encoding_errors": ("errors",),
    "ascending": ("lowest_first",),
    "n": ("most",),
    "top": ("most",),
}
OF_THE_PLAN = {  # fields of a plan, and other words for them
    "batch_size": "shard_size",
    "chunk_size": "shard_size",
    "shard_size": "shard_size",
    "segmentation": "segmentation",
    "view": "view",
    "fan_in": "fan_in",
    "dedupe": "dedupe",
    "status": "status",
    "where": "where",
    "ranking": "ranking",
    "max_repairs": "max_repairs",
    "give_up_after": "give_up_after",
    "retry_failed_after": "retry_failed_after",
}
OF_THE_LM = [  # arguments of a model that no verb has
    "base_url",
    "api_key",
    "temperature",
    "seed",
    "reasoning_effort",
    "max_output_tokens",
    "timeout_s",
    "max_tries",
    "rpm",
    "tpm",
    "hedge",
    "batch",
    "extra_headers",
    "extra_body",
]
ASKED_FIRST = ("map", "filter", "reduce", "mapper")
OTHER_WORDS_FOR_THE_QUESTION = ("prompt", "question", "query", "instructions", "task")
ONLY_SETTINGS = {  # what holds for all calls, so that none can forget it
    "redact": (
        "It is a setting: amr.configure(redact=f), or for a block: with amr.settings(redact=f):"
    ),
    "telemetry": (
        "It is a setting: amr.configure(telemetry=True), or for a block: "
        "with amr.settings(telemetry=True):"
    ),
}


def check_keywords(function: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a keyword that a function does not take.

    Raises:
        ArgumentError: there is one; the message names the closest one that the function takes.
    """
    names = list(known)
    for name in options:
        if name in names:
            continue
        hint = (
            ONLY_SETTINGS.get(name)
            or _suggest_place(function, name, names)
            or suggest_keyword(name, names, "It takes")
        )
        raise ArgumentError(f"{function}() takes no {name!r}. {hint}")


def _suggest_place(function: str, name: str, known: Sequence[str]) -> str | None:
    """Say where something goes that is no keyword: to the plan, to the model, or first of all."""
    if "plan" in known and name in OF_THE_PLAN:
        return f"It is a field of the plan: plan={{{OF_THE_PLAN[name]!r}: ...}}."
    if "lm" in known:
        of_the_lm = name if name in OF_THE_LM else _read_synonym(name, OF_THE_LM)
        if of_the_lm is not None:
            return f'It is said of the model: lm=amr.LM("name", {of_the_lm}=...).'
    if function in ASKED_FIRST and name in OTHER_WORDS_FOR_THE_QUESTION:
        return f'What is asked stands first, without a name: {function}("...").'
    return None


def suggest_keyword(name: str, known: list[str], otherwise: str) -> str:
    """Suggest the keyword that is meant; if none is close, list all behind the words given.

    Example:
        >>> suggest_keyword("colum", ["column", "row"], "There are")
        "Did you mean 'column'?"
        >>> suggest_keyword("weather", ["column", "row"], "There are")
        'There are: column, row.'
    """
    meant = closest_keyword(name, known)
    if meant is not None:
        return f"Did you mean {meant!r}?"
    return f"{otherwise}: {', '.join(known)}."


def closest_keyword(name: str, known: list[str]) -> object | None:
    """Find the keyword that is meant by another word for it, or by one that is spelled alike."""
    meant = _read_synonym(name, known) or closest_name(name, known)
    if meant is not None:
        return meant
    word = closest_name(name, SYNONYMS, least=0.8)  # the other word may be mistyped, too
    return _read_synonym(str(word), known)


def _read_synonym(word: str, known: list[str]) -> str | None:
    """Return the keyword for which people say another word; None if there is none."""
    for meant in SYNONYMS.get(word, ()):
        if meant in known:
            return meant
    return None


def suggest_keywords(function: Function, name: str = "") -> Function:
    """Let a function refuse an unknown keyword with the one that may be meant.

    Args:
        function: what is decorated.
        name: what people call it; default: its own name.
    """
    code = function.__code__
    if code.co_flags & TAKES_ANY_KEYWORD:
        return function
    first = code.co_posonlyargcount
    names = code.co_varnames[first : code.co_argcount + code.co_kwonlyargcount]
    known, shown = frozenset(names), name or function.__name__

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not options.keys() <= known:
            with UserTraceback():
                check_keywords(shown, options, [each for each in names if each != "self"])
        return function(*args, **options)

    return call  # type: ignore[return-value]
