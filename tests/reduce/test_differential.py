"""Whatever is asked of whatever frame: the answer is what Python itself computes over the truth, or the call is refused.

The oracle knows nothing of pandas: it counts, adds and groups plain Python values. A scripted model tells the truth. A
call is refused before its first request, or its answer is right. ``AMR_EXAMPLES=10000`` makes a very long run of it.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import statistics
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import create_model

import pandas_amr as amr
from examples import examples
from pandas_amr.testing import ScriptedServer, Status, findings

# What a finding may hold: the type, and the values that it takes
FIELDS: dict[str, tuple[Any, list[Any]]] = {
    "n": (int, [0, 1, 2, 5, -3, 2**62 + 1]),
    "o": (int | None, [None, 1, 4]),
    "x": (float, [0.5, 1.25, -2.0, 3.0]),
    "b": (bool, [True, False]),
    "c": (["red", "blue", "green"], ["red", "blue"]),
    "m": ([1, 2, "many"], [1, 2, "many"]),
    "k": ([0, 0.5, 1], [0, 0.5, 1]),
    "t": (str, ["good", "bad", "a b"]),
    "d": (dt.date, [dt.date(2026, 1, 2), dt.date(2025, 12, 31)]),
    "p": (Decimal, [Decimal("1.50"), Decimal(2), Decimal("-0.25")]),
    "l": (list[str], [[], ["a"], ["a", "b"], ["b", "b"]]),
}
NUMBERS = {"n", "o", "x", "p", "price"}
SUMMED = NUMBERS | {"b", "items_count"}
HOWS = [
    "count",
    "sum",
    "mean",
    "median",
    "min",
    "max",
    "nunique",
    "value_counts",
    "share",
    "std",
    "mode",
    "any",
    "first",
]
MUST_WORK = {  # what nobody may refuse
    **{how: {"n", "o", "x"} for how in ("sum", "mean", "median", "min", "max", "std")},
    **{how: set(FIELDS) - {"l"} for how in ("count", "nunique")},
    "value_counts": {"c", "m", "k", "b", "n", "t", "l"},
    "share": {"c", "m", "t", "l"},
}
SHOPS = {
    "object": pd.Series(["x", "y", None], dtype=object),
    "str": pd.Series(["x", "y", None]),
    "string": pd.Series(["x", "y", None], dtype="string"),
    "category": pd.Series(pd.Categorical(["x", "y", None], categories=["y", "x", "never"])),
    "int": pd.Series([1, 2, 1]),
    "Int64": pd.Series([1, 2, None], dtype="Int64"),
    "float": pd.Series([1.5, 2.0, np.nan]),
    "bool": pd.Series([True, False, True]),
    "time": pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02", None])),
    "arrow": pd.Series(["x", "y", None], dtype="string[pyarrow]"),
}
PRICES = {
    "int": pd.Series([3, 1, 2]),
    "float": pd.Series([1.5, np.nan, -2.0]),
    "Int64": pd.Series([3, None, 2**62 + 1], dtype="Int64"),
    "arrow": pd.Series([3, None, 5], dtype="int64[pyarrow]"),
    "mixed": pd.Series([1, "a", None], dtype=object),
    "text": pd.Series(["a", "b", None], dtype=object),
}


def index_of(kind: str, rows: int) -> pd.Index:
    """Labels of every kind."""
    match kind:
        case "doubled":
            return pd.Index([n // 2 for n in range(rows)])
        case "shuffled":
            return pd.Index(np.random.default_rng(rows).permutation(rows))
        case "text":
            return pd.Index([f"l{n}" for n in range(rows)], dtype=object)
        case "named like a column":
            return pd.RangeIndex(rows, name="shop")
        case "levels":
            return pd.MultiIndex.from_tuples([(n % 2, f"l{n}") for n in range(rows)], names=["shop", None])
        case "missing":
            return pd.Index([None if n == 1 else float(n) for n in range(rows)], dtype=float)
        case "dates":
            return pd.date_range("2026-01-01", periods=rows)
    return pd.RangeIndex(5, 5 + 2 * rows, 2)


INDEXES = ["range", "doubled", "shuffled", "text", "named like a column", "levels", "missing", "dates"]


@st.composite
def questions(draw) -> dict[str, Any]:
    """A frame, the truth about each of its rows, and what is asked."""
    rows = draw(st.integers(0, 7))
    names = draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=3, unique=True))
    truth = [{name: draw(st.sampled_from(FIELDS[name][1])) for name in names} for _ in range(rows)]
    many = draw(st.booleans()) and draw(st.booleans())
    if many:  # none or many records a unit
        truth = [{"items": [record] * draw(st.integers(0, 2))} for record in truth]
    columns = [*names, "price", *(["items_count"] if many else [])]
    hows = draw(
        st.dictionaries(
            st.sampled_from(columns), st.sampled_from(HOWS) | st.sampled_from(HOWS[:9]), min_size=1, max_size=2
        )
    )
    by = draw(st.sampled_from([None, None, "shop", ["shop"], ["shop", names[0]], names[0]]))
    options = draw(st.sampled_from([{}, {}, {"sort": False}, {"dropna": False}, {"observed": False}]))
    return {
        "rows": rows,
        "names": names,
        "truth": truth,
        "many": many,
        "hows": hows,
        "by": by,
        "options": options if by is not None else {},  # of amr.By
        "as_series": draw(st.booleans()) and draw(st.booleans()),  # by= gives the frame's column, not its label
        "renamed": draw(st.booleans()) and draw(st.booleans()),  # the aggregations are named ones
        "where": "b" if "b" in names and draw(st.booleans()) else None,
        "shop": draw(st.sampled_from(list(SHOPS))),
        "price": draw(st.sampled_from(list(PRICES))),
        "index": draw(st.sampled_from(INDEXES)),
        "failed": draw(st.sets(st.integers(0, rows - 1), max_size=2)) if rows else set(),
        "output": draw(st.sampled_from([None, None, None, int, float, str])),
        "shard_size": draw(st.integers(1, 8)),
        "levels": draw(st.integers(0, 5)) == 0,
    }


def plain(value: Any) -> Any:
    """A value of pandas' as plain Python has it; whatever is missing is None."""
    if isinstance(value, np.generic):
        value = value.item()
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp | dt.datetime):
        return value.isoformat()
    return value


