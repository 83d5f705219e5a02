"""The tool ``python_repl``: an agent's own Python session in a sandbox."""

from __future__ import annotations

import asyncio
import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pandas_amr._agent import prompts
from pandas_amr._agent.dispatch import ToolSubmission, redact_text
from pandas_amr._agent.transcriber import transcribe_cell_error
from pandas_amr._records.trace import note_tool_error
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr._types.schema import json_schema
from pandas_amr._types.wire import Wire, make_wire
from pandas_amr.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pandas_amr.models.base import CodeUse
    from pandas_amr.sandbox.base import Ask, Session

REPL = "python_repl"
CODE_ERROR = "CodeError"  # what events say of a cell that did not come to its end
FENCED = re.compile(
    r"```(?:python3?|py|tool_code)?[ \t]*\r?\n(.*?)(?:\r?\n)?[ \t]*```", re.DOTALL | re.IGNORECASE
)


def without_fence(code: str) -> str:
    """Remove the fence, if it is around all of the code."""
    match = FENCED.fullmatch(code.strip())
    return code if match is None else match[1]


class Code(BaseModel):
    """The arguments of the REPL."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(description="Python code; the value of a last expression is shown")

    @field_validator("code")
    @classmethod
    def unfence(cls, code: str) -> str:
        """Remove the fence that models write around code."""
        return without_fence(code)


@functools.cache
def _wire() -> Wire:
    return make_wire(json_schema(Code))


@dataclass(slots=True)
class Repl:
    """The REPL of one agent. Its session begins with the first cell and ends with ``close``.

    Attributes:
        open: begins the session.
        ask: answers what code asks the model.
        reduces: whether the session holds findings, and not a shard.
        positions: the positions of the rows that the session holds, or that its findings are of.
        line: the line of code that submits; a cell that did not submit ends with it.
        hands_in_alone: whether nothing but code can submit.
        code: whether the agent writes code in place of calls; the agent's repairs keep it.
        redact: what every output passes before the agent reads it; None if nothing is redacted.
        spent: the usage of what code asked the model.
    """

    open: Callable[[], Awaitable[Session]]
    ask: Ask | None = None
    reduces: bool = False
    positions: tuple[int, ...] = ()
    line: str = ""
    hands_in_alone: bool = False
    code: CodeUse = "possible"
    redact: Callable[[str], str] | None = None
    name: str = REPL
    args_schema: type[BaseModel] = Code
    timeout_s: None = None
    max_result_chars: None = None  # a session limits the output of its cells
    passes: tuple[type[Exception], ...] = (Exception,)  # what code raises is in the cell's text
    spent: Usage = NO_USAGE
    _session: Session | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def description(self) -> str:
        """The description for agents."""
        return prompts.repl_description(reduces=self.reduces)

    @property
    def wire(self) -> Wire:
        """How the argument, ``code``, is described to a model."""
        return _wire()

    async def func(self, code: str) -> str | ToolSubmission:
        """Run a cell; several cells of one turn run one after another.

        Raises:
            SandboxError: the sandbox failed, and not the code.
        """
        async with self._turn:
            try:
                if self._session is None:
                    self._session = await self.open()
                cell = await self._session.run(code, self.ask)
            except SandboxError:
                await self.close()
                raise
        if not cell.ok:
            note_tool_error(CODE_ERROR)
            transcribe_cell_error(cell.text)
        text = await redact_text(cell.text, self.redact)
        if cell.submitted is not None:
            return ToolSubmission(text or "Received.", cell.submitted.payload)
        output = text.strip("\n") or "(no output)"
        return output + prompts.submit_reminder(self.line)

    async def close(self) -> None:
        """End the session, if it has begun."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
