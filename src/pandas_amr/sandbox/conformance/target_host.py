"""What an attempt can steal or break on the host: files, sockets, a process, secrets."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

# Runs in a session beside the attacked one, and in a process that stands in for it when a control
# runs. It holds a secret in memory and in a file.
SIBLING = """\
import ctypes, os
kept = 41
token = ctypes.create_string_buffer(b"<<token>>", 64)
try:
    with open("left.txt", "w") as file: file.write("<<token>>")
except OSError: pass
print(os.getpid(), ctypes.addressof(token), os.getcwd(), flush=True)
"""
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1,2\n"
SPARES = ("spare", "spare2", "spare3")  # files that attempts may try to change
# Names of files that attempts may create.
CREATED = ("new", "made", "hard", "pipe", "null", "out.csv", "x.db")


class TargetHost:
    """Sets the targets up for as long as the ``with`` lasts.

    Attributes:
        token: the secret.
        secret_handle: an inheritable descriptor of the file with the secret.
        fields: what the fields in double angle brackets in an attempt's code stand for.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.token = secrets.token_hex(16)
        self.secret_handle = -1
        self.fields: dict[str, str] = {}
        self._folder = Path()

    def __enter__(self) -> Self:
        self._folder = Path(
            self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="amr-target-", ignore_cleanup_errors=True)
            )
        )
        self.fields = {
            "folder": str(self._folder),
            "hash": hashlib.sha256(self.token.encode()).hexdigest(),
            "executable": sys.executable,
            "host": socket.gethostname(),
            **self._make_files(),
            **self._open_sockets(),
            **self._set_variable(),
            **self._start_sibling(),
        }
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def sibling_code(self) -> str:
        """The code of a session beside the attacked one; see ``read_sibling``."""
        return SIBLING.replace("<<token>>", self.token)

    def reset(self) -> None:
        """Undo what attempts may have done to the files."""
        for name in SPARES:
            (self._folder / name).write_text("spare", encoding="ascii")
        for name in CREATED:
            path = self._folder / name
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)

    def _make_files(self) -> dict[str, str]:
        secret, home = self._folder / "secret.txt", self._folder / "home"
        secret.write_text(self.token, encoding="ascii")
        home.mkdir()
        (home / ".netrc").write_text(self.token, encoding="ascii")
        self.secret_handle = os.open(secret, os.O_RDONLY)
        os.set_inheritable(self.secret_handle, True)  # noqa: FBT003 (as a careless host leaves it)
        self._stack.callback(os.close, self.secret_handle)
        spares = {name: str(self._folder / name) for name in SPARES}
        return {"secret": str(secret), "home": str(home), **spares}

    def _open_sockets(self) -> dict[str, str]:
        tcp = self._open_socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = self._open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        unix = self._open_socket(socket.AF_UNIX, socket.SOCK_STREAM)
        abstract = self._open_socket(socket.AF_UNIX, socket.SOCK_STREAM)
        abstract_name = f"amr-{self._folder.name}"
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(self._folder / "unix"))
        abstract.bind(f"\0{abstract_name}")
        unix.listen()
        abstract.listen()
        self._stack.enter_context(_answer_all(tcp))
        return {
            "tcp": str(tcp.getsockname()[1]),
            "udp": str(udp.getsockname()[1]),
            "unix": str(self._folder / "unix"),
            "abstract": abstract_name,
        }

    def _open_socket(self, family: int, kind: int) -> socket.socket:
        return self._stack.enter_context(socket.socket(family, kind))

    def _set_variable(self) -> dict[str, str]:
        """Put the secret into the environment of this process."""
        variable = f"AMR_TOKEN_{secrets.token_hex(4).upper()}"
        os.environ[variable] = self.token
        self._stack.callback(os.environ.pop, variable, None)
        return {"variable": variable}

    def _start_sibling(self) -> dict[str, str]:
        """Start a process that runs the sibling's code. It ends with this process."""
        folder = self._folder / "sibling"
        folder.mkdir()
        process = subprocess.Popen(  # noqa: S603 (a program of our own)
            [sys.executable, "-c", self.sibling_code + "import sys; sys.stdin.read()"],
            process_group=0,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        self._stack.callback(process.stdout.close)
        self._stack.callback(process.stdin.close)
        return {"victim": str(process.pid), **read_sibling(process.stdout.readline())}


def read_sibling(output: str) -> dict[str, str]:
    """Read what a sibling prints of itself; return nothing if it is something else."""
    words = output.split(maxsplit=2)
    if len(words) != 3 or not all(word.isdigit() for word in words[:2]):
        return {}
    return {"sibling": words[0], "address": words[1], "sibling_folder": words[2].strip()}


@contextlib.contextmanager
def _answer_all(listener: socket.socket) -> Iterator[None]:
    """Answer all who connect, from a thread."""
    listener.listen()
    threading.Thread(target=_answer, args=(listener,), daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _answer(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1)
            connection.recv(4096)
            connection.sendall(RESPONSE)
