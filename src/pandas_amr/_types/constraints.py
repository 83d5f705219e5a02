"""Find the checks of a type that its JSON schema loses, such as validators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from pandas_amr._types.from_schema import bounded_type_from_schema
from pandas_amr._types.schema import stored_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Keys of a pydantic core schema.
_BOUNDS = (
    *("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern"),
    *("max_digits", "decimal_places", "now_op", "strip_whitespace", "to_lower", "to_upper"),
    *("allowed_schemes", "version"),
)
_OPTIONS = (
    *("str_strip_whitespace", "str_to_lower", "str_to_upper"),
    *("str_min_length", "str_max_length"),
)
# Types that JSON Schema writes as texts.
_TEXT_TYPES = frozenset({"url", "multi-host-url", "uuid", "bytes", "complex", "json"})
_INNER = ("schema", "items_schema", "keys_schema", "values_schema", "choices")


def find_lost_checks(kind: Any) -> list[str]:
    """List the checks of a type, with their places, that its JSON schema loses.

    Example:
        >>> from decimal import Decimal
        >>> from typing import Annotated
        >>> from pydantic import Field
        >>> find_lost_checks(Annotated[Decimal, Field(ge=0)])
        ['ge=0']
    """
    checks = dict.fromkeys(_checks(TypeAdapter(kind).core_schema))
    restored = bounded_type_from_schema(stored_schema(kind))
    kept = set(_checks(TypeAdapter(restored).core_schema))
    return [check for check in checks if check not in kept]


def _checks(core: Mapping[str, Any]) -> Iterator[str]:
    """Yield all checks of a pydantic core schema, except those of types."""
    definitions = {definition["ref"]: definition for definition in core.get("definitions", ())}
    if core["type"] == "definitions":
        core = core["schema"]
    yield from _checks_at(core, "", definitions)


def _checks_at(
    core: Mapping[str, Any], place: str, definitions: Mapping[str, Any]
) -> Iterator[str]:
    if core["type"] == "definition-ref":
        core = definitions[core["schema_ref"]]
    for check in _own_checks(core):
        yield f"{place}: {check}" if place else check
    for name, field in _fields(core):
        inner_place = f"{place}.{name}" if place else name
        yield from _checks_at(field["schema"], inner_place, definitions)
    for key in _INNER:
        inner = core.get(key, ())
        parts = inner if isinstance(inner, list) else [inner]
        for part in parts:
            if isinstance(part, dict):
                yield from _checks_at(part, place, definitions)


def _own_checks(core: Mapping[str, Any]) -> Iterator[str]:
    """Yield the checks of a core schema itself, without those of its parts."""
    if core["type"].startswith("function-"):
        function = core["function"]["function"]
        name = getattr(function, "__name__", type(function).__name__)
        yield f"the validator {name}"
    if core["type"] in _TEXT_TYPES:
        yield f"the type {core['type']}"
    if core.get("post_init"):
        yield "the validator __post_init__"
    config = core.get("config", {})
    for option in _OPTIONS:
        if config.get(option):
            yield f"{option}={config[option]}"
    for bound in _BOUNDS:
        if bound in core:
            yield f"{bound}={core[bound]}"


def _fields(core: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the fields of an object, by name; a dataclass has a list of arguments."""
    fields = core.get("fields", {})
    if isinstance(fields, dict):
        return list(fields.items())
    return [(field["name"], field) for field in fields if isinstance(field, dict)]
