"""A request as the provider sees it, and the answer to a map agent's request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.strict_json import loads
from pandas_amr.models.structured.forms import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALL_AGAIN = "Report those of all units again."
ONE_AGAIN = "This answer cannot be used: "  # of the flat form, which has one unit
SCHEMA_IN_WORDS = re.compile("\n\n" + WORDS.format(r"(\w+)"))
FENCE = re.compile(r"^```(\w+)\n(.*?)\n?^```$", re.DOTALL | re.MULTILINE)
REPAIR_LINE = re.compile(r"^- units? ([\d, to]+): ", re.MULTILINE)


@dataclass(frozen=True)
class ScriptedRequest:
    """One chat completion as the provider sees it.

    Attributes:
        number: its number among the requests, from 0.
        body: the whole JSON body.
        headers: the HTTP headers, names in lower case.
    """

    number: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation."""
        return list(self.body.get("messages", ()))

    @property
    def system(self) -> str:
        """The system message: who the agent is; empty if there is none."""
        messages = self.messages
        if messages and messages[0]["role"] == "system":
            return str(messages[0]["content"])
        return ""

    @property
    def user(self) -> str:
        """The last user message."""
        texts = self._texts("user")
        return texts[-1] if texts else ""

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the agent may call."""
        return [tool["function"]["name"] for tool in self.body.get("tools", ())]

    @property
    def tool_results(self) -> list[str]:
        """The results of tools so far."""
        return self._texts("tool")

    @property
    def schema(self) -> str | None:
        """The schema of the answer: ``findings``, ``finding``, ``reduction`` or ``plan``.

        ``code`` if code is written in place of calls; None if only code submits, or no schema is
        named.
        """
        response_schema = self.body.get("response_format", {}).get("json_schema", {})
        if "name" in response_schema:
            return str(response_schema["name"])
        for name in self.tools:
            if name.startswith("submit_"):
                return name.removeprefix("submit_")
        in_words = SCHEMA_IN_WORDS.search(self.user)
        return in_words.group(1) if in_words else None

    @property
    def units(self) -> list[dict[str, Any]]:
        """The shard's units, each with its number and its content."""
        units = self._fenced_lines("units")
        if units is None and self.schema == "finding":
            # The flat form has one unit, without a fence and without a number.
            units = []
            for text in self._texts("user")[:1]:
                unit, *_ = SCHEMA_IN_WORDS.split(text)
                units.append(loads(unit))
        return [{"unit": 0, **unit} for unit in units or ()]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The findings that a reducer reads, each with its number."""
        return self._fenced_lines("findings") or []

    @property
    def repairs(self) -> list[int]:
        """The unit numbers that a repair turn asks for again; empty in other turns."""
        if len(self._texts("user")) < 2:
            return []
        if ALL_AGAIN in self.user or (ONE_AGAIN in self.user and self.schema == "finding"):
            return [int(unit["unit"]) for unit in self.units]
        numbers: list[int] = []
        for ranges in REPAIR_LINE.findall(self.user):
            for part in ranges.split(", "):
                first, _, last = part.partition(" to ")
                numbers += range(int(first), int(last or first) + 1)
        return numbers

    def _texts(self, role: str) -> list[str]:
        return [str(message["content"]) for message in self.messages if message["role"] == role]

    def _fenced_lines(self, kind: str) -> list[dict[str, Any]] | None:
        """Read the lines of the first fenced block of a kind; None if there is none."""
        for text in self._texts("user"):
            for fence, block in FENCE.findall(text):
                if fence == kind:
                    return [loads(line) for line in block.split("\n") if line]
        return None


def findings(
    request: ScriptedRequest, find: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Answer a map agent's request: ``find`` returns the fields of one unit's finding.

    In a repair turn, only the units that are asked for again are answered.
    """
    units = request.units
    if request.schema == "finding":
        return dict(find(units[0]))
    repairs = request.repairs
    answers = []
    for unit in units:
        if not repairs or unit["unit"] in repairs:
            answers.append({"unit": unit["unit"], **find(unit)})
    return {"findings": answers}
