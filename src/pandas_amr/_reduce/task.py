"""What a tree of agents is asked, and the agent that is asked it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pandas_amr._agent import prompts
from pandas_amr._agent.agent import check_instruction
from pandas_amr._agent.threads import call_contained
from pandas_amr._context.spec import ANSWER_TOKENS
from pandas_amr._findings.output import ReductionType
from pandas_amr._journal.first_format import write_former_persona
from pandas_amr._journal.keys import Question, fingerprint
from pandas_amr._reduce.agent import ReduceAgent
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.prompt import ReducePrompt

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._journal.cache import Answers
    from pandas_amr._units.redaction import Redaction

LEAST_SHARE = 0.25  # of what prompt and answer leave of the window
BUDGET_RATIO = 0.5  # of the window, for a prompt, if the plan says nothing


@dataclass(frozen=True)
class ReduceTask:
    """What one tree of agents is asked.

    Attributes:
        output: the type of the answer.
        agent: the agent that the call names, if it names one.
    """

    instruction: str
    output: Any
    agent: Agent | None = None

    @property
    def persona(self) -> str:
        """Who the agent is, as its prompt says it."""
        return "" if self.agent is None else self.agent.persona

    def with_instruction_for(
        self, findings: pd.DataFrame, redaction: Redaction | None
    ) -> ReduceTask:
        """Return the task with the instruction that the agent's function gives, if it has one.

        The function is the user's and reads findings as they are: what it gives is redacted.

        Raises:
            NoInstruction: the function returned no text.
        """
        if self.agent is None or isinstance(self.agent.instruction, str):
            return self
        instruction = check_instruction(call_contained(self.agent.instruction, findings))
        if redaction is not None:
            redacted = redaction.text(instruction, "the instruction of the reduce")
            instruction = check_instruction(redacted)
        return replace(self, instruction=instruction)


def answer_task(spec: Spec) -> ReduceTask:
    """Return the task of agents that write the whole answer."""
    plan = spec.plan
    return ReduceTask(str(plan.reduce_instruction), plan.output or str, spec.job.reduce_agent)


class ReduceBudget(NamedTuple):
    """How many tokens of findings one agent gets.

    Attributes:
        share: what a tree packs for one agent.
        most: what its window holds.
    """

    share: int
    most: int


def reduce_budget(
    spec: Spec, task: ReduceTask, notes: str = "", output: ReductionType | None = None
) -> ReduceBudget:
    """Return what the window leaves for findings beside the prompt, the schema and the answer.

    Args:
        spec: says the share of the window. A ``reduce_budget`` of the user's is taken as it is.
        task: what the agent is asked.
        notes: what it is told beside the findings.
        output: what it hands in, if that is not the task's output.
    """
    plan, lm = spec.plan, spec.lm("reduce", task.agent)
    window = min(plan.context_window or lm.abilities.context_window, lm.abilities.context_window)
    answer_tokens = min(lm.max_output_tokens or ANSWER_TOKENS, window // 4)
    output = output or ReductionType(task.output)
    taken = _prompt_tokens(spec, task, notes, output) + answer_tokens
    most = max(1, window - taken)
    if plan.reduce_budget is not None:
        return ReduceBudget(min(plan.reduce_budget, most), most)
    share = int(window * (plan.budget_ratio or BUDGET_RATIO)) - taken
    if not 0 < share <= most:
        share = most
    if plan.budget_ratio is None:  # a half that the prompt takes up leaves crumbs of findings
        share = max(share, int(most * LEAST_SHARE))
    return ReduceBudget(share, most)


def _prompt_tokens(spec: Spec, task: ReduceTask, notes: str, output: ReductionType) -> int:
    """Count the tokens of a final agent's request without its findings."""
    count = spec.counter("reduce", task.agent)
    system = prompts.reduce_system(
        task.instruction,
        final=True,
        output=output.schema,
        tools=True,
        line=output.submit_line if spec.has_repl("reduce", task.agent) else "",
        persona=task.persona,
    )
    schema = str(output.submission().wire.schema)
    return count(system) + count(schema) + count(notes)


def make_reduce_agent(
    spec: Spec,
    services: Services,
    state: State,
    task: ReduceTask,
    *,
    notes: str = "",
    output: ReductionType | None = None,
    shown: Iterable[int] = (),
) -> ReduceAgent:
    """Make the agent at each node of a tree.

    Args:
        spec: says its model, tools and turns.
        services: opens its model, REPL and cache.
        state: takes its failures.
        task: what it is asked.
        notes: what it is told beside the findings; its window must hold that.
        output: what it hands in, if that is not the task's output.
        shown: the rows whose values stand in what it is asked.
    """
    sessions = services.sessions(spec, "reduce", task.agent)
    tools = spec.tools("reduce", task.agent)
    kind = output or ReductionType(task.output, in_column=spec.job.by is not None)
    prompt = ReducePrompt(
        instruction=task.instruction,
        output=kind,
        persona=task.persona,
        has_tools=bool(tools),
        has_repl=sessions is not None,
    )
    return ReduceAgent(
        prompt=prompt,
        model=services.model(spec, "reduce", task.agent),
        tools=tools,
        max_steps=spec.max_steps(task.agent),
        max_repairs=spec.max_repairs,
        max_tokens=reduce_budget(spec, task, notes, kind).most,
        count=spec.counter("reduce", task.agent),
        failures=ReduceFailures(spec, state),
        window=spec.window("reduce", task.agent),
        open_repl=sessions.of_findings if sessions is not None else None,
        cache=_open_cache(spec, services, task, output),
        origins_of=services.origins_of,
        shown=frozenset(shown),
        redacts=spec.job.redaction is not None,
    )


def _open_cache(
    spec: Spec, services: Services, task: ReduceTask, output: ReductionType | None
) -> Answers | None:
    """Open the journal's answers to a task; None without a journal."""
    question = _question(task, output)
    cache = services.answers(spec, "reduction", "reduce", question, task.agent)
    if cache is not None and output is not None:  # whose schema holds values of the rows
        cache.keeper.is_about_rows = True
    return cache


def _question(task: ReduceTask, output: ReductionType | None) -> Question:
    """Say what an answer's key in the journal depends on beside the findings."""
    instruction = task.instruction
    if task.agent is not None and not isinstance(task.agent.instruction, str):
        # A function may put the text of rows into it, and keys must not tell what rows hold.
        instruction = fingerprint(instruction.encode()).hex()
    parts: dict[str, Any] = {"instruction": instruction}
    if output is not None:
        parts["choice"] = output.schema
    former = {"persona": write_former_persona(task.agent)}
    return Question(parts=parts, output=task.output, agent=task.agent, former=former)
