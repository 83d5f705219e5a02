"""A result as a table: a summary by group takes the keys of its groups along, as columns."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

import pandas_amr as amr

DF = pd.DataFrame({"shop": ["a", "b", "a"], "size": pd.Categorical(["S", "L", "S"]), "n": [1, 2, 3]})


def one(shard):
    return [{"length": 2}] * len(shard)


def result_of(**options):
    return DF.amr.map_reduce(map=one, **{"reduce": {"length": "sum"}} | options)


BY = {
    "a column": ("shop", {"shop": ["a", "b"], "length": [4, 2]}),
    "two columns": (["shop", "n"], {"shop": ["a", "a", "b"], "n": [1, 3, 2], "length": [2, 2, 2]}),
    "a category": ("size", {"size": ["L", "S"], "length": [2, 4]}),
    "a function": (lambda label: label > 1, {"group": [False, True], "length": [4, 2]}),
    "a function and a column": ([lambda label: 0, "shop"], {"group_1": [0, 0], "shop": ["a", "b"], "length": [4, 2]}),
}


@pytest.mark.parametrize(("by", "columns"), BY.values(), ids=BY.keys())
def test_the_keys_of_a_summary_are_its_first_columns(by, columns):
    table = pa.table(result_of(by=by))
    assert table.to_pydict() == columns
    assert table.column_names == list(columns)


def test_several_aggregations_of_a_column_have_names_of_their_own():
    table = pa.table(result_of(by="shop", reduce={"n": ["sum", "max"]}))
    assert table.to_pydict() == {"shop": ["a", "b"], "n.sum": [4, 2], "n.max": [3, 2]}


def test_a_saved_summary_is_the_same_table(tmp_path):
    result = result_of(by="shop")
    result.save(tmp_path / "saved")
    assert pa.table(amr.load(tmp_path / "saved")).equals(pa.table(result))


def test_a_summary_whose_key_has_the_name_of_a_column_says_how_to_rename_it():
    with pytest.raises(amr.UsageError, match=r"both have the name 'n'.*result\.output\.rename_axis"):
        pa.table(result_of(by="n", reduce={"n": "sum"}))


def test_an_answer_that_is_no_summary_leaves_the_rows():
    assert pa.table(result_of()).column_names == ["shop", "size", "n", "length"]


@pytest.mark.parametrize("rows", [0, 2])
def test_a_column_of_objects_without_a_value_is_one_of_texts(rows):
    frame = pd.DataFrame({"n": range(rows), "note": pd.Series([None] * rows, dtype=object)})
    result = frame.amr.map_reduce(map=one, finding={"length": int}, reduce={"length": "sum"})
    assert pa.table(result).schema.field("note").type == pa.string()
