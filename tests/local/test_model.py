"""What the demo model promises: citations that fit, calls that validate, the same answer twice."""

from __future__ import annotations

import json
import re
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamchat.local.checks import RefusalError, check
from streamchat.local.filler import fill
from streamchat.local.hints import Hints
from streamchat.local.model import answer
from streamchat.local.unary import fold
from streamchat.local.words import cut, names, numbers, sentences
from streamchat.protocol.codec import decode_event, encode_event
from streamchat.protocol.events import ContentDelta, Event

jsonschema = pytest.importorskip("jsonschema")

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Forecast for a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "days": {"type": "integer", "default": 1, "minimum": 1, "maximum": 7},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
TIME: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Current time in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "str"}},
            "required": ["city"],
        },
    },
}
TABLES: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "list_tables",
        "description": "Lists the tables of the database",
        "parameters": {"type": "object", "properties": {}},
    },
}
PENGUINS: list[Any] = [
    {"data": {"title": "Tall penguins", "snippet": "Emperor penguins are the tallest. They walk."}},
    {"id": "x", "data": "Emperor penguins are the tallest."},
    "Cats sleep sixteen hours a day.",
]


def ask(question: str | list[Any], **fields: Any) -> dict[str, Any]:
    """A checked request."""
    messages = question
    if isinstance(question, str):
        messages = [{"role": "user", "content": question}]
    return check({"model": "command-a-03-2025", "messages": messages, **fields})


def unary(question: str | list[Any], **fields: Any) -> dict[str, Any]:
    return fold(answer(ask(question, **fields)))


def text_of(response: dict[str, Any]) -> str:
    parts = response["message"].get("content", [])
    return "".join(part["text"] for part in parts if part["type"] == "text")


def kinds(events: list[Event]) -> str:
    """The order of events, repeats folded."""
    runs = [(kind, len(list(run))) for kind, run in groupby(event.type for event in events)]
    return " ".join(kind + "+" * (length > 1) for kind, length in runs)


