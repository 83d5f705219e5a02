"""Code of a model, shown without what may be of a cell: names and structure stay."""

from __future__ import annotations

import builtins
import functools
import io
import keyword
import re
import tokenize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SHORT = 3  # letters and digits that a literal may have and stay as it is
MOST_CHARACTERS = 20_000  # of code; what is longer is not taken apart
OWN_NAMES = ("df", "pd", "np", "re", "json", "math", "findings", "submit", "ask", "self", "print")
COLUMN_METHODS = ("str", "dt", "cat", "list")  # accessors of a Series
CELL_LINE = re.compile(r'File "<cell \d+>", line (\d+)')
WORD_IN_NAME = re.compile(r"[A-Z]*[^\W\d_A-Z]+|[A-Z]+|\d+")
ERROR_NAME = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)


def mask_code(code: str, words: Collection[str], read: Iterable[str] = ()) -> str:
    """Replace what may be a part of a cell in Python code: literals, comments, and some names.

    A literal stays if it has at most three letters and digits, or is the name of a column, of a
    field, or of something in Python or pandas. A name of the model's own is replaced if the model
    has read a word of it.

    Args:
        code: what a model wrote.
        words: the names of columns and fields.
        read: the texts that the model has read of rows.

    Example:
        >>> print(mask_code("jane = df['text'] == 'I am Jane'  # Jane", {"text"}, ["I am Jane"]))
        name1 = df['text'] == '<9 characters>'  # ...
    """
    if len(code) > MOST_CHARACTERS:
        return f"({len(code):,} characters of code)"
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return f"({len(code):,} characters that are not Python)"
    if any(token.type == tokenize.ERRORTOKEN and token.string.strip() for token in tokens):
        return f"({len(code):,} characters that are not Python)"
    return _Masker(words, read).mask(code, tokens)


class _Masker:
    """Replaces tokens; a name of the model's own is replaced by the same name each time."""

    def __init__(self, words: Collection[str], read: Iterable[str]) -> None:
        self._words = words
        self._read = "\n".join(read).casefold()
        self._names: dict[str, str] = {}

    def mask(self, code: str, tokens: Iterable[tokenize.TokenInfo]) -> str:
        """Return the code with the tokens replaced, each where it stands."""
        lines = code.splitlines(keepends=True)
        shown: list[str] = []
        row, column = 1, 0
        for token in tokens:
            if token.type in {tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}:
                continue
            shown.append(_between(lines, (row, column), token.start))
            shown.append(self._mask_token(token))
            row, column = token.end
            if token.type in {tokenize.NEWLINE, tokenize.NL}:
                row, column = row + 1, 0
        return "".join(shown).rstrip("\n")

    def _mask_token(self, token: tokenize.TokenInfo) -> str:
        kind, text = token.type, token.string
        if kind == tokenize.COMMENT:
            return text if _is_short(text) else "# ..."
        if kind == tokenize.STRING:
            return self._mask_string(text)
        if kind == tokenize.NUMBER:
            return text if _is_short(text) else f"<{len(text)} digits>"
        if kind == tokenize.NAME:
            return self._mask_name(text)
        if tokenize.tok_name[kind] == "FSTRING_MIDDLE":
            return text if _is_short(text) else f"<{len(text)} characters>"
        return text

    def _mask_string(self, text: str) -> str:
        quote = '"' if text.rstrip().endswith('"') else "'"
        content = text.strip("rRbBuUfF").strip(quote)
        if _is_short(content) or content in self._words or content in known_names():
            return text
        return f"{quote}<{len(content)} characters>{quote}"

    def _mask_name(self, name: str) -> str:
        if _is_short(name) or name in self._words or name in known_names():
            return name
        if not any(len(word) >= SHORT and word in self._read for word in _split_name(name)):
            return name
        return self._names.setdefault(name, f"name{len(self._names) + 1}")


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the blanks between two tokens, and the line breaks."""
    if start[0] == end[0]:
        return " " * (end[1] - start[1])
    line = lines[start[0] - 1] if start[0] <= len(lines) else ""
    continued = " \\" if line.rstrip("\r\n").endswith("\\") else ""
    return continued + "\n" * (end[0] - start[0]) + " " * end[1]


def _split_name(name: str) -> list[str]:
    """Return the words in a name, in small letters."""
    return [word.casefold() for word in WORD_IN_NAME.findall(name)]


def _is_short(text: str) -> bool:
    return sum(map(str.isalnum, text)) <= SHORT


@functools.cache
def known_names() -> frozenset[str]:
    """The names of Python, pandas and NumPy, which say nothing of a cell."""
    import numpy as np  # noqa: PLC0415 (only code needs it)
    import pandas as pd  # noqa: PLC0415

    names = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *OWN_NAMES, *COLUMN_METHODS}
    kinds = (str, list, dict, set, re, pd, pd.DataFrame, pd.Series, pd.Index, np, np.ndarray)
    grouped = (pd.api.typing.DataFrameGroupBy, pd.api.typing.SeriesGroupBy)
    accessors = (pd.Series([""]).str, pd.Series([pd.Timestamp(0)]).dt)
    for kind in (*kinds, *grouped, *accessors, pd.Timestamp, pd.Timedelta, pd.errors):
        names.update(dir(kind))
    return frozenset(names)


@functools.cache
def _error_names() -> frozenset[str]:
    """The names of the errors of Python and pandas: one of the model's own may be of a cell."""
    import pandas as pd  # noqa: PLC0415 (only code needs it)

    names: set[str] = set()
    for home in (builtins, pd.errors):
        for name in dir(home):
            kind = getattr(home, name)
            if isinstance(kind, type) and issubclass(kind, BaseException):
                names.add(name)
    return frozenset(names)


def describe_cell_error(text: str) -> str:
    r"""Name the type and the line of the error with which a cell ended; not its message.

    Example:
        >>> describe_cell_error('Traceback:\n  File "<cell 1>", line 3, in <module>\nKeyError: 7')
        'KeyError in line 3'
    """
    names = [name.rpartition(".")[2] for name in ERROR_NAME.findall(text)]
    known = [name for name in names if name in _error_names()]
    lines = CELL_LINE.findall(text)
    kind = known[-1] if known else "an error"
    return f"{kind} in line {lines[-1]}" if lines else kind
