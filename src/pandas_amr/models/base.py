"""The port of the models: ``Model``, its requests and replies; and ``LM``, which names one."""

from __future__ import annotations

import enum
import hashlib
import inspect
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

import numpy as np

from pandas_amr._records.keywords import suggest_keyword
from pandas_amr._records.pickles import CopiedHere, pack, unpack
from pandas_amr._records.public import public
from pandas_amr._records.refused import is_whole, show_refused, takes_arguments
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._records.terminal import escape_unprintable
from pandas_amr._types.json_text import unsendable
from pandas_amr.errors import ModelConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pandas_amr._records.usage import Phase, Usage

Role = Literal["system", "user", "assistant", "tool"]
# Whether an agent whose only tool is the REPL writes code instead of tool calls:
# possible: it may;  declared: it does, by the model's abilities;
# found: it does, since the server turned out to make no tool calls.
CodeUse = Literal["possible", "declared", "found"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call of a model.

    Attributes:
        id: matches the call to its result; empty if the server gave none.
        arguments: JSON text as the model wrote it.
        extra: what else the server put into the call, to be sent back unchanged.
    """

    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        content: its text.
        extra: what else the server put into the message, to be sent back unchanged: reasoning,
            signatures, content that came as a list of parts.
    """

    role: Role
    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as it is described to a model; ``parameters`` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class ResponseSchema:
    """The JSON schema that the text of an answer must follow. All requests of a phase share one."""

    name: str
    schema: Mapping[str, Any]
    strict: bool = True

    @cached_property
    def text(self) -> str:
        """The schema as JSON."""
        return json.dumps(dict(self.schema))

    @cached_property
    def digest(self) -> str:
        """What tells the schema apart from others."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """One turn, as sent to a model.

    Attributes:
        code: if the agent's only tool is the REPL, whether it writes code instead of tool calls;
            None for all other requests.
    """

    messages: tuple[Message, ...]
    phase: Phase
    tools: tuple[ToolSpec, ...] = ()
    schema: ResponseSchema | None = None
    forced_tool: str | None = None
    json_object: bool = False
    code: CodeUse | None = None


class CallsNoTools(ModelConfigError):
    """The server makes no tool calls, but the agent that wanted one can write code instead."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of a server, as its headers report them.

    Attributes:
        requests: requests per second.
        requests_left: how many may be sent at once now.
        tokens: tokens per second.
        tokens_left: how many may be spent at once now.
    """

    requests: float | None = None
    requests_left: float | None = None
    tokens: float | None = None
    tokens_left: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one turn.

    Attributes:
        limits: the rate limits in the headers of the answer.
        form: the form of structured output: ``schema``, ``tool``, ``json_object`` or ``prompt``.
        model: the model's name, as the server gives it; empty if it gives none.
        id: the answer's id, likewise.
        call: the number of the call in the run; 0 if nobody listens.
    """

    message: Message
    finish_reason: str
    usage: Usage
    limits: RateLimits | None = None
    form: str = ""
    model: str = ""
    id: str = ""
    call: int = 0

    def with_tries(self, more: int) -> Reply:
        """Give the same reply, before which more requests were sent: refused ones."""
        if not more:
            return self
        return replace(self, usage=replace(self.usage, tries=self.usage.tries + more))


class Model(Protocol):
    """Anything that answers a request, bare or wrapped."""

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelError: the service did not answer.
        """
        ...


@public
@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model can do; a plan never asks for more.

    Attributes:
        tools: whether it can call tools. ``"code"``: it cannot, but it writes Python if its answer
            is to be code, so that agents with a REPL can work. A server that refuses tools, or
            never calls any, is treated so, too.
        planning: whether it can derive a plan from a task.
        units_per_request: how many units it can tell apart in one request; None is no limit.
        context_window: tokens of prompt and answer together.
    """

    tools: bool | Literal["code"] = True
    planning: bool = True
    units_per_request: int | None = None
    context_window: int = 128_000

    def __post_init__(self) -> None:
        if not isinstance(self.tools, bool) and self.tools != "code":
            raise UsageError(
                f'Abilities(tools=...) takes True, False or "code", not {show_refused(self.tools)}.'
                f"{did_you_mean(self.tools, ['code'])}"
            )


# Fields of LM that stay as they are. The values of all others become plain Python and JSON values.
OBJECT_FIELDS = frozenset({"api_key", "client", "token_counter", "abilities"})
CLIENTS = ("AsyncOpenAI", "OpenAI")  # others of the package derive from these
KNOWN_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "auto", "default")
KEY_PREFIXES = ("sk-", "gsk_", "xai-", "AIza")  # of OpenAI and Anthropic, Groq, xAI, Google
SHORTEST_KEY = 20
POSITIVE_FIELDS = ("timeout_s", "max_tries", "patience_s", "rpm", "tpm", "batch_poll_s")

