"""A raw-socket HTTP server for tests: what it says, byte for byte, is up to the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs

from tests.frames import body, plain

EVENT_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@attrs.define
class Request:
    """A request as it came in."""

    line: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes
    connection: int
    """Which connection, from 0."""


Reply = Callable[[asyncio.StreamWriter, Request], Awaitable[None]]


@attrs.define
class Wire:
    """A running server: where it is and what it was asked."""

    url: str
    requests: list[Request] = attrs.Factory(list)
    closed: asyncio.Event = attrs.Factory(asyncio.Event)
    """Set when a client closed its connection."""

    @property
    def connections(self) -> int:
        return len({request.connection for request in self.requests})


def chunked(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole_answer(*texts: str) -> bytes:
    """A complete response with a plain answer, keep-alive."""
    head = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
    return head + chunked(body(plain(*texts))) + b"0\r\n\r\n"


async def answer_whole(writer: asyncio.StreamWriter, request: Request) -> None:
    """The usual reply."""
    writer.write(whole_answer())
    await writer.drain()


@asynccontextmanager
async def serve(
    *replies: Reply, ssl: object = None, host: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    """Answer the n-th request with the n-th reply, the last one for all that follow."""
    wire: Wire
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        connection, count = count, count + 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                sent = await reader.readexactly(int(headers.get("content-length", "0")))
                wire.requests.append(Request(head[0], headers, sent, connection))
                position = min(len(wire.requests), len(replies)) - 1
                await replies[position](writer, wire.requests[-1])
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    class Protocol(asyncio.StreamReaderProtocol):
        """Tells when the client closes, also while a reply does not read."""

        def eof_received(self) -> bool | None:
            wire.closed.set()
            return super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            wire.closed.set()
            super().connection_lost(exc)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Protocol(asyncio.StreamReader(), handle, loop=loop),
        host,
        0,
        ssl=ssl,  # type: ignore[arg-type]
    )
    scheme = "https" if ssl else "http"
    wire = Wire(f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}")
    try:
        yield wire
    finally:
        server.close()
        if hasattr(server, "close_clients"):
            server.close_clients()
