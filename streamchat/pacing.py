"""A request's turns at a limiter: ``LimiterTurn``."""

from __future__ import annotations

import math

from streamchat.limiter import Limiter, Permit, estimate_tokens, most_tokens
from streamchat.plan import Pacer
from streamchat.policy import Retry, is_rate_limit
from streamchat.protocol.errors import StatusError, StreamChatError
from streamchat.protocol.events import MessageEnd
from streamchat.protocol.request import ChatRequest
from streamchat.stops import tokens_of

__all__ = ["LimiterTurn"]

DEFAULT_PAUSE = 1.0
"""Seconds that everybody pauses after a 429 that says nothing of how long."""


class LimiterTurn(Pacer):
    """Waits for the limiter before each attempt, and tells it what the answer took."""

    def __init__(self, limiter: Limiter | None) -> None:
        self._limiter = limiter
        self._permit: Permit | None = None
        self._most = math.inf
        """Tokens that the current attempt can have used."""

    async def before_attempt(self, request: ChatRequest, body: bytes) -> None:
        """Wait for the turn.

        Raises:
            ValueError: the request needs more tokens than the limit allows in a minute.
        """
        if self._limiter is not None:
            self._settle(0)  # an attempt that failed took no tokens
            permit = self._limiter.admit(estimate_tokens(body, request.max_tokens))
            await self._enter(permit)
            self._permit = permit
            # The limit itself as well: a request that takes more than a minute is not admitted.
            self._most = min(most_tokens(body, request.max_tokens), self._limiter.tpm or math.inf)

    async def _enter(self, permit: Permit) -> None:
        async with permit:
            pass

    def on_refusal(self, error: StreamChatError, retry: Retry) -> None:
        """Pause everybody after a 429, for what the request itself would wait at most.

        One server must not stop them all.
        """
        if self._limiter is not None and is_rate_limit(error):
            seconds = error.retry_after if isinstance(error, StatusError) else None
            wanted = DEFAULT_PAUSE if seconds is None else seconds
            self._limiter.pause(min(wanted, retry.max_retry_after))

    def on_end(self, end: MessageEnd) -> None:
        """Report the tokens that the server counted, if it did, up to what the request can have used."""
        used = tokens_of(end.usage)
        if used is not None:
            self._settle(min(used, self._most))

    def _settle(self, used: float) -> None:
        if self._permit is not None:
            self._permit.settle(used)
            self._permit = None
