r"""The other side: a live Python that runs cells. One file that needs pandas only; also a script over stdio.

The host speaks first and believes nothing: whatever this process says is bounded and checked there. A message is four
bytes of length, a JSON object of that length, and then the bytes that its ``blobs`` (a list of lengths) announces.

====================================================  =============================================================
host says                                             worker says
====================================================  =============================================================
``{"do": "open", "id", "name", "labels", ...}``       ``{"id", "ok"}`` and, where it is not, ``"out"``
``{"do": "run", "id", "code"}``                       ``{"id", "ok", "out", "cut", "submitted"}``
\                                                     before that, any number of ``{"id", "ask": {...}}`` and texts
``{"do": "answer", "id", "ok", "out"}`` and Parquet
====================================================  =============================================================
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
from typing import Any

HEAD_SHARE = 0.6
TRACEBACK_CHARS = 4000
MOST_VALUES = 1_000_000  # in one message: the host's memory and time for JSON that is all brackets
CELL_BYTES = 1 << 20  # of one field of a finding, which goes into one cell of the frame
VALUE_BYTES = 16  # that a value takes at least
ASK_CHARS = 8_000  # of the instruction of a question, and of its schema
ASK_BYTES = 1 << 24  # of the texts of one question
MISSING_TEXT = -1  # stands for the length of a text that is missing
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
DISPLAY = {
    "display.width": 160,
    "display.max_columns": 30,
    "display.max_rows": 40,
    "display.max_colwidth": 100,
}
KINDS = {str: "str", int: "int", float: "float", bool: "bool"}
KIND_NAMES = (*KINDS.values(), *(f"list[{name}]" for name in KINDS.values()))
UNIT = "unit"  # the column, or the key, that says a row's number in the shard
MISSING = (None,)  # stands for a missing label
HERE = __file__
COLUMN, LEVEL = "column", "level"  # kinds of arrays, where no dtype is told


class Gone(Exception):
    """The host has hung up."""


class Stream:
    """Messages over a pair of file descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    def receive(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next message and its blobs.

        Raises:
            Gone: there will be none.
        """
        header = json.loads(self._exactly(int.from_bytes(self._exactly(4), "big")))
        return header, [self._exactly(size) for size in header.get("blobs", ())]

    def send(self, header: dict[str, Any], *blobs: bytes) -> None:
        """One message."""
        text = json.dumps(header | {"blobs": [len(blob) for blob in blobs]}).encode()
        rest = memoryview(len(text).to_bytes(4, "big") + text + b"".join(blobs))
        while rest:
            rest = rest[os.write(self._sink, rest) :]

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = os.read(self._source, min(size - len(parts), 1 << 20))
            if not part:
                raise Gone
            parts += part
        return bytes(parts)


class Output(TextIOBase):
    """What code prints: the beginning and the end of it, and how much there was."""

    def __init__(self, most: int) -> None:
        self._head_size = int(most * HEAD_SHARE)
        self._tail_size = most - self._head_size
        self._head = ""
        self._tail = ""
        self.seen = 0

    def writable(self) -> bool:
        """It takes text."""
        return True

    def isatty(self) -> bool:
        """Nobody watches, so that nothing is coloured."""
        return False

    def write(self, text: Any) -> int:
        """Keep the text, as far as there is room."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes a text, not {type(text).__name__}")
        self.seen += len(text)
        room = self._head_size - len(self._head)
        self._head += text[:room]
        if len(text) > room:
            self._tail = (self._tail + text[max(room, len(text) - self._tail_size) :])[
                -self._tail_size :
            ]
        return len(text)

    def taken(self) -> tuple[str, int]:
        """What was printed, and how many characters of it were cut."""
        cut = self.seen - len(self._head) - len(self._tail)
        middle = f"\n... {cut} characters cut ...\n" if cut else ""
        return ANSI.sub("", self._head + middle + self._tail), cut


