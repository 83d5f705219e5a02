"""A run's events as spans and metrics of OpenTelemetry.

They follow its conventions for generative AI: https://github.com/open-telemetry/semantic-conventions-genai
What a run reads and finds, prompts, answers and keys are in none of them.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pandas_amr._records.events import (
    CallBegan,
    CallEnded,
    Halved,
    NodeBegan,
    NodeEnded,
    Recalled,
    Repaired,
    RunBegan,
    RunEnded,
    ToolBegan,
    ToolEnded,
    Waited,
)
from pandas_amr.errors import EventWarning, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, SpanContext

    from pandas_amr._records.events import Event
    from pandas_amr._records.usage import Usage

SCOPE = "pandas_amr"
HTTPS_PORT = 443
OPENAI = "openai"  # also whoever speaks its protocol and is not known, as the conventions say
PROVIDERS = {  # as the conventions name them, by the end of the host's name
    "openai.azure.com": "azure.ai.openai",
    "ai.azure.com": "azure.ai.inference",
    "anthropic.com": "anthropic",
    "amazonaws.com": "aws.bedrock",
    "cohere.ai": "cohere",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "groq.com": "groq",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "moonshot.cn": "moonshot_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
# The boundaries of the histograms that the conventions recommend.
DURATION_S = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
TOKENS = tuple(4**power for power in range(14))


def check_telemetry(what: str) -> None:
    """Refuse to give spans to an API that is not installed.

    Raises:
        UsageError: it is not.
    """
    try:
        is_there = find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise UsageError(f'{what} needs OpenTelemetry: pip install "pandas-amr[otel]".')


def provider_of(server: str) -> str:
    """Name the provider behind a server's host, as the conventions do.

    Example:
        >>> provider_of("api.mistral.ai"), provider_of("127.0.0.1:8000")
        ('mistral_ai', 'openai')
    """
    host = server.partition(":")[0].casefold()
    for ending, provider in PROVIDERS.items():
        if host == ending or host.endswith(f".{ending}"):
            return provider
    return OPENAI


def address_attributes(server: str) -> dict[str, Any]:
    """Describe a server by its host and port.

    Example:
        >>> address_attributes("127.0.0.1:8000")
        {'server.address': '127.0.0.1', 'server.port': 8000}
    """
    host, colon, port = server.rpartition(":")
    if not colon or not port.isdigit():
        host, port = server, str(HTTPS_PORT)
    return {"server.address": host, "server.port": int(port)} if host else {}


@dataclass(slots=True)
class _Open:
    """A span that is open, and what makes it the current one.

    Attributes:
        within: what began in it and has ended; a later span may name it as its parent.
    """

    span: Span
    token: Any
    within: list[Any] = field(default_factory=list)


class Telemetry:
    """Gives the events of one run to OpenTelemetry: spans run, node, call, tool; and two metrics.

    It is called in the task in which an event happens: so its span is the current one there, and
    spans of an HTTP client or of the user's functions stand below it.

    Args:
        warn: takes a warning if a part of OpenTelemetry raises; then nothing more is given to it.
    """

    def __init__(self, warn: Callable[[EventWarning], None]) -> None:
        from opentelemetry import context, metrics, trace  # noqa: PLC0415 (not required)

        self._warn = warn
        self._context, self._trace = context, trace
        self._tracer = trace.get_tracer(SCOPE, _version())
        self._durations, self._tokens = _instruments(metrics.get_meter_provider())
        self._run: _Open | None = None
        self._nodes: dict[str, _Open] = {}
        self._calls: dict[int, _Open] = {}
        self._tools: dict[int, _Open] = {}
        # Of nodes and calls that others may still name, ended ones among them.
        self._known: dict[str | int, SpanContext] = {}
        self._is_over = False

    def __call__(self, event: Event) -> None:
        """Begin or end the span of an event, or note it in the span in which it happens."""
        handle = _HANDLERS.get(type(event))
        if handle is None or self._is_over:
            return
        try:
            handle(self, event)
        except Exception as error:  # noqa: BLE001 (of a processor or exporter: no run ends by it)
            self._is_over = True
            text = f"telemetry is off for the rest of this run: it raised {type(error).__name__}."
            self._warn(EventWarning(text))

    # -- spans -------------------------------------------------------------------------------------

    def begin_run(self, event: RunBegan) -> None:
        """Begin the span of the run, below the span of its caller."""
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": event.verb,
            "pandas_amr.run.id": event.run,
        }
        if event.rows is not None:
            attributes["pandas_amr.run.rows"] = event.rows
        name = f"invoke_workflow {event.verb}"
        self._run = self._begin(name, attributes, None, self._trace.SpanKind.INTERNAL)

    def end_run(self, event: RunEnded) -> None:
        """End the span of the run."""
        if self._run is None:
            return
        attributes = {"pandas_amr.run.status": event.status, **_describe_usage(event.usage)}
        self._end(self._run, attributes, event.error)

    def begin_node(self, event: NodeBegan) -> None:
        """Begin the span of a node; the nodes that it reads are its links."""
        attributes: dict[str, Any] = {
            "pandas_amr.node.id": event.node,
            "pandas_amr.node.type": event.type,
            "pandas_amr.node.level": event.level,
            "pandas_amr.node.units": event.units,
        }
        parent = self._nodes.get(event.within, self._run)
        opened = self._begin(event.type, attributes, parent, self._trace.SpanKind.INTERNAL)
        self._link(opened.span, event.parents)
        self._nodes[event.node] = opened
        self._known[event.node] = opened.span.get_span_context()
        if parent is not None:
            parent.within.append(event.node)

    def end_node(self, event: NodeEnded) -> None:
        """End the span of a node."""
        opened = self._nodes.pop(event.node)
        if event.id != event.node:
            opened.span.update_name(event.type)
            self._known[event.id] = opened.span.get_span_context()
        attributes = {
            "pandas_amr.node.id": event.id,
            "pandas_amr.node.type": event.type,
            "pandas_amr.node.status": event.status,
            "pandas_amr.node.parents": event.parents,
            **_describe_usage(event.usage),
        }
        if event.sandbox:
            attributes["pandas_amr.node.sandbox"] = event.sandbox
        error = event.error
        if event.status == "failed":
            error = error or "failed"
        self._link(opened.span, [name for name in event.parents if name in opened.within])
        self._forget_within(opened)
        self._end(opened, attributes, "" if event.status == "cancelled" else error)

    def begin_call(self, event: CallBegan) -> None:
        """Begin the span of a model's call: in a node, or in the tool whose code asks."""
        parent = self._tools.get(event.tool) or self._nodes.get(event.node, self._run)
        name = f"chat {event.model}"
        attributes = _describe_call(event)
        opened = self._begin(name, attributes, parent, self._trace.SpanKind.CLIENT)
        self._calls[event.call] = opened
        self._known[event.call] = opened.span.get_span_context()
        if parent is not None:
            parent.within.append(event.call)

    def end_call(self, event: CallEnded) -> None:
        """End the span of a model's call, and record its metrics."""
        attributes: dict[str, Any] = {"pandas_amr.call.tries": event.tries}
        attributes["pandas_amr.call.waited"] = event.waited
        if event.finish_reason:
            attributes["gen_ai.response.finish_reasons"] = (event.finish_reason,)
        if event.answered_by:
            attributes["gen_ai.response.model"] = event.answered_by
        if event.response:
            attributes["gen_ai.response.id"] = event.response
        usage = event.usage
        if _is_reported(usage):
            attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
            attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
            attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        if usage.money is not None:
            attributes["pandas_amr.usage.money"] = usage.money
        self._record_call(event)
        self._end(self._calls.pop(event.call), attributes, event.error)

    def begin_tool(self, event: ToolBegan) -> None:
        """Begin the span of a tool, below the call in whose answer its call stands."""
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event.tool,
            "gen_ai.tool.type": "function",
        }
        parent = self._nodes.get(event.node, self._run)
        if event.call in self._known:  # its span has ended by now
            ended = self._trace.NonRecordingSpan(self._known[event.call])
            parent = _Open(ended, None)
        name = f"execute_tool {event.tool}"
        kind = self._trace.SpanKind.INTERNAL
        self._tools[event.number] = self._begin(name, attributes, parent, kind)

    def end_tool(self, event: ToolEnded) -> None:
        """End the span of a tool."""
        opened = self._tools.pop(event.number)
        self._forget_within(opened)
        self._end(opened, {}, event.error)

    def note(self, event: Waited | Repaired | Halved | Recalled) -> None:
        """Note in the span of a call, a node or the run what happens in it."""
        opened = self._nodes.get(event.node, self._run)
        attributes: dict[str, Any] = {}
        if isinstance(event, Waited):
            opened = self._calls.get(event.call, opened)
            attributes = {"pandas_amr.wait.kind": event.kind, "pandas_amr.wait.s": event.seconds}
        elif isinstance(event, Recalled):
            attributes = {"pandas_amr.answers": event.answers}
        else:
            attributes = {"pandas_amr.units": event.units}
        if opened is not None:
            name = f"pandas_amr.{type(event).__name__.lower()}"
            opened.span.add_event(name, attributes)

    def _begin(
        self, name: str, attributes: Mapping[str, Any], parent: _Open | None, kind: Any
    ) -> _Open:
        """Begin a span, and make it the current one; without a parent it is below the current."""
        below = None if parent is None else self._trace.set_span_in_context(parent.span)
        span = self._tracer.start_span(name, context=below, kind=kind, attributes=attributes)
        token = self._context.attach(self._trace.set_span_in_context(span))
        return _Open(span, token)

    def _end(self, opened: _Open, attributes: Mapping[str, Any], error: str) -> None:
        span = opened.span
        span.set_attributes(attributes)
        if error:
            span.set_attribute("error.type", error)
            span.set_status(self._trace.StatusCode.ERROR, error)
        self._context.detach(opened.token)
        span.end()

    def _link(self, span: Span, nodes: Sequence[str]) -> None:
        for node in nodes:
            if node in self._known:
                span.add_link(self._known[node])

    def _forget_within(self, opened: _Open) -> None:
        """Forget what began in a span that ends: nothing outside of it names that any more."""
        for name in opened.within:
            self._known.pop(name, None)

    # -- metrics -----------------------------------------------------------------------------------

    def _record_call(self, event: CallEnded) -> None:
        """Record how long a call was under way, and its tokens as far as the server told them."""
        if not event.tries:
            return
        attributes = _describe_call(event)
        if event.answered_by:
            attributes["gen_ai.response.model"] = event.answered_by
        if _is_reported(event.usage):
            for kind, tokens in (
                ("input", event.usage.input_tokens),
                ("output", event.usage.output_tokens),
            ):
                self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind})
        if event.error:
            attributes["error.type"] = event.error
        self._durations.record(max(0.0, event.seconds - event.waited), attributes)


