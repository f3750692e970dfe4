"""Gateways in front of Chat v2: keys in other headers, query parameters, fields of their own, TLS."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import ssl
import traceback
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest
import rich.console
import rich.traceback
from aiohttp import http_writer

from streamchat import (
    AuthenticationError,
    ChatRequest,
    ChatStream,
    Client,
    ConfigurationError,
    DecodeError,
    GenerationError,
    Retry,
    Send,
    StatusError,
    StreamChatError,
    UnexpectedContentTypeError,
    tool,
)
from streamchat.transport.connections import Proxy
from tests.catalogue.helpers import stream_of, with_length
from tests.frames import body, end, plain, text_events
from tests.wire.server import Reply, Request, Wire, answer_whole, serve

ONCE = Retry(attempts=1)


def _key() -> str:
    return "-".join(["gateway", "SECRET", "0123456789abcdef"])  # in no source line as it is


def client(wire: Wire, **options: Any) -> Client:
    return Client(**({"api_key": "", "base_url": wire.url, "model": "m", "retry": ONCE} | options))


def says(data: bytes) -> Reply:
    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(data)

    return reply


def shown_in(error: BaseException) -> list[str]:
    """Where the key is shown: the error's own parts, and tracebacks with local variables."""
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(
        rich.traceback.Traceback.from_exception(
            type(error), error, error.__traceback__, show_locals=True
        )
    )
    places: dict[str, object] = {
        "str": error,
        "repr": repr(error),
        "args": error.args,
        "attributes": vars(error),
        "partial": repr(getattr(error, "partial", None)),
        "traceback": "".join(lines),
        "rich": console.file.getvalue(),  # type: ignore[attr-defined]
    }
    return [name for name, place in places.items() if _key() in str(place)]


# --- keys in other headers -----------------------------------------------------------------------

HEADERS: dict[str, Callable[[], tuple[dict[str, Any], dict[str, Any]]]] = {
    "the key": lambda: ({"api_key": _key()}, {}),
    "another header": lambda: ({"headers": {"api-key": _key()}}, {}),
    "beside a key": lambda: ({"api_key": "k" * 20, "headers": {"X-Api-Key": _key()}}, {}),
    "of the call": lambda: ({}, {"headers": {"Ocp-Apim-Subscription-Key": _key()}}),
    "own scheme": lambda: ({"headers": {"Authorization": f"ApiKey {_key()}"}}, {}),
    "credentials": lambda: (
        {
            "headers": {
                "Authorization": "Basic " + base64.b64encode(f"u:{_key()}".encode()).decode()
            }
        },
        {},
    ),
}
"""The arguments of the client and of the call."""

