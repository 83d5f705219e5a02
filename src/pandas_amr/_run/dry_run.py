"""A dry run: the stages of a run with a model that counts, and without the user's functions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.agent import Agent
from pandas_amr._context.services import Services
from pandas_amr._context.state import State
from pandas_amr._findings.merge import choose_merge_rules
from pandas_amr._findings.output import ReductionType
from pandas_amr._map.stage import MapStage
from pandas_amr._plan.aggregations import column_of, function_of
from pandas_amr._plan.call import Pipeline, finding_types, may_ask_model
from pandas_amr._plan.compute import all_labels
from pandas_amr._reduce.direct import answer_directly
from pandas_amr._reduce.packing import static_sizes
from pandas_amr._reduce.stage import reduce
from pandas_amr._reduce.task import ReduceTask, answer_task
from pandas_amr._reduce.trees import begin_tree
from pandas_amr._run.cost import Cost, takes_turns
from pandas_amr._run.counting_model import (
    CountingModel,
    CountingRepl,
    RecordingModel,
    schema_key,
)
from pandas_amr._run.part import Extent, find_long, has_found_groups
from pandas_amr._run.scale import TreeBounds, scale_groups, scale_map, scale_tree
from pandas_amr._run.shape import DryReduce
from pandas_amr._run.typical import TYPICAL_TEXT, typical_value, unbounded
from pandas_amr._types.schema import json_schema
from pandas_amr._units.by import find_missing_keys
from pandas_amr._units.redaction import KnownRedaction
from pandas_amr.models.structured.support import schema_support_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from pandas_amr._context.spec import Spec
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._map.cut import Sample
    from pandas_amr._map.stage import MapNode
    from pandas_amr._plan.call import Job
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.events import NodeType
    from pandas_amr._records.trace import Node
    from pandas_amr._records.usage import Phase
    from pandas_amr._reduce.static_tree import StaticTree
    from pandas_amr._run.part import Part
    from pandas_amr._run.sample import Measurement
    from pandas_amr._units.shards import Shard
    from pandas_amr.models.base import LM, CodeUse, Model, Request

KINDS_OF_TEXT = 10_000  # of typical findings


class DryRun:
    """The stages of a run, with a model that counts: no request is sent, and no journal written.

    Args:
        part: what is run, of what the run is asked for.
        services: those of the run itself.
        measurement: what a sample took, if one was mapped.
        findings: what is found already. A part is mapped without it.
        requests: takes the requests, which are then shown and not answered.
    """

    def __init__(
        self,
        part: Part,
        services: Services,
        measurement: Measurement | None = None,
        findings: MapFindings | None = None,
        requests: list[tuple[LM, Request]] | None = None,
    ) -> None:
        self._part = part
        self._measurement = measurement
        self._tree: StaticTree | None = None
        self._mapped: Sequence[Shard] = ()
        self.spec = make_dry_spec(part.spec, is_sampled=measurement is not None)
        if requests is not None:
            self.spec = _with_true_requests(self.spec, part.spec)
        self._has_findings = findings is not None
        self.reduced: list[DryReduce] = []
        self.state = State()
        if findings is not None and part.is_whole:
            self.state.findings = findings.copy()
        reduction_tokens = None
        if measurement is not None:
            reduction_tokens = measurement.reduction_tokens
        self.services = DryServices(
            services.make_ask,
            self.state.warnings.append,
            services.frame,
            wired=services.wired,
            prefix=services.prefix,
            requests=requests,
            answers_by_schema=_typical_answers(self.spec, measurement),
            reduction_tokens=reduction_tokens,
        )

    async def answer_directly(self) -> bool:
        """Have one agent answer from the whole content; tell whether one can."""
        units = self._part.units
        outcome = await answer_directly(self.spec, self.services, self.state, units)
        if outcome is None:
            return False
        nodes = self.services.trace.nodes
        self.reduced.append(DryReduce("", nodes, calls=1, about=False))
        return True

    async def map(self, sample: Sample | None = None) -> MapStage:
        """Map what is not found yet; a static tree takes findings as they land."""
        part = self._part
        sample = sample or part.sample
        spec, services, state = self.spec, self.services, self.state
        begin = partial(MapStage, spec, services, state, part.units, state.findings, sample=sample)
        stage = await services.run_large(spec, begin)
        state.findings = stage.findings
        state.made_by = stage.made_by
        self._mapped = stage.open_shards
        if part.spec.reduces_as_findings_land and stage.leaves and sample is None:
            self._tree = begin_tree(spec, services, state, stage.leaves)
        await stage.run(self._tree)
        return stage

    @property
    def tree(self) -> tuple[int, ...]:
        """Nodes per level of a static tree over the run's shards; empty for any other."""
        spec = self._part.spec
        leaves = len(self._part.leaves)
        if not spec.job.maps or not spec.reduces_as_findings_land or self._has_findings:
            return ()
        if not leaves:
            return ()
        assert spec.plan.fan_in is not None
        return tuple(static_sizes(leaves, spec.plan.fan_in))

    async def reduce(self) -> list[Cost]:
        """Have agents reduce what is found; return what they take."""
        job = self.spec.job
        agents: dict[Any, Any] = dict(job.computed or {})
        if self._part.spec.is_written:
            agents = {None: job.reduce_agent}
        if not agents:
            return []
        services, state, units = self.services, self.state, self._part.units
        nodes = services.trace.nodes
        rows = state.finding_rows(job)
        costs: list[Cost] = []
        first = 0  # of the nodes of a reduce
        for name, how in agents.items():
            spec = self.spec
            if name is not None:
                spec = replace(spec, job=replace(job, computed={name: how}))
            await reduce(spec, services, state, units, rows, tree=self._tree)
            cost = self.reduce_cost(function_of(how), first)
            costs.append(cost)
            self.reduced.append(self._describe_reduce(name, nodes[first:], cost))
            first = len(nodes)
        return costs

    def _describe_reduce(self, name: object, nodes: Sequence[Node], cost: Cost) -> DryReduce:
        """Describe the nodes of a reduce, for the graph before the run."""
        of_reduce = [node for node in nodes if node.type != "map"]
        types = {node.type for node in of_reduce}
        about = self._depends_on_findings(types)
        prefix = "" if name is None else f"{name}-"
        return DryReduce(prefix, of_reduce, cost.calls, about)

    def map_costs(self, stage: MapStage) -> list[Cost]:
        """Add up what each map took."""
        spec = self._part.spec
        nodes: dict[str | None, list[MapNode]] = {}
        for node in stage.model_nodes():
            _, name, _ = node
            nodes.setdefault(name, []).append(node)
        costs: list[Cost] = []
        for name, of_map in nodes.items():
            agent = spec.job.map_agents.get(name)
            cost = self._map_cost(agent, of_map)
            is_merged = self._part.extent.long > 0 and _merges_by_agent(spec, name)
            cost.about |= is_merged or takes_turns(spec, cost)
            if self._measurement is not None:
                cost.input_tokens *= self._measurement.input_ratio
                cost.output_tokens *= self._measurement.output_ratio
            costs.append(cost)
        return costs

    def _map_cost(self, agent: Agent | None, nodes: Sequence[MapNode]) -> Cost:
        """Add up what one map takes of the whole."""
        part = self._part
        long_units = find_long(part.spec, part.units, self._mapped)
        short = Cost("map", agent)
        long = Cost("map", agent)
        for shard, _, node in nodes:
            is_short = long_units.isdisjoint(shard.positions)
            cost = short if is_short else long
            cost.add_usage(node.usage)
        if not part.is_whole:
            drawn = Extent.of(part.spec, part.units, self._mapped)
            scale_map(short, long, drawn=drawn, whole=part.extent)
            short.about = drawn.long != part.extent.long
            short.about |= self._has_findings and len(part.spec.job.names) > 1
        short.add(long.calls, long.input_tokens, long.output_tokens)
        return short

    def reduce_cost(self, agent: Agent | None, first: int = 0) -> Cost:
        """Add up what the nodes of a reduce took, from the ``first`` on, for the whole."""
        spec = self._part.spec
        nodes = [node for node in self.services.trace.nodes[first:] if node.type != "map"]
        types = {node.type for node in nodes}
        cost = self._scale_nodes(nodes, agent)
        cost.agent = agent
        cost.about |= self._has_findings or bool(self.state.failures)
        cost.about |= takes_turns(spec, cost) or self._depends_on_findings(types)
        return cost

    def _scale_nodes(self, nodes: Sequence[Node], agent: Agent | None) -> Cost:
        part, spec = self._part, self.spec
        if part.is_whole or part.spec.reduce_kind == "chosen_number":
            cost = Cost("reduce")
            for node in nodes:
                cost.add_usage(node.usage)
            return cost
        task = answer_task(spec)
        if agent is not None and not spec.is_written:
            task = ReduceTask(agent.text, str, agent)
        bounds = TreeBounds.of(spec, self.services, self.state, task)
        if part.groups:
            return scale_groups(nodes, part, bounds)
        drawn = len(part.units.with_content().asked)
        leaves = part.leaves if self._tree is not None else None
        whole = round(drawn * part.scale)
        return scale_tree(nodes, bounds, drawn=drawn, whole=whole, leaves=leaves)

    def _depends_on_findings(self, types: set[NodeType]) -> bool:
        """Tell whether what is found decides how many calls a reduce of such nodes takes.

        It does if only rows that meet a condition are reduced, if groups are of a found field, if
        the answer is a number that may be computed, if a tree is by tokens, and if a unit holds
        none or many findings; but a static tree has a leaf per shard in any case.
        """
        spec = self._part.spec
        if "direct" in types:
            return False
        if spec.plan.where is not None or spec.reduce_kind == "chosen_number":
            return True
        is_tree_by_tokens = spec.plan.fan_in is None and "reduce" in types
        if is_tree_by_tokens or has_found_groups(spec):
            return True
        if self.tree:
            return False
        for kind in finding_types(spec.job, spec.plan).values():
            if kind is not None and kind.item is not None:
                return True
        return False


