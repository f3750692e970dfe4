"""Middleware: what stands between the wire and the handlers, and what stands around a request."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import attrs
import pytest

from streamchat import (
    AuthenticationError,
    ChatRequest,
    ChatStream,
    Client,
    ConcurrencyError,
    ConnectError,
    ContentDelta,
    ContentEnd,
    Context,
    Dispatcher,
    Event,
    GenerationError,
    MessageEnd,
    MessageStart,
    Retry,
    Send,
    StepStart,
    StreamChatError,
    Timeout,
    TransportError,
    TruncatedStreamError,
    UnknownEvent,
)
from streamchat.credentials import reveal
from streamchat.transport import Transport
from tests.fakes import Answer, FakeTransport, make_stream
from tests.frames import body, failed, pieces, plain, thinking
from tests.virtual import run_virtual

EXTRA = UnknownEvent("x-extra", {"type": "x-extra"})


def client_over(*script: Answer | StreamChatError, **options: Any) -> tuple[Client, FakeTransport]:
    """A client whose transport is in memory, and that transport."""
    transport = FakeTransport(*script)
    transport.is_open = False  # type: ignore[attr-defined]  # a client asks when it is dropped
    client = Client("k", base_url="https://api.test", model="command-test", **options)
    client._transport = cast(Transport, transport)
    return client, transport


async def collect(stream: ChatStream) -> list[Event]:
    return [event async for event in stream]


# --- around events: map, drop, insert ------------------------------------------------------------


def louder(event: Event) -> Event:
    return ContentDelta(event.text.upper(), event.index) if is_delta(event) else event


def is_delta(event: object) -> bool:
    return isinstance(event, ContentDelta)


def swapped(*pairs: tuple[type, Any]) -> list[Event]:
    """The plain answer "a", "b" with what each class of event becomes."""
    table = dict(pairs)
    changed: list[Event] = []
    for event in plain("a", "b"):
        changed += table[type(event)](event) if type(event) in table else [event]
    return changed


CHANGES: dict[str, tuple[Callable[[Event], Any], list[Event]]] = {
    "as it was": (lambda e: e, plain("a", "b")),
    "another one": (louder, plain("A", "B")),
    "none": (lambda e: None if is_delta(e) else e, swapped((ContentDelta, lambda e: []))),
    "an empty list": (lambda e: [] if is_delta(e) else e, swapped((ContentDelta, lambda e: []))),
    "none of all": (lambda e: None, []),
    "one more before": (
        lambda e: [EXTRA, e] if is_delta(e) else e,
        swapped((ContentDelta, lambda e: [EXTRA, e])),
    ),
    "one more behind": (
        lambda e: [e, EXTRA] if isinstance(e, MessageEnd) else e,
        swapped((MessageEnd, lambda e: [e, EXTRA])),
    ),
    "one more in front of all": (
        lambda e: (EXTRA, e) if isinstance(e, MessageStart) else e,
        swapped((MessageStart, lambda e: [EXTRA, e])),
    ),
    "three for one": (
        lambda e: [e, e, e] if is_delta(e) else e,
        swapped((ContentDelta, lambda e: [e, e, e])),
    ),
}


def _plain(change: Callable[[Event], Any]) -> Any:
    return lambda event: change(event)


def _with_context(change: Callable[[Event], Any]) -> Any:
    def middleware(event: Event, ctx: Context) -> Any:
        assert ctx.request.model == "command-test"
        return change(event)

    return middleware


def _async(change: Callable[[Event], Any]) -> Any:
    async def middleware(event: Event) -> Any:
        await asyncio.sleep(1)
        return change(event)

    return middleware


def _async_with_context(change: Callable[[Event], Any]) -> Any:
    async def middleware(event: Event, ctx: Context) -> Any:
        await asyncio.sleep(1)
        assert ctx.stream.status == 200
        return change(event)

    return middleware


def _returns_awaitable(change: Callable[[Event], Any]) -> Any:
    waiting = _async(change)
    return lambda event: waiting(event)


FLAVOURS = [_plain, _with_context, _async, _async_with_context, _returns_awaitable]


@pytest.mark.parametrize("together", [True, False], ids=["one chunk", "a chunk an event"])
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", CHANGES)
async def test_handlers_and_iterators_get_what_the_middleware_makes_of_it(
    name: str, flavour: Any, together: bool
) -> None:
    """Mapped, dropped, inserted: the same to both, in the same order; the answer is untouched."""
    change, expected = CHANGES[name]
    sent = [body(plain("a", "b"))] if together else pieces(plain("a", "b"))
    answer = Answer(*sent)
    stream, heard = make_stream(answer), []
    stream.event_middleware(flavour(change))
    stream.on_event(heard.append)
    seen = await collect(stream)
    assert seen == heard == expected
    assert stream.snapshot.text == (await stream).text == "ab"
    assert answer.drained


@pytest.mark.parametrize("name", CHANGES)
async def test_awaiting_runs_the_middleware_and_returns_what_the_server_said(name: str) -> None:
    """`await stream`: handlers hear the changed events, the response is the server's."""
    change, expected = CHANGES[name]
    stream, heard = make_stream(Answer(body(plain("a", "b")))), []
    stream.event_middleware(change)
    stream.on_event(heard.append)
    assert (await stream).to_dict() == (await make_stream(Answer(body(plain("a", "b"))))).to_dict()
    assert heard == expected


