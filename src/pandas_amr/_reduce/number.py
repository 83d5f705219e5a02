"""A number: an agent says how it is computed, or agents write it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pandas_amr._agent import prompts
from pandas_amr._findings.citations import Support
from pandas_amr._findings.map_findings import EMPTY
from pandas_amr._findings.output import number_type
from pandas_amr._plan.compute import group_rows
from pandas_amr._plan.outputs import OUTPUT_COLUMN, join_group_outputs
from pandas_amr._reduce.choice import convert_number
from pandas_amr._reduce.choice_type import ChoiceType, Column, Fields
from pandas_amr._reduce.compute_node import CHOOSE, COMPUTE, compute_node, map_nodes
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.inputs import rows_without_findings
from pandas_amr._reduce.notes import FixedNotes
from pandas_amr._reduce.sources import PartSources, ReduceOutcome
from pandas_amr._reduce.task import answer_task, make_reduce_agent
from pandas_amr._units.by import describe_key
from pandas_amr._units.profile import spread
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows, ReduceInput
    from pandas_amr._plan.call import Job
    from pandas_amr._reduce.choice import Choice, Matches
    from pandas_amr._reduce.task import ReduceTask
    from pandas_amr._reduce.trees import ReduceTrees
    from pandas_amr._units.by import By

CHOICE_SAMPLE = 10  # findings that the choosing agent reads


async def reduce_to_number(trees: ReduceTrees, rows: FindingRows) -> ReduceOutcome:
    """Compute the number as an agent says; have it written if nothing computes it."""
    findings = trees.state.findings
    count = len(trees.spec.job.frame)
    all_empty = findings is not None and findings.rows_with(EMPTY) == count
    if not count or all_empty:
        return ReduceOutcome(None)
    choice = await _ask_for_choice(trees, rows)
    if choice is None:
        return await trees.write_answer(rows)
    choose = (f"{trees.services.prefix}{CHOOSE}",)
    size = len(rows.positions)
    with compute_node(trees.services, COMPUTE, size, parents=choose, level=2):
        return _compute_choice(trees.spec, trees.state, rows, choice)


async def _ask_for_choice(trees: ReduceTrees, rows: FindingRows) -> Choice | None:
    """Ask an agent how the number is computed; None if it is to be written.

    An agent that insists on a number of its own has seen a sample only. So the number is written
    from all findings.
    """
    spec = trees.spec
    services = trees.services
    question = await services.run_rendering(spec, _prepare_choice, trees, rows, size=0)
    agent = make_reduce_agent(
        spec,
        services,
        trees.state,
        question.task,
        notes=question.notes.text,
        output=question.type,
        shown=_find_shown_rows(trees, rows, question.type),
    )
    name = f"{services.prefix}{CHOOSE}"
    nodes = map_nodes(services)
    size = len(rows.positions)
    choice: Choice | None = None
    with services.trace.node("reduce", id=name, level=1, parents=nodes, units=size) as node:
        try:
            reduction = await agent.reduce(question.inputs, final=True, notes=question.notes)
            node.usage = reduction.usage
            choice = reduction.value
        except InvalidOutput:
            if not question.type.insists:
                raise
    return choice


class _ChoiceQuestion(NamedTuple):
    """What the agent is asked that says how the number is computed."""

    type: ChoiceType
    notes: FixedNotes
    task: ReduceTask
    inputs: list[ReduceInput]


def _prepare_choice(trees: ReduceTrees, rows: FindingRows) -> _ChoiceQuestion:
    fields = _make_fields(trees.spec, trees.state, rows)
    return _ChoiceQuestion(
        ChoiceType(fields),
        _describe_fields(fields, rows.by),
        _choice_task(trees.spec, fields, rows),
        _sample_inputs(trees, rows),
    )


def _choice_task(spec: Spec, fields: Fields, rows: FindingRows) -> ReduceTask:
    """Return the task of the agent that says how the number is computed."""
    task = answer_task(spec).with_instruction_for(rows.findings, spec.job.redaction)
    is_grouped = rows.by is not None
    instruction = prompts.choice_instruction(task.instruction, fields.functions, grouped=is_grouped)
    return replace(task, instruction=instruction)


def _describe_fields(fields: Fields, by: By | None) -> FixedNotes:
    """Describe the fields to the agent, and the keys of the groups."""
    keys = [] if by is None else [describe_key(key) for key in by.keys]
    lines = prompts.choosable_lines(fields.lines, left_out=fields.left_out, by=keys)
    return FixedNotes(lines)


def _make_fields(spec: Spec, state: State, rows: FindingRows) -> Fields:
    """Make the fields that a number can be computed from.

    They are the findings, the content columns and, without their values, the frame's other columns.
    """
    job = spec.job
    number = number_type(spec.plan.output)
    assert number is not None
    columns = _list_columns(job, rows)
    has_findings = ~np.isin(rows.positions, rows_without_findings(state))
    make = partial(Fields.of, number=number, rows=has_findings, counted=job.maps)
    if job.redaction is None:
        return make(columns)
    # Conditions compare with what the agent reads; what they select is computed from the rows.
    sent = make([_sent_column(spec, column) for column in columns])
    return replace(sent, computed=make(columns).fields)


def _list_columns(job: Job, rows: FindingRows) -> list[Column]:
    """List the columns that agents read first, then the others."""
    columns: list[Column] = []
    if job.maps:
        for label in rows.findings.columns:
            finding = rows.findings[label]
            columns.append(Column(finding.name, finding, is_shown=True, source=finding))
    others = [place for place in range(len(job.frame.columns)) if place not in job.columns]
    for place in (*job.columns, *others):
        label = job.frame.columns[place]
        values = rows.table.iloc[:, place]
        source = job.frame.iloc[:, place]
        columns.append(Column(label, values, place in job.columns, source))
    return columns


def _sent_column(spec: Spec, column: Column) -> Column:
    """Return a column as the agent reads it, if it may see its values."""
    redaction = spec.redaction_of(column.label)
    if redaction is None or not column.is_shown:
        return column
    values = redaction.column(column.values)
    source = redaction.column(column.source)
    return column._replace(values=values, source=source)


def _find_shown_rows(trees: ReduceTrees, rows: FindingRows, choice_type: ChoiceType) -> list[int]:
    """Find the rows of which the choosing agent sees a value, for the journal."""
    if trees.services.journal is None:
        return []
    positions: list[int] = rows.positions[choice_type.fields.shown_rows].tolist()
    return positions


def _sample_inputs(trees: ReduceTrees, rows: FindingRows) -> list[ReduceInput]:
    """Render the findings of some units from all over the frame.

    All rows of a unit are rendered together, so that the finding says how many they are.
    """
    unit_of = trees.units.answered_by[rows.positions]
    without = np.isin(rows.positions, rows_without_findings(trees.state))
    units = np.unique(unit_of[~without])
    if len(units):
        chosen = spread(len(units), CHOICE_SAMPLE)
        units = units[chosen]
    places = np.flatnonzero(np.isin(unit_of, units))
    inputs = trees.render_inputs(rows, places)
    return inputs[:CHOICE_SAMPLE]


def _compute_choice(spec: Spec, state: State, rows: FindingRows, choice: Choice) -> ReduceOutcome:
    """Compute the number, or one per group. The rows that meet its condition are its sources."""
    matches = choice.match_rows()
    if rows.by is not None:
        return _compute_groups(spec, state, rows, choice, matches)
    places = _count_units_once(choice, matches, rows, np.arange(len(rows.positions)))
    value = choice.compute(matches, places)
    sources = _sources_of(rows, None, matches.select(places))
    return ReduceOutcome(_convert(spec, state, choice, value), (sources,))


def _compute_groups(
    spec: Spec, state: State, rows: FindingRows, choice: Choice, matches: Matches
) -> ReduceOutcome:
    """Compute the number of each group; ``<NA>`` if a group has none."""
    assert rows.by is not None
    index, groups = group_rows(rows.table, rows.by)
    values: list[Any] = []
    sources: list[PartSources] = []
    for label, group in zip(index, groups, strict=True):
        rows_of_group = np.array(group, dtype=np.int64)
        places = _count_units_once(choice, matches, rows, rows_of_group)
        value = choice.compute(matches, places)
        if value is not None:
            value = _convert(spec, state, choice, value, group=f"group {label}: ")
        values.append(value)
        sources.append(_sources_of(rows, label, matches.select(places)))
    frame = join_group_outputs(values, index, spec.plan.output)
    name = OUTPUT_COLUMN if choice.field is None else choice.field.column.name
    named = frame.set_axis([name], axis=1)
    return ReduceOutcome(named, tuple(sources))


def _count_units_once(
    choice: Choice, matches: Matches, rows: FindingRows, places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Take one record per unit if a column of the units is computed, and not one of the records.

    It is a record that meets the condition, if any of the unit's does.
    """
    if rows.units is None or choice.field is None:
        return places
    if not rows.units.owns(choice.field.column.name):
        return places
    order = np.argsort(~matches.is_met[places], kind="stable")
    met_first = places[order]
    _, firsts = np.unique(rows.positions[met_first], return_index=True)
    return np.sort(met_first[firsts])


def _sources_of(rows: FindingRows, group: object, places: NDArray[np.int64]) -> PartSources:
    positions = rows.positions[places].tolist()
    support = Support(frozenset(positions))
    return PartSources(group, (support,))


def _convert(spec: Spec, state: State, choice: Choice, value: object, group: str = "") -> Any:
    """Convert a computed number to the type that is asked for; None if it does not fit.

    Raises:
        InvalidOutput: it does not fit, and ``errors="raise"`` is set.
    """
    try:
        return convert_number(value, spec.plan.output, in_column=bool(group))
    except InvalidOutput as error:
        reason = f"{group}there is no {choice.name}: {error}"
        ReduceFailures(spec, state).add(reason, InvalidOutput(reason))
        return None
