"""The reduce stage: computed by pandas, by the user's function, or written by agents; whole or by groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._agent import prompts
from pandas_amr._agent.agent import Agent, NoInstruction, check_instruction
from pandas_amr._agent.threads import called_here
from pandas_amr._context.work import ANSWER_TOKENS, standing_inside
from pandas_amr._findings.citations import Support
from pandas_amr._findings.inputs import Found, Input, finding_inputs, row_inputs
from pandas_amr._findings.output import OutputType
from pandas_amr._findings.store import Failure
from pandas_amr._journal.first_format import former_persona
from pandas_amr._journal.keys import Question, fingerprint
from pandas_amr._plan.aggregations import (
    OUTPUT_COLUMN,
    all_labels,
    call_reducer,
    checked_output,
    column_of,
    compute,
    computed,
    computed_text,
    fitting_outputs,
    function_of,
    group_output,
    groups_of,
    joined_parts,
    ranked,
    shaped,
)
from pandas_amr._plan.call import WHOLE
from pandas_amr._records.concurrency import each
from pandas_amr._records.engine import aside
from pandas_amr._records.raised import described
from pandas_amr._reduce.adaptive_tree import AdaptiveTree, makers
from pandas_amr._reduce.agent import Losses, Reducer, StaticTree
from pandas_amr._reduce.choose import ChoiceType, Fields, as_number, number_type
from pandas_amr._reduce.sources import Cited, coverage_words
from pandas_amr._units.by import column as column_at
from pandas_amr._units.by import described_key, missing_keys
from pandas_amr._units.cells import cell, line_of, reader_keys
from pandas_amr._units.profile import spread
from pandas_amr._units.shards import make_shards
from pandas_amr.errors import (
    AMRError,
    BudgetExceeded,
    ColumnError,
    FailureWarning,
    InvalidOutput,
    ModelError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pandas_amr._context.work import Work
    from pandas_amr._findings.output import Reduced
    from pandas_amr._findings.store import Who
    from pandas_amr._reduce.choose import Choice
    from pandas_amr._units.units import Units

REDUCE_POSITION = -1
BUDGET_RATIO = 0.5
MAX_LEVELS = 10
FAR_TOO_MUCH = 2
CHOICE_SAMPLE = 10


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


def reduce_budget(
    work: Work, task: Task, computed: str = "", output: OutputType | None = None
) -> tuple[int, int]:
    """Tokens of findings that one agent gets, and the most that its window can hold.

    The prompt, the schema and the answer are subtracted, but from a ``reduce_budget`` that the user gives.
    """
    plan, lm = work.plan, work.lm("reduce", task.agent)
    count = work.counter("reduce", task.agent)
    output = output or OutputType(task.output)
    line = output.line if work.has_repl("reduce", task.agent) else ""
    system = prompts.reduce_system(
        task.instruction,
        final=True,
        output=output.schema,
        tools=True,
        line=line,
        persona=_persona(task.agent),
    )
    window = min(plan.context_window or lm.abilities.context_window, lm.abilities.context_window)
    reserve = min(lm.max_output_tokens or ANSWER_TOKENS, window // 4)
    taken = count(system) + count(str(output.submission().wire.schema)) + count(computed) + reserve
    room = max(1, window - taken)
    if plan.reduce_budget is not None:
        return min(plan.reduce_budget, room), room
    share = int(window * (plan.budget_ratio or BUDGET_RATIO)) - taken
    return (share if 0 < share <= room else room), room


def _persona(agent: Agent | None) -> str:
    return agent.persona if agent is not None else ""


def make_reducer(
    work: Work, task: Task, computed: str = "", output: OutputType | None = None
) -> Reducer:
    """The agent at each node of a tree; ``output`` is what it hands in, if that is not the task's own output."""
    sessions = work.sessions("reduce", task.agent)
    said = task.instruction
    if task.agent is not None and not isinstance(task.agent.instruction, str):
        said = fingerprint(said.encode()).hex()  # what a function says may hold text of rows
    kind = output or OutputType(task.output, held=work.job.by is not None)
    question = Question(
        parts={"instruction": said} | ({"choice": output.schema} if output is not None else {}),
        output=task.output,
        agent=task.agent,
        former={"persona": former_persona(task.agent)},
    )
    return Reducer(
        model=work.model("reduce", task.agent),
        instruction=task.instruction,
        output=kind,
        tools=work.tools("reduce", task.agent),
        max_steps=work.max_steps(task.agent),
        max_repairs=work.max_repairs,
        count=work.counter("reduce", task.agent),
        room=reduce_budget(work, task, computed, kind)[1],
        losses=Losses(lambda node, error: list_or_raise(work, f"{node}: {error}", error)),
        persona=_persona(task.agent),
        window=work.window("reduce", task.agent),
        repls=sessions.of_findings if sessions else None,
        store=work.answers("reduction", "reduce", question, task.agent),
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
    return replace(
        task, instruction=check_instruction(called_here(task.agent.instruction, findings))
    )


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
        computed=lambda: computed_words(work, chosen(work.plan.where, found()), reducer.losses),
    )


