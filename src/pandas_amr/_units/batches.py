"""What is larger than memory, part by part: files, a dataset of Arrow, or a stream of frames."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from pandas_amr._records.raised import describe_error
from pandas_amr._units.file_patterns import find_files, order_files
from pandas_amr._units.part_tables import (
    check_labels,
    join_file_schemas,
    join_schemas,
    plain_schema,
    plain_table,
    table_of,
)
from pandas_amr._units.profile import spread
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_ROWS = 100_000  # of a part
MOST_BYTES = 64 * 2**20  # of a part, as Arrow holds it
BATCH_ROWS = 8192  # read from a file at a time, if they are not larger than
BATCH_BYTES = 8 * 2**20
SAMPLE_ROWS = 2000
SAMPLE_PLACES = 20  # of the files or row groups that the sample is drawn from
FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
HOW_TO_STREAM = (
    "a path, a glob, a list of paths, a pyarrow Dataset, a RecordBatchReader, or an iterator of "
    "frames"
)


@dataclass(frozen=True, slots=True)
class InputPart:
    """Some rows of the input, in its order.

    Attributes:
        key: tells the part from all others, and from itself if its rows are changed.
        name: where it comes from, for people.
        rows: how many rows it has.
        table: the rows; None if they need not be read.
    """

    key: str
    name: str
    rows: int
    table: pa.Table | None


class Source(Protocol):
    """An input that is read part by part.

    Attributes:
        schema: that of every part.
        rows: how many rows there are; None if that is known only at the end.
        sample: some of the rows, which a plan is made from.
        files: the files that are read.
    """

    schema: pa.Schema
    rows: int | None
    sample: pa.Table
    files: Sequence[Path]

    def parts(self, done: Mapping[str, int]) -> Iterator[InputPart]:
        """Read the parts, without those that are done: ``done`` has their rows by their keys."""
        ...


def open_source(value: object) -> Source:
    """Open what is larger than memory.

    Raises:
        UsageError: it cannot be read part by part.
    """
    paths = list_paths(value)
    if paths:
        return _open_files(paths)
    if isinstance(value, ds.FileSystemDataset) and not _is_filtered(value):
        return FileSource(value)
    if isinstance(value, ds.Dataset):
        batches = value.to_batches(batch_readahead=1, fragment_readahead=1)
        return StreamSource(batches)
    if isinstance(value, pd.DataFrame):
        return StreamSource([value])
    if hasattr(value, "__arrow_c_stream__"):
        return StreamSource(pa.RecordBatchReader.from_stream(value))
    if isinstance(value, Iterable) and not isinstance(value, dict | bytes | pd.Series):
        return StreamSource(value)
    raise UsageError(f"With out= the first argument is {HOW_TO_STREAM}, not {_kind_of(value)}.")


def is_stream(value: object) -> bool:
    """Tell whether a value can be read part by part, if no frame can be made of it."""
    return isinstance(value, str | os.PathLike | ds.Dataset | Iterator)


def list_paths(value: Any) -> list[str]:
    """Return the paths and globs that a value names; none if it is something else."""
    paths = [value]
    if isinstance(value, list | tuple):
        paths = list(value)
    if not all(isinstance(path, str | os.PathLike) for path in paths):
        return []
    return [os.fspath(path) for path in paths]


def _kind_of(value: object) -> str:
    return type(value).__name__


def _is_filtered(dataset: ds.Dataset) -> bool:
    """Tell whether a dataset has a filter, which its files do not know of."""
    return bool(getattr(dataset, "_scan_options", None))


def _open_files(patterns: Sequence[str]) -> FileSource:
    """Open the files that paths and globs name, in the order of their paths.

    Raises:
        UsageError: there are none, they are of several formats, or of one that is not read.
    """
    paths = _find_paths(patterns)
    shown = ", ".join(map(repr, patterns[:3]))
    if not paths:
        raise UsageError(f"No file is named by {shown}.")
    formats = {_format_of(path) for path in paths}
    if len(formats) > 1:
        raise UsageError(f"{shown}: files of several formats ({', '.join(sorted(formats))}).")
    [name] = formats
    files = [str(path) for path in paths]
    try:
        dataset = ds.dataset(files, format=name, partitioning="hive")
    except (pa.ArrowException, OSError) as error:
        problem = _describe(error)
        if name == "parquet":  # only its schema is read here: the error's text can quote no cell
            problem = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"{shown} cannot be read: {problem}.") from None
    return FileSource(dataset, joins=True)


def _find_paths(patterns: Sequence[str]) -> list[Path]:
    """Find the files, but for hidden ones.

    Raises:
        UsageError: a pattern is no path of this machine, or a folder cannot be listed.
    """
    for pattern in patterns:
        if "://" in pattern:
            raise UsageError(
                f"{pattern!r} is not a path here; for files elsewhere pass a pyarrow Dataset: "
                "pyarrow.dataset.dataset(...)."
            )
    found = find_files(patterns)
    if found.closed:
        folder, reason = next(iter(found.closed.items()))
        raise UsageError(f"{str(folder)!r} cannot be read: {reason}.")
    named: set[str] = set()
    for pattern in patterns:
        named.update(Path(os.path.expanduser(pattern)).parts)  # noqa: PTH111 (as find_files does)
    return [path for path in order_files(found.paths) if not _is_hidden(path, named)]


def _is_hidden(path: Path, named: set[str]) -> bool:
    """Whether a file is hidden, or stands in a hidden folder that no pattern names.

    A folder that ``out=`` made holds one, so that the next call can read it.
    """
    folders = [part for part in path.parent.parts if part not in named]
    return any(part.startswith((".", "_")) for part in [*folders, path.name])


def _format_of(path: Path) -> str:
    """Return the format of a file by the end of its name.

    Raises:
        UsageError: it is not one that is read.
    """
    name = FORMATS.get(path.suffix.lower())
    if name is None:
        raise UsageError(
            f"{str(path)!r} is of no format that is read part by part: {', '.join(FORMATS)}. "
            "Documents are read by amr.read_files(...)."
        )
    return name


def _describe(error: Exception) -> str:
    """Say what kind of error it is, since the text of Arrow's may quote a cell."""
    return describe_error(error).partition(":")[0]


