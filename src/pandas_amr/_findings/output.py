"""Reductions: the type that a reduce agent writes, and the check of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from pandas_amr._agent import prompts
from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.submission import REPL_FORM, Answer, Submission
from pandas_amr._findings.citations import Support, resolve_support
from pandas_amr._findings.finding_type import check_column_values
from pandas_amr._findings.inputs import ReduceInput
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr._types.arrow import arrow_schema, column_type
from pandas_amr._types.resolve import is_model, object_fields, without_none
from pandas_amr._types.schema import json_schema, object_schema, stored_schema
from pandas_amr._types.type_check import MERGED_KEY, has_merged_key, is_mistyped
from pandas_amr._types.violations import Leniency, drop_absent, find_violation
from pandas_amr._types.wire_read import find_unread
from pandas_amr._units.cells import cell, make_reader_keys, to_json_line
from pandas_amr.errors import InvalidOutput, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT_KEY = "output"
SOURCES_KEY = "sources"
FROM_ALL_KEY = "from_all"  # of an answer that code computed from all findings, and named none


@dataclass(frozen=True, slots=True)
class Reduction:
    """A checked answer of a reduce agent.

    Attributes:
        value: the answer: a value, or a list of items.
        support: what each item rests on, or what the whole value rests on.
        usage: what the agent was asked.
        read: the rows behind all that the agent has read.
    """

    value: Any
    support: tuple[Support, ...]
    usage: Usage
    read: frozenset[int] = frozenset()

    def inputs(self) -> list[ReduceInput]:
        """Render the reduction as inputs of an agent one level up."""
        values = self.value if isinstance(self.value, list) else [self.value]
        inputs: list[ReduceInput] = []
        for value, support in zip(values, self.support, strict=True):
            adapter: TypeAdapter[Any] = TypeAdapter(type(value))
            dumped = cell(adapter.dump_python(value))
            line = _render_value(dumped)
            inputs.append(ReduceInput(line, support, read=self.read))
        return inputs


def _render_value(value: object) -> str:
    """Render an answer, or an item of one, as a JSON object."""
    if not isinstance(value, dict):
        return to_json_line({OUTPUT_KEY: value})
    keys = make_reader_keys(list(value))
    return to_json_line(dict(zip(keys, value.values(), strict=True)))


class ReductionType:
    """The type of a reduction: its schema, and the check of an answer against it.

    Attributes:
        kind: the type as the user wrote it.
        item: the type of an item, if the type is a list; else None.
        schema: the JSON schema of an item, or of the whole value.
        strict: whether an answer is checked as strictly as a finding.
    """

    strict = True

    def __init__(self, kind: Any, *, in_column: bool = False) -> None:
        """Make the type of a reduction.

        Args:
            kind: the type that the user asks for.
            in_column: whether a column will hold the answers, as one holds those of groups.

        Raises:
            UsageError: no model can be asked for the type, or no column can hold its values.
        """
        self.kind = kind
        self.item = get_args(kind)[0] if get_origin(kind) is list else None
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        self._kept_schema = stored_schema(kind)
        self._column = self._column_type(in_column=in_column)
        if self.item is None:
            self.schema = json_schema(kind)
            self._item_schema = self._kept_schema
        else:
            self.schema = json_schema(self.item)
            self._item_schema = stored_schema(self.item)
        if SOURCES_KEY in self.schema.get("properties", {}):
            raise UsageError(
                f"output= has a field {SOURCES_KEY!r}. Agents list there the findings that their "
                "answer rests on. Rename the field."
            )

    def _column_type(self, *, in_column: bool) -> Any:
        """Return the type of the column that will hold the value or its items.

        Returns:
            None if no column will hold them, or if a column of any type can.

        Raises:
            UsageError: no column can hold them.
        """
        item = self.kind if self.item is None else self.item
        is_shown_as_frame = self.item is not None and is_model(item)
        if not in_column and not is_shown_as_frame:
            return None
        if is_model(item):
            arrow_schema(item)
        elif item is dict or get_origin(item) is dict:
            return None
        else:
            column_type(item)
        return item

    @cached_property
    def intermediate(self) -> ReductionType:
        """The type that an intermediate agent writes: notes, if the answer is a scalar."""
        if self.item is not None or object_fields(self.kind) is not None:
            return self
        return ReductionType(str)

    @property
    def empty_reduction(self) -> Reduction | None:
        """The reduction of no findings: an empty list; None if the type is not a list."""
        return None if self.item is None else Reduction([], (), NO_USAGE)

    @property
    def submit_line(self) -> str:
        """The line of code that hands in a reduction."""
        fields = self.schema.get("properties", {})
        return prompts.reduction_line(fields, listed=self.item is not None)

    def submission(self) -> Submission:
        """Return what an agent hands in: the output and the numbers of its sources."""
        return self._submission

    @cached_property
    def _submission(self) -> Submission:
        sources = {"type": "array", "items": {"type": "integer"}}
        schema = self._item_schema
        if self.item is None:
            properties = {"output": schema, "sources": sources}
        elif "properties" in schema:  # each item names its own sources
            fields = {**schema["properties"], "sources": sources}
            item = {**schema, "properties": fields, "required": list(fields)}
            properties = {"output": {"type": "array", "items": item}}
        else:
            properties = {"output": {"type": "array", "items": schema}, "sources": sources}
        return Submission("reduction", object_schema(properties))

    def read(
        self, answer: Answer, inputs: Sequence[ReduceInput]
    ) -> tuple[Any, tuple[Support, ...]]:
        """Read the value of an answer, and what it rests on.

        Raises:
            InvalidOutput: it is not of this type, or cites a finding that is not among the inputs.
        """
        payload = answer.payload
        if answer.problem is not None:
            raise InvalidOutput(answer.problem)
        if not isinstance(payload, dict) or "output" not in payload:
            raise InvalidOutput("the answer has no `output`")
        output = payload["output"]
        common_sources = payload.get("sources")
        if self.item is None or not isinstance(output, list):
            cited = [common_sources]
        else:
            output, cited = _split_sources(output, common_sources)
        is_computed = payload.get(FROM_ALL_KEY) is True
        support: list[Support] = []
        for numbers in cited:
            from_all = is_computed and numbers == common_sources
            support.append(_resolve_sources(numbers, inputs, from_all=from_all))
        leniency = Leniency(coded=answer.form == REPL_FORM)
        return self._check(output, leniency), tuple(support)

    def _check(self, output: object, leniency: Leniency) -> Any:
        """Check an answer as strictly as a finding, and convert it.

        Raises:
            InvalidOutput: it is not of this type, or no column can hold it.
        """
        output = drop_absent(output, self._kept_schema)
        try:
            value = self._adapter.validate_python(output)
        except ValidationError as error:
            unread = find_unread(output, self._submission.wire.shape["properties"]["output"])
            raise InvalidOutput(unread or complaint(error)) from None
        except Exception as error:  # noqa: BLE001 (a validator of the user's may raise anything)
            raise InvalidOutput(f"its validator raised {type(error).__name__}") from None
        violation = None
        if self.strict:
            violation = find_violation(output, self._kept_schema, leniency)
        if violation is None and has_merged_key(output, self.kind):
            violation = MERGED_KEY
        if violation is None and is_mistyped(value, self.kind):
            violation = "its validator returned a value that is not of the type"
        if violation is not None:
            raise InvalidOutput(violation)
        if self._column is not None:
            values = [value] if self.item is None else value
            check_column_values(values, self._column)
        return value


def _split_sources(items: list[Any], common_sources: object) -> tuple[list[Any], list[Any]]:
    """Take each item's sources out of it; an item without any has those of the whole answer."""
    values: list[Any] = []
    cited: list[Any] = []
    for item in items:
        if isinstance(item, dict):
            fields = dict(item)
            cited.append(fields.pop("sources", common_sources))
            values.append(fields)
        else:
            cited.append(common_sources)
            values.append(item)
    return values, cited


