"""Submissions by tool calls, several of which can come in one turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.dispatch import ToolSubmission, merge_submissions

if TYPE_CHECKING:
    from collections.abc import Sequence

RECEIVED = "Received."


@dataclass(frozen=True, slots=True)
class CallSubmission:
    """A call of the tool that submits: its payload or problem, and the text for the model."""

    text: str
    payload: Any
    problem: str | None = None
    is_shaped: bool = True

    @property
    def is_usable(self) -> bool:
        """Whether it can be read, and is meant as a submission."""
        return self.problem is None and self.is_shaped


def merge_payloads(payloads: Sequence[Any]) -> Any:
    merged = merge_submissions([ToolSubmission(RECEIVED, payload) for payload in payloads])
    return None if merged is None else merged.payload


def are_contradictory(payloads: Sequence[Any]) -> bool:
    """Whether there are several different answers, of which none can be preferred.

    Lists of findings are no contradiction: they are merged.
    """
    for payload in payloads:
        if isinstance(payload, dict) and isinstance(payload.get("findings"), list):
            return False
    return any(payload != payloads[0] for payload in payloads)
