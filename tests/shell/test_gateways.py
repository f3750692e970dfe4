"""Streams through gateways: keep-alives, errors in place of the first event, JSON lines, odd bodies."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamchat import (
    AnswerTooLargeError,
    ChatStream,
    Client,
    ContentDelta,
    DecodeError,
    Event,
    FrameTooLargeError,
    GenerationError,
    ProtocolError,
    Retry,
    StreamTimeoutError,
    Timeout,
    TruncatedStreamError,
    UnexpectedContentTypeError,
    UnknownEvent,
)
from streamchat import source as source_module
from streamchat.plan import Pacer
from streamchat.protocol import DONE, encode_event, encode_frame
from streamchat.protocol.errors import StreamChatError
from tests.fakes import Answer, FakeTransport, make_stream
from tests.frames import body, cited, pieces, plain, thinking, tools

PINGS = {
    "typed": b'event: ping\ndata: {"type":"ping"}\n\n',
    "typed, without an event line": b'data: {"type":"ping"}\n\n',
    "an object without a type": b'event: heartbeat\ndata: {"ts":1}\n\n',
    "text": b"event: keepalive\ndata: 2026-01-01T00:00:00Z\n\n",
    "null": b"event: ping\ndata: null\n\n",
}
EMPTY = {
    "empty data": b"data:\n\n",
    "empty data of a name": b"event: ping\ndata: \n\n",
    "no data": b"event: ping\n\n",
    "a comment": b": ping\n\n",
    "an id": b"id: 7\n\n",
}
ONCE = Retry(attempts=1)
WITHOUT_JITTER = Retry(base=0)


async def all_of(stream: ChatStream) -> list[Event]:
    return [event async for event in stream]


# --- keep-alives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("place", range(7))
async def test_a_frame_without_data_is_skipped(name: str, place: int) -> None:
    """Before the first event, between any two, and behind the last."""
    sent = pieces(plain())
    stream = make_stream(Answer(*sent[:place], EMPTY[name], *sent[place:]))
    assert await all_of(stream) == plain()


@pytest.mark.parametrize("name", PINGS)
@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("apart", [True, False])
async def test_a_keep_alive_is_delivered_and_ends_nothing(
    name: str, place: int, apart: bool
) -> None:
    """As an unknown event, where it came; alone in its chunk or not."""
    sent = pieces(plain())
    parts = [*sent[:place], PINGS[name], *sent[place:]]
    stream = make_stream(Answer(*parts) if apart else Answer(b"".join(parts)))
    seen = await all_of(stream)
    assert isinstance(seen.pop(place), UnknownEvent)
    assert seen == plain()
    assert (await stream).text == "Hello there!"


@pytest.mark.parametrize("ping", [*PINGS.values(), *EMPTY.values()])
@pytest.mark.parametrize(
    ("before", "phase", "seconds"), [([], "first_event", 7.0), (pieces(plain())[:3], "idle", 5.0)]
)
async def test_keep_alives_feed_no_limit(
    ping: bytes, before: list[bytes], phase: str, seconds: float
) -> None:
    """Neither first_event nor idle, whatever a keep-alive looks like."""
    loop = asyncio.get_running_loop()
    answer = Answer(*before, *[2.0, ping] * 20, *pieces(plain())[3:])
    stream = make_stream(answer, timeout=Timeout(first_event=7, idle=5), retry=ONCE)
    started = loop.time()
    with pytest.raises(StreamTimeoutError) as caught:
        await stream
    assert caught.value.phase == phase
    assert loop.time() - started == pytest.approx(seconds, abs=0.1)


async def test_the_consumers_time_between_keep_alives_is_not_the_servers() -> None:
    """A slow consumer of unknown events does not use up the idle limit of the answer."""
    sent = pieces(plain())
    answer = Answer(*sent[:3], *[1.0, PINGS["typed"]] * 3, 1.0, *sent[3:])
    stream = make_stream(answer, timeout=Timeout(idle=5), retry=ONCE)
    async for event in stream:
        if isinstance(event, UnknownEvent):
            await asyncio.sleep(30)
    assert (await stream).text == "Hello there!"
    assert stream.timing.longest_gap == 4.0


async def test_too_many_unknown_events_before_the_first_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are kept until the first event of Chat v2, so there is an end to them."""
    ping = PINGS["typed"]
    with pytest.raises(ProtocolError, match="sent 11 events that Chat v2 does not have"):
        monkeypatch.setattr(source_module, "MAX_EARLY_BYTES", 10 * (64 + len(ping.rstrip())))
        await make_stream(Answer(*[ping] * 20, body(plain())))
    monkeypatch.undo()
    assert source_module.MAX_EARLY_BYTES == 16 * 2**20  # as SECURITY.md says
    stream = make_stream(Answer(ping * 5000, body(plain())))
    assert len(await all_of(stream)) == 5000 + len(plain())


