"""A part of a run in a worker: mapped as a run would, and made into what the driver needs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._context.settings import use_block_settings
from pandas_amr._engines.dask.messages import MapOutcome, PartOutcome
from pandas_amr._journal.keys import fingerprint
from pandas_amr._map.breaker import Breaker
from pandas_amr._records.concurrency import await_user_code
from pandas_amr._records.engine import in_thread
from pandas_amr._result.stopped import stop_with
from pandas_amr._run.pipeline import Pipeline
from pandas_amr._units.units import hash_rows
from pandas_amr.errors import BudgetExceeded, RunStopped, UsageError
from pandas_amr.models.waits import collect_waits

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from pandas_amr._context.progress import Watch
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._run.execution import Execution


class PartPipeline(Pipeline):
    """Maps a part. Its plan is there, and its warnings and its end are the driver's to tell.

    Args:
        execution: the call about the part's rows, with what the driver serves.
        watch: is shown how far it is.
        is_proven: whether units of other parts have succeeded, so that it does not give up.
        hashes_units: whether the driver is to recognise equal units of several parts.
    """

    def __init__(
        self, execution: Execution, watch: Watch, *, is_proven: bool, hashes_units: bool
    ) -> None:
        super().__init__(execution, watch)
        self.state.has_warned_of_units = True
        self._earlier_breaker = Breaker() if is_proven else None
        self._hashes_units = hashes_units

    @property
    def _issues_warnings(self) -> bool:
        return False

    def _raise_if_failed(self) -> None:
        """Leave it to the driver, which knows the other parts."""

    async def map_part(
        self, watch_over: Callable[[PartPipeline, asyncio.Task[Any]], None]
    ) -> PartOutcome:
        """Map the part to its end, or until it is told to stop.

        Args:
            watch_over: is given the task that may be cancelled.
        """
        work = asyncio.get_running_loop().create_task(self._carry_out_quietly())
        watch_over(self, work)
        await asyncio.wait([work])
        error = None if work.cancelled() else work.result()
        was_dropped = work.cancelled()
        outcome: PartOutcome = await in_thread(self._make_outcome, error, was_dropped=was_dropped)
        return outcome

    async def _carry_out_quietly(self) -> Exception | None:
        """Carry the run out; return what it raises."""
        try:
            with use_block_settings(self.spec.settings), collect_waits(self.services.watch.waits):
                await await_user_code(self.carry_out())
        except Exception as error:  # noqa: BLE001 (the driver raises it)
            return self._describe(error)
        return None

    def _describe(self, error: Exception) -> Exception:
        """Return an error as a run raises it, without its rows."""
        if isinstance(error, UsageError) and not self.has_spent:
            return error
        try:
            stop_with(error, None, where=self.state.stage or "its beginning")
        except Exception as stopped:  # noqa: BLE001 (which is what it is for)
            return stopped

    async def _end_with(self, outcome: Any) -> Any:
        """Make no result."""
        del outcome

    def _make_outcome(self, error: Exception | None, *, was_dropped: bool) -> PartOutcome:
        """Collect what came of the part."""
        state, spec = self.state, self.spec
        self.services.account_cached()
        outcome = PartOutcome(
            rows=len(spec.job.frame),
            asked=np.empty(0, dtype=np.int64),
            answered_by=np.empty(0, dtype=np.int64),
            maps={},
            failures=tuple(state.sorted_failures(spec.job.names)),
            warnings=tuple(state.warnings),
            error=self._without_result(error or state.ended_by),
            halted=state.halted or was_dropped,
            usage=dict(self.services.ledger.lines),
            sandbox=spec.sandbox_tier,
        )
        if state.findings is None:
            return outcome
        return self._with_findings(outcome, state.findings)

    def _without_result(self, error: Exception | None) -> Exception | None:
        """Return an error as it is sent to the driver."""
        if isinstance(error, RunStopped):
            error.partial = None
        if isinstance(error, BudgetExceeded):
            error.usage = self.services.ledger.total
        return error

    def _with_findings(self, outcome: PartOutcome, findings: MapFindings) -> PartOutcome:
        """Add to an outcome what was found."""
        maps: dict[str | None, MapOutcome] = {}
        for name, store in findings.stores.items():
            positions, table = store.by_position()
            statuses, had = findings.statuses[name], findings.from_journal[name]
            corrected = dict(findings.corrected.get(name, {}))
            maps[name] = MapOutcome(positions, table, statuses, had, corrected)
        return replace(
            outcome,
            asked=findings.units.asked,
            answered_by=findings.units.answered_by,
            maps=maps,
            digests=self._hash_units() if self._hashes_units else (),
        )

    def _hash_units(self) -> tuple[bytes, ...]:
        """Digest the content of each asked unit, as it is sent."""
        findings = self.state.findings
        assert findings is not None
        units = findings.units
        digests = list(hash_rows(units.sent, units.columns))
        return tuple(digests[position] for position in units.asked.tolist())


def digest_rows(frame: pd.DataFrame) -> bytes:
    """Digest the rows of a part, so that it is noticed if they are others when read again."""
    whole: list[bytes] = []
    for table in (frame, frame.index.to_frame(index=False)):
        columns = tuple(range(len(table.columns)))
        whole += hash_rows(table, columns)
    return fingerprint(*whole)
