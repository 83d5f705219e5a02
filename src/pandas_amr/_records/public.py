"""Mark the classes that users import from the package itself."""

from __future__ import annotations

from typing import TypeVar

PACKAGE = "pandas_amr"

AnyClass = TypeVar("AnyClass", bound=type)


def public(kind: AnyClass) -> AnyClass:
    """Name a class by its package, in tracebacks, reprs and pickles: ``pandas_amr.Plan``.

    Write it above all other decorators: they still need the module of the class.
    """
    kind.__module__ = PACKAGE
    return kind
