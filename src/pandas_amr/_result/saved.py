"""A whole result in a folder: frames as Parquet, the rest as JSON; it comes back exactly. Never a pickle."""

from __future__ import annotations

import io
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from pandas_amr import errors
from pandas_amr._plan.aggregations import column_of, function_of, is_named, name_of
from pandas_amr._plan.plan import read_plan
from pandas_amr._records.folders import check_folder, replace_folder
from pandas_amr._result import saved_before
from pandas_amr._units.codec import CannotEncode, decode_value, encode
from pandas_amr._units.frame_codec import (
    REFUSED,
    Encoded,
    decode_table,
    encode_frame,
    first_difference,
)
from pandas_amr.errors import AMRWarning, PlanError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    from pandas_amr._plan.plan import Plan

FORMAT = 2
TOLD = "result.json"
PLAN = "plan.json"
FRAMES = ("frame", "findings", "usage", "failures", "trace", "status", "sources")
FIGURES = ("seconds", "sandbox", "coverage", "stopped", "total")
OWN = re.compile(rf"{TOLD}|{PLAN}|({'|'.join(FRAMES)}|output[-\d]*)\.parquet")
OWN_STAGE = re.compile(r"stage-\d+")


class Lost:
    """A function that a result was computed by, in a result that was loaded: its name is known, and nothing else."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *_: Any) -> Any:
        """Refuse to compute anything.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a function is not saved with a result; score the result of the run itself"
        )


def save_result(parts: Mapping[str, Any], given: str | os.PathLike[str]) -> None:
    """Write a result, by its parts, as a folder, in the place of one that was written so before.

    Raises:
        UsageError: another folder or file is there, or a part of the result would not come back; nothing is written.
    """
    folder = check_folder(given, is_saved)
    replace_folder(folder, _files(parts))


def load_parts(folder: Path) -> dict[str, Any]:
    """Bring back what was saved: frames, plan, output and figures, by name.

    Raises:
        UsageError: the folder holds no result, one of a later version, or a damaged one.
    """
    try:
        told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
        known = told["format"]
    except OSError:
        raise UsageError(f"{folder} holds no saved result.") from None
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f"{folder} holds no saved result: its {TOLD} is not one that save() wrote."
        ) from None
    if known not in {FORMAT, saved_before.FORMAT}:
        raise UsageError(
            f"{folder} was saved in format {known}; this version reads up to {FORMAT}. Upgrade it."
        )
    try:
        if known == saved_before.FORMAT:
            return saved_before.load_parts(folder)
        return _parts(folder)
    except (OSError, KeyError, IndexError, *REFUSED) as error:
        raise UsageError(
            f"The result in {folder} is damaged ({type(error).__name__}): save it anew."
        ) from error


def is_saved(folder: Path) -> bool:
    """Whether a folder is a saved result and holds nothing else."""
    try:
        told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(told, dict) or not {"format", "total", "output"} <= told.keys():
        return False
    for entry in folder.iterdir():
        stage = (
            OWN_STAGE.fullmatch(entry.name)
            and entry.is_dir()
            and not entry.is_symlink()
            and is_saved(entry)
        )
        if not stage and not (OWN.fullmatch(entry.name) and entry.is_file()):
            return False
    return True


# To files and back


