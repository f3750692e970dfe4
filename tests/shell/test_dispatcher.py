"""Handlers: who hears what, in which order, and what their failures do."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from streamchat import (
    CitationEnd,
    ContentDelta,
    Context,
    Dispatcher,
    Event,
    GenerationError,
    Handler,
    MessageEnd,
    MessageStart,
    ToolCallEnd,
    TransportError,
    TruncatedStreamError,
)
from streamchat.protocol.events import EVENT_CLASSES
from tests.fakes import Answer, make_stream
from tests.frames import body, cited, failed, pieces, plain, thinking, tools
from tests.shell.test_middleware import client_over


async def _hear(events: list[Event], *handlers: Dispatcher | Handler, data: Any = None) -> None:
    await make_stream(Answer(body(events)), handlers=handlers, data=data)


@pytest.mark.parametrize("flow", [plain, cited, thinking, tools])
async def test_each_decorator_hears_its_event_and_no_other(flow: Any) -> None:
    """on_<wire name> hears exactly the events of that name, in wire order."""
    dispatcher, heard = Dispatcher(), []
    for cls in EVENT_CLASSES:
        name = "on_" + cls.type.replace("-", "_")
        getattr(dispatcher, name)(lambda event, cls=cls: heard.append((cls, event)))
    await _hear(flow(), dispatcher)
    assert [event for _, event in heard] == flow()
    assert all(type(event) is cls for cls, event in heard)


async def test_end_events_carry_what_they_ended() -> None:
    """The handlers of the README: complete calls, joined citations, the whole answer."""
    dispatcher, calls, marks, ends = Dispatcher(), [], [], []
    dispatcher.on_tool_call_end(lambda e: calls.append((e.tool_call.name, e.tool_call.parsed)))
    dispatcher.on_citation_end(lambda e: marks.append((e.citation.text, e.block)))
    dispatcher.on_message_end(lambda e: ends.append(e.response))
    await _hear(tools(), dispatcher)
    await _hear(cited(), dispatcher)
    assert calls == [("weather", {"city": "Lima"}), ("clock", {})]
    assert marks == [("Lions", "Lions")]
    assert [end.finish_reason for end in ends] == ["TOOL_CALL", "COMPLETE"]


async def test_handlers_run_in_registration_order_and_are_awaited_one_by_one() -> None:
    """Client's dispatcher, handlers=, then the stream's own; included ones at their place."""
    order: list[str] = []

    def log(name: str) -> Any:
        async def handler(event: MessageStart) -> None:
            order.append(f"{name} begins")
            await asyncio.sleep(1)
            order.append(f"{name} ends")

        return handler

    first, inner, second = Dispatcher(), Dispatcher(), Dispatcher()
    first.on_message_start(log("a"))
    first.include(inner)
    first.on_event(lambda e: order.append("plain") if e.type == "message-start" else None)
    second.on_message_start(log("c"))
    inner.on_message_start(log("b"))
    stream = make_stream(Answer(body(plain())), handlers=[first, second])
    stream.on_message_start(log("d"))
    await stream
    assert order == [
        "a begins", "a ends", "b begins", "b ends", "plain",
        "c begins", "c ends", "d begins", "d ends",
    ]  # fmt: skip


async def test_the_snapshot_is_ahead_of_the_handlers() -> None:
    """An event is folded in before its handlers run."""
    dispatcher, seen = Dispatcher(), []

    @dispatcher.on_content_delta
    async def look(event: ContentDelta, ctx: Context) -> None:
        seen.append((event.text, ctx.snapshot.text))

    await _hear(plain("a", "b"), dispatcher)
    assert seen == [("a", "a"), ("b", "ab")]


async def test_the_context_brings_stream_request_data_and_index() -> None:
    """A second parameter is the context; it is one object for the whole stream."""
    dispatcher, contexts, data = Dispatcher(), [], {"mine": 1}
    dispatcher.on_event(lambda event, ctx: contexts.append(ctx))
    stream = make_stream(Answer(body(plain())), handlers=[dispatcher], data=data)
    await stream
    context = contexts[0]
    assert all(other is context for other in contexts)
    assert context.stream is stream
    assert (context.data, context.index, context.request.model) == (data, None, "command-test")
    assert context.data is data


async def test_plain_functions_partials_methods_and_callable_objects_are_handlers() -> None:
    """Whatever can be called with the event will do; what it returns is awaited if it can be."""
    heard: list[str] = []

    class Recorder:
        async def __call__(self, event: MessageStart) -> None:
            heard.append("object")

        def method(self, event: MessageStart, ctx: Context) -> None:
            heard.append("method")

    async def tagged(tag: str, event: MessageStart) -> None:
        heard.append(tag)

    def returns_awaitable(event: MessageStart) -> Any:
        return tagged("awaitable", event)

    def optional(event: MessageStart, extra: str = "optional") -> str:
        heard.append(extra)
        return extra

    dispatcher = Dispatcher()
    for handler in (
        Recorder(),
        Recorder().method,
        functools.partial(tagged, "partial"),
        returns_awaitable,
        optional,
        lambda *args: heard.append(f"{len(args)} argument"),
    ):
        dispatcher.on_message_start(handler)
    await _hear(plain(), dispatcher)
    assert heard == ["object", "method", "partial", "awaitable", "optional", "1 argument"]


async def test_where_filters_and_once_is_once_a_stream() -> None:
    """where= sees the event; once=True means the first that passes, of each stream."""
    dispatcher, heard = Dispatcher(), []

    @dispatcher.on_content_delta(where=lambda event: "b" in event.text)
    async def some(event: ContentDelta) -> None:
        heard.append(("some", event.text))

    @dispatcher.on_content_delta(once=True)
    def first(event: ContentDelta) -> None:
        heard.append(("first", event.text))

    @dispatcher.on_content_delta(where=lambda event: event.text != "a", once=True)
    async def first_other(event: ContentDelta, ctx: Context) -> None:
        heard.append(("other", event.text))

    for _ in range(2):
        heard.clear()
        await _hear(plain("a", "b", "ab"), dispatcher)
        assert heard == [("first", "a"), ("some", "b"), ("other", "b"), ("some", "ab")]


async def test_on_takes_several_classes() -> None:
    """on(A, B) hears both."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.on(ToolCallEnd, CitationEnd, MessageEnd)(lambda event: heard.append(event.type))
    await _hear(tools(), dispatcher)
    assert heard == ["tool-call-end", "tool-call-end", "message-end"]


