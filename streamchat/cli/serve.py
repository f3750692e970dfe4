"""``streamchat serve``: the demo server in the foreground."""

from __future__ import annotations

import asyncio
import os

import click

from streamchat.cli.options import FiniteRange
from streamchat.cli.outcome import EXIT_CODES
from streamchat.cli.terminal import Screen

__all__ = ["serve"]

KEY_VARIABLE = "STREAMCHAT_SERVE_KEY"


@click.command(epilog=EXIT_CODES)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Where to listen.  [default: a free port]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option(
    "--tokens-per-second",
    type=FiniteRange(min=0, min_open=True),
    metavar="N",
    help="The pace of answers.  [default: as fast as they are read]",
)
def serve(port: int, host: str, tokens_per_second: float | None) -> None:
    """Serve Chat v2 on this machine: a demo model, no key, no network, nothing to pay.

    Prints its URL on stdout and how to use it on stderr. Ctrl-C stops it, with exit code 0. If the
    environment variable STREAMCHAT_SERVE_KEY is set, clients must send that key.

    \b
    Examples:
      streamchat serve --port 8080 --tokens-per-second 30
      CO_API_URL=http://127.0.0.1:8080 streamchat chat "Hi"
    """
    try:
        asyncio.run(_serve(port, host, tokens_per_second))
    except KeyboardInterrupt:
        return  # the way to stop it


async def _serve(port: int, host: str, tokens_per_second: float | None) -> None:
    from streamchat.local import LocalServer

    screen = Screen()
    key = os.environ.get(KEY_VARIABLE) or None
    try:
        server = LocalServer(host=host, port=port, tokens_per_second=tokens_per_second, api_key=key)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    async with server:
        screen.say(f"{server.url}\n", "bold")
        screen.note(f"Point clients at it: export CO_API_URL={server.url}")
        if key is not None:
            screen.note(f"They must send the key of {KEY_VARIABLE}: set CO_API_KEY to it.")
        screen.note("Ctrl-C stops it.")
        await asyncio.Event().wait()
