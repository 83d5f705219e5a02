"""The plan of a run: derived, editable, and kept in a file as JSON."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pandas_amr._plan.aggregations import Aggregation
from pandas_amr._plan.plan_problems import describe_problems
from pandas_amr._plan.plan_types import (
    ByField,
    CountOrNever,
    DurationField,
    FindingField,
    LabelsField,
    OutputField,
    is_pydantic_model,
    labels_to_json,
    remove_zones,
)
from pandas_amr._records.callers import warn_caller
from pandas_amr._records.html import details, element, named_values, root, text_block
from pandas_amr._records.keywords import suggest_keywords
from pandas_amr._records.pickles import pack, unpack
from pandas_amr._records.public import public
from pandas_amr._records.refused import is_whole, show_refused
from pandas_amr._records.suggest import closest_name
from pandas_amr._records.terminal import escape_unprintable
from pandas_amr._types.constraints import find_lost_checks
from pandas_amr._units.neighbours import Segmentation
from pandas_amr.errors import PlanError, PlanWarning, UsageError

if TYPE_CHECKING:
    from pandas_amr._records.estimate import Estimate
    from pandas_amr._records.graph import Graph
    from pandas_amr._records.outgoing import Outgoing

AnyModel = TypeVar("AnyModel", bound=BaseModel)

FORMAT = 2  # of a plan's JSON
READ_FORMATS = (1, FORMAT)
FORMAT_KEY = "amr_plan"

Keyed = Literal["unit", "shard"]
OnEmpty = Literal["skip", "ask"]
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
GIVE_UP_AFTER = 10  # units
CONTINUED = "\n      "  # in the repr: a value's further lines
STATUS_COLUMNS = ("amr_status", "amr_reason")
TYPE_FIELDS = ("finding", "output")


@public
class Ranking(BaseModel):
    """An answer of whole rows: those that rank first by a field, in their order. pandas ranks them.

    Attributes:
        field: a field of the finding, or a column of the frame.
        most: how many rows; with ``by``, how many of each group.
        lowest_first: whether the lowest values rank first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    most: int = Field(default=10, ge=1)
    lowest_first: bool = False


class PlanBinding(Protocol):
    """What a plan can tell once it is bound to a frame and a model."""

    @property
    def estimate(self) -> Estimate:
        """What the run would take."""
        ...

    @property
    def outgoing(self) -> Outgoing:
        """What the run would send."""
        ...

    def sampled(self, units: int) -> Estimate:
        """Estimate what the run would take from a sample that is mapped."""
        ...

    def requests(self, count: int) -> list[dict[str, Any]]:
        """Return the first requests, as they would be sent."""
        ...


