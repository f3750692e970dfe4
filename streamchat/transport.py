"""ONE exchange over aiohttp: a POST goes out, status and headers come back, then chunks.

The only module that talks to aiohttp on the client's side. Everything aiohttp raises becomes ours in
``_translated``, on one line, and is not chained: its exceptions hold the bearer token and pieces
of the response (faults.md 5.12). What aiohttp 3.14 does not do by itself, and why each guard is
here, is told in faults.md 1 and 5.4.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl as ssl_module
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs

from streamchat.protocol.errors import (
    ConfigurationError,
    ConnectError,
    ProtocolError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
    TruncatedStreamError,
)

__all__ = ["Exchange", "Session", "SslContext", "Transport"]

Session = aiohttp.ClientSession
"""A session of the caller's own, for ``Client(session=...)``."""
SslContext = ssl_module.SSLContext
"""A TLS context of the caller's own, for ``Client(ssl=...)``."""

READ_BUFFER = 16 * 1024
"""Bytes aiohttp may hold for a stream whose consumer is slow: 124 KiB of memory a stalled stream
instead of 1,092 at aiohttp's default of 256 KiB (faults.md 5.5)."""
KEEPALIVE_SECONDS = 15.0
"""How long an idle connection is kept: short enough to lose few races against a server's close."""
DRAIN_SECONDS = 0.1
DRAIN_BYTES = 16 * 1024
"""What is spent after the answer to get the connection back (faults.md F64)."""
ERROR_BODY_SECONDS = 5.0
ERROR_BODY_BYTES = 64 * 1024
"""What is read of a body that is no event stream (faults.md F36)."""
LARGE_BODY = 1024 * 1024
"""aiohttp warns about larger request bodies unless they are files."""


class Exchange:
    """One request and its answer: status and headers are there, the body is still coming."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_content",
        "_failure",
        "_host",
        "_response",
        "_started",
        "bytes_received",
        "headers",
        "status",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        host: str,
        clock: Callable[[], float],
        started: float,
    ) -> None:
        self._response = response
        self._content = response.content
        self._host = host
        self._clock = clock
        self._started = started
        self._failure: TransportError | None = None
        self.status = response.status
        """The HTTP status."""
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items()
        }
        """The response's headers, names in lower case; of a repeated header the last."""
        self.bytes_received = 0
        """Bytes of the body that :meth:`read` has returned."""
        self._wake_when_lost()

    async def read(self) -> bytes:
        """The next bytes, as soon as there are any; ``b""`` at the end of the body.

        A clean end says nothing about the answer: only ``message-end`` does.

        Raises:
            TransportError: the connection failed, after everything that had arrived was returned.
        """
        chunk = b""
        if self._failure is None:
            try:
                chunk = await self._content.readany()
            except Exception as error:  # noqa: BLE001  # whatever it is, the body is over
                self._failure = self._translated(error)
                chunk = self._left_behind()
        if self._failure is not None and not chunk:
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
        """Close the connection and let the waiting :meth:`read` raise ``error``."""
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
        """Close the connection unless the body has ended, in which case the pool has it already."""
        self._response.close()

    def _wake_when_lost(self) -> None:
        """Wake the reader when the connection closes and aiohttp forgets to (faults.md 1, 2a)."""
        connection = self._response.connection
        protocol = connection.protocol if connection is not None else None
        # A healthy protocol is falsy, because it inherits the length of a queue.
        lost = protocol.closed if protocol is not None else None
        if lost is None:
            return
        content, host = self._content, self._host

        def wake(lost: asyncio.Future[None]) -> None:
            if not lost.cancelled():
                lost.exception()  # retrieved, so that asyncio does not report it
            if not content.is_eof() and content.exception() is None:
                content.set_exception(_truncated(host))

        lost.add_done_callback(wake)

    def _left_behind(self) -> bytes:
        """Bytes that arrived before the failure and that aiohttp would drop (faults.md 1, 3).

        The attribute is private: no public way leads to them. A test holds it to its meaning.
        """
        buffered = getattr(self._content, "_buffer", ())
        offset = getattr(self._content, "_buffer_offset", 0)
        left = b"".join(cast("tuple[bytes, ...]", buffered))[offset:]
        if buffered:
            buffered.clear()
        return left

    def _translated(self, error: Exception) -> TransportError:
        """Our error for what aiohttp raised while the body was read."""
        elapsed = self._clock() - self._started
        if isinstance(error, TransportError):  # set by abort() or by the guard above
            ours = error
        elif isinstance(error, aiohttp.ClientPayloadError):
            ours = _truncated(self._host)
        else:
            ours = TruncatedStreamError(
                f"the connection to {self._host} broke before the answer was complete "
                f"({type(error).__name__})",
                kind="reset" if isinstance(error, OSError) else "truncated",
                host=self._host,
                errno=getattr(error, "errno", None),
            )
        ours.elapsed = elapsed
        return ours


