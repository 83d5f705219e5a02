"""A call on a cluster: checked here, and carried out by its workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._context.settings import current_settings
from pandas_amr._engines.dask.cluster import Cluster
from pandas_amr._engines.dask.pipeline import ClusterPipeline
from pandas_amr._engines.dask.rows import CollectionRows, FrameRows
from pandas_amr._run.redact import redact_where_called
from pandas_amr._run.run import make_run, make_spec
from pandas_amr._run.stream import check_unconfirmed, find_undivided
from pandas_amr._units.by import By
from pandas_amr._units.frames import as_frame
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from pandas_amr._context.progress import Watch
    from pandas_amr._context.settings import Settings
    from pandas_amr._engines.dask.rows import Rows
    from pandas_amr._plan.call import Call
    from pandas_amr._run.execution import Execution
    from pandas_amr._run.run import Run
    from pandas_amr._run.stream import Undivided

VERBS = ("map_reduce", "map", "filter")
UNDIVIDED: dict[Undivided, str] = {
    "columns": 'axis="columns" profiles the whole frame: not on a cluster.',
    "direct": "plan={'direct': True} reads everything at once: not on a cluster.",
    "recipe": "A recipe as map= does not go to a cluster: map its stages one by one.",
}
NO_CLIENT = (
    "A Dask frame is mapped by a cluster, and this process has no client of one: "
    "client = dask.distributed.Client(), which is found by itself; or engine=client."
)


@dataclass
class MakeClusterPipeline:
    """Makes the pipeline of a run on a cluster.

    Attributes:
        cluster: the cluster.
        source: the rows.
        iterable: whether findings can be given as they land.
    """

    cluster: Cluster
    source: Rows
    iterable: bool = False

    @property
    def rows(self) -> int | None:
        """How many rows it is about; None if that is not known yet."""
        return self.source.rows

    def __call__(self, execution: Execution, watch: Watch) -> ClusterPipeline:
        """Make it."""
        return ClusterPipeline(execution, watch, cluster=self.cluster, rows=self.source)


def run_on_dask(call: Call, engine: Any) -> Run[Any]:
    """Make the run of a call whose rows the workers of a cluster map.

    Args:
        call: the call, about a frame of this process or a Dask frame.
        engine: the client; None for the one that Dask knows.

    Raises:
        UsageError: the call cannot be carried out so; nothing was sent.
    """
    settings = current_settings()
    client = _find_client(engine)
    check_call(call, settings)
    if is_dask_frame(call.frame):
        source: Rows = CollectionRows(call.frame)
        _check_collection(call, settings)
        meta: pd.DataFrame = call.frame._meta  # noqa: SLF001 (its columns and their types)
        spec = make_spec(replace(call, frame=meta.iloc[:0]), settings)
    else:
        frame = as_frame(call.frame)
        spec = redact_where_called(make_spec(replace(call, frame=frame), settings))
        source = FrameRows(spec.job.frame)
    elsewhere = MakeClusterPipeline(Cluster(client), source, iterable=source.are_here)
    return make_run(spec, elsewhere=elsewhere)


def is_dask_frame(frame: Any) -> bool:
    """Tell whether something is a frame of Dask."""
    return all(hasattr(frame, name) for name in ("to_delayed", "npartitions", "columns", "_meta"))


def _find_client(engine: Any) -> Any:
    """Return the client that is meant.

    Raises:
        UsageError: there is none, or it is closed.
    """
    if engine is None:
        from distributed import default_client  # noqa: PLC0415 (here once the engine is used)

        try:
            engine = default_client()
        except ValueError:
            raise UsageError(NO_CLIENT) from None
    if str(engine.status) not in {"running", "connecting", "newly-created"}:
        raise UsageError(f"engine= is a client that is {engine.status}: make a new one.")
    return engine


def check_call(call: Call, settings: Settings) -> None:
    """Refuse what needs all rows at once, or makes no parts.

    Raises:
        UsageError: the call does.
    """
    if call.out is not None:
        raise UsageError(
            "out= reads part by part in this process; leave it or engine= out. A Dask frame writes "
            "its partitions: frame.to_parquet(...)."
        )
    undivided = find_undivided(call)
    if undivided is not None:
        raise UsageError(UNDIVIDED[undivided])
    if "full" in {call.trace, settings.trace}:
        raise UsageError(
            'trace="full" keeps what the agents of this process read and say, and those of a '
            "cluster are elsewhere: leave it out."
        )


def _check_collection(call: Call, settings: Settings) -> None:
    """Refuse what needs the rows of a Dask frame here.

    Raises:
        UsageError: the call does.
    """
    check_unconfirmed(call, settings)
    keys = call.by.keys if isinstance(call.by, By) else call.by
    for key in keys if isinstance(keys, list | tuple) else [keys]:
        if isinstance(key, pd.Series | pd.Index):
            raise UsageError(
                f"by= takes columns of a Dask frame, and not a {type(key).__name__} of its rows."
            )
