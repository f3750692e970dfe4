"""One lazy timer for one stream: all four limits of ``Timeout`` after the connection stands.

Moving a timer with each event costs 1.6 us, waiting under ``asyncio.timeout`` 3.9; a stored time
that one timer looks at when it fires costs 0.08 a chunk. So the pump only writes down
since when it has been waiting, and the timer, when it fires too early, sets itself anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from streamchat.policy import Timeout
from streamchat.refusal import timed_out
from streamchat.transport import Abortable

__all__ = ["Watchdog"]


class Watchdog:
    """Tell when a limit is passed.

    Args:
        timeout: the limits, seconds.
        clock: monotonic seconds.
        loop: where the timer runs.
        host: for the errors.
    """

    __slots__ = (
        "_clock",
        "_exchange",
        "_handle",
        "_host",
        "_loop",
        "_opening",
        "_timeout",
        "first_event_due",
        "is_interrupting",
        "passed",
        "started",
        "total_due",
        "waiting_since",
    )

    def __init__(
        self,
        timeout: Timeout,
        *,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        host: str,
    ) -> None:
        self._timeout = timeout
        self._clock = clock
        self._loop = loop
        self._host = host
        self._handle: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[Any] | None = None
        self._exchange: Abortable | None = None
        self.started = clock()
        """When the request began."""
        self.total_due = None if timeout.total is None else self.started + timeout.total
        """When everything must be over."""
        self.first_event_due: float | None = None
        """When the first event of this attempt must be there; ``None`` once it is."""
        self.waiting_since: float | None = None
        """Since when the pump waits for the next event; ``None`` while the consumer is at work."""
        self.is_interrupting = False
        """Whether the task that opens the exchange was cancelled by :meth:`interrupt`."""
        self.passed: tuple[str, float] | None = None
        """Which limit was passed in this attempt, and how long it is. One more turn of the loop may still
        bring what was waited for."""

    def begin_attempt(self, task: asyncio.Task[Any]) -> None:
        """A request goes out now, from this task; look until :meth:`stop`.

        One timer serves the whole attempt: it fires when a limit that is known now may be passed, and
        sets itself anew for those that are known then.
        """
        limit = self._timeout.first_event
        self.first_event_due = None if limit is None else self._clock() + limit
        self._opening, self.is_interrupting, self.passed = task, False, None
        self._set()

    def watch(self, exchange: Abortable) -> None:
        """Status and headers are there: from now on a limit that is passed aborts the exchange.

        (The exchange, and not the stream, which would live as long as the timer when it is dropped.)
        """
        self._exchange = exchange

    def begin_events(self) -> None:
        """The first event is there: from now on the pauses between events count."""
        self.first_event_due = None
        self.waiting_since = None

    def interrupt(self) -> None:
        """Cancel the task that opens the exchange, once, as ``asyncio.timeout`` does: see
        :attr:`is_interrupting`."""
        task = self._opening
        if task is None or self.is_interrupting or self._loop.is_closed():
            return
        if asyncio.current_task(self._loop) is task:
            # Only once it waits: if it does not, it would be cancelled where it next does, after all this.
            self._loop.call_soon(self.interrupt)
        else:
            self.is_interrupting = True
            task.cancel()

    def end_opening(self) -> None:
        """There is nothing left that :meth:`interrupt` could interrupt."""
        self._opening = None

    def stop(self) -> None:
        """Look no more; no timer is left."""
        self._exchange = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def due(self) -> tuple[float, str, float] | None:
        """When the next limit is passed, which, and how long it is; ``None`` if there is none."""
        timeout = self._timeout
        due: tuple[float, str, float] | None = None
        if self.first_event_due is not None and timeout.first_event is not None:
            due = self.first_event_due, "first_event", timeout.first_event
        elif self.waiting_since is not None and timeout.idle is not None:
            due = self.waiting_since + timeout.idle, "idle", timeout.idle
        if self.total_due is not None and timeout.total is not None:
            total = self.total_due, "total", timeout.total
            due = total if due is None else min(due, total)
        return due

    def allows(self, delay: float) -> bool:
        """Whether a wait of so many seconds ends before ``total`` does."""
        return self.total_due is None or self._clock() + delay < self.total_due

    def _set(self) -> None:
        """Look again when a limit may be passed: the next one due, or, because a pause may begin at
        any moment, when one that begins now would be too long."""
        due, now, idle = self.due(), self._clock(), self._timeout.idle
        moment = None if due is None else due[0]
        if idle is not None and (moment is None or now + idle < moment):
            moment = now + idle
        self._handle = (
            None if moment is None else self._loop.call_later(max(0.0, moment - now), self._look)
        )

    def _look(self, doubted: tuple[float, str, float] | None = None) -> None:
        self._handle = None
        if self._exchange is None and self._opening is None:
            return
        due = self.due()
        if due is None or self._clock() < due[0]:
            self._set()
        elif due != doubted:
            # If the loop itself was held up, bytes may lie in the socket: it gets to look once.
            self.passed = due[1:]
            self._handle = self._loop.call_later(0, self._look, due)
        elif self._exchange is not None:
            self._exchange.abort(timed_out(self._host, due[1], due[2]))
        else:
            self.interrupt()
