"""Any corpus as a frame: documents, files, long texts in chunks."""

from __future__ import annotations

import codecs
import os
import re
import stat
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._split import split_text
from pandas_amr._tokens import counter_for
from pandas_amr.errors import CorpusWarning, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TEXT_COLUMN = "text"
LEFT_OUT = "left_out"  # in a frame's attrs: the paths that are not in it, each with the reason
MAX_BYTES = 20 << 20
MAX_TOTAL_BYTES = 1 << 30
NAMED = 3
PROBE_BYTES = 8192
LONGEST_NAME = 1024
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CONVERTED = frozenset({".pdf", ".docx", ".pptx", ".xlsx", ".epub", ".html", ".htm"})


def from_documents(documents: Iterable[Any] | Mapping[Any, Any]) -> pd.DataFrame:
    """Make a frame of documents: one row each.

    Args:
        documents: a list of texts or of records (dicts), or a dict of them by label.

    Returns:
        A frame with a column ``text``, or with the records' fields; labelled by the dict's keys where there are any.

    Raises:
        UsageError: texts and records are mixed, or there is neither.

    Example:
        >>> from_documents({"a.txt": "first", "b.txt": "second"})
                 text
        a.txt   first
        b.txt  second
    """
    if isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
        raise UsageError(f"from_documents takes a list or a dict of documents, not {type(documents).__name__}.")
    labelled = isinstance(documents, Mapping)
    items = list(documents.values()) if isinstance(documents, Mapping) else list(documents)
    index = pd.Index(list(documents), dtype=None if items else object) if labelled else pd.RangeIndex(len(items))
    if all(isinstance(item, Mapping) for item in items) and items:
        return pd.DataFrame([dict(item) for item in items], index=index)
    wrong = next((item for item in items if not isinstance(item, str)), None)
    if wrong is not None:
        raise UsageError(
            f"from_documents takes texts, or records (dicts), all of one kind; found {type(wrong).__name__}."
        )
    return pd.DataFrame({TEXT_COLUMN: pd.Series(items, index=index, dtype=None if items else object)})


def read_text(source: str | Path, *, chunk_tokens: int = 1000, overlap: int = 100, model: str = "") -> pd.DataFrame:
    """Cut a long text into chunks, at paragraph, sentence, then word boundaries.

    Args:
        source: a text, or a file: a ``Path``, or a text that names one.
        chunk_tokens: most tokens of a chunk.
        overlap: tokens with which a chunk repeats the end of the one before.
        model: whose tokens are counted; default: those of recent models.

    Returns:
        A frame with one row a chunk: ``text``, and ``start`` and ``end``, its place in the source, in characters. The
        sources' ``[start:end]`` are the chunks; each begins before the one before has ended, by the overlap.

    Raises:
        UsageError: the bounds cannot be kept, or the file cannot be read as text.

    Example:
        >>> read_text("One two three. Four five six.", chunk_tokens=5, overlap=0)["text"].tolist()
        ['One two three. ', 'Four five six.']
    """
    if chunk_tokens < 1 or not 0 <= overlap < chunk_tokens:
        raise UsageError(f"read_text: overlap= must be below chunk_tokens=, not {overlap} and {chunk_tokens}.")
    text = _content(source)
    spans = split_text(text, limit=chunk_tokens, overlap=overlap, count=counter_for(model)) if text else []
    return pd.DataFrame(
        {
            TEXT_COLUMN: pd.Series([text[span.start : span.end] for span in spans], dtype=object),
            "start": pd.Series([span.start for span in spans], dtype="int64"),
            "end": pd.Series([span.end for span in spans], dtype="int64"),
        }
    )


def _content(source: str | Path) -> str:
    if isinstance(source, str):
        short = len(source) <= LONGEST_NAME and "\n" not in source and "\0" not in source
        if not short or not Path(source).is_file():
            return source
    elif not isinstance(source, Path):
        raise UsageError(f"read_text takes a text or a path, not {type(source).__name__}.")
    try:
        read = _read(Path(source), MAX_TOTAL_BYTES)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}.") from None
    if isinstance(read, _LeftOut):
        raise UsageError(f"{source} cannot be read as text: {read.reason}.")
    return read.content


