"""Handlers at their own pace: each receives its events in order, in a task of its own.

A stream puts events into a handler's bounded queue and goes on; it waits only while that queue is full,
and at its end. With ``every=`` neighbouring deltas of one block wait in the queue as one event whose
text grows, until the interval is over or the block ends.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from streamchat.joining import JoinedDeltas, key_of
from streamchat.protocol.events import ContentEnd, MessageEnd, ToolCallEnd, ToolCallStart
from streamchat.routes import Call, Registration, failure_of

__all__ = ["FLUSHING_EVENTS", "Background", "BackgroundHandler"]

FLUSHING_EVENTS: frozenset[type] = frozenset({ContentEnd, ToolCallStart, ToolCallEnd, MessageEnd})
"""After these, deltas that came before them are not held back. (A plan ends where the calls begin.)"""

_WITHIN: ContextVar[tuple[object, ...]] = ContextVar("streamchat_background", default=())
"""In a handler's task, and in the tasks that it starts: the tokens of the streams around it."""

_TASKS: set[asyncio.Task[None]] = set()
"""All that run: asyncio refers to its tasks weakly, and the collector is to find none that waits."""


class _Shared:
    """What the handlers of one stream have in common; it refers to none of them, so there is no cycle."""

    __slots__ = ("failure", "interrupt", "is_cancelled", "on_error", "token")

    def __init__(self, interrupt: Callable[[], None], on_error: tuple[Call, ...]) -> None:
        self.interrupt = weakref.WeakMethod(interrupt)
        self.on_error = on_error
        self.is_cancelled = False
        self.failure: BaseException | None = None
        """Of the handler that failed first, unless a later one was no ``Exception``; the stream raises it."""
        self.token = object()

    def fail(self, failure: BaseException, registration: Registration) -> None:
        """Stop the stream: a handler has failed, and ``on_error`` did not recover."""
        first = self.failure
        if first is not None:
            if isinstance(failure, Exception) or not isinstance(first, Exception):
                name = f"background {registration.role} {registration.name}"
                first.add_note(f"{name} raised {type(failure).__name__} too")
                return
            failure.add_note(f"{type(first).__name__} was raised before")
        self.failure = failure
        interrupt = self.interrupt()
        if interrupt is not None:
            interrupt()


