"""A model that answers as it should, whatever the form in which it is asked: what profiles of providers speak with.

A unit's text names its row (``row 7``); what is found of it follows from that number, so that a finding on a wrong row
shows. The model knows what it is asked by what it reads, as a real one does: the blocks of the prompt, and the schema
that its answer has to follow, wherever that stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pandas_amr.testing import Call, ScriptedRequest

ROW = re.compile(r"row (\d+)")
IN_WORDS = "that follows this JSON schema:\n"
UNKNOWN = "unknown"
FLAGGED = "flagged"  # a text with this word is one that a provider will not have
NUMBERS = "[int(text.split()[1]) for text in df['text']]"


@dataclass(frozen=True)
class Turn:
    """What a model says: a text, or calls; a text that is an object where JSON was asked for."""

    text: str | None = None
    payload: dict[str, Any] | None = None
    calls: tuple[Call, ...] = ()


def sensible(request: ScriptedRequest) -> Turn:
    """Answer one turn."""
    if kind_of(request) == "findings" and not _submits(request) and "lookup" in request.tools:
        return Turn(calls=tuple(_lookups(request)))
    if "python_repl" in request.tools:
        return Turn(calls=(_cell(request),))
    payload = payload_of(request)
    if request.tools:
        return Turn(calls=(Call(_submission(request), payload),))
    return Turn(payload=payload)


def payload_of(request: ScriptedRequest) -> dict[str, Any]:
    """The object that answers a request."""
    match kind_of(request):
        case "plan":
            return PLAN
        case "reduction":
            numbers = [finding["n"] for finding in request.findings]
            return {"output": f"{len(numbers)} rows, {sum(numbers)} in all", "sources": [0]}
    fields = schema_of(request)["properties"]
    if "findings" not in fields:
        return finding_of(request, units_of(request)[0], fields)
    fields = fields["findings"]["items"]["properties"]
    wanted = request.repairs or [unit["unit"] for unit in request.units]
    return {"findings": [finding_of(request, unit, fields) for unit in request.units if unit["unit"] in wanted]}


def schema_of(request: ScriptedRequest) -> dict[str, Any]:
    """The schema that the answer has to follow: of the response, of the submission's arguments, or in words."""
    wanted = request.body.get("response_format", {}).get("json_schema")
    if wanted is not None:
        return wanted["schema"]
    for tool in request.body.get("tools", ()):
        if tool["function"]["name"].startswith("submit_"):
            return tool["function"]["parameters"]
    told = next(text for text in reversed(texts_of(request)) if IN_WORDS in text)
    return json.JSONDecoder().raw_decode(told.partition(IN_WORDS)[2])[0]


def units_of(request: ScriptedRequest) -> list[dict[str, Any]]:
    """The units that are read: those of a block, or the one that stands alone; none where none is to be judged."""
    if kind_of(request) != "findings":
        return []
    return request.units or [json.loads(request.messages[1]["content"].split("\n")[0])]


def kind_of(request: ScriptedRequest) -> str:
    """What is asked for, told by the block that stands in the prompt."""
    read = "\n".join(texts_of(request))
    for fence, kind in (("columns", "plan"), ("findings", "reduction")):
        if f"```{fence}\n" in read:
            return kind
    return "findings"


def finding_of(request: ScriptedRequest, unit: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The finding of one unit: the fields that are asked for, in the form in which they are."""
    n = number_of(unit)
    known = {
        "unit": unit.get("unit"),
        "n": n,
        "parity": "odd" if n % 2 else "even",
        "note": None,
        "powers": {"second": n**2, "third": n**3},
        "code": tool_results(request).get(f"row {n}", UNKNOWN),
    }
    return {name: as_asked(known[name], schema) for name, schema in fields.items()}


def as_asked(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value in the form of its schema: a dict may be asked for as a list of its entries."""
    if isinstance(value, dict) and schema.get("type") == "array":
        return [{"key": key, "value": one} for key, one in value.items()]
    return value


def number_of(unit: dict[str, Any]) -> int:
    """The number that a unit's text names."""
    return int(ROW.findall(unit["text"])[0])


def texts_of(request: ScriptedRequest) -> list[str]:
    """What a model reads: texts, and those of content in parts."""
    texts = []
    for message in request.messages:
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return texts


def tool_results(request: ScriptedRequest) -> dict[str, str]:
    """What the tool ``lookup`` has answered, by its key."""
    keys = {}
    results = {}
    for message in request.messages:
        for call in message.get("tool_calls") or ():
            keys[call["id"]] = (decoded(call["function"]["arguments"]) or {}).get("key")
        key = keys.get(message.get("tool_call_id"))
        if message["role"] == "tool" and key is not None:
            results[key] = message["content"]
    return results


def decoded(arguments: str) -> dict[str, Any] | None:
    """Arguments as an object; None if they are none."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _submission(request: ScriptedRequest) -> str:
    """The tool that hands in."""
    return next(name for name in request.tools if name.startswith("submit_"))


def _submits(request: ScriptedRequest) -> bool:
    """Whether all that has to be looked up has been."""
    return all(f"row {number_of(unit)}" in tool_results(request) for unit in units_of(request))


def _lookups(request: ScriptedRequest) -> Iterator[Call]:
    """Calls of the tool for what is still to be looked up, all in one turn."""
    known = tool_results(request)
    for unit in units_of(request):
        key = f"row {number_of(unit)}"
        if key not in known:
            yield Call("lookup", {"key": key})


def _cell(request: ScriptedRequest) -> Call:
    """A look first, then the findings."""
    code = f"submit(pd.DataFrame({{'n': {NUMBERS}}}, index=df.index))" if request.tool_results else "len(df)"
    return Call("python_repl", {"code": code})


PLAN: dict[str, Any] = {
    "map_instruction": "Say which number the row has.",
    "finding": [{"name": "n", "type": "int", "choices": None, "description": "the row's number"}],
    "many_per_row": False,
    "many_per_row_why": None,
    "segmentation": "rows",
    "group_columns": [],
    "shard_size": 4,
    "parallelism": 2,
    "where": None,
    "by": [],
    "aggregations": [{"field": "n", "function": "sum"}],
    "ranking": None,
    "reduce_instruction": None,
}
