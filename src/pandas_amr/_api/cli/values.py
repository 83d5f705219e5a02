"""What the options of a command say: findings, reduces, labels, budgets, shares."""

from __future__ import annotations

import datetime as dt
import decimal
import importlib
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr._api.cli.exits import WrongUsage
from pandas_amr._records.keywords import suggest_keyword
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._records.usage import Budget
from pandas_amr._types.type_advice import TYPE_OF_NAME
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import pandas as pd

TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "date": dt.date,
    "datetime": dt.datetime,
    "time": dt.time,
    "duration": dt.timedelta,
    "decimal": decimal.Decimal,
}
TYPE_SYNONYMS = {word: name for word, name in TYPE_OF_NAME.items() if name in TYPES}
NAMED_TYPES = ", ".join(TYPES)

FIELD = re.compile(r"\s*(?P<name>\w+)\s*(?P<mark>[:=])\s*(?P<kind>.+?)\s*", re.DOTALL)
NEXT_FIELD = re.compile(r",(?=\s*\w+\s*[:=])")
CLASS = re.compile(r"(?P<list>list\[)?(?P<module>[\w.]+):(?P<name>[A-Z]\w*)(?(list)\])")
AGGREGATION = re.compile(r"\s*(?P<name>[^:,]+?):(?P<function>\w+)\s*")
LIMIT = re.compile(r"(?P<name>\w+)=(?P<amount>.*)")
SHARE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*%")
AGE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[smhdw]?)")
AGE_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks", "": "days"}

BUDGET_LIMITS = ("money", "calls", "tokens", "seconds")
BUDGET_FORM = "limits by name (calls=100,seconds=60)"
NO_KEYS = (
    "A key does not belong on a command line, where others can read it: "
    "set OPENAI_API_KEY in the environment."
)
FINDING_FORMS = (
    "name:type (severity:int), name=choice|choice (kind=bug|billing), "
    "a file with a JSON schema, or module:Class"
)


# Findings and outputs


def read_finding(values: Sequence[str]) -> Any:
    """Read ``--finding``: fields, a JSON schema, or a class; None if there is none.

    Raises:
        WrongUsage: it is none of these, or two that do not go together.
    """
    if not values:
        return None
    if len(values) == 1:
        whole = _read_whole_type(values[0], "--finding")
        if whole is not None:
            return whole
    fields: dict[str, Any] = {}
    for value in values:
        if _is_whole(value):
            raise WrongUsage(f"--finding {value!r} is the whole finding; give no other beside it.")
        for part in NEXT_FIELD.split(value):
            name, kind = _read_field(part)
            if name in fields:
                raise WrongUsage(f"--finding names the field {name!r} twice.")
            fields[name] = kind
    return fields


def _is_whole(value: str) -> bool:
    is_class = CLASS.fullmatch(value.strip()) is not None
    return is_class or value.lstrip().startswith("{") or value.lower().endswith(".json")


def _read_whole_type(value: str, option: str) -> Any:
    """Read a class or a JSON schema; None if the value is neither."""
    if not _is_whole(value):
        return None
    found = CLASS.fullmatch(value.strip())
    if found is None:
        return _read_schema(value, option)
    kind = _import_class(found["module"], found["name"], option)
    return list[kind] if found["list"] else kind  # type: ignore[valid-type]


def _read_schema(value: str, option: str) -> dict[str, Any]:
    text, source = value, option
    if not value.lstrip().startswith("{"):
        source = f"{option} {value!r}"
        try:
            text = Path(value).read_text(encoding="utf-8-sig")
        except (OSError, ValueError):
            raise WrongUsage(f"{source} cannot be read: there is no such JSON file.") from None
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise WrongUsage(f"{source} is not JSON.") from None
    if not isinstance(schema, dict):
        raise WrongUsage(f"{source} is not a JSON schema, which is an object.")
    if not {"properties", "items", "$ref"} & schema.keys():
        raise WrongUsage(
            f"{source} is not a JSON schema of an object: it has no 'properties'. "
            "Fields can also be written as severity:int."
        )
    return schema


