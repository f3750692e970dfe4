"""What a stream is given to run: one record, made by a client."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import random as draw
from typing import Any, Protocol

import attrs

from streamchat.dispatcher import Dispatcher
from streamchat.policy import Retry, RetryBudget, Timeout
from streamchat.protocol.errors import StreamChatError
from streamchat.protocol.events import MessageEnd
from streamchat.protocol.request import ChatRequest
from streamchat.transport import Transport

__all__ = ["MAX_ANSWER_BYTES", "Pacer", "Plan"]

MAX_ANSWER_BYTES = 256 * 2**20
"""The largest answer by default: a hundred times what the longest output of a model takes."""


class Pacer(Protocol):
    """Rate-limiting hook, awaited before every attempt."""

    async def before_attempt(self, request: ChatRequest, body: bytes) -> None:
        """Wait for the turn."""
        ...

    def on_refusal(self, error: StreamChatError, retry: Retry) -> None:
        """A try has failed, with this; ``retry`` is the request's own policy."""
        ...

    def on_end(self, end: MessageEnd) -> None:
        """The answer is complete."""
        ...


@attrs.define(kw_only=True, eq=False)
class Plan:
    """What a stream needs to know to run; a client makes it, and nothing changes it.

    (Not frozen: making a frozen one takes 1.3 us more.)
    """

    transport: Transport
    request: ChatRequest
    """Middleware may have changed in place what it holds, unless :attr:`is_untouched`."""
    headers: Mapping[str, str]
    dispatchers: tuple[Dispatcher, ...]
    timeout: Timeout
    retry: Retry
    budget: RetryBudget
    max_event_bytes: int
    max_answer_bytes: int = MAX_ANSWER_BYTES
    data: Any = None
    index: int | None = None
    pacer: Pacer | None = None
    is_untouched: bool = False
    """Whether nobody has had the request in hands since it was made and checked."""
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    random: Callable[[], float] = draw

    def encode(self) -> bytes:
        """The request as it is sent.

        Raises:
            TypeError, ValueError: it holds what JSON cannot say; the message says where.
        """
        return self.request.encode(is_untouched=self.is_untouched)

    def used_call_ids(self) -> frozenset[str]:
        """The ids of the tool calls in the messages of the request."""
        ids: set[str] = set()
        for message in self.request.messages:
            for call in message.get("tool_calls") or ():
                if isinstance(identity := call.get("id"), str):
                    ids.add(identity)
        return frozenset(ids)