# --- errors --------------------------------------------------------------------------------------


def error(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"error": {"message": "busy", **fields}}).encode() + b"\n\n"


def end(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"type": "message-end", "delta": delta}).encode() + b"\n\n"


class Told(Pacer):
    """A pacer that keeps what it is told."""

    def __init__(self) -> None:
        self.refusals: list[StreamChatError] = []

    async def before_attempt(self, request: Any, body: bytes) -> None:
        pass

    def on_refusal(self, error: StreamChatError, retry: Retry) -> None:
        self.refusals.append(error)

    def on_end(self, end: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("tries", "first"),
    [
        (3, error(code=429)),
        (3, error(code="503")),
        (3, error(code=529, type="x")),
        (3, error(type="overloaded_error")),
        (3, error(type="rate_limit_error")),
        (3, b'event: error\ndata: {"status":500,"message":"busy"}\n\n'),
        (3, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'),
        (3, PINGS["typed"] + b": c\n\n" + error(code=503)),
        (3, end(error={"message": "busy", "code": 429})),
        (3, PINGS["typed"] + end(error="busy", error_type="overloaded_error")),
        (1, end(finish_reason="ERROR")),
        (1, error(code=400)),
        (1, error(code=501)),
        (1, error(type="invalid_request_error")),
        (1, error(type="overloaded_error", code=400)),
        (1, b'data: {"message":"busy"}\n\n'),
        (1, b"event: error\ndata: busy\n\n"),
    ],
)
async def test_an_error_as_the_first_event_is_retried_like_its_status(
    tries: int, first: bytes
) -> None:
    """Counted in attempts, and raised with its code when it stays."""
    transport = FakeTransport(*[Answer(first + encode_frame(DONE)) for _ in range(3)])
    with pytest.raises(GenerationError) as caught:
        await make_stream(transport=transport, retry=WITHOUT_JITTER)
    assert (caught.value.attempts, len(transport.requests)) == (tries, tries)
    assert caught.value.partial is None or not caught.value.partial.text


@pytest.mark.parametrize("failed", [error(code=429), end(error={"message": "x", "code": 503})])
async def test_frames_end_with_an_error_that_has_no_event_line(failed: bytes) -> None:
    """In the middle of an answer, as event: error does."""
    answer = b"".join(pieces(plain())[:3]) + failed + b"".join(pieces(plain())[3:])
    with pytest.raises(GenerationError) as caught:
        async for _ in make_stream(Answer(answer)).frames():
            pass
    assert caught.value.status in (429, 503)


async def test_done_under_a_foreign_name_does_not_end_an_answer() -> None:
    """A gateway's own event; the answer goes on."""
    stream = make_stream(Answer(b"event: ping\ndata: [DONE]\n\n" + body(plain())))
    assert await all_of(stream) == [UnknownEvent("ping", {"data": "[DONE]"}), *plain()]


async def test_an_answer_after_a_retried_error_is_the_answer() -> None:
    """Handlers receive nothing of the attempt that failed."""
    transport = FakeTransport(Answer(PINGS["typed"], error(code=429)), Answer(body(plain())))
    stream = make_stream(transport=transport, retry=WITHOUT_JITTER)
    assert await all_of(stream) == plain()
    assert stream.attempts == 2


async def test_an_error_behind_the_first_event_is_not_retried() -> None:
    """What arrived is in the error."""
    transport = FakeTransport(Answer(*pieces(plain())[:4], error(code=429)), Answer(body(plain())))
    with pytest.raises(GenerationError) as caught:
        await make_stream(transport=transport, retry=WITHOUT_JITTER)
    assert (caught.value.status, caught.value.attempts, len(transport.requests)) == (429, 1, 1)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"


async def test_a_pacer_is_told_of_an_error_in_place_of_the_first_event() -> None:
    """So that a limiter that everybody shares pauses."""
    told = Told()
    stream = make_stream(Answer(error(code=429)), Answer(body(plain())), retry=WITHOUT_JITTER)
    object.__setattr__(stream._plan, "pacer", told)
    await stream
    (refusal,) = told.refusals
    assert isinstance(refusal, GenerationError)
    assert refusal.status == 429


@pytest.mark.parametrize(
    ("expected", "finish"),
    [
        (("boom", "500", 500), {"error": {"message": "boom", "code": 500}}),
        (
            ("boom", "overloaded", 529),
            {
                "finish_reason": "ERROR",
                "error": {"message": "boom", "type": "overloaded", "code": 529},
            },
        ),
        (("boom", None, None), {"finish_reason": "error", "error": "boom"}),
        (("boom", None, None), {"finish_reason": "COMPLETE", "error": {"message": "boom"}}),
        (("", None, None), {"finish_reason": "timeout"}),
    ],
)
async def test_an_end_with_an_error_is_a_failed_answer(expected: Any, finish: Any) -> None:
    """Whatever the spelling of the reason, and whether the error is text or an object."""
    last = b"data: " + json.dumps({"type": "message-end", "delta": finish}).encode() + b"\n\n"
    with pytest.raises(GenerationError) as caught:
        await make_stream(Answer(*pieces(plain())[:4], last))
    assert expected == (caught.value.error, caught.value.error_type, caught.value.status)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"


# --- several events in one frame -----------------------------------------------------------------

SEVERAL = (
    b'data: {"type":"content-delta","index":0,"delta":{"message":{"content":'
    b'[{"text":"a"},{"text":"b"},{"text":"c"}]}}}\n\n'
)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("way", ["iterate", "await", "handler", "event middleware", "text"])
async def test_each_event_of_a_frame_is_delivered(apart: bool, way: str) -> None:
    """In order and once, to whoever consumes the stream, in whatever way."""
    sent = pieces(plain("x"))
    parts = [*sent[:3], SEVERAL, sent[2], SEVERAL, *sent[3:]]
    stream = make_stream(Answer(*parts) if apart else Answer(b"".join(parts)))
    seen: list[str] = []
    if way == "handler":
        stream.on_content_delta(lambda event: seen.append(event.text))
        await stream
    elif way == "event middleware":

        @stream.event_middleware
        def keep(event: Event) -> Event:
            if isinstance(event, ContentDelta):
                seen.append(event.text)
            return event

        await stream
    elif way == "text":
        seen = [piece async for piece in stream.text()]
    elif way == "iterate":
        seen = [event.text async for event in stream if isinstance(event, ContentDelta)]
    else:
        seen = [*"xabcxabc"]
    assert "".join(seen) == "xabcxabc"
    assert (await stream).text == "xabcxabc"


async def test_events_of_a_frame_are_counted_one_by_one() -> None:
    """An error behind them says how many events were received."""
    stream = make_stream(Answer(pieces(plain())[0] + SEVERAL + b"data: {oops\n\n"))
    with pytest.raises(DecodeError):
        await stream
    stream = make_stream(Answer(pieces(plain())[0] + SEVERAL))
    with pytest.raises(TruncatedStreamError) as caught:
        await stream
    assert caught.value.events == 4


async def test_who_goes_on_with_frames_gets_whole_frames() -> None:
    """Half of a frame's events were read as events; its frame does not come again."""
    stream = make_stream(Answer(pieces(plain())[0] + SEVERAL + b"".join(pieces(plain())[1:])))
    seen = [await anext(stream), await anext(stream)]
    assert isinstance(seen[1], ContentDelta)
    frames = [frame.event async for frame in stream.frames()]
    assert frames[0] == "content-start"
    assert frames[-2:] == ["message-end", "message"]


# --- JSON lines ----------------------------------------------------------------------------------


def lines(events: list[Event], end: bytes = b"\n") -> bytes:
    return b"".join(encode_event(event).data + end for event in events)


def lined(*steps: Any, media_type: str = "application/stream+json") -> Answer:
    return Answer(*steps, headers={"content-type": media_type})


MEDIA_TYPES = [
    "application/stream+json",
    "application/x-ndjson",
    "application/jsonl",
    "Application/NDJSON; charset=utf-8",
    "application/json",
    "text/event-stream",
]
FLOWS = [plain(), cited(), thinking(), tools()]


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b" \n \n"])
async def test_json_lines_are_read_like_an_event_stream(
    media_type: str, size: int, end: bytes
) -> None:
    """The same events and the same answer, under every content type that they come with."""
    for events in FLOWS:
        sent = b"\xef\xbb\xbf" + lines(events, end)
        chunks = [sent[at : at + size] for at in range(0, len(sent), size)]
        stream = make_stream(lined(*chunks, media_type=media_type))
        assert await all_of(stream) == events
        usual = make_stream(Answer(body(events)))
        assert await stream == await usual


