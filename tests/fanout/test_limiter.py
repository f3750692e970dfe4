"""The limiter's promises, each on a virtual clock: never above, hardly below, in turn, nothing left."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from streamchat.limiter import (
    GRAIN,
    MIN_TIMER,
    Limiter,
    Permit,
    estimate_tokens,
)
from streamchat.policy import AdaptiveConcurrency
from tests.virtual import VirtualLoop

SEEDS = 1000
BATCHES = 10


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """On a virtual clock; no callback may fail, and no task or timer be left."""
    failed: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        loop.set_exception_handler(lambda _, context: failed.append(context))
        runner.run(main(loop))
        assert not failed
        assert not asyncio.all_tasks(loop)
        assert not timers(loop)


def timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    return [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Log:
    """What was admitted, kept by the test: each charge at its time, corrected when it is settled."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.charges: deque[list[float]] = deque()  # time, requests, tokens

    def charge(self, requests: float, tokens: float) -> list[float]:
        self.charges.append([self.loop.time(), requests, tokens])
        return self.charges[-1]

    def of_the_last(self, seconds: float) -> tuple[float, float]:
        """Requests and tokens, the moment ``seconds`` ago not included."""
        now = self.loop.time()
        while self.charges and self.charges[0][0] + 61 <= now:
            self.charges.popleft()
        inside = [one for one in self.charges if one[0] + seconds > now]
        return sum(one[1] for one in inside), sum(one[2] for one in inside)

    def settle(self, charge: list[float], used: float) -> None:
        if used > charge[2]:
            self.charge(0, used - charge[2])
        else:
            charge[2] = used


async def saturate(loop: VirtualLoop, seed: int) -> None:
    """Keep a limiter of random limits busy for two minutes, by random requests.

    Random seconds apart, or at once; answered after up to 90 s, with fewer or more tokens than
    estimated. A third of the seeds has requests that are cancelled while they wait, and pauses.
    """
    rng = random.Random(seed)
    binding = rng.choice(("rpm", "tpm", "both"))
    disturbed = binding == "both" or seed % 5 == 0
    per_minute = math.exp(rng.uniform(0, math.log(70)))
    largest = rng.choice((0.02, 0.1, 1.0))
    mean = rng.choice((10, 300, 4000))
    ratio = {"rpm": rng.choice((2.5, 100)), "tpm": 0.4, "both": rng.uniform(0.5, 2)}[binding]
    rpm: float | None = max(1, round(per_minute))
    tpm: float | None = max(mean, round(per_minute * mean * ratio))
    assert rpm is not None
    assert tpm is not None
    cap = max(1, min(2 * mean, largest * tpm))
    if binding == "tpm":
        rpm = rng.choice((None, 10_000))
    if binding == "rpm" and rng.random() < 0.5:
        tpm = None
    limiter = Limiter(rpm=rpm, tpm=tpm, clock=loop.time)
    log, end = Log(loop), 122.0
    accurate = rng.random() < 0.3

    def settle(permit: Permit, charge: list[float]) -> None:
        used = round(permit.tokens * (1 if accurate else rng.choice((0.1, 0.5, 0.9, 1, 1.2))))
        permit.settle(used)
        log.settle(charge, used)

    last, at_once = -1.0, 0

    async def work(gap: float) -> None:
        nonlocal last, at_once
        while loop.time() < end:
            if gap:
                await asyncio.sleep(rng.expovariate(1 / gap))
            if disturbed and rng.random() < 0.02:
                limiter.pause(rng.uniform(0, 5))
            tokens = rng.randint(1, max(1, int(cap)))
            hasty = disturbed and rng.random() < 0.2
            try:
                async with (
                    asyncio.timeout(rng.expovariate(1) if hasty else None),
                    limiter.admit(tokens) as permit,
                ):
                    at_once = at_once + 1 if loop.time() == last else 1
                    last = loop.time()
                    charge = log.charge(1, tokens)
                    requests, used = log.of_the_last(60)
                    assert rpm is None or requests <= rpm, seed
                    assert tpm is None or used <= tpm, seed
                    assert rpm is None or at_once <= max(1, rpm / 100), seed
            except TimeoutError:
                continue
            if rng.random() < 0.9:
                loop.call_later(rng.choice((0.5, 5, 90)) * rng.random(), settle, permit, charge)

    async def measure() -> None:
        for moment in (60.1, 61, 75, 100, 120.1):
            await asyncio.sleep(moment - loop.time())
            requests, used = log.of_the_last(60 + GRAIN + MIN_TIMER)
            if binding == "rpm":
                assert rpm is not None
                assert requests >= 0.99 * rpm - 1, (seed, moment, requests, rpm)
            elif binding == "tpm":
                assert tpm is not None
                # Less the next request, and 20 % that an answer may take more than was estimated.
                assert used >= 0.99 * tpm - 1.2 * cap, (seed, moment, used, tpm, cap)

    async with asyncio.TaskGroup() as group:
        for gap in (0, 0, rng.choice((0, 0.1, 10))):
            group.create_task(work(gap))
        if not disturbed:
            group.create_task(measure())
    await asyncio.sleep(91)  # for what is to be settled
    assert limiter.waiting == 0


