"""``to_dict()``: every public record as plain JSON data, events as the wire's objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given

import streamchat
from streamchat import (
    Citation,
    ContentDelta,
    Document,
    FanOutResult,
    MessageEnd,
    Retry,
    Source,
    StepEnd,
    StepStart,
    SystemMessage,
    TextContent,
    Timeout,
    Timing,
    ToolCall,
    ToolProgress,
    ToolResult,
    UnknownEvent,
    Usage,
    UserMessage,
    tool,
)
from streamchat.protocol import (
    Accumulator,
    Frame,
    decode_event,
    encode_event,
)
from streamchat.protocol.events import EVENT_CLASSES, CitationEnd, ContentEnd, ToolCallEnd
from streamchat.protocol.messages import (
    AssistantMessage,
    BilledUnits,
    LogprobItem,
    ToolCallFunction,
)
from streamchat.protocol.record import Record
from streamchat.protocol.request import ChatRequest
from streamchat.protocol.response import ChatResponse

from . import strategies


@given(strategies.events)
def test_an_event_is_read_again_from_its_dict(event: Any) -> None:
    """The dict is the wire's JSON object, key by key in the recorded order."""
    plain = event.to_dict()
    frame = encode_event(event)
    assert list(plain.items()) == list(msgspec.json.decode(frame.data).items())
    assert decode_event(Frame(data=json.dumps(plain).encode())) == event


@given(strategies.responses | strategies.citations | strategies.usages | strategies.logprobs)
def test_other_records_are_json(record: Any) -> None:
    """JSON takes the dict, and the next call gives another."""
    plain = record.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert record.to_dict() is not plain


def test_a_delta_has_the_shape_of_the_wire() -> None:
    """``type``, ``index`` and ``delta``, in nested dicts."""
    assert ContentDelta("Hi", 2).to_dict() == {
        "type": "content-delta",
        "index": 2,
        "delta": {"message": {"content": {"text": "Hi"}}},
    }


def test_an_unknown_event_is_its_data() -> None:
    """Of a known type with unknown content too; the dict is a copy."""
    for name in ("future", "content-delta"):
        event = UnknownEvent(name, {"type": name, "x": [1]})
        assert event.to_dict() == {"type": name, "x": [1]}
        event.to_dict()["x"].append(2)
        assert event.data["x"] == [1]


def test_end_events_leave_out_what_they_ended() -> None:
    """What the accumulator adds is not on the wire."""
    answer = Accumulator()
    call = ToolCall("c", ToolCallFunction("f", "{}"))
    for event in (
        streamchat.MessageStart("m"),
        streamchat.ContentStart(0),
        ContentDelta("Hi"),
        streamchat.ToolCallStart(call),
        streamchat.CitationStart(Citation(0, 2, "Hi", [Source("document", "d")])),
    ):
        answer.add(event)
    for end in (ContentEnd(0), CitationEnd(0), ToolCallEnd(0)):
        assert answer.add(end).to_dict() == {"type": end.type, "index": 0}
    last = answer.add(MessageEnd("COMPLETE"))
    assert isinstance(last, MessageEnd)
    assert last.response.text == "Hi"
    assert last.to_dict() == {
        "type": "message-end",
        "delta": {"finish_reason": "COMPLETE", "usage": {}},
    }


def test_message_end_knows_the_id_of_its_response() -> None:
    """As the official SDK's event does; before the accumulator it is a LookupError."""
    end = MessageEnd("COMPLETE")
    with pytest.raises(LookupError, match=r"MessageEnd\.id"):
        _ = end.id
    answer = Accumulator()
    answer.add(streamchat.MessageStart("m1"))
    answer.add(end)
    assert end.id == "m1" == end.response.id


REQUEST = ChatRequest(model="m", messages="Hi", extra_body={"x": 1})
CALL = ToolCall("c", ToolCallFunction("f", '{"a": 1}'))


@tool
def double(n: int) -> int:
    """Twice as much. n: a number"""
    return 2 * n


