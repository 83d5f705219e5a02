"""Any corpus as a frame: documents, files, long texts in chunks."""

from __future__ import annotations

import codecs
import functools
import io
import os
import re
import stat
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._records.tokens import counter_for
from pandas_amr._units.split import split_text
from pandas_amr.errors import CorpusWarning, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TEXT_COLUMN = "text"
LEFT_OUT = "left_out"  # in a frame's attrs: the paths that are not in it, each with the reason
MAX_BYTES = 20 << 20
MAX_TOTAL_BYTES = 1 << 30
NAMED = 3
PROBE_BYTES = 8192
LONGEST_NAME = 1024
OVERLAP = 100
OVERLAP_PART = 5  # of a small chunk, not more than a fifth
PDF = b"%PDF-"
NEEDS_FILES = "pip install 'pandas-amr[files]' reads it"
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DOCUMENTS = frozenset({".pdf", ".docx", ".pptx", ".xlsx", ".epub"})
PAGES = frozenset({".html", ".htm"})
DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset=["']?([\w.:-]+)""", re.IGNORECASE)
MAGIC = re.compile(r"[*?\[]")


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
        raise UsageError(
            f"from_documents takes a list or a dict of documents, not {type(documents).__name__}."
        )
    labelled = isinstance(documents, Mapping)
    items = list(documents.values()) if isinstance(documents, Mapping) else list(documents)
    index = (
        pd.Index(list(documents), dtype=None if items else object)
        if labelled
        else pd.RangeIndex(len(items))
    )
    if all(isinstance(item, Mapping) for item in items) and items:
        return pd.DataFrame([dict(item) for item in items], index=index)
    wrong = [type(item).__name__ for item in items if not isinstance(item, str)]
    if wrong:
        found = "None" if wrong[0] == "NoneType" else wrong[0]
        raise UsageError(
            f"from_documents takes texts, or records (dicts), all of one kind; found {found}."
        )
    return pd.DataFrame(
        {TEXT_COLUMN: pd.Series(items, index=index, dtype=None if items else object)}
    )


def read_text(
    source: str | Path, *, chunk_tokens: int = 1000, overlap: int | None = None, model: str = ""
) -> pd.DataFrame:
    """Cut a long text into chunks, at paragraph, sentence, then word boundaries.

    Args:
        source: a text, or a file: a ``Path``, or a text that names one.
        chunk_tokens: most tokens of a chunk.
        overlap: tokens with which a chunk repeats the end of the one before; default: a fifth of ``chunk_tokens``, at
            most 100.
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
    if overlap is None:
        overlap = max(0, min(OVERLAP, chunk_tokens // OVERLAP_PART))
    if chunk_tokens < 1 or not 0 <= overlap < chunk_tokens:
        raise UsageError(
            f"read_text: overlap= must be below chunk_tokens=, not {overlap} and {chunk_tokens}."
        )
    text = _content(source)
    spans = (
        split_text(text, limit=chunk_tokens, overlap=overlap, count=counter_for(model))
        if text
        else []
    )
    return pd.DataFrame(
        {
            TEXT_COLUMN: pd.Series([text[span.start : span.end] for span in spans], dtype=object),
            "start": pd.Series([span.start for span in spans], dtype="int64"),
            "end": pd.Series([span.end for span in spans], dtype="int64"),
        }
    )


def _content(source: str | Path) -> str:
    if isinstance(
        source, str
    ):  # Path.is_file raises where a text is too long for a name; os.path.isfile says no
        if len(source) > LONGEST_NAME or "\n" in source or not os.path.isfile(source):  # noqa: PTH113
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

    Only regular files are read, each once, whatever links lead to it: no pipe is waited for, no link to a folder
    followed. What is not text, too large or may not be read, folders too, is left out, told by a ``CorpusWarning``, and
    listed in the frame's ``attrs["left_out"]``.
    PDF, Word, PowerPoint, Excel, EPUB and HTML are turned into Markdown where ``pandas-amr[files]`` is installed.

    Args:
        pattern: a path with ``*``, ``?``, ``[...]`` and ``**``, such as ``"src/**/*.py"``; or a folder: all below it;
            or a list of them. What is there under exactly that name is meant, even with ``[`` in it.
        encoding: of all files; default: by their mark, else as a page of HTML declares, else UTF-8, else Windows-1252.
        max_bytes: a larger file is left out.
        max_total_bytes: once so much has been read, the rest is left out.

    Returns:
        A frame with ``path``, ``content``, ``size`` in bytes and ``encoding``, in the order of the paths. Bytes of a
        path that are not UTF-8 stand in it in hexadecimal.

    Raises:
        UsageError: there is no such folder or encoding, or nothing at all is there to be read.
    """
    patterns = _patterns(pattern)
    _check_encoding(encoding)
    matching = [path for one in patterns for path in _matching(one)]
    left_out = {_shown(path): closed.reason for path, closed in matching if closed}
    rows: list[dict[str, Any]] = []
    total = 0
    for path in _each_once(path for path, closed in matching if not closed):
        read = (
            _read(path, max_bytes, encoding)
            if total < max_total_bytes
            else _LeftOut("max_total_bytes is reached")
        )
        if isinstance(read, _LeftOut):
            left_out[_shown(path)] = read.reason
            continue
        total += read.size
        rows.append(
            {
                "path": _shown(path),
                "content": read.content,
                "size": read.size,
                "encoding": read.encoding,
            }
        )
    if not rows and not left_out:
        raise UsageError(f"No file matches {' or '.join(map(repr, patterns)) or 'an empty list'}.")
    frame = pd.DataFrame(rows, columns=["path", "content", "size", "encoding"])
    frame.attrs[LEFT_OUT] = [list(one) for one in sorted(left_out.items())]
    if left_out:
        named = "; ".join(f"{path}: {reason}" for path, reason in frame.attrs[LEFT_OUT][:NAMED])
        more = " ..." if len(left_out) > NAMED else ""
        said = f"{len(left_out)} of {len(left_out) + len(rows)} files were left out: {named}{more}"
        warnings.warn(CorpusWarning(said), stacklevel=2)
    return frame