@pytest.mark.parametrize("batch", range(BATCHES))
def test_never_above_the_limit_and_under_saturation_hardly_below(batch: int) -> None:
    """In any minute at most the limit; after the first, at least 99 % of it, less what cannot be cut."""
    for seed in range(batch, SEEDS, BATCHES):
        run(lambda loop, seed=seed: saturate(loop, seed))  # type: ignore[misc]


@pytest.mark.parametrize("rpm", [100, 1000, 3000])
def test_requests_are_paced_from_the_first_minute_on(rpm: int) -> None:
    """One percent at once, then evenly: each tenth of a minute has its tenth."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=rpm, clock=loop.time)
        times: list[float] = []

        async def work() -> None:
            while loop.time() < 120:
                async with limiter.admit():
                    times.append(loop.time())

        await asyncio.gather(*(work() for _ in range(3)))
        assert rpm // 100 - 1 <= times.count(0.0) <= rpm // 100  # rounding may cost one
        for tenth in range(20):
            count = sum(6 * tenth <= time < 6 * tenth + 6 for time in times)
            assert abs(count - rpm / 10) <= rpm / 100 + 1
        assert 0.99 * rpm <= sum(time < 60 for time in times) <= rpm

    run(main)


def test_tokens_are_paced_as_well() -> None:
    """A thousand requests that would fill a minute do not begin at once."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=100_000, clock=loop.time)
        times = [0.0] * 1000

        async def request(number: int) -> None:
            async with limiter.admit(tokens=200):
                times[number] = loop.time()

        await asyncio.gather(*(request(number) for number in range(1000)))
        assert sum(time < 0.1 for time in times) <= 6
        assert 495 <= sum(time < 60 for time in times) <= 500
        assert times == sorted(times)
        assert 118 < times[-1] < 121

    run(main)


def test_light_use_saves_nothing_up() -> None:
    """What was not used, or was given back, makes no burst later."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=60_000, clock=loop.time)
        for _ in range(100):
            async with limiter.admit(500) as permit:
                loop.call_later(0.5, permit.settle, 100)
            await asyncio.sleep(1)
        start, at_once = loop.time(), 0

        async def request() -> None:
            nonlocal at_once
            async with limiter.admit(100):
                at_once += loop.time() < start + 0.05

        await asyncio.gather(*(request() for _ in range(300)))
        assert 1 <= at_once <= 7

    run(main)


def test_what_was_to_be_made_up_for_is_forgotten_when_nobody_waits() -> None:
    """A minute given back at the end of a busy time makes no burst after a quiet one."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=60_000, clock=loop.time)
        async with limiter.admit(60_000) as permit:
            loop.call_later(59, permit.settle, 0)
            async with limiter.admit(1):
                assert loop.time() == 59
        await asyncio.sleep(120)
        start, at_once = loop.time(), 0

        async def request() -> None:
            nonlocal at_once
            async with limiter.admit(200):
                at_once += loop.time() < start + 0.05

        await asyncio.gather(*(request() for _ in range(100)))
        assert 1 <= at_once <= 4

    run(main)


