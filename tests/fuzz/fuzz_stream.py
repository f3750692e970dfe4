"""Coverage-guided fuzzing of the same comparison (needs ``atheris``, which is no test dependency)::

    python tests/fuzz/fuzz_stream.py tests/fuzz/corpus -max_total_time=60

An input is a body; how it is cut into chunks follows from its bytes, so that an input is a file and
a finding replays. A finding is written by libFuzzer as ``crash-...``; put it into the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["streamchat.protocol"]):
    from tests.fuzz.replay import check


def one_input(data: bytes) -> None:
    """One run: any difference, foreign exception or slowness is a crash."""
    wrong = check(data)
    if wrong is not None:
        raise AssertionError(wrong)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
