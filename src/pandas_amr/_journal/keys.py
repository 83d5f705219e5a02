"""What a question is to the journal: all that an answer depends on beside its own input, however a model is asked it.

How types and prompts are put to a model changes from version to version. What is written here does not: each change of
it would make every answer that was paid for be asked again.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from pandas_amr._types.canonical import canonical_json
from pandas_amr._types.schema import asked_as

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from pandas_amr._agent.agent import Agent
    from pandas_amr.models.base import LM
    from pandas_amr.tools import Tool

KEY_BYTES = 16
TYPES = 64
DEFAULT_PORTS = {"http": 80, "https": 443}
NAME = "name"  # in a schema: what a field is called that is asked for by an alias
DECIMAL_PATTERN = r"^-?\d+(\.\d+)?$"


def fingerprint(*parts: bytes) -> bytes:
    """16 bytes of what was asked (BLAKE2b, RFC 7693)."""
    whole = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        whole.update(len(part).to_bytes(4, "big") + part)
    return whole.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one map, the reduce or the planner is asked, beside the input of each answer.

    Attributes:
        parts: instruction, view, rules of merging and so on, by name.
        finding: the model of a finding.
        output: the type of a reduction.
        agent: who is asked, where the user said who.
        lm: the model; None where a function answers.
        server: the model's address.
        tools: what agents may call.
        python: what code of theirs may use.
        former: what the journal's first format wrote otherwise, or beside the parts.
    """

    parts: Mapping[str, Any] = field(default_factory=dict)
    finding: type[BaseModel] | None = None
    output: Any = None
    agent: Agent | None = None
    lm: LM | None = None
    server: str = ""
    tools: Sequence[Tool] = ()
    python: Mapping[str, Any] | None = None
    former: Mapping[str, Any] = field(default_factory=dict)


def describe_question(question: Question) -> dict[str, Any]:
    """Say what a question is, as the journal keeps it. What is not set is left out, so that an option may be added."""
    about = {
        **question.parts,
        "persona": _describe_persona(question.agent),
        "finding": None if question.finding is None else describe_type(question.finding),
        "output": None if question.output is None else describe_type(question.output),
    }
    if question.lm is not None:
        about |= _describe_model(question.lm, question.server)
        about |= {"tools": describe_tools(question.tools), "python": question.python}
    return {name: value for name, value in about.items() if _is_set(value)}


def _is_set(value: Any) -> bool:
    """Whether a part says anything; 0 does."""
    if value is None or value is False:
        return False
    return not isinstance(value, str | Mapping | Sequence) or len(value) > 0


# Who is asked


def _describe_persona(agent: Agent | None) -> dict[str, str]:
    if agent is None:
        return {}
    persona = {"role": agent.role, "goal": agent.goal, "background": agent.background}
    return {name: words for name, words in persona.items() if words}


def _describe_model(lm: LM, server: str) -> dict[str, Any]:
    """Say which model answers, where, and how it samples.

    What is added to its requests stands as a digest, since it may hold a secret.
    """
    which = {"model": lm.model, "server": describe_address(server)}
    extra = canonical_json(lm.extra_body) if lm.extra_body else ""
    return {
        **({"journal_as": lm.journal_as} if lm.journal_as is not None else which),
        "temperature": lm.temperature,
        "seed": lm.seed,
        "reasoning_effort": lm.reasoning_effort,
        "max_output_tokens": lm.max_output_tokens,
        "extra": fingerprint(extra.encode()).hex() if extra else None,
    }


def describe_address(url: str) -> str:
    """Write a server's address in one form, without what may be a secret: a user is left out, a query is a digest.

    Example:
        >>> describe_address("HTTP://me:secret@Example.com:80/v1/")
        'http://example.com/v1'
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    query = parts.query.rstrip("/")
    if query:
        path += f"?{fingerprint(query.encode()).hex()}"
    return f"{parts.scheme.lower()}://{_host_of(parts)}{path}"


def _host_of(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    named = f"[{host}]" if ":" in host else host
    if parts.port is None or parts.port == DEFAULT_PORTS.get(parts.scheme.lower()):
        return named
    return f"{named}:{parts.port}"


def describe_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Say which tools there are, in the order of their names."""
    told = [
        {
            "name": tool.name,
            "about": tool.description,
            "takes": _describe_arguments(tool),
            "version": tool.version,
        }
        for tool in tools
    ]
    return sorted(told, key=_name_of)