async def test_the_snapshot_is_the_servers_at_every_moment() -> None:
    """Not what the middleware leaves of it, and this event included."""
    stream, seen = make_stream(Answer(*pieces(plain("a", "b")))), []

    @stream.event_middleware
    def redact(event: Event, ctx: Context) -> Event:
        seen.append(("middleware", ctx.snapshot.text))
        return ContentDelta("***") if isinstance(event, ContentDelta) else event

    @stream.on_content_delta
    def look(event: ContentDelta, ctx: Context) -> None:
        seen.append((event.text, ctx.snapshot.text))

    ends: list[str] = []
    stream.on_message_end(lambda event: ends.append(event.response.text))
    await stream
    assert [each for each in seen if each[0] != "middleware"] == [("***", "a"), ("***", "ab")]
    assert [text for name, text in seen if name == "middleware"] == ["", "", "a", "ab", "ab", "ab"]
    assert ends == ["ab"]


async def test_text_and_thinking_are_pieces_of_what_the_middleware_leaves() -> None:
    """A redacted text is redacted in every way to iterate over it."""

    def redact(event: Event) -> Any:
        if isinstance(event, ContentDelta) and event.kind == "text":
            return [ContentDelta("<", event.index), ContentDelta(">", event.index)]
        return None if isinstance(event, ContentDelta) and event.thinking == "Let" else event

    for kind, expected in (("text", ["<", ">"] * 2), ("thinking", [" me see"])):
        stream = make_stream(Answer(*pieces(thinking())))
        stream.event_middleware(redact)
        assert [piece async for piece in getattr(stream, kind)()] == expected


async def test_several_run_in_the_order_of_registration_each_on_what_the_one_before_left() -> None:
    """Client, handlers=, stream; what one inserts goes through the later ones alone."""
    client, _ = client_over(Answer(body(plain("a"))))
    one, inner = Dispatcher(), Dispatcher()
    stream = client.chat_stream("Hi", handlers=[one])

    def tag(name: str) -> Any:
        def middleware(event: Event) -> Any:
            return ContentDelta(event.text + name) if isinstance(event, ContentDelta) else event

        return middleware

    def double(event: Event) -> Any:
        return [event, ContentDelta("new")] if isinstance(event, ContentDelta) else event

    stream.event_middleware(tag("4"))
    one.event_middleware(double)
    one.include(inner)
    one.event_middleware(tag("3"))
    inner.event_middleware(tag("2"))
    client.event_middleware(tag("1"))
    texts = [event.text async for event in stream if isinstance(event, ContentDelta)]
    assert texts == ["a1234", "new234"]


async def test_a_dropped_event_is_not_shown_to_those_behind() -> None:
    """Nor to handlers with once=, which are not spent by it."""
    stream, behind, first = make_stream(Answer(body(plain("a", "b")))), [], []
    stream.event_middleware(lambda e: None if e == ContentDelta("a") else e)
    stream.event_middleware(lambda e: behind.append(e) or e)
    stream.on_content_delta(once=True)(first.append)
    await stream
    assert ContentDelta("a") not in behind
    assert first == [ContentDelta("b")]


async def test_an_end_that_is_handed_on_keeps_what_it_ended() -> None:
    """Handed on as it is, an end event is complete behind the middleware too."""
    stream, ends = make_stream(Answer(body(plain("a")))), []
    stream.event_middleware(lambda e: [e, EXTRA] if isinstance(e, ContentEnd) else e)
    stream.on_content_end(lambda event: ends.append(event.content.text))
    stream.on_message_end(lambda event: ends.append(event.response.text))
    await stream
    assert ends == ["a", "a"]


async def test_an_end_that_is_evolved_keeps_what_it_ended() -> None:
    """attrs.evolve is how a mapped event is made."""
    stream = make_stream(Answer(body(plain("a"))))
    stream.event_middleware(
        lambda e: attrs.evolve(e, finish_reason="MAPPED") if isinstance(e, MessageEnd) else e
    )
    ends = [event async for event in stream if isinstance(event, MessageEnd)]
    assert (ends[0].finish_reason, ends[0].response.text) == ("MAPPED", "a")


async def test_each_event_is_handled_before_the_next_is_handed_out() -> None:
    """Inserted ones too: handlers and iterator alternate event by event."""
    stream, log = make_stream(Answer(body(plain("a", "b")))), []
    stream.event_middleware(lambda e: [e, EXTRA] if is_delta(e) else None)
    stream.on_event(lambda event: log.append(f"handler {event.type}"))
    async for event in stream:
        log.append(f"iterator {event.type}")
    assert log == [
        f"{who} {kind}"
        for kind in ("content-delta", "x-extra") * 2
        for who in ("handler", "iterator")
    ]


