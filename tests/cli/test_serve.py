"""``streamchat serve``: the demo server in the foreground."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess

from tests.cli.command import run, run_async, started


def _url(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def _stop(process: subprocess.Popen[bytes]) -> str:
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)
    return err.decode()


def test_it_serves_and_stops() -> None:
    """The URL is on stdout, how to use it on stderr; Ctrl-C is the way to stop it: code 0."""
    with started("serve") as process:
        url = _url(process)
        ran = run("chat", "What is 2 + 3?", env={"CO_API_URL": url})
        err = _stop(process)
    assert process.returncode == 0
    assert url.startswith("http://127.0.0.1:")
    assert ran.out == "2 + 3 is 5.\n"
    assert "demo server" not in ran.err
    assert err == f"Point clients at it: export CO_API_URL={url}\nCtrl-C stops it.\n"


def test_it_stops_in_the_middle_of_an_answer() -> None:
    """A client that is being answered does not keep it alive, and learns that it is gone."""
    with (
        started("serve", "--tokens-per-second", "20") as process,
        started("chat", "count to 5000", env={"CO_API_URL": _url(process)}) as client,
    ):
        assert client.stdout is not None
        client.stdout.read(1)
        _stop(process)
        _, err = client.communicate(timeout=50)
    assert process.returncode == 0
    assert client.returncode == 1
    assert err.decode().startswith("error: ")


def test_it_can_demand_a_key() -> None:
    """STREAMCHAT_SERVE_KEY of the server is CO_API_KEY of its clients; neither is ever printed."""
    key = "canary-5f3a"
    with started("serve", env={"STREAMCHAT_SERVE_KEY": key}) as process:
        url = _url(process)
        right = run("chat", "Hi", env={"CO_API_URL": url, "CO_API_KEY": key})
        other = run("chat", "Hi", env={"CO_API_URL": url, "COHERE_API_KEY": key})
        wrong = run("chat", "Hi", env={"CO_API_URL": url, "CO_API_KEY": "canary-wrong"})
        err = _stop(process)
    assert (right.code, other.code) == (0, 0)
    assert wrong.code == 1
    assert "401" in wrong.err
    assert "canary" not in right.out + right.err + wrong.out + wrong.err + err + url


def test_a_taken_port_is_an_error() -> None:
    """Code 1 and one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run("serve", "--port", str(taken.getsockname()[1]))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert "in use" in ran.err


async def test_a_server_that_quotes_the_key_does_not_get_it_printed() -> None:
    """Error texts are the server's words, and some servers repeat what they were sent."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = b'{"message": "bad header ' + request.split(b"Authorization: ")[1].split(b"\r")[0]
        body += b'"}'
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n")
        writer.write(b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        env = {"CO_API_URL": url, "CO_API_KEY": "canary-77aa"}
        ran = await run_async("chat", "Hi", env=env)
    assert ran.code == 1
    assert "bad header Bearer <key>" in ran.err
    assert "canary" not in ran.out + ran.err
