"""Who is called when: the order of handlers and what their failures do, as one table."""

from __future__ import annotations

import asyncio
import inspect
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import pytest

import streamchat
from streamchat import (
    ContentDelta,
    ContentEnd,
    ContentStart,
    Context,
    Dispatcher,
    Event,
    GenerationError,
    Handler,
    MessageEnd,
    MessageStart,
    StreamChatError,
    ToolCallStart,
    TransportError,
    TruncatedStreamError,
)
from tests.fakes import Answer, make_stream
from tests.frames import body, failed, pieces, plain
from tests.shell.test_middleware import client_over

NEW = b'event: x-new\ndata: {"type":"x-new","n":1}\n\n'
"""An event of the future."""


class Scene:
    """Everything that a row of the table may register on, and the log of who was called.

    The stream is that of ``client.chat_stream("Hi", handlers=[one, two])``; ``inner`` is included
    nowhere yet.
    """

    def __init__(self, kind: str, answer: bytes) -> None:
        self.kind = kind
        self.log: list[str] = []
        self.client, _ = client_over(Answer(answer))
        self.one, self.two, self.inner = Dispatcher(), Dispatcher(), Dispatcher()
        self.stream = self.client.chat_stream("Hi", handlers=[self.one, self.two])

    def says(self, name: str, *, raises: Any = None, returns: Any = None) -> Any:
        """A handler that logs its name, then raises or returns."""
        return self._function(lambda _: name, raises, returns)

    def hears(self, name: str, *, returns: Any = None) -> Any:
        """One that logs its name and the event, or the error's class."""

        def shown(given: Any) -> str:
            if isinstance(given, BaseException):
                return f"{name}:{type(given).__name__}"
            return f"{name}:{given.text if isinstance(given, ContentDelta) else given.type}"

        return self._function(shown, None, returns)

    def judges(self, name: str, returns: Any = None, *, raises: Any = None) -> Any:
        """An ``on_error`` handler that logs what it is told."""
        return self._function(lambda e: f"{name}:{type(e).__name__}", raises, returns)

    def _function(self, shown: Callable[[Any], str], raises: Any, returns: Any) -> Any:
        def act(given: Any) -> Any:
            self.log.append(shown(given))
            if raises is not None:
                raise raises
            return returns

        async def act_later(given: Any) -> Any:
            await asyncio.sleep(1)
            return act(given)

        return {
            "plain": act,
            "plain with context": lambda given, ctx: act(given),
            "async": act_later,
            "async with context": _with_context(act_later),
            "awaitable": lambda given: act_later(given),
        }[self.kind]


def _with_context(function: Callable[[Any], Any]) -> Any:
    async def handler(given: Any, ctx: Context) -> Any:
        return await function(given)

    return handler


class Ui(Handler):
    """The class style; it writes into the log of a scene."""

    def __init__(self, scene: Scene) -> None:
        self.log = scene.log

    def on_message_start(self, event: MessageStart) -> None:
        self.log.append("ui")

    async def on_error(self, error: Exception) -> bool:
        self.log.append(f"ui:{type(error).__name__}")
        return True


@attrs.frozen
class Row:
    """What is registered, who is then called, and what is raised."""

    register: Callable[[Scene], object]
    log: str
    raises: type[Exception] | None = None
    answer: bytes = body(plain("a", "b"))


CUT = b"".join(pieces(plain("a", "b"))[:3])
"""An answer that ends in the middle."""
UNKNOWN = b"".join([*pieces(plain())[:1], NEW, *pieces(plain())[1:]])

