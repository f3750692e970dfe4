"""Every exception a caller can see, as plain data; imports nothing.

The tree::

    StreamChatError
      ConfigurationError (ValueError)       a setting is missing or cannot work
      TransportError                        the network failed
        ConnectError                        before a connection stood
        StreamTimeoutError (TimeoutError)   one of our own timers ran out
        TruncatedStreamError                the body ended before message-end
      StatusError                           the server answered with another status than 200
        BadRequestError 400 ... ServerError 5xx
      ProtocolError                         the server sent what Chat v2 does not allow
        DecodeError | FrameTooLargeError | AnswerTooLargeError | UnexpectedContentTypeError
      GenerationError                       the model's answer failed (finish reason ERROR, TIMEOUT)
      StructureError (ValueError)           the answer does not fit the type that was asked for
      ToolError
        ToolArgumentsError | ToolLoopLimitError | ToolRefusedError
      StopReachedError                      a fan-out reached one of its limits
      ConcurrencyError (RuntimeError)       two consumers of one stream

Rules that hold for the whole family:

* the message names what was wrong and what to do; it holds no key, no prompt and no answer;
* what was received before the failure is in ``partial``, never in the message;
* no exception of another library is chained (aiohttp's ``repr`` holds the bearer token): the safe
  facts are copied into attributes;
* each pickles and copies with all its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # The one name this room borrows from above, for annotations alone: ``partial`` is an answer.
    from streamchat.protocol.response import ChatResponse
    from streamchat.protocol.sse import Frame

__all__ = [
    "AnswerTooLargeError",
    "AuthenticationError",
    "BadRequestError",
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectError",
    "DecodeError",
    "FrameTooLargeError",
    "GenerationError",
    "InvalidTokenError",
    "NotFoundError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RequestCancelledError",
    "ServerError",
    "StatusError",
    "StopReachedError",
    "StreamChatError",
    "StreamTimeoutError",
    "StructureError",
    "ToolArgumentsError",
    "ToolError",
    "ToolLoopLimitError",
    "ToolRefusedError",
    "TransportError",
    "TruncatedStreamError",
    "UnexpectedContentTypeError",
    "UnprocessableEntityError",
    "status_error_class",
]


def _rebuild(
    cls: type[StreamChatError], args: tuple[Any, ...], state: dict[str, Any]
) -> StreamChatError:
    """Make an exception again from its pickled parts, without calling ``__init__``."""
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class StreamChatError(Exception):
    """The base of everything this library raises on purpose."""

    partial: ChatResponse | None = None
    """The answer as received before the failure; ``None`` before the first event."""
    attempts: int = 1
    """How many times the request was sent in all, retries included."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        if isinstance(self, OSError):
            # TimeoutError is one: its errno lives in a slot of C, not in __dict__.
            state["errno"] = self.errno
        return _rebuild, (type(self), self.args, state)


class ConfigurationError(StreamChatError, ValueError):
    """A setting is missing or cannot work; the message says what to set. Nothing was sent."""


