"""Any corpus as a frame: documents, files, long texts in chunks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._records.callers import warn_caller
from pandas_amr._records.counts import counted_of
from pandas_amr._records.keywords import suggest_keywords
from pandas_amr._records.refused import is_whole, show_refused
from pandas_amr._records.tokens import counter_for
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr._units.file_patterns import FoundFiles, find_files, order_files, show_path
from pandas_amr._units.file_text import SkippedFile, TextFile, check_encoding, read_text_file
from pandas_amr._units.split import Span, split_text
from pandas_amr.errors import CorpusWarning, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TEXT_COLUMN = "text"
FILE_COLUMNS = ["path", "content", "size", "encoding"]
LEFT_OUT = "left_out"  # in a frame's attrs: the paths that are not in it, each with the reason
MAX_BYTES = 20 << 20
MAX_TOTAL_BYTES = 1 << 30
SHOWN_PATHS = 3  # in a warning
LONGEST_NAME = 1024
OVERLAP = 100
OVERLAP_PART = 5  # a chunk's overlap is at most a fifth of it


@user_traceback
@suggest_keywords
def from_documents(documents: Iterable[Any] | Mapping[Any, Any]) -> pd.DataFrame:
    """Make a frame of documents, one row each.

    Args:
        documents: a list of texts or of records (dicts), or a dict of them by label.

    Returns:
        A frame with a column ``text``, or with the records' fields. A dict's keys become the index.

    Raises:
        UsageError: texts and records are mixed, or a document is neither.

    Example:
        >>> from_documents({"a.txt": "first", "b.txt": "second"})
                 text
        a.txt   first
        b.txt  second
    """
    is_frame = hasattr(documents, "columns")  # which would give the names of its columns
    if is_frame or isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
        raise UsageError(
            f"from_documents takes a list or a dict of documents, not {type(documents).__name__}."
        )
    items = list(documents)
    dtype = None if items else object
    index: pd.Index = pd.RangeIndex(len(items))
    if isinstance(documents, Mapping):
        index = pd.Index(items, dtype=dtype)
        items = list(documents.values())
    if items and all(isinstance(item, Mapping) for item in items):
        return pd.DataFrame([dict(item) for item in items], index=index)
    _check_texts(items)
    return pd.DataFrame({TEXT_COLUMN: pd.Series(items, index=index, dtype=dtype)})


def _check_texts(items: Sequence[Any]) -> None:
    """Check that documents that are not all records are all texts.

    Raises:
        UsageError: one is not.
    """
    for item in items:
        if not isinstance(item, str):
            found = "None" if item is None else type(item).__name__
            raise UsageError(
                f"from_documents takes texts, or records (dicts), all of one kind; found {found}."
            )


@user_traceback
@suggest_keywords
def read_text(
    source: str | Path, *, chunk_tokens: int = 1000, overlap: int | None = None, model: str = ""
) -> pd.DataFrame:
    """Cut a long text into chunks, at paragraph, sentence, then word boundaries.

    Args:
        source: a text, or a file: a ``Path``, or a text that names one.
        chunk_tokens: most tokens of a chunk.
        overlap: tokens of the end of a chunk that the next one repeats; default: a fifth of
            ``chunk_tokens``, at most 100.
        model: the model whose tokens are counted; default: a recent one.

    Returns:
        A frame with one row per chunk: ``text``, and ``start`` and ``end``, its place in the
        source in characters, so that ``source[start:end]`` is the chunk. Each chunk begins before
        the end of the one before it, by the overlap.

    Raises:
        UsageError: the bounds contradict each other, or the file cannot be read as text.

    Example:
        >>> read_text("One two three. Four five six.", chunk_tokens=5, overlap=0)["text"].tolist()
        ['One two three. ', 'Four five six.']
    """
    _check_tokens("chunk_tokens", chunk_tokens, least=1)
    if overlap is None:
        overlap = max(0, min(OVERLAP, chunk_tokens // OVERLAP_PART))
    _check_tokens("overlap", overlap, least=0)
    if overlap >= chunk_tokens:
        raise UsageError(
            f"read_text: overlap= must be below chunk_tokens=, not {overlap} and {chunk_tokens}."
        )
    text = _load_text(source)
    spans: list[Span] = []
    if text:
        count = counter_for(model)
        spans = split_text(text, limit=chunk_tokens, overlap=overlap, count=count)
    chunks = [text[span.start : span.end] for span in spans]
    starts = [span.start for span in spans]
    ends = [span.end for span in spans]
    columns = {
        TEXT_COLUMN: pd.Series(chunks, dtype=object),
        "start": pd.Series(starts, dtype="int64"),
        "end": pd.Series(ends, dtype="int64"),
    }
    return pd.DataFrame(columns)


def _check_tokens(name: str, value: object, *, least: int) -> None:
    """Refuse what is no number of tokens.

    Raises:
        UsageError: it is none.
    """
    if not is_whole(value, least):
        raise UsageError(
            f"read_text({name}=...) takes a whole number from {least}, not {show_refused(value)}."
        )


def _load_text(source: str | Path) -> str:
    """Return a text, or the text of a file."""
    if isinstance(source, str):
        if not _names_file(source):
            return source
    elif not isinstance(source, Path):
        raise UsageError(f"read_text takes a text or a path, not {type(source).__name__}.")
    file = read_text_file(Path(source), MAX_TOTAL_BYTES)
    if isinstance(file, SkippedFile):
        raise UsageError(f"{source} cannot be read as text: {file.reason}.")
    return file.content


def _names_file(text: str) -> bool:
    """Whether a text is the path of a file."""
    if len(text) > LONGEST_NAME or "\n" in text:
        return False
    # Path.is_file raises if the text is too long for a name; os.path.isfile returns False.
    return os.path.isfile(text)  # noqa: PTH113


@user_traceback
@suggest_keywords
def read_files(
    pattern: str | Path | Sequence[str | Path],
    *,
    encoding: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
) -> pd.DataFrame:
    """Read the files that a pattern, or any of several, names: one row each.

    Only regular files are read, each once, even if several links lead to it. Pipes are not read,
    links to folders are not followed. A file that is not text, is too large or may not be read is
    left out, and so is a folder that cannot be listed: a ``CorpusWarning`` names the first ones,
    and the frame's ``attrs["left_out"]`` lists all.
    PDF, Word, PowerPoint, Excel, EPUB and HTML are converted to Markdown if ``pandas-amr[files]``
    is installed.

    Args:
        pattern: a path with ``*``, ``?``, ``[...]`` and ``**``, such as ``"src/**/*.py"``; or a
            folder: all below it; or a list of them. If a file or folder of exactly that name
            exists, it is meant, even with ``[`` in its name.
        encoding: the encoding of all files; default: by their byte order mark, else as a page of
            HTML declares, else UTF-8, else Windows-1252.
        max_bytes: a larger file is left out.
        max_total_bytes: once so much has been read, the rest is left out.

    Returns:
        A frame with ``path``, ``content``, ``size`` in bytes and ``encoding``, in the order of the
        paths. Bytes of a path that are not UTF-8 are shown in hexadecimal.

    Raises:
        UsageError: the folder or the encoding does not exist, or no file matches.
    """
    patterns = _list_patterns(pattern)
    check_encoding(encoding)
    found = _find(patterns)
    left_out = {show_path(folder): reason for folder, reason in found.closed.items()}
    rows: list[tuple[str, str, int, str]] = []
    files = _read_each(order_files(found.paths), max_bytes, max_total_bytes, encoding)
    for path, file in files:
        if isinstance(file, SkippedFile):
            left_out[path] = file.reason
        else:
            rows.append((path, file.content, file.size, file.encoding))
    frame = pd.DataFrame(rows, columns=FILE_COLUMNS)
    frame.attrs[LEFT_OUT] = [list(item) for item in sorted(left_out.items())]
    if left_out:
        warn_caller(CorpusWarning(_describe_left_out(frame)))
    return frame


def _find(patterns: Sequence[str]) -> FoundFiles:
    """Find the files that patterns name.

    Raises:
        UsageError: there are none.
    """
    found = find_files(patterns)
    if not found.paths and not found.closed:
        names = " or ".join(map(repr, patterns)) or "an empty list"
        raise UsageError(f"No file matches {names}.")
    return found


def _read_each(
    paths: Iterable[Path], max_bytes: int, max_total_bytes: int, encoding: str | None
) -> Iterator[tuple[str, TextFile | SkippedFile]]:
    """Read files one after another, until they have ``max_total_bytes`` together."""
    total = 0
    for path in paths:
        file: TextFile | SkippedFile = SkippedFile("max_total_bytes is reached")
        if total < max_total_bytes:
            file = read_text_file(path, max_bytes, encoding)
        if isinstance(file, TextFile):
            total += file.size
        yield show_path(path), file


def _list_patterns(given: object) -> list[str]:
    """Return the patterns that ``pattern=`` holds.

    Raises:
        UsageError: one is neither a text nor a path.
    """
    patterns = [given]
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | os.PathLike):
        patterns = list(given)
    for pattern in patterns:
        if not isinstance(pattern, str | os.PathLike):
            kind = type(pattern).__name__
            raise UsageError(f"read_files takes a path, a pattern, or a list of them, not {kind}.")
    return [str(pattern) for pattern in patterns]


def _describe_left_out(frame: pd.DataFrame) -> str:
    """Name the first files that are left out of a frame, each with its reason."""
    left_out = frame.attrs[LEFT_OUT]
    shown = "; ".join(f"{path}: {reason}" for path, reason in left_out[:SHOWN_PATHS])
    if len(left_out) > SHOWN_PATHS:
        shown += " ..."
    total = len(left_out) + len(frame)
    files = counted_of(len(left_out), total, "file")
    return f"{files} were left out: {shown}"
