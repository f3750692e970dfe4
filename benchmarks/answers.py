"""What does a whole answer cost, with its request? CPU beside the hand-written dict loop, in one run.

``python -m benchmarks.answers [--cycles 5] [--rounds 7] [--loop uvloop] [--tls] [--quick]``

Each client builds the request, sends it over a kept-alive loopback connection, reads the answer and has its
text, tool plan, calls, citations and end. The answers are those of ``benchmarks/mix.py``: an own-made mix,
and the recordings if they are there. Each is delivered with one HTTP chunk per event, and in one chunk.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from typing import Any

from benchmarks.answer_clients import BYTES_LOOP, CLIENTS, DICT_LOOP, SDK
from benchmarks.far import Far, far_side
from benchmarks.harness import (
    chunked,
    in_turns,
    median_ratios,
    print_table,
    run_client,
    spread,
    write_results,
)
from benchmarks.mix import SOURCES, there

DELIVERIES = {"each": "one HTTP chunk per event", "one": "the answer in one chunk"}
BUDGETS = {"each": (1.35, 1.15), "one": (1.50, 1.25)}
"""For each delivery the budget and the goal: times the dict loop, iterated with a handler, plain, asyncio."""


def main() -> None:
    """Measure, print the table, and write ``results/answers_LOOP[_tls].json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=5, help="times each answer is asked for")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds; medians of them")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--tls", action="store_true", help="https instead of http")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.cycles, options.rounds = 1, 2
    names = [x for x in CLIENTS if x != SDK or importlib.util.find_spec("cohere") is not None]
    results = []
    with far_side(responses(), tls=options.tls) as far:
        for source in there():
            for delivery in DELIVERIES:
                results.append(_measure(far, source, delivery, names, options))
    head = ["answers", "delivery", *names, *(f"{x}, x {DICT_LOOP}" for x in names[2:])]
    rows = [_row(result, names) for result in results]
    wire = "TLS" if options.tls else "plain"
    print(f"us of CPU per answer ({options.loop}, {wire})")
    print_table(head, rows)
    write_results(
        f"answers_{options.loop}{'_tls' if options.tls else ''}",
        {
            **{key: value for key, value in vars(options).items() if key != "quick"},
            "results": results,
            "table": {"head": head, "rows": rows},
        },
        quick=options.quick,
    )


def responses() -> dict[str, list[bytes]]:
    """What the server sends: all answers of each source, in each delivery."""
    found: dict[str, list[bytes]] = {}
    for source in there():
        exchanges = SOURCES[source]()
        found[f"{source}-each"] = [chunked(each.frames, None) for each in exchanges]
        found[f"{source}-one"] = [
            chunked(each.frames, len(b"".join(each.frames))) for each in exchanges
        ]
    return found


def _measure(
    far: Far, source: str, delivery: str, names: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """All rounds of one source in one delivery."""
    count = len(SOURCES[source]())
    rounds: list[dict[str, float]] = []
    for round_ in range(options.rounds):
        costs = {}
        for name in in_turns(names, round_):
            # The SDK is so much slower that one cycle is enough.
            cycles = 1 if name == SDK else options.cycles
            given = (name, far.url, source, delivery, str(cycles), options.loop)
            seconds = run_client("benchmarks.answer_clients", *given, env=far.env)["seconds"]
            costs[name] = float(seconds) / cycles / count * 1e6
        rounds.append({name: costs[name] for name in names})
    print(f"done: {source}, {DELIVERIES[delivery]}", flush=True)
    return {
        "source": source,
        "delivery": delivery,
        "answers": count,
        "us_per_answer": {name: statistics.median(r[name] for r in rounds) for name in names},
        "ratio_to_dict_loop": median_ratios(rounds, DICT_LOOP),
        "ratio_to_bytes_loop": median_ratios(rounds, BYTES_LOOP),
        "spread_to_dict_loop": {
            name: spread([r[name] / r[DICT_LOOP] for r in rounds]) for name in names
        },
        "budget": BUDGETS[delivery],
        "rounds": rounds,
    }


def _row(result: dict[str, Any], names: list[str]) -> list[str]:
    return [
        f"{result['answers']} of the {result['source']}",
        DELIVERIES[result["delivery"]],
        *(f"{result['us_per_answer'][name]:,.0f} us" for name in names),
        *(f"{result['ratio_to_dict_loop'][name]:.2f}" for name in names[2:]),
    ]


if __name__ == "__main__":
    main()