class Worker:
    """One session: its frame, its variables, its cells."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._namespace: dict[str, Any] = {}
        self._in_cell = False
        self._told_to_stop = False
        self._cells = 0
        self._id = ""
        self._name = "df"
        self._index: Any = None
        self._output_chars = 10_000
        self._result_bytes = 1 << 26
        self._asks = 1000
        self._found: list[dict[str, Any]] | None = None
        self._value: dict[str, Any] | None = None

    def serve(self, shard: memoryview | None = None) -> None:
        """Answer the host until it hangs up. ``shard`` is the frame's Parquet, where it did not come by message."""
        signal.signal(signal.SIGINT, self._interrupted)
        while True:
            message, blobs = self._stream.receive()
            self._id = message["id"]
            if message["do"] == "open":
                self._open(message, shard if shard is not None else (blobs[0] if blobs else None))
            elif message["do"] == "run":
                self._run(message["code"])

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._in_cell:
            raise KeyboardInterrupt
        self._told_to_stop = True

    def _open(self, message: dict[str, Any], shard: memoryview | bytes | None) -> None:
        import numpy as np
        import pandas as pd

        for option, value in DISPLAY.items():
            pd.set_option(option, value)
        self._name = message["name"]
        self._output_chars = message["output_chars"]
        self._result_bytes = message["result_bytes"]
        self._asks = message["asks"]
        main = ModuleType("__main__")
        sys.modules["__main__"] = main
        self._namespace = main.__dict__
        self._namespace.update(
            pd=pd, np=np, submit=self._submit, files=message.get("files", {}), ask=self._ask
        )
        self._index = pd.RangeIndex(0)
        try:
            if shard is not None:
                frame = loaded(shard, message["labels"])
                self._namespace[self._name] = frame
                self._index = frame.index.view()  # the same index, whatever code does to `df`
        except Exception:  # noqa: BLE001 (told to the host, whose fault it is)
            self._stream.send(
                {"id": self._id, "ok": False, "out": traceback.format_exc()[-TRACEBACK_CHARS:]}
            )
        else:
            self._stream.send({"id": self._id, "ok": True})

    def _run(self, code: str) -> None:
        output = Output(self._output_chars)
        self._found = self._value = None
        kept = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = output
        ok = False
        submitted = b""
        self._told_to_stop = False
        try:
            self._in_cell = True
            try:
                ok = self._execute(code, output)
                submitted = self._packed() if ok else b""
            finally:
                self._in_cell = False
        except KeyboardInterrupt:
            ok = False
            output.write("\nKeyboardInterrupt")
        except Exception:  # noqa: BLE001 (what cannot be handed in is told to whoever handed it in)
            ok = False
            output.write(traceback.format_exc()[-TRACEBACK_CHARS:])
        finally:
            sys.stdout, sys.stderr = kept
        text, cut = output.taken()
        reply = {"id": self._id, "ok": ok, "out": text, "cut": cut, "submitted": bool(submitted)}
        self._stream.send(reply, *([submitted] if submitted else []))

    def _execute(self, code: str, output: Output) -> bool:
        """Run the cell as a REPL does: the value of a last expression is shown."""
        self._cells += 1
        name = f"<cell {self._cells}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        try:
            tree = ast.parse(code, name)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, name, "exec"), self._namespace)  # noqa: S102 (that is what it is for)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), name, "eval"), self._namespace)  # noqa: S307
                if value is not None:
                    output.write(f"{value!r}\n")
                    self._namespace["_"] = value
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (all of it is the code's, and told to whoever wrote it)
            output.write(_told(error, error.__traceback__))
            return False
        return True

    # What code may call

    def _submit(self, value: Any, sources: Any = None) -> None:
        """Hand in the work's result: of a shard one finding per unit (a frame, or a list of dicts); else any value.

        The rows are those of ``df`` in their order if they have ``df``'s own index (index=df.index) or a fresh one,
        and are matched by label if they have ``df``'s labels in another order. A column ``unit`` with each row's number
        in ``df``, from 0, says it outright, and may name a part of the rows; what stays ambiguous is an error.
        """
        if self._name == "df":
            try:
                self._found = [*(self._found or ()), *self._records(value)]
            except ValueError as error:
                raise ValueError(f"submit() {error}") from None
        else:
            self._value = {"output": _plain(value)}
            if sources is not None:
                self._value["sources"] = _plain(list(sources))

    def _records(self, given: Any) -> list[dict[str, Any]]:
        """Match what code hands in with the rows of ``df``: one record per finding, with its unit's number."""
        import pandas as pd

        records: Any
        if isinstance(given, pd.DataFrame):
            names = [str(name) for name in given.columns]
            if len(set(names)) < len(names):
                raise ValueError("takes a frame whose columns have different names")
            units = given[UNIT] if UNIT in given.columns else None
            numbers = match_rows(given.index, self._index, units=units)
            records = given.to_dict("records")
        elif isinstance(given, pd.Series):
            numbers = match_rows(given.index, self._index)
            named = given.name is not None and given.name != UNIT
            records = given.to_frame(given.name if named else "finding").to_dict("records")
        else:
            records = _listed(given)
            numbers = match_records(records, len(self._index))
        found = []
        for number, record in zip(numbers, records, strict=True):
            fields = {str(key): _plain(value) for key, value in record.items()}
            large = find_large(fields)
            if large is not None:
                raise ValueError(
                    f"takes {CELL_BYTES >> 20} MB per field, and {large[:100]!r} of unit {number} has more"
                )
            found.append(fields | {UNIT: number})
        return found

    def _packed(self) -> bytes:
        """What the cell handed in, as JSON; empty where it did not."""
        payload: Any = self._value if self._found is None else {"findings": self._found}
        if payload is None:
            return b""
        packed = json.dumps(payload, default=str).encode()
        if len(packed) > self._result_bytes:
            raise ValueError(
                f"submit() takes {self._result_bytes >> 20} MB, not {len(packed) >> 20} MB"
            )
        if values_in(packed) > MOST_VALUES:
            raise ValueError(f"submit() takes {MOST_VALUES:,} values, and these are more")
        return packed

    def _ask(self, texts: Any, instruction: str, schema: Any = None) -> Any:
        """Have the model read ``texts``: one answer each, as a frame with a column per field of ``schema``.

        ``schema`` is a dict of names to ``str``, ``int``, ``float``, ``bool``, lists of one of these or a list of
        choices; without it there is one column ``answer``.
        """
        import pandas as pd

        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "ask() is called from the main thread; hand it all texts at once: they are read in parallel"
            )
        index = texts.index if isinstance(texts, pd.Series) else None
        packed, lengths = self._packed_texts([texts] if isinstance(texts, str) else texts)
        fields = {str(name): _kind(kind) for name, kind in (schema or {"answer": str}).items()}
        question = {"lengths": lengths, "instruction": instruction, "schema": fields}
        if len(instruction) > ASK_CHARS or len(json.dumps(fields)) > ASK_CHARS:
            raise RuntimeError(
                f"ask() takes an instruction and a schema of {ASK_CHARS:,} characters each"
            )
        self._in_cell = False  # a message is sent and read whole, whatever the clock says
        try:
            self._stream.send({"id": self._id, "ask": question}, packed)
            answer, blobs = self._stream.receive()
        finally:
            self._in_cell = True
        if self._told_to_stop:
            raise KeyboardInterrupt
        if not answer["ok"]:
            raise RuntimeError(answer["out"])
        frame = loaded(blobs[0], answer["labels"])
        if answer["out"]:
            print(answer["out"])  # noqa: T201 (part of the cell's output)
        return frame.set_axis(index, axis=0) if index is not None else frame

    def _packed_texts(self, texts: Any) -> tuple[bytes, list[int]]:
        """Pack the texts of a question as bytes, one after the other; and the length of each."""
        parts: list[bytes] = []
        lengths: list[int] = []
        for text in texts:
            plain = _plain(text)
            if plain is None:
                lengths.append(MISSING_TEXT)
                continue
            part = (plain if isinstance(plain, str) else json.dumps(plain)).encode(
                "utf-8", "replace"
            )
            parts.append(part)
            lengths.append(len(part))
        if len(lengths) > self._asks:
            raise RuntimeError(
                f"ask() takes {self._asks} texts in all, and these are {len(lengths)}"
            )
        size = sum(map(len, parts))
        if size > ASK_BYTES:
            raise RuntimeError(
                f"ask() takes {ASK_BYTES >> 20} MB of texts at once, not {size >> 20} MB"
            )
        return b"".join(parts), lengths


