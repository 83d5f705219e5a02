"""What one run knows as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pandas_amr._plan import Plan
from pandas_amr._tokens import counter_for
from pandas_amr._trace import Trace
from pandas_amr._usage import Ledger
from pandas_amr.models.base import Abilities

if TYPE_CHECKING:
    from pandas_amr._call import Job
    from pandas_amr._findings import Failure
    from pandas_amr._result import Again
    from pandas_amr._runtime import Settings, Wired
    from pandas_amr._tokens import TokenCounter
    from pandas_amr.errors import AMRWarning
    from pandas_amr.models.base import LM, Model
    from pandas_amr.tools import Tool


@dataclass
class Work:
    """The job, the parts it is wired to, and what has come of it so far.

    Attributes:
        halted: no more shards are begun.
    """

    job: Job
    settings: Settings
    lm: LM | None
    wired: Wired | None = None
    plan: Plan = field(default_factory=lambda: Plan())  # noqa: PLW0108 (a pydantic class is no plain callable to mypy)
    trace: Trace = field(default_factory=Trace)
    ledger: Ledger = field(default_factory=Ledger)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[AMRWarning] = field(default_factory=list)
    halted: bool = False
    again: Again | None = None

    @property
    def abilities(self) -> Abilities:
        """What the model can do."""
        return self.lm.abilities if self.lm else Abilities()

    @property
    def parallelism(self) -> int:
        """How many agents work at once."""
        wanted = self.plan.parallelism or 1
        return self.wired.parallelism(wanted) if self.wired else wanted

    @cached_property
    def model(self) -> Model:
        """The model that all agents of the run share, and with it one gate."""
        assert self.wired is not None
        return self.wired.model(self.parallelism)

    @property
    def max_repairs(self) -> int:
        """Repair turns of an answer that cannot be used."""
        return 1 if self.plan.max_repairs is None else self.plan.max_repairs

    @cached_property
    def counter(self) -> TokenCounter:
        """Counts tokens as the model does."""
        assert self.lm is not None
        return self.lm.token_counter or counter_for(self.lm.model)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that the run's agents get: none where the model can call none."""
        return self.job.tools if self.abilities.tools else ()

    @property
    def written(self) -> bool:
        """Whether agents write the answer."""
        job = self.job
        return job.reduces and job.reducer is None and job.computed is None and bool(self.plan.reduce_instruction)

    def as_planned(self) -> Job:
        """The job with nothing left open: carried out again, it needs no planner."""
        return replace(self.job, given=self.plan, open=())

    def instruction(self, name: str | None) -> str:
        """What the agents of a map are asked."""
        given = self.plan.map_instruction
        return given[str(name)] if isinstance(given, dict) else str(given)
