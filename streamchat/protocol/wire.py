"""The JSON objects of the stream as msgspec structs, one for each event; used by the codec alone.

The nesting is the wire's own, as in Cohere's API reference. A struct takes only what the event cannot do
without, and ignores unknown keys. ``decode_wire`` reads the bytes in one pass: the tagged union finds
``type`` wherever it stands in the object.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from streamchat.protocol.events import MAX_INDEX, NO_INDEX
from streamchat.protocol.messages import Citation, LogprobItem

__all__ = [
    "AnyWire",
    "CitationEndWire",
    "CitationStartWire",
    "ContentBody",
    "ContentDeltaWire",
    "ContentEndWire",
    "ContentStartWire",
    "DebugWire",
    "MessageEndWire",
    "MessageStartWire",
    "ToolCallDeltaWire",
    "ToolCallEndWire",
    "ToolCallStartWire",
    "ToolPlanDeltaWire",
    "Wire",
    "decode_wire",
]


Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_INDEX)]


class Wire(msgspec.Struct, tag_field="type"):
    """An event's JSON object. The tag is ``type``, wherever it stands in the object."""


class _Content(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class _ContentMessage(msgspec.Struct):
    content: _Content


class ContentBody(msgspec.Struct):
    message: _ContentMessage


class MessageStartWire(Wire, tag="message-start"):
    id: str = ""
    delta: dict[str, Any] = {}


class ContentStartWire(Wire, tag="content-start"):
    delta: ContentBody
    index: Index = NO_INDEX


class ContentDeltaWire(Wire, tag="content-delta"):
    delta: ContentBody
    index: Index = NO_INDEX
    logprobs: LogprobItem | None = None


class ContentEndWire(Wire, tag="content-end"):
    index: Index = NO_INDEX


class _PlanMessage(msgspec.Struct):
    tool_plan: str


class _PlanBody(msgspec.Struct):
    message: _PlanMessage


class ToolPlanDeltaWire(Wire, tag="tool-plan-delta"):
    delta: _PlanBody


class _StartedFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class _StartedCall(msgspec.Struct):
    id: str
    function: _StartedFunction
    type: str = "function"


class _CallMessage(msgspec.Struct):
    tool_calls: _StartedCall


class _CallBody(msgspec.Struct):
    message: _CallMessage


class ToolCallStartWire(Wire, tag="tool-call-start"):
    delta: _CallBody
    index: Index = NO_INDEX


class _ArgumentsFunction(msgspec.Struct):
    arguments: str


class _ArgumentsCall(msgspec.Struct):
    function: _ArgumentsFunction


class _ArgumentsMessage(msgspec.Struct):
    tool_calls: _ArgumentsCall


class _ArgumentsBody(msgspec.Struct):
    message: _ArgumentsMessage


class ToolCallDeltaWire(Wire, tag="tool-call-delta"):
    delta: _ArgumentsBody
    index: Index = NO_INDEX


class ToolCallEndWire(Wire, tag="tool-call-end"):
    index: Index = NO_INDEX


class _CitationMessage(msgspec.Struct):
    citations: Citation


class _CitationBody(msgspec.Struct):
    message: _CitationMessage


class CitationStartWire(Wire, tag="citation-start"):
    delta: _CitationBody
    index: Index = NO_INDEX


class CitationEndWire(Wire, tag="citation-end"):
    index: Index = NO_INDEX


class _Finish(msgspec.Struct):
    finish_reason: str = ""
    usage: dict[str, Any] = {}
    error: str | None = None
    error_type: str | None = None


class MessageEndWire(Wire, tag="message-end"):
    delta: _Finish


class DebugWire(Wire, tag="debug"):
    prompt: str | None = None


AnyWire = (
    MessageStartWire
    | ContentStartWire
    | ContentDeltaWire
    | ContentEndWire
    | ToolPlanDeltaWire
    | ToolCallStartWire
    | ToolCallDeltaWire
    | ToolCallEndWire
    | CitationStartWire
    | CitationEndWire
    | MessageEndWire
    | DebugWire
)
decode_wire = msgspec.json.Decoder(AnyWire).decode
"""One pass over an event's bytes; ``msgspec.DecodeError`` for whatever is not as above."""
