"""Results whose cards and reports the tests look at, each of another kind."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr.testing import ScriptedRequest, ScriptedServer, Status, findings

PARTS = ("battery", "strap", "lid", "other")
SENTENCES = (
    "The battery died after two days, and nobody answers the phone.",
    "It is fine.",
    "The strap broke when I put it on for the first time. I want my money back.",
    "The lid leaks into my bag.",
)
TASK = "Which complaints recur, how severe is each, and what should we fix first?"
ANSWER = """## Fix the battery first

The **battery** is named most often, and its complaints are the most severe.

1. Battery: dies within days.
2. Strap: breaks at first use.

| part | severity |
|------|---------:|
| battery | 5 |
| strap | 4 |

See [the handbook](https://example.com/handbook).
"""


class Fix(BaseModel):
    part: str
    why: str
    days: int


def rows(count: int = 12) -> pd.DataFrame:
    """Reviews, with columns that are not read beside the text."""
    texts = [f"{SENTENCES[n % len(SENTENCES)]} ({n})" for n in range(count)]
    index = pd.Index([f"R-{n:03}" for n in range(count)], name="review")
    columns = {"customer": [f"customer {n}" for n in range(count)], "shop": ["north", "south"] * (count // 2)}
    return pd.DataFrame(columns | {"text": texts, "stars": [n % 5 + 1 for n in range(count)]}, index=index)


def find(unit: dict[str, Any]) -> dict[str, Any]:
    text = str(unit["text"])
    part = next((part for part in PARTS if part in text), "other")
    return {"kind": part, "severity": 5 - PARTS.index(part)}


def answer(request: ScriptedRequest) -> Any:
    if request.schema == "reduction":
        numbers = list(range(0, len(request.findings), 3))
        if "days" in str(request.body):
            items = [
                {
                    "part": "battery",
                    "why": "It dies within days, which <b>nobody</b> expects.",
                    "days": 12,
                    "sources": [0],
                },
                {"part": "strap", "why": "It breaks at first use.", "days": 3, "sources": [2]},
            ]
            return {"output": items}
        return {"output": ANSWER, "sources": numbers}
    return findings(request, find)


def refuse_some(request: ScriptedRequest) -> Any:
    """Refuse two rows by their content, and one by the service."""
    if any("(5)" in str(unit) or "(7)" in str(unit) for unit in request.units):
        return Status(400, message="The content was filtered.")
    return answer(request)


def refuse_reduce(request: ScriptedRequest) -> Any:
    if request.schema == "reduction":
        return Status(400, message="The content was filtered.")
    return findings(request, find)


MAPPED: dict[str, Any] = {
    "map": "What is complained about, and how severe is it from 1 to 5?",
    "finding": {"kind": list(PARTS), "severity": int},
    "columns": ["text"],
    "plan": {"task": TASK, "shard_size": 3},
}


def run(script: Any = answer, frame: pd.DataFrame | None = None, **options: Any) -> amr.Result:
    lm = options.pop("lm", {"prices": (1.25, 10.0)})
    with ScriptedServer(script) as server:
        given = MAPPED | options
        return (rows() if frame is None else frame).amr.map_reduce(lm=server.lm(**lm), journal=False, **given)


def recipe() -> amr.Result:
    with ScriptedServer(answer) as server:
        stages = amr.Recipe().map(MAPPED["map"], finding=MAPPED["finding"], columns=["text"])
        return stages.reduce({"severity": "mean"}, by="kind")(rows(), lm=server.lm(), journal=False)


KINDS: dict[str, Any] = {
    "text": lambda: run(reduce="What should we fix first?"),
    "scalar": lambda: run(reduce={"severity": "mean"}),
    "frame": lambda: run(reduce={"severity": ["mean", "max"], "kind": "value_counts"}, by="shop"),
    "objects": lambda: run(reduce="What should we fix first?", output=list[Fix]),
    "object": lambda: run(
        reduce=lambda found: {"worst": Fix(part="lid", why="It leaks.", days=2), "parts": list(PARTS)}
    ),
    "failures": lambda: run(refuse_some, reduce={"kind": "value_counts"}),
    "reduce failed": lambda: run(refuse_reduce, reduce="What should we fix first?"),
    "stopped": lambda: run(reduce={"kind": "value_counts"}, budget=amr.Budget(calls=2), max_parallelism=1),
    "recipe": recipe,
}


# Texts of rows and models that try to be more than text; what is left of each when it is shown harmlessly.
HOSTILE: dict[str, tuple[str, str]] = {
    "script": ("<script>window.hacked = true</script>", "<script>window.hacked = true</script>"),
    "end of a script": ("</script><script>window.hacked = true</script>", "</script><script>window.hacked = true"),
    "end of a style": ("</style><img src=x onerror='window.hacked = true'>", "</style><img src=x onerror='window"),
    "attribute": ("\"' onmouseover='window.hacked = true' style=\"position:fixed\"", "\"' onmouseover='window.hacked"),
    "comment": ("a <!-- b --> c <!-- d", "a <!-- b --> c <!-- d"),
    "section": ("]]> <![CDATA[ x", "]]> <![CDATA[ x"),
    "entities": ("&lt;b&gt; &#x202e; &amp;", "&lt;b&gt; &#x202e; &amp;"),
    "NUL": ("a\x00b", "a␀b"),
    "terminal": (
        "\x1b[31mred\x1b]8;;http://example.invalid\x07 \x9b1m",
        "␛[31mred␛]8;;http://example.invalid␇ \\x9b1m",
    ),
    "turned around": ("user\u202etxt.exe \u2066x", "user\\u202etxt.exe \\u2066x"),
    "Arabic": ("البطارية تنفد بعد يومين \u200f!", "البطارية تنفد بعد يومين"),
    "Hebrew": ("הסוללה מתה", "הסוללה מתה"),
    "emoji": ("👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪", "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪"),
    "half a character": ("half \ud800 of one", "half \\ud800 of one"),
    "no character": ("\uffff", "\\uffff"),
    "marks": ("Z" + "\u0301" * 300, "Z\u0301\u0301"),
    "megabyte": ("x" * 1_000_000, "more characters"),
    "megabyte of words": ("word " * 200_000, "more characters"),
    "line breaks": ("one\r\ntwo\rthree\u2028four\x0bfive", "one"),
    "template": ("{{7*7}} ${7*7} %s", "{{7*7}} ${7*7} %s"),
}
HOSTILE_ANSWER = """# An answer <script>window.hacked = true</script>

<img src="https://example.invalid/tracked.png" onerror="window.hacked = true">
<iframe src="https://example.invalid"></iframe> <!-- a comment

![a picture](https://example.invalid/tracked.png "title")
![another](javascript:window.hacked=true)
[click](javascript:window.hacked=true) [data](data:text/html;base64,PHNjcmlwdD4=) [file](file:///etc/passwd)
[vb](vbscript:x) [JAVA](JaVaScRiPt:window.hacked=true) [tab](java\tscript:x) [entity](javascript&#58;window.hacked=true)
[ref] [good](https://example.com/?a="><script>) <javascript:window.hacked=true> &#x202e;turned &#0; &#27;

[ref]: javascript:window.hacked=true

| a | b |
|---|---|
| <b>x</b> | `<script>` |

```html"><script>window.hacked = true</script>
</code></pre><script>window.hacked = true</script>
```
"""


def hostile_rows() -> pd.DataFrame:
    """Rows whose cells, labels and names of columns are hostile."""
    texts = [text for text, _ in HOSTILE.values()]
    index = pd.Index(texts, dtype=object, name="<i>index</i>")
    column = pd.Series(texts, dtype=object, index=index)  # Arrow holds no half of a character
    return pd.DataFrame({"text": column, "<b onclick='window.hacked = true'>name</b>": column})


def hostile(output: Any = HOSTILE_ANSWER) -> amr.Result:
    """A result in which everything that can be hostile is; no model is asked."""

    def same(shard: pd.DataFrame) -> list[dict[str, str]]:
        return [{"found": text} for text in shard["text"]]

    plan = {"task": "<script>window.hacked = true</script> \x1b[31m \u202e?"}
    return hostile_rows().amr.map_reduce(map=same, reduce=lambda found: output, plan=plan, journal=False)
