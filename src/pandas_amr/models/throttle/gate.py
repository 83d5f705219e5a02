"""The gate in front of a server: until a request was answered, they go one at a time."""

from __future__ import annotations

from dataclasses import dataclass

# So many requests in turn that were refused for what they say, or ran out of time, show that the
# way to the model is right.
ENOUGH_REACHED = 3


@dataclass(slots=True)
class Gate:
    """Whether the way to a model is known to be right: its address, its key and its name.

    Attributes:
        is_open: whether it is; then any number of requests may be sent.
    """

    is_open: bool = True
    _reached: int = 0

    def open(self) -> None:
        """Open it: a request was answered."""
        self.is_open = True

    def count_reached(self) -> None:
        """Count a request that reached the model, it seems, and was not answered."""
        self._reached += 1
        if self._reached >= ENOUGH_REACHED:
            self.is_open = True
