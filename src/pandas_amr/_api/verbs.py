"""The verbs, as typed functions; ``df.amr`` binds the same ones to a frame.

Importing this costs nothing: what a verb needs is imported when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    import pandas as pd
    from openai import AsyncOpenAI
    from pydantic import BaseModel

    from pandas_amr._agent.agent import Agent
    from pandas_amr._journal.journal import Journal
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.usage import Budget
    from pandas_amr._result.result import Result
    from pandas_amr._run.run import Run
    from pandas_amr._units.by import By
    from pandas_amr.models.base import LM
    from pandas_amr.tools import PythonREPLTool, Tool

    Columns: TypeAlias = Hashable | slice | Sequence[Hashable | slice] | None
    Key: TypeAlias = Hashable | pd.Series | pd.Grouper | Callable[[Any], Any] | Mapping[Any, Any]
    Groups: TypeAlias = Key | list[Any] | By | None
    Axis: TypeAlias = Literal["rows", "columns"]
    Finding: TypeAlias = type[BaseModel | list[Any]] | Mapping[str, Any] | None
    Map: TypeAlias = (
        str
        | Agent
        | Callable[[pd.DataFrame], Any]
        | Mapping[str, str | Agent | Callable[[pd.DataFrame], Any]]
    )
    Criterion: TypeAlias = str | Agent | Callable[[pd.DataFrame], Any]
    Reduce: TypeAlias = str | Agent | Callable[[pd.DataFrame], Any] | Mapping[str, Any]
    Tools: TypeAlias = Iterable[Tool | PythonREPLTool | Callable[..., Any]] | None
    PlanLike: TypeAlias = Plan | Mapping[str, Any] | str | Path
    Model: TypeAlias = LM | str | Mapping[str, LM | str] | AsyncOpenAI | None
    Errors: TypeAlias = Literal["coerce", "raise"] | None


def start(
    frame: pd.DataFrame,
    task: str | None = None,
    *,
    columns: Columns = None,
    axis: Axis | None = None,
    finding: Finding = None,
    map: Map | None = None,
    reduce: Reduce | None = None,
    output: Any = None,
    by: Groups = None,
    tools: Tools = None,
    plan: PlanLike = "auto",
    lm: Model = None,
    max_parallelism: int | None = None,
    max_steps: int | None = None,
    errors: Errors = None,
    budget: Budget | None = None,
    journal: Journal | str | Path | bool | None = None,
    progress: bool | None = None,
) -> Run[Result]:
    """Begin a ``map_reduce`` and give the ``Run``: ``await`` it, or ask it for its ``result()``.

    Takes what ``map_reduce`` takes.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        PlanError: the plan cannot be used, or a task leaves something open and the model cannot plan; likewise.
    """
    return _run_of("map_reduce", **locals()).begun()


def map_reduce(
    frame: pd.DataFrame,
    task: str | None = None,
    *,
    columns: Columns = None,
    axis: Axis | None = None,
    finding: Finding = None,
    map: Map | None = None,
    reduce: Reduce | None = None,
    output: Any = None,
    by: Groups = None,
    tools: Tools = None,
    plan: PlanLike = "auto",
    lm: Model = None,
    max_parallelism: int | None = None,
    max_steps: int | None = None,
    errors: Errors = None,
    budget: Budget | None = None,
    journal: Journal | str | Path | bool | None = None,
    progress: bool | None = None,
) -> Result:
    """Read every row with a model, write each finding back as columns, and reduce them to an answer.

    Args:
        frame: the rows; never changed.
        task: the question, in a sentence; what is not given below is planned from it.
        columns: the content columns that agents read: a label, a list of labels, or a slice of them as in
            ``df.loc[:, a:b]``; with several levels of labels, one of the first level stands for all below it;
            default: all.
        axis: ``"columns"`` makes each content column a unit (its name, type, profile and sampled values), and the frame
            of the result one row a column.
        finding: what to find in a unit: a pydantic model, a dict of types, or nothing for a text column ``finding``;
            ``list[Model]`` where a unit holds none or many.
        map: the agents' instruction; a function ``f(shard_frame)`` that gives a frame or a list of findings; or a dict
            of them by name, side by side over the same shards, each with columns of its own. A function's rows are
            those of the shard in their order if they have its own index (``index=shard.index``) or a fresh one, and are
            matched by label if they have its labels in another order, or by number if they have a column ``unit`` with
            each row's number in the shard, from 0. What does not show which rows are meant is an error that says what
            would: doubled labels in another order, or a fresh index on a shard with these labels in another order.
        reduce: the reducers' instruction (agents, in a tree); a function ``f(findings_frame)``; or a dict of pandas
            aggregations by column, exact and without a model. Of lists the values in them are counted. With
            ``list[Model]`` the records' fields are aggregated over the records, the frame's own columns over the units:
            each counts once, units without a record too; once per group in which it has a record if a field of the
            records groups or chooses them.
        output: the answer's type: ``str int float bool``, a pydantic model, or ``list[Model]`` (a frame).
        by: what to group by, as in ``groupby``: columns or index levels, a Series with the frame's index, a function or
            a dict of index labels, a ``pd.Grouper``, a list of these, or ``amr.By``; the answer is then a summary
            frame, one row per group.
        tools: ``amr.Tool`` objects or plain functions that agents may call.
        plan: ``"auto"``, a ``Plan``, its JSON or a path to it, or a dict of the fields to fix.
        lm: the model: ``amr.LM(...)``, a model's name, ``"local"``, an ``openai.AsyncOpenAI`` client, or a dict of them
            by phase: ``{"plan": ..., "map": ..., "reduce": ...}``.
        max_parallelism: most requests in flight at once.
        max_steps: most turns of an agent with tools, before one last turn without (default 6).
        errors: ``"coerce"`` leaves ``<NA>`` in failed units' columns and lists them; ``"raise"`` stops at a failure.
        budget: ``amr.Budget(money=, tokens=, calls=, seconds=)``: at the limit the run stops cleanly.
        journal: where what is paid for is kept, so that the same call again pays only for what is new: a path,
            ``amr.Journal(path)``, or False; default: a file in the user's cache folder.
        progress: whether a bar is shown; default: in terminals and notebooks.

    Returns:
        A ``Result`` with ``output frame findings plan usage failures trace``.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early; its ``partial`` is the ``Result`` until then. It is a ``ModelError`` where the
            service serves nothing more (a wrong key or model, a server gone), ``MapFailed`` or ``BudgetExceeded``
            under ``errors="raise"``; an exception of a function of yours is its ``__cause__``.
        PlanError: the plan cannot be used, or a task leaves something open that no planner could say; no row was sent.
            The message writes out the call that needs no planner.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> df = pd.DataFrame({"text": ["good", "bad", "good again"]})
        >>> def lengths(shard):
        ...     return [{"length": len(text)} for text in shard["text"]]
        >>> result = df.amr.map_reduce(map=lengths, reduce={"length": "sum"})
        >>> int(result.output["length"])
        17
    """
    return cast("Result", _run_of("map_reduce", **locals()).result())


def map(  # noqa: A001 (this library's word)
    frame: pd.DataFrame,
    instruction: Map | None = None,
    *,
    finding: Finding = None,
    columns: Columns = None,
    axis: Axis | None = None,
    tools: Tools = None,
    plan: PlanLike = "auto",
    lm: Model = None,
    max_parallelism: int | None = None,
    max_steps: int | None = None,
    errors: Errors = None,
    budget: Budget | None = None,
    journal: Journal | str | Path | bool | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Find something in every row: the frame plus one column per finding field.

    Args:
        frame: the rows; never changed.
        instruction: what to find: a text, a function, or a dict of them by name, as ``map=`` of ``map_reduce``.
        finding: the type of a finding; default: a text column ``finding``.
        columns: the content columns; default: all.
        axis: as in ``map_reduce``: with ``"columns"`` a data dictionary in one call.
        tools: as in ``map_reduce``.
        plan: as in ``map_reduce``.
        lm: as in ``map_reduce``.
        max_parallelism: as in ``map_reduce``.
        max_steps: as in ``map_reduce``.
        errors: as in ``map_reduce``.
        budget: as in ``map_reduce``.
        journal: as in ``map_reduce``.
        progress: as in ``map_reduce``.

    Returns:
        A new frame: same index, same order; ``<NA>`` where a unit failed, which a ``FailureWarning`` tells.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early, as in ``map_reduce``; under ``errors="raise"`` with ``MapFailed``.
    """
    given = dict(locals())
    given["map"] = given.pop("instruction")
    return cast("pd.DataFrame", _run_of("map", **given).result())


