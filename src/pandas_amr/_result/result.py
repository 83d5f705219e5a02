"""What a run returns."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol

import pandas as pd
from typing_extensions import TypeVar

from pandas_amr._agent.agent import Agent
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._records.graph import Graph, graph_of
from pandas_amr._records.keywords import suggest_keywords
from pandas_amr._records.pickles import CopiedHere, pack, unpack
from pandas_amr._records.public import public
from pandas_amr._records.refused import show_refused
from pandas_amr._records.timeline import Timeline
from pandas_amr._records.trace import EARLIER_NODE, JOURNAL_NODE
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr._records.usage import Phase, Usage
from pandas_amr._result.aggregates import ComputedAnswer
from pandas_amr._result.arrow_stream import table_of_frame, table_of_summary
from pandas_amr._result.card import result_card
from pandas_amr._result.comparable import UNKNOWN
from pandas_amr._result.computed_anew import KnownCall
from pandas_amr._result.diff import compare_results
from pandas_amr._result.display import result_line
from pandas_amr._result.evaluate import Score, score_of
from pandas_amr._result.explain import find_positions
from pandas_amr._result.frames import LazyField, have_findings
from pandas_amr._result.look import look_at
from pandas_amr._result.override import override_findings
from pandas_amr._result.records import Kind, RecordsField, name_type, replace_types
from pandas_amr._result.report import SupportsWrite, report_of, write_report
from pandas_amr._result.review import most_in_doubt
from pandas_amr._result.row_places import FramePlaces
from pandas_amr._result.saved import load_parts, save_result
from pandas_amr._result.stopped import stop_with
from pandas_amr._result.verify import Verification, verification
from pandas_amr._types.arrow import field_types
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from pandas_amr._context.settings import Settings
    from pandas_amr._findings.corrections import Corrections
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._findings.store import Failure
    from pandas_amr._plan.call import Errors, Job
    from pandas_amr._plan.plan import Plan
    from pandas_amr._result.row_places import RowPlaces
    from pandas_amr._result.run_transcripts import RunTranscripts
    from pandas_amr._result.transcript import Transcript
    from pandas_amr.errors import AMRWarning
    from pandas_amr.models.base import LM


Output = TypeVar("Output", default=Any)  # the type of result.output

RECALLED_NODES = frozenset({EARLIER_NODE, JOURNAL_NODE})
SHARED = frozenset({"plan", "origin", "made_by", "aggregations", "finding_types", "transcripts"})


class Runner(Protocol):
    """Runs again what a result came from."""

    def retry(self, origin: RunOrigin, lm: object, errors: object) -> Result:
        """Run the failed units again."""
        ...

    def verify(self, origin: RunOrigin, lm: object, share: float, seed: int) -> Result:
        """Map a random share once more."""
        ...

    def override(self, origin: RunOrigin, corrections: Corrections, *, reduces: bool) -> Result:
        """Correct findings, and reduce again."""
        ...


@dataclass(frozen=True)
class RunOrigin:
    """The run behind a result: what it takes to run failed units again.

    Attributes:
        gave_up: whether the run gave up: what it skipped then is not run again.
        failures: the units that have no finding.
    """

    job: Job
    settings: Settings
    lms: Mapping[Phase, LM]
    findings: MapFindings
    gave_up: bool = False
    failures: tuple[Failure, ...] = ()
    runner: ClassVar[Runner]  # set by the room of runs, which this room may not import


@public
@dataclass(frozen=True, eq=False, repr=False)
class Result(CopiedHere, Generic[Output, Kind]):
    """The outcome of a run.

    A pickle holds what ``save`` writes, and the types of the findings: what is unpickled cannot
    run again, as a loaded result.

    Attributes:
        output: the answer: a scalar, a text, an object, a Series or a summary frame; None if
            nothing was reduced.
        frame: the input plus one column per finding field; same index, same order, ``<NA>`` if a
            unit failed.
        findings: those columns alone, one row per unit. If a unit can hold many records: one row
            per record, labelled by its unit.
        records: the findings as objects of the type that ``finding=`` gave (a model, a dataclass, a
            TypedDict; of a dict of types, a model that was made of it): a Series with the labels of
            ``findings``, None if a unit failed. With maps by name: a frame, one column per map.
        plan: the plan of the run; of a recipe, the plan of its last stage.
        usage: calls, tries, tokens, seconds and money, one row per phase and model.
        spans: when each node was with the model, waited or ran code: one row per span: ``node kind
            start seconds``; None if that is not known. ``timeline()`` draws it.
        failures: one row per failed unit: ``label position shard map who reason attempts``.
        trace: one row per node: ``id type level parents units start seconds tokens money form
            sandbox status``.
        total: the sum of ``usage``.
        seconds: how long the run took.
        started: when the run began, in UTC.
        stopped: why the run stopped early, if it did: the budget is spent; or the service did not
            answer for ``LM(patience_s=...)``, or asked to wait longer: then it says until when; or
            units failed for one reason and none succeeded (``plan={"give_up_after": ...}``).
        sandbox: the tier of the sandbox in which agents ran code, if they ran any.
        sources: the rows that the output is based on, one row per item and row: ``item label
            position general run``, after ``group`` if groups or columns were written; None if no
            agent wrote the output. ``general`` marks the rows of an item that names more than half
            of more than eight findings: they are not evidence. ``run`` marks rows that were named
            as a run of consecutive numbers.
        coverage: the share of rows that are evidence for the output: sources that are not general.
        stages: of a recipe, the result of each stage.
        aggregations: of a loaded result, how its answer was computed; functions by name only.
        status: one row per unit: ``status`` (``ok repaired corrected empty skipped failed``),
            ``reason`` and ``from_journal``: whether the journal had it, so that nothing was asked
            in this run. An ``empty`` unit has no content, so that no model was asked about it. What
            a person says of a ``corrected`` one (``override``) stands in place of what was found.
        finding_types: the type of each map's findings, by the name of the map.
    """

    output: Output
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
    origin: RunOrigin | None = field(default=None)
    stages: tuple[Result, ...] = field(default=())
    made_by: Callable[[int], tuple[str, ...]] | None = field(default=None)
    aggregations: Mapping[Any, Any] | None = field(default=None)
    finding_types: Mapping[str | None, Any] | None = field(default=None)
    transcripts: RunTranscripts | None = field(default=None)
    spans: pd.DataFrame | None = field(default=None)
    started: dt.datetime | None = None

    records = RecordsField()

    @suggest_keywords
    def retry(
        self, *, lm: LM | str | None = None, errors: Errors | None = None
    ) -> Result[Output, Kind]:
        """Run again what failed or was skipped, keep the findings, and reduce again.

        What a run skipped that gave up is not run again: the same call asks about that.

        Args:
            lm: another model for it; default: the same model.
            errors: as in ``map_reduce``; default: as in the first run.

        Returns:
            A new ``Result`` over all rows; its ``usage`` and ``trace`` are those of the retry.

        Raises:
            UsageError: this result was loaded or unpickled, or its run did not map.
        """
        if self.origin is None:
            raise UsageError(
                "Nothing can be run again: this result was loaded or unpickled, or its run did not "
                "map. "
                "Call the verb again."
            )
        return self._precede(self.origin.runner.retry(self.origin, lm, errors))

    def _precede(self, result: Result[Output, Kind]) -> Result[Output, Kind]:
        """Return a result that goes on from this one with the transcripts of this one, too."""
        transcripts = result.transcripts
        if transcripts is None or transcripts is self.transcripts:
            return result
        return replace(result, transcripts=transcripts.after(self.transcripts))

    @suggest_keywords
    def override(
        self,
        corrections: object,
        *,
        by: Literal["label", "position"] = "label",
        reduce: bool = True,
    ) -> Result[Output, Kind]:
        """Put a person's findings in place of those that were found, and reduce again.

        No row is asked about. What pandas computes, or a function of yours, is computed over the
        corrected findings; agents are asked again only for nodes of the reduce whose input changed,
        and ``usage`` says what that took. Corrected rows have the status ``corrected``. A journal
        keeps corrections apart from answers: the same call gives them from then on, also with
        ``refresh``, and ``retry`` and ``verify`` leave them. A correction is of content: rows of
        equal content, for which one finding stands, are corrected together. This result does not
        change.

        Args:
            corrections: by label of the row (of the column, with ``axis="columns"``), a dict of
                fields, or an object of the type of the findings; if a unit can hold many records, a
                list of all of them. Fields that are left out stay as they were found; a row without
                a finding takes all fields. With maps by name, a dict by the map's name or by
                column. None takes the correction of a row back. Or a frame, or a Series, with the
                labels as its index: cells that differ from what was found are corrections, missing
                ones are not.
            by: ``"position"`` if rows are named by their position in the frame.
            reduce: whether the findings are reduced again; if not, ``output`` is None.

        Raises:
            UsageError: a row or a field is unknown, a value is not of its field's type, or this
                result was loaded and pandas alone did not compute its answer. Nothing has changed.

        Example:
            >>> import pandas as pd, pandas_amr as amr
            >>> df = pd.DataFrame({"text": ["good", "bad"]})
            >>> def rate(shard):
            ...     return [{"stars": len(text)} for text in shard["text"]]
            >>> reduce = {"stars": "sum"}
            >>> result = df.amr.map_reduce(map=rate, finding={"stars": int}, reduce=reduce)
            >>> corrected = result.override({1: {"stars": 1}})
            >>> int(corrected.output["stars"]), corrected.status["status"].tolist()
            (5, ['ok', 'corrected'])
        """
        call = KnownCall(tuple(self._finding_columns()), self._computed_aggregations())
        return self._precede(override_findings(self, corrections, call, by=by, reduce=reduce))

    @suggest_keywords
    def diff(self, other: Result[Any, Any], *, tolerance: float = 0.0) -> pd.DataFrame:
        """Return the rows whose findings differ from those of another result, side by side.

        Rows are matched by label: by its value and kind, so that a text is no date. Texts are
        compared exactly, case and spaces included; lists whatever their order, dicts by key and
        value, JSON text by what it holds. The first column, ``amr_differs``, says in what rows
        differ: the names of fields; ``status`` if one of the two has no finding; ``only in self``
        or ``only in other``. Then come pairs of columns, ``self`` and ``other``: ``amr_status``,
        and each field that both have. The frame's ``attrs["amr_diff"]`` is the summary: how many
        ``rows`` both have and how many ``differ``, likewise by field (of how many that both found),
        how many rows only one has and the first labels of these, the fields that only one has, and
        how many of the rows that differ have ``other_content`` than before.

        Args:
            other: a result of another instruction, model or day; either may be loaded.
            tolerance: the relative difference up to which two numbers count as equal.

        Raises:
            UsageError: ``other`` is no result, the two have no field in common, or labels that are
                doubled do not tell which rows belong together.
        """
        if not isinstance(other, Result):
            raise UsageError(
                f"diff() takes another Result, not a {type(other).__name__}; amr.result_of(frame) "
                "gives that of a frame, amr.load(folder) a saved one."
            )
        first = self, self._finding_kinds()
        second = other, other._finding_kinds()
        return compare_results(first, second, tolerance=tolerance)

    @suggest_keywords
    def score(self, labels: object, *, tolerance: float = 0.0) -> Score:
        """Compare the findings with known labels.

        Case and spaces of free texts do not count, nor those of choices, unless two choices differ
        by nothing else. They count in the keys of dicts and in JSON text, which is compared by the
        values that it holds. Lists are equal whatever their order.

        Args:
            labels: a frame whose columns are named like the findings; a Series, if there is one
                field or if it is named like a field; or a dict of fields to a Series, a list, or
                the name of a column of the frame. A Series is matched by index, a list by order;
                rows without a label are left out. Numbers, bools and dates (ISO 8601) may be
                texts, as in a CSV file.
            tolerance: the relative difference up to which two numbers count as equal.

        Raises:
            UsageError: the labels name no finding, do not match the rows, or have another type.
        """
        by = self.plan.by if self.origin is None else self.origin.job.by
        aggregations = self._computed_aggregations() or self.plan.aggregations or {}
        answer = ComputedAnswer(aggregations, self.plan.where, by)
        return score_of(
            self.frame, self._finding_kinds(), labels, answer=answer, tolerance=tolerance
        )

    @suggest_keywords
    def verify(
        self,
        *,
        share: float = 0.05,
        lm: LM | str | None = None,
        seed: int = 0,
        tolerance: float = 0.0,
    ) -> Verification:
        """Ask a second model, or the same model again, about a random share of the rows.

        No finding changes. The journal stores the second findings apart from the first, so the
        same verification costs nothing the next time. What counts as the same is as in ``score``.

        Args:
            share: of the asked units; at least two shards if findings depend on their neighbours.
            lm: the second model; default: the same model.
            seed: which random share.
            tolerance: the relative difference up to which two numbers count as equal.

        Raises:
            UsageError: this result was loaded or unpickled, no model mapped, or the share is not
                above 0 and at most 1.
        """
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise UsageError(
                f"verify(share=...) takes a share above 0 and at most 1, not {show_refused(share)}."
            )
        if not isinstance(tolerance, int | float) or not tolerance >= 0:
            raise UsageError(
                f"verify(tolerance=...) takes a share from 0, not {show_refused(tolerance)}."
            )
        if self.origin is None or not self.origin.lms:
            raise UsageError(
                "Nothing can be verified: this result was loaded or unpickled, or no model mapped."
            )
        second: Result = self.origin.runner.verify(self.origin, lm, share, seed)
        try:
            return self._compare_with(second, tolerance)
        except Exception as error:  # noqa: BLE001 (its result is paid for)
            stop_with(error, second, where="its verification")

    def _compare_with(self, second: Result, tolerance: float) -> Verification:
        status = second.status
        assert status is not None
        assert self.status is not None
        return verification(
            self.frame,
            second.frame,
            have_findings(self.status) & have_findings(status),
            self._finding_kinds(),
            tolerance=tolerance,
            failed=int((status["status"] == "failed").sum()),
            usage=second.usage,
            model="" if second.origin is None else second.origin.lms["map"].model,
        )

    @suggest_keywords
    def review(self, most: int = 20, *, verification: Verification | None = None) -> pd.DataFrame:
        """Return the rows most in doubt, for a person to check.

        The columns are ``amr_doubt`` and ``amr_why``, then those of the frame. A row is in doubt
        if it failed or was skipped, if a second model disagrees (``verification=result.verify()``),
        if it took a repair turn, if a field is empty, or if a value is unusual: a rare class, a
        number far from the others. So is the end of a shard whose last findings are all equal
        while those before vary: models grow careless late in a shard, and ``plan={"shard_size":
        5}`` to 10 helps. A loaded result does not know its shards.
        """
        input_columns = () if self.origin is None else self.origin.job.frame.columns
        names: list[str] = []
        for name in self.findings.columns:
            if name in self.frame.columns and name not in input_columns:
                names.append(str(name))
        return most_in_doubt(
            self.frame, names, self.status, verification, most, shards=self._shards()
        )

    def _shards(self) -> dict[str, list[int]]:
        """Return the positions of each shard's units with a finding, by the map node's id."""
        shards: dict[str, list[int]] = {}
        if self.origin is None or self.made_by is None or self.status is None:
            return shards
        has_finding = have_findings(self.status)
        for position in self.origin.findings.units.asked.tolist():
            if not has_finding[position]:
                continue
            for node in self.made_by(position):
                if node.rpartition("/")[2] not in RECALLED_NODES:
                    shards.setdefault(node, []).append(position)
        return shards

    def _computed_aggregations(self) -> dict[Any, Any]:
        """Return the aggregations of the call, without those that agents write."""
        aggregations = self.aggregations if self.origin is None else self.origin.job.computed
        return {
            name: how for name, how in (aggregations or {}).items() if not isinstance(how, Agent)
        }

    def _finding_columns(self) -> list[str]:
        """Return the columns that the findings added to the frame, without the status columns."""
        names = self.frame.columns.get_level_values(0)
        if self.origin is None:
            planned = self._planned_columns()
            return [str(name) for name in planned if name in names]
        others = set(self.origin.job.frame.columns.get_level_values(0))
        others.update(self.plan.status_columns or ())
        return [str(name) for name in names if name not in others]

    def _finding_kinds(self) -> dict[str, Any]:
        """Return the type of each column that the findings added, as far as it is known."""
        kinds: dict[str, Any] = {}
        for stage in self.stages or (self,):
            for kind in stage._planned_types():  # noqa: SLF001 (of this class)
                kinds.update(zip(kind.columns, field_types(kind.model).values(), strict=True))
        return {name: kinds.get(name, UNKNOWN) for name in self._finding_columns()}

    def _found_columns(self) -> list[str]:
        """Return the columns of the findings, of a recipe those of all its stages."""
        found: list[str] = []
        for stage in self.stages or (self,):
            if stage.status is not None:
                found += stage._finding_columns()  # noqa: SLF001 (of this class)
        return found

    def _planned_columns(self) -> list[Any]:
        """Return the columns of the findings, then those that the plan's types would add."""
        columns = list(self.findings.columns)
        for kind in self._planned_types():
            columns += kind.all_columns
        return list(dict.fromkeys(columns))

    def _planned_types(self) -> list[FindingType]:
        """Return the types of the findings that the plan has: those of all its maps."""
        planned = self.plan.finding
        kinds = planned if isinstance(planned, dict) else {None: planned}
        return [FindingType.of(kind, name) for name, kind in kinds.items() if kind is not None]

    @suggest_keywords
    def look(self, label: object = ..., *, node: str | None = None) -> Transcript:
        """Return what agents did for a row, or in a node of the run, to be read.

        It is shown as a conversation: what the agent read, said, ran and saw, what was repaired,
        what came of it, and what it took. ``trace=`` of the call says how much of that is kept.

        Args:
            label: the row's, in the index of ``frame``.
            node: the id of a node, as in ``trace``: ``"map-1"``, ``"final-reduce"``, ``"plan"``.

        Raises:
            UsageError: none or both are given, or there is no such row or node.
        """
        return look_at(self, self._row_places, label, node)

    @property
    def _row_places(self) -> RowPlaces:
        """The rows, and where they stand in the nodes of the run."""
        return FramePlaces(self.frame, self._finding_columns())

    @suggest_keywords
    def explain(
        self, item: int = 0, *, group: object = None, column: object = None
    ) -> pd.DataFrame:
        """Return the rows of ``frame`` that an item of the output is based on.

        Args:
            item: its number in the output; 0 for a text, a scalar or an object.
            group: its group, if the answer has one part per group (or its column, if agents wrote
                columns); None and NaN both are the group without a key.
            column: the column, if agents wrote several columns for each group.

        Raises:
            UsageError: the output has no sources, there is no such item, or the group or the
                column is missing or needless.
        """
        return self.frame.iloc[find_positions(self.sources, item, group, column)]

    def graph(self) -> Graph:
        """Return the graph of the run: which node fed which, their times, the longest path."""
        return graph_of(self.trace, static=self.plan.fan_in is not None)

    def timeline(self) -> Timeline:
        """Return what the nodes of the run did, and when: in the model, waiting, in code."""
        return Timeline(self.trace, self.spans, self.seconds)

    def save(self, folder: str | Path) -> None:
        """Write the whole result into a folder; ``amr.load(folder)`` brings it back exactly.

        A folder that ``save`` made is replaced as a whole; any other folder must be empty. The
        files are written beside the folder and renamed into it, so that a crash leaves the old
        result or the new one. A model in the output comes back as the plan's type. What could run
        again does not come back: ``retry``, ``verify``, and the functions of the answer.

        Raises:
            UsageError: the folder holds something else, or the named part of the result would not
                come back as it is. Nothing is written then.
        """
        save_result(self._parts(), folder)

    @suggest_keywords
    def to_html(
        self,
        buf: str | Path | SupportsWrite | None = None,
        *,
        columns: Sequence[Hashable] | None = None,
        max_rows: int = 1000,
    ) -> str | None:
        """Write a report: one HTML file for a reader who has no Python.

        It holds the question, the answer and the rows it rests on, the rows with their findings (to
        search and to sort), what failed, the method, the cost and the graph. It fetches nothing.
        Only columns that were read are shown, and texts as they were sent, if ``redact`` was in
        force.

        Args:
            buf: the path of the file, which is replaced if there is one; or what text is written
                to, such as an open file. None returns the text.
            columns: the columns to show of the rows, as ``frame`` holds them, redacted or not.
            max_rows: the most rows in the table; a report says how many it leaves out.

        Returns:
            None, or the text if there is no ``buf``, as ``DataFrame.to_html``.

        Raises:
            UsageError: a column is not in ``frame``, or the file cannot be written.

        Example:
            >>> import pandas as pd, pandas_amr as amr
            >>> df = pd.DataFrame({"text": ["one", "three"]})
            >>> def count(rows):
            ...     return [{"length": len(text)} for text in rows["text"]]
            >>> result = df.amr.map_reduce(map=count, reduce={"length": "max"})
            >>> result.to_html()[:15]
            '<!doctype html>'
        """
        text = report_of(self, self._found_columns(), columns, max_rows)
        if buf is None:
            return text
        write_report(buf, text)
        return None

    @user_traceback
    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give ``frame`` to what reads Arrow: ``pl.DataFrame(result)``, ``pa.table(result)``.

        Named levels of the index are columns, the first ones; others are left out. If the call
        groups (``by=``), and the answer is a summary frame, it is the summary, with the keys of the
        groups as its first columns. Any other answer is in ``result.output``.

        Raises:
            UsageError: Arrow cannot hold a column, or a level has the name of a column.
        """
        by = self.plan.by if self.origin is None else self.origin.job.by
        if by is not None and isinstance(self.output, pd.DataFrame):
            table = table_of_summary(self.output)
        else:
            table = table_of_frame(self.frame)
        stream: object = table.__arrow_c_stream__(requested_schema)
        return stream

    def _parts(self) -> dict[str, Any]:
        """Return what is saved, by name."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        parts["total"] = asdict(self.total)
        parts["stages"] = [stage._parts() for stage in self.stages]  # noqa: SLF001 (of this class)
        parts["aggregations"] = self._computed_aggregations()
        kinds = self.finding_types or {}
        parts["transcripts"] = None if self.transcripts is None else self.transcripts.encode()
        parts["finding_types"] = {name: name_type(kind) for name, kind in kinds.items()}
        return parts

    def __deepcopy__(self, memo: dict[int, Any]) -> Result[Output, Kind]:
        """Return a copy with frames and an output of its own; the run behind it is the same.

        Raises:
            UsageError: a part cannot be copied.
        """
        own: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            try:
                own[each.name] = value if each.name in SHARED else copy.deepcopy(value, memo)
            except Exception as error:
                raise UsageError(
                    f"result.{each.name} cannot be copied ({type(error).__name__}); "
                    "copy.copy(result) gives a copy that shares it."
                ) from error
        return type(self)(**own)

    def __getstate__(self) -> dict[str, Any]:
        """Return what enters a pickle: what ``save`` writes, and the types and functions."""
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        state |= {"origin": None, "made_by": None}
        state["aggregations"] = pack(self._computed_aggregations(), "result.aggregations")
        state["finding_types"] = pack(self.finding_types, "The type of result.records")
        state["output"] = pack(self.output, "result.output")
        state["transcripts"] = None if self.transcripts is None else self.transcripts.detach()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            vars(self)[name] = unpack(value)

    def __repr__(self) -> str:
        return result_line(self)

    def _repr_html_(self) -> str:
        return result_card(self, self._found_columns())


for _name in ("usage", "failures", "trace", "status", "spans"):
    setattr(Result, _name, LazyField(_name))


@user_traceback
@suggest_keywords
def load(folder: str | Path, *, finding: object = None) -> Result:
    """Load a result that ``result.save(folder)`` wrote, types included.

    Args:
        folder: where it was saved.
        finding: the type of ``result.records``, as ``finding=`` of the verb took it. Default: it is
            imported, when ``records`` is first read, from the module in which it was defined.

    Raises:
        UsageError: the folder holds no result, a damaged one, or one of a later version; or
            ``finding`` is not the type of its findings.
    """
    result = _result_of_parts(load_parts(Path(folder)))
    if finding is None:
        return result
    return replace(result, finding_types=replace_types(result, finding))


def _result_of_parts(parts: Mapping[str, Any]) -> Result:
    stages = tuple(map(_result_of_parts, parts["stages"]))
    return Result(**{**parts, "total": Usage(**parts["total"]), "stages": stages})
