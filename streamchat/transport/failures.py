"""What aiohttp raises, as ours: the safe facts are copied, nothing is chained.

aiohttp's exceptions hold the bearer token and pieces of the response in ``args`` and ``repr``, so none of
them may travel further, not even as ``__context__``: callers of these functions leave their
``except`` block before they raise.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from copy import copy
from typing import Any

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong, PayloadEncodingError

from streamchat.protocol.errors import (
    ConfigurationError,
    ConnectError,
    ProtocolError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
    TruncatedStreamError,
)

__all__ = [
    "failed_body",
    "failed_request",
    "forget_frames",
    "is_alert",
    "not_http",
    "truncated",
]


def truncated(host: str) -> TruncatedStreamError:
    """The body broke off, in whatever way."""
    return TruncatedStreamError(
        f"the connection to {host} ended before the answer was complete",
        kind="truncated",
        host=host,
    )


def not_http(host: str, hint: str = "") -> ProtocolError:
    """What came breaks the rules of HTTP itself; none of it is quoted."""
    return ProtocolError(f"the answer of {host} is not valid HTTP{hint}")


def _too_long(host: str, error: BaseException | None) -> ProtocolError | None:
    """The error of a line or header over the HTTP library's limit; None if none was."""
    while error is not None and not isinstance(error, LineTooLong):
        error = error.__cause__
    if error is None:
        return None
    limit = next((each for each in error.args[1:] if str(each).isdecimal()), 8190)
    return ProtocolError(
        f"a header line in the answer of {host} is longer than the limit of {limit} bytes; a session "
        "of your own can raise it: Client(session=aiohttp.ClientSession(max_field_size=65536, "
        "max_line_size=65536))"
    )


def forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an exception that aiohttp keeps on its reader.

    They hold the frames that hold the reader: each failed stream would wait for the collector.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def failed_body(error: Exception, host: str, *, malformed: bool) -> TransportError | ProtocolError:
    """What ended a body, whatever its class: aiohttp raises more than its own there.

    Args:
        error: as caught around reading.
        host: host and port, for the message.
        malformed: whether the parser gave the connection up, as over malformed chunks (RFC 9112 7.1).
    """
    if isinstance(error, TransportError | ProtocolError):
        return copy(error)  # set by abort(), or by the guard for lost connections
    cause = error.__cause__
    if isinstance(error, aiohttp.ClientPayloadError):
        # The Python parser keeps the connection over trailers that are too long or too many.
        # A PayloadEncodingError is what both parsers say about an end that comes too early.
        outsize = isinstance(cause, BadHttpMessage) and not isinstance(cause, PayloadEncodingError)
        if malformed or outsize:
            return _too_long(host, cause) or not_http(host)
        return truncated(host)
    if malformed:
        return not_http(host)
    return TruncatedStreamError(
        f"the connection to {host} broke before the answer was complete ({type(error).__name__})",
        kind="reset" if isinstance(error, OSError) else "truncated",
        host=host,
        errno=getattr(error, "errno", None),
    )


