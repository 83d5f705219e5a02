"""CPU of events, trace and progress together, on 20,000 scripted calls, against all of them switched off.

One row a call, through the real client, whose transport answers in this process: without sockets, so that the share is
larger than any user sees, and nothing depends on how many answers one turn of the loop finds (over HTTP a busier loop
finds more at once, and takes less CPU a call: `--http` shows that, with the server in a process of its own). On are: a
listener (`on_event=`) that counts, progress drawn as on a terminal, the trace with what it keeps by default. Off: no
listener, no progress, and `trace="off"` where a call takes that; the nodes themselves are recorded either way then.

In pairs of runs, one with all on and one with all off, at the same time, each in a process of its own on a core of its
own, which they change with each pair: so whatever else the machine does, and how fast it is just then, falls to both. The
time of a run with the same side differs by a fifth from one minute to the next; of a pair the ratio counts, and of all
pairs their geometric mean. What counts is the CPU time of the whole process, so that of the thread that calls the
listener is in it.

`--instructions` counts what the processor is told to do instead of how long it takes, with valgrind's callgrind (which
takes 60 times as long): the same on any machine. What happens once in so many seconds (progress is drawn, events are
handed over) happens once in 60 times as many then.

`--in-turn` has the two runs of a pair one after the other, in this process: with `--calls 2000 --pairs 60` eight minutes.

Eight requests at once are what every server is sent from the beginning. With more of them, answers of one process take
so long that the throttle may take it for a queue and hold requests back: 1,664 of 2,000 waited in one run with 64, none
in the next, whichever the side, and each wait is work, too.

Aim: under 5 %. Options: `--calls 20000 --pairs 10 --connections 8`; `--otel` adds spans, which the SDK makes and throws
away (pip install opentelemetry-sdk): that is what OpenTelemetry costs, and no part of the aim.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import inspect
import io
import json
import math
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2
import openai
import pandas as pd

import pandas_amr as amr
from pandas_amr._context import delivery, progress_bars
from pandas_amr._context.delivery import Delivery
from pandas_amr._records.engine import submit
from pandas_amr._records.events import Landed
from pandas_amr._records.trace import Scope, Trace, add_to_call, use_scope
from pandas_amr._records.usage import Usage
from pandas_amr.models.base import Message, Reply, Request
from pandas_amr.models.reported import Reported
from pandas_amr.testing import ScriptedRequest, ScriptedServer, findings
from pandas_amr.testing.completions import CompletionWriter

MOST_SHARE = 0.05
SIDES = ("off", "on")
SLOWER = 60  # what runs under callgrind
PIPES = []  # to servers, which end with them


class Terminal(io.StringIO):
    """Takes what is drawn, as a terminal would."""

    def isatty(self) -> bool:
        return True


def provider(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def serve(pipe) -> None:
    with ScriptedServer(provider) as server:
        pipe.send(server.base_url)
        pipe.recv()


class InProcess(httpx2.AsyncBaseTransport):
    """Answers requests where they are sent."""

    def __init__(self) -> None:
        self._writer = CompletionWriter()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0)  # as with a socket: else one task does it all, and timers wait until the end
        scripted = ScriptedRequest(0, json.loads(request.content))
        return httpx2.Response(200, json=self._writer.write(scripted, provider(scripted)))


def client_in_process() -> openai.AsyncOpenAI:
    http = httpx2.AsyncClient(transport=InProcess())
    return openai.AsyncOpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", http_client=http)


def set_up_otel() -> None:
    """Have spans made, and thrown away."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans):  # noqa: ARG002 (the exporter's interface)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)


