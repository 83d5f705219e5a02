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
    from pandas_amr._plan.call import Job
    from pandas_amr._records.usage import Phase

BY_CODE = "code of the model prints them"
BY_RECIPE = "a recipe's stages send them"


def describe_outgoing(
    spec: Spec, services: Services, requests: Sequence[Mapping[str, Any]]
) -> Outgoing:
    """Tell what a run would send, from its plan and the bodies of its first requests."""
    labels = list(_whole_frame(spec).columns)
    if not spec.lms:
        return Outgoing((), unsent=tuple(labels))
    redaction = spec.job.redaction
    reader = ""
    if spec.job.pipelines:
        reader = BY_RECIPE
    elif _code_reads_rows(spec):
        reader = BY_CODE
    is_sent = _columns_sent(spec)
    sent: list[Hashable] = []
    others: list[Hashable] = []
    for label in labels:
        if label in is_sent:
            sent.append(label)
        else:
            others.append(label)
    return Outgoing(
        _describe_models(spec, services),
        sent=tuple(sent),
        readable=tuple(others) if reader else (),
        reader=reader,
        unsent=() if reader else tuple(others),
        redact=None if redaction is None else redaction.name,
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
    if not spec.job.maps:
        return False
    agents = _list_map_agents(spec.job)
    return any(spec.has_repl("map", agent) for agent in agents)


def _list_map_agents(job: Job) -> list[Agent | None]:
    """List the agents of the maps that are no functions; None for the plan's instruction."""
    names = [name for name in job.names if name not in job.callables]
    return [job.map_agents.get(name) for name in names]


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
    aggregated = column_positions(job.frame, _list_aggregated(spec))
    sent.update(labels[position] for position in aggregated)
    return sent


def _has_map_agents(spec: Spec) -> bool:
    return spec.job.maps and not spec.job.all_callable


def _reads_content(spec: Spec) -> bool:
    """Tell whether an agent reads the content columns: of a map, or of a reduce without one."""
    if _has_map_agents(spec) or spec.may_answer_directly:
        return True
    return spec.is_written and (not spec.job.maps or spec.reduce_kind == "chosen_number")


def _list_aggregated(spec: Spec) -> list[Any]:
    """List the columns that are aggregated for agents, or by them."""
    aggregated: list[Any] = []
    if spec.is_written:
        shown = spec.plan.aggregations or {}
        aggregated += [column_of(name, how) for name, how in shown.items()]
    computed = spec.job.computed or {}
    for name, how in computed.items():
        if isinstance(function_of(how), Agent):
            aggregated.append(column_of(name, how))
    return aggregated


def _describe_models(spec: Spec, services: Services) -> tuple[str, ...]:
    """Describe each model that is asked, its address, and for what."""
    phases: dict[str, list[str]] = {}
    for phase, agent in _list_asked(spec):
        server = services.server(spec, phase, agent)
        address, _, _ = describe_address(server).partition("?")
        model = f"{spec.lm(phase, agent).model} at {address}"
        of_model = phases.setdefault(model, [])
        if phase not in of_model:
            of_model.append(phase)
    return tuple(f"{model} ({' and '.join(used)})" for model, used in phases.items())


def _list_asked(spec: Spec) -> list[tuple[Phase, Agent | None]]:
    """List the phases and the agents that are asked."""
    job = spec.job
    asked: list[tuple[Phase, Agent | None]] = []
    if _has_map_agents(spec):
        asked += [("map", agent) for agent in _list_map_agents(job)]
    if spec.is_written:
        asked.append(("reduce", job.reduce_agent))
    asked += [("reduce", agent) for agent in job.column_agents]
    if job.pipelines and not asked:
        asked.append(("map", None))
    return asked
