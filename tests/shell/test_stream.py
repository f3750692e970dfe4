"""One answer's lifetime: three ways to consume it, and every way it can end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamchat import (
    ConcurrencyError,
    ConnectError,
    ContentDelta,
    ContentStart,
    DecodeError,
    Dispatcher,
    Event,
    FrameTooLargeError,
    GenerationError,
    MessageEnd,
    RateLimitError,
    Retry,
    ServerError,
    StatusError,
    StreamChatError,
    StreamTimeoutError,
    Timeout,
    TransportError,
    TruncatedStreamError,
    UnexpectedContentTypeError,
    UnknownEvent,
)
from streamchat.policy import RetryBudget
from streamchat.protocol import EventReader, encode_event, encode_frame
from streamchat.protocol.reader import Item
from tests.fakes import Answer, FakeTransport, make_stream
from tests.frames import body, cited, end, failed, pieces, plain, thinking, tools
from tests.virtual import VirtualLoop, run_virtual

FLOWS = {"plain": plain, "cited": cited, "thinking": thinking, "tools": tools}


# --- three ways to consume -----------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
async def test_iteration_yields_every_event_in_wire_order(flow: str) -> None:
    """`async for` yields what was sent, in order, and ends after message-end."""
    events = FLOWS[flow]()
    assert [event async for event in make_stream(Answer(*pieces(events)))] == events


async def test_awaiting_runs_to_the_end_and_returns_the_answer() -> None:
    """`await stream` is the whole answer; awaiting again is the same answer."""
    stream = make_stream(Answer(body(plain())))
    response = await stream
    assert (response.text, response.finish_reason) == ("Hello there!", "COMPLETE")
    assert await stream is response


async def test_entering_opens_the_stream_before_anything_is_consumed() -> None:
    """`async with` sends the request and waits for the first event."""
    transport = FakeTransport(Answer(body(plain())))
    stream = make_stream(transport=transport)
    assert not transport.requests
    async with stream:
        assert len(transport.requests) == 1
        assert (stream.status, stream.request_id, stream.attempts) == (200, "ab" * 16, 1)
        assert (await stream).text == "Hello there!"


async def test_nothing_is_sent_before_the_stream_is_consumed() -> None:
    """Making a stream, and dropping it, costs nothing and warns of nothing."""
    transport = FakeTransport(Answer(body(plain())))
    make_stream(transport=transport)
    gc.collect()
    assert not transport.requests


async def test_text_and_thinking_are_pieces_of_their_kind_alone() -> None:
    """text() and thinking() yield non-empty pieces of their own kind."""
    answer = thinking()
    assert [p async for p in make_stream(Answer(*pieces(answer))).text()] == ["Four", "."]
    assert [p async for p in make_stream(Answer(*pieces(answer))).thinking()] == ["Let", " me see"]


async def test_frames_are_raw_and_call_no_handlers() -> None:
    """frames() yields the frames as sent, [DONE] included; nothing is folded or dispatched."""
    heard: list[Event] = []
    dispatcher = Dispatcher()
    dispatcher.on_event(heard.append)
    stream = make_stream(Answer(body(plain())), handlers=[dispatcher])
    frames = [frame async for frame in stream.frames()]
    assert [frame.event for frame in frames] == [event.type for event in plain()] + ["message"]
    assert (heard, stream.snapshot.text) == ([], "")


async def test_no_event_is_made_that_nobody_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Awaited without handlers, text that came together stays together; the answer is the same."""
    made = 0
    read = EventReader.read

    def counted(reader: EventReader, item: Item) -> Event | None:
        nonlocal made
        made += 1
        return read(reader, item)

    monkeypatch.setattr(EventReader, "read", counted)
    answer = pieces(plain(*(f"{number} " for number in range(500))))
    steps = [
        b"".join(answer[:5]),
        b"".join(answer[5:400]),
        b"".join(answer[400:490]),
        *answer[490:],
    ]
    response = await make_stream(Answer(*steps))
    assert (response.text.split(), made < 40) == ([str(n) for n in range(500)], True)

    with pytest.raises(TruncatedStreamError) as caught:
        await make_stream(Answer(*steps[:3]))
    partial = caught.value.partial
    assert partial is not None
    assert (partial.text.split()[-1], caught.value.events) == ("487", 490)

    heard: list[ContentDelta] = []
    stream = make_stream(Answer(*steps))
    stream.on_content_delta(heard.append)
    await stream
    assert len(heard) == 500


