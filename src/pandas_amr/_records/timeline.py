"""The timeline of a run: who ran when, waited, retried, was in code or with the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pandas_amr._records.public import public
from pandas_amr._records.spans import LEFT_OUT

if TYPE_CHECKING:
    import pandas as pd

    from pandas_amr._records.timeline_lanes import Lanes


@public
@dataclass(frozen=True, eq=False, repr=False)
class Timeline:
    """What the nodes of a run did, and when: a picture in a notebook, text in a terminal.

    Attributes:
        trace: as ``Result.trace``.
        spans: as ``Result.spans``; None if it is not known what the nodes did.
        seconds: how long the run took.
    """

    trace: pd.DataFrame
    spans: pd.DataFrame | None
    seconds: float

    @cached_property
    def _lanes(self) -> Lanes:
        from pandas_amr._records.timeline_lanes import Lanes  # noqa: PLC0415 (when it is shown)
        from pandas_amr._records.timeline_spans import Span, make_lanes  # noqa: PLC0415 (likewise)

        nodes = self.trace[["id", "type", "start", "seconds", "status"]].to_dict("records")
        spans: dict[str, list[Span]] = {}
        if self.spans is not None:
            columns = [self.spans[name].tolist() for name in ("node", "kind", "start", "seconds")]
            for node, kind, start, seconds in zip(*columns, strict=True):
                spans.setdefault(node, []).append(Span(kind, start, start + seconds))
        return Lanes(
            make_lanes(nodes, spans),
            self.seconds,
            has_spans=self.spans is not None,
            left_out=0 if self.spans is None else self.spans.attrs.get(LEFT_OUT, 0),
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row per span: ``node kind start seconds``.

        The spans of a node follow each other without a gap, so that they add up to its seconds. If
        it did several things at once, the one counts that keeps it busy: the model before waits,
        and both before the code that asked. ``Result.spans`` has what overlaps.
        """
        import pandas as pd  # noqa: PLC0415 (who only looks at the picture needs none)

        columns: dict[str, list[Any]] = {"node": [], "kind": [], "start": [], "seconds": []}
        for lane in self._lanes.all:
            for span in lane.spans:
                columns["node"].append(lane.name)
                columns["kind"].append(span.kind)
                columns["start"].append(span.start)
                columns["seconds"].append(span.end - span.start)
        types = {"node": object, "kind": object, "start": float, "seconds": float}
        frame: dict[str, pd.Series] = {}
        for name, values in columns.items():
            frame[name] = pd.Series(values, dtype=types[name])
        return pd.DataFrame(frame)

    def to_svg(self) -> str:
        """Draw a lane per node; of many nodes, how many did what, and those that stand out."""
        from pandas_amr._records.timeline_svg import draw_timeline  # noqa: PLC0415 (when drawn)

        return draw_timeline(self._lanes)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        del options
        return {"image/svg+xml": self.to_svg(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        from pandas_amr._records.timeline_text import write_timeline  # noqa: PLC0415 (likewise)

        return write_timeline(self._lanes)
