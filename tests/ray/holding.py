"""A server in the test's own loop that repeats the prompt, and holds answers back until it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

from tests.frames import body, plain
from tests.wire.server import EVENT_STREAM, chunked


class Holding:
    """What was asked, by which process (the header ``x-process``), and when."""

    def __init__(self, held: str | None = None) -> None:
        self.url = ""
        self.held = held
        """What prompts have in them that are not answered before :meth:`release`."""
        self.asked: Counter[str] = Counter()
        self.at: list[float] = []
        self.keys: set[str] = set()
        self.open: defaultdict[str, set[str]] = defaultdict(set)
        """A process to the prompts that it waits for."""
        self.changed = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Event()

    def release(self) -> None:
        """Answer all that is held, and what comes."""
        self._gate.set()

    async def until_held(self, count: int) -> None:
        """Wait until so many requests are held."""
        async with self.changed:
            await self.changed.wait_for(lambda: sum(map(len, self.open.values())) >= count)

    async def until_gone(self, process: str) -> None:
        """Wait until the process has no connection any more that waits."""
        async with self.changed:
            await self.changed.wait_for(lambda: not self.open[process])

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """For ``start_server``; a plain function, so that it hears of no cancelled task."""
        task = asyncio.ensure_future(self._handle(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            contextlib.suppress(asyncio.IncompleteReadError, ConnectionError),
        ):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                fields = {
                    name.lower(): value for name, _, value in (x.partition(": ") for x in head)
                }
                asked = json.loads(await reader.readexactly(int(fields["content-length"])))
                prompt: str = asked["messages"][0]["content"]
                self.asked[prompt] += 1
                self.at.append(asyncio.get_running_loop().time())
                self.keys.add(fields.get("authorization", ""))
                if self.held is not None and self.held in prompt and not self._gate.is_set():
                    await self._hold(fields.get("x-process", ""), prompt, reader)
                writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
                writer.write(chunked(body(plain("to ", prompt))) + b"0\r\n\r\n")
                await writer.drain()

    async def _hold(self, process: str, prompt: str, reader: asyncio.StreamReader) -> None:
        waiting = self.open[process]
        async with self.changed:
            waiting.add(prompt)
            self.changed.notify_all()
        gone = asyncio.ensure_future(reader.read(1))
        gate = asyncio.ensure_future(self._gate.wait())
        await asyncio.wait([gone, gate], return_when=asyncio.FIRST_COMPLETED)
        gate.cancel()
        async with self.changed:
            waiting.discard(prompt)
            self.changed.notify_all()
        if gone.done():
            raise ConnectionResetError
        gone.cancel()
        await asyncio.wait([gone])


@contextlib.asynccontextmanager
async def holding(held: str | None = None) -> AsyncIterator[Holding]:
    """The server while the block runs."""
    served = Holding(held)
    server = await asyncio.start_server(served.connected, "127.0.0.1", 0, backlog=1024)
    async with server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield served
        finally:
            for task in served.tasks:
                task.cancel()
            await asyncio.gather(*served.tasks, return_exceptions=True)
            await asyncio.sleep(0)  # closing takes a turn
