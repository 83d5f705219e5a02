"""Read one file as text: decoded, or a document that is converted to Markdown."""

from __future__ import annotations

import codecs
import functools
import io
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandas_amr.errors import UsageError

PROBE_BYTES = 8192
PDF = b"%PDF-"
NEEDS_FILES = "pip install 'pandas-amr[files]' reads it"
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DOCUMENTS = frozenset({".pdf", ".docx", ".pptx", ".xlsx", ".epub"})
PAGES = frozenset({".html", ".htm"})
DECLARED_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset=["']?([\w.:-]+)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TextFile:
    """The text of a file, its size in bytes, and how it was read."""

    content: str
    size: int
    encoding: str


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not read, and why."""

    reason: str


def check_encoding(encoding: str | None) -> None:
    """Refuse an unknown encoding before anything is read.

    Raises:
        UsageError: Python has no text encoding of that name.
    """
    if encoding is None:
        return
    try:
        b" ".decode(encoding)
    except (LookupError, TypeError):
        raise UsageError(
            f"Unknown text encoding {encoding!r}. Examples: 'utf-8', 'latin-1'."
        ) from None
    except ValueError:
        return  # a known encoding, in which a space is not a whole character


def read_text_file(
    path: Path, max_bytes: int, encoding: str | None = None
) -> TextFile | SkippedFile:
    """Read a file as text, or say why that is not possible."""
    try:
        return _read_regular_file(path, max_bytes, encoding)
    except OSError as error:
        return SkippedFile(str(error.strerror))


def _read_regular_file(path: Path, max_bytes: int, encoding: str | None) -> TextFile | SkippedFile:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        return SkippedFile("not a regular file")  # to open a pipe would wait for its writer
    if about.st_size > max_bytes:
        return SkippedFile(f"{about.st_size} bytes, more than {max_bytes}")
    suffix = path.suffix.lower()
    if suffix in DOCUMENTS:
        return _convert(path, about.st_size)
    with path.open("rb") as file:
        raw = file.read(about.st_size + 1)
    if len(raw) > about.st_size:
        return SkippedFile("it grew while it was read")
    if raw.startswith(PDF):  # whatever its suffix is
        return _convert(raw, len(raw), suffix=".pdf")
    is_page = suffix in PAGES
    text = _decode(raw, encoding, is_page=is_page)
    if is_page and isinstance(text, TextFile) and _load_converter() is not None:
        page = text.content.encode("utf-8", "replace")
        return _convert(page, len(raw), suffix=".html", charset="utf-8")
    return text


def _decode(raw: bytes, encoding: str | None, *, is_page: bool) -> TextFile | SkippedFile:
    """Decode by the encoding that is given or marked, else by the first that fits.

    A library that guesses encodings (charset-normalizer) is not better: it takes Windows-1252 for
    a code page of Central Europe, and short texts for UTF-16.
    """
    marked: str | None = None
    for mark, name in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            marked = name
            break
    if encoding is not None:
        candidates = [encoding]
    elif marked is not None:
        candidates = [marked]
    elif b"\0" in raw[:PROBE_BYTES]:
        return SkippedFile("binary")
    else:
        declared = _find_declared_encoding(raw) if is_page else None
        candidates = [name for name in (declared, "utf-8", "cp1252") if name is not None]
    for name in candidates:
        try:
            return TextFile(raw.decode(name), len(raw), name)
        except UnicodeError:
            continue
    return SkippedFile(f"not text in {' or '.join(candidates)}")


def _find_declared_encoding(page: bytes) -> str | None:
    """Find the encoding that an HTML page declares, if it can be right.

    Latin-1 does not count: it is often declared without being true, and is tried last anyway.
    """
    match = DECLARED_CHARSET.search(page[:PROBE_BYTES])
    if match is None:
        return None
    declared = match[1]
    try:
        name = codecs.lookup(declared.decode()).name
        is_readable = declared.decode(name) == declared.decode()  # not so if it were UTF-16
    except (LookupError, ValueError):
        return None
    if not is_readable or name in {"ascii", "iso8859-1", "cp1252"}:
        return None
    return name


# Documents


@functools.cache
def _make_converter() -> Any:
    from markitdown import MarkItDown  # noqa: PLC0415 (an extra)

    return MarkItDown(enable_plugins=False)


def _load_converter() -> Any:
    """Return the converter of documents; None if the extra is not installed."""
    try:
        return _make_converter()
    except ImportError:
        return None


def _convert(
    source: Path | bytes, size: int, *, suffix: str = "", charset: str | None = None
) -> TextFile | SkippedFile:
    """Convert a document to Markdown.

    Args:
        source: the file, or its bytes.
        size: the size of the file.
        suffix: the kind of document that the bytes are.
        charset: the encoding of the bytes; the converter guesses wrongly for short texts.
    """
    converter = _load_converter()
    if converter is None:
        return SkippedFile(NEEDS_FILES)
    try:
        if isinstance(source, Path):
            document = converter.convert_local(str(source))
        else:
            document = _convert_bytes(converter, source, suffix, charset)
        return TextFile(str(document.text_content), size, "markdown")
    except Exception as error:  # noqa: BLE001 (a converter that is not ours meets any file; reported)
        return SkippedFile(f"{type(error).__name__}: it could not be converted")


def _convert_bytes(converter: Any, content: bytes, suffix: str, charset: str | None) -> Any:
    from markitdown import StreamInfo  # noqa: PLC0415 (an extra)

    about = StreamInfo(extension=suffix, charset=charset)
    return converter.convert_stream(io.BytesIO(content), stream_info=about)
