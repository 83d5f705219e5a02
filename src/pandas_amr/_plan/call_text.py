"""Why a task has no plan, and the call that needs none, written out to be pasted.

What was given stands in it as it was given; what is missing as placeholders.
"""

from __future__ import annotations

import datetime as dt
import json
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pandas_amr._agent.agent import Agent
from pandas_amr._plan.aggregations import column_of
from pandas_amr._plan.call import finding_types, row_types
from pandas_amr._plan.defaults import default_aggregations
from pandas_amr._units.by import By
from pandas_amr.errors import PlanError
from pandas_amr.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from pandas_amr._plan.call import Call, Job
    from pandas_amr.models.base import LM

PLACEHOLDER = "..."
MOST_VALUE = 200  # characters of an argument; a longer one is shown as a placeholder
MOST_COLUMNS = 8

ARGUMENTS = {"map_instruction": "map", "finding": "finding", "reduce_instruction": "reduce"}
NOT_REPEATED = {"verb", "frame", "task"}  # a task adds nothing where the plan is said in full
FIRST = ("map", "finding", "reduce", "by")


def check_planning(job: Job, planner: LM) -> None:
    """Refuse a task that leaves something open to a model that cannot plan.

    Raises:
        PlanError: the message writes out the call that leaves nothing open.
    """
    if job.open and not planner.abilities.planning:
        raise no_plan(_cannot_plan(planner), job)


def check_call_planning(call: Call, open_: Sequence[str], planner: LM) -> None:
    """Likewise of a call whose frame is not there yet.

    Raises:
        PlanError: likewise.
    """
    if open_ and not planner.abilities.planning:
        raise PlanError(
            f"{_what_to_say(_cannot_plan(planner), open_)}\n    {call_text(call, open_)}"
        )


def _cannot_plan(planner: LM) -> str:
    return f'{planner.model} cannot plan (lm={{"plan": ..., "map": ...}} has another model do it)'


def no_plan(reason: str, job: Job) -> PlanError:
    """Say why a task has no plan, and the call that needs none."""
    assert job.call is not None
    known = types_given(job)
    text = call_text(job.call, job.open, known=known, needed=fields_needed(job))
    lines = [_what_to_say(reason, job.open), f"    {text}"]
    if known and "reduce_instruction" in job.open and job.given.output is None:
        lines.append("The reduce is a proposal, by the types of the finding.")
    if len(job.frame.columns):
        lines.append(f"The columns are {columns_text(job.frame.columns)}.")
    return PlanError("\n".join(lines))


def _what_to_say(reason: str, open_: Sequence[str]) -> str:
    missing = " and ".join(", ".join(f"{ARGUMENTS[name]}=" for name in open_).rsplit(", ", 1))
    return f"This task has no plan: {reason}. No row was sent, and nothing is guessed. Say {missing} yourself:"


def types_given(job: Job) -> dict[Any, Any]:
    """The types of the columns that the user's own finding adds."""
    if job.given.finding is None:
        return {}
    return row_types(finding_types(job, job.given))


def call_text(
    call: Call,
    open_: Sequence[str],
    *,
    known: Mapping[Any, Any] | None = None,
    needed: Mapping[str, str] | None = None,
) -> str:
    """Write the call that leaves nothing open.

    Args:
        call: what the user said.
        open_: the fields of the plan that are still to be said.
        known: the types of the columns that the findings add; a reduce is proposed from them.
        needed: fields that the finding must have, since the user named them, each with its type as it is written.

    Example:
        >>> from pandas_amr._plan.call import Call
        >>> given = Call(verb="map_reduce", frame=None, task="How are they?", finding={"n": int}, lm="local")
        >>> call_text(given, ["map_instruction", "reduce_instruction"], known={"n": int})
        'df.amr.map_reduce(map="...", finding={"n": int}, reduce={"n": "mean"}, lm="local")'
    """
    said = _given_arguments(call)
    if "map_instruction" in open_:
        said["map"] = '"..."'
    if "finding" in open_:
        said["finding"] = _finding_to_fill(needed or {})
    if "reduce_instruction" in open_:
        said["reduce"] = _reduce_to_fill(call.output, known or {})
    ordered = [
        *(name for name in FIRST if name in said),
        *(name for name in said if name not in FIRST),
    ]
    unnamed = "map" if call.verb in {"map", "filter"} else None  # their first argument
    parts = [said[name] if name == unnamed else f"{name}={said[name]}" for name in ordered]
    return f"df.amr.{call.verb}({', '.join(parts)})"


