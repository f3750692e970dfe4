"""Fan-out over a Ray cluster: ``RayFanOut``, and ``ChatUDF`` for Ray Data; needs the extra ``ray``.

One machine is enough for most: a process holds thousands of streams (``Client.fan_out``), and a rate
limit is usually reached before a core is. A cluster is for handlers that need CPU, for very large data
that is there already, and for jobs that must survive the loss of a machine.

The flow::

    requests -> shards -> async actors, one Client and many streams each -> results as they complete

Known limits: leased permits that are held up (a network stall) can be used in one burst, so a minute may
then see more than the limit (measured: 66 of 60 requests, 128,000 of 100,000 tokens); a request whose
estimate is more than 97 % of ``tpm`` is refused; a few slow answers hold up the shards behind them.

A shard is sent when an earlier one is done and its results were taken: so memory is bounded by
``actors * per_actor``. When an actor is lost, another takes what it had not answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from itertools import count, islice
from types import TracebackType
from typing import Any, Self, cast

import attrs

from streamchat.client import Client
from streamchat.fanout import FanOutResult, Request
from streamchat.limiter import Limiter, Permit
from streamchat.protocol.errors import ConfigurationError, TransportError
from streamchat.protocol.plain import is_list, is_mapping
from streamchat.refusal import two_consumers

__all__ = ["ChatUDF", "RayFanOut"]

SHARD = 50
"""Requests of one call of an actor: a call costs as much as some of them."""
LEASE_SECONDS = 1.0
"""How long permits are gathered before they are handed out: about one call a second and actor."""
LEASED_SHARE = 0.97
"""Of the limits: a permit is used up to a lease's time after it counted, so a minute of use may hold
the permits of 61 seconds, and a burst of one in a hundred."""
TRIES = 3
"""Actors that may be lost over one shard; what makes one crash each time is not tried for ever."""
KEPT_PERMITS = 100_000


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigurationError(
            "fan-out over a cluster needs the extra: pip install 'streamchat[ray]'"
        ) from None


@attrs.frozen(repr=False)
class _Settings:
    """The keywords of ``Client``, on their way to an actor; a key shows nowhere."""

    keywords: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<settings {', '.join(self.keywords)}>"

    def client(self) -> Client:
        return Client(**self.keywords)


# --- one limiter for all -------------------------------------------------------------------------


class _Limits:
    """The actor that holds the cluster's limiter."""

    def __init__(self, rpm: float | None, tpm: float | None) -> None:
        self._limiter = _limiter(rpm, tpm)
        self._numbers = count()
        self._permits: dict[int, Permit] = {}

    async def lease(self, wanted: list[float], settled: list[tuple[int, float]]) -> list[int]:
        """Permits for requests that wait, in their order: the first as soon as there is one, and
        those that follow within the time of a lease. ``settled``: what earlier ones took."""
        for number, used in settled:
            permit = self._permits.pop(number, None)
            if permit is not None:
                permit.settle(used)
        loop, granted = asyncio.get_running_loop(), list[int]()
        deadline: float | None = None
        for tokens in wanted:
            permit = self._limiter.admit(tokens)
            try:
                async with asyncio.timeout_at(deadline):
                    await permit.__aenter__()
            except TimeoutError:
                break
            deadline = deadline or loop.time() + LEASE_SECONDS
            number = next(self._numbers)
            self._permits[number] = permit
            granted.append(number)
        while (
            len(self._permits) > KEPT_PERMITS
        ):  # of actors that were lost: they stand as estimated
            del self._permits[next(iter(self._permits))]
        return granted

    async def pause(self, seconds: float) -> None:
        """Nobody gets a permit for so long."""
        self._limiter.pause(seconds)


def _limiter(rpm: float | None, tpm: float | None) -> Limiter:
    return Limiter(
        rpm=None if rpm is None else max(1.0, rpm * LEASED_SHARE),
        tpm=None if tpm is None else max(1.0, tpm * LEASED_SHARE),
    )


