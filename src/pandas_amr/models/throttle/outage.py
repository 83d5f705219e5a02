"""An outage: no connection to the server can be made, and single requests probe for it."""

from __future__ import annotations

from dataclasses import dataclass

DEAD_AFTER = 5  # requests in a row that reached no server
FIRST_CONTACT_TRIES = 3  # of a server that was never reached, in which it must answer
PROBE_FIRST_S = 0.5
PROBE_UNKNOWN_S = 0.1  # likewise, if the server was never reached
PROBE_LONGEST_S = 10.0
PROBES = 4  # within the patience, at least


@dataclass(slots=True)
class Outage:
    """An outage of one server.

    Attributes:
        since: when it began; None if there is none.
        probe_wait_s: until the next probe may be sent.
        is_probing: whether a probe is under way.
        failures: requests in a row that reached no server.
    """

    since: float | None = None
    probe_wait_s: float = PROBE_FIRST_S
    is_probing: bool = False
    failures: int = 0
    _first_failed_at: float = 0.0

    @property
    def blocks(self) -> bool:
        """Whether requests must wait for a probe that is under way."""
        return self.is_probing and self.since is not None

    def count_failure(self, now: float, *, has_answered: bool) -> bool:
        """Count a request that reached no server; tell whether there is an outage now.

        If the server has answered before, it takes several in a row.
        """
        self.failures += 1
        if self.failures == 1:
            self._first_failed_at = now
        if self.since is None and self.failures < DEAD_AFTER and has_answered:
            return False
        if self.since is None:
            self.since = self._first_failed_at
            self.probe_wait_s = PROBE_FIRST_S if has_answered else PROBE_UNKNOWN_S
        return True

    def begin(self, since: float) -> None:
        """Begin it, since another process cannot reach the server: single requests probe for it."""
        if self.since is None:
            self.since = since

    def extend_probe_wait(self, patience_s: float) -> None:
        """Double the wait between probes, within bounds."""
        self.probe_wait_s = min(PROBE_LONGEST_S, patience_s / PROBES, self.probe_wait_s * 2)

    def end(self) -> None:
        """Reset all: the server was reached."""
        self.since = None
        self.probe_wait_s = PROBE_FIRST_S
        self.is_probing = False
        self.failures = 0
