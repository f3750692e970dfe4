"""What is left after many streams with every kind of end: it must be nothing."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import time
import warnings
from collections import Counter
from typing import Any

import aiohttp

from streamchat import ChatStream, Client, Timeout, TransportError
from tests.resources.ends import ENDS, ask
from tests.resources.far import Far, raise_descriptor_limit
from tests.resources.process import resident

UVLOOPS_OWN = "Fatal error on SSL protocol"
"""What uvloop says of a TLS connection that both sides close at once: nothing is left of it, and
neither aiohttp nor we can silence it. Counted apart, and not tolerated on asyncio."""
TOGETHER = 32
"""Streams at a time."""


class Complaints:
    """Whatever asyncio, the interpreter or a warning complains about."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.texts: list[str] = []
        self.resource_warnings = 0
        loop.set_exception_handler(lambda _, context: self.texts.append(repr(context)[:300]))
        sys.unraisablehook = lambda event: self.texts.append(repr(event.exc_value)[:300])
        warnings.simplefilter("always")
        warnings.showwarning = self._warned  # type: ignore[assignment]

    def _warned(self, message: Warning | str, category: type[Warning], *where: object) -> None:
        self.texts.append(f"{category.__name__}: {message}"[:300])
        self.resource_warnings += issubclass(category, ResourceWarning)


def _state() -> Counter[str]:
    """What there is, by kind."""
    loop = asyncio.get_running_loop()
    return Counter(
        tasks=len(asyncio.all_tasks()),
        timers=sum(not handle.cancelled() for handle in getattr(loop, "_scheduled", ())),
        descriptors=len(os.listdir("/proc/self/fd")),
    )


def _alive() -> Counter[str]:
    """Objects that hold a connection or an answer."""
    kinds = (ChatStream, aiohttp.ClientResponse, aiohttp.ClientSession)
    return Counter(
        type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), kinds)
    )


def _acquired(client: Client) -> int:
    """Connections that a pool believes to be in use."""
    keepers = client._transport._keepers.values()
    return sum(len(getattr(keeper.session.connector, "_acquired", ())) for keeper in keepers)


def new_client(far: Far, **options: Any) -> Client:
    return Client("key-of-a-test", base_url=far.url, model="command-test", ssl=far.ssl, **options)


async def run_ends(
    client: Client, count: int, failures: list[str], sample: list[tuple[int, int]] | None = None
) -> None:
    """So many streams, each kind of end in turn, many at a time."""
    numbers, kinds = iter(range(count)), list(ENDS.items())
    every = max(1, count // 50)

    async def worker() -> None:
        for number in numbers:
            name, end = kinds[number % len(kinds)]
            try:
                await end(client)
            except Exception as error:
                failures.append(f"{name}: {error!r}"[:300])
            if sample is not None and number % every == 0:
                gc.collect()  # what waits for the collector is no leak
                sample.append((number, resident()))

    await asyncio.gather(*(worker() for _ in range(min(TOGETHER, count))))


async def _closed_while_running(far: Far, failures: list[str]) -> float:
    """Close a client under 20 streams; seconds until all have ended."""
    client = new_client(far)
    tasks = [
        asyncio.ensure_future(_ended(ask(client, wish, timeout=Timeout(idle=30))))
        for wish in itertools.islice(itertools.cycle(["stall", "silent", "trickle"]), 20)
    ]
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await client.aclose()
    for outcome in await asyncio.gather(*tasks):
        if outcome != "closed":
            failures.append(f"client closed: {outcome}")
    return time.monotonic() - started


async def _ended(stream: ChatStream) -> str:
    try:
        await stream
    except TransportError as error:
        return error.kind
    except BaseException as error:  # also a cancellation that nobody asked for
        return repr(error)
    return "complete"


async def leaks(far: Far, streams: int) -> dict[str, Any]:
    raise_descriptor_limit()
    complaints, failures = Complaints(asyncio.get_running_loop()), list[str]()
    async with new_client(far) as client:  # what is made once is made here
        await run_ends(client, len(ENDS), failures)
    await _settled()
    gc.collect()
    gc.disable()  # nothing may wait for the collector
    before = _state()
    client = new_client(far)
    await run_ends(client, streams, failures)
    acquired = _acquired(client)
    await client.aclose()
    closing = await _closed_while_running(far, failures)
    await _settled()
    left = _state()
    left.subtract(before)
    alive = _alive()
    del client
    gc.enable()
    gc.collect()
    await asyncio.sleep(0)
    collected = _alive()
    return {
        "streams": streams + 20,
        "kinds of end": len(ENDS) + 1,
        "left": {**left, "acquired connections": acquired},
        "ResourceWarnings": complaints.resource_warnings,
        "complaints": [text for text in complaints.texts if UVLOOPS_OWN not in text][:20],
        "uvloop's own complaint": sum(UVLOOPS_OWN in text for text in complaints.texts),
        "unexpected ends": failures[:20],
        "objects waiting for the collector": dict(alive),
        "objects left": dict(collected),
        "client closed under 20 streams, s": round(closing, 4),
    }


async def _settled() -> None:
    """Closing a connection takes a few turns of the loop, and over TLS an answer."""
    await asyncio.sleep(0.25)


async def slope(far: Far, streams: int) -> dict[str, Any]:
    """How memory grows with the number of streams that have ended."""
    raise_descriptor_limit()
    failures, samples = list[str](), list[tuple[int, int]]()
    async with new_client(far) as client:
        await run_ends(client, max(len(ENDS) * 4, streams // 5), failures)  # warm
        gc.collect()
        await run_ends(client, streams, failures, samples)
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in samples)
    run = sum((x - mean_x) ** 2 for x, _ in samples)
    return {
        "streams": streams,
        "KiB per 10,000 streams": round(rise / run * 10_000 / 1024, 1) if run else None,
        "RSS at the start, MiB": round(samples[0][1] / 2**20, 1),
        "RSS at the end, MiB": round(samples[-1][1] / 2**20, 1),
        "unexpected ends": failures[:20],
    }