class TransportError(StreamChatError):
    """The network failed: the connection was lost, or could not be used."""

    def __init__(
        self,
        message: str,
        *,
        kind: str = "connection",
        host: str | None = None,
        errno: int | None = None,
        elapsed: float | None = None,
        events: int = 0,
        bytes_received: int = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        """What failed, one word: ``connection``, ``dns``, ``refused``, ``tls``, ``certificate``,
        ``proxy``, ``proxy_refused``, ``resources``, ``reset``, ``timeout``, ``truncated``,
        ``encoding``, ``closed``."""
        self.host = host
        """Host and port of the peer."""
        self.errno = errno
        """The operating system's error number, if there was one."""
        self.elapsed = elapsed
        """Seconds from the request to the failure."""
        self.events = events
        """How many events had been received."""
        self.bytes_received = bytes_received
        """How many bytes of the body had been received."""


class ConnectError(TransportError):
    """No connection could be made: name, route, TLS or proxy. Nothing was sent."""


class StreamTimeoutError(TransportError, TimeoutError):
    """One of the timers of :class:`streamchat.Timeout` ran out."""

    def __init__(self, message: str, *, phase: str, seconds: float, **facts: Any) -> None:
        super().__init__(message, kind="timeout", **facts)
        self.phase = phase
        """Which timer: ``connect``, ``first_event``, ``idle`` or ``total``."""
        self.seconds = seconds
        """Its limit, in seconds."""


class TruncatedStreamError(TransportError):
    """The body ended before ``message-end``, cleanly or not: the answer is incomplete."""


class StatusError(StreamChatError):
    """The server answered with another status than 200."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        server_message: str = "",
        error_type: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status."""
        self.message = server_message
        """The server's own words, or the start of a body that was not JSON."""
        self.error_type = error_type
        """``error_type`` of the body, which Cohere does not document; an open string."""
        self.request_id = request_id
        """``x-debug-trace-id``; quote it when you ask Cohere."""
        self.retry_after = retry_after
        """Seconds the server asked to wait, if it did."""
        self.headers: Mapping[str, str] = dict(headers or {})
        """The response's headers, names in lower case."""
        self.body = body
        """The body as received, 64 KiB at most."""


class BadRequestError(StatusError):
    """400: the request is malformed or invalid, or too long for the model."""


class AuthenticationError(StatusError):
    """401: the key is missing, wrong or expired."""


class PaymentRequiredError(StatusError):
    """402: the billing limit is reached."""


class PermissionDeniedError(StatusError):
    """403: the key may not do this."""


class NotFoundError(StatusError):
    """404: the model or the path is unknown, removed, or not open to the key."""


class UnprocessableEntityError(StatusError):
    """422: an unknown field, or nothing valid could be generated (see ``error_type``)."""


class RateLimitError(StatusError):
    """429: a limit a minute, of tokens or a month is reached."""


class InvalidTokenError(StatusError):
    """498: a deny-listed word in request or answer; nothing to do with authentication."""


class RequestCancelledError(StatusError):
    """499: the request was cancelled on the client's side."""


class ServerError(StatusError):
    """5xx: the server failed."""


_STATUS_CLASSES: Mapping[int, type[StatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    498: InvalidTokenError,
    499: RequestCancelledError,
}


def status_error_class(status: int) -> type[StatusError]:
    """The class for an HTTP status; the plain :class:`StatusError` where none is named."""
    if 500 <= status <= 599:
        return ServerError
    return _STATUS_CLASSES.get(status, StatusError)


class ProtocolError(StreamChatError):
    """The server sent something that Chat v2, or server-sent events, do not allow."""


class DecodeError(ProtocolError):
    """An event is not JSON, or misses or mistypes what it must have."""

    def __init__(
        self, reason: str, *, event_type: str = "", path: str = "$", payload: bytes = b""
    ) -> None:
        name = f"{event_type[:64]!r} event" if event_type else "an event"
        super().__init__(f"cannot decode {name}: {reason} (at {path}, {len(payload)} bytes)")
        self.reason = reason
        """What was wrong, without the content."""
        self.event_type = event_type
        """The event's type as far as it was known; may be empty."""
        self.path = path
        """Where: a JSON path, ``$`` for the whole."""
        self.payload = payload
        """The event's data as received."""


class FrameTooLargeError(ProtocolError):
    """One event is larger than the limit; memory stays bounded."""

    def __init__(self, *, limit: int, frames: Sequence[Frame] = ()) -> None:
        super().__init__(
            f"an event is larger than {limit} bytes; "
            "raise max_event_bytes if your documents or tool results are that large"
        )
        self.limit = limit
        """The limit, in bytes."""
        self.frames: Sequence[Frame] = frames
        """The complete frames of the same chunk, in order: nothing received is lost."""


class AnswerTooLargeError(ProtocolError):
    """The body of an answer is larger than the limit. What came before is in ``partial``."""

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            f"the answer is larger than {limit} bytes; raise max_answer_bytes if that is expected"
        )
        self.limit = limit
        """The limit, in bytes of the body, decoded."""


class UnexpectedContentTypeError(ProtocolError):
    """A 200 whose body is not ``text/event-stream``: a proxy's page, or an error object."""

    def __init__(self, message: str, *, content_type: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.content_type = content_type
        """What the response said it was; empty if it said nothing."""
        self.body = body
        """The body as received, 64 KiB at most."""


class GenerationError(StreamChatError):
    """The answer failed on the server: finish reason ``ERROR`` or ``TIMEOUT``, or an error event.

    The HTTP status is 200 by then; the same failure of a unary call is an HTTP 422.
    """

    def __init__(
        self,
        *,
        finish_reason: str,
        error: str = "",
        error_type: str | None = None,
        status: int | None = None,
    ) -> None:
        kind = f" [{error_type}]" if error_type else ""
        code = "" if status is None or str(status) == error_type else f" (code {status})"
        super().__init__(
            f"the answer failed with finish reason {finish_reason}{kind}{code}: "
            f"{error or 'the server gave no reason'}"
        )
        self.finish_reason = finish_reason
        """``ERROR``, ``TIMEOUT``, or what the server said."""
        self.error = error
        """The server's own words; may be empty."""
        self.error_type = error_type
        """For example ``INVALID_TOOL_GENERATION``; an open string. The ``type`` or ``code`` of the
        error object, if a gateway sent one."""
        self.status = status
        """The numeric code of a gateway's error object, like an HTTP status; ``None`` without one."""


class StructureError(StreamChatError, ValueError):
    """The answer is complete, but is not JSON, or does not fit the type that was asked for.

    The answer itself is in ``partial``.
    """

    def __init__(self, reason: str, *, into: str, text: str, path: str = "$") -> None:
        super().__init__(f"the answer does not fit {into}: {reason} (at {path}; see .text)")
        self.reason = reason
        """What was wrong. Values of the answer are in it only where a validator of the class quoted them."""
        self.text = text
        """The answer's text, as the model wrote it."""
        self.path = path
        """Where: a JSON path, ``$`` for the whole."""


class StopReachedError(StreamChatError):
    """A fan-out was stopped by its ``Stop``: no further request was taken, and those that ran have ended.

    Every result was handed out before. If a request's error stopped it, that is the ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        results: int,
        failures: int,
        tokens: float,
        seconds: float,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """Which limit was reached: ``seconds``, ``tokens``, ``failures`` or ``errors``."""
        self.results = results
        """How many requests were sent and have ended, with an answer or with an error."""
        self.failures = failures
        """How many of them have no answer."""
        self.tokens = tokens
        """What the answers took, input and output, as far as the server said."""
        self.seconds = seconds
        """Seconds from the first request."""


class ToolError(StreamChatError):
    """Something about a tool call."""


class ToolArgumentsError(ToolError, ValueError):
    """A tool call's arguments are not a JSON object, or do not fit the tool."""

    def __init__(self, reason: str, *, name: str, arguments: str) -> None:
        super().__init__(f"the arguments of tool call {name!r} are unusable: {reason}")
        self.name = name
        """The tool's name."""
        self.arguments = arguments
        """The raw text as the model wrote it."""


class ToolLoopLimitError(ToolError):
    """The tool loop reached its limit of steps and the model still wants tools."""


class ToolRefusedError(ToolError):
    """``approve=`` refused a tool call. The model is told; the run goes on."""

    def __init__(self, reason: str, *, name: str) -> None:
        super().__init__(
            f"the call of tool {name!r} was refused" + (f": {reason}" if reason else "")
        )
        self.name = name
        """The tool's name."""
        self.reason = reason
        """The text that ``approve=`` returned; empty if it returned ``False``."""


class ConcurrencyError(StreamChatError, RuntimeError):
    """Two tasks read one stream: give each its own, or hand the events on through a queue."""
