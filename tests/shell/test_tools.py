"""Tools: what a function becomes, what a model's arguments become, and the loop around both."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import json
import threading
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import jsonschema
import msgspec
import pydantic
import pytest

from streamchat import (
    ChatStream,
    Document,
    DocumentContent,
    FunctionSpec,
    FunctionTool,
    MessageEnd,
    StepEnd,
    StepStart,
    TextContent,
    Tool,
    ToolArgumentsError,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallFunction,
    ToolCallStart,
    ToolError,
    ToolLoopLimitError,
    ToolPlanDelta,
    ToolResult,
    TransportError,
    tool,
)
from tests.fakes import Answer, FakeTransport
from tests.frames import START, cited, end, pieces, plain, thinking, tools
from tests.shell.test_runs import client_over, collect, kinds

CANARY = "canary-7431"


def bodies(transport: FakeTransport) -> list[dict[str, Any]]:
    """What was asked, request by request."""
    return [json.loads(sent) for _, sent in transport.requests]


def calling(*calls: tuple[str, str], reason: str = "TOOL_CALL") -> list[Any]:
    """An answer that calls tools: names and argument texts."""
    events: list[Any] = [START, ToolPlanDelta("I will.")]
    for index, (name, arguments) in enumerate(calls):
        call = ToolCall(f"{name[:8]}_{index}", ToolCallFunction(name, ""))
        events += [ToolCallStart(call, index), ToolCallDelta(arguments, index), ToolCallEnd(index)]
    return [*events, end(reason)]


def call_of(name: str, arguments: str) -> ToolCall:
    return ToolCall(f"{name}_0", ToolCallFunction(name, arguments))


class InlineThread(threading.Thread):
    """A thread that runs at once where it is started: a virtual clock cannot wait for others."""

    def start(self) -> None:
        self.run()


@pytest.fixture
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamchat.calling.Thread", InlineThread)


# --- a function as a tool ------------------------------------------------------------------------


@tool
async def get_weather(city: str, days: int = 1) -> dict[str, Any]:
    """Forecast. city: name of the city"""
    return {"city": city, "days": days}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Forecast.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city"},
                "days": {"type": "integer", "default": 1},
            },
            "required": ["city"],
        },
    },
}


async def test_a_tool_is_the_function_still() -> None:
    """It is called as before, and tells what the model is told."""
    assert await get_weather("Lima", days=2) == {"city": "Lima", "days": 2}
    assert isinstance(get_weather, Tool)
    assert get_weather.name == "get_weather"
    assert get_weather.description == "Forecast."
    assert get_weather.parameters == WEATHER["function"]["parameters"]  # type: ignore[index]
    assert "get_weather" in repr(get_weather)

    @tool(name="add_up", description="Adds.", strict=True, timeout=2.5)
    def add(a: int, b: int) -> int:
        """Not this. a: the first"""
        return a + b

    assert add(1, 2) == 3
    assert (add.name, add.description) == ("add_up", "Adds.")
    assert add.parameters["properties"]["a"]["description"] == "the first"


@pytest.mark.parametrize("how", ["chat_stream", "run_tools", "run_tools of functions"])
async def test_a_tool_is_sent_as_its_definition(how: str) -> None:
    """Exactly the definition of protocol.md 2.4, and nothing of ours beside it."""
    client, transport = client_over(Answer(*pieces(plain())))

    async def get_weather(city: str, days: int = 1) -> None:
        """Forecast. city: name of the city"""

    made = tool(get_weather)
    if how == "chat_stream":
        await client.chat_stream("Hi", tools=[made])
    elif how == "run_tools":
        await client.run_tools("Hi", tools=[made])
    else:
        await client.run_tools("Hi", tools=[get_weather])
    assert bodies(transport) == [
        {
            "model": "command-test",
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [WEATHER],
            "stream": True,
        }
    ]


async def test_a_tool_without_words_sends_none() -> None:
    """No description: no key; no parameters: an empty object."""
    client, transport = client_over(Answer(*pieces(plain())))

    def clock() -> str:
        return "noon"

    await client.run_tools("Hi", tools=[clock])
    parameters = {"type": "object", "properties": {}, "required": []}
    definition = {"type": "function", "function": {"name": "clock", "parameters": parameters}}
    assert bodies(transport)[0]["tools"] == [definition]


class Service:
    def method(self, city: str) -> str:
        return f"method {city}"

    async def later(self, city: str) -> str:
        return f"later {city}"

    @classmethod
    def of_class(cls, city: str) -> str:
        return f"of_class {city}"

    async def __call__(self, city: str) -> str:
        return f"called {city}"


def greet(word: str, city: str) -> str:
    return f"{word} {city}"


async def greet_later(word: str, city: str) -> str:
    return f"{word} {city}"


@functools.wraps(get_weather._callee)
async def around(*args: Any, **kwargs: Any) -> str:
    return f"around {kwargs['city']}"


def gives_awaitable(city: str) -> Any:
    return greet_later("awaitable", city)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (tool(Service().method), "method Lima"),
        (tool(Service().later), "later Lima"),
        (tool(Service.of_class), "of_class Lima"),
        (tool(name="x")(Service()), "called Lima"),
        (tool(name="x")(functools.partial(greet, "hi")), "hi Lima"),
        (tool(name="x")(functools.partial(greet_later, word="hi")), "hi Lima"),
        (tool(around), "around Lima"),
        (tool(gives_awaitable), "awaitable Lima"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
@pytest.mark.usefixtures("inline_threads")
async def test_whatever_can_be_called_can_be_a_tool(made: Any, expected: str) -> None:
    """Methods, objects, partials, what decorators left; async, plain, and plain that is async."""
    assert await made.run(call_of("x", '{"city": "Lima", "word": "never"}')) == expected


@pytest.mark.usefixtures("inline_threads")
async def test_context_variables_reach_the_thread() -> None:
    """A plain function sees the context of the consumer."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    @tool
    def look() -> str:
        return variable.get()

    assert await look.run(call_of("look", "")) == "set"


