"""What is asked: every field checked before a byte is sent, and a body that nobody can change."""

from __future__ import annotations

import copy
import enum
from typing import Any, get_type_hints

import attrs
import pytest

from streamchat.journal import request_key
from streamchat.protocol import ChatOptions, ChatRequest, ChatResponse
from streamchat.protocol.messages import (
    AssistantMessage,
    Document,
    DocumentContent,
    FunctionSpec,
    ImageContent,
    ImageUrl,
    SystemMessage,
    TextContent,
    ThinkingContent,
    Tool,
    ToolCall,
    ToolCallFunction,
    ToolMessage,
    UserMessage,
)

CANARY = "canary-7431"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def build(**options: Any) -> ChatRequest:
    return ChatRequest.build("Hi", "m", options)


# --- the fields ----------------------------------------------------------------------------------

NUMBER = ["1", True, [1], {}]
WRONG_TYPES: dict[str, list[Any]] = {
    "tools": ["x", {}, 5, [5], ["f"], (x for x in [TOOL]), {"a": 1}],
    "strict_tools": [1, "true", []],
    "tool_choice": [5, True, ["NONE"]],
    "documents": ["x", {"data": {}}, 5, [5], [b"x"], [["x"]]],
    "citation_options": ["FAST", 5, [("mode", "FAST")]],
    "response_format": ["json_object", 5, []],
    "safety_mode": [5, True, ["OFF"]],
    "max_tokens": [*NUMBER, 1.0],
    "stop_sequences": ["x", 5, {"x"}, [5], ["x", None]],
    "temperature": NUMBER,
    "seed": [*NUMBER, 1.5],
    "frequency_penalty": NUMBER,
    "presence_penalty": NUMBER,
    "k": [*NUMBER, 1.0],
    "p": NUMBER,
    "logprobs": [0, "yes", []],
    "thinking": ["enabled", 5, True],
    "priority": [*NUMBER, 0.0],
    "extra_body": [
        "x",
        5,
        [("a", 1)],
        {5: 1},
        {"a": {1, 2}},
        *({name: None} for name in ("stream", "model", "messages", "max_tokens", "tools", "k")),
    ],
}
WRONG_VALUES: dict[str, list[Any]] = {
    "tools": [[{}], [{"function": {}}], [{"function": {"name": 5}}], [{"function": "f"}]],
    "tool_choice": ["AUTO", ""],
    "documents": [[{}], [{"text": "x"}], [{"id": "d"}]],
    "citation_options": [{}, {"mode": "SLOW"}, {"mode": 5}, {"Mode": "FAST"}],
    "response_format": [{}, {"type": "xml"}, {"type": None}],
    "safety_mode": ["NONE", ""],
    "max_tokens": [0, -1, 2**31],
    "stop_sequences": [["x"] * 6],
    "temperature": [-0.1, 1.1, float("nan"), float("inf")],
    "seed": [-1, 2**64],
    "frequency_penalty": [-0.1, 1.1],
    "presence_penalty": [-0.1, 1.1],
    "k": [-1, 501],
    "p": [-0.001, 1.001],
    "thinking": [{"type": "on"}, {"type": 5}],
    "priority": [-1, 1000],
    "extra_body": [{"a": float("nan")}, {"a": "\ud800"}],
}
RIGHT: dict[str, list[Any]] = {
    "tools": [
        [],
        [TOOL],
        (TOOL,),
        [Tool(FunctionSpec("f", {}))],
        [{"type": "function", "function": FunctionSpec("f", {})}],
    ],
    "strict_tools": [True, False],
    "documents": [[], ["x"], [{"data": {"a": 1}}, Document("x", "d")], ("x",)],
    "citation_options": [{"mode": name} for name in ("ENABLED", "DISABLED", "fast", "OFF")],
    "response_format": [{"type": "text"}, {"type": "json_object", "json_schema": {"a": [1]}}],
    "safety_mode": ["CONTEXTUAL", "STRICT", "OFF", "off"],
    "max_tokens": [1, 2**31 - 1],
    "stop_sequences": [[], ["x"], ["x"] * 5, ("x", "y")],
    "temperature": [0, 1, 0.3],
    "seed": [0, 2**64 - 1],
    "frequency_penalty": [0, 1.0],
    "presence_penalty": [0.0, 1],
    "k": [0, 500],
    "p": [0, 0.01, 0.99, 1, 1.0],
    "logprobs": [True, False],
    "thinking": [{"type": "enabled", "token_budget": 5}, {"type": "disabled"}, {"token_budget": 1}],
    "priority": [0, 999],
    "extra_body": [{"a": None}, {"a": {"b": [1, "x", True]}}, {"top_k": 5, "extra_body": {}}],
}


