"""What a review did to this client, one test for each way: raw sockets that say what they are told.

Large and malformed events, floods and bombs are in ``test_events.py``.
"""

# ruff: noqa: PT017 - an error is one outcome of two

from __future__ import annotations

import asyncio
import decimal
import io
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import attrs
import pytest

from streamchat import Client, GenerationError, Limiter, Retry, tool
from streamchat.local import LocalServer
from streamchat.protocol.errors import DecodeError, StatusError, StreamChatError, ToolError
from streamchat.protocol.plain import encode_json
from streamchat.protocol.schema import object_schema
from tests.cli import command
from tests.fuzz import inputs
from tests.hostile.answers import CLOSE, END, HELLO, OPEN, START, event, said
from tests.hostile.measure import Beat
from tests.timed import SOON, TIMED
from tests.wire.server import Request, Wire, serve

HELD = 0.1 if TIMED else 5.0
"""Seconds for which the loop may be held: 0.1 on a quiet machine, else what only a hang takes."""
KEY = "sk+AbCd/EfGh1234==IjKl/9876+MnOp=="


def response(
    body: bytes, status: int = 200, kind: str = "text/event-stream", *headers: str
) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}"]
    return "".join(f"{line}\r\n" for line in [*lines, *headers]).encode() + b"\r\n" + body


GOOD = response(START + OPEN + HELLO + CLOSE + END)


def says(*responses: bytes) -> list[Callable[[asyncio.StreamWriter, Request], Any]]:
    def reply(data: bytes) -> Callable[[asyncio.StreamWriter, Request], Any]:
        async def write(writer: asyncio.StreamWriter, request: Request) -> None:
            writer.write(data)
            await writer.drain()

        return write

    return [reply(data) for data in responses]


@asynccontextmanager
async def against(
    *responses: bytes, key: str = "k" * 40, **options: Any
) -> AsyncIterator[tuple[Client, Wire]]:
    """A client and the server that says these responses; the loop must not be held meanwhile."""
    beat = Beat()
    options = {"retry": Retry(attempts=1), **options}
    async with (
        serve(*says(*responses)) as wire,
        Client(key, base_url=wire.url, model="m", **options) as client,
    ):
        beat.start()
        yield client, wire
        beat.stop()
    assert beat.worst <= HELD


# --- a shared limiter ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "retry-after: 999999999",
        "retry-after: Tue, 01 Jan 2999 00:00:00 GMT",
        "retry-after-ms: 999999999999",
    ],
)
async def test_a_retry_after_without_end_pauses_others_for_max_retry_after(header: str) -> None:
    bad = response(b'{"message":"slow"}', 429, "application/json", header)
    limiter = Limiter(rpm=6000)
    started = time.monotonic()
    async with against(bad, GOOD, retry=Retry(max_retry_after=0.2)) as (client, wire):
        async with asyncio.timeout(SOON):
            fan = client.fan_out(["a", "b", "c"], concurrency=1, limiter=limiter)
            assert [result.ok async for result in fan] == [False, True, True]
        assert len(wire.requests) == 3
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("tokens", [2**53, 1e300, 10**12, int("9" * 300), -1, "9" * 400])
async def test_a_usage_beyond_all_bounds_does_not_block_a_limit_of_tokens(tokens: Any) -> None:
    usage = {"tokens": {"input_tokens": tokens, "output_tokens": tokens}}
    end = said({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}})
    limiter = Limiter(tpm=100_000_000)
    async with against(response(START + OPEN + HELLO + CLOSE + end), GOOD) as (client, _):
        async with asyncio.timeout(SOON):
            fan = client.fan_out([str(n) for n in range(5)], concurrency=1, limiter=limiter)
            assert [result.ok async for result in fan] == [True] * 5


# --- bounds on what an answer may ask for --------------------------------------------------------


