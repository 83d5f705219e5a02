"""CPU of the whole path a call (prompt, throttle, client, parse, validate) against plain gather over ``AsyncOpenAI``.

One row a call, no latency, the scripted server in a process of its own; at 8, 64 and 512 connections, in turns, the
median of three. Aim: a ratio of at most 1.0, better 0.5.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import time

import openai
import pandas as pd

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

CALLS = 1500
TURNS = 3
CONNECTIONS = (8, 64, 512)
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


def plain(url: str, connections: int) -> float:
    """What people write first."""

    async def main() -> float:
        client = openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0)
        gate = asyncio.Semaphore(connections)

        async def one(number: int) -> int:
            async with gate:
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

        await one(0)
        began = time.process_time()
        found = await asyncio.gather(*(one(number) for number in range(CALLS)))
        took = time.process_time() - began
        assert sum(found) == sum(range(CALLS))
        await client.close()
        return took

    return asyncio.run(main())


def ours(url: str, connections: int) -> float:
    lm = amr.LM(f"m{connections}", base_url=url, api_key="k", journaled=False)
    options = {"map": "Find the number.", "finding": {"n": int}, "reduce": {"n": "sum"}, "lm": lm, "progress": False}
    options |= {"plan": {"shard_size": 1}, "max_parallelism": connections}
    pd.DataFrame({"text": ["row 0"]}).amr.map_reduce(**options)
    df = pd.DataFrame({"text": [f"row {number}" for number in range(CALLS)]})
    began = time.process_time()
    result = df.amr.map_reduce(**options)
    took = time.process_time() - began
    assert result.output["n"] == sum(range(CALLS))
    return took


if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = here.recv()
    for connections in CONNECTIONS:
        turns = [(plain(url, connections), ours(url, connections)) for _ in range(TURNS)]
        one, other = (statistics.median(column) / CALLS * 1e3 for column in zip(*turns, strict=True))
        print(
            f"{connections:>4} connections: gather over AsyncOpenAI {one:.2f} ms a call, ours {other:.2f} ms, "
            f"ratio {other / one:.2f}",
            flush=True,
        )
    here.send("done")
    server.join()
