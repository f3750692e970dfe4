"""Other ways to iterate over a stream: its text, its thinking, its raw frames.

Classes, not asynchronous generators: leaving one early leaves nothing to finalise; the stream owns
the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from streamchat.asynchronous import AsyncOnly
from streamchat.protocol.events import ContentDelta
from streamchat.protocol.sse import Frame

__all__ = ["Frames", "Pieces"]


class Pieces(AsyncOnly):
    """The text or the thinking of a stream, piece by piece."""

    def __init__(
        self,
        events: AsyncIterator[object],
        kind: Literal["text", "thinking"],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.aclose = close
        """Close the stream, as ``contextlib.aclosing`` does."""
        self._events = events
        self._kind = kind

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await anext(self._events)
            if isinstance(event, ContentDelta) and event.kind == self._kind:
                piece = event.text or event.thinking
                if piece:
                    return piece


class Frames(AsyncOnly):
    """The frames of a stream as they are."""

    def __init__(
        self,
        next_frame: Callable[[], Awaitable[Frame]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.aclose = close
        """Close the stream, as ``contextlib.aclosing`` does."""
        self._next_frame = next_frame

    def __aiter__(self) -> Frames:
        return self

    async def __anext__(self) -> Frame:
        return await self._next_frame()