ANSWERS: dict[str, tuple[type[StreamChatError], Callable[[bytes], bytes]]] = {
    "401": (
        AuthenticationError,
        lambda said: with_length(
            "401 U", said, f"x-echo: {_key()}", "content-type: application/json"
        ),
    ),
    "401 in text": (
        AuthenticationError,
        lambda said: with_length("401 U", b"no: " + _key().encode()),
    ),
    "401 cut": (AuthenticationError, lambda said: with_length("401 U", said[:-8])),
    "302": (
        StatusError,
        lambda said: with_length("302 F", b"", f"location: https://{_key()}.test/"),
    ),
    "JSON": (
        UnexpectedContentTypeError,
        lambda said: with_length("200 OK", said, "content-type: application/json"),
    ),
    "content type": (
        UnexpectedContentTypeError,
        lambda said: with_length("200 OK", b"x", f"content-type: text/{_key()}"),
    ),
    "error event": (
        GenerationError,
        lambda said: stream_of(b"event: error\ndata: " + said + b"\n\n"),
    ),
    "later error event": (
        GenerationError,
        lambda said: stream_of(
            body(text_events("Hi"), done=False) + b"event: error\ndata: " + said + b"\n\n"
        ),
    ),
    "failed end": (
        GenerationError,
        lambda said: stream_of(body([*plain()[:-1], end("ERROR " + _key(), error=_key())])),
    ),
    "garbled event": (DecodeError, lambda said: stream_of(b"data: {" + _key().encode() + b"\n\n")),
    "garbled later event": (
        DecodeError,
        lambda said: stream_of(
            body(plain()[:-1], done=False) + b'data: {"type": 5, "x":' + said + b"}\n\n"
        ),
    ),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", HEADERS)
async def test_no_error_shows_a_header_value_that_the_server_repeats(
    name: str, answer: str
) -> None:
    """Neither the error, nor its attributes, nor a traceback with local variables."""
    expected, make = ANSWERS[answer]
    reply = says(make(json.dumps({"message": f"invalid key: {_key()}"}).encode()))
    options, arguments = HEADERS[name]()
    async with serve(reply) as wire, client(wire, **options) as chat:
        with pytest.raises(expected) as caught:
            await chat.chat("Hi", **arguments)
        del options, arguments  # this frame is in the traceback
        assert shown_in(caught.value) == []


@pytest.mark.parametrize("kind", ["stream", "frames", "tools", "parse", "fan_out"])
async def test_no_failed_answer_shows_the_key_however_it_is_consumed(kind: str) -> None:
    """The last event that was received holds the server's words."""
    failed = [*plain()[:-1], end("ERROR " + _key(), error=_key(), error_type=_key())]
    reply = says(stream_of(body(failed)))
    del failed
    async with serve(reply) as wire, client(wire, api_key=_key()) as chat:
        with pytest.raises(GenerationError) as caught:
            match kind:
                case "stream":
                    async with chat.chat_stream("Hi") as stream:
                        await stream
                case "frames":
                    async for _ in chat.chat_stream("Hi").frames():
                        del _
                case "tools":
                    await chat.run_tools("Hi", tools=[double])
                case "parse":
                    await chat.parse("JSON", into=Number)
                case _:
                    (result,) = [each async for each in chat.fan_out(["Hi"])]
                    assert result.error is not None
                    raise result.error
        assert shown_in(caught.value) == []


async def test_no_error_shows_a_header_value_that_middleware_added() -> None:
    """They are the caller's, too."""

    def signed(request: ChatRequest, send: Send) -> ChatStream:
        return send(request, headers={"X-Signature": _key()})

    reply = says(with_length("403 F", json.dumps({"detail": _key()}).encode()))
    async with serve(reply) as wire, client(wire) as chat:
        chat.middleware(signed)
        with pytest.raises(StatusError) as caught:
            await chat.chat("Hi")
        assert wire.requests[0].headers["x-signature"] == _key()
        assert shown_in(caught.value) == []
        assert getattr(caught.value, "message", None) == "<key>"


@pytest.mark.parametrize("serializer", ["chosen", "python"])
async def test_header_values_are_sent_as_they_are(
    serializer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By both serializers of aiohttp, and over a session of the caller's."""
    if serializer == "python":
        python = http_writer._py_serialize_headers  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(http_writer, "_serialize_headers", python)
    sent = {"api-key": _key(), "X-Long": "v" * 4000, "X-Empty": "", "Authorization": "Basic abc"}
    async with serve(answer_whole) as wire, client(wire, api_key=_key(), headers=sent) as chat:
        await chat.chat("Hi", headers={"x-empty": "not any more"})
        got = wire.requests[0].headers
    assert {name: got[name.lower()] for name in sent} == {**sent, "X-Empty": "not any more"}


@pytest.mark.parametrize("length", [20, 98, 300])
async def test_no_local_variable_shows_a_header_value_after_a_cancellation(length: int) -> None:
    """Its traceback runs through aiohttp's own frames; tools cut strings over 80 characters."""
    value = "SECRET" * length
    asked = asyncio.Event()

    async def silent(writer: asyncio.StreamWriter, request: Request) -> None:
        asked.set()
        await wire.closed.wait()

    async with serve(silent) as wire, client(wire, api_key=value, headers={"X-A": value}) as chat:
        value = ""
        running = asyncio.ensure_future(chat.chat("Hi"))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await running
        console = rich.console.Console(file=io.StringIO(), width=200)
        trace = rich.traceback.Traceback.from_exception(
            caught.type, caught.value, caught.value.__traceback__, show_locals=True
        )
        console.print(trace)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "_request" in shown
    assert "SECRETSECRET" not in shown


@pytest.mark.parametrize("tool_name", ["structlog", "sentry_sdk", "loguru"])
@pytest.mark.parametrize("length", [40, 120])
async def test_trackers_show_no_key(tool_name: str, length: int) -> None:
    """What they capture of local variables, for a key of Cohere's length and one of a JWT's."""
    module = pytest.importorskip(tool_name)
    async with (
        serve(says(with_length("401 U"))) as wire,
        client(wire, api_key="SECRET" + "k" * length) as chat,
    ):
        with pytest.raises(AuthenticationError) as caught:
            await chat.chat("Hi")
    shown = TRACKERS[tool_name](module, caught.value)
    assert "canary-proof" in shown
    assert "SECRET" + "k" * 3 not in shown  # the source line is shown as well


def _by_structlog(structlog: Any, error: BaseException) -> str:
    info = (type(error), error, error.__traceback__)
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
    return "canary-proof" + json.dumps(transform(info))


def _by_sentry(sentry_sdk: Any, error: BaseException) -> str:
    sent = ["canary-proof"]

    class Transport(sentry_sdk.transport.Transport):  # type: ignore[misc]
        def capture_envelope(self, envelope: Any) -> None:
            sent.extend(item.payload.get_bytes().decode() for item in envelope.items)

    options = {"include_local_variables": True, "default_integrations": False}
    sdk = sentry_sdk.Client(dsn="http://a@127.0.0.1:9/1", transport=Transport, **options)
    event, hint = sentry_sdk.utils.event_from_exception(error, client_options=sdk.options)
    sdk.capture_event(event, hint)
    sdk.close()
    assert len(sent) > 1
    return "".join(sent)


def _by_loguru(loguru: Any, error: BaseException) -> str:
    out = io.StringIO()
    number = loguru.logger.add(out, backtrace=True, diagnose=True)
    loguru.logger.opt(exception=error).error("canary-proof")
    loguru.logger.remove(number)
    return out.getvalue()


TRACKERS: Mapping[str, Callable[[Any, BaseException], str]] = {
    "structlog": _by_structlog,
    "sentry_sdk": _by_sentry,
    "loguru": _by_loguru,
}


# --- headers that are refused --------------------------------------------------------------------


async def test_headers_of_the_connection_are_refused_wherever_they_are_given() -> None:
    """By the client, by calls of every kind, and by middleware; nothing is sent."""
    refused = {"Content-Length": "3"}
    async with serve(answer_whole) as wire, client(wire) as chat:
        with pytest.raises(ValueError, match="'Content-Length' cannot be given"):
            client(wire, headers=refused)
        with pytest.raises(ValueError, match="'Content-Length' cannot be given"):
            chat.chat_stream("Hi", headers=refused)
        with pytest.raises(ValueError, match="'Content-Length' cannot be given"):
            await chat.chat("Hi", headers=refused)
        with pytest.raises(ValueError, match="'Content-Length' cannot be given"):
            await chat.run_tools("Hi", tools=[double], headers=refused)
        results = [r async for r in chat.fan_out([{"messages": "Hi", "headers": refused}])]
        assert "'Content-Length' cannot be given" in str(results[0].error)
        chat.middleware(lambda request, send: send(request, headers=refused))
        with pytest.raises(ValueError, match="'Content-Length' cannot be given"):
            chat.chat_stream("Hi")
        assert wire.requests == []


# --- query parameters ----------------------------------------------------------------------------

QUERIES: dict[str, tuple[dict[str, str], str]] = {
    "none": ({}, ""),
    "version": ({"api-version": "2024-05-01-preview"}, "?api-version=2024-05-01-preview"),
    "several": ({"a": "1", "b": "2"}, "?a=1&b=2"),
    "empty": ({"a": ""}, "?a="),
    "reserved": ({"a&b": "c=d&e+f g/h?#%41"}, "?a%26b=c%3Dd%26e%2Bf%20g%2Fh%3F%23%2541"),
    "not ASCII": ({"ü": "日本"}, "?%C3%BC=%E6%97%A5%E6%9C%AC"),
    "line end": ({"a": "b\r\nX-Evil: 1"}, "?a=b%0D%0AX-Evil%3A%201"),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_query_parameters_are_added_to_every_request(name: str) -> None:
    """Percent-encoded, behind the path prefix of a gateway, and as they were when given."""
    query, expected = QUERIES[name]
    given = dict(query)
    url = "/providers/cohere/"
    async with (
        serve(answer_whole) as wire,
        client(wire, base_url=wire.url + url, query=given) as chat,
    ):
        given["later"] = "x"
        await chat.chat("Hi")
        await chat.chat("Hi")
        assert "2024" not in repr(chat)
    for request in wire.requests:
        target = urlsplit(request.line.split(" ")[1])
        assert target.path == "/providers/cohere/v2/chat"
        assert dict(parse_qsl(target.query, keep_blank_values=True)) == query
        assert len(target.query) <= len(expected)
        assert "\r" not in request.line
        assert "x-evil" not in request.headers


@pytest.mark.parametrize(
    ("query", "error", "named"),
    [
        ("api-version=1", TypeError, "query must be a dict"),
        ([("a", "b")], TypeError, "query must be a dict"),
        ({"api-version": 1}, TypeError, r"query\['api-version'\] must be a str, not int"),
        ({"a": None}, TypeError, r"query\['a'\] must be a str, not NoneType"),
        ({1: "a"}, TypeError, "query must have str names, not int"),
        ({"": "a"}, ValueError, "without a name"),
        ({"a": "\ud800"}, ValueError, r"query\['a'\] holds a lone surrogate"),
    ],
)
def test_a_query_that_cannot_be_sent_is_refused_by_name(
    query: Any, error: type[Exception], named: str
) -> None:
    """At construction."""
    with pytest.raises(error, match=named):
        Client("k", model="m", query=query)


async def test_query_and_extra_body_are_not_masked() -> None:
    """They are no secrets: an error that repeats a version is to be read."""
    version = "2024-05-01-preview"
    refusal = with_length(
        "400 B", json.dumps({"error": {"message": f"no {version}", "code": "v"}}).encode()
    )
    extra = {"guardrail": "my-own-guardrail"}
    async with (
        serve(says(refusal)) as wire,
        client(wire, query={"v": version}, extra_body=extra) as chat,
    ):
        with pytest.raises(StatusError, match=f"no {version}") as caught:
            await chat.chat("Hi")
    assert (caught.value.message, caught.value.error_type) == (f"no {version}", "v")


# --- fields of the body --------------------------------------------------------------------------


@tool
def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


async def test_extra_fields_go_into_every_kind_of_request() -> None:
    """Those of a call over those of the client, name by name."""
    own, extra = {"a": 1, "b": {"c": [1]}}, {"b": None, "d": "x"}
    both = {"a": 1, "b": None, "d": "x"}
    json_answer = says(stream_of(body(plain('{"n": 1}'))))

    async with serve(json_answer) as wire, client(wire, extra_body=own) as chat:
        own["a"] = 2
        await chat.chat("Hi")
        await chat.chat("Hi", extra_body=extra)
        await chat.chat_stream("Hi", extra_body=extra)
        await chat.run_tools("Hi", tools=[double], extra_body=extra)
        await chat.parse("JSON", into=Number, extra_body=extra)
        async for _ in chat.fan_out(
            ["Hi", {"messages": "Hi", "extra_body": {"d": "y"}}], extra_body=extra
        ):
            pass
        sent = [json.loads(request.body) for request in wire.requests]
    kept = [{name: each.get(name, "none") for name in "abd"} for each in sent]
    assert kept[0] == {"a": 1, "b": {"c": [1]}, "d": "none"}
    assert kept[1:6] == [both] * 5
    assert kept[6] == {"a": 1, "b": {"c": [1]}, "d": "y"}
    assert all(each["stream"] is True and "extra_body" not in each for each in sent)


@attrs.frozen
class Number:
    n: int


async def test_middleware_sees_and_keeps_extra_fields() -> None:
    """``attrs.evolve`` does not lose what this version has no name for."""
    seen: list[Any] = []

    def shorter(request: ChatRequest, send: Send) -> ChatStream:
        seen.append(request.extra_body)
        return send(attrs.evolve(request, max_tokens=7))

    async with serve(answer_whole) as wire, client(wire) as chat:
        chat.middleware(shorter)
        await chat.chat("Hi", extra_body={"a": 1})
    sent = json.loads(wire.requests[0].body)
    assert (seen, sent["a"], sent["max_tokens"]) == ([{"a": 1}], 1, 7)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"temperature": 1}, "pass temperature="),
        ({"stream": False}, "every answer is streamed"),
        ({"model": "x"}, "pass model="),
        ([], "must be a dict"),
        ({"a": object()}, r"extra_body\.a is of type object"),
    ],
)
def test_extra_fields_that_are_known_or_no_json_are_refused(extra: Any, named: str) -> None:
    """By the client and by a call."""
    with pytest.raises(TypeError, match=named):
        Client("k", model="m", extra_body=extra)
    chat = Client("k", model="m", extra_body={"z": 1})
    for keywords in ({}, {"max_tokens": 5}):
        with pytest.raises(TypeError, match=named):
            chat.chat_stream("Hi", extra_body=extra, **keywords)


