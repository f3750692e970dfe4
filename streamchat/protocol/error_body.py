"""The answers that are not 200: a status and a body to the exception that says what they say.

Cohere's API answers JSON with ``message``; gateways in front of it answer HTML, text or other JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from streamchat.protocol.errors import StatusError, status_error_class
from streamchat.protocol.plain import decode_json, is_list, is_mapping, repair_surrogates

__all__ = [
    "EVENT_STREAM_STARTS",
    "MAX_TYPE",
    "MAX_WORDS",
    "clean_words",
    "error_words",
    "is_answer",
    "may_be_answer",
    "status_error",
    "text_of",
]


def status_error(
    status: int,
    *,
    headers: Mapping[str, str],
    body: bytes,
    retry_after: float | None = None,
) -> StatusError:
    """The exception for an answer that is not 200.

    Args:
        status: the HTTP status.
        headers: names in lower case.
        body: as received; JSON with ``message`` or anything else.
        retry_after: seconds the server asked to wait.
    """
    message, error_type = _error_details(body)
    request_id = headers.get("x-debug-trace-id")
    cls = status_error_class(status)
    parts = [f"HTTP {status}", message or "no message"]
    hint = _HINTS.get(status)
    if hint:
        parts.append(hint)
    text = ": ".join(parts[:2]) + (f" ({parts[2]})" if hint else "")
    if retry_after is not None:
        text += f" (asks to wait {retry_after:g} s)"
    if request_id:
        text += f" [request {request_id[:64]!r}]".replace("'", "")
    return cls(
        text,
        status=status,
        server_message=message,
        error_type=error_type,
        request_id=request_id,
        retry_after=retry_after,
        headers=headers,
        body=body,
    )


_HINTS: Mapping[int, str] = {
    401: "check the API key: CO_API_KEY or api_key=",
    404: "check model= and base_url=",
}
MAX_WORDS = 500
"""Characters kept of a server's words."""
MAX_TYPE = 128
"""Characters kept of an error type."""
_MAX_DEPTH = 4
"""Levels of an error object that are followed."""
_MAX_ITEMS = 5
"""Items of a list that are read."""
_MAX_PATH = 8
"""Parts of a path in a request that are shown."""


def _error_details(body: bytes) -> tuple[str, str | None]:
    """The server's own words and its type of error, else the start of a body without any.

    An answer is not quoted, nor what may be one: of events only an error's words are, and JSON that is
    cut or malformed only without a key that answers have.
    """
    start = text_of(body)
    is_stream = start.startswith(EVENT_STREAM_STARTS)
    if is_stream:
        start = _first_data(start)
    for text in (start, start.partition(b"\n")[0]):  # a whole body, or JSON lines
        try:
            data = decode_json(text)
        except ValueError:
            continue
        if is_answer(data):
            return "", None
        words, error_type, _ = error_words(data)
        return words or clean_words(text[: 8 * MAX_WORDS].decode("utf-8", "replace")), error_type
    if is_stream or may_be_answer(start):
        return "", None
    return clean_words(start[: 8 * MAX_WORDS].decode("utf-8", "replace")), None


EVENT_STREAM_STARTS = (b"event:", b"data:", b"id:", b"retry:", b":")
"""How the text of an event stream begins."""
_BOM = b"\xef\xbb\xbf"


def text_of(body: bytes) -> bytes:
    """A body without byte order mark and white space at its start; empty while there is no more."""
    return b"" if _BOM.startswith(body) else body.removeprefix(_BOM).lstrip()


def _first_data(stream: bytes) -> bytes:
    """The first line of data of an event stream; ``b""`` if there is none in its first lines."""
    for line in stream[: 64 * MAX_WORDS].splitlines():
        if line.startswith(b"data:"):
            return line.removeprefix(b"data:").strip()
    return b""


def is_answer(data: object) -> bool:
    """Whether JSON is an answer, or an event of one: of Chat v2, Chat v1 or another API."""
    if is_list(data):
        return any(is_mapping(item) and is_answer(item) for item in data[:_MAX_ITEMS])
    if not is_mapping(data) or data.get("error") or data.get("errors"):
        return False
    message, name = data.get("message"), data.get("type")
    return (
        (is_mapping(message) and not _MESSAGE_KEYS.isdisjoint(message))
        or not _ANSWER_KEYS.isdisjoint(data)
        or (isinstance(name, str) and name.startswith(_EVENT_NAMES))
        or ("content" in data and "role" in data)
    )


_ANSWER_KEYS = frozenset(
    {
        "candidates",
        "choices",
        "delta",
        "finish_reason",
        "generation_id",
        "generations",
        "messages",
        "text",
    }
)
_ANSWER_MARKS = re.compile(
    rb'"(?:candidates|choices|content|delta|finish_reason|generations?|messages|text|thinking|tool_calls)"'
)


def may_be_answer(start: bytes) -> bool:
    """Whether JSON that cannot be decoded, because it is cut or malformed, may be an answer."""
    return start.startswith((b"{", b"[")) and _ANSWER_MARKS.search(start) is not None


_MESSAGE_KEYS = frozenset({"citations", "content", "role", "tool_calls", "tool_plan"})
_EVENT_NAMES = ("message-", "content-", "tool-", "citation-", "message_", "content_block")


