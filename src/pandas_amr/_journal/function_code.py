"""A function of the user's as what its findings are known by, if it has no version of its own."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SIMPLE = (str, bytes, int, float, complex, bool, type(None))


def describe_function(function: Callable[..., Any]) -> list[Any]:
    """Describe a function by its code and the plain values that this uses, as JSON.

    The code of functions that it names is part of it, as far as they stand in the same module. What
    they import is not, nor are objects: a function that depends on more takes an ``amr_version``.

    Example:
        >>> def double(frame):
        ...     return frame * 2
        >>> def triple(frame):
        ...     return frame * 3
        >>> describe_function(double) == describe_function(triple)
        False
    """
    return list(_describe(function, set()))


def _describe(function: Any, seen: set[int]) -> Iterator[Any]:
    """Describe a function, and those that it names, each once."""
    if id(function) in seen:
        return
    seen.add(id(function))
    if isinstance(function, functools.partial):
        yield from _describe(function.func, seen)
        yield _describe_values(function.args, seen)
        yield _describe_fields(function.keywords, seen)
        return
    plain = getattr(function, "__func__", function)
    yield getattr(plain, "__qualname__", type(plain).__qualname__)
    if isinstance(plain, types.FunctionType):
        yield from _describe_python(plain, seen)
        return
    call = type(plain).__call__
    if isinstance(call, types.FunctionType):  # an object that can be called
        yield from _describe(call, seen)
        yield _describe_fields(vars(plain), seen)


def _describe_python(function: types.FunctionType, seen: set[int]) -> Iterator[Any]:
    """Describe a function that is written in Python: its code, and the values that this uses."""
    code = function.__code__
    yield list(_describe_code(code))
    yield _describe_values(function.__defaults__ or (), seen)
    yield [_describe_cell(cell, seen) for cell in function.__closure__ or ()]
    for name in code.co_names:
        value = function.__globals__.get(name)
        is_function = isinstance(value, types.FunctionType)
        is_own = is_function and value.__module__ == function.__module__
        if is_own or (value is not None and _is_simple(value)):
            yield [name, _describe_value(value, seen)]


def _describe_values(values: Iterable[Any], seen: set[int]) -> list[Any]:
    return [_describe_value(value, seen) for value in values]


def _describe_fields(fields: Mapping[str, Any], seen: set[int]) -> dict[str, Any]:
    return {name: _describe_value(value, seen) for name, value in fields.items()}


def _describe_code(code: types.CodeType) -> Iterator[Any]:
    """Describe what code does, and not where it stands."""
    yield code.co_code.hex()
    yield list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield list(_describe_code(constant))
        elif isinstance(constant, frozenset):  # whose order differs from process to process
            yield sorted(map(repr, constant))
        else:
            yield repr(constant)


def _describe_cell(cell: types.CellType, seen: set[int]) -> Any:
    try:
        return _describe_value(cell.cell_contents, seen)
    except ValueError:  # a variable that is not set yet
        return None


def _describe_value(value: Any, seen: set[int]) -> Any:
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return list(_describe(value, seen))
    return repr(value) if _is_simple(value) else type(value).__qualname__


def _is_simple(value: Any) -> bool:
    """Tell whether a value is written the same in every process."""
    if isinstance(value, list | tuple):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(_is_simple(key) and _is_simple(one) for key, one in value.items())
    return isinstance(value, SIMPLE)
