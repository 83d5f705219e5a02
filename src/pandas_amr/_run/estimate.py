"""What a plan would take: prompts counted, answers reckoned from the schema, or both scaled up from a sample."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._agent import prompts
from pandas_amr._context.prices import price_of
from pandas_amr._findings.merge import rules_of
from pandas_amr._findings.output import ReductionType
from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.cached import uncached
from pandas_amr._map.cut import Sample, cut_shards, make_context
from pandas_amr._map.mappers import make_mappers
from pandas_amr._plan.call import finding_types
from pandas_amr._plan.compute import all_labels, groups_of
from pandas_amr._records.estimate import Estimate
from pandas_amr._records.usage import Usage
from pandas_amr._reduce.direct import make_direct_answer
from pandas_amr._reduce.number import CHOICE_SAMPLE
from pandas_amr._reduce.packing import reduce_calls, static_sizes
from pandas_amr._reduce.task import ReduceTask, answer_task, reduce_budget
from pandas_amr._reduce.trees import MAX_LEVELS
from pandas_amr._reduce.truncate import NUMBER_TOKENS
from pandas_amr._types.schema import json_schema
from pandas_amr._units.by import missing_keys
from pandas_amr._units.cells import line_of
from pandas_amr._units.split import pieces_of
from pandas_amr.models.throttle.model import throttle_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._records.usage import Phase
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units
    from pandas_amr.models.base import LM

RENDERED = 50  # shards whose prompts are counted; the rest is reckoned from them
CUT_TOKENS = (
    500_000  # of units larger than a shard that are cut into pieces to count them: a second or two
)
TYPICAL_TEXT = "a sentence of about a dozen words, as a model would write it here"
TYPICAL_ITEMS = 2
COMPACT = (",", ":")  # separators of the JSON that models are asked for
WRAPPER = '{"findings": []}'
NOTES_TOKENS = 150  # of what a reduce agent writes, where no sample says
BLOCKS = 10  # of a sample: so many shards say how much they differ
LEAST_BLOCKS = 2
QUANTILE = {
    1: 12.71,
    2: 4.30,
    3: 3.18,
    4: 2.78,
    5: 2.57,
    6: 2.45,
    7: 2.36,
    8: 2.31,
    9: 2.26,
}  # Student's t, 95 %
QUANTILE_OF_MANY = 2.0


@dataclass(frozen=True)
class Measured:
    """What a sample told.

    Attributes:
        units: how many were mapped.
        input_ratio: input tokens by the provider's count, to those that were counted here.
        output_tokens: of the answer to one unit.
        finding_tokens: of one finding, as a reducer reads it.
        findings: how many there are of one unit for the reduce: many where units hold many, few where few count.
        reduction_tokens: of what a reduce agent writes; None where none wrote.
        latency_s: of one request.
        spread: the half of the interval that holds the tokens of a unit, as a share of them.
        inside: what the pipelines took that rows went through; None where there is none, or the journal had some of it.
    """

    units: int
    input_ratio: float
    output_tokens: float
    finding_tokens: float
    findings: float
    reduction_tokens: float | None
    latency_s: float
    spread: float
    inside: Usage | None = None


@dataclass
class Spent:
    """Calls and tokens of the agents of a phase, added up.

    Attributes:
        agent: who they are, where more than an instruction is said.
        money: what they cost, where a sample told; else it follows from the model's prices.
        about: how many calls it takes depends on what is found.
    """

    phase: Phase
    agent: Agent | None = None
    calls: int = 0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    money: float | None = None
    about: bool = False

    @property
    def tokens(self) -> float:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


def shards_of(spec: Spec, units: Units) -> list[Shard]:
    """The shards of a map."""
    context = make_context(spec, units)
    return cut_shards(spec, units, context.groups(units.asked) if context is not None else None)


def sample_of(spec: Spec, units: Units, wanted: int, *, seed: int = 0) -> Sample:
    """Units from all over the frame, in blocks; whole shards where findings depend on their neighbours."""
    if spec.plan.keyed == "shard":
        shards = shards_of(spec, units)
        count = min(
            len(shards), max(LEAST_BLOCKS, -(-wanted * len(shards) // max(1, len(units.asked))))
        )
        chosen = [shards[place].positions for place in _spread(len(shards), count, seed)]
    else:
        places = _spread(len(units.asked), min(wanted, len(units.asked)), seed)
        size = min(spec.plan.shard_size or 1, max(1, math.ceil(len(places) / BLOCKS)))
        asked = units.asked[places].tolist()
        chosen = [tuple(asked[start : start + size]) for start in range(0, len(asked), size)]
    blocks = [number for number, part in enumerate(chosen) for _ in part]
    return Sample(
        np.array([p for part in chosen for p in part], dtype=np.int64),
        np.array(blocks, dtype=np.int64),
    )


def _spread(count: int, wanted: int, seed: int = 0) -> list[int]:
    """So many places out of ``count``, drawn one from each equal part: the same ones each time."""
    if not wanted:
        return []
    rng = np.random.default_rng(seed)
    edges = np.linspace(0, count, wanted + 1).astype(int)
    return [int(rng.integers(low, high)) for low, high in itertools.pairwise(edges) if high > low]


def forecast(
    spec: Spec,
    services: Services,
    state: State,
    units: Units,
    measured: Measured | None = None,
    *,
    open_: NDArray[np.int64] | None = None,
) -> Estimate:
    """The estimate of a plan: with what a sample told, where there was one; of the units that are ``open_``, or all.

    What is reduced are all of them, also where the journal has some.
    """
    every = units
    if open_ is not None:
        units = units.only(np.isin(units.asked, open_))
    by_one = answered_alone(spec, services, state, every)
    shards = [] if by_one else shards_of(spec, units)
    sizes = tuple(len(shard.positions) for shard in shards)
    mapping = _mapping(spec, services, units, shards, measured)
    again = len(units.asked) < len(every.asked)
    reducing, tree = (
        ([by_one], ()) if by_one else _reducing(spec, every, shards, measured, again=again)
    )
    parts = [*mapping, *reducing]
    spent_in, spent_out = (
        sum(part.input_tokens for part in parts),
        sum(part.output_tokens for part in parts),
    )
    calls = sum(part.calls for part in parts)
    money = _money(spec, parts) if calls else 0.0
    uncertain = sum(part.output_tokens for part in parts if part.phase == "map")
    uncertain += sum(part.tokens for part in reducing)
    uncertain += sum(part.input_tokens for part in mapping if part.money is not None)
    half = measured.spread * uncertain if measured is not None else 0.0
    share = half / (spent_in + spent_out) if spent_in + spent_out else 0.0
    known = not _hidden(spec, units, measured)
    between = measured is not None and known
    return Estimate(
        units=len(units),
        asked=len(units.asked),
        shards=len(shards),
        calls=calls if known else None,
        input_tokens=round(spent_in) if known else None,
        output_tokens=round(spent_out) if known else None,
        money=money if known else None,
        seconds=_seconds(spec, services, parts, measured) if known else None,
        tree=tree,
        sizes=sizes,
        maps=spec.job.names,
        sampled=measured.units if measured else 0,
        tokens_between=(
            math.floor(spent_in + spent_out - half),
            math.ceil(spent_in + spent_out + half),
        )
        if between
        else None,
        money_between=(money * (1 - share), money * (1 + share))
        if between and money is not None
        else None,
        about=any(part.about for part in parts),
    )


def answered_alone(spec: Spec, services: Services, state: State, units: Units) -> Spent | None:
    """What one agent takes that answers from the whole content; None where the plan has none, or it does not fit."""
    answering = make_direct_answer(spec, services, state, units) if spec.lms else None
    if answering is None:
        return None
    task = answering.task
    held = answering.agent.count(prompts.finding_lines([one.line for one in answering.inputs]))
    taken = Spent("reduce", task.agent, 1, _system(spec, task) + held, _written_tokens(spec, task))
    taken.about = _has_tools(spec, taken)
    return taken


def _hidden(spec: Spec, units: Units, measured: Measured | None) -> bool:
    """Whether a pipeline of agents maps or reduces, of which nobody knows what it takes before it runs."""
    job = spec.job
    mapped = (
        any(getattr(one, "needs_model", False) for one in job.callables.values())
        and len(units.asked) > 0
    )
    reduced = job.reduces and getattr(job.reducer, "needs_model", False)
    return bool(reduced) or (mapped and (measured is None or measured.inside is None))


def _mapping(
    spec: Spec, services: Services, units: Units, shards: Sequence[Shard], measured: Measured | None
) -> list[Spent]:
    """What each map takes."""
    parts: list[Spent] = []
    if not spec.job.maps or not spec.lms or not shards:
        return parts
    for mapper in make_mappers(spec, services, units, make_context(spec, units)):
        agent = uncached(mapper)
        if isinstance(agent, AgentMapper):
            parts.append(_mapped(spec, units, shards, agent, measured))
    if measured is not None and measured.inside is not None:
        scale, inside = len(units.asked) / measured.units, measured.inside
        money = None if inside.money is None else inside.money * scale
        sizes = (
            round(inside.calls * scale),
            inside.input_tokens * scale,
            inside.output_tokens * scale,
        )
        parts.append(Spent("map", None, *sizes, money=money, about=True))
    return parts


def _mapped(
    spec: Spec, units: Units, shards: Sequence[Shard], agent: AgentMapper, measured: Measured | None
) -> Spent:
    """What one map takes: a request a shard, and of a unit that is larger than a shard one a piece."""
    spent = Spent("map", spec.job.map_agents.get(agent.name))
    long = [shard for shard in shards if in_pieces(agent, shard)]
    pieces, exact = _pieces(agent, long)
    requests = len(shards) - len(long) + pieces
    merges = len(long) if _merged_by_agent(agent) else 0
    spent.calls = requests + merges
    spent.about = not exact or merges > 0 or _has_tools(spec, spent)
    rendered = [shards[place] for place in _spread(len(shards), min(RENDERED, len(shards)))]
    coded = spec.plan.view == "preview"
    told = 0 if coded else sum(units.size(p) for shard in rendered for p in shard.positions)
    beside = sum(prompt_tokens(agent, shard) for shard in rendered) - told
    held = 0 if coded else int(units.tokens.sum())
    count = agent.count
    flat = all(agent.prompt.is_flat(one_unit=len(shard.positions) == 1) for shard in shards)
    wrapper = 0 if flat else count(WRAPPER)
    typical = typical_record(agent.kind) if flat else {"unit": 10, **typical_record(agent.kind)}
    one = measured.output_tokens if measured else count(json.dumps(typical, separators=COMPACT))
    ratio = measured.input_ratio if measured else 1.0
    spent.input_tokens = ratio * (
        held + beside * (requests + merges) / len(rendered)
    ) + one * pieces * (merges > 0)
    if coded and measured is None:  # one cell of code, however many units
        answered = len(shards) * float(NOTES_TOKENS)
    else:
        answered = (
            len(units.asked) if measured else len(units.asked) - len(long) + pieces + merges
        ) * one
    spent.output_tokens = requests * wrapper + answered
    return spent


def _has_tools(spec: Spec, spent: Spent) -> bool:
    """Whether agents take as many turns as they like."""
    return bool(spec.tools(spent.phase, spent.agent)) or spec.has_repl(spent.phase, spent.agent)


def in_pieces(agent: AgentMapper, shard: Shard) -> bool:
    """Whether the shard is one unit, larger than a shard, that an agent reads piece by piece."""
    return len(shard.positions) == 1 and agent.units.size(shard.positions[0]) > agent.max_tokens


def pieces_in(agent: AgentMapper, shard: Shard) -> list[str]:
    """The pieces of such a unit."""
    record = agent.units.record(shard.positions[0])
    return pieces_of(record, limit=agent.max_tokens, count=agent.count, line_of=line_of)


def _pieces(agent: AgentMapper, long: Sequence[Shard]) -> tuple[int, bool]:
    """How many pieces such units have in all, and whether all were cut to know: else it is reckoned from some."""
    sizes = [agent.units.size(shard.positions[0]) for shard in long]
    most = max(1, CUT_TOKENS * len(long) // max(1, sum(sizes)))
    places = _spread(len(long), min(len(long), most))
    cut_tokens = sum(sizes[place] for place in places)
    pieces = sum(len(pieces_in(agent, long[place])) for place in places)
    return round(pieces * sum(sizes) / max(1, cut_tokens)), len(places) == len(long)


def _merged_by_agent(agent: AgentMapper) -> bool:
    """Whether one more request makes one finding of those of the pieces."""
    return (
        not agent.prompt.is_single
        and "agent" in rules_of(agent.kind.model, agent.merge_rules).values()
    )


def counted_tokens(agent: AgentMapper, shard: Shard) -> int:
    """The tokens of all messages that open an agent's work on a shard, piece by piece where it is read so."""
    whole = prompt_tokens(agent, shard)
    if not in_pieces(agent, shard):
        return whole
    return whole + (len(pieces_in(agent, shard)) - 1) * (
        whole - agent.units.size(shard.positions[0])
    )


