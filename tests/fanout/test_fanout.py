"""A fan-out's promises, on a virtual clock: lazy, bounded, each request one result, nothing left."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import Any

import aiohttp
import pytest

from streamchat import (
    Client,
    ConcurrencyError,
    ConfigurationError,
    ContentDelta,
    Context,
    Dispatcher,
    FanOut,
    FanOutResult,
    RateLimitError,
    Retry,
    ServerError,
    StreamChatError,
    TransportError,
    TruncatedStreamError,
)
from streamchat.fanout import FanOutOptions
from streamchat.limiter import Limiter
from tests.fakes import Answer
from tests.fanout.served import Served, client, others, says, turns, virtual
from tests.frames import body, pieces, plain
from tests.virtual import run_virtual
from tests.wire.server import Request, serve, whole_answer

ONCE = Retry(attempts=1)


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


async def collect(fan: FanOut) -> list[FanOutResult]:
    return [result async for result in fan]


def texts(results: list[FanOutResult]) -> list[str | None]:
    return [None if result.response is None else result.response.text for result in results]


def in_turn(seconds: Mapping[str, float]) -> Callable[[str, int], Answer]:
    """Answers after so many seconds, 1 if not named."""
    return lambda prompt, number: Answer(
        body(plain(prompt)), before_headers=seconds.get(prompt, 1.0)
    )


def refused(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"content-type": "application/json"}
    return Answer(b'{"message": "no"}', status=status, headers=kind | named)


class Endless:
    """An asynchronous iterable that knows how much was taken of it and whether it was closed."""

    def __init__(self, pause: float = 0) -> None:
        self.pulled = self.closed = 0
        self.pause = pause

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            while True:
                if self.pause:
                    await asyncio.sleep(self.pause)
                self.pulled += 1
                yield str(self.pulled - 1)
        finally:
            self.closed += 1


# --- what goes in, what comes out ----------------------------------------------------------------


async def _slowly(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0.3)
        yield item


@pytest.mark.parametrize("make", [list, tuple, iter, lambda items: (x for x in items), _slowly])
@virtual
async def test_every_kind_of_iterable(make: Callable[[list[Any]], Any]) -> None:
    """A list, an iterator, a generator, an asynchronous one: a result each, in any order."""
    chat = client(Served())
    fan = chat.fan_out(make(numbers(20)), concurrency=4)
    results = await collect(fan)
    assert sorted(result.index for result in results) == list(range(20))
    for result in results:
        assert result.ok
        assert result.response is not None
        assert result.response.text == result.request == str(result.index)
        assert (result.error, result.attempts) == (None, 1)
        assert (result.timing.first_byte, result.timing.total) == pytest.approx((1.0, 1.0))
    assert (fan.taken, fan.running) == (20, 0)
    assert await anext(fan, None) is None
    assert others() == set()


@virtual
async def test_every_kind_of_request() -> None:
    """A text, messages, keywords."""
    chat = client(Served())
    requests: list[Any] = [
        "a",
        [{"role": "user", "content": "b"}],
        {"messages": "c", "max_tokens": 5},
    ]
    results = await collect(chat.fan_out(requests, ordered=True))
    assert texts(results) == ["a", "b", "c"]
    assert [result.request for result in results] == requests


@pytest.mark.parametrize("requests", ["a text", {"messages": "x"}, 5, None])
@virtual
async def test_what_is_no_iterable_of_requests(requests: Any) -> None:
    """A text would be a request a letter."""
    with pytest.raises(TypeError, match="requests must be"):
        client(Served()).fan_out(requests)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"concurrency": 0}, ValueError),
        ({"concurrency": 2.0}, TypeError),
        ({"concurrency": True}, TypeError),
        ({"limiter": 500}, TypeError),
        ({"on_error": "ignore"}, ValueError),
        ({"handlers": [print]}, TypeError),
    ],
)
@virtual
async def test_options_that_mean_nothing(options: dict[str, Any], error: type[Exception]) -> None:
    """Refused at once, by name."""
    with pytest.raises(error, match=next(iter(options))):
        client(Served()).fan_out(["a"], **options)


@virtual
async def test_nothing_happens_before_it_is_iterated() -> None:
    """Nothing taken, nothing sent; closed before its beginning it is empty."""
    served, source = Served(), Endless()
    fan = client(served).fan_out(source)
    await turns()
    await fan.aclose()
    assert await collect(fan) == []
    assert (source.pulled, served.opened_at, others()) == (0, [], set())


@virtual
async def test_as_completed_and_in_order() -> None:
    """The slowest comes last, or where it belongs."""
    seconds = {"0": 5.0, "1": 3.0, "2": 4.0}
    first = await collect(client(Served(in_turn(seconds))).fan_out(numbers(4), concurrency=4))
    assert [result.index for result in first] == [3, 1, 2, 0]
    second = client(Served(in_turn(seconds))).fan_out(numbers(4), concurrency=4, ordered=True)
    assert [result.index for result in await collect(second)] == [0, 1, 2, 3]


@virtual
async def test_early_results_in_order_take_room() -> None:
    """While the first is slow, no more are taken than may wait for it."""
    served = Served(in_turn({"0": 100.0}))
    source = Endless()
    async with client(served).fan_out(source, concurrency=8, ordered=True) as fan:
        assert (await anext(fan)).index == 0
        assert source.pulled == 8
        assert asyncio.get_running_loop().time() == 100


# --- lazy, and nothing left ----------------------------------------------------------------------


class OwnError(Exception):
    pass


async def by_break(fan_of: Callable[[], FanOut], stop: int) -> int:
    taken = 0
    async for _ in fan_of():
        taken += 1
        if taken == stop:
            break
    return taken


async def by_aclose(fan_of: Callable[[], FanOut], stop: int) -> int:
    fan, taken = fan_of(), 0
    async for _ in fan:
        taken += 1
        if taken == stop:
            await fan.aclose()
            assert fan.running == 0
    return taken


async def by_async_with(fan_of: Callable[[], FanOut], stop: int) -> int:
    taken = 0
    async with fan_of() as fan:
        while taken < stop:
            await anext(fan)
            taken += 1
    assert fan.running == 0
    return taken


async def by_exception(fan_of: Callable[[], FanOut], stop: int) -> int:
    taken = 0
    try:
        async for _ in fan_of():
            taken += 1
            if taken == stop:
                raise OwnError
    except OwnError:
        pass
    return taken


async def by_exception_in_async_with(fan_of: Callable[[], FanOut], stop: int) -> int:
    taken = 0
    with pytest.raises(OwnError):
        async with fan_of() as fan:
            async for _ in fan:
                taken += 1
                if taken == stop:
                    raise OwnError
    return taken


LEAVINGS = [by_break, by_aclose, by_async_with, by_exception, by_exception_in_async_with]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("leave", LEAVINGS)
@virtual
async def test_leaving_a_million_after_a_hundred(
    leave: Callable[[Callable[[], FanOut], int], Any], ordered: bool
) -> None:
    """At most ``concurrency`` more are taken than were returned; nothing goes on running."""
    served, source, pulled = Served(), Endless(), 0

    def million() -> Iterator[str]:
        nonlocal pulled
        for number in range(1_000_000):
            pulled += 1
            yield str(number)

    chat = client(served)
    assert await leave(lambda: chat.fan_out(million(), concurrency=8, ordered=ordered), 100) == 100
    await turns()
    assert (pulled <= 108, served.most, served.open_now, others()) == (True, 8, 0, set())
    assert await leave(lambda: chat.fan_out(source, concurrency=8, ordered=ordered), 100) == 100
    await turns()
    assert (source.pulled <= 108, source.closed) == (True, 1)
    assert (served.most, served.open_now, others()) == (8, 0, set())
    before = len(served.opened_at)
    await asyncio.sleep(1000)
    assert len(served.opened_at) == before


@virtual
async def test_memory_is_flat() -> None:
    """3,000 results need no more than 300."""
    said, blocks = body(plain("a")), list[int]()
    served = Served(lambda prompt, number: Answer(said, before_headers=1.0))
    async for result in client(served).fan_out((str(n) for n in range(3000)), concurrency=8):
        served.forget()
        if result.index % 300 == 299:
            del result
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    assert len(blocks) == 10
    assert max(blocks[1:]) - blocks[1] < 1000, blocks


@virtual
async def test_a_slow_consumer_slows_the_rest_down() -> None:
    """What nobody has taken counts as running: neither requests nor results pile up."""
    served, source, taken = Served(), Endless(), 0
    async with client(served).fan_out(source, concurrency=8) as fan:
        async for _ in fan:
            taken += 1
            assert source.pulled <= taken + 8
            await asyncio.sleep(10)
            assert fan.taken <= taken + 8
            if taken == 50:
                break
    assert served.most <= 8


@virtual
async def test_a_slow_source_holds_nobody_up() -> None:
    """Results are handed out while the next request is waited for."""
    times = []
    async for result in client(Served()).fan_out(Endless(pause=10.0), concurrency=8):
        times.append(asyncio.get_running_loop().time())
        if result.index == 2:
            break
    assert times == [11.0, 21.0, 31.0]
    await turns()


@virtual
async def test_a_busy_source_lets_others_have_their_turn() -> None:
    """A plain iterable never waits; streams begin all the same while it is taken."""
    served, begun = Served(), list[int]()

    def source() -> Iterator[str]:
        for number in range(100):
            begun.append(len(served.opened_at))
            yield str(number)

    await collect(client(served).fan_out(source(), concurrency=100))
    assert begun[-1] > 90


@virtual
async def test_a_source_whose_closing_takes_time() -> None:
    """It is closed, and waited for, before the iteration ends."""
    closed = []

    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> str:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            await asyncio.sleep(5)
            closed.append(True)

    assert await collect(client(Served()).fan_out(Source())) == []
    assert (closed, others()) == ([True], set())


@virtual
async def test_a_source_that_fails_to_close() -> None:
    """At the end it is raised; when the consumer left, the loop's exception handler hears it."""

    async def source(count: int) -> AsyncIterator[str]:
        try:
            for number in range(count):
                yield str(number)
        finally:
            raise OwnError

    seen = []
    with pytest.raises(OwnError):
        async for result in client(Served()).fan_out(source(3)):
            seen.append(result.index)
    assert sorted(seen) == [0, 1, 2]
    heard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: heard.append(about))
    async for _ in client(Served()).fan_out(source(1000)):
        break
    await turns()
    gc.collect()
    assert [type(about.get("exception")) for about in heard] == [OwnError]


