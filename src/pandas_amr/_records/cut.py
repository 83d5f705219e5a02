"""Cut long texts, and say how much is left out."""

from __future__ import annotations


def cut_middle(text: str, most: int | None) -> str:
    """Cut a text to a number of characters: its beginning, how much is left out, and its end.

    Example:
        >>> print(cut_middle("a" * 50 + "b" * 50, 60))
        aaaaaaaaaaaaaa
        [72 characters left out here]
        bbbbbbbbbbbbbb
    """
    if most is None or len(text) <= most:
        return text
    longest_note = _cut_note(len(text))
    shown = max(0, most - len(longest_note))
    note = _cut_note(len(text) - shown)
    head_size = shown // 2
    tail_size = shown - head_size
    head = text[:head_size]
    tail = text[len(text) - tail_size :]
    return head + note + tail


def _cut_note(count: int) -> str:
    return f"\n[{count:,} characters left out here]\n"
