"""``LocalServer``: Chat v2 over HTTP on loopback; imports ``streamchat.protocol`` and aiohttp.

It writes what recordings of ``api.cohere.com`` hold: header names in their case and their values,
framing, order. What is said comes from :mod:`streamchat.local.model`, what
is refused from :mod:`streamchat.local.checks`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import attrs
from aiohttp import web

from streamchat.local.checks import RefusalError, check, read_body
from streamchat.local.model import answer
from streamchat.local.shapes import characters
from streamchat.local.unary import fold
from streamchat.local.wire import (
    Connection,
    HttpServer,
    Receiver,
    headers,
    inflate,
    refusal_response,
)
from streamchat.protocol.codec import DONE, encode_event
from streamchat.protocol.events import ContentDelta, Event, ToolCallDelta, ToolPlanDelta
from streamchat.protocol.models import DEFAULT_MODEL
from streamchat.protocol.plain import encode_json
from streamchat.protocol.sse import encode_frame

__all__ = ["LocalServer", "paced"]

BATCH = 16 * 1024
"""Bytes that go into one write when no pace is set."""
HEAVY = 16 * 1024
"""Bytes of a body above which the request is worked on in a thread."""

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
        self._runner: web.ServerRunner | None = None
        self._receiver = Receiver()
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
        # A client that leaves cancels its handler, so that generation ends at once.
        server = HttpServer(self._handle, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0)
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

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.receiving_body()
        try:
            response = await self._respond(request, connection)
        except RefusalError as refusal:
            connection.answering()
            response = refusal_response(refusal)
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client left: nobody is there to be told
        if request.content.is_eof():  # else the next bytes are the rest of a refused body
            connection.answered()
        return response

    async def _respond(
        self, request: web.BaseRequest, connection: Connection
    ) -> web.StreamResponse:
        """The response, already streamed or still to be sent; raises RefusalError."""
        _check_origin(request)
        _check_route(request)
        self._check_key(request.headers.get("Authorization", ""))
        if request.path == MODELS_PATH:
            return web.Response(body=encode_json(MODELS), headers=headers("application/json"))
        received = await self._receiver.receive(request)
        connection.answering()
        encoding = request.headers.get("Content-Encoding", "")
        run: Run = asyncio.to_thread if encoding or is_heavy(received) else _at_once
        try:
            body = await run(_read, received, encoding)
        finally:
            self._receiver.release(received)
        if self._answer is not answer:
            run = _at_once  # a caller's own answer= runs on the event loop
        events = await run(self._answer, body)
        if body.get("stream") is True:
            return await self._stream(request, events, run, _framing_for(request))
        return await run(_unary, events, body)

    def _check_key(self, authorization: str) -> None:
        if self._api_key is None:
            return
        scheme, _, key = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise RefusalError(401, "no api key supplied")
        given = key.strip().encode("utf-8", "surrogateescape")  # as aiohttp decoded it
        if not hmac.compare_digest(given, self._api_key.encode()):
            raise RefusalError(401, "invalid api token")

    async def _stream(
        self, request: web.BaseRequest, events: Iterable[Event], run: Run, framing: Framing
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers(framing.content_type))
        try:
            await response.prepare(request)
            if self._pace is None:
                await _write_batches(response, events, run, framing)
            else:
                loop = asyncio.get_running_loop()
                async for event in paced(events, self._pace, clock=loop.time, sleep=asyncio.sleep):
                    await response.write(await run(framing.encode, event))
                if framing.end:
                    await response.write(framing.end)
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client left: nobody is there to be told
        return response


# --- framing -------------------------------------------------------------------------------------


@attrs.frozen
class Framing:
    """How the events of a stream are written."""

    content_type: str
    encode: Callable[[Event], bytes]
    end: bytes
    """The terminator after the last event."""


def _as_frame(event: Event) -> bytes:
    return encode_frame(encode_event(event))


def _as_line(event: Event) -> bytes:
    return encode_event(event).data + b"\n"


SERVER_SENT_EVENTS = Framing("text/event-stream", _as_frame, encode_frame(DONE))
JSON_LINES = Framing("application/stream+json", _as_line, b"")
_JSON_TYPES = ("application/json", "application/stream+json")


def _framing_for(request: web.BaseRequest) -> Framing:
    """JSON lines for an ``Accept`` that names JSON and neither any type nor an event stream."""
    ranges = ",".join(request.headers.getall("Accept", ())).lower().split(",")
    types = {media_range.partition(";")[0].strip() for media_range in ranges}
    if types.isdisjoint(_JSON_TYPES) or not types.isdisjoint(
        ("*/*", "text/*", "text/event-stream")
    ):
        return SERVER_SENT_EVENTS
    return JSON_LINES


# --- work that could hold the event loop ---------------------------------------------------------

P = ParamSpec("P")
T = TypeVar("T")


class Run(Protocol):
    """Calls a function: at once on the event loop, or in a thread."""

    async def __call__(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


async def _at_once(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return func(*args, **kwargs)


def is_heavy(body: bytes | bytearray) -> bool:
    """Whether a request may take more than a few milliseconds and is worked on in a thread.

    That is a long body, or one that may hold a JSON Schema: few bytes of it can ask for much.
    """
    return (
        len(body) > HEAVY
        or b'"tools"' in body
        or b'"response_format"' in body
        or b"\\" in body  # JSON within a text has escaped quotation marks
    )


def _read(received: bytearray, encoding: str) -> dict[str, Any]:
    return check(read_body(inflate(received, encoding)))


def _next_batch(events: Iterator[Event], framing: Framing) -> tuple[bytes, bool]:
    """About 16 KiB of events, and whether there are more."""
    batch = bytearray()
    for event in events:
        batch += framing.encode(event)
        if len(batch) >= BATCH:
            return bytes(batch), True
    return bytes(batch), False


async def _write_batches(
    response: web.StreamResponse, events: Iterable[Event], run: Run, framing: Framing
) -> None:
    """Write about 16 KiB at a time; other tasks get their turn between two writes."""
    iterator = iter(events)
    more = True
    while more:
        batch, more = await run(_next_batch, iterator, framing)
        await response.write(batch if more else batch + framing.end)
        await asyncio.sleep(0)


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


def _unary(events: Iterable[Event], request: Mapping[str, Any]) -> web.Response:
    body = fold(events)
    tokens = body["usage"].get("tokens", {})
    counts = {
        "num_chars": str(characters(request["messages"])),
        "num_tokens": str(tokens.get("input_tokens", 0) + tokens.get("output_tokens", 0)),
    }
    return web.Response(body=encode_json(body), headers=headers("application/json") | counts)


# --- routes --------------------------------------------------------------------------------------

MODELS_PATH = "/v1/models"
_NAMES = (
    DEFAULT_MODEL,
    "command-a-03-2025",
    "command-a-reasoning-08-2025",
    "command-a-vision-07-2025",
    "command-r7b-12-2024",
)
MODELS: dict[str, Any] = {
    "models": [
        {
            "name": name,
            "endpoints": ["chat"],
            "finetuned": False,
            "context_length": 256_000,
            "default_endpoints": ["chat"] if place == 0 else [],
        }
        for place, name in enumerate(_NAMES)
    ]
}
"""Names that clients know. The demo model answers to every name, these among them."""
_METHODS = {"/v2/chat": "POST", MODELS_PATH: "GET"}


def _check_route(request: web.BaseRequest) -> None:
    method = _METHODS.get(request.path)
    if request.path == "/v1/chat":
        raise RefusalError(
            404, "404 page not found: Chat v1 is not supported here, use POST /v2/chat"
        )
    if method is None:
        raise RefusalError(404, "404 page not found")
    if request.method != method:
        raise RefusalError(405, "405 method not allowed")


# --- who may talk to it --------------------------------------------------------------------------


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_origin(request: web.BaseRequest) -> None:
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
