"""The command line: the ``streamchat`` group; each command has a module here.

Uses the library through its public names only, so that it is an example too. Needs the extra
``cli`` (click and rich), which nothing outside this folder imports.
"""

import click

from streamchat import __version__
from streamchat.cli.batch import batch
from streamchat.cli.chat import chat
from streamchat.cli.outcome import EXIT_CODES, Commands
from streamchat.cli.serve import serve

__all__ = ["cli"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="streamchat")
def cli() -> None:
    """Talk to Cohere's Chat v2 API and watch the answer come.

    The key is read from the environment variable CO_API_KEY, or COHERE_API_KEY, and from nowhere else;
    CO_API_URL names another server. Without either, a small demo model on this machine answers.

    \b
    Examples:
      streamchat chat "What is an LLM?"
      streamchat chat                       a conversation
      streamchat batch in.jsonl -o out.jsonl
      streamchat serve                      the demo server, for your own clients
    """


cli.add_command(batch)
cli.add_command(chat)
cli.add_command(serve)