class _Tables:
    """The tables of a result as files, each read again before it counts; a frame in the output is one of them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.labels: dict[str, Any] = {}
        self.frames: dict[str, pd.DataFrame] = {}
        self._aside = 0

    def add(self, part: str, name: str, frame: pd.DataFrame) -> None:
        """Encode a frame.

        Raises:
            UsageError: it would not come back.
        """
        sink = io.BytesIO()
        try:
            encoded = encode_frame(frame)
            pq.write_table(encoded.table, sink)
            read = Encoded(
                pq.read_table(io.BytesIO(sink.getvalue())), json.loads(json.dumps(encoded.labels))
            )
            self.frames[name] = decode_table(read)
            again = encode_frame(self.frames[name])
        except CannotEncode as error:
            raise _refusal(part, str(error)) from None
        except REFUSED:
            raise _refusal(part, _unwritten(encoded)) from None
        changed = first_difference(encoded.table, again.table)
        if changed is not None or again.labels != encoded.labels:
            raise _refusal(part, _place(encoded, changed))
        self.files[f"{name}.parquet"] = sink.getvalue()
        self.labels[name] = encoded.labels

    def put_aside(self, value: pd.DataFrame | pd.Series) -> dict[str, Any]:
        """Take a table out of the output, and give what stands for it."""
        name = f"output-{self._aside}"
        self._aside += 1
        if isinstance(value, pd.DataFrame):
            self.add("output", name, value)
            return {"DataFrame": [name]}
        frame = value.rename(None).to_frame()
        frame.attrs = value.attrs
        self.add("output", name, frame)
        return {"Series": [name, encode(value.name)]}


def _encoded_output(output: Any, plan: Plan, tables: _Tables) -> Any:
    """An output as JSON, once it came back; of models their fields, since the plan's file has their type.

    Raises:
        UsageError: it would not come back.
    """
    try:
        encoded = encode(output, tables.put_aside)
        again = decode_value(json.loads(json.dumps(encoded)), _output_makers(tables.frames, plan))
        if encode(again, _Tables().put_aside) == encoded:
            return encoded
        why = f"a {type(output).__name__} of parts that change"
    except CannotEncode as error:
        if plan.output is not None and _holds_models(output):
            return _encoded_models(output, plan)
        why = str(error)
    except UsageError:  # of a table in it
        raise
    except REFUSED:
        why = "it holds itself, too much in one another, or a whole number of thousands of digits"
    raise _refusal("output", why)


def _encoded_models(output: Any, plan: Plan) -> Any:
    try:
        fields = _fields(plan.output, output)
        encoded = {"typed": [encode(fields)]}
        loaded = read_plan(plan.to_json())
        again = decode_value(encoded, _output_makers({}, loaded))
        changed = encode(_fields(loaded.output, again)) != encode(fields)
    except (PydanticSerializationError, ValidationError, CannotEncode):
        changed = True
    if changed:
        raise _refusal("output", "a model that the type in the plan's JSON does not hold")
    return encoded


def _fields(kind: Any, output: Any) -> Any:
    return TypeAdapter(kind).dump_python(output, by_alias=True, warnings="error")


def _holds_models(value: Any) -> bool:
    if isinstance(value, list | tuple | dict):
        return any(map(_holds_models, value.values() if isinstance(value, dict) else value))
    return isinstance(value, BaseModel)


def _refusal(part: str, why: str) -> UsageError:
    holds = "" if why.startswith(("column ", "the ", "attrs ", "it ")) else "it holds "
    return UsageError(
        f"result.{part} cannot be saved: {holds}{why}, which would not come back as it is. Nothing was written. Put "
        "values of Python's or pandas' own types in its place (texts, say: .map(str)), in a copy: "
        f"dataclasses.replace(result, {part}=...).save(folder)."
    )


def _unwritten(encoded: Encoded) -> str:
    """What Parquet refuses of a table."""
    for name in encoded.table.column_names:
        try:
            pq.write_table(encoded.table.select([name]), io.BytesIO())
        except REFUSED:
            return _place(encoded, name)
    return _place(encoded, None)


def _place(encoded: Encoded, array: str | None) -> str:
    """What an array of a table is in its frame."""
    if array is None or array.startswith("i"):
        return "the index, or the names of the columns, hold labels of a rare kind"
    columns = decode_value(encoded.labels["columns"])
    return f"column {columns[int(array[1:])]!r} is of a type that Parquet does not hold"


def _files(parts: Mapping[str, Any], place: str = "") -> dict[str, bytes]:
    """The files of a result and its stages, by their paths in the folder.

    Raises:
        UsageError: a part would not come back.
    """
    tables = _Tables()
    for part in FRAMES:
        if parts[part] is not None:
            tables.add(part, part, parts[part])
    try:
        plan = parts["plan"].to_json()
    except PlanError as error:
        raise UsageError(f"result.plan cannot be saved: {error} Nothing was written.") from None
    told = {
        "format": FORMAT,
        **{name: parts[name] for name in FIGURES},
        "warnings": [[type(one).__name__, str(one)] for one in parts["warnings"]],
        "aggregations": [
            [encode(name), _encoded_how(how)] for name, how in parts["aggregations"].items()
        ],
        "stages": len(parts["stages"]),
        "output": _encoded_output(parts["output"], parts["plan"], tables),
        "frames": tables.labels,
    }
    files = {PLAN: plan.encode(), **tables.files, TOLD: json.dumps(told, indent=1).encode()}
    files = {place + name: data for name, data in files.items()}
    for number, stage in enumerate(parts["stages"], start=1):
        files |= _files(stage, f"{place}stage-{number}/")
    return files


def _parts(folder: Path) -> dict[str, Any]:
    """The parts of a result and its stages, as a folder has them."""
    told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    plan = read_plan(folder / PLAN)
    tables = {
        name: Encoded(pq.read_table(folder / f"{name}.parquet"), how)
        for name, how in told["frames"].items()
    }
    frames = {name: decode_table(encoded) for name, encoded in tables.items()}
    aggregations = [
        (decode_value(name), decode_value(how, {"function": Lost}))
        for name, how in told["aggregations"]
    ]
    return {
        **{name: frames.get(name) for name in FRAMES},
        **{name: told[name] for name in FIGURES},
        "plan": plan,
        "output": decode_value(told["output"], _output_makers(frames, plan)),
        "warnings": tuple(_warning(*one) for one in told["warnings"]),
        "aggregations": dict(aggregations),
        "stages": [_parts(folder / f"stage-{number}") for number in range(1, told["stages"] + 1)],
    }


def _output_makers(frames: Mapping[str, pd.DataFrame], plan: Plan) -> dict[str, Any]:
    """What makes the parts of an output that stand aside, or are of the plan's type."""
    validated = TypeAdapter(Any if plan.output is None else plan.output).validate_python
    return {
        "DataFrame": frames.__getitem__,
        "Series": partial(_series_at, frames),
        "typed": validated,
    }


def _series_at(frames: Mapping[str, pd.DataFrame], table: str, name: Hashable) -> pd.Series:
    series = frames[table].iloc[:, 0]
    series.name, series.attrs = name, frames[table].attrs
    return series


def _warning(name: str, text: str) -> AMRWarning:
    kind = getattr(errors, name, AMRWarning)
    return (
        kind(text) if isinstance(kind, type) and issubclass(kind, AMRWarning) else AMRWarning(text)
    )


def _encoded_how(how: Any) -> Any:
    """An aggregation as JSON; of a function its name."""
    if is_named(how):
        bound = getattr(how, "args", ()) or getattr(how, "kwargs", ())
        return {
            "tuple": [
                encode(column_of(None, how)),
                _encoded_how(Lost(name_of(how[1])) if bound else function_of(how)),
            ]
        }
    if isinstance(how, list):
        return [_encoded_how(one) for one in how]
    return how if isinstance(how, str) else {"function": [name_of(how)]}
