"""Requests that ask for too much, or never end: a JSON 4xx, and everybody else is served."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import threading
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamchat.local import LocalServer
from streamchat.local.checks import RefusalError, check, read_body
from streamchat.local.filler import fill
from streamchat.local.hints import Hints
from streamchat.local.model import answer
from streamchat.local.schema import MAX_WORK, Work
from streamchat.local.server import is_heavy
from streamchat.local.unary import fold
from streamchat.local.wire import inflate
from streamchat.protocol.codec import encode_event
from streamchat.protocol.events import Event
from streamchat.protocol.plain import encode_json

USER = {"role": "user", "content": "Weather in Lima?"}
HELLO: dict[str, Any] = {"model": "m", "messages": [USER]}
SECRET = "sk-very-secret"


async def connect(server: LocalServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))


async def read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.rstrip().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    else:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return int(status.split(" ")[1]), fields, body


async def send(server: LocalServer, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    """The response to a request that is sent in parts."""
    reader, writer = await connect(server)
    try:
        for part in parts:
            writer.write(part)
        return await read_response(reader)
    finally:
        writer.close()


def request(body: Any, **fields: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Host": "localhost", "Content-Length": str(len(data))} | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /v2/chat HTTP/1.1\r\n{head}\r\n".encode() + data


def refused(response: tuple[int, dict[str, str], bytes], status: int, words: str) -> None:
    """Assert that this is a JSON error with Cohere's headers and body."""
    got, fields, body = response
    assert got == status
    assert fields["content-type"] == "application/json"
    assert len(fields["x-debug-trace-id"]) == 32
    details = json.loads(body)
    assert list(details) == ["id", "message"]
    assert words in details["message"]
    assert len(body) < 1_000
    assert SECRET not in body.decode()


# --- schemas that ask for much -------------------------------------------------------------------


def inside(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}, "required": ["x"]}


def chain(word: str, length: int = 60) -> dict[str, Any]:
    """Each definition names the next one twice: 2**60 paths."""
    definitions: dict[str, Any] = {
        f"D{n}": {word: [{"$ref": f"#/$defs/D{n + 1}"}] * 2} for n in range(length)
    }
    definitions[f"D{length}"] = {"type": "string"}
    return inside({"$ref": "#/$defs/D0"}) | {"$defs": definitions}


def tree(length: int = 60) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        f"D{n}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/D{n + 1}"} for side in "ab"},
            "required": ["a", "b"],
        }
        for n in range(length)
    }
    return {"$ref": "#/$defs/D0", "$defs": definitions}


def nested_arrays(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, "minItems": 3}
    return inside(schema)


TOO_MUCH = "asks for too much"
ENDLESS = "no finite value"
ITSELF = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
BIG: dict[str, tuple[dict[str, Any], str]] = {
    "oneOf doubling": (chain("oneOf"), TOO_MUCH),
    "references doubling": (tree(), TOO_MUCH),
    "20,000 parts of allOf": (
        {"type": "object", "allOf": [{"required": [f"p{n}"]} for n in range(20_000)]},
        TOO_MUCH,
    ),
    "minItems 10**9": (inside({"type": "array", "minItems": 10**9}), TOO_MUCH),
    "minItems with 301 digits": (inside({"type": "array", "minItems": 10**300}), TOO_MUCH),
    "minItems in minItems": (nested_arrays(40), TOO_MUCH),
    "minLength 10**9": (inside({"type": "string", "minLength": 10**9}), TOO_MUCH),
    "minProperties 10**9": (inside({"type": "object", "minProperties": 10**9}), TOO_MUCH),
    "minContains 10**9": (
        inside({"type": "array", "contains": {"type": "string"}, "minContains": 10**9}),
        TOO_MUCH,
    ),
    "a constant a thousand times": (
        inside({"type": "array", "minItems": 1_000, "items": {"const": "x" * 100_000}}),
        TOO_MUCH,
    ),
    "a long name": (inside({"type": "object", "required": ["x" * 1_000_000]}), TOO_MUCH),
    "20,000 required mail addresses": (
        {
            "properties": {f"p{n}": {"type": "string", "format": "email"} for n in range(20_000)},
            "required": [f"p{n}" for n in range(20_000)],
        },
        TOO_MUCH,
    ),
    "required itself": (ITSELF, ENDLESS),
    "required itself in an array": (
        {
            "type": "object",
            "properties": {"all": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}},
            "required": ["all"],
        },
        ENDLESS,
    ),
    "required each other": (
        {
            "$ref": "#/$defs/A",
            "$defs": {
                "A": {"properties": {"b": {"$ref": "#/$defs/B"}}, "required": ["b"]},
                "B": {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]},
            },
        },
        ENDLESS,
    ),
    "a choice of itself": (inside({"anyOf": [{"$ref": "#/properties/x"}] * 2}), ENDLESS),
}


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize("stream", [True, False])
async def test_schemas_that_ask_for_too_much_are_refused(
    server: LocalServer, name: str, stream: bool
) -> None:
    schema, words = BIG[name]
    style = {"type": "json_object", "json_schema": schema}
    body = HELLO | {"stream": stream, "response_format": style}
    refused(await send(server, request(body)), 400, words)
    function = {"name": "get_weather", "parameters": schema}
    body = HELLO | {"stream": stream, "tools": [{"type": "function", "function": function}]}
    refused(await send(server, request(body)), 400, words)


