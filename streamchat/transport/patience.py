"""A limit in seconds that a busy event loop does not use up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

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

    __slots__ = ("_cancelling", "_handle", "_left", "_loop", "_part", "_task", "has_passed")

    def __init__(self, seconds: float | None) -> None:
        self._part = 0.0 if seconds is None else seconds / PARTS
        self._left = 0 if seconds is None else PARTS
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[Any]
        self._cancelling = 0
        self._handle: asyncio.TimerHandle | None = None
        self.has_passed = False
        """Whether the limit was passed, and the work inside cancelled for it."""

    def __enter__(self) -> PatientTimeout:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a PatientTimeout needs a task")
        self._task, self._cancelling = task, task.cancelling()
        self._loop = asyncio.get_running_loop()
        if self._left:
            self._handle = self._loop.call_later(self._part, self._count)
        return self

    def _count(self) -> None:
        self._left -= 1
        if self._left:
            self._handle = self._loop.call_later(self._part, self._count)
        else:
            self._handle = None
            self.has_passed = True
            self._task.cancel()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        task = self._task
        del self._task  # a traceback may hold this, and the task's result the traceback
        if self.has_passed:
            # Ours, or somebody else's as well: as asyncio.timeout() tells them apart.
            is_ours = task.uncancel() <= self._cancelling
            if is_ours and exc_type is asyncio.CancelledError:
                raise TimeoutError from exc
