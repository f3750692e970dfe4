"""What the collector finds of background handlers: nothing, and streams that were dropped."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from contextlib import suppress
from typing import Any

import pytest

from streamchat import (
    ChatStream,
    ContentDelta,
    Context,
    MessageEnd,
)
from tests.fakes import Answer, make_stream
from tests.frames import body, plain
from tests.shell.test_background import Log, background_tasks, paced, with_handler
from tests.shell.test_middleware import client_over
from tests.virtual import VirtualLoop


def weather(city: str) -> str:
    "Weather."
    return "sunny"


@pytest.mark.parametrize("ending", ["complete", "broken off", "failed", "closed raising"])
async def test_a_stream_with_background_handlers_needs_no_collector(ending: str) -> None:
    async def scene() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        async def handler(event: ContentDelta, ctx: Context) -> None:
            if ending in ("failed", "closed raising"):
                raise ValueError("mine")

        stream = make_stream(paced(plain("a", "b"), 1.0))
        stream.on_content_delta(every=0.5)(handler)
        watched = weakref.ref(stream), weakref.ref(handler)
        with suppress(ValueError):
            if ending in ("complete", "failed"):
                await stream
            else:
                async for event in stream:
                    if isinstance(event, ContentDelta):
                        break
                await stream.aclose()
        return watched

    gc.collect()
    gc.disable()
    try:
        stream, handler = await scene()
        await asyncio.sleep(0)
        assert stream() is None and handler() is None
    finally:
        gc.enable()


def test_what_is_collected_after_its_loop_was_closed_awaits_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stream waits for room in a queue when its loop is stopped, and closed without another turn."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: unraisable.append(found.exc_value))
    loop = VirtualLoop()

    async def main() -> None:
        await with_handler(Answer(body(plain(*"abc"))), Log(1e6), background=True, max_queue=1)

    task: Any = loop.create_task(main())
    loop.call_later(5, loop.stop)
    loop.run_forever()
    loop.close()
    del task
    gc.collect()
    assert not unraisable


async def test_a_run_that_is_dropped_leaves_no_task_and_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, _ = client_over(paced(plain("a", "b"), 1.0))
    run: Any = client.run_tools("Hi", tools=[weather])
    run.on_step_start(background=True)(Log())
    run.on_content_delta(background=True)(Log(5.0))
    async for event in run:
        if isinstance(event, ContentDelta):
            break
    assert len(background_tasks()) == 2
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        del run, event
        gc.collect()
        await asyncio.sleep(10)
    assert not background_tasks() and not caplog.records


async def test_a_complete_stream_that_is_dropped_says_that_handlers_had_not_ended() -> None:
    log = Log(1.0)
    stream: ChatStream | None = with_handler(Answer(body(plain("a", "b"))), log, background=True)
    assert stream is not None
    async for event in stream:
        if isinstance(event, MessageEnd):
            break
    with pytest.warns(ResourceWarning, match="background handlers"):
        del stream
        gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not background_tasks()
