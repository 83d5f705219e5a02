"""Make pydantic models: of a dict of fields, of a dataclass, of a TypedDict."""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import secrets
import types
import typing
from typing import Any, ClassVar, Literal, TypeGuard, get_args, get_origin
from weakref import WeakValueDictionary

import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model, model_validator
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.quiet import ignore_warnings
from pandas_amr._records.refused import show_refused
from pandas_amr._types.json_text import unsendable
from pandas_amr._types.resolve import ALIAS_TYPES, KEY_WRAPPERS, plain_choice
from pandas_amr._types.type_advice import advise_type
from pandas_amr.errors import UsageError

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

RESERVED_BY_PYDANTIC = frozenset(name for name in dir(BaseModel) if name.startswith("model_"))


class RecordType(type(BaseModel)):  # type: ignore[misc]
    """The class of such models: no module has them, so that a pickle says how to make them."""


class Record(BaseModel, metaclass=RecordType):
    """The base of findings and outputs that are made: from a dict, a JSON schema, a dataclass."""

    model_config = ConfigDict(protected_namespaces=())

    _made_from: ClassVar[Any] = None  # the dataclass or the TypedDict that it stands for
    # The function that made it, and its arguments. For ``Record`` itself: a module has it.
    _made_with: ClassVar[Any] = None
    _token: ClassVar[str] = ""  # its name in pickles, in every process


def users_type(model: type[BaseModel]) -> Any:
    """Return the user's own type that a model checks: the model, a dataclass, a TypedDict.

    None for a model that was made from a dict or a JSON schema.
    """
    if not issubclass(model, Record):
        return model
    return model._made_from  # noqa: SLF001 (this module's own)


_pickled: WeakValueDictionary[str, type[Record]] = WeakValueDictionary()  # by their tokens
_lock = forkable_lock()


def _reduce_record(record: Any) -> Any:
    """Take a model apart for a pickle."""
    made_with = vars(record).get("_made_with")
    if made_with is None:
        return record.__qualname__  # a module has it
    with _lock:
        token = vars(record).get("_token") or secrets.token_hex(8)
        record._token = token  # noqa: SLF001 (this module's own)
        _pickled.setdefault(token, record)
    return _remake_record, (token, *made_with)


def _remake_record(token: str, make: Callable[..., Any], arguments: Any) -> type[Record]:
    """Make the model that a pickle describes: once per process, so that all copies have one."""
    known = _pickled.get(token)
    if known is not None:
        return known
    made: Any = make(*arguments)
    with _lock:
        made._token = token  # noqa: SLF001 (this module's own)
        record: type[Record] = _pickled.setdefault(token, made)
    return record


copyreg.pickle(RecordType, _reduce_record)


def record_type(
    name: str,
    fields: dict[str, Any],
    *,
    about: str | None = None,
    place: str | None = None,
    beside: dict[str, Any] | None = None,
) -> type[BaseModel]:
    """Make a pydantic model.

    Args:
        name: of the model.
        fields: name to a type, to a list of choices, or to either with a description:
            ``(type, description)``.
        about: the model's description.
        place: what its one field is for people; default: the field of ``finding=``.
        beside: further keywords of its JSON schema.

    Raises:
        UsageError: a name or a type cannot be used.
    """
    definitions: dict[str, Any] = {}
    for field, definition in fields.items():
        _check_name(field)
        definitions[field] = _define_field(place or f"finding[{field!r}]", definition)
    options = {"json_schema_extra": beside} if beside else {}
    try:
        # A finding named `copy` or `json` hides an attribute of BaseModel, which nobody uses here.
        with ignore_warnings(r".*shadows an attribute", UserWarning):
            made: Any = create_model(
                name, __base__=Record, __doc__=about, __cls_kwargs__=options, **definitions
            )
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        culprit = _find_unusable(definitions) or name
        raise UsageError(f"{culprit!r}: {str(error).splitlines()[0]}") from None
    made._made_with = _make_record, (name, fields, about, beside)  # noqa: SLF001 (its own)
    record: type[BaseModel] = made
    return record


