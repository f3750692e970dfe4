"""Several answers in a row, consumed as one: what tool runs and parsed answers have in common.

A run is written as one asynchronous generator over streams (``_events``); this class gives it the
three ways to consume of a stream, handlers of its own, one consumer at a time, an end that is said
again to whoever asks again, and a close that reaches whatever is running.
"""

from __future__ import annotations

import asyncio
import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from streamchat.asynchronous import AsyncOnly
from streamchat.context import Context
from streamchat.dispatcher import Dispatcher, Listeners, routes_of
from streamchat.protocol.errors import GenerationError, StreamChatError
from streamchat.protocol.request import ChatRequest
from streamchat.refusal import two_consumers
from streamchat.routes import BackgroundHandlers, Registration, Routes
from streamchat.source import closed, stopped_by
from streamchat.steps import StepStart
from streamchat.stream import ChatStream
from streamchat.views import Pieces

__all__ = ["Run"]

E = TypeVar("E")
R = TypeVar("R")
T = TypeVar("T")
X = TypeVar("X", bound=StreamChatError)


class Run(Listeners, AsyncOnly, ABC, Generic[E, T]):
    """Base of :class:`streamchat.ToolRun` and :class:`streamchat.ParsedAnswer`.

    Three ways to consume it, and nothing is sent before one of them begins::

        async for event in run: ...  # every event of every answer
        result = await run           # run to the end
        async with run: ...          # closes it on leaving

    One consumer at a time. Handlers registered on it hear all its answers, after the client's own and
    those of ``handlers=``.

    Raises (while it is consumed): whatever its streams raise; ``TransportError`` of kind ``closed``
    when it was closed before its end.
    """

    def __init__(self, dispatchers: Sequence[Dispatcher], data: Any) -> None:
        self._dispatcher = Dispatcher()
        self._dispatchers = (*dispatchers, self._dispatcher)
        self._data = data
        self._routes: Routes | None = None
        self._context: Context | None = None
        self._generator: AsyncGenerator[E, None] | None = None
        self._stream: ChatStream | None = None
        """The answer that is read; whoever closes the run closes it."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """What runs beside; whoever closes the run cancels it."""
        self._busy = False
        self._is_done = False
        self._is_interrupted = False
        self._result: T
        self._failure: BaseException | None = None

    @abstractmethod
    def _events(self) -> AsyncGenerator[E, None]:
        """The events of all answers in order; sets ``_result`` before it returns."""

    # --- for the subclasses ----------------------------------------------------------------------

    @property
    def _own_handlers(self) -> tuple[Dispatcher, ...]:
        """The run's own handlers, for ``handlers=`` of each of its streams."""
        return (self._dispatcher,)

    def _check_open(self) -> None:
        """Go no further when the run was closed by another task, or stopped by a background handler."""
        if self._failure is not None:
            raise copy.copy(self._failure)
        if self._is_interrupted:
            raise closed()  # in whose place the handler's failure is raised

    async def _heard(self, event: E, request: ChatRequest) -> E:
        """An event of the run itself, after its handlers."""
        routes = self._freeze(request)
        await routes.deliver(event)
        if routes.background is not None and isinstance(event, StepStart):
            # The stream that follows has tasks of its own for the same handlers.
            await routes.background.idle()
            self._check_open()
        return event

    async def _told(self, error: X) -> X:
        """A failure of the run itself, after the ``on_error`` handlers."""
        if self._routes is not None:
            await self._routes.tell(error)
        return error

    def _freeze(self, request: ChatRequest) -> Routes:
        """From here on, what is registered is what this run uses."""
        if self._routes is None:
            self._routes = routes_of(
                self._dispatchers, lambda: self._context_of(request), self._interrupt
            )
        return self._routes

    def _context_of(self, request: ChatRequest) -> Context:
        """The context of this run: one object for its handlers, tools and ``approve=``."""
        if self._context is None:
            run = weakref.ref(self)  # no cycle: a dropped run is to close its connection

            def current() -> ChatStream | None:
                this = run()
                return this._stream if this is not None else None

            self._context = Context(current, request, self._data, None)
        return self._context

    def _interrupt(self) -> None:
        """Stop for what a background handler raised: whoever asks for the next event gets that."""
        self._is_interrupted = True
        for task in self._tasks:
            task.cancel()
        if self._stream is not None:
            self._stream.interrupt()

    async def _end_background(self, error: BaseException | None) -> None:
        """Let the background handlers end, cancelled or with all events received.

        Raises:
            Exception: what one of them raised, if nothing has raised it and there is no ``error``.
        """
        background = self._background
        failure = None if background is None else await background.end(error)
        if failure is not None:
            self._failure = stopped_by(failure)
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame

    @property
    def _background(self) -> BackgroundHandlers | None:
        return None if self._routes is None else self._routes.background

    def _task(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Start something beside the consumer; closing the run cancels it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    async def _result_of(self, task: asyncio.Task[R]) -> R:
        """Wait for a task of this run.

        Raises:
            TransportError: the run was closed meanwhile; a task's own cancellation would look like
                the consumer's.
        """
        await asyncio.wait([task])
        if task.cancelled():
            raise closed()
        return task.result()

    async def _cancel_tasks(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    def add(self, registration: Registration) -> None:
        """Register for this run alone; the decorators call it.

        Raises:
            RuntimeError: it is being consumed already; its handlers are fixed.
        """
        if self._generator is not None:
            raise RuntimeError(
                "this run has begun, and its handlers are fixed: register them before you consume it"
            )
        self._dispatcher.add(registration)

    # --- three ways to consume -------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        if self._failure is not None:
            try:
                await self._finalise()  # closed by another task, it may wait at an event
            finally:
                await self._end_background(None)  # which may have received that event since
            raise copy.copy(self._failure)
        if self._busy:
            raise two_consumers()
        if self._is_done:
            raise StopAsyncIteration
        if self._generator is None:
            self._generator = self._events()
        self._busy = True
        try:
            return await self._next(self._generator)
        except StopAsyncIteration:
            self._is_done = True
            raise
        except BaseException as error:
            if self._routes is not None:
                self._routes.was_raised(error)
            if isinstance(error, GenerationError):
                error.__traceback__ = (
                    None  # the generator's frame holds the last event, and its words
                )
            # A copy: the original's traceback holds this run, and both would wait for the collector.
            if self._failure is None:
                own = isinstance(error, StreamChatError)
                self._failure = copy.copy(error) if own else stopped_by(error)
            raise
        finally:
            self._busy = False

    async def _next(self, generator: AsyncGenerator[E, None]) -> E:
        """The next event; at the end, and after a failure, background handlers receive theirs first."""
        try:
            return await anext(generator)
        except BaseException as error:
            background = self._background
            if background is None:
                raise
            if isinstance(error, GeneratorExit):  # a coroutine that is collected cannot await
                background.cancel_soon()
                raise
            is_replaced = self._is_interrupted or isinstance(error, StopAsyncIteration)
            is_replaced = is_replaced and isinstance(error, Exception)
            failure = await background.end(None if is_replaced else error)
            if failure is None:
                raise
            if is_replaced and not isinstance(error, StopAsyncIteration | StreamChatError):
                failure.add_note(f"another handler raised {type(error).__name__} too")
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame

    def __await__(self) -> Generator[Any, None, T]:
        return self._run().__await__()

    async def _run(self) -> T:
        _: E | None = None
        try:
            async for _ in self:
                pass
        except GenerationError:
            _ = None  # its words may hold the key, and a traceback shows local variables
            raise
        return self._result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc is not None and self._stream is not None:
                # Closing the generator would end the stream's handlers as if nothing had been raised.
                await self._stream.__aexit__(exc_type, exc, traceback)
        finally:
            await self._leave(exc)

    async def aclose(self) -> None:
        """Stop: close the answer that is read, cancel what runs. Idempotent, from any task.

        Background handlers receive the events that wait for them.

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
        if self._is_done:
            return
        if self._failure is not None:
            await self._finalise()  # whoever closed it first may have been cancelled
            return
        if hasattr(self, "_result") and not self._busy:
            self._is_done = True  # left at the last event: nothing is missing
            await self._finalise()
            return
        self._failure = closed()
        if self._busy:
            # Another task is inside: end what it waits for, and it will end itself.
            for task in self._tasks:
                task.cancel()
            if self._stream is not None:
                await self._stream.aclose()
        else:
            await self._finalise()

    async def _finalise(self) -> None:
        """End the generator where it waits, unless it runs."""
        if self._generator is not None and not self._busy:
            self._busy = True
            try:
                await self._generator.aclose()
            finally:
                self._busy = False

    def text(self) -> AsyncIterator[str]:
        """The text of all answers, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "text", self.aclose)

    def thinking(self) -> AsyncIterator[str]:
        """What the model thinks, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "thinking", self.aclose)
