r"""The process in which code runs: a live Python that runs one cell after another.

One file that needs pandas only: it is also a script that serves over standard input and output.

The host speaks first, and checks all that this process sends. A message is four bytes of length, a
JSON object of that length, and then the bytes that its ``blobs`` (a list of lengths) announces.

================================================  ================================================
host sends                                        worker sends
================================================  ================================================
``{"do": "open", "id", "name", "labels", ...}``   ``{"id", "ok"}``, and ``"out"`` if not ok
``{"do": "run", "id", "code"}``                   ``{"id", "ok", "out", "cut", "submitted"}``
\                                                 before it, questions: ``{"id", "ask"}`` and texts
``{"do": "answer", "id", "ok", "out"}`` and Parquet
================================================  ================================================
"""

from __future__ import annotations

import ast
import contextlib
import json
import linecache
import math
import os
import re
import signal
import sys
import threading
import traceback
from io import TextIOBase
from types import FrameType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_SHARE = 0.6
TRACEBACK_CHARS = 4000
# Values in one message: JSON that is all brackets costs the host memory and time.
MAX_VALUES = 1_000_000
CELL_BYTES = 1 << 20  # of one field of a finding, which goes into one cell of the frame
VALUE_BYTES = 16  # the least that a value takes
ASK_CHARS = 8_000  # of the instruction of a question, and of its schema
ASK_BYTES = 1 << 24  # of the texts of one question
MISSING_TEXT = -1  # stands for the length of a missing text
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
DISPLAY = {
    "display.width": 160,
    "display.max_columns": 30,
    "display.max_rows": 40,
    "display.max_colwidth": 100,
}
KINDS = {str: "str", int: "int", float: "float", bool: "bool"}
KIND_NAMES = (*KINDS.values(), *(f"list[{name}]" for name in KINDS.values()))
UNIT = "unit"  # the column, or the key, with a row's number in the shard
MISSING = (None,)  # stands for a missing label
HERE = __file__
COLUMN, LEVEL = "column", "level"  # kinds of arrays whose dtype the labels do not state


class HostGone(Exception):
    """The host has closed the stream."""


class Stream:
    """Messages over a pair of file descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """Read the next message and its blobs.

        Raises:
            HostGone: the host has closed the stream.
        """
        size = int.from_bytes(self._read_exactly(4), "big")
        header = json.loads(self._read_exactly(size))
        blobs = [self._read_exactly(size) for size in header.get("blobs", ())]
        return header, blobs

    def send(self, header: dict[str, Any], *blobs: bytes) -> None:
        """Send one message."""
        lengths = [len(blob) for blob in blobs]
        text = json.dumps(header | {"blobs": lengths}).encode()
        size = len(text).to_bytes(4, "big")
        rest = memoryview(size + text + b"".join(blobs))
        while rest:
            written = os.write(self._sink, rest)
            rest = rest[written:]

    def _read_exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = os.read(self._source, min(size - len(parts), 1 << 20))
            if not part:
                raise HostGone
            parts += part
        return bytes(parts)


class Output(TextIOBase):
    """Collects what code prints: its beginning, its end, and its length."""

    def __init__(self, max_chars: int) -> None:
        self._head_size = int(max_chars * HEAD_SHARE)
        self._tail_size = max_chars - self._head_size
        self._head = ""
        self._tail = ""
        self.seen = 0

    def writable(self) -> bool:
        """Return True: it takes text."""
        return True

    def isatty(self) -> bool:
        """Return False, so that libraries write no colours."""
        return False

    def write(self, text: Any) -> int:
        """Keep the text up to the limit."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes a text, not {type(text).__name__}")
        self.seen += len(text)
        room = self._head_size - len(self._head)
        self._head += text[:room]
        if len(text) > room:
            start = max(room, len(text) - self._tail_size)
            tail = self._tail + text[start:]
            self._tail = tail[-self._tail_size :]
        return len(text)

    def read_all(self) -> tuple[str, int]:
        """Return the text, and how many characters were cut out of it."""
        cut = self.seen - len(self._head) - len(self._tail)
        middle = f"\n... {cut} characters cut ...\n" if cut else ""
        text = self._head + middle + self._tail
        return ANSI.sub("", text), cut


