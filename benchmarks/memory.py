"""What costs memory? An open stream, a kept event, a long answer, a stalled reader, a long fan-out.

``python -m benchmarks.memory [--quick]``

Each figure is of a fresh client process with the server in another one, taken after what is made once was
made. Memory is the resident size (``/proc/self/statm``, for the peak ``VmHWM``), because OpenSSL's and the
allocator's own share is in it; kept events alone are counted by tracemalloc, to the byte. Kernel buffers
are in neither. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import paced
from benchmarks.contestants import BODY, HEADERS
from benchmarks.far import AFTER, BEFORE, CLOSING, HEAD, OPENING, Far, chunk, far_side
from benchmarks.harness import (
    answer,
    chunked,
    free_buffer,
    pin,
    print_table,
    raise_descriptor_limit,
    resident,
    run_client,
    run_on,
    write_results,
)

CLIENTS = ("streamchat", "bytes loop")
WIRES = ("plain", "TLS")
LOOPS = ("asyncio", "uvloop")
KIB, MIB = 1024, 1024 * 1024
IDLE = "paced-3600000"
"""The server's path for a stream that gets its first event, and the next within an hour."""
PIECE = "12345678"
"""The text of one delta of a long answer; a token is half of it."""
FLOOD_BYTES = 4 * MIB
"""What the server has for each stalled stream: more than all buffers on the way."""
SETTLED = 2.0
"""Seconds after which nothing moves any more."""
OPENED_EACH = 0.005
"""Seconds between two opened streams: what many need for a moment must not count for each."""
BATCH = 100
TABLE_HEAD = ("what", "loop", "wire", "streamchat", "by hand", "goal")


