"""Save a whole result in a folder: frames as Parquet, the rest as JSON. Never a pickle."""

from __future__ import annotations

import datetime as dt
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
from pandas_amr._result import saved_format_1
from pandas_amr._result.records import TypeName
from pandas_amr._result.run_transcripts import RunTranscripts, decode_transcripts
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
RESULT = "result.json"
PLAN = "plan.json"
FRAMES = ("frame", "findings", "usage", "failures", "trace", "status", "sources", "spans")
FIGURES = ("seconds", "sandbox", "coverage", "stopped", "total")
TRANSCRIPTS = "transcripts.json"
OWN_FILE = re.compile(rf"{RESULT}|{PLAN}|{TRANSCRIPTS}|({'|'.join(FRAMES)}|output[-\d]*)\.parquet")
OWN_STAGE = re.compile(r"stage-\d+")


class NamedFunction:
    """The name of a function by which the answer of a loaded result was computed.

    The function itself is not saved.
    """

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


def save_result(parts: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write the parts of a result into a folder, and replace a result that was saved there.

    Raises:
        UsageError: the folder holds something else, or a part would not come back as it is;
            nothing is written then.
    """
    replace_folder(check_folder(folder, is_saved), _files(parts))


def load_parts(folder: Path) -> dict[str, Any]:
    """Load what was saved: frames, plan, output and figures, by name.

    Raises:
        UsageError: the folder holds no result, a damaged one, or one of a later version.
    """
    saved_format = _read_format(folder)
    if saved_format not in {FORMAT, saved_format_1.FORMAT}:
        raise UsageError(
            f"{folder} was saved in format {saved_format}; this version reads up to {FORMAT}. "
            "Upgrade pandas-amr."
        )
    try:
        if saved_format == saved_format_1.FORMAT:
            return saved_format_1.load_parts(folder)
        return _read_parts(folder)
    except (OSError, KeyError, IndexError, *REFUSED) as error:
        raise UsageError(
            f"The result in {folder} is damaged ({type(error).__name__}): save it again."
        ) from error


def _read_format(folder: Path) -> Any:
    try:
        return json.loads((folder / RESULT).read_text(encoding="utf-8"))["format"]
    except OSError:
        raise UsageError(f"{folder} holds no saved result.") from None
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f"{folder} holds no saved result: its {RESULT} is not one that save() wrote."
        ) from None


def is_saved(folder: Path) -> bool:
    """Whether a folder is a saved result and holds nothing else."""
    try:
        description = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(description, dict):
        return False
    if not {"format", "total", "output"} <= description.keys():
        return False
    return all(_is_own(entry) for entry in folder.iterdir())


def _is_own(entry: Path) -> bool:
    """Whether ``save`` wrote a file or a stage's folder."""
    if OWN_STAGE.fullmatch(entry.name):
        return entry.is_dir() and not entry.is_symlink() and is_saved(entry)
    return OWN_FILE.fullmatch(entry.name) is not None and entry.is_file()


# Write


def _files(parts: Mapping[str, Any], prefix: str = "") -> dict[str, bytes]:
    """Encode a result and its stages as files, by their paths in the folder.

    Raises:
        UsageError: a part would not come back as it is.
    """
    tables = _Tables()
    for part in FRAMES:
        if parts[part] is not None:
            tables.add(part, part, parts[part])
    try:
        plan = parts["plan"].to_json()
    except PlanError as error:
        raise UsageError(f"result.plan cannot be saved: {error} Nothing was written.") from None
    output = _encode_output(parts["output"], parts["plan"], tables)
    description = _describe(parts, output, tables)
    files = {f"{prefix}{PLAN}": plan.encode()}
    for name, data in tables.files.items():
        files[f"{prefix}{name}"] = data
    files |= _encode_transcripts(parts, prefix)
    files[f"{prefix}{RESULT}"] = json.dumps(description, indent=1).encode()
    for number, stage in enumerate(parts["stages"], start=1):
        files |= _files(stage, f"{prefix}stage-{number}/")
    return files


def _encode_transcripts(parts: Mapping[str, Any], prefix: str) -> dict[str, bytes]:
    """Encode what was taken down of agents, if anything was."""
    if parts["transcripts"] is None:
        return {}
    text = json.dumps(parts["transcripts"], ensure_ascii=False)
    return {f"{prefix}{TRANSCRIPTS}": text.encode("utf-8", "backslashreplace")}


def _describe(parts: Mapping[str, Any], output: object, tables: _Tables) -> dict[str, Any]:
    """Return what stands in a result's JSON file."""
    started: dt.datetime | None = parts["started"]
    aggregations: list[list[Any]] = []
    for name, how in parts["aggregations"].items():
        aggregations.append([encode(name), _encode_aggregation(how)])
    finding_types: list[list[Any]] = []
    for name, kind in parts["finding_types"].items():
        place = None if kind is None else [kind.module, kind.qualname, kind.many]
        finding_types.append([name, place])
    return {
        "format": FORMAT,
        **{name: parts[name] for name in FIGURES},
        "started": None if started is None else started.isoformat(),
        "warnings": [[type(warning).__name__, str(warning)] for warning in parts["warnings"]],
        "aggregations": aggregations,
        "finding_types": finding_types,
        "stages": len(parts["stages"]),
        "output": output,
        "frames": tables.labels,
    }


class _Tables:
    """The tables of a result as Parquet files; each file is read back before it counts."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.labels: dict[str, Any] = {}
        self.frames: dict[str, pd.DataFrame] = {}
        self._output_tables = 0

    def add(self, part: str, name: str, frame: pd.DataFrame) -> None:
        """Encode a frame.

        Raises:
            UsageError: it would not come back as it is.
        """
        sink = io.BytesIO()
        try:
            encoded = encode_frame(frame)
            pq.write_table(encoded.table, sink)
            labels = json.loads(json.dumps(encoded.labels))
            decoded = Encoded(pq.read_table(io.BytesIO(sink.getvalue())), labels)
            self.frames[name] = decode_table(decoded)
            again = encode_frame(self.frames[name])
        except CannotEncode as error:
            raise _refusal(part, str(error)) from None
        except REFUSED:
            raise _refusal(part, _describe_refused_column(encoded)) from None
        changed = first_difference(encoded.table, again.table)
        if changed is not None or again.labels != encoded.labels:
            raise _refusal(part, _describe_array(encoded, changed))
        self.files[f"{name}.parquet"] = sink.getvalue()
        self.labels[name] = encoded.labels

    def add_of_output(self, value: pd.DataFrame | pd.Series) -> dict[str, Any]:
        """Encode a table within the output, and return the JSON that refers to it."""
        name = f"output-{self._output_tables}"
        self._output_tables += 1
        if isinstance(value, pd.DataFrame):
            self.add("output", name, value)
            return {"DataFrame": [name]}
        frame = value.rename(None).to_frame()
        frame.attrs = value.attrs
        self.add("output", name, frame)
        return {"Series": [name, encode(value.name)]}


def _encode_output(output: object, plan: Plan, tables: _Tables) -> Any:
    """Encode an output as JSON, and check that it comes back as it is.

    Of models only the fields are encoded: the plan's file has their type.

    Raises:
        UsageError: it would not come back as it is.
    """
    try:
        encoded = encode(output, tables.add_of_output)
        decoders = _output_decoders(tables.frames, plan)
        again = decode_value(json.loads(json.dumps(encoded)), decoders)
        if encode(again, _Tables().add_of_output) == encoded:
            return encoded
        why = f"a {type(output).__name__} of parts that change"
    except CannotEncode as error:
        if plan.output is not None and _holds_models(output):
            return _encode_models(output, plan)
        why = str(error)
    except UsageError:  # about a table in the output
        raise
    except REFUSED:
        why = "it holds itself, is nested too deeply, or holds an integer of thousands of digits"
    raise _refusal("output", why)


def _encode_models(output: object, plan: Plan) -> Any:
    try:
        fields = _dump_models(plan.output, output)
        encoded = {"typed": [encode(fields)]}
        loaded = read_plan(plan.to_json())
        again = decode_value(encoded, _output_decoders({}, loaded))
        changed = encode(_dump_models(loaded.output, again)) != encode(fields)
    except (PydanticSerializationError, ValidationError, CannotEncode):
        changed = True
    if changed:
        raise _refusal("output", "a model that the type in the plan's JSON does not hold")
    return encoded


def _dump_models(kind: Any, output: Any) -> Any:
    return TypeAdapter(kind).dump_python(output, by_alias=True, warnings="error")


def _holds_models(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_models, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_models, value))
    return isinstance(value, BaseModel)


def _encode_aggregation(how: Any) -> Any:
    """Encode an aggregation as JSON; a function by its name."""
    if is_named(how):
        function = function_of(how)
        if getattr(how, "args", ()) or getattr(how, "kwargs", ()):
            # With its arguments bound, "quantile" is not pandas' quantile: keep the name only.
            function = NamedFunction(name_of(how[1]))
        return {"tuple": [encode(column_of(None, how)), _encode_aggregation(function)]}
    if isinstance(how, list):
        return [_encode_aggregation(function) for function in how]
    return how if isinstance(how, str) else {"function": [name_of(how)]}


def _refusal(part: str, why: str) -> UsageError:
    is_sentence = why.startswith(("column ", "the ", "attrs ", "it "))
    reason = why if is_sentence else f"it holds {why}"
    return UsageError(
        f"result.{part} cannot be saved: {reason}, which would not come back as it is. Nothing was "
        "written. Convert such values to types of Python or pandas, to texts for example "
        "(.map(str)), and save a copy of the result: "
        f"dataclasses.replace(result, {part}=...).save(folder)."
    )


def _describe_refused_column(encoded: Encoded) -> str:
    """Describe what Parquet refuses of a table."""
    for name in encoded.table.column_names:
        try:
            pq.write_table(encoded.table.select([name]), io.BytesIO())
        except REFUSED:
            return _describe_array(encoded, name)
    return _describe_array(encoded, None)


def _describe_array(encoded: Encoded, array: str | None) -> str:
    """Describe an array of a table as the part of the frame that it stands for."""
    if array is None or array.startswith("i"):
        return "the index, or the names of the columns, hold labels that Parquet does not hold"
    columns = decode_value(encoded.labels["columns"])
    return f"column {columns[int(array[1:])]!r} is of a type that Parquet does not hold"


# Read


def _read_parts(folder: Path) -> dict[str, Any]:
    """Read the parts of a result and its stages."""
    description = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    plan = read_plan(folder / PLAN)
    frames = _read_frames(folder, description["frames"])
    aggregations = {}
    for name, how in description["aggregations"]:
        aggregations[decode_value(name)] = decode_value(how, {"function": NamedFunction})
    stages = []
    for number in range(1, description["stages"] + 1):
        stages.append(_read_parts(folder / f"stage-{number}"))
    warnings = [_decode_warning(*warning) for warning in description["warnings"]]
    return {
        **{name: frames.get(name) for name in FRAMES},
        **{name: description[name] for name in FIGURES},
        "started": _read_moment(description.get("started")),
        "plan": plan,
        "output": decode_value(description["output"], _output_decoders(frames, plan)),
        "warnings": tuple(warnings),
        "aggregations": aggregations,
        "finding_types": _read_finding_types(description),
        "transcripts": _read_transcripts(folder, len(frames["frame"])),
        "stages": stages,
    }


def _read_transcripts(folder: Path, rows: int) -> RunTranscripts | None:
    """Read what was taken down of agents; None if nothing was saved of it."""
    path = folder / TRANSCRIPTS
    if not path.exists():
        return None
    return decode_transcripts(json.loads(path.read_text(encoding="utf-8")), rows)


def _read_moment(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    return dt.datetime.fromisoformat(text)


def _read_frames(folder: Path, labels: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Read the tables of a result, of which the labels stand in its JSON file."""
    frames: dict[str, pd.DataFrame] = {}
    for name, encoded in labels.items():
        table = pq.read_table(folder / f"{name}.parquet")
        frames[name] = decode_table(Encoded(table, encoded))
    return frames


def _read_finding_types(description: Mapping[str, Any]) -> dict[str | None, TypeName | None]:
    """Read where the type of each map's findings is defined."""
    kinds: dict[str | None, TypeName | None] = {}
    for name, kind in description.get("finding_types", ()):
        kinds[name] = None if kind is None else TypeName(*kind)
    return kinds


def _output_decoders(frames: Mapping[str, pd.DataFrame], plan: Plan) -> dict[str, Any]:
    """Return what decodes the tables of an output, and values of the plan's type."""
    kind = Any if plan.output is None else plan.output
    return {
        "DataFrame": frames.__getitem__,
        "Series": partial(_decode_series, frames),
        "typed": TypeAdapter(kind).validate_python,
    }


def _decode_series(frames: Mapping[str, pd.DataFrame], table: str, name: Hashable) -> pd.Series:
    frame = frames[table]
    series = frame.iloc[:, 0]
    series.name = name
    series.attrs = frame.attrs
    return series


def _decode_warning(name: str, text: str) -> AMRWarning:
    kind = getattr(errors, name, AMRWarning)
    if isinstance(kind, type) and issubclass(kind, AMRWarning):
        return kind(text)
    return AMRWarning(text)