HARMLESS: dict[str, dict[str, Any]] = {
    "allOf doubling": chain("allOf"),
    "anyOf doubling": chain("anyOf"),
    "allOf of itself": {"allOf": [{"$ref": "#"}, {"$ref": "#"}], "type": "object"},
    "a reference to itself": inside({"$ref": "#/properties/x"}),
    "100,000 options": inside({"anyOf": [{"type": "string"}] * 100_000}),
    "100,000 values": inside({"enum": [f"v{n}" for n in range(100_000)]}),
    "1,000 different numbers": inside(
        {"type": "array", "items": {"type": "integer"}, "minItems": 1_000, "uniqueItems": True}
    ),
    "nested quantifiers": inside({"type": "string", "pattern": "^(a+)+$"}),
    "overlapping quantifiers": inside({"type": "string", "pattern": "(x+x+)+y"}),
    "counts of counts": inside({"type": "string", "pattern": "((a{1000}){1000}){1000}"}),
    "a long pattern": inside({"type": "string", "pattern": "(a|b)?" * 20_000}),
    "a deep pattern": inside({"type": "string", "pattern": "(" * 5_000 + ")" * 5_000}),
    "a bound with 400 digits": inside({"type": "number", "minimum": 10**400}),
    "a tiny step": inside({"type": "number", "minimum": 0.1, "multipleOf": 1e-320}),
    "a deep schema": inside(json.loads('{"items":' * 90 + "{}" + "}" * 90)),
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize(
    "question", ["Weather in Lima?", "a" * 60 + "!", "x" * 9_000, "1 p " * 2_500]
)
def test_schemas_that_only_look_expensive_are_filled(name: str, question: str) -> None:
    work = Work()
    value = fill(HARMLESS[name], Hints(question), everything=True, work=work)
    assert isinstance(value, dict)
    assert 0 <= work.left < MAX_WORK


def test_all_calls_of_an_answer_share_one_allowance() -> None:
    log = {"properties": {f"p{n}": {"type": "integer"} for n in range(1_500)}}
    log["required"] = list(log["properties"])  # type: ignore[assignment]
    schema = {"properties": {"city": {"type": "string"}, "log": log}, "required": ["city", "log"]}
    function = {"name": "get_weather", "parameters": schema}
    offered = {"model": "m", "tools": [{"type": "function", "function": function}]}

    def asked(question: str) -> list[Event]:
        return answer(offered | {"messages": [{"role": "user", "content": question}]})

    assert asked("Weather in Lima?")
    with pytest.raises(RefusalError) as caught:
        asked("Weather in Lima, Cusco, Ica, Piura, Tacna, Puno, Paita and Nazca?")
    assert TOO_MUCH in caught.value.message


# --- bodies --------------------------------------------------------------------------------------


def called(count: int) -> list[Any]:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": f"c{n}", "type": "function", "function": function} for n in range(count)]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": "21"} for n in range(count)]
    return [USER, {"role": "assistant", "tool_calls": calls}, *results]


