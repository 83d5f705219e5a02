"""The verbs, as typed functions; ``df.amr`` binds the same ones to a frame.

Importing this costs nothing: what a verb needs is imported when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from pandas_amr._api.options import (
    MapOptions,
    MapperOptions,
    Options,
    PartOptions,
    QuestionOptions,
    has_options,
    option_types,
)
from pandas_amr._records.callers import is_awaited
from pandas_amr._records.keywords import check_keywords
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr.errors import ArgumentError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    import pandas as pd

    from pandas_amr._api.options import Criterion, Groups, Kind, Map, Reduce
    from pandas_amr._plan.plan import Plan
    from pandas_amr._result.result import Result
    from pandas_amr._run.frame_mapper import FrameMapper
    from pandas_amr._run.run import Run
    from pandas_amr._units.frames import Frame

    Answer = TypeVar("Answer")

_IN_ASYNC_CODE = (
    "{verb}() waits for its result and cannot be awaited; nothing was sent. In async code: {way}."
)
_NOT_OF_A_MAPPER = {
    "task": (
        "A task is planned once, before, from some rows: plan = rows.amr.plan(task), then "
        "amr.mapper(plan=plan)."
    ),
    "map": "What to find is its first argument: amr.mapper(what).",
    "out": "It gives a frame for each partition; for files: amr.map(path, ..., out='folder/').",
    "axis": "It maps the rows of partitions; for columns: df.amr.map(..., axis='columns').",
    "reduce": "It maps only; reduce what it gives: frame.amr.reduce(...).",
    "output": "It maps only; reduce what it gives: frame.amr.reduce(...).",
    "by": "It maps only; reduce what it gives: frame.amr.reduce(..., by=...).",
}
_ASYNC_WAYS = {
    "map_reduce": (
        "result = await df.amr.start(...), which takes the same; "
        "or async for finding in df.amr.start(...)"
    ),
    "map": (
        "frame = await asyncio.to_thread(df.amr.map, ...); "
        "or async for finding in df.amr.start(map=..., reduce=...)"
    ),
    "filter": "frame = await asyncio.to_thread(df.amr.filter, ...)",
    "reduce": "answer = await asyncio.to_thread(df.amr.reduce, ...)",
    "plan": "plan = await asyncio.to_thread(df.amr.plan, ...)",
}


@overload
def start(
    frame: Frame,
    task: str | None = None,
    *,
    output: type[list[Any]],
    by: Groups = None,
    **options: Unpack[QuestionOptions[Kind]],
) -> Run[Result[pd.DataFrame, Kind]]: ...
@overload
def start(
    frame: Frame,
    task: str | None = None,
    *,
    output: type[Answer],
    by: None = None,
    **options: Unpack[QuestionOptions[Kind]],
) -> Run[Result[Answer, Kind]]: ...
@overload
def start(
    frame: Frame,
    task: str | None = None,
    *,
    output: Any = None,
    by: Groups = None,
    **options: Unpack[QuestionOptions[Kind]],
) -> Run[Result[Any, Kind]]: ...
@user_traceback
@has_options(QuestionOptions)
def start(
    frame: Frame,
    task: str | None = None,
    *,
    output: Any = None,
    by: Groups = None,
    **options: Unpack[QuestionOptions],
) -> Run[Any]:
    """Begin a ``map_reduce`` and give the ``Run``: ``await`` it, or ask it for its ``result()``.

    Takes what ``map_reduce`` takes. The run goes on in the background whoever waits for it, also
    after ``break`` out of ``for finding in run``; ``with df.amr.start(...) as run:`` stops it with
    the block. Its warnings are those of the line that started it.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        PlanError: the plan cannot be used, or a task leaves something open and the model cannot
            plan; likewise.
    """
    question = {"task": task, "output": output, "by": by}
    return _begin("map_reduce", frame, question, options, QuestionOptions, name="start").begun()


@overload
def map_reduce(
    frame: Frame,
    task: str | None = None,
    *,
    output: type[list[Any]],
    by: Groups = None,
    **options: Unpack[QuestionOptions[Kind]],
) -> Result[pd.DataFrame, Kind]: ...
@overload
def map_reduce(
    frame: Frame,
    task: str | None = None,
    *,
    output: type[Answer],
    by: None = None,
    **options: Unpack[QuestionOptions[Kind]],
) -> Result[Answer, Kind]: ...
@overload
def map_reduce(
    frame: Frame,
    task: str | None = None,
    *,
    output: Any = None,
    by: Groups = None,
    **options: Unpack[QuestionOptions[Kind]],
) -> Result[Any, Kind]: ...
@user_traceback
@has_options(QuestionOptions)
def map_reduce(
    frame: Frame,
    task: str | None = None,
    *,
    output: Any = None,
    by: Groups = None,
    **options: Unpack[QuestionOptions],
) -> Result[Any]:
    """Read every row with a model, write findings back as columns, reduce them to an answer.

    Args:
        frame: the rows, in whatever ``amr.as_frame`` takes; never changed.
        task: the question, in a sentence; what is not given below is planned from it.
        output: the answer's type: ``str int float bool``, a pydantic model, or ``list[Model]`` (a
            frame). Default: what the reduce gives.
        by: what to group by, as in ``groupby``: columns or index levels, a Series with the frame's
            index, a function or a dict of index labels, a ``pd.Grouper``, a list of these, or
            ``amr.By``; the answer is then a summary frame, one row per group.
    {options}

    Returns:
        A ``Result`` with ``output frame findings plan usage failures trace``. If rows failed, a
        ``FailureWarning`` says how many of them an answer that is computed rests on.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early; its ``partial`` is the ``Result`` until then. It is a
            ``ModelError`` if the service serves nothing more (a wrong key or model, a server gone),
            ``MapFailed`` or ``BudgetExceeded`` under ``errors="raise"``; an exception of a function
            of yours is its ``__cause__``.
        PlanError: the plan cannot be used, or a task leaves something open that no planner could
            say; no row was sent. The message writes out the call that needs no planner.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> df = pd.DataFrame({"text": ["good", "bad", "good again"]})
        >>> def lengths(shard):
        ...     return [{"length": len(text)} for text in shard["text"]]
        >>> result = df.amr.map_reduce(map=lengths, reduce={"length": "sum"})
        >>> int(result.output["length"])
        17
    """
    question = {"task": task, "output": output, "by": by}
    run = _begin("map_reduce", frame, question, options, QuestionOptions)
    return cast("Result[Any]", run.result())


@user_traceback
@has_options(MapOptions)
def map(  # noqa: A001 (this library's word)
    frame: Frame, instruction: Map | None = None, **options: Unpack[MapOptions]
) -> pd.DataFrame:
    """Find something in every row: the frame plus one column per finding field.

    Args:
        frame: the rows, in whatever ``amr.as_frame`` takes; never changed.
        instruction: what to find: a text, a function, or a dict of them by name, as ``map=`` of
            ``map_reduce``.
    {options}

    Returns:
        A new frame: same index, same order; ``<NA>`` where a unit failed, which a
        ``FailureWarning`` tells.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early, as in ``map_reduce``; under ``errors="raise"`` with
            ``MapFailed``.
    """
    run = _begin("map", frame, {"map": instruction}, options, MapOptions)
    return cast("pd.DataFrame", run.result())


@user_traceback
@has_options(MapperOptions)
def mapper(
    instruction: Map | None = None, *unnamed: object, **options: Unpack[MapperOptions]
) -> FrameMapper:
    """Make a map without its frame, which can be pickled: for engines that hand out partitions.

    It takes what ``map`` takes, and gives each partition what that gives. The types of its columns
    are known before it runs, and a partition has them whatever is in it. Defaults that are set
    here, such as the model, hold wherever it runs. A key does not enter the pickle: it is in the
    environment of the process that unpickles it.

    Each partition is a run: its rows are judged without those of others, a budget holds for it
    alone, and ``errors="coerce"`` leaves ``<NA>`` in what failed of it. ``plan={"status": True}``
    adds columns that say of each row what became of it.

    Args:
        instruction: what to find: a text, a function, or a dict of them by name, as ``map=`` of
            ``map_reduce`` takes. None takes it from the plan. A task is planned before, once, from
            some rows: ``amr.mapper(plan=rows.amr.plan(task))``. Columns of a function need types
            in ``finding=``.
        unnamed: none; a frame is what the mapper is called with.
    {options}

    Returns:
        A ``FrameMapper``: ``mapper(frame)``, ``mapper.batches(iterator)``, ``mapper.meta(frame)``,
        ``mapper.arrow_schema(schema)``, ``mapper.spark_schema(sdf)``.

    Raises:
        UsageError: an argument cannot be used.
        PlanError: the plan cannot be used.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> def lengths(shard):
        ...     return [{"length": len(text)} for text in shard["text"]]
        >>> mapper = amr.mapper(lengths, finding={"length": int})
        >>> df = pd.DataFrame({"text": ["good", "bad"]}, index=["a", "b"])
        >>> mapper(df)
           text  length
        a  good       4
        b   bad       3
        >>> mapper.meta(df).dtypes["length"]
        int64[pyarrow]
    """
    if unnamed or "frame" in options or _is_frame(instruction):
        raise UsageError("mapper() takes no frame: mapper = amr.mapper(...), then mapper(frame).")
    for name in options:
        if name in _NOT_OF_A_MAPPER:
            raise ArgumentError(f"mapper() takes no {name!r}. {_NOT_OF_A_MAPPER[name]}")
    check_keywords("mapper", options, option_types(MapperOptions))
    from pandas_amr._plan.call import Call  # noqa: PLC0415 (see the module's docstring)
    from pandas_amr._run.frame_mapper import mapper_of  # noqa: PLC0415

    return mapper_of(Call(verb="map", frame=None, map=instruction, **options))


def _is_frame(value: object) -> bool:
    """Tell whether a value is a frame or a table, of whatever library."""
    return any(hasattr(value, name) for name in ("columns", "iloc", "__arrow_c_stream__"))


@user_traceback
@has_options(PartOptions)
def filter(  # noqa: A001 (this library's word)
    frame: Frame, criterion: Criterion, **options: Unpack[PartOptions]
) -> pd.DataFrame:
    """Keep the rows that meet a criterion, in order, with their labels.

    With ``errors="coerce"`` a unit that failed is kept, told by a ``FailureWarning`` and listed in
    ``amr.result_of(frame).failures``: no row is dropped because it could not be read. So is one
    whose turn did not come before the budget was used up.
    A row without content meets no criterion that a model reads: it is dropped, and has the status
    ``empty`` in ``amr.result_of(frame).status``.

    Args:
        frame: the rows, in whatever ``amr.as_frame`` takes; never changed.
        criterion: what a row must meet: a text, an ``Agent``, or a function of a shard's frame that
            gives one bool per row, matched with the rows as ``map=`` of ``map_reduce`` does.
    {options}

    Returns:
        Some of the frame's rows, in the frame's order.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early, as in ``map_reduce``; under ``errors="raise"`` with
            ``MapFailed``.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> df = pd.DataFrame({"n": [1, 2, 3]}, index=["a", "b", "c"])
        >>> df.amr.filter(lambda shard: shard["n"] != 2)
           n
        a  1
        c  3
    """
    run = _begin("filter", frame, {"map": criterion}, options, PartOptions)
    return cast("pd.DataFrame", run.result())


@user_traceback
@has_options(Options)
def reduce(
    frame: Frame,
    instruction: Reduce,
    *,
    output: Any = None,
    by: Groups = None,
    **options: Unpack[Options],
) -> Any:
    """Reduce columns that are already there to a scalar, a text, an object or a summary frame.

    Args:
        frame: the rows, which are the findings here, in whatever ``amr.as_frame`` takes; never
            changed.
        instruction: a text (agents, in a tree), a function of the frame, or a dict of pandas
            aggregations.
        output: the answer's type, as in ``map_reduce``.
        by: what to group by, as in ``map_reduce``.
    {options}

    Returns:
        The answer alone.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early, as in ``map_reduce``.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> df = pd.DataFrame({"shop": ["a", "a", "b"], "stars": [5, 3, 4]})
        >>> df.amr.reduce({"stars": "mean"}, by="shop")
              stars
        shop
        a       4.0
        b       4.0
    """
    question = {"reduce": instruction, "output": output, "by": by}
    return _begin("reduce", frame, question, options, Options).result()


@user_traceback
@has_options(QuestionOptions)
def plan(
    frame: Frame,
    task: str | None = None,
    *,
    output: Any = None,
    by: Groups = None,
    **options: Unpack[QuestionOptions],
) -> Plan:
    """Derive the plan of a ``map_reduce`` with its estimate; nothing is mapped.

    Takes what ``map_reduce`` takes; costs at most one call, and one more if its answer has to be
    mended. Without a task and a reduce, the plan reduces by type: counts of choices, means of
    numbers.

    Returns:
        A ``Plan``: look at it, ``replace`` fields, keep its JSON, pass it as ``plan=``.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early, as in ``map_reduce``.
        PlanError: as in ``map_reduce``.
    """
    question = {"task": task, "output": output, "by": by}
    return cast("Plan", _begin("plan", frame, question, options, QuestionOptions).result())


def _begin(
    verb: Any,
    frame: Any,
    question: Mapping[str, Any],
    options: Mapping[str, Any],
    kind: type,
    *,
    name: str = "",
) -> Run[Any]:
    """Check the keywords of a verb and make its run.

    Raises:
        UsageError: an argument cannot be used, or what is no awaitable is awaited.
    """
    own = [one for one in question if one in {"task", "output", "by"}]
    check_keywords(name or verb, options, [*own, *option_types(kind)])
    if name != "start" and is_awaited():
        raise UsageError(_IN_ASYNC_CODE.format(verb=verb, way=_ASYNC_WAYS[verb]))
    from pandas_amr._engines.choice import begin_on_engine  # noqa: PLC0415 (see above)
    from pandas_amr._plan.call import Call  # noqa: PLC0415
    from pandas_amr._run.run import run_of  # noqa: PLC0415

    call = Call(verb=verb, frame=frame, **question, **options)
    run = begin_on_engine(call)
    return run_of(call) if run is None else run