def main() -> None:
    """Measure, print the table, and write ``results/memory.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000, help="idle streams; over TLS a third")
    parser.add_argument("--stalled", type=int, default=100, help="stalled streams")
    parser.add_argument("--kept", type=int, default=20_000, help="events that are kept")
    parser.add_argument("--mib", type=int, default=10, help="text of the long answer")
    parser.add_argument("--requests", type=int, default=20_000, help="of the fan-out")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.streams, options.stalled, options.kept = 60, 10, 500
        options.mib, options.requests = 2, 1500
    answers = {
        "kept": chunked(answer(options.kept), 64 * KIB),
        "warm": chunked(answer(3), 64 * KIB),
        "one": long_answer(MIB),
        "long": long_answer(options.mib * MIB),
        "flood": flood(400),
        "flood-each": flood(1),
    }
    rows: list[dict[str, Any]] = []
    for wire in WIRES:
        with far_side(answers, tls=wire == "TLS") as far:
            streams = options.streams if wire == "plain" else options.streams // 3
            for loop in LOOPS:
                rows.append(_idle(far, wire, loop, streams))
                for what in ("flood", "flood-each"):
                    rows.append(_stalled(far, wire, loop, what, options.stalled))
            if wire == "plain":
                rows += [_kept(far), *_long(far, options.mib), _fan_out(far, options.requests)]
            print(f"done: {wire}", flush=True)
    rows.sort(key=lambda row: row["order"])
    table = [[row[column] for column in TABLE_HEAD] for row in rows]
    print_table(TABLE_HEAD, table)
    write_results(
        "memory",
        {
            **{key: value for key, value in vars(options).items() if key != "quick"},
            "rows": rows,
            "table": {"head": TABLE_HEAD, "rows": table},
        },
        quick=options.quick,
    )


# --- the measurements: one row each ----------------------------------------------------------------


def _row(order: str, what: str, ours: str, hand: str, goal: str, **more: Any) -> dict[str, Any]:
    shown = {"what": what, "streamchat": ours, "by hand": hand, "goal": goal}
    return {"order": order, "loop": "asyncio", "wire": "plain", **shown, **more}


def _client(far: Far, loop: str, what: str, *arguments: object) -> Any:
    """The figure of one fresh process."""
    given = [str(argument) for argument in arguments]
    return run_client("benchmarks.memory", "client", loop, what, far.url, *given, env=far.env)


def _idle(far: Far, wire: str, loop: str, streams: int) -> dict[str, Any]:
    kib = {x: _client(far, loop, "open", x, IDLE, streams)["bytes"] / KIB for x in CLIENTS}
    ours, floor = kib.values()
    return _row(
        "a",
        "an open idle stream",
        f"{ours:.1f} KiB",
        f"{floor:.1f} KiB",
        "4 KiB more at most" if wire == "TLS" else "",
        loop=loop,
        wire=wire,
        streams=streams,
        kib=kib,
    )


def _stalled(far: Far, wire: str, loop: str, what: str, streams: int) -> dict[str, Any]:
    kib = {x: _client(far, loop, "open", x, what, streams)["bytes"] / KIB for x in CLIENTS}
    ours, floor = kib.values()
    return _row(
        f"d {what}",
        "a stalled reader of a flood" + (", an HTTP chunk an event" if "each" in what else ""),
        f"{ours:.0f} KiB",
        f"{floor:.0f} KiB",
        "256 KiB at most",
        loop=loop,
        wire=wire,
        streams=streams,
        kib=kib,
    )


def _kept(far: Far) -> dict[str, Any]:
    typed, dicts = (_client(far, "asyncio", "kept", x)["bytes"] for x in ("typed", "dict"))
    return _row("b", "a kept event", f"{typed:.0f} B", f"{dicts:.0f} B (dict)", "", bytes=typed)


def _long(far: Far, mib: int) -> list[dict[str, Any]]:
    """The peaks of a long answer, and of one of 1 MiB beside it: linear is so many times as much."""
    peaks = {
        way: [_client(far, "asyncio", "long", way, x)["bytes"] / MIB for x in ("one", "long")]
        for way in ("events", "snapshot now and then", "frames", "join", "bytes loop")
    }

    def shown(way: str) -> str:
        one, long = peaks[way]
        return f"{one:.1f} -> {long:.1f} MiB"

    what = f"peak of an answer of 1 -> {mib} MiB of text"
    return [
        _row("c1", what, shown("events"), shown("join"), "linear", peaks=peaks),
        _row(
            "c2", f"{what}, snapshot read each 1,000 events", shown("snapshot now and then"), "", ""
        ),
        _row(
            "c3", f"{what}, raw frames: no snapshot", shown("frames"), shown("bytes loop"), "flat"
        ),
    ]


def _fan_out(far: Far, requests: int) -> dict[str, Any]:
    figures = _client(far, "asyncio", "fan_out", requests)
    return _row(
        "e",
        f"growth of a fan-out from answer 1,000 to {requests:,}",
        f"{figures['growth'] / KIB:,.0f} KiB",
        "",
        "flat",
        **{"sizes, KiB": figures["sizes, KiB"]},
    )


# --- what the server has -----------------------------------------------------------------------------


def _deltas(count: int) -> bytes:
    """An HTTP chunk of so many."""
    return chunk(f"{BEFORE}{PIECE}{AFTER}".encode() * count)


def long_answer(text_bytes: int) -> bytes:
    """A complete answer of so much text."""
    count, each = text_bytes // len(PIECE), 512
    return HEAD + OPENING + _deltas(each) * (count // each) + CLOSING


def flood(each: int) -> bytes:
    """So many events an HTTP chunk, too many for all buffers together."""
    deltas = _deltas(each)
    return HEAD + OPENING + deltas * (FLOOD_BYTES // len(deltas)) + CLOSING


# --- the client's process ------------------------------------------------------------------------------


def peak() -> int:
    """The most that this process has held since :func:`reset_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * KIB


def reset_peak() -> None:
    """From now on (man 5 proc, ``clear_refs``)."""
    Path("/proc/self/clear_refs").write_text("5")


async def hold(url: str, name: str, what: str, streams: str) -> dict[str, float]:
    """Streams that were read up to their first event; resident bytes of each when nothing moves."""
    number = int(streams)
    async with AsyncExitStack() as stack:
        first = await (ours_first if name == "streamchat" else by_hand_first)(
            f"{url}/{what}", stack
        )
        waiting = [await first()]  # what is made once is made here
        gc.collect()
        before = resident()
        for _ in range(number):
            waiting.append(await first())
            await asyncio.sleep(OPENED_EACH)
        await asyncio.sleep(SETTLED)
        gc.collect()
        each = (resident() - before) / number
        for task in waiting:
            if task is not None:
                task.cancel()
        return {"bytes": each}


First = Callable[[], Awaitable[asyncio.Future[Any] | None]]
"""Open a stream, read its first event, and wait for the next if the server has none yet."""


async def by_hand_first(url: str, stack: AsyncExitStack) -> First:
    """Of a response: it is read, and no more."""
    session = await _session(stack)

    async def first() -> asyncio.Future[Any] | None:
        post = session.post(f"{url}/v2/chat", json=BODY, headers=HEADERS)
        response = await stack.enter_async_context(post)
        await response.content.readany()
        return asyncio.ensure_future(response.content.readany()) if IDLE in url else None

    return first


async def ours_first(url: str, stack: AsyncExitStack) -> First:
    """Of a stream with an async handler."""
    import streamchat as sc

    client = await stack.enter_async_context(sc.Client(base_url=url, model="m"))

    @client.on_content_delta
    async def handler(event: sc.ContentDelta) -> None:
        pass

    async def first() -> asyncio.Future[Any] | None:
        stream = await stack.enter_async_context(client.chat_stream("Hi"))
        await anext(stream)
        if IDLE not in url:
            return None
        await anext(stream)  # the content's start came with the message's
        return asyncio.ensure_future(anext(stream))

    return first


async def _session(stack: AsyncExitStack) -> Any:
    import aiohttp

    return await stack.enter_async_context(paced._session(aiohttp))


async def keep(url: str, kind: str) -> dict[str, float]:
    """All events of one answer in a list; bytes of each, its place in the list included."""
    async with AsyncExitStack() as stack:
        read = await (_typed if kind == "typed" else _dicts)(url, stack)
        await read("warm")
        gc.collect()
        tracemalloc.start()
        events = await read("kept")
        gc.collect()
        return {"bytes": tracemalloc.get_traced_memory()[0] / len(events)}


Read = Callable[[str], Awaitable[list[Any]]]


async def _typed(url: str, stack: AsyncExitStack) -> Read:
    import streamchat as sc

    async def read(what: str) -> list[Any]:
        async with sc.Client(base_url=f"{url}/{what}", model="m") as client:
            return [event async for event in client.chat_stream("Hi")]

    return read


async def _dicts(url: str, stack: AsyncExitStack) -> Read:
    session = await _session(stack)

    async def read(what: str) -> list[Any]:
        return [event async for event in _by_hand(session, f"{url}/{what}")]

    return read


async def _by_hand(session: Any, url: str) -> Any:
    """The dicts of an answer's events."""
    import orjson

    tail = b""
    async with session.post(f"{url}/v2/chat", json=BODY, headers=HEADERS) as response:
        async for data in response.content.iter_any():
            blocks = (tail + data).split(b"\n\n")
            tail = blocks.pop()
            for block in blocks:
                data = block[block.index(b"data: ") + 6 :]
                if data != b"[DONE]":
                    yield orjson.loads(data)


async def long(url: str, way: str, what: str) -> dict[str, float]:
    """The peak while a long answer is read, beyond the size before."""
    import streamchat as sc

    async with AsyncExitStack() as stack:
        session = await _session(stack)

        async def read(what: str) -> None:
            if way == "join":
                parts = list[str]()
                async for event in _by_hand(session, f"{url}/{what}"):
                    if event["type"] == "content-delta":
                        parts.append(event["delta"]["message"]["content"]["text"])
                _ = "".join(parts)
            elif way == "bytes loop":
                async with session.post(f"{url}/{what}/v2/chat", json=BODY, headers=HEADERS) as r:
                    async for _ in r.content.iter_any():
                        pass
            else:
                async with sc.Client(base_url=f"{url}/{what}", model="m") as client:
                    await _ours(client.chat_stream("Hi"))

        async def _ours(stream: sc.ChatStream) -> None:
            if way == "frames":
                async for _ in stream.frames():
                    pass
                return
            count = 0
            async for _ in stream:
                count += 1
                if way != "events" and count % 1000 == 0:
                    _ = stream.snapshot
            _ = stream.snapshot.text

        await read("warm")
        gc.collect()
        reset_peak()
        before = resident()
        await read(what)
        return {"bytes": peak() - before}


async def fan_out(url: str, requests: str) -> dict[str, Any]:
    """The resident size now and then, and the most of it beyond that after 1,000 answers."""
    import streamchat as sc

    sizes: list[int] = []
    prompts = (str(number) for number in range(int(requests)))
    async with sc.Client(base_url=f"{url}/warm", model="m") as client:
        count = 0
        async for result in client.fan_out(prompts):
            assert result.response is not None, result.error
            count += 1
            if count % BATCH == 0:
                sizes.append(resident())
    assert count == int(requests)
    after = sizes[1000 // BATCH - 1 :]
    return {"growth": max(after) - after[0], "sizes, KiB": [size // KIB for size in sizes]}


MEASURES: dict[str, Callable[..., Any]] = {
    "open": hold,
    "kept": keep,
    "long": long,
    "fan_out": fan_out,
}


def client_main(loop: str, what: str, *arguments: str) -> None:
    """The process of one measurement."""
    pin(0)
    raise_descriptor_limit()
    free_buffer()
    print(json.dumps(run_on(loop, MEASURES[what](*arguments))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client_main(*sys.argv[2:])
    else:
        main()