_HANDLERS: dict[type, Callable[[Telemetry, Any], None]] = {
    RunBegan: Telemetry.begin_run,
    RunEnded: Telemetry.end_run,
    NodeBegan: Telemetry.begin_node,
    NodeEnded: Telemetry.end_node,
    CallBegan: Telemetry.begin_call,
    CallEnded: Telemetry.end_call,
    ToolBegan: Telemetry.begin_tool,
    ToolEnded: Telemetry.end_tool,
    Waited: Telemetry.note,
    Repaired: Telemetry.note,
    Halved: Telemetry.note,
    Recalled: Telemetry.note,
}


def _version() -> str:
    """Return the version of the package, which stands above this room."""
    return str(sys.modules[SCOPE].__version__)


@functools.lru_cache(maxsize=4)
def _instruments(provider: MeterProvider) -> tuple[Histogram, Histogram]:
    """Make the instruments of the two metrics, once per provider."""
    meter = provider.get_meter(SCOPE, _version())
    durations = meter.create_histogram(
        "gen_ai.client.operation.duration",
        unit="s",
        description="GenAI operation duration.",
        explicit_bucket_boundaries_advisory=DURATION_S,
    )
    tokens = meter.create_histogram(
        "gen_ai.client.token.usage",
        unit="{token}",
        description="Number of input and output tokens used.",
        explicit_bucket_boundaries_advisory=TOKENS,
    )
    return durations, tokens


def _is_reported(usage: Usage) -> bool:
    """Whether the server told how many tokens it were, of every request."""
    return usage.calls > 0 and not usage.estimated


def _describe_call(event: CallBegan | CallEnded) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider_of(event.server),
        "gen_ai.request.model": event.model,
        **address_attributes(event.server),
    }


def _describe_usage(usage: Usage) -> dict[str, Any]:
    """Describe what a node or a run spent, apart from what its calls report of themselves.

    The conventions' names would have a backend that sums them count each token twice.
    """
    attributes: dict[str, Any] = {
        "pandas_amr.usage.calls": usage.calls,
        "pandas_amr.usage.tries": usage.tries,
        "pandas_amr.usage.input_tokens": usage.input_tokens,
        "pandas_amr.usage.output_tokens": usage.output_tokens,
        "pandas_amr.usage.recalled": usage.recalled,
    }
    if usage.money is not None:
        attributes["pandas_amr.usage.money"] = usage.money
    return attributes
