"""The findings that are there before a map begins, as nodes of the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._findings.store import FOUND
from pandas_amr._records.trace import EARLIER_NODE, JOURNAL_NODE

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._units.rows import BoolArray


class FoundBefore:
    """Notes in the trace what an earlier run has found, and what the journal has.

    Args:
        services: what the run works with.
        findings: those of an earlier run, if any; the map adds its own to them.
    """

    def __init__(self, services: Services, findings: MapFindings) -> None:
        self._services = services
        self._findings = findings
        self._found: list[tuple[str, BoolArray]] = []  # by which node, which asked units

    def trace_all(self, is_earlier: BoolArray) -> None:
        """Note what need not be mapped; ``is_earlier`` tells which units had findings at first."""
        is_known = np.zeros(len(is_earlier), dtype=bool)
        for from_journal in self._findings.from_journal.values():
            is_known |= from_journal
        is_recalled = is_known & ~is_earlier
        if is_earlier.any():
            self._trace(EARLIER_NODE, "result", is_earlier)
        if is_recalled.any():
            self._trace(JOURNAL_NODE, "journal", is_recalled)

    @property
    def has_finding(self) -> BoolArray:
        """Tell which of the asked units have a finding of some map by now."""
        has_finding = np.zeros(len(self._findings.units.asked), dtype=bool)
        for statuses in self._findings.statuses.values():
            has_finding |= np.isin(statuses, FOUND)
        return has_finding

    def _trace(self, name: str, form: str, is_found: BoolArray) -> None:
        name = self._services.prefix + name
        units = int(is_found.sum())
        with self._services.trace.node("recalled", id=name, units=units) as node:
            node.form = form
            if not (self.has_finding | ~is_found).all():  # the journal remembers failures, too
                node.status = "partial"
        self._found.append((name, is_found))

    def nodes_of(self, place: int) -> tuple[str, ...]:
        """Name the nodes of what was found before of an asked unit, by its place among them."""
        return tuple(name for name, is_found in self._found if is_found[place])
