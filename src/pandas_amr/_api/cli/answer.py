"""What a command answers on stdout: one JSON object, of one shape."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel

from pandas_amr._api.cli.exits import DONE, FAILED, PARTIAL
from pandas_amr._api.cli.files import iterate_records
from pandas_amr._records.terminal import escape_json
from pandas_amr._result.frames import have_findings
from pandas_amr._units.cells import cell

if TYPE_CHECKING:
    from pandas_amr._api.cli.values import MostFailed
    from pandas_amr._result.result import Result

MOST_FAILURES = 20
STATUS_OF_EXIT = {DONE: "done", FAILED: "failed", PARTIAL: "partial"}
STOPPED = "stopped"  # the status after a signal


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many rows a result has, by what became of them."""

    rows: int
    found: int
    failed: int
    skipped: int
    empty: int


def count_rows(result: Result) -> Counts:
    """Count the rows of a result."""
    rows, status = len(result.frame), result.status
    if status is None:
        return Counts(rows, rows if not len(result.failures) else 0, 0, 0, 0)
    words = status["status"].value_counts()
    return Counts(
        rows=rows,
        found=int(have_findings(status).sum()),
        failed=int(words.get("failed", 0)),
        skipped=int(words.get("skipped", 0)),
        empty=int(words.get("empty", 0)),
    )


def exit_status(result: Result, most_failed: MostFailed) -> int:
    """Return the exit status of a run that raised nothing.

    It is failed if rows were read and none has a finding, whatever may fail; done if no more rows
    failed than may; else partial.
    """
    counts = count_rows(result)
    if not counts.found and counts.failed + counts.skipped:
        return FAILED
    has_failed_reduce = len(result.failures) > 0 and bool(result.failures["position"].isna().any())
    is_whole = result.stopped is None and not counts.skipped and not has_failed_reduce
    if is_whole and most_failed.allows(counts.failed, counts.rows):
        return DONE
    return PARTIAL


def describe_result(
    result: Result, *, status: str, output: object, out: str | None, journal: str | None
) -> dict[str, Any]:
    """Describe a result as JSON has it.

    Args:
        result: the result.
        status: ``done``, ``partial``, ``failed`` or ``stopped``.
        output: the answer.
        out: the file with the rows, if they were written.
        journal: the file of the journal, if there is one.
    """
    total = result.total
    return {
        "status": status,
        "output": to_plain(output),
        **dataclasses.asdict(count_rows(result)),
        "stopped": result.stopped,
        "failures": _list_failures(result),
        "calls": total.calls,
        "from_journal": total.recalled,
        "tokens": total.tokens,
        "money": total.money,
        "seconds": round(result.seconds, 3),
        "out": out,
        "journal": journal,
    }


def _list_failures(result: Result) -> list[dict[str, Any]]:
    """List the first failures: the row's number from 0 (None: the reduce), the map, and why."""
    listed: list[dict[str, Any]] = []
    for record in result.failures.head(MOST_FAILURES).to_dict("records"):
        names = {"position": "row", "map": "map", "who": "who", "reason": "reason"}
        listed.append({name: cell(record[column]) for column, name in names.items()})
    return listed


def to_plain(output: object) -> Any:
    """Convert an answer to what JSON holds: a frame to records, a Series to an object."""
    if isinstance(output, pd.DataFrame):
        return list(iterate_records(output))
    if isinstance(output, pd.Series):
        if output.index.nlevels > 1:
            name = "value" if output.name is None else output.name
            return list(iterate_records(output.to_frame(name)))
        return cell(dict(zip(map(str, output.index), output.tolist(), strict=True)))
    if isinstance(output, BaseModel):
        return cell(output.model_dump())
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return cell(dataclasses.asdict(output))
    return cell(output)


def print_json(value: object) -> None:
    """Write a value to stdout, in one line; what is not printable is escaped, as JSON does it.

    Raises:
        BrokenPipeError: nobody reads stdout.
    """
    if sys.stdout is None:
        raise BrokenPipeError
    text = escape_json(json.dumps(value, ensure_ascii=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an old terminal
        text = escape_json(json.dumps(value))
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
