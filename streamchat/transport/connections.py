"""Connections and whose they are: the pool, a session for each event loop, the proxy.

Each guard is here because of something measured (faults.md 1 and 5).
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs

__all__ = [
    "Connector",
    "Keeper",
    "LOOPBACK",
    "Session",
    "environment_proxy",
    "new_session",
    "took_used_connection",
]

Session = aiohttp.ClientSession
"""A session of the caller's own, for ``Client(session=...)``."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""This machine, by name and address."""
KEEPALIVE_SECONDS = 15.0
"""How long an idle connection is kept: short enough to lose few races against a server's close."""

took_used_connection: ContextVar[list[bool] | None] = ContextVar("streamchat_reused", default=None)
"""Where the connector notes, for the request of this task, whether it took a used connection."""


class Connector(aiohttp.TCPConnector):
    """A pool that hands out no connection with something unread on it, and tells used from new.

    A response that nobody asked for, sent on an idle connection, would otherwise be given to the
    next request: one user's answer to another (faults.md 1, 5).
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=KEEPALIVE_SECONDS)  # pyright: ignore[reportUnknownMemberType]  # aiohttp's own annotation is partial
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
            note = took_used_connection.get()
            if note is not None:
                note[0] = generation is not None
            self._used_in[protocol] = self._generation
            return connection

    def distrust_idle(self) -> None:
        """Use none of the connections that were used so far again: one of them was stale."""
        self._generation += 1


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


def environment_proxy(scheme: str, hostname: str) -> str | None:
    """The proxy that the environment names for this host; netrc is never read.

    Never for this machine itself, where no proxy could reach.
    """
    if hostname in LOOPBACK:
        return None
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return None if not proxy or proxy_bypass(hostname) else proxy
