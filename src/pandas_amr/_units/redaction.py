"""The user's ``redact`` function: what it gives of a text is sent, and never the text itself."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._units.cells import cell, make_json_keys
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import TracebackType

Value = TypeVar("Value")

LABEL_CHARACTERS = 80
TAKES = "It takes any text of a row, and gives the text that is sent in its place."
NOT_REBUILT = (ValueError, TypeError, OverflowError, NotImplementedError, pa.ArrowException)


class _Refusal(Exception):
    """The function gave no text; the reason holds nothing of the text that it was given."""


class Redaction:
    """Applies the user's function to texts, once to each distinct text.

    The function may be slow, or run a model of its own: nothing here may be called on the engine's
    thread, unless the text is known.

    Attributes:
        function: the user's function.
        name: its name, for people and for plans.
    """

    def __init__(self, function: Callable[[str], str]) -> None:
        self.function = function
        self.name = name_of(function)
        self._known: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Redaction by {self.name}>"

    def text(self, text: str, place: str) -> str:
        """Return what is sent in place of a text.

        Args:
            text: the text.
            place: where it stands, for the error.

        Raises:
            UsageError: the function raised, or gave no text.
        """
        return self._refuse_at(place, self._redact, text)

    def known(self, text: str) -> str:
        """Return what is sent in place of a text; the text itself if it has not passed so far."""
        return self._known.get(text, text)

    def value(self, value: object, place: str) -> Any:
        """Return what is sent in place of a value: each text in it, and each number as a text.

        The value itself comes back if nothing in it changes.

        Raises:
            UsageError: the function raised, or gave no text.
        """
        return self._refuse_at(place, self._redact_cell, value)

    def _refuse_at(self, place: str, redact: Callable[[Any], Value], value: object) -> Value:
        """Redact; an error names the place and has nothing of the text, in no cause either."""
        try:
            return redact(value)
        except _Refusal as refusal:
            reason = str(refusal)
        raise self._error(reason, place)

    def values(self, values: Iterable[Any], place: str) -> list[Any]:
        """Return what is sent in place of some values."""
        return [self.value(value, place) for value in values]

    def changes_any(self, values: Iterable[Any], place: str) -> bool:
        """Tell whether another value is sent in place of one of these."""
        return any(self.value(value, place) is not value for value in values)

    def column(self, values: pd.Series, index: pd.Index | None = None) -> pd.Series:
        """Return what is sent in place of a column; the column itself if nothing in it changes.

        Args:
            values: the column.
            index: the labels of its rows, for the error; default: the column's own.

        Raises:
            UsageError: the function raised, or gave no text. The message names the row.
        """
        if index is None:
            index = values.index
        if pd.api.types.is_bool_dtype(values.dtype):
            return values
        if isinstance(values.dtype, pd.CategoricalDtype):
            return self._redact_categories(values)
        if _has_plain_numbers(values.dtype) and not self._changes_any(values):
            return values
        cells = values.tolist()
        redacted: list[Any] = []
        for value in cells:
            try:
                redacted.append(self._redact_cell(value))
            except _Refusal as refusal:
                reason = str(refusal)
                break
        else:
            if _are_same(redacted, cells):
                return values
            return _rebuild(values, redacted)
        row = self._describe_row(index, len(redacted))
        raise self._error(reason, f"{row}, column {values.name!r}")

    def frame(
        self, frame: pd.DataFrame, columns: Collection[int] | None = None, *, has_index: bool
    ) -> pd.DataFrame:
        """Return what is sent in place of a frame: the same rows and names of columns.

        Args:
            frame: the frame.
            columns: the positions of the columns that can be sent; of the others no value is in
                what comes back. Default: all columns.
            has_index: whether the labels of the rows can be sent, too.

        Raises:
            UsageError: the function raised, or gave no text. The message names the row.
        """
        if not len(frame.columns):
            return frame
        parts: dict[int, pd.Series] = {}
        for number in range(len(frame.columns)):
            values = frame.iloc[:, number]
            if columns is None or number in columns:
                parts[number] = self.column(values)
            else:
                parts[number] = pd.Series(None, index=values.index, dtype=object)
        redacted = pd.DataFrame(parts, index=frame.index, copy=False)
        redacted = redacted.set_axis(frame.columns, axis=1)
        if has_index:
            index = self._redact_index(frame.index)
            redacted = redacted.set_axis(index, axis=0)
        return redacted

    def _error(self, reason: str, place: str) -> UsageError:
        """Make the error: with neither the text nor the words of the function's exception."""
        return UsageError(f"redact={self.name} {reason}: {place}. {TAKES}")

    def _redact(self, text: str) -> str:
        plain = str.__str__(text)  # of a subclass, such as a choice of an Enum, the text alone
        if not plain:
            return plain
        known = self._known.get(plain)
        if known is None:
            known = self._call(plain)
            self._known[plain] = plain if known == plain else known
        return self._known[plain]

    def _call(self, text: str) -> str:
        try:
            given: Any = self.function(text)
        except Exception as error:  # noqa: BLE001 (the function is the user's; its words may quote)
            where = _last_line(error.__traceback__)
            reason = f"raised {type(error).__name__}{where}"
        else:
            if isinstance(given, str):
                return str.__str__(given)
            reason = f"gave {type(given).__name__}, not a text"
        raise _Refusal(reason)

    def _redact_cell(self, value: object) -> Any:
        """Redact a cell; the cell itself comes back if nothing in it changes."""
        if isinstance(value, str):
            redacted = self._redact(value)
            return value if redacted == value else redacted
        plain = cell(value)
        redacted = self._redact_plain(plain)
        return value if redacted == plain else redacted

    def _redact_plain(self, value: object) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, list):
            return [self._redact_plain(part) for part in value]
        if isinstance(value, dict):
            names = [self._redact(name) for name in value]
            parts = [self._redact_plain(part) for part in value.values()]
            return dict(zip(make_json_keys(names, taken=()), parts, strict=True))
        shown = json.dumps(value)
        redacted = self._redact(shown)
        return value if redacted == shown else redacted

    def _changes_any(self, values: pd.Series) -> bool:
        """Tell whether a value of a column of numbers or dates changes, from its distinct ones."""
        for value in values.drop_duplicates().tolist():
            try:
                if self._redact_cell(value) is not value:
                    return True
            except _Refusal:
                return True  # the row that is to be named is found cell by cell
        return False

    def _redact_categories(self, values: pd.Series) -> pd.Series:
        """Redact the categories of a column; those that become equal become one."""
        categories = values.cat.categories.tolist()
        redacted: list[Any] = []
        for category in categories:
            try:
                redacted.append(self._redact_cell(category))
            except _Refusal as refusal:
                reason = str(refusal)
                break
        else:
            if _are_same(redacted, categories):
                return values
            return _recode(values, redacted)
        raise self._error(reason, f"a category of the column {values.name!r}")

    def _redact_index(self, index: pd.Index) -> pd.Index:
        if isinstance(index, pd.RangeIndex):
            return index
        levels: list[Any] = []
        is_same = True
        for number in range(index.nlevels):
            level = index.get_level_values(number)
            values = pd.Series(level, index=pd.RangeIndex(len(level)), name="the index")
            redacted = self.column(values)
            if redacted is values:
                levels.append(level)
            else:
                is_same = False
                levels.append(pd.Index(redacted.array, dtype=redacted.dtype))
        if is_same:
            return index
        if index.nlevels == 1:
            single: pd.Index = levels[0].rename(index.name)
            return single
        return pd.MultiIndex.from_arrays(levels, names=index.names)

    def _describe_row(self, index: pd.Index, row: int) -> str:
        """Name a row by its position, and by its label as that would be sent, if it has one."""
        if isinstance(index, pd.RangeIndex):
            return f"row {row}"
        try:
            label = self._redact(str(cell(index[row])))
        except _Refusal:
            return f"row {row}"
        return f"row {row} (label {label[:LABEL_CHARACTERS]!r})"