# --- failures ------------------------------------------------------------------------------------


def every_third(prompt: str, number: int) -> Answer:
    return refused(400) if int(prompt) % 3 == 0 else says(prompt)


@virtual
async def test_failures_are_results() -> None:
    """Each request ends, the others go on."""
    results = await collect(client(Served(every_third)).fan_out(numbers(30), concurrency=4))
    assert sorted(result.index for result in results) == list(range(30))
    for result in results:
        assert result.ok == (result.index % 3 > 0) == (result.error is None)
        assert result.ok or isinstance(result.error, StreamChatError)


@virtual
async def test_a_failure_keeps_what_had_arrived() -> None:
    """Attempts, timing and the partial answer are in the result."""

    def script(prompt: str, number: int) -> Answer:
        if number < 3:
            return refused(503)
        return Answer(2.0, b"".join(pieces(plain("one", " two"))[:3]), 1.0)

    (result,) = await collect(client(Served(script)).fan_out(["a"]))
    assert isinstance(result.error, TruncatedStreamError)
    assert result.error.partial is not None
    assert result.error.partial.text == "one"
    assert (result.attempts, result.timing.first_byte) == (3, 1.5)
    assert result.timing.total == 4.5


@pytest.mark.parametrize("ordered", [False, True])
@virtual
async def test_the_first_failure_is_raised_if_asked(ordered: bool) -> None:
    """What completed before it comes first; a note names the request; the rest is cancelled."""

    def script(prompt: str, number: int) -> Answer:
        if prompt == "5":
            return Answer(b'{"message": "no"}', status=400, before_headers=2.5)
        return Answer(body(plain(prompt)), before_headers=1.0 + (int(prompt) > 5) * 50)

    served, source, seen = Served(script), Endless(), list[int]()
    fan = client(served).fan_out(source, concurrency=8, on_error="raise", ordered=ordered)
    with pytest.raises(StreamChatError) as caught:
        async for result in fan:
            seen.append(result.index)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert caught.value.__notes__ == ["raised by request 5 of the fan-out"]
    assert (served.open_now, source.closed, others(), fan.running) == (0, 1, set(), 0)
    assert await anext(fan, None) is None