async def test_what_is_registered_when_a_stream_starts_is_what_it_uses() -> None:
    """Registering or including during a stream concerns the next one."""
    dispatcher, late, heard = Dispatcher(), Dispatcher(), []
    late.on_content_delta(lambda event: heard.append(event.text))

    @dispatcher.on_message_start(once=True)
    def register(event: MessageStart) -> None:
        dispatcher.include(late)

    await _hear(plain("a"), dispatcher)
    assert heard == []
    await _hear(plain("b"), dispatcher)
    assert heard == ["b"]


async def test_one_dispatcher_serves_many_streams_at_once() -> None:
    """Handlers have no lifetime: the context tells the streams apart."""
    dispatcher = Dispatcher()

    @dispatcher.on_content_delta
    async def collect(event: ContentDelta, ctx: Context) -> None:
        await asyncio.sleep(1)
        ctx.data.append(event.text)

    boxes: list[list[str]] = [[], [], []]
    await asyncio.gather(*(_hear(plain(*"xyz"), dispatcher, data=box) for box in boxes))
    assert boxes == [["x", "y", "z"]] * 3


# --- class style ---------------------------------------------------------------------------------


class Ui(Handler):
    """A handler class with state of its own."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def on_message_start(self, event: MessageStart) -> None:
        self.log.append("start")

    def on_content_delta(self, event: ContentDelta, ctx: Context) -> None:
        self.log.append(ctx.snapshot.text)

    def on_error(self, error: Exception) -> None:
        self.log.append(type(error).__name__)


class LoudUi(Ui):
    """A subclass adds and overrides."""

    async def on_message_start(self, event: MessageStart) -> None:
        self.log.append("START")

    def on_message_end(self, event: MessageEnd) -> None:
        self.log.append("end")


async def test_streams_of_a_dispatcher_share_what_they_look_up() -> None:
    """As long as the same functions are registered, and none of them is for one stream alone."""
    client, given = Dispatcher(), Dispatcher()
    heard: list[str] = []
    given.on_content_delta(lambda event: heard.append("given"))

    async def table_of(**options: Any) -> Any:
        stream = make_stream(Answer(body(plain("x"))), **options)
        await stream
        return stream._table

    first = await table_of(handlers=[client, given])
    assert await table_of(handlers=[client, given]) is first
    assert await table_of(handlers=[given]) == first

    client.on_content_delta(lambda event: heard.append("client"))
    heard.clear()
    second = await table_of(handlers=[client, given])
    assert (second is not first, heard) == (True, ["client", "given"])

    client.on_content_delta(lambda event: heard.append("once"), once=True)
    heard.clear()
    assert await table_of(handlers=[client, given]) is not await table_of(handlers=[client, given])
    assert heard.count("once") == 2


async def test_what_is_shared_ends_with_the_dispatcher() -> None:
    """Handlers of one request are not held by those that live longer."""
    client, given = Dispatcher(), Dispatcher()

    class Request:
        def hear(self, event: ContentDelta) -> None:
            pass

    request = Request()
    gone = weakref.ref(request)
    given.on_content_delta(request.hear)
    await make_stream(Answer(body(plain("x"))), handlers=[client, given])
    del given, request
    gc.collect()
    assert gone() is None


async def test_a_handler_class_hears_what_it_defines() -> None:
    """Methods by the decorators' names; inherited and overridden ones too."""
    ui, loud = Ui(), LoudUi()
    await _hear(plain("a", "b"), ui, loud)
    assert ui.log == ["start", "a", "ab"]
    assert loud.log == ["START", "a", "ab", "end"]


