"""What the agents of a reduce take: the trees' shapes by their own arithmetic, prompts counted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.agent import Agent
from pandas_amr._plan.aggregations import column_of, function_of
from pandas_amr._plan.call import finding_types
from pandas_amr._plan.compute import all_labels, group_rows
from pandas_amr._reduce.direct import make_direct_answer
from pandas_amr._reduce.number import CHOICE_SAMPLE
from pandas_amr._reduce.packing import reduce_calls, static_sizes
from pandas_amr._reduce.task import ReduceTask, answer_task, make_reduce_agent, reduce_budget
from pandas_amr._reduce.trees import MAX_LEVELS
from pandas_amr._reduce.truncate import NUMBER_TOKENS
from pandas_amr._run.cost import Cost, takes_turns
from pandas_amr._run.sample import spread_places
from pandas_amr._run.typical import NOTES_TOKENS, TYPICAL_TEXT, typical_finding, typical_value
from pandas_amr._types.schema import json_schema
from pandas_amr._units.by import find_missing_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._reduce.agent import ReduceAgent
    from pandas_amr._run.sample import Measurement
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units

COUNTED_LINES = 50  # of rows that are reduced without a map; the others are like them
CHOICE_TOKENS = 24  # of an answer that says how a number is computed


@dataclass(frozen=True)
class ReduceEstimate:
    """What the agents of a reduce take.

    Attributes:
        tree: nodes per level of a static tree, the maps' shards first; empty for any other.
    """

    costs: list[Cost]
    tree: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Node:
    """What one node of a tree takes.

    Attributes:
        prompt_tokens: of its prompt without findings.
        number_tokens: of a finding's number in the prompt. A budget reserves ``NUMBER_TOKENS``.
        answer_tokens: of its answer.
        budget: the tokens of findings that it may be given.
    """

    prompt_tokens: int
    number_tokens: int
    answer_tokens: float
    budget: int


def estimate_direct(
    spec: Spec, services: Services, state: State, units: Units
) -> ReduceEstimate | None:
    """Estimate one agent that answers from the whole content.

    Returns:
        None if the plan has no such agent, or if the content does not fit its prompt.
    """
    answering = make_direct_answer(spec, services, state, units) if spec.lms else None
    if answering is None:
        return None
    task, agent = answering.task, answering.agent
    cost = Cost("reduce", task.agent)
    cost.about = takes_turns(spec, cost)
    lines = [one.line for one in answering.inputs]
    answer_tokens = _answer_tokens(task, agent.count)
    cost.add(1, _opening_tokens(spec, task, agent, lines), answer_tokens)
    return ReduceEstimate([cost])


def estimate_reduce(
    spec: Spec,
    services: Services,
    state: State,
    units: Units,
    shards: Sequence[Shard],
    *,
    measurement: Measurement | None,
) -> ReduceEstimate:
    """Estimate what the agents of the reduce take.

    Args:
        spec: what the run is asked for.
        services: what it works with.
        state: what came of it so far.
        units: all units: what the journal has of them is reduced, too.
        shards: those that are still to be mapped.
        measurement: what a sample took, if there was one.
    """
    job = spec.job
    if not job.reduces or not spec.lms or not len(units.asked):
        return ReduceEstimate([])
    services = replace(services, journal=None)  # an estimate looks nothing up
    estimator = _ReduceEstimator(spec, services, state, units, shards, measurement)
    tree: tuple[int, ...] = ()
    costs: list[Cost] = []
    if spec.is_written:
        cost, tree = estimator.estimate_answer()
        costs.append(cost)
    for name, how in (job.computed or {}).items():
        agent = function_of(how)
        if isinstance(agent, Agent):
            costs.append(estimator.estimate_column(agent, column_of(name, how)))
    is_uncertain = estimator.is_cached or _depends_on_findings(spec, has_leaves=bool(tree))
    for cost in costs:
        cost.about |= is_uncertain or takes_turns(spec, cost)
    return ReduceEstimate(costs, tree)


@dataclass(frozen=True)
class _ReduceEstimator:
    """Estimates the agents of a reduce, one after the other."""

    spec: Spec
    services: Services
    state: State
    units: Units
    shards: Sequence[Shard]
    measurement: Measurement | None

    @property
    def is_cached(self) -> bool:
        """Whether the journal has some of the findings."""
        return sum(len(shard.positions) for shard in self.shards) < len(self.units.asked)

    @property
    def _lines_per_unit(self) -> float:
        return 1.0 if self.measurement is None else self.measurement.findings

    def estimate_answer(self) -> tuple[Cost, tuple[int, ...]]:
        """Estimate the agents that write the whole answer.

        Returns:
            The nodes of each level, too, if they are a static tree over the maps' shards.
        """
        spec, task = self.spec, answer_task(self.spec)
        cost, node = Cost("reduce", task.agent), self._measure_node(task)
        line_tokens = self._line_tokens()
        sent_tokens = line_tokens + node.number_tokens
        if spec.reduce_kind == "chosen_number":
            lines = min(CHOICE_SAMPLE, len(self.units.asked))
            cost.add(1, node.prompt_tokens + lines * sent_tokens, CHOICE_TOKENS)
            cost.about = True  # what no column can answer is written, by more agents
            return cost, ()
        fan_in = spec.plan.fan_in
        if spec.job.by is None and fan_in is not None and not self.is_cached:
            unit_tokens = self._lines_per_unit * sent_tokens
            leaves = [len(shard.positions) * unit_tokens for shard in self.shards]
            return cost, _add_static_tree(cost, node, leaves, fan_in)
        self._add_trees(cost, node, line_tokens)
        return cost, ()

    def estimate_column(self, agent: Agent, column: Any) -> Cost:
        """Estimate the agents that write a column of the answer from a column of the findings."""
        cost = Cost("reduce", agent)
        node = self._measure_node(ReduceTask(agent.text, str, agent))
        self._add_trees(cost, node, self._column_tokens(column))
        return cost

    def _add_trees(self, cost: Cost, node: _Node, line_tokens: float) -> None:
        """Add a tree per group: one that begins once all findings are there."""
        for units in _group_sizes(self.spec, self.units):
            lines = math.ceil(units * self._lines_per_unit)
            _add_tree(cost, node, self.spec.plan, lines, line_tokens)

    def _line_tokens(self) -> float:
        """Count the line of a finding as a reducer reads it; of a row if nothing is mapped."""
        if self.measurement is not None:
            return self.measurement.line_tokens
        if not self.spec.job.maps:
            return float(self.units.tokens.mean())
        return sum(map(self.spec.counter("reduce"), map(json.dumps, self._typical_findings())))

    def _column_tokens(self, column: Any) -> float:
        """Count the line of a finding of which an agent reads one column."""
        count, units = self.spec.counter("reduce"), self.units
        if not self.spec.job.maps:
            place = list(units.frame.columns).index(column)
            places = spread_places(len(units.asked), min(COUNTED_LINES, len(units.asked)))
            lines = units.with_columns((place,)).lines(units.asked[places])
            return sum(map(count, lines)) / len(lines)
        for finding in self._typical_findings():
            if column in finding and self.measurement is None:
                return count(json.dumps({column: finding[column]}))
        return self._line_tokens()

    def _typical_findings(self) -> list[dict[str, Any]]:
        """Make a typical finding of each map."""
        findings: list[dict[str, Any]] = []
        for name, kind in finding_types(self.spec.job, self.spec.plan).items():
            if kind is None or name in self.spec.job.callables:
                findings.append({str(name): TYPICAL_TEXT})
            else:
                findings.append(typical_finding(kind))
        return findings

    def _measure_node(self, task: ReduceTask) -> _Node:
        """Count what a node of a task's tree takes beside its findings."""
        spec = self.spec
        agent = make_reduce_agent(spec, self.services, self.state, task)
        answer_tokens: float = _answer_tokens(task, agent.count)
        if self.measurement is not None and self.measurement.reduction_tokens:
            answer_tokens = self.measurement.reduction_tokens
        line = '{"a": 1}'
        numbered = prompts.numbered("finding", 100, line) + "\n"
        return _Node(
            prompt_tokens=_opening_tokens(spec, task, agent, ()),
            number_tokens=agent.count(numbered) - agent.count(line),
            answer_tokens=answer_tokens,
            budget=reduce_budget(spec, task)[0],
        )


