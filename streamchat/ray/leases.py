"""Leases: how one limiter serves many machines, permits for all who wait by one call; without Ray.

How a lease keeps the limit. A permit counts from when the limiter grants it, and is used a little later
on another machine: the uses of one minute may be the grants of that minute *and of what lies before it*.
So a permit must be used within ``HOLD`` seconds of its grant, or is given back unused; and the limiter
admits no more than the limit in any ``MINUTE + HOLD`` seconds, which hold every grant that one minute's
uses can come from. The price is 1.6 % of the rate.

Clocks of machines need not agree. How old a permit is when it arrives is at most what the limiter says
(on its own clock) plus all of the call's time (on the caller's clock) that the limiter did not spend.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

import attrs

from streamchat.limiter import Limiter, Permit

__all__ = ["HOLD", "MINUTE", "Lease", "LeasedLimiter", "LeasedPermit", "Limits", "Link", "Returned"]

MINUTE = 60.0
HOLD = 1.0
"""Seconds from grant to use, at most."""
GATHER = 0.25
"""Seconds that the limiter gathers grants before it hands them out."""
LINGER = 0.05
"""Seconds that an actor gathers those who wait before it asks: 20 calls a second, whatever the rate."""
MOST = 1000
"""Permits of one lease."""
KEPT = 900.0
"""Seconds that a permit may be settled; then it stands as estimated, like those of a lost actor."""
STRETCH = MINUTE / (MINUTE + HOLD)
"""The limiter's own seconds for one of ours: its minute lasts ``MINUTE + HOLD``."""

Key = tuple[str, int]
"""A permit of one life of the limiter: after a restart its numbers begin anew."""
Returned = tuple[Key, float | None]
"""A permit and what it took; ``None`` if it was never used."""

log = logging.getLogger("streamchat.ray")


@attrs.frozen
class Lease:
    """Permits for the first of those who asked."""

    keys: list[Key]
    age: float
    """Seconds since the first of them was granted, when they were sent."""
    inside: float
    """Seconds that the call spent with the limiter."""


class Link(Protocol):
    """What an actor knows of the cluster's limiter."""

    async def lease(self, wanted: list[float], /) -> Lease:
        """Wait for permits of so many tokens each."""
        ...

    def give_back(self, returned: list[Returned], /) -> None:
        """Tell what permits took; nothing waits for it."""
        ...

    def pause(self, seconds: float, /) -> None:
        """Let nobody in the cluster have a permit for so long."""
        ...


