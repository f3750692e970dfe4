"""What a Chat v2 server refuses, and in which words; imports ``streamchat.protocol`` only.

The wording is Cohere's where it is known: recorded error bodies, and the published list in
https://docs.cohere.com/v2/reference/errors. Where it is not known, the form is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from streamchat.local.shapes import list_or_empty, object_or_empty
from streamchat.protocol.plain import decode_json, repair_surrogates

__all__ = ["RefusalError", "check", "read_body"]

MAX_DEPTH = 100
"""Nesting of a body; deeper JSON than any schema or document has is not read."""
MAX_VALUES = 200_000
"""JSON values in a body: each takes 60 to 200 bytes and about 3 microseconds."""
MAX_TOOLS = 1_000
MAX_NAME = 256
"""Code points of a model's or a tool's name, and of a client's text quoted in a message."""
MAX_IMAGES = 20
"""Images of one request, as Cohere documents."""
MAX_STOP_SEQUENCES = 5

_USAGE = "For proper usage, please refer to https://docs.cohere.com/reference/chat"


@attrs.frozen
class RefusalError(Exception):
    """An answer that is not 200."""

    status: int
    """The HTTP status."""
    message: str
    """``message`` of the body."""


def _bad(message: str) -> RefusalError:
    return RefusalError(400, message)


def read_body(body: bytes) -> dict[str, Any]:
    """The request as plain data; half an emoji reads as U+FFFD.

    Raises:
        RefusalError: not JSON, not an object, more than 200,000 values, or nested deeper than 100
            levels.
    """
    if _has_more_values(body, MAX_VALUES):
        raise _bad(f"invalid request: the body has more than {MAX_VALUES} JSON values.")
    try:
        data = decode_json(body)
    except ValueError as error:
        problem = str(error)
    else:
        if isinstance(data, dict):
            return dict(object_or_empty(_repaired(data)))
        problem = "the body must be an object"
    raise _bad(f"invalid json syntax: {problem.removeprefix('not JSON: ')}")


def _has_more_values(body: bytes, limit: int) -> bool:
    """Whether a JSON text has more values than the limit, found without decoding it."""
    if _marks(body) <= limit:
        return False
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * limit:  # that many strings, half of them at most are keys
        return True
    # Commas and brackets inside strings count for nothing: every second piece is a string.
    return sum(map(_marks, unescaped.split(b'"')[::2])) > limit


def _marks(text: bytes) -> int:
    """The bytes before which, or after which, a value stands."""
    return text.count(b",") + text.count(b"{") + text.count(b"[")


def _repaired(value: Any, depth: int = 1) -> Any:
    if depth > MAX_DEPTH:
        raise _bad("invalid request: the body is nested too deeply.")
    if isinstance(value, str):
        return repair_surrogates(value)
    if isinstance(value, dict):
        items = object_or_empty(value).items()
        return {repair_surrogates(key): _repaired(item, depth + 1) for key, item in items}
    if isinstance(value, list):
        return [_repaired(item, depth + 1) for item in list_or_empty(value)]
    return value


_FIELDS: Mapping[str, str] = {
    "model": "string",
    "messages": "array",
    "stream": "bool",
    "tools": "array",
    "strict_tools": "bool",
    "tool_choice": "string",
    "documents": "array",
    "citation_options": "object",
    "response_format": "object",
    "safety_mode": "string",
    "max_tokens": "integer",
    "stop_sequences": "array",
    "temperature": "number",
    "seed": "integer",
    "frequency_penalty": "number",
    "presence_penalty": "number",
    "k": "integer",
    "p": "number",
    "logprobs": "bool",
    "thinking": "object",
    "priority": "integer",
}
"""Every body field and the types it takes; ``null`` stands for absent."""

_RANGES = (
    ("temperature", 0, 1, "between 0 and 1.0 inclusive"),
    ("frequency_penalty", 0, 1, "between 0 and 1 inclusive"),
    ("presence_penalty", 0, 1, "between 0 and 1 inclusive"),
    ("p", 0, 1, "between 0 and 1 inclusive"),
    ("k", 0, 500, "between 0 and 500 inclusive"),
    ("seed", 0, 2**64 - 1, "between 0 and 18446744073709551615 inclusive"),
    ("max_tokens", 1, 2**31 - 1, "at least 1"),
    ("priority", 0, 999, "between 0 and 999 inclusive"),
)
_CHOICES = {
    "tool_choice": ("REQUIRED", "NONE"),
    "safety_mode": ("CONTEXTUAL", "STRICT", "OFF"),
    "citation_options.mode": ("ENABLED", "DISABLED", "FAST", "ACCURATE", "OFF"),
    "response_format.type": ("TEXT", "JSON_OBJECT"),
    "thinking.type": ("ENABLED", "DISABLED"),
}
_UNKNOWN_MODEL = re.compile(
    r"does-?not-?exist|not-?found|unknown|invalid|nonexistent", re.IGNORECASE
)


