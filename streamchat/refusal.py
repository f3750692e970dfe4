"""How an exchange can fail without an exception of its own: statuses, content types, limits, ends.

Each function reads facts and returns the error to raise, or ``None``; the stream raises it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import attrs

from streamchat.framing import is_stream_type, media_type
from streamchat.masking import Mask
from streamchat.policy import retry_after
from streamchat.protocol.error_body import MAX_TYPE, clean_words, status_error
from streamchat.protocol.errors import (
    ConcurrencyError,
    GenerationError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
)
from streamchat.protocol.events import MessageEnd
from streamchat.transport import Exchange

__all__ = [
    "failed_generation",
    "mask_key",
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
    # On one line and not for ever, like the words of a StatusError; the event has them as they came.
    return GenerationError(
        finish_reason=clean_words(end.finish_reason, MAX_TYPE) if is_named else "ERROR",
        error=clean_words(end.error or ""),
        error_type=clean_words(end.error_type or "", MAX_TYPE) or None,
        status=end.status,
    )


async def refusal(
    exchange: Exchange, *, sent: Mapping[str, str], now: Callable[[], float]
) -> StreamChatError | None:
    """Why a response with another status than 200 cannot be an answer; ``None`` if it may be one.

    Args:
        exchange: status and headers are there.
        sent: the request's headers; a server may quote the key in them, and the error must not.
        now: the wall clock.
    """
    status = exchange.status
    is_answer = status <= 299 and is_stream_type(media_type(exchange.content_type))
    if is_answer and status not in _WITHOUT_CONTENT:
        return None
    mask = Mask(sent)
    headers: dict[str, str] = mask.any(dict(exchange.headers))
    if 300 <= status <= 399:
        return status_error(status, headers=headers, body=_redirect_text(headers))
    return status_error(
        status,
        headers=headers,
        # Events under a status without content may be an answer, and an error never quotes one.
        body=b"" if is_answer else await _body(exchange, mask),
        retry_after=retry_after(headers, now=now()),
    )


_WITHOUT_CONTENT = frozenset({204, 205})
"""Successes that have no content by definition (RFC 9110 15.3.5, 15.3.6)."""


def mask_key(error: StreamChatError, sent: Mapping[str, str]) -> None:
    """Take the key and the caller's header values out of what a server said inside its stream.

    Events are delivered as they came; an exception is what logs and error trackers keep. A transport's
    error quotes nothing, and there may be ten thousand at once (a quarter of a cancellation's cost).
    """
    if isinstance(error, TransportError):
        return
    mask = Mask(sent)
    error.args = tuple(mask.any(each) for each in error.args)
    for name, value in vars(error).items():
        setattr(error, name, mask.any(value))
    partial = error.partial
    if partial is not None and (partial.error or partial.finish_reason or partial.error_type):
        # The words of a failed message-end; the answer itself stays as it came.
        error.partial = attrs.evolve(
            partial,
            finish_reason=mask.any(partial.finish_reason),
            error=mask.any(partial.error),
            error_type=mask.any(partial.error_type),
        )


async def _body(exchange: Exchange, mask: Mask) -> bytes:
    return mask.data(await exchange.read_error_body())


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
