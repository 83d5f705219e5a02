"""Sessions behind a command: what the command is told of the limits, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.conformance import kit as conformance
from pandas_amr.sandbox.guest import worker
from pandas_amr.sandbox.host.container import ContainerSandbox
from versions import once

pytestmark = [once, pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")]
WORKER = (sys.executable, "-I", worker.__file__)
STAYS = "import os, threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nprint(os.getpid())"


def after(limit: str) -> ContainerSandbox:
    """A worker's process that has set itself a limit."""
    code = f"import os, resource, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"
    return ContainerSandbox([sys.executable, "-c", code, *WORKER])


def in_session(sandbox, *cells, limits):
    async def run():
        session = await sandbox.open(Data("df"), limits)
        try:
            return [await session.run(cell) for cell in cells]
        finally:
            async with asyncio.timeout(60):
                await session.close()

    return asyncio.run(run())


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid: str) -> bool:
    """Whether it is gone, or goes: what is killed with its group is gone a moment after its leader."""
    until = time.monotonic() + 20
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not runs(pid)


@pytest.mark.parametrize(
    "stop",
    [
        ["no-such-stop"],
        ["false"],
        ["sh", "-c", 'echo $$ > "$0"; exec sleep 1000', "{file}"],
        ["sh", "-c", 'echo $$ > "$0"; sleep 1000; true', "{file}"],
    ],
    ids=["not-there", "fails", "never-ends", "never-ends-with-a-child"],
)
@pytest.mark.sampled(2)
def test_a_session_ends_whatever_becomes_of_the_command_that_stops_it(stop, tmp_path):
    file = tmp_path / "pid"
    sandbox = ContainerSandbox(WORKER, stop=[part.replace("{file}", str(file)) for part in stop])
    pid = in_session(sandbox, STAYS, limits=Limits())[0].text.strip()
    assert ends(pid)
    if "sh" in stop:
        assert ends(file.read_text().strip())


def test_the_process_is_killed_with_what_it_began():
    sandbox = ContainerSandbox(["sh", "-c", '"$@"; true', "sh", *WORKER])
    pid = in_session(sandbox, STAYS, limits=Limits())[0].text.strip()
    assert ends(pid)


@pytest.mark.long
def test_a_signal_is_told_as_one_where_the_command_tells_it_by_its_status():
    sandbox = ContainerSandbox(["sh", "-c", '"$@"; exit $?', "sh", *WORKER])
    killed, status = in_session(
        sandbox, "import os\nos.kill(os.getpid(), 9)", "import os\nos._exit(3)", limits=Limits()
    )
    assert "it was killed" in killed.text
    assert "status 3" in status.text


def test_the_docker_line_takes_its_limits_from_the_session_s():
    limits = Limits(memory_mb=64, cpu_s=7, scratch_mb=3, scratch_files=20, threads=4)
    line = ContainerSandbox.docker("image").command("n", limits)
    options = dict(itertools.pairwise(line))
    assert options["--memory"] == options["--memory-swap"] == f"{64 + 3 + 256}m"
    assert options["--ulimit"] == "cpu=7:8"
    assert options["--pids-limit"] == "20"
    assert "size=3m,nr_inodes=20," in options["--tmpfs"]
    assert not any("{" in part for part in (*line, *ContainerSandbox.docker("image").command("n")))
    fixed = ContainerSandbox.docker("image", memory_mb=512).command("n", limits)
    assert fixed[fixed.index("--memory") + 1] == "512m"


@pytest.mark.long
def test_a_command_s_limits_hold_for_the_session():
    cpu = after("resource.setrlimit(resource.RLIMIT_CPU, ({cpu_s}, {last_cpu_s}))")
    spent, anew = in_session(cpu, "while True: pass", "1 + 1", limits=Limits(cpu_s=2, wall_s=100))
    assert spent.lost
    assert "used up its 2 s of processor time" in spent.text
    assert "are used up" in anew.text  # processor time is the agent's, and not anew with each session
    memory = after("resource.setrlimit(resource.RLIMIT_AS, ({memory_mb} << 20, {memory_mb} << 20))")
    asked, kept = in_session(memory, "b = bytes(6000 << 20)", "1 + 1", limits=Limits(memory_mb=4000))
    assert "MemoryError" in asked.text
    assert kept.text.strip() == "2"


def test_a_session_s_process_is_no_part_of_the_terminal_s_group():
    """Ctrl-C reaches the host alone, and the host says what becomes of the session."""
    code = "import os\nprint(os.getsid(0), os.getpgid(0), os.getpid())"
    session, group, pid = in_session(ContainerSandbox(WORKER), code, limits=Limits())[0].text.split()
    assert session == group == pid
    assert int(session) != os.getsid(0)


NAMES = [
    "illegal",
    "bus",
    "stack",
    "hang-up",
    "answered-twice",
    "printed-at-once",
    "many-findings",
    "long-reply",
    "controls-in-a-reply",
    "surrogates",
    "runner-dumps",
    "runner-globals",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sampled(6)
def test_the_host_goes_on_where_code_does_what_it_wants_in_a_process_that_nothing_confines(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # such a process writes where its host stands
    attempt = next(one for one in conformance.attempts() if one.name == name)
    with conformance.AttackKit() as kit:
        assert asyncio.run(kit.holds(attempt, ContainerSandbox(WORKER))) is None


def test_a_crash_s_control_dies_of_what_the_crash_is_called_after():
    crashes = {one.name: one for one in conformance.attempts() if one.kind == "crash"}
    named = {"illegal": signal.SIGILL, "bus": signal.SIGBUS, "stack": signal.SIGSEGV, "abort": signal.SIGABRT}
    assert {name: crashes[name].fatal_signal for name in named} == named
    with conformance.AttackKit() as kit:
        assert [kit.control(crashes[name]) for name in named] == [None] * 4
