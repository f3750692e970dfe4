"""faults.md 3.4: what can be wrong with the events of a body that arrives whole (F66 to F87)."""

from __future__ import annotations

import json

import pytest

from streamchat import (
    ContentDelta,
    DecodeError,
    FrameTooLargeError,
    GenerationError,
    MessageEnd,
    StreamChatError,
    ToolCallDelta,
    TruncatedStreamError,
    UnexpectedContentTypeError,
    UnknownEvent,
)
from tests.catalogue.helpers import CHUNKED, TWICE, check_clean, client, collect, says, stream_of
from tests.frames import body, end, pieces, plain, tools
from tests.wire.server import chunked, serve

PARTS = pieces(plain())
FOUR = b"".join(PARTS[:4])
LIMIT = 64 * 1024


def data(value: object, event: str = "") -> bytes:
    """One event of any JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    line = f"event: {event}\n" if event else ""
    return f"{line}data: {text}\n\n".encode()


def delta(index: int, text: str = "x") -> bytes:
    return data(
        {"type": "content-delta", "index": index, "delta": {"message": {"content": {"text": text}}}}
    )


# name: what comes after four good events, how the stream then ends
FATAL: dict[str, tuple[bytes, type[StreamChatError]]] = {
    "F66 line without end": (b"data: " + b"x" * 2 * LIMIT, FrameTooLargeError),
    "F66 comment without end": (b": " + b"x" * 2 * LIMIT, TruncatedStreamError),
    "F66 line of 64 KiB": (data("x" * LIMIT), FrameTooLargeError),
    "F67 endless data lines": (b"data: x\n" * LIMIT, FrameTooLargeError),
    "F71 HTML": (b"<html>\n<body>\n\nBad Gateway\n\n</html>\n\n", TruncatedStreamError),
    "F71 a JSON object": (b'{"message":"x"}\n\n', TruncatedStreamError),
    "F71 binary": (bytes(range(256)) * 9 + b"\n\n", TruncatedStreamError),
    "F72 not JSON": (data("{canary", "content-delta"), DecodeError),
    "F72 cut JSON": (data('{"type":"content-delta","index":'), DecodeError),
    "F74 2,000 levels": (data('{"type":"x","a":' + "[" * 2000 + "]" * 2000 + "}"), DecodeError),
    "F75 4,301 digits": (data('{"type":"content-end","index":' + "1" * 4301 + "}"), DecodeError),
    "F75 1e400": (data('{"type":"content-end","index":1e400}'), DecodeError),
    "F75 NaN": (data('{"type":"content-end","index":NaN}'), DecodeError),
    "F75 Infinity": (data('{"type":"content-end","index":-Infinity}'), DecodeError),
    "F78 a list": (data([]), DecodeError),
    "F78 a number": (data(7), DecodeError),
    "F78 null": (data(None), DecodeError),
    "F78 no type": (data({"canary": 1}), DecodeError),
    "F78 type is a number": (data({"type": 7}), DecodeError),
    "F80 no tool call": (data({"type": "tool-call-start", "index": 0}), DecodeError),
    "F80 delta is a list": (data({"type": "content-delta", "delta": []}), DecodeError),
    "F80 text is a number": (
        data({"type": "content-delta", "delta": {"message": {"content": {"text": 7}}}}),
        DecodeError,
    ),
    "F80 index is text": (data({"type": "content-end", "index": "canary"}), DecodeError),
    "F80 finish reason is a number": (
        data({"type": "message-end", "delta": {"finish_reason": 7}}),
        DecodeError,
    ),
    "F82 a second start": (PARTS[0], DecodeError),
    "F83 a block starts twice": (PARTS[1], DecodeError),
    "F83 a call that never started": (pieces(tools())[4], DecodeError),
    "F83 a huge index": (delta(100_001), DecodeError),
    "F83 a negative index": (delta(-1), DecodeError),
    "F86 an error event": (data({"message": "canary"}, "error"), GenerationError),
    "F86 a stray message": (data({"message": "out of luck", "id": "x"}), GenerationError),
    "F86 an error in words": (data("out of luck", "error"), GenerationError),
    "F87 comments alone": (b": ping\n\n" * 100, TruncatedStreamError),
    "F73 [DONE] too early": (b"data: [DONE]\n\n", TruncatedStreamError),
    "F73 [DONE] without space": (b"data:[DONE]\n\n", TruncatedStreamError),
}


@pytest.mark.parametrize("name", FATAL)
async def test_a_bad_event_behind_good_ones(name: str) -> None:
    """F66 to F87: the events before it are delivered, then one error of ours; nothing is skipped."""
    bad, expected = FATAL[name]
    reply = says(stream_of(FOUR + bad), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE, max_event_bytes=LIMIT) as chat:
        stream = chat.chat_stream("Hi")
        seen, error = await collect(stream)
        assert type(error) is expected, repr(error)
        with pytest.raises(expected):  # R1: it ended once, and says so to whoever asks again
            await stream
    assert isinstance(error, StreamChatError)
    assert seen == plain()[:4]
    assert error.partial is not None
    assert error.partial.text == "Hello there"
    assert (error.attempts, len(wire.requests)) == (1, 1)
    if not isinstance(error, GenerationError):
        assert "canary" not in str(error)


AT_ONCE = {
    name: (bad, expected)
    for name, (bad, expected) in FATAL.items()
    if not name.startswith(("F82", "F83"))
}


@pytest.mark.parametrize("name", AT_ONCE)
async def test_a_bad_event_before_any_good_one(name: str) -> None:
    """F66 to F87, R3: at zero events an early end is tried again, what the server really said is not."""
    bad, expected = FATAL[name]
    reply = says(stream_of(bad), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE, max_event_bytes=LIMIT) as chat:
        seen, error = await collect(chat.chat_stream("Hi"))
    if name == "F71 a JSON object":
        expected = UnexpectedContentTypeError  # from its first byte on, not an event stream
    assert type(error) is expected
    assert seen == []
    assert error.partial is None
    assert error.attempts == (2 if expected is TruncatedStreamError else 1)


async def test_the_limit_names_itself() -> None:
    """F66, F67, R5: the error holds the limit, and the setting to raise."""
    reply = says(CHUNKED + chunked(b"data: " + b"x" * 2 * LIMIT), close=False)
    async with serve(reply) as wire, client(wire, max_event_bytes=LIMIT) as chat:
        _, error = await collect(chat.chat_stream("Hi"))
        await wire.closed.wait()
    assert isinstance(error, FrameTooLargeError)
    assert error.limit == LIMIT
    assert "max_event_bytes" in str(error)


async def test_a_decode_error_says_where_and_not_what() -> None:
    """F72: event type, path and length in the words; the payload only as an attribute."""
    bad = data({"type": "content-end", "index": "canary"}, "content-end")
    async with serve(says(stream_of(FOUR + bad))) as wire, client(wire) as chat:
        _, error = await collect(chat.chat_stream("Hi"))
    assert isinstance(error, DecodeError)
    assert (error.event_type, error.path) == ("content-end", "$.index")
    assert b"canary" in error.payload
    assert "canary" not in str(error)
    assert str(len(error.payload)) in str(error)


async def test_a_long_stream_of_small_events_is_allowed() -> None:
    """F68: 20,000 events, one answer."""
    texts = [f"{number} " for number in range(20_000)]
    async with serve(says(stream_of(body(plain(*texts))))) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "".join(texts)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
async def test_cuts_anywhere(size: int, ends: bytes) -> None:
    """F69: BOM, emoji, line ends and field names in pieces of any size, a chunk each."""
    events = plain("Grüß 🦁", "\u2028a\u0085b\x0b", "ende")
    sent = b"\xef\xbb\xbf" + body(events).replace(b"\n", ends)
    cut = b"".join(chunked(sent[at : at + size]) for at in range(0, len(sent), size))
    async with serve(says(CHUNKED + cut + b"0\r\n\r\n")) as wire, client(wire) as chat:
        seen, error = await collect(chat.chat_stream("Hi"))
    assert (seen, error) == (events, None)


async def test_ill_formed_text_is_kept() -> None:
    """F70: a byte that is no UTF-8 is U+FFFD; NUL, controls and a BOM inside are text."""
    odd = delta(0, "?").replace(b"?", b"a\xff\xe2\x82b") + delta(0, "\0\x1b\ufeffc")
    async with (
        serve(says(stream_of(FOUR + odd + b"".join(PARTS[4:])))) as wire,
        client(wire) as chat,
    ):
        answer = await chat.chat("Hi")
    assert answer.text == "Hello therea\ufffd\ufffdb\0\x1b\ufeffc!"
    answer.text.encode()


async def test_halves_of_an_emoji_in_two_deltas() -> None:
    """F76: both events are kept, the text is whole, and what is handed out can always be encoded."""
    halves = delta(0, "\ud83e") + delta(0, "\udd81") + delta(0, "\ud83d")
    async with (
        serve(says(stream_of(FOUR + halves + b"".join(PARTS[5:])))) as wire,
        client(wire) as chat,
    ):
        stream = chat.chat_stream("Hi")
        texts = [event.text async for event in stream if isinstance(event, ContentDelta)]
        answer = await stream
    assert answer.text == "Hello there\U0001f981\ufffd"
    for text in texts:
        text.encode()


HARMLESS = {
    "F77 duplicate keys": (b'data: {"type":"x","type":"content-end","index":5,"index":0}\n\n', 1),
    "F79 unknown type": (data({"type": "x-new", "n": 1}), 1),
    "F79 unknown kind of content": (
        data(
            {"type": "content-start", "index": 7, "delta": {"message": {"content": {"type": "x"}}}}
        ),
        1,
    ),
    "F80 unknown fields": (data({"type": "content-end", "index": 0, "new": {"a": [1]}}), 1),
    "F80 null is absent": (data({"type": "content-end", "index": None}), 1),
    "F81 another event line": (data({"type": "content-end", "index": 0}, "citation-start"), 1),
    "F83 a block that never started": (delta(5), 1),
    "F83 the largest index": (delta(100_000), 1),
    "F83 a citation that never started": (data({"type": "citation-end", "index": 3}), 0),
    "F83 a call that never started, nor anything of it": (
        data({"type": "tool-call-end", "index": 3}),
        0,
    ),
    "F80 no delta": (data({"type": "content-delta", "index": 0}), 1),
    "F87 comments, ids, retries": (b": ping\n\nid: 7\n\nretry: 5\n\n:\n\n", 0),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_odd_but_no_fault(name: str) -> None:
    """F77 to F83, F87: delivered or passed over, and the answer goes on to its end."""
    odd, more = HARMLESS[name]
    reply = says(stream_of(FOUR + odd + b"".join(PARTS[4:])))
    async with serve(reply) as wire, client(wire) as chat:
        stream = chat.chat_stream("Hi")
        seen, error = await collect(stream)
        answer = await stream
    assert error is None
    assert [event for at, event in enumerate(seen) if not 4 <= at < 4 + more] == plain()
    assert "Hello there" in answer.text
    assert "!" in answer.text


async def test_an_unknown_event_is_delivered_as_it_is() -> None:
    """F79: to the iterator and to the catch-all handler, with its whole object."""
    odd = data({"type": "x-new", "n": [1]})
    heard = []
    async with (
        serve(says(stream_of(FOUR + odd + b"".join(PARTS[4:])))) as wire,
        client(wire) as chat,
    ):
        chat.on_unknown(heard.append)
        await chat.chat("Hi")
    assert heard == [UnknownEvent("x-new", {"type": "x-new", "n": [1]})]


async def test_interleaved_blocks_and_calls() -> None:
    """F83: keyed by index, whatever the order."""
    one, two = pieces(plain("a", "b")), tools()
    calls = [event for event in two if isinstance(event, ToolCallDelta)]
    assert calls
    parts = [one[0], delta(1, "x"), delta(0, "a"), delta(1, "y"), delta(0, "b"), one[-2], one[-1]]
    async with serve(says(stream_of(b"".join(parts)))) as wire, client(wire) as chat:
        answer = await chat.chat("Hi")
    assert sorted(part.text for part in answer.message.content) == ["ab", "xy"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "after", [data({"type": "x-new"}), delta(0), data("{oops"), PARTS[0], b"\xff" * 9]
)
async def test_nothing_counts_after_message_end(after: bytes) -> None:
    """F84: events, nonsense, a second start: ignored."""
    reply = says(stream_of(b"".join(PARTS[:-1]) + after + PARTS[-1]))
    async with serve(reply) as wire, client(wire) as chat:
        stream = chat.chat_stream("Hi")
        seen, error = await collect(stream)
        assert (await stream).text == "Hello there!"
    assert (seen, error) == (plain(), None)


@pytest.mark.parametrize("reason", ["ERROR", "ERROR_TOXIC", "ERROR_LIMIT", "TIMEOUT"])
async def test_an_answer_that_failed(reason: str) -> None:
    """F85: delivered as the last event, then raised with reason, words and what had come."""
    events = [*plain()[:4], end(reason, error="out of luck")]
    async with serve(says(stream_of(body(events)))) as wire, client(wire, retry=TWICE) as chat:
        seen, error = await collect(chat.chat_stream("Hi"))
    assert seen == events
    assert isinstance(error, GenerationError)
    check_clean(error)
    assert (error.finish_reason, error.error, error.attempts) == (reason, "out of luck", 1)
    assert error.partial is not None
    assert error.partial.text == "Hello there"


@pytest.mark.parametrize(
    "reason", ["COMPLETE", "MAX_TOKENS", "STOP_SEQUENCE", "USER_CANCEL", "OF_THE_FUTURE"]
)
async def test_an_answer_that_ended(reason: str) -> None:
    """F85: every other reason is an answer, also one that nobody knows yet."""
    events = [*plain()[:-1], end(reason)]
    async with serve(says(stream_of(body(events)))) as wire, client(wire) as chat:
        stream = chat.chat_stream("Hi")
        seen, error = await collect(stream)
        answer = await stream
    assert (seen, error, answer.finish_reason) == (events, None, reason)
    assert isinstance(seen[-1], MessageEnd)
