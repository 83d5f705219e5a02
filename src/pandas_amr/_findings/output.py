"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from pandas_amr._agent import prompts
from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.loop import REPL_FORM, Answer, Submission
from pandas_amr._findings.citations import Support, support_of
from pandas_amr._findings.finding_type import check_held
from pandas_amr._findings.inputs import Input
from pandas_amr._records.usage import Usage
from pandas_amr._types.arrow import arrow_schema, column_type, is_stray
from pandas_amr._types.schema import (
    closed_object,
    is_model,
    json_schema,
    kept_schema,
    object_fields,
)
from pandas_amr._types.violations import Leniency, find_violation, without_absent
from pandas_amr._types.wire_read import find_unread
from pandas_amr._units.cells import cell, line_of, reader_keys
from pandas_amr.errors import InvalidOutput, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


OUTPUT_KEY = "output"


SOURCES_KEY = "sources"


FROM_ALL_KEY = "from_all"  # of an answer that code computed from all findings, and named none


@dataclass(frozen=True, slots=True)
class Reduced:
    """A reduction: its value, checked; and for each of its items, or for all of it, the rows it rests on.

    Attributes:
        claims: likewise, which of these rows are evidence, if agents named them; else all are.
    """

    value: Any
    rows: tuple[frozenset[int], ...]
    usage: Usage
    claims: tuple[Support, ...] = ()

    @classmethod
    def of(cls, value: Any, claims: tuple[Support, ...], usage: Usage) -> Reduced:
        """What an agent gave."""
        return cls(value, tuple(claim.rows for claim in claims), usage, claims)

    @property
    def support(self) -> tuple[Support, ...]:
        """For each item, or for all of it, what it rests on."""
        return self.claims or tuple(Support(rows) for rows in self.rows)

    def inputs(self) -> list[Input]:
        """The reduction as the inputs of a reducer one level up."""
        values = self.value if isinstance(self.value, list) else [self.value]
        dumped = [cell(TypeAdapter(type(value)).dump_python(value)) for value in values]
        return [
            Input(_reduced_line(value), support.rows, claim=support)
            for value, support in zip(dumped, self.support, strict=True)
        ]


def _reduced_line(value: Any) -> str:
    """Render an answer, or an item of one, for a reducer one level up."""
    if not isinstance(value, dict):
        return line_of({OUTPUT_KEY: value})
    return line_of(dict(zip(reader_keys(list(value)), value.values(), strict=True)))