def match_rows(given: Any, shard: Any, *, units: Any = None, name: str = "df") -> list[int]:
    """Match the rows of a frame or Series that code made with the rows of the shard.

    By ``units``, if it says the rows' numbers; by position, if its index is the shard's own or a fresh one; by label,
    if its labels are unique and the shard's. A fresh index is never taken for labels, nor doubled labels for an order.

    Args:
        given: the index of the frame or Series.
        shard: the index of the shard.
        units: the column ``unit`` of the frame, if it has one.
        name: what the shard is called where the code runs.

    Returns:
        The number in the shard of each given row, from 0.

    Raises:
        ValueError: it does not show which rows are meant; the message says what would.
    """
    if units is not None:
        return match_numbers(units, len(shard), name=name)
    if given.is_(shard):  # labels may be doubled: it is the very index, and nothing was sorted
        return list(range(len(shard)))
    numbers, problem = _match_labels(given, shard, name)
    if problem:
        raise ValueError(
            f"cannot tell which rows of {name} these {len(given)} are: {problem}. Give them {name}'s own index "
            f"(index={name}.index), or a column `{UNIT}` with each row's number in {name}, from 0"
        )
    return numbers


def _match_labels(given: Any, shard: Any, name: str) -> tuple[list[int], str]:
    """Match an index with another one that is the shard's; else say why that cannot be done."""
    if len(given) != len(shard):
        return [], f"{name} has {len(shard)} rows"
    if _renamed(given, shard):
        return [], f"their index has a name that {name}'s has not"
    in_order = list(range(len(shard)))
    labels, own_labels = _labels_of(given), _labels_of(shard)
    places = dict(zip(own_labels, in_order, strict=True))
    doubled = len(places) < len(in_order)
    if labels == own_labels and not doubled:
        return in_order, ""
    if labels == in_order:
        if places.keys() == set(in_order):
            return [], f"their index is a fresh one, and {name} has these labels in another order"
        return in_order, ""
    if doubled:
        return [], f"labels of {name} are doubled, and this is not its own index in its order"
    if places.keys() != set(labels):
        return [], f"their labels are not those of {name}"
    return [places[label] for label in labels], ""


