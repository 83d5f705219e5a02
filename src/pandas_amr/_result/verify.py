"""Compare findings with those of a second model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._records.html import details, element, escape, root
from pandas_amr._records.public import public
from pandas_amr._result.compare import compare_columns, wilson_interval
from pandas_amr._result.tables import frame_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MOST_ROWS = 100
HEAD_ROWS = 10


@public
@dataclass(frozen=True, repr=False)
class Verification:
    """How a second model agrees with the findings on a share of the rows; no finding was changed.

    Attributes:
        agreement: one row per field: ``rows`` seen twice, ``same``, ``agreement`` with ``low`` and
            ``high`` (Wilson's 95 % interval) and ``kappa``, the agreement beyond chance (Cohen
            1960; for words and bools).
        rows: one row per field and row of the frame: ``field label position found second same``.
        failed: how many rows the second model did not answer.
        usage: what the verification used.
        model: the second model.
    """

    agreement: pd.DataFrame
    rows: pd.DataFrame
    failed: int
    usage: pd.DataFrame
    model: str

    @property
    def disagreements(self) -> pd.DataFrame:
        """The rows on which the two differ."""
        return self.rows[~self.rows["same"]]

    def __repr__(self) -> str:
        parts = []
        for name, row in self.agreement[self.agreement["rows"] > 0].iterrows():
            interval = f"{row.low:.1%} to {row.high:.1%}"
            parts.append(f"{name} {row.agreement:.1%} ({interval}) of {int(row.rows)}")
        agreement = "; ".join(parts) or "nothing was seen twice"
        return f"<Verification by {self.model}: {agreement}>"

    def _repr_html_(self) -> str:
        shown = [element("p", element("b", escape(repr(self).strip("<>"))))]
        if len(self.agreement):
            shown.append(frame_table(self.agreement.round(3), rows=MOST_ROWS))
        different = self.disagreements
        if len(different):
            summary = f"They differ in {len(different):,} values; the first {HEAD_ROWS}"
            shown.append(details(summary, frame_table(different, rows=HEAD_ROWS), is_open=True))
        return root(*shown)


def verification(
    first: pd.DataFrame,
    second: pd.DataFrame,
    seen_twice: NDArray[np.bool_],
    kinds: Mapping[str, Any],
    *,
    tolerance: float,
    failed: int,
    usage: pd.DataFrame,
    model: str,
) -> Verification:
    """Compare the columns of two frames over the rows that were seen twice.

    ``kinds`` has the type of each column.
    """
    positions = np.flatnonzero(seen_twice)
    parts: list[pd.DataFrame] = []
    figures: dict[str, dict[str, Any]] = {}
    for field, kind in kinds.items():
        rows = compare_columns(
            field,
            kind,
            first[field],
            second[field],
            positions,
            names=("second", "same"),
            tolerance=tolerance,
        )
        parts.append(rows)
        figures[field] = _agreement(rows)
    return Verification(
        agreement=pd.DataFrame.from_dict(figures, orient="index").rename_axis("field"),
        rows=pd.concat(parts, ignore_index=True),
        failed=failed,
        usage=usage,
        model=model,
    )


def _agreement(rows: pd.DataFrame) -> dict[str, Any]:
    total, equal = len(rows), int(rows["same"].sum())
    low, high = wilson_interval(equal, total)
    return {
        "rows": total,
        "same": equal,
        "agreement": equal / total if total else None,
        "low": low,
        "high": high,
        "kappa": _kappa(rows["found"].tolist(), rows["second"].tolist(), rows["same"].tolist()),
    }


def _kappa(first: list[Any], second: list[Any], same: list[bool]) -> float | None:
    """Return the agreement beyond chance; None without classes, or if chance alone agrees."""
    if not same or not all(isinstance(value, str | bool | None) for value in [*first, *second]):
        return None
    chance = float(_shares(first).mul(_shares(second), fill_value=0.0).sum())
    if chance >= 1:
        return None
    return (sum(same) / len(same) - chance) / (1 - chance)


def _shares(values: list[Any]) -> pd.Series:
    return pd.Series(values, dtype=object).map(str).value_counts(normalize=True)