class KnownRedaction(Redaction):
    """Redacts values as another one has done; those that are new, as a dry run's, it leaves.

    A text as a whole, such as an instruction, passes the function.
    """

    def __init__(self, redaction: Redaction) -> None:
        super().__init__(redaction.function)
        self._redaction = redaction

    def text(self, text: str, place: str) -> str:
        """Return what is sent in place of a text."""
        return self._redaction.text(text, place)

    def _redact(self, text: str) -> str:
        return self._redaction.known(str.__str__(text))


def make_text_redaction(redaction: Redaction | None, place: str) -> Callable[[str], str] | None:
    """Return what redacts texts that stand at one place; None if nothing is redacted."""
    if redaction is None:
        return None
    return partial(redaction.text, place=place)


def name_of(function: Callable[..., Any]) -> str:
    """Name a function of the user's.

    Example:
        >>> from functools import partial
        >>> name_of(str.upper), name_of(partial(len))
        ('upper', 'len')
    """
    inner = getattr(function, "func", function)  # of a functools.partial
    name = getattr(inner, "__name__", None)
    if isinstance(name, str):
        return name
    return type(inner).__name__


def _last_line(trace: TracebackType | None) -> str:
    """Say in which line an exception was raised."""
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = Path(trace.tb_frame.f_code.co_filename).name
    return f" ({file}, line {trace.tb_lineno})"


def _has_plain_numbers(dtype: Any) -> bool:
    return pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_datetime64_any_dtype(dtype)


def _are_same(new: list[Any], old: list[Any]) -> bool:
    """Tell whether nothing has changed: values that do not change come back themselves."""
    return all(one is other for one, other in zip(new, old, strict=True))


def _rebuild(values: pd.Series, cells: list[Any]) -> pd.Series:
    """Put other cells into a column; of another type if the column's own does not hold them."""
    if isinstance(values.dtype, pd.StringDtype | pd.ArrowDtype):
        try:
            return pd.Series(cells, index=values.index, name=values.name, dtype=values.dtype)
        except NOT_REBUILT:
            pass
    return pd.Series(cells, index=values.index, name=values.name, dtype=object)


def _recode(values: pd.Series, redacted: list[Any]) -> pd.Series:
    """Replace the categories of a column, in their order."""
    distinct = list(dict.fromkeys(redacted))
    places = np.array([distinct.index(category) for category in redacted], dtype=np.int64)
    codes = values.cat.codes.to_numpy()
    if len(places):
        codes = np.where(codes < 0, -1, places[codes])
    categories = pd.Index(distinct, dtype=object)
    array = pd.Categorical.from_codes(codes, categories=categories, ordered=values.cat.ordered)
    return pd.Series(array, index=values.index, name=values.name)