class BackgroundHandler:
    """One handler of one stream, with its queue and its task.

    One task puts events in, at most one at a time: that of the stream.
    """

    __slots__ = (
        "_call",
        "_idle",
        "_is_busy",
        "_is_closing",
        "_loop",
        "_queue",
        "_registration",
        "_room",
        "_shared",
        "_wake",
        "task",
    )

    def __init__(
        self, call: Callable[[Any], Any], registration: Registration, shared: _Shared
    ) -> None:
        self._call = call
        self._registration = registration
        self._shared = shared
        # Events, and deltas on their way to become one.
        self._queue: deque[Any] = deque()
        self._loop: asyncio.AbstractEventLoop
        self._is_busy = False
        self._is_closing = False
        # What the handler's task, the stream, and idle() wait for.
        self._wake: asyncio.Future[bool] | None = None
        self._room: asyncio.Future[bool] | None = None
        self._idle: asyncio.Future[bool] | None = None
        self.task: asyncio.Task[None] | None = None
        """Where the handler is called; ``None`` before its first event."""

    # --- the stream's side -----------------------------------------------------------------------

    def put(self, event: Any) -> Awaitable[None] | None:
        """Put an event behind the others; while the queue is full, something to wait for."""
        every = self._registration.every
        queue = self._queue
        if every is not None and (key := key_of(event)) is not None:
            last = queue[-1] if queue else None
            if type(last) is JoinedDeltas and last.key == key and not last.is_flushed:
                last.add(event)
                return None
            if self.task is None:
                self._loop = asyncio.get_running_loop()
            event = JoinedDeltas(key, event, self._loop.time() + every)
        elif every is not None:
            self.flush()
        if len(queue) < self._registration.max_queue:
            self._append(event)
            return None
        return self._put_when_there_is_room(event)

    def flush_at(self, event: Any) -> None:  # it is called like a handler
        """For events that the handler itself does not receive: see :data:`FLUSHING_EVENTS`."""
        self.flush()

    def flush(self) -> None:
        """Hold nothing back any longer."""
        for entry in reversed(self._queue):
            if type(entry) is not JoinedDeltas or entry.is_flushed:
                break  # and so is all before it
            entry.is_flushed = True
        _settle(self._wake)

    async def _put_when_there_is_room(self, event: Any) -> None:
        self.flush()  # only the handler may slow the stream down, not its interval
        try:
            while len(self._queue) >= self._registration.max_queue:
                self._room = self._loop.create_future()
                await self._room
        finally:
            self._room = None
        self._append(event)

    def _append(self, event: Any) -> None:
        if self._shared.is_cancelled or (self.task is not None and self.task.done()):
            return  # it failed, or was cancelled, and receives nothing more
        self._queue.append(event)
        if self.task is None:
            self._loop = asyncio.get_running_loop()
            self.task = self._loop.create_task(self._run())
            _TASKS.add(self.task)
            self.task.add_done_callback(_on_done)
            self.task.add_done_callback(self._on_end)
        elif len(self._queue) == 1:
            _settle(self._wake)

    def close(self) -> None:
        """No event comes after those that were put in."""
        self._is_closing = True
        self.flush()

    @property
    def is_at_work(self) -> bool:
        """Whether it has not received all that was put in."""
        return bool(self._queue or self._is_busy) and self.task is not None and not self.task.done()

    async def idle(self) -> None:
        """Wait until the handler has received all that was put in."""
        self.flush()
        while self.is_at_work:
            self._idle = self._loop.create_future()
            await self._idle

    def check_begun(self) -> None:
        """Take note if the task was cancelled before its first step: :meth:`_run` never began then."""
        if self._queue and self.task is not None and self.task.cancelled():
            self._queue.clear()
            if not self._shared.is_cancelled:
                self._shared.fail(self._cancelled_by_others(), self._registration)
            _settle(self._room)
            _settle(self._idle)

    def _on_end(self, _: object) -> None:
        self.check_begun()

    def _cancelled_by_others(self) -> RuntimeError:
        name = self._registration.name
        return RuntimeError(f"the task of background handler {name} was cancelled")

    # --- the handler's side ----------------------------------------------------------------------

    async def _run(self) -> None:
        shared, registration = self._shared, self._registration
        _WITHIN.set((*_WITHIN.get(), shared.token))
        task = asyncio.current_task()
        assert task is not None
        try:
            while (event := await self._next()) is not None:
                self._is_busy = True
                failure = await self._failure(event)
                self._is_busy = False
                del event
                if failure is not None:
                    shared.fail(failure, registration)
                    del failure  # its traceback holds this frame
                    break
                if task.cancelling():
                    raise asyncio.CancelledError  # which the handler suppressed
        except asyncio.CancelledError:
            if not shared.is_cancelled:
                shared.fail(self._cancelled_by_others(), registration)
            raise
        except GeneratorExit:
            raise  # collected: its loop was closed
        except BaseException as error:
            shared.fail(error, registration)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # ends the loop, as in any task
        finally:
            self._queue.clear()
            if not self._loop.is_closed():
                _settle(self._room)
                _settle(self._idle)

    async def _next(self) -> Any:
        """The next event; ``None`` at the end."""
        queue = self._queue
        while True:
            if queue:
                entry = queue[0]
                if type(entry) is not JoinedDeltas:
                    break
                if entry.is_flushed or self._loop.time() >= entry.due:
                    break
                if not await self._woken(entry.due):
                    break  # the timer says that it is due: a clock may be a rounding away from it
            else:
                _settle(self._idle)
                if self._is_closing and self._room is None:
                    return None
                await self._woken(None)
        entry = queue.popleft()
        _settle(self._room)
        return entry.event() if type(entry) is JoinedDeltas else entry

    async def _woken(self, until: float | None) -> bool:
        """Wait to be woken; ``False`` when that moment of the loop's clock came first."""
        self._wake = wake = self._loop.create_future()
        timer = None if until is None else self._loop.call_at(until, _settle, wake, False)
        try:
            return bool(await wake)
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    async def _failure(self, event: Any) -> Exception | None:
        """Call the handler; what stops the stream, if that failed."""
        try:
            result = self._call(event)
            if self._registration.is_async or inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            name = self._registration.name
            error: Exception = RuntimeError(f"background handler {name} was cancelled from within")
        except Exception as raised:  # noqa: BLE001  # the stream raises it
            error = raised
        else:
            return None
        try:
            return await failure_of(error, self._registration, event, self._shared.on_error)
        except Exception as of_on_error:  # noqa: BLE001  # the stream raises it
            if of_on_error is not error and of_on_error.__context__ is None:
                of_on_error.__context__ = error  # as for a handler that the stream awaits
            return of_on_error
        finally:
            del error  # its traceback holds this frame


