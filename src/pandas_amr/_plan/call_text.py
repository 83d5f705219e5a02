"""Write out the call that needs no planning, for the error of a task that has no plan.

It repeats the user's arguments, with placeholders for what is missing.
"""

from __future__ import annotations

import datetime as dt
import json
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

from pandas_amr._agent.agent import Agent
from pandas_amr._plan.aggregations import columns_of
from pandas_amr._plan.call import finding_types, reduced_types
from pandas_amr._plan.defaults import default_aggregations
from pandas_amr._units.by import By
from pandas_amr.errors import PlanError
from pandas_amr.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from pandas_amr._plan.call import Call, ColumnTypes, Job
    from pandas_amr.models.base import LM

PLACEHOLDER = "..."
MOST_CHARACTERS = 200  # of an argument; a longer one is shown as a placeholder
MOST_COLUMNS = 8

ARGUMENTS = {"map_instruction": "map", "finding": "finding", "reduce_instruction": "reduce"}
NOT_REPEATED = {"verb", "frame", "task"}  # beside a complete plan, a task adds nothing
FIRST = ("map", "finding", "reduce", "by")


def check_planning(job: Job, planner: LM) -> None:
    """Refuse a call that leaves something open if the model cannot plan.

    Raises:
        PlanError: the message writes out the call that leaves nothing open.
    """
    if not planner.abilities.planning:
        raise no_plan_error(_cannot_plan(planner), job)


def check_call_planning(call: Call, open_: Sequence[str], planner: LM) -> None:
    """Refuse a call that has no frame yet, likewise.

    Raises:
        PlanError: likewise.
    """
    if open_ and not planner.abilities.planning:
        problem = _describe_missing(_cannot_plan(planner), open_)
        raise PlanError(f"{problem}\n    {call_text(call, open_)}")


def _cannot_plan(planner: LM) -> str:
    return f'{planner.model} cannot plan (lm={{"plan": ..., "map": ...}} names one that can)'


def no_plan_error(reason: str, job: Job) -> PlanError:
    """Make the error of a task that has no plan; it writes out the call that needs none."""
    assert job.call is not None
    column_types = user_finding_types(job)
    text = call_text(job.call, job.open, column_types=column_types, needed=_needed_fields(job))
    lines = [_describe_missing(reason, job.open), f"    {text}"]
    if column_types and "reduce_instruction" in job.open and job.given.output is None:
        lines.append("The reduce is a proposal, by the types of the finding.")
    if len(job.frame.columns):
        lines.append(f"The columns are {_columns_text(job.frame.columns)}.")
    return PlanError("\n".join(lines))


def _describe_missing(reason: str, open_: Sequence[str]) -> str:
    *others, missing = [f"{ARGUMENTS[name]}=" for name in open_]
    if others:
        missing = f"{', '.join(others)} and {missing}"
    return (
        f"This task has no plan: {reason}. No row was sent, and nothing is guessed. "
        f"Say {missing} yourself:"
    )


def user_finding_types(job: Job) -> ColumnTypes:
    """Return the types of the columns that the user's own finding adds, by name."""
    if job.given.finding is None:
        return {}
    return reduced_types(finding_types(job, job.given))


def call_text(
    call: Call,
    open_: Sequence[str],
    *,
    column_types: ColumnTypes | None = None,
    needed: Mapping[str, str] | None = None,
) -> str:
    """Write the call that leaves nothing open.

    Args:
        call: the call as the user gave it.
        open_: the fields of the plan that are still open.
        column_types: the types of the columns that the findings add; they propose a reduce.
        needed: fields that the finding must have, since the call names them, each with its type as
            it is written.

    Example:
        >>> from pandas_amr._plan.call import Call
        >>> call = Call(verb="map_reduce", frame=None, task="How?", finding={"n": int}, lm="local")
        >>> call_text(call, ["map_instruction", "reduce_instruction"], column_types={"n": int})
        'df.amr.map_reduce(map="...", finding={"n": int}, reduce={"n": "mean"}, lm="local")'
    """
    arguments = _given_arguments(call)
    if "map_instruction" in open_:
        arguments["map"] = '"..."'
    if "finding" in open_:
        arguments["finding"] = _finding_to_fill(needed or {})
    if "reduce_instruction" in open_:
        arguments["reduce"] = _reduce_to_fill(call.output, column_types or {})
    return _write_call(call.verb, arguments)


def _write_call(verb: str, arguments: Mapping[str, str]) -> str:
    order = [name for name in FIRST if name in arguments]
    order += [name for name in arguments if name not in FIRST]
    parts = []
    for name in order:
        if name == "map" and verb in {"map", "filter"}:
            parts.append(arguments[name])  # their first argument, which is positional
        else:
            parts.append(f"{name}={arguments[name]}")
    return f"df.amr.{verb}({', '.join(parts)})"


