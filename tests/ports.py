"""Ports at which nobody listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

# Below those that a system gives to servers which name none, apart for each process of a run, and each given once: what
# this process remembers of a server that has answered is about no other.
LOWEST, OF_A_PROCESS = 20_000, 500


def _list_ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = LOWEST + worker * OF_A_PROCESS
    yield from range(first, first + OF_A_PROCESS)


_ports = _list_ports()


def closed_port() -> int:
    """Give a port at which nobody listens."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("all ports of this process are given")
