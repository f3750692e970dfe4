"""``streamchat batch``: a file of requests, a file of answers, and a crash in between if need be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import attrs
import click
from rich.console import Console

from streamchat import AuthenticationError, Client, FanOutResult, Limiter
from streamchat.cli.connect import connected
from streamchat.cli.outcome import EXIT_CODES, Outcome
from streamchat.cli.places import Places, unusable
from streamchat.cli.plot import checked_plotting, plot
from streamchat.cli.progress import Tally, watched
from streamchat.cli.rows import Line, error_row, read_lines, result_row
from streamchat.cli.terminal import Screen, visible_name
from streamchat.journal import Journal
from streamchat.journal.files import Lines
from streamchat.protocol.plain import encode_json

__all__ = ["batch"]

DEFAULT_MODEL = "command-a-03-2025"


@click.command(epilog=EXIT_CODES)
@click.argument("source", metavar="IN.jsonl", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    metavar="OUT.jsonl",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the answers go, a JSON row each.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Requests at once.",
)
@click.option("--rpm", type=click.FloatRange(min=0, min_open=True), help="Requests a minute.")
@click.option("--tpm", type=click.FloatRange(min=0, min_open=True), help="Tokens a minute.")
@click.option("--adaptive", is_flag=True, help="Run half as many after a 429, then slowly more.")
@click.option("--ordered", is_flag=True, help="Put the rows in the input's order in the end.")
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Do only what OUT.jsonl lacks (the default), or begin anew and replace it.",
)
@click.option(
    "--model", default=DEFAULT_MODEL, show_default=True, metavar="ID", help="For rows without one."
)
@click.option(
    "--ray",
    "cluster",
    metavar="ADDRESS|local",
    help="Spread the work over a Ray cluster; --concurrency is then that of each actor.",
)
@click.option(
    "--actors", type=click.IntRange(min=1), default=2, show_default=True, help="With --ray."
)
@click.option(
    "--plot",
    "picture",
    metavar="FILE.svg",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw time to first text and throughput over time.",
)
def batch(
    source: Path,
    out: Path,
    concurrency: int,
    rpm: float | None,
    tpm: float | None,
    adaptive: bool,
    ordered: bool,
    resume: bool,
    model: str,
    cluster: str | None,
    actors: int,
    picture: Path | None,
) -> None:
    """Answer every line of IN.jsonl: a Chat v2 body, or {"prompt": "..."}, each with an "id" of its
    own if you like.

    A row of OUT.jsonl is {"index", "id", "response", "attempts", "timing"}; index is the line's
    number from 0. Lines that are no request, and requests that failed, go to OUT.errors.jsonl and do
    not stop the job. Ctrl-C, a crash or a power failure do not harm it: the same command goes on where
    it was, and tries again what failed. OUT.jsonl.journal remembers which row answers what.

    The exit code is 0 only if every line has its answer.

    \b
    Examples:
      streamchat batch prompts.jsonl -o answers.jsonl --rpm 500 --tpm 1000000
      streamchat batch prompts.jsonl -o answers.jsonl --concurrency 500 --plot progress.svg
    """
    if picture is not None:
        checked_plotting()
    places = Places.checked(source, out, picture)

    def run(client: Client, requests: Iterator[dict[str, Any]]) -> Results:
        if cluster is None:
            return client.fan_out(
                requests,
                concurrency=concurrency,
                limiter=Limiter(rpm=rpm, tpm=tpm) if rpm or tpm else None,
                adaptive=adaptive,
            )
        from streamchat.ray import RayFanOut

        return RayFanOut(
            requests,
            actors=actors,
            per_actor=concurrency,
            limiter=Limiter(rpm=rpm, tpm=tpm) if rpm or tpm else None,
            # The server that this command would ask, which may be its own.
            client={"api_key": os.environ.get("CO_API_KEY", ""), "base_url": client.base_url},
            address=cluster,
        )

    job = Job(
        places=places,
        model=model,
        resumes=resume,
        is_ordered=ordered,
        run=run,
    )
    screen = Screen()
    with (
        asyncio.Runner() as runner,
        connected(runner, screen, None) as client,
        contextlib.closing(job),
    ):
        tally = job.prepared()
        try:
            with watched(tally) as moved:
                runner.run(job.work(client, tally, moved))
        except KeyboardInterrupt:
            screen.note("Stopped. The same command goes on from here.")
            raise
        finally:
            job.close()
            Console(stderr=True).print(tally.table(visible_name(out)))
            if places.picture is not None:
                plot(tally, places.picture)
    if tally.failed or tally.bad:
        screen.note(f"What failed, and why: {visible_name(places.errors)}")
    click.get_current_context().exit(Outcome.OK if tally.is_complete else Outcome.FAILED)


class Results(Protocol):
    """A fan-out, on this machine or on many."""

    def __aiter__(self) -> AsyncIterator[FanOutResult]: ...
    async def aclose(self) -> None:
        """Cancel what runs."""
        ...


Run = Callable[[Client, Iterator[dict[str, Any]]], Results]


@attrs.define(kw_only=True)
class Job:
    """One run of a batch."""

    places: Places
    model: str
    resumes: bool
    is_ordered: bool
    run: Run
    _opened: contextlib.ExitStack = attrs.Factory(contextlib.ExitStack)
    _journal: Journal = attrs.field(init=False)
    _errors: Lines = attrs.field(init=False)

    def prepared(self) -> Tally:
        """Read the input once, open the journal, and say what is to be done.

        Raises:
            click.BadParameter: the input cannot be read, or the output not written.
            ConfigurationError: what is there cannot be resumed; see :class:`streamchat.Journal`.
        """
        tally = Tally(0)
        keys = self._keys(tally)
        out = self.places.out
        try:
            if self.resumes:
                self._journal = Journal.resume(out, keys)
            else:
                for _ in keys:
                    pass
                self._journal = Journal.create(out, fresh=True)
        except OSError as error:
            raise unusable(error, out, "-o") from None
        self._opened.callback(self._journal.close)
        errors = self._opened.enter_context(FileIO(self.places.create_errors(), "ab"))
        self._errors = Lines(self.places.errors, errors, 0)
        tally.before = self._journal.done
        return tally

    def _keys(self, tally: Tally) -> Iterator[str]:
        for line in read_lines(self.places.source, self.model):
            tally.total += line.request is not None
            yield line.key

    def _requests(self, tally: Tally) -> Iterator[dict[str, Any]]:
        """What is left to do; each is noted before it is sent."""
        for line in read_lines(self.places.source, self.model):
            if line.request is None:
                if line.problem:
                    tally.bad += 1
                    self._note(error_row(line, line.problem))
            elif not self._journal.is_done(line.index):
                self._journal.start(line.index, line.key)
                yield {**line.request, "data": line}

    async def work(self, client: Client, tally: Tally, moved: Callable[[], None]) -> None:
        """Answer what is left.

        Raises:
            AuthenticationError: the key is refused, and would be for each of the others.
            OSError: a file cannot be written; what was written stays valid.
        """
        async with contextlib.aclosing(self.run(client, self._requests(tally))) as results:
            async for result in results:
                line: Line = result.data
                if result.response is not None:
                    self._journal.finish(result_row(line, result))
                elif result.error is not None:
                    self._note(error_row(line, result.error, result.attempts))
                tally.count(result)
                moved()
                if isinstance(result.error, AuthenticationError):
                    raise result.error
                await self._journal.sync_if_due()
        if self.is_ordered:
            self._journal.sort()

    def _note(self, row: dict[str, Any]) -> None:
        self._errors.append(encode_json(row) + b"\n")

    def close(self) -> None:
        """Force everything to the disk."""
        self._opened.close()
