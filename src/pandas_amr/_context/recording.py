"""Take down what the agents of a run do, as the setting ``trace`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._journal.transcript_writer import TranscriptWriter
from pandas_amr._records.engine import run_off_loop
from pandas_amr._records.recorder import Recorder

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from pandas_amr._context.services import Services
    from pandas_amr._journal.origins import RowOrigins
    from pandas_amr._records.trace import Trace
    from pandas_amr._records.transcript import TraceLevel


def begin_recorder(trace: Trace, level: TraceLevel) -> None:
    """Begin to take down what agents do, and when; nothing if the setting is ``off``."""
    if level != "off":
        trace.recorder = Recorder(level)
        trace.keep_spans()


async def open_transcript_file(services: Services, stack: AsyncExitStack) -> None:
    """Have contents written beside the journal, until the block ends."""
    recorder, journal = services.trace.recorder, services.journal
    if recorder is None or journal is None or not recorder.keeps_contents:
        return
    writer = TranscriptWriter(journal, services.run_number, recorder, services.warn)
    recorder.file = await stack.enter_async_context(writer)


async def note_rows(services: Services, rows: RowOrigins) -> None:
    """Note how a run tells rows apart, so that what agents read of them can be forgotten."""
    recorder = services.trace.recorder
    if recorder is not None and recorder.file is not None:
        links = await run_off_loop(rows.links, size=rows.size)
        recorder.file.add_rows(rows.reading, links)
