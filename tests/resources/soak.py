"""``nox -s soak``: everything once more with big numbers, a progress bar, and a table at the end.

``--scale 0.001`` is a quick trial of the machinery; ``--only NAME`` runs the rows so named. Rows that
measure time or memory run alone, the others ``--jobs`` at a time. The exit code is 1 if a row fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from itertools import product
from typing import Any

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.resources.process import ROOT

LOOPS, PARSERS = ("asyncio", "uvloop"), ("c", "python")
HOUR = 3600.0


@attrs.define
class Run:
    """One process of a row, and what came of it."""

    command: tuple[str, ...]
    code: int = -1
    output: dict[str, Any] = attrs.Factory(dict)
    words: str = ""

    def go(self) -> None:
        """Run it; the last JSON object on stdout is the result."""
        if not _is_there(self.command[0]):
            self.words = f"{self.command[0]} is not there"
            return
        try:
            done = subprocess.run(
                [sys.executable, "-m", *self.command],
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=12 * HOUR,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.words = "not done within 12 hours"
            return
        self.code = done.returncode
        self.output = _json(done.stdout)
        if self.code:
            said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
            first = (self.output.get("failures") or [said])[0]
            self.words = f"{' '.join(self.command)}: {first}"[:300]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _json(text: str) -> dict[str, Any]:
    """The whole output as JSON, or its last line."""
    for candidate in (text, (text.strip().splitlines() or [""])[-1]):
        try:
            found = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


Judge = Callable[[list[Run]], tuple[bool, str]]


@attrs.define
class Row:
    """One line of the table in issue 3, right-hand column."""

    name: str
    what: str
    asked: str
    runs: list[Run]
    judge: Judge
    alone: bool = False


def _counts(total: str, *bad: str) -> Judge:
    """Sums of one figure and of those that must be 0 (a list counts by its length)."""

    def judge(runs: list[Run]) -> tuple[bool, str]:
        sums = {name: sum(_number(run.output, name) for run in runs) for name in (total, *bad)}
        shown = {"count": "inputs", "foreign_exceptions": "foreign exceptions"}
        text = ", ".join(f"{number:,} {shown.get(name, name)}" for name, number in sums.items())
        return not any(sums[name] for name in bad), text

    return judge


def _number(output: dict[str, Any], name: str) -> int:
    counts = output.get("counts", {})
    found = counts[name] if name in counts else output[name]
    return len(found) if isinstance(found, list) else int(found)


def _leaks(runs: list[Run]) -> tuple[bool, str]:
    left = sum(sum(run.output["left"].values()) for run in runs)
    warned = sum(run.output["ResourceWarnings"] for run in runs)
    others = sum(
        len(run.output[name])
        for run in runs
        for name in ("complaints", "unexpected ends", "objects left")
    )
    streams = sum(run.output["streams"] for run in runs)
    text = f"{left} left, {warned} ResourceWarnings, {others} complaints; {streams:,} streams"
    return left + warned + others == 0, text


def _slope(runs: list[Run]) -> tuple[bool, str]:
    slopes = [run.output["KiB per 10,000 streams"] for run in runs]
    return max(slopes) < 1024, f"{max(slopes) / 1024:.2f} MiB per 10,000 streams"


def _cancelled(runs: list[Run]) -> tuple[bool, str]:
    worst = max(run.output["last end seen after, s"] for run in runs)
    seen = all(run.output["seen"] == run.output["streams"] for run in runs)
    return seen and worst <= 2, f"{runs[0].output['streams']:,} seen within {worst:.3f} s"


def _p99(limit: float, *path: str) -> Judge:
    def judge(runs: list[Run]) -> tuple[bool, str]:
        figures = []
        for run in runs:
            found = run.output
            for name in path:
                found = found[name]
            figures.append(found["p99, ms"])
        return max(figures) <= limit, f"p99 {max(figures)} ms"

    return judge


def _stalled(runs: list[Run]) -> tuple[bool, str]:
    most = max(run.output["MiB in all"] for run in runs)
    each = max(run.output["KiB per stream"] for run in runs)
    return most <= 512, f"{runs[0].output['streams']:,} in {most} MiB, {each} KiB each"


def _secrets(runs: list[Run]) -> tuple[bool, str]:
    hits = sum(sum(run.output["hits"].values()) for run in runs)
    return hits == 0, f"{hits} hits in {sum(r.output['places searched'] for r in runs):,} places"


def _slices(total: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(total, start + size)) for start in range(0, total, size)]


def rows(scale: float) -> list[Row]:
    """The table, with every number multiplied by ``scale``."""

    def scaled(number: int, least: int) -> int:
        return max(least, round(number * scale))

    def faults(*arguments: object) -> Run:
        return Run(("tests.faults.run", *map(str, arguments)))

    def resources(what: str, count: int, *arguments: str) -> Run:
        return Run(("tests.resources.run", what, "--count", str(count), *arguments))

    settings = [("--loop", loop, "--parser", parser) for loop, parser in product(LOOPS, PARSERS)]
    every = max(1, min(401, round(1 / scale)))
    random, seeds, inputs = scaled(100_000, 40), scaled(200_000, 40), scaled(20_000_000, 400)
    random_tls = scaled(10_000, 40)
    ends, slope = scaled(10_000, 62), scaled(20_000, 400)
    return [
        Row(
            "responses",
            "raw responses, loops x parsers x consumers x TLS",
            "all as the catalogue says",
            [faults(*s, "--what", "responses", *t) for s in settings for t in ((), ("--tls",))],
            _counts("runs", "failures"),
        ),
        Row(
            "cuts",
            "an answer cut at byte n",
            f"every {every if every > 1 else ''} n, TLS every {7 * every}".replace("  ", " "),
            [
                faults(*setting, "--what", "cuts", "--every", *which)
                for setting in settings
                for which in ((every,), (7 * every, "--tls"))
            ],
            _counts("runs", "failures"),
        ),
        Row(
            "random",
            "random faults at random offsets",
            f"{random:,} + {random_tls:,} over TLS: 0 lost, doubled, altered",
            [
                faults(*settings[n % 4], "--what", "random", "--count", b - a, "--seed", n, *tls)
                for number, *tls in ((random,), (random_tls, "--tls"))
                for n, (a, b) in enumerate(_slices(number, 2_500))
            ],
            _counts("runs", "failures"),
        ),
        Row(
            "simulation",
            "simulation seeds",
            f"{seeds:,}",
            [
                Run(("tests.simulation.run", "--seeds", str(a), str(b)))
                for a, b in _slices(seeds, 2_500)
            ],
            _counts("seeds", "broken"),
        ),
        Row(
            "fuzz",
            "inputs against the slow reference",
            f"{inputs:,}: 0 differences",
            [
                Run(("tests.fuzz.differential", "--count", str(b - a), "--seed", str(n)))
                for n, (a, b) in enumerate(_slices(inputs, 200_000))
            ],
            _counts("count", "differences", "foreign_exceptions"),
        ),
        Row(
            "secrets",
            "canaries in everything visible",
            "0 hits",
            [resources("secrets", scaled(10, 1), "--loop", loop) for loop in LOOPS],
            _secrets,
        ),
        Row(
            "leaks",
            "tasks, timers, descriptors, pool slots, warnings left",
            "0",
            [
                resources("leaks", ends, "--loop", loop, *tls)
                for loop, tls in product(LOOPS, ((), ("--tls",)))
            ],
            _leaks,
        ),
        Row(
            "slope",
            f"memory slope over {slope:,} streams",
            "< 1 MiB per 10,000 streams",
            [resources("slope", slope, "--loop", loop) for loop in LOOPS],
            _slope,
            alone=True,
        ),
        Row(
            "cancellation",
            "cancellation seen by the server",
            "p99 <= 50 ms",
            [resources("cancellation", scaled(2_000, 20), "--loop", loop) for loop in LOOPS],
            _p99(50),
            alone=True,
        ),
        Row(
            "cancel-all",
            "all cancelled at once",
            f"{scaled(10_000, 20):,} within 2 s",
            [resources("cancel-all", scaled(10_000, 20), "--loop", loop) for loop in LOOPS],
            _cancelled,
            alone=True,
        ),
        Row(
            "fairness",
            f"one flood beside {scaled(1_000, 20):,} streams: loop lag",
            "p99 <= 5 ms",
            [resources("fairness", scaled(1_000, 20), "--loop", loop) for loop in LOOPS],
            _p99(5, "lag"),
            alone=True,
        ),
        Row(
            "stalled",
            "memory of stalled streams",
            f"{scaled(2_000, 20):,} in <= 512 MiB",
            [resources("stalled", scaled(2_000, 20), "--loop", loop) for loop in LOOPS],
            _stalled,
            alone=True,
        ),
    ]


def result(row: Row) -> tuple[bool, str]:
    """Whether the row holds, and its figure or the first complaint."""
    failed = [run for run in row.runs if run.words]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return False, failed[0].words + more
    try:
        return row.judge(row.runs)
    except (KeyError, TypeError) as missing:
        return False, f"the run printed no figure: {missing!r}"


def main() -> None:
    """Run, show progress, print the table."""
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of every number (1.0)")
    parser.add_argument("--only", action="append", help="a row's name; may be given again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    table = [row for row in rows(arguments.scale) if row.name in (arguments.only or [row.name])]
    if not table:
        parser.error("no such row")
    started, console = time.monotonic(), Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("soak", total=sum(len(row.runs) for row in table))
        for alone, jobs in ((False, arguments.jobs), (True, 1)):
            _run_all([row for row in table if row.alone == alone], jobs, progress, bar)
        progress.update(bar, description="soak")
    sys.exit(0 if _show(table, console, arguments.scale, time.monotonic() - started) else 1)


def _run_all(chosen: Sequence[Row], jobs: int, progress: Progress, bar: Any) -> None:
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        waiting = {pool.submit(run.go): row for row in chosen for run in row.runs}
        for done in as_completed(waiting):
            done.result()
            progress.update(bar, advance=1, description=waiting[done].name)


def _show(table: Sequence[Row], console: Console, scale: float, seconds: float) -> bool:
    shown = Table(title=f"soak, scale {scale:g}, {seconds:,.0f} s", title_justify="left")
    for name in ("what", "asked", "figure", ""):
        shown.add_column(name, overflow="fold")
    fine = True
    for row in table:
        holds, figure = result(row)
        fine = fine and holds
        mark = "[green]holds[/]" if holds else "[red]fails[/]"
        shown.add_row(row.what, row.asked, figure.replace("[", "\\["), mark)
    console.print(shown)
    return fine


if __name__ == "__main__":
    main()