def été(city: str) -> None: ...
def generates(city: str) -> Any:
    yield city


async def generates_later(city: str) -> Any:
    yield city


BAD_TOOLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: tool(lambda: 1), ValueError, "cannot be called '<lambda>'"),
    (lambda: tool(été), ValueError, "cannot be called 'été'"),
    (lambda: tool(name="a-b")(greet), ValueError, r"tool\(name=\"\.\.\.\"\) names it"),
    (lambda: tool(name="")(greet), ValueError, "cannot be called ''"),
    (lambda: tool(name="2x")(greet), ValueError, "cannot be called '2x'"),
    (lambda: tool(name="x\n")(greet), ValueError, "cannot be called"),
    (lambda: tool(name="٣")(greet), ValueError, "cannot be called"),
    (lambda: tool(name=3)(greet), ValueError, "cannot be called 3"),  # type: ignore[call-overload]
    (lambda: tool(3), TypeError, "takes a function, not int"),  # type: ignore[call-overload]
    (lambda: tool(Service), TypeError, "takes a function"),
    (lambda: tool(int), TypeError, "takes a function"),
    (lambda: tool(get_weather), TypeError, "get_weather is a tool already"),
    (lambda: tool(generates), TypeError, "generator"),
    (lambda: tool(timeout=0)(greet), ValueError, "timeout= of tool greet must be above 0"),
    (lambda: tool(timeout=-1)(greet), ValueError, "above 0"),
    (lambda: tool(timeout=float("inf"))(greet), ValueError, "above 0"),
    (lambda: tool(timeout=float("nan"))(greet), ValueError, "above 0"),
    (lambda: tool(timeout=True)(greet), TypeError, "must be seconds, not bool"),
    (lambda: tool(timeout="1")(greet), TypeError, "must be seconds"),  # type: ignore[call-overload]
]


@pytest.mark.parametrize(
    ("make", "kind", "words"), BAD_TOOLS, ids=[words for _, _, words in BAD_TOOLS]
)
def test_what_cannot_be_a_tool_is_refused(
    make: Callable[[], Any], kind: type[Exception], words: str
) -> None:
    """At registration, by an error that says what to do."""
    with pytest.raises(kind, match=words):
        make()


DEFINITION = Tool(FunctionSpec("x", {"type": "object"}))
BAD_CALLS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([], {}, ValueError, "tools is empty"),
    (None, {}, TypeError, "tools must be a list, not NoneType"),
    (get_weather, {}, TypeError, r"tools must be a list, not FunctionTool: tools=\[get_weather\]"),
    ({"a": get_weather}, {}, TypeError, "tools must be a list"),
    ([WEATHER], {}, TypeError, "needs functions that it can call"),
    ([DEFINITION], {}, TypeError, "needs functions that it can call"),
    ([get_weather, get_weather], {}, ValueError, "two tools are called 'get_weather'"),
    ([greet, tool(name="greet")(greet_later)], {}, ValueError, "two tools are called 'greet'"),
    ([lambda: 1], {}, ValueError, "cannot be called"),
    ([3], {}, TypeError, "takes a function"),
    ([greet], {"max_steps": 0}, ValueError, "max_steps must be at least 1, not 0"),
    ([greet], {"max_steps": True}, TypeError, "max_steps must be an int, not bool"),
    ([greet], {"max_steps": 1.5}, TypeError, "max_steps must be an int, not float"),
    ([greet], {"max_calls": 0}, ValueError, "max_calls must be at least 1"),
    ([greet], {"max_calls": None}, TypeError, "max_calls must be an int, not NoneType"),
    ([greet], {"parallel": 0}, ValueError, "parallel must be at least 1"),
    ([greet], {"parallel": "2"}, TypeError, "parallel must be an int"),
    ([greet], {"tool_timeout": 0}, ValueError, "tool_timeout must be above 0"),
    ([greet], {"tool_timeout": "1"}, TypeError, "tool_timeout must be seconds"),
    ([greet], {"on_tool_error": "ignore"}, ValueError, "on_tool_error must be"),
    ([greet], {"on_tool_error": None}, ValueError, "on_tool_error must be"),
    ([greet], {"tool_choice": "get_weather"}, ValueError, "tool_choice must be one of"),
    ([greet], {"temprature": 1}, TypeError, "did you mean 'temperature'"),
    ([greet], {"response_format": {"type": "json_object"}}, TypeError, "response_format"),
]


