"""Convert Arrow types to Spark types: what a finding's field becomes as a column there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql.types import StructType


def find_spark_schema(frame: object) -> StructType:
    """Return the schema of a Spark frame; a schema is returned as it is.

    Raises:
        UsageError: it is neither.
    """
    kinds = [kind for kind in type(frame).__mro__ if kind.__module__.startswith("pyspark.sql.")]
    names = {kind.__name__ for kind in kinds}
    if "StructType" in names:
        return frame
    if "DataFrame" in names:
        return frame.schema  # type: ignore[attr-defined]  # of a class that is not imported here
    advice = ""
    if type(frame).__module__.startswith("pyspark.pandas."):
        advice = " For this one: x.to_spark()."
    raise UsageError(
        "spark_schema() takes a Spark DataFrame or the schema of one, not "
        f"{type(frame).__name__}.{advice}"
    )


def add_arrow_fields(schema: StructType, fields: Sequence[pa.Field]) -> StructType:
    """Return a Spark schema with further columns; a time without a zone stays one without."""
    from pyspark.sql.pandas import types  # noqa: PLC0415 (whoever has a Spark frame has it)

    added = types.from_arrow_schema(pa.schema(fields), prefer_timestamp_ntz=True)
    return type(schema)([*schema, *added])
