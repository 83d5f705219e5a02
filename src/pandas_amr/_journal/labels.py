"""What ``Journal.forget(where=)`` names: answers by their kind, model, run, time or words."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, get_args

from pandas_amr._journal.database import Kind
from pandas_amr._journal.entries import decode
from pandas_amr._records.refused import show_refused
from pandas_amr._records.suggest import did_you_mean
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

    from pandas_amr._journal.transcript_file import TranscriptLabels

KINDS: tuple[str, ...] = get_args(Kind)
TAKES: Mapping[str, str] = {
    "kind": "'finding', 'reduction', 'plan' or 'correction'",
    "model": "the name of a model",
    "run": "the number of a run, as runs() has it",
    "before": "a date or a time",
    "after": "a date or a time",
    "text": "a text",
    "key": "a key, as export() has it",
}
SYNONYMS: Mapping[str, str] = {
    "older_than": "before",
    "until": "before",
    "since": "after",
    "newer_than": "after",
    "lm": "model",
    "runs": "run",
    "contains": "text",
    "id": "key",
}
SQL: Mapping[str, str] = {"before": "made < ?", "after": "made >= ?"}


@dataclass(frozen=True, slots=True)
class Labels:
    """The answers for which all of these hold; of each, one of the values.

    Attributes:
        values: for each name its values, times as seconds, keys as bytes.
    """

    values: Mapping[str, tuple[Any, ...]]

    def find_keys(self, database: sqlite3.Connection) -> set[bytes]:
        """Find the keys of the answers."""
        conditions: list[str] = ["1"]
        values: list[Any] = []
        for name in ("kind", "run", "key"):
            if name in self.values:
                marks = ",".join("?" * len(self.values[name]))
                conditions.append(f"{name} IN ({marks})")
                values += self.values[name]
        for name, condition in SQL.items():
            if name in self.values:
                conditions.append(condition)
                values += self.values[name]
        query = "SELECT key, value, input, about FROM entries LEFT JOIN bases USING (base) WHERE "
        rows = database.execute(query + " AND ".join(conditions), values)
        return {key for key, *texts in rows if self._fits(*texts)}

    def _fits(self, value: str, text: str | None, about: str | None) -> bool:
        """Tell whether an answer is of one of the models, and holds one of the texts."""
        if "model" in self.values:
            asked = decode(about) if about is not None else None
            named = asked if isinstance(asked, dict) else {}
            if not {named.get("model"), named.get("journal_as")}.intersection(self.values["model"]):
                return False
        return "text" not in self.values or self._holds_text(value, text, about)

    def _holds_text(self, *places: str | None) -> bool:
        """Tell whether one of the texts stands in some places, whatever the case of letters."""
        shown = "\n".join(f"{place}\n{_plain(place)}" for place in places if place).casefold()
        return any(text.casefold() in shown for text in self.values["text"])

    def fit_transcript(self, labels: TranscriptLabels) -> bool:
        """Tell whether all of these hold for a node's transcript, by itself.

        What is known of answers only, their model and key, names no transcript by itself.
        """
        if {"model", "key"}.intersection(self.values):
            return False
        known: dict[str, object] = {"kind": labels.kind, "run": labels.run}
        for name, value in known.items():
            if name in self.values and value not in self.values[name]:
                return False
        if "before" in self.values and labels.made >= self.values["before"][0]:
            return False
        if "after" in self.values and labels.made < self.values["after"][0]:
            return False
        return "text" not in self.values or self._holds_text(labels.content)

    def remove_tasks(self, database: sqlite3.Connection) -> int:
        """Remove the tasks of runs that hold one of the texts; return how many."""
        if "text" not in self.values:
            return 0
        rows = database.execute("SELECT run, task FROM runs WHERE task IS NOT NULL").fetchall()
        runs = [(run,) for run, task in rows if self._holds_text(task)]
        database.executemany("UPDATE runs SET task = NULL WHERE run = ?", runs)
        return len(runs)


def _plain(text: str) -> str:
    """Return the texts in JSON as they are read: without escapes, a line each."""
    lines: list[str] = []
    rest = [decode(text)]
    while rest:
        value = rest.pop()
        if isinstance(value, Mapping):
            rest += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            rest += value
        elif value is not None:
            lines.append(value if isinstance(value, str) else json.dumps(value))
    return "\n".join(lines)


def read_labels(where: object) -> Labels:
    """Read ``where=``.

    Raises:
        UsageError: it names nothing, something unknown, or a value that does not fit.
    """
    if not isinstance(where, Mapping) or not where:
        raise UsageError(
            f"forget(where=) takes a dict with one or more of {', '.join(TAKES)}, "
            f"not {show_refused(where)}."
        )
    values: dict[str, tuple[Any, ...]] = {}
    for name, given in where.items():
        if name not in TAKES:
            suggestion = did_you_mean(name, TAKES, synonyms=SYNONYMS)
            raise UsageError(
                f"Unknown name {name!r} in forget(where=).{suggestion} It takes {', '.join(TAKES)}."
            )
        is_one = name in SQL or isinstance(given, str | bytes) or not isinstance(given, Iterable)
        parts = ([given] if is_one else list(given)) or [given]  # no value does not fit either
        values[name] = tuple(_read_value(name, part) for part in parts)
    return Labels(values)


def _read_value(name: str, value: object) -> Any:
    """Read a value of one name.

    Raises:
        UsageError: it does not fit.
    """
    read: Any = None
    if name in SQL:
        read = _read_time(value)
    elif name == "run":
        read = _read_number(value)
    elif isinstance(value, str) and value.strip():
        read = _read_key(value) if name == "key" else value
    if read is None or (name == "kind" and read not in KINDS):
        several = "" if name in SQL else ", or several"
        raise UsageError(
            f"forget(where={{{name!r}: ...}}) takes {TAKES[name]}{several}, "
            f"not {show_refused(value)}."
        )
    return read


def _read_number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    return int(value) if 0 <= int(value) < 2**63 else None


def _read_key(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _read_time(value: Any) -> float | None:
    """Convert a moment to seconds; one without a zone is in UTC, as those of ``export`` are."""
    import pandas as pd  # noqa: PLC0415 (a journal can be used without a frame)

    if not isinstance(value, str | dt.date) and type(value).__name__ != "datetime64":
        return None
    try:
        moment: Any = pd.Timestamp(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment is pd.NaT:
        return None
    seconds: float = (moment.tz_localize("UTC") if moment.tz is None else moment).timestamp()
    return seconds
