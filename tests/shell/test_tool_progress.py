"""Async generators as tools: each value is progress at once, and the last one the result too."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from streamchat import (
    Context,
    Dispatcher,
    Handler,
    StepEnd,
    ToolCall,
    ToolCallFunction,
    ToolProgress,
    ToolResult,
    TransportError,
    tool,
)
from streamchat.toolrun import PROGRESS_AHEAD
from tests.fakes import Answer
from tests.frames import pieces, plain
from tests.shell.test_runs import client_over, collect
from tests.shell.test_tools import InlineThread, bodies, calling


@pytest.fixture(autouse=True)
def _inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamchat.calling.Thread", InlineThread)


def run_of(given: Any, *arguments: str, **options: Any) -> tuple[Any, Any]:
    """A run whose first answer calls one tool once for each of the arguments."""
    made = tool(given) if not hasattr(given, "name") else given
    events = calling(*[(made.name, text) for text in arguments or ("{}",)])
    client, transport = client_over(Answer(*pieces(events)), Answer(*pieces(plain())))
    return client.run_tools("Hi", tools=[made], **options), transport


def own(events: list[Any]) -> list[Any]:
    """Values of progress, and results in a tuple."""
    return [
        (each.value,) if isinstance(each, ToolResult) else each.value
        for each in events
        if isinstance(each, ToolProgress | ToolResult)
    ]


# --- values --------------------------------------------------------------------------------------


def counting(*values: Any) -> Callable[[], AsyncGenerator[Any, None]]:
    async def count() -> AsyncGenerator[Any, None]:
        for value in values:
            yield value
            await asyncio.sleep(1)

    return count


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), [(None,)]),
        ((1,), [1, (1,)]),
        ((1, 2, 3), [1, 2, 3, (3,)]),
        ((None, None), [None, None, (None,)]),
        ((object, {"a": 1}), [object, {"a": 1}, ({"a": 1},)]),
    ],
    ids=["none", "one", "three", "None", "what JSON cannot say"],
)
async def test_each_value_is_progress_and_the_last_the_result_too(
    values: Any, expected: list[Any]
) -> None:
    """Whatever the values are; the model is told the result alone."""
    run, transport = run_of(counting(*values))
    seen = await collect(run)
    assert own(seen) == expected
    assert len(bodies(transport)[1]["messages"]) == 3
    [ended] = [each for each in seen if isinstance(each, StepEnd) and each.step == 1]
    assert own(list(ended.results)) == [expected[-1]]
    for each in seen:
        if isinstance(each, ToolProgress):
            assert (each.type, each.name, each.tool_call.id) == (
                "tool-progress",
                "count",
                "count_0",
            )


async def steps(item: str, ctx: Context | None = None) -> AsyncIterator[str]:
    """Steps."""
    yield f"looking for {item}"
    yield f"found {item} {ctx and ctx.data}"


class Finder:
    async def method(self, item: str, ctx: Context) -> AsyncIterator[str]:
        async for each in steps(item, ctx):
            yield each

    @tool
    async def decorated(self, item: str, ctx: Context) -> AsyncIterator[str]:
        async for each in steps(item, ctx):
            yield each

    async def __call__(self, item: str, ctx: Context) -> AsyncIterator[str]:
        async for each in steps(item, ctx):
            yield each


def returns_generator(item: str, ctx: Context) -> AsyncIterator[str]:
    return steps(item, ctx)


async def awaits_generator(item: str, ctx: Context) -> AsyncIterator[str]:
    return steps(item, ctx)


@pytest.mark.parametrize(
    "given",
    [
        steps,
        tool(steps),
        Finder().method,
        Finder().decorated,
        Finder(),
        functools.partial(steps),
        returns_generator,
        awaits_generator,
    ],
    ids=["function", "tool", "method", "tool method", "object", "partial", "plain", "coroutine"],
)
async def test_every_kind_of_function_can_report_progress(given: Any) -> None:
    """With the run's context, and asked about before it starts."""
    asked: list[str] = []

    async def approve(call: ToolCall) -> bool:
        asked.append(call.id)
        return True

    run, _ = run_of(given, '{"item": "pen"}', data="mine", approve=approve)
    assert own(await collect(run)) == [
        "looking for pen",
        "found pen mine",
        ("found pen mine",),
    ]
    assert len(asked) == 1


async def test_a_refused_generator_is_not_started() -> None:
    """Approval comes first."""
    run, _ = run_of(counting(1, 2), approve=lambda call: False)
    assert own(await collect(run)) == [(None,)]


