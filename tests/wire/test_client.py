"""The client on real sockets: what it sends, what it keeps, how connections are used."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import logging
import os
import pickle
import socket
import ssl
import threading
import time
import traceback
import warnings
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

from streamchat import (
    AuthenticationError,
    ChatRequest,
    Client,
    ConfigurationError,
    ConnectError,
    ContentDelta,
    Dispatcher,
    ProtocolError,
    Retry,
    StatusError,
    StreamChatError,
    StreamTimeoutError,
    Timeout,
    ToolMessage,
    TransportError,
    TruncatedStreamError,
    UserMessage,
)
from streamchat.transport import Exchange
from streamchat.transport.connections import retrieve
from tests.catalogue.helpers import reset
from tests.frames import body, pieces, plain
from tests.wire.server import (
    EVENT_STREAM,
    Request,
    Wire,
    answer_whole,
    chunked,
    serve,
    whole_answer,
)

KEY = "canary-key-8f3b"
ONCE = Retry(attempts=1)


def client(wire: Wire, **options: Any) -> Client:
    return Client(KEY, **({"base_url": wire.url, "model": "command-test"} | options))


# --- what is sent --------------------------------------------------------------------------------


async def test_the_request_is_what_the_api_wants() -> None:
    """Path, headers and body of protocol.md 1 and 2; nothing that was not given."""
    async with serve(answer_whole) as wire, client(wire, client_name="shop") as chat:
        await chat.chat("Hi", temperature=0.5, documents=["one", {"data": {"a": 1}, "id": "x"}])
    sent = wire.requests[0]
    assert sent.line == "POST /v2/chat HTTP/1.1"
    assert json.loads(sent.body) == {
        "model": "command-test",
        "messages": [{"role": "user", "content": "Hi"}],
        "documents": ["one", {"data": {"a": 1}, "id": "x"}],
        "temperature": 0.5,
        "stream": True,
    }
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["accept"] == "text/event-stream"
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.headers["cache-control"] == "no-cache"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["user-agent"].startswith("streamchat/")
    assert sent.headers["x-client-name"] == "shop"


async def test_the_loop_of_the_documentation_runs_unchanged() -> None:
    """Cohere's own example, with our client for theirs."""
    printed = ""
    async with serve(answer_whole) as wire, client(wire) as co:
        async for event in co.chat_stream(
            model="command-a-03-2025",
            messages=[{"role": "user", "content": "Hello"}],
        ):
            if event.type == "content-delta":
                printed += event.delta.message.content.text
    assert printed == "Hello there!"
    assert json.loads(wire.requests[0].body)["model"] == "command-a-03-2025"


async def test_an_earlier_answer_goes_into_the_next_request() -> None:
    """A ChatResponse inside `messages` is the assistant's turn."""
    async with serve(answer_whole) as wire, client(wire) as chat:
        first = await chat.chat("Hi")
        await chat.chat([UserMessage("Hi"), first, {"role": "user", "content": "Again"}])
    assert json.loads(wire.requests[1].body)["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello there!"}]},
        {"role": "user", "content": "Again"},
    ]


async def test_an_empty_key_sends_no_authorization() -> None:
    """Private deployments; also when the environment has none."""
    async with serve(answer_whole) as wire:
        for key in ("", None):
            async with Client(key, base_url=wire.url, model="m") as chat:
                await chat.chat("Hi")
    assert all("authorization" not in request.headers for request in wire.requests)


async def test_key_and_url_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """CO_API_KEY and CO_API_URL, read at construction; a path prefix survives."""
    async with serve(answer_whole) as wire:
        monkeypatch.setenv("CO_API_KEY", KEY + "\n")
        monkeypatch.setenv("CO_API_URL", wire.url + "/prefix/")
        chat = Client(model="m")
        monkeypatch.undo()
        await chat.chat("Hi")
        await chat.aclose()
    assert wire.requests[0].line == "POST /prefix/v2/chat HTTP/1.1"
    assert wire.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_no_proxy_is_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company proxy in the environment does not come between a client and loopback."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serve(answer_whole) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"


async def test_a_proxy_of_the_environment_is_used_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTTP_PROXY is honoured, NO_PROXY too; the proxy sees the whole URL."""
    async with serve(answer_whole) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for url, asked in (("http://inside.test", 1), ("http://other.test", 1)):
            async with Client(KEY, base_url=url, model="m", allow_http=True, retry=ONCE) as chat:
                with contextlib.suppress(ConnectError):
                    await chat.chat("Hi")
            assert len(proxy.requests) == asked
            monkeypatch.setenv("NO_PROXY", "other.test")
    assert proxy.requests[0].line == "POST http://inside.test/v2/chat HTTP/1.1"


@pytest.mark.parametrize("no_proxy", ["127.0.0.0/8", "127.0.0.2", "127.0.0.2:{port}", "*"])
async def test_a_host_that_no_proxy_names_is_reached_directly(
    no_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key and the prompt do not go to a proxy that they should avoid."""
    async with serve(answer_whole) as proxy, serve(answer_whole, host="127.0.0.2") as wire:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=wire.url.rpartition(":")[2]))
        async with client(wire, allow_http=True) as chat:
            assert (await chat.chat("Hi")).text == "Hello there!"
        monkeypatch.setenv("NO_PROXY", "127.0.0.2:1, 127.0.1.0/24")
        async with client(wire, allow_http=True) as chat:
            assert (await chat.chat("Hi")).text == "Hello there!"
    assert (len(wire.requests), len(proxy.requests)) == (1, 1)


