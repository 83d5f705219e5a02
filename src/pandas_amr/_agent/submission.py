"""The submission of an agent: its schema and tool, and the answer of its turns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.expressions import FINDINGS, read_findings
from pandas_amr._types.wire import Wire, make_wire
from pandas_amr.models.base import Message, ResponseSchema, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pandas_amr._agent.transcriber import Transcriber
    from pandas_amr._records.usage import Usage

REPL_FORM = "code"
WRITTEN_FORM = "written calls"


@dataclass(frozen=True)
class Submission:
    """What an agent submits: ``name`` as a schema response, or ``submit_<name>`` as a tool.

    Attributes:
        schema: the schema by which an answer is checked; a model sees it in the form of ``wire``.
    """

    name: str
    schema: Mapping[str, Any]

    @cached_property
    def wire(self) -> Wire:
        """How the schema is sent to a model, and how the answer is read."""
        return make_wire(self.schema)

    @cached_property
    def tool(self) -> ToolSpec:
        """The tool by which an agent with tools submits."""
        return ToolSpec(
            name=f"submit_{self.name}",
            description=f"Hand in the {self.name}. This ends the work.",
            parameters=self.wire.schema,
        )

    @cached_property
    def response(self) -> ResponseSchema:
        """The schema of an answer without tools."""
        return ResponseSchema(name=self.name, schema=self.wire.schema, strict=self.wire.strict)

    @property
    def keys(self) -> list[str]:
        """The keys of a submission."""
        return list(self.schema.get("properties", {}))

    @property
    def lists_findings(self) -> bool:
        """Whether it is a list of findings, each with its unit's number."""
        return self.name == FINDINGS

    def read(self, payload: Any) -> Any:
        """Read a payload by the schema as it was sent. A list of findings may be a text."""
        if self.lists_findings and isinstance(payload, dict):
            listed = payload.get(FINDINGS)
            findings = read_findings(listed) if isinstance(listed, str) else None
            if findings is not None:
                payload = payload | {FINDINGS: findings}
        return self.wire.read(payload)

    def is_shaped(self, payload: object) -> bool:
        """Whether a payload is meant as a submission, right or wrong: it has one of the keys."""
        if not isinstance(payload, dict):
            return False
        return not self.keys or not payload.keys().isdisjoint(self.keys)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of an agent's turns: a ``payload`` of decoded JSON, or a ``problem``.

    An answer that was cut off has both: the payload up to the cut, and the problem.

    Attributes:
        payload: the submission.
        problem: why there is none.
        conversation: all messages so far; a repair continues it.
        usage: what the turns used.
        form: the form in which the server returned the answer.
        has_written_calls: whether the model wrote calls as text.
        code_form: the form in which code came, if the model wrote code in place of calls.
        transcriber: takes the conversation down; None if nothing does.
    """

    payload: Any
    problem: str | None
    conversation: tuple[Message, ...]
    usage: Usage
    form: str = ""
    has_written_calls: bool = False
    code_form: str = ""
    transcriber: Transcriber | None = None

    def settle(
        self, accepted: int, problems: Mapping[int, str] | None = None, fields: Iterable[str] = ()
    ) -> None:
        """Have it taken down what came of the answer; see ``Transcriber.settle``."""
        if self.transcriber is not None:
            self.transcriber.settle(accepted, problems or {}, fields)

    @property
    def ways(self) -> str:
        """The forms of the answer, for the trace."""
        forms = [self.form]
        if self.form == REPL_FORM:
            forms.append(self.code_form)
        if self.has_written_calls:
            forms.append(WRITTEN_FORM)
        return ", ".join(form for form in forms if form)
