"""What an agent may choose to compute a number by, and the check of its choice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pandas_amr._findings.output import ReductionType
from pandas_amr._reduce.choice import Choice, Condition
from pandas_amr._reduce.field import IS_MISSING, MISSING, NUMBERS, Field
from pandas_amr._types.schema import object_schema
from pandas_amr._units.cells import make_reader_keys
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._agent.submission import Answer
    from pandas_amr._findings.citations import Support
    from pandas_amr._findings.inputs import ReduceInput

MOST_FIELDS = 200  # that an agent is shown; more would fill its window

WRITTEN = "written"  # in place of a function: nothing computes the number
OF_ROWS = ("count", "share", "percent")  # of rows, or of those that have a value in a field
OF_NUMBERS = ("sum", "mean", "median", "min", "max")
FUNCTIONS: Mapping[type, tuple[str, ...]] = {
    int: ("count", "nunique", "sum", "min", "max"),
    float: (*OF_ROWS, "nunique", *OF_NUMBERS),
}
CHOICE_KEYS = frozenset({"field", "function", "condition"})
CONDITION_KEYS = frozenset({"field", "comparison", "value"})


class Column(NamedTuple):
    """A column that a number can be computed from.

    Attributes:
        label: the column's.
        values: in the rows that are reduced.
        is_shown: whether an agent may see its values.
        source: the column of all rows.
    """

    label: Hashable
    values: pd.Series
    is_shown: bool
    source: pd.Series


@dataclass(frozen=True, eq=False)
class Fields:
    """What an agent may choose from: the fields, and the functions that give the number.

    Attributes:
        number: the type of the number that is asked for.
        rows: which rows have a finding.
        left_out: how many columns are not among the fields because there are too many.
        computed: the fields by their values in the rows, if the agent reads others: redacted ones.
    """

    fields: Mapping[str, Field]
    number: type[int | float]
    rows: NDArray[np.bool_]
    left_out: int = 0
    computed: Mapping[str, Field] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        columns: Sequence[Column],
        *,
        number: type[int | float],
        rows: NDArray[np.bool_],
        counted: bool,
    ) -> Fields:
        """Make fields of columns, under the names that reduce agents read.

        Args:
            columns: those that reduce agents read come first.
            number: the type of the number that is asked for.
            rows: which rows have a finding.
            counted: whether reduce agents read how many equal rows there are.
        """
        keys = make_reader_keys([column.label for column in columns], counted=counted)
        shown_columns = columns[:MOST_FIELDS]
        fields: dict[str, Field] = {}
        for key, column in zip(keys[:MOST_FIELDS], shown_columns, strict=True):
            fields[key] = Field(key, column.values, column.is_shown, column.source)
        return cls(fields, number, rows, left_out=len(columns) - len(shown_columns))

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that can give the number, of at least one field."""
        functions = FUNCTIONS[self.number]
        if any(self._gives_number(one) for one in self.fields.values()):
            return functions
        return tuple(name for name in functions if name not in OF_NUMBERS)

    def _gives_number(self, one: Field) -> bool:
        """Tell whether the values of a field add up to a number of the type."""
        return one.kind in NUMBERS and (self.number is float or one.is_whole)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a choice."""
        null = {"type": "null"}
        if not self.fields:
            function = {"type": "string", "enum": [*self.functions, WRITTEN]}
            return object_schema({"field": null, "function": function, "condition": null})
        alike: dict[str, list[Field]] = {}
        for one in self.fields.values():
            shape = json.dumps([one.comparisons, one.value_schema])
            alike.setdefault(shape, []).append(one)
        schemas = [_condition_schema(fields) for fields in alike.values()]
        condition = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        conditions = {"type": "array", "items": condition}
        names = {"type": "string", "enum": list(self.fields)}
        return object_schema(
            {
                "field": {"anyOf": [names, null]},
                "function": {"type": "string", "enum": [*self.functions, WRITTEN]},
                "condition": {"anyOf": [conditions, null]},
            }
        )

    @property
    def shown_rows(self) -> list[int]:
        """The rows, by number, of which the agent sees a value."""
        rows: set[int] = set()
        for one in self.fields.values():
            rows.update(one.shown_rows)
        return sorted(rows)

    @property
    def lines(self) -> list[str]:
        """What an agent is told of each field, as JSON."""
        return [one.line for one in self.fields.values()]

    def read_choice(self, output: Mapping[str, Any]) -> Choice | None:
        """Read a choice; None if the number is to be written.

        Raises:
            InvalidOutput: it cannot be computed, or does not give the number that is asked for.
        """
        if output.keys() - CHOICE_KEYS:
            raise InvalidOutput(
                "a choice has `field`, `function` and `condition`, and nothing beside them"
            )
        function = output.get("function")
        if function == WRITTEN:
            return None
        if function not in self.functions:
            number = "a whole number" if self.number is int else "a number"
            names = ", ".join((*self.functions, WRITTEN))
            raise InvalidOutput(f"the answer is {number}: `function` is one of {names}")
        conditions = output.get("condition")
        if not isinstance(conditions, list | None):
            raise InvalidOutput("`condition` is a list of conditions that all must hold, or null")
        chosen_field = None
        if output.get("field") is not None:
            shown_field = self._find_field(output["field"], "`field`")
            chosen_field = self.computed.get(shown_field.key, shown_field)
        read_conditions = tuple(self._read_condition(one) for one in conditions or ())
        choice = Choice(function, chosen_field, read_conditions, self.rows)
        self._check_function(choice)
        return choice

    def _find_field(self, key: object, what: str) -> Field:
        if not isinstance(key, str) or key not in self.fields:
            raise InvalidOutput(
                f"{what} is one of the fields shown, or null if `function` is count, share or "
                "percent"
            )
        return self.fields[key]

    def _read_condition(self, output: object) -> Condition:
        if not isinstance(output, dict) or not (
            {"field", "comparison"} <= output.keys() <= CONDITION_KEYS
        ):
            raise InvalidOutput(
                "a condition has `field`, `comparison` and `value`, and nothing beside them"
            )
        one = self._find_field(output["field"], "a condition's `field`")
        comparison = output["comparison"]
        value = output.get("value")
        if comparison not in one.comparisons:
            names = ", ".join(one.comparisons)
            raise InvalidOutput(f"the condition on {one.key!r} compares by one of {names}")
        if comparison in MISSING:
            if value is not None:
                raise InvalidOutput(
                    f"the condition on {one.key!r} takes the value null with {comparison!r}"
                )
            return Condition(one, comparison)
        if value is None:
            raise InvalidOutput(
                f"the condition on {one.key!r} takes a value; {IS_MISSING!r} selects the rows "
                "without one"
            )
        return Condition(one, comparison, one.parse(comparison, value))

    def _check_function(self, choice: Choice) -> None:
        """Check that the function can be taken of the field.

        Raises:
            InvalidOutput: it cannot.
        """
        function, of = choice.function, choice.field
        if function in {"share", "percent"} and not choice.conditions:
            raise InvalidOutput(
                f"{function!r} takes a condition: it counts the rows that meet it among all"
            )
        if function in OF_ROWS:
            return
        if of is None:
            raise InvalidOutput(f"{function!r} takes a field")
        if function == "nunique":
            if of.kind == "nested":
                raise InvalidOutput(f"{choice.name} cannot be counted: its values are nested")
            return
        if of.kind not in NUMBERS:
            raise InvalidOutput(
                f"{function!r} takes a field of numbers; {of.key!r} holds {of.kind}"
            )
        if not self._gives_number(of):
            raise InvalidOutput(f"the answer is a whole number, but {of.key!r} holds others")


def _condition_schema(fields: Sequence[Field]) -> dict[str, Any]:
    """Return the JSON schema of a condition on fields whose values are compared alike."""
    first = fields[0]
    return object_schema(
        {
            "field": {"type": "string", "enum": [one.key for one in fields]},
            "comparison": {"type": "string", "enum": list(first.comparisons)},
            "value": first.value_schema,
        }
    )


class ChoiceType(ReductionType):
    """The type of a reduction that says how a number is computed: a ``Choice``, or None.

    Attributes:
        fields: what the agent may choose from.
        insists: whether the last answer was a number, although a choice was asked for.
    """

    strict = False  # `Fields.read_choice` says what is wrong with a choice

    def __init__(self, fields: Fields) -> None:
        super().__init__(dict[str, Any])
        self.fields = fields
        self.schema = self._item_schema = fields.schema
        self.insists = False

    def read(
        self, answer: Answer, inputs: Sequence[ReduceInput]
    ) -> tuple[Choice | None, tuple[Support, ...]]:
        """Read the choice, and what the agent says that it rests on.

        Raises:
            InvalidOutput: it cannot be computed.
        """
        output = answer.payload.get("output") if isinstance(answer.payload, dict) else None
        self.insists = isinstance(output, int | float) and not isinstance(output, bool)
        if self.insists:
            raise InvalidOutput(
                f"`output` says how the number is computed, or {WRITTEN!r}; it is not the number "
                "itself"
            )
        value, support = super().read(answer, inputs)
        return self.fields.read_choice(value), support
