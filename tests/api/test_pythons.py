"""Which Pythons the tests run on: those of the machine; what is not there is named, and only what was asked for by path fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from versions import once

ROOT = Path(__file__).parents[2]
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
CASES: dict[str, tuple[list[str], int, str]] = {
    "its own alone": ([OWN], 0, "passed none; failed none; not on this machine: none"),
    "a version that is not there": ([OWN, "3.99"], 0, "passed none; failed none; not on this machine: 3.99"),
    "a path that is not there": (
        ["/no/python3", "3.98"],
        1,
        "passed none; failed /no/python3; not on this machine: 3.98",
    ),
}


@once
@pytest.mark.parametrize("case", CASES)
def test_other_pythons_are_looked_for_and_what_is_absent_is_named(case):
    wanted, code, ending = CASES[case]
    done = subprocess.run(
        [ROOT / "scripts/on_pythons", *wanted],
        env=os.environ | {"PYTHON": sys.executable, "MAKE": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == f"Other Pythons than {OWN}: {ending}"


@once
def test_an_environment_that_cannot_be_made_is_a_failure():
    done = subprocess.run(
        [ROOT / "scripts/on_pythons", sys.executable],
        env=os.environ | {"PYTHON": sys.executable, "MAKE": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"failed {OWN}; not on this machine: none" in done.stdout
