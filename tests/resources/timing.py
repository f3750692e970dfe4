"""Times and sizes: cancellation as the server sees it, fairness, and what a stalled stream costs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

from streamchat import ChatStream, Client, ContentDelta, Dispatcher
from tests.resources.ends import ask
from tests.resources.far import Far, raise_descriptor_limit
from tests.resources.leaks import new_client
from tests.resources.process import percentile, resident

OPENING_AT_ONCE = 200


# --- cancellation --------------------------------------------------------------------------------


async def cancellation(far: Far, count: int) -> dict[str, Any]:
    """Cancel streams at random moments; milliseconds until the server sees each end.

    A fifth of them is still waiting for headers, the others are somewhere in their answers.
    """
    raise_descriptor_limit()
    chance = random.Random(1)
    delays = list[float]()
    async with new_client(far) as client:
        for batch in range(0, count, OPENING_AT_ONCE):
            names = [str(number) for number in range(batch, min(count, batch + OPENING_AT_ONCE))]
            cancelled = dict[str, float]()

            async def one(name: str, cancelled: dict[str, float] = cancelled) -> None:
                wish = "silent" if int(name) % 5 == 0 else "trickle;pause=0.05"
                stream = ask(client, wish, headers={"x-stream": name})
                task = asyncio.ensure_future(_run(stream))
                await asyncio.sleep(0.5 + chance.random() * 1.5)
                cancelled[name] = time.monotonic()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

            await asyncio.gather(*(one(name) for name in names))
            delays += await _delays(far, cancelled)
    return {"streams": count, "seen": len(delays), **_milliseconds(delays)}


async def cancel_all(far: Far, count: int) -> dict[str, Any]:
    """Open so many streams, cancel all at once; seconds until the server has seen the last end."""
    raise_descriptor_limit()
    async with new_client(far) as client:
        started = time.monotonic()
        running = await _open(client, "trickle;pause=30", count)
        opened = time.monotonic() - started
        tasks = [asyncio.ensure_future(_run(stream)) for stream in running]
        await asyncio.sleep(0.1)
        before = time.monotonic()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        done = time.monotonic() - before
        delays = await _delays(far, {str(number): before for number in range(count)})
    return {
        "streams": count,
        "seen": len(delays),
        "opened in, s": round(opened, 3),
        "tasks done after, s": round(done, 3),
        "last end seen after, s": round(max(delays), 3),
    }


async def _delays(far: Far, cancelled: dict[str, float]) -> list[float]:
    """Seconds from each cancellation to the end seen by the server."""
    seen = dict[str, float]()
    deadline = time.monotonic() + 10
    while not cancelled.keys() <= seen.keys() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        seen |= await asyncio.to_thread(far.seen)
    return [seen[name] - at for name, at in cancelled.items() if name in seen]


async def _run(stream: ChatStream) -> None:
    await stream


async def _open(client: Client, wish: str, count: int, **options: Any) -> list[ChatStream]:
    """So many open streams, some of them at a time."""
    gate = asyncio.Semaphore(OPENING_AT_ONCE)

    async def one(number: int) -> ChatStream:
        async with gate:
            stream = ask(client, wish, headers={"x-stream": str(number)}, **options)
            return await stream.__aenter__()

    return await asyncio.gather(*(one(number) for number in range(count)))


# --- fairness ------------------------------------------------------------------------------------


async def fairness(far: Far, count: int) -> dict[str, Any]:
    """The loop's lag beside so many normal streams, without and with one that floods.

    Together they bring some 4,000 events a second however many they are: a core that is busy with them
    alone would say nothing of the flood.
    """
    raise_descriptor_limit()
    async with new_client(far) as client:
        streams = await _open(client, f"trickle;pause={count / 4000}", count)
        events = [0]
        tasks = [asyncio.ensure_future(_count(stream, events)) for stream in streams]
        alone = await _lags(2.0)
        normal, events[0] = events[0], 0
        flood = [0]
        stream = await ask(client, "flood", handlers=[_counting(flood)]).__aenter__()
        tasks.append(asyncio.ensure_future(_run(stream)))
        started = time.monotonic()
        beside = await _lags(3.0)
        seconds = time.monotonic() - started
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        failed = [repr(task.exception()) for task in tasks if not task.cancelled()]
    return {
        "normal streams": count,
        "failed": failed[:5],
        "normal events/s without the flood": round(normal / 2.0),
        "normal events/s beside it": round(events[0] / seconds),
        "events/s of the flood": round(flood[0] / seconds),
        "lag without the flood": _milliseconds(alone),
        "lag": _milliseconds(beside),
    }


async def _count(stream: ChatStream, events: list[int]) -> None:
    async for _ in stream:
        events[0] += 1


def _counting(counter: list[int]) -> Dispatcher:
    handlers = Dispatcher()

    async def count(event: ContentDelta) -> None:
        counter[0] += 1

    handlers.on_content_delta(count)
    return handlers


async def _lags(seconds: float) -> list[float]:
    """How much too late a sleep of 5 ms ends, again and again."""
    lags, end = list[float](), time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.monotonic()
        await asyncio.sleep(0.005)
        lags.append(time.monotonic() - before - 0.005)
    return lags


def _milliseconds(values: list[float]) -> dict[str, float]:
    return {
        f"{name}, ms": round(1000 * percentile(values, percent), 2)
        for name, percent in (("p50", 50), ("p99", 99), ("max", 100))
    }


# --- a stalled stream ----------------------------------------------------------------------------


async def stalled(far: Far, count: int) -> dict[str, Any]:
    """Memory of streams whose handler sleeps while the server floods."""
    raise_descriptor_limit()
    reached = [0]
    handlers = Dispatcher()

    async def sleep(event: ContentDelta) -> None:
        reached[0] += 1
        await asyncio.sleep(3600)

    handlers.on_content_delta(sleep)
    async with new_client(far) as client:
        await ask(client, "whole")  # what is made once is made here
        before = resident()
        streams = await _open(client, "flood", count, handlers=[handlers])
        tasks = [asyncio.ensure_future(_run(stream)) for stream in streams]
        last = -1
        while last < (now := resident()) or reached[0] < count:  # until it grows no more
            last = now
            await asyncio.sleep(0.5)
        grown = resident() - before
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return {
        "streams": count,
        "stalled": reached[0],
        "KiB per stream": round(grown / count / 1024, 1),
        "MiB in all": round(grown / 2**20, 1),
    }