def after_tool(content: Any, question: str = "Weather in Lima?") -> list[Any]:
    """A conversation whose last message is the result of one call."""
    function = {"name": "get_weather", "arguments": '{"city":"Lima"}'}
    return [
        {"role": "user", "content": question},
        {
            "role": "assistant",
            "tool_calls": [{"id": "w1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "w1", "content": content},
    ]


# --- plain answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is an LLM?", "large language model"),
        ("What is RAG?", "retrieval-augmented generation"),
        ("Explain the French revolution", "the French revolution"),
        ("什么是流式传输\uff1f", "什么是流式传输"),
        ("What is 2 + 3?", "is 5."),
        ("Count to 4", "1, 2, 3, 4."),
        ("Hello", "demo model"),
    ],
)
def test_a_plain_answer_is_about_the_question(question: str, expected: str) -> None:
    response = unary(question)
    assert expected in text_of(response)
    assert response["finish_reason"] == "COMPLETE"
    assert set(response["message"]) == {"role", "content"}


def test_a_plain_answer_has_the_recorded_order() -> None:
    expected = "message-start content-start content-delta+ content-end message-end"
    assert kinds(answer(ask("Hi"))) == expected


def test_earlier_turns_are_remembered() -> None:
    earlier = [
        {"role": "user", "content": "My name is Ana. What is RAG?"},
        {"role": "assistant", "content": "A way to use documents."},
    ]
    assert "Ana" in text_of(unary([*earlier, {"role": "user", "content": "What is my name?"}]))
    said = text_of(unary([*earlier, {"role": "user", "content": "What did I ask before?"}]))
    assert "What is RAG?" in said


def test_an_asked_for_length_is_kept() -> None:
    assert len(text_of(unary("Write 500 words about rain")).split()) == 500


# --- documents -----------------------------------------------------------------------------------


def test_citations_fit_and_name_every_source() -> None:
    response = unary("Which penguins are the tallest?", documents=PENGUINS)
    citation = response["message"]["citations"][0]
    text = text_of(response)
    assert citation["text"] == "Emperor penguins are the tallest."
    assert text[citation["start"] : citation["end"]] == citation["text"]
    assert citation["type"] == "TEXT_CONTENT"
    assert [source["id"] for source in citation["sources"]] == ["doc:0", "x"]
    assert citation["sources"][0]["document"] == {"id": "doc:0", **PENGUINS[0]["data"]}


@pytest.mark.parametrize("mode", ["OFF", "DISABLED", "off"])
def test_citations_can_be_turned_off(mode: str) -> None:
    response = unary("tallest penguins", documents=PENGUINS, citation_options={"mode": mode})
    assert "citations" not in response["message"]


def test_citations_come_with_the_text_or_after_it() -> None:
    documents = ["Emperor penguins are the tallest.", "Penguins eat fish."]
    fields: dict[str, Any] = {"documents": documents}
    early = kinds(answer(ask("Tell me about penguins", **fields)))
    fields["citation_options"] = {"mode": "accurate"}
    late = kinds(answer(ask("Tell me about penguins", **fields)))
    one = "citation-start citation-end"
    assert f"content-delta+ {one} content-delta+ {one} content-end" in early
    assert f"content-delta+ {one} {one} content-end" in late


def test_documents_that_say_nothing_are_not_cited() -> None:
    response = unary("What is quantum chromodynamics?", documents=PENGUINS)
    assert "do not say" in text_of(response)
    assert "citations" not in response["message"]


def test_offsets_are_code_points() -> None:
    documents = ["🐧🐧 Los pingüinos emperador miden un metro. 企鹅很高。"]
    response = unary("pingüinos emperador", documents=documents)
    citation = response["message"]["citations"][0]
    assert text_of(response)[citation["start"] : citation["end"]] == citation["text"]


# --- tools ---------------------------------------------------------------------------------------


def test_a_fitting_tool_is_called_with_valid_arguments() -> None:
    response = unary("What is the weather in Lima for 3 days in fahrenheit?", tools=[WEATHER, TIME])
    message = response["message"]
    assert response["finish_reason"] == "TOOL_CALL"
    assert "get_weather" in message["tool_plan"]
    (call,) = message["tool_calls"]
    assert re.fullmatch(r"get_weather_[0-9a-z]{12}", call["id"])
    arguments = json.loads(call["function"]["arguments"])
    assert arguments == {"city": "Lima", "days": 3, "unit": "fahrenheit"}
    jsonschema.validate(arguments, WEATHER["function"]["parameters"])


def test_two_things_are_two_calls() -> None:
    response = unary("Weather in Lima and Cusco?", tools=[WEATHER])
    calls = response["message"]["tool_calls"]
    cities = [json.loads(call["function"]["arguments"])["city"] for call in calls]
    assert cities == ["Lima", "Cusco"]
    assert calls[0]["id"] != calls[1]["id"]


def test_two_fitting_tools_are_both_called() -> None:
    response = unary("Weather and time in Lima?", tools=[WEATHER, TIME])
    called = [call["function"]["name"] for call in response["message"]["tool_calls"]]
    assert called == ["get_weather", "get_time"]


def test_a_tool_without_parameters_has_no_deltas() -> None:
    events = answer(ask("Which tables are there?", tools=[TABLES]))
    expected = "message-start tool-plan-delta+ tool-call-start tool-call-end message-end"
    assert kinds(events) == expected
    (call,) = fold(events)["message"]["tool_calls"]
    assert call["function"]["arguments"] == "null"


def test_a_schema_that_is_no_object_s_gives_no_arguments() -> None:
    tool = {"type": "function", "function": {"name": "get_x", "parameters": {"type": "string"}}}
    (call,) = unary("x", tools=[tool], tool_choice="REQUIRED")["message"]["tool_calls"]
    assert call["function"]["arguments"] == "null"


def test_things_far_apart_are_not_two_calls() -> None:
    question = "Weather in Lima, please, since I shall travel there to meet my friend Ana?"
    assert len(unary(question, tools=[WEATHER])["message"]["tool_calls"]) == 1


def test_a_hundred_thousand_equal_documents_are_one_citation() -> None:
    response = unary("penguins?", documents=["Penguins swim."] * 100_000)
    (citation,) = response["message"]["citations"]
    assert len(citation["sources"]) == 8


def test_streamed_arguments_are_laid_out_as_recorded() -> None:
    events = answer(ask("Weather in Lima?", tools=[WEATHER]))
    pieces = [event.arguments for event in events if event.type == "tool-call-delta"]
    assert "".join(pieces) == '{\n    "city": "Lima"\n}'
    assert len(pieces) > 5


def test_tool_choice_is_obeyed() -> None:
    asked: dict[str, Any] = {"tools": [WEATHER]}
    assert "tool_calls" not in unary("How are penguins?", **asked)["message"]
    assert "tool_calls" in unary("How are penguins?", **asked, tool_choice="REQUIRED")["message"]
    assert "tool_calls" not in unary("Weather in Lima", **asked, tool_choice="NONE")["message"]


@pytest.mark.parametrize(
    ("content", "output", "name", "cited"),
    [
        ("21", {"content": "21"}, "w1:0", "21"),
        ("It is sunny in Lima.", {"content": "It is sunny in Lima."}, "w1:0", "It is sunny"),
        ('{"temperature": 21}', {"temperature": "21"}, "w1:0", "21"),
        ('{"sky": {"state": "clear"}}', {"sky": '{"state":"clear"}'}, "w1:0", "clear"),
        ([{"type": "document", "document": {"data": {"t": "21"}}}], {"t": "21"}, "w1:0", "21"),
        (
            [{"type": "document", "document": {"id": "d9", "data": '{"t": "21"}'}}],
            {"t": "21"},
            "d9",
            "21",
        ),
    ],
)
def test_tool_results_are_used_and_cited(content: Any, output: Any, name: str, cited: str) -> None:
    response = unary(after_tool(content), tools=[WEATHER])
    assert response["finish_reason"] == "COMPLETE"
    citation = response["message"]["citations"][0]
    assert citation["text"].startswith(cited)
    assert text_of(response)[citation["start"] : citation["end"]] == citation["text"]
    assert citation["sources"] == [{"type": "tool", "id": name, "tool_output": output}]


def test_one_tool_then_another_takes_two_steps() -> None:
    question = "First the weather in Lima, then the time in Lima."
    first = unary(question, tools=[WEATHER, TIME])
    assert [c["function"]["name"] for c in first["message"]["tool_calls"]] == ["get_weather"]
    second = unary(after_tool('{"temperature": 21}', question), tools=[WEATHER, TIME])
    message = second["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_time"]
    (citation,) = message["citations"]
    assert citation["type"] == "PLAN"
    assert message["tool_plan"][citation["start"] : citation["end"]] == "21"


# --- thinking, JSON, limits ----------------------------------------------------------------------


@pytest.mark.parametrize("model", ["command-a-reasoning-08-2025", "command-a-plus-05-2026"])
def test_a_reasoning_model_thinks_instead_of_planning(model: str) -> None:
    events = answer(ask("Weather in Lima?", tools=[WEATHER], model=model))
    assert kinds(events) == (
        "message-start content-start content-delta+ content-end "
        "tool-call-start tool-call-delta+ tool-call-end message-end"
    )
    usage = fold(events)["usage"]
    assert usage["tokens"]["reasoning_tokens"] > 0


@pytest.mark.parametrize("model", ["command-a-reasoning-08-2025", "command-a-plus-05-2026"])
def test_a_reasoning_model_plans_when_told_not_to_think(model: str) -> None:
    request = ask("Weather in Lima?", tools=[WEATHER], thinking={"type": "disabled"}, model=model)
    assert kinds(answer(request)).startswith("message-start tool-plan-delta+ tool-call-start")


def test_thinking_and_text_are_two_blocks_and_the_budget_holds() -> None:
    events = answer(ask("What is RAG?", thinking={"type": "enabled", "token_budget": 3}))
    blocks = [event.index for event in events if isinstance(event, ContentDelta) and event.thinking]
    assert blocks == [0, 0, 0]
    assert fold(events)["usage"]["tokens"]["reasoning_tokens"] == 3
    assert {event.index for event in events if isinstance(event, ContentDelta) and event.text} == {
        1
    }


def test_max_tokens_counts_deltas() -> None:
    for limit in (1, 5):
        events = answer(ask("What is RAG?", max_tokens=limit))
        assert sum(isinstance(event, ContentDelta) for event in events) == limit
        assert fold(events)["finish_reason"] == "MAX_TOKENS"


def test_stop_sequences_are_not_returned() -> None:
    response = unary("What is an LLM?", stop_sequences=["neural", "zebra"])
    assert response["finish_reason"] == "STOP_SEQUENCE"
    assert text_of(response).endswith("model, is a ")


def test_the_same_request_gives_the_same_answer_and_another_seed_another_one() -> None:
    assert answer(ask("Rain?", seed=1)) == answer(ask("Rain?", seed=1, stream=True))
    one, two = unary("Rain?", seed=1), unary("Rain?", seed=2)
    assert one["id"] != two["id"]
    assert text_of(one) != text_of(two)


def test_logprobs_go_with_every_content_delta() -> None:
    events = answer(ask("Hi", logprobs=True))
    deltas = [event for event in events if isinstance(event, ContentDelta)]
    assert all(event.logprobs and event.logprobs.text == event.text for event in deltas)
    assert len(fold(events)["logprobs"]) == len(deltas)


def test_usage_is_made_of_integers_and_counts_images() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "What is this?"}, image]
    usage = unary([{"role": "user", "content": content}])["usage"]
    assert usage["tokens"]["input_tokens"] > usage["billed_units"]["input_tokens"]
    assert usage["tokens"]["image_tokens"] > 0
    assert usage["cached_tokens"] == 0
    assert all(type(number) is int for number in usage["tokens"].values())


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {}, "required": []},
    {
        "type": "object",
        "$defs": {
            "Item": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
                "required": ["name", "count"],
                "additionalProperties": False,
            }
        },
        "properties": {
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "minItems": 2},
            "when": {"type": "string", "format": "date"},
            "paid": {"type": "boolean"},
            "rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "size": {"enum": ["small", "large"]},
            "note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 5}]},
            "kind": {"const": "order"},
            "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "even": {"type": "integer", "multipleOf": 2, "minimum": 3},
        },
        "required": ["items", "when", "paid", "rate", "size", "note", "kind", "code", "even"],
    },
    {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"$ref": "#"}},
        "required": ["value"],
    },
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"type": ["null", "integer"]}}, "required": ["b"]},
        ]
    },
    {
        "type": "object",
        "properties": {
            "numbers": {
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 3,
                "uniqueItems": True,
            },
            "long": {"type": "string", "minLength": 30},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        },
        "required": ["numbers", "long", "pair"],
    },
]
QUESTIONS = ["", "Extract the order: 3 large pizzas for Ana on 2026-05-01, code LIM", "x" * 5000]


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_filled_in_validates(
    schema: dict[str, Any], question: str, everything: bool
) -> None:
    jsonschema.validate(fill(schema, Hints(question), everything=everything), schema)