def same(one: Any, other: Any) -> bool:
    one, other = plain(one), plain(other)
    if isinstance(one, bool) or isinstance(other, bool):
        return one == other
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    if isinstance(one, int | float | Decimal) and isinstance(other, int | float | Decimal):
        return math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-9)
    return one == other


OF_ANY = {  # of any number of values, none among them
    "count": len,
    "nunique": lambda values: len({str(value) for value in values}),
    "sum": sum,
    "value_counts": Counter,
    "share": lambda values: {value: count / len(values) for value, count in Counter(values).items()},
    "any": any,
}
OF_SOME = {
    "mean": lambda values: sum(map(float, values)) / len(values),
    "median": lambda values: statistics.median(map(float, values)),
    "std": lambda values: statistics.stdev(map(float, values)) if len(values) > 1 else None,
    "first": lambda values: values[0],
    "min": min,
    "max": max,
}


def aggregated(values: list[Any], how: str) -> Any:
    """What a person would compute of values, missing ones aside; a Counter or shares for tables."""
    there = [value for value in values if value is not None]
    if how in {"value_counts", "share", "nunique"} and there and isinstance(there[0], list):
        there = [item for value in there for item in value]
    if how in OF_ANY:
        return OF_ANY[how](there)
    return OF_SOME[how](there) if there else None


def rows_of(asked: dict[str, Any], df: pd.DataFrame) -> tuple[list[dict], list[dict]]:
    """The rows that are reduced, as the oracle sees them: units, and records, each with its unit's place."""
    units: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    shop, price = ("shop", "price") if not asked["levels"] else (("shop", ""), ("price", ""))
    for place, said in enumerate(asked["truth"]):
        own = {"place": place, "shop": plain(df[shop].iloc[place]), "price": plain(df[price].iloc[place])}
        failed = place in asked["failed"]
        listed = said["items"] if asked["many"] else [said]
        missing = dict.fromkeys(asked["names"])
        units.append(own | {"items_count": None if failed else len(listed)} | (missing if failed else {}))
        if asked["many"] and failed:
            continue
        records += [own | (missing if failed else record) for record in listed]
    if asked["where"]:
        records = [record for record in records if record.get("b") is True]
    return units, records