def test_one_after_the_other_uses_all_that_is_given_back() -> None:
    """Nobody else waits in between, and what is settled comes in lumps: still a full minute."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=60_000, clock=loop.time)
        used = [0.0, 0.0]
        while (minute := int(loop.time() // 60)) < 2:
            async with limiter.admit(6000) as permit:
                loop.call_at(10 * math.ceil(loop.time() / 10 + 0.001), permit.settle, 3000)
                used[minute] += 3000
        await asyncio.sleep(10)
        assert 0.84 * 60_000 < used[1] <= 60_000  # some is always held until it is settled

    run(main)


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    """The queue is strictly first come, first served."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=100, clock=loop.time)
        order: list[tuple[str, float]] = []

        async def request(name: str, tokens: int) -> None:
            async with limiter.admit(tokens):
                order.append((name, loop.time()))

        await asyncio.gather(request("a", 90), request("large", 100), request("small", 1))
        assert [name for name, _ in order] == ["a", "large", "small"]
        assert [when for _, when in order] == pytest.approx([0, 60, 120], abs=0.01)

    run(main)


def test_a_newcomer_does_not_overtake_who_waits() -> None:
    """Also not in the moment when there is room for both."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=1, clock=loop.time)
        order: list[str] = []

        async def request(name: str) -> None:
            async with limiter.admit():
                order.append(name)

        async with asyncio.TaskGroup() as group:
            for name in ("first", "second"):
                group.create_task(request(name))
            loop.call_at(60, lambda: group.create_task(request("newcomer")))
            await asyncio.sleep(60)
        assert order == ["first", "second", "newcomer"]
        assert loop.time() == pytest.approx(120, abs=0.01)

    run(main)


def test_a_pause_is_for_all_and_the_longest_counts() -> None:
    """Retry-After of one request holds up those that wait and those that come; then no burst."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=600, clock=loop.time)
        times: list[float] = []

        async def request() -> None:
            async with limiter.admit():
                times.append(loop.time())

        limiter.pause(20)
        limiter.pause(5)
        early = [asyncio.create_task(request()) for _ in range(10)]
        await asyncio.sleep(6)
        assert times == []
        limiter.pause(24)  # until 30
        await asyncio.gather(*early, *(request() for _ in range(10)))
        assert times == pytest.approx([30 + 0.1 * number for number in range(20)], abs=0.01)

    run(main)


@pytest.mark.parametrize("limits", [{}, {"rpm": 60}, {"tpm": 60}, {"rpm": 60, "tpm": 60}])
def test_who_waited_before_a_pause_waits_to_its_end(limits: dict[str, float]) -> None:
    """The longest counts, even if places are given back meanwhile; then no burst."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(**limits, clock=loop.time)
        times: list[float] = []

        async def request() -> None:
            async with limiter.admit(1):
                times.append(loop.time())

        async with limiter.admit(1) as permit:
            limiter.pause(0.001)
            waiting = [asyncio.create_task(request()) for _ in range(10)]
            await turns()
            limiter.pause(20)
            limiter.pause(5)
            permit.cancel()
        await asyncio.gather(*waiting)
        expected = [20 + (number if limits else 0) for number in range(10)]
        assert times == pytest.approx(expected, abs=1.01)
        assert times[0] >= 20

    run(main)


def test_a_timer_that_rings_too_early_does_not_ring_without_end() -> None:
    """The loop's clock may be coarser than ours: then a timer for what is left rings at once."""

    async def main(loop: VirtualLoop) -> None:
        loop._jumping.now = 1e6
        limiter = Limiter(rpm=70, clock=lambda: loop.time() - 1e6)
        for _ in range(70):
            async with limiter.admit():
                pass
        assert loop.time() - 1e6 == pytest.approx(59, abs=1)

    run(main)


def test_without_limits_only_a_pause_waits() -> None:
    """Neither limit: at once, without a future."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(clock=loop.time)
        for _ in range(1000):
            async with limiter.admit(10**9):
                pass
        assert loop.time() == 0
        limiter.pause(7)
        async with limiter.admit():
            assert loop.time() == 7

    run(main)


def test_what_was_estimated_too_much_is_given_back() -> None:
    """Settling wakes who waits, now."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=100, clock=loop.time)
        async with limiter.admit(100) as permit:
            loop.call_later(10, permit.settle, 20)
            async with limiter.admit(80):
                # The pace, too, knows of no more than 20 tokens, and those are 12 s ahead.
                assert loop.time() == pytest.approx(12 - 0.3, abs=0.01)
            async with limiter.admit(20):
                assert loop.time() == pytest.approx(60, abs=0.01)
        assert permit.tokens == 20

    run(main)


