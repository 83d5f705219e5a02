"""The reduce stage: computed by pandas, by the user's function, or written by agents; whole or by groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr import _prompts
from pandas_amr._adaptive import AdaptiveTree, makers
from pandas_amr._agent.threads import called_here
from pandas_amr._call import WHOLE
from pandas_amr._compute import (
    call_reducer,
    checked_output,
    column_of,
    compute,
    computed,
    computed_text,
    function_of,
    group_output,
    groups_of,
    joined_parts,
    ranked,
    shaped,
)
from pandas_amr._findings import Failure
from pandas_amr._keeper import fingerprint
from pandas_amr._mappers import NoInstruction, check_instruction
from pandas_amr._persona import Agent
from pandas_amr._schema import json_schema, record_type, without_none
from pandas_amr._shards import make_shards
from pandas_amr._sources import Cited, coverage_words, nodes_behind
from pandas_amr._synthesise import Input, Losses, OutputType, Reducer, StaticTree, finding_inputs, row_inputs
from pandas_amr._units import cell, line_of
from pandas_amr._work import standing_inside
from pandas_amr.engines.local import each
from pandas_amr.errors import BudgetExceeded, FailureWarning, InvalidOutput, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pandas_amr._findings import Who
    from pandas_amr._synthesise import Reduced
    from pandas_amr._units import Units
    from pandas_amr._work import Work

REDUCE_POSITION = -1
ANSWER_TOKENS = 4096  # reserved for an answer where the model's own bound is not known
BUDGET_RATIO = 0.5
MAX_LEVELS = 10
FAR_TOO_MUCH = 2
CHOICE_SAMPLE = 10
CHOOSE = """\
The answer is a number, and pandas computes it from the findings' columns. Say how: which column, and which function.
You see some of the findings. What is asked of all of them together:
"""
NUMERIC = ("count", "sum", "mean", "median", "min", "max", "nunique")
WHOLE_NUMBERS = ("count", "sum", "min", "max", "nunique")
COUNTS = ("count", "nunique")


def made_by_nobody(position: int) -> tuple[str, ...]:
    """The map nodes behind a row that no map has read."""
    del position
    return ()


@dataclass(frozen=True)
class Found:
    """What is reduced: rows of findings, which are units, or records where units hold none or many.

    Attributes:
        table: the findings beside the frame's own columns.
        findings: the findings alone.
        positions: the frame's row behind each row of these.
        made_by: the map nodes behind each of them.
    """

    table: pd.DataFrame
    findings: pd.DataFrame
    positions: NDArray[np.int64]
    made_by: Callable[[int], tuple[str, ...]] = made_by_nobody

    def nodes(self, rows: Sequence[int]) -> tuple[str, ...]:
        """The map nodes behind some of these rows, each once."""
        return nodes_behind(self.made_by, (self.positions[row] for row in rows))

    def at(self, rows: NDArray[np.int64]) -> Found:
        """Some of the rows."""
        return replace(
            self, table=self.table.iloc[rows], findings=self.findings.iloc[rows], positions=self.positions[rows]
        )


@dataclass(frozen=True)
class Outcome:
    """What a reduce gives, and for each group the rows behind each of its items."""

    output: Any
    cited: tuple[Cited, ...] = ()


@dataclass(frozen=True)
class Task:
    """What one tree of agents is asked: an instruction, for a type, by somebody."""

    instruction: str
    output: Any
    agent: Agent | None = None


def reduce_budget(work: Work, task: Task, computed: str = "") -> tuple[int, int]:
    """Tokens of findings that one agent gets, and the most that its window can hold.

    The prompt, the schema and the answer are subtracted, but from a ``reduce_budget`` that the user gives.
    """
    plan, lm = work.plan, work.lm("reduce", task.agent)
    count = work.counter("reduce", task.agent)
    output = OutputType(task.output)
    system = _prompts.reduce_system(
        task.instruction, final=True, output=output.schema, tools=True, persona=_persona(task.agent)
    )
    window = min(plan.context_window or lm.abilities.context_window, lm.abilities.context_window)
    reserve = min(lm.max_output_tokens or ANSWER_TOKENS, window // 4)
    taken = count(system) + count(str(output.submission().schema)) + count(computed) + reserve
    room = max(1, window - taken)
    if plan.reduce_budget is not None:
        return min(plan.reduce_budget, room), room
    share = int(window * (plan.budget_ratio or BUDGET_RATIO)) - taken
    return (share if 0 < share <= room else room), room


def _persona(agent: Agent | None) -> str:
    return agent.persona if agent is not None else ""


def make_reducer(work: Work, task: Task, computed: str = "") -> Reducer:
    """The agent at each node of a tree."""
    sessions = work.sessions("reduce", task.agent)
    said = task.instruction
    if task.agent is not None and not isinstance(task.agent.instruction, str):
        said = fingerprint(said.encode()).hex()  # what a function says may hold text of rows
    about = {
        "instruction": said,
        "persona": _persona(task.agent),
        "output": json_schema(task.output),
    }
    return Reducer(
        model=work.model("reduce", task.agent),
        instruction=task.instruction,
        output=OutputType(task.output),
        tools=work.tools("reduce", task.agent),
        max_steps=work.max_steps(task.agent),
        max_repairs=work.max_repairs,
        count=work.counter("reduce", task.agent),
        room=reduce_budget(work, task, computed)[1],
        losses=Losses(lambda node, error: list_or_raise(work, f"{node}: {error}", error)),
        persona=_persona(task.agent),
        repls=sessions.of_findings if sessions else None,
        store=work.answers("reduction", "reduce", about, task.agent),
        raised=lambda: work.raised,
    )


def the_task(work: Work) -> Task:
    """What agents are asked where they write the whole answer."""
    return Task(str(work.plan.reduce_instruction), work.plan.output or str, work.job.reduce_agent)


def _instructed(task: Task, findings: pd.DataFrame) -> Task:
    """The task, with what its agent's function says of these findings.

    Raises:
        NoInstruction: it says nothing.
    """
    if task.agent is None or isinstance(task.agent.instruction, str):
        return task
    return replace(task, instruction=check_instruction(called_here(task.agent.instruction, findings)))


def make_tree(work: Work, leaves: int, found: Callable[[], Found]) -> StaticTree:
    """A tree of reduce agents over ``leaves`` batches of findings, which takes them as they land."""
    reducer = make_reducer(work, the_task(work))
    return StaticTree(
        reducer,
        leaves=leaves,
        fan_in=work.plan.fan_in or 2,
        trace=work.trace,
        losses=reducer.losses,
        name=work.prefix,
        computed=lambda: computed_words(work, chosen(work.plan.where, found()).table, reducer.losses),
    )


async def reduce(work: Work, units: Units, found: Found, tree: StaticTree | None) -> Outcome:
    """The answer; None where nothing is left to reduce, or where it failed, which is then listed.

    ``tree`` is the one that got the findings as they landed, where there is one.
    """
    job, plan = work.job, work.plan
    found = chosen(plan.where, found)
    try:
        if job.reducer is not None:
            function = getattr(job.reducer, WHOLE, job.reducer)
            around = lambda rows: _inside_reduce(work, found, rows)  # noqa: E731
            given = await call_reducer(function, found.findings, frame=found.table, by=job.by, around=around)
            return Outcome(_as_output(work, given))
        if not work.written:
            return await _computed(work, units, found)
        if plan.output in {int, float} and (numeric := _numeric(work, found)):
            return await _chosen(work, units, found, numeric)
        if job.by is not None:
            return await _written_by_groups(work, units, found, the_task(work))
        if tree is not None:
            reduced = await tree.result()
            _tell_cut(work, tree.losses)
            return _outcome(reduced, plan.output)
        rows = np.arange(len(found.positions))
        return _outcome(await write(work, units, found, rows, the_task(work)), plan.output)
    except BudgetExceeded as error:
        work.end(error)
        return Outcome(None)
    except ModelError as error:
        if error.stops_run:
            work.end(error)
        else:
            list_or_raise(work, str(error), error)
        return Outcome(None)


def _inside_reduce(work: Work, found: Found, rows: Sequence[int]) -> AbstractContextManager[None]:
    """What a pipeline that reduces some rows of the findings stands inside of."""
    made_by = lambda places: found.nodes(rows if places is None else [rows[place] for place in places])  # noqa: E731
    group = f"{min(rows)}" if len(rows) and len(rows) < len(found.positions) else ""
    return standing_inside(work.room(f"{work.prefix}reduce{group}/", made_by))


def chosen(where: str | None, found: Found) -> Found:
    """Only the rows where a field is true, if the plan names one."""
    if where is None:
        return found
    return found.at(np.flatnonzero(found.table[where].fillna(False).astype(bool).to_numpy()))  # noqa: FBT003 (a value)


def _outcome(reduced: Reduced | None, kind: Any) -> Outcome:
    if reduced is None:
        return Outcome(None)
    return Outcome(shaped(reduced.value, kind), (Cited(None, reduced.rows),))


async def _computed(work: Work, units: Units, found: Found) -> Outcome:
    """What pandas computes; columns that are marked for agents are written by them, and put beside it."""
    job, plan = work.job, work.plan
    wanted = dict(job.computed or plan.aggregations or {})
    if plan.ranking is not None and not wanted:
        return _ranked(work, found)
    agents = {name: one for name, one in wanted.items() if isinstance(function_of(one), Agent)}
    plain = {name: one for name, one in wanted.items() if name not in agents}
    plainly = await compute(found.table, plain, by=job.by) if plain else None
    if not agents:
        return Outcome(_as_output(work, plainly))
    written: dict[Any, Any] = {}
    cited: list[Cited] = []
    for name, how in agents.items():
        agent, of = function_of(how), column_of(name, how)
        column = replace(found, findings=found.table[[of]])
        seen = units if job.maps else units.with_columns((list(job.frame.columns).index(of),))
        task = Task(agent.text, str, agent)
        if job.by is not None:
            outcome = await _written_by_groups(work, seen, column, task, prefix=f"{name}-")
            written[name] = outcome.output.iloc[:, 0].rename(name)
            cited += [part._replace(column=name) for part in outcome.cited]
            continue
        try:
            reduced = await write(work, seen, column, np.arange(len(found.positions)), task, name=f"{name}-")
        except ModelError as error:
            list_or_raise(work, f"{name}: {error}", error)
            reduced = None
        written[name] = None if reduced is None else reduced.value
        cited += [] if reduced is None else [Cited(name, reduced.rows)]
    return Outcome(joined_parts(plainly, plain, written, list(wanted), grouped=job.by is not None), tuple(cited))


def _as_output(work: Work, value: Any) -> Any:
    """A computed value as the type that is asked for; None where there is no value, which is listed."""
    kind = work.plan.output
    alone = value.iloc[0] if isinstance(value, pd.Series) and len(value) == 1 else value
    missing = bool(pd.api.types.is_scalar(alone) and pd.isna(alone))
    if kind is None or not missing:
        return checked_output(value, kind)
    if not without_none(kind)[1]:
        said = f"no value could be computed, and {getattr(kind, '__name__', kind)} is asked for"
        list_or_raise(work, said, InvalidOutput(said))
    return None


def _ranked(work: Work, found: Found) -> Outcome:
    """The rows that rank first, whole, and as their own sources."""
    places = _places(work, found.table)
    rows = tuple(frozenset((position,)) for position in found.positions[places].tolist())
    return Outcome(found.table.iloc[places], (Cited(None, rows),))


def _places(work: Work, table: pd.DataFrame) -> NDArray[np.int64]:
    ranking = work.plan.ranking
    assert ranking is not None
    return ranked(table, ranking.field, most=ranking.most, lowest_first=ranking.lowest_first, by=work.job.by)


def _numeric(work: Work, found: Found) -> list[str]:
    """The findings' columns that a number can be computed from."""
    if work.has_repl("reduce"):
        return []  # with a REPL an agent computes it itself
    content = found.findings if work.job.maps else found.findings.iloc[:, list(work.job.columns)]
    return [
        str(name)
        for name in content.columns
        if isinstance(name, str)
        and pd.api.types.is_numeric_dtype(content[name])
        and not pd.api.types.is_bool_dtype(content[name])
    ]


