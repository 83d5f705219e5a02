"""The plan: what a run does, derived and editable, in a file as JSON."""

from __future__ import annotations

import datetime as dt
import functools
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_args, get_origin

import numpy as np
import pandas as pd
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pandas_amr._records.graph import Graph, graph_of_shape
from pandas_amr._types.constraints import find_lost_checks
from pandas_amr._types.from_schema import bounded_type_of, type_of
from pandas_amr._types.record import model_of_fields, record_type
from pandas_amr._types.resolve import is_model, is_plain_record, without_alias
from pandas_amr._types.schema import (
    DATETIME_PATTERN,
    TEXT_FINDING,
    TIME_PATTERN,
    json_schema,
    kept_schema,
)
from pandas_amr._units.by import By, described_key, is_code
from pandas_amr._units.neighbours import Segmentation
from pandas_amr.errors import PlanError, PlanWarning, UsageError

if TYPE_CHECKING:
    from pandas_amr._records.estimate import Estimate

FORMAT = 2  # of a plan's JSON
READ_FORMATS = (1, FORMAT)
FORMAT_KEY = "amr_plan"

Aggregation = Literal[
    "count", "sum", "mean", "median", "min", "max", "nunique", "value_counts", "share"
]
Keyed = Literal["unit", "shard"]
View = Literal["inline", "preview"]
Merge = Literal[
    "first",
    "last",
    "min",
    "max",
    "sum",
    "mean",
    "any",
    "all",
    "mode",
    "union",
    "concat",
    "agent",
    "fields",
]
RECORDS = 64
PLAIN_TYPES = frozenset({str, int, float, bool, dt.date, dt.datetime})
STATUS_COLUMNS = ("amr_status", "amr_reason")


def as_finding(given: Any) -> Any:
    """What a user means: a pydantic model, or a list of one where a unit holds none or many.

    A dict of types and a JSON schema become a model; None is a text.

    Raises:
        UsageError: it is none of these.
    """
    if given is None:
        return record_type("Finding", {TEXT_FINDING: (str, Field(min_length=1))})
    if _is_model(given) or is_listed(given):
        return given
    if is_plain_record(given):
        return model_of_fields(given)
    if get_origin(given) is list and is_plain_record(get_args(given)[0]):
        return list[model_of_fields(get_args(given)[0])]  # type: ignore[misc]
    if _is_schema(given):
        return type_of(given, str(given.get("title", "Finding")))
    if isinstance(given, dict) and given:
        return _record_of(given)
    raise UsageError(
        f"finding= takes a pydantic model, a dataclass, a TypedDict, a list[...] of one, a dict of types, or nothing, "
        f"not {given!r}."
    )


def _record_of(fields: dict[str, Any]) -> type[BaseModel]:
    """Make the model of a dict of types. Plain ones give the same model each time: it and its schemas take a while."""
    plain: list[tuple[Any, ...]] = []
    for name, given in fields.items():
        kind, *about = given if isinstance(given, tuple) else (given,)
        if isinstance(kind, list) and not about and all(type(choice) is str for choice in kind):
            plain.append((name, list, *kind))
        elif (
            isinstance(kind, type)
            and kind in PLAIN_TYPES
            and all(type(words) is str for words in about)
        ):
            plain.append((name, kind, *about))
        else:
            return record_type("Finding", fields)
    return _plain_record(*plain)


@functools.lru_cache(RECORDS)
def _plain_record(*fields: tuple[Any, ...]) -> type[BaseModel]:
    """Make the model of plain fields: name and type, with a description; or name, ``list`` and the choices."""
    given: dict[str, Any] = {}
    for name, kind, *rest in fields:
        given[name] = rest if kind is list else (kind, *rest) if rest else kind
    return record_type("Finding", given)


def is_listed(kind: Any) -> bool:
    """Whether a type is ``list[Model]``."""
    return getattr(kind, "__origin__", None) is list and _is_model(get_args(kind)[0])


def is_record(kind: Any) -> bool:
    """Whether a type is one that has fields, or a list of one: a model, a dataclass, a TypedDict."""
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    return is_model(item) or is_plain_record(item)