class Worker:
    """One session: its frame, its variables, its cells."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._namespace: dict[str, Any] = {}
        self._in_cell = False
        self._interrupted = False
        self._cells = 0
        self._id = ""
        self._name = "df"
        self._index: Any = None
        self._output_chars = 10_000
        self._result_bytes = 1 << 26
        self._asks = 1000
        self._findings: list[dict[str, Any]] | None = None
        self._value: dict[str, Any] | None = None

    def serve(self, shard: memoryview | None = None) -> None:
        """Answer the host until it closes the stream.

        Args:
            shard: the frame as Parquet; None if it comes with the first message.
        """
        signal.signal(signal.SIGINT, self._on_interrupt)
        while True:
            message, blobs = self._stream.receive()
            self._id = message["id"]
            if message["do"] == "open":
                parquet: memoryview | bytes | None = shard
                if shard is None and blobs:
                    parquet = blobs[0]
                self._open(message, parquet)
            elif message["do"] == "run":
                self._run(message["code"])

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._in_cell:
            raise KeyboardInterrupt
        self._interrupted = True

    def _open(self, message: dict[str, Any], shard: memoryview | bytes | None) -> None:
        """Set the session up as the host's message says, and load the frame."""
        import pandas as pd

        for option, value in DISPLAY.items():
            pd.set_option(option, value)
        self._name = message["name"]
        self._output_chars = message["output_chars"]
        self._result_bytes = message["result_bytes"]
        self._asks = message["asks"]
        self._make_namespace(message.get("files", {}))
        self._index = pd.RangeIndex(0)
        try:
            if shard is not None:
                frame = load_frame(shard, message["labels"])
                self._namespace[self._name] = frame
                # A view is the same index to pandas, and stays as it is when code changes `df`.
                self._index = frame.index.view()
        except Exception:  # noqa: BLE001 (the host sent the frame, and reports the failure)
            problem = traceback.format_exc()[-TRACEBACK_CHARS:]
            self._stream.send({"id": self._id, "ok": False, "out": problem})
        else:
            self._stream.send({"id": self._id, "ok": True})

    def _make_namespace(self, files: dict[str, str]) -> None:
        """Make the module in which cells run, with the names that code may use."""
        import numpy as np
        import pandas as pd

        main = ModuleType("__main__")
        sys.modules["__main__"] = main
        self._namespace = main.__dict__
        self._namespace.update(pd=pd, np=np, submit=self._submit, files=files, ask=self._ask)

    def _run(self, code: str) -> None:
        """Run a cell, and send its output and what it submitted."""
        output = Output(self._output_chars)
        self._findings = self._value = None
        streams = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = output
        ok = False
        submitted = b""
        self._interrupted = False
        try:
            self._in_cell = True
            try:
                ok = self._execute(code, output)
                if ok:
                    submitted = self._pack_submitted()
            finally:
                self._in_cell = False
        except KeyboardInterrupt:
            ok = False
            output.write("\nKeyboardInterrupt")
        except MemoryError:  # what was raised may be too large to be shown
            ok = False
            output.write("MemoryError\n")
        except Exception:  # noqa: BLE001 (what cannot be submitted: the code's author gets to read why)
            ok = False
            output.write(traceback.format_exc()[-TRACEBACK_CHARS:])
        finally:
            sys.stdout, sys.stderr = streams
        text, cut = output.read_all()
        reply = {"id": self._id, "ok": ok, "out": text, "cut": cut, "submitted": bool(submitted)}
        blobs = [submitted] if submitted else []
        self._stream.send(reply, *blobs)

    def _execute(self, code: str, output: Output) -> bool:
        """Run a cell as a REPL does: show the value of a last expression. Tell if it succeeded."""
        self._cells += 1
        name = f"<cell {self._cells}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        try:
            tree = ast.parse(code, name)
            last = tree.body[-1] if tree.body else None
            if isinstance(last, ast.Expr):
                tree.body.pop()
            statements = compile(tree, name, "exec")
            exec(statements, self._namespace)  # noqa: S102 (its purpose)
            if isinstance(last, ast.Expr):
                expression = compile(ast.Expression(last.value), name, "eval")
                value = eval(expression, self._namespace)  # noqa: S307 (its purpose)
                if value is not None:
                    output.write(f"{value!r}\n")
                    self._namespace["_"] = value
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (the code's author gets to read it)
            output.write(_format_error(error, error.__traceback__))
            return False
        return True

    # Functions that code may call

    def _submit(self, value: Any, sources: Any = None) -> None:
        """Submit the result: one finding per unit of a shard (a frame or dicts), else a value.

        Rows with ``df``'s own index (index=df.index) or a fresh one are those of ``df`` in their
        order. Rows with ``df``'s labels in another order are matched by label. A column ``unit``
        with each row's number in ``df``, from 0, names the rows directly, also a part of them. It
        is an error if the rows stay ambiguous.
        """
        if self._name == "df":
            try:
                records = self._match_findings(value)
            except ValueError as error:
                raise ValueError(f"submit() {error}") from None
            self._findings = [*(self._findings or ()), *records]
        else:
            self._value = {"output": _to_json(value)}
            if sources is not None:
                self._value["sources"] = _to_json(list(sources))

    def _match_findings(self, value: Any) -> list[dict[str, Any]]:
        """Match submitted findings with the rows of ``df``; return records with their units."""
        numbers, records = self._read_records(value)
        findings = []
        for number, record in zip(numbers, records, strict=True):
            fields = {str(key): _to_json(value) for key, value in record.items()}
            large = find_large(fields)
            if large is not None:
                most = f"{CELL_BYTES >> 20} MB"
                raise ValueError(
                    f"takes {most} per field, and {large[:100]!r} of unit {number} has more"
                )
            findings.append(fields | {UNIT: number})
        return findings

    def _read_records(self, value: Any) -> tuple[list[int], list[dict[str, Any]]]:
        """Return the row numbers and the records of a frame, a Series, or a list."""
        import pandas as pd

        if isinstance(value, pd.DataFrame):
            names = [str(name) for name in value.columns]
            if len(set(names)) < len(names):
                raise ValueError("takes a frame whose columns have different names")
            units = value[UNIT] if UNIT in value.columns else None
            numbers = match_rows(value.index, self._index, units=units)
            return numbers, value.to_dict("records")  # type: ignore[return-value]
        if isinstance(value, pd.Series):
            numbers = match_rows(value.index, self._index)
            is_named = value.name is not None and value.name != UNIT
            name = value.name if is_named else "finding"
            frame = value.to_frame(name)
            return numbers, frame.to_dict("records")  # type: ignore[return-value]
        records = _list_records(value)
        return match_records(records, len(self._index)), records

    def _pack_submitted(self) -> bytes:
        """Pack what the cell submitted as JSON; nothing if it submitted nothing."""
        payload: Any = self._value if self._findings is None else {"findings": self._findings}
        if payload is None:
            return b""
        packed = json.dumps(payload, default=str).encode()
        if len(packed) > self._result_bytes:
            raise ValueError(
                f"submit() takes {self._result_bytes >> 20} MB, not {len(packed) >> 20} MB"
            )
        if count_values(packed) > MAX_VALUES:
            raise ValueError(f"submit() takes at most {MAX_VALUES:,} values")
        return packed

    def _ask(self, texts: Any, instruction: str, schema: Any = None) -> Any:
        """Have the model read ``texts``: one answer each, in a frame with ``schema``'s columns.

        ``schema`` is a dict of names to ``str``, ``int``, ``float``, ``bool``, lists of one of
        these or a list of choices; without it there is one column ``answer``.
        """
        import pandas as pd

        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "ask() must be called from the main thread. Pass all texts at once: they are read "
                "in parallel"
            )
        index = texts.index if isinstance(texts, pd.Series) else None
        if isinstance(texts, str):
            texts = [texts]
        packed, lengths = self._pack_texts(texts)
        kinds = schema or {"answer": str}
        fields = {str(name): _field_kind(kind) for name, kind in kinds.items()}
        if len(instruction) > ASK_CHARS or len(json.dumps(fields)) > ASK_CHARS:
            raise RuntimeError(
                f"ask() takes an instruction and a schema of {ASK_CHARS:,} characters each"
            )
        question = {"lengths": lengths, "instruction": instruction, "schema": fields}
        answer, parquet = self._exchange(question, packed)
        frame = load_frame(parquet, answer["labels"])
        if answer["out"]:
            print(answer["out"])  # noqa: T201 (part of the cell's output)
        if index is None:
            return frame
        return frame.set_axis(index, axis=0)

    def _exchange(self, question: dict[str, Any], texts: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a question to the host, and return its answer.

        Raises:
            KeyboardInterrupt: the cell was interrupted meanwhile.
            RuntimeError: the host could not answer.
        """
        self._in_cell = False  # an interrupt must not break a message in two
        try:
            self._stream.send({"id": self._id, "ask": question}, texts)
            answer, blobs = self._stream.receive()
        finally:
            self._in_cell = True
        if self._interrupted:
            raise KeyboardInterrupt
        if not answer["ok"]:
            raise RuntimeError(answer["out"])
        return answer, blobs[0]

    def _pack_texts(self, texts: Any) -> tuple[bytes, list[int]]:
        """Join the texts of a question as bytes; return them, and the length of each."""
        parts: list[bytes] = []
        lengths: list[int] = []
        for text in texts:
            value = _to_json(text)
            if value is None:
                lengths.append(MISSING_TEXT)
                continue
            if not isinstance(value, str):
                value = json.dumps(value)
            part = value.encode("utf-8", "replace")
            parts.append(part)
            lengths.append(len(part))
        if len(lengths) > self._asks:
            raise RuntimeError(f"ask() takes {self._asks} texts in all, not {len(lengths)}")
        size = sum(map(len, parts))
        if size > ASK_BYTES:
            raise RuntimeError(
                f"ask() takes {ASK_BYTES >> 20} MB of texts at once, not {size >> 20} MB"
            )
        return b"".join(parts), lengths


def match_rows(given: Any, shard: Any, *, units: Any = None, name: str = "df") -> list[int]:
    """Match the rows of a frame or Series that code made with the rows of the shard.

    They are matched by ``units`` if given, else by position if the index is the shard's own or a
    fresh one, else by label if the labels are unique and the shard's. A fresh index is never read
    as labels, and repeated labels are never read as an order.

    Args:
        given: the index of the frame or Series.
        shard: the index of the shard.
        units: the column ``unit`` of the frame, if it has one.
        name: the shard's name where the code runs.

    Returns:
        The number in the shard of each given row, from 0.

    Raises:
        ValueError: the rows cannot be matched; the message says what would help.
    """
    if units is not None:
        return match_numbers(units, len(shard), name=name)
    if given.is_(shard):  # the very same index, in the same order; its labels may be repeated
        return list(range(len(shard)))
    numbers, problem = _match_labels(given, shard, name)
    if problem:
        raise ValueError(
            f"cannot tell which rows of {name} these {len(given)} are: {problem}. Give them "
            f"{name}'s own index (index={name}.index), or a column `{UNIT}` with each row's number "
            f"in {name}, from 0"
        )
    return numbers


def _match_labels(given: Any, shard: Any, name: str) -> tuple[list[int], str]:
    """Match an index with the shard's; return the rows' numbers, or why they are not known."""
    if len(given) != len(shard):
        return [], f"{name} has {len(shard)} rows"
    if _is_renamed(given, shard):
        return [], f"their index has a name that is not one of {name}'s"
    in_order = list(range(len(shard)))
    labels = _labels_of(given)
    shard_labels = _labels_of(shard)
    places = dict(zip(shard_labels, in_order, strict=True))
    has_repeated = len(places) < len(in_order)
    if labels == shard_labels and not has_repeated:
        return in_order, ""
    if labels == in_order:
        if places.keys() == set(in_order):
            return [], f"their index is a fresh one, and {name} has these labels in another order"
        return in_order, ""
    if has_repeated:
        return [], f"labels of {name} are repeated, and this is not its own index in its order"
    if places.keys() != set(labels):
        return [], f"their labels are not those of {name}"
    return [places[label] for label in labels], ""


def _is_renamed(given: Any, shard: Any) -> bool:
    """Tell whether an index has a name that the shard's does not have.

    The index of ``df.groupby("id")`` has ids as labels, which may look like the shard's.
    """
    for name, own in zip(given.names, shard.names, strict=False):
        if name is not None and name != own:
            return True
    return False


def _labels_of(index: Any) -> list[Any]:
    """Return the labels of an index as keys: two are equal only if they are the same label."""
    if index.dtype.kind in "iu" and not index.hasnans:
        return list(index)
    return [_label_key(label) for label in index]


def _label_key(label: Any) -> Any:
    """Return a label as a key: True is not 1, missing labels are equal, a list equals nothing."""
    import numpy as np
    import pandas as pd

    if isinstance(label, tuple):
        return tuple(_label_key(part) for part in label)
    if isinstance(label, bool | np.bool_):
        return bool, bool(label)
    try:
        hash(label)
    except TypeError:
        return object()
    return MISSING if pd.isna(label) else label


def match_records(records: list[dict[str, Any]], rows: int, *, name: str = "df") -> list[int]:
    """Match a list of records with the rows of the shard.

    They are matched by ``unit`` if each has it, and by position if none has.

    Raises:
        ValueError: only some have ``unit``, or their number is not that of the rows.
    """
    units = [record[UNIT] for record in records if UNIT in record]
    if len(units) == len(records):
        return match_numbers(units, rows, name=name)
    if units:
        without = len(records) - len(units)
        raise ValueError(
            f"got {len(units)} findings with `{UNIT}` and {without} without; give it to all"
        )
    if len(records) != rows:
        raise ValueError(f"got {len(records)} findings without `{UNIT}`; {name} has {rows} rows")
    return list(range(rows))


def match_numbers(given: Any, rows: int, *, name: str = "df") -> list[int]:
    """Read the row numbers in a column ``unit``.

    Raises:
        ValueError: a number is not whole, not a row's, or repeated.
    """
    listed = list(given)
    numbers: list[int] = []
    for one in listed:
        number = _whole_number(one)
        if number is not None and 0 <= number < rows:
            numbers.append(number)
    if len(set(numbers)) < len(listed):
        raise ValueError(
            f"takes as `{UNIT}` the row's number in {name}: whole, from 0 to {rows - 1}, each once"
        )
    return numbers


def _whole_number(given: Any) -> int | None:
    """Return a whole number as an int; None if it is something else."""
    import numpy as np
    import pandas as pd

    if isinstance(given, str):
        return int(given) if given.isascii() and given.isdigit() else None
    if isinstance(given, bool | np.bool_) or not pd.api.types.is_number(given):
        return None
    number: Any = given
    return int(number) if number % 1 == 0 else None


def _list_records(given: Any) -> list[dict[str, Any]]:
    """Return a list of dicts as it is; make a record of each value of an array or other list."""
    import pandas as pd

    wrong_type = TypeError("submit() takes a frame, or a list of dicts: one finding per unit")
    if isinstance(given, str | bytes | set | frozenset) or getattr(given, "ndim", 1) != 1:
        raise wrong_type
    try:
        records = [given] if isinstance(given, dict) else list(given)
    except TypeError:
        raise wrong_type from None
    if all(isinstance(record, dict) for record in records):
        return records
    if all(pd.api.types.is_scalar(value) for value in records):
        return [{"finding": value} for value in records]
    raise wrong_type


def load_frame(parquet: memoryview | bytes, labels: dict[str, Any]) -> Any:
    """Load a frame from Parquet, with Arrow dtypes, its own column names and index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Unlike read_table, this starts no thread.
    reader = pa.BufferReader(pa.py_buffer(parquet))
    table = pq.ParquetFile(reader).read(use_threads=False)
    return decode_frame(table.replace_schema_metadata(None), labels, _session_array)


def _session_array(column: Any, kind: Any) -> Any:
    """Return a column as an Arrow array, a level of the index as a pandas array.

    A level of whole numbers with missing ones stays in Arrow: pandas would make floats of it.
    """
    import pandas as pd
    import pyarrow as pa

    if kind == COLUMN or (pa.types.is_integer(column.type) and column.null_count):
        return pd.arrays.ArrowExtensionArray(column)
    return column.to_pandas(use_threads=False)


def decode_frame(table: Any, labels: dict[str, Any], array_of: Any, makers: Any = None) -> Any:
    """Make a frame of a table: columns ``c0`` and so on, levels of the index ``i0`` and so on.

    The host uses it, too: its ``_units/codec.py`` has the encoder.

    Args:
        table: an Arrow table.
        labels: the names of columns and index, and their types.
        array_of: called with a column and its kind, makes an array. The kind is the type that
            ``labels`` state, else ``COLUMN`` or ``LEVEL``.
        makers: see ``decode``.
    """
    import pandas as pd

    levels = list(_make_arrays(table, "i", labels.get("level_dtypes"), LEVEL, array_of))
    index = _decode_index(levels, labels, makers)
    arrays = _make_arrays(table, "c", labels.get("dtypes"), COLUMN, array_of)
    columns: dict[int, Any] = {}  # by number: labels may be repeated
    for number, array in enumerate(arrays):
        columns[number] = pd.Series(array, index=index, dtype=array.dtype)
    frame = pd.DataFrame(columns, index=index)
    frame.columns = _decode_columns(labels, makers)
    return frame


def _make_arrays(
    table: Any, letter: str, kinds: list[Any] | None, default: str, array_of: Any
) -> Iterator[Any]:
    """Make an array of each column whose name begins with a letter, one after the other."""
    names = [name for name in table.column_names if name.startswith(letter)]
    for name, kind in zip(names, kinds or [default] * len(names), strict=True):
        yield array_of(table.column(name), kind)


def _decode_index(arrays: list[Any], labels: dict[str, Any], makers: Any) -> Any:
    import pandas as pd

    names = decode(labels["index_names"], makers)
    if labels.get("range") is not None:
        return pd.RangeIndex(range(*labels["range"]), name=names[0])
    if labels.get("levels") is not None:  # the arrays are codes of these levels
        levels = decode(labels["levels"], makers)
        return pd.MultiIndex(levels=levels, codes=arrays, names=names, verify_integrity=False)
    if len(arrays) > 1:
        return pd.MultiIndex.from_arrays(arrays, names=names)
    array = arrays[0]
    index: Any = pd.Index(array, dtype=array.dtype, tupleize_cols=False).rename(names[0])
    if labels.get("freq") is not None:
        index.freq = labels["freq"]
    return index


def _decode_columns(labels: dict[str, Any], makers: Any) -> Any:
    """Make the index of columns. If the labels state no types, pandas infers them."""
    import pandas as pd

    columns = decode(labels["columns"], makers)
    if isinstance(columns, pd.Index):
        return columns
    names = decode(labels["column_names"], makers)
    has_levels = all(isinstance(label, tuple) and len(label) == len(names) for label in columns)
    if columns and has_levels:
        return pd.MultiIndex.from_tuples(columns, names=names)
    dtype = None if columns else object
    return pd.Index(columns, dtype=dtype, name=names[0], tupleize_cols=False)


def decode(given: Any, makers: Any = None) -> Any:
    """Decode a value from JSON. An object there has one key: a type's name, with a list of parts.

    Args:
        given: JSON, as Python has it.
        makers: functions that make a value of its parts, by the name of its type; None takes those
            for labels.
    """
    if isinstance(given, list | tuple):
        return [decode(part, makers) for part in given]
    if isinstance(given, dict):
        ((name, parts),) = given.items()
        make = (makers or LABEL_MAKERS)[name]
        return make(*decode(parts, makers))
    return given


def make_tuple(*parts: Any) -> tuple[Any, ...]:
    """Return the parts as a tuple."""
    return parts


LABEL_MAKERS: dict[str, Any] = {"tuple": make_tuple, "float": float}


def _field_kind(given: Any) -> Any:
    """Return a field of ``ask(schema=)`` in the form that the host takes.

    Raises:
        RuntimeError: the type is not supported.
    """
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str):
        return {"kind": _field_kind(given[0]), "description": given[1]}
    if isinstance(given, list):
        return [_to_json(choice) for choice in given]
    name = str(given)
    if isinstance(given, type):
        name = KINDS.get(given, name)
    if name not in KIND_NAMES:
        raise RuntimeError(
            f"ask(schema=) takes for a field: {', '.join(KIND_NAMES)}, or a list of choices"
        )
    return name


