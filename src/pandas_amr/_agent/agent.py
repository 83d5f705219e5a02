"""An agent: its instruction, its persona, its model and tools."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr._records.pickles import CopiedHere, pack, unpack
from pandas_amr._records.public import public
from pandas_amr._records.refused import is_whole, show_refused
from pandas_amr.errors import InvalidOutput, UsageError
from pandas_amr.models.base import refuse_clients
from pandas_amr.tools import PythonREPLTool, Tool, as_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pandas_amr.models.base import LM


PLACEHOLDERS = frozenset({"...", "\N{HORIZONTAL ELLIPSIS}"})


def is_instruction(value: object) -> bool:
    """Whether a value is a text that says what to do; dots alone are a placeholder for one.

    Example:
        >>> is_instruction("Which risks?"), is_instruction("...")
        (True, False)
        >>> is_instruction(" "), is_instruction(None)
        (False, False)
    """
    if not isinstance(value, str):
        return False
    return bool(value.strip()) and value.strip() not in PLACEHOLDERS


@public
@dataclass(frozen=True, eq=False)
class Agent(CopiedHere):
    """An agent for a map or a reduce; a plain text is short for ``Agent(text)``.

    Args:
        instruction: what to do; or a function that returns it: of a row (a Series) in a map, of a
            group's findings (a frame) in a reduce.
        role: who the agent is, such as ``"a claims adjuster"``.
        goal: what it works towards.
        background: what it knows.
        lm: its own model.
        tools: its own tools, in place of the call's.
        max_steps: its own limit of turns with tools, in place of the call's.

    Raises:
        UsageError: an argument cannot be used.

    Example:
        >>> Agent("Which risks are named?", role="an auditor")
        <Agent an auditor: Which risks are named?>
    """

    instruction: str | Callable[[Any], str]
    role: str = ""
    goal: str = ""
    background: str = ""
    lm: LM | str | None = None
    tools: Iterable[Any] | None = None
    max_steps: int | None = None
    own_tools: tuple[Tool, ...] = field(init=False, repr=False)
    own_repl: PythonREPLTool | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.instruction) and not is_instruction(self.instruction):
            raise UsageError(
                "Agent(instruction) takes a text, or a function that returns one, not "
                f"{show_refused(self.instruction)}."
            )
        for name in ("role", "goal", "background"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise UsageError(f"Agent({name}=...) takes a text, not {show_refused(value)}.")
        steps = self.max_steps
        if steps is not None and not is_whole(steps, least=1):
            given = show_refused(steps)
            raise UsageError(f"Agent(max_steps=...) takes a whole number from 1, not {given}.")
        tools, repl = as_tools(self.tools)
        object.__setattr__(self, "own_tools", tools)
        object.__setattr__(self, "own_repl", repl)

    def __getstate__(self) -> dict[str, Any]:
        refuse_clients(self.lm)
        tools = None
        if self.tools is not None:  # they may have been an iterator
            repl = () if self.own_repl is None else (self.own_repl,)
            tools = (*self.own_tools, *repl)
        state = self.__dict__ | {"tools": tools}
        return state | {"instruction": pack(self.instruction, "Agent(instruction)")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, instruction=unpack(state["instruction"]))

    @property
    def persona(self) -> str:
        """Who the agent is, as its prompt says it; empty without role, goal and background."""
        lines = []
        if self.role:
            lines.append(f"You are {self.role}.")
        if self.goal:
            lines.append(f"Your goal: {self.goal}")
        if self.background:
            lines.append(f"What you know: {self.background}")
        return "\n".join(lines)

    @property
    def text(self) -> str:
        """The instruction, if it is a text; empty if it is a function."""
        return self.instruction if isinstance(self.instruction, str) else ""

    def __repr__(self) -> str:
        shown = self.text or f"{getattr(self.instruction, '__name__', 'a function')}(...)"
        role = f"{self.role}: " if self.role else ""
        return f"<Agent {role}{shown}>"


class NoInstruction(InvalidOutput):
    """A user's function returned no instruction, or raised."""


def check_instruction(value: object) -> str:
    """Check the instruction that a user's function returned.

    Raises:
        NoInstruction: it is not a text, or blank.
    """
    if isinstance(value, str) and value.strip():
        return value
    if inspect.iscoroutine(value):
        value.close()  # nothing awaits it
    what = "an empty text" if isinstance(value, str) else type(value).__name__
    raise NoInstruction(f"its instruction gave {what} instead of a text", attempts=0)
