"""Hooks of `make docs`: patterns in the navigation, pictures, help of commands, links elsewhere."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pandas_amr._api.cli.commands import COMMANDS

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PICTURE = re.compile(r"^!\[([^\]]*)\]\(([^)]+\.svg)\)$", re.MULTILINE)
STYLE = re.compile(r"<style>.*?</style>\n", re.DOTALL)
HELP = re.compile(r"^<!-- help of amr ?([a-z ]*) -->$", re.MULTILINE)
ROW = re.compile(r"^\|.*$", re.MULTILINE)
CODE = re.compile(r"`[^`]+`")
OUTWARD = re.compile(r"\[([^\]]*)\]\((?!\w+:)([^)#]*\.\./[^)#]*)(?:#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the patterns of the navigation by the pages that they name."""
    nav: list[Any] = config.nav or []
    config.nav = expand(nav, Path(config.docs_dir), set(list_pages(nav)))
    return config


def list_pages(items: list[Any]) -> list[str]:
    """List the pages that a navigation names without a pattern."""
    pages: list[str] = []
    for item in items:
        target = next(iter(item.values())) if isinstance(item, dict) else item
        if isinstance(target, list):
            pages.extend(list_pages(target))
        elif "*" not in target:
            pages.append(target)
    return pages


def expand(items: list[Any], docs: Path, placed: set[str]) -> list[Any]:
    """Expand patterns, in their order. A page that has a place already is left out."""
    expanded: list[Any] = []
    for item in items:
        if isinstance(item, str) and "*" in item:
            names = find_pages(item, docs)
            new = [name for name in names if name not in placed]
            placed.update(new)
            expanded.extend(new)
        elif isinstance(item, dict):
            ((title, target),) = item.items()
            inside = expand(target, docs, placed) if isinstance(target, list) else target
            expanded.append({title: inside})
        else:
            expanded.append(item)
    return expanded


def find_pages(pattern: str, docs: Path) -> list[str]:
    """List the pages that a pattern names: files of the docs, or notebooks."""
    if pattern.endswith(".ipynb"):
        return [f"notebooks/{path.stem}.md" for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(docs).as_posix() for path in sorted(docs.glob(pattern))]


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Show what a page names: pictures, help of commands; and name what is no page."""
    docs = Path(config.docs_dir)
    folder = (docs / page.file.src_uri).parent
    markdown = PICTURE.sub(partial(show_picture, folder), markdown)
    markdown = HELP.sub(show_help, markdown)
    markdown = ROW.sub(free_bars, markdown)
    return OUTWARD.sub(partial(name_file, docs, folder), markdown)


def show_picture(folder: Path, found: re.Match[str]) -> str:
    """Put a picture into the page, without its own style: that follows the system alone."""
    svg = (folder / found.group(2)).read_text(encoding="utf-8")
    return f'<figure class="amr-figure">\n{STYLE.sub("", svg)}</figure>'


def name_file(docs: Path, folder: Path, found: re.Match[str]) -> str:
    """Point a link to a notebook at its page; of a file that is no page, leave the name."""
    text, target = found.groups()
    path = (folder / target).resolve()
    if path.is_relative_to(docs):
        return found.group(0)
    if path.parent == ROOT / "notebooks" and path.suffix == ".ipynb":
        up = "../" * len(folder.relative_to(docs).parts)
        return f"[{text}]({up}notebooks/{path.stem}.md)"
    name = path.relative_to(ROOT).as_posix()
    return f"`{name}`" if path.name in text else f"{text} (`{name}`)"


def free_bars(row: re.Match[str]) -> str:
    """Write the bars in the code of a table's row as Python-Markdown reads them: unescaped."""
    return CODE.sub(lambda code: code.group(0).replace(r"\|", "|"), row.group(0))


def show_help(found: re.Match[str]) -> str:
    """Show the help of a command as a block."""
    command: click.Command = COMMANDS
    context = click.Context(command, info_name="amr", max_content_width=88, terminal_width=88)
    for name in found.group(1).split():
        assert isinstance(command, click.Group)
        command = command.commands[name]
        context = click.Context(command, parent=context, info_name=name)
    return f"```text\n{command.get_help(context)}\n```"


def on_post_build(*, config: MkDocsConfig) -> None:
    """Put the pages' sources beside them: llms.txt names these, and assistants read them."""
    docs, site = Path(config.docs_dir), Path(config.site_dir)
    for page in docs.rglob("*.md"):
        shutil.copyfile(page, site / page.relative_to(docs))
