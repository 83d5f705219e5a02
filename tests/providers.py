"""Profiles of real providers: what each does otherwise than the protocol says, and where that is written down.

What has no address was observed. Documentation moves, and its servers with it: these profiles are what must go well,
not what a provider does today.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import openai

import pandas_amr as amr
from endpoint import KEY, SORRY, Endpoint, one_each
from pandas_amr._records.engine import submit
from pandas_amr.testing import Call
from sensible import Turn, decoded
from wire import Answer


class OpenAI(Endpoint):
    """OpenAI's chat models: strict schemas, refusals, and headers that tell of a full minute's tokens."""

    model = "gpt-4o-mini"
    tells_refusals = True
    strict = True

    def headers(self):
        # https://thoughtbot.com/blog/openai-rate-limits: the documentation's sample. It is not linear: 16 tokens are
        # missing and come back in six minutes, which is no limit of 3 a minute.
        return {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0s",
        }

    def message(self, request, turn):
        # A refusal is a key of the message (observed).
        message = super().message(request, turn)
        refused = message["content"] == SORRY
        return message | ({"content": None, "refusal": SORRY} if refused else {"refusal": None})

    def too_long(self, tokens):
        # https://github.com/vanna-ai/vanna-flask/issues/11: 429, and yet no waiting would help.
        return self.error(
            429,
            f"Request too large for {self.model} on tokens per min (TPM): Limit {self.window}, Requested {tokens}. "
            "The input or output tokens must be reduced in order to run successfully.",
            kind="tokens",
            code="rate_limit_exceeded",
        )


class OpenAIReasoning(OpenAI):
    """OpenAI's reasoning models, asked by one who always sets a temperature."""

    model = "gpt-5-mini"
    settings: ClassVar[dict[str, Any]] = {"temperature": 0.2, "max_output_tokens": 4000}
    lessons = 1
    omits = ("temperature",)
    reasoning = 64

    def body_fault(self, body):
        # https://github.com/MartialBE/one-hub/issues/346
        if body.get("temperature", 1) != 1:
            return self.error(
                400,
                f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. "
                "Only the default (1) value is supported.",
                param="temperature",
                code="unsupported_value",
            )
        # https://github.com/openai/openai-python/issues/2046
        if "max_tokens" in body:
            return self.error(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                param="max_tokens",
                code="unsupported_parameter",
            )
        return None


class Azure(Endpoint):
    """Azure's OpenAI, through its own client: a deployment in the path, a version in the query, a key of its own."""

    model = "my-deployment"
    tells_refusals = True
    path = "/openai/deployments/my-deployment"
    strict = True

    def __enter__(self):
        super().__enter__()
        self._clients: list[openai.AsyncAzureOpenAI] = []
        return self

    def __exit__(self, kind, error, trace):
        for client in self._clients:
            submit(client.close()).result()  # a client of one's own is one's own to close
        super().__exit__(kind, error, trace)

    def lm(self, model=None, *, key=KEY, **options):
        # The client adds deployment and version, and sends the key in a header of its own.
        client = openai.AsyncAzureOpenAI(azure_endpoint=self.address, api_key=key, api_version="2024-10-21")
        self._clients.append(client)
        return amr.LM(model or self.model, client=client, journaled=False, **options)

    def fault(self, asked, request):
        if asked.query.get("api-version") != ["2024-10-21"]:
            return self.error(404, "Resource not found", code="404")
        if not asked.path.endswith(f"{self.path}/chat/completions"):
            said = "The API deployment for this resource does not exist."
            return Answer(404, {"error": {"code": "DeploymentNotFound", "message": said}})
        return super().fault(asked, request)

    def has_key(self, asked):
        return asked.headers.get("api-key") == KEY

    def bad_key(self):
        said = "Access denied due to invalid subscription key or wrong API endpoint."
        return Answer(401, {"error": {"code": "401", "message": said}})

    def too_many(self):
        return self.error(429, "Requests have exceeded the call rate limit.", code="429", headers={"retry-after": "0"})

    def flagged(self):
        # https://learn.microsoft.com/en-us/answers/questions/5896505/azure-openai-content-filter-400-errors-blocking-sa
        error = {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
            "Please modify your prompt and retry.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
            },
        }
        return Answer(400, {"error": error})