async def reduce(work: Work, units: Units, found: Found, tree: StaticTree | None) -> Outcome:
    """The answer; None where nothing is left to reduce, or where it failed, which is then listed.

    ``tree`` is the one that got the findings as they landed, where there is one.
    """
    job, plan = work.job, work.plan
    try:
        if job.callables:
            _check_columns(work, found)
        found = chosen(plan.where, found)
        if job.reducer is not None:
            return await _by_function(work, found)
        if not work.written:
            return await _computed(work, units, found)
        if chooses(work):
            return await _number(work, units, found)
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


class NoColumns(InvalidOutput):
    """No function without a type has found anything, so that nobody knows the columns that it would give."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}; a function found nothing, and without finding= its columns are not known"
        )


def _check_columns(work: Work, found: Found) -> None:
    """Refuse to reduce columns that a function's findings do not have: what it gives is known only now.

    Raises:
        NoColumns: one is missing, and a function found nothing.
        ColumnError: one is missing.
    """
    plan, there = work.plan, found.table.columns
    computed = {} if work.written else work.job.computed or plan.aggregations or {}
    named = [column_of(name, how) for name, how in computed.items()]
    named += [
        label
        for label in (plan.where, plan.ranking.field if plan.ranking else None)
        if label is not None
    ]
    missing = [
        label
        for label in named
        if label not in there and not (found.units and found.units.owns(label))
    ]
    missing += (
        missing_keys(found.by, all_labels(found.table), found.table.index)
        if found.by is not None
        else []
    )
    if not missing:
        return
    problem = f"No column {missing[0]!r} to reduce. There is: {', '.join(map(repr, there))}"
    raise NoColumns(problem) if _has_unknown_columns(work) else ColumnError(f"{problem}.")


def _has_unknown_columns(work: Work) -> bool:
    """Whether a function without a type has found nothing."""
    return work.kept is not None and not all(store.labels() for store in work.kept.stores.values())


async def _by_function(work: Work, found: Found) -> Outcome:
    """What the user's reducer gives.

    Raises:
        NoColumns: it raised, and its columns may not be there.
    """
    function: Any = getattr(work.job.reducer, WHOLE, work.job.reducer)
    around = lambda rows: _inside_reduce(work, found, rows)  # noqa: E731
    try:
        given = await call_reducer(
            function, found.findings, frame=found.table, by=found.by, around=around
        )
    except AMRError:
        raise
    except Exception as error:
        if _has_unknown_columns(work):
            raise NoColumns(described(error)) from error
        raise
    return Outcome(_as_output(work, given))


def _inside_reduce(work: Work, found: Found, rows: Sequence[int]) -> AbstractContextManager[None]:
    """What a pipeline that reduces some rows of the findings stands inside of."""

    def made_by(places: Sequence[int] | None) -> tuple[str, ...]:
        return found.nodes(rows if places is None else [rows[place] for place in places])

    group = f"{min(rows)}" if len(rows) and len(rows) < len(found.positions) else ""
    return standing_inside(work.room(f"{work.prefix}reduce{group}/", made_by))


def chosen(where: str | None, found: Found) -> Found:
    """Only the rows where a field is true, if the plan names one."""
    if where is None:
        return found
    is_true = column_at(found.table, where).fillna(False).astype(bool)  # noqa: FBT003 (a value)
    return found.at(np.flatnonzero(is_true.to_numpy()))


def _outcome(reduced: Reduced | None, kind: Any) -> Outcome:
    if reduced is None:
        return Outcome(None)
    return Outcome(shaped(reduced.value, kind), (Cited(None, reduced.support),))


async def _computed(work: Work, units: Units, found: Found) -> Outcome:
    """What pandas computes; columns that are marked for agents are written by them, and put beside it."""
    job, plan = work.job, work.plan
    wanted = dict(job.computed or plan.aggregations or {})
    if plan.ranking is not None and not wanted:
        return _ranked(work, found)
    agents = {name: one for name, one in wanted.items() if isinstance(function_of(one), Agent)}
    plain = {name: one for name, one in wanted.items() if name not in agents}
    plainly = await compute(found.table, plain, by=found.by, units=found.units) if plain else None
    if not agents:
        return Outcome(_as_output(work, plainly))
    written: dict[Any, Any] = {}
    cited: list[Cited] = []
    for name, how in agents.items():
        agent, of = function_of(how), column_of(name, how)
        one_column = replace(found, findings=column_at(found.table, of).to_frame(str(of)))
        seen = units if job.maps else units.with_columns((list(job.frame.columns).index(of),))
        task = Task(agent.text, str, agent)
        if job.by is not None:
            outcome = await _written_by_groups(work, seen, one_column, task, prefix=f"{name}-")
            written[name] = outcome.output.iloc[:, 0].rename(name)
            cited += [part._replace(column=name) for part in outcome.cited]
            continue
        try:
            reduced = await write(
                work, seen, one_column, np.arange(len(found.positions)), task, name=f"{name}-"
            )
        except ModelError as error:
            list_or_raise(work, f"{name}: {error}", error)
            reduced = None
        written[name] = None if reduced is None else reduced.value
        cited += [] if reduced is None else [Cited(name, reduced.support)]
    return Outcome(
        joined_parts(plainly, plain, written, list(wanted), grouped=job.by is not None),
        tuple(cited),
    )


def _as_output(work: Work, value: Any) -> Any:
    """What was computed as the type that was asked for; None if it is missing; a value of another type is listed."""
    kind = work.plan.output
    missing = (
        kind is not None
        and not isinstance(value, pd.DataFrame)
        and fitting_outputs(value)[0] is None
    )
    if missing:
        return None
    try:
        return checked_output(value, kind, grouped=work.job.by is not None)
    except UsageError as error:
        if not work.job.maps or work.job.reducer is not None:
            raise
        list_or_raise(work, str(error), InvalidOutput(str(error)))
        return None


def _ranked(work: Work, found: Found) -> Outcome:
    """The rows that rank first, whole, and as their own sources."""
    places = _places(work, found)
    rows = tuple(Support(frozenset((position,))) for position in found.positions[places].tolist())
    return Outcome(found.table.iloc[places], (Cited(None, rows),))


def _places(work: Work, found: Found) -> NDArray[np.int64]:
    ranking = work.plan.ranking
    assert ranking is not None
    return ranked(
        found.table,
        ranking.field,
        most=ranking.most,
        lowest_first=ranking.lowest_first,
        by=found.by,
    )


def chooses(work: Work) -> bool:
    """Tell whether an agent says how the answer is computed: a number, unless agents have a REPL to compute it in."""
    if number_type(work.plan.output) is None or not work.written:
        return False
    return not work.has_repl("reduce", work.job.reduce_agent)


def _fields(work: Work, found: Found) -> Fields:
    """What a number can be computed from: findings, content columns, and the frame's other columns without values."""
    job = work.job
    kind = number_type(work.plan.output)
    assert kind is not None
    fields = [found.findings[label] for label in found.findings.columns] if job.maps else []
    findings = [(field.name, field, True, field) for field in fields]
    others = [place for place in range(len(job.frame.columns)) if place not in job.columns]
    own = [
        (
            job.frame.columns[place],
            found.table.iloc[:, place],
            place in job.columns,
            job.frame.iloc[:, place],
        )
        for place in [*job.columns, *others]
    ]
    rows = ~np.isin(found.positions, unfound(work))
    return Fields.of([*findings, *own], kind=kind, rows=rows, counted=job.maps)


