"""Processes on one key share its limits, and runs of all of them a budget."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pandas_amr as amr
from moments import until
from numbered import number, provider, rows
from pandas_amr._context.environment import VARIABLES
from pandas_amr._journal.leases import MOST_FILES, LeaseFolder, name_limits, open_leases
from pandas_amr._journal.local_disk import network_type
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.engine import submit
from pandas_amr._records.tokens import counter_for
from pandas_amr._records.usage import Ledger, Usage
from pandas_amr.models import lease
from pandas_amr.models.lease import Amounts, PaceReport, in_lease_thread
from pandas_amr.models.shared_budget import SharedBudgetTracker, budget_limits
from pandas_amr.models.throttle.shares import Use, fair_share
from pandas_amr.testing import RateLimit, ScriptedServer
from processes import run_python
from together_in_time import in_time
from versions import once

pytestmark = once

AIMS = {"headers": (0.03, 1.15), "told": (0.03, 1.15), "unknown": (0.08, 1.25)}  # of 429s; of the ideal time
ONE_BY_ONE = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 1}}


@pytest.fixture(autouse=True)
def leases(tmp_path, monkeypatch):
    """The folder of this test's leases."""
    folder = tmp_path / "leases"
    monkeypatch.setenv("AMR_LEASE", str(folder))
    return folder


