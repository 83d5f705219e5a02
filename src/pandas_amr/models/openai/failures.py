"""Translate what goes wrong with a request into errors of this library, without the key."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx2
import openai

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.answered_servers import has_answered
from pandas_amr.models.openai.advice import (
    address_setting,
    address_with_version,
    check_address_advice,
    host_and_port,
    key_setting,
    proxy_advice,
    redirect_target,
    with_scheme,
)
from pandas_amr.models.openai.connections import LARGEST_BODY, BodyTooLarge
from pandas_amr.models.openai.error_bodies import ErrorBody, read_error_body
from pandas_amr.models.openai.headers import limits_of, reset_of, retry_after_of
from pandas_amr.models.openai.scrub import remove_secrets
from pandas_amr.models.openai.settings import OF_THE_SERVER, refuses_form
from pandas_amr.models.openai.too_long import PARTS, is_too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pandas_amr.models.base import LM

# 421: another connection may do; 424: Text Generation Inference, if its engine failed; 499: Gemini,
# if it cancelled the request.
RETRYABLE = frozenset({408, 409, 421, 424, 425, 429, 499})
CONFIG = frozenset({401, 402, 403, 404, 407, 410, 498})
PROXY_WANTS_LOGIN = 407
NO_QUOTA = frozenset({
    "insufficient_quota",
    "billing_not_active",
    "billing_hard_limit_reached",
    "access_terminated",
    "budget_exceeded",
    "account_deactivated",
    "exceeded_current_quota_error",  # Moonshot, of a suspended account too
})  # fmt: skip
# 400: Anthropic, Groq, LiteLLM; 403: OpenRouter, Moonshot; 412: Portkey
NO_QUOTA_STATUSES = frozenset({400, 403, 412, 429})
# Gateways put the code of the server behind them into a sentence.
NO_QUOTA_WORDS = re.compile(
    r"insufficient[ _](quota|balance|credits?|funds)|billing[ _](is )?not[ _]active|"
    r"billing[ _]hard[ _]limit|account is not active|check your billing|"
    r"budget (has been |is )?(exceeded|exhausted)|exceeded ?(token ?)?budget|over budget|"
    # continuedev/continue issue 5499; gptme/gptme issue 1449; songquanpeng/one-api issue 271
    r"credit balance is too low|\bkey limit exceeded|"
    r"\b(account|organization)\b.{0,60}\b(suspended|deactivated|restricted)\b",
    re.IGNORECASE,
)
# OpenAI says this if an account is empty. Gemini says it for a limit per minute, too, but then also
# when to come back.
CHECK_BILLING = re.compile(
    r"check your plan and billing|usage limit\b.{0,40}\bexceeded|"
    r"used up your\b.{0,40}\b(allocation|quota|credits?)",
    re.IGNORECASE,
)
TEMPORARY = frozenset({"resource_exhausted"})
STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The texts of several connection attempts may be joined in one error without a number.
STARVED_WORDS = re.compile(r"too many open files|no buffer space", re.IGNORECASE)
REASON_CHARACTERS = 300

# With these statuses a server may refuse only this request, such as a row that a filter blocks.
OF_REQUEST = frozenset({400, 403, 404, 410, 422})
# What servers say with 400 if they do not know a key or a model: Gemini, xAI, Mistral, DeepSeek,
# OpenRouter, LiteLLM, Portkey, Kong, Cloudflare.
NOT_SERVED = re.compile(
    r"api[ _-]?key|invalid (authentication|credentials?|token)|no connected db|"
    r"deployment\b.{0,60}\bnot|deploymentnotfound|"
    r"\b(invalid|unknown|no such|unsupported|not a valid) model|\bno models? (is |are )?loaded|"
    r"\bmodel\b.{0,80}?\b(not (a )?(valid|found|exist|available|loaded)|"
    r"(does ?n.t|does not) exist|"
    r"is (invalid|unknown|retired)|decommissioned)|model_not_found|unknown_model|invalid_model|"
    r"authentication[ _]error|no auth credentials|virtual key|invalid (provider|config)|"
    r"configure ai gateway|could not route to|x-portkey-\w+|missing required query parameter|"
    r"subscription key",
    re.IGNORECASE,
)
# A refusal that names what is configured is about that, unless it is about what a request says, or
# about the form in which it says it.
OF_CONFIGURATION = re.compile(
    r"\b(models?|(api[ _-]?|virtual )?keys?|deployments?|auth(entication|orization)?|credentials?|"
    r"provider|api version)\b",
    re.IGNORECASE,
)
OF_CONTENT = re.compile(
    r"prompt|content|\binputs?\b|\bmessages?\b|image|audio|video|\bfiles?\b|flagged|filter|"
    r"polic(y|ies)|safety|moderat|harm|guardrail|refus|produced|generat|output|json|\bbody\b|"
    r"\bstring|\bobject|duplicate|\bpars(e|ing)|context|length|too (long|large|many)|tokens\b|"
    r"provider returned error|\bkey (must|in|is required)\b",
    re.IGNORECASE,
)
# A refusal of a parameter may name the model, too, but it is about the form of the request.
ABOUT_PARAMETER = re.compile(
    r"response_format|json_schema|schema|\btools?\b|tool_choice|(?<!model )(?<!query )parameter|"
    r"argument|temperature|max_(completion_)?tokens",
    re.IGNORECASE,
)
OF_FORM = re.compile(
    r"structured|function|grammar|\bseed\b|stream|logprobs|top_p|reasoning|\bfield|propert(y|ies)|"
    r"unrecogni[sz]ed|\bextra\b|n[o']t support\b|"
    r"\bsupport(s|ed)?\b.{0,20}\b(by|with|for|in|on) (this|the|that|your)\b.{0,20}\bmodel",
    re.IGNORECASE,
)
# LiteLLM ends each message with the model's name.
LITELLM_END = re.compile(r"\breceived model group=.*", re.IGNORECASE | re.DOTALL)
# A gateway without a server behind it says 404, too; that passes.
NO_SERVER = r"no healthy upstream|upstream connect|no available (server|worker|instance)|"
NO_UPSTREAM = re.compile(
    NO_SERVER + r"no healthy deployments?|no deployments? available|"
    r"\brate[ _-]?limit(ed\b|s?\b.{0,20}\b(exceeded|reached))|too many requests|"  # Cloudflare: 400
    r"\b(model|server|service|engine)\b.{0,30}\boverloaded\b",
    re.IGNORECASE,
)
# A server that speaks TLS says so with 400: nginx, Go, Apache.
WANTS_TLS = re.compile(r"\bHTTP request\b.{0,30}\bHTTPS|plain HTTP to an SSL", re.IGNORECASE)
# What a server says that does not know a path, and names no model: Go, FastAPI, Express, aiohttp,
# llama.cpp, LM Studio, OpenAI, Azure, Kong.
NO_PATH = re.compile(
    r"\s*(40[45][:\s]*)?((page |file |resource |path |endpoint |route )?not found|"
    r"(method )?not allowed|no reason given|cannot post\b.*|unexpected endpoint.*|invalid url.*|"
    r"no route matched.*|the requested url\b.*|no such (path|route|endpoint).*)[\s.!]*",
    re.IGNORECASE | re.DOTALL,
)
# What is said of a key without a right, and not of a row that is filtered.
NO_RIGHT = re.compile(
    r"\b(permissions?|scopes?)\b|have access|access to (this|the|that) (model|api|project)|"
    r"not (authorized|allowed|permitted|entitled) to (use|access|call|sample|invoke)|"
    r"\bkey\b.{0,40}\b(expired|disabled|revoked|blocked|restricted)|"
    r"(organization|project|country|region)\b.{0,40}\b(not supported|disabled|suspended)",
    re.IGNORECASE,
)
# A row that is flagged may be the only one that is asked: no other answer would tell.
FLAGGED = re.compile(
    r"\bflagged\b|\bmoderat(ed|ion)\b|\bcontent[ _-]?(polic(y|ies)|filter|management|safety)|"
    r"\bsafety[ _-]?(system|polic(y|ies)|filter)",
    re.IGNORECASE,
)
NO_POST = re.compile(r"unsupported method", re.IGNORECASE)  # 501: http.server of Python
# A server that is about to serve: llama.cpp, Hugging Face, Ollama.
LOADING = re.compile(
    r"\bloading\b|\bwarming up|\bstarting up|\binitiali[sz]ing|not (yet )?(ready|loaded)\b",
    re.IGNORECASE,
)
LOADING_WAIT_S = 2.0  # until a model that is being loaded is asked again, if the server names none
# One that has too much to do: Anthropic (529), Gemini, OpenAI, Ollama.
OVERLOADED = re.compile(
    r"\boverload|over capacity|server (is )?busy|capacity\b.{0,20}\bexceeded|slow_?down",
    re.IGNORECASE,
)
OVERLOADED_STATUS = 529
# What gateways say while the server behind them is not there: nginx, Envoy, Traefik, Cloudflare.
GATEWAY_STATUSES = frozenset({502, 503})
ORIGIN_IS_DOWN = frozenset({521, 522, 523, 530})  # Cloudflare
NOBODY_BEHIND = re.compile(
    NO_SERVER + r"bad gateway|service (is )?(temporarily )?unavailable|error code: 50[23]",
    re.IGNORECASE,
)
# Of errors without a status, by code or by words.
RATE_LIMITED = re.compile(
    r"\brate[ _-]?limit(ed\b|[ _-]?(error|exceeded|reached)|s?\b.{0,40}\b(exceeded|reached|hit)\b)|"
    r"\b(exceed|reach|hit)\w*\b.{0,60}\brate[ _-]?limit|too[ _]?many[ _]?requests|"
    r"\bthrottl(ed|ing)\b|\b(requests|tokens) per (minute|second|day)",
    re.IGNORECASE,
)
REFUSED_CODES = frozenset({"invalid_request_error", "badrequesterror", "invalid_argument"})
FAILED_CODES = frozenset({
    "server_error", "internal_error", "internal_server_error", "internal", "api_error", "timeout",
    "unavailable", "service_unavailable", "service_unavailable_error", "apiconnectionerror",
})  # fmt: skip
FILTERED = re.compile(
    FLAGGED.pattern
    + r"|content_(filter|policy)|new_sensitive|\bsensitive (content|information|words?)|"
    r"\binappropriate (content|input|prompt)|(content|input|prompt)\b.{0,40}\binappropriate",
    re.IGNORECASE,
)
# What is not there now, and may be soon.
NOT_NOW = re.compile(
    OF_THE_SERVER.pattern + r"|\b(currently|at the moment|later|yet|waiting|(re)?starting|down)\b|"
    r"\bunavailable\b|\bloading\b|fail(ed|ure) to load",
    re.IGNORECASE,
)
# Servers refuse a form that they do not know with these, too: llama.cpp, Ollama, LiteLLM.
FORM_REFUSED = frozenset({500, 501, 502})

# What HTTP libraries raise if an answer is not valid HTTP, and the client does not catch: for bad
# status lines, headers, chunks, lengths, encodings.
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
AIOHTTP_CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
HTTPX_CONNECT_ERRORS = (httpx2.ConnectError, httpx2.ConnectTimeout, socket.gaierror)


@dataclass(frozen=True)
class Failures:
    """Translates the failures of one model's requests.

    Attributes:
        lm: the model and its settings.
        host: the server's name, for people.
        secrets: gives what no text may show now; keys may change.
        url: the server's address; empty if only the texts of the server count.
    """

    lm: LM
    host: str
    secrets: Callable[[], Sequence[str]] = field(repr=False)
    url: str = ""

    def translate(self, error: openai.OpenAIError) -> ModelError:
        """Translate an error of the ``openai`` client."""
        if isinstance(error, openai.APIStatusError):
            body = read_error_body(error.body)
            if not body.message:
                reason = error.response.reason_phrase or "no reason given"
                body = replace(read_error_body(reason), is_page=body.is_page)
            headers = error.response.headers
            return self.status_error(error.status_code, body, headers, error.request_id)
        links = list(_chain(error))
        if _is_starved(links):
            return ModelUnavailable(
                "This process has too few file descriptors (ulimit -n).", starved=True
            )
        if _is_gone(links):
            return self._no_connection(links)
        # The aiohttp transport reports a lost connection as a time-out, too; its cause is not one.
        is_timeout = any(isinstance(link, TimeoutError) for link in links)
        if isinstance(error, openai.APITimeoutError) and is_timeout:
            return self.timed_out()
        if isinstance(error, openai.APIConnectionError):
            return self._lost_connection(type(links[-1]).__name__)
        return self.unreadable(error)

    def _no_connection(self, links: Sequence[BaseException]) -> ModelError:
        """Make the error of a connection that was not made; without TLS no wait would help."""
        reason = _reason(links)
        message = f"No connection to {self._address} ({reason})."
        is_tls = any(isinstance(link, ssl.SSLError | ssl.CertificateError) for link in links)
        if not is_tls or has_answered(self.url):
            return ModelUnavailable(f"{message} {self._network_advice}", gone=True)
        setting = check_address_advice(self.lm)
        if "CERTIFICATE" in reason:
            return ModelConfigError(
                f"{message} {setting}, and the certificates (SSL_CERT_FILE, SSL_CERT_DIR)."
            )
        return ModelConfigError(
            f"{message} It seems to speak no TLS. {setting}: did you mean "
            f"{with_scheme(self.url, 'http')!r}?"
        )

    def _lost_connection(self, name: str) -> ModelUnavailable:
        """Make the error of a connection that ended before an answer came."""
        if has_answered(self.url):
            return ModelUnavailable(f"No connection to {self._address} ({name}).")
        return self._no_http(name)

    def _no_http(self, name: str) -> ModelUnavailable:
        """Make the error of a port that never answered as an HTTP server does."""
        other = "http" if self.url.startswith("https:") else "https"
        failure = ModelUnavailable(
            f"No connection to {self._address} got an HTTP answer ({name}). "
            f"{check_address_advice(self.lm)}: its port, and whether it is "
            f"{with_scheme(self.url, other)!r}.{proxy_advice(self.url)}",
            gone=True,
        )
        failure.hung_up = True
        return failure

    def timed_out(self, timeout_s: float | None = None) -> ModelUnavailable:
        """Make the error of an answer that did not come in time; default: that of a request."""
        if timeout_s is None:
            timeout_s = self.lm.timeout_s
        return ModelUnavailable(f"No answer within {timeout_s:g} s (LM(timeout_s=...)).")

    def unreadable(self, error: Exception) -> ModelUnavailable:
        """Make the error of an answer that no HTTP library can read; it may be sent again."""
        if isinstance(error, TimeoutError):
            return self.timed_out()
        if isinstance(error, BodyTooLarge):
            return ModelUnavailable(
                f"The server's answer is larger than {LARGEST_BODY >> 20} MB and is not read."
            )
        name = type(error).__name__
        if not has_answered(self.url):
            return self._no_http(name)
        return ModelUnavailable(f"The server's answer could not be read ({name}).")

    def web_page(self, text: str) -> ModelConfigError:
        """Make the error of a web page in place of an answer."""
        title = self.remove_secrets(read_error_body(text).message)
        return ModelConfigError(
            f"{self._address} answered with a web page ({title!r}). {self._version_advice}"
        )

    def no_completion(self, problem: str) -> ModelConfigError:
        """Make the error of a server that answers, but never as chat completions do."""
        return ModelConfigError(
            f"{self._address} does not answer as a chat completions API: {problem} "
            f"{self._version_advice}"
        )

    def error_of_success(self, body: ErrorBody, headers: Mapping[str, str]) -> ModelError:
        """Make the error of an answer with the status of a success that is an error.

        The status that it names is the one that counts, else the one that its words stand for.
        """
        if body.status is not None:
            return self.status_error(body.status, body, headers)
        status = _meant_status(body, headers)
        if status is not None:
            return self.status_error(status, body, headers, said="with an error")
        reason = self.remove_secrets(body.message or "no reason given")
        return ModelUnavailable(f"The server answered with an error: {_as_sentence(reason)}")

    @property
    def _version_advice(self) -> str:
        """Say which setting holds the address, and how that of an API ends."""
        setting = check_address_advice(self.lm)
        better = address_with_version(self.url)
        if better is None:
            return f"{setting}: the one of the API is wanted, such as 'http://127.0.0.1:8000/v1'."
        return f"{setting}: did you mean {better!r}?"

    def status_error(
        self,
        status: int,
        body: ErrorBody,
        headers: Mapping[str, str],
        request_id: str | None = None,
        *,
        said: str = "",
    ) -> ModelError:
        """Translate an HTTP status that is not a success; ``said`` is what to say in its place."""
        details: dict[str, Any] = {"status": status, "request_id": request_id}
        said = said or str(status)
        reason = self.remove_secrets(_reason_of_refusal(body))
        message = f"The server answered {said}: {reason}"
        if is_too_long(status, body) and not _has_no_quota(body, status, headers):
            return ModelRejected(message, too_long=True, **details)
        advice = self._config_advice(status, body, headers)
        if advice:
            reason = f"{self._address} answered {said}: {_as_sentence(reason)}"
            failure = self._config_error(status, body, f"{reason} {advice}", details)
            if self._may_be_of_request(status, body, headers):
                failure.request_error = ModelRejected(message, **details)
            return failure
        if _is_temporary(status, body):
            return _temporary_error(message, body, headers, details)
        return ModelRejected(message, **details)

    def _config_error(
        self, status: int, body: ErrorBody, message: str, details: Mapping[str, Any]
    ) -> ModelConfigError:
        """Make the error of a refusal that is about the configuration."""
        failure = ModelConfigError(message, **details)
        failure.unknown_path = _knows_no_path(status, body)
        failure.certain = self._misses_version(status, body) or _lacks_right(status, body)
        return failure

    def _config_advice(self, status: int, body: ErrorBody, headers: Mapping[str, str]) -> str:
        """Say what to change if a refusal is about the configuration; empty if it is not."""
        if 300 <= status < 400:
            return self._redirect_advice(headers.get("location", ""))
        if _has_no_quota(body, status, headers):
            return "Check the account's quota and billing."
        if status == PROXY_WANTS_LOGIN:
            return f"Check the proxy and what it wants to know.{proxy_advice(self.url)}"
        if _wants_tls(status, body):
            better = with_scheme(self.url, "https")
            return f"{check_address_advice(self.lm)}: did you mean {better!r}?"
        if _names_configuration(status, body):
            return self._setting_advice(status, body)
        return ""

    def _may_be_of_request(self, status: int, body: ErrorBody, headers: Mapping[str, str]) -> bool:
        """Tell whether a refusal that seems to be about the configuration may be about a row."""
        if status not in OF_REQUEST or _wants_tls(status, body):
            return False
        return not _has_no_quota(body, status, headers)

    def _redirect_advice(self, location: str) -> str:
        """Say where a redirect leads; empty if it leads nowhere.

        It is not followed: rows would go to another place than the user named.
        """
        target = redirect_target(self.url, location)
        if target is None:
            return ""
        return (
            f"It redirects to {self.remove_secrets(target)!r}, where no row is sent. "
            f"{check_address_advice(self.lm)}: set the address of the API itself; if that is a "
            "login page, sign in first."
        )

    def _misses_version(self, status: int, body: ErrorBody) -> bool:
        """Tell whether the server knows no such path, and the address lacks its ``/v1``."""
        if not self.url or not _knows_no_path(status, body):
            return False
        return address_with_version(self.url) is not None

    def _setting_advice(self, status: int, body: ErrorBody) -> str:
        """Say which setting to check."""
        if self._misses_version(status, body):
            return self._version_advice
        # What is named first is what the refusal is about.
        named = re.search(r"model|key|auth|credential", body.message.lower())
        is_about_model = status in {400, 422} and named is not None and named[0] == "model"
        if status in {404, 410} or is_about_model:
            model = f"LM({self.lm.model!r}), AMR_MODEL"
            address = address_setting(self.lm)
            return f"Check the model's name ({model}) and the address ({address})."
        if status == 402:
            return "Check the account's quota and billing."
        return f"Check the key ({key_setting(self.lm)}) and what it may use."

    @property
    def _address(self) -> str:
        return host_and_port(self.url) if self.url else self.host

    @property
    def _network_advice(self) -> str:
        """Say which setting holds the address of a server that is not reached."""
        return f"{check_address_advice(self.lm)}, and the network.{proxy_advice(self.url)}"

    def remove_secrets(self, text: str) -> str:
        """Remove secrets from a text of the server, and shorten it."""
        text = remove_secrets(text, self.secrets())
        if len(text) <= REASON_CHARACTERS:
            return text
        return text[:REASON_CHARACTERS] + " ..."


def _temporary_error(
    message: str, body: ErrorBody, headers: Mapping[str, str], details: Mapping[str, Any]
) -> ModelUnavailable:
    """Make the error of a refusal that passes; a model that is being loaded is waited for."""
    status = details["status"]
    wait_s = retry_after_of(headers)
    if wait_s is None:
        wait_s = body.retry_after_s
    if wait_s is None and status == 429:
        wait_s = reset_of(headers)
    is_overloaded = status >= 500 and OVERLOADED.search(body.message) is not None
    failure = ModelUnavailable(
        message,
        busy=status in {429, OVERLOADED_STATUS} or is_overloaded,
        retry_after_s=wait_s,
        limits=limits_of(headers),
        **details,
    )
    failure.loading = status == 503 and LOADING.search(body.message) is not None
    if failure.loading and wait_s is None:
        failure.retry_after_s = LOADING_WAIT_S
    is_waited_for = failure.busy or failure.retry_after_s is not None
    failure.unserved = not is_waited_for and _has_no_server(status, body)
    return failure


def _has_no_server(status: int, body: ErrorBody) -> bool:
    """Tell whether a gateway says that the server behind it is not there."""
    if status in ORIGIN_IS_DOWN:
        return True
    says_so = body.is_page or NOBODY_BEHIND.search(body.message) is not None
    return status in GATEWAY_STATUSES and says_so


def _reason_of_refusal(body: ErrorBody) -> str:
    """Give what a server says, with the setting that it names beside its words only."""
    if not body.message:
        return "no reason given"
    if not body.param or body.param in body.message or body.param.startswith(("model", *PARTS)):
        return body.message
    return f"{body.message} (parameter {body.param!r})"


def _meant_status(body: ErrorBody, headers: Mapping[str, str]) -> int | None:
    """Give the status that an error without one stands for; None if its words do not say it."""
    codes = " ".join(sorted(body.codes))
    words = f"{codes} {body.message}"
    if NOT_SERVED.search(codes):
        return 400
    if RATE_LIMITED.search(words) or _has_no_quota(body, 429, headers):
        return 429
    if is_too_long(400, body):
        return 400
    if OVERLOADED.search(words):
        return OVERLOADED_STATUS
    if refuses_form(body.message) or FILTERED.search(words):
        return 400
    if body.codes & FAILED_CODES or NOT_NOW.search(body.message):
        return None
    is_refusal = body.codes & REFUSED_CODES or NOT_SERVED.search(body.message)
    return 400 if is_refusal else None


def _as_sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _wants_tls(status: int, body: ErrorBody) -> bool:
    """Tell whether a server that speaks TLS got a request without."""
    return status == 400 and WANTS_TLS.search(body.message) is not None


def _lacks_right(status: int, body: ErrorBody) -> bool:
    """Tell whether a key lacks a right, which no content of a row changes."""
    return status == 403 and NO_RIGHT.search(body.message) is not None


def _is_flagged(status: int, body: ErrorBody) -> bool:
    """Tell whether a row's content is refused with the status of a key without a right."""
    return status == 403 and bool(FLAGGED.search(body.message)) and not _lacks_right(status, body)


