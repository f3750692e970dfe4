"""Frames to events and back, dicts to answers: the room where the wire's shapes are known.

Two ways in, one result:

* the typed way: one pass of msgspec over the bytes into private wire-shaped structs, chosen by
  ``type``; a content delta takes 0.5 us;
* the plain way, for whatever the typed way refuses: JSON to plain data, ``null`` read as absent and
  ``1.0`` as ``1``, then the same structs. Only if that fails too is it a ``DecodeError``.

Strict where a wrong type would corrupt (text that is not ``str``, an index that is not an integer),
open where the wire is open (unknown fields, enum values, event types). Nothing is coerced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import msgspec

from streamchat.protocol.errors import DecodeError, GenerationError
from streamchat.protocol.events import (
    EVENT_CLASSES,
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentKind,
    ContentStart,
    Debug,
    Event,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.protocol.messages import (
    AssistantMessage,
    ToolCall,
    ToolCallFunction,
    Usage,
)
from streamchat.protocol.plain import (
    FLAT,
    TOO_DEEP,
    as_dict,
    decode_json,
    encode_json,
    is_list,
    is_mapping,
    is_nested_deeper,
    nested_too_deeply,
    repair_surrogates,
)
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import Frame
from streamchat.protocol.structure import Malformed, json_name, structure
from streamchat.protocol.wire import (
    AnyWire,
    CitationEndWire,
    CitationStartWire,
    ContentBody,
    ContentDeltaWire,
    ContentEndWire,
    ContentStartWire,
    DebugWire,
    MessageEndWire,
    MessageStartWire,
    ToolCallDeltaWire,
    ToolCallEndWire,
    ToolCallStartWire,
    ToolPlanDeltaWire,
    decode_wire,
)

__all__ = [
    "DONE",
    "decode_event",
    "decode_response",
    "encode_event",
    "is_terminator",
]

DONE = Frame(data=b"[DONE]")
"""The terminator: no ``event:`` line, no JSON (protocol.md 1.4)."""
_TERMINATORS = frozenset({b"[DONE]", b'"[DONE]"'})
"""The second form ended a recorded stream of September 2024."""

_KNOWN_TYPES = frozenset(cls.type for cls in EVENT_CLASSES)


# --- frames to events ----------------------------------------------------------------------------


def is_terminator(frame: Frame) -> bool:
    """Whether the frame is ``[DONE]``, with or without quotes; the whole value is compared."""
    return frame.data.strip() in _TERMINATORS


def decode_event(frame: Frame) -> Event | None:
    """What a frame says; ``None`` for the terminator.

    The JSON ``type`` decides; the frame's ``event`` only tells a stray ``error`` (protocol.md 3.3,
    3.4). End events are not completed yet: that is the accumulator's work.

    Raises:
        DecodeError: not JSON, no object, no ``type``, or a known event that misses or mistypes
            what it must have.
        GenerationError: ``event: error``, or an object without ``type`` but with a ``message``.
    """
    data = frame.data
    if frame.event != "error" and (len(data) <= FLAT or not nested_too_deeply(data)):
        try:
            wire = decode_wire(data)
            return _BUILDERS[type(wire)](wire)
        except (msgspec.DecodeError, UnicodeError, RecursionError, Malformed):
            pass
    return None if is_terminator(frame) else _decode_plainly(frame)


def _decode_plainly(frame: Frame) -> Event:
    """The plain way: slower, more forgiving, and the one that words the errors."""
    hint = frame.event if frame.event != "message" else ""
    try:
        data = decode_json(frame.data)
    except ValueError as error:
        problem = str(error)
    else:
        return _structure_event(data, frame, hint)
    if frame.event == "error":
        return _fail(frame.text)
    raise DecodeError(problem, event_type=hint, payload=frame.data)


def _structure_event(data: Any, frame: Frame, hint: str) -> Event:
    if not is_mapping(data):
        if frame.event == "error":
            return _fail(str(data))
        raise DecodeError(
            f"expected a JSON object, got {json_name(data)}", event_type=hint, payload=frame.data
        )
    name = data.get("type")
    if frame.event == "error" or name == "error" or (name is None and "message" in data):
        return _fail(data)
    if not isinstance(name, str):
        what = "misses 'type'" if "type" not in data else f"'type' is {json_name(name)}"
        raise DecodeError(what, event_type=hint, path="$.type", payload=frame.data)
    try:
        if name not in _KNOWN_TYPES:
            return UnknownEvent(repair_surrogates(name), _repair(data))
        wire = msgspec.convert(_forgive(data, _JOINED.get(name, frozenset())), AnyWire)
        return _BUILDERS[type(wire)](wire)
    except msgspec.ValidationError:
        from streamchat.protocol.mismatch import mismatch  # rarely needed, so not with the package

        reason, path = mismatch(_forgive(data, _JOINED.get(name, frozenset())), AnyWire)
    except Malformed as error:
        if error.path == _CONTENT_PATH and _has_unknown_keys(data):
            return UnknownEvent(name, _repair(data))
        reason, path = error.reason, error.path
    except RecursionError:
        reason, path = "nested too deeply", "$"
    raise DecodeError(reason, event_type=name, path=path, payload=frame.data)


def _fail(data: Any) -> NoReturn:
    """An error event, in whatever shape the server chose (protocol.md 3.4, point 3)."""
    details: Mapping[str, Any] = data if is_mapping(data) else {"message": data}
    inner = details.get("error")
    if is_mapping(inner):
        details = {**details, **inner}
    elif isinstance(inner, str):
        details = {"message": inner, **details}
    error_type = details.get("error_type")
    raise GenerationError(
        finish_reason="ERROR",
        error=repair_surrogates(str(details.get("message", "")))[:2000],
        error_type=repair_surrogates(error_type) if isinstance(error_type, str) else None,
    )


_JOINED: Mapping[str, frozenset[str]] = {
    ContentStart.type: frozenset({"text", "thinking"}),
    ContentDelta.type: frozenset({"text", "thinking"}),
    ToolPlanDelta.type: frozenset({"tool_plan"}),
    ToolCallStart.type: frozenset({"arguments"}),
    ToolCallDelta.type: frozenset({"arguments"}),
}
"""The pieces that the accumulator joins, by the event that brings them."""
_FREE_FORM = frozenset({"document", "tool_output", "usage"})


def _forgive(value: Any, joined: frozenset[str], key: str = "") -> Any:
    """Read ``null`` as absent, an integral float as an integer, half an emoji as U+FFFD.

    Left alone are the pieces that are joined later, because the other half of an emoji may come
    with the next event, and, but for the halves, what may hold any keys: the caller's own documents
    and tool results, and the usage.
    """
    if key in _FREE_FORM:
        return _repair(value)
    if is_mapping(value):
        return {
            repair_surrogates(name): _forgive(
                item, frozenset() if name == "logprobs" else joined, name
            )
            for name, item in value.items()
            if item is not None
        }
    if is_list(value):
        return [_forgive(item, joined) for item in value]
    if isinstance(value, str):
        return value if key in joined else repair_surrogates(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _repair(value: Any) -> Any:
    if is_mapping(value):
        return {repair_surrogates(name): _repair(item) for name, item in value.items()}
    if is_list(value):
        return [_repair(item) for item in value]
    return repair_surrogates(value) if isinstance(value, str) else value


_CONTENT_PATH = "$.delta.message.content"


def _content(body: ContentBody) -> tuple[ContentKind, str, str]:
    """Kind, text and thinking of a content object; exactly one of the two has a key."""
    content = body.message.content
    text, thinking = content.text, content.thinking
    kind = content.type or ("thinking" if thinking is not None and not text else "text")
    if kind == "text" and not thinking and (text is not None or content.type):
        return "text", text or "", ""
    if kind == "thinking" and not text:
        return "thinking", "", thinking or ""
    raise Malformed("needs text or thinking, and not both", _CONTENT_PATH)


def _has_unknown_keys(data: Mapping[str, Any]) -> bool:
    """Whether the content is of a kind this version does not know, rather than empty."""
    content = data["delta"]["message"]["content"]
    return is_mapping(content) and (
        content.get("type") not in (None, "text", "thinking")
        or bool(content.keys() - {"type", "text", "thinking"})
    )


def _build_message_start(wire: MessageStartWire) -> MessageStart:
    message = wire.delta.get("message")
    if is_mapping(message) and any(
        message.get(key) for key in ("content", "tool_plan", "tool_calls", "citations")
    ):
        return MessageStart(wire.id, structure(message, AssistantMessage, "$.delta.message"))
    return MessageStart(wire.id)


def _build_content_start(wire: ContentStartWire) -> ContentStart:
    return ContentStart(wire.index, *_content(wire.delta))


def _build_content_delta(wire: ContentDeltaWire) -> ContentDelta:
    kind, text, thinking = _content(wire.delta)
    return ContentDelta(text, wire.index, thinking, kind, wire.logprobs)


def _build_tool_call_start(wire: ToolCallStartWire) -> ToolCallStart:
    call = wire.delta.message.tool_calls
    return ToolCallStart(
        ToolCall(call.id, ToolCallFunction(call.function.name, call.function.arguments), call.type),
        wire.index,
    )


def _build_message_end(wire: MessageEndWire) -> MessageEnd:
    finish = wire.delta
    return MessageEnd(
        finish.finish_reason,
        structure(finish.usage, Usage, "$.delta.usage"),
        finish.error,
        finish.error_type,
    )


_BUILDERS: Mapping[type[msgspec.Struct], Callable[[Any], Event]] = {
    MessageStartWire: _build_message_start,
    ContentStartWire: _build_content_start,
    ContentDeltaWire: _build_content_delta,
    ContentEndWire: lambda wire: ContentEnd(wire.index),
    ToolPlanDeltaWire: lambda wire: ToolPlanDelta(wire.delta.message.tool_plan),
    ToolCallStartWire: _build_tool_call_start,
    ToolCallDeltaWire: lambda wire: ToolCallDelta(
        wire.delta.message.tool_calls.function.arguments, wire.index
    ),
    ToolCallEndWire: lambda wire: ToolCallEnd(wire.index),
    CitationStartWire: lambda wire: CitationStart(wire.delta.message.citations, wire.index),
    CitationEndWire: lambda wire: CitationEnd(wire.index),
    MessageEndWire: _build_message_end,
    DebugWire: lambda wire: Debug(wire.prompt),
}


# --- events to frames ----------------------------------------------------------------------------


def encode_event(event: Event) -> Frame:
    """The frame that says this event, in the recorded order of keys (recordings, section 2).

    ``decode_event(encode_event(event)) == event``. What the accumulator added is not encoded.

    Raises:
        TypeError: not an event.
        ValueError: text with a lone surrogate, or data that JSON cannot say.
    """
    encode = _ENCODERS.get(type(event))
    if encode is None:
        raise TypeError(f"not an event: {type(event).__name__}")
    name: str = event.type
    if "\n" in name or "\r" in name:
        name = "message"  # an unknown type that no event line can say; the JSON says it
    return Frame(name, encode_json(encode(event)))


def _in_message(kind: str, fields: dict[str, Any], index: int | None = None) -> dict[str, Any]:
    """The envelope of everything that adds to the message."""
    body: dict[str, Any] = {"type": kind}
    if index is not None:
        body["index"] = index
    body["delta"] = {"message": fields}
    return body


def _indexed(event: ContentEnd | ToolCallEnd | CitationEnd) -> dict[str, Any]:
    return {"type": event.type, "index": event.index}


def _encode_message_start(event: MessageStart) -> dict[str, Any]:
    message = event.message
    fields = {
        "role": message.role,
        "content": message.content,
        "tool_plan": message.tool_plan,
        "tool_calls": message.tool_calls,
        "citations": message.citations,
    }
    return {"id": event.id, "type": event.type, "delta": {"message": fields}}


def _encode_content_start(event: ContentStart) -> dict[str, Any]:
    return _in_message(event.type, {"content": {"type": event.kind} | _piece(event)}, event.index)


def _encode_content_delta(event: ContentDelta) -> dict[str, Any]:
    body = _in_message(event.type, {"content": _piece(event)}, event.index)
    if event.logprobs is not None:
        body["logprobs"] = {"token_ids": event.logprobs.token_ids} | as_dict(event.logprobs)
    return body


def _piece(event: ContentStart | ContentDelta) -> dict[str, str]:
    return {"thinking": event.thinking} if event.kind == "thinking" else {"text": event.text}


def _encode_citation_start(event: CitationStart) -> dict[str, Any]:
    citation = as_dict(event.citation)
    kind = citation.pop("type", None)
    citation.setdefault("sources", [])
    if kind is not None:
        citation["type"] = kind  # the recorded wire has it last
    return _in_message(event.type, {"citations": citation}, event.index)


def _encode_message_end(event: MessageEnd) -> dict[str, Any]:
    delta: dict[str, Any] = {"finish_reason": event.finish_reason, "usage": event.usage}
    if event.error is not None:
        delta["error"] = event.error
    if event.error_type is not None:
        delta["error_type"] = event.error_type
    return {"type": event.type, "delta": delta}


def _encode_debug(event: Debug) -> dict[str, Any]:
    return {"type": event.type} | ({} if event.prompt is None else {"prompt": event.prompt})


def _encode_tool_call_start(event: ToolCallStart) -> dict[str, Any]:
    call = event.tool_call
    ordered = {"id": call.id, "type": call.type, "function": call.function}
    return _in_message(event.type, {"tool_calls": ordered}, event.index)


def _encode_tool_call_delta(event: ToolCallDelta) -> dict[str, Any]:
    function = {"function": {"arguments": event.arguments}}
    return _in_message(event.type, {"tool_calls": function}, event.index)


_ENCODERS: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    MessageStart: _encode_message_start,
    ContentStart: _encode_content_start,
    ContentDelta: _encode_content_delta,
    ContentEnd: _indexed,
    ToolPlanDelta: lambda event: _in_message(event.type, {"tool_plan": event.tool_plan}),
    ToolCallStart: _encode_tool_call_start,
    ToolCallDelta: _encode_tool_call_delta,
    ToolCallEnd: _indexed,
    CitationStart: _encode_citation_start,
    CitationEnd: _indexed,
    MessageEnd: _encode_message_end,
    Debug: _encode_debug,
    UnknownEvent: lambda event: {"type": event.type} | event.data,
}


# --- answers --------------------------------------------------------------------------


def decode_response(data: Mapping[str, Any]) -> ChatResponse:
    """An answer from its unary JSON shape (protocol.md 4), as ``ChatResponse.to_dict`` writes it.

    Raises:
        DecodeError: a field is missing or of the wrong type; the path says which. Or more than 200
            levels of nesting, as in every text that is read.
    """
    if is_nested_deeper(data):
        raise DecodeError(TOO_DEEP, event_type="chat response")
    try:
        return structure(data, ChatResponse, "$")
    except Malformed as error:
        reason, path = error.reason, error.path
    raise DecodeError(reason, event_type="chat response", path=path)
