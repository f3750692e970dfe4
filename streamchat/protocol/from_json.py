"""Plain JSON data to events and answers, in every shape that servers and gateways send.

This is the definition of what is read. The typed way of :mod:`streamchat.protocol.codec` is a short cut
for the shapes that Cohere's own servers send, and gives the same results.

The OpenAPI specification of Chat v2 makes nearly every field optional, and gateways use that: they leave
fields out, send ``null`` or ``{}``, put one object into a list, or a JSON object where a JSON text belongs.
All of that has one meaning and is read. Values of a wrong type that would corrupt the answer are not:
text that is not a string, an index that is not an integer. Nothing is coerced silently.

Reading stops at the first error, so a malformed event costs no more than a well-formed one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamchat.protocol.error_body import error_words
from streamchat.protocol.events import (
    EVENT_CLASSES,
    MAX_INDEX,
    NO_INDEX,
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
from streamchat.protocol.json_answers import (
    arguments_of,
    call_type_of,
    citation_from_json,
    logprobs_from_json,
    message_from_json,
    usage_from_json,
)
from streamchat.protocol.json_fields import (
    Json,
    Malformed,
    as_object,
    integer_of,
    object_of,
    raw_text_of,
    repair,
    several_of,
    text_of,
)
from streamchat.protocol.messages import ToolCall, ToolCallFunction
from streamchat.protocol.plain import is_list, is_mapping, repair_surrogates

__all__ = ["KNOWN_TYPES", "events_from_json", "foreign_name", "message_start_from_json"]

KNOWN_TYPES: frozenset[str] = frozenset(cls.type for cls in EVENT_CLASSES)
"""The event types of Chat v2."""


def foreign_name(data: Json) -> str:
    """What an object without ``type`` looks like, for error messages; ``""`` if that is not known."""
    message = data.get("message")
    if "event_type" in data:
        return "an event of Chat v1"
    if "choices" in data:
        return "a chunk of an OpenAI-compatible server"
    if "finishReason" in data or "chatResponse" in data or "apiFormat" in data:
        return "an event of OCI's Chat API"
    if is_mapping(message):
        role = message.get("role")
        if isinstance(role, str) and role.isupper():
            return "an event of OCI's Chat API"
        return "a whole answer that was not streamed"
    if "generation_id" in data or "generations" in data:
        return "an answer of Chat v1"
    return ""


def events_from_json(data: Json, name: str) -> Sequence[Event]:
    """The events of a JSON object whose ``type`` is ``name``: one, or one for each object of a list.

    Raises:
        Malformed: a field of a wrong type, or a start that starts nothing.
    """
    read = _READERS.get(name)
    if read is None:
        return (UnknownEvent(repair_surrogates(name), repair(data)),)
    return read(data)


def _message(data: Json) -> Json:
    return object_of(object_of(data, "delta", "$"), "message", "$.delta")


_MESSAGE = "$.delta.message"


def _message_start(data: Json) -> Sequence[Event]:
    identity = text_of(data, "id", "$") or ""
    return (message_start_from_json(identity, object_of(data, "delta", "$")),)


def message_start_from_json(identity: str, delta: Json) -> MessageStart:
    """A message-start; its message has so far always been empty, and is read if it is not."""
    message = delta.get("message")
    if is_mapping(message) and (
        message.get("content")
        or message.get("tool_plan")
        or message.get("tool_calls")
        or message.get("citations")
    ):
        return MessageStart(identity, message_from_json(message, _MESSAGE))
    return MessageStart(identity)


_CONTENT_KEYS = frozenset({"type", "text", "thinking"})


class _UnknownContent(Exception):
    """Content of a kind that this version does not know."""


def _content(value: Any, path: str) -> tuple[ContentKind | None, str]:
    """Kind and piece of a content object; no kind if it declares none and adds nothing."""
    if isinstance(value, str):
        return "text", value
    fields = as_object(value, path)
    text, thinking = raw_text_of(fields, "text", path), raw_text_of(fields, "thinking", path)
    declared = raw_text_of(fields, "type", path) or None
    if declared not in (None, "text", "thinking"):
        raise _UnknownContent
    if text and thinking:
        raise Malformed("needs text or thinking, and not both", path)
    kind = declared or ("thinking" if thinking is not None and not text else "text")
    if kind == "thinking" and not text:
        return "thinking", thinking or ""
    if kind == "text" and not thinking:
        if declared or text is not None:
            return "text", text or ""
        if fields.keys() <= _CONTENT_KEYS:
            return None, ""
    if fields.keys() <= _CONTENT_KEYS:
        raise Malformed("needs text or thinking, and not both", path)
    raise _UnknownContent


def _contents(data: Json) -> Sequence[tuple[ContentKind | None, str]] | None:
    """The content objects of an event, one that adds nothing if there is none; ``None`` if unknown."""
    path = f"{_MESSAGE}.content"
    try:
        return [_content(value, path) for value in several_of(_message(data).get("content"))] or [
            (None, "")
        ]
    except _UnknownContent:
        return None


def _content_start(data: Json) -> Sequence[Event]:
    contents, index = _contents(data), _index(data)
    if contents is None:
        return (UnknownEvent(ContentStart.type, repair(data)),)
    events: list[Event] = []
    for kind, piece in contents:
        if kind == "thinking":
            events.append(ContentStart(index, kind, "", piece))
        else:
            events.append(ContentStart(index, "text", piece, kind_is_open=kind is None))
        index = NO_INDEX  # of several, those behind the first take the next free places
    return events


def _content_delta(data: Json) -> Sequence[Event]:
    contents, index = _contents(data), _index(data)
    if contents is None:
        return (UnknownEvent(ContentDelta.type, repair(data)),)
    logprobs = logprobs_from_json(data.get("logprobs"), "$.logprobs")
    events: list[Event] = []
    for kind, piece in contents:
        if kind == "thinking":
            events.append(ContentDelta("", index, piece, kind, logprobs))
        else:
            events.append(ContentDelta(piece, index, "", "text", logprobs))
        logprobs = None
    return events


def _tool_plan_delta(data: Json) -> Sequence[Event]:
    return (ToolPlanDelta(raw_text_of(_message(data), "tool_plan", _MESSAGE) or ""),)


_CALLS = f"{_MESSAGE}.tool_calls"


def _tool_call_start(data: Json) -> Sequence[Event]:
    index = _index(data)
    events: list[Event] = []
    given = _message(data).get("tool_calls")
    for value in several_of(given):
        call = as_object(value, _CALLS)
        function = object_of(call, "function", _CALLS)
        arguments = function.get("arguments")
        # An empty object is a place-holder: deltas follow, or the call has no arguments.
        started = "" if arguments == {} else arguments_of(function, f"{_CALLS}.function")
        name = text_of(function, "name", f"{_CALLS}.function") or ""
        made = ToolCall(
            text_of(call, "id", _CALLS) or "",
            ToolCallFunction(name, started),
            call_type_of(call, _CALLS),
        )
        events.append(ToolCallStart(made, _own_index(call, index) if is_list(given) else index))
        index = NO_INDEX
    if not events:
        raise Malformed("a tool call that is not there", _CALLS)
    return events


def _tool_call_delta(data: Json) -> Sequence[Event]:
    index = _index(data)
    events: list[Event] = []
    given = _message(data).get("tool_calls")
    for value in several_of(given) or ({},):
        call = as_object(value, _CALLS)
        function = object_of(call, "function", _CALLS)
        piece = arguments_of(function, f"{_CALLS}.function")
        place = _own_index(call, index) if is_list(given) else index
        if place is NO_INDEX and events:
            raise Malformed("pieces of several calls without an index", _CALLS)
        events.append(ToolCallDelta(piece, _checked_index(place)))
        index = index if index is NO_INDEX else index + 1
    return events


def _own_index(call: Json, index: int) -> int:
    """The index of one call of a list: its own, as OpenAI's objects have it, or by its position."""
    own = call.get("index")
    if isinstance(own, int) and not isinstance(own, bool) and 0 <= own <= MAX_INDEX:
        return own
    return index