def _renamed(given: Any, shard: Any) -> bool:
    """Whether an index has a name of its own: df.groupby("id") has ids for labels, which may look like the shard's."""
    names = zip(given.names, shard.names, strict=False)
    return any(name is not None and name != own for name, own in names)


def _labels_of(index: Any) -> list[Any]:
    """The labels of an index, so that two are equal only if they are the same label."""
    if index.dtype.kind in "iu" and not index.hasnans:
        return list(index)
    return [_label_key(label) for label in index]


def _label_key(label: Any) -> Any:
    """A label as a key: True is not 1, whatever is missing is one and the same, and a list is equal to nothing."""
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


def match_records(given: list[dict[str, Any]], rows: int, *, name: str = "df") -> list[int]:
    """Match a list of records with the rows of the shard: by number if each has ``unit``, by position if none has.

    Raises:
        ValueError: some have ``unit`` and some have not, or there are not as many as rows.
    """
    units = [one[UNIT] for one in given if UNIT in one]
    if len(units) == len(given):
        return match_numbers(units, rows, name=name)
    if units:
        raise ValueError(
            f"got {len(units)} findings with `{UNIT}` and {len(given) - len(units)} without; give it to all"
        )
    if len(given) != rows:
        raise ValueError(f"got {len(given)} findings without `{UNIT}`; {name} has {rows} rows")
    return list(range(rows))


def match_numbers(given: Any, rows: int, *, name: str = "df") -> list[int]:
    """Read the numbers of rows that code gave as ``unit``.

    Raises:
        ValueError: one is not whole, not a row's, or there twice.
    """
    numbers = [_whole(number) for number in given]
    inside = all(number is not None and 0 <= number < rows for number in numbers)
    if not inside or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"takes as `{UNIT}` the row's number in {name}, whole, from 0 to {rows - 1}, each once"
        )
    return [number for number in numbers if number is not None]


def _whole(given: Any) -> int | None:
    """A whole number, or None if it is something else."""
    import numpy as np
    import pandas as pd

    if isinstance(given, str):
        return int(given) if given.isascii() and given.isdigit() else None
    if isinstance(given, bool | np.bool_) or not pd.api.types.is_number(given):
        return None
    number: Any = given
    return int(number) if number % 1 == 0 else None


