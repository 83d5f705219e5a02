"""How runs and results show themselves: reprs, HTML for notebooks, progress."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._units.profile import shortened

if TYPE_CHECKING:
    from pandas_amr._result.result import Result

HEAD_ROWS = 5
CELL_CHARACTERS = 120
TEXT_CHARACTERS = 2000


def result_line(result: Result) -> str:
    """One line, such as ``<Result 60 rows, 0 failed, 60 calls, 3912 tokens, 7.2 s>``."""
    failed, total = result.failures["position"].nunique(), result.total
    counted = f"{total.calls} calls, {total.tokens} tokens, {result.seconds:.1f} s"
    sandboxed = f", sandbox {result.sandbox}" if result.sandbox else ""
    return f"<Result {len(result.frame)} rows, {failed} failed, {counted}{sandboxed}>"


def result_html(result: Result) -> str:
    """A result in a notebook: the line, the output, the frame's head; cell text is escaped."""
    parts = [f"<p><b>{html.escape(result_line(result))}</b></p>", _output_html(result.output)]
    head = result.frame.head(HEAD_ROWS)
    parts.append(
        f"<p>frame, the first {len(head)} of {len(result.frame)} rows:</p>{_frame_html(head)}"
    )
    if len(result.failures):
        parts.append(f"<p>failures:</p>{_frame_html(result.failures.head(HEAD_ROWS))}")
    return f"<div>{''.join(parts)}</div>"


def _output_html(output: Any) -> str:
    if isinstance(output, pd.DataFrame):
        return _frame_html(output.head(2 * HEAD_ROWS))
    if isinstance(output, pd.Series):
        return _frame_html(output.head(2 * HEAD_ROWS).to_frame("output"))
    if output is None:
        return ""
    return f"<pre style='white-space: pre-wrap'>{html.escape(shortened(str(output), TEXT_CHARACTERS))}</pre>"


def _frame_html(frame: pd.DataFrame) -> str:
    with pd.option_context("display.max_colwidth", CELL_CHARACTERS):
        return frame.to_html(escape=True, notebook=True)