async def test_a_handler_class_hears_failures() -> None:
    """on_error of a class sees every exception."""
    ui = Ui()
    with pytest.raises(TruncatedStreamError):
        await make_stream(Answer(*pieces(plain("a"))[:3]), handlers=[ui])
    assert ui.log == ["start", "a", "TruncatedStreamError"]


def test_a_method_that_is_no_event_is_refused_at_class_definition() -> None:
    """A typo is a TypeError that suggests the right name."""
    with pytest.raises(TypeError, match=r"Bad.on_contnt_delta .* did you mean on_content_delta\?"):

        class Bad(Handler):
            def on_contnt_delta(self, event: ContentDelta) -> None: ...


class _Log:
    """Something to inherit from."""

    def __init__(self) -> None:
        self.log: list[str] = []


class Starts(Handler, _Log):
    def on_message_start(self, event: MessageStart) -> None:
        self.log.append("start")


class Ends(Handler, _Log):
    def on_message_end(self, event: MessageEnd) -> None:
        self.log.append("end")


class PlainMixin:
    log: list[str]

    def on_content_end(self, event: Event) -> None:
        self.log.append("mixin")


class Both(Starts, Ends, PlainMixin):
    """Everything it has is inherited."""


async def test_inherited_handlers_and_mixins_are_heard() -> None:
    """A lost handler would be lost data."""
    both = Both()
    await _hear(plain(), both)
    assert both.log == ["start", "mixin", "end"]


@pytest.mark.parametrize("parameters", ["self", "self, a, b, c"])
def test_a_method_of_the_wrong_shape_is_refused_at_class_definition(parameters: str) -> None:
    """Not only when it is first used."""
    with pytest.raises(TypeError, match="must take"):
        exec(f"class Bad(Handler):\n def on_content_delta({parameters}): ...", {"Handler": Handler})


# --- registered again ----------------------------------------------------------------------------

CELL = """
@client.on_content_delta{options}
async def show(event):
    log.append({says!r})
"""
"""What somebody runs, changes and runs again."""


