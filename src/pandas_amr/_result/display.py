"""How runs and results show themselves: reprs, HTML for notebooks, progress."""

from __future__ import annotations

import contextlib
import html
import sys
import warnings
from typing import TYPE_CHECKING, Any, Self, TextIO

import pandas as pd

from pandas_amr._units.profile import shortened

if TYPE_CHECKING:
    from types import TracebackType

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
    parts.append(f"<p>frame, the first {len(head)} of {len(result.frame)} rows:</p>{_frame_html(head)}")
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


class ProgressBar:
    """A bar over the shards, or nothing: for people who watch, not for logs.

    ``shown=None`` shows it in a terminal and in a notebook only.
    """

    def __init__(self, *, shown: bool | None, units: int) -> None:
        self._bar: Any = None
        if units and sys.stderr is not None and (_watched() if shown is None else shown):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tqdm warns where a notebook has no widgets; text will do
                from tqdm.auto import tqdm  # noqa: PLC0415

            pace_s = 0.1 if _watched() else 2.0  # a log wants few lines
            with contextlib.suppress(Exception):  # it draws itself at once, on a stream that may be anything
                self._bar = tqdm(
                    total=units,
                    unit="unit",
                    desc="map",
                    file=sys.stderr,
                    dynamic_ncols=True,
                    mininterval=pace_s,
                    miniters=1,
                )
            self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(Exception):
                self._bar.close()

    def step(self, units: int, *, failed: int, tokens: int) -> None:
        """Some units are done."""
        if self._bar is not None:
            self._failed += failed
            self._bar.set_postfix_str(f"{tokens} tokens, {self._failed} failed", refresh=False)
            try:
                self._bar.update(units)
            except Exception:  # noqa: BLE001 (nobody watches any more, or the stream is one of the user's)
                self._bar = None

    def wait(self, what: str) -> None:
        """Requests wait for something; or, if it is empty, no more."""
        if self._bar is not None:
            try:
                self._bar.set_postfix_str(what, refresh=True)
            except Exception:  # noqa: BLE001 (likewise)
                self._bar = None


def _watched() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return _is_terminal(sys.stderr) or type(shell).__name__ == "ZMQInteractiveShell"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()  # a daemon has none
    except Exception:  # noqa: BLE001 (a stream of the user's)
        return False
