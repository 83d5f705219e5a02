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
BLANK_TOKENS = frozenset({tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER})
LINE_ENDS = frozenset({tokenize.NEWLINE, tokenize.NL})
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
    for token in tokens:
        if token.type == tokenize.ERRORTOKEN and token.string.strip():
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
        place = (1, 0)  # row and column
        for token in tokens:
            if token.type in BLANK_TOKENS:
                continue
            shown.append(_between(lines, place, token.start))
            shown.append(self._mask_token(token))
            place = token.end
            if token.type in LINE_ENDS:
                place = (token.end[0] + 1, 0)
        return "".join(shown).rstrip("\n")

    def _mask_token(self, token: tokenize.TokenInfo) -> str:
        kind = token.type
        text = token.string
        if kind == tokenize.STRING:
            return self._mask_string(text)
        if kind == tokenize.NAME:
            return self._mask_name(text)
        if _is_short(text):
            return text
        if kind == tokenize.COMMENT:
            return "# ..."
        if kind == tokenize.NUMBER:
            return f"<{len(text)} digits>"
        if tokenize.tok_name[kind] == "FSTRING_MIDDLE":  # no constant before Python 3.12
            return f"<{len(text)} characters>"
        return text

    def _mask_string(self, text: str) -> str:
        quote = '"' if text.rstrip().endswith('"') else "'"
        content = text.strip("rRbBuUfF").strip(quote)
        if _is_short(content) or self._is_known(content):
            return text
        return f"{quote}<{len(content)} characters>{quote}"

    def _mask_name(self, name: str) -> str:
        if _is_short(name) or self._is_known(name) or not self._has_read(name):
            return name
        if name not in self._names:
            self._names[name] = f"name{len(self._names) + 1}"
        return self._names[name]

    def _is_known(self, name: str) -> bool:
        """Whether a name is that of a column, of a field, or of something in Python or pandas."""
        return name in self._words or name in known_names()

    def _has_read(self, name: str) -> bool:
        """Whether the model has read a word of a name."""
        for word in WORD_IN_NAME.findall(name):
            if len(word) >= SHORT and word.casefold() in self._read:
                return True
        return False


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the blanks between two tokens, and the line breaks."""
    row, column = start
    end_row, end_column = end
    if row == end_row:
        return " " * (end_column - column)
    line = lines[row - 1] if row <= len(lines) else ""
    is_continued = line.rstrip("\r\n").endswith("\\")
    backslash = " \\" if is_continued else ""
    return backslash + "\n" * (end_row - row) + " " * end_column


def _is_short(text: str) -> bool:
    return sum(map(str.isalnum, text)) <= SHORT


@functools.cache
def known_names() -> frozenset[str]:
    """The names of Python, pandas and NumPy, which say nothing of a cell."""
    import numpy as np  # noqa: PLC0415 (only code needs it)
    import pandas as pd  # noqa: PLC0415

    names = {*keyword.kwlist, *keyword.softkwlist, *OWN_NAMES, *COLUMN_METHODS}
    python = (builtins, str, list, dict, set, re)
    arrays = (np, np.ndarray)
    frames = (pd, pd.errors, pd.DataFrame, pd.Series, pd.Index, pd.Timestamp, pd.Timedelta)
    grouped = (pd.api.typing.DataFrameGroupBy, pd.api.typing.SeriesGroupBy)
    texts = pd.Series([""])
    times = pd.Series([pd.Timestamp(0)])
    for kind in (*python, *arrays, *frames, *grouped, texts.str, times.dt):
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
    kind = "an error"
    for name in ERROR_NAME.findall(text):
        last = name.rpartition(".")[2]
        if last in _error_names():
            kind = last
    lines = CELL_LINE.findall(text)
    if not lines:
        return kind
    return f"{kind} in line {lines[-1]}"
