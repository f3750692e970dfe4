"""Connections and whose they are: the pool, and a session for each event loop.

Each guard is here because of something measured with aiohttp 3.14.5.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

import aiohttp
import attrs
from aiohttp import hdrs, http_parser
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from streamchat.transport.patience import PatientTimeout

__all__ = [
    "ConnectionUse",
    "Connector",
    "Keeper",
    "RequestTimeout",
    "Session",
    "new_session",
    "reason_of_loss",
    "retrieve",
    "speaks_tls",
]

Session = aiohttp.ClientSession
"""A session of the caller's own, for ``Client(session=...)``."""

KEEPALIVE_SECONDS = 15.0
"""How long an idle connection is kept: short enough to lose few races against a server's close."""

LOSS_SECONDS = 0.1
"""How long a TLS connection that failed before an answer may take to say why."""
PROBE_SECONDS = 0.25
"""How long a port has to answer a TLS greeting, once, when plain http was not answered at all."""


@attrs.define(eq=False)
class ConnectionUse:
    """How one request got its connection; the connector writes it down."""

    queued: int = 0
    """While it waits for a connection to come free: how many there may be. Else 0."""
    used: bool = False
    """Whether the connection had served another request before."""
    protocol: ResponseHandler | None = None
    """The connection itself: when a response is returned, a short one's is in the pool again."""
    lost: asyncio.Future[None] | None = None
    """Done when the connection is lost, and why. It is asked for before the loss: afterwards the
    protocol has no more than what it told the request, which can be an error of writing."""


class RequestTimeout(aiohttp.ClientTimeout):
    """The limits of one request for aiohttp, and where the connector writes down what it did.

    A request's limits are the one thing of the caller's that aiohttp hands to the connector as it is; a
    context variable would stay with the connection, and cost more.
    """

    __slots__ = ("use",)
    use: ConnectionUse

    @classmethod
    def of(cls, connect: float | None, use: ConnectionUse) -> RequestTimeout:
        """Limits of a request: ``connect`` in seconds, none for the rest, which we watch ourselves."""
        timeout = cls(total=None, sock_connect=connect)
        object.__setattr__(timeout, "use", use)  # its base is frozen
        return timeout


_NO_LIMITS = aiohttp.ClientTimeout(total=None)
"""For the parts of a connection: the limit is that of all of them together."""


class Connector(aiohttp.TCPConnector):
    """A pool that hands out no connection with something unread on it, and tells used from new.

    A response that nobody asked for, sent on an idle connection, would otherwise be given to the
    next request: one user's answer to another.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=KEEPALIVE_SECONDS)  # pyright: ignore[reportUnknownMemberType]  # aiohttp's own annotation is partial
        if http_parser.HttpResponseParser is http_parser.HttpResponseParserPy:
            handler: type[ResponseHandler] = _Impatient
            self._factory = partial(handler, loop=self._loop)
        self._generation = 0
        self._used_in: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        """A connection that is clean, as far as can be known."""
        use: ConnectionUse | None = getattr(timeout, "use", None)
        while True:
            if use is not None:
                use.queued = self.limit  # until it has a connection, or one is being made
            connection = await super().connect(req, traces, timeout)
            if use is not None:
                use.queued = 0
            protocol = connection.protocol
            if protocol is None:
                return connection
            generation = self._used_in.get(protocol)
            is_stale = generation is not None and generation < self._generation
            if not (protocol.should_close or is_stale):
                break
            connection.close()
        if use is not None:
            use.used, use.protocol = generation is not None, protocol
            use.lost = protocol.closed if req.is_ssl() else None
            if use.lost is not None and not use.used:
                use.lost.add_done_callback(retrieve, context=Context())
        if generation != self._generation:
            self._used_in[protocol] = self._generation
        return connection

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        """A new connection, name resolution included: aiohttp's own limit begins after it."""
        use: ConnectionUse | None = getattr(timeout, "use", None)
        if use is not None:
            use.queued = 0
        scope = PatientTimeout(timeout.sock_connect)
        try:
            with scope:
                return await super()._create_connection(req, traces, _NO_LIMITS)
        except TimeoutError:
            if not scope.has_passed:
                raise
        raise aiohttp.ConnectionTimeoutError

    def distrust_idle(self) -> None:
        """Use none of the connections that were used so far again: one of them was stale."""
        self._generation += 1


class _Impatient(ResponseHandler):
    """Refuse what can become no status line as soon as it is there.

    aiohttp's C parser does; the one in pure Python waits for the end of the line, which binary data
    (HTTP/2, a TLS alert) may never have. What both parsers are fed is public, what is left over in
    the Python one is not: without these attributes it waits as before.
    """

    def data_received(self, data: bytes) -> None:
        """Parse, then look at what was left over."""
        super().data_received(data)
        begun = getattr(self._parser, "_tail", b"").lstrip(b"\r\n")
        if getattr(self._parser, "_lines", None) or b"HTTP/".startswith(begun[:5]):
            return
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(HttpProcessingError())


class Keeper:
    """A session that is closed with its event loop.

    The asynchronous generator does it: a loop that ends (``asyncio.run``) closes the generators that
    were started in it, and one that is dropped is closed by its loop. So a client that works from
    several loops in turn, or is never closed, leaves no socket behind.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._closer = self._close_at_end(session)

    async def start(self) -> None:
        """Tie the session to the running loop."""
        await anext(self._closer)

    async def aclose(self) -> None:
        """Close the session now."""
        await self._closer.aclose()

    @staticmethod
    async def _close_at_end(session: Session) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await session.close()


def new_session(max_connections: int) -> Session:
    """A session that keeps no cookies and reads no netrc."""
    return aiohttp.ClientSession(
        connector=Connector(max_connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,  # it would read netrc too, which breaks our own Authorization
        skip_auto_headers=(hdrs.USER_AGENT,),
    )


def retrieve(lost: asyncio.Future[None]) -> None:
    """Look at why a connection was lost, so that asyncio does not log that nobody did.

    As a callback, give it an empty ``Context()``: the pool may keep the connection for hours, and with
    it everything in the context variables of the request.
    """
    if not lost.cancelled():
        lost.exception()


async def reason_of_loss(use: ConnectionUse) -> Exception | None:
    """Why a connection was lost, if the event loop says it.

    A request that is being written may fail first, without a reason: uvloop closes a transport on a TLS
    alert before it tells the protocol about the alert, and a large body meets a closed socket on asyncio.
    """
    reason: BaseException | None = None
    if use.lost is not None:
        await asyncio.wait([use.lost], timeout=LOSS_SECONDS)
        if use.lost.done() and not use.lost.cancelled():
            reason = use.lost.exception()
    if reason is None and use.protocol is not None:
        reason = use.protocol.exception()
    return reason if isinstance(reason, Exception) else None


async def speaks_tls(host: str, port: int) -> bool:
    """Whether a port answers the greeting of TLS with TLS; nothing else is sent."""
    greeting = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(ssl.SSLWantReadError):  # once it is written, it is the server's turn
        context.wrap_bio(ssl.MemoryBIO(), greeting, server_hostname=host).do_handshake()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(greeting.read())
            return await reader.read(1) in (_TLS_ALERT, _TLS_HANDSHAKE)
    except OSError:  # TimeoutError is one
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


_TLS_ALERT, _TLS_HANDSHAKE = b"\x15", b"\x16"  # the first byte of a record, RFC 8446 5.1