def rows(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{position}")
        for name, values in table.items()
        for position, value in enumerate(values)
    ]


def test_every_field_is_in_the_tables() -> None:
    """No body field is left unchecked, and ``ChatOptions`` names the same ones."""
    fields = {field.name for field in attrs.fields(ChatRequest)} - {"model", "messages"}
    assert fields == set(get_type_hints(ChatOptions))
    assert fields == WRONG_TYPES.keys()
    assert fields == RIGHT.keys() | {"tool_choice"}
    assert fields == WRONG_VALUES.keys() | {"strict_tools", "logprobs"}


@pytest.mark.parametrize(("name", "value"), rows(WRONG_TYPES))
def test_a_wrong_type_is_a_type_error_that_names_the_argument(name: str, value: Any) -> None:
    """Nothing is coerced: the error comes before anything is sent, and says which argument."""
    with pytest.raises(TypeError, match=f"^{name}") as caught:
        build(**{name: value})
    assert caught.value.__context__ is None is caught.value.__cause__


@pytest.mark.parametrize(("name", "value"), rows(WRONG_VALUES))
def test_a_wrong_value_is_a_value_error_that_names_the_argument(name: str, value: Any) -> None:
    """What no server accepts is refused here, and the error says which argument."""
    with pytest.raises(ValueError, match=f"^{name}") as caught:
        build(**{name: value})
    assert caught.value.__context__ is None is caught.value.__cause__


@pytest.mark.parametrize(("name", "value"), rows(RIGHT))
def test_a_right_value_is_sent(name: str, value: Any) -> None:
    """Values at both ends of each range pass, and stand in the body."""
    body = build(**{name: value}).to_dict()
    assert name in body if name != "extra_body" else value.items() <= body.items()


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("max_tokens", "max_tokens="),
        ("messages", "messages="),
        ("stream", "every answer is streamed"),
    ],
)
def test_an_extra_field_that_is_known_names_the_argument(name: str, argument: str) -> None:
    """So that no field is sent unchecked, or twice."""
    with pytest.raises(TypeError, match=f"extra_body cannot hold '{name}'.*{argument}"):
        build(extra_body={name: 1})


def test_extra_fields_are_copied_and_kept_by_evolve() -> None:
    """Middleware sees them, and a request that is changed still has them."""
    given = {"guardrail": {"id": "g"}}
    request = attrs.evolve(build(extra_body=given), max_tokens=5)
    given["guardrail"]["id"] = "other"
    assert request.extra_body == {"guardrail": {"id": "g"}}
    body = request.to_dict()
    assert (body["guardrail"], body["max_tokens"], body["stream"]) == ({"id": "g"}, 5, True)
    body["guardrail"]["id"] = "other"
    assert request.extra_body == {"guardrail": {"id": "g"}}
    assert "extra_body" not in body
    assert build(extra_body={}) == build()


def test_extra_fields_are_part_of_what_identifies_a_request() -> None:
    """A journal does not take the answer of a request with other fields."""
    keys = {
        request_key(build(extra_body=extra).to_dict())
        for extra in (None, {"a": 1}, {"a": 2}, {"b": 1})
    }
    assert len(keys) == 4


@pytest.mark.parametrize("choice", ["REQUIRED", "NONE", "required"])
def test_a_tool_choice_needs_tools(choice: str) -> None:
    """With tools it is sent as given; without them it is refused."""
    assert choice == build(tools=[TOOL], tool_choice=choice).to_dict()["tool_choice"]
    for tools in (None, []):
        with pytest.raises(ValueError, match="tool_choice needs tools"):
            build(tools=tools, tool_choice=choice)


@pytest.mark.parametrize("other", [{"tools": [TOOL]}, {"documents": ["x"]}])
def test_json_mode_goes_with_neither_tools_nor_documents(other: dict[str, Any]) -> None:
    """The server refuses the two together (protocol.md 2); text mode is fine."""
    with pytest.raises(ValueError, match="json_object cannot go with tools or documents"):
        build(response_format={"type": "JSON_object"}, **other)
    build(response_format={"type": "text"}, **other)


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_none_is_left_out(name: str) -> None:
    """``None`` is the same as not given: the server's default holds."""
    assert build() == build(**{name: None})
    assert name not in build(**{name: None}).to_dict()


@pytest.mark.parametrize(("kind", "model"), [(TypeError, None), (TypeError, 5), (ValueError, "")])
def test_the_model_is_a_name(kind: type[Exception], model: Any) -> None:
    """An empty or missing name of a model is refused."""
    with pytest.raises(kind, match=r"^model"):
        ChatRequest.build("Hi", model, {})


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("did you mean 'temperature'", "temprature"),
        ("did you mean 'max_tokens'", "max_token"),
        ("'xyzzy' is not an option of Chat v2$", "xyzzy"),
        ("'model' is not an option", "model"),
        ("'stream' is not an option", "stream"),
    ],
)
def test_an_unknown_option_is_a_type_error(words: str, name: str) -> None:
    """A misspelled keyword is not sent for the server to ignore; the right one is suggested."""
    with pytest.raises(TypeError, match=words):
        build(**{name: 1})