@pytest.mark.parametrize("chunks", ["one by one", "together"])
@pytest.mark.parametrize("read", range(1, 9))
async def test_events_and_frames_take_turns(read: int, chunks: str) -> None:
    """Whoever changes between the two loses nothing, also between texts that were decoded together."""
    answer = [*pieces(plain(*"abcdefgh"), done=False)]
    steps = answer if chunks == "one by one" else [b"".join(answer[:4]), b"".join(answer[4:])]
    stream = make_stream(Answer(*steps))
    events = [await anext(stream) for _ in range(read)]
    frames = [await anext(stream.frames()) for _ in range(2)]
    rest = [event async for event in stream]
    sent = [*map(encode_event, events), *frames, *map(encode_event, rest)]
    assert [encode_frame(frame) for frame in sent] == answer


async def test_frames_of_a_cut_answer_end_with_an_error() -> None:
    """A body that ends before message-end is an error for raw frames too."""
    with pytest.raises(TruncatedStreamError):
        async for _ in make_stream(Answer(*pieces(plain(), done=False)[:-1])).frames():
            pass


async def test_the_snapshot_is_valid_after_every_event() -> None:
    """snapshot holds exactly what was handed out so far."""
    stream, text = make_stream(Answer(*pieces(plain("a", "b", "c")))), ""
    assert stream.snapshot.text == ""
    async for event in stream:
        if isinstance(event, ContentDelta):
            text += event.text
        assert stream.snapshot.text == text
        assert (stream.snapshot.finish_reason is None) == (event.type != "message-end")


async def test_the_answer_is_handed_out_at_message_end() -> None:
    """message-end does not wait for [DONE] or for the end of the body."""
    answer = Answer(body(plain(), done=False), 3600.0)
    stream = make_stream(answer, timeout=Timeout(idle=None))
    async for event in stream:
        if isinstance(event, MessageEnd):
            assert event.response.text == "Hello there!"
            assert asyncio.get_running_loop().time() == 0
    assert answer.drained


async def test_timing_tells_when_what_arrived() -> None:
    """timing is in seconds from the request, and None for what has not happened."""
    sent = pieces(plain("a", "b"))
    answer = Answer(1.0, sent[0], 2.0, *sent[1:4], 4.0, *sent[4:], before_headers=0.5)
    stream = make_stream(answer)
    assert stream.timing.total is None
    await stream
    timing = stream.timing
    assert (timing.first_byte, timing.first_event, timing.first_text) == (0.5, 1.5, 3.5)
    assert (timing.longest_gap, timing.total) == (4.0, 7.5)


async def test_timing_blames_the_server_for_its_own_time_alone() -> None:
    """The consumer's pauses are not in longest_gap; text in content-start is text."""
    sent = pieces([plain()[0], ContentStart(0, "text", "Hi"), *plain("x")[3:]])
    stream = make_stream(Answer(*(x for p in sent for x in (1.0, p))))
    async for _ in stream:
        await asyncio.sleep(50)
    assert (stream.timing.longest_gap, stream.timing.first_text) == (1.0, 52.0)


async def test_errors_count_events_and_not_comments() -> None:
    """error.events is what was handed out."""
    answer = Answer(b": a\n\n: b\n\n" + b"".join(pieces(plain())[:4]) + b": c\n\n")
    with pytest.raises(TruncatedStreamError) as caught:
        await make_stream(answer)
    assert caught.value.events == 4


