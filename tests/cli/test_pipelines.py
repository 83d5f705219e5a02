"""The recipes of docs/guide: each does what its page says, also when SIGTERM comes in the middle."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pandas_amr as amr
import reader
from moments import never, until
from pandas_amr.testing import ScriptedServer, Status

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
KINDS = {"battery": 1, "strap": 1, "other": 1, "lid": 0}
TEXTS = ["The battery died.", "It is fine.", "The strap broke.", "The lid leaks."]


def blocks(page: str, language: str, *, section: str = "") -> list[str]:
    """The blocks of a language on a page, or below one of its headings."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    if section:
        text = text.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pd.DataFrame({"text": TEXTS}).to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMR_MODEL", "scripted")
    return tmp_path


class Provider:
    """A provider at one address, whose third request waits for ever until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._port = 0

    def serve(self, script: Any) -> ScriptedServer:
        server = ScriptedServer(script, port=self._port)
        server.__enter__()
        address = server.base_url.split("/")[2]
        self._port = int(address.partition(":")[2])
        self._monkeypatch.setenv("OPENAI_BASE_URL", f"http://{address}/v1")
        return server


@pytest.fixture
def provider(monkeypatch):
    return Provider(monkeypatch)


async def hold_third(request: Any) -> Any:
    if request.number == 2:
        await never(request)
    return reader.read(request)


def kept(folder: Path) -> int:
    """How many answers the journal holds by now."""
    path = folder / "journal.db"
    return len(amr.Journal(path)) if path.exists() else 0


def stop(server: ScriptedServer) -> int:
    """Stop a server, and count what it was asked."""
    server.__exit__(None, None, None)
    return len(server.requests)


# The command line


def test_the_commands_of_the_page_give_what_stands_below_them(folder, provider, capsys, monkeypatch):
    pytest.importorskip("click")
    from pandas_amr._api.cli.main import run_command_line

    page = "command-line.md"
    (folder / "rows.csv").write_text(blocks(page, "csv")[0])
    monkeypatch.setenv("AMR_JOURNAL", str(folder / "journal.db"))
    server = provider.serve(reader.read)
    commands = [line for block in blocks(page, "sh") for line in block.replace("\\\n", "").splitlines()]
    answers = []
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "amr"
        assert run_command_line(arguments) == 0, capsys.readouterr().err
        answers.append(json.loads(capsys.readouterr().out))
    stop(server)
    shown = json.loads(blocks(page, "json")[0])
    assert {key: answers[0][key] for key in shown} == shown
    assert answers[3]["output"] == [{"index": kind, "kind": n} for kind, n in KINDS.items()]
    assert len(answers) == 5


# cron


@pytest.mark.long
def test_a_script_under_cron_is_stopped_and_goes_on_and_writes_whole_files_only(folder, provider, monkeypatch):
    pytest.importorskip("click")
    script = blocks("pipelines.md", "sh")[0].replace(
        "--finding", """--plan '{"shard_size": 1}' --max-parallelism 1 --finding"""
    )
    (folder / "complaints.sh").write_text(script)
    (folder / "found.csv").write_text("yesterday's\n")
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = ["sh", "complaints.sh"]

    server = provider.serve(hold_third)
    process = subprocess.Popen(command)
    until(lambda: (len(server.requests) > 2 and kept(folder) == 2) or process.poll() is not None)
    assert subprocess.run(command).returncode == 0  # begun twice: the second one leaves at once
    process.terminate()
    assert process.wait(100) == 143
    assert stop(server) == 3
    assert (folder / "found.csv").read_text() == "yesterday's\n"
    lines = [json.loads(line) for line in (folder / "complaints.log").read_text().splitlines()]
    assert lines[-1]["message"] == "Stopped by SIGTERM. 2 of 4 rows kept in the journal; run it again to go on."

    server = provider.serve(reader.read)
    assert subprocess.run(command).returncode == 0
    assert stop(server) == 2
    assert pd.read_csv("found.csv")["severity"].tolist() == [5, 1, 4, 2]
    assert json.loads((folder / "answer.json").read_text())["output"] == {"severity": 3.0}
    assert {path.name for path in folder.iterdir()} - {"journal.db", "journal.db-wal", "journal.db-shm"} == {
        *("answer.json", "complaints.log", "complaints.lock", "complaints.sh", "found.csv", "python", "rows.csv")
    }


# A task with retries


class TaskTerminated(Exception):
    """What an orchestrator raises in a task for SIGTERM."""


def attempt(task: Any, retries: int) -> Any:
    """Run a task as an orchestrator does, in the main thread: again after it raised, so many times."""

    def terminate(number: int, frame: Any) -> None:
        raise TaskTerminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        for left in reversed(range(retries + 1)):
            try:
                return task("rows.csv", "found.parquet")
            except Exception:
                if not left:
                    raise
    finally:
        signal.signal(signal.SIGTERM, before)


def airflow_task() -> Any:
    names: dict[str, Any] = {}
    exec(blocks("pipelines.md", "py", section="Airflow")[0], names)
    return names["find_complaints"]


def test_a_task_that_is_terminated_goes_on_in_its_retry(folder, provider, caplog):
    let_go = threading.Event()

    async def hold_one(request: Any) -> Any:
        """Hold the row with the lid until the task was terminated."""
        if "lid" in request.user and not let_go.is_set():
            await never(request)
        return reader.read(request)

    server = provider.serve(hold_one)

    def terminate() -> None:
        until(lambda: len(server.requests) == len(TEXTS) and kept(folder) == len(TEXTS) - 1)
        let_go.set()
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    answer = attempt(airflow_task(), retries=1)
    thread.join()
    assert stop(server) == len(TEXTS) + 1
    assert answer == {"mean": 3.0, "failed": 0}
    assert pd.read_parquet("found.parquet")["severity"].tolist() == [5, 1, 4, 2]
    assert [record.levelname for record in caplog.records if "cancelled" in record.getMessage()] == ["WARNING"]


def test_a_task_whose_service_puts_off_raises_and_goes_on_in_its_retry(folder, provider):
    asked: list[int] = []

    def put_off_once(request: Any) -> Any:
        asked.append(request.number)
        return Status(429, "no", headers={"retry-after": "21600"}) if len(asked) == 3 else reader.read(request)

    server = provider.serve(put_off_once)
    with pytest.raises(RuntimeError, match="It asks to wait until"), pytest.warns(match="stopped early"):
        attempt(airflow_task(), retries=0)
    answer = attempt(airflow_task(), retries=0)
    assert stop(server) <= len(TEXTS) + 1 + 2
    assert answer == {"mean": 3.0, "failed": 0}


# Dagster

MATERIALIZE = """
import sys
import dagster as dg
names = {}
exec(sys.stdin.read(), names)
if __name__ == "__main__":
    result = dg.materialize([names["complaints"]], raise_on_error=False, instance=dg.DagsterInstance.ephemeral())
    events = result.asset_materializations_for_node("complaints")
    metadata = {key: value.value for key, value in events[0].metadata.items()} if events else {}
    print("END", result.success, metadata)
