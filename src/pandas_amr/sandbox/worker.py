r"""The other side: a live Python that runs cells. One file that needs pandas only; also a script over stdio.

The host speaks first and believes nothing: whatever this process says is bounded and checked there. A message is four
bytes of length, a JSON object of that length, and then the bytes that its ``blobs`` (a list of lengths) announces.

====================================================  =============================================================
host says                                             worker says
====================================================  =============================================================
``{"do": "open", "id", "name", "labels", ...}``       ``{"id", "ok"}`` and, where it is not, ``"out"``
``{"do": "run", "id", "code"}``                       ``{"id", "ok", "out", "cut", "submitted"}``
\                                                     before that, any number of ``{"id", "ask": {...}}``
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
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")
DISPLAY = {
    "display.width": 160,
    "display.max_columns": 30,
    "display.max_rows": 40,
    "display.max_colwidth": 100,
}
KINDS = {str: "str", int: "int", float: "float", bool: "bool"}
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
            self._tail = (self._tail + text[max(room, len(text) - self._tail_size) :])[-self._tail_size :]
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
        self._frame: Any = None
        self._output_chars = 10_000
        self._result_bytes = 1 << 26
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
        main = ModuleType("__main__")
        sys.modules["__main__"] = main
        self._namespace = main.__dict__
        self._namespace.update(pd=pd, np=np, submit=self._submit, files=message.get("files", {}), ask=self._ask)
        try:
            if shard is not None:
                self._frame = loaded(shard, message["labels"])
                self._namespace[self._name] = self._frame
                self._frame = self._frame.copy(deep=False)  # its index, whatever code does to `df`
        except Exception:  # noqa: BLE001 (told to the host, whose fault it is)
            self._stream.send({"id": self._id, "ok": False, "out": traceback.format_exc()[-TRACEBACK_CHARS:]})
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

        Without a column ``unit``, a frame's rows are matched with those of ``df`` by the index.
        """
        if self._name == "df":
            self._found = [*(self._found or ()), *self._records(value)]
        else:
            self._value = {"output": _plain(value)}
            if sources is not None:
                self._value["sources"] = _plain(list(sources))

    def _records(self, given: Any) -> list[dict[str, Any]]:
        import pandas as pd

        units = len(self._frame) if self._frame is not None else 0
        if isinstance(given, pd.Series):
            given = given.to_frame(given.name if given.name is not None else "finding")
        if isinstance(given, pd.DataFrame):
            numbers = self._numbers(given)
            records = given.drop(columns="unit", errors="ignore").to_dict("records")
            return [
                {"unit": number, **{str(key): _plain(value) for key, value in record.items()}}
                for number, record in zip(numbers, records, strict=True)
            ]
        listed = [given] if isinstance(given, dict) else list(given)
        if not all(isinstance(one, dict) for one in listed):
            raise TypeError("submit() takes a frame, or a list of dicts: one finding per unit")
        if all("unit" in one for one in listed):
            return [{str(key): _plain(value) for key, value in one.items()} for one in listed]
        if len(listed) != units:
            raise ValueError(f"submit() got {len(listed)} findings without `unit`; df has {units} rows")
        return [
            {"unit": number, **{str(key): _plain(value) for key, value in one.items()}}
            for number, one in enumerate(listed)
        ]

    def _numbers(self, given: Any) -> list[int]:
        """The unit of each row: its column ``unit``, else its place in ``df`` by the index."""
        if "unit" in given.columns:
            return [_whole(number) for number in given["unit"]]
        index = self._frame.index
        if given.index.is_(index):  # labels may be doubled: the index is the very one, and nothing was sorted
            return list(range(len(index)))
        if index.is_unique:
            places: list[int] = index.get_indexer(given.index).tolist()
            if -1 not in places:
                return places
        raise ValueError(
            f"submit() cannot tell which rows of df these {len(given)} are: keep df's index where its labels are "
            "unique, or add a column `unit` with the row's number in df, from 0"
        )

    def _packed(self) -> bytes:
        """What the cell handed in, as JSON; empty where it did not."""
        payload: Any = self._value if self._found is None else {"findings": self._found}
        if payload is None:
            return b""
        packed = json.dumps(payload, default=str).encode()
        if len(packed) > self._result_bytes:
            raise ValueError(f"submit() takes {self._result_bytes >> 20} MB, not {len(packed) >> 20} MB")
        if values_in(packed) > MOST_VALUES:
            raise ValueError(f"submit() takes {MOST_VALUES:,} values, and these are more")
        return packed

    def _ask(self, texts: Any, instruction: str, schema: Any = None) -> Any:
        """Have the model read ``texts``: one answer each, as a frame with a column per field of ``schema``.

        ``schema`` is a dict of names to ``str``, ``int``, ``float``, ``bool`` or a list of choices; without it there
        is one column ``answer``.
        """
        import pandas as pd

        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "ask() is called from the main thread; hand it all texts at once: they are read in parallel"
            )
        index = texts.index if isinstance(texts, pd.Series) else None
        listed = [texts] if isinstance(texts, str) else [_plain(text) for text in texts]
        fields = {str(name): _kind(kind) for name, kind in (schema or {"answer": str}).items()}
        question = {"texts": listed, "instruction": instruction, "schema": fields}
        self._in_cell = False  # a message is sent and read whole, whatever the clock says
        try:
            self._stream.send({"id": self._id, "ask": question})
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


def loaded(parquet: memoryview | bytes, labels: dict[str, Any]) -> Any:
    """The frame behind Parquet bytes: Arrow dtypes, its own column names and index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(pa.BufferReader(pa.py_buffer(parquet)))  # unlike read_table it starts no thread
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
    arrays = [array_of(table.column(name), kind) for name, kind in zip(levels, level_kinds, strict=True)]
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
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str):
        return {"kind": _kind(given[0]), "description": given[1]}
    if isinstance(given, list):
        return [_plain(choice) for choice in given]
    if isinstance(given, dict):
        return given
    return KINDS.get(given, str(given))


def _whole(number: Any) -> int:
    if number != number or int(number) != number:  # noqa: PLR0124 (missing)
        raise ValueError(f"submit(): `unit` is the row's number in df, from 0, not {number!r}")
    return int(number)


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
        return _plain(pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value))
    if isinstance(value, pd.DataFrame):
        return [_plain(record) for record in value.to_dict("records")]
    if isinstance(value, pd.Series):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _told(error: BaseException, trace: TracebackType | None) -> str:
    """The traceback without this file's frames: what whoever wrote the code needs."""
    while trace is not None and trace.tb_frame.f_code.co_filename == HERE:
        trace = trace.tb_next
    told = "".join(traceback.TracebackException(type(error), error, trace, limit=-8, compact=True).format(chain=True))
    return told if len(told) <= TRACEBACK_CHARS else f"{told[:500]}\n...\n{told[500 - TRACEBACK_CHARS :]}"


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