def check(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request without its ``null`` fields, if the server would answer it.

    Raises:
        RefusalError: 400, 404 or 422, with the message that the real server gives.
    """
    request: dict[str, Any] = {}
    for name, value in body.items():
        if name not in _FIELDS:
            raise _unknown(name)
        if value is not None:
            _check_type(name, value, _FIELDS[name])
            whole = _FIELDS[name] == "integer" and isinstance(value, float)
            request[name] = int(value) if whole else value
    if not request.get("model"):
        raise _bad("invalid request: a model parameter is required for this endpoint.")
    model = request["model"]
    if len(model) > MAX_NAME or _UNKNOWN_MODEL.search(model):
        raise RefusalError(
            404,
            f"model '{_short(model)}' not found, make sure the correct model ID was used and "
            "that you have access to the model.",
        )
    _check_options(request)
    _check_tools(request)
    _check_documents(request.get("documents") or ())
    request["messages"] = [_with_content_list(item) for item in request.get("messages") or ()]
    _check_messages(request["messages"])
    return request


def _with_content_list(item: Any) -> Any:
    """The message; a content that is one part instead of a list of parts, as a list."""
    message = object_or_empty(item)
    part = object_or_empty(message.get("content"))
    return {**message, "content": [part]} if part else item


def _unknown(name: str) -> RefusalError:
    name = _short(name)
    return RefusalError(422, f"unknown field: parameter {name} is not a valid field. {_USAGE}")


def _short(text: str) -> str:
    return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…"


def _kind_of(value: Any) -> str:
    """The JSON type in the server's words; a number without a fraction is an integer."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case list():
            return "array"
        case Mapping():
            return "object"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case _:
            return "null"


def _check_type(name: str, value: Any, wanted: str) -> None:
    given = _kind_of(value)
    if given != wanted and not (wanted == "number" and given == "integer"):
        raise _bad(
            f"invalid type: parameter {name} is of type {given} but should be of type {wanted}. "
            f"{_USAGE}"
        )


def _check_options(request: Mapping[str, Any]) -> None:
    for name, low, high, words in _RANGES:
        if name in request and not low <= request[name] <= high:
            raise _bad(f"invalid request: {name} must be {words}.")
    for path, choices in _CHOICES.items():
        name, _, key = path.partition(".")
        value = object_or_empty(request.get(name)).get(key) if key else request.get(name)
        if value is not None and str(value).upper() not in choices:
            raise _bad(f"invalid request: {path} must be one of {', '.join(choices)}.")
    stops = request.get("stop_sequences") or ()
    for position, stop in enumerate(stops):
        _check_type(f"stop_sequences[{position}]", stop, "string")
    if len(stops) > MAX_STOP_SEQUENCES:
        raise _bad(
            f"invalid request: stop_sequences must have at most {MAX_STOP_SEQUENCES} elements."
        )
    budget = object_or_empty(request.get("thinking")).get("token_budget")
    if budget is not None:
        _check_type("thinking.token_budget", budget, "integer")
        if budget < 1:
            raise _bad("invalid request: thinking.token_budget must be at least 1.")
    _check_format(request)


def _check_format(request: Mapping[str, Any]) -> None:
    style = object_or_empty(request.get("response_format"))
    if str(style.get("type")).lower() != "json_object":
        return
    if request.get("documents"):
        raise _bad("invalid request: response_format is not supported with RAG.")
    if request.get("tools"):
        raise _bad("invalid request: response_format is not supported with tools.")
    schema = style.get("json_schema", style.get("schema"))
    if schema is not None and not isinstance(schema, Mapping):
        raise _bad("schema must be an object")


_TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _check_tools(request: Mapping[str, Any]) -> None:
    tools = request.get("tools") or ()
    if str(request.get("tool_choice")).upper() == "REQUIRED" and not tools:
        raise _bad("invalid request: tool_choice REQUIRED needs at least one tool.")
    if len(tools) > MAX_TOOLS:
        raise _bad(
            f"invalid request: at most {MAX_TOOLS} tools are allowed - received {len(tools)}"
        )
    for position, item in enumerate(tools):
        _check_type(f"tools[{position}]", item, "object")
        tool = object_or_empty(item)
        _check_keys(tool, ("type", "function"))
        function = object_or_empty(tool.get("function"))
        if not function.get("name"):
            raise _bad("invalid request: all elements in tools must have a name.")
        _check_keys(function, ("name", "description", "parameters", "strict"))
        name = function["name"]
        if isinstance(name, str) and len(name) > MAX_NAME:
            raise _bad(
                f"invalid request: tool names can have at most {MAX_NAME} characters (provided "
                f"name: '{_short(name)}')."
            )
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise _bad(
                "invalid request: tool names can only contain certain characters (A-Za-z0-9_) and "
                f"can't begin with a digit (provided name: '{_short(str(name))}')."
            )
        if function.get("parameters") is not None:
            _check_type(f"tools[{position}].function.parameters", function["parameters"], "object")


def _check_keys(value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in value:
        if name not in known:
            raise _unknown(name)


def _check_documents(documents: Any) -> None:
    seen: dict[str, int] = {}
    for position, item in enumerate(documents):
        document = object_or_empty(item)
        data = document.get("data") if document else item
        if not data or not isinstance(data, str | Mapping):
            raise _bad(f"invalid request: document at index {position} cannot be empty")
        name = document.get("id")
        if isinstance(name, str) and name in seen:
            raise _bad(
                f"invalid request: duplicate document ID {_short(name)} at index {position} "
                f"and {seen[name]}"
            )
        if isinstance(name, str):
            seen[name] = position


# --- messages ------------------------------------------------------------------------------------


def _check_messages(messages: Any) -> None:
    if not messages:
        raise _bad(
            "invalid request: message must be at least 1 token long or tool results must be "
            "specified."
        )
    calls: set[str] = set()
    images = 0
    for position, item in enumerate(messages):
        _check_type(f"messages[{position}]", item, "object")
        message = object_or_empty(item)
        role = message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            raise _bad(
                f"invalid request: Invalid role in messages at index {position}. Role must be one "
                "of the following: user, assistant, system, tool"
            )
        _check_content(message, position)
        parts = map(object_or_empty, list_or_empty(message.get("content")))
        images += sum(part.get("type") == "image_url" for part in parts)
        if role == "assistant":
            _add_call_ids(message, calls)
        if role == "tool":
            _check_answer(message, calls)
    if images > MAX_IMAGES:
        raise _bad(f"invalid request: at most {MAX_IMAGES} images are allowed - received {images}")


_PARTS_OF = {
    "system": ("text",),
    "user": ("text", "image_url"),
    "assistant": ("text", "thinking"),
    "tool": ("text", "document"),
}


def _check_content(message: Mapping[str, Any], position: int) -> None:
    content = message.get("content")
    role = message["role"]
    if content is not None and not isinstance(content, str):
        _check_type(f"messages[{position}].content", content, "array")
    for place, item in enumerate(list_or_empty(content)):
        path = f"messages[{position}].content[{place}]"
        _check_type(path, item, "object")
        part = object_or_empty(item)
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in _PARTS_OF[role] or kind not in part:
            raise _bad(f"invalid request: {path} must be one of {', '.join(_PARTS_OF[role])}.")
        wanted = "object" if kind in ("image_url", "document") else "string"
        _check_type(f"{path}.{kind}", part[kind], wanted)
    may_be_empty = (
        role == "tool" or (role == "assistant" and content != "") or message.get("tool_calls")
    )
    if not content and not may_be_empty:
        raise _bad("message must not be empty in a turn")


def _add_call_ids(message: Mapping[str, Any], known: set[str]) -> None:
    for position, item in enumerate(list_or_empty(message.get("tool_calls"))):
        _check_type(f"tool_calls[{position}]", item, "object")
        call = object_or_empty(item)
        if call.get("type", "function") != "function":
            raise _bad("tool call must be of type function")
        function = object_or_empty(call.get("function"))
        if not isinstance(function.get("name"), str):
            raise _bad("invalid request: all elements in tool_calls must have a name.")
        name = call.get("id")
        if not isinstance(name, str) or not name:
            raise _bad("invalid request: all elements in tool_calls must have an id.")
        if name in known:
            raise _bad("cannot have duplicate tool ids")
        known.add(name)


def _check_answer(message: Mapping[str, Any], calls: set[str]) -> None:
    name = message.get("tool_call_id")
    if not isinstance(name, str) or not name:
        raise _bad("tool call id must be provided with tool message")
    if name not in calls:
        raise _bad("tool call id not found in previous tool calls")
