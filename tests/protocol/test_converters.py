"""Records of this package inside of attrs classes of somebody else, by cattrs."""

from __future__ import annotations

import json
from typing import Any

import attrs
import cattrs
import pytest
from cattrs.preconf.json import make_converter
from hypothesis import given

from streamchat.protocol import ChatResponse
from streamchat.protocol.converters import configure_converter
from streamchat.protocol.errors import DecodeError
from streamchat.protocol.events import ContentDelta, Event, ToolCallStart
from streamchat.protocol.messages import Citation, ToolCall, ToolCallFunction, Usage

from .helpers import examples
from .strategies import citations, events, responses, tool_calls, usages


@attrs.define
class Row:
    """What an application may store."""

    user: str
    response: ChatResponse
    log: list[Event]
    cited: list[Citation]
    calls: list[ToolCall]
    bill: Usage


@examples(200)
@given(responses, events, citations, tool_calls, usages)
def test_a_row_of_an_application_survives(
    response: ChatResponse, event: Event, citation: Citation, call: ToolCall, usage: Usage
) -> None:
    """Written and read, through JSON text too, with the shapes of the wire inside."""
    converter = configure_converter(cattrs.Converter())
    row = Row("ada", response, [event], [citation], [call], usage)
    plain = converter.unstructure(row)
    assert plain["response"] == response.to_dict()
    assert converter.structure(json.loads(json.dumps(plain)), Row) == row


def test_a_converter_of_another_kind_is_taught_as_well() -> None:
    """It is returned, and goes on to do what it did."""
    converter = configure_converter(make_converter())
    assert converter.structure({"type": "content-delta"}, ContentDelta) == ContentDelta()
    assert converter.loads('{"a": 1}', dict[str, int]) == {"a": 1}


DEEP: Any = "canary"
for _ in range(5000):
    DEEP = [DEEP]
TWO_CALLS = {
    "type": "tool-call-start",
    "delta": {
        "message": {"tool_calls": [{"id": name, "function": {"name": "f"}} for name in ("a", "b")]}
    },
}


@pytest.mark.parametrize(
    ("kind", "data", "path"),
    [
        (ChatResponse, {"id": 5}, "$.id"),
        (Usage, "canary", "$"),
        (Citation, {"text": 7}, "$.text"),
        (ToolCall, {"id": "a"}, "$.function"),
        (ContentDelta, {"type": "content-end"}, "$.type"),
        (ToolCallStart, {"type": "tool-call-start"}, "$.delta.message.tool_calls"),
        (Event, {"text": "canary"}, "$.type"),
        (Event, TWO_CALLS, "$.type"),
        (Event, {"type": "debug", "prompt": DEEP}, "$"),
        (Citation, {"sources": [{"type": "document", "document": DEEP}]}, "$"),
        (Event, ["canary"], "$"),
    ],
)
def test_what_cannot_be_read_names_its_place(kind: Any, data: Any, path: str) -> None:
    """An error of ours, which quotes nothing."""
    converter = configure_converter(cattrs.Converter(detailed_validation=False))
    with pytest.raises(DecodeError) as caught:
        converter.structure(data, kind)
    assert caught.value.path == path
    assert "canary" not in str(caught.value)


def test_a_call_is_written_as_the_wire_has_it() -> None:
    """Id, function and type; the mark of a made-up id is ours."""
    converter = configure_converter(cattrs.Converter())
    call = ToolCall("call_0", ToolCallFunction("f", "{}"), has_made_up_id=True)
    assert converter.unstructure(call) == {
        "id": "call_0",
        "function": {"name": "f", "arguments": "{}"},
        "type": "function",
    }
