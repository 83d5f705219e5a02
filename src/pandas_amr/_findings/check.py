"""Check an answer: match its findings with the units that were asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.expressions import FINDINGS
from pandas_amr._agent.prompts import shorten_problem
from pandas_amr._agent.submission import REPL_FORM
from pandas_amr.sandbox.guest.worker import CELL_BYTES, find_large

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pandas_amr._agent.submission import Answer
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.store import Record

SHOWN_NUMBERS = 3


@dataclass(slots=True)
class Checked:
    """An answer's accepted records and its problems, each by the unit's number.

    Attributes:
        said: the accepted findings as the answer states them.
    """

    accepted: dict[int, Record] = field(default_factory=dict)
    said: dict[int, Record] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)

    def check_unit(
        self,
        number: int,
        findings: Sequence[Mapping[str, Any]],
        kind: FindingType,
        *,
        coded: bool,
    ) -> None:
        """Check the findings that name a unit: there must be one."""
        if len(findings) > 1:
            self.problems[number] = f"{len(findings)} findings, not one"
            return
        fields = dict(findings[0])
        del fields["unit"]
        self.check(number, fields, kind, coded=coded)

    def check(self, number: int, fields: dict[str, Any], kind: FindingType, *, coded: bool) -> None:
        """Check the fields of a unit's finding, and add the record or the problem."""
        large = find_large(fields)
        if large is not None:  # the check itself would take long
            megabytes = CELL_BYTES >> 20
            self.problems[number] = (
                f"{large[:100]}: it holds more than {megabytes} MB, and a cell takes no more"
            )
            return
        record, problem = kind.record(fields, coded=coded)
        if record is not None:
            self.accepted[number] = record
            self.said[number] = fields
        elif problem:
            self.problems[number] = shorten_problem(problem)
        else:
            self.problems[number] = "invalid"


def check_answer(answer: Answer, kind: FindingType, *, asked: Collection[int], of: int) -> Checked:
    """Match an answer's findings with the units that were asked.

    Nothing is accepted of an answer that names a number which does not exist *and* leaves one out:
    its findings may be shifted by a row. Of an answer that was cut off, the findings before the cut
    are accepted.

    Args:
        answer: the answer.
        kind: the type of a finding.
        asked: the numbers of the units that were asked.
        of: how many units there are, numbered from 0.
    """
    findings = _list_findings(answer)
    if findings is None:
        problem = answer.problem or "no finding: the answer has no list `findings`"
        return Checked(problems=dict.fromkeys(asked, problem))
    by_unit, unknown = _sort_by_unit(findings, of)
    missing = [number for number in asked if number not in by_unit]
    if unknown and missing:
        numbers = [repr(number)[:20] for number in unknown[:SHOWN_NUMBERS]]
        shown = ", ".join(numbers)
        problem = f"the answer names unit {shown}; units are 0 to {of - 1}"
        return Checked(problems=dict.fromkeys(asked, problem))
    problem = answer.problem or "no finding"
    checked = Checked(problems=dict.fromkeys(missing, problem))
    is_coded = answer.form == REPL_FORM
    for number in asked:
        if number in by_unit:
            checked.check_unit(number, by_unit[number], kind, coded=is_coded)
    return checked


def _list_findings(answer: Answer) -> list[Any] | None:
    """Return the findings of an answer; None if it has no list of them."""
    if not isinstance(answer.payload, dict):
        return None
    findings = answer.payload.get(FINDINGS)
    if not isinstance(findings, list):
        return None
    if answer.problem is not None:  # the answer was cut off
        return findings[:-1]  # the last one may be incomplete
    return findings


def _sort_by_unit(findings: Sequence[Any], of: int) -> tuple[dict[int, list[Record]], list[Any]]:
    """Return the findings by the number of their unit, and the numbers that do not exist."""
    by_unit: dict[int, list[Record]] = {}
    unknown: list[Any] = []
    for finding in findings:
        name = None
        if isinstance(finding, dict):
            name = finding.get("unit")
        number = read_unit_number(name)
        if number is not None and 0 <= number < of:
            by_unit.setdefault(number, []).append(finding)
        else:
            unknown.append(name)
    return by_unit, unknown


def read_unit_number(name: object) -> int | None:
    """Read the number of a unit in an answer; models write it as a text or a float, too.

    Example:
        >>> [read_unit_number(name) for name in (3, "3", 3.0, "03", True)]
        [3, 3, 3, None, None]
    """
    if isinstance(name, bool):
        return None
    if isinstance(name, int):
        return name
    if isinstance(name, float) and name.is_integer():
        return int(name)
    if isinstance(name, str) and name.isascii() and name.isdigit():
        number = int(name[:20])  # int() refuses thousands of digits
        if str(number) == name:
            return number
    return None


def check_alone(answer: Answer, kind: FindingType) -> Checked:
    """Check the flat finding of a unit that was asked alone; it may also be a list of one."""
    if answer.problem is not None:
        return Checked(problems={0: answer.problem})
    fields = answer.payload
    known_fields: Mapping[str, Any] = kind.schema["properties"]
    if FINDINGS in fields and known_fields.keys().isdisjoint(fields):
        return check_answer(answer, kind, asked=(0,), of=1)
    checked = Checked()
    checked.check(0, fields, kind, coded=False)
    return checked
