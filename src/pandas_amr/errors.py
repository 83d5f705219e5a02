"""Every error and warning of the library, as one tree.

::

    AMRError
    ├─ UsageError(ValueError)           a wrong argument, before any request; says what is right
    │  ├─ ArgumentError(TypeError)     a keyword that a function does not take
    │  └─ ColumnError(KeyError)         a column is missing, doubled or collides with a finding
    └─ RunStopped                       a run ended early; carries the partial Result. This class
       │                                itself: the cause is an exception of other code
       ├─ PlanError(ValueError)         the plan cannot be used, or none was derived
       ├─ ModelError                    the model service failed; never holds keys or cell text
       │  ├─ ModelUnavailable           429, time-out, 5xx, connection; raised after retries
       │  ├─ ModelConfigError           401, 402, no quota; 403, 404 before any answer
       │  ├─ ModelRejected              400, 403: this request only (too long, filtered)
       │  ├─ ModelRefused               the model declined to answer
       │  ├─ ModelOffline               the journal has no answer, and offline nothing is asked
       │  └─ InvalidOutput(ValueError)  the answer does not match the schema
       ├─ SandboxError                  the sandbox failed, and not the code in it
       │  └─ SandboxUnavailable         no sandbox can be used here; says why
       ├─ JournalError                  the journal cannot be read or written
       ├─ BudgetExceeded                the budget is spent; carries the usage
       ├─ NotConfirmed                  the estimate was not confirmed; carries the estimate
       └─ MapFailed                     a unit failed, with errors="raise"; or nothing succeeded

    AMRWarning(UserWarning)
    ├─ PlanWarning                      part of a plan is not carried out
    ├─ FailureWarning                   some units failed and are listed
    ├─ JournalWarning                   the journal is damaged, missing or unavailable
    ├─ SettingWarning                   a setting is left out: the model rejects it
    ├─ EventWarning                     a listener of events is not called any more
    └─ CorpusWarning                    some files were left out
"""

from __future__ import annotations

from typing import Any, TypeAlias

# Modules that define these classes import this one: here the classes are names only.
Estimate: TypeAlias = Any
Limits: TypeAlias = Any
Result: TypeAlias = Any
Usage: TypeAlias = Any