async def test_middleware_is_fixed_when_the_first_event_comes() -> None:
    """What is registered during a stream concerns the next one; on the stream it is refused."""
    dispatcher = Dispatcher()

    @dispatcher.on_message_start(once=True)
    def register(event: MessageStart, ctx: Context) -> None:
        dispatcher.event_middleware(lambda event: None)
        with pytest.raises(RuntimeError, match="before you consume"):
            cast(ChatStream, ctx.stream).event_middleware(louder)

    assert await collect(make_stream(Answer(body(plain())), handlers=[dispatcher])) == plain()
    assert await collect(make_stream(Answer(body(plain())), handlers=[dispatcher])) == []


async def test_middleware_may_be_registered_after_the_stream_was_entered() -> None:
    """`async with` waits for the first event, which no one has seen yet."""
    async with make_stream(Answer(body(plain("a")))) as stream:
        stream.event_middleware(louder)
        assert await collect(stream) == plain("A")


async def test_raw_frames_go_through_no_middleware() -> None:
    """frames() is the wire."""
    stream = make_stream(Answer(body(plain())))
    stream.event_middleware(lambda event: pytest.fail("called"))
    frames = [frame.event async for frame in stream.frames()]
    assert frames == [*(event.type for event in plain()), "message"]


async def test_frames_go_on_where_events_were_left() -> None:
    """As they do without middleware."""
    stream = make_stream(Answer(*pieces(plain())))
    stream.event_middleware(lambda event: event)
    await anext(stream)
    assert len([frame async for frame in stream.frames()]) == len(plain())


async def test_events_behind_frames_go_through_the_middleware() -> None:
    """What is to be redacted stays redacted: handlers run then, so middleware must too."""
    stream = make_stream(Answer(*pieces(plain("secret"))))
    stream.event_middleware(lambda event: None if is_delta(event) else event)
    await anext(stream.frames())
    assert not any(is_delta(event) for event in await collect(stream))


# --- around events: failures ---------------------------------------------------------------------


def broken_at(text: str) -> Callable[[Event], Event]:
    def broken(event: Event) -> Event:
        if isinstance(event, ContentDelta) and event.text == text:
            raise ValueError(text)
        return event

    return broken


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_failure_stops_the_stream_unwrapped_with_a_note(flavour: Any) -> None:
    """Like a handler's: what came before is delivered, the connection is closed."""
    answer = Answer(body(plain("a", "b", "c")))
    stream, seen = make_stream(answer), []
    stream.event_middleware(flavour(broken_at("b")))
    with pytest.raises(ValueError, match="b") as caught:
        async for event in stream:
            seen.append(event)
    assert seen == plain("a", "b", "c")[:3]
    [note] = caught.value.__notes__
    assert note.startswith("raised by event middleware ")
    assert note.endswith(" for a content-delta event")
    assert answer.closed
    with pytest.raises(TransportError, match="stopped by ValueError"):
        await stream


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_after_on_error_returned_true_the_event_goes_on_as_it_was(flavour: Any) -> None:
    """Through the middleware behind, to handlers and iterator."""
    stream, errors, heard = make_stream(Answer(body(plain("a", "b")))), [], []
    stream.event_middleware(flavour(broken_at("b")))
    stream.event_middleware(louder)
    stream.on_event(heard.append)
    stream.on_error(ValueError)(lambda error: errors.append(str(error)) or True)
    assert await collect(stream) == heard == plain("A", "B")
    assert errors == ["b"]


async def test_a_failure_for_one_of_several_loses_none_of_the_others() -> None:
    """The one goes on as it was, at its place."""
    stream = make_stream(Answer(body(plain("a"))))
    stream.event_middleware(
        lambda e: [ContentDelta("x"), ContentDelta("y"), ContentDelta("z")] if is_delta(e) else e
    )
    stream.event_middleware(broken_at("y"))
    stream.event_middleware(louder)
    stream.on_error()(lambda error: True)
    assert await collect(stream) == plain("X", "Y", "Z")


@pytest.mark.parametrize("result", [False, None, 1])
async def test_anything_but_true_does_not_recover(result: Any) -> None:
    """As for handlers."""
    stream, told = make_stream(Answer(body(plain("b")))), []
    stream.event_middleware(broken_at("b"))
    stream.on_error()(lambda error: told.append(error) or result)
    with pytest.raises(ValueError, match="b"):
        await stream
    assert len(told) == 1


def _a_generator() -> Iterator[Event]:
    yield EXTRA


class _Delta(ContentDelta):
    """A class that no handler is registered for."""


