"""The keywords that verbs share: one definition of their names, types, words, defaults."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    import pandas as pd
    from distributed import Client
    from openai import AsyncOpenAI
    from typing_extensions import TypeVar as TypeVarWithDefault

    from pandas_amr._agent.agent import Agent
    from pandas_amr._journal.journal import Journal
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.events import Event
    from pandas_amr._records.usage import Budget
    from pandas_amr._units.by import By
    from pandas_amr.models.base import LM
    from pandas_amr.tools import PythonREPLTool, Tool

    Columns: TypeAlias = Hashable | slice | Sequence[Hashable | slice] | None
    Key: TypeAlias = Hashable | pd.Series | pd.Grouper | Callable[[Any], Any] | Mapping[Any, Any]
    Groups: TypeAlias = Key | list[Any] | By | None
    Axis: TypeAlias = Literal["rows", "columns"]
    ShardFunction: TypeAlias = Callable[[pd.DataFrame], Any]
    Map: TypeAlias = str | Agent | ShardFunction | Mapping[str, str | Agent | ShardFunction]
    Criterion: TypeAlias = str | Agent | ShardFunction
    Reduce: TypeAlias = str | Agent | ShardFunction | Mapping[str, Any]
    Tools: TypeAlias = Iterable[Tool | PythonREPLTool | Callable[..., Any]] | None
    PlanLike: TypeAlias = Plan | Mapping[str, Any] | str | Path
    Model: TypeAlias = LM | str | Mapping[str, LM | str] | AsyncOpenAI | None
    Errors: TypeAlias = Literal["coerce", "raise"] | None
    Level: TypeAlias = Literal["nodes", "full", "off"] | None
    OnEvent: TypeAlias = Callable[[Event], Any] | None

    Kind = TypeVarWithDefault("Kind", default=Any)  # what finding= is: the type of result.records
    Finding: TypeAlias = type[Kind] | Mapping[str, Any] | None
else:
    Kind = TypeVar("Kind")  # typing_extensions would make the import of the package longer

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
Function = TypeVar("Function", bound="Callable[..., Any]")


class Options(TypedDict, total=False):
    """What every verb takes, beside the question."""

    columns: Columns
    tools: Tools
    plan: PlanLike
    lm: Model
    max_parallelism: int | None
    max_steps: int | None
    errors: Errors
    budget: Budget | None
    journal: Journal | str | Path | bool | None
    progress: bool | None
    trace: Level
    on_event: OnEvent


class PartOptions(Options, total=False):
    """What a verb takes that can read its rows part by part."""

    out: str | Path | None
    engine: Client | None


class MapOptions(PartOptions, Generic[Kind], total=False):
    """What a verb takes that finds something in every row."""

    axis: Axis | None
    finding: Finding[Kind]


class MapperOptions(Options, Generic[Kind], total=False):
    """What a map takes that has no frame yet."""

    finding: Finding[Kind]


class QuestionOptions(MapOptions[Kind], Generic[Kind], total=False):
    """What a verb takes that maps and reduces."""

    map: Map | None
    reduce: Reduce | None


DEFAULTS: dict[str, Any] = {"plan": "auto"}  # of the others: None, so that amr.configure can set it

DESCRIPTIONS = {
    "columns": """\
the content columns that agents read: a label, a list of labels, or a slice of them as in
``df.loc[:, a:b]``; with several levels of labels, one of the first level stands for all below
it. Default: all.""",
    "axis": """\
``"columns"`` makes each content column a unit (its name, type, profile and sampled values),
and the frame of the result one row per column. Default: ``"rows"``.""",
    "finding": """\
what to find in a unit: a pydantic model, a dict of types, or ``list[Model]`` if a unit holds
none or many. Default: a text column ``finding``.""",
    "map": """\
the agents' instruction; a function ``f(shard_frame)`` that gives a frame or a list of
findings; or a dict of them by name, side by side over the same shards, each with columns of
its own. A function's rows are those of the shard in their order if they have its own index
(``index=shard.index``) or a fresh one, and are matched by label if they have its labels in
another order, or by number if they have a column ``unit`` with each row's number in the
shard, from 0. What does not show which rows are meant is an error that says what would:
doubled labels in another order, or a fresh index on a shard with these labels in another
order.""",
    "reduce": """\
