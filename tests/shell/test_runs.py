"""Several answers as one: three ways to consume a run, and every way it can end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import attrs
import pytest

from streamchat import (
    ChatResponse,
    Client,
    ConcurrencyError,
    ContentDelta,
    Context,
    Dispatcher,
    GenerationError,
    Handler,
    MessageEnd,
    StepEnd,
    StepStart,
    StreamChatError,
    StructureError,
    ToolCall,
    ToolLoopLimitError,
    ToolProgress,
    ToolResult,
    TransportError,
    TruncatedStreamError,
    tool,
)
from streamchat.transport import Transport
from tests.fakes import Answer, FakeTransport
from tests.frames import failed, pieces, plain, tools
from tests.simulation.test_every_await import Driven
from tests.virtual import VirtualLoop

# --- what the tests of runs, tools and parsed answers share --------------------------------------


def client_over(*script: Answer | StreamChatError, **options: Any) -> tuple[Client, FakeTransport]:
    """A client whose transport is in memory, and that transport."""
    transport = FakeTransport(*script)
    transport.is_open = False  # type: ignore[attr-defined]  # a client asks when it is dropped
    client = Client("k", base_url="https://api.test", model="command-test", **options)
    client._transport = cast(Transport, transport)
    return client, transport


async def collect(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


def kinds(events: list[Any]) -> list[str]:
    """Types alone, those of one kind in a row as one."""
    found: list[str] = []
    for event in events:
        if found[-1:] != [event.type]:
            found.append(event.type)
    return found


def slowly(events: list[Any], pause: float = 1.0) -> list[bytes | float]:
    """An answer that pauses before each event."""
    return [step for piece in pieces(events) for step in (pause, piece)]


@attrs.define
class Order:
    item: str
    count: int


ORDER = ('{"item": ', '"pen', '", "count', '": 12', "}")


@tool
async def weather(city: str) -> dict[str, str]:
    """Weather of a city."""
    await asyncio.sleep(3)
    return {"sky": f"clear over {city}"}


@tool
async def clock() -> str:
    """Time."""
    await asyncio.sleep(1)
    return "noon"


@attrs.define
class Case:
    """A kind of run: how it is made, what it says, what comes of it."""

    make: Callable[..., Any]
    answers: Callable[[], list[list[Any]]]
    result: Callable[[Any], bool]

    def start(self, *, pause: float | None = None, **options: Any) -> tuple[Any, list[Answer]]:
        script = [
            Answer(*(pieces(events) if pause is None else slowly(events, pause)))
            for events in self.answers()
        ]
        client, _ = client_over(*script)
        return self.make(client, **options), script


def _run_tools(client: Client, **options: Any) -> Any:
    return client.run_tools("Hi", tools=[weather, clock], **options)


def _parse(client: Client, **options: Any) -> Any:
    return client.parse("Hi", into=Order, **options)


CASES = {
    "tools": Case(
        _run_tools, lambda: [tools(), plain()], lambda result: result.text == "Hello there!"
    ),
    "parse": Case(_parse, lambda: [plain(*ORDER)], lambda result: result == Order("pen", 12)),
    "repair": Case(
        lambda client, **options: _parse(client, repair=True, **options),
        lambda: [plain("no"), plain(*ORDER)],
        lambda result: result == Order("pen", 12),
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def events_of(case: Case) -> list[Any]:
    """The wire's events of all answers, in order."""
    return [event for answer in case.answers() for event in answer]


def of_the_wire(events: list[Any]) -> list[Any]:
    return [event for event in events if not isinstance(event, StepStart | ToolResult | StepEnd)]


# --- three ways to consume -----------------------------------------------------------------------


@every_case
async def test_iteration_yields_the_events_of_every_answer(case: Case) -> None:
    """All of them in order, and an end; a second iteration has ended already."""
    run, _ = case.start()
    assert of_the_wire(await collect(run)) == events_of(case)
    assert await collect(run) == []
    assert case.result(await run)


@every_case
async def test_awaiting_runs_to_the_end(case: Case) -> None:
    """The result; awaiting again is the same result, and nothing is asked again."""
    run, script = case.start()
    result = await run
    assert case.result(result)
    assert await run is result
    assert all(answer.closed for answer in script)


