"""Frames and values as HTML: so many rows and characters, and how much is left out."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from pandas_amr._records.counts import counted
from pandas_amr._records.html import (
    CELL_CHARACTERS,
    Html,
    element,
    escape,
    format_number,
    is_number,
    join,
    markdown,
    table,
    text_block,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ITEMS = 50  # of a list, or fields of an object
MOST_DEPTH = 3  # of objects in objects; deeper ones are shown as JSON
VALUE_CHARACTERS = 2_000


# -- cells -----------------------------------------------------------------------------------------


def cell_of(value: Any) -> Any:
    """Convert a value to what a table shows: None if it is missing, a number, or a text.

    Nothing that a cell holds makes it fail: a display must not.
    """
    if is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) or is_number(value):
        return value
    if isinstance(value, dt.datetime):
        return _write_moment(value)
    if isinstance(value, BaseModel | Mapping | list | tuple | set | frozenset | np.ndarray):
        return _write_json(value)
    return _write_text(value)


def is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NA, NaN or NaT."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return False


def _write_moment(value: dt.datetime) -> str:
    """Write a moment; a day if it has no time."""
    is_midnight = value.time() == dt.time()
    if value.tzinfo is None and is_midnight:
        return value.date().isoformat()
    return value.isoformat(sep=" ")


def _write_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain_value)
    except (ValueError, TypeError, RecursionError):  # it holds itself, or keys that are no texts
        return _write_text(value)


def _plain_value(value: object) -> Any:
    """Return what JSON has for a value that it does not know."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, set | frozenset | np.ndarray):
        return list(value)
    return cell_of(value)


