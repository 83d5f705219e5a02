"""What happens in a run, as it happens: ``df.amr.map(..., on_event=f)`` calls ``f`` with these."""

from pandas_amr._records.events import (
    CallBegan,
    CallEnded,
    Event,
    Failed,
    Halved,
    Landed,
    NodeBegan,
    NodeEnded,
    Recalled,
    Repaired,
    RunBegan,
    RunEnded,
    ToolBegan,
    ToolEnded,
    Waited,
)

__all__ = [
    "CallBegan",
    "CallEnded",
    "Event",
    "Failed",
    "Halved",
    "Landed",
    "NodeBegan",
    "NodeEnded",
    "Recalled",
    "Repaired",
    "RunBegan",
    "RunEnded",
    "ToolBegan",
    "ToolEnded",
    "Waited",
]