# --- ends ----------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Answer, type[StreamChatError]]] = {
    "clean end": (Answer(*pieces(plain(), done=False)[:4]), TruncatedStreamError),
    "[DONE] alone": (Answer(*pieces(plain())[:4], b"data: [DONE]\n\n"), TruncatedStreamError),
    "reset": (Answer(*pieces(plain())[:4], TransportError("reset", kind="reset")), TransportError),
    "not JSON": (Answer(*pieces(plain())[:4], b"data: {oops\n\n"), DecodeError),
    "no type": (Answer(*pieces(plain())[:4], b"data: {}\n\n"), DecodeError),
    "error event": (Answer(*pieces(plain())[:4], b'data: {"message":"no"}\n\n'), GenerationError),
    "too large": (
        Answer(*pieces(plain())[:4], b"data: " + b"x" * 1024 * 1024 + b"\n\n"),
        FrameTooLargeError,
    ),
    "idle": (Answer(*pieces(plain())[:4], 61.0), StreamTimeoutError),
    "pings alone": (Answer(*pieces(plain())[:4], *([20.0, b": ping\n\n"] * 9)), StreamTimeoutError),
    "one byte at a time": (
        Answer(*pieces(plain())[:4], *([20.0, b"d"] * 9)),
        StreamTimeoutError,
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_every_early_end_is_an_error_with_the_partial_answer(name: str) -> None:
    """What arrived is delivered first, then one error of ours carries it; the socket is closed."""
    template, expected = ENDS[name]

    answer, seen = Answer(*template.steps), []
    with pytest.raises(expected) as caught:
        async for event in make_stream(answer):
            seen.append(event)
    assert seen == plain()[:4]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"
    assert caught.value.partial.finish_reason is None
    assert caught.value.attempts == 1
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert answer.closed


@pytest.mark.parametrize("name", ENDS)
async def test_a_failed_stream_says_so_to_whoever_asks_again(name: str) -> None:
    """Awaiting or iterating it again raises the same error; on_error hears it once."""
    template, expected = ENDS[name]

    stream, heard = make_stream(Answer(*template.steps)), []
    stream.on_error()(heard.append)
    with pytest.raises(expected) as first:
        await stream
    with pytest.raises(expected):
        await anext(stream)
    assert len(heard) == 1
    with pytest.raises(expected) as second:
        await stream
    assert str(first.value) == str(second.value)
    assert first.value.partial == second.value.partial


async def test_several_events_of_one_chunk_come_out_before_its_error() -> None:
    """A bad event behind good ones in the same chunk loses none of them."""
    stream, seen = make_stream(Answer(body(plain())[:-14] + b"data: {oops\n\n")), []
    with contextlib.suppress(DecodeError):
        async for event in stream:
            seen.append(event)
    assert seen == plain()


async def test_a_failed_generation_is_delivered_and_then_raised() -> None:
    """message-end with ERROR reaches handlers and iterators first."""
    answer, seen = Answer(body(failed())), []
    with pytest.raises(GenerationError) as caught:
        async for event in make_stream(answer):
            seen.append(event)
    assert seen == failed()
    assert caught.value.error_type == "INVALID_TOOL_GENERATION"
    assert caught.value.partial is not None
    assert caught.value.partial.tool_plan == "I will"
    assert caught.value.partial.finish_reason == "ERROR"
    assert answer.drained


async def test_nothing_after_message_end_is_decoded() -> None:
    """Garbage behind message-end is no error: the answer is complete."""
    stream = make_stream(Answer(body(plain(), done=False) + b"data: {oops\n\n"))
    assert (await stream).text == "Hello there!"


async def test_unknown_events_are_delivered() -> None:
    """An event of the future reaches the iterator and on_unknown, and ends nothing."""
    sent = pieces(plain())
    sent.insert(2, b'event: x-new\ndata: {"type":"x-new","n":1}\n\n')
    heard: list[UnknownEvent] = []
    dispatcher = Dispatcher()
    dispatcher.on_unknown(heard.append)
    response = await make_stream(Answer(*sent), handlers=[dispatcher])
    assert heard == [UnknownEvent("x-new", {"type": "x-new", "n": 1})]
    assert response.text == "Hello there!"


async def test_closing_early_closes_the_connection_and_leaves_no_answer() -> None:
    """Leaving is no error; consuming what was closed is: an end would look like an answer."""
    answer = Answer(*pieces(plain()))
    async with make_stream(answer) as stream:
        async for event in stream:
            if event.type == "content-delta":
                break
    assert answer.closed
    assert not answer.drained
    with pytest.raises(TransportError, match="closed before the answer was complete"):
        await anext(stream)
    with pytest.raises(TransportError, match="closed before the answer was complete"):
        await stream
    await stream.aclose()


async def test_a_dropped_stream_closes_and_warns() -> None:
    """A stream that is dropped unfinished closes its connection and names itself."""
    answer = Answer(*pieces(plain()))
    stream = make_stream(answer)
    await anext(stream)
    with pytest.warns(ResourceWarning, match=r"<ChatStream model='command-test' .* was dropped"):
        del stream
    assert answer.closed


async def test_a_stream_dropped_after_message_end_is_no_fault() -> None:
    """Leaving the loop at message-end is fine: the answer was complete."""
    answer = Answer(body(plain()))
    stream = make_stream(answer)
    async for event in stream:
        if event.type == "message-end":
            break
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del stream
    assert answer.closed


async def test_two_consumers_are_refused() -> None:
    """A second task gets ConcurrencyError; the first goes on undisturbed."""
    stream = make_stream(Answer(*pieces(plain())[:3], 5.0, *pieces(plain())[3:]))
    first = asyncio.ensure_future(_collect(stream))
    await asyncio.sleep(1)
    with pytest.raises(ConcurrencyError):
        await anext(stream)
    with pytest.raises(ConcurrencyError):
        await stream
    assert await first == plain()


async def test_a_handler_cannot_consume_its_own_stream() -> None:
    """Iterating inside a handler would deadlock; it is refused instead."""
    stream = make_stream(Answer(body(plain())))

    @stream.on_content_delta
    async def nested(event: ContentDelta) -> None:
        await anext(stream)

    with pytest.raises(ConcurrencyError):
        await stream


async def _collect(stream: Any) -> list[Event]:
    return [event async for event in stream]


# --- closing from elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        [Answer(before_headers=500)],
        [Answer(100.0)],
        [Answer(status=503), Answer(body(plain()))],
        [Answer(pieces(plain())[0], 100.0)],
    ],
    ids=["headers", "first event", "backoff", "idle"],
)
async def test_closing_from_another_task_ends_a_wait_at_once(script: list[Answer]) -> None:
    """Whatever the consumer waits for: one error, no further request, no timer, no connection."""
    transport = FakeTransport(
        *(Answer(*a.steps, status=a.status, before_headers=a.before_headers) for a in script)
    )
    answers = list(transport.script)
    stream = make_stream(transport=transport, retry=Retry(base=8))
    running = asyncio.ensure_future(_collect(stream))
    await asyncio.sleep(2)
    await stream.aclose()
    with pytest.raises(TransportError, match="closed before") as caught:
        await running
    assert caught.value.kind == "closed"
    assert asyncio.get_running_loop().time() == 2
    assert len(transport.requests) == 1
    assert all(
        isinstance(a, Answer) and (a.closed or a.before_headers or a is not answers[0])
        for a in answers
    )
    assert stream._source._watchdog is not None
    assert stream._source._watchdog._handle is None


