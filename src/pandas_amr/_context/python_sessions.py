"""Where a run's agents get their Python: the data of a session, and what answers ``ask()``."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from pydantic_core import to_jsonable_python

from pandas_amr._agent.repl import Repl
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.errors import InvalidOutput, SandboxError
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.tools import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr.models.base import CodeUse
    from pandas_amr.sandbox.base import Sandbox, Session
    from pandas_amr.tools import Tool


@dataclass(slots=True)
class Converted:
    """A frame as Arrow, converted once for all sessions of a run, and only if one wants it."""

    frame: pd.DataFrame
    _arrow: ArrowFrame | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def arrow(self) -> ArrowFrame:
        """The frame as Arrow."""
        async with self._lock:
            if self._arrow is None:
                self._arrow = await asyncio.to_thread(ArrowFrame.of, self.frame)
            return self._arrow


@dataclass(frozen=True, slots=True)
class Sessions:
    """What the REPLs of a phase's agents share: the sandbox, its limits, and the frame.

    Attributes:
        make_ask: makes what answers ``ask()`` in a REPL.
        code: whether the model is known to write code only as answers.
        redact: redacts what cells print; None if nothing is redacted.
    """

    sandbox: Sandbox
    limits: Limits
    frame: Converted
    make_ask: Callable[[Repl], Any]
    code: CodeUse = "possible"
    redact: Callable[[str], str] | None = None

    async def changed(self) -> tuple[str, ...]:
        """What is in a session not as in the user's frame, a sentence each."""
        return (await self.frame.arrow()).changed

    def of_shard(self, positions: Sequence[int]) -> Repl:
        """A REPL that holds the rows at ``positions`` as ``df``."""

        async def begun() -> Session:
            arrow = await self.frame.arrow()
            return await self.sandbox.open(arrow.data("df", positions, numbered=True), self.limits)

        return self._repl(begun, reduces=False)

    def of_findings(self, lines: Sequence[str]) -> Repl:
        """A REPL that holds a reducer's inputs, each a JSON object, as ``findings``."""

        async def begun() -> Session:
            arrow = await asyncio.to_thread(lambda: ArrowFrame.of(_findings_frame(lines)))
            return await self.sandbox.open(arrow.data("findings"), self.limits)

        return self._repl(begun, reduces=True)

    def _repl(self, begun: Any, *, reduces: bool) -> Repl:
        repl = Repl(begun, reduces=reduces, code=self.code, redact=self.redact)
        repl.ask = self.make_ask(repl)
        return repl


def _findings_frame(lines: Sequence[str]) -> pd.DataFrame:
    """Findings as a frame: whole numbers stay whole where some are missing."""
    records = [json.loads(line) for line in lines]
    columns = {}
    for name in dict.fromkeys(key for record in records for key in record):
        values = [record.get(name) for record in records]
        try:
            columns[name] = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values)))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            columns[name] = pd.Series(values, dtype=object)  # of several types, and told as such
    return pd.DataFrame(columns)


def isolate(tool: Tool, sandbox: Sandbox) -> Tool:
    """The tool with its function run in a session of its own at each call."""
    source, name = source_of(tool.func)
    limits = Limits(wall_s=tool.timeout_s or Limits().wall_s)

    async def call_in_session(**arguments: Any) -> Any:
        session = await sandbox.open(Data("arguments"), limits)
        try:
            given = json.dumps(json.dumps(to_jsonable_python(arguments, fallback=str)))
            head = f"from __future__ import annotations\nimport json\n{source}"
            code = f"{head}\nsubmit({name}(**json.loads({given})))"
            cell = await session.run(code)
        finally:
            await session.close()
        if cell.submitted is None:
            raise InvalidOutput(cell.text.strip())
        return cell.submitted.payload.get("output")

    bound = replace(tool, isolated=False, func=call_in_session)
    object.__setattr__(bound, "parameters", tool.parameters)
    object.__setattr__(bound, "passes", (SandboxError,))
    return bound
