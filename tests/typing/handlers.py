"""Every decorator as users write it; never run, only type-checked, as ``api.py`` is.

A line that must be an error carries an ignore with its code: were it none, the checkers would report
the ignore as unused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_type

import attrs

from streamchat import (
    ChatRequest,
    ChatResponse,
    ChatStream,
    CitationEnd,
    CitationStart,
    Client,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Context,
    Debug,
    Dispatcher,
    Event,
    GenerationError,
    Handler,
    MessageEnd,
    MessageStart,
    Send,
    StepEnd,
    StepStart,
    StreamChatError,
    StreamTimeoutError,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    ToolResult,
    TransportError,
    UnknownEvent,
)

client = Client("k", model="m")
dispatcher = Dispatcher()
stream: ChatStream = client.chat_stream("Hi")
a_context = Context(lambda: None, stream.request, None, None)


# --- one decorator an event, bare and with options -----------------------------------------------


@client.on_message_start
async def message_start(event: MessageStart) -> None: ...
@client.on_message_start(where=lambda event: event.id != "", once=True, timeout=1)
async def message_start_with(event: MessageStart, ctx: Context) -> None: ...


@client.on_content_start
async def content_start(event: ContentStart) -> None: ...
@client.on_content_start(where=lambda event: event.kind == "text", once=True, timeout=1)
async def content_start_with(event: ContentStart, ctx: Context) -> None: ...


@client.on_content_delta
async def content_delta(event: ContentDelta) -> None: ...
@client.on_content_delta(where=lambda event: event.text != "", once=True, timeout=0.5)
async def content_delta_with(event: ContentDelta, ctx: Context) -> None: ...


@client.on_content_delta(background=True, max_queue=16)
async def content_delta_background(event: ContentDelta) -> None: ...
@client.on_content_delta(every=1, where=lambda event: event.kind == "text")
def content_delta_paced(event: ContentDelta, ctx: Context) -> None: ...
@stream.on(ToolCallDelta, ContentDelta)(every=0.5, timeout=2.0)
async def deltas_paced(event: ToolCallDelta | ContentDelta) -> None: ...
@client.on_content_delta(every="1")  # type: ignore[call-overload, untyped-decorator]
async def paced_by_text(event: ContentDelta) -> None: ...
@client.on_content_delta(background=True)  # type: ignore[arg-type]
async def background_of_another_event(event: MessageEnd) -> None: ...


client.remove(content_delta_paced)


@client.on_content_end
async def content_end(event: ContentEnd) -> None: ...
@client.on_content_end(where=lambda event: event.index == 0, once=True, timeout=None)
async def content_end_with(event: ContentEnd, ctx: Context) -> None: ...


@client.on_tool_plan_delta
async def tool_plan_delta(event: ToolPlanDelta) -> None: ...
@client.on_tool_plan_delta(where=lambda event: event.tool_plan != "", once=True, timeout=1)
async def tool_plan_delta_with(event: ToolPlanDelta, ctx: Context) -> None: ...


@client.on_tool_call_start
async def tool_call_start(event: ToolCallStart) -> None: ...
@client.on_tool_call_start(where=lambda event: event.tool_call.name == "x", once=True, timeout=1)
async def tool_call_start_with(event: ToolCallStart, ctx: Context) -> None: ...


@client.on_tool_call_delta
async def tool_call_delta(event: ToolCallDelta) -> None: ...
@client.on_tool_call_delta(where=lambda event: event.arguments != "", once=True, timeout=1)
async def tool_call_delta_with(event: ToolCallDelta, ctx: Context) -> None: ...


@client.on_tool_call_end
async def tool_call_end(event: ToolCallEnd) -> None: ...
@client.on_tool_call_end(where=lambda event: event.tool_call.name == "x", once=True, timeout=1)
async def tool_call_end_with(event: ToolCallEnd, ctx: Context) -> None: ...


@client.on_citation_start
async def citation_start(event: CitationStart) -> None: ...
@client.on_citation_start(where=lambda event: event.citation.text != "", once=True, timeout=1)
async def citation_start_with(event: CitationStart, ctx: Context) -> None: ...


@client.on_citation_end
async def citation_end(event: CitationEnd) -> None: ...
@client.on_citation_end(where=lambda event: event.citation.text != "", once=True, timeout=1)
async def citation_end_with(event: CitationEnd, ctx: Context) -> None: ...


@client.on_message_end
async def message_end(event: MessageEnd) -> None: ...
@client.on_message_end(where=lambda event: event.error is None, once=True, timeout=1)
async def message_end_with(event: MessageEnd, ctx: Context) -> None: ...


@client.on_debug
async def debug(event: Debug) -> None: ...
@client.on_debug(where=lambda event: event.prompt is not None, once=True, timeout=1)
async def debug_with(event: Debug, ctx: Context) -> None: ...


@client.on_unknown
async def unknown(event: UnknownEvent) -> None: ...
@client.on_unknown(where=lambda event: "n" in event.data, once=True, timeout=1)
async def unknown_with(event: UnknownEvent, ctx: Context) -> None: ...


@client.on_step_start
async def step_start(event: StepStart) -> None: ...
@client.on_step_start(where=lambda event: event.step > 1, once=True, timeout=1)
async def step_start_with(event: StepStart, ctx: Context) -> None: ...


@client.on_tool_result
async def tool_result(event: ToolResult) -> None: ...
@client.on_tool_result(where=lambda event: event.exception is not None, once=True, timeout=1)
async def tool_result_with(event: ToolResult, ctx: Context) -> None: ...


@client.on_step_end
async def step_end(event: StepEnd) -> None: ...
@client.on_step_end(where=lambda event: event.response.text != "", once=True, timeout=1)
async def step_end_with(event: StepEnd, ctx: Context) -> None: ...


@client.on_event
async def every(event: Event) -> None: ...
@client.on_event(where=lambda event: event.type != "debug", once=True, timeout=1)
async def every_with(event: Event, ctx: Context) -> None: ...


# --- all of them on whatever can be listened to, plain functions too -----------------------------


@dispatcher.on_content_delta
def on_a_dispatcher(event: ContentDelta) -> None: ...
@stream.on_content_delta
def on_a_stream(event: ContentDelta, ctx: Context) -> int:
    return 1


class Counter:
    def method(self, event: ContentDelta) -> None: ...

    async def __call__(self, event: ContentDelta, ctx: Context) -> None: ...


dispatcher.on_content_delta(Counter().method)
dispatcher.on_content_delta(Counter())
dispatcher.on_content_delta(lambda event: print(event.text))
dispatcher.on_content_delta(lambda event, ctx: print(event.text, ctx.snapshot.text))
dispatcher.on_content_delta(on_a_dispatcher)


def of_any_event(event: Event) -> None: ...
def of_anything(event: object) -> None: ...


dispatcher.on_content_delta(of_any_event)  # a handler of more events is one of this event too
dispatcher.on_unknown(of_anything)


# --- the function comes back with its type -------------------------------------------------------


# (What `async def` makes is a `Coroutine` to mypy and a `CoroutineType` to pyright: no `assert_type`.)
Done = Coroutine[Any, Any, None]
kept: Callable[[ContentDelta], Done] = content_delta
kept_with: Callable[[ContentDelta, Context], Done] = content_delta_with
kept_step: Callable[[StepEnd], Done] = step_end
assert_type(on_a_dispatcher, Callable[[ContentDelta], None])
assert_type(on_a_stream, Callable[[ContentDelta, Context], int])
assert_type(client.on_event(of_any_event), Callable[[Event], None])
assert_type(client.on_content_delta(once=True)(on_a_stream), Callable[[ContentDelta, Context], int])


async def they_can_be_called_and_awaited_as_before(event: ContentDelta, ctx: Context) -> None:
    assert_type(await content_delta(event), None)
    assert_type(await content_delta_with(event, ctx), None)
    await content_delta(event, ctx)  # type: ignore[call-arg]
    await content_delta(MessageStart())  # type: ignore[arg-type]


# --- a handler of the wrong event, or of the wrong shape, is an error ----------------------------


async def of_nothing() -> None: ...
async def of_three(event: Any, ctx: Context, more: int) -> None: ...
async def of_two_events(event: ContentDelta, other: ContentDelta) -> None: ...


client.on_message_start(content_delta)  # type: ignore[arg-type]
client.on_content_start(content_delta)  # type: ignore[arg-type]
client.on_content_delta(message_end)  # type: ignore[arg-type]
client.on_content_end(content_delta)  # type: ignore[arg-type]
client.on_tool_plan_delta(content_delta)  # type: ignore[arg-type]
client.on_tool_call_start(content_delta)  # type: ignore[arg-type]
client.on_tool_call_delta(content_delta)  # type: ignore[arg-type]
client.on_tool_call_end(content_delta)  # type: ignore[arg-type]
client.on_citation_start(content_delta)  # type: ignore[arg-type]
client.on_citation_end(content_delta)  # type: ignore[arg-type]
client.on_message_end(content_delta)  # type: ignore[arg-type]
client.on_debug(content_delta)  # type: ignore[arg-type]
client.on_unknown(content_delta)  # type: ignore[arg-type]
client.on_step_start(content_delta)  # type: ignore[arg-type]
client.on_tool_result(content_delta)  # type: ignore[arg-type]
client.on_step_end(content_delta)  # type: ignore[arg-type]
client.on_event(content_delta)  # type: ignore[arg-type]
client.on_event(step_start)  # type: ignore[arg-type]
client.on_step_start(every)  # type: ignore[arg-type]
client.on_content_delta(of_nothing)  # type: ignore[arg-type]
client.on_content_delta(of_three)  # type: ignore[arg-type]
client.on_content_delta(of_two_events)  # type: ignore[arg-type]
client.on_content_delta("text")  # type: ignore[call-overload]
client.on_content_delta(timeout="1")  # type: ignore[call-overload]
client.on_content_delta(once=1)  # type: ignore[call-overload]
client.on_content_delta(when=True)  # type: ignore[call-overload]
client.on_content_delta(where=lambda event: event.nothing)  # type: ignore[attr-defined]
client.on_content_delta(where=of_two_events)  # type: ignore[arg-type]
client.on_content_delta(once=True)(message_end)  # type: ignore[arg-type]
client.on_step_end(timeout=1)(message_end_with)  # type: ignore[arg-type]


# --- on(): one class, two, three; any class beyond -----------------------------------------------


@dispatcher.on(ContentDelta)
async def one(event: ContentDelta) -> None: ...
@dispatcher.on(ToolCallStart, ToolCallEnd)
async def two(event: ToolCallStart | ToolCallEnd, ctx: Context) -> None:
    assert_type(event.tool_call.name, str)


@dispatcher.on(CitationStart, CitationEnd, MessageEnd)
def three(event: CitationStart | CitationEnd | MessageEnd) -> None: ...
@dispatcher.on(StepStart, StepEnd)(where=lambda event: event.step > 1, once=True)
def steps(event: StepStart | StepEnd) -> None:
    assert_type(event.step, int)


@dispatcher.on(ContentStart, ContentDelta, ContentEnd)(
    where=lambda event: event.index == 0, timeout=1
)
async def three_filtered(event: ContentStart | ContentDelta | ContentEnd) -> None: ...
@dispatcher.on(ToolCallStart, ToolCallDelta, ToolCallEnd, ToolPlanDelta)
async def four(
    event: ToolCallStart | ToolCallDelta | ToolCallEnd | ToolPlanDelta,
) -> None: ...


kept_one: Callable[[ContentDelta], Done] = one
assert_type(three, Callable[[CitationStart | CitationEnd | MessageEnd], None])
dispatcher.on(ContentDelta)(of_any_event)
dispatcher.on(ContentDelta)(two)  # type: ignore[arg-type]
dispatcher.on(ContentDelta, ContentEnd)(one)  # type: ignore[arg-type]
dispatcher.on(ToolCallStart, ToolCallEnd, MessageEnd)(two)  # type: ignore[arg-type]
dispatcher.on(ToolCallStart, MessageEnd)(where=lambda e: e.index > 0)  # type: ignore[union-attr]
dispatcher.on("content-delta")  # type: ignore[call-overload]
dispatcher.on(ContentDelta())  # type: ignore[call-overload]


# --- on_error ------------------------------------------------------------------------------------


@client.on_error()
def any_failure(error: Exception) -> bool:
    return True


@client.on_error(StreamTimeoutError)
async def one_failure(error: StreamTimeoutError, ctx: Context) -> None:
    assert_type(error.seconds, float)


def of_any_error(error: Exception) -> None: ...


@dispatcher.on_error(ValueError)
def not_ours(error: ValueError) -> bool | None:
    return None


@dispatcher.on_error(TransportError, GenerationError)
async def two_failures(error: StreamChatError) -> bool:
    assert_type(error.partial, ChatResponse | None)
    return True


assert_type(any_failure, Callable[[Exception], bool])
kept_error: Callable[[StreamTimeoutError, Context], Done] = one_failure
client.on_error(ValueError)(of_any_error)  # a handler of more errors is one of this one too
client.on_error(ValueError)(one_failure)  # type: ignore[arg-type]
client.on_error()(one_failure)  # type: ignore[arg-type]
client.on_error(TransportError)(of_nothing)  # type: ignore[arg-type]
client.on_error(ContentDelta)  # type: ignore[type-var]
client.on_error(KeyboardInterrupt)  # type: ignore[type-var]
client.on_error(where=of_any_error)  # type: ignore[call-overload]


# --- middleware around events --------------------------------------------------------------------


@client.event_middleware
def as_it_was(event: Event) -> Event:
    return event


@dispatcher.event_middleware
def dropped(event: Event, ctx: Context) -> Event | None:
    return None if ctx.snapshot.text else event


@stream.event_middleware
async def several(event: Event) -> list[Event]:
    return [event, UnknownEvent("x", {})]


@client.event_middleware
async def any_of_it(event: Event, ctx: Context) -> Event | list[Event] | None:
    return ContentDelta("***", event.index) if isinstance(event, ContentDelta) else [event]


assert_type(as_it_was(ContentDelta()), Event)
assert_type(dropped(event=ContentDelta(), ctx=a_context), Event | None)


async def middleware_can_be_called_as_before(event: Event) -> None:
    assert_type(await several(event=event), list[Event])


def says_text(event: Event) -> str:
    return event.type


async def says_text_later(event: Event) -> str:
    return event.type


client.event_middleware(of_nothing)  # type: ignore[type-var]
client.event_middleware(of_three)  # type: ignore[type-var]
client.event_middleware(says_text)  # type: ignore[type-var]
client.event_middleware(says_text_later)  # type: ignore[type-var]
client.event_middleware("text")  # type: ignore[type-var]


# --- middleware around requests ------------------------------------------------------------------


@client.middleware
def stay_short(request: ChatRequest, send: Send) -> ChatStream:
    assert_type(request.max_tokens, int | None)
    answer = send(attrs.evolve(request, max_tokens=500), headers={"X-Trace": "1"})
    assert_type(answer, ChatStream)
    answer.on_message_end(message_end)
    return answer


class Sender:
    def __call__(
        self, request: ChatRequest, /, *, headers: Mapping[str, str] | None = None
    ) -> ChatStream:
        return stream


class Tracing:
    def __call__(self, request: ChatRequest, send: Send, depth: int = 0) -> ChatStream:
        return send(request, headers=None)


tracing = Tracing()
assert_type(client.middleware(tracing), Tracing)
assert_type(stay_short(request=stream.request, send=Sender()), ChatStream)


async def async_middleware(request: ChatRequest, send: Send) -> ChatStream:
    return send(request)


def forgets_to_return(request: ChatRequest, send: Send) -> None:
    send(request)


def takes_one(request: ChatRequest) -> ChatStream:
    return stream


client.middleware(async_middleware)  # type: ignore[type-var]
client.middleware(forgets_to_return)  # type: ignore[type-var]
client.middleware(takes_one)  # type: ignore[type-var]


def sends_wrongly(request: ChatRequest, send: Send) -> ChatStream:
    send({"model": "m"})  # type: ignore[arg-type]
    send(request, {"X-Trace": "1"})  # type: ignore[call-arg]
    send(request, headers={"X-Trace": 1})  # type: ignore[dict-item]
    return send()  # type: ignore[call-arg]


# --- the class style -----------------------------------------------------------------------------


class Everything(Handler):
    async def on_message_start(self, event: MessageStart) -> None: ...
    def on_content_delta(self, event: ContentDelta, ctx: Context) -> None: ...
    async def on_event(self, event: Event) -> None: ...
    def on_unknown(self, event: UnknownEvent) -> None: ...
    async def on_step_start(self, event: StepStart, ctx: Context) -> None: ...
    async def on_tool_result(self, event: ToolResult) -> None: ...
    def on_step_end(self, event: StepEnd) -> None: ...
    def on_error(self, error: Exception, ctx: Context) -> bool:
        return True


dispatcher.include(Everything())
dispatcher.include(Dispatcher())
client.include(Everything())
client.chat_stream("Hi", handlers=[Everything(), dispatcher])
dispatcher.remove(one)
dispatcher.remove(Everything())
dispatcher.remove(dispatcher)
dispatcher.include(Everything)  # type: ignore[arg-type]
dispatcher.include(one)  # type: ignore[arg-type]
dispatcher.remove(5)  # type: ignore[arg-type]
client.chat_stream("Hi", handlers=Everything())  # type: ignore[arg-type]
client.chat_stream("Hi", handlers=[Everything])  # type: ignore[list-item]