def _resolve_sources(numbers: object, inputs: Sequence[ReduceInput], *, from_all: bool) -> Support:
    """Find the rows behind the cited findings.

    Args:
        numbers: the numbers of the findings, as the agent gave them.
        inputs: all findings that the agent has read.
        from_all: whether code computed the answer from all of them. Each is then evidence.

    Raises:
        InvalidOutput: it is not a list of numbers of findings.
    """
    if not isinstance(numbers, list):
        raise InvalidOutput(
            "`sources` is missing: the list of the numbers of the findings that it rests on"
        )
    for number in numbers:
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if not is_number or not 0 <= number < len(inputs):
            last = len(inputs) - 1
            raise InvalidOutput(f"`sources` names finding {number!r}; findings are 0 to {last}")
    if from_all:
        rows = [one.rows for one in inputs]
        return Support(frozenset().union(*rows))
    return resolve_support(numbers, inputs)


def number_type(output: object) -> type[int | float] | None:
    """Tell which number an output is; None if it is something else.

    Example:
        >>> number_type(int | None), number_type(Annotated[float, "a share"]), number_type(bool)
        (<class 'int'>, <class 'float'>, None)
    """
    kind, _ = without_none(output)
    if get_origin(kind) is Annotated:
        return number_type(get_args(kind)[0])
    if get_origin(kind) is not None:
        is_number = set(get_args(kind)) == {int, float}  # int | float
        return float if is_number else None
    if kind is int:
        return int
    if kind in (float, Decimal):
        return float
    return None
