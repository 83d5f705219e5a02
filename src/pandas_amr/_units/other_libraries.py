"""Frames of libraries that are not converted here: in parts on many machines, or on a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pandas_amr.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Library:
    """A library whose frames are refused.

    Attributes:
        name: what people call it.
        methods: the methods that collect a frame, of its several kinds of frames; or an expression.
        parts: the call that runs a mapper on each part, if there is one.
    """

    name: str
    methods: tuple[str, ...]
    parts: str = ""


SPARK_CALL = "mapInArrow(mapper.batches, mapper.spark_schema(x))"
DASK_CALL = "map_partitions(mapper, meta=mapper.meta(x._meta))"
# By the package in which the class of a frame is defined.
LIBRARIES = {
    "pyspark": _Library("Spark", ("toPandas", "to_pandas"), SPARK_CALL),
    "databricks.koalas": _Library("Spark", ("toPandas", "to_pandas"), SPARK_CALL),
    "dask": _Library("Dask", ("compute",), DASK_CALL),
    "dask_expr": _Library("Dask", ("compute",), DASK_CALL),
    "dask_cudf": _Library("Dask", ("compute",), DASK_CALL),
    "distributed": _Library("Dask", ("result",)),
    "modin": _Library("Modin", ("modin.to_pandas", "_to_pandas")),
    "ray": _Library("Ray", ("to_pandas",), "map_batches(mapper, batch_format='pyarrow')"),
    "cudf": _Library("cuDF", ("to_pandas",)),
    "vaex": _Library("Vaex", ("to_pandas_df",)),
    "daft": _Library("Daft", ("to_pandas",)),
    "snowflake.snowpark": _Library("Snowpark", ("to_pandas",)),
    "bigframes": _Library("BigQuery DataFrames", ("to_pandas",)),
    "xarray": _Library("xarray", ("to_dataframe",)),
    "h2o": _Library("H2O", ("as_data_frame",)),
}
# That give a frame which is taken, of libraries that are not named above.
CONVERTERS = ("to_pandas", "toPandas", "to_arrow", "to_pyarrow", "to_table", "to_dataframe", "df")


def refuse_other_library(data: object) -> None:
    """Refuse the frame of another library by its name, without importing the library.

    Raises:
        UsageError: it is one; the message says how to go on.
    """
    library = _find_library(data)
    if library is not None:
        raise UsageError(_write_refusal(library, data))


def describe_parts(data: object) -> str:
    """Say how a mapper runs on the parts of another library's frame ``x``; empty if unknown."""
    library = _find_library(data)
    return f"x.{library.parts}" if library is not None and library.parts else ""


def _find_library(data: object) -> _Library | None:
    for kind in type(data).__mro__:
        for package, library in LIBRARIES.items():
            if f"{kind.__module__}.".startswith(f"{package}."):
                return library
    return None


def _write_refusal(library: _Library, data: object) -> str:
    name = type(data).__name__
    method = _first_method(data, library.methods) or library.methods[0]
    ways = f"pass x.{method}() if it fits into memory"
    parts = describe_parts(data)
    if parts:
        ways += f", or map each part by amr.mapper(...): {parts}"
    return f"This is a {name} of {library.name}, which is not collected here: {ways}."


def _first_method(data: object, methods: tuple[str, ...]) -> str | None:
    """Return the first of some methods that an object's class has; nothing is called."""
    for method in methods:
        if hasattr(type(data), method.partition(".")[0]):
            return method
    return None


def describe_refused(data: object) -> str:
    """Say how to make a frame of what is none, if that can be guessed; an empty text if not."""
    if isinstance(data, type):
        return ""
    files = "A table is read by pandas (pd.read_csv(path)), documents by amr.read_files(path)."
    if isinstance(data, str | bytes):
        return f" One text is one row: [text]. {files}"
    if isinstance(data, os.PathLike):
        return f" {files}"
    if hasattr(type(data), "amr"):  # grouped by pandas
        return " Groups have verbs of their own: df.groupby(...).amr.map_reduce(...)."
    method = _first_method(data, CONVERTERS)
    interchange = ""
    if hasattr(data, "__dataframe__"):
        interchange = " The interchange protocol (__dataframe__) loses types, and is not read."
    if method is not None:
        return f"{interchange} Pass x.{method}()."
    if interchange:
        return f"{interchange} Convert it to pandas or Arrow by its own methods."
    if isinstance(data, Iterator | AbstractSet | Sequence | ValuesView):
        return " Pass list(x)."
    return ""