async def test_a_generator_runs_outside_a_run_too() -> None:
    """Its progress goes to a function, or to nobody; called itself, it is a generator."""
    made = tool(steps)
    call = ToolCall("x", ToolCallFunction("steps", '{"item": "pen"}'))
    heard: list[Any] = []

    async def progress(value: Any) -> None:
        heard.append(value)

    assert await made.run(call) == "found pen None"
    assert await made.run(call, progress=progress) == "found pen None"
    assert heard == ["looking for pen", "found pen None"]
    assert [each async for each in made("pen")] == ["looking for pen", "found pen None"]


# --- order ---------------------------------------------------------------------------------------


async def work(name: str, pause: int) -> AsyncIterator[str]:
    for number in (1, 2, 3):
        await asyncio.sleep(pause)
        yield f"{name}{number}"


TIMES: dict[int, list[tuple[float, Any]]] = {
    1: [
        *((5, "a1"), (10, "a2"), (15, "a3"), (15, ("a3",))),
        *((17, "b1"), (19, "b2"), (21, "b3"), (21, ("b3",))),
    ],
    4: [
        *((2, "b1"), (4, "b2"), (5, "a1"), (6, "b3"), (10, "a2"), (15, "a3")),
        *((15, ("a3",)), (15, ("b3",))),
    ],
}


@pytest.mark.parametrize("parallel", TIMES)
async def test_progress_comes_at_once_and_results_in_the_order_of_the_calls(parallel: int) -> None:
    """Also while an earlier call runs: each value is progress at once, the last one too."""
    run, _ = run_of(
        work, '{"name": "a", "pause": 5}', '{"name": "b", "pause": 2}', parallel=parallel
    )
    time = asyncio.get_running_loop().time
    came: list[tuple[float, Any]] = []
    async for event in run:
        came += [(time(), value) for value in own([event])]
    assert came == TIMES[parallel]


@pytest.mark.parametrize("end", ["result", "exception", "timeout"])
async def test_a_value_arrives_before_the_generator_goes_on(end: str) -> None:
    """So nothing is lost that it yielded before its result, an exception or a timeout."""
    received: asyncio.Queue[str] = asyncio.Queue()

    async def search() -> AsyncIterator[str]:
        for value in ("looking", "found"):
            yield value
            assert await received.get() == value  # waits for ever if the value is held back
        if end == "exception":
            raise LookupError("lost")
        if end == "timeout":
            await asyncio.sleep(100)

    run, _ = run_of(search, tool_timeout=3)
    seen: list[Any] = []
    async for event in run:
        seen.append(event)
        if isinstance(event, ToolProgress):
            received.put_nowait(event.value)
    assert own(seen) == ["looking", "found", ("found" if end == "result" else None,)]
    [result] = [each for each in seen if isinstance(each, ToolResult)]
    kinds = {"result": type(None), "exception": LookupError, "timeout": TimeoutError}
    assert type(result.exception) is kinds[end]
    assert result.seconds == (3 if end == "timeout" else 0)


