"""The port: anything that runs code which a model wrote.

Who failed is never mixed up. Code that fails, or runs into a limit, comes back as a ``Cell`` for the agent to read.
A sandbox that fails raises ``SandboxError``, which is for the user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pandas_amr._records.public import public
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

Isolation = Literal["auto", "strong", "strict-lite", "process"]

MIB = 1 << 20
MOST = {
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
# What `auto` has come to in this process.
found: dict[str, str] = {}


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one session may use.

    Args:
        memory_mb: memory beyond that of Python with pandas loaded.
        cpu_s: processor seconds in all, over deaths and restarts of the session.
        wall_s: seconds that one cell may take, with all that it makes the host do; a model's own time, which ``ask``
            waits for, does not count.
        scratch_mb: size of the session's folder (memory, too).
        scratch_files: files and folders in it.
        output_chars: characters of a cell's output that the agent gets to read.
        result_mb: size of what ``submit`` hands over.
        threads: threads beside the session's own.
        asks: texts that ``ask`` may be called with, in all; a long text counts once for each piece it is read in.

    Raises:
        UsageError: a limit is no number, not positive, or beyond what any machine has.
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
            kinds: Any = (int, float) if name == "wall_s" else int
            if (
                not isinstance(value, kinds)
                or isinstance(value, bool)
                or not 0 < value <= MOST[name]
            ):
                kind = "number" if name == "wall_s" else "whole number"
                raise UsageError(
                    f"Limits({name}=...) takes a positive {kind} up to {MOST[name]:,}, not {value!r}."
                )


@dataclass(frozen=True, slots=True)
class Data:
    """What a session holds: a frame as Parquet bytes, and how to make of it what it was.

    Attributes:
        name: what the frame is called in the session: ``df``, or ``findings``.
        parquet: the bytes; columns are ``c0`` and so on, levels of the index ``i0`` and so on.
        labels: JSON that gives columns and index their names back.
        changed: what is not as in the user's frame, a sentence each, for the agent.
        waited_s: of an answer to ``ask``: seconds of a model's own, which are not the cell's.
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
    """What code handed in with ``submit``: findings by unit, or a value with the findings it rests on."""

    payload: Any


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one piece of code.

    Attributes:
        text: what the agent gets to read: output, the last expression's value, a traceback.
        submitted: what the code handed in, where it did.
        ok: whether it ran to its end.
        lost: whether the session's state is gone; the next cell begins anew.
    """

    text: str
    submitted: Submitted | None = None
    ok: bool = True
    lost: bool = False


# Answers what code asks of the model: `{"texts", "instruction", "schema"}` in, one row for each text out.
# A ValueError is told to the code; `changed` is told to it beside the rows.
Ask: TypeAlias = "Callable[[dict[str, Any]], Awaitable[Data]]"


@runtime_checkable
class Session(Protocol):
    """One agent's live Python: state lasts from cell to cell."""

    async def run(self, code: str, ask: Ask | None = None) -> Cell:
        """Run a cell. ``ask`` answers what the code asks of the model: see ``Ask``.

        Raises:
            SandboxError: the sandbox failed, not the code.
        """
        ...

    async def close(self) -> None:
        """End it; nothing of it is left."""
        ...


@public
@runtime_checkable
class Sandbox(Protocol):
    """Where sessions come from.

    Attributes:
        tier: what is in force, in a word: ``strong``, ``strict-lite``, ``process``, or a name of its own.
    """

    tier: str

    async def open(self, data: Data, limits: Limits) -> Session:
        """Begin a session that holds ``data``.

        Raises:
            SandboxError: none can be begun.
        """
        ...

    async def close(self) -> None:
        """End all sessions and what stands behind them."""
        ...
