"""The n-th suspension point of a whole run is cancelled, or fails, for all n until there are no more.

Whatever it was waiting for: ``CancelledError`` leaves untouched, the connection is closed before it does,
and no task, no timer and no warning stays behind.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Callable, Generator
from random import Random
from typing import Any, cast

import pytest

from streamchat import (
    ChatStream,
    Dispatcher,
    Event,
    GenerationError,
    Retry,
    StreamChatError,
    Timeout,
    TransportError,
)
from streamchat.plan import Plan
from streamchat.policy import RetryBudget
from streamchat.protocol import Accumulator
from streamchat.transport import Transport
from tests.frames import cited, failed, pieces, plain, thinking, tools
from tests.simulation import FIGURES, tally
from tests.simulation.transport import Script, SimExchange, SimTransport
from tests.simulation.wire import seen_event
from tests.simulation.world import REQUEST, tag
from tests.virtual import VirtualLoop


def _answer(events: list[Event]) -> Script:
    arrivals = [(0.01 * (n + 1), piece) for n, piece in enumerate(pieces(events))]
    return Script(0.01, arrivals=arrivals, end_at=arrivals[-1][0] + 0.05)


FLOWS: dict[str, tuple[Callable[[], list[Event]], list[Script]]] = {
    "plain": (plain, []),
    "cited": (cited, []),
    "tools": (tools, []),
    "thinking": (thinking, []),
    "503 then answer": (plain, [Script(0.01, status=503, error_body=0.01)]),
    "connect error then answer": (plain, [Script(0.01, refused="refused")]),
    "early end then answer": (plain, [Script(0.01, arrivals=[(0.01, b": hi\n\n")], end_at=0.02)]),
    "failed generation": (failed, []),
}


async def _iterate(stream: ChatStream, got: list[Any]) -> None:
    async for event in stream:
        got.append(seen_event(event))


async def _await(stream: ChatStream, got: list[Any]) -> None:
    await stream


async def _with_text(stream: ChatStream, got: list[Any]) -> None:
    async with stream:
        async for piece in stream.text():
            got.append(piece)


async def _frames(stream: ChatStream, got: list[Any]) -> None:
    async for frame in stream.frames():
        got.append(frame.data)


async def _in_own_time(stream: ChatStream, got: list[Any]) -> None:
    async with stream:
        async for event in stream:
            await asyncio.sleep(0.02)
            got.append(seen_event(event))


async def _leave_at_the_end(stream: ChatStream, got: list[Any]) -> None:
    async with stream:
        async for event in stream:
            got.append(seen_event(event))
            if event.type == "message-end":
                break  # the drain happens on leaving


STYLES = {
    "iterate": _iterate,
    "await": _await,
    "async with, text": _with_text,
    "frames": _frames,
    "async with, slow": _in_own_time,
    "async handlers": _await,
    "background handlers": _await,
    "handlers with every=": _await,
    "async with, left at message-end": _leave_at_the_end,
}


class Driven:
    """Runs a coroutine and interferes when it suspends for the n-th time."""

    def __init__(self, work: Any, n: int, how: str) -> None:
        self.work, self.n, self.how = work, n, how
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        running = self.work.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = running.send(None) if thrown is None else running.throw(thrown)
            except StopIteration as done:
                return done.value
            thrown = None
            self.suspensions += 1
            if self.suspensions == self.n and self.how == "injected":
                if waits_for is not None:
                    waits_for._asyncio_future_blocking = False
                thrown = asyncio.CancelledError()
                continue
            if self.suspensions == self.n and self.how == "task.cancel()":
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield waits_for
            except BaseException as error:
                thrown = error


class _FailingTransport(SimTransport):
    """Its n-th operation fails after its wait, whatever it was for."""

    def __init__(self, scripts: list[Script], n: int) -> None:
        super().__init__(scripts)
        self.left = n

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise TransportError("the network is gone", kind="reset")

    async def open(self, *args: Any, **options: Any) -> SimExchange:
        exchange = await super().open(*args, **options)
        try:
            self.count()
        except TransportError:
            exchange.close()
            raise
        read = exchange.read

        async def failing() -> bytes:
            chunk = await read()
            self.count()
            return chunk

        exchange.read = failing  # type: ignore[method-assign]
        return exchange


def _stream(transport: SimTransport, *dispatchers: Dispatcher) -> ChatStream:
    loop = asyncio.get_running_loop()
    return ChatStream(
        Plan(
            transport=cast(Transport, transport),
            request=REQUEST,
            headers={},
            dispatchers=dispatchers,
            timeout=Timeout(total=100),
            retry=Retry(),
            budget=RetryBudget(),
            max_event_bytes=1 << 20,
            clock=loop.time,
            random=Random(1).random,
        )
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "async handlers": {},
    # A full queue, so that there is a wait for room in it.
    "background handlers": {"background": True, "max_queue": 2},
    # Longer than anything here: what is held back is held back until a block ends.
    "handlers with every=": {"every": 1000.0, "max_queue": 2},
}


def _handlers(heard: list[Any], style: str) -> Dispatcher:
    dispatcher = Dispatcher()

    @dispatcher.on_event(**OPTIONS[style])
    async def slow(event: Any) -> None:
        heard.append(seen_event(event))
        await asyncio.sleep(0.015)

    @dispatcher.on_error()
    async def tell(error: Exception) -> None:
        await asyncio.sleep(0.015)

    return dispatcher


def letters(seen: list[Any]) -> list[Any]:
    """Seen events with the text of deltas a letter each: the same however they were joined."""
    taken_apart: list[Any] = []
    for each in seen:
        kind, *where = each
        if kind.endswith("-delta"):
            texts = where[2:] if kind == "content-delta" else where[-1:]
            taken_apart += [(kind, where[: -len(texts)], c) for text in texts for c in text]
        else:
            taken_apart.append(each)
    return taken_apart


class Run:
    """One run with interference at ``n``; what is left behind is in ``problems``."""

    def __init__(self, flow: str, style: str, n: int, how: str) -> None:
        events, before = FLOWS[flow]
        completed = Accumulator()  # end events know what they ended only when they went through it
        self.sent = [seen_event(completed.add(event)) for event in events()]
        scripts = [*before, _answer(events()), _answer(events()), _answer(events())]
        failing = how == "network"
        self.transport = _FailingTransport(scripts, n) if failing else SimTransport(scripts)
        self.style, self.n, self.how = style, n, how
        self.got: list[Any] = []
        self.heard: list[Any] = []
        self.suspensions = 0
        self.raised: BaseException | None = None
        self.problems: list[str] = []

    @property
    def reached(self) -> bool:
        if isinstance(self.transport, _FailingTransport):
            return self.transport.left <= 0
        return self.suspensions >= self.n

    async def main(self) -> None:
        dispatchers = [_handlers(self.heard, self.style)] if self.style in OPTIONS else []
        stream = _stream(self.transport, *dispatchers)
        driven = Driven(STYLES[self.style](stream, self.got), self.n, self.how)

        async def drive() -> None:
            await driven

        task = asyncio.ensure_future(drive())
        await asyncio.wait([task])
        self.suspensions = driven.suspensions
        if task.cancelled():
            self.raised = asyncio.CancelledError()
        else:
            self.raised = task.exception()
        for exchange in self.transport.exchanges:
            if not exchange.closed:
                self.problems.append("a connection is open")
        await self.ask_again(stream)

    async def ask_again(self, stream: ChatStream) -> None:
        before = len(self.transport.requests)
        try:
            await stream
        except StreamChatError as error:
            expected = (
                "TransportError closed",
                "GenerationError",
                "StreamChatError",
                tag(self.raised),
            )
            if tag(error) not in expected:
                self.problems.append(f"asked again: {error!r}")
        if len(self.transport.requests) != before:
            self.problems.append("asked again, it sent the request again")

    def go(self) -> Run:
        loop = VirtualLoop()
        loop.set_exception_handler(lambda _, context: self.problems.append(f"loop: {context}"))
        hook, sys.unraisablehook = (
            sys.unraisablehook,
            lambda args: self.problems.append(f"unraisable: {args.exc_value!r}"),
        )
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                loop.run_until_complete(self.main())
            left = asyncio.all_tasks(loop)
            timers = [h for h in loop._scheduled if not h._cancelled]  # type: ignore[attr-defined]
            loop.close()
        finally:
            sys.unraisablehook = hook
        self.problems += [f"warned: {each.message}" for each in warned]
        self.problems += [f"left: {each}" for each in [*left, *timers]]
        expected = self.sent
        if self.style == "handlers with every=":
            self.heard, expected = letters(self.heard), letters(self.sent)
        if self.heard != expected[: len(self.heard)]:
            self.problems.append(f"heard {self.heard}")
        if self.raised is None and self.style in OPTIONS and self.heard != expected:
            self.problems.append(f"lost for the handler: {self.heard}")
        expected = self.sent
        events = "text" not in self.style and self.style != "frames"
        if events and self.got != expected[: len(self.got)]:
            self.problems.append(f"got {self.got}")
        return self


@pytest.mark.parametrize("how", ["injected", "task.cancel()", "network"])
@pytest.mark.parametrize("flow", FLOWS)
def test_at_every_suspension_point(
    flow: str, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For all n, in every style: one clean end, the connection closed, nothing left."""
    points = 0
    hidden: list[str] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: hidden.append(repr(args.exc_value))
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for style in STYLES:
                n = 0
                while True:
                    n += 1
                    run = Run(flow, style, n, how).go()
                    where = f"{flow}, {style}, {how} at {n}"
                    assert not run.problems, f"{where}: {run.problems}"
                    if not run.reached:
                        break
                    points += 1
                    _check_end(run, flow, where)
                assert _whole(run, flow), f"{where}: the undisturbed run is not whole"
            gc.collect()  # what was never awaited or never retrieved says so when it is collected
    finally:
        sys.unraisablehook = hook
    assert not hidden
    assert not [str(each.message) for each in warned]
    total = tally(tmp_path_factory, how, flow, {"points": points}, len(FLOWS))
    if total is not None:
        text = f"{total['points']} suspension points of {len(FLOWS)} flows x {len(STYLES)} styles"
        FIGURES.append((f"every await, {how}", f"{text}: 0 left open, 0 other errors"))


def _check_end(run: Run, flow: str, where: str) -> None:
    if run.how != "network":
        assert type(run.raised) is asyncio.CancelledError, f"{where}: {run.raised!r}"
        return
    # Before the first event it is tried again; later it is the stream's end, unless that had come.
    allowed = {"complete", "TransportError reset"}
    if flow == "failed generation":
        allowed |= {"GenerationError"}
    assert tag(run.raised) in allowed, f"{where}: {run.raised!r}"


def _whole(run: Run, flow: str) -> bool:
    if flow == "failed generation" and run.style != "async with, left at message-end":
        return isinstance(run.raised, GenerationError)
    return run.raised is None