ORDER: dict[str, Row] = {
    "client, handlers= in their order, stream; whatever was first": Row(
        lambda s: (
            s.stream.on_message_start(s.says("stream")),
            s.two.on_message_start(s.says("two")),
            s.one.on_message_start(s.says("one")),
            s.client.on_message_start(s.says("client")),
        ),
        "client one two stream",
    ),
    "registration order within one": Row(
        lambda s: [s.one.on_message_start(s.says(name)) for name in "cab"],
        "c a b",
    ),
    "one function twice": Row(
        lambda s: [s.one.on_message_start(f) for f in [s.says("twice")] * 2],
        "twice twice",
    ),
    "wire order before registration order": Row(
        lambda s: (
            s.one.on_message_end(s.says("end")),
            s.one.on_content_delta(s.hears("delta")),
            s.one.on_message_start(s.says("start")),
        ),
        "start delta:a delta:b end",
    ),
    "on_event and on() stand in the same order": Row(
        lambda s: (
            s.one.on_event(s.hears("any")),
            s.one.on_content_delta(s.hears("delta")),
            s.one.on(ContentStart, ContentDelta)(s.hears("two")),
        ),
        "any:message-start any:content-start two:content-start any:a delta:a two:a "
        "any:b delta:b two:b any:content-end any:message-end",
    ),
    "on() without such an event": Row(
        lambda s: s.one.on(ToolCallStart, MessageEnd)(s.hears("heard")),
        "heard:message-end",
    ),
    "on_unknown": Row(
        lambda s: (s.one.on_unknown(s.hears("unknown")), s.one.on_event(where=_new)(s.says("any"))),
        "unknown:x-new any",
        answer=UNKNOWN,
    ),
    "on_unknown hears nothing that is known": Row(lambda s: s.one.on_unknown(s.says("x")), ""),
    "those of a tool run hear nothing of a stream": Row(
        lambda s: (
            s.one.on_step_start(s.says("x")),
            s.one.on_tool_result(s.says("x")),
            s.one.on_step_end(s.says("x")),
        ),
        "",
    ),
    # include
    "included at its place, later registrations too": Row(
        lambda s: (
            s.one.on_message_start(s.says("a")),
            s.one.include(s.inner),
            s.one.on_message_start(s.says("d")),
            s.inner.on_message_start(s.says("b")),
            s.inner.on_message_start(s.says("c")),
        ),
        "a b c d",
    ),
    "included in an included one": Row(
        lambda s: (
            s.one.include(s.two),
            s.two.include(s.inner),
            s.inner.on_message_start(s.says("inner")),
            s.one.on_message_start(s.says("one")),
        ),
        "inner one inner",
    ),
    "included twice": Row(
        lambda s: (
            s.one.include(s.inner),
            s.one.include(s.inner),
            s.inner.on_message_start(s.says("inner")),
        ),
        "inner inner",
    ),
    "included in the client": Row(
        lambda s: (
            s.client.on_message_start(s.says("a")),
            s.client.include(s.inner),
            s.client.on_message_start(s.says("c")),
            s.inner.on_message_start(s.says("b")),
            s.one.on_message_start(s.says("d")),
        ),
        "a b c d",
    ),
    "a class at its place": Row(
        lambda s: (
            s.one.on_message_start(s.says("a")),
            s.one.include(Ui(s)),
            s.one.on_message_start(s.says("b")),
            s.client.include(Ui(s)),
        ),
        "ui a ui b",
    ),
    # options
    "where=": Row(
        lambda s: s.one.on_content_delta(where=lambda event: event.text == "b")(s.hears("heard")),
        "heard:b",
    ),
    "where= on several types": Row(
        lambda s: s.one.on(ContentStart, ContentEnd, MessageEnd)(
            where=lambda event: not isinstance(event, ContentStart)
        )(s.hears("heard")),
        "heard:content-end heard:message-end",
    ),
    "once=": Row(
        lambda s: s.one.on_content_delta(once=True)(s.hears("heard")),
        "heard:a",
    ),
    "once= with where=: the first that passes": Row(
        lambda s: s.one.on_event(where=lambda e: isinstance(e, ContentDelta), once=True)(
            s.hears("heard")
        ),
        "heard:a",
    ),
    "once= on several types: one event in all": Row(
        lambda s: s.one.on(ContentStart, ContentDelta)(once=True)(s.hears("heard")),
        "heard:content-start",
    ),
    "once= concerns itself alone": Row(
        lambda s: (
            s.one.on_content_delta(once=True)(s.hears("once")),
            s.one.on_content_delta(s.hears("always")),
        ),
        "once:a always:a always:b",
    ),
    "once= included twice: once at each place": Row(
        lambda s: (
            s.one.include(s.inner),
            s.one.include(s.inner),
            s.inner.on_content_delta(once=True)(s.hears("heard")),
        ),
        "heard:a heard:a",
    ),
}


