"""The records of this package for cattrs, in classes of the caller's own.

An application that stores answers inside of its own attrs classes reads and writes them with cattrs. It
knows nothing of the shapes that the wire has (one object under a plural name, empty fields left out), so
its converter is taught here. Imported with its first use, because most programs need no cattrs.
"""

from __future__ import annotations

from typing import Any, TypeVar

import cattrs

from streamchat.protocol.codec import decode_response, encode_event
from streamchat.protocol.errors import DecodeError
from streamchat.protocol.events import EVENT_CLASSES, Event, UnknownEvent
from streamchat.protocol.from_json import events_from_json
from streamchat.protocol.json_answers import (
    citation_from_json,
    message_from_json,
    tool_call_from_json,
    usage_from_json,
)
from streamchat.protocol.json_fields import Malformed, as_object
from streamchat.protocol.messages import AssistantMessage, Citation, ToolCall, Usage
from streamchat.protocol.plain import (
    TOO_DEEP,
    as_dict,
    decode_json,
    is_nested_deeper,
    to_plain,
)
from streamchat.protocol.response import ChatResponse

__all__ = ["configure_converter"]

C = TypeVar("C", bound=cattrs.BaseConverter)
_EVENTS = (*EVENT_CLASSES, UnknownEvent)


def configure_converter(converter: C) -> C:
    """Teach a cattrs converter the JSON shapes of answers, their parts and events; returns it.

    ::

        converter = configure_converter(cattrs.Converter())
        row = converter.unstructure(MyRow(user="ada", response=response))
        assert converter.structure(row, MyRow).response == response

    Args:
        converter: any converter of cattrs; hooks for the classes of this package are added.

    What cannot be read raises :class:`~streamchat.DecodeError` with its path; what accumulated in an end
    event is not written, as on the wire.
    """
    converter.register_structure_hook(ChatResponse, lambda data, _: decode_response(data))
    converter.register_unstructure_hook(ChatResponse, lambda response: response.to_dict())
    for cls, read in (
        (AssistantMessage, message_from_json),
        (Citation, citation_from_json),
        (ToolCall, tool_call_from_json),
        (Usage, usage_from_json),
    ):
        converter.register_structure_hook(cls, _reading(read))
        converter.register_unstructure_hook(cls, lambda part: to_plain(as_dict(part)))
    for event_class in _EVENTS:
        converter.register_structure_hook(event_class, _read_event)
        converter.register_unstructure_hook(event_class, _event_object)
    converter.register_structure_hook_func(lambda kind: kind == Event, _read_event)
    return converter


def _reading(read: Any) -> Any:
    def hook(data: Any, kind: Any) -> Any:
        if is_nested_deeper(data):
            raise DecodeError(TOO_DEEP, event_type=kind.__name__)
        try:
            return read(as_object(data, "$"), "$")
        except Malformed as error:
            reason, path = error.reason, error.path
        raise DecodeError(reason, event_type=kind.__name__, path=path)

    return hook


def _read_event(data: Any, kind: Any) -> Any:
    if is_nested_deeper(data):
        raise DecodeError(TOO_DEEP, event_type="event")
    try:
        fields = as_object(data, "$")
        name = fields.get("type")
        if not isinstance(name, str):
            raise Malformed("misses 'type'", "$.type")
        events = events_from_json(fields, name)
        if len(events) != 1 or (kind in _EVENTS and not isinstance(events[0], kind)):
            raise Malformed(f"not one event of {getattr(kind, '__name__', 'Event')}", "$.type")
        return events[0]
    except Malformed as error:
        reason, path = error.reason, error.path
    raise DecodeError(reason, event_type="event", path=path)


def _event_object(event: Any) -> Any:
    return decode_json(encode_event(event).data)
