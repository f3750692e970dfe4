# ruff: noqa: SIM117
"""faults.md 3.1: what can go wrong before a request is out (F01 to F15)."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
import sys
import textwrap
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from streamchat import (
    Client,
    ConfigurationError,
    ConnectError,
    ProtocolError,
    StreamChatError,
    StreamTimeoutError,
    Timeout,
    TransportError,
)
from tests.catalogue.helpers import CHUNKED, KEY, ONCE, TWICE, check_clean, client, failure, says
from tests.frames import pieces, plain
from tests.wire.server import Request, answer_whole, chunked, serve, whole_answer

ROOT = Path(__file__).parents[2]
CONNECT = Timeout(connect=0.1)


# --- names and routes ----------------------------------------------------------------------------


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """F01: "cannot resolve HOST", tried again, and no other name is asked for."""
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        asked.append(host)
        raise OSError(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    async with client("https://nowhere.invalid", retry=TWICE) as chat:
        error = await failure(chat, ConnectError, r"cannot resolve nowhere\.invalid")
    assert (error.kind, error.attempts) == ("dns", 2)
    assert asked == ["nowhere.invalid"] * 2


async def test_a_resolver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """F01, F03: the connect limit covers the name as well."""

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    async with client("https://slow.invalid", timeout=CONNECT) as chat:
        error = await failure(chat, StreamTimeoutError, r"slow\.invalid within 0\.1 s")
    assert (error.phase, error.seconds) == ("connect", 0.1)


async def test_a_refused_connection_is_tried_again() -> None:
    """F02: host and port are named, with the operating system's number, on every try."""
    async with serve(answer_whole) as wire:
        url = wire.url
    async with client(url, retry=TWICE) as chat:
        error = await failure(chat, ConnectError, r"cannot connect to 127\.0\.0\.1:\d+")
    assert (error.kind, error.attempts, error.host) == ("refused", 2, url.removeprefix("http://"))
    assert error.errno


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="how Linux treats a full backlog")
async def test_a_black_hole() -> None:
    """F03: a peer that answers no SYN costs the connect limit, each try."""
    fillers: list[socket.socket] = []
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        try:
            for _ in range(4):  # the backlog is full after the first; the others are not answered
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(hole.getsockname())
                fillers.append(filler)
            url = f"http://127.0.0.1:{hole.getsockname()[1]}"
            async with client(url, timeout=CONNECT, retry=TWICE) as chat:
                error = await failure(chat, StreamTimeoutError, "no connection")
        finally:
            for filler in fillers:
                filler.close()
    assert (error.phase, error.attempts) == ("connect", 2)


# --- TLS -----------------------------------------------------------------------------------------


def authority() -> tuple[trustme.CA, ssl.SSLContext]:
    """An authority, and a client's context that trusts it."""
    ca, context = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(context)
    return ca, context