def _new(event: Event) -> bool:
    return event.type == "x-new"


def _boom(event: Event) -> bool:
    raise LookupError("where")


ERRORS: dict[str, Row] = {
    "no on_error: nothing more is called": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=ValueError("x"))),
            s.one.on_event(s.says("next")),
        ),
        "bad",
        ValueError,
    ),
    "True: the next handler runs": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=ValueError("x"))),
            s.one.on_message_start(s.says("next")),
            s.one.on_message_end(s.says("end")),
            s.one.on_error()(s.judges("judge", True)),
        ),
        "bad judge:ValueError next end",
    ),
    "True for every failure": Row(
        lambda s: (
            s.one.on_content_delta(s.says("bad", raises=ValueError("x"))),
            s.one.on_content_delta(s.says("worse", raises=KeyError("x"))),
            s.one.on_error()(s.judges("judge", True)),
        ),
        "bad judge:ValueError worse judge:KeyError bad judge:ValueError worse judge:KeyError",
    ),
    **{
        f"{result!r} is not True": Row(
            lambda s, result=result: (  # type: ignore[misc]
                s.one.on_message_start(s.says("bad", raises=ValueError("x"))),
                s.one.on_message_start(s.says("next")),
                s.one.on_error()(s.judges("judge", result)),
            ),
            "bad judge:ValueError",
            ValueError,
        )
        for result in (None, False, 1, "yes")
    },
    "by type, subclasses too": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=KeyError("x"))),
            s.one.on_error(ValueError)(s.judges("no", True)),
            s.one.on_error(LookupError)(s.judges("base")),
            s.one.on_error(ValueError, KeyError)(s.judges("two")),
        ),
        "bad base:KeyError two:KeyError",
        KeyError,
    ),
    "True from one is enough, and all are told": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=ValueError("x"))),
            s.one.on_message_start(s.says("next")),
            s.one.on_error()(s.judges("a")),
            s.one.on_error()(s.judges("b", True)),
            s.one.on_error()(s.judges("c", False)),
        ),
        "bad a:ValueError b:ValueError c:ValueError next",
    ),
    "on_error in the order of the handlers": Row(
        lambda s: (
            s.stream.on_error()(s.judges("stream")),
            s.two.on_error()(s.judges("two")),
            s.one.include(s.inner),
            s.one.on_error()(s.judges("one")),
            s.inner.on_error()(s.judges("inner")),
            s.client.on_error()(s.judges("client")),
            s.stream.on_message_start(s.says("bad", raises=ValueError("x"))),
        ),
        "bad client:ValueError inner:ValueError one:ValueError two:ValueError stream:ValueError",
        ValueError,
    ),
    "on_error of a class": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=ValueError("x"))),
            s.two.include(Ui(s)),
        ),
        "bad ui:ValueError ui",
    ),
    "nothing failed": Row(lambda s: s.one.on_error()(s.judges("judge")), ""),
    # options and failures
    "where= that fails is its handler's failure": Row(
        lambda s: (
            s.one.on_message_start(where=_boom)(s.says("never")),
            s.one.on_message_start(s.says("next")),
            s.one.on_error(LookupError)(s.judges("judge", True)),
        ),
        "judge:LookupError next",
    ),
    "once= is spent by a failure": Row(
        lambda s: (
            s.one.on_content_delta(once=True)(s.says("bad", raises=ValueError("x"))),
            s.one.on_error()(s.judges("judge", True)),
        ),
        "bad judge:ValueError",
    ),
    # exceptions that mean something to the machinery
    "StopAsyncIteration would end the answer": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=StopAsyncIteration())),
            s.one.on_error()(s.judges("judge")),
        ),
        "bad judge:RuntimeError",
        RuntimeError,
    ),
    "StopAsyncIteration and True": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=StopAsyncIteration())),
            s.one.on_message_start(s.says("next")),
            s.one.on_error(RuntimeError)(s.judges("judge", True)),
        ),
        "bad judge:RuntimeError next",
    ),
    "an error of ours that a handler raises is the handler's": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=TransportError("x"))),
            s.one.on_error()(s.judges("judge")),
        ),
        "bad judge:TransportError",
        TransportError,
    ),
    "and can be recovered": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=TransportError("x"))),
            s.one.on_message_start(s.says("next")),
            s.one.on_error(TransportError)(s.judges("judge", True)),
        ),
        "bad judge:TransportError next",
    ),
    # failures of on_error itself
    "on_error that fails": Row(
        lambda s: (
            s.one.on_message_start(s.says("bad", raises=ValueError("x"))),
            s.one.on_message_start(s.says("next")),
            s.one.on_error()(s.judges("judge", raises=KeyError("y"))),
            s.one.on_error()(s.judges("behind", True)),
        ),
        "bad judge:ValueError",
        KeyError,
    ),
    # the stream's own failure
    "the stream's failure is told, and raised all the same": Row(
        lambda s: (
            s.one.on_content_delta(s.hears("delta")),
            s.one.on_error()(s.judges("judge", True)),
            s.one.on_error(TransportError)(s.judges("base", True)),
            s.one.on_error(GenerationError)(s.judges("other")),
        ),
        "delta:a judge:TruncatedStreamError base:TruncatedStreamError",
        TruncatedStreamError,
        CUT,
    ),
    "behind failures that were recovered": Row(
        lambda s: (
            s.one.on_content_delta(s.says("bad", raises=ValueError("x"))),
            s.one.on_error()(s.judges("judge", True)),
        ),
        "bad judge:ValueError judge:TruncatedStreamError",
        TruncatedStreamError,
        CUT,
    ),
    "a handler's failure is told, not that it stopped the stream": Row(
        lambda s: (
            s.one.on_content_delta(s.says("bad", raises=ValueError("x"))),
            s.one.on_error()(s.judges("judge")),
        ),
        "bad judge:ValueError",
        ValueError,
        CUT,
    ),
    "a failed answer: its end, then on_error": Row(
        lambda s: (
            s.one.on_error()(s.judges("judge", True)),
            s.one.on_message_end(s.says("end")),
        ),
        "end judge:GenerationError",
        GenerationError,
        body(failed()),
    ),
}
KINDS = ["plain", "plain with context", "async", "async with context", "awaitable"]


