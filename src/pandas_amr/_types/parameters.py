"""The parameters of a user's function, as the model that checks the arguments of a call."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
WAY_OUT = "use args_schema=."


class Parameters(BaseModel):
    """The arguments of a call, by the names of the function's parameters.

    A field may have a name of its own, and the parameter's as its alias: fields of a model cannot
    be named ``json``, ``copy`` or ``_private``.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def parameters_of(function: Callable[..., Any], name: str) -> type[BaseModel]:
    """Make the model of a function's parameters.

    Args:
        function: any callable.
        name: its name for agents, for errors.

    Raises:
        UsageError: a parameter cannot be passed by name, or its type is unknown.
    """
    hints = _hints_of(function, name)
    fields: dict[str, Any] = {}
    for place, parameter in enumerate(_signature_of(function, name).parameters.values()):
        if parameter.kind not in BY_NAME:
            raise UsageError(
                f"Tool {name!r}: its parameter {parameter} cannot be passed by name; {WAY_OUT}"
            )
        is_taken = parameter.name.startswith("_") or hasattr(Parameters, parameter.name)
        field_name = f"parameter_{place}_of_function" if is_taken else parameter.name
        fields[field_name] = _make_field(parameter, hints.get(parameter.name, Any))
    try:
        return create_model(name, __base__=Parameters, **fields)
    except Exception as error:
        problem = str(error).partition(". ")[0]
        raise UsageError(
            f"Tool {name!r}: its parameters have a type that no model can be asked for "
            f"({problem}); {WAY_OUT}"
        ) from error


def _make_field(parameter: inspect.Parameter, hint: Any) -> tuple[Any, Any]:
    """Return the type and the default of a field."""
    default = parameter.default
    if isinstance(default, FieldInfo):  # def f(x: int = Field(5, ge=1))
        return Annotated[hint, default], Field(alias=parameter.name)
    if default is parameter.empty:
        default = ...
    return hint, Field(default, alias=parameter.name)


def arguments_of(checked: BaseModel) -> dict[str, Any]:
    """Return checked arguments by the names with which the function takes them."""
    arguments: dict[str, Any] = {}
    for name, info in type(checked).model_fields.items():
        parameter = info.alias if isinstance(checked, Parameters) else name
        arguments[parameter or name] = getattr(checked, name)
    return arguments | (checked.model_extra or {})


def documentation_of(function: Callable[..., Any]) -> str | None:
    """Return a callable's docstring; a partial's is that of its function."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.getdoc(function)


def _signature_of(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        raise UsageError(
            f"Tool {name!r}: the parameters of {function!r} cannot be found; {WAY_OUT}"
        ) from None


def _hints_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Return the types of the parameters by their names; what is returned does not matter.

    Raises:
        UsageError: an annotation names what does not exist here.
    """
    annotated = _annotated_of(function)
    annotations = dict(getattr(annotated, "__annotations__", {}))
    annotations.pop("return", None)
    scope = getattr(inspect.unwrap(annotated), "__globals__", {})
    try:
        return typing.get_type_hints(
            types.SimpleNamespace(__annotations__=annotations), scope, include_extras=True
        )
    except Exception as error:
        raise UsageError(
            f"Tool {name!r}: the types of its parameters cannot be read ({error}); {WAY_OUT}"
        ) from error


def _annotated_of(function: Callable[..., Any]) -> Any:
    """Return what has the annotations of a callable: the function of a partial or of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return function if hasattr(function, "__wrapped__") else type(function).__call__
