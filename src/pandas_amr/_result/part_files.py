"""A folder of parts: each a Parquet file of rows with their findings, and what else came of them.

A part is whole or not there: it is written under another name, flushed to the disk, and renamed.
What belongs to it beside the rows stands in a folder below, which readers of datasets leave out,
and is there before the part is.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pandas_amr._findings.store import Failure
from pandas_amr._units.part_tables import join_schemas
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FORMAT = 1
NOTES = b"pandas_amr"  # under which a part's file says what it is
ASIDE = "_amr"  # the folder of what belongs to parts
PLAN = "plan.json"
LOCK = "lock"
TEMPORARY = ".amr-"
MOST_NAMED = 3  # of foreign files
FAILURE_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("shard", pa.int64()),
        ("who", pa.string()),
        ("reason", pa.string()),
        ("attempts", pa.int64()),
        ("map", pa.string()),
    ]
)


@dataclass(frozen=True)
class WrittenPart:
    """A part that is written.

    Attributes:
        path: its file.
        key: which rows of the input it holds.
        question: what was asked of them, as a digest.
        rows: how many rows of the input it is about.
        schema: of its file.
        token: names what belongs to it beside the rows.
        columns: the columns of each map's findings as the map calls them, in the order of the maps.
        counts: how many rows have which status.
        corrections: a digest of what people had said in place of findings; empty if nothing.
    """

    path: Path
    key: str
    question: str
    rows: int
    schema: pa.Schema
    token: str
    columns: Sequence[Sequence[str]] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    corrections: str = ""

    @property
    def number(self) -> int:
        """Its place among all parts, as its file is named."""
        return int(self.path.name.split("-")[1])

    @property
    def failed(self) -> int:
        """How many of its rows have failed."""
        return self.counts.get("failed", 0)

    @property
    def status_path(self) -> Path:
        """The file of its statuses."""
        return self.path.parent / ASIDE / f"{self.token}.status.parquet"

    @property
    def failures_path(self) -> Path:
        """The file of its failures, which is there if there are any."""
        return self.path.parent / ASIDE / f"{self.token}.failures.parquet"

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read its rows."""
        return pq.read_table(self.path, columns=columns, partitioning=None)

    def read_statuses(self) -> pa.Table:
        """Read the status of each of its input's rows, a column per map."""
        return pq.read_table(self.status_path, partitioning=None)

    def read_failures(self) -> list[Failure]:
        """Read what failed; positions count from the beginning of the part."""
        if not self.failures_path.exists():
            return []
        table = pq.read_table(self.failures_path, partitioning=None)
        return [Failure(**record) for record in table.to_pylist()]


@dataclass(frozen=True)
class NewPart:
    """A part that is to be written.

    Attributes:
        number: its place among all parts.
        table: its rows with their findings.
        statuses: the status of each of its input's rows, a column per map.
        failures: what failed; positions count from the beginning of the part.
        corrections: a digest of what people had said in place of findings; empty if nothing.
    """

    number: int
    key: str
    rows: int
    table: pa.Table
    statuses: pa.Table
    failures: Sequence[Failure]
    columns: Sequence[Sequence[str]]
    counts: Mapping[str, int]
    corrections: str = ""


