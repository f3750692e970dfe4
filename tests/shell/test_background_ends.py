"""How background handlers end: failures, cancellations and closes; on a virtual clock."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from streamchat import (
    ChatStream,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Context,
    Event,
    MessageEnd,
    MessageStart,
    StepEnd,
    StepStart,
    StreamChatError,
    ToolResult,
    TransportError,
)
from tests.fakes import Answer, make_stream
from tests.frames import body, pieces, plain, tools
from tests.shell.test_background import Log, background_tasks, now, paced, with_handler
from tests.shell.test_middleware import client_over
from tests.virtual import run_virtual

ONE_CALL = [e for e in tools() if getattr(e, "index", 0) == 0 or isinstance(e, MessageEnd)]
"""The events of an answer that calls one tool."""


def weather(city: str) -> str:
    "Weather."
    return "sunny"


class Exit(BaseException):
    """Like pytest's ``Failed``: no ``Exception``."""


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails_at", ["a", "b"])
async def test_a_base_exception_stops_the_stream_and_is_raised_unchanged(fails_at: str) -> None:
    told: list[Exception] = []

    async def fails(event: ContentDelta) -> None:
        if event.text == fails_at:
            raise Exit

    stream = with_handler(paced(plain("a", "b"), 1.0), fails, background=True)
    stream.on_error()(lambda error: told.append(error))
    with pytest.raises(Exit):
        await stream
    assert not told and not background_tasks()
    with pytest.raises(TransportError, match="stopped by Exit"):
        await stream


async def test_a_base_exception_of_an_on_error_handler_is_raised_too() -> None:
    stream = with_handler(paced(plain("a", "b"), 1.0), Log(fails_at="b"), background=True)

    @stream.on_error()
    async def leaves(error: Exception) -> None:
        raise Exit

    with pytest.raises(Exit):
        await stream


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_ends_it_and_logs_nothing(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(event: ContentDelta) -> None:
        raise kind

    async def main() -> None:
        await with_handler(paced(plain("a", "b"), 1.0), fails, background=True)

    with pytest.raises(kind):
        run_virtual(main())
    gc.collect()
    assert not caplog.records


async def test_what_an_on_error_handler_raises_has_the_handlers_failure_as_context() -> None:
    stream = with_handler(paced(plain("a"), 1.0), Log(fails_at="a"), background=True)

    @stream.on_error()
    async def worse(error: Exception) -> None:
        raise KeyError("worse")

    with pytest.raises(KeyError, match="worse") as caught:
        await stream
    assert isinstance(caught.value.__context__, ValueError)


async def test_a_failure_of_a_run_that_is_a_base_exception_is_raised() -> None:
    client, _ = client_over(Answer(body(ONE_CALL)), Answer(body(plain("Sunny"))))
    run = client.run_tools("Hi", tools=[weather])

    @run.on_tool_result(background=True)
    async def fails(event: Any) -> None:
        raise Exit

    with pytest.raises(Exit):
        await run
    assert not background_tasks()


async def test_a_failure_after_the_raised_one_is_named() -> None:
    """It comes while the stream waits for the other handlers."""
    stream = make_stream(Answer(*pieces(plain("a", "b"))[:4], 1000.0))
    stream.on_content_delta(background=True)(Log(fails_at="a"))

    @stream.on_content_delta(background=True)
    async def later(event: ContentDelta) -> None:
        await asyncio.sleep(1)
        raise LookupError("later")

    with pytest.raises(ValueError, match="mine") as caught:
        await stream
    assert "a background handler raised LookupError too" in caught.value.__notes__


async def test_a_handler_that_fails_beside_a_background_handler_is_named() -> None:
    stream = make_stream(Answer(body(plain("a", "b"))))
    stream.on_content_delta(background=True)(Log(fails_at="a"))

    @stream.on_content_delta
    async def beside(event: ContentDelta) -> None:
        await asyncio.sleep(1)
        raise LookupError("beside")

    with pytest.raises(ValueError, match="mine") as caught:
        await stream
    assert any("LookupError" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["before", "while closing"])
async def test_leaving_a_stream_with_an_error_keeps_that_error(seconds: float) -> None:
    async def fails(event: ContentDelta) -> None:
        await asyncio.sleep(seconds)
        raise ValueError("mine")

    with pytest.raises(LookupError, match="body") as caught:
        async with with_handler(paced(plain("a", "b"), 1.0), fails, background=True) as stream:
            async for event in stream:
                if isinstance(event, ContentDelta):
                    await asyncio.sleep(0.1)
                    raise LookupError("body")
    assert any("background handler" in n and "ValueError" in n for n in caught.value.__notes__)


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["before", "while closing"])
@pytest.mark.parametrize("fails_at", ["content-delta", "tool-result", "step-end"])
async def test_leaving_a_run_with_an_error_keeps_that_error(fails_at: str, seconds: float) -> None:
    client, _ = client_over(Answer(body(ONE_CALL)), Answer(body(plain("Sunny", "!"))))
    run = client.run_tools("Hi", tools=[weather])

    @run.on(ContentDelta, ToolResult, StepEnd)(background=True)
    async def fails(event: Any) -> None:
        await asyncio.sleep(seconds)
        if event.type == fails_at:
            raise ValueError("mine")

    with pytest.raises(LookupError, match="body") as caught:
        async with run:
            async for event in run:
                if event.type == fails_at:
                    await asyncio.sleep(0.1)
                    raise LookupError("body")
    assert any("background handler" in n and "ValueError" in n for n in caught.value.__notes__)
    assert not background_tasks()


