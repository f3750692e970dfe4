"""The public API as users write it; never run, only type-checked (mypy --strict and pyright strict).

A line that must be an error carries an ignore with its code: were it none, the checkers would report
the ignore as unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never, assert_type

import pydantic

from streamchat import (
    ChatResponse,
    ChatStream,
    Citation,
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
    Handler,
    MessageEnd,
    MessageStart,
    Retry,
    StreamChatError,
    TextContent,
    ThinkingContent,
    Timeout,
    Timing,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
    Usage,
    UserMessage,
)
from streamchat.protocol import Accumulator, Frame, FrameDecoder, decode_event, encode_event

client = Client(
    "k", base_url="https://x", model="m", timeout=Timeout(idle=5), retry=Retry(attempts=1)
)
dispatcher = Dispatcher()


# --- handlers of the right shape keep their type -------------------------------------------------


@client.on_content_delta
async def delta(event: ContentDelta) -> None:
    assert_type(event.text, str)


@client.on_content_delta
def plain_with_context(event: ContentDelta, ctx: Context) -> None:
    assert_type(ctx.snapshot, ChatResponse)


@dispatcher.on_tool_call_end(where=lambda event: event.tool_call.name == "x", once=True)
async def call(event: ToolCallEnd, ctx: Context) -> None:
    assert_type(event.tool_call, ToolCall)
    assert_type(event.tool_call.parsed, dict[str, Any])
    assert_type(ctx.stream.timing, Timing)


@dispatcher.on(ToolCallStart, ToolCallEnd)
async def both(event: ToolCallStart | ToolCallEnd) -> None:
    assert_type(event.tool_call, ToolCall)


@dispatcher.on_event
def anything(event: Event) -> None: ...


@dispatcher.on_error(StreamChatError)
async def failed(error: StreamChatError, ctx: Context) -> bool:
    assert_type(error.partial, ChatResponse | None)
    return True


@dispatcher.on_error()
def failed_somehow(error: Exception) -> None: ...


async def handlers_can_be_called_as_before(event: ContentDelta, ctx: Context) -> None:
    await delta(event)
    plain_with_context(event, ctx)


# --- handlers of the wrong event are errors ------------------------------------------------------


async def wants_end(event: MessageEnd) -> None: ...


async def wants_no_argument() -> None: ...


client.on_content_delta(wants_end)  # type: ignore[arg-type]
client.on_content_delta(wants_no_argument)  # type: ignore[arg-type]
dispatcher.on_citation_end(delta)  # type: ignore[arg-type]
dispatcher.on_message_end(once=True)(delta)  # type: ignore[arg-type]
dispatcher.on(ToolCallStart)(wants_end)  # type: ignore[arg-type]
dispatcher.on_error(ValueError)(wants_end)  # type: ignore[arg-type]
client.on_content_delta(where=lambda event: event.nothing)  # type: ignore[attr-defined]
client.on_nothing  # type: ignore[attr-defined]
Client(max_retries=2)  # type: ignore[arg-type]


class Ui(Handler):
    async def on_content_delta(self, event: ContentDelta) -> None: ...

    def on_citation_end(self, event: CitationEnd, ctx: Context) -> None: ...


# --- streams -------------------------------------------------------------------------------------


async def streams() -> None:
    stream = client.chat_stream("Hi", handlers=[Ui(), dispatcher], data=1, temperature=0.3, k=1)
    assert_type(stream, ChatStream)
    assert_type(await stream, ChatResponse)
    assert_type(
        await client.chat([UserMessage("Hi"), await stream, {"role": "user"}]), ChatResponse
    )
    async for event in stream:
        assert_type(event, Event)
    async for piece in stream.text():
        assert_type(piece, str)
    async for frame in stream.frames():
        assert_type(frame, Frame)
    async with stream as entered:
        assert_type(entered, ChatStream)
    client.chat_stream("Hi", extra_body={"a": [1]})
    await client.chat("Hi", extra_body={"a": None})
    client.fan_out(["Hi", {"messages": "Hi", "extra_body": {"a": 1}}], extra_body={"a": 1})
    client.parse("Hi", into=dict, extra_body={"a": 1})
    client.run_tools("Hi", tools=[], extra_body={"a": 1})
    client.chat_stream("Hi", extra_body=[1])  # type: ignore[arg-type]
    Client("k", query={"a": "b"}, extra_body={"a": 1}, insecure_tls=True)
    Client("k", query={"a": 1})  # type: ignore[dict-item]
    Client("k", query=[("a", "b")])  # type: ignore[arg-type]
    assert_type(stream.request.extra_body, Mapping[str, Any] | None)
    client.chat_stream("Hi", temprature=0.3)  # type: ignore[call-arg]
    client.chat_stream("Hi", temperature="hot")  # type: ignore[arg-type]
    client.chat_stream(5)  # type: ignore[arg-type]


async def the_loop_of_the_documentation() -> None:
    async for event in client.chat_stream(
        model="command-a-03-2025", messages=[{"role": "user", "content": "Hello"}]
    ):
        if event.type == "content-delta":
            print(event.delta.message.content.text, end="")


async def the_loop_with_tools_and_citations() -> None:
    async for event in client.chat_stream("Hi"):
        if event.type == "tool-plan-delta":
            print(event.delta.message.tool_plan)
        elif event.type == "tool-call-start":
            print(event.delta.message.tool_calls.function.name)
        elif event.type == "tool-call-delta":
            print(event.delta.message.tool_calls.function.arguments)
        elif event.type == "citation-start":
            print(event.delta.message.citations.text)
        elif event.type == "message-end":
            print(event.delta.finish_reason, event.delta.usage)


# --- events --------------------------------------------------------------------------------------


def every_event_is_known(event: Event) -> str:
    match event:
        case MessageStart():
            return event.id
        case ContentStart() | ContentDelta():
            return event.text + event.thinking + event.kind
        case ContentEnd():
            assert_type(event.content, TextContent | ThinkingContent)
            return str(event.index)
        case ToolPlanDelta():
            return event.tool_plan
        case ToolCallStart() | ToolCallEnd():
            return event.tool_call.name + event.tool_call.arguments
        case ToolCallDelta():
            return event.arguments
        case CitationStart() | CitationEnd():
            assert_type(event.citation, Citation)
            return event.block[event.citation.start : event.citation.end]
        case MessageEnd():
            assert_type(event.usage, Usage)
            assert_type(event.response.usage.billed_units.output_tokens, float | None)
            return event.finish_reason
        case Debug():
            return event.prompt or ""
        case UnknownEvent():
            return event.type
        case _:
            assert_never(event)


def the_pure_core() -> None:
    accumulator = Accumulator()
    for frame in FrameDecoder().feed(b""):
        event = decode_event(frame)
        assert_type(event, Event | None)
        if event is not None:
            assert_type(accumulator.add(event), Event)
            assert_type(encode_event(event), Frame)
    assert_type(accumulator.snapshot(), ChatResponse)


def plain_loops_are_errors(stream: ChatStream) -> None:
    for _ in stream:  # type: ignore[attr-defined]
        pass
    with stream:  # type: ignore[attr-defined]
        pass
    with client:  # type: ignore[attr-defined]
        pass


class Turn(pydantic.BaseModel):
    role: str = "user"
    content: str = "Hi"


async def objects_of_pydantic_are_messages_and_options(settings: dict[str, Any]) -> None:
    answer = await client.chat([Turn()], thinking=Turn(), documents=[Turn()], tools=[Turn()])
    assert_type(answer.to_dict(), dict[str, Any])
    assert_type(MessageEnd("COMPLETE").id, str)
    Client(**settings)
