"""The answer: its short names, and the unary shape."""

from __future__ import annotations

from typing import Any

import pytest

from streamchat.protocol import ChatRequest, ChatResponse, decode_response
from streamchat.protocol.messages import (
    AssistantMessage,
    BilledUnits,
    Citation,
    LogprobItem,
    TextContent,
    ThinkingContent,
    TokenCounts,
    ToolCall,
    ToolCallFunction,
    Usage,
)

RECORDED: dict[str, Any] = {
    "id": "ae5f6f0e-8fca-440f-bc70-71e7104e48fe",
    "message": {
        "role": "assistant",
        "tool_plan": "I will use the magic_function tool to find the value of magic_function(3).",
        "tool_calls": [
            {
                "id": "magic_function_avre629p2czn",
                "type": "function",
                "function": {"name": "magic_function", "arguments": '{"input":3}'},
            }
        ],
    },
    "finish_reason": "TOOL_CALL",
    "usage": {
        "billed_units": {"input_tokens": 60, "output_tokens": 27},
        "tokens": {"input_tokens": 1496, "output_tokens": 56},
        "cached_tokens": 0,
    },
}
CALL = ToolCall("c", ToolCallFunction("f", "{}"))
CITATION = Citation(0, 1, "a")
FULL = ChatResponse(
    "i",
    AssistantMessage([ThinkingContent("t"), TextContent("a")], "p", [CALL], [CITATION]),
    "COMPLETE",
    Usage(BilledUnits(1), TokenCounts(2, extra={"audio": 3}), 4, {"w": None}),
    [LogprobItem([5])],
)


def test_a_recorded_unary_answer_is_read_and_written() -> None:
    """The shape of protocol.md 4 survives reading and writing, key order of the top included."""
    answer = decode_response(RECORDED)
    assert answer.to_dict() == RECORDED
    assert list(RECORDED) == list(answer.to_dict())
    assert answer.tool_calls[0].parsed == {"input": 3}


def test_the_short_names_are_those_of_the_message() -> None:
    """``text``, ``thinking``, ``tool_plan``, ``tool_calls`` and ``citations``."""
    short = (FULL.text, FULL.thinking, FULL.tool_plan, FULL.tool_calls, FULL.citations)
    assert short == ("a", "t", "p", [CALL], [CITATION])


def test_an_empty_answer_has_empty_values() -> None:
    """Text is always ``str``, lists are always lists, the usage is always an object."""
    empty = ChatResponse()
    assert (
        empty.text,
        empty.thinking,
        empty.tool_plan,
        empty.tool_calls,
        empty.citations,
    ) == ("", "", "", [], [])
    assert (empty.finish_reason, empty.usage.tokens.input_tokens) == (None, None)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ({"message": {"role": "assistant"}}, ChatResponse()),
        ({"id": "i", "message": {"role": "assistant"}}, ChatResponse("i")),
        (
            {"message": {"role": "assistant"}, "finish_reason": "ERROR", "usage": {}},
            ChatResponse(finish_reason="ERROR", error="e", error_type="T"),
        ),
        (
            {"message": {"role": "assistant"}, "logprobs": [{"token_ids": [5]}]},
            ChatResponse(logprobs=[LogprobItem([5])]),
        ),
    ],
)
def test_what_is_empty_is_absent(expected: dict[str, Any], answer: ChatResponse) -> None:
    """An answer as far as it came is written without what has not come."""
    assert expected == answer.to_dict()


def test_the_dict_is_the_callers_own() -> None:
    """Changing what ``to_dict`` gave does not change the answer."""
    body = FULL.to_dict()
    body["message"]["content"][0]["thinking"] = "changed"
    body["usage"]["w"] = 1
    assert FULL.thinking == "t"
    assert FULL.usage.extra == {"w": None}


def test_the_answer_is_a_turn_of_the_next_request() -> None:
    """``to_message`` and the answer itself may stand in ``messages``."""
    first = ChatRequest(model="m", messages=[FULL.to_message()])
    second = ChatRequest(model="m", messages=[FULL])
    assert first == second
    assert FULL.to_dict()["message"] == first.to_dict()["messages"][0]


def test_the_usage_keeps_what_it_does_not_know() -> None:
    """Unknown keys survive reading and writing, beside the known ones."""
    usage = FULL.to_dict()["usage"]
    assert usage == {
        "billed_units": {"input_tokens": 1},
        "tokens": {"input_tokens": 2, "audio": 3},
        "cached_tokens": 4,
        "w": None,
    }
    assert decode_response(FULL.to_dict()) == FULL


@pytest.mark.parametrize("nothing", [{}, {"billed_units": None, "tokens": None}])
def test_missing_counts_are_none(nothing: dict[str, Any]) -> None:
    """``usage`` of ``{}``, or with nulls, has its objects, and ``None`` in them."""
    usage = decode_response({"finish_reason": "ERROR", "usage": nothing}).usage
    assert Usage() == usage
    assert usage.billed_units.search_units is None


def test_the_repr_is_short_however_long_the_answer_is() -> None:
    """For notebooks and logs: the beginning, the numbers of the rest, how it ended."""
    call = ToolCall("t_1", ToolCallFunction("t", "{}"))
    answer = ChatResponse(
        "a1",
        AssistantMessage([TextContent("word " * 2_000)], tool_calls=[call, call]),
        "COMPLETE",
    )
    assert repr(answer) == (
        f"<ChatResponse {('word ' * 12)!r}... (10,000 characters) tool_calls=2 "
        "finish_reason='COMPLETE' id='a1'>"
    )
    assert repr(ChatResponse()) == "<ChatResponse '' finish_reason=None id=''>"
