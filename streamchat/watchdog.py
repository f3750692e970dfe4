"""One lazy timer for one stream: all four limits of ``Timeout`` after the connection stands.

Moving a timer with each event costs 1.6 us, waiting under ``asyncio.timeout`` 3.9; a stored time
that one timer looks at when it fires costs 0.08 a chunk. So the pump only writes down
since when it has been waiting, and the timer, when it fires too early, sets itself anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
    """

    __slots__ = (
        "_clock",
        "_exchange",
        "_handle",
        "_host",
        "_loop",
        "_timeout",
        "first_event_due",
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
    ) -> None:
        self._timeout = timeout
        self._clock = clock
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._exchange: Abortable | None = None
        self._host = ""
        self.started = clock()
        """When the request began."""
        self.total_due = None if timeout.total is None else self.started + timeout.total
        """When everything must be over."""
        self.first_event_due: float | None = None
        """When the first event of this attempt must be there; ``None`` once it is."""
        self.waiting_since: float | None = None
        """Since when the pump waits for the next event; ``None`` while the consumer is at work."""

    def begin_attempt(self) -> None:
        """A request goes out now."""
        limit = self._timeout.first_event
        self.first_event_due = None if limit is None else self._clock() + limit

    def begin_events(self) -> None:
        """The first event is there: from now on the pauses between events count."""
        self.first_event_due = None
        self.waiting_since = None
        self._set()

    def due(self) -> tuple[float, str, float] | None:
        """When the next limit is passed, which, and how long it is; ``None`` if there is none."""
        timeout = self._timeout
        candidates: list[tuple[float, str, float]] = []
        if self.total_due is not None and timeout.total is not None:
            candidates.append((self.total_due, "total", timeout.total))
        if self.first_event_due is not None and timeout.first_event is not None:
            candidates.append((self.first_event_due, "first_event", timeout.first_event))
        elif self.waiting_since is not None and timeout.idle is not None:
            candidates.append((self.waiting_since + timeout.idle, "idle", timeout.idle))
        return min(candidates, default=None)

    def allows(self, delay: float) -> bool:
        """Whether a wait of so many seconds ends before ``total`` does."""
        return self.total_due is None or self._clock() + delay < self.total_due

    def watch(self, exchange: Abortable, host: str) -> None:
        """Start to look, until :meth:`stop`, or until a limit is passed and the exchange aborted.

        (The exchange, and not the stream, which would live as long as the timer when it is dropped.)
        """
        self._exchange, self._host = exchange, host
        self._set()

    def stop(self) -> None:
        """Look no more; no timer is left."""
        self._exchange = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _set(self) -> None:
        """Look again when a limit may be passed: the next one due, or, because a pause may begin at
        any moment, when one that begins now would be too long."""
        if self._handle is not None:
            self._handle.cancel()
        due, now, idle = self.due(), self._clock(), self._timeout.idle
        moments = [] if due is None else [due[0]]
        if idle is not None:
            moments.append(now + idle)
        self._handle = (
            self._loop.call_later(max(0.0, min(moments) - now), self._look) if moments else None
        )

    def _look(self, doubted: tuple[float, str, float] | None = None) -> None:
        due, exchange = self.due(), self._exchange
        if exchange is None:
            return
        if due is None or self._clock() < due[0]:
            self._set()
        elif due != doubted:
            # If the loop itself was held up, bytes may lie in the socket: it gets to look once.
            self._handle = self._loop.call_later(0, self._look, due)
        else:
            self._handle = None
            exchange.abort(timed_out(self._host, due[1], due[2]))
