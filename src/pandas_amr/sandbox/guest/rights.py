"""What the host and its warm process share: messages with descriptors beside them (unix(7)), and where things lie."""

from __future__ import annotations

import array
import json
import socket
from typing import Any

NEWS = 1 << 16  # the longest message
MOST_HANDLES = 2
SCRATCH, FILES = (
    "/amr/scratch",
    "/amr/files",
)  # in a folder of their own: Python itself may live below /scratch


def send(wire: socket.socket, words: dict[str, Any], *handles: int) -> None:
    """One message; the other side gets descriptors of its own for the same things."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))] if handles else []
    wire.sendmsg([json.dumps(words).encode()], rights)


def receive(wire: socket.socket) -> tuple[bytes, list[int]]:
    """One message as it came, and the descriptors beside it; nothing where the other side has gone."""
    handles = array.array("i")
    room = socket.CMSG_LEN(MOST_HANDLES * handles.itemsize)
    words, control, _, _ = wire.recvmsg(NEWS, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, held in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            handles.frombytes(held[: len(held) - len(held) % handles.itemsize])
    return words, list(handles)
