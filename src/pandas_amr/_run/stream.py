"""A call about what is larger than memory: its input, the folder of its output, what it refuses."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd

from pandas_amr._plan.call import Pipeline
from pandas_amr._plan.plan import read_plan
from pandas_amr._records.refused import show_refused
from pandas_amr._records.usage import Budget
from pandas_amr._result.part_files import OutFolder
from pandas_amr._units.batches import is_stream, list_paths, open_source
from pandas_amr._units.by import By
from pandas_amr._units.frames import as_frame
from pandas_amr._units.part_tables import PANDAS_INDEX, frame_of
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.settings import Settings
    from pandas_amr._plan.call import Call
    from pandas_amr._units.batches import Source

STREAMING = ("map_reduce", "map", "filter")
Undivided: TypeAlias = Literal["columns", "direct", "recipe"]
UNDIVIDED: dict[Undivided, str] = {
    "columns": 'axis="columns" profiles the whole frame; with out= rows are the units.',
    "direct": "plan={'direct': True} reads everything at once; leave it out with out=.",
    "recipe": "A recipe as map= does not go with out=: map its stages one by one.",
}


@dataclass(frozen=True)
class PartStream:
    """What a run reads part by part, and where its parts go."""

    source: Source
    folder: OutFolder


def open_stream(call: Call, settings: Settings) -> tuple[Call, PartStream]:
    """Open the input of a call with ``out=``.

    Returns:
        The call about a frame, a sample of the input; and the input.

    Raises:
        UsageError: the input, the folder or another argument does not go with ``out=``.
    """
    _check_call(call, settings)
    source = open_source(call.frame)
    _check_folder(call, source)
    columns = _content_columns(call, source)
    call = replace(call, frame=frame_of(source.sample), columns=columns)
    return call, PartStream(source, OutFolder(call.out))


def read_frame(rows: Any) -> pd.DataFrame:
    """Make a frame of what a call without ``out=`` is about.

    Raises:
        UsageError: it holds no rows; what can be read part by part takes ``out=``.
    """
    try:
        return as_frame(rows)
    except UsageError as error:
        if is_stream(rows):
            error.args = (f"{error} With out='folder/' it is read part by part.",)
        raise


def _check_call(call: Call, settings: Settings) -> None:
    """Refuse what needs all rows at once, or does not make parts."""
    _check_path(call)
    undivided = find_undivided(call)
    if undivided is not None:
        raise UsageError(UNDIVIDED[undivided])
    check_unconfirmed(call, settings)
    _check_groups(call.by)


def find_undivided(call: Call) -> Undivided | None:
    """Find what in a call makes no parts, but is about all rows at once."""
    plan = read_plan(call.plan)
    if "columns" in {call.axis, plan.axis}:
        return "columns"
    if plan.direct:
        return "direct"
    maps = call.map.values() if isinstance(call.map, dict) else [call.map]
    if any(isinstance(code, Pipeline) for code in maps):
        return "recipe"
    return None


def check_unconfirmed(call: Call, settings: Settings) -> None:
    """Refuse a budget that is to be confirmed, where the rows are not here to be estimated.

    Raises:
        UsageError: it is.
    """
    budget = call.budget if call.budget is not None else settings.budget
    if isinstance(budget, Budget) and budget.confirm is not None:
        raise UsageError("Budget(confirm=...) needs an estimate of all rows; leave it out here.")


def _check_path(call: Call) -> None:
    """Refuse what is no folder of this machine, and verbs without parts."""
    path = os.fspath(call.out) if isinstance(call.out, str | os.PathLike) else None
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise UsageError(f"out= takes the path of a folder, not {show_refused(call.out)}.")
    if "://" in os.fspath(call.out):
        raise UsageError(f"out= takes a folder of this machine, not {os.fspath(call.out)!r}.")
    try:
        Path(call.out).expanduser().exists()
        os.fsencode(call.out)
    except (OSError, ValueError, RuntimeError) as error:  # too long, or of no user's home
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"out={os.fspath(call.out)!r} is not a path: {reason}.") from None
    if call.verb not in STREAMING:
        raise UsageError(f"{call.verb}() makes no parts: out= goes with {', '.join(STREAMING)}.")


def _check_groups(by: object) -> None:
    """Refuse groups that are given row by row."""
    keys: Sequence[object] = [by]
    if isinstance(by, By):
        keys = by.keys
    elif isinstance(by, list):
        keys = by
    for key in keys:
        if isinstance(key, pd.Series | pd.Index):
            raise UsageError(
                f"by= takes columns with out=, and not a {type(key).__name__} of the rows."
            )


def _check_folder(call: Call, source: Source) -> None:
    """Refuse a folder that is read as well as written."""
    out = _resolve(call.out)
    is_read = any(_resolve(path).parent.is_relative_to(out) for path in source.files)
    if not out.is_file():  # that is refused as such
        is_read = is_read or any(_finds(pattern, out) for pattern in list_paths(call.frame))
    if is_read:
        raise UsageError(
            f"out={os.fspath(call.out)!r} is in the folder that is read: a later run would "
            "read its parts. Name one beside it."
        )


def _finds(pattern: str, folder: Path) -> bool:
    """Tell whether the files that a path or a glob names would be those in a folder, too."""
    whole = _resolve(pattern)
    base, recursive, _ = str(whole).partition("**")
    if recursive and folder.is_relative_to(base):
        return True
    return any(above.match(str(whole)) for above in (folder, *folder.parents))


def _resolve(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(Path(path).expanduser()))


def _content_columns(call: Call, source: Source) -> Any:
    """Leave out an index without a name that pandas wrote into a file, unless it is asked for."""
    if call.columns is not None or read_plan(call.plan).columns is not None:
        return call.columns
    every = source.schema.names
    content = [name for name in every if not name.startswith(PANDAS_INDEX)]
    if not content or len(content) == len(every):
        return None
    return content