def _cell(client: Any, log: list[str], says: str, options: str = "") -> dict[str, Any]:
    names: dict[str, Any] = {"client": client, "log": log, "__name__": "notebook"}
    exec(CELL.format(says=says, options=options), names)
    return names


async def test_a_function_that_is_defined_again_takes_its_earlier_place() -> None:
    """A notebook cell that is run twice; those registered around it keep their order."""
    dispatcher, log = Dispatcher(), []
    _cell(dispatcher, log, "first")
    dispatcher.on_content_delta(lambda event: log.append("after"))
    with pytest.warns(UserWarning, match="handler show was registered before") as warned:
        _cell(dispatcher, log, "second", "(where=lambda event: True)")
    assert warned[0].filename == "<string>", "it points to the cell"
    await _hear(plain("a"), dispatcher)
    assert log == ["second", "after"]


@pytest.mark.parametrize("owner", ["client", "stream", "run"])
async def test_a_client_a_stream_and_a_run_do_so_too(owner: str) -> None:
    client, _ = client_over(Answer(body(plain("a"))))
    run = client.run_tools("Hi", tools=[_a_tool]) if owner == "run" else None
    stream = run or client.chat_stream("Hi")
    log: list[str] = []
    _cell(client if owner == "client" else stream, log, "first")
    with pytest.warns(UserWarning, match="was registered before"):
        _cell(client if owner == "client" else stream, log, "second")
    await stream
    assert log == ["second"]


def _a_tool() -> str:
    """Says nothing."""
    return ""


async def test_all_that_the_earlier_definition_registered_is_replaced() -> None:
    """With the same events: stacked decorators with other filters, run twice."""
    dispatcher, log = Dispatcher(), []
    stacked = "(where=lambda event: True)\n@client.on_content_delta(once=True)"
    _cell(dispatcher, log, "first", stacked)
    assert len(dispatcher.registrations()) == 2
    with pytest.warns(UserWarning, match="was registered before"):
        _cell(dispatcher, log, "second", stacked)
    await _hear(plain("a"), dispatcher)
    assert log == ["second", "second"]


@pytest.mark.filterwarnings("error")
async def test_what_is_meant_twice_is_called_twice() -> None:
    """Other events, other options, other modules; methods, lambdas, closures and partials."""
    dispatcher, log = Dispatcher(), []
    show = _cell(dispatcher, log, "show")["show"]
    dispatcher.on_message_start(show)
    dispatcher.on_content_delta(once=True)(show)
    other: dict[str, Any] = {"client": dispatcher, "log": log, "__name__": "another"}
    exec(CELL.format(says="other", options=""), other)
    for each in (_Counter(), _Counter()):
        dispatcher.on_content_delta(each.hear)
        dispatcher.on_content_delta(lambda event: log.append("lambda"))
        dispatcher.on_content_delta(functools.partial(show))
        dispatcher.on_content_delta(functools.wraps(show)(lambda event: log.append("wrapper")))
    await _hear(plain("a"), dispatcher)
    assert sorted(log) == sorted(["show"] * 3 + ["other"] + ["lambda", "wrapper", "show"] * 2)


IN_A_LOOP = """
for says in ("one", "two"):
    @client.on_content_delta
    def show(event, says=says):
        log.append(says)
"""
NAMELESS = """
@client.on_content_delta
def _(event):
    log.append("one")

@client.on_content_delta
def _(event):
    log.append("two")
"""


def _plugin(dispatcher: Dispatcher, log: list[str], source: str, file: str) -> None:
    exec(compile(source, file, "exec"), {"client": dispatcher, "log": log, "__name__": "plugin"})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("source", [IN_A_LOOP, NAMELESS])
async def test_what_a_loop_defines_and_what_has_no_name_is_called_as_often(source: str) -> None:
    dispatcher, log = Dispatcher(), []
    _plugin(dispatcher, log, source, "cell")
    await _hear(plain("a"), dispatcher)
    assert log == ["one", "two"]


