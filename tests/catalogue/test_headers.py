# ruff: noqa: SIM117
"""faults.md 3.2: what can go wrong between the request and the first byte of the body (F16 to F40)."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import zlib

import aiohttp
import pytest

import streamchat.transport.exchange as exchange_module
from streamchat import (
    AuthenticationError,
    InvalidTokenError,
    PermissionDeniedError,
    ProtocolError,
    Retry,
    ServerError,
    StatusError,
    StreamTimeoutError,
    Timeout,
    TransportError,
    UnexpectedContentTypeError,
)
from tests.catalogue.helpers import (
    KEY,
    TWICE,
    client,
    failure,
    reset,
    resets,
    says,
    stream_of,
    with_length,
)
from tests.frames import body, pieces, plain
from tests.wire.server import EVENT_STREAM, Request, answer_whole, chunked, serve

ANSWER = body(plain())
SOON = Timeout(first_event=0.1)


# --- no answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nx-canary: secret\r\n"])
async def test_a_connection_that_ends_before_the_headers(end: str, sent: bytes) -> None:
    """F16, F18: nothing, or half the headers: a connection error, tried again, that quotes none of it."""
    reply = says(sent) if end == "FIN" else resets(sent)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, TransportError, "closed the connection before it answered")
    assert (error.kind, error.attempts, len(wire.requests)) == ("reset", 2, 2)
    assert "canary" not in str(error).replace(KEY, "")


async def test_the_answer_after_a_lost_connection_is_whole() -> None:
    """F16, R3: the second try is a request of its own, with the same bytes."""
    async with serve(says(b""), answer_whole) as wire, client(wire, retry=TWICE) as chat:
        stream = chat.chat_stream("Hi")
        assert (await stream).text == "Hello there!"
    assert stream.attempts == 2
    assert wire.requests[0].body == wire.requests[1].body


@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_a_used_connection_that_ends_before_the_headers(end: str) -> None:
    """F17: replaced once, at once and for free; a fresh one that ends as well is a failure."""

    async def once_then_never(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(wire.requests) == 1:
            await answer_whole(writer, request)
        elif end == "FIN":
            writer.close()
        else:
            reset(writer)

    async with serve(once_then_never) as wire, client(wire) as chat:
        await chat.chat("Hi")
        error = await failure(chat, TransportError)
    assert (error.kind, error.attempts) == ("reset", 1)
    assert [request.connection for request in wire.requests] == [0, 0, 1]


# --- headers without end -------------------------------------------------------------------------


async def _trickle(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nx-long: ")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.01)  # the pause is the fault; the line would take a minute


async def _provisional_then_silence(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
    await _until_closed(writer)


async def _provisional_then_part(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")
    await _until_closed(writer)


async def _provisional_for_ever(writer: asyncio.StreamWriter, request: Request) -> None:
    while not writer.is_closing():
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


async def _until_closed(writer: asyncio.StreamWriter) -> None:
    while not writer.transport.is_closing():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "reply", [_trickle, _provisional_then_silence, _provisional_then_part, _provisional_for_ever]
)
async def test_headers_that_never_end(reply: object) -> None:
    """F19 to F22: single bytes and 1xx answers do not feed the limit; not tried again, it may cost twice."""
    async with serve(reply) as wire, client(wire, timeout=SOON, retry=TWICE) as chat:  # type: ignore[arg-type]
        error = await failure(chat, StreamTimeoutError)
        await wire.closed.wait()
    assert (error.phase, error.attempts) == ("first_event", 1)


async def test_provisional_answers_before_the_answer() -> None:
    """F21: 100 and 103 are passed over, also many of them."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    reply = says(b"HTTP/1.1 100 Continue\r\n\r\n" + hints * 100, stream_of(ANSWER))
    async with serve(reply) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"


