"""ONE exchange over aiohttp: a POST goes out, status and headers come back, then chunks.

The only room on the client's side that talks to aiohttp; its exceptions become ours in ``failures``.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl as ssl_module
import time
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, Protocol
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict, istr

from streamchat.credentials import Secret, Veiled, reveal
from streamchat.protocol.errors import StreamChatError, TransportError
from streamchat.transport.connections import (
    ConnectionUse,
    Connector,
    Keeper,
    RequestTimeout,
    Session,
    new_session,
    reason_of_loss,
    speaks_tls,
)
from streamchat.transport.decoding import codings
from streamchat.transport.exchange import (
    ERROR_BODY_BYTES,
    DecodedExchange,
    Exchange,
    is_malformed,
)
from streamchat.transport.failures import failed_request, is_alert, not_http
from streamchat.transport.proxies import LOOPBACK, Proxy

__all__ = [
    "ERROR_BODY_BYTES",
    "LOOPBACK",
    "Abortable",
    "ConnectionUse",
    "Exchange",
    "Session",
    "SslContext",
    "Transport",
]

SslContext = ssl_module.SSLContext
"""A TLS context of the caller's own, for ``Client(ssl=...)``."""

READ_BUFFER = 16 * 1024
"""Bytes aiohttp may hold for a stream whose consumer is slow: 124 KiB of memory a stalled stream
instead of 1,092 at aiohttp's default of 256 KiB (measured with aiohttp 3.14.5)."""
LARGE_BODY = 1024 * 1024
"""aiohttp warns about larger request bodies unless they are files."""


def closed_client() -> TransportError:
    """The error of using a client that was closed."""
    return TransportError("the client is closed; make a new one", kind="closed")


class Abortable(Protocol):
    """Whoever uses the connections and is told when they are closed."""

    def abort(self, error: TransportError) -> None:
        """Stop waiting and raise ``error`` instead."""
        ...


