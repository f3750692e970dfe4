"""What foreign clients rely on, as recorded from api.cohere.com or as they send it."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from streamchat.local import LocalServer
from streamchat.local.checks import RefusalError, check
from streamchat.local.model import answer
from streamchat.local.unary import fold
from streamchat.local.words import names
from tests.protocol.helpers import SHARED, needs_shared

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "What is RAG?"}]}


def tool(name: str, slots: dict[str, Any], description: str = "") -> dict[str, Any]:
    parameters = {"type": "object", "properties": slots, "required": list(slots)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", {"city": STRING}, "Forecast for a city")
TIME = tool("get_time", {"city": STRING}, "Current time in a city")
ADD = tool("add", {"a": INTEGER, "b": INTEGER}, "Adds two numbers")
MULTIPLY = tool("multiply", {"a": INTEGER, "b": INTEGER}, "Multiplies two numbers")
SEARCH = tool("web_search", {"query": STRING}, "Search the web")
PERSON = tool("Person", {"name": STRING, "age": INTEGER})


def message(question: str | list[Any], **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return fold(answer(check({"model": "command-a-03-2025", "messages": messages, **fields})))[
        "message"
    ]


def calls(question: str | list[Any], *tools: Any, **fields: Any) -> list[tuple[str, Any]]:
    found = message(question, tools=list(tools), **fields).get("tool_calls", [])
    functions = [call["function"] for call in found]
    assert len({call["id"] for call in found}) == len(found)
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def text(question: str | list[Any], **fields: Any) -> str:
    return message(question, **fields)["content"][0]["text"]


# --- HTTP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["application/json", "Application/JSON; q=0.9, text/html"])
@pytest.mark.parametrize("pace", [None, 1e6])
async def test_accept_json_gets_json_lines(
    session: aiohttp.ClientSession, accept: str, pace: float | None
) -> None:
    async with (
        LocalServer(tokens_per_second=pace) as server,
        session.post(
            f"{server.url}/v2/chat", json=HELLO | {"stream": True}, headers={"Accept": accept}
        ) as response,
    ):
        body = await response.read()
    assert response.headers["Content-Type"] == "application/stream+json"
    assert body.endswith(b"}\n")
    events = [json.loads(line) for line in body.splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["message-start", "message-end"]
    said = "".join(
        event["delta"]["message"]["content"]["text"]
        for event in events
        if event["type"] == "content-delta"
    )
    assert said == text("What is RAG?")


@needs_shared
async def test_json_lines_have_the_recorded_form(
    server: LocalServer, session: aiohttp.ClientSession
) -> None:
    folder = SHARED / "recordings" / "M-Lai-ai__LLM-Provider-reference"
    (recording,) = folder.glob("*.ndjson")

    def form(lines: bytes) -> list[Any]:
        kinds = [json.loads(line)["type"] for line in lines.splitlines()]
        return [
            kind for place, kind in enumerate(kinds) if kind != (kinds[place - 1 : place] or [0])[0]
        ]

    url, headers = f"{server.url}/v2/chat", {"Accept": "application/json"}
    body = HELLO | {"stream": True}
    async with session.post(url, json=body, headers=headers) as response:
        assert form(await response.read()) == form(recording.read_bytes())


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "text/event-stream",
        "application/json, text/event-stream",
        "*/*, application/json",
        "",
    ],
)
async def test_other_accepts_get_server_sent_events(
    server: LocalServer, session: aiohttp.ClientSession, accept: str
) -> None:
    url, headers = f"{server.url}/v2/chat", {"Accept": accept}
    async with session.post(url, json=HELLO | {"stream": True}, headers=headers) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_models_are_listed(server: LocalServer, session: aiohttp.ClientSession) -> None:
    url = f"{server.url}/v1/models"
    async with session.get(url, params={"endpoint": "chat", "default_only": "true"}) as response:
        assert response.status == 200
        models = (await response.json())["models"]
    assert all("chat" in model["endpoints"] for model in models)
    assert [model["name"] for model in models if model["default_endpoints"]]
    for model in models:
        assert check(HELLO | {"model": model["name"]})
    async with session.post(url) as response:
        assert response.status == 405


async def test_models_need_the_key_too(session: aiohttp.ClientSession) -> None:
    async with LocalServer(api_key="right") as server:
        response = await session.get(f"{server.url}/v1/models")
        assert response.status == 401
        response.release()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_chat_v1_is_a_404_that_names_v2(
    server: LocalServer, session: aiohttp.ClientSession, method: str
) -> None:
    async with session.request(method, f"{server.url}/v1/chat", json={"message": "Hi"}) as response:
        assert response.status == 404
        assert "POST /v2/chat" in (await response.json())["message"]


def test_a_content_that_is_one_object_is_read() -> None:
    part = {"type": "text", "text": "What is RAG?"}
    assert text([{"role": "user", "content": part}]) == text([{"role": "user", "content": [part]}])
    with pytest.raises(RefusalError):
        check(HELLO | {"messages": [{"role": "user", "content": {"type": "video"}}]})


# --- tool_choice REQUIRED ------------------------------------------------------------------------


def after_weather() -> list[Any]:
    function = {"name": "get_weather", "arguments": '{"city":"Lima"}'}
    call = {"id": "w1", "type": "function", "function": function}
    return [
        {"role": "user", "content": "Weather in Lima?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "w1", "content": '{"temperature": 21}'},
    ]


RESULT = tool("final_result", {"city": STRING, "temperature": {"type": "number"}})


def test_required_calls_a_tool_that_was_not_called_after_results() -> None:
    expected = [("final_result", {"city": "Lima", "temperature": 21})]
    assert calls(after_weather(), WEATHER, RESULT, tool_choice="REQUIRED") == expected
    assert calls(after_weather(), RESULT, WEATHER, tool_choice="REQUIRED") == expected


def test_required_calls_a_tool_again_when_all_were_called() -> None:
    assert calls(after_weather(), WEATHER, tool_choice="REQUIRED") == [
        ("get_weather", {"city": "Lima"})
    ]


def test_without_required_results_are_answered() -> None:
    assert calls(after_weather(), WEATHER, RESULT) == []


# --- one tool that the question fills ------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "offered", "arguments"),
    [
        ("Erick is 27 years old", PERSON, {"name": "Erick", "age": 27}),
        ('"Zoë" and 3', PERSON, {"name": "Zoë", "age": 3}),
        ("Who won the world cup in 2018?", SEARCH, {"query": "won world cup 2018"}),
        ("What is 2 + 3?", tool("sum_up", {"x": INTEGER, "y": INTEGER}), {"x": 2, "y": 3}),
        (
            "Ana is happy",
            tool("Mood", {"who": STRING, "mood": {"enum": ["sad", "happy"]}}),
            {"who": "Ana", "mood": "happy"},
        ),
        ("mail a@b.co", tool("Contact", {"email": STRING}), {"email": "a@b.co"}),
    ],
)
def test_a_single_tool_that_the_question_fills_is_called(
    question: str, offered: Any, arguments: Any
) -> None:
    assert calls(question, offered) == [(offered["function"]["name"], arguments)]


@pytest.mark.parametrize(
    ("question", "offered"),
    [
        ("How are penguins?", [WEATHER]),  # no city
        ("Erick is old", [PERSON]),  # no age
        ("What is 2 + 2?", [SEARCH]),  # a sum is no search
        ("Hello Ana", [WEATHER]),  # small talk
        ("Thanks", [SEARCH]),
        ("Erick is 27 years old", [PERSON, SEARCH]),  # not the only tool
        ("Erick is 27", [tool("Log", {})]),  # takes nothing
    ],
)
def test_tools_that_the_question_does_not_fill_are_not_called(
    question: str, offered: list[Any]
) -> None:
    assert calls(question, *offered) == []


# --- several questions, lists --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "offered", "expected"),
    [
        (
            "What is the weather in Lima? And what time is it in Cusco?",
            [WEATHER, TIME],
            [("get_weather", {"city": "Lima"}), ("get_time", {"city": "Cusco"})],
        ),
        (
            "What is 3 * 12? Also, what is 11 + 49?",
            [ADD, MULTIPLY],
            [("multiply", {"a": 3, "b": 12}), ("add", {"a": 11, "b": 49})],
        ),
        (
            "What's the weather in Lima? And in Cusco?",
            [WEATHER],
            [("get_weather", {"city": "Lima"}), ("get_weather", {"city": "Cusco"})],
        ),
        (
            "What's the weather in Lima? What's the weather in Lima?",
            [WEATHER],
            [("get_weather", {"city": "Lima"})],
        ),
    ],
)
def test_several_questions_have_each_their_own_call(
    question: str, offered: list[Any], expected: list[Any]
) -> None:
    assert calls(question, *offered) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Ana and Bob", ["Ana", "Bob"]),
        ("Ana, Bob and Carla are here", ["Ana", "Bob", "Carla"]),
        ("Ana, Bob, and Carla", ["Ana", "Bob", "Carla"]),
        ("Hi there. Ana & Bob left", ["Ana", "Bob"]),
        ("Weather in Lima and Cusco", ["Lima", "Cusco"]),
        ("Tomorrow I meet Bob", ["Bob"]),
    ],
)
def test_lists_of_names_lose_no_first_name(question: str, expected: list[str]) -> None:
    assert names(question) == expected


def test_a_list_slot_gets_every_name() -> None:
    invite = tool("invite", {"who": {"type": "array", "items": STRING}}, "Invite to a meeting")
    assert calls("Ana and Bob have a meeting", invite) == [("invite", {"who": ["Ana", "Bob"]})]


# --- a schema in the text ------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "title": "Person",
    "properties": {"name": STRING, "age": INTEGER},
    "required": ["name", "age"],
}
EXAMPLE = {"properties": {"foo": STRING}, "required": ["foo"]}
SYSTEM = "Always respond with a JSON object that fits this schema:\n\n{}\n\nAdd no other text."
WRAPPED = {"name": "Person", "parameters": SCHEMA}
WITH_EXAMPLE = f"""For the schema {json.dumps(EXAMPLE)} the object {{"foo": [1]}} is wrong. Yours:
```
{json.dumps(SCHEMA)}
```
Ana is 30"""
ANA = {"name": "Ana", "age": 30}


@pytest.mark.parametrize(
    "messages",
    [
        [("system", SYSTEM.format(json.dumps(SCHEMA))), ("user", "Ana is 30")],
        [("system", SYSTEM.format(json.dumps(WRAPPED, indent=2))), ("user", "Ana is 30")],
        [("user", f"Extract the person: Ana is 30. Schema: {json.dumps(SCHEMA)}")],
        [("user", WITH_EXAMPLE)],
    ],
)
@pytest.mark.parametrize("style", [None, {"type": "json_object"}])
def test_a_schema_in_the_text_is_filled(messages: list[Any], style: Any) -> None:
    asked = [{"role": role, "content": content} for role, content in messages]
    assert json.loads(text(asked, response_format=style)) == ANA


@pytest.mark.parametrize(
    "content",
    [
        'What does {"a": 1} mean?',
        "What does { mean?",
        '{"properties": 1} {"properties": {}}',
        "{" * 1_000,
        '{"properties": ' + '{"a":' * 900 + "1" + "}" * 901,
        '{"properties": {"a": "\\ud800"}}',
    ],
)
def test_other_json_in_the_text_is_not_taken_for_a_schema(content: str) -> None:
    assert not text(content).startswith("{\n")


def test_a_schema_of_the_request_stands_before_one_in_the_text() -> None:
    style = {"type": "json_object", "json_schema": {"properties": {"age": INTEGER}}}
    question = f"Ana is 30 {json.dumps(SCHEMA)}"
    assert list(json.loads(text(question, response_format=style))) == ["age"]
