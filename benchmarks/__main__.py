"""Run all benchmarks one after another, draw their plots, and put their tables into the READMEs.

``python -m benchmarks [--quick] [--only NAME ...] [--no-run]``

Each script runs as a process of its own, as by hand. Figures go to ``benchmarks/results/*.json``,
plots (with the extra ``plot``) to ``benchmarks/results/*.svg``, tables between the marks
``<!-- benchmark: NAME -->`` and ``<!-- /benchmark -->`` of ``README.md`` and ``benchmarks/README.md``.
``--quick`` tries all of it at small sizes and writes to a temporary folder only: such figures are worth
nothing. ``--no-run`` draws and writes again from the figures that are there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import budgets, plots
from benchmarks.harness import RESULTS, ROOT

SCRIPTS = (
    *("answers", "requests", "opening", "phases"),
    *("decode", "stream", "scale", "dispatch", "fanout"),
    *("memory", "imports", "growth", "peers"),
)
FULL: Mapping[str, Sequence[Sequence[str]]] = {
    "answers": [[], ["--loop", "uvloop"], ["--tls"], ["--loop", "uvloop", "--tls"]],
    "stream": [["--rounds", "7"]],
    "decode": [[], ["--loop", "uvloop"]],
    "scale": [["--loop", "both"]],
}
"""The arguments of each run of a script, where it is not one run without any."""
_SMALL = ["--events", "500", "--answers", "2", "--rounds", "2"]
QUICK: Mapping[str, Sequence[str]] = {
    "decode": _SMALL,
    "dispatch": _SMALL,
    "fanout": ["--streams", "100"],
    "imports": ["--rounds", "3", "--no-count"],
    "growth": ["--scale", "0.05", "--repeat", "1"],
}
"""A script that is not named here must know ``--quick``."""
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
PROGRAM = """
import pathlib, runpy, sys
from benchmarks import harness
harness.RESULTS = pathlib.Path(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""A script whose figures go to another folder."""

Results = Mapping[str, dict[str, Any]]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def main() -> None:
    """Run, draw, write; exit code 1 names the scripts that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing kept")
    parser.add_argument("--only", action="append", choices=SCRIPTS, help="this script alone")
    parser.add_argument("--no-run", action="store_true", help="draw and write from old figures")
    options = parser.parse_args()
    folder = RESULTS
    if options.quick:
        folder = Path(tempfile.mkdtemp(prefix="streamchat-benchmarks-"))
    wanted = options.only or SCRIPTS
    failed = [] if options.no_run else [name for name in wanted if not run(name, folder, options)]
    for path in plots.draw(folder):
        print(f"drawn: {path}")
    if options.quick:
        print(f"tried at small sizes; what was written is in {folder}")
    else:
        for page in PAGES:
            text, filled = fill(page.read_text(), load(folder))
            page.write_text(text)
            print(f"{page.relative_to(ROOT)}: tables written: {', '.join(filled) or 'none'}")
    if failed:
        print(f"failed: {', '.join(failed)}")
        sys.exit(1)


def run(name: str, folder: Path, options: argparse.Namespace) -> bool:
    """Run one script, in all its ways; whether all went well."""
    module = f"benchmarks.{name}"
    if importlib.util.find_spec(module) is None:
        print(f"\n== {name}: not there")
        return True
    well = True
    ways = [QUICK.get(name, ["--quick"])] if options.quick else FULL.get(name, [[]])
    for arguments in ways:
        print(f"\n== {name} {' '.join(arguments)}", flush=True)
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), module, *arguments], cwd=ROOT
        )
        print(f"-- {name}: {time.monotonic() - begin:.0f} s, exit code {done.returncode}")
        well = well and done.returncode == 0
    return well


