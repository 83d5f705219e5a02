"""What agents did for a row: in this run, in those before it, in those that the journal has."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pandas_amr._records.counts import counted
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._records.usage import NO_USAGE
from pandas_amr._result.look_nodes import OFF, UNSAVED, look_at_node
from pandas_amr._result.row_places import name_label
from pandas_amr._result.transcript import Transcript
from pandas_amr._result.transcript_page import Section
from pandas_amr._result.transcript_sections import (
    find_in_journal,
    list_units,
    make_journal_section,
    make_section,
    read_node,
)
from pandas_amr._result.transcript_words import describe_usage
from pandas_amr._units.profile import shorten_text
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pandas_amr._records.recorder import RecordedNode
    from pandas_amr._records.transcript import Conversation
    from pandas_amr._result.result import Result
    from pandas_amr._result.row_places import RowPlaces
    from pandas_amr._result.run_transcripts import RunTranscripts

MOST_ROWS = 10  # with one label
VALUE_CHARACTERS = 1_000
COMPARED_LABELS = 5_000  # with one that is unknown
BY_FUNCTION = "A function of yours made its finding: no model was asked."


def look_at(result: Result, places: RowPlaces, label: object, node: object) -> Transcript:
    """Return the transcript of the rows with a label, or of a node.

    Raises:
        UsageError: none or both are given, or there is no such row or node.
    """
    if (label is ...) == (node is None):
        raise UsageError(
            'look() takes a row\'s label, or a node: result.look("a"), result.look(node="map-1").'
        )
    if node is not None:
        return look_at_node(result, places, node)
    return _look_at_label(result, places, label)


def _look_at_label(result: Result, places: RowPlaces, label: object) -> Transcript:
    """Return the transcript of the rows with a label: often one."""
    positions = find_rows(places.index, label)
    pages = [_look_at_row(result, places, position) for position in positions[:MOST_ROWS]]
    if len(positions) == 1:
        return pages[0]
    notes = [f"{len(positions)} rows have this label."]
    if len(positions) > len(pages):
        notes.append(f"The first {len(pages)} are shown.")
    return join_pages(f"Rows {name_label(label)}", notes, pages)


def join_pages(title: str, notes: list[str], pages: list[Transcript]) -> Transcript:
    """Make one transcript of several."""
    sections: list[Section] = []
    for page in pages:
        sections.append(Section(page.title, page.facts, page.notes))
        sections += page.sections
    return Transcript(title, (), notes, sections)


def find_rows(index: pd.Index, label: object) -> list[int]:
    """Find the positions of the rows with a label.

    Raises:
        UsageError: there is none.
    """
    if not isinstance(label, Hashable) or isinstance(label, slice):
        raise UsageError(f"look(label) takes the label of a row, not {type(label).__name__}.")
    try:
        place = index.get_loc(label)
    except (KeyError, TypeError, ValueError, pd.errors.InvalidIndexError):
        place = slice(0, 0)
    if isinstance(place, int | np.integer):
        return [int(place)]
    positions: list[int] = np.arange(len(index))[place].tolist()
    if positions:
        return positions
    compared = index[:COMPARED_LABELS].tolist()
    hint = did_you_mean(label, compared) or _describe_labels(index)
    raise UsageError(f"There is no row {name_label(label)}.{hint}")


def _describe_labels(index: pd.Index) -> str:
    if not len(index):
        return " The result has no rows."
    first, last = name_label(index[0]), name_label(index[-1])
    return f" Labels are those of result.frame: {first} to {last}."


def _look_at_row(result: Result, places: RowPlaces, position: int) -> Transcript:
    """Return the transcript of one row."""
    title = f"Row {name_label(places.index[position])}"
    facts = _list_facts(result, places, position)
    if result.transcripts is None:
        return Transcript(title, facts, [UNSAVED])
    finder = RowFinder(result, places, result.transcripts, position)
    sections = [*finder.find_sections(), *finder.find_in_journal()]
    facts += finder.describe_cost()
    notes = finder.describe(has_sections=bool(sections))
    return Transcript(title, facts, notes, sections)


def _list_facts(result: Result, places: RowPlaces, position: int) -> list[tuple[str, str]]:
    """Return the status of a row, and what was found of it."""
    facts: list[tuple[str, str]] = []
    if result.status is not None:
        row = result.status.iloc[position]
        status = str(row["status"])
        if isinstance(row["reason"], str):
            status = f"{status}: {row['reason']}"
        facts.append(("status", status))
    for name, value in places.findings_at(position).items():
        facts.append((str(name), _show_value(value)))
    return facts


def _show_value(value: object) -> str:
    """Return a value of a finding as it is shown."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:  # noqa: PLR0124 (NaN)
        return "<NA>"
    return shorten_text(str(value), VALUE_CHARACTERS)