class _LeasedLimiter(Limiter):
    """An actor's side of the cluster's limiter: it asks once for all of its requests that wait."""

    def __init__(self, limits: Any, rpm: float | None, tpm: float | None) -> None:
        super().__init__(rpm=rpm, tpm=tpm)
        self._limits = limits
        self._check = _limiter(rpm, tpm)
        self._waiting: list[_LeasedPermit] = []
        self._settled: list[tuple[int, float]] = []
        self._asking: asyncio.Task[None] | None = None

    def admit(self, tokens: float = 0) -> Permit:
        """As :meth:`streamchat.Limiter.admit`."""
        self._check.admit(tokens)  # a request that is larger than the limit is refused here
        return _LeasedPermit(self, tokens)

    def pause(self, seconds: float) -> None:
        """For the whole cluster."""
        self._limits.pause.remote(seconds)

    async def wait(self, permit: _LeasedPermit) -> None:
        """Wait for a permit, with all others that wait."""
        self._waiting.append(permit)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())
        try:
            await permit.granted
        except asyncio.CancelledError:
            if permit in self._waiting:
                self._waiting.remove(permit)
            elif permit.number is not None:
                self.settle(permit, 0)
            raise

    async def _ask(self) -> None:
        while self._waiting:
            asked, settled = list(self._waiting), self._settled
            self._settled = []
            try:
                numbers = await self._limits.lease.remote([each.tokens for each in asked], settled)
            except Exception:  # noqa: BLE001  # the limiter is gone, and with it every promise
                failure = TransportError("the cluster's limiter was lost", kind="closed")
                for each in self._waiting:
                    if not each.granted.done():
                        each.granted.set_exception(failure)
                self._waiting.clear()
                return
            for each, number in zip(asked, numbers, strict=False):
                each.number = number
                if each in self._waiting:
                    self._waiting.remove(each)
                    if not each.granted.done():
                        each.granted.set_result(None)
                else:  # cancelled meanwhile
                    self.settle(each, 0)

    def settle(self, permit: _LeasedPermit, used: float) -> None:
        """Told with the next lease."""
        if permit.number is not None:
            self._settled.append((permit.number, used))
            permit.number = None


class _LeasedPermit(Permit):
    def __init__(self, limiter: _LeasedLimiter, tokens: float) -> None:
        self._of = limiter
        self._tokens = tokens
        self.number: int | None = None
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def tokens(self) -> float:
        """What the request counts for."""
        return self._tokens

    async def __aenter__(self) -> Self:
        await self._of.wait(self)
        return self

    def settle(self, used: float) -> None:
        """As :meth:`streamchat.limiter.Permit.settle`."""
        self._of.settle(self, used)


# --- the actors ----------------------------------------------------------------------------------


class _Worker:
    """The actor that answers shards."""

    def __init__(self, settings: _Settings, limits: Any, rpm: Any, tpm: Any) -> None:
        self._client = settings.client()
        self._limiter = _LeasedLimiter(limits, rpm, tpm) if limits is not None else None

    async def answer(self, items: list[tuple[int, Request]]) -> AsyncIterator[FanOutResult]:
        """The results of a shard, as they complete, with the indexes that were given."""
        requests = [request for _, request in items]
        results = self._client.fan_out(
            requests, concurrency=max(1, len(requests)), limiter=self._limiter
        )
        async with results:
            async for result in results:
                yield attrs.evolve(result, index=items[result.index][0], data=None, request="")


