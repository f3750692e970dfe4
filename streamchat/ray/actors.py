"""What runs in an actor: one client, one fan-out for as long as the actor lives, and no state to lose."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import Any

import attrs

from streamchat.fanout import FanOutResult, Request
from streamchat.protocol.errors import StreamChatError
from streamchat.protocol.plain import is_mapping
from streamchat.ray.cluster import Sealed, client_of, library
from streamchat.ray.limits import ClusterLimiter

__all__ = ["Broken", "Packed", "Worker", "packed"]

Packed = tuple[int, bytes]
"""A request's position and its pickle: what cannot be read again is an error of its own."""


@attrs.frozen
class Broken:
    """Instead of results: why this actor, and every other of its kind, gives none."""

    error: Exception


def packed(index: int, request: Any) -> Packed:
    """A request on its way; its ``data`` stays with whoever sent it.

    Raises:
        TypeError: it cannot be pickled.
    """
    if is_mapping(request):
        request = {name: value for name, value in request.items() if name != "data"}
    try:
        return index, library().cloudpickle.dumps(request)
    except Exception as error:  # noqa: BLE001  # whatever its __reduce__ raises
        raise TypeError(f"a request has to be pickled: {type(error).__name__}: {error}") from None


class Worker:
    """Answers requests: they come by :meth:`push`, results go by :meth:`results`, as they complete.

    Args:
        client: see ``cluster.client_of``.
        options: of :meth:`streamchat.Client.fan_out`; they may hold headers, so they are sealed too.
        concurrency: streams at once.
        limiter: of the cluster.
    """

    def __init__(
        self, client: Sealed, options: Sealed, concurrency: int, limiter: ClusterLimiter | None
    ) -> None:
        # Nothing that can fail: Ray would tell it as pages of text instead of as an exception.
        self._client = client
        self._options = options
        self._concurrency = concurrency
        self._limiter = limiter
        self._requests: asyncio.Queue[tuple[int, Request]] = asyncio.Queue()
        self._results: asyncio.Queue[FanOutResult | Broken] = asyncio.Queue()
        self._indices: dict[int, int] = {}
        """The fan-out's own count to the positions in the whole."""

    async def push(self, items: list[Packed]) -> None:
        """Take a shard; nothing waits here, the driver counts what it has sent."""
        for index, pickled in items:
            try:
                self._requests.put_nowait((index, pickle.loads(pickled)))  # noqa: S301
            except Exception as error:  # noqa: BLE001  # a class that is not installed here, say
                failure = TypeError(f"a request cannot be read: {type(error).__name__}: {error}")
                self._results.put_nowait(FanOutResult(index=index, request="", error=failure))

    async def results(self) -> AsyncIterator[list[FanOutResult] | Broken]:
        """What completes, in lists: the busier it is, the longer they are. Once only."""
        answering = asyncio.ensure_future(self._answer())
        try:
            while True:
                batch = [await self._results.get()]
                while not self._results.empty():
                    batch.append(self._results.get_nowait())
                results = [result for result in batch if isinstance(result, FanOutResult)]
                if results:
                    yield results
                for broken in batch:
                    if isinstance(broken, Broken):
                        yield broken
                        return
        finally:
            answering.cancel()

    async def _answer(self) -> None:
        try:
            async with client_of(self._client) as client:
                limiter = self._limiter.leased() if self._limiter is not None else None
                async for result in client.fan_out(
                    self._taken(),
                    concurrency=self._concurrency,
                    limiter=limiter,
                    **self._options.open(),
                ):
                    self._results.put_nowait(self._ready_to_go(result))
        except Exception as error:  # noqa: BLE001  # settings that cannot work
            self._results.put_nowait(Broken(_sendable(error)))

    async def _taken(self) -> AsyncIterator[Request]:
        taken = 0
        while True:
            self._indices[taken], request = await self._requests.get()
            taken += 1
            yield request

    def _ready_to_go(self, result: FanOutResult) -> FanOutResult:
        return attrs.evolve(
            result,
            index=self._indices.pop(result.index),
            request="",  # the driver has it
            error=_sendable(result.error) if result.error is not None else None,
            data=None,
        )


def _sendable(error: Exception) -> Exception:
    """The error, or what it says if it does not survive the way: an exception of somebody's handler."""
    if isinstance(error, StreamChatError):
        return error
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # noqa: BLE001  # whatever its __reduce__ or __init__ raises
        return StreamChatError(f"{type(error).__name__}: {error}")
    return error
