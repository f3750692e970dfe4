"""What ``guard`` counts of whole answers: requests, opening and closing, answers of the mix.

Each path takes a number and does its work so many times. Opening and closing run over loopback with a
server in the same process, beside ``session.post`` with the same server, because half of that work is around
aiohttp.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

from benchmarks.answer_clients import Fold, ignore, of_dict, of_response
from benchmarks.contestants import BODY
from benchmarks.far import Connection, Pacer
from benchmarks.harness import chunked
from benchmarks.in_memory import Network, chunks_of
from benchmarks.mix import Exchange, mix
from benchmarks.opening_clients import DATA, JSON_HEADERS, shortest

Path = Callable[[int], Awaitable[Callable[[], Awaitable[object]]]]
MIX = mix()
REPEATS = len(MIX)
"""How often each path runs: once for each answer of the mix."""


def _turns(count: int) -> list[Exchange]:
    """So many exchanges of the mix."""
    return [MIX[place % len(MIX)] for place in range(count)]


async def dumps(count: int) -> Callable[[], Awaitable[object]]:
    """``json.dumps`` of the bodies."""
    bodies = [{**exchange.body, "stream": True} for exchange in _turns(count)]

    async def read() -> None:
        for body in bodies:
            json.dumps(body)

    return read


def _client(network: Network | None = None, url: str = "http://127.0.0.1:9") -> Any:
    import streamchat as sc

    client = sc.Client("benchmark", base_url=url)
    if network is not None:
        client._transport = cast("Any", network)
    return client


async def requests(count: int) -> Callable[[], Awaitable[object]]:
    """``chat_stream(...)``: nothing is sent."""
    client, exchanges = _client(), _turns(count)

    async def read() -> None:
        for exchange in exchanges:
            client.chat_stream(exchange.messages, **exchange.options)

    return read


async def by_hand(count: int) -> Callable[[], Awaitable[object]]:
    """``json.dumps`` of the body, then split, orjson, an async handler and the answer as a dict."""
    import orjson

    work = [
        ({**exchange.body, "stream": True}, chunks_of(exchange.frames))
        for exchange in _turns(count)
    ]

    async def read() -> None:
        for body, chunks in work:
            json.dumps(body).encode()
            fold = Fold()
            for chunk in chunks:
                await fold.read(chunk, orjson.loads, ignore)
            of_dict(fold.answer())

    return read


async def answers(count: int) -> Callable[[], Awaitable[object]]:
    """Everything but aiohttp: the request, opening, an async handler, ``async for``, the snapshot."""
    network = Network(())
    client = _client(network)
    client.on_content_delta(ignore)
    work = [
        (exchange.messages, exchange.options, chunks_of(exchange.frames))
        for exchange in _turns(count)
    ]

    async def read() -> None:
        for messages, options, network.chunks in work:
            stream = client.chat_stream(messages, **options)
            async for _ in stream:
                pass
            of_response(stream.snapshot)

    return read


async def _server(stack: AsyncExitStack) -> str:
    """The shortest answer to every request, in this process."""
    pacer = Pacer()
    stack.callback(pacer.task.cancel)
    served = {"shortest": [chunked(shortest(), 64 * 1024)]}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(served, pacer), "127.0.0.1", 0)
    await stack.enter_async_context(server)
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/shortest"


async def post(count: int) -> Callable[[], Awaitable[object]]:
    """``session.post`` of a finished body, its answer read."""
    import aiohttp

    async def read() -> None:
        async with AsyncExitStack() as stack:
            url = await _server(stack)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            for _ in range(count):
                async with session.post(
                    f"{url}/v2/chat", data=DATA, headers=JSON_HEADERS
                ) as response:
                    async for _ in response.content.iter_any():
                        pass

    return read


async def opening(count: int) -> Callable[[], Awaitable[object]]:
    """A stream of the shortest answer, awaited; its request is part of it."""

    async def read() -> None:
        async with AsyncExitStack() as stack:
            url = await _server(stack)
            client = await stack.enter_async_context(_client(url=url))
            client.on_content_delta(ignore)
            for _ in range(count):
                await client.chat_stream(BODY["messages"], model="m")

    return read


REFERENCES: dict[str, str] = {
    "chat_stream, requests of the mix": "json.dumps, requests of the mix",
    "ChatStream, answers of the mix": "dict loop, answers of the mix",
    "ChatStream, the shortest answer": "session.post, the shortest answer",
}
"""Each path, and the path that it is compared with."""
PATHS: dict[str, Path] = {
    "json.dumps, requests of the mix": dumps,
    "chat_stream, requests of the mix": requests,
    "dict loop, answers of the mix": by_hand,
    "ChatStream, answers of the mix": answers,
    "session.post, the shortest answer": post,
    "ChatStream, the shortest answer": opening,
}
