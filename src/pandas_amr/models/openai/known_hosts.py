"""Hosts of known providers, which serve nobody without a key, and where such keys usually stand."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pandas_amr.errors import ModelConfigError
from pandas_amr.models.base import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr.models.base import LM

# By the end of the host's name: the environment variable that the provider's own tools read.
KEY_VARIABLES: Mapping[str, str] = {
    "api.openai.com": "OPENAI_API_KEY",
    "openai.azure.com": "AZURE_OPENAI_API_KEY",
    "ai.azure.com": "AZURE_OPENAI_API_KEY",
    "cognitiveservices.azure.com": "AZURE_OPENAI_API_KEY",
    "models.github.ai": "GITHUB_TOKEN",
    "googleapis.com": "GEMINI_API_KEY",
    "api.anthropic.com": "ANTHROPIC_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
    "api.groq.com": "GROQ_API_KEY",
    "mistral.ai": "MISTRAL_API_KEY",
    "api.deepseek.com": "DEEPSEEK_API_KEY",
    "api.together.xyz": "TOGETHER_API_KEY",
    "api.together.ai": "TOGETHER_API_KEY",
    "api.fireworks.ai": "FIREWORKS_API_KEY",
    "api.x.ai": "XAI_API_KEY",
    "api.cerebras.ai": "CEREBRAS_API_KEY",
    "api.perplexity.ai": "PERPLEXITY_API_KEY",
    "api.cohere.ai": "COHERE_API_KEY",
    "api.cohere.com": "COHERE_API_KEY",
    "api.sambanova.ai": "SAMBANOVA_API_KEY",
    "api.nvidia.com": "NVIDIA_API_KEY",
    "api.deepinfra.com": "DEEPINFRA_API_KEY",
    "api.hyperbolic.xyz": "HYPERBOLIC_API_KEY",
    "huggingface.co": "HF_TOKEN",
    "api.novita.ai": "NOVITA_API_KEY",
    "api.studio.nebius.com": "NEBIUS_API_KEY",
    "api.studio.nebius.ai": "NEBIUS_API_KEY",
    "api.tokenfactory.nebius.com": "NEBIUS_API_KEY",
    "api.moonshot.ai": "MOONSHOT_API_KEY",
    "api.moonshot.cn": "MOONSHOT_API_KEY",
    "aliyuncs.com": "DASHSCOPE_API_KEY",
    "api.z.ai": "ZAI_API_KEY",
    "open.bigmodel.cn": "ZHIPUAI_API_KEY",
    "api.minimax.io": "MINIMAX_API_KEY",
    "api.minimaxi.com": "MINIMAX_API_KEY",
    "api.minimax.chat": "MINIMAX_API_KEY",
    "api.siliconflow.com": "SILICONFLOW_API_KEY",
    "api.siliconflow.cn": "SILICONFLOW_API_KEY",
    "volces.com": "ARK_API_KEY",
    "api.upstage.ai": "UPSTAGE_API_KEY",
    "api.ai21.com": "AI21_API_KEY",
    "api.scaleway.ai": "SCW_SECRET_KEY",
    "ai-gateway.vercel.sh": "AI_GATEWAY_API_KEY",
    "inference.baseten.co": "BASETEN_API_KEY",
    "api.cloudflare.com": "CLOUDFLARE_API_TOKEN",
    "ollama.com": "OLLAMA_API_KEY",
}
BEDROCK = re.compile(
    r"^bedrock(-mantle|-runtime)?[.-].*\bamazonaws\.com$|^bedrock-mantle\..*\baws$"
)
BEDROCK_VARIABLE = "AWS_BEARER_TOKEN_BEDROCK"


def key_variable(host: str) -> str | None:
    """Give the environment variable of a provider's key; None if the host is not a known provider.

    Example:
        >>> key_variable("eu.api.openai.com"), key_variable("127.0.0.1")
        ('OPENAI_API_KEY', None)
    """
    host = host.lower().rstrip(".")
    if BEDROCK.search(host):
        return BEDROCK_VARIABLE
    for suffix, variable in KEY_VARIABLES.items():
        if host.endswith((f".{suffix}", f"-{suffix}")) or host == suffix:
            return variable
    return None


def check_has_key(lm: LM, host: str, address: str, key: str) -> None:
    """Check that a provider which serves nobody without a key gets one.

    Raises:
        ModelConfigError: there is none, or what stands for one. No request was sent.
    """
    variable = key_variable(host)
    if variable is None or (key and not PLACEHOLDER.fullmatch(key)):
        return
    problem = "the key is a placeholder" if key else "there is none"
    if lm.client is not None:
        advice = "Give LM(client=...) a client with a key."
    elif variable != "OPENAI_API_KEY" and os.environ.get(variable):
        advice = f"{variable} is set: LM(api_key=os.environ[{variable!r}])."
    else:
        advice = "Set LM(api_key=...), or OPENAI_API_KEY in the environment."
    raise ModelConfigError(
        f"{address} needs a key, and {problem}; nothing was sent. {advice}", attempts=0
    )