async def test_frames_of_json_lines_are_those_of_an_event_stream() -> None:
    """Without the terminator, which JSON lines do not have."""
    stream = make_stream(lined(lines(plain())))
    frames = [(frame.event, frame.data) async for frame in stream.frames()]
    usual = make_stream(Answer(body(plain())))
    assert frames == [(frame.event, frame.data) async for frame in usual.frames()][:-1]


async def test_a_last_line_without_its_end_counts() -> None:
    """The body ends instead of the line."""
    stream = make_stream(lined(lines(plain()).removesuffix(b"\n")))
    assert (await stream).text == "Hello there!"


@pytest.mark.parametrize("cut", [1, 30])
async def test_json_lines_without_an_end_are_truncated(cut: int) -> None:
    """Inside the last line, or before it."""
    for sent in (lines(plain())[: -cut - 1], lines(plain()[:-1])):
        with pytest.raises(TruncatedStreamError) as caught:
            await make_stream(lined(sent), retry=ONCE)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Hello there!"


async def test_a_line_over_the_limit_is_too_large() -> None:
    """After the lines before it, whatever the chunking."""
    large = plain("x" * 2_000_000)
    for size in (1000, 10**7):
        sent = lines(large)
        chunks = [sent[at : at + size] for at in range(0, len(sent), size)]
        with pytest.raises(FrameTooLargeError) as caught:
            await make_stream(lined(*chunks))
        assert caught.value.partial is not None


