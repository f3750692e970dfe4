"""How many streams does one process hold? A fan-out of up to 10,000, all open at once.

``python -m benchmarks.fanout [--streams 10000] [--loop asyncio|uvloop|both]``

The server, a process of its own, answers each request with its first event and goes on only when all
are there; then each stream gets an event now and then, out of step with the others, until all 20 are
sent. So all are open together, and "lost" is what did not end as the whole answer of its own request.
Memory is the client's resident size while all are open, beside its size before the first; CPU is the
client's alone. The times hold the server's work too: it has the other of two cores, if that is free.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from benchmarks.harness import ROOT, answer, pin, print_table, run_client, write_results

EVENTS = 20
SECONDS = 20.0
"""How long an answer takes once it goes on."""
TICK = 0.02
STREAMS = (100, 1000, 3000, 10_000)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def main() -> None:
    """Measure, print a table, and write ``results/fanout.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, help="this number alone, instead of all four")
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "both"), default="both")
    options = parser.parse_args()
    raise_descriptor_limit()
    results: dict[str, Any] = {"events": EVENTS, "seconds": SECONDS}
    results["load average before"] = round(os.getloadavg()[0], 2)
    for loop in ("asyncio", "uvloop") if options.loop == "both" else (options.loop,):
        rows = []
        for streams in (options.streams,) if options.streams else STREAMS:
            with paced_server(streams) as url:
                rows.append(run_client("benchmarks.fanout", "--client", url, str(streams), loop))
        results[loop] = {"rows": rows}
        print(f"\n{loop}, {EVENTS} events a stream over {SECONDS:.0f} s")
        print_table(
            [
                "streams",
                "open at once",
                "lost",
                "tries",
                "opened, s",
                "CPU until then",
                "all, s",
                "CPU, s",
                "KiB each",
            ],
            [
                [
                    f"{row['streams']:,}",
                    f"{row['open at once']:,}",
                    str(row["lost"]),
                    f"{row['tries']:,}",
                    f"{row['opened, s']:.1f}",
                    f"{row['CPU until then, s']:.1f}",
                    f"{row['all, s']:.1f}",
                    f"{row['CPU, s']:.1f}",
                    f"{row['KiB a stream']:.1f}",
                ]
                for row in rows
            ],
        )
        sizes = {row["streams"]: row["resident, KiB"] for row in rows}
        if {1000, 10_000} <= sizes.keys():
            slope = (sizes[10_000] - sizes[1000]) / 9000
            results[loop]["KiB a stream, from 1,000 to 10,000"] = round(slope, 1)
            print(f"memory a stream, from 1,000 to 10,000: {slope:.1f} KiB")
        for row in rows:
            if row["failures"]:
                print(f"{row['streams']:,} streams: {row['failures']}")
    if options.streams is None and options.loop == "both":
        write_results("fanout", results)


def raise_descriptor_limit() -> None:
    """As many sockets as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- the client's process ------------------------------------------------------------------------


async def fan_out(url: str, streams: int) -> dict[str, Any]:
    """One fan-out with as many streams at once as there are requests, limits as they are by default."""
    from streamchat import Client

    open_now, most, tries, resident_then = 0, 0, 0, 0
    opened = opened_cpu = 0.0
    failures: Counter[str] = Counter()
    async with Client(base_url=url, model="m") as client:
        await client.chat("warm")  # what is made once is made here

        @client.on_message_start
        def begin(event: object) -> None:
            nonlocal open_now, most, opened, opened_cpu, resident_then
            open_now += 1
            most = max(most, open_now)
            if open_now == streams:
                opened, opened_cpu = time.perf_counter() - started, time.process_time() - cpu
                resident_then = resident()

        @client.on_message_end
        def end(event: object) -> None:
            nonlocal open_now, resident_then
            if open_now == streams:
                resident_then = max(resident_then, resident())  # each has had its events by now
            open_now -= 1

        before = resident()
        cpu, started = time.process_time(), time.perf_counter()
        lost = streams
        prompts = (str(number) for number in range(streams))
        async for result in client.fan_out(prompts, concurrency=streams):
            tries += result.attempts
            if result.response is None:
                failures[f"{type(result.error).__name__}: {result.error}"[:200]] += 1
            elif result.response.id == f"answer-{result.index}" and result.response.text == TEXT:
                lost -= 1
            else:
                failures["another answer"] += 1
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    return {
        "streams": streams,
        "open at once": most,
        "lost": lost,
        "failures": dict(failures.most_common(5)),
        "tries": tries,
        "opened, s": round(opened, 2),
        "CPU until then, s": round(opened_cpu, 2),
        "all, s": round(seconds, 2),
        "CPU, s": round(cpu, 2),
        "KiB a stream": round((resident_then - before) / streams / 1024, 2),
        "resident, KiB": resident_then // 1024,
    }


def resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# --- the server's process ------------------------------------------------------------------------

FRAMES = answer(EVENTS)
"""The start, the content's start, so many deltas, both ends and the terminator."""
TEXT = "".join(json.loads(frame.split(b"data: ")[1])["delta"]["message"]["content"]["text"]
               for frame in FRAMES[2:-3])  # fmt: skip
