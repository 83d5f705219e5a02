"""What goes wrong with a request, in this library's words and without the key."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx2
import openai

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.openai.error_bodies import ErrorBody, read_error_body
from pandas_amr.models.openai.headers import limits_of, retry_after_of
from pandas_amr.models.openai.too_long import is_too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pandas_amr.models.base import LM

RETRYABLE = frozenset({408, 409, 425, 429})
CONFIG = frozenset({401, 402, 403, 404})
NO_QUOTA = frozenset(
    {
        "insufficient_quota",
        "billing_not_active",
        "billing_hard_limit_reached",
        "access_terminated",
        "budget_exceeded",
    }
)
NO_QUOTA_STATUSES = frozenset({400, 412, 429})  # 412: Portkey
# Gateways put the code of the server behind them into a sentence.
NO_QUOTA_WORDS = re.compile(
    r"insufficient[ _](quota|balance|credits?|funds)|billing[ _](is )?not[ _]active|billing[ _]hard[ _]limit|"
    r"account is not active|check your billing|"
    r"budget (has been |is )?(exceeded|exhausted)|exceeded ?(token ?)?budget|over budget",
    re.IGNORECASE,
)
# OpenAI says this of an empty account; Gemini of a minute's limit, too, and then tells when to come back.
CHECK_BILLING = re.compile(
    r"check your plan and billing|usage limit\b.{0,40}\bexceeded|used up your\b.{0,40}\b(allocation|quota|credits?)",
    re.IGNORECASE,
)
PASSES = frozenset({"resource_exhausted"})
STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
STARVED_WORDS = re.compile(
    r"too many open files|no buffer space", re.IGNORECASE
)  # of several tries, joined
REASON_CHARACTERS = 300

# Of these statuses a server may mean this request alone, such as a row that its filter does not let pass.
OF_REQUEST = frozenset({400, 403, 404, 422})
# What servers say with 400 of a key or a model that they do not know: Gemini, xAI, Mistral, DeepSeek, OpenRouter,
# LiteLLM, Portkey, Kong, Cloudflare.
NOT_SERVED = re.compile(
    r"api[ _-]?key|invalid (authentication|credentials?|token)|no connected db|"
    r"deployment\b.{0,60}\bnot|deploymentnotfound|"
    r"\b(invalid|unknown|no such|unsupported|not a valid) model|\bno models? (is |are )?loaded|"
    r"\bmodel\b.{0,80}?\b(not (a )?(valid|found|exist|available|loaded)|(does ?n.t|does not) exist|"
    r"is (invalid|unknown|retired)|decommissioned)|model_not_found|unknown_model|invalid_model|"
    r"authentication error|no auth credentials|virtual key|invalid (provider|config)|configure ai gateway|"
    r"could not route to|x-portkey-\w+|missing required query parameter|subscription key",
    re.IGNORECASE,
)
# What else names what is configured is taken for it, unless it speaks of what this request says, or how it says it.
OF_CONFIGURATION = re.compile(
    r"\b(models?|(api[ _-]?|virtual )?keys?|deployments?|auth(entication|orization)?|credentials?|provider|"
    r"api version)\b",
    re.IGNORECASE,
)
OF_CONTENT = re.compile(
    r"prompt|content|\binputs?\b|\bmessages?\b|image|audio|video|\bfiles?\b|flagged|filter|polic(y|ies)|safety|moderat|"
    r"harm|guardrail|refus|produced|generat|output|json|\bbody\b|\bstring|\bobject|duplicate|\bpars(e|ing)|context|length|"
    r"too (long|large|many)|tokens\b|provider returned error|\bkey (must|in|is required)\b",
    re.IGNORECASE,
)
# What they say of a parameter names the model, too, and is about the form of the request.
ABOUT_PARAMETER = re.compile(
    r"response_format|json_schema|schema|\btools?\b|tool_choice|(?<!model )(?<!query )parameter|argument|temperature|"
    r"max_(completion_)?tokens",
    re.IGNORECASE,
)
OF_FORM = re.compile(
    r"structured|function|grammar|\bseed\b|stream|logprobs|top_p|reasoning|\bfield|propert(y|ies)|unrecogni[sz]ed|"
    r"\bextra\b|n[o']t support\b|\bsupport(s|ed)?\b.{0,20}\b(by|with|for|in|on) (this|the|that|your)\b.{0,20}\bmodel",
    re.IGNORECASE,
)
# LiteLLM ends whatever it says so.
LITELLM_END = re.compile(r"\breceived model group=.*", re.IGNORECASE | re.DOTALL)
# A gateway that has nobody behind it just now says 404, too.
NO_UPSTREAM = re.compile(
    r"no healthy (upstream|deployments?)|upstream connect|no available (server|worker|instance)|"
    r"no deployments? available|"
    r"\brate[ _-]?limit(ed\b|s?\b.{0,20}\b(exceeded|reached))|too many requests",  # with 400: Cloudflare
    re.IGNORECASE,
)

# What HTTP libraries raise of an answer that is none, where the client lets it pass: bad status lines, headers, chunks,
# lengths, encodings.
BROKEN_ANSWERS = (
    httpx2.HTTPError,
    aiohttp.ClientError,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
)


@dataclass(frozen=True)
class Failures:
    """The failures of one model's requests.

    Attributes:
        host: the server's name, for people.
        secrets: gives what no text may show now; keys may rotate.
        port: the server's port; None is the usual one.
    """

    lm: LM
    host: str
    secrets: Callable[[], Sequence[str]] = field(repr=False)
    port: int | None = None

    def translated(self, error: openai.OpenAIError) -> ModelError:
        """The same failure in this library's words, without the key."""
        links = list(_chain(error))
        if isinstance(error, openai.APIStatusError):
            body = read_error_body(error.body)
            if not body.message:
                body = read_error_body(error.response.reason_phrase or "no reason given")
            return self.status_error(
                error.status_code, body, error.response.headers, error.request_id
            )
        if _is_starved(links):
            return ModelUnavailable(
                "This process has too few file descriptors (ulimit -n).", starved=True
            )
        if _is_gone(links):
            said = f"No connection to {self._address} ({_reason(links)}). {self._way_there(links)}"
            return ModelUnavailable(said, gone=True)
        # The aiohttp transport calls a lost connection a time-out too; the cause beneath tells them apart.
        if isinstance(error, openai.APITimeoutError) and any(
            isinstance(link, TimeoutError) for link in links
        ):
            return self.timed_out()
        if isinstance(error, openai.APIConnectionError):
            return ModelUnavailable(
                f"No connection to {self._address} ({type(links[-1]).__name__})."
            )
        return ModelUnavailable(f"The server's answer could not be read ({type(error).__name__}).")

    def timed_out(self, timeout_s: float | None = None) -> ModelUnavailable:
        """No whole answer came in time; default: that of a request."""
        timeout_s = self.lm.timeout_s if timeout_s is None else timeout_s
        return ModelUnavailable(f"No answer within {timeout_s:g} s (LM(timeout_s=...)).")

    def unreadable(self, error: Exception) -> ModelUnavailable:
        """An answer that no HTTP library can read: the connection is broken, and the next one may not be."""
        if isinstance(error, TimeoutError):
            return self.timed_out()
        return ModelUnavailable(f"The server's answer could not be read ({type(error).__name__}).")

    def status_error(
        self,
        status: int,
        body: ErrorBody,
        headers: Mapping[str, str],
        request_id: str | None = None,
    ) -> ModelError:
        """What an HTTP status that is no 200 means."""
        known: dict[str, Any] = {"status": status, "request_id": request_id}
        said = f"The server answered {status}: {self.scrubbed(body.message or 'no reason given')}"
        if _has_no_quota(body, status, headers):
            return ModelConfigError(f"{said} Check the account's quota and billing.", **known)
        if is_too_long(status, body):
            return ModelRejected(said, too_long=True, **known)
        if _names_configuration(status, body):
            failure = ModelConfigError(f"{said} {self._way_out(status, body.message)}", **known)
            failure.of_request = ModelRejected(said, **known) if status in OF_REQUEST else None
            return failure
        if status in RETRYABLE or not 400 <= status < 500 or NO_UPSTREAM.search(body.message):
            wait_s = retry_after_of(headers)
            known |= {
                "retry_after_s": body.retry_after_s if wait_s is None else wait_s,
                "limits": limits_of(headers),
            }
            return ModelUnavailable(said, busy=status == 429, **known)
        return ModelRejected(said, **known)

    def _way_out(self, status: int, message: str) -> str:
        """Which setting to look at."""
        named = re.search(
            r"model|key|auth|credential", message, re.IGNORECASE
        )  # what is said first is what it is of
        is_of_model = status in {400, 422} and named is not None and named[0].lower() == "model"
        if status == 404 or is_of_model:
            return f"Check the model's name (LM({self.lm.model!r}), AMR_MODEL) and the address (OPENAI_BASE_URL)."
        if status == 402:
            return "Check the account's quota and billing."
        return "Check the key (LM(api_key=...), OPENAI_API_KEY) and what it may use."

    @property
    def _address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def _way_there(self, links: Sequence[BaseException]) -> str:
        """Which setting holds the address."""
        if any(isinstance(link, ssl.SSLError | ssl.CertificateError) for link in links):
            return "Check the address (http or https) and the certificates (SSL_CERT_FILE, SSL_CERT_DIR)."
        if self.lm.client is not None:
            setting = "LM(client=...)"
        elif self.lm.base_url is not None:
            setting = "LM(base_url=...)"
        elif os.environ.get("OPENAI_BASE_URL"):
            setting = "OPENAI_BASE_URL"
        else:
            setting = "LM(base_url=...) or OPENAI_BASE_URL, none of which is set"
        return f"Check the address, {setting}, and the network."

    def scrubbed(self, text: str) -> str:
        """A server's text, bounded and without the key."""
        for secret in sorted(self.secrets(), key=len, reverse=True):  # one may be a part of another
            text = text.replace(secret, "[key]")
        text = re.sub(r"\b(sk|key|Bearer)[-_ ][\w*.-]{6,}", "[key]", text)
        return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS] + " ..."


