"""What agents did in a node of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.suggest import did_you_mean
from pandas_amr._result.row_places import name_label
from pandas_amr._result.transcript import Transcript
from pandas_amr._result.transcript_sections import (
    find_in_journal,
    list_facts,
    list_units,
    make_journal_section,
    make_section,
    read_node,
)
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from pandas_amr._records.recorder import RecordedNode
    from pandas_amr._result.result import Result
    from pandas_amr._result.row_places import RowPlaces
    from pandas_amr._result.run_transcripts import RunTranscripts
    from pandas_amr._result.transcript_page import Section

COMPARED_NODES = 5_000  # with a name that is unknown
LISTED_NODES = 8
OFF = 'This run kept no transcript: trace="off".'
COMPUTED = {  # by the form of a node's answer
    "pandas": "pandas computed it: no model was asked.",
    "function": "A function of yours made it: no model was asked.",
    "recipe": "A recipe made it: its stages have nodes of their own.",
    "journal": "The journal had these findings; look(label) of a row says which run made them.",
    "result": "An earlier run of this result made these findings.",
}
UNSAVED = "This result has no transcript: it was saved or made without one."


def look_at_node(result: Result, places: RowPlaces, node: object) -> Transcript:
    """Return the transcript of a node.

    Raises:
        UsageError: there is none of this name.
    """
    transcripts = result.transcripts
    name = _find_node(result, transcripts, node)
    title, facts = f"Node {name}", list_facts(result, name)
    if transcripts is None:
        return Transcript(title, facts, [UNSAVED])
    if transcripts.level == "off":
        return Transcript(title, facts, [OFF])
    sections: list[Section] = []
    notes: list[str] = []
    for recorded in transcripts.nodes():
        if recorded.id == name or recorded.id.startswith(f"{name}/"):
            notes += _add_recalled(result, transcripts, recorded, sections)
            sections += _list_sections(result, places, transcripts, recorded)
    if not sections and not notes:
        notes.append(_explain_silence(result, name))
    return Transcript(title, facts, notes, sections)


def _find_node(result: Result, transcripts: RunTranscripts | None, node: object) -> str:
    """Return the id of the node that a name means.

    Raises:
        UsageError: there is none.
    """
    names = {str(name): None for name in result.trace["id"]}
    prefix = ""
    if transcripts is not None:
        names |= {recorded.id: None for recorded in transcripts.nodes()}
        prefix = transcripts.prefix
    for name in (node, f"{prefix}{node}"):
        if isinstance(name, str) and name in names:
            return name
    if not names:
        raise UsageError("This run has no nodes: no agent worked, and nothing was mapped.")
    known = list(names)
    listed = ", ".join(map(repr, known[:LISTED_NODES]))
    more = f" and {len(known) - LISTED_NODES} more" if len(known) > LISTED_NODES else ""
    hint = did_you_mean(node, known[:COMPARED_NODES])
    raise UsageError(
        f"There is no node {name_label(node)}.{hint} result.trace has the nodes: {listed}{more}."
    )


def _list_sections(
    result: Result, places: RowPlaces, transcripts: RunTranscripts, recorded: RecordedNode
) -> list[Section]:
    """Make the section of a node that was taken down; none if its agents said nothing."""
    if not recorded.transcript.conversations and not recorded.transcript.dropped:
        return []
    transcript, notes = read_node(transcripts, recorded)
    found = transcript.conversations
    labels = places.name(transcripts, recorded.id, list_units(found))
    section = make_section(result, recorded.id, transcript, found, notes, labels)
    return [section]


def _add_recalled(
    result: Result, transcripts: RunTranscripts, recorded: RecordedNode, sections: list[Section]
) -> list[str]:
    """Say which run made the answer that a node had from the journal; add its transcript."""
    notes: list[str] = []
    for digits in recorded.transcript.recalled:
        key = bytes.fromhex(digits)
        if transcripts.journal is None:
            notes.append("The journal had its answer; a loaded result does not know whose it was.")
            continue
        sentence, found, made = find_in_journal(transcripts, key, "The journal had its answer")
        notes.append(sentence)
        if found is not None and made is not None:
            sections.append(make_journal_section(result, found, made))
    return notes


def _explain_silence(result: Result, name: str) -> str:
    """Say why no agent said anything in a node."""
    rows = result.trace[result.trace["id"] == name]
    if not rows.empty and rows["status"].iloc[0] == "passed":
        return "Its input went on as it was: no agent was asked."
    form = "" if rows.empty else str(rows["form"].iloc[0])
    if form in COMPUTED:
        return COMPUTED[form]
    if rows.empty or rows["type"].iloc[0] != "map":
        return "No agent was asked."
    job = None if result.origin is None else result.origin.job
    if job is not None and job.all_callable:
        return "A function of yours mapped these rows: no model was asked."
    return "No agent was asked: the journal had what was found, or a function found it."