@pytest.mark.parametrize(
    ("tries", "expected", "first"),
    [
        (2, GenerationError, b'{"error":{"message":"busy","code":429}}\n'),
        (1, GenerationError, b'{"message":"no","error_type":"X"}\n'),
        (1, DecodeError, b'{"event_type":"stream-start"}\n'),
    ],
)
async def test_errors_of_json_lines_are_those_of_an_event_stream(
    tries: int, expected: type[Exception], first: bytes
) -> None:
    """Retried, or raised with their words."""
    transport = FakeTransport(*[lined(first) for _ in range(2)])
    with pytest.raises(expected):
        await make_stream(transport=transport, retry=Retry(attempts=2, base=0))
    assert len(transport.requests) == tries


async def test_waiting_for_the_first_line_is_waiting_for_the_first_event() -> None:
    """Its limit holds while the framing is not known yet, and no shorter one does."""
    sent = lines(plain())
    stream = make_stream(lined(30.0, sent[:20], 30.0, sent[20:]), retry=ONCE)
    assert (await stream).text == "Hello there!"
    with pytest.raises(StreamTimeoutError) as caught:
        await make_stream(lined(30.0, sent[:20], 100.0, sent[20:]), retry=ONCE)
    assert caught.value.phase == "first_event"


# --- bodies that are no stream -------------------------------------------------------------------

UNARY = json.dumps(
    {
        "id": "u",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "canary"}]},
        "finish_reason": "COMPLETE",
    }
).encode()


