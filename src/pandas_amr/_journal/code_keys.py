"""The part of a key that stands for a function of the user's: its version, or else its code."""

from __future__ import annotations

import contextlib
import enum
import functools
import inspect
import re
import types
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._journal.keys import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What has one text in every process, beside what JSON has.
PLAIN_VALUES = (date, time, timedelta, Decimal, complex, range, PurePath, np.generic)
DEEPEST = 4  # functions that use each other: so far their code is told apart


def describe_function(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function: by its version if it has one, else by a digest of its code.

    What a ``redact`` function takes out may stand in its code, as in a list of names: no part of it
    is written.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    version = getattr(function, "amr_version", None)
    if version:
        return {"function": name, "version": version}
    return {"function": name, "code": fingerprint(*_parts_of(function, 0)).hex()}


def _parts_of(function: object, depth: int) -> list[bytes]:
    """Collect what tells a function from others and is the same in every process.

    That is its source, if it can be read, and the plain values that it uses.
    """
    if depth > DEEPEST:
        return []
    parts = [type(function).__qualname__.encode(), *_source_of(function)]
    values: list[Any] = []
    if isinstance(function, functools.partial):
        values = [function.func, *function.args, function.keywords]
    elif inspect.ismethod(function):
        values = [getattr(function.__self__, "__dict__", {})]
    elif inspect.isfunction(function):
        values = _values_used(function)
    else:  # an object that is called
        values = [type(function).__call__, getattr(function, "__dict__", {})]
    return parts + _parts_of_values(values, depth)


def _source_of(function: Any) -> list[bytes]:
    with contextlib.suppress(OSError, TypeError):  # typed into a shell, or built in
        return [inspect.getsource(function).strip().encode()]
    return []


def _values_used(function: Any) -> list[Any]:
    """List the names and constants of a function's code, and what stands behind its names."""
    code = function.__code__
    names = code.co_names
    constants = list(code.co_consts)
    known = [function.__globals__[name] for name in names if name in function.__globals__]
    enclosed: list[Any] = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            enclosed.append(cell.cell_contents)
    defaults = [function.__defaults__, function.__kwdefaults__]
    return [names, constants, known, enclosed, defaults]


def _parts_of_values(values: Iterable[Any], depth: int) -> list[bytes]:
    parts: list[bytes] = []
    for value in values:
        parts += _parts_of_value(value, depth)
    return parts


def _parts_of_value(value: object, depth: int) -> list[bytes]:
    """Describe a value; one that may be another in each process only by its type."""
    plain = _parts_of_plain(value)
    if plain:
        return plain
    if isinstance(value, types.CodeType):  # of a function within a function
        value = [value.co_names, *value.co_consts]
    if isinstance(value, enum.Enum):
        return [
            type(value).__qualname__.encode(),
            *_parts_of_values([value.name, value.value], depth),
        ]
    if isinstance(value, list | tuple):
        return [b"[", *_parts_of_values(value, depth), b"]"]
    if isinstance(value, Mapping):
        items = [b"".join(_parts_of_values(item, depth)) for item in value.items()]
        return [b"{", *sorted(items), b"}"]
    if isinstance(value, set | frozenset):
        return [b"{", *sorted(_parts_of_values(value, depth)), b"}"]
    if inspect.isfunction(value) or isinstance(value, functools.partial):
        return _parts_of(value, depth + 1)
    return [type(value).__qualname__.encode()]


def _parts_of_plain(value: object) -> list[bytes]:
    """Describe a value that has one text, or one sequence of bytes, in every process."""
    if value is None or isinstance(value, int | float | str | bytes):
        return [repr(value).encode()]
    if isinstance(value, PLAIN_VALUES):
        return [type(value).__qualname__.encode(), repr(value).encode()]
    if isinstance(value, re.Pattern):
        return [repr((value.pattern, value.flags)).encode()]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [repr((value.dtype.str, value.shape)).encode(), value.tobytes()]
    return []