def test_what_was_estimated_too_little_counts_from_then_on() -> None:
    """Also when it was admitted more than a minute ago: those tokens were used since."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=100, clock=loop.time)
        async with limiter.admit(10) as permit:
            await asyncio.sleep(70)
            permit.settle(250)
            async with limiter.admit(1):
                assert loop.time() >= 130

    run(main)


def test_nothing_is_given_back_that_has_expired() -> None:
    """Settled low after its minute: the log has forgotten it."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=100, clock=loop.time)
        async with limiter.admit(100) as old:
            await asyncio.sleep(60)
            async with limiter.admit(60):
                old.settle(0)
                async with limiter.admit(60):
                    assert loop.time() == pytest.approx(120, abs=0.01)

    run(main)


def test_a_request_that_was_never_sent_gives_its_place_back() -> None:
    """cancel() gives request and tokens back, settle(0) the tokens only."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=1, tpm=100, clock=loop.time)
        async with limiter.admit(100) as permit:
            permit.cancel()
        async with limiter.admit(100) as permit:
            assert loop.time() == 0
            permit.settle(0)
        async with limiter.admit(100):
            assert loop.time() == pytest.approx(60, abs=0.01)

    run(main)


@pytest.mark.parametrize("leaving", [0, 1, 2], ids=["head", "middle", "tail"])
def test_a_cancelled_request_gives_up_its_place(leaving: int) -> None:
    """The others keep their order and move up; one timer stays."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(tpm=100, clock=loop.time)
        times: dict[int, float] = {}

        async def request(number: int, tokens: int) -> None:
            async with limiter.admit(tokens):
                times[number] = loop.time()

        async with limiter.admit(40):
            pass
        tasks = [asyncio.create_task(request(number, 90)) for number in range(3)]
        await asyncio.sleep(1)
        assert limiter.waiting == 3
        assert len(timers(loop)) == 1
        tasks[leaving].cancel()
        await turns()
        assert limiter.waiting == 2
        assert len(timers(loop)) == 1
        await asyncio.wait(tasks)
        assert list(times) == [number for number in range(3) if number != leaving]
        assert list(times.values()) == pytest.approx([60, 120], abs=0.01)

    run(main)


def test_when_a_large_head_is_cancelled_the_next_goes_at_once() -> None:
    """It need not wait for a timer that was set for the large one."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=1e6, tpm=100, clock=loop.time)
        async with limiter.admit(20):
            pass
        head = asyncio.create_task(limiter.admit(100).__aenter__())
        after = asyncio.create_task(limiter.admit(50).__aenter__())
        await asyncio.sleep(30)
        head.cancel()
        await after
        assert loop.time() == 30

    run(main)


def test_cancelled_after_it_was_admitted_and_before_it_knew() -> None:
    """Its place goes to the next."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=1, clock=loop.time)
        async with limiter.admit() as permit:
            first = asyncio.create_task(limiter.admit().__aenter__())
            second = asyncio.create_task(limiter.admit().__aenter__())
            await asyncio.sleep(1)
            permit.cancel()
            assert limiter.waiting == 1
            first.cancel()
            await second
            assert loop.time() == 1
            assert first.cancelled()

    run(main)


def test_a_storm_of_cancellations_leaves_nothing() -> None:
    """Ten thousand wait, all are cancelled; the limiter is as it was."""

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=60, clock=loop.time)
        async with limiter.admit():
            pass
        tasks = [asyncio.create_task(limiter.admit().__aenter__()) for _ in range(10_000)]
        await turns()
        assert limiter.waiting == 10_000
        assert len(timers(loop)) == 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert limiter.waiting == 0
        assert not timers(loop)
        assert not limiter._queue._alarms

    run(main)


