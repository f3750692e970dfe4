"""faults.md 3.5: consumers, handlers, clients, secrets and clocks (F88 to F113)."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import time
import warnings
from typing import Any

import pytest

from streamchat import (
    Client,
    ConcurrencyError,
    ConfigurationError,
    ContentDelta,
    Dispatcher,
    Event,
    Retry,
    StreamChatError,
    Timeout,
    TransportError,
    TruncatedStreamError,
)
from tests.catalogue.helpers import (
    CHUNKED,
    KEY,
    ONCE,
    check_clean,
    client,
    collect,
    failure,
    says,
    stream_of,
    with_length,
)
from tests.frames import body, pieces, plain
from tests.wire.server import Request, Wire, answer_whole, chunked, serve, whole_answer

PARTS = pieces(plain())


def stalls(wire_of: list[Wire]) -> Any:
    """A reply that stops after three events, until the client leaves."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(b"".join(PARTS[:3])))
        await wire_of[0].closed.wait()

    return reply


# --- handlers ------------------------------------------------------------------------------------


class Boom(Exception):
    """A handler's own."""


@pytest.mark.parametrize("cls", [Boom, ValueError, ConnectionResetError, TimeoutError])
async def test_a_handlers_exception_is_its_own(cls: type[Exception]) -> None:
    """F88: raised as it is, with a note, also if it looks like one of the network; connection closed."""
    here: list[Wire] = []
    mine = cls("mine")
    async with serve(stalls(here)) as wire, client(wire, retry=Retry(base=0)) as chat:
        here.append(wire)

        @chat.on_content_delta
        async def boom(event: ContentDelta) -> None:
            raise mine

        with pytest.raises(cls) as caught:
            await chat.chat("Hi")
        await wire.closed.wait()
    assert caught.value is mine
    assert any("boom" in note for note in mine.__notes__)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("cls", [asyncio.CancelledError, GeneratorExit])
async def test_an_exit_from_a_handler_passes(cls: type[BaseException]) -> None:
    """F89: passed on; the connection is closed first."""
    here: list[Wire] = []
    async with serve(stalls(here)) as wire, client(wire) as chat:
        here.append(wire)

        @chat.on_content_delta
        def leave(event: ContentDelta) -> None:
            raise cls

        stream = chat.chat_stream("Hi")
        with pytest.raises(cls):
            async for _ in stream:
                pass
        await wire.closed.wait()


async def test_a_slow_handler_slows_the_server_and_not_the_others() -> None:
    """F90: its events stay in order, the server has to wait, and another stream runs meanwhile."""
    blocked = asyncio.Event()
    many = [ContentDelta(f"{number} " + "x" * 50_000) for number in range(400)]
    flood = [plain()[0], plain()[1], *many, *plain()[-2:]]

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        if json.loads(request.body)["messages"][0]["content"] != "flood":
            await answer_whole(writer, request)
            return
        writer.write(CHUNKED)
        for piece in pieces(flood):
            writer.write(chunked(piece))
            try:
                async with asyncio.timeout(0.2):
                    await writer.drain()
            except TimeoutError:
                blocked.set()
                await writer.drain()
        writer.write(b"0\r\n\r\n")

    seen: list[Event] = []
    dispatcher = Dispatcher()

    @dispatcher.on_content_start
    async def wait(event: Event) -> None:
        await blocked.wait()
        assert (await chat.chat("other")).text == "Hello there!"

    async with serve(reply) as wire, client(wire, timeout=Timeout(idle=0.3)) as chat:
        async for event in chat.chat_stream("flood", handlers=[dispatcher]):
            seen.append(event)
    assert blocked.is_set()
    assert [event for event in seen if isinstance(event, ContentDelta)] == many


async def test_a_flood_leaves_turns_to_others() -> None:
    """F92: a whole answer in one piece does not keep the loop for itself."""
    texts = ["x"] * 5_000
    turns = 0
    running = True

    async def other() -> None:
        nonlocal turns
        while running:
            turns += 1
            await asyncio.sleep(0)

    async with (
        serve(answer_whole, says(stream_of(body(plain(*texts))))) as wire,
        client(wire) as chat,
    ):
        await chat.chat("Hi")
        stream = chat.chat_stream("Hi")
        await anext(stream)
        ticker = asyncio.ensure_future(other())
        turns = 0
        answer = await stream
        running = False
        await ticker
    assert answer.text == "x" * 5_000
    assert turns > 10