class OutputType:
    """What a reduction is: the promised schema and the check of an answer against it.

    Attributes:
        strict: whether an answer is checked as a finding is.
    """

    strict = True

    def __init__(self, kind: Any, *, held: bool = False) -> None:
        """Make the type of a reduction; ``held`` are those that columns are to hold, as the groups' are.

        Raises:
            UsageError: no model can be asked for it, or no column can hold it.
        """
        self.kind = kind
        self.item = get_args(kind)[0] if get_origin(kind) is list else None
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        self._form = kept_schema(kind)
        self._column = self._column_type(held=held)
        self.schema = json_schema(self.item if self.item is not None else kind)
        self._asked = self._form if self.item is None else kept_schema(self.item)
        if SOURCES_KEY in self.schema.get("properties", {}):
            raise UsageError(
                f"output= has a field {SOURCES_KEY!r}: that is where agents say which findings their answer rests on. "
                "Call it otherwise."
            )

    def _column_type(self, *, held: bool) -> Any:
        """The type of what a column holds of an answer; None if none does, or one of any shape."""
        item = self.kind if self.item is None else self.item
        if not held and (self.item is None or not is_model(item)):
            return None
        if is_model(item):
            arrow_schema(item)
        elif item is dict or get_origin(item) is dict:
            return None
        else:
            column_type(item)
        return item

    @cached_property
    def partial(self) -> OutputType:
        """What an intermediate reducer writes: items and objects as they are; notes where a scalar is asked for."""
        return (
            self
            if self.item is not None or object_fields(self.kind) is not None
            else OutputType(str)
        )

    @property
    def nothing(self) -> Reduced | None:
        """What is written of no findings: no items; else nothing."""
        return None if self.item is None else Reduced([], (), Usage())

    @property
    def line(self) -> str:
        """The line of code that hands in."""
        return prompts.reduction_line(
            self.schema.get("properties", {}), listed=self.item is not None
        )

    def submission(self) -> Submission:
        """What a reduce agent hands in."""
        return self._submission

    @cached_property
    def _submission(self) -> Submission:
        sources = {"type": "array", "items": {"type": "integer"}}
        if self.item is None:
            properties = {"output": self._asked, "sources": sources}
        elif "properties" in self._asked:
            fields = {**self._asked["properties"], "sources": sources}
            item = {**self._asked, "properties": fields, "required": list(fields)}
            properties = {"output": {"type": "array", "items": item}}
        else:
            properties = {"output": {"type": "array", "items": self._asked}, "sources": sources}
        return Submission("reduction", closed_object(properties))

    def read(self, answer: Answer, inputs: Sequence[Input]) -> tuple[Any, tuple[Support, ...]]:
        """The value and what it rests on.

        Raises:
            InvalidOutput: it is not the promised type, or cites a finding that the node was not given.
        """
        payload = answer.payload
        if answer.problem is not None:
            raise InvalidOutput(answer.problem)
        if not isinstance(payload, dict) or "output" not in payload:
            raise InvalidOutput("the answer has no `output`")
        given = payload["output"]
        everywhere = payload.get("sources")
        if self.item is None or not isinstance(given, list):
            cited = [everywhere]
        else:
            cited = [
                part.get("sources", everywhere) if isinstance(part, dict) else everywhere
                for part in given
            ]
            given = [
                {key: value for key, value in part.items() if key != "sources"}
                if isinstance(part, dict)
                else part
                for part in given
            ]
        is_computed = payload.get(FROM_ALL_KEY) is True
        support = tuple(
            _resolved(part, inputs, from_all=is_computed and part == everywhere) for part in cited
        )
        return self._checked(given, Leniency(coded=answer.form == REPL_FORM)), support

    def _checked(self, given: Any, leniency: Leniency) -> Any:
        """The value of an answer, checked as strictly as a finding's.

        Raises:
            InvalidOutput: it is not the promised type, or no column can hold it.
        """
        given = without_absent(given, self._form)
        try:
            value = self._adapter.validate_python(given)
        except ValidationError as error:
            unread = find_unread(given, self._submission.wire.shape["properties"]["output"])
            raise InvalidOutput(unread or complaint(error)) from None
        except Exception as error:  # noqa: BLE001 (a validator of the user's raised what pydantic lets pass)
            raise InvalidOutput(f"its validator raised {type(error).__name__}") from None
        if is_stray(value, self.kind):
            raise InvalidOutput("its validator gave what the type does not take")
        if self.strict and (wrong := find_violation(given, self._form, leniency)) is not None:
            raise InvalidOutput(wrong)
        if self._column is not None:
            check_held(value if self.item is not None else [value], self._column)
        return value


def _resolved(numbers: Any, inputs: Sequence[Input], *, from_all: bool) -> Support:
    """What the cited findings rest on; of what code computed from all of them, each is evidence.

    Raises:
        InvalidOutput: a number is none of theirs.
    """
    if not isinstance(numbers, list):
        raise InvalidOutput(
            "`sources` is missing: the list of the numbers of the findings that it rests on"
        )
    unknown = [
        n
        for n in numbers
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < len(inputs)
    ]
    if unknown:
        raise InvalidOutput(
            f"`sources` names finding {unknown[0]!r}; findings are 0 to {len(inputs) - 1}"
        )
    if from_all:
        return Support(frozenset().union(*(one.rows for one in inputs)))
    return support_of(numbers, inputs)