@pytest.mark.parametrize("key", ["json_schema", "schema"])
def test_a_json_answer_is_filled_from_the_question(key: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "item": {"type": "string"},
            "quantity": {"type": "integer"},
            "name": {"type": "string"},
        },
        "required": ["item", "quantity", "name"],
    }
    style = {"type": "json_object", key: schema}
    response = unary("Extract the order: 3 pizzas for Ana", response_format=style)
    assert json.loads(text_of(response)) == {"item": "pizzas", "quantity": 3, "name": "Ana"}


def test_a_json_answer_without_schema_is_an_object() -> None:
    text = text_of(unary("Penguins as JSON", response_format={"type": "json_object"}))
    assert isinstance(json.loads(text), dict)


# --- any text ------------------------------------------------------------------------------------


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(cut(text)) == text


def test_tokens_keep_characters_whole() -> None:
    assert cut("👩\u200d👩\u200d👧 🇵🇪🇩🇪 e\u0301") == ["👩\u200d👩\u200d👧", " 🇵🇪", "🇩🇪", " e\u0301"]


_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: _WORDS | st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    question=_WORDS,
    documents=st.lists(
        _WORDS | st.fixed_dictionaries({"data": _WORDS | st.dictionaries(_WORDS, _JSON)})
    ),
    result=_WORDS | st.dictionaries(_WORDS, _JSON).map(json.dumps),
)
def test_any_text_gives_a_stream_that_encodes(
    question: str, documents: list[Any], result: str
) -> None:
    bodies = [
        {"messages": [{"role": "user", "content": question}], "documents": documents},
        {"messages": after_tool(result, question), "tools": [WEATHER]},
    ]
    for body in bodies:
        try:
            request = check({"model": "m", **body})
        except RefusalError:
            continue
        events = answer(request)
        for event in events:
            assert decode_event(encode_event(event)) == event
        response = fold(events)
        for citation in response["message"].get("citations", []):
            assert text_of(response)[citation["start"] : citation["end"]] == citation["text"]


def test_long_prompts_take_no_long_time() -> None:
    """Each of these took minutes with a regular expression that backtracks."""
    for text in (
        "x" * 300_000,
        " " * 300_000,
        "a-" * 150_000,
        "1," * 150_000,
        '"' * 300_000,
        ")" * 300_000,
    ):
        unary([{"role": "user", "content": text + "?"}], tools=[WEATHER])
        unary("What is x?", documents=[text + "?"])


def test_names_numbers_and_sentences_are_found() -> None:
    assert names("Book a flight from Lima to San Jose for Ana") == ["Lima", "San Jose", "Ana"]
    assert names("weather in lima and cusco", frozenset({"weather"})) == ["lima", "cusco"]
    assert numbers("-3 and 2-5, 1,000 or 2.5, three") == [-3, 2, 5, 1000, 2.5, 3]
    assert sentences('One. Two "x." 3.5 is.\n四。五') == [
        "One.",
        'Two "x."',
        "3.5 is.",
        "四。",
        "五",
    ]