async def test_a_handler_may_start_another_stream() -> None:
    """F103: of the same client, inside the first; both answers are whole."""
    inner: list[str] = []
    async with serve(answer_whole) as wire, client(wire) as chat:
        dispatcher = Dispatcher()

        @dispatcher.on_content_delta
        async def ask(event: ContentDelta) -> None:
            inner.append((await chat.chat("inner")).text)

        assert (await chat.chat("outer", handlers=[dispatcher])).text == "Hello there!"
    assert inner == ["Hello there!"] * 3


async def test_a_handler_may_close_the_client() -> None:
    """F103: no deadlock; the stream ends with the client's own error."""
    here: list[Wire] = []
    async with serve(stalls(here)) as wire, client(wire) as chat:
        here.append(wire)

        @chat.on_content_delta
        async def close(event: ContentDelta) -> None:
            await chat.aclose()

        error = await failure(chat, TransportError, "closed")
        await wire.closed.wait()
    assert error.kind == "closed"


async def test_handlers_may_register_handlers() -> None:
    """F103: the list does not change while it runs: the next stream hears the new one."""
    heard: list[str] = []
    async with serve(answer_whole) as wire, client(wire) as chat:

        @chat.on_content_delta
        def more(event: ContentDelta) -> None:
            heard.append(event.text)
            if len(heard) == 1:
                chat.on_content_delta(lambda event: heard.append("late"))

        await chat.chat("Hi")
        assert heard == ["Hello", " there", "!"]
        await chat.chat("Hi")
    assert heard.count("late") == 3


# --- streams -------------------------------------------------------------------------------------


async def test_a_dropped_stream_closes_its_connection() -> None:
    """F94, F95: it warns and names itself, and the server sees the end at once."""
    here: list[Wire] = []
    async with serve(stalls(here)) as wire, client(wire) as chat:
        here.append(wire)
        stream = chat.chat_stream("Hi")
        await anext(stream)
        with pytest.warns(ResourceWarning, match="<ChatStream"):
            del stream
            gc.collect()
        await wire.closed.wait()


async def test_cancelled_in_the_pool() -> None:
    """F96: in the queue for a connection too: at once, nothing sent, the place is free for others."""
    go = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        await go.wait()
        writer.write(whole_answer())

    async with serve(reply) as wire, client(wire, max_connections=1) as chat:
        first = asyncio.ensure_future(chat.chat("first"))
        second = asyncio.ensure_future(chat.chat("second"))
        while not wire.requests:
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        assert (await first).text == (await chat.chat("third")).text == "Hello there!"
    assert len(wire.requests) == 2