def failed_request(
    error: Exception, *, host: str, secure: bool, connect_timeout: float | None, elapsed: float
) -> StreamChatError:
    """What went wrong before there was a response.

    Args:
        error: as caught around the request.
        host: host and port, for the message.
        secure: whether TLS is spoken.
        connect_timeout: the limit in force, seconds.
        elapsed: seconds since the request began.
    """
    facts: dict[str, Any] = {"host": host, "elapsed": elapsed}
    hint = "" if secure else "; if it speaks TLS, base_url must be https"
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        facts["errno"] = number
    match error:
        case aiohttp.ConnectionTimeoutError():
            return StreamTimeoutError(
                f"no connection to {host} within {connect_timeout} s",
                phase="connect",
                seconds=connect_timeout or 0.0,
                **facts,
            )
        case aiohttp.ClientConnectorDNSError():
            return ConnectError(f"cannot resolve {host}", kind="dns", **facts)
        case aiohttp.ClientConnectorCertificateError():
            return ConnectError(
                f"the TLS certificate of {host} was refused; pass ssl= with a context that "
                "trusts your authority",
                kind="certificate",
                **facts,
            )
        case aiohttp.ClientConnectorSSLError():
            return ConnectError(f"TLS with {host} failed{_alerted(error)}", kind="tls", **facts)
        case aiohttp.ClientHttpProxyError():
            kind = "proxy" if error.status in (502, 503, 504) else "proxy_refused"
            return ConnectError(f"the proxy answered {error.status} for {host}", kind=kind, **facts)
        case aiohttp.ClientProxyConnectionError():
            return ConnectError(f"cannot connect to the proxy for {host}", kind="proxy", **facts)
        case aiohttp.ClientConnectorError():
            return _failed_connection(error, host, secure, facts)
        case aiohttp.InvalidURL():
            return ConfigurationError("base_url is not a valid URL")
        case aiohttp.ClientConnectionError() if said := _alerted(error):
            facts.pop("errno", None)  # OpenSSL's own, which would read as the operating system's
            return ConnectError(f"TLS with {host} failed{said}", kind="tls", **facts)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return TransportError(
                f"{host} closed the connection before it answered{hint}", kind="reset", **facts
            )
        case aiohttp.ClientResponseError():
            if (too_long := _too_long(host, error)) is not None:
                return too_long
            return not_http(host, hint)  # where plain http meets TLS, it may be an alert
        case ValueError():
            return ConfigurationError(
                "the HTTP session refused the request; a session of your own must not set auth="
            )
        case RuntimeError():
            return TransportError(f"the connection to {host} was closed", kind="closed", **facts)
        case _:
            return TransportError(f"the request to {host} failed ({type(error).__name__})", **facts)


def is_alert(error: BaseException) -> bool:
    """Whether a connection was lost to a TLS alert that ends the handshake for good."""
    return bool(_alerted(error))


def _failed_connection(
    error: aiohttp.ClientConnectorError, host: str, secure: bool, facts: Mapping[str, Any]
) -> ConnectError:
    reason = os.strerror(error.errno) if error.errno else "no route"
    if error.errno in _OUT_OF_DESCRIPTORS:
        limit = _descriptor_limit()
        return ConnectError(
            f"out of file descriptors ({limit}); raise `ulimit -n` or lower the concurrency",
            kind="resources",
            **facts,
        )
    cut = error.os_error
    if secure and (error.errno in _CUT_OFF or isinstance(cut, ConnectionResetError)):
        # Event loops report the end of a handshake as a reset without a number.
        reason = os.strerror(error.errno) if error.errno else "the handshake was cut off"
        return ConnectError(f"{host} refused TLS ({reason})", kind="tls", **facts)
    return ConnectError(
        f"cannot connect to {host}: {reason} (check base_url or CO_API_URL)",
        kind="refused",
        **facts,
    )


def _alerted(error: BaseException) -> str:
    """What a server's TLS alert says of the handshake, for a message; "" for any other failure.

    In TLS 1.3 the client's handshake is over before the server has seen its certificate: the alert
    comes in place of the answer (RFC 8446 4.4.2.4, 6.2). Other alerts on an open connection, and errors
    that are not alerts, say nothing about the certificate, and another attempt may go well.
    """
    reason, cause = "", error.__cause__
    while cause is not None:  # aiohttp's own is an ssl.SSLError too, without a reason
        if isinstance(cause, ssl.SSLError):
            reason = cause.reason or ""
        cause = cause.__cause__
    # "TLSV13_ALERT_CERTIFICATE_REQUIRED": the prefix depends on the version of OpenSSL.
    alert = reason.rpartition("ALERT_")[2]
    if alert == "CERTIFICATE_REQUIRED":
        return f": it asks for a client certificate; {_WITH_CERTIFICATE}"
    if alert in _ABOUT_CERTIFICATE:
        name = alert.lower().replace("_", " ")
        return f": it refused the client certificate ({name}); {_WITH_CERTIFICATE}"
    if alert == "HANDSHAKE_FAILURE":
        return f" (handshake failure); if it asks for a client certificate, {_WITH_CERTIFICATE}"
    return ""


_WITH_CERTIFICATE = "pass ssl= with a context that has one (context.load_cert_chain)"
_ABOUT_CERTIFICATE = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "DECRYPT_ERROR",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)
"""Alerts about the peer's certificate (RFC 8446 6.2)."""
_OUT_OF_DESCRIPTORS = frozenset({23, 24})  # ENFILE, EMFILE
_CUT_OFF = frozenset({54, 104})  # ECONNRESET of BSD and Linux: old TLS versions look like this


def _descriptor_limit() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return "the process's limit is reached"
    return f"the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"