class Gemini(Endpoint):
    """Gemini's compatible endpoint: signed calls, errors as a list, reasoning outside of the answer's tokens."""

    model = "gemini-3-pro"
    tells_refusals = True
    path = "/v1beta/openai"
    reasoning = 40

    def error(self, status, message, *, kind="INVALID_ARGUMENT", code=None, param=None, headers=None):
        # https://github.com/manthanabc/paws/issues/103: a list; `code` is the status.
        return Answer(status, [{"error": {"code": status, "message": message, "status": kind}}], headers or {})

    def message(self, request, turn):
        # https://ai.google.dev/gemini-api/docs/thought-signatures: the first call of a turn is signed.
        message = super().message(request, turn)
        for call in message.get("tool_calls", ())[:1]:
            call["extra_content"] = {"google": {"thought_signature": f"signed:{call['id']}"}}
        return message

    def conversation_fault(self, messages):
        # https://github.com/microsoft/semantic-kernel/issues/13417
        for message in messages:
            for call in message.get("tool_calls", ())[:1]:
                signature = call.get("extra_content", {}).get("google", {}).get("thought_signature")
                if signature != f"signed:{call['id']}":
                    return self.error(
                        400,
                        "Function call is missing a thought_signature in functionCall parts. This is required for tools "
                        "to work correctly, and missing thought_signature may lead to degraded model performance.",
                    )
        return super().conversation_fault(messages)

    def usage(self, prompt, output):
        # https://github.com/UKGovernmentBEIS/inspect_ai/issues/5528: thoughts are counted outside, in the total only.
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output + self.reasoning}

    def bad_key(self):
        # https://github.com/continuedev/continue/issues/10290
        said = "API key not valid. Please pass a valid API key."
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        return Answer(400, [{"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT", "details": [info]}}])

    def unknown_model(self, model):
        return self.error(404, f"models/{model} is not found for API version v1main.", kind="NOT_FOUND")

    def too_many(self):
        # https://github.com/google-gemini/gemini-cli/issues/14811 (its form); the delay stands in the details (observed).
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.03s"}]
        said = "Resource has been exhausted (e.g. check quota)."
        error = {"code": 429, "message": said, "status": "RESOURCE_EXHAUSTED", "details": details}
        return Answer(429, [{"error": error}])

    def too_long(self, tokens):
        return self.error(
            400, f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({self.window})."
        )

    def schema_fault(self, request):
        # https://github.com/GoogleCloudPlatform/vertex-ai-samples/issues/3618, whatever `strict` says
        wanted = request.body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        for unsupported in ("minLength", "maxLength", "$ref", "uniqueItems"):
            if f'"{unsupported}"' in json.dumps(wanted):
                return self.error(400, f"response schemas specified unsupported field {unsupported}")
        return None

    def finish_reason(self, message):
        return "content_filter" if message["content"] == SORRY else super().finish_reason(message)


class Anthropic(Endpoint):
    """Anthropic's compatible endpoint: https://platform.claude.com/docs/en/api/openai-sdk.

    ``response_format`` and ``strict`` are ignored, and system messages are put together at the beginning: a model that
    is told of no schema answers as it likes.
    """

    model = "claude-sonnet-5"
    lessons = 1
    follows_schema = False

    def error(self, status, message, *, kind="invalid_request_error", code=None, param=None, headers=None):
        return Answer(status, {"error": {"code": code or kind, "message": message, "type": kind}}, headers or {})

    def bad_key(self):
        return self.error(401, "invalid x-api-key", kind="authentication_error")

    def unknown_model(self, model):
        return self.error(404, f"model: {model}", kind="not_found_error")

    def too_many(self):
        said = "This request would exceed your organization's rate limit."
        return self.error(429, said, kind="rate_limit_error", headers={"retry-after": "0"})

    def too_long(self, tokens):
        return self.error(400, f"prompt is too long: {tokens} tokens > {self.window} maximum")

    def turn(self, request):
        return one_each(super().turn(request))  # several calls of the submission in one turn (observed)


