"""Tools: functions that agents may call, and a Python session for the code they write."""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import inspect
import math
import os
import re
import sys
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pydantic import BaseModel

from pandas_amr._records.keywords import check_keywords
from pandas_amr._records.pickles import CopiedHere, can_pickle_by_value, pack, unpack
from pandas_amr._records.public import public
from pandas_amr._records.refused import show_refused
from pandas_amr._records.suggest import closest_name, did_you_mean
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr._types.json_text import unsendable
from pandas_amr._types.parameters import documentation_of, parameters_of
from pandas_amr._types.schema import accepted_names, json_schema, stored_schema
from pandas_amr._types.wire import Wire, make_wire
from pandas_amr.errors import UsageError
from pandas_amr.sandbox.base import Isolation, Limits, Sandbox, tiers_in_force

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["PythonREPLTool", "Tool", "tool"]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LEAST_RESULT_CHARS = 100
MOST_RESULT_CHARS = 20_000
OTHERS_MAY_READ = 0o004
CONTAINERS = frozenset({"docker", "podman", "container", "gvisor"})
REPL_NAMES = ("python", "repl", "python_repl", "PythonREPLTool", "code_interpreter")
REPL_EXAMPLE = "[amr.PythonREPLTool()]"
RESERVED = frozenset({"submit_findings", "submit_reduction", "python_repl"})


@public
@dataclass(frozen=True)
class Tool(CopiedHere):
    """A function that agents may call, with its description for them.

    Args:
        func: the function, sync (it runs in a thread) or async. Its arguments are checked first.
        name: the tool's name for agents; default: the function's name.
        description: what it does; default: the function's docstring.
        args_schema: a pydantic model of the arguments; default: from the function's annotations.
        timeout_s: how long one call may take; after that, the agent reads that there is no answer.
        max_result_chars: how many characters of a result the agent reads; a longer one loses its
            middle, and the agent reads so. None sets no limit: a result may then fill the model's
            context window.
        isolated: run it in a sandbox, in a new session per call. It sees its arguments, pandas as
            ``pd``, numpy as ``np``, what it imports itself, and nothing else of your program.
            Arguments are as in JSON: a date is a text, a model is a dict.
        version: part of the journal's key of a finding: with another version, units are asked
            again.

    Raises:
        UsageError: the name, the description or the arguments cannot be sent to a model.

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
    args_schema: type[BaseModel] | None = field(default=None, compare=False)  # in parameters
    timeout_s: float | None = 60.0
    max_result_chars: int | None = MOST_RESULT_CHARS
    isolated: bool = False
    version: str = ""
    parameters: dict[str, Any] = field(init=False, repr=False)
    wire: Wire = field(init=False, repr=False, compare=False)
    has_own_schema: bool = field(default=False, init=False, repr=False, compare=False)
    passes: tuple[type[Exception], ...] = field(default=(), init=False, repr=False)
    redact: Callable[[str], str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_function()
        self._check_options()
        name = self._check_name()
        description = self._check_description(name)
        check_result_limit(self.max_result_chars)
        if self.isolated:
            source_of(self.func)  # raises now if it cannot be sent
        schema = self.args_schema or parameters_of(self.func, name)
        required = _required(schema)
        derived = {
            "has_own_schema": self.args_schema is not None,
            "name": name,
            "description": description,
            "args_schema": schema,
            "parameters": json_schema(schema) | {"required": required},
            "wire": make_wire(
                _make_argument_schema(schema) | {"required": required}, required=required
            ),
        }
        for attribute, value in derived.items():
            object.__setattr__(self, attribute, value)

    def _check_function(self) -> None:
        if not callable(self.func):
            raise UsageError(f"A tool is a function, not {show_refused(self.func)}.")
        if isinstance(self.func, Tool):
            raise UsageError(
                f"{self.func!r} is a tool already; its function is {self.func.name}.func."
            )
        if inspect.isasyncgenfunction(self.func):
            raise UsageError(f"A tool returns its result, and {self.func!r} yields: return a list.")

    def _check_options(self) -> None:
        """Check the types of the options.

        Raises:
            UsageError: one has another type.
        """
        for option in ("name", "description", "version"):
            value = getattr(self, option)
            if not isinstance(value, str):
                raise UsageError(f"Tool({option}=...) takes a text, not {show_refused(value)}.")
        if not isinstance(self.isolated, bool):
            raise UsageError(
                f"Tool(isolated=...) takes True or False, not {show_refused(self.isolated)}."
            )
        schema = self.args_schema
        is_model = isinstance(schema, type) and issubclass(schema, BaseModel)
        if schema is not None and not is_model:
            raise UsageError(
                f"Tool(args_schema=...) takes a pydantic model, not {show_refused(schema)}."
            )
        check_timeout(self.timeout_s)

    def _check_name(self) -> str:
        name = self.name or getattr(self.func, "__name__", "")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(
                f"A tool's name consists of letters, digits, _ and -, and is not "
                f"{show_refused(name)}: Tool(f, name=...)."
            )
        if name in RESERVED:
            raise UsageError(f"The library has its own tool {name!r}: Tool(f, name=...).")
        return name

    def _check_description(self, name: str) -> str:
        description = self.description or documentation_of(self.func)
        if not description or description.isspace():
            raise UsageError(
                f"Tool {name!r} needs a description, or its function a docstring: agents read it."
            )
        problem = unsendable(description)
        if problem is not None:
            raise UsageError(f"The description of the tool {name!r} {problem}.")
        return description

    def __reduce__(self) -> tuple[Any, ...]:
        """Take the tool apart: a decorated function is found by its name, all else made again."""
        function: Any = self.func
        module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
        is_shared = module != "__main__" or not can_pickle_by_value()
        if is_shared and _find_by_name(sys.modules.get(module), name) is self:
            return _find_tool, (module, name)
        arguments = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        if not self.has_own_schema:
            arguments["args_schema"] = None  # it is made of the function
        return _remake_tool, (pack(arguments, f"Tool {self.name!r}"), self.passes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself: a decorated function can still be called."""
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name}({', '.join(self.parameters.get('properties', {}))})>"