class Limits:
    """The limiter's side: what runs in its actor.

    Args:
        rpm, tpm: as for :class:`streamchat.Limiter`, of the whole cluster.
        paused: seconds in which nothing is granted, at first.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rpm: float | None,
        tpm: float | None,
        *,
        paused: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._limiter = Limiter(rpm=rpm, tpm=tpm, clock=lambda: clock() * STRETCH)
        self._life = uuid.uuid4().hex
        self._numbers = count()
        self._permits: dict[Key, Permit] = {}
        self._granted: deque[tuple[float, Key]] = deque()
        self._hold(paused)

    async def lease(self, wanted: list[float]) -> Lease:
        """Permits in the order in which they are wanted: what there is within ``GATHER`` seconds of
        the first, for which it waits as long as it must."""
        loop, started = asyncio.get_running_loop(), self._clock()
        self._forget(started - KEPT)
        keys: list[Key] = []
        first = started
        until: float | None = None
        # One at a time stands in the limiter's queue for each actor: so they take turns.
        for tokens in wanted[:MOST]:
            permit = self._limiter.admit(tokens)
            try:
                async with asyncio.timeout_at(until), permit:
                    pass
            except TimeoutError:
                break
            now = self._clock()
            if until is None:
                first, until = now, loop.time() + GATHER
            key = (self._life, next(self._numbers))
            keys.append(key)
            self._permits[key] = permit
            self._granted.append((now, key))
        now = self._clock()
        return Lease(keys, now - first, now - started)

    async def give_back(self, returned: list[Returned]) -> None:
        """Settle permits, or cancel those that were never used."""
        for key, used in returned:
            permit = self._permits.pop(key, None)  # gone: of an earlier life, or too old
            if permit is not None and used is None:
                permit.cancel()
            elif permit is not None and used is not None:
                permit.settle(used)

    async def pause(self, seconds: float) -> None:
        """Grant nothing for so long."""
        self._hold(seconds)

    def _hold(self, seconds: float) -> None:
        if seconds > 0:
            self._limiter.pause(seconds * STRETCH)

    def _forget(self, before: float) -> None:
        while self._granted and self._granted[0][0] < before:
            self._permits.pop(self._granted.popleft()[1], None)


class LeasedLimiter(Limiter):
    """An actor's side: a limiter whose permits come from the cluster's, one call for all that wait."""

    def __init__(
        self,
        link: Link,
        *,
        rpm: float | None,
        tpm: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(rpm=rpm, tpm=tpm, clock=clock)
        self._link = link
        self._clock = clock
        self._turns: dict[LeasedPermit, None] = {}
        self._paused_until = -float("inf")
        self._asking: asyncio.Task[None] | None = None
        self._returned: list[Returned] = []
        self._telling: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._turns)

    def admit(self, tokens: float = 0) -> Permit:
        """As :meth:`streamchat.Limiter.admit`."""
        super().admit(tokens)  # what can never pass is refused here
        return LeasedPermit(self, tokens)

    def pause(self, seconds: float) -> None:
        """As :meth:`streamchat.Limiter.pause`, for the whole cluster; permits on their way to another
        actor may still be used, within ``HOLD`` seconds."""
        super().pause(seconds)  # checks it
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._link.pause(seconds)

    def join(self, permit: LeasedPermit) -> None:
        """Wait in the line."""
        self._turns[permit] = None
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())

    def leave(self, permit: LeasedPermit) -> None:
        """Cancelled while it waited, or when it was granted and did not know yet."""
        self._turns.pop(permit, None)
        if permit.key is not None:
            self.give_back(permit.key, None)

    def give_back(self, key: Key, used: float | None) -> None:
        """Tell the limiter, with others, in a moment: a lease may wait for what is given back here, so
        this never waits for a lease."""
        self._returned.append((key, used))
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(GATHER, self._tell)

    def _tell(self) -> None:
        self._telling = None
        returned, self._returned = self._returned, []
        self._link.give_back(returned)

    async def _ask(self) -> None:
        try:
            while self._turns:
                await asyncio.sleep(LINGER)
                if asked := list(self._turns)[:MOST]:
                    await self._lease(asked)
        except Exception as error:  # noqa: BLE001  # for those who wait, whatever it is
            turns, self._turns = self._turns, {}
            for permit in turns:
                permit.fail(error)

    async def _lease(self, asked: list[LeasedPermit]) -> None:
        started = self._clock()
        lease = await self._link.lease([permit.tokens for permit in asked])
        now = self._clock()
        age = lease.age + max(0.0, now - started - lease.inside)
        if age > HOLD:
            log.warning("a lease of the cluster's limiter took %.1f s to arrive; given back", age)
        for permit, key in zip(asked, lease.keys, strict=False):
            if permit in self._turns and age <= HOLD and now >= self._paused_until:
                del self._turns[permit]
                permit.grant(key)
            else:  # cancelled, too old, or a pause began meanwhile
                self.give_back(key, None)


class LeasedPermit(Permit):
    """The right to send one request, of the cluster's limiter."""

    __slots__ = ("_limiter", "_state", "_tokens", "_turn", "key")

    def __init__(self, limiter: LeasedLimiter, tokens: float) -> None:
        self._limiter = limiter
        self._tokens = tokens
        self._state = "new"
        self._turn: asyncio.Future[None] | None = None
        self.key: Key | None = None
        """Which it is, once it is granted."""

    async def __aenter__(self) -> Permit:
        if self._state != "new":
            raise RuntimeError("a permit is for one request: call admit() for each")
        self._state = "waiting"
        self._turn = asyncio.get_running_loop().create_future()
        self._limiter.join(self)
        try:
            await self._turn
        except asyncio.CancelledError:
            self._limiter.leave(self)
            self._state = "cancelled"
            raise
        return self

    def grant(self, key: Key) -> None:
        """It may go."""
        self.key, self._state = key, "admitted"
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def fail(self, error: Exception) -> None:
        """It will never go."""
        self._state = "cancelled"
        if self._turn is not None and not self._turn.done():
            self._turn.set_exception(error)

    @property
    def tokens(self) -> float:
        """What the request counts for: as estimated, then as settled."""
        return self._tokens

    def settle(self, used: float) -> None:
        """As :meth:`streamchat.limiter.Permit.settle`."""
        self._return("settled", used)

    def cancel(self) -> None:
        """As :meth:`streamchat.limiter.Permit.cancel`."""
        self._return("cancelled", None)

    def _return(self, state: str, used: float | None) -> None:
        if self._state != "admitted" or self.key is None:
            raise RuntimeError(f"only what is admitted is settled, and once: this is {self._state}")
        self._state, self._tokens = state, used or 0
        self._limiter.give_back(self.key, used)

    def __repr__(self) -> str:
        return f"<LeasedPermit: {self._tokens} tokens, {self._state}>"
