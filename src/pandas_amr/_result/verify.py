"""A second look at a share of the findings, and the rows most in doubt."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._result.evaluate import compared, wilson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

DOUBT = {
    "failed": 1.0,
    "skipped": 0.9,
    "disagreed": 0.8,
    "repaired": 0.5,
    "late": 0.4,
    "empty": 0.3,
    "unusual": 0.2,
}
RARE = 0.01
ENOUGH = 100  # rows, before a class is called rare or a number far off
FAR = 5.0  # median absolute deviations
LEAST_SHARD = 6  # units, before its end is looked at
LEAST_END = 3
HEADS_COUNT = 10
CHANCE = (
    0.05  # of an end of one value, if its units were as those before it; above that it is not told
)
LET_PASS = 0.5  # shards that may be told although they end so by chance
SHARE_BY_CHANCE = 0.2  # likewise, of those that are told
DOUBT_COLUMN = "amr_doubt"
WHY_COLUMN = "amr_why"


@dataclass(frozen=True, repr=False)
class Verification:
    """How a second look at a share of the rows agrees with the findings; none of them was changed.

    Attributes:
        agreement: one row a field: ``rows`` seen twice, ``same``, ``agreement`` with ``low`` and ``high`` (Wilson's
            95 % interval) and ``kappa``, what of it is more than chance (Cohen 1960; for words and bools).
        rows: one row a field and row of the frame: ``field label position found second same``.
        failed: how many rows the second look could not read.
        usage: what it took.
        model: who looked.
    """

    agreement: pd.DataFrame
    rows: pd.DataFrame
    failed: int
    usage: pd.DataFrame
    model: str

    @property
    def disagreements(self) -> pd.DataFrame:
        """The rows that were seen differently."""
        return self.rows[~self.rows["same"]]

    def __repr__(self) -> str:
        seen = self.agreement[self.agreement["rows"] > 0]
        told = [
            f"{name} {row.agreement:.1%} ({row.low:.1%} to {row.high:.1%}) of {int(row.rows)}"
            for name, row in seen.iterrows()
        ]
        return f"<Verification by {self.model}: {'; '.join(told) or 'nothing was seen twice'}>"

    def _repr_html_(self) -> str:
        tables = (self.agreement.round(3), self.disagreements.head(10))
        return "".join(table.to_html(escape=True) for table in tables if len(table))


def verification(
    first: pd.DataFrame,
    second: pd.DataFrame,
    seen: NDArray[np.bool_],
    fields: list[str],
    **about: Any,
) -> Verification:
    """Compare the columns ``fields`` of two frames of the same rows, where both have a finding and ``seen`` says so."""
    tolerance, names = about.pop("tolerance"), ("second", "same")
    listed: list[pd.DataFrame] = []
    told: dict[str, dict[str, Any]] = {}
    for field in fields:
        rows = compared(
            field,
            first[field],
            second[field],
            np.flatnonzero(seen),
            names=names,
            tolerance=tolerance,
        )
        listed.append(rows)
        agree = rows["same"].tolist()
        low, high = wilson(sum(agree), len(agree))
        told[field] = {
            "rows": len(agree),
            "same": sum(agree),
            "agreement": sum(agree) / len(agree) if agree else None,
            "low": low,
            "high": high,
            "kappa": _kappa(rows["found"].tolist(), rows["second"].tolist(), agree),
        }
    agreement = pd.DataFrame.from_dict(told, orient="index").rename_axis("field")
    return Verification(agreement, pd.concat(listed, ignore_index=True), **about)


def _kappa(found: list[Any], again: list[Any], agree: list[bool]) -> float | None:
    """Agreement beyond chance; None where values are no classes, or where chance alone would agree."""
    if not agree or not all(isinstance(one, str | bool | None) for one in [*found, *again]):
        return None
    shares = [
        pd.Series(part, dtype=object).map(str).value_counts(normalize=True)
        for part in (found, again)
    ]
    chance = float(shares[0].mul(shares[1], fill_value=0.0).sum())
    return (sum(agree) / len(agree) - chance) / (1 - chance) if chance < 1 else None


def most_in_doubt(
    frame: pd.DataFrame,
    fields: list[str],
    status: pd.DataFrame | None,
    seen_twice: Verification | None,
    most: int,
    *,
    shards: Mapping[str, Sequence[int]],
) -> pd.DataFrame:
    """The rows most in doubt first: how much, why, and the frame's columns.

    ``shards`` are the positions of the units that were read together, in their order, by what they are called.
    """
    doubt = np.zeros(len(frame))
    why: list[list[str]] = [[] for _ in range(len(frame))]

    def add(places: Any, kind: str, said: str) -> None:
        doubt[places] += DOUBT[kind]
        for place in np.atleast_1d(places).tolist():
            why[place].append(said)

    if status is not None:
        for kind in ("failed", "skipped", "repaired"):
            for place in np.flatnonzero((status["status"] == kind).to_numpy()):
                reason = status["reason"].iloc[place]
                add(place, kind, kind if pd.isna(reason) else str(reason))
    there = doubt < DOUBT["skipped"]
    if seen_twice is not None:
        for row in seen_twice.disagreements.itertuples():
            add(row.position, "disagreed", f"{row.field}: the second look says {row.second!r}")
    for field in fields:
        column = frame[field]
        add(np.flatnonzero(column.isna().to_numpy() & there), "empty", f"{field} is empty")
        add(_unusual(column, there), "unusual", f"{field} is unusual")
        for places, said in _careless_ends(column, shards):
            add(places, "late", said)
    order = np.argsort(-doubt, kind="stable")
    places = order[doubt[order] > 0][:most]
    shown = frame.iloc[places].copy()
    shown.insert(0, DOUBT_COLUMN, doubt[places])
    shown.insert(1, WHY_COLUMN, ["; ".join(why[place]) for place in places.tolist()])
    return shown


def _careless_ends(
    column: pd.Series, shards: Mapping[str, Sequence[int]]
) -> Iterator[tuple[NDArray[np.int64], str]]:
    """The ends of shards at which a field is the same throughout, each with what is told of it."""
    long_ones = {
        name: list(positions) for name, positions in shards.items() if len(positions) >= LEAST_SHARD
    }
    values = {name: column.iloc[positions].tolist() for name, positions in long_ones.items()}
    ends = {name: _varied_end(of_shard) for name, of_shard in values.items()}
    common: Counter[str] = Counter()
    for name, of_shard in values.items():
        common.update(_head_of(of_shard, ends[name]))
    chances = {name: _chance_of_end(values[name], end, common) for name, end in ends.items() if end}
    highest = _highest_told(chances.values(), tried=len(long_ones))
    for name, chance in chances.items():
        if chance > highest:
            continue
        positions, end = long_ones[name], ends[name]
        said = f"{column.name} is the same in the last {end} of the {len(positions)} units of {name}, not before"
        yield np.array(positions[-end:], dtype=np.int64), said


def _highest_told(chances: Iterable[float], *, tried: int) -> float:
    """Up to which chance ends are told: of many shards some end so by chance, and those are to be few.

    That is the procedure of Benjamini and Hochberg (1995), but that half a shard is always let pass.
    """
    highest = -1.0
    for rank, chance in enumerate(sorted(chances), 1):
        by_chance = tried * chance  # of as many shards, so many end so
        if chance <= CHANCE and by_chance <= max(LET_PASS, SHARE_BY_CHANCE * rank):
            highest = chance
    return highest


def constant_end(values: Sequence[Any]) -> int:
    """How many values at the end of a shard are one and the same, if that is no chance while those before vary; else 0.

    Models grow careless late in a long shard: their labels become one. An end counts from a third of the shard on.

    Example:
        >>> constant_end(["a", "b", "a", "c", "b", "a", "b", "b", "b", "b", "b"]), constant_end(["a"] * 10 + ["b"])
        (5, 0)
    """
    end = _varied_end(values)
    return (
        end if end and _chance_of_end(values, end, Counter(_head_of(values, end))) <= CHANCE else 0
    )


def _varied_end(values: Sequence[Any]) -> int:
    """How long the constant end of a shard is, if it is long, its head varies, and no order explains it."""
    texts = [_text_of(value) for value in values]
    end = 0
    while end < len(texts) and texts[len(texts) - 1 - end] == texts[-1]:
        end += 1
    before = texts[: len(texts) - end]
    if len(texts) < LEAST_SHARD or end < max(LEAST_END, len(texts) / 3) or len(set(before)) < 2:
        return 0
    return 0 if _is_ordered(values, before) else end


def _is_ordered(values: Sequence[Any], before: Sequence[str]) -> bool:
    """Whether a frame sorted by what is found explains a constant end: numbers rise or fall, classes are blocks.

    ``before`` are the values before the end, as texts.
    """
    if all(
        isinstance(value, int | float | dt.date) and not isinstance(value, bool) for value in values
    ):
        steps = list(itertools.pairwise(values))
        return all(one <= other for one, other in steps) or all(
            one >= other for one, other in steps
        )
    blocks = [text for text, _ in itertools.groupby(before)]
    return len(blocks) == len(set(before)) < len(before)


def _chance_of_end(values: Sequence[Any], end: int, common: Mapping[str, int]) -> float:
    """How likely a shard ends so if its end is as its head, and that as all heads, which ``common`` counts.

    The head of one shard is a small sample: those of all count as much as ``HEADS_COUNT`` more values of it.
    """
    last = _text_of(values[-1])
    head = _head_of(values, end)
    everywhere = (common.get(last, 0) + 1) / (
        sum(common.values()) + 2
    )  # Laplace: what was never seen may still come
    share = (head.count(last) + HEADS_COUNT * everywhere) / (len(head) + HEADS_COUNT)
    return float(share ** (end - 1))  # the last value may be any


def _head_of(values: Sequence[Any], end: int) -> list[str]:
    """What stands before a constant end, as texts, but for the value just before it, which is another by definition."""
    return [_text_of(value) for value in values[: len(values) - end - 1]]


def _text_of(value: Any) -> str:
    """A value as it is compared: all that is missing is the same."""
    return repr(None) if pd.api.types.is_scalar(value) and pd.isna(value) else repr(value)


def _unusual(column: pd.Series, there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where a class is rare, or a number far from the others."""
    places = np.flatnonzero(there & column.notna().to_numpy())
    values = column.iloc[places]
    none = np.array([], dtype=np.int64)
    if len(values) < ENOUGH or pd.api.types.is_bool_dtype(column):
        return none
    if pd.api.types.is_numeric_dtype(column):
        numbers = values.astype(float).to_numpy()
        distance = np.abs(numbers - np.median(numbers))
        spread = float(np.median(distance))
        return places[distance > FAR * spread] if spread else none
    if isinstance(column.dtype, pd.CategoricalDtype):
        shares = values.map(values.value_counts(normalize=True)).astype(float).to_numpy()
        return places[shares < RARE]
    return none
