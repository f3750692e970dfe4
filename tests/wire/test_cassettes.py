"""Recorded tests: vcrpy and pytest-recording keep a streamed answer and play it again, without the key."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamchat import AuthenticationError, Client, TruncatedStreamError
from tests.catalogue.helpers import with_length
from tests.frames import body as frames
from tests.frames import plain
from tests.wire.server import EVENT_STREAM, Reply, Request, answer_whole, serve

vcr: Any = pytest.importorskip("vcr")

KEY = "canary-key-8f3b-0123456789"


def says(data: bytes, *, close: bool = False) -> Reply:
    async def reply(writer: Any, request: Request) -> None:
        writer.write(data)
        if close:
            writer.close()

    return reply


@pytest.mark.parametrize("serializer", ["yaml", "json"])
@pytest.mark.parametrize(
    "options", [{}, {"filter_headers": ["authorization"]}], ids=["as is", "filtered"]
)
async def test_a_recorded_answer_is_played_event_by_event_without_the_key(
    tmp_path: Path, options: dict[str, Any], serializer: str
) -> None:
    """With and without filter_headers."""
    cassette = tmp_path / "cassette"
    recorder = vcr.VCR(
        serializer=serializer, record_mode="once", match_on=["method", "path", "body"]
    )
    runs: list[list[str]] = []
    # A large body is a file to aiohttp, which cannot be JSON for vcrpy.
    prompt = "Hi" * (700_000 if serializer == "yaml" else 1)
    async with serve(answer_whole) as wire:
        for _ in range(2):
            with recorder.use_cassette(str(cassette), **options) as tape:
                headers = {"api-key": KEY, "X-Long": KEY * 20}
                async with Client(KEY, base_url=wire.url, model="m", headers=headers) as chat:
                    stream = chat.chat_stream(prompt)
                    runs.append([repr(event) async for event in stream])
                    assert (await stream).text == "Hello there!"
                played = tape.play_count
        assert len(wire.requests) == 1
        assert wire.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert runs[0] == runs[1]
    assert len(runs[0]) == len(plain())
    assert played == 1
    assert "canary" not in cassette.read_text()


async def test_a_recorded_refusal_is_the_same_error(tmp_path: Path) -> None:
    """Status, words and type."""
    refusal = with_length("401 U", b'{"message": "no", "error_type": "T"}')
    cassette, errors = str(tmp_path / "refusal.yaml"), list[AuthenticationError]()
    async with serve(says(refusal)) as wire:
        for _ in range(2):
            with vcr.use_cassette(cassette):
                async with Client(KEY, base_url=wire.url, model="m") as chat:
                    with pytest.raises(AuthenticationError) as caught:
                        await chat.chat("Hi")
                errors.append(caught.value)
        assert len(wire.requests) == 1
    first, second = errors
    assert (first.status, first.message, first.error_type) == (401, "no", "T")
    assert (str(first), first.body) == (str(second), second.body)


async def test_a_recorded_answer_without_its_end_is_truncation(tmp_path: Path) -> None:
    """A clean end of the body says nothing, live or recorded."""
    cut = frames(plain()[:-1], done=False)
    reply = says(EVENT_STREAM + b"connection: close\r\n\r\n" + cut, close=True)
    partial: list[str] = []
    async with serve(reply) as wire:
        for _ in range(2):
            with vcr.use_cassette(str(tmp_path / "cut.yaml")):
                async with Client(KEY, base_url=wire.url, model="m") as chat:
                    with pytest.raises(TruncatedStreamError) as caught:
                        await chat.chat("Hi")
                assert caught.value.partial is not None
                partial.append(caught.value.partial.text)
    assert partial == ["Hello there!"] * 2


SUITE = """
import pytest
from streamchat import Client

@pytest.mark.vcr
async def test_answer():
    async with Client("canary-key-8f3b", base_url="{url}", model="m") as client:
        assert (await client.chat("Hi")).text == "Hello there!"
"""


async def test_pytest_recording_records_once_and_plays_without_a_network(tmp_path: Path) -> None:
    """As a project's own tests do; the second run is offline."""
    pytest.importorskip("pytest_recording")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-o", "asyncio_mode=auto"]
    async with serve(answer_whole) as wire:
        (tmp_path / "test_suite.py").write_text(SUITE.format(url=wire.url))
        for options in (["--record-mode=once"], ["--record-mode=none", "--block-network"]):
            ran = await asyncio.to_thread(
                subprocess.run, [*command, *options], cwd=tmp_path, capture_output=True, text=True
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
        assert len(wire.requests) == 1
    (cassette,) = tmp_path.rglob("*.yaml")
    assert "canary" not in cassette.read_text()