def tools(count: int) -> list[Any]:
    return [{"type": "function", "function": {"name": f"get_weather_{n}"}} for n in range(count)]


BODIES: dict[str, tuple[bytes, int, str]] = {
    name: (body if isinstance(body, bytes) else json.dumps(body).encode(), status, words)
    for name, (body, status, words) in {
        "ten million values": (b'{"model":[' + b"{}," * 10_000_000 + b"1]}", 400, "JSON values"),
        "a million strings": (b'{"model":[' + b'"",' * 1_000_000 + b"1]}", 400, "JSON values"),
        "100,000 tool messages": (HELLO | {"messages": called(100_000)}, 400, "JSON values"),
        "100,000 tools": (HELLO | {"tools": tools(100_000)}, 400, "JSON values"),
        "1,001 tools": (HELLO | {"tools": tools(1_001)}, 400, "at most 1000 tools"),
        "100,000 documents": (
            HELLO | {"documents": [{"id": f"{n}", "data": {"t": "x"}} for n in range(100_000)]},
            400,
            "JSON values",
        ),
        "deep nesting": (b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested"),
        "a long model": (HELLO | {"model": "not " * 1_000_000}, 404, "not found"),
        "a long field": ({"x" * 1_000_000: 1}, 422, "is not a valid field"),
        "a long tool name": (
            HELLO | {"tools": [{"type": "function", "function": {"name": "a" * 1_000_000}}]},
            400,
            "at most 256 characters",
        ),
        "a long document id": (
            HELLO | {"documents": [{"id": "a" * 1_000_000, "data": "x"}] * 2},
            400,
            "duplicate document ID",
        ),
        "33 MiB": (b"x" * (33 * 2**20), 413, "larger than 33554432 bytes"),
    }.items()
}


@pytest.mark.parametrize("name", BODIES)
async def test_bodies_that_are_too_large_are_refused(server: LocalServer, name: str) -> None:
    body, status, words = BODIES[name]
    refused(await send(server, request(body)), status, words)


def test_marks_inside_strings_are_not_counted_as_values() -> None:
    content = '[{,\\",' * 100_000
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]})
    assert read_body(body.encode())["messages"][0]["content"] == content


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": called(12_000)},
        {"messages": called(2_000), "tools": tools(1_000)},
        {"messages": [{"role": "user", "content": "My name is Ana. " * 100}] * 15_000},
        {"documents": [{"data": {f"weather{n}": None for n in range(60_000)}}]},
        {"documents": [{"data": {"x": ['{"lima": [' + "[]," * 60_000 + "1]}"] * 100}}]},
        {"documents": ["The weather in Lima is fine. " * 300_000]},
        {"messages": [{"role": "user", "content": "What is a? " * 900_000}]},
        {"stop_sequences": ["x" * 10_000_000]},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": f"get_{n}", "description": "weather Lima " * 2_000},
                }
                for n in range(1_000)
            ]
        },
    ],
)
async def test_large_requests_within_the_limits_are_answered(
    server: LocalServer, fields: dict[str, Any]
) -> None:
    status, _, _ = await send(server, request(HELLO | fields))
    assert status == 200


async def test_large_requests_are_worked_on_in_a_thread_and_small_ones_are_not() -> None:
    assert not is_heavy(json.dumps(HELLO).encode())
    assert is_heavy(json.dumps(HELLO | {"tools": []}).encode())
    assert is_heavy(json.dumps(HELLO | {"response_format": {}}).encode())
    assert is_heavy(json.dumps({"text": '{"type": "object"}'}).encode())
    assert is_heavy(b" " * 20_000)


