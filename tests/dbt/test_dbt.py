"""A dbt-duckdb project is built for real: what its models pay for, and what stands in the warehouse."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pandas_amr.testing import ScriptedServer, Status, findings

pytest.importorskip("dbt.adapters.duckdb", reason="make test-dbt has dbt")
duckdb = pytest.importorskip("duckdb")

HERE = Path(__file__).parent
MODELS = ("complaints", "complaints_incremental", "severity_by_product", "advice", "angry_summary")
# A part of each model's instruction, and how it is called here.
QUESTIONS = {
    "of which part": "complaints",
    "customer angry": "complaints_incremental",
    "How severe is the complaint": "severity_by_product",
}
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
ROWS = 30


class Provider:
    """A provider that can read, and refuses poison for as long as it is told to."""

    def __init__(self) -> None:
        self.refuses_poison = True

    def __call__(self, request) -> Any:
        if request.schema == "reduction":
            return {"output": f"Mend it first: {len(request.findings)} complaints.", "sources": [0]}
        if self.refuses_poison and any("poison" in unit["text"] for unit in request.units):
            return Status(400, "the content was flagged by the filter")
        names = [name for name in FIELDS if f'"{name}"' in json.dumps(request.body["response_format"])]
        return findings(request, lambda unit: {name: FIELDS[name](unit["text"]) for name in names})


def is_complaint(text: str) -> bool:
    return "broke" in text


def severity(text: str) -> int:
    return len(text) % 5 + 1 if is_complaint(text) else 0


FIELDS = {
    "is_complaint": is_complaint,
    "severity": severity,
    "part": lambda text: ("switch", "leg", "lid")[len(text) % 3] if is_complaint(text) else "none",
    "said_on": lambda text: None,
    "quotes": lambda text: [text] if is_complaint(text) else [],
    "angry": is_complaint,
}


@dataclass
class Build:
    """What a build has said and done."""

    code: int
    out: str
    err: str
    log: str
    units: Counter[str] = field(default_factory=Counter)
    requests: int = 0


class Project:
    """A project in a folder of its own, against a provider on loopback."""

    def __init__(self, folder: Path, server: ScriptedServer) -> None:
        self.folder = folder
        self.server = server
        self.guard = folder / "addresses.txt"

    def copy(self, folder: Path) -> Project:
        """The same project, with what was built, elsewhere."""
        shutil.copytree(self.folder, folder)
        return Project(folder, self.server)

    def build(self, *arguments: str, **environment: str) -> Build:
        """Run ``dbt build``, as a user does."""
        log = self.folder / "logs" / "dbt.log"
        log.unlink(missing_ok=True)
        before = len(self.server.requests)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), "build", "--no-use-colors", *arguments],
            cwd=self.folder,
            env=self._environment() | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        asked = self.server.requests[before:]
        return Build(done.returncode, done.stdout, done.stderr, log.read_text(), _count_units(asked), len(asked))

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("AMR_", "OPENAI_", "DBT_"))}
        return ours | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE / "guard"), os.environ.get("PYTHONPATH", "")])),
            "GUARD_LOG": str(self.guard),
            "DO_NOT_TRACK": "1",
            "DBT_PROFILES_DIR": ".",
            "AMR_JOURNAL": "target/amr_journal.sqlite",
            "AMR_LEASE": "off",
            "AMR_MODEL": "scripted",
            "OPENAI_BASE_URL": self.server.base_url,
            "OPENAI_API_KEY": "scripted-key",
        }

    def add(self, *reviews: tuple[int, str]) -> None:
        """Add reviews to the seed, or replace the text of those that are there."""
        path = self.folder / "seeds" / "reviews.csv"
        with path.open(newline="") as lines:
            header, *rows = list(csv.reader(lines))
        texts = dict(reviews)
        for row in rows:
            row[2] = texts.pop(int(row[0]), row[2])
        for number, text in texts.items():
            rows.append([str(number), "lamp", text, "", "2026-11-01", "2026-11-01 08:00:00+00"])
        with path.open("w", newline="") as lines:
            csv.writer(lines, lineterminator="\n").writerows([header, *rows])

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """What the warehouse answers."""
        with duckdb.connect(str(self.folder / "reviews.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def columns(self, table: str) -> dict[str, str]:
        """The types of a table's columns, as the warehouse has them."""
        return {name: kind for name, kind, *_ in self.query(f"describe {table}")}

    def tables(self) -> dict[str, str]:
        """Every table, row by row in its own order."""
        return {name: repr(self.query(f"from {name}")) for name in MODELS}

    def statuses(self, table: str) -> Counter[str]:
        """How many rows have which status."""
        return Counter(dict(self.query(f"select amr_status, count(*) from {table} group by all")))


