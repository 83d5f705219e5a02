"""Tools: functions of the user's that agents may call, and the Python that they may write."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pydantic import BaseModel, ConfigDict, Field, create_model

from pandas_amr._types.schema import asked_as, json_schema, kept_schema
from pandas_amr._types.wire import Wire, wire_of
from pandas_amr.errors import UsageError
from pandas_amr.sandbox.base import Isolation, Limits, Sandbox, found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["PythonREPLTool", "Tool", "tool"]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LEAST_RESULT_CHARS = 100
MOST_RESULT_CHARS = 20_000
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
        max_result_chars: characters of a result that the agent gets to read; of a longer one the middle is left out,
            and the agent is told so. None is no bound: a result may then fill the model's window.
        isolated: run it in a sandbox and not beside the library, a session each call. It sees its arguments, pandas as
            ``pd``, numpy as ``np``, what it imports itself, and nothing else of yours. Arguments come as JSON has them:
            a date as text, a model as a dict.
        version: part of what findings are known by in the journal: another version pays anew.

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
    timeout_s: float | None = 60.0
    max_result_chars: int | None = MOST_RESULT_CHARS
    isolated: bool = False
    version: str = ""
    parameters: dict[str, Any] = field(init=False, repr=False)
    wire: Wire = field(init=False, repr=False)
    passes: tuple[type[Exception], ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.func):
            raise UsageError(f"A tool is a function, not {self.func!r}.")
        name = self.name or getattr(self.func, "__name__", "")
        if not NAME.fullmatch(name):
            raise UsageError(
                f"A tool's name is made of letters, digits, _ and -, not {name!r}: Tool(f, name=...)."
            )
        if name in RESERVED:
            raise UsageError(f"The tool name {name!r} is taken by the library: Tool(f, name=...).")
        description = self.description or inspect.getdoc(self.func) or ""
        if not description:
            raise UsageError(
                f"Tool {name!r} needs a description, or its function a docstring: agents read it."
            )
        check_bound(self.max_result_chars)
        if self.isolated:
            source_of(self.func)  # what cannot be sent is told now
        schema = self.args_schema or _args_schema(self.func, name)
        required = _required(schema)
        for key, value in {
            "name": name,
            "description": description,
            "args_schema": schema,
            "parameters": json_schema(schema) | {"required": required},
            "wire": wire_of(_asked_of(schema) | {"required": required}, required=required),
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
    timeout_s: float | None = 60.0,
    max_result_chars: int | None = MOST_RESULT_CHARS,
    isolated: bool = False,
    version: str = "",
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    func: Callable[..., Any] | None = None, /, **options: Any
) -> Tool | Callable[[Callable[..., Any]], Tool]:
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


@dataclass(frozen=True, kw_only=True)
class PythonREPLTool:
    """A live Python for every agent, in a sandbox, with its shard as the frame ``df`` (reducers: ``findings``).

    Agents call it ``python_repl(code)``. State lasts through an agent's turns. In it ``submit(frame)`` hands in
    findings with no model writing them out, and ``ask(texts, instruction, schema)`` has the model read what code has
    chosen.

    Args:
        packages: further packages of this environment that code may import, beside pandas, numpy and pyarrow and what
            lies in the same folder.
        files: further files, read-only: paths, or a dict of the names they get; their paths stand in ``files``.
        limits: what a session may use; see ``Limits``.
        isolation: ``"strong"``, ``"strict-lite"``, ``"process"``, or ``"auto"`` for the strongest that can be had and
            never ``"process"``; see ``pandas_amr.sandbox``.
        sandbox: a sandbox of your own in place of the embedded one, such as ``ContainerSandbox``.

    Raises:
        UsageError: an argument cannot be used; a package or a file does not exist.

    Example:
        >>> PythonREPLTool(limits=Limits(memory_mb=512), isolation="strong")
        <PythonREPLTool strong>
    """

    packages: Sequence[str] = ()
    files: Sequence[str | Path] | Mapping[str, str | Path] = ()
    limits: Limits = field(default_factory=Limits)
    isolation: Isolation = "auto"
    sandbox: Sandbox | None = None

    def __post_init__(self) -> None:
        if isinstance(self.packages, str):
            raise UsageError(
                f"PythonREPLTool(packages=...) takes a list of names: [{self.packages!r}]."
            )
        if not isinstance(self.limits, Limits):
            raise UsageError(
                f"PythonREPLTool(limits=...) takes amr.Limits(...), not {self.limits!r}."
            )
        if self.isolation not in typing.get_args(Isolation):
            names = ", ".join(repr(name) for name in typing.get_args(Isolation))
            raise UsageError(
                f"PythonREPLTool(isolation=...) takes {names}, not {self.isolation!r}."
            )
        if self.sandbox is not None and not isinstance(self.sandbox, Sandbox):
            raise UsageError(
                f"PythonREPLTool(sandbox=...) takes what has tier, open() and close(), not {self.sandbox!r}."
            )
        if self.sandbox is not None and (self.packages or self.files or self.isolation != "auto"):
            raise UsageError(
                "PythonREPLTool(sandbox=...) brings its own packages, files and isolation."
            )
        for name in self.packages:
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                raise UsageError(
                    f"PythonREPLTool(packages=...): there is no package {name!r} in this environment."
                )
        object.__setattr__(self, "packages", tuple(self.packages))
        root = hasattr(os, "getuid") and os.getuid() == 0  # Windows knows no such user
        object.__setattr__(
            self, "files", _files(self.files, of_root=root and self.isolation != "process")
        )

    @property
    def tier(self) -> str:
        """What is in force; ``auto`` until a session has begun in this process."""
        return (
            found.get(self.isolation, self.isolation) if self.sandbox is None else self.sandbox.tier
        )

    def __repr__(self) -> str:
        return f"<PythonREPLTool {self.tier}>"


def _files(
    given: Sequence[str | Path] | Mapping[str, str | Path], *, of_root: bool
) -> dict[str, str]:
    """Files by the names they get. ``of_root``: code will run as somebody with fewer rights than this process."""
    named = (
        given.items() if isinstance(given, Mapping) else [(Path(path).name, path) for path in given]
    )
    files = {name: str(Path(path).absolute()) for name, path in named}
    if len(files) < len(named):
        raise UsageError(
            "PythonREPLTool(files=...): two files have one name; give a dict of names to paths."
        )
    for name, path in files.items():
        if "/" in name or not Path(path).is_file():
            raise UsageError(
                f"PythonREPLTool(files=...): {path} is no file, or {name!r} no name for one."
            )
        if of_root and not Path(path).stat().st_mode & 0o004:
            raise UsageError(
                f"PythonREPLTool(files=...): {path} can be read by its owner only, and code does not run as root: "
                "chmod o+r, or give a copy."
            )
    return files


def as_tools(given: Iterable[Any] | None) -> tuple[tuple[Tool, ...], PythonREPLTool | None]:
    """The tools that a user gave: tools, or functions that become tools; and the REPL, where it is among them.

    Raises:
        UsageError: something is no tool, or two have one name.
    """
    if given is None:
        return (), None
    if isinstance(given, str | bytes | Tool | PythonREPLTool) or not isinstance(
        given, typing.Iterable
    ):
        raise UsageError(f"tools= takes a list of tools, not {given!r}.")
    given = list(given)
    repls = [one for one in given if isinstance(one, PythonREPLTool)]
    if len(repls) > 1 or PythonREPLTool in given:
        raise UsageError("tools= takes one PythonREPLTool(): an agent has one session.")
    tools = tuple(
        one if isinstance(one, Tool) else Tool(one)
        for one in given
        if not isinstance(one, PythonREPLTool)
    )
    names = [one.name for one in tools]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UsageError(f"tools= has two tools named {', '.join(doubled)}.")
    return tools, repls[0] if repls else None


def check_bound(most: Any) -> None:
    """Refuse what cannot bound a result.

    Raises:
        UsageError: it is no whole number, or too small to say anything.
    """
    is_whole = isinstance(most, int) and not isinstance(most, bool)
    if most is not None and (not is_whole or most < LEAST_RESULT_CHARS):
        raise UsageError(
            f"Tool(max_result_chars=...) takes a whole number from {LEAST_RESULT_CHARS}, or None for no bound, "
            f"not {most!r}."
        )


def source_of(func: Callable[..., Any]) -> tuple[str, str]:
    """A function's source without its decorators, and its name, for a sandbox to run.

    Raises:
        UsageError: there is no source, or it is no plain function.
    """
    if inspect.iscoroutinefunction(func) or not inspect.isfunction(func):
        raise UsageError(f"Tool(isolated=True) takes a plain function with def, not {func!r}.")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(func)))
    except (OSError, SyntaxError):
        raise UsageError(
            f"Tool(isolated=True): the source of {func.__name__} cannot be found."
        ) from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise UsageError(f"Tool(isolated=True) takes a function with def, not {func!r}.")
    if func.__closure__:
        raise UsageError(
            f"Tool(isolated=True): {func.__name__} uses variables around it, which a sandbox has not."
        )
    definition.decorator_list = []
    return ast.unparse(tree), definition.name


def _args_schema(func: Callable[..., Any], name: str) -> type[BaseModel]:
    hints = typing.get_type_hints(func, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(func).parameters.values():
        if parameter.kind in {
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        }:
            raise UsageError(
                f"Tool {name!r}: its parameter {parameter} cannot be given by name; use args_schema=."
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), Field(default))
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _asked_of(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema of arguments, each with its default where it has one that JSON can say."""
    asked = kept_schema(schema)
    for name, info in schema.model_fields.items():
        part = asked["properties"].get(asked_as(name, info)[0])
        if part is not None and isinstance(info.default, str | int | float | bool):
            part["default"] = info.default
    return asked


def _required(schema: type[BaseModel]) -> list[str]:
    """Unlike a finding's fields, arguments with a default may be left out."""
    return [
        asked_as(name, field)[0]
        for name, field in schema.model_fields.items()
        if field.is_required()
    ]