def _knows_no_path(status: int, body: ErrorBody) -> bool:
    """Tell whether a server says that it has no such path, and names no model."""
    if status == 501:
        return NO_POST.search(body.message) is not None
    if status not in {404, 405}:
        return False
    return body.is_page or NO_PATH.fullmatch(body.message or "no reason given") is not None


def _is_temporary(status: int, body: ErrorBody) -> bool:
    if status in FORM_REFUSED and refuses_form(body.message):
        return False
    if status in RETRYABLE or not 400 <= status < 500:
        return True
    return NO_UPSTREAM.search(body.message) is not None


def _names_configuration(status: int, body: ErrorBody) -> bool:
    """Tell whether a refusal is about the key, the model or the address, not about the content."""
    message = LITELLM_END.sub("", body.message)
    if NO_UPSTREAM.search(message) or _is_flagged(status, body):
        return False
    if status in CONFIG or _knows_no_path(status, body):
        return True
    text = f"{body.param} {message}"
    if status not in OF_REQUEST or ABOUT_PARAMETER.search(text) or refuses_form(message):
        return False
    if body.param.startswith("messages"):
        return False
    # The code alone does not decide: Gemini's is always INVALID_ARGUMENT.
    words = (*sorted(body.codes), message)
    if NOT_SERVED.search(" ".join(words)):
        return True
    is_about_content = OF_CONTENT.search(text) or OF_FORM.search(text)
    return bool(OF_CONFIGURATION.search(text)) and not is_about_content


