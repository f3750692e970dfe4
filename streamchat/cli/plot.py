"""A picture of a batch: time to first text, and throughput, over time."""

from __future__ import annotations

import importlib
import io
import os
from pathlib import Path
from typing import Any

import click

from streamchat.cli.progress import Tally

__all__ = ["checked_plotting", "plot"]

BUCKETS = 100
"""Points of the throughput's line at most."""


def checked_plotting() -> None:
    """Say before the job, not after it, what is missing.

    Raises:
        click.UsageError: matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        raise click.UsageError("--plot needs the extra: pip install 'streamchat[plot]'") from None


def plot(tally: Tally, path: Path) -> None:
    """Draw it as SVG.

    Raises:
        OSError: the file cannot be written.
    """
    figures: Any = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    first, through = figure.subplots(2, 1, sharex=True)
    milliseconds = [1000 * value for value in tally.first_texts]
    first.plot(tally.finished_at, milliseconds, ".", markersize=3)
    first.set(ylabel="time to first text, ms", title=f"{tally.done:,} answers")
    first.set_ylim(bottom=0)
    width = max(tally.seconds / BUCKETS, 1.0)
    buckets = [0.0] * (int(tally.seconds / width) + 1)
    for moment, tokens in zip(tally.finished_at, tally.tokens, strict=True):
        buckets[int(moment / width)] += tokens / width
    through.step([number * width for number in range(len(buckets))], buckets, where="post")
    through.set(ylabel="tokens/s", xlabel="seconds")
    through.set_ylim(bottom=0)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg")
    # Checked before the job; what somebody has put there since is not followed.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(drawn.getvalue())