def read_files(
    pattern: str | Path | Sequence[str | Path],
    *,
    encoding: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
) -> pd.DataFrame:
    """Read the files that a pattern, or any of several, names: one row each.

    Only regular files are read, each once: no pipe is waited for, no link to a folder followed. What is not text, too
    large or unreadable is left out, told by a ``CorpusWarning``, and listed in the frame's ``attrs["left_out"]``.
    PDF, Word, PowerPoint, Excel, EPUB and HTML are turned into Markdown where ``pandas-amr[files]`` is installed.

    Args:
        pattern: a path with ``*``, ``?``, ``[...]`` and ``**``, such as ``"src/**/*.py"``; or a folder: all below it;
            or a list of them.
        encoding: of all files; default: by their mark, else UTF-8, else Windows-1252.
        max_bytes: a larger file is left out.
        max_total_bytes: once so much has been read, the rest is left out.

    Returns:
        A frame with ``path``, ``content``, ``size`` in bytes and ``encoding``, in the order of the paths.

    Raises:
        UsageError: there is no such folder, or nothing at all is there to be read.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[list[str]] = []
    total = 0
    patterns = [str(one) for one in ([pattern] if isinstance(pattern, str | Path) else pattern)]
    for path in dict.fromkeys(path for one in patterns for path in _matching(one)):
        try:
            read = (
                _read(path, max_bytes, encoding) if total < max_total_bytes else _LeftOut("max_total_bytes is reached")
            )
        except OSError as error:
            read = _LeftOut(str(error.strerror))
        if isinstance(read, _LeftOut):
            left_out.append([str(path), read.reason])
            continue
        total += read.size
        rows.append({"path": str(path), "content": read.content, "size": read.size, "encoding": read.encoding})
    if not rows and not left_out:
        raise UsageError(f"No file matches {' or '.join(map(repr, patterns))}.")
    if left_out:
        named = "; ".join(f"{path}: {reason}" for path, reason in left_out[:NAMED])
        more = " ..." if len(left_out) > NAMED else ""
        said = f"{len(left_out)} of {len(left_out) + len(rows)} files were left out: {named}{more}"
        warnings.warn(CorpusWarning(said), stacklevel=2)
    frame = pd.DataFrame(rows, columns=["path", "content", "size", "encoding"])
    frame.attrs[LEFT_OUT] = left_out
    return frame


@dataclass(frozen=True, slots=True)
class _File:
    content: str
    size: int
    encoding: str


@dataclass(frozen=True, slots=True)
class _LeftOut:
    reason: str


def _matching(pattern: str) -> Iterator[Path]:
    """The files that a pattern names, in order; folders behind links are not walked."""
    if Path(pattern).is_dir():
        pattern = str(Path(pattern) / "**" / "*")
    parts = Path(pattern).parts
    magic = next((place for place, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
    base = Path(*parts[:magic]) if magic else Path()
    if not base.is_dir():
        raise UsageError(f"There is no folder {str(base)!r}.")
    wanted = _regex("/".join(parts[magic:]))
    for folder, below, names in os.walk(base, followlinks=False):
        below.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if wanted.fullmatch(path.relative_to(base).as_posix()):
                yield path


def _regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression: ``**/`` is any number of folders, and the rest never crosses one."""
    made: list[str] = []
    place = 0
    while place < len(pattern):
        rest = pattern[place:]
        if rest.startswith("**/"):
            made.append("(?:[^/]+/)*")
            place += 3
        elif rest.startswith("**"):
            made.append(".*")
            place += 2
        elif rest[0] == "[" and "]" in rest[2:]:
            end = rest.index("]", 2)
            inner = rest[1:end].replace("\\", r"\\")
            made.append(f"[{'^' + inner[1:] if inner.startswith('!') else inner}]")
            place += end + 1
        else:
            made.append({"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0])))
            place += 1
    try:
        return re.compile("".join(made))
    except re.error as error:
        raise UsageError(f"The pattern {pattern!r} cannot be used: {error}.") from None


def _read(path: Path, max_bytes: int, encoding: str | None = None) -> _File | _LeftOut:
    """A regular file as text, or why not. What is no regular file is not opened: a pipe would be waited for."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        return _LeftOut("no regular file")
    if about.st_size > max_bytes:
        return _LeftOut(f"{about.st_size} bytes, more than {max_bytes}")
    if path.suffix.lower() in CONVERTED and (convert := _converter()) is not None:
        return _converted(path, about.st_size, convert)
    with path.open("rb") as file:
        raw = file.read(about.st_size + 1)
    if len(raw) > about.st_size:
        return _LeftOut("it grew while it was read")
    marked = next((name for mark, name in MARKS if raw.startswith(mark)), None)
    if encoding is None and marked is None and b"\0" in raw[:PROBE_BYTES]:
        return _LeftOut("binary")
    return _decoded(raw, [encoding] if encoding else [marked] if marked else ["utf-8", "cp1252"])


def _decoded(raw: bytes, encodings: list[str]) -> _File | _LeftOut:
    for name in encodings:
        try:
            return _File(raw.decode(name), len(raw), name)
        except (UnicodeDecodeError, LookupError):
            continue
    return _LeftOut(f"not text in {' or '.join(encodings)}")


def _converter() -> Callable[[str], Any] | None:
    try:
        from markitdown import MarkItDown  # noqa: PLC0415 (an extra)
    except ImportError:
        return None
    convert: Callable[[str], Any] = MarkItDown(enable_plugins=False).convert_local
    return convert


def _converted(path: Path, size: int, convert: Callable[[str], Any]) -> _File | _LeftOut:
    try:
        return _File(str(convert(str(path)).text_content), size, "markdown")
    except Exception as error:  # noqa: BLE001 (a converter of somebody else's meets any file; told, with its reason)
        return _LeftOut(f"{type(error).__name__}: it could not be converted")