def _merges_by_agent(spec: Spec, name: str | None) -> bool:
    """Tell whether an agent merges the findings of a long unit's pieces."""
    kind = finding_types(spec.job, spec.plan)[name]
    if kind is None or spec.abilities("map").units_per_request == 1:
        return False
    rules = choose_merge_rules(kind.model, spec.plan.merge or {})
    return "agent" in rules.values()


def make_dry_spec(spec: Spec, *, is_sampled: bool) -> Spec:
    """Return what is run dry: without the user's functions, and with types of typical values."""
    job, plan = spec.job, spec.plan
    finding: Any = plan.finding
    if isinstance(finding, dict):
        finding = {name: unbounded(kind) for name, kind in finding.items()}
    else:
        finding = unbounded(finding)
    job = replace(
        job,
        callables=_typical_functions(job, plan),
        computed=None if job.computed is None else _find_written_columns(job.computed),
        reducer=None,
        reduce_agent=_with_text(job.reduce_agent),
        redaction=None if job.redaction is None else KnownRedaction(job.redaction),
    )
    changes = {
        "finding": finding,
        "output": unbounded(plan.output),
        "where": plan.where if is_sampled else None,
        "give_up_after": None,
    }
    plan = plan.model_copy(update=changes)
    settings = spec.settings.with_changes({"progress": False, "errors": "coerce"})
    return replace(spec, job=job, plan=plan, settings=settings)