async def _number(work: Work, units: Units, found: Found) -> Outcome:
    """A number: computed as an agent says, or written where nothing computes it."""
    if not len(work.job.frame):
        return Outcome(None)
    choice = await _choice(work, units, found)
    if choice is not None:
        return _as_chosen(work, found, choice)
    if found.by is not None:
        return await _written_by_groups(work, units, found, the_task(work))
    rows = np.arange(len(found.positions))
    return _outcome(await write(work, units, found, rows, the_task(work)), work.plan.output)


async def _choice(work: Work, units: Units, found: Found) -> Choice | None:
    """How an agent says that the number is computed; None if it is to be written.

    An agent that insists on a number of its own has seen a sample only: the number is written from all findings.
    """
    fields = _fields(work, found)
    by = found.by
    own = _instructed(the_task(work), found.findings)
    asked = prompts.choice_instruction(own.instruction, fields.functions, grouped=by is not None)
    keys = [described_key(key) for key in by.keys] if by is not None else []
    told = prompts.choosable_lines(fields.lines, left_out=fields.left_out, by=keys)
    kind = ChoiceType(fields)
    reducer = make_reducer(work, replace(own, instruction=asked), told, kind)
    sample = reduce_inputs(work, units, found, _sampled(work, units, found))[:CHOICE_SAMPLE]
    name = f"{work.prefix}final-reduce"
    with work.trace.node("final-reduce", id=name, level=1, units=len(found.positions)) as node:
        choice: Choice | None = None
        try:
            reduced = await reducer.reduce(sample, final=True, told=told.__str__)
            node.usage = reduced.usage
            choice = reduced.value
        except InvalidOutput:
            if not kind.insists:
                raise
        if choice is None:  # the final reduce is yet to come
            node.id, node.type = f"{work.prefix}choose", "reduce"
    return choice