class RowFinder:
    """Finds what was done for one row.

    Args:
        result: has the row.
        places: finds rows in nodes.
        transcripts: those of the result.
        position: the row's.
    """

    def __init__(
        self, result: Result, places: RowPlaces, transcripts: RunTranscripts, position: int
    ) -> None:
        self._result = result
        self._places = places
        self._transcripts = transcripts
        self._position = position
        self._of_journal: list[str] = []  # what is to be said of it
        self._usage = NO_USAGE
        self._shared: set[int] = set()  # the units that were asked about together

    def find_sections(self) -> list[Section]:
        """Find the nodes that worked on the row, those of earlier runs first."""
        sections: list[Section] = []
        for run in self._transcripts.runs:
            for recorded, unit in self._find_nodes(run):
                sections.append(self._make_section(run, recorded, unit))
        return sections

    def _find_nodes(self, run: RunTranscripts) -> Iterator[tuple[RecordedNode, int | None]]:
        """Give the nodes that asked about the row, each with the row's unit in it.

        There is none in the nodes of a recipe that each row has gone through by itself.
        """
        prefix, unit = self._places.find(run, self._position)
        for recorded in run.nodes():
            if not recorded.id.startswith(prefix):
                continue
            _, _, inner = recorded.id.removeprefix(prefix).partition("/")
            if not inner and recorded.transcript.about(unit):
                yield recorded, unit
            elif inner.startswith(f"row-{unit}/") and recorded.transcript.conversations:
                yield recorded, None

    def _make_section(
        self, run: RunTranscripts, recorded: RecordedNode, unit: int | None
    ) -> Section:
        transcript, notes = read_node(run, recorded)
        found = transcript.conversations if unit is None else transcript.about(unit)
        self._count(found)
        labels = self._places.name(run, recorded.id, list_units(found))
        return make_section(self._result, recorded.id, transcript, found, notes, labels)

    def _count(self, conversations: Sequence[Conversation]) -> None:
        for conversation in conversations:
            self._usage += conversation.usage
            self._shared.update(conversation.purpose.asked_units)

    def find_in_journal(self) -> list[Section]:
        """Find the runs that made what the journal had of the row."""
        status = self._result.status
        keys_of = self._transcripts.keys_of
        if status is None or "from_journal" not in status.columns:  # parts do not know
            return []
        if not bool(status["from_journal"].iloc[self._position]):
            return []
        if keys_of is None:
            sentence = "The journal had its finding; a loaded result does not know whose it was."
            self._of_journal.append(sentence)
            return []
        sections: list[Section] = []
        for name, key in keys_of(self._position).items():
            what = "The journal had its finding"
            if name is not None:
                what = f"{what} of the map {name!r}"
            sentence, found, made = find_in_journal(self._transcripts, key, what)
            self._of_journal.append(sentence)
            if found is not None and made is not None:
                label = name_label(self._places.index[self._position])
                sections.append(make_journal_section(self._result, found, made, label))
        return sections

    def describe_cost(self) -> list[tuple[str, str]]:
        """Say what the turns took that were about the row."""
        calls = self._usage.calls
        if not calls:
            return []
        figures = [counted(calls, "call"), *describe_usage(self._usage)]
        if len(self._shared) > 1:
            rows = counted(len(self._shared), "row")
            figures.append(f"for {rows} together")
        return [("cost", ", ".join(figures))]

    def describe(self, *, has_sections: bool) -> list[str]:
        """Say what a reader of the row has to know, a sentence each."""
        notes = list(self._of_journal)
        status = ""
        if self._result.status is not None:
            status = self._result.status["status"].iloc[self._position]
        equal = self._places.find_equal(self._transcripts, self._position)
        if status == "empty":
            notes.append("It has no content: no model was asked about it.")
        elif status == "skipped" and not has_sections:
            notes.append("The run did not come to it.")
        elif equal is not None:
            notes.append(f"It is equal to row {equal}, which was asked for both.")
        elif not has_sections and not notes:
            notes.append(self._explain_silence())
        return notes

    def _explain_silence(self) -> str:
        """Say why there is no conversation about the row."""
        result = self._result
        runs = self._transcripts.runs
        if all(run.level == "off" for run in runs):
            return OFF
        if result.origin is not None and result.origin.job.all_callable:
            return BY_FUNCTION
        if result.status is None:
            return "No row was mapped in this run; look(node=...) shows its agents."
        for run in runs:
            if any(recorded.transcript.dropped for recorded in run.nodes()):
                return "The transcript of the run is full, and has no conversation about it."
        return "No conversation about it was taken down: no agent was asked about it in this run."