__all__ = [
    "AMRError",
    "AMRWarning",
    "ArgumentError",
    "BudgetExceeded",
    "ColumnError",
    "CorpusWarning",
    "EventWarning",
    "FailureWarning",
    "InvalidOutput",
    "JournalError",
    "JournalWarning",
    "MapFailed",
    "ModelConfigError",
    "ModelError",
    "ModelOffline",
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


def _reduce_without_partial(error: Exception) -> tuple[Any, ...]:
    """Take an error apart for a copy of it. Its ``__init__`` need not run again."""
    state = dict(error.__dict__)
    if "partial" in state:
        state["partial"] = None
    return type(error).__new__, (type(error), *error.args), state


class AMRError(Exception):
    """The root: ``except AMRError`` catches everything the library raises.

    A copy of an error, for another process for example, has no ``partial``: a result may be large,
    and may hold what cannot be pickled. Tracebacks show the user's lines; with ``AMR_DEBUG=1`` in
    the environment, the library's too.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce_without_partial(self)


class UsageError(AMRError, ValueError):
    """An argument cannot be used; the message says what would be right."""


class ArgumentError(UsageError, TypeError):
    """A function was given a keyword that it does not take; the message names the closest one."""


class ColumnError(UsageError, KeyError):
    """A column is missing, doubled, or has the name of a finding's column."""

    __str__ = Exception.__str__  # KeyError's own shows the message in quotes


class RunStopped(AMRError):
    """A run ended early.

    This class itself stands for an exception of other code, such as a user's reducer, or for
    arguments that turned out wrong after requests were sent; its ``__cause__`` is the original.

    Attributes:
        partial: the ``Result`` with all findings so far; None before a run, and in a copy.
    """

    def __init__(self, message: str, *, partial: Result | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class PlanError(RunStopped, ValueError):
    """The plan cannot be used, or none was derived: the message shows the call to make."""


class ModelError(RunStopped):
    """The model service failed.

    Attributes:
        status: the HTTP status, if there was an answer.
        request_id: the service's id of the request, for its support.
        attempts: how often the request was sent.
        usage: the usage of answers that could not be used; None if nothing was paid for.
    """

    fatal = False  # whether later requests would fail the same way
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
    """The service is busy, slow or unreachable: it may answer the same request later.

    Attributes:
        retry_after_s: how many seconds the service asked to wait, if it did.
        busy: whether the service answered 429, or that it has too much to do.
        gone: whether no service was reached.
        hung_up: whether there was a connection, and what is there has never answered.
        starved: whether this process could open no more connections.
        loading: whether the service is loading its model.
        unserved: whether a gateway says that the service behind it is not there.
        answers_others: whether it answered other requests while this one was sent in vain.
        said: what went wrong, without what it means for the run.
        limits: the limits in its headers.
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
        status: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id, attempts=attempts)
        self.said = message
        self.retry_after_s = retry_after_s
        self.busy = busy
        self.gone = gone
        self.starved = starved
        self.hung_up = False
        self.loading = False
        self.unserved = False
        self.answers_others = False
        self.limits = limits


class ModelConfigError(ModelError):
    """The service rejects this key, model or address for every request.

    Attributes:
        request_error: the same failure as an error of this request only, if the service may mean
            that. It does if it has answered other requests.
        certain: whether it does not mean that if it has answered no other request yet.
        unknown_path: whether the service knows no such path, and says nothing else.
    """

    fatal = True
    certain = False
    unknown_path = False
    request_error: ModelRejected | None = None


class ModelRejected(ModelError):
    """The service rejects this one request: too long, filtered, malformed.

    Attributes:
        too_long: whether the prompt is longer than the model's context window.
    """

    def __init__(
        self,
        message: str,
        *,
        too_long: bool = False,
        status: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id, attempts=attempts)
        self.too_long = too_long


class ModelRefused(ModelError):
    """The model declined to answer."""


class ModelOffline(ModelError):
    """A model would be asked, and the setting ``offline`` lets the journal alone answer.

    Attributes:
        rows: how many rows would be asked; None if it is a plan, a reduction or the like.
    """

    fatal = True

    def __init__(self, message: str, *, rows: int | None = None) -> None:
        super().__init__(message, attempts=0)
        self.rows = rows


class InvalidOutput(ModelError, ValueError):
    """The model's answer does not match the schema."""


class SandboxError(RunStopped):
    """The sandbox failed, and not the code in it."""


class SandboxUnavailable(SandboxError):
    """No sandbox of the wanted strength can be used here; the message says why, and what can."""


class JournalError(RunStopped):
    """The journal cannot be used; the message says why, and what to do."""


class BudgetExceeded(RunStopped):
    """The budget is spent, with ``errors="raise"``.

    Attributes:
        usage: what was spent.
    """

    def __init__(self, message: str, usage: Usage) -> None:
        super().__init__(message)
        self.usage = usage


class NotConfirmed(RunStopped):
    """``Budget(confirm=...)`` did not confirm the estimate; nothing was mapped.

    Attributes:
        estimate: the estimate that was not confirmed.
    """

    def __init__(self, message: str, estimate: Estimate) -> None:
        super().__init__(message)
        self.estimate = estimate


class MapFailed(RunStopped):
    """A unit failed, or units failed for one reason and none succeeded; with ``errors="raise"``."""


class AMRWarning(UserWarning):
    """The root of the library's warnings.

    Attributes:
        partial: the ``Result``, if a warning of a run is raised as an error.
        logged: what a log shows in its place, if its text may quote a cell.
    """

    partial: Result | None = None
    logged: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce_without_partial(self)


class PlanWarning(AMRWarning):
    """Part of a plan is not carried out: a planner's field is left out, a group is split."""


class FailureWarning(AMRWarning):
    """Some units failed: they are ``<NA>``, and ``failures`` lists them."""


class JournalWarning(AMRWarning):
    """The journal is damaged and was set aside, or is missing or unavailable."""


class SettingWarning(AMRWarning):
    """A setting of an ``LM`` is left out: the model rejects it."""


class EventWarning(AMRWarning):
    """Who listens to a run's events raised, or did not keep up, and is not called any more."""


class CorpusWarning(AMRWarning):
    """Some files were left out; the frame's ``attrs["left_out"]`` lists them with the reasons."""


# Tracebacks and pickles name the public module: pandas_amr.UsageError.
for _name in __all__:
    globals()[_name].__module__ = "pandas_amr"