async def test_a_session_of_the_callers_decides_about_proxies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No proxy variable is read for it; its own proxy is used."""
    async with serve(answer_whole) as proxy, serve(answer_whole, host="127.0.0.2") as wire:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for own, asked in ((None, 0), (proxy.url, 1)):
            async with (
                aiohttp.ClientSession(proxy=own) as session,
                client(wire, allow_http=True, session=session) as chat,
            ):
                assert (await chat.chat("Hi")).text == "Hello there!"
            assert len(proxy.requests) == asked


async def test_proxy_false_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says."""
    async with serve(answer_whole, host="127.0.0.2") as wire:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        for proxy in (False, ""):
            async with client(wire, allow_http=True, proxy=proxy) as chat:
                assert (await chat.chat("Hi")).text == "Hello there!"


async def test_headers_of_the_call_win_over_the_clients() -> None:
    """headers= of a call over those of the client over its defaults, whatever their case."""
    async with (
        serve(answer_whole) as wire,
        client(wire, headers={"user-agent": "mine", "X-A": "1"}) as chat,
    ):
        await chat.chat("Hi", headers={"X-A": "2"})
    assert wire.requests[0].headers["user-agent"] == "mine"
    assert wire.requests[0].headers["x-a"] == "2"


async def test_a_large_request_is_sent_without_a_warning() -> None:
    """Two megabytes of documents, as aiohttp likes them."""
    async with serve(answer_whole) as wire, client(wire) as chat:
        await chat.chat("Hi", documents=["x" * 2_000_000])
    assert len(wire.requests[0].body) > 2_000_000


# --- settings that cannot work -------------------------------------------------------------------

SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"api_key": None}, "CO_API_KEY"),
    ({"api_key": ""}, "CO_API_KEY"),
    ({"api_key": "a b"}, "API key"),
    ({"api_key": "kéy"}, "API key"),
    ({"api_key": "k\r\nX: y"}, "API key"),
    ({"api_key": "k", "base_url": "ftp://x"}, "base_url"),
    ({"api_key": "k", "base_url": "api.cohere.com"}, "base_url"),
    ({"api_key": "k", "base_url": "https://me:pw@x.test"}, "user name"),
    ({"api_key": "k", "base_url": "https://x.test?key=1"}, "query"),
    ({"api_key": "k", "base_url": "http://x.test"}, "allow_http"),
    ({"api_key": "k", "base_url": "http://2130706433"}, "name its host"),
    ({"api_key": "k", "base_url": "https://x.test:notaport"}, "base_url"),
    ({"api_key": "k", "ssl": False}, "ssl"),
    ({"api_key": "k", "timeout": 5}, "timeout"),
    ({"api_key": "k", "retry": 5}, "retry"),
    ({"api_key": "k", "max_connections": 0}, "max_connections"),
    ({"api_key": "k", "base_url": "https://x.test/v2/chat"}, "/v2/chat"),
    ({"api_key": "k", "headers": {"bad name": "x"}}, "bad name"),
    ({"api_key": "k", "headers": {"x": "a\nb"}}, "x"),
    ({"api_key": "k", "client_name": "a\nb"}, "X-Client-Name"),
    ({"api_key": 5}, "api_key"),
    ({"api_key": b"canary"}, "api_key"),
    ({"api_key": "k", "base_url": 5}, "base_url"),
    ({"api_key": "k", "max_event_bytes": 0}, "max_event_bytes"),
    ({"api_key": "k", "headers": {"X-Key": "canary\n"}}, "X-Key"),
]


@pytest.mark.parametrize(("settings", "named"), SETTINGS)
def test_settings_that_cannot_work_are_refused_by_name(
    settings: dict[str, Any], named: str
) -> None:
    """Before anything is sent, and without showing key or password."""
    with pytest.raises((ConfigurationError, TypeError, ValueError), match=named) as caught:
        Client(**settings)
    shown = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    ours = shown[shown.index("streamchat/client.py") :]
    assert "canary" not in ours
    assert "pw@" not in str(caught.value)
    assert "X: y" not in str(caught.value)
    assert "streamchat" in shown


def test_plain_http_is_allowed_when_asked_for() -> None:
    """allow_http=True, and loopback always."""
    allowed = Client("k", base_url="http://inside.test", allow_http=True)
    assert "http://inside.test" in repr(allowed)
    for url in ("http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000"):
        assert url in repr(Client("k", base_url=url))