def _write_text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 (whatever the user's class raises)
        return f"<{type(value).__name__} without a text>"


# -- frames ----------------------------------------------------------------------------------------


def frame_table(
    frame: pd.DataFrame,
    *,
    rows: int,
    characters: int = CELL_CHARACTERS,
    **attributes: str | bool | None,
) -> Html:
    """Show the first rows of a frame, its index first.

    Args:
        frame: the frame; its columns may have the same names.
        rows: how many rows.
        characters: per cell.
        attributes: of the table, as ``element`` takes them.
    """
    head = frame.iloc[:rows]
    header: list[str] = []
    columns: list[list[Any]] = []
    levels = head.index.nlevels
    for level, name in enumerate(head.index.names):
        header.append("" if name is None else write_label(name))
        labels = head.index.get_level_values(level)
        columns.append([cell_of(label) for label in labels])
    for place, name in enumerate(head.columns):
        header.append(write_label(name))
        values = head.iloc[:, place]
        columns.append([cell_of(value) for value in values])
    lines = [list(line) for line in zip(*columns, strict=True)]
    return table(header, lines, most=characters, row_headers=levels, **attributes)


def write_label(label: Any) -> str:
    """Write the label of a row or a column; the parts of one of several levels apart."""
    if isinstance(label, tuple):
        parts = [write_label(part) for part in label if part != ""]
        return " / ".join(parts)
    shown = cell_of(label)
    if shown is None:
        return "<NA>"
    if isinstance(shown, str):
        return shown
    return format_number(shown)


def write_labels(labels: Sequence[Any], most: int, characters: int = 60) -> Html:
    """List the first labels, and count the others."""
    listed = [escape(write_label(label), characters) for label in labels[:most]]
    more = len(labels) - most
    if more > 0:
        listed.append(escape(f"and {more:,} more"))
    return join(listed, ", ")


# -- answers ---------------------------------------------------------------------------------------


def answer_html(output: object, *, rows: int, characters: int) -> Html:
    """Show an answer: a frame, a text that may be Markdown, an object, a list or a scalar.

    Args:
        output: the answer.
        rows: how many rows of a frame or a Series.
        characters: of a text.
    """
    if isinstance(output, pd.Series):
        name = "value" if output.name is None else output.name
        output = output.to_frame(name)
    if isinstance(output, pd.DataFrame):
        return _frame_answer(output, rows)
    if isinstance(output, str):
        return markdown(output, characters)
    is_list = isinstance(output, list | tuple | set | frozenset)
    if is_list or _fields_of(output) is not None:
        return _value_html(output, depth=1)
    shown = cell_of(output)
    if isinstance(shown, str) and len(shown) > CELL_CHARACTERS:
        return text_block(shown, characters)
    text = format_number(shown, thousands=True) if is_number(shown) else str(shown)
    return element("div", text, class_="amr-scalar", dir="auto")


def _frame_answer(frame: pd.DataFrame, rows: int) -> Html:
    shown = frame_table(frame, rows=rows, characters=VALUE_CHARACTERS)
    rest = len(frame) - rows
    if rest <= 0:
        return shown
    return join([shown, note(f"... {counted(rest, 'more row')}")])


def note(*content: str) -> Html:
    """Make a paragraph of small print."""
    return element("p", *content, class_="amr-muted")


def _fields_of(value: object) -> dict[Any, Any] | None:
    """Return the fields of an object, by name; None if it is none."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: getattr(value, part.name) for part in fields(value)}
    return None


def _value_html(value: Any, depth: int) -> Html:
    """Show a value of an answer: an object as a table, a list as a list or a table."""
    parts = _fields_of(value)
    is_list = isinstance(value, list | tuple | set | frozenset)
    if depth > MOST_DEPTH and (is_list or parts is not None):
        return escape(_write_json(value), VALUE_CHARACTERS)
    if parts is not None:
        return _fields_table(parts, depth)
    if is_list:
        return _list_html(list(value), depth)
    if isinstance(value, pd.DataFrame | pd.Series):
        return answer_html(value, rows=MOST_ITEMS, characters=VALUE_CHARACTERS)
    return _leaf(value)


def _leaf(value: Any) -> Html:
    shown = cell_of(value)
    if shown is None:
        return element("span", "<NA>", class_="amr-missing")
    text = format_number(shown) if is_number(shown) else str(shown)
    return element("span", escape(text, VALUE_CHARACTERS), dir="auto")


def _fields_table(parts: Mapping[Any, Any], depth: int) -> Html:
    rows: list[tuple[str, Html]] = []
    for name, value in itertools.islice(parts.items(), MOST_ITEMS):
        label = write_label(name)
        content = _value_html(value, depth + 1)
        rows.append((label, content))
    shown = table(("", ""), rows, row_headers=1, class_="amr-fields")
    return _with_rest(shown, len(parts), "field")


def _list_html(items: Sequence[Any], depth: int) -> Html:
    """Show a list: of objects as a table, of anything else item by item."""
    if not items:
        return element("span", "an empty list", class_="amr-muted")
    objects: list[dict[Any, Any]] = []
    lines: list[Html] = []
    for item in items[:MOST_ITEMS]:
        parts = _fields_of(item)
        if parts is not None:
            objects.append(parts)
        content = _value_html(item, depth + 1)
        lines.append(element("li", content))
    if len(objects) == len(lines):
        shown = _objects_table(objects, depth)
    elif depth == 1:  # an answer's items have the numbers that explain() takes
        shown = element("ol", *lines, start="0")
    else:
        shown = element("ul", *lines)
    return _with_rest(shown, len(items), "item")


def _objects_table(objects: Sequence[Mapping[Any, Any]], depth: int) -> Html:
    """Show objects as the rows of a table, each with its number."""
    names: dict[Any, None] = {}
    for parts in objects:
        names |= dict.fromkeys(parts)
    rows: list[list[Any]] = []
    for number, parts in enumerate(objects):
        cells = [_nested_cell(parts.get(name), depth) for name in names]
        rows.append([number, *cells])
    header = ["", *map(write_label, names)]
    return table(header, rows, most=VALUE_CHARACTERS, row_headers=1)


def _nested_cell(value: Any, depth: int) -> Any:
    if isinstance(value, list | tuple) or _fields_of(value) is not None:
        return _value_html(value, depth + 1)
    return cell_of(value)


def _with_rest(shown: Html, total: int, name: str) -> Html:
    rest = total - MOST_ITEMS
    if rest <= 0:
        return shown
    more = counted(rest, f"more {name}")
    return join([shown, note(f"... {more}")])
