"""The other side, in a process of its own: it does what each request asks for, and notes every end.

A request says what it wants in the header ``x-do``, or in its path after ``/do/``:
``trickle;events=50;pause=0.02``. ``x-stream`` names it, so that the end can be looked up.
``time.monotonic`` is one clock for all processes of a machine, so times can be compared.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import trustme

from tests.frames import body, pieces, plain, text_events

ROOT = Path(__file__).resolve().parents[2]
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ANSWER = pieces(plain("one", " two", " three", " four", " five"))
DELTA = pieces(text_events(" token"), done=False)[1]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = CHUNKED + chunk(b"".join(ANSWER)) + b"0\r\n\r\n"
HALF = CHUNKED + chunk(b"".join(ANSWER[:5]))
FLOOD = chunk(DELTA * (65536 // len(DELTA)))


def raise_descriptor_limit() -> None:
    """As many sockets as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Ends(asyncio.StreamReaderProtocol):
    """Notes when the client's end of the connection is seen."""

    def __init__(self, seen: dict[str, float]) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader, self._serve)
        self.seen = seen
        self.current: str | None = None
        self.ended: float | None = None
        self.authorization = ""
        self.transport: Any = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        super().connection_made(transport)

    def eof_received(self) -> bool | None:
        self._note()
        super().eof_received()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._note()
        self.lost.set()
        super().connection_lost(exc)

    def _note(self) -> None:
        self.ended = self.ended or time.monotonic()
        if self.current is not None:
            self.seen[self.current] = time.monotonic()
            self.current = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                await reader.readexactly(int(headers.get("content-length", "0")))
                method, target = head[0].split(" ")[:2]
                if method == "GET":
                    self._report(writer)
                    return
                if method == "CONNECT":
                    status = target.split(".")[0].removeprefix("status-")
                    writer.write(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())
                    return
                wish = headers.get("x-do", "whole")
                if "/do/" in target:
                    wish = target.partition("/do/")[2].partition("/")[0]
                name, *pairs = wish.split(";")
                options = {key: float(value) for key, _, value in (p.partition("=") for p in pairs)}
                self.current = headers.get("x-stream")
                if self.ended is not None and self.current is not None:
                    self.seen[self.current] = self.ended  # gone before its request was read
                self.authorization = headers.get("authorization", "")
                await (WISHES.get(name) or echo)(self, writer, options)
                self.current = None
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _report(self, writer: asyncio.StreamWriter) -> None:
        text = json.dumps(self.seen).encode()
        self.seen.clear()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + text)


Options = Mapping[str, float]
Wish = Callable[[Ends, asyncio.StreamWriter, Options], Awaitable[None]]
WISHES: dict[str, Wish] = {}


def wish(function: Wish) -> Wish:
    WISHES[function.__name__] = function
    return function


def says(name: str, data: bytes, then: str = "stay") -> None:
    """A wish that is some bytes and an end: ``stay`` in use, ``fin``, ``rst`` or ``stall``."""

    async def answer(ends: Ends, writer: asyncio.StreamWriter, options: Options) -> None:
        writer.write(data)
        await writer.drain()
        if then == "stall":
            await ends.lost.wait()
        elif then == "rst":
            await asyncio.sleep(0.005)  # what was sent goes out first
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ends.transport.abort()
        elif then == "fin":
            writer.close()

    WISHES[name] = answer


def status_line(status: int, text: str, *more: str) -> bytes:
    head = [f"HTTP/1.1 {status} X", "content-type: application/json", *more]
    return "\r\n".join([*head, f"content-length: {len(text)}", "", text]).encode()