@pytest.mark.parametrize("source", [IN_A_LOOP, NAMELESS])
async def test_and_they_are_replaced_when_their_cell_is_run_again(source: str) -> None:
    dispatcher, log = Dispatcher(), []
    _plugin(dispatcher, log, source, "cell")
    with pytest.warns(UserWarning, match="was registered before"):
        _plugin(dispatcher, log, source, "cell")
    await _hear(plain("a"), dispatcher)
    assert log == ["one", "two"]


async def test_a_script_whose_compiled_code_runs_again_replaces_too() -> None:
    """As Streamlit does it: one code object, a new module each time."""
    dispatcher, log = Dispatcher(), []
    code = compile(CELL.format(says="script", options=""), "script.py", "exec")
    exec(code, {"client": dispatcher, "log": log, "__name__": "__main__"})
    with pytest.warns(UserWarning, match="was registered before"):
        exec(code, {"client": dispatcher, "log": log, "__name__": "__main__"})
    await _hear(plain("a"), dispatcher)
    assert log == ["script"]


@pytest.mark.filterwarnings("error")
async def test_modules_of_the_same_name_from_two_files_are_two() -> None:
    """As plugins are loaded, and as doctests run."""
    dispatcher, log = Dispatcher(), []
    for says in ("one", "two"):
        _plugin(dispatcher, log, CELL.format(says=says, options=""), f"{says}/plugin.py")
    await _hear(plain("a"), dispatcher)
    assert log == ["one", "two"]


@pytest.mark.filterwarnings("error::UserWarning")
async def test_a_warning_that_is_an_error_leaves_what_was_registered() -> None:
    dispatcher, log = Dispatcher(), []
    _cell(dispatcher, log, "first")
    with pytest.raises(UserWarning, match="was registered before"):
        _cell(dispatcher, log, "second")
    await _hear(plain("a"), dispatcher)
    assert log == ["first"]


async def test_middleware_that_is_defined_again_takes_its_earlier_place() -> None:
    cell = (
        "@client.middleware\ndef around(request, send):\n log.append(says)\n return send(request)"
    )
    client, _ = client_over(Answer(body(plain("a"))))
    log: list[str] = []
    exec(cell, {"client": client, "log": log, "says": "first", "__name__": "notebook"})
    with pytest.warns(UserWarning, match="middleware around was registered before"):
        exec(cell, {"client": client, "log": log, "says": "second", "__name__": "notebook"})
    await client.chat("Hi")
    assert log == ["second"]


async def test_middleware_that_a_loop_defines_is_replaced_as_a_whole() -> None:
    cell = (
        "for n in (1, 2):\n @client.middleware\n def around(request, send, n=n):\n"
        "  log.append((says, n))\n  return send(request)"
    )
    client, _ = client_over(Answer(body(plain("a"))))
    log: list[tuple[str, int]] = []
    names: dict[str, Any] = {"client": client, "log": log, "__name__": "notebook"}
    exec(cell, names | {"says": "first"})
    with pytest.warns(UserWarning, match="middleware around was registered before"):
        exec(cell, names | {"says": "second"})
    await client.chat("Hi")
    assert log == [("second", 1), ("second", 2)]


# --- removal -------------------------------------------------------------------------------------


async def test_a_function_is_removed_wherever_it_was_registered_here() -> None:
    """However often, for whatever event, with whatever options; the others stay, in order."""
    dispatcher, log = Dispatcher(), []

    def gone(event: Any) -> None:
        log.append("gone")

    def stays(event: Any) -> None:
        log.append("stays")

    dispatcher.on_message_start(gone)
    dispatcher.on_message_start(stays)
    dispatcher.on_content_delta(where=lambda event: True, once=True)(gone)
    dispatcher.on_event(gone)
    dispatcher.on_error()(gone)
    dispatcher.event_middleware(gone)
    dispatcher.remove(gone)
    await _hear(plain(), dispatcher)
    assert log == ["stays"]
    with pytest.raises(ValueError, match="gone is not registered here"):
        dispatcher.remove(gone)


class _Counter:
    """Its method is another object each time it is looked up."""

    def __init__(self) -> None:
        self.count = 0

    def hear(self, event: Event) -> None:
        self.count += 1