async def _failing_source() -> AsyncIterator[str]:
    yield "0"
    raise OwnError


@pytest.mark.parametrize("whose", ["source", "request"])
@virtual
async def test_what_is_raised_waits_for_no_collector(whose: str) -> None:
    """No cycle through the exception's traceback: it goes, and all it holds, with its last user."""
    chat = client(Served())

    @chat.on_message_end
    def hear(event: object) -> None:
        if whose == "request":
            raise OwnError

    gone: weakref.ref[BaseException] | None = None
    gc.collect()
    gc.disable()
    try:
        try:
            await collect(chat.fan_out(_failing_source(), on_error="raise"))
        except OwnError as error:
            gone = weakref.ref(error)
        await turns()
        assert gone is not None
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["sync", "async", "at once"])
@virtual
async def test_a_source_that_raises_after_ten(kind: str) -> None:
    """Ten results, then its own exception, unchanged; nothing is left."""
    error = OwnError("the source's own")

    def sync() -> Iterator[str]:
        yield from numbers(10)
        raise error

    async def slow() -> AsyncIterator[str]:
        for number in range(10):
            await asyncio.sleep(0.1)
            yield str(number)
        raise error

    class AtOnce:
        def __aiter__(self) -> AsyncIterator[str]:
            raise error

    source: Any = {"sync": sync, "async": slow, "at once": AtOnce}[kind]()
    seen = set()
    fan = client(Served()).fan_out(source, concurrency=4)
    with pytest.raises(OwnError) as caught:
        async for result in fan:
            seen.add(result.index)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert error.__context__ is None
    assert seen == (set() if kind == "at once" else set(range(10)))
    assert (others(), fan.running, await anext(fan, None)) == (set(), 0, None)