@pytest.mark.parametrize(
    ("given", "options", "kind", "words"), BAD_CALLS, ids=[row[3] for row in BAD_CALLS]
)
async def test_a_run_that_cannot_work_is_refused_where_it_stands(
    given: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """Before anything is sent, by the call itself."""
    client, transport = client_over()
    with pytest.raises(kind, match=words):
        client.run_tools("Hi", tools=given, **options)
    assert transport.requests == []


# --- arguments -----------------------------------------------------------------------------------


@attrs.define
class Place:
    city: str


@tool
async def lenient(a: int, b: str = "x", c: Place | None = None) -> list[Any]:
    return [a, b, c]


@tool(strict=True)
async def strict(a: int, b: str = "x", c: Place | None = None) -> list[Any]:
    return [a, b, c]


@tool
async def nothing() -> str:
    return "called"


ARGUMENTS: list[tuple[str, Any, Any]] = [
    # arguments, what lenient makes of them, what strict makes of them (a str: the refusal)
    ('{"a": 1}', [1, "x", None], [1, "x", None]),
    ('{"a": "1"}', [1, "x", None], "expected an integer, got a string (at $.a)"),
    ('{"a": 1, "b": null}', "expected a string, got null (at $.b)", "expected a string, got null"),
    ('{"a": 1, "c": {"city": "L"}}', [1, "x", Place("L")], [1, "x", Place("L")]),
    (
        '{"a": 1, "c": {"city": 2}}',
        "expected a string, got a number (at $.c.city)",
        "(at $.c.city)",
    ),
    ('{"a": 1, "z": 2}', [1, "x", None], "unknown argument 'z'; there are a, b, c"),
    ('  {"a":\n 1}\n', [1, "x", None], [1, "x", None]),
    ('{"b": "y"}', "misses 'a'", "misses 'a'"),
    ("", "misses 'a'", "misses 'a'"),
    ("null", "misses 'a'", "misses 'a'"),
    ("{}", "misses 'a'", "misses 'a'"),
    (f'{{"a": "{CANARY}', "not JSON", "not JSON"),
    (f'{CANARY}{{"a": 1}}', "not JSON", "not JSON"),
    ('{"a": NaN}', "not usable JSON", "not usable JSON"),
    ("[1]", "expected a JSON object, got list", "expected a JSON object, got list"),
    (f'"{CANARY}"', "expected a JSON object, got str", "expected a JSON object"),
    (f'{{"a": "{CANARY}"}}', "expected an integer, got a string (at $.a)", "expected an integer"),
    ("[" * 5000, "JSON", "JSON"),
]


@pytest.mark.parametrize(
    ("arguments", "loose", "tight"), ARGUMENTS, ids=[r[0][:30] for r in ARGUMENTS]
)
async def test_arguments_are_read_or_refused(arguments: str, loose: Any, tight: Any) -> None:
    """What fits is passed on; a refusal has name and raw text, and its words repeat no value."""
    for made, expected in ((lenient, loose), (strict, tight)):
        if not isinstance(expected, str):
            assert await made.run(call_of(made.name, arguments)) == expected
            continue
        with pytest.raises(ToolArgumentsError) as caught:
            await made.run(call_of(made.name, arguments))
        assert expected in str(caught.value)
        assert CANARY not in str(caught.value)
        assert (caught.value.name, caught.value.arguments) == (made.name, arguments)
        assert caught.value.__cause__ is None is caught.value.__context__


@pytest.mark.parametrize("arguments", ["", "null", "{}", " \n", '{"unknown": 1}'])
async def test_a_tool_without_parameters_is_called(arguments: str) -> None:
    """Models say nothing in several ways (protocol.md 4)."""
    assert await nothing.run(call_of("nothing", arguments)) == "called"


async def test_a_tools_own_limit_wins() -> None:
    """timeout= of the tool, else that of the call; the error says which tool and how long."""

    async def slow() -> None:
        await asyncio.sleep(100)

    async def own() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match=r"tool slow took longer than its timeout of 2\.5 s"):
        await tool(timeout=2.5)(slow).run(call_of("slow", ""), timeout=50)
    with pytest.raises(TimeoutError, match="timeout of 7 s"):
        await tool(slow).run(call_of("slow", ""), timeout=7)
    assert asyncio.get_running_loop().time() == 9.5
    assert await tool(slow).run(call_of("slow", "")) is None
    with pytest.raises(TimeoutError, match="mine"):
        await tool(timeout=5)(own).run(call_of("own", ""))


# --- the loop: what is asked ---------------------------------------------------------------------


async def weather(city: str) -> dict[str, str]:
    """Weather."""
    await asyncio.sleep(3)
    return {"sky": f"clear over {city}"}


async def clock() -> str:
    """Time."""
    await asyncio.sleep(1)
    return "noon"


ASSISTANT = {
    "role": "assistant",
    "tool_plan": "I will look.",
    "tool_calls": [
        {
            "id": "weather_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Lima"}'},
        },
        {"id": "clock_1", "type": "function", "function": {"name": "clock", "arguments": ""}},
    ],
}
ANSWERS = [
    {
        "role": "tool",
        "tool_call_id": "weather_1",
        "content": [{"type": "document", "document": {"data": {"sky": "clear over Lima"}}}],
    },
    {"role": "tool", "tool_call_id": "clock_1", "content": "noon"},
]
FIRST = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]