async def test_switching_protocols_is_no_answer() -> None:
    """F23: 101 is an error, and the connection is closed."""
    reply = says(b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nfoo", close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, StatusError, "HTTP 101")
        await wire.closed.wait()
    assert (error.status, error.attempts) == (101, 1)


# --- what is not HTTP ----------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
MALFORMED = {
    "F24 words": b"canary says hello\r\n\r\n",
    "F24 HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00canary" + b"\x00" * 12,
    "F24 binary": bytes(range(128, 256)) + b"canary\r\n\r\n",
    "F24 status of letters": b"HTTP/1.1 abc canary\r\n\r\n",
    "F25 many": HEAD + b"".join(b"x-%d: canary\r\n" % n for n in range(200)) + b"\r\n",
    "F26 two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\ncanary",
    "F26 negative length": HEAD + b"content-length: -5\r\n\r\ncanary",
    "F26 length and chunks": HEAD
    + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\ncanar\r\n0\r\n\r\n",
    "F26 NUL": HEAD + b"x-a: cana\0ry\r\n\r\n",
}


TOO_LONG = {
    "F25 long line": HEAD + b"x-a: " + b"canary" * 2_000 + b"\r\n\r\n",
    "F25 long name": HEAD + b"canary" * 2_000 + b": x\r\n\r\n",
    "F25 long reason": b"HTTP/1.1 200 " + b"canary" * 2_000 + b"\r\n\r\n",
    "F25 without end": HEAD + b"x-a: " + b"canary" * 100_000,
}
MALFORMED |= TOO_LONG


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_not_http(name: str) -> None:
    """F24 to F26: a protocol error, not tried again, without the bytes; the connection is closed."""
    expected = "longer than the limit of 8190 bytes" if name in TOO_LONG else "not valid HTTP"
    async with serve(says(MALFORMED[name], close=False)) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, ProtocolError, expected)
        await wire.closed.wait()
    assert error.attempts == 1
    assert "canary" not in str(error) + repr(error.args)


async def test_a_long_header_is_read_with_a_session_that_allows_it() -> None:
    """F25: the message of the refusal names what raises the limit, and that does."""
    reply = says(HEAD + b"x-a: " + b"canary" * 2_000 + b"\r\ntransfer-encoding: chunked\r\n\r\n")
    async with serve(reply) as wire, client(wire) as chat:
        await failure(chat, ProtocolError, r"aiohttp\.ClientSession\(max_field_size=65536")
    whole = says(HEAD + b"x-a: " + b"canary" * 2_000 + b"\r\n" + stream_of(ANSWER)[len(HEAD) :])
    async with serve(whole) as wire:
        async with aiohttp.ClientSession(max_field_size=65536, max_line_size=65536) as session:
            async with client(wire, session=session) as chat:
                assert (await chat.chat("Hi")).text == "Hello there!"


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"\r\n", b"\n") + b"content-length: %d\n\n" % len(ANSWER),
        HEAD + b"x-folded: a\r\n b\r\ncontent-length: %d\r\n\r\n" % len(ANSWER),
    ],
    ids=["bare LF", "obs-fold"],
)
async def test_old_forms_of_headers(head: bytes) -> None:
    """F27: accepted, or refused as a whole when Python runs with -X dev; nothing in between."""
    async with serve(says(head + ANSWER)) as wire, client(wire) as chat:
        if sys.flags.dev_mode:
            await failure(chat, ProtocolError)
        else:
            try:
                assert (await chat.chat("Hi")).text == "Hello there!"
            except ProtocolError:
                assert "bare" not in head.decode()  # the parser in pure Python is stricter


# --- other statuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    """F28: the origin is named, path and query are not, and nothing is sent there."""
    async with serve(answer_whole) as elsewhere:
        target = f"location: {elsewhere.url}/canary?key=canary"
        reply = says(with_length(f"{status} R", b"", target), close=False)
        async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
            error = await failure(chat, StatusError, r"redirect to http://127\.0\.0\.1 refused")
        assert not elsewhere.requests
    assert (error.status, error.attempts) == (status, 1)
    assert "canary" not in str(error)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, AuthenticationError), (403, PermissionDeniedError), (498, InvalidTokenError)],
)
async def test_a_server_that_quotes_the_key(status: int, expected: type[StatusError]) -> None:
    """F29: the server's words are kept, the key in them is not: not in body, words or headers."""
    said = json.dumps({"message": f"the token {KEY} is not valid"}).encode()
    reply = says(with_length(f"{status} N", said, f"www-authenticate: Bearer x={KEY}"), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, expected, "the token <key> is not valid")
    assert error.attempts == 1
    assert KEY not in repr(error.body) + repr(error.headers) + error.message


