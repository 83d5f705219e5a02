"""Who does a map or a reduce: an instruction, a persona, and what it works with."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import InvalidOutput, UsageError
from pandas_amr.tools import PythonREPLTool, Tool, as_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pandas_amr.models.base import LM


PLACEHOLDERS = frozenset({"...", "\N{HORIZONTAL ELLIPSIS}"})


def is_instruction(given: object) -> bool:
    """Whether something is a text that says what to do; dots alone stand for one that is yet to be written.

    Example:
        >>> is_instruction("Which risks?"), is_instruction("..."), is_instruction(" "), is_instruction(None)
        (True, False, False, False)
    """
    return isinstance(given, str) and bool(given.strip()) and given.strip() not in PLACEHOLDERS


@dataclass(frozen=True, eq=False)
class Agent:
    """Who does a map or a reduce; a bare text is short for ``Agent(text)``.

    Args:
        instruction: what to do; or a function that says it: of a row (a Series) in a map, of a group's findings (a
            frame) in a reduce.
        role: who the agent is, such as ``"a claims adjuster"``.
        goal: what it works towards.
        background: what it knows.
        lm: a model of its own.
        tools: tools of its own, in place of the call's.
        max_steps: most turns with tools, in place of the call's.

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
                f"Agent(instruction) takes a text, or a function that gives one, not {self.instruction!r}."
            )
        for name in ("role", "goal", "background"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"Agent({name}=...) takes a text, not {getattr(self, name)!r}.")
        if self.max_steps is not None and (
            not isinstance(self.max_steps, int) or self.max_steps < 1
        ):
            raise UsageError(
                f"Agent(max_steps=...) takes a whole number from 1, not {self.max_steps!r}."
            )
        tools, repl = as_tools(self.tools)
        object.__setattr__(self, "own_tools", tools)
        object.__setattr__(self, "own_repl", repl)

    @property
    def persona(self) -> str:
        """Who the agent is, as its prompt says it; empty where nothing is said."""
        lines = [
            f"You are {self.role}." if self.role else "",
            f"Your goal: {self.goal}" if self.goal else "",
            f"What you know: {self.background}" if self.background else "",
        ]
        return "\n".join(line for line in lines if line)

    @property
    def text(self) -> str:
        """The instruction, where it is one for all."""
        return self.instruction if isinstance(self.instruction, str) else ""

    def __repr__(self) -> str:
        shown = self.text or f"{getattr(self.instruction, '__name__', 'a function')}(...)"
        return f"<Agent {f'{self.role}: ' if self.role else ''}{shown}>"


class NoInstruction(InvalidOutput):
    """The user's function that says what is asked gave no text, or raised."""


def check_instruction(given: Any) -> str:
    """Check what a user's function gave as an instruction.

    Raises:
        NoInstruction: it is no text, or nothing stands in it.
    """
    if isinstance(given, str) and given.strip():
        return given
    if inspect.iscoroutine(given):
        given.close()  # nobody awaits it
    what = "an empty text" if isinstance(given, str) else type(given).__name__
    raise NoInstruction(f"its instruction gave {what}, where a text is wanted", attempts=0)
