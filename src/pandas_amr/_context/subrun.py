"""Runs within runs: what a recipe's stage shares with the run that it is part of."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pandas_amr._context.services import no_parents

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pandas_amr._context.services import Parents, Services
    from pandas_amr._context.settings import Settings
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._journal.origins import RowOrigins
    from pandas_amr._records.usage import Phase
    from pandas_amr.errors import AMRWarning
    from pandas_amr.models.base import LM


@dataclass(frozen=True)
class SharedRun:
    """What a run takes over from the run that it is part of.

    Attributes:
        services: those of the outer run, with the place of the inner one in its trace.
        lms: the models of the outer run's phases.
        confirmed: whether the estimate was confirmed together with that of the outer run.
        ends: takes the names of the nodes that the inner run's answer comes from.
        warnings: those of the outer run.
        issues_warnings: whether warnings of the inner run are issued when they are known, and not
            only as far as the outer run takes them over.
    """

    services: Services
    settings: Settings
    lms: Mapping[Phase, LM]
    confirmed: bool = False
    ends: list[str] = field(default_factory=list)
    warnings: list[AMRWarning] = field(default_factory=list)
    issues_warnings: bool = False

    def at(
        self,
        prefix: str,
        *,
        parents: Parents | None = None,
        ends: list[str] | None = None,
        rows: RowOrigins | None = None,
    ) -> SharedRun:
        """Return a place further in the trace: ``prefix`` is added to the one here.

        ``rows`` tells which of the user's rows are behind the rows there.
        """
        services = replace(
            self.services,
            prefix=self.services.prefix + prefix,
            parents=self.services.parents if parents is None else parents,
            outer_rows=self.services.outer_rows if rows is None else rows,
        )
        return replace(self, services=services, ends=self.ends if ends is None else ends)


_parent_run: ContextVar[SharedRun | None] = ContextVar("pandas_amr_parent_run", default=None)


def parent_run() -> SharedRun | None:
    """Return the run that a run begun here is part of."""
    return _parent_run.get()


@contextlib.contextmanager
def use_parent_run(parent: SharedRun | None) -> Iterator[None]:
    """Let runs that are begun in the block be part of another one."""
    token = _parent_run.set(parent)
    try:
        yield
    finally:
        _parent_run.reset(token)


def share_run(
    spec: Spec,
    services: Services,
    state: State,
    prefix: str,
    parents: Parents = no_parents,
    places: NDArray[np.int64] | None = None,
) -> SharedRun:
    """Make a place in a run's trace for runs that are part of it.

    Args:
        spec: what the run was asked for.
        services: what it works with.
        state: takes warnings.
        prefix: what the names of their nodes begin with.
        parents: names the nodes behind their rows.
        places: the positions of the run's rows that are behind theirs; default: their own.
    """
    return SharedRun(
        services=services.nested(prefix, parents, places),
        settings=spec.settings,
        lms=spec.lms,
        confirmed=True,
        warnings=state.warnings,
    )
