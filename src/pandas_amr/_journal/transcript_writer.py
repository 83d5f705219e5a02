"""Write what a run takes down of its agents beside the journal, node by node, as nodes end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Self

from pandas_amr._journal.database_file import describe_error, find_forgotten
from pandas_amr._journal.transcript_file import RunNodes, WrittenNode, write_nodes
from pandas_amr._records.transcript import encode_node
from pandas_amr.errors import JournalError, JournalWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from pandas_amr._journal.journal import Journal
    from pandas_amr._records.recorder import RecordedNode, Recorder
    from pandas_amr.errors import AMRWarning

TOKEN_BYTES = 16
GATHER_S = 0.2  # a process that is killed loses what its agents did in this time


class TranscriptWriter:
    """Writes the nodes of one run that have ended, many in one commit while the file is busy.

    Args:
        journal: the journal; the file is beside it.
        run: the run's number in it.
        recorder: lets go of what is written.
        warn: is told if the file cannot be written. Then contents stay with the result.

    Attributes:
        token: names the run in the file.
    """

    def __init__(
        self,
        journal: Journal,
        run: int,
        recorder: Recorder,
        warn: Callable[[AMRWarning], None],
    ) -> None:
        self.journal = journal
        self.token = os.urandom(TOKEN_BYTES)
        self._run = run
        self._recorder = recorder
        self._warn = warn
        self._waiting: list[RecordedNode] = []
        self._links: set[tuple[bytes, bytes]] = set()
        self._readings: set[str] = set()
        self._writing: asyncio.Task[None] | None = None
        self._has_failed = False
        self._is_ending = asyncio.Event()

    def write(self, recorded: RecordedNode) -> None:
        """Write a node's transcript, soon."""
        if self._has_failed or not recorded.transcript.conversations:
            return
        self._waiting.append(recorded)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    def add_rows(self, reading: str, links: Iterable[tuple[bytes, bytes]]) -> None:
        """Note how the run tells rows apart, so that they can be forgotten."""
        self._readings.add(reading)
        self._links.update(links)

    async def __aenter__(self) -> Self:
        """Return the writer."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until all is written."""
        del kind, error, trace
        self._is_ending.set()
        if self._writing is not None:
            await self._writing

    async def _write_all(self) -> None:
        """Write what waits, until nothing does."""
        while self._waiting:
            await self._gather_nodes()
            nodes, self._waiting = self._waiting, []
            links, self._links = self._links, set()
            readings, self._readings = self._readings, set()
            work = functools.partial(self._write_nodes, nodes, links, readings)
            try:
                await self.journal.work(work)
            except JournalError as error:
                self._give_up(error)
                return
            for recorded in nodes:
                self._recorder.drop_contents(recorded)

    async def _gather_nodes(self) -> None:
        """Let more nodes end: to open the file costs more than to write a node."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._is_ending.wait()

    def _give_up(self, error: JournalError) -> None:
        self._has_failed = True
        self._waiting.clear()
        message = (
            f"What agents read and said from now on is in the result only, and not beside the "
            f"journal. {error}"
        )
        self._warn(JournalWarning(message))

    def _write_nodes(
        self,
        nodes: list[RecordedNode],
        links: set[tuple[bytes, bytes]],
        readings: set[str],
        database: sqlite3.Connection,
    ) -> None:
        """Write nodes, on the journal's thread."""
        written = [_encode(recorded) for recorded in nodes]
        run = RunNodes(self.token, self._run, written, links, readings)
        forgotten = functools.partial(self._find_forgotten, database)
        write_nodes(self.journal.file, run, forgotten)

    def _find_forgotten(self, database: sqlite3.Connection) -> set[bytes]:
        """Find what was forgotten while the run was under way.

        Raises:
            JournalError: the journal cannot be read; that says nothing of this file.
        """
        try:
            return find_forgotten(database, self._run)
        except sqlite3.Error as error:
            raise JournalError(describe_error(self.journal.file, error)) from None


def _encode(recorded: RecordedNode) -> WrittenNode:
    content = json.dumps(encode_node(recorded.transcript), ensure_ascii=False)
    text = content.encode("utf-8", "backslashreplace").decode()  # SQLite takes no half characters
    keys = dict(recorded.keys or {})
    return WrittenNode(recorded.id, recorded.kind, text, keys, recorded.origins)
