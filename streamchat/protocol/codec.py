"""Frames to events and back, answers from dicts.

Two ways in, one result:

* the typed way: one pass of msgspec over the bytes into private wire-shaped structs, chosen by
  ``type``; a content delta takes 0.5 us;
* the plain way, for everything that the typed way refuses: JSON to plain data, which
  :mod:`streamchat.protocol.from_json` reads in every shape that has a meaning. Only if that fails too is
  it a ``DecodeError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from streamchat.protocol.error_body import error_words
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
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
    event_fields,
)
from streamchat.protocol.from_json import (
    KNOWN_TYPES,
    events_from_json,
    foreign_name,
    message_start_from_json,
)
from streamchat.protocol.json_answers import response_from_json, usage_from_json
from streamchat.protocol.json_fields import Malformed, repair
from streamchat.protocol.messages import ToolCall, ToolCallFunction
from streamchat.protocol.plain import (
    FLAT,
    MAX_VALUES,
    TOO_DEEP,
    decode_json,
    encode_json,
    has_giant_integer,
    holds_too_many,
    is_list,
    is_mapping,
    is_nested_deeper,
    json_name,
    nested_too_deeply,
)
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import Frame
from streamchat.protocol.wire import (
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
    "decode_events",
    "decode_response",
    "encode_event",
    "is_answer_event",
    "is_terminator",
]

DONE = Frame(data=b"[DONE]")
"""The terminator: no ``event:`` line, no JSON."""
_TERMINATORS = frozenset({b"[DONE]", b'"[DONE]"'})
"""The second form ended a recorded stream of September 2024."""

# --- frames to events ----------------------------------------------------------------------------


def is_terminator(frame: Frame) -> bool:
    """Whether the frame is ``[DONE]``, with or without quotes; the whole value is compared.

    Under a name that Chat v2 does not have it is an event of somebody else's.
    """
    return frame.data.strip() in _TERMINATORS and not _is_foreign(frame)


def decode_event(frame: Frame) -> Event | None:
    """The event of a frame; ``None`` for the terminator and for a frame without data.

    The JSON ``type`` decides. The frame's ``event`` matters for two kinds of frames: ``error`` is a
    failure, and a name that Chat v2 does not have, with data that has no ``type``, is not an event of
    the answer but, for example, a gateway's keep-alive: an :class:`UnknownEvent`, its data under the
    key ``data`` if it is not an object. End events are not completed yet: the accumulator does that.

    Raises:
        DecodeError: not JSON, not an object, no ``type``, a known event with a field of a wrong type,
            or several events in one frame, which :func:`decode_events` reads.
        GenerationError: ``event: error``, or an object without ``type`` that is an error.
    """
    events = decode_events(frame)
    if len(events) > 1:
        raise DecodeError(
            "several events in one frame; decode_events() reads them",
            event_type=events[0].type,
            payload=frame.data,
        )
    return events[0] if events else None


def decode_events(frame: Frame) -> Sequence[Event]:
    """The events of a frame: one, nearly always.

    None for the terminator and for a frame without data. Several for a list of objects where the wire
    has one: each call, citation or piece of content of the list is an event.

    Raises:
        DecodeError, GenerationError: as :func:`decode_event`.
    """
    data = frame.data
    is_small = len(data) <= FLAT or not (
        holds_too_many(data) or nested_too_deeply(data) or has_giant_integer(data)
    )
    if is_small and frame.event != "error":
        try:
            wire = decode_wire(frame.data)
            return (_BUILDERS[type(wire)](wire),)
        except (msgspec.DecodeError, UnicodeError, RecursionError, Malformed):
            pass
    return () if is_terminator(frame) else _decode_plainly(frame)


def _decode_plainly(frame: Frame) -> Sequence[Event]:
    """The plain way: slower, more forgiving, and the one that words the errors."""
    is_error, is_foreign = frame.event == "error", _is_foreign(frame)
    if not frame.data.strip():
        return _fail("") if is_error else ()
    problem = ""
    if holds_too_many(frame.data):  # first: it takes a tenth of what the others do
        problem = f"more than {MAX_VALUES} JSON values"
    data: Any = None
    try:
        data = None if problem else decode_json(frame.data)
    except ValueError as error:
        problem = str(error)
    if problem:
        if is_error:
            return _fail(frame.text)
        if is_foreign:
            return (UnknownEvent(frame.event, {"data": frame.text}),)
        raise DecodeError(problem, event_type=_hint(frame), payload=frame.data)
    if is_error:
        return _fail(data)
    name = data.get("type") if is_mapping(data) else None
    if isinstance(name, str):
        return _fail(data) if _is_typed_error(data, name) else _decode_typed(data, name, frame)
    if _is_error(data, is_foreign=is_foreign):
        return _fail(data)
    if is_foreign:
        return (UnknownEvent(frame.event, repair(data if is_mapping(data) else {"data": data})),)
    if not is_mapping(data):
        reason, path = f"expected a JSON object, got {json_name(data)}", "$"
    else:
        reason, path = "misses 'type'" if name is None else f"'type' is {json_name(name)}", "$.type"
        looks_like = foreign_name(data)
        if looks_like:
            reason += f"; it looks like {looks_like}"
    raise DecodeError(reason, event_type=_hint(frame), path=path, payload=frame.data)


def _decode_typed(data: Mapping[str, Any], name: str, frame: Frame) -> Sequence[Event]:
    try:
        return events_from_json(data, name)
    except Malformed as error:
        reason, path = error.reason, error.path
    except RecursionError:
        reason, path = "nested too deeply", "$"
    raise DecodeError(reason, event_type=name, path=path, payload=frame.data)


def is_answer_event(frame: Frame) -> bool:
    """Whether a frame is more than a keep-alive: an event of Chat v2, its end, or a failure.

    Unknown events and frames without data are not. What cannot be decoded is.
    """
    if frame.event in KNOWN_TYPES:
        return True
    try:
        events = decode_events(frame)
    except (DecodeError, GenerationError):
        return True
    if not events:
        return bool(frame.data.strip())
    first = events[0]
    # A known type with content of an unknown kind is an event of Chat v2 all the same.
    if not isinstance(first, UnknownEvent):
        return True
    kind = first.data.get("type")
    return isinstance(kind, str) and kind in KNOWN_TYPES


def _hint(frame: Frame) -> str:
    return frame.event if frame.event != "message" else ""


def _is_foreign(frame: Frame) -> bool:
    """Whether the event line has a name that Chat v2 does not have."""
    return frame.event not in ("message", "error") and frame.event not in KNOWN_TYPES


def _is_typed_error(data: Mapping[str, Any], name: str) -> bool:
    """Whether an object is an error whose ``type`` is its kind, as OpenAI-like servers write it."""
    if name == "error":
        return True
    if name in KNOWN_TYPES:
        return False
    has_words = any(data.get(key) for key in ("message", "error", "detail"))
    return data.get("object") == "error" or (name.lower().endswith("error") and has_words)


def _is_error(data: Any, *, is_foreign: bool) -> bool:
    """Whether an object without ``type`` is an error.

    A message alone does not make a foreign event an error: a keep-alive may have one.
    """
    if not is_mapping(data):
        return False
    error = data.get("error")
    if (error and isinstance(error, str)) or is_mapping(error) or data.get("errors"):
        return True
    if is_foreign:
        return False
    message, detail = data.get("message"), data.get("detail")
    has_message = message is not None and not is_mapping(message) and not is_list(message)
    return has_message or (detail is not None and not is_mapping(detail))


def _fail(data: Any) -> NoReturn:
    """Raise the failure that an error event tells of, in whatever shape the server chose."""
    words, error_type, status = error_words(data)
    if not words:
        scalar = data.get("message") if is_mapping(data) else data
        if scalar is not None and not is_mapping(scalar):
            words, _, _ = error_words(str(scalar))
    raise GenerationError(
        finish_reason="ERROR",
        error=words,
        error_type=error_type or (None if status is None else str(status)),
        status=status,
    )


def _content(body: ContentBody) -> tuple[ContentKind, str, str]:
    """Kind, text and thinking of a content object; exactly one of the two has a key."""
    content = body.message.content
    text, thinking = content.text, content.thinking
    kind = content.type or ("thinking" if thinking is not None and not text else "text")
    if kind == "text" and not thinking and (text is not None or content.type):
        return "text", text or "", ""
    if kind == "thinking" and not text:
        return "thinking", "", thinking or ""
    raise Malformed("", "")  # the plain way words it, or reads it


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
    usage = usage_from_json(finish.usage)
    return MessageEnd(finish.finish_reason, usage, finish.error, finish.error_type)


_BUILDERS: Mapping[type[msgspec.Struct], Callable[[Any], Event]] = {
    MessageStartWire: lambda wire: message_start_from_json(wire.id, wire.delta),
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
    """The frame that says this event, with its keys in the order of recorded answers.

    ``decode_event(encode_event(event)) == event``. What the accumulator added is not encoded.

    Raises:
        TypeError: not an event.
        ValueError: text with a lone surrogate, or data that JSON cannot say.
    """
    if type(event) not in _CLASSES:
        raise TypeError(f"not an event: {type(event).__name__}")
    name: str = event.type
    if "\n" in name or "\r" in name:
        name = "message"  # an unknown type that no event line can say; the JSON says it
    return Frame(name, encode_json(event_fields(event)))


_CLASSES: frozenset[type] = frozenset({*EVENT_CLASSES, UnknownEvent})


# --- answers -------------------------------------------------------------------------------------


def decode_response(data: Mapping[str, Any]) -> ChatResponse:
    """An answer from its unary JSON shape, as ``ChatResponse.to_dict`` writes it.

    Raises:
        DecodeError: a field is missing or of the wrong type; the path says which. Or more than 200
            levels of nesting, as in every text that is read.
    """
    if is_nested_deeper(data):
        raise DecodeError(TOO_DEEP, event_type="chat response")
    try:
        return response_from_json(data)
    except Malformed as error:
        reason, path = error.reason, error.path
    except RecursionError:
        reason, path = "nested too deeply", "$"
    raise DecodeError(reason, event_type="chat response", path=path)