@pytest.mark.parametrize(
    ("kind", "words", "options"),
    [
        (TypeError, r"documents\[0\]\.data\.a is of type bytes", {"documents": [{"data": {"a": b""}}]}),
        (TypeError, r"documents\[1\]\.data\.a is of type set", {"documents": ["x", Document({"a": {1}})]}),
        (ValueError, r"documents\[0\] holds a lone surrogate", {"documents": ["\ud83d" + CANARY]}),
        (TypeError, r"tools\[0\]\.x has a key", {"tools": [TOOL | {"x": {1: 2}}]}),
        (ValueError, r"thinking\.a is nan", {"thinking": {"type": "enabled", "a": float("nan")}}),
        (ValueError, r"stop_sequences\[0\] holds", {"stop_sequences": ["\ud83d"]}),
        (TypeError, r"response_format\.json_schema is of type", {
            "response_format": {"type": "json_object", "json_schema": object()}}),
    ],
)  # fmt: skip
def test_what_json_cannot_say_is_refused_at_once(
    kind: type[Exception], words: str, options: dict[str, Any]
) -> None:
    """Deep inside a document or a schema too, with its place, and without its words."""
    with pytest.raises(kind, match=words) as caught:
        build(**options)
    assert CANARY not in str(caught.value)


# --- messages ------------------------------------------------------------------------------------