class XAI(Endpoint):
    """xAI: reasoning outside of the answer's tokens, a bad key as 400, errors without an object."""

    model = "grok-4"
    reasoning = 94

    def error(
        self, status, message, *, kind="Client specified an invalid argument", code=None, param=None, headers=None
    ):
        # https://github.com/i-am-bee/beeai-framework/issues/447
        return Answer(status, {"code": kind, "error": message}, headers or {})

    def bad_key(self):
        return self.error(
            400, "Incorrect API key provided: ke***le. You can obtain an API key from https://console.x.ai."
        )

    def unknown_model(self, model):
        return self.error(404, f"The model {model} does not exist or your team does not have access to it.")

    def usage(self, prompt, output):
        # https://github.com/vercel/ai/pull/12425, with the documentation's sentence
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output + self.reasoning,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }

    def too_long(self, tokens):
        return self.error(
            400,
            f"This model's maximum prompt length is {self.window} but the request contains {tokens} tokens.",
        )


class Groq(Endpoint):
    """Groq: the limits of requests in its headers are a day's, too large a request is 413."""

    model = "llama-3.3-70b-versatile"

    def headers(self):
        # https://console.groq.com/docs/rate-limits: requests are a day's, tokens a minute's
        return {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-limit-tokens": "180000",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-remaining-tokens": "179970",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-reset-tokens": "7.66s",
        }

    def too_many(self):
        # https://github.com/elizaOS/eliza/issues/4040
        said = "Rate limit reached for model on tokens per minute (TPM). Please try again in 30ms."
        return self.error(
            429, said, kind="tokens", code="rate_limit_exceeded", headers=self.headers() | {"retry-after": "0"}
        )

    def too_long(self, tokens):
        # https://github.com/HunorLaczko/ha-groq-cloud-api/issues/27
        said = (
            f"Request too large for model {self.model} service tier on_demand on tokens per minute (TPM): "
            f"Limit {self.window}, Requested {tokens}, please reduce your message size and try again."
        )
        return self.error(413, said, kind="tokens", code="rate_limit_exceeded")