async def test_a_method_is_removed_for_its_own_object_alone() -> None:
    """By equality: same function, same object."""
    mine, other, dispatcher = _Counter(), _Counter(), Dispatcher()
    for each in (mine, other):
        dispatcher.on_message_start(each.hear)
    dispatcher.remove(mine.hear)
    await _hear(plain(), dispatcher)
    assert (mine.count, other.count) == (0, 1)


async def test_partials_and_callable_objects_are_removed_as_they_were_given() -> None:
    """The very object."""
    dispatcher = Dispatcher()
    for each in (functools.partial(print, "x"), Mock()):
        dispatcher.on_message_start(each)
        dispatcher.remove(each)
        dispatcher.on_message_start(each)
        with pytest.raises(ValueError, match="not registered here"):
            dispatcher.remove(functools.partial(print, "x"))
        dispatcher.remove(each)
    assert dispatcher.registrations() == []


async def test_what_was_included_is_removed_as_it_was_included() -> None:
    """A dispatcher or a handler instance, however often; the next stream does not hear it."""
    outer, inner, ui, twin = Dispatcher(), Dispatcher(), Ui(), Ui()
    heard: list[Event] = []
    inner.on_message_start(heard.append)
    for each in (inner, ui, twin, inner, ui):
        outer.include(each)
    outer.remove(inner)
    outer.remove(ui)
    await _hear(plain("a"), outer)
    assert (heard, ui.log, twin.log) == ([], [], ["start", "a"])
    assert len(inner.registrations()) == 1, "it still works elsewhere"
    outer.include(ui)
    await _hear(plain("a"), outer)
    assert ui.log == ["start", "a"]


@pytest.mark.parametrize("unknown", [print, Dispatcher(), Ui(), None, "text", _Counter().hear])
async def test_what_is_not_registered_here_cannot_be_removed(unknown: Any) -> None:
    """It is named, and nothing is changed."""
    dispatcher, inner = Dispatcher(), Dispatcher()
    inner.on_event(print)
    dispatcher.include(inner)
    dispatcher.include(Ui())
    dispatcher.on_event(_Counter().hear)
    before = dispatcher.registrations()
    with pytest.raises(ValueError, match="is not registered here"):
        dispatcher.remove(unknown)
    assert dispatcher.registrations() == before


async def test_streams_that_have_started_keep_what_was_removed() -> None:
    """A handler may remove itself: it is heard to the end of this stream, and not in the next."""
    dispatcher, inner, log = Dispatcher(), Dispatcher(), []

    @dispatcher.on_event
    def leaves(event: Event) -> None:
        log.append(event.type)
        if isinstance(event, MessageStart):
            dispatcher.remove(leaves)
            dispatcher.remove(inner)

    inner.on_message_end(lambda event: log.append("inner"))
    dispatcher.include(inner)
    await _hear(plain("a"), dispatcher)
    await _hear(plain("b"), dispatcher)
    assert log == [*(event.type for event in plain("a")), "inner"]