async def test_a_stream_closed_before_it_began_says_so() -> None:
    """Nothing is sent, and neither iterating nor awaiting looks like an empty answer."""
    stream = make_stream(Answer(body(plain())))
    await stream.aclose()
    with pytest.raises(TransportError, match="closed"):
        await anext(stream)
    with pytest.raises(TransportError, match="closed"):
        await stream


async def test_a_failed_answer_stays_failed_when_closed_at_its_end() -> None:
    """break at message-end, or aclose() in its handler: awaiting still tells the failure."""
    async with make_stream(Answer(body(failed()))) as stream:
        async for event in stream:
            if event.type == "message-end":
                break
    with pytest.raises(GenerationError) as caught:
        await stream
    assert caught.value.partial is not None

    closing = make_stream(Answer(body(failed())))

    @closing.on_message_end
    async def close(event: MessageEnd) -> None:
        await closing.aclose()

    with pytest.raises(GenerationError):
        await closing


# --- raw frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False])
async def test_frames_do_not_depend_on_the_chunking(together: bool) -> None:
    """[DONE], a lone id, a bare data line: the same frames whether alone in a chunk or not."""
    sent = pieces(plain())
    sent[1:1] = [b"id: 7\n\n", b": ping\n\n", b"data\n\n"]
    steps = [b"".join(sent)] if together else sent
    frames = [frame async for frame in make_stream(Answer(*steps)).frames()]
    assert [f.id for f in frames] == [""] + ["7"] * (len(frames) - 1)
    assert frames[1].data == b""
    assert frames[-1].data == b"[DONE]"
    assert len(frames) == len(plain()) + 2


async def test_a_stream_read_as_frames_has_no_answer_to_await() -> None:
    """The error says why."""
    stream = make_stream(Answer(body(plain())))
    async for _ in stream.frames():
        pass
    with pytest.raises(StreamChatError, match="raw frames"):
        await stream


async def test_an_error_frame_fails_raw_frames_too() -> None:
    """`event: error` is a failed stream in whatever form it is read."""
    answer = Answer(pieces(plain())[0], b'event: error\ndata: {"message":"no"}\n\n')
    with pytest.raises(GenerationError, match="no"):
        async for _ in make_stream(answer).frames():
            pass


async def test_views_can_be_closed_as_contextlib_does() -> None:
    """contextlib.aclosing(stream.text()) closes the stream."""
    answer = Answer(*pieces(plain()))
    async with contextlib.aclosing(make_stream(answer).text()) as texts:  # type: ignore[type-var]
        assert await anext(texts) == "Hello"
    assert answer.closed


# --- answers that are none -----------------------------------------------------------------------