def as_output(given: Any) -> Any:
    """The type that a user asks the reduce for: a type, or its JSON schema.

    Raises:
        UsageError: it is neither.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        return bounded_type_of(given, "Output")
    if getattr(given, "__name__", "") == "DataFrame" and str(
        getattr(given, "__module__", "")
    ).startswith("pandas"):
        return list[dict[str, Any]]
    kind = without_alias(given)
    if isinstance(kind, type) or get_origin(kind) is not None:
        json_schema(kind)
        return kind
    raise UsageError(
        f"output= takes str, int, float, bool, a pydantic model, list[Model] or pd.DataFrame, not {given!r}."
    )


def _without_zones(schema: Any) -> Any:
    """The types of a plan of format 1, whose times of the formats of RFC 3339 were meant without a zone."""
    if isinstance(schema, list):
        return [_without_zones(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "string" and schema.get("format") in _ZONELESS:
        rest = {key: value for key, value in schema.items() if key != "format"}
        return rest | {"pattern": _ZONELESS[schema["format"]]}
    return {key: _without_zones(value) for key, value in schema.items()}


_ZONELESS = {"date-time": DATETIME_PATTERN, "time": TIME_PATTERN}


def _is_schema(given: Any) -> bool:
    if not isinstance(given, dict):
        return False
    if given.get("type") == "array":
        return _is_schema(given.get("items"))
    return given.get("type") == "object" and isinstance(given.get("properties"), dict)


def _as_findings(given: Any) -> Any:
    """One finding type, or one for each named map."""
    if given is None or not isinstance(given, dict) or _is_schema(given):
        return None if given is None else as_finding(given)
    if given and all(isinstance(part, dict) or is_record(part) for part in given.values()):
        return {name: as_finding(part) for name, part in given.items()}
    return as_finding(given)


def _is_model(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, BaseModel)


def _schema_or_none(kind: Any) -> Any:
    if isinstance(kind, dict):
        return {name: kept_schema(part) for name, part in kind.items()}
    return None if kind is None else kept_schema(kind)


def _as_by(given: Any) -> By | None:
    if given is None or isinstance(given, By):
        return given
    if isinstance(given, dict):
        options = {
            name: bool(given[name]) for name in ("sort", "dropna", "observed") if name in given
        }
        return By(*_labels(given.get("keys")), **options)
    return By(*_labels(given))


def _by_or_none(by: By | None) -> Any:
    keys = None if by is None else _plain_labels(list(by.keys))
    return keys if by is None or all(by.options.values()) else {"keys": keys} | by.options


def _labels(given: Any) -> list[Any]:
    """Column labels; JSON has no tuples and no dates, and a label is never a list or a dict."""
    if given is None:
        return []
    many: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    return [_label(one) for one in many]


def _label(given: Any) -> Any:
    match given:
        case list():
            return tuple(_label(part) for part in given)
        case {"datetime": str(when)}:
            return pd.Timestamp(when)
        case {"date": str(when)}:
            return dt.date.fromisoformat(when)
    return given


def _plain_label(label: Any) -> Any:
    """A label as JSON has it; ``_label`` reads it again.

    Raises:
        PlanError: JSON has no word for it.
    """
    if isinstance(label, tuple):
        return [_plain_label(part) for part in label]
    if label is None or isinstance(label, str | bool | int | float):
        return label
    if isinstance(label, dt.datetime):
        return {"datetime": label.isoformat()}
    if isinstance(label, dt.date):
        return {"date": label.isoformat()}
    if isinstance(label, np.number | np.bool_):
        return label.item()
    if is_code(label):
        raise PlanError(
            f"A plan's JSON cannot hold {described_key(label)} as a key of by=: name a column instead, or say by= "
            "again beside plan=."
        )
    raise PlanError(
        f"A plan's JSON cannot hold the column label {label!r}: name the column by a text, a number or a date."
    )


def _labels_or_none(given: Any) -> list[Any] | None:
    return None if given is None else _labels(given)


def _plain_labels(labels: list[Any] | None) -> list[Any] | None:
    return None if labels is None else [_plain_label(one) for one in labels]


ByType = Annotated[Any, BeforeValidator(_as_by), PlainSerializer(_by_or_none)]
LabelsType = Annotated[
    list[Any] | None, BeforeValidator(_labels_or_none), PlainSerializer(_plain_labels)
]
FindingType = Annotated[Any, BeforeValidator(_as_findings), PlainSerializer(_schema_or_none)]
OutputType = Annotated[Any, BeforeValidator(as_output), PlainSerializer(_schema_or_none)]


class Ranking(BaseModel):
    """The rows that rank first by a field of the finding: computed, whole rows, in their order.

    Attributes:
        field: the field, or a column of the frame.
        most: how many rows; with ``by``, how many of each group.
        lowest_first: whether the lowest come first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    most: int = Field(default=10, ge=1)
    lowest_first: bool = False


