"""How far a batch is: a bar on a terminal, now and then a line elsewhere, a table at the end."""

from __future__ import annotations

import statistics
import sys
import time
from array import array
from collections.abc import Callable, Generator
from contextlib import contextmanager

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from streamchat import FanOutResult
from streamchat.stops import MOST_TOKENS

__all__ = ["Tally", "watched"]

EVERY_SECONDS = 10.0
"""How often a line is written where there is no terminal."""


def counted(tokens: float | None) -> float:
    """A server's count of tokens; 0 for none, and for what cannot be one."""
    return tokens if tokens is not None and 0 <= tokens <= MOST_TOKENS else 0


@attrs.define
class Tally:
    """What has come of a batch so far."""

    total: int
    """Requests in the input, bad lines left out."""
    before: int = 0
    """Done by an earlier run."""
    done: int = 0
    """Answered now."""
    failed: int = 0
    """Not answered."""
    bad: int = 0
    """Lines that are no request."""
    retries: int = 0
    """Requests sent again."""
    input_tokens: float = 0
    output_tokens: float = 0
    clock: Callable[[], float] = time.monotonic
    started: float = attrs.field(init=False)
    finished_at: array[float] = attrs.Factory(lambda: array("d"))
    """Of each answer: seconds from the start."""
    first_texts: array[float] = attrs.Factory(lambda: array("d"))
    """Of each answer: seconds to its first text; NaN for one without text."""
    tokens: array[float] = attrs.Factory(lambda: array("d"))
    """Of each answer: its tokens."""

    def __attrs_post_init__(self) -> None:
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self.clock() - self.started

    @property
    def is_complete(self) -> bool:
        """Whether each line of the input has its answer."""
        return self.before + self.done == self.total and not self.bad

    def count(self, result: FanOutResult) -> None:
        """Add one result."""
        self.retries += max(0, result.attempts - 1)
        if result.response is None:
            self.failed += 1
            return
        self.done += 1
        counts = result.response.usage.tokens
        self.input_tokens += counted(counts.input_tokens)
        self.output_tokens += (taken := counted(counts.output_tokens))
        first = result.timing.first_text
        self.finished_at.append(self.seconds)
        self.first_texts.append(float("nan") if first is None else first)
        self.tokens.append(taken)

    def first_text(self, percent: int) -> float | None:
        """A percentile of the time to first text, seconds; ``None`` before there are two."""
        known = [value for value in self.first_texts if value == value]
        if len(known) < 2:
            return known[0] if known else None
        return statistics.quantiles(known, n=100, method="inclusive")[percent - 1]

    def line(self) -> str:
        """Where it stands, in one line."""
        seconds = max(self.seconds, 1e-9)
        recent = self.first_texts[-1] if self.first_texts else float("nan")
        first = f", first text {1000 * recent:.0f} ms" if recent == recent else ""
        left = self.total - self.before - self.done - self.failed
        rate = (self.done + self.failed) / seconds
        eta = f", {left / rate:.0f} s left" if rate and left else ""
        return (
            f"{self.before + self.done} of {self.total} done, {self.failed} failed, "
            f"{self.output_tokens:.0f} tokens, {self.output_tokens / seconds:.0f} tokens/s{first}{eta}"
        )

    def table(self, title: str) -> Table:
        """What came of it all; the title is shown as it is, not as markup."""
        table = Table(title=Text(title), title_justify="left", show_header=False)
        seconds = max(self.seconds, 1e-9)
        rows: list[tuple[str, str]] = [
            ("answered", f"{self.done:,}"),
            ("answered by earlier runs", f"{self.before:,}"),
            ("failed", f"{self.failed:,}"),
            ("bad lines", f"{self.bad:,}"),
            ("sent again", f"{self.retries:,}"),
            ("tokens in, out", f"{self.input_tokens:,.0f}, {self.output_tokens:,.0f}"),
            ("seconds", f"{seconds:,.1f}"),
            (
                "answers/s, tokens/s",
                f"{self.done / seconds:,.1f}, {self.output_tokens / seconds:,.0f}",
            ),
        ]
        median, late = self.first_text(50), self.first_text(95)
        if median is not None and late is not None:
            rows.append(("first text, p50, p95", f"{1000 * median:,.0f} ms, {1000 * late:,.0f} ms"))
        for name, figure in rows:
            table.add_row(name, figure)
        return table


@contextmanager
def watched(tally: Tally) -> Generator[Callable[[], None]]:
    """What to call after each result: it keeps a bar on a terminal, or writes lines, on stderr."""
    if sys.stderr is not None and sys.stderr.isatty():
        with _bar(tally) as moved:
            yield moved
        return
    last = tally.started

    def told() -> None:
        nonlocal last
        if tally.clock() - last >= EVERY_SECONDS:
            last = tally.clock()
            _print(tally.line())

    yield told
    _print(tally.line())


def _print(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextmanager
def _bar(tally: Tally) -> Generator[Callable[[], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=tally.total, completed=tally.before)

        def moved() -> None:
            progress.update(
                task,
                completed=tally.before + tally.done + tally.failed,
                description=tally.line().partition(" done, ")[2].partition(" s left")[0],
            )

        moved()
        yield moved