class Mistral(Endpoint):
    """Mistral: no keys that it does not know, content in parts, an unknown model as 400, a finish reason of its own."""

    model = "magistral-medium-latest"
    settings: ClassVar[dict[str, Any]] = {"max_output_tokens": 4000}
    lessons = 1
    extra = 2  # what was cut is asked again, in halves

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._cut = False

    def error(self, status, message, *, kind="invalid_request_error", code=None, param=None, headers=None):
        # https://github.com/tmc/langchaingo/issues/1233: flat
        body = {"object": "error", "message": message, "type": kind, "param": param, "code": code}
        return Answer(status, body, headers or {})

    def body_fault(self, body):
        # https://github.com/yazinsai/OpenOats/pull/319: 422 for `max_completion_tokens`; the form is pydantic's.
        for name in ("max_completion_tokens", "seed", "reasoning_effort", "logprobs"):
            if name in body:
                detail = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
                return Answer(422, {"detail": [detail | {"input": body[name]}]})
        return None

    def bad_key(self):
        return Answer(401, {"detail": "Unauthorized"})

    def unknown_model(self, model):
        return self.error(400, f"Invalid model: {model}", kind="invalid_model", code="1500")

    def too_many(self):
        return Answer(429, {"message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"})

    def too_long(self, tokens):
        # https://portkey.ai/error-library/role-assignment-error-14410000
        return self.error(
            400,
            f"Prompt contains {tokens} tokens, too large for model with {self.window} maximum context length",
            code="3051",
        )

    def message(self, request, turn):
        # https://github.com/vercel/ai/pull/8072: content is a list, thoughts before what is said.
        message = super().message(request, turn)
        if message["content"] is not None:
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]}
            message["content"] = [thought, {"type": "text", "text": message["content"]}]
        return message

    def completion(self, request):
        # https://docs.rs/crate/mistral-openapi-client: `model_length`; once, in the middle of an answer
        answer = super().completion(request)
        choice = answer.body["choices"][0]
        if not self._cut and isinstance(choice["message"]["content"], list) and len(request.units) > 1:
            self._cut = True
            part = choice["message"]["content"][1]
            part["text"] = part["text"][: len(part["text"]) // 2]
            choice["finish_reason"] = "model_length"
        return answer


class DeepSeek(Endpoint):
    """DeepSeek, thinking: JSON mode only, thoughts that must come back with calls, blank lines while one waits."""

    model = "deepseek-reasoner"
    tells_refusals = True
    lessons = 2  # a schema, a forced call
    reasoning = 30

    def error(self, status, message, *, kind="invalid_request_error", code=None, param=None, headers=None):
        return super().error(status, message, kind=kind, code=code or "invalid_request_error", headers=headers)

    async def send(self, line, answer):
        # https://share.apidog.com/apidoc/docs-site/747793/rate-limit-835830m0: empty lines, as long as it takes
        if answer.status == 200:
            await line.send_slowly(answer, before=b"\n", times=3, every_s=0.002)
        else:
            await line.send(answer)

    def body_fault(self, body):
        # https://github.com/UKGovernmentBEIS/inspect_ai/issues/4916
        wanted = body.get("response_format", {}).get("type", "text")
        if wanted not in {"text", "json_object"}:
            return self.error(400, "This response_format type is unavailable now")
        # https://github.com/browserbase/stagehand/issues/1204
        if wanted == "json_object" and "json" not in json.dumps(body["messages"]).lower():
            return self.error(
                400, "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'"
            )
        # https://github.com/presenton/presenton/issues/676: thinking does not go with a forced call.
        if isinstance(body.get("tool_choice"), dict) or body.get("tool_choice") == "required":
            return self.error(400, "deepseek-reasoner does not support this tool_choice")
        return None

    def message(self, request, turn):
        return super().message(request, turn) | {"reasoning_content": f"Thought {request.number}."}

    def conversation_fault(self, messages):
        # https://github.com/mnfst/modelparams.dev/issues/29
        for message in messages:
            if message.get("tool_calls") and not str(message.get("reasoning_content", "")).startswith("Thought "):
                return self.error(400, "The `reasoning_content` in the thinking mode must be passed back to the API.")
        return super().conversation_fault(messages)

    def bad_key(self):
        return self.error(401, "Authentication Fails (no such user)", kind="authentication_error")

    def unknown_model(self, model):
        return self.error(400, "Model Not Exist")

    def too_many(self):
        return self.error(429, "Rate limit reached", headers={"retry-after": "0"})

    def flagged(self):
        return self.error(400, "Content Exists Risk")


class OpenRouter(Endpoint):
    """OpenRouter: 403 for a flagged text, white space while one waits, errors of others as 200.

    https://openrouter.ai/docs/api/reference/errors-and-debugging
    """

    model = "openai/gpt-4o-mini"
    tells_refusals = True
    extra = 1  # the error of another's

    def error(self, status, message, *, kind="", code=None, param=None, headers=None):
        return Answer(status, {"error": {"code": status, "message": message}, "user_id": "user_1"}, headers or {})

    async def send(self, line, answer):
        # https://github.com/BerriAI/litellm/pull/31413: white space before the body
        await line.send_slowly(answer, before=b"\n         ", times=2, every_s=0.002)

    def fault(self, asked, request):
        fault = super().fault(asked, request)
        if fault is None and asked.number == 1:
            # https://github.com/BerriAI/litellm/pull/21755: 200, and nothing but an error in it
            return Answer(200, {"error": {"code": 502, "message": "Provider returned error"}})
        return fault

    def bad_key(self):
        return self.error(401, "No auth credentials found")

    def unknown_model(self, model):
        return self.error(400, f"{model} is not a valid model ID")

    def too_many(self):
        headers = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "retry-after": "0"}
        return self.error(429, "Rate limit exceeded: free-models-per-min.", headers=headers)

    def too_long(self, tokens):
        return self.error(
            400, f"This endpoint's maximum context length is {self.window} tokens. However, you requested {tokens}."
        )

    def flagged(self):
        metadata = {"reasons": ["violence"], "flagged_input": "row 10 is flagged", "provider_name": "OpenAI"}
        said = "Your chosen model requires moderation and your input was flagged"
        return Answer(403, {"error": {"code": 403, "message": said, "metadata": metadata}})

    def turn(self, request):
        return one_each(super().turn(request))


