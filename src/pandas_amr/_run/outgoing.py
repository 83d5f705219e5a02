"""Tell what a run would send: to which models, which columns, and its first request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._agent.agent import Agent
from pandas_amr._journal.keys import describe_address
from pandas_amr._plan.aggregations import column_of, function_of
from pandas_amr._plan.sample_rows import column_positions
from pandas_amr._records.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._records.usage import Phase

BY_CODE = "code of the model prints them"
BY_RECIPE = "a recipe's stages send them"


def describe_outgoing(
    spec: Spec, services: Services, requests: Sequence[Mapping[str, Any]]
) -> Outgoing:
    """Tell what a run would send, from its plan and the bodies of its first requests."""
    job = spec.job
    if not spec.lms:
        return Outgoing((), unsent=tuple(_whole_frame(spec).columns))
    labels = list(_whole_frame(spec).columns)
    sent = _columns_sent(spec)
    readable: set[Hashable] = set()
    reader = ""
    if job.pipelines:
        readable, reader = set(labels), BY_RECIPE
    elif _code_reads_rows(spec):
        readable, reader = set(labels), BY_CODE
    return Outgoing(
        _describe_models(spec, services),
        sent=tuple(label for label in labels if label in sent),
        readable=tuple(label for label in labels if label in readable - sent),
        reader=reader,
        unsent=tuple(label for label in labels if label not in sent | readable),
        redact=None if job.redaction is None else job.redaction.name,
        request=requests[0] if requests else None,
    )


def _whole_frame(spec: Spec) -> pd.DataFrame:
    """Return the frame that the user gave; with ``axis="columns"`` the units are its columns."""
    job = spec.job
    if job.given.axis == "columns" and job.call is not None:
        frame: pd.DataFrame = job.call.frame
        return frame
    return job.frame


def _code_reads_rows(spec: Spec) -> bool:
    """Tell whether code of a model has the rows of a shard, with all columns."""
    job = spec.job
    names = [name for name in job.names if name not in job.callables]
    return job.maps and any(spec.has_repl("map", job.map_agents.get(name)) for name in names)


def _columns_sent(spec: Spec) -> set[Hashable]:
    """Collect the columns whose values, or figures of them, stand in a request."""
    job, plan = spec.job, spec.plan
    labels = list(_whole_frame(spec).columns)
    if job.given.axis == "columns":
        return set(job.given.columns or labels)
    if spec.is_written and plan.ranking is not None:
        return set(labels)  # the rows that rank first are shown whole
    sent: set[Hashable] = set()
    if _reads_content(spec):
        sent.update(labels[position] for position in job.columns)
    if _has_map_agents(spec):
        sent.update(plan.group_columns or ())
    aggregated = column_positions(job.frame, _aggregated(spec))
    sent.update(labels[position] for position in aggregated)
    return sent


def _has_map_agents(spec: Spec) -> bool:
    return spec.job.maps and not spec.job.all_callable


def _reads_content(spec: Spec) -> bool:
    """Tell whether an agent reads the content columns: of a map, or of a reduce without one."""
    if _has_map_agents(spec) or spec.may_answer_directly:
        return True
    return spec.is_written and (not spec.job.maps or spec.reduce_kind == "chosen_number")


def _aggregated(spec: Spec) -> list[Any]:
    """List the columns that are aggregated for agents, or by them."""
    aggregated: list[Any] = []
    shown = (spec.plan.aggregations or {}) if spec.is_written else {}
    for name, how in shown.items():
        aggregated.append(column_of(name, how))
    for name, how in (spec.job.computed or {}).items():
        if isinstance(function_of(how), Agent):
            aggregated.append(column_of(name, how))
    return aggregated


def _describe_models(spec: Spec, services: Services) -> tuple[str, ...]:
    """Describe each model that is asked, its address, and for what."""
    phases: dict[str, list[str]] = {}
    for phase, agent in _list_asked(spec):
        address = describe_address(services.server(spec, phase, agent)).partition("?")[0]
        described = phases.setdefault(f"{spec.lm(phase, agent).model} at {address}", [])
        if phase not in described:
            described.append(phase)
    return tuple(f"{model} ({' and '.join(used)})" for model, used in phases.items())


def _list_asked(spec: Spec) -> list[tuple[Phase, Agent | None]]:
    """List the phases and the agents that are asked."""
    job = spec.job
    asked: list[tuple[Phase, Agent | None]] = []
    if _has_map_agents(spec):
        names = [name for name in job.names if name not in job.callables]
        asked += [("map", job.map_agents.get(name)) for name in names]
    if spec.is_written:
        asked.append(("reduce", job.reduce_agent))
    asked += [("reduce", agent) for agent in job.column_agents]
    if job.pipelines and not asked:
        asked.append(("map", None))
    return asked
