"""What a mistake costs: its message, the seconds until it is shown, the requests that were sent, the lines of traceback.

Each mistake is a script of its own, as a user would write it, against a server on loopback that answers as a model does
(or as the mistake needs it). Prints a Markdown table.

    python benchmarks/mistakes.py [a word of the mistakes to try]
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pandas_amr.testing import Raw, ScriptedRequest, ScriptedServer, Status, findings

if TYPE_CHECKING:
    from collections.abc import Callable

# Prints the seconds from the first line of the mistake to the moment at which Python shows it.
BEFORE = """
import os, sys, time
import pandas as pd
import pandas_amr as amr
df = pd.DataFrame({"shop": ["a", "b"] * 50, "text": [f"row {number}" for number in range(100)]})
def show(kind, error, trace, usual=sys.excepthook, begin=time.monotonic()):
    print(f"seconds {time.monotonic() - begin:.1f}", flush=True)
    usual(kind, error, trace)
sys.excepthook = show
"""
AFTER = """
print("no error")
"""


def answer(request: ScriptedRequest) -> object:
    """Answer as a model does."""
    if request.schema == "reduction":
        return {"output": "many", "sources": [0]}
    return findings(request, lambda _: {"kind": "bug", "size": 1, "finding": "fine", "amr_keep": True})


def answer_other_fields(request: ScriptedRequest) -> object:
    """Answer in fields that nobody asked for."""
    return findings(request, lambda _: {"verdict": "fine"})


class Always(NamedTuple):
    """A server that always gives one answer."""

    answer: object

    def __call__(self, _: ScriptedRequest) -> object:
        return self.answer


refuse_key = Always(Status(401, "Incorrect API key provided"))
know_no_model = Always(Status(404, "The model `gtp-5` does not exist"))
refuse_all = Always(Status(400, "content_filter: the content was filtered"))
have_no_credit = Always(Status(429, "You exceeded your current quota (insufficient_quota)"))
show_a_page = Always(Raw(body="<html>welcome</html>"))


class Mistake(NamedTuple):
    """A mistake: its code, and how the server answers."""

    name: str
    code: str
    server: Callable[[ScriptedRequest], object] = answer


ASK = 'df.amr.map("Which kind?", finding={"kind": ["bug", "wish"]}'
MISTAKES = (
    Mistake("a keyword, mistyped", 'df.amr.map("Which kind?", colums=["text"])'),
    Mistake("another library's keyword", 'df.amr.map("Which kind?", model="gpt-5")'),
    Mistake("a verb, mistyped", 'df.amr.mapp("Which kind?")'),
    Mistake("nothing asked", "df.amr.map_reduce()"),
    Mistake("an empty instruction", 'df.amr.map("")'),
    Mistake("a number as instruction", "df.amr.map(3)"),
    Mistake("a column, mistyped", f'{ASK}, columns=["txt"])'),
    Mistake(
        "a group, mistyped",
        'df.amr.map_reduce(map="How big?", finding={"size": int}, reduce={"size": "mean"}, by="shpo")',
    ),
    Mistake("a type by another name", 'df.amr.map("How big?", finding={"size": "integer"})'),
    Mistake("a list as finding", 'df.amr.map("Which kind?", finding=["bug", "wish"])'),
    Mistake("a type that no column holds", 'df.amr.map("How big?", finding={"size": int | str})'),
    Mistake("an instance as finding", 'df.amr.map("How big?", finding={"size": 3})'),
    Mistake("an empty finding", 'df.amr.map("How big?", finding={})'),
    Mistake("a field named as a column", 'df.amr.map("Which?", finding={"text": str})'),
    Mistake(
        "an aggregation by another name",
        'df.amr.map_reduce(map="How big?", finding={"size": int}, reduce={"size": "avg"})',
    ),
    Mistake(
        "an aggregation of a field that is not found",
        'df.amr.map_reduce(map="How big?", finding={"size": int}, reduce={"sise": "mean"})',
    ),
    Mistake("a mean of texts", 'df.amr.map_reduce(map="Which?", finding={"kind": str}, reduce={"kind": "mean"})'),
    Mistake("an output by name", 'df.amr.reduce("How many?", output="int")'),
    Mistake("an axis by another name", f'{ASK}, axis="cols")'),
    Mistake("errors by another name", f'{ASK}, errors="ignore")'),
    Mistake("a plan's field, mistyped", f'{ASK}, plan={{"shardsize": 5}})'),
    Mistake("a plan's field out of range", f'{ASK}, plan={{"shard_size": 0}})'),
    Mistake("a plan that is not there", 'df.amr.map_reduce(plan="missing.json")'),
    Mistake("a function of a row as map", 'df.amr.map(lambda row: row["text"].upper(), finding={"kind": str})'),
    Mistake("a function that gives too few", 'df.amr.map(lambda shard: ["a"], finding={"kind": str})'),
    Mistake("a function that raises", 'df.amr.map(lambda shard: shard["nothing"], finding={"kind": str})'),
    Mistake(
        "a reducer that raises",
        'df.amr.map_reduce(map="Which?", finding={"kind": str}, reduce=lambda found: found["nothing"])',
    ),
    Mistake("a text as tool", f'{ASK}, tools=["python"])'),
    Mistake("a function without types as tool", f"{ASK}, tools=[lambda x: x])"),
    Mistake("a class as tool", f"{ASK}, tools=[amr.PythonREPLTool])"),
    Mistake("a number as model", f"{ASK}, lm=5)"),
    Mistake("a parameter of LM, mistyped", 'amr.LM("gpt-5", basurl="http://localhost:8000/v1")'),
    Mistake("a setting, mistyped", "amr.configure(modle='gpt-5')"),
    Mistake("a number as budget", f"{ASK}, budget=5)"),
    Mistake("a budget's limit, mistyped", "amr.Budget(mony=5)"),
    Mistake("a budget below zero", "amr.Budget(money=-1)"),
    Mistake("a budget that is too small", f"{ASK}, budget=amr.Budget(tokens=10), errors='raise')"),
    Mistake("a journal where nothing can be written", f'{ASK}, journal="/proc/nothing/journal.db")'),
    Mistake("no parallelism", f"{ASK}, max_parallelism=0)"),
    Mistake("two columns of one name", 'pd.concat([df, df[["text"]]], axis=1).amr.map("Which kind?")'),
    Mistake("await on a verb", f"import asyncio\nasync def main():\n    await {ASK})\nasyncio.run(main())"),
    Mistake("a name of a result, mistyped", f"amr.result_of({ASK})).finding"),
    Mistake("no key for a host that needs one", f'{ASK}, lm=amr.LM("gpt-5", base_url="https://api.openai.com/v1"))'),
    Mistake("an address without http", f'{ASK}, lm=amr.LM("gpt-5", base_url="localhost:8000/v1"))'),
    Mistake("an address without /v1", f'{ASK}, lm=amr.LM("gpt-5", base_url=os.environ["OPENAI_BASE_URL"][:-3]))'),
    Mistake(
        "an address with the whole path",
        f'{ASK}, lm=amr.LM("m", base_url=os.environ["OPENAI_BASE_URL"] + "/chat/completions"))',
    ),
    Mistake(
        "https where http is spoken",
        f'{ASK}, lm=amr.LM("m", base_url=os.environ["OPENAI_BASE_URL"].replace("http", "https")))',
    ),
    Mistake("a port where nobody listens", f'{ASK}, lm=amr.LM("gpt-5", base_url="http://127.0.0.1:CLOSED/v1"))'),
    Mistake("a host that is not there", f'{ASK}, lm=amr.LM("gpt-5", base_url="http://no-such-host.invalid/v1"))'),
    Mistake("a wrong key", f"{ASK})", refuse_key),
    Mistake("a model that is not there", f'{ASK}, lm="gtp-5")', know_no_model),
    Mistake("a web page in place of an API", f"{ASK})", show_a_page),
    Mistake("no credit", f"{ASK})", have_no_credit),
    Mistake("a model that answers other fields", f'{ASK}, errors="raise")', answer_other_fields),
    Mistake("a provider that refuses every row", f'{ASK}, errors="raise")', refuse_all),
    Mistake("a task for a model that cannot plan", 'df.amr.map_reduce("Which kinds recur?", lm="local")'),
    Mistake(
        "Ctrl-C",
        f"import signal, threading\nthreading.Timer(2, os.kill, [os.getpid(), signal.SIGINT]).start()\n{ASK}, plan={{'shard_size': 1}}, max_parallelism=1)",
    ),
)


def main() -> None:
    """Try the mistakes whose names hold the word, or all."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    print("| mistake | message | seconds | requests | lines |\n| --- | --- | --- | --- | --- |")
    for mistake in MISTAKES:
        if word in mistake.name:
            print(row_of(mistake), flush=True)


def row_of(mistake: Mistake) -> str:
    """Make a mistake, and write its row of the table."""
    with ScriptedServer(mistake.server, latency_s=0.05) as server, tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "mistake.py"
        script.write_text(BEFORE + mistake.code.replace("CLOSED", str(closed_port())) + AFTER, encoding="utf-8")
        settings = {
            "AMR_MODEL": "scripted",
            "OPENAI_BASE_URL": server.base_url,
            "AMR_JOURNAL": str(Path(folder) / "journal.db"),
        }
        clean = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
        done = subprocess.run(
            [sys.executable, str(script)],
            env=clean | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=folder,
        )
        seconds = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds")]
        shown = [line for line in done.stderr.splitlines() if "%|" not in line]
        return f"| {mistake.name} | {message_of(shown)} | {seconds[0] if seconds else '-'} | {len(server.requests)} | {len(shown)} |"


def message_of(shown: list[str]) -> str:
    """The message that a traceback ends with, on one line."""
    heads = [number for number, line in enumerate(shown) if not line.startswith((" ", "Traceback")) and ":" in line]
    if not heads:
        return " ".join(shown) or "none"
    return " ".join(" ".join(shown[heads[0] :]).split()).replace("|", "\\|")


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main()