def _listed(given: Any) -> list[dict[str, Any]]:
    """A list of dicts as it is; of an array or a list of values, a record for each."""
    import pandas as pd

    told = TypeError("submit() takes a frame, or a list of dicts: one finding per unit")
    if isinstance(given, str | bytes | set | frozenset) or getattr(given, "ndim", 1) != 1:
        raise told
    try:
        listed = [given] if isinstance(given, dict) else list(given)
    except TypeError:
        raise told from None
    if all(isinstance(one, dict) for one in listed):
        return listed
    if all(pd.api.types.is_scalar(one) for one in listed):
        return [{"finding": one} for one in listed]
    raise told


def loaded(parquet: memoryview | bytes, labels: dict[str, Any]) -> Any:
    """The frame behind Parquet bytes: Arrow dtypes, its own column names and index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(
        pa.BufferReader(pa.py_buffer(parquet))
    )  # unlike read_table it starts no thread
    table = source.read(use_threads=False).replace_schema_metadata(None)
    return decode_frame(table, labels, _session_array)


def _session_array(column: Any, kind: Any) -> Any:
    """A column as Arrow's; a level of the index as pandas', whose whole numbers stay whole where some are missing."""
    import pandas as pd
    import pyarrow as pa

    if kind == COLUMN or (pa.types.is_integer(column.type) and column.null_count):
        return pd.arrays.ArrowExtensionArray(column)
    return column.to_pandas(use_threads=False)


def decode_frame(table: Any, labels: dict[str, Any], array_of: Any, makers: Any = None) -> Any:
    """Make a frame of a table: columns ``c0`` and so on, levels of the index ``i0`` and so on.

    Shared with the host, whose `_codec.py` has the encoder. ``array_of(column, kind)`` makes an array; ``kind`` is
    what ``labels`` say of its type, else ``COLUMN`` or ``LEVEL``. ``makers`` are those of ``decode``.
    """
    import pandas as pd

    names = [name for name in table.column_names if name.startswith("c")]
    levels = [name for name in table.column_names if name.startswith("i")]
    kinds = labels.get("dtypes") or [COLUMN] * len(names)
    level_kinds = labels.get("level_dtypes") or [LEVEL] * len(levels)
    arrays = [
        array_of(table.column(name), kind) for name, kind in zip(levels, level_kinds, strict=True)
    ]
    index = _decode_index(arrays, labels, makers)
    columns = {}
    for number, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        array = array_of(table.column(name), kind)
        columns[number] = pd.Series(array, index=index, dtype=array.dtype)
    frame = pd.DataFrame(columns, index=index)
    frame.columns = _decode_columns(labels, makers)
    return frame


def _decode_index(arrays: list[Any], labels: dict[str, Any], makers: Any) -> Any:
    import pandas as pd

    names = decode(labels["index_names"], makers)
    if labels.get("range") is not None:
        return pd.RangeIndex(range(*labels["range"]), name=names[0])
    if labels.get("levels") is not None:  # of which the arrays are the codes
        levels = decode(labels["levels"], makers)
        return pd.MultiIndex(levels=levels, codes=arrays, names=names, verify_integrity=False)
    if len(arrays) > 1:
        return pd.MultiIndex.from_arrays(arrays, names=names)
    index: Any = pd.Index(arrays[0], dtype=arrays[0].dtype, tupleize_cols=False).rename(names[0])
    if labels.get("freq") is not None:
        index.freq = labels["freq"]
    return index


def _decode_columns(labels: dict[str, Any], makers: Any) -> Any:
    """The columns: an Index, or where no types are told one of labels alone."""
    import pandas as pd

    columns = decode(labels["columns"], makers)
    if isinstance(columns, pd.Index):
        return columns
    names = decode(labels["column_names"], makers)
    if columns and all(isinstance(one, tuple) and len(one) == len(names) for one in columns):
        return pd.MultiIndex.from_tuples(columns, names=names)
    return pd.Index(columns, dtype=None if columns else object, name=names[0], tupleize_cols=False)


def decode(given: Any, makers: Any = None) -> Any:
    """A value as JSON holds it: an object has one key, the type, and the list of what it is made of.

    ``makers`` make values by the name of their type; default: those of labels that a session gets.
    """
    if isinstance(given, list | tuple):
        return [decode(part, makers) for part in given]
    if isinstance(given, dict):
        ((name, parts),) = given.items()
        return (makers or LABEL_MAKERS)[name](*decode(parts, makers))
    return given


def make_tuple(*parts: Any) -> tuple[Any, ...]:
    """A tuple of its parts."""
    return parts


LABEL_MAKERS: dict[str, Any] = {"tuple": make_tuple, "float": float}


def _kind(given: Any) -> Any:
    """A field of ``ask(schema=)`` as the host takes it.

    Raises:
        RuntimeError: it is of another kind.
    """
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str):
        return {"kind": _kind(given[0]), "description": given[1]}
    if isinstance(given, list):
        return [_plain(choice) for choice in given]
    name = KINDS.get(given, str(given)) if isinstance(given, type) else str(given)
    if name not in KIND_NAMES:
        raise RuntimeError(
            f"ask(schema=) takes for a field: {', '.join(KIND_NAMES)}, or a list of choices"
        )
    return name


def find_large(fields: dict[str, Any]) -> str | None:
    """Find a field of a finding that holds more than one cell of a frame may, or None."""
    for name, value in fields.items():
        if _bytes_in(value) > CELL_BYTES:
            return name
    return None


def _bytes_in(value: Any) -> int:
    """At least how many bytes a value of JSON takes; counted until they are too many for a cell."""
    size = 0
    rest = [value]
    while rest and size <= CELL_BYTES:
        one = rest.pop()
        size += VALUE_BYTES
        if isinstance(one, str):
            size += len(one) if one.isascii() else len(one.encode("utf-8", "surrogatepass"))
        elif isinstance(one, dict):
            rest += one.keys()
            rest += one.values()
        elif isinstance(one, list):
            rest += one
    return size


def values_in(packed: bytes) -> int:
    """At most how many values JSON holds, without making them."""
    return packed.count(b",") + packed.count(b"[") + packed.count(b"{") + 1


def _plain(value: Any) -> Any:
    """A value as JSON takes it; whatever is missing is None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return _of_pandas(value)