class FileSource:
    """Files, each in parts of its own: a file that is changed costs its own parts only.

    Args:
        dataset: the files.
        joins: whether the schema is made as wide as all files need it. That of a dataset of the
            user's stays as it is.
    """

    def __init__(self, dataset: ds.FileSystemDataset, *, joins: bool = False) -> None:
        self._has_own_schema = not joins
        self._fragments: list[Any] = list(dataset.get_fragments())
        self._names = _short_names([fragment.path for fragment in self._fragments])
        self._scanned = dataset.schema.remove_metadata()
        for fragment, name in zip(self._fragments, self._names, strict=True):
            with _explain_failure(name):
                _ = fragment.physical_schema  # opens the file
        if joins:
            self._scanned = join_file_schemas(self._scanned, self._fragments, self._names)
        self.schema: pa.Schema = plain_schema(self._scanned)
        check_labels(self.schema)
        self.files: Sequence[Path] = [Path(fragment.path) for fragment in self._fragments]
        self.rows: int | None = self._count_rows()
        self.sample = self._draw_sample()

    def _count_rows(self) -> int | None:
        """Count the rows if the files say how many they have, without being read."""
        rows = 0
        for fragment in self._fragments:
            of_file = self._rows_of(fragment)
            if of_file is None:
                return None
            rows += of_file
        return rows

    def parts(self, done: Mapping[str, int]) -> Iterator[InputPart]:
        """Read the parts of each file."""
        is_empty = True
        for fragment, name in zip(self._fragments, self._names, strict=True):
            for part in self._parts_of(fragment, name, done):
                is_empty = False
                yield part
        if is_empty:
            yield InputPart(_make_key("empty"), "no rows", 0, self.schema.empty_table())

    def _parts_of(
        self, fragment: object, name: str, done: Mapping[str, int]
    ) -> Iterator[InputPart]:
        identity = self._identify(fragment, name)
        start = 0
        if identity is None:
            for table in cut_tables(_explain_failures(self._tables_of(fragment), name)):
                key = _make_key(name, start, _digest_table(table))
                yield InputPart(key, name, table.num_rows, None if key in done else table)
                start += table.num_rows
            return
        while (key := _make_key(*identity, start)) in done:
            yield InputPart(key, name, done[key], None)
            start += done[key]
        if start and start == self._rows_of(fragment):
            return
        tables = _explain_failures(self._tables_of(fragment), name)
        for table in cut_tables(_skip_rows(tables, start)):
            key = _make_key(*identity, start)
            rows = None if key in done else table
            yield InputPart(key, name, table.num_rows, rows)
            start += table.num_rows

    def _identify(self, fragment: Any, name: str) -> tuple[Any, ...] | None:
        """Return what tells a file from others, and from itself if it is written or read anew.

        None if only its rows do: its file system tells no time, or it has options of the user's by
        which its text is read.
        """
        info = fragment.filesystem.get_file_info(fragment.path)
        is_binary = isinstance(fragment.format, ds.ParquetFileFormat | ds.IpcFileFormat)
        if info.mtime_ns is None or (self._has_own_schema and not is_binary):
            return None
        groups = None
        if isinstance(fragment, ds.ParquetFileFragment):
            groups = [group.id for group in fragment.row_groups]
        identity = (name, info.size, info.mtime_ns, groups)
        reading = self._describe_reading(fragment, name)
        return (*identity, reading) if any(reading) else identity

    def _describe_reading(self, fragment: Any, name: str) -> tuple[dict[str, str], dict[str, str]]:
        """Describe what a part holds that its file does not say.

        That are values of a partition that its name does not show, and columns that the user's
        schema leaves out or reads as another type.
        """
        shown = {folder.partition("=")[0] for folder in name.split("/")[:-1]}
        values = ds.get_partition_keys(fragment.partition_expression)
        hidden = {key: repr(value) for key, value in values.items() if key not in shown}
        changed: dict[str, str] = {}
        for field in fragment.physical_schema if self._has_own_schema else ():
            index = self._scanned.get_field_index(field.name)
            read_as = None if index < 0 else self._scanned.field(index).type
            if read_as != field.type:
                changed[field.name] = str(read_as)
        return hidden, changed

    def _rows_of(self, fragment: object) -> int | None:
        if not isinstance(fragment, ds.ParquetFileFragment):
            return None
        return int(fragment.count_rows())

    def _tables_of(self, fragment: Any) -> Iterator[pa.Table]:
        """Read a file in batches of bounded size."""
        options = {}
        if isinstance(fragment, ds.ParquetFileFragment):
            scan = ds.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
            options = {"fragment_scan_options": scan}
        batches = fragment.to_batches(
            schema=self._scanned,
            batch_size=_batch_rows(fragment),
            batch_readahead=1,
            fragment_readahead=1,
            **options,
        )
        for batch in batches:
            table = pa.Table.from_batches([batch])
            yield plain_table(table, self.schema)

    def _draw_sample(self) -> pa.Table:
        """Draw rows from all over the files and their row groups."""
        pieces: list[Any] = []
        for fragment in self._fragments:
            if isinstance(fragment, ds.ParquetFileFragment):
                pieces += fragment.split_by_row_group()
            else:
                pieces.append(fragment)
        if not pieces:
            return self.schema.empty_table()
        chosen = [pieces[place] for place in spread(len(pieces), SAMPLE_PLACES)]
        each = math.ceil(SAMPLE_ROWS / len(chosen))
        is_all = len(chosen) == len(pieces)
        tables = [self.schema.empty_table()]
        for piece in chosen:
            with _explain_failure(piece.path):
                tables.append(self._draw_from(piece, each, is_spread=is_all))
        return pa.concat_tables(tables)

    def _draw_from(self, piece: Any, count: int, *, is_spread: bool) -> pa.Table:
        """Draw rows of a file or a row group: its first ones, or rows from all over it."""
        rows = self._rows_of(piece)
        wanted = list(range(count))
        if rows and is_spread:
            wanted = spread(rows, count)
        tables = [self.schema.empty_table()]
        start = 0
        name = Path(piece.path).name
        for table in _explain_failures(self._tables_of(piece), name):
            if start > wanted[-1]:
                break
            end = start + table.num_rows
            inside = [place - start for place in wanted if start <= place < end]
            tables.append(table.take(pa.array(inside, pa.int64())))
            start = end
        return pa.concat_tables(tables)