# Processes in a time of their own


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("how", AIMS)
@pytest.mark.sampled(5)
def test_processes_together_keep_a_limit_and_use_all_of_it(how, processes):
    """500 calls at 1,200 a minute, as benchmarks/many_processes.py, in a time that machines cannot disturb."""

    async def scenario(clock, process, provider):
        server = provider(1200, headers=how == "headers")
        rpm = 1200 if how == "told" else None
        made = [process(number, rpm=rpm) for number in range(processes)]
        began = clock()
        await asyncio.gather(*(one.run(server, 500 // processes) for one in made))
        return server, clock() - began

    server, took = in_time(scenario)
    most_refused, longest = AIMS[how]
    calls = 500 // processes * processes
    assert server.answered == calls
    assert server.refused / (server.refused + calls) <= most_refused
    assert took <= longest * calls / 20


@pytest.mark.parametrize("how", AIMS)
def test_the_share_of_a_process_that_is_gone_is_taken_by_the_others(how):
    """Three of four end after 50 calls: with a quarter of the limit the last would take far longer."""

    async def scenario(clock, process, provider):
        server = provider(1200, headers=how == "headers")
        made = [process(number, rpm=1200 if how == "told" else None) for number in range(4)]
        began = clock()
        await asyncio.gather(*(one.run(server, 50) for one in made[:3]), made[3].run(server, 350))
        return clock() - began

    assert in_time(scenario) <= 1.25 * 500 / 20


def test_a_process_that_needs_little_leaves_the_rest_to_the_others():
    """One sends one request at a time, as in a reduce: a half of the limit would be far too much for it."""

    async def scenario(clock, process, provider):
        server = provider(1200)
        slow, fast = process(0, rpm=1200), process(1, rpm=1200)
        began = clock()

        async def one_by_one():
            for _ in range(20):
                await slow.run(server, 1)
                await asyncio.sleep(1.0)

        await asyncio.gather(one_by_one(), fast.run(server, 400))
        return clock() - began

    assert in_time(scenario) <= 1.2 * 420 / 20


@pytest.mark.parametrize(
    ("rate", "others", "share"),
    [
        (None, [], 1.0),
        (None, [Use(5, is_held=False)] * 3, 0.25),
        (10.0, [Use(5, is_held=True)] * 3, 0.25),
        (10.0, [Use(0.0, is_held=False)], 1.0),
        (10.0, [Use(1.6, is_held=False), Use(3.0, is_held=True)], 0.4),
        (10.0, [Use(9.0, is_held=False)], 0.5),
    ],
    ids=["alone", "rate unknown", "all want more", "idle", "one wants little", "never less than an even share"],
)
def test_who_needs_less_than_an_even_share_leaves_the_rest(rate, others, share):
    assert fair_share(rate, others) == pytest.approx(share)


def test_limits_that_one_user_gave_hold_for_all_processes_on_the_key():
    """One of them says rpm= and max_parallelism=; the other two, which begin a moment later, know nothing of it."""

    async def scenario(clock, process, provider):
        server = provider(6000, latency_s=1.0)
        made = [process(0, rpm=600, max_parallelism=5), process(1), process(2)]
        tasks = [asyncio.create_task(made[0].run(server, 100))]
        await asyncio.sleep(3.0)
        server.max_in_flight = server.in_flight
        tasks += [asyncio.create_task(one.run(server, 50)) for one in made[1:]]
        await asyncio.gather(*tasks)
        return server

    server = in_time(scenario)
    assert server.answered == 200
    assert server.max_in_flight <= 5 + 2  # the first request of each, which knows of no other yet


def test_a_pause_that_one_process_is_asked_for_holds_for_all():
    """The server refuses everything and asks for 60 s, once: then nobody sends until these are over."""

    async def scenario(clock, process, provider):
        server = provider(60_000)
        made = [process(number) for number in range(3)]
        await asyncio.gather(*(one.run(server, 20) for one in made))
        server.bucket.level, server.retry_after_s = -1e9, 60.0
        tasks = [asyncio.create_task(made[0].run(server, 1))]
        await asyncio.sleep(1.0)
        asked_at = server.times[-1]
        server.bucket.level = 1000.0
        tasks += [asyncio.create_task(one.run(server, 20)) for one in made[1:]]
        await asyncio.gather(*tasks)
        return [at - asked_at for at in server.times if at > asked_at]

    later = in_time(scenario)
    assert len(later) == 41
    assert min(later) >= 60.0 - 0.1


@pytest.mark.parametrize("asked", [0, 1], ids=["this process", "another process"])
def test_a_request_waits_no_longer_than_its_patience_whoever_has_the_patience_for_a_longer_pause(asked):
    """The server asks for an hour; what was sent before that is answered later, and ends no pause."""

    async def scenario(clock, process, provider):
        made = [process(number) for number in range(2)]
        await asyncio.gather(*(one.run(provider(60_000), 20) for one in made))
        refused, late = [await made[asked].throttle.acquire(1.0) for _ in range(2)]
        busy = amr.ModelUnavailable("Slow down.", busy=True)
        made[asked].throttle.record_refusal(refused, retry_after_s=3600.0, limits=None, error=busy)
        await asyncio.sleep(1.0)
        began = clock()
        waiting = asyncio.create_task(made[0].throttle.acquire(1.0, amr.LM("m", patience_s=30)))
        await asyncio.sleep(10.0)
        made[asked].throttle.record_answer(late, tokens=1.0, limits=None)
        with pytest.raises(amr.ModelUnavailable, match=r"Nothing was answered for 30 s \(LM\(patience_s"):
            await waiting
        return clock() - began

    assert in_time(scenario) == pytest.approx(40.0 if asked == 0 else 30.0, abs=1.0)


def test_a_process_alone_is_as_fast_with_a_lease_as_without():
    async def scenario(clock, process, provider):
        server = provider(60_000, latency_s=1.0)
        one = process(0, is_shared=is_shared)
        began = clock()
        await one.run(server, 1000)
        return clock() - began

    is_shared = False
    without = in_time(scenario)
    is_shared = True
    assert in_time(scenario) == pytest.approx(without, abs=0.2)


def test_a_process_that_joins_others_sends_no_burst():
    """One has used all there is; what the other may send at once beside it is refused at once."""

    async def scenario(clock, process, provider):
        server = provider(1200)
        made = [process(0, rpm=1200), process(1, rpm=1200)]
        first = asyncio.create_task(made[0].run(server, 300))
        await asyncio.sleep(5.0)
        refused = server.refused
        await asyncio.gather(made[1].run(server, 100), first)
        return server.refused - refused

    assert in_time(scenario) <= 4


# Processes

# Forks of a process that has all imported, which begin from a barrier.
SCRIPT = """
import json, os, sys
import pandas as pd
import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

options = json.loads(sys.argv[1])
number = lambda unit: {"n": int(unit["text"].split()[1])}

def read(lm, numbers, **more):
    frame = pd.DataFrame({"text": [f"row {n}" for n in numbers]})
    return frame.amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "sum"}, plan={"shard_size": 1},
                                max_parallelism=options["parallelism"], lm=lm, progress=False, **more)

with ScriptedServer(lambda request: findings(request, number)) as server:
    read(server.lm(), range(2))
ready, start = os.pipe(), os.pipe()
pids = []
for part in range(options["processes"]):
    pid = os.fork()
    if not pid:
        os.write(ready[1], b".")
        os.read(start[0], 1)
        lm = amr.LM("scripted", base_url=options["url"], api_key="a-secret-key", journaled=False, **options["lm"])
        lm = lm.replace(prices=(1.0, 1.0))
        more = {"budget": amr.Budget(**options["budget"])} if options["budget"] else {}
        rows = options["rows"]
        result = read(lm, range(part * rows, (part + 1) * rows), **more)
        found = [int(n) for n in result.findings["n"].dropna()]
        line = {"found": found, "calls": result.total.calls, "tokens": result.total.tokens, "stopped": result.stopped}
        os.write(1, (json.dumps(line) + chr(10)).encode())
        os._exit(0)
    pids.append(pid)
for _ in pids:
    os.read(ready[0], 1)
os.write(2, (" ".join(map(str, pids)) + chr(10)).encode())
os.write(start[1], b"." * len(pids))
for pid in pids:
    os.waitpid(pid, 0)
"""


def begin(server, processes, rows, *, parallelism=64, budget=None, **lm):
    """Begin processes that read so many rows each; give the process that has begun them, and their ids."""
    options = {
        "url": server.base_url,
        "processes": processes,
        "rows": rows,
        "parallelism": parallelism,
        "budget": budget,
        "lm": lm,
    }
    quiet = "ignore:This process:DeprecationWarning"  # Python 3.12 warns of forks where threads run
    parent = subprocess.Popen(
        [sys.executable, "-W", quiet, "-c", SCRIPT, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stderr is not None
    line = parent.stderr.readline()
    if not line.replace(" ", "").strip().isdecimal():
        parent.kill()
        raise AssertionError(line + parent.stderr.read())
    return parent, [int(pid) for pid in line.split()]


def finish(parent):
    """What each of them says that came to its end."""
    out, errors = parent.communicate()
    assert parent.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.long  # the same aims hold in time that tests move, whatever the machine does
@pytest.mark.parametrize("how", AIMS)
def test_real_processes_share_a_limit_and_read_each_row_once(how):
    """Ten times as fast as the benchmark. Without a lease, more requests are refused than answered.

    How many are refused depends on the machine; half of the calls would be far more than there are on any.
    """
    limit = RateLimit(rpm=12_000, burst_s=0.3, headers=how == "headers")
    with ScriptedServer(provider, latency_s=0.02, limit=limit) as server:
        parent, _ = begin(server, 4, 125, **({"rpm": 12_000} if how == "told" else {}))
        said = finish(parent)
        assert sorted(n for one in said for n in one["found"]) == list(range(500))
        assert sum(one["calls"] for one in said) == 500
        assert len(server.requests) - server.refused == 500
        assert server.refused <= (50 if how != "unknown" else 150)


@pytest.mark.long
def test_what_a_killed_process_had_is_free_for_the_others(leases):
    """Its parent does not ask for its status: it is a zombie, whose number still exists."""
    is_killed = threading.Event()

    async def answer_few_before(request):
        """Each process has its first rows answered, and none comes to its end before one was killed."""
        place = number(request.units[0])["n"] % 100
        while place >= 8 and not is_killed.is_set():
            await asyncio.sleep(0.01)
        return provider(request)

    with ScriptedServer(answer_few_before) as server:
        parent, pids = begin(server, 3, 100, rpm=3000, parallelism=4)
        watching = LeaseFolder(leases).pace(f"{server.base_url}/", "a-secret-key", "scripted")

        def peers():
            return [peer for peer in watching.exchange(PaceReport()) if peer.lives]

        until(lambda: len(peers()) == 3)
        os.kill(pids[2], signal.SIGKILL)
        until(lambda: len(peers()) < 3)
        is_killed.set()
        assert {int(peer.name.split("/")[-2]) for peer in peers()} <= set(pids[:2])
        said = finish(parent)
    assert sorted(n for one in said for n in one["found"]) == list(range(200))


def test_a_lease_file_holds_no_key_no_address_no_name_and_no_cell(leases):
    with ScriptedServer(provider) as server:
        lm = server.lm(api_key="a-secret-key")
        rows(10).amr.map_reduce(**ONE_BY_ONE, lm=lm, budget=amr.Budget(calls=100, shared="a job"))
        files = sorted(leases.glob("*.sqlite"))
        assert [path.name.partition("-")[0] for path in files] == ["budget", "limits"]
        address = server.base_url.encode()
    held = b"".join(path.read_bytes() + path.name.encode() for path in leases.iterdir())
    for secret in (b"a-secret-key", address, b"127.0.0.1", b"scripted", b"a job", b"row 1"):
        assert secret not in held
    assert all(path.stat().st_mode & 0o077 == 0 for path in [leases, *files])


# What goes wrong with the file


def read_rows(count, **options):
    with ScriptedServer(provider) as server:
        result = rows(count).amr.map_reduce(**ONE_BY_ONE, lm=server.lm(), progress=False, **options)
    assert result.output["n"] == sum(range(count))
    return result


def test_no_request_waits_for_a_file_that_another_process_holds(leases):
    """All that is sent is answered while the lease is locked."""
    folder = LeaseFolder(leases)
    with ScriptedServer(provider) as server:
        lm = server.lm()
        lease = folder.pace(f"{server.base_url}/", lm.api_key, lm.model)
        lease.exchange(PaceReport())
        (path,) = leases.glob("*.sqlite")
        holding = sqlite3.connect(path, isolation_level=None)
        holding.execute("BEGIN EXCLUSIVE")
        result = rows(200).amr.map_reduce(**ONE_BY_ONE, lm=lm, progress=False)
        holding.execute("ROLLBACK")
        holding.close()
    assert result.output["n"] == sum(range(200))


def test_a_folder_that_cannot_be_written_leaves_the_run_alone_with_one_notice(leases, caplog):
    leases.write_text("a file")
    with caplog.at_level(logging.WARNING, logger="pandas_amr"):
        read_rows(5)
        read_rows(5)
    (notice,) = [record.getMessage() for record in caplog.records]
    assert notice == (
        f"The limits are not shared with other processes: {leases} cannot be written (File exists). "
        "Choices: AMR_LEASE=/a/local/folder, or AMR_LEASE=off."
    )


@pytest.mark.long
def test_a_full_disk_leaves_the_run_alone_with_one_notice(leases):
    """No file of this process may be longer than nothing, as if there were no room."""
    with ScriptedServer(provider) as server:
        done = run_python(
            "import resource, signal, sys\n"
            "import pandas as pd\n"
            "import pandas_amr as amr\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
            "frame = pd.DataFrame({'text': [f'row {n}' for n in range(20)]})\n"
            "lm = amr.LM('scripted', base_url=sys.argv[1], api_key='k', journaled=False)\n"
            "found = frame.amr.map('Which?', finding={'n': int}, plan={'shard_size': 1}, lm=lm, progress=False)\n"
            "assert found['n'].sum() == 190\n",
            server.base_url,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("The limits are not shared with other processes") == 1
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_file_is_made_anew(leases):
    with ScriptedServer(provider) as server:
        lease = LeaseFolder(leases).pace(server.base_url, "k", "m")
        lease.exchange(PaceReport())
        lease.leave(PaceReport())
        (path,) = leases.glob("*.sqlite")
        path.write_bytes(b"no database" * 1000)
        assert lease.exchange(PaceReport()) == []
        assert path.read_bytes().startswith(b"SQLite")


def test_a_file_that_is_removed_under_a_process_is_made_anew(leases):
    folder = LeaseFolder(leases)
    lease = folder.pace("server", "k", "m")
    lease.exchange(PaceReport())
    for path in leases.iterdir():
        path.unlink()
    assert lease.exchange(PaceReport()) == []
    assert len(list(leases.glob("*.sqlite"))) == 1


@pytest.mark.parametrize(
    ("kind", "is_refused"),
    [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("lustre", True), ("ext4", False), ("overlay", False)],
)
def test_a_network_file_system_is_told_by_its_nearest_mount(tmp_path, kind, is_refused):
    mounts = tmp_path / "mounts"
    mount = tmp_path / "a b"
    escaped = str(mount).replace(" ", r"\040")
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/home {escaped} {kind} rw 0 0\n")
    assert network_type(mount / "leases" / "deep", mounts) == (kind if is_refused else "")
    assert network_type(tmp_path / "beside", mounts) == ""


def test_old_files_are_removed_and_the_folder_is_bounded(leases):
    leases.mkdir()
    now = time.time()
    for count in range(MOST_FILES + 50):
        path = leases / f"limits-{count}-1.sqlite"
        path.write_bytes(b"")
        os.utime(path, (now - 60 - count, now - 60 - count))
    ages = {"limits-old": 7200, "budget-last-week": 7 * 86_400, "budget-old": 40 * 86_400}
    for name, age in ages.items():
        path = leases / f"{name}-1.sqlite"
        path.write_bytes(b"")
        log = path.with_name(path.name + "-wal")
        log.write_bytes(b"")
        for one in (path, log):
            os.utime(one, (now - age, now - age))
    LeaseFolder(leases).pace("server", "k", "m").exchange(PaceReport())
    names = {path.name for path in leases.glob("*.sqlite")}
    assert len(names) == MOST_FILES + 2  # with the one that is new, and a budget, which is kept
    assert "limits-0-1.sqlite" in names
    assert [name for name in ages if f"{name}-1.sqlite" in names] == ["budget-last-week"]
    assert not (leases / "budget-old-1.sqlite-wal").exists()


@pytest.mark.parametrize("change", ["space = 'earlier/pid:[1]'", "space = '', beat = 1e9"])
def test_a_pause_from_before_the_machine_was_started_again_is_over(change, leases):
    """The clock of a machine begins anew with it: a time of before may be days ahead, and nobody would end the wait."""
    now = CLOCK.now()
    folder = LeaseFolder(leases)
    folder.pace("server", "k", "m").leave(PaceReport(paused_until=now + 500))
    other = folder.pace_of_member(name_limits("server", "k", "m"), "other")
    (peer,) = other.exchange(PaceReport())
    assert (peer.lives, peer.report.paused_until) == (False, now + 500)
    (path,) = leases.glob("limits-*.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE members SET {change} WHERE name = ?", (peer.name,))
    assert other.exchange(PaceReport()) == []


# Where it is


def test_a_lease_is_beside_the_default_journal_whatever_journal_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("AMR_LEASE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read_rows(3)
    read_rows(3, journal=tmp_path / "elsewhere" / "journal.sqlite")
    written = {path.parent.relative_to(tmp_path) for path in tmp_path.rglob("limits-*.sqlite")}
    assert written == {Path("cache/pandas-amr/leases")}
    assert not list(tmp_path.rglob("cache/**/journal*"))


@pytest.mark.parametrize("how", ["AMR_LEASE=off", "AMR_LEASE=0", "configure"])
def test_nothing_is_written_if_nothing_is_shared(how, tmp_path, monkeypatch):
    counter_for("scripted")("A tokenizer may keep a file when it counts for the first time.")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if how == "configure":
        with amr.settings(lease=False):
            read_rows(3)
    else:
        monkeypatch.setenv("AMR_LEASE", how.partition("=")[2])
        read_rows(3)
    assert list(tmp_path.rglob("*")) == []


def test_a_setting_places_the_lease_before_the_environment(tmp_path, leases):
    with amr.settings(lease=tmp_path / "mine"):
        read_rows(3)
    assert list((tmp_path / "mine").glob("limits-*.sqlite"))
    assert not leases.exists()


def test_a_run_that_finds_all_in_the_journal_writes_no_lease(tmp_path, leases):
    with ScriptedServer(provider) as server:
        lm = server.lm(journaled=True)
        with amr.settings(lease=False):
            rows(3).amr.map_reduce(**ONE_BY_ONE, lm=lm, journal=tmp_path / "journal.sqlite")
        rows(3).amr.map_reduce(**ONE_BY_ONE, lm=lm, journal=tmp_path / "journal.sqlite")
        assert len(server.requests) == 3
    assert not leases.exists()


@pytest.mark.parametrize("wrong", ["off", "none", "", 3, {"a": 1}])
def test_a_lease_setting_takes_a_folder(wrong):
    with pytest.raises(amr.UsageError, match=r"settings\(lease=...\) takes a folder's path, True, False or None"):
        amr.settings(lease=wrong)


def test_a_word_in_the_environment_is_no_folder(monkeypatch, refusing):
    monkeypatch.setenv("AMR_LEASE", "none")
    with pytest.raises(amr.UsageError, match="AMR_LEASE=none would be a folder of that name"):
        rows(3).amr.map_reduce(**ONE_BY_ONE, lm=refusing.lm())
    assert "AMR_LEASE" in VARIABLES
    monkeypatch.setenv("AMR_LEASE", "off")
    assert open_leases(None) is None


# Budgets


@pytest.mark.long
@pytest.mark.parametrize(
    "budget",
    [{"calls": 60}, {"tokens": 3000}, {"money": 3000 / 1e6}],
    ids=["calls", "tokens", "money"],
)
def test_processes_together_spend_no_more_than_a_shared_budget(budget):
    """As for one run: no more than the budget, and the error of the estimates of what was in flight."""
    with ScriptedServer(provider, latency_s=0.005) as server:
        parent, _ = begin(server, 4, 50, parallelism=4, budget=budget | {"shared": "job"})
        said = finish(parent)
        calls = sum(one["calls"] for one in said)
        assert calls == len(server.requests)
        tokens = sum(one["tokens"] for one in said)
        in_flight = 4 * 4 * tokens / calls
        assert calls == 60 if "calls" in budget else 3000 - in_flight <= tokens <= 3000 + in_flight
        assert sorted(n for one in said for n in one["found"]) == sorted(
            int(request.units[0]["text"].split()[1]) for request in server.requests
        )
    assert any("is used up" in (one["stopped"] or "") for one in said)


def test_a_shared_budget_holds_for_runs_one_after_the_other_and_by_its_name():
    budget = amr.Budget(calls=10, shared="monday")
    with ScriptedServer(provider) as server:
        results = [rows(7).amr.map_reduce(**ONE_BY_ONE, lm=server.lm(), budget=budget) for _ in range(3)]
        assert len(server.requests) == 10
        rows(7).amr.map_reduce(**ONE_BY_ONE, lm=server.lm(), budget=amr.Budget(calls=10, shared="tuesday"))
        assert len(server.requests) == 17
    assert [result.total.calls for result in results] == [7, 3, 0]
    assert results[0].stopped is None
    assert results[1].stopped == "The budget of 10 calls that runs share as 'monday' is used up."


@pytest.mark.long
def test_what_a_killed_process_may_have_spent_counts_as_spent(leases):
    """It dies with four requests in flight, and has been allowed no more than as many again."""

    async def script(request):
        if request.number >= 20:
            await asyncio.sleep(3600)
        return provider(request)

    with ScriptedServer(script) as server:
        budget = {"calls": 100, "shared": "job"}
        parent, (pid,) = begin(server, 1, 100, parallelism=4, budget=budget)
        until(lambda: len(server.requests) == 24)
        os.kill(pid, signal.SIGKILL)
        parent.communicate()
    with ScriptedServer(provider) as server:
        result = rows(100).amr.map_reduce(**ONE_BY_ONE, lm=server.lm(), budget=amr.Budget(**budget))
        assert 100 - 24 - 2 * 8 <= len(server.requests) <= 100 - 24
    assert "is used up" in result.stopped


def test_what_a_run_does_not_need_is_free_for_others_at_once(leases):
    folder, limits = LeaseFolder(leases), Amounts(10, 1e9, 1e9)
    first, second = folder.budget("job", limits), folder.budget("job", limits)
    none, four, eight, ten = (Amounts(calls) for calls in (0, 4, 8, 10))
    assert first.exchange(none, [none, four, eight], is_short=True).most == eight
    assert second.exchange(none, [none, four, eight], is_short=True).most == none  # it waits, and says so
    assert first.exchange(none, [none, four, eight], is_short=False).most == four  # what it needs, and no more
    assert second.exchange(none, [none, four, eight], is_short=True).most == four
    first.leave(Amounts(2))
    assert second.exchange(four, [four, eight, ten], is_short=False).most == eight
    assert second.exchange(four, [four, eight, ten], is_short=False).spent == Amounts(6)


@pytest.mark.parametrize(
    ("ended", "own", "last", "limit"), [(0.1, 0.4, 0.9, 1.4), (0.1, 0.2, 0.3, 0.6), (0.2, 0.1, 0.3, 0.6)]
)
def test_what_fits_exactly_into_a_shared_budget_is_spent_whatever_rounding_makes_of_sums(
    leases, ended, own, last, limit
):
    """0.1 + (0.4 + 0.9) is more than 1.4, and (0.1 + 0.4) - 0.4 + (0.4 + 0.9) is not."""
    budget = amr.Budget(money=limit, shared="job")

    async def spend(*sums):
        lease = open_leases(None).budget("job", budget_limits(budget))
        tracker = SharedBudgetTracker(budget=budget, ledger=Ledger(), lease=lease)
        for money in sums:
            usage = Usage(calls=1, money=money)
            async with asyncio.timeout(60):
                await tracker.reserve(usage)
            tracker.ledger.add("map", "model", usage)
            tracker.settle(usage)
        await tracker.close()
        return tracker.ledger.total.calls

    assert submit(spend(ended)).result() == 1
    assert submit(spend(own, last)).result() == 2


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"shared": "job"}, "takes at least one of money=, tokens=, calls="),
        ({"shared": "job", "seconds": 5}, "takes at least one of money=, tokens=, calls="),
        ({"shared": "", "calls": 5}, "takes the name of a budget, not ''"),
        ({"shared": True, "calls": 5}, "takes the name of a budget, not True"),
    ],
)
def test_a_shared_budget_has_a_name_and_an_amount(wrong, sentence):
    with pytest.raises(amr.UsageError, match=sentence):
        amr.Budget(**wrong)


def test_a_shared_budget_that_cannot_be_counted_is_refused_or_ends_the_run(leases, monkeypatch, refusing):
    budget = amr.Budget(calls=5, shared="job")
    leases.write_text("a file")
    result = rows(3).amr.map_reduce(**ONE_BY_ONE, lm=refusing.lm(), budget=budget)
    assert result.stopped.startswith("The shared budget 'job' can no longer be counted: ")
    monkeypatch.setenv("AMR_LEASE", "off")
    with pytest.raises(amr.UsageError, match="counts in a folder that processes share, and none is"):
        rows(3).amr.map_reduce(**ONE_BY_ONE, lm=refusing.lm(), budget=budget)


def test_a_shared_budget_whose_file_holds_what_nobody_foresaw_ends_the_run(leases, refusing):
    """Who waits for a part of the budget is told so, and does not wait for ever."""
    budget = amr.Budget(calls=5, shared="job")
    LeaseFolder(leases).budget("job", budget_limits(budget)).exchange(Amounts(), [Amounts()], is_short=True)
    (path,) = leases.glob("budget-*.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE members SET state = '{}'")
    result = rows(3).amr.map_reduce(**ONE_BY_ONE, lm=refusing.lm(), budget=budget)
    assert result.stopped == "The shared budget 'job' can no longer be counted: KeyError('most')"


def test_leases_are_exchanged_once_a_thread_can_be_started_after_one_that_could_not(monkeypatch):
    """A queue of work that has no thread would be waited for by all that come later."""
    monkeypatch.setattr(lease, "_queues", {})

    async def call():
        return await asyncio.wait_for(in_lease_thread(lambda: "done"), 60)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            asyncio.run(call())
    assert asyncio.run(call()) == "done"