def run(lm: amr.LM, calls: int, connections: int, *, is_on: bool, otel: bool) -> float:
    """Run once; return the CPU seconds of this process."""
    told: Counter[type] = Counter()

    def count(event) -> None:
        told[type(event)] += 1

    options = {"map": "Find the number.", "finding": {"n": int}, "reduce": {"n": "sum"}, "lm": lm}
    options |= {"plan": {"shard_size": 1}, "max_parallelism": connections, "progress": is_on}
    if is_on:
        options["on_event"] = count
    elif "trace" in inspect.signature(amr.map_reduce).parameters:
        options["trace"] = "off"
    df = pd.DataFrame({"text": [f"row {number}" for number in range(calls)]})
    telemetry = amr.settings(telemetry=True) if is_on and otel else contextlib.nullcontext()
    with telemetry, contextlib.redirect_stderr(Terminal()):
        gc.collect()  # so that a collection of all that is loaded does not fall to one side more often
        began = time.process_time()
        result = df.amr.map_reduce(**options)
        took = time.process_time() - began
    assert result.output["n"] == sum(range(calls))
    assert told[amr.events.CallEnded] == (calls if is_on else 0)
    return took


class Answered:
    """A model that has its answer: around it stands what tells of a call."""

    reply = Reply(Message("assistant", "{}"), "stop", Usage(calls=1, tries=1), model="m", id="x")

    def check_calls(self, request) -> None:
        """Refuse nothing."""

    async def complete(self, request):  # noqa: ARG002 (the port's)
        add_to_call(self.reply.usage)
        return self.reply


async def tell(calls: int, *, is_on: bool) -> float:
    """Go through what tells of so many calls, each in a node; return the CPU seconds, the listener's among them."""
    told: list[int] = [0]

    def count(event) -> None:  # noqa: ARG001 (it counts)
        told[0] += 1

    model, request, trace = Reported(Answered(), name="m", server="http://m/v1"), Request((), "map"), Trace()
    handing_over = Delivery(count, print, trace.listeners) if is_on else None
    began = time.process_time()
    with use_scope(Scope(trace)):
        for number in range(calls):
            with trace.node("map", id=f"map-{number}", units=1):
                await model.complete(request)
            if trace.listeners:
                trace.emit(Landed(*trace.at_node(""), units=1, rows=1))
            if number % 50 == 0:
                await asyncio.sleep(0)
    if handing_over is not None:
        await handing_over.end()
        assert told[0] == 5 * calls
    return time.process_time() - began


def cost_of_events(calls: int = 4000, turns: int = 8) -> float:
    """Microseconds of CPU that the events of one call take, building and delivering: the least of some turns."""
    took = {is_on: [submit(tell(calls, is_on=is_on)).result() for _ in range(turns)] for is_on in (False, True)}
    return (min(took[True]) - min(took[False])) / calls * 1e6


def make_lm(*, over_http: bool) -> amr.LM:
    """Make the model: over loopback, with the server in a process of its own, or answered in this one."""
    if not over_http:
        return amr.LM("m", client=client_in_process(), journaled=False)
    here, there = multiprocessing.Pipe()
    PIPES.append(here)
    multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True).start()
    return amr.LM("m", base_url=here.recv(), api_key="k", journaled=False)


def run_side(given: argparse.Namespace) -> None:
    """In a process of one side: run once when told to, and print the CPU seconds that it took."""
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    if given.counted:
        delivery.HAND_OVER_S *= SLOWER
        progress_bars.TICK_S *= SLOWER
    if given.otel:
        set_up_otel()
    lm, is_on = make_lm(over_http=given.http), given.side == "on"
    run(lm, 200, given.connections, is_on=is_on, otel=given.otel)  # imports, connections, what is learned of a server
    print("ready", flush=True)
    sys.stdin.readline()
    if given.counted:
        switch_counting("on")
    took = run(lm, given.calls, given.connections, is_on=is_on, otel=given.otel)
    if given.counted:
        switch_counting("off")
    print(took, flush=True)


def switch_counting(to: str) -> None:
    subprocess.run(["callgrind_control", "-i", to, str(os.getpid())], check=True, capture_output=True)


def run_both(commands: dict[str, list[str]]) -> dict[str, float]:
    """Run the two sides at the same time; return the CPU seconds of each."""
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    running = {side: subprocess.Popen(command, **piped) for side, command in commands.items()}
    for process in running.values():
        assert process.stdout.readline() == "ready\n"
    for process in running.values():
        process.stdin.write("go\n")
        process.stdin.flush()
    took = {side: float(process.stdout.readline()) for side, process in running.items()}
    for process in running.values():
        process.communicate()
        assert process.returncode == 0
    return took


