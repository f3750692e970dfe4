"""The wire's JSON object of each event, in the recorded order of keys; imports plain data only.

It stands below the event classes, whose ``to_dict()`` it is, so the functions know the fields of an
event and not its class. ``UnknownEvent`` has its own data and none of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamchat.protocol.plain import as_dict

__all__ = ["SHAPES"]


def _in_message(kind: str, fields: dict[str, Any], index: int | None = None) -> dict[str, Any]:
    """The envelope of everything that adds to the message."""
    body: dict[str, Any] = {"type": kind}
    if index is not None:
        body["index"] = index
    body["delta"] = {"message": fields}
    return body


def _indexed(event: Any) -> dict[str, Any]:
    return {"type": event.type, "index": event.index}


def _message_start(event: Any) -> dict[str, Any]:
    message = event.message
    fields = {
        "role": message.role,
        "content": message.content,
        "tool_plan": message.tool_plan,
        "tool_calls": message.tool_calls,
        "citations": message.citations,
    }
    return {"id": event.id, "type": event.type, "delta": {"message": fields}}


def _content_start(event: Any) -> dict[str, Any]:
    return _in_message(event.type, {"content": {"type": event.kind} | _piece(event)}, event.index)


def _content_delta(event: Any) -> dict[str, Any]:
    body = _in_message(event.type, {"content": _piece(event)}, event.index)
    if event.logprobs is not None:
        body["logprobs"] = {"token_ids": event.logprobs.token_ids} | as_dict(event.logprobs)
    return body


def _piece(event: Any) -> dict[str, str]:
    return {"thinking": event.thinking} if event.kind == "thinking" else {"text": event.text}


def _citation_start(event: Any) -> dict[str, Any]:
    citation = as_dict(event.citation)
    kind = citation.pop("type", None)
    citation.setdefault("sources", [])
    if kind is not None:
        citation["type"] = kind  # the recorded wire has it last
    return _in_message(event.type, {"citations": citation}, event.index)


def _message_end(event: Any) -> dict[str, Any]:
    delta: dict[str, Any] = {"finish_reason": event.finish_reason, "usage": event.usage}
    if event.error is not None:
        delta["error"] = event.error
    if event.error_type is not None:
        delta["error_type"] = event.error_type
    return {"type": event.type, "delta": delta}


def _debug(event: Any) -> dict[str, Any]:
    return {"type": event.type} | ({} if event.prompt is None else {"prompt": event.prompt})


def _tool_call_start(event: Any) -> dict[str, Any]:
    call = event.tool_call
    ordered = {"id": call.id, "type": call.type, "function": call.function}
    return _in_message(event.type, {"tool_calls": ordered}, event.index)


def _tool_call_delta(event: Any) -> dict[str, Any]:
    function = {"function": {"arguments": event.arguments}}
    return _in_message(event.type, {"tool_calls": function}, event.index)


SHAPES: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "message-start": _message_start,
    "content-start": _content_start,
    "content-delta": _content_delta,
    "content-end": _indexed,
    "tool-plan-delta": lambda event: _in_message(event.type, {"tool_plan": event.tool_plan}),
    "tool-call-start": _tool_call_start,
    "tool-call-delta": _tool_call_delta,
    "tool-call-end": _indexed,
    "citation-start": _citation_start,
    "citation-end": _indexed,
    "message-end": _message_end,
    "debug": _debug,
}
"""An event's ``type`` to the fields of its JSON object, one level deep. What the accumulator added is not
among them."""
