"""One stream and whoever uses it, step by step in any order, beside a model of the contract."""

from __future__ import annotations

import asyncio
import gc
import warnings
from random import Random
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamchat import (
    ChatStream,
    ConcurrencyError,
    Dispatcher,
    Retry,
    StreamChatError,
    Timeout,
)
from streamchat.plan import Plan
from streamchat.policy import RetryBudget
from streamchat.protocol.reader import EventReader
from streamchat.source import Source
from streamchat.transport import Transport
from tests.simulation import FIGURES
from tests.simulation.transport import Script, SimExchange, SimTransport
from tests.simulation.wire import LIMIT, Seen, fold, plain_answer, seen_event, write_answer
from tests.simulation.world import REQUEST, tag
from tests.virtual import VirtualLoop

IDLE, FIRST_EVENT = 60.0, 120.0
CLOSED = "TransportError closed"


class FedExchange(SimExchange):
    """Bytes arrive when the test says so."""

    def feed(self, chunk: bytes) -> None:
        self.script.arrivals.append((self._loop.time() - self._start, chunk))
        self._stir()

    def finish(self, how: str) -> None:
        self.script.end, self.script.end_at = how, self._loop.time() - self._start
        self._stir()

    def _stir(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class FedTransport(SimTransport):
    """Answers at once, with an exchange that is fed by hand, also before it is asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__([])
        self.exchange = FedExchange(Script(end="hang"), loop)

    async def open(self, *args: Any, **options: Any) -> SimExchange:
        self.requests.append(b"")
        return self.exchange


class StreamMachine(RuleBasedStateMachine):
    """The model: what arrived, what was handed out, how it ended, and who waits."""

    steps = 0
    ends: set[str] = set()  # noqa: RUF012  # what was reached, over all runs

    @initialize(seed=st.integers(0, 10_000))
    def begin(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.noise: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.noise.append(str(context)))
        self.transport = FedTransport(self.loop)
        self.items = write_answer(Random(seed))
        self.wire = b"".join(item.wire for item in self.items)
        self.fed = 0
        self.finished = ""
        self.next_item = 0
        self.handed: list[Seen] = []
        self.heard: list[list[Seen]] = []
        self.outcome = ""
        self.message_end: tuple[Any, ...] | None = None
        self.opened_at: float | None = None
        self.frozen = False
        self.waiting: asyncio.Future[Any] | None = None
        self.wants = ""
        self.since = 0.0
        self.stream = ChatStream(
            Plan(
                transport=cast(Transport, self.transport),
                request=REQUEST,
                headers={},
                dispatchers=(Dispatcher(),),
                timeout=Timeout(idle=IDLE, first_event=FIRST_EVENT),
                retry=Retry(attempts=1),
                budget=RetryBudget(),
                max_event_bytes=LIMIT,
                clock=self.loop.time,
            )
        )

    # --- the model -------------------------------------------------------------------------------

    def arrived(self) -> Any:
        """The next block that is there and was not handed out, or ``None``."""
        while self.next_item < len(self.items):
            item = self.items[self.next_item]
            before = sum(len(each.wire) for each in self.items[: self.next_item])
            if before + item.ready > self.fed:
                return None
            if item.kind != "comment":
                return item
            self.next_item += 1
        return None

    def model_next(self) -> tuple[str, Any]:
        """What the next event is: ``event``, ``error``, ``over`` or ``wait``."""
        if self.outcome:
            return ("over", None) if self.outcome == "complete" else ("error", self.outcome)
        if self.message_end is not None:
            return self.conclude()
        item = self.arrived()
        if item is None:
            if self.finished:
                self.outcome = (
                    "TruncatedStreamError" if self.finished == "eof" else "TransportError reset"
                )
                return "error", self.outcome
            now, first = self.loop.time(), not self.handed
            if self.opened_at is not None and first and now - self.opened_at > FIRST_EVENT - 1e-6:
                self.outcome = "StreamTimeoutError first_event"
            elif not first and now - self.since > IDLE - 1e-6:
                self.outcome = "StreamTimeoutError idle"
            return ("error", self.outcome) if self.outcome else ("wait", None)
        self.next_item += 1
        if item.kind == "event":
            self.handed.append(item.seen)
            self.frozen = True
            if item.seen[0] == "message-end":
                self.message_end = item.seen
            return "event", item.seen
        self.outcome = item.error or "TruncatedStreamError"
        return "error", self.outcome

    def conclude(self) -> tuple[str, Any]:
        assert self.message_end is not None
        reason = self.message_end[1]
        failed = reason == "TIMEOUT" or reason.startswith("ERROR")
        self.outcome = "GenerationError" if failed else "complete"
        return ("error", self.outcome) if failed else ("over", None)

    def expected(self) -> tuple[str, Any]:
        """What the waiting consumer must have by now."""
        while True:
            what, value = self.model_next()
            if what != "event":
                return what, value
            self.since = self.loop.time()
            if self.wants == "event":
                return what, value
            is_text = value[0] == "content-delta" and value[2] == "text"
            if self.wants == "text" and is_text and value[3]:
                return "event", value[3]

    # --- the machinery ---------------------------------------------------------------------------

    def run(self, seconds: float = 0.0) -> None:
        """Let the loop work, without letting time pass but for those seconds."""

        async def turns() -> None:
            if seconds:
                await asyncio.sleep(seconds)
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def settle(self) -> None:
        """Compare the waiting consumer with the model."""
        StreamMachine.steps += 1
        self.run()
        task = self.waiting
        if task is None:
            return
        what, value = self.expected()
        if what == "wait":
            assert not task.done(), f"it ended early: {task}"
            return
        if not task.done():
            self.run(0.11)  # the drain
        assert task.done(), f"it must have {what} {value}"
        self.waiting = None
        self.look(task, what, value)

    def look(self, task: asyncio.Future[Any], what: str, value: Any) -> None:
        error = task.exception()
        if what == "error":
            self.frozen = True
            StreamMachine.ends.add(value)
            assert tag(error) == value
            assert isinstance(error, StreamChatError)
            whole = fold(self.handed) if self.handed else None
            assert (None if error.partial is None else plain_answer(error.partial)) == whole
        elif what == "over":
            StreamMachine.ends.add("complete")
            if self.wants == "answer":
                assert error is None
                assert plain_answer(task.result()) == fold(self.handed)
            else:
                assert isinstance(error, StopAsyncIteration)
        else:
            assert error is None
            got = task.result()
            assert (got if isinstance(got, str) else seen_event(got)) == value

    def consume(self, wants: str) -> None:
        self.wants = wants
        if self.opened_at is None and not self.outcome:
            self.opened_at = self.loop.time()
        self.since = self.loop.time()

        async def one() -> Any:
            if wants == "answer":
                return await self.stream
            if wants == "text":
                return await anext(self.stream.text())
            return await anext(self.stream)

        async def guarded() -> Any:
            try:
                return await one()
            except StopAsyncIteration as end:
                return end

        async def relay(result: asyncio.Future[Any]) -> None:
            try:
                value = await guarded()
            except asyncio.CancelledError:
                result.cancel()
                raise
            except BaseException as error:
                result.set_exception(error)
            else:
                if isinstance(value, StopAsyncIteration):
                    result.set_exception(value)
                else:
                    result.set_result(value)

        self.waiting = self.loop.create_future()
        self.task = self.loop.create_task(relay(self.waiting))
        self.settle()

    # --- rules -----------------------------------------------------------------------------------

    @rule(size=st.one_of(st.integers(1, 80), st.integers(80, 6000)))
    def feed(self, size: int) -> None:
        """Bytes arrive, whether anybody waits or not."""
        if self.finished or self.fed == len(self.wire) or self.transport.exchange.closed:
            return
        chunk = self.wire[self.fed : self.fed + size]
        self.fed += len(chunk)
        self.transport.exchange.feed(chunk)
        self.settle()

    @rule()
    def feed_all(self) -> None:
        """All the rest arrives."""
        self.feed(len(self.wire))

    @rule(seconds=st.sampled_from([1.0, 25.0, 61.0, 130.0]))
    def stall(self, seconds: float) -> None:
        """Nothing arrives for a while."""
        self.run(seconds)
        self.settle()

    @rule(how=st.sampled_from(["eof", "reset", "", "", ""]))
    def end_body(self, how: str) -> None:
        """The body ends, or the connection breaks; not too often."""
        if how and not self.finished and not self.transport.exchange.closed:
            self.finished = how
            self.transport.exchange.finish(how)
            self.settle()

    @precondition(lambda self: self.waiting is None)
    @rule()
    def iterate_one(self) -> None:
        """Ask for the next event."""
        self.consume("event")

    @precondition(lambda self: self.waiting is None)
    @rule()
    def next_text(self) -> None:
        """Ask for the next piece of text."""
        self.consume("text")

    @precondition(lambda self: self.waiting is None)
    @rule()
    def await_answer(self) -> None:
        """Await the stream."""
        self.consume("answer")

    @precondition(lambda self: self.waiting is not None)
    @rule(how=st.sampled_from(["iterate", "await", "enter", "text", "frames"]))
    def second_consumer(self, how: str) -> None:
        """A second consumer is refused, and the first is not disturbed."""
        stream = self.stream

        async def second() -> None:
            match how:
                case "iterate":
                    await anext(stream)
                case "await":
                    await stream
                case "enter":
                    await stream.__aenter__()
                case "text":
                    await anext(stream.text())
                case _:
                    await anext(stream.frames())

        refused = False
        try:
            self.loop.run_until_complete(second())
        except ConcurrencyError:
            refused = True
        assert refused
        self.settle()

    @precondition(lambda self: self.waiting is not None)
    @rule(chance=st.integers(0, 4))
    def cancel(self, chance: int) -> None:
        """The waiting task is cancelled: the connection is closed, and that is how it ended."""
        assert self.waiting is not None
        if chance:
            return
        self.task.cancel()
        self.run()
        assert self.waiting.cancelled()
        assert self.transport.exchange.closed or self.opened_at is None
        self.waiting, self.outcome = None, CLOSED
        StreamMachine.ends.add("CancelledError")

    @rule(chance=st.integers(0, 7))
    def close(self, chance: int) -> None:
        """aclose(), from another task."""
        if not chance:
            self.do_close()

    def do_close(self) -> None:
        closing = self.loop.create_task(self.stream.aclose())
        self.run(0.11)
        assert closing.done()
        closing.result()
        if not self.outcome:
            if self.message_end is not None:
                self.conclude()
            else:
                self.outcome = CLOSED
        self.settle()

    @rule()
    def register(self) -> None:
        """A handler may be registered until the first event was handed out, not after it."""
        heard: list[Seen] = []

        def listen(event: Any) -> None:
            heard.append(seen_event(event))

        refused = False
        try:
            self.stream.on_event(listen)
        except RuntimeError:
            refused = True
        assert refused == self.frozen
        if not refused:
            self.heard.append(heard)

    @invariant()
    def handlers_heard_what_was_handed_out(self) -> None:
        """Every handler heard every event, in order, once; the snapshot is their fold."""
        if not hasattr(self, "stream"):
            return
        assert all(heard == self.handed for heard in self.heard)
        assert plain_answer(self.stream.snapshot) == fold(self.handed)
        assert len(self.transport.requests) <= 1
        if self.outcome and self.waiting is None and self.transport.requests:
            assert self.transport.exchange.closed

    def teardown(self) -> None:
        """Nothing is left once it is closed."""
        if not hasattr(self, "stream"):
            return
        self.do_close()
        assert self.waiting is None
        assert not asyncio.all_tasks(self.loop)
        assert not [h for h in self.loop._scheduled if not h._cancelled]  # type: ignore[attr-defined]
        assert not self.noise
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del self.stream
        self.loop.close()


SETTINGS = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("what", ["a lost event", "a second error", "an open socket"])
def test_the_model_sees_what_is_broken(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream with a fault does not pass for a sound one."""
    if what == "a lost event":
        split = EventReader.split
        monkeypatch.setattr(EventReader, "split", lambda self, chunk: split(self, chunk)[:1])
    elif what == "a second error":
        monkeypatch.setattr(ChatStream, "_add_facts", lambda self, error: None)
    else:
        monkeypatch.setattr(Source, "close", lambda self: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the faulty ones leave behind
        with pytest.raises((AssertionError, BaseExceptionGroup, asyncio.CancelledError)):
            run_state_machine_as_test(
                StreamMachine, settings=settings(SETTINGS, phases=[Phase.generate])
            )
        gc.collect()


def test_the_contract_holds_in_any_order() -> None:
    """Whatever is done to one stream, in whatever order, it does what the model says."""
    StreamMachine.steps = 0
    StreamMachine.ends = set()
    run_state_machine_as_test(StreamMachine, settings=SETTINGS)
    FIGURES.append(
        (
            "state machine",
            f"300 lives, {StreamMachine.steps} steps, {len(StreamMachine.ends)} kinds of end",
        )
    )
    assert {"complete", "CancelledError", CLOSED, "GenerationError"} <= StreamMachine.ends