@every_case
async def test_the_block_closes_what_is_left(case: Case) -> None:
    """Leaving early closes the connection; the result is then an error, and stays one."""
    run, script = case.start()
    async with run as entered:
        assert entered is run
        async for event in run:
            if event.type in ("content-delta", "tool-call-delta"):
                break
        assert not script[0].closed
    assert script[0].closed
    for _ in range(2):
        with pytest.raises(TransportError, match="closed before"):
            await run
        with pytest.raises(TransportError, match="closed before"):
            await anext(run)
    await run.aclose()


@every_case
async def test_the_result_is_there_behind_the_block(case: Case) -> None:
    """``await run`` after the block, when it was consumed to its end."""
    run, _ = case.start()
    async with run:
        async for _ in run:
            pass
    assert case.result(await run)


async def test_leaving_at_the_last_event_loses_nothing() -> None:
    """The last step-end is the end: the answer is there although the loop was left."""
    run, _ = CASES["tools"].start()
    async with run:
        async for event in run:
            if isinstance(event, StepEnd) and not event.results:
                break
    assert (await run).text == "Hello there!"
    assert await collect(run) == []


@every_case
async def test_iterating_and_then_awaiting(case: Case) -> None:
    """The first events by hand, the rest by ``await``."""
    run, _ = case.start()
    await anext(run)
    assert case.result(await run)


@every_case
async def test_nothing_is_sent_before_it_is_consumed(case: Case) -> None:
    """Making, entering and dropping a run costs nothing and warns of nothing."""
    client, transport = client_over(*[Answer() for _ in case.answers()])
    async with case.make(client):
        pass
    case.make(client)
    gc.collect()
    assert transport.requests == []


@every_case
async def test_text_and_thinking_are_pieces_of_all_answers(case: Case) -> None:
    """text() goes through all answers; handlers hear meanwhile."""
    run, _ = case.start()
    heard: list[Any] = []
    run.on_event(heard.append)
    texts = [e.text for e in events_of(case) if isinstance(e, ContentDelta)]
    assert await collect(run.text()) == texts
    assert heard == events_of(case)
    other, _ = case.start()
    assert await collect(other.thinking()) == []


@every_case
async def test_views_can_be_closed_as_contextlib_does(case: Case) -> None:
    """contextlib.aclosing(run.text()) closes the run."""
    run, script = case.start()
    async with contextlib.aclosing(run.text()) as texts:
        await anext(texts)
    assert script[0].closed
    with pytest.raises(TransportError, match="closed before"):
        await run


@every_case
async def test_two_consumers_are_refused(case: Case) -> None:
    """A second task gets ConcurrencyError; the first goes on undisturbed."""
    run, _ = case.start(pause=1.0)
    first = asyncio.ensure_future(collect(run))
    await asyncio.sleep(2.5)
    with pytest.raises(ConcurrencyError):
        await anext(run)
    with pytest.raises(ConcurrencyError):
        await run
    assert of_the_wire(await first) == events_of(case)


@every_case
async def test_a_handler_cannot_consume_its_own_run(case: Case) -> None:
    """It would wait for itself; it is refused instead."""
    run, _ = case.start()

    @run.on_message_start
    async def nested(event: Any) -> None:
        await anext(run)

    with pytest.raises(ConcurrencyError):
        await run


async def test_several_runs_of_one_client_do_not_mix() -> None:
    """Each has its own connection, tasks and history."""
    case = CASES["tools"]
    client, _ = client_over(*[Answer(*slowly(a)) for _ in range(3) for a in [tools(), tools()]])
    client._transport.script += [Answer(*pieces(plain("done"))) for _ in range(3)]  # type: ignore[attr-defined]
    runs = [case.make(client, data=number) for number in range(3)]
    seen = await asyncio.gather(*map(collect, runs))
    for run, events in zip(runs, seen, strict=True):
        assert of_the_wire(events) == [*tools(), *tools(), *plain("done")]
        assert len(run.messages) == 1 + 3 + 3 + 1


# --- ends ----------------------------------------------------------------------------------------


ENDS: dict[str, tuple[list[bytes | TransportError], type[StreamChatError]]] = {
    "cut": (list(pieces(tools(), done=False)[:4]), TruncatedStreamError),
    "reset": ([*pieces(tools())[:4], TransportError("reset", kind="reset")], TransportError),
    "failed": (list(pieces(failed())), GenerationError),
}


