"""A worker's connection to the driver: a question, an answer; it is made anew when it breaks."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from distributed.comm import connect

from pandas_amr._records.clock import CLOCK
from pandas_amr.errors import JournalError

LOST_S = 15.0  # without the driver: nobody takes what is found
RETRY_S = 0.2
CONNECT_S = 2.0


class RunEnded(JournalError):
    """The driver's run has ended: nobody waits for this part any more."""


class Link:
    """Connections to one driver, used on this process's engine.

    Args:
        address: where the driver listens.
        run: the run's name.
        options: how to connect: the cluster's certificates.

    Attributes:
        is_idle: whether no part of the run is mapped here now.
    """

    def __init__(self, address: str, run: str, options: dict[str, Any]) -> None:
        self.run = run
        self._address = address
        self._options = options
        self._idle: list[Any] = []
        self.is_idle = False
        self._is_closed = False

    async def ask(self, operation: str, /, *arguments: Any) -> Any:
        """Ask the driver, and wait for its answer; again if the connection breaks meanwhile.

        Raises:
            RunEnded: the run is over.
            JournalError: the driver cannot be reached, or its journal cannot be used.
        """
        request = pickle.dumps((self.run, operation, arguments), pickle.HIGHEST_PROTOCOL)
        latest = CLOCK.now() + LOST_S
        while True:
            try:
                answer = await self._ask_once(request)
                break
            except (OSError, TimeoutError) as error:  # distributed's own derive from these
                if self._is_closed or self.is_idle or CLOCK.now() > latest:
                    raise JournalError(
                        f"The driver at {self._address} cannot be reached ({type(error).__name__})."
                    ) from None
                await asyncio.sleep(RETRY_S)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _ask_once(self, request: bytes) -> Any:
        comm = self._idle.pop() if self._idle else await self._connect()
        try:
            await comm.write(request)
            answer = pickle.loads(await comm.read())  # noqa: S301 (of this run's driver)
        except BaseException:  # cancelled, too: the answer to come is nobody's
            comm.abort()
            raise
        if self._is_closed:
            comm.abort()
        else:
            self._idle.append(comm)
        return answer

    async def _connect(self) -> Any:
        return await connect(self._address, timeout=CONNECT_S, **self._options)

    def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        for comm in self._idle:
            comm.abort()
        self._idle.clear()
