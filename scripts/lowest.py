"""Print pins on the lowest versions that pyproject.toml allows, as a constraints file for pip.

Its arguments are extras; ``required`` stands for the packages that every installation has.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?>=(?P<version>[\w.]+)")


def pin(requirement: str) -> str:
    """Turn a requirement with a lower bound, and nothing else, into a pin on that version."""
    match = REQUIREMENT.fullmatch(requirement)
    if match is None:
        raise SystemExit(
            f"{requirement!r} in pyproject.toml has no lowest version: it should be NAME>=VERSION"
        )
    return f"{match['name']}=={match['version']}"


def main(groups: list[str]) -> None:
    """Print a pin per requirement of the groups."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    known = project["optional-dependencies"] | {"required": project["dependencies"]}
    requirements = [requirement for group in groups for requirement in known[group]]
    print("\n".join(sorted({pin(requirement) for requirement in requirements})))


if __name__ == "__main__":
    main(sys.argv[1:])
