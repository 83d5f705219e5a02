"""Text of rows and of models, made safe to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.counts import counted

if TYPE_CHECKING:
    from collections.abc import Callable


def escape_unprintable(text: str) -> str:
    r"""Escape what a terminal might obey: control characters, and those that turn text around.

    All that Unicode does not call printable is escaped, line breaks among it.

    Example:
        >>> print(escape_unprintable("red \x1b[31m, back \u202e, next\nline"))
        red \x1b[31m, back \u202e, next\nline
    """
    return _escape(text, _escape_in_python)


def escape_json(text: str) -> str:
    r"""Escape in a JSON text what a terminal might obey; it means the same.

    A JSON text without line breaks has such characters within strings only.

    Example:
        >>> print(escape_json('["back \u202e", "tag \U000e0041"]'))
        ["back \u202e", "tag \udb40\udc41"]
    """
    return _escape(text, _escape_in_json)


def _escape(text: str, escape: Callable[[str], str]) -> str:
    """Escape each character that is not printable."""
    if text.isprintable():
        return text
    parts: list[str] = []
    for character in text:
        parts.append(character if character.isprintable() else escape(character))
    return "".join(parts)


def _escape_in_python(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _escape_in_json(character: str) -> str:
    """Escape a character as JSON does it: one beyond U+FFFF as a pair of surrogates."""
    code = character.encode("utf-16-be", "surrogatepass").hex()
    units = [code[:4], code[4:]]
    return "".join(f"\\u{unit}" for unit in units if unit)


def shorten_lines(text: str, *, most_lines: int, most_characters: int) -> list[str]:
    r"""Split a text into lines that are safe to print; those left out are counted.

    Example:
        >>> shorten_lines("one\ntwo\nthree", most_lines=2, most_characters=80)
        ['one', 'two', '... 1 more line']
    """
    lines = text.split("\n")
    shown: list[str] = []
    for line in lines[:most_lines]:
        cut = line[:most_characters]
        rest = len(line) - len(cut)
        safe = escape_unprintable(cut)
        if rest:
            safe += f" ... {counted(rest, 'more character')}"
        shown.append(safe)
    more = len(lines) - len(shown)
    if more:
        shown.append(f"... {counted(more, 'more line')}")
    return shown