async def _chosen(work: Work, units: Units, found: Found, numeric: list[str]) -> Outcome:
    """A number over numeric findings: an agent says of which column and by which function, pandas computes it."""
    kind = record_type("Aggregation", {"field": numeric, "function": _functions(work, found, numeric)})
    own = _instructed(the_task(work), found.findings)
    task = Task(CHOOSE + own.instruction, kind, own.agent)
    step = max(1, len(found.positions) // CHOICE_SAMPLE)
    inputs = reduce_inputs(work, units, found, np.arange(len(found.positions)))[::step][:CHOICE_SAMPLE]
    if not inputs:
        return Outcome(None)
    with work.trace.node("final-reduce", id=f"{work.prefix}final-reduce", level=1, units=len(found.positions)) as node:
        reduced = await make_reducer(work, task).reduce(inputs, final=True)
        node.usage = reduced.usage
    said = cast("Any", reduced.value)
    how = {said.field: said.function}
    there = found.table[said.field].notna().to_numpy()
    if work.job.by is not None:
        index, groups = groups_of(found.table, work.job.by)
        behind = [frozenset(found.positions[[row for row in rows if there[row]]].tolist()) for rows in groups]
        value = await compute(found.table, how, by=work.job.by)
        return Outcome(value, tuple(Cited(label, (rows,)) for label, rows in zip(index, behind, strict=True)))
    value = await compute(found.table[there], how)
    if pd.isna(value.iloc[0]):
        said_of = f"there is no {said.function} of {said.field!r}: it has no values"
        list_or_raise(work, said_of, InvalidOutput(said_of))
        return Outcome(None)
    rows = frozenset(found.positions[there].tolist())
    return Outcome(checked_output(value, work.plan.output), (Cited(None, (rows,)),))


def _functions(work: Work, found: Found, numeric: list[str]) -> list[str]:
    """The functions whose result is of the type that is asked for, whichever of the columns they are taken of."""
    whole = all(pd.api.types.is_integer_dtype(found.table[name]) for name in numeric)
    return list(NUMERIC if work.plan.output is float else WHOLE_NUMBERS if whole else COUNTS)


def computed_words(work: Work, table: pd.DataFrame, losses: Losses, group: NDArray[np.int64] | None = None) -> str:
    """What is known beside the findings: what pandas has computed of them, and what is missing.

    Of a group's rows, at the positions of ``group``, only what concerns them: nothing else is asked anew when it
    changes.
    """
    aggregations = {name: how for name, how in (work.plan.aggregations or {}).items() if name in table.columns}
    parts = [computed_text(computed(table, aggregations, by=None))] if aggregations else []
    if work.plan.ranking is not None and work.plan.ranking.field in table.columns:
        first = table.iloc[_places(work, table)]
        parts.append(_prompts.ranked_lines([line_of(cell(one)) for one in first.to_dict("records")]))
    failed = {failure.position for failure in work.failures if failure.position >= 0}
    rows = set(range(len(work.job.frame))) if group is None else set(group.tolist())
    parts.append(coverage_words(len(rows), len(failed & rows), len(losses.rows), losses.cut))
    return "\n\n".join(part for part in parts if part)


def list_or_raise(work: Work, reason: str, error: ModelError) -> None:
    """What a reduce goes on without is listed; raised where nothing that follows could succeed, or nothing may fail."""
    if error.stops_run or work.settings.errors == "raise":
        work.raised = work.raised or error
        raise error
    who: Who = "callable" if isinstance(error, NoInstruction) else "model"
    work.failures.append(Failure(REDUCE_POSITION, REDUCE_POSITION, who, f"reduce: {reason}", error.attempts))


async def write(
    work: Work, units: Units, found: Found, rows: NDArray[np.int64], task: Task, *, name: str = ""
) -> Reduced | None:
    """What a tree of agents writes of some rows; None where there are none."""
    name = work.prefix + name
    inputs = reduce_inputs(work, units, found, rows)
    if not inputs:
        return OutputType(task.output).nothing
    task = _instructed(task, found.findings.iloc[rows])
    table = found.table.iloc[rows]
    group = found.positions[rows] if work.job.by is not None else None
    reducer = make_reducer(work, task, computed_words(work, table, Losses(lambda *_: None), group))
    losses = reducer.losses
    if work.plan.fan_in is None:
        tree = AdaptiveTree(
            reducer,
            budget=reduce_budget(work, task)[0],
            max_levels=work.plan.max_reduce_levels or MAX_LEVELS,
            trace=work.trace,
            losses=losses,
            parallelism=work.parallelism,
            name=name,
            computed=lambda: computed_words(work, table, losses, group),
        )
        reduced = await tree.reduce(inputs)
        _tell_cut(work, losses)
        return reduced
    batches = _batches(work, inputs)
    static = StaticTree(
        reducer,
        leaves=len(batches),
        fan_in=work.plan.fan_in,
        trace=work.trace,
        losses=losses,
        name=name,
        computed=lambda: computed_words(work, table, losses, group),
    )
    try:
        for leaf, batch in enumerate(batches):
            static.offer(leaf, makers(batch), batch)
        reduced = await static.result()
        _tell_cut(work, losses)
        return reduced
    finally:
        await static.close()


def _tell_cut(work: Work, losses: Losses) -> None:
    if losses.cut:
        said = f"The reduce could not hold all of its findings: {losses.cut} were cut to fit the model's window."
        work.warnings.append(FailureWarning(said))


def reduce_inputs(work: Work, units: Units, found: Found, rows: NDArray[np.int64]) -> list[Input]:
    """The findings of some rows as reducers read them; what failed is not among them."""
    positions = found.positions[rows]
    if not work.job.maps:
        inputs = row_inputs(units, positions.tolist())
        return [replace(one, nodes=work.before(sorted(one.rows))) for one in inputs]
    failed = np.array(sorted({failure.position for failure in work.failures}), dtype=np.int64)
    alike: dict[int, list[int]] = {}  # rows that one unit answered for, by the first of them
    for row in rows[~np.isin(positions, failed)].tolist():
        position = int(found.positions[row])
        same = -1 - row if len(found.positions) != len(units) else int(units.answered_by[position])
        alike.setdefault(same, []).append(row)
    firsts = [part[0] for part in alike.values()]
    table = pa.Table.from_pandas(found.findings.iloc[firsts], preserve_index=False)
    behind = [found.positions[part].tolist() for part in alike.values()]
    inputs = finding_inputs([(range(table.num_rows), table)], counted=[len(part) for part in behind])
    return [Input(one.line, frozenset(part), found.made_by(part[0])) for one, part in zip(inputs, behind, strict=True)]


def _batches(work: Work, inputs: Sequence[Input]) -> list[list[Input]]:
    """Findings in batches as large as a shard."""
    plan = work.plan
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    count = work.counter("reduce")
    tokens = np.array([count(one.line) for one in inputs], dtype=np.int64)
    shards = make_shards(np.arange(len(inputs)), tokens, shard_size=plan.shard_size, shard_tokens=plan.shard_tokens)
    return [[inputs[index] for index in shard.positions] for shard in shards]


async def _written_by_groups(work: Work, units: Units, found: Found, task: Task, *, prefix: str = "") -> Outcome:
    """One tree a group, side by side; a failed group is a row of ``<NA>`` and listed."""
    assert work.job.by is not None
    index, groups = groups_of(found.table, work.job.by)
    values: list[Reduced | None] = [None] * len(groups)

    async def one(number: int) -> tuple[int, Reduced | None]:
        rows = np.array(groups[number], dtype=np.int64)
        try:
            return number, await write(work, units, found, rows, task, name=f"{prefix}group-{number}-")
        except BudgetExceeded as error:  # the groups that are there stay
            work.end(error)
        except ModelError as error:
            if error.stops_run:
                work.end(error)
            else:
                list_or_raise(work, f"group {index[number]}: {error}", error)
        return number, None

    async for number, value in each(one, range(len(groups)), limit=work.parallelism):
        values[number] = value
    cited = tuple(Cited(index[number], value.rows) for number, value in enumerate(values) if value is not None)
    shown = [None if value is None else value.value for value in values]
    return Outcome(group_output(shown, index, task.output), cited)


@dataclass(frozen=True)
class Alone:
    """One agent that answers from the whole content: what it is asked, and what it reads."""

    task: Task
    reducer: Reducer
    inputs: list[Input]


def alone(work: Work, units: Units) -> Alone | None:
    """Who answers from the whole content; None where the plan has nobody, or all of it does not fit one agent."""
    job = work.job
    if not (work.plan.direct and job.verb in {"map_reduce", "plan"} and work.written and job.by is None):
        return None
    task = _instructed(the_task(work), units.frame.iloc[:, list(units.columns)])
    budget = reduce_budget(work, task)[0]
    if not len(units) or int(units.tokens.sum()) > FAR_TOO_MUCH * budget:  # not worth counting
        return None
    reducer = make_reducer(work, task)
    inputs = row_inputs(units, list(range(len(units))))
    if reducer.count("\n".join(one.line for one in inputs)) > budget:
        return None
    if sum(reducer.size(one) for one in inputs) > reducer.room:  # with their numbers they do not: none is left out
        return None
    return Alone(task, reducer, inputs)


async def direct(work: Work, units: Units) -> Outcome | None:
    """One agent's answer from the whole content; None where nobody can read all of it."""
    answering = alone(work, units)
    if answering is None:
        return None
    reducer, inputs = answering.reducer, answering.inputs
    with work.trace.node("direct", id=f"{work.prefix}direct", units=len(units)) as node:
        reduced = await reducer.reduce(inputs, final=True)
        node.usage = reduced.usage
    return _outcome(reduced, work.plan.output)