class Made(Protocol):
    """What a plan can do that was made for a frame and a model."""

    @property
    def estimate(self) -> Estimate:
        """What it would take."""
        ...

    def sampled(self, units: int) -> Estimate:
        """What it would take, by a sample that is mapped."""
        ...

    def requests(self, count: int) -> list[dict[str, Any]]:
        """The first requests, as they would be sent."""
        ...


class Plan(BaseModel):
    """What a run does. Frozen: ``replace`` gives an edited copy; its JSON, kept in a file, repeats the run.

    Fields that are None are derived when the plan runs.

    Attributes:
        task: the sentence that it was derived from.
        columns: the content columns; default: all.
        axis: ``rows``, or ``columns``: whether a unit is a row or a content column.
        map_instruction: what map agents find out of a unit; by name where maps run side by side.
        finding: the type of a finding, a pydantic model; by name likewise.
        where: a field that is true or false: only rows where it is true are reduced.
        by: the columns, or fields, by which findings are grouped before they are reduced.
        aggregations: what pandas computes from the findings' columns, as in ``DataFrame.agg``; ``share`` is
            ``value_counts(normalize=True)``.
        ranking: the rows that rank first by a field, where they are the answer.
        reduce_instruction: what reduce agents write from the findings.
        output: the type of the answer.
        segmentation: how units are judged: ``rows``: each alone; ``neighbours``: in the context of the rows around
            them, which are shown; ``groups``: together with all units of their group, one group a shard.
        context_rows: with ``neighbours``, how many rows before and after a shard are shown; default 3.
        group_columns: with ``groups``, the columns whose equal values make a group.
        view: ``inline``: the units stand in the prompt; ``preview``: they stand in the REPL's ``df``, and the prompt
            holds columns, profile and a few rows.
        shard_size: most units of a shard.
        shard_tokens: most tokens of a shard's units.
        parallelism: most agents at work at once.
        fan_in: how many nodes one reduce agent combines: a static tree, whose nodes start as their findings land.
            Without it the tree is adaptive: as many findings to an agent as its budget holds.
        reduce_budget: tokens of findings that one reduce agent gets in an adaptive tree.
        context_window: the window that this budget is derived from where it is not given; default: the model's own.
        budget_ratio: the share of the window, default 0.5; prompt, schema and answer are subtracted.
        max_reduce_levels: most levels before the final reduce, default 10.
        direct: one agent answers alone where the whole content fits its budget; there are then no findings.
        dedupe: whether equal units are asked once. Where there is a journal they are in any case: it knows them as one.
        keyed: how findings are known again in the journal: ``unit``: by the unit's own content; ``shard``: by all of
            the shard's, where a finding may depend on its neighbours.
        max_repairs: turns in which an agent may mend what could not be used, before its shard is halved.
        merge: how the pieces of a unit that is larger than a shard become one finding, by field; default: ``any`` of
            bools, ``max`` of numbers, ``mode`` of choices, ``union`` of lists, ``first`` of dates; texts by an agent.
        status: True adds the columns ``amr_status`` and ``amr_reason``; a pair of names calls them so.
        made_by: who derived what the user had not fixed: nobody (``user``), or a ``planner``; ``rules`` stands in plans
            that were kept by versions that guessed, and runs as the plan says.
        left_out: of a plan read from JSON, the checks of its types that the JSON could not hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = None
    columns: LabelsType = None
    axis: Literal["rows", "columns"] | None = None
    map_instruction: str | dict[str, str] | None = None
    finding: FindingType = None
    where: str | None = None
    by: ByType = None
    aggregations: dict[str, Aggregation | list[Aggregation]] | None = None
    ranking: Ranking | None = None
    reduce_instruction: str | None = None
    output: OutputType = None
    segmentation: Segmentation | None = None
    context_rows: int | None = Field(default=None, ge=1)
    group_columns: LabelsType = None
    view: View | None = None
    shard_size: int | None = Field(default=None, ge=1)
    shard_tokens: int | None = Field(default=None, ge=1)
    parallelism: int | None = Field(default=None, ge=1)
    fan_in: int | None = Field(default=None, ge=2)
    reduce_budget: int | None = Field(default=None, ge=1)
    context_window: int | None = Field(default=None, ge=1)
    budget_ratio: float | None = Field(default=None, gt=0, le=1)
    max_reduce_levels: int | None = Field(default=None, ge=1)
    direct: bool | None = None
    dedupe: bool | None = None
    keyed: Keyed | None = None
    max_repairs: int | None = Field(default=None, ge=0, le=10)
    merge: dict[str, Merge] | None = None
    status: bool | tuple[str, str] | None = None
    made_by: Literal["user", "planner", "rules"] = "user"
    left_out: list[str] | None = None

    _made: Made | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _without_format(cls, given: Any) -> Any:
        """Take a plan's JSON as it is."""
        if not isinstance(given, dict) or given.get(FORMAT_KEY) not in READ_FORMATS:
            return given
        fields = {name: value for name, value in given.items() if name != FORMAT_KEY}
        if given[FORMAT_KEY] == 1:
            fields |= {
                name: _without_zones(fields[name])
                for name in ("finding", "output")
                if name in fields
            }
        return fields

    @model_validator(mode="after")
    def _agreeing(self) -> Plan:
        """Refuse fields that contradict each other."""
        depends = self.segmentation in {"neighbours", "groups"}
        if depends and (self.dedupe or self.keyed == "unit"):
            wrong = "dedupe" if self.dedupe else "keyed"
            raise ValueError(
                f"{wrong}={getattr(self, wrong)!r} takes units that are judged alone (segmentation='rows')"
            )
        if (self.segmentation == "groups") != bool(self.group_columns):
            raise ValueError("segmentation='groups' and group_columns=[...] belong together")
        if self.ranking is not None and self.aggregations and not self.reduce_instruction:
            raise ValueError(
                "aggregations and a ranking are two answers; a reduce_instruction joins them into one"
            )
        return self

    @property
    def status_columns(self) -> tuple[str, str] | None:
        """What the status columns are called; None where none are added."""
        return STATUS_COLUMNS if self.status is True else self.status or None

    def made_for(self, made: Made) -> Plan:
        """A copy that knows its frame and model."""
        plan = self.model_copy()
        plan._made = made  # noqa: SLF001 (its own)
        return plan

    @property
    def _there(self) -> Made:
        if self._made is None:
            raise PlanError(
                "This plan was not made for a frame: df.amr.plan(plan=plan, lm=...) gives one that was."
            )
        return self._made

    def estimate(self, sample: int | None = None) -> Estimate:
        """What the plan would take on the frame it was made for.

        Args:
            sample: so many units, drawn from all over the frame, are mapped (and reduced) first and scaled up, with an
                interval. What they cost is not lost: their findings are in the journal.

        Raises:
            PlanError: the plan was not made for a frame (``df.amr.plan``).
        """
        if sample is None:
            return self._there.estimate
        if isinstance(sample, bool) or not isinstance(sample, int) or sample < 1:
            raise PlanError(f"estimate(sample=...) takes a number of units, not {sample!r}.")
        return self._there.sampled(sample)

    def requests(self, count: int = 3) -> list[dict[str, Any]]:
        """The first requests, as they would be sent: the body of each. Nothing is sent.

        They are those of the map, or the one of an agent that answers from the whole content.

        Raises:
            PlanError: the plan was not made for a frame (``df.amr.plan``).
        """
        return self._there.requests(count)

    def graph(self) -> Graph:
        """The graph that a static tree will have.

        Raises:
            PlanError: the plan was not made for a frame, or its reduce is not a static tree (``fan_in``).
        """
        if self._made is None or not self._made.estimate.tree or self.fan_in is None:
            raise PlanError(
                "A graph before the run is that of a static tree: df.amr.plan(..., plan={'fan_in': 5})."
            )
        estimate = self._made.estimate
        return graph_of_shape(estimate.tree, self.fan_in, estimate.sizes, estimate.maps)

    def replace(self, **changes: Any) -> Plan:
        """A copy with some fields changed, checked like a new plan.

        Raises:
            PlanError: a name is no field, or a value does not fit.

        Example:
            >>> Plan(shard_size=5).replace(shard_size=10).shard_size
            10
        """
        return make_plan({name: getattr(self, name) for name in self.model_fields_set} | changes)

    def to_json(self, path: str | Path | None = None) -> str:
        """The plan as JSON; written to ``path`` where one is given.

        Validators and some bounds of the types of findings and outputs have no form in JSON: a ``PlanWarning`` names
        them, and a plan read from this JSON lists them in ``left_out``.

        Raises:
            PlanError: a column's label has no word in JSON, or a type cannot be read back from it.
        """
        plain = self.plain()
        lost = self._find_lost_checks()
        if lost:
            said = f"A plan's JSON cannot hold: {'; '.join(lost)}. Beside plan=, give finding= (or output=) again."
            warnings.warn(PlanWarning(said), stacklevel=2)
            plain["left_out"] = [*(self.left_out or ()), *lost]
        text = json.dumps({FORMAT_KEY: FORMAT} | plain, indent=2)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def _find_lost_checks(self) -> list[str]:
        """The checks of the plan's types that its JSON cannot hold, each with its place."""
        findings = self.finding if isinstance(self.finding, dict) else {None: self.finding}
        kinds = {
            "finding" if name is None else f"finding[{name!r}]": kind
            for name, kind in findings.items()
        }
        lost: list[str] = []
        for what, kind in (kinds | {"output": self.output}).items():
            try:
                lost += (
                    [f"{what}: {check}" for check in find_lost_checks(kind)]
                    if kind is not None
                    else []
                )
            except UsageError as error:
                raise PlanError(f"A plan's JSON cannot hold the type of {what}: {error}") from None
        return lost

    def plain(self) -> dict[str, Any]:
        """What is set, by field, as JSON has it.

        Raises:
            PlanError: a column's label has no word in JSON.
        """
        for labels in (self.columns, self.group_columns, self.by.keys if self.by else None):
            _plain_labels(labels and list(labels))  # told here: pydantic would wrap it
        return self.model_dump(mode="json", exclude_none=True)

    def fixed(self) -> dict[str, Any]:
        """What is set, by field."""
        return {
            name: value
            for name in self.model_fields_set
            if (value := getattr(self, name)) is not None
        }

    def __repr__(self) -> str:
        lines = [f"<Plan by {self.made_by}>"]
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or name == "made_by":
                continue
            lines.append(f"  {name}: {_shown(value)}")
        return "\n".join([*lines, *([f"  estimate: {self._made.estimate}"] if self._made else [])])

    __str__ = __repr__


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(part)}" for key, part in value.items()) + "}"
    if get_origin(value) is list:
        return f"list of {_shown(get_args(value)[0])}"
    if _is_model(value):
        fields = ", ".join(
            f"{name}: {_type_name(field.annotation)}" for name, field in value.model_fields.items()
        )
        return f"{value.__name__}({fields})"
    return _type_name(value) if isinstance(value, type) or get_origin(value) else str(value)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(repr(choice) for choice in get_args(kind))
    return (
        kind.__name__
        if isinstance(kind, type) and not get_args(kind)
        else str(kind).replace("typing.", "")
    )


