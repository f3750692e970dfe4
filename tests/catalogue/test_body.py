# ruff: noqa: SIM117
"""faults.md 3.3: what can go wrong inside the body (F41 to F65); every cut and every random fault is in
``tests/faults``."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import trustme

from streamchat import (
    Event,
    ProtocolError,
    StreamTimeoutError,
    Timeout,
    TruncatedStreamError,
)
from tests.catalogue.helpers import (
    CHUNKED,
    PURE_PARSER,
    TWICE,
    client,
    collect,
    failure,
    reset,
    resets,
    says,
    stream_of,
)
from tests.frames import body, pieces, plain
from tests.wire.server import EVENT_STREAM, Reply, Request, answer_whole, chunked, serve

PARTS = pieces(plain())
FOUR = b"".join(PARTS[:4])
IDLE = Timeout(idle=0.1)
LENGTH = EVENT_STREAM + b"content-length: %d\r\n\r\n" % len(body(plain()))
UNTIL_END = EVENT_STREAM + b"connection: close\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


# --- cuts ----------------------------------------------------------------------------------------

CUTS: dict[str, bytes] = {
    "F41 between chunks": CHUNKED + chunked(FOUR),
    "F41 inside a chunk": CHUNKED + chunked(FOUR + PARTS[4])[:-30],
    "F41 inside the size": CHUNKED + chunked(FOUR) + b"4",
    "F41 after the last chunk": CHUNKED + chunked(FOUR) + b"0\r\n",
    "F43 length too short": LENGTH + FOUR,
    "F44 no length": UNTIL_END + FOUR,
    "F44 HTTP/1.0": OLD + FOUR,
    "F46 clean end": CHUNKED + chunked(FOUR) + b"0\r\n\r\n",
    "F46 clean end, half an event": CHUNKED + chunked(FOUR + PARTS[4][:-1]) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("name", CUTS)
async def test_a_cut_answer_is_no_answer(name: str, end: str) -> None:
    """F41 to F44, F46: what arrived in full is delivered, then one error carries it; not tried again."""
    arrived = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CUTS[name])
        await arrived.wait()
        if end == "RST":
            reset(writer)
        else:
            writer.close()

    seen: list[Event] = []
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        with pytest.raises(TruncatedStreamError) as caught:
            async for event in chat.chat_stream("Hi"):
                seen.append(event)
                if len(seen) == 4:
                    arrived.set()
    assert seen == plain()[:4]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"
    assert (caught.value.attempts, len(wire.requests)) == (1, 1)


@pytest.mark.parametrize(
    "head", [CHUNKED, LENGTH, UNTIL_END, OLD], ids=["chunks", "length", "end", "1.0"]
)
@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_a_body_without_events_is_tried_again(head: bytes, end: str) -> None:
    """F41 to F46, R3: at zero events another try does no harm."""
    reply = says(head) if end == "FIN" else resets(head)
    async with serve(reply, answer_whole) as wire, client(wire, retry=TWICE) as chat:
        stream = chat.chat_stream("Hi")
        assert (await stream).text == "Hello there!"
    assert stream.attempts == 2


@pytest.mark.parametrize("head", [CHUNKED, UNTIL_END], ids=["chunks", "end"])
async def test_tls_that_ends_without_notice(head: bytes) -> None:
    """F45: no close_notify: the answer is cut off all the same."""
    ca, context = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(context)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    arrived = asyncio.Event()

    async def cut(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(head + (chunked(FOUR) if head is CHUNKED else FOUR))
        await arrived.wait()
        writer.transport.abort()

    async with serve(cut, ssl=server) as wire, client(wire, ssl=context) as chat:
        stream = chat.chat_stream("Hi")
        seen = [await anext(stream) for _ in range(4)]
        arrived.set()
        with pytest.raises(TruncatedStreamError):
            await stream
    assert seen == plain()[:4]


@pytest.mark.parametrize(
    "end", [b"0\r\n\r\n", b"", b"not a chunk\r\n"], ids=["clean", "cut", "broken"]
)
async def test_an_answer_without_the_terminator_is_complete(end: bytes) -> None:
    """F47: after message-end neither [DONE] nor a clean end is needed."""
    reply = says(CHUNKED + chunked(body(plain(), done=False)), end)
    async with serve(reply) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"


# --- framing -------------------------------------------------------------------------------------


BROKEN = {
    "no size": b"zz\r\n",
    "negative size": b"-5\r\nabc\r\n",
    "data longer than its size": b"3\r\n: aaaaaa\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_framing_with_the_headers(name: str) -> None:
    """F48: in the same segment as the headers no event reaches us: a protocol error, one request."""
    reply = says(CHUNKED + chunked(FOUR) + BROKEN[name], close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, ProtocolError, "not valid HTTP")
        await wire.closed.wait()
    assert (error.attempts, error.partial) == (1, None)


@pytest.mark.parametrize("close", [False, True], ids=["open", "FIN"])
@pytest.mark.parametrize("before", [b"", chunked(b": ping\n\n")], ids=["nothing", "a comment"])
@pytest.mark.parametrize("name", BROKEN)
async def test_broken_framing_before_the_first_event(name: str, before: bytes, close: bool) -> None:
    """F49: in a later segment it is the same error, at once, and not tried again either."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + before)
        while stream.status is None:
            await asyncio.sleep(0)
        writer.write(BROKEN[name])
        if close:
            writer.close()

    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        stream = chat.chat_stream("Hi")
        seen, error = await collect(stream)
        await wire.closed.wait()
    assert isinstance(error, ProtocolError)
    assert "not valid HTTP" in str(error)
    assert (seen, error.attempts, len(wire.requests)) == ([], 1, 1)


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_framing_behind_events(name: str) -> None:
    """F49: the events before it are delivered, and the error carries them."""
    go = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(FOUR))
        await go.wait()
        writer.write(chunked(PARTS[4]) + BROKEN[name])

    seen: list[Event] = []
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        with pytest.raises(ProtocolError, match="not valid HTTP") as caught:
            async for event in chat.chat_stream("Hi"):
                seen.append(event)
                if len(seen) == 4:
                    go.set()
        await wire.closed.wait()
    assert seen == plain()[:5]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there!"


