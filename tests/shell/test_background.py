"""Handlers at their own pace: ``background=True``, ``every=`` and ``max_queue=``, on a virtual clock."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat import (
    ChatStream,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Context,
    Dispatcher,
    Event,
    Handler,
    LogprobItem,
    MessageEnd,
    MessageStart,
    StepStart,
    StreamChatError,
    ToolCallDelta,
    ToolPlanDelta,
    ToolResult,
    TransportError,
    UnknownEvent,
)
from streamchat.joining import JoinedDeltas, key_of
from tests.fakes import Answer, Step, make_stream
from tests.frames import body, cited, pieces, plain, text_events, thinking, tools
from tests.shell.test_middleware import client_over
from tests.virtual import run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def paced(events: list[Event], gap: float, *, done: bool = True) -> Answer:
    """An answer whose events arrive ``gap`` seconds apart, the first at once."""
    steps: list[Step] = []
    for piece in pieces(events, done=done):
        steps += [piece, gap]
    return Answer(*steps)


def background_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


class Log:
    """A handler that takes its time, and what it was called with and when."""

    def __init__(self, seconds: float = 0, *, fails_at: str | None = None) -> None:
        self.seconds = seconds
        self.fails_at = fails_at
        self.calls: list[tuple[float, Any]] = []
        self.ended = 0

    async def __call__(self, event: Any) -> None:
        self.calls.append((now(), event))
        if self.fails_at is not None and getattr(event, "text", None) == self.fails_at:
            raise ValueError("mine")
        await asyncio.sleep(self.seconds)
        self.ended += 1

    @property
    def events(self) -> list[Any]:
        return [event for _, event in self.calls]

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, ContentDelta)]

    @property
    def times(self) -> list[float]:
        return [round(moment, 6) for moment, _ in self.calls]


def with_handler(answer: Answer, handler: Any, *types: type, **options: Any) -> ChatStream:
    stream = make_stream(answer)
    stream.on(*(types or (ContentDelta,)))(**options)(handler)
    return stream


# --- background ----------------------------------------------------------------------------------


async def test_a_slow_handler_does_not_slow_the_stream_but_its_end() -> None:
    log = Log(1.0)
    stream = with_handler(paced(plain(*"abcdefghij"), 0.1), log, background=True)
    async for event in stream:
        if isinstance(event, MessageEnd):
            assert now() == pytest.approx(1.3)
    assert now() == pytest.approx(0.2 + 10)
    assert log.texts == [*"abcdefghij"] and log.ended == 10
    assert not background_tasks()


async def test_awaiting_waits_too_and_the_connection_is_given_back_first() -> None:
    answer = paced(plain("a", "b"), 0.0)

    async def slow(event: ContentDelta) -> None:
        await asyncio.sleep(1)
        seen.append((event.text, answer.drained))

    seen: list[tuple[str, bool]] = []
    response = await with_handler(answer, slow, background=True)
    assert response.text == "ab" and seen == [("a", True), ("b", True)]
    assert now() == pytest.approx(2)


async def test_a_full_queue_slows_the_stream() -> None:
    """One is being handled, two wait; the fourth waits until there is room."""
    log = Log(1.0)
    stream = with_handler(Answer(body(plain(*"abcdef"))), log, background=True, max_queue=2)
    seen = [now() async for event in stream if isinstance(event, ContentDelta)]
    assert seen == pytest.approx([0, 0, 1, 2, 3, 4]) or seen == pytest.approx([0, 0, 0, 1, 2, 3])
    assert log.texts == [*"abcdef"]


async def test_a_stream_that_waits_for_room_is_not_idle() -> None:
    """The server is not the slow one: no limit of its passes, and the body is not read on."""
    log = Log(1000.0)
    answer = Answer(body(plain(*"abc")), body([]))
    assert (await with_handler(answer, log, background=True, max_queue=1)).text == "abc"


async def test_two_background_handlers_do_not_wait_for_each_other() -> None:
    fast, slow = Log(), Log(1.0)
    stream = make_stream(paced(plain("a", "b", "c"), 0.1))
    stream.on_content_delta(background=True)(slow)
    stream.on_content_delta(background=True)(fast)
    await stream
    assert fast.times == pytest.approx([0.2, 0.3, 0.4])
    assert slow.times == pytest.approx([0.2, 1.2, 2.2])


async def test_a_plain_handler_and_a_context_and_a_where() -> None:
    seen: list[Any] = []

    def plainly(event: ContentDelta, ctx: Context) -> None:
        seen.append((event.text, ctx.data, ctx.snapshot.text))

    stream = make_stream(Answer(body(plain("a", "b", "c"))), data="mine")
    stream.on_content_delta(background=True, where=lambda event: event.text != "b")(plainly)
    await stream
    # The snapshot is the stream's, which is ahead.
    assert seen == [("a", "mine", "abc"), ("c", "mine", "abc")]


async def test_once_and_timeout() -> None:
    log = Log(1.0)
    await with_handler(Answer(body(plain(*"ab"))), log, background=True, once=True)
    assert log.texts == ["a"]
    with pytest.raises(TimeoutError, match="took longer than its timeout"):
        await with_handler(Answer(body(plain(*"ab"))), log, background=True, timeout=0.5)


async def test_each_stream_has_tasks_of_its_own() -> None:
    log = Log(1.0)
    dispatcher = Dispatcher()
    dispatcher.on_content_delta(background=True)(log)
    streams = [make_stream(Answer(body(plain("a"))), handlers=[dispatcher]) for _ in range(3)]
    await asyncio.gather(*streams)
    assert now() == pytest.approx(1.0) and log.texts == ["a"] * 3


async def test_events_of_middleware_are_those_that_are_received() -> None:
    log = Log()
    stream = with_handler(Answer(body(plain("a", "b"))), log, background=True)

    @stream.event_middleware
    def twice(event: Event) -> list[Event]:
        return [event, event] if isinstance(event, ContentDelta) else [event]

    await stream
    assert log.texts == ["a", "a", "b", "b"]


# --- every= --------------------------------------------------------------------------------------


async def test_neighbouring_deltas_within_the_interval_come_as_one() -> None:
    """A call a second after the first that waits; what is left comes when the block ends."""
    log = Log()
    await with_handler(paced(plain(*"abcdefghijklmnop"), 0.15), log, every=1.0)
    assert log.texts == ["abcdefg", "hijklmn", "op"]
    assert log.times == pytest.approx([1.3, 2.35, 2.7])
    assert all(event.index == 0 and event.kind == "text" for event in log.events)


async def test_a_handler_slower_than_its_interval_gets_more_text_at_once() -> None:
    log = Log(3.0)
    await with_handler(paced(plain(*"abcdefghij"), 1.0), log, every=0.5)
    assert log.texts == ["a", "bcde", "fgh", "ij"] or "".join(log.texts) == "abcdefghij"
    gaps = [b - a for a, b in pairwise(log.times)]
    assert min(gaps) >= 3.0 - 1e-6


async def test_a_handler_of_all_events_gets_them_in_order() -> None:
    log = Log()
    sent = cited()
    await with_handler(paced(sent, 0.1), log, *{type(e) for e in sent}, every=10.0)
    assert log.events == sent  # the two deltas have a citation between them


async def test_a_handler_of_deltas_alone_is_not_hurried_by_citations() -> None:
    log = Log()
    await with_handler(paced(cited(), 0.1), log, every=10.0)
    assert log.texts == ["Lions roar."]


async def test_blocks_do_not_mix() -> None:
    log = Log()
    sent = thinking()
    await with_handler(Answer(body(sent)), log, every=10.0)
    assert [(e.text, e.thinking, e.kind, e.index) for e in log.events] == [
        ("", "Let me see", "thinking", 0),
        ("Four.", "", "text", 1),
    ]


async def test_plans_end_where_calls_begin_and_arguments_where_their_call_ends() -> None:
    log = Log()
    stream = with_handler(paced(tools(), 0.1), log, ToolPlanDelta, ToolCallDelta, every=10.0)
    await stream
    assert log.events == [ToolPlanDelta("I will look."), ToolCallDelta('{"city": "Lima"}')]
    assert log.times == pytest.approx([0.3, 0.6])


async def test_a_stream_that_fails_brings_what_waits_before_it_raises() -> None:
    log = Log()
    told: list[int] = []
    answer = paced(plain("a", "b", "c")[:5], 0.1, done=False)
    stream = with_handler(answer, log, every=10.0)
    stream.on_error()(lambda error: told.append(len(log.calls)))
    with pytest.raises(StreamChatError, match="ended before") as caught:
        await stream
    assert log.texts == ["abc"] and told == [1]
    assert caught.value.partial is not None and caught.value.partial.text == "abc"


async def test_whoever_leaves_early_has_saved_what_was_received() -> None:
    log = Log(1.0)
    answer = paced(plain("a", "b", "c"), 0.1)
    async with with_handler(answer, log, every=10.0) as stream:
        async for event in stream:
            if isinstance(event, ContentDelta) and event.text == "b":
                break
    assert log.texts == ["ab"] and log.ended == 1 and answer.closed
    assert not background_tasks()


async def test_only_the_handler_slows_the_stream_and_never_the_interval() -> None:
    """Alternating blocks are entries of their own; a full queue holds none of them back."""
    log = Log()
    events = [ContentDelta(c, index=n % 2) for n, c in enumerate("abcdef")]
    sent: list[Event] = [MessageStart("m"), ContentStart(0), ContentStart(1), *events]
    stream = with_handler(
        Answer(body([*sent, MessageEnd("COMPLETE")])), log, every=10.0, max_queue=2
    )
    assert (await stream).finish_reason == "COMPLETE"
    assert now() == 0 and log.texts == [*"abcdef"]


@pytest.mark.parametrize("has_text", [True, False])
@pytest.mark.parametrize("has_logprobs", [True, False])
def test_log_probabilities_stay_parallel(has_text: bool, has_logprobs: bool) -> None:
    def item(n: int) -> LogprobItem:
        return LogprobItem(
            [n, n + 1], str(n) if has_text else None, [0.5] if has_logprobs else None
        )

    first = ContentDelta("a", logprobs=item(1))
    joined = JoinedDeltas(key_of(first) or (), first, 0.0)
    assert joined.event() is first
    joined.add(ContentDelta("b", logprobs=item(3)))
    assert joined.event() == ContentDelta(
        "ab",
        logprobs=LogprobItem(
            [1, 2, 3, 4], "13" if has_text else None, [0.5, 0.5] if has_logprobs else None
        ),
    )
    assert key_of(first) != key_of(ContentDelta("c"))


# --- failures ------------------------------------------------------------------------------------


async def test_a_failure_stops_the_stream_while_it_waits_for_the_server() -> None:
    log = Log(fails_at="b")
    answer = Answer(*pieces(plain("a", "b"))[:4], 1000.0, body([ContentEnd(), MessageEnd("X")]))
    stream = with_handler(answer, log, background=True)
    with pytest.raises(ValueError, match="mine") as caught:
        await stream
    assert now() == 0 and answer.closed
    assert "handler" in caught.value.__notes__[0] and "content-delta" in caught.value.__notes__[0]
    assert caught.value.__context__ is None
    with pytest.raises(TransportError, match="stopped by ValueError"):
        await stream
    assert not background_tasks()


@pytest.mark.parametrize("consume", ["iterate", "await", "text", "async with"])
async def test_a_failure_at_the_end_is_raised_however_it_is_consumed(consume: str) -> None:
    stream = with_handler(Answer(body(plain("a", "b"))), Log(1.0, fails_at="b"), background=True)
    with pytest.raises(ValueError, match="mine"):
        if consume == "await":
            await stream
        elif consume == "text":
            assert [piece async for piece in stream.text()] == ["a", "b"]
        elif consume == "iterate":
            async for _ in stream:
                pass
        else:
            async with stream:
                async for event in stream:
                    if isinstance(event, MessageEnd):
                        break
    assert not background_tasks()


async def test_an_error_of_ours_passes_as_it_was_raised() -> None:
    theirs = StreamChatError("of another stream")

    async def fails(event: Any) -> None:
        raise theirs

    stream = with_handler(paced(plain("a", "b"), 1.0), fails, background=True)
    with pytest.raises(StreamChatError) as caught:
        await stream
    assert caught.value is theirs and theirs.partial is None


async def test_on_error_recovers_and_the_next_event_comes() -> None:
    log = Log(fails_at="b")
    stream = with_handler(paced(plain("a", "b", "c"), 1.0), log, background=True)
    told: list[str] = []

    @stream.on_error(ValueError)
    async def recover(error: ValueError) -> bool:
        told.append(str(error))
        return True

    assert (await stream).text == "abc"
    assert log.texts == ["a", "b", "c"] and told == ["mine"]


async def test_an_on_error_that_fails_stops_the_stream() -> None:
    stream = with_handler(
        paced(plain("a", "b"), 1.0), Log(fails_at="a"), background=True, max_queue=1
    )

    @stream.on_error()
    async def worse(error: Exception) -> None:
        raise KeyError("worse")

    with pytest.raises(KeyError, match="worse"):
        await stream


async def test_the_others_receive_what_they_were_given() -> None:
    """Two fail: the first is raised and names the second; the third has all that came before."""
    first, second, third = Log(1.0, fails_at="a"), Log(fails_at="b"), Log(5.0)
    stream = make_stream(Answer(*pieces(plain("a", "b"))[:4], 1000.0))
    for log in (first, second, third):
        stream.on_content_delta(background=True)(log)
    first.fails_at, second.seconds = "a", 0
    with pytest.raises(ValueError, match="mine") as caught:
        await stream
    assert len(caught.value.__notes__) == 2 and "raised ValueError too" in caught.value.__notes__[1]
    assert third.texts == ["a", "b"] and third.ended == 2


async def test_a_failure_of_the_stream_names_a_later_one_of_a_handler() -> None:
    log = Log(fails_at="ab")
    stream = with_handler(paced(plain("a", "b")[:4], 0.1, done=False), log, every=10.0)
    with pytest.raises(StreamChatError, match="ended before") as caught:
        await stream
    assert "a background handler raised ValueError too" in caught.value.__notes__


async def test_leaving_with_an_error_keeps_that_error() -> None:
    log = Log(fails_at="a")
    with pytest.raises(LookupError, match="body") as caught:
        async with with_handler(paced(plain("a", "b"), 1.0), log, background=True) as stream:
            async for event in stream:
                if isinstance(event, ContentDelta):
                    await asyncio.sleep(0.1)
                    raise LookupError("body")
    assert "a background handler raised ValueError too" in caught.value.__notes__


async def test_leaving_raises_what_nobody_has_heard_of() -> None:
    log = Log(fails_at="a")
    with pytest.raises(ValueError, match="mine"):
        async with with_handler(paced(plain("a", "b"), 1.0), log, background=True) as stream:
            async for event in stream:
                if isinstance(event, ContentDelta):
                    break


async def test_a_handler_that_cancels_itself_is_named() -> None:
    async def fails(event: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match=r"handler .*fails was cancelled from within"):
        await with_handler(paced(plain("a", "b"), 1.0), fails, background=True)


async def test_a_task_that_somebody_else_cancels_is_named() -> None:
    stream = with_handler(paced(plain("a", "b"), 1.0), Log(100.0), background=True)

    async def meddle() -> None:
        await asyncio.sleep(3)
        for task in asyncio.all_tasks():
            if task not in (running, asyncio.current_task()):
                task.cancel()

    async def run() -> Any:
        return await stream

    running = asyncio.ensure_future(run())
    await meddle()
    with pytest.raises(RuntimeError, match="the task of background handler"):
        await running


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"background": True}, {"every": 0.5}])
async def test_cancelling_the_stream_cancels_its_handlers(options: dict[str, Any]) -> None:
    cleaned: list[str] = []

    async def slow(event: ContentDelta) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            cleaned.append(event.text)

    answer = paced(plain("a", "b"), 1.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20):
            await with_handler(answer, slow, **options)
    assert cleaned == ["a"] and answer.closed
    assert now() == pytest.approx(21) and not background_tasks()


async def test_cancelled_inside_async_with_it_waits_for_no_handler() -> None:
    log = Log(1000.0)
    with pytest.raises(TimeoutError):
        async with (
            asyncio.timeout(5),
            with_handler(paced(plain("a", "b"), 0.1), log, background=True) as stream,
        ):
            async for event in stream:
                if isinstance(event, ContentDelta):
                    await asyncio.sleep(100)
    assert now() == pytest.approx(5) and log.ended == 0 and not background_tasks()


async def test_a_background_handler_may_close_the_stream() -> None:
    closed: list[str] = []

    async def closes(event: ContentDelta, ctx: Context) -> None:
        closed.append(event.text)
        await ctx.stream.aclose()

    stream = make_stream(paced(plain("a", "b", "c"), 1.0))
    stream.on_content_delta(background=True)(closes)
    stream.on_content_delta(background=True)(closes)
    with pytest.raises(TransportError, match="closed"):
        await stream
    assert closed == ["a", "a"] and not background_tasks()


async def test_a_dropped_stream_leaves_no_task() -> None:
    stream = with_handler(paced(plain("a", "b"), 1.0), Log(1000.0), background=True)
    async for event in stream:
        if isinstance(event, ContentDelta):
            break
    assert background_tasks()
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        del stream
        gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not background_tasks()


async def test_a_handler_without_its_events_has_no_task() -> None:
    stream = with_handler(Answer(body(plain("a"))), Log(), ToolCallDelta, every=1.0)
    async for _ in stream:
        assert not background_tasks()


def test_ten_thousand_streams_leave_no_task_and_no_timer() -> None:
    received: list[int] = []

    async def save(event: ContentDelta) -> None:
        received.append(len(event.text))
        await asyncio.sleep(0.1)

    async def main() -> None:
        dispatcher = Dispatcher()
        dispatcher.on_content_delta(every=1.0)(save)
        streams = [
            make_stream(paced(plain(*"abcde"), 0.3), handlers=[dispatcher]) for _ in range(10_000)
        ]
        answers = await asyncio.gather(*streams)
        assert all(answer.text == "abcde" for answer in answers)
        assert not background_tasks()
        loop: Any = asyncio.get_running_loop()
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]

    run_virtual(main())
    assert sum(received) == 50_000 and len(received) == 20_000


# --- tool runs -----------------------------------------------------------------------------------


async def test_a_handler_of_a_run_gets_the_events_of_run_and_answers_in_order() -> None:
    def weather(city: str) -> str:
        "Weather."
        return "sunny"

    first = body([e for e in tools() if getattr(e, "index", 0) == 0 or isinstance(e, MessageEnd)])
    client, _ = client_over(Answer(first), Answer(body(plain("Sunny", "."))))
    run = client.run_tools("Hi", tools=[weather])
    log: list[str] = []
    inside: list[str] = []

    @(
        run.on(StepStart, ContentDelta, ToolResult, background=True)
        if False
        else run.on(StepStart, ContentDelta, ToolResult)(background=True)
    )
    async def slow(event: Any) -> None:
        assert not inside
        inside.append(event.type)
        await asyncio.sleep(1)
        inside.clear()
        log.append(event.type)

    assert (await run).text == "Sunny."
    assert log == ["step-start", "tool-result", "step-start", "content-delta", "content-delta"]
    assert not background_tasks()


@pytest.mark.parametrize("fails_at", ["step-start", "tool-result", "step-end"])
async def test_a_failure_for_an_event_of_the_run_stops_the_run(fails_at: str) -> None:
    async def weather(city: str) -> str:
        "Weather."
        await asyncio.sleep(5)
        return "sunny"

    first = body([e for e in tools() if getattr(e, "index", 0) == 0 or isinstance(e, MessageEnd)])
    client, transport = client_over(Answer(first), Answer(body(plain("Sunny", "."))))
    run = client.run_tools("Hi", tools=[weather])

    async def fails(event: Any) -> None:
        await asyncio.sleep(1)
        if event.type == fails_at:
            raise ValueError("mine")

    run.on_step_start(background=True)(fails)
    run.on_tool_result(background=True)(fails)
    run.on_step_end(background=True)(fails)
    with pytest.raises(ValueError, match="mine") as caught:
        await run
    assert "fails" in caught.value.__notes__[0]
    assert len(transport.requests) == {"step-start": 0, "tool-result": 1, "step-end": 1}[fails_at]
    with pytest.raises(TransportError, match=r"closed|stopped by ValueError"):
        await run
    assert not background_tasks()


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every= of handler .*Log.* must be above 0 seconds, not 0"),
        ({"every": -1.5}, ValueError, "every= of"),
        ({"every": float("nan")}, ValueError, "every= of"),
        ({"every": float("inf")}, ValueError, "every= of"),
        ({"every": 10**400}, ValueError, "every= of"),
        ({"every": "1"}, TypeError, "every= of handler .* must be seconds"),
        ({"every": True}, TypeError, "must be seconds"),
        ({"background": True, "max_queue": 0}, ValueError, "max_queue= of .* at least 1, not 0"),
        ({"background": True, "max_queue": 1.5}, TypeError, "max_queue= of .* must be an int"),
        ({"background": True, "max_queue": True}, TypeError, "max_queue= of .* must be an int"),
        ({"max_queue": 10}, TypeError, "needs background=True or every="),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    dispatcher = Dispatcher()
    with pytest.raises(error, match=message):
        dispatcher.on_content_delta(**options)(Log())
    assert dispatcher.registrations() == []


# --- the property --------------------------------------------------------------------------------


@attrs.frozen
class Case:
    events: list[Event]
    gaps: list[float]
    handler_takes: list[float]
    consumer_takes: float
    every: float | None
    max_queue: int
    types: tuple[type, ...]


TIMES = st.sampled_from([0.0, 0.0, 0.1, 0.25, 1.0])
TEXTS = st.text("abc", max_size=3)


@st.composite
def answers(draw: Callable[..., Any]) -> list[Event]:
    events: list[Event] = [MessageStart("m")]
    for _ in range(draw(st.integers(0, 3))):
        events.append(ToolPlanDelta(draw(TEXTS)))
    for index in range(draw(st.integers(0, 3))):
        deltas = [*text_events(*draw(st.lists(TEXTS, max_size=6)), index=index)]
        for _ in range(draw(st.integers(0, 2))):
            place = draw(st.integers(0, len(deltas)))
            deltas.insert(place, UnknownEvent("x", {"type": "x"}))
        events += deltas
    return [*events, MessageEnd("COMPLETE")]


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    events = draw(answers())
    kinds = [ContentStart, ContentDelta, ContentEnd, ToolPlanDelta, UnknownEvent, MessageEnd]
    return Case(
        events,
        [draw(TIMES) for _ in events],
        draw(st.lists(TIMES, min_size=1, max_size=4)),
        draw(TIMES),
        draw(st.sampled_from([None, 0.2, 1.0])),
        draw(st.integers(1, 4)),
        tuple(draw(st.lists(st.sampled_from(kinds), min_size=1, unique=True))),
    )


def taken_apart(events: list[Any]) -> list[Any]:
    """Deltas a letter each: the same however they were joined."""
    parts: list[Any] = []
    for event in events:
        if isinstance(event, ContentDelta):
            parts += [(event.type, event.index, letter) for letter in event.text]
        elif isinstance(event, ToolPlanDelta):
            parts += [(event.type, letter) for letter in event.tool_plan]
        else:
            parts.append((event.type, getattr(event, "index", None)))
    return parts


@given(cases())
def test_nothing_is_lost_doubled_or_reordered(case: Case) -> None:
    received: list[tuple[float, float, Any]] = []
    handed_out: list[Event] = []

    async def handler(event: Any) -> None:
        began = now()
        await asyncio.sleep(case.handler_takes[len(received) % len(case.handler_takes)])
        received.append((began, now(), event))

    async def main() -> None:
        steps: list[Step] = []
        for gap, piece in zip(case.gaps, pieces(case.events, done=False), strict=True):
            steps += [gap, piece]
        stream = make_stream(Answer(*steps))
        options = {"every": case.every} if case.every else {"background": True}
        stream.on(*case.types)(max_queue=case.max_queue, **options)(handler)
        async for event in stream:
            handed_out.append(event)
            await asyncio.sleep(case.consumer_takes)
            if case.every is None:
                meant = sum(isinstance(each, case.types) for each in handed_out)
                assert meant - len(received) <= case.max_queue + 1
        assert not background_tasks()

    run_virtual(main())
    assert handed_out == case.events
    given_to = [event for _, _, event in received]
    meant = [event for event in case.events if isinstance(event, case.types)]
    assert taken_apart(given_to) == taken_apart(meant)
    if case.every is None:
        assert given_to == meant
    # One call at a time, in order.
    assert all(ended <= began for (_, ended, _), (began, _, _) in pairwise(received))


# --- the class style, and who registers twice ----------------------------------------------------


async def test_handler_classes_take_static_and_class_methods() -> None:
    seen: list[Any] = []

    class Methods(Handler):
        @staticmethod
        def on_message_start(event: MessageStart) -> None:
            seen.append("static")

        @staticmethod
        async def on_content_start(event: ContentStart, ctx: Context) -> None:
            seen.append(("static", ctx.data))

        @classmethod
        async def on_content_end(cls, event: ContentEnd) -> None:
            seen.append(cls.__name__)

        @classmethod
        def on_message_end(cls, event: MessageEnd, ctx: Context) -> None:
            seen.append((cls.__name__, ctx.data))

    await make_stream(Answer(body(plain("a"))), handlers=[Methods()], data=1)
    assert seen == ["static", ("static", 1), "Methods", ("Methods", 1)]


@pytest.mark.parametrize("kind", [staticmethod, classmethod, lambda function: function])
def test_methods_that_take_nothing_are_refused_where_they_are_defined(kind: Any) -> None:
    def on_message_start() -> None: ...
    def on_message_end(first: Any, second: Any, third: Any, fourth: Any) -> None: ...

    for method in (on_message_start, on_message_end):
        with pytest.raises(TypeError, match=r"must take \(event\) or \(event, ctx\)"):
            type("Mine", (Handler,), {method.__name__: kind(method)})
