"""Several answers in a row, consumed as one: what tool runs and parsed answers have in common.

A run is written as one asynchronous generator over streams (``_events``); this class gives it the
three ways to consume of a stream, one consumer at a time, an end that is said again to whoever asks
again, and a close that reaches whatever is running.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from streamchat.protocol.errors import StreamChatError
from streamchat.refusal import two_consumers
from streamchat.source import closed, stopped_by
from streamchat.stream import ChatStream
from streamchat.views import Pieces

__all__ = ["Run"]

E = TypeVar("E")
R = TypeVar("R")
T = TypeVar("T")


class Run(Generic[E, T]):
    """Base of :class:`streamchat.ToolRun` and :class:`streamchat.ParsedAnswer`.

    Three ways to consume it, and nothing is sent before one of them begins::

        async for event in run: ...  # every event of every answer
        result = await run           # run to the end
        async with run: ...          # closes it on leaving

    One consumer at a time.

    Raises (while it is consumed): whatever its streams raise; ``TransportError`` of kind ``closed``
    when it was closed before its end.
    """

    def __init__(self) -> None:
        self._generator: AsyncGenerator[E, None] | None = None
        self._stream: ChatStream | None = None
        """The answer that is read; whoever closes the run closes it."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """What runs beside; whoever closes the run cancels it."""
        self._busy = False
        self._is_done = False
        self._result: T
        self._failure: BaseException | None = None

    def _events(self) -> AsyncGenerator[E, None]:
        """The events of all answers in order; sets ``_result`` before it returns."""
        raise NotImplementedError

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

    # --- three ways to consume -------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        if self._busy:
            raise two_consumers()
        if self._failure is not None:
            raise copy.copy(self._failure)
        if self._is_done:
            raise StopAsyncIteration
        if self._generator is None:
            self._generator = self._events()
        self._busy = True
        try:
            return await anext(self._generator)
        except StopAsyncIteration:
            self._is_done = True
            raise
        except BaseException as error:
            # A copy: the original's traceback holds this run, and both would wait for the collector.
            if self._failure is None:
                own = isinstance(error, StreamChatError)
                self._failure = copy.copy(error) if own else stopped_by(error)
            raise
        finally:
            self._busy = False

    def __await__(self) -> Generator[Any, None, T]:
        return self._run().__await__()

    async def _run(self) -> T:
        async for _ in self:
            pass
        return self._result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop: close the answer that is read, cancel what runs. Idempotent, from any task."""
        if self._is_done or self._failure is not None:
            return
        self._failure = closed()
        if self._busy:
            # Another task is inside: end what it waits for, and it will end itself.
            for task in self._tasks:
                task.cancel()
            if self._stream is not None:
                await self._stream.aclose()
        elif self._generator is not None:
            await self._generator.aclose()

    def text(self) -> AsyncIterator[str]:
        """The text of all answers, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "text", self.aclose)

    def thinking(self) -> AsyncIterator[str]:
        """What the model thinks, piece by piece; handlers hear all events meanwhile."""
        return Pieces(self, "thinking", self.aclose)
