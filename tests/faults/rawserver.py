"""A server that says exactly the bytes it is told, and ends the way it is told.

It runs in the client's own event loop, on bare sockets: what it sends is in the client's socket at
once, so a few turns of the loop are all the pause that is needed for the client to have read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl as ssl_module
import struct
from collections.abc import AsyncIterator, Sequence

import attrs

TURNS = 12
"""Turns of the loop after which whatever was sent has been read, TLS included."""


@attrs.frozen
class Send:
    """Say these bytes."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen
class Settle:
    """Let the client read what was said before."""


@attrs.frozen
class Trickle:
    """Say these bytes a few at a time; with ``forever``, until the client goes."""

    data: bytes = attrs.field(repr=False)
    every: float
    size: int = 1
    forever: bool = False


@attrs.frozen
class Fin:
    """Close this side; over TLS with ``notify`` a close_notify comes first."""

    notify: bool = False


@attrs.frozen
class Rst:
    """Reset the connection."""


@attrs.frozen
class Hold:
    """Say nothing more until the client goes."""


Step = Send | Settle | Trickle | Fin | Rst | Hold
Script = Sequence[Step]


@attrs.define
class Run:
    """One case as the server sees it."""

    script: Script
    requests: int = 0
    open: int = 0
    """Connections that are not closed yet."""
    asked: asyncio.Event = attrs.Factory(asyncio.Event)
    """The first request is there."""
    ended: asyncio.Event = attrs.Factory(asyncio.Event)
    """The script's end has happened, and the client has had time to see it."""
    ended_at: float = 0.0
    """When, on the loop's clock; of several tries the last."""
    idle: asyncio.Event = attrs.Factory(asyncio.Event)
    """No connection is open."""


async def turns() -> None:
    """Let the client take in what lies in its socket."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class _Plain:
    """A connection without TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def start(self) -> None:
        pass

    async def receive(self) -> bytes:
        return await self.loop.sock_recv(self.sock, 65536)

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def notify(self) -> None:
        pass


class _Tls(_Plain):
    """A connection with TLS, the records under control: the socket stays bare."""

    def __init__(self, sock: socket.socket, context: ssl_module.SSLContext) -> None:
        super().__init__(sock)
        self._in, self._out = ssl_module.MemoryBIO(), ssl_module.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    async def start(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl_module.SSLWantReadError:
                await self._flush()
                data = await super().receive()
                if not data:
                    raise ConnectionResetError from None
                self._in.write(data)
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        data = self._out.read()
        if data:
            await super().send(data)

    async def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(65536)
            except ssl_module.SSLWantReadError:
                data = await super().receive()
                if not data:
                    return b""
                self._in.write(data)
            except ssl_module.SSLError:
                return b""

    async def send(self, data: bytes) -> None:
        for first in range(0, len(data), 16384):
            self._tls.write(data[first : first + 16384])
            await self._flush()

    async def notify(self) -> None:
        with contextlib.suppress(ssl_module.SSLError):
            self._tls.unwrap()
        await self._flush()


@attrs.define
class Server:
    """Runs by name: ``/run/<name>`` in the URL says which script is meant."""

    url: str
    runs: dict[str, Run] = attrs.Factory(dict)

    def add(self, name: str, script: Script) -> Run:
        run = self.runs[name] = Run(script)
        return run


async def _request(connection: _Plain) -> str | None:
    """Read one request and return the run's name; ``None`` when the client is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await connection.receive()
        if not more:
            return None
        data += more
    head, _, sent = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [line for line in lines if line.lower().startswith("content-length:")]
    missing = int(lengths[0].split(":")[1]) - len(sent)
    while missing > 0:
        more = await connection.receive()
        if not more:
            return None
        missing -= len(more)
    return lines[0].split(" ")[1].split("/")[2]


async def _gone(connection: _Plain) -> None:
    """Wait for the client's end; over TLS its close_notify is one, as for any real server."""
    while await connection.receive():
        pass


async def _play(connection: _Plain, run: Run) -> bool:
    """Run the script once; whether the connection is still good for another request."""

    async def ended(settled: bool = True) -> None:
        run.ended_at = connection.loop.time()
        if settled:
            await turns()
        run.ended.set()

    for step in run.script:
        match step:
            case Send(data):
                await connection.send(data)
            case Settle():
                await turns()
            case Trickle(data, every, size, forever):
                if forever:
                    await ended()
                # As any real server it reads meanwhile: over TLS the client's end is a message.
                starts = range(0, len(data), size)
                gone = connection.loop.create_task(_gone(connection))
                try:
                    for first in itertools.cycle(starts) if forever else starts:
                        if gone.done():
                            return False
                        await connection.send(data[first : first + size])
                        await asyncio.sleep(every)
                finally:
                    gone.cancel()
            case Fin(notify):
                if notify:
                    await connection.notify()
                connection.sock.shutdown(socket.SHUT_WR)
                await ended()
                await _gone(connection)
                return False
            case Rst():
                linger = struct.pack("ii", 1, 0)
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.sock.close()
                await ended()
                return False
            case Hold():
                await ended()
                await _gone(connection)
                return False
    await ended()
    return True


@contextlib.asynccontextmanager
async def serve(context: ssl_module.SSLContext | None = None) -> AsyncIterator[Server]:
    """Listen on loopback until the block is left; all connections are closed then."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()
    scheme = "https" if context else "http"
    server = Server(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/run")

    async def handle(sock: socket.socket) -> None:
        run: Run | None = None
        connection = _Tls(sock, context) if context else _Plain(sock)
        try:
            await connection.start()
            while True:
                name = await _request(connection)
                if name is None:
                    return
                if run is None:
                    run = server.runs[name]
                    run.open += 1
                    run.idle.clear()
                run.requests += 1
                run.ended_at = loop.time()
                run.asked.set()
                if not await _play(connection, run):
                    return
        except OSError:
            pass  # the client went away, as it may
        finally:
            sock.close()
            if run is not None:
                run.ended.set()
                run.open -= 1
                if not run.open:
                    run.idle.set()

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(handle(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = loop.create_task(accept())
    try:
        yield server
    finally:
        for task in (accepting, *tasks):
            task.cancel()
        await asyncio.gather(accepting, *tasks, return_exceptions=True)
        listener.close()
