"""What a planner answers, in full, as strict structured output makes it."""

from __future__ import annotations

from typing import Any


def field(name: str, kind: str = "str", choices: tuple[Any, ...] = (), description: str = "") -> dict[str, Any]:
    """Make a field of the finding."""
    return {"name": name, "type": kind, "choices": list(choices), "description": description}


def computed(name: str, function: str) -> dict[str, str]:
    """Make an aggregation of a field."""
    return {"field": name, "function": function}


def answer(instruction: str, *fields: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """Make an answer that asks for nothing but the fields; other parts by name."""
    return {
        "map_instruction": instruction,
        "finding": list(fields),
        "many_per_row": False,
        "segmentation": "rows",
        "group_columns": [],
        "shard_size": 10,
        "parallelism": 4,
        "where": "",
        "by": [],
        "aggregations": [],
        "ranking": {"field": "", "most": 10, "lowest_first": False},
        "reduce_instruction": "",
    } | parts