@pytest.mark.parametrize(
    "host",
    [
        "gw..test",
        ".gw.test",
        "gw.test..",
        "..",
        ".",
        "canary" * 10 + "long.test",
        "canary" * 9 + "b\u00fccher.test",
        "gw\u3002\u3002test",
        ("canary" * 8 + ".") * 5 + "canary.test1",
        "canary%2fx.test",
        "canary canary.test",
        "*.canary.test",
        "canary<>.test",
        "\u200b.test",
        "gw.\u00ad\u2060.test",
    ],
)
def test_a_host_that_cannot_exist_is_refused_at_construction(host: str) -> None:
    """Each label has 1 to 63 octets, all together 253; the message does not repeat the URL."""
    for port in ("", ":8000"):
        with pytest.raises(
            ConfigurationError, match=r"base_url \(CO_API_URL\) must name a"
        ) as caught:
            Client("k", base_url=f"https://{host}{port}/x")
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "gw.test.",
        "my_gateway",
        "-x.test",
        "b\u00fccher.test",
        "xn--bcher-kva.test",
        "\u2615.test",
        "a" * 63 + ".test",
        ("a" * 49 + ".") * 5 + "abc",
        "[fe80::1%25eth0]",
        "[::1]",
        "10.0.0.1",
    ],
)
def test_a_host_that_can_exist_is_accepted(host: str) -> None:
    assert Client("k", base_url=f"https://{host}:8000").base_url == f"https://{host}:8000"


@pytest.mark.parametrize("inner", ["\t", "\n", "\r\n"])
def test_a_tab_or_a_line_end_in_base_url_is_refused(inner: str) -> None:
    """The URL standard would leave it out, and two settings would become one address."""
    with pytest.raises(ConfigurationError, match="tab or a line end") as caught:
        Client("k", base_url=f"https://canary.test/{inner}x")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "/ ", "\t", "/\n"])
async def test_blanks_around_base_url_are_not_part_of_it(end: str) -> None:
    """Files and .env leave them."""
    async with serve(answer_whole) as wire, client(wire, base_url=f" {wire.url}{end}") as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"
        assert chat.base_url == wire.url
    assert wire.requests[0].line == "POST /v2/chat HTTP/1.1"


@pytest.mark.parametrize("end", ["/v2", "/v2/", "/prefix/v2"])
async def test_base_url_may_name_the_version(end: str) -> None:
    """As settings of another SDK do: the path is not /v2/v2/chat."""
    async with serve(answer_whole) as wire, client(wire, base_url=wire.url + end) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"
    path = end.rstrip("/").removesuffix("/v2")
    assert wire.requests[0].line == f"POST {path}/v2/chat HTTP/1.1"


@pytest.mark.parametrize("version", ["/v1", "/v2", ""])
def test_coheres_own_url_may_name_the_version(version: str) -> None:
    """Settings written for the official SDK go on working."""
    chat = Client("k", base_url=f"https://api.cohere.com{version}")
    assert repr(chat) == "<Client base_url='https://api.cohere.com' model=None>"


CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": None}, ConfigurationError, "no model"),
    ({"temprature": 1}, TypeError, "temperature"),
    ({"temperature": 2}, ValueError, "temperature"),
    ({"messages": []}, ValueError, "messages"),
    ({"messages": 5}, TypeError, "messages"),
    ({"messages": [{"content": "x"}]}, ValueError, r"messages\[0\]"),
    ({"documents": [{"data": {"x": object()}}]}, TypeError, r"documents\[0\]\.data\.x"),
    ({"documents": [{"data": {"x": "\ud800"}}]}, ValueError, r"documents\[0\]\.data\.x"),
    ({"timeout": 5}, TypeError, "timeout"),
    ({"handlers": [print]}, TypeError, "handlers"),
    ({"handlers": Dispatcher()}, TypeError, r"handlers=\[\.\.\.\]"),
    ({"on_content_delta": print}, TypeError, r"@client\.on_content_delta"),
    ({"messages": [ToolMessage("x", {"a": 1})]}, TypeError, r"json\.dumps"),
    ({"messages": [{"id": "1", "message": {}}]}, ValueError, "pass its 'message'"),
    ({"headers": {"": "x"}}, ValueError, "header"),
]


@pytest.mark.parametrize(("arguments", "expected", "named"), CALLS)
def test_wrong_arguments_are_refused_by_name_before_anything_is_sent(
    arguments: dict[str, Any], expected: type[Exception], named: str
) -> None:
    """chat_stream() itself raises: no connection is made, nothing need be awaited."""
    chat = Client("k")
    arguments = {"messages": "Hi", "model": "m"} | arguments
    with pytest.raises(expected, match=named):
        chat.chat_stream(arguments.pop("messages"), **arguments)


# --- connections ---------------------------------------------------------------------------------


async def test_one_connection_serves_one_answer_after_the_other() -> None:
    """The connection is given back after [DONE]."""
    async with serve(answer_whole) as wire, client(wire) as chat:
        for _ in range(10):
            await chat.chat("Hi")
    assert (len(wire.requests), wire.connections) == (10, 1)


