"""One peer's process: read answers on its own wire as its documentation shows it, and join the text.

``VENV/bin/python -m benchmarks.peer_clients NAME URL SHAPE ANSWERS CHARACTERS`` prints its CPU
seconds as JSON. Runs where only the peer is installed, so it imports nothing else.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any

from benchmarks.harness import free_buffer, pin, run_on

MESSAGES = [{"role": "user", "content": "Hi"}]
Texts = Callable[[str], AsyncIterator[str]]
"""The text deltas of one answer, from this base URL."""


def openai() -> Texts:
    """OpenAI's SDK, Chat Completions."""
    make: Any = import_module("openai").AsyncOpenAI
    client = kept(lambda url: make(api_key="benchmark", base_url=url))

    async def texts(url: str) -> AsyncIterator[str]:
        create = client(url).chat.completions.create
        async for chunk in await create(model="m", messages=MESSAGES, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    return texts


def anthropic() -> Texts:
    """Anthropic's SDK, Messages: raw events, which cost less than its ``stream`` helper."""
    make: Any = import_module("anthropic").AsyncAnthropic
    client = kept(lambda url: make(api_key="benchmark", base_url=url))

    async def texts(url: str) -> AsyncIterator[str]:
        create = client(url).messages.create
        async for event in await create(model="m", messages=MESSAGES, max_tokens=9, stream=True):
            if event.type == "content_block_delta":
                yield event.delta.text

    return texts


def cohere() -> Texts:
    """The official SDK, Chat v2."""
    make: Any = import_module("cohere").AsyncClientV2
    client = kept(lambda url: make(api_key="benchmark", base_url=url))

    async def texts(url: str) -> AsyncIterator[str]:
        async for event in client(url).chat_stream(model="m", messages=MESSAGES):
            if event.type == "content-delta":
                yield event.delta.message.content.text

    return texts


def httpx_sse() -> Texts:
    """httpx, httpx-sse and the standard library's json, on Cohere's wire."""
    httpx: Any = import_module("httpx")
    connect: Any = import_module("httpx_sse").aconnect_sse
    client = httpx.AsyncClient()

    async def texts(url: str) -> AsyncIterator[str]:
        body = {"model": "m", "messages": MESSAGES, "stream": True}
        async with connect(client, "POST", f"{url}/v2/chat", json=body) as source:
            async for frame in source.aiter_sse():
                if frame.event == "content-delta":
                    yield json.loads(frame.data)["delta"]["message"]["content"]["text"]

    return texts


def streamchat() -> Texts:
    """Ours: typed events, and the snapshot that comes with them."""
    make: Any = import_module("streamchat").Client
    client = kept(lambda url: make("benchmark", base_url=url, model="m"))

    async def texts(url: str) -> AsyncIterator[str]:
        async for event in client(url).chat_stream("Hi"):
            if event.type == "content-delta":
                yield event.text

    return texts


PEERS = {
    "streamchat": streamchat,
    "cohere": cohere,
    "openai": openai,
    "anthropic": anthropic,
    "httpx-sse": httpx_sse,
}


def kept(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """A client for each URL, kept between answers: making one reads certificates."""
    clients: dict[str, Any] = {}

    def client(url: str) -> Any:
        if url not in clients:
            clients[url] = make(url)
        return clients[url]

    return client


async def measure(name: str, url: str, shape: str, answers: int, characters: int) -> dict[str, Any]:
    """CPU seconds of so many answers, each of which must be complete; and of the import."""
    begin = time.process_time()
    texts = PEERS[name]()
    imported = time.process_time() - begin

    async def once(base: str, expected: int) -> None:
        text = "".join([piece async for piece in texts(base)])
        if len(text) != expected:
            raise AssertionError(f"{name}: {len(text)} of {expected} characters came out")

    for _ in range(2):
        await once(f"{url}/{shape}", characters)
    gc.collect()
    begin = time.process_time()
    for _ in range(answers):
        await once(f"{url}/{shape}", characters)
    return {"seconds": time.process_time() - begin, "import_s": imported}


def main() -> None:
    """The process of one measurement."""
    name, url, shape, answers, characters = sys.argv[1:6]
    pin(0)
    free_buffer()
    found = run_on("asyncio", measure(name, url, shape, int(answers), int(characters)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
