"""The result of a recipe: what its stages gave, as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._plan.call import KEEP
from pandas_amr._plan.plan import Plan
from pandas_amr._records.tracebacks import user_tracebacks
from pandas_amr._result.frames import failures_frame, spans_later, trace_frame, usage_frame
from pandas_amr._result.look import join_pages
from pandas_amr._result.recent import filtered_positions, filtered_rows
from pandas_amr._result.result import Result
from pandas_amr._result.row_places import name_label
from pandas_amr._result.run_transcripts import RunTranscripts
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.services import Services
    from pandas_amr._result.transcript import Transcript
    from pandas_amr._result.verify import Verification


@dataclass(frozen=True)
class Reached:
    """What a stage gives.

    Attributes:
        value: rows for the next stage, or an answer.
        places: where rows stand in the frame of the last result; None where nobody knows.
    """

    value: Any
    places: NDArray[np.int64] | None = None


@user_tracebacks
class RecipeResult(Result[Any]):
    """A recipe's result. What can be run again is one of its stages."""

    def retry(self, **options: Any) -> Result:  # noqa: ARG002 (whatever is asked of it)
        """Refused: see ``stages``."""
        raise UsageError(
            f"A recipe's stages are run again one by one: result.stages[i].retry(){self._which}."
        )

    def verify(self, **options: Any) -> Verification:  # noqa: ARG002 (likewise)
        """Refused: see ``stages``."""
        raise UsageError(
            f"A recipe's stages are verified one by one: result.stages[i].verify(){self._which}."
        )

    def look(self, label: object = ..., *, node: str | None = None) -> Transcript:
        """Return what agents did for a row in each stage that has it, or in a node.

        Raises:
            UsageError: none or both are given, or no stage has such a row or node.
        """
        if node is not None or label is ...:
            return self._look_at_node(label, node)
        pages: list[Transcript] = []
        unknown: UsageError | None = None
        for number, stage in enumerate(self.stages, start=1):
            try:
                page = stage.look(label)
            except UsageError as error:
                unknown = unknown or error
            else:
                pages.append(replace(page, title=f"{page.title} in stage {number}"))
        if not pages:
            raise unknown or UsageError("This recipe has no stage with rows.")
        return join_pages(f"Row {name_label(label)}", [], pages)

    def _look_at_node(self, label: object, node: str | None) -> Transcript:
        """Return a node's transcript: by its stage, which knows the labels of its rows."""
        for stage in self.stages:
            prefix = "" if stage.transcripts is None else stage.transcripts.prefix
            if prefix and isinstance(node, str) and node.startswith(prefix):
                return stage.look(label, node=node)
        return super().look(label, node=node)

    def override(self, *corrections: Any, **options: Any) -> Result:  # noqa: ARG002 (likewise)
        """Refused: see ``stages``."""
        raise UsageError(
            "A recipe's stages are corrected one by one, and the recipe called again with their "
            f"journal: result.stages[i].override(...){self._which}."
        )

    @property
    def _which(self) -> str:
        return f", i from 0 to {len(self.stages) - 1}" if self.stages else "; this one has none"


def end_reason(done: Sequence[Result]) -> str | None:
    """Why a stage stopped before its end."""
    return next((one.stopped for one in done if one.stopped is not None), None)


def is_rows(value: Any, done: Sequence[Result]) -> bool:
    """Whether what goes on is the rows, and no answer."""
    return isinstance(value, pd.DataFrame) and (not done or value is not done[-1].output)


def rows_so_far(frame: pd.DataFrame, done: Sequence[Result]) -> Reached:
    """The rows that the stages of a run give so far, where it does not come to its end."""
    if not done:
        return Reached(frame)
    if KEEP in done[-1].findings.columns:
        return Reached(filtered_rows(done[-1]), filtered_positions(done[-1]))
    return Reached(done[-1].frame, np.arange(len(done[-1].frame)))


