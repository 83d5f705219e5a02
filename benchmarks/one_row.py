"""Milliseconds of one row on a warm process: asked, answered by the journal, and by a plain ``AsyncOpenAI`` call.

The scripted server answers at once, in a process of its own; the ways take turns in one run, and medians are told. What
a call takes beyond the plain one is this library's own time. Aim: under 1.5 of the plain call, and under 5 ms of one's
own. The plain client is used as people use it: made once, on one loop, with the default transport.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import openai
import pandas as pd

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

TURNS = 200
WARM_UP = 20
SCHEMA = {
    "type": "object",
    "properties": {"findings": {"type": "array", "items": {"type": "object"}}},
    "required": ["findings"],
}


def provider(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def serve(pipe) -> None:
    with ScriptedServer(provider) as server:
        pipe.send(server.base_url)
        pipe.recv()


async def plain(client: openai.AsyncOpenAI, number: int) -> int:
    line = json.dumps({"unit": 0, "text": f"row {number}"})
    answer = await client.chat.completions.create(
        model="m",
        messages=[
            {"role": "system", "content": "Find the number." * 20},
            {"role": "user", "content": f"```units\n{line}\n```"},
        ],
        response_format={"type": "json_schema", "json_schema": {"name": "findings", "schema": SCHEMA}},
    )
    return json.loads(answer.choices[0].message.content)["findings"][0]["n"]


def ours(df: pd.DataFrame, lm: amr.LM, journal: Path | bool) -> int:
    frame = df.amr.map("Find the number.", finding={"n": int}, lm=lm, journal=journal, progress=False)
    return int(frame["n"].iloc[0])


def _run(runner: asyncio.Runner, client: openai.AsyncOpenAI, number: int) -> int:
    return runner.run(plain(client, number))


def took_ms(work, number: int) -> float:
    began = time.perf_counter()
    found = work()
    took = (time.perf_counter() - began) * 1e3
    assert found == number
    return took


def measure(url: str, folder: Path) -> None:
    lm = amr.LM("m", base_url=url, api_key="k")
    client = openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0)
    journal = folder / "journal.sqlite"
    ways: dict[str, list[float]] = {"plain": [], "asked": [], "kept": [], "recalled": []}
    with asyncio.Runner() as runner:
        for number in range(WARM_UP + TURNS):
            df = pd.DataFrame({"text": [f"row {number}"]})
            calls = {
                "plain": partial(_run, runner, client, number),
                "asked": partial(ours, df, lm, False),
                "kept": partial(ours, df, lm, journal),
                "recalled": partial(ours, df, lm, journal),
            }
            for name, call in calls.items():
                ways[name].append(took_ms(call, number))
        runner.run(client.close())
    told = {name: statistics.median(times[WARM_UP:]) for name, times in ways.items()}
    words = {
        "plain": "a plain AsyncOpenAI call",
        "asked": "df.amr.map of one row, no journal",
        "kept": "df.amr.map of one row, kept in a journal",
        "recalled": "df.amr.map of one row, answered by the journal",
    }
    for name, milliseconds in told.items():
        own = f", own {milliseconds - told['plain']:5.2f} ms" if name in {"asked", "kept"} else ""
        print(f"{words[name]:48} {milliseconds:6.2f} ms, ratio {milliseconds / told['plain']:.2f}{own}", flush=True)


if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        measure(here.recv(), Path(folder))
    here.send("done")
    server.join()
