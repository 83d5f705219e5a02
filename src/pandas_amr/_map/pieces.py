"""Findings of a long unit's pieces, merged into one: by rule, and texts that differ by an agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.loop import run_agent
from pandas_amr._agent.submission import Submission
from pandas_amr._findings.merge import choose_merge_rules, merge_records
from pandas_amr._journal.entries import Check
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr._types.arrow_values import json_record
from pandas_amr._types.schema import object_schema
from pandas_amr._types.violations import find_violation
from pandas_amr._units.cells import make_reader_keys, to_json_line
from pandas_amr.errors import InvalidOutput
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._agent.submission import Answer
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.merge import Place
    from pandas_amr._records.transcript import Purpose
    from pandas_amr.models.base import Model


@dataclass
class PieceMerger:
    """Merges the findings of one unit's pieces.

    Attributes:
        rules: how a field's findings become one, by the field's name, if it is not by its type.
        by_agent: whether the model may be asked to write one text of several. One that takes a
            single unit per request is not.
        purpose: what the transcript says of it.
        usage: what the model was asked.
    """

    model: Model
    instruction: str
    kind: FindingType
    rules: Mapping[str, str]
    by_agent: bool
    purpose: Purpose
    usage: Usage = NO_USAGE

    async def merge(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge the pieces' records, which come in order.

        Raises:
            InvalidOutput: what comes of it is not a valid finding.
            ModelError: the model could not be asked for a text.
        """
        model = self.kind.model
        rules = choose_merge_rules(model, self.rules)
        merged = merge_records(records, model, rules)
        if merged.texts and self.by_agent:
            written = await self._write_texts(merged.texts)
        else:
            written = {place: "\n".join(texts) for place, texts in merged.texts.items()}
        for place, text in written.items():
            merged.put(place, text)
        record, problem = self.kind.record(merged.values)
        if record is None:
            raise InvalidOutput(problem or "invalid")
        form = json_record(record, model)
        if not Check(self.kind).is_stable(form, record):
            raise InvalidOutput("a validator changes again what it has changed in each of them")
        return record

    async def _write_texts(self, texts: Mapping[Place, list[str]]) -> dict[Place, str]:
        """Ask the model for one text in place of those that the pieces write differently."""
        places = _name_places(texts)
        fields = self._fields(places)
        output = object_schema(fields)
        submission = Submission("reduction", object_schema({"output": output}))
        enforced = submission.response.strict
        lines = _piece_lines(places, texts)
        system = prompts.merge_system(self.instruction, fields, enforced=enforced)
        user = prompts.finding_lines(lines)
        messages = (Message("system", system), Message("user", user))
        answer = await run_agent(
            self.model,
            messages,
            submission=submission,
            phase="map",
            purpose=self.purpose,
        )
        self.usage += answer.usage
        written, problem = _read_texts(answer, output, places)
        if problem is not None:
            answer.settle(0, dict.fromkeys(self.purpose.units, problem), fields)
            raise InvalidOutput(problem)
        answer.settle(1)
        return {place: written[name] for name, place in places.items()}

    def _fields(self, places: Mapping[str, Place]) -> dict[str, Any]:
        """Return the schema of each text that is to be written."""
        fields: dict[str, Any] = {}
        for name, place in places.items():
            if len(place) == 1:
                fields[name] = self.kind.schema["properties"][name]
            else:
                fields[name] = {"type": "string", "description": f"a part of {place[0]}"}
        return fields


def _read_texts(
    answer: Answer, output: dict[str, Any], places: Mapping[str, Place]
) -> tuple[dict[str, str], str | None]:
    """Read the texts that were written, or say what is wrong with the answer."""
    if answer.problem is not None:
        return {}, answer.problem
    written = answer.payload.get("output")
    if not isinstance(written, dict):
        return {}, f"the answer has no `output` with {', '.join(places)}"
    return written, find_violation(written, output)


def _name_places(texts: Mapping[Place, list[str]]) -> dict[str, Place]:
    """Name each text after its field; one within a field has a number, too."""
    places: dict[str, Place] = {}
    for number, place in enumerate(texts):
        name = place[0]
        if len(place) > 1:
            name = f"{name}_{number}"
        places[name] = place
    return places


def _piece_lines(places: Mapping[str, Place], texts: Mapping[Place, list[str]]) -> list[str]:
    """Render the texts of each piece as one line."""
    keys = make_reader_keys(list(places))
    most = max(len(pieces) for pieces in texts.values())
    lines: list[str] = []
    for piece in range(most):
        shown: dict[str, str] = {}
        for key, place in zip(keys, places.values(), strict=True):
            pieces = texts[place]
            if piece < len(pieces):
                shown[key] = pieces[piece]
        lines.append(to_json_line(shown))
    return lines