@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream", "text/plain"])
@pytest.mark.parametrize(
    ("words", "sent"),
    [
        ("no credits", b'{"error":{"message":"no credits"}}'),
        ("no credits", b'{\n  "message": "no credits"\n}\n'),
        ("no credits", b'  {"detail":"no credits"}\n\n'),
        ("a whole answer that was not streamed", UNARY),
        ("a whole answer that was not streamed", b" \n" + UNARY + b"\n"),
        ("without words of an error", b'{"canary":1}'),
        ("without words of an error", b'["canary"]'.replace(b'"canary"', b"1")),
    ],
)
async def test_a_body_of_plain_json_is_explained(media_type: str, words: str, sent: bytes) -> None:
    """An error by its words, under whatever content type; an answer is named and not quoted."""
    for chunks in ([sent], [sent[:9], sent[9:]]):
        answer = Answer(*chunks, headers={"content-type": media_type})
        with pytest.raises(UnexpectedContentTypeError, match=words) as caught:
            await make_stream(answer)
        assert "canary" not in str(caught.value)
        assert caught.value.body == sent
        assert caught.value.content_type == media_type


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        ("looks like an event stream", body(plain("canary"))),
        ("looks like an event stream", b": hello\n\n" + body(plain("canary"))),
        ("looks like JSON lines", lines(plain("canary"))),
        ("cut off or malformed", b'{"id": 1,\n "message": {"role": "x", "content": "canary'),
        ("looks like an answer", b'{"role":"assistant","content":"canary"}'),
        ("sign in", b"<html>sign in</html>"),
    ],
)
async def test_an_answer_under_another_content_type_is_not_quoted(words: str, sent: bytes) -> None:
    """A proxy's page is; its first words are the best explanation there is."""
    for media_type in ("text/plain", "text/html", "application/octet-stream", ""):
        answer = Answer(sent, headers={"content-type": media_type})
        with pytest.raises(UnexpectedContentTypeError, match=words) as caught:
            await make_stream(answer)
        assert "canary" not in str(caught.value)


async def test_an_empty_body_is_an_early_end() -> None:
    """Under each content type that an answer may have; it is tried again."""
    for media_type in MEDIA_TYPES:
        transport = FakeTransport(
            lined(media_type=media_type), lined(lines(plain()), media_type=media_type)
        )
        stream = make_stream(transport=transport, retry=WITHOUT_JITTER)
        assert (await stream).text == "Hello there!"


# --- the size of an answer -----------------------------------------------------------------------


async def test_an_answer_over_its_limit_is_an_error_with_what_came_before() -> None:
    """Counted over the whole body, comments and unknown events included."""
    sent = pieces(plain())
    limit = sum(map(len, sent[:4])) + 10
    for more in (b": c\n\n" * 100, PINGS["typed"] * 100, b"".join(sent[2:])):
        transport = FakeTransport(Answer(*sent[:4], more, *sent[4:]))
        stream = make_stream(transport=transport)
        object.__setattr__(stream._plan, "max_answer_bytes", limit)
        with pytest.raises(AnswerTooLargeError, match="raise max_answer_bytes") as caught:
            await stream
        assert caught.value.limit == limit
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Hello there"
        assert caught.value.attempts == 1


async def test_an_answer_of_the_limit_is_read() -> None:
    """To the byte; each attempt begins anew."""
    sent = body(plain())
    transport = FakeTransport(Answer(error(code=503)), Answer(sent))
    stream = make_stream(transport=transport, retry=WITHOUT_JITTER)
    object.__setattr__(stream._plan, "max_answer_bytes", len(sent))
    assert (await stream).text == "Hello there!"


@pytest.mark.parametrize(
    ("expected", "value"), [(TypeError, "1"), (TypeError, True), (TypeError, 1.5), (ValueError, 0)]
)
async def test_a_limit_of_an_answer_that_means_nothing_is_refused(
    expected: type[Exception], value: Any
) -> None:
    """At the client and at the call; it is named."""
    with pytest.raises(expected, match="max_answer_bytes"):
        Client("k", base_url="http://127.0.0.1:1", model="m", max_answer_bytes=value)
    client = Client("k", base_url="http://127.0.0.1:1", model="m")
    with pytest.raises(expected, match="max_answer_bytes"):
        client.chat_stream("Hi", max_answer_bytes=value)


async def test_the_limit_of_an_answer_is_the_clients_or_the_calls() -> None:
    """256 MiB unless one of them says otherwise."""
    client = Client("k", base_url="http://127.0.0.1:1", model="m")
    assert client.chat_stream("Hi")._plan.max_answer_bytes == 256 * 2**20
    assert client.chat_stream("Hi", max_answer_bytes=7)._plan.max_answer_bytes == 7
    client = Client("k", base_url="http://127.0.0.1:1", model="m", max_answer_bytes=9)
    assert client.chat_stream("Hi")._plan.max_answer_bytes == 9
    assert client.chat_stream("Hi", max_answer_bytes=7)._plan.max_answer_bytes == 7