@virtual
async def test_a_source_that_was_cancelled_is_no_end() -> None:
    """A source that waits for a cancelled task raises CancelledError; an end would lose the rest."""

    async def source() -> AsyncIterator[str]:
        yield "0"
        gone = asyncio.ensure_future(asyncio.sleep(10))
        await asyncio.sleep(3)
        gone.cancel()
        await gone
        yield "1"

    seen = []
    with pytest.raises(asyncio.CancelledError):
        async for result in client(Served()).fan_out(source()):
            seen.append(result.index)
    assert seen == [0]


@pytest.mark.parametrize("ordered", [False, True])
@virtual
async def test_a_handler_that_was_cancelled_ends_its_own_request(ordered: bool) -> None:
    """A handler that waits for a cancelled task: one failed result, and the others go on."""
    served = Served()
    chat = client(served)

    @chat.on_content_delta
    async def hear(event: ContentDelta, ctx: Context) -> None:
        if event.text == "3":
            gone = asyncio.ensure_future(asyncio.sleep(10))
            gone.cancel()
            await gone

    results = await collect(chat.fan_out(numbers(40), concurrency=4, ordered=ordered))
    assert sorted(result.index for result in results) == list(range(40))
    (failed,) = [result for result in results if not result.ok]
    assert failed.index == 3
    assert isinstance(failed.error, TransportError)
    assert "CancelledError" in str(failed.error)
    assert failed.error.partial is not None
    assert failed.error.partial.text == "3"
    assert failed.error.__context__ is None
    assert served.open_now == 0


@virtual
async def test_a_handlers_own_exception_is_its_requests_error() -> None:
    """Unwrapped, with the note that names the handler."""
    chat, error = client(Served()), OwnError("the handler's")

    @chat.on_message_end
    async def hear(event: object, ctx: Context) -> None:
        if ctx.index == 2:
            raise error

    results = await collect(chat.fan_out(numbers(6)))
    assert [result.error for result in sorted(results, key=lambda one: one.index)] == (
        [None, None, error, None, None, None]
    )


def test_an_exit_ends_everything() -> None:
    """SystemExit in a handler leaves the loop; what else ran is cancelled."""
    served = Served()

    async def main() -> None:
        chat = client(served)

        @chat.on_message_end
        def leave(event: object, ctx: Context) -> None:
            if ctx.index == 2:
                raise SystemExit(7)

        await collect(chat.fan_out(Endless(), concurrency=4))

    with pytest.raises(SystemExit) as caught:
        run_virtual(main())
    assert caught.value.code == 7
    assert served.open_now == 0


BAD: list[Any] = [
    5,
    None,
    {},
    {"prompt": "x"},
    {"messages": 5},
    {"messages": "x", "colour": "blue"},
    {"messages": "x", "temperature": "hot"},
    {"messages": "x", "handlers": [5]},
    {"messages": "x", "headers": 5},
    {"messages": "x", "headers": {"X-A": "a\r\nb"}},
    {"messages": "x", "timeout": 5},
]


@virtual
async def test_bad_requests_are_results() -> None:
    """What is wrong with one of them is its own error; it was not sent."""
    requests: list[Any] = [*BAD, "good"]
    results = await collect(client(Served()).fan_out(requests, ordered=True))
    assert texts(results) == [*[None] * len(BAD), "good"]
    for result in results[:-1]:
        assert isinstance(result.error, TypeError | ValueError), result
        assert result.attempts == 0
        assert result.request is BAD[result.index]


@virtual
async def test_without_a_model_each_is_an_error() -> None:
    """As of chat_stream."""
    chat = client(Served())
    chat._model = None
    results = await collect(chat.fan_out(["a", {"messages": "b", "model": "m"}], ordered=True))
    assert isinstance(results[0].error, ConfigurationError)
    assert results[1].ok


# --- each request's own --------------------------------------------------------------------------


