"""The keys of the journal: all that an answer depends on, besides its own input.

The way in which types and prompts are put to a model changes from version to version. What is
written here must not: any change makes all answers be asked, and paid for, again.
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
from pandas_amr._types.schema import accepted_names

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from pandas_amr._agent.agent import Agent
    from pandas_amr.models.base import LM
    from pandas_amr.tools import Tool

KEY_BYTES = 16
TYPES = 64
DEFAULT_PORTS = {"http": 80, "https": 443}
NAME = "name"  # in a schema: the name of a field that is asked by an alias
DROPPED = frozenset({"title", "default", "discriminator"})  # keys of a schema
PLAIN_PARTS = frozenset({"enum", "const", "examples", "required"})  # keys that hold no schemas
DECIMAL_PATTERN = r"^-?\d+(\.\d+)?$"


def fingerprint(*parts: bytes) -> bytes:
    """Hash parts to 16 bytes (BLAKE2b, RFC 7693)."""
    whole = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        whole.update(len(part).to_bytes(4, "big") + part)
    return whole.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a map, the reduce or the planner is asked, besides the input of each answer.

    Attributes:
        parts: instruction, view, merge rules and so on, by name.
        finding: the model of a finding.
        output: the type of a reduction.
        agent: the agent that the user gave, if any.
        lm: the model; None if a function answers.
        server: the model's address.
        tools: the tools that agents may call.
        python: what their code may use.
        former: what the journal's first format wrote in place of parts, or besides them.
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
    """Describe a question as JSON, without the parts that are not set: new ones can come."""
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


def _is_set(value: object) -> bool:
    """Whether a part is set; 0 is."""
    if value is None or value is False:
        return False
    return not isinstance(value, str | Mapping | Sequence) or len(value) > 0


# Agents, models and tools


def _describe_persona(agent: Agent | None) -> dict[str, str]:
    if agent is None:
        return {}
    persona = {"role": agent.role, "goal": agent.goal, "background": agent.background}
    return {name: words for name, words in persona.items() if words}


def _describe_model(lm: LM, server: str) -> dict[str, Any]:
    """Describe the model, its address, and how it samples.

    The extra fields of its requests are hashed, since they may hold a secret.
    """
    identity = {"model": lm.model, "server": describe_address(server)}
    if lm.journal_as is not None:
        identity = {"journal_as": lm.journal_as}
    extra = canonical_json(lm.extra_body) if lm.extra_body else ""
    return {
        **identity,
        "temperature": lm.temperature,
        "seed": lm.seed,
        "reasoning_effort": lm.reasoning_effort,
        "max_output_tokens": lm.max_output_tokens,
        "extra": fingerprint(extra.encode()).hex() if extra else None,
    }


def describe_address(url: str) -> str:
    """Write a server's address in one form, without user; the query, which may be secret, hashed.

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
    if ":" in host:
        host = f"[{host}]"
    if parts.port is None or parts.port == DEFAULT_PORTS.get(parts.scheme.lower()):
        return host
    return f"{host}:{parts.port}"


def describe_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Describe tools, in the order of their names."""
    return [_describe_tool(tool) for tool in sorted(tools, key=_tool_name)]


def _tool_name(tool: Tool) -> str:
    return tool.name


def _describe_tool(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "about": tool.description,
        "takes": _describe_arguments(tool),
        "version": tool.version,
    }


def _describe_arguments(tool: Tool) -> dict[str, Any]:
    """Describe the arguments of a tool: by their type, else by the schema that its server gave."""
    schema = tool.args_schema
    if schema is None or not schema.model_fields:
        return dict(tool.parameters)
    required = [
        accepted_names(name, info)[0]
        for name, info in schema.model_fields.items()
        if info.is_required()
    ]
    return describe_type(schema) | {"required": required}


# Types


def describe_type(kind: object) -> dict[str, Any]:
    """Describe a type as a JSON schema, which holds the names of fields beside their aliases."""
    return copy.deepcopy(_describe_record(kind)) if _is_record(kind) else _describe_type(kind)


def _is_record(kind: object) -> bool:
    """Whether a type equals only itself and can be cached; ``int | str`` equals other unions."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@functools.lru_cache(TYPES)
def _describe_record(kind: type[BaseModel]) -> dict[str, Any]:
    return _describe_type(kind)


def _describe_type(kind: Any) -> dict[str, Any]:
    asked = close_schema(TypeAdapter(kind).json_schema(by_alias=True, schema_generator=_Generator))
    named = close_schema(TypeAdapter(kind).json_schema(by_alias=False, schema_generator=_Generator))
    described: dict[str, Any] = _name_fields(asked, named)
    return described


def former_schema(kind: object) -> dict[str, Any]:
    """Return the JSON schema of a type in the journal's first format."""
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
        """Distinguish times with a zone from those without."""
        zone = schema.get("tz_constraint")
        return super().datetime_schema(schema) | ({"zone": zone} if zone is not None else {})


def close_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Inline the references of a JSON schema, drop titles and defaults, and close its objects."""
    definitions = schema.pop("$defs", {})
    closed: dict[str, Any] = _close_schema(schema, definitions)
    return closed


def _close_schema(schema: object, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_close_schema(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        beside = {key: value for key, value in schema.items() if key not in {"$ref", "default"}}
        return _close_schema(target, definitions) | beside
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key not in DROPPED and not key.startswith("amr_"):
            closed[key] = _close_part(key, value, definitions)
    if "properties" in closed:
        closed["required"] = list(closed["properties"])
        closed["type"] = "object"
        closed["additionalProperties"] = False
    return closed


def _close_part(key: str, value: Any, definitions: Mapping[str, Any]) -> Any:
    """Close the schemas that stand under a key of a schema."""
    if key in PLAIN_PARTS:
        return value
    if key == "properties":  # whose keys are names
        return {name: _close_schema(part, definitions) for name, part in value.items()}
    return _close_schema(value, definitions)


def _name_fields(by_alias: Any, by_name: Any) -> Any:
    """Add the fields' names to a schema by alias, where they differ from it."""
    if isinstance(by_alias, list):
        return [_name_fields(one, other) for one, other in zip(by_alias, by_name, strict=True)]
    if not isinstance(by_alias, dict):
        return by_alias
    named: dict[str, Any] = {}
    for key, value in by_alias.items():
        if key != "properties":
            named[key] = _name_fields(value, by_name[key])
    if "properties" in by_alias:
        named["properties"] = _name_properties(by_alias["properties"], by_name["properties"])
    return named


def _name_properties(by_alias: dict[str, Any], by_name: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for (alias, one), (name, other) in zip(by_alias.items(), by_name.items(), strict=True):
        properties[alias] = _name_fields(one, other)
        if name != alias:
            properties[alias][NAME] = name
    return properties