WRONG: dict[str, Any] = {
    "bool": True,
    "text": "text",
    "dict": {"type": "content-delta"},
    "class": ContentDelta,
    "list of none": [None],
    "list with something else": [EXTRA, "text"],
    "list in a list": [[EXTRA]],
    "generator": _a_generator(),
    "set": frozenset(),
    "subclass of an event": _Delta("x"),
}


@pytest.mark.parametrize("recovers", [True, False])
@pytest.mark.parametrize("name", WRONG)
async def test_something_else_than_events_is_refused(name: str, recovers: bool) -> None:
    """A TypeError that names the middleware; nothing of it is delivered."""
    stream = make_stream(Answer(body(plain("a"))))

    @stream.event_middleware
    def confused(event: Event) -> Any:
        return WRONG[name] if is_delta(event) else event

    if recovers:
        stream.on_error(TypeError)(lambda error: True)
        assert await collect(stream) == plain("a")
        return
    with pytest.raises(TypeError, match=r"event middleware .*confused returned a \w+; it must"):
        await collect(stream)


async def test_an_event_of_a_tool_run_is_no_event_of_a_stream() -> None:
    """It is refused like anything else; it is in no Event."""
    stream = make_stream(Answer(body(plain("a"))))
    stream.event_middleware(lambda event: StepStart(1, stream.request))
    with pytest.raises(TypeError, match="returned a StepStart"):
        await collect(stream)


async def test_stop_async_iteration_of_middleware_does_not_end_the_answer() -> None:
    """It would look complete."""
    stream = make_stream(Answer(body(plain("a"))))

    @stream.event_middleware
    def exhausted(event: Event) -> Event:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match=r"event middleware .*exhausted raised StopAsync"):
        await collect(stream)


