"""HTTP for the server: recorded headers, JSON errors, requests bounded in size and time.

Every error has Cohere's body, ``{"id": ..., "message": ...}``, including the ones that aiohttp
finds itself: a malformed request line, a header section that is too large, an exception in a
handler. Nothing that a client sent is quoted in them.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
import zlib
from email.utils import formatdate
from http import HTTPStatus

import attrs
from aiohttp import web

from streamchat.local.checks import RefusalError
from streamchat.protocol.plain import encode_json

__all__ = ["Connection", "HttpServer", "Receiver", "headers", "inflate", "refusal_response"]

MAX_BODY = 32 * 1024 * 1024
"""Bytes of one request body: Cohere takes 20 MB of images, and base64 adds a third."""
MAX_RECEIVING = 256 * 1024 * 1024
"""Bytes of all request bodies that are being received or decoded at one time."""
RECEIVE_TIMEOUT = 10.0
"""Seconds for a request's header section, and again for its body: the client is on this machine."""
KEEPALIVE_TIMEOUT = 75.0
"""Seconds that an idle connection is kept."""

_log = logging.getLogger("streamchat.local")


def headers(content_type: str) -> dict[str, str]:
    """The recorded response headers, in their recorded case."""
    return {
        "access-control-expose-headers": "X-Debug-Trace-ID",
        "cache-control": "no-cache, no-store, no-transform, must-revalidate, private, max-age=0",
        "content-type": content_type,
        "expires": "Thu, 01 Jan 1970 00:00:00 GMT",
        "pragma": "no-cache",
        "vary": "Origin",
        "x-accel-expires": "0",
        "x-debug-trace-id": uuid.uuid4().hex,
        "date": formatdate(usegmt=True),
        "x-envoy-upstream-service-time": "10",
        "server": "envoy",
        "Via": "1.1 google",
        "Alt-Svc": 'h3=":443"; ma=2592000,h3-29=":443"; ma=2592000',
    }


def refusal_response(refusal: RefusalError) -> web.Response:
    """The refusal as an HTTP response."""
    return web.Response(
        status=refusal.status, body=_body_of(refusal), headers=headers("application/json")
    )


def _body_of(refusal: RefusalError) -> bytes:
    return encode_json({"id": str(uuid.uuid4()), "message": refusal.message})


def _raw_response(refusal: RefusalError) -> bytes:
    """The refusal as bytes, for a request that never became complete."""
    body = _body_of(refusal)
    fields = headers("application/json") | {
        "content-length": str(len(body)),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# --- connections ---------------------------------------------------------------------------------

_IDLE, _HEAD, _BODY, _ANSWERING = range(4)


class Connection(web.RequestHandler):
    """One connection: a request that stays incomplete gets 408, or 400 if the client ends it."""

    __slots__ = ("_expiry", "_state")

    _expiry: asyncio.TimerHandle | None
    _state: int

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start idle; aiohttp closes connections that stay idle."""
        self._expiry = None
        self._state = _IDLE
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Start the time limit with the first byte of a request."""
        if self._state == _IDLE:
            self._enter(_HEAD)
        super().data_received(data)

    def eof_received(self) -> None:
        """Refuse a request that ended half-way; the transport closes after this."""
        if self._state in (_HEAD, _BODY):
            self._abandon(RefusalError(400, "invalid request: the request ended half-way."))
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer."""
        self._enter(_ANSWERING)
        super().connection_lost(exc)

    def receiving_body(self) -> None:
        """The header section is complete; the time limit starts again."""
        self._enter(_BODY)

    def answering(self) -> None:
        """The request is complete."""
        self._enter(_ANSWERING)

    def answered(self) -> None:
        """The next request may come."""
        self._enter(_IDLE)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A JSON error; logged only if the fault is on this side of the connection."""
        self.answering()
        if status >= 500:
            _log.error("the server's answer failed", exc_info=exc)
            refusal = RefusalError(status, "internal server error")
        else:
            refusal = RefusalError(status, "invalid request: this is not a valid HTTP/1.1 request.")
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun, so that no error can be sent")
        response = refusal_response(refusal)
        response.force_close()
        return response

    def _enter(self, state: int) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._state = state
        if state in (_HEAD, _BODY):
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(RECEIVE_TIMEOUT, self._expire)

    def _expire(self) -> None:
        self._abandon(
            RefusalError(
                408, f"the request did not arrive completely within {RECEIVE_TIMEOUT:g} seconds"
            )
        )

    def _abandon(self, refusal: RefusalError) -> None:
        """Answer an incomplete request and close the connection."""
        self._enter(_ANSWERING)
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(_raw_response(refusal))
        self.force_close()


class HttpServer(web.Server):
    """aiohttp's low-level server with our connections."""

    def __call__(self) -> web.RequestHandler:
        """A protocol for a new connection."""
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for "no access log"
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            auto_decompress=False,  # it would decompress without a bound
        )


