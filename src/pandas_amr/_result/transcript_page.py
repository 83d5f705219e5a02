"""What is shown of agents' work: facts, notes, and sections of conversations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._records.transcript import Conversation

Facts: TypeAlias = "Sequence[tuple[str, str]]"


@dataclass(frozen=True)
class Section:
    """One node of a run, or what stands for it.

    Attributes:
        title: its name.
        facts: its figures, each with its name.
        notes: what a reader has to know of it, a sentence each.
        conversations: what its agents did, as far as it is shown.
        labels: the labels of rows, by their positions.
    """

    title: str
    facts: Facts = ()
    notes: Sequence[str] = ()
    conversations: Sequence[Conversation] = ()
    labels: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A row or a node.

    Attributes:
        title: its name.
        facts: what came of it, each with its name.
        notes: what a reader has to know, a sentence each.
        sections: the nodes, the earliest first.
    """

    title: str
    facts: Facts = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
