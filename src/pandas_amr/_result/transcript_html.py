"""A transcript as HTML: a conversation, with what was read and said in boxes that open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.html import Html, details, element, join, root, text_block
from pandas_amr._records.transcript import Conversation, Step
from pandas_amr._result.transcript_words import (
    describe_figures,
    describe_nested,
    describe_outcome,
    describe_purpose,
    describe_speaker,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._result.transcript_page import Facts, Page, Section

OPEN_CHARACTERS = 1_200  # a longer text is folded
MOST_STEPS = 400  # of all sections
RULES = """
.amr.amr-transcript h3 { margin: 0 0 6px; font-size: 16px; }
.amr.amr-transcript h4 { margin: 16px 0 4px; padding-top: 10px;
  border-top: 1px solid var(--amr-line); }
.amr .amr-facts { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: 2px 14px;
  margin: 0 0 8px; }
.amr .amr-facts dt { color: var(--amr-muted); margin: 0; font-weight: 400; }
.amr .amr-facts dd { margin: 0; min-width: 0; white-space: pre-wrap; }
.amr .amr-purpose { margin: 16px 0 4px; font-weight: 600; }
.amr .amr-step { border-inline-start: 3px solid var(--amr-line); padding: 2px 0 2px 10px;
  margin: 0 0 6px; min-width: 0; }
.amr .amr-step > p, .amr .amr-step > pre { margin-bottom: 2px; }
.amr .amr-step.amr-said { border-color: var(--amr-accent); }
.amr .amr-step.amr-ran { border-color: var(--amr-warn); }
.amr .amr-step.amr-wrong { border-color: var(--amr-bad); }
.amr .amr-step .amr-who { font-weight: 600; margin-inline-end: 4px; }
.amr .amr-within { margin-inline-start: 18px; }
"""
CLASSES: Mapping[str, str] = {
    "model": "amr-said",
    "thought": "amr-said",
    "call": "amr-ran",
    "error": "amr-wrong",
}


def transcript_html(transcript: Page) -> str:
    """Write a transcript as HTML; all of its texts are escaped."""
    parts = [element("h3", transcript.title, dir="auto"), _facts(transcript.facts)]
    parts += _notes(transcript.notes)
    writer = _Writer()
    parts += [writer.section(section) for section in transcript.sections]
    if writer.left < 0:
        left = f"{-writer.left:,} more steps are left out; look(node=...) shows one node."
        parts.append(element("p", left, class_="amr-muted"))
    return root(*parts, more_rules=RULES, class_="amr-transcript")


def _facts(facts: Facts) -> Html:
    if not facts:
        return Html("")
    parts: list[Html] = []
    for name, value in facts:
        parts += [element("dt", name, dir="auto"), element("dd", value, dir="auto")]
    return element("dl", *parts, class_="amr-facts")


def _notes(notes: Sequence[str]) -> list[Html]:
    return [element("p", note, class_="amr-muted", dir="auto") for note in notes]


class _Writer:
    """Writes sections, as many steps as may be shown.

    Attributes:
        left: how many more steps may be shown; below 0 how many are left out.
    """

    def __init__(self) -> None:
        self.left = MOST_STEPS

    def section(self, section: Section) -> Html:
        """Write one node."""
        figures = ", ".join(f"{name} {value}" for name, value in section.facts)
        parts = [element("h4", section.title, dir="auto")]
        if figures:
            parts.append(element("p", figures, class_="amr-muted"))
        parts += _notes(section.notes)
        for conversation in section.conversations:
            title = describe_purpose(conversation, section.labels)
            parts.append(self._conversation(conversation, title, section.labels))
        return join(parts)

    def _conversation(
        self, conversation: Conversation, title: str, labels: Mapping[int, str]
    ) -> Html:
        parts = [element("p", title, class_="amr-purpose", dir="auto")]
        for step in conversation.steps:
            if isinstance(step, Conversation):
                nested = self._conversation(step, describe_nested(step), {})
                parts.append(element("div", nested, class_="amr-within"))
                continue
            self.left -= 1
            if self.left >= 0:
                parts.append(_step(step))
        for outcome in describe_outcome(conversation, labels):
            is_good = outcome == "accepted" or outcome.endswith(" accepted")
            look = "amr-good" if is_good else "amr-bad"
            parts.append(element("p", outcome, class_=look, dir="auto"))
        return join(parts)


def _step(step: Step) -> Html:
    """Write one step: who speaks, its figures, and its text if contents are kept."""
    who = element("span", describe_speaker(step), class_="amr-who")
    figures = element("span", ", ".join(describe_figures(step)), class_="amr-muted")
    # A space: pages may take the stylesheet away, as JupyterLab does of notebooks not trusted.
    parts = [element("p", who, " ", figures)]
    text = step.text if step.code is None else step.code
    if text:
        block = text_block(text)
        is_long = len(text) > OPEN_CHARACTERS or step.kind == "system"
        parts.append(details("Show the text", block) if is_long else block)
    look = "amr-wrong" if step.error else CLASSES.get(step.kind, "")
    return element("div", *parts, class_=f"amr-step {look}".strip())
