"""One answer's lifetime: ``ChatStream``, the only pump of the library.

The flow, one way::

    source.receive() -> reader.read() -> handlers, in order -> your ``async for``

``__anext__`` is the hot path and holds the whole loop: another coroutine in between costs 0.2 us an
event. What happens once a chunk is in ``_more``; a stream ends once, in ``_finish`` or ``_end``, and
every failure leaves through ``_fail``.
"""

from __future__ import annotations

import copy
import inspect
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from operator import length_hint
from types import TracebackType
from typing import Any

from streamchat.asynchronous import AsyncOnly
from streamchat.context import Context
from streamchat.dispatcher import Dispatcher, Listeners, routes_of
from streamchat.masking import Mask
from streamchat.plan import Plan
from streamchat.protocol.errors import (
    GenerationError,
    StreamChatError,
    TransportError,
    TruncatedStreamError,
)
from streamchat.protocol.events import Event
from streamchat.protocol.reader import Item
from streamchat.protocol.request import ChatRequest
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import Frame
from streamchat.refusal import failed_generation, mask_key, two_consumers
from streamchat.routes import NO_CALLS, BackgroundHandlers, Registration, Routes
from streamchat.source import Source, closed, stopped_by
from streamchat.timing import Timing
from streamchat.views import Frames, Pieces

__all__ = ["ChatStream"]

_NOTHING: Iterator[Any] = iter(())
"""Shared by all waiting streams: at thousands of them the collector's work counts."""


def _as_it_is(event: Event) -> Event:
    return event


