"""Suggest the name that a mistyped one was meant to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def closest_name(
    name: object,
    names: Iterable[object],
    *,
    synonyms: Mapping[str, str] | None = None,
    least: float = 0.6,
) -> object | None:
    """Find the name that is spelled most like another one, whatever the case of its letters.

    Args:
        name: the name that is not known.
        names: the names that are.
        synonyms: other words for known names, in small letters, each with the known name.
        least: how much alike they must be, from 0 to 1.

    Returns:
        The known name; None if no name is close.
    """
    import difflib  # noqa: PLC0415 (importing the package should cost nothing)

    known: dict[str, object] = {}
    for candidate in names:
        known.setdefault(str(candidate).casefold(), candidate)
    for synonym, meant in (synonyms or {}).items():
        known.setdefault(synonym, meant)
    matches = difflib.get_close_matches(str(name).casefold(), known, n=1, cutoff=least)
    return known[matches[0]] if matches else None


def did_you_mean(
    name: object, names: Iterable[object], *, synonyms: Mapping[str, str] | None = None
) -> str:
    """Write the sentence that suggests the closest name, to be put behind another sentence.

    Returns:
        The sentence with a space before it; an empty text if no name is close.

    Example:
        >>> print(f"Unknown plan field 'fanin'.{did_you_mean('fanin', ['shard_size', 'fan_in'])}")
        Unknown plan field 'fanin'. Did you mean 'fan_in'?
        >>> did_you_mean("weather", ["shard_size", "fan_in"])
        ''
    """
    closest = closest_name(name, names, synonyms=synonyms)
    return "" if closest is None else f" Did you mean {closest!r}?"