async def test_cancelled_in_backoff() -> None:
    """F96: no further request."""
    asked = asyncio.Event()

    async def busy(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(with_length("503 B", b"{}", "retry-after: 30"))
        asked.set()

    async with serve(busy) as wire, client(wire, retry=Retry()) as chat:
        task = asyncio.ensure_future(chat.chat("Hi"))
        await asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(wire.requests) == 1


async def test_a_timeout_of_the_callers() -> None:
    """F97: asyncio.timeout around it is the caller's TimeoutError, not ours; the server sees the end."""
    here: list[Wire] = []
    async with serve(stalls(here)) as wire, client(wire) as chat:
        here.append(wire)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await chat.chat("Hi")
        await wire.closed.wait()
    assert not isinstance(caught.value, StreamChatError)


async def test_cancelled_while_closing() -> None:
    """F98: during the drain too the connection is closed and the answer stands; again is harmless."""
    asked = asyncio.Event()

    async def open_end(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(body(plain(), done=False)))
        await asked.wait()
        await wire.closed.wait()

    async with serve(open_end) as wire, client(wire) as chat:
        stream = chat.chat_stream("Hi")
        for _ in plain():
            await anext(stream)
        asked.set()
        closing = asyncio.ensure_future(stream.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await wire.closed.wait()
        await stream.aclose()
        assert (await stream).text == "Hello there!"


async def test_a_client_whose_closing_is_cancelled_leaves_nothing() -> None:
    """F98, F101: whenever aclose() is cancelled, sockets are closed and nothing warns."""
    for turns in range(4):
        here: list[Wire] = []
        async with serve(stalls(here)) as wire:
            here.append(wire)
            chat = client(wire)
            stream = chat.chat_stream("Hi")
            await anext(stream)
            closing = asyncio.ensure_future(chat.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            await chat.aclose()
            with pytest.raises(StreamChatError):
                await stream
            await wire.closed.wait()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del chat, stream
                gc.collect()


async def test_closing_the_client_ends_each_of_its_streams() -> None:
    """F99: running, waiting for headers, waiting in the pool: one closed error each, at once."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(wire.requests) == 1:
            writer.write(CHUNKED + chunked(b"".join(PARTS[:3])))
        await wire.closed.wait()

    async with serve(reply) as wire:
        chat = client(wire, max_connections=2)
        tasks = [asyncio.ensure_future(chat.chat("Hi")) for _ in range(4)]
        while len(wire.requests) < 2:
            await asyncio.sleep(0)
        await chat.aclose()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
    for error in ends:
        assert isinstance(error, TransportError)
        assert error.kind == "closed"
        check_clean(error)


async def test_use_after_close() -> None:
    """F100: each way says that it is closed, and nothing is sent."""
    async with serve(answer_whole) as wire:
        chat = client(wire, retry=Retry(base=0))
        before = chat.chat_stream("Hi")
        await chat.aclose()
        for use in (
            before,
            chat.chat_stream("Hi"),
            chat.chat("Hi"),
            anext(chat.chat_stream("Hi")),
            anext(chat.chat_stream("Hi").text()),
            anext(chat.chat_stream("Hi").frames()),
            chat.chat_stream("Hi").__aenter__(),
        ):
            with pytest.raises(TransportError, match="the client is closed") as caught:
                await use
            check_clean(caught.value)
            assert (caught.value.kind, caught.value.attempts) == ("closed", 1)
        async with before as stream:  # entering what has failed is no error; consuming it is
            with pytest.raises(TransportError, match="the client is closed"):
                await stream
    assert not wire.requests


async def test_two_readers() -> None:
    """F102: the second gets a clear error; the first loses nothing."""
    go = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(PARTS[0]))
        await go.wait()
        writer.write(chunked(b"".join(PARTS[1:])) + b"0\r\n\r\n")

    async with serve(reply) as wire, client(wire) as chat:
        stream = chat.chat_stream("Hi")
        first = await anext(stream)
        reader = asyncio.ensure_future(collect(stream))
        await asyncio.sleep(0)
        for other in (stream.__anext__(), anext(stream.text()), anext(stream.frames()), stream):
            with pytest.raises(ConcurrencyError, match="being consumed already"):
                await other
        go.set()
        seen, error = await reader
    assert ([first, *seen], error) == (plain(), None)


async def test_a_storm_of_retries_ends() -> None:
    """F105: streams of one client share one budget; an outage does not triple the load."""
    busy = says(with_length("503 B"), close=False)
    async with serve(busy) as wire, client(wire, retry=Retry(base=0), max_connections=8) as chat:
        ends = await asyncio.gather(*(chat.chat("Hi") for _ in range(150)), return_exceptions=True)
    assert all(isinstance(error, StreamChatError) for error in ends)
    assert len(wire.requests) == 150 + 100


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [1e9, -1e9])
async def test_the_wall_clock_may_jump(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """F106: no limit runs on it, and a date in Retry-After counts from the response's own clock."""
    real = time.time
    head = (
        "date: Sun, 29 Sep 2024 23:46:20 GMT",
        "retry-after: Sun, 29 Sep 2024 23:46:20 GMT",
    )

    async def in_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(wire.requests) == 1:
            writer.write(with_length("503 B", b"{}", *head))
            return
        writer.write(CHUNKED + chunked(PARTS[0]))
        await jumped.wait()
        writer.write(chunked(b"".join(PARTS[1:])) + b"0\r\n\r\n")

    jumped = asyncio.Event()
    limits = Timeout(connect=5, first_event=5, idle=5, total=5)
    async with serve(in_parts) as wire, client(wire, timeout=limits, retry=Retry(base=0)) as chat:
        stream = chat.chat_stream("Hi")
        await anext(stream)
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        jumped.set()
        assert (await stream).text == "Hello there!"
    assert stream.attempts == 2
    assert stream.timing.total is not None
    assert 0 <= stream.timing.total < 5


# --- secrets, headers, cookies -------------------------------------------------------------------

INJECTIONS = [
    "a\r\nX: y",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\x1bb",
    "a\x7fb",
    "käse",
    "a\u2028b",
    "\ud800",
    "a\tb",
]
NAMES = ["", "a b", "a:b", "a\r\nb", "ä", "a\0", "(a)", "a/b", "\ud800", "a,b", "a\u2028"]


@pytest.mark.parametrize("value", INJECTIONS)
@pytest.mark.parametrize("way", ["key", "name", "client", "call"])
async def test_no_header_can_be_injected_by_value(value: str, way: str) -> None:
    """F108: refused before anything is sent; the message does not repeat a value."""
    bad = "canary" + value
    with pytest.raises((ConfigurationError, ValueError)) as caught:
        match way:
            case "key":
                Client(bad, base_url="https://inside.test")
            case "name":
                Client(KEY, base_url="https://inside.test", client_name=bad)
            case "client":
                Client(KEY, base_url="https://inside.test", headers={"X-A": bad})
            case _:
                Client(KEY).chat_stream("Hi", model="m", headers={"X-A": bad})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
async def test_no_header_can_be_injected_by_name(name: str) -> None:
    """F108: only what RFC 9110 calls a token."""
    with pytest.raises(ValueError, match="not a valid header name"):
        Client(KEY, base_url="https://inside.test", headers={name: "x"})
    with pytest.raises(ValueError, match="not a valid header name"):
        Client(KEY).chat_stream("Hi", model="m", headers={name: "x"})


async def test_cookies_of_any_kind_are_not_kept() -> None:
    """F110: of an answer, of an error and of a redirect; for the next request and the next client."""
    cookie = "set-cookie: a=b; Path=/; Max-Age=9999"
    replies = [
        says(with_length("503 B", b"{}", cookie), close=False),
        says(
            whole_answer().replace(b"200 OK\r\n", b"200 OK\r\n" + cookie.encode() + b"\r\n"),
            close=False,
        ),
        answer_whole,
    ]
    async with serve(*replies) as wire, client(wire, retry=Retry(base=0)) as chat:
        for _ in range(3):
            await chat.chat("Hi")
    assert len(wire.requests) == 4
    assert not any("cookie" in request.headers for request in wire.requests)


async def test_no_log_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """F109: at DEBUG of every logger: no key, no prompt, no answer."""
    caplog.set_level(logging.DEBUG)
    busy = says(with_length("503 B", b"canary-body"), close=False)
    cut = says(CHUNKED + chunked(b"".join(PARTS[:4])))
    async with serve(busy, cut) as wire, client(wire, retry=Retry(base=0)) as chat:
        await failure(chat, TruncatedStreamError)
    assert "canary" not in caplog.text
    assert "Hello" not in caplog.text
    assert any(record.name == "streamchat" for record in caplog.records)


# --- requests ------------------------------------------------------------------------------------

UNSERIALISABLE: list[Any] = [
    math.nan,
    math.inf,
    "\ud800",
    object(),
    {1: 2},
    {"a": b"bytes"},
    {"a": {"b": [math.nan]}},
    {1, 2},
]


@pytest.mark.parametrize("value", UNSERIALISABLE, ids=lambda value: type(value).__name__)
async def test_a_request_that_json_cannot_say(value: Any) -> None:
    """F111: an error of the call itself, with the place; no connection is made."""
    async with serve(answer_whole) as wire, client(wire) as chat:
        with pytest.raises((TypeError, ValueError), match=r"documents\[0\]") as caught:
            chat.chat_stream("Hi", documents=[{"data": {"x": value}}])
    assert caught.value.__context__ is None
    assert not wire.requests


async def test_a_request_of_many_megabytes() -> None:
    """F111: 30 MB are sent whole, while the loop goes on."""
    big = "x" * 30_000_000
    async with serve(answer_whole) as wire, client(wire) as chat:
        assert (await chat.chat("Hi", documents=[big])).text == "Hello there!"
    assert len(wire.requests[0].body) > 30_000_000


async def test_what_the_caller_changes_meanwhile_is_not_sent() -> None:
    """F112: the body is built once, when the stream is made; every try sends the same bytes."""
    messages = [{"role": "user", "content": "first"}]
    busy = says(with_length("503 B"), close=False)
    async with serve(busy, answer_whole) as wire, client(wire, retry=Retry(base=0)) as chat:
        stream = chat.chat_stream(messages)
        messages[0]["content"] = "changed"
        messages.append({"role": "user", "content": "added"})
        await stream
    assert wire.requests[0].body == wire.requests[1].body
    assert json.loads(wire.requests[0].body)["messages"] == [{"role": "user", "content": "first"}]


async def test_retrying_is_off_where_it_is_off() -> None:
    """R3: attempts=1 sends once."""
    async with (
        serve(says(with_length("503 B"), close=False)) as wire,
        client(wire, retry=ONCE) as chat,
    ):
        await failure(chat, StreamChatError)
    assert len(wire.requests) == 1
