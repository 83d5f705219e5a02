"""Everything that can go wrong, as one tree.

::

    AMRError
    ├─ UsageError(ValueError)           a bad argument, before a request; says what would be right
    │  └─ ColumnError(KeyError)         missing, doubled or colliding columns
    └─ RunStopped                       a run ended early; carries the partial Result. The base alone: an exception that
       │                                is not ours (a reducer's, a validator's, a bug) stands as its __cause__
       ├─ PlanError(ValueError)         a plan that cannot be used, or none to be had: says what to pass
       ├─ ModelError                    who: the model service. Never carries keys or cell text
       │  ├─ ModelUnavailable           429, time-out, 5xx, connection: retried first
       │  ├─ ModelConfigError           401, 402, no quota; 403, 404 before any answer: ends the run
       │  ├─ ModelRejected              400, 403: this request cannot be served (a context too long, a filter)
       │  ├─ ModelRefused               the model declined to answer
       │  └─ InvalidOutput(ValueError)  not the promised schema
       ├─ SandboxError                  who: the sandbox, not the code in it
       │  └─ SandboxUnavailable         none can be had here; says why, and what the choices are
       ├─ JournalError                  the journal cannot be read or written
       ├─ BudgetExceeded                carries the usage, too
       ├─ NotConfirmed                  the estimate was not confirmed; carries it
       └─ MapFailed                     errors="raise" met a failure

    AMRWarning(UserWarning)
    ├─ PlanWarning                   the plan is not carried out as a whole: a part left out, a group read in parts
    ├─ FailureWarning                some units failed and are listed
    ├─ JournalWarning                the journal is not what it was: damaged, gone, or not to be had
    ├─ SettingWarning                a setting is left out, since the model refuses it
    └─ CorpusWarning                 some files were left out
"""

from __future__ import annotations

from typing import Any, TypeAlias

# What errors carry is defined by modules that import this one: here their classes have no more than names.
Estimate: TypeAlias = Any
Limits: TypeAlias = Any
Result: TypeAlias = Any
Usage: TypeAlias = Any

__all__ = [
    "AMRError",
    "AMRWarning",
    "BudgetExceeded",
    "ColumnError",
    "CorpusWarning",
    "FailureWarning",
    "InvalidOutput",
    "JournalError",
    "JournalWarning",
    "MapFailed",
    "ModelConfigError",
    "ModelError",
    "ModelRefused",
    "ModelRejected",
    "ModelUnavailable",
    "NotConfirmed",
    "PlanError",
    "PlanWarning",
    "RunStopped",
    "SandboxError",
    "SandboxUnavailable",
    "SettingWarning",
    "UsageError",
]


class AMRError(Exception):
    """The root: catch this to catch everything the library raises.

    A copy of an error, as for another process, is without its ``partial``: that holds clients and functions.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        told = {name: None if name == "partial" else value for name, value in self.__dict__.items()}
        return type(self).__new__, (type(self), *self.args), told


class UsageError(AMRError, ValueError):
    """An argument that cannot be used; the message says what would be right."""


class ColumnError(UsageError, KeyError):
    """A column that is missing, doubled, or in the way of a finding."""

    __str__ = Exception.__str__  # KeyError's own shows the message in quotes


class RunStopped(AMRError):
    """A run ended before its end.

    This class alone stands for an exception that is not this library's, or for arguments that turned out to be wrong
    once requests were sent; the original is its ``__cause__``.

    Attributes:
        partial: the ``Result`` with all that was found until then; None before a run, and in a copy.
    """

    def __init__(self, message: str, *, partial: Result | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class PlanError(RunStopped, ValueError):
    """A plan that cannot be used; or a task for which there is none: the message writes out the call to make."""


class ModelError(RunStopped):
    """The model service failed.

    Attributes:
        status: the HTTP status, where there was an answer.
        request_id: the service's own name for the request, for its support.
        attempts: how often the request was sent.
        usage: what its answers took, where there were some that could not be used; None if nothing was paid for.
    """

    stops_run = False  # whether nothing that follows could succeed
    usage: Usage | None = None

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.attempts = attempts


class ModelUnavailable(ModelError):
    """Busy, slow or unreachable: the service may answer the same request later.

    Attributes:
        retry_after_s: seconds that the service asked to wait, where it said so.
        busy: the service said 429.
        gone: no service was reached.
        starved: this process could open no more connections.
        said: what went wrong, without what came of it for the run.
        limits: what its headers told of its limits.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        busy: bool = False,
        gone: bool = False,
        starved: bool = False,
        limits: Limits | None = None,
        **known: object,
    ) -> None:
        super().__init__(message, **known)  # type: ignore[arg-type]
        self.said = message
        self.retry_after_s = retry_after_s
        self.busy = busy
        self.gone = gone
        self.starved = starved
        self.limits = limits


class ModelConfigError(ModelError):
    """The service will not serve this key, model or address at all.

    Attributes:
        of_request: the same failure as one of this request alone, if that may be what the service means; it does where
            it has answered other requests.
    """

    stops_run = True
    of_request: ModelRejected | None = None


class ModelRejected(ModelError):
    """The service cannot serve this one request: too long, filtered, malformed.

    Attributes:
        too_long: whether the prompt was longer than the model's context window.
    """

    def __init__(self, message: str, *, too_long: bool = False, **known: object) -> None:
        super().__init__(message, **known)  # type: ignore[arg-type]
        self.too_long = too_long


class ModelRefused(ModelError):
    """The model declined to answer."""


class InvalidOutput(ModelError, ValueError):
    """The model's answer is not what the schema promises."""


class SandboxError(RunStopped):
    """The sandbox failed, and not the code in it."""


class SandboxUnavailable(SandboxError):
    """No sandbox as strong as was asked for can be had here; the message says why, and what the choices are."""


class JournalError(RunStopped):
    """The journal cannot be used; the message says why, and what the choices are."""


class BudgetExceeded(RunStopped):
    """The budget is used up, and ``errors="raise"`` was asked for.

    Attributes:
        usage: what was spent.
    """

    def __init__(self, message: str, usage: Usage) -> None:
        super().__init__(message)
        self.usage = usage


class NotConfirmed(RunStopped):
    """``Budget(confirm=...)`` said no to the estimate; nothing was mapped.

    Attributes:
        estimate: what it was asked about.
    """

    def __init__(self, message: str, estimate: Estimate) -> None:
        super().__init__(message)
        self.estimate = estimate


class MapFailed(RunStopped):
    """``errors="raise"`` met a failure."""


class AMRWarning(UserWarning):
    """The root of the library's warnings.

    Attributes:
        partial: the ``Result``, where a warning of a run is raised as an error.
    """

    partial: Result | None = None


class PlanWarning(AMRWarning):
    """A plan is not carried out as a whole: a part of a planner's was left out, or a group is read in parts."""


class FailureWarning(AMRWarning):
    """Some units failed; they are ``<NA>`` and listed in ``failures``."""


class JournalWarning(AMRWarning):
    """The journal is not what it was: damaged and set aside, gone, or not to be had here."""


class SettingWarning(AMRWarning):
    """A setting of an ``LM`` is left out, since the model refuses it."""


class CorpusWarning(AMRWarning):
    """Some files were left out; which and why stands in the frame's ``attrs["left_out"]``."""