def load(folder: Path) -> Results:
    """All figures that are there, by the name of their file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


# --- the README's tables ----------------------------------------------------------------------------


def fill(text: str, results: Results) -> tuple[str, list[str]]:
    """The text with a fresh table between each pair of marks, and whose tables those are.

    A mark without figures keeps what stands there.
    """
    filled: list[str] = []

    def fresh(mark: re.Match[str]) -> str:
        name = mark["name"]
        table = TABLES[name](results) if name in TABLES else as_written(name, results)
        if table is None:
            return mark[0]
        filled.append(name)
        return f"{mark['open']}\n{markdown(*table)}\n{mark['close']}"

    pattern = r"(?P<open><!-- benchmark: (?P<name>\w+) -->)\n.*?(?P<close><!-- /benchmark -->)"
    return re.sub(pattern, fresh, text, flags=re.DOTALL), filled


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as the README has it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines).replace("|  |", "| |")


def as_written(name: str, results: Results, key: str = "table") -> Table | None:
    """The table that a script put into its figures: ``"table": {"head": [...], "rows": [...]}``."""
    table = results.get(name, {}).get(key)
    return None if table is None else (table["head"], table["rows"])


def us(value: float) -> str:
    """Microseconds with three digits."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} us"


def decode_table(results: Results) -> Table | None:
    """An event's cost by hand, by us, by the SDK."""
    found = results.get("decode_asyncio")
    if found is None:
        return None
    clients = {"by hand": "dict loop", "streamchat": "streamchat", "official SDK": "cohere SDK"}
    shapes = {
        "large": "large chunks",
        "each": "an HTTP chunk an event",
        "spaced": "large chunks, JSON spelled in another way",
    }
    rows = []
    for shape, what in shapes.items():
        figures = found[shape]
        shown = {name: f"{value:.2f} x" for name, value in figures["ratio_to_dict_loop"].items()}
        shown |= {name: us(value) for name, value in figures.get("us_an_event", {}).items()}
        ratio = f"{figures['ratio_to_dict_loop']['streamchat']:.2f} x"
        sdk = f"1/{figures['sdk_over_streamchat']:.0f}"
        rows.append([what, *[shown[client] for client in clients.values()], ratio, sdk])
    return ["", *clients, "to by hand", "to the SDK"], rows


def dispatch_table(results: Results) -> Table | None:
    """What each kind of listener adds."""
    found = results.get("dispatch")
    if found is None:
        return None
    return ["what listens", "an event", "more"], [
        [name, us(cost), f"{found['us_more_than_no_handler'][name]:+.2f} us"]
        for name, cost in found["us_an_event"].items()
    ]


def fanout_table(results: Results) -> Table | None:
    """Thousands of streams, on both loops."""
    found = results.get("fanout")
    if found is None:
        return None
    return ["streams", "loop", "open at once", "lost", "CPU", "each"], [
        [
            f"{row['streams']:,}",
            loop,
            f"{row['open at once']:,}",
            f"{row['lost']:,}",
            f"{row['CPU, s']:.1f} s",
            f"{row['KiB a stream']:.1f} KiB",
        ]
        for loop in ("asyncio", "uvloop")
        for row in found.get(loop, {}).get("rows", ())
    ]


def answers_table(results: Results) -> Table | None:
    """Whole answers, on each loop and wire that was measured."""
    files = {
        ("asyncio", "plain"): "answers_asyncio",
        ("uvloop", "plain"): "answers_uvloop",
        ("asyncio", "TLS"): "answers_asyncio_tls",
        ("uvloop", "TLS"): "answers_uvloop_tls",
    }
    tables = {way: results[name]["table"] for way, name in files.items() if name in results}
    if not tables:
        return None
    head = next(iter(tables.values()))["head"]
    return [*head[:2], "loop", "wire", *head[2:]], [
        [*row[:2], *way, *row[2:]] for way, table in tables.items() for row in table["rows"]
    ]


def profiles_table(results: Results) -> Table | None:
    """The functions of ours with the most time of their own, in three steps of an answer."""
    found = results.get("phases", {}).get("profiles", {})
    if not found:
        return None
    source = "recordings" if "recordings" in found else next(iter(found))
    return ["step", "function", "calls", "own", "with callees"], [
        [step, f"`{x['function']}`", f"{x['calls']:.1f}", us(x["own_us"]), us(x["total_us"])]
        for step, functions in found[source].items()
        for x in functions
    ]


TABLES: Mapping[str, Callable[[Results], Table | None]] = {
    "budgets": budgets.table,
    "answers": answers_table,
    "request_growth": lambda results: as_written("requests", results, "growth_table"),
    "waiting": lambda results: as_written("opening", results, "waiting_table"),
    "storms": lambda results: as_written("opening", results, "storms_table"),
    "profiles": profiles_table,
    "decode": decode_table,
    "dispatch": dispatch_table,
    "fanout": fanout_table,
}


if __name__ == "__main__":
    main()