STATUSES = {400: "BadRequestError", 401: "AuthenticationError", 402: "PaymentRequiredError"}
STATUSES |= {403: "PermissionDeniedError", 404: "NotFoundError", 422: "UnprocessableEntityError"}
STATUSES |= {429: "RateLimitError", 498: "InvalidTokenError", 499: "RequestCancelledError"}
STATUSES |= {500: "ServerError", 501: "ServerError", 503: "ServerError"}
STATUSES |= dict.fromkeys((204, 206, 307, 405, 408, 409, 418, 425), "StatusError")


@pytest.mark.parametrize("status", STATUSES)
async def test_every_status_has_its_class_and_keeps_what_the_server_said(status: int) -> None:
    """A status error has status, message, error_type, request id, headers and body."""

    sent = b'{"id":"1","message":"because","error_type":"KIND"}'
    answer = Answer(sent, status=status, headers={"content-type": "application/json"})
    with pytest.raises(StatusError) as caught:
        await make_stream(answer, retry=Retry(attempts=1))
    error = caught.value
    assert type(error).__name__ == STATUSES[status]
    assert (error.status, error.request_id) == (status, "ab" * 16)
    assert error.headers["content-type"] == "application/json"
    assert error.partial is None
    assert answer.closed
    if not 300 <= status <= 399:
        assert (error.message, error.error_type, error.body) == ("because", "KIND", sent)
        assert f"HTTP {status}: because" in str(error)


async def test_a_redirect_names_its_target_without_path() -> None:
    """Where a redirect leads is told by origin alone; nothing is sent there."""
    headers = {"location": "https://evil.example/steal?key=1"}
    with pytest.raises(StatusError, match=r"redirect to https://evil\.example refused") as caught:
        await make_stream(Answer(status=307, headers=headers))
    assert "steal" not in str(caught.value)


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "", "x bogus"])
async def test_a_200_that_is_no_event_stream_is_an_error_with_its_body(content_type: str) -> None:
    """A proxy's page is not parsed as events; its body is kept."""

    page = b"<h1>Sign in to WiFi</h1>"
    answer = Answer(page, headers={"content-type": content_type})
    with pytest.raises(UnexpectedContentTypeError, match="Sign in to WiFi") as caught:
        await make_stream(answer)
    assert (caught.value.body, caught.value.content_type) == (page, content_type)


@pytest.mark.parametrize(
    "content_type",
    ["text/event-stream;charset=windows-1252", "text/event-stream;", "Text/Event-Stream"],
)
async def test_parameters_of_the_content_type_do_not_matter(content_type: str) -> None:
    """WHATWG: the media type decides, parameters and case do not."""

    answer = Answer(body(plain()), headers={"content-type": content_type})
    assert (await make_stream(answer)).text == "Hello there!"


# --- timeouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "timeout", "phase", "at"),
    [
        (Answer(before_headers=500), Timeout(), "first_event", 120),
        (Answer(500.0), Timeout(), "first_event", 120),
        (Answer(*[50.0, b": ping\n\n"] * 9), Timeout(), "first_event", 120),
        (Answer(pieces(plain())[0], 500.0), Timeout(), "idle", 60),
        (Answer(pieces(plain())[0], 500.0), Timeout(idle=7), "idle", 7),
        (Answer(pieces(plain())[0], *[50.0, b"x"] * 9), Timeout(), "idle", 60),
        (
            Answer(*[p for x in pieces(plain()) for p in (50.0, x)]),
            Timeout(total=130),
            "total",
            130,
        ),
        (Answer(before_headers=500), Timeout(total=9), "total", 9),
        (Answer(500.0), Timeout(first_event=None, total=9), "total", 9),
    ],
)
async def test_each_limit_ends_the_stream_on_time(
    answer: Answer, timeout: Timeout, phase: str, at: float
) -> None:
    """The error names the phase and the limit, and comes exactly when the limit is passed."""

    mine = Answer(*answer.steps, before_headers=answer.before_headers)
    with pytest.raises(StreamTimeoutError) as caught:
        await make_stream(mine, timeout=timeout)
    assert (caught.value.phase, caught.value.seconds) == (phase, getattr(timeout, phase))
    assert asyncio.get_running_loop().time() == pytest.approx(at)
    assert isinstance(caught.value, TimeoutError)


async def test_reading_an_error_body_is_limited_too() -> None:
    """`total` ends the wait for a stalled error body; the status is told all the same."""

    class Stalled(Answer):
        async def read_error_body(self) -> bytes:
            while True:
                try:
                    await self.read()
                except TransportError:
                    return b"{}"

    with pytest.raises(ServerError):
        await make_stream(Stalled(500.0, status=501), timeout=Timeout(total=3))
    assert asyncio.get_running_loop().time() == 3