@pytest.mark.parametrize("end", ENDS)
@every_case
async def test_a_failing_answer_fails_the_run(case: Case, end: str) -> None:
    """What came is delivered first; one error with the partial answer, said again to who asks again."""
    steps, expected = ENDS[end]
    answer = Answer(*steps)
    client, transport = client_over(answer, answer)
    run, seen, heard = case.make(client), list[Any](), list[Any]()
    run.on_error()(heard.append)
    with pytest.raises(expected) as caught:
        async for event in run:
            seen.append(event)
    assert of_the_wire(seen) == (failed() if end == "failed" else tools()[:4])
    assert caught.value.partial is not None
    assert caught.value.partial.tool_plan.startswith("I will")
    assert heard == [caught.value]
    assert answer.closed
    with pytest.raises(expected) as again:
        await run
    assert str(again.value) == str(caught.value)
    assert again.value.partial == caught.value.partial
    assert len(transport.requests) == 1


async def test_a_failure_of_a_later_answer_loses_nothing_of_the_earlier() -> None:
    """The history holds the first step in full."""
    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())[:4]))
    run = client.run_tools("Hi", tools=[weather, clock])
    with pytest.raises(TruncatedStreamError) as caught:
        await run
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there"
    assert [message["role"] for message in run.messages] == ["user", "assistant", "tool", "tool"]


@every_case
async def test_the_callers_own_limit_is_the_callers(case: Case) -> None:
    """asyncio.timeout around a run raises the caller's TimeoutError and closes everything."""
    run, script = case.start(pause=1.0)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(2.5):
            await run
    assert not isinstance(caught.value, StreamChatError)
    assert script[0].closed
    with pytest.raises(TransportError, match="stopped by CancelledError"):
        await run


async def test_a_dropped_run_closes_its_connection() -> None:
    """It says so, as a stream does."""
    run, script = CASES["tools"].start()
    async for event in run:
        if event.type == "tool-plan-delta":
            break
    with pytest.warns(ResourceWarning, match="<ChatStream .* was dropped"):
        del run, event
        gc.collect()
        await asyncio.sleep(0)
    assert script[0].closed


def test_what_it_looks_like() -> None:
    """repr says what it is, and nothing that was asked."""

    async def look() -> list[str]:
        run, _ = CASES["tools"].start()
        parsed, _ = CASES["parse"].start()
        shown = [repr(run), repr(parsed)]
        await anext(parsed)
        shown.append(repr(parsed))
        await parsed
        return [*shown, repr(parsed)]

    assert asyncio.run(look()) == [
        "<ToolRun tools=['weather', 'clock'] messages=1>",
        "<ParsedAnswer into=Order new>",
        "<ParsedAnswer into=Order open>",
        "<ParsedAnswer into=Order complete>",
    ]


# --- closing from elsewhere ----------------------------------------------------------------------


@every_case
async def test_a_run_closed_before_it_began_says_so(case: Case) -> None:
    """Nothing is sent, and neither iterating nor awaiting looks like an empty answer."""
    run, script = case.start()
    await run.aclose()
    with pytest.raises(TransportError, match="closed"):
        await anext(run)
    with pytest.raises(TransportError, match="closed"):
        await run
    assert script[0].bytes_received == 0


@every_case
@pytest.mark.parametrize("moment", [0.5, 3.5, 9.5])
async def test_closing_from_another_task_ends_a_wait_at_once(case: Case, moment: float) -> None:
    """Whatever answer is read: one error, at once, the connection closed, nothing further sent."""
    run, script = case.start(pause=1.0)
    running = asyncio.ensure_future(collect(run))
    await asyncio.sleep(moment)
    if running.done():
        return
    await run.aclose()
    with pytest.raises(TransportError, match="closed before") as caught:
        await running
    assert caught.value.kind == "closed"
    assert asyncio.get_running_loop().time() == moment
    assert all(answer.closed for answer in script if answer.bytes_received)
    await run.aclose()


async def test_closing_while_tools_run_cancels_them() -> None:
    """The consumer gets one error, and no tool goes on."""
    ended: list[str] = []

    @tool
    async def weather(city: str) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("weather")

    @tool
    async def clock() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("clock")

    client, transport = client_over(Answer(*pieces(tools())))
    run = client.run_tools("Hi", tools=[weather, clock])
    running = asyncio.ensure_future(collect(run))
    await asyncio.sleep(10)
    await run.aclose()
    with pytest.raises(TransportError, match="closed before"):
        await running
    assert sorted(ended) == ["clock", "weather"]
    assert asyncio.get_running_loop().time() == 10
    assert len(transport.requests) == 1
    assert len(asyncio.all_tasks()) == 1