async def test_the_requests_of_a_run_step_by_step() -> None:
    """Protocol.md 2.2: the assistant's turn, then a tool message a call; the choice is sent once."""
    client, transport = client_over(
        Answer(*pieces(tools())), Answer(*pieces(tools())), Answer(*pieces(plain()))
    )
    given = [dict(message) for message in FIRST]
    run = client.run_tools(
        given,
        tools=[weather, clock],
        tool_choice="REQUIRED",
        strict_tools=True,
        temperature=0.5,
        documents=["a document"],
        headers={"X-Mine": "1"},
    )
    given.clear()
    await run
    sent = bodies(transport)
    turns = [FIRST, [*FIRST, ASSISTANT, *ANSWERS], [*FIRST, *[ASSISTANT, *ANSWERS] * 2]]
    assert [body.pop("messages") for body in sent] == turns
    assert [body.pop("tool_choice", None) for body in sent] == ["REQUIRED", None, None]
    assert sent[0] == sent[1] == sent[2]
    assert {**sent[0], "tools": None} == {
        "model": "command-test",
        "tools": None,
        "strict_tools": True,
        "documents": ["a document"],
        "temperature": 0.5,
        "stream": True,
    }
    assert [headers["X-Mine"] for headers, _ in transport.requests] == ["1", "1", "1"]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Hello there!"}]}
    assert run.messages == [*turns[2], answer]


def reasoned() -> list[Any]:
    """Thinking and a citation in it, then a call: a reasoning model's step."""
    return [*thinking()[:5], *tools()[3:7], end("TOOL_CALL")]


async def test_a_reasoning_models_turn_goes_back_as_it_came() -> None:
    """Its thinking is part of the history, and no plan is invented."""
    client, transport = client_over(Answer(*pieces(reasoned())), Answer(*pieces(plain())))
    await client.run_tools("Hi", tools=[weather])
    assert bodies(transport)[1]["messages"][1:] == [
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Let me see"}],
            "tool_calls": ASSISTANT["tool_calls"][:1],  # type: ignore[index]
        },
        ANSWERS[0],
    ]


async def test_citations_of_a_turn_go_back_too() -> None:
    """A turn with text, citations and calls is repeated in full."""
    events = [*cited()[:-1], *tools()[3:7], end("TOOL_CALL")]
    client, transport = client_over(Answer(*pieces(events)), Answer(*pieces(plain())))
    await client.run_tools("Hi", tools=[weather])
    turn = bodies(transport)[1]["messages"][1]
    assert list(turn) == ["role", "content", "tool_calls", "citations"]
    assert turn["content"] == [{"type": "text", "text": "Lions roar."}]
    assert turn["citations"][0]["sources"][0]["id"] == "doc:0"


async def test_the_history_goes_on() -> None:
    """run.messages and a new question make the next run."""
    client, transport = client_over(*[Answer(*pieces(e)) for e in (tools(), plain(), plain())])
    run = client.run_tools(FIRST, tools=[weather, clock])
    await run
    question = {"role": "user", "content": "And?"}
    await client.run_tools([*run.messages, question], tools=[weather, clock])
    assert bodies(transport)[2]["messages"] == [*run.messages, question]
    run.messages.clear()
    assert len(run.messages) == 6


async def test_middleware_stands_around_each_request_anew() -> None:
    """What it adds is added once to each request, and is no part of the history."""
    client, transport = client_over(*[Answer(*pieces(e)) for e in (tools(), tools(), plain())])
    system = {"role": "system", "content": "Be brief."}

    @client.middleware
    def brief(request: Any, send: Any) -> ChatStream:
        stream = send(attrs.evolve(request, messages=[system, *request.messages]))
        assert isinstance(stream, ChatStream)
        return stream

    run = client.run_tools("Hi", tools=[weather, clock])
    await run
    for body in bodies(transport):
        assert body["messages"].count(system) == 1
    assert system not in run.messages


# --- the loop: what is told ----------------------------------------------------------------------


@pytest.mark.parametrize("step", [tools, reasoned], ids=["plan", "reasoning"])
async def test_events_come_in_order_around_those_of_the_streams(step: Callable[[], Any]) -> None:
    """StepStart, the answer's own, a ToolResult a call, StepEnd; and so for each step."""
    client, _ = client_over(Answer(*pieces(step())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock])
    seen = await collect(run)
    calls = [e for e in step() if isinstance(e, ToolCallStart)]
    first, second = len(step()) + 2 + len(calls), len(plain()) + 2
    assert [e.type for e in seen] == [
        "step-start",
        *(event.type for event in step()),
        *["tool-result"] * len(calls),
        "step-end",
        "step-start",
        *(event.type for event in plain()),
        "step-end",
    ]
    assert len(seen) == first + second
    starts = [e for e in seen if isinstance(e, StepStart)]
    assert [(e.step, len(e.request.messages)) for e in starts] == [(1, 1), (2, 2 + len(calls))]
    ends = [e for e in seen if isinstance(e, StepEnd)]
    results = [e for e in seen if isinstance(e, ToolResult)]
    assert [(e.step, e.results) for e in ends] == [(1, results), (2, [])]
    assert ends[0].response.finish_reason == "TOOL_CALL"
    assert ends[1].response == await run