def filter(  # noqa: A001 (this library's word)
    frame: pd.DataFrame,
    criterion: Criterion,
    *,
    columns: Columns = None,
    tools: Tools = None,
    plan: PlanLike = "auto",
    lm: Model = None,
    max_parallelism: int | None = None,
    max_steps: int | None = None,
    errors: Errors = None,
    budget: Budget | None = None,
    journal: Journal | str | Path | bool | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Keep the rows that meet a criterion, in order, with their labels.

    Args:
        frame: the rows; never changed.
        criterion: what a row must meet: a text, an ``Agent``, or a function of a shard's frame: one bool a row,
            matched with the rows as ``map=`` of ``map_reduce`` does.
        columns: the content columns; default: all.
        tools: as in ``map_reduce``.
        plan: as in ``map_reduce``.
        lm: as in ``map_reduce``.
        max_parallelism: as in ``map_reduce``.
        max_steps: as in ``map_reduce``.
        errors: with ``"coerce"`` a unit that failed is kept, told by a ``FailureWarning`` and listed in
            ``amr.result_of(frame).failures``: no row is dropped because it could not be read. ``"raise"`` stops.
        budget: as in ``map_reduce``; a unit whose turn did not come is kept, too.
        journal: as in ``map_reduce``.
        progress: as in ``map_reduce``.

    Returns:
        Some of the frame's rows, in the frame's order.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early, as in ``map_reduce``; under ``errors="raise"`` with ``MapFailed``.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> df = pd.DataFrame({"n": [1, 2, 3]}, index=["a", "b", "c"])
        >>> df.amr.filter(lambda shard: shard["n"] != 2)
           n
        a  1
        c  3
    """
    given = dict(locals())
    given["map"] = given.pop("criterion")
    return cast("pd.DataFrame", _run_of("filter", **given).result())


def reduce(
    frame: pd.DataFrame,
    instruction: Reduce,
    *,
    output: Any = None,
    by: Groups = None,
    columns: Columns = None,
    tools: Tools = None,
    plan: PlanLike = "auto",
    lm: Model = None,
    max_parallelism: int | None = None,
    max_steps: int | None = None,
    errors: Errors = None,
    budget: Budget | None = None,
    journal: Journal | str | Path | bool | None = None,
) -> Any:
    """Reduce columns that are already there to a scalar, a text, an object or a summary frame.

    Args:
        frame: the rows, which are the findings here; never changed.
        instruction: a text (agents, in a tree), a function of the frame, or a dict of pandas aggregations.
        output: as in ``map_reduce``.
        by: as in ``map_reduce``.
        columns: the columns that reduce agents read; default: all.
        tools: as in ``map_reduce``.
        plan: as in ``map_reduce``.
        lm: as in ``map_reduce``.
        max_parallelism: as in ``map_reduce``.
        max_steps: as in ``map_reduce``.
        errors: as in ``map_reduce``.
        budget: as in ``map_reduce``.
        journal: as in ``map_reduce``.

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
    given = dict(locals())
    given["reduce"] = given.pop("instruction")
    return _run_of("reduce", **given).result()


def plan(
    frame: pd.DataFrame,
    task: str | None = None,
    *,
    columns: Columns = None,
    axis: Axis | None = None,
    finding: Finding = None,
    map: Map | None = None,
    reduce: Reduce | None = None,
    output: Any = None,
    by: Groups = None,
    tools: Tools = None,
    plan: PlanLike = "auto",
    lm: Model = None,
    max_parallelism: int | None = None,
    max_steps: int | None = None,
    errors: Errors = None,
    budget: Budget | None = None,
    journal: Journal | str | Path | bool | None = None,
    progress: bool | None = None,
) -> Plan:
    """Derive the plan of a ``map_reduce`` with its estimate; nothing is mapped.

    Takes what ``map_reduce`` takes; costs at most one call, and one more where its answer has to be mended. Without a
    task and a reduce, the plan reduces by type: counts of choices, means of numbers.

    Returns:
        A ``Plan``: look at it, ``replace`` fields, keep its JSON, pass it as ``plan=``.

    Raises:
        UsageError: an argument cannot be used; nothing was sent.
        RunStopped: the run ended early, as in ``map_reduce``.
        PlanError: as in ``map_reduce``.
    """
    return cast("Plan", _run_of("plan", **locals()).result())


def _run_of(verb: Any, **given: Any) -> Run[Any]:
    from pandas_amr._plan.call import Call  # noqa: PLC0415 (see the module's docstring)
    from pandas_amr._run.run import run_of  # noqa: PLC0415

    return run_of(Call(verb=verb, **given))