# Paths of an API, which its clients add to the address; the second line has Ollama's own.
ENDPOINT = re.compile(
    r"(/chat/completions|(?<=/v\d)/(chat|completions|responses|embeddings|models|messages)|"
    r"/api/(chat|generate|tags))/*$",
    re.IGNORECASE,
)
# Parts of the paths of known APIs; others may hold a secret, and are not repeated.
KNOWN_PATH = re.compile(
    r"(/(v\d\w*|api|openai|inference|paas|compatible-mode|serving-endpoints))*/?"
)
HOST_WITHOUT_SCHEME = re.compile(
    r"(?://)?(?P<host>[\w.-]+)(?P<port>:\d{1,5})?(?P<path>(/[\w.-]+)*/?)"
)
LOCAL_HOST = re.compile(r"localhost$|[\d.]+$")
# What stands for a key where a client insists on one, or where an example was not filled in.
PLACEHOLDER = re.compile(
    r"none|null|empty|dummy|fake|no[-_ ]?key|not[-_ ]needed|changeme|your[-_ ].*|<.*>|\.\.\.|"
    r"sk-(\.\.\.|x+|your.*)|x+",
    re.IGNORECASE,
)
SECRET_HEADERS = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
SECRET_FIELDS = re.compile(
    r"api_?key|auth|secret|password|credential|(access|bearer|id|session)_?token$", re.IGNORECASE
)