async def test_a_stream_that_was_made_but_not_begun_does_not_hear_what_was_removed() -> None:
    """It starts with its first event."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.on_event(heard.append)
    stream = make_stream(Answer(body(plain())), handlers=[dispatcher])
    dispatcher.remove(heard.append)
    await stream
    assert heard == []


# --- refusals ------------------------------------------------------------------------------------


def _no_parameters() -> None: ...
def _three(a: Any, b: Any, c: Any) -> None: ...
def _keyword(event: Any, *, key: str) -> None: ...
def _generator(event: Any) -> Any:
    yield event


async def _async_generator(event: Any) -> Any:
    yield event


@pytest.mark.parametrize(
    "function", [_no_parameters, _three, _keyword, _generator, _async_generator, "no function"]
)
def test_a_handler_of_the_wrong_shape_is_refused_at_registration(function: Any) -> None:
    """Wrong arity is a TypeError that names the handler, before anything is streamed."""
    with pytest.raises(TypeError, match="handler"):
        Dispatcher().on(ContentDelta)(function)


@pytest.mark.parametrize("types", [(), (int,), ("content-delta",)])
def test_on_refuses_what_is_no_event_class(types: Any) -> None:
    """on() without or with other classes is a TypeError."""
    with pytest.raises(TypeError, match="event class"):
        Dispatcher().on(*types)


def test_on_error_refuses_what_is_no_exception_class() -> None:
    """`@x.on_error` without parentheses is the likely mistake."""
    with pytest.raises(TypeError, match="exception classes"):
        Dispatcher().on_error(lambda error: None)  # type: ignore[type-var]


def test_where_must_be_a_plain_function() -> None:
    """A filter is not awaited, so an asynchronous one is refused."""

    async def later(event: Any) -> bool:
        return True

    with pytest.raises(TypeError, match="where="):
        Dispatcher().on_event(where=later)(print)  # type: ignore[arg-type]


def test_a_dispatcher_cannot_include_itself() -> None:
    """Neither directly nor through another."""
    outer, inner = Dispatcher(), Dispatcher()
    outer.include(inner)
    for other in (inner, outer):
        with pytest.raises(ValueError, match="include itself"):
            inner.include(outer) if other is inner else outer.include(outer)


async def test_handlers_must_be_instances() -> None:
    """The class instead of an instance is refused by name."""
    with pytest.raises(TypeError, match="pass an instance"):
        make_stream(Answer(), handlers=[Ui])  # type: ignore[list-item]


# --- failures of handlers ------------------------------------------------------------------------


async def test_a_raising_handler_stops_the_stream_unwrapped_with_a_note() -> None:
    """Its own exception, a note with its name and the event, the connection closed."""
    dispatcher, answer, heard = Dispatcher(), Answer(body(plain())), []
    error = RuntimeError("mine")

    @dispatcher.on_content_delta
    async def broken(event: ContentDelta) -> None:
        raise error

    dispatcher.on_content_delta(heard.append)
    with pytest.raises(RuntimeError) as caught:
        await make_stream(answer, handlers=[dispatcher])
    assert caught.value is error
    assert "broken for a content-delta event" in caught.value.__notes__[0]
    assert answer.closed
    assert heard == []


@pytest.mark.parametrize("result", [True, False, None, 1])
async def test_on_error_recovers_a_handlers_failure_by_returning_true(result: Any) -> None:
    """Only True: the next handler runs and the stream goes on; anything else raises."""
    dispatcher, heard, errors = Dispatcher(), [], []

    @dispatcher.on_content_delta
    def broken(event: ContentDelta) -> None:
        raise ValueError(event.text)

    dispatcher.on_content_delta(lambda event: heard.append(event.text))

    @dispatcher.on_error(KeyError)
    def other(error: KeyError) -> bool:
        raise AssertionError("not for me")

    @dispatcher.on_error(ValueError)
    async def judge(error: ValueError, ctx: Context) -> Any:
        errors.append((str(error), ctx.snapshot.text))
        return result

    if result is True:
        await _hear(plain("a", "b"), dispatcher)
        assert (heard, errors) == (["a", "b"], [("a", "a"), ("b", "ab")])
    else:
        with pytest.raises(ValueError, match="a"):
            await _hear(plain("a", "b"), dispatcher)
        assert (heard, errors) == ([], [("a", "a")])


async def test_on_error_sees_the_streams_failure_which_is_raised_all_the_same() -> None:
    """True does not hide that the answer failed; it is told once."""
    dispatcher, seen = Dispatcher(), []

    @dispatcher.on_error(GenerationError)
    def note(error: GenerationError) -> bool:
        seen.append(error)
        return True

    with pytest.raises(GenerationError) as caught:
        await _hear(failed(), dispatcher)
    assert seen == [caught.value]


async def test_stop_async_iteration_of_a_handler_does_not_end_the_answer() -> None:
    """It would look like a complete answer; it becomes a RuntimeError, as in a generator."""
    stream = make_stream(Answer(body(plain())))

    @stream.on_content_delta
    async def exhausted(event: ContentDelta) -> None:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="exhausted raised StopAsyncIteration"):
        async for _ in stream:
            pass


async def test_an_error_of_another_stream_keeps_its_own_facts() -> None:
    """A handler that consumes a second stream passes that one's failure on untouched."""
    dispatcher = Dispatcher()

    @dispatcher.on_content_delta
    async def nested(event: ContentDelta) -> None:
        await make_stream(Answer(*pieces(plain("inner"))[:3]))

    with pytest.raises(TruncatedStreamError) as caught:
        await _hear(plain("outer"), dispatcher)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "inner"