@public
class Plan(BaseModel):
    """What a run does. Frozen: ``replace`` gives an edited copy. Its JSON repeats the run.

    Fields that are None are derived when the plan runs.

    Attributes:
        task: the sentence that the plan was derived from.
        columns: the content columns; default: all.
        axis: ``rows`` or ``columns``: whether a unit is a row or a content column.
        map_instruction: what map agents find out about a unit; by name if maps run side by side.
        finding: the type of a finding, a pydantic model; likewise by name.
        where: a bool field of the finding: only rows in which it is true are reduced.
        by: the columns, or fields, by which findings are grouped before they are reduced.
        aggregations: what pandas computes from the findings' columns, as in ``DataFrame.agg``;
            ``share`` is ``value_counts(normalize=True)``.
        ranking: the rows that rank first by a field, if they are the answer.
        reduce_instruction: what reduce agents write from the findings.
        output: the type of the answer.
        segmentation: how units are judged. ``rows``: each alone. ``neighbours``: in the context of
            the rows around them, which are shown. ``groups``: together with all units of their
            group, one group per shard.
        context_rows: with ``neighbours``, how many rows before and after a shard are shown;
            default 3.
        group_columns: with ``groups``, the columns whose equal values make a group.
        view: ``inline``: the prompt shows the units. ``preview``: the prompt shows columns, a
            profile and a few rows; the units are in the REPL's ``df``.
        shard_size: most units per shard.
        shard_tokens: most tokens of a shard's units.
        parallelism: most agents that work at once.
        fan_in: how many nodes one reduce agent combines. The tree is then static: a node starts as
            soon as its findings are there. Without it the tree is adaptive: an agent gets as many
            findings as its budget holds.
        reduce_budget: tokens of findings that one reduce agent gets in an adaptive tree.
        context_window: the window that this budget is derived from; default: the model's own.
        budget_ratio: the budget's share of the window, default 0.5; prompt, schema and answer are
            subtracted. By default at least a quarter of what these leave of the window.
        max_reduce_levels: most levels before the final reduce, default 10.
        direct: whether one agent may answer alone if the whole content fits its budget. There are
            then no findings.
        dedupe: whether equal units are asked once. With a journal they always are: it keeps one
            finding for them.
        keyed: the key of a finding in the journal. ``unit``: the unit's own content. ``shard``:
            the content of the whole shard, for findings that may depend on other units.
        max_repairs: how often an agent may correct an answer before its shard is halved.
        give_up_after: the run stops if so many units, in at least three shards, have failed for the
            same reason and none has succeeded. None: it goes on to its end.
        on_empty: what is done with units whose content is empty (missing, or nothing but
            whitespace). ``skip``: they are not asked, and have the status ``empty``. ``ask``: they
            are asked like all others. Functions are given them in either case.
        retry_failed_after: for how long the journal remembers that a unit failed for its content
            (refused, filtered, or invalid after repair), so that the same call does not ask and pay
            for it again: ``"7d"``, ``"12h"``, or a ``timedelta``. A changed unit, instruction, type
            or model is asked at once. Default: failed units are asked each time.
        merge: how the findings of a split unit's pieces become one, by field; default: ``any`` of
            bools, ``max`` of numbers, ``mode`` of choices, ``union`` of lists, ``first`` of dates;
            texts by an agent.
        status: True adds the columns ``amr_status`` and ``amr_reason``; a pair renames them.
        redact: the name of the ``redact`` function that was in force when the plan was made. A plan
            that names one does not run without one.
        made_by: who derived what the user had not fixed: nobody (``user``), or a ``planner``.
            Plans of earlier versions may say ``rules``.
        left_out: of a plan read from JSON, the checks of its types that JSON could not hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = None
    columns: LabelsField = None
    axis: Literal["rows", "columns"] | None = None
    map_instruction: str | dict[str, str] | None = None
    finding: FindingField = None
    where: str | None = None
    by: ByField = None
    aggregations: dict[str, Aggregation | list[Aggregation]] | None = None
    ranking: Ranking | None = None
    reduce_instruction: str | None = None
    output: OutputField = None
    segmentation: Segmentation | None = None
    context_rows: int | None = Field(default=None, ge=1)
    group_columns: LabelsField = None
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
    give_up_after: CountOrNever = GIVE_UP_AFTER
    on_empty: OnEmpty | None = None
    retry_failed_after: DurationField = None
    merge: dict[str, Merge] | None = None
    status: bool | tuple[str, str] | None = None
    redact: str | None = None
    made_by: Literal["user", "planner", "rules"] = "user"
    left_out: list[str] | None = None

    _binding: PlanBinding | None = PrivateAttr(None)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).model_fields:  # pydantic would not say what to do
            raise PlanError(f"A plan is frozen: plan.replace({name}=...) gives another one.")
        super().__setattr__(name, value)

    @model_validator(mode="before")
    @classmethod
    def _read_format(cls, value: object) -> Any:
        """Take a plan's JSON, which holds the number of its format."""
        if not isinstance(value, dict) or value.get(FORMAT_KEY) not in READ_FORMATS:
            return value
        fields = {name: value for name, value in value.items() if name != FORMAT_KEY}
        if value[FORMAT_KEY] == 1:
            for name in {"finding", "output"} & fields.keys():
                fields[name] = remove_zones(fields[name])
        return fields

    @model_validator(mode="after")
    def _check_agreement(self) -> Plan:
        """Refuse fields that contradict each other."""
        depends = self.segmentation in {"neighbours", "groups"}
        if depends and (self.dedupe or self.keyed == "unit"):
            wrong = "dedupe" if self.dedupe else "keyed"
            raise ValueError(
                f"{wrong}={getattr(self, wrong)!r} takes units that are judged alone "
                "(segmentation='rows')"
            )
        if (self.segmentation == "groups") != bool(self.group_columns):
            raise ValueError("segmentation='groups' and group_columns=[...] belong together")
        if self.ranking is not None and self.aggregations and not self.reduce_instruction:
            raise ValueError(
                "aggregations and a ranking are two answers; "
                "a reduce_instruction joins them into one"
            )
        return self

    @property
    def status_columns(self) -> tuple[str, str] | None:
        """The names of the status columns; None if none are added."""
        return STATUS_COLUMNS if self.status is True else self.status or None

    def __eq__(self, other: object) -> bool:
        """Tell whether two plans say the same; the frame that one is bound to does not count."""
        if not isinstance(other, Plan):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Plan:
        """Return a copy that is bound to the same frame and model."""
        copied = super(Plan, self.bind_to(None)).__deepcopy__(memo)
        return copied.bind_to(self._binding)

    def __getstate__(self) -> dict[Any, Any]:
        """Return what enters a pickle: all but the frame and the model that it is bound to."""
        state: dict[Any, Any] = super(Plan, self.bind_to(None)).__getstate__()
        fields = dict(state["__dict__"])
        for name in TYPE_FIELDS:
            fields[name] = pack(fields[name], f"Plan({name}=...)")
        return state | {"__dict__": fields}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = {name: unpack(value) for name, value in state["__dict__"].items()}
        super().__setstate__(state | {"__dict__": fields})

    def bind_to(self, binding: PlanBinding | None) -> Plan:
        """Return a copy that is bound to a frame and a model, or to none."""
        plan = self.model_copy()
        plan._binding = binding  # noqa: SLF001 (its own)
        return plan

    def _require_binding(self) -> PlanBinding:
        if self._binding is None:
            raise PlanError(
                "This plan was not made for a frame: "
                "df.amr.plan(plan=plan, lm=...) gives one that was."
            )
        return self._binding

    @suggest_keywords
    def estimate(self, sample: int | None = None) -> Estimate:
        """Estimate what the plan would take on the frame that it was made for.

        Args:
            sample: map (and reduce) so many units first, drawn from the whole frame, and scale up
                what they took, with an interval. Their findings are kept in the journal, so that
                the run does not pay for them again.

        Raises:
            PlanError: the plan was not made for a frame (``df.amr.plan``).
        """
        if sample is None:
            return self._require_binding().estimate
        if not is_whole(sample, least=1):
            raise PlanError(
                f"estimate(sample=...) takes a number of units, not {show_refused(sample)}."
            )
        return self._require_binding().sampled(sample)

    def requests(self, count: int = 3) -> list[dict[str, Any]]:
        """Return the bodies of the first requests, as they would be sent. Nothing is sent.

        They are the map's, or the one of an agent that answers from the whole content.

        Raises:
            PlanError: the plan was not made for a frame (``df.amr.plan``).
        """
        return self._require_binding().requests(count)

    def outgoing(self) -> Outgoing:
        """Return what would leave this machine: to whom, which columns, and the first request.

        Raises:
            PlanError: the plan was not made for a frame (``df.amr.plan``).
        """
        return self._require_binding().outgoing

    def graph(self) -> Graph:
        """Return the graph that the run is expected to have.

        Shards are cut as the run cuts them, without what the journal has, and trees are run dry.
        Nodes are ``about`` if what is found decides whether they will be there: those of a tree by
        tokens, of groups that are still to be found, of a number that pandas may compute; and of
        more than 1,000 shards, 3,000 units or 200 groups, those of a tree that is scaled up.

        Raises:
            PlanError: the plan was not made for a frame (``df.amr.plan``).
        """
        return self._require_binding().estimate.graph()

    def replace(self, **changes: Any) -> Plan:
        """Return a copy with some fields changed, checked like a new plan.

        Raises:
            PlanError: a field is unknown, or a value does not fit.

        Example:
            >>> Plan(shard_size=5).replace(shard_size=10).shard_size
            10
        """
        return make_plan({name: getattr(self, name) for name in self.model_fields_set} | changes)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the plan as JSON, and write it to ``path`` if there is one.

        JSON cannot hold validators and some bounds of types. A ``PlanWarning`` names those of the
        plan, and a plan that is read from this JSON lists them in ``left_out``.

        Raises:
            PlanError: a column's label has no form in JSON, or a type cannot be read back from it.
        """
        fields = self.plain()
        lost = self._find_lost_checks()
        if lost:
            warn_caller(
                PlanWarning(
                    f"A plan's JSON cannot hold: {'; '.join(lost)}. "
                    "Beside plan=, give finding= (or output=) again."
                )
            )
            fields["left_out"] = [*(self.left_out or ()), *lost]
        text = json.dumps({FORMAT_KEY: FORMAT} | fields, indent=2)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def _find_lost_checks(self) -> list[str]:
        """List the checks of the plan's types that its JSON cannot hold, each with its place."""
        kinds: dict[str, Any] = {"finding": self.finding}
        if isinstance(self.finding, dict):
            kinds = {f"finding[{name!r}]": kind for name, kind in self.finding.items()}
        kinds["output"] = self.output
        lost: list[str] = []
        for place, kind in kinds.items():
            if kind is None:
                continue
            try:
                lost += [f"{place}: {check}" for check in find_lost_checks(kind)]
            except UsageError as error:
                raise PlanError(f"A plan's JSON cannot hold the type of {place}: {error}") from None
        return lost

    def plain(self) -> dict[str, Any]:
        """Return what is set, by field, as JSON has it.

        Raises:
            PlanError: a column's label has no form in JSON.
        """
        for labels in (self.columns, self.group_columns, self.by.keys if self.by else None):
            labels_to_json(labels and list(labels))  # raises; pydantic would wrap its error
        fields = self.model_dump(mode="json", exclude_none=True)
        if self.give_up_after is None:  # of this field, None is a value
            fields["give_up_after"] = None
        return fields

    def fixed(self) -> dict[str, Any]:
        """Return what is set, by field."""
        fields = {name: getattr(self, name) for name in self.model_fields_set}
        return {
            name: value
            for name, value in fields.items()
            if value is not None or name == "give_up_after"
        }

    def shown_fields(self) -> dict[str, str]:
        """Write what is set, by field, for people."""
        texts: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "give_up_after" and value is None:
                texts[name] = "never"
            elif value is not None and name != "made_by":
                texts[name] = value_text(value)
        return texts

    def __repr__(self) -> str:
        lines = [f"<Plan by {self.made_by}>"]
        for name, text in self.shown_fields().items():
            # A planner that has read rows wrote some of it: none of it may steer a terminal.
            parts = [escape_unprintable(line) for line in text.split("\n")]
            lines.append(f"  {name}: {CONTINUED.join(parts)}")
        if self._binding is not None:
            lines.append(f"  estimate: {self._binding.estimate}")
            lines += [f"  {line}" for line in self._binding.outgoing.lines]
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        parts = [
            element("p", element("b", f"Plan by {self.made_by}")),
            named_values(self.shown_fields().items()),
        ]
        if self._binding is not None:
            parts.append(element("p", element("b", "Estimate: "), str(self._binding.estimate)))
            parts.append(details("What leaves this machine", text_block(str(self.outgoing()))))
        return root(*parts)


