"""What one run knows as it goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pandas_amr._agent.window import Window
from pandas_amr._context.progress import Watch
from pandas_amr._context.python_sessions import Converted, Sessions, isolated
from pandas_amr._context.wiring import resolve_lm, sandbox_for
from pandas_amr._journal.cache import Answers, Keeper
from pandas_amr._journal.first_format import former_about
from pandas_amr._journal.keys import Question, describe_question, fingerprint
from pandas_amr._map.ask import Asker
from pandas_amr._map.cached import JournaledMapper
from pandas_amr._plan.plan import Plan
from pandas_amr._records.engine import aside, in_thread
from pandas_amr._records.tokens import count_tokens, counter_for, is_loaded
from pandas_amr._records.trace import Trace
from pandas_amr._records.usage import Ledger, Phase, Usage
from pandas_amr.errors import BudgetExceeded
from pandas_amr.models.base import Abilities
from pandas_amr.tools import PythonREPLTool

if TYPE_CHECKING:
    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.settings import Settings
    from pandas_amr._context.wiring import Wired
    from pandas_amr._findings.held import Kept
    from pandas_amr._findings.store import Failure
    from pandas_amr._journal.database import Kind
    from pandas_amr._journal.journal import Journal
    from pandas_amr._map.agent import AgentMapper, Mapper
    from pandas_amr._map.stage import MapStage
    from pandas_amr._plan.call import Job
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._result.result import Again, Result, SecondLook
    from pandas_amr.errors import AMRWarning, ModelError, RunStopped
    from pandas_amr.models.base import LM, CodeUse, Model
    from pandas_amr.tools import Tool


ANSWER_TOKENS = 4096  # reserved for an answer where the model's own bound is not known

Before: TypeAlias = "Callable[[Sequence[int] | None], tuple[str, ...]]"


def _about_python(repl: PythonREPLTool | None) -> dict[str, Any]:
    """What code may use: packages, and files by their content."""
    files = (
        dict(repl.files)
        if isinstance(repl, PythonREPLTool) and isinstance(repl.files, Mapping)
        else {}
    )
    return {
        "packages": sorted(repl.packages) if repl else [],
        "files": {
            name: fingerprint(Path(path).read_bytes()).hex() for name, path in sorted(files.items())
        },
    }


@dataclass(frozen=True)
class Inside:
    """What a run that stands inside another one shares with it: models, throttle, journal, usage, graph.

    Attributes:
        prefix: what its nodes' names begin with.
        before: the nodes of the other run that made the rows at some positions of its frame; None is all rows.
        asked: whether its estimate has been confirmed with that of the other run.
        ends: takes the nodes that its answer comes from.
    """

    settings: Settings
    lm: Any
    lms: Mapping[Phase, LM]
    trace: Trace
    ledger: Ledger
    journal: Journal | None
    run_number: int
    wired: Wired | None
    gate: asyncio.Semaphore
    watch: Watch
    prefix: str = ""
    before: Before = lambda _: ()
    asked: bool = False
    ends: list[str] = field(default_factory=list)
    warnings: list[AMRWarning] = field(default_factory=list)


_inside: ContextVar[Inside | None] = ContextVar("pandas_amr_inside", default=None)


def current_inside() -> Inside | None:
    """What a run that is begun here stands inside of."""
    return _inside.get()


@contextlib.contextmanager
def standing_inside(inside: Inside | None) -> Iterator[None]:
    """Let runs that are begun in the block stand inside another one."""
    token = _inside.set(inside)
    try:
        yield
    finally:
        _inside.reset(token)


@dataclass
class Work:
    """The job, the parts it is wired to, and what has come of it so far.

    Attributes:
        halted: no more shards are begun.
        look: which look at the same units this is, where it is not the first.
        confirmed: whoever wanted to be asked before money is spent said yes.
        ended_by: what ended the run before its end: a budget, or a service that serves nothing more.
        raised: the reduce's failure that the run is about to raise: no more nodes are begun.
        stage: the map stage, once there is one.
        kept: what was found so far; from the start, where the run goes on from what an earlier one found.
        where: what the run is at, for people; empty until it has begun.
        result: what comes of it, once that stands.
    """

    job: Job
    settings: Settings
    lms: Mapping[Phase, LM]
    wired: Wired | None = None
    plan: Plan = field(default_factory=lambda: Plan())  # noqa: PLW0108 (a pydantic class is no plain callable to mypy)
    trace: Trace = field(default_factory=Trace)
    ledger: Ledger = field(default_factory=Ledger)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[AMRWarning] = field(default_factory=list)
    halted: bool = False
    confirmed: bool = False
    ended_by: RunStopped | None = None
    raised: ModelError | None = None
    stage: MapStage | None = None
    kept: Kept | None = None
    where: str = ""
    result: Result | None = None
    again: Again | None = None
    second_look: SecondLook | None = None
    look: str = ""
    watch: Watch = field(default_factory=Watch)
    journal: Journal | None = None
    run_number: int = 0
    keepers: list[tuple[Phase, Keeper]] = field(default_factory=list)
    inside: Inside | None = None

    @classmethod
    def of(
        cls,
        job: Job,
        settings: Settings,
        lms: Mapping[Phase, LM],
        inside: Inside | None,
        **rest: Any,
    ) -> Work:
        """The work of a run; inside another one, with all that it shares with it."""
        if inside is None:
            return cls(job, settings, lms, **rest)
        shared = {
            name: getattr(inside, name)
            for name in ("trace", "ledger", "journal", "run_number", "watch")
        }
        work = cls(job, settings, lms, inside=inside, confirmed=inside.asked, **(rest | shared))
        work.__dict__["gate"] = inside.gate
        return work

    @property
    def prefix(self) -> str:
        """What its nodes' names begin with."""
        return self.inside.prefix if self.inside is not None else ""

    def before(self, positions: Sequence[int] | None) -> tuple[str, ...]:
        """The nodes of another run that made these rows; None is all."""
        return self.inside.before(positions) if self.inside is not None else ()

    def room(self, prefix: str, before: Before = lambda _: (), *, asked: bool = True) -> Inside:
        """A place inside this run, for another one."""
        return Inside(
            settings=self.settings,
            lm=self.job.lm if self.job.lm is not None or self.inside is None else self.inside.lm,
            lms=self.lms,
            trace=self.trace,
            ledger=self.ledger,
            journal=self.journal,
            run_number=self.run_number,
            wired=self.wired,
            gate=self.gate,
            watch=Watch(),
            prefix=prefix,
            before=before,
            asked=asked,
            warnings=self.warnings,
        )

    @property
    def in_order(self) -> list[Failure]:
        """The failures in the order of the frame and of its maps, whichever came first; the reduce's before all."""
        places = {name: place for place, name in enumerate(self.job.names)}
        return sorted(
            self.failures, key=lambda one: (one.position, places.get(one.map, 0), one.reason)
        )

    @property
    def stopped(self) -> str | None:
        """Why the run stopped before its end."""
        return None if self.ended_by is None else str(self.ended_by)

    @property
    def has_begun(self) -> bool:
        """Whether a request was sent or answered by the journal, or something is found."""
        total = self.ledger.total
        return bool(total.tries or total.recalled) or (
            self.kept is not None and self.kept.has_findings
        )

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """What may take as long as the budget's seconds last.

        Raises:
            BudgetExceeded: they are used up.
        """
        seconds = self.settings.budget.seconds if self.settings.budget else None
        left = None if seconds is None else max(0.0, seconds - self.trace.seconds)
        try:
            async with asyncio.timeout(left) as deadline:
                yield
        except TimeoutError:
            if not deadline.expired():  # a function's of the user's
                raise
            raise BudgetExceeded(
                f"The budget of {seconds:g} seconds is used up.", self.ledger.total
            ) from None

    async def aside(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call what takes as long as the frame is large: in a thread, so that other runs go on, or at once.

        What counts tokens by a function of the user's, or has to load a tokenizer first, may take long of any frame.
        """
        counters = [lm.token_counter for lm in (self.wired.bare if self.wired is not None else ())]
        if any(counter is not None for counter in counters) or (counters and not is_loaded()):
            return await in_thread(function, *args)
        return await aside(function, *args, size=len(self.job.frame))

    def end(self, error: RunStopped) -> None:
        """Begin nothing more: the budget is used up, or the service will serve nothing more."""
        self.halted = True
        self.ended_by = self.ended_by or error

    def abilities(self, phase: Phase, agent: Agent | None = None) -> Abilities:
        """What the model of a phase, or an agent's own, can do."""
        return self.lm(phase, agent).abilities if phase in self.lms else Abilities()

    @property
    def parallelism(self) -> int:
        """How many agents work at once."""
        return self._at_once(tools=bool(self.tools("map")) or self.has_repl("map"))

    @cached_property
    def gate(self) -> asyncio.Semaphore:
        """The one gate of all the run's requests after the plan. What goes into a batch does not pass it."""
        return asyncio.Semaphore(self._at_once(tools=True))

    def _at_once(self, *, tools: bool) -> int:
        wanted = self.plan.parallelism or 1
        return (
            self.wired.parallelism(self.lms["map"], wanted, tools=tools) if self.wired else wanted
        )

    def lm(self, phase: Phase, agent: Agent | None = None) -> LM:
        """The model of a phase, or an agent's own."""
        return self.lms[phase] if agent is None or agent.lm is None else resolve_lm(agent.lm)

    def model(self, phase: Phase, agent: Agent | None = None) -> Model:
        """The model that the agents of a phase share, or an agent's own."""
        assert self.wired is not None
        gate = asyncio.Semaphore(1) if phase == "plan" else self.gate
        return self.wired.model(self.lm(phase, agent), gate, self.warnings.append)

    def max_steps(self, agent: Agent | None = None) -> int:
        """Most turns with tools."""
        return (
            self.settings.max_steps if agent is None or agent.max_steps is None else agent.max_steps
        )

    @property
    def max_repairs(self) -> int:
        """Repair turns of an answer that cannot be used."""
        return 1 if self.plan.max_repairs is None else self.plan.max_repairs

    def counter(self, phase: Phase, agent: Agent | None = None) -> TokenCounter:
        """Counts tokens as the model of a phase does."""
        lm = self.lm(phase, agent)
        return (
            partial(count_tokens, lm.token_counter)
            if lm.token_counter is not None
            else counter_for(lm.model)
        )

    def window(self, phase: Phase, agent: Agent | None = None) -> Window:
        """What a prompt of a phase may take of its model's context window; the rest is for the answer."""
        lm = self.lm(phase, agent)
        whole = lm.abilities.context_window
        answer = min(lm.max_output_tokens or ANSWER_TOKENS, whole // 4)
        return Window(whole, whole - answer, self.counter(phase, agent))

    def tools(self, phase: Phase, agent: Agent | None = None) -> tuple[Tool, ...]:
        """The user's tools that the agents of a phase get: none if the model can call none, or writes code instead."""
        given = self._given_tools(agent) if self.abilities(phase, agent).tools is True else ()
        return tuple(
            isolated(tool, sandbox_for(self._repl(agent))) if tool.isolated else tool
            for tool in given
        )

    def _given_tools(self, agent: Agent | None) -> tuple[Tool, ...]:
        return self.job.tools if agent is None or agent.tools is None else agent.own_tools

    def _repl(self, agent: Agent | None) -> PythonREPLTool | None:
        return self.job.repl if agent is None or agent.tools is None else agent.own_repl

    def has_repl(self, phase: Phase, agent: Agent | None = None) -> bool:
        """Whether the agents of a phase get a REPL."""
        return self._repl(agent) is not None and bool(self.abilities(phase, agent).tools)

    @property
    def tier(self) -> str:
        """What confines code of agents; empty where none may run, or it is not found out because none has run."""
        wanted = self.job.repl is not None or any(tool.isolated for tool in self.job.tools)
        could = any(self.abilities(phase).tools for phase in self.lms)
        tier = sandbox_for(self.job.repl).tier if wanted and could else ""
        return "" if tier == "auto" else tier

    def keeper(
        self,
        kind: Kind,
        phase: Phase,
        question: Question,
        agent: Agent | None = None,
        *,
        function: bool = False,
    ) -> Keeper | None:
        """The way to the journal of answers to a question, which the phase's model is asked, or a ``function``."""
        if self.journal is None:
            return None
        if self.look:
            question = replace(question, parts={**question.parts, "look": self.look})
        label, asked = "function", question
        if phase in self.lms:
            asked = self._asked(phase, question, agent)
            label = self.lm(phase, agent).model
        keeper = Keeper(
            self.journal,
            kind,
            describe_question(question if function else asked),
            self.run_number,
            former=former_about(asked),
            label=label,
        )
        self.keepers.append((phase, keeper))
        return keeper

    def _asked(self, phase: Phase, question: Question, agent: Agent | None) -> Question:
        """The question with the model that is asked it, and what it may use."""
        lm = self.lm(phase, agent)
        return replace(
            question,
            lm=lm,
            server=self.wired.server(lm) if self.wired is not None else "",
            tools=self.tools(phase, agent),
            python=_about_python(self._repl(agent)) if self.has_repl(phase, agent) else None,
        )

    def answers(
        self, kind: Kind, phase: Phase, question: Question, agent: Agent | None = None
    ) -> Answers | None:
        """Where accepted answers of a phase are kept."""
        keeper = self.keeper(kind, phase, question, agent)
        return None if keeper is None else Answers(keeper)

    def account(self) -> None:
        """Add what the journal had to the usage."""
        for phase, keeper in self.keepers:
            if keeper.recalled:
                self.ledger.add(phase, keeper.label, Usage(recalled=keeper.recalled))
                keeper.recalled = 0

    def sessions(self, phase: Phase, agent: Agent | None = None) -> Sessions | None:
        """Where the agents of a phase get their REPLs."""
        repl = self._repl(agent)
        if repl is None or not self.has_repl(phase, agent):
            return None

        def kept(mapper: AgentMapper, instruction: str) -> Mapper:
            parts = {"instruction": instruction, "asked_by": "code"}
            question = Question(parts=parts, finding=mapper.kind.model)
            keeper = self.keeper("finding", phase, question, agent)
            return mapper if keeper is None else JournaledMapper(mapper, keeper, mapper.units)

        asker = Asker(
            kept=kept,
            model=self.model(phase, agent),
            count=self.counter(phase, agent),
            most=repl.limits.asks,
            alone=self.abilities(phase, agent).units_per_request == 1,
            shard_tokens=self.plan.shard_tokens or 1,
            max_repairs=self.max_repairs,
        )
        code: CodeUse = "declared" if self.abilities(phase, agent).tools == "code" else "possible"
        return Sessions(sandbox_for(repl), repl.limits, self.converted, asker, code)

    @cached_property
    def converted(self) -> Converted:
        """The frame, for the sessions of all agents."""
        return Converted(self.job.frame)

    @property
    def written(self) -> bool:
        """Whether agents write the answer."""
        job = self.job
        return (
            job.reduces
            and job.reducer is None
            and job.computed is None
            and bool(self.plan.reduce_instruction)
        )

    def as_planned(self) -> Job:
        """The job with nothing left open: carried out again, it needs no planner."""
        return replace(self.job, given=self.plan, open=())

    def instruction(self, name: str | None) -> str:
        """What the agents of a map are asked."""
        given = self.plan.map_instruction
        return given[str(name)] if isinstance(given, dict) else str(given)
