"""What a type's JSON schema cannot keep: validators, and bounds that JSON has no word for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from pandas_amr._types.schema import bounded_type_of, kept_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BOUNDS = (
    "gt",
    "ge",
    "lt",
    "le",
    "multiple_of",
    "min_length",
    "max_length",
    "pattern",
    "max_digits",
    "decimal_places",
    "now_op",
    "strip_whitespace",
    "to_lower",
    "to_upper",
    "allowed_schemes",
    "version",
)
_CONFIGURED = (
    "str_strip_whitespace",
    "str_to_lower",
    "str_to_upper",
    "str_min_length",
    "str_max_length",
)
_OWN_TYPES = frozenset(
    {"url", "multi-host-url", "uuid", "bytes", "complex", "json"}
)  # JSON Schema has a text for each
_INNER = ("schema", "items_schema", "keys_schema", "values_schema", "choices")


def find_lost_checks(kind: Any) -> list[str]:
    """List the checks of a type that the type read back from its JSON schema does not make, each with its place.

    Example:
        >>> from decimal import Decimal
        >>> from typing import Annotated
        >>> from pydantic import Field
        >>> find_lost_checks(Annotated[Decimal, Field(ge=0)])
        ['ge=0']
    """
    own = list(dict.fromkeys(_checks(TypeAdapter(kind).core_schema)))
    again = set(_checks(TypeAdapter(bounded_type_of(kept_schema(kind))).core_schema))
    return [check for check in own if check not in again]


def _checks(core: Mapping[str, Any]) -> Iterator[str]:
    """All checks of a pydantic core schema beside the types themselves."""
    definitions = {one["ref"]: one for one in core.get("definitions", ())}
    yield from _checks_at(
        core["schema"] if core["type"] == "definitions" else core, "", definitions
    )


def _checks_at(
    core: Mapping[str, Any], place: str, definitions: Mapping[str, Any]
) -> Iterator[str]:
    if core["type"] == "definition-ref":
        core = definitions[core["schema_ref"]]
    for check in _own_checks(core):
        yield _placed(place, check)
    for name, field in _fields(core):
        yield from _checks_at(field["schema"], f"{place}.{name}" if place else name, definitions)
    for key in _INNER:
        inner = core.get(key, ())
        for part in inner if isinstance(inner, list) else [inner]:
            if isinstance(part, dict):
                yield from _checks_at(part, place, definitions)


def _own_checks(core: Mapping[str, Any]) -> Iterator[str]:
    """The checks of a core schema itself, without those of its parts."""
    if core["type"].startswith("function-"):
        function = core["function"]["function"]
        yield f"the validator {getattr(function, '__name__', type(function).__name__)}"
    if core["type"] in _OWN_TYPES:
        yield f"the type {core['type']}"
    if core.get("post_init"):
        yield "the validator __post_init__"
    config = core.get("config", {})
    yield from (f"{option}={config[option]}" for option in _CONFIGURED if config.get(option))
    yield from (f"{bound}={core[bound]}" for bound in _BOUNDS if bound in core)


def _fields(core: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The fields of an object, by name; the arguments of a dataclass are a list of them."""
    fields = core.get("fields", {})
    if isinstance(fields, dict):
        return list(fields.items())
    return [(one["name"], one) for one in fields if isinstance(one, dict)]


def _placed(place: str, check: str) -> str:
    return f"{place}: {check}" if place else check
