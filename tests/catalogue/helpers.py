"""What the catalogue's tests share: raw replies, a client with a canary key, and how to look at an end."""

from __future__ import annotations

import asyncio
import os
import pickle
import traceback
from typing import Any, TypeVar

import pytest
from aiohttp import http_parser

from streamchat import Client, Event, Retry, StreamChatError
from tests.wire.server import EVENT_STREAM, Reply, Request, Wire, chunked

KEY = "canary-key-8f3b"
ONCE = Retry(attempts=1)
TWICE = Retry(attempts=2, base=0)
PURE_PARSER = http_parser.HttpResponseParser is http_parser.HttpResponseParserPy
"""Whether aiohttp runs without its C extension: AIOHTTP_NO_EXTENSIONS=1, or it has none."""
assert PURE_PARSER or not os.environ.get("AIOHTTP_NO_EXTENSIONS"), "aiohttp ignores the variable"
CHUNKED = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"

E = TypeVar("E", bound=StreamChatError)


def client(url: Wire | str, **options: Any) -> Client:
    """A client with the canary key; tries once unless told otherwise."""
    base_url = url if isinstance(url, str) else url.url
    settings: dict[str, Any] = {"base_url": base_url, "model": "command-test", "retry": ONCE}
    return Client(KEY, **(settings | options))


def says(*parts: bytes, close: bool = True) -> Reply:
    """A reply of these bytes, each part on its own way, then FIN unless told otherwise."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            for _ in range(5):
                await asyncio.sleep(0)
        if close:
            writer.close()

    return reply


def resets(*parts: bytes) -> Reply:
    """A reply of these bytes, then RST."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        await says(*parts, close=False)(writer, request)
        reset(writer)

    return reply


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST."""
    import socket
    import struct

    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()


def stream_of(data: bytes) -> bytes:
    """A whole chunked response whose body is this."""
    return CHUNKED + chunked(data) + b"0\r\n\r\n"


def with_length(status: str, body: bytes = b"{}", *headers: str) -> bytes:
    """A whole response of another kind."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


async def failure(chat: Client, expected: type[E], match: str | None = None, **options: Any) -> E:
    """Why ``chat`` failed; the error is one of ours alone, and shows neither key nor prompt."""
    with pytest.raises(expected, match=match) as caught:
        await chat.chat("canary-prompt", **options)
    check_clean(caught.value)
    return caught.value


def check_clean(error: BaseException) -> None:
    """R1 and R4: nothing foreign is chained, and no secret is in any form of the error."""
    assert isinstance(error, StreamChatError)
    assert error.__cause__ is None
    assert error.__context__ is None
    rendered = traceback.TracebackException.from_exception(error, capture_locals=True)
    library = "".join(
        line for line in rendered.format() if "/tests/" not in line and "canary-prompt" not in line
    )
    shown = "\n".join([str(error), repr(error), repr(error.args), library])
    assert KEY not in shown
    assert KEY.encode() not in pickle.dumps(error)


async def collect(stream: Any) -> tuple[list[Event], BaseException | None]:
    """Every event, and how it ended."""
    seen: list[Event] = []
    try:
        async for event in stream:
            seen.append(event)
    except StreamChatError as error:
        check_clean(error)
        return seen, error
    return seen, None
