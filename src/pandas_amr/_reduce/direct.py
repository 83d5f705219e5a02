"""A direct answer: one agent reads the whole content, and nothing is mapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._findings.inputs import make_row_inputs
from pandas_amr._reduce.sources import make_outcome
from pandas_amr._reduce.task import answer_task, make_reduce_agent, reduce_budget

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import ReduceInput
    from pandas_amr._reduce.agent import ReduceAgent
    from pandas_amr._reduce.sources import ReduceOutcome
    from pandas_amr._reduce.task import ReduceTask
    from pandas_amr._units.units import Units

MOST_BUDGETS = 2  # content of more budgets than this is not counted line by line: it cannot fit


@dataclass(frozen=True)
class DirectAnswer:
    """One agent that answers from the whole content: what it is asked, and what it reads."""

    task: ReduceTask
    agent: ReduceAgent
    inputs: list[ReduceInput]


def make_direct_answer(
    spec: Spec, services: Services, state: State, units: Units
) -> DirectAnswer | None:
    """Make the agent that answers from the whole content.

    Returns:
        None if the plan has no direct answer, or if the content does not fit one agent.
    """
    if not spec.may_answer_directly:
        return None
    content = units.frame.iloc[:, list(units.columns)]
    task = answer_task(spec).with_instruction_for(content, spec.job.redaction)
    share = reduce_budget(spec, task).share
    if not len(units) or int(units.tokens.sum()) > MOST_BUDGETS * share:
        return None
    agent = make_reduce_agent(spec, services, state, task)
    positions = np.flatnonzero(~units.is_empty_row).tolist()
    if not positions:
        return None
    inputs = make_row_inputs(units, positions)
    if agent.count("\n".join(one.line for one in inputs)) > share:
        return None
    if sum(agent.size(one) for one in inputs) > agent.max_tokens:
        return None  # with their numbers they do not fit, and none may be truncated
    return DirectAnswer(task, agent, inputs)


async def answer_directly(
    spec: Spec, services: Services, state: State, units: Units
) -> ReduceOutcome | None:
    """Have one agent answer from the whole content; None if no agent can read all of it."""
    direct = make_direct_answer(spec, services, state, units)
    if direct is None:
        return None
    services.watch.steps.begin_answer()
    with services.trace.node("direct", id=f"{services.prefix}direct", units=len(units)) as node:
        reduction = await direct.agent.reduce(direct.inputs, final=True)
        node.usage = reduction.usage
    return make_outcome(reduction, spec.plan.output)
