"""SVG of graphs and timelines: pictures that are legible on a light and on a dark page.

A notebook shows an SVG as an image, which knows nothing of the page around it. So lines and texts
beside boxes have colours with contrast on white and on almost black; texts in boxes are dark on the
boxes' own pale fill. No style sheet and no script: a picture can stand in any page. Every text is
escaped, and holds no character that XML forbids.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from pandas_amr._records.html import Html, element, join, show_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TEXT = "#1b1b1b"  # in boxes
LINE = "#808080"  # contrast 3.9 on white, 4.8 on #111
DASHES = "#5f5f5f"  # in boxes
NOTE = "#777777"  # of texts beside boxes: 4.5 on white, 4.2 on #111
EMPHASIS = "#d1495b"  # 4.4 on white, 4.3 on #111
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
CHARACTER_WIDTH = 0.62  # of the font's size, on average
TITLE_CHARACTERS = 400
LEAST_WIDTH = 640.0  # on a narrow page: below that, texts are too small
MINUTE, HOUR = 60.0, 3600.0


def picture(width: float, height: float, label: str, content: Iterable[str]) -> str:
    """Make the outermost element; a narrow page shows it smaller, as long as it is legible.

    It is a plain ``str``, as what ``html.root`` makes.
    """
    drawn = element(
        "svg",
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        role="img",
        aria_label=label,
        font_family=FONT,
        font_size="11",
        style=f"max-width:100%;min-width:{min(width, LEAST_WIDTH):.0f}px;height:auto",
    )
    return str(drawn)


def text(x: float, y: float, content: str, *, fill: str = TEXT, **attributes: str | None) -> Html:
    """Write a text that begins at ``x``; its line stands on ``y``."""
    return element("text", content, x=f"{x:.1f}", y=f"{y:.1f}", fill=fill, **attributes)


def box(
    x: float, y: float, width: float, height: float, *, fill: str, **attributes: str | None
) -> Html:
    """Draw a rectangle."""
    size = {"width": f"{max(0.0, width):.1f}", "height": f"{height:.1f}"}
    return element("rect", x=f"{x:.1f}", y=f"{y:.1f}", **size, fill=fill, **attributes)


def path(d: str, **attributes: str | None) -> Html:
    """Draw a path of our own; it may be longer than a text may be."""
    empty = element("path", **attributes)
    return Html(empty.replace("<path", f'<path d="{d}"', 1))


def group(title: str, *content: str) -> Html:
    """Put together what shows a title when the mouse is over it."""
    return element("g", element("title", title[:TITLE_CHARACTERS]), join(content))


def fit(name: str, width: float, size: float = 11.0, *, keep_end: bool = False) -> str:
    """Shorten a text to a width, so that it fits on average.

    Args:
        name: the text.
        width: in pixels.
        size: of the font.
        keep_end: whether the end says more than the beginning.
    """
    shown = " ".join(show_unprintable(name[:TITLE_CHARACTERS]).split())
    most = max(3, int(width / (size * CHARACTER_WIDTH)))
    if count_columns(shown) <= most:
        return shown
    characters = reversed(shown) if keep_end else shown
    kept = ""
    for character in characters:
        if count_columns(kept) + count_columns(character) > most - 1:
            break
        kept += character
    return "…" + kept[::-1] if keep_end else kept + "…"


def fit_first(
    variants: Sequence[str], width: float, size: float = 11.0, *, keep_end: bool = False
) -> str:
    """Choose the first of several texts that fits into a width; shorten the last if none does."""
    for variant in variants:
        if len(variant) < TITLE_CHARACTERS and fit(variant, width, size) == variant:
            return variant
    return fit(variants[-1], width, size, keep_end=keep_end)


def count_columns(shown: str) -> int:
    """Count the columns that a text takes: characters of East Asia take two, marks none."""
    columns = 0
    for character in shown:
        if unicodedata.combining(character):
            continue
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def show_count(number: int) -> str:
    """Write a number for people, in few characters.

    Example:
        >>> show_count(9993), show_count(123456), show_count(1234567)
        ('9,993', '123 k', '1.2 M')
    """
    if number < 100_000:
        return f"{number:,}"
    if number < 1_000_000:
        return f"{number / 1e3:.0f} k"
    return f"{number / 1e6:.1f} M"


def show_seconds(seconds: float) -> str:
    """Write a time for people, in few characters.

    Example:
        >>> [show_seconds(one) for one in (0.0042, 0.31, 9.5, 75, 3600 * 2.5)]
        ['4 ms', '0.31 s', '9.5 s', '1 min 15 s', '2 h 30 min']
    """
    if seconds < 0.0005:
        return "0 s"
    if seconds < 0.1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < MINUTE:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < HOUR:
        return _show_two(round(seconds), 60, "min", "s")
    return _show_two(round(seconds / MINUTE), 60, "h", "min")


def _show_two(amount: int, base: int, unit: str, smaller: str) -> str:
    whole, rest = divmod(amount, base)
    return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"
