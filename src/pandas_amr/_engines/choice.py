"""Which engine a call goes to; nothing of an engine is imported before one is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._context.settings import current_settings, is_engine
from pandas_amr._records.log import LOGGER
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from pandas_amr._plan.call import Call
    from pandas_amr._run.run import Run

VERBS = ("map_reduce", "map", "filter")
DASK = ("dask", "dask_expr")  # the packages of its frames


def begin_on_engine(call: Call) -> Run[Any] | None:
    """Make the run of a call that goes to an engine; None if it stays in this process.

    Raises:
        UsageError: the call cannot be carried out there; nothing was sent.
    """
    if call.engine is not None and not is_engine(call.engine):
        raise UsageError(
            "engine= takes a dask.distributed.Client, or None for this process, not "
            f"{type(call.engine).__name__}."
        )
    if _is_dask(call.frame):
        _check_dask_frame(call)
        return _run_on_dask(call, call.engine or current_settings().engine)
    if call.engine is not None:
        return _run_on_dask(call, call.engine)
    engine = current_settings().engine
    if engine is None or call.verb not in VERBS:
        return None
    from pandas_amr._engines.dask.run import check_call  # noqa: PLC0415 (the engine is wanted)

    try:
        check_call(call, current_settings())
    except UsageError as error:
        LOGGER.info("%s runs in this process: %s", call.verb, error)
        return None
    return _run_on_dask(call, engine)


def _run_on_dask(call: Call, engine: Any) -> Run[Any]:
    try:
        from pandas_amr._engines.dask.run import run_on_dask  # noqa: PLC0415 (it loads Dask)
    except ImportError as error:
        raise UsageError(
            f'The Dask engine needs {error.name!r}: pip install "pandas-amr[dask]".'
        ) from None
    return run_on_dask(call, engine)


def _is_dask(frame: object) -> bool:
    """Tell whether something is a collection of Dask, without importing that."""
    packages = {kind.__module__.partition(".")[0] for kind in type(frame).__mro__}
    return not packages.isdisjoint(DASK)


def _check_dask_frame(call: Call) -> None:
    """Refuse what is no frame, and verbs that need all rows here.

    Raises:
        UsageError: it is none, or the verb does.
    """
    frame: Any = call.frame
    kind = type(frame).__name__
    if not hasattr(frame, "npartitions") or not hasattr(frame, "_meta"):
        raise UsageError(f"This is a {kind} of Dask, which has no rows; pass a Dask DataFrame.")
    if getattr(frame, "ndim", None) != 2:
        raise UsageError(f"This is a {kind} of Dask: pass a frame, x.to_frame().")
    if call.verb == "reduce":
        raise UsageError(
            "reduce() needs all rows here: frame.compute().amr.reduce(...) if they fit into "
            "memory, Dask's own aggregations if pandas computes the answer, or "
            "frame.amr.map_reduce(..., reduce=...)."
        )
    if call.verb == "plan":
        raise UsageError(
            "plan() estimates from all rows: plan = frame.head(1000).amr.plan(...), then "
            "frame.amr.map_reduce(plan=plan)."
        )
