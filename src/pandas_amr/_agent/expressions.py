"""JSON and calls as small models write them: as Python, with raw line breaks in texts, with a comma too many.

Only calls and code are read so, never an answer: what is read is run by a tool that checks its arguments.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Any

from pandas_amr._agent.answers import DoubledKey, TooDeep, loads

WORDS_OF_JSON = {"true": True, "false": False, "null": None}
# A string that does not end goes on to the end.
STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|,(?=\s*[}\]])', re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f]")
PRINTS = "print"  # what stands around a call in a Python session


@dataclass(frozen=True, slots=True)
class PythonCall:
    """A call in a Python expression."""

    name: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


def read_loosely(text: str) -> Any:
    """Read JSON as a model writes it; a call of Python, or each of a list of them, comes as ``PythonCall``.

    Raises:
        ValueError: it is neither JSON nor an expression of literals and calls, or it names a key twice.

    Example:
        >>> read_loosely('{"a": [1, 2,],}'), read_loosely("{'a': None}")
        ({'a': [1, 2]}, {'a': None})
        >>> read_loosely('look("x", times=2)')
        PythonCall(name='look', positional=('x',), named={'times': 2})
    """
    text = text.strip()
    for candidate in (text, _as_json(text)):
        try:
            return loads(candidate)
        except (DoubledKey, TooDeep):
            raise
        except ValueError:
            continue
    expression = _parsed(text)
    if isinstance(expression, ast.List) and all(
        isinstance(part, ast.Call) for part in expression.elts
    ):
        return [_call(part) for part in expression.elts if isinstance(part, ast.Call)]
    return _call(expression) if isinstance(expression, ast.Call) else _value(expression)


def _as_json(text: str) -> str:
    """A text with the control characters in its strings escaped, and without commas that nothing follows."""
    return STRING_OR_COMMA.sub(_escape_control, text)


def _escape_control(match: re.Match[str]) -> str:
    mark = match.group()
    return "" if mark == "," else CONTROL.sub(lambda one: f"\\u{ord(one.group()):04x}", mark)


def _parsed(text: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a backslash in the model's code
        try:
            return ast.parse(text, mode="eval").body
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError("it is no expression") from error


def _value(node: ast.expr) -> Any:
    """The value of a literal.

    Raises:
        ValueError: something else stands in it, or a key twice.
    """
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in WORDS_OF_JSON:
            return WORDS_OF_JSON[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part) for part in parts]
        case ast.Set(elts=[only]):  # two braces for one, as prompt templates escape them
            return _value(only)
        case ast.Dict(keys=keys, values=values):
            return _object(keys, values)
    raise ValueError("it is no literal")


def _object(keys: list[ast.expr | None], values: list[ast.expr]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in zip(keys, values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            raise ValueError("a key is no text")  # noqa: TRY004 (it is the model's text that is wrong)
        if key.value in made:
            raise DoubledKey
        made[key.value] = _value(value)
    return made


def _call(node: ast.Call) -> PythonCall:
    name = ast.unparse(node.func)
    if name == PRINTS and len(node.args) == 1 and isinstance(node.args[0], ast.Call):
        return _call(node.args[0])
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        value = _value(keyword.value)
        given = {keyword.arg: value} if keyword.arg is not None else value
        if not isinstance(given, dict) or not named.keys().isdisjoint(given):
            raise DoubledKey
        named |= given
    return PythonCall(name, tuple(_value(one) for one in node.args), named)
