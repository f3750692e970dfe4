"""``streamchat chat``: one question, or a conversation."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
from collections.abc import Iterator
from typing import Any

import attrs
import click

from streamchat import (
    ChatOptions,
    ChatResponse,
    Client,
    StreamChatError,
    SystemMessage,
    UserMessage,
)
from streamchat.cli.connect import DEMO_PACE, connected
from streamchat.cli.inputs import read_documents, read_prompt, read_tools, standard_input
from streamchat.cli.options import FiniteRange
from streamchat.cli.outcome import EXIT_CODES, Outcome, report
from streamchat.cli.render import JsonLines, Printer, statistics
from streamchat.cli.terminal import Screen
from streamchat.protocol.models import DEFAULT_MODEL

__all__ = ["chat"]

LEAVE = ("exit", "quit")


@click.command(epilog=EXIT_CODES)
@click.argument("prompt", required=False)
@click.option(
    "--document",
    "documents",
    multiple=True,
    metavar="FILE",
    help="Answer from this file and cite it: a text, or .json with an object or a list of them. "
    "May be given again.",
)
@click.option(
    "--tool",
    "tools",
    multiple=True,
    metavar="FILE.json",
    help="Let the model call this tool (or list of tools): calls are printed, not run. "
    "May be given again.",
)
@click.option(
    "--thinking", is_flag=True, help="Tell the model to think first, and show it on stderr."
)
@click.option("--json", "as_json", is_flag=True, help="Print events instead, one JSON a line.")
@click.option(
    "--model",
    metavar="ID",
    default=DEFAULT_MODEL,
    show_default=True,
    help="The model.",
)
@click.option("--system", metavar="TEXT", help="What the model is told to be.")
@click.option(
    "--tokens-per-second",
    type=FiniteRange(min=0, min_open=True),
    metavar="N",
    help=f"The demo server's pace.  [default: {DEMO_PACE:g} on a terminal, else no limit]",
)
def chat(
    prompt: str | None,
    documents: tuple[str, ...],
    tools: tuple[str, ...],
    thinking: bool,
    as_json: bool,
    model: str,
    system: str | None,
    tokens_per_second: float | None,
) -> None:
    """Ask PROMPT and print the answer as it comes; "-" reads the prompt from stdin.

    Without PROMPT it is a conversation, a line a turn: "exit", "quit" or Ctrl-D leaves; Ctrl-C
    stops an answer, and at the prompt it leaves. A turn that failed or was stopped is forgotten.
    The exit code is then that of the last turn.

    The answer, its footnotes and tool calls go to stdout. Thinking, tool plans, counts and notes go
    to stderr, so "> file" keeps the answer alone. On a terminal, control characters in the answer
    are shown as pictures; elsewhere the text is untouched. NO_COLOR is honoured.

    The key is read from CO_API_KEY, or COHERE_API_KEY. Without one and without CO_API_URL an embedded
    demo server answers: no network, no account.

    \b
    Examples:
      streamchat chat "What is an LLM?"
      streamchat chat --document handbook.txt "How many days of vacation do I get?"
      streamchat chat --tool weather.json "What is the weather in Lima?"
      git diff | streamchat chat --system "You review code." - > review.txt
      streamchat chat --json "Hi" | jq -r .type
    """
    options: ChatOptions = {}
    if documents:
        options["documents"] = read_documents(documents)
    if tools:
        options["tools"] = read_tools(tools)
    if thinking:
        options["thinking"] = {"type": "enabled"}
    job = Job(
        screen=Screen(),
        model=model,
        options=options,
        shows_thinking=thinking,
        as_json=as_json,
    )
    opening: list[Any] = [] if system is None else [SystemMessage(system)]
    question = None if prompt is None else read_prompt(prompt)
    with asyncio.Runner() as runner, connected(runner, job.screen, tokens_per_second) as client:
        if question is None:
            code = converse(runner, client, job, opening)
        else:
            runner.run(job.ask(client, [*opening, UserMessage(question)]))
            code = Outcome.OK
    click.get_current_context().exit(code)


@attrs.frozen(kw_only=True)
class Job:
    """What was asked for on the command line."""

    screen: Screen
    """Where to print."""
    model: str
    """The model's id."""
    options: ChatOptions
    """The other fields of each request."""
    shows_thinking: bool
    """``--thinking``"""
    as_json: bool
    """``--json``"""

    async def ask(self, client: Client, messages: list[Any]) -> ChatResponse:
        """Send the messages and show the answer while it comes.

        Raises:
            click.UsageError: something in the files that cannot be sent.
            StreamChatError: it failed; what had arrived is shown.
        """
        handler = (
            JsonLines(self.screen)
            if self.as_json
            else Printer(self.screen, shows_thinking=self.shows_thinking)
        )
        try:
            stream = client.chat_stream(
                messages, model=self.model, handlers=[handler], **self.options
            )
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from None
        try:
            response = await stream
        finally:
            handler.finish()
        if not self.as_json:
            self.screen.note(statistics(response, stream.timing))
        return response


# --- a conversation ------------------------------------------------------------------------------


def converse(runner: asyncio.Runner, client: Client, job: Job, opening: list[Any]) -> Outcome:
    """Answer line after line; returns how the last turn went."""
    history, outcome = opening, Outcome.OK
    for line in _lines(job):
        turn = [*history, UserMessage(line)]
        # The loop runs during an answer only, so that a prompt can simply block and Ctrl-C means
        # the one or the other.
        try:
            response = runner.run(job.ask(client, turn))
        except StreamChatError as error:
            report(error)
            outcome = Outcome.FAILED
        except KeyboardInterrupt:
            job.screen.note("Stopped; this turn is forgotten.")
            outcome = Outcome.INTERRUPTED
        else:
            outcome = Outcome.OK
            if response.tool_calls:
                job.screen.note("Tools are not run here; this turn is forgotten.")
            elif response.text:
                history = [*turn, response]
    return outcome


def _lines(job: Job) -> Iterator[str]:
    """What the user says, until they leave."""
    stdin = standard_input()
    if stdin is None:
        return
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="replace")  # a typo in one line does not end the conversation
    asks = stdin.isatty()
    if asks:
        job.screen.note(f"{job.model}; exit, quit or Ctrl-D leaves, Ctrl-C stops an answer.")
    while line := _prompted(job) if asks else stdin.readline():
        if line.strip().lower() in LEAVE:
            return
        if line.strip():
            yield line.strip()


def _prompted(job: Job) -> str:
    """The next line at a terminal, with its end; empty when the user leaves."""
    try:
        if job.screen.out.is_terminal:
            with contextlib.suppress(ImportError):
                importlib.import_module("readline")  # gives input() line editing; saves nothing
            return f"{input('> ')}\n"
        job.screen.remark("> ")  # stdout is a file, and input() would write the prompt there
        return f"{input()}\n"
    except EOFError:
        job.screen.remark("\n")
        return ""