async def test_a_failed_answer_fails_although_its_end_was_dropped() -> None:
    """And a complete one is complete."""
    stream = make_stream(Answer(body(failed())))
    stream.event_middleware(lambda event: None)
    with pytest.raises(GenerationError) as caught:
        await collect(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.tool_plan == "I will"


def _as_list(result: Any) -> Sequence[Any]:
    return result if isinstance(result, list | tuple) else [result] if result else []


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("together", [True, False])
async def test_errors_count_the_events_of_the_wire(name: str, together: bool) -> None:
    """error.events is what was received, whatever the middleware made of it."""
    change, expected = CHANGES[name]
    sent = [b": comment\n\n", *pieces(plain("a", "b"))[:4], b": comment\n\n"]
    stream, heard = make_stream(Answer(*([b"".join(sent)] if together else sent))), []
    stream.event_middleware(change)
    stream.on_event(heard.append)
    with pytest.raises(TruncatedStreamError) as caught:
        await stream
    assert caught.value.events == 4
    assert caught.value.partial is not None
    assert caught.value.partial.text == "ab"
    lost = sum(len(_as_list(change(event))) for event in plain("a", "b")[4:])
    assert heard == expected[: len(expected) - lost]


# --- around events: closing, cancelling, two consumers -------------------------------------------


async def test_a_handler_may_close_the_stream_in_the_middle_of_inserted_events() -> None:
    """It ends behind that event: the inserted ones that are left are not delivered."""
    answer, heard, seen = Answer(body(plain("a", "b"))), [], []
    stream = make_stream(answer)
    stream.event_middleware(lambda e: [e, EXTRA, e] if is_delta(e) else e)

    @stream.on_event
    async def close(event: Event, ctx: Context) -> None:
        heard.append(event)
        if event is EXTRA:
            await ctx.stream.aclose()

    with pytest.raises(TransportError, match="closed") as caught:
        async for event in stream:
            seen.append(event)
    assert seen == heard == [*plain("a", "b")[:3], EXTRA]
    assert (caught.value.kind, caught.value.events) == ("closed", 3)
    assert answer.closed


async def test_middleware_may_close_the_stream() -> None:
    """The event it was called for is the last."""
    answer, seen = Answer(body(plain("a", "b"))), []
    stream = make_stream(answer)

    @stream.event_middleware
    async def enough(event: Event, ctx: Context) -> Event:
        if is_delta(event):
            await ctx.stream.aclose()
        return event

    with pytest.raises(TransportError, match="closed"):
        async for event in stream:
            seen.append(event)
    assert seen == plain("a", "b")[:3]
    assert answer.closed


async def test_closing_from_another_task_ends_a_stream_that_waits_in_its_middleware() -> None:
    """The event in work is the last."""
    answer, seen = Answer(body(plain("a", "b"))), []
    stream = make_stream(answer)

    @stream.event_middleware
    async def slow(event: Event) -> Event:
        await asyncio.sleep(10)
        return event

    async def read() -> None:
        async for event in stream:
            seen.append(event)

    running = asyncio.ensure_future(read())
    await asyncio.sleep(25)
    await stream.aclose()
    assert answer.closed
    with pytest.raises(TransportError, match="closed"):
        await running
    assert seen == plain("a", "b")[:3]


async def test_a_consumer_that_leaves_among_inserted_events_closes_the_connection() -> None:
    """break in `async with`."""
    answer = Answer(*pieces(plain("a", "b")))
    async with make_stream(answer) as stream:
        stream.event_middleware(lambda e: [e, EXTRA, e])
        async for event in stream:
            if event is EXTRA:
                break
    assert answer.closed
    with pytest.raises(TransportError, match="closed"):
        await anext(stream)


async def test_a_dropped_stream_closes_and_warns() -> None:
    """At once: nothing of the middleware keeps it."""
    answer = Answer(*pieces(plain()))
    stream = make_stream(answer)
    stream.event_middleware(lambda event, ctx: [event, EXTRA])
    await anext(stream)
    with pytest.warns(ResourceWarning, match="was dropped"):
        del stream
    assert answer.closed


async def test_a_second_consumer_is_refused_while_middleware_or_its_handlers_run() -> None:
    """And the first goes on undisturbed."""
    stream = make_stream(Answer(body(plain("a"))))

    @stream.event_middleware
    async def slow(event: Event) -> list[Event]:
        await asyncio.sleep(10)
        return [event, event]

    @stream.on_event
    async def slower(event: Event) -> None:
        await asyncio.sleep(10)

    first = asyncio.ensure_future(collect(stream))
    for _ in range(4):  # in the middleware, in the handlers of both, and in the middleware again
        await asyncio.sleep(8)
        for consume in (lambda: anext(stream), lambda: stream._run(), stream.__aenter__):
            with pytest.raises(ConcurrencyError):
                await consume()
    assert await first == [event for event in plain("a") for _ in range(2)]


@pytest.mark.parametrize("where", ["event_middleware", "on_event"])
async def test_neither_middleware_nor_handlers_behind_it_can_consume_their_stream(
    where: str,
) -> None:
    """It would deadlock."""
    stream = make_stream(Answer(body(plain())))
    stream.event_middleware(lambda event: event)

    async def nested(event: Event) -> Any:
        return await anext(stream)

    getattr(stream, where)(nested)
    with pytest.raises(ConcurrencyError):
        await stream


def test_cancelling_at_every_suspension_closes_the_connection() -> None:
    """In middleware, in handlers behind it, between inserted events, and while waiting."""

    async def scenario(cancel_at: float) -> bool:
        answer = Answer(*(x for piece in pieces(plain("a", "b")) for x in (1.0, piece)))
        stream, told = make_stream(answer), []

        @stream.event_middleware
        async def slow(event: Event) -> list[Event]:
            await asyncio.sleep(1)
            return [event, event]

        @stream.on_content_delta
        async def slower(event: ContentDelta) -> None:
            await asyncio.sleep(1)

        stream.on_error()(told.append)
        task = asyncio.ensure_future(collect(stream))
        await asyncio.sleep(cancel_at)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert answer.closed or not answer.bytes_received
            assert stream._state() == "closed"
            assert not told
            return True
        return False

    outcomes = [run_virtual(scenario(moment / 4)) for moment in range(1, 76)]
    assert outcomes.count(True) > 50
    assert not outcomes[-1], "the last moments are after the end"


async def test_slow_middleware_is_not_an_idle_server() -> None:
    """The idle limit does not run while it works."""
    stream = make_stream(
        Answer(*(x for piece in pieces(plain("a", "b")) for x in (1.0, piece))),
        timeout=Timeout(idle=5),
    )

    @stream.event_middleware
    async def slow(event: Event) -> Event:
        await asyncio.sleep(100)
        return event

    assert await collect(stream) == plain("a", "b")


# --- around events: registration -----------------------------------------------------------------


def _none() -> None: ...
def _three(a: Any, b: Any, c: Any) -> None: ...
def _generator(event: Any) -> Any:
    yield event


async def _async_generator(event: Any) -> Any:
    yield event


@pytest.mark.parametrize("function", [_none, _three, _generator, _async_generator, "text", None])
def test_event_middleware_of_the_wrong_shape_is_refused(function: Any) -> None:
    """At registration, by name."""
    with pytest.raises(TypeError, match="event middleware"):
        Dispatcher().event_middleware(function)


@pytest.mark.parametrize("make", [Dispatcher, lambda: client_over()[0]])
def test_event_middleware_comes_back_unchanged(make: Any) -> None:
    """So that it can be called, tested and registered elsewhere."""
    assert make().event_middleware(louder) is louder


# --- around requests -----------------------------------------------------------------------------


def sent(transport: FakeTransport, number: int = 0) -> tuple[Mapping[str, str], dict[str, Any]]:
    """Headers and body of a request."""
    headers, text = transport.requests[number]
    return headers, json.loads(text)


async def test_the_first_that_is_registered_is_the_outermost() -> None:
    """In with the request from the first to the last, out with the stream the other way."""
    client, _ = client_over(Answer(body(plain())))
    log: list[str] = []

    def named(name: str) -> Any:
        def middleware(request: ChatRequest, send: Send) -> ChatStream:
            log.append(f"{name} in")
            stream = send(request)
            log.append(f"{name} out")
            return stream

        return middleware

    for name in "abc":
        client.middleware(named(name))
    stream = client.chat_stream("Hi")
    assert log == ["a in", "b in", "c in", "c out", "b out", "a out"]
    await stream
    assert len(log) == 6


async def test_a_changed_request_is_what_is_sent_and_what_handlers_see() -> None:
    """Each middleware gets what the one before sent on; the caller's own is not touched."""
    client, transport = client_over(Answer(body(plain())), Answer(body(plain())))
    seen: list[int | None] = []

    @client.middleware
    def shorter(request: ChatRequest, send: Send) -> ChatStream:
        seen.append(request.max_tokens)
        return send(attrs.evolve(request, max_tokens=5, temperature=0.5))

    @client.middleware
    def longer(request: ChatRequest, send: Send) -> ChatStream:
        seen.append(request.max_tokens)
        return send(attrs.evolve(request, max_tokens=7))

    contexts: list[Context] = []
    client.on_message_start(lambda event, ctx: contexts.append(ctx))
    stream = client.chat_stream("Hi", max_tokens=3, k=1)
    assert stream.request.max_tokens == 7
    await stream
    assert seen == [3, 5]
    assert sent(transport)[1] == {
        "model": "command-test",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "k": 1,
        "stream": True,
    }
    assert contexts[0].request is stream.request
    await client.chat("Ho")
    assert seen == [3, 5, None, 5]
    assert sent(transport, 1)[1]["messages"] == [{"role": "user", "content": "Ho"}]


async def test_a_request_that_is_sent_on_as_it_is_changes_nothing() -> None:
    """Body and headers are those that would have been sent without it."""
    bare, bare_wire = client_over(Answer(body(plain())))
    client, wire = client_over(Answer(body(plain())))
    client.middleware(lambda request, send: send(request))
    client.middleware(lambda request, send: send(request, headers=None))
    for each in (bare, client):
        await each.chat("Hi", headers={"X-Call": "1"}, temperature=0.1)
    assert wire.requests == bare_wire.requests


async def test_headers_are_sent_over_those_of_client_and_call() -> None:
    """The innermost wins, whatever the case of the names; those not named are kept."""
    client, transport = client_over(
        Answer(body(plain())), headers={"X-A": "client", "X-B": "client"}
    )
    client.middleware(lambda r, send: send(r, headers={"x-b": "outer", "X-C": "outer"}))
    client.middleware(lambda r, send: send(r, headers={"X-c": "inner", "X-D": "inner"}))
    await client.chat("Hi", headers={"X-A": "call", "X-E": "call"})
    headers = {name.lower(): reveal(value) for name, value in sent(transport)[0].items()}
    assert {name: value for name, value in headers.items() if name.startswith("x-")} == {
        "x-a": "call",
        "x-b": "outer",
        "x-c": "inner",
        "x-d": "inner",
        "x-e": "call",
    }
    assert headers["authorization"] == "Bearer k"
    assert len(headers) == len(sent(transport)[0])


async def test_a_retry_sends_what_the_middleware_made_and_does_not_run_it_again() -> None:
    """It stands around a request, not around a try."""
    client, transport = client_over(
        ConnectError("refused", kind="refused"),
        Answer(body(plain())),
        retry=Retry(base=0.0),
    )
    calls: list[str] = []

    @client.middleware
    def trace(request: ChatRequest, send: Send) -> ChatStream:
        calls.append("call")
        return send(attrs.evolve(request, k=4), headers={"X-Trace": str(len(calls))})

    await client.chat("Hi")
    assert transport.requests[0] == transport.requests[1]
    assert (calls, sent(transport, 1)[0]["X-Trace"]) == (["call"], "1")


async def test_handlers_that_middleware_adds_run_behind_handlers_and_before_the_callers() -> None:
    """They are the stream's own, in the order of registration: the innermost first."""
    client, _ = client_over(Answer(body(plain("a"))))
    log: list[str] = []

    def adds(name: str) -> Any:
        def middleware(request: ChatRequest, send: Send) -> ChatStream:
            stream = send(request)
            stream.on_content_delta(lambda event: log.append(f"{name} {event.text}"))
            return stream

        return middleware

    client.middleware(adds("outer"))
    client.middleware(adds("inner"))
    given = Dispatcher()
    given.on_content_delta(lambda event: log.append("handlers="))
    stream = client.chat_stream("Hi", handlers=[given])
    stream.on_content_delta(lambda event: log.append("caller"))
    stream.event_middleware(louder)
    await stream
    assert log == ["handlers=", "inner A", "outer A", "caller"]


async def test_nothing_is_sent_before_the_stream_is_consumed() -> None:
    """Whatever the middleware does with it."""
    client, transport = client_over(Answer(body(plain())))
    client.middleware(lambda request, send: send(request))
    stream = client.chat_stream("Hi")
    await asyncio.sleep(1)
    assert not transport.requests
    assert (await stream).text == "Hello there!"


async def test_middleware_concerns_streams_that_are_made_after_it() -> None:
    """And none that was made before."""
    client, transport = client_over(Answer(body(plain())), Answer(body(plain())))
    before = client.chat_stream("Hi")

    @client.middleware
    def change(request: ChatRequest, send: Send) -> ChatStream:
        return send(attrs.evolve(request, k=1))

    await before
    await client.chat("Hi")
    assert ["k" in sent(transport, number)[1] for number in range(2)] == [False, True]


async def test_what_middleware_raises_leaves_the_call_as_it_is() -> None:
    """Nothing is sent, on_error is not asked: there is no stream."""
    client, transport = client_over()
    error = KeyError("mine")
    client.on_error()(lambda error: pytest.fail("told"))

    @client.middleware
    def forbid(request: ChatRequest, send: Send) -> ChatStream:
        raise error

    with pytest.raises(KeyError) as caught:
        client.chat_stream("Hi")
    assert caught.value is error
    with pytest.raises(KeyError):
        await client.chat("Hi")
    assert not transport.requests


# --- around requests: refusals -------------------------------------------------------------------


async def _async_middleware(request: Any, send: Any) -> Any: ...


class _AsyncCallable:
    async def __call__(self, request: Any, send: Any) -> Any: ...


def _one(request: Any) -> Any: ...
def _needs_more(request: Any, send: Any, more: Any) -> Any: ...
def _needs_keyword(request: Any, send: Any, *, more: Any) -> Any: ...
def _yields(request: Any, send: Any) -> Any:
    yield


REFUSED: dict[str, tuple[Any, str]] = {
    "async": (_async_middleware, "middleware _async_middleware must be a plain function"),
    "async object": (_AsyncCallable(), "must be a plain function"),
    "async partial": (functools.partial(_async_middleware), "must be a plain function"),
    "no parameters": (_none, r"middleware _none must take \(request, send\)"),
    "one parameter": (_one, r"_one must take \(request, send\)"),
    "three parameters": (_needs_more, r"_needs_more must take \(request, send\)"),
    "a keyword": (_needs_keyword, r"_needs_keyword must take \(request, send\)"),
    "generator": (_yields, "middleware _yields is a generator"),
    "no function": ("text", "middleware must be callable, not str"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_request_middleware_of_the_wrong_shape_is_refused_at_registration(name: str) -> None:
    """By name, and nothing is registered."""
    function, message = REFUSED[name]
    client, _ = client_over()
    with pytest.raises(TypeError, match=message):
        client.middleware(function)
    assert isinstance(client.chat_stream("Hi"), ChatStream)


def _more(request: Any, send: Any, more: int = 0, *rest: Any, **options: Any) -> Any:
    return send(request)


class _Callable:
    def __call__(self, request: Any, send: Any) -> Any:
        return send(request)


@pytest.mark.parametrize(
    "function",
    [_more, _Callable(), _Callable().__call__, functools.partial(_needs_keyword, more=1)],
)
def test_whatever_can_be_called_with_both_is_request_middleware(function: Any) -> None:
    """And it comes back unchanged."""
    client, _ = client_over()
    assert client.middleware(function) is function


@pytest.mark.parametrize(
    "result", [None, True, "text", {"model": "m"}, ChatStream, ChatRequest.build("Hi", "m", {})]
)
def test_middleware_must_return_the_stream(result: Any) -> None:
    """A forgotten `return` is named."""
    client, _ = client_over()

    @client.middleware
    def forgetful(request: ChatRequest, send: Send) -> Any:
        send(request)
        return result

    with pytest.raises(TypeError, match=r"forgetful must return the stream that send\(request\)"):
        client.chat_stream("Hi")


@pytest.mark.parametrize(
    "request_", [None, "Hi", {"model": "m", "messages": []}, [{"role": "user"}], ChatRequest]
)
def test_middleware_must_send_a_request(request_: Any) -> None:
    """A dict would skip every check."""
    client, _ = client_over()

    @client.middleware
    def careless(request: ChatRequest, send: Send) -> ChatStream:
        return send(request_)

    with pytest.raises(TypeError, match=r"careless sent a .* on, not a ChatRequest"):
        client.chat_stream("Hi")


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"temperature": "hot"}, TypeError), ({"max_tokens": 0}, ValueError), ({"x": 1}, TypeError)],
)
def test_a_change_is_checked_like_an_argument(changes: dict[str, Any], error: Any) -> None:
    """The wrong field is named."""
    client, _ = client_over()
    client.middleware(lambda request, send: send(attrs.evolve(request, **changes)))
    with pytest.raises(error, match=next(iter(changes))):
        client.chat_stream("Hi")


