"""One peer's process: it reads answers as its documentation shows it, calls a handler a text, joins the text.

``PYTHON -m benchmarks.peer_clients NAME URL EVENTS ANSWERS`` prints its CPU seconds as JSON, and what it
ran on. It runs where nothing but the peer is installed: what it imports at its top is of the standard
library alone.
"""

from __future__ import annotations

import gc
import json
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from importlib.metadata import version
from typing import Any

from benchmarks import wires
from benchmarks.harness import free_buffer, pin, run_on

MESSAGES = [{"role": "user", "content": "Hi"}]
PACKAGES = (
    *("streamchat", "cohere", "openai", "anthropic"),
    *("httpx", "httpx2", "httpx-sse", "aiohttp", "pydantic", "msgspec", "orjson"),
)
"""What a process tells the version of, if it has imported it."""
Timed = Callable[[Callable[[], Awaitable[str]]], Awaitable[float]]
"""Takes what reads one answer and gives its text; gives the CPU seconds of all answers."""

heard = 0


async def handler(_: object) -> None:
    """What each client calls for each text."""
    global heard
    heard += 1


# --- the peers: a client is kept from answer to answer, as making one reads certificates ------------


async def streamchat(url: str, timed: Timed) -> float:
    """Ours: typed events, the snapshot, one async handler, and ``async for``."""
    sc = import_module("streamchat")
    handlers = sc.Dispatcher()
    handlers.on_content_delta(handler)
    async with sc.Client("benchmark", base_url=url, model="m") as client:

        async def once() -> str:
            stream = client.chat_stream("Hi", handlers=[handlers])
            async for _ in stream:
                pass
            text: str = stream.snapshot.text
            return text

        return await timed(once)


async def dict_loop(url: str, timed: Timed) -> float:
    """By hand, with care: aiohttp, ``split``, orjson (as in ``benchmarks/contestants.py``)."""
    session: Any = import_module("aiohttp").ClientSession()
    loads = import_module("orjson").loads
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    async with session:

        async def once() -> str:
            parts: list[str] = []
            tail = b""
            async with session.post(f"{url}/v2/chat", json=body) as response:
                async for chunk in response.content.iter_any():
                    blocks = (tail + chunk).split(b"\n\n")
                    tail = blocks.pop()
                    for block in blocks:
                        data = block[block.index(b"data: ") + 6 :]
                        if data == b"[DONE]":
                            continue
                        event = loads(data)
                        if event["type"] == "content-delta":
                            await handler(event)
                            parts.append(event["delta"]["message"]["content"]["text"])
            return "".join(parts)

        return await timed(once)


async def httpx_sse(url: str, timed: Timed) -> float:
    """By hand, as most write it: httpx, httpx-sse, and the standard library's json."""
    connect: Any = import_module("httpx_sse").aconnect_sse
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    async with import_module("httpx").AsyncClient() as client:

        async def once() -> str:
            parts: list[str] = []
            async with connect(client, "POST", f"{url}/v2/chat", json=body) as source:
                async for frame in source.aiter_sse():
                    if frame.data == "[DONE]":
                        continue
                    event = json.loads(frame.data)
                    if event["type"] == "content-delta":
                        await handler(event)
                        parts.append(event["delta"]["message"]["content"]["text"])
            return "".join(parts)

        return await timed(once)


async def cohere(url: str, timed: Timed) -> float:
    """The official SDK, Chat v2."""
    make: Any = import_module("cohere").AsyncClientV2
    async with make(api_key="benchmark", base_url=url) as client:

        async def once() -> str:
            parts: list[str] = []
            async for event in client.chat_stream(model="m", messages=MESSAGES):
                if event.type == "content-delta":
                    await handler(event)
                    parts.append(event.delta.message.content.text)
            return "".join(parts)

        return await timed(once)


async def openai(url: str, timed: Timed) -> float:
    """OpenAI's SDK, Chat Completions."""
    make: Any = import_module("openai").AsyncOpenAI
    async with make(api_key="benchmark", base_url=url) as client:
        create = client.chat.completions.create

        async def once() -> str:
            parts: list[str] = []
            async for event in await create(model="m", messages=MESSAGES, stream=True):
                if event.choices and event.choices[0].delta.content:
                    await handler(event)
                    parts.append(event.choices[0].delta.content)
            return "".join(parts)

        return await timed(once)


async def anthropic(url: str, timed: Timed) -> float:
    """Anthropic's SDK, Messages: raw events, which cost less than its ``stream`` helper."""
    make: Any = import_module("anthropic").AsyncAnthropic
    async with make(api_key="benchmark", base_url=url) as client:
        create = client.messages.create

        async def once() -> str:
            parts: list[str] = []
            stream = await create(model="m", messages=MESSAGES, max_tokens=1024, stream=True)
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    await handler(event)
                    parts.append(event.delta.text)
            return "".join(parts)

        return await timed(once)


PEERS: dict[str, Callable[[str, Timed], Coroutine[Any, Any, float]]] = {
    "streamchat": streamchat,
    "dict loop": dict_loop,
    "httpx-sse": httpx_sse,
    "cohere": cohere,
    "openai": openai,
    "anthropic": anthropic,
}


def main() -> None:
    """The process of one measurement."""
    name, url = sys.argv[1:3]
    events, answers = map(int, sys.argv[3:])
    pin(0)
    free_buffer()
    expected = "".join(wires.text(events))

    async def timed(once: Callable[[], Awaitable[str]]) -> float:
        await once()  # connects, and fills the caches of whoever builds its types late
        gc.collect()
        texts: list[str] = []
        begin = time.process_time()
        for _ in range(answers):
            texts.append(await once())
        seconds = time.process_time() - begin
        if texts != [expected] * answers or heard != (answers + 1) * events:
            raise AssertionError(f"{name}: not all of the text came out")
        return seconds

    result = {
        "seconds": run_on("asyncio", PEERS[name](url, timed)),
        "complete answers": answers,
        "python": platform.python_version(),
        "packages": {x: version(x) for x in PACKAGES if x.replace("-", "_") in sys.modules},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
