"""What enters a pickle: what modules have by name, and else what cloudpickle takes by value.

A pickle refers to functions and classes by name. One that no module has by its name, such as a
lambda, can be pickled by value if the package ``cloudpickle`` is there. Dask, Spark and Ray bring
it along.
"""

from __future__ import annotations

import functools
import pickle  # to write what users pickle anyway; the library itself keeps nothing in pickles
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

from pandas_amr.errors import AMRError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

CLOUDPICKLE = "cloudpickle"
# The copies of it in other packages. One is used if it is imported already: then its package is
# where the pickle goes, too.
ITS_COPIES = ("pyspark.cloudpickle", "ray.cloudpickle", "joblib.externals.cloudpickle")
UNPICKLABLE = re.compile(r"cannot pickle '([\w.]+)' object")  # what Python says of locks and files


@dataclass(frozen=True, slots=True)
class Packed:
    """A value that is pickled by value, of a package's copy of cloudpickle."""

    data: bytes


def pack(value: object, what: str) -> Any:
    """Return a value as it enters a pickle: as it is, or packed if no name leads to a part of it.

    Args:
        value: the value.
        what: names it for people.

    Raises:
        UsageError: it cannot be pickled; the message says what can be done.
    """
    problem = _find_problem(value, pickle.dumps)
    if problem is None:
        return value
    if not can_pickle_by_value():
        raise UsageError(
            f"{what} cannot be pickled ({problem}): it refers to something that no module has by "
            "that name, such as a lambda or what a function defines. Define it at the top of a "
            'module; or pip install "pandas-amr[pickle]", which pickles it by value.'
        )
    return Packed(dump_by_value(value, what))


def dump_by_value(value: object, what: str) -> bytes:
    """Pickle a value for another process, with what scripts and functions define in it.

    Args:
        value: the value.
        what: names it for people.

    Raises:
        UsageError: it cannot be pickled; the message says what can be done.
    """
    by_value = _find_cloudpickle()
    assert by_value is not None  # Dask, which sends to other processes, brings it along
    dumped: list[bytes] = []
    problem = _find_problem(value, by_value, dumped)
    if problem is not None:
        raise UsageError(
            f"{what} cannot be pickled ({problem}): it holds what no other process can have, such "
            "as an open file, a connection or a lock. Open such things where they are used."
        )
    return dumped[0]


def unpack(value: object) -> Any:
    """Return a value that ``pack`` gave as it was before."""
    return pickle.loads(value.data) if isinstance(value, Packed) else value  # noqa: S301 (a part of the pickle that is being read)


def _find_problem(
    value: object, dump: Callable[[Any], bytes], dumped: list[bytes] | None = None
) -> str | None:
    """Pickle a value; describe what went wrong, without the value; None if nothing did.

    Args:
        value: the value.
        dump: pickles it.
        dumped: takes the pickle.

    Raises:
        AMRError: a part of the value says itself why it cannot be pickled.
    """
    try:
        data = dump(value)
    except AMRError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever the methods of the user's objects raise)
        unpicklable = UNPICKLABLE.search(str(error))
        return type(error).__name__ if unpicklable is None else f"a {unpicklable[1]}"
    if dumped is not None:
        dumped.append(data)
    return None


def can_pickle_by_value() -> bool:
    """Tell whether a package is there that pickles by value."""
    return _find_cloudpickle() is not None


def _find_cloudpickle() -> Callable[[Any], bytes] | None:
    """Find the function that pickles by value; None if no package has it."""
    for name in (CLOUDPICKLE, *ITS_COPIES):
        module = sys.modules.get(name)
        if module is not None:
            return module.dumps  # type: ignore[no-any-return]
    try:
        import cloudpickle  # noqa: PLC0415 (not required)
    except ImportError:
        return None
    return cloudpickle.dumps  # type: ignore[no-any-return]


class CopiedHere:
    """What ``copy`` copies as it is: its functions and clients are shared, none of them is pickled.

    Python would copy it as a pickle does.
    """

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy: what it holds is not changed by anybody."""
        del memo
        return self.__copy__()


def refuse_pickling(what: str, way: str) -> Callable[..., NoReturn]:
    """Make the method with which objects of this process refuse to be pickled and copied.

    Args:
        what: names them, for people.
        way: says what to take instead.
    """

    @functools.wraps(object.__reduce_ex__)
    def refuse(self: object, protocol: int, /) -> NoReturn:
        del self, protocol
        raise UsageError(f"{what} cannot be pickled or copied: it belongs to this process. {way}")

    return refuse
