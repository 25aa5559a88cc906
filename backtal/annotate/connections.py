"""Connections to the page's server: so many, and none that keeps it waiting."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 100
PATIENCE = 10.0  # seconds until a request's head has come, from when the one before was answered


class Connection(H11Protocol):
    """A connection that is closed where no request comes in time.

    Where there are too many, the one that has waited longest for a request makes room.
    """

    _waiting: ClassVar[dict["Connection", asyncio.TimerHandle]] = {}  # the longest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST:
            oldest = next(iter(self._waiting))
            oldest._wait_no_more()
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._wait_no_more()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take in what came; a request that has begun may take its time."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be there already."""
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        self._wait_no_more()
        self._waiting[self] = self.loop.call_later(PATIENCE, self.transport.close)

    def _wait_no_more(self) -> None:
        if timer := self._waiting.pop(self, None):
            timer.cancel()