def _sampled(work: Work, units: Units, found: Found) -> NDArray[np.int64]:
    """The rows of some units from all over the frame, all rows that one of them answers for."""
    unit_of = units.answered_by[found.positions]
    there = np.unique(unit_of[~np.isin(found.positions, unfound(work))])
    sampled = there[spread(len(there), CHOICE_SAMPLE)] if len(there) else there
    return np.flatnonzero(np.isin(unit_of, sampled))


def _as_chosen(work: Work, found: Found, choice: Choice) -> Outcome:
    """The number as it was chosen, and the rows that met its condition; of each group by itself."""
    there, met = choice.there(), choice.met()
    by, output = found.by, work.plan.output
    if by is None:
        every = _counted_once(choice, met, found, np.arange(len(found.positions)))
        value = _as_asked(work, choice, choice.computed(there, met, every))
        return Outcome(value, (_cited(found, None, every[met[every]]),))
    index, groups = groups_of(found.table, by)
    values: list[Any] = []
    cited: list[Cited] = []
    for label, group in zip(index, groups, strict=True):
        rows = _counted_once(choice, met, found, np.array(group, dtype=np.int64))
        value = choice.computed(there, met, rows)
        values.append(
            None if value is None else _as_asked(work, choice, value, group=f"group {label}: ")
        )
        cited.append(_cited(found, label, rows[met[rows]]))
    column = OUTPUT_COLUMN if choice.field is None else choice.field.column.name
    frame = group_output(values, index, output)
    return Outcome(frame.set_axis([column], axis=1), tuple(cited))


