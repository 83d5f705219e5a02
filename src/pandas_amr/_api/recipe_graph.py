"""The graph of a recipe, which has no frame yet: what each stage is, and not how many nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._agent.agent import Agent
from pandas_amr._plan.aggregations import function_of
from pandas_amr._plan.call import Pipeline
from pandas_amr._records.graph import Graph, GraphNode, mode_of
from pandas_amr._reduce.compute_node import COMPUTE, REDUCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._api.recipe import Stage


def draw_recipe(stages: Sequence[Stage]) -> Graph:
    """Make a graph of one node per step; how many nodes there will be is yet to be seen."""
    nodes: list[GraphNode] = []
    before: tuple[str, ...] = ()
    level = 0
    for number, stage in enumerate(stages, start=1):
        prefix = f"{number}-{stage.verb}/" if len(stages) > 1 else ""
        for step in _list_steps(stage):
            made = [_make_node(prefix, part, level, before) for part in step]
            nodes += made
            before, level = tuple(node.id for node in made), level + 1
    mode = mode_of({node.type for node in nodes}, static=_is_static(stages))
    return Graph(mode, tuple(nodes))


def _list_steps(stage: Stage) -> list[list[tuple[str, str, str]]]:
    """List what a stage does, one after the other: name, type and form of what is side by side."""
    given = stage.given
    if stage.verb == "then":
        return [[("then", "compute", _form_of(given["what"]))]]
    steps: list[list[tuple[str, str, str]]] = []
    if stage.verb != "reduce":
        maps = given.get("map")
        named = maps if isinstance(maps, dict) else {None: maps}
        step: list[tuple[str, str, str]] = []
        for name, how in named.items():
            step.append(("map" if name is None else f"map-{name}", "map", _form_of(how)))
        steps.append(step)
    if stage.verb in {"reduce", "map_reduce"}:
        steps.append(_list_reduces(given.get("reduce")))
    return steps


def _list_reduces(how: object) -> list[tuple[str, str, str]]:
    """List what reduces side by side: agents, pandas, a function."""
    if not isinstance(how, dict):
        form = _form_of(how)
        return [(REDUCE, "compute", form)] if form else [("final-reduce", "final-reduce", "")]
    reduces: list[tuple[str, str, str]] = []
    for name, function in how.items():
        if isinstance(function_of(function), Agent):
            reduces.append((f"{name}-final-reduce", "final-reduce", ""))
    if len(reduces) < len(how):
        reduces.insert(0, (COMPUTE, "compute", "pandas"))
    return reduces


def _form_of(how: object) -> str:
    """Say who does it, if no agent does."""
    if isinstance(how, Pipeline):
        return "recipe"
    return "function" if callable(how) and not isinstance(how, Agent) else ""


def _make_node(
    prefix: str, part: tuple[str, str, str], level: int, before: tuple[str, ...]
) -> GraphNode:
    name, kind, form = part
    return GraphNode(f"{prefix}{name}", kind, level, before, 0, form=form, about=True)


def _is_static(stages: Sequence[Stage]) -> bool:
    plans = [stage.given.get("plan") for stage in stages]
    return any(getattr(plan, "fan_in", None) or _fan_in_of(plan) for plan in plans)


def _fan_in_of(plan: object) -> object:
    return plan.get("fan_in") if isinstance(plan, dict) else None
