"""Text too large for a shard, cut at the boundaries that a reader would choose; no token is lost between pieces."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pandas_amr._records.tokens import TokenCounter

# Coarse to fine; each pattern matches the end of a part. The last cuts anywhere.
BOUNDARIES = (
    re.compile(r"\n[ \t]*\n\s*"),  # paragraphs
    re.compile(r"\n+"),  # lines
    re.compile(
        r"(?<=[.!?])[\"')\]]*\s+|(?<=[\u3002\uff01\uff1f])"
    ),  # sentences, Chinese and Japanese ones too
    re.compile(r"\s+"),  # words
)
OVERLAP_SHARE = 0.05
PART_KEY = "part"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text: ``text[start:end]``; it repeats the text from ``start`` to ``fresh`` of the piece before."""

    start: int
    fresh: int
    end: int


def split_text(text: str, *, limit: int, overlap: int, count: TokenCounter) -> list[Span]:
    """Cut a text into pieces of at most ``limit`` tokens, at paragraph, sentence, then word boundaries.

    Each piece begins with up to ``overlap`` tokens of the one before, from a word's beginning. The pieces without their
    overlaps, joined, are the text.

    Example:
        >>> text, words = "One two three. Four five six. Seven.", lambda text: len(text.split())
        >>> [text[span.start : span.end] for span in split_text(text, limit=4, overlap=1, count=words)]
        ['One two three. ', 'three. Four five six. ', 'six. Seven.']
    """
    fresh = max(1, limit - overlap)
    ends: list[int] = []
    held = 0
    previous = 0
    for end, size in _parts(text, 0, len(text), fresh, count, 0):
        if ends and held + size <= fresh:
            ends[-1] = end
            held += size
        else:
            ends.append(end)
            held = size
        previous = end
    assert previous == len(text)
    starts = [0, *ends[:-1]]
    return [
        Span(_overlap_start(text, start, overlap, count) if number else 0, start, end)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _parts(
    text: str, start: int, end: int, limit: int, count: TokenCounter, level: int
) -> Iterator[tuple[int, int]]:
    """The ends of parts within the limit, each with its size: coarse boundaries where they do, finer where not."""
    size = count(text[start:end])
    if size <= limit or end - start <= 1:
        yield end, size
        return
    if level == len(BOUNDARIES):
        middle = (start + end) // 2
        yield from _parts(text, start, middle, limit, count, level)
        yield from _parts(text, middle, end, limit, count, level)
        return
    before = start
    for match in BOUNDARIES[level].finditer(text, start, end):
        if before < match.end() < end:
            yield from _parts(text, before, match.end(), limit, count, level + 1)
            before = match.end()
    yield from _parts(text, before, end, limit, count, level + 1)


def _overlap_start(text: str, start: int, overlap: int, count: TokenCounter) -> int:
    """Where a piece begins so that it repeats whole words of the one before, up to ``overlap`` tokens."""
    begin = start
    while overlap > 0 and begin > 0:
        word = re.search(r"\S+\s*$", text[max(0, begin - 200) : begin])
        earlier = begin - len(word.group()) if word else begin
        if earlier == begin or count(text[earlier:start]) > overlap:
            break
        begin = earlier
    return begin


def pieces_of(
    record: dict[str, Any],
    *,
    limit: int,
    count: TokenCounter,
    line_of: Callable[[dict[str, Any]], str],
) -> list[str]:
    """A unit's content in pieces within the limit, each a JSON line that says which part it is.

    The small cells stand in every piece; the large ones are cut, one after another.
    """
    sizes = {key: count(line_of({key: value})) for key, value in record.items()}
    small = {
        key: value for key, value in record.items() if sizes[key] <= limit // (2 * len(record))
    }
    room = max(1, limit - count(line_of(small)) - count(line_of({PART_KEY: "999 of 999"})))
    cut: list[dict[str, Any]] = []
    for key, value in record.items():
        if key in small:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # JSON escapes cost tokens, so a piece is measured as it will stand in the line.
        spans = split_text(
            text,
            limit=room,
            overlap=int(room * OVERLAP_SHARE),
            count=lambda part: count(json.dumps(part, ensure_ascii=False)),
        )
        cut += [{key: text[span.start : span.end]} for span in spans]
    part_key = PART_KEY
    while part_key in record:
        part_key += "_"
    return [
        line_of(
            {
                part_key: f"{number} of {len(cut)}",
                **{
                    key: part.get(key, small.get(key))
                    for key in record
                    if key in part or key in small
                },
            }
        )
        for number, part in enumerate(cut, start=1)
    ]