def _citation_start(data: Json) -> Sequence[Event]:
    index, path = _index(data), f"{_MESSAGE}.citations"
    events: list[Event] = []
    for value in several_of(_message(data).get("citations")):
        events.append(CitationStart(citation_from_json(value, path), index))
        index = NO_INDEX
    if not events:
        raise Malformed("a citation that is not there", path)
    return events


def _message_end(data: Json) -> Sequence[Event]:
    delta = object_of(data, "delta", "$")
    given, error_type, status = delta.get("error"), text_of(delta, "error_type", "$.delta"), None
    if is_mapping(given) or is_list(given):
        words, inner_type, status = error_words(given)
        error = words or None
        error_type = error_type or inner_type or (None if status is None else str(status))
    else:
        error = text_of(delta, "error", "$.delta")
    reason = text_of(delta, "finish_reason", "$.delta")
    usage = usage_from_json(delta.get("usage"))
    return (MessageEnd(reason or "", usage, error, error_type, status=status),)


def _ended(cls: type[Any]) -> Callable[[Json], Sequence[Event]]:
    return lambda data: (cls(_index(data)),)


_READERS: Mapping[str, Callable[[Json], Sequence[Event]]] = {
    MessageStart.type: _message_start,
    ContentStart.type: _content_start,
    ContentDelta.type: _content_delta,
    ContentEnd.type: _ended(ContentEnd),
    ToolPlanDelta.type: _tool_plan_delta,
    ToolCallStart.type: _tool_call_start,
    ToolCallDelta.type: _tool_call_delta,
    ToolCallEnd.type: _ended(ToolCallEnd),
    CitationStart.type: _citation_start,
    CitationEnd.type: _ended(CitationEnd),
    MessageEnd.type: _message_end,
    Debug.type: lambda data: (Debug(text_of(data, "prompt", "$")),),
}


def _index(fields: Json) -> int:
    """The index of an event, :data:`NO_INDEX` if it has none."""
    index = integer_of(fields, "index", "$")
    return NO_INDEX if index is None else _checked_index(index)


def _checked_index(index: int) -> int:
    if not 0 <= index <= MAX_INDEX:
        raise Malformed(f"an index must be from 0 to {MAX_INDEX}", "$.index")
    return index
