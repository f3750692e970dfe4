"""A request's turns at a limiter: ``LimiterTurn``."""

from __future__ import annotations

from streamchat.limiter import Limiter, Permit, estimate_tokens
from streamchat.plan import Pacer
from streamchat.policy import is_rate_limit
from streamchat.protocol.errors import StatusError, StreamChatError
from streamchat.protocol.events import MessageEnd
from streamchat.protocol.messages import Usage
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

    async def _enter(self, permit: Permit) -> None:
        async with permit:
            pass

    def on_refusal(self, error: StreamChatError) -> None:
        """Pause everybody after a 429."""
        if self._limiter is not None and is_rate_limit(error):
            seconds = error.retry_after if isinstance(error, StatusError) else None
            self._limiter.pause(DEFAULT_PAUSE if seconds is None else seconds)

    def on_end(self, event: MessageEnd) -> None:
        """Settle a single answer; a handler."""
        self.settle(event.usage)

    def settle(self, usage: Usage | None) -> None:
        """Tell what it took, if the server has said."""
        used = tokens_of(usage) if usage is not None else None
        if used is not None:
            self._settle(used)

    def _settle(self, used: float) -> None:
        if self._permit is not None:
            self._permit.settle(used)
            self._permit = None