async def test_without_a_limit_the_first_event_may_take_longer_than_idle() -> None:
    """idle is between two events; first_event=None is no limit."""
    stream = make_stream(Answer(1000.0, body(plain())), timeout=Timeout(first_event=None))
    assert (await stream).text == "Hello there!"


async def test_a_slow_consumer_is_not_an_idle_server() -> None:
    """The idle limit does not run while the consumer is the slow one."""
    sent = pieces(plain("a", "b", "c"))
    stream = make_stream(Answer(*(x for p in sent for x in (1.0, p))), timeout=Timeout(idle=5))
    seen = []
    async for event in stream:
        seen.append(event)
        await asyncio.sleep(100)
    assert seen == plain("a", "b", "c")


async def test_no_limit_means_no_limit() -> None:
    """None switches a limit off."""
    sent = pieces(plain())
    stream = make_stream(
        Answer(1e6, sent[0], 1e6, *sent[1:]), timeout=Timeout(first_event=None, idle=None)
    )
    assert (await stream).text == "Hello there!"


async def test_a_timeout_of_the_caller_is_the_callers() -> None:
    """asyncio.timeout around a stream raises the caller's TimeoutError, not ours."""
    answer = Answer(*pieces(plain())[:3], 50.0)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(3):
            await make_stream(answer)
    assert not isinstance(caught.value, StreamTimeoutError)
    assert answer.closed


class _Transport(FakeTransport):
    """Requests are opened by a function of the test's."""

    def __init__(self, opening: Callable[[_Transport], Awaitable[Answer]]) -> None:
        super().__init__()
        self._opening = opening

    async def open(self, *args: Any, **options: Any) -> Answer:
        return await self._opening(self)


async def _break(transport: _Transport) -> Answer:
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        raise LookupError("broken by its cancellation") from None
    raise AssertionError


async def _fail(transport: _Transport) -> Answer:
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        raise TransportError("lost", kind="other") from None
    raise AssertionError


async def _answer(transport: _Transport) -> Answer:
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        return Answer(body(plain()))
    raise AssertionError


@pytest.mark.parametrize("opening", [_break, _fail, _answer])
@pytest.mark.parametrize("limits", [{"total": 5}, {"first_event": 5, "total": None}])
async def test_an_opening_that_turns_its_cancellation_into_something_else_leaves_none(
    opening: Callable[[_Transport], Awaitable[Answer]], limits: dict[str, float | None]
) -> None:
    """Else asyncio.timeout() would not know its own cancellation afterwards."""
    stream = make_stream(transport=_Transport(opening), timeout=Timeout(**limits))
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(LookupError, TransportError):
        await stream
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.sleep(2)


async def _refuse(transport: _Transport) -> Answer:
    raise ConnectError("refused", kind="refused")


@pytest.mark.parametrize(
    "opening",
    [
        _refuse,
        lambda _: _answering(status=503),
        lambda _: _answering(b": hello\n\n"),
        lambda _: _answering(b"data: [DONE]\n\n"),
    ],
)
async def test_failures_of_earlier_tries_are_freed_at_once(
    opening: Callable[[_Transport], Awaitable[Answer]],
) -> None:
    """No cycle through the frames in their tracebacks."""
    tries = 0

    async def third_time(transport: _Transport) -> Answer:
        nonlocal tries
        tries += 1
        return await (opening(transport) if tries < 3 else _answering(body(plain())))

    gc.collect()
    gc.disable()
    try:
        others = _failures()
        await make_stream(transport=_Transport(third_time))
        assert _failures() == others
    finally:
        gc.enable()
    assert tries == 3


def _failures() -> list[StreamChatError]:
    return [each for each in gc.get_objects() if isinstance(each, StreamChatError)]


async def _answering(*steps: Any, **options: Any) -> Answer:
    return Answer(*steps, **options)


async def _close_and_answer(transport: _Transport) -> Answer:
    for user in transport.users:
        user.abort(TransportError("the client was closed while the stream ran", kind="closed"))
    return Answer(body(plain()))


async def _close_and_fail(transport: _Transport) -> Answer:
    await _close_and_answer(transport)
    raise TransportError("lost", kind="other")


async def _close_and_wait(transport: _Transport) -> Answer:
    await _close_and_answer(transport)
    await asyncio.sleep(100)
    raise AssertionError


@pytest.mark.parametrize("opening", [_close_and_answer, _close_and_fail, _close_and_wait])
async def test_a_stream_closed_by_the_task_that_opens_it_cancels_nothing_else(
    opening: Callable[[_Transport], Awaitable[Answer]],
) -> None:
    """As a session's own tracing may do."""
    stream = make_stream(transport=_Transport(opening))
    with pytest.raises(TransportError, match="the client was closed"):
        await stream
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(3)
    assert asyncio.get_running_loop().time() == now + 3


