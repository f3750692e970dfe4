"""The bytes of one answer as blocks: opened with retries, watched by timers, closed once.

Below the stream and above the transport. It knows attempts, limits and arrivals, and nothing of
handlers and consumers: :meth:`Source.open` returns when the first event is there, and
:meth:`Source.receive` when the next one is; whatever goes wrong is one exception of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence

from streamchat.framing import Framing, framing_of, not_an_answer
from streamchat.plan import Plan
from streamchat.policy import is_retryable, retry_delay
from streamchat.protocol.errors import (
    AnswerTooLargeError,
    GenerationError,
    ProtocolError,
    StatusError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
    TruncatedStreamError,
)
from streamchat.protocol.events import MessageEnd
from streamchat.protocol.reader import EventReader, Item
from streamchat.refusal import failed_generation, refusal, timed_out
from streamchat.transport import ConnectionUse, Exchange
from streamchat.watchdog import Watchdog

__all__ = ["Source", "closed", "stopped_by"]

YIELD_EVERY = 256
"""Events after which the loop gets a turn although more are there, so that one fast answer does not
hold up the others; 0.01 us per event."""
SKIPPED_CHUNK = 32
"""What a chunk without any event counts as: 8 of up to 32 KiB are read between two turns."""
MAX_EARLY_BYTES = 16 * 1024 * 1024
"""Unknown events before the first of Chat v2, which are kept until it comes: 64 bytes each and their
size."""
_log = logging.getLogger("streamchat")
"""One record a retry, level INFO, without content or headers; no handler is installed."""


_NOTHING_READ = EventReader()
"""Of all streams before the first byte of an answer: one less of a dozen objects while they wait."""


class Source:
    """Where a stream's blocks come from."""

    __slots__ = (
        "__weakref__",
        "_aborted",
        "_body",
        "_exchange",
        "_plan",
        "_received",
        "_scope",
        "_unyielded",
        "_waited",
        "_watchdog",
        "arrived",
        "attempts",
        "blocks_received",
        "first_byte_at",
        "first_event_at",
        "first_text_at",
        "longest_gap",
        "reader",
    )

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # What cannot be sent is said now. Let go with the first event: nothing is sent after that, and
        # a prompt can be large.
        self._body = plan.encode()
        self._exchange: Exchange | None = None
        self._watchdog: Watchdog | None = None
        self._aborted: TransportError | None = None
        self._scope: asyncio.Timeout | None = None
        self._unyielded = 0
        # Bytes of the body of this attempt, decoded.
        self._received = 0
        # How long the wait for the next event has been, if unknown events came in between.
        self._waited = 0.0
        self.reader = _NOTHING_READ
        """The reader of the current attempt; its blocks are those that this source returns."""
        self.attempts = 0
        """How many times the request was sent; a stale connection's replacement is not counted."""
        self.blocks_received = 0
        """How many blocks were returned."""
        self.arrived: float | None = None
        """When the last event-bearing bytes were read, on the plan's clock."""
        self.first_byte_at: float | None = None
        """When status and headers of the current attempt were there."""
        self.first_event_at: float | None = None
        """When the first event was there."""
        self.first_text_at: float | None = None
        """When the first text of the answer was there; see :meth:`note_first_text`."""
        self.longest_gap: float | None = None
        """The longest wait for an event after the first, seconds."""

    @property
    def started(self) -> float | None:
        """When the first request began; ``None`` before."""
        return self._watchdog.started if self._watchdog is not None else None

    @property
    def status(self) -> int | None:
        """The HTTP status of the current attempt; ``None`` before its headers."""
        return self._exchange.status if self._exchange is not None else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the current attempt; empty before they are there."""
        return self._exchange.headers if self._exchange is not None else {}

    # --- opening ---------------------------------------------------------------------------------

    async def open(self) -> Sequence[Item]:
        """Send the request, again if need be, and return the blocks that hold the first event.

        Raises:
            StreamChatError: the last try's failure, or why the stream was aborted meanwhile.
        """
        plan = self._plan
        plan.transport.attach(self)
        # No time of the answer's: its limits begin with the request.
        if (aborted := await self._wait_for_turn()) is not None:
            raise aborted
        watchdog = self._watchdog = Watchdog(
            plan.timeout,
            clock=plan.clock,
            loop=asyncio.get_running_loop(),
            host=plan.transport.host,
        )
        while True:
            self.attempts += 1
            result = await self._attempt(watchdog)
            if not isinstance(result, StreamChatError):
                plan.budget.refund()
                self._body = b""
                return result
            result.__traceback__ = None  # it holds the frames that hold the failure
            if plan.pacer is not None:
                plan.pacer.on_refusal(result, plan.retry)
            failure: StreamChatError = self._aborted or result
            delay = retry_delay(
                plan.retry,
                failure,
                attempt=self.attempts,
                budget=plan.budget,
                random=plan.random(),
            )
            if delay is not None and watchdog.allows(delay):
                _log.info(
                    "try %d of %d at %s failed (%s); again in %.2f s",
                    self.attempts,
                    plan.retry.attempts,
                    plan.transport.host,
                    _named(failure),
                    delay,
                )
                await self._unless_aborted(asyncio.sleep(delay))
                if (aborted := await self._wait_for_turn()) is None:
                    continue
                failure = aborted
            try:
                raise failure
            finally:
                # The traceback holds this frame and this source: no cycle through either.
                del failure, result, aborted
                self._aborted = None

    async def _wait_for_turn(self) -> TransportError | None:
        """Wait until a try may be sent; why the stream was aborted, if it was."""
        plan = self._plan
        if plan.pacer is not None and self._aborted is None:
            await self._unless_aborted(plan.pacer.before_attempt(plan.request, self._body))
        return self._aborted

    async def _attempt(self, watchdog: Watchdog) -> Sequence[Item] | StreamChatError:
        """One try, up to its first event; or why it failed."""
        plan = self._plan
        self._exchange = self.first_byte_at = self.arrived = None
        self._received = 0
        exchange = await self._exchange_or_failure(watchdog)
        if isinstance(exchange, StreamChatError):
            watchdog.stop()
            return exchange
        self._exchange = exchange
        if self._aborted is not None:
            watchdog.stop()
            exchange.close()
            return self._aborted
        self.first_byte_at = plan.clock()
        watchdog.watch(exchange)
        failure: StreamChatError | None = None
        if exchange.status != 200:
            failure = await refusal(exchange, sent=plan.headers, now=plan.wall_clock)
        if failure is None:
            try:
                items, failure = await self._first_event(exchange)
            except StreamChatError as error:
                failure = error
            else:
                if failure is None:
                    self.first_event_at = self.arrived
                    watchdog.begin_events()
                    return items
        watchdog.stop()
        exchange.close()
        return failure

    async def _exchange_or_failure(self, watchdog: Watchdog) -> Exchange | StreamChatError:
        """Status and headers, or why there are none."""
        plan, use = self._plan, ConnectionUse()
        task = asyncio.current_task()
        assert task is not None  # as aiohttp has it
        cancelling = task.cancelling()
        watchdog.begin_attempt(task)
        try:
            exchange = await plan.transport.open(
                plan.headers, self._body, connect_timeout=plan.timeout.connect, use=use
            )
        except StreamChatError as error:
            if watchdog.is_interrupting:
                task.uncancel()  # too late to interrupt
            if isinstance(error, StreamTimeoutError) and watchdog.passed is not None:
                # The limit for connecting was passed in the same turn. That one is tried again.
                return timed_out(plan.transport.host, *watchdog.passed, queued=use.queued)
            return error
        except BaseException as error:
            # Ours, or somebody else's, or both: as asyncio.timeout() tells them apart.
            is_ours = watchdog.is_interrupting and task.uncancel() <= cancelling
            if not is_ours or not isinstance(error, asyncio.CancelledError):
                raise
            if self._aborted is not None or watchdog.passed is None:
                return self._aborted or closed()
            return timed_out(plan.transport.host, *watchdog.passed, queued=use.queued)
        finally:
            watchdog.end_opening()
        if watchdog.is_interrupting:
            task.uncancel()  # too late to interrupt
        return exchange

    async def _first_event(
        self, exchange: Exchange
    ) -> tuple[Sequence[Item], StreamChatError | None]:
        """What the body begins with, up to its first event of Chat v2; or why that is no answer."""
        plan = self._plan
        framing, head = await framing_of(exchange)
        if framing is Framing.OTHER:
            return (), await not_an_answer(
                exchange, plan.transport.host, sent=plan.headers, head=head
            )
        self.reader = reader = EventReader(
            plan.max_event_bytes,
            lines=framing is Framing.JSON_LINES,
            used_call_ids=plan.used_call_ids,
        )
        items: list[Item] = []
        size = 0
        latest = await self.receive(head)
        while self.arrived is None:  # no event of Chat v2 so far
            items += latest
            size += sum(64 + len(item) for item in latest if isinstance(item, bytes))
            if size > MAX_EARLY_BYTES:
                raise ProtocolError(
                    f"{plan.transport.host} sent {len(items)} events that Chat v2 does not have, and "
                    "none that it has"
                )
            latest = await self.receive(b"")
        items += latest
        failure = reader.first_failure(latest)
        if failure is None or isinstance(failure, GenerationError):
            return items, failure
        if isinstance(failure, MessageEnd):
            error = failed_generation(failure)
            is_last = self.attempts >= plan.retry.attempts
            # Without another try it is an event like any other, and handlers receive it.
            return items, None if is_last or error is None or not is_retryable(error) else error
        return (), self._truncated("the stream said [DONE] before its first event")

    async def _unless_aborted(self, work: Awaitable[object]) -> None:
        """Wait for something, unless :meth:`abort` ends the wait."""
        self._scope = scope = asyncio.timeout(None)
        try:
            async with scope:
                await work
        except TimeoutError:
            if not scope.expired():
                raise  # the pacer's own
        finally:
            self._scope = None

    # --- receiving -------------------------------------------------------------------------------

    async def receive(self, head: bytes | None = None) -> Sequence[Item]:
        """Wait for bytes that complete at least one more event, and return the blocks.

        Unknown events are returned too, but the wait for the next event of Chat v2 goes on.

        Args:
            head: before the first event, which has a limit of its own: bytes that were read already.

        Raises:
            TransportError: the connection failed, a limit was passed, or the body ended.
            FrameTooLargeError: an event is over the limit.
        """
        # One coroutine, not one for each step: each costs 0.5 us whenever the stream is woken, and 240
        # bytes while it waits (benchmarks/stream.py, benchmarks/memory.py).
        exchange, watchdog, reader, clock = (
            self._exchange,
            self._watchdog,
            self.reader,
            self._plan.clock,
        )
        assert exchange is not None and watchdog is not None
        if self.first_text_at is None:
            self.note_first_text()
        if head is None:
            watchdog.waiting_since = clock() - self._waited
        while True:
            chunk = head or await exchange.read()
            head = b""
            self._received += len(chunk)
            if self._received > self._plan.max_answer_bytes:
                raise AnswerTooLargeError(limit=self._plan.max_answer_bytes)
            if not chunk:
                items = reader.finish()
                if not items:
                    raise self._truncated("the body ended before the answer was complete")
                is_fed = reader.holds_answer_event(items)
                break
            items = reader.split(chunk)
            is_fed = reader.holds_answer_event(items)
            if is_fed or reader.holds_data(items):
                break
            reader.skip(items)
            if reader.too_large is not None:
                raise reader.too_large
            self._unyielded += max(SKIPPED_CHUNK, len(items))
            if self._unyielded >= YIELD_EVERY:
                self._unyielded = 0
                await asyncio.sleep(0)
        self.blocks_received += len(items)
        since = watchdog.waiting_since
        if is_fed:
            self.arrived = now = clock()
            if since is not None:
                watchdog.waiting_since = None
                self._waited = 0.0
                if self.longest_gap is None or now - since > self.longest_gap:
                    self.longest_gap = now - since
        elif since is not None:
            watchdog.waiting_since = None
            self._waited = clock() - since
        self._unyielded += len(items)
        if self._unyielded >= YIELD_EVERY:
            self._unyielded = 0
            await asyncio.sleep(0)
        return items

    def note_first_text(self) -> None:
        """Text that was read since the last arrival came with that arrival."""
        if self.first_text_at is None and self.reader.has_text:
            self.first_text_at = self.arrived

    def _truncated(self, text: str) -> TruncatedStreamError:
        exchange = self._exchange
        return TruncatedStreamError(
            text,
            kind="truncated",
            host=self._plan.transport.host,
            bytes_received=exchange.bytes_received if exchange is not None else 0,
        )

    # --- the end ---------------------------------------------------------------------------------

    async def finish(self) -> None:
        """The answer is complete: give the connection back, within 100 ms and 16 KiB."""
        self._stop_watching()
        if self._exchange is not None:
            await self._exchange.drain()

    def close(self) -> None:
        """Close the connection now; nobody waits for it."""
        self._stop_watching()
        if self._exchange is not None:
            self._exchange.close()

    def abort(self, error: TransportError) -> None:
        """Close the connection now, and let whoever waits for it raise ``error``."""
        is_first, self._aborted = self._aborted is None, self._aborted or error
        if self._watchdog is not None:
            self._watchdog.interrupt()
        self._stop_watching()
        if self._exchange is not None:
            self._exchange.abort(error)
        if is_first and self._scope is not None:  # it refuses while it expires
            self._scope.reschedule(asyncio.get_running_loop().time())

    def _stop_watching(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()


def _named(failure: StreamChatError) -> str:
    """A failure in two words, without anything a server or a user said."""
    if isinstance(failure, StatusError):
        return f"HTTP {failure.status}"
    kind = getattr(failure, "kind", "")
    return f"{type(failure).__name__} {kind}".strip()


def closed() -> TransportError:
    """The error of a stream that was closed before its answer was complete."""
    return TransportError("the stream was closed before the answer was complete", kind="closed")


def stopped_by(error: BaseException) -> TransportError:
    """The error of a stream that something raised around it has ended."""
    return TransportError(
        f"the stream was stopped by {type(error).__name__}, raised around it", kind="closed"
    )