# --- TLS -----------------------------------------------------------------------------------------


def _context(**settings: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for name, value in settings.items():
        setattr(context, name, value)
    return context


UNCHECKED: dict[str, Callable[[], ssl.SSLContext]] = {
    "nothing": lambda: _context(check_hostname=False, verify_mode=ssl.CERT_NONE),
    "no name": lambda: _context(check_hostname=False),
    "a bare context": lambda: ssl.SSLContext(ssl.PROTOCOL_TLS),
    "a server's context": lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    "no name, optional": lambda: _context(check_hostname=False, verify_mode=ssl.CERT_OPTIONAL),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", UNCHECKED)
def test_a_context_that_does_not_check_is_refused(name: str) -> None:
    """Unless that is said: the key could be read by anybody in between."""
    with pytest.raises(ConfigurationError, match=r"does not check.*insecure_tls=True"):
        Client("k", model="m", ssl=UNCHECKED[name]())
    Client("k", model="m", ssl=UNCHECKED[name](), insecure_tls=True)


def test_contexts_that_check_are_taken() -> None:
    """The system's authorities, or one's own."""
    for context in (_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        Client("k", model="m", ssl=context)


# --- proxies -------------------------------------------------------------------------------------

PASSWORDS: dict[str, tuple[str, bytes]] = {
    "plain": ("http://u:SECRET@h:1", b"u:SECRET"),
    "percent": ("http://u:SE%3ACRET%40@h:1", b"u:SE:CRET@"),
    "percent, Latin-1": ("http://u:SECRET%E9@h:1", b"u:SECRET\xe9"),
    "percent, UTF-8": ("http://u:SECRET%C3%A9@h:1", "u:SECRETé".encode()),
    "UTF-8": ("http://u:SECRETé@h:1", "u:SECRETé".encode()),
    "Latin-1 of the environment": (os.fsdecode(b"http://u:SECRET\xe9@h:1"), b"u:SECRET\xe9"),
    "user of the environment": (os.fsdecode(b"\xfcser:SECRET@h:1"), b"\xfcser:SECRET"),
    "no password": ("http://u@h:1", b"u:"),
}


@pytest.mark.parametrize("name", PASSWORDS)
def test_a_proxys_credentials_are_sent_as_the_bytes_they_are(name: str) -> None:
    """RFC 7617 leaves the charset open; an environment variable holds bytes (PEP 383)."""
    url, expected = PASSWORDS[name]
    proxy = Proxy.parse(url)
    assert proxy.url == "http://h:1"
    assert proxy.headers is not None
    assert base64.b64decode(str(proxy.headers["Authorization"]).removeprefix("Basic ")) == expected
    assert "SECRET" not in repr(proxy)
    assert base64.b64encode(expected).decode() not in repr(proxy)


BAD_PROXIES: dict[str, Callable[[], Any]] = {
    "bracket": lambda: "http://u:canary@[::1",
    "port": lambda: "http://u:canary@h:99999",
    "no port": lambda: "http://u:canary@h:x",
    "NFKC": lambda: "http://u:canary@ho\u2100st",
    "SOCKS": lambda: "socks5://u:canary@h",
    "no host": lambda: "http://u:canary@",
    "half a character": lambda: "http://u:canary\ud800@h",
    "bytes": lambda: b"http://u:canary@h",
}


@pytest.mark.parametrize("name", BAD_PROXIES)
@pytest.mark.parametrize("way", ["proxy", "base_url", "environment"])
def test_a_password_in_a_url_that_cannot_work_shows_nowhere(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the error, nor in the local variables of its traceback."""
    with pytest.raises((ConfigurationError, TypeError)) as caught:
        if way == "environment":
            _set_proxy(name, monkeypatch)
            Client("k", model="m")
        else:
            Client("k", model="m", **{way: BAD_PROXIES[name]()})
    error = caught.value
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    shown = "".join(line for line in lines if "/tests/" not in line)
    assert "canary" not in f"{shown} {error} {error!r}"
    assert error.__cause__ is None is error.__context__


def _set_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = BAD_PROXIES[name]()
    if isinstance(value, bytes) or not value.isascii():
        value = "http://u:canary@[::1"  # no environment holds it
    monkeypatch.setenv("HTTPS_PROXY", value)
