"""What runs behind a ``RayFanOut``.

The flow::

    requests -> feeder -> seats, each with an actor: one Client, many streams -> finished -> the consumer

A seat is a place for an actor, and knows what was sent to it and has not come back. When the actor is
lost, the next one in the seat is sent just that. A result is taken once for each request that is out, so
what a lost actor said twice, or too late, is not heard.

Requests go in shards: what there is room for within ``LINGER`` seconds, 200 at most. Results come in
lists, by one streaming generator an actor. The driver counts what is out, results that nobody has taken
included, so nothing piles up anywhere; Ray's own back-pressure ignores async actors in older versions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeGuard

import attrs

from streamchat.fanout import FanOutResult, Request
from streamchat.limiter import Limiter
from streamchat.protocol.errors import TransportError
from streamchat.protocol.plain import is_mapping
from streamchat.ray.actors import Broken, Packed, Worker, packed
from streamchat.ray.cluster import Sealed, first_line, library
from streamchat.ray.limits import ClusterLimiter

__all__ = ["Engine"]

SHARD = 200
"""Requests of one call at most."""
LINGER = 0.02
"""Seconds that a shard waits for more: 50 calls a second and actor at most."""
LOSSES = 5
"""Actors that a request may lose: what makes each of them crash is not tried for ever."""
SILENT = 3
"""Actors of one seat that may be lost one after the other without any answer."""


@attrs.define(eq=False)
class _Item:
    index: int
    request: Any = attrs.field(repr=False)
    losses: int = 0


@attrs.define(eq=False)
class _Seat:
    """A place for an actor."""

    out: dict[int, _Item] = attrs.Factory(dict[int, _Item])
    """What was sent, or is about to be, and has not come back."""
    worker: Any = None
    """The actor that sits there."""
    shard: list[_Item] = attrs.Factory(list[_Item])
    """What is about to be sent."""
    timer: asyncio.TimerHandle | None = None


@attrs.define(eq=False, kw_only=True)
class Engine:
    """What runs behind it; no actor's task knows the ``RayFanOut``, so that a dropped one ends."""

    source: Callable[[], AsyncIterator[Request]]
    data: Any = attrs.field(repr=False)
    actors: int
    per_actor: int
    limiter: Limiter | ClusterLimiter | None
    raises: bool
    client: Sealed
    options: Sealed
    address: str | None
    actor_options: Mapping[str, Any]

    ray: Any = attrs.field(init=False, factory=library)
    seats: list[_Seat] = attrs.field(init=False, factory=list[_Seat])
    finished: deque[FanOutResult] = attrs.field(init=False, factory=deque[FanOutResult])
    taken: int = attrs.field(init=False, default=0)
    lost: int = attrs.field(init=False, default=0)
    _handed_out: int = attrs.field(init=False, default=0)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(init=False, default=None)
    _work: asyncio.Task[None] | None = attrs.field(init=False, default=None)
    _own_limiter: ClusterLimiter | None = attrs.field(init=False, default=None)
    _pushes: set[asyncio.Task[None]] = attrs.field(init=False, factory=set[asyncio.Task[None]])
    _has_joined: bool = attrs.field(init=False, default=False)
    _is_closing: bool = attrs.field(init=False, default=False)
    _failure: BaseException | None = attrs.field(init=False, default=None)
    _room: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _news: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)

    @property
    def running(self) -> int:
        """How many requests are taken and have not come back."""
        return sum(len(seat.out) for seat in self.seats)

    # --- the consumer's side ---------------------------------------------------------------------

    async def next(self) -> FanOutResult:
        """The next result; the first call starts all that runs.

        Raises:
            StopAsyncIteration: there is none any more.
            Exception: what ended it, as :class:`RayFanOut` says.
        """
        if self._work is None and not self._is_closing:
            self._loop = asyncio.get_running_loop()
            self._work = asyncio.ensure_future(self._run())
            self._work.add_done_callback(lambda _: self._news.set())
        while not self.finished:
            if self._work is None or self._work.done():
                failure, self._failure = self._failure, None
                await self.aclose()
                try:
                    raise StopAsyncIteration if failure is None else failure
                finally:
                    del failure  # its traceback holds this frame
            self._news.clear()
            await self._news.wait()
        result = self.finished.popleft()
        self._handed_out += 1
        self._room.set()
        if result.error is not None and self.raises:
            await self.aclose()
            result.error.add_note(f"raised by request {result.index} of the fan-out")
            try:
                raise result.error
            finally:
                del result  # it holds the error, whose traceback holds this frame
        return result

    def cancel(self) -> None:
        """Let everything end that runs; from any thread."""
        loop, self._is_closing = self._loop, True
        if loop is not None and self._work is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._work.cancel)

    async def aclose(self) -> None:
        """End all that runs, and wait for its end. Idempotent."""
        self._is_closing = True
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        self.finished.clear()
        self._failure = None

    # --- all that runs ---------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._join()
            self.seats = [_Seat() for _ in range(self.actors)]
            async with asyncio.TaskGroup() as group:
                manned = [group.create_task(self._man(seat)) for seat in self.seats]
                await self._feed()
                for task in manned:
                    task.cancel()
        except asyncio.CancelledError as error:
            if self._is_closing:
                raise
            self._failure = error  # the requests' own
        except BaseExceptionGroup as failures:
            # An exit goes first, as nothing may swallow it.
            exits = failures.split(Exception)[1]
            self._failure = _first(exits or failures)
        except Exception as error:  # noqa: BLE001  # for the consumer
            self._failure = error
        finally:
            await self._leave()

    async def _join(self) -> None:
        if not self.ray.is_initialized():
            self._has_joined = True
            joining = asyncio.ensure_future(
                asyncio.to_thread(
                    self.ray.init,
                    address=self.address,
                    include_dashboard=False if self.address == "local" else None,
                    log_to_driver=False,
                )
            )
            try:
                await asyncio.shield(joining)
            except asyncio.CancelledError:
                await asyncio.wait([joining])  # a thread cannot be stopped; _leave ends it properly
                raise
        if isinstance(self.limiter, Limiter):
            self._own_limiter = ClusterLimiter(rpm=self.limiter.rpm, tpm=self.limiter.tpm)

    async def _leave(self) -> None:
        for seat in self.seats:
            self._dismiss(seat)
        if self._own_limiter is not None:
            self._own_limiter.close()
        for push in self._pushes:
            push.cancel()
        if self._has_joined:
            self._has_joined = False
            await asyncio.to_thread(self.ray.shutdown)

    # --- requests --------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Take requests while there is room, give each to the seat that has least; then wait until
        all have come back."""
        failure: Exception | None = None
        requests = self.source()
        try:
            while True:
                while (seat := self._free()) is None:
                    await self._wait_for_room()
                try:
                    request = await anext(requests)
                except StopAsyncIteration:
                    break
                item = _Item(self.taken, request)
                self.taken += 1
                self._give(seat, item)
                await asyncio.sleep(0)  # a plain iterable never waits
        except Exception as error:  # noqa: BLE001  # after the results of what it gave before
            failure = error
        finally:
            close = getattr(requests, "aclose", None)
            if close is not None:
                await close()
        while self.running:
            await self._wait_for_room()
        if failure is not None:
            raise failure

    async def _wait_for_room(self) -> None:
        self._room.clear()
        await self._room.wait()

    def _free(self) -> _Seat | None:
        if self.taken - self._handed_out >= self.actors * self.per_actor:
            return None
        seat = min(self.seats, key=lambda each: len(each.out))
        return seat if len(seat.out) < self.per_actor else None

    def _give(self, seat: _Seat, item: _Item) -> None:
        seat.out[item.index] = item
        seat.shard.append(item)
        if len(seat.shard) >= SHARD:
            self._send(seat)
        elif seat.timer is None:
            assert self._loop is not None  # it runs
            seat.timer = self._loop.call_later(LINGER, self._send, seat)

    def _send(self, seat: _Seat) -> None:
        """Send what is gathered; with nobody there, whoever comes is sent all that is out."""
        shard, seat.shard = seat.shard, []
        if seat.timer is not None:
            seat.timer.cancel()
            seat.timer = None
        if seat.worker is None:
            return
        items: list[Packed] = []
        for item in shard:
            try:
                items.append(packed(item.index, item.request))
            except TypeError as error:
                self._finish(seat, FanOutResult(index=item.index, request="", error=error))
        if items:
            push = asyncio.ensure_future(self._pushed(seat.worker, seat.worker.push.remote(items)))
            self._pushes.add(push)
            push.add_done_callback(self._pushes.discard)

    async def _pushed(self, worker: Any, done: Any) -> None:
        try:
            await done
        except self.ray.exceptions.RayError:
            # Whether it took the shard is not known; its results end, and the seat goes on anew.
            self.ray.kill(worker)

    # --- actors ----------------------------------------------------------------------------------

    async def _man(self, seat: _Seat) -> None:
        """See that an actor sits there, and hear what it answers."""
        silent = 0
        while True:
            limiter = self._own_limiter or self.limiter
            seat.worker = self.ray.remote(max_concurrency=1000, **self.actor_options)(
                Worker
            ).remote(self.client, self.options, self.per_actor, limiter)
            answers = seat.worker.results.options(num_returns="streaming").remote()
            seat.shard = list(seat.out.values())
            self._send(seat)
            loss = "its answers ended"
            try:
                async for answer in answers:
                    batch: list[FanOutResult] | Broken = await answer
                    if isinstance(batch, Broken):
                        raise batch.error
                    silent = -1
                    for result in batch:
                        self._finish(seat, result)
            except self.ray.exceptions.RayError as error:  # lost, or what it said was
                loss = first_line(error)
            self._dismiss(seat)
            self.lost += 1
            silent += 1
            if silent >= SILENT:
                raise TransportError(
                    f"{silent} actors were lost one after the other and none answered; "
                    f"the last: {loss}",
                    kind="closed",
                )
            self._count_losses(seat, loss)

    def _dismiss(self, seat: _Seat) -> None:
        worker, seat.worker = seat.worker, None
        if seat.timer is not None:
            seat.timer.cancel()
            seat.timer = None
        if worker is not None and self.ray.is_initialized():
            self.ray.kill(worker)  # also one that only seems lost: it must not go on

    def _count_losses(self, seat: _Seat, loss: str) -> None:
        for item in list(seat.out.values()):
            item.losses += 1
            if item.losses >= LOSSES:
                error = TransportError(
                    f"{item.losses} actors were lost over this request; the last: {loss}",
                    kind="closed",
                )
                self._finish(seat, FanOutResult(index=item.index, request="", error=error))

    def _finish(self, seat: _Seat, result: FanOutResult) -> None:
        item = seat.out.pop(result.index, None)
        if item is None:
            return
        data = self.data
        if is_mapping(item.request):
            data = item.request.get("data", data)
        self.finished.append(attrs.evolve(result, request=item.request, data=data))
        self._room.set()
        self._news.set()


def _first(failures: BaseExceptionGroup[Any]) -> BaseException:
    failure: BaseException = failures.exceptions[0]
    return _first(failure) if _is_group(failure) else failure


def _is_group(error: BaseException) -> TypeGuard[BaseExceptionGroup[Any]]:
    return isinstance(error, BaseExceptionGroup)