@pytest.mark.parametrize("passes", [False, True], ids=["bare", "behind middleware"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*ORDER, *ERRORS])
async def test_who_is_called_and_what_is_raised(name: str, kind: str, passes: bool) -> None:
    """Each row of the table, for handlers of each kind, with event middleware and without."""
    row = (ORDER | ERRORS)[name]
    scene = Scene(kind, row.answer)
    row.register(scene)
    if passes:
        scene.stream.event_middleware(lambda event: event)
    raised: BaseException | None = None
    try:
        async for _ in scene.stream:
            pass
    except Exception as error:
        raised = error
    assert (" ".join(scene.log), type(raised)) == (row.log, row.raises or type(None))


# --- what is raised ------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [False, True], ids=["bare", "behind middleware"])
@pytest.mark.parametrize("cls", [ValueError, TimeoutError, TransportError, ExceptionGroup])
async def test_a_handlers_exception_comes_out_as_it_was_raised(
    cls: type[Exception], passes: bool
) -> None:
    """The same object, nothing chained, one note that names handler and event."""
    error = cls("group", [ValueError()]) if cls is ExceptionGroup else cls("mine")
    facts = dict(vars(error))
    answer = Answer(body(plain()))
    stream = make_stream(answer)
    if passes:
        stream.event_middleware(lambda event: event)

    @stream.on_content_delta
    async def broken(event: ContentDelta) -> None:
        raise error

    with pytest.raises(cls) as caught:
        await stream
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    [note] = error.__notes__
    assert note.startswith("raised by handler ")
    assert note.endswith(".broken for a content-delta event")
    del error.__notes__
    assert vars(error) == facts
    assert answer.closed