# --- around requests: what is secret -------------------------------------------------------------


def _canary() -> str:
    return "-".join(["canary", "4711"])  # in no source line as it is, so that a traceback tells


def _secret(value: str = "", name: str = "X-Secret") -> dict[str, str]:
    return {name: _canary() + value}


def shows_canary(error: BaseException) -> bool:
    """In its message, or in the locals of any frame, as error trackers print them."""
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return _canary() in "".join(lines)


def sends_secret(request: ChatRequest, send: Send) -> ChatStream:
    return send(request, headers=_secret())


async def test_header_values_show_neither_in_reprs_nor_in_the_tracebacks_of_a_stream() -> None:
    """They are sent all the same."""
    client, transport = client_over(Answer(status=401))
    client.middleware(sends_secret)
    client.middleware(lambda request, send: send(request))
    stream = client.chat_stream("Hi")
    assert _canary() not in f"{stream!r} {stream._plan!r} {vars(client)!r}"
    with pytest.raises(AuthenticationError) as caught:
        await stream
    assert not shows_canary(caught.value)
    assert reveal(sent(transport)[0]["X-Secret"]) == _canary()


def test_header_values_do_not_show_when_middleware_further_in_fails() -> None:
    """The plan that carries them is in its frames."""
    client, _ = client_over()
    client.middleware(sends_secret)
    client.middleware(lambda request, send: None)
    with pytest.raises(TypeError, match="must return the stream") as caught:
        client.chat_stream("Hi")
    assert not shows_canary(caught.value)


