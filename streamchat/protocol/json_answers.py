"""Plain JSON data to answers and their parts: messages, calls, citations, usage, log probabilities."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from streamchat.protocol.json_fields import (
    Json,
    Malformed,
    array_of,
    as_float,
    as_integer,
    as_object,
    expected,
    integer_of,
    items_of,
    object_of,
    raw_text_of,
    repair,
    text_of,
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
from streamchat.protocol.plain import is_list, is_mapping, repair_surrogates
from streamchat.protocol.response import ChatResponse

__all__ = [
    "arguments_of",
    "call_type_of",
    "citation_from_json",
    "logprobs_from_json",
    "message_from_json",
    "response_from_json",
    "tool_call_from_json",
    "usage_from_json",
]


def citation_from_json(value: Any, path: str) -> Citation:
    """A citation; each of its fields is optional."""
    fields = as_object(value, path)
    given = fields.get("sources")
    sources = (given,) if is_mapping(given) else array_of(fields, "sources", path) or ()
    return Citation(
        integer_of(fields, "start", path) or 0,
        integer_of(fields, "end", path) or 0,
        text_of(fields, "text", path) or "",
        [_source(each, f"{path}.sources[{place}]") for place, each in enumerate(sources)],
        text_of(fields, "type", path),
        integer_of(fields, "content_index", path),
    )


def _source(value: Any, path: str) -> Source:
    fields = as_object(value, path)
    return Source(
        text_of(fields, "type", path),
        text_of(fields, "id", path),
        _free(fields, "document", path),
        _free(fields, "tool_output", path),
    )


def _free(fields: Json, name: str, path: str) -> dict[str, Any] | None:
    """An object of the caller's own: any keys, kept as they are."""
    value = fields.get(name)
    if value is None:
        return None
    return cast("dict[str, Any]", repair(as_object(value, f"{path}.{name}")))


def logprobs_from_json(value: Any, path: str) -> LogprobItem | None:
    """The log probabilities of one delta: an object, or a list of one."""
    if is_list(value) and len(value) == 1 and is_mapping(value[0]):
        value = value[0]
    if value is None:
        return None
    fields = as_object(value, path)
    ids = array_of(fields, "token_ids", path)
    numbers = array_of(fields, "logprobs", path)
    return LogprobItem(
        [as_integer(each, f"{path}.token_ids[{place}]") for place, each in enumerate(ids or ())],
        text_of(fields, "text", path),
        None
        if numbers is None
        else [as_float(each, f"{path}.logprobs[{place}]") for place, each in enumerate(numbers)],
    )


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
            raise expected("an object", value, path)
        return Usage()
    billed, tokens, cached = value.get("billed_units"), value.get("tokens"), None
    if "cached_tokens" in value:
        cached = _count(value["cached_tokens"])
    return Usage(
        BilledUnits(*_counts(billed, _BILLED)) if is_mapping(billed) else BilledUnits(),
        TokenCounts(*_counts(tokens, _TOKENS)) if is_mapping(tokens) else TokenCounts(),
        cached,
        _others(value, _USAGE),
    )


_BILLED = ("input_tokens", "output_tokens", "search_units", "classifications")
_TOKENS = ("input_tokens", "output_tokens", "image_tokens", "reasoning_tokens")
_USAGE = ("billed_units", "tokens", "cached_tokens")


def _counts(fields: Json, names: Sequence[str]) -> list[Any]:
    """The counts with these names, in their order, and the other keys."""
    found: list[Any] = [_count(fields[name]) if name in fields else None for name in names]
    found.append(_others(fields, names))
    return found


def _count(value: Any) -> float | None:
    """A number of things, ``None`` if it cannot be one."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_COUNT else None


def _others(fields: Json, names: Sequence[str]) -> dict[str, Any]:
    return {
        repair_surrogates(name): repair(item) for name, item in fields.items() if name not in names
    }


def message_from_json(message: Json, path: str) -> AssistantMessage:
    """An assistant message, whole: of a unary answer, or of a message-start that is not empty."""
    content = items_of(message.get("content"), f"{path}.content")
    calls = items_of(message.get("tool_calls"), f"{path}.tool_calls")
    citations = items_of(message.get("citations"), f"{path}.citations")
    role = text_of(message, "role", path)
    if role not in (None, "assistant"):
        raise Malformed("a role that is not 'assistant'", f"{path}.role")
    return AssistantMessage(
        [_part(each, f"{path}.content[{place}]") for place, each in enumerate(content)],
        text_of(message, "tool_plan", path) or "",
        [
            tool_call_from_json(each, f"{path}.tool_calls[{place}]")
            for place, each in enumerate(calls)
        ],
        [
            citation_from_json(each, f"{path}.citations[{place}]")
            for place, each in enumerate(citations)
        ],
    )


def _part(value: Any, path: str) -> TextContent | ThinkingContent:
    fields = as_object(value, path)
    kind = raw_text_of(fields, "type", path) or "text"
    if kind not in ("text", "thinking"):
        raise Malformed("a kind of content that is not known", f"{path}.type")
    piece = text_of(fields, kind, path)
    if piece is None:
        raise Malformed("required field missing", f"{path}.{kind}")
    return TextContent(piece) if kind == "text" else ThinkingContent(piece)


def tool_call_from_json(value: Any, path: str) -> ToolCall:
    """A whole tool call of an answer; its function is required."""
    fields = as_object(value, path)
    if fields.get("function") is None:
        raise Malformed("required field missing", f"{path}.function")
    function = object_of(fields, "function", path)
    return ToolCall(
        text_of(fields, "id", path) or "",
        ToolCallFunction(
            text_of(function, "name", f"{path}.function") or "",
            repair_surrogates(arguments_of(function, f"{path}.function")),
        ),
        call_type_of(fields, path),
    )


def response_from_json(data: Any) -> ChatResponse:
    """An answer from its unary JSON shape.

    Raises:
        Malformed: a field is missing or of the wrong type.
    """
    fields = as_object(data, "$")
    message = fields.get("message")
    logprobs = items_of(fields.get("logprobs"), "$.logprobs")
    items = [
        logprobs_from_json(each, f"$.logprobs[{place}]") for place, each in enumerate(logprobs)
    ]
    return ChatResponse(
        text_of(fields, "id", "$") or "",
        AssistantMessage()
        if message is None
        else message_from_json(as_object(message, "$.message"), "$.message"),
        text_of(fields, "finish_reason", "$"),
        usage_from_json(fields.get("usage"), "$.usage"),
        [item for item in items if item is not None],
    )


def arguments_of(function: Json, path: str) -> str:
    """The text of a call's arguments; an object stands for its JSON text."""
    value = function.get("arguments")
    if is_mapping(value):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return raw_text_of(function, "arguments", path) or ""


def call_type_of(call: Json, path: str) -> str:
    """The type of a tool call: ``function``, if it is absent."""
    kind = text_of(call, "type", path)
    return "function" if kind is None else kind
