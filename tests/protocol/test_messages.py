"""The vocabulary: what the short names mean, and what a ``repr`` may show."""

from __future__ import annotations

from typing import Any

import pytest

from streamchat.protocol import ChatRequest
from streamchat.protocol.errors import ToolArgumentsError
from streamchat.protocol.messages import (
    AssistantMessage,
    Citation,
    Document,
    DocumentContent,
    ImageContent,
    ImageUrl,
    Source,
    SystemMessage,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallFunction,
    ToolMessage,
    Usage,
    UserMessage,
)

CANARY = "canary-7431"


def call(arguments: str) -> ToolCall:
    return ToolCall("c_1", ToolCallFunction("weather", arguments))


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ({}, ""),
        ({}, " \n"),
        ({}, "null"),
        ({}, " null "),
        ({}, "{}"),
        ({"city": "Lima", "days": 2}, '{"city": "Lima", "days": 2}'),
        ({"name": "Erick", "age": 27}, '{\n    "name": "Erick",\n    "age": 27\n}'),
        ({"a": {"b": [None]}}, '{"a":{"b":[null]}}'),
        ({"a": "\U0001f600"}, r'{"a":"\ud83d\ude00"}'),
        ({"a": 2}, '{"a":1,"a":2}'),
    ],
)
def test_arguments_are_read_as_a_dict(expected: dict[str, Any], arguments: str) -> None:
    """No arguments and ``null`` are an empty dict; white space does not matter."""
    assert expected == call(arguments).parsed


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("not JSON", '{"city": "' + CANARY),
        ("not JSON", CANARY),
        ("expected a JSON object, got list", f'["{CANARY}"]'),
        ("expected a JSON object, got str", f'"{CANARY}"'),
        ("expected a JSON object, got int", "7"),
        ("expected a JSON object, got bool", "false"),
        ("out of range", '{"a":NaN}'),
        ("nested too deeply", "[" * 100_000),
    ],
)
def test_unusable_arguments_say_why(reason: str, arguments: str) -> None:
    """The error has the tool's name and the raw text, and quotes none of it."""
    with pytest.raises(ToolArgumentsError, match=reason) as caught:
        _ = call(arguments).parsed
    assert ("weather", arguments) == (caught.value.name, caught.value.arguments)
    assert "'weather'" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None is caught.value.__cause__


def test_arguments_are_parsed_each_time_anew() -> None:
    """Whoever changes the parsed dict does not change it for the next reader."""
    subject = call('{"a":[1]}')
    subject.parsed["a"].append(2)
    assert subject.parsed == {"a": [1]}


def test_a_call_has_short_names() -> None:
    """``name`` and ``arguments`` are those of the function."""
    assert (call("{ }").name, call("{ }").arguments) == ("weather", "{ }")


def test_text_and_thinking_are_joined_apart() -> None:
    """Each of the two is the blocks of its kind, in order; ``str`` even where there are none."""
    message = AssistantMessage(
        [ThinkingContent("t"), TextContent("a"), ThinkingContent("u"), TextContent("b")]
    )
    assert (message.text, message.thinking) == ("ab", "tu")
    assert (AssistantMessage().text, AssistantMessage().thinking) == ("", "")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"role": "assistant"}, AssistantMessage()),
        (
            {"role": "assistant", "content": [{"text": "a", "type": "text"}]},
            AssistantMessage([TextContent("a")]),
        ),
        (
            {
                "role": "assistant",
                "tool_plan": "p",
                "tool_calls": [
                    {
                        "id": "c_1",
                        "function": {"name": "weather", "arguments": ""},
                        "type": "function",
                    }
                ],
                "citations": [
                    {"start": 0, "end": 1, "text": "p", "sources": [{"type": "tool", "id": "c:0"}]}
                ],
            },
            AssistantMessage([], "p", [call("")], [Citation(0, 1, "p", [Source("tool", "c:0")])]),
        ),
    ],
)
def test_what_is_empty_is_not_sent(expected: dict[str, Any], message: AssistantMessage) -> None:
    """The wire's shape holds no empty containers, and the role first."""
    assert expected == message.to_dict()
    assert next(iter(message.to_dict())) == "role"


def test_lists_are_not_shared() -> None:
    """Two objects made from defaults have lists and dicts of their own."""
    first, second = AssistantMessage(), AssistantMessage()
    first.content.append(TextContent("a"))
    assert second.content == []
    usage = Usage()
    usage.extra["a"] = 1
    usage.tokens.extra["b"] = 1
    assert Usage() == Usage(extra={}) != usage


@pytest.mark.parametrize(
    ("expected", "prompt"),
    [
        ("SystemMessage(content=<11>, role='system')", SystemMessage(CANARY)),
        ("UserMessage(content=<11>, role='user')", UserMessage(CANARY)),
        ("UserMessage(content=<2>, role='user')", UserMessage([
            TextContent(CANARY), ImageContent(ImageUrl(CANARY))])),
        ("ToolMessage(tool_call_id='c', content=<1>, role='tool')", ToolMessage("c", [
            DocumentContent(Document({"a": CANARY}))])),
        ("UserMessage(content=<...>, role='user')", UserMessage(5)),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_the_repr_of_a_prompt_shows_its_size(expected: str, prompt: Any) -> None:
    """A log line that shows a message shows none of its words."""
    assert expected == repr(prompt)


def test_the_repr_of_a_request_shows_sizes() -> None:
    """Neither messages nor documents show, only how many turns there are."""
    request = ChatRequest(
        model="m", messages=[{"role": "user", "content": CANARY}], documents=[CANARY, CANARY]
    )
    assert CANARY not in repr(request)
    assert repr(request) == "<ChatRequest model='m' messages=1>"


def test_a_request_that_failed_to_be_made_can_be_shown() -> None:
    """A traceback with locals asks for the repr of what is half built."""
    assert repr(ChatRequest.__new__(ChatRequest)) == "<ChatRequest model=None messages=0>"


@pytest.mark.parametrize(
    "message", [SystemMessage("x"), UserMessage("x"), ToolMessage("c", "x"), AssistantMessage()]
)
def test_a_misspelled_attribute_is_refused(message: Any) -> None:
    """The classes are closed: ``message.contnet = ...`` is an error, not a new field."""
    with pytest.raises(AttributeError):
        message.contnet = "y"