class ChatStream(Listeners, AsyncOnly):
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
        "_blocks",
        "_busy",
        "_changed",
        "_dispatcher",
        "_empty_blocks",
        "_finished_at",
        "_is_changing",
        "_is_flowing",
        "_outcome",
        "_pending",
        "_plan",
        "_raw",
        "_read",
        "_routes",
        "_source",
        "_table",
        "_told",
        "_unchanged",
    )

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._dispatcher: Dispatcher | None = None  # its own; few streams have one
        self._source = Source(plan)
        self._read: Callable[[Any], Event | None] = _as_it_is  # until there is a reader
        # How it ended: the answer, or why there is none. ``None`` while it has not.
        self._outcome: ChatResponse | Exception | None = None
        self._pending: Sequence[Item] | None = None
        self._blocks: Iterator[Any] = _NOTHING
        self._empty_blocks = 0
        self._busy = False
        # The first blocks were taken, and no middleware changes what comes.
        self._is_flowing = False
        self._raw = False
        self._told = False
        self._routes: Routes | None = None
        self._table = NO_CALLS
        # With event middleware only: blocks that have not been through it, events that have.
        self._is_changing = False
        self._unchanged = _NOTHING
        self._changed: Iterator[Event] = _NOTHING
        self._finished_at: float | None = None

    # --- what it is ------------------------------------------------------------------------------

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far; valid at any moment, independent of what comes later."""
        return self._source.reader.snapshot

    @property
    def request(self) -> ChatRequest:
        """The request that is answered."""
        return self._plan.request

    @property
    def status(self) -> int | None:
        """The HTTP status; ``None`` before the headers."""
        return self._source.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, names in lower case; empty before they are there."""
        return self._source.headers

    @property
    def request_id(self) -> str | None:
        """``x-debug-trace-id``: the id to quote when you ask Cohere."""
        return self.headers.get("x-debug-trace-id")

    @property
    def attempts(self) -> int:
        """How many times the request was sent in all; 0 before the first. The free replacement of
        a stale connection is not counted."""
        return self._source.attempts

    @property
    def timing(self) -> Timing:
        """Seconds from the request, as far as they are known."""
        source = self._source
        source.note_first_text()
        start = source.started

        def since(moment: float | None) -> float | None:
            return None if moment is None or start is None else moment - start

        return Timing(
            since(source.first_byte_at),
            since(source.first_event_at),
            since(source.first_text_at),
            source.longest_gap,
            since(self._finished_at),
        )

    def __repr__(self) -> str:
        model, request_id = self._plan.request.model, self.request_id
        # A server may send the key back in any header.
        shown = f" request_id={Mask(self._plan.headers).text(request_id)!r}" if request_id else ""
        return f"<ChatStream model={model!r} {self._state()}{shown}>"

    def _state(self) -> str:
        match self._outcome:
            case None:
                return "open" if self._source.attempts else "new"
            case ChatResponse():
                return "complete"
            case TransportError(kind="closed"):
                return "closed"
            case _:
                return "failed"

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
                        if self._take_several():
                            break
                        continue
                    calls = self._table[type(event)]
                    if calls:
                        self._busy = True
                        for call, is_async, registration in calls:
                            try:
                                if is_async:
                                    await call(event)
                                else:
                                    result = call(event)
                                    if result is not None and inspect.isawaitable(result):
                                        await result
                            except Exception as error:  # noqa: BLE001  # raised again below
                                failure = await self._freeze().judge(error, registration, event)
                                if failure is not None:
                                    try:
                                        raise failure  # the handler's own
                                    finally:
                                        del failure  # its traceback holds this frame
                        self._busy = False
                    return event
                else:
                    if not self._is_flowing or self._source.reader.is_over:
                        if self._is_new:
                            # Not in _more: three coroutines less for each stream that waits here.
                            self._busy = True
                            self._take(await self._source.open())
                            self._busy = False
                        if not await self._more():
                            break
                    else:
                        # As _more does it, without a coroutine in between.
                        self._busy = True
                        self._blocks = iter(await self._source.receive())
                        self._busy = False
        except BaseException as error:
            raised = await self._fail(error)
            if raised is error:
                del raised  # its traceback holds this frame
                raise
        else:
            raise StopAsyncIteration
        try:
            raise raised  # by a background handler, which stopped the stream
        finally:
            del raised  # its traceback holds this frame

    def __await__(self) -> Generator[Any, None, ChatResponse]:
        return self._run().__await__()

    async def _run(self) -> ChatResponse:
        """Run to the end and return the answer; after the end, say again how it ended."""
        _: Event | None = None
        try:
            async for _ in self:
                if self._table is NO_CALLS and self._is_flowing:
                    # Nobody sees the events: text that was decoded together is not taken apart again.
                    self._source.reader.fold(self._blocks)
        except GenerationError:
            _ = None  # its words may hold the key, and a traceback shows local variables
            raise
        if isinstance(self._outcome, ChatResponse):
            return self._outcome
        raise copy.copy(self._outcome or closed())

    async def __aenter__(self) -> ChatStream:
        """Send the request and wait for its first event."""
        if self._busy:
            raise two_consumers()
        if self._is_new:
            self._busy = True
            try:
                self._take(await self._source.open())
            except BaseException as error:
                await self._fail(error)  # no handler has been called
                raise
            self._busy = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave(exc)

    async def aclose(self) -> None:
        """Close the stream. Idempotent, from any task of its loop.

        A complete answer's connection is given back, which takes 100 ms at most when the server
        goes on talking; an unfinished one is closed at once, and a task that waits for the next
        event gets a ``TransportError``. Background handlers receive the events that wait for them.

        Raises:
            Exception: what a background handler raised, if nothing has raised it so far.
        """
        await self._leave(None)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await self._close()
        except BaseException as raised:
            await self._end_background(raised)
            raise
        await self._end_background(error)

    async def _close(self) -> None:
        if self._outcome is None:
            if self._source.reader.end is not None:
                await self._finish()
            else:
                # First: a reader that waits would otherwise be woken with an exception that aiohttp
                # shares between all connections, whose traceback would hold this stream for ever.
                self._source.abort(closed())
                self._end(closed())

    def text(self) -> AsyncIterator[str]:
        """The answer's text, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "text", self.aclose)

    def thinking(self) -> AsyncIterator[str]:
        """What the model thinks, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "thinking", self.aclose)

    def frames(self) -> AsyncIterator[Frame]:
        """Raw frames instead of events, ``[DONE]`` included: no handlers, no snapshot, no answer.

        A body that ends before ``message-end`` is an error here too, and so is a failed answer,
        after its frames.
        """
        return Frames(self._next_frame, self.aclose)

    async def _next_frame(self) -> Frame:
        if self._busy:
            raise two_consumers()
        self._raw = True
        try:
            while True:
                reader = self._source.reader  # opening may have made a new one
                if self._is_changing:
                    blocks = self._unchanged = reader.unread(self._unchanged)
                else:
                    blocks = self._blocks = reader.unread(self._blocks)
                for block in blocks:
                    frame = reader.read_frame(block)
                    if frame is not None:
                        return frame
                if type(self._outcome) is StreamChatError:
                    break  # complete, and read as raw frames: the error is for who wants an answer
                if not await self._more(raw=True):
                    break
        except BaseException as error:
            raised = await self._fail(error)
            if raised is error:
                del raised  # its traceback holds this frame
                raise
        else:
            raise StopAsyncIteration
        try:
            raise raised  # by a background handler, which stopped the stream
        finally:
            del raised  # its traceback holds this frame

    # --- the pump --------------------------------------------------------------------------------

    async def _more(self, *, raw: bool = False) -> bool:
        """Get what comes next into ``_blocks``; ``False`` when the stream has ended.

        With event middleware that is the next event, and blocks wait in ``_unchanged``.
        """
        self._busy = True
        try:
            if self._is_changing and not raw and await self._change():
                return True
            while blocks := await self._next_blocks():
                if not self._is_changing:
                    self._blocks = iter(blocks)
                    return True
                self._unchanged, self._blocks = iter(blocks), _NOTHING
                if raw or await self._change():
                    return True
            return False
        finally:
            self._busy = False

    async def _next_blocks(self) -> Sequence[Item]:
        """What comes next; none when the stream has ended."""
        source = self._source
        if self._outcome is not None:
            if not isinstance(self._outcome, ChatResponse):
                # Nothing more comes; an end without an error would look like a short answer.
                raise copy.copy(self._outcome)
            await self._drain_background()  # another task, or a handler, may have closed the stream
            return ()
        if self._background is not None and self._background.has_failed:
            raise closed()  # not what had arrived by then; _fail raises the failure instead
        if self._is_new:
            self._take(await source.open())
        if self._pending is not None:
            self._route()
            blocks, self._pending = self._pending, None
            self._is_flowing = not self._is_changing
            return blocks
        if await self._ended():
            return ()
        try:
            blocks = await source.receive()
        except StreamChatError:
            if source.reader.end is None:
                raise
            blocks = ()  # raw frames, and [DONE] did not come: complete all the same
        if not blocks:
            await self._wind_up()
        return blocks

    def _route(self) -> None:
        """The first event comes: from here on, handlers and middleware are fixed."""
        routes = self._freeze()
        if routes.middleware:
            # The loop of __anext__ gets events that are done with, and has nothing to do.
            self._is_changing, self._read, self._table = True, _as_it_is, NO_CALLS
        else:
            self._table = routes.events

    async def _change(self) -> bool:
        """Put the next event that the middleware leaves into ``_blocks``, its handlers called;
        ``False`` when all that was received has been through it."""
        routes = self._freeze()
        while (event := next(self._changed, None)) is None:
            block = next(self._unchanged, None)
            if block is None:
                return False
            unchanged = self._source.reader.read(block)
            if unchanged is not None:
                self._changed = iter(await routes.changed(unchanged))
            else:
                self._take_several()
        await routes.deliver(event)
        self._blocks = iter((event,))
        return True

    def _take_several(self) -> bool:
        """After a block without an event of its own: put the events that it has several of in its place."""
        several = self._source.reader.take_several()
        if not several:
            self._empty_blocks += 1
            return False
        self._source.blocks_received += len(several) - 1
        if self._is_changing:
            self._unchanged = iter([*several, *self._unchanged])
        else:
            self._blocks = iter([*several, *self._blocks])
        return True

    @property
    def _is_new(self) -> bool:
        """Whether the request has not been sent yet."""
        return not self._source.attempts and self._outcome is None

    def _take(self, first: Sequence[Item]) -> None:
        """Take what opening has brought."""
        self._pending = first
        self._read = self._source.reader.read

    async def _ended(self) -> bool:
        """Whether the answer is complete, now that all blocks at hand were read; then wind up.

        Raises:
            GenerationError: the answer failed; its ``message-end`` was handed out before.
            TruncatedStreamError: ``[DONE]`` without ``message-end``.
            FrameTooLargeError: an event passed the limit; those before it were handed out.
        """
        reader = self._source.reader
        if reader.end is not None and (
            reader.terminated or not self._raw or reader.too_large is not None
        ):
            await self._wind_up()
            return True
        if reader.terminated:
            raise TruncatedStreamError(
                "the stream said [DONE] before the answer was complete",
                kind="truncated",
                host=self._plan.transport.host,
            )
        if reader.too_large is not None:
            raise reader.too_large
        return False

    async def _wind_up(self) -> None:
        await self._finish()
        await self._drain_background()
        if isinstance(self._outcome, GenerationError):
            raise copy.copy(self._outcome)

    def _freeze(self) -> Routes:
        """From here on, what is registered is what this stream uses."""
        if self._routes is None:
            own = () if self._dispatcher is None else (self._dispatcher,)
            self._routes = routes_of(
                (*self._plan.dispatchers, *own), self._make_context, self.interrupt
            )
        return self._routes

    @property
    def _background(self) -> BackgroundHandlers | None:
        return None if self._routes is None else self._routes.background

    def _make_context(self) -> Context:
        plan = self._plan
        return Context(weakref.ref(self), plan.request, plan.data, plan.index)

    # --- the end ---------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """``message-end`` was read: that is how it ended, whatever happens to the connection."""
        end = self._source.reader.end
        assert end is not None
        if self._plan.pacer is not None:
            self._plan.pacer.on_end(end)
        failure: StreamChatError | None = failed_generation(end)
        if self._raw:
            failure = failure or StreamChatError(
                "this stream was read as raw frames, so there is no answer to await"
            )
        if failure is not None:
            self._add_facts(failure)
        self._is_flowing = False
        self._outcome = failure or end.response
        self._finished_at = self._source.arrived
        await self._source.finish()

    def _end(self, outcome: Exception) -> None:
        """Close the connection now, whatever it is doing; the first outcome stands."""
        self._source.close()
        if self._outcome is None:
            if isinstance(outcome, StreamChatError):
                self._add_facts(outcome)  # whoever asks later, and how often, gets them too
            self._outcome = outcome
            self._finished_at = self._plan.clock()
        self._is_flowing = False
        self._blocks = self._unchanged = _NOTHING
        self._changed = _NOTHING

    def interrupt(self) -> None:
        """Stop for what a background handler raised: whoever asks for the next event gets that."""
        self._blocks = self._unchanged = self._changed = _NOTHING
        self._is_flowing = False
        if self._outcome is None and self._source.reader.end is None:
            self._source.abort(closed())

    async def _drain_background(self) -> None:
        """Wait until the background handlers have received all events: the answer is complete."""
        background = self._background
        if background is not None:
            await background.drain()
            if background.has_failed:
                raise closed()  # _fail takes the failure and raises it instead

    async def _end_background(self, error: BaseException | None) -> None:
        """Let the background handlers end, cancelled or with all events received.

        Raises:
            Exception: what one of them raised, if nothing has raised it and there is no ``error``.
        """
        background = self._background
        failure = None if background is None else await background.end(error)
        if failure is not None:
            self._outcome = stopped_by(failure)
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame

    async def _stop(self, error: BaseException) -> BaseException:
        """Close the connection for a handler's own exception, a cancellation or an exit, which leaves
        unchanged; nothing but background handlers is awaited before it does."""
        self._end(stopped_by(error))
        if self._background is None:
            return error
        if isinstance(error, GeneratorExit):  # a coroutine that is collected cannot await
            self._background.cancel_soon()
            return error
        failure = await self._background.end(error)
        return error if failure is None else failure

    async def _fail(self, error: BaseException) -> BaseException:
        """The only way out with an error: facts added, connection closed, ``on_error`` told.

        Returns:
            What is to be raised: the error, or what a background handler raised before it.
        """
        self._busy = False
        routes, background = self._routes, self._background
        is_theirs = routes is not None and routes.was_raised(error)
        if background is not None and background.has_failed and isinstance(error, Exception):
            failure = background.take_failure()
            assert failure is not None
            if is_theirs:
                failure.add_note(f"another handler raised {type(error).__name__} too")
            else:
                error.__traceback__ = None  # the source holds it, and its frames hold this stream
            self._outcome = None  # a complete answer does not count: a handler has failed
            return await self._stop(failure)
        if is_theirs or not isinstance(error, StreamChatError):
            return await self._stop(error)
        if self._told:
            return error  # raised again to whoever asks again
        self._told = True
        # The frames below this call hold received bytes, in which a server may repeat the key; the
        # traceback then begins where the stream is consumed.
        error.__traceback__ = None
        self._add_facts(error)
        # A copy: the original's traceback holds this stream, and both would wait for the collector.
        self._end(copy.copy(error))
        if background is not None and (failure := await background.end(error)) is not None:
            return failure
        await self._freeze().tell(error)
        return error

    def _add_facts(self, error: StreamChatError) -> None:
        source = self._source
        error.attempts = max(1, source.attempts)
        if error.partial is None and source.reader.has_events:
            error.partial = self.snapshot
        mask_key(error, self._plan.headers)
        if isinstance(error, TransportError) and not error.events:  # else it is said again
            left = length_hint(self._blocks) + length_hint(self._unchanged)
            left += len(self._pending or ()) + self._empty_blocks
            error.events = max(0, source.blocks_received - left)

    def add(self, registration: Registration) -> None:
        """Register for this stream alone; the decorators call it.

        Raises:
            RuntimeError: the stream has handed out its first event; its handlers are fixed.
        """
        if self._routes is not None:
            raise RuntimeError(
                "this stream has begun to hand out events, and its handlers are fixed: register "
                "them before you consume it"
            )
        if self._dispatcher is None:
            self._dispatcher = Dispatcher()
        self._dispatcher.add(registration)

    def __del__(self) -> None:
        source: Source | None = getattr(self, "_source", None)
        if source is None or not source.attempts or self._outcome is not None:
            return
        background = self._background
        is_at_work = background is not None and background.is_at_work
        shown, unfinished = repr(self), source.reader.end is None
        source.close()
        if unfinished or is_at_work:
            when = "before its end" if unfinished else "while background handlers were at work"
            warnings.warn(
                f"{shown} was dropped {when}; use `async with`, or await aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
