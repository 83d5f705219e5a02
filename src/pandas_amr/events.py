"""What happens in a run, as it happens: ``df.amr.map(..., on_event=f)`` calls ``f`` with these.

They are ``msgspec`` records: ``msgspec.json.encode(event)`` writes one, and
``msgspec.json.decode(line, type=Event)`` reads it back.
"""

from pandas_amr._records.events import (  # noqa: F401 (msgspec looks up types of fields here)
    CallBegan,
    CallEnded,
    Event,
    Failed,
    Halved,
    Landed,
    NodeBegan,
    NodeEnded,
    NodeStatus,
    NodeType,
    Recalled,
    Repaired,
    RunBegan,
    RunEnded,
    RunStatus,
    ToolBegan,
    ToolEnded,
    Waited,
    WaitKind,
)
from pandas_amr._records.usage import Phase, Usage  # noqa: F401 (the same)

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