def _depends_on_findings(spec: Spec, *, has_leaves: bool) -> bool:
    """Tell whether what is found decides how many calls there are.

    It does if only rows that meet a condition are reduced, if groups are of a found field, and if
    a unit holds none or many findings; but a static tree has a leaf per shard in any case.
    """
    plan, job = spec.plan, spec.job
    if plan.where is not None or _has_found_groups(spec):
        return True
    kinds = finding_types(job, plan).values()
    has_lists = any(kind is not None and kind.item is not None for kind in kinds)
    return has_lists and not has_leaves


def _has_found_groups(spec: Spec) -> bool:
    """Tell whether the groups are of a field that is still to be found."""
    job = spec.job
    if job.by is None:
        return False
    return bool(find_missing_keys(job.by, all_labels(job.frame), job.frame.index))


def _group_sizes(spec: Spec, units: Units) -> list[int]:
    """Count the units of each group; one of all units without groups that are known."""
    job = spec.job
    if job.by is None or _has_found_groups(spec):
        return [len(units.asked)]
    _, groups = group_rows(job.frame, job.by)
    return [len(rows) for rows in groups if rows]


def _opening_tokens(spec: Spec, task: ReduceTask, agent: ReduceAgent, lines: Sequence[str]) -> int:
    """Count the first messages to a reduce agent that reads these lines."""
    has_tools = takes_turns(spec, Cost("reduce", task.agent))
    prompt = replace(agent.prompt, has_tools=has_tools)
    messages = prompt.messages(lines, final=True)
    return sum(agent.count(message.content or "") for message in messages)


