"""What the maps of a plan take: prompts are counted, answers are typical or sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pandas_amr._findings.merge import choose_merge_rules
from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.cached import uncached
from pandas_amr._map.cut import make_context
from pandas_amr._map.mappers import make_mappers
from pandas_amr._run.cost import Cost, takes_turns
from pandas_amr._run.sample import spread_places
from pandas_amr._run.typical import NOTES_TOKENS, WRAPPER, answer_tokens
from pandas_amr._units.cells import to_json_line
from pandas_amr._units.split import split_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._records.usage import Usage
    from pandas_amr._run.sample import Measurement
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units

RENDERED_SHARDS = 50  # whose prompts are counted; the others are scaled from them
CUT_TOKENS = 500_000  # of long units that are cut to count their pieces: a second or two


def estimate_maps(
    spec: Spec,
    services: Services,
    units: Units,
    shards: Sequence[Shard],
    measurement: Measurement | None,
) -> list[Cost]:
    """Estimate what each map takes, and what recipes that map took in the sample."""
    costs: list[Cost] = []
    if not spec.job.maps or not spec.lms or not shards:
        return costs
    for mapper in make_mappers(spec, services, units, make_context(spec, units)):
        agent = uncached(mapper)
        if isinstance(agent, AgentMapper):
            estimator = _MapEstimator(spec, units, shards, agent, measurement)
            costs.append(estimator.estimate())
    if measurement is not None and measurement.pipelines is not None:
        scale = len(units.asked) / measurement.units
        costs.append(_scale_pipelines(measurement.pipelines, scale))
    return costs


def _scale_pipelines(sampled: Usage, scale: float) -> Cost:
    cost = Cost("map", about=True)
    calls = round(sampled.calls * scale)
    cost.add(calls, sampled.input_tokens * scale, sampled.output_tokens * scale)
    if sampled.money is not None:
        cost.money = sampled.money * scale
    return cost


@dataclass(frozen=True)
class _MapEstimator:
    """Estimates one map.

    A shard is one request; a unit that is longer than a shard is one request per piece, and one
    more if an agent merges the findings of the pieces.
    """

    spec: Spec
    units: Units
    shards: Sequence[Shard]
    agent: AgentMapper
    measurement: Measurement | None

    def estimate(self) -> Cost:
        """Count the requests, their prompts and their answers."""
        agent = self.agent
        cost = Cost("map", self.spec.job.map_agents.get(agent.name))
        long = [shard for shard in self.shards if is_in_pieces(agent, shard)]
        pieces, is_exact = _count_pieces(agent, long)
        merges = len(long) if _merges_by_agent(agent) else 0
        requests = len(self.shards) - len(long) + pieces
        cost.about = not is_exact or merges > 0 or takes_turns(self.spec, cost)

        input_tokens = self._count_prompts(requests + merges)
        findings = len(self.units.asked)
        if self.measurement is None:
            findings += pieces + merges - len(long)
        else:
            input_tokens *= self.measurement.input_ratio
        if merges:
            input_tokens += pieces * self._finding_tokens
        cost.add(requests + merges, input_tokens, self._count_answers(requests, findings))
        return cost

    @cached_property
    def _finding_tokens(self) -> float:
        if self.measurement is not None:
            return self.measurement.output_tokens
        return answer_tokens(self.agent.kind, is_flat=self._is_flat, count=self.agent.count)

    @cached_property
    def _is_flat(self) -> bool:
        """Whether each answer is one finding, and no list of them."""
        sizes = {len(shard.positions) for shard in self.shards}
        return all(self.agent.prompt.is_flat(one_unit=size == 1) for size in sizes)

    @property
    def _is_code(self) -> bool:
        """Whether the units are in the REPL and not in the prompt, and code hands in."""
        return self.spec.plan.view == "preview"

    def _count_answers(self, requests: int, findings: int) -> float:
        tokens = findings * self._finding_tokens
        if self._is_code and self.measurement is None:
            tokens = len(self.shards) * NOTES_TOKENS  # one cell of code, however many units
        if not self._is_flat:
            tokens += requests * self.agent.count(WRAPPER)
        return tokens

    def _count_prompts(self, requests: int) -> float:
        """Render the prompts of some shards, and scale what they hold beside their units."""
        places = spread_places(len(self.shards), min(RENDERED_SHARDS, len(self.shards)))
        rendered = [self.shards[place] for place in places]
        tokens = sum(prompt_tokens(self.agent, shard) for shard in rendered)
        if self._is_code:
            return tokens * requests / len(rendered)
        for shard in rendered:
            tokens -= sum(self.agent.units.size(position) for position in shard.positions)
        return int(self.units.tokens.sum()) + tokens * requests / len(rendered)


def is_in_pieces(agent: AgentMapper, shard: Shard) -> bool:
    """Tell whether the shard is one unit that is so long that an agent reads it piece by piece."""
    return len(shard.positions) == 1 and agent.units.size(shard.positions[0]) > agent.max_tokens


def pieces_in(agent: AgentMapper, shard: Shard) -> list[str]:
    """Cut such a unit into its pieces."""
    record = agent.units.record(shard.positions[0])
    return split_record(
        record, limit=agent.max_tokens, count=agent.count, to_json_line=to_json_line
    )


def _count_pieces(agent: AgentMapper, long: Sequence[Shard]) -> tuple[int, bool]:
    """Count the pieces of long units.

    Returns:
        How many pieces there are, and whether all units were cut. Else the number is scaled from
        those that were.
    """
    sizes = [agent.units.size(shard.positions[0]) for shard in long]
    most = max(1, CUT_TOKENS * len(long) // max(1, sum(sizes)))
    places = spread_places(len(long), min(len(long), most))
    pieces = sum(len(pieces_in(agent, long[place])) for place in places)
    cut_tokens = sum(sizes[place] for place in places)
    return round(pieces * sum(sizes) / max(1, cut_tokens)), len(places) == len(long)


def _merges_by_agent(agent: AgentMapper) -> bool:
    """Tell whether one more request makes one finding of those of the pieces."""
    if agent.prompt.is_single:
        return False
    return "agent" in choose_merge_rules(agent.kind.model, agent.merge_rules).values()


def counted_tokens(agent: AgentMapper, shard: Shard) -> int:
    """Count the first messages of all requests about a shard: of several if it is in pieces."""
    tokens = prompt_tokens(agent, shard)
    if not is_in_pieces(agent, shard):
        return tokens
    tokens_without_unit = tokens - agent.units.size(shard.positions[0])
    return tokens + (len(pieces_in(agent, shard)) - 1) * tokens_without_unit


def prompt_tokens(agent: AgentMapper, shard: Shard) -> int:
    """Count the first messages about a shard; 0 if nothing is asked of any of its units."""
    positions = agent.prompt.askable(shard.positions)
    if not positions:
        return 0
    messages = agent.prompt.messages(positions, one_unit=len(positions) == 1)
    return sum(agent.count(message.content or "") for message in messages)
