"""What the strictest servers take of a JSON schema, each rule with where it is written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DEPTH = 5  # OpenAI's first limits, which servers built after it keep: levels, properties, values of an enum (observed)
PROPERTIES = 100
CHOICES = 500

# OpenAI's fine-tuned models take no length, range, pattern or format, no model takes the combinators (observed).
# https://github.com/jina-ai/node-DeepResearch/issues/79: "maxLength is not permitted";
# https://github.com/GoogleCloudPlatform/vertex-ai-samples/issues/3618: "unsupported field min_length";
# https://zenn.dev/nicopin/scraps/a8d8f53f5faebb: "'default' is not permitted".
UNSUPPORTED = frozenset(
    {"$ref", "$defs", "definitions", "allOf", "oneOf", "not", "if", "then", "else", "default"}
    | {"dependentRequired", "dependentSchemas", "patternProperties", "propertyNames", "unevaluatedProperties"}
    | {"minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"multipleOf", "minItems", "maxItems", "uniqueItems", "prefixItems", "contains", "minProperties", "maxProperties"}
)


def strict_problem(schema: dict[str, Any], name: str) -> str | None:
    """What a strict server says of a schema; None if it takes it."""
    problem = next(_problems(schema, (), 1), None)
    if schema.get("type") != "object":
        problem = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if _count_properties(schema) > PROPERTIES:
        problem = f"Exceeded maximum of {PROPERTIES} object properties"
    return None if problem is None else f"Invalid schema for response_format '{name}': {problem}"


def _problems(schema: Any, path: tuple[str, ...], depth: int) -> Iterator[str]:
    context = f"In context={path!r}, "
    for keyword in sorted(UNSUPPORTED & schema.keys()):
        yield f"{context}'{keyword}' is not permitted."
    # "every enum with a type": Gemini's endpoint refuses one without (observed).
    if "enum" in schema and "type" not in schema:
        yield f"{context}schema must have a 'type' key."
    if len(schema.get("enum", ())) > CHOICES:
        yield f"{context}enum has more than {CHOICES} values."
    if not schema.keys() & {"type", "anyOf"}:
        yield f"{context}schema must have a 'type' key."
    if "properties" in schema or schema.get("type") == "object":
        yield from _object_problems(schema, context, depth)
    for inner_path, inner in _inner(schema, path):
        yield from _problems(inner, inner_path, depth + ("properties" in inner))


def _object_problems(schema: dict[str, Any], context: str, depth: int) -> Iterator[str]:
    # https://github.com/dottxt-ai/outlines/issues/844
    if schema.get("additionalProperties") is not False:
        yield f"{context}'additionalProperties' is required to be supplied and to be false."
    # https://github.com/vercel/ai/issues/6484
    missing = sorted(schema.get("properties", {}).keys() - set(schema.get("required", ())))
    if missing:
        yield (
            f"{context}'required' is required to be supplied and to be an array including every key in properties. "
            f"Missing '{missing[0]}'."
        )
    if depth > DEPTH:
        yield f"{context}exceeded maximum nesting depth of {DEPTH}."


def _inner(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The schemas inside one, each with where it stands."""
    for name, inner in schema.get("properties", {}).items():
        yield (*path, "properties", name), inner
    if isinstance(schema.get("items"), dict):
        yield (*path, "items"), schema["items"]
    for number, inner in enumerate(schema.get("anyOf", ())):
        yield (*path, "anyOf", str(number)), inner


def _count_properties(schema: dict[str, Any]) -> int:
    return len(schema.get("properties", ())) + sum(_count_properties(inner) for _, inner in _inner(schema, ()))