class OutFolder:
    """The folder of a run's parts, which no other run writes to meanwhile.

    Attributes:
        earlier: the parts that earlier runs have written.
        question: what is asked now, as a digest.

    Raises:
        UsageError: it holds something else, or it is another run's now.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"out={str(path)!r} is a file; name a folder.")
        self.earlier = list(self._read_parts())
        self._lock: Any = None
        self.question = ""

    def _read_parts(self) -> Iterator[WrittenPart]:
        """Read the notes of the parts that are there, and refuse what is no part."""
        foreign: list[str] = []
        for path in sorted(self.path.iterdir()) if self.path.is_dir() else []:
            if path.name == ASIDE or path.name.startswith(TEMPORARY):
                continue
            part = _read_part(path)
            if part is None:
                foreign.append(path.name)
            else:
                yield part
        if foreign:
            raise UsageError(
                f"out={str(self.path)!r} holds what no run wrote into it, and nothing of it is "
                f"overwritten: {_list_names(foreign)}. Name an empty folder."
            )

    def open(self) -> None:
        """Make the folder, and keep other runs out.

        Raises:
            UsageError: another run writes to it, or it cannot be written.
        """
        try:
            (self.path / ASIDE).mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ASIDE / LOCK).open("a")
        except OSError as error:
            raise UsageError(
                f"out={str(self.path)!r} cannot be written: {error.strerror}."
            ) from None
        if not _lock_file(self._lock):
            self.close()
            raise UsageError(f"Another run writes to out={str(self.path)!r}; wait until it ends.")
        for path in [*self.path.glob(f"{TEMPORARY}*"), *(self.path / ASIDE).glob(f"{TEMPORARY}*")]:
            path.unlink()

    def close(self) -> None:
        """Let other runs in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def same(self) -> dict[str, WrittenPart]:
        """The parts that are there and were asked the same, by their keys."""
        return {part.key: part for part in self.earlier if part.question == self.question}

    @property
    def others(self) -> list[WrittenPart]:
        """The parts that are there and were asked something else."""
        return [part for part in self.earlier if part.question != self.question]

    def write(self, new: NewPart) -> WrittenPart:
        """Write a part; it is there once this returns, and not before."""
        path = self.path / _name_part(new.number, new.key)
        part = WrittenPart(
            path,
            new.key,
            self.question,
            new.rows,
            new.table.schema.remove_metadata(),
            secrets.token_hex(8),
            new.columns,
            new.counts,
            new.corrections,
        )
        _write_table(part.status_path, new.statuses)
        if new.failures:
            records = [asdict(failure) for failure in new.failures]
            _write_table(part.failures_path, pa.Table.from_pylist(records, FAILURE_SCHEMA))
        _write_table(path, new.table, _describe_part(part))
        return part

    def keep(self, part: WrittenPart, number: int) -> WrittenPart:
        """Give a part that is there its place among all parts."""
        path = self.path / _name_part(number, part.key)
        if path == part.path:
            return part
        part.path.rename(path)
        _flush_folder(self.path)
        return replace(part, path=path)

    def rewrite(self, part: WrittenPart, schema: pa.Schema) -> WrittenPart:
        """Write a part anew with wider types."""
        table = part.read().replace_schema_metadata(None)
        columns: list[Any] = []
        for new_field in schema:
            if new_field.name in table.column_names:
                columns.append(table.column(new_field.name).cast(new_field.type))
            else:
                columns.append(pa.nulls(table.num_rows, new_field.type))
        widened = replace(part, schema=schema)
        _write_table(part.path, pa.table(columns, schema=schema), _describe_part(widened))
        return widened

    def keep_only(self, parts: Sequence[WrittenPart]) -> None:
        """Remove all parts but these, and what belongs to no part."""
        paths = {part.path for part in parts}
        for earlier in self.earlier:
            if earlier.path not in paths:
                earlier.path.unlink(missing_ok=True)
        paths |= {path for part in parts for path in (part.status_path, part.failures_path)}
        for path in (self.path / ASIDE).glob("*.parquet"):
            if path not in paths:
                path.unlink()

    def read_plan(self, call: str) -> str | None:
        """Return the plan of an earlier run, as JSON, if it was made for the same call."""
        try:
            noted = json.loads((self.path / ASIDE / PLAN).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return str(noted["plan"]) if noted.get("call") == call else None

    def write_plan(self, call: str, plan: str) -> None:
        """Note the plan, and which call it was made for."""
        path = self.path / ASIDE / PLAN
        with _write_whole(path) as temporary:
            text = json.dumps({"format": FORMAT, "call": call, "plan": plan})
            temporary.write_text(text, "utf-8")


def joined_schema(parts: Sequence[WrittenPart]) -> pa.Schema:
    """Return the schema that holds the rows of all parts."""
    schema = parts[0].schema
    for part in parts[1:]:
        if not part.schema.equals(schema):
            schema = join_schemas(schema, part.schema)
    return schema


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:MOST_NAMED]))
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def part_starts(parts: Sequence[WrittenPart]) -> list[int]:
    """Return the position of each part's first row in the whole input."""
    return [0, *itertools.accumulate(part.rows for part in parts)][: len(parts)]


def _name_part(number: int, key: str) -> str:
    return f"part-{number:05d}-{key[:12]}.parquet"


def _describe_part(part: WrittenPart) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "key": part.key,
        "question": part.question,
        "rows": part.rows,
        "token": part.token,
        "columns": [list(names) for names in part.columns],
        "counts": dict(part.counts),
        "corrections": part.corrections,
    }


def _read_part(path: Path) -> WrittenPart | None:
    """Read what a file says of itself; None if it is no part."""
    if path.suffix != ".parquet" or not path.is_file():
        return None
    try:
        schema = pq.read_schema(path)
        notes = json.loads((schema.metadata or {})[NOTES])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    if notes.pop("format", None) != FORMAT:
        return None
    return WrittenPart(path=path, schema=schema.remove_metadata(), **notes)


def _write_table(path: Path, table: pa.Table, notes: Mapping[str, Any] | None = None) -> None:
    if notes is not None:
        table = table.replace_schema_metadata({NOTES: json.dumps(notes).encode()})
    with _write_whole(path) as temporary:
        pq.write_table(table, temporary)


@contextlib.contextmanager
def _write_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes ``path`` once what was written is on the disk."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, if the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock_file(file: Any) -> bool:
    """Lock a file until it is closed, or until this process ends; False if another has it."""
    try:
        import fcntl  # noqa: PLC0415 (Windows has none)
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
