"""``ask()`` in a REPL: the model reads texts that code has chosen."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.finding_type import FindingType
from pandas_amr._findings.store import Failure, FindingStore
from pandas_amr._journal.keys import Question
from pandas_amr._journal.origins import SameRows
from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.cached import CachedMapper
from pandas_amr._map.prompt import MapPrompt
from pandas_amr._records.concurrency import run_concurrently
from pandas_amr._types.from_schema import parse_type
from pandas_amr._types.record import record_type
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr._units.shards import make_shards
from pandas_amr._units.units import make_units
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._agent.agent import Agent
    from pandas_amr._agent.repl import Repl
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._map.mapper import Mapper
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._records.usage import Phase
    from pandas_amr._units.redaction import Redaction
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units
    from pandas_amr.errors import RunStopped
    from pandas_amr.models.base import Model
    from pandas_amr.sandbox.base import Data


ASK_SHARD_SIZE = 20
ASK_AT_ONCE = 8
SHOWN_FAILURES = 3
ASK_SCHEMA = "schema= of ask()"
SCHEMA_TEXTS = frozenset({"description", "enum", "const", "examples"})  # and no keywords


def make_ask(
    spec: Spec, services: Services, phase: Phase, agent: Agent | None
) -> Callable[[Repl], Any]:
    """Make what answers ``ask()`` in the REPLs of a phase: by its model, kept in the journal."""
    repl = spec.repl(agent)
    assert repl is not None

    def add_cache(mapper: AgentMapper, instruction: str, positions: Sequence[int]) -> Mapper:
        parts = {"instruction": instruction, "asked_by": "code"}
        question = Question(parts=parts, finding=mapper.kind.model)
        cache = services.cache(spec, "finding", phase, question, agent)
        if cache is None:
            return mapper
        rows = SameRows(partial(services.origins_of, positions))
        return CachedMapper(mapper, cache, mapper.units, by_shard=False, rows=rows)

    reader = TextReader(
        add_cache=add_cache,
        model=services.model(spec, phase, agent),
        count=spec.counter(phase, agent),
        most=repl.limits.asks,
        is_single=spec.abilities(phase, agent).units_per_request == 1,
        shard_tokens=spec.plan.shard_tokens or 1,
        max_repairs=spec.max_repairs,
        redaction=spec.job.redaction,
    )
    return partial(SessionReader, reader)


@dataclass(frozen=True, slots=True)
class TextReader:
    """Has the model read texts: one finding each, within the run's throttle and budget.

    Attributes:
        most: most texts, or pieces of long ones, that one session may have read.
        is_single: whether the model takes one text per request.
        add_cache: puts the journal around a mapper that is asked this instruction, about texts
            that code has chosen from the rows at some positions.
        redaction: what texts pass that code asks about: it may have them from a file, or join what
            stands in two columns.
    """

    model: Model
    count: TokenCounter
    most: int
    is_single: bool
    shard_tokens: int
    max_repairs: int
    add_cache: Callable[[AgentMapper, str, Sequence[int]], Mapper]
    redaction: Redaction | None = None

    def redact(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what is sent in place of the texts, the instruction and the choices."""
        if self.redaction is None:
            return request
        fields = request["schema"]
        return {
            **request,
            "texts": self.redaction.values(request["texts"], "a text of ask()"),
            "instruction": self.redaction.text(request["instruction"], "an instruction of ask()"),
            "schema": {name: _redact_type(one, self.redaction) for name, one in fields.items()},
        }

    def make_units(self, texts: list[str | None]) -> Units:
        """Make units of texts; equal ones are asked about once."""
        frame = pd.DataFrame({"text": pd.Series(texts, dtype=object)})
        return make_units(frame, (0,), dedupe=True, counter=self.count)

    def make_mapper(
        self, instruction: str, kind: FindingType, units: Units, positions: Sequence[int]
    ) -> Mapper:
        """Make an agent without tools that is asked about texts from the rows at some positions."""
        prompt = MapPrompt(instruction, kind, units, is_single=self.is_single)
        mapper = AgentMapper(
            name=None,
            prompt=prompt,
            model=self.model,
            tools=(),
            max_steps=1,
            max_repairs=self.max_repairs,
            max_tokens=self.shard_tokens,
            count=self.count,
            merge_rules={},
        )
        return self.add_cache(mapper, instruction, positions)

    def make_shards(self, units: Units) -> list[Shard]:
        """Cut the texts that are to be read into shards."""
        size = 1 if self.is_single else ASK_SHARD_SIZE
        return make_shards(
            units.asked, units.tokens, shard_size=size, shard_tokens=self.shard_tokens
        )