async def test_a_tool_may_close_its_run() -> None:
    """It is cancelled itself, and the consumer gets the error."""

    async def weather(city: str) -> str:
        await run.aclose()
        await asyncio.sleep(1)
        return "never"

    client, _ = client_over(Answer(*pieces(tools())))
    run = client.run_tools("Hi", tools=[weather])
    with pytest.raises(TransportError, match="closed before"):
        await run


@pytest.mark.parametrize("kind", ["message-start", "tool-result", "step-end", "step-start"])
async def test_closing_while_a_handler_runs_leaves_nothing_open(kind: str) -> None:
    """The handler ends in peace; then the run is over, and no generator waits for the collector."""
    case = CASES["tools"]
    run, script = case.start()
    handlers = {
        "message-start": run.on_message_start,
        "tool-result": run.on_tool_result,
        "step-start": run.on_step_start,
        "step-end": run.on_step_end,
    }
    handled: list[Any] = []

    async def slow(event: Any) -> None:
        await asyncio.sleep(50)
        handled.append(event)

    handlers[kind](slow)
    running = asyncio.ensure_future(collect(run))
    await asyncio.sleep(20)
    await run.aclose()
    with pytest.raises(TransportError, match="closed before"):
        await running
    assert len(handled) == 1
    assert len(asyncio.all_tasks()) == 1
    assert run._generator.ag_frame is None
    assert all(answer.closed for answer in script if answer.bytes_received)


@every_case
async def test_a_handler_may_close_its_run(case: Case) -> None:
    """The consumer gets the error behind the event."""
    run, script = case.start()
    seen: list[Any] = []

    @run.on_message_start
    async def close(event: Any) -> None:
        await run.aclose()

    with pytest.raises(TransportError, match="closed before"):
        async for event in run:
            seen.append(event)
    assert of_the_wire(seen) == events_of(case)[:1]
    assert script[0].closed


# --- handlers ------------------------------------------------------------------------------------


async def test_handlers_of_client_call_and_run_hear_everything_in_order() -> None:
    """Client, handlers=, run: each hears each event before the iterator sees it."""
    heard: list[tuple[str, str]] = []

    class Ui(Handler):
        async def on_event(self, event: Any) -> None:
            heard.append(("call", event.type))

        async def on_step_start(self, event: StepStart) -> None:
            heard.append(("call", event.type))

        def on_tool_result(self, event: ToolResult, ctx: Context) -> None:
            heard.append(("call", event.type))

        async def on_step_end(self, event: StepEnd) -> None:
            heard.append(("call", event.type))

    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock], handlers=[Ui()])
    for name, target in (("client", client), ("run", run)):

        def listen(target: Any, name: str) -> None:
            def hear(event: Any) -> None:
                heard.append((name, event.type))

            for register in (
                target.on_event,
                target.on_step_start,
                target.on_tool_result,
                target.on_step_end,
            ):
                register(hear)

        listen(target, name)
    expected: list[tuple[str, str]] = []
    async for event in run:
        expected += [(who, event.type) for who in ("client", "call", "run")]
        assert heard == expected
    assert expected.count(("run", "step-start")) == 2
    assert expected.count(("run", "tool-result")) == 2
    assert expected.count(("run", "step-end")) == 2


async def test_a_handler_knows_its_request_its_data_and_its_stream() -> None:
    """ctx of a step event: the caller's data, the first request, the answer that is read."""
    seen: list[Any] = []
    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock], data=[7])

    @run.on_step_end
    async def look(event: StepEnd, ctx: Context) -> None:
        assert ctx.snapshot == event.response
        seen.append((event.step, ctx.data, len(ctx.request.messages), ctx.stream.attempts))

    await run
    assert seen == [(1, [7], 1, 1), (2, [7], 1, 1)]


async def test_options_of_handlers_hold_for_step_events() -> None:
    """where=, once= and on(*types) as everywhere."""
    heard: list[Any] = []
    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock])
    run.on_tool_result(where=lambda event: event.name == "clock")(heard.append)
    run.on_step_start(once=True)(heard.append)
    run.on(StepEnd, MessageEnd)(lambda event: heard.append(event.type))
    await run
    assert [getattr(each, "type", each) for each in heard] == [
        "step-start",
        "message-end",
        "tool-result",
        "step-end",
        "message-end",
        "step-end",
    ]


