"""What does an event of a stream cost? CPU beside the hand-written loops, by loop, by wire, by pace.

``python -m benchmarks.stream [--events 5000] [--answers 20] [--streams 200] [--rounds 5] [--quick]``

A stream is typed, folded into the snapshot, handed to an async handler and to ``async for``. One answer
after another comes in large chunks or in an HTTP chunk an event; paced, 200 streams are open at once
and each gets an event each 20 ms (see ``benchmarks/paced.py``).
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.far import Far, far_side
from benchmarks.harness import (
    answer,
    chunked,
    in_turns,
    median_ratios,
    print_table,
    run_client,
    spread,
    write_results,
)
from benchmarks.paced import paced_round

CLIENTS = ("bytes loop", "dict loop", "streamchat")
SHAPES = {"large": "large chunks", "each": "an HTTP chunk an event"}
GAP = 0.02
BUDGETS = {
    ("asyncio", "plain", "large"): ("dict loop", 1.1),
    ("asyncio", "plain", "each"): ("dict loop", 1.0),
    ("asyncio", "plain", "paced"): ("bytes loop", 1.15),
    ("uvloop", "plain", "paced"): ("bytes loop", 1.25),
}
"""Budgets: beside whom, and how many times its cost at most."""


def main() -> None:
    """Measure, print the table, and write ``results/stream.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000, help="content deltas an answer")
    parser.add_argument("--answers", type=int, default=20, help="answers a measurement")
    parser.add_argument("--streams", type=int, default=200, help="paced streams")
    parser.add_argument("--window", type=float, default=5.0, help="seconds of a paced measurement")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians of them")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.events, options.answers, options.streams = 500, 2, 50
        options.window, options.rounds = 0.5, 2
    results = []
    for wire in ("plain", "TLS"):
        frames = answer(options.events)
        answers = {
            "large": chunked(frames, 64 * 1024),
            "each": chunked(frames, None),
            "warm": chunked(answer(3), 64 * 1024),
        }
        with far_side(answers, tls=wire == "TLS") as far:
            for loop in ("asyncio", "uvloop"):
                for shape in (*SHAPES, "paced"):
                    results.append(_measure(far, wire, loop, shape, options))
    head = ["what", "loop", "wire", *CLIENTS, "x bytes loop", "x dict loop", "budget"]
    rows = [_row(result, options) for result in results]
    print("us of CPU an event")
    print_table(head, rows)
    given = {key: value for key, value in vars(options).items() if key != "quick"}
    write_results(
        "stream",
        {**given, "gap_s": GAP, "results": results, "table": {"head": head, "rows": rows}},
        quick=options.quick,
    )


def _measure(
    far: Far, wire: str, loop: str, shape: str, options: argparse.Namespace
) -> dict[str, Any]:
    """All rounds of one kind."""
    rounds: list[dict[str, float]] = []
    details = []
    for round_ in range(options.rounds):
        names = tuple(in_turns(CLIENTS, round_))
        if shape == "paced":
            figures = paced_round(far, names, options.streams, GAP, options.window, loop)
            details.append(figures)
            costs = {name: figure["us_an_event"] for name, figure in figures.items()}
        else:
            costs = {name: _one(far, name, shape, loop, options) for name in names}
        rounds.append({name: costs[name] for name in CLIENTS})
    return {
        "what": shape,
        "loop": loop,
        "wire": wire,
        "us_an_event": {name: statistics.median(r[name] for r in rounds) for name in CLIENTS},
        "ratio_to_bytes_loop": median_ratios(rounds, "bytes loop"),
        "ratio_to_dict_loop": median_ratios(rounds, "dict loop"),
        "spread_to_bytes_loop": spread([r["streamchat"] / r["bytes loop"] for r in rounds]),
        "spread_to_dict_loop": spread([r["streamchat"] / r["dict loop"] for r in rounds]),
        "budget": BUDGETS.get((loop, wire, shape)),
        "rounds": rounds,
        "details": details,
    }


def _one(far: Far, name: str, shape: str, loop: str, options: argparse.Namespace) -> float:
    """Microseconds an event of a fresh process."""
    arguments = (name, far.url, shape, str(options.answers), loop)
    seconds = run_client("benchmarks.contestants", *arguments, env=far.env)["seconds"]
    return float(seconds) / options.answers / options.events * 1e6


def _row(result: dict[str, Any], options: argparse.Namespace) -> list[str]:
    what = SHAPES.get(
        result["what"], f"{options.streams} streams, an event each {GAP * 1000:.0f} ms"
    )
    budget = result["budget"]
    return [
        what,
        result["loop"],
        result["wire"],
        *(f"{result['us_an_event'][name]:.2f}" for name in CLIENTS),
        f"{result['ratio_to_bytes_loop']['streamchat']:.2f}",
        f"{result['ratio_to_dict_loop']['streamchat']:.2f}",
        f"{budget[1]:.2f} x {budget[0]}" if budget else "",
    ]


if __name__ == "__main__":
    main()
