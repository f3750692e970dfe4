"""What does an event cost in other clients? Each on its own wire, in its own virtual environment.

``python -m benchmarks.peers [--events 2000] [--answers 5] [--rounds 5] [--quick]``

The same text comes as Cohere, OpenAI and Anthropic send it (``benchmarks/wires.py``), and each client reads
it as its documentation shows it (``benchmarks/peer_clients.py``); an answer that is not complete fails. A
frame differs in bytes from wire to wire, a delta is a delta: the cost is told for each delta of text. The
environments are kept in ``.bench-venvs``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
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

SHAPES = {"large": "large chunks", "each": "an HTTP chunk an event"}
ENVIRONMENTS = ROOT / ".bench-venvs"


@attrs.frozen
class Peer:
    """A client that is compared."""

    name: str
    wire: str
    requirements: tuple[str, ...]


PEERS = (
    Peer("streamchat", "cohere", ()),
    Peer("cohere", "cohere", ("cohere==7.3.1",)),
    Peer("openai", "openai", ("openai==3.57.0",)),
    Peer("anthropic", "anthropic", ("anthropic==2.14.0",)),
    Peer("httpx-sse", "cohere", ("httpx-sse==0.4.3", "httpx==0.28.1")),
)


def main() -> None:
    """Measure, print the table, and write ``results/peers.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000, help="text deltas an answer")
    parser.add_argument("--answers", type=int, default=5, help="answers a measurement")
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
    results: dict[str, Any] = {"us_an_event": {}, "ratio_to_streamchat": {}, "import_ms": {}}
    with far_side(answers) as far:
        for shape in SHAPES:
            rounds = []
            for round_ in range(options.rounds):
                found = {
                    name: _once(far, peers[name], pythons[name], shape, texts, options)
                    for name in in_turns(list(peers), round_)
                }
                rounds.append({name: found[name] for name in peers})
            costs = [{name: one[name]["seconds"] for name in peers} for one in rounds]
            per_event = options.answers * options.events / 1e6
            results["us_an_event"][shape] = {
                name: statistics.median(one[name] for one in costs) / per_event for name in peers
            }
            results["ratio_to_streamchat"][shape] = median_ratios(costs, "streamchat")
            results["import_ms"] = {
                name: statistics.median(one[name]["import_s"] for one in rounds) * 1000
                for name in peers
            }
    head = ["client", "wire", "large chunks", "", "an HTTP chunk an event", "", "import, CPU"]
    rows = [_row(peer, results) for peer in peers.values()]
    missing = [peer.name for peer in PEERS if peer.name not in peers]
    rows += [[name, "could not be installed", *[""] * 5] for name in missing]
    print("us of CPU a text delta, and times streamchat's")
    print_table(head, rows)
    given = {key: value for key, value in vars(options).items() if key != "quick"}
    table = {"head": head, "rows": rows}
    write_results("peers", {**given, **results, "table": table}, quick=options.quick)


def _row(peer: Peer, results: dict[str, Any]) -> list[str]:
    cells = [" ".join(peer.requirements).replace("==", " ") or peer.name, peer.wire]
    for shape in SHAPES:
        cells += [
            f"{results['us_an_event'][shape][peer.name]:.2f} us",
            f"{results['ratio_to_streamchat'][shape][peer.name]:.1f} x",
        ]
    return [*cells, f"{results['import_ms'][peer.name]:.0f} ms"]


def _once(
    far: Far,
    peer: Peer,
    python: str,
    shape: str,
    texts: list[str],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """CPU seconds of a fresh process."""
    arguments = (f"{peer.wire}-{shape}", str(options.answers), str(sum(map(len, texts))))
    return run_client("benchmarks.peer_clients", peer.name, far.url, *arguments, python=python)


def _python(peer: Peer) -> str | None:
    """The interpreter that has this client; its environment is made if it is not there."""
    if not peer.requirements:
        return sys.executable
    folder = ENVIRONMENTS / "-".join(x.replace("==", "-") for x in peer.requirements)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = folder / "ready"
    if not ready.exists():
        print(f"making {folder.relative_to(ROOT)}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        done = _installed(python, peer.requirements)
        if not done:
            return None
        ready.touch()
    return str(python)


def _installed(python: Path, requirements: tuple[str, ...]) -> bool:
    command = [str(python), "-m", "pip", "install", "-q", *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1:])
    return done.returncode == 0


if __name__ == "__main__":
    main()
