"""A hook of `make docs`: each notebook is a page, with the outputs that stand in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")
PLACE = re.compile(r'<p class="amr-place">(\d+)</p>')
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # of a terminal
SHOWN = ("text/html", "image/svg+xml", "text/markdown", "text/plain")  # the first that is there

_outputs: dict[str, list[str]] = {}  # by page: HTML that Markdown is not to read


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each notebook."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        uri = f"notebooks/{path.stem}.md"
        _outputs[uri] = []
        page = "\n\n".join(convert_cells(json.loads(path.read_text(encoding="utf-8")), uri))
        files.append(File.generated(config, uri, content=page))
    return files


def on_page_content(html: str, *, page: Page, **_: Any) -> str:
    """Put the outputs that are HTML into their places."""
    outputs = _outputs.get(page.file.src_uri, [])
    return PLACE.sub(lambda found: outputs[int(found.group(1))], html)


def convert_cells(notebook: dict[str, Any], uri: str) -> list[str]:
    """Convert the cells of a notebook into parts of a page."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if not source.strip():
            continue
        if cell["cell_type"] == "markdown":
            parts.append(LINK.sub(point_into_site, source))
        elif cell["cell_type"] == "code":
            parts.append(fence("python", source))
            parts += [convert_output(output, uri) for output in cell["outputs"]]
    return parts


def convert_output(output: dict[str, Any], uri: str) -> str:
    """Convert an output of a cell into a part of a page."""
    if output["output_type"] == "stream":
        return fence("text", "".join(output["text"]))
    if output["output_type"] == "error":
        return fence("text", f"{output['ename']}: {output['evalue']}")
    data = output["data"]
    kind = next((kind for kind in SHOWN if kind in data), None)
    if kind is None:
        raise ValueError(f"{uri}: an output of {', '.join(data)} cannot be shown on a page")
    text = "".join(data[kind])
    if kind == "text/plain":
        return fence("text", text)
    if kind == "text/markdown":
        return text
    outputs = _outputs[uri]
    outputs.append(f'<div class="amr-output">{text}</div>')
    return f'<p class="amr-place">{len(outputs) - 1}</p>'


def fence(language: str, text: str) -> str:
    """Write a block that no backticks in its text can close."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    mark = "`" * max(3, longest + 1)
    text = COLOUR.sub("", text)
    return f"{mark}{language}\n{text.rstrip()}\n{mark}"


def point_into_site(found: re.Match[str]) -> str:
    """Turn a link of a notebook into one between pages; of what is no page, the name is left."""
    text, target, place = found.groups()
    path = (NOTEBOOKS / target).resolve()
    if path.is_relative_to(DOCS):
        return f"[{text}](../{path.relative_to(DOCS).as_posix()}{place or ''})"
    if path.parent == NOTEBOOKS and path.suffix == ".ipynb":
        return f"[{text}]({path.stem}.md{place or ''})"
    name = path.relative_to(ROOT).as_posix()
    return f"`{name}`" if path.name in text else f"{text} (`{name}`)"
