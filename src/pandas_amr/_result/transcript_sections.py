"""Sections of a transcript: one node each, of this run or of another one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pandas as pd

from pandas_amr._records.counts import counted
from pandas_amr._records.usage import format_money
from pandas_amr._result.transcript_page import Section
from pandas_amr._units.profile import shorten_text
from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pandas_amr._journal.journal import MadeAnswer
    from pandas_amr._journal.transcript_file import FoundNode
    from pandas_amr._records.recorder import RecordedNode
    from pandas_amr._records.transcript import Conversation, NodeTranscript
    from pandas_amr._result.result import Result
    from pandas_amr._result.run_transcripts import RunTranscripts

MOST_CONVERSATIONS = 60  # of one node
PARENTS_CHARACTERS = 300
SHORT_FACTS = frozenset({"status", "rows", "inputs", "tokens"})


def make_section(
    result: Result,
    name: str,
    transcript: NodeTranscript,
    found: Sequence[Conversation],
    notes: Sequence[str],
    labels: Mapping[int, str],
) -> Section:
    """Make the section of a node, of as many of its conversations as are shown."""
    facts = [(what, value) for what, value in list_facts(result, name) if what in SHORT_FACTS]
    described = [*notes, *_describe_limits(transcript, found)]
    return Section(name, facts, described, _choose(found), labels)


def _choose(found: Sequence[Conversation]) -> Sequence[Conversation]:
    """Choose the conversations that are shown: those that went wrong before the others."""
    if len(found) <= MOST_CONVERSATIONS:
        return found
    by_outcome = sorted(range(len(found)), key=lambda place: not _went_wrong(found[place]))
    return [found[place] for place in sorted(by_outcome[:MOST_CONVERSATIONS])]


def _went_wrong(conversation: Conversation) -> bool:
    return conversation.accepted is None or bool(conversation.problems)


def _describe_limits(transcript: NodeTranscript, found: Sequence[Conversation]) -> list[str]:
    """Say what is left out of a node's transcript."""
    notes: list[str] = []
    if len(found) > MOST_CONVERSATIONS:
        which = (
            "those that went wrong, and the first" if any(map(_went_wrong, found)) else "the first"
        )
        notes.append(f"Of {len(found)} conversations {MOST_CONVERSATIONS} are shown: {which}.")
    for count, what in ((transcript.dropped, "conversation"), (transcript.cut, "character")):
        if count:
            notes.append(
                f"Left out, since the transcript of the run is full: {counted(count, what)}."
            )
    return notes


def list_facts(result: Result, name: str) -> list[tuple[str, str]]:
    """Return the figures of a node of the result's trace; none of another one."""
    rows = result.trace[result.trace["id"] == name]
    if rows.empty:
        return []
    row = rows.iloc[0]
    inputs = "rows" if row["type"] == "map" else "inputs"
    facts = [
        ("type", str(row["type"])),
        ("status", str(row["status"])),
        (inputs, f"{row['units']:,}"),
        ("tokens", f"{row['tokens']:,}"),
        ("seconds", f"{row['seconds']:.2f}"),
    ]
    if pd.notna(row["money"]) and row["money"]:
        facts.append(("money", format_money(row["money"])))
    texts = {
        "answered by": row["form"],
        "sandbox": row["sandbox"],
        "reads": shorten_text(", ".join(row["parents"]), PARENTS_CHARACTERS),
    }
    return facts + [(what, text) for what, text in texts.items() if isinstance(text, str) and text]


def read_node(run: RunTranscripts, recorded: RecordedNode) -> tuple[NodeTranscript, list[str]]:
    """Return a node's transcript, and what is to be said of it."""
    try:
        transcript = run.read(recorded)
    except JournalError as error:
        return recorded.transcript, [f"What was read and said cannot be shown. {error}"]
    if transcript.is_on_file:
        return transcript, ["What was read and said is not beside the journal any more."]
    return transcript, []


def list_units(conversations: Iterable[Conversation]) -> list[int]:
    """Return the positions of the units that conversations are about, each once."""
    positions: dict[int, None] = {}
    for conversation in conversations:
        positions.update(dict.fromkeys(conversation.purpose.units))
    return list(positions)


# -- from the journal ------------------------------------------------------------------------------


def find_in_journal(
    run: RunTranscripts, key: bytes, what: str
) -> tuple[str, FoundNode | None, MadeAnswer | None]:
    """Find which run made an answer that the journal had, and the transcript of that.

    Returns:
        A sentence, which begins with ``what``; the node, if it has a transcript; the run.
    """
    try:
        made = run.find_made(key)
        if made is None:
            return f"{what}; it is not there any more.", None, None
        found = run.find_transcript(key, made)
    except JournalError as error:
        return f"{what}. {error}", None, None
    verb = "" if made.verb is None else f" ({made.verb})"
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(made.made))
    sentence = f"{what}: made by run {made.run}{verb} at {moment}"
    if found is None:
        return f'{sentence}, of which there is no transcript (trace="full" keeps one).', None, made
    return f"{sentence}.", found, made


def make_journal_section(
    result: Result, found: FoundNode, made: MadeAnswer, label: str | None = None
) -> Section:
    """Make the section of a node of another run: the whole node, or the row of a label."""
    conversations = found.transcript.conversations
    labels: dict[int, str] = {}
    if label is not None and found.position is not None:
        conversations = found.transcript.about(found.position)
        labels = dict.fromkeys(list_units(conversations), "another")
        labels[found.position] = label
    title = f"{found.node} of run {made.run}"
    return make_section(result, title, found.transcript, conversations, (), labels)
