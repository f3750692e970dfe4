"""The answers that are not 200: a status and a body to the exception that says what they say.

Source: protocol.md 5.1 and 5.2. Never assume JSON: gateways answer HTML or text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamchat.protocol.errors import StatusError, status_error_class
from streamchat.protocol.plain import decode_json, is_mapping, repair_surrogates

__all__ = ["error_message", "status_error"]


def status_error(
    status: int,
    *,
    headers: Mapping[str, str],
    body: bytes,
    retry_after: float | None = None,
) -> StatusError:
    """The exception for an answer that is not 200 (protocol.md 5.1, 5.2).

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
_MAX_MESSAGE = 500


def error_message(body: bytes) -> str:
    """The server's own words from an error body: ``message``, or the start of the text.

    Control characters are replaced, so that a log line stays a line (CWE-117).
    """
    return _error_details(body)[0]


def _error_details(body: bytes) -> tuple[str, str | None]:
    try:
        data = decode_json(body)
    except ValueError:
        data = None
    message: Any = None
    error_type: Any = None
    if is_mapping(data):
        error_type = data.get("error_type")
        message = data.get("message", data.get("error"))
        if is_mapping(message):
            message = message.get("message")
    if not isinstance(message, str):
        message = body.decode("utf-8", "replace")
    printable = "".join(c if c.isprintable() else " " for c in repair_surrogates(message))
    message = " ".join(printable.split())
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + "..."
    return message, error_type if isinstance(error_type, str) else None
