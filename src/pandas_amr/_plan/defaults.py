"""What holds where nobody said it: by type, what pandas can say of a field; and how a run is carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._plan.plan import Plan
from pandas_amr._types.arrow import Sort, sort_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._plan.call import Job
    from pandas_amr._plan.plan import Aggregation
    from pandas_amr.models.base import Abilities

SHARD_SIZE = 20
CALLABLE_SHARD_SIZE = 1000
GROUP_SHARD_SIZE = 200
PREVIEW_SHARD_SIZE = 10_000
SHARD_TOKENS = 8000
PARALLELISM = 8
MAX_REPAIRS = 1

BY_SORT: dict[Sort, Aggregation] = {"choices": "value_counts", "number": "mean", "bool": "mean"}


def default_aggregations(types: Mapping[Any, Any]) -> dict[Any, Aggregation]:
    """Choose what pandas says of each field: counts of choices, means of numbers and bools, the number of texts.

    Example:
        >>> default_aggregations({"late": bool, "stars": int, "why": str})
        {'late': 'mean', 'stars': 'mean', 'why': 'count'}
    """
    return {name: BY_SORT.get(sort_of(kind), "count") for name, kind in types.items()}


def free_name(name: str, taken: set[str]) -> str:
    """Lengthen a name until no column has it.

    Example:
        >>> free_name("finding", {"text", "finding"})
        'finding_'
    """
    while name in taken:
        name += "_"
    return name


def fill_defaults(plan: Plan, job: Job, *, abilities: Abilities, parallelism: int | None) -> Plan:
    """Set how the run is carried out where nobody said it: sizes, view, parallelism, dedupe, keys, repairs.

    Nothing here depends on what the task says. ``abilities`` are those of the model that maps.
    """
    of_callables = job.all_callable
    alone = plan.segmentation in {None, "rows"}
    most = abilities.units_per_request
    size = most or (SHARD_SIZE if plan.segmentation != "groups" else GROUP_SHARD_SIZE)
    defaults: dict[str, Any] = {
        "segmentation": None if of_callables else "rows",
        "view": None if of_callables else "inline",
        "shard_size": CALLABLE_SHARD_SIZE
        if of_callables
        else PREVIEW_SHARD_SIZE
        if plan.view == "preview"
        else size,
        "shard_tokens": min(SHARD_TOKENS, abilities.context_window // 3),
        "parallelism": parallelism or PARALLELISM,
        "dedupe": alone,
        "keyed": "shard" if plan.view == "preview" or not alone else "unit",
        "max_repairs": MAX_REPAIRS,
    }
    open_ = {name: value for name, value in defaults.items() if getattr(plan, name) is None}
    if most is not None and plan.made_by == "planner" and (plan.shard_size or 0) > most:
        open_["shard_size"] = most  # a planner may have had readers in mind that take more
    return updated(plan, open_)


def updated(plan: Plan, changes: dict[str, Any]) -> Plan:
    """A copy with some fields more, checked; who made it stays."""
    return Plan(**({name: getattr(plan, name) for name in plan.model_fields_set} | changes))
