"""A model that answers at once with typical values, and counts what it is asked."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.dispatch import ToolSubmission
from pandas_amr._agent.repl import REPL, Repl
from pandas_amr._records.usage import Usage
from pandas_amr._run.typical import TYPICAL_TEXT, typical_value
from pandas_amr.errors import ModelError, SandboxError
from pandas_amr.models.base import CallsNoTools, Message, Reply, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr.models.base import LM, CodeUse, Request
    from pandas_amr.sandbox.base import Session

NOTES = "; ".join([TYPICAL_TEXT] * 8)  # an answer of free text
SUBMIT = "submit_"
CODE_TOKENS = 150  # of a cell of code
NUMBERED_UNIT = re.compile(r'^\{"unit": ?\d+', re.MULTILINE)
CHOICE = {"field": None, "function": "count", "condition": None}


@dataclass
class CountingModel:
    """Answers with typical values, or with what a sample found.

    Attributes:
        count: counts tokens as the model would.
        answers: what it says, in turn, by ``schema_key``; a typical value of any other schema.
        reduction_tokens: of a reduction in the sample; None if there was none.
    """

    count: TokenCounter
    answers: Mapping[str, Iterator[Any]]
    reduction_tokens: float | None = None

    async def complete(self, request: Request) -> Reply:
        """Answer one turn: hand in, by code if nothing else can."""
        await asyncio.sleep(0)  # others' turn, as while a server answers
        input_tokens = sum(self.count(one.content or "") for one in request.messages)
        message, output_tokens = self._answer(request)
        usage = Usage(1, 1, input_tokens=input_tokens, output_tokens=output_tokens)
        return Reply(message, "stop", usage)

    def _answer(self, request: Request) -> tuple[Message, int]:
        if request.code in {"declared", "found"}:
            return Message("assistant", "```python\nsubmit()\n```"), CODE_TOKENS
        tool = request.tools[-1] if request.tools else None
        if tool is not None and not tool.name.startswith(SUBMIT):
            call = ToolCall("0", REPL, '{"code": "submit()"}')
            return Message("assistant", None, (call,)), CODE_TOKENS
        if tool is not None:
            text = self._write(tool.name.removeprefix(SUBMIT), tool.parameters, request)
            message = Message("assistant", None, (ToolCall("0", tool.name, text),))
        else:
            assert request.schema is not None
            text = self._write(request.schema.name, request.schema.schema, request)
            message = Message("assistant", text)
        if request.phase == "reduce" and self.reduction_tokens is not None:
            return message, round(self.reduction_tokens)
        return message, self.count(text)

    def _write(self, name: str, schema: Mapping[str, Any], request: Request) -> str:
        fields = schema["properties"]
        if name == "finding":
            answer = self._next(schema)
        elif name == "findings":
            item = fields["findings"]["items"]
            properties = dict(item["properties"])
            properties.pop("unit", None)
            finding = {**item, "properties": properties}
            shown = request.messages[1].content or ""
            units = len(NUMBERED_UNIT.findall(shown))
            findings = [{**self._next(finding), "unit": unit} for unit in range(units)]
            answer = {"findings": findings}
        else:
            output = self._reduce(fields["output"])
            answer = {"output": output, "sources": [0]}
            if "sources" not in fields and isinstance(output, list):
                answer = {"output": [item | {"sources": [0]} for item in output]}
        return json.dumps(answer, separators=(",", ":"))

    def _next(self, schema: Mapping[str, Any]) -> Any:
        answers = self.answers.get(schema_key(schema))
        if answers is None:
            return typical_value(schema)
        return next(answers)

    def _reduce(self, schema: Mapping[str, Any]) -> Any:
        if schema.get("properties", {}).keys() == CHOICE.keys():
            return CHOICE
        if schema.get("type") != "string" or "enum" in schema:
            return self._next(schema)
        if self.reduction_tokens is None:
            return NOTES
        return "word " * round(self.reduction_tokens)


def schema_key(schema: Mapping[str, Any]) -> str:
    """Return what a schema is known by, however its object is closed."""
    return json.dumps(schema.get("properties", schema), sort_keys=True)


@dataclass
class RecordingModel:
    """Records requests, and answers none of them.

    Attributes:
        writes_code: whether the server is known to make no tool calls.
        requests: those so far, each with the model that it would be sent to.
    """

    lm: LM
    writes_code: bool
    requests: list[tuple[LM, Request]]

    async def complete(self, request: Request) -> Reply:
        """Record a request.

        Raises:
            CallsNoTools: the agent is to write code instead.
            ModelError: in place of an answer.
        """
        if self.writes_code and request.code == "possible":
            raise CallsNoTools(f"{self.lm.model} makes no tool calls.", attempts=0)
        self.requests.append((self.lm, request))
        raise ModelError("The request is shown and not sent.")


class CountingRepl(Repl):
    """A REPL in which any code hands in ``payload``, and none is run."""

    def __init__(self, payload: object, code: CodeUse) -> None:
        super().__init__(self._refuse, code=code)
        self._payload = payload

    async def _refuse(self) -> Session:
        raise SandboxError("a dry run has no sandbox")

    async def func(self, code: str) -> ToolSubmission:
        """Hand in."""
        del code
        return ToolSubmission("Received.", self._payload)