@virtual
async def test_each_requests_handlers_data_and_index() -> None:
    """The client's handlers, then those for all, then its own; data and index in the context."""
    chat, heard = client(Served()), list[tuple[str, Any, Any]]()

    def named(name: str) -> Dispatcher:
        handlers = Dispatcher()

        @handlers.on_message_end
        def hear(event: object, ctx: Context) -> None:
            heard.append((name, ctx.index, ctx.data))

        return handlers

    chat.include(named("client"))
    requests: list[Any] = [
        {"messages": "a", "handlers": [named("own")], "data": "own data"},
        {"messages": "b"},
        "c",
    ]
    results = await collect(
        chat.fan_out(requests, handlers=[named("all")], data="common", ordered=True, concurrency=1)
    )
    assert heard == [
        ("client", 0, "own data"),
        ("all", 0, "own data"),
        ("own", 0, "own data"),
        ("client", 1, "common"),
        ("all", 1, "common"),
        ("client", 2, "common"),
        ("all", 2, "common"),
    ]
    assert results[0].data == "own data"
    assert (await chat.chat("outside")).text == "outside"
    assert heard[-1] == ("client", None, None)


@virtual
async def test_a_result_has_the_data_that_was_given_for_all() -> None:
    """Also of a request that could not be sent; its own comes first."""

    def start(keywords: Mapping[str, Any], /, **more: Any) -> Any:
        return chat.chat_stream(**{"data": "common", **keywords})

    chat = client(Served())
    options = FanOutOptions(
        concurrency=4,
        is_ordered=True,
        limiter=None,
        on_error="return",
        is_adaptive=False,
        data="common",
    )
    requests: list[Any] = [
        "a",
        {"messages": "b", "data": None},
        {"messages": "c", "data": "own"},
        5,
        {},
    ]
    results = await collect(FanOut(start, requests, options))
    assert [result.data for result in results] == ["common", None, "own", "common", "common"]


@virtual
async def test_a_result_has_the_clients_data() -> None:
    """As it is documented: given with the request, or for all."""
    results = await collect(client(Served()).fan_out(["a", "b"], data="common"))
    assert [result.data for result in results] == ["common", "common"]


@virtual
async def test_a_requests_keywords_win() -> None:
    """Over those given for all; the others count for it too."""
    served = Served()
    requests: list[Any] = [
        "a",
        {"messages": "b", "temperature": 0.9, "model": "own", "headers": {"X-A": "2"}},
    ]
    common: dict[str, Any] = {"temperature": 0.1, "max_tokens": 7, "headers": {"X-A": "1"}}
    assert all(result.ok for result in await collect(client(served).fan_out(requests, **common)))
    sent = {
        prompt: (asked["temperature"], asked["model"], asked["max_tokens"])
        for prompt, asked in served.bodies.items()
    }
    assert sent == {"a": (0.1, "command-test", 7), "b": (0.9, "own", 7)}
    assert [served.headers[prompt]["X-A"] for prompt in "ab"] == ["1", "2"]


@virtual
async def test_headers_show_nowhere() -> None:
    """Not in a repr of anything, nor in a traceback with its local variables."""
    secret = "canary-8f3b"
    own = {"X-Token": f"{secret}-own"}
    requests: list[Any] = [
        {"messages": "bad status", "headers": own},
        {"messages": "good", "headers": own},
        {"messages": "unknown keyword", "headers": own, "colour": "blue"},
        {"messages": "bad value", "headers": {**own, "X-B": "\n"}},
        {"headers": own},
        "without",
    ]
    served = Served(lambda prompt, _: refused(400) if "bad" in prompt else says(prompt))
    chat = client(served)
    fan = chat.fan_out(iter(requests), headers={"X-All": f"{secret}-all"}, ordered=True)
    results = await collect(fan)
    assert served.headers["good"]["X-Token"] == f"{secret}-own"
    assert served.headers["without"]["X-All"] == f"{secret}-all"
    assert [result.ok for result in results] == [False, True, False, False, False, True]
    shown = [repr(fan), repr(results), repr(chat)]
    for result in results:
        if result.error is not None:
            shown += [str(result.error), repr(result.error)]
            found = traceback.TracebackException.from_exception(result.error, capture_locals=True)
            shown += found.format()
    raising = chat.fan_out(
        ({"messages": "bad", "headers": own} for _ in range(3)), retry=ONCE, on_error="raise"
    )
    with pytest.raises(StreamChatError) as caught:
        await collect(raising)
    rendered = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown += [  # the test's own frame has the requests, which are the caller's
        str(line) for line in rendered.format() if __file__ not in str(line)
    ]
    assert secret not in "".join(shown)


# --- who consumes --------------------------------------------------------------------------------


@virtual
async def test_a_second_consumer_is_refused() -> None:
    """While the first waits; it goes on undisturbed."""
    fan = client(Served()).fan_out(numbers(5))
    first = asyncio.ensure_future(collect(fan))
    await turns(3)
    with pytest.raises(ConcurrencyError):
        await anext(fan)
    assert len(await first) == 5