def _of_pandas(value: Any) -> Any:
    import numpy as np
    import pandas as pd

    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _plain(
            pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
        )
    if isinstance(value, pd.DataFrame):
        return [_plain(record) for record in value.to_dict("records")]
    if isinstance(value, pd.Series):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return _plain(value.tolist()) if hasattr(value, "tolist") else _text_of(value)


def _text_of(value: Any) -> Any:
    """A value that is one of those written as a text; that an object can be printed makes no finding of it."""
    import dataclasses
    import datetime as dt
    import decimal
    import enum
    import ipaddress
    import pathlib
    import uuid

    import pandas as pd

    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump())
    if isinstance(value, dt.timedelta):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, decimal.Decimal):
        return None if value.is_nan() else f"{value:f}"
    addresses = ipaddress.IPv4Address, ipaddress.IPv6Address
    if isinstance(value, (uuid.UUID, pathlib.PurePath, pd.Period, pd.Interval, *addresses)):
        return str(value)
    raise TypeError(f"submit() takes what JSON has a form for, not {type(value).__name__}")


def _told(error: BaseException, trace: TracebackType | None) -> str:
    """The traceback without this file's frames: what whoever wrote the code needs."""
    while trace is not None and trace.tb_frame.f_code.co_filename == HERE:
        trace = trace.tb_next
    told = "".join(
        traceback.TracebackException(type(error), error, trace, limit=-8, compact=True).format(
            chain=True
        )
    )
    return (
        told
        if len(told) <= TRACEBACK_CHARS
        else f"{told[:500]}\n...\n{told[500 - TRACEBACK_CHARS :]}"
    )


def main() -> None:
    """Serve over stdio: descriptors 0 and 1 are the protocol's, and code gets others."""
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    with contextlib.suppress(Gone):
        Worker(Stream(source, sink)).serve()


if __name__ == "__main__":
    main()
