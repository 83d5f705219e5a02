"""The report of a result: one HTML file that holds all it shows, and fetches nothing."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.folders import replace_file
from pandas_amr._records.html import LIGHT, Html, element, escape, join, shorten, style
from pandas_amr._records.refused import is_whole, show_refused
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._result.card import (
    RULES as CARD_RULES,
)
from pandas_amr._result.card import (
    cost_table,
    failure_table,
    graph_part,
    problem_parts,
)
from pandas_amr._result.facts import (
    Columns,
    count_rows,
    count_statuses,
    list_sources,
    parts_of,
    read_head,
    read_rows,
    sort_columns,
)
from pandas_amr._result.method import describe_method, question_of
from pandas_amr._result.tables import answer_html, frame_table, note, write_label
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pandas_amr._result.facts import ItemSources
    from pandas_amr._result.result import Result

ANSWER_ROWS = 500
ANSWER_CHARACTERS = 200_000
CELL_CHARACTERS = 500
MOST_COLUMNS = 40
MOST_ITEMS = 30  # of the answer, whose rows are shown
ROWS_PER_ITEM = 5
MOST_GROUPS = 50  # of failures
TITLE_CHARACTERS = 300

RULES = """
body { margin: 0; background: var(--amr-back, #ffffff); }
.amr.amr-report { border: 0; border-radius: 0; margin: 0 auto; max-width: 70em; padding: 24px 20px;
  min-height: 100vh; }
.amr.amr-report > h1 { font-size: 24px; margin: 0 0 4px; }
.amr.amr-report section > h2 { border-top: 1px solid var(--amr-line); padding-top: 18px;
  margin-top: 26px; }
.amr .amr-quote { white-space: pre-wrap; }
.amr .amr-tools { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center;
  margin: 0 0 8px; }
.amr .amr-tools input { font: inherit; color: inherit; background: var(--amr-back);
  border: 1px solid var(--amr-line); border-radius: 4px; padding: 4px 8px; width: 20em;
  max-width: 100%; }
.amr [hidden] { display: none; } /* what "all: revert" takes back, too */
.amr #amr-rows .amr-scroll { max-height: 80vh; overflow-y: auto; }
.amr #amr-rows thead th { position: sticky; top: 0; cursor: pointer; }
.amr #amr-rows thead th[aria-sort=ascending]::after { content: " ▲"; }
.amr #amr-rows thead th[aria-sort=descending]::after { content: " ▼"; }
@media (prefers-color-scheme: dark) { body { background: #15181d; } }
@media print {
  body { background: #ffffff; }
  .amr.amr-report { LIGHT max-width: none; padding: 0; font-size: 11px; }
  .amr .amr-tools { display: none; }
  .amr .amr-scroll, .amr #amr-rows .amr-scroll { overflow: visible; max-height: none; }
  .amr table { font-size: 10px; } .amr tr { break-inside: avoid; }
  .amr #amr-rows thead th { position: static; white-space: normal; }
  .amr h2, .amr h3 { break-after: avoid; }
  .amr svg { max-width: 100%; height: auto; }
  /* A table of many columns has pages of its own, and words break: paper has an edge. */
  .amr #amr-rows :is(th, td) { overflow-wrap: anywhere; min-width: 0; }
  .amr #amr-rows:has(th:nth-child(13)) { page: amr-wide; }
  .amr #amr-rows:has(th:nth-child(13)) table { font-size: 8px; width: 100%; }
  .amr #amr-rows:has(th:nth-child(13)) :is(th, td) { padding: 2px 3px; }
  .amr #amr-rows:has(th:nth-child(25)) table { font-size: 6px; }
}
@page amr-wide { size: landscape; }
""".replace("LIGHT", " ".join(f"--amr-{name}: {value};" for name, value in LIGHT.items()))

# Searches and sorts the rows that are there. It writes text only, and never HTML.
SCRIPT = """
"use strict";
const part = document.getElementById("amr-rows");
const table = part && part.querySelector("table");
if (table) {
  const body = table.tBodies[0];
  const box = document.getElementById("amr-search");
  const count = document.getElementById("amr-count");
  const rows = Array.from(body.rows, (row) => ({
    row, text: Array.from(row.cells, (cell) => cell.textContent).join("\\n").toLowerCase(),
  }));
  const search = () => {
    const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, text } of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown + " of " + rows.length + " rows";
  };
  const keyOf = (cell) => {
    if (!cell || cell.querySelector(".amr-missing")) return null;
    const isNumber = cell.classList.contains("amr-number");
    return isNumber ? Number(cell.textContent) : cell.textContent;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  const heads = Array.from(table.tHead.rows[0].cells);
  const sort = (head, place) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map(({ row }) => ({ row, key: keyOf(row.cells[place]) }));
    keyed.sort((a, b) => {
      const order = compare(a.key, b.key);
      return down && a.key !== null && b.key !== null ? -order : order;
    });
    for (const { row } of keyed) body.append(row);
  };
  heads.forEach((head, place) => {
    head.tabIndex = 0;
    head.title = "Sort";
    head.addEventListener("click", () => sort(head, place));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort(head, place);
    });
  });
  box.addEventListener("input", search);
  search();
}
window.addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
"""
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}'; "
    "base-uri 'none'; form-action 'none'"
)
SEARCH = Html(
    '<div class="amr-tools"><input id="amr-search" type="search" placeholder="Search the rows" '
    'aria-label="Search the rows"><span id="amr-count" class="amr-muted"></span></div>'
)
REDACTED_AWAY = (
    "The columns that were read are left out: they passed the function {name} before they were "
    "sent, and what it gave is not in this result."
)


class SupportsWrite(Protocol):
    """What text can be written to, such as an open file."""

    def write(self, text: str, /) -> Any:
        """Write the text."""
        ...


def report_of(
    result: Result, found: Sequence[str], columns: Sequence[Hashable] | None, max_rows: int
) -> str:
    """Return the report of a result.

    Args:
        result: the result.
        found: the names of the findings' columns.
        columns: the columns of the frame to show; None for those that were read and found.
        max_rows: the most rows of the frame.

    Raises:
        UsageError: a column is not in the frame, or ``max_rows`` is no number of rows.
    """
    if not is_whole(max_rows, least=0):
        raise UsageError(
            f"to_html(max_rows=...) takes a number of rows from 0, not {show_refused(max_rows)}."
        )
    shown = _Shown(result, found, columns)
    question = question_of(result) or "Result"
    body = join(
        [
            element("h1", escape(question, TITLE_CHARACTERS), dir="auto"),
            note(f"{repr(result).strip('<>')}. Report of {_now():%Y-%m-%d %H:%M} UTC."),
            *problem_parts(result),
            _answer(result, shown),
            _evidence(result, shown),
            _rows(result, shown, max_rows),
            _failures(result),
            _section("Method", describe_method(result)),
            _section("Cost", cost_table(result)) if len(result.usage) else Html(),
            _section("Graph", graph_part(result)) if len(result.trace) else Html(),
        ]
    )
    return _document(question, body)


def write_report(path: str | os.PathLike[str] | SupportsWrite, text: str) -> None:
    """Write a report to an open file, or as a file; one that is there is replaced as a whole.

    Raises:
        UsageError: the path is none, or cannot be written to.
    """
    if not isinstance(path, str | os.PathLike) and callable(getattr(path, "write", None)):
        path.write(text)
        return
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise UsageError(f"to_html(buf) takes the path of a file, not {show_refused(path)}.")
    file = Path(path)
    if file.is_dir():
        raise UsageError(f"{path} is a folder. Name a file, such as report.html.")
    try:
        replace_file(file, text.encode())
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} cannot be written: {reason}.") from error


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(CLOCK.wall(), dt.UTC)


def _document(title: str, body: Html) -> str:
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            Html('<meta name="referrer" content="no-referrer">'),
            element("title", shorten(title, TITLE_CHARACTERS)),
            style(CARD_RULES + RULES),
        ],
        "\n",
    )
    main = element("main", body, class_="amr amr-report")
    page = join([element("head", head), element("body", main, Html(f"<script>{SCRIPT}</script>"))])
    return f"<!doctype html>\n{element('html', page, lang='en')}\n"


def _section(title: str, *content: Html, **attributes: str) -> Html:
    return element("section", element("h2", title), *content, **attributes)


def _answer(result: Result, shown: _Shown) -> Html:
    """Show the answer; of one that is whole rows only what is shown of rows."""
    output = result.output
    if output is None:
        return Html()
    if result.plan.ranking is not None and isinstance(output, pd.DataFrame):
        positions: list[int] = []
        for item in list_sources(result):
            positions += item.positions
        output = shown.select(output, positions)
    answer = answer_html(output, rows=ANSWER_ROWS, characters=ANSWER_CHARACTERS)
    return _section("Answer", element("div", answer, class_="amr-answer"))


# -- rows ------------------------------------------------------------------------------------------


class _Shown:
    """Which columns of a result's rows a report shows, and what it shows of them.

    Args:
        result: the result.
        found: the names of the findings' columns.
        columns: the columns that the caller wants; None for those that were read and found.
    """

    def __init__(
        self, result: Result, found: Sequence[str], columns: Sequence[Hashable] | None
    ) -> None:
        self._result = result
        self._found = found
        self._columns = None if columns is None else _check_columns(result, columns)
        self.note = ""
        self._sent: pd.DataFrame | None = None
        if result.plan.redact is not None and columns is None:
            self._sent = None if result.origin is None else result.origin.job.redacted
            if self._sent is None:
                self.note = REDACTED_AWAY.format(name=result.plan.redact)

    def select(self, rows: pd.DataFrame, positions: Sequence[int]) -> pd.DataFrame:
        """Return what is shown of some rows, which stand at these positions of the frame."""
        if self._columns is not None:
            return rows[[column for column in self._columns if column in rows.columns]]
        columns = sort_columns(self._result, rows, self._found)
        if self._result.plan.redact is None:
            return rows.iloc[:, _places(columns)]
        if self._sent is None or len(positions) != len(rows):
            return rows.iloc[:, [*columns.findings, *columns.status]]
        redacted = rows.copy()
        for place in columns.content:
            values = self._sent.iloc[list(positions), place].astype(object)
            redacted.isetitem(place, values.array)
        return redacted.iloc[:, _places(columns)]


def _places(columns: Columns) -> list[int]:
    """List the places of the columns that were read and found."""
    return replace(columns, others=[]).in_order(MOST_COLUMNS)


def _check_columns(result: Result, columns: Sequence[Hashable]) -> list[Hashable]:
    if isinstance(columns, str) or not hasattr(columns, "__iter__"):
        raise UsageError(
            f"to_html(columns=...) takes a list of columns, not {show_refused(columns)}."
        )
    wanted = list(columns)
    labels: list[Any] = list(read_head(result.frame, 0).columns)
    for column in wanted:
        if column not in labels:
            suggestion = did_you_mean(column, [str(label) for label in labels])
            raise ColumnError(f"to_html(columns=...): there is no column {column!r}.{suggestion}")
    return wanted


def _rows(result: Result, shown: _Shown, max_rows: int) -> Html:
    total = count_rows(result.frame)
    head = read_head(result.frame, max_rows)
    frame = shown.select(head, range(len(head)))
    if not total or (not frame.shape[1] and not shown.note):
        return Html()
    parts: list[Html] = []
    if shown.note:
        parts.append(note(shown.note))
    if len(head) < total:
        rows = counted_of(len(head), total, "row")
        parts.append(note(f"The first {rows}; the others are left out."))
    left_out = frame.shape[1] - MOST_COLUMNS
    if left_out > 0:
        parts.append(note(f"Left out: {counted_of(left_out, frame.shape[1], 'column')}."))
    frame = _with_status(result, frame.iloc[:, :MOST_COLUMNS])
    listed = frame_table(frame, rows=len(frame), characters=CELL_CHARACTERS)
    return _section("Rows and findings", *parts, SEARCH, listed, id="amr-rows")


def _with_status(result: Result, frame: pd.DataFrame) -> pd.DataFrame:
    """Add the statuses of the first rows, if not all have a finding and nothing shows it yet."""
    if parts_of(result) is not None:  # the statuses of all of them would be read
        return frame
    if result.plan.status_columns or set(count_statuses(result)) <= {"ok", "repaired"}:
        return frame
    status = result.status
    if status is None or len(status) != len(result.frame):
        return frame
    shown = status.iloc[: len(frame)]
    columns = {
        "(status)": shown["status"].astype(object).array,
        "(reason)": shown["reason"].astype(object).fillna("").array,
    }
    added = pd.DataFrame(columns, index=frame.index)
    return pd.concat([frame, added], axis=1)


def _evidence(result: Result, shown: _Shown) -> Html:
    items = list_sources(result)
    if not items:
        return Html()
    parts: list[Html] = []
    if result.coverage is not None:
        parts.append(note(f"{result.coverage:.0%} of the rows are evidence for the answer."))
    is_single = len(items) == 1
    for item in items[:MOST_ITEMS]:
        most = ROWS_PER_ITEM * 4 if is_single else ROWS_PER_ITEM
        positions = list(item.positions[:most])
        rows = shown.select(read_rows(result.frame, positions), positions)
        parts.append(element("h3", _title_of(item, is_single=is_single)))
        parts.append(frame_table(rows.iloc[:, :MOST_COLUMNS], rows=most))
        parts += _rest_of(item, len(positions))
    more = len(items) - MOST_ITEMS
    if more > 0:
        parts.append(note(f"... {counted(more, 'more item')}"))
    return _section("What the answer rests on", *parts)


def _title_of(item: ItemSources, *, is_single: bool) -> Html:
    texts = ["The whole answer" if is_single else f"Item {item.item}"]
    for label in (item.group, item.column):
        if label is not None:
            texts.append(write_label(label))
    rows = counted(len(item.labels), "row")
    return escape(f"{', '.join(texts)}: {rows}")


def _rest_of(item: ItemSources, shown: int) -> list[Html]:
    parts: list[Html] = []
    rest = len(item.positions) - shown
    if rest > 0:
        parts.append(note(f"... {counted(rest, 'more row')}"))
    if item.general:
        rows = counted(item.general, "more row")
        parts.append(note(f"Named in bulk, which is no evidence: {rows}."))
    return parts


def _failures(result: Result) -> Html:
    positions = result.failures["position"].dropna()
    if not len(positions):
        return Html()
    return _section("What failed", failure_table(result, most=MOST_GROUPS))
