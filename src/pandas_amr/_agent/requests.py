"""The request of a turn: its messages, its tools, the schema of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._agent.coding import as_texts, code_response
from pandas_amr._agent.repl import Repl
from pandas_amr.models.base import Request, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._agent.dispatch import AgentTool
    from pandas_amr._agent.submission import Submission
    from pandas_amr._records.usage import Phase
    from pandas_amr.models.base import Message


def tool_specs(submission: Submission, tools: Sequence[AgentTool]) -> tuple[ToolSpec, ...]:
    """Return the tools of a request; the one that submits is the last, unless only code submits."""
    specs = [ToolSpec(tool.name, tool.description, tool.wire.schema) for tool in tools]
    if any(isinstance(tool, Repl) and tool.hands_in_alone for tool in tools):
        return tuple(specs)
    return (*specs, submission.tool)


def turn_request(
    conversation: Sequence[Message],
    *,
    submission: Submission,
    phase: Phase,
    tools: Sequence[AgentTool] = (),
    repl: Repl | None = None,
) -> Request:
    """Make the request of a turn.

    With tools, one of them submits; without, the answer follows the submission's schema. An agent
    that writes code in place of calls of its ``repl`` is asked for code, in a conversation without
    calls.
    """
    messages = tuple(conversation)
    if repl is not None and repl.code != "possible":
        messages = as_texts(conversation, repl, is_open=bool(tools))
    if not tools:
        return Request(messages, phase=phase, schema=submission.response)
    code = repl.code if repl is not None and len(tools) == 1 else None
    if code is not None and code != "possible":
        return Request(messages, phase=phase, schema=code_response(), code=code)
    return Request(messages, phase=phase, tools=tool_specs(submission, tools), code=code)
