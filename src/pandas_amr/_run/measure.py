"""Map a sample of units and reduce what was found, to see what that takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._map.stage import MapStage
from pandas_amr._plan.call import finding_types, may_ask_model
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.inputs import select_where
from pandas_amr._reduce.task import answer_task
from pandas_amr._reduce.trees import ReduceTrees
from pandas_amr._run.cost import sum_costs
from pandas_amr._run.dry_run import DryRun
from pandas_amr._run.part import Part
from pandas_amr._run.sample import Measurement, interval
from pandas_amr._types.arrow_values import json_record
from pandas_amr.errors import FailureWarning, MapFailed, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._map.cut import Sample
    from pandas_amr._map.stage import MapNode
    from pandas_amr._records.usage import Phase
    from pandas_amr._run.cost import Cost
    from pandas_amr._units.units import Units


async def measure_sample(
    spec: Spec, services: Services, state: State, units: Units, sample: Sample
) -> Measurement | None:
    """Map a sample, reduce what was found, and measure what that takes.

    Returns:
        None if nothing is mapped, or if all of the sample failed.

    Raises:
        RunStopped: a budget ended it, or ``errors="raise"`` met a failure.
    """
    if not spec.job.maps or not len(sample.positions):
        return None
    mapped = await _map_sample(spec, services, state, units, sample)
    if _has_all_failed(spec, state, sample):
        return None
    found = select_where(spec.plan.where, _found_in(state.finding_rows(spec.job), sample))
    reduction_tokens = None
    if len(found.positions):
        reduction_tokens = await _measure_reduction(spec, services, state, units, found)
    findings = _list_records(spec, state)
    spread = mapped.spread(findings, of=len(units.with_content().asked))
    measurement = Measurement(
        units=len(sample.positions),
        input_ratio=1.0,
        output_ratio=1.0,
        findings=findings,
        reduction_tokens=reduction_tokens,
        latency_s=mapped.latency_s,
        spread=spread,
        pipelines=mapped.pipelines_usage,
    )
    dry = DryRun(Part(spec, units), services, measurement, mapped.known)
    counted = sum_costs(dry.map_costs(await dry.map(sample)))
    return mapped.compare(measurement, counted)


def _list_records(spec: Spec, state: State) -> dict[str | None, list[dict[str, Any]]]:
    """List what each map found of the sample, as a model says it."""
    assert state.findings is not None
    records: dict[str | None, list[dict[str, Any]]] = {}
    for name, kind in finding_types(spec.job, spec.plan).items():
        if kind is None:
            continue
        _, found = state.findings.stores[name].by_position()
        records[name] = [json_record(record, kind.model) for record in found.to_pylist()]
    return records


async def _map_sample(
    spec: Spec, services: Services, state: State, units: Units, sample: Sample
) -> _MappedSample:
    """Map a sample.

    Raises:
        RunStopped: a budget ended it, or a service is gone.
    """
    begin = partial(MapStage, sample=sample)
    stage = await services.run_large(spec, begin, spec, services, state, units)
    state.findings = stage.findings
    state.made_by = stage.made_by
    await stage.recall()
    known = stage.findings.copy()
    before = services.ledger.total
    await stage.run(None)
    if state.ended_by is not None and not isinstance(state.ended_by, MapFailed):
        raise state.ended_by
    usage = services.ledger.total - before
    return _MappedSample(spec, services, stage, known, usage)


@dataclass(frozen=True)
class _MappedSample:
    """A sample that is mapped, and the usage of its map stage.

    Attributes:
        known: what the journal had of it.
    """

    spec: Spec
    services: Services
    stage: MapStage
    known: MapFindings
    usage: Usage

    @cached_property
    def nodes(self) -> list[MapNode]:
        """The shards that agents were asked about."""
        return self.stage.model_nodes()

    @cached_property
    def agents_usage(self) -> Usage:
        """What these agents took."""
        usage = NO_USAGE
        for _, _, node in self.nodes:
            usage += node.usage
        return usage

    @property
    def latency_s(self) -> float:
        """Seconds per request."""
        return self.agents_usage.seconds / max(1, self.agents_usage.calls)

    @property
    def pipelines_usage(self) -> Usage | None:
        """What recipes took; None if there are none, or if the journal had some of it."""
        functions = self.spec.job.callables.values()
        if not any(may_ask_model(function) for function in functions):
            return None
        usage = self.usage - self.agents_usage
        return None if usage.recalled else usage

    def compare(self, measurement: Measurement, counted: Cost) -> Measurement:
        """Compare the tokens as the provider counts them with our own count of the same shards."""
        usage = self.agents_usage
        if not (usage.input_tokens and usage.output_tokens and counted.calls):
            return measurement
        return replace(
            measurement,
            input_ratio=usage.input_tokens / counted.input_tokens,
            output_ratio=usage.output_tokens / counted.output_tokens,
        )

    def spread(self, findings: Mapping[str | None, list[dict[str, Any]]], *, of: int) -> float:
        """Compute the wider interval: that of the agents' answers, or that of recipes.

        If the journal had all answers, that of the findings.
        """
        blocks: list[tuple[int, int]] = []
        names: set[str | None] = set()
        for shard, name, node in self.nodes:
            names.add(name)
            blocks.append((node.usage.output_tokens, len(shard.positions)))
        if not blocks:
            count = self.spec.counter("map")
            for records in findings.values():
                blocks += [(count(json.dumps(record)), 1) for record in records]
        maps = max(1, len(names))
        spread = _interval(blocks, of=of * maps)
        if self.pipelines_usage is None:
            return spread
        of_pipelines = _interval(self._pipeline_blocks(), of=of)
        return max(spread, of_pipelines)

    def _pipeline_blocks(self) -> list[tuple[int, int]]:
        """Measure what recipes took: the nodes of their runs are named after the shard's."""
        by_shard: dict[str, int] = {}
        for node in self.services.trace.nodes:
            shard, _, inner = node.id.partition("/")
            if inner:
                by_shard[shard] = by_shard.get(shard, 0) + node.usage.tokens
        blocks: list[tuple[int, int]] = []
        for node in self.services.trace.nodes:
            if node.type == "map" and "/" not in node.id:
                blocks.append((by_shard.get(node.id, 0), node.units))
        return blocks