async def test_a_callers_own_answer_runs_on_the_event_loop() -> None:
    seen: list[int] = []

    def own(body: Mapping[str, Any]) -> list[Event]:
        seen.append(threading.get_ident())
        return answer(body)

    async with LocalServer(answer=own) as server:
        status, _, _ = await send(server, request(HELLO | {"tools": tools(1), "stream": True}))
    assert status == 200
    assert seen == [threading.get_ident()]


async def test_bodies_of_all_requests_share_one_memory_limit(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamchat.local.wire.MAX_RECEIVING", 1_000)
    reader, writer = await connect(server)
    writer.write(request(b" " * 900)[:-1])  # one byte is missing
    while server._receiver.held < 899:
        await asyncio.sleep(0)
    refused(await send(server, request(b" " * 900)), 429, "too many large requests")
    writer.write(b" ")
    refused(await read_response(reader), 400, "invalid json syntax")
    assert server._receiver.held == 0
    writer.close()


# --- content encodings ---------------------------------------------------------------------------

PLAIN = json.dumps(HELLO).encode()
RAW_DEFLATE = zlib.compress(PLAIN)[2:-4]
GZIPPED = gzip.compress(PLAIN, mtime=0)  # test ids are made of it


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", GZIPPED),
        ("x-gzip", GZIPPED),
        ("GZIP", GZIPPED),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", RAW_DEFLATE),
        ("identity", PLAIN),
        ("", PLAIN),
    ],
)
async def test_compressed_bodies_are_read(server: LocalServer, encoding: str, body: bytes) -> None:
    status, _, _ = await send(server, request(body, Content_Encoding=encoding))
    assert status == 200


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", b"not gzip", "not valid gzip"),
        ("gzip", b"", "not valid gzip"),
        ("gzip", GZIPPED[:-9], "not valid gzip"),
        ("gzip", GZIPPED + b"more", "not valid gzip"),
        ("deflate", PLAIN, "not valid deflate"),
        ("br", PLAIN, "must be gzip or deflate"),
        ("zstd", PLAIN, "must be gzip or deflate"),
        ("none", PLAIN, "must be gzip or deflate"),
        ("gzip, gzip", GZIPPED, "must be gzip or deflate"),
        ("gzip;q=1", GZIPPED, "must be gzip or deflate"),
        (SECRET, PLAIN, "must be gzip or deflate"),
    ],
)
async def test_a_bad_content_encoding_is_a_json_400(
    server: LocalServer, encoding: str, body: bytes, words: str
) -> None:
    refused(await send(server, request(body, Content_Encoding=encoding)), 400, words)


@pytest.mark.parametrize("window", [zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS])
def test_decompression_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr("streamchat.local.wire.MAX_BODY", 10_000)
    compressor = zlib.compressobj(9, zlib.DEFLATED, window)
    bomb = compressor.compress(b"x" * 100_000_000) + compressor.flush()
    with pytest.raises(RefusalError) as caught:
        inflate(bomb, "gzip" if window > zlib.MAX_WBITS else "deflate")
    assert caught.value.status == 413


# --- requests that never end ---------------------------------------------------------------------

BEGINNINGS = {
    "half a line": b"POST /v2/ch",
    "no end of the headers": request(HELLO).partition(b"\r\n\r\n")[0],
    "half a body": request(HELLO)[:-5],
    "no body": request(HELLO).partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    "half a chunk": (
        b"POST /v2/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"
    ),
}


