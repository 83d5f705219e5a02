"""Make a plan of a planner's answer. What the user fixed stays, and the answer has to fit it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._plan.aggregations import Aggregation
from pandas_amr._plan.answer import (
    PlanAnswer,
    PlannedFields,
    PlanningContext,
    describe_right_parts,
    drop_implausible,
)
from pandas_amr._plan.answer_fields import check_ranking, check_segmentation, plan_fields
from pandas_amr._plan.call_text import user_finding_types
from pandas_amr._plan.checks import check_names
from pandas_amr._plan.plan import Plan, View
from pandas_amr._plan.words import is_always
from pandas_amr._types.arrow import field_kind
from pandas_amr._units.neighbours import Segmentation
from pandas_amr.errors import InvalidOutput, PlanWarning, UsageError

if TYPE_CHECKING:
    from pandas_amr._plan.call import Job

DROPPED = "dropped"  # in an answer in the journal: what was taken out of it

# The words that a planner chooses from: none of them can be a cell's text that it copied.
VOCABULARY = frozenset((*get_args(Segmentation), *get_args(View), *get_args(Aggregation)))


@dataclass(frozen=True)
class AnswerReader:
    """Reads a planner's answers to a job.

    Attributes:
        form: the type of an answer.
        job: the call.
        alone: whether the model that maps judges each unit alone.
    """

    form: type[PlanAnswer]
    job: Job
    alone: bool

    def read_new(
        self, payload: object, *, is_last: bool
    ) -> tuple[Plan, PlanWarning | None, dict[str, Any]]:
        """Read a model's answer, and take out of it what is implausible.

        Args:
            payload: the answer.
            is_last: whether the planner will not be asked again.

        Returns:
            The plan, a warning if a part is left out, and the answer to keep in the journal.

        Raises:
            InvalidOutput: the answer cannot be used.
        """
        job = self.job
        context = PlanningContext(
            job.sent,
            job.columns,
            frozenset(map(str, [*job.frame.columns, *user_finding_types(job)])),
            free=job.given.output is None,
            number=job.given.output in {int, float},
            last=is_last,
        )
        answer, dropped = drop_implausible(self._validate(payload), context)
        entry = answer.model_dump()
        if dropped:
            entry[DROPPED] = dropped
        plan, warning = self.read(entry)
        counted = _count_problem(answer, job)
        if counted is not None and not is_last:
            raise InvalidOutput(counted)
        return plan, warning, entry

    def read(self, payload: object) -> tuple[Plan, PlanWarning | None]:
        """Read an answer out of the journal.

        Returns:
            The plan, and a warning if a part of the answer is left out.

        Raises:
            InvalidOutput: the answer names what does not exist, or does not fit what is fixed.
        """
        answer = self._validate(payload)
        dropped = payload.get(DROPPED, ()) if isinstance(payload, dict) else ()
        try:
            plan = self._make_plan(_without_fixed_parts(answer, self.job))
        except ValidationError as error:
            raise InvalidOutput(complaint(error)) from None
        except UsageError as error:
            raise InvalidOutput(str(error)) from None
        warnings = [
            _unused_reduce_warning(answer, self.job),
            _dropped_warning(dropped),
            _count_problem(answer, self.job),
        ]
        texts = [str(warning) for warning in warnings if warning is not None]
        return plan, PlanWarning(" ".join(texts)) if texts else None

    def _validate(self, payload: object) -> PlanAnswer:
        """Read an answer in its form.

        Raises:
            InvalidOutput: a part is wrong; the message says what would be right for it.
        """
        try:
            return self.form.model_validate(payload)
        except ValidationError as error:
            parts = [str(problem["loc"][0]) for problem in error.errors() if problem["loc"]]
            right = describe_right_parts(parts)
            hint = f". Right would be: {right}" if right else ""
            raise InvalidOutput(complaint(error) + hint) from None

    def _make_plan(self, answer: PlanAnswer) -> Plan:
        job = self.job
        check_segmentation(answer, job, alone=self.alone)
        check_ranking(answer, job)
        fields = {
            name: value for name, value in plan_fields(answer, job).items() if value is not None
        }
        fields |= job.given.fixed()
        fields |= {"task": job.task, "made_by": "planner"}
        plan = Plan(**fields)
        check_names(replace(job, by=plan.by), plan)
        return plan


def _without_fixed_parts(answer: PlanAnswer, job: Job) -> PlanAnswer:
    """Take the parts out of an answer that the user fixed."""
    fixed = job.given.fixed()
    changes: dict[str, Any] = {}
    if "reduce_instruction" not in job.open:
        changes |= {"where": None, "by": [], "aggregations": []}
        changes |= {"ranking": None, "reduce_instruction": None}
    if "where" in fixed:
        changes["where"] = None
    if "by" in fixed:
        changes["by"] = []
    if "segmentation" in fixed:
        changes |= {"segmentation": "rows", "group_columns": []}
    return answer.model_copy(update=changes)


def _unused_reduce_warning(answer: PlanAnswer, job: Job) -> PlanWarning | None:
    """Tell which rows and groups the planner would have added to a reduce of the user's."""
    if not job.reduces or "reduce_instruction" in job.open:
        return None
    fixed = job.given.fixed()
    parts = []
    if answer.where and "where" not in fixed and not is_always(answer.where):
        parts.append(f"where={answer.where!r}")
    if answer.by and "by" not in fixed:
        parts.append(f"by={answer.by!r}")
    if not parts:
        return None
    text = mask_answer_texts(answer.model_dump(), " and ".join(parts), job)
    return PlanWarning(
        f"The planner also gave {text}; it is left out, since the reduce is yours. "
        "Say by=, or plan={'where': ...}, if it is meant."
    )