async def test_a_result_says_all_of_its_call() -> None:
    """Call, name, value, content, message and how long it took."""
    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock])
    results = [e async for e in run if isinstance(e, ToolResult)]
    assert [(r.name, r.tool_call.id, r.seconds, r.value) for r in results] == [
        ("weather", "weather_1", 3, {"sky": "clear over Lima"}),
        ("clock", "clock_1", 1, "noon"),
    ]
    assert [(r.error, r.exception) for r in results] == [(None, None)] * 2
    assert [r.message.to_dict() for r in results] == ANSWERS
    assert "Lima" not in repr(results[0]).replace('{"city": "Lima"}', "")


async def test_an_answer_without_calls_is_one_step() -> None:
    """No tool is called: the answer, and no more."""
    client, transport = client_over(Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather])
    assert kinds(await collect(run))[-2:] == ["message-end", "step-end"]
    assert (await run).text == "Hello there!"
    assert len(transport.requests) == 1


# --- the content of results ----------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    y: int | None = None


def document(data: Any, **more: Any) -> dict[str, Any]:
    return {"type": "document", "document": {"data": data, **more}}


CONTENTS: list[tuple[Any, Any]] = [
    ("text", "text"),
    ("", ""),
    ({"a": 1}, [document({"a": 1})]),
    ({}, [document({})]),
    ([{"a": 1}, {"b": 2}], [document({"a": 1}), document({"b": 2})]),
    (({"a": 1},), [document({"a": 1})]),
    ([], [document({"result": []})]),
    ([1, 2], [document({"result": [1, 2]})]),
    ([{"a": 1}, 2], [document({"result": [{"a": 1}, 2]})]),
    (["a"], [document({"result": ["a"]})]),
    (None, [document({"result": None})]),
    (3, [document({"result": 3})]),
    (2.5, [document({"result": 2.5})]),
    (True, [document({"result": True})]),
    (date(2024, 1, 2), [document({"result": "2024-01-02"})]),
    (Place("Lima"), [document({"city": "Lima"})]),
    (Point(1), [document({"x": 1, "y": None})]),
    ([Place("Lima"), Point(1, 2)], [document({"city": "Lima"}), document({"x": 1, "y": 2})]),
    ({1: Place("Lima")}, [document({"1": {"city": "Lima"}})]),
    (Document({"a": 1}, "mine"), [document({"a": 1}, id="mine")]),
    (Document("words"), [document("words")]),
    (
        [Document({"a": 1}, "x"), {"b": 2}, TextContent("t")],
        [document({"a": 1}, id="x"), document({"b": 2}), {"type": "text", "text": "t"}],
    ),
    (DocumentContent(Document({"a": 1})), [document({"a": 1})]),
    (TextContent("t"), [{"type": "text", "text": "t"}]),
]


async def answered(value: Any, **options: Any) -> tuple[ToolResult, Any]:
    """The result of a tool that returns a value, and the content that was sent."""

    async def give() -> Any:
        return value

    client, transport = client_over(
        Answer(*pieces(calling(("give", "{}")))), Answer(*pieces(plain()))
    )
    run = client.run_tools("Hi", tools=[give], **options)
    result = next(e for e in await collect(run) if isinstance(e, ToolResult))
    return result, bodies(transport)[1]["messages"][-1]["content"]


@pytest.mark.parametrize(("value", "content"), CONTENTS, ids=lambda each: repr(each)[:40])
async def test_a_value_becomes_content(value: Any, content: Any) -> None:
    """A str is text; everything else is a document, because a document can be cited."""
    result, sent = await answered(value)
    assert content == sent
    assert result.value is value
    assert result.error is None


@dataclasses.dataclass
class Reading:
    at: datetime
    by: UUID


class Report(pydantic.BaseModel):
    city: str = pydantic.Field(serialization_alias="town")
    at: datetime


@pydantic.dataclasses.dataclass
class Point:
    x: float


@attrs.define
class Nested:
    report: Report
    path: Path
    _hidden: int = 3


class Pair(NamedTuple):
    one: int
    two: Decimal


class Struct(msgspec.Struct, rename="camel", tag="s"):
    long_name: Point
    absent: int | msgspec.UnsetType = msgspec.UNSET


WHEN = datetime(2025, 1, 2, 3, 4, 5)  # noqa: DTZ001  # naive values are said too
REPORT = Report(city="Lima", at=WHEN)
SAID = {"town": "Lima", "at": "2025-01-02T03:04:05"}

SAYABLE: list[tuple[Any, Any]] = [
    (Path("a/b"), {"result": "a/b"}),
    (UUID(int=1), {"result": "00000000-0000-0000-0000-000000000001"}),
    (WHEN, {"result": "2025-01-02T03:04:05"}),
    (Reading(WHEN, UUID(int=1)), {"at": "2025-01-02T03:04:05", "by": str(UUID(int=1))}),
    (REPORT, SAID),
    ({"a": REPORT, "b": {Path("x")}}, {"a": SAID, "b": ["x"]}),
    (Point(1.5), {"x": 1.5}),
    (Nested(REPORT, Path("x")), {"report": SAID, "path": "x"}),
    (Pair(1, Decimal("2.50")), {"result": [1, "2.50"]}),
    (Struct(Point(2.0)), {"type": "s", "longName": {"x": 2.0}}),
    (Document({"at": WHEN}), {"at": "2025-01-02T03:04:05"}),
]