class Background:
    """The background handlers of one stream or run.

    Args:
        interrupt: a method of the stream: called when a handler fails, it lets whoever waits for the
            next event ask for :meth:`take_failure`. It is held weakly.
        on_error: the stream's ``on_error`` handlers.
    """

    __slots__ = ("_handlers", "_shared")

    def __init__(self, interrupt: Callable[[], None], on_error: tuple[Call, ...]) -> None:
        self._handlers: list[BackgroundHandler] = []
        self._shared = _Shared(interrupt, on_error)

    def add(self, call: Callable[[Any], Any], registration: Registration) -> BackgroundHandler:
        """A handler more."""
        handler = BackgroundHandler(call, registration, self._shared)
        self._handlers.append(handler)
        return handler

    @property
    def last_added(self) -> BackgroundHandler:
        """What :meth:`add` made last."""
        return self._handlers[-1]

    @property
    def is_at_work(self) -> bool:
        """Whether a handler has not received all that it was given."""
        return any(handler.is_at_work for handler in self._handlers)

    @property
    def has_failed(self) -> bool:
        """Whether there is a failure to take."""
        return self._shared.failure is not None

    def take_failure(self) -> BaseException | None:
        """What the first handler that failed raised; given once."""
        failure, self._shared.failure = self._shared.failure, None
        return failure

    async def idle(self) -> None:
        """Wait until all handlers have received what they were given so far."""
        for handler in self._handlers:
            await handler.idle()

    async def drain(self) -> None:
        """Wait until all handlers have received what they were given; cancelling this cancels them.

        Called by one of them, or in a task that one of them started, it waits for none: two that
        waited for each other would never end.
        """
        for handler in self._handlers:
            handler.close()
        try:
            await self._wait()
        except asyncio.CancelledError:
            await self.cancel()
            raise

    async def end(self, error: BaseException | None) -> BaseException | None:
        """Let the handlers end: when the stream is left, closed or has failed.

        Args:
            error: why, if that is an exception. A cancellation cancels the handlers; all else waits
                until they have received what they were given.

        Returns:
            What a handler raised, for the caller to raise. ``None`` if the caller raises ``error``, whose
            notes then name it; an ``Exception`` gives way to what is none.
        """
        is_left = error is None or isinstance(
            error, GeneratorExit
        )  # by a generator around the stream
        if is_left or isinstance(error, Exception):
            await self.drain()
        else:
            await self.cancel()
        failure = self.take_failure()
        if failure is None or error is None or is_left:
            return failure
        if isinstance(error, Exception) and not isinstance(failure, Exception):
            failure.add_note(f"{type(error).__name__} was raised before")
            return failure
        error.add_note(f"a background handler raised {type(failure).__name__} too")
        for note in getattr(failure, "__notes__", ()):
            error.add_note(note)
        return None

    async def cancel(self) -> None:
        """Cancel the handlers, and wait until they have ended."""
        self.cancel_soon()
        await self._wait()

    def cancel_soon(self) -> None:
        """Cancel the handlers; nobody waits."""
        self._shared.is_cancelled = True
        for task in self._tasks():
            try:
                task.cancel()
            except RuntimeError:  # its loop is closed
                _TASKS.discard(task)

    async def _wait(self) -> None:
        tasks = self._tasks()
        if tasks and self._shared.token not in _WITHIN.get():
            await asyncio.wait(tasks)
        for handler in self._handlers:
            handler.check_begun()

    def _tasks(self) -> set[Any]:
        return {each.task for each in self._handlers if each.task and not each.task.done()}

    def __del__(self) -> None:
        self.cancel_soon()  # the stream was dropped before its end


def _on_done(task: asyncio.Task[None]) -> None:
    """Mark its exception as retrieved: the stream raises it, and asyncio is not to log it too."""
    _TASKS.discard(task)
    if not task.cancelled():
        task.exception()


def _settle(future: asyncio.Future[bool] | None, result: bool = True) -> None:
    if future is not None and not future.done():
        future.set_result(result)
