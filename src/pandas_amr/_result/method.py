"""How an answer came about, in words: from the plan, the usage and the counts of a result."""

from __future__ import annotations

import datetime as dt
import platform
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import pandas as pd

from pandas_amr._agent.agent import Agent
from pandas_amr._plan.aggregations import name_of
from pandas_amr._plan.plan import type_text
from pandas_amr._plan.plan_types import is_pydantic_model
from pandas_amr._records.counts import counted
from pandas_amr._records.html import Html, details, element, escape, join, named_values, table
from pandas_amr._records.version import __version__
from pandas_amr._result.facts import count_statuses, is_mapped, read_columns
from pandas_amr._result.tables import VALUE_CHARACTERS, write_label, write_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._result.result import Result

MOST_LABELS = 40
TYPE_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    dt.date: "date",
    dt.datetime: "date and time",
}
AGGREGATION_WORDS = {
    "count": "number of values",
    "nunique": "number of different values",
    "share": "share of each value",
    "size": "number of rows",
    "std": "standard deviation",
    "value_counts": "how often each value occurs",
    "var": "variance",
}
STATUS_WORDS = {
    "ok": "found",
    "repaired": "found after a repair",
    "corrected": "corrected by a person",
    "failed": "failed",
    "skipped": "skipped, since the run ended before their turn",
    "empty": "without content, and not asked about",
}


def question_of(result: Result) -> str:
    """Return what was asked, in the user's own words; empty if a function knew it alone."""
    plan = result.plan
    if plan.task is not None:
        return plan.task
    for stage in reversed(result.stages):
        question = question_of(stage)
        if question:
            return question
    if plan.reduce_instruction:
        return plan.reduce_instruction
    instructions = _by_name(plan.map_instruction)
    return "; ".join(str(text) for text in instructions.values() if text)


def describe_method(result: Result) -> Html:
    """Describe how the answer was made: what was read, asked and computed, when and by whom."""
    parts: list[Html] = []
    for number, stage in enumerate(result.stages or (result,), start=1):
        if result.stages:
            parts.append(element("h3", f"Stage {number}"))
        parts += _describe_stage(stage)
    parts.append(named_values(_circumstances(result)))
    shown = named_values(result.plan.shown_fields().items(), VALUE_CHARACTERS)
    parts.append(details("The whole plan", shown))
    return join(parts)


def _describe_stage(result: Result) -> list[Html]:
    plan = result.plan
    parts: list[Html] = []
    if is_mapped(result):
        parts += _describe_map(result)
    parts += _describe_reduce(result)
    if plan.redact is not None:
        text = f"Texts passed the function {plan.redact} before they were sent to a model."
        parts.append(_paragraph(text))
    return parts


def _describe_map(result: Result) -> list[Html]:
    plan = result.plan
    columns = read_columns(result)
    unit = "column" if plan.axis == "columns" else "row"
    read = "all columns" if columns is None else write_labels(columns, MOST_LABELS)
    parts = [_paragraph(join([f"What was read of each {unit}: ", read, "."]))]
    for name, instruction in _by_name(plan.map_instruction).items():
        if instruction:
            about = "" if name is None else f" ({name})"
            parts += [_paragraph(f"The question about each {unit}{about}:"), _quote(instruction)]
    for name, finding in _by_name(plan.finding).items():
        parts += _describe_finding(name, finding, unit)
    counts = count_statuses(result)
    texts = [f"{count:,} {STATUS_WORDS.get(status, status)}" for status, count in counts.items()]
    rows = counted(sum(counts.values()), "row")
    parts.append(_paragraph(f"Of {rows}: {', '.join(texts)}."))
    return parts


def _describe_finding(name: str | None, finding: Any, unit: str) -> list[Html]:
    is_many = get_origin(finding) is list
    kind = get_args(finding)[0] if is_many else finding
    if not is_pydantic_model(kind):
        return []
    what = "any number of findings" if is_many else "one finding"
    of_map = "" if name is None else f" ({name})"
    fields = kind.model_fields
    header = ["field", "type"]
    has_descriptions = any(about.description for about in fields.values())
    if has_descriptions:
        header.append("meaning")
    rows: list[list[str | None]] = []
    for field, about in fields.items():
        row = [field, describe_type(about.annotation)]
        rows.append([*row, about.description] if has_descriptions else row)
    shown = table(header, rows, most=VALUE_CHARACTERS)
    return [_paragraph(f"What was looked for{of_map}, {what} per {unit}:"), shown]


