"""The end of a TLS connection: it waits for what came before it.

Both event loops and aiohttp drop what they hold when a connection ends while the consumer is behind
(see ``_Ending`` in ``streamchat/transport/exchange.py``). The bytes do leave the server and do reach
this process: a blocking ``ssl`` socket reads all of them.
"""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from streamchat import Client, Retry, TruncatedStreamError
from tests.faults import answers
from tests.faults.rawserver import Fin, Run, Script, Send, serve
from tests.wire import server as keepalive

ALL = 6000
EVENTS = answers.plain(ALL)
WHOLE = answers.respond(EVENTS, answers.CHUNKED).raw
WHOLE_PACKED = (
    answers.head(answers.CHUNKED, b"content-encoding: gzip")
    + answers.chunk(gzip.compress(answers.body(EVENTS)))
    + b"0\r\n\r\n"
)
CUT = answers.head(answers.CHUNKED) + b"".join(
    answers.chunk(frame) for frame in answers.frames(EVENTS[:-1])
)
CUT_EOF = answers.head(answers.EOF) + answers.body(EVENTS[:-1])


@pytest.fixture
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and that of a client who trusts it."""
    trustme = pytest.importorskip("trustme")
    authority, theirs = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    return theirs, ours


@asynccontextmanager
async def answering(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], script: Script, **options: Any
) -> AsyncIterator[tuple[Client, Run]]:
    """A server that plays the script once, and a client of it."""
    async with serve(contexts[0]) as server:
        run = server.add("it", script)
        async with Client(
            "k",
            base_url=f"{server.url}/it",
            model="m",
            ssl=contexts[1],
            retry=Retry(attempts=1),
            **options,
        ) as client:
            yield client, run


async def take(client: Client, run: Run, *, wait: bool) -> tuple[list[str], Exception | None]:
    """The types of all events, and the end.

    A consumer that waits does so after the first event, until the server has ended the connection.
    """
    types: list[str] = []
    try:
        async for event in client.chat_stream("Hi"):
            types.append(event.type)
            if wait and len(types) == 1:
                await run.ended.wait()
    except TruncatedStreamError as error:
        return types, error
    return types, None


@pytest.mark.parametrize("wait", [False, True], ids=["fast", "late"])
@pytest.mark.parametrize("goodbye", [False, True], ids=["FIN", "close_notify"])
@pytest.mark.parametrize("data", [CUT, CUT_EOF], ids=["chunked", "EOF"])
async def test_all_that_arrived_is_delivered_before_the_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], data: bytes, goodbye: bool, wait: bool
) -> None:
    """0.7 MB, more than all buffers, cut: 5999 events, then the error. uvloop delivered 4813."""
    async with answering(contexts, [Send(data), Fin(notify=goodbye)]) as (client, run):
        types, error = await take(client, run, wait=wait)
    assert types == [event["type"] for event in EVENTS[:-1]]
    assert isinstance(error, TruncatedStreamError)
    assert error.events == ALL - 1


@pytest.mark.parametrize("wait", [False, True], ids=["fast", "late"])
@pytest.mark.parametrize("goodbye", [False, True], ids=["FIN", "close_notify"])
@pytest.mark.parametrize("data", [WHOLE, WHOLE_PACKED], ids=["plain", "gzip"])
async def test_a_complete_answer_is_complete_though_the_connection_ended(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], data: bytes, goodbye: bool, wait: bool
) -> None:
    """A server that closes after each answer is a usual one. Both loops called this one cut off."""
    async with answering(contexts, [Send(data), Fin(notify=goodbye)]) as (client, run):
        types, error = await take(client, run, wait=wait)
    assert types == [event["type"] for event in EVENTS]
    assert error is None


async def test_nothing_of_an_exchange_stays_on_a_pooled_connection(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """A connection that is kept ends as aiohttp has it, and the next exchange has an end of its own."""
    async with (
        keepalive.serve(keepalive.answer_whole, ssl=contexts[0]) as wire,
        Client("k", base_url=wire.url, model="m", ssl=contexts[1]) as client,
    ):
        for _ in range(2):
            assert (await client.chat("Hi")).text == "Hello there!"
            [keeper] = client._transport._keepers.values()
            assert keeper.session.connector is not None
            [[(protocol, _)]] = keeper.session.connector._conns.values()
            assert "connection_lost" not in vars(protocol)
        assert wire.connections == 1


def test_what_is_private_in_aiohttp_is_still_there() -> None:
    """Without it the parser would pause once more, and what it holds then would be lost."""
    assert "_high_water_chunks" in aiohttp.StreamReader.__slots__