@pytest.mark.parametrize(("value", "data"), SAYABLE, ids=lambda each: repr(each)[:40])
async def test_a_value_of_any_class_becomes_a_document(value: Any, data: Any) -> None:
    """Dates, paths, records and pydantic's classes are said as JSON, nested at will."""
    result, sent = await answered(value)
    assert [part["document"]["data"] for part in sent] == [data]
    assert result.value is value
    result, sent = await answered([value] if isinstance(value, Report) else value)
    assert [part["document"]["data"] for part in sent] == [data]


class Broken(pydantic.BaseModel):
    a: int

    @pydantic.model_serializer
    def _write(self) -> dict[str, Any]:
        raise LookupError(CANARY)


LOOP: dict[str, Any] = {}
LOOP["itself"] = LOOP

UNSAYABLE: dict[str, Any] = {
    "object": object(),
    "not a number": float("nan"),
    "decimal": Decimal("sNaN"),
    "giant number": 10**5000,
    "document with a giant number": Document({"a": 10**5000}),
    "function": print,
    "exception": ValueError("x"),
    "generator": (i for i in range(2)),
    "key": {(1, 2): 3},
    "half an emoji": "\ud83d",
    "half an emoji inside": {"a": "\ud83d"},
    "object inside": {"a": object()},
    "objects": [{"a": object()}],
    "loop": LOOP,
    "broken model": Broken(a=1),
    "document": Document({"a": object()}),
    "documents": [Document({"a": float("inf")})],
    "text part": TextContent("\ud83d"),
    "document part": DocumentContent(Document({"a": {object()}})),
}


@pytest.mark.usefixtures("inline_threads")
@pytest.mark.parametrize("how", ["report", "raise", lambda error, call: "never"])
@pytest.mark.parametrize("name", UNSAYABLE)
async def test_a_value_that_json_cannot_say_is_an_error_for_the_developer(
    name: str, how: Any
) -> None:
    """ToolError ends the run and names tool and type: the model did nothing wrong."""
    value = UNSAYABLE[name]

    def give() -> Any:
        return value

    client, transport = client_over(Answer(*pieces(calling(("give", "{}")))))
    run = client.run_tools("Hi", tools=[give], on_tool_error=how)
    heard: list[Exception] = []
    run.on_error()(lambda error: heard.append(error))
    with pytest.raises(ToolError, match=f"tool give returned an? {type(value).__name__}") as caught:
        await run
    assert (len(transport.requests), heard) == (1, [caught.value])
    assert caught.value.partial is not None
    assert caught.value.partial.tool_calls[0].name == "give"
    assert caught.value.__cause__ is None is caught.value.__context__


# --- failures ------------------------------------------------------------------------------------


async def failing(how: Any, error: BaseException) -> tuple[ToolResult, str]:
    async def give() -> None:
        raise error

    client, transport = client_over(
        Answer(*pieces(calling(("give", "{}")))), Answer(*pieces(plain()))
    )
    run = client.run_tools("Hi", tools=[give], on_tool_error=how)
    result = next(e for e in await collect(run) if isinstance(e, ToolResult))
    content: str = bodies(transport)[1]["messages"][-1]["content"]
    return result, content


async def test_an_exception_is_reported_to_the_model() -> None:
    """By default: its class and its words; the exception itself for the caller."""
    error = LookupError("no such city")
    result, sent = await failing("report", error)
    assert sent == "error: LookupError: no such city"
    assert (result.error, result.exception, result.value) == (sent, error, None)


async def test_words_that_are_no_text_are_told_all_the_same() -> None:
    """A file name that is no UTF-8 stands in many an OSError."""
    result, sent = await failing("report", FileNotFoundError("caf\udce9"))
    assert sent == "error: FileNotFoundError: caf\ufffd"
    assert result.error == sent


async def test_an_exception_is_raised_by_choice() -> None:
    """Unwrapped, with a note; the other tools are cancelled, and nothing further is sent."""
    cancelled: list[bool] = []

    async def weather(city: str) -> None:
        raise LookupError("mine")

    async def clock() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    client, transport = client_over(Answer(*pieces(tools())))
    run = client.run_tools("Hi", tools=[weather, clock], on_tool_error="raise")
    seen: list[Any] = []
    with pytest.raises(LookupError, match="mine") as caught:
        async for event in run:
            seen.append(event)
    assert caught.value.__notes__ == ["raised by tool weather, called as weather_1"]
    assert [e.type for e in seen] == ["step-start", *(e.type for e in tools())]
    assert cancelled == [True]
    assert len(transport.requests) == 1
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(TransportError, match="stopped by LookupError"):
        await run


async def test_a_function_says_what_the_model_is_told() -> None:
    """It gets the exception and the call; what it raises itself ends the run."""
    error = LookupError("secret")
    given: list[Any] = []

    def tell(error: Exception, call: ToolCall) -> str:
        given.append((error, call.name))
        return "try again later"

    result, sent = await failing(tell, error)
    assert (sent, result.exception, given) == ("try again later", error, [(error, "give")])

    def refuse(error: Exception, call: ToolCall) -> str:
        raise PermissionError("no") from error

    with pytest.raises(PermissionError, match="no"):
        await failing(refuse, error)
    with pytest.raises(TypeError, match="on_tool_error must return a str, not NoneType"):
        await failing(lambda error, call: None, error)


