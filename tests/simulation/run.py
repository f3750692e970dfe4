"""``python -m tests.simulation.run --seed N``: replay one; ``--seeds A B``: count a range as JSON."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections import Counter

from tests.simulation.world import Broken, describe, run_seed


def run_range(first: int, last: int) -> tuple[Counter[str], list[str]]:
    """Seeds from first up to last, without it: counts, and what broke."""
    counts: Counter[str] = Counter()
    broken: list[str] = []
    for seed in range(first, last):
        try:
            counts += run_seed(seed)
        except Broken as error:
            broken.append(str(error))
        counts["seeds"] += 1
        if seed % 500 == 499:
            gc.collect()
    return counts, broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one, with a trace")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("A", "B"), help="A up to B")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        print(describe(arguments.seed))
        try:
            run_seed(arguments.seed, tracing=True)
        except Broken as error:
            print(error)
            if error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            return 1
        print("all invariants hold")
        return 0
    first, last = arguments.seeds or (0, 2000)
    begun = time.perf_counter()
    counts, broken = run_range(first, last)
    seconds = round(time.perf_counter() - begun, 2)
    report = {"seeds": [first, last], "seconds": seconds, "broken": len(broken)}
    print(json.dumps(report | {"counts": dict(counts.most_common())}))
    for text in broken[:20]:
        print(text, file=sys.stderr)
    return bool(broken)


if __name__ == "__main__":
    raise SystemExit(main())