def _answer_tokens(task: ReduceTask, count: TokenCounter) -> int:
    """Count a reduction: typical values of its schema; some notes if it is text."""
    if task.output is str:
        return NOTES_TOKENS
    output = typical_value(json_schema(task.output))
    return count(json.dumps({"output": output, "sources": [1, 2, 3]}))


def _add_tree(cost: Cost, node: _Node, plan: Plan, lines: int, line_tokens: float) -> None:
    """Add a tree over so many lines."""
    if plan.fan_in is None:
        _add_adaptive_tree(cost, node, lines, line_tokens, plan.max_reduce_levels or MAX_LEVELS)
        return
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    size = max(1, min(plan.shard_size, int(plan.shard_tokens // max(1.0, line_tokens))))
    sent_tokens = line_tokens + node.number_tokens
    leaves = [min(size, lines - start) * sent_tokens for start in range(0, lines, size)]
    _add_static_tree(cost, node, leaves, plan.fan_in)


def _add_static_tree(
    cost: Cost, node: _Node, leaves: Sequence[float], fan_in: int
) -> tuple[int, ...]:
    """Add a static tree over leaves of so many tokens each.

    Returns:
        The nodes of each level.
    """
    shape = static_sizes(len(leaves), fan_in)
    answer_line = node.answer_tokens + node.number_tokens
    level = list(leaves)
    for width in shape[1:-1]:
        above: list[float] = []
        for number in range(width):
            group = level[number * fan_in : (number + 1) * fan_in]
            if len(group) == 1:  # is passed on without a call
                above += group
                continue
            cost.add(0, sum(group) + node.prompt_tokens, node.answer_tokens)
            above.append(answer_line)
        level = above
    cost.add(reduce_calls(shape, fan_in), sum(level) + node.prompt_tokens, node.answer_tokens)
    return tuple(shape)


def _add_adaptive_tree(
    cost: Cost, node: _Node, lines: int, line_tokens: float, most_levels: int
) -> None:
    """Add an adaptive tree: levels of as many lines per node as the budget holds."""
    for _ in range(most_levels):
        reserved = line_tokens + NUMBER_TOKENS
        per_node = int(node.budget // reserved)
        if lines * reserved <= node.budget or per_node < 2:
            break
        nodes = math.ceil(lines / per_node)
        sent = lines * (line_tokens + node.number_tokens)
        cost.add(nodes, sent + nodes * node.prompt_tokens, nodes * node.answer_tokens)
        cost.about = True
        lines, line_tokens = nodes, node.answer_tokens
    sent = min(lines * (line_tokens + node.number_tokens), node.budget)
    cost.add(1, sent + node.prompt_tokens, node.answer_tokens)