def _truncated(host: str) -> TruncatedStreamError:
    return TruncatedStreamError(
        f"the connection to {host} ended before the answer was complete",
        kind="truncated",
        host=host,
    )


# --- connections ---------------------------------------------------------------------------------

_reused: ContextVar[list[bool] | None] = ContextVar("streamchat_reused", default=None)
"""Where the connector notes, for the request of this task, whether it took a used connection."""


class _Connector(aiohttp.TCPConnector):
    """A pool that hands out no connection with something unread on it, and tells used from new.

    A response that nobody asked for, sent on an idle connection, would otherwise be given to the
    next request: one user's answer to another (faults.md 1, 5).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._generation = 0
        self._used_in: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        """A connection that is clean, as far as can be known."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                return connection
            generation = self._used_in.get(protocol)
            if protocol.should_close or (generation is not None and generation < self._generation):
                connection.close()
                continue
            note = _reused.get()
            if note is not None:
                note[0] = generation is not None
            self._used_in[protocol] = self._generation
            return connection

    def distrust_idle(self) -> None:
        """Use none of the connections that were used so far again: one of them was stale."""
        self._generation += 1


class _Keeper:
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


class Transport:
    """The connections of one client: a session for each running event loop.

    Args:
        base_url: where to send, without a trailing slash; ``/v2/chat`` is added.
        max_connections: at most so many at once, 0 for no limit; more wait in turn.
        session: the caller's own, used as it is and never closed here.
        proxy: proxy URL; ``None`` reads ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``.
        ssl: a context, or ``True`` for the system's certificates.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        max_connections: int = 0,
        session: Session | None = None,
        proxy: str | None = None,
        ssl: SslContext | bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(base_url)
        self.url = f"{base_url}/v2/chat"
        self.host = parts.netloc
        self._secure = parts.scheme == "https"
        self._max_connections = max_connections
        self._own_session = session
        self._proxy = proxy or _environment_proxy(parts.scheme, parts.hostname or "")
        self._ssl = ssl
        self._clock = clock
        self._keepers: dict[asyncio.AbstractEventLoop, _Keeper] = {}
        self._inherited: list[object] = []
        self._process = os.getpid()
        self._exchanges: weakref.WeakSet[Exchange] = weakref.WeakSet()
        self.closed = False

    async def open(
        self, headers: Mapping[str, str], body: bytes, *, connect_timeout: float | None
    ) -> Exchange:
        """Send the request and return when status and headers are there.

        A stale pooled connection is replaced once at no cost: the server closed it while it was
        idle, so it never saw the request (faults.md F17).

        Raises:
            ConnectError, TransportError, StreamTimeoutError(phase="connect"), ProtocolError
        """
        note = [False]
        token = _reused.set(note)
        try:
            return await self._post(headers, body, connect_timeout)
        except TransportError as error:
            if not (note[0] and error.kind == "reset"):
                raise
        finally:
            _reused.reset(token)
        connector = (await self._session()).connector
        if isinstance(connector, _Connector):
            connector.distrust_idle()
        return await self._post(headers, body, connect_timeout)

    async def _post(
        self, headers: Mapping[str, str], body: bytes, connect_timeout: float | None
    ) -> Exchange:
        session, started = await self._session(), self._clock()
        failure: StreamChatError
        try:
            response = await session.post(
                self.url,
                data=io.BytesIO(body) if len(body) > LARGE_BODY else body,
                headers=headers,
                allow_redirects=False,
                read_bufsize=READ_BUFFER,
                proxy=self._proxy,
                ssl=self._ssl,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
            )
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            failure = self._translated(error, connect_timeout, self._clock() - started)
        else:
            exchange = Exchange(response, self.host, self._clock, started)
            self._exchanges.add(exchange)
            return exchange
        raise failure

    async def aclose(self) -> None:
        """End running streams with an error each, and close this loop's session. Idempotent."""
        self.closed = True
        for exchange in list(self._exchanges):
            exchange.abort(
                TransportError("the client was closed while the stream ran", kind="closed")
            )
        keeper = self._keepers.pop(asyncio.get_running_loop(), None)
        if keeper is not None:
            await keeper.aclose()

    @property
    def is_open(self) -> bool:
        """Whether a session of ours is open in a loop that still runs."""
        return any(not loop.is_closed() for loop in self._keepers)

    async def _session(self) -> Session:
        """The session of the running loop, made on first use."""
        if self.closed:
            raise TransportError("the client is closed; make a new one", kind="closed")
        if self._own_session is not None:
            return self._own_session
        if self._process != os.getpid():
            # A forked child must not touch the parent's sockets: two processes on one connection
            # get each other's answers (faults.md 1, 14). Kept, because closing them here, even by
            # collecting them, would reach into what the parent uses.
            self._process = os.getpid()
            self._inherited.append(self._keepers)
            self._keepers = {}
        loop = asyncio.get_running_loop()
        keeper = self._keepers.get(loop)
        if keeper is None:
            for ended in [other for other in self._keepers if other.is_closed()]:
                del self._keepers[ended]
            keeper = self._keepers[loop] = _Keeper(self._new_session())
            await keeper.start()
        return keeper.session

    def _new_session(self) -> Session:
        return aiohttp.ClientSession(
            connector=_Connector(limit=self._max_connections, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,  # it would read netrc too, which breaks our own Authorization
            skip_auto_headers=(hdrs.USER_AGENT,),
        )

    def _translated(
        self, error: Exception, connect_timeout: float | None, elapsed: float
    ) -> StreamChatError:
        """Our error for what aiohttp raised before there was a response."""
        host = self.host
        facts: dict[str, Any] = {"host": host, "elapsed": elapsed}
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
                return ConnectError(f"TLS with {host} failed", kind="tls", **facts)
            case aiohttp.ClientHttpProxyError():
                return ConnectError(
                    f"the proxy answered {error.status} for {host}", kind="proxy", **facts
                )
            case aiohttp.ClientProxyConnectionError():
                return ConnectError(
                    f"cannot connect to the proxy for {host}", kind="proxy", **facts
                )
            case aiohttp.ClientConnectorError():
                return self._connector_error(error, facts)
            case aiohttp.InvalidURL():
                return ConfigurationError("base_url is not a valid URL")
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                hint = "" if self._secure else "; if it speaks TLS, base_url must be https"
                return TransportError(
                    f"{host} closed the connection before it answered{hint}", kind="reset", **facts
                )
            case aiohttp.ClientResponseError():
                return ProtocolError(f"the answer of {host} is not valid HTTP")
            case RuntimeError():
                return TransportError(
                    f"the connection to {host} was closed", kind="closed", **facts
                )
            case _:
                return TransportError(
                    f"the request to {host} failed ({type(error).__name__})", **facts
                )

    def _connector_error(
        self, error: aiohttp.ClientConnectorError, facts: Mapping[str, Any]
    ) -> ConnectError:
        host, reason = self.host, os.strerror(error.errno) if error.errno else "no route"
        if error.errno in _OUT_OF_DESCRIPTORS:
            limit = _descriptor_limit()
            return ConnectError(
                f"out of file descriptors ({limit}); raise `ulimit -n` or lower the concurrency",
                kind="resources",
                **facts,
            )
        if self._secure and error.errno in _CUT_OFF:
            return ConnectError(f"{host} refused TLS ({reason})", kind="tls", **facts)
        return ConnectError(f"cannot connect to {host}: {reason}", kind="refused", **facts)


_OUT_OF_DESCRIPTORS = frozenset({23, 24})  # ENFILE, EMFILE
_CUT_OFF = frozenset({54, 104})  # ECONNRESET of BSD and Linux: old TLS versions look like this


def _descriptor_limit() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return "the process's limit is reached"
    return f"the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"


def _environment_proxy(scheme: str, hostname: str) -> str | None:
    """The proxy that the environment names for this host; netrc is never read."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return None if not proxy or proxy_bypass(hostname) else proxy
