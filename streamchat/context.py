"""What a handler gets beside its event: ``Context``, and what it may know of its stream.

It refers to the stream by shape and weakly, so that it stands below it and never keeps it open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from streamchat.protocol.request import ChatRequest
from streamchat.protocol.response import ChatResponse
from streamchat.timing import Timing

__all__ = ["Context", "StreamView"]


class StreamView(Protocol):
    """What a handler may know of its stream; the real one is :class:`streamchat.ChatStream`."""

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far."""
        ...

    @property
    def request_id(self) -> str | None:
        """``x-debug-trace-id`` of the response."""
        ...

    @property
    def status(self) -> int | None:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, names in lower case."""
        ...

    @property
    def attempts(self) -> int:
        """How many times the request was sent."""
        ...

    @property
    def timing(self) -> Timing:
        """When things happened, in seconds from the request."""
        ...

    async def aclose(self) -> None:
        """Close the stream; it ends after this event."""
        ...


class Context:
    """What a handler with two parameters gets beside the event; one for each stream.

    ``ctx.data``: what the caller gave as ``data=``. ``ctx.snapshot``: the answer so far.
    ``ctx.stream``: the stream, to look at or to close. ``ctx.request``: what was asked.
    ``ctx.index``: position in a fan-out, ``None`` outside one.
    """

    __slots__ = ("_stream", "data", "index", "request")

    def __init__(
        self,
        stream: Callable[[], StreamView | None],
        request: ChatRequest,
        data: Any,
        index: int | None,
    ) -> None:
        # A weak reference: a cycle would keep the socket of a dropped stream open until the
        # collector runs.
        self._stream = stream
        self.request = request
        """The request that is answered."""
        self.data = data
        """The caller's own: what was given as ``data=``."""
        self.index = index
        """Position in a fan-out, from 0; ``None`` outside one."""

    @property
    def stream(self) -> StreamView:
        """The stream.

        Raises:
            ReferenceError: the stream was dropped; a handler never sees that.
        """
        stream = self._stream()
        if stream is None:
            raise ReferenceError("the stream of this context is gone")
        return stream

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far, this event included."""
        return self.stream.snapshot
