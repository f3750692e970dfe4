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
from contextlib import suppress
from typing import Any

from streamchat.joining import JoinedDeltas, key_of
from streamchat.protocol.events import ContentEnd, MessageEnd, ToolCallEnd, ToolCallStart
from streamchat.routes import Call, Registration, failure_of

__all__ = ["FLUSHING_EVENTS", "Background", "BackgroundHandler"]

FLUSHING_EVENTS: frozenset[type] = frozenset({ContentEnd, ToolCallStart, ToolCallEnd, MessageEnd})
"""After these, deltas that came before them are not held back. (A plan ends where the calls begin.)"""


class BackgroundHandler:
    """One handler of one stream, with its queue and its task.

    One task puts events in, at most one at a time: that of the stream.
    """

    __slots__ = (
        "_call",
        "_group",
        "_idle",
        "_is_busy",
        "_is_closing",
        "_loop",
        "_queue",
        "_registration",
        "_room",
        "_wake",
        "task",
    )

    def __init__(
        self, call: Callable[[Any], Any], registration: Registration, group: Background
    ) -> None:
        self._call = call
        self._registration = registration
        self._group = group
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
        while len(self._queue) >= self._registration.max_queue:
            self._room = self._loop.create_future()
            await self._room
        self._append(event)

    def _append(self, event: Any) -> None:
        if self._group.is_over(self):
            return
        self._queue.append(event)
        if self.task is None:
            self._loop = asyncio.get_running_loop()
            self.task = self._loop.create_task(self._run())
        elif len(self._queue) == 1:
            _settle(self._wake)

    def close(self) -> None:
        """No event comes after those that were put in."""
        self._is_closing = True
        self.flush()

    async def idle(self) -> None:
        """Wait until the handler has received all that was put in."""
        self.flush()
        while (self._queue or self._is_busy) and self.task is not None and not self.task.done():
            self._idle = self._loop.create_future()
            await self._idle

    # --- the handler's side ----------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while (event := await self._next()) is not None:
                self._is_busy = True
                failure = await self._failure(event)
                self._is_busy = False
                del event
                if failure is not None:
                    self._group.fail(failure, self._registration)
                    del failure  # its traceback holds this frame
                    return
        except asyncio.CancelledError:
            self._group.was_cancelled(self._registration)
            raise
        finally:
            self._queue.clear()
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
                if self._is_closing:
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
            return await failure_of(error, self._registration, event, self._group.on_error)
        except Exception as of_on_error:  # noqa: BLE001  # the stream raises it
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

    __slots__ = ("_failure", "_handlers", "_has_failed", "_interrupt", "_is_cancelled", "on_error")

    def __init__(self, interrupt: Callable[[], None], on_error: tuple[Call, ...]) -> None:
        self._interrupt = weakref.WeakMethod(interrupt)
        self._handlers: list[BackgroundHandler] = []
        self._failure: Exception | None = None
        self._has_failed = False
        self._is_cancelled = False
        self.on_error = on_error

    def add(self, call: Callable[[Any], Any], registration: Registration) -> BackgroundHandler:
        """A handler more."""
        handler = BackgroundHandler(call, registration, self)
        self._handlers.append(handler)
        return handler

    @property
    def last_added(self) -> BackgroundHandler:
        """What :meth:`add` made last."""
        return self._handlers[-1]

    def is_over(self, handler: BackgroundHandler) -> bool:
        """Whether a handler receives nothing more: it failed, or was cancelled."""
        return self._is_cancelled or (handler.task is not None and handler.task.done())

    def fail(self, failure: Exception, registration: Registration) -> None:
        """A handler has failed, and ``on_error`` did not recover: the stream stops."""
        if self._has_failed:
            if self._failure is not None:
                self._failure.add_note(_also(failure, registration))
            return
        self._has_failed = True
        self._failure = failure
        interrupt = self._interrupt()
        if interrupt is not None:
            interrupt()

    def was_cancelled(self, registration: Registration) -> None:
        """A handler's task was cancelled."""
        if not self._is_cancelled:
            self.fail(
                RuntimeError(f"the task of background handler {registration.name} was cancelled"),
                registration,
            )

    def take_failure(self) -> Exception | None:
        """What the first handler that failed raised; given once."""
        failure, self._failure = self._failure, None
        return failure

    async def idle(self) -> None:
        """Wait until all handlers have received what they were given so far."""
        for handler in self._handlers:
            await handler.idle()

    async def drain(self) -> None:
        """Wait until all handlers have received what they were given; cancelling this cancels them.

        Called by one of them, it waits for none: two that waited for each other would never end.
        """
        for handler in self._handlers:
            handler.close()
        tasks = self._tasks()
        if not tasks or asyncio.current_task() in tasks:
            return
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            await self.cancel()
            raise

    async def cancel(self) -> None:
        """Cancel the handlers, and wait until they have ended."""
        self.cancel_soon()
        tasks = self._tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks)

    def cancel_soon(self) -> None:
        """Cancel the handlers; nobody waits."""
        self._is_cancelled = True
        for task in self._tasks():
            with suppress(RuntimeError):  # its loop is closed
                task.cancel()

    def _tasks(self) -> set[Any]:
        return {each.task for each in self._handlers if each.task and not each.task.done()}


def _settle(future: asyncio.Future[bool] | None, result: bool = True) -> None:
    if future is not None and not future.done():
        future.set_result(result)


def _also(failure: Exception, registration: Registration) -> str:
    return f"background {registration.role} {registration.name} raised {type(failure).__name__} too"
