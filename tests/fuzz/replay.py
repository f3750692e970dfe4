"""A body through the comparison in a few chunkings that follow from its bytes."""

from __future__ import annotations

import zlib
from pathlib import Path
from random import Random

from tests.fuzz.differential import verdict
from tests.fuzz.inputs import Input, cuts

CORPUS = Path(__file__).parent / "corpus"


def cases(body: bytes) -> list[Input]:
    """Whole; cut at random; with a small limit; as JSON lines. The same body gives the same cases."""
    draw = Random(zlib.crc32(body))
    found = [Input(body, (), None), Input(body, cuts(body, draw), None)]
    if body:
        limit = draw.randint(1, min(len(body), 300))
        found.append(Input(body, cuts(body, draw), limit))
        found.append(Input(body, cuts(body, draw), limit, lines=True))
    found.append(Input(body, cuts(body, draw), None, lines=True))
    return found


def check(body: bytes) -> str | None:
    """What is wrong with a body in one of its cases; ``None`` where nothing is."""
    for case in cases(body):
        wrong = verdict(case)
        if wrong is not None:
            framing = "JSON lines" if case.lines else "event stream"
            return f"{wrong} ({framing}, cuts {case.cuts}, limit {case.limit})"
    return None
