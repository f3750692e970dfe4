"""Background handlers at random: whatever fails, closes, cancels and is slow, a stream or a run ends.

It leaves no task, and no failure is lost: each is raised, named in a note, or recovered by ``on_error``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamchat import (
    ChatStream,
    ContentDelta,
    ContentEnd,
    Context,
    MessageEnd,
    StepEnd,
    StepStart,
    StreamChatError,
    ToolCallDelta,
    ToolProgress,
    ToolResult,
    ToolRun,
)
from tests.fakes import make_stream
from tests.frames import plain, tools
from tests.shell.test_background import background_tasks, paced
from tests.shell.test_middleware import client_over
from tests.virtual import run_virtual

SECONDS = [0.0, 0.0, 0.1, 0.3, 1.0, 3.0]
OF_STREAMS = [ContentDelta, ContentEnd, ToolCallDelta, MessageEnd]
OF_RUNS = [StepStart, StepEnd, ToolProgress, ToolResult]
ONE_CALL = [e for e in tools() if getattr(e, "index", 0) == 0 or isinstance(e, MessageEnd)]


class Left(Exception):
    """Raised by the consumer."""


class Scene:
    """One stream or run, its handlers, and who consumes it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.raised: list[Exception] = []

    def seconds(self) -> float:
        return self.random.choice(SECONDS)

    def stream(self) -> ChatStream | ToolRun:
        gap, texts = self.seconds(), "abcdefgh"[: self.random.randint(1, 8)]
        answer = paced(plain(*texts), gap, done=self.random.random() < 0.8)
        if self.random.random() < 0.5:
            return make_stream(answer)
        client, _ = client_over(paced(ONE_CALL, gap), answer)
        return client.run_tools("Hi", tools=[self.weather])

    async def weather(self, city: str) -> Any:
        "Weather."
        for value in ("soon", "sunny"):
            await asyncio.sleep(self.seconds())
            yield value

    def handler(self) -> Callable[[Any, Context], Awaitable[None]]:
        random, received, inside = self.random, 0, False
        seconds, is_stubborn = self.seconds(), random.random() < 0.2
        fails_at, closes_at = random.choice([0, 0, 1, 2, 4]), random.choice([0, 0, 0, 0, 2])
        kind = random.choice([ValueError, LookupError, StreamChatError])

        async def handler(event: Any, ctx: Context) -> None:
            nonlocal received, inside
            assert not inside
            inside, received = True, received + 1
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                if not is_stubborn:
                    raise
            finally:
                inside = False
            if received == closes_at:
                await asyncio.wait_for(ctx.stream.aclose(), 1000)
            if received == fails_at:
                self.raised.append(kind("mine"))
                raise self.raised[-1]

        return handler

    async def consume(self, stream: ChatStream | ToolRun) -> None:
        leaves_at, how = self.random.randint(1, 20), self.random.choice(["break", "raise"])
        seconds, count = self.seconds(), 0
        async with stream:
            async for _ in stream:
                await asyncio.sleep(seconds)
                count += 1
                if count == leaves_at and how == "raise":
                    raise Left
                if count == leaves_at:
                    break

    async def play(self) -> None:
        stream, random = self.stream(), self.random
        for _ in range(random.randint(1, 3)):
            types = random.sample(OF_STREAMS + OF_RUNS * isinstance(stream, ToolRun), 2)
            options: dict[str, Any] = random.choice(
                [{"background": True}, {"every": random.choice([0.2, 5.0])}]
            )
            stream.on(*types)(max_queue=random.randint(1, 3), **options)(self.handler())
        recovers = random.random() < 0.2
        if recovers:
            stream.on_error(ValueError)(lambda error: True)
        tasks: list[asyncio.Task[Any]] = [asyncio.ensure_future(self.consume(stream))]
        if random.random() < 0.3:
            await asyncio.sleep(self.seconds())
            tasks.append(asyncio.ensure_future(stream.aclose()))
        is_cancelled = random.random() < 0.4
        if is_cancelled:
            await asyncio.sleep(self.seconds())
            random.choice(tasks).cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        assert not background_tasks()
        notes = [note for end in ends for note in getattr(end, "__notes__", ())]
        for failure in [] if is_cancelled else self.raised:
            is_named = any(f"raised {type(failure).__name__} too" in note for note in notes)
            is_recovered = recovers and isinstance(failure, ValueError)
            assert failure in ends or is_named or is_recovered


@given(st.integers(0, 2**32))
def test_every_stream_ends_without_tasks_and_no_failure_is_lost(seed: int) -> None:
    run_virtual(Scene(seed).play())
