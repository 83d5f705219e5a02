"""On the path of a dbt process: write each address that it connects to, or looks up, to a file."""

import os
import sys


def note(event: str, arguments: tuple) -> None:
    """Write the address of a connection or a look-up."""
    if event == "socket.connect":
        address = arguments[1]
    elif event == "socket.getaddrinfo":
        address = arguments[:2]
    else:
        return
    host = address[0] if isinstance(address, tuple) else address
    with open(os.environ["GUARD_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{host!s}\n")


sys.addaudithook(note)