def _to_plain(value: object) -> Any:
    """Convert numbers of numpy and pandas to those of Python, in lists, tuples and dicts, too."""
    if isinstance(value, Mapping):
        return {key: _to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_to_plain(inner) for inner in value]
    if isinstance(value, tuple):
        return tuple(_to_plain(inner) for inner in value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def _is_header_text(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


def check_address(address: object, name: str) -> None:
    """Check the address of a server. The error does not repeat it: it may hold a password.

    Args:
        address: the address; None stands for the default one.
        name: the argument or variable that holds it, for people.

    Raises:
        UsageError: it is not ``http(s)://host[:port][/path]``.
    """
    if address is None:
        return
    wanted = f"{name} takes a server's address, such as 'http://127.0.0.1:8000/v1'"
    if not isinstance(address, str):
        raise UsageError(f"{wanted}, not {type(address).__name__}.")
    try:
        parts = urlsplit(address)
        has_host = bool(parts.hostname)
        _ = parts.port
    except ValueError:
        raise UsageError(f"{wanted}; the host or the port of this one cannot be read.") from None
    if parts.scheme not in {"http", "https"} or not has_host or address != address.strip():
        raise UsageError(
            f"{wanted}; this one does not begin with http:// or https:// and a host."
            f"{_suggest_scheme(address)}"
        )
    if "@" in parts.netloc:
        raise UsageError(
            f"{wanted}, without user and password. "
            "A key goes into api_key=, everything else into extra_headers=."
        )
    if parts.query or parts.fragment:
        own_client = "client=openai.AsyncOpenAI(base_url=..., default_query=...)"
        raise UsageError(f"{wanted}, without ? and #. A query goes into LM({own_client}).")
    check_path(address, name)


def check_path(address: str, name: str) -> None:
    """Check that an address ends where the paths of an API begin.

    Raises:
        UsageError: it ends in one of these paths, which a client adds; the error says what is left
            without it.
    """
    match = ENDPOINT.search(address)
    if match is None:
        return
    base = address[: match.start()].rstrip("/")
    path = urlsplit(base).path
    if not path:
        base += "/v1"
    suggestion = f" Did you mean {base!r}?" if KNOWN_PATH.fullmatch(path) else ""
    raise UsageError(
        f"{name} takes a server's address, without {match[0].rstrip('/')!r}, which is added to it."
        f"{suggestion}"
    )


def _suggest_scheme(address: str) -> str:
    """Suggest an address with a scheme. What may be a key or a password is not repeated."""
    match = HOST_WITHOUT_SCHEME.fullmatch(address.strip())
    if match is None or not KNOWN_PATH.fullmatch(match["path"]):
        return ""
    is_local = LOCAL_HOST.match(match["host"]) is not None
    has_port_or_path = bool(match["port"] or match["path"])
    if not is_local and not (has_port_or_path and ("." in match["host"] or match["path"])):
        return ""
    scheme = "http" if is_local or match["port"] else "https"
    path = match["path"].rstrip("/") or "/v1"
    return f" Did you mean '{scheme}://{match['host']}{match['port'] or ''}{path}'?"


class KeyPlace(enum.Enum):
    """Where a key is that an ``LM`` does not hold itself.

    A key that was given in code does not enter a pickle. What is unpickled takes the key from the
    environment of its process.
    """

    ENVIRONMENT = "environment"


def _check_key(key: object) -> None:
    """Check a key. The error does not repeat it.

    Raises:
        UsageError: it is neither a text nor a function that can be called without arguments.
    """
    if key is None or isinstance(key, str | KeyPlace):
        return
    wanted = "LM(api_key=...) takes a key, or a function without arguments that gives one"
    if not callable(key):
        raise UsageError(f"{wanted}, not {type(key).__name__}.")
    if not takes_arguments(key, 0):
        raise UsageError(f"{wanted}; this one takes arguments.")


def _is_public(key: object) -> bool:
    """Tell whether what gives a key may enter a pickle: a placeholder, or a function by its name.

    Any other function may have the key in it, and cloudpickle takes those of scripts by value.
    """
    if key is None or isinstance(key, KeyPlace):
        return True
    if isinstance(key, str):
        return not key or PLACEHOLDER.fullmatch(key) is not None
    module = str(getattr(key, "__module__", None))
    name = str(getattr(key, "__qualname__", None))
    return module != "__main__" and getattr(sys.modules.get(module), name, None) is key


def is_client(given: object) -> bool:
    """Tell whether something is a client of the ``openai`` package, without importing that."""
    for kind in type(given).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "openai" and kind.__name__ in CLIENTS:
            return True
    return False


def refuse_key(model: str, where: str) -> None:
    """Refuse a key in the place of a model's name, which errors show and requests repeat.

    Raises:
        UsageError: it looks like one.
    """
    if model.startswith(KEY_PREFIXES) and len(model) >= SHORTEST_KEY:
        raise UsageError(
            f"{where} takes a model's name, and this looks like a key: "
            'amr.LM("model-name", api_key=...), or OPENAI_API_KEY in the environment.'
        )


def refuse_clients(lm: object) -> None:
    """Refuse to pickle what ``lm=`` takes if it is a client, or a dict of them.

    Raises:
        UsageError: there is one.
    """
    for each in lm.values() if isinstance(lm, Mapping) else [lm]:
        if is_client(each):
            raise _client_error("lm=client")


def _client_error(where: str) -> UsageError:
    return UsageError(
        f"{where} cannot be pickled: a client holds a key and connections. Name its server: "
        "LM(model, base_url=...), and set OPENAI_API_KEY where it is used."
    )


def _refuse_secrets(name: str, values: object, secret: re.Pattern[str]) -> None:
    """Refuse to pickle what may hold a key, at any depth.

    Raises:
        UsageError: it may.
    """
    if isinstance(values, list | tuple):
        for value in values:
            _refuse_secrets(name, value, secret)
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        if secret.search(str(key)) and isinstance(value, str) and value:
            raise UsageError(
                f"LM({name}=...) cannot be pickled: its {key!r} may hold a key. Give a key as "
                "LM(api_key=...), and set OPENAI_API_KEY where the copy is used; or give the LM "
                "there."
            )
        _refuse_secrets(name, value, secret)


def _check_counter(counter: object) -> None:
    if counter is None:
        return
    wanted = "LM(token_counter=...) takes a function that counts the tokens of a text"
    if not callable(counter):
        raise UsageError(f"{wanted}, not {type(counter).__name__}.")
    if inspect.iscoroutinefunction(counter):
        raise UsageError(f"{wanted}, not an async one.")


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, Real) and not math.isnan(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_positive(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, Real) or math.isnan(value) or value <= 0:
        raise UsageError(f"LM({name}=...) must be a number above 0, not {show_refused(value)}.")


@public
@dataclass(frozen=True, kw_only=True)
class LM(CopiedHere):
    """Which model answers, how it is reached, and how it is used.

    ``base_url`` and ``api_key`` default to ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``. The key is
    never shown, and enters no pickle: what is unpickled takes it from the environment there.

    Args:
        model: the model's name, as the server knows it.
        base_url: the server's OpenAI-compatible address, such as ``http://127.0.0.1:8000/v1``.
        api_key: the key, if the server wants one. Or a function without arguments, sync or async,
            that gives the current key; it is called for each request. What was learned about the
            server holds for all its keys.
        client: an ``openai.AsyncOpenAI`` or ``AsyncAzureOpenAI`` of your own, or a sync one,
            instead of address and key. Requests use its address, key, headers, query and
            ``http_client``, over connections of their own.
        temperature: sampling temperature; None leaves it to the server.
        seed: sampling seed, if the server takes one.
        reasoning_effort: for models that reason: ``"low"``, ``"medium"``, ``"high"``.
        max_output_tokens: most tokens of one answer.
        timeout_s: seconds that one request may take, from its connection to the last byte of its
            answer.
        max_tries: how often a request is sent at most if the service fails (5xx, time-outs,
            malformed bodies). If a service that has answered fails so at 50 requests in a row, the
            run ends.
        patience_s: seconds without any answer after which the run ends, if the server is gone, be
            it behind its gateway (502, 503), or says 429. It is also the longest wait that a
            server may ask for. Default: 300; but if a server has never answered in this process,
            the run ends within seconds, unless this is given.
        max_parallelism: most requests in flight to this model, whatever a run would like.
        rpm: requests per minute, if the limit is known; otherwise it is learned.
        tpm: tokens per minute, likewise.
        hedge: send a second request for the slowest few per cent, and take the first answer. Both
            are paid for.
        batch: send maps without tools through the provider's batch API: half the price, whenever
            it has time.
        batch_poll_s: seconds until the state of a batch is first checked. The checks then become
            less frequent, down to one per minute.
        prices: money for a million input tokens and a million output tokens; a third figure for
            cached input tokens.
        extra_headers: sent with each request.
        extra_body: added to each request's body.
        token_counter: counts the tokens of a text; default: ``tiktoken``.
        abilities: what the model can do.
        journaled: whether its answers are stored in the default journal; a scripted model's are
            not.
        journal_as: the model's name in the journal, instead of ``model`` and the server's address.
            Models of the same name share their answers, on whatever server. Without it, another
            server is asked anew.

    Example:
        >>> import pandas_amr as amr
        >>> amr.LM("gpt-5-mini", temperature=0)
        <LM gpt-5-mini>
    """

    model: str = field(kw_only=False)
    base_url: str | None = None
    api_key: str | Callable[[], str | Awaitable[str]] | KeyPlace | None = field(
        default=None, repr=False, hash=False
    )
    client: Any = field(default=None, repr=False, hash=False)
    temperature: float | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    max_output_tokens: int | None = None
    timeout_s: float = 120.0
    max_tries: int = 8
    patience_s: float | None = None
    max_parallelism: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    hedge: bool = False
    batch: bool = False
    batch_poll_s: float = 5.0
    prices: tuple[float, ...] | None = None
    extra_headers: Mapping[str, str] | None = field(default=None, repr=False, hash=False)
    extra_body: Mapping[str, Any] | None = field(default=None, hash=False)
    token_counter: Callable[[str], int] | None = None
    abilities: Abilities = field(default_factory=Abilities)
    journaled: bool = True
    journal_as: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name not in OBJECT_FIELDS:
                object.__setattr__(self, each.name, self._plain_value(each.name))
        self._check_names()
        self._check_extras()
        check_address(self.base_url, "LM(base_url=...)")
        self._check_numbers()
        self._check_sampling()
        self._check_switches()
        _check_key(self.api_key)
        _check_counter(self.token_counter)
        if not isinstance(self.abilities, Abilities):
            raise UsageError(
                f"LM(abilities=...) takes amr.Abilities(...), not {show_refused(self.abilities)}."
            )

    def _check_names(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError(f"LM(model=...) takes a model's name, not {show_refused(self.model)}.")
        refuse_key(self.model, "LM(model=...)")
        name = self.journal_as
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise UsageError(f"LM(journal_as=...) takes a name, not {show_refused(name)}.")

        for label in ("model", "journal_as"):
            problem = unsendable(getattr(self, label))
            if problem is not None:
                raise UsageError(f"LM({label}=...) {problem}.")

    def _plain_value(self, name: str) -> Any:
        try:
            return _to_plain(getattr(self, name))
        except RecursionError:
            raise UsageError(f"LM({name}=...) holds itself, or is nested too deeply.") from None

    def _check_extras(self) -> None:
        """Check that what is added to requests can be sent; no error repeats a value."""
        for name in ("extra_body", "extra_headers"):
            extra = getattr(self, name)
            if extra is not None and not isinstance(extra, dict):
                raise UsageError(f"LM({name}=...) takes a dict, not {type(extra).__name__}.")
        problem = unsendable(self.extra_body)
        if problem is not None:
            raise UsageError(f"LM(extra_body=...) {problem}.")
        for name, value in (self.extra_headers or {}).items():
            if not (_is_header_text(name) and _is_header_text(value)):
                raise UsageError(
                    "LM(extra_headers=...) takes a dict of texts of printable ASCII characters; "
                    f"this is not so for {name!r}."
                )

    def _check_numbers(self) -> None:
        for name in POSITIVE_FIELDS:
            _check_positive(name, getattr(self, name))
        self._check_prices()
        most = self.max_parallelism
        if most is not None and not is_whole(most, least=1):
            raise UsageError(
                f"LM(max_parallelism=...) takes a whole number from 1, not {show_refused(most)}."
            )

    def _check_prices(self) -> None:
        if self.prices is None:
            return
        prices = tuple(self.prices) if isinstance(self.prices, list | tuple) else ()
        are_amounts = all(_is_number(price) and 0 <= price < math.inf for price in prices)
        if len(prices) not in {2, 3} or not are_amounts:
            raise UsageError(
                "LM(prices=...) takes (input, output) or (input, output, cached), money for a "
                f"million tokens each, not {show_refused(self.prices)}."
            )
        object.__setattr__(self, "prices", prices)

    def _check_sampling(self) -> None:
        value = self.temperature
        if value is not None and not _is_number(value):
            raise UsageError(
                f"LM(temperature=...) takes a number, such as 0.2, not {show_refused(value)}."
            )
        if self.seed is not None and not _is_whole(self.seed):
            raise UsageError(f"LM(seed=...) takes a whole number, not {show_refused(self.seed)}.")
        most = self.max_output_tokens
        if most is not None and not is_whole(most, least=1):
            raise UsageError(
                f"LM(max_output_tokens=...) takes a whole number from 1, not {show_refused(most)}."
            )
        effort = self.reasoning_effort
        if effort is None:
            return
        wanted = (
            f"LM(reasoning_effort=...) takes 'low', 'medium' or 'high', not {show_refused(effort)}."
        )
        if not isinstance(effort, str):
            raise UsageError(wanted)
        if effort in KNOWN_EFFORTS:
            return
        suggestion = did_you_mean(effort, KNOWN_EFFORTS)
        if suggestion:  # what is like none of them may be a server's own
            raise UsageError(
                f"{wanted}{suggestion} If the server does take it: "
                f"extra_body={{'reasoning_effort': {effort!r}}}."
            )

    def _check_switches(self) -> None:
        for name in ("hedge", "batch", "journaled"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise UsageError(f"LM({name}=...) takes True or False, not {show_refused(value)}.")

    def replace(self, **changes: Any) -> LM:
        """Make a copy with some fields changed.

        Raises:
            UsageError: a name is not a field of ``LM``.
        """
        names = [each.name for each in fields(self)]
        for name in changes:
            if name not in names:
                hint = suggest_keyword(name, names, "It has")
                raise UsageError(f"LM has no {name}. {hint}")
        return replace(self, **changes)

    def __getstate__(self) -> dict[str, Any]:
        """Return what enters a pickle: all but the key.

        Raises:
            UsageError: another field may hold a key, or cannot be pickled.
        """
        if self.client is not None:
            raise _client_error("LM(client=...)")
        _refuse_secrets("extra_headers", self.extra_headers, SECRET_HEADERS)
        _refuse_secrets("extra_body", self.extra_body, SECRET_FIELDS)
        state = dict(self.__dict__)
        if not _is_public(self.api_key):
            state["api_key"] = KeyPlace.ENVIRONMENT
        state["token_counter"] = pack(self.token_counter, "LM(token_counter=...)")
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, token_counter=unpack(state["token_counter"]))

    def __repr__(self) -> str:
        place = f" at {self.base_url}" if self.base_url else ""
        return escape_unprintable(f"<LM {self.model}{place}>")