class SessionReader:
    """Answers the ``ask()`` of one session; what that costs is added to its REPL's."""

    def __init__(self, reader: TextReader, repl: Repl) -> None:
        self._reader = reader
        self._repl = repl
        self._read = 0

    async def __call__(self, request: dict[str, Any]) -> Data:
        """Read the texts of one ``ask(texts, instruction, schema)``.

        Raises:
            UsageError: the schema cannot be used, or these texts are too many.
            RunStopped: the run has ended meanwhile.
        """
        reader = self._reader
        request = await asyncio.to_thread(reader.redact, request)
        kind = await asyncio.to_thread(_finding_type, request["schema"])
        units = await asyncio.to_thread(reader.make_units, request["texts"])
        present = units.frame["text"].notna().to_numpy()
        wanted = units.only(present[units.asked])  # what is missing is not read
        pieces = np.maximum(1, -(-wanted.tokens // reader.shard_tokens))
        self._read += int(pieces.sum())
        if self._read > reader.most:
            raise UsageError(
                f"ask() takes {reader.most} texts, or pieces of long ones, "
                f"and these would be {self._read}"
            )
        mapper = reader.make_mapper(request["instruction"], kind, units, self._repl.positions)
        return await self._read_shards(mapper, reader.make_shards(wanted), kind, units)

    async def _read_shards(
        self, mapper: Mapper, shards: list[Shard], kind: FindingType, units: Units
    ) -> Data:
        store = FindingStore(None, kind)
        failures: list[Failure] = []
        ends: list[RunStopped] = []
        begin_s = time.monotonic()
        open_shards = (shard for shard in shards if not ends)
        async for mapped in run_concurrently(mapper.map_shard, open_shards, limit=ASK_AT_ONCE):
            self._repl.spent += mapped.usage
            if mapped.ended_by is not None:
                ends.append(mapped.ended_by)
            store.add(mapped.positions, mapped.table)
            failures += mapped.failures
        waited_s = time.monotonic() - begin_s
        if ends:  # what was in flight has ended by now
            raise ends[0]
        answers = await asyncio.to_thread(_answer_data, store, units)
        return replace(answers, changed=_failure_text(failures), waited_s=waited_s)


def _failure_text(failures: list[Failure]) -> tuple[str, ...]:
    """Say which texts have no answer, in an order that does not depend on which was read first."""
    if not failures:
        return ()
    first = sorted(failures, key=_position_of)[:SHOWN_FAILURES]
    reasons = "; ".join(f"text {failure.position}: {failure.reason}" for failure in first)
    return (f"{len(failures)} texts have no answer ({reasons}); they are <NA>.",)


def _position_of(failure: Failure) -> int:
    return failure.position


def _answer_data(store: FindingStore, units: Units) -> Data:
    columns = store.columns(units.asked, units.answered_by)
    answers = pd.DataFrame(columns, index=units.frame.index)
    return ArrowFrame.of(answers).data("answers")


def _redact_type(given: object, redaction: Redaction) -> Any:
    """Redact the choices and descriptions in a type that code names, and not its keywords."""
    if isinstance(given, list):  # of choices
        return redaction.value(given, ASK_SCHEMA)
    return _redact_schema(given, redaction)


def _redact_schema(given: object, redaction: Redaction) -> Any:
    if isinstance(given, list):
        return [_redact_schema(part, redaction) for part in given]
    if not isinstance(given, dict):
        return given
    redacted: dict[str, Any] = {}
    for key, part in given.items():
        if key in SCHEMA_TEXTS:
            redacted[key] = redaction.value(part, ASK_SCHEMA)
        elif key == "kind":
            redacted[key] = _redact_type(part, redaction)
        else:
            redacted[key] = _redact_schema(part, redaction)
    return redacted


def _finding_type(fields: dict[str, Any]) -> FindingType:
    """What each answer holds.

    Raises:
        UsageError: it is nothing that a model could be asked for.
    """
    try:
        types = {name: parse_type(written) for name, written in fields.items()}
        return FindingType.of(record_type("Answer", types), None)
    except (TypeError, AttributeError, LookupError) as error:
        raise UsageError(
            f"ask(..., schema=) cannot be used: {type(error).__name__}: {error}"
        ) from None
