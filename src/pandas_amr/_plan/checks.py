"""Check a job's plan against the frame's columns, the types of its findings, and the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_origin

import pandas as pd

from pandas_amr._agent.agent import Agent
from pandas_amr._findings.merge import choose_merge_rules
from pandas_amr._findings.output import ReductionType
from pandas_amr._plan.aggregations import columns_of, function_of
from pandas_amr._plan.call import added_types, finding_types
from pandas_amr._plan.compute import all_labels
from pandas_amr._plan.feasibility import FeasibilityCheck
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._units.by import By, column, find_missing_keys
from pandas_amr.errors import ColumnError, PlanError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._plan.aggregations import Aggregations
    from pandas_amr._plan.call import ColumnTypes, Job
    from pandas_amr._plan.plan import Plan
    from pandas_amr.models.base import LM


def check_model(job: Job, lm: LM) -> None:
    """Refuse a plan that asks for more than the model can do.

    Raises:
        PlanError: the model calls no tools, or a shard would hold more units than it takes.
    """
    if job.all_callable:
        return
    plan = job.given
    if plan.view == "preview" and not lm.abilities.tools:
        raise PlanError(
            f'{lm.model} calls no tools; plan={{"view": "preview"}} needs a model that does.'
        )
    most = lm.abilities.units_per_request
    if most is None:
        return
    if plan.segmentation in {"neighbours", "groups"}:
        raise PlanError(
            f"{lm.model} takes {most} unit per request, judged alone; "
            f"segmentation={plan.segmentation!r} needs more."
        )
    if job.maps and plan.shard_size is not None and plan.shard_size > most:
        raise PlanError(
            f"{lm.model} takes {most} unit per request; "
            f"plan={{'shard_size': {plan.shard_size}}} asks for more."
        )


def check_names(job: Job, plan: Plan) -> None:
    """Refuse findings that would hide a column, and a reduce that names what will not exist.

    Raises:
        ColumnError: names collide, or one is missing.
        UsageError: what is to be reduced cannot be computed.
    """
    labels = all_labels(job.frame)
    frame = set(job.frame.columns)
    if not job.maps:
        _check_reduced(job, labels)
        _check_planned(plan, labels, frame, is_complete=True)
        _check_where_column(job, plan)
        _check_computed(job, plan, {}, may_choose_none=plan.where is not None)
        return
    kinds = finding_types(job, plan)
    types = [kind for kind in kinds.values() if kind is not None]
    fields = _check_new_columns(job, plan, types)
    # A map alone has no reduce to check; a function may find columns that only the run can tell.
    is_complete = job.reduces and len(types) == len(kinds)
    _check_reduced(job, labels | fields if is_complete else None)
    _refuse_ambiguous_keys(job, fields)
    _check_planned(plan, fields, frame, is_complete=is_complete)
    _check_group_columns(job, plan)
    if job.reduces:
        has_records = any(kind.item is not None for kind in types)
        may_choose_none = has_records or plan.where is not None
        _check_computed(job, plan, added_types(kinds), may_choose_none=may_choose_none)


def _check_where_column(job: Job, plan: Plan) -> None:
    if plan.where is None:
        return
    values = column(job.frame, plan.where)
    if not pd.api.types.is_bool_dtype(values):
        raise UsageError(f"where={plan.where!r} takes a column of bools.")


def _check_new_columns(job: Job, plan: Plan, types: Sequence[FindingType]) -> set[Any]:
    """Refuse findings that would hide a column of the frame, or one another.

    Returns:
        The columns that the findings add, those of records among them.
    """
    status: list[Any] = list(plan.status_columns or ())
    of_units: list[Any] = []
    of_records: list[Any] = []
    for kind in types:
        of_units += kind.all_columns
        of_records += kind.item_columns
        if plan.merge:
            choose_merge_rules(kind.model, plan.merge)  # raises if a rule does not fit a field
    labels = set(job.frame.columns.get_level_values(0))
    for name in status:
        if name in labels or name in of_units:
            raise ColumnError(
                f"There is a column {name!r} beside the one that plan={{'status': True}} adds; "
                "rename yours, or name the new ones: plan={'status': ('its_status', 'its_reason')}."
            )
    for name in [*of_units, *of_records]:
        if name in labels:
            raise ColumnError(
                f"The finding {name!r} would hide a column of the frame; rename one of them."
            )
        if of_units.count(name) > 1:
            raise ColumnError(f"Two maps find {name!r}; rename one of them.")
    return {*status, *of_units, *of_records}


def _check_reduced(job: Job, labels: set[Any] | None) -> None:
    """Refuse groups and aggregations of columns that will not exist.

    ``labels`` holds all columns of what is reduced; None if not all are known.
    """
    aggregated = columns_of(job.computed or {})
    if labels is not None:
        if job.by is not None:
            missing_keys = find_missing_keys(job.by, labels, job.frame.index)
            _refuse_missing("by", missing_keys, labels)
        missing = [label for label in aggregated if label not in labels]
        _refuse_missing("reduce", missing, labels)
    for label in [*aggregated, *job.group_labels]:
        if label in job.frame.columns:
            column(job.frame.iloc[:0], label)  # raises if the label stands for several columns


def _refuse_ambiguous_keys(job: Job, fields: set[Any]) -> None:
    """Refuse to group by a name that a level of the index has, and a finding.

    Raises:
        ColumnError: there is one.
    """
    for label in job.by.labels if job.by is not None else ():
        if label in fields and label in job.frame.index.names:
            raise ColumnError(
                f"by= names {label!r}, which is a level of the index and a finding; "
                "rename one of them."
            )


def _refuse_missing(argument: str, missing: Sequence[Any], labels: set[Any]) -> None:
    if missing:
        suggestion = did_you_mean(missing[0], sorted(labels, key=str))
        raise ColumnError(
            f"{argument}= names {missing[0]!r}, which is not a column.{suggestion} "
            f"There is: {_list_labels(labels)}."
        )


def _list_labels(labels: Iterable[Any]) -> str:
    return ", ".join(sorted(map(repr, labels)))


def _check_planned(plan: Plan, fields: set[Any], frame: set[Any], *, is_complete: bool) -> None:
    """Refuse a plan that names what will not exist.

    Args:
        plan: the plan.
        fields: the columns that the findings add.
        frame: the frame's columns.
        is_complete: whether all fields are known.
    """
    for label in plan.group_columns or ():
        if label not in frame:
            suggestion = did_you_mean(label, sorted(frame, key=str))
            raise ColumnError(
                f"group_columns names {label!r}, which is not a column of the frame.{suggestion}"
            )
    if not is_complete:
        return
    if plan.where is not None:
        _check_planned_label("where", plan.where, fields)
    if plan.ranking is not None:
        _check_planned_label("ranking", plan.ranking.field, fields | frame)


def _check_planned_label(field: str, label: str, labels: set[Any]) -> None:
    if label not in labels:
        suggestion = did_you_mean(label, sorted(labels, key=str))
        raise ColumnError(
            f"{field} names {label!r}, which does not exist.{suggestion} "
            f"There is: {_list_labels(labels)}."
        )


def _check_group_columns(job: Job, plan: Plan) -> None:
    if not plan.group_columns:
        return
    by = By(*plan.group_columns, sort=False, dropna=False)
    check = FeasibilityCheck(job.frame, {}, (), by)
    problem = check.by_problem()
    if problem is not None:
        raise ColumnError(f"group_columns: {problem.removeprefix('by=')}.")


def _check_computed(job: Job, plan: Plan, types: ColumnTypes, *, may_choose_none: bool) -> None:
    """Refuse what pandas cannot compute of the frame's columns and of fields of such types.

    Raises:
        UsageError: an aggregation, a group, a ranking, a choice of rows or the output's type does
            not fit.
    """
    aggregations = dict(job.computed or plan.aggregations or {})
    by_pandas = {
        name: how for name, how in aggregations.items() if not isinstance(function_of(how), Agent)
    }
    used = columns_of(by_pandas)
    if plan.ranking is not None:
        used.append(plan.ranking.field)
    by = job.by or plan.by
    check = FeasibilityCheck(job.frame, types, used, by, may_choose_none=may_choose_none)
    _refuse(check.rows_problem(plan.where, plan.ranking))
    for name, how in by_pandas.items():
        _refuse(check.aggregation_problem(name, how), f"reduce[{name!r}]: ")
    if len(by_pandas) > 1:
        _refuse(check.joint_problem(by_pandas))
    if plan.output is not None:
        has_agents = len(by_pandas) < len(aggregations)
        _check_output(job, plan, check, by_pandas, has_agents=has_agents)


def _check_output(
    job: Job,
    plan: Plan,
    check: FeasibilityCheck,
    by_pandas: Aggregations,
    *,
    has_agents: bool,
) -> None:
    """Refuse an output of another type than what pandas computes, if pandas alone computes it."""
    by = job.by or plan.by
    is_written = job.reducer is None and plan.reduce_instruction is not None
    in_column = is_written and by is not None
    ReductionType(plan.output, in_column=in_column)  # raises for an unusable type
    if has_agents or job.reducer is not None:
        return
    if is_written and job.computed is None:
        return
    if by_pandas:
        _refuse(check.output_problem(by_pandas, plan.output))
    else:
        _refuse(_ranking_output_problem(plan))


def _refuse(problem: str | None, place: str = "") -> None:
    if problem is not None:
        raise UsageError(f"{place}{problem}.")


def _ranking_output_problem(plan: Plan) -> str | None:
    """Tell why a ranking is not of the type that is asked for."""
    origin: Any = get_origin(plan.output)
    if plan.ranking is None or origin is list:
        return None
    return f"output={plan.output} cannot hold a ranking, which gives rows: leave output= out"