RECORDS: list[tuple[Any, dict[str, Any]]] = [
    (SystemMessage("Be brief."), {"role": "system", "content": "Be brief."}),
    (
        UserMessage([TextContent("Hi")]),
        {"role": "user", "content": [{"text": "Hi", "type": "text"}]},
    ),
    (AssistantMessage(), {"role": "assistant"}),
    (Document({"a": None}, "d"), {"data": {"a": None}, "id": "d"}),
    (CALL, {"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}, "type": "function"}),
    (
        Citation(0, 1, "x", [Source("tool", "s")]),
        {"start": 0, "end": 1, "text": "x", "sources": [{"type": "tool", "id": "s"}]},
    ),
    (Usage(BilledUnits(1, 2.0)), {"billed_units": {"input_tokens": 1, "output_tokens": 2.0}}),
    (LogprobItem([1], "a"), {"token_ids": [1], "text": "a"}),
    (
        REQUEST,
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi"}],
            "x": 1,
            "stream": True,
        },
    ),
    (Frame("a", b"\xff", "7", 5), {"event": "a", "data": "\ufffd", "id": "7", "retry": 5}),
    (Timing(total=1.5), {**dict.fromkeys(("first_byte", "first_event", "first_text")),
                         "longest_gap": None, "total": 1.5}),
    (Timeout(), {"connect": 10.0, "first_event": 120.0, "idle": 60.0, "total": None}),
    (Retry(), {"attempts": 3, "base": 0.5, "cap": 8.0, "max_retry_after": 60.0}),
    (StepStart(1, REQUEST), {"type": "step-start", "step": 1, "request": REQUEST.to_dict()}),
    (
        ToolResult(CALL, "no", object(), ValueError("no"), 0.5),
        {
            "type": "tool-result",
            "tool_call": CALL.to_dict(),
            "content": "no",
            "error": "no",
            "seconds": 0.5,
        },
    ),
    (
        StepEnd(2, ChatResponse("m"), [ToolResult(CALL, "yes")]),
        {
            "type": "step-end",
            "step": 2,
            "response": {"id": "m", "message": {"role": "assistant"}},
            "results": [ToolResult(CALL, "yes").to_dict()],
        },
    ),
    (
        FanOutResult(index=3, request="Hi", error=ValueError("bad \ud800"), data=object()),
        {
            "index": 3,
            "error": "ValueError",
            "message": "bad \ufffd",
            "attempts": 0,
            "timing": Timing().to_dict(),
        },
    ),
    (
        FanOutResult(index=0, request="Hi", response=ChatResponse("m"), attempts=1),
        {
            "index": 0,
            "response": {"id": "m", "message": {"role": "assistant"}},
            "attempts": 1,
            "timing": Timing().to_dict(),
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("record", "expected"), RECORDS, ids=lambda row: type(row).__name__)
def test_the_shape_of_a_record(record: Any, expected: dict[str, Any]) -> None:
    """Plain data: the fields of the wire, or of the class where the wire has none."""
    assert record.to_dict() == expected
    assert list(record.to_dict()) == list(expected)
    assert json.loads(json.dumps(record.to_dict())) == expected


def test_a_function_tool_is_what_the_model_is_told() -> None:
    """Not the function, nor how it is called."""
    assert double.to_dict().keys() == {"type", "function"}
    assert double.to_dict()["function"]["name"] == "double"


def test_every_public_record_has_it() -> None:
    """What the package exports and attrs made, and the events."""
    exported = [getattr(streamchat, name) for name in streamchat.__all__]
    records = [cls for cls in exported if isinstance(cls, type) and issubclass(cls, Record)]
    assert set(EVENT_CLASSES) <= set(records)
    others = [cls for cls in exported if isinstance(cls, type) and attrs.has(cls)]
    assert {cls.__name__ for cls in others if not hasattr(cls, "to_dict")} == {
        "Conversation",  # to_json()
        "Stop",  # holds exception classes
    }


@dataclass
class Rate:
    done: float


PROGRESS = [
    (1, 1),
    ({"at": date(2025, 1, 2)}, {"at": "2025-01-02"}),
    ([UUID(int=1), Path("a/b")], ["00000000-0000-0000-0000-000000000001", "a/b"]),
    ({1: {"x"}}, {"1": ["x"]}),
    (Rate(0.5), {"done": 0.5}),
]


@pytest.mark.parametrize(("value", "expected"), PROGRESS)
def test_progress_is_written_as_a_result_is(value: Any, expected: Any) -> None:
    """A log of events takes whatever a tool may return as well."""
    plain = ToolProgress(ToolCall("c", ToolCallFunction("f", "{}")), value).to_dict()
    assert plain["value"] == expected
    assert json.loads(json.dumps(plain)) == plain


def test_what_json_cannot_say_is_named() -> None:
    """The place is in the message, the value is not."""
    with pytest.raises(TypeError, match=r"^\$\.document\.x is of type object"):
        Source(document={"x": object()}).to_dict()