def _make_record(
    name: str, fields: dict[str, Any], about: str | None, beside: dict[str, Any] | None
) -> type[BaseModel]:
    """Make a model of the arguments that a pickle holds."""
    return record_type(name, fields, about=about, beside=beside)


def _check_name(field: object) -> None:
    if not isinstance(field, str) or not field.isidentifier() or field.startswith("_"):
        raise UsageError(f"A finding's field is named like a variable, not {show_refused(field)}.")
    if field in RESERVED_BY_PYDANTIC:
        raise UsageError(
            f"A finding's field cannot be named {field!r}: pydantic reserves that name; "
            f"use {field}_ instead."
        )


def _find_unusable(definitions: dict[str, Any]) -> str | None:
    """Return the first field whose type pydantic cannot use."""
    for field, (kind, *_) in definitions.items():
        try:
            TypeAdapter(kind)
        except (PydanticSchemaGenerationError, PydanticUserError):
            return field
    return None


def _is_described(definition: object) -> TypeGuard[tuple[Any, Any]]:
    """Tell whether something is a type, or a list of choices, with a description."""
    if not isinstance(definition, tuple) or len(definition) != 2:
        return False
    kind, about = definition
    if isinstance(kind, list):
        return bool(kind) and isinstance(about, str | FieldInfo)
    return is_type(kind)


def _define_field(place: str, definition: object) -> Any:
    """Return a field as pydantic's ``create_model`` takes it."""
    if _is_described(definition):
        kind, about = definition
        if isinstance(kind, list):
            kind = literal_of(kind, place)
        field = about if isinstance(about, FieldInfo) else Field(description=str(about))
        return (kind, field)
    if isinstance(definition, list) and definition:
        return (literal_of(definition, place), ...)
    if is_type(definition) and not is_foreign_type(definition):
        return (definition, ...)
    raise UsageError(
        f"{place} takes a type, (type, 'description'), or a list of choices, "
        f"not {show_refused(definition)}.{_advise(definition)}"
    )


def _advise(definition: object) -> str:
    """Suggest what is meant by something that defines no field."""
    if isinstance(definition, tuple) and len(definition) == 2:
        advice = advise_type(definition[0])
        if advice:
            return advice
    if isinstance(definition, tuple | set | frozenset) and definition:
        return " Did you mean a list of choices, in square brackets?"
    if hasattr(type(definition), "tolist"):
        return " Did you mean a list of choices: values.tolist()?"
    if isinstance(definition, dict) and definition:
        return " For fields within a field: a pydantic model, a dataclass or a TypedDict."
    if isinstance(definition, str) and " " in definition.strip():
        return " Did you mean a description? It stands behind the type: (str, '...')."
    return advise_type(definition)


def is_foreign_type(kind: object) -> bool:
    """Tell whether a class is a scalar type of numpy or pandas, which JSON does not have."""
    if not isinstance(kind, type):
        return False
    return kind.__module__.partition(".")[0] in {"numpy", "pandas", "pyarrow"}


def is_type(value: object) -> bool:
    if value is Any or get_origin(value) is not None:
        return True
    kinds = (type, types.GenericAlias, types.UnionType, typing.NewType, *ALIAS_TYPES)
    return isinstance(value, kinds)


def literal_of(choices: list[Any], what: str) -> Any:
    """Return the ``Literal`` of these choices.

    Args:
        choices: plain values, or members of an Enum.
        what: names them in error messages.

    Raises:
        UsageError: a choice is not a single value.
    """
    values = [plain_choice(choice) for choice in choices]
    for value in values:
        if value is not None and not isinstance(value, str | int | float):
            raise UsageError(
                f"{what}: a choice is a text, a number, a bool or None, not {show_refused(value)}."
            )
        problem = unsendable(value)
        if problem is not None:
            raise UsageError(f"{what}: the choice {value!r} {problem}.")
    check_distinct(values, what)
    return Literal[tuple(values)]