@virtual
async def test_two_fan_outs_of_one_client_at_once() -> None:
    """Each has its own requests, positions and limits."""
    served = Served()
    chat = client(served)
    first, second = await asyncio.gather(
        collect(chat.fan_out([f"a{n}" for n in range(30)], concurrency=3, ordered=True)),
        collect(chat.fan_out([f"b{n}" for n in range(30)], concurrency=5, ordered=True)),
    )
    assert texts(first) == [f"a{n}" for n in range(30)]
    assert texts(second) == [f"b{n}" for n in range(30)]
    assert served.most == 8


@virtual
async def test_closing_wakes_a_consumer_that_waits() -> None:
    """Its iteration ends; closing twice, and from two tasks, is nothing."""
    served = Served(in_turn(dict.fromkeys(numbers(9), 1000.0)))
    fan = client(served).fan_out(numbers(9), concurrency=4)
    consumer = asyncio.ensure_future(collect(fan))
    await asyncio.sleep(3)
    assert served.open_now == 4
    await asyncio.gather(fan.aclose(), fan.aclose())
    assert await consumer == []
    assert (served.open_now, others(), asyncio.get_running_loop().time()) == (0, set(), 3)


@virtual
async def test_a_handler_may_close_the_fan_out() -> None:
    """From within one of its own requests."""
    served, source = Served(), Endless()
    chat = client(served)
    fan = chat.fan_out(source, concurrency=4)

    @chat.on_message_end
    async def leave(event: object, ctx: Context) -> None:
        if ctx.index == 6:
            await fan.aclose()

    assert len(await collect(fan)) <= 8
    await turns()
    assert (served.open_now, source.closed, others()) == (0, 1, set())


class _CancelledAt:
    """Runs a coroutine and cancels its task when it is suspended for the n-th time."""

    def __init__(self, work: Any, at: int) -> None:
        self.work, self.at, self.count = work, at, 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.work.__await__()
        step: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            try:
                waits_for = step()
            except StopIteration as end:
                return end.value
            self.count += 1
            if self.count == self.at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waits_for
            except BaseException as error:
                thrown = error
                step = lambda: steps.throw(thrown)  # noqa: B023,E731
            else:
                step = lambda: next(steps)  # noqa: E731


async def iterates(chat: Client, source: Any) -> None:
    async for _ in chat.fan_out(source, concurrency=3):
        await asyncio.sleep(0.25)


async def enters(chat: Client, source: Any) -> None:
    async with chat.fan_out(source, concurrency=3, ordered=True) as fan:
        async for result in fan:
            await asyncio.sleep(0.25)
            if result.index == 8:
                break


async def raises(chat: Client, source: Any) -> None:
    async for result in chat.fan_out(source, concurrency=3, on_error="raise"):
        await asyncio.sleep(0.25)
        assert result.index < 20


async def limited(chat: Client, source: Any) -> None:
    limiter = Limiter(rpm=120, clock=asyncio.get_running_loop().time)
    async for _ in chat.fan_out(source, concurrency=3, limiter=limiter, adaptive=True):
        await asyncio.sleep(0.25)


@pytest.mark.parametrize("consume", [iterates, enters, raises, limited])
def test_cancelled_at_every_await(consume: Callable[[Client, Any], Any]) -> None:
    """Whenever the consumer is cancelled: CancelledError, connections and source closed, no task left."""

    def script(prompt: str, number: int) -> Answer:
        if prompt == "4" and number == 1:
            return refused(503)
        if prompt == "10":
            return refused(400)
        return Answer(0.5, body(plain(prompt)), 0.5, before_headers=1.0 + int(prompt) % 3)

    class Source(Endless):
        async def __aiter__(self) -> AsyncIterator[str]:
            try:
                for number in range(12):
                    await asyncio.sleep(0.1)
                    yield str(number)
            finally:
                await asyncio.sleep(0)
                self.closed += 1

    async def scenario(at: int) -> bool:
        served, source = Served(script), Source()
        chat = client(served)
        work = _CancelledAt(consume(chat, source), at)

        async def consumer() -> None:
            await work

        task = asyncio.ensure_future(consumer())
        await asyncio.wait([task])
        if task.cancelled():
            await turns()
            assert (served.open_now, others()) == (0, set()), at
            assert source.closed <= 1
            assert source.closed or not served.opened_at, at
            return True
        assert work.count < at
        error = task.exception()
        assert (error is None) == (consume is not raises), error
        return False

    outcomes = [run_virtual(scenario(at)) for at in range(1, 60)]
    first_end = outcomes.index(False)
    assert first_end > 12
    assert not any(outcomes[first_end:])