def _needed_fields(job: Job) -> dict[str, str]:
    """Return the fields that the finding must have, since the call names them.

    Each has its type as it is written, if it is clear.
    """
    names = [*job.group_labels, *columns_of(job.computed or {})]
    if job.given.ranking is not None:
        names.append(job.given.ranking.field)
    fields: dict[str, str] = {}
    for name in names:
        if isinstance(name, str) and name not in job.frame.columns:
            fields[name] = PLACEHOLDER
    if job.given.where is not None:
        fields[job.given.where] = "bool"
    return fields


def _columns_text(labels: Iterable[Hashable]) -> str:
    """Write a frame's columns; if there are many, the first ones."""
    texts = [value_text(label) for label in labels]
    shown = ", ".join(texts[:MOST_COLUMNS])
    more = len(texts) - MOST_COLUMNS
    if more > 0:
        return f"{shown} and {more} more"
    return shown


def _given_arguments(call: Call) -> dict[str, str]:
    """Write the arguments that the user gave."""
    arguments: dict[str, str] = {}
    for name, field in type(call).__dataclass_fields__.items():
        value = getattr(call, name)
        is_default = value is None or (isinstance(value, str) and value == field.default)
        if name not in NOT_REPEATED and not is_default:
            arguments[name] = value_text(value)
    return arguments


def _finding_to_fill(needed: Mapping[str, str]) -> str:
    fields = [f"{value_text(name)}: {kind}" for name, kind in needed.items()]
    content = ", ".join(fields) or PLACEHOLDER
    return f"{{{content}}}"


def _reduce_to_fill(output: object, column_types: ColumnTypes) -> str:
    """Propose a reduce by the types of the finding; agents write a text or an object."""
    if output is int or output is float:
        return "{...}"
    if output is not None:
        return '"..."'
    if not column_types:
        return "{...}"
    return value_text(default_aggregations(column_types))


def value_text(value: object) -> str:
    """Write a value as in Python; a placeholder if it has no short form.

    Example:
        >>> value_text({"kind": ["bug", "wish"], "why": (str | None, "one sentence")})
        '{"kind": ["bug", "wish"], "why": (str | None, "one sentence")}'
    """
    text = _write(value)
    return text if len(text) <= MOST_CHARACTERS else PLACEHOLDER


def _write(value: object) -> str:
    if value is None or type(value) in {bool, int, float}:
        return repr(value)
    match value:
        case str() | Path():
            return _write_text(str(value))
        case dict():
            parts = [f"{_write(key)}: {_write(part)}" for key, part in value.items()]
            return "{" + ", ".join(parts) + "}"
        case list() | tuple():
            return _write_sequence(value)
        case Agent():
            return f"amr.Agent({_write(value.instruction)}, ...)"
        case By():
            return _write_by(value)
        case Tool():
            return _write_name(value.func)
    if get_origin(value) is not None or isinstance(value, types.UnionType):
        return _write_generic(value)
    return _write_name(value)


def _write_text(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        # Half of an instruction would be another one, and half of a plan's JSON no JSON.
        return PLACEHOLDER
    return json.dumps(text, ensure_ascii=False)


def _write_sequence(values: Sequence[object]) -> str:
    parts = ", ".join(map(_write, values))
    if isinstance(values, list):
        return f"[{parts}]"
    if len(values) == 1:
        return f"({parts},)"
    return f"({parts})"


def _write_by(by: By) -> str:
    arguments = [_write(key) for key in by.keys]
    for name, value in by.options.items():
        if not value:
            arguments.append(f"{name}=False")
    return f"amr.By({', '.join(arguments)})"


def _write_generic(kind: object) -> str:
    """Write a type that is made of others."""
    origin = get_origin(kind)
    parts = [_write(part) for part in get_args(kind)]
    if origin is Annotated:
        return parts[0]
    if origin is Union or isinstance(kind, types.UnionType):
        return " | ".join(parts)
    if origin is Literal:
        return f"Literal[{', '.join(parts)}]"
    return f"{_write_name(origin)}[{', '.join(parts)}]"


def _write_name(value: object) -> str:
    """Write the name of a function or a type.

    All else, such as a model with its key, is not shown.
    """
    if value is type(None):
        return "None"
    if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return PLACEHOLDER
    if value.__module__ == dt.__name__:
        return f"datetime.{value.__name__}"
    if not value.__name__.isidentifier():
        return PLACEHOLDER  # such as <lambda>
    return value.__name__
