"""The nodes of what is reduced without an agent: by pandas, by a function, by a recipe."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas_amr._context.services import Services
    from pandas_amr._records.trace import Node

# The names of the nodes, after the run's prefix.
COMPUTE, RANK, REDUCE, CHOOSE = "compute", "rank", "reduce", "choose"


@contextlib.contextmanager
def compute_node(
    services: Services,
    name: str,
    rows: int,
    *,
    form: str = "pandas",
    parents: tuple[str, ...] = (),
    level: int = 1,
) -> Iterator[Node]:
    """Record that rows of findings are reduced in the block, and no agent does it.

    Args:
        services: those of the run.
        name: of the node, after the run's prefix.
        rows: how many there are.
        form: who does it: ``pandas``, ``function`` or ``recipe``.
        parents: nodes that it reads beside those of the map.
        level: of the node.
    """
    parents = (*parents, *map_nodes(services))
    node_id = f"{services.prefix}{name}"
    with services.trace.node(
        "compute", id=node_id, level=level, parents=parents, units=rows
    ) as node:
        node.form = form
        yield node


def map_nodes(services: Services) -> tuple[str, ...]:
    """Name the nodes of the run's map; without a map, those behind the frame that is reduced."""
    nodes = services.trace.at(services.prefix)
    maps = tuple(node.id for node in nodes if node.type in {"map", "recalled"})
    return maps or services.parents(None)