def _explain_fields(model: type[AnyModel]) -> type[AnyModel]:
    """Let a class that users make refuse wrong fields as ``plan=`` does."""
    validate = model.__init__

    @functools.wraps(validate)
    def make(self: AnyModel, /, **fields: Any) -> None:
        try:
            validate(self, **fields)
        except UsageError as error:
            raise PlanError(f"This {model.__name__.lower()} cannot be used: {error}") from None
        except ValidationError as error:
            field_names = {"": list(model.model_fields), "ranking": list(Ranking.model_fields)}
            raise PlanError(describe_problems(error, field_names, model.__name__)) from None

    model.__init__ = make  # type: ignore[assignment]
    return model


_explain_fields(Ranking)
_explain_fields(Plan)


def value_text(value: Any) -> str:
    """Write a field's value for people."""
    if isinstance(value, dict):
        parts = [f"{key}: {value_text(part)}" for key, part in value.items()]
        return "{" + ", ".join(parts) + "}"
    if get_origin(value) is list:
        return f"list of {value_text(get_args(value)[0])}"
    if is_pydantic_model(value):
        types = {name: field.annotation for name, field in value.model_fields.items()}
        fields = ", ".join(f"{name}: {type_text(kind)}" for name, kind in types.items())
        return f"{value.__name__}({fields})"
    if isinstance(value, type) or get_origin(value):
        return type_text(value)
    return str(value)