def own_command(given: argparse.Namespace, side: str) -> list[str]:
    command = [sys.executable, __file__, "--side", side]
    command += ["--calls", str(given.calls), "--connections", str(given.connections)]
    command += ["--http"] if given.http else []
    return command + (["--otel"] if given.otel else [])


def count_instructions(given: argparse.Namespace) -> tuple[int, int]:
    """Return the instructions of a run with all off, and of one with all on."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {side: Path(folder, side) for side in SIDES}
        commands = {}
        for side, path in paths.items():
            callgrind = [
                "valgrind",
                "--quiet",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={path}",
            ]
            commands[side] = [*callgrind, *own_command(given, side), "--counted"]
        run_both(commands)
        off, on = (int(re.findall(r"^totals: (\d+)", path.read_text(), re.MULTILINE)[0]) for path in paths.values())
    return off, on


def print_instructions(given: argparse.Namespace) -> None:
    off, on = (total / given.calls / 1e3 for total in count_instructions(given))
    print(f"{given.calls} calls a side; thousands of instructions a call, off and on: {off:.0f} and {on:.0f}")
    print_share(on / off - 1)


def time_at_once(given: argparse.Namespace) -> dict[str, list[float]]:
    """Run pairs at the same time; return the ms of CPU per call of each side."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(given.pairs):
        commands = {}
        for place, side in enumerate(SIDES):
            core = ["--core", str(cores[(place + number) % 2])] if len(cores) > 1 else []
            commands[side] = own_command(given, side) + core
        for side, seconds in run_both(commands).items():
            took[side].append(seconds / given.calls * 1e3)
        print_pair(took)
    return took


def time_in_turn(given: argparse.Namespace) -> dict[str, list[float]]:
    """Run pairs in this process, one run after the other; return the ms of CPU per call of each side."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if given.otel:
        set_up_otel()
    lm = make_lm(over_http=given.http)
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    for side in SIDES:
        run(lm, 200, given.connections, is_on=side == "on", otel=given.otel)
    for number in range(given.pairs):
        for side in SIDES if number % 2 else reversed(SIDES):
            seconds = run(lm, given.calls, given.connections, is_on=side == "on", otel=given.otel)
            took[side].append(seconds / given.calls * 1e3)
        print_pair(took)
    return took


def print_pair(took: dict[str, list[float]]) -> None:
    off, on = (took[side][-1] for side in SIDES)
    print(f"ms of CPU a call, off and on: {off:.3f} and {on:.3f}, ratio {on / off:.3f}", flush=True)


def print_times(given: argparse.Namespace, took: dict[str, list[float]]) -> None:
    ratios = [on / off for off, on in zip(took["off"], took["on"], strict=True)]
    off, on = (min(took[side]) for side in SIDES)
    alone = cost_of_events()
    print(
        f"{given.calls} calls a run, {given.pairs} pairs; least off and on: {off:.3f} and {on:.3f}, ratio {on / off:.3f}; "
        f"ratios of pairs: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}"
    )
    print(f"the events of a call by themselves: {alone:.0f} us, {alone / off / 1e3:.1%} of the least")
    if len(ratios) > 1:
        chance = 1.96 * statistics.stdev(map(math.log, ratios)) / math.sqrt(len(ratios))
        print(f"by chance alone the share differs by {chance:.1%} (95 of 100 times)")
    print_share(statistics.geometric_mean(ratios) - 1)


def print_share(share: float) -> None:
    print(f"share {share:.1%}, aim under {MOST_SHARE:.0%}: {'met' if share < MOST_SHARE else 'missed'}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=20_000, help="of each run")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--in-turn", action="store_true", help="one run after the other, in this process")
    parser.add_argument("--http", action="store_true", help="over loopback")
    parser.add_argument("--otel", action="store_true", help="with spans, too")
    parser.add_argument(
        "--instructions", action="store_true", help="count them, with valgrind; with --calls 2000 four minutes"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        run_side(given)
    elif given.instructions:
        print_instructions(given)
    else:
        print_times(given, time_in_turn(given) if given.in_turn else time_at_once(given))


if __name__ == "__main__":
    os.environ.setdefault("AMR_JOURNAL", "off")
    main()