async def test_a_base_exception_is_raised_although_the_stream_failed_before() -> None:
    async def leaves(event: ContentDelta) -> None:
        await asyncio.sleep(1)
        raise Exit

    stream = with_handler(paced(plain("a")[:3], 0.1, done=False), leaves, background=True)
    with pytest.raises(Exit):
        await stream
    with pytest.raises(Exit):
        async with with_handler(paced(plain("a", "b"), 5.0), leaves, background=True) as stream:
            async for event in stream:
                if isinstance(event, ContentDelta):
                    raise LookupError("body")


async def test_a_base_exception_is_raised_although_another_handler_failed_before() -> None:
    async def leaves(event: ContentDelta) -> None:
        await asyncio.sleep(1)
        raise Exit

    stream = make_stream(Answer(body(plain("a"))))
    stream.on_content_delta(background=True)(Log(fails_at="a"))
    stream.on_content_delta(background=True)(leaves)
    with pytest.raises(Exit) as caught:
        async for event in stream:
            if isinstance(event, ContentDelta):
                await asyncio.sleep(2)
    assert caught.value.__notes__ == ["ValueError was raised before"]


async def test_closed_by_a_handler_when_it_is_complete_the_end_waits_all_the_same() -> None:
    async def closes(event: MessageEnd, ctx: Context) -> None:
        await ctx.stream.aclose()
        await asyncio.sleep(1)
        raise ValueError("mine")

    stream = make_stream(Answer(body(plain("a", "b"))))
    stream.on_message_end(background=True)(closes)
    with pytest.raises(ValueError, match="mine"):
        async for _ in stream:
            await asyncio.sleep(0.1)
    assert not background_tasks()


async def test_a_failed_stream_still_fails_as_itself_after_all_of_that() -> None:
    stream = with_handler(paced(plain("a")[:3], 0.1, done=False), Log(1.0), background=True)
    with pytest.raises(StreamChatError, match="ended before"):
        await stream
    assert not background_tasks()


# --- leaving early -------------------------------------------------------------------------------


async def test_leaving_a_generator_around_a_stream_brings_what_waits() -> None:
    log = Log(1.0)

    async def texts() -> AsyncGenerator[str, None]:
        async with with_handler(Answer(body(plain("a", "b", "c"))), log, background=True) as stream:
            async for piece in stream.text():
                yield piece

    async with aclosing(texts()) as given:
        async for piece in given:
            if piece == "b":
                break
    assert log.texts == ["a", "b"] and log.ended == 2 and not background_tasks()


async def test_leaving_a_run_early_brings_what_waits() -> None:
    log = Log(1.0)
    client, _ = client_over(Answer(body(plain("a", "b", "c"))))
    async with client.run_tools("Hi", tools=[weather]) as run:
        run.on_content_delta(background=True)(log)
        async for event in run:
            if isinstance(event, ContentDelta) and event.text == "b":
                break
    assert log.texts == ["a", "b"] and log.ended == 2 and not background_tasks()


async def test_leaving_a_run_early_raises_what_its_handlers_raise_then() -> None:
    client, _ = client_over(Answer(body(plain("a", "b", "c"))))
    run = client.run_tools("Hi", tools=[weather])
    run.on_content_delta(background=True)(Log(1.0, fails_at="b"))
    with pytest.raises(ValueError, match="mine"):
        async with run:
            async for event in run:
                if isinstance(event, ContentDelta) and event.text == "b":
                    break
    assert not background_tasks()