def _explain_failures(tables: Iterator[pa.Table], name: str) -> Iterator[pa.Table]:
    """Give tables as they come, and say which file cannot be read if it cannot."""
    with _explain_failure(name):
        yield from tables


@contextmanager
def _explain_failure(name: str) -> Iterator[None]:
    """Say which file cannot be read if it cannot.

    Raises:
        UsageError: it cannot.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{name!r} cannot be read: {_describe(error)}.") from None


def _batch_rows(fragment: object) -> int:
    """Return how many rows of a file to read at a time."""
    metadata = getattr(fragment, "metadata", None)
    if metadata is None or not metadata.num_rows:
        return BATCH_ROWS
    size = 0
    for number in range(metadata.num_row_groups):
        size += metadata.row_group(number).total_byte_size
    of_row = max(1, int(size // metadata.num_rows))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // of_row))


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return the paths below the folder that all of them are in."""
    if not paths:
        return []
    folders = [os.path.dirname(path) or "." for path in paths]  # noqa: PTH120
    base = os.path.commonpath(folders)
    return [Path(os.path.relpath(path, base)).as_posix() for path in paths]


def _make_key(*identity: Any) -> str:
    text = json.dumps(identity)
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _skip_rows(tables: Iterator[pa.Table], count: int) -> Iterator[pa.Table]:
    """Leave out the first rows."""
    for table in tables:
        skipped = min(count, table.num_rows)
        count -= skipped
        if skipped < table.num_rows:
            yield table.slice(skipped)


