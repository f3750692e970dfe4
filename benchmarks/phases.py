"""Where does the time of a whole answer go? Request, opening, aiohttp, reading, handlers, end.

``python -m benchmarks.phases [--cycles 5] [--rounds 7] [--loop uvloop] [--top 10] [--quick]``

A process notes its CPU time at five moments of each answer of ``benchmarks/mix.py``: before the request is
built, before it is sent, at the first event, at ``message-end``, at the end. The loop that only reads is
split at the same moments; without the encoding of its body it is aiohttp's part. The rest is ours: request
building, opening, reading (decoding, folding, iterating), one async handler of content deltas, and the end.
What a handler adds is the difference to streams without one. The cost of the clock itself is subtracted.

After that cProfile lists the functions of ours with the most time of their own (with the C functions that
they call), in request building, opening and end: medians over cycles, without the garbage collector. A
profiler makes functions that call many others look slower than they are.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import pstats
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.answer_clients import ignore
from benchmarks.answers import DELIVERIES, responses
from benchmarks.far import Far, far_side
from benchmarks.harness import (
    ROOT,
    free_buffer,
    in_turns,
    pin,
    print_table,
    run_client,
    run_on,
    write_results,
)
from benchmarks.mix import SOURCES, Exchange, there
from benchmarks.opening_clients import JSON_HEADERS

BY_HAND, PLAIN, HANDLED = "aiohttp", "no handler", "one handler"
CLIENTS = (BY_HAND, PLAIN, HANDLED)
STEPS = ("request", "opening", "reading", "end")
PARTS = ("request", "opening", "aiohttp", "reading", "handlers", "end")
"""The result: all of them are one iterated answer with a handler."""
clock = time.process_time

Noted = Sequence[float]
"""The five moments of one answer."""
Ask = Callable[[Exchange], Awaitable[Noted]]


# --- the process of one measurement ---------------------------------------------------------------------


async def by_hand(url: str, stack: AsyncExitStack) -> Ask:
    """The loop that only reads."""
    import aiohttp

    session = await stack.enter_async_context(aiohttp.ClientSession())

    async def ask(exchange: Exchange) -> Noted:
        before = clock()
        body = json.dumps({**exchange.body, "stream": True}).encode()
        made = clock()
        async with session.post(f"{url}/v2/chat", data=body, headers=JSON_HEADERS) as response:
            chunks = response.content.iter_any()
            await anext(chunks)
            first = clock()
            async for _ in chunks:
                pass
            last = clock()
        return before, made, first, last, clock()

    return ask


async def ours(url: str, stack: AsyncExitStack, *, handled: bool) -> Ask:
    """Ours, iterated."""
    import streamchat as sc

    client = await stack.enter_async_context(sc.Client(base_url=url))
    if handled:
        client.on_content_delta(ignore)

    async def ask(exchange: Exchange) -> Noted:
        before = clock()
        stream = client.chat_stream(exchange.messages, **exchange.options)
        made = clock()
        event = await anext(stream)
        first = clock()
        async for event in stream:
            if event.type == "message-end":
                break
        last = clock()
        async for _ in stream:
            pass
        return before, made, first, last, clock()

    return ask


async def _asker(name: str, url: str, stack: AsyncExitStack) -> Ask:
    return await (
        by_hand(url, stack) if name == BY_HAND else ours(url, stack, handled=name == HANDLED)
    )


async def measure(name: str, url: str, source: str, cycles: int) -> dict[str, float]:
    """CPU us per answer of each step."""
    exchanges = SOURCES[source]()
    async with AsyncExitStack() as stack:
        ask = await _asker(name, url, stack)
        for exchange in exchanges:
            await ask(exchange)
        gc.collect()
        sums = [0.0] * len(STEPS)
        for _ in range(cycles):
            for exchange in exchanges:
                noted = await ask(exchange)
                for place in range(len(STEPS)):
                    sums[place] += noted[place + 1] - noted[place]
    cost = _clock_cost()
    answers = cycles * len(exchanges)
    return {step: (total / answers - cost) * 1e6 for step, total in zip(STEPS, sums, strict=True)}


def _clock_cost() -> float:
    begin = clock()
    for _ in range(10_000):
        clock()
    return (clock() - begin) / 10_000


async def profile(url: str, source: str, cycles: int, top: int) -> dict[str, Any]:
    """The functions of ours with the most time of their own, for each of three steps."""
    import streamchat as sc

    exchanges = SOURCES[source]()
    found: dict[str, list[Times]] = {step: [] for step in PROFILED}
    gc.disable()
    async with sc.Client(base_url=url) as client:
        client.on_content_delta(ignore)
        for _ in range(cycles + 1):
            # A profile for each cycle: other processes interrupt some of them.
            profiles = {step: cProfile.Profile(builtins=False) for step in PROFILED}
            for exchange in exchanges:
                with profiles["request"]:
                    stream = client.chat_stream(exchange.messages, **exchange.options)
                with profiles["opening"]:
                    await anext(stream)
                async for event in stream:
                    if event.type == "message-end":
                        break
                with profiles["end"]:
                    async for _ in stream:
                        pass
            for step, each in profiles.items():
                found[step].append(_times(each, len(exchanges)))
    # The first cycle warms up.
    return {step: _top(times[1:], top) for step, times in found.items()}


PROFILED = ("request", "opening", "end")
Times = dict[str, tuple[float, float, float]]
"""For each function: calls, us of its own and us with callees, per answer."""


def _times(profile: cProfile.Profile, answers: int) -> Times:
    """Of the functions of ours, and of those that attrs made for ours."""
    stats: Any = pstats.Stats(profile)
    found = {}
    for (file, line, name), (_, calls, own, total, _) in stats.stats.items():
        path = Path(file)
        if path.is_relative_to(ROOT / "streamchat"):
            where = f"{path.relative_to(ROOT / 'streamchat')}:{line} {name}"
        elif "attrs generated" in file:
            where = f"{file.strip('<>').rpartition('.')[2]} {name} (attrs)"
        else:
            continue
        found[where] = (calls / answers, own / answers * 1e6, total / answers * 1e6)
    return found


def _top(cycles: Sequence[Times], top: int) -> list[dict[str, Any]]:
    """The first functions by own time: medians over the cycles."""
    rows = []
    for function in cycles[0]:
        each = [times[function] for times in cycles if function in times]
        calls, own, total = (statistics.median(values) for values in zip(*each, strict=True))
        rows.append({"function": function, "calls": calls, "own_us": own, "total_us": total})
    rows.sort(key=lambda row: row["own_us"], reverse=True)
    return rows[:top]


def client_main(kind: str, loop: str, url: str, source: str, cycles: str, *more: str) -> None:
    """The process of one measurement, or of one profile."""
    pin(0)
    free_buffer()
    work: Any = (
        measure(more[0], url, source, int(cycles))
        if kind == "measure"
        else profile(url, source, int(cycles), int(more[0]))
    )
    print(json.dumps(run_on(loop, work)))


# --- the comparison ---------------------------------------------------------------------------------------


def main() -> None:
    """Measure, print the tables, and write ``results/phases.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=5, help="times each answer is asked for")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds; medians of them")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--top", type=int, default=10, help="functions of a profile")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.cycles, options.rounds = 1, 2
    results = []
    profiles: dict[str, Any] = {}
    with far_side(responses()) as far:
        for source in there():
            for delivery in DELIVERIES:
                results.append(_split(far, source, delivery, options))
            profiles[source] = _profile(far, source, options)
    head = ["answers", "delivery", *PARTS, "whole"]
    rows = [_row(result) for result in results]
    print("us of CPU per answer, and its share")
    print_table(head, rows)
    for source, found in profiles.items():
        for step, functions in found.items():
            print(f"\n{step}, {source}: functions of ours, by CPU time of their own (cProfile)")
            print_table(
                ["function", "calls", "own us", "with callees"],
                [
                    [x["function"], *(f"{x[key]:.1f}" for key in ("calls", "own_us", "total_us"))]
                    for x in functions
                ],
            )
    write_results(
        "phases",
        {
            **{key: value for key, value in vars(options).items() if key != "quick"},
            "results": results,
            "profiles": profiles,
            "table": {"head": head, "rows": rows},
        },
        quick=options.quick,
    )


