"""The reduce stage: the answer is computed from the findings, or written by agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.engine import run_off_loop
from pandas_amr._reduce.aggregate import aggregate
from pandas_amr._reduce.compute_node import RANK, compute_node
from pandas_amr._reduce.function import check_columns, reduce_by_function
from pandas_amr._reduce.inputs import select_where
from pandas_amr._reduce.number import reduce_to_number
from pandas_amr._reduce.ranking import take_first_ranked
from pandas_amr._reduce.sources import ReduceOutcome
from pandas_amr._reduce.trees import ReduceTrees, finish_tree
from pandas_amr.errors import BudgetExceeded, ModelError

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._reduce.static_tree import StaticTree
    from pandas_amr._units.units import Units


async def reduce(
    spec: Spec,
    services: Services,
    state: State,
    units: Units,
    rows: FindingRows,
    *,
    tree: StaticTree | None = None,
) -> ReduceOutcome:
    """Reduce the findings to the answer.

    Args:
        spec: what the run was asked for.
        services: what it works with.
        state: takes failures, and what ends the run.
        units: all units of the run.
        rows: the rows of findings.
        tree: the tree that took the findings as they landed, if there is one.

    Returns:
        The outcome; it is empty if there was nothing to reduce, or if the reduce failed.
    """
    trees = ReduceTrees(spec, services, state, units)
    try:
        if spec.job.callables:
            check_columns(spec, state, rows)
        size = len(rows.positions)
        rows = await run_off_loop(select_where, spec.plan.where, rows, size=size)
        return await _run(trees, rows, tree)
    except BudgetExceeded as error:
        state.end(error)
    except ModelError as error:
        if error.fatal:
            state.end(error)
        else:
            trees.failures.add(str(error), error)
    return ReduceOutcome(None)


async def _run(trees: ReduceTrees, rows: FindingRows, tree: StaticTree | None) -> ReduceOutcome:
    """Run the reduce that the call and its plan ask for."""
    spec, state = trees.spec, trees.state
    match spec.reduce_kind:
        case "function":
            return await reduce_by_function(spec, trees.services, state, rows)
        case "ranking":
            size = len(rows.positions)
            with compute_node(trees.services, RANK, size):
                outcome: ReduceOutcome = await run_off_loop(
                    take_first_ranked, spec, rows, size=size
                )
            return outcome
        case "aggregations":
            return await aggregate(trees, rows)
        case "chosen_number":
            return await reduce_to_number(trees, rows)
        case "agents_by_group" | "agents":
            if tree is not None:
                return await finish_tree(tree, spec, state)
            return await trees.write_answer(rows)
        case "none":
            return ReduceOutcome(None)