def type_text(kind: object) -> str:
    """Write a type for people."""
    if get_origin(kind) is Literal:
        return " | ".join(repr(choice) for choice in get_args(kind))
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return str(kind).replace("typing.", "")


def make_plan(fields: dict[str, Any]) -> Plan:
    """Make a plan of the fields that are given.

    Raises:
        PlanError: a field is unknown, or a value does not fit.
    """
    unnamed = [name for name in fields if not isinstance(name, str)]
    if unnamed:
        names = ", ".join(Plan.model_fields)
        raise PlanError(f"A plan's fields have names, not {unnamed[0]!r}: {names}.")
    version = fields.get(FORMAT_KEY, FORMAT)
    if version not in READ_FORMATS:
        raise PlanError(
            f"This plan is of format {version!r}; this version of pandas-amr reads up to {FORMAT}. "
            "Upgrade it."
        )
    return Plan(**fields)


def read_plan(value: object) -> Plan:
    """Read what ``plan=`` takes: ``"auto"``, a plan, a dict of fields, JSON, or a path to JSON.

    Raises:
        PlanError: it is none of these, or the fields do not fit.
    """
    match value:
        case Plan():
            return value
        case dict():
            return make_plan(value)
        case None:
            return Plan()
        case str() if value == "auto":
            return Plan()
        case str() if value.lstrip().startswith("{"):
            return make_plan(_decode(value, "plan="))
        case str() if closest_name(value, ["auto"]) is not None and not Path(value).exists():
            raise PlanError(f"plan={value!r} is not a file. Did you mean 'auto'?")
        case str() | Path():
            return make_plan(_decode(_read_file(value), str(value)))
    shown = show_refused(value)
    raise PlanError(f'plan= takes "auto", a Plan, a dict, JSON or a path, not {shown}.')


def _read_file(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PlanError(f"plan={str(path)!r} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise PlanError(
            f"plan={str(path)!r} is not text; a plan's file is JSON, in UTF-8."
        ) from None
    except ValueError as error:
        raise PlanError(f"plan={str(path)!r} is not a path: {error}.") from None


def _decode(text: str, source: str) -> dict[str, Any]:
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{source} is not JSON: {error}.") from None
    if not isinstance(decoded, dict):
        raise PlanError(f"{source} is not a JSON object.")
    return decoded