async def test_a_method_and_an_object_are_named_in_the_note() -> None:
    """By their qualified name, or that of their class: a ``repr`` may show what an object holds."""

    class Loud:
        def method(self, event: Event) -> None:
            raise ValueError

        def __call__(self, event: Event) -> None:
            raise ValueError

    for handler, name in ((Loud().method, "Loud.method"), (Loud(), "Loud")):
        stream = make_stream(Answer(body(plain())))
        stream.on_message_start(handler)
        with pytest.raises(ValueError) as caught:
            await stream
        assert f"{name} for a message-start event" in caught.value.__notes__[0]


async def test_stop_async_iteration_is_wrapped_and_kept() -> None:
    """The RuntimeError names the handler; what was raised is its context, with the note."""
    stream = make_stream(Answer(body(plain())))

    @stream.on_message_start
    def exhausted(event: MessageStart) -> None:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match=r"handler .*exhausted raised StopAsync") as caught:
        await stream
    context = caught.value.__context__
    assert isinstance(context, StopAsyncIteration)
    assert "exhausted for a message-start event" in caught.value.__notes__[0]


async def test_stop_iteration_of_a_plain_handler_is_named_too() -> None:
    """Python wraps it on its way out of __anext__; nothing in the result names the handler."""
    stream = make_stream(Answer(body(plain())))

    @stream.on_message_start
    def exhausted(event: MessageStart) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError) as caught:
        await stream
    assert "exhausted" in f"{caught.value} {getattr(caught.value, '__notes__', '')}"


@pytest.mark.parametrize("answer", [body(plain()), CUT], ids=["handler", "stream"])
async def test_stop_async_iteration_of_on_error_does_not_end_the_answer(answer: bytes) -> None:
    """`async for` would end as if the answer were complete."""
    stream = make_stream(Answer(answer))
    stream.on_content_end(Scene("plain", b"").says("bad", raises=ValueError("x")))

    @stream.on_error()
    def exhausted(error: Exception) -> None:
        raise StopAsyncIteration

    with pytest.raises(Exception):  # noqa: B017  # whichever, as long as it is one
        async for _ in stream:
            pass


class Mine(StreamChatError):
    """What an application may derive and raise."""


async def test_an_error_of_ours_that_on_error_raises_is_not_told_again() -> None:
    """It is the on_error handler's own, as any other class is (row "on_error that fails")."""
    stream, told = make_stream(Answer(body(plain()))), []
    stream.on_message_start(Scene("plain", b"").says("bad", raises=ValueError("x")))

    @stream.on_error()
    def translate(error: Exception) -> None:
        told.append(type(error))
        raise Mine("translated")

    with pytest.raises(Mine):
        await stream
    assert told == [ValueError]


async def test_an_error_of_another_stream_that_on_error_raises_again_keeps_its_facts() -> None:
    """A handler consumes a second stream, whose failure on_error passes on."""
    stream = make_stream(Answer(body(plain())))

    @stream.on_message_start
    async def nested(event: MessageStart) -> None:
        await make_stream(Answer(status=503), Answer(CUT))

    @stream.on_error()
    def again(error: Exception) -> None:
        raise error

    with pytest.raises(TruncatedStreamError) as caught:
        await stream
    assert caught.value.attempts == 2


# --- frozen for each stream ----------------------------------------------------------------------


async def test_a_stream_hears_what_was_registered_when_its_first_event_came() -> None:
    """Made, entered: still open. Its first event handed out: fixed."""
    log: list[str] = []
    client, _ = client_over(Answer(*pieces(plain("a"))))
    given = Dispatcher()
    async with client.chat_stream("Hi", handlers=[given]) as stream:
        client.on_event(lambda event: log.append("client"))
        given.on_event(lambda event: log.append("given"))
        stream.on_event(lambda event: log.append("stream"))
        await anext(stream)
        client.on_event(lambda event: log.append("late"))
        given.on_event(lambda event: log.append("late"))
        with pytest.raises(RuntimeError, match="before you consume"):
            stream.on_event(lambda event: log.append("late"))
        await anext(stream)
    assert log == ["client", "given", "stream"] * 2


