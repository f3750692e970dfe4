"""One answer's lifetime: ``ChatStream``, the only pump of the library.

The flow, one way::

    exchange.read() -> reader.split() -> reader.read() -> handlers, in order -> your ``async for``

``__anext__`` is the hot path and holds the whole loop: another coroutine in between costs 0.2 us an
event. Everything that happens once a chunk is in ``_more``, once a stream in ``_begin`` and
``_finish``; every failure leaves through ``_fail``, which closes the connection first.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
import weakref
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from operator import length_hint
from types import TracebackType
from typing import Any, Literal

from streamchat.dispatcher import (
    Call,
    Context,
    Dispatcher,
    Listeners,
    Registration,
    Routes,
    compile_routes,
)
from streamchat.plan import Plan
from streamchat.policy import retry_delay
from streamchat.protocol.errors import (
    StreamChatError,
    TransportError,
    TruncatedStreamError,
)
from streamchat.protocol.events import Event
from streamchat.protocol.reader import EventReader
from streamchat.protocol.request import ChatRequest
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import Frame
from streamchat.refusal import expirer, failed_generation, refusal, timed_out, two_consumers
from streamchat.timing import Timing
from streamchat.transport import Exchange
from streamchat.views import Frames, Pieces
from streamchat.watchdog import Watchdog

__all__ = ["ChatStream"]

YIELD_EVERY = 256
"""Events after which the loop gets a turn although more are there, so that one fast answer does not
hold up the others; 0.01 us an event (design.md 6)."""


_NO_BLOCKS: Iterator[bytes] = iter(())
"""Shared by all waiting streams: at thousands of them the collector's work counts."""

_State = Literal["new", "open", "complete", "failed", "closed"]


