"""A run is right whatever process hosts it: a daemon, a worker that forks, one with a time limit, one without a home."""

from __future__ import annotations

import inspect
import os
import pickle
import signal

import pytest
from pydantic import BaseModel

import pandas_amr as amr
from numbered import provider as counted
from numbered import rows as numbered
from pandas_amr import errors
from pandas_amr.models.openai.model import OpenAIModel
from pandas_amr.testing import ScriptedServer, findings
from processes import run_python
from versions import once

pytestmark = once


# Forks

FORKS = """
import os, sqlite3, sys
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings
def run(server, first, last):
    df = pd.DataFrame({"text": [f"row {number}" for number in range(first, last)]})
    found = df.amr.map("The number.", finding={"n": int}, lm=server.lm(), journal=sys.argv[1], plan={"shard_size": 1})
    assert list(found["n"]) == list(range(first, last))
def served():
    return ScriptedServer(lambda r: findings(r, lambda unit: {"n": int(unit["text"].split()[1])}))
with served() as server:
    run(server, 0, 5)
    workers = []
    for worker in (1, 2):
        workers.append(os.fork())
        if not workers[-1]:
            with served() as own:
                run(own, 1000 * worker, 1000 * worker + 60)
            os._exit(0)
    for part in range(3):
        run(server, 10 + 20 * part, 30 + 20 * part)
    print([os.waitpid(worker, 0)[1] for worker in workers])
journal = sqlite3.connect(sys.argv[1])
print(*journal.execute("SELECT count(*) FROM entries").fetchone(), *journal.execute("PRAGMA integrity_check").fetchone())
"""


@pytest.mark.long
def test_workers_that_are_forked_after_a_run_lose_nothing_of_the_journal(tmp_path):
    done = run_python(FORKS, tmp_path / "journal.sqlite")
    assert done.stdout.splitlines() == ["[0, 0]", "185 ok"], done.stderr
    assert "JournalWarning" not in done.stderr


# Limits of time


class OutOfTime(Exception):
    """What a task queue's soft limit raises, from its signal's handler."""


@pytest.mark.parametrize("raised", [OutOfTime, SystemExit])
@pytest.mark.parametrize("ways", ["the call", "the findings as they land"])
def test_what_a_handler_of_a_signal_raises_stops_the_run_and_its_payments(raised, ways):
    def handler(number, frame):
        raise raised("enough")

    asked = []

    def provider(request):
        asked.append(request)
        if len(asked) == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        return counted(request)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with ScriptedServer(provider, latency_s=0.05) as server:
            run = numbered(300).amr.start(
                map="The number.",
                finding={"n": int},
                reduce={"n": "sum"},
                lm=server.lm(),
                plan={"shard_size": 1},
                max_parallelism=2,
            )
            with pytest.raises(raised, match="enough") as caught:
                run.result() if ways == "the call" else list(run)
            assert run.done()
            assert len(caught.value.partial.frame) == 300
            until_then = len(asked)
            numbered(1).amr.map("The number.", finding={"n": int}, lm=server.lm())
            assert until_then < 300
            assert len(asked) <= until_then + 1 + 2  # two were on their way
    finally:
        signal.signal(signal.SIGUSR1, before)


# Nobody watches

