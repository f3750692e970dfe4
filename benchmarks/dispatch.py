"""What does listening cost? CPU an event with handlers and middleware, beside none, in one run.

``python -m benchmarks.dispatch [--events 5000] [--answers 10] [--rounds 5] [--loop uvloop]``

Every handler returns at once: what is measured is the way to it. Handlers listen to the content
deltas, which are all but four events of an answer; middleware gets every event.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.harness import (
    byte_server,
    median_ratios,
    pin,
    print_table,
    run_client,
    write_results,
)
from streamchat import Client, ContentDelta, Event

BASE = "no handler"
AWAITED = "no handler, awaited"
"""Not iterated either: no event is seen by anybody, and none is made of texts that came together."""


async def heard(event: ContentDelta) -> None:
    """An async handler."""


def heard_plainly(event: ContentDelta) -> None:
    """A plain one."""


def passed_on(event: Event) -> Event:
    """Middleware that changes nothing."""
    return event


def ten(client: Client) -> None:
    """As many as a large product has for one event."""

    async def another(event: ContentDelta) -> None:
        pass

    for _ in range(10):
        client.on_content_delta(another)


def two_middlewares(client: Client) -> None:
    """Each event goes through both."""

    def another(event: Event) -> Event:
        return event

    client.event_middleware(passed_on)
    client.event_middleware(another)


LISTENERS: dict[str, Callable[[Client], object]] = {
    BASE: lambda client: None,
    AWAITED: lambda client: None,
    "on_error alone": lambda client: client.on_error()(lambda error: None),
    "one plain": lambda client: client.on_content_delta(heard_plainly),
    "one async": lambda client: client.on_content_delta(heard),
    "one async and on_error": lambda client: (
        client.on_content_delta(heard),
        client.on_error()(lambda error: None),
    ),
    "ten async": ten,
    "one async, where= is false": lambda client: client.on_content_delta(
        where=lambda event: event.index == 7
    )(heard),
    "one async, where= is true": lambda client: client.on_content_delta(
        where=lambda event: event.index == 0
    )(heard),
    "one async, background=True": lambda client: client.on_content_delta(background=True)(heard),
    "one async, every=0.1": lambda client: client.on_content_delta(every=0.1)(heard),
    "one event middleware": lambda client: client.event_middleware(passed_on),
    "two event middlewares": two_middlewares,
}


def main() -> None:
    """Measure, print the table, and write ``results/dispatch.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000, help="content deltas an answer")
    parser.add_argument("--answers", type=int, default=10, help="answers a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians of them")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    with byte_server(options.events) as url:
        rounds = [
            {name: _measure(name, url, options) for name in LISTENERS}
            for _ in range(options.rounds)
        ]
    ratios = median_ratios(rounds, BASE)
    costs = {name: statistics.median(r[name] for r in rounds) for name in LISTENERS}
    more = {name: statistics.median(r[name] - r[BASE] for r in rounds) for name in LISTENERS}
    print(f"64 KiB chunks ({options.loop}, {options.events:,} events an answer)")
    print_table(
        ["what listens", "us CPU an event", "us more", f"x {BASE}"],
        [
            [name, f"{costs[name]:.2f}", f"{more[name]:+.2f}", f"{ratios[name]:.2f}"]
            for name in LISTENERS
        ],
    )
    write_results(
        "dispatch",
        {
            "events": options.events,
            "answers": options.answers,
            "rounds": options.rounds,
            "loop": options.loop,
            "us_an_event": costs,
            "us_more_than_no_handler": more,
            "ratio_to_no_handler": ratios,
        },
    )


def _measure(name: str, url: str, options: argparse.Namespace) -> float:
    """Microseconds of CPU an event, of a fresh process."""
    seconds = run_client(
        "benchmarks.dispatch", "--client", name, url, str(options.answers), options.loop
    )["seconds"]
    return float(seconds) / options.answers / options.events * 1e6


# --- the process of one measurement --------------------------------------------------------------


async def _read_answers(name: str, url: str, answers: int) -> float:
    """CPU seconds for so many answers, read as a caller does: ``async for``, then the text."""

    async def once(client: Client) -> None:
        stream = client.chat_stream("Hi")
        if name == AWAITED:
            _ = (await stream).text
            return
        async for _ in stream:
            pass
        _ = stream.snapshot.text

    async with Client(base_url=f"{url}/warm", model="m") as client:
        LISTENERS[name](client)
        for _ in range(3):
            await once(client)
    async with Client(base_url=f"{url}/large", model="m") as client:
        LISTENERS[name](client)
        gc.collect()
        begin = time.process_time()
        for _ in range(answers):
            await once(client)
        return time.process_time() - begin


def client_main() -> None:
    """``python -m benchmarks.dispatch --client NAME URL ANSWERS LOOP`` prints CPU seconds as JSON."""
    name, url, answers, loop = sys.argv[2:6]
    pin(0)
    buffer = bytearray(8 * 1024 * 1024)  # see benchmarks/harness.py
    del buffer
    run = asyncio.run
    if loop == "uvloop":
        import uvloop

        run = uvloop.run
    print(json.dumps({"seconds": run(_read_answers(name, url, int(answers)))}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        client_main()
    else:
        main()
