"""The client of ``stream``, ``scale`` and ``memory`` that holds many paced streams open, and its figures.

``python -m benchmarks.paced NAME URL STREAMS GAP WINDOW LOOP`` prints one measurement as JSON.

Streams are opened at an even rate, and each gets events from then on. When all are open, a window begins
in which nothing opens or ends: CPU is that of the window. Then all end, and what each received is held
against what the server says it sent. Some streams, spread evenly, note how late their events are, the
server's own lateness included.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import attrs

from benchmarks.contestants import BODY, HEADERS
from benchmarks.far import OTHER_BYTES, PACED_BYTES, TIME_SIGNS, Far
from benchmarks.harness import (
    free_buffer,
    percentile,
    pin,
    raise_descriptor_limit,
    resident,
    run_client,
    run_on,
)

OPENED_A_SECOND = 250
"""Slow enough that a core is not busy with opening alone: then a first event would wait for others."""
SAMPLED = 100
"""How many streams note how late their events are."""
PATIENCE = 120
"""Seconds until what is still open counts as lost."""
DUE = re.compile(rb'"text":"([0-9.]{%d})"' % TIME_SIGNS)


@attrs.define(eq=False)
class Notes:
    """What the streams of one process note."""

    streams: int
    firsts: list[float] = attrs.Factory(list)
    """Seconds from each request to its first event."""
    late: list[tuple[float, float]] = attrs.Factory(list)
    """When an event was due, and by how many seconds it was late."""
    received: dict[str, float] = attrs.Factory(dict)
    """Events of each stream that ended well."""
    all_open: asyncio.Event = attrs.Factory(asyncio.Event)

    def opened(self, begin: float) -> None:
        self.firsts.append(time.monotonic() - begin)
        if len(self.firsts) == self.streams:
            self.all_open.set()

    def samples(self, number: int) -> bool:
        return number % math.ceil(self.streams / SAMPLED) == 0

    def heard(self, due: float) -> None:
        self.late.append((due, time.monotonic() - due))


Once = Callable[[int, Notes], Coroutine[Any, Any, None]]


def _body(number: int) -> dict[str, object]:
    return {**BODY, "messages": [{"role": "user", "content": str(number)}]}


async def bytes_loop(url: str, stack: AsyncExitStack) -> Once:
    """Reads and does nothing with it: the floor."""
    import aiohttp

    session = await stack.enter_async_context(_session(aiohttp))

    async def once(number: int, notes: Notes) -> None:
        begin = time.monotonic()
        async with session.post(f"{url}/v2/chat", json=_body(number), headers=HEADERS) as r:
            size = len(await r.content.readany())
            notes.opened(begin)
            if notes.samples(number):
                async for data in r.content.iter_any():
                    size += len(data)
                    for due in DUE.findall(data):
                        notes.heard(float(due))
            else:
                async for data in r.content.iter_any():
                    size += len(data)
        notes.received[str(number)] = (size - OTHER_BYTES) / PACED_BYTES

    return once


async def dict_loop(url: str, stack: AsyncExitStack) -> Once:
    """By hand: split, orjson, an async handler, a join."""
    import aiohttp
    import orjson

    session = await stack.enter_async_context(_session(aiohttp))

    async def handler(event: dict[str, Any]) -> None:
        pass

    async def once(number: int, notes: Notes) -> None:
        begin, parts, tail = time.monotonic(), list[str](), b""
        sampled = notes.samples(number)
        async with session.post(f"{url}/v2/chat", json=_body(number), headers=HEADERS) as r:
            async for data in r.content.iter_any():
                blocks = (tail + data).split(b"\n\n")
                tail = blocks.pop()
                for block in blocks:
                    data = block[block.index(b"data: ") + 6 :]
                    if data == b"[DONE]":
                        continue
                    event = orjson.loads(data)
                    kind = event["type"]
                    if kind == "content-delta":
                        await handler(event)
                        text = event["delta"]["message"]["content"]["text"]
                        parts.append(text)
                        if sampled:
                            notes.heard(float(text))
                    elif kind == "message-start":
                        notes.opened(begin)
        notes.received[str(number)] = len("".join(parts)) / TIME_SIGNS

    return once


async def streamchat(url: str, stack: AsyncExitStack) -> Once:
    """Ours: typed events, the snapshot, one async handler, and ``async for``."""
    import streamchat as sc

    client = await stack.enter_async_context(sc.Client(base_url=url, model="m"))
    handlers = sc.Dispatcher()

    @handlers.on_content_delta
    async def handler(event: sc.ContentDelta) -> None:
        pass

    async def once(number: int, notes: Notes) -> None:
        begin = time.monotonic()
        stream = client.chat_stream(str(number), handlers=[handlers])
        await anext(stream)
        notes.opened(begin)
        if notes.samples(number):
            async for event in stream:
                if isinstance(event, sc.ContentDelta):
                    notes.heard(float(event.text))
        else:
            async for _ in stream:
                pass
        notes.received[str(number)] = len(stream.snapshot.text) / TIME_SIGNS

    return once


def _session(aiohttp: Any) -> Any:
    """No limits: aiohttp's own are 100 connections and five minutes."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    )


