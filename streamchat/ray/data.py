"""Answers as columns of a Ray Dataset: ``ChatUDF``, for ``Dataset.map_batches``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from streamchat.fanout import FanOutResult
from streamchat.limiter import Limiter
from streamchat.protocol.errors import StreamChatError
from streamchat.protocol.plain import is_list, is_mapping
from streamchat.ray.cluster import Sealed, client_of, sealed_client
from streamchat.ray.limits import ClusterLimiter

__all__ = ["ChatUDF"]


class ChatUDF:
    """Adds an answer to each row of a batch: a callable class for ``Dataset.map_batches``.

    ::

        dataset.map_batches(
            ChatUDF,
            fn_constructor_kwargs={"column": "prompt", "client": {"model": "command-a-plus-05-2026"}},
            concurrency=2, num_cpus=0.1, batch_size=256,
        )

    The batch comes back as it is, in its order, with these columns more: ``text`` (of a failed row, as
    far as it had come), ``finish_reason``, ``error`` (its class and what it says), ``input_tokens``,
    ``output_tokens`` (as counted by the server), ``attempts`` and ``seconds``. What is not known is
    ``None``, or NaN where it is a number; a row failed if its ``error`` is not ``None``.

    It is asynchronous: Ray Data has several batches of one actor under way, 4 by default, so a slow
    answer holds up its own batch alone. Batches are dicts of arrays, or pandas DataFrames.

    Args:
        column: of the requests: texts, or lists of messages.
        prefix: before the names of the columns that are added.
        concurrency: streams at once of each batch.
        limiter: requests and tokens a minute of all actors together.
        client: keywords of :class:`streamchat.Client`, or a function that returns one; as for
            :class:`~streamchat.ray.RayFanOut`. Ray keeps what is given to a dataset in its plan: let
            the actors read ``CO_API_KEY`` of their environment rather than give a key here.
        **options: of :meth:`streamchat.Client.fan_out`: ``model``, ``timeout``, ``temperature`` ...

    Raises (in the actors): as ``Client``; KeyError if there is no such column; with
    ``on_error="raise"`` the first failure.
    """

    def __init__(
        self,
        column: str = "prompt",
        *,
        prefix: str = "",
        concurrency: int = 128,
        limiter: ClusterLimiter | None = None,
        client: Mapping[str, Any] | Callable[[], Any] | Sealed | None = None,
        **options: Any,
    ) -> None:
        sealed = client if isinstance(client, Sealed) else sealed_client(client)
        client = None  # a traceback shows local variables
        self._column = column
        self._prefix = prefix
        self._concurrency = concurrency
        self._options = options
        self._client = client_of(sealed)
        self._limiter: Limiter | None = limiter.leased() if limiter is not None else None

    async def __call__(self, batch: Any) -> Any:
        """The batch with its answers."""
        columns_of: Any = batch
        is_dict = isinstance(batch, Mapping)
        if not is_dict and not hasattr(batch, "assign"):
            raise TypeError(
                f'a batch must be a dict of arrays (batch_format="numpy") or a DataFrame ("pandas"), '
                f"not {type(batch).__name__}"
            )
        requests = [_plain(cell) for cell in columns_of[self._column]]
        async with self._client.fan_out(
            requests,
            concurrency=self._concurrency,
            ordered=True,
            limiter=self._limiter,
            **self._options,
        ) as answers:
            results = [result async for result in answers]
        columns = {f"{self._prefix}{name}": values for name, values in _columns(results).items()}
        return {**columns_of, **columns} if is_dict else columns_of.assign(**columns)


def _columns(results: list[FanOutResult]) -> dict[str, Any]:
    numpy: Any = importlib.import_module("numpy")
    answers = [result.response or _partial(result.error) for result in results]
    used = [answer.usage.tokens if answer is not None else None for answer in answers]
    texts: dict[str, list[str | None]] = {
        "text": [answer.text if answer is not None else None for answer in answers],
        "finish_reason": [answer.finish_reason if answer else None for answer in answers],
        "error": [
            f"{type(result.error).__name__}: {result.error}" if result.error else None
            for result in results
        ],
    }
    numbers: dict[str, list[float | None]] = {
        "input_tokens": [counts.input_tokens if counts is not None else None for counts in used],
        "output_tokens": [counts.output_tokens if counts is not None else None for counts in used],
        "seconds": [result.timing.total for result in results],
    }
    return {
        **{name: numpy.array(values, dtype=object) for name, values in texts.items()},
        # The same type in every batch, whether something is missing in it or not.
        **{name: numpy.array(values, dtype=float) for name, values in numbers.items()},
        "attempts": numpy.array([result.attempts for result in results], dtype=int),
    }


def _partial(error: Exception | None) -> Any:
    return error.partial if isinstance(error, StreamChatError) else None


def _plain(cell: Any) -> Any:
    """A cell as a request. numpy and Arrow have texts and lists of their own, and a key that some rows
    of a table have, all have, as ``None``."""
    value: Any = cell.tolist() if hasattr(cell, "tolist") else cell
    if is_mapping(value):
        return {name: _plain(field) for name, field in value.items() if field is not None}
    if is_list(value):
        return [_plain(part) for part in value]
    return value