class VLLM(Endpoint):
    """vLLM with a parser of calls: a guided schema, errors that are flat and have no code of OpenAI's."""

    model = "Qwen/Qwen2.5-7B-Instruct"

    def error(self, status, message, *, kind="BadRequestError", code=None, param=None, headers=None):
        # https://github.com/langchain4j/langchain4j/issues/3475
        body = {"object": "error", "message": message, "type": kind, "param": None, "code": status}
        return Answer(status, body, headers or {})

    def bad_key(self):
        return Answer(401, {"error": "Unauthorized"})

    def unknown_model(self, model):
        return self.error(404, f"The model `{model}` does not exist.", kind="NotFoundError")

    def too_many(self):
        return Answer(503, "upstream connect error or disconnect/reset before headers", kind="text/plain")

    def too_long(self, tokens):
        # https://github.com/vllm-project/vllm/issues/20409
        return self.error(
            400,
            f"This model's maximum context length is {self.window} tokens. However, you requested {tokens} tokens "
            f"({tokens} in the messages, 0 in the completion). Please reduce the length of the messages or completion.",
        )


class VLLMWithoutParser(VLLM):
    """vLLM as it is started without flags: calls only where they are forced, and then guided."""

    def body_fault(self, body):
        # https://github.com/vllm-project/vllm/issues/9986
        if body.get("tools") and not isinstance(body.get("tool_choice"), dict):
            return self.error(
                400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            )
        return None


class TGI(Endpoint):
    """Text Generation Inference: errors are texts."""

    model = "tgi"
    checks_key = False

    def error(self, status, message, *, kind="validation", code=None, param=None, headers=None):
        return Answer(status, {"error": message, "error_type": kind}, headers or {})

    def too_many(self):
        return self.error(429, "Model is overloaded", kind="overloaded")

    def too_long(self, tokens):
        # https://github.com/huggingface/chat-ui/issues/340
        return self.error(
            422,
            f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {self.window}. "
            f"Given: {tokens} `inputs` tokens and 100 `max_new_tokens`",
        )


class LlamaCpp(Endpoint):
    """llama.cpp's server with a small model: a grammar for schemas, calls only written down, keys of its own."""

    model = "qwen2.5-coder-1.5b"

    def error(self, status, message, *, kind="invalid_request_error", code=None, param=None, headers=None):
        return Answer(status, {"error": {"code": status, "message": message, "type": kind}}, headers or {})

    def bad_key(self):
        return self.error(401, "Invalid API Key", kind="authentication_error")

    def too_many(self):
        return self.error(503, "Loading model", kind="unavailable_error")

    def too_long(self, tokens):
        # https://github.com/ggml-org/llama.cpp/pull/15780 (and 16486: 400)
        said = "the request exceeds the available context size. try increasing the context size or enable context shift"
        error = {"code": 400, "message": said, "type": "exceed_context_size_error"}
        return Answer(400, {"error": error | {"n_prompt_tokens": tokens, "n_ctx": self.window}})

    def message(self, request, turn):
        # Calls are written down: one in a fence (observed), several as Qwen's template has them.
        if turn.calls:
            turn = Turn(text=_fenced(*turn.calls) if len(turn.calls) == 1 else _tagged(turn.calls))
        return super().message(request, turn)

    def completion(self, request):
        answer = super().completion(request)
        timings = {"prompt_n": 1, "prompt_ms": 12.5, "predicted_n": 1, "predicted_per_second": 24.0}
        return Answer(answer.status, answer.body | {"timings": timings}, answer.headers)