async def test_a_key_quoted_by_an_ok_that_is_no_stream() -> None:
    """F29, F37: a gateway's page may quote the request as well."""
    page = f"<html>You sent: Authorization: Bearer {KEY}</html>".encode()
    reply = says(with_length("200 OK", page, "content-type: text/html"), close=False)
    async with serve(reply) as wire, client(wire) as chat:
        error = await failure(chat, UnexpectedContentTypeError, "Bearer <key>")
    assert KEY.encode() not in error.body


@pytest.mark.parametrize("status", [400, 402, 404, 405, 413, 422, 499, 501, 521, 525, 526, 530])
async def test_what_trying_again_cannot_mend(status: int) -> None:
    """F30: the server's message, status and request id; one request."""
    said = b'{"message":"no such luck","id":"x"}'
    head = "x-debug-trace-id: abc123"
    reply = says(with_length(f"{status} N", said, head), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, StatusError, "no such luck.*abc123")
    assert (error.status, error.message, error.request_id) == (status, "no such luck", "abc123")
    assert (error.attempts, len(wire.requests)) == (1, 1)
    assert wire.connections == 1


@pytest.mark.parametrize(
    "status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 523, 524, 529]
)
async def test_what_trying_again_may_mend(status: int) -> None:
    """F31: the same request again, on the connection that is there; the answer is whole."""
    busy = says(with_length(f"{status} B"), close=False)
    async with serve(busy, busy, answer_whole) as wire, client(wire, retry=Retry(base=0)) as chat:
        stream = chat.chat_stream("Hi")
        assert (await stream).text == "Hello there!"
    assert (stream.attempts, len({request.body for request in wire.requests})) == (3, 1)
    assert wire.connections == 1


@pytest.mark.parametrize(
    "header",
    [
        "retry-after-ms: 1",
        "retry-after: 0.001",
        "retry-after: Sun, 29 Sep 2024 23:46:20 GMT\r\ndate: Sun, 29 Sep 2024 23:46:20 GMT",
        "retry-after: -10",
        "retry-after: 0",
        "retry-after: nan",
        "retry-after: " + "9" * 35,
        "retry-after: Zun, 29 Sep 2024 99:99:99 GMT",
        "retry-after:",
    ],
)
async def test_retry_after_from_a_real_response(header: str) -> None:
    """F32, F33, F35: what is short is waited for, and what is nonsense is ignored."""
    busy = says(with_length("429 T", b"{}", header), close=False)
    async with serve(busy, answer_whole) as wire, client(wire, retry=TWICE) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["retry-after: 61"], 61),
        (["retry-after-ms: 90000"], 90),
        (
            [
                "date: Sun, 29 Sep 2024 23:46:20 GMT",
                "retry-after: Sun, 29 Sep 2024 23:48:20 GMT",
            ],
            120,
        ),
    ],
)
async def test_a_long_retry_after_is_raised_at_once(headers: list[str], seconds: float) -> None:
    """F33, F34: neither slept through nor ignored; a date counts from the response's own clock."""
    async with serve(says(with_length("503 T", b"{}", *headers), close=False)) as wire:
        async with client(wire, retry=TWICE) as chat:
            error = await failure(chat, ServerError)
    assert (error.retry_after, error.attempts) == (seconds, 1)


# --- error bodies --------------------------------------------------------------------------------


