"""The processes of ``opening``: one measurement each, printed as JSON.

``python -m benchmarks.opening_clients MEASURE LOOP NAME URL COUNT``
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from benchmarks import paced
from benchmarks.contestants import BODY, HEADERS
from benchmarks.harness import (
    answer,
    free_buffer,
    pin,
    raise_descriptor_limit,
    resident,
    run_on,
)
from benchmarks.memory import OPENED_EACH, peak, reset_peak

BY_HAND, OURS, TUNED = "bytes loop", "streamchat", "streamchat, tuned collector"
THRESHOLDS = 100_000, 50, 100
"""Of the tuned collector: objects more than there were, between two collections of the youngest."""
WARM = 100
BATCH = 200
"""Streams that are made before they are timed."""
SETTLED = 1.0
"""Seconds after which every stream waits for its headers."""
PATIENCE = 300
"""Seconds until a stream counts as lost."""
LATE = 10.0
"""Seconds of the default connect limit."""
DATA = json.dumps(BODY).encode()
JSON_HEADERS = {**HEADERS, "Content-Type": "application/json"}


def shortest() -> list[bytes]:
    """The shortest answer: ``message-start``, ``message-end``, ``[DONE]``."""
    frames = answer(0)
    return [frames[0], *frames[-2:]]


def one_of(frames: list[bytes]) -> tuple[int, int]:
    """The bytes of an answer, and the length of its text."""
    text = sum(
        len(json.loads(frame.split(b"data: ")[1])["delta"]["message"]["content"]["text"])
        for frame in frames
        if frame.startswith(b"event: content-delta")
    )
    return len(b"".join(frames)), text


async def ignore(event: object) -> None:
    """The handler of content deltas."""


async def _session(stack: AsyncExitStack) -> Any:
    """Without limits, which aiohttp has by default."""
    import aiohttp

    return await stack.enter_async_context(paced._session(aiohttp))


async def _client(stack: AsyncExitStack, url: str) -> Any:
    """Ours, with one async handler and the default limits."""
    import streamchat as sc

    client = await stack.enter_async_context(sc.Client(base_url=url, model="m"))
    client.on_content_delta(ignore)
    return client


# --- opening and closing --------------------------------------------------------------------------------


async def post(name: str, url: str, count: int) -> dict[str, float]:
    """CPU us to open, read and close the shortest answer; requests are built beforehand."""
    url = f"{url}/shortest"
    async with AsyncExitStack() as stack:
        if name == BY_HAND:
            return {"us": await _post_by_hand(await _session(stack), url, count)}
        client = await _client(stack, url)

        async def several(number: int) -> float:
            streams = [client.chat_stream("Hi") for _ in range(number)]
            begin = time.process_time()
            for stream in streams:
                await stream
            return time.process_time() - begin

        await several(WARM)
        gc.collect()
        seconds = 0.0
        for _ in range(0, count, BATCH):
            seconds += await several(BATCH)
        rounded = -(-count // BATCH) * BATCH
        return {"us": seconds / rounded * 1e6, "reading_us": _reading(rounded)}


async def _post_by_hand(session: Any, url: str, count: int) -> float:
    async def several(number: int) -> float:
        begin = time.process_time()
        for _ in range(number):
            async with session.post(f"{url}/v2/chat", data=DATA, headers=JSON_HEADERS) as response:
                async for _ in response.content.iter_any():
                    pass
        return time.process_time() - begin

    await several(WARM)
    gc.collect()
    return await several(count) / count * 1e6


def _reading(count: int) -> float:
    """CPU us to decode the events of the shortest answer."""
    from streamchat.protocol import EventReader

    body = b"".join(shortest())

    def several(number: int) -> float:
        begin = time.process_time()
        for _ in range(number):
            reader = EventReader()
            for block in reader.split(body):
                reader.read(block)
        return time.process_time() - begin

    several(WARM)
    return several(count) / count * 1e6


# --- streams that wait for their headers ------------------------------------------------------------------


async def wait(name: str, url: str, count: int) -> dict[str, Any]:
    """What one stream holds while it waits: tasks, timers, objects that the collector tracks, bytes."""
    async with AsyncExitStack() as stack:
        open_one = await _opener(name, f"{url}/silent", stack)
        tasks = [asyncio.create_task(open_one())]  # what is made once is made here
        await asyncio.sleep(SETTLED)
        before = _held()
        for _ in range(count):
            tasks.append(asyncio.create_task(open_one()))
            await asyncio.sleep(OPENED_EACH)
        await asyncio.sleep(SETTLED)
        after = _held()
        failed = [task for task in tasks if task.done()]
        kinds = after["kinds"] - before["kinds"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            raise SystemExit(f"{len(failed)} streams did not wait: {failed[0]!r}")

        def each(what: str) -> float | None:
            if before[what] is None:
                return None
            return float((after[what] - before[what]) / count)

        return {
            "tasks": each("tasks"),
            "timers": each("timers"),
            "objects": each("objects"),
            "bytes": each("bytes"),
            "kinds": {kind: number / count for kind, number in kinds.most_common(15)},
        }


def _held() -> dict[str, Any]:
    """Of this process, now. uvloop keeps its timers to itself."""
    gc.collect()
    objects = gc.get_objects()
    kinds = Counter(f"{type(x).__module__}.{type(x).__qualname__}" for x in objects)
    found: dict[str, Any] = {"objects": len(objects), "kinds": kinds}
    del objects
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", None)
    found["timers"] = None if scheduled is None else sum(not x.cancelled() for x in scheduled)
    found["tasks"] = len(asyncio.all_tasks())
    found["bytes"] = resident()
    return found


async def _opener(
    name: str, url: str, stack: AsyncExitStack
) -> Callable[[], Coroutine[Any, Any, None]]:
    if name == BY_HAND:
        session = await _session(stack)

        async def by_hand() -> None:
            async with session.post(f"{url}/v2/chat", data=DATA, headers=JSON_HEADERS) as response:
                await response.read()

        return by_hand
    client = await _client(stack, url)

    async def ours() -> None:
        async for _ in client.chat_stream("Hi"):
            pass

    return ours


# --- thousands at once ------------------------------------------------------------------------------------


async def storm_of(events: int, name: str, url: str, count: int) -> dict[str, Any]:
    """CPU and peak memory of so many answers asked for at once."""
    size, length = one_of(answer(events - 4))
    firsts: list[float] = []
    async with AsyncExitStack() as stack:
        read = await _reader(name, f"{url}/storm-{events}", stack, size, length, firsts)
        for _ in range(WARM):
            assert await read()
        firsts.clear()
        gc.collect()
        if name == TUNED:
            gc.freeze()
            gc.set_threshold(*THRESHOLDS)
        reset_peak()
        before, cpu, begin = resident(), time.process_time(), time.monotonic()
        tasks = [asyncio.create_task(read()) for _ in range(count)]
        done, pending = await asyncio.wait(tasks, timeout=PATIENCE)
        cpu = time.process_time() - cpu
        failures = [repr(task.exception()) for task in done if task.exception()]
        well = sum(task.exception() is None and task.result() for task in done)
        for task in pending:
            task.cancel()
        return {
            "cpu_s": cpu,
            "seconds": time.monotonic() - begin,
            "kib_per_stream": (peak() - before) / count / 1024,
            "lost": count - well,
            "late": sum(seconds > LATE for seconds in firsts),
            "failures": failures[:5],
        }


async def _reader(
    name: str, url: str, stack: AsyncExitStack, size: int, length: int, firsts: list[float]
) -> Callable[[], Coroutine[Any, Any, bool]]:
    """Reads one answer; whether all of it was there. Seconds to the headers go to ``firsts``."""
    if name == BY_HAND:
        session = await _session(stack)

        async def by_hand() -> bool:
            found, begin = 0, time.monotonic()
            async with session.post(f"{url}/v2/chat", json=BODY, headers=HEADERS) as response:
                firsts.append(time.monotonic() - begin)
                async for data in response.content.iter_any():
                    found += len(data)
            return found == size

        return by_hand
    client = await _client(stack, url)

    async def ours() -> bool:
        stream = client.chat_stream("Hi")
        begin = time.monotonic()
        await anext(stream)
        firsts.append(time.monotonic() - begin)
        async for _ in stream:
            pass
        return len(stream.snapshot.text) == length

    return ours


async def storm_19(name: str, url: str, count: int) -> dict[str, Any]:
    """Of 19 events each."""
    return await storm_of(19, name, url, count)


async def storm_14(name: str, url: str, count: int) -> dict[str, Any]:
    """Of 14 events each."""
    return await storm_of(14, name, url, count)


MEASURES: dict[str, Callable[[str, str, int], Awaitable[dict[str, Any]]]] = {
    "post": post,
    "wait": wait,
    "storm-19": storm_19,
    "storm-14": storm_14,
}


async def _measured(measure: str, name: str, url: str, count: int) -> dict[str, Any]:
    return await MEASURES[measure](name, url, count)


def main() -> None:
    """The process of one measurement."""
    measure, loop, name, url, count = sys.argv[1:6]
    pin(0)
    raise_descriptor_limit()
    free_buffer()
    print(json.dumps(run_on(loop, _measured(measure, name, url, int(count)))))


if __name__ == "__main__":
    main()