@pytest.mark.parametrize("index", [-1, 100_001, 2**61 - 1, 2**63, 2**64, 10**30, 1e300])
async def test_an_index_out_of_bounds_is_a_decode_error_with_the_partial_answer(index: Any) -> None:
    body = START + OPEN + HELLO + said(inputs.text("x", index))
    async with against(response(body)) as (client, _):
        with pytest.raises(DecodeError) as caught:
            await client.chat("Hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"


@pytest.mark.parametrize("count", [129, 3000])
async def test_an_answer_that_asks_for_more_calls_than_max_calls_runs_none(count: int) -> None:
    ran = 0

    @tool
    def charge(id: str) -> str:  # noqa: A002  # the model's own name
        """Charge. id: whom"""
        nonlocal ran
        ran += 1
        return "ok"

    calls = [inputs.call(n, "charge", '{"id":"1"}') for n in range(count)]
    ends = [inputs.stop("tool-call-end", n) for n in range(count)]
    body = b"".join(map(said, [inputs.START, *calls, *ends, inputs.finish("TOOL_CALL")]))
    async with against(response(body), GOOD) as (client, wire):
        with pytest.raises(ToolError):
            await client.run_tools("Hi", tools=[charge], max_steps=2)
        assert len(wire.requests) == 1
    assert ran == 0


DEEP = (
    '{"type":"new","x":@@}',
    (
        '{"type":"citation-start","delta":{"message":{"citations":{"start":0,"end":1,"text":"a",'
        '"sources":[{"document":{"x":@@}}]}}}}'
    ),
    '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"x":@@}}}',
    '{"message":@@}',
    "@@",
)


@pytest.mark.parametrize("template", DEEP)
@pytest.mark.parametrize("depth", [150, 190, 201, 250, 900, 100_000])
async def test_nesting_has_one_limit_for_reading_and_writing(template: str, depth: int) -> None:
    """An answer that was read can be written; one that cannot be written was refused."""
    nest = template.replace("@@", "[" * depth + "]" * depth)
    async with against(response(START + OPEN + event(nest) + HELLO + CLOSE + END)) as (client, _):
        if depth <= 190 and '"type"' in template:
            answer = await client.chat("Hi")
            assert answer.text == ("" if "message-end" in template else "Hello")
            assert encode_json(answer.to_dict())
            return
        with pytest.raises(DecodeError) as caught:
            await client.chat("Hi")
    error = str(caught.value)
    assert len(error) < 300
    assert depth <= 190 or "more than 200 levels" in error or "more than 100000 JSON" in error


@pytest.mark.parametrize(
    "words", ["B" * 1_000_000, "a\nb\x1b[31m\x9b", "\x1b]52;c;x\x07[fake]", "\u202e"]
)
@pytest.mark.parametrize("field", ["finish_reason", "error", "error_type"])
async def test_the_words_of_a_failed_answer_are_cut_and_cleaned(words: str, field: str) -> None:
    delta = {"finish_reason": "ERROR", "error": "no", field: f"ERROR {words}"}
    end = said({"type": "message-end", "delta": delta})
    async with against(response(START + OPEN + HELLO + end)) as (client, _):
        with pytest.raises(GenerationError) as caught:
            await client.chat("Hi")
    shown = str(caught.value)
    assert len(shown) < 2000
    assert not set(shown) & set("\n\x1b\x07\x9b")


# --- tool arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    ['"nan"', '"inf"', '"-Infinity"', "NaN", "1e999", "-1e999", '"sNaN"'],
)
@pytest.mark.parametrize("kind", [float, decimal.Decimal, list[float], dict[str, decimal.Decimal]])
async def test_an_argument_that_is_not_a_finite_number_reaches_no_tool(
    given: str, kind: Any
) -> None:
    ran: list[Any] = []

    def pay(amount: Any) -> str:
        """Pay. amount: how much"""
        ran.append(amount)
        return "ok"

    pay.__annotations__ = {"amount": kind, "return": str}
    inner = f"[{given}]" if kind == list[float] else given
    inner = f'{{"a":{given}}}' if kind == dict[str, decimal.Decimal] else inner
    call = inputs.call(0, "pay", f'{{"amount":{inner}}}')
    body = said(inputs.START) + said(call) + said(inputs.finish("TOOL_CALL"))
    async with against(response(body), GOOD) as (client, wire):
        await client.run_tools("Hi", tools=[tool(pay)], max_steps=2)
        told = json.loads(wire.requests[1].body)["messages"][-1]
    assert ran == []
    assert told["role"] == "tool"


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_stop_iteration_of_a_tool_is_its_failure(
    kind: type[Exception], is_async: bool
) -> None:
    @tool
    async def later(city: str) -> str:
        """Look. city: where"""
        raise kind

    @tool
    def now(city: str) -> str:
        """Look. city: where"""
        raise kind

    chosen = later if is_async else now
    call = inputs.call(0, chosen.name, '{"city":"x"}')
    body = said(inputs.START) + said(call) + said(inputs.finish("TOOL_CALL"))
    async with against(response(body), GOOD) as (client, wire):
        async with asyncio.timeout(SOON):
            await client.run_tools("Hi", tools=[chosen], max_steps=2)
        assert len(wire.requests) == 2


