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


LEDGER_CODE = """
lines = df[["unit"]].copy()
lines["category"] = df["Category"]
lines["amount"] = df["Sales"].round(4)
is_loss = df["Profit"] < 0
lines["cause"] = "none"
lines.loc[is_loss, "cause"] = "price"
lines.loc[is_loss & (df["Discount"] >= 0.3), "cause"] = "discount"
submit(lines)
"""


def read_ledger(request):
    """Hand in a finding for each line of a ledger, with one cell of Python (expense-ledger.ipynb)."""
    return Call("python_repl", {"code": LEDGER_CODE})


COMPLAINTS = {
    "sound": ("sound", "audio", "noise", "volume", "headphone", "speaker"),
    "battery": ("battery", "charge", "power"),
    "screen": ("screen", "display", "lcd"),
    "handling": ("button", "menu", "software", "control", "install"),
    "support": ("support", "service", "warranty", "manual"),
}
UNHAPPY = ("not ", "n't", "no ", "problem", "poor", "bad", "disappoint", "difficult", "annoy", "cheap", "fail", "weak")


def read_complaints(request):
    """Find complaints in sentences of reviews, then write a summary of them (reviews-summary.ipynb)."""
    if request.schema != "reduction":
        return findings(request, lambda unit: complaint_of(unit["text"]))
    numbers_by_topic = {}
    for finding in request.findings:
        if finding["topic"] is not None:
            numbers_by_topic.setdefault(finding["topic"], []).append(finding["finding"])
    rows = []
    for topic, numbers in sorted(numbers_by_topic.items(), key=lambda item: -len(item[1])):
        advice = f"Look into the {topic} first." if not rows else f"Then look into the {topic}."
        rows.append({"topic": topic, "advice": advice, "sources": numbers})
    return {"output": rows, "sources": []}


def complaint_of(text):
    """Say what a sentence complains about; nothing if it does not complain."""
    words = text.lower()
    topic = None
    if any(word in words for word in UNHAPPY):
        topic = next((name for name, signs in COMPLAINTS.items() if any(sign in words for sign in signs)), None)
    return {"topic": topic, "severity": None if topic is None else 1 + words.count("!") + ("very" in words)}


MEANINGS = {
    "Sales": ("amount", "dollars"),
    "Profit": ("amount", "dollars"),
    "Discount": ("share", None),
    "Quantity": ("count", "pieces"),
    "Postal Code": ("code", None),
}


def describe_columns(request):
    """Describe each column of a table by its profile (data-dictionary.ipynb)."""
    return findings(request, describe_column)


def describe_column(unit):
    """Say what one column means."""
    kind, measured_in = MEANINGS.get(unit["column"], ("category", None))
    is_place = unit["column"] in {"Country", "City", "State", "Region", "Postal Code"}
    about = "where the goods went" if is_place else f"the {unit['column'].lower()} of the line"
    return {"kind": kind, "measured_in": measured_in, "about": about}


STORES = {"A12": "Leeds", "B07": "Bath", "C31": "Hull"}


def read_tickets(request):
    """Look up the shop of a ticket and judge it, each persona in its own way (tools-and-personas.ipynb)."""
    if "lawyer" in request.system:
        return findings(request, lambda unit: {"risk": "injury" in unit["ticket"] or "refund" in unit["ticket"]})
    if not request.tool_results:
        codes = [re.search(r"[A-C]\d\d", unit["ticket"]).group() for unit in request.units]
        return [Call("town_of", {"code": code}) for code in codes]
    towns = list(request.tool_results)
    return findings(request, lambda unit: {"town": towns[unit["unit"]], "urgent": "injury" in unit["ticket"]})
