"""The docs are whole: every block is run, every public name and error has an entry, what is named exists."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import pandas_amr as amr
from pandas_amr import events, testing
from test_docs import PAGES, ROOT, blocks_of

DOCS = ROOT / "docs"
LLMS = DOCS / "llms.txt"
TESTS = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
PYTHON = re.compile(r"(?i)^\W*(py|python|python3|pycon|ipython|ipython3)\b")
OPENING = re.compile(r"^\s*(?:[-*>]\s+)*(`{3,}|~{3,})(.*)$")
LIKE_PYTHON = re.compile(r"^\s*(>>> |import \w+( as \w+)?$|from [\w.]+ import |print\(|df = |result = )")
DIRECTIVE = re.compile(r"^::: pandas_amr\.([\w.]+)$", re.MULTILINE)
PICTURE = re.compile(r"^!\[(.+)\]\((?:\.\./)?pictures/(\w+)\.svg\)$", re.MULTILINE)
WITHOUT_HEADING = "    options: {show_root_heading: false, show_root_toc_entry: false}"
WAY_OUT = "**Way out.** "
NO_FIELDS = {"pages", "fanin"}  # a field of a finding, in merge=; and one that is wrong, among the errors
VERBS = ("map", "filter", "reduce", "map_reduce", "plan", "start", "mapper")
CONCEPTS = {"units", "shards", "findings", "trees", "journal", "sandbox"}

every_page = pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES]
)


class Fence(NamedTuple):
    """A fenced block of a page: the line on which it opens, and what it says of its language."""

    line: int
    language: str


def fences_of(text: str) -> tuple[list[Fence], list[str]]:
    """Read the fenced blocks of a page, and the lines outside of them."""
    fences, outside, mark = [], [], ""
    for number, line in enumerate(text.splitlines(), start=1):
        if mark:
            if line.strip().startswith(mark) and not line.strip().strip(mark[0]):
                mark = ""
        elif found := OPENING.match(line):
            mark = found.group(1)
            fences.append(Fence(number, found.group(2).strip()))
        else:
            outside.append(line)
    assert not mark, "a block has no end"
    return fences, outside


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# Every block is run


def test_blocks_are_found_in_whatever_form_they_have():
    text = "```python\n1\n```\n\n- ~~~ {.py}\n  2\n  ~~~\n\n````text\n```python\n````\n```pycon\n>>> 3\n```\n"
    fences, outside = fences_of(text)
    assert [bool(PYTHON.match(fence.language)) for fence in fences] == [True, True, False, True]
    assert outside == ["", ""]


@every_page
def test_every_python_block_is_run_by_a_test(page):
    name = page.relative_to(ROOT).as_posix()
    fences, outside = fences_of(text_of(page))
    assert all(fence.language for fence in fences) or page.name == "README.md", "a block without a language"
    assert not [line for line in outside if LIKE_PYTHON.match(line)], "Python outside of a block"
    run_here = {block.name for block in blocks_of(page)}
    for fence in fences:
        if not PYTHON.match(fence.language) or f"{name}:{fence.line}" in run_here:
            continue
        assert fence.language == "py", f"{name}:{fence.line} is run by no test"
        # What it needs stands in an environment of its own: a file of tests for that one reads the page.
        assert [test for test in TESTS if f'"{page.name}"' in text_of(test)], f"{name}:{fence.line} is run by no test"


# Every public name has an entry, and every error a way out


def test_every_public_name_has_one_entry_in_the_reference():
    entries = [name for page in PAGES for name in DIRECTIVE.findall(text_of(page))]
    public = [*amr.__all__, *(f"testing.{name}" for name in testing.__all__)]
    public += [f"events.{name}" for name in events.__all__]
    assert sorted(entries) == sorted(public)


@pytest.mark.parametrize("name", amr.errors.__all__)
def test_every_error_and_warning_says_its_way_out(name):
    assert name in amr.__all__
    text = text_of(DOCS / "errors.md")
    tree, _, entries = text.partition("\n## ")
    assert re.search(rf"\b{name}\b", tree)
    entry = entries.partition(f"\n### {name}\n\n::: pandas_amr.{name}\n{WITHOUT_HEADING}\n\n{WAY_OUT}")[2]
    sentence = entry.partition("\n")[0]
    assert len(sentence) > 60


def test_every_command_has_its_help_in_the_reference():
    click = pytest.importorskip("click")
    from pandas_amr._api.cli.commands import COMMANDS

    lines = ["<!-- help of amr -->"]
    for name, command in COMMANDS.commands.items():
        lines.append(f"<!-- help of amr {name} -->")
        if isinstance(command, click.Group):
            lines += [f"<!-- help of amr {name} {part} -->" for part in command.commands]
    text = text_of(DOCS / "reference" / "command-line.md")
    assert sorted(re.findall(r"^<!-- help .*$", text, re.MULTILINE)) == sorted(lines)


# What is named exists


def unknown_names(owner: object, names: list[str]) -> list[str]:
    """The names that are no attributes of a module or of a class' instances."""
    return [name for name in names if not hasattr(owner, name) and name not in getattr(owner, "__annotations__", {})]


