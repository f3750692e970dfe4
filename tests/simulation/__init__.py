"""The stream in a simulated world: seeds, every suspension point, and a state machine."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping

import pytest

FIGURES: list[tuple[str, str]] = []
"""What was measured, as (name, figure); pytest's summary prints it."""


def tally(
    factory: pytest.TempPathFactory, name: str, part: str, counts: Mapping[str, int], parts: int
) -> Counter[str] | None:
    """Write one part's counts down; the sum once all parts are there, whichever process ran them."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"tally-{name}"
    folder.mkdir(exist_ok=True)
    written = folder / f"{part}.part"
    written.write_text(json.dumps(dict(counts)))
    written.rename(written.with_suffix(".json"))
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sum(map(Counter, found), Counter()) if len(found) == parts else None
