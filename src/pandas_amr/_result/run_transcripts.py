"""The transcripts behind a result: of its own run, of the runs before it, and from the journal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._records.recorder import RUN_CHARACTERS, RecordedNode, Recorder
from pandas_amr._records.transcript import NodeTranscript, decode_node, encode_node
from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from pandas_amr._journal.journal import Journal, MadeAnswer
    from pandas_amr._journal.transcript_file import FoundNode
    from pandas_amr._records.transcript import TraceLevel


@dataclass(frozen=True, eq=False)
class RunTranscripts:
    """What was taken down of a run.

    Attributes:
        recorder: has the nodes; None if the run kept no transcript.
        prefix: what the names of the nodes begin with, if the run was part of another one.
        journal: where answers, and contents that went to a file, are found again.
        token: names the run in that file.
        asked_for: the position of the unit that was asked for each row; None if each was itself.
        keys_of: gives the keys in the journal of the findings of a row, by the name of the map.
        earlier: those of the run of which this one was a retry.
    """

    recorder: Recorder | None = None
    prefix: str = ""
    journal: Journal | None = None
    token: bytes = b""
    asked_for: NDArray[np.int64] | None = None
    keys_of: Callable[[int], Mapping[str | None, bytes]] | None = None
    earlier: RunTranscripts | None = None

    def __eq__(self, other: object) -> bool:
        """Whether the same was taken down."""
        if not isinstance(other, RunTranscripts):
            return NotImplemented
        return self.encode() == other.encode()

    __hash__ = object.__hash__

    @property
    def level(self) -> TraceLevel:
        """What was taken down."""
        return "off" if self.recorder is None else self.recorder.level

    @property
    def size(self) -> int:
        """How many characters of contents are in memory."""
        if self.recorder is None or self.recorder.file is not None:
            return 0
        return RUN_CHARACTERS - self.recorder.space.characters

    @property
    def runs(self) -> list[RunTranscripts]:
        """Those of all runs, the earliest first."""
        before = [] if self.earlier is None else self.earlier.runs
        return [*before, self]

    def after(self, earlier: RunTranscripts | None) -> RunTranscripts:
        """Return these with those of the run that this one went on from."""
        return replace(self, earlier=earlier)

    def nodes(self) -> Iterator[RecordedNode]:
        """Give the nodes that have transcripts, in the order in which they began."""
        if self.recorder is None:
            return
        for recorded in self.recorder.nodes:
            if recorded.id.startswith(self.prefix):
                yield recorded

    def unit_of(self, position: int) -> int:
        """Return the position of the row that was asked about for a row: equal rows are one."""
        return position if self.asked_for is None else int(self.asked_for[position])

    def read(self, recorded: RecordedNode) -> NodeTranscript:
        """Return a node's transcript, with its contents if they are in the file.

        Raises:
            JournalError: the file cannot be used.
        """
        transcript = recorded.transcript
        if not transcript.is_on_file or self.journal is None:
            return transcript
        written = self.journal.read_transcript(self.token, recorded.id)
        return transcript if written is None else written

    def find_made(self, key: bytes) -> MadeAnswer | None:
        """Find which run made an answer of the journal.

        Raises:
            JournalError: the journal cannot be used.
        """
        return None if self.journal is None else self.journal.find_made(key)

    def find_transcript(self, key: bytes, made: MadeAnswer) -> FoundNode | None:
        """Find the transcript of the node in which another run made an answer.

        Raises:
            JournalError: the file cannot be used.
        """
        return None if self.journal is None else self.journal.find_transcript(key, made)

    def detach(self) -> RunTranscripts:
        """Return what is known without the journal and the run, with contents."""
        rows = 0 if self.asked_for is None else len(self.asked_for)
        return decode_transcripts(self.encode(), rows)

    # As JSON

    def encode(self) -> dict[str, Any]:
        """Return what is saved with a result: with contents, since it has the rows, too."""
        nodes: list[Any] = []
        for recorded in self.nodes():
            try:
                transcript = self.read(recorded)
            except JournalError:  # what is known without the file is saved
                transcript = recorded.transcript
            nodes.append([recorded.id, encode_node(transcript)])
        return {
            "trace": self.level,
            "prefix": self.prefix,
            "nodes": nodes,
            "asked_for": self._encode_equal_rows(),
            "earlier": None if self.earlier is None else self.earlier.encode(),
        }

    def _encode_equal_rows(self) -> list[list[int]]:
        """Return the rows that were not asked about, each with the one that was."""
        if self.asked_for is None:
            return []
        rows = np.flatnonzero(self.asked_for != np.arange(len(self.asked_for)))
        pairs: list[list[int]] = np.column_stack([rows, self.asked_for[rows]]).tolist()
        return pairs


def decode_transcripts(plain: Mapping[str, Any], rows: int) -> RunTranscripts:
    """Read what ``encode`` gave, for a result with so many rows.

    Raises:
        ValueError: it is something else; so do the other errors of wrong types and missing keys.
    """
    level: TraceLevel = plain["trace"]
    recorder = None if level == "off" else Recorder(level)
    for name, transcript in plain["nodes"]:
        assert recorder is not None
        recorder.nodes.append(RecordedNode(name, kept=decode_node(transcript)))
    asked_for = np.arange(rows)
    for position, unit in plain["asked_for"]:
        asked_for[position] = unit
    earlier = plain["earlier"]
    return RunTranscripts(
        recorder,
        plain["prefix"],
        asked_for=asked_for,
        earlier=None if earlier is None else decode_transcripts(earlier, rows),
    )
