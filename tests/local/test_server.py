"""What the server promises: the recorded wire, the recorded refusals, a prompt and clean end."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import pytest

from streamchat.local import LocalServer
from streamchat.local.model import answer
from streamchat.local.server import paced
from streamchat.protocol.codec import decode_event
from streamchat.protocol.events import ContentDelta, Event
from streamchat.protocol.sse import FrameDecoder
from tests.protocol.helpers import SHARED, needs_shared

RECORDINGS = SHARED / "recordings" / "langchain-ai__langchain-cohere"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "What is RAG?"}]}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"days": {"type": "integer"}, "city": {"type": "string"}},
            "required": ["days", "city"],
        },
    },
}


def _recorded(name: str) -> Any:
    path = RECORDINGS / name
    return (
        json.loads(path.read_text("utf-8")) if path.suffix == ".json" else path.read_text("utf-8")
    )


async def post(
    session: aiohttp.ClientSession, server: LocalServer, body: Any, **options: Any
) -> tuple[int, Mapping[str, str], bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(f"{server.url}/v2/chat", data=data, **options) as response:
        return response.status, response.headers, await response.read()


async def raw(server: LocalServer, request: bytes, until: bytes) -> bytes:
    """The answer as it stands on the wire."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(request)
    try:
        return await reader.readuntil(until)
    finally:
        writer.close()
        await writer.wait_closed()


