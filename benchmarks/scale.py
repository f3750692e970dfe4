"""How many streams does one process hold? Paced streams, all open at once, beside the bytes loop.

``python -m benchmarks.scale [--streams 100,1000,3000,10000] [--rate 4000] [--loop both] [--quick]``

However many there are, all streams together get ``--rate`` events a second, which leaves a core time to
spare: the question is what a *stream* costs. At 3,000 streams each gets one in 0.75 s; one in 20 ms would
be 150,000 events a second, more than a core reads in any way. How it is measured: ``benchmarks/paced.py``.

"Pace kept" is the share of the events due in the measured window that were also read in it; "late" is from
the moment an event was due until the code that reads it has it, the server's own lateness included. "Lost"
is any event of a stream that was sent and not read, and any stream that did not end as it should. Memory is
resident, beyond the same process before its first stream: kernel buffers are not in it, but the text that
came is, because the snapshot keeps it. Linux only.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.far import Far, far_side
from benchmarks.harness import (
    in_turns,
    print_table,
    raise_descriptor_limit,
    spread,
    write_results,
)
from benchmarks.paced import OPENED_A_SECOND, paced_round

CLIENTS = ("bytes loop", "streamchat")
LOOPS = ("asyncio", "uvloop")
SPARE_FILES = 64
MEMORY_FROM = 1000
"""Of fewer streams the text and the noted times of so many events weigh more than they do themselves."""
BUDGETS = {3000: "1.20 x, 18 KiB", 10_000: "1.50 x"}
"""Budgets: so many times the bytes loop's CPU, and so much memory for each stream."""
HEAD = (
    *("streams", "an event each", "loop", "client", "core busy", "us an event", "x bytes loop"),
    *(
        "KiB each",
        "beyond bytes loop",
        "budget",
        "pace kept",
        "late, ms",
        "first event, ms",
        "lost",
    ),
)


def main() -> None:
    """Measure, print the table, and write ``results/scale.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,1000,3000,10000", help="numbers, with commas")
    parser.add_argument("--rate", type=float, default=4000.0, help="events a second in all")
    parser.add_argument("--window", type=float, default=5.0, help="seconds of a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians of them")
    # A loop takes a quarter of an hour: opening 10,000 streams without haste takes 40 s each time.
    parser.add_argument("--loop", choices=(*LOOPS, "both"), default="asyncio")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.streams, options.rate = "20,100", 1000.0
        options.window, options.rounds, options.loop = 0.5, 2, "both"
    raise_descriptor_limit()
    loops = LOOPS if options.loop == "both" else (options.loop,)
    with far_side() as far:
        cases = [
            _measure(far, streams, loop, options)
            for streams in _possible(options.streams)
            for loop in loops
        ]
    rows = [row for case in cases for row in case["rows"]]
    print(f"{options.rate:,.0f} events a second in all, {options.rounds} rounds; late: p50 / p99")
    print_table(HEAD, [_shown(row) for row in rows])
    for row in rows:
        for failure in row["failures"]:
            print(f"{row['streams']:,} streams, {row['loop']}, {row['client']}: {failure}")
    ours = [_shown(row) for row in rows if row["client"] == "streamchat"]
    write_results(
        "scale",
        {
            **{key: value for key, value in vars(options).items() if key != "quick"},
            "opened a second": OPENED_A_SECOND,
            "cases": cases,
            "table": {
                "head": _without_client(HEAD),
                "rows": [_without_client(row) for row in ours],
            },
        },
        quick=options.quick,
    )


def _possible(numbers: str) -> list[int]:
    """Those for which the system allows enough open files."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    asked = [int(number) for number in numbers.split(",")]
    for number in asked:
        if number > most:
            print(f"{number:,} streams: left out, only {most + SPARE_FILES:,} files may be open")
    return [number for number in asked if number <= most]


def _measure(far: Far, streams: int, loop: str, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of so many streams."""
    gap = streams / options.rate
    window = max(options.window, 2 * gap)
    rounds = []
    for round_ in range(options.rounds):
        names = tuple(in_turns(CLIENTS, round_))
        rounds.append(paced_round(far, names, streams, gap, window, loop))
    about = {"streams": streams, "gap": gap, "window": window, "loop": loop}
    print(f"done: {streams:,} streams, {loop}", flush=True)
    return {"rows": [about | _figures(rounds, name) for name in CLIENTS], "rounds": rounds}


def _figures(rounds: list[dict[str, dict[str, Any]]], name: str) -> dict[str, Any]:
    """Medians of one client's rounds, and beside the bytes loop in each."""

    def median(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(of(round_[name]) for round_ in rounds)

    cpu = [r[name]["cpu_s"] / r["bytes loop"]["cpu_s"] for r in rounds]
    more = [r[name]["kib_a_stream"] - r["bytes loop"]["kib_a_stream"] for r in rounds]
    return {
        "client": name,
        "core busy": median(lambda x: x["core_busy"]),
        "us an event": median(lambda x: x["us_an_event"]),
        "ratio to the bytes loop": statistics.median(cpu),
        "spread of the ratio": spread(cpu),
        "KiB a stream": median(lambda x: x["kib_a_stream"]),
        "KiB beyond the bytes loop": statistics.median(more),
        "spread of the KiB beyond": spread(more),
        "pace kept": median(lambda x: x["pace"]),
        "late, ms": [median(lambda x: x["late_ms"][0]), median(lambda x: x["late_ms"][1])],
        "first event, ms": [
            median(lambda x: x["first_event_ms"][0]),
            median(lambda x: x["first_event_ms"][1]),
        ],
        "events lost": sum(r[name]["events_lost"] for r in rounds),
        "streams unfinished": sum(r[name]["unfinished"] for r in rounds),
        "failures": [text for r in rounds for text in r[name]["failures"]][:5],
    }


def _shown(row: dict[str, Any]) -> list[str]:
    ours = row["client"] == "streamchat"
    large = row["streams"] >= MEMORY_FROM
    lost = f"{row['streams unfinished']:,} streams, {row['events lost']:,.0f} events"
    return [
        f"{row['streams']:,}",
        f"{row['gap'] * 1000:,.0f} ms",
        row["loop"],
        row["client"],
        f"{row['core busy']:.0%}",
        f"{row['us an event']:.1f}",
        f"{row['ratio to the bytes loop']:.2f}" if ours else "",
        f"{row['KiB a stream']:.1f}" if large else "",
        f"{row['KiB beyond the bytes loop']:.1f}" if ours and large else "",
        BUDGETS.get(row["streams"], "") if ours else "",
        f"{row['pace kept']:.1%}",
        " / ".join(f"{value:.1f}" for value in row["late, ms"]),
        " / ".join(f"{value:.1f}" for value in row["first event, ms"]),
        lost if row["streams unfinished"] or row["events lost"] else "0",
    ]


def _without_client(cells: tuple[str, ...] | list[str]) -> list[str]:
    """A row of the README's table: ours alone."""
    place = HEAD.index("client")
    return [*cells[:place], *cells[place + 1 :]]


if __name__ == "__main__":
    main()