def expected_of(asked: dict[str, Any], df: pd.DataFrame, name: str, how: str) -> dict[Any, Any]:
    """What is to come of one aggregation, by group; without groups the only one is called None."""
    units, records = rows_of(asked, df)
    by = asked["by"] if isinstance(asked["by"], list) or asked["by"] is None else [asked["by"]]
    chosen = asked["where"] or (by and set(by) - {"shop"})
    counted = _each_unit_once(records, units, by) if chosen else units
    own = {"price", "items_count"} if asked["many"] else set()  # a unit's own: each unit counts once
    rows = counted if name in own else records
    if by is None:
        return {None: aggregated([row[name] for row in rows], how)}
    groups: dict[Any, list[Any]] = {}
    for row in [*records, *(counted if own & set(asked["hows"]) else [])]:  # one answer has the groups of all its parts
        groups.setdefault(tuple(row[key] for key in by), [])
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row[name])
    dropped = asked["options"].get("dropna", True)
    return {key: aggregated(values, how) for key, values in groups.items() if not (dropped and None in key)}


def _each_unit_once(records: list[dict], units: list[dict], by: list[str] | None) -> list[dict]:
    seen: dict[Any, dict] = {}
    for record in records:
        own = units[record["place"]]
        seen.setdefault(
            (record["place"], *(record[key] for key in by or ())), record | {"items_count": own["items_count"]}
        )
    return list(seen.values())


