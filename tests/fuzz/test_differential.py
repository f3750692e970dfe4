"""The library and the slow reference say the same of every input."""

from __future__ import annotations

import os

import pytest

from tests.fuzz import FIGURES
from tests.fuzz.differential import is_clean, run, verdict
from tests.fuzz.inputs import Input

COUNT = 50_000
BLOCKS = 4
GROWTH = 64 * 1024
"""KiB by which the process may grow during a block: inputs are small, so it must not."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(1, BLOCKS + 1))
def test_the_library_reads_what_the_reference_reads(seed: int) -> None:
    """No difference, no exception of another library, nothing slow, nothing kept."""
    result = run(COUNT * int(os.environ.get("STREAMCHAT_FUZZ", "1")), seed)
    assert is_clean(result), result
    assert result["memory_growth_kib"] < GROWTH
    FIGURES.append(
        (
            f"inputs against the reference, seed {seed}",
            f"{result['count']:,} in {result['seconds']:.1f} s: 0 differences, 0 foreign exceptions",
        )
    )


def test_a_giant_key_costs_no_more_than_its_size() -> None:
    """A long key over many items: found by hand, it once made ``to_dict`` quadratic (1.5 s for 400 kB,
    of which 100,000 values are the most that an event may have)."""
    document = b'{"%s":[%s0]}' % (b"k" * 250_000, b"0," * 90_000)
    body = (
        b'data: {"type":"citation-start","delta":{"message":{"citations":{"start":0,"end":1,'
        b'"text":"","sources":[{"document":%s}]}}}}\n\n'
        b'data: {"type":"message-end","delta":{"finish_reason":"X"}}\n\n' % document
    )
    assert verdict(Input(body, (), None)) is None
