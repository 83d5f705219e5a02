"""A direct answer: one agent reads the whole content, and nothing is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._findings.inputs import make_row_inputs
from pandas_amr._reduce.sources import make_outcome
from pandas_amr._reduce.task import answer_task, make_reduce_agent, reduce_budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import ReduceInput
    from pandas_amr._reduce.agent import ReduceAgent
    from pandas_amr._reduce.sources import ReduceOutcome
    from pandas_amr._units.units import Units

MOST_BUDGETS = 2  # content of more budgets than this is not counted line by line: it cannot fit


async def answer_directly(
    spec: Spec, services: Services, state: State, units: Units
) -> ReduceOutcome | None:
    """Have one agent answer from the whole content, which nothing maps.

    Returns:
        None if the plan has no direct answer, or if the content does not fit one agent.
    """
    if not spec.may_answer_directly:
        return None
    content = units.frame.iloc[:, list(units.columns)]
    instruct = answer_task(spec).with_instruction_for
    task = await services.run_rendering(spec, instruct, content, spec.job.redaction, size=0)
    share = reduce_budget(spec, task).share
    if not len(units) or int(units.tokens.sum()) > MOST_BUDGETS * share:
        return None
    agent = make_reduce_agent(spec, services, state, task)
    inputs = make_row_inputs(units, np.flatnonzero(~units.is_empty_row).tolist())
    if not inputs or not _fit(inputs, agent, share):
        return None
    services.watch.steps.begin_answer()
    with services.trace.node("direct", id=f"{services.prefix}direct", units=len(units)) as node:
        reduction = await agent.reduce(inputs, final=True)
        node.usage = reduction.usage
    return make_outcome(reduction, spec.plan.output)


def _fit(inputs: Sequence[ReduceInput], agent: ReduceAgent, share: int) -> bool:
    """Tell whether all rows fit: with their numbers, too, since none may be truncated."""
    if agent.count("\n".join(one.line for one in inputs)) > share:
        return False
    return sum(agent.size(one) for one in inputs) <= agent.max_tokens
