"""What a run gives."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._findings.columns import array_of
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._findings.store import FOUND
from pandas_amr._plan.call import KEEP
from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.graph import Graph, graph_of
from pandas_amr._records.usage import Phase, Usage
from pandas_amr._result.display import result_html, result_line
from pandas_amr._result.evaluate import Answer, Score, score_of
from pandas_amr._result.saved import load_parts, save_result
from pandas_amr._result.stopped import stop_with
from pandas_amr._result.verify import Verification, most_in_doubt, verification
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.settings import Settings
    from pandas_amr._findings.held import Kept
    from pandas_amr._findings.store import Failure
    from pandas_amr._plan.call import Errors, Job
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.trace import Node
    from pandas_amr._records.usage import Ledger
    from pandas_amr.errors import AMRWarning
    from pandas_amr.models.base import LM

    Again: TypeAlias = Callable[["Origin", Any, Any], "Result"]
    SecondLook: TypeAlias = Callable[["Origin", Any, float, int], "Result"]

STATUSES = ("ok", "repaired", "cached", "failed", "skipped")
SKIPPED_REASON = "the run stopped before its turn"
REMEMBERED = 32
ATTRIBUTE = "pandas_amr_result"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a result came from, so that what failed can be run again."""

    job: Job
    settings: Settings
    lms: Mapping[Phase, LM]
    kept: Kept
    again: Again | None
    second_look: SecondLook | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The outcome of a run.

    Attributes:
        output: the answer: a scalar, a text, an object, a Series or a summary frame; None where nothing was reduced.
        frame: the input plus one column per finding field; same index, same order, ``<NA>`` where a unit failed.
        findings: those columns alone, one row a unit; one row a record, labelled by its unit, where units hold none
            or many.
        plan: the plan that ran; of a recipe, that of its last stage.
        usage: calls, tries, tokens, seconds and money, one row a phase and model.
        failures: one row a failed unit: ``label position shard map who reason attempts``.
        trace: one row a node: ``id type level parents units start seconds tokens money form
            sandbox status``.
        total: all of ``usage`` added up.
        seconds: how long the run took.
        stopped: why the run stopped before its end, if it did: a budget; or a service that answers nothing for longer
            than ``LM(patience_s=...)``, or asks to wait for longer, and then when to call again.
        sandbox: the tier in which code of agents ran, where any did.
        sources: what the output rests on, one row an item and row: ``item label position general run``, with ``group``
            before them where groups or columns were written; None where nothing was written by agents. ``general``
            marks the rows of an item that names more than half of more than eight findings: they are no evidence.
            ``run`` marks those that were named in a run of consecutive numbers.
        coverage: the share of rows that are evidence for the output: those of its sources that are not general.
        stages: of a recipe, each stage's own result.
        aggregations: of a result that was loaded, what its answer was computed by; functions are known by name only.
        status: one row a unit: ``status`` (``ok repaired cached failed skipped``) and ``reason``.
    """

    output: Any
    frame: pd.DataFrame
    findings: pd.DataFrame
    plan: Plan
    usage: pd.DataFrame
    failures: pd.DataFrame
    trace: pd.DataFrame
    total: Usage
    seconds: float
    status: pd.DataFrame | None = None
    stopped: str | None = None
    sandbox: str | None = None
    sources: pd.DataFrame | None = None
    coverage: float | None = None
    warnings: tuple[AMRWarning, ...] = field(default=())
    origin: Origin | None = field(default=None)
    stages: tuple[Result, ...] = field(default=())
    made_by: Callable[[int], tuple[str, ...]] | None = field(default=None)
    aggregations: Mapping[Any, Any] | None = field(default=None)

    def retry(self, *, lm: LM | str | None = None, errors: Errors | None = None) -> Result:
        """Run again what failed or was skipped, keep what was found, and reduce anew.

        Args:
            lm: another model for it; default: the same.
            errors: as in ``map_reduce``; default: the same.

        Returns:
            A new ``Result`` over all rows; its ``usage`` and ``trace`` are those of the retry.

        Raises:
            UsageError: this result was loaded from a folder, or nothing was mapped: there is nothing to run again.
        """
        if self.origin is None or self.origin.again is None:
            raise UsageError(
                "Nothing can be run again: this result was loaded, or maps nothing. Call the verb anew."
            )
        return self.origin.again(self.origin, lm, errors)

    def score(self, labels: Any, *, tolerance: float = 0.0) -> Score:
        """Compare the findings with labels that are known.

        Args:
            labels: a frame with columns named like the findings; a Series, where there is one field or it is named like
                one; or a dict of field to a Series, a list, or the name of a column of the frame. By label where it
                has an index, else one a row; rows without a label are left out. Numbers, bools and dates (ISO 8601) may
                stand there as texts, as a CSV file gives them.
            tolerance: by how much a number may differ, as a share of it.

        Raises:
            UsageError: the labels name no finding, cannot be laid beside the rows, or are of another sort.
        """
        by = self.origin.job.by if self.origin is not None else self.plan.by
        answer = Answer(self._computed_by() or self.plan.aggregations or {}, self.plan.where, by)
        return score_of(self.frame, self._added(), labels, answer=answer, tolerance=tolerance)

    def verify(
        self,
        *,
        share: float = 0.05,
        lm: LM | str | None = None,
        seed: int = 0,
        tolerance: float = 0.0,
    ) -> Verification:
        """Have a second model, or the same one a second time, look at a random share of the rows. No finding changes.

        What it finds is kept in the journal by itself, so that the same verification again costs nothing.

        Args:
            share: of the units that were asked; at least two shards of them where findings depend on their neighbours.
            lm: who looks; default: the same model.
            seed: which random share.
            tolerance: by how much a number may differ, as a share of it.

        Raises:
            UsageError: this result was loaded, no model mapped, or the share is not above 0 and at most 1.
        """
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise UsageError(
                f"verify(share=...) takes a share above 0 and at most 1, not {share!r}."
            )
        if not isinstance(tolerance, int | float) or not tolerance >= 0:
            raise UsageError(f"verify(tolerance=...) takes a share from 0, not {tolerance!r}.")
        if self.origin is None or self.origin.second_look is None or not self.origin.lms:
            raise UsageError(
                "Nothing can be looked at again: this result was loaded, or no model mapped."
            )
        again: Result = self.origin.second_look(self.origin, lm, share, seed)
        try:
            return self._compared(again, tolerance)
        except Exception as error:  # noqa: BLE001 (the second look is paid for)
            stop_with(error, again, where="its verification")

    def _compared(self, again: Result, tolerance: float) -> Verification:
        status = again.status
        assert status is not None
        return verification(
            self.frame,
            again.frame,
            _has_finding(self.status) & _has_finding(status),
            self._added(),
            tolerance=tolerance,
            failed=int((status["status"] == "failed").sum()),
            usage=again.usage,
            model=again.origin.lms["map"].model if again.origin is not None else "",
        )

    def review(self, most: int = 20, *, verification: Verification | None = None) -> pd.DataFrame:
        """The rows most in doubt, to be looked at by a person: ``amr_doubt`` and ``amr_why``, then the frame's columns.

        In doubt is what failed or was skipped, what a second look saw differently (``verification=result.verify()``),
        what took a repair turn, what has an empty field, and what is unusual: a rare class, a number far off. So is the
        end of a shard whose last findings are all the same while those before vary: models grow careless late in a
        shard, and ``plan={"shard_size": 5}`` to 10 helps. A result that was loaded knows no shards.
        """
        known = self.origin.job.frame.columns if self.origin is not None else ()
        fields = [
            str(name)
            for name in self.findings.columns
            if name in self.frame.columns and name not in known
        ]
        return most_in_doubt(
            self.frame, fields, self.status, verification, most, shards=self._shards()
        )

    def _shards(self) -> dict[str, list[int]]:
        """The positions of the units that were read together and have a finding, by the node that read them."""
        shards: dict[str, list[int]] = {}
        if self.origin is None or self.made_by is None or self.status is None:
            return shards
        there = _has_finding(self.status)
        for position in self.origin.kept.units.asked.tolist():
            for node in self.made_by(position) if there[position] else ():
                shards.setdefault(node, []).append(position)
        return shards

    def _computed_by(self) -> Mapping[Any, Any]:
        """The aggregations that the call gave, but those that agents write."""
        given = self.aggregations if self.origin is None else self.origin.job.computed
        return {name: how for name, how in (given or {}).items() if not hasattr(how, "text")}

    def _added(self) -> list[str]:
        """The columns that the findings added to the frame; the status columns are none of them."""
        names = self.frame.columns.get_level_values(0)
        if self.origin is not None:
            known = {
                *self.origin.job.frame.columns.get_level_values(0),
                *(self.plan.status_columns or ()),
            }
            return [str(name) for name in names if name not in known]
        kinds = (
            self.plan.finding if isinstance(self.plan.finding, dict) else {None: self.plan.finding}
        )
        planned = [
            FindingType.of(kind, name).all_columns
            for name, kind in kinds.items()
            if kind is not None
        ]
        found = dict.fromkeys(
            [*self.findings.columns, *(column for columns in planned for column in columns)]
        )
        return [str(name) for name in found if name in names]

    def explain(self, item: int = 0, *, group: Any = None, column: Any = None) -> pd.DataFrame:
        """The rows of ``frame`` that an item of the output rests on.

        Args:
            item: its number in the output; 0 for a text, a scalar or an object.
            group: its group, where the answer has one a group (or its column, where agents wrote columns); None and
                NaN both are the group without a key.
            column: the column that agents wrote, where they wrote some of each group.

        Raises:
            UsageError: nothing says what the output rests on, there is no such item, or it takes a group or a column,
                or none.
        """
        if self.sources is None:
            raise UsageError("The output has no sources: nothing of it was written by agents.")
        rows = self.sources[self.sources["item"] == item]
        grouped = "group" in rows.columns
        if (
            grouped
            and group is None
            and not any(_is_same(one, None) for one in self.sources["group"])
        ):
            raise UsageError(
                f"The answer has groups or columns. Say which: explain({item!r}, group=...)."
            )
        if group is not None and not grouped:
            raise UsageError(
                f"The sources of this answer are not told by groups. Leave group= out: explain({item!r})."
            )
        if grouped:
            rows = rows[np.array([_is_same(one, group) for one in rows["group"]], dtype=bool)]
        if "column" in rows.columns:
            columns = list(dict.fromkeys(self.sources["column"]))
            if column is None and len(columns) > 1:
                raise UsageError(
                    f"Agents wrote the columns {columns}. Say which: explain({item!r}, column=...)."
                )
            rows = rows[rows["column"] == (columns[0] if column is None else column)]
        elif column is not None:
            raise UsageError(
                "The sources of this answer are not told by columns. Leave column= out."
            )
        if rows.empty:
            raise UsageError(
                f"There is no item {item!r}{f' of group {group!r}' if group is not None else ''} with sources."
            )
        return self.frame.iloc[rows["position"].to_numpy()]

    def graph(self) -> Graph:
        """What fed what, how long each took, and the chain that took longest."""
        return graph_of(self.trace, static=self.plan.fan_in is not None)

    def save(self, folder: str | Path) -> None:
        """Write all of the result into a folder; ``amr.load(folder)`` brings it back, exactly.

        A folder that ``save`` made is replaced whole, and no other that is not empty. It is written beside its place
        and renamed into it, so that what ends the program leaves the old result or the new one. A model in the output
        comes back as one of the plan's type. What could run again does not come back: ``retry``, ``verify``, and the
        functions that the answer was computed by.

        Raises:
            UsageError: the folder is another's, or a part of the result, which is named, would not come back as it
                is; nothing is written then.
        """
        save_result(self._parts(), folder)

    def _parts(self) -> dict[str, Any]:
        """What is saved, by name."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        stages = [stage._parts() for stage in self.stages]  # noqa: SLF001 (results like this one)
        return {
            **parts,
            "total": asdict(self.total),
            "stages": stages,
            "aggregations": self._computed_by(),
        }

    def __repr__(self) -> str:
        return result_line(self)

    def _repr_html_(self) -> str:
        return result_html(self)


