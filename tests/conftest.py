"""What several tests share."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

import pandas_amr as amr
from pandas_amr._records.clock import CLOCK
from pandas_amr.testing import ScriptedServer

# How long an example takes says nothing here: the first one may load a tokenizer, on a machine that is busy. Each run
# tries the same examples, so that what fails fails again; one with a number in AMR_EXAMPLES looks for others.
settings.register_profile(
    "busy machine",
    deadline=None,
    database=None,
    derandomize=os.environ.get("AMR_EXAMPLES", "long") == "long",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy machine")


@pytest.fixture
def no_time_passes() -> Iterator[None]:
    """For the library, however long a test takes: none of its waits ends before what it waits for."""
    with CLOCK.stand_still():
        yield


# A shell without job control has its background jobs ignore Ctrl-C, which some tests are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The files that take longest, longest first. Each process takes a file at a time: so they end at about the same time.
LONGEST = (
    "test_journal",
    "test_dry_run",
    "test_estimate",
    "test_sandbox",
    "test_throttle",
    "test_sandbox_bounds",
    "test_races",
    "test_breaker",
    "test_waits",
    "test_faults",
    "test_wire",
    "test_progress",
    "test_wiring",
    "test_planner",
    "test_asked_is_computed",
    "test_recipe",
    "test_hand_in",
    "test_batch",
    "test_groups",
    "test_computed",
    "test_override",
    "test_spoken",
    "test_sandbox_host",
    "test_commands",
    "test_providers",
    "test_tracebacks",
    "test_no_guess",
    "test_run",
    "test_recalled",
    "test_docs",
    "test_frames_from_code",
    "test_values",
    "test_hosts",
    "test_lease",
)


@pytest.hookimpl(tryfirst=True)  # before ``-m`` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases that a sample leaves out as long, and let the tests of the longest files begin first."""
    seen: Counter[str] = Counter()
    for item in items:
        if sampled := item.get_closest_marker("sampled"):
            test = item.nodeid.partition("[")[0]
            if seen[test] % sampled.args[0]:
                item.add_marker(pytest.mark.long)
            seen[test] += 1
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def _no_model_in_the_environment(monkeypatch):
    """A test names its model, its journal and its lease, and no proxy stands before its server; none comes from the machine."""
    monkeypatch.setenv("AMR_JOURNAL", "off")
    monkeypatch.setenv("AMR_LEASE", "off")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    for name in ("AMR_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def refusing():
    """A server that nothing may be asked of."""
    with ScriptedServer(lambda request: None) as server:
        yield server
        assert server.requests == []


@pytest.fixture
def numbers() -> pd.DataFrame:
    """Rows whose text says their number, so that a finding on a wrong row shows."""
    return pd.DataFrame({"text": [f"row {number}" for number in range(20)]})


@pytest.fixture
def anybody_s():
    """A folder where a plain user may read and write, whoever runs the tests; pytest's own are the owner's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture(scope="session")
def sandboxed():
    """Skip where no sandbox can be had, with the reason."""
    _skip_without("auto")


@pytest.fixture(scope="module", params=["strong", pytest.param("strict-lite", marks=pytest.mark.long)])
def tier(request):
    """Either tier; skip where it cannot be had, with the reason."""
    _skip_without(request.param)
    return request.param


@pytest.fixture(scope="session")
def strong():
    """Skip where the strong tier cannot be had, with the reason."""
    _skip_without("strong")


@functools.cache
def _against(isolation: str) -> str:
    """Why a tier cannot be had here; empty where it can."""
    from pandas_amr.errors import SandboxUnavailable
    from pandas_amr.sandbox.base import Data, Limits
    from pandas_amr.sandbox.host.local import LocalSandbox

    async def tried() -> str:
        try:
            sandbox = LocalSandbox(isolation)
            try:
                await sandbox.open(Data("df"), Limits())
            finally:
                await sandbox.close()
        except SandboxUnavailable as error:
            return str(error)
        return ""

    return asyncio.run(tried())


def _skip_without(isolation: str) -> None:
    if reason := _against(isolation):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def plain():
    """What stands before a Python command so that a plain user runs it; nothing where one does already."""
    if os.getuid() != 0:
        return []
    needed = {Path(one) for one in (sys.prefix, sys.base_prefix, __file__, pd.__file__, amr.__file__)}
    shut = sorted(str(one) for one in needed if not one.stat().st_mode & 0o004)
    if shut:
        pytest.skip(f"root alone can read {', '.join(shut)}")
    return [str(Path(__file__).parent / "plain_user.py")]


assert amr.__version__