@pytest.mark.parametrize("adaptive", [False, True])
@virtual
async def test_the_client_is_closed_while_it_runs(adaptive: bool) -> None:
    """Each request ends as an error, those in backoff and in the limiter's queue too."""

    def script(prompt: str, number: int) -> Answer:
        if int(prompt) % 2:
            return refused(503, retry_after="50")
        return Answer(body(plain(prompt))[:100], 1000.0, before_headers=1.0)

    served = Served(script)
    chat = client(served)
    limiter = Limiter(rpm=60, clock=asyncio.get_running_loop().time)
    fan = chat.fan_out(numbers(20), concurrency=20, limiter=limiter, adaptive=adaptive)
    running = asyncio.ensure_future(collect(fan))
    await asyncio.sleep(10)
    assert 5 < len(served.opened_at) < 15
    await chat.aclose()
    results = await running
    assert asyncio.get_running_loop().time() == 10
    assert sorted(result.index for result in results) == list(range(20))
    for result in results:
        assert isinstance(result.error, TransportError)
        assert result.error.kind == "closed"
    assert (served.open_now, limiter.waiting) == (0, 0)


# --- limits --------------------------------------------------------------------------------------


@virtual
async def test_no_more_than_max_connections() -> None:
    """More would wait in the pool, where their time runs."""
    served = Served(max_connections=3)
    source = Endless()
    async with client(served).fan_out(source, concurrency=8) as fan:
        for _ in range(30):
            await anext(fan)
    assert served.most == 3
    assert source.pulled <= 33


@pytest.mark.parametrize(("limit", "most"), [(3, 3), (0, 8), (100, 8)])
async def test_no_more_than_a_session_of_ones_own_allows(limit: int, most: int) -> None:
    """Its connector's limit counts like max_connections."""
    together = seen = 0

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        nonlocal together, seen
        together += 1
        seen = max(seen, together)
        await asyncio.sleep(0.01)
        together -= 1
        writer.write(whole_answer())

    async with (
        serve(reply) as wire,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session,
        Client("k", base_url=wire.url, model="m", session=session) as chat,
    ):
        source = Endless()
        async with chat.fan_out(source, concurrency=8) as fan:
            for _ in range(40):
                assert (await anext(fan)).ok
        assert source.pulled <= 40 + most
    assert seen == most


@virtual
async def test_adaptive_halves_after_a_429_and_grows_slowly() -> None:
    """One halving for all that were on their way; then one more after as many successes as run."""
    refusing, running = True, list[tuple[float, int]]()
    clock = asyncio.get_running_loop().time

    def script(prompt: str, number: int) -> Answer:
        running.append((clock(), served.open_now))
        answer = refused(429) if refusing and int(prompt) >= 16 else says(prompt)
        answer.before_headers = 1.0 + int(prompt) / 1000
        return answer

    served, failed = Served(script), 0
    async with client(served).fan_out(Endless(), concurrency=16, adaptive=True, retry=ONCE) as fan:
        for _ in range(300):
            failed += not (await anext(fan)).ok
            refusing = refusing and failed < 10
    assert 16 <= failed <= 40
    before = [most for time, most in running if time < 2]
    assert max(before) == 16
    after = [max(most for time, most in running if a < time < b) for a, b in ((2.5, 3.9), (8, 10))]
    assert after[0] <= 8
    assert after[0] < after[1] < 16


@virtual
async def test_every_try_has_its_turn_at_the_limiter() -> None:
    """60 a minute are one a second, second tries included."""

    def script(prompt: str, number: int) -> Answer:
        return refused(503) if number < 3 else says(prompt)

    served = Served(script)
    limiter = Limiter(rpm=60, clock=asyncio.get_running_loop().time)
    results = await collect(client(served).fan_out(numbers(10), limiter=limiter))
    assert all(result.ok and result.attempts == 3 for result in results)
    times = [time for time, _ in served.opened_at]
    assert len(times) == 30
    # Half a second of delay may be made up for.
    assert all(later - earlier >= 0.49 for earlier, later in itertools.pairwise(times))
    assert 28.5 <= times[-1] <= 35


@pytest.mark.parametrize(("says_usage", "least", "most"), [(True, 0, 15), (False, 45, 60)])
@virtual
async def test_tokens_are_settled_from_usage(says_usage: bool, least: int, most: int) -> None:
    """An answer of 8 tokens gives back what was estimated above; without a word it counts in full."""
    end = plain("a")[:-1]

    def script(prompt: str, number: int) -> Answer:
        said = body(plain("a"))
        if not says_usage:
            last = b'data: {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}\n\n'
            said = body(end, done=False) + last
        return Answer(said, before_headers=1.0)

    clock = asyncio.get_running_loop().time
    limiter = Limiter(tpm=6000, clock=clock)
    fan = client(Served(script)).fan_out(numbers(10), concurrency=1, limiter=limiter)
    assert all(result.ok for result in await collect(fan))
    assert least <= clock() <= most


