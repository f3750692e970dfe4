"""``streamchat batch``: a file of requests, a file of answers, and a crash in between if need be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from io import FileIO
from typing import Any, Protocol

import attrs
import click
from click.core import ParameterSource
from rich.console import Console

from streamchat import (
    AuthenticationError,
    Client,
    FanOutResult,
    InvalidTokenError,
    Limiter,
    PaymentRequiredError,
    PermissionDeniedError,
    Stop,
    StopReachedError,
)
from streamchat.cli.connect import connected
from streamchat.cli.options import FiniteRange
from streamchat.cli.outcome import EXIT_CODES, Outcome, report
from streamchat.cli.outputs import JournalOutput, Output, StreamOutput, opened_stream
from streamchat.cli.places import Places, unusable
from streamchat.cli.plot import checked_plotting, plot
from streamchat.cli.progress import Tally, watched
from streamchat.cli.rows import Line, error_row, read_lines, result_row
from streamchat.cli.sources import Source
from streamchat.cli.terminal import Screen, visible_name
from streamchat.credentials import key_in
from streamchat.journal import Journal
from streamchat.journal.files import Lines
from streamchat.protocol.models import DEFAULT_MODEL
from streamchat.protocol.plain import encode_json, repair_surrogates
from streamchat.stops import StopCount

__all__ = ["batch"]

POINTLESS = (AuthenticationError, PaymentRequiredError, PermissionDeniedError, InvalidTokenError)
"""What would be said of every other request too."""
DEMO = "the demo server"
"""How the journal names it: its port changes."""


@click.command(epilog=EXIT_CODES)
@click.argument("source", metavar="IN.jsonl", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    metavar="OUT.jsonl",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Where the answers go, a JSON row each; - is stdout.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Requests at once.",
)
@click.option("--rpm", type=FiniteRange(min=1), help="Requests a minute.")
@click.option("--tpm", type=FiniteRange(min=1), help="Tokens a minute.")
@click.option("--adaptive", is_flag=True, help="Run half as many after a 429, then slowly more.")
@click.option("--ordered", is_flag=True, help="Put the rows in the input's order in the end.")
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Do only what OUT.jsonl lacks (the default), or begin anew and replace it.",
)
@click.option("--demo", is_flag=True, help="Let the demo model on this machine answer.")
@click.option(
    "--deadline",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Take no further line after so long.",
)
@click.option(
    "--max-tokens-total",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take no further line once the answers have used so many tokens.",
)
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take no further line once so many requests have failed.",
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
    type=click.Path(dir_okay=False),
    help="Draw time to first text and throughput over time.",
)
@click.pass_context
def batch(
    ctx: click.Context,
    source: str,
    out: str,
    concurrency: int,
    rpm: float | None,
    tpm: float | None,
    adaptive: bool,
    ordered: bool,
    resume: bool,
    demo: bool,
    deadline: float | None,
    max_tokens_total: int | None,
    max_failures: int | None,
    model: str,
    cluster: str | None,
    actors: int,
    picture: str | None,
) -> None:
    """Answer every line of IN.jsonl: a Chat v2 body, or {"prompt": "..."}, each with an "id" of its
    own if you like.

    A row of OUT.jsonl is {"index", "id", "response", "attempts", "timing"}; index is the line's
    number from 0. Lines that are no request, and requests that failed, go to OUT.errors.jsonl and do
    not stop the job. Ctrl-C, a crash or a power failure do not harm it: the same command goes on where
    it was, and tries again what failed. OUT.jsonl.journal remembers which row answers what, and which
    server answered.

    IN.jsonl may be - for stdin, a pipe, or compressed (gzip, zstd); OUT.jsonl is compressed if its name
    ends with .gz or .zst. To stdout (-), a FIFO or a device rows go as they come: there is nothing to
    resume, and errors go to stderr.

    A refused key (401, 402, 403, 498) ends the job, as do the limits of --deadline,
    --max-tokens-total and --max-failures: requests that run end first, and the same command goes on.

    The exit code is 0 only if every line has its answer.

    \b
    Examples:
      streamchat batch prompts.jsonl -o answers.jsonl --rpm 500 --tpm 1000000
      streamchat batch prompts.jsonl -o answers.jsonl --concurrency 500 --plot progress.svg
      zcat prompts.jsonl.gz | streamchat batch - -o answers.jsonl.gz --max-failures 100
    """
    if picture is not None:
        checked_plotting()
    places = Places.checked(source, out, picture)
    if ordered and places.is_stream and cluster is not None:
        raise click.UsageError("--ray with --ordered needs a file to sort: name one with -o")
    stop = Stop(deadline, max_tokens_total, max_failures, POINTLESS)
    limiter = Limiter(rpm=rpm, tpm=tpm) if rpm or tpm else None

    def run(client: Client, requests: Iterator[dict[str, Any]]) -> Results:
        if cluster is None:
            return client.fan_out(
                requests,
                concurrency=concurrency,
                ordered=ordered and places.is_stream,
                limiter=limiter,
                adaptive=adaptive,
                stop=stop,
            )
        from streamchat.ray import RayFanOut

        count = StopCount(stop)
        results = RayFanOut(
            until_stopped(requests, count),
            actors=actors,
            per_actor=concurrency,
            limiter=limiter,
            # The server that this command would ask, which may be its own.
            client={
                "api_key": "" if demo else key_in(os.environ),
                "base_url": client.base_url,
            },
            address=cluster,
        )
        return counted(results, count)

    job = Job(places=places, model=model, is_ordered=ordered, run=run)
    screen = Screen(answers=places.out is None)
    with (
        asyncio.Runner() as runner,
        connected(runner, screen, None, demo=demo) as client,
        contextlib.closing(job),
    ):
        tally = job.prepared(
            screen,
            answerer=DEMO if demo else client.base_url,
            resumes=resume,
            # Said, and not only the default.
            adopts=ctx.get_parameter_source("resume") is ParameterSource.COMMANDLINE,
        )
        stopped: StopReachedError | None = None
        try:
            with watched(tally) as moved:
                stopped = runner.run(job.work(client, tally, moved))
        except KeyboardInterrupt:
            screen.note(
                "Stopped." if places.is_stream else "Stopped. The same command goes on from here."
            )
            raise
        finally:
            job.close()
            Console(stderr=True).print(tally.table(places.title))
            if places.picture is not None:
                plot(tally, places.picture)
    if (tally.failed or tally.bad) and places.errors is not None:
        screen.note(f"What failed, and why: {visible_name(places.errors)}")
    if stopped is not None and not tally.is_complete:
        if isinstance(stopped.__cause__, Exception):
            report(stopped.__cause__)
        report(stopped)
    ctx.exit(Outcome.OK if tally.is_complete else Outcome.FAILED)


class Results(Protocol):
    """A fan-out, on this machine or on many."""

    def __aiter__(self) -> AsyncIterator[FanOutResult]: ...
    def aclose(self) -> Awaitable[None]:
        """Cancel what runs."""
        ...


Run = Callable[[Client, Iterator[dict[str, Any]]], Results]


def until_stopped(requests: Iterator[dict[str, Any]], count: StopCount) -> Iterator[dict[str, Any]]:
    """The requests, until a limit is reached."""
    for request in requests:
        count.check_time()
        if count.reason:
            return
        yield request


async def counted(results: Results, count: StopCount) -> AsyncGenerator[FanOutResult, None]:
    """The results, and in the end the error of the limit that was reached."""
    count.begin()
    try:
        async for result in results:
            count.add(result.response, result.error)
            yield result
    finally:
        await results.aclose()
    if count.reason:
        raise count.error()


@attrs.define(kw_only=True)
class Job:
    """One run of a batch."""

    places: Places
    model: str
    is_ordered: bool
    run: Run
    _opened: contextlib.ExitStack = attrs.Factory(contextlib.ExitStack)
    _source: Source = attrs.field(init=False)
    _output: Output = attrs.field(init=False)
    _errors: Lines | None = None
    _screen: Screen = attrs.field(init=False)

    def prepared(self, screen: Screen, *, answerer: str, resumes: bool, adopts: bool) -> Tally:
        """Read the input once, open the output, and say what is to be done.

        Args:
            screen: for notes, and for rows and errors that go nowhere else.
            answerer: who answers; rows of another one are refused.
            resumes: whether to go on with what is there, or to begin anew.
            adopts: whether to take rows of which is not known who answered.

        Raises:
            click.BadParameter: the input cannot be read, or the output not written.
            ConfigurationError: what is there cannot be resumed; see :class:`streamchat.Journal`.
        """
        tally, self._screen = Tally(0), screen
        self._source = Source.open(self.places.source, self._opened)
        if self.places.is_stream:
            for _ in self._keys(tally):
                pass
            self._output = self._stream()
            self._opened.callback(self._output.close)
            return tally
        out = self.places.out
        assert out is not None
        try:
            if resumes:
                journal = Journal.resume(out, self._keys(tally), source=answerer, adopts=adopts)
            else:
                for _ in self._keys(tally):
                    pass
                journal = Journal.create(out, fresh=True, source=answerer)
        except OSError as error:
            raise unusable(error, out, "-o") from None
        self._output = JournalOutput(journal)
        self._opened.callback(self._output.close)
        if (path := self.places.errors) is not None:
            file = self._opened.enter_context(FileIO(self.places.create_errors(path), "ab"))
            self._errors = Lines(path, file, 0)
        if journal.dropped:
            screen.note(
                f"{journal.dropped} rows answer no line of this input: they were taken out."
            )
        tally.before = journal.done
        return tally

    def _stream(self) -> StreamOutput:
        if self.places.out is None:
            shown = self._screen.out if self._screen.out.is_terminal else None
            return StreamOutput(1, is_owned=False, screen=shown)
        try:
            return opened_stream(self.places.out)
        except OSError as error:
            raise unusable(error, self.places.out, "-o") from None

    def _keys(self, tally: Tally) -> Iterator[str]:
        for line in read_lines(self._source.lines(), self.model):
            tally.total += line.request is not None
            yield line.key

    def _requests(self, tally: Tally) -> Iterator[dict[str, Any]]:
        """What is left to do; each is noted before it is sent."""
        for line in read_lines(self._source.lines(), self.model):
            if line.request is None:
                if line.problem:
                    tally.bad += 1
                    self._note(error_row(line, line.problem))
            elif not self._output.is_done(line.index):
                self._output.start(line.index, line.key)
                yield {**line.request, "data": line}

    async def work(
        self, client: Client, tally: Tally, moved: Callable[[], None]
    ) -> StopReachedError | None:
        """Answer what is left; returns why no more was taken, if a limit was reached.

        Raises:
            OSError: a file cannot be written; what was written stays valid.
        """
        try:
            async with contextlib.aclosing(self.run(client, self._requests(tally))) as results:
                async for result in results:
                    await self._put(result, tally)
                    moved()
        except StopReachedError as stopped:
            return stopped
        except OSError as error:
            if error.filename is None and not isinstance(error, BrokenPipeError):
                error.filename = self.places.title
            raise
        self._output.finish(sort=self.is_ordered)
        return None

    async def _put(self, result: FanOutResult, tally: Tally) -> None:
        """Write what became of a request."""
        line: Line = result.data
        if isinstance(result.error, StopReachedError):
            return  # it was not sent, and the next run does it
        if result.response is not None:
            try:
                await self._output.put(result_row(line, result))
            except (TypeError, ValueError) as error:
                # The server said what JSON cannot: the text is kept, the rest is not lost silently.
                unwritable = error_row(line, f"the answer cannot be written: {error}")
                unwritable |= {"error": type(error).__name__, "attempts": result.attempts}
                unwritable["partial"] = {"text": repair_surrogates(result.response.text)}
                self._note(unwritable)
                tally.failed += 1
                return
        elif result.error is not None:
            self._note(error_row(line, result.error, result.attempts))
        tally.count(result)

    def _note(self, row: dict[str, Any]) -> None:
        text = encode_json(row)
        if self._errors is not None:
            self._errors.append(text + b"\n")
        else:
            self._screen.note(text.decode())

    def close(self) -> None:
        """Force everything to the disk."""
        self._opened.close()