async def test_two_streams_are_fixed_each_at_its_own_time() -> None:
    """One dispatcher, one stream that has begun and one that has not."""
    dispatcher, log = Dispatcher(), []
    first, second = (
        make_stream(Answer(*pieces(plain("a"))), handlers=[dispatcher], data=name)
        for name in ("first", "second")
    )
    await anext(first)
    dispatcher.on_message_end(lambda event, ctx: log.append(ctx.data))
    await first
    await second
    assert log == ["second"]


async def test_once_counts_for_each_of_two_streams_at_once() -> None:
    """What is spent belongs to the stream, not to the dispatcher."""
    dispatcher, log = Dispatcher(), []
    dispatcher.on_content_delta(once=True)(lambda event, ctx: log.append(ctx.data))
    streams = [
        make_stream(
            Answer(*(x for piece in pieces(plain("a", "b")) for x in (1.0, piece))),
            handlers=[dispatcher],
            data=name,
        )
        for name in ("first", "second")
    ]
    await asyncio.gather(*(stream._run() for stream in streams))
    assert sorted(log) == ["first", "second"]


# --- timeout= ------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [False, True], ids=["bare", "behind middleware"])
@pytest.mark.parametrize(
    "options",
    [{}, {"once": True}, {"where": lambda event: event.text == "a"}],
    ids=["always", "once", "where"],
)
async def test_a_handler_that_takes_too_long_fails_on_time(
    options: dict[str, Any], passes: bool
) -> None:
    """A TimeoutError that names handler and limit; what it did is cancelled."""
    answer, ends = Answer(body(plain("a", "b"))), []
    stream = make_stream(answer)
    if passes:
        stream.event_middleware(lambda event: event)

    @stream.on_content_delta(timeout=2.5, **options)
    async def slow(event: ContentDelta, ctx: Context) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(TimeoutError, match=r"slow took longer than its timeout of 2\.5 s") as e:
        await stream
    assert not isinstance(e.value, StreamChatError)
    assert "slow for a content-delta event" in e.value.__notes__[0]
    assert asyncio.get_running_loop().time() == 2.5
    assert (ends, answer.closed) == (["cancelled"], True)


async def test_each_call_has_the_whole_timeout_and_on_error_may_recover_it() -> None:
    """The next handler runs, and the next event has its own seconds."""
    stream, log = make_stream(Answer(body(plain("5", "1", "9")))), []

    @stream.on_content_delta(timeout=3)
    async def waits(event: ContentDelta) -> None:
        await asyncio.sleep(int(event.text))
        log.append(f"in time {event.text}")

    stream.on_content_delta(lambda event: log.append(f"next {event.text}"))
    stream.on_error(TimeoutError)(lambda error: True)
    await stream
    assert log == ["next 5", "in time 1", "next 1", "next 9"]
    assert asyncio.get_running_loop().time() == 7


async def test_a_timeout_error_of_the_handlers_own_passes() -> None:
    """It is not said to be the limit's."""
    stream, error = make_stream(Answer(body(plain()))), TimeoutError("my database")

    @stream.on_message_start(timeout=5)
    async def own(event: MessageStart) -> None:
        async with asyncio.timeout(None):
            raise error

    with pytest.raises(TimeoutError) as caught:
        await stream
    assert caught.value is error


async def test_a_shorter_timeout_inside_a_handler_is_its_own() -> None:
    """asyncio.timeout in the handler fires first and says what it always says."""
    stream = make_stream(Answer(body(plain())))

    @stream.on_message_start(timeout=5)
    async def own(event: MessageStart) -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(100)

    with pytest.raises(TimeoutError) as caught:
        await stream
    assert "took longer than its timeout" not in str(caught.value)
    assert asyncio.get_running_loop().time() == 1