async def _endless_extension(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(CHUNKED + chunked(FOUR))
    writer.write(b"5;")
    while not writer.is_closing():
        writer.write(b"x" * 100)
        await writer.drain()
        await asyncio.sleep(0.001)  # the pace is the server's


async def _pings_for_ever(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(CHUNKED + chunked(FOUR))
    while not writer.is_closing():
        writer.write(chunked(b": ping\n\n"))
        await writer.drain()
        await asyncio.sleep(0.01)


async def _single_bytes(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(CHUNKED + chunked(FOUR))
    while not writer.is_closing():
        writer.write(chunked(b"d"))
        await writer.drain()
        await asyncio.sleep(0.01)


async def _silence(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(CHUNKED + chunked(FOUR))
    while not writer.is_closing():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("reply", [_endless_extension, _pings_for_ever, _single_bytes, _silence])
async def test_what_is_no_event_does_not_feed_the_limit(reply: Reply) -> None:
    """F50, F54 to F56, F63: extensions, comments, single bytes, silence: idle ends the stream."""
    async with serve(reply) as wire, client(wire, timeout=IDLE, retry=TWICE) as chat:
        seen, error = await collect(chat.chat_stream("Hi"))
        await wire.closed.wait()
    assert seen == plain()[:4]
    if PURE_PARSER and isinstance(error, ProtocolError):
        assert reply is _endless_extension  # that parser takes 8 KiB of it and no more
        return
    assert isinstance(error, StreamTimeoutError)
    assert (error.phase, error.events, error.attempts) == ("idle", 4, 1)


@pytest.mark.parametrize(
    ("end", "complete"),
    [
        (b"0\r\nx-checksum: 1\r\n\r\n", True),
        (b"0\r\n" + b"x: y\r\n" * 300 + b"\r\n", True),
        (b"0\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", True),
        (b"0\r\nx-checksum: 1\r\n\r\n", False),
        (b"0\r\n" + b"x: y\r\n" * 300 + b"\r\n", False),
        (b"0\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", False),
    ],
)
async def test_trailers(end: bytes, complete: bool) -> None:
    """F51: after message-end they change nothing; without it, the answer is cut off, or, when there are
    too many or too long ones, is not HTTP; never a hang."""
    expected = TruncatedStreamError if len(end) < 100 else ProtocolError
    sent = body(plain()) if complete else FOUR
    reply = says(CHUNKED + chunked(sent), end, close=False)
    async with serve(reply) as wire, client(wire) as chat:
        seen, error = await collect(chat.chat_stream("Hi"))
    assert seen == (plain() if complete else plain()[:4])
    assert error is None if complete else isinstance(error, expected)


# --- the pool ------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_bytes_that_nobody_asked_for(when: str) -> None:
    """F52, F53: a connection on which more came than the answer is not used again: no mix-up."""
    foreign = stream_of(body(plain("somebody else's")))
    sent = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(wire.requests) > 1:
            await answer_whole(writer, request)
        elif when == "at once":
            writer.write(stream_of(body(plain("mine"))) + foreign)
        else:
            writer.write(stream_of(body(plain("mine"))))
            await done.wait()
            writer.write(foreign)
            await writer.drain()
            sent.set()

    done = asyncio.Event()
    async with serve(reply) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "mine"
        done.set()
        if when == "later":
            await sent.wait()
            for _ in range(20):
                await asyncio.sleep(0)
        assert (await chat.chat("Hi")).text == "Hello there!"
    assert wire.connections == 2


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"], ids=["open", "ended soon"])
async def test_the_answer_does_not_wait_for_the_end_of_the_body(end: bytes) -> None:
    """F64, F65: message-end is handed out first; the connection is kept if the body ends soon."""
    read = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        if request.connection == 0 and len(wire.requests) == 1:
            writer.write(CHUNKED + chunked(body(plain(), done=False)))
            await read.wait()
            writer.write(end)
        else:
            await answer_whole(writer, request)

    async with serve(reply) as wire, client(wire) as chat:
        stream = chat.chat_stream("Hi")
        seen = [await anext(stream) for _ in plain()]
        read.set()
        assert (await stream).text == "Hello there!"
        await chat.chat("Hi")
    assert seen == plain()
    assert wire.connections == (1 if end else 2)


# --- pace ----------------------------------------------------------------------------------------


async def test_a_slow_consumer_is_not_punished() -> None:
    """F57: the consumer sleeps longer than `idle` while the server is silent; then all goes on."""
    go = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(FOUR))
        await go.wait()
        writer.write(chunked(b"".join(PARTS[4:])) + b"0\r\n\r\n")

    seen: list[Event] = []
    async with serve(reply) as wire, client(wire, timeout=IDLE) as chat:
        async for event in chat.chat_stream("Hi"):
            seen.append(event)
            if len(seen) == 2:
                await asyncio.sleep(0.25)  # longer than the limit, which must not run
                go.set()
    assert seen == plain()


async def test_there_is_no_total_limit_but_the_callers() -> None:
    """F58: `total` is off by default, and exact when it is set: pings and events do not feed it."""

    async def for_ever(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(b"".join(PARTS[:2])))
        while not writer.is_closing():
            writer.write(chunked(PARTS[2]))
            await writer.drain()
            await asyncio.sleep(0.01)

    assert Timeout().total is None
    async with serve(for_ever) as wire, client(wire, timeout=Timeout(total=0.15)) as chat:
        error = await failure(chat, StreamTimeoutError)
    assert error.phase == "total"
    assert error.partial is not None


# --- compression ---------------------------------------------------------------------------------


def zipped(*parts: bytes) -> bytes:
    head = EVENT_STREAM + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(map(chunked, parts)) + b"0\r\n\r\n"


ANSWER = body(plain())
MEMBER = gzip.compress(b": a comment\n")
NOT_GZIP = {
    "F59 plain": (ANSWER,),
    "F59 plain, in pieces": tuple(PARTS),
    "F59 garbage behind": (gzip.compress(b": x\n\n"), b"garbage behind the end"),
    "F59 another coding": (zlib.compress(ANSWER),),
    "F59 damaged": (gzip.compress(ANSWER)[:20] + b"\xff" * 40,),
    "F62 5,000 members": (MEMBER * 5_000 + gzip.compress(ANSWER),),
}


@pytest.mark.parametrize("name", NOT_GZIP)
async def test_a_body_that_is_not_what_it_says(name: str) -> None:
    """F59, F62: an error that says so; trying again would not mend it."""
    reply = says(zipped(*NOT_GZIP[name]), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, TruncatedStreamError, "not what its Content-Encoding says")
    assert (error.kind, error.attempts) == ("encoding", 1)


@pytest.mark.parametrize("left", [1, 8, 9, 30])
async def test_a_cut_gzip_stream_in_correct_chunks(left: int) -> None:
    """F60: an answer without message-end is cut off; one with it is complete, whatever was left."""
    data = gzip.compress(ANSWER)[:-left]
    async with serve(says(zipped(data), close=False)) as wire, client(wire) as chat:
        seen, error = await collect(chat.chat_stream("Hi"))
    assert seen == plain()[: len(seen)]
    assert (error is None) == (seen == plain())
    assert error is None or isinstance(error, TruncatedStreamError)


def _line() -> bytes:
    return b"data: " + b"x" * 50_000_000


def _comments() -> bytes:
    return (b":" + b"x" * 999_999 + b"\n\n") * 50


@pytest.mark.parametrize("inside", [_line, _comments])
async def test_a_gzip_bomb_is_bounded(inside: Callable[[], bytes]) -> None:
    """F61: 50 MB in 50 KB: the ratio ends it after 1 MiB, and memory stays within the limits."""
    packed = gzip.compress(inside(), compresslevel=1)
    async with serve(says(zipped(packed), close=False)) as wire:
        async with client(wire, max_event_bytes=2 * 1024 * 1024) as chat:
            tracemalloc.start()
            try:
                await failure(chat, ProtocolError, "gzip expands more than 200 times")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert peak < 12 * 1024 * 1024
