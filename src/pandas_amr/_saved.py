"""A whole result in a folder: frames as Parquet, the rest as JSON; types come back. Never a pickle."""

from __future__ import annotations

import base64
import json
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, TypeAdapter

from pandas_amr._plan import Plan, is_listed, read_plan
from pandas_amr._units import cell, line_of
from pandas_amr.errors import AMRWarning, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from pandas_amr._result import Result

FORMAT = 1
LABEL = "label"
GROUP = "group"
STAGE = "stage-"
FRAMES = ("frame", "findings", "usage", "failures", "trace", "status", "sources")
LABELLED = {"failures", "sources"}
UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, TypeError, OverflowError)


def save_result(result: Result, folder: Path) -> None:
    """Write a result into ``folder``, which is made where it is not there.

    A column that Parquet cannot hold is written as JSON text, which a warning tells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FRAMES:
        frame = getattr(result, name)
        if frame is None:
            continue
        if name in LABELLED and not result.stages:
            frame = frame.drop(columns=LABEL)  # follows from the position; a label may be anything
        if name == "sources" and GROUP in frame.columns:
            frame = _by_keys(frame)
        write_frame(frame, folder, name)
    result.plan.to_json(folder / "plan.json")
    told = {
        "format": FORMAT,
        "seconds": result.seconds,
        "sandbox": result.sandbox,
        "coverage": result.coverage,
        "stages": len(result.stages),
        "total": asdict(result.total),
        "output": _output(result.output, folder, "output"),
    }
    for number, stage in enumerate(result.stages, start=1):
        save_result(stage, folder / f"{STAGE}{number}")
    (folder / "result.json").write_text(json.dumps(told, indent=2, default=str), encoding="utf-8")


def load_parts(folder: Path) -> dict[str, Any]:
    """What was saved: frames, plan, output and figures, by name.

    Raises:
        UsageError: the folder holds no result, or one of a later version.
    """
    try:
        told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(f"{folder} holds no saved result.") from None
    if told["format"] != FORMAT:
        raise UsageError(f"{folder} was saved in format {told['format']}; this version reads {FORMAT}.")
    plan = read_plan(folder / "plan.json")
    frames = {name: read_frame(folder, name) for name in FRAMES if (folder / f"{name}.parquet").exists()}
    stages = [load_parts(folder / f"{STAGE}{number}") for number in range(1, told.get("stages", 0) + 1)]
    for name in () if stages else LABELLED & frames.keys():
        part = frames[name]
        labels = [None if pd.isna(position) else frames["frame"].index[position] for position in part["position"]]
        place = list(part.columns).index("position") if name == "sources" else 0
        part.insert(place, LABEL, pd.Series(labels, index=part.index, dtype=object))
    if "sources" in frames:
        frames["sources"] = _by_groups(frames["sources"])
    output = _read_output(told["output"], folder, plan)
    figures = {name: told.get(name) for name in ("seconds", "sandbox", "coverage", "total")}
    return {**frames, "plan": plan, "output": output, "stages": stages, **figures}


def write_frame(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write a frame of any index and any column names; what Parquet refuses is written as JSON text."""
    plain = frame.set_axis([f"c{number}" for number in range(len(frame.columns))], axis=1)
    plain.attrs = {}
    arrays: list[pa.Array] = []
    kinds: list[Any] = []
    for number, column in enumerate(plain.columns):
        array, kind = _column(plain[column], str(frame.columns[number]))
        arrays.append(array)
        kinds.append(kind)
    index = frame.index.to_frame(index=False)
    levels = [_column(index.iloc[:, level], f"index {level}") for level in range(index.shape[1])]
    names = [*plain.columns, *(f"i{level}" for level in range(len(levels)))]
    table = pa.table([*arrays, *(array for array, _ in levels)], names=names)
    about = {
        "columns": [_label(label) for label in frame.columns],
        "column_names": [_label(label) for label in frame.columns.names],
        "kinds": kinds,
        "levels": [kind for _, kind in levels],
        "range": isinstance(frame.index, pd.RangeIndex),
        "index_names": [_label(label) for label in frame.index.names],
    }
    pq.write_table(table.replace_schema_metadata({"pandas_amr": json.dumps(about)}), folder / f"{name}.parquet")


