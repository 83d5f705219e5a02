"""Results that were saved in the first format: read, and no longer written."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from pandas_amr._plan.plan import Plan, read_plan
from pandas_amr._plan.plan_types import is_listed

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
FRAMES = ("frame", "findings", "usage", "failures", "trace", "status", "sources")
LABELLED = ("failures", "sources")  # whose labels follow from the position


def load_parts(folder: Path) -> dict[str, Any]:
    """Bring back frames, plan, output and figures, by name."""
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    plan = read_plan(folder / "plan.json")
    frames: dict[str, Any] = {
        name: _frame(folder, name) if (folder / f"{name}.parquet").exists() else None
        for name in FRAMES
    }
    stages = [
        load_parts(folder / f"stage-{number}") for number in range(1, told.get("stages", 0) + 1)
    ]
    for name in () if stages else LABELLED:
        part = frames[name]
        if part is not None:
            labels = [
                None if pd.isna(position) else frames["frame"].index[position]
                for position in part["position"]
            ]
            place = list(part.columns).index("position") if name == "sources" else 0
            part.insert(place, "label", pd.Series(labels, index=part.index, dtype=object))
    if frames["sources"] is not None:
        frames["sources"] = _with_groups(frames["sources"])
    figures = {
        name: told.get(name) for name in ("seconds", "sandbox", "coverage", "stopped", "total")
    }
    output = _output(told["output"], folder, plan)
    return {
        **frames,
        **figures,
        "plan": plan,
        "output": output,
        "stages": stages,
        "warnings": (),
        "aggregations": {},
    }


def _with_groups(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of keys as the one of groups that they were: a value each, or a tuple."""
    keys = [name for name in frame.columns if str(name).startswith("group")]
    if not keys:
        return frame
    groups = (
        list(frame["group"])
        if keys == ["group"]
        else list(zip(*(frame[key] for key in keys), strict=True))
    )
    rest = frame.drop(columns=keys)
    rest.insert(0, "group", pd.Series(groups, index=frame.index, dtype=object))
    return rest


def _frame(folder: Path, name: str) -> pd.DataFrame:
    pa.array(
        pd.interval_range(0, 1)
    )  # pandas then tells Arrow of its own types, intervals and periods
    table = pq.read_table(folder / f"{name}.parquet")
    about = json.loads(table.schema.metadata[b"pandas_amr"])
    count = len(about["columns"])
    levels = [
        _array(table.column(count + level), kind) for level, kind in enumerate(about["levels"])
    ]
    names = [_label(label) for label in about["index_names"]]
    if about["range"]:
        index: pd.Index = pd.RangeIndex(table.num_rows, name=names[0])
    elif len(levels) > 1:
        index = pd.MultiIndex.from_arrays(levels, names=names)
    else:
        index = pd.Index(levels[0], name=names[0])
    columns = {}
    for number, kind in enumerate(about["kinds"]):
        dtype = object if kind in ("object", "json") else None
        columns[number] = pd.Series(_array(table.column(number), kind), index=index, dtype=dtype)
    frame = pd.DataFrame(columns, index=index)
    labels = [_label(label) for label in about["columns"]]
    column_names = [_label(label) for label in about["column_names"]]
    if len(column_names) > 1:
        frame.columns = pd.MultiIndex.from_tuples(labels, names=column_names)
    else:
        frame.columns = pd.Index(labels, name=column_names[0], tupleize_cols=False)
    return frame


def _array(column: pa.ChunkedArray, kind: Any) -> Any:
    if isinstance(kind, dict):
        codes = column.fill_null(-1).to_numpy()
        return pd.Categorical.from_codes(
            codes, categories=_categories(kind), ordered=kind["ordered"]
        )
    if kind == "arrow":
        return pd.array(column.combine_chunks(), dtype=pd.ArrowDtype(column.type))
    if kind in {"object", "json"}:
        return pd.Series(column.to_pylist(), dtype=object).array
    return column.to_pandas().astype(kind).array


def _categories(told: dict[str, Any]) -> Any:
    if "stream" not in told:
        return told["categories"]
    table = pa.ipc.open_stream(base64.b64decode(told["stream"])).read_all()
    return pd.Index(
        _array(table.column(0), told["kind"]), dtype=object if told["kind"] == "object" else None
    )


def _label(label: Any) -> Any:
    return tuple(_label(part) for part in label["tuple"]) if isinstance(label, dict) else label


def _output(told: dict[str, Any], folder: Path, plan: Plan) -> Any:
    match told:
        case {"frame": name}:
            return _frame(folder, name)
        case {"series": name, "name": label}:
            return _frame(folder, name)["value"].rename(_label(label))
        case {"model": fields}:
            kind = get_args(plan.output)[0] if is_listed(plan.output) else plan.output
            return TypeAdapter(kind).validate_python(fields) if kind is not None else fields
        case {"dict": items}:
            return {_label(key): _output(part, folder, plan) for key, part in items}
        case {"list": items}:
            return [_output(part, folder, plan) for part in items]
    return told["value"]