class _Late:
    """A field of a result that is given as ``late(...)`` and made when it is first looked at."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, result: Result | None, owner: type | None = None) -> Any:
        if result is None:
            return self
        held = vars(result)
        if isinstance(held[self._name], partial):
            held[self._name] = held[self._name]()
        return held[self._name]

    def __set__(self, result: Result, value: Any) -> None:
        vars(result)[self._name] = value


def late(make: Callable[..., pd.DataFrame], *args: Any) -> Any:
    """Stand for a frame of a result until somebody looks at it: who asks for one row has no time for four of them."""
    return partial(make, *args)


for _name in ("usage", "failures", "trace", "status"):
    setattr(Result, _name, _Late(_name))


def _is_same(one: Any, other: Any) -> bool:
    """Whether two groups are one: missing keys are equal here."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    missing = [bool(pd.api.types.is_scalar(key) and pd.isna(key)) for key in (one, other)]
    return all(missing) if any(missing) else bool(one == other)


def _has_finding(status: pd.DataFrame | None) -> NDArray[np.bool_]:
    assert status is not None
    return np.isin(status["status"].to_numpy(dtype=object), FOUND)


_remembered: OrderedDict[str, Result] = OrderedDict()
_lock = forkable_lock()


def remembered(result: Result) -> pd.DataFrame:
    """The result's frame, marked so that ``result_of`` finds the result behind it."""
    key = secrets.token_hex(8)
    with _lock:
        _remembered[key] = result
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    result.frame.attrs[ATTRIBUTE] = key
    return result.frame


