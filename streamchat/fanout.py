"""Many requests: lazily taken, so many at once, results as they complete or in order: ``FanOut``.

The flow::

    requests -> feeder (one task) -> a task each, one stream each -> finished -> your ``async for``

The feeder takes a request when there is room for it, and a result that nobody has taken yet takes room
like a request that runs: so memory is bounded by ``concurrency``, and a slow consumer slows it down.
Tasks know the engine, never the ``FanOut``: one that is dropped cancels what runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast
from weakref import ref

import attrs

from streamchat.asynchronous import AsyncOnly
from streamchat.credentials import hidden
from streamchat.limiter import Limiter, Permit
from streamchat.pacing import LimiterTurn
from streamchat.plan import Pacer
from streamchat.policy import AdaptiveConcurrency, Retry, is_rate_limit
from streamchat.protocol.errors import ConnectError, StreamChatError
from streamchat.protocol.plain import is_list, is_mapping, repair_surrogates
from streamchat.protocol.request import ChatRequest, Messages
from streamchat.protocol.response import ChatResponse
from streamchat.refusal import two_consumers
from streamchat.stops import Stop, StopCount
from streamchat.stream import ChatStream
from streamchat.timing import Timing

__all__ = ["FanOut", "FanOutResult", "OnError", "Request", "Requests", "Stop"]

Request = Messages | Mapping[str, Any]
"""A ``str``, a list of messages, or a dict of ``chat_stream`` keywords, ``messages`` among them."""
Requests = Iterable[Request] | AsyncIterable[Request]
OnError = Literal["return", "raise"]


@attrs.frozen(kw_only=True)
class FanOutResult:
    """What became of one request."""

    index: int
    """Its position among the requests, from 0."""
    request: Request = attrs.field(repr=False)
    """As it was given."""
    response: ChatResponse | None = attrs.field(default=None, repr=False)
    """The answer; ``None`` if there is none."""
    error: Exception | None = None
    """Why there is none; what had arrived is in its ``partial``."""
    attempts: int = 0
    """How many times it was sent; 0 if it was not."""
    timing: Timing = attrs.field(default=Timing())
    """Seconds from its first request, as far as they are known."""
    data: Any = attrs.field(default=None, repr=False)
    """What was given as ``data``, with the request or for all."""
    value: Any = attrs.field(default=None, repr=False)
    """The answer as an object of the type given as ``into``; ``None`` without it."""

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.response is not None

    def _repr_markdown_(self) -> str:
        """How a notebook shows it: the answer, or the error's class and words."""
        from streamchat.markdown import result_markdown  # most programs show nothing

        return result_markdown(self.index, self.response, self.error)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``index``, ``response`` or ``error`` and ``message``, ``attempts``, ``timing``.

        Not in it: what is the caller's own (``request``, ``data``), and ``value``, which is the answer
        read again.
        """
        fields: dict[str, Any] = {"index": self.index}
        if self.response is not None:
            fields["response"] = self.response.to_dict()
        if self.error is not None:
            fields |= {
                "error": type(self.error).__name__,
                "message": repair_surrogates(str(self.error)),
            }
        return {**fields, "attempts": self.attempts, "timing": self.timing.to_dict()}


class Start(Protocol):
    """How a request becomes a stream; raises what ``chat_stream`` raises."""

    def __call__(
        self, keywords: Mapping[str, Any], /, *, index: int, pacer: Pacer | None
    ) -> ChatStream: ...


@attrs.frozen(kw_only=True)
class FanOutOptions:
    """How a fan-out runs.

    Raises:
        TypeError, ValueError: a value that means nothing; it is named.
    """

    concurrency: int
    is_ordered: bool
    limiter: Limiter | None
    on_error: OnError
    is_adaptive: bool
    data: Any = attrs.field(default=None, repr=False)
    """Of requests that have none of their own."""
    stop: Stop | None = None
    read: Callable[[ChatResponse], Any] | None = None
    """Makes the value of an answer; raises what its result then has as ``error``."""
    clock: Callable[[], float] = time.monotonic

    def __attrs_post_init__(self) -> None:
        if isinstance(self.concurrency, bool) or not isinstance(self.concurrency, int):
            raise TypeError(f"concurrency must be an int, not {type(self.concurrency).__name__}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")
        if self.stop is not None and not isinstance(self.stop, Stop):
            raise TypeError(
                f"stop must be a Stop, not {type(self.stop).__name__}: stop=Stop(failures=10)"
            )
        if self.on_error not in ("return", "raise"):
            raise ValueError(f'on_error must be "return" or "raise", not {self.on_error!r}')


@attrs.frozen
class _Item:
    """A request and its position; a traceback shows local variables, and this shows no headers."""

    index: int
    request: Any = attrs.field(repr=False)


class FanOut(AsyncOnly):
    """Many answers, as they complete. Made by :meth:`streamchat.Client.fan_out`.

    ::

        async for result in client.fan_out(prompts, concurrency=64):
            print(result.index, result.response.text if result.ok else result.error)

    Nothing is taken and nothing sent before it is iterated. One consumer at a time. Leaving early,
    by ``break``, :meth:`aclose` or the end of an ``async with``, cancels what runs.

    Raises (while it is iterated): what the requests' own iterator raises, after the results of what it
    gave before; with ``on_error="raise"`` the first failure, with a note that names the request; with
    ``stop=`` :class:`~streamchat.StopReachedError`, after the results of what ran.
    """

    def __init__(self, start: Start, requests: Requests, options: FanOutOptions) -> None:
        self._engine = _Engine(start, _source(requests), options)
        self._busy = False

    @property
    def running(self) -> int:
        """How many requests are taken and not finished: running, or waiting for their turn."""
        return self._engine.running

    @property
    def taken(self) -> int:
        """How many requests were taken so far."""
        return self._engine.taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FanOutResult:
        if self._busy:
            raise two_consumers()
        self._busy = True
        try:
            return await self._engine.next()
        finally:
            self._busy = False
            # A cancelled task keeps its CancelledError, whose traceback holds this frame: what runs
            # would go on for as long as anybody keeps the task.
            del self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what runs and wait until it has ended; iterating then ends. Idempotent."""
        await self._engine.aclose()

    def __del__(self) -> None:
        engine: _Engine | None = getattr(self, "_engine", None)
        if engine is not None:
            engine.cancel()

    def __repr__(self) -> str:
        return f"<FanOut taken={self.taken} running={self.running}>"


