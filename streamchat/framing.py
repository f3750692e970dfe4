"""How the body of an answer is cut into events, told from its content type and its first bytes.

JSON lines also come as ``application/json``, as does a whole answer or an error, and any of them as
``text/event-stream``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from streamchat.masking import Mask
from streamchat.protocol.error_body import (
    EVENT_STREAM_STARTS,
    clean_words,
    error_words,
    is_answer,
    may_be_answer,
    text_of,
)
from streamchat.protocol.errors import UnexpectedContentTypeError
from streamchat.protocol.from_json import KNOWN_TYPES, foreign_name
from streamchat.protocol.plain import decode_json, is_mapping
from streamchat.transport import ERROR_BODY_BYTES, Exchange

__all__ = ["Framing", "framing_of", "is_stream_type", "media_type", "not_an_answer"]


class Framing(enum.Enum):
    """How a body is cut into events."""

    EVENT_STREAM = enum.auto()
    JSON_LINES = enum.auto()
    OTHER = enum.auto()
    """Not at all: it is not an answer."""


EVENT_STREAM = "text/event-stream"
JSON = "application/json"
_JSON_LINES = frozenset(
    {
        "application/jsonl",
        "application/jsonlines",
        "application/ndjson",
        "application/stream+json",
        "application/x-jsonlines",
        "application/x-ndjson",
    }
)
_FIRST_LINE_BYTES = 64 * 1024


async def framing_of(exchange: Exchange) -> tuple[Framing, bytes]:
    """How a body is cut into events, and what had to be read of it to know.

    Raises:
        TransportError, ProtocolError: the body could not be read.
    """
    kind = media_type(exchange.content_type)
    if kind != JSON and not is_stream_type(kind):
        return Framing.OTHER, b""
    head = chunk = await exchange.read()
    if kind == EVENT_STREAM and head.startswith(b"event:"):
        return Framing.EVENT_STREAM, head  # as it nearly always is
    while chunk and not text_of(head) and len(head) < _FIRST_LINE_BYTES:
        chunk = await exchange.read()
        head += chunk
    if not text_of(head).startswith((b"{", b"[")):
        is_empty = not text_of(head)  # an early end, whatever was meant to come
        is_stream = kind == EVENT_STREAM or is_empty
        return (Framing.EVENT_STREAM if is_stream else Framing.OTHER), head
    while chunk and b"\n" not in text_of(head) and len(head) < _FIRST_LINE_BYTES:
        chunk = await exchange.read()
        head += chunk
    is_event = _is_event(text_of(head), kind)
    return (Framing.JSON_LINES if is_event else Framing.OTHER), head


def _is_event(start: bytes, kind: str) -> bool:
    """Whether the first line is a whole JSON object, and an event of Chat v2 if its type is no proof."""
    try:
        data = decode_json(start.partition(b"\n")[0])
    except ValueError:
        return False
    return is_mapping(data) and (kind in _JSON_LINES or data.get("type") in KNOWN_TYPES)


def media_type(content_type: str) -> str:
    """The type of a ``Content-Type`` in lower case, without parameters; of several the first."""
    if content_type == EVENT_STREAM:
        return EVENT_STREAM  # as it nearly always is
    return _TYPE_END.split(content_type.strip(), maxsplit=1)[0].lower()


_TYPE_END = re.compile("[;,\\s]")
"""A semicolon; also a comma and white space, as gateways write that repeat the header or forget it."""


def is_stream_type(kind: str) -> bool:
    """Whether a media type is one of a streamed answer."""
    return kind == EVENT_STREAM or kind in _JSON_LINES


async def not_an_answer(
    exchange: Exchange, host: str, *, sent: Mapping[str, str], head: bytes
) -> UnexpectedContentTypeError:
    """The error of a 200 whose body is not an answer; a body that is one is not quoted.

    Args:
        exchange: the rest of its body is read, within limits.
        host: for the message.
        sent: the request's headers, of which nothing is quoted.
        head: what was read of the body before.
    """
    mask = Mask(sent)
    content_type = mask.text(exchange.content_type)
    body = mask.data((head + await exchange.read_error_body())[:ERROR_BODY_BYTES])
    what = (
        "text/event-stream and a body of plain JSON"
        if media_type(content_type) == EVENT_STREAM
        else f"{content_type[:80] or 'no content type'!r} instead of text/event-stream"
    )
    return UnexpectedContentTypeError(
        f"{host} answered {exchange.status} with {what}: {_described(body)}",
        content_type=content_type,
        body=body,
    )


def _described(body: bytes) -> str:
    """The words of an error, or the start of a text; of an answer only what it looks like."""
    start = text_of(body)
    if start.startswith(EVENT_STREAM_STARTS):
        return "the body looks like an event stream"
    for text in (start, start.partition(b"\n")[0]):
        try:
            data = decode_json(text)
        except ValueError:
            continue
        if is_mapping(data) and data.get("type") in KNOWN_TYPES:
            return "the body looks like JSON lines"
        looks_like = foreign_name(data) if is_mapping(data) else ""
        if looks_like:
            return f"the body looks like {looks_like}"
        if is_answer(data):
            return "the body looks like an answer"
        words, _, _ = error_words(data)
        return words[:200] or "the body is JSON without words of an error"
    if may_be_answer(start):
        return "the body looks like JSON, cut off or malformed"
    return clean_words(start[:2000].decode("utf-8", "replace"), 200)
