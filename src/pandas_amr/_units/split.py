"""Cut text that is too large for a shard, at the boundaries that a reader would choose."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pandas_amr._records.tokens import TokenCounter

# From coarse to fine; each pattern matches the end of a part.
BOUNDARIES = (
    re.compile(r"\n[ \t]*\n\s*"),  # paragraphs
    re.compile(r"\n+"),  # lines
    re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[\u3002\uff01\uff1f])"),  # sentences, East Asian too
    re.compile(r"\s+"),  # words
)
OVERLAP_SHARE = 0.05
WORD_CHARS = 200  # no word is searched for further back
PART_KEY = "part"
LAST_WORD = re.compile(r"\S+\s*$")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text, ``text[start:end]``. Before ``fresh`` it repeats the piece before."""

    start: int
    fresh: int
    end: int


def split_text(text: str, *, limit: int, overlap: int, count: TokenCounter) -> list[Span]:
    """Cut a text into pieces of at most ``limit`` tokens: at paragraphs, sentences, then words.

    Each piece begins with up to ``overlap`` tokens of the one before, from the beginning of a
    word. The pieces without their overlaps, joined, are the text.

    Example:
        >>> text, words = "One two three. Four five six. Seven.", lambda text: len(text.split())
        >>> spans = split_text(text, limit=4, overlap=1, count=words)
        >>> [text[span.start : span.end] for span in spans]
        ['One two three. ', 'three. Four five six. ', 'six. Seven.']
    """
    splitter = _Splitter(text, max(1, limit - overlap), count)
    ends: list[int] = []
    total = 0
    for end, size in splitter.split(0, len(text)):
        if ends and total + size <= splitter.limit:
            ends[-1] = end
            total += size
        else:
            ends.append(end)
            total = size
    assert ends[-1] == len(text)
    spans: list[Span] = []
    fresh = 0
    for end in ends:
        start = _find_overlap(text, fresh, overlap, count)
        spans.append(Span(start, fresh, end))
        fresh = end
    return spans


@dataclass(frozen=True, slots=True)
class _Splitter:
    """Cuts a text into parts of at most ``limit`` tokens."""

    text: str
    limit: int
    count: TokenCounter

    def split(self, start: int, end: int, level: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the end of each part and its size: at the coarsest boundaries that suffice."""
        size = self.count(self.text[start:end])
        if size <= self.limit or end - start <= 1:
            yield end, size
            return
        if level == len(BOUNDARIES):  # one long word
            middle = (start + end) // 2
            yield from self.split(start, middle, level)
            yield from self.split(middle, end, level)
            return
        for match in BOUNDARIES[level].finditer(self.text, start, end):
            boundary = match.end()
            if start < boundary < end:
                yield from self.split(start, boundary, level + 1)
                start = boundary
        yield from self.split(start, end, level + 1)


def _find_overlap(text: str, start: int, overlap: int, count: TokenCounter) -> int:
    """Find where a piece begins if it repeats whole words before it, up to ``overlap`` tokens.

    It goes back by ever more words until they are too many, then by ever fewer: to count after
    each word would take longer than to count the piece.
    """
    begin = start
    words = 1 if overlap > 0 else 0
    is_growing = True
    while words:
        earlier = _go_back(text, begin, words)
        if earlier < begin and count(text[earlier:start]) <= overlap:
            begin = earlier
        else:
            is_growing = False
        words = words * 2 if is_growing else words // 2
    return begin


def _go_back(text: str, begin: int, words: int) -> int:
    """Find the beginning of so many words before a place; of all there are, if these are fewer."""
    for _ in range(words):
        before = text[max(0, begin - WORD_CHARS) : begin]
        word = LAST_WORD.search(before)
        if word is None:
            break
        begin -= len(word.group())
    return begin


def split_record(
    record: dict[str, Any],
    *,
    limit: int,
    count: TokenCounter,
    to_json_line: Callable[[dict[str, Any]], str],
) -> list[str]:
    """Cut a unit's content into JSON lines within the limit, each with the number of its part.

    Every piece holds the small cells. The others, or their parts, fill the pieces in order.
    """
    small: dict[str, Any] = {}
    large: dict[str, int] = {}
    small_limit = limit // (2 * len(record))
    for key, value in record.items():
        tokens = count(to_json_line({key: value}))
        if tokens <= small_limit:
            small[key] = value
        else:
            large[key] = tokens
    numbering = count(to_json_line({PART_KEY: "999 of 999"}))
    piece_limit = max(1, limit - count(to_json_line(small)) - numbering)
    pieces = _fill_pieces(record, large, piece_limit, count, to_json_line)
    return _write_pieces(record, small, pieces, to_json_line)


def _fill_pieces(
    record: Mapping[str, Any],
    sizes: Mapping[str, int],
    limit: int,
    count: TokenCounter,
    to_json_line: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """Fill pieces of about ``limit`` tokens with cells, or their parts, in order.

    Args:
        record: holds the cells.
        sizes: how many tokens each of those cells takes that are to be in the pieces.
        limit: as many tokens a piece may take; a part of a cell takes those of its key beside it.
        count: counts tokens.
        to_json_line: writes cells.
    """
    piece: dict[str, Any] = {}
    pieces = [piece]
    room = limit
    for key, size in sizes.items():
        parts: list[tuple[Any, int]] = [(record[key], size)]
        if size > limit:
            texts = _split_cell(record[key], limit, count)
            parts = [(text, count(to_json_line({key: text}))) for text in texts]
        for part, tokens in parts:
            if piece and (tokens > room or key in piece):
                piece = {}
                pieces.append(piece)
                room = limit
            piece[key] = part
            room -= tokens
    return pieces


def _write_pieces(
    record: dict[str, Any],
    small: dict[str, Any],
    pieces: Sequence[dict[str, Any]],
    to_json_line: Callable[[dict[str, Any]], str],
) -> list[str]:
    """Write each piece beside the small cells, in the record's order."""
    part_key = PART_KEY
    while part_key in record:
        part_key += "_"
    lines: list[str] = []
    for number, piece in enumerate(pieces, start=1):
        cells = small | piece
        line = {part_key: f"{number} of {len(pieces)}"}
        for name in record:
            if name in cells:
                line[name] = cells[name]
        lines.append(to_json_line(line))
    return lines


def _split_cell(value: object, limit: int, count: TokenCounter) -> list[str]:
    """Cut a cell into texts that take at most ``limit`` tokens in a JSON line."""

    def count_as_json(part: str) -> int:
        escaped = json.dumps(part, ensure_ascii=False)  # escapes cost tokens
        return count(escaped)

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    overlap = int(limit * OVERLAP_SHARE)
    spans = split_text(text, limit=limit, overlap=overlap, count=count_as_json)
    return [text[span.start : span.end] for span in spans]