the reducers' instruction (agents, in a tree); a function ``f(findings_frame)``; or a dict of
pandas aggregations by column, exact and without a model. Of lists the values in them are
counted. With ``list[Model]`` the records' fields are aggregated over the records, the frame's
own columns over the units: each counts once, units without a record too; once per group in
which it has a record if a field of the records groups or chooses them.""",
    "output": """\
the answer's type: ``str int float bool``, a pydantic model, or ``list[Model]`` (a frame).""",
    "by": """\
what to group by, as in ``groupby``: columns or index levels, a Series with the frame's index,
a function or a dict of index labels, a ``pd.Grouper``, a list of these, or ``amr.By``; the
answer is then a summary frame, one row per group.""",
    "out": """\
a folder for what is larger than memory. The first argument is then a path, a glob, a list of
paths, a pyarrow Dataset, a RecordBatchReader, or an iterator of frames. They are read in parts of
at most 100,000 rows and about 64 MB; each becomes a file of ``out``, and ``frame`` a Dataset over
these. The same call again goes on: it maps no part twice but for rows that failed.""",
    "engine": """\
where rows are mapped: a ``dask.distributed.Client``. Its workers map the rows part by part, within
one budget and one limit, for the journal of this process; planning and reducing stay here. Default:
in this process.""",
    "tools": "``amr.Tool`` objects or plain functions that agents may call. Default: none.",
    "plan": """\
``"auto"``, a ``Plan``, its JSON or a path to it, or a dict of the fields to fix. Default:
``"auto"``.""",
    "lm": """\
the model: ``amr.LM(...)``, a model's name, ``"local"``, an ``openai.AsyncOpenAI`` client, or
a dict of them by phase: ``{"plan": ..., "map": ..., "reduce": ...}``. Default: what
``AMR_MODEL`` names.""",
    "max_parallelism": "most requests in flight at once. Default: the plan's.",
    "max_steps": "most turns of an agent with tools, before one last turn without. Default: 6.",
    "errors": """\
``"coerce"`` leaves ``<NA>`` in failed units' columns and lists them; ``"raise"`` stops at a
failure. Default: ``"coerce"``.""",
    "budget": """\
``amr.Budget(money=, tokens=, calls=, seconds=)``: at the limit the run stops cleanly.
Default: none.""",
    "journal": """\
where what is paid for is kept, so that the same call again pays only for what is new: a path,
``amr.Journal(path)``, or False. Default: a file in the user's cache folder.""",
    "progress": "whether a bar is shown. Default: in terminals and notebooks, "
    "else as lines in the log at INFO; True writes these to stderr.",
    "trace": """\
what ``result.look(...)`` shows of an agent's work: ``"nodes"`` its turns, their cost, its code
and its errors, without the text of cells; ``"full"`` what it read and said, too, in a file of
its own beside the journal; ``"off"`` nothing. Default: ``"nodes"``.""",
    "on_event": """\
a function of one event (``amr.events``), called with all that happens in the run, in order, on a
thread of its own. If it raises, that is one warning, and it is not called again. Default: none.""",
}
DESCRIBED_HERE = "{options}\n"  # in a docstring: where the options are described


def has_options(kind: type) -> Callable[[Function], Function]:
    """Show the options of a verb in its signature and its docstring, and take no others.

    Type checkers read the options from ``**options: Unpack[kind]``; ``help`` and editors at run
    time read them from here.
    """

    def describe(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind != one.VAR_KEYWORD]
        annotations = option_types(kind)
        parameters = list(own)
        for name, annotation in annotations.items():
            default = DEFAULTS.get(name)
            parameters.append(
                inspect.Parameter(name, KEYWORD_ONLY, default=default, annotation=annotation)
            )
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        described = "".join(_describe(name) for name in annotations)
        # Python 3.13 takes the indentation out of docstrings, the ones before do not.
        docstring = inspect.cleandoc(function.__doc__ or "")
        function.__doc__ = docstring.replace(DESCRIBED_HERE, described)
        return function

    return describe


def option_types(kind: type) -> dict[str, Any]:
    """Return the options of a kind with their annotations, in the order in which they are shown."""
    types: dict[str, Any] = {}
    for name in DESCRIPTIONS:
        annotation = kind.__annotations__.get(name)
        if annotation is not None:
            types[name] = getattr(annotation, "__forward_arg__", annotation)
    return types


def _describe(name: str) -> str:
    first, *rest = DESCRIPTIONS[name].split("\n")
    lines = [f"    {name}: {first}\n", *(f"        {line}\n" for line in rest)]
    return "".join(lines)
