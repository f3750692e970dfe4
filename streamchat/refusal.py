"""How an exchange can fail without an exception of its own: statuses, content types, limits, ends.

Each function reads facts and returns the error to raise, or ``None``; the stream raises it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from streamchat.credentials import Secret
from streamchat.policy import retry_after
from streamchat.protocol.error_body import clean_words, error_words, status_error
from streamchat.protocol.errors import (
    ConcurrencyError,
    GenerationError,
    ProtocolError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
    UnexpectedContentTypeError,
)
from streamchat.protocol.events import MessageEnd
from streamchat.protocol.from_json import KNOWN_TYPES, foreign_name
from streamchat.protocol.plain import decode_json, is_mapping
from streamchat.transport import ERROR_BODY_BYTES, Exchange

__all__ = [
    "Framing",
    "failed_generation",
    "framing_of",
    "mask_key",
    "not_an_answer",
    "refusal",
    "timed_out",
    "two_consumers",
]


def two_consumers() -> ConcurrencyError:
    """A stream was asked for its next event while it was still busy with one."""
    return ConcurrencyError(
        "this stream is being consumed already; give each task a stream of its own, "
        "or hand the events on through a queue"
    )


_TIMEOUT_TEXTS: Mapping[str, str] = {
    "first_event": "{host} sent no event within {seconds} s of the request",
    "idle": "{host} sent no event for {seconds} s",
    "total": "the answer of {host} was not complete within {seconds} s",
}


_QUEUE_TEXT = (
    "the request was still waiting for a free connection of the pool after {seconds} s: all {queued} "
    "to {host} are in use; raise max_connections, or run fewer streams at once"
)


def timed_out(host: str, phase: str, seconds: float, *, queued: int = 0) -> StreamTimeoutError:
    """A limit of ``Timeout`` was passed.

    Args:
        host: for the message.
        phase: which limit.
        seconds: how long it is.
        queued: if it was passed in front of a full pool: how many connections that holds.
    """
    template = _QUEUE_TEXT if queued else _TIMEOUT_TEXTS[phase]
    text = template.format(host=host, seconds=f"{seconds:g}", queued=queued)
    return StreamTimeoutError(f"{text} (Timeout.{phase})", phase=phase, seconds=seconds, host=host)


def failed_generation(end: MessageEnd) -> GenerationError | None:
    """The error of a ``message-end`` that reports a failure: by its finish reason, or by an error."""
    reason = end.finish_reason.upper()
    is_named = reason == "TIMEOUT" or reason.startswith("ERROR")
    if not (is_named or end.error or end.error_type):
        return None
    return GenerationError(
        finish_reason=end.finish_reason if is_named else "ERROR",
        error=end.error or "",
        error_type=end.error_type,
        status=end.status,
    )


async def refusal(
    exchange: Exchange, host: str, *, sent: Mapping[str, str], now: Callable[[], float]
) -> StreamChatError | None:
    """Why a response cannot be an answer: its status, or its coding.

    Args:
        exchange: status and headers are there.
        host: for the message.
        sent: the request's headers; a server may quote the key in them, and the error must not.
        now: the wall clock.
    """
    key = _key(sent)
    status = exchange.status
    headers = {name: value.replace(key, _MASK) for name, value in exchange.headers.items()}
    content_type = headers.get("content-type", "")
    is_stream = content_type.partition(";")[0].strip().lower() == "text/event-stream"
    if 300 <= status <= 399:
        return status_error(status, headers=headers, body=_redirect_text(headers))
    if status != 200:
        return status_error(
            status,
            headers=headers,
            # Events under another 2xx are an answer, and an error's words never hold one.
            body=b"" if is_stream and status < 300 else await _body(exchange, key),
            retry_after=retry_after(headers, now=now()),
        )
    return _undecoded(headers, host)


class Framing(enum.Enum):
    """How a body is cut into events."""

    EVENT_STREAM = enum.auto()
    JSON_LINES = enum.auto()
    OTHER = enum.auto()
    """Not at all: it is not an answer."""


_JSON_LINES = frozenset(
    {
        "application/json",
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

    The content type decides, with a look at the first bytes: JSON lines also come as
    ``application/json``, as does a whole answer or an error, and any of them as ``text/event-stream``.

    Raises:
        TransportError, ProtocolError: the body could not be read.
    """
    media_type = _media_type(exchange.headers)
    is_stream = media_type == "text/event-stream"
    if not is_stream and media_type not in _JSON_LINES:
        return Framing.OTHER, b""
    head = chunk = await exchange.read()
    while chunk and not _text_of(head) and len(head) < _FIRST_LINE_BYTES:
        chunk = await exchange.read()
        head += chunk
    if not _text_of(head).startswith((b"{", b"[")):
        is_empty = not _text_of(head)  # an early end, whatever was meant to come
        return (Framing.EVENT_STREAM if is_stream or is_empty else Framing.OTHER), head
    while chunk and b"\n" not in _text_of(head) and len(head) < _FIRST_LINE_BYTES:
        chunk = await exchange.read()
        head += chunk
    is_event = _is_event(_text_of(head), media_type)
    return (Framing.JSON_LINES if is_event else Framing.OTHER), head