@pytest.mark.parametrize("how", ["report", "raise", lambda error, call: "never"])
async def test_what_the_model_did_wrong_is_told_to_the_model(how: Any) -> None:
    """Undeclared tools and unusable arguments are never raised: the model can do better."""
    events = calling(("weather", '{"city": 3}'), ("fly", "{}"), ("weather", "{"), ("clock", ""))
    client, transport = client_over(Answer(*pieces(events)), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock], on_tool_error=how)
    results = [e for e in await collect(run) if isinstance(e, ToolResult)]
    assert [type(r.exception) for r in results] == [
        ToolArgumentsError,
        ToolError,
        ToolArgumentsError,
        type(None),
    ]
    sent = [m["content"] for m in bodies(transport)[1]["messages"][2:]]
    assert sent == [r.content for r in results]
    assert sent[0].startswith("error: the arguments of tool call 'weather' are unusable: expected")
    assert sent[1] == "error: there is no tool 'fly'; there are weather, clock"
    assert "not JSON" in sent[2]
    assert sent[3] == "noon"


async def test_a_tool_that_takes_too_long_is_told_to_the_model() -> None:
    """tool_timeout for those without a limit of their own; the others go on."""

    async def weather(city: str) -> None:
        await asyncio.sleep(1000)

    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock], tool_timeout=5)
    first, second = (e for e in await collect(run) if isinstance(e, ToolResult))
    assert first.error == ("error: TimeoutError: tool weather took longer than its timeout of 5 s")
    assert isinstance(first.exception, TimeoutError)
    assert (first.seconds, second.value) == (5, "noon")


async def test_a_tool_that_cancels_itself_is_told_to_the_model() -> None:
    """A task that a tool waits for is cancelled: that is the tool's failure, not the consumer's."""

    async def weather(city: str) -> None:
        task = asyncio.ensure_future(asyncio.sleep(10))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock])
    results = [e for e in await collect(run) if isinstance(e, ToolResult)]
    assert results[0].error == "error: ToolError: tool weather was cancelled from within"
    assert results[1].value == "noon"


def stops(error: type[Exception]) -> Callable[[], Any]:
    def give() -> None:
        raise error("no more")

    return give


def stops_async(error: type[Exception]) -> Callable[[], Any]:
    async def give() -> None:
        raise error("no more")

    return give


def stops_awaited(error: type[Exception]) -> Callable[[], Any]:
    return lambda: stops_async(error)()


@pytest.mark.usefixtures("inline_threads")
@pytest.mark.parametrize("how", ["report", "raise"])
@pytest.mark.parametrize("make", [stops, stops_async, stops_awaited])
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
async def test_a_tool_that_raises_the_end_of_an_iterator_has_failed(
    error: type[Exception], make: Callable[[type[Exception]], Callable[[], Any]], how: Any
) -> None:
    """A RuntimeError, as PEP 479 has it: a future with StopIteration would never end."""
    give = tool(name="give")(make(error))
    client, transport = client_over(
        Answer(*pieces(calling(("give", "{}")))), Answer(*pieces(plain()))
    )
    run = client.run_tools("Hi", tools=[give], on_tool_error=how)
    if how == "raise":
        with pytest.raises(RuntimeError, match=f"raised {error.__name__}"):
            await run
        return
    result = next(e for e in await collect(run) if isinstance(e, ToolResult))
    assert isinstance(result.exception, RuntimeError)
    assert isinstance(result.exception.__cause__, error)
    assert bodies(transport)[1]["messages"][-1]["content"].startswith("error: RuntimeError: ")


