"""What does an event cost? CPU beside the hand-written dict loop and the official SDK, in one run.

``python -m benchmarks.decode [--events 5000] [--answers 10] [--rounds 5] [--loop uvloop]``
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.contestants import CONTESTANTS
from benchmarks.harness import byte_server, median_ratios, print_table, run_client, write_results

SHAPES = {
    "large": "64 KiB chunks",
    "each": "an HTTP chunk an event",
    "spaced": "JSON with spaces, spelled unlike Cohere's",
}


def main() -> None:
    """Measure, print a table a shape, and write ``results/decode.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000, help="content deltas an answer")
    parser.add_argument("--answers", type=int, default=10, help="answers a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians of them")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    results: dict[str, object] = {"events": options.events, "loop": options.loop}
    with byte_server(options.events) as url:
        for shape, what in SHAPES.items():
            rounds = [
                {name: _measure(name, url, shape, options) for name in CONTESTANTS}
                for _ in range(options.rounds)
            ]
            ratios = median_ratios(rounds, "dict loop")
            costs = {name: statistics.median(r[name] for r in rounds) for name in CONTESTANTS}
            print(f"\n{what} ({options.loop}, {options.events:,} events an answer)")
            print_table(
                ["client", "us CPU an event", "x dict loop"],
                [[name, f"{costs[name]:.2f}", f"{ratios[name]:.2f}"] for name in CONTESTANTS],
            )
            sdk = statistics.median(r["cohere SDK"] / r["streamchat"] for r in rounds)
            print(f"streamchat costs 1/{sdk:.0f} of the official SDK")
            results[shape] = {
                "us_an_event": costs,
                "ratio_to_dict_loop": ratios,
                "sdk_over_streamchat": sdk,
            }
    write_results(f"decode_{options.loop}", results)


def _measure(name: str, url: str, shape: str, options: argparse.Namespace) -> float:
    """Microseconds of CPU an event."""
    # The SDK is so much slower that a tenth of the answers is plenty.
    answers = max(1, options.answers // 10) if name == "cohere SDK" else options.answers
    seconds = run_client("benchmarks.contestants", name, url, shape, str(answers), options.loop)[
        "seconds"
    ]
    return float(seconds) / answers / options.events * 1e6


if __name__ == "__main__":
    main()