class Ollama(Endpoint):
    """Ollama: a bound on the answer only as ``max_tokens``, and no turn with arguments that are no JSON."""

    model = "qwen3:8b"
    settings: ClassVar[dict[str, Any]] = {"max_output_tokens": 2000}
    checks_key = False
    runaway_tokens = 6000

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.runaways = 0

    def error(self, status, message, *, kind="api_error", code=None, param=None, headers=None):
        return Answer(status, {"error": {"message": message, "type": kind, "param": None, "code": None}}, headers or {})

    def unknown_model(self, model):
        return self.error(404, f'model "{model}" not found, try pulling it first', kind="not_found_error")

    def too_many(self):
        return self.error(503, "server busy, please try again. maximum pending requests exceeded")

    def conversation_fault(self, messages):
        # https://github.com/agno-agi/agno/issues/10254, https://github.com/openai/openai-agents-js/issues/664
        for message in messages:
            for call in message.get("tool_calls", ()):
                if decoded(call["function"]["arguments"]) is None:
                    return self.error(400, "invalid tool call arguments: unexpected end of JSON input")
        return super().conversation_fault(messages)

    def turn(self, request):
        """Small models begin with a call that says nothing."""
        turn = super().turn(request)
        if "lookup" in request.tools and not request.tool_results:
            return Turn(calls=(Call("lookup", ""), *turn.calls))
        return turn

    def message(self, request, turn):
        # https://github.com/ollama/ollama/issues/7125: `max_completion_tokens` is taken and ignored.
        message = super().message(request, turn)
        if message["content"] is not None and "max_tokens" not in request.body:
            self.runaways += 1
            message["content"] += " \n" * (self.runaway_tokens * 4 // 3)
        return message


class LMStudio(Ollama):
    """LM Studio: as Ollama; its errors are texts (observed)."""

    model = "qwen2.5-7b-instruct"

    def error(self, status, message, *, kind="", code=None, param=None, headers=None):
        return Answer(status, {"error": message}, headers or {})


class LiteLLM(Endpoint):
    """LiteLLM's proxy: 400 for a model or a key that it does not know, and a header with the money."""

    model = "gpt-4o-mini"

    def error(self, status, message, *, kind="None", code=None, param=None, headers=None):
        error = {"message": message, "type": kind, "param": None, "code": str(status)}  # a text (observed, 1.108.7)
        return Answer(status, {"error": error}, headers or {})

    def headers(self):
        # https://docs.litellm.ai/docs/proxy/response_headers
        return {"x-litellm-response-cost": "0.000123", "x-litellm-model-id": "1", "x-litellm-call-id": "2"}

    def bad_key(self):
        # https://github.com/BerriAI/litellm/pull/20837
        return self.error(400, "No connected db.", kind="no_db_connection")

    def unknown_model(self, model):
        # https://github.com/BerriAI/litellm/issues/9663; the words here are those of 1.108.7 (observed)
        said = f"/chat/completions: Invalid model name passed in model={model}. Call `/v1/models` to view available models for your key."
        return self.error(400, said, kind="invalid_request_error")

    def too_many(self):
        said = "litellm.RateLimitError: No deployments available for selected model, Try again in 0.03 seconds."
        return self.error(429, said, headers={"retry-after": "0"})

    def too_long(self, tokens):
        said = f"litellm.ContextWindowExceededError: This model's maximum context length is {self.window} tokens."
        return self.error(400, said)


class Gateway(Endpoint):
    """A gateway before a server (nginx, Envoy): its own errors as text and HTML, no usage (observed)."""

    model = "behind-a-gateway"
    tells_usage = False
    extra = 2  # one request to no upstream, one to a broken one

    def fault(self, asked, request):
        if asked.number == 2:
            return Answer(404, "no healthy upstream", kind="text/plain")
        if asked.number == 3:
            return Answer(502, "<html><head><title>502 Bad Gateway</title></head></html>", kind="text/html")
        return super().fault(asked, request)

    def too_many(self):
        return Answer(429, "<html><head><title>429 Too Many Requests</title></head></html>", kind="text/html")

    def too_long(self, tokens):
        return Answer(413, "<html><head><title>413 Request Entity Too Large</title></head></html>", kind="text/html")


def _fenced(call: Call) -> str:
    return f"```json\n{_spelled(call)}\n```"


def _tagged(calls: tuple[Call, ...]) -> str:
    return "\n".join(f"<tool_call>\n{_spelled(call)}\n</tool_call>" for call in calls)


def _spelled(call: Call) -> str:
    return json.dumps({"name": call.name, "arguments": call.arguments})


PROFILES: tuple[type[Endpoint], ...] = (
    *(OpenAI, OpenAIReasoning, Azure, Gemini, Anthropic, XAI, Groq, Mistral, DeepSeek, OpenRouter),
    *(VLLM, TGI, LlamaCpp, Ollama, LMStudio, LiteLLM, Gateway),
)