CALL = ToolCall("c", ToolCallFunction("f", "{}"))
ANSWER = ChatResponse("i", AssistantMessage([TextContent("a")], "p", [CALL]), "TOOL_CALL")
CALL_DICT = {"id": "c", "function": {"name": "f", "arguments": "{}"}, "type": "function"}
MESSAGES: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "a str": ([{"role": "user", "content": "Hi"}], "Hi"),
    "a dict": ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Hi"}]),
    "a tuple": ([{"role": "user", "content": "Hi"}], ({"role": "user", "content": "Hi"},)),
    "unknown keys": ([{"role": "user", "content": "Hi", "x": None}], [
        {"role": "user", "content": "Hi", "x": None}]),
    "no content": ([{"role": "assistant", "tool_calls": []}], [
        {"role": "assistant", "tool_calls": []}]),
    "null content": ([{"role": "assistant", "content": None}], [
        {"role": "assistant", "content": None}]),
    "classes": (
        [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [
                {"text": "t", "type": "text"},
                {"image_url": {"url": "u", "detail": "low"}, "type": "image_url"}]},
            {"role": "assistant", "content": [
                {"thinking": "h", "type": "thinking"}, {"text": "a", "type": "text"}]},
            {"role": "tool", "tool_call_id": "c", "content": [
                {"document": {"data": {"k": 1}, "id": "d"}, "type": "document"}]},
        ],
        [
            SystemMessage("s"),
            UserMessage([TextContent("t"), ImageContent(ImageUrl("u", "low"))]),
            AssistantMessage([ThinkingContent("h"), TextContent("a")]),
            ToolMessage("c", [DocumentContent(Document({"k": 1}, "d"))]),
        ],
    ),
    "an answer": (
        [{"role": "assistant", "content": [{"text": "a", "type": "text"}], "tool_plan": "p",
          "tool_calls": [CALL_DICT]}],
        [ANSWER],
    ),
    "classes inside dicts": (
        [{"role": "user", "content": [{"text": "t", "type": "text"}]}],
        [{"role": "user", "content": [TextContent("t")]}],
    ),
    "mixed": (
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": [
            {"text": "a", "type": "text"}], "tool_plan": "p", "tool_calls": [CALL_DICT]},
         {"role": "tool", "tool_call_id": "c", "content": "r"}],
        [{"role": "user", "content": "q"}, ANSWER, ToolMessage("c", "r")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_may_be_given_in_any_form(name: str) -> None:
    """A str, dicts, our classes and earlier answers become the wire's dicts."""
    expected, given = MESSAGES[name]
    assert expected == ChatRequest(model="m", messages=given).to_dict()["messages"]


@pytest.mark.parametrize(
    ("kind", "words", "messages"),
    [
        (ValueError, "messages is an empty str", ""),
        (ValueError, "messages is an empty list", []),
        (TypeError, "messages must be a str or a list", None),
        (TypeError, "messages must be a str or a list", 5),
        (TypeError, "messages must be a str or a list", b"Hi"),
        (TypeError, "messages must be a str or a list", {"role": "user", "content": CANARY}),
        (TypeError, "messages must be a str or a list", UserMessage(CANARY)),
        (TypeError, r"messages\[0\] must be a dict", ["Hi"]),
        (TypeError, r"messages\[1\] must be a dict", [{"role": "user", "content": "x"}, 5]),
        (ValueError, r"messages\[0\]\['role'\] must be one of", [{}]),
        (ValueError, r"messages\[0\]\['role'\] must be one of", [{"role": "chatbot"}]),
        (ValueError, r"messages\[0\]\['role'\] must be one of", [{"role": 5}]),
        (ValueError, r"messages\[0\] has the role 'user' and must have 'content'", [
            {"role": "user", "text": CANARY}]),
        (ValueError, r"messages\[0\] has the role 'system' and must have", [{"role": "system"}]),
        (ValueError, "must have 'tool_call_id'", [{"role": "tool", "content": CANARY}]),
        (ValueError, "must have 'content'", [{"role": "tool", "tool_call_id": "c"}]),
        (TypeError, r"messages\[0\]\['content'\] must be a str or a list", [
            {"role": "user", "content": {"text": CANARY}}]),
        (TypeError, r"messages\[0\]\['content'\] must be a str or a list", [
            {"role": "user", "content": 5}]),
        (TypeError, r"messages\[0\]\.content\[0\] is of type bytes", [
            {"role": "user", "content": [b""]}]),
        (ValueError, r"messages\[0\]\.content holds a lone surrogate", [
            UserMessage("\ud83d" + CANARY)]),
        (ValueError, r"holds a lone surrogate", "\ud83d" + CANARY),
    ],
)  # fmt: skip
def test_unusable_messages_name_the_place(kind: type[Exception], words: str, messages: Any) -> None:
    """The error says which message and what of it, and quotes no prompt."""
    with pytest.raises(kind, match=words) as caught:
        ChatRequest(model="m", messages=messages)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None is caught.value.__cause__


def test_an_enum_may_name_a_role() -> None:
    """A member of a ``str`` enum is sent as its value."""

    class Role(str, enum.Enum):  # noqa: UP042 - the old kind, whose str() is its name
        USER = "user"

    request = ChatRequest(model="m", messages=[{"role": Role.USER, "content": "Hi"}])
    assert request.to_dict()["messages"][0]["role"] == "user"


# --- the body ------------------------------------------------------------------------------------


def test_the_body_is_the_wires() -> None:
    """Model, messages, what was set, and ``stream``, in this order."""
    request = build(tools=[Tool(FunctionSpec("f", {"type": "object"}, "d"))], temperature=0, k=5)
    expected = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [
            {
                "function": {"name": "f", "parameters": {"type": "object"}, "description": "d"},
                "type": "function",
            }
        ],
        "temperature": 0,
        "k": 5,
        "stream": True,
    }
    assert expected == request.to_dict()
    assert list(expected) == list(request.to_dict())
    assert expected | {"stream": False} == request.to_dict(stream=False)


def mutable() -> dict[str, Any]:
    return {
        "tools": [copy.deepcopy(TOOL)],
        "documents": [{"data": {"a": [1]}}, Document({"b": 1}, "d")],
        "citation_options": {"mode": "FAST"},
        "stop_sequences": ["x"],
        "thinking": {"type": "enabled"},
    }


def test_a_request_is_independent_of_what_it_was_made_from() -> None:
    """Whatever the caller changes afterwards, at any depth, is not sent."""
    options = mutable()
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]
    request = ChatRequest.build(messages, "m", options)
    body = copy.deepcopy(request.to_dict())
    messages[0]["content"][0]["text"] = "changed"
    messages.clear()
    options["tools"][0]["function"]["name"] = "changed"
    options["documents"][0]["data"]["a"].append(2)
    options["documents"][1].data["b"] = 2
    options["documents"].append("changed")
    options["citation_options"]["mode"] = "OFF"
    options["stop_sequences"].append("y")
    options["thinking"].clear()
    assert body == request.to_dict()


def test_the_body_is_the_callers_own() -> None:
    """Changing a body does not change the request that it came from."""
    request = build(**mutable())
    body = request.to_dict()
    shown = repr(body)
    body["messages"][0]["content"] = "changed"
    body["tools"][0]["function"]["name"] = "changed"
    body["documents"][0]["data"]["a"].append(2)
    assert shown == repr(request.to_dict())


def test_a_request_is_frozen_and_compared_by_value() -> None:
    """Equal arguments make equal requests; a field cannot be set."""
    assert build(k=1) == build(k=1) != build(k=2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        build().k = 5  # type: ignore[misc]
