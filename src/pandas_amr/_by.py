"""How findings are grouped: as ``DataFrame.groupby`` groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(frozen=True, init=False)
class By:
    """Columns to group by, with the options of ``DataFrame.groupby``.

    Args:
        keys: the columns.
        sort: whether groups come sorted by their keys, or as they first appear.
        dropna: whether rows without a key are in no group.
        observed: of categories, whether only those that occur make groups.

    Raises:
        UsageError: no column is named.

    Example:
        >>> By("shop", sort=False)
        By('shop', sort=False)
    """

    keys: tuple[Hashable, ...]
    sort: bool = True
    dropna: bool = True
    observed: bool = True

    def __init__(self, *keys: Hashable, sort: bool = True, dropna: bool = True, observed: bool = True) -> None:
        if not keys:
            raise UsageError('By("column", ...) names the columns to group by.')
        for name, value in {"keys": keys, "sort": sort, "dropna": dropna, "observed": observed}.items():
            object.__setattr__(self, name, value)

    @property
    def options(self) -> dict[str, Any]:
        """What ``groupby`` takes beside the columns."""
        return {"sort": self.sort, "dropna": self.dropna, "observed": self.observed}

    @property
    def key(self) -> Any:
        """What ``groupby`` takes as its columns: one label, or a list."""
        return self.keys[0] if len(self.keys) == 1 else list(self.keys)

    def __repr__(self) -> str:
        changed = [f"{name}={value}" for name, value in self.options.items() if value is not True]
        return f"By({', '.join([*map(repr, self.keys), *changed])})"