class Transport:
    """The connections of one client: a session for each running event loop.

    Args:
        base_url: where to send, without a trailing slash; ``/v2/chat`` is added.
        max_connections: at most so many at once, 0 for no limit; more wait in turn.
        session: the caller's own, used as it is and never closed here.
        proxy: proxy URL; ``False`` for none; ``None`` reads ``HTTP_PROXY``, ``HTTPS_PROXY``,
            ``ALL_PROXY`` and ``NO_PROXY``, unless there is a ``session``.
        ssl: a context, or ``True`` for the system's certificates.
        query: parameters of the URL.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        max_connections: int = 0,
        session: Session | None = None,
        proxy: str | Literal[False] | None = None,
        ssl: SslContext | bool = True,
        query: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(base_url)
        parameters = urlencode(query, quote_via=quote, safe="")
        self.url = f"{base_url}/v2/chat" + (f"?{parameters}" if parameters else "")
        self.host = parts.netloc
        self._address = parts.hostname or "", parts.port or 80
        self._secure = parts.scheme == "https"
        self._scheme_is_sure = self._secure
        self._max_connections = max_connections
        self._own_session = session
        self._proxy = Proxy.chosen(proxy, base_url, is_own_session=session is not None)
        self._ssl = ssl
        self._clock = clock
        self._keepers: dict[asyncio.AbstractEventLoop, Keeper] = {}
        self._inherited: list[object] = []
        self._process = os.getpid()
        self._last_headers: tuple[Mapping[str, str], CIMultiDict[str]] | None = None
        self._users: weakref.WeakSet[Abortable] = weakref.WeakSet()
        self.closed = False

    async def open(
        self,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_timeout: float | None,
        use: ConnectionUse,
    ) -> Exchange:
        """Send the request and return when status and headers are there.

        A stale pooled connection is replaced once at no cost: the server closed it while it was
        idle, so it never saw the request (RFC 9112 9.3.1). aiohttp does so for idempotent methods only.

        Args:
            headers: of the request.
            body: as it is sent.
            connect_timeout: seconds.
            use: is told how the request gets its connection.

        Raises:
            ConnectError, TransportError, StreamTimeoutError(phase="connect"), ProtocolError
        """
        try:
            return await self._post(use, headers, body, connect_timeout)
        except TransportError as error:
            if error.kind != "reset":
                raise
            failure = error
        finally:
            was_used, use.protocol, use.lost = use.used, None, None  # no cycle through it
        try:
            if not was_used:
                raise await self._explained(failure)
            session = self._ready_session()
            connector = None if session is None else session.connector
            if isinstance(connector, Connector):
                connector.distrust_idle()
            return await self._post(use, headers, body, connect_timeout)
        finally:
            use.protocol = use.lost = None
            del failure  # its traceback holds this frame: no cycle through it

    async def _explained(self, failure: TransportError) -> TransportError:
        """Why a new connection was closed unanswered, if that is to be known.

        Most TLS servers just close a plain one, as does a server that fails. The first must not be
        tried again while the second should be, and only asking tells them
        apart: on a connection of its own, without key and prompt. It is not done where plain http
        was ever answered, and once where it was not.
        """
        if self._scheme_is_sure or self._own_session is not None or self._proxy.url is not None:
            return failure
        self._scheme_is_sure = True
        if not await speaks_tls(*self._address):
            return failure
        self._scheme_is_sure = False
        return TransportError(
            f"{self.host} speaks TLS: base_url must be https",
            kind="tls",
            host=self.host,
            elapsed=failure.elapsed,
        )

    async def _post(
        self,
        use: ConnectionUse,
        headers: Mapping[str, str],
        body: bytes,
        connect_timeout: float | None,
    ) -> Exchange:
        session = self._ready_session()
        if session is None:
            session = await self._new_session()
        started = self._clock()
        failure: StreamChatError | None = None
        caught: Exception | None = None
        try:
            response = await session.post(
                self.url,
                data=io.BytesIO(body) if len(body) > LARGE_BODY else body,
                headers=self._named(headers),
                allow_redirects=False,
                read_bufsize=READ_BUFFER,
                auto_decompress=False,
                proxy=self._proxy.url,
                proxy_headers=self._proxy.headers,
                raise_for_status=False,
                ssl=self._ssl,
                timeout=RequestTimeout.of(connect_timeout, use),
            )
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            caught = error
        else:
            self._scheme_is_sure = True
            ambiguous = len(set(response.headers.getall(hdrs.CONTENT_LENGTH, ()))) > 1
            if (ambiguous or response.status == 101) and use.protocol is not None:
                # Where this answer ends is unclear, but the Python parser may have seen an end and
                # given the connection back: response.close() alone would leave it in the pool.
                use.protocol.abort()
            if not ambiguous:
                # What broke behind the headers before we got them: the response has let go of its
                # connection then, and could not say.
                malformed = is_malformed(use.protocol)
                facts = response, self.host, self._clock, started
                if hdrs.CONTENT_ENCODING in response.headers:
                    coding = codings(response.headers.getall(hdrs.CONTENT_ENCODING))
                    if coding:
                        return DecodedExchange(*facts, coding=coding, malformed=malformed)
                return Exchange(*facts, malformed=malformed)
            response.close()
            failure = not_http(self.host)
        try:
            if caught is not None:
                if (
                    self._secure
                    and not use.used
                    and isinstance(caught, aiohttp.ClientConnectionError)
                ):
                    reason = await reason_of_loss(use)
                    if reason is not None and is_alert(reason):
                        caught = reason
                    del reason
                failure = (
                    closed_client()
                    if self.closed
                    else failed_request(
                        caught,
                        host=self.host,
                        secure=self._secure,
                        connect_timeout=connect_timeout,
                        elapsed=self._clock() - started,
                    )
                )
            assert failure is not None
            raise failure
        finally:
            del failure, caught  # their tracebacks hold this frame: no cycle through it

    def _named(self, headers: Mapping[str, str]) -> CIMultiDict[str]:
        """Headers with names that aiohttp can keep as they are.

        Of plain ones it makes two objects a name and request: 1 KiB a waiting stream. Requests mostly
        share one mapping (see ``merged_headers``).
        """
        last = self._last_headers
        if last is None or last[0] is not headers:
            named = CIMultiDict(
                {
                    istr(name): Veiled(reveal(value)) if isinstance(value, Secret) else value
                    for name, value in headers.items()
                }
            )
            last = self._last_headers = headers, named
        return last[1]

    def attach(self, user: Abortable) -> None:
        """Remember who to tell when the client is closed; forgotten when it is dropped."""
        self._leave_parent()
        self._users.add(user)

    @property
    def max_connections(self) -> int:
        """How many streams can be open at once; 0 for no limit."""
        if self._own_session is not None and self._own_session.connector is not None:
            return self._own_session.connector.limit
        return self._max_connections

    async def aclose(self) -> None:
        """End running streams with an error each, and close this loop's session. Idempotent."""
        self._leave_parent()
        self.closed = True
        for user in list(self._users):
            user.abort(TransportError("the client was closed while the stream ran", kind="closed"))
        keeper = self._keepers.pop(asyncio.get_running_loop(), None)
        if keeper is not None:
            await keeper.aclose()

    def _leave_parent(self) -> None:
        """In a forked child: let go of the parent's sockets without touching them.

        Two processes on one connection get each other's answers, and closing it
        here, even by collecting it, would reach into the event loop that the parent still uses.
        """
        if self._process != os.getpid():
            self._process = os.getpid()
            self._inherited += [self._keepers, self._users]
            self._keepers, self._users = {}, weakref.WeakSet()

    @property
    def is_open(self) -> bool:
        """Whether a session of ours is open in a loop that still runs."""
        return any(not loop.is_closed() for loop in self._keepers)

    def _ready_session(self) -> Session | None:
        """The session of the running loop; ``None`` if there is none yet."""
        if self.closed:
            raise closed_client()
        if self._own_session is not None:
            return self._own_session
        self._leave_parent()
        keeper = self._keepers.get(asyncio.get_running_loop())
        return None if keeper is None else keeper.session

    async def _new_session(self) -> Session:
        """A session for the running loop."""
        for ended in [other for other in self._keepers if other.is_closed()]:
            del self._keepers[ended]
        keeper = Keeper(new_session(self._max_connections))
        self._keepers[asyncio.get_running_loop()] = keeper
        await keeper.start()
        return keeper.session