def _split(far: Far, source: str, delivery: str, options: argparse.Namespace) -> dict[str, Any]:
    """The parts of one source in one delivery: medians over the rounds."""
    parts: list[dict[str, float]] = []
    url = f"{far.url}/{source}-{delivery}"
    for round_ in range(options.rounds):
        found = {
            name: run_client(
                "benchmarks.phases",
                *("client", "measure", options.loop, url, source, str(options.cycles), name),
                env=far.env,
            )
            for name in in_turns(CLIENTS, round_)
        }
        parts.append(_parts(found))
    print(f"done: {source}, {DELIVERIES[delivery]}", flush=True)
    return {
        "source": source,
        "delivery": delivery,
        "us_per_answer": {part: statistics.median(each[part] for each in parts) for part in PARTS},
        "rounds": parts,
    }


def _parts(found: dict[str, dict[str, float]]) -> dict[str, float]:
    floor, plain, handled = (found[name] for name in CLIENTS)
    return {
        "request": plain["request"],
        "opening": plain["opening"] - floor["opening"],
        "aiohttp": sum(cost for step, cost in floor.items() if step != "request"),
        "reading": plain["reading"] - floor["reading"],
        "handlers": handled["reading"] - plain["reading"],
        "end": plain["end"] - floor["end"],
    }


def _profile(far: Far, source: str, options: argparse.Namespace) -> Any:
    given = (options.loop, f"{far.url}/{source}-one", source, str(options.cycles), str(options.top))
    return run_client("benchmarks.phases", "client", "profile", *given, env=far.env)


def _row(result: dict[str, Any]) -> list[str]:
    costs = result["us_per_answer"]
    whole = sum(costs.values())
    return [
        result["source"],
        DELIVERIES[result["delivery"]],
        *(f"{costs[part]:.0f} us ({costs[part] / whole:.0%})" for part in PARTS),
        f"{whole:.0f} us",
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client_main(*sys.argv[2:])
    else:
        main()