def check_members(choices: Iterable[Any]) -> None:
    """Refuse a ``Literal`` of an Enum's member that is neither text nor number: no JSON equals it.

    Raises:
        UsageError: there is one.
    """
    for choice in choices:
        if isinstance(choice, enum.Enum) and not isinstance(choice, str | int):
            raise UsageError(
                f"A Literal of {choice} takes no answer in JSON: use {type(choice).__name__}."
            )


def check_distinct(choices: Sequence[Any], what: str) -> None:
    """Refuse choices of different types that are equal to pandas, such as 1 and True.

    Raises:
        UsageError: two are equal.
    """
    seen: dict[Any, Any] = {}
    for choice in choices:
        other = seen.setdefault(choice, choice)
        if type(other) is not type(choice):
            raise UsageError(
                f"{what}: the choices {other!r} and {choice!r} are equal to pandas; "
                "rename one of them."
            )


# Models of dataclasses and TypedDicts


def model_of_fields(kind: Any) -> type[BaseModel]:
    """Make a model of a dataclass or a TypedDict. The type's own checks run on every record.

    Raises:
        UsageError: a name or a type cannot be used.
    """
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UsageError(
            f"pydantic cannot check {kind.__name__}: {str(error).splitlines()[0]}"
        ) from None
    optional = optional_keys(kind)
    fields = record_type(kind.__name__, _field_definitions(kind, optional))
    fields._made_from = kind  # type: ignore[attr-defined]  # noqa: SLF001 (this module's own)
    if not _has_own_checks(kind):
        fields._made_with = (model_of_fields, (kind,))  # type: ignore[attr-defined]  # noqa: SLF001
        return fields

    def check_whole(record: BaseModel) -> BaseModel:
        """Run the type's own checks on a record: its ``__post_init__``, its validators."""
        values: dict[str, Any] = {}
        for name in type(record).model_fields:
            value = getattr(record, name)
            if value is not None or name not in optional:
                values[name] = value
        adapter.validate_python(values)
        return record

    validators: dict[str, Any] = {"check_whole": model_validator(mode="after")(check_whole)}
    checked = create_model(kind.__name__, __base__=fields, __validators__=validators)
    checked._made_with = (model_of_fields, (kind,))  # type: ignore[attr-defined]  # noqa: SLF001
    return checked


def _has_own_checks(kind: object) -> bool:
    """Tell whether a type has checks besides those of its fields."""
    return hasattr(kind, "__post_init__") or hasattr(kind, "__pydantic_decorators__")


def optional_keys(kind: object) -> frozenset[str]:
    """Return the keys of a TypedDict that may be left out.

    If annotations are texts, the class itself does not know all of them.
    """
    optional: set[str] = set(getattr(kind, "__optional_keys__", ()))
    for name, hint in typing_extensions.get_type_hints(kind, include_extras=True).items():
        wrapper: Any = get_origin(hint)
        if wrapper is typing_extensions.NotRequired:
            optional.add(name)
        elif wrapper is typing_extensions.Required:
            optional.discard(name)
    return frozenset(optional)


def _field_definitions(kind: object, optional: frozenset[str]) -> dict[str, Any]:
    """Return the fields of a dataclass or a TypedDict as ``record_type`` takes them."""
    fields: dict[str, Any] = {}
    if dataclasses.is_dataclass(kind):
        fields = {field.name: field for field in dataclasses.fields(kind)}
    definitions: dict[str, Any] = {}
    for name, hint in typing_extensions.get_type_hints(kind, include_extras=True).items():
        own = hint
        while get_origin(own) in KEY_WRAPPERS:
            own = get_args(own)[0]
        if name in optional:
            definitions[name] = (own | None, Field(default=None))
        else:
            definitions[name] = (own, _default_of(fields.get(name)))
    return definitions


def _default_of(field: Any) -> FieldInfo:
    """Return the default of a dataclass' field in pydantic's form; without one it is required."""
    if field is None:
        return FieldInfo()
    if isinstance(field.default, FieldInfo):
        return field.default
    if field.default is not dataclasses.MISSING:
        return FieldInfo(default=field.default)
    if field.default_factory is not dataclasses.MISSING:
        return FieldInfo(default_factory=field.default_factory)
    return FieldInfo()