async def test_the_callers_cancellation_is_no_timeout() -> None:
    """It passes through the limit untouched."""
    answer, told = Answer(body(plain())), []
    stream = make_stream(answer)
    stream.on_error()(told.append)

    @stream.on_message_start(timeout=50)
    async def slow(event: MessageStart) -> None:
        await asyncio.sleep(100)

    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(3):
            await stream
    assert "its timeout of" not in str(caught.value)
    assert (told, answer.closed, asyncio.get_running_loop().time()) == ([], True, 3)


def _plain_handler(event: Any) -> None: ...
async def _async_handler(event: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "timeout", "error", "message"),
    [
        (_plain_handler, 1, TypeError, "needs an async function; .* _plain_handler is plain"),
        (lambda event: _async_handler(event), 1, TypeError, "needs an async function"),
        (_async_handler, 0, ValueError, "must be above 0 seconds, not 0"),
        (_async_handler, -1.5, ValueError, "must be above 0"),
        (_async_handler, float("nan"), ValueError, "must be above 0"),
        (_async_handler, float("inf"), ValueError, "must be above 0"),
        (_async_handler, True, TypeError, "timeout= of handler _async_handler must be seconds"),
        (_async_handler, "1", TypeError, "must be seconds"),
        (_async_handler, streamchat.Timeout(total=1), TypeError, "must be seconds"),
    ],
)
def test_a_timeout_that_cannot_work_is_refused(
    function: Any, timeout: Any, error: type[Exception], message: str
) -> None:
    """At registration, by name; nothing is registered."""
    dispatcher = Dispatcher()
    with pytest.raises(error, match=message):
        dispatcher.on_content_delta(timeout=timeout)(function)
    assert dispatcher.registrations() == []


# --- what it costs to be listened to -------------------------------------------------------------


def _called(coroutine: Any) -> list[tuple[str, bool]]:
    """Our functions that a step which waits for nothing enters: name, and whether a coroutine."""
    package = str(Path(streamchat.__file__).parent)
    entered: list[tuple[str, bool]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package):
            entered.append((code.co_name, bool(code.co_flags & inspect.CO_COROUTINE)))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError("it waited")
    finally:
        sys.setprofile(before)
    return entered


@pytest.mark.parametrize("with_others", [False, True])
async def test_an_event_without_handlers_awaits_nothing(with_others: bool) -> None:
    """One coroutine, the consumer's own; the reader; and not a line of handlers' machinery."""
    stream = make_stream(Answer(body(plain(*"abcdef"))))
    if with_others:
        stream.on_error()(lambda error: None)
        stream.on_message_end(_async_handler)
        stream.on_tool_call_end(lambda event: None)
    for _ in range(4):
        await anext(stream)  # to where the rest is at hand and read as deltas are
    entered = _called(anext(stream))
    assert [name for name, is_coroutine in entered if is_coroutine] == ["__anext__"]
    assert {name for name, _ in entered} <= {"__anext__", "read", "read_block", "_text"}
    await stream.aclose()


async def test_a_filtered_event_awaits_nothing() -> None:
    """where= that is false costs a call and no coroutine."""
    stream = make_stream(Answer(body(plain(*"abcdef"))))
    stream.on_content_delta(where=lambda event: False)(_async_handler)
    for _ in range(4):
        await anext(stream)
    coroutines = [name for name, is_coroutine in _called(anext(stream)) if is_coroutine]
    assert coroutines == ["__anext__"]
    await stream.aclose()


async def test_a_removed_handler_is_freed_with_the_next_stream() -> None:
    """Although the routes of a stream are kept for the next one."""

    class Owner:
        def show(self, event: ContentDelta) -> None: ...

    dispatcher, owner = Dispatcher(), Owner()
    show = owner.show
    dispatcher.on_content_delta(show)
    await make_stream(Answer(body(plain())), handlers=[dispatcher])
    dispatcher.remove(show)
    left = weakref.ref(owner)
    del owner, show
    await make_stream(Answer(body(plain())), handlers=[dispatcher])
    assert left() is None
