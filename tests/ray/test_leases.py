"""The cluster's limiter, without a cluster: machines whose clocks disagree, on one virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from streamchat import TransportError
from streamchat.ray.leases import HOLD, Lease, LeasedLimiter, LeasedPermit, Limits, Returned
from tests.virtual import run_virtual


class Wire:
    """A link whose messages take their time, and whose ends have clocks of their own."""

    def __init__(self, limits: Limits, delay: Callable[[], float]) -> None:
        self.limits = limits
        self.delay = delay
        self.calls = 0
        self.returned: list[Returned] = []
        self.sent: set[asyncio.Task[None]] = set()

    async def lease(self, wanted: list[float], /) -> Lease:
        self.calls += 1
        await asyncio.sleep(self.delay())
        lease = await self.limits.lease(wanted)
        await asyncio.sleep(self.delay())
        return lease

    def give_back(self, returned: list[Returned], /) -> None:
        self.returned += returned
        self._send(self.limits.give_back(returned))

    def pause(self, seconds: float, /) -> None:
        self._send(self.limits.pause(seconds))

    def _send(self, message: Awaitable[None]) -> None:
        async def late() -> None:
            await asyncio.sleep(self.delay())
            await message

        task = asyncio.ensure_future(late())
        self.sent.add(task)
        task.add_done_callback(self.sent.discard)


def cluster(
    *, actors: int, delay: Callable[[], float], rpm: float | None = None, tpm: float | None = None
) -> tuple[list[Wire], list[LeasedLimiter]]:
    loop = asyncio.get_running_loop()
    limits = Limits(rpm, tpm, clock=lambda: loop.time() + 1000)
    wires = [Wire(limits, delay) for _ in range(actors)]
    limiters = [
        LeasedLimiter(wire, rpm=rpm, tpm=tpm, clock=lambda off=number: loop.time() - 7 * off)
        for number, wire in enumerate(wires)
    ]
    return wires, limiters


def most(uses: list[tuple[float, float]], seconds: float = 60.0) -> float:
    """The most that was used in any so many seconds."""
    uses = sorted(uses)
    held, peak, first = 0.0, 0.0, 0
    for at, amount in uses:
        held += amount
        while uses[first][0] <= at - seconds:
            held -= uses[first][1]
            first += 1
        peak = max(peak, held)
    return peak


async def settled(wires: list[Wire]) -> None:
    """Let what was given back arrive."""
    await asyncio.sleep(5)
    assert not any(wire.sent for wire in wires)


@pytest.mark.parametrize("seed", range(6))
def test_never_above_the_limit_in_any_minute(seed: int) -> None:
    """Four actors that always have more to send: 97 % of the limits or more, never above."""

    async def main() -> None:
        chance = random.Random(seed)
        rpm, tpm = chance.choice([60, 600, 3000]), chance.choice([None, 100_000])
        slow = seed % 2

        def delay() -> float:
            return chance.expovariate(1000) + (slow and chance.random() < 0.02) * 2 * HOLD

        wires, limiters = cluster(actors=4, rpm=rpm, tpm=tpm, delay=delay)
        loop = asyncio.get_running_loop()
        uses: list[tuple[float, float]] = []

        async def ask(limiter: LeasedLimiter) -> None:
            while loop.time() < 180:
                estimate = chance.randrange(1, 900)
                async with limiter.admit(estimate) as permit:
                    used = chance.randrange(estimate)
                    uses.append((loop.time(), used))
                await asyncio.sleep(chance.expovariate(2))
                permit.settle(used)

        async with asyncio.TaskGroup() as group:
            for limiter in limiters:
                for _ in range(40):
                    group.create_task(ask(limiter))
        assert most([(at, 1) for at, _ in uses]) <= rpm
        assert tpm is None or most(uses) <= tpm
        late = [at for at, _ in uses if 60 <= at < 180]
        if tpm is None:  # with tokens, what is estimated too much is held back meanwhile
            # A lease that comes too late is lost time: its permits have to be granted again.
            assert len(late) >= 2 * rpm * (0.75 if slow else 0.97)
        assert sum(wire.calls for wire in wires) <= 4 * 21 * 200
        if rpm == 3000 and not slow:
            assert sum(wire.calls for wire in wires) < len(uses) / 2, "no call a request"
        await settled(wires)

    run_virtual(main())


def test_a_burst_is_one_call() -> None:
    """Whoever waits is served by the same lease."""

    async def main() -> None:
        (wire,), (limiter,) = cluster(actors=1, rpm=60_000, delay=lambda: 0.001)
        async with asyncio.TaskGroup() as group:
            for _ in range(500):
                group.create_task(limiter.admit().__aenter__())
        assert wire.calls == 1

    run_virtual(main())


def test_what_is_late_is_given_back_and_asked_for_again() -> None:
    """A permit that took longer than it may be held is not used."""

    async def main() -> None:
        delays = iter([0.0, HOLD + 0.1] + 20 * [0.0])
        (wire,), (limiter,) = cluster(actors=1, rpm=6000, delay=lambda: next(delays))
        async with limiter.admit():
            pass
        assert wire.calls == 2
        await settled([wire])
        assert [used for _, used in wire.returned] == [None]

    run_virtual(main())


def test_who_is_cancelled_uses_nothing_up() -> None:
    """Whether it waited or was granted meanwhile: the whole limit is there for others."""

    async def main() -> None:
        (wire,), (limiter,) = cluster(actors=1, tpm=1000, delay=lambda: 0.01)
        first = asyncio.ensure_future(limiter.admit(1000).__aenter__())
        await asyncio.sleep(0.055)  # asked, and not answered
        assert (wire.calls, limiter.waiting) == (1, 1)
        first.cancel()
        assert limiter.waiting == 1
        before = asyncio.get_running_loop().time()
        async with limiter.admit(10):
            assert asyncio.get_running_loop().time() - before < 2
        assert first.cancelled()
        await settled([wire])
        assert [used for _, used in wire.returned] == [None]

    run_virtual(main())


def test_who_is_cancelled_in_the_moment_of_the_grant_uses_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Granted, but not told yet."""
    grant = LeasedPermit.grant

    async def main() -> None:
        (wire,), (limiter,) = cluster(actors=1, tpm=1000, delay=lambda: 0.01)
        permit = limiter.admit(1000)
        waiting = asyncio.ensure_future(permit.__aenter__())

        def granted(one: LeasedPermit, key: tuple[str, int]) -> None:
            grant(one, key)
            waiting.cancel()

        monkeypatch.setattr(LeasedPermit, "grant", granted)
        await asyncio.wait([waiting])
        await settled([wire])
        assert waiting.cancelled()
        assert [used for _, used in wire.returned] == [None]

    run_virtual(main())