def _count_units(requests) -> Counter[str]:
    """Count how many rows each model has asked about, those of reductions left out."""
    units: Counter[str] = Counter()
    for request in requests:
        if request.schema == "reduction":
            continue
        text = json.dumps(request.body)
        for part, name in QUESTIONS.items():
            if part in text:
                units[name] += len(request.units)
    return units


@pytest.fixture(scope="module")
def provider():
    return Provider()


@pytest.fixture(scope="module")
def server(provider):
    with ScriptedServer(provider) as server:
        yield server


@pytest.fixture(scope="module")
def first(server, tmp_path_factory):
    """The project after its first build, and what that did."""
    folder = tmp_path_factory.mktemp("dbt") / "project"
    shutil.copytree(HERE / "project", folder)
    project = Project(folder, server)
    return project, project.build()


@pytest.fixture
def built(first, provider, tmp_path):
    """A project that was built once, of the test's own."""
    provider.refuses_poison = True
    return first[0].copy(tmp_path / "project")


def passed(build: Build) -> bool:
    """Whether all models were built and all tests of the project passed; what dbt said, if not."""
    if build.code:
        pytest.fail(build.out + build.err)
    return "ERROR=0" in build.out and "WARN=0" in build.out


# The first build


def test_the_first_build_asks_every_row_once_in_each_model(first):
    _, build = first
    assert passed(build)
    assert build.units == dict.fromkeys(QUESTIONS.values(), ROWS)


def test_each_column_has_its_type_in_the_warehouse(first):
    project, _ = first
    own = {
        "id": "INTEGER",
        "product": "VARCHAR",
        "text": "VARCHAR",
        "note": "VARCHAR",  # without a value in any row
        "written_on": "DATE",
        "received_at": "TIMESTAMP WITH TIME ZONE",
    }
    status = {"amr_status": "VARCHAR", "amr_reason": "VARCHAR"}
    assert project.columns("stg_reviews") == own
    assert project.columns("complaints") == {
        **own,
        "is_complaint": "BOOLEAN",
        "severity": "BIGINT",
        "part": "VARCHAR",
        "said_on": "DATE",  # likewise
        "quotes": "VARCHAR[]",
        **status,
    }
    assert project.columns("complaints_incremental") == {**own, "angry": "BOOLEAN", **status}
    assert project.columns("severity_by_product") == {
        "product": "VARCHAR",
        "severity": "DOUBLE",
        "is_complaint": "BIGINT",
    }
    assert project.columns("advice") == {"product": "VARCHAR", "output": "VARCHAR"}


def test_values_are_those_of_the_source_and_of_the_findings(first):
    project, _ = first
    lost = """
        from stg_reviews join complaints using (id)
        where stg_reviews.written_on <> complaints.written_on or stg_reviews.received_at <> complaints.received_at
    """
    assert project.query(f"select count(*) {lost}") == [(0,)]
    assert project.query("select id, severity, quotes from complaints where id in (2, 3) order by id") == [
        (2, 0, []),
        (3, severity("The kettle broke after 3 days."), ["The kettle broke after 3 days."]),
    ]
    rows = project.query("select product, sum(severity) / count(*) from complaints group by all order by all")
    assert project.query("select product, severity from severity_by_product order by product") == rows


def test_nothing_leaves_the_machine(first):
    project, _ = first
    assert set(project.guard.read_text().split()) <= LOOPBACK


# Builds that follow


def test_the_second_build_asks_nothing_and_leaves_the_same_tables(built):
    before = built.tables()
    build = built.build()
    assert passed(build)
    assert build.requests == 0
    assert built.tables() == before


def test_a_full_refresh_asks_nothing_and_leaves_the_same_tables(built):
    before = built.tables()
    build = built.build("--full-refresh")
    assert passed(build)
    assert build.requests == 0
    assert built.tables() == before


def test_ten_new_rows_pay_for_ten_in_each_model(built):
    built.add(*((number, f"The lamp broke after {number} days.") for number in range(31, 41)))
    build = built.build()
    assert passed(build)
    assert build.units == dict.fromkeys(QUESTIONS.values(), 10)
    assert built.query("select count(*) from complaints_incremental where angry") == [(20,)]


def test_a_poisoned_row_is_marked_not_paid_for_again_and_mended_once_its_cause_has_gone(built, provider):
    built.add((31, "A poison that broke."))
    build = built.build()
    assert passed(build)
    assert "complaints.py:19: FailureWarning: The answer rests on 30 of 31 rows" in build.log
    assert "severity_by_product.py:7: FailureWarning: The answer rests on 30 of 31 rows" in build.log
    assert "complaints_incremental.py:12: FailureWarning: 1 of 1 unit failed" in build.log
    for table in ("complaints", "complaints_incremental"):
        assert built.statuses(table) == {"ok": ROWS, "failed": 1}
        [(reason,)] = built.query(f"select amr_reason from {table} where id = 31")
        assert "flagged by the filter" in reason
    assert built.query("select angry from complaints_incremental where id = 31") == [(None,)]

    before = built.tables()
    build = built.build()
    assert passed(build)
    assert build.requests == 0
    assert built.tables() == before

    provider.refuses_poison = False
    build = built.build("--vars", "{retry_failed_after: 1s}")
    assert passed(build)
    assert build.units == dict.fromkeys(QUESTIONS.values(), 1)
    for table in ("complaints", "complaints_incremental"):
        assert built.statuses(table) == {"ok": ROWS + 1}
    assert built.query("select angry from complaints_incremental where id = 31") == [(True,)]