def _count_problem(answer: PlanAnswer, job: Job) -> str | None:
    """Say of a planned count of a bool that it counts all rows, which is seldom what is asked."""
    if answer.where is not None or "reduce_instruction" not in job.open:
        return None
    bools = {field.name for field in answer.finding if field.type == "bool"}
    if "finding" not in job.open:
        types = user_finding_types(job).items()
        bools = {str(name) for name, kind in types if field_kind(kind) == "bool"}
    for part in answer.aggregations:
        if part.function == "count" and part.field in bools:
            return (
                f"The plan's 'count' of {part.field!r} counts all rows, also those in which it is "
                "false; 'sum' counts those in which it is true."
            )
    return None


def _dropped_warning(dropped: object) -> PlanWarning | None:
    """Tell what was implausible in an answer."""
    if not isinstance(dropped, list):
        return None
    texts = [text for text in dropped if isinstance(text, str)]
    if not texts:
        return None
    return PlanWarning(
        f"Left out of the planner's answer as implausible: {'; '.join(texts)}. Say plan= to fix it."
    )


def mask_answer_texts(payload: object, message: str, job: Job) -> str:
    """Replace an answer's texts in a message by dots, since they may be copies of cells.

    Names of fields and columns stay.
    """
    names = {str(name) for name in [*job.frame.columns, *user_finding_types(job)]}
    with contextlib.suppress(ValidationError):  # an answer without fields names none
        names |= {field.name for field in PlannedFields.model_validate(payload).finding}
    for text in _texts_in(payload) - names - VOCABULARY:
        message = message.replace(repr(text), "'...'")
    return message


def _texts_in(payload: object) -> set[str]:
    """Return all texts in decoded JSON."""
    if isinstance(payload, str):
        return {payload}
    parts: list[object] = []
    if isinstance(payload, dict):
        parts = list(payload.values())
    elif isinstance(payload, list):
        parts = payload
    texts: set[str] = set()
    for part in parts:
        texts |= _texts_in(part)
    return texts
