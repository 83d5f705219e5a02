"""The plan: what a run does, derived and editable, in a file as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PrivateAttr, ValidationError

from pandas_amr._graph import Graph, graph_of_shape
from pandas_amr._schema import TEXT_FINDING, json_schema, record_type, type_of
from pandas_amr.errors import PlanError, UsageError

Aggregation = Literal["count", "sum", "mean", "median", "min", "max", "nunique", "value_counts"]

Keyed = Literal["unit", "shard"]
View = Literal["inline", "preview"]
Merge = Literal["first", "last", "min", "max", "sum", "mean", "any", "all", "mode", "union", "concat", "agent"]
STATUS_COLUMNS = ("amr_status", "amr_reason")


def as_finding(given: Any) -> Any:
    """What a user means: a pydantic model, or a list of one where a unit holds none or many.

    A dict of types and a JSON schema become a model; None is a text.

    Raises:
        UsageError: it is none of these.
    """
    if given is None:
        return record_type("Finding", {TEXT_FINDING: (str, Field(min_length=1))})
    if _is_model(given):
        return given
    if is_listed(given):
        return given
    if _is_schema(given):
        return type_of(given, str(given.get("title", "Finding")))
    if isinstance(given, dict) and given:
        return record_type("Finding", given)
    raise UsageError(f"finding= takes a pydantic model, list[Model], a dict of types, or nothing, not {given!r}.")


def is_listed(kind: Any) -> bool:
    """Whether a type is ``list[Model]``."""
    return getattr(kind, "__origin__", None) is list and _is_model(get_args(kind)[0])


def as_output(given: Any) -> Any:
    """The type that a user asks the reduce for: a type, or its JSON schema.

    Raises:
        UsageError: it is neither.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        return type_of(given, "Output")
    if getattr(given, "__name__", "") == "DataFrame" and str(getattr(given, "__module__", "")).startswith("pandas"):
        return list[dict[str, Any]]
    if isinstance(given, type) or get_origin(given) is not None:
        json_schema(given)
        return given
    raise UsageError(
        f"output= takes str, int, float, bool, a pydantic model, list[Model] or pd.DataFrame, not {given!r}."
    )


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
    if all(isinstance(part, dict) or _is_model(part) or is_listed(part) for part in given.values()):
        return {name: as_finding(part) for name, part in given.items()}
    return as_finding(given)


def _is_model(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, BaseModel)


def _schema_or_none(kind: Any) -> Any:
    if isinstance(kind, dict):
        return {name: json_schema(part) for name, part in kind.items()}
    return None if kind is None else json_schema(kind)