def _names_configuration(status: int, body: ErrorBody) -> bool:
    """Whether a refusal is of the key, the model or the address, and not of what a request says."""
    message = LITELLM_END.sub("", body.message)
    if NO_UPSTREAM.search(message):
        return False
    if status in CONFIG:
        return True
    said = f"{body.param} {message}"
    if (
        status not in OF_REQUEST
        or ABOUT_PARAMETER.search(said)
        or body.param.startswith("messages")
    ):
        return False  # codes do not tell: INVALID_ARGUMENT is all that Gemini has
    if NOT_SERVED.search(" ".join((*sorted(body.codes), message))):
        return True
    return (
        bool(OF_CONFIGURATION.search(said))
        and not OF_CONTENT.search(said)
        and not OF_FORM.search(said)
    )


def _has_no_quota(body: ErrorBody, status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether nothing will be served until somebody pays: whatever the status, wherever the code stands."""
    if body.codes & NO_QUOTA or (
        status in NO_QUOTA_STATUSES and NO_QUOTA_WORDS.search(body.message)
    ):
        return True
    waits = (
        body.retry_after_s is not None
        or retry_after_of(headers) is not None
        or bool(body.codes & PASSES)
    )
    return (
        status in NO_QUOTA_STATUSES and not waits and CHECK_BILLING.search(body.message) is not None
    )


def _is_starved(links: Sequence[BaseException]) -> bool:
    """Tell whether this process could open no more connections."""
    for link in links:
        if isinstance(link, OSError) and (link.errno in STARVED or STARVED_WORDS.search(str(link))):
            return True
    return False


def _is_gone(links: Sequence[BaseException]) -> bool:
    """Tell whether no connection was made: refused, no route, no such name, no certificate, nobody there in time.

    aiohttp's transport calls each of its connection errors a connect time-out; aiohttp's own error tells which it was.
    """
    by_aiohttp = [link for link in links if isinstance(link, aiohttp.ClientError)]
    if by_aiohttp:
        made = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
        return any(isinstance(link, made) for link in by_aiohttp)
    return any(
        isinstance(link, httpx2.ConnectError | httpx2.ConnectTimeout | socket.gaierror)
        for link in links
    )


def _reason(links: Sequence[BaseException]) -> str:
    """Why there is no connection."""
    for link in reversed(links):
        if isinstance(link, ssl.SSLError):
            return link.reason or type(link).__name__
        if isinstance(link, socket.gaierror):
            return f"the name is not known: {link.strerror}"
        if isinstance(link, OSError) and link.errno is not None:
            return os.strerror(link.errno)
    if any(isinstance(link, TimeoutError | httpx2.TimeoutException) for link in links):
        return "nobody answers there"
    return type(links[-1]).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
