"""Every sentence to a model, as pure functions.

The long part of a prompt comes first and is the same for all shards of a run, so that a provider's
prompt cache can serve it.
"""

from __future__ import annotations

from pandas_amr._agent.prompts.blocks import (
    finding_lines,
    flat_unit,
    numbered,
    preview_lines,
    ranked_lines,
    unit_lines,
)
from pandas_amr._agent.prompts.code import (
    cell_output,
    code_nudge,
    code_only_nudge,
    code_system,
    finding_line,
    last_cell,
    nudge,
    reduction_line,
    repl_description,
    submit_reminder,
)
from pandas_amr._agent.prompts.map import (
    around_lines,
    changed_words,
    flat_system,
    group_line,
    instruction_lines,
    map_system,
    merge_system,
)
from pandas_amr._agent.prompts.plan import PLAN_SYSTEM, PLAN_VIEW, plan_user, reader_lines
from pandas_amr._agent.prompts.reduce import (
    DEFAULT_REDUCE,
    choice_instruction,
    choosable_lines,
    reduce_system,
)
from pandas_amr._agent.prompts.repair import (
    answer_repair,
    by_line,
    by_tool,
    map_repair,
    shorten_problem,
)

__all__ = [
    "DEFAULT_REDUCE",
    "PLAN_SYSTEM",
    "PLAN_VIEW",
    "answer_repair",
    "around_lines",
    "by_line",
    "by_tool",
    "cell_output",
    "changed_words",
    "choice_instruction",
    "choosable_lines",
    "code_nudge",
    "code_only_nudge",
    "code_system",
    "finding_line",
    "finding_lines",
    "flat_system",
    "flat_unit",
    "group_line",
    "instruction_lines",
    "last_cell",
    "map_repair",
    "map_system",
    "merge_system",
    "nudge",
    "numbered",
    "plan_user",
    "preview_lines",
    "ranked_lines",
    "reader_lines",
    "reduce_system",
    "reduction_line",
    "repl_description",
    "shorten_problem",
    "submit_reminder",
    "unit_lines",
]