REFUSED_HEADERS: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "line end": (lambda: _secret("\n"), ValueError),
    "not ASCII": (lambda: _secret("é"), ValueError),
    "name": (lambda: _secret(name="x y"), ValueError),
    "bytes": (lambda: _secret() | {"X-Bytes": _canary().encode()}, TypeError),
    "no mapping": (lambda: [("X-Secret", _canary())], TypeError),
}


def _sends_refused(name: str) -> Any:
    def middleware(request: ChatRequest, send: Send) -> ChatStream:
        return send(request, headers=REFUSED_HEADERS[name][0]())

    return middleware


@pytest.mark.parametrize("name", REFUSED_HEADERS)
def test_headers_that_no_server_takes_are_refused_without_their_value(name: str) -> None:
    """As those of a call are."""
    client, _ = client_over()
    client.middleware(_sends_refused(name))
    with pytest.raises(REFUSED_HEADERS[name][1]) as caught:
        client.chat_stream("Hi")
    assert _canary() not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("name", REFUSED_HEADERS)
def test_headers_that_a_call_refuses_do_not_show_in_the_traceback(name: str) -> None:
    """The measure for those that middleware adds."""
    client, _ = client_over()
    with pytest.raises(REFUSED_HEADERS[name][1]) as caught:
        client.chat_stream("Hi", headers=REFUSED_HEADERS[name][0]())
    assert not shows_canary(caught.value)


