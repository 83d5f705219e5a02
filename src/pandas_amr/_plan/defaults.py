"""Defaults of a plan: the reduce by the types of the finding, and how a run is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from pandas_amr._agent import prompts
from pandas_amr._plan.call import finding_types, reduced_types
from pandas_amr._plan.feasibility import FeasibilityCheck
from pandas_amr._plan.plan import Plan
from pandas_amr._types.arrow import Sort, field_kind
from pandas_amr._types.record import record_type
from pandas_amr._types.schema import TEXT_FINDING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._plan.aggregations import Aggregation, Aggregations
    from pandas_amr._plan.call import ColumnTypes, Job
    from pandas_amr.models.base import Abilities

SHARD_SIZE = 20
CALLABLE_SHARD_SIZE = 1000
GROUP_SHARD_SIZE = 200
PREVIEW_SHARD_SIZE = 10_000
SHARD_TOKENS = 8000
PARALLELISM = 8
MAX_REPAIRS = 1

BY_SORT: dict[Sort, Aggregation] = {"choices": "value_counts", "number": "mean", "bool": "mean"}


def default_aggregations(types: ColumnTypes) -> dict[Any, Aggregation]:
    """Choose an aggregation per field: counts of choices, means of numbers and bools, else count.

    Example:
        >>> default_aggregations({"late": bool, "stars": int, "why": str})
        {'late': 'mean', 'stars': 'mean', 'why': 'count'}
    """
    return {name: BY_SORT.get(field_kind(kind), "count") for name, kind in types.items()}


def fill_by_type(plan: Plan, job: Job, *, writes: bool) -> Plan:
    """Fill in what the user left out if there is no task: the finding, and the reduce by types.

    The finding is a text. The reduce is the default aggregation of each field. Agents write the
    answer if pandas does not give the type of ``output=``, or if all fields are texts.

    Args:
        plan: the plan so far.
        job: the call.
        writes: whether the model that reduces can write from findings.
    """
    if job.maps and not job.callables and plan.finding is None:
        labels = set(map(str, job.frame.columns))
        text = (str, Field(min_length=1))
        finding = record_type("Finding", {_free_name(TEXT_FINDING, labels): text})
        plan = _with_fields(plan, {"finding": finding})
    if not job.reduces or _has_reduce(job, plan):
        return plan
    return _fill_reduce(plan, job, writes=writes)


def _fill_reduce(plan: Plan, job: Job, *, writes: bool) -> Plan:
    types = reduced_types(finding_types(job, plan))
    if not types and not writes:
        return plan  # only the run can tell what functions find
    aggregations = default_aggregations(types)
    are_texts = {how for name, how in aggregations.items() if name != plan.where} == {"count"}
    if plan.where is not None:
        aggregations[plan.where] = "sum"  # it is true in all rows that are reduced: their number
    is_written = writes and are_texts
    if types and not is_written and gives_output(aggregations, plan.output, types, job):
        return _with_fields(plan, {"aggregations": aggregations})
    return _with_fields(plan, {"reduce_instruction": plan.task or prompts.DEFAULT_REDUCE})


def _free_name(name: str, taken: set[str]) -> str:
    """Lengthen a name until no column has it."""
    while name in taken:
        name += "_"
    return name


def _has_reduce(job: Job, plan: Plan) -> bool:
    parts = (
        job.reducer,
        job.computed,
        plan.ranking,
        plan.aggregations,
        plan.reduce_instruction,
    )
    return any(part is not None for part in parts)


def gives_output(
    aggregations: Aggregations | None, output: object, types: ColumnTypes, job: Job
) -> bool:
    """Whether aggregations give the type that the user asks for, if any: a number.

    Every other type is written by an agent.
    """
    if not aggregations or output is None:
        return True
    if len(aggregations) != 1 or output not in {int, float}:
        return False
    check = FeasibilityCheck(job.frame, types, aggregations, job.by)
    for name, how in aggregations.items():
        if check.aggregation_problem(name, how) is not None:
            return False
    return check.output_problem(aggregations, output) is None


def fill_defaults(plan: Plan, job: Job, *, abilities: Abilities, parallelism: int | None) -> Plan:
    """Fill in how the run is executed: sizes, view, parallelism, dedupe, keys, repairs.

    Nothing here depends on the task.

    Args:
        plan: the plan so far; what it says stays.
        job: the call.
        abilities: those of the model that maps.
        parallelism: the setting; None for the default.
    """
    is_alone = plan.segmentation in {None, "rows"}
    is_preview = plan.view == "preview"
    defaults: dict[str, Any] = {
        "shard_size": _default_shard_size(plan, job, abilities),
        "shard_tokens": min(SHARD_TOKENS, abilities.context_window // 3),
        "parallelism": parallelism or PARALLELISM,
        "dedupe": is_alone,
        "keyed": "unit" if is_alone and not is_preview else "shard",
        "max_repairs": MAX_REPAIRS,
    }
    if not job.all_callable:
        defaults |= {"segmentation": "rows", "view": "inline"}
    if job.reads_by_model:
        defaults["on_empty"] = "skip"
    missing = {name: value for name, value in defaults.items() if getattr(plan, name) is None}
    most = abilities.units_per_request
    if most is not None and plan.made_by == "planner" and (plan.shard_size or 0) > most:
        missing["shard_size"] = most  # it may have been planned for a model that takes more
    return _with_fields(plan, missing)


def _default_shard_size(plan: Plan, job: Job, abilities: Abilities) -> int:
    if job.all_callable:
        return CALLABLE_SHARD_SIZE
    if plan.view == "preview":
        return PREVIEW_SHARD_SIZE
    if abilities.units_per_request:
        return abilities.units_per_request
    return GROUP_SHARD_SIZE if plan.segmentation == "groups" else SHARD_SIZE


def _with_fields(plan: Plan, fields: Mapping[str, Any]) -> Plan:
    """Return a copy with some more fields, checked; ``made_by`` stays."""
    present = {name: getattr(plan, name) for name in plan.model_fields_set}
    return Plan(**(present | dict(fields)))