@dataclass(frozen=True, slots=True)
class _File:
    content: str
    size: int
    encoding: str


@dataclass(frozen=True, slots=True)
class _LeftOut:
    reason: str


def _patterns(given: Any) -> list[str]:
    listed = (
        [given]
        if isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Iterable)
        else list(given)
    )
    for one in listed:
        if not isinstance(one, str | os.PathLike):
            raise UsageError(
                f"read_files takes a path, a pattern, or a list of them, not {type(one).__name__}."
            )
    return [str(one) for one in listed]


def _check_encoding(encoding: str | None) -> None:
    """Refuse an encoding that nobody knows before anything is read."""
    if encoding is None:
        return
    try:
        b" ".decode(encoding)
    except (LookupError, TypeError):
        raise UsageError(
            f"There is no encoding {encoding!r} of texts; utf-8 and latin-1 are two."
        ) from None
    except ValueError:
        return  # a space is no text in it, which says that it is known


def _shown(path: Path) -> str:
    """A path as text that every column holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _each_once(paths: Iterable[Path]) -> list[Path]:
    """Files in the order of their paths; of a file and the links to it the file, else the first link."""
    folders = functools.cache(os.path.realpath)
    ordered = sorted(dict.fromkeys(paths), key=_shown)
    first: dict[str, Path] = {}
    for path in sorted(
        ordered, key=os.path.islink
    ):  # os.path, as Path raises where a folder on the way is closed
        if not os.path.islink(path):  # noqa: PTH114
            real = f"{folders(path.parent)}/{path.name}"
        else:
            real = os.path.realpath(path) if os.path.exists(path) else str(path)  # noqa: PTH110
        first.setdefault(real, path)
    kept = set(first.values())
    return [path for path in ordered if path in kept]


def _matching(pattern: str) -> list[tuple[Path, _LeftOut | None]]:
    """The files that a pattern names, and the folders on the way that cannot be listed; links are not walked."""
    if not _is_folder(pattern) and os.path.lexists(pattern):
        return [(Path(pattern), None)]
    base, parts = _based(pattern)
    if len(parts) > 1 and not MAGIC.search(parts[0]):
        return _without_folder(base / parts[0])
    found: list[tuple[Path, _LeftOut | None]] = []
    wanted, leading = (
        _regex("/".join(parts)),
        [None if "**" in part else _regex(part) for part in parts],
    )

    def closed(error: OSError) -> None:
        found.append(
            (Path(error.filename), _LeftOut(f"a folder that cannot be listed: {error.strerror}"))
        )

    for folder, below, names in os.walk(base, followlinks=False, onerror=closed):
        inside = Path(folder).relative_to(base)
        below[:] = [name for name in below if _leads_on((*inside.parts, name), leading)]
        found += [
            (Path(folder, name), None)
            for name in names
            if wanted.fullmatch((inside / name).as_posix())
        ]
    return found


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises where a folder on the way is closed)


def _based(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """The longest part of a path that is a folder, and the pattern below it."""
    if _is_folder(Path(pattern)):
        return Path(pattern), ("**", "*")
    parts = Path(pattern).parts
    there = 0
    while there + 1 < len(parts) and _is_folder(Path(*parts[: there + 1])):
        there += 1
    return Path(*parts[:there]), parts[there:]


def _without_folder(folder: Path) -> list[tuple[Path, _LeftOut | None]]:
    """Why there is nothing below: no such folder, or one that may not be looked for."""
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return [(folder, _LeftOut(f"a folder that cannot be listed: {error.strerror}"))]
    raise UsageError(f"There is no folder {str(folder)!r}.")


def _leads_on(folder: tuple[str, ...], leading: list[re.Pattern[str] | None]) -> bool:
    """Whether files below a folder may match: by the parts of the pattern, of which None is any number of folders."""
    for name, part in zip(folder, leading, strict=False):
        if part is None:
            return True
        if not part.fullmatch(name):
            return False
    return len(folder) < len(leading)


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
    """A file as text, or why not."""
    try:
        return _text_of(path, max_bytes, encoding)
    except OSError as error:
        return _LeftOut(str(error.strerror))


def _text_of(path: Path, max_bytes: int, encoding: str | None) -> _File | _LeftOut:
    """A regular file as text, or why not. What is no regular file is not opened: a pipe would be waited for."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        return _LeftOut("no regular file")
    if about.st_size > max_bytes:
        return _LeftOut(f"{about.st_size} bytes, more than {max_bytes}")
    suffix = path.suffix.lower()
    if suffix in DOCUMENTS:
        return _converted(about.st_size, lambda one: one.convert_local(str(path)))
    with path.open("rb") as file:
        raw = file.read(about.st_size + 1)
    if len(raw) > about.st_size:
        return _LeftOut("it grew while it was read")
    if raw.startswith(PDF):  # whatever it is called
        return _converted(len(raw), lambda one: _as(".pdf", one, raw))
    marked = next((name for mark, name in MARKS if raw.startswith(mark)), None)
    if encoding is None and marked is None and b"\0" in raw[:PROBE_BYTES]:
        return _LeftOut("binary")
    declared = _declared(raw) if suffix in PAGES else []
    read = _decoded(
        raw, [encoding] if encoding else [marked] if marked else [*declared, "utf-8", "cp1252"]
    )
    if suffix in PAGES and isinstance(read, _File) and _converter() is not None:
        return _converted(
            len(raw),
            lambda one: _as(".html", one, read.content.encode("utf-8", "replace"), "utf-8"),
        )
    return read