def _counted_once(
    choice: Choice, met: NDArray[np.bool_], found: Found, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Keep of each unit's records one, which meets the condition if any does, where a unit's own column is computed."""
    own = (
        found.units is not None
        and choice.field is not None
        and found.units.owns(choice.field.column.name)
    )
    if not own:
        return rows
    met_first = rows[np.argsort(~met[rows], kind="stable")]
    _, firsts = np.unique(found.positions[met_first], return_index=True)
    return np.sort(met_first[firsts])


def _cited(found: Found, group: Any, rows: NDArray[np.int64]) -> Cited:
    return Cited(group, (Support(frozenset(found.positions[rows].tolist())),))


def _as_asked(work: Work, choice: Choice, value: Any, group: str = "") -> Any:
    """A computed number in the type that is asked for; what is none is listed.

    Raises:
        InvalidOutput: nothing may fail.
    """
    try:
        return as_number(value, work.plan.output, held=bool(group))
    except InvalidOutput as error:
        said = f"{group}there is no {choice.called}: {error}"
        list_or_raise(work, said, InvalidOutput(said))
        return None


def unfound(work: Work) -> NDArray[np.int64]:
    """The positions of the rows of which nothing was found: all maps failed. No reducer reads them, in no tree."""
    failed: dict[int, set[str | None]] = {}
    for failure in work.failures:
        failed.setdefault(failure.position, set()).add(failure.map)
    names = set(work.job.names)
    return np.array(
        sorted(position for position, maps in failed.items() if maps >= names), dtype=np.int64
    )


def computed_words(
    work: Work, found: Found, losses: Losses, group: NDArray[np.int64] | None = None
) -> str:
    """What is known beside the findings: what pandas has computed of them, and what is missing.

    Of a group's rows, at the positions of ``group``, only what concerns them: nothing else is asked anew when it
    changes.
    """
    table, units = found.table, found.units
    there = [
        name
        for name in work.plan.aggregations or {}
        if name in table.columns or (units and units.owns(name))
    ]
    aggregations = {name: (work.plan.aggregations or {})[name] for name in there}
    parts = [computed_text(computed(table, aggregations, None, units))] if aggregations else []
    if work.plan.ranking is not None and work.plan.ranking.field in table.columns:
        first = table.iloc[_places(work, found)]
        parts.append(prompts.ranked_lines(_table_lines(first)))
    failed = {failure.position for failure in work.failures if failure.position >= 0}
    nothing = set(unfound(work).tolist())
    rows = set(range(len(work.job.frame))) if group is None else set(group.tolist())
    partly = len((failed - nothing) & rows)
    parts.append(
        coverage_words(len(rows), len(nothing & rows), len(losses.rows), losses.cut, partly=partly)
    )
    return "\n\n".join(part for part in parts if part)


def _table_lines(table: pd.DataFrame) -> list[str]:
    """Render rows of findings beside the frame's columns."""
    keys = reader_keys(list(table.columns))
    cells = [[cell(value) for value in table.iloc[:, place].array] for place in range(len(keys))]
    return [line_of(dict(zip(keys, row, strict=True))) for row in zip(*cells, strict=True)]


def list_or_raise(work: Work, reason: str, error: ModelError) -> None:
    """What a reduce goes on without is listed; raised where nothing that follows could succeed, or nothing may fail."""
    if error.stops_run or work.settings.errors == "raise":
        work.raised = work.raised or error
        raise error
    who: Who = "callable" if isinstance(error, NoInstruction | NoColumns) else "model"
    work.failures.append(
        Failure(REDUCE_POSITION, REDUCE_POSITION, who, f"reduce: {reason}", error.attempts)
    )


async def write(
    work: Work, units: Units, found: Found, rows: NDArray[np.int64], task: Task, *, name: str = ""
) -> Reduced | None:
    """What a tree of agents writes of some rows; None where there are none."""
    name = work.prefix + name
    inputs: list[Input] = await aside(reduce_inputs, work, units, found, rows, size=len(rows))
    if not inputs:
        return OutputType(task.output).nothing
    task = _instructed(task, found.findings.iloc[rows])
    group = found.positions[rows] if work.job.by is not None else None
    part = found if group is None else found.of_group(rows)
    computed = await aside(
        computed_words, work, part, Losses(lambda *_: None), group, size=len(rows)
    )
    reducer = make_reducer(work, task, computed)
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
            computed=lambda: computed_words(work, part, losses, group),
        )
        reduced = await tree.reduce(inputs)
        _tell_cut(work, losses)
        return reduced
    batches: list[list[Input]] = await aside(_batches, work, inputs, size=len(inputs))
    static = StaticTree(
        reducer,
        leaves=len(batches),
        fan_in=work.plan.fan_in,
        trace=work.trace,
        losses=losses,
        name=name,
        computed=lambda: computed_words(work, part, losses, group),
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
    """The findings of some rows as reducers read them; rows of which nothing was found are not among them."""
    if not work.job.maps:
        inputs = row_inputs(units, found.positions[rows].tolist())
        return [replace(one, nodes=work.before(sorted(one.rows))) for one in inputs]
    read = rows[~np.isin(found.positions[rows], unfound(work))]
    # One finding stands for all rows that its unit answered for; a column of the frame differs among them.
    own = any(label in work.job.frame.columns for label in found.findings.columns)
    alike: dict[int, list[int]] = {}
    for position in dict.fromkeys(found.positions[read].tolist()):
        alike.setdefault(position if own else int(units.answered_by[position]), []).append(position)
    answered = {positions[0]: positions for positions in alike.values()}
    firsts = read[np.isin(found.positions[read], list(answered))]
    columns = {label: found.findings[label].iloc[firsts].array for label in found.findings.columns}
    inputs = finding_inputs([(found.positions[firsts].tolist(), columns)], answered.__getitem__)
    return [replace(one, nodes=found.made_by(min(one.rows))) for one in inputs]


def _batches(work: Work, inputs: Sequence[Input]) -> list[list[Input]]:
    """Findings in batches as large as a shard."""
    plan = work.plan
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    count = work.counter("reduce")
    tokens = np.array([count(one.line) for one in inputs], dtype=np.int64)
    shards = make_shards(
        np.arange(len(inputs)), tokens, shard_size=plan.shard_size, shard_tokens=plan.shard_tokens
    )
    return [[inputs[index] for index in shard.positions] for shard in shards]


async def _written_by_groups(
    work: Work, units: Units, found: Found, task: Task, *, prefix: str = ""
) -> Outcome:
    """One tree a group, side by side; a failed group is a row of ``<NA>`` and listed."""
    assert found.by is not None
    index, groups = groups_of(found.table, found.by)
    values: list[Reduced | None] = [None] * len(groups)

    async def one(number: int) -> tuple[int, Reduced | None]:
        rows = np.array(groups[number], dtype=np.int64)
        try:
            return number, await write(
                work, units, found, rows, task, name=f"{prefix}group-{number}-"
            )
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
    cited = tuple(
        Cited(index[number], value.support)
        for number, value in enumerate(values)
        if value is not None
    )
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
    if not (
        work.plan.direct and job.verb in {"map_reduce", "plan"} and work.written and job.by is None
    ):
        return None
    task = _instructed(the_task(work), units.frame.iloc[:, list(units.columns)])
    budget = reduce_budget(work, task)[0]
    if not len(units) or int(units.tokens.sum()) > FAR_TOO_MUCH * budget:  # not worth counting
        return None
    reducer = make_reducer(work, task)
    inputs = row_inputs(units, list(range(len(units))))
    if reducer.count("\n".join(one.line for one in inputs)) > budget:
        return None
    if (
        sum(reducer.size(one) for one in inputs) > reducer.room
    ):  # with their numbers they do not: none is left out
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