def _interval(blocks: Sequence[tuple[int, int]], *, of: int) -> float:
    """Compute the interval by the tokens and the units of each block."""
    per_unit = [tokens / units for tokens, units in blocks]
    weights = [units for _, units in blocks]
    return interval(per_unit, weights, of=of)


def _found_in(found: FindingRows, sample: Sample) -> FindingRows:
    """Return what was found of the sample: one row per asked unit."""
    is_sampled = np.isin(found.positions, sample.positions)
    return found.select(np.flatnonzero(is_sampled))


def _has_all_failed(spec: Spec, state: State, sample: Sample) -> bool:
    """Warn of failures in the sample, and tell whether all of it failed.

    Raises:
        MapFailed: something failed under ``errors="raise"``.
    """
    sampled = set(sample.positions.tolist())
    sorted_failures = state.sorted_failures(spec.job.names)
    failures = [failure for failure in sorted_failures if failure.position in sampled]
    if not failures:
        return False
    first = failures[0]
    failed = {failure.position for failure in failures}
    message = (
        f"{len(failed)} of the {len(sampled)} units of the sample failed; "
        f"the first, row {first.position}: {first.reason} ({first.who})"
    )
    if spec.settings.errors == "raise":
        raise MapFailed(message)
    has_given_up = isinstance(state.ended_by, MapFailed)
    has_nothing = has_given_up or len(failures) == len(sampled) * len(spec.job.names)
    consequence = "The estimate is scaled up from the rest."
    if has_nothing:
        consequence = "The estimate is that without a sample."
    state.warnings.append(FailureWarning(f"{message}. {consequence}"))
    return has_nothing


async def _measure_reduction(
    spec: Spec, services: Services, state: State, units: Units, found: FindingRows
) -> float | None:
    """Have the sample's findings reduced, and count the tokens of an agent's answer.

    Returns:
        None if no agent writes the answer, if it says how the answer is computed, or if it failed.
    """
    if spec.reduce_kind not in {"agents", "agents_by_group"}:
        return None
    line: tuple[Phase, str] = ("reduce", spec.lm("reduce").model)
    before = services.ledger.lines.get(line, NO_USAGE)
    trees = ReduceTrees(spec, services, state, units)
    rows = np.arange(len(found.positions))
    try:
        reduced = await trees.write(found, rows, answer_task(spec))
    except ModelError as error:
        ReduceFailures(spec, state).add(str(error), error)
        message = f"The reduce of the sample failed: {error}. It is reckoned as without one."
        state.warnings.append(FailureWarning(message))
        return None
    usage = services.ledger.lines.get(line, NO_USAGE) - before
    if usage.calls:
        return usage.output_tokens / usage.calls
    if reduced is None:
        return None
    count = spec.counter("reduce")  # the journal had the answer
    return float(sum(count(one.line) for one in reduced.inputs()))
