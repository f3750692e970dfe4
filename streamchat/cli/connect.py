"""Whom a command asks: the server that the environment names, or one of our own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Generator
from urllib.parse import urlsplit

import click

from streamchat import Client
from streamchat.cli.terminal import Screen
from streamchat.credentials import key_in

__all__ = ["DEMO_PACE", "connected"]

DEMO_PACE = 60.0
"""Tokens a second of the demo server on a terminal: a large model's pace, so that one sees the
answer come. A pipe gets it as fast as it goes."""
_COHERE = ("cohere.com", "cohere.ai")


@contextlib.contextmanager
def connected(
    runner: asyncio.Runner,
    screen: Screen,
    tokens_per_second: float | None,
    *,
    demo: bool | None = None,
) -> Generator[Client]:
    """A client on the runner's loop, closed in the end however that comes.

    Args:
        runner: where it runs.
        screen: where it says whom it asks.
        tokens_per_second: the pace of the demo server.
        demo: whether the demo server answers. Default: if there is no key for another one.

    Raises:
        click.UsageError: there is neither a key nor a server, and ``demo`` is false.
    """
    client = _client(screen, tokens_per_second, demo)
    opened = runner.run(client.__aenter__())
    try:
        yield opened
    finally:
        runner.run(client.__aexit__(None, None, None))


@contextlib.asynccontextmanager
async def _client(
    screen: Screen, tokens_per_second: float | None, demo: bool | None
) -> AsyncGenerator[Client]:
    """A client for whatever server the environment names, or for one of our own."""
    if demo is False and _needs_demo_server():
        raise click.UsageError(
            "no key: set CO_API_KEY, or CO_API_URL for another server, or say --demo for answers of "
            "the demo model on this machine"
        )
    if not (_needs_demo_server() if demo is None else demo):
        if tokens_per_second is not None:
            raise click.UsageError(
                "--tokens-per-second sets the pace of the demo server, "
                "which is not used: CO_API_KEY or CO_API_URL is set"
            )
        async with Client() as client:
            yield client
        return
    from streamchat.local import LocalServer

    reason = "--demo" if demo else "No CO_API_KEY"
    screen.note(f"{reason}: answering from the embedded demo server, not from Cohere.")
    pace = tokens_per_second or (DEMO_PACE if screen.out.is_terminal else None)
    async with (
        LocalServer(tokens_per_second=pace) as server,
        Client("", base_url=server.url) as client,
    ):
        yield client


def _needs_demo_server() -> bool:
    """Whether there is neither a key nor the URL of a server that may need none."""
    if key_in(os.environ).strip():
        return False
    url = os.environ.get("CO_API_URL", "")
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False  # the client says what is wrong with it
    return not url or any(host == own or host.endswith(f".{own}") for own in _COHERE)