async def _endless_error(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(b"HTTP/1.1 400 B\r\ntransfer-encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(chunked(b"x" * 4096))
        await writer.drain()


async def _stalled_error(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(b'HTTP/1.1 400 B\r\ncontent-length: 100\r\n\r\n{"message":')
    await _until_closed(writer)


ERROR_BODIES = {
    "huge": (says(with_length("400 B", b"x" * 10_000_000), close=False), "x" * 100),
    "endless": (_endless_error, "x" * 100),
    "slow": (_stalled_error, "{"),
    "binary": (says(with_length("400 B", bytes(range(256)))), ""),
    "cut": (says(with_length("400 B", b"x" * 50)[:-20]), "x" * 30),
    "cut by RST": (resets(with_length("400 B", b"x" * 50)[:-20]), ""),
    "not JSON": (says(with_length("400 B", b"<h1>Bad\r\nGateway</h1>")), "<h1>Bad Gateway</h1>"),
    "nested": (says(with_length("400 B", b"[" * 60_000)), "[[["),
    "half an emoji": (says(with_length("400 B", b'{"message":"\\ud83d"}')), "\ufffd"),
    "line ends": (says(with_length("400 B", b'{"message":"a\\nb\\u001b[31m"}')), "a b"),
    "message of another type": (says(with_length("400 B", b'{"message":[1]}')), "message"),
    "gzip": (
        says(with_length("400 B", gzip.compress(b'{"message":"zip"}'), "content-encoding: gzip")),
        "zip",
    ),
    "broken gzip": (says(with_length("400 B", b"nonsense", "content-encoding: gzip")), ""),
    "nothing": (says(b"HTTP/1.1 400 B\r\n\r\n"), "no message"),
}


@pytest.mark.parametrize("name", ERROR_BODIES)
async def test_the_status_is_told_whatever_the_body(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F36: 64 KiB within the limit of seconds, then the status is raised anyway, in one line."""
    monkeypatch.setattr(exchange_module, "ERROR_BODY_SECONDS", 0.1)
    reply, shown = ERROR_BODIES[name]
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, StatusError)
    assert (error.status, error.attempts) == (400, 1)
    assert len(error.body) <= 64 * 1024
    assert len(str(error)) < 700
    assert str(error).isprintable()
    assert shown in str(error)


# --- 200 that is no event stream -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "said", "shown"),
    [
        ("text/html", b"<html>Please log in</html>", "Please log in"),
        ("application/json", b'{"message":"out of order"}', "out of order"),
        ("text/x-bogus", b"data: x\n\n", "text/x-bogus"),
        ("x bogus", b"data: x\n\n", "x bogus"),
        ("text/event-streams", b"data: x\n\n", "text/event-streams"),
        (None, b"data: x\n\n", "no content type"),
        ("", b"data: x\n\n", "no content type"),
    ],
)
async def test_an_ok_of_another_kind(content_type: str | None, said: bytes, shown: str) -> None:
    """F37, F38: an error with an excerpt, or with the message of a JSON object; one request."""
    headers = [] if content_type is None else [f"content-type: {content_type}"]
    reply = says(with_length("200 OK", said, *headers), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, UnexpectedContentTypeError, shown)
    assert (error.body, error.content_type) == (said, content_type or "")
    assert error.attempts == 1


@pytest.mark.parametrize("status", ["200", "201", "202", "203", "206", "226", "299"])
async def test_an_event_stream_under_any_success_is_an_answer(status: str) -> None:
    """F39: gateways answer 201 and others; what counts is the content type."""
    reply = says(with_length(f"{status} S", ANSWER, "content-type: text/event-stream"), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        stream = chat.chat_stream("Hi")
        assert (await stream).text == "Hello there!"
    assert (stream.status, stream.attempts) == (int(status), 1)


@pytest.mark.parametrize("status", ["204", "205"])
async def test_a_success_without_content_is_not_an_answer(status: str) -> None:
    """F39: RFC 9110 gives these no content; what comes all the same is not quoted in the error."""
    said = b"" if status == "204" else ANSWER
    reply = says(with_length(f"{status} S", said, "content-type: text/event-stream"), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, StatusError)
    assert (error.status, error.attempts) == (int(status), 1)
    assert "Hello" not in str(error)


async def test_no_content_with_content() -> None:
    """F39: 204 with a body is an error, and the body is nobody's next answer."""
    reply = says(EVENT_STREAM.replace(b"200 OK", b"204 N") + b"content-length: 5\r\n\r\nhello")
    async with serve(reply, answer_whole) as wire, client(wire) as chat:
        with pytest.raises((StatusError, ProtocolError)):
            await chat.chat("Hi")
        assert (await chat.chat("Hi")).text == "Hello there!"
    assert wire.connections == 2


# --- codings that nobody asked for ---------------------------------------------------------------


def encoded(coding: str, data: bytes) -> bytes:
    head = f"content-encoding: {coding}\r\ntransfer-encoding: chunked\r\n\r\n"
    return EVENT_STREAM + head.encode() + chunked(data) + b"0\r\n\r\n"


RAW_DEFLATE = zlib.compress(ANSWER)[2:-4]
DECODED = {
    "gzip": gzip.compress(ANSWER),
    "GZIP": gzip.compress(ANSWER),
    "x-gzip": gzip.compress(ANSWER),
    "X-Gzip": gzip.compress(ANSWER),
    "identity, gzip": gzip.compress(ANSWER),
    "gzip,none": gzip.compress(ANSWER),
    "gzip ": b"".join(map(gzip.compress, pieces(plain()))),
    "deflate": zlib.compress(ANSWER),
    "Deflate": RAW_DEFLATE,
    "deflate\r\ncontent-encoding: identity": RAW_DEFLATE,
    "identity": ANSWER,
    "none": ANSWER,
    " NONE ": ANSWER,
    "identity, none": ANSWER,
    "none\r\ncontent-encoding: none": ANSWER,
    ",": ANSWER,
    "": ANSWER,
}


@pytest.mark.parametrize("coding", DECODED)
async def test_codings_that_are_decoded(coding: str) -> None:
    """F40: identity is asked for; what gateways send instead is decoded all the same."""
    reply = says(encoded(coding, DECODED[coding]), close=False)
    async with serve(reply) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"
    assert wire.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["utf-8", "chunked", "aws-chunked", "UTF8", "binary", "8bit"])
async def test_text_under_a_name_that_is_not_a_coding_is_read(coding: str) -> None:
    """F40: a charset or transfer coding in the wrong header; other clients ignore it."""
    reply = says(encoded(coding, ANSWER), close=False)
    async with serve(reply) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"


@pytest.mark.parametrize("coding", ["x-unknown", "x-deflate", "compress", "gzip, gzip", "brr"])
async def test_codings_that_are_not_decoded(coding: str) -> None:
    """F40: an error that names the coding, not an empty answer; one request."""
    reply = says(encoded(coding, gzip.compress(ANSWER)), close=False)
    async with serve(reply) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(
            chat, ProtocolError, f"Content-Encoding '{coding}'.*cannot be decoded"
        )
    assert error.attempts == 1


PACKAGES = {"br": ("brotli", "pip install Brotli"), "zstd": ("zstd", "pip install backports.zstd")}


@pytest.mark.parametrize("coding", PACKAGES)
async def test_a_coding_without_its_package_says_what_to_install(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F40: the coding and the package are named; one request, and nothing of the body is shown."""
    module, hint = PACKAGES[coding]
    for name in ("brotli", "brotlicffi", "compression.zstd", "backports.zstd"):
        if module in name:
            monkeypatch.setitem(sys.modules, name, None)
    async with serve(says(encoded(coding, b"nonsense"), close=False)) as wire:
        async with client(wire, retry=TWICE) as chat:
            error = await failure(chat, ProtocolError, f"Content-Encoding '{coding}'.*{hint}")
    assert error.attempts == 1
    assert "nonsense" not in str(error)


async def test_an_error_in_a_coding_without_its_package_keeps_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F40, F36: the status is raised, and is retried where it is one of those."""
    monkeypatch.setitem(sys.modules, "brotlicffi", None)
    monkeypatch.setitem(sys.modules, "brotli", None)
    busy = says(with_length("503 B", b"\x0b\x02", "content-encoding: br"), close=False)
    async with serve(busy) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, ServerError)
    assert (error.status, error.attempts) == (503, 2)


async def test_a_session_of_the_callers_decodes_nothing_twice() -> None:
    """F40: the caller's session may decode for its other requests; ours are decoded here."""
    for decodes in (True, False):
        reply = says(encoded("gzip", gzip.compress(ANSWER)))
        async with serve(reply) as wire, aiohttp.ClientSession(auto_decompress=decodes) as session:
            async with client(wire, session=session) as chat:
                assert (await chat.chat("Hi")).text == "Hello there!"
