"""The official SDK reads every flow of the server: no warning, no log record, no lost field."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamchat.local import LocalServer

cohere = pytest.importorskip("cohere")
pytestmark = pytest.mark.filterwarnings("error")

MODEL = "command-a-03-2025"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Forecast for a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
DOCUMENTS: list[Any] = [
    {"id": "p1", "data": {"title": "Penguins", "text": "Emperor penguins are the tallest."}},
    "Cats sleep sixteen hours a day.",
]
CALLED: list[Any] = [
    {"role": "user", "content": "Weather in Lima?"},
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "w1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city":"Lima"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "w1", "content": '{"temperature": 21}'},
]


@pytest.fixture
async def client(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Any]:
    """An SDK client; what is logged as a warning or worse fails the test."""
    async with (
        LocalServer() as server,
        cohere.AsyncClientV2(api_key="key", base_url=server.url) as client,
    ):
        yield client
    records = caplog.get_records("call")
    assert not [r.getMessage() for r in records if r.levelno >= logging.WARNING or r.name == "root"]


def ask(question: str | list[Any], **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return {"model": MODEL, "messages": messages, **fields}


FLOWS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": (ask("What is an LLM?"), "COMPLETE"),
    "documents": (ask("Which penguins are the tallest?", documents=DOCUMENTS), "COMPLETE"),
    "tools": (ask("Weather in Lima and Cusco?", tools=[WEATHER]), "TOOL_CALL"),
    "tool answer": (ask(CALLED, tools=[WEATHER]), "COMPLETE"),
    "thinking": (ask("What is RAG?", thinking={"type": "enabled"}), "COMPLETE"),
    "json": (
        ask("Ana is 30", response_format={"type": "json_object", "json_schema": SCHEMA}),
        "COMPLETE",
    ),
    "max_tokens": (ask("What is RAG?", max_tokens=5), "MAX_TOKENS"),
    "stop": (ask("What is RAG?", stop_sequences=["documents"]), "STOP_SEQUENCE"),
    "logprobs": (ask("Hi", logprobs=True), "COMPLETE"),
}


@pytest.mark.parametrize("flow", FLOWS)
async def test_the_sdk_streams_what_it_gets_unary(client: Any, flow: str) -> None:
    request, reason = FLOWS[flow]
    events = [event async for event in client.chat_stream(**request)]
    response = await client.chat(**request)
    assert events[0].type == "message-start"
    assert events[0].id == response.id
    assert events[-1].type == "message-end"
    assert events[-1].delta.finish_reason == response.finish_reason == reason
    assert events[-1].delta.usage == response.usage
    deltas = [event for event in events if event.type == "content-delta"]
    pieces = [event.delta.message.content for event in deltas]
    parts = response.message.content or []
    texts = [getattr(part, "text", None) or getattr(part, "thinking", "") for part in parts]
    assert "".join((piece.text or "") + (piece.thinking or "") for piece in pieces) == "".join(
        texts
    )
    cited = [e.delta.message.citations for e in events if e.type == "citation-start"]
    assert cited == (response.message.citations or [])
    assert _streamed_calls(events) == [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in response.message.tool_calls or []
    ]


def _streamed_calls(events: list[Any]) -> list[tuple[str, str, Any]]:
    calls: list[list[str]] = []
    for event in events:
        if event.type == "tool-call-start":
            call = event.delta.message.tool_calls
            calls.append([call.id, call.function.name, ""])
        elif event.type == "tool-call-delta":
            calls[event.index][2] += event.delta.message.tool_calls.function.arguments
    return [(name, tool, json.loads(arguments)) for name, tool, arguments in calls]


async def test_the_sdk_sees_citations_and_calls(client: Any) -> None:
    request, _ = FLOWS["documents"]
    response = await client.chat(**request)
    (citation,) = response.message.citations
    text = response.message.content[0].text
    assert text[citation.start : citation.end] == citation.text
    assert citation.sources[0].id == "p1"
    request, _ = FLOWS["tools"]
    response = await client.chat(**request)
    assert [call.function.arguments for call in response.message.tool_calls] == [
        '{"city":"Lima"}',
        '{"city":"Cusco"}',
    ]


async def test_the_sdk_raises_its_own_errors(client: Any) -> None:
    with pytest.raises(cohere.NotFoundError):
        await client.chat(model="command-does-not-exist", messages=ask("Hi")["messages"])
    with pytest.raises(cohere.BadRequestError):
        async for _ in client.chat_stream(**ask("Hi", temperature=3)):
            pass


async def test_a_whole_tool_turn_works(client: Any) -> None:
    """The assistant's answer goes back as it came, with one result for each call."""
    request, _ = FLOWS["tools"]
    first = await client.chat(**request)
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": [_document({"temperature": 20 + n})]}
        for n, call in enumerate(first.message.tool_calls)
    ]
    messages = [*request["messages"], first.message, *results]
    second = await client.chat(model=MODEL, messages=messages, tools=[WEATHER])
    assert second.finish_reason == "COMPLETE"
    assert [citation.text for citation in second.message.citations] == ["20", "21"]
    assert "Lima" in second.message.content[0].text
    assert "Cusco" in second.message.content[0].text


def _document(data: dict[str, Any]) -> dict[str, Any]:
    return {"type": "document", "document": {"data": json.dumps(data)}}