def _import_class(module_name: str, name: str, option: str) -> Any:
    """Import a class from a module, which may stand in the working folder."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 (code of the user's)
        advice = ""
        if name.casefold() in TYPE_OF_NAME:
            advice = f" For a field: {module_name}:{_type_like(name)}."
        raise WrongUsage(
            f"{option}: the module {module_name!r} cannot be imported ({type(error).__name__})."
            f"{advice}"
        ) from None
    if not hasattr(module, name):
        classes = [other for other, value in vars(module).items() if isinstance(value, type)]
        raise WrongUsage(f"{option}: {module_name!r} has no {name!r}.{did_you_mean(name, classes)}")
    return getattr(module, name)


def _read_field(text: str) -> tuple[str, Any]:
    found = FIELD.fullmatch(text)
    if found is None:
        raise WrongUsage(f"--finding takes {FINDING_FORMS}, not {text!r}.{_advise_field(text)}")
    if found["mark"] == ":":
        return found["name"], _read_type(found["kind"], found["name"])
    choices = [choice.strip() for choice in found["kind"].split("|")]
    if len(choices) == 1:
        raise WrongUsage(
            f"--finding {text!r} has one choice. For choices: {found['name']}=a|b; "
            f"for a type: {found['name']}:{_type_like(choices[0])}."
        )
    if "" in choices or len(set(choices)) < len(choices):
        raise WrongUsage(f"--finding {text!r}: choices are texts, each once.")
    return found["name"], choices


def _type_like(word: str) -> str:
    name = word.casefold()
    return name if name in TYPES else TYPE_SYNONYMS.get(name, "str")


def _advise_field(text: str) -> str:
    word = text.strip()
    return f" For a text of this name: {word}:str." if word.isidentifier() else ""


def _read_type(text: str, field: str) -> Any:
    """Read the type of a field: ``int``, ``int?`` if it may be missing, ``list[int]``."""
    name = text.removesuffix("?").strip()
    is_list = name.startswith("list[") and name.endswith("]")
    inner = name.removeprefix("list[").removesuffix("]").strip() if is_list else name
    if inner not in TYPES:
        advice = did_you_mean(inner, TYPES, synonyms=TYPE_SYNONYMS)
        if "|" in inner:
            advice = f" For choices: {field}={inner}."
        raise WrongUsage(
            f"--finding {field}:{text} has no type: {NAMED_TYPES}, or list[...] of one.{advice}"
        )
    kind = TYPES[inner]
    if is_list:
        kind = list[kind]  # type: ignore[valid-type]
    return kind | None if text.endswith("?") else kind


def read_output(value: str | None) -> Any:
    """Read ``--output``: the name of a type, a class, or a list of one.

    Raises:
        WrongUsage: it is none of these.
    """
    if value is None:
        return None
    kind = _read_whole_type(value, "--output") if CLASS.fullmatch(value.strip()) else None
    if kind is not None:
        return kind
    if value not in TYPES:
        raise WrongUsage(
            f"--output takes {NAMED_TYPES}, module:Class or list[module:Class], not {value!r}."
            f"{did_you_mean(value, TYPES, synonyms=TYPE_SYNONYMS)}"
        )
    return TYPES[value]


# Reduces and labels


def read_reduce(values: Sequence[str]) -> str | dict[str, Any] | None:
    """Read ``--reduce``: aggregations such as ``severity:mean,kind:value_counts``, or a text.

    Raises:
        WrongUsage: texts and aggregations are mixed, or there are several texts.
    """
    if not values:
        return None
    texts = [value for value in values if not _are_aggregations(value)]
    if not texts:
        return _read_aggregations(values)
    if len(values) > 1:
        raise WrongUsage(
            "--reduce takes aggregations (severity:mean,kind:value_counts), or one text for agents."
        )
    if re.fullmatch(r"\w+", texts[0]):
        raise WrongUsage(
            f"--reduce {texts[0]!r} is a word. An aggregation names its field: "
            f"--reduce FIELD:{texts[0]}."
        )
    if re.fullmatch(r"\s*\w*\s*:\s*\w*\s*", texts[0]):
        raise WrongUsage(
            f"--reduce {texts[0]!r} lacks a field or its function: --reduce severity:mean."
        )
    return texts[0]


def _are_aggregations(value: str) -> bool:
    return all(AGGREGATION.fullmatch(part) for part in value.split(","))


def _read_aggregations(values: Sequence[str]) -> dict[str, Any]:
    """Read aggregations by field; a field that is named several times has several."""
    functions: dict[str, list[str]] = {}
    for value in values:
        for part in value.split(","):
            name, _, function = part.rpartition(":")
            functions.setdefault(name.strip(), []).append(function.strip())
    return {name: how[0] if len(how) == 1 else how for name, how in functions.items()}


def find_labels(values: Sequence[str], frame: pd.DataFrame) -> list[Hashable] | None:
    """Find the columns that an option names, in commas or one by one; None if it names none.

    A name that has no column stays as it is: it may be that of a finding.
    """
    if not values:
        return None
    by_text = {str(label): label for label in frame.columns}
    labels: list[Hashable] = []
    for value in values:
        names = [value] if value in by_text else [name.strip() for name in value.split(",")]
        for name in names:
            if not name:
                raise WrongUsage(f"{value!r} names a column without a name.")
            labels.append(by_text.get(name, name))
    return labels


# Numbers


def read_budget(value: str | None) -> Budget | None:
    """Read ``--budget``: an amount of money, or ``calls=100,tokens=1000000,seconds=60``.

    Raises:
        WrongUsage: it is neither.
    """
    if value is None:
        return None
    limits: dict[str, float] = {}
    for part in value.split(","):
        found = LIMIT.fullmatch(part.strip())
        name, amount = ("money", part) if found is None else (found["name"], found["amount"])
        if name not in BUDGET_LIMITS:
            advice = suggest_keyword(name, list(BUDGET_LIMITS), "There are")
            raise WrongUsage(f"--budget has no {name!r}. {advice}")
        number = _read_number(amount)
        if number is None:
            raise WrongUsage(
                f"--budget takes an amount of money (5), or {BUDGET_FORM}, not {value!r}."
            )
        if name in limits:
            raise WrongUsage(f"--budget names {name} twice.")
        limits[name] = int(number) if number.is_integer() and name != "money" else number
    try:
        return Budget(**limits)  # type: ignore[arg-type]
    except UsageError as error:
        raise WrongUsage(f"--budget {value!r}: {error}") from None


def _read_number(text: str) -> float | None:
    try:
        number = float(text.strip().removeprefix("$"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_prices(value: str | None) -> tuple[float, ...] | None:
    """Read ``--prices``: of a million tokens, input and output, and perhaps cached input.

    Raises:
        WrongUsage: it is something else.
    """
    if value is None:
        return None
    numbers = [_read_number(part) for part in value.split(",")]
    prices = tuple(number for number in numbers if number is not None and number >= 0)
    if len(prices) != len(numbers) or len(prices) not in {2, 3}:
        raise WrongUsage(
            "--prices takes what a million tokens cost, INPUT,OUTPUT or INPUT,OUTPUT,CACHED "
            f"(0.15,0.6), not {value!r}."
        )
    return prices


@dataclass(frozen=True)
class MostFailed:
    """How many rows may fail in a run that counts as done.

    Attributes:
        rows: so many.
        share: or this share of all.
    """

    rows: int = 0
    share: float = 0.0

    def allows(self, failed: int, rows: int) -> bool:
        """Tell whether so many of the rows may have failed."""
        return failed <= max(self.rows, self.share * rows)


def read_most_failed(value: str | None) -> MostFailed:
    """Read ``--max-failed``: a number of rows, or a share in percent.

    Raises:
        WrongUsage: it is neither.
    """
    if value is None:
        return MostFailed()
    text = value.strip()
    if text.isdecimal():
        return MostFailed(rows=int(text))
    found = SHARE.fullmatch(text)
    if found is None or float(found["number"]) > 100:
        raise WrongUsage(f"--max-failed takes a share (1%) or a number of rows (5), not {value!r}.")
    return MostFailed(share=float(found["number"]) / 100)


def read_age(value: str | None) -> dt.timedelta | None:
    """Read ``--older-than``: days, or a number with one of the units s m h d w.

    Raises:
        WrongUsage: it is neither.
    """
    if value is None:
        return None
    found = AGE.fullmatch(value.strip())
    if found is None:
        raise WrongUsage(f"--older-than takes days (30) or 90d, 12h, 2w, not {value!r}.")
    try:
        return dt.timedelta(**{AGE_UNITS[found["unit"]]: float(found["number"])})
    except OverflowError:
        raise WrongUsage(f"--older-than {value!r} is longer ago than time is counted.") from None


def has_key_in_name(option: str) -> bool:
    """Tell whether an option is named like a secret."""
    return (
        re.search(r"(key|secret|password|passwd|token|credentials?)$", option.lower()) is not None
    )