async def test_a_run_whose_stream_fails_when_it_is_left_waits_for_its_own_handlers_too() -> None:
    client, _ = client_over(Answer(body(plain("a"))))
    run = client.run_tools("Hi", tools=[weather])
    run.on_content_delta(background=True)(Log(fails_at="a"))
    log = Log(1.0)
    run.on_step_start(background=True)(log)

    async def events() -> AsyncGenerator[Any, None]:
        async with run:
            async for event in run:
                yield event
                await asyncio.sleep(0.1)

    with pytest.raises(ValueError, match="mine"):
        async with aclosing(events()) as given:
            async for event in given:
                if isinstance(event, ContentDelta):
                    break
    assert not background_tasks()


async def test_a_run_that_is_closed_at_an_event_waits_for_those_that_receive_it_then() -> None:
    """Closed while a plain handler of the event runs; the background handler gets it after that."""
    log = Log(5.0)
    client, _ = client_over(Answer(body(plain("a"))))
    run = client.run_tools("Hi", tools=[weather])

    @run.on(StepEnd)
    async def first(event: StepEnd) -> None:
        await asyncio.sleep(2)

    run.on_step_end(background=True)(log)

    consumer = asyncio.ensure_future(_consume(run))
    await asyncio.sleep(1)
    await run.aclose()
    with pytest.raises(TransportError, match="closed"):
        await consumer
    assert log.ended == 1 and not background_tasks()


async def test_a_run_that_was_closed_at_an_event_is_finalised_by_whoever_leaves_it_there() -> None:
    client, _ = client_over(Answer(body(plain("a"))))
    run = client.run_tools("Hi", tools=[weather])

    @run.on(StepStart)
    async def slow(event: StepStart) -> None:
        await asyncio.sleep(2)

    async def consume() -> None:
        async with run:
            async for _ in run:
                raise LookupError("body")

    consumer = asyncio.ensure_future(consume())
    await asyncio.sleep(1)
    await run.aclose()
    with pytest.raises(LookupError, match="body"):
        await consumer
    generator: Any = run._generator
    assert generator.ag_frame is None


async def test_closed_while_the_queue_is_full_the_last_event_is_received_too() -> None:
    """The handler is woken with room before the stream puts the event in that it waits with."""
    received: list[str] = []
    release = asyncio.Event()

    async def handler(event: ContentDelta) -> None:
        if not received:
            await release.wait()
        received.append(event.text)

    stream = with_handler(
        Answer(body(plain("a", "b", "c", "d"))), handler, background=True, max_queue=1
    )
    handed_out: list[str] = []

    async def consume() -> None:
        async for piece in stream.text():
            handed_out.append(piece)

    consumer = asyncio.ensure_future(consume())
    await asyncio.sleep(1)
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(1)
    release.set()
    await closing
    with pytest.raises(TransportError, match="closed"):
        await consumer
    assert received == handed_out


@pytest.mark.parametrize("wrap", ["wait_for", "shield", "task", "gather"])
async def test_a_handler_may_close_its_stream_in_a_task_of_its_own(wrap: str) -> None:
    async def closes(event: ContentDelta, ctx: Context) -> None:
        closing = ctx.stream.aclose()
        if wrap == "wait_for":
            await asyncio.wait_for(closing, 100)
        elif wrap == "shield":
            await asyncio.shield(closing)
        elif wrap == "task":
            await asyncio.ensure_future(closing)
        else:
            await asyncio.gather(closing)

    stream = make_stream(paced(plain("a", "b", "c"), 1.0))
    stream.on_content_delta(background=True)(closes)
    stream.on_content_delta(background=True)(closes)
    with pytest.raises(TransportError, match="closed"):
        async with asyncio.timeout(50):
            await stream
    assert now() < 50 and not background_tasks()


# --- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["handler", "on_error"])
async def test_a_handler_that_swallows_its_cancellation_gets_no_further_event(where: str) -> None:
    received: list[str] = []

    async def stubborn(event: Any) -> bool:
        if isinstance(event, ContentDelta):
            received.append(event.text)
            if where == "on_error":
                raise ValueError("mine")
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        return True

    stream = with_handler(paced(plain("a", "b", "c"), 0.1), stubborn, background=True)
    stream.on_error()(stubborn)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await stream
    assert now() == pytest.approx(5) and received == ["a"] and not background_tasks()


