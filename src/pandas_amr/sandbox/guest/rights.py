"""Messages with file descriptors between host and zygote (unix(7)), and paths that both know."""

from __future__ import annotations

import array
import json
import socket
from typing import Any

MESSAGE_BYTES = 1 << 16
MAX_HANDLES = 2
# Not directly below the root: Python itself may live in a folder /scratch.
SCRATCH, FILES = "/amr/scratch", "/amr/files"


def send(connection: socket.socket, message: dict[str, Any], *handles: int) -> None:
    """Send one message; the other side gets its own descriptors for the same files."""
    control = []
    if handles:
        control.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles)))
    connection.sendmsg([json.dumps(message).encode()], control)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message and its descriptors; both are empty if the other side has gone."""
    handles = array.array("i")
    space = socket.CMSG_LEN(MAX_HANDLES * handles.itemsize)
    text, control, _, _ = connection.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            handles.frombytes(content[: len(content) - len(content) % handles.itemsize])
    return text, list(handles)
