"""Some hundred mutated hostile answers, on asyncio and uvloop: nothing freezes, only errors of ours.

``python -m tests.hostile.run --count 100000 --seed 1`` reads as many as there is time for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.hostile import FIGURES
from tests.hostile.answers import make
from tests.hostile.run import MOST_MIB
from tests.timed import TIMED

COUNT = 300 * int(os.environ.get("STREAMCHAT_FUZZ", "1"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "loop"), [(1, "--asyncio"), (3, "--uvloop")])
def test_mutated_answers_neither_hold_the_loop_nor_raise_what_is_not_ours(
    seed: int, loop: str
) -> None:
    """In a process of its own, for its peak of memory."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.hostile.run",
            "--count",
            str(COUNT),
            "--seed",
            str(seed),
            loop,
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    # Times count on a quiet machine alone.
    assert [
        each
        for each in result["problems"]
        if TIMED or not each["problem"].startswith(("held", "late"))
    ] == []
    assert result["count"] == COUNT
    assert result["peak_mib"] < MOST_MIB
    assert len(result["outcomes"]) > 5  # or the answers are all alike
    FIGURES.append(
        (
            f"{COUNT:,} hostile answers, {result['loop']}",
            f"loop held {result['loop_held_ms']:.0f} ms at most, peak {result['peak_mib']:.0f} MiB",
        )
    )


def test_the_same_seed_makes_the_same_answers() -> None:
    """So that a number of a report can be repeated; bodies in br and zstd need the same packages."""
    for number in range(50):
        assert make(7, number) == make(7, number)
    assert len({make(7, number).wire for number in range(50)}) > 45