def join_partial(frame: pd.DataFrame, done: Sequence[Result], services: Services) -> Result:
    """Make one result of what the stages found until now."""
    trace = trace_frame(services.trace.nodes)
    return join_results(rows_so_far(frame, done), done, services, trace)


def join_results(
    reached: Reached, done: Sequence[Result], services: Services, trace: pd.DataFrame
) -> Result:
    """Make one result of all stages' results; the answer and the rows are the last one's."""
    if not done:
        return _no_stage(reached, services, trace)
    last, value = done[-1], reached.value
    has_rows = is_rows(value, done)
    frame = value if has_rows else last.frame
    has_answer = value is last.output
    return RecipeResult(
        output=None if has_rows else value,
        frame=frame,
        findings=_findings_in(frame, done),
        plan=last.plan,
        usage=usage_frame(services.own_ledger),
        failures=_failures_of(frame, done),
        **_read_trace(services, trace),
        total=services.own_ledger.total,
        status=_status_of(last, reached.places if has_rows else slice(None)),
        stopped=end_reason(done),
        sandbox=_sandbox_of(done),
        sources=last.sources if has_answer else None,
        coverage=last.coverage if has_answer else None,
        warnings=tuple(warning for one in done for warning in one.warnings),
        stages=tuple(done),
        transcripts=transcripts_of(services),
    )


def _sandbox_of(done: Sequence[Result]) -> str | None:
    """Return the tier in which code of a stage ran, if any did."""
    return next((one.sandbox for one in done if one.sandbox is not None), None)


def _no_stage(reached: Reached, services: Services, trace: pd.DataFrame) -> Result:
    """Make the result of a recipe of which no stage has a result of its own."""
    value = reached.value
    has_rows = is_rows(value, ())
    frame = value if has_rows else pd.DataFrame()
    return RecipeResult(
        output=None if has_rows else value,
        frame=frame,
        findings=_findings_in(frame, ()),
        plan=Plan(),
        usage=usage_frame(services.own_ledger),
        failures=_failures_of(frame, ()),
        **_read_trace(services, trace),
        total=services.own_ledger.total,
        status=None,
        transcripts=transcripts_of(services),
    )


def transcripts_of(services: Services) -> RunTranscripts:
    """Return what was taken down of the agents of all stages so far."""
    recorder = services.trace.recorder
    writer = None if recorder is None else recorder.file
    token = b"" if writer is None else writer.token
    return RunTranscripts(recorder, services.prefix, journal=services.journal, token=token)


def _read_trace(services: Services, trace: pd.DataFrame) -> dict[str, Any]:
    """Return what is known of the nodes in a trace, and of when the run ran."""
    return {
        "trace": trace,
        "spans": spans_later(services.trace, trace["id"]),
        "seconds": services.own_seconds,
        "started": services.own_date,
    }


def _failures_of(frame: pd.DataFrame, done: Sequence[Result]) -> pd.DataFrame:
    """List the failures of all stages, with the number of the stage."""
    listed: list[pd.DataFrame] = []
    for number, result in enumerate(done, start=1):
        if len(result.failures):
            listed.append(result.failures.assign(stage=number))
    if listed:
        return pd.concat(listed, ignore_index=True)
    return failures_frame((), frame.index).assign(stage=pd.Series([], dtype="int64"))


def _findings_in(frame: pd.DataFrame, done: Sequence[Result]) -> pd.DataFrame:
    """Return the last stage's findings; if a step made other rows, the columns that are left."""
    if done and frame is done[-1].frame:
        return done[-1].findings
    found = dict.fromkeys(
        name for one in done for name in one.findings.columns if name in frame.columns
    )
    return frame[list(found)]


def _status_of(last: Result, places: NDArray[np.int64] | slice | None) -> pd.DataFrame | None:
    """The status of some rows of a stage's result; None where nobody knows which they are."""
    return None if last.status is None or places is None else last.status.iloc[places]