class ChatStream(Listeners):
    """One answer while it comes. Made by :meth:`streamchat.Client.chat_stream`.

    Three ways to consume it, and nothing is sent before one of them begins::

        async for event in stream: ...  # every event
        response = await stream  # run to the end, handlers included
        async with stream: ...  # open it, look at it, and close it on leaving

    One consumer at a time. Handlers are those of the client, of ``handlers=`` and of this stream's
    own decorators, in this order, as registered when the first event is handed out.

    Raises (while it is consumed): :class:`~streamchat.StreamChatError` of every kind, with
    ``partial`` set after the first event, and whatever a handler raises, unwrapped.
    """

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_attempts",
        "_blocks",
        "_blocks_received",
        "_busy",
        "_context",
        "_dispatcher",
        "_error",
        "_exchange",
        "_finished_at",
        "_first_byte_at",
        "_first_event_at",
        "_first_text_at",
        "_longest_gap",
        "_pending",
        "_plan",
        "_read",
        "_reader",
        "_routes",
        "_state",
        "_unyielded",
        "_watchdog",
    )

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._dispatcher = Dispatcher()
        self._state: _State = "new"
        self._attempts = 0
        self._exchange: Exchange | None = None
        self._watchdog: Watchdog | None = None
        self._error: BaseException | None = None
        self._busy = False
        self._reader = EventReader(plan.max_event_bytes)
        self._read = self._reader.read
        self._blocks = _NO_BLOCKS
        self._pending: list[bytes] = []
        self._blocks_received = 0
        self._unyielded = 0
        self._routes: Mapping[type, tuple[Call, ...]] = {}
        self._context: Context | None = None
        self._arrived: float | None = None
        self._first_byte_at: float | None = None
        self._first_event_at: float | None = None
        self._first_text_at: float | None = None
        self._finished_at: float | None = None
        self._longest_gap: float | None = None

    # --- what it is ------------------------------------------------------------------------------

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far; valid at any moment, independent of what comes later."""
        return self._reader.snapshot

    @property
    def request(self) -> ChatRequest:
        """The request that is answered."""
        return self._plan.request

    @property
    def status(self) -> int | None:
        """The HTTP status; ``None`` before the headers."""
        return self._exchange.status if self._exchange is not None else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, names in lower case; empty before they are there."""
        return self._exchange.headers if self._exchange is not None else {}

    @property
    def request_id(self) -> str | None:
        """``x-debug-trace-id``: the id to quote when you ask Cohere."""
        return self.headers.get("x-debug-trace-id")

    @property
    def attempts(self) -> int:
        """How many times the request was sent in all; 0 before the first."""
        return self._attempts

    @property
    def timing(self) -> Timing:
        """Seconds from the request, as far as they are known."""
        self._note_first_text()
        watchdog = self._watchdog
        start = watchdog.started if watchdog is not None else 0.0

        def since(moment: float | None) -> float | None:
            return None if moment is None else moment - start

        return Timing(
            since(self._first_byte_at),
            since(self._first_event_at),
            since(self._first_text_at),
            self._longest_gap,
            since(self._finished_at),
        )

    def __repr__(self) -> str:
        model, request_id = self._plan.request.model, self.request_id
        shown = f" request_id={request_id!r}" if request_id else ""
        return f"<ChatStream model={model!r} {self._state}{shown}>"

    # --- three ways to consume -------------------------------------------------------------------

    def __aiter__(self) -> ChatStream:
        return self

    async def __anext__(self) -> Event:
        if self._busy:
            raise two_consumers()
        try:
            while True:
                for block in self._blocks:
                    event = self._read(block)
                    if event is None:
                        continue
                    calls = self._routes.get(type(event))
                    if calls is not None:
                        self._busy = True
                        for call, is_async, registration in calls:
                            try:
                                if is_async:
                                    await call(event)
                                else:
                                    result = call(event)
                                    if result is not None and inspect.isawaitable(result):
                                        await result
                            except Exception as error:
                                if not await self._recovered(error, registration, event):
                                    raise
                        self._busy = False
                    return event
                if not await self._more():
                    break
        except BaseException as error:
            await self._fail(error)
            raise
        raise StopAsyncIteration

    def __await__(self) -> Generator[Any, None, ChatResponse]:
        return self._run().__await__()

    async def _run(self) -> ChatResponse:
        """Run to the end and return the answer; again after the end, say how it ended."""
        async for _ in self:
            pass
        if self._error is not None:
            raise self._error
        if self._reader.end is None:
            raise TransportError(
                "the stream was closed before the answer was complete", kind="closed"
            )
        return self._reader.end.response

    async def __aenter__(self) -> ChatStream:
        """Send the request and wait for its first event."""
        if self._busy:
            raise two_consumers()
        if self._state == "new":
            self._busy = True
            try:
                await self._begin()
            except BaseException as error:
                await self._fail(error)
                raise
            self._busy = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the stream; an unfinished one closes its connection at once. Idempotent."""
        if self._state == "open" and self._reader.end is not None:
            await self._finish()
        elif self._state in ("new", "open"):
            self._end("closed")

    def text(self) -> AsyncIterator[str]:
        """The answer's text, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "text")

    def thinking(self) -> AsyncIterator[str]:
        """What the model thinks, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "thinking")

    def frames(self) -> AsyncIterator[Frame]:
        """Raw frames instead of events, ``[DONE]`` included: no handlers, no snapshot.

        A body that ends before a ``message-end`` frame is an error here too.
        """
        return Frames(self._next_frame)

    async def _next_frame(self) -> Frame:
        if self._busy:
            raise two_consumers()
        try:
            while True:
                for block in self._blocks:
                    frame = self._reader.read_frame(block)
                    if frame is not None:
                        return frame
                if not await self._more():
                    break
        except BaseException as error:
            await self._fail(error)
            raise
        raise StopAsyncIteration

    # --- the pump --------------------------------------------------------------------------------

    async def _more(self) -> bool:
        """Get the next blocks into ``_blocks``; ``False`` when the stream has ended."""
        self._busy = True
        try:
            if self._state == "new":
                await self._begin()
            if self._state != "open":
                return False
            if self._pending:
                self._freeze_handlers()
                blocks, self._pending = self._pending, []
            else:
                if await self._ended():
                    return False
                blocks = await self._receive()
            self._blocks_received += len(blocks)
            self._unyielded += len(blocks)
            if self._unyielded >= YIELD_EVERY:
                self._unyielded = 0
                await asyncio.sleep(0)
            self._blocks = iter(blocks)
            return True
        finally:
            self._busy = False

    async def _ended(self) -> bool:
        """Whether the answer is complete, now that all blocks at hand were read; then wind up.

        Raises:
            GenerationError: the answer failed; its ``message-end`` was handed out before.
            TruncatedStreamError: ``[DONE]`` without ``message-end``.
            FrameTooLargeError: an event passed the limit; those before it were handed out.
        """
        reader = self._reader
        if reader.end is not None:
            await self._finish()
            failure = failed_generation(reader.end)
            if failure is not None:
                raise failure
            return True
        if reader.terminated:
            raise self._truncated("the stream said [DONE] before the answer was complete")
        if reader.too_large is not None:
            raise reader.too_large
        return False

    def _truncated(self, text: str) -> TruncatedStreamError:
        return TruncatedStreamError(text, kind="truncated", host=self._plan.transport.host)

    async def _receive(self) -> list[bytes]:
        """Wait for bytes that complete at least one event, and return the blocks."""
        exchange, reader, watchdog = self._exchange, self._reader, self._watchdog
        assert exchange is not None and watchdog is not None
        clock = self._plan.clock
        self._note_first_text()
        if watchdog.first_event_due is None:
            watchdog.waiting_since = clock()
        while True:
            chunk = await exchange.read()
            if not chunk:
                raise self._truncated("the body ended before the answer was complete")
            blocks = reader.split(chunk)
            if reader.holds_event(blocks):
                break
            if reader.too_large is not None:
                raise reader.too_large
        now = clock()
        watchdog.waiting_since = None
        if self._arrived is not None:
            self._longest_gap = max(self._longest_gap or 0.0, now - self._arrived)
        self._arrived = now
        return blocks

    def _note_first_text(self) -> None:
        """Text that was read since the last arrival came with that arrival."""
        if self._first_text_at is None and self._reader.has_text:
            self._first_text_at = self._arrived

    def _freeze_handlers(self) -> None:
        """From here on, what is registered is what this stream uses."""
        self._routes = self._compiled().events

    def _compiled(self) -> Routes:
        plan = self._plan
        self._context = self._context or Context(
            weakref.ref(self), plan.request, plan.data, plan.index
        )
        dispatchers = (*plan.dispatchers, self._dispatcher)
        return compile_routes(
            [entry for dispatcher in dispatchers for entry in dispatcher.registrations()],
            [entry for dispatcher in dispatchers for entry in dispatcher.error_registrations()],
            self._context,
        )

    # --- the beginning: attempts -----------------------------------------------------------------

    async def _begin(self) -> None:
        """Send the request, again if need be, until the first event is there."""
        plan = self._plan
        self._state = "open"
        self._watchdog = Watchdog(plan.timeout, clock=plan.clock, loop=asyncio.get_running_loop())
        while True:
            self._attempts += 1
            failure = await self._attempt(self._watchdog)
            if failure is None:
                plan.budget.refund()
                return
            delay = retry_delay(
                plan.retry,
                failure,
                attempt=self._attempts,
                budget=plan.budget,
                random=plan.random(),
            )
            if delay is None or not self._watchdog.allows(delay):
                raise failure
            await asyncio.sleep(delay)

    async def _attempt(self, watchdog: Watchdog) -> StreamChatError | None:
        """One try, up to its first event; returns why it failed, if it did."""
        plan = self._plan
        self._reader = EventReader(plan.max_event_bytes)
        self._read = self._reader.read
        watchdog.begin_attempt()
        exchange, failure = await self._open(watchdog)
        if exchange is None:
            return failure
        self._exchange = exchange
        self._first_byte_at = plan.clock()
        failure = await refusal(exchange, plan.transport.host, now=plan.wall_clock)
        if failure is None:
            watchdog.watch(expirer(exchange, plan.transport.host))
            try:
                self._pending = await self._receive()
            except StreamChatError as error:
                failure = error
            else:
                self._first_event_at = self._arrived
                watchdog.begin_events()
                return None
        watchdog.stop()
        exchange.close()
        return failure

    async def _open(
        self, watchdog: Watchdog
    ) -> tuple[Exchange, None] | tuple[None, StreamChatError]:
        """Status and headers, or why there are none."""
        plan, due = self._plan, watchdog.due()
        seconds = None if due is None else max(0.0, due[0] - plan.clock())
        failure: StreamChatError | None = None
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                exchange = await plan.transport.open(
                    plan.headers, plan.body, connect_timeout=plan.timeout.connect
                )
                return exchange, None
        except StreamChatError as error:
            failure = error
        except TimeoutError:
            if due is None or not scope.expired():
                raise  # somebody else's
        return None, failure or timed_out(plan.transport.host, *due[1:])  # type: ignore[index]

    # --- the end ---------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """The answer is complete: give the connection back."""
        exchange = self._exchange
        assert exchange is not None
        self._stop_watching()
        self._state = "complete"
        self._finished_at = self._arrived
        await exchange.drain()

    def _end(self, state: _State) -> None:
        """Close the connection now, whatever it is doing."""
        self._stop_watching()
        if self._exchange is not None:
            self._exchange.close()
        self._state = state
        self._blocks = _NO_BLOCKS
        if self._finished_at is None:
            self._finished_at = self._plan.clock()

    def _stop_watching(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()

    async def _fail(self, error: BaseException) -> None:
        """The only way out with an error: connection closed, facts added, ``on_error`` told."""
        events = self._events_read()
        self._busy = False
        self._end("failed")
        if not isinstance(error, Exception):
            return  # a cancellation or an exit: nothing may be awaited before it goes on
        seen, self._error = self._error is error, error
        if not isinstance(error, StreamChatError):
            return
        error.attempts = max(1, self._attempts)
        if error.partial is None and self._reader.has_events:
            error.partial = self.snapshot
        if isinstance(error, TransportError):
            error.events = events
        if not seen:
            await self._tell(error)

    def _events_read(self) -> int:
        return max(0, self._blocks_received - length_hint(self._blocks))

    async def _recovered(self, error: Exception, registration: Registration, event: Event) -> bool:
        """Whether an ``on_error`` handler takes a handler's failure upon itself."""
        error.add_note(f"raised by handler {registration.name} for a {event.type} event")
        if await self._tell(error):
            return True
        self._error = error
        return False

    async def _tell(self, error: Exception) -> bool:
        """Call the ``on_error`` handlers; whether one of them returned ``True``."""
        recovered = False
        for call, is_async, registration in self._compiled().errors:
            if isinstance(error, registration.types):
                result = call(error)
                if is_async or inspect.isawaitable(result):
                    result = await result
                recovered = recovered or result is True
        return recovered

    def add(self, registration: Registration) -> None:
        """Register for this stream alone; the decorators call it."""
        self._dispatcher.add(registration)

    def add_error(self, registration: Registration) -> None:
        """Register for this stream alone; ``on_error`` calls it."""
        self._dispatcher.add_error(registration)

    def __del__(self) -> None:
        if getattr(self, "_state", "closed") != "open":
            return
        unfinished = self._reader.end is None
        self._end("closed")
        if unfinished:
            warnings.warn(
                f"{self!r} was dropped before its end; use `async with`, or await aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
