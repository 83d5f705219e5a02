"""A sample of units: how it is drawn, what it measures, and how far that is from the whole."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._map.cut import Sample, cut_first_run, drop_empty, make_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._context.spec import Spec
    from pandas_amr._records.usage import Usage
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units

BLOCKS = 10  # of a sample: they show how much the answers vary
LEAST_BLOCKS = 2
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
T_95_OF_MANY = 2.0  # Student's t for more degrees of freedom


@dataclass(frozen=True)
class Measurement:
    """What mapping a sample took.

    Attributes:
        units: how many units were mapped.
        input_ratio: input tokens as the provider counts them, per token that is counted here.
        output_ratio: output tokens likewise, per token of the findings as they are counted here.
        findings: what was found, as a model says it, by the map's name.
        reduction_tokens: of a reduce agent's answer; None if none answered.
        latency_s: of one request.
        spread: half of the interval that holds a unit's tokens, as a share of them.
        pipelines: what recipes took that map rows; None if there are none, or if the journal had
            some of their answers.
    """

    units: int
    input_ratio: float
    output_ratio: float
    findings: Mapping[str | None, list[dict[str, Any]]]
    reduction_tokens: float | None
    latency_s: float
    spread: float
    pipelines: Usage | None = None


def shards_of(spec: Spec, units: Units) -> list[Shard]:
    """Cut the units that models are asked about into shards, as a first run does."""
    shards = cut_first_run(spec, units, make_context(spec, units))
    return [shard for shard in drop_empty(shards, units) if shard.positions]


def sample_of(spec: Spec, units: Units, wanted: int, *, seed: int = 0) -> Sample:
    """Draw units from all over the frame, in blocks.

    A block is a whole shard if findings depend on the other units of the shard.
    """
    if spec.plan.keyed == "shard":
        blocks = _draw_shards(spec, units, wanted, seed)
    else:
        blocks = _draw_blocks(spec, units, wanted, seed)
    return make_sample(blocks)


def make_sample(blocks: Sequence[Sequence[int]]) -> Sample:
    """Make a sample of the units in some blocks."""
    positions: list[int] = []
    numbers: list[int] = []
    for number, block in enumerate(blocks):
        positions += block
        numbers += [number] * len(block)
    return Sample(np.array(positions, dtype=np.int64), np.array(numbers, dtype=np.int64))


def _draw_shards(spec: Spec, units: Units, wanted: int, seed: int) -> list[Sequence[int]]:
    """Draw whole shards that hold about as many units as are wanted."""
    shards = shards_of(spec, units)
    readable = max(1, sum(len(shard.positions) for shard in shards))
    count = math.ceil(wanted * len(shards) / readable)
    count = max(LEAST_BLOCKS, count)
    count = min(count, len(shards))
    places = spread_places(len(shards), count, seed)
    return [shards[place].positions for place in places]


def _draw_blocks(spec: Spec, units: Units, wanted: int, seed: int) -> list[Sequence[int]]:
    """Draw as many units as are wanted, and put those that follow each other into blocks."""
    asked = units.with_content().asked
    wanted = min(wanted, len(asked))
    places = spread_places(len(asked), wanted, seed)
    positions: list[int] = asked[places].tolist()
    size = max(1, math.ceil(len(positions) / BLOCKS))
    size = min(size, spec.plan.shard_size or 1)
    blocks: list[Sequence[int]] = []
    for start in range(0, len(positions), size):
        end = start + size
        blocks.append(positions[start:end])
    return blocks


def spread_places(count: int, wanted: int, seed: int = 0) -> list[int]:
    """Draw places out of ``count``, one from each of ``wanted`` equal parts.

    The same seed draws the same places.
    """
    if not wanted:
        return []
    rng = np.random.default_rng(seed)
    edges = np.linspace(0, count, wanted + 1).astype(int)
    places: list[int] = []
    for low, high in itertools.pairwise(edges):
        if high > low:
            place = rng.integers(low, high)
            places.append(int(place))
    return places


def interval(per_unit: Sequence[float], weights: Sequence[int], *, of: int) -> float:
    """Compute half of the interval that holds the mean in 19 of 20 samples, as a share of the mean.

    Student's t over the sample's blocks, with the correction for a finite population (Cochran
    1977, chapter 2).

    Args:
        per_unit: the mean of each block.
        weights: how many units each block has.
        of: how many units there are.

    Returns:
        0 if all units were sampled; 1 if the blocks are too few to tell.
    """
    sampled = sum(weights)
    if sampled >= of:
        return 0.0
    tokens = 0.0
    for value, weight in zip(per_unit, weights, strict=True):
        tokens += value * weight
    mean = tokens / max(1, sampled)
    blocks = len(per_unit)
    if blocks < LEAST_BLOCKS or not mean:
        return 1.0
    unsampled_share = 1 - sampled / of
    error = statistics.stdev(per_unit) / math.sqrt(blocks) * math.sqrt(unsampled_share)
    t_95 = T_95.get(blocks - 1, T_95_OF_MANY)
    return t_95 * error / mean
