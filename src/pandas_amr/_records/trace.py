"""The trace of a run: one ``Node`` per step, collected in a ``Trace``."""

from __future__ import annotations

import datetime as dt
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
    """One node of the graph of a run.

    Attributes:
        id: unique in the run, such as ``map-3``.
        type: what the node does.
        level: 0 for maps, then counted up towards the final reduce; -1 for the plan.
        parents: ids of the nodes whose output this one reads.
        units: how many units (maps) or inputs (reduces) it got.
        start: seconds since the run began.
        seconds: how long it took.
        form: the form of structured output: ``schema``, ``tool``, ``json_object`` or ``prompt``;
            ``code`` if the findings were submitted from a sandbox.
        sandbox: the tier in which the agent's code ran.
        status: ``partial`` if some units failed, ``passed`` if a group of one needed no call.
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
    """The nodes of one run, in the order in which they began.

    Attributes:
        began: when the run began, by the clock of durations.
        started: when it began, in seconds since 1970.
        nodes: the nodes.
    """

    began: float = field(default_factory=CLOCK.now)
    started: float = field(default_factory=CLOCK.wall)
    nodes: list[Node] = field(default_factory=list)
    _by_prefix: dict[str, list[Node]] = field(default_factory=dict)

    def at(self, prefix: str) -> list[Node]:
        """Give the nodes of one run; those of its sub-runs have a longer prefix."""
        return self._by_prefix.get(prefix, [])

    @property
    def date(self) -> dt.datetime:
        """When the run began, in UTC."""
        return dt.datetime.fromtimestamp(self.started, dt.UTC)

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
        """Record a node for the time of the block.

        Its status is ``ok`` unless the block sets another one or raises.
        """
        name = id or f"{type}-{sum(node.type == type for node in self.nodes)}"
        node = Node(name, type, level=level, parents=parents, units=units, start=self.seconds)
        self.nodes.append(node)
        prefix = name[: name.rfind("/") + 1]
        self._by_prefix.setdefault(prefix, []).append(node)
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
