"""Functions around a request: each sees it, may change it, and gets the stream."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from streamchat.credentials import checked_headers, hidden, merged_headers
from streamchat.plan import Plan
from streamchat.protocol.request import ChatRequest
from streamchat.signatures import checked_callable, is_async, name_of
from streamchat.stream import ChatStream

__all__ = ["Middleware", "Send", "chain", "checked_middleware"]


class Send(Protocol):
    """What sends a request on: to the next middleware, at last into a stream."""

    def __call__(
        self, request: ChatRequest, /, *, headers: Mapping[str, str] | None = None
    ) -> ChatStream:
        """The stream that will answer; nothing is sent before it is consumed.

        Args:
            request: the one that was given, or another (``attrs.evolve``).
            headers: sent over those of the client and of the call.
        """
        ...


Middleware = Callable[[ChatRequest, Send], ChatStream]
"""See :meth:`streamchat.Client.middleware`."""


def checked_middleware(function: Any) -> None:
    """Refuse what cannot stand around a request.

    Raises:
        TypeError: not callable with ``(request, send)``, or async.
    """
    checked_callable(function, "middleware")
    name = name_of(function)
    if is_async(function):
        raise TypeError(
            f"middleware {name} must be a plain function: streams are made without awaiting; "
            "what has to be awaited belongs into a handler"
        )
    try:
        inspect.signature(function).bind(object(), object())
    except ValueError:  # some builtins have no signature
        pass
    except TypeError:
        raise TypeError(f"middleware {name} must take (request, send)") from None


def chain(middleware: Sequence[Middleware]) -> Callable[[Plan], ChatStream]:
    """How a plan becomes a stream; the first middleware is the outermost."""
    make: Callable[[Plan], ChatStream] = ChatStream
    for function in reversed(middleware):
        make = _around(function, make)
    return make


def _around(
    function: Middleware, inner: Callable[[Plan], ChatStream]
) -> Callable[[Plan], ChatStream]:
    def outer(plan: Plan) -> ChatStream:
        def send(
            request: ChatRequest, /, *, headers: Mapping[str, str] | None = None
        ) -> ChatStream:
            headers = hidden(headers)  # first: a traceback shows local variables
            if not isinstance(request, ChatRequest):
                raise TypeError(
                    f"middleware {name_of(function)} sent a {type(request).__name__} on, "
                    "not a ChatRequest"
                )
            headers = checked_headers(headers)
            if not headers and request is plan.request:
                return inner(plan)  # nothing changed: the body is not encoded again
            merged = merged_headers(plan.headers, headers)
            return inner(attrs.evolve(plan, request=request, headers=merged))

        stream = function(plan.request, send)
        if not isinstance(stream, ChatStream):
            raise TypeError(
                f"middleware {name_of(function)} must return the stream that send(request) gave, "
                f"not {type(stream).__name__}"
            )
        return stream

    return outer
