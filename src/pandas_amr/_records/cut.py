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
    shown = max(0, most - len(_cut_note(len(text))))
    head = shown // 2
    tail = shown - head
    return text[:head] + _cut_note(len(text) - shown) + text[len(text) - tail :]


def _cut_note(count: int) -> str:
    return f"\n[{count:,} characters left out here]\n"