def kept_places(result: Result) -> NDArray[np.int64]:
    """Where the rows stand that a filter keeps: those that met the criterion, and those of which nobody knows."""
    keep = result.frame[KEEP].fillna(True).astype(bool).to_numpy()  # noqa: FBT003 (a value, not a flag)
    return np.flatnonzero(keep)


def kept_rows(result: Result) -> pd.DataFrame:
    """The rows that a filter keeps."""
    frame = remembered(result)
    kept = frame.drop(columns=KEEP).iloc[kept_places(result)]
    kept.attrs = dict(frame.attrs)
    return kept


def result_of(frame: pd.DataFrame) -> Result:
    """The ``Result`` behind a frame that a verb gave: its failures, usage, plan and trace.

    The process remembers the last 32.

    Raises:
        UsageError: the frame came from elsewhere, from another process, or too long ago.
    """
    result = _remembered.get(str(getattr(frame, "attrs", {}).get(ATTRIBUTE)))
    if result is None:
        raise UsageError(
            "No result is known of this frame: it is not a verb's, or not of this process, or too old."
        )
    return result


def usage_frame(ledger: Ledger) -> pd.DataFrame:
    """One row a phase and model, in their order."""
    phases = get_args(Phase)
    lines = sorted(ledger.lines.items(), key=lambda line: (phases.index(line[0][0]), line[0][1]))
    rows = [{"phase": phase, "model": model, **asdict(usage)} for (phase, model), usage in lines]
    return pd.DataFrame(
        rows, columns=["phase", "model", *(f.name for f in fields(Usage))]
    ).set_index("phase")