FindingType = Annotated[Any, BeforeValidator(_as_findings), PlainSerializer(_schema_or_none)]
OutputType = Annotated[Any, BeforeValidator(as_output), PlainSerializer(_schema_or_none)]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan would take, before anything is mapped.

    Attributes:
        units: rows of the frame.
        asked: units that are asked, equal ones once.
        shards: map agents' batches.
        calls: requests, where every agent needs one.
        input_tokens: tokens of the map agents' prompts.
        tree: boxes a level, the maps first and the final reduce last; empty where the reduce is computed or adaptive.
        sizes: units of each shard.
    """

    units: int
    asked: int
    shards: int
    calls: int
    input_tokens: int
    tree: tuple[int, ...]
    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        shape = f", reduced {' -> '.join(map(str, self.tree))}" if self.tree else ""
        return (
            f"{self.units} units ({self.asked} asked) in {self.shards} shards: "
            f"{self.calls} calls, about {self.input_tokens} input tokens{shape}"
        )


class Plan(BaseModel):
    """What a run does. Frozen: ``replace`` gives an edited copy; its JSON, kept in a file, repeats the run.

    Fields that are None are derived when the plan runs.

    Attributes:
        task: the sentence that it was derived from.
        map_instruction: what map agents find out of a unit; by name where maps run side by side.
        finding: the type of a finding, a pydantic model; by name likewise.
        aggregations: what pandas computes from the findings' columns, as in ``DataFrame.agg``.
        reduce_instruction: what reduce agents write from the findings.
        output: the type of the answer.
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
        dedupe: whether equal units are asked once.
        keyed: how findings are known again in the journal: ``unit``: by the unit's own content; ``shard``: by all of
            the shard's, where a finding may depend on its neighbours.
        max_repairs: turns in which an agent may mend what could not be used, before its shard is halved.
        merge: how the pieces of a unit that is larger than a shard become one finding, by field; default: ``any`` of
            bools, ``max`` of numbers, ``mode`` of choices, ``union`` of lists, ``first`` of dates; texts by an agent.
        status: True adds the columns ``amr_status`` and ``amr_reason``; a pair of names calls them so.
        made_by: who derived what the user had not fixed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = None
    map_instruction: str | dict[str, str] | None = None
    finding: FindingType = None
    aggregations: dict[str, Aggregation | list[Aggregation]] | None = None
    reduce_instruction: str | None = None
    output: OutputType = None
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

    _estimate: Estimate | None = PrivateAttr(None)

    @property
    def status_columns(self) -> tuple[str, str] | None:
        """What the status columns are called; None where none are added."""
        return STATUS_COLUMNS if self.status is True else self.status or None

    @property
    def estimate(self) -> Estimate | None:
        """What the plan would take on the frame it was made for."""
        return self._estimate

    def with_estimate(self, estimate: Estimate) -> Plan:
        """A copy that carries an estimate."""
        plan = self.model_copy()
        plan._estimate = estimate  # noqa: SLF001 (its own)
        return plan

    def graph(self) -> Graph:
        """The graph that a static tree will have.

        Raises:
            PlanError: the plan was not made for a frame, or its reduce is not a static tree (``fan_in``).
        """
        estimate = self._estimate
        if estimate is None or not estimate.tree or self.fan_in is None:
            raise PlanError("A graph before the run is that of a static tree: df.amr.plan(..., plan={'fan_in': 5}).")
        return graph_of_shape(estimate.tree, self.fan_in, estimate.sizes)

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
        """The plan as JSON; written to ``path`` where one is given."""
        text = self.model_dump_json(indent=2, exclude_none=True)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def fixed(self) -> dict[str, Any]:
        """What is set, by field."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}

    def __repr__(self) -> str:
        lines = [f"<Plan by {self.made_by}>"]
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or name == "made_by":
                continue
            lines.append(f"  {name}: {_shown(value)}")
        return "\n".join([*lines, *([f"  estimate: {self._estimate}"] if self._estimate else [])])

    __str__ = __repr__


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(part)}" for key, part in value.items()) + "}"
    if get_origin(value) is list:
        return f"list of {_shown(get_args(value)[0])}"
    if _is_model(value):
        fields = ", ".join(f"{name}: {_type_name(field.annotation)}" for name, field in value.model_fields.items())
        return f"{value.__name__}({fields})"
    return _type_name(value) if isinstance(value, type) or get_origin(value) else str(value)


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(repr(choice) for choice in get_args(kind))
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def make_plan(fields: dict[str, Any]) -> Plan:
    """A plan of the given fields.

    Raises:
        PlanError: a name is no field, or a value does not fit.
    """
    try:
        return Plan(**fields)
    except UsageError as error:
        raise PlanError(f"This plan cannot be used: {error}") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors(include_url=False)
        )
        raise PlanError(f"This plan cannot be used: {problems}. Its fields: {', '.join(Plan.model_fields)}.") from None


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
                text = Path(given).read_text(encoding="utf-8")
            except OSError as error:
                raise PlanError(f"plan={str(given)!r} cannot be read: {error.strerror}.") from None
            return make_plan(_decoded(text, str(given)))
    raise PlanError(f'plan= takes "auto", a Plan, a dict, JSON or a path, not {given!r}.')


def _decoded(text: str, where: str) -> dict[str, Any]:
    try:
        decoded = json.loads(text)
    except ValueError as error:
        raise PlanError(f"{where} is no JSON: {error}.") from None
    if not isinstance(decoded, dict):
        raise PlanError(f"{where} is no JSON object.")
    return decoded