class _Engine:
    """What runs behind a fan-out."""

    def __init__(
        self, start: Start, source: Callable[[], AsyncIterator[Request]], options: FanOutOptions
    ) -> None:
        self._start = start
        self._source = source
        self.options = options
        self._most = options.concurrency
        """How many may run; fewer once the process has run out of descriptors."""
        self.adaptive = AdaptiveConcurrency(options.concurrency) if options.is_adaptive else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: deque[FanOutResult] = deque()
        self._early: dict[int, FanOutResult] = {}
        self._handed_out = 0
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._is_closing = False
        """Whether tasks are cancelled by us."""
        self._failure: BaseException | None = None
        self.count = StopCount(options.stop) if options.stop is not None else None
        self.is_stopped = False
        """Whether a limit of ``Stop`` was reached."""
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting: set[_Turn] = set()
        """Turns at the limiter of requests that have not been sent."""
        self.taken = 0

    @property
    def running(self) -> int:
        return len(self._tasks)

    # --- the consumer's side ---------------------------------------------------------------------

    async def next(self) -> FanOutResult:
        if self._feeder is None and not self._is_closing:
            self._loop = asyncio.get_running_loop()
            self._feeder = asyncio.ensure_future(self._feed())
            self._feeder.add_done_callback(lambda _: self._news.set())
            self._begin_count(self._loop)
        while not self._finished:
            if not self._is_running():
                failure, self._failure = self._failure, None
                if failure is None and self.is_stopped and self.count is not None:
                    failure, self.is_stopped, self.count = self.count.error(), False, None
                if self._deadline is not None:
                    self._deadline.cancel()
                try:
                    raise StopAsyncIteration if failure is None else failure
                finally:
                    del failure  # its traceback holds this frame
            self._news.clear()
            await self._news.wait()
        result = self._finished.popleft()
        self._handed_out += 1
        self._room.set()
        if result.error is not None and self.options.on_error == "raise":
            await self.aclose()
            result.error.add_note(f"raised by request {result.index} of the fan-out")
            try:
                raise result.error
            finally:
                del result  # it holds the error, whose traceback holds this frame
        return result

    def _begin_count(self, loop: asyncio.AbstractEventLoop) -> None:
        count = self.count
        if count is None:
            return
        count.begin(loop.time)
        if count.stop.seconds is not None:
            # The engine holds the timer, and the timer must not keep a dropped engine alive.
            engine = ref(self)

            def over() -> None:
                if (alive := engine()) is not None and alive.count is not None:
                    alive.count.end_of_time()
                    alive._stop()

            self._deadline = loop.call_later(count.stop.seconds, over)

    def _stop(self) -> None:
        """Take no further request, and send none that only waits for its turn."""
        if self.is_stopped or self._is_closing:
            return
        self.is_stopped = True
        if self._feeder is not None:
            self._feeder.cancel()
        for turn in [*self._waiting]:
            turn.withdraw()

    def _is_running(self) -> bool:
        return bool(self._tasks) or (self._feeder is not None and not self._feeder.done())

    def cancel(self) -> None:
        """Let everything end that runs; from any thread."""
        loop, self._is_closing = self._loop, True
        if loop is not None and self._is_running() and not loop.is_closed():
            loop.call_soon_threadsafe(self._cancel_tasks)

    def _cancel_tasks(self) -> None:
        if self._feeder is not None:
            self._feeder.cancel()
        for task in self._tasks:
            task.cancel()
        self._news.set()

    async def aclose(self) -> None:
        self._is_closing = True
        self.count = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._cancel_tasks()
        running = [*self._tasks, *([self._feeder] if self._feeder is not None else [])]
        if running:
            await asyncio.wait(running)
        self._finished.clear()
        self._early.clear()
        self._failure = None

    # --- the feeder ------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Take requests while there is room, and start them; what goes wrong is for the consumer."""
        try:
            requests = self._source()
            try:
                while True:
                    while not self._has_room():
                        self._room.clear()
                        await self._room.wait()
                    try:
                        item = _Item(self.taken, await anext(requests))
                    except StopAsyncIteration:
                        break
                    self.taken += 1
                    task = asyncio.ensure_future(self._one(item))
                    self._tasks.add(task)
                    task.add_done_callback(self._on_done)
                    # A plain iterable never waits: those that run are to have their turn all the same.
                    await asyncio.sleep(0)
            finally:
                close = getattr(requests, "aclose", None)
                if close is not None:
                    await close()
        except (Exception, asyncio.CancelledError) as error:
            if self._is_closing:
                raise  # nobody iterates any more: what is no cancellation is for the loop's handler
            if not (self.is_stopped and isinstance(error, asyncio.CancelledError)):
                self._failure = error

    def _has_room(self) -> bool:
        if self.taken - self._handed_out >= self.options.concurrency:
            return False
        adaptive = self.adaptive.limit if self.adaptive is not None else self._most
        return len(self._tasks) < min(adaptive, self._most)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error  # a bug of ours, or an exit
            self._is_closing = True
            self._cancel_tasks()
        self._room.set()
        self._news.set()

    def join(self, turn: _Turn) -> None:
        """A request waits to be sent for the first time."""
        self._waiting.add(turn)
        if self.is_stopped:
            turn.withdraw()

    def leave(self, turn: _Turn) -> None:
        """It waits no longer."""
        self._waiting.discard(turn)

    # --- one request -----------------------------------------------------------------------------

    async def _one(self, item: _Item) -> None:
        stream: ChatStream | None = None
        turn = _Turn(self)
        response: ChatResponse | None = None
        failure: Exception | None = None
        data = self.options.data
        value: Any = None
        try:
            keywords = _keywords(item)
            data = keywords.get("data", data)
            stream = self._start(keywords, index=item.index, pacer=turn)
            response = await self._answer(stream, turn)
            if self.options.read is not None:
                value = self.options.read(response)
        except asyncio.CancelledError:
            failure = self._withdrawn(turn)
            if failure is None:
                raise
        except Exception as error:  # noqa: BLE001  # each request ends as a result
            failure = error
        if self.adaptive is not None and response is not None:
            self.adaptive.on_success()
        if isinstance(failure, ConnectError) and failure.kind == "resources":
            # Else every further request would fail at once, as fast as they can be taken.
            self._most = max(1, min(self._most, len(self._tasks) - 1))
        if self.count is not None and not turn.is_withdrawn:
            self.count.add(response, failure)
            if self.count.reason:
                self._stop()
        self._finish(
            FanOutResult(
                index=item.index,
                request=item.request,
                response=response if failure is None else None,
                error=failure,
                attempts=stream.attempts if stream is not None else 0,
                timing=stream.timing if stream is not None else Timing(),
                data=data,
                value=value,
            )
        )
        del failure  # its traceback holds this frame

    def _withdrawn(self, turn: _Turn) -> Exception | None:
        """The end of a request that was still waiting when the fan-out was stopped."""
        if not turn.is_withdrawn or self._is_closing or self.count is None:
            return None
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return self.count.error()

    async def _answer(self, stream: ChatStream, turn: _Turn) -> ChatResponse:
        try:
            return await stream
        except asyncio.CancelledError:
            if self._is_closing or turn.is_withdrawn:
                raise
        # Not by us: a handler waited for something that was cancelled. It is this request's end alone,
        # and the stream says again how it ended.
        return await stream

    def _finish(self, result: FanOutResult) -> None:
        if not self.options.is_ordered:
            self._finished.append(result)
            return
        self._early[result.index] = result
        due = self._handed_out + len(self._finished)
        while due in self._early:
            self._finished.append(self._early.pop(due))
            due += 1