def trace_frame(nodes: Sequence[Node]) -> pd.DataFrame:
    """One row a node."""
    columns = [
        "id",
        "type",
        "level",
        "parents",
        "units",
        "start",
        "seconds",
        "tokens",
        "money",
        "form",
        "sandbox",
        "status",
    ]
    levels = levels_of(nodes)
    rows = [
        (
            n.id,
            n.type,
            levels[n.id],
            list(n.parents),
            n.units,
            n.start,
            n.seconds,
            n.usage.tokens,
            n.usage.money,
            n.form,
            n.sandbox or None,
            n.status,
        )
        for n in nodes
    ]
    return pd.DataFrame(rows, columns=columns)


def levels_of(nodes: Sequence[Node]) -> dict[str, int]:
    """Each node's level; of runs inside others counted along what fed it."""
    levels = {node.id: node.level for node in nodes}
    if not any("/" in name for name in levels):
        return levels
    parents = {node.id: [parent for parent in node.parents if parent in levels] for node in nodes}
    for name in TopologicalSorter(parents).static_order():
        levels[name] = max([levels[name], *(levels[parent] + 1 for parent in parents[name])])
    return levels


def failures_frame(failures: Iterable[Failure], index: pd.Index) -> pd.DataFrame:
    """One row a failed unit; a failed reduce has no label and no position."""
    listed = list(failures)
    return pd.DataFrame(
        {
            "label": pd.Series(
                [index[f.position] if f.position >= 0 else None for f in listed], dtype=object
            ),
            "position": pd.array(
                [f.position if f.position >= 0 else None for f in listed], dtype="Int64"
            ),
            "shard": pd.array([f.shard if f.shard >= 0 else None for f in listed], dtype="Int64"),
            "map": pd.Series([f.map for f in listed], dtype=object),
            "who": pd.Series([f.who for f in listed], dtype=object),
            "reason": pd.Series([f.reason for f in listed], dtype=object),
            "attempts": pd.array([f.attempts for f in listed], dtype="Int64"),
        }
    )


def status_frame(
    statuses: NDArray[np.object_], failures: Iterable[Failure], index: pd.Index
) -> pd.DataFrame:
    """One row a unit: what became of it, and why where it has no finding."""
    reasons: list[str | None] = [
        SKIPPED_REASON if status == "skipped" else None for status in statuses
    ]
    for failure in failures:
        if failure.position < 0:  # the reduce's
            continue
        known = reasons[failure.position]
        said = f"{failure.who}: {failure.reason}"
        reasons[failure.position] = said if known is None else f"{known}; {said}"
    return pd.DataFrame(
        {
            "status": pd.Categorical(statuses, categories=list(STATUSES)),
            "reason": array_of(pa.chunked_array([pa.array(reasons, pa.string())])),
        },
        index=index,
    )


def load(folder: str | Path) -> Result:
    """Bring back a result that ``result.save(folder)`` wrote, types included.

    Raises:
        UsageError: the folder holds no result, one of a later version, or a damaged one.
    """
    return _made_of(load_parts(Path(folder)))


def _made_of(parts: Mapping[str, Any]) -> Result:
    stages = tuple(map(_made_of, parts["stages"]))
    return Result(**{**parts, "total": Usage(**parts["total"]), "stages": stages})
