"""Show a result: its repr, and its HTML for notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._units.profile import shorten_text

if TYPE_CHECKING:
    from pandas_amr._result.result import Result

HEAD_ROWS = 5
CELL_CHARACTERS = 120
TEXT_CHARACTERS = 2000


def result_line(result: Result) -> str:
    """Return one line: ``<Result 60 rows, 0 failed, 60 calls, 3912 tokens, 7.2 s>``."""
    failed, total = result.failures["position"].nunique(), result.total
    parts = [
        f"{len(result.frame)} rows",
        f"{failed} failed",
        *_unread_parts(result),
        f"{total.calls} calls",
        f"{total.tokens} tokens",
        f"{result.seconds:.1f} s",
    ]
    if result.sandbox:
        parts.append(f"sandbox {result.sandbox}")
    if result.stopped:
        parts.append(f"stopped early: {result.stopped.partition('. ')[0].removesuffix('.')}")
    return f"<Result {', '.join(parts)}>"


def _unread_parts(result: Result) -> list[str]:
    """Count the rows that were not read."""
    if result.status is None:
        return []
    counts = result.status["status"].value_counts()
    return [
        f"{counts[status]} {status}" for status in ("empty", "skipped") if counts.get(status, 0)
    ]


def result_html(result: Result) -> str:
    """Return HTML: the line, the output, the head of the frame; the text of cells is escaped."""
    head = result.frame.head(HEAD_ROWS)
    parts = [
        f"<p><b>{html.escape(result_line(result))}</b></p>",
        _output_html(result.output),
        f"<p>frame, the first {len(head)} of {len(result.frame)} rows:</p>",
        _frame_html(head),
    ]
    if len(result.failures):
        parts += ["<p>failures:</p>", _frame_html(result.failures.head(HEAD_ROWS))]
    return f"<div>{''.join(parts)}</div>"


def _output_html(output: Any) -> str:
    if isinstance(output, pd.DataFrame):
        return _frame_html(output.head(2 * HEAD_ROWS))
    if isinstance(output, pd.Series):
        return _frame_html(output.head(2 * HEAD_ROWS).to_frame("output"))
    if output is None:
        return ""
    text = html.escape(shorten_text(str(output), TEXT_CHARACTERS))
    return f"<pre style='white-space: pre-wrap'>{text}</pre>"


def _frame_html(frame: pd.DataFrame) -> str:
    with pd.option_context("display.max_colwidth", CELL_CHARACTERS):
        return frame.to_html(escape=True, notebook=True)