def _with_true_requests(dry: Spec, spec: Spec) -> Spec:
    """Return what is run dry for its requests: shown with all bounds, one after the other."""
    plan = spec.plan.model_copy(update={"parallelism": 1, "give_up_after": None})
    job = replace(dry.job, reduce_agent=spec.job.reduce_agent)
    return replace(dry, plan=plan, job=job)


def _typical_functions(job: Job, plan: Plan) -> dict[str | None, Any]:
    """Return what stands for each function that maps.

    Of one without a type it finds what the reduce reads and the frame has not.
    """
    computed = job.computed or {}
    wanted = [column_of(name, how) for name, how in computed.items()]
    if job.by is not None:
        wanted += find_missing_keys(job.by, all_labels(job.frame), job.frame.index)
    columns = [label for label in wanted if label not in job.frame.columns]
    untyped = dict.fromkeys(columns or ["finding"], TYPICAL_TEXT)
    kinds = finding_types(job, plan)
    functions: dict[str | None, Any] = {}
    for name, function in job.callables.items():
        kind = kinds[name]
        record = untyped if kind is None else typical_value(kind.schema)
        if may_ask_model(function):
            functions[name] = _TypicalRecipe(record)
        else:
            functions[name] = _TypicalFunction(record)
    return functions


def _find_written_columns(computed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that agents write; what pandas computes takes no call."""
    written: dict[str, Any] = {}
    for name, how in computed.items():
        agent = function_of(how)
        if isinstance(agent, Agent):
            written[name] = (column_of(name, how), _with_text(agent))
    return written


def _with_text(agent: Agent | None) -> Agent | None:
    """Return a reduce agent that is asked a text in place of what a function says of findings."""
    if agent is None or isinstance(agent.instruction, str):
        return agent
    return replace(agent, instruction=TYPICAL_TEXT)


@dataclass(frozen=True)
class _TypicalFunction:
    """Stands for a function of the user's: gives each row the same finding."""

    record: dict[str, Any]

    def __call__(self, rows: pd.DataFrame) -> list[dict[str, Any]]:
        return [self.record] * len(rows)


@dataclass(frozen=True)
class _TypicalRecipe(Pipeline):
    """Stands for a recipe of the user's that asks a model: it does not read empty units."""

    record: dict[str, Any]
    lm = None
    needs_model = True

    async def map_row(self, frame: pd.DataFrame, position: int) -> dict[str, Any]:
        del frame, position
        return self.record

    async def reduce_findings(self, findings: pd.DataFrame) -> None:
        """Return nothing: a dry run has no recipe that reduces."""

    def check_planning(self, lms: Mapping[Phase, LM], settings: Any) -> None:
        """Refuse nothing: nothing is planned."""


@dataclass
class DryServices(Services):
    """Services whose models count or record, and whose REPLs run no code; without a journal."""

    requests: list[tuple[LM, Request]] | None = None
    answers_by_schema: Mapping[str, Iterator[Any]] = field(default_factory=dict)
    reduction_tokens: float | None = None

    def model(self, spec: Spec, phase: Phase, agent: Agent | None = None) -> Model:
        """Return a model that counts as the phase's does, or one that records."""
        if self.requests is None:
            count = spec.counter(phase, agent)
            return CountingModel(count, self.answers_by_schema, self.reduction_tokens)
        assert self.wired is not None
        lm = spec.lm(phase, agent)
        url = self.wired.bare[lm].address[0]
        support = schema_support_of(url, lm.model)
        return RecordingModel(lm, support.writes_code, self.requests)

    def sessions(self, spec: Spec, phase: Phase, agent: Agent | None = None) -> Any:
        """Return where agents get REPLs that run no code; None if they have none."""
        sessions = super().sessions(spec, phase, agent)
        if sessions is None or self.requests is not None:
            return sessions
        return _DrySessions(spec, sessions.code)


@dataclass(frozen=True)
class _DrySessions:
    """Gives agents REPLs in which any code hands in typical values."""

    spec: Spec
    code: CodeUse

    async def changed(self) -> tuple[str, ...]:
        return ()

    def of_shard(self, positions: Sequence[int]) -> CountingRepl:
        finding: dict[str, Any] = {}
        for kind in finding_types(self.spec.job, self.spec.plan).values():
            if kind is not None:
                finding |= typical_value(kind.schema)
        units = range(len(positions))
        findings = [{**finding, "unit": unit} for unit in units]
        return CountingRepl({"findings": findings}, self.code)

    def of_findings(self, lines: Sequence[str]) -> CountingRepl:
        del lines
        output = typical_value(json_schema(self.spec.plan.output or str))
        return CountingRepl({"output": output}, self.code)


def _typical_answers(spec: Spec, measurement: Measurement | None) -> dict[str, Iterator[Any]]:
    """Make typical findings of each map, or those of a sample; and typical values of the output."""
    answers: dict[str, Iterator[Any]] = {}
    for name, kind in finding_types(spec.job, spec.plan).items():
        if kind is None:
            continue
        submission = kind.submission(alone=True)
        key = schema_key(submission.wire.schema)
        records = None if measurement is None else measurement.findings.get(name)
        answers[key] = itertools.cycle(records) if records else _vary(kind.schema)
    output = spec.plan.output
    if output is not None:
        submission = ReductionType(output).submission()
        key = schema_key(submission.wire.schema["properties"]["output"])
        answers[key] = _vary(json_schema(output))
    return answers


def _vary(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Make values that differ in their texts: an agent merges those of a long unit's pieces."""
    beginning = TYPICAL_TEXT[:-4]
    for number in itertools.cycle(range(KINDS_OF_TEXT)):
        text = f"{beginning}{number:04d}"
        yield typical_value(schema, text)