def find_large(fields: dict[str, Any]) -> str | None:
    """Return the name of a field that is too large for one cell of a frame; None if none is."""
    for name, value in fields.items():
        if _count_bytes(value) > CELL_BYTES:
            return name
    return None


def _count_bytes(value: Any) -> int:
    """Return how many bytes a JSON value takes at least; stop when too many for a cell."""
    size = 0
    remaining = [value]
    while remaining and size <= CELL_BYTES:
        part = remaining.pop()
        size += VALUE_BYTES
        if isinstance(part, str):
            size += len(part) if part.isascii() else len(part.encode("utf-8", "surrogatepass"))
        elif isinstance(part, dict):
            remaining += part.keys()
            remaining += part.values()
        elif isinstance(part, list):
            remaining += part
    return size


def count_values(packed: bytes) -> int:
    """Estimate from above how many values a JSON text holds, without decoding it."""
    return packed.count(b",") + packed.count(b"[") + packed.count(b"{") + 1


def _to_json(value: Any) -> Any:
    """Convert a value to what JSON takes; missing values become None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {str(key): _to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_to_json(part) for part in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return _pandas_to_json(value)


def _pandas_to_json(value: Any) -> Any:
    """Convert a value of pandas, numpy or Arrow to what JSON takes."""
    import numpy as np
    import pandas as pd

    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.datetime64):
        return _to_json(pd.Timestamp(value))
    if isinstance(value, np.timedelta64):
        return _to_json(pd.Timedelta(value))
    if isinstance(value, pd.DataFrame):
        return [_to_json(record) for record in value.to_dict("records")]
    if isinstance(value, pd.Series):
        return {str(key): _to_json(part) for key, part in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return _to_json(_to_list(value))
    return _object_to_json(value)


def _to_list(value: Any) -> Any:
    """Return an array's items; of times, numpy's own list would have numbers of nanoseconds."""
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "kind", None) in ("m", "M"):
        return list(value)
    return value.tolist()


def _object_to_json(value: Any) -> Any:
    """Convert an object of a known type to what JSON takes; other objects are no findings."""
    import dataclasses
    import datetime as dt
    import decimal
    import enum
    import ipaddress
    import pathlib
    import uuid

    import pandas as pd

    if isinstance(value, enum.Enum):
        return _to_json(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _to_json(dataclasses.asdict(value))
    if hasattr(value, "model_dump"):  # a pydantic model; pydantic may be missing here
        return _to_json(value.model_dump())
    if isinstance(value, dt.timedelta):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, decimal.Decimal):
        return None if value.is_nan() else f"{value:f}"
    addresses = ipaddress.IPv4Address, ipaddress.IPv6Address
    if isinstance(value, (uuid.UUID, pathlib.PurePath, pd.Period, pd.Interval, *addresses)):
        return str(value)
    raise TypeError(f"submit() takes what JSON has a form for, not {type(value).__name__}")


def _format_error(error: BaseException, trace: TracebackType | None) -> str:
    """Format a traceback without the frames of this file, for the author of the code."""
    while trace is not None and trace.tb_frame.f_code.co_filename == HERE:
        trace = trace.tb_next
    summary = traceback.TracebackException(type(error), error, trace, limit=-8, compact=True)
    text = "".join(summary.format(chain=True))
    if len(text) <= TRACEBACK_CHARS:
        return text
    return f"{text[:500]}\n...\n{text[500 - TRACEBACK_CHARS :]}"


def main() -> None:
    """Serve over standard input and output, which code does not get: it gets /dev/null instead."""
    source = os.dup(0)
    sink = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    worker = Worker(Stream(source, sink))
    with contextlib.suppress(HostGone):
        worker.serve()


if __name__ == "__main__":
    main()