def make_plan(fields: dict[str, Any]) -> Plan:
    """A plan of the given fields.

    Raises:
        PlanError: a name is no field, or a value does not fit.
    """
    unnamed = [name for name in fields if not isinstance(name, str)]
    if unnamed:
        raise PlanError(
            f"A plan's fields have names, not {unnamed[0]!r}: {', '.join(Plan.model_fields)}."
        )
    version = fields.get(FORMAT_KEY, FORMAT)
    if version not in READ_FORMATS:
        raise PlanError(
            f"This plan is of format {version!r}; this version of pandas-amr reads up to {FORMAT}. Upgrade it."
        )
    try:
        return Plan(**fields)
    except UsageError as error:
        raise PlanError(f"This plan cannot be used: {error}") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(
                ": "
            )
            for problem in error.errors(include_url=False)
        )
        raise PlanError(
            f"This plan cannot be used: {problems}. Its fields: {', '.join(Plan.model_fields)}."
        ) from None


def read_plan(given: Any) -> Plan:
    """The plan that ``plan=`` means: ``"auto"``, a plan, a dict of the fields to fix, JSON, or a path to JSON.

    Raises:
        PlanError: it is none of these, or the fields do not fit.
    """
    match given:
        case None | "auto":
            return Plan()
        case Plan():
            return given
        case dict():
            return make_plan(given)
        case str() if given.lstrip().startswith("{"):
            return make_plan(_decoded(given, "plan="))
        case str() | Path():
            try:
                text = Path(given).read_text(encoding="utf-8-sig")
            except OSError as error:
                raise PlanError(f"plan={str(given)!r} cannot be read: {error.strerror}.") from None
            except UnicodeDecodeError:
                raise PlanError(
                    f"plan={str(given)!r} is no text; a plan's file is JSON, in UTF-8."
                ) from None
            except ValueError as error:
                raise PlanError(f"plan={str(given)!r} is no path: {error}.") from None
            return make_plan(_decoded(text, str(given)))
    raise PlanError(f'plan= takes "auto", a Plan, a dict, JSON or a path, not {given!r}.')


def _decoded(text: str, where: str) -> dict[str, Any]:
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{where} is no JSON: {error}.") from None
    if not isinstance(decoded, dict):
        raise PlanError(f"{where} is no JSON object.")
    return decoded
