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

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

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
from streamchat.protocol.messages import (
    AssistantMessage,
    BilledUnits,
    Citation,
    LogprobItem,
    Source,
    TextContent,
    ThinkingContent,
    TokenCounts,
    ToolCall,
    ToolCallFunction,
    Usage,
)
from streamchat.protocol.plain import is_list, is_mapping, json_name, repair_surrogates
from streamchat.protocol.response import ChatResponse

__all__ = [
    "KNOWN_TYPES",
    "Malformed",
    "events_from_json",
    "foreign_name",
    "message_start_from_json",
    "repair",
    "response_from_json",
    "usage_from_json",
]

KNOWN_TYPES: frozenset[str] = frozenset(cls.type for cls in EVENT_CLASSES)
"""The event types of Chat v2."""

Json = Mapping[str, Any]


class Malformed(Exception):
    """Data that has no meaning; the codec turns it into a :class:`~streamchat.DecodeError`."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason, path)
        self.reason = reason
        """What was wrong, without the value."""
        self.path = path
        """Where: a JSON path."""


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


# --- fields --------------------------------------------------------------------------------------


def _expected(kind: str, value: object, path: str) -> Malformed:
    return Malformed(f"expected {kind}, got {json_name(value)}", path)


def _as_object(value: Any, path: str) -> Json:
    if not is_mapping(value):
        raise _expected("an object", value, path)
    return value


def _object(fields: Json, name: str, path: str) -> Json:
    """An object inside ``fields``; empty if it is absent or ``null``."""
    value = fields.get(name)
    return {} if value is None else _as_object(value, f"{path}.{name}")


def _raw_text(fields: Json, name: str, path: str) -> str | None:
    """A string as it is; half an emoji at its end may meet its other half in the next event."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _expected("a string", value, f"{path}.{name}")
    return value


def _text(fields: Json, name: str, path: str) -> str | None:
    value = _raw_text(fields, name, path)
    return None if value is None else repair_surrogates(value)


