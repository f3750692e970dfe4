"""What does an event cost in other clients? Each on its own wire, in its own virtual environment.

``python -m benchmarks.peers [--events 5000] [--answers 3] [--rounds 5] [--quick]``

The same text comes as Cohere, OpenAI and Anthropic send it (``benchmarks/wires.py``), and each client reads
it as its documentation shows it (``benchmarks/peer_clients.py``); an answer that is not complete fails. A
frame differs in bytes from wire to wire, a delta is a delta: the cost is told for each delta of text. The
environments are kept in ``.bench-venvs``; streamchat and the loop by hand run in this interpreter.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import venv
from typing import Any

import attrs

from benchmarks import wires
from benchmarks.far import Far, far_side
from benchmarks.harness import (
    ROOT,
    chunked,
    in_turns,
    median_ratios,
    print_table,
    run_client,
    write_results,
)
from benchmarks.imports import TIMED

SHAPES = {"large": "64 KiB chunks", "each": "an HTTP chunk an event"}
ENVIRONMENTS = ROOT / ".bench-venvs"


@attrs.frozen
class Peer:
    """A client that is compared."""

    name: str
    wire: str
    packages: tuple[str, ...]
    """What the table names, with their versions."""
    statement: str
    """What is timed as its import: the client's class, as some packages import the rest when asked."""
    requirements: tuple[str, ...] = ()
    """What its environment is made of; none: this interpreter."""


PEERS = (
    Peer("streamchat", "cohere", ("streamchat",), "from streamchat import Client"),
    Peer("dict loop", "cohere", ("aiohttp", "orjson"), "import aiohttp, orjson"),
    Peer(
        "httpx-sse",
        "cohere",
        ("httpx", "httpx-sse"),
        "import httpx, httpx_sse, json",
        ("httpx==0.28.1", "httpx-sse==0.4.3"),
    ),
    Peer("cohere", "cohere", ("cohere",), "from cohere import AsyncClientV2", ("cohere==7.3.1",)),
    Peer("openai", "openai", ("openai",), "from openai import AsyncOpenAI", ("openai==3.57.0",)),
    Peer(
        "anthropic",
        "anthropic",
        ("anthropic",),
        "from anthropic import AsyncAnthropic",
        ("anthropic==2.14.0",),
    ),
)


def main() -> None:
    """Measure, print the table, and write ``results/peers.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000, help="text deltas an answer")
    parser.add_argument("--answers", type=int, default=3, help="answers a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians of them")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.events, options.answers, options.rounds = 200, 2, 1
    pythons = {peer.name: python for peer in PEERS if (python := _python(peer)) is not None}
    peers = {peer.name: peer for peer in PEERS if peer.name in pythons}
    texts = wires.text(options.events)
    answers = {
        f"{wire}-{shape}": chunked(make(texts), 64 * 1024 if shape == "large" else None)
        for wire, make in wires.WIRES.items()
        for shape in SHAPES
    }
    results: dict[str, Any] = {"us_an_event": {}, "ratio_to_streamchat": {}, "rounds_us": {}}
    ran_on: dict[str, Any] = {}
    with far_side(answers) as far:
        for shape in SHAPES:
            rounds: list[dict[str, float]] = []
            for round_ in range(options.rounds):
                costs = {}
                for name in in_turns(list(peers), round_):
                    found = _once(far, peers[name], pythons[name], shape, options)
                    costs[name] = found.pop("seconds") / options.answers / options.events * 1e6
                    ran_on[name] = found
                rounds.append({name: costs[name] for name in peers})
            results["us_an_event"][shape] = {
                name: statistics.median(one[name] for one in rounds) for name in peers
            }
            results["ratio_to_streamchat"][shape] = median_ratios(rounds, "streamchat")
            results["rounds_us"][shape] = rounds
    results["import_ms"] = _imports(peers, pythons, options.rounds)
    results["peers"] = {name: {"wire": peer.wire, **ran_on[name]} for name, peer in peers.items()}
    head = ["client", "wire", "64 KiB chunks", "", "an HTTP chunk an event", "", "import, CPU"]
    rows = [_row(peer, results) if peer.name in peers else _missing(peer) for peer in PEERS]
    print("us of CPU a text delta, and times streamchat's")
    print_table(head, rows)
    given = {key: value for key, value in vars(options).items() if key != "quick"}
    table = {"head": head, "rows": rows}
    write_results("peers", {**given, **results, "table": table}, quick=options.quick)


def _once(
    far: Far, peer: Peer, python: str, shape: str, options: argparse.Namespace
) -> dict[str, Any]:
    """CPU seconds of a fresh process, and what it ran on."""
    arguments = (peer.name, f"{far.url}/{peer.wire}-{shape}", options.events, options.answers)
    return run_client("benchmarks.peer_clients", *map(str, arguments), python=python, env=far.env)


def _imports(peers: dict[str, Peer], pythons: dict[str, str], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU of an import in a fresh process that has imported nothing before."""
    found: dict[str, list[float]] = {name: [] for name in peers}
    for round_ in range(rounds + 1):
        for name in in_turns(list(peers), round_):
            program = TIMED.format(statement=peers[name].statement)
            done = subprocess.run(
                [pythons[name], "-c", program],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                cwd=ROOT,
            )
            if round_:  # in the first one, modules are compiled
                found[name].append(float(done.stdout.split()[1]) * 1000)
    return {name: statistics.median(times) for name, times in found.items()}


def _row(peer: Peer, results: dict[str, Any]) -> list[str]:
    versions = results["peers"][peer.name]["packages"]
    label = ", ".join(f"{package} {versions[package]}" for package in peer.packages)
    cells = [label if peer.name in peer.packages else f"{peer.name}: {label}", peer.wire]
    for shape in SHAPES:
        cost = results["us_an_event"][shape][peer.name]
        ratio = results["ratio_to_streamchat"][shape][peer.name]
        cells += [
            f"{cost:.{0 if cost >= 100 else 1 if cost >= 10 else 2}f} us",
            f"{ratio:.{1 if ratio >= 10 else 2}f} x",
        ]
    return [*cells, f"{results['import_ms'][peer.name]:.0f} ms"]


def _missing(peer: Peer) -> list[str]:
    wanted = ", ".join(peer.requirements).replace("==", " ")
    return [wanted, peer.wire, "could not be installed", *[""] * 4]


def _python(peer: Peer) -> str | None:
    """The interpreter that has this client, or none; its environment is made if it is not there."""
    if not peer.requirements:
        return sys.executable
    folder = ENVIRONMENTS / peer.name
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    ready = folder / "ready"
    made_of = "\n".join((platform.python_version(), *peer.requirements))
    if ready.is_file() and ready.read_text() == made_of:
        return python
    print(f"making {folder.relative_to(ROOT)}", flush=True)
    try:
        venv.create(folder, with_pip=True, clear=True)
        command = [
            python,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            *peer.requirements,
        ]
        subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"{peer.name} could not be installed: {said.strip().splitlines()[-1]}")
        return None
    ready.write_text(made_of)
    return python


if __name__ == "__main__":
    main()