@every_page
def test_names_of_the_package_exist(page):
    text = text_of(page)
    for owner, word in ((amr, "amr"), (amr.Result, "result"), (amr.Plan, "plan")):
        names = re.findall(rf"(?<![\w./-]){word}\.([A-Za-z_]\w*)", text)
        assert not set(unknown_names(owner, names)) - {"md", "json"}


@every_page
def test_fields_of_plans_and_arguments_of_classes_exist(page):
    text = text_of(page)
    fields = [name for inside in re.findall(r"plan=\{([^}]*)\}", text) for name in re.findall(r'"(\w+)":', inside)]
    assert set(fields) <= {*amr.Plan.model_fields, *NO_FIELDS}
    for owner in ("LM", "Budget", "Journal", "Limits", "Abilities", "By", "Agent", "configure", "settings"):
        known = {*inspect.signature(getattr(amr, owner)).parameters}
        if {"changes"} & known:
            known = {*inspect.signature(amr.settings).parameters, *_settings()}
        for inside in re.findall(rf"amr\.{owner}\(([^()]*)\)", text):
            assert set(re.findall(r"(?<![\w\"'])(\w+)=", inside)) <= known, f"{owner}({inside})"


def _settings() -> tuple[str, ...]:
    from pandas_amr._context.settings import NAMES

    return NAMES


@every_page
def test_files_of_the_repository_that_are_named_exist(page):
    for path in re.findall(r"`((?:tests|benchmarks|notebooks|scripts|docs|src)/[\w./-]+)`", text_of(page)):
        assert (ROOT / path).exists(), path


# The page for coding assistants


def test_the_signatures_for_assistants_are_those_of_the_functions():
    block = text_of(LLMS).partition("```text\n")[2].partition("```")[0]
    *lines, shared_line = block.strip().splitlines()
    shared = shared_line.removeprefix("<shared>: ").split(", ")
    written = {}
    for line in lines:
        verb, inside = re.match(r"(?:df\.)?amr\.(\w+)\(([^)]*)\)", line).groups()
        names = [name for name in inside.replace("<shared>", ", ".join(shared)).split(", ") if name != "*"]
        written[verb] = sorted(names)
    real = {}
    for verb in VERBS:
        parameters = inspect.signature(getattr(amr, verb)).parameters
        real[verb] = sorted(parameters.keys() - {"frame", "unnamed"})
    assert written == real


def test_the_page_for_assistants_names_every_error_and_warning():
    text = text_of(LLMS)
    roots = {"AMRWarning"}
    assert not [name for name in amr.errors.__all__ if name not in roots and not re.search(rf"\b{name}\b", text)]


def test_attributes_of_a_result_for_assistants_exist():
    line = next(line for line in text_of(LLMS).splitlines() if line.startswith("`Result`: "))
    names = re.findall(r"`([a-z_]+)(?:\([^`]*\))?`", line.partition("; `amr.load")[0])
    columns = {"label", "who", "reason", "attempts"}  # of `failures`
    assert "explain" in names
    assert not set(unknown_names(amr.Result, names)) - columns


# The pictures


def test_pictures_are_as_they_are_drawn(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "scripts" / "draw_pictures.py"), str(tmp_path)], check=True)
    drawn = {path.name: text_of(path) for path in tmp_path.iterdir()}
    assert {name.removesuffix(".svg") for name in drawn if name.endswith(".svg")} == CONCEPTS
    assert drawn == {name: text_of(DOCS / "pictures" / name) for name in drawn}


def test_each_concept_has_one_picture_with_words_for_those_who_do_not_see_it():
    pages = [*(DOCS / "concepts").glob("*.md"), DOCS / "sandbox.md"]
    pictures = [found for page in pages for found in PICTURE.findall(text_of(page))]
    assert sorted(name for _, name in pictures) == sorted(CONCEPTS)
    assert all(len(words) > 40 for words, _ in pictures)


def test_scripts_of_the_docs_are_python_of_the_lowest_version():
    for path in (ROOT / "scripts").glob("*.py"):
        ast.parse(text_of(path), feature_version=(3, 11))