def _as_integer(value: Any, path: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _expected("an integer", value, path)
    return value


def _integer(fields: Json, name: str, path: str) -> int | None:
    value = fields.get(name)
    return None if value is None else _as_integer(value, f"{path}.{name}")


def _index(fields: Json, path: str = "$") -> int:
    """The index of an event, :data:`NO_INDEX` if it has none."""
    index = _integer(fields, "index", path)
    if index is None:
        return NO_INDEX
    if not 0 <= index <= MAX_INDEX:
        raise Malformed(f"an index must be from 0 to {MAX_INDEX}", f"{path}.index")
    return index


def _items(value: Any, path: str) -> Sequence[Any]:
    """A list; nothing, an empty text and an object of nulls are empty ones."""
    if not value or (is_mapping(value) and all(item is None for item in value.values())):
        return ()
    if not isinstance(value, Sequence):
        raise _expected("an array", value, path)
    return value


def _several(value: Any) -> Sequence[Any]:
    """What stands under a name that is plural on the wire: one object, or a list of some."""
    if value is None:
        return ()
    if is_list(value):
        return [item for item in value if item is not None]
    return (value,)


def repair(value: Any) -> Any:
    """Plain data without lone surrogates; objects and lists are copied."""
    if isinstance(value, str):
        return repair_surrogates(value)
    if is_mapping(value):
        return {repair_surrogates(name): repair(item) for name, item in value.items()}
    if is_list(value):
        return [repair(item) for item in value]
    return value


# --- events --------------------------------------------------------------------------------------


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
    return _object(_object(data, "delta", "$"), "message", "$.delta")


_MESSAGE = "$.delta.message"


def _message_start(data: Json) -> Sequence[Event]:
    identity = _text(data, "id", "$") or ""
    return (message_start_from_json(identity, _object(data, "delta", "$")),)


def message_start_from_json(identity: str, delta: Json) -> MessageStart:
    """A message-start; its message has so far always been empty, and is read if it is not."""
    message = delta.get("message")
    if is_mapping(message) and any(
        message.get(key) for key in ("content", "tool_plan", "tool_calls", "citations")
    ):
        return MessageStart(identity, _read_message(message, _MESSAGE))
    return MessageStart(identity)


_CONTENT_KEYS = frozenset({"type", "text", "thinking"})


class _UnknownContent(Exception):
    """Content of a kind that this version does not know."""


def _content(value: Any, path: str) -> tuple[ContentKind | None, str]:
    """Kind and piece of a content object; no kind if it declares none and adds nothing."""
    if isinstance(value, str):
        return "text", value
    fields = _as_object(value, path)
    text, thinking = _raw_text(fields, "text", path), _raw_text(fields, "thinking", path)
    declared = _raw_text(fields, "type", path) or None
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
        return [_content(value, path) for value in _several(_message(data).get("content"))] or [
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
    logprobs = _logprobs(data.get("logprobs"), "$.logprobs")
    events: list[Event] = []
    for kind, piece in contents:
        if kind == "thinking":
            events.append(ContentDelta("", index, piece, kind, logprobs))
        else:
            events.append(ContentDelta(piece, index, "", "text", logprobs))
        logprobs = None
    return events


def _tool_plan_delta(data: Json) -> Sequence[Event]:
    return (ToolPlanDelta(_raw_text(_message(data), "tool_plan", _MESSAGE) or ""),)


_CALLS = f"{_MESSAGE}.tool_calls"


def _arguments(function: Json, path: str) -> str:
    """The text of a call's arguments; an object stands for its JSON text."""
    value = function.get("arguments")
    if is_mapping(value):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _raw_text(function, "arguments", path) or ""


def _tool_call_start(data: Json) -> Sequence[Event]:
    index = _index(data)
    events: list[Event] = []
    for value in _several(_message(data).get("tool_calls")):
        call = _as_object(value, _CALLS)
        function = _object(call, "function", _CALLS)
        arguments = function.get("arguments")
        # An empty object is a place-holder: deltas follow, or the call has no arguments.
        started = "" if arguments == {} else _arguments(function, f"{_CALLS}.function")
        name = _text(function, "name", f"{_CALLS}.function") or ""
        made = ToolCall(
            _text(call, "id", _CALLS) or "",
            ToolCallFunction(name, started),
            _type(call, _CALLS),
        )
        events.append(ToolCallStart(made, _own_index(call, index)))
        index = NO_INDEX
    if not events:
        raise Malformed("a tool call that is not there", _CALLS)
    return events


def _tool_call_delta(data: Json) -> Sequence[Event]:
    index = _index(data)
    events: list[Event] = []
    for value in _several(_message(data).get("tool_calls")) or ({},):
        call = _as_object(value, _CALLS)
        function = _object(call, "function", _CALLS)
        piece = _arguments(function, f"{_CALLS}.function")
        events.append(ToolCallDelta(piece, _own_index(call, index)))
        index = index if index is NO_INDEX else min(index + 1, MAX_INDEX)
    return events


def _type(call: Json, path: str) -> str:
    kind = _text(call, "type", path)
    return "function" if kind is None else kind


def _own_index(call: Json, index: int) -> int:
    """The index of one call of a list: its own, as OpenAI's objects have it, or by its position."""
    own = call.get("index")
    if isinstance(own, int) and not isinstance(own, bool) and 0 <= own <= MAX_INDEX:
        return own
    return index


def _citation_start(data: Json) -> Sequence[Event]:
    index, path = _index(data), f"{_MESSAGE}.citations"
    events: list[Event] = []
    for value in _several(_message(data).get("citations")):
        events.append(CitationStart(_citation(value, path), index))
        index = NO_INDEX
    if not events:
        raise Malformed("a citation that is not there", path)
    return events


def _message_end(data: Json) -> Sequence[Event]:
    delta = _object(data, "delta", "$")
    given, error_type, status = delta.get("error"), _text(delta, "error_type", "$.delta"), None
    if is_mapping(given) or is_list(given):
        words, inner_type, status = error_words(given)
        error = words or None
        error_type = error_type or inner_type or (None if status is None else str(status))
    else:
        error = _text(delta, "error", "$.delta")
    reason = _text(delta, "finish_reason", "$.delta")
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
    Debug.type: lambda data: (Debug(_text(data, "prompt", "$")),),
}


# --- their parts ---------------------------------------------------------------------------------


def _citation(value: Any, path: str) -> Citation:
    fields = _as_object(value, path)
    given = fields.get("sources")
    sources = (given,) if is_mapping(given) else _items(given, f"{path}.sources")
    return Citation(
        _integer(fields, "start", path) or 0,
        _integer(fields, "end", path) or 0,
        _text(fields, "text", path) or "",
        [_source(each, f"{path}.sources[{place}]") for place, each in enumerate(sources)],
        _text(fields, "type", path),
        _integer(fields, "content_index", path),
    )


def _source(value: Any, path: str) -> Source:
    fields = _as_object(value, path)
    return Source(
        _text(fields, "type", path),
        _text(fields, "id", path),
        _free(fields, "document", path),
        _free(fields, "tool_output", path),
    )


def _free(fields: Json, name: str, path: str) -> dict[str, Any] | None:
    """An object of the caller's own: any keys, kept as they are."""
    value = fields.get(name)
    if value is None:
        return None
    return cast("dict[str, Any]", repair(_as_object(value, f"{path}.{name}")))


def _logprobs(value: Any, path: str) -> LogprobItem | None:
    if is_list(value) and len(value) == 1:
        value = value[0]
    if value is None:
        return None
    fields = _as_object(value, path)
    ids = _array(fields, "token_ids", path)
    numbers = _array(fields, "logprobs", path)
    return LogprobItem(
        [_as_integer(each, f"{path}.token_ids[{place}]") for place, each in enumerate(ids or ())],
        _text(fields, "text", path),
        None
        if numbers is None
        else [_float(each, f"{path}.logprobs[{place}]") for place, each in enumerate(numbers)],
    )


def _array(fields: Json, name: str, path: str) -> Sequence[Any] | None:
    value = fields.get(name)
    if value is not None and not is_list(value):
        raise _expected("an array", value, f"{path}.{name}")
    return value


def _float(value: Any, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _expected("a number", value, path)
    try:
        return float(value)
    except OverflowError:
        pass
    raise Malformed("a number is out of range", path)


_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
MAX_COUNT = 2**53
"""The largest count of a usage: a larger one is not exact in every JSON reader (RFC 8259, 6)."""


def usage_from_json(value: Any, path: str = "") -> Usage:
    """The usage of an answer; what cannot be read of it is empty.

    Counts may be numbers as text. An answer that is complete does not fail for the sake of its usage.

    Args:
        value: decoded JSON.
        path: if given, a usage that is not an object is an error there.

    Raises:
        Malformed: see ``path``.
    """
    if not is_mapping(value):
        if path and value is not None:
            raise _expected("an object", value, path)
        return Usage()
    billed, tokens = _group(value, "billed_units"), _group(value, "tokens")
    return Usage(
        BilledUnits(**_counts(billed, _BILLED), extra=_others(billed, _BILLED)),
        TokenCounts(**_counts(tokens, _TOKENS), extra=_others(tokens, _TOKENS)),
        _count(value.get("cached_tokens")),
        _others(value, _USAGE),
    )


_BILLED = ("input_tokens", "output_tokens", "search_units", "classifications")
_TOKENS = ("input_tokens", "output_tokens", "image_tokens", "reasoning_tokens")
_USAGE = ("billed_units", "tokens", "cached_tokens")


def _group(fields: Json, name: str) -> Json:
    value = fields.get(name)
    return value if is_mapping(value) else {}


def _counts(fields: Json, names: Sequence[str]) -> dict[str, Any]:
    return {name: _count(fields.get(name)) for name in names}


def _count(value: Any) -> float | None:
    """A number of things, ``None`` if it cannot be one."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_COUNT and math.isfinite(value) else None


def _others(fields: Json, names: Sequence[str]) -> dict[str, Any]:
    return {
        repair_surrogates(name): repair(item) for name, item in fields.items() if name not in names
    }


# --- answers -------------------------------------------------------------------------------------


def _read_message(message: Json, path: str) -> AssistantMessage:
    """An assistant message, whole: of a unary answer, or of a message-start that is not empty."""
    content = _items(message.get("content"), f"{path}.content")
    calls = _items(message.get("tool_calls"), f"{path}.tool_calls")
    citations = _items(message.get("citations"), f"{path}.citations")
    role = _text(message, "role", path)
    if role not in (None, "assistant"):
        raise Malformed("a role that is not 'assistant'", f"{path}.role")
    return AssistantMessage(
        [_part(each, f"{path}.content[{place}]") for place, each in enumerate(content)],
        _text(message, "tool_plan", path) or "",
        [_call(each, f"{path}.tool_calls[{place}]") for place, each in enumerate(calls)],
        [_citation(each, f"{path}.citations[{place}]") for place, each in enumerate(citations)],
    )


def _part(value: Any, path: str) -> TextContent | ThinkingContent:
    fields = _as_object(value, path)
    kind = _raw_text(fields, "type", path) or "text"
    if kind not in ("text", "thinking"):
        raise Malformed("a kind of content that is not known", f"{path}.type")
    piece = _text(fields, kind, path)
    if piece is None:
        raise Malformed("required field missing", f"{path}.{kind}")
    return TextContent(piece) if kind == "text" else ThinkingContent(piece)


def _call(value: Any, path: str) -> ToolCall:
    fields = _as_object(value, path)
    if fields.get("function") is None:
        raise Malformed("required field missing", f"{path}.function")
    function = _object(fields, "function", path)
    return ToolCall(
        _text(fields, "id", path) or "",
        ToolCallFunction(
            _text(function, "name", f"{path}.function") or "",
            repair_surrogates(_arguments(function, f"{path}.function")),
        ),
        _type(fields, path),
    )


def response_from_json(data: Any) -> ChatResponse:
    """An answer from its unary JSON shape.

    Raises:
        Malformed: a field is missing or of the wrong type.
    """
    fields = _as_object(data, "$")
    message = fields.get("message")
    logprobs = _items(fields.get("logprobs"), "$.logprobs")
    items = [_logprobs(each, f"$.logprobs[{place}]") for place, each in enumerate(logprobs)]
    return ChatResponse(
        _text(fields, "id", "$") or "",
        AssistantMessage()
        if message is None
        else _read_message(_as_object(message, "$.message"), "$.message"),
        _text(fields, "finish_reason", "$"),
        usage_from_json(fields.get("usage"), "$.usage"),
        [item for item in items if item is not None],
    )