def test_a_poisoned_row_whose_text_changes_is_asked_at_once(built):
    built.add((31, "A poison that broke."))
    built.build()
    built.add((31, "A lamp that broke."))
    build = built.build()
    assert passed(build)
    assert build.units == dict.fromkeys(QUESTIONS.values(), 1)
    assert built.statuses("complaints_incremental") == {"ok": ROWS + 1}


def test_a_warning_names_the_model_s_file_and_stands_in_dbt_s_log(built):
    built.add((31, "A poison that broke."))
    # One model alone: Python's filters of warnings are the process's, and what another thread of dbt does to them for a
    # moment may hide a warning on stderr. dbt's log has it in any case.
    build = built.build("--select", "+complaints_incremental")
    source = (HERE / "project" / "models" / "marts" / "complaints_incremental.py").read_text()
    line = source[: source.index("return amr.map")].count("\n") + 1
    said = f"models/marts/complaints_incremental.py:{line}: FailureWarning: 1 of 1 unit failed"
    assert said in build.err
    assert said in build.log
    assert "/tmp" not in "".join(row for row in build.err.splitlines() if "FailureWarning" in row)


def test_offline_the_journal_alone_answers(built):
    build = built.build(AMR_OFFLINE="1")
    assert passed(build)
    assert build.requests == 0

    built.add((31, "The lamp broke after 31 days."))
    build = built.build(AMR_OFFLINE="1")
    assert build.code == 1
    assert build.requests == 0
    assert "1 of 31 rows would be asked about" in build.out
    assert "1 of 1 row would be asked about" in build.out  # the incremental model's


ONE_BY_ONE = """
import pandas_amr as amr


def model(dbt, session):
    return amr.map(
        dbt.ref("stg_reviews"),
        "Is the customer angry, says model {number}?",
        columns=["text"],
        finding={{"angry": bool}},
        lm=amr.LM("scripted", max_parallelism=4),
        plan={{"shard_size": 1}},
    )
"""


def test_four_threads_keep_one_limit(provider, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(HERE / "project", folder)
    for number in range(4):
        (folder / "models" / f"thread_{number}.py").write_text(ONE_BY_ONE.format(number=number))
    with ScriptedServer(provider, latency_s=0.2) as server:
        build = Project(folder, server).build("--select", "+thread_0", "thread_1", "thread_2", "thread_3")
        assert passed(build)
        texts = [json.dumps(request.body) for request in server.requests]
    asked = [next(number for number in range(4) if f"says model {number}?" in text) for text in texts]
    assert Counter(asked) == dict.fromkeys(range(4), ROWS)
    assert set(asked[: ROWS * 2]) == set(range(4))  # side by side
    assert server.max_in_flight == 4


def test_a_runner_that_brings_the_journal_along_pays_nothing(built, tmp_path):
    """An ephemeral runner has a fresh checkout, an empty warehouse, and the journal of the last build."""
    shutil.copytree(HERE / "project", tmp_path / "fresh")
    (tmp_path / "fresh" / "target").mkdir()
    journal = "target/amr_journal.sqlite"
    shutil.copy(built.folder / journal, tmp_path / "fresh" / journal)
    fresh = Project(tmp_path / "fresh", built.server)
    build = fresh.build()
    assert passed(build)
    assert build.requests == 0
    assert fresh.tables() == built.tables()


# What the guide shows


def test_the_models_and_the_tests_of_the_guide_build_as_they_stand_and_the_second_time_for_nothing(built, provider):
    provider.refuses_poison = False
    guide = (HERE.parents[1] / "docs" / "guide" / "dbt.md").read_text(encoding="utf-8")
    models = re.findall(r"^```py\n# (models/\S+)\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    assert len(models) == guide.count("```py\n") == 2
    for path, code in models:
        assert (built.folder / path).exists()
        (built.folder / path).write_text(code, encoding="utf-8")
    (tests,) = re.findall(r"^```yaml\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    described = "models:\n  - name: complaints\n" + textwrap.indent(tests, "    ")
    (built.folder / "models" / "marts" / "marts.yml").write_text(described, encoding="utf-8")

    select = ["--select", *(f"+{Path(path).stem}" for path, _ in models)]
    assert passed(built.build("--full-refresh", *select))
    assert built.columns("complaints")["is_complaint"] == "BOOLEAN"
    again = built.build(*select)
    assert passed(again)
    assert again.requests == 0
