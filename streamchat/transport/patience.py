"""A limit in seconds that a busy event loop does not use up."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["PatientTimeout"]

PARTS = 10
"""Parts of the limit that are counted one by one; a stall of the loop uses up one at most."""


class PatientTimeout:
    """``asyncio.timeout`` for a peer's time: what this process does meanwhile does not count.

    A limit of the clock alone passes although the peer has answered long ago, when ten thousand streams
    open at once or a handler blocks the loop: the answer lies in the socket, and the timer comes first.

    Args:
        seconds: the limit; ``None`` for none.
    """

    __slots__ = ("_handle", "_left", "_loop", "_part", "_scope")

    def __init__(self, seconds: float | None) -> None:
        self._scope = asyncio.timeout(None)
        self._part = 0.0 if seconds is None else seconds / PARTS
        self._left = 0 if seconds is None else PARTS
        self._loop: asyncio.AbstractEventLoop
        self._handle: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> PatientTimeout:
        self._loop = asyncio.get_running_loop()
        await self._scope.__aenter__()
        if self._left:
            self._handle = self._loop.call_later(self._part, self._count)
        return self

    def _count(self) -> None:
        self._left -= 1
        if self._left:
            self._handle = self._loop.call_later(self._part, self._count)
        else:
            self._handle = None
            self._scope.reschedule(self._loop.time())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        await self._scope.__aexit__(exc_type, exc, traceback)

    def expired(self) -> bool:
        """Whether the limit was passed, and the work inside cancelled for it."""
        return self._scope.expired()