def clean_words(text: str, limit: int = MAX_WORDS) -> str:
    """A server's text on one line of at most ``limit`` characters, plus ``...`` if it was longer.

    Control and format characters become spaces, runs of white space one space, and lone surrogates
    U+FFFD.
    """
    start = repair_surrogates(text[: 8 * limit])
    line = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    if len(line) > limit or len(text) > 8 * limit:
        return line[:limit] + "..."
    return line


def error_words(data: object) -> tuple[str, str | None, int | None]:
    """Words, type and numeric status of an error object, in any of the shapes servers use.

    Read are Cohere's ``{"message", "error_type"}``; ``{"error": {"message", "type", "code"}}``
    (OpenAI, Azure, vLLM); ``{"error": "..."}``; ``{"errors": [...]}``; ``{"detail": ...}`` as text
    or as a list of ``{"loc", "msg", "type"}`` (FastAPI); RFC 9457 problem details;
    ``{"error", "error_description"}`` (RFC 6749 5.2); ``{"Message"}`` and ``{"__type"}`` (AWS);
    ``{"statusCode", "message"}``; and any of these inside each other or in a list.

    Args:
        data: decoded JSON. Only its first parts are read, so a huge one costs no more than a small one.

    Returns:
        The words, on one line of at most 500 characters, ``""`` if there are none; the error type, if
        it has one; and a number from 100 to 599 given as status or code, if there is one.
    """
    words, error_type, status = _read_error(data, 0)
    return clean_words(words), clean_words(error_type, MAX_TYPE) or None, status


def _read_error(data: object, depth: int) -> tuple[str, str, int | None]:
    """The same as :func:`error_words`, not yet cleaned; ``""`` for no type."""
    if isinstance(data, str):
        return data, "", None
    if depth >= _MAX_DEPTH:
        return "", "", None
    if is_list(data):
        return _read_list(data, depth)
    if not is_mapping(data):
        return "", "", None
    words = _first_text(data, _WORD_KEYS)
    error_type = _first_text(data, _TYPE_KEYS)
    status = _status(data)
    for key in _NESTED_KEYS:
        value = data.get(key)
        if value is None or isinstance(value, str):
            continue
        inner_words, inner_type, inner_status = _read_error(value, depth + 1)
        # The innermost type is the specific one: {"type": "error", "error": {"type": "overloaded"}}.
        words, error_type = words or inner_words, inner_type or error_type
        status = status if inner_status is None else inner_status
    errors = data.get("errors")
    if not words and is_mapping(errors):  # ASP.NET: {"errors": {"Model": ["is required"]}}
        words = _joined(
            f"{name}: {text}"
            for name, value in islice(errors.items(), _MAX_ITEMS)
            if (text := _read_error(value, depth + 1)[0])
        )
    plain = data.get("error")
    if isinstance(plain, str):
        if not words:
            words = plain
        elif not error_type and (status is not None or "error_description" in data):
            error_type = plain[:MAX_TYPE]  # Spring and RFC 6749 name the error's kind there
    if not words:
        words = _first_text(data, _WEAK_WORD_KEYS)
    location = _location(data.get("loc"))
    if location and words:
        words = f"{location}: {words}"
    return words, error_type, status


def _read_list(items: Sequence[Any], depth: int) -> tuple[str, str, int | None]:
    """The words of the first items, with the type and the status of the first that has one."""
    read = [_read_error(item, depth + 1) for item in items[:_MAX_ITEMS]]
    words = _joined(each[0] for each in read)
    error_type = next((each[1] for each in read if each[1]), "")
    status = next((each[2] for each in read if each[2] is not None), None)
    return words, error_type, status


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(part[: 8 * MAX_WORDS] for part in parts if part)


_WORD_KEYS = ("message", "Message", "msg", "detail", "error_description", "error_message", "errors")
"""Keys of an error's words, the first that is there wins."""
_NESTED_KEYS = ("error", "errors", "detail", "message", "Error", "fault")
"""Keys that may hold another error object."""
_WEAK_WORD_KEYS = ("description", "title", "reason", "faultstring")
"""Keys of words that are read if there are no others."""
_TYPE_KEYS = ("error_type", "type", "__type", "errorType", "code", "error_code", "status")
"""Keys of an error's type, the first that is there wins."""
_STATUS_KEYS = ("status", "code", "statusCode", "status_code", "httpStatus", "http_status")
"""Keys of an HTTP status in the body."""
_NOT_A_TYPE = frozenset({"error", "about:blank"})
"""``{"type": "error"}`` says nothing, and ``about:blank`` is RFC 9457's way to leave it out."""


def _first_text(data: Mapping[str, Any], keys: Iterable[str]) -> str:
    for key in keys:
        value = data.get(key)
        if (
            isinstance(value, str)
            and value
            and (keys is not _TYPE_KEYS or value not in _NOT_A_TYPE)
        ):
            return value
    return ""


def _status(data: Mapping[str, Any]) -> int | None:
    """A number that can be an HTTP status, as a number or as text."""
    for key in _STATUS_KEYS:
        value = data.get(key)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return value
    return None


def _location(parts: object) -> str:
    """FastAPI's ``loc``, the place in the request: names and positions joined by dots."""
    if not is_list(parts):
        return ""
    return ".".join(str(part)[:64] for part in parts[:_MAX_PATH] if isinstance(part, str | int))