@pytest.mark.parametrize("name", REFUSED_HEADERS)
def test_headers_that_are_refused_do_not_show_in_the_traceback(name: str) -> None:
    """As they do not when chat_stream() refuses them: the local is replaced first."""
    client, _ = client_over()
    client.middleware(_sends_refused(name))
    with pytest.raises(REFUSED_HEADERS[name][1]) as caught:
        client.chat_stream("Hi")
    assert not shows_canary(caught.value)


def test_headers_beside_a_refused_request_do_not_show_in_the_traceback() -> None:
    """The wrong request is no reason to print them."""
    client, _ = client_over()
    client.middleware(lambda request, send: send("no request", headers=_secret()))
    with pytest.raises(TypeError, match="not a ChatRequest") as caught:
        client.chat_stream("Hi")
    assert not shows_canary(caught.value)


def test_send_is_documented_by_its_signature() -> None:
    """What middleware gets has the shape that Send promises."""
    client, _ = client_over()
    signatures: list[Sequence[str]] = []

    @client.middleware
    def look(request: ChatRequest, send: Send) -> ChatStream:
        signatures.append(list(inspect.signature(send).parameters))
        return send(request)

    client.chat_stream("Hi")
    assert signatures == [list(inspect.signature(Send.__call__).parameters)[1:]]


@pytest.mark.parametrize(
    "wrong", [float("nan"), b"bytes", object(), "\ud800", {1: "one"}, {"a": {2}}]
)
@pytest.mark.parametrize("evolves", [False, True])
async def test_what_middleware_puts_into_a_message_is_checked_again(
    wrong: Any, evolves: bool
) -> None:
    """Never null or base64 on the wire, whether the request is sent on as it is or as another one."""
    client, transport = client_over(Answer(body(plain())))

    @client.middleware
    def careless(request: ChatRequest, send: Send) -> ChatStream:
        request.messages[0]["content"] = wrong
        return send(attrs.evolve(request, max_tokens=5) if evolves else request)

    with pytest.raises((TypeError, ValueError), match="messages"):
        client.chat_stream([{"role": "user", "content": "Hi"}])
    assert transport.requests == []
