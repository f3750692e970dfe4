"""A network in memory: bytes arrive on a schedule, whether anybody reads or not.

It behaves as ``streamchat.transport`` does: what arrived before a failure can still be read, ``abort``
wakes the reader with the given error, ``close`` wakes it with words of its own, and after either
nothing more arrives. No tasks; one timer while somebody waits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamchat.protocol.errors import (
    ConnectError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
    TruncatedStreamError,
)

EPS = 1e-6
"""Two moments closer than this are one."""


@dataclass(slots=True)
class Script:
    """What one try meets."""

    connect: float = 0.0
    """Seconds to the headers, or to the failure."""
    refused: str = ""
    """Why there is no connection: a ``kind``; ``reset`` and ``timeout`` have classes of their own."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error_body: float = 0.0
    """Seconds that the body of an error takes."""
    arrivals: list[tuple[float, bytes]] = field(default_factory=list)
    """(seconds after the headers, bytes), in order."""
    end: str = "eof"
    """``eof``, ``reset`` or ``hang``."""
    end_at: float = 0.0
    merged: bool = True
    """Whether one read returns all that has arrived, or one arrival."""
    items: list[Any] = field(default_factory=list)
    """The blocks that ``arrivals`` spell, for the oracle."""


def refusal_of(kind: str) -> StreamChatError:
    if kind == "reset":
        return TransportError("reset before the headers", kind="reset")
    if kind == "timeout":
        return StreamTimeoutError("no connection", phase="connect", seconds=10)
    return ConnectError(f"no connection: {kind}", kind=kind)


class SimExchange:
    """One answer that arrives by itself."""

    def __init__(self, script: Script, loop: asyncio.AbstractEventLoop) -> None:
        self.script = script
        self.status = script.status
        self.headers: Mapping[str, str] = {
            "content-type": "text/event-stream" if script.status == 200 else "application/json",
            **script.headers,
        }
        self.bytes_received = 0
        self.closed = False
        self.drained = False
        self.readers = 0
        self._loop = loop
        self._start = loop.time()
        self._next = 0
        self._stopped = math.inf
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")

    async def read(self) -> bytes:
        self.readers += 1
        assert self.readers == 1, "two readers of one exchange"
        try:
            while True:
                chunk = self._take()
                if chunk is not None:
                    return chunk
                await self._wait(self._next_at())
        finally:
            self.readers -= 1

    def _take(self) -> bytes | None:
        script, now = self.script, min(self._loop.time(), self._stopped)
        chunk = b""
        while self._next < len(script.arrivals):
            at, piece = script.arrivals[self._next]
            if self._start + at > now + EPS or (chunk and not script.merged):
                break
            self._next += 1
            chunk += piece
        if chunk:
            self.bytes_received += len(chunk)
            return chunk
        over = self._next == len(script.arrivals) and self._start + script.end_at <= now + EPS
        if over and script.end == "eof":
            return b""
        if over and script.end == "reset":
            raise TransportError("the connection was reset", kind="reset")
        if self._failure is not None:
            raise self._failure
        return None

    def _next_at(self) -> float:
        script = self.script
        if self._next < len(script.arrivals):
            return self._start + script.arrivals[self._next][0]
        return math.inf if script.end == "hang" else self._start + script.end_at

    async def _wait(self, until: float) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = None
        if until < math.inf:
            timer = self._loop.call_at(until, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def read_error_body(self) -> bytes:
        if self._failure is None:
            await self._wait(self._loop.time() + min(5.0, self.script.error_body))
        return b'{"message":"because"}'

    def abort(self, error: TransportError) -> None:
        self._stop(error)

    def close(self) -> None:
        self._stop(TruncatedStreamError("the connection broke", kind="truncated"))

    def _stop(self, error: Exception) -> None:
        self.closed = True
        if self._failure is None:
            self._failure = error
            self._stopped = self._loop.time()
        if self._waiter is not None:
            _wake(self._waiter)

    async def drain(self) -> None:
        self.drained = True
        if self._waiter is not None:  # aiohttp refuses a second reader, and the exchange closes
            self.close()
            return
        until = min(self._loop.time() + 0.1, self._next_drained())
        try:
            if not self.closed and until > self._loop.time():
                await self._wait(until)
        finally:
            self.close()

    def _next_drained(self) -> float:
        return math.inf if self.script.end == "hang" else self._start + self.script.end_at


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class SimTransport:
    """Meets its scripts in order."""

    host = "api.test:443"

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = scripts
        self.requests: list[bytes] = []
        self.exchanges: list[SimExchange] = []
        self.opened_at: list[float] = []
        self.users: list[Any] = []

    def attach(self, user: Any) -> None:
        """The stream's source; a real transport remembers it weakly, this one not at all."""

    async def open(
        self,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_timeout: float | None,
        use: Any = None,
    ) -> SimExchange:
        loop = asyncio.get_running_loop()
        script = self.scripts[len(self.requests)]
        self.requests.append(body)
        self.opened_at.append(loop.time())
        if script.connect:
            await asyncio.sleep(script.connect)
        if script.refused:
            raise refusal_of(script.refused)
        exchange = SimExchange(script, loop)
        self.exchanges.append(exchange)
        return exchange
