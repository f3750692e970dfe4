"""Tools and parsed answers as users write them; never run, only type-checked.

A line that must be an error carries an ignore with its code: were it none, the checkers would report
the ignore as unused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypedDict, assert_never, assert_type

import attrs
import msgspec
import pydantic

from streamchat import (
    ChatResponse,
    Citation,
    CitationEnd,
    CitationStart,
    Client,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Context,
    Debug,
    DocumentContent,
    Event,
    FunctionTool,
    MessageEnd,
    MessageStart,
    ParsedAnswer,
    StepEnd,
    StepEvent,
    StepStart,
    TextContent,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    ToolProgress,
    ToolResult,
    ToolRun,
    UnknownEvent,
    tool,
)

client = Client("k", base_url="https://x", model="m")

# --- a function keeps its types ------------------------------------------------------------------


@tool
async def get_weather(city: str, days: int = 1) -> dict[str, float]:
    """Forecast. city: name of the city"""
    return {city: days}


@tool(name="add_up", description="Adds.", strict=True, timeout=2.5)
def add(a: int, b: int) -> int:
    return a + b


@tool()
async def clock() -> str:
    return "noon"


def plain(city: str) -> str:
    return city


async def tools_are_called_as_before() -> None:
    assert_type(await get_weather("Lima", days=2), dict[str, float])
    assert_type(add(1, b=2), int)
    assert_type(await clock(), str)
    assert_type(tool(plain)("Lima"), str)
    await get_weather(3)  # type: ignore[arg-type]
    await get_weather("Lima", dais=2)  # type: ignore[call-arg]
    add(1)  # type: ignore[call-arg]
    assert_type(add.name, str)
    assert_type(add.description, str | None)
    assert_type(add.parameters, Mapping[str, Any])
    is_a_tool: Tool = get_weather
    is_callable: Callable[[str], str] = tool(plain)
    gives: Callable[[], Coroutine[Any, Any, str]] = clock
    made: FunctionTool[..., int] = add
    client.chat_stream("Hi", tools=[is_a_tool, made, get_weather])
    await gives()
    is_callable("Lima")


tool(3)  # type: ignore[call-overload]
tool(name=3)  # type: ignore[call-overload]
tool(tiemout=3)  # type: ignore[call-overload]


# --- methods, generators, contexts ---------------------------------------------------------------


class Shop:
    @tool
    async def price(self, item: str, count: int = 1) -> float:
        return 1.5 * count

    @tool(name="stock", timeout=2)
    def in_stock(self, item: str, ctx: Context | None = None) -> bool:
        return True

    @tool
    async def search(self, words: str) -> AsyncIterator[str]:
        yield words

    @classmethod
    @tool
    def of_class(cls, item: str) -> str:
        return item

    @staticmethod
    @tool
    def of_nothing(item: str) -> str:
        return item

    async def raw(self, item: str) -> str:
        return item


async def methods_bind() -> None:
    shop = Shop()
    assert_type(await shop.price("pen", count=2), float)
    assert_type(shop.in_stock("pen"), bool)
    async for found in shop.search("pen"):
        assert_type(found, str)
    assert_type(await Shop.price(shop, "pen"), float)
    is_a_tool: Tool = shop.price
    gives: Callable[[str], Coroutine[Any, Any, float]] = shop.price
    await gives("pen")
    await shop.price(3)  # type: ignore[arg-type]
    await shop.price(shop, "pen")  # type: ignore[arg-type]
    shop.in_stock("pen", size=3)  # type: ignore[call-arg]
    client.run_tools(
        "Hi", tools=[shop.price, shop.raw, shop.search, Shop.of_class, shop.of_nothing]
    )
    client.chat_stream("Hi", tools=[is_a_tool, shop.raw, plain, {"type": "function"}])
    client.fan_out(["Hi"], tools=[plain, shop.price])
    client.chat_stream("Hi", tools=[3])  # type: ignore[list-item]


# --- approval ------------------------------------------------------------------------------------


async def ask(call: ToolCall) -> bool | str:
    assert_type(call.partial, dict[str, Any])
    return call.name == "price" or "only prices"


def ask_with_context(call: ToolCall, ctx: Context) -> bool:
    return bool(ctx.data)


async def answers_nothing(call: ToolCall) -> None: ...
async def answers_a_number(call: ToolCall) -> float:
    return 1.5


def takes_an_event(event: ToolResult) -> bool:
    return True


def approvals() -> None:
    client.run_tools("Hi", tools=[plain], approve=ask)
    client.run_tools("Hi", tools=[plain], approve=ask_with_context)
    client.run_tools("Hi", tools=[plain], approve=lambda call: call.name == "plain")
    client.run_tools("Hi", tools=[plain], approve=None)
    client.run_tools("Hi", tools=[plain], approve=answers_nothing)  # type: ignore[arg-type]
    client.run_tools("Hi", tools=[plain], approve=answers_a_number)  # type: ignore[arg-type]
    client.run_tools("Hi", tools=[plain], approve=takes_an_event)  # type: ignore[arg-type]
    client.run_tools("Hi", tools=[plain], approve=True)  # type: ignore[arg-type]


# --- runs ----------------------------------------------------------------------------------------


def tell(error: Exception, call: ToolCall) -> str:
    return call.name


async def tool_runs() -> None:
    run = client.run_tools(
        "Hi", tools=[get_weather, add, plain], max_steps=3, on_tool_error=tell, temperature=0.3
    )
    assert_type(run, ToolRun)
    assert_type(await run, ChatResponse)
    assert_type(run.messages, list[dict[str, Any]])
    async with run as entered:
        assert_type(entered, ToolRun)
    async for piece in run.text():
        assert_type(piece, str)
    async for event in run:
        assert_type(event, Event | StepStart | ToolProgress | ToolResult | StepEnd)
        match event:
            case StepStart():
                assert_type(event.step, int)
            case ToolProgress():
                assert_type(event.tool_call, ToolCall)
                assert_type(event.name, str)
            case ToolResult():
                assert_type(event.tool_call, ToolCall)
                assert_type(event.error, str | None)
                assert_type(event.exception, Exception | None)
                assert_type(event.seconds, float)
            case StepEnd():
                assert_type(event.response, ChatResponse)
                assert_type(event.results, list[ToolResult])
            case ContentDelta():
                assert_type(event.text, str)
            case _:
                pass
        if isinstance(event, ToolResult):
            assert_type(event.name, str)
    async for event in run:
        if event.type == "tool-result":
            assert_type(event, ToolResult)
        elif event.type == "step-end":
            assert_type(event, StepEnd)
        elif event.type == "content-delta":
            assert_type(event, ContentDelta)
    client.run_tools("Hi")  # type: ignore[call-arg]
    client.run_tools("Hi", tools=[3])  # type: ignore[list-item]
    client.run_tools("Hi", tools=[get_weather], on_tool_error="ignore")  # type: ignore[arg-type]
    client.run_tools("Hi", tools=[get_weather], response_format={})  # type: ignore[call-arg]


def every_event_of_a_run_is_known(event: Event | StepEvent) -> str:
    match event:
        case StepStart() | StepEnd() | ToolProgress() | ToolResult():
            return event.type
        case MessageStart() | ContentStart() | ContentDelta() | ContentEnd() | MessageEnd():
            return event.type
        case ToolPlanDelta() | ToolCallStart() | ToolCallDelta() | ToolCallEnd():
            return event.type
        case CitationStart() | CitationEnd():
            assert_type(event.citation, Citation)
            return event.type
        case Debug() | UnknownEvent():
            return event.type
        case _:
            assert_never(event)


@client.on_tool_result
async def result(event: ToolResult, ctx: Context) -> None:
    assert_type(event.message.content, str | list[TextContent | DocumentContent])


@client.on_step_start(once=True)
def start(event: StepStart) -> None: ...


@client.on(StepEnd, MessageEnd)
def ended(event: StepEnd | MessageEnd) -> None:
    assert_type(event.response, ChatResponse)


@client.on_tool_progress
async def progress(event: ToolProgress, ctx: Context) -> None:
    assert_type(event.tool_call, ToolCall)


@client.on(ToolProgress, ToolResult)
def either(event: ToolProgress | ToolResult) -> None: ...


client.on_tool_progress(result)  # type: ignore[arg-type]
client.on_tool_result(progress)  # type: ignore[arg-type]
client.on_step_end(start)  # type: ignore[arg-type]
client.on_tool_result(ended)  # type: ignore[arg-type]

# --- parsed answers ------------------------------------------------------------------------------


@attrs.define
class Order:
    item: str
    count: int


@dataclasses.dataclass
class Ticket:
    title: str


class Row(TypedDict):
    key: int


class Spot(NamedTuple):
    x: int


class Struct(msgspec.Struct):
    a: int


class Model(pydantic.BaseModel):
    a: int


@tool
async def takes_a_model(model: Model, spot: Spot) -> Model:
    return model


async def answers_of_other_libraries() -> None:
    assert_type(await client.parse("Hi", into=Spot), Spot)
    assert_type(await client.parse("Hi", into=Struct), Struct)
    assert_type((await client.parse("Hi", into=Model)).a, int)
    assert_type(await takes_a_model(Model(a=1), Spot(1)), Model)
    client.run_tools("Hi", tools=[takes_a_model], max_calls=9)
    client.run_tools("Hi", tools=[takes_a_model], max_calls="9")  # type: ignore[arg-type]


async def parsed_answers() -> None:
    assert_type(await client.parse("Hi", into=Order), Order)
    assert_type(await client.parse("Hi", into=Ticket, repair=True, temperature=0.1), Ticket)
    row = await client.parse("Hi", into=Row)
    assert_type(row, Row)
    assert_type(row["key"], int)
    run = client.parse("Hi", into=Order)
    assert_type(run, ParsedAnswer[Order])
    assert_type(run.response, ChatResponse | None)
    assert_type(run.partial, Any)
    async with run as entered:
        assert_type(entered, ParsedAnswer[Order])
    async for event in run:
        assert_type(event, Event)
    run.on_content_delta(delta)
    client.parse("Hi")  # type: ignore[call-arg]
    client.parse("Hi", into=Order, tools=[])  # type: ignore[call-arg]
    client.parse("Hi", into="Order")  # type: ignore[arg-type]


def delta(event: ContentDelta) -> None: ...
