"""Tell findings that are given by the name of a map from fields of a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.suggest import closest_name
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_map_names(finding: object, names: Sequence[str | None]) -> None:
    """Refuse a dict that seems to be by the name of the map, but names one that does not exist.

    A dict of which no key is like the name of a map holds the fields of each map's findings.

    Raises:
        UsageError: it mixes names of maps and others, or each of its keys is like a name.
    """
    if not isinstance(finding, dict):
        return
    unknown = [key for key in finding if key not in names]
    closest = {key: closest_name(key, names) for key in unknown}
    has_known = len(unknown) < len(finding)
    if not unknown or not (has_known or all(closest.values())):
        return
    name = unknown[0]
    suggestion = f" Did you mean {closest[name]!r}?" if closest[name] is not None else ""
    raise UsageError(
        f"finding= names {name!r}, which is not a map.{suggestion} The maps are: "
        f"{', '.join(map(repr, names))}. For the same fields in each map, repeat them by its name."
    )