def describe_type(kind: object) -> str:
    """Describe a type for a reader who knows no Python.

    Example:
        >>> from typing import Literal
        >>> describe_type(Literal["a", "b"]), describe_type(list[int]), describe_type(str | None)
        ('one of: a, b', 'a list: whole number', 'text, or missing')
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return describe_type(parts[0])
    if origin is Literal:
        return f"one of: {', '.join(map(str, parts))}"
    if origin in {list, set} and parts:
        return f"a list: {describe_type(parts[0])}"
    if origin in {Union, UnionType}:
        texts = [describe_type(part) for part in parts if part is not NoneType]
        text = " or ".join(texts)
        return f"{text}, or missing" if NoneType in parts else text
    if isinstance(kind, type) and kind in TYPE_WORDS:
        return TYPE_WORDS[kind]
    return type_text(kind)


def _describe_reduce(result: Result) -> list[Html]:
    plan = result.plan
    parts: list[Html] = []
    if plan.where is not None:
        parts.append(_paragraph(f"Only rows whose {plan.where} is true count for the answer."))
    if plan.by is not None:
        keys = write_labels(list(plan.by.labels), MOST_LABELS)
        parts.append(_paragraph(join(["The answer is given by ", keys, "."])))
    parts += _describe_computed(_list_computed(result))
    if plan.ranking is not None:
        which = "lowest" if plan.ranking.lowest_first else "highest"
        text = f"pandas ranks the rows by {plan.ranking.field}: the {plan.ranking.most} {which}."
        parts.append(_paragraph(text))
    if plan.reduce_instruction:
        text = "A model wrote the answer from the findings. It was asked:"
        parts += [_paragraph(text), _quote(plan.reduce_instruction)]
    if not parts and result.output is not None:
        parts.append(_paragraph("A function of the caller made the answer from the findings."))
    return parts


def _list_computed(result: Result) -> Mapping[Any, Any]:
    """Return the aggregations, those among them that agents write too if the run was here."""
    if result.origin is not None and result.origin.job.computed:
        return result.origin.job.computed
    return result.plan.aggregations or result.aggregations or {}


def _describe_computed(computed: Mapping[Any, Any]) -> list[Html]:
    if not computed:
        return []
    rows = [(write_label(field), _write_aggregation(how)) for field, how in computed.items()]
    return [_paragraph("What is computed from the findings:"), named_values(rows)]


def _write_aggregation(how: Any) -> str:
    functions = how if isinstance(how, list) else [how]
    names: list[str] = []
    for function in functions:
        if isinstance(function, Agent):
            names.append(f"written by a model: {function.text or 'what a function asks it'}")
        elif isinstance(function, tuple):  # a column, and what is computed of it
            names.append(f"{_write_aggregation(function[1])} of {write_label(function[0])}")
        else:
            name = function if isinstance(function, str) else name_of(function)
            names.append(AGGREGATION_WORDS.get(name, name))
    return ", ".join(names)


def _circumstances(result: Result) -> list[tuple[str, Any]]:
    """List models, dates and versions."""
    rows = _list_models(result)
    if result.started is not None:
        rows.append(("run", f"{result.started:%Y-%m-%d %H:%M} UTC, {result.seconds:,.1f} s"))
    if result.sandbox is not None:
        rows.append(("code of models ran in", f"a sandbox ({result.sandbox})"))
    planner = "a model" if result.plan.made_by == "planner" else "the caller"
    rows.append(("plan by", planner))
    versions = f"pandas-amr {__version__}, pandas {pd.__version__}"
    rows.append(("report by", f"{versions}, Python {platform.python_version()}"))
    return rows


def _list_models(result: Result) -> list[tuple[str, Any]]:
    """List the models, each with what it was asked for."""
    models: dict[str, list[str]] = {}
    for phase, model in zip(result.usage.index, result.usage["model"], strict=True):
        models.setdefault(str(model), []).append(str(phase))
    return [("model", f"{model} ({', '.join(phases)})") for model, phases in models.items()]


def _by_name(value: Any) -> Mapping[str | None, Any]:
    """Return a field of the plan by the name of the map; None for a single map."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    return {None: value}


def _paragraph(text: str) -> Html:
    return element("p", text)


def _quote(text: str) -> Html:
    return element("blockquote", escape(text), class_="amr-quote", dir="auto")
