"""Whatever the frame and whatever the answers: every finding on its own row, or listed as failed; never elsewhere."""

from __future__ import annotations

import json
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pandas_amr as amr
from examples import examples
from pandas_amr.testing import Raw, ScriptedServer, findings

CORRUPTIONS = (
    "none",
    "shuffled",
    "missing",
    "doubled",
    "extra",
    "shifted",
    "mistyped",
    "truncated",
    "fenced",
    "schema echo",
    "words",
    "renamed",
    "empty",
)


def value_of(unit: dict) -> dict:
    """A finding that says which row it is about, whatever number the unit has in its shard."""
    return {"n": int(unit["text"].split()[1])}


def corrupted(answer: dict, kind: str, rng: random.Random):  # noqa: C901 (one case a kind)
    told = list(answer["findings"])
    match kind:
        case "shuffled":
            rng.shuffle(told)
        case "missing":
            told = told[: rng.randrange(len(told) + 1)]
        case "doubled":
            told.append({**rng.choice(told), "n": -1})
        case "extra":
            told.append({"unit": len(told) + rng.randrange(50), "n": -1})
        case "shifted":
            told = [{**one, "unit": one["unit"] + 1} for one in told]
        case "mistyped":
            told[rng.randrange(len(told))]["n"] = rng.choice(["many", None, [1], {"a": 1}, 1.5, ""])
        case "truncated":
            text = json.dumps({"findings": told})
            return Raw(text[: rng.randrange(1, len(text))], finish_reason=rng.choice(["length", "stop"]))
        case "fenced":
            return Raw("```json\n" + json.dumps({"findings": told}) + "\n```")
        case "schema echo":
            return {"type": "object", "properties": {"findings": {"type": "array", "items": {"type": "object"}}}}
        case "words":
            return Raw("Here are the findings you asked for.")
        case "renamed":
            return {"results": told}
        case "empty":
            return Raw("")
    return {"findings": told}


INDEXES = st.sampled_from(["range", "shuffled", "duplicated", "multi", "text", "float"])


def index_of(kind: str, rows: int) -> pd.Index:
    match kind:
        case "shuffled":
            return pd.Index(np.random.default_rng(rows).permutation(rows))
        case "duplicated":
            return pd.Index([n % 3 for n in range(rows)])
        case "multi":
            return pd.MultiIndex.from_tuples([(n % 2, "same") for n in range(rows)]) if rows else pd.RangeIndex(0)
        case "text":
            return pd.Index([f"l{n // 2}" for n in range(rows)], dtype=object)
        case "float":
            return pd.Index([n / 7 for n in range(rows)], dtype=float)
    return pd.RangeIndex(rows)


@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.integers(0, 30),
    index=INDEXES,
    shard_size=st.integers(1, 31),
    repairs=st.integers(0, 2),
    kinds=st.lists(st.sampled_from(CORRUPTIONS), min_size=1, max_size=8),
    repeat=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_any_frame_any_corruption_any_shard_size(rows, index, shard_size, repairs, kinds, repeat, seed):
    rng = random.Random(seed)
    texts = [f"row {n // repeat}" for n in range(rows)]
    rng.shuffle(texts)
    df = pd.DataFrame({"text": pd.Series(texts, dtype=object).array}, index=index_of(index, rows))
    before = df.copy(deep=True)

    def provider(request):
        answer = findings(request, value_of)
        listed = answer if "findings" in answer else {"findings": [{"unit": 0, **answer}]}  # of one unit it is flat
        return corrupted(listed, rng.choice(kinds), rng) if listed["findings"] else answer

    with ScriptedServer(provider) as server:
        options = {"finding": {"n": int}, "lm": server.lm(), "plan": {"shard_size": shard_size, "max_repairs": repairs}}
        result = amr.map_reduce(df, map="Which?", reduce={"n": "count"}, max_parallelism=3, **options)
    pd.testing.assert_frame_equal(df, before)
    failed = set(result.failures["position"])
    for position, (text, found) in enumerate(zip(texts, result.frame["n"], strict=True)):
        if position in failed:
            assert found is pd.NA
        else:
            assert found == int(text.split()[1])
    assert result.frame.index.equals(df.index)
    statuses = result.status["status"].tolist()
    assert [status == "failed" for status in statuses] == [position in failed for position in range(rows)]


@pytest.mark.long
def test_10_000_rows_with_5_per_cent_corrupted_answers_0_wrong_0_lost():
    rng = random.Random(7)
    df = pd.DataFrame({"text": [f"row {n}" for n in range(10_000)]}).sample(frac=1, random_state=1)

    def provider(request):
        answer = findings(request, value_of)
        return corrupted(answer, rng.choice(CORRUPTIONS[1:]), rng) if rng.random() < 0.05 else answer

    with ScriptedServer(provider) as server:
        result = df.amr.map_reduce(
            map="Which?", finding={"n": int}, reduce={"n": "sum"}, max_parallelism=16, lm=server.lm()
        )
    wrong = (result.frame["n"] != df["text"].str[4:].astype(int)).sum()
    assert (wrong, len(result.failures), result.frame["n"].isna().sum()) == (0, 0, 0)
    assert result.output["n"] == sum(range(10_000))