def json_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: json_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [json_of(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def text_of(unit: dict[str, Any]) -> str:
    """A unit's text; where columns have two levels, its key has both."""
    return unit["text" if "text" in unit else "text."]


@pytest.fixture(scope="module")
def model():
    """A model that tells the truth about the rows of the example at hand."""
    known: dict[str, Any] = {}

    def provider(request):
        if any(text_of(unit) in known["failed"] for unit in request.units):
            return Status(400, "no")
        return findings(request, lambda unit: known["truth"][text_of(unit)])

    with ScriptedServer(provider) as server:
        yield known, server


@settings(max_examples=examples(500))
@given(asked=questions())
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning", "ignore:.*[Dd]egrees of freedom:RuntimeWarning")
def test_the_answer_is_what_python_computes_over_the_truth_or_the_call_is_refused(asked, model):
    known, server = model
    rows, many = asked["rows"], asked["many"]
    texts = [f"row {place}" for place in range(rows)]
    known["truth"] = {text: json_of(said) for text, said in zip(texts, asked["truth"], strict=True)}
    known["failed"] = {texts[place] for place in asked["failed"]}
    repeated = np.arange(rows) % 3
    df = pd.DataFrame(
        {
            "text": pd.Series(texts, dtype=object),
            "shop": SHOPS[asked["shop"]].iloc[repeated].reset_index(drop=True),
            "price": PRICES[asked["price"]].iloc[repeated].reset_index(drop=True),
        }
    )
    df.index = index_of(asked["index"], rows)
    finding: Any = {name: FIELDS[name][0] for name in asked["names"]}
    if many:
        types = {
            name: (amr.Plan(finding={name: FIELDS[name][0]}).finding.model_fields[name].annotation, ...)
            for name in finding
        }
        finding = list[create_model("Item", **types)]
    if asked["levels"]:
        df.columns = pd.MultiIndex.from_tuples([(name, "") for name in df.columns])
    hows = {("price", "") if asked["levels"] and name == "price" else name: how for name, how in asked["hows"].items()}
    by = asked["by"]
    if asked["levels"] and by is not None:
        by = [("shop", "") if key == "shop" else key for key in ([by] if isinstance(by, str) else by)]
    if asked["renamed"]:
        hows = {f"r{place}": (name, how) for place, (name, how) in enumerate(hows.items())}
    if by is not None and (asked["options"] or asked["as_series"]):
        keys = [df[key] if asked["as_series"] and key in df.columns else key for key in _as_list(by)]
        by = amr.By(*keys, **asked["options"])
    before, server.requests[:] = df.copy(), []
    try:
        result = df.amr.map_reduce(
            map="What?",
            finding=finding,
            columns=[df.columns[0]],
            reduce=hows,
            by=by,
            output=asked["output"],
            plan={"shard_size": asked["shard_size"]} | ({"where": asked["where"]} if asked["where"] else {}),
            lm=server.lm(),
            progress=False,
        )
    except (amr.UsageError, amr.PlanError) as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        event("refused")
        assert (server.requests, may_be_refused(asked)) == ([], True), refused
        return
    event("computed")
    pd.testing.assert_frame_equal(df, before)
    check_answer(result.output, asked, df, hows)


def may_be_refused(asked: dict[str, Any]) -> bool:
    """Whether a question is not one of those that must be answered: of a type of its own, or by lists, or of odd types."""
    plainly = all(name in MUST_WORK.get(how, ()) for name, how in asked["hows"].items())
    by = asked["by"] if isinstance(asked["by"], list) else [asked["by"]]
    # pandas cannot group by a label of two levels beside another key if all categories are to be groups
    unnamed = asked["levels"] and len(by) > 1 and asked["options"].get("observed") is False
    return not plainly or asked["output"] is not None or "l" in by or unnamed


def _as_list(by: Any) -> list[Any]:
    return by if isinstance(by, list) else [by]


def check_answer(output: Any, asked: dict[str, Any], df: pd.DataFrame, hows: dict[Any, Any]) -> None:
    """Compare what came of the call with what Python computes."""
    for label, (name, how) in zip(hows, asked["hows"].items(), strict=True):
        summed = name in SUMMED and not (name == "price" and asked["price"] in {"text", "mixed"})
        if how == "mode" or (how in {"sum", "mean", "median", "std"} and not summed):
            continue  # of several values none is the right one; and what is the sum of texts, or the mean of dates?
        expected = expected_of(asked, df, name, how)
        if asked["by"] is None:
            value = output if asked["output"] is not None else output[label]
            check_value(value, expected[None], how)
        for key, wanted in expected.items() if asked["by"] is not None else ():
            row = _row_of(output, key)
            if how in {"value_counts", "share"}:
                for value, count in wanted.items():
                    assert same(row[_column_of(row, label, value)], count), (label, key, value)
            else:
                check_value(row[label], wanted, how)
        if asked["by"] is not None and asked["options"].get("observed", True):
            assert len(output) == len(expected)


def _column_of(row: pd.Series, label: Any, value: Any) -> str:
    """The column of how often a value stands in a group; a number is written as its column's type writes it."""
    told = {str(one).removeprefix(f"{label}_"): one for one in row.index if str(one).startswith(f"{label}_")}
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return told[str(plain(value))]
    return next(
        one for text, one in told.items() if re.fullmatch(r"-?[\d.]+(E-?\d+)?", text) and Decimal(text) == value
    )


def _row_of(output: pd.DataFrame, key: tuple[Any, ...]) -> pd.Series:
    """The row of a group."""
    for place, label in enumerate(output.index):
        labels = label if isinstance(label, tuple) else (label,)
        if all(same(one, other) for one, other in zip(labels, key, strict=True)):
            # Not by its row at once: pandas would make floats of whole numbers beside fractions.
            return pd.Series([output.iloc[place, column] for column in range(output.shape[1])], output.columns, object)
    raise AssertionError(f"there is no group {key}: {list(output.index)}")


def check_value(value: Any, wanted: Any, how: str) -> None:
    if how in {"value_counts", "share"}:
        told = {plain(key): plain(count) for key, count in value.items() if plain(count)}
        assert told.keys() == wanted.keys(), (told, wanted)
        assert all(same(told[key], count) for key, count in wanted.items())
    else:
        assert same(value, wanted), (value, wanted)


# A number that an agent chooses how to compute

ORDER = {"<": lambda one, other: one < other, ">=": lambda one, other: one >= other}
COMPARED = {"=": lambda one, other: one == other, "!=": lambda one, other: one != other} | ORDER
WITH = {  # a value that a condition on a field compares it with
    "mood": "good",
    "stars": 3,
    "late": True,
    "part": 3.0,
    "kind": "a",
    "size": 4,
    "text": "row 3",
    "shop": "x",
    "price": 4,
    "large": 2**60 + 3,
}
NUMERIC = {"stars", "part", "size", "price", "large"}
OF_A_UNIT = ["text", "shop", "price", "large"]
FOUND = {"mood": ["good", "bad", "mixed"], "stars": int, "late": bool, "part": float | None}
CHOSEN_OF_SOME = {
    "mean": lambda values: sum(values) / len(values),
    "median": statistics.median,
    "min": min,
    "max": max,
}


@st.composite
def choices(draw) -> dict[str, Any]:
    """What an agent says of how a number is computed, of which rows."""
    many, whole, rows = draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 8))
    own = ["kind", "size"] if many else list(FOUND)
    function = draw(
        st.sampled_from(
            ["count", "nunique", "sum", "min", "max", *([] if whole else ["mean", "median", "share", "percent"])]
        )
    )
    of = [*own, *OF_A_UNIT]
    if function in {"count", "share", "percent"}:
        of = [None, *of]
    elif function != "nunique":
        of = [name for name in of if name in NUMERIC and not (whole and name in {"part", "price"})]
    conditions = []
    for name in draw(
        st.lists(st.sampled_from([*own, *OF_A_UNIT]), min_size=int(function in {"share", "percent"}), max_size=2)
    ):
        comparison = draw(st.sampled_from(["=", "!=", "is missing", *(ORDER if name in NUMERIC else ())]))
        value = None if comparison == "is missing" else WITH[name]
        conditions.append({"field": name, "comparison": comparison, "value": value})
    return {
        "many": many,
        "output": int if whole else float,
        "choice": {"function": function, "field": draw(st.sampled_from(of)), "condition": conditions or None},
        "by": draw(st.sampled_from([None, None, "shop", own[0]])),
        "where": "late" if not many and draw(st.booleans()) else None,
        "rows": rows,
        "failed": draw(st.sets(st.integers(0, rows - 1), max_size=2)),
    }


