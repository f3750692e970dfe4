"""What a stream is given to run, and the times it gives back: records without behaviour."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import random as draw
from typing import Any

import attrs

from streamchat.dispatcher import Dispatcher
from streamchat.policy import Retry, RetryBudget, Timeout
from streamchat.protocol.request import ChatRequest
from streamchat.transport import Transport

__all__ = ["Plan", "Timing"]


@attrs.frozen
class Timing:
    """When things happened, in seconds from the request; ``None`` for what has not."""

    first_byte: float | None
    """Status and headers were there."""
    first_event: float | None
    """The first event was there."""
    first_text: float | None
    """The first text of the answer was there: the "time to first token"."""
    longest_gap: float | None
    """The longest pause between two arrivals of events."""
    total: float | None
    """The answer was complete, or failed."""


@attrs.frozen(kw_only=True)
class Plan:
    """What a stream needs to know to run; a client makes it."""

    transport: Transport
    request: ChatRequest
    body: bytes
    headers: Mapping[str, str]
    dispatchers: tuple[Dispatcher, ...]
    timeout: Timeout
    retry: Retry
    budget: RetryBudget
    max_event_bytes: int
    data: Any = None
    index: int | None = None
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    random: Callable[[], float] = draw
