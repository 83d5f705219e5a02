"""The whole story: plan, units, shards, map, findings, columns, reduce, result."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from pandas_amr._call import check_names, finding_types
from pandas_amr._findings import with_findings
from pandas_amr._map import MapStage
from pandas_amr._plan import Estimate, Plan
from pandas_amr._planner import complete_by_rule, derive
from pandas_amr._prompts import map_system
from pandas_amr._reduce import computed_words, leaf_count, make_tree, reduce
from pandas_amr._result import Result, failures_frame, trace_frame, usage_frame
from pandas_amr._runtime import Settings, wire
from pandas_amr._shards import Shard, make_shards
from pandas_amr._tokens import counter_for
from pandas_amr._tree import reduce_calls, static_sizes
from pandas_amr._units import Units, make_units
from pandas_amr._work import Work
from pandas_amr.errors import FailureWarning, MapFailed

if TYPE_CHECKING:
    import pandas as pd

    from pandas_amr._call import Job
    from pandas_amr._synthesise import StaticTree
    from pandas_amr._tokens import TokenCounter
    from pandas_amr.models.base import LM


async def run(job: Job, settings: Settings, lm: LM | None) -> Result | Plan:
    """Carry out a checked call.

    Raises:
        ModelConfigError: the service will not serve this key, model or address.
        MapFailed: nothing at all succeeded, or ``errors="raise"`` met a failure.
    """
    work = Work(job, settings, lm)
    async with AsyncExitStack() as stack:
        if lm is not None:
            work.wired = await stack.enter_async_context(wire(lm, work.ledger))
        work.plan = await _plan(work)
        units = _units(work)
        shards = _shards(work, units)
        if job.verb == "plan":
            return work.plan.with_estimate(_estimate(work, units, shards))
        stage = MapStage(work, units, shards) if job.maps else None
        tree = _tree(work, units, len(shards), stage)
        if tree is not None:
            stack.push_async_callback(tree.close)
        if stage is not None:
            await stage.run(tree)
        findings = stage.findings() if stage else job.frame
        frame = with_findings(job.frame, findings) if stage else job.frame
        _stop_if_failed(work, frame, findings)
        output = await reduce(work, units, frame, findings, tree) if job.reduces else None
        return _result(work, frame, findings, output)


async def _plan(work: Work) -> Plan:
    """Complete what the user left open, by the planner and by rule."""
    job = work.job
    if job.open and work.abilities.planning and work.wired and len(job.frame):
        with work.trace.node("plan", id="plan", level=-1) as node:
            plan, warning = await derive(job, model=work.wired.model(1), abilities=work.abilities)
            node.usage = work.ledger.total
    else:
        plan, warning = await derive(job, model=None, abilities=work.abilities)
    if warning is not None:
        work.warnings.append(warning)
    plan = complete_by_rule(plan, job, abilities=work.abilities, parallelism=work.settings.max_parallelism)
    check_names(job, plan)
    return plan


def _counter(lm: LM) -> TokenCounter:
    return lm.token_counter or counter_for(lm.model)


def _units(work: Work) -> Units:
    """Rows as units: where a model reads them, equal ones are asked once and all are counted in its tokens."""
    job = work.job
    read = (job.maps and not job.all_callable) or (not job.maps and work.written)
    if work.lm is None or not read:
        return make_units(job.frame, job.columns, dedupe=False)
    dedupe = bool(work.plan.dedupe) and job.maps and not job.callables
    return make_units(job.frame, job.columns, dedupe=dedupe, counter=_counter(work.lm))


def _shards(work: Work, units: Units) -> list[Shard]:
    size, tokens = work.plan.shard_size, work.plan.shard_tokens
    assert size is not None
    assert tokens is not None
    return make_shards(units.asked, units.tokens, shard_size=size, shard_tokens=tokens)


def _tree(work: Work, units: Units, shards: int, stage: MapStage | None) -> StaticTree | None:
    """The reduce tree, ready to take findings as they land; none where groups or code reduce."""
    leaves = leaf_count(work, units, shards) if work.written and not work.job.by else 0
    if not leaves:
        return None

    def computed() -> str:
        return computed_words(work, with_findings(work.job.frame, stage.findings()) if stage else work.job.frame)

    return make_tree(work, leaves, computed)


def _estimate(work: Work, units: Units, shards: list[Shard]) -> Estimate:
    """What the plan would take: calls are exact where every agent needs one."""
    kinds = finding_types(work.job, work.plan)
    fan_in = work.plan.fan_in or 2
    tree = static_sizes(len(shards), fan_in) if work.written and shards and not work.job.by else []
    tokens = calls = 0
    for name in work.job.names:
        kind = kinds[name]
        if name in work.job.callables or kind is None or work.lm is None:
            continue
        system = map_system(work.instruction(name), kind.schema["properties"], tools=bool(work.tools))
        tokens += len(shards) * _counter(work.lm)(system) + int(units.tokens.sum())
        calls += len(shards)
    calls += reduce_calls(tree, fan_in) if tree else 0
    return Estimate(len(units), len(units.asked), len(shards), calls, tokens, tuple(tree))


def _stop_if_failed(work: Work, frame: pd.DataFrame, findings: pd.DataFrame) -> None:
    """Raise where the user asked for it, and where nothing is there to go on with."""
    if not work.failures:
        return
    failed = len({failure.position for failure in work.failures})
    nothing = len(work.failures) == len(frame) * len(work.job.names)
    if not work.halted and not nothing:
        if work.job.verb == "map":  # whose frame says nothing of them, unlike a Result
            said = f"{failed} of {len(frame)} units failed; they are <NA>."
            work.warnings.append(FailureWarning(said))
        return
    first = min(work.failures, key=lambda failure: failure.position)
    what = "No unit succeeded" if nothing else f"{failed} of {len(frame)} units failed"
    said = f"{what}; the first, row {first.position}: {first.reason} ({first.who})"
    raise MapFailed(said, _result(work, frame, findings, None))


def _result(work: Work, frame: pd.DataFrame, findings: pd.DataFrame, output: Any) -> Result:
    return Result(
        output=output,
        frame=frame,
        findings=findings,
        plan=work.plan,
        usage=usage_frame(work.ledger),
        failures=failures_frame(work.failures, work.job.frame.index),
        trace=trace_frame(work.trace),
        total=work.ledger.total,
        seconds=work.trace.seconds,
        warnings=tuple(work.warnings),
    )
