"""A transcript as text that is safe to print: bounded, and without what a terminal obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.terminal import escape_unprintable, shorten_lines
from pandas_amr._records.transcript import Conversation, Step
from pandas_amr._result.transcript_words import (
    describe_figures,
    describe_nested,
    describe_outcome,
    describe_purpose,
    describe_speaker,
)

if TYPE_CHECKING:
    from pandas_amr._result.transcript_page import Page, Section

TEXT_LINES = 40  # of one text
LINE_CHARACTERS = 400
NAME_CHARACTERS = 300
MOST_LINES = 1_500  # of all
STEP = "  "


def transcript_text(transcript: Page) -> str:
    """Write a transcript."""
    lines = [_line(transcript.title)]
    for name, value in transcript.facts:
        lines.append(f"{STEP}{_line(name)}: {_line(value)}")
    lines += [f"{STEP}{_line(note)}" for note in transcript.notes]
    for section in transcript.sections:
        lines += _section_lines(section)
    if len(lines) > MOST_LINES:
        left = len(lines) - MOST_LINES
        lines = [*lines[:MOST_LINES], f"... {left:,} more lines; look(node=...) shows one node"]
    return "\n".join(lines)


def _section_lines(section: Section) -> list[str]:
    title = _line(section.title)
    figures = ", ".join(f"{name} {value}" for name, value in section.facts)
    if figures:
        title = f"{title} ({_line(figures)})"
    lines = ["", title]
    lines += [f"{STEP}{_line(note)}" for note in section.notes]
    for conversation in section.conversations:
        purpose = describe_purpose(conversation, section.labels)
        lines.append(f"{STEP}{_line(purpose)}")
        lines += _conversation_lines(conversation, STEP * 2)
        for outcome in describe_outcome(conversation, section.labels):
            lines.append(f"{STEP * 2}-> {_line(outcome)}")
    return lines


def _conversation_lines(conversation: Conversation, indent: str) -> list[str]:
    lines: list[str] = []
    for step in conversation.steps:
        if isinstance(step, Conversation):
            lines.append(f"{indent}{STEP}{describe_nested(step)}")
            lines += _conversation_lines(step, indent + STEP * 2)
            for outcome in describe_outcome(step, {}):
                lines.append(f"{indent}{STEP * 2}-> {_line(outcome)}")
        else:
            lines += _step_lines(step, indent)
    return lines


def _step_lines(step: Step, indent: str) -> list[str]:
    speaker = _line(describe_speaker(step))
    figures = _line(", ".join(describe_figures(step)))
    lines = [f"{indent}{speaker}: {figures}"]
    text = step.text if step.code is None else step.code
    if not text:
        return lines
    text = text.replace("\r\n", "\n").replace("\t", "    ").rstrip("\n")
    shown = shorten_lines(text, most_lines=TEXT_LINES, most_characters=LINE_CHARACTERS)
    lines += [f"{indent}| {line}" for line in shown]
    return lines


def _line(text: str) -> str:
    """Return a text as one line that is safe to print."""
    if len(text) > NAME_CHARACTERS:
        text = f"{text[:NAME_CHARACTERS]}..."
    return escape_unprintable(text)