async def test_a_stale_pooled_connection_costs_no_attempt() -> None:
    """A server that closes after each answer: every POST succeeds, each counted once."""

    async def answer_and_close(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(whole_answer())
        await writer.drain()
        if request.connection % 2 == 0:
            writer.close()

    async with serve(answer_and_close) as wire, client(wire, retry=ONCE) as chat:
        for _ in range(20):
            stream = chat.chat_stream("Hi")
            assert (await stream).text == "Hello there!"
            assert stream.attempts == 1


async def test_a_server_that_keeps_talking_after_the_answer_is_cut_off() -> None:
    """The answer is complete at message-end; the drain is bounded and the connection closed."""

    async def chatter(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(chunked(body(plain())))
        while True:
            writer.write(chunked(b": still here\n\n" * 100))
            await writer.drain()

    async with serve(chatter) as wire, client(wire) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"
        await wire.closed.wait()


async def test_leaving_early_closes_the_connection() -> None:
    """break inside `async with`: the server sees the end at once."""

    async def endless(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(b"".join(map(chunked, pieces(plain(*"abc"))[:3])))
        await wire.closed.wait()

    async with serve(endless) as wire, client(wire) as chat:
        async with chat.chat_stream("Hi") as stream:
            async for event in stream:
                if isinstance(event, ContentDelta):
                    break
        await wire.closed.wait()


async def test_a_redirect_is_refused_and_nothing_is_sent_there() -> None:
    """307 would repeat the whole prompt at another origin."""

    async def redirect(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(
            f"HTTP/1.1 307 T\r\nlocation: {elsewhere.url}/v2/chat\r\ncontent-length: 0\r\n\r\n".encode()
        )

    async with serve(answer_whole) as elsewhere, serve(redirect) as wire, client(wire) as chat:
        with pytest.raises(StatusError, match=r"redirect to http://127\.0\.0\.1 refused"):
            await chat.chat("Hi")
    assert not elsewhere.requests


async def test_cookies_are_not_kept() -> None:
    """What one answer sets is not sent with the next request."""

    async def cookie(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(whole_answer().replace(b"200 OK\r\n", b"200 OK\r\nset-cookie: a=b\r\n"))

    async with serve(cookie) as wire, client(wire) as chat:
        await chat.chat("Hi")
        await chat.chat("Hi")
    assert "cookie" not in wire.requests[1].headers


async def test_a_session_of_the_callers_own_is_used_and_not_closed() -> None:
    """session= is used as it is, and stays open."""
    async with serve(answer_whole) as wire, aiohttp.ClientSession() as session:
        async with client(wire, session=session) as chat:
            assert (await chat.chat("Hi")).text == "Hello there!"
        assert not session.closed


async def test_many_answers_at_once() -> None:
    """No limit of 100: each stream has its own connection, and its own answer."""
    together = 150
    everybody = asyncio.Event()

    async def wait_for_all(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(wire.requests) == together:
            everybody.set()
        await everybody.wait()
        number = json.loads(request.body)["messages"][0]["content"]
        writer.write(whole_answer(number))

    async with serve(wait_for_all) as wire, client(wire) as chat:
        answers = await asyncio.gather(*(chat.chat(str(n)) for n in range(together)))
    assert [answer.text for answer in answers] == [str(n) for n in range(together)]


async def test_a_client_works_after_and_without_its_context() -> None:
    """Usable without `async with`; aclose() is idempotent; use after close is a clear error."""
    async with serve(answer_whole) as wire:
        chat = client(wire)
        assert (await chat.chat("Hi")).text == "Hello there!"
        await chat.aclose()
        await chat.aclose()
        with pytest.raises(TransportError, match="the client is closed"):
            await chat.chat("Hi")


def test_one_client_works_from_several_loops_in_turn() -> None:
    """asyncio.run twice with one client: a session for each loop, nothing left behind."""

    async def once(chat: Client) -> str:
        return (await chat.chat("Hi")).text

    async def both() -> None:
        async with serve(answer_whole) as wire:
            chat = client(wire)
            for _ in range(2):
                assert await asyncio.to_thread(asyncio.run, once(chat)) == "Hello there!"
            assert wire.connections == 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(both())
        gc.collect()


async def test_a_client_that_is_dropped_open_warns_and_leaves_nothing() -> None:
    """ResourceWarning names the class; the loop closes the session."""
    async with serve(answer_whole) as wire:
        chat = client(wire)
        await chat.chat("Hi")
        with pytest.warns(ResourceWarning, match="<Client base_url="):
            del chat
            gc.collect()
        await wire.closed.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_connections_of_its_own() -> None:
    """The child never writes to the parent's sockets; both get their own answers."""

    async def ask(chat: Client, text: str) -> str:
        return (await chat.chat(text)).text

    async def echo(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(whole_answer(json.loads(request.body)["messages"][0]["content"]))

    async def family() -> None:
        async with serve(echo) as wire:
            chat = client(wire)

            def parent() -> None:
                with asyncio.Runner() as runner:
                    assert runner.run(ask(chat, "before")) == "before"
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # threads and fork: the point of the test
                        child = os.fork()
                    if child == 0:
                        status = 1
                        try:
                            asyncio.events._set_running_loop(None)
                            with asyncio.Runner() as own:
                                status = 0 if own.run(ask(chat, "child")) == "child" else 2
                        finally:
                            os._exit(status)
                    assert runner.run(ask(chat, "parent")) == "parent"
                    assert os.waitpid(child, 0)[1] == 0

            await asyncio.to_thread(parent)
            by_text = {json.loads(r.body)["messages"][0]["content"]: r for r in wire.requests}
            assert by_text["child"].connection != by_text["before"].connection
            assert by_text["parent"].connection == by_text["before"].connection

    asyncio.run(family())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_closes_the_client_leaves_the_parent_alone() -> None:
    """The parent's running stream goes on, whatever the child closes or collects."""

    async def in_two_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(chunked(b"".join(pieces(plain())[:3])))
        await writer.drain()
        await asyncio.to_thread(forked.wait)
        writer.write(chunked(b"".join(pieces(plain())[3:])) + b"0\r\n\r\n")

    forked = threading.Event()

    async def stream_and_fork(chat: Client) -> str:
        stream = chat.chat_stream("Hi")
        await anext(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # threads and fork: the point of the test
            child = os.fork()
        if child == 0:
            try:
                asyncio.events._set_running_loop(None)
                stream.__del__()
                asyncio.run(chat.aclose())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        forked.set()
        return (await stream).text

    async def family() -> None:
        async with serve(in_two_parts) as wire:
            chat = client(wire, timeout=Timeout(idle=3))
            answer = await asyncio.to_thread(asyncio.run, stream_and_fork(chat))
            assert answer == "Hello there!"

    asyncio.run(family())


# --- failures, the plain cases -------------------------------------------------------------------


async def test_a_refused_connection_says_where() -> None:
    """ConnectError with host, kind and errno."""
    async with serve(answer_whole) as wire:
        url = wire.url
    async with Client(KEY, base_url=url, model="m", retry=ONCE) as chat:
        with pytest.raises(ConnectError, match=r"cannot connect to 127\.0\.0\.1") as caught:
            await chat.chat("Hi")
    assert (caught.value.kind, caught.value.host) == ("refused", url.removeprefix("http://"))
    assert caught.value.errno


def _cut(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n" + data)
    writer.close()


async def test_a_cut_body_is_truncation_with_the_partial_answer() -> None:
    """FIN inside the body: the events that arrived, then TruncatedStreamError."""

    async def cut(writer: asyncio.StreamWriter, request: Request) -> None:
        _cut(writer, chunked(b"".join(pieces(plain())[:4])))

    async with serve(cut) as wire, client(wire) as chat:
        seen = []
        with pytest.raises(TruncatedStreamError) as caught:
            async for event in chat.chat_stream("Hi"):
                seen.append(event)
    assert seen == plain()[:4]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"
    assert (caught.value.events, caught.value.bytes_received > 0) == (4, True)


async def test_a_clean_end_without_message_end_is_truncation() -> None:
    """Chunking complete, answer not: the mistake of the peers."""

    async def stop(writer: asyncio.StreamWriter, request: Request) -> None:
        _cut(writer, chunked(b"".join(pieces(plain())[:4])) + b"0\r\n\r\n")

    async with serve(stop) as wire, client(wire) as chat:
        with pytest.raises(TruncatedStreamError):
            await chat.chat("Hi")


async def test_events_that_arrived_before_a_reset_reach_a_slow_consumer() -> None:
    """The consumer dawdles while the connection dies; nothing that arrived is lost."""
    reset = asyncio.Event()

    async def send_and_reset(writer: asyncio.StreamWriter, request: Request) -> None:
        head = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
        sent = pieces(plain(*"abcdefgh"))
        writer.write(head + chunked(b"".join(sent[:3])))
        await writer.drain()
        await first.wait()
        writer.write(b"".join(map(chunked, sent[3:10])))
        await writer.drain()
        writer.close()
        reset.set()

    first, texts = asyncio.Event(), []
    async with serve(send_and_reset) as wire, client(wire) as chat:
        with pytest.raises(TruncatedStreamError):
            async for piece in chat.chat_stream("Hi").text():
                texts.append(piece)
                first.set()
                await reset.wait()
                for _ in range(50):
                    await asyncio.sleep(0)
    assert "".join(texts) == "abcdefgh"


async def test_broken_chunk_framing_ends_the_stream_at_once() -> None:
    """aiohttp forgets to wake its reader; we do not hang, and say that it is no HTTP."""

    async def garbage(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(chunked(b"".join(pieces(plain())[:4])))
        await writer.drain()
        await first.wait()
        writer.write(b"this is no chunk size\r\n")
        await wire.closed.wait()

    first, seen = asyncio.Event(), []
    async with serve(garbage) as wire, client(wire) as chat:
        with pytest.raises(ProtocolError, match="not valid HTTP"):
            async for event in chat.chat_stream("Hi"):
                seen.append(event)
                first.set()
    assert seen == plain()[:4]


async def test_garbage_instead_of_http_is_a_protocol_error() -> None:
    """Not retried, and the bytes are not quoted."""

    async def garbage(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(b"SSH-2.0-canary\r\n\r\n")
        writer.close()

    async with serve(garbage) as wire, client(wire) as chat:
        with pytest.raises(ProtocolError) as caught:
            await chat.chat("Hi")
    assert "canary" not in str(caught.value)


async def test_a_silent_server_is_a_timeout() -> None:
    """No headers: first_event; a real, short limit on a real socket."""

    async def silent(writer: asyncio.StreamWriter, request: Request) -> None:
        await wire.closed.wait()

    async with serve(silent) as wire, client(wire, timeout=Timeout(first_event=0.05)) as chat:
        with pytest.raises(StreamTimeoutError) as caught:
            await chat.chat("Hi")
    assert caught.value.phase == "first_event"


async def test_a_stalled_stream_is_an_idle_timeout() -> None:
    """The watchdog wakes a read that waits for bytes."""

    async def stall(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(chunked(b"".join(pieces(plain())[:3])))
        await wire.closed.wait()

    async with serve(stall) as wire, client(wire, timeout=Timeout(idle=0.05)) as chat:
        with pytest.raises(StreamTimeoutError) as caught:
            await chat.chat("Hi")
        await wire.closed.wait()
    assert caught.value.phase == "idle"
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"


async def test_a_certificate_nobody_knows_is_refused_and_not_retried() -> None:
    """Never a switch to no verification; the message says what to pass."""
    async with serve(answer_whole, ssl=_self_signed()) as wire, client(wire) as chat:
        with pytest.raises(ConnectError, match="ssl=") as caught:
            await chat.chat("Hi")
    assert (caught.value.kind, caught.value.attempts) == ("certificate", 1)


def _self_signed() -> ssl.SSLContext:
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_tls_peer_that_says_no_goodbye_does_not_keep_the_connection() -> None:
    """Leaving early over TLS: the socket is closed at once, not after the peer's close_notify."""
    trustme = pytest.importorskip("trustme")
    authority, theirs = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    part = chunked(b"".join(pieces(plain())[:3]))
    answer = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n" + part

    def rude_peer(listener: socket.socket) -> bytes:
        """Answers over TLS, then reads the bare socket: it never takes part in a shutdown."""
        with theirs.wrap_socket(listener.accept()[0], server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(answer)
            bare = socket.socket(fileno=tls.detach())
        with bare:
            bare.settimeout(5)
            last = b"-"
            with contextlib.suppress(ConnectionResetError):
                while last:
                    last = bare.recv(65536)
            return b""

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        peer = asyncio.create_task(asyncio.to_thread(rude_peer, listener))
        async with Client(KEY, base_url=url, model="m", ssl=ours) as chat:
            async with chat.chat_stream("Hi") as stream:
                assert await anext(stream.text()) == "Hello"
            assert await peer == b""


async def test_closing_the_client_ends_its_streams() -> None:
    """A reader does not hang when another task closes the client."""

    async def stall(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(chunked(b"".join(pieces(plain())[:3])))
        await wire.closed.wait()

    async with serve(stall) as wire:
        chat, started = client(wire), asyncio.Event()
        chat.on_content_delta(lambda event: started.set())
        running = asyncio.ensure_future(chat.chat("Hi"))
        await started.wait()
        await chat.aclose()
        with pytest.raises(TransportError, match="client was closed") as caught:
            await running
    assert caught.value.partial is not None


async def test_cancelling_closes_the_connection() -> None:
    """CancelledError reaches the caller, and the server sees the end."""

    async def silent(writer: asyncio.StreamWriter, request: Request) -> None:
        asked.set()
        await wire.closed.wait()

    asked = asyncio.Event()
    async with serve(silent) as wire, client(wire) as chat:
        running = asyncio.ensure_future(chat.chat("Hi"))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await wire.closed.wait()


async def test_a_held_up_loop_does_not_end_healthy_streams() -> None:
    """The loop was blocked longer than `idle`, and bytes lie in the socket: they are read first."""

    async def send_all(writer: asyncio.StreamWriter, request: Request) -> None:
        head = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
        writer.write(head + chunked(b"".join(pieces(plain())[:2])))
        await writer.drain()
        await first.wait()
        writer.write(chunked(b"".join(pieces(plain())[2:])) + b"0\r\n\r\n")
        time.sleep(0.2)  # the very thing that is tested: a blocked loop

    first = asyncio.Event()
    async with serve(send_all) as wire, client(wire, timeout=Timeout(idle=0.1)) as chat:
        chat.on_content_start(lambda event: first.set())
        assert (await chat.chat("Hi")).text == "Hello there!"


async def test_closing_the_client_ends_streams_that_wait_to_try_again() -> None:
    """Backoff and headers alike: the closed client's error, and no further request."""

    async def busy(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(b"HTTP/1.1 429 T\r\nretry-after: 30\r\ncontent-length: 2\r\n\r\n{}")
        asked.set()

    async def silent(writer: asyncio.StreamWriter, request: Request) -> None:
        asked.set()
        await wire.closed.wait()

    for reply in (busy, silent):
        asked = asyncio.Event()
        async with serve(reply) as wire:
            chat = client(wire)
            running = asyncio.ensure_future(chat.chat("Hi"))
            await asked.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            await chat.aclose()
            with pytest.raises(TransportError) as caught:
                await running
            assert caught.value.kind == "closed"
            assert len(wire.requests) == 1


async def test_a_plain_connection_receives_less_than_malloc_maps() -> None:
    """asyncio's transport takes 124 KiB at once instead of 256; uvloop's has no such attribute.

    The attribute is documented nowhere: if it goes, an event costs a fifth more, and this says so.
    """

    async def wait(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(chunked(pieces(plain())[0]))

    async with serve(wait) as wire, client(wire) as chat, chat.chat_stream("Hi") as stream:
        exchange = stream._source._exchange
        assert exchange is not None
        connection = exchange._response.connection
        assert connection is not None
        received = getattr(connection.transport, "max_size", None)
        is_asyncio = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
        assert received == (124 * 1024 if is_asyncio else None)


async def test_nothing_of_an_exchange_stays_on_a_kept_connection() -> None:
    """A busy connection does not collect callbacks."""

    async def in_two_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        await writer.drain()
        for _ in range(5):
            await asyncio.sleep(0)
        writer.write(chunked(body(plain())) + b"0\r\n\r\n")

    lost = []
    async with serve(in_two_parts) as wire, client(wire) as chat:
        for _ in range(10):
            async with chat.chat_stream("Hi") as stream:
                exchange = stream._source._exchange
                assert exchange is not None
                lost.append(exchange._lost)
                await stream
            assert exchange._lost is None
        futures = [future for future in lost if future is not None]
        left = [getattr(future, "_callbacks", None) or [] for future in futures]
        # All that stays is the one function that asyncio needs to see the end of a connection noticed.
        assert all([call for call, _ in each] in ([], [retrieve]) for each in left)
        assert not any(list(context) for each in left for _, context in each)


REFUSED = b"HTTP/1.1 413 L\r\ncontent-length: 2\r\n"
EARLY = {
    "413, close": (REFUSED + b"connection: close\r\n\r\n{}", False),
    "413, keep-alive, close": (REFUSED + b"\r\n{}", False),
    "401, reset": (REFUSED.replace(b"413", b"401") + b"\r\n{}", True),
    "an answer, reset": (whole_answer(), True),
}


@pytest.mark.parametrize("name", EARLY)
async def test_an_answer_before_the_end_of_the_upload_leaves_nothing_to_report(name: str) -> None:
    """Whatever becomes of the rest of the upload, asyncio reports no exception that nobody retrieved."""
    said, resets = EARLY[name]
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        if resets:
            reset(writer)
        else:
            writer.close()
        ended.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(KEY, base_url=url, model="m", retry=ONCE) as chat:
        with contextlib.suppress(StreamChatError):
            await chat.chat("x" * 12_000_000)
        await ended.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        gc.collect()
    assert [report["message"] for report in reports] == []


async def test_a_reset_of_an_idle_connection_leaves_nothing_to_report() -> None:
    """Load balancers reset connections in the pool; asyncio reports no exception nobody retrieved."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    idle = asyncio.Event()

    async def in_two_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        await writer.drain()
        for _ in range(5):
            await asyncio.sleep(0)
        writer.write(chunked(body(plain())) + b"0\r\n\r\n")
        await idle.wait()
        reset(writer)

    async with serve(in_two_parts, answer_whole) as wire, client(wire) as chat:
        async with chat.chat_stream("Hi") as stream:
            exchange = stream._source._exchange
            assert exchange is not None
            lost = exchange._lost
            await stream
        assert lost is not None
        idle.set()
        while not lost.done():  # to await it would retrieve its exception
            await asyncio.sleep(0)
        del exchange, stream
        assert (await chat.chat("Hi")).text == "Hello there!"
        del lost
        gc.collect()
    assert [report["message"] for report in reports] == []
    assert wire.connections == 2


async def test_statuses_are_ours_to_judge_also_in_a_session_of_the_callers() -> None:
    """raise_for_status and auth of a foreign session do not change our errors."""

    async def refuse(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(b"HTTP/1.1 401 U\r\ncontent-length: 2\r\n\r\n{}")

    async with serve(refuse) as wire, aiohttp.ClientSession(raise_for_status=True) as session:
        with pytest.raises(AuthenticationError):
            await client(wire, session=session).chat("Hi")


PROXIES = ["socks5://127.0.0.1:1", "http://", "://x", "http://u:canary-pw@[bad"]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_that_cannot_work_is_refused_at_construction(proxy: str) -> None:
    """By name, and without showing it."""
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        Client(KEY, base_url="https://inside.test", proxy=proxy)
    assert "canary" not in str(caught.value)


async def test_a_proxy_without_scheme_and_with_password_works_and_shows_nothing() -> None:
    """host:port is http; user and password go into the proxy's own header."""

    async def refuse(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(b"HTTP/1.1 407 P\r\ncontent-length: 0\r\n\r\n")

    for reply, expected in ((answer_whole, None), (refuse, StatusError)):
        async with serve(reply) as wire:
            proxy = wire.url.replace("http://", "me:canary-pw@")
            chat = Client(
                KEY, base_url="http://inside.test", model="m", allow_http=True, proxy=proxy
            )
            if expected is None:
                assert (await chat.chat("Hi")).text == "Hello there!"
            else:
                with pytest.raises(expected) as caught:
                    await chat.chat("Hi")
                rendered = traceback.TracebackException.from_exception(
                    caught.value, capture_locals=True
                )
                assert "canary-pw" not in "".join(rendered.format()).replace(proxy, "")
            await chat.aclose()
        sent = wire.requests[0].headers["proxy-authorization"]
        assert sent == "Basic " + base64.b64encode(b"me:canary-pw").decode()


@pytest.mark.parametrize("location", ["http://[::1", "http://\xff.x/"])
async def test_a_broken_redirect_is_a_status_error(location: str) -> None:
    """Whatever stands in Location."""

    async def redirect(writer: asyncio.StreamWriter, request: Request) -> None:
        head = f"HTTP/1.1 302 T\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        writer.write(head.encode("latin-1"))

    async with serve(redirect) as wire, client(wire) as chat:
        with pytest.raises(StatusError, match="refused"):
            await chat.chat("Hi")


async def test_a_retry_is_logged_without_content(caplog: pytest.LogCaptureFixture) -> None:
    """One INFO record a retry: which try, why in two words, how long until the next."""

    async def busy(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(b"HTTP/1.1 503 T\r\ncontent-length: 6\r\n\r\ncanary")

    caplog.set_level(logging.INFO, logger="streamchat")
    async with serve(busy, answer_whole) as wire, client(wire, retry=Retry(base=0)) as chat:
        await chat.chat("Hi")
    (record,) = [record for record in caplog.records if record.name == "streamchat"]
    host = wire.url.removeprefix("http://")
    assert record.getMessage() == f"try 1 of 3 at {host} failed (HTTP 503); again in 0.00 s"


# --- secrets -------------------------------------------------------------------------------------


async def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Not in repr, str, args, notes, pickles, tracebacks with locals or debug logs."""

    async def refuse(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(b"HTTP/1.1 401 U\r\ncontent-length: 2\r\n\r\n{}")

    async def malformed(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(b"nonsense\r\n\r\n")
        writer.close()

    async def cut(writer: asyncio.StreamWriter, request: Request) -> None:
        _cut(writer, chunked(pieces(plain())[0]))

    caplog.set_level(logging.DEBUG)
    for reply in (refuse, malformed, cut):
        async with serve(reply) as wire, client(wire, retry=ONCE) as chat:
            stream = chat.chat_stream("Hi")
            with pytest.raises(StreamChatError) as caught:
                await stream
            error = caught.value
            rendered = traceback.TracebackException.from_exception(error, capture_locals=True)
            shown = [*rendered.format(), repr(error), str(error), repr(error.args), repr(chat)]
            shown += [repr(vars(error)), repr(stream), repr(chat.__dict__), caplog.text]
            assert KEY not in "".join(shown)
            assert KEY.encode() not in pickle.dumps(error)
    assert isinstance(error, TruncatedStreamError)


async def test_a_cancelled_request_shows_no_key_either() -> None:
    """The traceback of a cancellation runs through aiohttp's own frames."""

    async def silent(writer: asyncio.StreamWriter, request: Request) -> None:
        asked.set()
        await wire.closed.wait()

    asked = asyncio.Event()
    async with serve(silent) as wire, client(wire) as chat:
        running = asyncio.ensure_future(chat.chat("Hi"))
        await asked.wait()
        running.cancel()
        try:
            await running
        except asyncio.CancelledError as error:
            rendered = traceback.TracebackException.from_exception(error, capture_locals=True)
            shown = "".join(rendered.format())
        assert "chat" in shown
        assert KEY not in shown


def test_requests_show_sizes_not_words() -> None:
    """A prompt is nobody's business in a repr."""
    request = ChatRequest.build("canary prompt", "m", {"documents": ["canary document"]})
    assert "canary" not in repr(request)
    assert "canary" not in repr(UserMessage("canary prompt"))


async def test_a_wrong_key_is_an_authentication_error_with_a_hint() -> None:
    """401 says what to check."""

    async def refuse(writer: asyncio.StreamWriter, request: Request) -> None:
        answer = b'{"id":"x","message":"invalid api token"}'
        writer.write(b"HTTP/1.1 401 U\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))

    async with serve(refuse) as wire, client(wire) as chat:
        with pytest.raises(AuthenticationError, match=r"invalid api token .*CO_API_KEY"):
            await chat.chat("Hi", handlers=[Dispatcher()])


@pytest.mark.parametrize(
    ("malformed", "kind"), [(False, TruncatedStreamError), (True, ProtocolError)]
)
async def test_what_the_connection_said_before_it_let_go_counts(
    malformed: bool, kind: type[StreamChatError]
) -> None:
    """A body that broke before the headers were read: the response has no connection to ask any more."""

    class Response:
        status = 200
        headers = CIMultiDict({"Content-Type": "text/event-stream"})
        connection = None
        content = aiohttp.StreamReader(
            BaseProtocol(asyncio.get_running_loop()), 2**16, loop=asyncio.get_running_loop()
        )

    Response.content.set_exception(aiohttp.ClientPayloadError("it broke"))
    exchange = Exchange(cast(Any, Response()), "host", time.monotonic, 0.0, malformed=malformed)
    with pytest.raises(kind):
        await exchange.read()
