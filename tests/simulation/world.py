"""One seed, one world: streams, their network and their users, run on a virtual clock and checked.

``run_seed(n)`` draws everything from ``Random(n)``, runs it, and compares what happened with what
``tests.simulation.model`` says must happen. A difference is an :class:`Broken` that names the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

from streamchat import ChatStream, Dispatcher, Retry, StreamChatError, Timeout
from streamchat.plan import Plan
from streamchat.policy import RetryBudget
from streamchat.protocol.request import ChatRequest
from streamchat.transport import Transport
from tests.simulation.model import Course, Limits, Oracle, text_of
from tests.simulation.transport import EPS, Script, SimTransport
from tests.simulation.wire import (
    LIMIT,
    Item,
    Seen,
    fold,
    plain_answer,
    seen_event,
    write_answer,
)
from tests.virtual import VirtualLoop

REQUEST = ChatRequest.build("Hi", "command-test", {})
NEAR = 1e-3
"""An intervention so close to another moment may come before or after it."""

ON_ERROR_TAKES = 0.5
"""Seconds, of a slow ``on_error`` handler."""


class Broken(AssertionError):
    """An invariant does not hold; the message names the seed."""


class HandlerError(Exception):
    """What a user's handler raises."""


# --- drawing -------------------------------------------------------------------------------------


@dataclass(slots=True)
class User:
    """Who consumes a stream, and how."""

    how: str
    """iterate, await, with_iterate, with_await, text, thinking, frames"""
    bare: bool
    """No handlers at all."""
    pauses: dict[int, float]
    """Seconds the consumer takes after the n-th thing it got."""
    handler_pauses: dict[int, float]
    """Seconds the handlers take for the n-th event."""
    leave: str
    """none, break, drop, cancel, aclose, timeout, raise, recovered, close, cancel_turns,
    aclose_turns"""
    when: int
    """Ordinal, or turns of the loop."""
    at: float
    """Seconds after the start."""
    on_error: str
    """none, observe, raises, slow"""


@dataclass(slots=True, eq=False)
class Life:
    """One stream of a world, and what was seen of it."""

    scripts: list[Script]
    limits: Limits
    user: User
    start: float
    jitter_seed: int
    transport: SimTransport = field(init=False)
    budget: _Share = field(init=False)
    box: list[ChatStream] = field(default_factory=list)
    ref: Any = None
    heard: list[Seen] = field(default_factory=list)
    heard_last: list[Seen] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    raised: BaseException | None = None
    response: Any = None
    ended: float = 0.0
    own_error: BaseException | None = None
    snapshot: Any = None
    in_own_code: bool = False
    """Whether the consumer was in its own code when it ended."""


class _Share:
    """A stream's view of the shared budget; remembers what it was answered."""

    def __init__(self, shared: RetryBudget, log: list[tuple[str, bool]]) -> None:
        self.shared, self.log = shared, log
        self.grants: list[bool] = []

    def take(self) -> bool:
        granted = self.shared.take()
        self.grants.append(granted)
        self.log.append(("take", granted))
        return granted

    def refund(self) -> None:
        self.shared.refund()
        self.log.append(("refund", True))


def _draw_script(rng: Random, *, last: bool, limits: Limits) -> Script:
    script = Script(connect=rng.choice([0.0, 0.01, rng.random(), rng.random() * 5]))
    if rng.random() < 0.02:
        script.connect = rng.random() * 300
    bad = rng.random()
    if bad < (0.08 if last else 0.45):
        script.refused = rng.choice(
            ["refused", "refused", "dns", "certificate", "reset", "timeout"]
        )
        return script
    if bad < (0.2 if last else 0.8):
        choices = [503, 503, 500, 429, 429, 408, 409, 400, 401, 404, 422, 498, 501, 204, 307, 529]
        script.status = rng.choice(choices)
        script.error_body = rng.choice([0.0, 0.0, 0.3, 30.0])
        if script.status in (429, 503) and rng.random() < 0.5:
            script.headers["retry-after"] = rng.choice(["1", "0.5", "20", "61", "3600"])
        if script.status == 307:
            script.headers["location"] = "https://evil.example/x"
        return script
    if bad < (0.23 if last else 0.83):
        script.headers["content-type"] = rng.choice(["text/html", "text/plain", ""])
        script.error_body = rng.choice([0.0, 2.0, 30.0])
        return script
    if rng.random() < 0.1:
        script.headers["content-type"] = "text/event-stream; charset=latin-1"
    _draw_body(rng, script, early=not last, limits=limits)
    return script