def _find_tool(module: str, qualname: str) -> Any:
    """Import a tool from its module, as a pickle does with a function."""
    return _find_by_name(importlib.import_module(module), qualname)


def _find_by_name(module: Any, qualname: str) -> Any:
    found = module
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _remake_tool(arguments: Any, passes: tuple[type[Exception], ...]) -> Tool:
    """Make the tool that a pickle describes."""
    tool = Tool(**unpack(arguments))
    object.__setattr__(tool, "passes", passes)
    return tool


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
@user_traceback
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
    check_keywords("tool", options, [each.name for each in fields(Tool) if each.init])
    if func is None:
        return lambda function: Tool(function, **options)
    return Tool(func, **options)


@public
@dataclass(frozen=True, kw_only=True)
class PythonREPLTool(CopiedHere):
    """A Python session for every agent, in a sandbox, with its shard as the frame ``df``.

    Reducers have ``findings`` in place of ``df``. Agents call it as ``python_repl(code)``. The
    session keeps its state over an agent's turns. ``submit(frame)`` submits findings without a
    model writing them, and ``ask(texts, instruction, schema)`` has the model read texts that code
    selected.

    Args:
        packages: more packages of this environment that code may import, besides pandas, numpy and
            pyarrow and what is installed in the same folder.
        files: files that code may read: paths, or a dict of names to paths. In the session,
            ``files`` holds their paths.
        limits: what a session may use; see ``Limits``.
        isolation: ``"strong"``, ``"strict-lite"``, ``"process"``; or ``"auto"`` for the strongest
            one available here, but never ``"process"``; see ``pandas_amr.sandbox``.
        sandbox: your own sandbox in place of the embedded one, such as ``ContainerSandbox``.

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
        _check_packages(self.packages)
        if not isinstance(self.limits, Limits):
            raise UsageError(
                "PythonREPLTool(limits=...) takes amr.Limits(...), "
                f"not {show_refused(self.limits)}."
            )
        self._check_isolation()
        if self.sandbox is not None:
            self._check_sandbox()
        object.__setattr__(self, "packages", tuple(self.packages))
        is_root = hasattr(os, "getuid") and os.getuid() == 0  # Windows has no such user
        drops_rights = is_root and self.isolation != "process"
        object.__setattr__(self, "files", _paths_by_name(self.files, drops_rights=drops_rights))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"sandbox": pack(self.sandbox, "PythonREPLTool(sandbox=...)")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, sandbox=unpack(state["sandbox"]))

    def _check_isolation(self) -> None:
        choices = typing.get_args(Isolation)
        given: object = self.isolation
        suggestion = ""
        if isinstance(given, str):
            if given in choices:
                return
            suggestion = did_you_mean(given, choices)
            if given in CONTAINERS:
                suggestion = " For a container: sandbox=amr.ContainerSandbox(...)."
        listed = ", ".join(map(repr, choices))
        raise UsageError(
            f"PythonREPLTool(isolation=...) takes {listed}, not {show_refused(given)}.{suggestion}"
        )

    def _check_sandbox(self) -> None:
        if not isinstance(self.sandbox, Sandbox):
            raise UsageError(
                "PythonREPLTool(sandbox=...) takes an object with tier, open() and close(), not "
                f"{self.sandbox!r}."
            )
        if self.packages or self.files or self.isolation != "auto":
            raise UsageError(
                "PythonREPLTool(sandbox=...) has its own packages, files and isolation: leave out "
                "the arguments of these names."
            )

    @property
    def tier(self) -> str:
        """The tier in force; ``auto`` until the first session of this process has begun."""
        if self.sandbox is not None:
            return self.sandbox.tier
        return tiers_in_force.get(self.isolation, self.isolation)

    def __repr__(self) -> str:
        return f"<PythonREPLTool {self.tier}>"


def _check_packages(packages: Sequence[str]) -> None:
    if isinstance(packages, str):
        raise UsageError(f"PythonREPLTool(packages=...) takes a list of names: [{packages!r}].")
    for name in packages:
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise UsageError(
                f"PythonREPLTool(packages=...): there is no package {name!r} in this environment."
            )


def _paths_by_name(
    files: Sequence[str | Path] | Mapping[str, str | Path], *, drops_rights: bool
) -> dict[str, str]:
    """Return the paths of the files for a session, by their names in it.

    Args:
        files: paths, or a dict of names to paths.
        drops_rights: whether code runs with fewer rights than this process.
    """
    if isinstance(files, Mapping):
        named = list(files.items())
    else:
        named = [(Path(path).name, path) for path in files]
    paths = {name: Path(path).absolute() for name, path in named}
    if len(paths) < len(named):
        raise UsageError(
            "PythonREPLTool(files=...): two files have the same name; pass a dict of names to "
            "paths."
        )
    for name, path in paths.items():
        if not path.is_file():
            raise UsageError(f"PythonREPLTool(files=...): {path} is not a file.")
        if "/" in name:
            raise UsageError(f"PythonREPLTool(files=...): the name {name!r} contains a slash.")
        if drops_rights and not path.stat().st_mode & OTHERS_MAY_READ:
            raise UsageError(
                f"PythonREPLTool(files=...): only its owner can read {path}, and code does not "
                "run as root: chmod o+r, or pass a copy."
            )
    return {name: str(path) for name, path in paths.items()}


def _check_list(tools: Any) -> None:
    """Refuse what is not a list of tools.

    Raises:
        UsageError: it is a single tool, a text or a dict.
    """
    is_single = isinstance(tools, str | bytes | Tool | PythonREPLTool)
    is_array = hasattr(type(tools), "__array__")  # its values are no tools, but cells
    if is_single or is_array or not isinstance(tools, typing.Iterable):
        shown = show_refused(tools)
        raise UsageError(f"tools= takes a list of tools, not {shown}.{_advise_tools(tools)}")
    if isinstance(tools, Mapping):
        raise UsageError("tools= takes a list of tools, not a dict: tools=[*tools.values()].")


def _advise_tools(tools: Any) -> str:
    """Suggest the list that is meant by a single tool."""
    if tools is PythonREPLTool or _names_repl(tools):
        return f" Did you mean {REPL_EXAMPLE}?"
    if isinstance(tools, Tool):
        return f" Did you mean [{tools.name}]?"
    if isinstance(tools, PythonREPLTool):
        return " Did you mean a list of it, in square brackets?"
    if callable(tools):
        return f" Did you mean [{getattr(tools, '__name__', 'f')}]?"
    return ""


def _names_repl(tool: Any) -> bool:
    """Tell whether a text names the REPL, or Python."""
    return isinstance(tool, str) and closest_name(tool, REPL_NAMES) is not None


def as_tools(tools: Iterable[Any] | None) -> tuple[tuple[Tool, ...], PythonREPLTool | None]:
    """Convert functions to tools, and separate the REPL from the other tools.

    Raises:
        UsageError: something is not a tool, or two tools have the same name.
    """
    if tools is None:
        return (), None
    _check_list(tools)
    functions: list[Tool] = []
    repls: list[PythonREPLTool] = []
    for candidate in tools:
        if isinstance(candidate, PythonREPLTool):
            repls.append(candidate)
        elif candidate is PythonREPLTool:
            raise UsageError("tools= takes PythonREPLTool(), with parentheses.")
        elif _names_repl(candidate):
            raise UsageError(
                f"A tool is a function, not {show_refused(candidate)}. Did you mean {REPL_EXAMPLE}?"
            )
        else:
            functions.append(candidate if isinstance(candidate, Tool) else Tool(candidate))
    if len(repls) > 1:
        raise UsageError("tools= takes one PythonREPLTool(): an agent has one session.")
    names: set[str] = set()
    for function in functions:
        if function.name in names:
            raise UsageError(f"tools= has two tools named {function.name}.")
        names.add(function.name)
    return tuple(functions), repls[0] if repls else None


def with_redaction(tool: Tool, redact: Callable[[str], str]) -> Tool:
    """Return the tool with what every result of it passes before an agent reads it."""
    bound = copy.copy(tool)
    object.__setattr__(bound, "redact", redact)
    return bound


def check_result_limit(characters: Any) -> None:
    """Check that a number can limit the length of a result.

    Raises:
        UsageError: it is not a whole number, or too small for any result.
    """
    if characters is None:
        return
    is_whole = isinstance(characters, int) and not isinstance(characters, bool)
    if not is_whole or characters < LEAST_RESULT_CHARS:
        raise UsageError(
            f"Tool(max_result_chars=...) takes a whole number from {LEAST_RESULT_CHARS}, or None "
            f"for no limit, not {show_refused(characters)}."
        )


def check_timeout(seconds: Any) -> None:
    """Check that a number can limit the time of a call.

    Raises:
        UsageError: it is not a number above 0.
    """
    if seconds is None:
        return
    is_number = isinstance(seconds, Real) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise UsageError(
            "Tool(timeout_s=...) takes seconds above 0, or None for no limit, "
            f"not {show_refused(seconds)}."
        )


def source_of(func: Callable[..., Any]) -> tuple[str, str]:
    """Return a function's source without its decorators, and its name, for a sandbox to run.

    Raises:
        UsageError: it is not a plain function, or its source cannot be read.
    """
    if inspect.iscoroutinefunction(func) or not inspect.isfunction(func):
        raise UsageError(
            f"Tool(isolated=True) takes a plain function with def, not {show_refused(func)}."
        )
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(func)))
    except (OSError, SyntaxError):
        raise UsageError(
            f"Tool(isolated=True): the source of {func.__name__} cannot be found."
        ) from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise UsageError(
            f"Tool(isolated=True) takes a function with def, not {show_refused(func)}."
        )
    if func.__closure__:
        raise UsageError(
            f"Tool(isolated=True): {func.__name__} uses variables around it, which do not exist in "
            "a sandbox. Pass them as arguments."
        )
    definition.decorator_list = []
    return ast.unparse(tree), definition.name


def _make_argument_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of arguments, each with its default if JSON can express that."""
    described = stored_schema(schema)
    for name, info in schema.model_fields.items():
        part = described["properties"].get(accepted_names(name, info)[0])
        is_plain = isinstance(info.default, str | int | float | bool)
        if part is not None and is_plain and unsendable(info.default) is None:
            part["default"] = info.default
    return described


def _required(schema: type[BaseModel]) -> list[str]:
    """Return the arguments without a default: unlike a finding's fields, others may be left out."""
    required = []
    for name, info in schema.model_fields.items():
        if info.is_required():
            required.append(accepted_names(name, info)[0])
    return required