@pytest.mark.parametrize("name", BEGINNINGS)
async def test_a_request_that_stays_incomplete_is_a_json_408(
    server: LocalServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamchat.local.wire.RECEIVE_TIMEOUT", 0.05)
    reader, writer = await connect(server)
    writer.write(BEGINNINGS[name])
    refused(await read_response(reader), 408, "did not arrive completely within 0.05 seconds")
    assert await reader.read() == b""  # and the connection is closed
    writer.close()


async def test_a_trickle_of_header_bytes_does_not_extend_the_limit(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamchat.local.wire.RECEIVE_TIMEOUT", 0.05)
    reader, writer = await connect(server)
    writer.write(b"POST /v2/chat HTTP/1.1\r\n")

    async def trickle() -> None:
        while not writer.is_closing():
            writer.write(b"a: b\r\n")
            await asyncio.sleep(0.001)

    trickling = asyncio.create_task(trickle())
    refused(await read_response(reader), 408, "did not arrive completely")
    writer.close()
    await trickling


@pytest.mark.parametrize("name", BEGINNINGS)
async def test_a_request_that_ends_half_way_is_a_json_400(server: LocalServer, name: str) -> None:
    reader, writer = await connect(server)
    writer.write(BEGINNINGS[name])
    writer.write_eof()
    refused(await read_response(reader), 400, "ended half-way")
    assert await reader.read() == b""
    writer.close()


async def test_a_connection_without_a_request_is_closed_without_a_word(
    server: LocalServer,
) -> None:
    reader, writer = await connect(server)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def test_slow_requests_do_not_delay_others_and_end_with_the_server() -> None:
    async with LocalServer() as server:
        slow = [await connect(server) for _ in range(200)]
        for place, (_, writer) in enumerate(slow):
            writer.write(list(BEGINNINGS.values())[place % len(BEGINNINGS)])
        status, _, _ = await send(server, request(HELLO | {"stream": True}))
        assert status == 200
    for reader, writer in slow:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_connection_is_kept_after_answers_and_refusals(server: LocalServer) -> None:
    reader, writer = await connect(server)
    for body, status in ((HELLO, 200), ({"a": 1}, 422), (HELLO | {"stream": True}, 200)):
        writer.write(request(body))
        assert (await read_response(reader))[0] == status
    writer.write(request(HELLO) + request({}) + request(HELLO))  # pipelined
    assert [(await read_response(reader))[0] for _ in range(3)] == [200, 400, 200]
    writer.close()


async def test_the_rest_of_a_refused_body_is_not_taken_for_a_request(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is its time limit: the connection stays open for the next request."""
    limit, timers = 12345.0, list[asyncio.TimerHandle]()
    monkeypatch.setattr("streamchat.local.wire.RECEIVE_TIMEOUT", limit)
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noting(delay: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        timer = call_later(delay, *arguments, **options)
        if delay == limit:
            timers.append(timer)
        return timer

    monkeypatch.setattr(loop, "call_later", noting)
    reader, writer = await connect(server)
    whole = request(HELLO).replace(b"/v2/chat", b"/v9/chat")
    writer.write(whole[:-10])
    refused(await read_response(reader), 404, "404 page not found")
    assert timers
    assert all(timer.cancelled() for timer in timers)
    writer.write(whole[-10:])
    writer.write(request(HELLO))
    assert (await read_response(reader))[0] == 200
    writer.close()


# --- what is not HTTP ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # a TLS client hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9.9\r\n\r\n",
        f"POST /v2/chat HTTP/1.1\r\nno colon {SECRET}\r\n\r\n".encode(),
        f"POST /v2/chat HTTP/1.1\r\nHost: a\r\nAuthorization: {SECRET * 1_000}\r\n\r\n".encode(),
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n",
        b"POST /v2/chat HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{",
    ],
)
async def test_what_is_not_http_is_a_json_400_and_is_not_logged(
    server: LocalServer, wire: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refused(await send(server, wire), 400, "not a valid HTTP/1.1 request")
    assert SECRET not in caplog.text


async def test_broken_chunks_are_a_json_400(server: LocalServer) -> None:
    head = b"POST /v2/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    refused(await send(server, head + b"zz\r\n{}\r\n0\r\n\r\n"), 400, "invalid request: ")


async def test_expectations_are_met_or_refused(server: LocalServer) -> None:
    reader, writer = await connect(server)
    head, _, body = request(HELLO, Expect="100-continue").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read_response(reader))[0] == 200
    writer.close()
    refused(await send(server, request(HELLO, Expect="miracles")), 417, "100-continue")


async def test_a_failing_answer_is_a_json_500(caplog: pytest.LogCaptureFixture) -> None:
    def fails(body: Mapping[str, Any]) -> list[Event]:
        raise ZeroDivisionError("in the caller's own answer")

    async with LocalServer(answer=fails) as server:
        refused(await send(server, request(HELLO)), 500, "internal server error")
    assert "in the caller's own answer" in caplog.text


# --- any body ------------------------------------------------------------------------------------

NAMED = """object array string integer number null # #/$defs/A #/properties/a ^(a+)+$ ( date x"""
NUMBERS = [0, -1, 1, 1.5, 1e308, -1e308, 10**400]
SCALARS = st.sampled_from([None, True, False, "", "\x00", *NUMBERS, *NAMED.split()])
SCHEMA_WORDS = """type properties required items prefixItems enum const default format pattern
    minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems
    maxItems uniqueItems anyOf oneOf allOf not $ref $defs additionalProperties patternProperties
    propertyNames minProperties maxProperties dependentRequired contains minContains
    contentEncoding a b"""
WORDS = st.sampled_from(SCHEMA_WORDS.split())
ANY_SCHEMA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)
BODY_WORDS = """role content type text tool_calls id function name arguments tool_call_id document
    data image_url url parameters description strict json_schema schema mode token_budget
    thinking"""
FIELDS = st.sampled_from(BODY_WORDS.split())
ROLES = st.sampled_from(
    ["user", "assistant", "tool", "system", "function", "json_object", "enabled"]
)
ANY_VALUE = st.recursive(
    SCALARS | ROLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
TOP_WORDS = """model messages stream tools strict_tools tool_choice documents citation_options
    response_format safety_mode max_tokens stop_sequences temperature seed k p logprobs thinking"""
TOP = st.sampled_from(TOP_WORDS.split())


def respond(body: Any) -> str:
    """``answer``, or the message of the refusal; anything else raises."""
    try:
        events = answer(check(read_body(json.dumps(body).encode())))
    except RefusalError as refusal:
        if not 400 <= refusal.status < 500:
            raise
        return refusal.message
    encode_json(fold(events))
    for event in events:
        encode_event(event)
    return "answer"


@settings(max_examples=400, deadline=None)
@given(schema=ANY_SCHEMA, question=st.sampled_from(["", "Ana is 3", "a: 1, b: 2"]))
def test_any_json_as_a_schema_is_an_answer_or_a_refusal(schema: Any, question: str) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": f"{question} ?"}]}
    respond(asked | {"response_format": {"type": "json_object", "json_schema": schema}})
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    respond(asked | {"tools": [tool], "tool_choice": "REQUIRED"})
    respond(asked | {"tools": [tool]})
    respond(asked | {"messages": [{"role": "user", "content": f"{question} {json.dumps(schema)}"}]})


@settings(max_examples=400, deadline=None)
@given(
    fields=st.dictionaries(TOP, ANY_VALUE, max_size=4),
    message=st.dictionaries(FIELDS, ANY_VALUE, max_size=4),
    role=ROLES,
)
def test_any_json_as_a_body_is_an_answer_or_a_refusal(
    fields: dict[str, Any], message: dict[str, Any], role: str
) -> None:
    respond(HELLO | fields)
    respond(HELLO | {"messages": [USER, {**message, "role": role}]} | fields)
    respond(HELLO | {"tools": [{"type": "function", "function": {"name": "f", **message}}]})
    respond(HELLO | {"documents": [message, {"data": message}]})


@pytest.mark.parametrize("word", ["anyOf", "oneOf", "allOf"])
def test_hundreds_of_references_inside_each_other_are_a_refusal_at_most(word: str) -> None:
    definitions: dict[str, Any] = {
        f"D{n}": {word: [{"$ref": f"#/$defs/D{n + 1}"}]} for n in range(3_000)
    }
    definitions["D3000"] = {"type": "string"}
    schema = inside({"$ref": "#/$defs/D0"}) | {"$defs": definitions}
    style = {"type": "json_object", "json_schema": schema}
    said = respond(HELLO | {"response_format": style})
    assert said == "answer" or "nested too deeply" in said or TOO_MUCH in said
