"""Run cases and hold each to the rules of faults.md 3: R1, R2, R3, R5 and R6.

For every stream: it ends once, with the right outcome, in time; delivered is exactly what arrived;
the key, the text so far and the counts are right; and when it is over nothing of it is left.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import ssl as ssl_module
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from streamchat import Client, Event, Retry, StreamChatError, StreamTimeoutError, Timeout
from streamchat.protocol import encode_event
from tests.faults.answers import Wire
from tests.faults.cases import FIRST_EVENT, GRACE, IDLE, TRIES, Case, Expect
from tests.faults.rawserver import Run, Server, serve, turns

FAST, SLOW, SLEEPY, DAWDLING = "fast", "slow", "sleepy", "dawdling"
"""Consumers: one that never waits; one that waits after its first event until the server has done
its last deed; one that sleeps 0.25 s there, longer than ``IDLE``; one that sleeps there and then
gives the loop a turn after each event, so that the network is always ahead of it."""
SLEEP = 0.25
GUARD = 6.0
"""Seconds without an event after which a stream counts as hanging."""
CANARY = "canary-key-5d1e"
ALONE = 3
"""Tries alone for a case in which nothing but time was wrong."""
STARTS = 8
"""Streams that start at the same moment; more would only measure this machine."""


@attrs.define
class Left:
    """What is still there after everything was closed."""

    tasks: int = 0
    timers: int = 0
    descriptors: int = 0
    connections: int = 0
    warnings: int = 0

    def any(self) -> bool:
        return any(attrs.astuple(self))


@attrs.define
class Report:
    """The figures of one block."""

    runs: int = 0
    events: int = 0
    outcomes: Counter[str] = attrs.Factory(Counter)
    latest: float = 0.0
    """The longest time past its limit that a stream took to end, seconds."""
    rerun: int = 0
    """Cases in which nothing but time was wrong, and that were run again alone."""
    failures: list[str] = attrs.Factory(list)
    left: Left = attrs.Factory(Left)

    def line(self, **more: Any) -> str:
        fields = attrs.asdict(self) | {
            "failed": len(self.failures) + self.left.any(),
            "failures": self.failures[:20],
            "latest": round(self.latest, 3),
        }
        return json.dumps(more | fields)


def only_time(problems: list[str]) -> bool:
    """Whether nothing but time was wrong: late, or a limit that was passed before its turn.

    That is what a busy machine does to limits of 0.2 s. Events lost, doubled or altered, hangs and
    leftovers are never excused.
    """
    return all(problem.startswith("ended ") for problem in problems) or any(
        problem.startswith("got StreamTimeoutError") for problem in problems
    )


def wire(event: Event) -> Wire:
    """A delivered event as its sender wrote it."""
    result: Wire = json.loads(encode_event(event).data)
    return result


def text(events: Iterable[Wire]) -> str:
    """The text that these events bring."""
    return "".join(
        event["delta"]["message"]["content"].get("text", "")
        for event in events
        if event["type"] == "content-delta"
    )


class Runner:
    """One block of cases in one event loop."""

    def __init__(
        self,
        server: Server,
        context: ssl_module.SSLContext | None,
        *,
        concurrency: int,
    ) -> None:
        self._server = server
        self._context = context
        self._slots = asyncio.Semaphore(concurrency)
        self._starting = asyncio.Semaphore(STARTS)
        self._names = 0
        self.report = Report()

    async def run(self, cases: Iterable[tuple[Case, str]]) -> None:
        """Run all, many at once."""
        again: list[tuple[Case, str]] = []

        async def one(case: Case, consumer: str) -> None:
            try:
                problems = await self._case(case, consumer)
            except Exception as error:
                problems = [f"the runner: {error!r}"]
            finally:
                self._slots.release()
            if problems and only_time(problems):
                again.append((case, consumer))
            else:
                self._judge(case, consumer, problems)

        async with asyncio.TaskGroup() as group:
            for case, consumer in cases:
                await self._slots.acquire()
                group.create_task(one(case, consumer))
        for case, consumer in again:
            self.report.rerun += 1
            problems = await self._case(case, consumer)
            for _ in range(ALONE - 1):
                if problems and only_time(problems):
                    problems = await self._case(case, consumer)
            self._judge(case, consumer, problems)

    def _judge(self, case: Case, consumer: str, problems: list[str]) -> None:
        self.report.runs += 1
        if problems:
            self.report.failures.append(f"{case.name} [{consumer}]: {'; '.join(problems)}")

    async def _case(self, case: Case, consumer: str) -> list[str]:
        """Run one stream and say what was wrong with it."""
        loop = asyncio.get_running_loop()
        self._names += 1
        name = str(self._names)
        run = self._server.add(name, case.script)
        run.ended_at = loop.time()
        client = Client(
            CANARY,
            base_url=f"{self._server.url}/{name}",
            model="m",
            timeout=Timeout(connect=2, first_event=FIRST_EVENT, idle=IDLE),
            retry=Retry(attempts=TRIES, base=0),
            ssl=self._context or True,
        )
        told: list[Exception] = []
        client.on_error(Exception)(told.append)
        stream = client.chat_stream("Hi")
        delivered: list[Event] = []
        back = [0.0]

        async def consume() -> BaseException | None:
            try:
                async for event in stream:
                    delivered.append(event)
                    if len(delivered) == 1 and consumer != FAST:
                        await (run.ended.wait() if consumer == SLOW else asyncio.sleep(SLEEP))
                        back[0] = loop.time()
                    elif consumer == DAWDLING:
                        await asyncio.sleep(0)
                        back[0] = loop.time()
            except Exception as error:
                return error
            return None

        async with self._starting:
            task = loop.create_task(consume())
            asked = loop.create_task(run.asked.wait())
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
        if case.close_client:
            await run.ended.wait()
            await client.aclose()
        before = -1
        while not task.done() and len(delivered) > before:  # slow on a busy machine is not hanging
            before = len(delivered)
            await asyncio.wait({task}, timeout=GUARD)
        now = loop.time()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            await client.aclose()
            return [f"hangs after {len(delivered)} events"]
        error = task.result()
        problems = [
            *_outcome(case, run, error, [wire(event) for event in delivered], stream.attempts),
            *_facts(case, error, stream.snapshot, delivered, told),
            *await _again(stream, error),
        ]
        self._count(case, run, error, delivered, now - max(run.ended_at, back[0]), problems)
        problems += await self._left(stream, client, run)
        del self._server.runs[name]
        return problems

    def _count(
        self,
        case: Case,
        run: Run,
        error: BaseException | None,
        delivered: list[Event],
        took: float,
        problems: list[str],
    ) -> None:
        late = took - max(expect.within for expect in case.expect)
        if late > GRACE:
            problems.append(f"ended {late:.3f} s late")
        else:
            self.report.latest = max(self.report.latest, late)
        self.report.events += len(delivered)
        self.report.outcomes[type(error).__name__ if error else "complete"] += 1

    async def _left(self, stream: Any, client: Client, run: Run) -> list[str]:
        """What one stream left behind (R6)."""
        problems = []
        watchdog = stream._source._watchdog
        if watchdog is not None and watchdog._handle is not None:
            problems.append("a timer is left")
        for keeper in client._transport._keepers.values():
            if getattr(keeper.session.connector, "_acquired", None):
                problems.append("a connection is still acquired")
        await client.aclose()
        try:
            async with asyncio.timeout(3):
                await run.idle.wait()
        except TimeoutError:
            if run.open:
                problems.append("the connection stays open")
        return problems


def _outcome(
    case: Case, run: Run, error: BaseException | None, delivered: list[Wire], attempts: int
) -> list[str]:
    """R1, R2 and R3: the class, the events, the tries."""
    if delivered != list(case.events[: len(delivered)]):
        return ["delivered events are no prefix of those sent"]
    got = _said(error, len(delivered), run.requests)
    if not any(_matches(expect, error, len(delivered), run.requests) for expect in case.expect):
        wanted = " or ".join(_wanted(expect) for expect in case.expect)
        return [f"got {got}, not {wanted}"]
    told = attempts if error is None else getattr(error, "attempts", None)
    return [] if told == run.requests else [f"says {told} tries, the server saw {run.requests}"]


def _matches(expect: Expect, error: BaseException | None, events: int, requests: int) -> bool:
    if expect.events not in (None, events) or requests != expect.requests:
        return False
    if expect.error is None or error is None:
        return error is None and expect.error is None
    if type(error) is not expect.error or getattr(error, "status", None) != expect.status:
        return False
    return not expect.which or _which(error) in expect.which


def _which(error: BaseException) -> str:
    if isinstance(error, StreamTimeoutError):
        return error.phase
    return str(getattr(error, "kind", ""))


def _said(error: BaseException | None, events: int, requests: int) -> str:
    name = f"{type(error).__name__}({_which(error)})" if error else "complete"
    return f"{name} after {events} events and {requests} requests"


def _wanted(expect: Expect) -> str:
    name = (
        f"{expect.error.__name__}({','.join(sorted(expect.which))})" if expect.error else "complete"
    )
    return f"{name} after {expect.events} events and {expect.requests} requests"


def _facts(
    case: Case,
    error: BaseException | None,
    snapshot: Any,
    delivered: list[Event],
    told: list[Exception],
) -> list[str]:
    """What an end says of itself: nothing foreign, the counts, the answer so far."""
    problems = []
    wires = [wire(event) for event in delivered]
    if snapshot.text != text(wires):
        problems.append("the snapshot's text is not what was delivered")
    if len(told) != (error is not None):
        problems.append(f"on_error was told {len(told)} times")
    if error is None:
        if not wires or wires[-1]["type"] != "message-end":
            problems.append("complete without message-end")
        return problems
    if not isinstance(error, StreamChatError):
        return [*problems, f"a foreign exception: {error!r}"]
    for chained in (error.__cause__, error.__context__):
        if chained is not None and not isinstance(chained, StreamChatError):
            problems.append(f"chained to {type(chained).__name__}")
    if (error.partial is not None) != bool(delivered):
        problems.append("partial is missing or invented")
    elif error.partial is not None and error.partial.text != text(wires):
        problems.append("partial is not what was delivered")
    if hasattr(error, "events") and error.events != len(delivered):
        problems.append(f"says {error.events} events, {len(delivered)} were delivered")
    received = getattr(error, "bytes_received", None)
    if delivered and case.body_bytes is not None and received != case.body_bytes:
        problems.append(f"says {received} bytes, {case.body_bytes} arrived")
    if CANARY in f"{error} {error!r} {error.args}":
        problems.append("shows the key")
    return problems


async def _again(stream: Any, error: BaseException | None) -> list[str]:
    """A stream that has ended has ended: asked again it says the same, without an event."""
    try:
        event = await anext(stream, None)
    except Exception as second:
        same = type(second) is type(error)
        return [] if same else [f"asked again it raises {type(second).__name__}"]
    if event is not None:
        return ["an event after the end"]
    return [] if error is None else ["asked again it ends as if complete"]


# --- a whole block -------------------------------------------------------------------------------


@asynccontextmanager
async def _nothing_left(report: Report) -> Any:
    """Count what is there before and after, without the collector's help for descriptors."""
    loop = asyncio.get_running_loop()
    tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
    reported: list[str] = []
    loop.set_exception_handler(lambda _, context: reported.append(str(context.get("message"))))
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: reported.append(str(args.exc_value))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
            await turns()
            left = report.left
            left.descriptors = _descriptors() - descriptors
            gc.collect()
            await turns()
            left.tasks = len(asyncio.all_tasks()) - tasks
            scheduled = getattr(loop, "_scheduled", ())
            left.timers = sum(not handle.cancelled() for handle in scheduled)
            reported += [f"{entry.category.__name__}: {entry.message}" for entry in caught]
            left.warnings = len(reported)
            if left.any():
                report.failures.append(f"left behind: {left} {reported[:5]}")
        finally:
            sys.unraisablehook = hook


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def authority() -> tuple[ssl_module.SSLContext, ssl_module.SSLContext]:
    """A throw-away certificate: the server's context and the client's."""
    import trustme

    ca = trustme.CA()
    server = ssl_module.SSLContext(ssl_module.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl_module.create_default_context()
    ca.configure_trust(client)
    return server, client


def run_block(
    cases: Callable[[], Iterable[tuple[Case, str]]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    tls: bool,
    concurrency: int,
) -> Report:
    """Run a block of cases in a loop of its own and return its figures."""
    contexts = authority() if tls else (None, None)

    async def main() -> Report:
        report = Report()
        # One round first: what is made once in a process is no leak.
        async with serve(contexts[0]) as server:
            warm = Runner(server, contexts[1], concurrency=1)
            await warm.run(_first(cases()))
        async with _nothing_left(report), serve(contexts[0]) as server:
            runner = Runner(server, contexts[1], concurrency=concurrency)
            runner.report = report
            await runner.run(cases())
            report.left.connections = sum(run.open for run in server.runs.values())
        return report

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


def _first(cases: Iterable[tuple[Case, str]]) -> list[tuple[Case, str]]:
    return [next(iter(cases))]


def seconds_since(moment: float) -> float:
    return round(time.monotonic() - moment, 1)
