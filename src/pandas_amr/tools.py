"""Tools: functions of the user's that agents may call."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from pydantic import BaseModel, ConfigDict, Field, create_model

from pandas_amr._schema import json_schema
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Tool", "tool"]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
RESERVED = frozenset({"submit_findings", "submit_reduction", "python_repl"})


@dataclass(frozen=True)
class Tool:
    """A function that agents may call, with what they are told of it.

    Args:
        func: the function, sync (runs in a thread) or async. Its arguments are checked first.
        name: what agents call it; default: the function's name.
        description: what it does; default: the function's docstring.
        args_schema: a pydantic model of the arguments; default: made from the function's annotations.
        timeout_s: seconds that one call may take; the agent is told when they are over.

    Raises:
        UsageError: the name, the description or the arguments cannot be told to a model.

    Example:
        >>> def rate(currency: str) -> float:
        ...     '''Euros for one unit of the currency.'''
        ...     return {"USD": 0.5}[currency]
        >>> Tool(rate)
        <Tool rate(currency)>
    """

    func: Callable[..., Any]
    name: str = ""
    description: str = ""
    args_schema: type[BaseModel] | None = None
    timeout_s: float = 60.0
    parameters: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.func):
            raise UsageError(f"A tool is a function, not {self.func!r}.")
        name = self.name or getattr(self.func, "__name__", "")
        if not NAME.fullmatch(name):
            raise UsageError(f"A tool's name is made of letters, digits, _ and -, not {name!r}: Tool(f, name=...).")
        if name in RESERVED:
            raise UsageError(f"The tool name {name!r} is taken by the library: Tool(f, name=...).")
        description = self.description or inspect.getdoc(self.func) or ""
        if not description:
            raise UsageError(f"Tool {name!r} needs a description, or its function a docstring: agents read it.")
        schema = self.args_schema or _args_schema(self.func, name)
        for key, value in {
            "name": name,
            "description": description,
            "args_schema": schema,
            "parameters": json_schema(schema) | {"required": _required(schema)},
        }.items():
            object.__setattr__(self, key, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself: a decorated function stays one."""
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name}({', '.join(self.parameters.get('properties', {}))})>"


@overload
def tool(func: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    args_schema: type[BaseModel] | None = None,
    timeout_s: float = 60.0,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(func: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, as a decorator with or without options.

    Example:
        >>> @tool
        ... def double(x: int) -> int:
        ...     '''Twice x.'''
        ...     return 2 * x
        >>> double, double(4)
        (<Tool double(x)>, 8)
    """
    if func is None:
        return lambda function: Tool(function, **options)
    return Tool(func, **options)


def as_tools(given: Iterable[Any] | None) -> tuple[Tool, ...]:
    """The tools that a user gave: tools, or functions that become tools.

    Raises:
        UsageError: something is no tool, or two have one name.
    """
    if given is None:
        return ()
    if isinstance(given, str | bytes | Tool) or not isinstance(given, typing.Iterable):
        raise UsageError(f"tools= takes a list of tools, not {given!r}.")
    tools = tuple(one if isinstance(one, Tool) else Tool(one) for one in given)
    names = [one.name for one in tools]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UsageError(f"tools= has two tools named {', '.join(doubled)}.")
    return tools


def _args_schema(func: Callable[..., Any], name: str) -> type[BaseModel]:
    hints = typing.get_type_hints(func, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(func).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise UsageError(f"Tool {name!r}: its parameter {parameter} cannot be given by name; use args_schema=.")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), Field(default))
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _required(schema: type[BaseModel]) -> list[str]:
    """Unlike a finding's fields, arguments with a default may be left out."""
    return [field.alias or name for name, field in schema.model_fields.items() if field.is_required()]
