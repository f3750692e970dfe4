"""The fuzzer's corpus, replayed without the fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import FIGURES
from tests.fuzz.make_corpus import bodies
from tests.fuzz.replay import CORPUS, cases, check

FILES = sorted(path for path in CORPUS.iterdir() if path.suffix in (".sse", ".jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_body_of_the_corpus_reads_as_the_reference_says(path: Path) -> None:
    """Whole, in pieces, under a small limit, as JSON lines: the same frames, events, failures, answer."""
    assert check(path.read_bytes()) is None


def test_the_corpus_is_whole_and_small() -> None:
    """What ``make_corpus`` writes is there, and all of it together stays small."""
    for name, body in bodies():
        # What is drawn may be drawn in another way by another Python.
        assert (CORPUS / name).read_bytes() == body or name.startswith("bent-")
    assert sum(path.stat().st_size for path in FILES) < 200_000
    runs = sum(len(cases(path.read_bytes())) for path in FILES)
    FIGURES.append(("fuzz corpus", f"{len(FILES)} bodies, {runs} runs"))
