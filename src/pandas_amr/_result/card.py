"""The card of a result: what a notebook shows of it. It asks nobody and fetches nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.html import (
    Html,
    details,
    element,
    escape,
    join,
    root,
    show_unprintable,
    table,
)
from pandas_amr._records.usage import COST_COLUMNS
from pandas_amr._result.facts import (
    cost_rows,
    count_rows,
    group_failures,
    is_mapped,
    list_problems,
    list_sources,
    read_head,
    sort_columns,
)
from pandas_amr._result.tables import (
    answer_html,
    frame_table,
    note,
    write_label,
    write_labels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._result.result import Result

HEAD_ROWS = 5
MOST_COLUMNS = 16
ANSWER_ROWS = 10
TEXT_CHARACTERS = 8_000
MOST_GROUPS = 8
MOST_LABELS = 8
TASK_CHARACTERS = 500

RULES = """
.amr .amr-task { color: var(--amr-muted); }
.amr .amr-line { border-top: 1px solid var(--amr-line); padding-top: 8px; margin-top: 10px; }
.amr .amr-problem { border-left: 3px solid var(--amr-warn); padding: 2px 10px; }
.amr .amr-problem.amr-fatal { border-left-color: var(--amr-bad); }
.amr .amr-hints code { white-space: nowrap; }
"""


def result_card(result: Result, found: Sequence[str]) -> str:
    """Return the card of a result, the answer first.

    Args:
        result: the result.
        found: the names of the findings' columns.
    """
    parts = [
        _task(result),
        _answer(result),
        *problem_parts(result),
        element("p", element("b", repr(result).strip("<>")), class_="amr-line"),
        *_rows(result, found),
        _failures(result),
        _cost(result),
        _sources(result),
        _stages(result),
        _warnings(result),
        _graph(result),
        _hints(result),
    ]
    return root(*parts, more_rules=RULES)


def _task(result: Result) -> Html:
    if result.plan.task is None:
        return Html()
    return element("p", escape(result.plan.task, TASK_CHARACTERS), class_="amr-task", dir="auto")


def _answer(result: Result) -> Html:
    if result.output is None:
        return Html()
    shown = answer_html(result.output, rows=ANSWER_ROWS, characters=TEXT_CHARACTERS)
    return element("div", shown, class_="amr-answer")


def problem_parts(result: Result) -> list[Html]:
    """Show why there is no answer, or why it rests on less than all rows."""
    shown: list[Html] = []
    for problem in list_problems(result):
        class_ = "amr-problem amr-fatal" if problem.is_fatal else "amr-problem"
        shown.append(element("p", escape(problem.text, TASK_CHARACTERS), class_=class_))
    return shown


def _rows(result: Result, found: Sequence[str]) -> list[Html]:
    head = read_head(result.frame, HEAD_ROWS)
    places = sort_columns(result, head, found).in_order(MOST_COLUMNS)
    rows = count_rows(result.frame)
    if not places or not rows:
        return []
    shown: list[Html] = []
    if len(head) < rows:
        shown.append(note(f"The first {counted_of(len(head), rows, 'row')}"))
    columns = head.iloc[:, places[:MOST_COLUMNS]]
    shown.append(frame_table(columns, rows=HEAD_ROWS))
    rest = [head.columns[place] for place in places[MOST_COLUMNS:]]
    if rest:
        listed = write_labels(rest, MOST_LABELS)
        shown.append(note(f"{counted(len(rest), 'more column')}: ", listed))
    return shown


def _failures(result: Result) -> Html:
    groups = group_failures(result)
    if not groups:
        return Html()
    rows = sum(len(group.labels) for group in groups)
    summary = f"Failed: {counted(rows, 'row')}, {counted(len(groups), 'reason')}"
    return details(summary, failure_table(result, most=MOST_GROUPS), is_open=True)


def failure_table(result: Result, *, most: int) -> Html:
    """Show the failed rows by their reason."""
    groups = group_failures(result)
    rows: list[list[Any]] = []
    for group in groups[:most]:
        labels = write_labels(group.labels, MOST_LABELS)
        rows.append([group.reason, len(group.labels), group.who, labels])
    shown = table(("reason", "rows", "who", "labels"), rows, most=TASK_CHARACTERS)
    rest = len(groups) - most
    if rest <= 0:
        return shown
    return join([shown, note(f"... {counted(rest, 'more reason')}")])


def _cost(result: Result) -> Html:
    if not len(result.usage):
        return Html()
    return details("Cost", cost_table(result))


def cost_table(result: Result) -> Html:
    """Show calls, tokens and money, and apart from them what the journal had."""
    shown = [table(("phase", "model", *COST_COLUMNS), cost_rows(result))]
    estimated = result.total.estimated
    if estimated:
        shown.append(note(f"The tokens of {counted(estimated, 'request')} are estimated."))
    return join(shown)


def _sources(result: Result) -> Html:
    items = list_sources(result)
    if not items:
        return Html()
    summary = "Sources"
    if result.coverage is not None:
        summary += f": {result.coverage:.0%} of the rows are evidence for the answer"
    return details(summary, source_table(result, most=MOST_GROUPS))


def source_table(result: Result, *, most: int) -> Html:
    """Show the labels of the rows behind each item of the answer."""
    items = list_sources(result)
    assert result.sources is not None
    names = [name for name in ("group", "column") if name in result.sources.columns]
    rows: list[list[Any]] = []
    for item in items[:most]:
        parts = [write_label(getattr(item, name)) for name in names]
        labels = write_labels(item.labels, MOST_LABELS)
        if item.general:
            labels = join([labels, f" ({item.general:,} more named in bulk)"])
        rows.append([item.item, *parts, len(item.labels), labels])
    shown = table(["item", *names, "rows", "labels"], rows)
    rest = len(items) - most
    if rest <= 0:
        return shown
    return join([shown, note(f"... {counted(rest, 'more item')}")])


def _stages(result: Result) -> Html:
    if not result.stages:
        return Html()
    lines = [element("li", repr(stage).strip("<>")) for stage in result.stages]
    return details(f"Stages: {len(lines)}", element("ol", *lines, start="0"))


def _warnings(result: Result) -> Html:
    if not result.warnings:
        return Html()
    texts = list(dict.fromkeys(str(warning) for warning in result.warnings))
    lines = [element("li", escape(text, TASK_CHARACTERS)) for text in texts[:MOST_GROUPS]]
    return details(f"Warnings: {len(texts)}", element("ul", *lines))


def _graph(result: Result) -> Html:
    if not len(result.trace):
        return Html()
    return details("Graph", graph_part(result))


def graph_part(result: Result) -> Html:
    """Show the graph of the run."""
    drawing = Html(show_unprintable(result.graph().to_svg()))  # names of maps may be anything
    return element("div", drawing, class_="amr-scroll amr-graph")


def _hints(result: Result) -> Html:
    """Say which calls show more."""
    hints = ["result.usage"]
    if len(result.failures):
        hints.insert(0, "result.failures")
    if result.sources is not None:
        has_groups = "group" in result.sources.columns
        hints.append(f"result.explain(0{', group=...' * has_groups})")
    if len(result.trace):
        hints += ["result.graph()", "result.timeline()"]
    if is_mapped(result):
        hints.append("result.look(label)")
    hints.append('result.to_html("report.html")')
    codes = [element("code", hint) for hint in hints]
    return element("p", "More: ", join(codes, ", "), class_="amr-muted amr-hints")
