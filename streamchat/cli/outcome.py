"""How a command ends: exit codes, and the one place that turns failures into them."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import click

from streamchat import ConfigurationError, StreamChatError
from streamchat.cli.terminal import Channel, one_line, visible, visible_name

__all__ = ["EXIT_CODES", "Commands", "Outcome", "report"]


class Outcome(enum.IntEnum):
    """Exit codes, as shells and pipelines expect them."""

    OK = 0
    """Answered."""
    FAILED = 1
    """The request or the stream failed; what had arrived of the answer was printed."""
    USAGE = 2
    """A wrong option, file or setting; nothing was sent. click's own code for it."""
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT."""
    BROKEN_PIPE = 141
    """The reader of our output left: 128 + SIGPIPE, what other tools give under ``pipefail``."""


EXIT_CODES = """\b
Exit codes:
    0  answered
    1  the request or the stream failed; the partial answer stays on stdout
    2  wrong usage: an option, a file or a setting; nothing was sent
  130  interrupted with Ctrl-C
  141  the reader of the output left, as in "streamchat chat ... | head -1"
"""


class Commands(click.Group):
    """A group whose commands may simply raise."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _shown():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _shown():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            code = Outcome.INTERRUPTED
        except ConfigurationError as error:
            report(error)
            code = Outcome.USAGE
        except StreamChatError as error:
            report(error)
            code = Outcome.FAILED
        except BrokenPipeError:
            code = Outcome.BROKEN_PIPE
        except OSError as error:  # the disk is full, the port is taken
            report(error)
            code = Outcome.FAILED
        _discard_unwritten()
        raise click.exceptions.Exit(code)


@contextmanager
def _shown() -> Generator[None]:
    """Make the message of a usage error harmless: it may quote a file name or an argument."""
    try:
        yield
    except click.UsageError as error:
        raise click.UsageError(visible(error.format_message()), error.ctx) from None


def report(error: Exception) -> None:
    """Say on stderr what went wrong, in one line."""
    text = one_line(_reason(error) if isinstance(error, OSError) else str(error))
    channel = Channel(sys.stderr)
    try:
        channel.write("error: ", "bold red")
        channel.write(f"{text}\n")
    except OSError:
        pass  # nobody is there to be told; the exit code says it


def _reason(error: OSError) -> str:
    """Why, and of which file if it is known."""
    reason = error.strerror or str(error)
    return f"{visible_name(error.filename)}: {reason}" if error.filename is not None else reason


def _discard_unwritten() -> None:
    """Point a stream that cannot be written at the null device.

    What could not be written stays buffered, and the interpreter would try again when it exits,
    complain, and exit with 120.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
