"""Registrations bound to one stream: a table of what to call for each event class."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from streamchat.background import FLUSHING_EVENTS, Background
from streamchat.context import Context
from streamchat.routes import NO_CALLS, Call, Registration, Routes, Table

__all__ = ["KeptRoutes", "compile_routes"]


@attrs.define(eq=False)
class KeptRoutes:
    """What the last stream of a dispatcher called; the next ones mostly call the same.

    A waiting stream with a table of its own would be a twentieth larger (benchmarks/memory.py).
    """

    last: tuple[Sequence[Registration], Routes] | None = None
    """Both in one, because streams in other threads may read it now."""


def compile_routes(
    registrations: Sequence[Registration],
    make_context: Callable[[], Context],
    interrupt: Callable[[], None],
    kept: KeptRoutes | None = None,
) -> Routes:
    """Freeze registrations into what one stream uses.

    Args:
        registrations: in the order in which they are called.
        make_context: called if one of them takes a context.
        interrupt: a method of the stream that makes it ask for the failure of a background handler.
        kept: where routes are found and left, unless something in them is for this stream alone.
    """
    if not registrations:
        if kept is not None:
            kept.last = None  # it holds functions that were removed meanwhile
        return Routes(NO_CALLS, (), ())
    if kept is not None and (last := kept.last) is not None and last[0] == registrations:
        return last[1].for_another_stream()
    context = make_context() if any(each.takes_context for each in registrations) else None
    errors = _calls("on_error handler", registrations, context)
    middleware = _calls("event middleware", registrations, context)
    background = None
    if any(each.background for each in registrations):
        background = Background(interrupt, errors)
    routes = Routes(_table(registrations, context, background), errors, middleware, background)
    is_own = context is not None or background is not None or any(e.once for e in registrations)
    if kept is not None and not is_own:
        kept.last = registrations, routes.for_another_stream()
    return routes


def _calls(
    role: str, registrations: Sequence[Registration], context: Context | None
) -> tuple[Call, ...]:
    return tuple(_bind(entry, context, None) for entry in registrations if entry.role == role)


def _table(
    registrations: Sequence[Registration], context: Context | None, background: Background | None
) -> Table:
    table: dict[type, tuple[Call, ...]] = {}

    def add(event_class: type, call: Call) -> None:
        table[event_class] = (*table.get(event_class, ()), call)

    for registration in registrations:
        if registration.role == "handler":
            call = _bind(registration, context, background)
            if registration.every is not None and background is not None:
                # Also for events that the handler receives: its filter may leave them out.
                flush: Call = background.last_added.flush_at, False, registration
                for event_class in FLUSHING_EVENTS:
                    add(event_class, flush)
            for event_class in registration.types:
                add(event_class, call)
    return {**NO_CALLS, **table} if table else NO_CALLS


def _bind(
    registration: Registration, context: Context | None, background: Background | None
) -> Call:
    """The function as one of the event alone."""
    function, is_async = registration.function, registration.is_async
    call: Callable[[Any], Any] = function
    if context is not None and registration.takes_context:
        call = _with_context(function, context)
    if registration.timeout is not None:
        call = _limited(call, registration.timeout, registration.name)
    if registration.background and background is not None:
        # What is called in the stream's own task puts the event into the handler's queue.
        call, is_async = background.add(call, registration).put, False
    if registration.where is None and not registration.once:
        return call, is_async, registration
    # Not awaited unless it is called: whether it is a coroutine is seen from what it returns.
    return _filtered(call, registration), False, registration


def _with_context(function: Callable[..., Any], context: Context) -> Callable[[Any], Any]:
    return lambda event: function(event, context)


def _filtered(call: Callable[[Any], Any], registration: Registration) -> Callable[[Any], Any]:
    where, spent = registration.where, False

    def filtered(event: Any) -> Any:
        nonlocal spent
        if spent or (where is not None and not where(event)):
            return None
        spent = registration.once
        return call(event)

    return filtered


def _limited(
    call: Callable[[Any], Awaitable[Any]], seconds: float, name: str
) -> Callable[[Any], Awaitable[Any]]:
    async def limited(event: Any) -> Any:
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await call(event)
        except TimeoutError:
            if not scope.expired():
                raise  # the handler's own
        raise TimeoutError(f"handler {name} took longer than its timeout of {seconds:g} s")

    return limited