def prompt_tokens(agent: AgentMapper, shard: Shard) -> int:
    """The tokens of the messages that open an agent's work."""
    positions = agent.prompt.askable(shard.positions)
    return (
        sum(
            agent.count(message.content or "")
            for message in agent.prompt.messages(positions, one_unit=len(positions) == 1)
        )
        if positions
        else 0
    )


def typical_record(kind: FindingType) -> dict[str, Any]:
    """A finding as a model would hand it in."""
    return {name: _typical(schema) for name, schema in kind.schema["properties"].items()}


def _typical(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return sorted(schema["enum"], key=lambda one: len(str(one)))[len(schema["enum"]) // 2]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _typical(schema["anyOf"][0])
    plain = {"integer": 12, "number": 12.5, "boolean": False, "null": None}
    match schema.get("type"):
        case "array":
            return [_typical(schema.get("items", {}))] * TYPICAL_ITEMS
        case "object":
            return {name: _typical(part) for name, part in schema.get("properties", {}).items()}
        case "string":
            return "2026-01-31" if schema.get("format") == "date" else TYPICAL_TEXT
        case kind:
            return plain.get(str(kind), TYPICAL_TEXT)


def _reducing(
    spec: Spec, units: Units, shards: Sequence[Shard], measured: Measured | None, *, again: bool
) -> tuple[list[Spent], tuple[int, ...]]:
    """The reduce's calls and tokens, and the shape of its tree; ``again``: the journal has some of the findings."""
    plan, job = spec.plan, spec.job
    parts: list[Spent] = []
    shape: tuple[int, ...] = ()
    if not job.reduces or not spec.lms or not len(units.asked):
        return parts, shape
    one = _finding_tokens(spec, units, measured)
    each = measured.findings if measured else 1.0
    groups = _groups(spec, units) if job.by is not None else [len(units.asked)]
    if spec.is_written:
        task = answer_task(spec)
        spent = Spent("reduce", task.agent)
        if spec.reduce_kind == "chosen_number":
            spent.calls = 1
            spent.input_tokens = _system(spec, task) + min(CHOICE_SAMPLE, len(units.asked)) * one
            spent.output_tokens = NUMBER_TOKENS * 3
            spent.about = True  # what no column can answer is written, by more agents
        elif job.by is None and plan.fan_in is not None and not again:
            shown = (
                one - NUMBER_TOKENS + _number_tokens(spec)
            )  # no budget is kept to: what is sent, not what is reserved
            sizes = [len(shard.positions) * each * shown for shard in shards]
            shape = _tree(spec, task, sizes, spent, measured)
        else:
            for rows in groups:
                _tree(spec, task, _leaves(spec, rows * each, one), spent, measured)
        parts.append(spent)
    for agent in job.column_agents:
        spent = Spent("reduce", agent)
        for rows in groups:
            _tree(
                spec,
                ReduceTask(agent.text, str, agent),
                _leaves(spec, rows * each, one),
                spent,
                measured,
            )
        parts.append(spent)
    for spent in parts:
        spent.about |= again or _depends(spec, tree=bool(shape)) or _has_tools(spec, spent)
    return parts, shape


def _depends(spec: Spec, *, tree: bool) -> bool:
    """Whether what is found decides how much is reduced: some rows of all, groups of it, or none or many a unit."""
    plan, job = spec.plan, spec.job
    grouped = job.by is not None and bool(
        missing_keys(job.by, all_labels(job.frame), job.frame.index)
    )
    many = any(
        kind is not None and kind.item is not None for kind in finding_types(job, plan).values()
    )
    return plan.where is not None or grouped or (many and not tree)


def _leaves(spec: Spec, findings: float, one: float) -> list[float]:
    """What a tree begins with, in tokens: batches as large as a shard where it is static, else the findings."""
    plan, count = spec.plan, math.ceil(findings)
    if plan.fan_in is None:
        return [one] * count
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    size = max(1, min(plan.shard_size, int(plan.shard_tokens // max(1.0, one - NUMBER_TOKENS))))
    return [min(size, count - start) * one for start in range(0, count, size)]


def _finding_tokens(spec: Spec, units: Units, measured: Measured | None) -> float:
    """Of one finding, as a reducer reads it; where nothing is mapped, of one row."""
    if measured is not None:
        return measured.finding_tokens
    count = spec.counter("reduce")
    if not spec.job.maps:
        lines = units.lines(units.asked[_spread(len(units.asked), min(RENDERED, len(units.asked)))])
        return sum(map(count, lines)) / len(lines) + NUMBER_TOKENS
    kinds = finding_types(spec.job, spec.plan)
    found = [
        TYPICAL_TEXT
        if kind is None or name in spec.job.callables
        else json.dumps(typical_record(kind))
        for name, kind in kinds.items()
    ]
    return sum(map(count, found)) + NUMBER_TOKENS


def _number_tokens(spec: Spec) -> int:
    """What a finding's number and its line's end take in a prompt."""
    count = spec.counter("reduce")
    return count(prompts.numbered("finding", 100, '{"a": 1}') + "\n") - count('{"a": 1}')


def _system(spec: Spec, task: ReduceTask) -> int:
    output = ReductionType(task.output)
    strict = output.submission().response.strict
    words = prompts.reduce_system(
        task.instruction, final=True, output=output.schema, tools=False, enforced=strict
    )
    return spec.counter("reduce", task.agent)(words)


def _groups(spec: Spec, units: Units) -> list[int]:
    """How many rows each group has; one group of all where the groups are of what is still to be found."""
    assert spec.job.by is not None
    if missing_keys(spec.job.by, all_labels(spec.job.frame), spec.job.frame.index):
        return [len(units.asked)]
    _, groups = groups_of(spec.job.frame, spec.job.by)
    return [len(rows) for rows in groups if rows]


def _tree(
    spec: Spec, task: ReduceTask, sizes: list[float], spent: Spent, measured: Measured | None
) -> tuple[int, ...]:
    """Add what one tree takes; its leaves' tokens are ``sizes``: batches of a static tree, findings of another."""
    system = _system(spec, task)
    written = (
        measured.reduction_tokens
        if measured and measured.reduction_tokens
        else _written_tokens(spec, task)
    )
    fan_in = spec.plan.fan_in
    if fan_in is not None:
        shape = static_sizes(len(sizes), fan_in)
        calls = reduce_calls(shape, fan_in)
        level = list(sizes)
        for width in shape[1:-1]:
            parts = [level[number * fan_in : (number + 1) * fan_in] for number in range(width)]
            spent.input_tokens += sum(sum(part) + system for part in parts if len(part) > 1)
            spent.output_tokens += written * sum(len(part) > 1 for part in parts)
            level = [part[0] if len(part) == 1 else written + NUMBER_TOKENS for part in parts]
        spent.input_tokens += sum(level) + system
        spent.output_tokens += written
        spent.calls += calls
        return tuple(shape)
    budget = reduce_budget(spec, task)[0]
    many, size = len(sizes), sizes[0] if sizes else 0.0
    for _ in range(spec.plan.max_reduce_levels or MAX_LEVELS):
        together = int(budget // size) if size else many
        if many * size <= budget or together < LEAST_BLOCKS:
            break
        nodes = -(-many // together)
        spent.calls += nodes
        spent.input_tokens += many * size + nodes * system
        spent.output_tokens += nodes * written
        many, size = nodes, written + NUMBER_TOKENS
        spent.about = True
    spent.calls += 1
    spent.input_tokens += min(many * size, budget) + system
    spent.output_tokens += written
    return ()


def _written_tokens(spec: Spec, task: ReduceTask) -> int:
    """Of a reduction: from its schema where that says something, else of some notes."""
    if task.output is str:
        return NOTES_TOKENS
    return spec.counter("reduce")(
        json.dumps({"output": _typical(json_schema(task.output)), "sources": [1, 2, 3]})
    )


def _money(spec: Spec, parts: Sequence[Spent]) -> float | None:
    total = 0.0
    for spent in parts:
        if not spent.calls:
            continue
        lm = spec.lm(spent.phase, spent.agent)
        money = spent.money
        if money is None:
            tokens = Usage(
                input_tokens=round(spent.input_tokens), output_tokens=round(spent.output_tokens)
            )
            money = price_of(lm)(tokens)
            if money is None:
                return None
            half = lm.batch and spent.phase == "map" and not _has_tools(spec, spent)
            money = money / 2 if half else money
        total += money
    return total


def _seconds(
    spec: Spec, services: Services, parts: Sequence[Spent], measured: Measured | None
) -> float | None:
    """At the limits that are known, by the user or from headers, and at the latency of the sample; None without any."""
    by_model: dict[LM, Spent] = {}
    for spent in parts:
        if spent.calls:
            known = by_model.setdefault(spec.lm(spent.phase, spent.agent), Spent(spent.phase))
            known.calls += spent.calls
            known.input_tokens += spent.input_tokens
            known.output_tokens += spent.output_tokens
    times: list[float] = []
    for lm, spent in by_model.items():
        assert services.wired is not None
        throttle = throttle_for(lm, *services.wired.bare[lm].address)
        if throttle.requests is not None:
            times.append(spent.calls / throttle.requests.rate)
        if throttle.tokens is not None:
            times.append(spent.tokens / throttle.tokens.rate)
    if measured is not None and measured.latency_s:
        calls = sum(spent.calls for spent in parts)
        times.append(measured.latency_s * math.ceil(calls / services.parallelism(spec)))
    return max(times) if times else None


def interval(per_unit: Sequence[float], weights: Sequence[int], *, of: int) -> float:
    """Half of the interval that holds the mean in 19 of 20 samples, as a share of the mean; 0 where all was sampled.

    Student's t over the sample's blocks, with the correction for a finite population (Cochran 1977, chapter 2).
    """
    sampled = sum(weights)
    mean = (
        sum(one * weight for one, weight in zip(per_unit, weights, strict=True)) / sampled
        if sampled
        else 0.0
    )
    if len(per_unit) < LEAST_BLOCKS or not mean or sampled >= of:
        return 0.0 if sampled >= of else 1.0
    error = statistics.stdev(per_unit) / math.sqrt(len(per_unit)) * math.sqrt(1 - sampled / of)
    return QUANTILE.get(len(per_unit) - 1, QUANTILE_OF_MANY) * error / mean