@pytest.mark.parametrize("kind", ["step-start", "tool-result", "step-end", "content-delta"])
async def test_a_failing_handler_ends_the_run_or_is_forgiven(kind: str) -> None:
    """Its own exception with a note, connection closed; unless on_error takes it upon itself."""
    for forgiven in (False, True):
        script = [Answer(*pieces(tools())), Answer(*pieces(plain()))]
        client, _ = client_over(*script)
        run = client.run_tools("Hi", tools=[weather, clock])
        judged: list[Exception] = []

        def judge(error: Exception, _judged: list[Exception] = judged, _f: bool = forgiven) -> bool:
            _judged.append(error)
            return _f

        def fail(event: Any) -> None:
            raise LookupError("mine")

        run.on_error(LookupError)(judge)
        where: dict[str, Any] = {
            "step-start": run.on_step_start,
            "tool-result": run.on_tool_result,
            "step-end": run.on_step_end,
            "content-delta": run.on_content_delta,
        }
        where[kind](fail)
        if forgiven:
            assert (await run).text == "Hello there!"
        else:
            with pytest.raises(LookupError, match="mine") as caught:
                await run
            assert f"for a {kind} event" in caught.value.__notes__[0]
            with pytest.raises(TransportError, match="stopped by LookupError"):
                await run
            assert all(answer.closed for answer in script if answer.bytes_received)
        assert judged
        assert len(asyncio.all_tasks()) == 1


async def test_on_error_hears_the_runs_own_failures_once() -> None:
    """The limit of steps and an answer that does not fit, on client, call and run."""
    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain("no"))))
    dispatcher, heard = Dispatcher(), []
    client.on_error(StreamChatError)(lambda error: heard.append(("client", error)))
    dispatcher.on_error()(lambda error: heard.append(("call", error)))
    run = client.run_tools("Hi", tools=[weather], max_steps=1, handlers=[dispatcher])
    run.on_error(ToolLoopLimitError)(lambda error: heard.append(("run", error)))
    run.on_error(ValueError)(lambda error: heard.append(("never", error)))
    with pytest.raises(ToolLoopLimitError) as limit:
        await run
    assert heard == [(who, limit.value) for who in ("client", "call", "run")]
    heard.clear()
    parsed = client.parse("Hi", into=Order, handlers=[dispatcher])
    parsed.on_error(StructureError)(lambda error: heard.append(("run", error)))
    with pytest.raises(StructureError) as misfit:
        await parsed
    assert heard == [(who, misfit.value) for who in ("client", "call", "run")]
    with pytest.raises(StructureError):
        await parsed
    assert len(heard) == 3


@every_case
async def test_handlers_are_fixed_when_it_begins(case: Case) -> None:
    """Registering late is refused, and says when it is not late."""
    run, _ = case.start()
    await anext(run)
    for register in (run.on_event, run.on_step_start, run.on_error()):
        with pytest.raises(RuntimeError, match="register them before you consume it"):
            register(lambda event: None)
    assert case.result(await run)


# --- cancellation at every await -----------------------------------------------------------------


async def _slow_weather(city: str) -> dict[str, str]:
    await asyncio.sleep(0.03)
    await asyncio.sleep(0.03)
    return {"city": city}


async def _slow_clock() -> str:
    await asyncio.sleep(0.02)
    return "noon"


def _tool_run(client: Client, handlers: Dispatcher) -> Any:
    named: list[Any] = [tool(name="weather")(_slow_weather), tool(name="clock")(_slow_clock)]
    return client.run_tools("Hi", tools=named, handlers=[handlers])


async def _reporting_weather(city: str) -> AsyncIterator[str]:
    try:
        for number in range(3):
            await asyncio.sleep(0.01)
            yield f"{city} {number}"
    finally:
        await asyncio.sleep(0)


async def _slow_person(call: ToolCall) -> bool | str:
    await asyncio.sleep(0.01)
    return call.name == "weather" or "no"


def _approved_run(client: Client, handlers: Dispatcher) -> Any:
    named: list[Any] = [tool(name="weather")(_reporting_weather), tool(name="clock")(_slow_clock)]
    return client.run_tools("Hi", tools=named, handlers=[handlers], approve=_slow_person)


def _parsed(client: Client, handlers: Dispatcher) -> Any:
    return client.parse("Hi", into=Order, repair=True, handlers=[handlers])