def _has_no_quota(body: ErrorBody, status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether nothing is served until somebody pays: at any status, by code or text."""
    if body.codes & NO_QUOTA:
        return True
    if status in NO_QUOTA_STATUSES and NO_QUOTA_WORDS.search(body.message):
        return True
    if status not in NO_QUOTA_STATUSES or body.codes & TEMPORARY or body.retry_after_s is not None:
        return False
    return retry_after_of(headers) is None and bool(CHECK_BILLING.search(body.message))


def _is_starved(links: Sequence[BaseException]) -> bool:
    """Tell whether this process could not open another connection."""
    for link in links:
        if isinstance(link, OSError) and (link.errno in STARVED or STARVED_WORDS.search(str(link))):
            return True
    return False


def _is_gone(links: Sequence[BaseException]) -> bool:
    """Tell whether no connection was made: refused, no route, unknown name, certificate, time-out.

    aiohttp's transport reports all its connection errors as connect time-outs; the error of aiohttp
    beneath tells which it was.
    """
    by_aiohttp = [link for link in links if isinstance(link, aiohttp.ClientError)]
    if by_aiohttp:
        return any(isinstance(link, AIOHTTP_CONNECT_ERRORS) for link in by_aiohttp)
    return any(isinstance(link, HTTPX_CONNECT_ERRORS) for link in links)


def _reason(links: Sequence[BaseException]) -> str:
    """Say why there is no connection."""
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