def test_the_end_of_the_loop_ends_a_handler_that_suppresses_its_cancellation() -> None:
    """The stream was neither closed nor dropped."""
    kept: list[ChatStream] = []

    async def stubborn(event: ContentDelta) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)

    async def main() -> None:
        kept.append(with_handler(paced(plain("a", "b"), 1.0), stubborn, background=True))
        async for event in kept[0]:
            if isinstance(event, ContentDelta):
                break

    with pytest.raises(AssertionError, match="tasks left"):
        run_virtual(main())
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        kept.clear()


@pytest.mark.parametrize("waits_for", ["room in the queue", "the step's handlers"])
async def test_a_close_that_is_cancelled_wakes_whoever_waits_for_the_handlers(
    waits_for: str,
) -> None:
    client, _ = client_over(Answer(body(plain("a", "b", "c"))))
    run = client.run_tools("Hi", tools=[weather])
    types = [StepStart] if waits_for == "the step's handlers" else [ContentDelta]
    run.on(*types)(background=True, max_queue=1)(Log(1000.0))
    consumer = asyncio.ensure_future(_consume(run))
    await asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await run.aclose()
    with pytest.raises(TransportError, match="closed"):
        await consumer
    assert now() == pytest.approx(2) and not background_tasks()


async def _consume(run: Any) -> None:
    async for _ in run:
        pass


async def test_cancelled_twice_it_waits_no_longer() -> None:
    async def stubborn(event: ContentDelta) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        await asyncio.sleep(1000)

    stream = with_handler(paced(plain("a"), 0.1), stubborn, background=True)

    async def run() -> Any:
        return await stream

    running = asyncio.ensure_future(run())
    await asyncio.sleep(5)
    running.cancel()
    await asyncio.sleep(5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert now() == pytest.approx(10)
    for task in background_tasks():
        task.cancel()
    await asyncio.gather(*background_tasks(), return_exceptions=True)


# --- every= --------------------------------------------------------------------------------------


def is_delta(event: Event) -> bool:
    return isinstance(event, ContentDelta)


@pytest.mark.parametrize("options", [{}, {"where": is_delta}])
async def test_a_filter_does_not_hide_the_end_of_a_block(options: dict[str, Any]) -> None:
    log = Log()
    sent: list[Event] = [
        MessageStart("m"),
        ContentStart(0),
        ContentDelta("a"),
        ContentEnd(),
        ContentStart(1),
        ContentDelta("b", 1),
        ContentEnd(1),
        MessageEnd("COMPLETE"),
    ]
    stream = make_stream(paced(sent, 0.1))
    stream.on_event(every=10.0, **options)(log)
    await stream
    times = [moment for moment, event in log.calls if isinstance(event, ContentDelta)]
    assert times == pytest.approx([0.3, 0.6]) and log.texts == ["a", "b"]


# --- what was found by reading it again ----------------------------------------------------------


async def test_a_failure_is_raised_before_what_had_arrived_by_then() -> None:
    """A hundred events lie in the connection; a slow consumer and the other handlers get one more at most."""
    letters = [chr(ord("a") + number) for number in range(20)]
    stream = with_handler(Answer(*pieces(plain(*letters))), Log(fails_at="c"), background=True)
    seen: list[str] = []
    with pytest.raises(ValueError, match="mine"):
        async for event in stream:
            if isinstance(event, ContentDelta):
                seen.append(event.text)
            await asyncio.sleep(0.1)
    assert seen == ["a", "b", "c"]


@pytest.mark.parametrize("max_queue", [1, 256])
async def test_a_task_that_is_cancelled_before_its_first_step_is_named(max_queue: int) -> None:
    """No event is lost in silence, and nobody waits for room in the queue of a task that never began."""
    log = Log()
    stream = with_handler(Answer(body(plain(*"abc"))), log, background=True, max_queue=max_queue)

    @stream.on_content_delta(once=True)
    async def meddle(event: ContentDelta) -> None:
        for task in background_tasks():
            task.cancel()

    with pytest.raises(RuntimeError, match=r"the task of background handler .* was cancelled"):
        await stream
    assert log.texts == [] and not background_tasks()


async def test_a_close_that_is_cancelled_cancels_the_handlers() -> None:
    """While the connection is given back, too."""

    class Lingering(Answer):
        async def drain(self) -> None:
            await asyncio.sleep(1000)

    log = Log(100.0)
    stream = with_handler(Lingering(body(plain("a", "b"))), log, background=True)
    async for event in stream:
        if isinstance(event, MessageEnd):
            break
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await stream.aclose()
    assert now() == pytest.approx(5) and log.ended == 0 and not background_tasks()
