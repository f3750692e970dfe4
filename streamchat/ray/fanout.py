"""Many requests, many machines: ``RayFanOut``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from streamchat.fanout import FanOutResult, OnError, Request, Requests
from streamchat.limiter import Limiter
from streamchat.protocol.plain import is_mapping
from streamchat.ray.cluster import Sealed, sealed_client
from streamchat.ray.engine import Engine
from streamchat.ray.limits import ClusterLimiter
from streamchat.refusal import two_consumers

__all__ = ["RayFanOut"]


class RayFanOut:
    """Many answers from many machines, as they complete; consumed like :class:`streamchat.FanOut`.

    ::

        async with RayFanOut(prompts, actors=4, client={"model": "command-a-plus-05-2026"}) as results:
            async for result in results: ...

        for result in RayFanOut(prompts, actors=4, client=make_client): ...     # where no loop runs

    Every request ends as one result. A lost actor is replaced, and the next one is sent what had not
    come back; such a request may so have been *sent* twice. Nothing is taken and nothing started before
    it is iterated, and never more than ``actors * per_actor`` ahead of the results taken. Leaving early,
    by ``break`` of a plain ``for``, :meth:`aclose` or the end of an ``async with``, ends the actors.

    Args:
        requests: as for :meth:`streamchat.Client.fan_out`. They are pickled, all but their ``data``,
            which stays here and comes back with the result.
        actors: how many; Ray spreads them over the cluster.
        per_actor: streams at once of each.
        limiter: requests and tokens a minute of all actors together. The limits of a
            :class:`streamchat.Limiter` are kept by an actor made for this; a
            :class:`~streamchat.ray.ClusterLimiter` is shared with other jobs.
        on_error: ``"return"`` a failure as a result, or ``"raise"`` the first and end the rest.
        client: keywords of :class:`streamchat.Client`, or a function that returns one, with handlers
            and middleware if you like; it is made in each actor. Without ``api_key`` each actor reads
            the environment of its own machine. A key that is given shows nowhere, but travels as
            everything in Ray does: unencrypted, unless the cluster uses TLS.
        address: of the cluster; ``"local"`` starts one on this machine. ``None`` is the one that this
            process has joined, or as ``ray.init()`` finds it. What is joined here is left at the end.
        actor_options: of Ray, for the actors: ``{"num_cpus": 1, "runtime_env": ...}``. By default they
            take no core, as they wait for sockets, and are spread over the machines.
        **options: ``model``, ``handlers``, ``timeout``, ``retry``, ``headers`` and any field of Chat
            v2, for each of the requests. In an actor ``ctx.index`` counts the requests of that actor.

    Raises:
        ConfigurationError: Ray is not installed.
        TypeError, ValueError: an argument that means nothing; it is named.

    Raises (while it is iterated): what the requests' own iterator raises, after the results of what it
    gave before; what ``Client`` raises in the actors; :class:`streamchat.TransportError` when actors are
    lost one after the other and none of them answers; with ``on_error="raise"`` the first failure.
    """

    def __init__(
        self,
        requests: Requests,
        *,
        actors: int = 2,
        per_actor: int = 128,
        limiter: Limiter | ClusterLimiter | None = None,
        on_error: OnError = "return",
        client: Mapping[str, Any] | Callable[[], Any] | None = None,
        address: str | None = None,
        actor_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        sealed, client = sealed_client(client), None  # first: a traceback shows local variables
        common, options = Sealed(options), {}
        if limiter is not None and not isinstance(limiter, Limiter | ClusterLimiter):
            raise TypeError(
                f"limiter must be a Limiter or a ClusterLimiter, not {type(limiter).__name__}"
            )
        if on_error not in ("return", "raise"):
            raise ValueError(f'on_error must be "return" or "raise", not {on_error!r}')
        for name in ("concurrency", "ordered", "adaptive"):
            if name in common.open():
                raise TypeError(f"RayFanOut takes no {name}")
        self._busy = False
        self._engine = Engine(
            source=_source(requests),
            data=common.open().pop("data", None),
            actors=_positive("actors", actors),
            per_actor=_positive("per_actor", per_actor),
            limiter=limiter,
            raises=on_error == "raise",
            client=sealed,
            options=common,
            address=address,
            actor_options={"num_cpus": 0, "scheduling_strategy": "SPREAD", **(actor_options or {})},
        )

    @property
    def running(self) -> int:
        """How many requests are taken and have not come back."""
        return self._engine.running

    @property
    def taken(self) -> int:
        """How many requests were taken so far."""
        return self._engine.taken

    @property
    def lost(self) -> int:
        """How many actors were lost, and replaced."""
        return self._engine.lost

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
            del self  # a kept traceback would keep the actors

    def __iter__(self) -> Iterator[FanOutResult]:
        """The results where no event loop runs, as in most drivers."""
        with asyncio.Runner() as runner:
            try:
                while True:
                    try:
                        result = runner.run(self.__anext__())
                    except StopAsyncIteration:
                        return
                    yield result
            finally:
                runner.run(self.aclose())

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
        """End the actors, and what was started for them; iterating then ends. Idempotent."""
        await self._engine.aclose()

    def __del__(self) -> None:
        engine: Engine | None = getattr(self, "_engine", None)
        if engine is not None:
            engine.cancel()

    def __repr__(self) -> str:
        return f"<RayFanOut taken={self.taken} running={self.running} lost={self.lost}>"


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value


def _source(requests: Any) -> Callable[[], AsyncIterator[Request]]:
    """The requests one by one, whatever they come from.

    Raises:
        TypeError: nothing to iterate over.
    """
    if hasattr(requests, "__aiter__"):
        return lambda: aiter(requests)
    if isinstance(requests, str) or is_mapping(requests) or not hasattr(requests, "__iter__"):
        raise TypeError(
            f"requests must be a list or another iterable of requests, not {type(requests).__name__}"
        )

    async def one_by_one() -> AsyncIterator[Request]:
        for request in requests:
            yield request

    return one_by_one
