"""Load results that were saved in format 1, which is no longer written."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from pandas_amr._plan.plan import Plan, read_plan
from pandas_amr._plan.plan_types import is_list_of_models
from pandas_amr._result.frames import STATUSES

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
FRAMES = ("frame", "findings", "usage", "failures", "trace", "status", "sources")
FIGURES = ("seconds", "sandbox", "coverage", "stopped", "total")
FROM_JOURNAL = "cached"
LABELLED = ("failures", "sources")  # their labels were not saved: they follow from the positions


def load_parts(folder: Path) -> dict[str, Any]:
    """Load frames, plan, output and figures, by name."""
    description = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    plan = read_plan(folder / "plan.json")
    frames = _read_frames(folder)
    stages = []
    for number in range(1, description.get("stages", 0) + 1):
        stages.append(load_parts(folder / f"stage-{number}"))
    if not stages:
        _insert_labels(frames)
    if frames["status"] is not None:
        frames["status"] = _move_origin(frames["status"])
    if frames["sources"] is not None:
        frames["sources"] = _join_group_columns(frames["sources"])
    return {
        **frames,
        **{name: description.get(name) for name in FIGURES},
        "plan": plan,
        "output": _decode_output(description["output"], folder, plan),
        "stages": stages,
        "warnings": (),
        "aggregations": {},
    }


def _read_frames(folder: Path) -> dict[str, Any]:
    frames: dict[str, Any] = {}
    for name in FRAMES:
        exists = (folder / f"{name}.parquet").exists()
        frames[name] = _read_frame(folder, name) if exists else None
    return frames


def _insert_labels(frames: dict[str, Any]) -> None:
    index = frames["frame"].index
    for name in LABELLED:
        frame = frames[name]
        if frame is None:
            continue
        labels: list[Any] = []
        for position in frame["position"]:
            labels.append(None if pd.isna(position) else index[position])
        column = pd.Series(labels, index=frame.index, dtype=object)
        place = list(frame.columns).index("position") if name == "sources" else 0
        frame.insert(place, "label", column)


def _move_origin(status: pd.DataFrame) -> pd.DataFrame:
    """Say in a column of its own what came from the journal, which was a status, too."""
    from_journal = (status["status"] == FROM_JOURNAL).to_numpy(dtype=bool)
    names = ["ok" if name == FROM_JOURNAL else name for name in status["status"]]
    categories = pd.Categorical(names, categories=list(STATUSES))
    return status.assign(status=categories, from_journal=from_journal)


def _join_group_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Replace the columns of group keys by one column of groups: a key each, or a tuple."""
    keys = [name for name in frame.columns if str(name).startswith("group")]
    if not keys:
        return frame
    if keys == ["group"]:
        groups = list(frame["group"])
    else:
        columns = [frame[key] for key in keys]
        groups = list(zip(*columns, strict=True))
    rest = frame.drop(columns=keys)
    rest.insert(0, "group", pd.Series(groups, index=frame.index, dtype=object))
    return rest


def _read_frame(folder: Path, name: str) -> pd.DataFrame:
    # This makes pandas register its intervals and periods as extension types of Arrow.
    pa.array(pd.interval_range(0, 1))
    table = pq.read_table(folder / f"{name}.parquet")
    schema = json.loads(table.schema.metadata[b"pandas_amr"])
    index = _decode_index(table, schema)
    columns = {}
    for number, kind in enumerate(schema["kinds"]):
        dtype = object if kind in ("object", "json") else None
        values = _decode_array(table.column(number), kind)
        columns[number] = pd.Series(values, index=index, dtype=dtype)
    frame = pd.DataFrame(columns, index=index)
    labels = [_decode_label(label) for label in schema["columns"]]
    names = [_decode_label(name) for name in schema["column_names"]]
    if len(names) > 1:
        frame.columns = pd.MultiIndex.from_tuples(labels, names=names)
    else:
        frame.columns = pd.Index(labels, name=names[0], tupleize_cols=False)
    return frame


def _decode_index(table: pa.Table, schema: dict[str, Any]) -> pd.Index:
    """Decode the index of a frame: its levels are the columns after the frame's own."""
    names = [_decode_label(label) for label in schema["index_names"]]
    index: pd.Index
    if schema["range"]:
        return pd.RangeIndex(table.num_rows, name=names[0])
    own_columns = len(schema["columns"])
    levels = []
    for level, kind in enumerate(schema["levels"]):
        levels.append(_decode_array(table.column(own_columns + level), kind))
    if len(levels) > 1:
        index = pd.MultiIndex.from_arrays(levels, names=names)
    else:
        index = pd.Index(levels[0], name=names[0])
    return index


def _decode_array(column: pa.ChunkedArray, kind: object) -> Any:
    if isinstance(kind, dict):
        codes = column.fill_null(-1).to_numpy()
        categories = _decode_categories(kind)
        return pd.Categorical.from_codes(codes, categories=categories, ordered=kind["ordered"])
    if kind == "arrow":
        return pd.array(column.combine_chunks(), dtype=pd.ArrowDtype(column.type))
    if kind in {"object", "json"}:
        return pd.Series(column.to_pylist(), dtype=object).array
    return column.to_pandas().astype(kind).array


def _decode_categories(encoded: dict[str, Any]) -> Any:
    if "stream" not in encoded:
        return encoded["categories"]
    kind = encoded["kind"]
    stream = base64.b64decode(encoded["stream"])
    table = pa.ipc.open_stream(stream).read_all()
    values = _decode_array(table.column(0), kind)
    return pd.Index(values, dtype=object if kind == "object" else None)


def _decode_label(label: object) -> Any:
    if isinstance(label, dict):
        return tuple(_decode_label(part) for part in label["tuple"])
    return label


def _decode_output(encoded: dict[str, Any], folder: Path, plan: Plan) -> Any:
    match encoded:
        case {"frame": name}:
            return _read_frame(folder, name)
        case {"series": name, "name": label}:
            return _read_frame(folder, name)["value"].rename(_decode_label(label))
        case {"model": fields}:
            return _decode_model(fields, plan)
        case {"dict": items}:
            return {_decode_label(key): _decode_output(part, folder, plan) for key, part in items}
        case {"list": items}:
            return [_decode_output(part, folder, plan) for part in items]
    return encoded["value"]


def _decode_model(fields: object, plan: Plan) -> Any:
    kind = plan.output
    if is_list_of_models(kind):
        [kind] = get_args(kind)
    if kind is None:
        return fields
    return TypeAdapter(kind).validate_python(fields)
