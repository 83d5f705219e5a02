"""What is remembered of batches under way, in files: the same requests after a crash find theirs again."""

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
    """A batch that is about to be created: whether it was stands with the server, if this process does not live on.

    Attributes:
        file: its uploaded requests.
        digest: of their content.
        known: batches of this content that were there before.
        keys: the requests that it holds.
    """

    file: str
    digest: str
    known: tuple[str, ...]
    keys: tuple[str, ...]


class Records:
    """The batches under way at a server, each in a file: its id, and which requests it holds, as digests.

    Where the folder cannot be written nothing is found again after a crash, and no worse.
    """

    def __init__(self, server: str) -> None:
        folder = hashlib.sha256(server.encode()).hexdigest()[:16]
        try:
            self._folder = cache_folder() / "batches" / folder
        except OSError:  # no home: below this nothing can be written, and nothing is remembered
            self._folder = Path(os.devnull) / folder

    def batches(self) -> dict[str, str]:
        """Give the batch that holds a request, by the request's digest."""
        known: dict[str, str] = {}
        for file in sorted(self._folder.glob("*.json")):
            name, keys = _read(file)
            known |= dict.fromkeys(keys, name)
        return known

    def add(self, name: str, keys: Iterable[str]) -> None:
        """Remember a batch."""
        self._write(self._file(name), {"id": name, "keys": sorted(keys)})

    def drop(self, name: str, keys: Collection[str] | None = None) -> None:
        """Forget a batch, or those of its requests that have been answered."""
        left = (
            [] if keys is None else [key for key in _read(self._file(name))[1] if key not in keys]
        )
        if left:
            self.add(name, left)
        else:
            _remove(self._file(name))

    def creations(self) -> Iterator[Creation]:
        """Give the batches of which it is not known whether they were created."""
        for file in sorted(self._folder.glob("*.creating")):
            with contextlib.suppress(*UNREADABLE):  # half written: nothing was sent yet
                told = json.loads(file.read_text(encoding="utf-8"))
                yield Creation(
                    str(told["file"]),
                    str(told["digest"]),
                    tuple(told["known"]),
                    tuple(told["keys"]),
                )

    def begin(self, creation: Creation) -> None:
        """Remember that a batch is about to be created."""
        self._write(self._creating(creation), asdict(creation))

    def end(self, creation: Creation, name: str | None) -> None:
        """Remember what came of it: a batch, or none."""
        if name is not None:
            self.add(name, creation.keys)
        _remove(self._creating(creation))

    def _file(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"

    def _creating(self, creation: Creation) -> Path:
        return self._folder / f"{hashlib.sha256(creation.file.encode()).hexdigest()[:32]}.creating"

    def _write(self, file: Path, content: object) -> None:
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content), encoding="utf-8")


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):  # then it is looked at again, and found to hold nothing
        file.unlink(missing_ok=True)


def _read(file: Path) -> tuple[str, list[str]]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return str(told["id"]), [str(key) for key in told["keys"]]
    except UNREADABLE:  # half written by a process that died: nothing is known of it
        return "", []
