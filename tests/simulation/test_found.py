"""What the simulation found, each as small as it gets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamchat import (
    GenerationError,
    StreamChatError,
    Timeout,
    TransportError,
    TruncatedStreamError,
)
from tests.fakes import Answer, make_stream
from tests.frames import failed, pieces, plain
from tests.virtual import run_virtual

ERROR_FRAME = b'event: error\ndata: {"message":"no"}\n\n'
LARGE = b"data: " + b"x" * 1024 * 1024 + b"\n\n"


async def _frames(stream: Any) -> list[bytes]:
    return [frame.data async for frame in stream.frames()]


def test_whoever_asks_again_gets_the_partial_answer_again() -> None:
    """A closed stream says the same to everybody: ``partial``, ``attempts`` and ``events``."""

    async def scenario() -> list[tuple[Any, int, int]]:
        stream = make_stream(Answer(status=503), Answer(b"".join(pieces(plain()))))
        async with stream:
            async for event in stream:
                if event.type == "content-delta":
                    break
        told = []
        for _ in range(3):
            with pytest.raises(TransportError, match="closed") as caught:
                await stream
            error = caught.value
            told.append((error.partial and error.partial.text, error.attempts, error.events))
        return told

    assert run_virtual(scenario()) == [("Hello", 2, 3)] * 3


@pytest.mark.parametrize(
    "rest",
    [
        [],
        [TransportError("reset", kind="reset")],
        [3600.0],
        [LARGE],
        [ERROR_FRAME, TransportError("reset", kind="reset")],
    ],
    ids=["end", "reset", "silence", "large", "error frame"],
)
def test_raw_frames_are_complete_at_message_end(rest: list[Any]) -> None:
    """``[DONE]`` may be missing (protocol.md 5): what follows message-end spoils nothing."""

    async def scenario() -> int:
        answer = Answer(*pieces(plain(), done=False), *rest)
        return len(await _frames(make_stream(answer, timeout=Timeout(idle=5))))

    assert run_virtual(scenario()) == len(plain()) + (ERROR_FRAME in rest)


def test_a_failed_answer_read_as_frames_fails_without_done_too() -> None:
    """The failure that message-end told is raised, not the missing terminator."""

    async def scenario() -> None:
        with pytest.raises(GenerationError):
            await _frames(make_stream(Answer(*pieces(failed(), done=False))))

    run_virtual(scenario())


@pytest.mark.parametrize("together", [True, False])
def test_no_frame_comes_after_done(together: bool) -> None:
    """Whether it came in the same chunk or not: ``[DONE]`` is the last, and here it is too early."""

    async def scenario() -> list[bytes]:
        sent = pieces(plain())
        sent.insert(1, sent[-1])
        steps = [b"".join(sent)] if together else sent
        got = []
        with pytest.raises(TruncatedStreamError):
            async for frame in make_stream(Answer(*steps)).frames():
                got.append(frame.data)
        return got

    got = run_virtual(scenario())
    assert (len(got), got[-1]) == (2, b"[DONE]")


def test_frames_that_have_ended_stay_ended() -> None:
    """Asking for one more frame is the end again; only who wants an answer hears there is none."""

    async def scenario() -> None:
        stream = make_stream(Answer(*pieces(plain())))
        frames = stream.frames()
        async for _ in frames:
            pass
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(frames)
        with pytest.raises(StreamChatError, match="raw frames"):
            await stream

    run_virtual(scenario())


def test_frames_closed_from_another_task_after_message_end_are_complete() -> None:
    """aclose() while the consumer waits for [DONE] is an end, not an error."""

    async def scenario() -> int:
        stream = make_stream(Answer(*pieces(plain(), done=False), 3600.0))
        reading = asyncio.ensure_future(_frames(stream))
        await asyncio.sleep(1)
        await stream.aclose()
        return len(await reading)

    assert run_virtual(scenario()) == len(plain())
