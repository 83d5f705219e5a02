"""How far a run is that maps its input part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._context.progress import Progress, Watch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from pandas_amr._units.units import Units


class PartsProgress:
    """Adds up how far the parts are, and shows it as how far the run is.

    Args:
        watch: the run's.
        rows: how many rows it is about; None if that is known only at the end.
        maps: how many maps run side by side.
    """

    def __init__(self, watch: Watch, rows: int | None, maps: int) -> None:
        self._watch = watch
        self._rows = rows
        self._maps = maps
        self._rows_seen = 0
        self._parts: dict[int, tuple[Progress, int]] = {}
        self._ended = Progress()

    def begin(self, number: int, rows: int) -> Watch:
        """Begin a part, and return what its stages report to."""
        self._rows_seen += rows
        self._parts[number] = (Progress(units=rows * self._maps), rows * self._maps)
        self.report()
        return PartWatch(self, number)

    def set(self, number: int, progress: Progress, open_rows: int) -> None:
        """Note how far a part is."""
        self._parts[number] = (progress, open_rows)
        self.report()

    def end(self, number: int) -> None:
        """Note that a part has ended."""
        progress, _ = self._parts.pop(number, (Progress(), 0))
        self._ended = _add(self._ended, progress)

    def skip(self, rows: int, counts: Mapping[str, int]) -> None:
        """Note a part that an earlier run has made, with the statuses of its rows."""
        self._rows_seen += rows
        failed, empty = counts.get("failed", 0), counts.get("empty", 0)
        found = rows - failed - empty
        units = (rows - empty) * self._maps
        part = Progress(units=units, found=found * self._maps, failed=failed * self._maps)
        self._ended = _add(self._ended, part)
        self.report()

    def report(self) -> None:
        """Show how far the run is."""
        total, open_rows = self._ended, 0
        for progress, open_of_part in self._parts.values():
            total = _add(total, progress)
            open_rows += open_of_part
        to_come = 0 if self._rows is None else (self._rows - self._rows_seen) * self._maps
        total = _add(total, Progress(units=to_come))
        self._watch.show_progress(total, open_rows=open_rows + to_come, maps=self._maps)


class PartWatch(Watch):
    """What the stages of one part report to: findings are not kept, since they are in its file."""

    def __init__(self, whole: PartsProgress, number: int) -> None:
        super().__init__()
        self._whole = whole
        self._number = number

    def show_progress(self, progress: Progress, *, open_rows: int = 0, maps: int = 1) -> None:
        """Note how many units have what, and how many are still to be mapped, by all maps."""
        super().show_progress(progress, open_rows=open_rows, maps=maps)
        self._whole.set(self._number, progress, open_rows)

    def landed(self, positions: Sequence[int], table: pa.Table, units: Units) -> None:
        """Leave findings to the part's file."""
        del positions, table, units


def _add(first: Progress, second: Progress) -> Progress:
    counted: dict[str, Any] = {}
    for name in ("units", "found", "failed", "cached"):
        counted[name] = getattr(first, name) + getattr(second, name)
    return Progress(**counted)
