"""Read JSON and calls as small models write them: as Python, with raw line breaks, extra commas.

Calls and code are read so, and answers as a whole: all are checked as what is JSON is.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from pandas_amr._agent.strict_json import TooDeep, loads
from pandas_amr._records.quiet import ignore_warnings
from pandas_amr._types.json_text import RepeatedKey

FINDINGS, UNIT = "findings", "unit"  # keys of a list of findings, and of each
JSON_NAMES = {"true": True, "false": False, "null": None}
# A string (one that is not closed extends to the end), or a comma that nothing follows.
STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|,(?=\s*[}\]])', re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f]")
PRINT = "print"  # models write it around a call


@dataclass(frozen=True, slots=True)
class PythonCall:
    """A call in a Python expression."""

    name: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


def read_loosely(text: str) -> Any:
    """Read what is nearly JSON; a call in Python, or each of a list of them, is a ``PythonCall``.

    Raises:
        ValueError: it is neither JSON nor an expression of literals and calls, or an object names
            a key twice.

    Example:
        >>> read_loosely('{"a": [1, 2,],}'), read_loosely("{'a': None}")
        ({'a': [1, 2]}, {'a': None})
        >>> read_loosely('look("x", times=2)')
        PythonCall(name='look', positional=('x',), named={'times': 2})
    """
    text = text.strip()
    for candidate in (text, _repair_json(text)):
        try:
            return loads(candidate)
        except (RepeatedKey, TooDeep):
            raise
        except ValueError:
            continue
    expression = _parse(text)
    if isinstance(expression, ast.Call):
        return _read_call(expression)
    if isinstance(expression, ast.List):
        calls = [part for part in expression.elts if isinstance(part, ast.Call)]
        if len(calls) == len(expression.elts):
            return [_read_call(call) for call in calls]
    return _read_literal(expression)


def read_findings(text: str) -> list[dict[str, Any]] | None:
    """Read a list of findings that is nearly JSON, each with its unit's number; else None.

    Example:
        >>> read_findings("[{'unit': 1},]"), read_findings("[look(1)]"), read_findings("a [b]")
        ([{'unit': 1}], None, None)
    """
    try:
        value = read_loosely(text)
    except ValueError:
        return None
    if not isinstance(value, list):
        return None
    are_findings = all(isinstance(part, dict) and UNIT in part for part in value)
    return value if are_findings else None


def _repair_json(text: str) -> str:
    """Escape control characters in strings, and remove commas that nothing follows."""
    return STRING_OR_COMMA.sub(_repair_mark, text)


def _repair_mark(match: re.Match[str]) -> str:
    mark = match.group()
    return "" if mark == "," else CONTROL.sub(_escape, mark)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def _parse(text: str) -> ast.expr:
    with ignore_warnings():  # about backslashes in the model's code
        try:
            return ast.parse(text, mode="eval").body
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError("it is not an expression") from error


def _read_literal(node: ast.expr) -> Any:
    """Return the value of a literal.

    Raises:
        ValueError: it is not a literal, or an object names a key twice.
    """
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in JSON_NAMES:
            return JSON_NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_read_literal(part) for part in parts]
        case ast.Set(elts=[only]):  # two braces for one: prompt templates escape them so
            return _read_literal(only)
        case ast.Dict(keys=keys, values=values):
            return _read_object(keys, values)
    raise ValueError("it is not a literal")


def _read_object(keys: list[ast.expr | None], values: list[ast.expr]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in zip(keys, values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            raise ValueError("a key is not a text")  # noqa: TRY004 (the model's text is wrong)
        if key.value in made:
            raise RepeatedKey
        made[key.value] = _read_literal(value)
    return made


def _read_call(node: ast.Call) -> PythonCall:
    name = ast.unparse(node.func)
    if name == PRINT and len(node.args) == 1 and isinstance(node.args[0], ast.Call):
        return _read_call(node.args[0])
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        value = _read_literal(keyword.value)
        # Without a name it is ``**value``: an object of arguments.
        arguments = value if keyword.arg is None else {keyword.arg: value}
        if not isinstance(arguments, dict) or not named.keys().isdisjoint(arguments):
            raise RepeatedKey
        named |= arguments
    positional = tuple(_read_literal(argument) for argument in node.args)
    return PythonCall(name, positional, named)