def found_of(place: int, *, many: bool) -> Any:
    """What a truthful model finds in a row."""
    if many:
        return {"items": [{"kind": "ab"[one % 2], "size": place} for one in range(place % 3)]}
    part = None if place % 2 else place * 1.5
    return {"mood": ["good", "bad"][place % 4 % 2], "stars": place % 5, "late": place > 2, "part": part}


def meets(row: dict[str, Any], conditions: list[dict[str, Any]] | None) -> bool:
    for one in conditions or ():
        value = row[one["field"]]
        if one["comparison"] == "is missing":
            if value is not None:
                return False
        elif value is None or not COMPARED[one["comparison"]](value, one["value"]):
            return False
    return True


def number_of(asked: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """What a person would compute as the agent said, of a group's rows."""
    function, field, conditions = (asked["choice"][name] for name in ("function", "field", "condition"))
    if asked["many"] and field in OF_A_UNIT:  # each unit once; it meets a condition if one of its records does
        units: dict[int, dict[str, Any]] = {}
        for row in rows:
            if row["place"] not in units or (meets(row, conditions) and not meets(units[row["place"]], conditions)):
                units[row["place"]] = row
        rows = list(units.values())
    there = [row for row in rows if field is None or row[field] is not None]
    met = [row for row in there if meets(row, conditions)]
    if function == "count":
        return len(met)
    if function in {"share", "percent"}:
        return {"share": 1, "percent": 100}[function] * len(met) / len(there) if there else None
    values = [row[field] for row in met]
    if function in {"nunique", "sum"}:
        return len(set(values)) if function == "nunique" else sum(values)
    return CHOSEN_OF_SOME[function](values) if values else None


@settings(max_examples=examples(500))
@given(asked=choices())
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_number_is_what_python_computes_as_an_agent_chose_it(asked, choosing):
    known, server = choosing
    known |= asked
    rows = asked["rows"]
    places = range(rows)
    df = pd.DataFrame(
        {
            "text": [f"row {place}" for place in places],
            "shop": pd.Series(["x", "y", None, "y", "x", "y", None, "y"][:rows], dtype=object),
            "price": [None if place == 2 else place + 0.5 * (place % 2) for place in places],
            "large": [2**60 + place for place in places],
        }
    )
    listed = list[create_model("Item", kind=(str, ...), size=(int, ...))]
    result = df.amr.map_reduce(
        map="What?",
        finding=listed if asked["many"] else FOUND,
        columns=["text"],
        reduce="How many?",
        output=asked["output"],
        by=asked["by"],
        plan={"where": asked["where"]} if asked["where"] else {},
        lm=server.lm(),
        progress=False,
    )
    records = []
    for place in places:
        found = found_of(place, many=asked["many"])
        own = {name: plain(df[name].iloc[place]) for name in OF_A_UNIT} | {"place": place}
        if place not in asked["failed"]:
            records += [own | record for record in (found["items"] if asked["many"] else [found])]
    records = [row for row in records if asked["where"] is None or row[asked["where"]]]
    if asked["by"] is None:
        assert same(result.output, number_of(asked, records)), result.output
        return
    for key in {row[asked["by"]] for row in records} - {None}:
        wanted = number_of(asked, [row for row in records if row[asked["by"]] == key])
        assert same(result.output.iloc[:, 0][key], wanted), (key, wanted, result.output)


@pytest.fixture(scope="module")
def choosing():
    """A model that tells the truth of rows, and says of a number how it is computed."""
    known: dict[str, Any] = {}

    def place_of(unit: dict[str, Any]) -> int:
        return int(unit["text"].split()[1])

    def provider(request):
        if request.schema == "reduction":
            return {"output": known["choice"], "sources": []}
        if any(place_of(unit) in known["failed"] for unit in request.units):
            return Status(400, "no")
        return findings(request, lambda unit: found_of(place_of(unit), many=known["many"]))

    with ScriptedServer(provider) as server:
        yield known, server