# --- bodies --------------------------------------------------------------------------------------


@attrs.define
class Receiver:
    """Receives the bodies of one server's requests, within one memory limit for all of them."""

    held: int = 0
    """Bytes of bodies that are held now."""

    async def receive(self, request: web.BaseRequest) -> bytearray:
        """The body as it was sent, still encoded; hand it to :meth:`release` afterwards.

        Raises:
            RefusalError: 413 or 429 for too many bytes, 417 for an unknown expectation, 400 for
                broken framing.
        """
        if (request.content_length or 0) > MAX_BODY:
            raise _too_large()
        await _continue(request)
        body = bytearray()
        try:
            while chunk := await request.content.readany():
                body += chunk
                self.held += len(chunk)
                if len(body) > MAX_BODY:
                    raise _too_large()
                if self.held > MAX_RECEIVING:
                    raise RefusalError(
                        429, "too many large requests at once; please send fewer at a time"
                    )
        except web.RequestPayloadError:
            self.release(body)
            raise RefusalError(400, "invalid request: the body's framing is broken.") from None
        except BaseException:  # a cancellation too; raised again
            self.release(body)
            raise
        return body

    def release(self, body: bytearray) -> None:
        """The body is not held any longer."""
        self.held -= len(body)


def _too_large() -> RefusalError:
    return RefusalError(413, f"request body is larger than {MAX_BODY} bytes")


async def _continue(request: web.BaseRequest) -> None:
    """RFC 9110 10.1.1: the client may wait for ``100 Continue`` before it sends the body."""
    expect = request.headers.get("Expect", "")
    if not expect or request.version < (1, 1):
        return
    if expect.lower() != "100-continue":
        raise RefusalError(417, "invalid request: the only expectation known is 100-continue.")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # aiohttp takes any output for the start of the response


def inflate(body: bytes | bytearray, encoding: str) -> bytes:
    """The body without its ``Content-Encoding``: gzip, deflate or none.

    Raises:
        RefusalError: 400 for another encoding or data that is not in it; 413 for a body that is
            larger than allowed once decompressed.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return bytes(body)
    if name in ("gzip", "x-gzip"):
        window = zlib.MAX_WBITS | 16
    elif name == "deflate":  # RFC 9110 8.4.1.2 says zlib; some clients send raw deflate
        window = zlib.MAX_WBITS if body[:1] and body[0] & 0xF == 8 else -zlib.MAX_WBITS
    else:
        raise RefusalError(
            400, "invalid request: the content-encoding of the body must be gzip or deflate."
        )
    decompressor = zlib.decompressobj(window)
    try:
        data = decompressor.decompress(body, MAX_BODY + 1)
    except zlib.error:
        data = None
    if data is not None and len(data) > MAX_BODY:
        raise _too_large()
    if data is None or not decompressor.eof or decompressor.unused_data:
        raise RefusalError(400, f"invalid request: the body is not valid {name}.")
    return data