def _draw_body(rng: Random, script: Script, *, early: bool, limits: Limits) -> None:
    items = write_answer(rng)
    wire = b"".join(item.wire for item in items)
    cut = len(wire)
    script.end = "eof"
    if early:
        cut = rng.randrange(min(len(wire), len(items[0].wire)))
    elif rng.random() < 0.35:
        cut = rng.randrange(len(wire) + 1)
    if cut < len(wire) or rng.random() < 0.1:
        script.end = rng.choice(["eof", "reset", "reset", "hang"])
    if early and script.end == "hang":
        script.end = "reset"
    script.items, script.merged = items, rng.random() < 0.5
    script.arrivals = _chunk(rng, items, wire[:cut], limits)
    last = script.arrivals[-1][0] if script.arrivals else 0.0
    script.end_at = last + rng.choice([0.0, 0.0, 0.05, 0.3, 3.0])
    if limits.idle is None and limits.total is None and script.end == "hang":
        script.end = "reset"  # without any limit a hang is for ever, as the user asked
    if limits.first_event is None and limits.total is None and script.end == "hang":
        script.end = "eof"


def _chunk(
    rng: Random, items: list[Item], wire: bytes, limits: Limits
) -> list[tuple[float, bytes]]:
    style = rng.choice(["whole", "items", "random", "random", "small"])
    if style == "small" and len(wire) > 3000:
        style = "random"
    sizes: list[int] = []
    if style == "items":
        sizes = [len(item.wire) for item in items]
    pace = rng.choice([0.0, 0.0, 0.01, 0.2, 2.0])
    stall = rng.choice([0.0, 0.0, 0.02])
    chunks, at, offset = [], rng.choice([0.0, 0.0, rng.random()]), 0
    while offset < len(wire):
        match style:
            case "whole":
                size = len(wire)
            case "items":
                size = sizes.pop(0)
            case "small":
                size = rng.randint(1, 9)
            case _:
                size = rng.randint(1, 400)
        chunks.append((at, wire[offset : offset + size]))
        offset += size
        if pace:
            at += rng.random() * pace
        if rng.random() < stall:
            at += rng.random() * 2 * (limits.idle or 60.0)
    return chunks


def _draw_user(rng: Random) -> User:
    hows = [
        "iterate",
        "iterate",
        "await",
        "with_iterate",
        "with_await",
        "text",
        "thinking",
        "frames",
    ]
    how = rng.choice(hows)
    bare = rng.random() < 0.2
    slow = rng.choice([0.0, 0.0, 0.1, 0.4])

    def pauses() -> dict[int, float]:
        longest = rng.choice([0.5, 5.0, 90.0])
        return {n: rng.random() * longest for n in range(60) if rng.random() < slow}

    leaves = ["none"] * 6 + ["break", "drop", "cancel", "cancel", "aclose", "aclose", "timeout"]
    leaves += ["raise", "recovered", "close", "cancel_turns", "aclose_turns"]
    leave = rng.choice(leaves)
    if leave in ("raise", "recovered", "close") and (how == "frames" or bare):
        leave = "none"
    if leave in ("break", "drop") and how in ("await", "with_await"):
        leave = "none"
    if leave == "drop" and how == "with_iterate":
        leave = "break"
    return User(
        how,
        bare,
        pauses() if how not in ("await", "with_await") else {},
        {} if bare or how == "frames" else pauses(),
        leave,
        rng.choice([0, 1, rng.randrange(30), rng.randrange(30)]),
        rng.choice([rng.random() * 0.01, rng.random() * 3, rng.random() * 90]),
        "none" if bare else rng.choice(["none", "observe", "observe", "raises", "slow"]),
    )


