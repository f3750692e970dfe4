"""What do opening and closing cost? Beside ``session.post``; streams that wait; thousands at once.

``python -m benchmarks.opening [--rounds 7] [--loop both] [--storms 3000x19,10000x14] [--quick]``

* Opening and closing: the shortest answer over a kept-alive connection, its request built beforehand.
  "Beyond" is the CPU time of ours without that of ``session.post`` and without decoding of the two events.
* A waiting stream has sent its request and has no headers yet: tasks, timers, objects that the collector
  tracks, resident bytes.
* Thousands at once: all requests start in one iteration of the loop, each on a connection of its own. CPU is
  beside the loop that only reads; memory is the peak resident size per stream, beyond the size before. The
  limits are the default ones. "Tuned collector": ``gc.freeze()`` and higher thresholds, as the README says.
  Linux only.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.far import Far, far_side
from benchmarks.harness import (
    answer,
    chunked,
    in_turns,
    print_table,
    raise_descriptor_limit,
    run_client,
    spread,
    write_results,
)
from benchmarks.opening_clients import BY_HAND, OURS, TUNED, shortest

CLIENTS = (BY_HAND, OURS)
LOOPS = ("asyncio", "uvloop")
WIRES = ("plain", "TLS")
SPARE_FILES = 64
POST_BUDGET = (0.7, 0.5)
"""Budget and goal: beyond ``session.post``, times ``session.post``; plain, asyncio."""
STORM_BUDGET = (1.7, 1.4)
"""Budget and goal: CPU, times the loop that only reads; asyncio."""
MEMORY_BUDGET = {"3000x19": (23.0, 20.0)}
"""Budget and goal: peak KiB per stream."""
POST_HEAD = (
    "loop",
    "wire",
    "session.post",
    "ours",
    "decoding",
    "beyond",
    "x session.post",
    "budget",
)
WAIT_HEAD = ("a waiting stream", "loop", "wire", "tasks", "timers", "tracked objects", "KiB")
STORM_HEAD = (
    *("streams", "events", "loop", "bytes loop", "streamchat", "tuned collector"),
    *("x bytes loop", "budget"),
    *("peak KiB each", "bytes loop's", "first event after 10 s", "lost"),
)


def main() -> None:
    """Measure, print three tables, and write ``results/opening.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="answers of an opening measurement")
    parser.add_argument(
        "--waiting", type=int, default=500, help="waiting streams; over TLS a third"
    )
    parser.add_argument("--storms", default="3000x19,10000x14", help="streams x events, at once")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds; medians of them")
    parser.add_argument("--loop", choices=(*LOOPS, "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.count, options.waiting, options.rounds = 200, 30, 2
        options.storms = "50x19,100x14"
    raise_descriptor_limit()
    loops = LOOPS if options.loop == "both" else (options.loop,)
    posts, waits, storms = [], [], []
    for wire in WIRES:
        with far_side(responses(), tls=wire == "TLS") as far:
            for loop in loops:
                posts.append(_post(far, loop, wire, options))
                waits += _waits(far, loop, wire, options)
                if wire == "plain":
                    storms += [_storm(far, loop, each, options) for each in _possible(options)]
    tables = {
        "table": (POST_HEAD, [_post_row(each) for each in posts]),
        "waiting_table": (WAIT_HEAD, [_wait_row(each) for each in waits]),
        "storms_table": (STORM_HEAD, [_storm_row(each) for each in storms]),
    }
    for head, rows in tables.values():
        print()
        print_table(head, rows)
    for storm in storms:
        for failure in storm["failures"]:
            print(f"{storm['what']}, {storm['loop']}: {failure}")
    write_results(
        "opening",
        {
            **{key: value for key, value in vars(options).items() if key != "quick"},
            "posts": posts,
            "waits": waits,
            "storms": storms,
            **{name: {"head": head, "rows": rows} for name, (head, rows) in tables.items()},
        },
        quick=options.quick,
    )


def responses() -> dict[str, bytes]:
    """What the server sends; ``silent`` gets nothing at all."""
    found = {"shortest": chunked(shortest(), 64 * 1024), "silent": b""}
    for events in (14, 19):
        frames = answer(events - 4)
        assert len(frames) == events + 1  # [DONE] is not an event
        found[f"storm-{events}"] = chunked(frames, None)
    return found


def _possible(options: argparse.Namespace) -> list[str]:
    """The storms for which the system allows enough open files."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    asked = [str(each) for each in options.storms.split(",")]
    for each in asked:
        if int(each.partition("x")[0]) > most:
            print(f"{each}: left out, only {most + SPARE_FILES:,} files may be open")
    return [each for each in asked if int(each.partition("x")[0]) <= most]


def _run(far: Far, measure: str, loop: str, name: str, count: int) -> dict[str, Any]:
    """The figures of one fresh process."""
    given = (measure, loop, name, far.url, str(count))
    return run_client("benchmarks.opening_clients", *given, env=far.env)


def _rounds(
    far: Far,
    measure: str,
    loop: str,
    count: int,
    rounds: int,
    clients: Sequence[str] = CLIENTS,
) -> list[dict[str, dict[str, Any]]]:
    """All clients, round by round."""
    found = [
        {name: _run(far, measure, loop, name, count) for name in in_turns(clients, round_)}
        for round_ in range(rounds)
    ]
    print(f"done: {measure}, {loop}, {far.url.partition(':')[0]}", flush=True)
    return found


# --- opening and closing --------------------------------------------------------------------------------


def _post(far: Far, loop: str, wire: str, options: argparse.Namespace) -> dict[str, Any]:
    rounds = _rounds(far, "post", loop, options.count, options.rounds)
    ratios = [_beyond(each) / each[BY_HAND]["us"] for each in rounds]
    return {
        "loop": loop,
        "wire": wire,
        "post_us": statistics.median(each[BY_HAND]["us"] for each in rounds),
        "ours_us": statistics.median(each[OURS]["us"] for each in rounds),
        "decoding_us": statistics.median(each[OURS]["reading_us"] for each in rounds),
        "beyond_us": statistics.median(_beyond(each) for each in rounds),
        "ratio": statistics.median(ratios),
        "spread": spread(ratios),
        "budget": POST_BUDGET if (loop, wire) == ("asyncio", "plain") else None,
        "rounds": rounds,
    }


def _beyond(round_: dict[str, dict[str, Any]]) -> float:
    ours = round_[OURS]
    return float(ours["us"] - ours["reading_us"] - round_[BY_HAND]["us"])


def _post_row(found: dict[str, Any]) -> list[str]:
    costs = [found[f"{name}_us"] for name in ("post", "ours", "decoding", "beyond")]
    return [
        found["loop"],
        found["wire"],
        *(f"{cost:.0f} us" for cost in costs),
        f"{found['ratio']:.2f}",
        _allowed(found["budget"]),
    ]


def _allowed(budget: Sequence[float] | None) -> str:
    return f"{budget[0]:g}, goal {budget[1]:g}" if budget else ""


# --- streams that wait ------------------------------------------------------------------------------------


def _waits(far: Far, loop: str, wire: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Counted, so once is enough; resident bytes are those of so many streams."""
    count = options.waiting if wire == "plain" else max(10, options.waiting // 3)
    return [
        {"client": name, "loop": loop, "wire": wire, "streams": count}
        | _run(far, "wait", loop, name, count)
        for name in CLIENTS
    ]


def _wait_row(found: dict[str, Any]) -> list[str]:
    return [
        found["client"],
        found["loop"],
        found["wire"],
        f"{found['tasks']:.1f}",
        "not known" if found["timers"] is None else f"{found['timers']:.1f}",
        f"{found['objects']:.0f}",
        f"{found['bytes'] / 1024:.1f}",
    ]


# --- thousands at once ------------------------------------------------------------------------------------


def _storm(far: Far, loop: str, what: str, options: argparse.Namespace) -> dict[str, Any]:
    streams, _, events = what.partition("x")
    clients = (*CLIENTS, TUNED)
    rounds = _rounds(far, f"storm-{events}", loop, int(streams), options.rounds, clients)

    def median(name: str, figure: str) -> float:
        return float(statistics.median(each[name][figure] for each in rounds))

    # A lost stream costs less than one that is read: such a round says nothing about CPU.
    ratios = [
        each[OURS]["cpu_s"] / each[BY_HAND]["cpu_s"]
        for each in rounds
        if not (each[OURS]["lost"] or each[BY_HAND]["lost"])
    ]
    return {
        "what": what,
        "streams": int(streams),
        "events": int(events),
        "loop": loop,
        "cpu_s": {name: median(name, "cpu_s") for name in clients},
        "ratio": statistics.median(ratios) if ratios else None,
        "spread": spread(ratios) if ratios else None,
        "kib": {name: median(name, "kib_per_stream") for name in CLIENTS},
        "late": median(OURS, "late"),
        "late in the bytes loop": median(BY_HAND, "late"),
        "lost": sum(each[OURS]["lost"] for each in rounds),
        "lost by the bytes loop": sum(each[BY_HAND]["lost"] for each in rounds),
        "failures": [x for each in rounds for name in CLIENTS for x in each[name]["failures"]][:5],
        "rounds": rounds,
    }


def _storm_row(found: dict[str, Any]) -> list[str]:
    budget = STORM_BUDGET if found["loop"] == "asyncio" else None
    allowed = _allowed(budget)
    if budget and (memory := MEMORY_BUDGET.get(found["what"])):
        allowed += f"; {memory[0]:g} KiB, goal {memory[1]:g}"
    return [
        f"{found['streams']:,}",
        str(found["events"]),
        found["loop"],
        *(f"{seconds:.2f} s" for seconds in found["cpu_s"].values()),
        "streams lost" if found["ratio"] is None else f"{found['ratio']:.2f}",
        allowed,
        f"{found['kib'][OURS]:.1f}",
        f"{found['kib'][BY_HAND]:.1f}",
        f"{found['late']:,.0f} (bytes loop {found['late in the bytes loop']:,.0f})",
        f"{found['lost']:,}",
    ]


if __name__ == "__main__":
    main()