_BOM = b"\xef\xbb\xbf"


def _text_of(head: bytes) -> bytes:
    """The start of a body without byte order mark and white space; empty while there is no more."""
    return b"" if _BOM.startswith(head) else head.removeprefix(_BOM).lstrip()


def _is_event(start: bytes, media_type: str) -> bool:
    """Whether the first line is a whole JSON object, and an event of Chat v2 if its type is no proof."""
    try:
        data = decode_json(start.partition(b"\n")[0])
    except ValueError:
        return False
    if not is_mapping(data):
        return False
    return data.get("type") in KNOWN_TYPES or media_type not in (
        "application/json",
        "text/event-stream",
    )


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


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
    key = _key(sent)
    content_type = exchange.headers.get("content-type", "").replace(key, _MASK)
    body = (head + await exchange.read_error_body())[:ERROR_BODY_BYTES]
    body = body.replace(key.encode(), _MASK.encode())
    what = (
        "text/event-stream and a body of plain JSON"
        if _media_type({"content-type": content_type}) == "text/event-stream"
        else f"{content_type[:80] or 'no content type'!r} instead of text/event-stream"
    )
    return UnexpectedContentTypeError(
        f"{host} answered {exchange.status} with {what}: {_described(body)}",
        content_type=content_type,
        body=body,
    )


_EVENT_STREAM_STARTS = (b"event:", b"data:", b"id:", b"retry:", b":")


def _described(body: bytes) -> str:
    """The words of an error, or the start of a text; of an answer only what it looks like."""
    start = _text_of(body)
    if start.startswith(_EVENT_STREAM_STARTS):
        return "the body looks like an event stream"
    for text in (start, start.partition(b"\n")[0]):
        try:
            data = decode_json(text)
        except ValueError:
            continue
        words, _, _ = error_words(data)
        if is_mapping(data) and data.get("type") in KNOWN_TYPES:
            return "the body looks like JSON lines"
        looks_like = foreign_name(data) if is_mapping(data) else ""
        if looks_like:
            return f"the body looks like {looks_like}"
        return words[:200] or "the body is JSON without words of an error"
    return clean_words(start[:2000].decode("utf-8", "replace"), 200)


_MASK = "<key>"
_SHORTEST_KEY = 8
"""Shorter ones are none, and replacing them would garble the text."""


def _key(sent: Mapping[str, str]) -> Secret:
    """What must not be quoted; something that is in no text, if there is nothing."""
    for name, value in sent.items():
        token = Secret(value.rpartition(" ")[2])
        if name.lower() == "authorization" and len(token) >= _SHORTEST_KEY:
            return token
    return Secret("\0")


def mask_key(error: StreamChatError, sent: Mapping[str, str]) -> None:
    """Take the key out of what a server said in the middle of its stream (faults.md F108).

    Events are delivered as they came; an exception is what logs and error trackers keep. A transport's
    error quotes nothing, and there may be ten thousand at once (a quarter of a cancellation's cost).
    """
    if isinstance(error, TransportError):
        return
    key = _key(sent)
    error.args = tuple(_masked(each, key) for each in error.args)
    for name, value in vars(error).items():
        setattr(error, name, _masked(value, key))


def _masked(value: Any, key: Secret) -> Any:
    if isinstance(value, str):
        return value.replace(key, _MASK)
    return value.replace(key.encode(), _MASK.encode()) if isinstance(value, bytes) else value


async def _body(exchange: Exchange, key: Secret) -> bytes:
    return (await exchange.read_error_body()).replace(key.encode(), _MASK.encode())


def _undecoded(headers: Mapping[str, str], host: str) -> ProtocolError | None:
    """The error of a body in a coding that the HTTP library hands on as it is (faults.md F40)."""
    coding = headers.get("content-encoding", "").strip()
    if coding.lower() in _CODINGS:
        return None
    return ProtocolError(
        f"{host} answered with Content-Encoding {coding[:80]!r}, which was not asked for and "
        "cannot be decoded"
    )


_CODINGS = frozenset({"", "identity", "gzip", "deflate", "br", "zstd"})
"""What aiohttp decodes, or refuses itself where the decoder is not installed."""


def _redirect_text(headers: Mapping[str, str]) -> bytes:
    """Where a redirect leads, without path and query; the prompt is not sent there."""
    try:
        target = urlsplit(headers.get("location", ""))
        origin = f"{target.scheme}://{target.hostname}" if target.hostname else "another path"
    except ValueError:
        origin = "an unreadable address"
    return f"redirect to {origin} refused; set base_url to where the API is".encode(
        "utf-8", "replace"
    )
