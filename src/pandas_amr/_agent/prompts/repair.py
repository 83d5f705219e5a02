"""The prompts that ask for an answer again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_PROBLEMS = 3  # different problems that are described
PROBLEM_CHARS = 1000  # of all problems together, and of a single one
SOME_AGAIN = "These findings cannot be used. Report them again, for these unit numbers only:"
ALL_AGAIN = (
    "These findings cannot be used. Report those of all units again. What is wrong with some:"
)


def map_repair(problems: Mapping[int, str], *, hand_in: str = "") -> str:
    """Name the units whose findings cannot be used, and why.

    Equal problems are described once, and only the first three different ones.

    Args:
        problems: the problem of each unit, by its number.
        hand_in: how to submit, from ``by_tool`` or ``by_line``; empty if the answer is JSON.

    Example:
        >>> print(map_repair({0: "no finding", 1: "no finding", 3: "n: too large"}))
        These findings cannot be used. Report them again, for these unit numbers only:
        - units 0 to 1: no finding
        - unit 3: n: too large
    """
    units = _units_by_problem(problems)
    described = list(units)[:MOST_PROBLEMS]
    head = SOME_AGAIN
    names = {problem: unit_ranges(units[problem]) for problem in described}
    others = _other_units(units)
    if len("".join([*names.values(), others])) > PROBLEM_CHARS // 2:
        # The numbers alone would be too long: one example of each problem has to do.
        head = ALL_AGAIN
        names = {problem: f"unit {units[problem][0]}" for problem in described}
        others = ""
    most = PROBLEM_CHARS // 2 // len(described)
    lines = [head]
    lines += [f"- {name}: {shorten_problem(problem, most)}" for problem, name in names.items()]
    if others:
        lines.append(f"- {others}: other problems")
    if hand_in:
        lines.append(hand_in)
    return "\n".join(lines)


def _units_by_problem(problems: Mapping[int, str]) -> dict[str, list[int]]:
    units: dict[str, list[int]] = {}
    for number, problem in problems.items():
        units.setdefault(problem, []).append(number)
    return units


def _other_units(units: Mapping[str, list[int]]) -> str:
    """Return the units with problems that are not described."""
    numbers: list[int] = []
    for problem in list(units)[MOST_PROBLEMS:]:
        numbers += units[problem]
    return unit_ranges(numbers) if numbers else ""


def unit_ranges(numbers: Sequence[int]) -> str:
    """Return unit numbers as ranges.

    Example:
        >>> unit_ranges([0, 1, 2, 5]), unit_ranges([7])
        ('units 0 to 2, 5', 'unit 7')
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    parts = []
    for first, last in ranges:
        parts.append(str(first) if first == last else f"{first} to {last}")
    noun = "units" if len(numbers) > 1 else "unit"
    return f"{noun} {', '.join(parts)}"


def answer_repair(problem: str, *, hand_in: str = "") -> str:
    """Say why an answer as a whole cannot be used, and how to submit another one."""
    again = hand_in or "Answer again, in full."
    return f"This answer cannot be used: {shorten_problem(problem)}. {again}"


def by_tool(what: str) -> str:
    """Say by which tool to submit."""
    return f"Hand in with the tool `submit_{what}`."


def by_line(line: str) -> str:
    """Say by which line of code to submit."""
    return f"Hand in from `python_repl`:\n{line}"


def shorten_problem(problem: str, most: int = PROBLEM_CHARS) -> str:
    """Cut the description of a problem where it is too long to help.

    Example:
        >>> len(shorten_problem("x" * 5000)), shorten_problem("n: Input should be a valid integer")
        (1000, 'n: Input should be a valid integer')
    """
    return problem if len(problem) <= most else f"{problem[: most - 4]} ..."
