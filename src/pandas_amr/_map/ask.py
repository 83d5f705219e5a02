"""TODO."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.finding_type import FindingType
from pandas_amr._findings.store import FindingStore
from pandas_amr._map.agent import AgentMapper
from pandas_amr._records.concurrency import each
from pandas_amr._types.schema import named_type, record_type
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr._units.shards import make_shards
from pandas_amr._units.units import make_units
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._agent.repl import Repl
    from pandas_amr._map.agent import Mapper
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._units.units import Units
    from pandas_amr.errors import RunStopped
    from pandas_amr.models.base import Model
    from pandas_amr.sandbox.base import Data


ASK_SHARD_SIZE = 20


ASK_AT_ONCE = 8


TOLD_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Asker:
    """Has the model read texts that code has chosen: one flat answer each, within the run's throttle and budget."""

    model: Model
    count: TokenCounter
    most: int
    alone: bool
    shard_tokens: int
    max_repairs: int
    kept: Callable[[AgentMapper, str], Mapper] = lambda mapper, _: mapper

    def for_(self, repl: Repl) -> Any:
        """The answers to one session's questions; what they cost is added to its REPL's."""
        read = 0

        async def ask(asked: dict[str, Any]) -> Data:
            nonlocal read
            kind = await asyncio.to_thread(_asked_kind, asked["schema"])
            units = await asyncio.to_thread(self._units_of, asked["texts"])
            present = units.frame["text"].notna().to_numpy()
            wanted = units.only(present[units.asked])  # what is missing is not read
            read += int(np.maximum(1, -(-wanted.tokens // self.shard_tokens)).sum())
            if read > self.most:
                raise UsageError(
                    f"ask() takes {self.most} texts, or pieces of long ones, and these would be {read}"
                )
            return await self._answered(asked["instruction"], kind, units, wanted, repl)

        return ask

    def _units_of(self, texts: list[str | None]) -> Units:
        frame = pd.DataFrame({"text": pd.Series(texts, dtype=object)})
        return make_units(frame, (0,), dedupe=True, counter=self.count)

    async def _answered(
        self, instruction: str, kind: FindingType, units: Units, wanted: Units, repl: Repl
    ) -> Data:
        bare = AgentMapper(
            name=None,
            model=self.model,
            instruction=instruction,
            kind=kind,
            units=units,
            tools=(),
            max_steps=1,
            max_repairs=self.max_repairs,
            alone=self.alone,
            max_tokens=self.shard_tokens,
            count=self.count,
            merge={},
        )
        mapper = self.kept(bare, instruction)
        size = 1 if self.alone else ASK_SHARD_SIZE
        shards = make_shards(
            wanted.asked, wanted.tokens, shard_size=size, shard_tokens=self.shard_tokens
        )
        store = FindingStore(None, kind)
        failures = []
        ended: list[RunStopped] = []
        begun = time.monotonic()
        async for mapped in each(
            mapper, (shard for shard in shards if not ended), limit=ASK_AT_ONCE
        ):
            repl.spent += mapped.usage
            if mapped.ended_by is not None:
                ended.append(mapped.ended_by)
            store.add(mapped.positions, mapped.table)
            failures += mapped.failures
        waited_s = time.monotonic() - begun
        if ended:  # what was in flight has ended by now
            raise ended[0]
        failures.sort(
            key=lambda failure: failure.position
        )  # agents are told the same, whichever came first
        told = [
            f"text {failure.position}: {failure.reason}" for failure in failures[:TOLD_FAILURES]
        ]
        said = (
            (f"{len(failures)} texts have no answer ({'; '.join(told)}); they are <NA>.",)
            if failures
            else ()
        )
        answers = await asyncio.to_thread(_answer_data, store, units)
        return replace(answers, changed=said, waited_s=waited_s)


def _answer_data(store: FindingStore, units: Units) -> Data:
    answers = pd.DataFrame(store.columns(units.asked, units.answered_by), index=units.frame.index)
    return ArrowFrame.of(answers).data("answers")


def _asked_kind(fields: dict[str, Any]) -> FindingType:
    """What each answer holds.

    Raises:
        UsageError: it is nothing that a model could be asked for.
    """
    try:
        return FindingType.of(
            record_type("Answer", {name: named_type(one) for name, one in fields.items()}), None
        )
    except (TypeError, AttributeError, LookupError) as error:
        raise UsageError(
            f"ask(..., schema=) cannot be used: {type(error).__name__}: {error}"
        ) from None