FLOWS: dict[str, tuple[Any, Callable[[], list[list[Any]]]]] = {
    "two tools": (_tool_run, lambda: [tools(), tools(), plain()]),
    "approval and progress": (_approved_run, lambda: [tools(), plain()]),
    "repair": (_parsed, lambda: [plain("no"), plain(*ORDER)]),
}


async def _iterate(run: Any) -> None:
    async for _ in run:
        pass


async def _in_own_time(run: Any) -> None:
    async with run:
        async for _ in run:
            await asyncio.sleep(0.01)


async def _await(run: Any) -> None:
    await run


async def _with(run: Any) -> None:
    async with run:
        async for _ in run.text():
            pass


STYLES = {
    "iterate": _iterate,
    "await": _await,
    "async with, text": _with,
    "async with, slow": _in_own_time,
}


class Interfered:
    """One run, cancelled at its n-th suspension; what is left behind is in ``problems``."""

    def __init__(self, flow: str, style: str, n: int, how: str) -> None:
        self.make, answers = FLOWS[flow]
        self.answers = [Answer(*slowly(each, 0.01), before_headers=0.01) for each in answers()]
        self.style, self.n, self.how = style, n, how
        self.suspensions = 0
        self.raised: BaseException | None = None
        self.problems: list[str] = []

    async def main(self) -> None:
        client, transport = client_over(*self.answers)
        handlers = Dispatcher()

        @handlers.on(StepStart, ToolProgress, ToolResult, StepEnd, MessageEnd)
        async def slow(event: Any) -> None:
            await asyncio.sleep(0.01)

        run = self.make(client, handlers)
        driven = Driven(STYLES[self.style](run), self.n, self.how)

        async def drive() -> None:
            await driven

        task = asyncio.ensure_future(drive())
        await asyncio.wait([task])
        self.suspensions = driven.suspensions
        self.raised = asyncio.CancelledError() if task.cancelled() else task.exception()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        self.problems += [f"a task is left: {each}" for each in left]
        used = len(transport.requests)
        if not all(answer.closed for answer in self.answers if answer.bytes_received):
            self.problems.append("a connection is open")
        try:
            await run
        except TransportError as error:
            if error.kind != "closed":
                self.problems.append(f"asked again: {error!r}")
        if len(transport.requests) != used:
            self.problems.append("asked again, it sent a request")

    def go(self) -> Interfered:
        loop = VirtualLoop()
        loop.set_exception_handler(lambda _, context: self.problems.append(f"loop: {context}"))
        try:
            loop.run_until_complete(self.main())
            timers = [h for h in loop._scheduled if not h._cancelled]  # type: ignore[attr-defined]
            self.problems += [f"left: {each}" for each in [*asyncio.all_tasks(loop), *timers]]
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
        return self


@pytest.mark.parametrize("how", ["injected", "task.cancel()"])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("flow", FLOWS)
def test_cancelled_at_every_await(flow: str, style: str, how: str) -> None:
    """For all n: CancelledError alone, every connection closed, no task, no timer, no warning."""
    hidden: list[str] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: hidden.append(repr(args.exc_value))
    n = 0
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            while True:
                n += 1
                run = Interfered(flow, style, n, how).go()
                where = f"{flow}, {style}, {how} at {n}"
                assert not run.problems, f"{where}: {run.problems}"
                if run.suspensions < n:
                    break
                assert type(run.raised) is asyncio.CancelledError, f"{where}: {run.raised!r}"
            gc.collect()
    finally:
        sys.unraisablehook = hook
    assert run.raised is None, "the undisturbed run is whole"
    assert n > 15
    assert not hidden
    assert not [str(each.message) for each in warned]


async def test_a_cancelled_consumer_takes_its_tools_along() -> None:
    """Cancelling waits until the tools have ended, then goes on."""
    ended: list[float] = []
    time = asyncio.get_running_loop().time

    async def weather(city: str) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(5)
            ended.append(time())

    client, _ = client_over(Answer(*pieces(tools())))
    running = asyncio.ensure_future(_await(client.run_tools("Hi", tools=[weather])))
    await asyncio.sleep(10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == [15] == [time()]
    assert len(asyncio.all_tasks()) == 1


async def test_the_answer_of_a_run_is_an_answer() -> None:
    """What is awaited is a ChatResponse like any other."""
    run, _ = CASES["tools"].start()
    assert isinstance(await run, ChatResponse)