def _by_keys(frame: pd.DataFrame) -> pd.DataFrame:
    """The column of groups as one of each key, so that their types come back: ``group 0``, ``group 1``, ..."""
    groups = frame[GROUP].tolist()
    levels = {len(one) if isinstance(one, tuple) else 0 for one in groups}
    if len(levels) != 1:
        return frame
    (count,) = levels
    keys = {f"{GROUP} {level}": [one[level] for one in groups] for level in range(count)} or {GROUP: groups}
    typed = pd.DataFrame({name: pd.Series(values, index=frame.index) for name, values in keys.items()})
    return pd.concat([typed, frame.drop(columns=GROUP)], axis=1)


def _by_groups(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of keys as the one of groups that they were: a value each, or a tuple."""
    keys = [name for name in frame.columns if str(name).startswith(GROUP)]
    if not keys:
        return frame
    groups = list(frame[GROUP]) if keys == [GROUP] else list(zip(*(frame[key] for key in keys), strict=True))
    rest = frame.drop(columns=keys)
    rest.insert(0, GROUP, pd.Series(groups, index=frame.index, dtype=object))
    return rest


def _column(column: pd.Series, label: str) -> tuple[pa.Array, Any]:
    """A column as Arrow, and the pandas dtype that it comes back as; a category as its codes and its categories."""
    try:
        if not isinstance(column.dtype, pd.CategoricalDtype):
            return _arrow(column)
        told = _categories(column.cat.categories) | {"ordered": bool(column.cat.ordered)}
        return pa.array(column.cat.codes.to_numpy(), mask=column.isna().to_numpy()), told
    except UNFIT:
        warnings.warn(
            f"Column {label!r} holds what Parquet cannot; it is saved as JSON text.", AMRWarning, stacklevel=2
        )
        return pa.array([line_of(cell(value)) for value in column]), "json"


def _arrow(column: pd.Series) -> tuple[pa.Array, Any]:
    kind = "arrow" if isinstance(column.dtype, pd.ArrowDtype) else str(column.dtype)
    array = pa.array(column, from_pandas=True)
    if kind == "object" and not _comes_back(array, column):
        raise pa.ArrowInvalid("changed by Arrow")
    return (array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array), kind


def _categories(categories: pd.Index) -> dict[str, Any]:
    """Categories as JSON holds them; what it has no form for as an Arrow stream in text."""
    values = categories.tolist()
    if all(isinstance(one, str | int | float) for one in values):
        return {"categories": values}
    array, kind = _arrow(categories.to_series())
    table = pa.table({"categories": array})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return {"stream": base64.b64encode(sink.getvalue()).decode(), "kind": kind}


def _read_categories(told: dict[str, Any]) -> Any:
    if "stream" not in told:
        return told["categories"]
    table = pa.ipc.open_stream(base64.b64decode(told["stream"])).read_all()
    return pd.Index(_restored(table.column(0), told["kind"]), dtype=object if told["kind"] == "object" else None)


def _comes_back(array: Any, column: pd.Series) -> bool:
    """Whether values of mixed kind come back as they are: dicts padded with None and widened numbers do not."""
    return all(
        one == other or (pd.api.types.is_scalar(other) and pd.isna(other))
        for one, other in zip(array.to_pylist(), column, strict=True)
    )


def read_frame(folder: Path, name: str) -> pd.DataFrame:
    """Read what ``write_frame`` wrote."""
    pa.array(pd.interval_range(0, 1))  # pandas then tells Arrow of its own types, intervals and periods
    table = pq.read_table(folder / f"{name}.parquet")
    about = json.loads(table.schema.metadata[b"pandas_amr"])
    count = len(about["columns"])
    data = {number: _restored(table.column(number), kind) for number, kind in enumerate(about["kinds"])}
    levels = [_restored(table.column(count + level), kind) for level, kind in enumerate(about["levels"])]
    names = [_unlabel(label) for label in about["index_names"]]
    if about["range"]:
        index: pd.Index = pd.RangeIndex(table.num_rows, name=names[0])
    elif len(levels) > 1:
        index = pd.MultiIndex.from_arrays(levels, names=names)
    else:
        index = pd.Index(levels[0], name=names[0])
    texts = {number for number, kind in enumerate(about["kinds"]) if kind in ("object", "json")}
    typed = {n: pd.Series(part, index=index, dtype=object if n in texts else None) for n, part in data.items()}
    frame = pd.DataFrame(typed, index=index)
    labels = [_unlabel(label) for label in about["columns"]]
    column_names = [_unlabel(label) for label in about["column_names"]]
    frame.columns = (
        pd.MultiIndex.from_tuples(labels, names=column_names)
        if len(column_names) > 1
        else pd.Index(labels, name=column_names[0], tupleize_cols=False)
    )
    return frame


def _restored(column: pa.ChunkedArray, kind: Any) -> Any:
    if isinstance(kind, dict):
        codes = column.fill_null(-1).to_numpy()
        return pd.Categorical.from_codes(codes, categories=_read_categories(kind), ordered=kind["ordered"])
    if kind == "arrow":
        return pd.array(column.combine_chunks(), dtype=pd.ArrowDtype(column.type))
    if kind == "category":
        return column.to_pandas().array
    if kind in {"object", "json"}:
        return pd.Series(column.to_pylist(), dtype=object).array
    return column.to_pandas().astype(kind).array


def _label(label: Any) -> Any:
    if isinstance(label, tuple):
        return {"tuple": [_label(part) for part in label]}
    return label if label is None or isinstance(label, str | int | float | bool) else str(label)


def _unlabel(label: Any) -> Any:
    return tuple(_unlabel(part) for part in label["tuple"]) if isinstance(label, dict) else label


def _output(output: Any, folder: Path, name: str) -> dict[str, Any]:
    """An output as JSON, its frames beside it."""
    match output:
        case pd.DataFrame():
            write_frame(output, folder, name)
            return {"frame": name}
        case pd.Series():
            write_frame(output.to_frame("value"), folder, name)
            return {"series": name, "name": _label(output.name)}
        case BaseModel():
            return {"model": output.model_dump(mode="json")}
        case dict():
            return {
                "dict": [
                    [_label(key), _output(part, folder, f"{name}-{n}")] for n, (key, part) in enumerate(output.items())
                ]
            }
        case list() | tuple():
            return {"list": [_output(part, folder, f"{name}-{n}") for n, part in enumerate(output)]}
        case None | str() | bool() | int() | float():
            return {"value": output}
    value = cell(output)
    if isinstance(value, str):
        warnings.warn(f"The output of type {type(output).__name__} is saved as text.", AMRWarning, stacklevel=2)
    return {"value": value}


def _read_output(told: dict[str, Any], folder: Path, plan: Plan) -> Any:
    match told:
        case {"frame": name}:
            return read_frame(folder, name)
        case {"series": name, "name": label}:
            return read_frame(folder, name)["value"].rename(_unlabel(label))
        case {"model": fields}:
            kind = get_args(plan.output)[0] if is_listed(plan.output) else plan.output
            return TypeAdapter(kind).validate_python(fields) if kind is not None else fields
        case {"dict": items}:
            return {_unlabel(key): _read_output(part, folder, plan) for key, part in items}
        case {"list": items}:
            return [_read_output(part, folder, plan) for part in items]
    return told["value"]
