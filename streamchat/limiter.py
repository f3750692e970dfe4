"""How many requests may go in a minute: ``Limiter``; imports no network and no shell.

One mechanism for requests and tokens: a log of the last minute, which never holds more than the
limit, and a pace, so that a minute's worth does not go at once.

Not ``aiolimiter`` 1.3: its leaky bucket begins empty *and* leaks, so under saturation it admits twice
the limit, less one, in the first minute (measured: 999 at 500 a minute, 500 of them at once). It has
no settling and no pause for everybody, and warns when a second event loop uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import attrs

from streamchat.finite import is_finite, shown

__all__ = ["Limiter", "Permit", "estimate_tokens", "most_tokens"]

MINUTE = 60.0
BURST = 0.01
"""The share of a limit that may go at once."""
GRAIN = MINUTE / 1024
"""Seconds that share an entry of the log, which so holds about 1,024; costs 0.1 % at most."""
MIN_TIMER = 0.001
"""Seconds: a timer that rings too early by a rounding error must not ring without end."""
OUTPUT_GUESS = 500
"""Tokens of an answer whose request sets no ``max_tokens``: some 375 English words."""

MOST_ADDED = 16 * 1024
"""Input tokens that are not in the request: the server's own prompt (of some 60 tokens in recorded
answers, of thousands with tools) and images that are given by URL."""
MOST_OUTPUT = 64 * 1024
"""Output tokens of an answer whose request sets no ``max_tokens``: the largest documented maximum
(``command-a-plus-05-2026``)."""


def estimate_tokens(body: bytes, max_tokens: int | None = None) -> int:
    """Tokens that a request may take, roughly, before it is sent: for :meth:`Limiter.admit`.

    A quarter of the body's bytes (English has about four characters a token; other scripts have
    fewer, of more bytes), plus ``max_tokens``, or 500 if that is ``None``. An estimate is held back
    until it is settled, so give the usual length of your answers if ``max_tokens`` is far above it:
    4.5 times what is used, for 10 s each, leaves 61 % of a limit to use (twice: 85 %).
    """
    return len(body) // 4 + (OUTPUT_GUESS if max_tokens is None else max_tokens)


def most_tokens(body: bytes, max_tokens: int | None = None) -> int:
    """Tokens that a request can have used, at most; a count above it is not believed.

    A token of the input stands for a byte of the body at least, and the server adds tokens of its own,
    see ``MOST_ADDED``. Without ``max_tokens`` the output is bounded by ``MOST_OUTPUT``.
    """
    return len(body) + MOST_ADDED + (MOST_OUTPUT if max_tokens is None else max_tokens)


def _checked(name: str, value: Any, minimum: float, hint: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number{hint}, not {type(value).__name__}")
    if not (value >= minimum and is_finite(value)):
        raise ValueError(f"{name} must be finite and at least {minimum}{hint}, not {shown(value)}")
    return value


class Limiter:
    """Requests and tokens a minute, first come, first served; one for many clients, loops and threads.

    ::

        async with limiter.admit(estimate_tokens(body, max_tokens)) as permit:
            ...
            permit.settle(used)

    In no 60 seconds more than ``rpm`` requests are admitted, or requests of more than ``tpm`` tokens,
    as estimated until they are settled. 1 % of a limit, or one request, goes at once, the rest at an
    even pace. When requests have waited for one limit for a minute, it is used to 99 % at least; of
    ``tpm`` the next request's tokens may be missing too, as a small one never overtakes a large one.

    Nobody polls: each loop in which requests wait has one timer, for when the first of all is due. So
    a loop that is busy, or was closed, does not hold up the others.

    Args:
        rpm: requests a minute, from 1; ``None`` is no limit.
        tpm: tokens a minute, from 1; ``None`` is no limit.
        clock: monotonic seconds, the same in all threads.

    Raises:
        TypeError, ValueError: a limit that is no finite number from 1.
    """

    __slots__ = ("_queue", "rpm", "tpm")

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("rpm", rpm), ("tpm", tpm)):
            if value is not None:
                _checked(name, value, 1, " (None is no limit)")
        self.rpm = rpm
        """Requests a minute."""
        self.tpm = tpm
        """Tokens a minute."""
        self._queue = _Queue(rpm or math.inf, tpm or math.inf, clock)

    def __repr__(self) -> str:
        return f"Limiter(rpm={self.rpm}, tpm={self.tpm})"

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._queue.places)

    def admit(self, tokens: float = 0) -> Permit:
        """What to enter with ``async with`` to send one request.

        Args:
            tokens: what it may take, see :func:`estimate_tokens`; 0 if only requests are limited.

        Raises:
            TypeError, ValueError: no number from 0; or more than ``tpm``, which would wait for ever.
        """
        _checked("tokens", tokens, 0)
        if self.tpm is not None and tokens > self.tpm:
            raise ValueError(
                f"a request of {tokens} tokens never passes a limit of {self.tpm} tokens a minute: "
                "lower its max_tokens, or give the limit itself if the estimate is too high"
            )
        return Permit(self._queue, tokens)

    def pause(self, seconds: float) -> None:
        """Admit nobody for so long, as ``Retry-After`` asks, then go on without a burst.

        From any thread. Of several pauses the one that ends last counts.

        Raises:
            TypeError, ValueError: ``seconds`` is no finite number from 0.
        """
        self._queue.pause(_checked("seconds", seconds, 0))


class Permit:
    """The right to send one request, made by :meth:`Limiter.admit`; ``async with`` waits for it.

    Leaving the block gives nothing back: what is not settled counts as estimated.
    """

    __slots__ = ("_place", "_queue")

    def __init__(self, queue: _Queue, tokens: float) -> None:
        self._queue = queue
        self._place = _Place(tokens)

    async def __aenter__(self) -> Permit:
        future = self._queue.join(self._place)
        if future is not None:
            try:
                await future
            except asyncio.CancelledError:
                self._queue.leave(self._place)
                raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        pass

    @property
    def tokens(self) -> float:
        """What the request counts for: as estimated, then as settled."""
        return self._place.tokens

    def settle(self, used: float) -> None:
        """Tell how many tokens the request took; once, in the block or later, from any thread.

        What was estimated too much is given back, if it was admitted less than a minute ago; what
        was estimated too little counts from now on.

        Raises:
            TypeError, ValueError: ``used`` is no finite number from 0.
            RuntimeError: not admitted yet, settled before, or cancelled.
        """
        self._queue.settle(self._place, _checked("used", used, 0), sent=True)

    def cancel(self) -> None:
        """Give the request back as well: it was never sent. Otherwise like :meth:`settle`."""
        self._queue.settle(self._place, 0, sent=False)

    def __repr__(self) -> str:
        return f"<Permit: {self._place.tokens} tokens, {self._place.state}>"


@attrs.define(eq=False)
class _Entry:
    since: float
    at: float
    amount: float


class _Window:
    """One limit: what was taken in the last minute, and when more may be."""

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit
        self._interval = MINUTE / limit
        # 1 % with the one that is due. Something is forgiven below 100 a minute as well, or each
        # late timer would slow the pace; the log holds the limit all the same.
        burst = BURST * MINUTE
        self._slack = max(burst - self._interval, min(burst, self._interval / 2))
        self._next = now - self._slack
        self._log: deque[_Entry] = deque()
        self._used = 0.0

    def ready(self, amount: float, now: float) -> float:
        """When so much may be taken, if nothing else is; may have passed."""
        while self._log and self._log[0].at + MINUTE <= now:
            self._used -= self._log.popleft().amount
        excess, free = self._used + amount - self._limit, -math.inf
        for entry in self._log:
            if excess <= 0:
                break
            excess -= entry.amount
            free = entry.at + MINUTE
        return max(free, self._next)

    def take(self, amount: float, now: float) -> _Entry:
        """Log it, whether there is room or not."""
        self._next = max(self._next, now - MINUTE) + amount * self._interval
        self._used += amount
        if not self._log or now >= self._log[-1].since + GRAIN:
            self._log.append(_Entry(now, now, 0))
        entry = self._log[-1]
        entry.at = now  # what shares an entry is held until the last of it may go
        entry.amount += amount
        return entry

    def correct(self, entry: _Entry, change: float, now: float) -> None:
        """More is taken now; less is given back unless its minute is over."""
        if change > 0:
            self.take(change, now)
        elif now < entry.at + MINUTE:
            entry.amount += change
            self._used += change
            self._next += change * self._interval

    def forget(self, unused: float, now: float) -> None:
        """Do not make up for so many seconds, beyond the slack; nor for as many before them."""
        self._next = max(self._next, min(self._next + 2 * unused, now - self._slack))

    def hold(self, until: float) -> None:
        """Go on at this time, without a burst."""
        self._next = max(self._next, until)


@attrs.define(eq=False)
class _Alarm:
    """For one loop in which requests wait; only that loop touches the timer."""

    loop: asyncio.AbstractEventLoop
    waiting: int = 0
    due: float = math.inf
    timer: asyncio.TimerHandle | None = None


@attrs.define(eq=False)
class _Place:
    """Of one request: ``new``, ``waiting``, ``admitted``, ``settled`` or ``cancelled``."""

    tokens: float
    state: str = "new"
    alarm: _Alarm | None = None
    future: asyncio.Future[None] | None = None
    entries: tuple[_Entry, _Entry] | None = None


class _Queue:
    """Who waits, across loops and threads."""

    def __init__(self, rpm: float, tpm: float, clock: Callable[[], float]) -> None:
        self._lock = threading.Lock()  # for everything below, and for places
        self._clock = clock
        self._idle_since = clock()
        self._requests = _Window(rpm, self._idle_since)
        self._tokens = _Window(tpm, self._idle_since)
        self.places: OrderedDict[_Place, None] = OrderedDict()
        self._alarms: dict[asyncio.AbstractEventLoop, _Alarm] = {}
        self._due = math.inf
        self._paused_until = -math.inf

    def join(self, place: _Place) -> asyncio.Future[None] | None:
        """What to wait for; ``None`` if it is admitted at once."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if place.state != "new":
                raise RuntimeError("a permit is for one request: call admit() for each")
            now = self._clock()
            if not self.places:
                self._tokens.forget(now - self._idle_since, now)
            self.places[place] = None
            place.state = "waiting"
            self._advance(now)
            if place.state != "waiting":
                return None
            alarm = place.alarm = self._alarms.setdefault(loop, _Alarm(loop))
            alarm.waiting += 1
            if alarm.timer is None:
                self._set(alarm, now)
            place.future = loop.create_future()
            return place.future

    def leave(self, place: _Place) -> None:
        """Cancelled while it waited, or when it was admitted and did not know yet."""
        with self._lock:
            now = self._clock()
            if place.state == "waiting":
                self._remove(place, now)
                place.state = "cancelled"
            else:
                self._correct(place, 0, sent=False, now=now)
            self._advance(now)
            assert place.alarm is not None  # it waited
            self._set(place.alarm, now)

    def settle(self, place: _Place, used: float, *, sent: bool) -> None:
        with self._lock:
            now = self._clock()
            self._correct(place, used, sent=sent, now=now)
            self._advance(now)

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)
            self._requests.hold(self._paused_until)
            self._tokens.hold(self._paused_until)

    def _correct(self, place: _Place, used: float, *, sent: bool, now: float) -> None:
        if place.state != "admitted" or place.entries is None:
            raise RuntimeError(f"only what is admitted is settled, and once: this is {place.state}")
        request, tokens = place.entries
        self._tokens.correct(tokens, used - place.tokens, now)
        if not sent:
            self._requests.correct(request, -1, now)
        place.state, place.tokens = "settled" if sent else "cancelled", used

    def _remove(self, place: _Place, now: float) -> None:
        del self.places[place]
        self._idle_since = now  # if nobody else waits
        if place.alarm is not None:
            place.alarm.waiting -= 1
            if not place.alarm.waiting:
                del self._alarms[place.alarm.loop]

    def _advance(self, now: float) -> None:
        """Admit who may go, first come, first served; let loops know if the next is due earlier."""
        self._due = math.inf
        while self.places:
            place = next(iter(self.places))
            self._due = max(
                self._paused_until,
                self._requests.ready(1, now),
                self._tokens.ready(place.tokens, now),
            )
            if self._due > now:
                break
            self._remove(place, now)
            if place.alarm is not None:
                try:
                    place.alarm.loop.call_soon_threadsafe(self._ring, place.alarm, place.future)
                except RuntimeError:  # the loop was closed
                    place.state = "cancelled"
                    continue
            # The tokens' pace makes up for time in which somebody waited: large requests leave gaps in
            # the log, and settling may give much back at once. That of requests need not.
            self._requests.forget(math.inf, now)
            place.entries = self._requests.take(1, now), self._tokens.take(place.tokens, now)
            place.state = "admitted"
        for alarm in self._alarms.values():
            if self._due < alarm.due:
                alarm.due = self._due
                with contextlib.suppress(RuntimeError):  # closed: those who waited go in their turn
                    alarm.loop.call_soon_threadsafe(self._ring, alarm)

    def _ring(self, alarm: _Alarm, admitted: asyncio.Future[None] | None = None) -> None:
        """On the alarm's own loop: its timer rang, or one of its requests is admitted."""
        if admitted is not None and not admitted.done():
            admitted.set_result(None)
        with self._lock:
            now = self._clock()
            self._advance(now)
            self._set(alarm, now)

    def _set(self, alarm: _Alarm, now: float) -> None:
        if alarm.timer is not None:
            alarm.timer.cancel()
            alarm.timer = None
        if alarm.waiting:
            alarm.due = self._due
            delay = max(self._due - now, MIN_TIMER)
            alarm.timer = alarm.loop.call_later(delay, self._ring, alarm)
