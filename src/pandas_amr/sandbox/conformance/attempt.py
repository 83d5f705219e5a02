"""An attempt on a sandbox, and the code that attempts share.

Each attempt is code for one cell. Its control is the same code without a sandbox around it. Its
``goal`` says what must not happen:

- ``escape``: it calls ``won()`` if it gets what it should not have.
- ``hang``: it keeps the host waiting beyond its limits.
- ``flood``: it makes the host take more than its limits, in memory or in what is submitted.
- ``crash``: it affects more than its own session. It may end that one; what it submits then is not
  taken.
- ``forge``: it speaks in the runner's place, or breaks the host's side.
- ``stain``: control characters that it prints or submits reach a terminal or a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Goal = Literal["escape", "hang", "flood", "crash", "forge", "stain"]

FLOOD_BYTES = 64 << 20
SUCCESS_MARK = "THE-ATTEMPT-WON"

PRELUDE = f"""\
import ctypes, errno, os, signal, socket, struct, sys, threading, time
_libc = ctypes.CDLL(None, use_errno=True)
def syscall(*arguments):
    result = _libc.syscall(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def is_secret(given):
    import hashlib, re
    text = given.decode(errors="replace") if isinstance(given, bytes) else given
    return any(hashlib.sha256(one.encode()).hexdigest() == "<<hash>>" \
for one in re.findall("[0-9a-f]{{32}}", text))
def won(true=True):
    if true:
        sys.__stdout__ is not None and print(\
{SUCCESS_MARK[:5]!r} + {SUCCESS_MARK[5:]!r}, flush=True)
"""
SHARDS = """\
import fcntl, mmap, stat
def shards():
    found = []
    for handle in range(3, 200):
        try:
            about = os.fstat(handle)
        except OSError:
            continue
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
            found.append(handle)
    return found
def turned():
    return any(os.pread(handle, 4, 0) != b"PAR1" for handle in shards())
"""
SESSION = """\
ask, submit = globals().get("ask", print), globals().get("submit", print)
worker = getattr(ask, "__self__", None)
worker = worker if hasattr(worker, "_stream") else None
def question(text, schema={"a": "str"}, instruction="x"):
    asked = {"lengths": [len(text)], "instruction": instruction, "schema": schema}
    worker and worker._stream.send({"id": worker._id, "ask": asked}, text)
def answered(schema={"a": "str"}, instruction="x"):
    question(b"x", schema, instruction)
    return worker is None or worker._stream.receive()[0]["ok"]
def handed_in(payload):
    import json
    packed = json.dumps(payload).encode()
    said = {"id": getattr(worker, "_id", ""), "ok": True, "out": "", "submitted": True}
    print(payload) if worker is None else worker._stream.send(said, packed)
"""
FORGED = (
    SESSION
    + """\
import json
def spoken(*parts):
    for handle in range(3, 200):
        for part in parts:
            try:
                os.write(handle, part)
            except OSError:
                break
def message(**fields):
    text = json.dumps(fields).encode()
    return len(text).to_bytes(4, "big") + text
"""
)


@dataclass(frozen=True, slots=True)
class SandboxAttempt:
    """One attempt.

    Attributes:
        kind: what it attacks, such as ``secrets`` or ``network``.
        name: unique within its kind.
        code: one cell; fields in double angle brackets are filled in.
        goal: what must not happen; see above.
        needs_root: whether the control works for root only.
        later_code: a second cell, run a while later, which sees what went on in between.
        fatal_signal: the signal that ends the control of a crash; 0 if it may end in another way.
        other_code: a cell for a session that starts afterwards, and should see nothing of this one.
            ``<<said>>`` in it is what this one printed. The control is two forks of one process.
        min_bytes: output of the control of a flood, at least.
        repeat: how often the cell is run, before ``later_code``.
        cpu_s: processor seconds of the session; 0 for the usual limit.
        measures_memory: whether it attacks the memory of the host or the kernel, and so must run
            alone.
        strong_only: whether the tier ``strict-lite`` is known not to hold against it.
    """

    kind: str
    name: str
    code: str
    goal: Goal = "escape"
    needs_root: bool = False
    later_code: str = ""
    fatal_signal: int = 0
    other_code: str = ""
    min_bytes: int = FLOOD_BYTES
    repeat: int = 1
    cpu_s: int = 0
    measures_memory: bool = False
    strong_only: bool = False

    @property
    def full_name(self) -> str:
        """Kind and name: ``secrets/environment``."""
        return f"{self.kind}/{self.name}"

    @property
    def runs_alone(self) -> bool:
        """Whether nothing else may run meanwhile, so that all memory taken is its own."""
        return self.measures_memory or self.goal in {"flood", "crash", "stain"}

    @property
    def uses_call_numbers(self) -> bool:
        """Whether it makes system calls by their numbers, which are those of x86_64."""
        return "syscall(" in self.code

    def __repr__(self) -> str:
        return f"<Attempt {self.full_name}>"


def attempts_from(
    kind: str, table: list[tuple[str, str, bool]], *, prefix: str = "", prelude: str = ""
) -> list[SandboxAttempt]:
    """Make attempts of a table of names, codes, and whether the control needs root."""
    made: list[SandboxAttempt] = []
    for name, code, needs_root in table:
        made.append(SandboxAttempt(kind, prefix + name, prelude + code, needs_root=needs_root))
    return made