ID = b"c9216b71-fc8a-4107-be45-168630df7a3f"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stream(asyncio.Protocol):
    """One connection: its first event at once, the others when all are there."""

    def __init__(self, everybody: Everybody) -> None:
        self.everybody = everybody
        self.received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        lengths = [x[15:] for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")]
        if not separator or len(body) < int(lengths[0]):
            return
        self.received = b""
        prompt = json.loads(body)["messages"][0]["content"].encode()
        self.transport.write(HEAD + chunk(FRAMES[0].replace(ID, b"answer-" + prompt)))
        if prompt == b"warm":
            self.transport.write(chunk(b"".join(FRAMES[1:])) + b"0\r\n\r\n")
        else:
            self.everybody.add(self.transport)


class Everybody:
    """All streams, and when each gets its next event."""

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self.waiting: list[asyncio.Transport] = []

    def add(self, transport: asyncio.Transport) -> None:
        self.waiting.append(transport)
        if len(self.waiting) == self.streams:
            self.task = asyncio.ensure_future(self.pace())

    async def pace(self) -> None:
        """Each stream's events evenly over the seconds, beginning at a moment of its own."""
        loop, chance = asyncio.get_running_loop(), random.Random(1)
        gap = SECONDS / (EVENTS + 1)
        await asyncio.sleep(2)  # the client is still busy with the first events
        due = [(loop.time() + gap * chance.random(), number, 1) for number in range(self.streams)]
        heapq.heapify(due)
        while due:
            now = loop.time()
            while due and due[0][0] <= now:
                at, number, position = heapq.heappop(due)
                if position <= EVENTS:
                    frames = FRAMES[1:3] if position == 1 else FRAMES[position + 1 : position + 2]
                    self.waiting[number].write(chunk(b"".join(frames)))
                    heapq.heappush(due, (at + gap, number, position + 1))
                else:
                    self.waiting[number].write(chunk(b"".join(FRAMES[-3:])) + b"0\r\n\r\n")
            await asyncio.sleep(TICK)


async def serve(streams: int) -> None:
    """Until whoever started it is gone."""
    loop, everybody = asyncio.get_running_loop(), Everybody(streams)
    server = await loop.create_server(lambda: Stream(everybody), "127.0.0.1", 0, backlog=16_384)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def paced_server(streams: int) -> Iterator[str]:
    """A server in a process of its own; yields its base URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fanout", "--server", str(streams)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def own_process(role: str, *arguments: str) -> None:
    """A process of one measurement."""
    import uvloop

    raise_descriptor_limit()
    if role == "--server":
        pin(1)
        uvloop.run(serve(int(arguments[0])))
        return
    pin(0)
    url, streams, loop = arguments
    run: Callable[[Any], Any] = uvloop.run if loop == "uvloop" else asyncio.run
    print(json.dumps(run(fan_out(url, int(streams)))))


if __name__ == "__main__":
    if sys.argv[1:2] in (["--client"], ["--server"]):
        own_process(*sys.argv[1:])
    else:
        main()