def cut_tables(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables that follow each other into parts of at most so many rows and about so many bytes.

    Small tables are joined. The cuts depend on the rows and on the tables, and on nothing else.
    """
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        for piece in _cut_large(table):
            rest = piece
            while rest.num_rows:
                taken = rest.slice(0, MOST_ROWS - rows)
                if waiting and size + taken.nbytes > MOST_BYTES:
                    yield _join(waiting)
                    waiting, rows, size = [], 0, 0
                    continue
                rest = rest.slice(taken.num_rows)
                waiting.append(taken)
                rows += taken.num_rows
                size += taken.nbytes
                if rows == MOST_ROWS:
                    yield _join(waiting)
                    waiting, rows, size = [], 0, 0
    if waiting:
        yield _join(waiting)


def _join(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="permissive")


def _cut_large(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table of more bytes than a part may have."""
    pieces = max(1, math.ceil(table.nbytes / MOST_BYTES))
    step = max(1, math.ceil(table.num_rows / pieces))
    for start in range(0, table.num_rows, step):
        yield table.slice(start, step)


class StreamSource:
    """Frames or batches that come one by one, and once; known by their content.

    The first part is read when it is opened: the sample is drawn from it.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.rows: int | None = None
        self.files: Sequence[Path] = ()
        self._items = iter(items)
        self._first_schema: pa.Schema | None = None
        schema = getattr(items, "schema", None)
        if isinstance(schema, pa.Schema):
            self._first_schema = schema
        self._joined_schema: pa.Schema | None = None
        self._number = 0
        self._parts = cut_tables(self._tables())
        self._first = next(self._parts, None)
        if self._first is None and self._first_schema is None:
            raise UsageError("The iterator gives no frame, so that its columns are not known.")
        assert self._first_schema is not None
        self.schema = plain_schema(self._first_schema)
        check_labels(self.schema)
        if self._first is None:
            self.sample = self.schema.empty_table()
        else:
            places = spread(self._first.num_rows, SAMPLE_ROWS)
            self.sample = self._first.take(pa.array(places, pa.int64()))

    def _tables(self) -> Iterator[pa.Table]:
        """Convert what comes to tables with the same columns."""
        for item in self._items:
            self._number += 1
            table = table_of(item, self._number)
            if self._first_schema is None:
                self._first_schema = table.schema
            if table.schema.names != self._first_schema.names:
                raise UsageError(
                    f"Frame {self._number} has other columns than the first: "
                    f"{table.schema.names}, not {self._first_schema.names}."
                )
            yield self._widen(table)

    def _widen(self, table: pa.Table) -> pa.Table:
        """Give a table the types that those before need, too.

        Raises:
            UsageError: a column's values cannot stand beside those before.
        """
        schema = plain_schema(table.schema, keeps_null=True)
        if self._joined_schema is None:
            self._joined_schema = schema
        try:
            self._joined_schema = join_schemas(self._joined_schema, schema)
            return plain_table(table, self._joined_schema)
        except UsageError as error:
            raise UsageError(f"Frame {self._number}: {error}.") from None
        except pa.ArrowInvalid:
            raise UsageError(
                f"Frame {self._number}: its values do not fit the types of those before."
            ) from None

    def parts(self, done: Mapping[str, int]) -> Iterator[InputPart]:
        """Read on. A part is known by a digest of its rows, and by how often they came before."""
        seen: dict[str, int] = {}
        number = 0
        table = self._first
        if table is None:
            table = self.schema.empty_table()
        self._first = None
        while table is not None:
            number += 1
            digest = _digest_table(table)
            seen[digest] = seen.get(digest, 0) + 1
            key = _make_key(digest, seen[digest])
            rows = None if key in done else table
            yield InputPart(key, f"batch {number}", table.num_rows, rows)
            table = next(self._parts, None)


def _digest_table(table: pa.Table) -> str:
    """Digest the names, the types and the rows of a table, however it is cut into chunks."""
    sink = pa.BufferOutputStream()
    whole = table.combine_chunks().unify_dictionaries()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()