# --- secrets -------------------------------------------------------------------------------------

SPELLINGS: dict[str, str] = {
    "plain": json.dumps(KEY),
    "slashes": json.dumps(KEY).replace("/", "\\/"),
    "plus": json.dumps(KEY).replace("+", "\\u002B"),
    "all": '"' + "".join(f"\\u{ord(c):04x}" for c in KEY) + '"',
    "cut": json.dumps(KEY[:-1]),
}


@pytest.mark.parametrize("name", SPELLINGS)
async def test_a_refusal_that_repeats_the_key_is_shown_without_it(name: str) -> None:
    body = b'{"message":"invalid api token %b"}' % SPELLINGS[name][1:-1].encode()
    async with against(response(body, 401, "application/json"), key=KEY) as (client, _):
        with pytest.raises(StatusError) as caught:
            await client.chat("Hi")
    error = caught.value
    for shown in (str(error), repr(error), error.message, error.body.decode()):
        assert KEY[:12] not in shown.encode().decode("unicode_escape")
        assert KEY[:12] not in shown.replace("\\/", "/")


async def test_a_key_that_is_cut_at_the_limit_of_an_error_body_is_not_shown() -> None:
    body = b"x" * (65536 - len(KEY) + 1) + KEY.encode() + b"tail"
    async with against(response(body, 401, "text/plain"), key=KEY) as (client, _):
        with pytest.raises(StatusError) as caught:
            await client.chat("Hi")
    assert KEY[:12].encode() not in caught.value.body


async def test_a_traceback_with_locals_by_rich_shows_neither_key_nor_header() -> None:
    console = pytest.importorskip("rich.console")
    tracebacks = pytest.importorskip("rich.traceback")
    key, header = "k" * 20 + "CANARY" + "z" * 60, "h" * 30 + "HEADER-CANARY" + "y" * 100
    body = response(b'{"message":"no"}', 401, "application/json")
    async with against(body, key=key, headers={"x-tok": header}) as (client, _):
        with pytest.raises(StatusError) as caught:
            await client.chat("Hi")
    error = caught.value
    out = console.Console(file=io.StringIO(), width=200)
    frames = (
        error.__traceback__.tb_next if error.__traceback__ else None
    )  # the caller's own has them
    out.print(tracebacks.Traceback.from_exception(type(error), error, frames, show_locals=True))
    assert "CANARY" not in out.file.getvalue()


# --- headers and TLS -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Connection",
        "Content-Encoding",
        "Expect",
        "Upgrade",
        "TE",
    ],
)
async def test_a_header_of_the_connection_is_refused_by_name(name: str) -> None:
    async with against(GOOD) as (client, wire):
        with pytest.raises(ValueError, match=f"(?i){name}"):
            await client.chat("Hi", headers={name: "1"})
        assert wire.requests == []


def test_a_tls_context_that_checks_nothing_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ValueError, match="insecure_tls"):
        Client("k", model="m", ssl=context)


# --- the command: terminal and files -------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\x1b]52;c;x\x07", "\x9b31m", "\u202eabc", "\u200b\u2066", "[red]x"]
)
async def test_a_failed_answer_writes_no_control_characters_to_stderr(text: str) -> None:
    end = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": f"no {text}"}}
    async with serve(*says(response(START + OPEN + HELLO + said(end)))) as wire:
        env = {"CO_API_URL": wire.url, "CO_API_KEY": "k" * 40}
        ran = await command.run_async("chat", "Hi", env=env)
    assert ran.code == 1
    assert not set(ran.err) & set("\x1b\x07\x9b\u202e\u200b\u2066")


