"""A value that has exactly its type is quick to check: what is taken is the same."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import RootModel

from examples import examples
from pandas_amr._types.record import record_type
from pandas_amr._types.type_check import find_mistyped_field, is_mistyped


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mood(enum.StrEnum):
    RED = "red"


class Mixed(enum.Enum):
    ONE = 1
    MANY = "many"
    UNKNOWN = None


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


class Word(RootModel[str]):
    pass


SINGLE = [
    bool,
    int,
    float,
    str,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    Decimal,
    Color,
    Mood,
    Mixed,
    Access,
    Literal["red", "b"],
    Literal[0, 1],
    Literal[1, "many"],
    Literal[True, "b"],
    Literal["b", None],
    Word,
]
KINDS = [*SINGLE, *(kind | None for kind in SINGLE)]
ANYTHING = [
    *(None, True, 1, 1.0, 3, "red", "b", "many", [1], [True], ["red"], [Color.RED], {"a": 1}, {"a": "1"}, object()),
    *(np.bool_(True), np.int64(1), np.float64(1.0), Decimal(1), dt.timedelta(1), dt.time(1)),
    *(dt.date(2026, 1, 2), dt.datetime(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
    *(Color.RED, Mood.RED, Mixed.ONE, Mixed.UNKNOWN, Access.READ, Access(3), Word("red"), Word("x")),
]


@settings(max_examples=examples(1_000), deadline=None)
@given(kind=st.sampled_from(KINDS), value=st.sampled_from(ANYTHING))
def test_what_a_validator_may_give_of_a_field_is_what_it_may_give_of_an_item_of_a_list(kind, value):
    record = record_type("Record", {"x": kind}).model_construct(x=value)
    assert (find_mistyped_field(record) == "x") == is_mistyped([value], list[kind])
