"""What does ``import streamchat`` cost, beside the packages it is built on?

``python -m benchmarks.imports [--rounds 15]``

Fresh processes take turns; each times nothing but its import statement, so that the interpreter's
own start does not water the ratio down. Where valgrind is installed, instructions are counted as
well: noise cannot touch those. The list at the end is ``python -X importtime``'s own time, median of
some runs, of each module that the base does not import.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.guard import BASE_IMPORTS, counts_between_marks
from benchmarks.harness import ROOT, print_table, write_results

BUDGET = 1.15
BASE, OURS = BASE_IMPORTS, "import streamchat"
TIMED = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
MARKED = f"import os; os.getppid()\n{BASE}\nos.getppid()\n{OURS}\nos.getppid()"
SHOWN = 25


def main() -> None:
    """Measure, print both tables, and write ``results/imports.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="alternating rounds; medians")
    parser.add_argument("--no-count", action="store_true", help="times alone, no instructions")
    options = parser.parse_args()
    for statement in (BASE, OURS):
        _run(TIMED.format(statement=statement))  # modules are compiled here
    rounds = [{name: _timed(name) for name in (BASE, OURS)} for _ in range(options.rounds)]
    results: dict[str, Any] = {"rounds": options.rounds, "budget": BUDGET}
    for place, measure in enumerate(("wall", "cpu")):
        results[measure] = {
            "base_ms": statistics.median(r[BASE][place] for r in rounds),
            "streamchat_ms": statistics.median(r[OURS][place] for r in rounds),
            "ratio": statistics.median(r[OURS][place] / r[BASE][place] for r in rounds),
        }
    if shutil.which("valgrind") is not None and not options.no_count:
        _, base, more = counts_between_marks(MARKED, 3)
        results["instructions"] = {
            "base": base,
            "streamchat": base + more,
            "ratio": (base + more) / base,
        }
    results["modules_us"] = modules = _modules(max(3, options.rounds // 3))
    rows = [
        [
            measure,
            f"{results[measure]['base_ms']:.1f} ms",
            f"{results[measure]['streamchat_ms']:.1f} ms",
            f"{results[measure]['ratio']:.3f}",
        ]
        for measure in ("wall", "cpu")
    ]
    if "instructions" in results:
        found = results["instructions"]
        counts = [f"{found[name] / 1e6:,.0f} M" for name in ("base", "streamchat")]
        rows.append(["instructions", *counts, f"{found['ratio']:.3f}"])
    head = ["", BASE.removeprefix("import "), "streamchat", f"ratio, at most {BUDGET}"]
    results["table"] = {"head": head, "rows": rows}
    print_table(head, rows)
    total = sum(modules.values())
    print(f"\n{len(modules)} modules beyond those, {total / 1000:.1f} ms in all (-X importtime):")
    print_table(
        ["module", "own us", "share"],
        [[name, f"{us:,.0f}", f"{us / total:.0%}"] for name, us in list(modules.items())[:SHOWN]],
    )
    write_results("imports", results)
    steady = results.get("instructions", results["cpu"])["ratio"]
    print(
        f"\nbudget {'held' if steady <= BUDGET else 'MISSED'}: {steady:.3f} x, at most {BUDGET} x"
    )


def _run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )


def _timed(statement: str) -> tuple[float, float]:
    """Milliseconds of one import in a fresh process: wall, CPU."""
    wall, cpu = map(float, _run(TIMED.format(statement=statement)).stdout.split())
    return wall * 1000, cpu * 1000


def _modules(runs: int) -> dict[str, float]:
    """Own microseconds of each module that comes on top of the base, most expensive first."""
    found: dict[str, list[int]] = {}
    for _ in range(runs):
        lines = _run(f"{BASE}\n{OURS}", "-X", "importtime").stderr.splitlines()
        own = [line.removeprefix("import time:").split("|") for line in lines]
        names = [parts[2].rstrip() for parts in own]
        last = BASE.rpartition(" ")[2]
        # Depth is told by two spaces a level; the base's last import stands at none.
        for us, _, name in own[names.index(f" {last}") + 1 :]:
            found.setdefault(name.strip(), []).append(int(us))
    medians = {name: statistics.median(times) for name, times in found.items()}
    return dict(sorted(medians.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