says("whole", WHOLE)
says("whole_close", TO_THE_END + body(plain("one", " two")), "fin")
says("cut", HALF, "fin")
says("cut_inside", HALF[:-9], "fin")
says("eof", TO_THE_END + b"".join(ANSWER[:5]), "fin")
says("reset", HALF, "rst")
says("reset_headers", b"HTTP/1.1 200", "rst")
says("fin_headers", b"", "fin")
says("stall", HALF, "stall")
says("silent", b"", "stall")
says("early_hints", b"HTTP/1.1 103 Early Hints\r\n\r\n", "stall")
says("binary", b"\x00\x16\x03\x01 no http at all\r\n\r\n", "fin")
says("long_header", b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 20_000 + b"\r\n\r\n", "fin")
says("two_lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "fin")
says("bad_chunk_at_once", HALF + b"zzzz\r\n", "fin")
says("no_json", CHUNKED + chunk(ANSWER[0] + b"data: {no json}\n\n"), "stall")
says("html", b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p/>")
says("gzip", CHUNKED[:-2] + b"content-encoding: gzip\r\n\r\n" + chunk(b"no gzip"), "fin")
says("redirect", status_line(307, "", "location: https://elsewhere.example/v2/chat?a=b"))
for _status in (400, 401, 403, 404, 407, 422, 429, 498, 500, 503):
    says(f"status_{_status}", status_line(_status, '{"message": "no"}'))


@wish
async def garbage(ends: Ends, writer: asyncio.StreamWriter, options: Options) -> None:
    """Broken chunk framing in a later segment: aiohttp never wakes its reader."""
    writer.write(HALF)
    await asyncio.sleep(0.02)
    writer.write(b"zzzz\r\n")
    await ends.lost.wait()


@wish
async def pings(ends: Ends, writer: asyncio.StreamWriter, options: Options) -> None:
    """Comments for ever."""
    writer.write(HALF)
    while not ends.lost.is_set():
        writer.write(chunk(b": ping\n\n"))
        await asyncio.sleep(options.get("pause", 0.01))


@wish
async def trickle(ends: Ends, writer: asyncio.StreamWriter, options: Options) -> None:
    """An event now and then, after some time without even headers.

    Each pause is half to one and a half times the wish: streams that were opened together do not stay
    in step, as those of many users are not.
    """
    chance = random.Random(id(writer))
    await asyncio.sleep(options.get("before", 0.0))
    writer.write(CHUNKED + chunk(b"".join(ANSWER[:2])))
    for _ in range(int(options.get("events", 1_000_000))):
        if ends.lost.is_set():
            return
        writer.write(chunk(DELTA))
        await asyncio.sleep(options.get("pause", 0.05) * (0.5 + chance.random()))
    writer.write(chunk(b"".join(ANSWER[-3:])) + b"0\r\n\r\n")
    await writer.drain()


@wish
async def flood(ends: Ends, writer: asyncio.StreamWriter, options: Options) -> None:
    """Events as fast as the connection takes them."""
    writer.write(CHUNKED + chunk(b"".join(ANSWER[:2])))
    while not ends.lost.is_set():
        writer.write(FLOOD)
        await writer.drain()


async def echo(ends: Ends, writer: asyncio.StreamWriter, options: Options) -> None:
    """A careless server: its refusal repeats the key."""
    writer.write(status_line(401, json.dumps({"message": f"bad token {ends.authorization}"})))


async def _main(folder: str | None) -> None:
    raise_descriptor_limit()
    context = None
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(folder) / "server.pem")
    loop, seen = asyncio.get_running_loop(), dict[str, float]()
    server = await loop.create_server(
        lambda: Ends(seen), "127.0.0.1", 0, ssl=context, backlog=16_384
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started it is gone


@attrs.frozen
class Far:
    """A running other side."""

    url: str
    ssl: ssl.SSLContext | bool
    """What a client needs to trust it."""

    def seen(self) -> dict[str, float]:
        """When the end of each named stream was seen, on ``time.monotonic``; then forgotten."""
        context = self.ssl if isinstance(self.ssl, ssl.SSLContext) else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(f"{self.url}/seen", timeout=30) as answer:
            result: dict[str, float] = json.load(answer)
            return result


@contextmanager
def far_side(*, tls: bool = False) -> Iterator[Far]:
    """The other side while the block runs; over TLS with a throw-away authority."""
    with TemporaryDirectory() as folder:
        context: ssl.SSLContext | bool = True
        arguments = []
        if tls:
            authority = trustme.CA()
            certificate = authority.issue_cert("127.0.0.1")
            certificate.private_key_and_cert_chain_pem.write_to_path(Path(folder) / "server.pem")
            context = ssl.create_default_context()
            authority.configure_trust(context)
            arguments = [folder]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.resources.far", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            try:
                port = int(process.stdout.readline())
                yield Far(f"{'https' if tls else 'http'}://127.0.0.1:{port}", context)
            finally:
                process.kill()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1] if len(sys.argv) > 1 else None))