def test_a_stream_that_its_closed_loop_left_opening_can_be_closed() -> None:
    """By its client, from the next loop: that closes all streams there are."""
    loop = VirtualLoop()
    transport = FakeTransport(Answer(before_headers=100))

    async def begin() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(anext(make_stream(transport=transport)))
        await asyncio.sleep(1)
        return task

    task = loop.run_until_complete(begin())
    loop.set_exception_handler(lambda _, __: None)  # the task is left pending
    loop.close()
    (user,) = transport.users
    user.abort(TransportError("the client was closed while the stream ran", kind="closed"))
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()


async def _connect_within_five_seconds(transport: _Transport) -> Answer:
    await asyncio.sleep(5)
    raise StreamTimeoutError("no connection within 5 s", phase="connect", seconds=5)


@pytest.mark.parametrize("limits", [{"first_event": 5}, {"total": 5}])
async def test_of_two_limits_passed_at_once_connect_is_not_the_one_reported(
    limits: dict[str, float],
) -> None:
    """It would be tried again, and Timeout(connect=5, first_event=5) would take three times as long."""
    stream = make_stream(
        transport=_Transport(_connect_within_five_seconds), timeout=Timeout(connect=5, **limits)
    )
    with pytest.raises(StreamTimeoutError) as caught:
        await stream
    assert (caught.value.phase, stream.attempts) == (next(iter(limits)), 1)


async def test_a_stream_can_be_closed_twice_at_once_in_the_pause_before_a_try() -> None:
    """By itself and by its client, whose closing would end with asyncio's RuntimeError."""
    transport = FakeTransport(Answer(status=503))
    stream = make_stream(transport=transport, retry=Retry(attempts=2, base=10, cap=10))
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(1)
    (user,) = transport.users
    user.abort(TransportError("first", kind="closed"))
    await asyncio.sleep(0)
    user.abort(TransportError("second", kind="closed"))
    with pytest.raises(TransportError, match="first"):
        await waiting


# --- retries -------------------------------------------------------------------------------------


def _refused() -> ConnectError:
    return ConnectError("refused", kind="refused")


async def test_a_stream_is_opened_again_until_its_first_event() -> None:
    """Connect faults, 503 and an early end are tried again, with growing pauses."""
    transport = FakeTransport(
        _refused(), Answer(status=503), Answer(b": hello\n\n"), Answer(body(plain()))
    )
    stream = make_stream(transport=transport, retry=Retry(attempts=4))
    assert (await stream).text == "Hello there!"
    assert stream.attempts == 4
    assert transport.opened_at == [0, 0.5, 1.5, 3.5]


async def test_the_same_bytes_are_sent_each_time() -> None:
    """The body is built once; what the caller does to its messages meanwhile changes nothing."""
    messages = [{"role": "user", "content": "Hi"}]
    transport = FakeTransport(_refused(), Answer(body(plain())))
    stream = make_stream(transport=transport, messages=messages)
    messages[0]["content"] = "changed"
    await stream
    assert len({sent for _, sent in transport.requests}) == 1
    assert b"changed" not in transport.requests[0][1]


async def test_nothing_is_retried_after_the_first_event() -> None:
    """Half an answer and a second one would be duplicate text."""
    transport = FakeTransport(
        Answer(pieces(plain())[0], TransportError("reset", kind="reset")), Answer(body(plain()))
    )
    with pytest.raises(TransportError):
        await make_stream(transport=transport)
    assert len(transport.requests) == 1


async def test_done_as_the_first_event_is_an_early_end() -> None:
    """Nothing was received, so it is tried again, as an empty body is."""
    transport = FakeTransport(Answer(b"data: [DONE]\n\n"), Answer(body(plain())))
    assert (await make_stream(transport=transport)).text == "Hello there!"
    assert len(transport.requests) == 2


async def test_a_failed_try_leaves_nothing_of_itself_behind() -> None:
    """After a 503 and a refused connection, status and headers are not those of the 503."""
    stream = make_stream(Answer(status=503), _refused(), retry=Retry(attempts=2))
    with pytest.raises(ConnectError):
        await stream
    assert (stream.status, dict(stream.headers), stream.timing.first_byte) == (None, {}, None)


async def test_the_last_failure_is_raised_with_the_number_of_tries() -> None:
    """attempts counts every try, on the stream and on the error."""
    stream = make_stream(_refused(), Answer(status=429), Answer(status=500))
    with pytest.raises(ServerError) as caught:
        await stream
    assert caught.value.attempts == stream.attempts == 3