def _name_of(tool: dict[str, Any]) -> str:
    return str(tool["name"])


def _describe_arguments(tool: Tool) -> dict[str, Any]:
    """Say what a tool takes: by its type, or where it has none by the schema that its server gave."""
    schema = tool.args_schema
    if schema is None or not schema.model_fields:
        return dict(tool.parameters)
    required = [
        asked_as(name, info)[0] for name, info in schema.model_fields.items() if info.is_required()
    ]
    return describe_type(schema) | {"required": required}


# What is answered


def describe_type(kind: Any) -> dict[str, Any]:
    """Say what a type takes, and what its fields are called, as the user meant it: as a JSON schema of one's own."""
    return copy.deepcopy(_describe_record(kind)) if _is_record(kind) else _describe_type(kind)


def _is_record(kind: Any) -> bool:
    """Whether a type is equal to no other one, so that what is said of it may be kept: ``int | str`` is, to another."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@functools.lru_cache(TYPES)
def _describe_record(kind: type[BaseModel]) -> dict[str, Any]:
    return _describe_type(kind)


def _describe_type(kind: Any) -> dict[str, Any]:
    asked = close_schema(TypeAdapter(kind).json_schema(by_alias=True, schema_generator=_Generator))
    named = close_schema(TypeAdapter(kind).json_schema(by_alias=False, schema_generator=_Generator))
    described: dict[str, Any] = _name_fields(asked, named)
    return described


def former_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema by which the journal's first format knew a type."""
    return copy.deepcopy(_former_record(kind)) if _is_record(kind) else _former_schema(kind)


@functools.lru_cache(TYPES)
def _former_record(kind: type[BaseModel]) -> dict[str, Any]:
    return _former_schema(kind)


def _former_schema(kind: Any) -> dict[str, Any]:
    return close_schema(TypeAdapter(kind).json_schema(schema_generator=_FormerGenerator))


class _FormerGenerator(GenerateJsonSchema):
    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        del schema
        return {"type": "string", "pattern": DECIMAL_PATTERN}


class _Generator(_FormerGenerator):
    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Tell times with a zone from those without."""
        zone = schema.get("tz_constraint")
        return super().datetime_schema(schema) | ({"zone": zone} if zone is not None else {})


def close_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema with references inlined, titles and defaults dropped, objects closed."""
    definitions = schema.pop("$defs", {})
    closed: dict[str, Any] = _closed(schema, definitions)
    return closed


def _closed(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_closed(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        beside = {key: value for key, value in schema.items() if key not in {"$ref", "default"}}
        return _closed(target, definitions) | beside
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in {"title", "default", "discriminator"} or key.startswith("amr_"):
            continue
        if key == "properties":
            closed[key] = {name: _closed(part, definitions) for name, part in value.items()}
        elif key in {"enum", "const", "examples", "required"}:
            closed[key] = value
        else:
            closed[key] = _closed(value, definitions)
    if "properties" in closed:
        closed |= {
            "required": list(closed["properties"]),
            "type": "object",
            "additionalProperties": False,
        }
    return closed


def _name_fields(asked: Any, named: Any) -> Any:
    """``asked``, with the names of ``named``, which is the same by name, where they differ."""
    if isinstance(asked, list):
        return [_name_fields(one, other) for one, other in zip(asked, named, strict=True)]
    if not isinstance(asked, dict):
        return asked
    both = {
        key: _name_fields(value, named[key]) for key, value in asked.items() if key != "properties"
    }
    if "properties" not in asked:
        return both
    properties: dict[str, Any] = {}
    for (alias, one), (name, other) in zip(
        asked["properties"].items(), named["properties"].items(), strict=True
    ):
        properties[alias] = _name_fields(one, other)
        if name != alias:
            properties[alias][NAME] = name
    return both | {"properties": properties}
