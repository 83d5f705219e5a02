"""What the model says in notebooks that need none: one provider per notebook or pattern, for a ``ScriptedServer``.

Each reads the rows that it is sent, as a model would, and answers as a capable one does.
"""

from __future__ import annotations

import re

from pandas_amr.testing import Call, Status, findings

NOTE = re.compile(r"(Changed|New|Deprecated)\s+in\s+version\s+(3\.\d+)(?:\.\d+)?[:.][ ]*([^\n]{0,60})")

SWEEP_PLAN = {
    "map_instruction": "Every exception handler whose body does nothing: its line, what it catches, the line of code.",
    "finding": [
        {"name": "line", "type": "int", "choices": [], "description": "where the handler begins"},
        {"name": "caught", "type": "str", "choices": [], "description": "what it catches"},
    ],
    "many_per_row": True,
    "segmentation": "rows",
    "group_columns": [],
    "view": "preview",
    "shard_size": 1000,
    "parallelism": 4,
    "where": "",
    "by": [],
    "aggregations": [{"field": "caught", "function": "value_counts"}],
    "ranking": {"field": "", "most": 10, "lowest_first": False},
    "reduce_instruction": "",
}

SWEEP_CODE = """
import ast

def find_silent_handlers(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
            yield {"line": node.lineno, "caught": ast.unparse(node.type) if node.type else "everything"}

submit([{"items": list(find_silent_handlers(source))} for source in df["content"]])
"""


def sweep_code(request):
    """Plan the sweep of a codebase, then sweep it with one cell of Python (sweep-code.ipynb)."""
    if request.schema == "plan":
        return SWEEP_PLAN
    return [Call("python_repl", {"code": SWEEP_CODE})]


def read_notes(request):
    """Find the notes on versions in chunks of a book, and sum up the newest (long-book.ipynb)."""
    if request.schema == "reduction":
        newest = [note for note in request.findings if note["version"] == "3.11"]
        news = "; ".join(f"{note['what']} ({note['kind'].lower()})" for note in newest[:4])
        return {"output": f"In 3.11: {news} ...", "sources": [note["finding"] for note in newest]}
    return findings(request, lambda unit: {"items": notes_of(unit["text"])})


def notes_of(text):
    """List the notes on versions of one chunk."""
    notes = []
    for kind, version, what in NOTE.findall(text):
        notes.append({"kind": kind, "version": version, "what": " ".join(what.split()) or None})
    return notes


def rate_reviews(request):
    """Rate reviews, and refuse number 77 for ever (patterns.ipynb, 1)."""
    if any(unit["review"].startswith("review 77:") for unit in request.units):
        return Status(400, "this content cannot be processed")
    return findings(request, rate_review)


def rate_review(unit):
    """Say what one review feels, and how many stars that is."""
    number = int(unit["review"].split()[1].rstrip(":"))
    return {"sentiment": "positive" if unit["review"].endswith("fine") else "negative", "stars": number % 5 + 1}


def total_expenses(request):
    """Have the tool ``add`` total a report, and name its most expensive category (patterns.ipynb, 2)."""
    parts = dict(part.split() for part in request.units[0]["report"].split(", "))
    amounts = {category: float(amount) for category, amount in parts.items()}
    if not request.tool_results:
        return Call("add", {"amounts": list(amounts.values())})
    total = float(request.tool_results[-1])
    return findings(request, lambda unit: {"total": total, "highest": max(amounts, key=amounts.get)})


def say_loudly(request):
    """Say each text loudly, and join what was said (patterns.ipynb, 3)."""
    if request.schema == "findings":
        return findings(request, lambda unit: {"finding": unit["text"].upper()})
    return {"output": " + ".join(finding["finding_"] for finding in request.findings), "sources": [0, 1, 2]}


def read_books(request):
    """Name the tone or the topic of a book (patterns.ipynb, 4)."""
    answer = "warm" if "tone" in request.system else "life"
    return findings(request, lambda unit: {"finding": f"{answer}: {unit['title']}"})
