"""``LocalServer``: Chat v2 over HTTP on loopback; imports ``streamchat.protocol`` and aiohttp.

It writes what recordings of ``api.cohere.com`` hold: header names in their case and their values,
framing, order (protocol.md 1.3, 1.4). What is said comes from :mod:`streamchat.local.model`, what
is refused from :mod:`streamchat.local.checks`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from aiohttp import web

from streamchat.local.checks import RefusalError, check, read_body
from streamchat.local.model import answer
from streamchat.local.shapes import characters
from streamchat.local.unary import fold
from streamchat.protocol.codec import DONE, encode_event
from streamchat.protocol.events import ContentDelta, Event, ToolCallDelta, ToolPlanDelta
from streamchat.protocol.plain import encode_json
from streamchat.protocol.sse import encode_frame

__all__ = ["LocalServer", "paced"]

MAX_BODY = 32 * 1024 * 1024
"""Bytes of one request body: Cohere takes 20 MB of images, and base64 adds a third."""
BATCH = 16 * 1024
"""Bytes that go into one write when no pace is set."""

_DELTAS = (ContentDelta, ToolPlanDelta, ToolCallDelta)

Answer = Callable[[Mapping[str, Any]], Iterable[Event]]
"""A request body to the events of its answer."""


class LocalServer:
    """A Chat v2 endpoint on this machine, for trying things and for tests.

    ::

        async with LocalServer() as server:
            client = Client("any-key", base_url=server.url)

    Args:
        host: where to listen: ``127.0.0.1`` (default), another loopback address, or ``localhost``.
        port: 0 (default) takes a free one.
        tokens_per_second: the pace: one delta each 1/tokens_per_second seconds, each event in an
            HTTP chunk of its own; ``None`` (default) is as fast as the client reads. Unary answers
            are not paced.
        api_key: what ``Authorization: Bearer ...`` must hold; ``None`` (default) takes any key and
            none, as a private deployment does.
        answer: what answers; the built-in demo model by default. It gets the checked body and
            returns the events from ``message-start`` to ``message-end``; they are sent as they are
            taken from it.

    Raises:
        ValueError: a host that is not loopback, or a pace that is not positive.

    One server belongs to the event loop that started it; several may run at once.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens_per_second: float | None = None,
        api_key: str | None = None,
        answer: Answer = answer,
    ) -> None:
        if not _is_loopback(host):
            raise ValueError(
                f"host must be a loopback address such as 127.0.0.1, not {host!r}: this server is "
                "for this machine alone and asks nobody who they are"
            )
        if tokens_per_second is not None and not tokens_per_second > 0:
            raise ValueError(f"tokens_per_second must be above 0, not {tokens_per_second}")
        # "localhost" may be two addresses, and port 0 would then be two ports.
        self._host = "127.0.0.1" if host == "localhost" else host.strip("[]")
        self._port = port
        self._pace = tokens_per_second
        self._api_key = api_key
        self._answer = answer
        self._runner: web.AppRunner | None = None
        self._handlers: set[asyncio.Task[Any]] = set()
        self._url = ""

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``.

        Raises:
            RuntimeError: not started.
        """
        if not self._url:
            raise RuntimeError(
                "LocalServer has no url before start(); use `async with LocalServer()`"
            )
        return self._url

    async def start(self) -> None:
        """Listen.

        Raises:
            RuntimeError: it is listening already.
            OSError: the port is taken.
        """
        if self._runner is not None:
            raise RuntimeError("LocalServer is running already")
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A client that leaves cancels its handler, so that generation ends at once.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        self._runner = runner
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:  # a cancellation or an exit too; raised again
            await self.aclose()
            raise
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._url = f"http://{host}:{runner.addresses[0][1]}"

    async def aclose(self) -> None:
        """Stop, cutting off answers that are still streaming. Closing twice is nothing."""
        runner, self._runner, self._url = self._runner, None, ""
        if runner is None:
            return
        try:
            for site in list(runner.sites):
                await site.stop()
            for connection in runner.server.connections if runner.server is not None else ():
                # Not close(): that waits until a client that does not read has read everything.
                if connection.transport is not None:
                    connection.transport.abort()
            for handler in self._handlers:
                handler.cancel()
            if self._handlers:
                await asyncio.wait(self._handlers)
        finally:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- one exchange ----------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        try:
            body = await self._admit(request)
        except RefusalError as refusal:
            return _refuse(refusal)
        events = self._answer(body)
        if body.get("stream") is True:
            return await self._stream(request, events)
        return _unary(fold(events), characters(body["messages"]))

    async def _admit(self, request: web.Request) -> dict[str, Any]:
        """The checked body, or a refusal."""
        _check_origin(request)
        if request.path != "/v2/chat":
            raise RefusalError(404, "404 page not found")
        if request.method != "POST":
            raise RefusalError(405, "405 method not allowed")
        self._check_key(request.headers.get("Authorization", ""))
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise RefusalError(413, f"request body is larger than {MAX_BODY} bytes") from None
        return check(read_body(body))

    def _check_key(self, authorization: str) -> None:
        if self._api_key is None:
            return
        scheme, _, key = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise RefusalError(401, "no api key supplied")
        given = key.strip().encode("utf-8", "surrogateescape")  # as aiohttp decoded it
        if not hmac.compare_digest(given, self._api_key.encode()):
            raise RefusalError(401, "invalid api token")

    async def _stream(self, request: web.Request, events: Iterable[Event]) -> web.StreamResponse:
        response = web.StreamResponse(headers=_headers("text/event-stream"))
        try:
            await response.prepare(request)
            if self._pace is None:
                await _write_batches(response, events)
            else:
                loop = asyncio.get_running_loop()
                async for event in paced(events, self._pace, clock=loop.time, sleep=asyncio.sleep):
                    await response.write(encode_frame(encode_event(event)))
                await response.write(encode_frame(DONE))
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client left: nobody is there to be told
        return response


async def _write_batches(response: web.StreamResponse, events: Iterable[Event]) -> None:
    """Write about 16 KiB at a time; other tasks get their turn between two writes."""
    batch = bytearray()
    for event in events:
        batch += encode_frame(encode_event(event))
        if len(batch) >= BATCH:
            await response.write(bytes(batch))
            await asyncio.sleep(0)
            batch.clear()
    await response.write(bytes(batch + encode_frame(DONE)))


async def paced(
    events: Iterable[Event],
    per_second: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> AsyncIterator[Event]:
    """The events, a delta each ``1 / per_second`` seconds; all other events are free.

    Being late for one delta does not hurry the next, unless it is by less than one interval.
    """
    interval = 1 / per_second
    due = clock()
    for event in events:
        if isinstance(event, _DELTAS):
            now = clock()
            due = max(due + interval, now)
            if due > now:
                await sleep(due - now)
        yield event


# --- answers -------------------------------------------------------------------------------------


def _headers(content_type: str) -> dict[str, str]:
    """The recorded headers, in their recorded case (recordings, section 3)."""
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


def _unary(body: dict[str, Any], characters: int) -> web.Response:
    tokens = body["usage"].get("tokens", {})
    counts = {
        "num_chars": str(characters),
        "num_tokens": str(tokens.get("input_tokens", 0) + tokens.get("output_tokens", 0)),
    }
    return web.Response(body=encode_json(body), headers=_headers("application/json") | counts)


def _refuse(refusal: RefusalError) -> web.Response:
    body = {"id": str(uuid.uuid4()), "message": refusal.message}
    return web.Response(
        status=refusal.status, body=encode_json(body), headers=_headers("application/json")
    )


# --- who may talk to it --------------------------------------------------------------------------


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_origin(request: web.Request) -> None:
    """Refuse what web pages send: DNS rebinding shows in ``Host``, other sites in ``Origin``."""
    origin = request.headers.get("Origin")
    addresses = [f"//{request.headers.get('Host', '')}", *([origin] if origin else [])]
    for address in addresses:
        try:
            host = urlsplit(address).hostname
        except ValueError:
            host = None
        if not host or not _is_loopback(host):
            raise RefusalError(403, "this server answers only to loopback addresses")
