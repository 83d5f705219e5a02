"""The result of a run over a Dask frame: its frame is lazy, all else is here."""

from __future__ import annotations

import html
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import pandas as pd

from pandas_amr._records.counts import counted, counted_of
from pandas_amr._result.display import line_of_parts
from pandas_amr._result.explain import find_positions
from pandas_amr._result.parts import ResultOfParts
from pandas_amr._result.records import Kind
from pandas_amr._result.result import Output
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._result.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class DaskResult(ResultOfParts[Output, Kind]):
    """The outcome of a run over a Dask frame.

    ``frame`` is a Dask frame: its partitions are read when it is computed, and what was found of
    their rows is put beside them; nothing is asked then. ``findings``, ``status`` and ``failures``
    are in this process, with the labels of the rows.

    Attributes:
        starts: the position of each partition's first row, and how many rows there are.
    """

    starts: Sequence[int] = field(kw_only=True)
    _name: ClassVar[str] = "A result of a Dask frame"
    _ways: ClassVar[Mapping[str, str]] = {
        "retry": "make the same call again, which asks only about the rows that failed",
        "save": "write its frame, result.frame.to_parquet(...)",
    }

    def explain(
        self, item: int = 0, *, group: object = None, column: object = None
    ) -> pd.DataFrame:
        """Return the rows that an item of the output is based on; their partitions are read.

        Raises:
            UsageError: as ``Result.explain``.
        """
        cited = find_positions(self.sources, item, group, column)
        positions = np.asarray(cited, dtype=np.int64)
        frame: Any = self.frame
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        parts: list[pd.DataFrame] = []
        for number in np.unique(numbers).tolist():
            inside = positions[numbers == number] - self.starts[number]
            part = frame.partitions[number].compute()
            parts.append(part.iloc[inside])
        # They are read part by part; of each position, the place of its row among them.
        by_part = np.argsort(numbers, kind="stable")
        order = np.argsort(by_part, kind="stable")
        return pd.concat(parts).iloc[order]

    def to_html(self, *given: Any, **options: Any) -> NoReturn:
        """Refuse: it shows rows, which would all have to be read.

        Raises:
            UsageError: always.
        """
        del given, options
        self._refuse("to_html")

    def __arrow_c_stream__(self, requested_schema: object = None) -> NoReturn:
        """Refuse: the rows are not here.

        Raises:
            UsageError: always.
        """
        del requested_schema
        raise UsageError("The rows of a Dask frame are not here: pass result.frame.compute().")

    def __repr__(self) -> str:
        rows = self.starts[-1]
        failed = 0
        if self.status is not None:
            failed = int((self.status["status"] == "failed").sum())
        found = counted_of(rows - failed, rows, "row")
        partitions = counted(len(self.starts) - 1, "partition")
        return line_of_parts(f"{found} in {partitions}", self, {"failed": failed})

    def _repr_html_(self) -> str:
        """Show the line alone: the rows would have to be read."""
        return f"<pre>{html.escape(repr(self))}</pre>"


def as_dask_result(result: Result[Any, Any], frame: Any, starts: Sequence[int]) -> DaskResult:
    """Make the result of a run over a Dask frame of what all results hold."""
    own = vars(result)
    values = {each.name: own[each.name] for each in fields(result)}
    values["frame"] = frame
    values["origin"] = None
    return DaskResult(**values, starts=tuple(starts))