def server_side(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_a_context_of_the_callers_is_used() -> None:
    """F04: with the right authority the same server answers."""
    ca, context = authority()
    async with (
        serve(answer_whole, ssl=server_side(ca.issue_cert("127.0.0.1"))) as wire,
        client(wire, ssl=context) as chat,
    ):
        assert (await chat.chat("Hi")).text == "Hello there!"


@pytest.mark.parametrize("fault", ["wrong host", "expired", "not yet valid", "unknown authority"])
async def test_a_wrong_certificate_is_final(fault: str) -> None:
    """F04: refused, never retried, nothing sent; the message says what to pass."""
    ca, context = authority()
    now, day = datetime.now(UTC), timedelta(days=1)
    certificate = {
        "wrong host": lambda: ca.issue_cert("api.example"),
        "expired": lambda: ca.issue_cert(
            "127.0.0.1", not_before=now - 2 * day, not_after=now - day
        ),
        "not yet valid": lambda: ca.issue_cert(
            "127.0.0.1", not_before=now + day, not_after=now + 2 * day
        ),
        "unknown authority": lambda: trustme.CA().issue_cert("127.0.0.1"),
    }[fault]()
    async with (
        serve(answer_whole, ssl=server_side(certificate)) as wire,
        client(wire, ssl=context, retry=TWICE) as chat,
    ):
        error = await failure(chat, ConnectError, "certificate of .* was refused; pass ssl=")
    assert (error.kind, error.attempts, wire.requests) == ("certificate", 1, [])


class _Handshake:
    """A server's side of TLS that says why it refuses, then reads on until the client closes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(received, sent, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                writer.write(sent.read())
                received.write(await reader.read(65536))
                continue
            except ssl.SSLError:
                writer.write(sent.read())
                await reader.read()
            writer.close()
            return


@pytest.mark.parametrize(
    ("version", "given", "shown"),
    [
        ("TLSv1_3", "none", "asks for a client certificate; pass ssl="),
        ("TLSv1_2", "none", "handshake failure.*client certificate, pass ssl="),
        ("TLSv1_3", "unknown", r"refused the client certificate \(unknown ca\); pass ssl="),
        ("TLSv1_2", "unknown", r"refused the client certificate \(unknown ca\); pass ssl="),
        ("TLSv1_3", "expired", r"refused the client certificate \(certificate expired\); pass"),
    ],
)
async def test_a_missing_client_certificate_is_final(version: str, given: str, shown: str) -> None:
    """F05: with TLS 1.3 the alert comes where the answer should: tls, one attempt, all the same."""
    ca, context = authority()
    server = server_side(ca.issue_cert("127.0.0.1"))
    ca.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = ssl.TLSVersion[version]
    if given == "unknown":
        trustme.CA().issue_cert("client").configure_cert(context)
    elif given == "expired":
        past = datetime.now(UTC) - timedelta(days=1)
        ca.issue_cert("client", not_after=past).configure_cert(context)
    handshake = _Handshake(server)
    raw = await asyncio.start_server(handshake, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    async with raw, client(url, ssl=context, retry=TWICE) as chat:
        error = await failure(chat, ConnectError, shown)
    assert (error.kind, error.attempts, handshake.connections) == ("tls", 1, 1)


@pytest.mark.parametrize("size", [100_000, 2_000_000, 8_000_000])
async def test_a_missing_client_certificate_is_told_of_a_large_request(size: int) -> None:
    """F05: the alert comes while the body is being written, and writing fails without a reason."""
    ca, context = authority()
    server = server_side(ca.issue_cert("127.0.0.1"))
    ca.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    raw = await asyncio.start_server(_Handshake(server), "127.0.0.1", 0)
    url = f"https://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    async with raw, client(url, ssl=context, retry=TWICE) as chat:
        with pytest.raises(ConnectError, match="asks for a client certificate") as caught:
            await chat.chat("x" * size)
    assert (caught.value.kind, caught.value.attempts) == ("tls", 1)


@pytest.mark.parametrize("fault", ["version", "cipher", "reset", "end"])
async def test_tls_that_is_refused_says_tls(fault: str) -> None:
    """F05: an alert, and also a mere reset or end in the handshake; not retried."""
    ca, context = authority()
    server: ssl.SSLContext | None = server_side(ca.issue_cert("127.0.0.1"))
    assert server is not None
    if fault == "version":
        server.maximum_version = ssl.TLSVersion.TLSv1_2
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    elif fault == "cipher":
        server.maximum_version = ssl.TLSVersion.TLSv1_2
        server.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384")
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256")
    else:
        server = None

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if fault == "reset":
            writer.transport.abort()  # the rest of the hello is unread: RST
        else:
            await reader.read(65536)
            writer.close()

    if server is None:
        raw = await asyncio.start_server(cut, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
        async with raw, client(url, ssl=context, retry=TWICE) as chat:
            error = await failure(chat, ConnectError, "TLS")
    else:
        async with serve(answer_whole, ssl=server) as wire:
            async with client(wire, ssl=context, retry=TWICE) as chat:
                error = await failure(chat, ConnectError, "TLS")
    assert (error.kind, error.attempts) == ("tls", 1)


async def test_a_handshake_that_stalls() -> None:
    """F06: https to a port that waits, as a plain HTTP server does, ends by the connect limit."""
    async with serve(answer_whole) as wire:
        url = wire.url.replace("http://", "https://")
        async with client(url, timeout=CONNECT, retry=TWICE) as chat:
            error = await failure(chat, StreamTimeoutError, "no connection")
    assert (error.phase, error.attempts) == ("connect", 2)


async def test_a_plain_answer_to_a_handshake() -> None:
    """F06: https to a plain port that answers in plain text is a TLS error at once."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    raw = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    async with raw, client(url) as chat:
        error = await failure(chat, ConnectError, "TLS")
    assert error.kind == "tls"


async def test_plain_http_to_a_tls_port_hints_at_the_scheme() -> None:
    """F07: the message says that base_url must be https; not tried again, nothing was understood."""
    ca, _ = authority()
    async with serve(answer_whole, ssl=server_side(ca.issue_cert("127.0.0.1"))) as wire:
        async with client(wire.url.replace("https", "http"), retry=TWICE) as chat:
            for _ in range(2):
                error = await failure(chat, TransportError, "speaks TLS: base_url must be https")
                assert (error.kind, error.attempts) == ("tls", 1)
    assert not wire.requests


async def test_plain_http_to_a_port_that_answers_with_an_alert() -> None:
    """F07: some TLS servers say what is wrong, in TLS; what they say is no HTTP."""
    alert = bytes([21, 3, 3, 0, 2, 2, 50])
    async with serve(says(alert, close=False)) as wire, client(wire, retry=TWICE) as chat:
        error = await failure(chat, ProtocolError, "base_url must be https")
        await wire.closed.wait()
    assert (error.attempts, len(wire.requests)) == (1, 1)


async def test_a_plain_port_is_not_taken_for_tls() -> None:
    """F07, F16: whoever closes without an answer is asked once whether it speaks TLS, and not again."""
    asked: list[bytes] = []

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))
        writer.close()

    raw = await asyncio.start_server(close, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    async with raw, client(url, retry=TWICE) as chat:
        for _ in range(2):
            error = await failure(chat, TransportError, "closed the connection")
            assert (error.kind, error.attempts) == ("reset", 2)
    assert asked == [b"P", b"\x16", b"P", b"P", b"P"]


# --- limits of this process ----------------------------------------------------------------------


async def test_a_full_pool_is_a_queue() -> None:
    """F08: in order, and a waiter that is cancelled takes no place."""
    held, order = asyncio.Event(), []

    async def hold_the_first(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(wire.requests) == 1:
            await held.wait()
        writer.write(whole_answer())

    async def ask(number: int) -> None:
        await chat.chat(f"{number}")
        order.append(number)

    async with serve(hold_the_first) as wire, client(wire, max_connections=1) as chat:
        tasks = [asyncio.ensure_future(ask(number)) for number in range(5)]
        while not wire.requests:
            await asyncio.sleep(0)
        tasks[2].cancel()
        held.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[2].cancelled()
    assert order == [0, 1, 3, 4]
    assert (len(wire.requests), wire.connections) == (4, 1)


async def test_waiting_for_the_pool_is_bounded() -> None:
    """F08: the limits of the call hold in the queue too; the error names the pool, not the network."""

    async def silent(writer: asyncio.StreamWriter, request: Request) -> None:
        await wire.closed.wait()

    async with serve(silent) as wire, client(wire, max_connections=1) as chat:
        first = asyncio.ensure_future(chat.chat("first"))
        while not wire.requests:
            await asyncio.sleep(0)
        said = "free connection of the pool after 0.05 s: all 1 .* raise max_connections.*{}"
        for limit in ("first_event", "total"):
            error = await failure(
                *(chat, StreamTimeoutError, said.format(limit)),
                timeout=Timeout(**{limit: 0.05}),
                retry=TWICE,
            )
            assert (error.phase, error.attempts) == (limit, 1)
        assert len(wire.requests) == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def run_python(code: str, *arguments: str, stdin: bool = False) -> asyncio.subprocess.Process:
    """Another interpreter, warnings shown."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "always",
        "-c",
        textwrap.dedent(code),
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs the limits of POSIX")
async def test_out_of_descriptors() -> None:
    """F09: an error that names the limit; running streams go on; later all is well again."""
    release = asyncio.Event()

    async def in_two_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(pieces(plain())[0]))
        await release.wait()
        writer.write(chunked(b"".join(pieces(plain())[1:])) + b"0\r\n\r\n")

    code = """
        import asyncio, resource, sys
        from streamchat import Client, ConnectError, Retry

        async def main():
            chat = Client("k" * 9, base_url=sys.argv[1], model="m", retry=Retry(attempts=1))
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            streams = [chat.chat_stream("Hi") for _ in range(60)]
            opened = await asyncio.gather(*(s.__aenter__() for s in streams), return_exceptions=True)
            failed = [e for e in opened if isinstance(e, BaseException)]
            running = [s for s in opened if not isinstance(s, BaseException)]
            assert failed and running, (len(failed), len(running))
            for e in failed:
                assert isinstance(e, ConnectError) and e.kind == "resources", repr(e)
                assert "the limit is 40" in str(e) and "ulimit" in str(e), str(e)
            print("full", flush=True)
            answers = await asyncio.gather(*running)
            assert {a.text for a in answers} == {"Hello there!"}
            assert (await chat.chat("Hi")).text == "Hello there!"
            await chat.aclose()
            print("well", flush=True)

        asyncio.run(main())
    """
    async with serve(in_two_parts) as wire:
        process = await run_python(code, wire.url)
        assert process.stdout is not None
        first = await process.stdout.readline()
        release.set()
        out, err = await process.communicate()
    assert (first, out, err.decode(), process.returncode) == (b"full\n", b"well\n", "", 0)


# --- proxies and the environment -----------------------------------------------------------------

PROXY_ANSWERS = {407: ("proxy_refused", 1), 403: ("proxy_refused", 1), 502: ("proxy", 2)}


@pytest.mark.parametrize("status", PROXY_ANSWERS)
async def test_a_proxy_that_refuses_the_tunnel(status: int) -> None:
    """F10: its status is named, its password is not; 502 to 504 are tried again."""
    kind, attempts = PROXY_ANSWERS[status]
    reply = says(f"HTTP/1.1 {status} P\r\ncontent-length: 0\r\n\r\n".encode())
    async with serve(reply) as wire:
        proxy = wire.url.replace("http://", "http://me:canary-pw@")
        async with client("https://inside.test", proxy=proxy, retry=TWICE) as chat:
            error = await failure(chat, ConnectError, f"the proxy answered {status}")
    assert (error.kind, error.attempts) == (kind, attempts)
    assert wire.requests[0].line == "CONNECT inside.test:443 HTTP/1.1"
    assert "proxy-authorization" in wire.requests[0].headers
    assert "authorization" not in wire.requests[0].headers
    assert "canary-pw" not in str(error) + repr(error) + repr(vars(error)) + repr(vars(chat))


async def test_a_proxy_that_is_not_there() -> None:
    """F10: the message blames the proxy and not the host."""
    async with serve(answer_whole) as wire:
        url = wire.url
    async with client("https://inside.test", proxy=url) as chat:
        error = await failure(chat, ConnectError, r"cannot connect to the proxy for inside\.test")
    assert error.kind == "proxy"


async def test_netrc_is_never_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """F11: an entry for the very host changes nothing, with a key of ours and without."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password canary-pw\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(netrc.read_text())
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # "use the environment" or not
    async with serve(answer_whole) as wire:
        async with client(wire) as chat:
            await chat.chat("Hi")
        async with Client("", base_url=wire.url, model="m", retry=ONCE) as chat:
            await chat.chat("Hi")
    assert wire.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in wire.requests[1].headers


DISGUISED = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1.",
    "127.0.0.01",
    "256.1.1.1",
    "①27.0.0.1",
]


@pytest.mark.parametrize("host", DISGUISED)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_in_disguise_is_refused(scheme: str, host: str) -> None:
    """F12: what a resolver would read as an address must be written as one."""
    with pytest.raises(ConfigurationError, match="base_url must name its host"):
        Client(KEY, base_url=f"{scheme}://{host}", allow_http=True)


@pytest.mark.parametrize("host", ["10.0.0.7", "[2001:db8::1]", "x1.test", "4.example", "0xa.test"])
def test_an_address_as_it_is_written_is_accepted(host: str) -> None:
    """F12: plain addresses and names with digits are fine."""
    assert host in repr(Client(KEY, base_url=f"https://{host}"))


# --- loops, threads, processes -------------------------------------------------------------------


def test_one_client_in_several_threads_at_once() -> None:
    """F14: each running loop has a session of its own; the answers do not mix."""
    together = threading.Barrier(4, timeout=10)

    async def ask(chat: Client, text: str) -> str:
        together.wait()
        return (await chat.chat(text)).text

    async def echo(writer: asyncio.StreamWriter, request: Request) -> None:
        import json

        writer.write(whole_answer(json.loads(request.body)["messages"][0]["content"]))

    async def all_of_them() -> None:
        async with serve(echo) as wire:
            chat = client(wire)
            asked = [str(number) for number in range(4)]
            answers = await asyncio.gather(
                *(asyncio.to_thread(asyncio.run, ask(chat, text)) for text in asked)
            )
            assert answers == asked
            assert wire.connections == 4
            await chat.aclose()

    asyncio.run(all_of_them())


def test_a_stream_of_another_loop_is_an_error() -> None:
    """F14: what began in one loop cannot be consumed in another; it says so and does not hang."""

    async def in_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(pieces(plain())[0]))
        await wire_closed.wait()

    wire_closed = asyncio.Event()

    async def main() -> None:
        nonlocal wire_closed
        wire_closed = asyncio.Event()
        async with serve(in_parts) as wire, client(wire) as chat:
            stream = chat.chat_stream("Hi")
            await anext(stream)

            async def elsewhere() -> StreamChatError:
                with pytest.raises(StreamChatError) as caught:
                    await stream
                return caught.value

            error = await asyncio.to_thread(asyncio.run, elsewhere())
            check_clean(error)
            await stream.aclose()
            wire_closed.set()

    asyncio.run(main())