def _declared(page: bytes) -> list[str]:
    """The encoding that a page of HTML says it is in; Latin-1 is often said and seldom so, and is tried last anyway."""
    said = DECLARED.search(page[:PROBE_BYTES])
    try:
        name = codecs.lookup(said[1].decode()).name if said else ""
        readable = (
            said is not None and said[1].decode(name) == said[1].decode()
        )  # in UTF-16 it would not be
    except (LookupError, ValueError):
        return []
    return [name] if readable and name not in {"ascii", "iso8859-1", "cp1252"} else []


def _decoded(raw: bytes, encodings: list[str]) -> _File | _LeftOut:
    for name in encodings:
        try:
            return _File(raw.decode(name), len(raw), name)
        except UnicodeError:
            continue
    return _LeftOut(f"not text in {' or '.join(encodings)}")


@functools.cache
def _markitdown() -> Any:
    from markitdown import MarkItDown  # noqa: PLC0415 (an extra)

    return MarkItDown(enable_plugins=False)


def _converter() -> Any:
    try:
        return _markitdown()
    except ImportError:
        return None


def _as(suffix: str, converter: Any, content: bytes, charset: str | None = None) -> Any:
    """Content as a document of a kind; of short texts the converter would guess a wrong encoding."""
    from markitdown import StreamInfo  # noqa: PLC0415 (an extra)

    return converter.convert_stream(
        io.BytesIO(content), stream_info=StreamInfo(extension=suffix, charset=charset)
    )


def _converted(size: int, convert: Callable[[Any], Any]) -> _File | _LeftOut:
    """What the converter makes of a document, as Markdown."""
    converter = _converter()
    if converter is None:
        return _LeftOut(NEEDS_FILES)
    try:
        return _File(str(convert(converter).text_content), size, "markdown")
    except Exception as error:  # noqa: BLE001 (a converter of somebody else's meets any file; told, with its reason)
        return _LeftOut(f"{type(error).__name__}: it could not be converted")
