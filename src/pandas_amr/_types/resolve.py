"""What a type stands for: aliases and annotations resolved, its choices, its fields."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import functools
import types
import typing
from typing import Annotated, Any, Literal, get_args, get_origin

import typing_extensions
from pydantic import (
    BaseModel,
    FutureDate,
    FutureDatetime,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    RootModel,
)

if typing.TYPE_CHECKING:
    from collections.abc import Callable

ALIAS_TYPES = (
    typing_extensions.TypeAliasType,
    getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType),
)
# Wrappers of the keys of a TypedDict.
KEY_WRAPPERS: frozenset[Any] = frozenset(
    {typing_extensions.Required, typing_extensions.NotRequired, typing_extensions.ReadOnly}
)
UNIONS = frozenset({typing.Union, types.UnionType})
_ALIASES: dict[Any, Any] = {
    NaiveDatetime: dt.datetime,
    PastDatetime: dt.datetime,
    FutureDatetime: dt.datetime,
    PastDate: dt.date,
    FutureDate: dt.date,
    collections.abc.Sequence: list,
    collections.abc.Mapping: dict,
    collections.abc.Set: set,
}

T = typing.TypeVar("T")


def cache_by_type(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Cache what a function returns for a type: types are few, and looked up once per value."""

    @functools.lru_cache(maxsize=1024)
    def cached(kind: object, parts: tuple[Any, ...]) -> T:
        del parts  # tell types apart that are equal
        return function(kind)

    @functools.wraps(function)
    def look_up(kind: object) -> T:
        try:
            hash(kind)
        except TypeError:  # such as an annotation that holds a list
            return function(kind)
        return cached(kind, _parts_of(kind))

    return look_up


def _parts_of(kind: object) -> tuple[Any, ...]:
    """Return the parts of a type in their order: a ``Literal`` equals one in another order."""
    if isinstance(kind, type):  # a class has none
        return ()
    return tuple((part, _parts_of(part)) for part in typing.get_args(kind))


@cache_by_type
def resolve_type(kind: object) -> Any:
    """Resolve a type at every depth: no ``Annotated``, ``NewType`` or alias is left.

    A union of several ``Literal`` becomes one ``Literal``, and ``list`` becomes ``list[Any]``.

    Example:
        >>> resolve_type(typing.NewType("UserId", int))
        <class 'int'>
        >>> resolve_type(list[Annotated[int, "positive"]])
        list[int]
        >>> resolve_type(Literal["a"] | Literal[1] | None)
        typing.Optional[typing.Literal['a', 1]]
    """
    kind = without_alias(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is not None and not inner:  # typing.List, typing.Hashable: without arguments
        return resolve_type(origin)
    if origin is Annotated or origin in KEY_WRAPPERS:
        return resolve_type(inner[0])
    if isinstance(kind, type) and origin is None and issubclass(kind, RootModel):
        return resolve_type(kind.model_fields["root"].annotation)
    if origin is None or origin is Literal:
        return _resolve_single(kind)
    parts = _resolve_parts(inner)
    if origin in UNIONS:
        return _make_union(parts)
    return _ALIASES.get(origin, origin)[parts]


def _resolve_single(kind: Any) -> Any:
    """Resolve a type without arguments."""
    if not isinstance(kind, collections.abc.Hashable):
        return kind
    resolved: Any = _ALIASES.get(kind, kind)
    if resolved is list:  # JSON schemas do not tell the two apart: a plan's JSON gives list[Any]
        return list[Any]
    return resolved


def _resolve_parts(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Resolve the arguments of a generic type; the ellipsis of a tuple stays."""
    resolved = list(parts)
    for place, part in enumerate(parts):
        if part is not ...:
            resolved[place] = resolve_type(part)
    return tuple(resolved)


def _make_union(parts: tuple[Any, ...]) -> Any:
    """Return the union of resolved types. Several ``Literal``, if nothing else, become one."""
    others = [part for part in parts if part is not type(None)]
    if len(others) > 1 and all(get_origin(part) is Literal for part in others):
        choices: list[Any] = []
        for part in others:
            choices += get_args(part)
        merged: Any = Literal[tuple(choices)]
        parts = (merged, type(None)) if len(others) < len(parts) else (merged,)
    return typing.Union[parts]  # noqa: UP007 (made at run time)


@cache_by_type
def without_none(kind: object) -> tuple[Any, bool]:
    """Return ``kind``, resolved and without None; and whether it had None."""
    kind = resolve_type(kind)
    if get_origin(kind) in UNIONS:
        others = tuple(part for part in get_args(kind) if part is not type(None))
        if len(others) < len(get_args(kind)):
            inner, _ = without_none(typing.Union[others])  # noqa: UP007 (made at run time)
            return inner, True
    if get_origin(kind) is Literal and None in get_args(kind) and get_args(kind) != (None,):
        choices = tuple(choice for choice in get_args(kind) if choice is not None)
        return Literal[choices], True
    return kind, False


@cache_by_type
def choices_of(kind: object) -> tuple[Any, ...] | None:
    """Return the plain values of a ``Literal`` or an ``Enum`` except None; None for other types."""
    kind, _ = without_none(kind)
    if get_origin(kind) is Literal:
        return tuple(plain_choice(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return tuple(member.value for member in kind if member.value is not None)
    return None


def plain_choice(choice: object) -> Any:
    """Return the value of a member of an Enum; any other choice as it is."""
    if isinstance(choice, enum.Enum):
        return choice.value
    return choice


def object_fields(kind: Any) -> dict[str, Any] | None:
    """Return the fields of a model, a dataclass or a TypedDict, with their resolved types.

    None for any other type.
    """
    if is_model(kind):
        return {name: resolve_type(field.annotation) for name, field in kind.model_fields.items()}
    if is_plain_record(kind):
        hints = typing_extensions.get_type_hints(kind)
        return {name: resolve_type(hint) for name, hint in hints.items()}
    return None


def is_model(kind: object) -> bool:
    """Tell whether a type is a pydantic model with named fields."""
    if not isinstance(kind, type):
        return False
    return issubclass(kind, BaseModel) and not issubclass(kind, RootModel)


def is_plain_record(kind: object) -> bool:
    """Tell whether a type is a dataclass or a TypedDict."""
    if not isinstance(kind, type):
        return False
    return dataclasses.is_dataclass(kind) or typing_extensions.is_typeddict(kind)


def without_alias(kind: object) -> Any:
    """Return the type that a NewType or an alias names, with its annotations."""
    while True:
        origin = get_origin(kind)
        if isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        elif isinstance(kind, ALIAS_TYPES):
            kind = kind.__value__
        elif isinstance(origin, ALIAS_TYPES):
            kind = origin.__value__[get_args(kind)]
        else:
            return kind