def _draw_life(rng: Random) -> Life:
    limits = Limits(
        first_event=rng.choice([120.0, 120.0, 3.0, None]),
        idle=rng.choice([60.0, 60.0, 2.0, None]),
        total=rng.choice([None, None, 30.0, 2.0, 300.0]),
        attempts=rng.choice([1, 2, 3, 3]),
        base=rng.choice([0.5, 0.5, 4.0, 0.0]),
        cap=8.0,
    )
    count = rng.choice([1, 1, 1, 2, 3])
    scripts = [_draw_script(rng, last=n == count - 1, limits=limits) for n in range(count)]
    while len(scripts) < limits.attempts:  # whoever is tried again meets something
        scripts.append(_draw_script(rng, last=True, limits=limits))
    start = rng.choice([0.0, 0.0, rng.random()])
    return Life(scripts, limits, _draw_user(rng), start, rng.randrange(1 << 30))


# --- living --------------------------------------------------------------------------------------


class World:
    """The streams of one seed, on one loop, with one budget."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        rng = self.rng = Random(seed)
        self.seed = seed
        self.tokens = rng.choice([0, 1, 2, 100, 100])
        self.budget = RetryBudget(self.tokens)
        self.budget_log: list[tuple[str, bool]] = []
        self.lives = [_draw_life(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        self.tracing = tracing
        self.trace: list[str] = []
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def note(self, life: Life, text: str) -> None:
        if self.tracing:
            now = asyncio.get_running_loop().time()
            self.trace.append(f"{now:10.4f}  stream {self.lives.index(life)}  {text}")

    def check(self, truth: object, text: str) -> None:
        if not truth:
            self.problems.append(text)

    # --- one run ---

    def run(self) -> Counter[str]:
        loop = VirtualLoop()
        loop.set_exception_handler(lambda _, context: self.problems.append(f"loop: {context}"))
        unraisable: list[Any] = []
        hook, sys.unraisablehook = (
            sys.unraisablehook,
            lambda args: unraisable.append(args.exc_value),
        )
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                asyncio.set_event_loop(None)
                try:
                    loop.run_until_complete(self._live_all())
                finally:
                    left = asyncio.all_tasks(loop)
                    timers = [h for h in loop._scheduled if not h._cancelled]  # type: ignore[attr-defined]
                    loop.close()
        finally:
            sys.unraisablehook = hook
        self.check(not left, f"tasks left: {left}")
        self.check(not timers, f"timers left: {timers}")
        self.check(not unraisable, f"unraisable: {unraisable}")
        dropped = [life for life in self.lives if life.user.leave == "drop"]
        for each in warned:
            allowed = (
                dropped and each.category is ResourceWarning and "was dropped" in str(each.message)
            )
            self.check(allowed, f"warned: {each.category.__name__}: {each.message}")
        self._check_budget()
        self.counts["streams"] += len(self.lives)
        if self.problems:
            raise Broken(f"seed {self.seed}: " + "\n  ".join(["", *self.problems]))
        return self.counts

    async def _live_all(self) -> None:
        tasks = [asyncio.ensure_future(self._live(life)) for life in self.lives]
        await asyncio.gather(*tasks)

    def _check_budget(self) -> None:
        tenths = 10 * self.tokens
        for what, granted in self.budget_log:
            if what == "refund":
                tenths = min(1000, tenths + 1)
            else:
                self.check(granted == (tenths >= 10), "the budget granted what it did not have")
                tenths -= 10 if granted else 0

    def _open(self, life: Life) -> None:
        loop = asyncio.get_running_loop()
        life.transport = SimTransport(life.scripts)
        life.budget = _Share(self.budget, self.budget_log)
        limits = life.limits
        stream = ChatStream(
            Plan(
                transport=cast(Transport, life.transport),
                request=REQUEST,
                headers={},
                dispatchers=(self._handlers(life),),
                timeout=Timeout(
                    first_event=limits.first_event, idle=limits.idle, total=limits.total
                ),
                retry=Retry(attempts=limits.attempts, base=limits.base, cap=limits.cap),
                budget=cast(RetryBudget, life.budget),
                max_event_bytes=LIMIT,
                clock=loop.time,
                wall_clock=lambda: 1_700_000_000.0,
                random=Random(life.jitter_seed).random,
            )
        )
        life.box.append(stream)
        life.ref = weakref.ref(stream)

    def _handlers(self, life: Life) -> Dispatcher:
        dispatcher, user = Dispatcher(), life.user
        if user.bare:
            return dispatcher

        @dispatcher.on_event
        def first(event: Any, ctx: Any) -> None:
            life.heard.append(seen_event(event))
            self.note(life, f"heard {life.heard[-1]}")
            if len(life.heard) % 7 == 1:
                answer = plain_answer(ctx.snapshot)
                self.check(answer == fold(life.heard), "the snapshot is not what was handed out")

        @dispatcher.on_event
        async def second(event: Any, ctx: Any) -> None:
            ordinal = len(life.heard) - 1
            if ordinal in user.handler_pauses:
                await asyncio.sleep(user.handler_pauses[ordinal])
            if ordinal == user.when:
                if user.leave in ("raise", "recovered"):
                    life.own_error = HandlerError(ordinal)
                    self.note(life, "handler raises")
                    raise life.own_error
                if user.leave == "close":
                    self.note(life, "handler closes")
                    await ctx.stream.aclose()

        @dispatcher.on_event
        def third(event: Any) -> None:
            life.heard_last.append(seen_event(event))

        if user.on_error != "none" or user.leave == "recovered":

            @dispatcher.on_error()
            async def failed(error: Exception) -> bool:
                life.errors.append(error)
                self.note(life, f"on_error hears {tag(error)}")
                if user.on_error == "slow":
                    await asyncio.sleep(ON_ERROR_TAKES)
                if user.on_error == "raises" and not isinstance(error, HandlerError):
                    life.own_error = HandlerError("on_error")
                    raise life.own_error
                return user.leave == "recovered"

        return dispatcher

    async def _live(self, life: Life) -> None:
        loop = asyncio.get_running_loop()
        if life.start:
            await asyncio.sleep(life.start)
        life.start = loop.time()
        self._open(life)
        user = life.user
        task = asyncio.ensure_future(self._consume(life))
        meddler: asyncio.Task[None] | None = None
        if user.leave in ("cancel", "cancel_turns", "aclose", "aclose_turns"):
            meddler = asyncio.ensure_future(self._meddle(life, task))
        await asyncio.wait([task])
        if meddler is not None:
            meddler.cancel()
            await asyncio.wait([meddler])
            if not meddler.cancelled() and meddler.exception() is not None:
                self.check(False, f"aclose() raised {meddler.exception()!r}")
        if task.cancelled():
            life.raised = asyncio.CancelledError()
        else:
            life.raised = task.exception()
        del task
        self.note(life, f"ended with {tag(life.raised)}")
        await self._judge(life)
        life.box.clear()

    async def _meddle(self, life: Life, task: asyncio.Task[None]) -> None:
        user = life.user
        if user.leave.endswith("turns"):
            for _ in range(user.when):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(user.at)
        self.note(life, f"somebody else: {user.leave}")
        if user.leave.startswith("cancel"):
            task.cancel()
            return
        stream = life.ref()
        if stream is not None:
            await stream.aclose()

    async def _consume(self, life: Life) -> None:
        loop = asyncio.get_running_loop()
        stream = life.box.pop()
        try:
            if life.user.leave == "timeout":
                async with asyncio.timeout(life.user.at):
                    await self._take(life, stream)
            else:
                await self._take(life, stream)
        finally:
            life.ended = loop.time()
            life.snapshot = plain_answer(stream.snapshot)
            dropped = life.user.leave == "drop" and len(life.got) > life.user.when
            if not dropped:
                life.box.append(stream)
            del stream

    async def _take(self, life: Life, stream: ChatStream) -> None:
        user = life.user
        match user.how:
            case "await":
                life.response = await stream
            case "with_await":
                async with stream:
                    life.response = await stream
            case "with_iterate":
                async with stream:
                    await self._iterate(life, aiter(stream))
            case "iterate":
                await self._iterate(life, aiter(stream))
            case "text":
                await self._iterate(life, stream.text())
            case "thinking":
                await self._iterate(life, stream.thinking())
            case _:
                await self._iterate(life, stream.frames())

    async def _iterate(self, life: Life, things: Any) -> None:
        user = life.user
        async for thing in things:
            ordinal = len(life.got)
            if user.how == "frames":
                life.got.append((thing.event, thing.data))
            else:
                life.got.append(thing if isinstance(thing, str) else seen_event(thing))
            self.note(life, f"got {life.got[-1]!r:.90}")
            life.in_own_code = True
            if ordinal in user.pauses:
                await asyncio.sleep(user.pauses[ordinal])
            if user.leave in ("break", "drop") and ordinal == user.when:
                break
            life.in_own_code = False

    # --- judging ---------------------------------------------------------------------------------

    def _course(self, life: Life) -> Course:
        user = life.user
        got = -1

        def pause(ordinal: int, handed: Any) -> float:
            nonlocal got
            spent = user.handler_pauses.get(ordinal, 0.0)
            if (user.leave, user.on_error, ordinal) == ("recovered", "slow", user.when):
                spent += ON_ERROR_TAKES
            takes = user.how in ("iterate", "with_iterate", "frames")
            if user.how in ("text", "thinking"):
                takes = bool(text_of([handed], user.how))
            if takes:
                got += 1
                spent += user.pauses.get(got, 0.0)
            return spent

        oracle = Oracle(
            life.scripts,
            life.limits,
            raw=user.how == "frames",
            start=life.start,
            jitter=Random(life.jitter_seed),
            grants=[*life.budget.grants, *[True] * 9],
            pause=pause,
        )
        return oracle.run()

    def _expected_got(self, life: Life, handed: list[Any]) -> list[Any]:
        how = life.user.how
        if how in ("await", "with_await"):
            return []
        return text_of(handed, how) if how in ("text", "thinking") else handed

    async def _judge(self, life: Life) -> None:
        course, user = self._course(life), life.user
        early, handed, allowed = self._expectation(life, course)
        outcome = tag(life.raised)
        self.note(life, f"oracle: {course.outcome} at {course.failed_at:.4f}, early={early}")
        self.counts[outcome if not outcome.startswith("HandlerError") else "HandlerError"] += 1
        where = f"stream {self.lives.index(life)} ({user.how}, {user.leave})"
        self.check(outcome in allowed, f"{where}: {outcome}, allowed {allowed}")
        low, high = handed
        expected_events = course.handed
        # R2: an exact prefix, and all of it unless somebody left.
        if user.how != "frames" and not user.bare:
            n = len(life.heard)
            self.check(low <= n <= high, f"{where}: heard {n} events, not {low} to {high}")
            self.check(life.heard == expected_events[:n], f"{where}: heard other events")
            short = 1 if early else 0
            self.check(
                life.heard_last == life.heard[: len(life.heard_last)]
                and len(life.heard_last) >= n - short,
                f"{where}: a later handler heard other events",
            )
        else:
            self.check(not life.heard, f"{where}: handlers heard raw frames")
        whole = self._expected_got(life, expected_events)
        self.check(life.got == whole[: len(life.got)], f"{where}: got other things")
        if not early:
            self.check(len(life.got) == len(whole), f"{where}: got {len(life.got)} of {len(whole)}")
            self.check(
                abs(life.ended - self._end_time(life, course)) < NEAR,
                f"{where}: ended at {life.ended:.4f}, not {self._end_time(life, course):.4f}",
            )
        elif user.leave in ("break", "drop"):
            self.check(len(life.got) == user.when + 1, f"{where}: got {len(life.got)}")
        else:
            low_got = len(self._expected_got(life, expected_events[: max(0, low - 1)]))
            high_got = len(self._expected_got(life, expected_events[:high]))
            self.check(
                low_got <= len(life.got) <= high_got,
                f"{where}: got {len(life.got)}, not {low_got} to {high_got}",
            )
        # Attempts, and when each was made.
        opened = life.transport.opened_at
        planned = course.opened_at
        near = all(abs(a - b) < NEAR for a, b in zip(opened, planned, strict=False))
        self.check(near, f"{where}: tried at {opened}, not {planned}")
        if early:
            self.check(len(opened) <= len(planned), f"{where}: {len(opened)} tries")
        else:
            self.check(len(opened) == course.attempts, f"{where}: {len(opened)} tries")
        self._judge_answer(life, course, where, early=early)
        await self._judge_afterwards(life, course, where, early=early)

    def _end_time(self, life: Life, course: Course) -> float:
        failed = course.outcome != "complete"
        slow = failed and life.user.on_error == "slow" and not life.user.bare
        return course.ended_by + (ON_ERROR_TAKES if slow else 0.0)

    def _expectation(
        self, life: Life, course: Course
    ) -> tuple[bool, tuple[int, int], tuple[str, ...]]:
        """Whether it is left early, how many events are handed out (from, to), how it may end."""
        user, count = life.user, len(course.handed)
        normal = course.outcome
        if normal != "complete" and user.on_error == "raises" and not user.bare:
            normal = "HandlerError"
        whole = (False, (count, count), (normal,))
        ordinals = ("break", "drop", "raise", "close")
        if user.leave in ("none", "recovered"):
            return whole
        if user.leave in ordinals:
            things = self._expected_got(life, course.handed)
            reach = count if user.leave in ("raise", "close") else len(things)
            if user.when >= reach:
                return whole
            if user.leave == "raise":
                return True, (user.when + 1, user.when + 1), ("HandlerError",)
            if user.leave == "close":
                if course.handed[user.when][0] == "message-end":
                    return True, (count, count), (normal,)
                closed = "HandlerError" if user.on_error == "raises" else "TransportError closed"
                return True, (user.when + 1, user.when + 1), (closed,)
            return True, (0, count), ("complete",)
        ending = {"cancel": "CancelledError", "timeout": "TimeoutError"}
        closed = "TransportError closed"
        if user.on_error == "raises" and not user.bare:
            closed = "HandlerError"
        early = ending.get(user.leave.removesuffix("_turns"), closed)
        if user.leave.endswith("turns"):
            return True, (0, count), (normal, early)
        if user.how != "frames" and user.leave == "recovered":
            return whole
        moment = life.start + user.at
        over = self._end_time(life, course)
        decided = min(course.failed_at, course.end_read) if user.leave == "aclose" else over
        if moment > over + NEAR:
            return whole
        low = sum(at < moment - NEAR for at in course.times)
        high = sum(at < moment + NEAR for at in course.times)
        if user.leave == "aclose" and user.how == "frames" and moment > decided - NEAR:
            high = count  # those that are at hand still come
        if user.leave == "aclose" and moment > decided + NEAR:
            return True, (count, count), (normal,)
        if moment > decided - NEAR:
            return True, (low, high), (normal, early)
        return True, (low, high), (early,)

    def _judge_answer(self, life: Life, course: Course, where: str, *, early: bool) -> None:
        """R2 for answers: the snapshot and ``partial`` are the fold of what was handed out."""
        if life.user.how == "frames":
            return
        if not life.user.bare:
            read = life.heard
            self.check(life.snapshot == fold(read), f"{where}: the snapshot is another")
        else:
            prefixes = range(len(course.handed) + 1) if early else [len(course.handed)]
            fits = [n for n in prefixes if life.snapshot == fold(course.handed[:n])]
            self.check(fits, f"{where}: the snapshot is of no prefix")
            read = course.handed[: fits[-1]] if fits else []
        if life.response is not None:
            self.check(plain_answer(life.response) == fold(read), f"{where}: another answer")
        error = life.raised
        if isinstance(error, StreamChatError):
            self._judge_error(life, error, read, where)

    def _judge_error(self, life: Life, error: Any, read: list[Seen], where: str) -> None:
        partial = None if error.partial is None else plain_answer(error.partial)
        self.check(partial == (fold(read) if read else None), f"{where}: another partial answer")
        tries = len(life.transport.opened_at)
        self.check(error.attempts == max(1, tries), f"{where}: error.attempts {error.attempts}")
        self.check(error.__cause__ is None, f"{where}: a cause")
        own = error.__context__ is None or tag(error).endswith("closed")
        self.check(own, f"{where}: a context: {error.__context__!r}")

    async def _judge_afterwards(
        self, life: Life, course: Course, where: str, *, early: bool
    ) -> None:
        """R1 and R6: it stays as it ended, and nothing is left."""
        user = life.user
        if user.on_error not in ("none", "raises") and user.leave in ("none", "recovered"):
            heard = [tag(error) for error in life.errors if not isinstance(error, HandlerError)]
            expected = [course.outcome] if course.outcome != "complete" else []
            self.check(heard == expected, f"{where}: on_error heard {heard}, not {expected}")
        if life.box:
            stream = life.box[0]
            if life.in_own_code:
                await stream.aclose()  # as a user would who left his loop
            errors = len(life.errors)
            again = [await _once(stream), await _once(stream), await _next(stream)]
            self.counts["asked again"] += 3
            tags = [tag(each) if isinstance(each, BaseException) else "complete" for each in again]
            if user.on_error == "raises" and tags[0] == "HandlerError":
                tags[0] = tags[1]  # on_error heard of it only now
            ended = tags[0]
            read = life.heard
            self.check(tags[1] == ended, f"{where}: asked again it said {tags}")
            self.check(tags[2] == ended, f"{where}: asked again it said {tags}")
            expected_tag = tag(life.raised)
            if expected_tag == "complete" and user.how == "frames":
                expected_tag = "StreamChatError"
            settled = not early and life.own_error is None
            if settled:
                self.check(ended == expected_tag, f"{where}: {ended} after {expected_tag}")
            else:
                self.check(
                    ended in ("TransportError closed", course.outcome, "StreamChatError"),
                    f"{where}: {ended} afterwards",
                )
            for each in again:
                if isinstance(each, StreamChatError) and user.how != "frames" and not user.bare:
                    self._judge_error(life, each, read, f"{where}, asked again")
            self.check(len(life.errors) - errors <= 1, f"{where}: on_error told of old news")
            self.check(
                plain_answer(stream.snapshot) == life.snapshot, f"{where}: the snapshot changed"
            )
            del stream, each, again
        for exchange in life.transport.exchanges:
            self.check(exchange.closed, f"{where}: an exchange is open")
            self.check(not exchange.readers, f"{where}: somebody still reads")


async def _once(stream: ChatStream) -> object:
    try:
        return await stream
    except Exception as error:
        return error.with_traceback(None)


async def _next(stream: ChatStream) -> object:
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return None
    except Exception as error:
        return error.with_traceback(None)


def tag(error: BaseException | None) -> str:
    """How it ended, in two words."""
    if error is None:
        return "complete"
    name = type(error).__name__
    if name == "TruncatedStreamError":
        return name
    detail = getattr(error, "phase", None) or getattr(error, "kind", None)
    detail = detail or getattr(error, "status", None)
    return f"{name} {detail}" if detail else name


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Collect once around many runs, not inside them."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def run_seed(seed: int, *, tracing: bool = False) -> Counter[str]:
    """Live through one seed.

    Raises:
        Broken: an invariant does not hold; the message names the seed.
    """
    world = World(seed, tracing=tracing)
    try:
        return world.run()
    except Broken:
        raise
    except BaseException as error:
        raise Broken(f"seed {seed}: {type(error).__name__}: {error}") from error
    finally:
        if tracing:
            print("\n".join(world.trace))


def describe(seed: int) -> str:
    """What a seed holds, for a reader."""
    lines = []
    for number, life in enumerate(World(seed).lives):
        lines.append(f"stream {number}: {life.limits}")
        lines.append(f"  {life.user}")
        for script in life.scripts:
            end = math.inf if script.end == "hang" else script.end_at
            size = sum(len(piece) for _, piece in script.arrivals)
            lines.append(
                f"  try: connect {script.connect:.3f} {script.refused or script.status} "
                f"{script.headers} {len(script.arrivals)} chunks, {size} bytes, "
                f"{script.end} at {end:.3f}, merged={script.merged}"
            )
            lines.append(f"       {[item.kind + (item.seen or ('',))[0] for item in script.items]}")
    return "\n".join(lines)


__all__ = ["EPS", "Broken", "World", "describe", "quiet_collector", "run_seed"]
