"""The run's graph as it happened: one ``Node`` a box, kept by a ``Trace``."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

NodeType = Literal["plan", "map", "reduce", "final-reduce", "direct"]
NodeStatus = Literal["running", "ok", "partial", "failed", "passed", "cancelled"]


@dataclass(slots=True)
class Node:
    """One box of the graph.

    Attributes:
        id: unique in the run, such as ``map-3``.
        type: what the box does.
        level: 0 for maps, then counted up towards the final reduce; -1 for the plan.
        parents: ids of the nodes whose output this one reads.
        units: how many units (maps) or inputs (reduces) it got.
        start: seconds since the run began.
        seconds: how long it took.
        form: how structured output was had of the server: ``schema``, ``tool``, ``json_object`` or
            ``prompt``; ``code`` where it was handed in from a sandbox.
        sandbox: the tier in which the agent's code ran.
        status: ``partial`` when some units failed, ``passed`` when a group of one needed no call.
    """

    id: str
    type: NodeType
    level: int
    parents: tuple[str, ...] = ()
    units: int = 0
    start: float = 0.0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    form: str = ""
    sandbox: str = ""
    status: NodeStatus = "running"


@dataclass(slots=True)
class Trace:
    """The nodes of one run, in the order in which they began."""

    began: float = field(default_factory=CLOCK.now)
    nodes: list[Node] = field(default_factory=list)
    _places: dict[str, list[Node]] = field(default_factory=dict)

    def at(self, prefix: str) -> list[Node]:
        """The nodes of one run: those of runs inside it have a longer prefix."""
        return self._places.get(prefix, [])

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return CLOCK.now() - self.began

    @contextmanager
    def node(
        self,
        type: NodeType,
        *,
        id: str | None = None,
        level: int = 0,
        parents: tuple[str, ...] = (),
        units: int = 0,
    ) -> Iterator[Node]:
        """Record a node while its work runs: ``ok`` unless the work says otherwise or raises."""
        name = id or f"{type}-{sum(node.type == type for node in self.nodes)}"
        node = Node(
            id=name, type=type, level=level, parents=parents, units=units, start=self.seconds
        )
        self.nodes.append(node)
        self._places.setdefault(name[: name.rfind("/") + 1], []).append(node)
        try:
            yield node
        except Exception:
            node.status = "failed"
            raise
        except BaseException:
            node.status = "cancelled"
            raise
        finally:
            node.seconds = self.seconds - node.start
            if node.status == "running":
                node.status = "ok"