class _Turn(LimiterTurn):
    """One request's turns at the limiter, one for each try."""

    def __init__(self, engine: _Engine) -> None:
        super().__init__(engine.options.limiter)
        self._engine = engine
        self._sent_at = 0.0
        self._task = asyncio.current_task()
        self._is_sent = False
        self.is_withdrawn = False
        """Whether it was not sent, because the fan-out was stopped."""

    def withdraw(self) -> None:
        """Wait no longer."""
        if self._task is not None and not self.is_withdrawn:
            self.is_withdrawn = True
            self._task.cancel()

    async def before_attempt(self, request: ChatRequest, body: bytes) -> None:
        await super().before_attempt(request, body)
        self._is_sent = True
        self._sent_at = self._engine.options.clock()

    async def _enter(self, permit: Permit) -> None:
        if not self._is_sent:
            self._engine.join(self)
        try:
            await super()._enter(permit)
        finally:
            self._engine.leave(self)

    def on_refusal(self, error: StreamChatError, retry: Retry) -> None:
        super().on_refusal(error, retry)
        adaptive = self._engine.adaptive
        if adaptive is not None and is_rate_limit(error):
            adaptive.on_rate_limit(self._sent_at, self._engine.options.clock())


def _keywords(item: _Item) -> Mapping[str, Any]:
    """The arguments of ``chat_stream`` that a request stands for."""
    if isinstance(item.request, str) or is_list(item.request):
        return {"messages": item.request}
    if not is_mapping(item.request):
        raise TypeError(
            "a request must be a str, a list of messages or a dict, "
            f"not {type(item.request).__name__}"
        )
    keywords: dict[str, Any] = {**item.request}
    if "headers" in keywords:
        keywords["headers"] = hidden(keywords["headers"])  # a traceback shows local variables
    if "messages" not in keywords:
        raise ValueError(
            'a request must have "messages", like the keywords of chat_stream; it has '
            + ", ".join(sorted(str(name)[:40] for name in list(keywords)[:8]))
        )
    return keywords


def _source(requests: Any) -> Callable[[], AsyncIterator[Request]]:
    """The requests, one by one, whatever they come from.

    Raises:
        TypeError: nothing to iterate over.
    """
    if hasattr(requests, "__aiter__"):
        return lambda: aiter(cast("AsyncIterable[Request]", requests))
    if isinstance(requests, str) or is_mapping(requests) or not hasattr(requests, "__iter__"):
        raise TypeError(
            f"requests must be a list or another iterable of requests, not {type(requests).__name__}"
        )
    return lambda: _Sync(iter(cast("Iterable[Request]", requests)))


class _Sync:
    """A plain iterator, asked like an asynchronous one."""

    def __init__(self, items: Iterator[Request]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Request:
        for item in self._items:
            return item
        raise StopAsyncIteration