async def test_a_long_retry_after_is_raised_at_once() -> None:
    """Longer than max_retry_after: no wait, no earlier try, and the wish is on the error."""
    with pytest.raises(RateLimitError) as caught:
        await make_stream(Answer(status=429, headers={"retry-after": "61"}))
    assert (caught.value.retry_after, asyncio.get_running_loop().time()) == (61, 0)


async def test_retry_after_is_honoured() -> None:
    """The server's wish, plus up to a tenth."""
    transport = FakeTransport(
        Answer(status=429, headers={"retry-after": "20"}), Answer(body(plain()))
    )
    await make_stream(transport=transport)
    assert transport.opened_at == [0, 22]


async def test_an_empty_budget_stops_retries() -> None:
    """In an outage the shared budget ends the storm."""
    with pytest.raises(ConnectError):
        await make_stream(_refused(), Answer(body(plain())), budget=RetryBudget(tokens=0))


async def test_total_is_not_slept_through() -> None:
    """A pause that would end after `total` is not begun: the failure is raised at once."""
    with pytest.raises(ConnectError):
        await make_stream(_refused(), Answer(), timeout=Timeout(total=0.4))
    assert asyncio.get_running_loop().time() == 0


async def test_a_slow_first_event_is_not_retried() -> None:
    """The server may have begun to work, and a second request would be paid twice."""
    transport = FakeTransport(Answer(500.0), Answer(body(plain())))
    with pytest.raises(StreamTimeoutError):
        await make_stream(transport=transport)
    assert len(transport.requests) == 1


# --- cancellation --------------------------------------------------------------------------------


def test_cancelling_at_every_suspension_closes_the_connection() -> None:
    """Whenever the task is cancelled: CancelledError, connection closed, nothing left."""

    async def scenario(cancel_at: float) -> bool:
        sent = pieces(cited())
        answer = Answer(*(x for p in sent for x in (1.0, p)), before_headers=1.0)
        transport = FakeTransport(_refused(), answer)
        stream = make_stream(transport=transport, retry=Retry(base=2.0))

        @stream.on_content_delta
        async def slow(event: ContentDelta) -> None:
            await asyncio.sleep(1)

        task = asyncio.ensure_future(_collect(stream))
        await asyncio.sleep(cancel_at)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert answer.closed or len(transport.requests) == 1 or not answer.bytes_received
            assert stream._state() == "closed"
            return True
        return False

    outcomes = [run_virtual(scenario(moment / 4)) for moment in range(1, 80)]
    assert outcomes.count(True) > 40
    assert not outcomes[-1], "the last moments are after the end"


# --- the key in a server's mouth -----------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b'event: error\ndata: {"message": "bad key canary-0123456789"}\n\n',
        b'data: {"type": "content-delta", "delta": "canary-0123456789"}\n\n',
        body(failed("bad key canary-0123456789")),
    ],
)
async def test_an_error_does_not_quote_the_key(said: bytes) -> None:
    """What a server says in its stream may hold the key; the exception must not."""
    stream = make_stream(Answer(said), headers={"Authorization": "Bearer canary-0123456789"})
    with pytest.raises(StreamChatError) as caught:
        await stream
    shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert "<key>" in shown
    assert "canary" not in f"{caught.value} {caught.value!r}"
    own = {k: v for k, v in vars(caught.value).items() if k != "partial"}
    assert "canary" not in repr(own)


@pytest.mark.parametrize(
    ("reason", "error", "error_type"),
    [
        ("ERROR", "B" * 500_000, None),
        ("ERROR\x1b]52;c;x\x07\n[fake] log line", "a\nb\x1b[31m\x9b", "t\n\x1b"),
        ("ERROR" + "x" * 1000, "\u202e" * 100_000, "t" * 100_000),
        ("TIMEOUT", "", ""),
    ],
)
async def test_the_words_of_a_failed_answer_are_one_short_line(
    reason: str, error: str, error_type: str | None
) -> None:
    """As those of a refusal; the event and the partial answer have them as they came."""
    fields = {} if error_type is None else {"error_type": error_type}
    events = [*plain()[:-1], end(reason, error=error, **fields)]
    with pytest.raises(GenerationError) as caught:
        await make_stream(Answer(body(events)))
    shown = str(caught.value)
    assert len(shown) < 1000
    assert shown.isprintable()
    assert len(caught.value.error) <= 503
    assert caught.value.partial is not None
    assert (caught.value.partial.finish_reason, caught.value.partial.error) == (reason, error)