def http(body: Any, *, host: str = "localhost", extra: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v2/chat HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
    return head.encode() + data


# --- the wire ------------------------------------------------------------------------------------


@needs_shared
async def test_headers_are_the_recorded_ones(server: LocalServer) -> None:
    recorded: dict[str, str] = _recorded("test_stream.0.json")["headers"]
    wire = await raw(server, http(HELLO | {"stream": True}), b"\r\n\r\n")
    ours = dict(line.split(": ", 1) for line in wire.decode().split("\r\n")[1:-2])
    assert set(ours) == {
        name for name in recorded if "-limit" not in name and "-remain" not in name
    }
    for name in ("content-type", "Transfer-Encoding", "cache-control", "Via", "Alt-Svc", "server"):
        assert ours[name] == recorded[name]
    assert re.fullmatch("[0-9a-f]{32}", ours["x-debug-trace-id"])


@needs_shared
async def test_the_stream_has_the_recorded_form(
    server: LocalServer, session: aiohttp.ClientSession
) -> None:
    def form(text: str) -> list[str]:
        """The frames with all values blanked, repeats folded."""
        blanked = re.sub(
            r'(":)(?:"(?!message-|content-|assistant|text"|COMPLETE)[^"]*"|\d+)', r"\1_", text
        )
        blanked = blanked.replace(',"cached_tokens":_', "")  # on the wire since 2026
        return list(dict.fromkeys(blanked.split("\n\n")))

    _, _, body = await post(session, server, HELLO | {"stream": True})
    assert form(body.decode()) == form(_recorded("test_stream.0.sse"))


async def test_a_paced_event_is_one_chunk() -> None:
    async with LocalServer(tokens_per_second=10_000) as server:
        wire = await raw(server, http(HELLO | {"stream": True}), b"\r\n0\r\n\r\n")
    chunked = wire.partition(b"\r\n\r\n")[2]
    sizes = 0
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        chunk, chunked = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        assert chunk.count(b"\n\n") == (1 if chunk else 0)
        sizes += 1
    assert sizes == len(answer(HELLO)) + 2  # and [DONE], and the last chunk


async def test_the_connection_is_kept(server: LocalServer) -> None:
    opened: list[int] = []

    async def count(*_: Any) -> None:
        opened.append(1)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        for _ in range(3):
            await post(session, server, HELLO | {"stream": True})
    assert len(opened) == 1


async def test_unary_is_the_folded_stream(
    server: LocalServer, session: aiohttp.ClientSession
) -> None:
    asked = HELLO | {"messages": [{"role": "user", "content": "Weather in Lima for 2 days?"}]}
    asked |= {"tools": [TOOL]}
    _, headers, body = await post(session, server, asked)
    response = json.loads(body)
    assert headers["content-type"] == "application/json"
    assert {"num_chars", "num_tokens", "x-debug-trace-id"} <= set(headers)
    assert list(response) == ["id", "message", "finish_reason", "usage"]
    assert list(response["message"]) == ["role", "tool_plan", "tool_calls"]
    (call,) = response["message"]["tool_calls"]
    assert call["function"]["arguments"] == '{"city":"Lima","days":2}'

    _, _, stream = await post(session, server, asked | {"stream": True})
    events = [decode_event(frame) for frame in FrameDecoder().feed(stream)]
    plan = "".join(event.tool_plan for event in events if event and event.type == "tool-plan-delta")
    assert plan == response["message"]["tool_plan"]
    assert events[0] is not None and events[0].type == "message-start"
    assert events[0].id == response["id"]


# --- refusals ------------------------------------------------------------------------------------

USER = {"role": "user", "content": "Hi"}


def calling(*ids: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    return {
        "role": "assistant",
        "tool_calls": [{"id": name, "type": "function", "function": function} for name in ids],
    }


def result(name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": "1"}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": None}, 400, "a model parameter is required for this endpoint."),
        (
            {"model": "command-does-not-exist"},
            404,
            "model 'command-does-not-exist' not found, make",
        ),
        ({"messages": None}, 400, "message must be at least 1 token long"),
        ({"messages": []}, 400, "message must be at least 1 token long"),
        (
            {"messages": "Hi"},
            400,
            "parameter messages is of type string but should be of type array",
        ),
        (
            {"messages": [{"role": "user", "content": ""}]},
            400,
            "message must not be empty in a turn",
        ),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            400,
            "Invalid role in messages at index 0",
        ),
        (
            {"temperature": 1.5},
            400,
            "invalid request: temperature must be between 0 and 1.0 inclusive.",
        ),
        ({"temperature": "hot"}, 400, "parameter temperature is of type string"),
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1"),
        ({"max_tokens": True}, 400, "parameter max_tokens is of type bool"),
        ({"stop_sequences": list("abcdef")}, 400, "at most 5"),
        ({"tool_choice": "REQUIRED"}, 400, "needs at least one tool"),
        (
            {"thinking": {"type": "enabled", "token_budget": 0}},
            400,
            "token_budget must be at least 1",
        ),
        (
            {"documents": [{"text": "x"}]},
            400,
            "invalid request: document at index 0 cannot be empty",
        ),
        (
            {"documents": [{"id": "a", "data": "x"}, {"id": "a", "data": "y"}]},
            400,
            "invalid request: duplicate document ID a at index 1 and 0",
        ),
        ({"tools": [{"type": "function"}]}, 400, "all elements in tools must have a name."),
        ({"tools": [{"type": "function", "function": {"name": "1x"}}]}, 400, "provided name: '1x'"),
        (
            {"response_format": {"type": "json_object"}, "documents": ["x"]},
            400,
            "invalid request: response_format is not supported with RAG.",
        ),
        (
            {"preamble": "x"},
            422,
            "unknown field: parameter preamble is not a valid field. For proper",
        ),
        ({"tools": [{"name": "x"}]}, 422, "unknown field: parameter name is not a valid field."),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "extra": 1}}]},
            422,
            "unknown field: parameter extra is not a valid field.",
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "1"}]},
            400,
            "must be provided with tool message",
        ),
        (
            {"messages": [USER, result("a") | {"tool_call_id": ["a"]}]},
            400,
            "must be provided with tool message",
        ),
        ({"messages": [USER, result("a")]}, 400, "tool call id not found in previous tool calls"),
        (
            {"messages": [USER, calling("a", "a"), result("a")]},
            400,
            "cannot have duplicate tool ids",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
            400,
            "messages[0].content[0] must be one of text, image_url",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_bad_requests_are_refused_in_cohere_s_words(
    server: LocalServer,
    session: aiohttp.ClientSession,
    change: dict[str, Any],
    status: int,
    message: str,
    stream: bool,
) -> None:
    got, headers, body = await post(session, server, HELLO | change | {"stream": stream})
    assert got == status
    assert headers["content-type"] == "application/json"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-debug-trace-id"])
    assert headers["server"] == "envoy"
    details = json.loads(body)
    assert list(details) == ["id", "message"]
    assert message in details["message"]


@pytest.mark.parametrize(
    "name",
    [
        "400_test_documents.1.add3c38.error.json",
        "422_test_langchain_tool_calling_agent.3.63480c8.error.json",
        "422_test_invoke_multiple_tools.1.9c1e59c.error.json",
    ],
)
@needs_shared
async def test_recorded_refusals_are_given_again(
    server: LocalServer, session: aiohttp.ClientSession, name: str
) -> None:
    recorded = _recorded(name)
    status, _, body = await post(session, server, recorded["request"])
    assert status == recorded["status"]
    assert json.loads(body)["message"] == recorded["body"]["message"]


@needs_shared
async def test_recorded_requests_are_answered(
    server: LocalServer, session: aiohttp.ClientSession
) -> None:
    answered = 0
    for path in sorted(RECORDINGS.glob("*.json")):
        recorded = json.loads(path.read_text("utf-8"))
        if not recorded.get("request_url", "").endswith("/v2/chat") or recorded["status"] != 200:
            continue
        status, _, body = await post(session, server, recorded["request"])
        assert status == 200, (path.name, body)
        assert body.endswith(b"data: [DONE]\n\n")
        answered += 1
    assert answered > 20


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a":NaN}', b"[" * 100_000])
async def test_what_is_no_json_object_is_refused(
    server: LocalServer, session: aiohttp.ClientSession, body: bytes
) -> None:
    status, _, got = await post(session, server, body)
    assert status == 400
    assert json.loads(got)["message"].startswith("invalid json syntax: ")


async def test_half_an_emoji_and_deep_nesting_do_no_harm(
    server: LocalServer, session: aiohttp.ClientSession
) -> None:
    half = rb'{"model":"m","stream":true,"messages":[{"role":"user","content":"\ud83d is half"}]}'
    status, _, body = await post(session, server, half)
    assert status == 200
    assert "\ufffd" in body.decode()
    data = json.loads('{"a":' * 99 + "1" + "}" * 99)
    status, _, _ = await post(session, server, HELLO | {"documents": [{"data": data}]})
    assert status == 400
    deep = '{"a":' * 400 + "1" + "}" * 400
    status, _, _ = await post(session, server, HELLO | {"documents": [{"data": deep}]})
    assert status == 200


async def test_keys_are_checked_when_one_was_set(session: aiohttp.ClientSession) -> None:
    async with LocalServer(api_key="right") as server:
        for headers, status, message in (
            ({}, 401, "no api key supplied"),
            ({"Authorization": "Bearer "}, 401, "no api key supplied"),
            ({"Authorization": "Bearer wrong"}, 401, "invalid api token"),
            ({"Authorization": "bearer right"}, 200, ""),
        ):
            got, _, body = await post(session, server, HELLO, headers=headers)
            assert got == status
            assert json.loads(body).get("message", "") == message or status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/chat", 405),
        ("POST", "/v1/chat", 404),
        ("GET", "/", 404),
        ("PUT", "/v2/chat", 405),
    ],
)
async def test_other_paths_and_methods_are_json_errors(
    server: LocalServer, session: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with session.request(method, server.url + path) as response:
        assert response.status == status
        assert list(await response.json()) == ["id", "message"]


@pytest.mark.parametrize(
    ("host", "extra", "status"),
    [
        ("localhost:80", "", 200),
        ("[::1]:80", "", 200),
        ("evil.example", "", 403),
        ("127.0.0.1.evil.example", "", 403),
        ("localhost", "Origin: https://evil.example\r\n", 403),
        ("localhost", "Origin: null\r\n", 403),
        ("localhost", "Origin: http://localhost:3000\r\n", 200),
    ],
)
async def test_only_this_machine_is_answered(
    server: LocalServer, host: str, extra: str, status: int
) -> None:
    wire = await raw(server, http(HELLO, host=host, extra=extra), b"\r\n")
    assert wire.startswith(f"HTTP/1.1 {status} ".encode())


async def test_a_body_over_the_limit_is_refused(
    server: LocalServer, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamchat.local.wire.MAX_BODY", 100)
    async with LocalServer() as small:
        status, _, body = await post(session, small, HELLO | {"seed": 1, "safety_mode": "STRICT"})
    assert status == 413
    assert "100 bytes" in json.loads(body)["message"]


# --- pace, life and end --------------------------------------------------------------------------


class FakeClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def read(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


async def test_the_pace_is_one_delta_an_interval() -> None:
    clock = FakeClock()
    events = answer(HELLO)
    seen = [event async for event in paced(events, 10, clock=clock.read, sleep=clock.sleep)]
    assert seen == events
    assert clock.slept == [0.1] * sum(isinstance(event, ContentDelta) for event in events)


async def test_a_late_delta_does_not_hurry_the_next() -> None:
    clock = FakeClock()
    seen = 0
    async for _ in paced([ContentDelta("a")] * 4, 10, clock=clock.read, sleep=clock.sleep):
        seen += 1
        if seen == 2:
            clock.now += 5  # the client was slow
    assert clock.slept == [0.1, 0.1, 0.1]


class Watched:
    """Events without end; tells when nobody takes them any more."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.taken = 0

    def __call__(self, request: Mapping[str, Any]) -> Iterator[Event]:
        yield from answer(request)[:2]
        self.started.set()
        while True:
            self.taken += 1
            yield ContentDelta("word " * 1000)


async def test_a_client_that_leaves_stops_the_generation() -> None:
    """Also while the next token is an hour away."""
    watched = Watched()
    async with LocalServer(answer=watched, tokens_per_second=1 / 3600) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(server.url.rpartition(":")[2])
        )
        writer.write(http(HELLO | {"stream": True}))
        await reader.readuntil(b"content-start")
        handlers = server._handlers
        assert len(handlers) == 1
        writer.close()
        await writer.wait_closed()
        await asyncio.wait(set(handlers))
        assert not handlers


@pytest.mark.parametrize("pace", [None, 1 / 3600, 1e6])
async def test_closing_while_answers_stream_leaves_nothing(pace: float | None) -> None:
    """Neither tasks nor sockets, though the client reads nothing; warnings are errors here."""
    before = asyncio.all_tasks()
    watched = Watched()
    writers: list[asyncio.StreamWriter] = []
    async with LocalServer(answer=watched, tokens_per_second=pace) as server:
        for _ in range(3):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", int(server.url.rpartition(":")[2])
            )
            writer.write(http(HELLO | {"stream": True}))
            writers.append(writer)
        await watched.started.wait()
    assert asyncio.all_tasks() == before
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    gc.collect()


async def test_a_slow_reader_slows_the_generation() -> None:
    watched = Watched()
    async with LocalServer(answer=watched) as server:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", int(server.url.rpartition(":")[2]), limit=2**10
        )
        writer.write(http(HELLO | {"stream": True}))
        await watched.started.wait()
        stalled = -1
        while stalled != watched.taken:
            stalled = watched.taken
            for _ in range(200):
                await asyncio.sleep(0)
        assert watched.taken < 10_000
        writer.close()


async def test_many_at_once_and_idle_ones_do_not_disturb_each_other(
    session: aiohttp.ClientSession,
) -> None:
    async with LocalServer() as one, LocalServer() as two:
        asked = [post(session, server, HELLO | {"stream": True}) for server in (one, two) * 40]
        bodies = {body for _, _, body in await asyncio.gather(*asked)}
    assert len(bodies) == 1


def test_each_loop_has_its_own() -> None:
    async def once() -> int:
        async with LocalServer() as server, aiohttp.ClientSession() as session:
            return (await post(session, server, HELLO))[0]

    assert [asyncio.run(once()) for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.com", "::", ""])
def test_other_hosts_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        LocalServer(host=host)


@pytest.mark.parametrize("pace", [0, -1, float("nan")])
def test_a_pace_is_positive(pace: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        LocalServer(tokens_per_second=pace)


async def test_life_is_start_use_close() -> None:
    server = LocalServer(host="localhost")
    with pytest.raises(RuntimeError, match="before start"):
        _ = server.url
    await server.aclose()
    for _ in range(2):
        await server.start()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        with pytest.raises(RuntimeError, match="already"):
            await server.start()
        await server.aclose()
        await server.aclose()


async def test_a_taken_port_is_an_os_error(server: LocalServer) -> None:
    other = LocalServer(port=int(server.url.rpartition(":")[2]))
    with pytest.raises(OSError):
        await other.start()
    with pytest.raises(RuntimeError):
        _ = other.url
