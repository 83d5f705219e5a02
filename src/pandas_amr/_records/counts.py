"""Numbers of things, as people read them."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number of things.

    Args:
        number: how many there are.
        noun: what one of them is called.
        plural: what several are called, if that is not the noun with an ``s``.

    Example:
        >>> counted(1, "row"), counted(1200, "row"), counted(2, "try", "tries")
        ('1 row', '1,200 rows', '2 tries')
    """
    return f"{number:,} {noun_for(number, noun, plural)}"


def noun_for(number: float, noun: str, plural: str | None = None) -> str:
    """Return the noun that goes with a number which is written otherwise than by ``counted``."""
    if number == 1:
        return noun
    return plural or f"{noun}s"


def counted_of(part: int, whole: int, noun: str) -> str:
    """Write how many of some things.

    Example:
        >>> counted_of(0, 1, "row"), counted_of(1, 1200, "row")
        ('0 of 1 row', '1 of 1,200 rows')
    """
    return f"{part:,} of {counted(whole, noun)}"
