"""Mark the classes that users import from the package itself."""

from __future__ import annotations

from typing import TypeVar

from pandas_amr._records.tracebacks import user_tracebacks

PACKAGE = "pandas_amr"

AnyClass = TypeVar("AnyClass", bound=type)


def public(kind: AnyClass) -> AnyClass:
    """Name a class by its package, in tracebacks, reprs and pickles: ``pandas_amr.Plan``.

    What its methods raise shows the user's line and none of ours. Write it above all other
    decorators: they still need the module of the class.
    """
    kind.__module__ = PACKAGE
    return user_tracebacks(kind)
