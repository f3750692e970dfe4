"""The clients of ``answers``: each asks for every answer of a source in turn, over one kept-alive connection.

``python -m benchmarks.answer_clients NAME URL SOURCE DELIVERY CYCLES LOOP`` prints the CPU seconds as JSON.

The first cycle is not measured. It checks that each client read the whole answer: text, tool plan, calls,
citations and finish reason.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import attrs

from benchmarks.contestants import HEADERS
from benchmarks.harness import free_buffer, pin, run_on
from benchmarks.mix import SOURCES, Exchange


@attrs.frozen
class Summary:
    """Sizes of one answer."""

    text: int
    plan: int
    calls: int
    citations: int
    reason: str | None


Ask = Callable[[Exchange], Awaitable[Summary | None]]


class Fold:
    """What a careful engineer writes by hand: text, plan, calls, citations and the end, as dicts."""

    __slots__ = ("calls", "citations", "end", "pieces", "plan", "tail", "text", "thinking")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.plan: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.pieces: list[list[str]] = []
        self.citations: list[dict[str, Any]] = []
        self.end: dict[str, Any] = {}
        self.tail = b""

    async def read(
        self,
        chunk: bytes,
        loads: Callable[[bytes], Any],
        handler: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Read the events of one chunk."""
        blocks = (self.tail + chunk).split(b"\n\n")
        self.tail = blocks.pop()
        for block in blocks:
            data = block[block.index(b"data: ") + 6 :]
            if data[:1] != b"{":  # [DONE]
                continue
            event = loads(data)
            kind = event["type"]
            if kind == "content-delta":
                content = event["delta"]["message"]["content"]
                if "text" in content:
                    self.text.append(content["text"])
                else:
                    self.thinking.append(content["thinking"])
                await handler(event)
            elif kind == "tool-call-delta":
                calls = event["delta"]["message"]["tool_calls"]
                self.pieces[-1].append(calls["function"]["arguments"])
            elif kind == "tool-plan-delta":
                self.plan.append(event["delta"]["message"]["tool_plan"])
            elif kind == "tool-call-start":
                call = event["delta"]["message"]["tool_calls"]
                self.calls.append(call)
                self.pieces.append([call["function"].get("arguments", "")])
            elif kind == "citation-start":
                self.citations.append(event["delta"]["message"]["citations"])
            elif kind == "message-end":
                self.end = event["delta"]

    def answer(self) -> dict[str, Any]:
        """The whole answer."""
        for call, pieces in zip(self.calls, self.pieces, strict=True):
            call["function"]["arguments"] = "".join(pieces)
        return {
            "text": "".join(self.text),
            "thinking": "".join(self.thinking),
            "tool_plan": "".join(self.plan),
            "tool_calls": self.calls,
            "citations": self.citations,
            **self.end,
        }


def of_dict(answer: Mapping[str, Any]) -> Summary:
    """The sizes of an answer that :class:`Fold` made."""
    return Summary(
        len(answer["text"]),
        len(answer["tool_plan"]),
        len(answer["tool_calls"]),
        len(answer["citations"]),
        answer.get("finish_reason"),
    )


def of_response(response: Any) -> Summary:
    """The sizes of an answer of ours."""
    return Summary(
        len(response.text),
        len(response.tool_plan),
        len(response.tool_calls),
        len(response.citations),
        response.finish_reason,
    )


async def ignore(event: object) -> None:
    """The handler of content deltas."""


async def bytes_loop(url: str, stack: AsyncExitStack) -> Ask:
    """Sends the request, reads the body and does nothing with it: the floor."""
    import aiohttp

    session = await stack.enter_async_context(aiohttp.ClientSession())

    async def ask(exchange: Exchange) -> None:
        body = {**exchange.body, "stream": True}
        async with session.post(f"{url}/v2/chat", json=body, headers=HEADERS) as response:
            async for _ in response.content.iter_any():
                pass

    return ask


