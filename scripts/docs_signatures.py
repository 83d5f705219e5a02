"""Signatures and docstrings as `help()` shows them: of keywords that griffe cannot read.

Verbs take ``**options``, described in one place for all of them, and settings take ``**changes``;
the library itself shows them in full at run time (``_api/options.py``).
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import fields
from typing import Any

import griffe

from pandas_amr._context.settings import NAMES, Settings
from pandas_amr.models.base import LM

PLACEHOLDER = "{options}"
SETTINGS = "pandas_amr._context.settings.settings"
KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}


# What the library makes and users do not: how to make one is nobody's question.
MADE_HERE = (
    "_result.result.Result",
    "_run.frame_mapper.FrameMapper",
    "_records.estimate.Estimate",
    "_records.outgoing.Outgoing",
    "_records.graph.Graph",
    "_records.usage.Usage",
    "_result.evaluate.Score",
    "_result.verify.Verification",
    "_journal.forget.Forgotten",
    "testing.request.ScriptedRequest",
)


class RuntimeSignatures(griffe.Extension):
    """Replace what the source says of verbs and settings by what is true of them at run time."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Leave out how to make what users do not make, and say rightly how LM is made."""
        errors = [kind.path.partition(".")[2] for kind in pkg["errors"].classes.values()]
        for path in (*MADE_HERE, *errors):
            members = pkg[path].members
            if "__init__" in members:
                del members["__init__"]
        # griffe takes a keyword-only dataclass' positional field for a keyword.
        parameters = inspect.signature(LM).parameters.values()
        pkg["models.base.LM.__init__"].parameters = griffe.Parameters(
            griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
            *[parameter_of(parameter) for parameter in parameters],
        )

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Take a verb's options from the function itself."""
        if func.docstring is None or PLACEHOLDER not in func.docstring.value:
            return
        verb = getattr(importlib.import_module(func.module.path), func.name)
        func.docstring.value = inspect.cleandoc(verb.__doc__)
        parameters = inspect.signature(verb).parameters.values()
        func.parameters = griffe.Parameters(*[parameter_of(parameter) for parameter in parameters])

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Take the names of settings from their record."""
        if cls.path != SETTINGS:
            return
        types = {field.name: field.type for field in fields(Settings)}
        named = [
            griffe.Parameter(
                name,
                annotation=str(types[name]),
                kind=griffe.ParameterKind.keyword_only,
                default="...",
            )
            for name in NAMES
        ]
        begin = cls.members["__init__"]
        assert isinstance(begin, griffe.Function)
        begin.parameters = griffe.Parameters(begin.parameters["self"], *named)


def parameter_of(parameter: inspect.Parameter) -> griffe.Parameter:
    """Say of a parameter at run time what griffe says of one in the source."""
    has_default = parameter.default is not parameter.empty
    return griffe.Parameter(
        parameter.name,
        annotation=str(parameter.annotation),
        kind=KINDS[parameter.kind],
        default=repr(parameter.default) if has_default else None,
    )