def test_two_loops_in_two_threads_share_one_limit() -> None:
    """All are admitted, each thread in its order, and not faster than one would be."""
    loops = [VirtualLoop(), VirtualLoop()]
    limiter = Limiter(rpm=100, clock=lambda: max(loop.time() for loop in loops))
    orders: list[list[int]] = [[], []]
    failures: list[BaseException] = []
    both = threading.Barrier(2, timeout=30)

    async def requests(order: list[int]) -> None:
        async def request(number: int) -> None:
            async with limiter.admit():
                order.append(number)

        tasks = [asyncio.create_task(request(number)) for number in range(150)]
        await turns()
        both.wait()
        await asyncio.gather(*tasks)

    def thread(loop: VirtualLoop, order: list[int]) -> None:
        try:
            loop.run_until_complete(requests(order))
            assert not timers(loop)
        except BaseException as failure:
            failures.append(failure)

    threads = [
        threading.Thread(target=thread, args=pair) for pair in zip(loops, orders, strict=True)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    elapsed = max(loop.time() for loop in loops)
    for loop in loops:
        loop.close()
    assert not failures
    assert orders == [list(range(150))] * 2
    assert 0.6 * 298 < elapsed < 0.6 * 302
    assert limiter.waiting == 0
    assert not limiter._queue._alarms


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "stopped"])
def test_a_loop_that_is_gone_holds_up_nobody(
    closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Head and middle of the queue wait in a loop that will never run again."""
    gone, alive = VirtualLoop(), VirtualLoop()
    limiter = Limiter(rpm=1, clock=alive.time)
    lost: list[asyncio.Task[Permit]] = []
    kept: list[asyncio.Task[Permit]] = []

    async def wait(tasks: list[asyncio.Task[Permit]]) -> None:
        tasks.append(asyncio.create_task(limiter.admit().__aenter__()))
        await turns(2)

    async def end() -> None:
        await asyncio.gather(*kept)

    for loop, tasks in ((alive, kept), (gone, lost), (alive, kept), (gone, lost), (alive, kept)):
        loop.run_until_complete(wait(tasks))
    assert limiter.waiting == 4
    if closed:
        gone.close()
    alive.run_until_complete(end())
    assert limiter.waiting == 0
    assert not limiter._queue._alarms
    assert not timers(alive)
    # Whether a stopped loop will go on is not known: its requests count.
    assert alive.time() == pytest.approx(120 if closed else 240, abs=0.01)
    alive.close()
    if not closed:
        gone.run_until_complete(asyncio.gather(*lost))
        gone.close()
    lost.clear()
    caplog.clear()


def test_the_only_one_left_wakes_itself() -> None:
    """The head's loop was closed with its timer, and nobody comes."""
    gone, alive = VirtualLoop(), VirtualLoop()
    limiter = Limiter(rpm=1, clock=alive.time)
    tasks: list[asyncio.Task[Permit]] = []

    async def wait() -> None:
        tasks.append(asyncio.create_task(limiter.admit().__aenter__()))
        await turns(2)

    async def end() -> None:
        await tasks[-1]

    for loop in (gone, gone, alive):
        loop.run_until_complete(wait())
    gone.close()
    alive.run_until_complete(end())
    assert alive.time() == pytest.approx(60, abs=0.01)
    assert not timers(alive)
    alive.close()


def test_many_loops_in_turn() -> None:
    """Like a client: one limiter, one asyncio.run after the other."""
    time = 0.0
    limiter = Limiter(rpm=2, clock=lambda: time)
    times: list[float] = []

    async def main(loop: VirtualLoop) -> None:
        nonlocal time
        permit = asyncio.create_task(limiter.admit().__aenter__())
        await turns()
        while not permit.done():
            time += 1
            await asyncio.sleep(1)
        times.append(time)

    for _ in range(4):
        run(main)
    assert times == pytest.approx([0, 30, 60, 90], abs=2)


def test_the_log_is_bounded() -> None:
    """However many requests a minute: a thousand entries for each limit."""
    now = itertools.count()

    async def main(loop: VirtualLoop) -> None:
        limiter = Limiter(rpm=1e9, tpm=1e9, clock=lambda: next(now) / 200)
        for _ in range(20_000):
            async with limiter.admit(1):
                pass
        for window in (limiter._queue._requests, limiter._queue._tokens):
            assert len(window._log) <= 1026

    run(main)


NOT_FINITE = (
    *(math.nan, math.inf, -math.inf, 10**400, -(10**400)),
    *(pytest.param(sign * 10**5000, id=f"{sign}e5000") for sign in (1, -1)),
)
"""``math.isfinite`` overflows above 1.8e308; ``str`` refuses an integer of more than 4,300 digits."""


@pytest.mark.parametrize("limit", [True, "1", [], *NOT_FINITE, 0, 0.5, -1])
@pytest.mark.parametrize("name", ["rpm", "tpm"])
def test_a_limit_is_a_number_from_one(name: str, limit: Any) -> None:
    """Anything else is refused, by name."""
    kind = ValueError if isinstance(limit, float | int) and limit is not True else TypeError
    with pytest.raises(kind, match=f"{name} must be .*None is no limit"):
        Limiter(**{name: limit})


@pytest.mark.parametrize("number", [True, "1", None, *NOT_FINITE, -1])
@pytest.mark.parametrize("method", ["admit", "pause", "settle"])
async def test_other_numbers_are_checked_too(method: str, number: Any) -> None:
    """Tokens and seconds: finite and not negative."""
    limiter = Limiter(rpm=10)
    kind = TypeError if number in (True, "1", None) else ValueError
    async with limiter.admit() as permit:
        with pytest.raises(kind, match="must be"):
            getattr(permit if method == "settle" else limiter, method)(number)
        permit.settle(0)


def test_what_can_never_pass_is_refused() -> None:
    """With both numbers and what to do."""
    limiter = Limiter(tpm=1000)
    with pytest.raises(ValueError, match=r"5000 tokens never passes .* 1000 .*max_tokens"):
        limiter.admit(tokens=5000)
    limiter.admit(tokens=1000)


async def test_a_permit_is_for_one_request_and_settled_once() -> None:
    """Whatever comes twice, or too early, is a RuntimeError and changes nothing."""
    limiter = Limiter(rpm=10, tpm=100)
    permit = limiter.admit(10)
    assert repr(permit) == "<Permit: 10 tokens, new>"
    with pytest.raises(RuntimeError, match="new"):
        permit.settle(1)
    with pytest.raises(RuntimeError, match="new"):
        permit.cancel()
    async with permit:
        with pytest.raises(RuntimeError, match="one request"):
            await permit.__aenter__()
    permit.settle(5)
    assert repr(permit) == "<Permit: 5 tokens, settled>"
    with pytest.raises(RuntimeError, match="settled"):
        permit.settle(1)
    with pytest.raises(RuntimeError, match="settled"):
        permit.cancel()
    assert permit.tokens == 5


def test_the_repr_shows_the_limits() -> None:
    """As one would write it."""
    assert repr(Limiter(rpm=500, tpm=1_000_000)) == "Limiter(rpm=500, tpm=1000000)"
    assert repr(Limiter()) == "Limiter(rpm=None, tpm=None)"


def test_the_estimate() -> None:
    """A quarter of the bytes, plus max_tokens or 500."""
    assert estimate_tokens(b"x" * 4000, 100) == 1100
    assert estimate_tokens(b"x" * 4000) == 1500
    assert estimate_tokens(b"", 0) == 0


def test_concurrency_is_halved_once_a_round_trip() -> None:
    """429s of requests that were sent before the last halving say nothing new."""
    concurrency = AdaptiveConcurrency(64, minimum=10)
    concurrency.on_rate_limit(started=0, now=1)
    for started in (0, 0.5, 1):
        concurrency.on_rate_limit(started=started, now=2)
    assert concurrency.limit == 32
    concurrency.on_rate_limit(started=1.5, now=3)
    assert concurrency.limit == 16
    concurrency.on_rate_limit(started=3.5, now=4)
    assert concurrency.limit == 10


def test_concurrency_grows_by_one_a_round_up_to_the_start() -> None:
    """As many successes as run, one more; never more than at first."""
    concurrency = AdaptiveConcurrency(4)
    for _ in range(3):
        concurrency.on_success()  # these count no more after a halving
    concurrency.on_rate_limit(started=0, now=1)
    limits = []
    for _ in range(12):
        concurrency.on_success()
        limits.append(concurrency.limit)
    assert limits == [2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("limit", "minimum", "kind"),
    [(0, 1, ValueError), (4, 5, ValueError), (4, 0, ValueError)]
    + [(bad, 1, TypeError) for bad in (True, 2.0, "2", None)]
    + [(4, bad, TypeError) for bad in (True, 2.0, "2", None)],
)
def test_concurrency_is_whole_numbers(limit: Any, minimum: Any, kind: type[Exception]) -> None:
    """1 <= minimum <= limit."""
    with pytest.raises(kind):
        AdaptiveConcurrency(limit, minimum=minimum)
