"""The words in which a transcript tells of conversations and steps, in text and in HTML alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.counts import counted
from pandas_amr._records.transcript import ABOUT_NO_UNIT, Conversation, Step
from pandas_amr._records.usage import Usage, describe_spend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN_LABELS = 6
SPEAKERS = {
    "system": "instructions",
    "user": "to the agent",
    "thought": "thought",
    "model": "agent",
    "error": "the service failed",
}
FINISHED = frozenset({"", "stop", "tool_calls", "function_call"})
FINISH_WORDS = {
    "length": "cut off at its greatest length",
    "content_filter": "stopped by the content filter",
    "other": "stopped for a reason of the server's own",
}


def describe_purpose(conversation: Conversation, labels: Mapping[int, str]) -> str:
    """Say what a conversation is for."""
    purpose = conversation.purpose
    if purpose.kind == "plan":
        return "Repair of the plan" if purpose.is_repair else "Asked for a plan"
    if purpose.kind == "reduce":
        return "Repair of the answer" if purpose.is_repair else "Asked to combine findings"
    if purpose.kind == "merge":
        return f"Asked to write one text of what {purpose.pieces} pieces found"
    if purpose.piece:
        row = _name(purpose.units[0], labels)
        what = f"piece {purpose.piece} of {purpose.pieces} of row {row}"
        return f"Repair of {what}" if purpose.is_repair else f"Asked about {what}"
    rows = name_rows(purpose.asked_units, labels)
    return f"Repair of {rows}" if purpose.is_repair else f"Asked about {rows}"


def describe_nested(conversation: Conversation) -> str:
    """Say what a conversation is for that code has begun."""
    purpose = conversation.purpose
    what = counted(len(purpose.asked_units), "text")
    return f"Repair of {what} of ask()" if purpose.is_repair else f"ask() about {what}"


def name_rows(positions: Sequence[int], labels: Mapping[int, str]) -> str:
    """Name rows by their labels, the first ones of many."""
    names = [_name(position, labels) for position in positions[:SHOWN_LABELS]]
    if len(positions) == 1:
        return f"row {names[0]}"
    shown = ", ".join(names)
    more = len(positions) - len(names)
    if more:
        shown = f"{shown} and {more} more"
    return f"{counted(len(positions), 'row')}: {shown}"


def _name(position: int, labels: Mapping[int, str]) -> str:
    return labels.get(position, f"at position {position}")


def describe_outcome(conversation: Conversation, labels: Mapping[int, str]) -> list[str]:
    """Say what came of a conversation, a sentence each."""
    purpose = conversation.purpose
    accepted = conversation.accepted
    if accepted is None:
        return ["It did not come to an answer."]
    lines: list[str] = []
    is_of_shard = purpose.kind == "map" and not purpose.piece
    if is_of_shard and (accepted or not conversation.problems):
        lines.append(f"{counted(accepted, 'finding')} accepted")
    elif accepted:
        lines.append("accepted")
    for position, problem in conversation.problems:
        place = "" if position == ABOUT_NO_UNIT else f"row {_name(position, labels)}: "
        lines.append(f"not accepted: {place}{problem}")
    return lines


def describe_speaker(step: Step) -> str:
    """Say who speaks in a step, or what it is."""
    if step.kind == "call":
        return f"calls {step.tool}"
    if step.kind == "result":
        return f"{step.tool or 'tool'} gives"
    return SPEAKERS[step.kind]


def describe_figures(step: Step) -> list[str]:
    """Return the figures of a step: its length, what it took, how it ended."""
    figures: list[str] = []
    if step.characters or step.usage is None:  # an agent that calls tools may say nothing
        figures.append(counted(step.characters, "character"))
    if step.usage is not None:
        figures += describe_usage(step.usage)
    if step.finish not in FINISHED:
        figures.append(FINISH_WORDS[step.finish])
    if step.error:
        figures.append(step.error)
    return figures


def describe_usage(usage: Usage) -> list[str]:
    """Return what some turns took, as far as it is known."""
    figures: list[str] = []
    if usage.tries > 1 and usage.calls <= 1:
        figures.append(f"{usage.tries} tries")
    if usage.tokens:
        figures.append(f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens")
    if usage.money:
        figures.append(describe_spend(usage))
    if usage.seconds:
        figures.append(f"{usage.seconds:.2f} s")
    return figures
