"""Doctests: public classes name ``pandas_amr`` as their module; what an extra lacks is left out."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
from typing import Any

import pandas_amr
from pandas_amr._records.public import PACKAGE

# Modules that import Dask: its extra is not in every environment.
collect_ignore_glob = []
if importlib.util.find_spec("distributed") is None:
    collect_ignore_glob = ["pandas_amr/dask.py", "pandas_amr/_engines/dask/*"]


class PublicFinder(doctest.DocTestFinder):
    """Finds the docstrings of a module, with those of the public classes that it defines."""

    def _from_module(self, module: Any, object: Any) -> bool:
        if inspect.isclass(object) and object.__module__ == PACKAGE:
            home = pandas_amr._HOME_OF.get(object.__name__)  # noqa: SLF001 (of this package)
            return bool(module.__name__ == f"{PACKAGE}.{home}")
        return bool(super()._from_module(module, object))  # type: ignore[misc]


doctest.DocTestFinder = PublicFinder  # type: ignore[misc]