"""


def begin_dagster(*, policy: bool = True) -> subprocess.Popen[str]:
    """Materialize the asset of the page; it has a retry policy."""
    code = blocks("pipelines.md", "py", section="Dagster")[0]
    process = subprocess.Popen(
        [sys.executable, "-c", MATERIALIZE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"DAGSTER_DISABLE_TELEMETRY": "1"},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(code if policy else code.replace("retry_policy=dg.RetryPolicy(max_retries=2)", ""))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.parametrize("policy", [True, False])
def test_a_dagster_asset_that_is_stopped_goes_on_in_its_retry_or_when_it_is_next_materialized(policy, folder, provider):
    pytest.importorskip("dagster")
    server = provider.serve(hold_third)
    process = begin_dagster(policy=policy)
    until(lambda: (len(server.requests) == len(TEXTS) and kept(folder) == 3) or process.poll() is not None)
    process.terminate()
    stdout, stderr = process.communicate(timeout=100)
    if policy:
        assert "END True {'rows': 4, 'failed': 0, 'calls': 1}" in stdout, stderr
    else:
        assert "END True" not in stdout, stderr
        assert not (folder / "complaints.parquet").exists()
        stdout, stderr = begin_dagster().communicate(timeout=100)
        assert "END True {'rows': 4, 'failed': 0, 'calls': 1}" in stdout, stderr
    assert stop(server) == len(TEXTS) + 1
    assert pd.read_parquet("complaints.parquet")["severity"].tolist() == [5, 1, 4, 2]


def test_a_dagster_asset_is_retried_and_goes_on(folder, provider):
    pytest.importorskip("dagster")
    asked: list[int] = []

    def put_off_once(request: Any) -> Any:
        asked.append(request.number)
        return Status(429, "no", headers={"retry-after": "21600"}) if len(asked) == 3 else reader.read(request)

    server = provider.serve(put_off_once)
    stdout, stderr = begin_dagster().communicate(timeout=100)
    assert "END True" in stdout, stderr
    assert stop(server) <= len(TEXTS) + 1 + 2
