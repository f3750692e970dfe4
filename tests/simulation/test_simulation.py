"""Whole lives of streams, drawn from seeds: R1, R2, R3 and R6 of faults.md on a virtual clock.

A failing seed is in the message; ``python -m tests.simulation.run --seed N`` replays it with a trace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation import FIGURES, tally
from tests.simulation.world import Broken, World, describe, quiet_collector, run_seed

SEEDS, BLOCK = int(os.environ.get("STREAMCHAT_SEEDS", "2000")), 100
SINCE = int(os.environ.get("STREAMCHAT_FIRST_SEED", "0"))


FIRSTS = range(SINCE, SINCE + SEEDS, BLOCK)


@pytest.mark.parametrize("first", FIRSTS)
def test_every_seed_keeps_every_promise(
    first: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One end, an exact prefix, the attempts and times of the policy, and nothing left."""
    counts: Counter[str] = Counter()
    broken: list[str] = []
    with quiet_collector():
        for seed in range(first, first + BLOCK):
            try:
                counts += run_seed(seed)
            except Broken as error:
                broken.append(str(error))
    counts["broken seeds"] = len(broken)
    total = tally(tmp_path_factory, "seeds", str(first), counts, len(FIRSTS))
    if total is not None:
        ends = len(set(total) - {"streams", "asked again", "broken seeds"})
        text = f"{SEEDS:,}: {total['streams']:,} streams, {ends} kinds of end"
        FIGURES.append(("simulation seeds", f"{text}, {total['broken seeds']} broken"))
    assert not broken, "\n".join(broken)


def test_seeds_meet_every_kind_of_end() -> None:
    """The worlds are worth running: every class of error that a network can cause occurs."""
    counts: Counter[str] = Counter()
    for seed in range(1200):
        counts += run_seed(seed)
    missing = {
        "complete",
        "CancelledError",
        "TimeoutError",
        "HandlerError",
        "GenerationError",
        "DecodeError",
        "FrameTooLargeError",
        "UnexpectedContentTypeError",
        "TruncatedStreamError",
        "TransportError reset",
        "TransportError closed",
        "ConnectError certificate",
        "ConnectError refused",
        "StreamTimeoutError connect",
        "StreamTimeoutError first_event",
        "StreamTimeoutError idle",
        "StreamTimeoutError total",
        "RateLimitError 429",
        "ServerError 503",
        "StatusError 307",
    } - set(counts)
    assert not missing, f"never seen: {missing}; seen: {counts}"


def test_a_seed_is_the_same_each_time() -> None:
    """The same seed gives the same world, the same trace and the same ends."""
    for seed in (1, 18, 42):
        traces = []
        for _ in range(2):
            world = World(seed, tracing=True)
            traces.append((describe(seed), world.run(), world.trace))
        assert traces[0] == traces[1]


def test_the_command_counts_a_range() -> None:
    """``python -m tests.simulation.run --seeds A B`` prints counts as JSON: what the soak reads."""
    command = [sys.executable, "-m", "tests.simulation.run", "--seeds", "5", "15"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=50)
    report = json.loads(done.stdout.splitlines()[0])
    assert (done.returncode, report["broken"], report["counts"]["seeds"]) == (0, 0, 10)


MUTANTS = {
    "an event is lost": ("streamchat.protocol.reader", "EventReader", "split", "lose"),
    "an event comes twice": ("streamchat.protocol.reader", "EventReader", "split", "double"),
    "nothing is closed": ("streamchat.source", "Source", "close", "skip"),
    "timers stay": ("streamchat.watchdog", "Watchdog", "stop", "skip"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_oracle_sees_what_is_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library with a fault does not pass: lost or doubled events, an open socket, a timer."""
    module, owner, method, what = MUTANTS[name]
    target = getattr(sys.modules[module], owner)
    original = getattr(target, method)

    def faulty(self: object, *args: object) -> object:
        if what == "skip":
            return None
        blocks = original(self, *args)
        return blocks[:1] + blocks[2:] if what == "lose" else blocks + blocks[-1:]

    monkeypatch.setattr(target, method, faulty)
    broken = 0
    for seed in range(30):
        try:
            run_seed(seed)
        except Broken:
            broken += 1
    monkeypatch.undo()
    assert broken > 3