@pytest.mark.parametrize("link", ["the same", "symlink", "hard link"])
async def test_a_batch_never_writes_over_its_input(link: str, tmp_path: Path) -> None:
    """Nothing is asked, and nothing is destroyed."""
    source, other = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "q"}\n')
    if link == "symlink":
        other.symlink_to(source)
    elif link == "hard link":
        other.hardlink_to(source)
    else:
        other = source
    async with serve(*says(GOOD)) as wire:
        env = {"CO_API_URL": wire.url, "CO_API_KEY": "k" * 40}
        ran = await command.run_async("batch", source, "-o", other, env=env)
        assert wire.requests == []
    assert ran.code == 2
    assert source.read_text() == '{"prompt": "q"}\n'


# --- types ---------------------------------------------------------------------------------------


@attrs.define
class Node:
    v: int
    child: Node | None = None


class Tree(TypedDict):
    v: int
    child: NotRequired[Tree | None]


@pytest.mark.parametrize("kind", [Node, Tree])
@pytest.mark.parametrize("depth", [1, 50, 150, 199, 220, 400, 2000])
async def test_a_recursive_type_is_read_to_the_limit_of_nesting(kind: Any, depth: int) -> None:
    """Beyond it the error is ours."""
    text = '{"v":1,"child":' * depth + "null" + "}" * depth
    body = START + OPEN + said(inputs.text(text)) + CLOSE + END
    async with against(response(body)) as (client, _):
        try:
            await client.parse("in JSON", into=kind)
        except StreamChatError as error:
            assert depth > 150
            assert len(str(error)) < 500
        else:
            assert depth <= 200


def test_the_schema_of_a_tower_of_types_grows_by_definitions() -> None:
    """Each level twice: 2**16 copies without them."""
    kind: Any = attrs.make_class("C0", {"v": attrs.field(type=int)})
    for level in range(1, 17):
        fields = {"a": attrs.field(type=kind), "b": attrs.field(type=kind)}
        kind = attrs.make_class(f"C{level}", fields)
    assert len(json.dumps(object_schema(kind, "into="))) < 20_000


# --- LocalServer ---------------------------------------------------------------------------------


def doubling(levels: int) -> dict[str, Any]:
    """A schema of 2 ** levels parts, by reference."""
    parts: dict[str, Any] = {"a0": {"properties": {"v": {"type": "string"}}, "required": ["v"]}}
    for level in range(1, levels):
        below = {"$ref": f"#/$defs/a{level - 1}"}
        parts[f"a{level}"] = {"allOf": [below, below]}
    return {"$defs": parts, "$ref": f"#/$defs/a{levels - 1}"}


HEAVY: dict[str, Any] = {
    "allOf": doubling(30),
    "minItems": {"type": "array", "minItems": 10**9, "items": {"type": "string"}},
    "nested minItems": {
        "type": "array",
        "minItems": 10**4,
        "items": {"type": "array", "minItems": 10**4, "items": {}},
    },
    "itself": {
        "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
        "$ref": "#/$defs/a",
    },
}


@pytest.mark.parametrize("name", HEAVY)
async def test_the_local_server_answers_or_refuses_a_heavy_schema_within_a_second(
    name: str,
) -> None:
    schema = {"type": "object", "properties": {"x": HEAVY[name]}, "required": ["x"]}
    schema = HEAVY[name] if "$defs" in HEAVY[name] else schema
    beat, status = Beat(), 200
    async with LocalServer() as server, Client("k", base_url=server.url, model="m") as client:
        beat.start()
        started = time.monotonic()
        try:
            shape = {"type": "json_object", "json_schema": schema}
            await client.chat("in JSON", response_format=shape)
        except StatusError as error:
            status = error.status
        seconds = time.monotonic() - started
        beat.stop()
    assert status < 500
    assert (status == 200) == (name == "allOf")
    assert seconds < 1.5 or not TIMED
    assert beat.worst <= HELD