def test_a_pause_is_for_all() -> None:
    """What one actor is told by a server, all obey; a permit on its way is given back."""

    async def main() -> None:
        wires, limiters = cluster(actors=3, rpm=6000, delay=lambda: 0.01)
        loop = asyncio.get_running_loop()
        on_its_way = asyncio.ensure_future(limiters[0].admit().__aenter__())
        await asyncio.sleep(0.055)
        limiters[0].pause(30)
        told = loop.time()
        await asyncio.sleep(0.02)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(one.admit().__aenter__()) for one in limiters]
            asked.append(on_its_way)
            while not all(task.done() for task in asked):
                assert loop.time() < told + 40
                await asyncio.sleep(0.01)
                assert loop.time() >= told + 30 or not any(task.done() for task in asked)
        await settled(wires)

    run_virtual(main())


def test_what_was_estimated_too_much_is_given_back_while_another_waits_for_it() -> None:
    """One actor's settling lets another's request go: neither waits for a lease to be told."""

    async def main() -> None:
        wires, (one, other) = cluster(actors=2, tpm=1000, delay=lambda: 0.01)
        loop = asyncio.get_running_loop()
        async with one.admit(1000) as permit:
            pass
        waiting = asyncio.ensure_future(other.admit(900).__aenter__())
        more = asyncio.ensure_future(one.admit(5).__aenter__())  # one's own lease waits too
        await asyncio.sleep(1)
        permit.settle(10)
        assert (permit.tokens, repr(permit)) == (10, "<LeasedPermit: 10 tokens, settled>")
        before = loop.time()
        await waiting
        assert loop.time() - before < 5
        await more
        await settled(wires)
        with pytest.raises(RuntimeError, match="once"):
            permit.settle(10)

    run_virtual(main())


def test_a_lost_limiter_is_an_error_for_all_that_wait() -> None:
    """Nobody waits for ever, and nobody goes without a permit."""

    class Gone(Wire):
        async def lease(self, wanted: list[float], /) -> Lease:
            raise TransportError("the cluster's limiter was lost", kind="closed")

    async def main() -> None:
        limiter = LeasedLimiter(Gone(Limits(60, None), lambda: 0), rpm=60, tpm=None)
        waiting = [asyncio.ensure_future(limiter.admit().__aenter__()) for _ in range(3)]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == 3 * [TransportError]
        assert limiter.waiting == 0

    run_virtual(main())


def test_a_request_above_the_limit_is_refused() -> None:
    """It would wait for ever."""

    async def main() -> None:
        _, (limiter,) = cluster(actors=1, tpm=100, delay=lambda: 0)
        with pytest.raises(ValueError, match="never passes"):
            limiter.admit(101)

    run_virtual(main())
