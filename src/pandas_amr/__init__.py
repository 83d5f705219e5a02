"""Agentic map-reduce for pandas: ``import pandas_amr`` registers ``df.amr`` and does nothing else.

A public name is imported at its first use, so that this import takes little longer than pandas'.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pandas_amr._api.accessor import accessor, register

# These verbs shadow builtins: they are the words of map-reduce.
from pandas_amr._api.verbs import filter, map, map_reduce, mapper, plan, reduce, start  # noqa: A004
from pandas_amr._records.version import __version__ as __version__
from pandas_amr.errors import (
    AMRError,
    AMRWarning,
    ArgumentError,
    BudgetExceeded,
    ColumnError,
    CorpusWarning,
    EventWarning,
    FailureWarning,
    InvalidOutput,
    JournalError,
    JournalWarning,
    MapFailed,
    ModelConfigError,
    ModelError,
    ModelOffline,
    ModelRefused,
    ModelRejected,
    ModelUnavailable,
    NotConfirmed,
    PlanError,
    PlanWarning,
    RunStopped,
    SandboxError,
    SandboxUnavailable,
    SettingWarning,
    UsageError,
)

if TYPE_CHECKING:
    from pandas_amr._agent.agent import Agent
    from pandas_amr._api.mcp import mcp_tools
    from pandas_amr._api.recipe import Recipe
    from pandas_amr._context.settings import configure, settings
    from pandas_amr._journal.forget import Forgotten
    from pandas_amr._journal.journal import Journal
    from pandas_amr._plan.plan import Plan, Ranking
    from pandas_amr._records.estimate import Estimate
    from pandas_amr._records.graph import Graph
    from pandas_amr._records.outgoing import Outgoing
    from pandas_amr._records.timeline import Timeline
    from pandas_amr._records.usage import Budget, Usage
    from pandas_amr._result.evaluate import Score
    from pandas_amr._result.recent import result_of
    from pandas_amr._result.result import Result, load
    from pandas_amr._result.transcript import Transcript
    from pandas_amr._result.verify import Verification
    from pandas_amr._run.frame_mapper import FrameMapper
    from pandas_amr._run.run import Run
    from pandas_amr._units.by import By
    from pandas_amr._units.corpus import from_documents, read_files, read_text
    from pandas_amr._units.frames import as_frame
    from pandas_amr.models.base import LM, Abilities
    from pandas_amr.sandbox.base import Limits, Sandbox
    from pandas_amr.sandbox.host.container import ContainerSandbox
    from pandas_amr.tools import PythonREPLTool, Tool, tool

__all__ = [
    "LM",
    "AMRError",
    "AMRWarning",
    "Abilities",
    "Agent",
    "ArgumentError",
    "Budget",
    "BudgetExceeded",
    "By",
    "ColumnError",
    "ContainerSandbox",
    "CorpusWarning",
    "Estimate",
    "EventWarning",
    "FailureWarning",
    "Forgotten",
    "FrameMapper",
    "Graph",
    "InvalidOutput",
    "Journal",
    "JournalError",
    "JournalWarning",
    "Limits",
    "MapFailed",
    "ModelConfigError",
    "ModelError",
    "ModelOffline",
    "ModelRefused",
    "ModelRejected",
    "ModelUnavailable",
    "NotConfirmed",
    "Outgoing",
    "Plan",
    "PlanError",
    "PlanWarning",
    "PythonREPLTool",
    "Ranking",
    "Recipe",
    "Result",
    "Run",
    "RunStopped",
    "Sandbox",
    "SandboxError",
    "SandboxUnavailable",
    "Score",
    "SettingWarning",
    "Timeline",
    "Tool",
    "Transcript",
    "Usage",
    "UsageError",
    "Verification",
    "accessor",
    "as_frame",
    "configure",
    "filter",
    "from_documents",
    "load",
    "map",
    "map_reduce",
    "mapper",
    "mcp_tools",
    "plan",
    "read_files",
    "read_text",
    "reduce",
    "result_of",
    "settings",
    "start",
    "tool",
]

# The modules that define the public names which are imported at their first use.
_HOMES = {
    "models.base": ("LM", "Abilities"),
    "sandbox.base": ("Limits", "Sandbox"),
    "sandbox.host.container": ("ContainerSandbox",),
    "tools": ("PythonREPLTool", "Tool", "tool"),
    "_units.corpus": ("from_documents", "read_files", "read_text"),
    "_units.by": ("By",),
    "_units.frames": ("as_frame",),
    "_result.transcript": ("Transcript",),
    "_records.graph": ("Graph",),
    "_records.timeline": ("Timeline",),
    "_journal.journal": ("Journal",),
    "_journal.forget": ("Forgotten",),
    "_api.mcp": ("mcp_tools",),
    "_agent.agent": ("Agent",),
    "_records.estimate": ("Estimate",),
    "_records.outgoing": ("Outgoing",),
    "_plan.plan": ("Plan", "Ranking"),
    "_api.recipe": ("Recipe",),
    "_result.recent": ("result_of",),
    "_result.result": ("Result", "load"),
    "_run.frame_mapper": ("FrameMapper",),
    "_run.run": ("Run",),
    "_result.evaluate": ("Score",),
    "_context.settings": ("configure", "settings"),
    "_records.usage": ("Budget", "Usage"),
    "_result.verify": ("Verification",),
}
_HOME_OF: dict[str, str] = {}
for _home, _names in _HOMES.items():
    _HOME_OF.update(dict.fromkeys(_names, _home))


def __getattr__(name: str) -> Any:
    if name == "events":
        return importlib.import_module(f"{__name__}.events")
    if name not in _HOME_OF:
        from pandas_amr._records.public import refuse_attribute  # noqa: PLC0415 (seldom needed)

        refuse_attribute(f"module {__name__!r}", name, () if name.startswith("_") else __dir__())
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "errors", "events", "testing", "tools"])


register()