async def test_the_words_of_an_exception_are_cut() -> None:
    """4,096 characters at most are sent; the exception is whole for the caller."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    error = ValueError("x" * 100_000)
    result, sent = await failing("report", error)
    assert result.exception is error
    assert len(sent) == len("error: ValueError: ") + 4096
    assert sent.endswith("x…")
    _, sent = await failing("report", Mute())
    assert sent == "error: Mute: (its words cannot be read)"


# --- in parallel ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallel", "expected"), [(1, 10.0), (2, 5.0), (4, 4.0), (9, 4.0)])
async def test_so_many_tools_run_at_once(parallel: int, expected: float) -> None:
    """At most ``parallel``, and as many as that."""
    running, most = 0, 0

    async def wait(seconds: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(seconds)
        running -= 1
        return seconds

    events = calling(*[("wait", f'{{"seconds": {n}}}') for n in (4, 3, 2, 1)])
    client, _ = client_over(Answer(*pieces(events)), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[wait], parallel=parallel)
    results = [e for e in await collect(run) if isinstance(e, ToolResult)]
    assert [r.value for r in results] == [4, 3, 2, 1]
    assert [r.seconds for r in results] == [4, 3, 2, 1]
    assert most == min(parallel, 4)
    assert asyncio.get_running_loop().time() == expected


async def test_results_come_in_the_order_of_the_calls_as_soon_as_may_be() -> None:
    """A later call that is done waits for the earlier ones, and for no later one."""
    time = asyncio.get_running_loop().time

    async def wait(seconds: int) -> int:
        await asyncio.sleep(seconds)
        return seconds

    events = calling(*[("wait", f'{{"seconds": {n}}}') for n in (2, 1, 5)])
    client, transport = client_over(Answer(*pieces(events)), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[wait])
    came = [(e.value, time()) async for e in run if isinstance(e, ToolResult)]
    assert came == [(2, 2), (1, 2), (5, 5)]
    told = [m["tool_call_id"] for m in bodies(transport)[1]["messages"][2:]]
    assert told == ["wait_0", "wait_1", "wait_2"]


async def test_the_consumer_may_be_slow() -> None:
    """Tools go on while the consumer is busy with a result."""
    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock], parallel=1)
    async for event in run:
        if isinstance(event, ToolResult):
            await asyncio.sleep(10)
    assert asyncio.get_running_loop().time() == 23


# --- ends of the loop ----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_an_endless_loop_ends_with_all_that_was_said(steps: int) -> None:
    """ToolLoopLimitError with the last answer; everything streamed was delivered before."""
    client, transport = client_over(*[Answer(*pieces(tools())) for _ in range(9)])
    run = client.run_tools("Hi", tools=[weather, clock], max_steps=steps)
    seen: list[Any] = []
    with pytest.raises(ToolLoopLimitError, match=f"after {steps} steps; raise max_steps") as caught:
        async for event in run:
            seen.append(event)
    assert len(transport.requests) == steps
    assert len([e for e in seen if isinstance(e, MessageEnd)]) == steps
    assert len([e for e in seen if isinstance(e, ToolResult)]) == 2 * (steps - 1)
    assert seen[-1] == tools()[-1]
    assert caught.value.partial is not None
    assert caught.value.partial.tool_plan == "I will look."
    assert caught.value.partial.finish_reason == "TOOL_CALL"
    with pytest.raises(ToolLoopLimitError):
        await run


@pytest.mark.parametrize(
    ("each", "allowed", "steps"), [(129, 128, 0), (3, 2, 0), (2, 4, 2), (1, 3, 3)]
)
async def test_the_calls_of_all_steps_are_counted(each: int, allowed: int, steps: int) -> None:
    """Past ``max_calls`` the run ends with the answer in hand, and none of its calls is run."""
    count = 0

    async def charge() -> str:
        nonlocal count
        count += 1
        return "ok"

    answer = pieces(calling(*[("charge", "{}")] * each))
    client, transport = client_over(*[Answer(*answer) for _ in range(9)])
    options: dict[str, Any] = {} if allowed == 128 else {"max_calls": allowed}
    run = client.run_tools("Hi", tools=[charge], **options)
    with pytest.raises(ToolLoopLimitError, match="raise max_calls, or ask for less") as caught:
        await run
    assert (count, len(transport.requests)) == (each * steps, steps + 1)
    assert caught.value.partial is not None
    assert len(caught.value.partial.tool_calls) == each
    assert f"wants {each * (steps + 1)} tool calls in all, and {allowed} are allowed" in str(
        caught.value
    )


@pytest.mark.parametrize("reason", ["MAX_TOKENS", "COMPLETE", "STOP_SEQUENCE", "NEW_REASON"])
async def test_half_a_call_ends_the_loop(reason: str) -> None:
    """Only finish reason TOOL_CALL means that calls are whole."""
    called: list[str] = []

    async def weather(city: str) -> None:
        called.append(city)

    events = [*tools()[:5], end(reason)]
    client, transport = client_over(Answer(*pieces(events)))
    response = await client.run_tools("Hi", tools=[weather])
    assert response.finish_reason == reason
    assert response.tool_calls[0].arguments == '{"city'
    assert (called, len(transport.requests)) == ([], 1)


async def test_a_tool_call_without_calls_ends_the_loop() -> None:
    """The reason alone is nothing to run."""
    client, transport = client_over(Answer(*pieces([START, end("TOOL_CALL")])))
    assert (await client.run_tools("Hi", tools=[weather])).tool_calls == []
    assert len(transport.requests) == 1


@pytest.mark.usefixtures("inline_threads")
@pytest.mark.parametrize("raised", [ValueError("no such city"), StopIteration(), KeyError("Lima")])
async def test_what_a_plain_function_raises_is_reported(raised: Exception) -> None:
    """StopIteration too, which no future and no coroutine can raise."""

    @tool
    def weather(city: str) -> str:
        raise raised

    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock])
    results = [e for e in await collect(run) if isinstance(e, ToolResult)]
    assert type(raised).__name__ in str(results[0].error)


@pytest.mark.usefixtures("inline_threads")
async def test_a_plain_function_runs_in_a_thread() -> None:
    """So that it does not stop the loop (tests/wire has real threads)."""

    def weather(city: str) -> str:
        return f"clear over {city}"

    client, _ = client_over(Answer(*pieces(tools())), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[weather, clock])
    results = [e for e in await collect(run) if isinstance(e, ToolResult)]
    assert [r.value for r in results] == ["clear over Lima", "noon"]


async def test_the_schema_is_valid_json_schema() -> None:
    """What is sent is what validators understand."""
    for made in (get_weather, lenient, nothing):
        assert isinstance(made, FunctionTool)
        jsonschema.Draft202012Validator.check_schema(dict(made.parameters))
