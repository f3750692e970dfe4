"""One answer being read: status and headers are there, the body is still coming."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import cast

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from streamchat.protocol.errors import ProtocolError, StreamChatError, TransportError
from streamchat.transport.connections import retrieve
from streamchat.transport.decoding import Decoder
from streamchat.transport.failures import failed_body, forget_frames, not_http, truncated

__all__ = ["DecodedExchange", "Exchange", "is_malformed"]

DRAIN_SECONDS = 0.1
"""Time spent after the answer to get the connection back."""
DRAIN_BYTES = 16 * 1024
"""Bytes read for the same."""
READ_BYTES = 32 * 1024
"""What is read at a time. Twice as much would cost 1 % less an event (benchmarks/decode.py) and hold
436 KiB in a stalled stream of a flood instead of 190 (tests/resources)."""
RECEIVE_BYTES = 124 * 1024
"""What asyncio's plain transport may take from the socket at once. Its own 256 KiB are more than glibc
keeps at hand: a buffer is mapped, touched and unmapped for each event, and with this a paced event
costs 79 us instead of 97 (benchmarks/paced.py, in a process that did not free 8 MiB before)."""
LEFT_BYTES = 4 * 1024 * 1024
"""What may be parsed at the end of a TLS connection, twice this at most. 256 KiB can be waiting there,
and aiohttp does not decompress them, so nothing of an answer is lost."""
ERROR_BODY_SECONDS = 5.0
"""Time for a body that is no event stream, which may be endless or slow."""
ERROR_BODY_BYTES = 64 * 1024
"""Bytes read of it."""


class Exchange:
    """One request and its answer: status and headers are there, the body is still coming."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_content",
        "_ending",
        "_failure",
        "_host",
        "_loop",
        "_lost",
        "_malformed",
        "_process",
        "_response",
        "_started",
        "bytes_received",
        "status",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        host: str,
        clock: Callable[[], float],
        started: float,
        *,
        malformed: bool = False,
    ) -> None:
        self._response = response
        self._malformed = malformed
        self._content = response.content
        self._host = host
        self._clock = clock
        self._started = started
        self._failure: TransportError | ProtocolError | None = None
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        self._ending = None if protocol is None else _Ending.of(protocol, response.content)
        self.status = response.status
        """The HTTP status."""
        self.bytes_received = 0
        """Bytes of the body that were read, before a content coding is decoded."""
        # Wake the reader when the connection closes and aiohttp forgets to. (A healthy protocol is
        # falsy, because it inherits the length of a queue.)
        self._lost: asyncio.Future[None] | None = None if protocol is None else protocol.closed
        if self._lost is not None:
            self._lost.add_done_callback(self._wake)
        # Only asyncio's own transport has the attribute: public, and documented nowhere.
        transport = None if protocol is None else protocol.transport
        if getattr(transport, "max_size", 0) > RECEIVE_BYTES:
            transport.max_size = RECEIVE_BYTES  # type: ignore[union-attr]

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, names in lower case; of a repeated header the last."""
        # Made when asked for: a waiting stream need not hold them twice.
        return {name.lower(): value for name, value in self._response.headers.items()}

    @property
    def content_type(self) -> str:
        """The ``Content-Type`` as it came, of a repeated header the last; empty if there is none."""
        values = self._response.headers.getall(hdrs.CONTENT_TYPE, None)
        return values[-1] if values else ""

    async def read(self) -> bytes:
        """The next bytes, as soon as there are any; ``b""`` at the end of the body.

        A clean end says nothing about the answer: only ``message-end`` does.

        Raises:
            TransportError: the connection failed, after everything that had arrived was returned.
            ProtocolError: likewise, because the body breaks the rules of HTTP.
        """
        chunk = b""
        if self._failure is None:
            try:
                # Not all there is: split into events it takes twice its size, and a stalled stream
                # of a flood would hold 300 KiB (measured: tests/resources).
                chunk = await self._content.read(READ_BYTES)
            except Exception as error:  # noqa: BLE001  # whatever it is, the body is over
                self._failure = failed_body(error, self._host, malformed=self._is_malformed())
                forget_frames(error)
                if isinstance(self._failure, TransportError):
                    self._failure.elapsed = self._clock() - self._started
                chunk = self._left_behind()
        if self._failure is not None and not chunk:
            if isinstance(self._failure, TransportError):
                self._failure.bytes_received = self.bytes_received
            raise self._failure
        self.bytes_received += len(chunk)
        return chunk

    async def read_error_body(self) -> bytes:
        """What there is of a body that is no event stream: 64 KiB and 5 s at most, never raises."""
        body = bytearray()
        try:
            async with asyncio.timeout(ERROR_BODY_SECONDS):
                while len(body) < ERROR_BODY_BYTES:
                    chunk = await self.read()
                    if not chunk:
                        break
                    body += chunk
        except (TimeoutError, StreamChatError):
            pass  # the status is what matters; a part of the body explains it well enough
        return bytes(body[:ERROR_BODY_BYTES])

    def abort(self, error: TransportError) -> None:
        """Close the connection and let the waiting :meth:`read` raise ``error``.

        (:meth:`close` alone would wake it with aiohttp's own words.)
        """
        if self._process != os.getpid():
            return
        if self._failure is None and self._content.exception() is None:
            self._content.set_exception(error)
        self.close()

    async def drain(self) -> None:
        """Give the connection back if the body ends within 100 ms and 16 KiB, else close it."""
        try:
            if not self._content.is_eof():
                async with asyncio.timeout(DRAIN_SECONDS):
                    while await self._content.readany():
                        if self._content.total_bytes - self.bytes_received > DRAIN_BYTES:
                            break
        except Exception:  # noqa: BLE001, S110  # the answer is complete; only the connection is lost
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection unless the body has ended, in which case the pool has it already.

        In a forked child nothing is done: the connection is the parent's.
        """
        if self._process != os.getpid():
            return
        if self._lost is not None:
            # The pool may keep the connection for hours: leave nothing of this exchange on it.
            self._lost.remove_done_callback(self._wake)
            if self._lost.done():
                retrieve(self._lost)  # its loop may be closed, and takes no callback then
            else:
                # The connection may still be reset: while a body that the server did not wait for is
                # being sent, or in the pool. One callback per connection, however many exchanges.
                self._lost.remove_done_callback(retrieve)
                self._lost.add_done_callback(retrieve, context=Context())
            self._lost = None
        if self._ending is not None:
            self._ending.forget()
            self._ending = None
        self._failure = None
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        if transport is not None and not self._loop.is_closed():
            # Not close() alone: over TLS that waits for the peer's goodbye, up to 30 s.
            transport.abort()
        self._response.close()

    def _wake(self, lost: asyncio.Future[None]) -> None:
        retrieve(lost)
        if not self._content.is_eof() and self._content.exception() is None:
            malformed = self._is_malformed()
            self._content.set_exception((not_http if malformed else truncated)(self._host))

    def _is_malformed(self) -> bool:
        """Whether aiohttp closed the connection because it could not parse what came."""
        connection = self._response.connection
        protocol = connection.protocol if connection is not None else None
        return self._malformed or is_malformed(protocol)

    def _left_behind(self) -> bytes:
        """Bytes that arrived before the failure and that aiohttp would drop, as its read() raises at once.

        The attribute is private: no public way leads to them. A test holds it to its meaning.
        """
        buffered = getattr(self._content, "_buffer", ())
        offset = getattr(self._content, "_buffer_offset", 0)
        left = b"".join(cast("tuple[bytes, ...]", buffered))[offset:]
        if buffered:
            buffered.clear()
        return left


DECODED_AFTER_ABORT = 1024 * 1024
"""64 KiB that arrived may be 13 MiB of keep-alives, whose reading takes a second."""


class DecodedExchange(Exchange):
    """An exchange whose body has a content coding."""

    __slots__ = ("_decoder", "_left")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        host: str,
        clock: Callable[[], float],
        started: float,
        *,
        coding: list[str],
        malformed: bool = False,
    ) -> None:
        super().__init__(response, host, clock, started, malformed=malformed)
        self._decoder = Decoder(coding, host)
        # After abort(): how many more bytes are decoded.
        self._left: int | None = None

    async def read(self) -> bytes:
        """The next decoded bytes, 64 KiB at most; ``b""`` at the end of the body.

        Raises:
            TransportError: the connection failed, or the body is not what its coding says; all that
                was decoded before has been returned.
            ProtocolError: likewise, because the coding cannot be decoded or expands too much.
        """
        try:
            return await self._read_decoded(self._decoder)
        except TransportError as error:
            error.bytes_received = self.bytes_received
            error.elapsed = self._clock() - self._started
            raise

    def abort(self, error: TransportError) -> None:
        """As of a body without a coding, and of what had arrived 1 MiB is decoded at most."""
        if self._left is None:
            self._left = DECODED_AFTER_ABORT
        super().abort(error)

    async def _read_decoded(self, decoder: Decoder) -> bytes:
        while True:
            decoded = decoder.read() if self._left is None or self._left > 0 else b""
            if decoded:
                if self._left is not None:
                    self._left -= len(decoded)
                if decoder.has_more:
                    await asyncio.sleep(0)  # a body that expands must not hold up the event loop
                return decoded
            received = await super().read()
            if not received:
                decoder.check_end()
                return b""
            decoder.feed(received)


