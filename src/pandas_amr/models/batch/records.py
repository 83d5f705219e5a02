"""Records of batches under way, in files: after a crash the same requests find their batch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pandas_amr._records.paths import cache_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True)
class Creation:
    """A batch that is about to be created.

    If this process ends early, only the server knows whether it was created.

    Attributes:
        file: its uploaded requests.
        digest: of their content.
        known: batches of this content that existed before.
        keys: the requests that it holds.
    """

    file: str
    digest: str
    known: tuple[str, ...]
    keys: tuple[str, ...]


class Records:
    """The batches under way at a server: each has a file with its id and its requests.

    If the folder cannot be written, nothing is found again after a crash, and no more is lost.
    """

    def __init__(self, server: str) -> None:
        folder = hashlib.sha256(server.encode()).hexdigest()[:16]
        try:
            self._folder = cache_folder() / "batches" / folder
        except OSError:  # no home: nothing can be written below this, so nothing is recorded
            self._folder = Path(os.devnull) / folder

    def batches(self) -> dict[str, str]:
        """Give the batch of each request, by the key of the request."""
        batch_of: dict[str, str] = {}
        for file in sorted(self._folder.glob("*.json")):
            batch, keys = _read(file)
            batch_of |= dict.fromkeys(keys, batch)
        return batch_of

    def add(self, name: str, keys: Iterable[str]) -> None:
        """Record a batch."""
        self._write(self._file(name), {"id": name, "keys": sorted(keys)})

    def drop(self, name: str, keys: Collection[str] | None = None) -> None:
        """Drop the record of a batch, or only those of its requests that have been answered."""
        file = self._file(name)
        left: list[str] = []
        if keys is not None:
            _, recorded = _read(file)
            left = [key for key in recorded if key not in keys]
        if left:
            self.add(name, left)
        else:
            _remove(file)

    def creations(self) -> Iterator[Creation]:
        """Give the creations without an outcome."""
        for file in sorted(self._folder.glob("*.creating")):
            with contextlib.suppress(*UNREADABLE):  # half written: nothing was sent yet
                content = json.loads(file.read_text(encoding="utf-8"))
                yield Creation(
                    str(content["file"]),
                    str(content["digest"]),
                    tuple(content["known"]),
                    tuple(content["keys"]),
                )

    def begin(self, creation: Creation) -> None:
        """Record that a batch is about to be created."""
        self._write(self._creation_path(creation), asdict(creation))

    def end(self, creation: Creation, name: str | None) -> None:
        """Record the outcome of a creation: a batch, or none."""
        if name is not None:
            self.add(name, creation.keys)
        _remove(self._creation_path(creation))

    def _file(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"

    def _creation_path(self, creation: Creation) -> Path:
        return self._folder / f"{hashlib.sha256(creation.file.encode()).hexdigest()[:32]}.creating"

    def _write(self, file: Path, content: object) -> None:
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content), encoding="utf-8")


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):  # it is read again later, and changes nothing
        file.unlink(missing_ok=True)


def _read(file: Path) -> tuple[str, list[str]]:
    """Read the id of a batch and the keys of its requests."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return str(content["id"]), [str(key) for key in content["keys"]]
    except UNREADABLE:  # half written by a process that died: it records nothing
        return "", []