def fields_needed(job: Job) -> dict[str, str]:
    """List the fields of the finding that the user's own reduce names, each with its type where that is clear."""
    named = list(job.by.labels) if job.by is not None else []
    named += [column_of(name, how) for name, how in (job.computed or {}).items()]
    if job.given.ranking is not None:
        named.append(job.given.ranking.field)
    fields = {
        name: PLACEHOLDER
        for name in named
        if isinstance(name, str) and name not in job.frame.columns
    }
    return fields | ({job.given.where: "bool"} if job.given.where is not None else {})


def columns_text(labels: Iterable[Hashable]) -> str:
    """Write a frame's columns; of many the first."""
    shown = [written(label) for label in labels]
    if len(shown) <= MOST_COLUMNS:
        return ", ".join(shown)
    return f"{', '.join(shown[:MOST_COLUMNS])} and {len(shown) - MOST_COLUMNS} more"


def _given_arguments(call: Call) -> dict[str, str]:
    said: dict[str, str] = {}
    for name, field in type(call).__dataclass_fields__.items():
        value = getattr(call, name)
        untouched = value is None or (isinstance(value, str) and value == field.default)
        if name not in NOT_REPEATED and not untouched:
            said[name] = written(value)
    return said


def _finding_to_fill(needed: Mapping[str, str]) -> str:
    fields = [f"{written(name)}: {kind}" for name, kind in needed.items()]
    return "{" + (", ".join(fields) or PLACEHOLDER) + "}"


def _reduce_to_fill(output: object, known: Mapping[Any, Any]) -> str:
    """Propose a reduce by the types of the finding; what is to be a text or an object, agents write."""
    if output is int or output is float:
        return "{...}"
    if output is not None:
        return '"..."'
    return written(default_aggregations(known)) if known else "{...}"


def written(value: object) -> str:
    """Write a value as Python has it; what has no short text of its own is a placeholder.

    Example:
        >>> written({"kind": ["bug", "wish"], "why": (str | None, "one sentence")})
        '{"kind": ["bug", "wish"], "why": (str | None, "one sentence")}'
    """
    text = _written(value)
    if len(text) > MOST_VALUE:
        return PLACEHOLDER
    return text


def _written(value: object) -> str:
    if type(value) in {bool, int, float} or value is None:
        return repr(value)
    match value:
        case str():
            return _written_text(value)
        case Path():
            return _written_text(str(value))
        case dict():
            return (
                "{"
                + ", ".join(f"{_written(key)}: {_written(part)}" for key, part in value.items())
                + "}"
            )
        case list() | tuple():
            return _written_parts(value)
        case Agent():
            return f"amr.Agent({_written(value.instruction)}, ...)"
        case By():
            return _written_by(value)
        case Tool():
            return _written_name(value.func)
    if get_origin(value) is not None or isinstance(value, types.UnionType):
        return _written_generic(value)
    return _written_name(value)


def _written_text(text: str) -> str:
    if len(text) > MOST_VALUE:
        return PLACEHOLDER  # half of a text would be asked as it stands, and half of a plan's JSON would be none
    return json.dumps(str(text), ensure_ascii=False)


def _written_parts(values: Sequence[object]) -> str:
    parts = ", ".join(_written(one) for one in values)
    if isinstance(values, list):
        return f"[{parts}]"
    if len(values) == 1:
        return f"({parts},)"
    return f"({parts})"


def _written_by(by: By) -> str:
    options = [f"{name}={value}" for name, value in by.options.items() if not value]
    return f"amr.By({', '.join([*map(_written, by.keys), *options])})"


def _written_generic(kind: object) -> str:
    """Write a type that is made of others."""
    origin, parts = get_origin(kind), [_written(part) for part in get_args(kind)]
    if origin is Annotated:
        return parts[0]
    if origin is Union or isinstance(kind, types.UnionType):
        return " | ".join(parts)
    if origin is Literal:
        return f"Literal[{', '.join(parts)}]"
    return f"{_written_name(origin)}[{', '.join(parts)}]"


def _written_name(value: object) -> str:
    """Write the name of a function or a type; all else, such as a model with its key, is not shown."""
    if value is type(None):
        return "None"
    if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return PLACEHOLDER
    if value.__module__ == dt.__name__:
        return f"datetime.{value.__name__}"
    if not value.__name__.isidentifier():
        return PLACEHOLDER
    return value.__name__
