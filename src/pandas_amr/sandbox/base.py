"""The port to a sandbox: anything that runs code of a model.

Code that fails, or reaches a limit, returns a ``Cell`` for the agent to read. A sandbox that fails
raises ``SandboxError``, which is for the user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pandas_amr._records.public import public
from pandas_amr._records.refused import show_refused
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

Isolation = Literal["auto", "strong", "strict-lite", "process"]

MIB = 1 << 20
LOADED_MB = 256  # for Python with pandas loaded, which ``Limits.memory_mb`` does not count
MAXIMA = {
    "memory_mb": 1 << 24,
    "cpu_s": 10_000_000,
    "wall_s": 10_000_000,
    "scratch_mb": 1 << 24,
    "scratch_files": 1 << 30,
    "output_chars": 10_000_000,
    "result_mb": 1024,
    "threads": 10_000,
    "asks": 1 << 30,
}
# The tier in force in this process, by the tier that was requested (such as ``auto``).
tiers_in_force: dict[str, str] = {}


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one session may use.

    Args:
        memory_mb: memory, on top of that of Python with pandas loaded.
        cpu_s: processor seconds in all, over all restarts of the session.
        wall_s: seconds per cell, with all that it makes the host do. The time for which ``ask``
            waits for a model does not count.
        scratch_mb: size of the session's folder, which is in memory.
        scratch_files: files and folders in it.
        output_chars: characters per cell that the agent gets to read.
        result_mb: size of what ``submit`` hands over.
        threads: threads in addition to the main thread.
        asks: texts that ``ask`` may be called with, in all; a long text counts once per piece.

    Raises:
        UsageError: a limit is not a number, not positive, or beyond what any machine has.
    """

    memory_mb: int = 1024
    cpu_s: int = 300
    wall_s: float = 60.0
    scratch_mb: int = 256
    scratch_files: int = 1000
    output_chars: int = 10_000
    result_mb: int = 64
    threads: int = 32
    asks: int = 1000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            types: tuple[type, ...] = (int,)
            kind = "whole number"
            if name == "wall_s":
                types = (int, float)
                kind = "number"
            is_number = isinstance(value, types) and not isinstance(value, bool)
            if not is_number or not 0 < value <= MAXIMA[name]:
                raise UsageError(
                    f"Limits({name}=...) takes a positive {kind} up to {MAXIMA[name]:,}, "
                    f"not {show_refused(value)}."
                )


@dataclass(frozen=True, slots=True)
class Data:
    """The frame that a session holds, as Parquet, and the labels to restore it with.

    Attributes:
        name: the frame's name in the session: ``df`` or ``findings``.
        parquet: columns are called ``c0`` and so on, levels of the index ``i0`` and so on.
        labels: JSON that gives columns and index their names back.
        changed: one sentence, for the agent, per difference from the user's frame.
        waited_s: seconds that an answer to ``ask`` took the model; they do not count as the cell's.
    """

    name: str
    parquet: bytes = b""
    labels: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    waited_s: float = 0.0

    def __repr__(self) -> str:
        return f"<Data {self.name}: {len(self.parquet)} bytes>"


@dataclass(frozen=True, slots=True)
class Submitted:
    """What code submitted: findings by unit, or a value with the findings that it is based on."""

    payload: Any


@dataclass(frozen=True, slots=True)
class Cell:
    """The result of one cell.

    Attributes:
        text: for the agent to read: output, the last expression's value, a traceback.
        submitted: what the code submitted, if it did.
        ok: whether the cell ran to its end.
        lost: whether the session's state is gone; the next cell starts a new session.
    """

    text: str
    submitted: Submitted | None = None
    ok: bool = True
    lost: bool = False


# Answers a question of code to the model: takes {"texts", "instruction", "schema"}, returns one row
# per text. The code gets to read the message of a ValueError, and ``Data.changed`` with the rows.
Ask: TypeAlias = "Callable[[dict[str, Any]], Awaitable[Data]]"


@runtime_checkable
class Session(Protocol):
    """One agent's live Python: state lasts from cell to cell."""

    async def run(self, code: str, ask: Ask | None = None) -> Cell:
        """Run a cell.

        Args:
            code: Python.
            ask: answers the code's questions to the model.

        Raises:
            SandboxError: the sandbox failed, not the code.
        """
        ...

    async def close(self) -> None:
        """End the session, with all that it holds."""
        ...


@public
@runtime_checkable
class Sandbox(Protocol):
    """Starts sessions.

    Attributes:
        tier: the isolation in force: ``strong``, ``strict-lite``, ``process``, or another name.
    """

    tier: str

    async def open(self, data: Data, limits: Limits) -> Session:
        """Start a session that holds ``data``.

        Raises:
            SandboxError: it cannot be started.
        """
        ...

    async def close(self) -> None:
        """End all sessions, and the processes that start them."""
        ...