WATCHED = """
import os, sys
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings
end = sys.argv[1]
if end == "none":
    sys.stderr = None
elif end == "closed":
    sys.stderr.close()
else:
    read, write = os.pipe()
    os.close(read)
    sys.stderr = os.fdopen(write, "w", buffering=1)
df = pd.DataFrame({"text": [f"row {number}" for number in range(6)]})
with ScriptedServer(lambda r: findings(r, lambda unit: {"n": int(unit["text"].split()[1])}), latency_s=0.2) as server:
    print(df.amr.map("N.", finding={"n": int}, lm=server.lm(), plan={"shard_size": 1}, progress=eval(sys.argv[2]))["n"].sum())
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("end", "progress"),
    [
        ("none", None),
        ("closed", True),
        ("a pipe that nobody reads", True),
        pytest.param("none", True, marks=pytest.mark.long),
        pytest.param("closed", None, marks=pytest.mark.long),
        pytest.param("a pipe that nobody reads", None, marks=pytest.mark.long),
    ],
)
def test_a_process_whose_errors_nobody_reads_has_its_findings(end, progress):
    done = run_python(WATCHED, end, progress)
    assert done.stdout.strip() == "15", done.stderr


@pytest.mark.filterwarnings("error")
def test_where_warnings_are_errors_what_was_found_is_in_the_error():
    def provider(request):
        if [unit["text"] for unit in request.units] == ["row 3"]:
            return {"findings": []}
        return counted(request)

    with ScriptedServer(provider) as server, pytest.raises(amr.FailureWarning) as caught:
        numbered(5).amr.map("The number.", finding={"n": int}, lm=server.lm(), plan={"shard_size": 1})
    assert list(caught.value.partial.frame["n"].dropna()) == [0, 1, 2, 4]


# Other processes

MADE = {
    "BudgetExceeded": lambda kind: kind("Used up.", usage="spent"),
    "NotConfirmed": lambda kind: kind("No.", estimate="3 calls"),
    "MapFailed": lambda kind: kind("Failed.", partial=lambda: "a live result"),
    "ModelUnavailable": lambda kind: kind("Busy.", retry_after_s=2.0, busy=True, status=429),
    "ModelRejected": lambda kind: kind("Long.", too_long=True, attempts=3),
}
ERRORS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, amr.AMRError)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_crosses_processes_with_all_that_it_tells_but_its_partial(kind):
    error = MADE.get(kind.__name__, lambda kind: kind("It failed."))(kind)
    error.add_note("in shard 3")
    if hasattr(error, "partial"):
        error.partial = lambda: "a live result"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.args) == (kind, str(error), error.args)
    assert {**vars(copy), "partial": None} == {**vars(error), "partial": None}
    assert getattr(copy, "partial", None) is None


# The environment


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="takes a user without an entry, whom only root can become")
def test_a_process_whose_user_has_no_home_keeps_no_journal_and_says_so():
    code = """
import os
os.environ.pop("AMR_JOURNAL")
from pandas_amr._journal.journal import open_journal
from pandas_amr.models.batch.records import Records  # while the package can be read: a checkout may be its owner's alone
os.environ.pop("HOME"), os.environ.pop("XDG_CACHE_HOME", None)
os.setuid(54321)
print(open_journal(None, by_default=True))
try:
    open_journal(True, by_default=True)
except Exception as error:
    print(type(error).__name__)
records = Records("http://127.0.0.1")
records.add("batch", ["key"])
records.drop("batch")
print(records.batches())
"""
    done = run_python(code)
    assert done.stdout.splitlines() == ["None", "JournalError", "{}"], done.stderr
    assert "This run keeps no journal. There is no cache folder" in done.stderr


@pytest.mark.long
def test_vocabularies_that_have_no_folder_leave_none_behind(tmp_path):
    code = "from pandas_amr._records.tokens import counter_for; print(counter_for('gpt-4o')('two words'))"
    done = run_python(code, HOME="/proc/nobody", XDG_CACHE_HOME="/proc/nobody", TMPDIR=tmp_path)
    assert done.stdout.strip() == "2", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_key_from_a_file_is_taken_without_its_new_line_and_no_other_sign_is_sent():
    with ScriptedServer(counted) as server:
        lm = server.lm().replace(api_key="sk-of-a-file\n")
        assert numbered(2).amr.map("The number.", finding={"n": int}, lm=lm)["n"].sum() == 1
        with pytest.raises(amr.UsageError, match="characters that no HTTP header can hold") as caught:
            numbered(2).amr.map("The number.", finding={"n": int}, lm=lm.replace(api_key="sk-\x07secret"))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["", None])
def test_an_address_that_is_empty_is_none(monkeypatch, address):
    if address is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
    model = OpenAIModel(amr.LM("m", api_key="k"))
    assert model.address[0].startswith("https://api.openai.com/v1")


def test_certificates_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/proc/nowhere/ca.pem")
    with ScriptedServer(counted) as server, pytest.raises(amr.ModelConfigError, match="SSL_CERT_FILE"):
        numbered(2).amr.map("The number.", finding={"n": int}, lm=server.lm())


class Item(BaseModel):
    n: int


def test_a_frame_that_allows_no_label_twice_may_find_many_a_unit():
    df = numbered(3).set_flags(allows_duplicate_labels=False)
    with ScriptedServer(lambda r: findings(r, lambda unit: {"items": [{"n": 1}, {"n": 2}]})) as server:
        result = df.amr.map_reduce(map="All.", finding=list[Item], reduce={"n": "sum"}, lm=server.lm())
    assert result.output["n"] == 9
    assert not result.frame.flags.allows_duplicate_labels
    assert list(result.findings.index) == [0, 0, 1, 1, 2, 2]