@pytest.mark.parametrize("tokens", ["-5", "1e999", "-1e999"])
@virtual
async def test_a_server_that_counts_nonsense(tokens: str) -> None:
    """It costs nobody the result."""
    said = (
        body(plain("a")[:-1], done=False)
        + b'data: {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": '
        b'{"input_tokens": %b}}}}\n\n' % tokens.encode()
    )
    served = Served(lambda prompt, number: Answer(said))
    limiter = Limiter(tpm=1_000_000, clock=asyncio.get_running_loop().time)
    results = await collect(client(served).fan_out(numbers(5), concurrency=2, limiter=limiter))
    assert sorted(result.index for result in results) == list(range(5))
    assert all(result.ok or isinstance(result.error, StreamChatError) for result in results)


@virtual
async def test_more_tokens_than_the_limit_is_that_requests_error() -> None:
    """It would wait for ever."""
    limiter = Limiter(tpm=1000, clock=asyncio.get_running_loop().time)
    requests: list[Any] = [
        {"messages": "a", "max_tokens": 5000},
        {"messages": "b", "max_tokens": 5},
    ]
    results = await collect(client(Served()).fan_out(requests, limiter=limiter, ordered=True))
    assert isinstance(results[0].error, ValueError)
    assert "max_tokens" in str(results[0].error)
    assert texts(results) == [None, "b"]


@pytest.mark.parametrize(("headers", "seconds"), [({"retry_after": "30"}, 30), ({}, 1)])
@virtual
async def test_a_429_pauses_all(headers: dict[str, str], seconds: int) -> None:
    """Nobody behind the limiter is sent meanwhile, other fan-outs included."""
    refused_at = list[float]()
    clock = asyncio.get_running_loop().time

    def script(prompt: str, number: int) -> Answer:
        if prompt == "20" and number == 1:
            refused_at.append(clock())
            return refused(429, **headers)
        return says(prompt)

    limiter = Limiter(rpm=600, clock=clock)
    served, other = Served(script), Served()
    first, second = await asyncio.gather(
        collect(client(served).fan_out(numbers(40), concurrency=8, limiter=limiter)),
        collect(client(other).fan_out(numbers(100), concurrency=8, limiter=limiter)),
    )
    assert all(result.ok for result in (*first, *second))
    assert [result.attempts for result in first if result.index == 20] == [2]
    (at,) = refused_at
    times = sorted(time for time, _ in (*served.opened_at, *other.opened_at))
    # It is refused and known in the same moment; who was admitted in it may just have gone.
    assert not [time for time in times if at < time < at + seconds]
    assert times[-1] > at + seconds


@virtual
async def test_a_last_429_is_an_error_of_its_kind() -> None:
    """Tried as often as retries allow."""
    served = Served(lambda prompt, number: refused(429) if prompt == "1" else says(prompt))
    results = await collect(client(served).fan_out(numbers(3), ordered=True))
    assert [result.ok for result in results] == [True, False, True]
    assert isinstance(results[1].error, RateLimitError)
    assert (results[1].attempts, served.tries["1"]) == (3, 3)


@virtual
async def test_a_refusal_of_another_kind_pauses_nobody() -> None:
    """A 503 is that request's own affair."""

    def script(prompt: str, number: int) -> Answer:
        return refused(503, retry_after="20") if prompt == "0" and number == 1 else says(prompt)

    clock = asyncio.get_running_loop().time
    served = Served(script)
    limiter = Limiter(rpm=6000, clock=clock)
    results = await collect(client(served).fan_out(numbers(10), limiter=limiter, adaptive=True))
    assert all(result.ok for result in results)
    assert [prompt for time, prompt in served.opened_at if time > 5] == ["0"]
    assert not any(isinstance(result.error, ServerError) for result in results)


@virtual
async def test_a_notebook_shows_an_answer_or_an_error() -> None:
    """The class of the error and its words, which are not Markdown."""
    served = Served(lambda prompt, number: refused(422) if prompt == "1" else says("*Yes*"))
    answered, failed = await collect(client(served).fan_out(numbers(2), ordered=True))
    assert answered._repr_markdown_().startswith("**Request 0**\n\n*Yes*")
    assert failed._repr_markdown_().startswith("**Request 1**\n\n**UnprocessableEntityError**: ")
