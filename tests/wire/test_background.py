"""Handlers at their own pace on real sockets, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamchat import Client, ContentDelta, MessageEnd
from tests.frames import pieces, plain
from tests.wire.server import EVENT_STREAM, Request, answer_whole, chunked, serve

OPTIONS: list[dict[str, Any]] = [{"background": True, "max_queue": 1}, {"every": 1000.0}]


async def stalls(writer: asyncio.StreamWriter, request: Request) -> None:
    """An answer that stops in the middle of its text."""
    writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
    writer.write(chunked(b"".join(pieces(plain("a", "b", "c"))[:5])))
    await writer.drain()
    await asyncio.Event().wait()


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("options", OPTIONS)
async def test_the_text_comes_whole_and_the_connection_is_used_again(
    options: dict[str, Any],
) -> None:
    async with serve(answer_whole) as wire, Client("k", base_url=wire.url, model="m") as client:
        texts: list[str] = []

        @client.on_content_delta(**options)
        async def save(event: ContentDelta) -> None:
            await asyncio.sleep(0)
            texts.append(event.text)

        for _ in range(3):
            await client.chat("Hi")
        assert "".join(texts) == "Hello there!" * 3
        assert wire.connections == 1


async def test_the_end_is_handed_out_while_the_handler_still_waits() -> None:
    async with serve(answer_whole) as wire, Client("k", base_url=wire.url, model="m") as client:
        may_go_on, received = asyncio.Event(), []

        @client.on_content_delta(background=True)
        async def slow(event: ContentDelta) -> None:
            await may_go_on.wait()
            received.append(event.text)

        async for event in client.chat_stream("Hi"):
            if isinstance(event, MessageEnd):
                assert received == []
                may_go_on.set()
        assert received == ["Hello", " there", "!"]


@pytest.mark.parametrize("options", OPTIONS)
async def test_cancelled_while_the_server_stalls(options: dict[str, Any]) -> None:
    """The handler is cancelled, the connection closed, and no task stays."""
    async with serve(stalls) as wire, Client("k", base_url=wire.url, model="m") as client:
        before = others()
        began, ended = asyncio.Event(), asyncio.Event()

        @client.on_content_delta(background=True)
        async def slow(event: ContentDelta) -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        @client.on_content_delta(**options)
        async def another(event: ContentDelta) -> None:
            await asyncio.Event().wait()

        async def run() -> None:
            await client.chat("Hi")

        task = asyncio.ensure_future(run())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
        await wire.closed.wait()
        assert not {each for each in others() - before if "BackgroundHandler" in repr(each)}


async def test_a_failure_closes_the_connection_while_the_server_stalls() -> None:
    async with serve(stalls) as wire, Client("k", base_url=wire.url, model="m") as client:

        @client.on_content_delta(background=True)
        async def fails(event: ContentDelta) -> None:
            if event.text == "b":
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await client.chat("Hi")
        await wire.closed.wait()
