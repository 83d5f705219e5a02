"""What a run works with: models, the journal, usage, the trace, Python sessions."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from pandas_amr._context.progress import Watch
from pandas_amr._context.python_sessions import Converted, Sessions
from pandas_amr._context.wiring import sandbox_for
from pandas_amr._journal.cache import AnswerCache, Answers
from pandas_amr._journal.code_keys import describe_function
from pandas_amr._journal.first_format import describe_former_question
from pandas_amr._journal.keys import Question, describe_question
from pandas_amr._journal.origins import RowsAt, join_origins
from pandas_amr._records.counts import noun_for
from pandas_amr._records.engine import in_thread, run_off_loop
from pandas_amr._records.tokens import is_loaded
from pandas_amr._records.trace import Trace
from pandas_amr._records.usage import Ledger, Phase, Usage
from pandas_amr._units.redaction import make_text_redaction
from pandas_amr.errors import BudgetExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pandas_amr._agent.agent import Agent
    from pandas_amr._agent.repl import Repl
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.wiring import Wired
    from pandas_amr._journal.database import Kind
    from pandas_amr._journal.journal import Journal
    from pandas_amr._journal.origins import Origins, RowOrigins
    from pandas_amr.errors import AMRWarning
    from pandas_amr.models.base import CodeUse, Model

Value = TypeVar("Value")
Parents: TypeAlias = "Callable[[Sequence[int] | None], tuple[str, ...]]"


class MakeAsk(Protocol):
    """Makes what answers ``ask()`` in a REPL: it maps texts, so that the map room has it."""

    def __call__(
        self, spec: Spec, services: Services, phase: Phase, agent: Agent | None
    ) -> Callable[[Repl], Any]:
        """Return a function that gives a REPL the answers to what its code asks of the model."""
        ...


def no_parents(positions: Sequence[int] | None) -> tuple[str, ...]:
    """Name the nodes behind a frame that no other run has made: there are none."""
    del positions
    return ()


@dataclass
class Services:
    """The parts that the stages of a run share.

    Attributes:
        make_ask: makes what answers ``ask()`` in a REPL.
        warn: takes what the run's user is to be told.
        frame: the frame as Arrow, for all Python sessions.
        rows: tells which of the user's rows are behind a row of the frame, once that is known.
        outer_rows: the same of a run that is part of another one: that one tells it.
        wired: the models, once they are open.
        semaphore: bounds the requests in flight, once the plan says how many; a batch does not pass
            it.
        journal: where answers are kept; None without a journal.
        run_number: the run's number in the journal.
        prefix: what the names of its nodes in the trace begin with.
        parents: the nodes of another run that made the rows at some positions; None is all rows.
        caches: the caches that were opened, with the phase that they are accounted to.
        made_from: the key of the plan in the journal, if a model made it.
        spent_before: what was spent when this part of a run began; nothing if it is the whole run.
        seconds_before: how long the run went on by then.
    """

    make_ask: MakeAsk
    warn: Callable[[AMRWarning], None]
    frame: Converted
    rows: RowOrigins | None = None
    outer_rows: RowOrigins | None = None
    wired: Wired | None = None
    semaphore: asyncio.Semaphore | None = None
    journal: Journal | None = None
    run_number: int = 0
    trace: Trace = field(default_factory=Trace)
    ledger: Ledger = field(default_factory=Ledger)
    watch: Watch = field(default_factory=Watch)
    prefix: str = ""
    parents: Parents = no_parents
    caches: list[tuple[Phase, AnswerCache]] = field(default_factory=list)
    made_from: tuple[bytes, ...] = ()
    spent_before: Ledger = field(default_factory=Ledger)
    seconds_before: float = 0.0

    def begin_part(self) -> Services:
        """Return the services of a part of the run that begins now, and tells what it takes."""
        return replace(self, spent_before=self.ledger.copy(), seconds_before=self.trace.seconds)

    @property
    def own_ledger(self) -> Ledger:
        """What this part of the run has spent until now."""
        return self.ledger.since(self.spent_before)

    @property
    def own_seconds(self) -> float:
        """Seconds since this part of the run began."""
        return self.trace.seconds - self.seconds_before

    @property
    def own_date(self) -> dt.datetime:
        """When this part of the run began, in UTC."""
        return self.trace.date + dt.timedelta(seconds=self.seconds_before)

    def nested(
        self,
        prefix: str,
        parents: Parents = no_parents,
        places: NDArray[np.int64] | None = None,
    ) -> Services:
        """Return the services of a run within this one: it shares models, journal and trace.

        ``places`` are the positions of the rows behind those of the inner run.
        """
        rows = self.rows
        if rows is not None and places is not None:
            rows = RowsAt(rows, places)
        return replace(
            self,
            prefix=prefix,
            parents=parents,
            watch=Watch(),
            caches=[],
            rows=None,
            outer_rows=rows,
            made_from=(),
        )

    def origins_of(self, positions: Iterable[int]) -> Origins:
        """Return the fingerprints of the user's rows behind some rows, each once."""
        if self.journal is None or self.rows is None:
            return ()
        return tuple(join_origins(self.rows.of(sorted(positions))))

    def model(self, spec: Spec, phase: Phase, agent: Agent | None = None) -> Model:
        """Return the model that the agents of a phase share, or the agent's own."""
        assert self.wired is not None
        semaphore = self.semaphore if self.semaphore is not None else asyncio.Semaphore(1)
        return self.wired.model(spec.lm(phase, agent), semaphore, self.warn)

    def server(self, spec: Spec, phase: Phase, agent: Agent | None = None) -> str:
        """Return the address at which a phase's model answers; empty if no model is open."""
        return "" if self.wired is None else self.wired.server(spec.lm(phase, agent))

    def parallelism(self, spec: Spec) -> int:
        """Return how many agents work at once."""
        tools = bool(spec.tools("map")) or spec.has_repl("map")
        return self.most_requests(spec, tools=tools)

    def most_requests(self, spec: Spec, *, tools: bool) -> int:
        """Return how many requests may be in flight: what the plan says and the model bears."""
        wanted = spec.plan.parallelism or 1
        if self.wired is None:
            return wanted
        return self.wired.parallelism(spec.lms["map"], wanted, tools=tools)

    def cache(
        self,
        spec: Spec,
        kind: Kind,
        phase: Phase,
        question: Question,
        agent: Agent | None = None,
        *,
        function: bool = False,
    ) -> AnswerCache | None:
        """Open the journal's answers to a question to the phase's model, or to a ``function``.

        Returns:
            None without a journal.
        """
        if self.journal is None:
            return None
        if spec.sample_name:
            question = replace(question, parts={**question.parts, "look": spec.sample_name})
        if spec.job.redaction is not None and not function:
            described = describe_function(spec.job.redaction.function)
            question = replace(question, parts={**question.parts, "redact": described})
        complete, label = question, "function"
        if phase in spec.lms:
            server = self.server(spec, phase, agent)
            complete = spec.question(phase, question, agent, server=server)
            label = spec.lm(phase, agent).model
        cache = AnswerCache(
            self.journal,
            kind,
            describe_question(question if function else complete),
            self.run_number,
            former=describe_former_question(complete),
            label=label,
            rows=self.rows,
            made_from=self.made_from,
        )
        self.caches.append((phase, cache))
        return cache

    def answers(
        self,
        spec: Spec,
        kind: Kind,
        phase: Phase,
        question: Question,
        agent: Agent | None = None,
    ) -> Answers | None:
        """Open the journal's reductions or plans of a phase; None without a journal."""
        cache = self.cache(spec, kind, phase, question, agent)
        return None if cache is None else Answers(cache)

    def account_cached(self) -> None:
        """Add to the usage what the journal had."""
        for phase, cache in self.caches:
            if cache.recalled:
                self.ledger.add(phase, cache.label, Usage(recalled=cache.recalled))
                cache.recalled = 0

    def sessions(self, spec: Spec, phase: Phase, agent: Agent | None = None) -> Sessions | None:
        """Return where the agents of a phase get their REPLs; None if they have none."""
        repl = spec.repl(agent)
        if repl is None or not spec.has_repl(phase, agent):
            return None
        is_code_only = spec.abilities(phase, agent).tools == "code"
        code: CodeUse = "declared" if is_code_only else "possible"
        make_ask = self.make_ask(spec, self, phase, agent)
        redact = make_text_redaction(spec.job.redaction, "an output of python_repl")
        return Sessions(sandbox_for(repl), repl.limits, self.frame, make_ask, code, redact)

    async def run_large(self, spec: Spec, function: Callable[..., Value], /, *args: Any) -> Value:
        """Call what takes as long as the frame is large: in a thread, so that other runs go on.

        A frame of few rows is not worth a thread. But a function of the user that counts tokens or
        redacts, or a tokenizer that is still to be loaded, may take long for any frame.
        """
        if spec.job.redaction is not None:  # the function is the user's, and may be slow
            redacted: Value = await in_thread(function, *args)
            return redacted
        endpoints = self.wired.bare if self.wired is not None else {}
        has_own_counter = any(lm.token_counter is not None for lm in endpoints)
        if has_own_counter or (endpoints and not is_loaded()):
            own: Value = await in_thread(function, *args)
            return own
        value: Value = await run_off_loop(function, *args, size=len(spec.job.frame))
        return value

    async def run_rendering(
        self, spec: Spec, function: Callable[..., Value], /, *args: Any, size: int
    ) -> Value:
        """Call what renders texts: in a thread if many, or if redacted."""
        if spec.job.redaction is not None:
            redacted: Value = await in_thread(function, *args)
            return redacted
        value: Value = await run_off_loop(function, *args, size=size)
        return value

    @contextlib.asynccontextmanager
    async def time_limit(self, spec: Spec) -> AsyncIterator[None]:
        """Bound the block by what is left of the budget's seconds.

        Raises:
            BudgetExceeded: they are used up.
        """
        seconds = spec.settings.budget.seconds if spec.settings.budget else None
        left = None if seconds is None else max(0.0, seconds - self.trace.seconds)
        try:
            async with asyncio.timeout(left) as deadline:
                yield
        except TimeoutError:
            if not deadline.expired():  # raised by a function of the user's
                raise
            assert seconds is not None  # without a limit nothing expires
            message = f"The budget of {seconds:g} {noun_for(seconds, 'second')} is used up."
            raise BudgetExceeded(message, self.ledger.total) from None
