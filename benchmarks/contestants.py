"""The clients that are compared: each reads one answer, calls a handler an event, joins the text.

``python -m benchmarks.contestants NAME URL ANSWERS`` prints its CPU seconds as JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from benchmarks.harness import free_buffer, pin, run_on

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
HEADERS = {"Authorization": "Bearer benchmark", "Accept-Encoding": "identity"}
Measure = Callable[[str, int], Coroutine[Any, Any, float]]


async def bytes_loop(url: str, answers: int) -> float:
    """Reads the body and does nothing with it: the floor."""
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def once(prefix: str) -> None:
            async with session.post(f"{url}/{prefix}/v2/chat", json=BODY, headers=HEADERS) as r:
                async for _ in r.content.iter_any():
                    pass

        return await _timed(once, answers)


async def dict_loop(url: str, answers: int) -> float:
    """What a careful engineer writes by hand: split, orjson, an async handler, a join."""
    import aiohttp
    import orjson

    heard = 0

    async def handler(event: dict[str, object]) -> None:
        nonlocal heard
        heard += 1

    async with aiohttp.ClientSession() as session:

        async def once(prefix: str) -> None:
            parts: list[str] = []
            tail = b""
            async with session.post(f"{url}/{prefix}/v2/chat", json=BODY, headers=HEADERS) as r:
                async for chunk in r.content.iter_any():
                    blocks = (tail + chunk).split(b"\n\n")
                    tail = blocks.pop()
                    for block in blocks:
                        data = block[block.index(b"data: ") + 6 :]
                        if data == b"[DONE]":
                            continue
                        event = orjson.loads(data)
                        if event["type"] == "content-delta":
                            await handler(event)
                            parts.append(event["delta"]["message"]["content"]["text"])
            "".join(parts)

        return await _timed(once, answers)


async def streamchat(url: str, answers: int) -> float:
    """Ours: typed events, the snapshot, one async handler, and ``async for``."""
    import streamchat as sc

    heard = 0
    handlers = sc.Dispatcher()

    @handlers.on_content_delta
    async def count(event: sc.ContentDelta) -> None:
        nonlocal heard
        heard += 1

    clients: dict[str, sc.Client] = {}

    async def once(prefix: str) -> None:
        client = clients.get(prefix)
        if client is None:
            client = clients[prefix] = sc.Client(base_url=f"{url}/{prefix}", model="m")
        stream = client.chat_stream("Hi", handlers=[handlers])
        async for _ in stream:
            pass
        _ = stream.snapshot.text

    seconds = await _timed(once, answers)
    for client in clients.values():
        await client.aclose()
    return seconds


async def cohere_sdk(url: str, answers: int) -> float:
    """The official SDK, as its documentation shows it."""
    import cohere

    heard = 0

    async def handler(text: str) -> None:
        nonlocal heard
        heard += 1

    # A client is kept, as ours is: making one reads certificates, which no event should pay for.
    clients: dict[str, cohere.AsyncClientV2] = {}

    async def once(prefix: str) -> None:
        parts = []
        client = clients.get(prefix)
        if client is None:
            base_url = f"{url}/{prefix}"
            client = clients[prefix] = cohere.AsyncClientV2(api_key="benchmark", base_url=base_url)
        async for event in client.chat_stream(model="m", messages=BODY["messages"]):
            if event.type == "content-delta":
                text = event.delta.message.content.text
                await handler(text)
                parts.append(text)
        "".join(parts)

    return await _timed(once, answers)


async def _timed(once: Callable[[str], Awaitable[None]], answers: int) -> float:
    for _ in range(3):
        await once("warm")
    gc.collect()
    begin = time.process_time()
    for _ in range(answers):
        await once(SHAPE)
    return time.process_time() - begin


CONTESTANTS: dict[str, Measure] = {
    "bytes loop": bytes_loop,
    "dict loop": dict_loop,
    "streamchat": streamchat,
    "cohere SDK": cohere_sdk,
}
SHAPE = "large"


def main() -> None:
    """The process of one measurement."""
    global SHAPE
    name, url, SHAPE, answers, loop = sys.argv[1:6]
    pin(0)
    free_buffer()
    print(json.dumps({"seconds": run_on(loop, CONTESTANTS[name](url, int(answers)))}))


if __name__ == "__main__":
    main()