async def test_results_are_not_held_up_by_endless_progress() -> None:
    """A tool that always has more to say does not keep back the result of another."""

    @tool
    async def talk(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    run, _ = run_of(talk, '{"count": 2}', '{"count": 2000}')
    seen = own(await collect(run))
    assert seen.index((1,)) < 4 * PROGRESS_AHEAD
    assert seen[-1] == (1999,)
    assert len(seen) == 2004


async def test_a_tool_waits_for_a_slow_consumer() -> None:
    """It is never more than a few values ahead."""
    made = taken = ahead = 0

    async def many() -> AsyncIterator[int]:
        nonlocal made, ahead
        for made in range(1, 501):
            ahead = max(ahead, made - taken)
            yield made

    run, _ = run_of(many)
    async for event in run:
        if isinstance(event, ToolProgress):
            taken += 1
            await asyncio.sleep(1)
    assert taken == 500
    assert ahead <= PROGRESS_AHEAD + 2


async def test_a_slow_consumer_is_not_the_tools_timeout() -> None:
    """The limit does not run while the tool waits to report; it does while the tool works."""

    async def many(pause: float) -> AsyncIterator[int]:
        for number in range(100):
            await asyncio.sleep(pause)
            yield number

    run, _ = run_of(many, '{"pause": 0}', tool_timeout=5)
    async for event in run:
        if isinstance(event, ToolProgress):
            await asyncio.sleep(1)
        if isinstance(event, ToolResult):
            assert event.value == 99
    run, _ = run_of(many, '{"pause": 1}', tool_timeout=5.5)
    seen = await collect(run)
    assert own(seen) == [0, 1, 2, 3, 4, (None,)]
    [result] = [each for each in seen if isinstance(each, ToolResult)]
    assert isinstance(result.exception, TimeoutError)
    assert result.seconds == 5.5


# --- handlers ------------------------------------------------------------------------------------


async def test_progress_has_handlers() -> None:
    """Of the client, a dispatcher, a Handler class and the run; on_event has the answer's own."""
    heard: list[Any] = []

    class Ui(Handler):
        def on_tool_progress(self, event: ToolProgress, ctx: Context) -> None:
            heard.append(("class", event.value, ctx.data))

    dispatcher = Dispatcher()
    client, _ = client_over(Answer(*pieces(calling(("count", "{}")))), Answer(*pieces(plain())))

    @client.on_tool_progress
    async def show(event: ToolProgress) -> None:
        heard.append(("client", event.value))

    @dispatcher.on(ToolProgress, ToolResult)
    def either(event: ToolProgress | ToolResult) -> None:
        heard.append((event.type, event.value))

    client.on_event(lambda event: heard.append(event) if event.type == "tool-progress" else None)
    run = client.run_tools(
        "Hi", tools=[tool(name="count")(counting(1, 2))], handlers=[dispatcher, Ui()], data=7
    )
    run.on_tool_progress(where=lambda event: event.value == 1)(
        lambda event: heard.append(("run", event.value))
    )
    await run
    assert heard == [
        ("client", 1),
        ("tool-progress", 1),
        ("class", 1, 7),
        ("run", 1),
        ("client", 2),
        ("tool-progress", 2),
        ("class", 2, 7),
        ("tool-result", 2),
    ]


async def test_what_a_progress_handler_raises_ends_the_run() -> None:
    """And closes the generator."""
    closed: list[str] = []
    run, _ = run_of(watched(closed))

    @run.on_tool_progress
    async def fail(event: ToolProgress) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        await run
    assert "for a tool-progress event" in caught.value.__notes__[0]
    assert closed == ["closed"]


# --- ends ----------------------------------------------------------------------------------------


def watched(closed: list[str], pause: float = 1) -> Callable[[], AsyncIterator[int]]:
    async def count() -> AsyncIterator[int]:
        try:
            for number in range(1000):
                yield number
                await asyncio.sleep(pause)
        finally:
            await asyncio.sleep(0)  # it may await while it is closed
            closed.append("closed")

    return count


@pytest.mark.parametrize("how", ["break", "cancel", "aclose", "timeout", "waiting"])
async def test_the_generator_is_closed_at_each_end(how: str) -> None:
    """When the consumer leaves, is cancelled, closes the run, or the tool takes too long."""
    closed: list[str] = []
    pause = 0 if how == "waiting" else 1
    run, _ = run_of(watched(closed, pause), tool_timeout=3.5 if how == "timeout" else None)
    if how == "break":
        async with run:
            async for event in run:
                if isinstance(event, ToolProgress):
                    break
    elif how == "waiting":  # the tool waits for a consumer that never comes back
        async with run:
            async for event in run:
                if isinstance(event, ToolProgress):
                    await asyncio.sleep(10)
                    break
    elif how == "timeout":
        [result] = [each for each in await collect(run) if isinstance(each, ToolResult)]
        assert isinstance(result.exception, TimeoutError)
    else:
        task = asyncio.ensure_future(collect(run))
        await asyncio.sleep(2.5)
        if how == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await run.aclose()
            with pytest.raises(TransportError, match="closed before"):
                await task
    assert closed == ["closed"]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    "error", [LookupError("lost"), StopIteration("x"), StopAsyncIteration("x")]
)
@pytest.mark.parametrize("how", ["report", "raise"])
async def test_what_a_generator_raises_is_a_failure_of_the_tool(error: Exception, how: Any) -> None:
    """After all its progress; the ends of iterators as RuntimeError, as the language has it."""

    async def fail() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise error

    run, _ = run_of(fail, on_tool_error=how)
    seen: list[Any] = []
    kind = type(error) if isinstance(error, LookupError) else RuntimeError
    if how == "raise":
        with pytest.raises(kind):
            async for event in run:
                seen.append(event)
        assert own(seen) == [1, 2]
        return
    seen = await collect(run)
    assert own(seen) == [1, 2, (None,)]
    [result] = [each for each in seen if isinstance(each, ToolResult)]
    assert type(result.exception) is kind
    assert result.error.startswith(f"error: {kind.__name__}: ")


async def test_a_generator_that_goes_on_after_its_timeout_ends_all_the_same() -> None:
    """One that swallows the cancellation still reports, and its last value is the result too."""

    async def stubborn() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            yield 1
        yield 2

    run, _ = run_of(stubborn, tool_timeout=3)
    assert own(await collect(run)) == [1, 2, (2,)]