async def test_on_error_is_frozen_with_the_other_handlers_and_named_when_it_raises() -> None:
    """Registering during the stream is refused. Raising: its own exception, with a note."""
    stream = make_stream(Answer(*pieces(plain("a"))[:3]))

    @stream.on_error()
    def broken(error: Exception) -> None:
        raise KeyError("mine")

    @stream.on_message_start
    def late(event: MessageStart) -> None:
        for register in (stream.on_error(), stream.on_event):
            with pytest.raises(RuntimeError, match="before you consume"):
                register(print)

    with pytest.raises(KeyError) as caught:
        await stream
    assert "broken" in caught.value.__notes__[0]


def test_mocks_are_handlers() -> None:
    """A mock has every attribute; registering one must not loop."""
    dispatcher = Dispatcher()
    for mock in (Mock(), AsyncMock()):
        dispatcher.on_event(mock)
        dispatcher.on_event(where=Mock())(print)
    assert len(dispatcher.registrations()) == 4


@pytest.mark.parametrize("cls", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
async def test_exits_pass_through_handlers_untouched(cls: type[BaseException]) -> None:
    """Not on_error's business: the connection is closed and the exception goes on."""
    dispatcher, answer = Dispatcher(), Answer(body(plain()))

    @dispatcher.on_error()
    def never(error: Exception) -> bool:
        raise AssertionError("not for me")

    @dispatcher.on_message_start
    def leave(event: MessageStart) -> None:
        raise cls

    stream = make_stream(answer, handlers=[dispatcher])
    try:
        await stream
        outcome: type[BaseException] | None = None
    except BaseException as error:
        outcome = type(error)
    assert outcome is cls
    assert answer.closed


async def test_a_handler_may_close_its_stream_and_start_another() -> None:
    """aclose() in a handler ends the stream after the event; other streams run inside."""
    dispatcher, inner_texts = Dispatcher(), []

    @dispatcher.on_content_delta
    async def enough(event: ContentDelta, ctx: Context) -> None:
        inner_texts.append((await make_stream(Answer(body(plain("in"))))).text)
        await ctx.stream.aclose()

    stream, seen = make_stream(Answer(body(plain("a", "b"))), handlers=[dispatcher]), []
    with pytest.raises(TransportError, match="closed"):
        async for event in stream:
            seen.append(event)
    assert seen == plain("a", "b")[:3]
    assert inner_texts == ["in"]


async def test_decorators_return_the_function_unchanged() -> None:
    """So that handlers can be called, tested and registered elsewhere."""

    async def handler(event: Any) -> None: ...

    dispatcher = Dispatcher()
    assert dispatcher.on_content_delta(handler) is handler
    assert dispatcher.on_content_delta(once=True)(handler) is handler
    assert dispatcher.on(MessageEnd)(handler) is handler
    assert dispatcher.on_error(ValueError)(handler) is handler


async def test_a_client_takes_back_what_it_was_given() -> None:
    """Functions, middleware, and what was included."""
    client, _ = client_over(Answer(body(plain("a"))), Answer(body(plain("a"))))
    log: list[Any] = []
    inner = Dispatcher()
    inner.on_message_start(log.append)

    def around(request: Any, send: Any) -> Any:
        log.append("around")
        return send(request)

    client.on_message_start(log.append)
    client.event_middleware(_unchanged)
    client.middleware(around)
    client.include(inner)
    await client.chat("Hi")
    assert len(log) == 3
    for each in (log.append, _unchanged, around, inner):
        client.remove(each)
        with pytest.raises(ValueError, match="is not registered here"):
            client.remove(each)
    await client.chat("Hi")
    assert len(log) == 3


def _unchanged(event: Event) -> Event:
    return event