async def dict_loop(url: str, stack: AsyncExitStack) -> Ask:
    """By hand: split, orjson, an async handler, the answer as a dict."""
    import aiohttp
    import orjson

    session = await stack.enter_async_context(aiohttp.ClientSession())

    async def ask(exchange: Exchange) -> Summary:
        body = {**exchange.body, "stream": True}
        fold = Fold()
        async with session.post(f"{url}/v2/chat", json=body, headers=HEADERS) as response:
            async for chunk in response.content.iter_any():
                await fold.read(chunk, orjson.loads, ignore)
        return of_dict(fold.answer())

    return ask


async def iterated(url: str, stack: AsyncExitStack) -> Ask:
    """Ours: typed events, an async handler, ``async for``, the snapshot at the end."""
    import streamchat as sc

    client = await stack.enter_async_context(sc.Client(base_url=url))
    handlers = sc.Dispatcher()
    handlers.on_content_delta(ignore)

    async def ask(exchange: Exchange) -> Summary:
        stream = client.chat_stream(exchange.messages, handlers=[handlers], **exchange.options)
        async for _ in stream:
            pass
        return of_response(stream.snapshot)

    return ask


async def awaited(url: str, stack: AsyncExitStack) -> Ask:
    """Ours: ``await client.chat(...)`` without handlers."""
    import streamchat as sc

    client = await stack.enter_async_context(sc.Client(base_url=url))

    async def ask(exchange: Exchange) -> Summary:
        return of_response(await client.chat(exchange.messages, **exchange.options))

    return ask


async def cohere_sdk(url: str, stack: AsyncExitStack) -> Ask:
    """The official SDK, as its documentation shows it; it builds no answer."""
    import cohere

    client = cohere.AsyncClientV2(api_key="benchmark", base_url=url)

    async def ask(exchange: Exchange) -> None:
        parts: list[str] = []
        async for event in client.chat_stream(**exchange.body):
            if event.type == "content-delta":
                await ignore(event)
                delta: Any = event.delta
                parts.append(delta.message.content.text or "")
        "".join(parts)

    return ask


ITERATED, AWAITED, DICT_LOOP, BYTES_LOOP, SDK = (
    "streamchat, iterated",
    "streamchat, awaited",
    "dict loop",
    "bytes loop",
    "cohere SDK",
)
CLIENTS: dict[str, Callable[[str, AsyncExitStack], Awaitable[Ask]]] = {
    BYTES_LOOP: bytes_loop,
    DICT_LOOP: dict_loop,
    ITERATED: iterated,
    AWAITED: awaited,
    SDK: cohere_sdk,
}


async def expected(exchanges: Sequence[Exchange]) -> list[Summary]:
    """The sizes of each answer, read from its frames."""
    found = []
    for exchange in exchanges:
        fold = Fold()
        await fold.read(b"".join(exchange.frames), json.loads, ignore)
        found.append(of_dict(fold.answer()))
    return found


async def measure(name: str, url: str, source: str, delivery: str, cycles: int) -> float:
    """CPU seconds of so many cycles through the answers."""
    exchanges = SOURCES[source]()
    async with AsyncExitStack() as stack:
        ask = await CLIENTS[name](f"{url}/{source}-{delivery}", stack)
        for exchange, sizes in zip(exchanges, await expected(exchanges), strict=True):
            found = await ask(exchange)
            if found not in (None, sizes):
                raise SystemExit(f"{name} read {found} of {exchange.name}, which has {sizes}")
        gc.collect()
        begin = time.process_time()
        for _ in range(cycles):
            for exchange in exchanges:
                await ask(exchange)
        return time.process_time() - begin


def main() -> None:
    """The process of one measurement."""
    name, url, source, delivery, cycles, loop = sys.argv[1:7]
    pin(0)
    free_buffer()
    seconds = run_on(loop, measure(name, url, source, delivery, int(cycles)))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
