"""The result of a run over a Dask frame: its frame is lazy, all else is here."""

from __future__ import annotations

import html
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import pandas as pd

from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.usage import describe_spend
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
        positions = np.asarray(find_positions(self.sources, item, group, column), dtype=np.int64)
        frame: Any = self.frame
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        parts: list[pd.DataFrame] = []
        for number in np.unique(numbers).tolist():
            inside = positions[numbers == number] - self.starts[number]
            parts.append(frame.partitions[number].compute().iloc[inside])
        order = np.argsort(np.argsort(numbers, kind="stable"), kind="stable")
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
        failed = 0 if self.status is None else int((self.status["status"] == "failed").sum())
        partitions = counted(len(self.starts) - 1, "partition")
        shown = [f"{counted_of(rows - failed, rows, 'row')} in {partitions}"]
        shown += [counted(self.total.calls, "call"), describe_spend(self.total)]
        shown += [f"{failed} failed"] if failed else []
        shown += [f"stopped: {self.stopped.partition('. ')[0]}"] if self.stopped else []
        return f"<Result {', '.join(filter(None, shown))}>"

    def _repr_html_(self) -> str:
        """Show the line alone: the rows would have to be read."""
        return f"<pre>{html.escape(repr(self))}</pre>"


def as_dask_result(result: Result[Any, Any], frame: Any, starts: Sequence[int]) -> DaskResult:
    """Make the result of a run over a Dask frame of what all results hold."""
    values = {each.name: vars(result)[each.name] for each in fields(result)}
    values |= {"frame": frame, "origin": None}
    return DaskResult(**values, starts=tuple(starts))
