"""Start blocks in processes of their own, two at a time: both parsers on both loops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.figures import FIGURES

ROOT = Path(__file__).parents[2]
COMBINATIONS = [(parser, loop) for parser in ("python", "c") for loop in ("asyncio", "uvloop")]
ACROSS = [("python", "asyncio"), ("c", "uvloop")]
"""Each parser and each loop once: enough for what concerns neither of them alone."""


def run(*options: str) -> dict[str, Any]:
    """Run one process and return its line of figures."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.faults.run", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert process.stdout, process.stderr
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def run_everywhere(
    what: str, *options: str, combinations: Sequence[tuple[str, str]] = COMBINATIONS
) -> None:
    """Run a block with both parsers on both loops; assert that nothing failed, note the figures."""
    with ThreadPoolExecutor(2) as pool:
        reports = list(
            pool.map(
                lambda pair: run("--parser", pair[0], "--loop", pair[1], *options), combinations
            )
        )
    runs = sum(report["runs"] for report in reports)
    events = sum(report["events"] for report in reports)
    failed = sum(report["failed"] for report in reports)
    latest = max(report["latest"] for report in reports)
    rerun = sum(report["rerun"] for report in reports)
    figure = (
        f"{runs} streams ({len(combinations)} of 4 pairs of parser and loop), {events} events, "
        f"{failed} wrong, the latest end {latest:.3f} s past its limit, "
        f"{rerun} late at first and in time when run alone"
    )
    FIGURES.append((what, figure))
    problems = [
        f"{report['parser']}/{report['loop']} seed {report['seed']}: {failure}"
        for report in reports
        for failure in report["failures"]
    ]
    assert not failed, "\n".join(problems)