def is_malformed(protocol: ResponseHandler | None) -> bool:
    """Whether aiohttp gave the connection up because it could not parse what came."""
    return protocol is not None and isinstance(protocol.exception(), HttpProcessingError)


class _Ending:
    """The end of one TLS connection, made to wait for what came before it.

    On plain TCP nothing of this is needed: while the consumer is behind, the socket is not read, and
    its end not seen. Over TLS only the decrypted side pauses. The socket is read on, and at its end
    what was not handed up is dropped (measured: up to half of 0.7 MB, complete answers included):

    * uvloop 0.23, ``SSLProtocol.eof_received``: closes at once, with up to 256 KiB undecrypted in its
      incoming buffer. CPython 3.11 waits there, but not after a reset (``connection_lost``).
    * aiohttp 3.14.5, ``ResponseHandler.connection_lost``: throws its parser away, with what that has
      not parsed while it was paused. On both loops, and after a close_notify just as well.
    """

    __slots__ = ("_content", "_protocol")

    def __init__(self, protocol: ResponseHandler, content: aiohttp.StreamReader) -> None:
        self._protocol = protocol
        self._content: aiohttp.StreamReader | None = content

    @classmethod
    def of(cls, protocol: ResponseHandler, content: aiohttp.StreamReader) -> _Ending | None:
        """Take charge of the connection's end, if it is TLS and still there."""
        # Only the transports of TLS have it; public, but documented nowhere except in its docstring.
        set_limits = getattr(protocol.transport, "set_read_buffer_limits", None)
        if set_limits is None:
            return None
        ending = cls(protocol, content)
        try:
            # Loops look it up on the instance, so it is this one connection that changes.
            protocol.__dict__["connection_lost"] = ending.before_lost
            # With one byte undecrypted the socket is not read: its end is not seen before that byte.
            set_limits(high=1, low=0)
        except AttributeError:
            pass  # an aiohttp that uses slots, or a connection that was lost just now
        return ending

    def before_lost(self, exc: BaseException | None) -> None:
        """The protocol's ``connection_lost``: first parse what came before the end."""
        content = self._content
        self.forget()
        if content is not None and not content.is_eof() and content.exception() is None:
            content.set_read_chunk_size(LEFT_BYTES)
            # The other limit at which it would pause again counts HTTP chunks, and is private.
            if hasattr(content, "_high_water_chunks"):
                content._high_water_chunks = LEFT_BYTES  # pyright: ignore[reportPrivateUsage]
            self._protocol.resume_reading()
        type(self._protocol).connection_lost(self._protocol, exc)

    def forget(self) -> None:
        """Let the connection end as aiohttp has it; the pool may keep it for another exchange."""
        self._content = None
        # That one may be in charge already.
        if self._protocol.connection_lost == self.before_lost:
            del self._protocol.__dict__["connection_lost"]