CLIENTS = {"bytes loop": bytes_loop, "dict loop": dict_loop, "streamchat": streamchat}


async def measure(name: str, url: str, streams: int, gap: float, window: float) -> dict[str, Any]:
    """One measurement; ``gap`` and ``window`` in seconds."""
    async with AsyncExitStack() as stack:
        once = await CLIENTS[name](f"{url}/paced-{gap * 1000:g}", stack)
        await _warm(url, once)
        notes = Notes(streams)
        gc.collect()
        before = resident()
        begin = time.monotonic()
        tasks = []
        for number in range(streams):
            await asyncio.sleep(max(0.0, begin + number / OPENED_A_SECOND - time.monotonic()))
            tasks.append(asyncio.create_task(once(number, notes)))
        async with asyncio.timeout(PATIENCE):
            await notes.all_open.wait()
        opened = time.monotonic() - begin
        await asyncio.sleep(min(1.0, gap))  # the last one is in its pace as well
        start, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(window)
        end, cpu = time.monotonic(), time.process_time() - cpu
        grown = resident() - before
        await _ask(url, "finish")
        _, pending = await asyncio.wait(tasks, timeout=PATIENCE)
        failed = [repr(task.exception()) for task in tasks if task.done() and task.exception()]
        report = await _ask(url, "report")
    sent = report["sent"]
    late = [seconds for due, seconds in notes.late if start <= due < end]
    # What fell due in the window, and of that what was read in it.
    in_time = sum(due + seconds < end for due, seconds in notes.late if start <= due < end)
    return {
        "opened_s": opened,
        "cpu_s": cpu,
        "core_busy": cpu / (end - start),
        "us_an_event": cpu / ((end - start) * streams / gap) * 1e6,
        "kib_a_stream": grown / streams / 1024,
        "pace": in_time / len(late) if late else 0.0,
        "late_ms": [1000 * percentile(late, percent) for percent in (50, 99, 100)],
        "server_late_ms": report["server late, ms"],
        "first_event_ms": [1000 * percentile(notes.firsts, percent) for percent in (50, 99, 100)],
        "finished": len(notes.received),
        "events_sent": sum(sent.values()),
        "events_lost": sum(abs(count - notes.received.get(key, 0)) for key, count in sent.items()),
        "unfinished": len(pending) + len(failed) + streams - len(sent),
        "failures": failed[:5],
    }


async def _warm(url: str, once: Once) -> None:
    """What is made once is made here."""
    notes = Notes(1)
    task = asyncio.create_task(once(0, notes))
    async with asyncio.timeout(PATIENCE):
        await notes.all_open.wait()
        await _ask(url, "finish")
        await task
    await _ask(url, "report")


async def _ask(url: str, what: str) -> Any:
    """Ask the server, beside the connections that are measured."""

    def ask() -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/{what}", timeout=PATIENCE) as response:
            return json.load(response)

    return await asyncio.to_thread(ask)


def paced_round(
    far: Far, names: tuple[str, ...], streams: int, gap: float, window: float, loop: str
) -> dict[str, dict[str, Any]]:
    """One measurement of each client, in the order given, each in a fresh process."""
    return {
        name: run_client(
            "benchmarks.paced",
            *(name, far.url, str(streams), str(gap), str(window), loop),
            env=far.env,
        )
        for name in names
    }


def main() -> None:
    """The process of one measurement."""
    name, url, streams, gap, window, loop = sys.argv[1:7]
    pin(0)
    raise_descriptor_limit()
    free_buffer()
    run = measure(name, url, int(streams), float(gap), float(window))
    print(json.dumps(run_on(loop, run)))


if __name__ == "__main__":
    main()