def test_construction_needs_no_loop_and_opens_nothing() -> None:
    """F15: no loop, no socket, no environment after that."""
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    chat = Client(KEY, base_url="https://inside.test", model="m")
    stream = chat.chat_stream("Hi")
    after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    assert before == after
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del stream, chat
        gc.collect()


def test_closing_after_the_loop_has_ended() -> None:
    """F15: aclose() in another loop, after that of the connections is closed, is fine."""

    async def main() -> Client:
        async with serve(answer_whole) as wire:
            chat = client(wire)
            await chat.chat("Hi")
            return chat

    chat = asyncio.run(main())
    asyncio.run(chat.aclose())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del chat
        gc.collect()


@pytest.mark.parametrize("what", ["client", "stream", "task", "loop stopped"])
async def test_the_end_of_the_interpreter_is_quiet(what: str) -> None:
    """F15: whatever is still open at exit, there is no traceback and no secret on stderr."""

    async def in_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(pieces(plain())[0]))
        await wire.closed.wait()

    code = """
        import asyncio, sys
        from streamchat import Client
        what = sys.argv[2]
        chat = Client("canary-key-8f3b", base_url=sys.argv[1], model="m")
        kept = []

        async def main():
            stream = chat.chat_stream("Hi")
            await anext(stream)
            if what != "client":
                kept.append(stream)
            if what == "task":
                kept.append(asyncio.ensure_future(stream.__anext__()))
                await asyncio.sleep(0)

        if what == "loop stopped":
            loop = asyncio.new_event_loop()
            loop.run_until_complete(main())  # neither closed nor shut down
        else:
            asyncio.run(main())
        print("done")
    """
    async with serve(in_parts) as wire:
        process = await run_python(code, wire.url, what)
        out, err = await process.communicate()
    assert (out, process.returncode) == (b"done\n", 0)
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err
    assert KEY.encode() not in err


async def test_ctrl_c_ends_a_stream_cleanly() -> None:
    """F15, F89: KeyboardInterrupt in the middle of a stream: the server sees the end."""

    async def in_parts(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(CHUNKED + chunked(pieces(plain())[0]))
        await wire.closed.wait()

    code = """
        import asyncio, sys
        from streamchat import Client

        async def main():
            async with Client("canary-key-8f3b", base_url=sys.argv[1], model="m") as chat:
                async for event in chat.chat_stream("Hi"):
                    print("first", flush=True)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
    """
    async with serve(in_parts) as wire:
        process = await run_python(code, wire.url)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        await wire.closed.wait()
    assert (out, err) == (b"interrupted\n", b"")


async def test_connecting_is_not_slowed_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """F03, F106: the connect limit is counted on the monotonic clock."""
    jump = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: jump)
    async with serve(answer_whole) as wire, client(wire, timeout=CONNECT) as chat:
        assert (await chat.chat("Hi")).text == "Hello there!"