class RayFanOut:
    """Many answers from many machines, as they complete; consumed like :class:`streamchat.FanOut`.

    ::

        async with RayFanOut(prompts, actors=4, model="command-a-03-2025") as results:
            async for result in results: ...

    Args:
        requests: as for :meth:`streamchat.Client.fan_out`, without handlers; what is not to travel
            (``data``) stays here, and comes back with the result.
        actors: how many; Ray spreads them over the cluster.
        per_actor: streams at once of each.
        rpm: requests a minute of the whole cluster; no limit by default.
        tpm: tokens a minute of the whole cluster; no limit by default.
        model: for requests that name none.
        client: keywords of :class:`streamchat.Client` for each actor. Without ``api_key`` each reads
            its own environment; a key that is given travels inside Ray, unencrypted unless your
            cluster uses TLS, and shows in no ``repr``.
        address: of the cluster; ``"local"`` starts one on this machine. ``None``: the one that
            ``ray.init()`` has joined, or as ``ray.init()`` finds it.

    Raises (while it is iterated): what the requests' own iterator raises, after the results of what it
    gave before. ``ConfigurationError`` at once if Ray is not installed.
    """

    def __init__(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        actors: int = 2,
        per_actor: int = 128,
        rpm: float | None = None,
        tpm: float | None = None,
        model: str | None = None,
        client: Mapping[str, Any] | None = None,
        address: str | None = None,
    ) -> None:
        for name, value in (("actors", actors), ("per_actor", per_actor)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
        self._ray = _ray()
        Limiter(rpm=rpm, tpm=tpm)  # says what is wrong with them
        keywords = dict(client or {})
        if model is not None:
            keywords["model"] = model
        self._settings = _Settings(keywords)
        self._requests = requests
        self._actors, self._per_actor = actors, per_actor
        self._limits_of = rpm, tpm
        self._address = address
        self._limits: Any = None
        self._workers: list[Any] = []
        self._results: asyncio.Queue[FanOutResult] = asyncio.Queue(per_actor)
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FanOutResult:
        if self._busy:
            raise two_consumers()
        self._busy = True
        try:
            if not self._tasks:
                await self._start()
            return await self._next()
        finally:
            self._busy = False

    async def _next(self) -> FanOutResult:
        taken = asyncio.ensure_future(self._results.get())
        try:
            while not taken.done():
                running = [task for task in self._tasks if not task.done()]
                if not running and self._results.empty():
                    break
                await asyncio.wait([taken, *running], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            taken.cancel()
            raise
        if taken.done():
            return taken.result()
        taken.cancel()
        tasks = list(self._tasks)
        await self.aclose()
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        raise StopAsyncIteration

    # --- the cluster -----------------------------------------------------------------------------

    async def _start(self) -> None:
        ray = self._ray
        if not ray.is_initialized():
            await asyncio.to_thread(
                ray.init, address=self._address, log_to_driver=False, include_dashboard=False
            )
        rpm, tpm = self._limits_of
        if rpm is not None or tpm is not None:
            remote = ray.remote(num_cpus=0, max_concurrency=1000)(_Limits)
            self._limits = remote.remote(rpm, tpm)
        self._workers = [self._new_worker() for _ in range(self._actors)]
        size = min(SHARD, self._per_actor)
        source = _Numbered(self._requests)
        self._tasks = [
            asyncio.ensure_future(self._work(place % self._actors, source, size))
            for place in range(self._actors * max(1, self._per_actor // size))
        ]

    def _new_worker(self) -> Any:
        # Waiting for sockets takes no core: Ray counts a fraction of one.
        remote = self._ray.remote(num_cpus=0.1, max_concurrency=1000)(_Worker)
        return remote.remote(self._settings, self._limits, *self._limits_of)

    async def _work(self, place: int, source: _Numbered, size: int) -> None:
        """Take shards and see them answered, one after the other."""
        while shard := await source.take(size):
            left = dict(shard)
            for _ in range(TRIES):
                await self._answer(place, left)
                if not left:
                    break
            for index, request in left.items():
                await self._results.put(
                    FanOutResult(
                        index=index,
                        request=request,
                        error=TransportError(
                            f"{TRIES} actors were lost over this request", kind="closed"
                        ),
                        data=_data(request),
                    )
                )

    async def _answer(self, place: int, left: dict[int, Request]) -> None:
        """Have a shard answered; what stays in ``left`` was lost with its actor."""
        worker = self._workers[place]
        sent = [(index, _sendable(request)) for index, request in left.items()]
        try:
            answers = worker.answer.options(num_returns="streaming").remote(sent)
            async for reference in answers:
                result: FanOutResult = await reference
                request = left.pop(result.index)
                await self._results.put(attrs.evolve(result, request=request, data=_data(request)))
        except self._ray.exceptions.RayActorError:
            if self._workers[place] is worker:  # not replaced yet by another of its shards
                self._workers[place] = self._new_worker()

    async def aclose(self) -> None:
        """Stop: end the actors and wait until nothing runs here. Idempotent."""
        tasks, self._tasks = self._tasks, self._tasks or [_nothing()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        workers, self._workers, limits, self._limits = self._workers, [], self._limits, None
        for actor in (*workers, *([limits] if limits is not None else ())):
            with contextlib.suppress(Exception):  # it is gone already
                self._ray.kill(actor)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _nothing() -> asyncio.Task[None]:
    """A task that has nothing to do: what was closed before it began ends when it is iterated."""
    return asyncio.ensure_future(asyncio.sleep(0))


def _data(request: Any) -> Any:
    return request.get("data") if is_mapping(request) else None


def _sendable(request: Any) -> Request:
    """The request without what stays with the driver."""
    if not is_mapping(request):
        return cast("Request", request)
    fields = dict(request)
    fields.pop("data", None)
    return fields


class _Numbered:
    """The requests with their positions, some at a time, for several takers."""

    def __init__(self, requests: Iterable[Request] | AsyncIterable[Request]) -> None:
        self._sync: Iterator[Request] | None = None
        self._async: AsyncIterator[Request] | None = None
        if isinstance(requests, AsyncIterable):
            self._async = aiter(requests)
        else:
            self._sync = iter(requests)
        self._count = 0
        self._lock = asyncio.Lock()

    async def take(self, size: int) -> list[tuple[int, Request]]:
        """The next requests; none at the end."""
        async with self._lock:
            taken: list[Request] = []
            if self._sync is not None:
                taken = list(islice(self._sync, size))
            elif self._async is not None:
                async for request in self._async:
                    taken.append(request)
                    if len(taken) == size:
                        break
            first, self._count = self._count, self._count + len(taken)
            return [(first + position, request) for position, request in enumerate(taken)]


# --- Ray Data ------------------------------------------------------------------------------------


class ChatUDF:
    """Answers for the rows of a Ray Dataset: ``dataset.map_batches(ChatUDF, ...)``.

    ::

        dataset.map_batches(
            ChatUDF,
            fn_constructor_kwargs={"column": "prompt", "model": "command-a-03-2025"},
            concurrency=4,
        )

    Each batch gets the columns ``text``, ``finish_reason`` and ``error`` (empty texts where there is
    nothing to say), in the order of its rows.

    Args:
        column: of the prompts: texts, or lists of messages.
        model: the model's id.
        concurrency: streams at once of one actor.
        client: further keywords of :class:`streamchat.Client`.
        **options: of :meth:`streamchat.Client.fan_out`.
    """

    def __init__(
        self,
        *,
        column: str = "prompt",
        model: str | None = None,
        concurrency: int = 64,
        client: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._column = column
        self._concurrency = concurrency
        self._options = options
        self._runner = asyncio.Runner()
        keywords: dict[str, Any] = dict(client or {})
        if model is not None:
            keywords["model"] = model
        self._client = Client(**keywords)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its answers."""
        prompts = [_prompt(value) for value in batch[self._column]]
        results = self._runner.run(self._answers(prompts))
        numpy: Any = importlib.import_module("numpy")
        columns: dict[str, list[str]] = {
            "text": [each.response.text if each.response else "" for each in results],
            "finish_reason": [
                (each.response.finish_reason if each.response else None) or "" for each in results
            ],
            "error": ["" if each.error is None else _told(each.error) for each in results],
        }
        return {**batch, **{name: numpy.array(values) for name, values in columns.items()}}

    def __del__(self) -> None:
        client, runner = getattr(self, "_client", None), getattr(self, "_runner", None)
        if client is not None and runner is not None:
            with contextlib.suppress(RuntimeError):  # its thread is gone, and the process will be
                runner.run(client.aclose())
                runner.close()

    async def _answers(self, prompts: list[Any]) -> list[FanOutResult]:
        results = self._client.fan_out(
            prompts, concurrency=self._concurrency, ordered=True, **self._options
        )
        async with results:
            return [result async for result in results]


def _prompt(value: Any) -> Any:
    """A cell as a request: numpy has texts and lists of its own."""
    plain: Any = value.tolist() if hasattr(value, "tolist") else value
    return plain if is_list(plain) else str(plain)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
